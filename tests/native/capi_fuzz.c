/* Random sequences of calls to kosmos.h: right and wrong arguments, handles that are live, freed, of another type or made
 * up, struct sizes of other versions, callbacks that end calls or free what is in use, several threads. Whatever is
 * called, the process lives, statuses are known ones, and a failure stores an error with a message and no object.
 *
 *   capi_fuzz MODEL.gguf SEED SEQUENCES [THREADS]
 *
 * Prints what was called how often and exits with 0; anything that must not happen is said on stderr and exits with 1.
 * A sequence is 1 to 20 calls; handles live on from one to the next. The same seed and one thread repeat a run.
 */
#include <kosmos.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MODEL, IMAGE, RESULT, RANKING, CANCEL, ERROR, KINDS, SLOTS = 6, CALLS = 20, kWeights = 112 };

typedef struct {
  uint64_t state;
  void *slots[KINDS][SLOTS]; /* live and dead handles alike */
  uint64_t calls[CALLS], ok[CALLS], statuses[12];
  int depth; /* of calls inside callbacks */
} Run;

static const char *model_path;

static void wrong(const char *what, int call, int status) {
  fprintf(stderr, "capi_fuzz: %s (call %d, status %d)\n", what, call, status);
  exit(1);
}

static uint64_t next(Run *run) { /* splitmix64 */
  uint64_t z = (run->state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

static int below(Run *run, int n) { return (int)(next(run) % (uint64_t)n); }
static int chance(Run *run, int percent) { return below(run, 100) < percent; }

static void *handle(Run *run, int kind) {
  if (chance(run, 2)) return NULL;
  if (chance(run, 2)) return (void *)(uintptr_t)next(run);
  if (chance(run, 3)) kind = below(run, KINDS);
  return run->slots[kind][below(run, SLOTS)];
}

static void release(int kind, void *object) {
  switch (kind) {
    case MODEL:
      kosmos_model_free(object);
      break;
    case IMAGE:
      kosmos_image_free(object);
      break;
    case RESULT:
      kosmos_result_free(object);
      break;
    case RANKING:
      kosmos_ranking_free(object);
      break;
    case CANCEL:
      kosmos_cancel_free(object);
      break;
    default:
      kosmos_error_free(object);
      break;
  }
}

static void keep(Run *run, int kind, void *object) {
  void **slot = &run->slots[kind][below(run, SLOTS)];
  release(kind, *slot);
  *slot = object;
}

static size_t size_of(Run *run, size_t size) {
  if (!chance(run, 4)) return size;
  switch (below(run, 4)) {
    case 0:
      return size - sizeof(void *) * (size_t)below(run, (int)(size / sizeof(void *)) + 1);
    case 1:
      return (size_t)next(run);
    case 2:
      return size + 1;
    default:
      return 0;
  }
}

static int32_t number(Run *run) {
  static const int32_t odd[] = {0, 0, 0, 1, -1, 2, 7, 8, 9, 255, 65535, 65536, INT32_MAX, INT32_MIN};
  return odd[below(run, (int)(sizeof odd / sizeof *odd))];
}

static double real(Run *run) {
  const double zero = 0.0;
  const double odd[] = {0, 0, 0.5, 1, 0.25, -1, 1e300, -1e300, zero / zero, 1 / zero, 1e-300, 10, 63, 64};
  return odd[below(run, (int)(sizeof odd / sizeof *odd))];
}

static const char *text(Run *run) {
  static const char *const texts[] = {"a dog", "It is {text}.", "What?", "", " ", "\xff\xfe", "</phrase><object>", "<grounding>",
                                      "\xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\xa6\x94", "\xed\xa0\x80", "{text}{text}", "b"};
  if (chance(run, 3)) return NULL;
  return texts[below(run, (int)(sizeof texts / sizeof *texts))];
}

static void step(Run *run);

static int32_t on_abort(void *user) {
  Run *run = user;
  if (run == NULL) return 0; /* a struct_size that ends before it */
  if (run->depth == 0 && chance(run, 2)) {
    run->depth++;
    step(run);
    run->depth--;
  }
  return chance(run, 3);
}

static int32_t on_progress(uint64_t done, uint64_t total, void *user) {
  if (done > total) wrong("progress beyond its end", 0, 0);
  return user != NULL && chance(user, 1);
}

static void on_log(int32_t level, const char *message, void *user) {
  (void)user;
  if (level < 0 || level > 2 || message[0] == 0) wrong("a log line without level or text", 0, level);
}

static int32_t on_event(const kosmos_event *event, void *user) {
  if (event->kind == KOSMOS_EVENT_TEXT && strlen(event->text) != event->text_length) wrong("event text", 0, 0);
  if (event->kind == KOSMOS_EVENT_ENTITY && event->entity->box_count == 0) wrong("an entity without a box", 0, 0);
  return on_abort(user);
}

static kosmos_region region_of(Run *run) {
  kosmos_region r = KOSMOS_INIT(kosmos_region);
  r.x2 = r.y2 = 0.5;
  r.unit = KOSMOS_UNIT_NORMALIZED;
  if (chance(run, 20)) r.x1 = real(run);
  if (chance(run, 20)) r.y2 = real(run);
  if (chance(run, 20)) r.unit = number(run);
  r.struct_size = size_of(run, sizeof r);
  return r;
}

/* What options point to. */
typedef struct {
  const char *texts[2];
  kosmos_example shots[2];
  kosmos_region box;
} Given;

static void add_shots(Run *run, kosmos_options *o, Given *given) {
  size_t size = sizeof *given->shots;
  given->box = region_of(run);
  if (given->box.struct_size > sizeof given->box) given->box.struct_size = 0; /* memory behind the struct is not ours */
  for (int i = 0; i < 2; i++) {
    memset(&given->shots[i], 0, size);
    given->shots[i].struct_size = chance(run, 2) ? size_of(run, size) : size;
    if (given->shots[i].struct_size > size) given->shots[i].struct_size = 3;
    given->shots[i].image = handle(run, IMAGE);
    if (chance(run, 40)) given->shots[i].text = text(run);
    if (chance(run, 40)) given->shots[i].region = &given->box;
    given->shots[i].answer = text(run);
  }
  o->examples = chance(run, 3) ? NULL : given->shots;
  o->example_count = chance(run, 3) ? (size_t)next(run) | 128 : (size_t)below(run, 3);
}

static kosmos_options options_of(Run *run, Given *given) {
  const char **texts = given->texts;
  kosmos_options o = KOSMOS_INIT(kosmos_options);
  texts[0] = text(run);
  texts[1] = text(run);
  o.max_tokens = 1 + below(run, 8);
  o.logprobs = chance(run, 50);
  if (chance(run, 20)) o.grammar = KOSMOS_OFF;
  if (chance(run, 40)) {
    if (chance(run, 10)) o.max_tokens = number(run);
    if (chance(run, 10)) o.num_beams = number(run);
    if (chance(run, 10)) o.temperature = real(run);
    if (chance(run, 5)) o.top_p = real(run);
    if (chance(run, 5)) o.top_k = number(run);
    if (chance(run, 10)) o.no_repeat_ngram_size = number(run);
    if (chance(run, 5)) o.length_penalty = real(run);
    if (chance(run, 5)) o.use_length_penalty = number(run);
    if (chance(run, 20)) o.ground = below(run, 4) - 1;
    if (chance(run, 20)) o.grammar = below(run, 4) - 1;
    if (chance(run, 10)) o.lead_in = below(run, 4) - 1;
    if (chance(run, 10)) o.logprobs = below(run, 4) - 1;
    if (chance(run, 10)) o.detailed = below(run, 4) - 1;
    if (chance(run, 10)) {
      o.stop = texts;
      o.stop_count = (size_t)below(run, 3);
    }
    if (chance(run, 10)) {
      o.choices = texts;
      o.choice_count = (size_t)below(run, 3);
    }
    if (chance(run, 1)) o.stop_count = (size_t)next(run) | 64;
    if (chance(run, 30)) add_shots(run, &o, given);
    if (chance(run, 10)) o.min_score = real(run);
    if (chance(run, 10)) o.template_text = texts[0];
  }
  o.seed = next(run);
  if (chance(run, 15)) o.cancel = handle(run, CANCEL);
  if (chance(run, 20)) o.on_abort = on_abort;
  if (chance(run, 30)) o.on_event = on_event;
  o.user = run;
  o.struct_size = size_of(run, sizeof o);
  return o;
}

static int call_encode(Run *run, void **out, kosmos_error **error) {
  static uint8_t pixels[64 * 64 * 4];
  kosmos_picture p = KOSMOS_INIT(kosmos_picture);
  kosmos_encode_options o = KOSMOS_INIT(kosmos_encode_options);
  p.pixels = chance(run, 2) ? NULL : pixels;
  p.width = 1 + below(run, 64);
  p.height = 1 + below(run, 64);
  p.format = below(run, 5);
  if (chance(run, 5)) p.format = number(run);
  if (chance(run, 3)) p.width = -number(run) - 1; /* only sizes that are refused: the pixels are 64 x 64 */
  if (p.width > 64) p.width = 70000;
  if (chance(run, 10) && p.width >= 1 && p.width <= 64) p.stride = 256;
  p.struct_size = size_of(run, sizeof p);
  if (p.struct_size > sizeof p && p.struct_size <= 4096) p.struct_size = 0; /* memory behind the struct is not ours */
  if (chance(run, 10)) o.cancel = handle(run, CANCEL);
  if (chance(run, 20)) o.on_abort = on_abort;
  if (chance(run, 30)) o.keep = below(run, 4) - 1;
  o.user = run;
  return kosmos_image_encode(handle(run, MODEL), &p, chance(run, 30) ? NULL : &o, (kosmos_image **)out, error);
}

static int call_generate(Run *run, const kosmos_options *o, void **out, kosmos_error **error) {
  kosmos_segment s[6];
  kosmos_region boxes[2];
  size_t size = sizeof *s;
  int count = below(run, 6);
  boxes[0] = region_of(run);
  boxes[1] = boxes[0];
  if (boxes[0].struct_size != sizeof boxes[0]) boxes[0].struct_size = 0;
  for (int i = 0; i < 6; i++) {
    memset(&s[i], 0, sizeof s[i]);
    s[i].struct_size = chance(run, 2) ? size_of(run, size) & ~(size_t)4096 : size;
    if (s[i].struct_size > size) s[i].struct_size = 3;
    s[i].kind = chance(run, 3) ? number(run) : 1 + below(run, 4);
    s[i].text = text(run);
    s[i].image = handle(run, IMAGE);
    s[i].boxes = chance(run, 5) ? NULL : boxes;
    s[i].box_count = (size_t)below(run, 3);
  }
  return kosmos_generate(handle(run, MODEL), chance(run, 2) ? NULL : s, (size_t)count, o, (kosmos_result **)out, error);
}

static int call_score(Run *run, void **out, kosmos_error **error) {
  const char *texts[3];
  kosmos_score_options o = KOSMOS_INIT(kosmos_score_options);
  for (int i = 0; i < 3; i++) texts[i] = text(run);
  if (chance(run, 20)) o.template_text = text(run);
  if (chance(run, 20)) o.normalize = below(run, 3);
  if (chance(run, 10)) o.cancel = handle(run, CANCEL);
  if (chance(run, 20)) o.on_abort = on_abort;
  o.user = run;
  o.struct_size = size_of(run, sizeof o);
  if (o.struct_size > sizeof o && o.struct_size <= 4096) o.struct_size = 0;
  return kosmos_score(handle(run, MODEL), chance(run, 20) ? NULL : handle(run, IMAGE), texts, (size_t)below(run, 4), &o,
                      (kosmos_ranking **)out, error);
}

typedef struct {
  Run *run;
  kosmos_options options;
  kosmos_region region;
  Given given;
  int left;
} Requests;

static int32_t on_next(kosmos_request *request, void *user) {
  Requests *r = user;
  Run *run = r->run;
  if (r->left-- <= 0) return 0;
  r->options = options_of(run, &r->given);
  if (r->options.struct_size > sizeof r->options) r->options.struct_size = 0;
  r->region = region_of(run);
  if (r->region.struct_size > sizeof r->region) r->region.struct_size = 0;
  request->task = chance(run, 3) ? number(run) : 1 + below(run, 5);
  request->id = (uint64_t)r->left;
  request->image = handle(run, IMAGE);
  if (request->task != KOSMOS_TASK_CAPTION && request->task != KOSMOS_TASK_DESCRIBE) request->text = text(run);
  if (request->task == KOSMOS_TASK_DESCRIBE || chance(run, 3)) request->region = &r->region;
  if (chance(run, 80)) request->options = &r->options;
  if (chance(run, 1)) request->struct_size = 1;
  if (on_abort(run)) return 0;
  return 1;
}

static int32_t on_answer(uint64_t id, kosmos_result *result, kosmos_error *error, void *user) {
  Requests *r = user;
  (void)id;
  if ((result == NULL) == (error == NULL)) wrong("an answer that is neither or both", 19, 0);
  if (result) keep(r->run, RESULT, result);
  if (error) keep(r->run, ERROR, error);
  return on_abort(r->run);
}

static int call_batch(Run *run, kosmos_error **error) {
  Requests requests;
  kosmos_batch_options o = KOSMOS_INIT(kosmos_batch_options);
  memset(&requests, 0, sizeof requests);
  requests.run = run;
  requests.left = below(run, 6);
  o.batch_size = chance(run, 90) ? below(run, 4) : number(run);
  if (chance(run, 97)) o.on_next = on_next;
  if (chance(run, 97)) o.on_answer = on_answer;
  if (chance(run, 10)) o.cancel = handle(run, CANCEL);
  o.user = &requests;
  if (chance(run, 2)) o.struct_size = (size_t)below(run, (int)sizeof o);
  if (o.struct_size < sizeof o) o.on_next = NULL; /* `user` might not be read */
  return kosmos_batch(handle(run, MODEL), chance(run, 3) ? NULL : &o, error);
}

static int call_load(Run *run, void **out, kosmos_error **error) {
  kosmos_load_options o = KOSMOS_INIT(kosmos_load_options);
  const char *path = chance(run, 90) ? model_path : chance(run, 50) ? text(run) : "/nowhere.gguf";
  o.threads = chance(run, 90) ? 1 + below(run, 2) : number(run);
  if (o.threads > 4) o.threads = 5000; /* refused; hundreds of real threads tell nothing new */
  o.copy = chance(run, 80) ? below(run, 2) : number(run);
  if (chance(run, 5)) o.device = text(run);
  if (chance(run, 5)) o.isa = chance(run, 50) ? "scalar" : text(run);
  if (chance(run, 30)) o.on_progress = on_progress;
  if (chance(run, 30)) o.on_log = on_log;
  if (chance(run, 10)) o.cancel = handle(run, CANCEL);
  o.user = run;
  o.struct_size = size_of(run, sizeof o);
  if (o.struct_size > sizeof o && o.struct_size <= 4096) o.struct_size = 0;
  return kosmos_model_load(path, &o, (kosmos_model **)out, error);
}

/* Reads everything of a result that the library says is there. */
static void read_result(Run *run, const kosmos_result *result) {
  kosmos_result_info info = KOSMOS_INIT(kosmos_result_info);
  kosmos_entity entity = KOSMOS_INIT(kosmos_entity);
  size_t i, sum = 0;
  if (kosmos_result_get(result, &info, NULL) != KOSMOS_OK) return;
  if (strlen(info.text) != info.text_length || info.token_count == 0) wrong("a result's text", 11, 0);
  for (i = 0; i < info.token_count; i++) sum += (size_t)info.token_ids[i] + (info.logprobs[i] < 0);
  for (i = 0; i < info.note_count; i++) sum += strlen(info.notes[i]);
  for (i = 0; i < info.entity_count; i++) {
    if (kosmos_result_get_entity(result, i, &entity, NULL) != KOSMOS_OK) wrong("an entity is missing", 12, 0);
    if (entity.start > entity.end || entity.end > info.text_length) wrong("a span outside the text", 12, 0);
  }
  run->state += sum & 1;
}

static void step(Run *run) {
  /* load encode caption ground locate describe ask generate score model image result entity ranking cancel set free error
   * count batch */
  static const int weights[CALLS] = {2, 10, 10, 6, 6, 6, 6, 8, 6, 4, 4, 8, 4, 6, 3, 3, 8, 4, 2, 6};
  static const int makes[CALLS] = {MODEL,  IMAGE,  RESULT, RESULT, RESULT, RESULT, RESULT, RESULT, RANKING, -1,
                                   -1,     -1,     -1,     -1,     CANCEL, -1,     -1,     -1,     -1,     -1};
  Given pointed_to;
  const kosmos_options given = options_of(run, &pointed_to);
  const kosmos_region region = region_of(run);
  const int newer = given.struct_size > sizeof given && given.struct_size <= 4096;
  const kosmos_options *o = newer || chance(run, 10) ? NULL : &given;
  kosmos_error *error = NULL;
  void *out = NULL;
  int call = 0, status = KOSMOS_OK, pick = below(run, kWeights);
  while (pick >= weights[call]) pick -= weights[call++];

  switch (call) {
    case 0:
      status = call_load(run, &out, &error);
      break;
    case 1:
      status = call_encode(run, &out, &error);
      break;
    case 2:
      status = kosmos_caption(handle(run, MODEL), handle(run, IMAGE), o, (kosmos_result **)&out, &error);
      break;
    case 3:
      status = kosmos_ground(handle(run, MODEL), handle(run, IMAGE), text(run), o, (kosmos_result **)&out, &error);
      break;
    case 4:
      status = kosmos_locate(handle(run, MODEL), handle(run, IMAGE), text(run), o, (kosmos_result **)&out, &error);
      break;
    case 5:
      status = kosmos_describe(handle(run, MODEL), handle(run, IMAGE),
                               chance(run, 3) || region.struct_size > sizeof region ? NULL : &region, o,
                               (kosmos_result **)&out, &error);
      break;
    case 6:
      status = kosmos_ask(handle(run, MODEL), handle(run, IMAGE), text(run), o, (kosmos_result **)&out, &error);
      break;
    case 7:
      status = call_generate(run, o, &out, &error);
      break;
    case 8:
      status = call_score(run, &out, &error);
      break;
    case 9: {
      kosmos_model_info info = KOSMOS_INIT(kosmos_model_info);
      status = kosmos_model_get(handle(run, MODEL), chance(run, 3) ? NULL : &info, &error);
      break;
    }
    case 10: {
      kosmos_image_info info = KOSMOS_INIT(kosmos_image_info);
      status = kosmos_image_get(handle(run, IMAGE), chance(run, 3) ? NULL : &info, &error);
      break;
    }
    case 11: {
      kosmos_result_info info = KOSMOS_INIT(kosmos_result_info);
      info.struct_size = chance(run, 90) ? sizeof info : sizeof info - 8 * (size_t)below(run, 20);
      status = kosmos_result_get(handle(run, RESULT), &info, &error);
      break;
    }
    case 12: {
      kosmos_entity entity = KOSMOS_INIT(kosmos_entity);
      status = kosmos_result_get_entity(handle(run, RESULT), (size_t)(chance(run, 70) ? 0 : number(run)), &entity, &error);
      break;
    }
    case 13: {
      kosmos_score_info info = KOSMOS_INIT(kosmos_score_info);
      status = kosmos_ranking_get(handle(run, RANKING), (size_t)below(run, 4), &info, &error);
      break;
    }
    case 14:
      status = kosmos_cancel_create((kosmos_cancel **)&out, &error);
      break;
    case 15:
      status = chance(run, 30) ? kosmos_cancel_set(handle(run, CANCEL), &error) : KOSMOS_OK;
      break;
    case 16: {
      const int kind = below(run, 20);
      void *object = handle(run, kind < KINDS ? kind : RESULT);
      if (kind == MODEL && chance(run, 70)) break; /* loading is what takes time */
      release(kind < KINDS ? kind : RESULT, object);
      break;
    }
    case 17: {
      const kosmos_error *some = handle(run, ERROR);
      if (kosmos_error_message(some) == NULL || kosmos_status_name(kosmos_error_code(some)) == NULL)
        wrong("an error without a text", call, 0);
      break;
    }
    case 18:
      run->state += kosmos_ranking_count(handle(run, RANKING));
      break;
    default:
      status = call_batch(run, &error);
      break;
  }

  if (status < 0 || status > KOSMOS_ERROR_FORKED) wrong("an unknown status", call, status);
  if (status == KOSMOS_ERROR_INTERNAL || status == KOSMOS_ERROR_FORKED || status == KOSMOS_ERROR_OUT_OF_MEMORY)
    wrong(kosmos_error_message(error), call, status);
  if ((status == KOSMOS_OK) != (error == NULL)) wrong("status and error object contradict each other", call, status);
  if (status != KOSMOS_OK && out != NULL) wrong("an object came with an error", call, status);
  if (status != KOSMOS_OK && (kosmos_error_code(error) != status || kosmos_error_message(error)[0] == 0))
    wrong("an error without code or message", call, status);
  if (status == KOSMOS_OK && makes[call] >= 0 && out == NULL) wrong("success without an object", call, status);
  if (out != NULL && makes[call] == RESULT) read_result(run, out);
  if (error != NULL) keep(run, ERROR, error);
  if (out != NULL) keep(run, makes[call], out);
  run->calls[call]++;
  run->ok[call] += status == KOSMOS_OK;
  run->statuses[status]++;
}

typedef struct {
  Run run;
  long sequences;
} Job;

static void *work(void *argument) {
  Job *job = argument;
  Run *run = &job->run;
  for (long i = 0; i < job->sequences; i++) {
    if (kosmos_model_get(run->slots[MODEL][0], NULL, NULL) == KOSMOS_OK) wrong("NULL was filled", 9, 0);
    for (int n = 1 + below(run, 20); n > 0; n--) step(run);
    if (i % 16 == 0) { /* so that most sequences have something to work with */
      void *model = NULL, *image = NULL;
      static const uint8_t pixels[8 * 8 * 3];
      kosmos_picture p = KOSMOS_INIT(kosmos_picture);
      kosmos_model_info info = KOSMOS_INIT(kosmos_model_info);
      int slot = below(run, SLOTS);
      p.pixels = pixels;
      p.width = p.height = 8;
      if (kosmos_model_get(run->slots[MODEL][slot], &info, NULL) != KOSMOS_OK &&
          kosmos_model_load(model_path, NULL, (kosmos_model **)&model, NULL) == KOSMOS_OK)
        run->slots[MODEL][slot] = model;
      for (int k = 0; k < SLOTS; k++) {
        if (k != slot && chance(run, 50)) { /* the same model in several places: freed in one, dead in all */
          if (run->slots[MODEL][k] != run->slots[MODEL][slot]) release(MODEL, run->slots[MODEL][k]);
          run->slots[MODEL][k] = run->slots[MODEL][slot];
        }
        if (kosmos_image_encode(run->slots[MODEL][k], &p, NULL, (kosmos_image **)&image, NULL) == KOSMOS_OK)
          keep(run, IMAGE, image);
      }
    }
  }
  for (int kind = 0; kind < KINDS; kind++)
    for (int k = 0; k < SLOTS; k++) release(kind, run->slots[kind][k]);
  return NULL;
}

int main(int argc, char **argv) {
  long sequences = argc > 3 ? atol(argv[3]) : 0;
  int threads = argc > 4 ? atoi(argv[4]) : 1, i, t;
  Job *jobs;
  pthread_t *ids;
  uint64_t calls = 0, ok = 0;
  if (sequences < 1 || threads < 1 || threads > 64) {
    fprintf(stderr, "usage: %s MODEL.gguf SEED SEQUENCES [THREADS]\n", argv[0]);
    return 2;
  }
  model_path = argv[1];
  jobs = calloc((size_t)threads, sizeof *jobs);
  ids = calloc((size_t)threads, sizeof *ids);
  for (t = 0; t < threads; t++) {
    jobs[t].run.state = strtoull(argv[2], NULL, 10) + (uint64_t)t * 1000003u;
    jobs[t].sequences = sequences / threads + (t < sequences % threads);
    if (t > 0 && pthread_create(&ids[t], NULL, work, &jobs[t]) != 0) wrong("no thread", 0, 0);
  }
  work(&jobs[0]);
  for (t = 1; t < threads; t++) pthread_join(ids[t], NULL);
  for (i = 0; i < CALLS; i++) {
    uint64_t all = 0, good = 0;
    for (t = 0; t < threads; t++) all += jobs[t].run.calls[i], good += jobs[t].run.ok[i];
    printf("call %d: %llu, ok %llu\n", i, (unsigned long long)all, (unsigned long long)good);
    calls += all, ok += good;
  }
  for (i = 0; i < 12; i++) {
    uint64_t all = 0;
    for (t = 0; t < threads; t++) all += jobs[t].run.statuses[i];
    printf("%s: %llu\n", kosmos_status_name(i), (unsigned long long)all);
  }
  printf("sequences %ld, calls %llu, ok %llu\n", sequences, (unsigned long long)calls, (unsigned long long)ok);
  free(jobs);
  free(ids);
  return 0;
}
