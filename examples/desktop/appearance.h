/* Dark or light, as the desktop is. */
#ifndef APPEARANCE_H
#define APPEARANCE_H

/* Follows the desktop's setting (org.freedesktop.appearance color-scheme of the settings portal) while the program
 * runs. Without a portal GTK's own setting stays. */
void appearance_follow(void);

#endif
