/* What is in the picture? A desktop program around libkosmos_edge. README.md says how to build and use it. */
#include <gtk/gtk.h>
#include <kosmos.h>
#include <stdlib.h>

#include "appearance.h"
#include "model_file.h"
#include "script.h"
#include "window.h"

typedef struct {
  char *model;
  int megabytes;
  char *ask, *cancel, *screenshot;
  gboolean copy, print;
  Script script;
} Options;

static Window *open_window(GtkApplication *app, Options *options) {
  char *model = model_file(options->model);
  Window *window = window_new(app, model, (guint)options->megabytes);
  script_run(&options->script, window);
  g_free(model);
  return window;
}

static void activate(GApplication *app, gpointer user) { open_window(GTK_APPLICATION(app), user); }

static void open_files(GApplication *app, GFile **files, int count, const char *hint, gpointer user) {
  Options *options = user;
  (void)hint;
  if (count != 1) {
    g_printerr("expected one picture, got %d\n", count);
    options->script.status = 2;
    return; /* without a window the program ends */
  }
  window_open(open_window(GTK_APPLICATION(app), options), files[0]);
}

static void startup(GApplication *app, gpointer user) {
  static const struct {
    const char *action, *keys[2];
  } keys[] = {
      {"win.open", {"<Control>o"}},
      {"win.cancel", {"Escape"}},
      {"win.copy-alt-text", {"<Control><Shift>c"}},
      {"window.close", {"<Control>w"}},
  };
  (void)user;
  for (gsize i = 0; i < G_N_ELEMENTS(keys); i++)
    gtk_application_set_accels_for_action(GTK_APPLICATION(app), keys[i].action,
                                          (const char *[]){keys[i].keys[0], NULL});
  appearance_follow();
}

/* Before a window is there. -1: go on. */
static int check(GApplication *app, GVariantDict *dict, gpointer user) {
  Options *options = user;
  (void)app, (void)dict;
  if (kosmos_abi_version() != KOSMOS_ABI_VERSION) {
    g_printerr("this program was made for another kosmos-edge than version %s\n", kosmos_version());
    return 1;
  }
  if (options->megabytes < 0) {
    g_printerr("--memory: expected megabytes, 0 for no limit, got %d\n", options->megabytes);
    return 2;
  }
  options->script = (Script){options->ask, options->cancel, options->copy, options->print, options->screenshot, 0};
  return -1;
}

int main(int argc, char **argv) {
  Options options = {0};
  const GOptionEntry entries[] = {
      {"model", 'm', 0, G_OPTION_ARG_FILENAME, &options.model, "The model; else $KOSMOS_EDGE_MODEL, else nano", "FILE"},
      {"memory", 0, 0, G_OPTION_ARG_INT, &options.megabytes, "Memory that the program may use, in megabytes", "MB"},
      {"ask", 0, 0, G_OPTION_ARG_STRING, &options.ask, "Ask this after the caption", "QUESTION"},
      {"cancel", 0, 0, G_OPTION_ARG_STRING, &options.cancel, "Ask this last, and cancel it at once", "QUESTION"},
      {"copy", 0, 0, G_OPTION_ARG_NONE, &options.copy, "Copy the alt text to the clipboard", NULL},
      {"print", 0, 0, G_OPTION_ARG_NONE, &options.print, "Print the answers, then end", NULL},
      {"screenshot", 0, 0, G_OPTION_ARG_FILENAME, &options.screenshot, "Save the window as PNG, then end", "FILE"},
      {NULL, 0, 0, 0, NULL, NULL, NULL}};
  GtkApplication *app =
      gtk_application_new("io.github.kosmos_edge.Desktop", G_APPLICATION_HANDLES_OPEN | G_APPLICATION_NON_UNIQUE);
  int status;

  g_application_add_main_option_entries(G_APPLICATION(app), entries);
  g_application_set_option_context_parameter_string(G_APPLICATION(app), "[PICTURE]");
  g_signal_connect(app, "handle-local-options", G_CALLBACK(check), &options);
  g_signal_connect(app, "startup", G_CALLBACK(startup), NULL);
  g_signal_connect(app, "activate", G_CALLBACK(activate), &options);
  g_signal_connect(app, "open", G_CALLBACK(open_files), &options);
  status = g_application_run(G_APPLICATION(app), argc, argv);
  g_object_unref(app);
  g_free(options.model);
  g_free(options.ask);
  g_free(options.cancel);
  g_free(options.screenshot);
  return status != 0 ? status : options.script.status;
}
