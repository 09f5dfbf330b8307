#include "picture_view.h"

#include <math.h>

struct _PictureView {
  GtkWidget parent_instance;
  GdkTexture *texture;
  GPtrArray *phrases;
  int lit;
};

G_DEFINE_TYPE(PictureView, picture_view, GTK_TYPE_WIDGET)

static guint lit_signal;

/* Where the picture is: as large as it fits, in the middle. */
static graphene_rect_t picture_area(PictureView *view) {
  float width = (float)gtk_widget_get_width(GTK_WIDGET(view)), height = (float)gtk_widget_get_height(GTK_WIDGET(view));
  float w = (float)gdk_texture_get_width(view->texture), h = (float)gdk_texture_get_height(view->texture);
  float scale = MIN(width / w, height / h);
  return GRAPHENE_RECT_INIT(floorf((width - w * scale) / 2), floorf((height - h * scale) / 2), w * scale, h * scale);
}

static graphene_rect_t box_area(const graphene_rect_t *area, const graphene_rect_t *box) {
  return GRAPHENE_RECT_INIT(area->origin.x + box->origin.x * area->size.width,
                            area->origin.y + box->origin.y * area->size.height, box->size.width * area->size.width,
                            box->size.height * area->size.height);
}

/* ---- drawing */

static void draw_box(GtkSnapshot *snapshot, const graphene_rect_t *box, const GdkRGBA *color, float thickness) {
  GskRoundedRect outline;
  gsk_rounded_rect_init_from_rect(&outline, box, 3);
  gtk_snapshot_append_border(snapshot, &outline, (float[4]){thickness, thickness, thickness, thickness},
                             (GdkRGBA[4]){*color, *color, *color, *color});
}

/* The phrase above its box; inside of it where there is no room above. */
static void draw_name(PictureView *view, GtkSnapshot *snapshot, const graphene_rect_t *box, const char *text,
                      const GdkRGBA *color) {
  PangoLayout *layout = gtk_widget_create_pango_layout(GTK_WIDGET(view), text);
  GskRoundedRect pill;
  int width, height;
  float x, y;

  pango_layout_get_pixel_size(layout, &width, &height);
  x = CLAMP(box->origin.x, 0, MAX(0, (float)(gtk_widget_get_width(GTK_WIDGET(view)) - width - 12)));
  y = box->origin.y - (float)height - 8;
  if (y < 0) y = box->origin.y + 4;
  gsk_rounded_rect_init_from_rect(&pill, &GRAPHENE_RECT_INIT(x, y, (float)width + 12, (float)height + 4), 4);
  gtk_snapshot_push_rounded_clip(snapshot, &pill);
  gtk_snapshot_append_color(snapshot, color, &pill.bounds);
  gtk_snapshot_pop(snapshot);
  gtk_snapshot_save(snapshot);
  gtk_snapshot_translate(snapshot, &GRAPHENE_POINT_INIT(x + 6, y + 2));
  gtk_snapshot_append_layout(snapshot, layout, &(GdkRGBA){1, 1, 1, 1});
  gtk_snapshot_restore(snapshot);
  g_object_unref(layout);
}

static void draw_phrase(PictureView *view, GtkSnapshot *snapshot, const graphene_rect_t *area, guint index) {
  const Phrase *phrase = g_ptr_array_index(view->phrases, index);
  gboolean lit = view->lit == (int)index;
  GdkRGBA color = phrase_color(index, view->lit < 0 || lit ? 1 : 0.35f), tint = phrase_color(index, 0.25f);
  GdkRGBA white = {1, 1, 1, color.alpha};

  for (guint i = 0; i < phrase->box_count; i++) {
    graphene_rect_t box = box_area(area, &phrase->boxes[i]), rim;
    if (lit) gtk_snapshot_append_color(snapshot, &tint, &box);
    graphene_rect_inset_r(&box, -1, -1, &rim); /* a white rim shows the box on any picture */
    draw_box(snapshot, &rim, &white, lit ? 5 : 4);
    draw_box(snapshot, &box, &color, lit ? 3 : 2);
    if (lit && *phrase->text != 0) draw_name(view, snapshot, &box, phrase->text, &color);
  }
}

static void picture_view_snapshot(GtkWidget *widget, GtkSnapshot *snapshot) {
  PictureView *view = PICTURE_VIEW(widget);
  graphene_rect_t area;
  if (view->texture == NULL) return;
  area = picture_area(view);
  gtk_snapshot_append_texture(snapshot, view->texture, &area);
  for (guint i = 0; i < view->phrases->len; i++)
    if (view->lit != (int)i) draw_phrase(view, snapshot, &area, i);
  if (view->lit >= 0 && view->lit < (int)view->phrases->len) draw_phrase(view, snapshot, &area, (guint)view->lit);
}

