/* How much memory this program uses. */
#ifndef MEMORY_H
#define MEMORY_H

#include <glib.h>

/* Bytes in physical memory, the mapped model included; 0 where the system does not say. Fast: for abort callbacks. */
guint64 memory_used(void);

#endif
