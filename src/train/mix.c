/* Several token files as one stream of windows, and held-out windows of all of them. */
#include <inttypes.h>

#include "base/limits.h"
#include "train/corpus_int.h"
#include "train/trainer_int.h"

/* ---- Opening */

static enum ph_status open_source(struct mix_source *s, size_t index, const struct trainer_params *params,
                                  size_t n_vocab, uint64_t vocab_hash, struct ph_err *err)
{
    const char *path = params->sources[index].path;
    struct ph_err inner;
    enum ph_status status = corpus_open(&s->corpus, path, err);
    if (status != PH_OK)
        return status;
    const struct corpus_params *c = corpus_params(s->corpus);
    if (c->vocab_hash != vocab_hash || c->n_vocab != n_vocab)
        return ph_fail(err, PH_ERR_ARG,
                       "%s was made with another tokenizer (%zu tokens, %016" PRIx64 ") than %s (%zu tokens, "
                       "%016" PRIx64 "); make it again with pharos train data --model",
                       path, c->n_vocab, c->vocab_hash, params->tokenizer ? params->tokenizer : params->init,
                       n_vocab, vocab_hash);
    const struct batcher_params batches = {
        .part = CORPUS_TRAIN, .time = params->time, .seed = corpus_mix(params->seed ^ corpus_mix(index + 1))};
    s->identity = corpus_identity(s->corpus);
    status = batcher_create(&s->batcher, s->corpus, &batches, &inner);
    return status == PH_OK
               ? PH_OK
               : ph_fail(err, status, "%s: %s; use a shorter time, or more data", path, inner.message);
}

static enum ph_status share_out(struct mix *mix, const struct trainer_params *params, struct ph_err *err)
{
    double total = 0;
    size_t weighted = 0;
    for (size_t i = 0; i < mix->count; i++)
        weighted += params->sources[i].weight > 0;
    if (weighted > 0 && weighted < mix->count)
        return ph_fail(err, PH_ERR_ARG, "%zu of %zu data files have a weight; give one to all, or to none",
                       weighted, mix->count);
    for (size_t i = 0; i < mix->count; i++) {
        struct mix_source *s = &mix->sources[i];
        mix->windows += batcher_windows(s->batcher);
        s->share = weighted ? params->sources[i].weight : (double)batcher_windows(s->batcher);
        total += s->share;
    }
    for (size_t i = 0; i < mix->count; i++)
        mix->sources[i].share /= total;
    return PH_OK;
}

enum ph_status mix_open(struct mix *mix, const struct trainer_params *params, size_t n_vocab,
                        uint64_t vocab_hash, struct ph_err *err)
{
    *mix = (struct mix){0};
    if (params->source_count == 0 || params->source_count > TRAINER_SOURCES_MAX)
        return ph_fail(err, PH_ERR_ARG, "%zu data files are given; give between 1 and %d",
                       params->source_count, TRAINER_SOURCES_MAX);
    mix->sources = mem_calloc(params->source_count, sizeof *mix->sources);
    if (!mix->sources)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for %zu data files", params->source_count);
    enum ph_status status = PH_OK;
    for (; status == PH_OK && mix->count < params->source_count; mix->count++)
        status = open_source(&mix->sources[mix->count], mix->count, params, n_vocab, vocab_hash, err);
    if (status == PH_OK)
        status = share_out(mix, params, err);
    if (status != PH_OK)
        mix_release(mix);
    return status;
}

void mix_release(struct mix *mix)
{
    for (size_t i = 0; i < mix->count; i++) {
        batcher_free(mix->sources[i].batcher);
        corpus_free(mix->sources[i].corpus);
    }
    mem_free(mix->sources);
    *mix = (struct mix){0};
}

/* ---- Windows to train on */

uint64_t mix_source_given(const struct mix_source *s)
{
    struct batcher_position at = batcher_position(s->batcher);
    return at.epoch * batcher_windows(s->batcher) + at.index;
}

uint64_t mix_given(const struct mix *mix)
{
    uint64_t given = 0;
    for (size_t i = 0; i < mix->count; i++)
        given += mix_source_given(&mix->sources[i]);
    return given;
}

static struct batcher *furthest_behind(const struct mix *mix)
{
    uint64_t given[TRAINER_SOURCES_MAX], total = 1;
    double most = 0;
    size_t chosen = 0;
    for (size_t i = 0; i < mix->count; i++) {
        given[i] = mix_source_given(&mix->sources[i]) - mix->sources[i].begun;
        total += given[i];
    }
    for (size_t i = 0; i < mix->count; i++) {
        double behind = mix->sources[i].share * (double)total - (double)given[i];
        if (i == 0 || behind > most) {
            most = behind;
            chosen = i;
        }
    }
    return mix->sources[chosen].batcher;
}

void mix_next(struct mix *mix, size_t rows, size_t time, int32_t *tokens, uint8_t *targets)
{
    for (size_t row = 0; row < rows; row++)
        batcher_next(furthest_behind(mix), 1, tokens + row * (time + 1), targets + row * time);
}

/* ---- Windows to validate on */

static enum ph_status take_windows(struct window_set *set, const struct mix_source *s, size_t time,
                                   size_t count, struct ph_err *err)
{
    struct batcher *batcher;
    const struct batcher_params params = {.part = CORPUS_HELD_OUT, .time = time, .ordered = true};
    enum ph_status status = batcher_create(&batcher, s->corpus, &params, err);
    if (status != PH_OK)
        return status;
    uint64_t all = batcher_windows(batcher);
    for (size_t i = 0; status == PH_OK && i < count; i++) {
        struct batcher_position at = {.index = (uint64_t)((double)i * (double)all / (double)count)};
        status = count < all ? batcher_seek(batcher, at, err) : PH_OK;
        if (status == PH_OK)
            batcher_next(batcher, 1, set->tokens + set->count * (time + 1), set->targets + set->count * time);
        set->count += status == PH_OK;
    }
    batcher_free(batcher);
    return status;
}

static size_t windows_of(const struct mix_source *s, size_t time, size_t count)
{
    size_t there = (size_t)corpus_windows(corpus_totals(s->corpus, CORPUS_HELD_OUT)->tokens, time);
    size_t wanted = there;
    if ((double)count * s->share < (double)there)
        wanted = (size_t)((double)count * s->share + 0.5);
    if (wanted == 0 && count > 0)
        wanted = 1;
    return wanted < there ? wanted : there;
}

enum ph_status window_set_open(struct window_set *set, const struct mix *mix, size_t time, size_t count,
                               struct ph_err *err)
{
    size_t total = 0;
    enum ph_status status = PH_OK;
    *set = (struct window_set){0};
    for (size_t i = 0; i < mix->count; i++)
        total += windows_of(&mix->sources[i], time, count);
    if (total == 0)
        return PH_OK;
    set->tokens = mem_calloc(total, (time + 1) * sizeof *set->tokens);
    set->targets = mem_calloc(total, time);
    if (!set->tokens || !set->targets) {
        window_set_release(set);
        return ph_fail(err, PH_ERR_NOMEM, "no memory for %zu windows of validation", total);
    }
    for (size_t i = 0; status == PH_OK && i < mix->count; i++) {
        size_t wanted = windows_of(&mix->sources[i], time, count);
        if (wanted > 0)
            status = take_windows(set, &mix->sources[i], time, wanted, err);
    }
    if (status != PH_OK)
        window_set_release(set);
    return status;
}

void window_set_release(struct window_set *set)
{
    mem_free(set->tokens);
    mem_free(set->targets);
    *set = (struct window_set){0};
}
