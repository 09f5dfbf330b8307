#include "engine.h"

#include <kosmos.h>

#include "memory.h"
#include "picture.h"

typedef enum { JOB_LOAD, JOB_CAPTION, JOB_ASK, JOB_QUIT } JobKind;

/* A request. The main thread owns it; the worker uses it until it has posted its last event. */
typedef struct {
  JobKind kind;
  Engine *engine;
  kosmos_cancel *cancel;
  guint64 limit; /* bytes; 0: none */
  guint64 over;  /* the memory that was used when that was above the limit; else 0 */
  GFile *file;   /* caption: one of the two */
  GdkTexture *texture;
  char *question;     /* ask */
  gboolean cancelled; /* only the main thread uses it */
} Job;

typedef struct {
  EngineEvent event;
  Job *job;          /* of the event */
  gboolean finishes; /* the job ends with it */
} Delivery;

struct Engine {
  EngineCallback callback;
  gpointer user;
  char *path;
  guint64 limit;
  GQueue waiting;      /* Job *: without their last event */
  GAsyncQueue *jobs;   /* Job *: to the worker */
  GAsyncQueue *events; /* Delivery *: to the main thread */
  GThread *thread;
  /* Only the worker uses these. */
  kosmos_model *model;
  gboolean boxes; /* the model can write boxes */
  Picture *picture;
  kosmos_image *image; /* the picture, encoded; NULL: not yet */
};

/* ---- events, from the worker to the main thread */

static void delivery_free(gpointer data) {
  Delivery *delivery = data;
  g_free(delivery->event.text);
  phrase_free(delivery->event.phrase);
  g_clear_object(&delivery->event.texture);
  g_free(delivery);
}

static void job_free(Job *job) {
  kosmos_cancel_free(job->cancel);
  g_clear_object(&job->file);
  g_clear_object(&job->texture);
  g_free(job->question);
  g_free(job);
}

/* Whether the receiver is told. An answer may come, in part or whole, before the worker sees that its request was
 * cancelled; from the call of engine_cancel on it is none. */
static gboolean told(EngineEvent *event, const Job *job) {
  if (job->cancelled && event->kind == ENGINE_DONE) event->kind = ENGINE_CANCELLED;
  return !job->cancelled || (event->kind != ENGINE_TEXT && event->kind != ENGINE_PHRASE);
}

/* On the main thread, once for each event. */
static gboolean deliver(gpointer user) {
  Engine *engine = user;
  Delivery *delivery = g_async_queue_pop(engine->events);
  gboolean tell = told(&delivery->event, delivery->job);
  if (delivery->finishes) {
    g_queue_remove(&engine->waiting, delivery->job);
    job_free(delivery->job);
  }
  if (tell) engine->callback(&delivery->event, engine->user);
  delivery_free(delivery);
  return G_SOURCE_REMOVE;
}

static void post(Job *job, EngineEvent event) {
  Delivery *delivery = g_new0(Delivery, 1);
  delivery->event = event;
  delivery->job = job;
  delivery->finishes = event.kind == ENGINE_DONE || event.kind == ENGINE_CANCELLED || event.kind == ENGINE_FAILED;
  g_async_queue_push(job->engine->events, delivery);
  g_idle_add_full(G_PRIORITY_DEFAULT, deliver, job->engine, NULL);
}

/* ---- callbacks of the library, on the worker */

/* Ends a call that makes the program use more than its limit. */
static int32_t on_abort(void *user) {
  Job *job = user;
  guint64 used = job->limit == 0 ? 0 : memory_used();
  if (used <= job->limit) return 0;
  job->over = used;
  return 1;
}

static int32_t on_progress(uint64_t done, uint64_t total, void *user) {
  post(user, (EngineEvent){.kind = ENGINE_PROGRESS, .fraction = total == 0 ? 1 : (double)done / (double)total});
  return on_abort(user);
}

static Phrase *phrase_of(const kosmos_entity *entity) {
  Phrase *phrase = g_new0(Phrase, 1);
  phrase->text = g_strdup(entity->phrase);
  phrase->start = (guint)entity->start;
  phrase->end = (guint)entity->end;
  phrase->box_count = (guint)entity->box_count;
  phrase->boxes = g_new(graphene_rect_t, entity->box_count);
  for (size_t i = 0; i < entity->box_count; i++) {
    const kosmos_box *box = &entity->boxes[i];
    graphene_rect_init(&phrase->boxes[i], (float)box->x1, (float)box->y1, (float)(box->x2 - box->x1),
                       (float)(box->y2 - box->y1));
  }
  return phrase;
}

