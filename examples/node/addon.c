/* kosmos.h for Node: an addon of Node-API, which every Node since 12.17 loads without being built again. kosmos.js
 * makes it convenient. Calls compute on a thread of libuv's pool; events come back by a thread-safe function, so that
 * the event loop never waits. */
#define NAPI_VERSION 6
#include <kosmos.h>
#include <node_api.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef enum { LOAD, ENCODE, CAPTION, ASK } Kind;

/* What goes to JavaScript's thread: a part of the text, or a phrase. */
typedef struct {
  char *text;    /* TEXT */
  char *phrase;  /* ENTITY */
  double *boxes; /* 5 numbers each */
  size_t box_count;
  double start, end; /* bytes */
} Event;

/* A call. */
typedef struct {
  Kind kind;
  kosmos_model *model;
  kosmos_image *image;
  kosmos_cancel *cancel;
  char *text; /* load: the path; ask: the question */
  uint8_t *pixels;
  int32_t width, height;
  bool ground;
  kosmos_result *result; /* what came of it */
  kosmos_error *error;
  kosmos_status status;
  napi_deferred deferred;
  napi_async_work work;
  napi_threadsafe_function events;
  Event last;       /* of no content: the call has ended */
  napi_ref held[3]; /* the objects of the handles: they must not be collected before the call has ended */
  int held_count;
} Call;

/* ---- values */

#define CHECK(call)                                                                                               \
  do {                                                                                                            \
    if ((call) != napi_ok) {                                                                                      \
      const napi_extended_error_info *why;                                                                        \
      bool pending;                                                                                               \
      napi_get_last_error_info(env, &why);                                                                        \
      napi_is_exception_pending(env, &pending);                                                                   \
      if (!pending) napi_throw_type_error(env, NULL, why->error_message ? why->error_message : "wrong argument"); \
      return NULL;                                                                                                \
    }                                                                                                             \
  } while (0)

static napi_value string(napi_env env, const char *text) {
  napi_value value = NULL;
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &value);
  return value;
}

static napi_value number(napi_env env, double given) {
  napi_value value = NULL;
  napi_create_double(env, given, &value);
  return value;
}

static void set(napi_env env, napi_value object, const char *name, napi_value value) {
  napi_set_named_property(env, object, name, value);
}

static char *copy(const char *text) {
  char *copied = malloc(strlen(text) + 1);
  if (copied != NULL) strcpy(copied, text);
  return copied;
}

/* A string argument, to be freed; NULL if it is none. */
static char *text_of(napi_env env, napi_value value) {
  size_t length;
  char *text;
  if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok) return NULL;
  text = malloc(length + 1);
  if (text != NULL) napi_get_value_string_utf8(env, value, text, length + 1, &length);
  return text;
}

/* ---- handles */

static void free_model(napi_env env, void *handle, void *hint) {
  (void)env, (void)hint;
  kosmos_model_free(handle);
}

static void free_image(napi_env env, void *handle, void *hint) {
  (void)env, (void)hint;
  kosmos_image_free(handle);
}

static void free_cancel(napi_env env, void *handle, void *hint) {
  (void)env, (void)hint;
  kosmos_cancel_free(handle);
}

static napi_value error_value(napi_env env, kosmos_error *error) {
  napi_value value = NULL;
  kosmos_status code = kosmos_error_code(error);
  napi_create_error(env, string(env, kosmos_status_name(code)), string(env, kosmos_error_message(error)), &value);
  return value;
}

/* The handle in an object that the call keeps. */
static napi_status take(napi_env env, napi_value value, Call *call, void *handle) {
  napi_status status = napi_get_value_external(env, value, handle);
  if (status == napi_ok) status = napi_create_reference(env, value, 1, &call->held[call->held_count]);
  if (status == napi_ok) call->held_count++;
  return status;
}

/* ---- answers */

