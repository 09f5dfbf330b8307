/* Picture files and pasted pictures as the pixels that kosmos.h takes: upright, RGB, without transparency. */
#ifndef PICTURE_H
#define PICTURE_H

#include <gtk/gtk.h>

/* More pixels than this are refused before they are decoded: a small file can unfold to gigabytes. */
#define PICTURE_MOST_PIXELS 100000000

typedef struct {
  GBytes *pixels; /* 3 bytes a pixel */
  int width, height;
  gsize stride; /* bytes from a row to the next */
} Picture;

/* Reads and decodes on the calling thread. NULL and an error when it is no picture, too large, or out of memory. */
Picture *picture_new_from_file(GFile *file, GError **error);
Picture *picture_new_from_texture(GdkTexture *texture, GError **error);
/* For showing it; shares the pixels. */
GdkTexture *picture_texture(const Picture *picture);
void picture_free(Picture *picture);

#endif
