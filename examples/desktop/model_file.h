/* Which model file the program opens. */
#ifndef MODEL_FILE_H
#define MODEL_FILE_H

/* The argument if there is one, else $KOSMOS_EDGE_MODEL, else the nano that lies beside the library in the Python
 * package. NULL when there is none of these. To be freed with g_free. */
char *model_file(const char *argument);

#endif