/* ---- choosing a box */

void picture_view_light(PictureView *view, int phrase) {
  if (view->lit == phrase) return;
  view->lit = phrase;
  gtk_widget_queue_draw(GTK_WIDGET(view));
}

static void choose(PictureView *view, int phrase) {
  if (view->lit == phrase) return;
  picture_view_light(view, phrase);
  g_signal_emit(view, lit_signal, 0, phrase);
}

/* Of boxes one inside the other, the smallest is meant. */
static int phrase_at(PictureView *view, double x, double y) {
  graphene_point_t point = GRAPHENE_POINT_INIT((float)x, (float)y);
  graphene_rect_t area;
  float smallest = INFINITY;
  int found = -1;

  if (view->texture == NULL) return -1;
  area = picture_area(view);
  for (guint i = 0; i < view->phrases->len; i++) {
    const Phrase *phrase = g_ptr_array_index(view->phrases, i);
    for (guint j = 0; j < phrase->box_count; j++) {
      graphene_rect_t box = box_area(&area, &phrase->boxes[j]);
      float size = box.size.width * box.size.height;
      if (!graphene_rect_contains_point(&box, &point) || size >= smallest) continue;
      smallest = size;
      found = (int)i;
    }
  }
  return found;
}

static void pointer_moved(GtkEventControllerMotion *motion, double x, double y, gpointer user) {
  (void)motion;
  choose(user, phrase_at(user, x, y));
}

static void pointer_left(GtkEventControllerMotion *motion, gpointer user) {
  (void)motion;
  choose(user, -1);
}

static gboolean key_pressed(GtkEventControllerKey *keys, guint key, guint code, GdkModifierType state, gpointer user) {
  PictureView *view = user;
  int count = (int)view->phrases->len;
  (void)keys, (void)code;
  if (count == 0 || (state & (GDK_CONTROL_MASK | GDK_ALT_MASK)) != 0) return FALSE;
  if (key == GDK_KEY_Right || key == GDK_KEY_Down)
    choose(view, (view->lit + 1) % count);
  else if (key == GDK_KEY_Left || key == GDK_KEY_Up)
    choose(view, view->lit <= 0 ? count - 1 : view->lit - 1);
  else
    return FALSE;
  return TRUE;
}

/* ---- the widget */

void picture_view_set_texture(PictureView *view, GdkTexture *texture) {
  g_set_object(&view->texture, texture);
  view->lit = -1;
  gtk_widget_queue_draw(GTK_WIDGET(view));
}

void picture_view_changed(PictureView *view) { gtk_widget_queue_draw(GTK_WIDGET(view)); }

static void picture_view_dispose(GObject *object) {
  PictureView *view = PICTURE_VIEW(object);
  g_clear_object(&view->texture);
  g_clear_pointer(&view->phrases, g_ptr_array_unref);
  G_OBJECT_CLASS(picture_view_parent_class)->dispose(object);
}

static void picture_view_class_init(PictureViewClass *class) {
  G_OBJECT_CLASS(class)->dispose = picture_view_dispose;
  GTK_WIDGET_CLASS(class)->snapshot = picture_view_snapshot;
  gtk_widget_class_set_css_name(GTK_WIDGET_CLASS(class), "pictureview");
  gtk_widget_class_set_accessible_role(GTK_WIDGET_CLASS(class), GTK_ACCESSIBLE_ROLE_IMG);
  lit_signal =
      g_signal_new("lit", PICTURE_TYPE_VIEW, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 1, G_TYPE_INT);
}

static void picture_view_init(PictureView *view) {
  GtkEventController *motion = gtk_event_controller_motion_new(), *keys = gtk_event_controller_key_new();
  view->lit = -1;
  g_signal_connect(motion, "motion", G_CALLBACK(pointer_moved), view);
  g_signal_connect(motion, "leave", G_CALLBACK(pointer_left), view);
  g_signal_connect(keys, "key-pressed", G_CALLBACK(key_pressed), view);
  gtk_widget_add_controller(GTK_WIDGET(view), motion);
  gtk_widget_add_controller(GTK_WIDGET(view), keys);
  gtk_widget_set_focusable(GTK_WIDGET(view), TRUE);
  gtk_widget_set_overflow(GTK_WIDGET(view), GTK_OVERFLOW_HIDDEN);
}

GtkWidget *picture_view_new(GPtrArray *phrases) {
  PictureView *view = g_object_new(PICTURE_TYPE_VIEW, NULL);
  view->phrases = g_ptr_array_ref(phrases);
  return GTK_WIDGET(view);
}
