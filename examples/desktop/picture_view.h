/* A picture with the boxes of an answer. The box under the pointer, or the one chosen with the arrow keys, is lit. */
#ifndef PICTURE_VIEW_H
#define PICTURE_VIEW_H

#include "phrase.h"

#define PICTURE_TYPE_VIEW (picture_view_get_type())
G_DECLARE_FINAL_TYPE(PictureView, picture_view, PICTURE, VIEW, GtkWidget)

/* phrases: of Phrase; shared with the caller, who calls picture_view_changed when there are more. */
GtkWidget *picture_view_new(GPtrArray *phrases);
void picture_view_set_texture(PictureView *view, GdkTexture *texture);
void picture_view_changed(PictureView *view);
/* Lights the boxes of a phrase; -1: of none. Emits no signal. */
void picture_view_light(PictureView *view, int phrase);
/* Signal "lit" (int phrase): the user chose a box; -1: none. */

#endif
