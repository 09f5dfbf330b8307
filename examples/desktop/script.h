/* What the command line asks for after the caption: a question, the clipboard, a screenshot. */
#ifndef SCRIPT_H
#define SCRIPT_H

#include "window.h"

typedef struct {
  const char *ask;        /* a question; NULL: none */
  const char *cancel;     /* a question that is cancelled as soon as it is asked; NULL: none */
  gboolean copy;          /* the alt text to the clipboard */
  gboolean print;         /* the answers to standard output, an error to standard error; the program ends after that */
  const char *screenshot; /* a PNG file for the window, NULL: none; the program ends after that */
  int status;             /* of the program: 1 after an error */
} Script;

void script_run(Script *script, Window *window);

#endif
