/* Text for training: learning a tokenizer, and token files.
 *
 * train.h includes this; other modules include train.h. Nothing here has threads of its own. */
#ifndef PHAROS_TRAIN_CORPUS_H
#define PHAROS_TRAIN_CORPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "model/model.h"

/* ---- Documents from files: plain text, or JSON lines with {"text": "..."} or {"messages": [{"role",
 * "content"}, ...]} */
enum source_format {
    SOURCE_AUTO, /* *.jsonl and *.ndjson are JSON lines; so is standard input that begins with '{' */
    SOURCE_TEXT,
    SOURCE_JSONL
};

struct source_params {
    const char *const *paths; /* "-": standard input */
    size_t path_count;
    enum source_format format;
    const char *separator; /* text: a line that is exactly this ends a document; NULL: a file is one */
};

struct document {
    const char *path; /* for messages about it */
    size_t line;      /* where it begins, from 1 */
    const char *text;
    size_t len;
    const struct json *messages; /* instead of text: a checked list */
};

/* Calls `take` for every document, in order; its error ends the reading and is the result. Documents live
 * until take returns. Files are mapped one after the other. `progress` may be NULL: bytes of all files. */
PH_MUST_USE enum ph_status
source_each(const struct source_params *params,
            enum ph_status (*take)(void *ud, const struct document *document, struct ph_err *err),
            void (*progress)(void *ud, uint64_t done, uint64_t total), void *ud, struct ph_err *err);

/* ---- Learning a tokenizer: byte pair encoding (Sennrich et al. 2016)
 *
 * Words are counted first, then the commonest pair of neighbouring symbols is joined, again and again. Ties
 * go to the pair whose left symbol is older, then whose right one is (bytes by value, characters by code
 * point, then in order of making), so the result depends on the words and their counts alone. */
enum bpe_kind {
    BPE_BYTES, /* GPT-2's: words of bytes; the file lists merges */
    BPE_SPM    /* llama's: words of characters, rare ones fall back to bytes; the file lists scores */
};

struct bpe_params {
    enum bpe_kind kind;
    const char *pre;   /* pre-tokenizer that cuts words; BPE_BYTES: the file names it */
    size_t n_tokens;   /* wanted, everything counted */
    uint64_t pair_min; /* a pair seen fewer times is not joined */
    size_t token_bytes_max;
    double coverage;             /* BPE_SPM: this share of all characters gets tokens, the commonest first */
    const char *const *specials; /* control tokens beside <|endoftext|>, or <unk> <s> </s> */
    size_t special_count;
    const char *turn_end; /* the one of them that ends a turn, or NULL */
};
void bpe_params_default(struct bpe_params *params); /* bytes, smollm, 8192 tokens, no specials */

struct bpe_stats {
    uint64_t bytes, words; /* read */
    size_t distinct_words, merges, tokens;
    size_t characters;       /* BPE_SPM: that have tokens */
    uint64_t corpus_symbols; /* what the words' text has been merged to */
};

struct bpe_trainer;
/* The strings of `params` must outlive the trainer. */
PH_MUST_USE enum ph_status bpe_trainer_create(struct bpe_trainer **out, const struct bpe_params *params,
                                              struct ph_err *err);
void bpe_trainer_free(struct bpe_trainer *trainer);
/* Counts the words of a text. Long texts are cut after line ends into pieces of at least a megabyte. */
PH_MUST_USE enum ph_status bpe_trainer_add(struct bpe_trainer *trainer, const char *text, size_t len,
                                           struct ph_err *err);
/* Once, after all texts. `progress` may be NULL; it answers false to stop: PH_ERR_CANCELLED. Fewer tokens
 * than wanted is no error: the stats say so. */
PH_MUST_USE enum ph_status bpe_trainer_run(struct bpe_trainer *trainer,
                                           bool (*progress)(void *ud, uint64_t done, uint64_t total),
                                           void *ud, struct ph_err *err);
void bpe_trainer_stats(const struct bpe_trainer *trainer, struct bpe_stats *out);
/* After bpe_trainer_run: sets every tokenizer.* key. `chat_template` may be NULL. */
PH_MUST_USE enum ph_status bpe_trainer_write(const struct bpe_trainer *trainer, struct gguf_writer *writer,
                                             const char *chat_template, struct ph_err *err);
/* A file with the vocabulary and nothing else. */
PH_MUST_USE enum ph_status bpe_trainer_save(const struct bpe_trainer *trainer, const char *path,
                                            const char *name, const char *chat_template, struct ph_err *err);

/* The specials that the built-in chat template uses, and the one that ends a turn. */
extern const char *const chat_default_specials[];
extern const size_t chat_default_special_count;
#define CHAT_DEFAULT_TURN_END "<|end|>"
extern const char chat_default_template[];

#endif
