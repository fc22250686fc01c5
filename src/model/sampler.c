/* Sampling: from a row of logits to a token.
 *
 * sampler_create takes all memory there will be: a candidate a token, and, when penalties are on, a counter a
 * token and the window of the last tokens. sampler_sample copies the logits into candidates and runs the
 * chain (candidates.c) over them. Plain greedy sampling needs no candidates and takes one pass.
 *
 * Equal parameters, seed, history and logits give equal tokens: nothing else goes in. */
#include "base/limits.h"
#include "base/mem.h"
#include "model/sampler_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct sampler {
    struct sampler_params params; /* bias points to our copy */
    size_t n_vocab;
    struct candidate_set set;
    struct rng rng;
    bool penalizes;
    uint32_t *counts; /* [n_vocab] occurrences in the window; NULL when nothing is penalized */
    int32_t *window;  /* ring of the last window_cap tokens; NULL when the window is everything */
    size_t window_cap, window_len, window_head;
};

void sampler_params_default(struct sampler_params *params)
{
    *params = (struct sampler_params){
        .temperature = 1, .top_p = 1, .typical_p = 1, .top_n_sigma = -1, .repeat_penalty = 1};
}

static enum ph_status check_params(const struct sampler_params *p, size_t n_vocab, struct ph_err *err)
{
    const struct {
        const char *name;
        float value;
    } numbers[] = {
        {"temperature", p->temperature},
        {"top_p", p->top_p},
        {"min_p", p->min_p},
        {"typical_p", p->typical_p},
        {"top_n_sigma", p->top_n_sigma},
        {"repeat_penalty", p->repeat_penalty},
        {"frequency_penalty", p->frequency_penalty},
        {"presence_penalty", p->presence_penalty},
    };
    if (n_vocab == 0 || n_vocab > VOCAB_TOKENS_MAX)
        return ph_fail(err, PH_ERR_ARG, "a vocabulary of %zu tokens cannot be sampled from", n_vocab);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!isfinite(numbers[i].value))
            return ph_fail(err, PH_ERR_ARG, "%s must be a finite number", numbers[i].name);
    if (p->repeat_penalty <= 0)
        return ph_fail(err, PH_ERR_ARG, "repeat_penalty must be above 0, 1 turns it off");
    if (p->penalty_last_n < -1)
        return ph_fail(err, PH_ERR_ARG, "penalty_last_n must be -1 (all), 0 (none) or a number of tokens");
    if (p->top_k < 0)
        return ph_fail(err, PH_ERR_ARG, "top_k must be 0 (off) or a number of tokens");
    for (size_t i = 0; i < p->bias_count; i++) {
        int32_t id = p->bias[i].id;
        if (id < 0 || (size_t)id >= n_vocab)
            return ph_fail(err, PH_ERR_ARG, "logit_bias names token %d; the model has ids 0 to %zu", id,
                           n_vocab - 1);
        if (isnan(p->bias[i].bias))
            return ph_fail(err, PH_ERR_ARG, "logit_bias of token %d is not a number", id);
    }
    return PH_OK;
}

static bool penalizes(const struct sampler_params *p)
{
    bool off = p->repeat_penalty == 1 && p->frequency_penalty == 0 && p->presence_penalty == 0;
    return !off && p->penalty_last_n != 0;
}

static bool allocate(struct sampler *sampler)
{
    const struct sampler_params *p = &sampler->params;
    struct logit_bias *bias = mem_calloc(p->bias_count + 1, sizeof *bias);
    if (bias && p->bias_count)
        memcpy(bias, p->bias, p->bias_count * sizeof *bias);
    sampler->params.bias = bias;
    sampler->set.items = mem_calloc(sampler->n_vocab, sizeof *sampler->set.items);
    if (!bias || !sampler->set.items)
        return false;
    if (!sampler->penalizes)
        return true;
    sampler->counts = mem_calloc(sampler->n_vocab, sizeof *sampler->counts);
    if (p->penalty_last_n > 0 && p->penalty_last_n < (int32_t)MODEL_CONTEXT_MAX) {
        sampler->window_cap = (size_t)p->penalty_last_n;
        sampler->window = mem_calloc(sampler->window_cap, sizeof *sampler->window);
        return sampler->counts && sampler->window;
    }
    return sampler->counts != NULL; /* no context is longer: the window is everything */
}

