/* The program's window: a picture, what the model says about it, and questions. */
#ifndef WINDOW_H
#define WINDOW_H

#include <gtk/gtk.h>

typedef struct Window Window;

/* model: path of a GGUF file or NULL; megabytes: the limit on memory, 0 for none. The window owns itself until closed.
 */
Window *window_new(GtkApplication *app, const char *model, guint megabytes);
GtkWindow *window_gtk(Window *window);

/* What the buttons do. */
void window_open(Window *window, GFile *picture);
void window_ask(Window *window, const char *question);
void window_cancel(Window *window);
void window_copy_alt_text(Window *window);

/* As it is shown; the caller frees the text. */
char *window_text(Window *window);
/* NULL: there is none. */
const char *window_error(Window *window);
const char *window_status(Window *window);

/* Is called whenever all requests have ended. */
void window_on_idle(Window *window, void (*callback)(Window *window, gpointer user), gpointer user);

#endif