static int32_t on_event(const kosmos_event *event, void *user) {
  if (event->kind == KOSMOS_EVENT_TEXT)
    post(user, (EngineEvent){.kind = ENGINE_TEXT, .text = g_strdup(event->text)});
  else if (event->kind == KOSMOS_EVENT_ENTITY)
    post(user, (EngineEvent){.kind = ENGINE_PHRASE, .phrase = phrase_of(event->entity)});
  return 0;
}

/* ---- the worker */

/* Turns an error of the library into one of GLib; FALSE, to be returned. Takes `failed`. */
static gboolean fail(const Job *job, kosmos_error *failed, GError **error) {
  kosmos_status code = kosmos_error_code(failed);
  if (code == KOSMOS_ERROR_CANCELLED && job->over != 0)
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_NO_SPACE,
                "The program came to %.0f MB, above its limit of %.0f MB. Raise the limit, or choose a smaller model.",
                (double)job->over / 1e6, (double)job->limit / 1e6);
  else
    g_set_error_literal(error, G_IO_ERROR, code == KOSMOS_ERROR_CANCELLED ? G_IO_ERROR_CANCELLED : G_IO_ERROR_FAILED,
                        kosmos_error_message(failed));
  kosmos_error_free(failed);
  return FALSE;
}

/* A model takes about its file's size: known before anything is read. */
static gboolean fits(const Job *job, const char *path, GError **error) {
  GFile *file = g_file_new_for_path(path);
  GFileInfo *info = g_file_query_info(file, G_FILE_ATTRIBUTE_STANDARD_SIZE, G_FILE_QUERY_INFO_NONE, NULL, NULL);
  guint64 need = memory_used() + (info == NULL ? 0 : (guint64)g_file_info_get_size(info));
  g_clear_object(&info); /* a file that is not there is the library's to report */
  g_object_unref(file);
  if (job->limit == 0 || need <= job->limit) return TRUE;
  g_set_error(error, G_IO_ERROR, G_IO_ERROR_NO_SPACE,
              "With this model the program would need about %.0f MB, above its limit of %.0f MB. Raise the limit, or "
              "choose a smaller model.",
              (double)need / 1e6, (double)job->limit / 1e6);
  return FALSE;
}

static gboolean need_model(Job *job, GError **error) {
  Engine *engine = job->engine;
  kosmos_load_options options = KOSMOS_INIT(kosmos_load_options);
  kosmos_model_info info = KOSMOS_INIT(kosmos_model_info);
  kosmos_error *failed = NULL;

  if (engine->model != NULL) return TRUE;
  if (engine->path == NULL) {
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                        "There is no model. Start the program with --model FILE.gguf, or set KOSMOS_EDGE_MODEL.");
    return FALSE;
  }
  if (!fits(job, engine->path, error)) return FALSE;
  options.on_progress = on_progress;
  options.user = job;
  options.cancel = job->cancel;
  if (kosmos_model_load(engine->path, &options, &engine->model, &failed) != KOSMOS_OK ||
      kosmos_model_get(engine->model, &info, &failed) != KOSMOS_OK)
    return fail(job, failed, error);
  for (size_t i = 0; i < info.task_count; i++)
    if (g_str_equal(info.tasks[i], "ground")) engine->boxes = TRUE;
  post(job,
       (EngineEvent){.kind = ENGINE_READY,
                     .text = g_strdup_printf("%s · %s %s · %d %s", *info.name ? info.name : engine->path, info.device,
                                             info.isa, info.threads, info.threads == 1 ? "thread" : "threads")});
  return TRUE;
}

static gboolean need_image(Job *job, GError **error) {
  Engine *engine = job->engine;
  kosmos_picture picture = KOSMOS_INIT(kosmos_picture);
  kosmos_encode_options options = KOSMOS_INIT(kosmos_encode_options);
  kosmos_error *failed = NULL;

  if (engine->image != NULL) return TRUE;
  if (engine->picture == NULL) {
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "Open a picture first.");
    return FALSE;
  }
  picture.pixels = g_bytes_get_data(engine->picture->pixels, NULL);
  picture.width = engine->picture->width;
  picture.height = engine->picture->height;
  picture.stride = (ptrdiff_t)engine->picture->stride;
  options.cancel = job->cancel;
  options.on_abort = on_abort;
  options.user = job;
  /* What later questions would reuse takes up to 128 MiB: not where there is little room. */
  if (job->limit != 0 && memory_used() + (128u << 20) > job->limit) options.keep = KOSMOS_OFF;
  if (kosmos_image_encode(engine->model, &picture, &options, &engine->image, &failed) != KOSMOS_OK)
    return fail(job, failed, error);
  return TRUE;
}