static napi_value phrase_value(napi_env env, const char *phrase, double start, double end, const double *boxes,
                               size_t count) {
  napi_value value = NULL, list = NULL;
  napi_create_object(env, &value);
  napi_create_array_with_length(env, count, &list);
  for (size_t i = 0; i < count; i++) {
    static const char *const names[] = {"x1", "y1", "x2", "y2", "score"};
    napi_value box = NULL;
    napi_create_object(env, &box);
    for (size_t j = 0; j < 5; j++) set(env, box, names[j], number(env, boxes[5 * i + j]));
    napi_set_element(env, list, (uint32_t)i, box);
  }
  set(env, value, "phrase", string(env, phrase));
  set(env, value, "start", number(env, start));
  set(env, value, "end", number(env, end));
  set(env, value, "boxes", list);
  return value;
}

/* 5 numbers for each box, to be freed. */
static double *boxes_of(const kosmos_entity *entity) {
  double *boxes = malloc(5 * sizeof *boxes * entity->box_count);
  for (size_t i = 0; boxes != NULL && i < entity->box_count; i++) {
    const kosmos_box *box = &entity->boxes[i];
    memcpy(boxes + 5 * i, (double[5]){box->px1, box->py1, box->px2, box->py2, box->score}, 5 * sizeof *boxes);
  }
  return boxes;
}

static napi_value result_value(napi_env env, kosmos_result *result) {
  kosmos_result_info info = KOSMOS_INIT(kosmos_result_info);
  napi_value value = NULL, phrases = NULL, notes = NULL;
  kosmos_result_get(result, &info, NULL);
  napi_create_object(env, &value);
  napi_create_array(env, &phrases);
  napi_create_array(env, &notes);
  for (size_t i = 0; i < info.entity_count; i++) {
    kosmos_entity entity = KOSMOS_INIT(kosmos_entity);
    double *boxes;
    if (kosmos_result_get_entity(result, i, &entity, NULL) != KOSMOS_OK) continue;
    boxes = boxes_of(&entity);
    if (boxes != NULL)
      napi_set_element(
          env, phrases, (uint32_t)i,
          phrase_value(env, entity.phrase, (double)entity.start, (double)entity.end, boxes, entity.box_count));
    free(boxes);
  }
  for (size_t i = 0; i < info.note_count; i++) napi_set_element(env, notes, (uint32_t)i, string(env, info.notes[i]));
  set(env, value, "text", string(env, info.text));
  set(env, value, "phrases", phrases);
  set(env, value, "notes", notes);
  return value;
}

/* ---- from the thread that computes to JavaScript's */

static int32_t on_event(const kosmos_event *given, void *user) {
  Call *call = user;
  Event *event = calloc(1, sizeof *event);
  if (event == NULL) return 0;
  if (given->kind == KOSMOS_EVENT_TEXT) {
    event->text = copy(given->text);
  } else if (given->kind == KOSMOS_EVENT_ENTITY) {
    event->phrase = copy(given->entity->phrase);
    event->boxes = boxes_of(given->entity);
    event->box_count = event->boxes == NULL ? 0 : given->entity->box_count;
    event->start = (double)given->entity->start;
    event->end = (double)given->entity->end;
  }
  if (event->text == NULL && event->phrase == NULL) { /* another kind, or out of memory */
    free(event->boxes);
    free(event);
    return 0;
  }
  napi_call_threadsafe_function(call->events, event, napi_tsfn_blocking);
  return 0;
}

/* KOSMOS_ON where the model can give boxes. Others refuse to be asked for them. */
static int32_t ground_for(const kosmos_model *model) {
  kosmos_model_info info = KOSMOS_INIT(kosmos_model_info);
  if (kosmos_model_get(model, &info, NULL) != KOSMOS_OK) return KOSMOS_OFF;
  for (size_t i = 0; i < info.task_count; i++)
    if (strcmp(info.tasks[i], "ground") == 0) return KOSMOS_ON;
  return KOSMOS_OFF;
}

