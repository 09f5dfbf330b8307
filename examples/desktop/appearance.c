#include "appearance.h"

#include <gtk/gtk.h>

#define SPACE "org.freedesktop.appearance"
#define KEY "color-scheme"

/* 0: no preference, 1: dark, 2: light. The portal's Read wraps the number in two variants, its signal in one. */
static void apply(GVariant *value) {
  GVariant *inner = g_variant_ref(value);
  while (g_variant_is_of_type(inner, G_VARIANT_TYPE_VARIANT)) {
    GVariant *next = g_variant_get_variant(inner);
    g_variant_unref(inner);
    inner = next;
  }
  if (g_variant_is_of_type(inner, G_VARIANT_TYPE_UINT32))
    g_object_set(gtk_settings_get_default(), "gtk-application-prefer-dark-theme", g_variant_get_uint32(inner) == 1,
                 NULL);
  g_variant_unref(inner);
}

static void setting_changed(GDBusConnection *bus, const char *sender, const char *path, const char *interface,
                            const char *signal, GVariant *parameters, gpointer user) {
  const char *space, *key;
  GVariant *value;
  (void)bus, (void)sender, (void)path, (void)interface, (void)signal, (void)user;
  if (!g_variant_is_of_type(parameters, G_VARIANT_TYPE("(ssv)"))) return;
  g_variant_get(parameters, "(&s&sv)", &space, &key, &value);
  if (g_str_equal(space, SPACE) && g_str_equal(key, KEY)) apply(value);
  g_variant_unref(value);
}

static void setting_read(GObject *bus, GAsyncResult *result, gpointer user) {
  GVariant *answer = g_dbus_connection_call_finish(G_DBUS_CONNECTION(bus), result, NULL);
  (void)user;
  if (answer == NULL) return; /* no portal */
  GVariant *value = g_variant_get_child_value(answer, 0);
  apply(value);
  g_variant_unref(value);
  g_variant_unref(answer);
}

static void connected(GObject *source, GAsyncResult *result, gpointer user) {
  const char *name = "org.freedesktop.portal.Desktop", *path = "/org/freedesktop/portal/desktop",
             *interface = "org.freedesktop.portal.Settings";
  GDBusConnection *bus = g_bus_get_finish(result, NULL);
  (void)source, (void)user;
  if (bus == NULL) return;
  g_dbus_connection_signal_subscribe(bus, name, interface, "SettingChanged", path, SPACE, G_DBUS_SIGNAL_FLAGS_NONE,
                                     setting_changed, NULL, NULL);
  g_dbus_connection_call(bus, name, path, interface, "Read", g_variant_new("(ss)", SPACE, KEY), G_VARIANT_TYPE("(v)"),
                         G_DBUS_CALL_FLAGS_NONE, -1, NULL, setting_read, NULL);
  g_object_unref(bus); /* GIO keeps the shared connection while it is subscribed to */
}

void appearance_follow(void) { g_bus_get(G_BUS_TYPE_SESSION, NULL, connected, NULL); }
