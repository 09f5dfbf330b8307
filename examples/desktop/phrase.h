/* A phrase of an answer with its boxes, as the engine finds it and as the window shows it. */
#ifndef PHRASE_H
#define PHRASE_H

#include <gtk/gtk.h>

typedef struct {
  char *text;
  guint start, end;       /* bytes of the answer's text: text[start..end) is the phrase */
  graphene_rect_t *boxes; /* in fractions of the picture's width and height */
  guint box_count;
} Phrase;

static inline void phrase_free(Phrase *phrase) {
  if (phrase == NULL) return;
  g_free(phrase->text);
  g_free(phrase->boxes);
  g_free(phrase);
}

/* The colour of a phrase and of its boxes. White text on each is readable (contrast above 4.5). */
static inline GdkRGBA phrase_color(guint index, float alpha) {
  static const guint32 colors[] = {0x1a5fb4, 0xc01c28, 0x1b7a45, 0x813d9c, 0xa5480a, 0x0f7377};
  guint32 c = colors[index % G_N_ELEMENTS(colors)];
  return (GdkRGBA){(c >> 16) / 255.f, (c >> 8 & 0xff) / 255.f, (c & 0xff) / 255.f, alpha};
}

#endif
