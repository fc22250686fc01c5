/* Batches. An epoch is a permutation of the part's documents and one of the windows that their joined tokens
 * make; both are drawn anew from seed and epoch when the epoch begins, so that a position of three numbers
 * says all. A window finds its first document by bisection over the documents' places in the epoch. */
#include <inttypes.h>

#include "base/clock.h"
#include "train/corpus_int.h"
#include "train/train.h"

struct batcher {
    const struct corpus *corpus;
    struct batcher_params params;
    struct batcher_position at;
    uint64_t doc_count, window_count;
    uint64_t *docs;    /* [doc_count] the part's, in this epoch's order */
    uint64_t *starts;  /* [doc_count + 1] where each begins in the joined tokens */
    uint64_t *windows; /* [window_count] in this epoch's order */
};

static void list_docs(struct batcher *b)
{
    uint64_t count = 0, all = corpus_totals(b->corpus, CORPUS_ALL)->documents;
    for (uint64_t i = 0; i < all; i++)
        if (b->params.part == CORPUS_ALL || corpus_doc(b->corpus, i).part == b->params.part)
            b->docs[count++] = i;
}

static void begin_epoch(struct batcher *b)
{
    struct rng rng;
    rng_init(&rng, corpus_mix(b->at.seed) ^ b->at.epoch);
    list_docs(b);
    for (uint64_t i = 0; i < b->window_count; i++)
        b->windows[i] = i;
    if (!b->params.ordered) {
        rng_shuffle(&rng, b->docs, b->doc_count);
        rng_shuffle(&rng, b->windows, b->window_count);
    }
    b->starts[0] = 0;
    for (uint64_t i = 0; i < b->doc_count; i++)
        b->starts[i + 1] = b->starts[i] + corpus_doc(b->corpus, b->docs[i]).count;
}

enum ph_status batcher_create(struct batcher **out, const struct corpus *corpus,
                              const struct batcher_params *params, struct ph_err *err)
{
    const struct corpus_totals *totals = corpus_totals(corpus, params->part);
    *out = NULL;
    if (params->time == 0 || params->time >= totals->tokens)
        return ph_fail(
            err, PH_ERR_ARG,
            "the %s part of the data has %" PRIu64 " tokens; a window of %zu needs one more than that",
            params->part == CORPUS_HELD_OUT ? "held-out" : "training", totals->tokens, params->time);
    struct batcher *b = mem_calloc(1, sizeof *b);
    if (!b)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for batches");
    b->corpus = corpus;
    b->params = *params;
    b->at.seed = params->seed;
    b->doc_count = totals->documents;
    b->window_count = corpus_windows(totals->tokens, params->time);
    b->docs = mem_calloc((size_t)b->doc_count, sizeof *b->docs);
    b->starts = mem_calloc((size_t)b->doc_count + 1, sizeof *b->starts);
    b->windows = mem_calloc((size_t)b->window_count, sizeof *b->windows);
    if (!b->docs || !b->starts || !b->windows) {
        batcher_free(b);
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the order of %" PRIu64 " windows",
                       corpus_windows(totals->tokens, params->time));
    }
    begin_epoch(b);
    *out = b;
    return PH_OK;
}

void batcher_free(struct batcher *batcher)
{
    if (!batcher)
        return;
    mem_free(batcher->docs);
    mem_free(batcher->starts);
    mem_free(batcher->windows);
    mem_free(batcher);
}

uint64_t batcher_windows(const struct batcher *batcher)
{
    return batcher->window_count;
}

struct batcher_position batcher_position(const struct batcher *batcher)
{
    return batcher->at;
}

enum ph_status batcher_seek(struct batcher *batcher, struct batcher_position position, struct ph_err *err)
{
    if (position.index > batcher->window_count)
        return ph_fail(err, PH_ERR_ARG,
                       "position %" PRIu64 " of %" PRIu64
                       " windows: it was saved with other data or another window length",
                       position.index, batcher->window_count);
    batcher->at = position;
    begin_epoch(batcher);
    return PH_OK;
}

/* The document that has joined token `at`. */
static uint64_t find_doc(const struct batcher *b, uint64_t at)
{
    uint64_t low = 0, high = b->doc_count;
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        if (b->starts[middle] <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void copy_window(const struct batcher *b, uint64_t window, int32_t *tokens, uint8_t *targets)
{
    uint64_t at = window * b->params.time, place = find_doc(b, at);
    for (size_t t = 0; t <= b->params.time; place++) {
        struct corpus_doc doc = corpus_doc(b->corpus, b->docs[place]);
        for (uint64_t i = at + t - b->starts[place]; i < doc.count && t <= b->params.time; i++, t++) {
            tokens[t] = corpus_token(b->corpus, doc.first + i);
            if (targets && t > 0)
                targets[t - 1] = corpus_is_target(b->corpus, doc.first + i);
        }
    }
}

void batcher_next(struct batcher *batcher, size_t batch, int32_t *tokens, uint8_t *targets)
{
    struct batcher *b = batcher;
    for (size_t row = 0; row < batch; row++) {
        if (b->at.index == b->window_count) {
            b->at.epoch++;
            b->at.index = 0;
            begin_epoch(b);
        }
        copy_window(b, b->windows[b->at.index++], tokens + row * (b->params.time + 1),
                    targets ? targets + row * b->params.time : NULL);
    }
}