/* On a thread of libuv's pool. */
static void execute(napi_env env, void *data) {
  Call *call = data;
  (void)env;
  if (call->kind == LOAD) {
    kosmos_load_options options = KOSMOS_INIT(kosmos_load_options);
    options.cancel = call->cancel;
    call->status = kosmos_model_load(call->text, &options, &call->model, &call->error);
  } else if (call->kind == ENCODE) {
    kosmos_picture picture = KOSMOS_INIT(kosmos_picture);
    kosmos_encode_options options = KOSMOS_INIT(kosmos_encode_options);
    picture.pixels = call->pixels;
    picture.width = call->width;
    picture.height = call->height;
    options.cancel = call->cancel;
    call->status = kosmos_image_encode(call->model, &picture, &options, &call->image, &call->error);
  } else {
    kosmos_options options = KOSMOS_INIT(kosmos_options);
    options.cancel = call->cancel;
    options.on_event = on_event;
    options.user = call;
    if (call->ground) options.ground = ground_for(call->model);
    call->status = call->kind == CAPTION
                       ? kosmos_caption(call->model, call->image, &options, &call->result, &call->error)
                       : kosmos_ask(call->model, call->image, call->text, &options, &call->result, &call->error);
  }
}

/* On JavaScript's thread, after that. The last event ends the call, behind all that are on their way. */
static void complete(napi_env env, napi_status status, void *data) {
  Call *call = data;
  (void)status;
  napi_delete_async_work(env, call->work);
  napi_call_threadsafe_function(call->events, &call->last, napi_tsfn_blocking);
}

static void finish(napi_env env, Call *call) {
  napi_value value = NULL;
  if (call->status != KOSMOS_OK) {
    napi_reject_deferred(env, call->deferred, error_value(env, call->error));
  } else {
    if (call->kind == LOAD)
      napi_create_external(env, call->model, free_model, NULL, &value);
    else if (call->kind == ENCODE)
      napi_create_external(env, call->image, free_image, NULL, &value);
    else
      value = result_value(env, call->result);
    napi_resolve_deferred(env, call->deferred, value);
  }
  while (call->held_count > 0) napi_delete_reference(env, call->held[--call->held_count]);
  kosmos_error_free(call->error);
  kosmos_result_free(call->result);
  napi_release_threadsafe_function(call->events, napi_tsfn_release);
  free(call->text);
  free(call->pixels);
  free(call);
}

/* On JavaScript's thread, once for each event. env is NULL when Node ends. */
static void deliver(napi_env env, napi_value callback, void *context, void *data) {
  Call *call = context;
  Event *event = data;
  if (event == &call->last) {
    if (env != NULL) finish(env, call);
    return;
  }
  if (env != NULL && callback != NULL) {
    napi_value undefined = NULL, value = NULL;
    napi_get_undefined(env, &undefined);
    napi_create_object(env, &value);
    if (event->text != NULL)
      set(env, value, "text", string(env, event->text));
    else
      value = phrase_value(env, event->phrase, event->start, event->end, event->boxes, event->box_count);
    napi_call_function(env, undefined, callback, 1, &value, NULL);
  }
  free(event->text);
  free(event->phrase);
  free(event->boxes);
  free(event);
}

/* Starts the call; a promise. on_event: a function or NULL. */
static napi_value start(napi_env env, Call given, napi_value on_event_function) {
  Call *call = malloc(sizeof *call);
  napi_value promise, name = string(env, "kosmos");
  if (call == NULL) {
    napi_throw_error(env, NULL, "out of memory");
    return NULL;
  }
  *call = given;
  if (on_event_function == NULL) { /* a thread-safe function wants one */
    napi_value global;
    CHECK(napi_get_global(env, &global));
    CHECK(napi_get_named_property(env, global, "Function", &on_event_function));
  }
  CHECK(napi_create_promise(env, &call->deferred, &promise));
  CHECK(napi_create_threadsafe_function(env, on_event_function, NULL, name, 0, 1, NULL, NULL, call, deliver,
                                        &call->events));
  CHECK(napi_create_async_work(env, NULL, name, execute, complete, call, &call->work));
  CHECK(napi_queue_async_work(env, call->work));
  return promise;
}

/* ---- what JavaScript calls */

#define MOST 6
#define ARGUMENTS(count)                                                          \
  napi_value arg[MOST];                                                           \
  size_t given = MOST;                                                            \
  CHECK(napi_get_cb_info(env, info, &given, arg, NULL, NULL));                    \
  if (given != (count)) {                                                         \
    napi_throw_type_error(env, NULL, "wrong number of arguments; use kosmos.js"); \
    return NULL;                                                                  \
  }

