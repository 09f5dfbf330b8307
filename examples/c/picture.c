#include "picture.h"

#include <gdk-pixbuf/gdk-pixbuf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

unsigned char *picture_read(const char *path, int32_t *width, int32_t *height, char *message, size_t size) {
  GError *error = NULL;
  GdkPixbuf *file = gdk_pixbuf_new_from_file(path, &error);
  GdkPixbuf *upright, *plain;
  unsigned char *pixels;
  size_t row;
  int y;

  if (file == NULL) {
    snprintf(message, size, "%s: %s", path, error->message);
    g_error_free(error);
    return NULL;
  }
  upright = gdk_pixbuf_apply_embedded_orientation(file); /* as the camera was held (EXIF) */
  g_object_unref(file);
  *width = gdk_pixbuf_get_width(upright);
  *height = gdk_pixbuf_get_height(upright);
  plain = upright;
  if (gdk_pixbuf_get_has_alpha(upright)) { /* transparent pixels get a white background */
    plain = gdk_pixbuf_new(GDK_COLORSPACE_RGB, FALSE, 8, *width, *height);
    if (plain != NULL) {
      gdk_pixbuf_fill(plain, 0xffffffffu);
      gdk_pixbuf_composite(upright, plain, 0, 0, *width, *height, 0, 0, 1, 1, GDK_INTERP_NEAREST, 255);
    }
    g_object_unref(upright);
  }
  row = (size_t)*width * 3;
  pixels = plain == NULL ? NULL : malloc(row * (size_t)*height);
  if (pixels == NULL) snprintf(message, size, "%s: out of memory", path);
  for (y = 0; pixels != NULL && y < *height; y++)
    memcpy(pixels + (size_t)y * row,
           gdk_pixbuf_read_pixels(plain) + (size_t)y * (size_t)gdk_pixbuf_get_rowstride(plain), row);
  if (plain != NULL) g_object_unref(plain);
  return pixels;
}
