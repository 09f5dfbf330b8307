/* Binary PPM files (P6, 8 bits), which need no decoder:
 *   python -c "from PIL import Image; Image.open('photo.jpg').convert('RGB').save('photo.ppm')" */
#include "picture.h"

#include <stdio.h>
#include <stdlib.h>

/* The next number of a PPM header, -1 when there is none. Comments run from # to the end of the line. */
static long read_number(FILE *file) {
  long value = -1;
  int c = fgetc(file);
  while (c == '#' || c == ' ' || c == '\t' || c == '\r' || c == '\n') {
    if (c == '#')
      while (c != '\n' && c != EOF) c = fgetc(file);
    c = fgetc(file);
  }
  for (; c >= '0' && c <= '9' && value < 100000; c = fgetc(file)) value = (value < 0 ? 0 : value * 10) + (c - '0');
  return value;
}

unsigned char *picture_read(const char *path, int32_t *width, int32_t *height, char *message, size_t size) {
  FILE *file = fopen(path, "rb");
  unsigned char *pixels = NULL;
  snprintf(message, size, "%s: not a readable PPM picture", path);
  if (file == NULL) return NULL;
  if (fgetc(file) == 'P' && fgetc(file) == '6') {
    long w = read_number(file), h = read_number(file), most = read_number(file);
    if (w > 0 && w <= 65535 && h > 0 && h <= 65535 && most == 255) {
      size_t bytes = (size_t)w * (size_t)h * 3;
      pixels = malloc(bytes);
      if (pixels != NULL && fread(pixels, 1, bytes, file) != bytes) {
        free(pixels);
        pixels = NULL;
      }
      *width = (int32_t)w;
      *height = (int32_t)h;
    }
  }
  fclose(file);
  return pixels;
}
