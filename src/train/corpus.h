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

/* ---- Documents from files: plain text, or JSON lines with {"text": "..."} or a conversation in one of the
 * usual forms: {"messages": [{"role", "content"}, ...]}, {"conversations": [{"from", "value"}, ...]},
 * {"turns": [{"speaker", "text"} or ["speaker", "text"], ...]}, or a question and its answer: {"instruction",
 * "input", "output"}, {"prompt", "completion" or "response"}, {"question", "answer"}. */
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
    const struct json *messages; /* instead of text: a list of {"role", "content"} */
};

/* Calls `take` for every document, in order; its error ends the reading and is the result. Documents live
 * until take returns, and are UTF-8: what is not is PH_ERR_FORMAT with file and line. Files are mapped one
 * after the other. `progress` may be NULL: bytes of all files. */
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

/* ---- Duplicate documents
 *
 * Texts are compared with every run of white space as one space. Equal ones are found by a 64-bit hash. Near
 * ones by MinHash (Broder 1997): a text is the set of its runs of 5 words; of two texts the share of equal
 * ones among 128 minima estimates the Jaccard similarity of their sets. Pairs that agree in one of 16 bands
 * of 8 minima are compared (at 0.8 alike, 95 of 100 pairs are; at 0.9, all but one in ten thousand). Of a
 * pair the document that came later is the duplicate; texts under 5 words are compared exactly only. */
struct dedup;
enum dedup_answer { DEDUP_NEW, DEDUP_EXACT, DEDUP_NEAR };
/* near: least similarity of a near duplicate, in (0, 1]; 0: only exact ones are found. */
PH_MUST_USE enum ph_status dedup_create(struct dedup **out, double near, struct ph_err *err);
void dedup_free(struct dedup *dedup);
/* Answers for a text, and remembers it when it is new. *hash: of the text with its white space normalised. */
PH_MUST_USE enum ph_status dedup_check(struct dedup *dedup, const char *text, size_t len,
                                       enum dedup_answer *answer, uint64_t *hash, struct ph_err *err);

/* ---- Token files
 *
 * Little-endian, mapped. All offsets are from the file's beginning and multiples of 8; sections lie in this
 * order with zeros between them; a checksum is corpus_sum() of the section's bytes.
 *      0 magic "PHTOKENS"         8 version u32 (1)        12 header bytes u32 (128)
 *     16 tokens in vocabulary u32 20 token bytes u32 (2, 4) 24 flags u32 (1: targets)  28 held out u32, ppm
 *     32 vocabulary hash u64     40 documents u64         48 tokens u64            56 text bytes u64
 *     64 split seed u64          72 targets at u64, or 0  80 documents at u64      88 file bytes u64
 *     96 tokens sum u64         104 targets sum u64      112 documents sum u64    120 sum of bytes 0 to 119
 *    128 tokens. Targets: a bit a token, lowest first: whether predicting it counts in the loss. Documents:
 *        first token u64, hash u64, text bytes u64 of each, and a last one with (tokens, 0, 0).
 * A document is held out when its hash, mixed with the split seed, falls below the held-out share: that
 * depends on the document alone, not on its neighbours or their order. */
struct corpus;

enum corpus_part { CORPUS_TRAIN, CORPUS_HELD_OUT, CORPUS_ALL };

struct corpus_params {
    size_t n_vocab;
    uint64_t vocab_hash;
    bool targets;          /* not every token counts in the loss */
    uint32_t held_out_ppm; /* parts in a million */
    uint64_t split_seed;
};

struct corpus_totals {
    uint64_t documents, tokens, targets, text_bytes;
};

struct corpus_doc {
    uint64_t first, count; /* tokens */
    uint64_t hash, text_bytes;
    enum corpus_part part; /* CORPUS_TRAIN or CORPUS_HELD_OUT */
};

/* Every byte is checked: header, sums, order of the documents, ids. PH_ERR_FORMAT names file and offset. */
PH_MUST_USE enum ph_status corpus_open(struct corpus **out, const char *path, struct ph_err *err);
PH_MUST_USE enum ph_status corpus_open_memory(struct corpus **out, const void *bytes, size_t len,
                                              const char *name, struct ph_err *err); /* bytes outlive it */