enum ph_status sampler_create(struct sampler **out, const struct sampler_params *params, size_t n_vocab,
                              struct ph_err *err)
{
    *out = NULL;
    enum ph_status status = check_params(params, n_vocab, err);
    if (status != PH_OK)
        return status;
    struct sampler *sampler = mem_calloc(1, sizeof *sampler);
    if (!sampler)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a sampler");
    sampler->params = *params;
    sampler->n_vocab = n_vocab;
    sampler->penalizes = penalizes(params);
    rng_init(&sampler->rng, params->seed);
    if (!allocate(sampler)) {
        sampler_free(sampler);
        return ph_fail(err, PH_ERR_NOMEM, "no memory for sampling from %zu tokens", n_vocab);
    }
    *out = sampler;
    return PH_OK;
}

void sampler_free(struct sampler *sampler)
{
    if (!sampler)
        return;
    mem_free((void *)sampler->params.bias);
    mem_free(sampler->set.items);
    mem_free(sampler->counts);
    mem_free(sampler->window);
    mem_free(sampler);
}

void sampler_accept(struct sampler *sampler, int32_t id)
{
    if (!sampler->penalizes || id < 0 || (size_t)id >= sampler->n_vocab)
        return;
    sampler->counts[id]++;
    if (!sampler->window)
        return;
    if (sampler->window_len == sampler->window_cap)
        sampler->counts[sampler->window[sampler->window_head]]--;
    else
        sampler->window_len++;
    sampler->window[sampler->window_head] = id;
    sampler->window_head = (sampler->window_head + 1) % sampler->window_cap;
}

static int32_t best_of(const float *logits, size_t n_vocab)
{
    int32_t best = -1;
    float best_logit = -INFINITY;
    for (size_t i = 0; i < n_vocab; i++) {
        if (logits[i] > best_logit) {
            best_logit = logits[i];
            best = (int32_t)i;
        }
    }
    return best;
}

static bool is_plain_greedy(const struct sampler *sampler)
{
    const struct sampler_params *p = &sampler->params;
    return p->temperature <= 0 && p->bias_count == 0 && p->typical_p >= 1 && !sampler->penalizes;
}

static void run_chain(struct sampler *sampler, const float *logits)
{
    const struct sampler_params *p = &sampler->params;
    struct candidate_set *set = &sampler->set;
    candidates_load(set, logits, sampler->n_vocab);
    candidates_bias(set, p->bias, p->bias_count);
    if (sampler->penalizes)
        candidates_penalize(set, sampler->counts, p->repeat_penalty, p->frequency_penalty,
                            p->presence_penalty);
    candidates_top_n_sigma(set, p->top_n_sigma);
    candidates_top_k(set, (size_t)p->top_k);
    candidates_typical(set, p->typical_p, 1);
    candidates_top_p(set, p->top_p, 1);
    candidates_min_p(set, p->min_p, 1);
    candidates_temperature(set, p->temperature);
    candidates_softmax(set);
}

static int32_t draw(struct sampler *sampler)
{
    const struct candidate_set *set = &sampler->set;
    if (set->len <= 1)
        return set->len ? set->items[0].id : -1;
    double total = 0;
    for (size_t i = 0; i < set->len; i++)
        total += (double)set->items[i].p;
    double left = rng_double(&sampler->rng) * total;
    size_t chosen = 0;
    for (size_t i = 0; i < set->len; i++) {
        if (set->items[i].p <= 0)
            continue;
        chosen = i; /* rounding may leave a little over after the last: then it is the last */
        left -= (double)set->items[i].p;
        if (left < 0)
            break;
    }
    return set->items[chosen].id;
}

int32_t sampler_sample(struct sampler *sampler, const float *logits)
{
    if (is_plain_greedy(sampler)) {
        int32_t best = best_of(logits, sampler->n_vocab);
        sampler->set.len = best >= 0;
        sampler->set.items[0] = (struct candidate){.id = best, .logit = best < 0 ? 0 : logits[best], .p = 1};
        return best;
    }
    run_chain(sampler, logits);
    return draw(sampler);
}

static int by_id(const void *a, const void *b)
{
    int32_t x = ((const struct candidate *)a)->id, y = ((const struct candidate *)b)->id;
    return (x > y) - (x < y);
}

const struct candidate *sampler_candidates(const struct sampler *sampler, size_t *count)
{
    *count = sampler->set.len;
    qsort(sampler->set.items, sampler->set.len, sizeof *sampler->set.items, by_id);
    return sampler->set.items;
}
