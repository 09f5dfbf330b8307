/* The model on a thread of its own. Requests go in from the main thread and return at once; what comes of them is told
 * by events on the main thread. engine.c is the only file that uses kosmos.h. */
#ifndef ENGINE_H
#define ENGINE_H

#include "phrase.h"

typedef struct Engine Engine;

typedef enum {
  ENGINE_PROGRESS,  /* fraction of the model that is loaded */
  ENGINE_READY,     /* the model is loaded; text: its name and where it computes */
  ENGINE_PICTURE,   /* texture: the picture that was opened, before anything is known about it */
  ENGINE_TEXT,      /* text: the next part of the answer */
  ENGINE_PHRASE,    /* phrase: TEXT events have given the text up to its end */
  ENGINE_DONE,      /* the request is answered */
  ENGINE_CANCELLED, /* the request was cancelled */
  ENGINE_FAILED     /* text: why */
} EngineEventKind;  /* each request ends with exactly one of the last three */

typedef struct {
  EngineEventKind kind;
  double fraction;
  char *text;
  Phrase *phrase; /* the receiver may take it and leave NULL */
  GdkTexture *texture;
} EngineEvent;

typedef void (*EngineCallback)(EngineEvent *event, gpointer user);

/* model: path of a GGUF file; NULL: every request fails and says how to choose one. */
Engine *engine_new(const char *model, EngineCallback callback, gpointer user);
/* Cancels what is under way and waits for it: the time of one layer. No callback comes after that. */
void engine_free(Engine *engine);

/* For the requests that follow. Megabytes that the whole program may use, 0: no limit. A request that needs more fails.
 */
void engine_set_memory_limit(Engine *engine, guint megabytes);

void engine_load(Engine *engine);
/* Opens the picture, then says what it shows, with boxes where the model has them. */
void engine_caption_file(Engine *engine, GFile *file);
void engine_caption_texture(Engine *engine, GdkTexture *texture);
/* About the picture that was opened last. */
void engine_ask(Engine *engine, const char *question);
/* All requests so far, also those that wait: of an answer nothing more is told, even if it has just become whole. */
void engine_cancel(Engine *engine);
gboolean engine_busy(const Engine *engine);

#endif
