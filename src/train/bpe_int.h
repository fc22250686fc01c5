/* What the tokenizer trainer's files share: bpe_train.c counts words, bpe_merge.c joins pairs, bpe_write.c
 * writes the vocabulary. */
#ifndef PHAROS_TRAIN_BPE_INT_H
#define PHAROS_TRAIN_BPE_INT_H

#include "train/corpus.h"
#include "train/corpus_int.h"

#define BPE_TEXT_BYTES_MAX ((size_t)1 << 32) /* of all distinct words together */

struct bpe_merge {
    uint32_t left, right, made;
};

/* A distinct word: its symbols lie in bpe_trainer.symbols. */
struct bpe_word {
    size_t start;
    uint32_t len;
    uint64_t count;
};

struct bpe_trainer {
    struct bpe_params params;
    struct bpe_stats stats;
    struct text_set words; /* texts */
    uint64_t *word_counts;
    size_t word_counts_cap;
    struct text_set symbol_texts; /* symbol -> its raw bytes; the first base_count are bytes or characters */
    size_t base_count;
    struct text_set reserved; /* texts as in the file that no merge may spell */
    struct bpe_word *runs;    /* words, cut where a character has no token */
    size_t run_count, run_cap;
    uint32_t *symbols;
    size_t symbol_count, symbol_cap;
    struct bpe_merge *merges;
    size_t merge_count, merge_cap;
    size_t merges_wanted_tokens; /* tokens that merges may make */
    bool ran;
};

size_t bpe_head_count(const struct bpe_trainer *trainer); /* tokens before the first symbol's */
const char *const *bpe_own_specials(enum bpe_kind kind, size_t *count);
/* Appends the text that the file has for these raw bytes. */
void bpe_file_text(enum bpe_kind kind, const char *text, size_t len, struct buf *out);

/* Joins pairs in `runs` until merges_wanted_tokens are made or no pair is left. */
PH_MUST_USE enum ph_status bpe_merge_run(struct bpe_trainer *trainer,
                                         bool (*progress)(void *ud, uint64_t done, uint64_t total), void *ud,
                                         struct ph_err *err);

#endif
