/* Log probabilities of raw logits, by a log-sum-exp measured from the largest logit, in double. */
#include "model/model.h"

#include <math.h>
#include <string.h>

/* Keeps top[0..len) best first; `item` goes after its equals, which have lower ids. */
static void insert_best(struct candidate *top, size_t *len, size_t cap, struct candidate item)
{
    size_t at = *len;
    while (at > 0 && item.logit > top[at - 1].logit)
        at--;
    if (at == cap)
        return;
    size_t moved = (*len < cap ? *len : cap - 1) - at;
    memmove(&top[at + 1], &top[at], moved * sizeof *top);
    top[at] = item;
    if (*len < cap)
        ++*len;
}

float logits_logprob(const float *logits, size_t n_vocab, int32_t id, struct candidate *top, size_t top_count)
{
    float max = -INFINITY;
    for (size_t i = 0; i < n_vocab; i++)
        max = fmaxf(max, logits[i]); /* passes over NaN */
    double sum = 0;
    size_t len = 0;
    for (size_t i = 0; i < n_vocab; i++) {
        if (isnan(logits[i]))
            continue;
        sum += logits[i] == max ? 1 : (double)expf(logits[i] - max);
        if (top_count && (len < top_count || logits[i] > top[len - 1].logit))
            insert_best(top, &len, top_count, (struct candidate){.id = (int32_t)i, .logit = logits[i]});
    }
    double log_sum = (double)max + log(sum);
    for (size_t i = 0; i < len; i++)
        top[i].p = top[i].logit == max ? (float)-log(sum) : (float)((double)top[i].logit - log_sum);
    for (size_t i = len; i < top_count; i++)
        top[i] = (struct candidate){.id = -1, .logit = -INFINITY, .p = -INFINITY};
    if (id < 0 || (size_t)id >= n_vocab || isnan(logits[id]))
        return -INFINITY;
    return logits[id] == max ? (float)-log(sum) : (float)((double)logits[id] - log_sum);
}
