#include "window.h"

#include "engine.h"
#include "open.h"
#include "picture_view.h"
#include "transcript.h"

struct Window {
  GtkWindow *window;
  GtkWidget *pages, *view, *transcript, *question, *ask, *cancel, *copy, *spinner, *status, *error_bar, *error;
  GtkAdjustment *megabytes;
  Engine *engine;
  GPtrArray *phrases; /* Phrase *: of the caption; shared with the view */
  GString *caption;
  gboolean captioning; /* the answer that streams in is the caption */
  gboolean has_picture;
  char *ready; /* the model and where it computes */
  void (*on_idle)(Window *window, gpointer user);
  gpointer on_idle_user;
};

/* ---- what is shown */

static void set_status(Window *self, const char *text) { gtk_label_set_text(GTK_LABEL(self->status), text); }

static void show_error(Window *self, const char *text) {
  gtk_label_set_text(GTK_LABEL(self->error), text);
  gtk_revealer_set_reveal_child(GTK_REVEALER(self->error_bar), TRUE);
}

static void hide_error(Window *self) { gtk_revealer_set_reveal_child(GTK_REVEALER(self->error_bar), FALSE); }

static void enable(Window *self, const char *action, gboolean enabled) {
  GAction *found = g_action_map_lookup_action(G_ACTION_MAP(self->window), action);
  g_simple_action_set_enabled(G_SIMPLE_ACTION(found), enabled);
}

/* What can be done now. */
static void refresh(Window *self) {
  gboolean busy = engine_busy(self->engine);
  const char *question = gtk_editable_get_text(GTK_EDITABLE(self->question));
  enable(self, "cancel", busy);
  enable(self, "ask", self->has_picture && !busy && *question != 0);
  enable(self, "copy-alt-text", self->caption->len > 0 && !self->captioning);
  gtk_widget_set_sensitive(self->question, self->has_picture);
  gtk_spinner_set_spinning(GTK_SPINNER(self->spinner), busy);
}

/* A sentence for people who cannot see the picture. The model writes "a dog on a mat", or a sentence without its end.
 */
static char *alt_text(Window *self) {
  char *text = g_strstrip(g_strdup(self->caption->str));
  gunichar first = g_unichar_toupper(g_utf8_get_char(text));
  size_t length = strlen(text);
  gboolean ends = length > 0 && strchr(".!?", text[length - 1]) != NULL;
  GString *sentence = g_string_new(NULL);
  if (length > 0) {
    g_string_append_unichar(sentence, first);
    g_string_append(sentence, g_utf8_next_char(text));
    if (!ends) g_string_append_c(sentence, '.');
  }
  g_free(text);
  return g_string_free(sentence, FALSE);
}

static void show_picture(Window *self, GdkTexture *texture) {
  g_ptr_array_set_size(self->phrases, 0);
  g_string_truncate(self->caption, 0);
  self->captioning = TRUE;
  self->has_picture = TRUE;
  picture_view_set_texture(PICTURE_VIEW(self->view), texture);
  transcript_clear(APP_TRANSCRIPT(self->transcript));
  gtk_stack_set_visible_child_name(GTK_STACK(self->pages), "picture");
  gtk_accessible_update_property(GTK_ACCESSIBLE(self->view), GTK_ACCESSIBLE_PROPERTY_LABEL, "A picture", -1);
  set_status(self, "Looking at the picture…");
}

static void caption_ended(Window *self) {
  char *text = alt_text(self);
  self->captioning = FALSE;
  if (*text != 0) gtk_accessible_update_property(GTK_ACCESSIBLE(self->view), GTK_ACCESSIBLE_PROPERTY_LABEL, text, -1);
  g_free(text);
}

static void request_ended(Window *self, const EngineEvent *event) {
  if (self->captioning) caption_ended(self);
  if (event->kind == ENGINE_CANCELLED) {
    transcript_remark(APP_TRANSCRIPT(self->transcript), "(cancelled)");
    set_status(self, "Cancelled");
  } else if (event->kind == ENGINE_FAILED) {
    show_error(self, event->text);
    set_status(self, "Failed");
  } else {
    set_status(self, self->ready);
  }
}

