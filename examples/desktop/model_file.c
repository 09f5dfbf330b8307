#define _GNU_SOURCE /* dladdr */
#include "model_file.h"

#include <dlfcn.h>
#include <glib.h>

/* `pip install kosmos-edge` puts lib/libkosmos_edge.so.0 and data/nano-q4_k_m.gguf into one folder. */
static char *beside_the_library(void) {
  Dl_info info;
  void *symbol = dlsym(RTLD_DEFAULT, "kosmos_version");
  char *folder, *path;

  if (symbol == NULL || dladdr(symbol, &info) == 0 || info.dli_fname == NULL) return NULL;
  folder = g_path_get_dirname(info.dli_fname);
  path = g_build_filename(folder, "..", "data", "nano-q4_k_m.gguf", NULL);
  g_free(folder);
  if (!g_file_test(path, G_FILE_TEST_IS_REGULAR)) g_clear_pointer(&path, g_free);
  return path;
}

char *model_file(const char *argument) {
  const char *environment = g_getenv("KOSMOS_EDGE_MODEL");
  if (argument != NULL) return g_strdup(argument);
  if (environment != NULL && *environment != 0) return g_strdup(environment);
  return beside_the_library();
}
