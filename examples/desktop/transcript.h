/* The answers as text that grows, with their phrases underlined in the colours of their boxes. A phrase is lit by the
 * pointer, or by the text cursor. */
#ifndef TRANSCRIPT_H
#define TRANSCRIPT_H

#include <gtk/gtk.h>

#define TRANSCRIPT_TYPE (transcript_get_type())
G_DECLARE_FINAL_TYPE(Transcript, transcript, APP, TRANSCRIPT, GtkTextView)

GtkWidget *transcript_new(void);
void transcript_clear(Transcript *transcript);
/* Begins an answer; question: what is written above it, or NULL. */
void transcript_begin(Transcript *transcript, const char *question);
void transcript_append(Transcript *transcript, const char *text);
/* Phrases are numbered 0, 1, 2 in the order of these calls; start and end are bytes of the current answer. */
void transcript_add_phrase(Transcript *transcript, guint start, guint end);
/* A remark that is not the model's. */
void transcript_remark(Transcript *transcript, const char *text);
void transcript_light(Transcript *transcript, int phrase);
/* Signal "lit" (int phrase): the user chose a phrase; -1: none. */

#endif
