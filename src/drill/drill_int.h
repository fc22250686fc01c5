/* drill: what its files share. */
#ifndef PHAROS_DRILL_DRILL_INT_H
#define PHAROS_DRILL_DRILL_INT_H

#include "base/buf.h"
#include "base/json.h"
#include "drill/drill.h"

enum drill_act { /* what the provider does, by the fault's place in the table */
                 ACT_HEALTHY,
                 ACT_NOTHING, /* nobody asks it */
                 ACT_REFUSE,  /* an error of the API */
                 ACT_HTML,    /* what a proxy in front of it says */
                 ACT_SIGN_IN, /* status 200, a page */
                 ACT_ERROR_200,
                 ACT_EMPTY,
                 ACT_RESET,
                 ACT_HANG,
                 ACT_ENDLESS,
                 ACT_STALL, /* from here on something is said first */
                 ACT_CUT,
                 ACT_HALF_JSON,
                 ACT_ERROR,
                 ACT_NO_FINISH
};
enum drill_act drill_fault_act(size_t fault); /* drill_fault_count: HEALTHY */

/* ---- The words of the four (drill_words.c) */

/* What is asked: the words to say, and how. */
struct drill_ask {
    enum drill_api api;
    bool is_stream;
    const char *text; /* what is still to be said; terminated */
    size_t prompt_tokens;
};
/* Reads a request's body; `path` is what follows the base URL. false: it is none of this API's. */
bool drill_words_read(enum drill_api api, const char *path, const struct json *body, struct drill_ask *out);
/* The next token of a text (a word and the space before it): its length; 0: the end. */
size_t drill_words_token(const char *text);

/* Server-sent events: the beginning, a token, the end; and a failure in the middle. */
void drill_words_begin(const struct drill_ask *ask, struct buf *out);
void drill_words_piece(const struct drill_ask *ask, const char *text, size_t len, size_t sent,
                       struct buf *out);
void drill_words_end(const struct drill_ask *ask, size_t sent, struct buf *out);
void drill_words_error_event(enum drill_api api, struct buf *out);
/* The whole reply. */
void drill_words_whole(const struct drill_ask *ask, struct buf *out);
/* The body of the error that a fault is called after ("401"); answers its status. `key` stands in those that
 * real providers put it into. */
int drill_words_error(enum drill_api api, const char *fault, const char *key, struct buf *out);

#endif
