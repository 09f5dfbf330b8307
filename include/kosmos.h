/* kosmos.h: the stable C interface of kosmos-edge.
 *
 *   kosmos_error *error = NULL;
 *   kosmos_model *model = NULL;
 *   if (kosmos_model_load("Kosmos-2-1.6B-v1.0-Q4_K_M.gguf", NULL, &model, &error) != KOSMOS_OK) {
 *     fprintf(stderr, "%s\n", kosmos_error_message(error));
 *     kosmos_error_free(error);
 *     return 1;
 *   }
 *   kosmos_picture picture = KOSMOS_INIT(kosmos_picture);
 *   picture.pixels = rgb; picture.width = 640; picture.height = 480;
 *   kosmos_image *image = NULL;
 *   kosmos_result *result = NULL;
 *   kosmos_result_info info = KOSMOS_INIT(kosmos_result_info);
 *   kosmos_image_encode(model, &picture, NULL, &image, NULL);
 *   kosmos_caption(model, image, NULL, &result, NULL);
 *   kosmos_result_get(result, &info, NULL);
 *   puts(info.text);
 *   kosmos_result_free(result); kosmos_image_free(image); kosmos_model_free(model);
 *
 * Rules for every function below:
 *
 * Errors. A function that can fail returns a kosmos_status; KOSMOS_OK is 0. Its last parameter receives an error object
 *   that says what was expected, what came and where; it may be NULL. The caller owns the object (kosmos_error_free). On
 *   success it is set to NULL. If a function fails, its output is NULL and output structs are unchanged.
 *   KOSMOS_ERROR_OUT_OF_MEMORY and KOSMOS_ERROR_INTERNAL can come from any function that returns a status and are not
 *   listed with each. The library throws no exception. It never ends the process, prints, installs signal handlers, or
 *   changes the locale, the working directory or the floating-point mode.
 *
 * Handles. kosmos_model, kosmos_image, kosmos_result, kosmos_ranking, kosmos_cancel and kosmos_error are opaque numbers
 *   of pointer type and are never dereferenced. NULL, a freed handle and one of another type are recognised
 *   (KOSMOS_ERROR_INVALID_REQUEST). Free every handle once with its own *_free function; freeing NULL or a freed handle
 *   does nothing. A handle may be freed while a call on another thread uses it: the memory is released when that call
 *   ends. No object needs another one to stay alive: a result may be read after its model was freed.
 *
 * Pointers that a function returns (text, arrays) belong to the object they came from and are valid until it is freed;
 *   those in a callback's event are valid until the callback returns. Arguments are not used after the function returns,
 *   except for the callbacks of kosmos_load_options, which are used as long as the model lives.
 *
 * Threads. Every function may be called from any thread at any time, on the same handles, too: one model answers any
 *   number of threads at once. Calls compute on the calling thread and on the model's worker threads. Callbacks run on
 *   the calling thread and may call any function of this library, including *_free.
 *   After a fork, the child must not use the parent's handles: calls return KOSMOS_ERROR_FORKED. The child may load its
 *   own models.
 *
 * Text and paths are UTF-8 and end with a zero byte. Ill-formed UTF-8 in a text is KOSMOS_ERROR_INVALID_REQUEST; on POSIX
 *   systems a path may contain any bytes. Text from the caller is data: "<phrase>" in it is eight characters and never a
 *   tag, except in segments of kind KOSMOS_SEGMENT_RAW_TEXT. All text that the library returns is well-formed UTF-8.
 *
 * Sized structs begin with struct_size, which the caller sets (KOSMOS_INIT). All other fields may stay 0, their default.
 *   A program built with an older header works with a newer library: fields that the header lacks count as 0, or are not
 *   written. A program built with a newer header works with an older library as long as the fields that the library
 *   lacks are 0; otherwise the call is KOSMOS_ERROR_INVALID_REQUEST, so that no option is silently ignored. Output
 *   fields that the library lacks are set to 0. struct_size is a multiple of sizeof(void *), at most 4096.
 *
 * Boxes. x grows to the right and y downwards, from the upper left corner of the upright image. The model names a box by
 *   two cells of a grid (32 x 32), so a corner is exact to about 1/32 of a side. Boxes from the caller are in pixels of
 *   the upright image, or in fractions of it if their unit says so; pixels that are all within 0..1 are refused.
 *
 * Image files are not read here: the host has a decoder, and pixels keep untrusted file formats out of this library.
 *   Rotate the image upright (EXIF) and blend transparent pixels with a background first.
 */
#ifndef KOSMOS_H
#define KOSMOS_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#if defined(KOSMOS_BUILD)
#define KOSMOS_API __declspec(dllexport)
#else
#define KOSMOS_API __declspec(dllimport)
#endif
#else
#define KOSMOS_API __attribute__((visibility("default")))
#endif