/* All that the model says comes here, on the main thread. */
static void engine_event(EngineEvent *event, gpointer user) {
  Window *self = user;
  switch (event->kind) {
    case ENGINE_PROGRESS: {
      char *text = g_strdup_printf("Loading the model: %.0f %%", event->fraction * 100);
      set_status(self, text);
      g_free(text);
      break;
    }
    case ENGINE_READY:
      g_free(self->ready);
      self->ready = g_strdup(event->text);
      set_status(self, self->has_picture ? "Looking at the picture…" : self->ready);
      break;
    case ENGINE_PICTURE:
      show_picture(self, event->texture);
      break;
    case ENGINE_TEXT:
      set_status(self, "Answering…");
      transcript_append(APP_TRANSCRIPT(self->transcript), event->text);
      if (self->captioning) g_string_append(self->caption, event->text);
      break;
    case ENGINE_PHRASE:
      if (!self->captioning) break;
      transcript_add_phrase(APP_TRANSCRIPT(self->transcript), event->phrase->start, event->phrase->end);
      g_ptr_array_add(self->phrases, g_steal_pointer(&event->phrase));
      picture_view_changed(PICTURE_VIEW(self->view));
      break;
    case ENGINE_DONE:
    case ENGINE_CANCELLED:
    case ENGINE_FAILED:
      request_ended(self, event);
      break;
  }
  refresh(self);
  if (!engine_busy(self->engine) && self->on_idle != NULL) self->on_idle(self, self->on_idle_user);
}

/* ---- what the buttons do */

static void open_picture(Window *self, GFile *file, GdkTexture *texture) {
  hide_error(self);
  engine_cancel(self->engine); /* of the picture before, nobody waits for an answer */
  if (file != NULL)
    engine_caption_file(self->engine, file);
  else
    engine_caption_texture(self->engine, texture);
  refresh(self);
}

void window_open(Window *self, GFile *picture) { open_picture(self, picture, NULL); }

static void picture_chosen(GFile *file, GdkTexture *texture, const char *error, gpointer user) {
  if (error != NULL)
    show_error(user, error);
  else
    open_picture(user, file, texture);
}

void window_ask(Window *self, const char *question) {
  hide_error(self);
  transcript_begin(APP_TRANSCRIPT(self->transcript), question);
  set_status(self, "Thinking…");
  engine_ask(self->engine, question);
  refresh(self);
}

void window_cancel(Window *self) { engine_cancel(self->engine); }

void window_copy_alt_text(Window *self) {
  char *text = alt_text(self);
  gdk_clipboard_set_text(gtk_widget_get_clipboard(GTK_WIDGET(self->window)), text);
  set_status(self, "Alt text copied");
  g_free(text);
}

static void action_open(GSimpleAction *action, GVariant *parameter, gpointer user) {
  Window *self = user;
  (void)action, (void)parameter;
  open_dialog(self->window, picture_chosen, self);
}

static void action_ask(GSimpleAction *action, GVariant *parameter, gpointer user) {
  Window *self = user;
  char *question = g_strstrip(g_strdup(gtk_editable_get_text(GTK_EDITABLE(self->question))));
  (void)action, (void)parameter;
  if (*question != 0) {
    gtk_editable_set_text(GTK_EDITABLE(self->question), "");
    window_ask(self, question);
  }
  g_free(question);
}

static void action_cancel(GSimpleAction *action, GVariant *parameter, gpointer user) {
  (void)action, (void)parameter;
  window_cancel(user);
}

static void action_copy(GSimpleAction *action, GVariant *parameter, gpointer user) {
  (void)action, (void)parameter;
  window_copy_alt_text(user);
}

static const GActionEntry actions[] = {
    {.name = "open", .activate = action_open},
    {.name = "ask", .activate = action_ask},
    {.name = "cancel", .activate = action_cancel},
    {.name = "copy-alt-text", .activate = action_copy},
};

