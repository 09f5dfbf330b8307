/* Captions a picture with kosmos.h: the text on one line, then every phrase with its boxes in pixels.
 *
 *   python -c "from PIL import Image; Image.open('photo.jpg').convert('RGB').save('photo.ppm')"
 *   cc -std=c99 caption.c $(pkg-config --cflags --libs kosmos-edge) -o caption
 *   ./caption model.gguf photo.ppm
 *
 * The pictures are binary PPM files (P6, 8 bits), which need no decoder. With the library out of a wheel, say
 * PKG_CONFIG_PATH=$(python -m kosmos_edge.native --pkg-config) and LD_LIBRARY_PATH, or link with
 * $(python -m kosmos_edge.native --cflags --libs).
 */
#include <kosmos.h>
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

/* RGB rows of a PPM file, to be freed; NULL when it is none. */
static unsigned char *read_ppm(const char *path, int32_t *width, int32_t *height) {
  FILE *file = fopen(path, "rb");
  unsigned char *pixels = NULL;
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

static int failed(const char *what, kosmos_error *error) {
  fprintf(stderr, "%s: %s\n", what, kosmos_error_message(error));
  kosmos_error_free(error);
  return 1;
}

static int print_answer(const kosmos_result *result) {
  kosmos_error *error = NULL;
  kosmos_result_info info = KOSMOS_INIT(kosmos_result_info);
  if (kosmos_result_get(result, &info, &error) != KOSMOS_OK) return failed("result", error);
  printf("%s\n", info.text);
  for (size_t i = 0; i < info.entity_count; i++) {
    kosmos_entity entity = KOSMOS_INIT(kosmos_entity);
    if (kosmos_result_get_entity(result, i, &entity, &error) != KOSMOS_OK) return failed("entity", error);
    for (size_t j = 0; j < entity.box_count; j++) {
      const kosmos_box *box = &entity.boxes[j];
      printf("%s\t%.1f %.1f %.1f %.1f\n", entity.phrase, box->px1, box->py1, box->px2, box->py2);
    }
  }
  return 0;
}

int main(int argc, char **argv) {
  kosmos_error *error = NULL;
  kosmos_model *model = NULL;
  kosmos_image *image = NULL;
  kosmos_result *result = NULL;
  kosmos_picture picture = KOSMOS_INIT(kosmos_picture);
  kosmos_options options = KOSMOS_INIT(kosmos_options);
  unsigned char *pixels;
  int code = 0;

  if (argc != 3) {
    fprintf(stderr, "usage: %s MODEL.gguf PICTURE.ppm\n", argv[0]);
    return 2;
  }
  if (kosmos_abi_version() != KOSMOS_ABI_VERSION) {
    fprintf(stderr, "this program was made for another kosmos-edge than version %s\n", kosmos_version());
    return 1;
  }
  pixels = read_ppm(argv[2], &picture.width, &picture.height);
  if (pixels == NULL) {
    fprintf(stderr, "%s: not a readable PPM picture\n", argv[2]);
    return 1;
  }
  picture.pixels = pixels;
  options.ground = KOSMOS_ON;

  if (kosmos_model_load(argv[1], NULL, &model, &error) != KOSMOS_OK)
    code = failed(argv[1], error);
  else if (kosmos_image_encode(model, &picture, NULL, &image, &error) != KOSMOS_OK)
    code = failed(argv[2], error);
  else if (kosmos_caption(model, image, &options, &result, &error) != KOSMOS_OK)
    code = failed("caption", error);
  else
    code = print_answer(result);

  kosmos_result_free(result);
  kosmos_image_free(image);
  kosmos_model_free(model);
  free(pixels);
  return code;
}