void corpus_free(struct corpus *corpus);
const struct corpus_params *corpus_params(const struct corpus *corpus);
const struct corpus_totals *corpus_totals(const struct corpus *corpus, enum corpus_part part);
struct corpus_doc corpus_doc(const struct corpus *corpus, uint64_t index);
int32_t corpus_token(const struct corpus *corpus, uint64_t index);
bool corpus_is_target(const struct corpus *corpus, uint64_t index);
/* Identifies the file's content: any other byte is, but for accidents, another number. */
uint64_t corpus_identity(const struct corpus *corpus);
/* Identifies the tokenizer in a GGUF file: its kind, pre-tokenizer, tokens, types, scores and merges. */
uint64_t corpus_vocab_hash(const struct gguf *gguf);

/* Copies the tokens of a part, its documents joined end to end: corpus_totals says how many. Returns where
 * they end. */
int32_t *corpus_copy(const struct corpus *corpus, enum corpus_part part, int32_t *out);
/* [n_tokens]: how many bytes of text each token spells; the caller frees it. NULL: no memory. */
PH_MUST_USE uint32_t *corpus_piece_bytes(const struct vocab *vocab);
/* Appends the documents of a part joined end to end. PH_ERR_ARG: the part is empty, or the file was made with
 * another vocabulary than gguf's. */
PH_MUST_USE enum ph_status corpus_join(const char *path, const struct gguf *gguf, enum corpus_part part,
                                       struct token_list *out, struct ph_err *err);

struct corpus_writer;
PH_MUST_USE enum ph_status corpus_writer_open(struct corpus_writer **out, const char *path,
                                              const struct corpus_params *params, struct ph_err *err);
/* targets: a byte a token, or NULL: all count. An empty document, or an id that the vocabulary has not, is
 * PH_ERR_ARG. After an error only abandon is left. */
PH_MUST_USE enum ph_status corpus_writer_add(struct corpus_writer *writer, const int32_t *ids,
                                             const uint8_t *targets, size_t count, uint64_t hash,
                                             uint64_t text_bytes, struct ph_err *err);
/* The file takes its place only now, whole. Both free the writer. */
PH_MUST_USE enum ph_status corpus_writer_close(struct corpus_writer *writer, struct ph_err *err);
void corpus_writer_abandon(struct corpus_writer *writer);

/* From documents to a token file. */
struct corpus_build {
    struct source_params source;
    const char *path;
    const struct vocab *vocab;
    struct corpus_params params;
    const struct chat_template *chat_template; /* for conversations */
    bool dedup;
    double near; /* see dedup_create */
};

struct corpus_build_stats {
    uint64_t documents, exact, near; /* read; of them dropped */
    uint64_t documents_bytes;        /* read */
};

/* A document's text gets the model's BOS where its tokenizer adds one, and always ends with its EOS. With
 * params.targets the tokens of a conversation that were not the assistant's are no targets: what the template
 * adds for a generation prompt ends where the assistant's part begins. `progress` may be NULL; it answers
 * false to stop before the next document: PH_ERR_CANCELLED, and no file. */
PH_MUST_USE enum ph_status corpus_build(const struct corpus_build *build, struct corpus_build_stats *stats,
                                        bool (*progress)(void *ud, uint64_t done, uint64_t total), void *ud,
                                        struct ph_err *err);

/* ---- Batches: windows of time + 1 tokens, from the documents of a part joined end to end
 *
 * Each epoch has its own order of documents, cut into windows that overlap by one token (so that each is
 * predicted once), and its own order of windows, both from seed and epoch. What is left at an epoch's end is
 * under one window. A position is all there is to resume exactly. */
struct batcher;

struct batcher_position {
    uint64_t seed, epoch;
    uint64_t index; /* windows of the epoch that were given */
};

struct batcher_params {
    enum corpus_part part;
    size_t time;
    bool ordered; /* no shuffling: for validation */
    uint64_t seed;
};

/* Allocates here only. The corpus must outlive it. PH_ERR_ARG: the part has not even one window. */
PH_MUST_USE enum ph_status batcher_create(struct batcher **out, const struct corpus *corpus,
                                          const struct batcher_params *params, struct ph_err *err);
void batcher_free(struct batcher *batcher);
uint64_t batcher_windows(const struct batcher *batcher); /* in an epoch */
struct batcher_position batcher_position(const struct batcher *batcher);
PH_MUST_USE enum ph_status batcher_seek(struct batcher *batcher, struct batcher_position position,
                                        struct ph_err *err);
/* The next `batch` windows, into the next epoch where one ends: tokens [batch][time + 1]; targets
 * [batch][time], 1 where predicting tokens[.][t + 1] counts, or NULL. */
void batcher_next(struct batcher *batcher, size_t batch, int32_t *tokens, uint8_t *targets);

#endif
