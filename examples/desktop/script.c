#include "script.h"

/* PNG of the window as it is drawn now. */
static gboolean save_window(GtkWindow *window, const char *file) {
  GdkPaintable *paintable = gtk_widget_paintable_new(GTK_WIDGET(window));
  int width = gdk_paintable_get_intrinsic_width(paintable), height = gdk_paintable_get_intrinsic_height(paintable);
  GtkSnapshot *snapshot = gtk_snapshot_new();
  GskRenderNode *node;
  gboolean saved = FALSE;

  gdk_paintable_snapshot(paintable, GDK_SNAPSHOT(snapshot), width, height);
  node = gtk_snapshot_free_to_node(snapshot);
  if (node != NULL) {
    GskRenderer *renderer = gtk_native_get_renderer(GTK_NATIVE(window));
    GdkTexture *texture =
        gsk_renderer_render_texture(renderer, node, &GRAPHENE_RECT_INIT(0, 0, (float)width, (float)height));
    saved = gdk_texture_save_to_png(texture, file);
    g_object_unref(texture);
    gsk_render_node_unref(node);
  }
  g_object_unref(paintable);
  return saved;
}

typedef struct {
  Script *script;
  Window *window;
} Run;

/* A moment later, when the answer is drawn. */
static gboolean finish(gpointer user) {
  Run *run = user;
  Script *script = run->script;
  const char *error = window_error(run->window);
  GtkWindow *window = window_gtk(run->window);

  if (error != NULL) script->status = 1;
  if (script->print) {
    char *text = window_text(run->window);
    g_print("%s\n", text);
    if (error != NULL) g_printerr("%s\n", error);
    g_free(text);
  }
  if (script->screenshot != NULL && !save_window(window, script->screenshot)) {
    g_printerr("%s: the screenshot could not be written\n", script->screenshot);
    script->status = 1;
  }
  if (script->print || script->screenshot != NULL) gtk_window_destroy(window);
  g_free(run);
  return G_SOURCE_REMOVE;
}

/* One step whenever the model has nothing to do. */
static void next_step(Window *window, gpointer user) {
  Script *script = user;
  Run *run;
  if (window_error(window) == NULL && script->ask != NULL) {
    window_ask(window, script->ask);
    script->ask = NULL;
    return;
  }
  if (window_error(window) == NULL && script->cancel != NULL) {
    window_ask(window, script->cancel);
    window_cancel(window);
    script->cancel = NULL;
    return;
  }
  window_on_idle(window, NULL, NULL);
  if (script->copy) window_copy_alt_text(window);
  run = g_new(Run, 1);
  *run = (Run){script, window};
  g_timeout_add(400, finish, run);
}

void script_run(Script *script, Window *window) { window_on_idle(window, next_step, script); }
