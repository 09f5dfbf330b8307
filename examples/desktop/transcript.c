#include "transcript.h"

#include "phrase.h"

struct _Transcript {
  GtkTextView parent_instance;
  GtkTextBuffer *buffer;
  GtkTextTag *question, *remark;
  GPtrArray *tags; /* GtkTextTag * of each phrase */
  GString *answer; /* the current one: phrases come as bytes of it, the buffer counts characters */
  int answer_start;
  int lit;
};

G_DEFINE_TYPE(Transcript, transcript, GTK_TYPE_TEXT_VIEW)

static guint lit_signal;

/* How strong a phrase's background is. */
#define UNLIT 0.12f
#define LIT 0.45f

/* ---- writing */

static void append(Transcript *transcript, const char *text, GtkTextTag *tag) {
  GtkTextIter end;
  gtk_text_buffer_get_end_iter(transcript->buffer, &end);
  gtk_text_buffer_insert_with_tags(transcript->buffer, &end, text, -1, tag, NULL);
}

void transcript_clear(Transcript *transcript) {
  GtkTextTagTable *table = gtk_text_buffer_get_tag_table(transcript->buffer);
  gtk_text_buffer_set_text(transcript->buffer, "", 0);
  for (guint i = 0; i < transcript->tags->len; i++) gtk_text_tag_table_remove(table, transcript->tags->pdata[i]);
  g_ptr_array_set_size(transcript->tags, 0);
  transcript->lit = -1;
  transcript_begin(transcript, NULL);
}

void transcript_begin(Transcript *transcript, const char *question) {
  if (question != NULL) {
    if (gtk_text_buffer_get_char_count(transcript->buffer) > 0) append(transcript, "\n", NULL);
    append(transcript, question, transcript->question);
    append(transcript, "\n", NULL);
  }
  g_string_truncate(transcript->answer, 0);
  transcript->answer_start = gtk_text_buffer_get_char_count(transcript->buffer);
}

void transcript_append(Transcript *transcript, const char *text) {
  GtkTextIter end;
  g_string_append(transcript->answer, text);
  append(transcript, text, NULL);
  gtk_text_buffer_get_end_iter(transcript->buffer, &end);
  gtk_text_view_scroll_to_iter(GTK_TEXT_VIEW(transcript), &end, 0, FALSE, 0, 0);
}

void transcript_remark(Transcript *transcript, const char *text) {
  if (transcript->answer->len > 0) append(transcript, " ", NULL);
  append(transcript, text, transcript->remark);
}

void transcript_add_phrase(Transcript *transcript, guint start, guint end) {
  GdkRGBA color = phrase_color(transcript->tags->len, 1), tint = phrase_color(transcript->tags->len, UNLIT);
  const char *text = transcript->answer->str;
  GtkTextIter from, to;
  GtkTextTag *tag;
  g_return_if_fail(start <= end && end <= transcript->answer->len);
  tag = gtk_text_buffer_create_tag(transcript->buffer, NULL, "underline", PANGO_UNDERLINE_SINGLE, "underline-rgba",
                                   &color, "background-rgba", &tint, NULL);
  g_ptr_array_add(transcript->tags, tag);
  gtk_text_buffer_get_iter_at_offset(transcript->buffer, &from,
                                     transcript->answer_start + (int)g_utf8_strlen(text, start));
  gtk_text_buffer_get_iter_at_offset(transcript->buffer, &to, transcript->answer_start + (int)g_utf8_strlen(text, end));
  gtk_text_buffer_apply_tag(transcript->buffer, tag, &from, &to);
}

/* ---- lighting */

static void set_lit(Transcript *transcript, int phrase, gboolean lit) {
  GdkRGBA color = phrase_color((guint)MAX(phrase, 0), lit ? LIT : UNLIT);
  if (phrase < 0 || phrase >= (int)transcript->tags->len) return;
  g_object_set(transcript->tags->pdata[phrase], "background-rgba", &color, NULL);
}

void transcript_light(Transcript *transcript, int phrase) {
  if (transcript->lit == phrase) return;
  set_lit(transcript, transcript->lit, FALSE);
  set_lit(transcript, phrase, TRUE);
  transcript->lit = phrase;
}

