/* Pruning in a trainer: gradients of windows of its data say what matters, and the smaller decoder takes the
 * larger one's place, with fresh moments. */
#include <math.h>
#include <string.h>

#include "train/prune.h"
#include "train/trainer_int.h"

/* Columns of a share are rounded to what Q8_0's blocks of 32 fit. */
#define SHARE_FF_MULTIPLE ((size_t)32)

static size_t share_of(double keep, size_t count, size_t multiple)
{
    size_t kept = (size_t)(keep * (double)count / (double)multiple + 0.5) * multiple;
    return kept < multiple ? multiple : kept;
}

static void resolve(const struct decoder_config *c, const struct prune_params *p, size_t *heads, size_t *ff)
{
    size_t group = c->heads / c->kv_heads;
    *heads = p->heads ? p->heads : share_of(p->keep, c->heads, group);
    *ff = p->ff ? p->ff : c->ff;
    if (p->ff == 0 && p->keep < 1)
        *ff = share_of(p->keep, c->ff, c->ff < SHARE_FF_MULTIPLE ? PRUNE_FF_MULTIPLE : SHARE_FF_MULTIPLE);
}

/* Each window is a batch of its own. */
static void add_window(struct trainer *t, struct saliency *saliency)
{
    size_t time = t->params.time;
    mix_next(&t->mix, 1, time, t->windows, t->flags);
    for (size_t i = 0; i < time; i++)
        t->targets[i] = t->flags[i] ? t->windows[i + 1] : -1;
    loss_weights_token_mean(t->targets, time, t->weights);
    const struct decoder_batch batch = {
        .batch = 1, .time = time, .tokens = t->windows, .targets = t->targets, .weights = t->weights};
    decoder_clear_gradients(t->decoder);
    decoder_accumulate(t->decoder, &batch);
    saliency_add(saliency, t->decoder);
}

enum ph_status trainer_prune(struct trainer *t, const struct prune_params *p,
                             void (*progress)(void *ud, uint64_t done, uint64_t total), void *ud,
                             struct ph_err *err)
{
    struct saliency saliency;
    struct decoder *smaller = NULL;
    size_t heads, ff;
    if (!(p->keep > 0 && p->keep <= 1) || p->windows == 0)
        return ph_fail(err, PH_ERR_ARG, "a share of %g can't be kept by the gradients of %llu windows",
                       p->keep, (unsigned long long)p->windows);
    if (ranks_count(t->ranks) > 1)
        return ph_fail(err, PH_ERR_UNSUPPORTED, "one process prunes, not several together");
    enum ph_status status = saliency_init(&saliency, t->decoder, err);
    if (status != PH_OK)
        return status;
    resolve(decoder_config(t->decoder), p, &heads, &ff);
    for (uint64_t i = 0; i < p->windows; i++) {
        add_window(t, &saliency);
        if (progress)
            progress(ud, i + 1, p->windows);
    }
    status =
        decoder_prune(&smaller, t->pool, t->decoder, &saliency, heads, ff, t->share, t->params.time, err);
    saliency_release(&saliency);
    if (status != PH_OK)
        return status;
    size_t bytes = decoder_len(smaller) * sizeof(float);
    memset(t->adamw.m, 0, bytes);
    memset(t->adamw.v, 0, bytes);
    decoder_free(t->decoder);
    t->decoder = smaller;
    t->params.model = *decoder_config(smaller);
    return PH_OK;
}
