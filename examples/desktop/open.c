#include "open.h"

typedef struct {
  OpenCallback callback;
  gpointer user;
} Receiver;

static Receiver *receiver_new(OpenCallback callback, gpointer user) {
  Receiver *receiver = g_new(Receiver, 1);
  *receiver = (Receiver){callback, user};
  return receiver;
}

/* ---- the dialog */

static void dialog_answered(GtkNativeDialog *dialog, int response, gpointer user) {
  Receiver *receiver = user;
  if (response == GTK_RESPONSE_ACCEPT) {
    GFile *file = gtk_file_chooser_get_file(GTK_FILE_CHOOSER(dialog));
    receiver->callback(file, NULL, NULL, receiver->user);
    g_object_unref(file);
  }
  g_object_unref(dialog);
  g_free(receiver);
}

void open_dialog(GtkWindow *parent, OpenCallback callback, gpointer user) {
  GtkFileChooserNative *dialog =
      gtk_file_chooser_native_new("Open a picture", parent, GTK_FILE_CHOOSER_ACTION_OPEN, "_Open", "_Cancel");
  GtkFileFilter *pictures = gtk_file_filter_new();
  gtk_file_filter_set_name(pictures, "Pictures");
  gtk_file_filter_add_pixbuf_formats(pictures);
  gtk_file_chooser_add_filter(GTK_FILE_CHOOSER(dialog), pictures);
  g_object_unref(pictures);
  gtk_native_dialog_set_modal(GTK_NATIVE_DIALOG(dialog), TRUE);
  g_signal_connect(dialog, "response", G_CALLBACK(dialog_answered), receiver_new(callback, user));
  gtk_native_dialog_show(GTK_NATIVE_DIALOG(dialog));
}

/* ---- dropped and pasted values */

/* A texture, or the first of some files. */
static gboolean take(const GValue *value, const Receiver *receiver) {
  if (G_VALUE_HOLDS(value, GDK_TYPE_TEXTURE)) {
    receiver->callback(NULL, g_value_get_object(value), NULL, receiver->user);
    return TRUE;
  }
  if (G_VALUE_HOLDS(value, GDK_TYPE_FILE_LIST)) {
    GSList *files = gdk_file_list_get_files(g_value_get_boxed(value));
    if (files != NULL) receiver->callback(files->data, NULL, NULL, receiver->user);
    g_slist_free(files);
    return TRUE;
  }
  return FALSE;
}

static gboolean dropped(GtkDropTarget *target, const GValue *value, double x, double y, gpointer user) {
  (void)target, (void)x, (void)y;
  return take(value, user);
}

typedef struct {
  GtkWidget *widget; /* kept until the clipboard has answered */
  const Receiver *receiver;
} Paste;

static void pasted(GObject *clipboard, GAsyncResult *result, gpointer user) {
  Paste *paste = user;
  GError *error = NULL;
  const GValue *value = gdk_clipboard_read_value_finish(GDK_CLIPBOARD(clipboard), result, &error);
  if (value == NULL)
    paste->receiver->callback(NULL, NULL, error->message, paste->receiver->user);
  else
    take(value, paste->receiver);
  g_clear_error(&error);
  g_object_unref(paste->widget);
  g_free(paste);
}

/* A clipboard with text is left to the text field that has the focus. */
static gboolean paste_pressed(GtkWidget *widget, GVariant *arguments, gpointer user) {
  GdkClipboard *clipboard = gtk_widget_get_clipboard(widget);
  GdkContentFormats *there = gdk_clipboard_get_formats(clipboard);
  GType type;
  Paste *paste;
  (void)arguments;
  /* Files come before pictures: file managers offer an icon as the picture of a file. */
  if (gdk_content_formats_contain_gtype(there, GDK_TYPE_FILE_LIST) ||
      gdk_content_formats_contain_mime_type(there, "text/uri-list"))
    type = GDK_TYPE_FILE_LIST;
  else if (gdk_content_formats_contain_gtype(there, GDK_TYPE_TEXTURE) ||
           gdk_content_formats_contain_mime_type(there, "image/png") ||
           gdk_content_formats_contain_mime_type(there, "image/jpeg"))
    type = GDK_TYPE_TEXTURE;
  else
    return FALSE;
  paste = g_new(Paste, 1);
  *paste = (Paste){g_object_ref(widget), user};
  gdk_clipboard_read_value_async(clipboard, type, G_PRIORITY_DEFAULT, NULL, pasted, paste);
  return TRUE;
}

void open_accept(GtkWidget *widget, OpenCallback callback, gpointer user) {
  Receiver *receiver = receiver_new(callback, user);
  GtkDropTarget *target = gtk_drop_target_new(G_TYPE_INVALID, GDK_ACTION_COPY);
  GtkEventController *shortcuts = gtk_shortcut_controller_new();

  gtk_drop_target_set_gtypes(target, (GType[]){GDK_TYPE_FILE_LIST, GDK_TYPE_TEXTURE}, 2);
  g_signal_connect(target, "drop", G_CALLBACK(dropped), receiver);
  gtk_widget_add_controller(widget, GTK_EVENT_CONTROLLER(target));
  gtk_event_controller_set_propagation_phase(shortcuts, GTK_PHASE_CAPTURE); /* before text fields */
  gtk_shortcut_controller_add_shortcut(GTK_SHORTCUT_CONTROLLER(shortcuts),
                                       gtk_shortcut_new(gtk_shortcut_trigger_parse_string("<Control>v"),
                                                        gtk_callback_action_new(paste_pressed, receiver, NULL)));
  gtk_widget_add_controller(widget, shortcuts);
  g_object_set_data_full(G_OBJECT(widget), "open-receiver", receiver, g_free);
}