static void memory_changed(GtkAdjustment *adjustment, gpointer user) {
  Window *self = user;
  engine_set_memory_limit(self->engine, (guint)gtk_adjustment_get_value(adjustment));
}

/* The picture lights the text, and the text the picture. */
static void box_lit(PictureView *view, int phrase, gpointer user) {
  (void)view;
  transcript_light(APP_TRANSCRIPT(((Window *)user)->transcript), phrase);
}

static void phrase_lit(Transcript *transcript, int phrase, gpointer user) {
  (void)transcript;
  picture_view_light(PICTURE_VIEW(((Window *)user)->view), phrase);
}

static void window_free(gpointer data) {
  Window *self = data;
  engine_free(self->engine);
  g_ptr_array_unref(self->phrases);
  g_string_free(self->caption, TRUE);
  g_free(self->ready);
  g_free(self);
}

/* ---- the widgets */

static GtkWidget *button(const char *label, const char *action, const char *tooltip) {
  GtkWidget *made = gtk_button_new_with_mnemonic(label);
  gtk_actionable_set_action_name(GTK_ACTIONABLE(made), action);
  gtk_widget_set_tooltip_text(made, tooltip);
  return made;
}

static GtkWidget *settings_button(Window *self, guint megabytes) {
  GtkWidget *menu = gtk_menu_button_new(), *popover = gtk_popover_new(), *grid = gtk_grid_new();
  GtkWidget *label = gtk_label_new_with_mnemonic("_Memory limit (MB)"), *spin;
  GtkWidget *hint = gtk_label_new("For the whole program; 0: no limit.\nIt counts for what you ask next.");

  self->megabytes = gtk_adjustment_new(megabytes, 0, 1048576, 50, 500, 0);
  spin = gtk_spin_button_new(self->megabytes, 0, 0);
  gtk_label_set_mnemonic_widget(GTK_LABEL(label), spin);
  gtk_label_set_xalign(GTK_LABEL(hint), 0);
  gtk_widget_add_css_class(hint, "dim-label");
  gtk_grid_set_column_spacing(GTK_GRID(grid), 12);
  gtk_grid_set_row_spacing(GTK_GRID(grid), 6);
  gtk_grid_attach(GTK_GRID(grid), label, 0, 0, 1, 1);
  gtk_grid_attach(GTK_GRID(grid), spin, 1, 0, 1, 1);
  gtk_grid_attach(GTK_GRID(grid), hint, 0, 1, 2, 1);
  gtk_popover_set_child(GTK_POPOVER(popover), grid);
  gtk_menu_button_set_popover(GTK_MENU_BUTTON(menu), popover);
  gtk_menu_button_set_icon_name(GTK_MENU_BUTTON(menu), "open-menu-symbolic");
  gtk_widget_set_tooltip_text(menu, "Settings");
  g_signal_connect(self->megabytes, "value-changed", G_CALLBACK(memory_changed), self);
  return menu;
}

static GtkWidget *header(Window *self, guint megabytes) {
  GtkWidget *bar = gtk_header_bar_new();
  self->spinner = gtk_spinner_new();
  self->cancel = button("_Cancel", "win.cancel", "Stop the answer (Escape)");
  gtk_header_bar_pack_start(GTK_HEADER_BAR(bar), button("_Open…", "win.open", "Open a picture (Ctrl+O)"));
  gtk_header_bar_pack_end(GTK_HEADER_BAR(bar), settings_button(self, megabytes));
  gtk_header_bar_pack_end(GTK_HEADER_BAR(bar), self->cancel);
  gtk_header_bar_pack_end(GTK_HEADER_BAR(bar), self->spinner);
  return bar;
}