static gboolean open_picture(Job *job, GError **error) {
  Engine *engine = job->engine;
  Picture *picture =
      job->file != NULL ? picture_new_from_file(job->file, error) : picture_new_from_texture(job->texture, error);
  if (picture == NULL) return FALSE; /* the picture before stays */
  picture_free(engine->picture);
  engine->picture = picture;
  kosmos_image_free(engine->image);
  engine->image = NULL;
  post(job, (EngineEvent){.kind = ENGINE_PICTURE, .texture = picture_texture(picture)});
  return TRUE;
}

static gboolean answer(Job *job, GError **error) {
  Engine *engine = job->engine;
  kosmos_options options = KOSMOS_INIT(kosmos_options);
  kosmos_result *result = NULL;
  kosmos_error *failed = NULL;
  kosmos_status status;

  options.cancel = job->cancel;
  options.on_abort = on_abort;
  options.on_event = on_event;
  options.user = job;
  if (job->kind == JOB_ASK) {
    status = kosmos_ask(engine->model, engine->image, job->question, &options, &result, &failed);
  } else {
    options.ground = engine->boxes ? KOSMOS_ON : KOSMOS_OFF;
    status = kosmos_caption(engine->model, engine->image, &options, &result, &failed);
  }
  kosmos_result_free(result); /* the events have told everything */
  return status == KOSMOS_OK || fail(job, failed, error);
}

static gpointer work(gpointer user) {
  Engine *engine = user;
  for (;;) {
    Job *job = g_async_queue_pop(engine->jobs);
    GError *error = NULL;
    if (job->kind == JOB_QUIT) {
      job_free(job);
      return NULL;
    }
    if ((job->kind != JOB_CAPTION || open_picture(job, &error)) && need_model(job, &error) &&
        (job->kind == JOB_LOAD || (need_image(job, &error) && answer(job, &error))))
      post(job, (EngineEvent){.kind = ENGINE_DONE});
    else if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
      post(job, (EngineEvent){.kind = ENGINE_CANCELLED});
    else
      post(job, (EngineEvent){.kind = ENGINE_FAILED, .text = g_strdup(error->message)});
    g_clear_error(&error);
  }
}

/* ---- requests, on the main thread */

static Job *job_new(Engine *engine, JobKind kind) {
  Job *job = g_new0(Job, 1);
  job->kind = kind;
  job->engine = engine;
  job->limit = engine->limit;
  return job;
}

static void submit(Job *job) {
  /* Without memory for a flag the job cannot be cancelled, which is better than not to do it. */
  (void)kosmos_cancel_create(&job->cancel, NULL);
  g_queue_push_tail(&job->engine->waiting, job);
  g_async_queue_push(job->engine->jobs, job);
}

Engine *engine_new(const char *model, EngineCallback callback, gpointer user) {
  Engine *engine = g_new0(Engine, 1);
  engine->callback = callback;
  engine->user = user;
  engine->path = g_strdup(model);
  g_queue_init(&engine->waiting);
  engine->jobs = g_async_queue_new();
  engine->events = g_async_queue_new_full(delivery_free);
  engine->thread = g_thread_new("model", work, engine);
  return engine;
}

void engine_free(Engine *engine) {
  engine_cancel(engine);
  g_async_queue_push(engine->jobs, job_new(engine, JOB_QUIT));
  g_thread_join(engine->thread);
  while (g_idle_remove_by_data(engine)) continue;
  g_queue_clear_full(&engine->waiting, (GDestroyNotify)job_free);
  g_async_queue_unref(engine->jobs);
  g_async_queue_unref(engine->events);
  kosmos_image_free(engine->image);
  kosmos_model_free(engine->model);
  picture_free(engine->picture);
  g_free(engine->path);
  g_free(engine);
}

void engine_set_memory_limit(Engine *engine, guint megabytes) { engine->limit = (guint64)megabytes * 1000000; }

void engine_load(Engine *engine) { submit(job_new(engine, JOB_LOAD)); }

void engine_caption_file(Engine *engine, GFile *file) {
  Job *job = job_new(engine, JOB_CAPTION);
  job->file = g_object_ref(file);
  submit(job);
}

void engine_caption_texture(Engine *engine, GdkTexture *texture) {
  Job *job = job_new(engine, JOB_CAPTION);
  job->texture = g_object_ref(texture);
  submit(job);
}

void engine_ask(Engine *engine, const char *question) {
  Job *job = job_new(engine, JOB_ASK);
  job->question = g_strdup(question);
  submit(job);
}

void engine_cancel(Engine *engine) {
  for (GList *link = engine->waiting.head; link != NULL; link = link->next) {
    Job *job = link->data;
    job->cancelled = TRUE;
    kosmos_cancel_set(job->cancel, NULL);
  }
}

gboolean engine_busy(const Engine *engine) { return engine->waiting.length > 0; }