static void choose(Transcript *transcript, int phrase) {
  if (transcript->lit == phrase) return;
  transcript_light(transcript, phrase);
  g_signal_emit(transcript, lit_signal, 0, phrase);
}

static int phrase_at(Transcript *transcript, const GtkTextIter *iter) {
  for (guint i = 0; i < transcript->tags->len; i++)
    if (gtk_text_iter_has_tag(iter, transcript->tags->pdata[i])) return (int)i;
  return -1;
}

static void pointer_moved(GtkEventControllerMotion *motion, double x, double y, gpointer user) {
  GtkTextView *view = user;
  GtkTextIter iter;
  int buffer_x, buffer_y;
  (void)motion;
  gtk_text_view_window_to_buffer_coords(view, GTK_TEXT_WINDOW_WIDGET, (int)x, (int)y, &buffer_x, &buffer_y);
  choose(user, gtk_text_view_get_iter_at_location(view, &iter, buffer_x, buffer_y) ? phrase_at(user, &iter) : -1);
}

static void pointer_left(GtkEventControllerMotion *motion, gpointer user) {
  (void)motion;
  choose(user, -1);
}

/* The text cursor lights phrases, too, while the text has the focus: no pointer is needed. */
static void cursor_moved(Transcript *transcript) {
  GtkTextIter iter;
  if (!gtk_widget_has_focus(GTK_WIDGET(transcript))) return;
  gtk_text_buffer_get_iter_at_mark(transcript->buffer, &iter, gtk_text_buffer_get_insert(transcript->buffer));
  choose(transcript, phrase_at(transcript, &iter));
}

/* ---- the widget */

static void transcript_finalize(GObject *object) {
  Transcript *transcript = APP_TRANSCRIPT(object);
  g_ptr_array_unref(transcript->tags);
  g_string_free(transcript->answer, TRUE);
  G_OBJECT_CLASS(transcript_parent_class)->finalize(object);
}

static void transcript_class_init(TranscriptClass *class) {
  G_OBJECT_CLASS(class)->finalize = transcript_finalize;
  lit_signal = g_signal_new("lit", TRANSCRIPT_TYPE, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 1, G_TYPE_INT);
}

static void transcript_init(Transcript *transcript) {
  GtkTextView *view = GTK_TEXT_VIEW(transcript);
  GtkEventController *motion = gtk_event_controller_motion_new();

  transcript->buffer = gtk_text_view_get_buffer(view);
  transcript->question =
      gtk_text_buffer_create_tag(transcript->buffer, NULL, "weight", PANGO_WEIGHT_BOLD, "pixels-above-lines", 8, NULL);
  transcript->remark = gtk_text_buffer_create_tag(transcript->buffer, NULL, "style", PANGO_STYLE_ITALIC, NULL);
  transcript->tags = g_ptr_array_new();
  transcript->answer = g_string_new(NULL);
  transcript->lit = -1;
  gtk_text_view_set_editable(view, FALSE);
  gtk_text_view_set_accepts_tab(view, FALSE); /* Tab goes on to the next widget */
  gtk_text_view_set_wrap_mode(view, GTK_WRAP_WORD_CHAR);
  gtk_text_view_set_pixels_inside_wrap(view, 4);
  gtk_text_view_set_pixels_below_lines(view, 4);
  gtk_text_view_set_left_margin(view, 12);
  gtk_text_view_set_right_margin(view, 12);
  gtk_text_view_set_top_margin(view, 12);
  gtk_text_view_set_bottom_margin(view, 12);
  g_signal_connect(motion, "motion", G_CALLBACK(pointer_moved), transcript);
  g_signal_connect(motion, "leave", G_CALLBACK(pointer_left), transcript);
  gtk_widget_add_controller(GTK_WIDGET(transcript), motion);
  g_signal_connect_object(transcript->buffer, "notify::cursor-position", G_CALLBACK(cursor_moved), transcript,
                          G_CONNECT_SWAPPED);
}

GtkWidget *transcript_new(void) { return g_object_new(TRANSCRIPT_TYPE, NULL); }
