/* Captions a picture with kosmos.h: the text on one line, then every phrase with its boxes in pixels.
 *
 *   cc -std=c99 caption.c picture.c $(pkg-config --cflags --libs kosmos-edge gdk-pixbuf-2.0) -o caption
 *   ./caption model.gguf photo.jpg
 *
 * picture.c reads all usual formats with gdk-pixbuf (Debian: libgdk-pixbuf-2.0-dev). With picture_ppm.c in its place no
 * other library is needed, and pictures are PPM files. With kosmos-edge out of a wheel, link with
 * $(python -m kosmos_edge.native --cflags --libs).
 */
#include <kosmos.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "picture.h"

static int failed(const char *what, kosmos_error *error) {
  fprintf(stderr, "%s: %s\n", what, kosmos_error_message(error));
  kosmos_error_free(error);
  return 1;
}

/* Whether the model can give boxes. Others refuse to be asked for them. */
static int gives_boxes(const kosmos_model *model) {
  kosmos_model_info info = KOSMOS_INIT(kosmos_model_info);
  if (kosmos_model_get(model, &info, NULL) != KOSMOS_OK) return 0;
  for (size_t i = 0; i < info.task_count; i++)
    if (strcmp(info.tasks[i], "ground") == 0) return 1;
  return 0;
}

static kosmos_status caption(kosmos_model *model, const kosmos_image *image, kosmos_result **result,
                             kosmos_error **error) {
  kosmos_options options = KOSMOS_INIT(kosmos_options);
  options.ground = gives_boxes(model) ? KOSMOS_ON : KOSMOS_OFF;
  return kosmos_caption(model, image, &options, result, error);
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
  unsigned char *pixels;
  char message[512];
  int code = 0;

  if (argc != 3) {
    fprintf(stderr, "usage: %s MODEL.gguf PICTURE\n", argv[0]);
    return 2;
  }
  if (kosmos_abi_version() != KOSMOS_ABI_VERSION) {
    fprintf(stderr, "this program was made for another kosmos-edge than version %s\n", kosmos_version());
    return 1;
  }
  pixels = picture_read(argv[2], &picture.width, &picture.height, message, sizeof message);
  if (pixels == NULL) {
    fprintf(stderr, "%s\n", message);
    return 1;
  }
  picture.pixels = pixels;

  if (kosmos_model_load(argv[1], NULL, &model, &error) != KOSMOS_OK)
    code = failed(argv[1], error);
  else if (kosmos_image_encode(model, &picture, NULL, &image, &error) != KOSMOS_OK)
    code = failed(argv[2], error);
  else if (caption(model, image, &result, &error) != KOSMOS_OK)
    code = failed("caption", error);
  else
    code = print_answer(result);

  kosmos_result_free(result);
  kosmos_image_free(image);
  kosmos_model_free(model);
  free(pixels);
  return code;
}
