/* The stages pre-tokenizers are made of. A stage is the meaning of one regular expression of a model's
 * tokenizer.json, taken apart into data, so that cutting is one pass over the characters. */
#ifndef PHAROS_MODEL_VOCAB_SPLIT_INT_H
#define PHAROS_MODEL_VOCAB_SPLIT_INT_H

#include "model/vocab_int.h"

struct point_range {
    uint32_t first, last;
};

/* A set of characters: by class, or by range (ranges hold no space beyond ASCII, whatever they span). */
struct point_set {
    uint32_t classes;
    const struct point_range *ranges;
    size_t range_count;
    bool negated;
};

enum split_lead { LEAD_NONE, LEAD_BLANK /* ' '? */, LEAD_SPACE /* \s? */ };

/* lead set{min,max} */
struct run_rule {
    enum split_lead lead;
    const struct point_set *sets; /* tried in order */
    size_t set_count;
    size_t max;   /* 0: no bound */
    size_t exact; /* not 0: so many, no more and no fewer */
    bool at_end;  /* only where the segment ends */
};

enum contraction { CONTRACTION_NONE, CONTRACTION_LOWER /* 's */, CONTRACTION_ANY /* 's 'S */ };
enum word_shape {
    SHAPE_RUN,    /* word+ */
    SHAPE_CASED,  /* upper* lower+ | upper+ lower*, where only ASCII letters have a case */
    SHAPE_PHRASE, /* words joined by single blanks: (L M* (' ' L M*)*)+ */
    SHAPE_NOT_HAN /* runs of Han, else runs of other letters */
};
enum punctuation_tail { TAIL_NONE, TAIL_NEWLINES, TAIL_NEWLINES_SLASHES, TAIL_ONE };
enum newline_rule { NEWLINE_NONE, NEWLINE_RUN /* \s*[\r\n]+ */, NEWLINE_ONE /* [\r\n] */ };

/* The family of patterns that GPT-2 began: contraction | word | number | punctuation | newlines | spaces. */
struct word_rule {
    enum contraction prefix, suffix; /* as a word of its own; at the end of a word */
    bool ascii_mark;                 /* an ASCII punctuation mark and the ASCII letters after it */
    enum word_shape shape;
    uint32_t word;        /* classes of a word */
    bool blank_lead;      /* a word or number may begin with a blank; else with anything but */
    uint32_t lead_not;    /* ... these classes and newlines */
    size_t number_max;    /* 0: numbers are not cut here */
    uint32_t punctuation; /* classes; 0: everything that is in none of punctuation_not */
    uint32_t punctuation_not;
    enum punctuation_tail tail;
    enum newline_rule newline;
    bool cascade; /* spaces in runs of 512, 256, ... 4, 2, 1 */
};

/* What is being cut, and where the run of spaces at hand ends, so that it is measured once. */
struct scan {
    uint32_t *chars;
    size_t at, end;
    size_t spaces_end;  /* of the run `at` is in, when at < spaces_end */
    size_t newline_end; /* after the last newline of that run, or 0 */
};

struct split_stage {
    /* Characters matched at scan->at, 0: none. NULL: cut is called for whole segments. */
    size_t (*match)(const struct split_stage *stage, struct scan *scan);
    void (*cut)(uint32_t *chars, size_t begin, size_t end);
    union {
        const struct run_rule *run;
        const struct word_rule *word;
    } u;
};

size_t split_match_run(const struct split_stage *stage, struct scan *scan);
size_t split_match_word(const struct split_stage *stage, struct scan *scan);
size_t split_match_sentinel(const struct split_stage *stage, struct scan *scan);
size_t split_match_image(const struct split_stage *stage, struct scan *scan);
size_t split_match_blanks(const struct split_stage *stage, struct scan *scan);
void split_cut_digits_left(uint32_t *chars, size_t begin, size_t end);
void split_cut_digits_right(uint32_t *chars, size_t begin, size_t end);
void split_cut_newlines(uint32_t *chars, size_t begin, size_t end);

#endif