static GtkWidget *error_bar(Window *self) {
  GtkWidget *box = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 12),
            *close = gtk_button_new_from_icon_name("window-close-symbolic");
  self->error_bar = gtk_revealer_new();
  self->error = g_object_new(GTK_TYPE_LABEL, "accessible-role", GTK_ACCESSIBLE_ROLE_ALERT, NULL);
  gtk_label_set_wrap(GTK_LABEL(self->error), TRUE);
  gtk_label_set_selectable(GTK_LABEL(self->error), TRUE);
  gtk_label_set_xalign(GTK_LABEL(self->error), 0);
  gtk_widget_set_hexpand(self->error, TRUE);
  gtk_widget_set_tooltip_text(close, "Hide the message");
  gtk_button_set_has_frame(GTK_BUTTON(close), FALSE);
  gtk_widget_set_valign(close, GTK_ALIGN_CENTER);
  gtk_widget_add_css_class(box, "error-bar");
  gtk_box_append(GTK_BOX(box), self->error);
  gtk_box_append(GTK_BOX(box), close);
  gtk_revealer_set_child(GTK_REVEALER(self->error_bar), box);
  g_signal_connect_swapped(close, "clicked", G_CALLBACK(hide_error), self);
  return self->error_bar;
}

static GtkWidget *picture_side(Window *self) {
  GtkWidget *empty = gtk_label_new("Open a picture, drop one here, or paste one");
  self->pages = gtk_stack_new();
  self->view = picture_view_new(self->phrases);
  gtk_widget_add_css_class(empty, "dim-label");
  gtk_stack_add_named(GTK_STACK(self->pages), empty, "empty");
  gtk_stack_add_named(GTK_STACK(self->pages), self->view, "picture");
  gtk_widget_set_hexpand(self->pages, TRUE);
  gtk_widget_set_vexpand(self->pages, TRUE);
  gtk_widget_set_size_request(self->pages, 240, 200);
  g_signal_connect(self->view, "lit", G_CALLBACK(box_lit), self);
  return self->pages;
}

static GtkWidget *text_side(Window *self) {
  GtkWidget *side = gtk_box_new(GTK_ORIENTATION_VERTICAL, 8), *scrolled = gtk_scrolled_window_new();
  GtkWidget *row = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 8);

  self->transcript = transcript_new();
  self->question = gtk_entry_new();
  self->ask = button("_Ask", "win.ask", "Ask the question (Enter)");
  self->copy = button("Copy Alt _Text", "win.copy-alt-text", "Copy the caption as alt text (Ctrl+Shift+C)");
  gtk_accessible_update_property(GTK_ACCESSIBLE(self->transcript), GTK_ACCESSIBLE_PROPERTY_LABEL, "Answers", -1);
  gtk_accessible_update_property(GTK_ACCESSIBLE(self->question), GTK_ACCESSIBLE_PROPERTY_LABEL,
                                 "A question about the picture", -1);
  gtk_entry_set_placeholder_text(GTK_ENTRY(self->question), "Ask about the picture");
  gtk_widget_set_hexpand(self->question, TRUE);
  gtk_widget_set_vexpand(scrolled, TRUE);
  gtk_scrolled_window_set_child(GTK_SCROLLED_WINDOW(scrolled), self->transcript);
  gtk_box_append(GTK_BOX(row), self->question);
  gtk_box_append(GTK_BOX(row), self->ask);
  gtk_box_append(GTK_BOX(side), scrolled);
  gtk_box_append(GTK_BOX(side), row);
  gtk_box_append(GTK_BOX(side), self->copy);
  gtk_widget_set_size_request(side, 300, -1);
  gtk_widget_set_margin_top(side, 8);
  gtk_widget_set_margin_start(side, 8);
  gtk_widget_set_margin_end(side, 8);
  g_signal_connect(self->transcript, "lit", G_CALLBACK(phrase_lit), self);
  g_signal_connect_swapped(self->question, "changed", G_CALLBACK(refresh), self);
  g_signal_connect_swapped(self->question, "activate", G_CALLBACK(gtk_widget_activate), self->ask);
  return side;
}

