/* memory, private: what an index sees of a text. A word is a run of letters and digits, lower case, without
 * marks; it is told by the hash of its stem. Scripts that write no spaces give pairs of characters. */
#ifndef PHAROS_MEMORY_TEXT_INT_H
#define PHAROS_MEMORY_TEXT_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define TEXT_WORD_BYTES_MAX 64 /* of one word, folded; the rest of a longer one is not looked at */

enum text_flag {
    TEXT_STOP = 1 << 0,     /* says nothing by itself: "the", "and" */
    TEXT_NAME = 1 << 1,     /* begins with a capital inside a sentence */
    TEXT_NUMBER = 1 << 2,   /* has a digit */
    TEXT_TIME = 1 << 3,     /* "yesterday", "march", "ago", a year, "8pm" */
    TEXT_WHEN = 1 << 4,     /* asks for a time: "when", "date" */
    TEXT_MANY = 1 << 5,     /* asks for a number: "many", "much" */
    TEXT_ME = 1 << 6,       /* the one who speaks: "i", "my" */
    TEXT_YOU = 1 << 7,      /* the one spoken to */
    TEXT_QUESTION = 1 << 8, /* asks: "who", "what" */
};

struct text_word {
    uint64_t stem; /* hash of the stem; never 0 */
    char folded[TEXT_WORD_BYTES_MAX + 1];
    uint8_t folded_len;
    uint8_t stem_len; /* of the stem, which is folded's beginning or has replaced it */
    uint16_t flags;   /* of enum text_flag */
    bool is_first;    /* of its sentence */
    size_t at;        /* byte offset in the text */
};

struct text_stemmer; /* one a thread */
PH_MUST_USE enum ph_status text_stemmer_create(struct text_stemmer **out, const char *language,
                                               struct ph_err *err);
void text_stemmer_free(struct text_stemmer *stemmer);

/* Walks through the words of a text of any bytes. */
struct text_reader {
    const char *text;
    size_t len, at;
    struct text_stemmer *stemmer;
    uint32_t pair;  /* the character before, of a script without spaces; 0: none */
    bool is_first;  /* a sentence begins here */
    bool questions; /* a question mark was passed */
};
void text_reader_init(struct text_reader *reader, struct text_stemmer *stemmer, const char *text, size_t len);
bool text_next(struct text_reader *reader, struct text_word *word); /* false: no more */

uint64_t text_hash(const char *bytes, size_t len); /* never 0 */
int text_month(const char *folded);                /* 1..12; 0: not a month's name */

#endif