/* cancel(): a flag. */
static napi_value create_cancel(napi_env env, napi_callback_info info) {
  kosmos_cancel *cancel = NULL;
  kosmos_error *error = NULL;
  napi_value value;
  ARGUMENTS(0)
  if (kosmos_cancel_create(&cancel, &error) != KOSMOS_OK) {
    napi_throw(env, error_value(env, error));
    kosmos_error_free(error);
    return NULL;
  }
  CHECK(napi_create_external(env, cancel, free_cancel, NULL, &value));
  return value;
}

static napi_value set_cancel(napi_env env, napi_callback_info info) {
  void *cancel;
  ARGUMENTS(1)
  CHECK(napi_get_value_external(env, arg[0], &cancel));
  kosmos_cancel_set(cancel, NULL);
  return NULL;
}

/* load(path, cancel) */
static napi_value load(napi_env env, napi_callback_info info) {
  Call call = {.kind = LOAD};
  ARGUMENTS(2)
  CHECK(take(env, arg[1], &call, &call.cancel));
  call.text = text_of(env, arg[0]);
  CHECK(call.text == NULL ? napi_string_expected : napi_ok);
  return start(env, call, NULL);
}

/* encode(model, data, width, height, cancel): data: Uint8Array, 3 bytes a pixel */
static napi_value encode(napi_env env, napi_callback_info info) {
  Call call = {.kind = ENCODE};
  napi_typedarray_type type;
  size_t length;
  void *data;
  ARGUMENTS(5)
  CHECK(take(env, arg[0], &call, &call.model));
  CHECK(napi_get_typedarray_info(env, arg[1], &type, &length, &data, NULL, NULL));
  CHECK(napi_get_value_int32(env, arg[2], &call.width));
  CHECK(napi_get_value_int32(env, arg[3], &call.height));
  CHECK(take(env, arg[4], &call, &call.cancel));
  if (call.width < 1 || call.height < 1 || length != (size_t)call.width * (size_t)call.height * 3) {
    napi_throw_range_error(env, NULL, "data: expected width * height * 3 bytes");
    return NULL;
  }
  call.pixels = malloc(length); /* of its own: JavaScript may change its array meanwhile */
  CHECK(call.pixels == NULL ? napi_generic_failure : napi_ok);
  memcpy(call.pixels, data, length);
  return start(env, call, NULL);
}

/* answer(model, image, question or null, ground, onEvent, cancel) */
static napi_value answer(napi_env env, napi_callback_info info) {
  Call call = {.kind = CAPTION};
  napi_valuetype type;
  ARGUMENTS(6)
  CHECK(take(env, arg[0], &call, &call.model));
  CHECK(take(env, arg[1], &call, &call.image));
  CHECK(napi_typeof(env, arg[2], &type));
  CHECK(napi_get_value_bool(env, arg[3], &call.ground));
  CHECK(take(env, arg[5], &call, &call.cancel));
  if (type != napi_null) {
    call.kind = ASK;
    call.text = text_of(env, arg[2]);
    CHECK(call.text == NULL ? napi_string_expected : napi_ok);
  }
  return start(env, call, arg[4]);
}

NAPI_MODULE_INIT() {
  const napi_property_descriptor functions[] = {
      {"createCancel", NULL, create_cancel, NULL, NULL, NULL, napi_enumerable, NULL},
      {"setCancel", NULL, set_cancel, NULL, NULL, NULL, napi_enumerable, NULL},
      {"load", NULL, load, NULL, NULL, NULL, napi_enumerable, NULL},
      {"encode", NULL, encode, NULL, NULL, NULL, napi_enumerable, NULL},
      {"answer", NULL, answer, NULL, NULL, NULL, napi_enumerable, NULL},
  };
  if (kosmos_abi_version() != KOSMOS_ABI_VERSION) {
    napi_throw_error(env, NULL, "this addon was made for another version of kosmos-edge");
    return NULL;
  }
  CHECK(napi_define_properties(env, exports, sizeof functions / sizeof *functions, functions));
  return exports;
}