static GtkWidget *content(Window *self) {
  GtkWidget *all = gtk_box_new(GTK_ORIENTATION_VERTICAL, 0), *paned = gtk_paned_new(GTK_ORIENTATION_HORIZONTAL);
  gtk_paned_set_start_child(GTK_PANED(paned), picture_side(self));
  gtk_paned_set_end_child(GTK_PANED(paned), text_side(self));
  gtk_paned_set_resize_end_child(GTK_PANED(paned), FALSE);
  gtk_paned_set_shrink_start_child(GTK_PANED(paned), FALSE);
  gtk_paned_set_shrink_end_child(GTK_PANED(paned), FALSE);
  self->status = g_object_new(GTK_TYPE_LABEL, "accessible-role", GTK_ACCESSIBLE_ROLE_STATUS, NULL);
  gtk_label_set_xalign(GTK_LABEL(self->status), 0);
  gtk_label_set_ellipsize(GTK_LABEL(self->status), PANGO_ELLIPSIZE_END);
  gtk_widget_add_css_class(self->status, "status");
  gtk_box_append(GTK_BOX(all), error_bar(self));
  gtk_box_append(GTK_BOX(all), paned);
  gtk_box_append(GTK_BOX(all), self->status);
  return all;
}

static void add_style(void) {
  GtkCssProvider *provider = gtk_css_provider_new();
  gtk_css_provider_load_from_data(provider,
                                  "textview { font-size: 1.15em; }"
                                  "pictureview:focus-visible { outline: 2px solid @theme_selected_bg_color;"
                                  " outline-offset: -2px; }"
                                  ".error-bar { background: @error_color; color: white; padding: 6px 12px; }"
                                  ".error-bar button { color: white; }"
                                  ".status { padding: 6px 12px; }",
                                  -1);
  gtk_style_context_add_provider_for_display(gdk_display_get_default(), GTK_STYLE_PROVIDER(provider),
                                             GTK_STYLE_PROVIDER_PRIORITY_APPLICATION);
  g_object_unref(provider);
}

Window *window_new(GtkApplication *app, const char *model, guint megabytes) {
  Window *self = g_new0(Window, 1);
  self->window = GTK_WINDOW(gtk_application_window_new(app));
  self->phrases = g_ptr_array_new_with_free_func((GDestroyNotify)phrase_free);
  self->caption = g_string_new(NULL);
  self->engine = engine_new(model, engine_event, self);
  add_style();
  g_action_map_add_action_entries(G_ACTION_MAP(self->window), actions, G_N_ELEMENTS(actions), self);
  gtk_window_set_titlebar(self->window, header(self, megabytes));
  gtk_window_set_child(self->window, content(self));
  gtk_window_set_title(self->window, "What is in the picture?");
  gtk_window_set_default_size(self->window, 940, 560);
  open_accept(GTK_WIDGET(self->window), picture_chosen, self);
  /* Last of all, so that the worker ends after the widgets are gone and none of its events comes to them. */
  g_object_set_data_full(G_OBJECT(self->window), "window", self, window_free);
  engine_set_memory_limit(self->engine, megabytes);
  engine_load(self->engine);
  refresh(self);
  gtk_window_present(self->window);
  return self;
}

/* ---- for scripts */

GtkWindow *window_gtk(Window *self) { return self->window; }

char *window_text(Window *self) {
  GtkTextBuffer *buffer = gtk_text_view_get_buffer(GTK_TEXT_VIEW(self->transcript));
  GtkTextIter start, end;
  gtk_text_buffer_get_bounds(buffer, &start, &end);
  return gtk_text_buffer_get_text(buffer, &start, &end, FALSE);
}

const char *window_error(Window *self) {
  gboolean shown = gtk_revealer_get_reveal_child(GTK_REVEALER(self->error_bar));
  return shown ? gtk_label_get_text(GTK_LABEL(self->error)) : NULL;
}

const char *window_status(Window *self) { return gtk_label_get_text(GTK_LABEL(self->status)); }

void window_on_idle(Window *self, void (*callback)(Window *window, gpointer user), gpointer user) {
  self->on_idle = callback;
  self->on_idle_user = user;
}
