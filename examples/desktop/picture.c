#include "picture.h"

/* Refuses by the size in the header. The loader decodes nothing more once the size is 0. */
static void size_prepared(GdkPixbufLoader *loader, int width, int height, gpointer user) {
  GError **error = user;
  if ((gint64)width * height <= PICTURE_MOST_PIXELS) return;
  if (*error == NULL)
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "a picture of %d x %d pixels; at most %d million are taken",
                width, height, PICTURE_MOST_PIXELS / 1000000);
  gdk_pixbuf_loader_set_size(loader, 0, 0);
}

/* The picture in its file's orientation. */
static GdkPixbuf *decode(GInputStream *stream, GError **error) {
  GdkPixbufLoader *loader = gdk_pixbuf_loader_new();
  GError *refused = NULL;
  GError *failed = NULL;
  GdkPixbuf *pixbuf = NULL;
  guchar buffer[1 << 16];
  gssize count;

  g_signal_connect(loader, "size-prepared", G_CALLBACK(size_prepared), &refused);
  while (refused == NULL && failed == NULL &&
         (count = g_input_stream_read(stream, buffer, sizeof buffer, NULL, &failed)) > 0)
    gdk_pixbuf_loader_write(loader, buffer, (gsize)count, &failed);
  gdk_pixbuf_loader_close(loader, refused == NULL && failed == NULL ? &failed : NULL); /* required, also after errors */

  if (refused != NULL) {
    g_clear_error(&failed);
    g_propagate_error(error, refused);
  } else if (failed != NULL) {
    g_propagate_error(error, failed);
  } else if ((pixbuf = gdk_pixbuf_loader_get_pixbuf(loader)) == NULL) {
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "no picture in this file");
  } else {
    pixbuf = gdk_pixbuf_apply_embedded_orientation(pixbuf); /* as the camera was held (EXIF) */
    if (pixbuf == NULL) g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_NO_SPACE, "out of memory");
  }
  g_object_unref(loader);
  return pixbuf;
}

/* Takes the pixbuf. Transparent pixels get a white background. */
static Picture *from_pixbuf(GdkPixbuf *pixbuf, GError **error) {
  int width = gdk_pixbuf_get_width(pixbuf), height = gdk_pixbuf_get_height(pixbuf);
  Picture *picture;

  if (gdk_pixbuf_get_has_alpha(pixbuf)) {
    GdkPixbuf *plain = gdk_pixbuf_new(GDK_COLORSPACE_RGB, FALSE, 8, width, height);
    if (plain != NULL) {
      gdk_pixbuf_fill(plain, 0xffffffff);
      gdk_pixbuf_composite(pixbuf, plain, 0, 0, width, height, 0, 0, 1, 1, GDK_INTERP_NEAREST, 255);
    }
    g_object_unref(pixbuf);
    pixbuf = plain;
  }
  if (pixbuf == NULL) {
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_NO_SPACE, "out of memory");
    return NULL;
  }
  picture = g_new(Picture, 1);
  picture->width = width;
  picture->height = height;
  picture->stride = (gsize)gdk_pixbuf_get_rowstride(pixbuf);
  picture->pixels = gdk_pixbuf_read_pixel_bytes(pixbuf);
  g_object_unref(pixbuf);
  return picture;
}

Picture *picture_new_from_file(GFile *file, GError **error) {
  GFileInputStream *stream = g_file_read(file, NULL, error);
  GdkPixbuf *pixbuf = NULL;
  if (stream != NULL) {
    pixbuf = decode(G_INPUT_STREAM(stream), error);
    g_object_unref(stream);
  }
  if (pixbuf == NULL) {
    char *name = g_file_get_parse_name(file);
    g_prefix_error(error, "%s: ", name);
    g_free(name);
    return NULL;
  }
  return from_pixbuf(pixbuf, error);
}

Picture *picture_new_from_texture(GdkTexture *texture, GError **error) {
  GBytes *png = gdk_texture_save_to_png_bytes(texture);
  GInputStream *stream = g_memory_input_stream_new_from_bytes(png);
  GdkPixbuf *pixbuf = decode(stream, error);
  g_object_unref(stream);
  g_bytes_unref(png);
  return pixbuf == NULL ? NULL : from_pixbuf(pixbuf, error);
}

GdkTexture *picture_texture(const Picture *picture) {
  return gdk_memory_texture_new(picture->width, picture->height, GDK_MEMORY_R8G8B8, picture->pixels, picture->stride);
}

void picture_free(Picture *picture) {
  if (picture == NULL) return;
  g_bytes_unref(picture->pixels);
  g_free(picture);
}
