/* The ways in which a picture comes into the window: a dialog, a drop, the clipboard. */
#ifndef OPEN_H
#define OPEN_H

#include <gtk/gtk.h>

/* One of file, texture and error is given. */
typedef void (*OpenCallback)(GFile *file, GdkTexture *texture, const char *error, gpointer user);

/* Lets the user choose a file. */
void open_dialog(GtkWindow *parent, OpenCallback callback, gpointer user);
/* Takes pictures and files of pictures that are dropped on the widget, or pasted in it with Ctrl+V. */
void open_accept(GtkWidget *widget, OpenCallback callback, gpointer user);

#endif
