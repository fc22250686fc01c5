/* What the tokenizer's files share. vocab.c loads, vocab_tokenize.c partitions and dispatches, vocab_merge.c
 * merges (SPM and BPE), vocab_split.c cuts text into words, vocab_pre.c has the table of pre-tokenizers,
 * vocab_wpm.c is WordPiece, vocab_ugm.c the unigram model, vocab_piece.c goes back to text. */
#ifndef PHAROS_MODEL_VOCAB_INT_H
#define PHAROS_MODEL_VOCAB_INT_H

#include "model/model.h"
#include "model/unicode_int.h"

/* ---- Pre-tokenizers: a list of stages, each cutting the segments the stages before it left */
struct split_stage;

struct pretokenizer {
    const char *name;                        /* tokenizer.ggml.pre */
    const struct split_stage *const *stages; /* NULL-terminated */
    uint32_t flags;
};

enum {
    PRE_IGNORE_MERGES = 1,  /* a word that is a token is that token, whatever the merges say */
    PRE_ADD_BOS = 2,        /* unless the file says otherwise */
    PRE_KEEP_SPACES = 4,    /* no clean-up of spaces in detokenised text */
    PRE_RAW = 8,            /* UTF-8 as it is instead of the byte alphabet; spaces become U+2581 */
    PRE_NO_BOS = 16,        /* no default beginning-of-sequence token */
    PRE_ALWAYS_BOS = 32,    /* adds BOS even if the file says otherwise */
    PRE_NEWLINES_WHOLE = 64 /* a run of newlines that is a token is that token */
};

const struct pretokenizer *pretokenizer_find(const char *name, size_t len); /* NULL: unknown */

/* A character of the text being cut: code point, its classes, and whether a word ends after it. */
#define CHAR_POINT 0x1fffffu
#define CHAR_CLASS_SHIFT 21
#define CHAR_CUT 0x80000000u

/* Sets CHAR_CUT in chars[0..count) after the last character of every word. */
void pretokenizer_split(const struct pretokenizer *pre, uint32_t *chars, size_t count);

/* ---- The vocabulary */
enum {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 4,
    TOKEN_USER = 8, /* user-defined: matched in any text before the tokenizer sees it */
    TOKEN_BYTE = 16,
    TOKEN_LSTRIP = 32, /* swallows spaces before it */
    TOKEN_RSTRIP = 64, /* and after it */
    TOKEN_END = 128
};
#define TOKEN_HIDDEN (TOKEN_UNKNOWN | TOKEN_CONTROL)
#define TOKEN_SPECIAL (TOKEN_HIDDEN | TOKEN_USER)

/* Texts that lie in a GGUF string array, found through a flat hash table. A slot holds index + 1 and, above
 * it, bits of the hash, so that strangers are hardly ever compared. */
struct text_table {
    const uint8_t *data; /* length (8 bytes, little-endian) and bytes of each text */
    uint32_t *offset;    /* [count] into data; TEXT_APART: into apart */
    const uint8_t *apart;
    uint32_t *slots;
    size_t mask;
    size_t count;
};
#define TEXT_APART 0x80000000u
#define TEXT_INDEX_BITS 22

/* The special tokens that are looked for in text: their lengths, longest first, and which pairs of bytes one
 * of them may begin with. */
struct special_set {
    uint16_t *lengths;
    size_t length_count;
    uint8_t *pairs; /* a bit for each first byte << 8 | second byte; NULL: the set is empty */
};

/* UGM: what to normalise before tokenising (see vocab_ugm.c). */
struct charsmap {
    const uint8_t *nodes; /* 4 bytes each, little-endian, unaligned */
    size_t node_count;    /* 0: nothing is normalised */
    const char *pool;
    size_t pool_len;
};

struct vocab {
    struct vocab_info info;
    struct arena arena;
    struct text_table tokens;
    struct text_table merges;
    uint8_t *attr;            /* [n_tokens] TOKEN_... */
    struct gguf_array scores; /* count 0: all are 0 */
    const struct pretokenizer *pre;
    int32_t sep;
    size_t token_len_max;          /* bytes of the longest text */
    bool space_prefix;             /* SPM: text begins with a space */
    bool escape_spaces;            /* U+2581 stands for the space */
    bool clean_spaces;             /* detokenised text loses spaces before punctuation */
    bool byte_level;               /* BPE over GPT-2's byte alphabet */
    bool lowercase, strip_accents; /* WPM */
    bool merge_spaces;             /* UGM: one space for many */
    float unknown_score;           /* UGM */
    struct charsmap charsmap;
    int32_t *user_ids; /* UGM: user-defined tokens */
    size_t user_id_count;
    struct special_set special, user; /* all that may be parsed; only user-defined ones */
    int32_t byte_token[256];          /* SPM and raw BPE: the token of a byte that no token covers, or -1 */
};

struct gguf_string text_table_at(const struct text_table *table, size_t index);
/* Index of the token with this text, or -1. */
int32_t vocab_lookup(const struct vocab *vocab, const char *text, size_t len);
/* Rank of the merge left + right, or -1. */
int32_t vocab_merge_rank(const struct vocab *vocab, const char *left, size_t left_len, const char *right,
                         size_t right_len);
float vocab_score(const struct vocab *vocab, int32_t id);

/* GPT-2's alphabet: every byte has a printable code point. */
uint32_t byte_alphabet_point(uint8_t byte);
int byte_alphabet_byte(uint32_t point); /* -1: no byte's */

/* ---- One call of vocab_tokenize: scratch that its stages reuse */
struct tokenize {
    const struct vocab *vocab;
    struct token_list *out;
    struct buf text; /* what the merger works on */
    uint32_t *chars; /* code points of a fragment */
    size_t chars_cap;
    struct symbol *symbols;
    size_t symbols_cap;
    struct candidate_merge *heap;
    size_t heap_len, heap_cap;
    struct best_cover *best; /* UGM */
    size_t best_cap;
    enum ph_status status; /* sticky */
};

void tokenize_emit(struct tokenize *t, int32_t id);
/* Room for `count` items of `size` bytes in *items; keeps the old ones. false: status says why. */
bool tokenize_room(struct tokenize *t, void *items, size_t *cap, size_t count, size_t size);

void tokenize_spm(struct tokenize *t, const char *text, size_t len, bool prefix);
void tokenize_bpe(struct tokenize *t, const char *text, size_t len);
void tokenize_wpm(struct tokenize *t, const char *text, size_t len);
void tokenize_ugm(struct tokenize *t, const char *text, size_t len);

#endif