#if defined(__cplusplus) && __cplusplus >= 201103L
#define KOSMOS_NOEXCEPT noexcept
#else
#define KOSMOS_NOEXCEPT
#endif

#ifdef __cplusplus
#define KOSMOS_INIT(type) \
  type { sizeof(type) }
extern "C" {
#else
#define KOSMOS_INIT(type) \
  { .struct_size = sizeof(type) }
#endif

/* ------------------------------------------------------------------------------------------------------ versions */

#define KOSMOS_VERSION "0.1.0"
#define KOSMOS_ABI_VERSION 0 /* as in the soname; interfaces with different numbers are incompatible */

/* The library's version, "major.minor.patch". Never NULL, never freed. */
KOSMOS_API const char *kosmos_version(void) KOSMOS_NOEXCEPT;
/* The library's KOSMOS_ABI_VERSION. A program that opens the library at run time compares it with its header's. */
KOSMOS_API int32_t kosmos_abi_version(void) KOSMOS_NOEXCEPT;

/* -------------------------------------------------------------------------------------------------------- errors */

typedef int32_t kosmos_status;
enum {
  KOSMOS_OK = 0,
  KOSMOS_ERROR_INVALID_REQUEST = 1,    /* an argument: out of range, ill-formed, contradictory, not a valid handle */
  KOSMOS_ERROR_MODEL_NOT_FOUND = 2,    /* no such file */
  KOSMOS_ERROR_MODEL_CORRUPT = 3,      /* the file is malformed, or its weights give NaN or infinity */
  KOSMOS_ERROR_IMAGE = 4,              /* the image could not be decoded (reserved: this interface takes pixels) */
  KOSMOS_ERROR_DEVICE_UNAVAILABLE = 5, /* the requested device or instruction set is not available */
  KOSMOS_ERROR_OUT_OF_MEMORY = 6,
  KOSMOS_ERROR_CONTEXT_TOO_LONG = 7, /* prompt and answer exceed the model's context; the message has both counts */
  KOSMOS_ERROR_CANCELLED = 8,        /* by a kosmos_cancel, an abort callback or a progress callback */
  KOSMOS_ERROR_IO = 9,               /* the operating system refused */
  KOSMOS_ERROR_INTERNAL = 10,        /* our own bug, or an exception thrown by a callback */
  KOSMOS_ERROR_FORKED = 11           /* the handle belongs to the parent process */
};

typedef struct kosmos_error kosmos_error;

/* "KOSMOS_ERROR_INVALID_REQUEST" and so on; "unknown status" for any other number. Never NULL, never freed. */
KOSMOS_API const char *kosmos_status_name(kosmos_status status) KOSMOS_NOEXCEPT;
/* KOSMOS_OK for NULL and for an invalid handle. */
KOSMOS_API kosmos_status kosmos_error_code(const kosmos_error *error) KOSMOS_NOEXCEPT;
/* One sentence, UTF-8; valid until the error is freed. "" for NULL and for an invalid handle. */
KOSMOS_API const char *kosmos_error_message(const kosmos_error *error) KOSMOS_NOEXCEPT;
KOSMOS_API void kosmos_error_free(kosmos_error *error) KOSMOS_NOEXCEPT;

/* -------------------------------------------------------------------------------------------- callbacks, cancelling */

enum { KOSMOS_LOG_DEBUG = 0, KOSMOS_LOG_INFO = 1, KOSMOS_LOG_WARNING = 2 };
/* One line without a line break. level: KOSMOS_LOG_*. Never contains prompts, answers or pixels. */
typedef void (*kosmos_log_callback)(int32_t level, const char *message, void *user);
/* Progress of a load: 0 <= done <= total bytes of weights. A result other than 0 ends it with KOSMOS_ERROR_CANCELLED. */
typedef int32_t (*kosmos_progress_callback)(uint64_t done, uint64_t total, void *user);
/* Called between layers, some hundred times per second, so it should be fast. A result other than 0 ends the call with
 * KOSMOS_ERROR_CANCELLED. */
typedef int32_t (*kosmos_abort_callback)(void *user);

typedef struct kosmos_cancel kosmos_cancel;

/* A flag that ends calls from another thread; it may be passed to any number of calls. */
KOSMOS_API kosmos_status kosmos_cancel_create(kosmos_cancel **cancel, kosmos_error **error) KOSMOS_NOEXCEPT;
/* Every call with this flag, running or future, ends with KOSMOS_ERROR_CANCELLED; a running one within the time of one
 * layer. A flag cannot be reset: create another for the next call. INVALID_REQUEST: not a valid handle. */
KOSMOS_API kosmos_status kosmos_cancel_set(kosmos_cancel *cancel, kosmos_error **error) KOSMOS_NOEXCEPT;
KOSMOS_API void kosmos_cancel_free(kosmos_cancel *cancel) KOSMOS_NOEXCEPT;

/* -------------------------------------------------------------------------------------------------------- models */

typedef struct kosmos_model kosmos_model;

typedef struct kosmos_load_options {
  size_t struct_size;
  const char *device; /* "auto" (the default), "cpu", ...; a device requested by name is never replaced by another */
  const char *isa;    /* CPU instruction set: "avx2", "scalar", ...; NULL: KOSMOS_EDGE_ISA, else the best available */
  int32_t threads;    /* 1..1024 that compute; 0: from affinity and container limits, or OMP_NUM_THREADS */
  int32_t copy;       /* 0: map the file, which must stay unchanged while the model lives; 1: read it into memory */
  kosmos_progress_callback on_progress; /* during the load; NULL: none */
  kosmos_log_callback on_log;           /* as long as the model lives, from any thread that uses it; NULL: none */
  void *user;                           /* passed to both */
  kosmos_cancel *cancel;                /* NULL: none; ends the load */
  const char *mmproj; /* path of the vision encoder's file, where the model is a pair as llama.cpp has it; NULL: none */
  const char *kv_type; /* how keys and values of texts are kept: "f16" (the default, NULL: float16, or float32 where a
                        * file's weights are floats) or "q8_0" (8 bits, about half the memory of a long answer) */
  const char *shared_weights; /* a folder, made where it is missing, in which weights in the processor's layout are kept;
                               * processes that name it have them in memory once. NULL: in memory of this process. Where
                               * the folder or the disk refuses, the load goes on without: see on_log and
                               * kosmos_model_info.weight_bytes_shared */
} kosmos_load_options;

/* Opens a GGUF model file; with options->mmproj the pair of a language model at `path` and its vision encoder. options
 * may be NULL. About a second for the full-size model; memory: about the file's size.
 * INVALID_REQUEST, MODEL_NOT_FOUND, MODEL_CORRUPT, DEVICE_UNAVAILABLE, CANCELLED, IO. */
KOSMOS_API kosmos_status kosmos_model_load(const char *path, const kosmos_load_options *options, kosmos_model **model,
                                           kosmos_error **error) KOSMOS_NOEXCEPT;
/* Releases the memory as soon as the last call that uses the model has ended. */
KOSMOS_API void kosmos_model_free(kosmos_model *model) KOSMOS_NOEXCEPT;

typedef struct kosmos_model_info {
  size_t struct_size;
  const char *name;        /* general.name of the file, "" if absent */
  const char *notice;      /* what a user should know about this model's limits, "" for none */
  const char *device;      /* "cpu" */
  const char *description; /* of the device, human-readable */
  const char *isa;         /* "" on devices without one */
  int32_t threads;
  int32_t context_length; /* tokens of prompt and answer together */
  int32_t image_tokens;   /* that an image takes in the prompt, without its two tags */
  int32_t location_bins;  /* cells per side of the grid of boxes; 0: the model has no location tokens */
  int32_t vocabulary;     /* number of token ids */
  int32_t max_tokens;     /* default of kosmos_options.max_tokens */
  int32_t no_repeat_ngram_size; /* default of kosmos_options.no_repeat_ngram_size */
  int32_t reserved;
  uint64_t file_bytes;
  const char *architecture;  /* general.architecture of the file */
  const char *preprocessing; /* what is done to an image before the encoder, human-readable */
  const char *const *tasks;  /* task_count names of what the model can do: "generate", "score", and, where it was made
                              * for them, "caption", "ask", "read", "ground", "locate", "describe" */
  size_t task_count;
  /* The formats of the verbs' prompts; tag strings in them are tags. "" if the model has none. */
  const char *prompt_caption;
  const char *prompt_caption_detailed;
  const char *prompt_question;  /* with "{question}" */
  const char *prompt_locate;    /* with "{phrase}" */
  const char *prompt_describe;  /* with "{boxes}" */
  const char *prompt_grounding; /* before the others if boxes are requested */
  const char *prompt_read;      /* a page's text lines */
  const char *prompt_markdown;  /* a page as Markdown */
  int32_t width;                /* values of a row of the decoder */
  int32_t reserved2;
  double repetition_penalty; /* default of kosmos_options.repetition_penalty; 1: off */
  const char *kv_type;       /* how keys and values are kept: "f32", "f16" or "q8_0" */
  uint64_t kv_token_bytes;   /* memory of the keys and values of one token of prompt or answer */
  uint64_t weight_bytes_shared; /* of weights that are mapped from kosmos_load_options.shared_weights; 0: none */
} kosmos_model_info;

/* Properties of the model; strings are valid until the model is freed. INVALID_REQUEST. */
KOSMOS_API kosmos_status kosmos_model_get(const kosmos_model *model, kosmos_model_info *info,
                                          kosmos_error **error) KOSMOS_NOEXCEPT;

/* -------------------------------------------------------------------------------------------------------- images */

typedef struct kosmos_image kosmos_image; /* an encoded image; can be used only with the model that encoded it */

enum { KOSMOS_PIXELS_RGB = 0, KOSMOS_PIXELS_BGR = 1, KOSMOS_PIXELS_RGBX = 2, KOSMOS_PIXELS_BGRX = 3, KOSMOS_PIXELS_GRAY = 4 };

typedef struct kosmos_picture {
  size_t struct_size;
  const uint8_t *pixels; /* the upper left pixel; 8 bits per channel, sRGB */
  int32_t width, height; /* 1..65535 each, at most 2^28 pixels */
  ptrdiff_t stride;      /* bytes from a row to the one below, negative for bottom-up images; 0: rows without gaps */
  int32_t format;        /* KOSMOS_PIXELS_*: 3, 3, 4, 4, 1 bytes per pixel; X is ignored */
  int32_t reserved;
} kosmos_picture;

typedef struct kosmos_encode_options {
  size_t struct_size;
  kosmos_cancel *cancel; /* NULL: none */
  kosmos_abort_callback on_abort;
  void *user;       /* passed to on_abort */
  int32_t keep;     /* default ON: later prompts about the image reuse what they share with earlier ones, which takes
                     * memory (at most 128 MiB per model); OFF: for images that are used once */
  int32_t reserved;
} kosmos_encode_options;

/* Runs the vision encoder once; the image can then be used for any number of requests. options may be NULL.
 * INVALID_REQUEST, MODEL_CORRUPT, CANCELLED, FORKED. */
KOSMOS_API kosmos_status kosmos_image_encode(const kosmos_model *model, const kosmos_picture *picture,
                                             const kosmos_encode_options *options, kosmos_image **image,
                                             kosmos_error **error) KOSMOS_NOEXCEPT;
KOSMOS_API void kosmos_image_free(kosmos_image *image) KOSMOS_NOEXCEPT;

typedef struct kosmos_image_info {
  size_t struct_size;
  int32_t width, height; /* pixels of the original image */
  double encode_ms;
} kosmos_image_info;

/* INVALID_REQUEST. */
KOSMOS_API kosmos_status kosmos_image_get(const kosmos_image *image, kosmos_image_info *info,
                                          kosmos_error **error) KOSMOS_NOEXCEPT;

/* ------------------------------------------------------------------------------------------------------- answers */

typedef struct kosmos_result kosmos_result;

/* A rectangle of the image, in fractions and in pixels. This struct never changes; reserved is 0. Scores are not
 * calibrated. */
typedef struct kosmos_box {
  double x1, y1, x2, y2;     /* fractions of the image's width and height, 0..1 */
  double px1, py1, px2, py2; /* pixels of the image; all 0 if the prompt had no image */
  double score;              /* exp(mean ln p) of its location tokens, 0..1; NaN if the caller gave the box */
  int32_t cells[2];          /* of the upper left and the lower right corner: row * location_bins + column; -1, -1 for
                              * lines of a page, which are not made of cells */
  int32_t valid;             /* 1: x1 < x2 and y1 < y2, which the grammar guarantees; 0 is possible without it */
  int32_t reserved;
} kosmos_box;

typedef struct kosmos_entity {
  size_t struct_size;
  const char *phrase; /* "" if the model wrote a box without a phrase */
  size_t phrase_length; /* bytes */
  size_t start, end;  /* bytes of the answer's text: text[start..end) is the phrase; start <= end <= text_length */
  double score;       /* exp(mean ln p) of all its location tokens, 0..1; NaN if the caller gave them */
  const kosmos_box *boxes;
  size_t box_count;    /* at least 1 */
  double phrase_score; /* exp(sum ln p) of its phrase's tokens, 0..1; NaN without a phrase and if the caller gave it */
  double found_score;  /* locate: how likely it was that boxes follow the phrase at all, 0..1; NaN elsewhere */
  double phrase_mean;  /* exp(mean ln p) of its phrase's tokens, 0..1: how sure its words, or a line's text, are; NaN as
                        * phrase_score */
} kosmos_entity;

enum { KOSMOS_EVENT_TOKEN = 1, KOSMOS_EVENT_TEXT = 2, KOSMOS_EVENT_ENTITY = 3 };

typedef struct kosmos_event {
  size_t struct_size; /* set by the library */
  int32_t kind;       /* KOSMOS_EVENT_*; ignore kinds that you do not know */
  int32_t token_id;   /* TOKEN */
  double logprob;     /* TOKEN: as kosmos_result_info.logprobs */
  const char *text;   /* TEXT: the next part; all parts joined are the answer's text */
  size_t text_length; /* TEXT: bytes */
  const kosmos_entity *entity; /* ENTITY: TEXT events have given the text up to its end */
} kosmos_event;

/* Receives the answer as it is decoded. A result other than 0 stops it: the function returns the answer so far, with
 * KOSMOS_FINISH_STOPPED. */
typedef int32_t (*kosmos_event_callback)(const kosmos_event *event, void *user);

enum { KOSMOS_DEFAULT = 0, KOSMOS_ON = 1, KOSMOS_OFF = -1 }; /* of a switch whose default differs between functions */

enum { KOSMOS_UNIT_PIXELS = 0, KOSMOS_UNIT_NORMALIZED = 1 };
typedef struct kosmos_region {
  size_t struct_size;
  double x1, y1, x2, y2; /* 0 <= x1 < x2 <= width (normalized: 1), and likewise y */
  int32_t unit;          /* KOSMOS_UNIT_*; pixels that are all within 0..1 are INVALID_REQUEST: fractions were meant */
  int32_t reserved;
} kosmos_region;

/* A request of the same kind with the answer that it should have had (few-shot). */
typedef struct kosmos_example {
  size_t struct_size;          /* the same in all examples of an array; also the distance between them */
  const kosmos_image *image;   /* of the same model; pixels of the region are of it */
  const char *text;            /* ask: the question; others: NULL */
  const kosmos_region *region; /* describe; others: NULL */
  const char *answer;          /* required: caption, description or answer */
} kosmos_example;

/* A question of a conversation and its answer. */
typedef struct kosmos_turn {
  size_t struct_size;        /* the same in all turns of an array; also the distance between them */
  const kosmos_image *image; /* that the question brought; NULL: none */
  const char *question;
  const char *answer;
} kosmos_turn;

/* Options of an answer. Out of range or contradictory: INVALID_REQUEST that names the option. */
typedef struct kosmos_options {
  size_t struct_size;
  int32_t max_tokens;           /* 1..context_length; 0: the model's default */
  int32_t num_beams;            /* 1..8; 0: 1. More than 1 needs temperature 0 and no stop */
  double temperature;           /* 0 (greedy, the default)..100; below 1e-45 it is 0 */
  double top_p;                 /* above 0, at most 1, needs temperature > 0; 0: off */
  int32_t top_k;                /* 1..vocabulary, needs temperature > 0; 0: off */
  int32_t no_repeat_ngram_size; /* 1..context_length; 0: the model's default, -1: off */
  uint64_t seed;                /* of sampling */
  double length_penalty;        /* -10..10, needs num_beams > 1; used if the next field is KOSMOS_ON, else 1 */
  int32_t use_length_penalty;   /* KOSMOS_ON: use length_penalty */
  int32_t ground;   /* caption, ask: default OFF; describe: default ON; others: always or by the prompt, leave it 0 */
  int32_t grammar;  /* keep boxes well formed: default ON, except OFF for generate and with choices */
  int32_t lead_in;  /* KOSMOS_ON: the text begins with the prompt's words; default OFF */
  int32_t logprobs; /* KOSMOS_ON: of every token; default OFF: of location tokens and phrases */
  int32_t detailed; /* KOSMOS_ON: caption at length; default OFF; others: leave it 0 */
  const char *const *stop; /* up to 32 texts that end the answer; the text found is not part of it */
  size_t stop_count;
  const char *const *choices; /* ask, generate: up to 1000 texts; the answer is exactly one of them, after the prompt's
                               * words with lead_in. INVALID_REQUEST if the tokenizer cannot produce one exactly (it
                               * folds blanks, rewrites or lacks characters), or if a stop text or max_tokens would cut
                               * one off; with max_tokens 0 there is always room */
  size_t choice_count;
  kosmos_cancel *cancel;           /* NULL: none */
  kosmos_abort_callback on_abort;  /* NULL: none */
  kosmos_event_callback on_event;  /* NULL: none */
  void *user;                      /* passed to both */
  const kosmos_example *examples;  /* caption, describe, ask: up to 64, before the request; NULL: none */
  size_t example_count;
  double min_score; /* 0 (the default: all)..1: entities whose phrase_score, or found_score if the phrase was given, is
                     * below it are left out; a note says so. The text stays */
  const char *template_text; /* caption, locate, describe, ask: the prompt of this call and its examples instead of the
                              * model's (kosmos_model_info.prompt_*). locate: with "{phrase}" in it, describe: "{boxes}",
                              * ask: "{question}", each once. Tag strings in it are tags. NULL: the model's */
  int32_t markdown;           /* KOSMOS_ON: read: the page as Markdown; default OFF; others: leave it 0 */
  int32_t top_logprobs;       /* 0..20: as many of the likeliest tokens for each of the answer's; includes logprobs */
  const kosmos_turn *turns;   /* ask: up to 1024, what was asked and answered before, behind the examples; NULL: none.
                               * The image of the question itself may be NULL then */
  size_t turn_count;
  double repetition_penalty; /* 0.125..100: scores of all tokens of prompt and answer are divided by it, those below 0
                              * multiplied; above 1 it makes repeats less likely. 1: off; 0: the model's default */
} kosmos_options;

/* The functions below answer about an image; options may be NULL. Errors of each: INVALID_REQUEST, MODEL_CORRUPT,
 * CONTEXT_TOO_LONG (before anything is computed), CANCELLED, FORKED. */

/* What the image shows, in a few words; with options.detailed at length, with options.ground with boxes. */
KOSMOS_API kosmos_status kosmos_caption(const kosmos_model *model, const kosmos_image *image,
                                        const kosmos_options *options, kosmos_result **result,
                                        kosmos_error **error) KOSMOS_NOEXCEPT;
/* Text with boxes for what it names. prompt: words to continue; NULL: those of a short caption. */
KOSMOS_API kosmos_status kosmos_ground(const kosmos_model *model, const kosmos_image *image, const char *prompt,
                                       const kosmos_options *options, kosmos_result **result,
                                       kosmos_error **error) KOSMOS_NOEXCEPT;
/* Where the phrase is: one entity, or none (a note says so). The model tends to find whatever it is asked for. */
KOSMOS_API kosmos_status kosmos_locate(const kosmos_model *model, const kosmos_image *image, const char *phrase,
                                       const kosmos_options *options, kosmos_result **result,
                                       kosmos_error **error) KOSMOS_NOEXCEPT;

/* What is in the region; kosmos_result_info.box is the region as the model sees it, snapped to its grid. */
KOSMOS_API kosmos_status kosmos_describe(const kosmos_model *model, const kosmos_image *image,
                                         const kosmos_region *region, const kosmos_options *options,
                                         kosmos_result **result, kosmos_error **error) KOSMOS_NOEXCEPT;
/* The answer to a question. */
KOSMOS_API kosmos_status kosmos_ask(const kosmos_model *model, const kosmos_image *image, const char *question,
                                    const kosmos_options *options, kosmos_result **result,
                                    kosmos_error **error) KOSMOS_NOEXCEPT;

/* The text lines of a page in reading order: each is an entity, whose phrase is the line and which has one box; the
 * answer's text is the lines, joined by newlines. With options.markdown the page as Markdown, usually without boxes.
 * A last line that a stop text or max_tokens has cut keeps its box and the words before; a note says so. */
KOSMOS_API kosmos_status kosmos_read(const kosmos_model *model, const kosmos_image *image,
                                     const kosmos_options *options, kosmos_result **result,
                                     kosmos_error **error) KOSMOS_NOEXCEPT;

enum {
  KOSMOS_SEGMENT_TEXT = 1,     /* text: plain characters, even if they spell a tag */
  KOSMOS_SEGMENT_RAW_TEXT = 2, /* text: tag strings in it are tags */
  KOSMOS_SEGMENT_IMAGE = 3,    /* image */
  KOSMOS_SEGMENT_ROWS = 5,     /* rows: vectors of the caller's own in the place of token embeddings */
  KOSMOS_SEGMENT_BOXES = 4     /* boxes of the phrase before; pixels are those of the image before */
};
typedef struct kosmos_segment {
  size_t struct_size; /* the same in all segments of an array; also the distance between them */
  int32_t kind;       /* KOSMOS_SEGMENT_* */
  int32_t reserved;
  const char *text;
  const kosmos_image *image;
  const kosmos_region *boxes; /* all of one struct_size */
  size_t box_count;           /* 1..1024 */
  const float *rows;          /* row_count x kosmos_model_info.width, as the model's own image rows are: before the
                               * scale of embeddings and before positions. Models that look at images by
                               * cross-attention refuse them */
  size_t row_count;
} kosmos_segment;

/* Continues any sequence of 1..4096 images, texts and boxes: few-shot prompts, several images, no image. The answer's
 * boxes are in pixels of the last image. */
KOSMOS_API kosmos_status kosmos_generate(const kosmos_model *model, const kosmos_segment *segments,
                                         size_t segment_count, const kosmos_options *options, kosmos_result **result,
                                         kosmos_error **error) KOSMOS_NOEXCEPT;

enum {
  KOSMOS_FINISH_END = 0,         /* the model ended the answer (locate: the boxes are closed) */
  KOSMOS_FINISH_STOP_STRING = 1, /* a text of options.stop, or of the model, was found */
  KOSMOS_FINISH_LENGTH = 2,      /* max_tokens was reached */
  KOSMOS_FINISH_CHOICE = 3,      /* one of options.choices is complete */
  KOSMOS_FINISH_STOPPED = 4      /* the event callback stopped it */
};

typedef struct kosmos_result_info {
  size_t struct_size;
  const char *text;   /* without tags, and without the prompt's words unless options.lead_in */
  size_t text_length; /* bytes */
  size_t entity_count;
  const int32_t *token_ids; /* of the answer, with </s> if it ended the answer */
  const float *logprobs;    /* per token: ln p over the whole vocabulary before any rule; NaN if not requested */
  size_t token_count;
  size_t prompt_token_count; /* with the image's */
  size_t reused_token_count; /* of the prompt: not computed again, see kosmos_encode_options.keep;
                              * without images what it shares with the last such prompt */
  int32_t finish;            /* KOSMOS_FINISH_* */
  int32_t width, height;     /* of the image that boxes refer to; 0 without an image */
  int32_t has_box;           /* 1: box is set (describe) */
  kosmos_box box;
  double prefill_ms, decode_ms, total_ms;
  const char *device;
  const char *model;
  const char *const *notes; /* what the caller should know about this answer */
  size_t note_count;
  const int32_t *top_token_ids; /* options.top_logprobs: top_count for each token, the likeliest first, token after */
  const float *top_logprobs;    /* token; ln p of each, as logprobs */
  size_t top_count;             /* top_logprobs, or the size of a smaller vocabulary; 0 if not requested */
} kosmos_result_info;

/* The whole answer except its entities. INVALID_REQUEST. */
KOSMOS_API kosmos_status kosmos_result_get(const kosmos_result *result, kosmos_result_info *info,
                                           kosmos_error **error) KOSMOS_NOEXCEPT;
/* Entity number index, 0..entity_count-1, in the order of the text. INVALID_REQUEST. */
KOSMOS_API kosmos_status kosmos_result_get_entity(const kosmos_result *result, size_t index, kosmos_entity *entity,
                                                  kosmos_error **error) KOSMOS_NOEXCEPT;
KOSMOS_API void kosmos_result_free(kosmos_result *result) KOSMOS_NOEXCEPT;

/* -------------------------------------------------------------------------------------------------------- batches */

enum { KOSMOS_TASK_CAPTION = 1, KOSMOS_TASK_GROUND = 2, KOSMOS_TASK_LOCATE = 3, KOSMOS_TASK_DESCRIBE = 4, KOSMOS_TASK_ASK = 5, KOSMOS_TASK_READ = 6 };

/* A call of kosmos_caption, _ground, _locate, _describe, _ask or _read as part of a batch. */
typedef struct kosmos_request {
  size_t struct_size;
  int32_t task; /* KOSMOS_TASK_* */
  int32_t reserved;
  uint64_t id; /* chosen by the host; returned with the answer */
  const kosmos_image *image;
  const char *text;              /* ground: prompt or NULL; locate: phrase; ask: question; others: NULL */
  const kosmos_region *region;   /* describe; others: NULL */
  const kosmos_options *options; /* may be NULL; its cancel and on_abort end only this answer */
} kosmos_request;

/* Called whenever there is room for another request: fill it and return 1, or return 0 if there are no more. Initially
 * struct_size is set and all else is 0. The library does not use what the request points to after the callback is called
 * again or the batch ends; its handles may be freed then. A good place to read and encode an image. */
typedef int32_t (*kosmos_next_callback)(kosmos_request *request, void *user);
/* Receives answers in the order in which they end: a result, or NULL and the error of this request. The host owns both
 * (kosmos_result_free, kosmos_error_free). A result other than 0 ends the batch with KOSMOS_ERROR_CANCELLED. */
typedef int32_t (*kosmos_answer_callback)(uint64_t id, kosmos_result *result, kosmos_error *error, void *user);

typedef struct kosmos_batch_options {
  size_t struct_size;
  int32_t batch_size; /* 1..256 answers at a time; 0: 8, which takes about 180 MB with the full-size model */
  int32_t reserved;
  kosmos_next_callback on_next;     /* required */
  kosmos_answer_callback on_answer; /* required */
  kosmos_abort_callback on_abort;   /* NULL: none; ends the batch */
  void *user;                       /* passed to all three */
  kosmos_cancel *cancel;            /* NULL: none; ends the batch */
} kosmos_batch_options;

/* Answers many requests, several at a time: each weight is read once for all of them, and a new request takes the place
 * of one that ended. Every answer is bit-identical to that of the task's own function. A request with more than one beam
 * is computed alone. Returns when on_next has no more requests and all are answered. If the batch itself fails, the
 * remaining requests get no answer. INVALID_REQUEST, MODEL_CORRUPT, CANCELLED, FORKED. */
KOSMOS_API kosmos_status kosmos_batch(const kosmos_model *model, const kosmos_batch_options *options,
                                      kosmos_error **error) KOSMOS_NOEXCEPT;

/* -------------------------------------------------------------------------------------------------------- scoring */

typedef struct kosmos_ranking kosmos_ranking;

enum { KOSMOS_NORMALIZE_SUM = 0, KOSMOS_NORMALIZE_MEAN = 1, KOSMOS_NORMALIZE_CHARACTERS = 2 };
typedef struct kosmos_score_options {
  size_t struct_size;
  const char *template_text; /* words around exactly one "{text}"; the image is at "{image}" before it, or else before
                              * all words. NULL: the model's caption prompt, of KOSMOS-2 "An image of {text}" */
  int32_t normalize;         /* KOSMOS_NORMALIZE_*: sum of ln p; for texts of different lengths its mean per token, or
                              * the sum by the number of the text's characters (Unicode code points) */
  int32_t reserved;
  kosmos_cancel *cancel; /* NULL: none */
  kosmos_abort_callback on_abort;
  void *user; /* passed to on_abort */
} kosmos_score_options;

typedef struct kosmos_score_info {
  size_t struct_size;
  size_t index;        /* of the text in the caller's array */
  double score;        /* by which texts are ranked, see kosmos_score_options.normalize */
  double share;        /* softmax of the scores; all shares sum to 1 */
  double logprob_sum;  /* ln p of the text, and of the template's words after it, given the image and the words before */
  double logprob_mean; /* per token */
  const int32_t *token_ids;
  const float *logprobs;
  size_t token_count;
  int32_t greedy; /* 1: every token was the likeliest at its place, so that greedy decoding would say this text */
  int32_t reserved;
} kosmos_score_info;

/* Ranks 1..10000 texts by how likely they are given the image (NULL: without one). options may be NULL.
 * INVALID_REQUEST, MODEL_CORRUPT, CONTEXT_TOO_LONG, CANCELLED, FORKED. */
KOSMOS_API kosmos_status kosmos_score(const kosmos_model *model, const kosmos_image *image, const char *const *texts,
                                      size_t text_count, const kosmos_score_options *options,
                                      kosmos_ranking **ranking, kosmos_error **error) KOSMOS_NOEXCEPT;
/* The same behind any sequence of 1..4096 images, texts, boxes and rows, as in kosmos_generate: several images, few-shot
 * prompts, no image. A blank that ends the last segment belongs to the texts. options.template_text must be NULL. */
KOSMOS_API kosmos_status kosmos_score_segments(const kosmos_model *model, const kosmos_segment *segments,
                                               size_t segment_count, const char *const *texts, size_t text_count,
                                               const kosmos_score_options *options, kosmos_ranking **ranking,
                                               kosmos_error **error) KOSMOS_NOEXCEPT;
/* How many texts were ranked; 0 for an invalid handle. */
KOSMOS_API size_t kosmos_ranking_count(const kosmos_ranking *ranking) KOSMOS_NOEXCEPT;
/* The text at this rank, 0 the most likely; equal ones in the caller's order. INVALID_REQUEST. */
KOSMOS_API kosmos_status kosmos_ranking_get(const kosmos_ranking *ranking, size_t rank, kosmos_score_info *info,
                                            kosmos_error **error) KOSMOS_NOEXCEPT;

typedef struct kosmos_ranking_info {
  size_t struct_size;
  size_t count;              /* of texts */
  size_t token_count;        /* of all texts, what stands behind them in the template included */
  size_t reused_token_count; /* of the prompt: not computed again, see kosmos_encode_options.keep;
                              * without images what it shares with the last such prompt */
  int32_t width, height;     /* of the image; 0 where there is none */
  double total_ms;
  const char *device;
  const char *model;
  const char *const *notes; /* what the caller should know about this ranking */
  size_t note_count;
} kosmos_ranking_info;

/* The ranking except its rows; strings are valid until it is freed. INVALID_REQUEST. */
KOSMOS_API kosmos_status kosmos_ranking_get_info(const kosmos_ranking *ranking, kosmos_ranking_info *info,
                                                 kosmos_error **error) KOSMOS_NOEXCEPT;
KOSMOS_API void kosmos_ranking_free(kosmos_ranking *ranking) KOSMOS_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
