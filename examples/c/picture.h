/* A picture file as the pixels that kosmos_image_encode takes. */
#ifndef PICTURE_H
#define PICTURE_H

#include <stddef.h>
#include <stdint.h>

/* RGB rows without gaps, upright and without transparency; to be freed with free(). NULL if the file cannot be read:
 * then `message`, of `size` bytes, says why.
 *   picture.c      PNG, JPEG, TIFF, WebP and whatever else the system's gdk-pixbuf reads
 *   picture_ppm.c  PPM alone, but needs no library */
unsigned char *picture_read(const char *path, int32_t *width, int32_t *height, char *message, size_t size);

#endif
