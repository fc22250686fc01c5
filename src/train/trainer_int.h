/* What the trainer's files share: its struct, the mixture of token files, checkpoints as bytes. */
#ifndef PHAROS_TRAIN_TRAINER_INT_H
#define PHAROS_TRAIN_TRAINER_INT_H

#include "base/buf.h"
#include "base/file.h"
#include "train/corpus.h"
#include "train/trainer.h"

/* ---- Token files, mixed by fixed shares
 *
 * The next window comes from the file that is furthest behind its share of all windows given since the
 * mixture began: the choice follows from the positions alone. */
struct mix_source {
    struct corpus *corpus;
    struct batcher *batcher;
    uint64_t identity;
    double share;   /* of all windows; together 1 */
    uint64_t begun; /* windows it had given before the mixture began: those of a run with other shares */
};

struct mix {
    struct mix_source *sources;
    size_t count;
    uint64_t windows; /* in an epoch of everything */
};

PH_MUST_USE enum ph_status mix_open(struct mix *mix, const struct trainer_params *params, size_t n_vocab,
                                    uint64_t vocab_hash, struct ph_err *err);
void mix_release(struct mix *mix);
/* tokens [rows][time + 1], targets [rows][time] as batcher_next has them. */
void mix_next(struct mix *mix, size_t rows, size_t time, int32_t *tokens, uint8_t *targets);
uint64_t mix_given(const struct mix *mix); /* windows so far */
uint64_t mix_source_given(const struct mix_source *source);

/* Held-out windows, read once. */
struct window_set {
    size_t count;
    int32_t *tokens;  /* [count][time + 1] */
    uint8_t *targets; /* [count][time] */
};
/* About `count` windows (0: none), the sources' by their shares, at least one of each that has any, each's
 * spread evenly. */
PH_MUST_USE enum ph_status window_set_open(struct window_set *set, const struct mix *mix, size_t time,
                                           size_t count, struct ph_err *err);
void window_set_release(struct window_set *set);

/* ---- The trainer */
struct trainer {
    struct trainer_params params; /* resolved; strings and sources are not kept */
    struct pool *pool;
    struct ranks *ranks;
    size_t share;      /* windows of each batch that are this rank's */
    struct gguf *gguf; /* tokenizer, and with `init` the model's keys */
    bool from_init, chose_warmup;
    uint64_t vocab_hash;
    struct mix mix;
    struct decoder *decoder;
    struct adamw adamw;             /* step: done so far */
    uint64_t tokens;                /* predicted positions given so far */
    uint64_t cool_from, cool_steps; /* cool_steps 0: as planned */
    int32_t *windows;               /* [accumulate * batch][time + 1] */
    uint8_t *flags;                 /* [accumulate * batch][time] */
    int32_t *inputs, *targets;      /* [accumulate * batch][time] */
    float *weights;
    struct window_set validation;
    uint32_t *piece_bytes; /* [vocab] of text that each token spells */
};

/* Collective: all go on with rank 0's weights and moments. Those of like machines are the same already. */
void trainer_level(struct trainer *trainer);

/* ---- Settings as text: "key=value" lines, in a fixed order, for checkpoints to compare */
#define SETTINGS_BYTES_MAX ((size_t)1 << 16)
void settings_write(struct buf *out, const struct trainer *trainer);
/* Lines that checkpoints keep beside them, and that nothing compares. */
void settings_write_begun(struct buf *out, const struct trainer *trainer);
/* What was left to the trainer to choose by the run's length stays as it was chosen first. */
void settings_adopt(const char *old, size_t len, struct trainer *trainer);
/* PH_ERR_ARG names the first key that differs and both values. adapt: only where it must not. */
PH_MUST_USE enum ph_status settings_compare(const char *old, size_t len, const struct trainer *trainer,
                                            const char *path, bool adapt, struct ph_err *err);
/* Whether windows and their order are the same; and whether files and their shares are, too. */
bool settings_same_windows(const char *old, size_t len, const struct trainer *trainer);
bool settings_same_mix(const char *old, size_t len, const struct trainer *trainer);
/* The old run's data file of this identity whose bit in `taken` is not set, or SIZE_MAX; and how many windows
 * it had given before that run's mixture began. */
size_t settings_find_source(const char *old, size_t len, uint64_t identity, uint64_t taken);
uint64_t settings_begun(const char *old, size_t len, size_t source);

/* ---- Checkpoints as bytes (see checkpoint.c) */
struct checkpoint {
    struct file_map map; /* data NULL: the bytes are somebody else's */
    uint64_t step, tokens, cool_from, cool_steps;
    const char *settings;
    size_t settings_len;
    const uint8_t *positions; /* [source_count] of CHECKPOINT_POSITION_BYTES */
    size_t source_count;
    const uint8_t *floats; /* weights, m, v, each [float_count], unaligned */
    uint64_t float_count;
};
#define CHECKPOINT_POSITION_BYTES 24u

/* Checks every byte. PH_ERR_FORMAT names file and offset. */
PH_MUST_USE enum ph_status checkpoint_open(struct checkpoint *out, const char *path, struct ph_err *err);
PH_MUST_USE enum ph_status checkpoint_open_memory(struct checkpoint *out, const void *bytes, size_t len,
                                                  const char *name, struct ph_err *err);
void checkpoint_release(struct checkpoint *checkpoint);

/* ---- Weights from a model file */
PH_MUST_USE enum ph_status import_config(const struct gguf *gguf, struct decoder_config *config,
                                         struct ph_err *err);
PH_MUST_USE enum ph_status import_weights(const struct gguf *gguf, struct decoder *decoder,
                                          struct ph_err *err);

#endif
