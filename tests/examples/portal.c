/* A desktop's settings portal with one setting, the colour scheme: 1 (dark) at first, then each number that it reads.
 * Writes "ready" once it is on the bus. */
#include <gio/gio.h>
#include <stdio.h>

#define PATH "/org/freedesktop/portal/desktop"
#define NAME "org.freedesktop.portal.Desktop"
#define SETTINGS "org.freedesktop.portal.Settings"

static const char *const xml = "<node><interface name='" SETTINGS
                               "'>"
                               "<method name='Read'><arg type='s' direction='in'/><arg type='s' direction='in'/><arg "
                               "type='v' direction='out'/></method>"
                               "<signal name='SettingChanged'><arg type='s'/><arg type='s'/><arg type='v'/></signal>"
                               "</interface></node>";

static void method(GDBusConnection *bus, const char *sender, const char *path, const char *interface, const char *name,
                   GVariant *parameters, GDBusMethodInvocation *invocation, gpointer user) {
  (void)bus, (void)sender, (void)path, (void)interface, (void)name, (void)parameters, (void)user;
  g_dbus_method_invocation_return_value(invocation,
                                        g_variant_new("(v)", g_variant_new_variant(g_variant_new_uint32(1))));
}

static void acquired(GDBusConnection *bus, const char *name, gpointer user) {
  static const GDBusInterfaceVTable table = {.method_call = method};
  GDBusNodeInfo *node = g_dbus_node_info_new_for_xml(xml, NULL);
  (void)name;
  g_dbus_connection_register_object(bus, PATH, node->interfaces[0], &table, NULL, NULL, NULL);
  *(GDBusConnection **)user = bus;
}

static void ready(GDBusConnection *bus, const char *name, gpointer user) {
  (void)bus, (void)name, (void)user;
  puts("ready");
  fflush(stdout);
}

static gboolean number(GIOChannel *input, GIOCondition condition, gpointer user) {
  GDBusConnection **bus = user;
  unsigned value;
  (void)input, (void)condition;
  if (scanf("%u", &value) != 1) return G_SOURCE_REMOVE;
  g_dbus_connection_emit_signal(
      *bus, NULL, PATH, SETTINGS, "SettingChanged",
      g_variant_new("(ssv)", "org.freedesktop.appearance", "color-scheme", g_variant_new_uint32(value)), NULL);
  return G_SOURCE_CONTINUE;
}

int main(void) {
  GDBusConnection *bus = NULL;
  g_bus_own_name(G_BUS_TYPE_SESSION, NAME, G_BUS_NAME_OWNER_FLAGS_NONE, acquired, ready, NULL, &bus, NULL);
  g_io_add_watch(g_io_channel_unix_new(0), G_IO_IN, number, &bus);
  g_main_loop_run(g_main_loop_new(NULL, FALSE));
}
