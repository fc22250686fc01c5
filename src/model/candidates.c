/* The stages of the sampling chain: what each keeps of the candidates, and what it does to their logits.
 *
 * The definitions are those of llama.cpp's samplers, which users know by name. None puts the whole vocabulary
 * in order: the best k come from a bounded heap, O(n log k) at worst and about O(n) in practice, and the best
 * whose probabilities sum to p from partitioning like quicksort, but following the mass, O(n) expected. Both
 * work in place. (Sorting a prefix that grows until it holds the mass took 38 ms where this takes 4, for a
 * flat distribution over 150,000 tokens.)
 *
 * Invariants: 1. every logit is finite. 2. A stage never empties a set that had a candidate. 3. Order is
 * total (score, then logit, then lower id first), so results do not depend on how the selection was done. */
#include "model/sampler_int.h"

#include <float.h>
#include <math.h>

#define MASS_ROUNDS_MAX 64 /* partitions before we sort what is left: no input takes quadratic time */
#define MASS_SORTED_MAX 32 /* ranges this small are sorted right away */

static float clamp_finite(float logit)
{
    return logit > FLT_MAX ? FLT_MAX : logit < -FLT_MAX ? -FLT_MAX : logit;
}

void candidates_load(struct candidate_set *set, const float *logits, size_t n_vocab)
{
    size_t len = 0;
    for (size_t i = 0; i < n_vocab; i++) {
        if (!(logits[i] > -INFINITY))
            continue;
        set->items[len++] = (struct candidate){.id = (int32_t)i, .logit = clamp_finite(logits[i])};
    }
    set->len = len;
}

/* ---- selection: `p` is the score ---- */

static bool better(const struct candidate *a, const struct candidate *b)
{
    if (a->p != b->p)
        return a->p > b->p;
    if (a->logit != b->logit)
        return a->logit > b->logit;
    return a->id < b->id;
}

static void swap(struct candidate *a, struct candidate *b)
{
    struct candidate held = *a;
    *a = *b;
    *b = held;
}

/* items[0..len) is a heap with its worst at the root, except that the root may be too good. */
static void sift_down(struct candidate *items, size_t root, size_t len)
{
    for (;;) {
        size_t child = 2 * root + 1;
        if (child >= len)
            return;
        if (child + 1 < len && better(&items[child], &items[child + 1]))
            child++;
        if (!better(&items[root], &items[child]))
            return;
        swap(&items[root], &items[child]);
        root = child;
    }
}

/* Makes items[0..k) the best k of items[0..len), best first. */
static void select_best(struct candidate *items, size_t len, size_t k)
{
    if (k == 0)
        return;
    for (size_t i = k / 2; i-- > 0;)
        sift_down(items, i, k);
    for (size_t i = k; i < len; i++) {
        if (better(&items[i], &items[0])) {
            swap(&items[i], &items[0]);
            sift_down(items, 0, k);
        }
    }
    for (size_t end = k; end-- > 1;) {
        swap(&items[0], &items[end]);
        sift_down(items, 0, end);
    }
}

/* How much of the whole a candidate is: its score, or, when scores mean something else, by its logit. */
static double mass_of(const struct candidate *item, const double *log_sum)
{
    return log_sum ? exp((double)item->logit - *log_sum) : (double)item->p;
}

/* Puts a pivot of items[0..len) where it belongs, better ones before it; returns that index. */
static size_t partition(struct candidate *items, size_t len)
{
    struct candidate *a = &items[0], *b = &items[len / 2], *c = &items[len - 1];
    struct candidate *median = better(a, b) ? (better(b, c)   ? b
                                               : better(a, c) ? c
                                                              : a)
                                            : (better(a, c)   ? a
                                               : better(b, c) ? c
                                                              : b);
    swap(median, &items[len - 1]);
    size_t at = 0;
    for (size_t i = 0; i + 1 < len; i++)
        if (better(&items[i], &items[len - 1]))
            swap(&items[i], &items[at++]);
    swap(&items[at], &items[len - 1]);
    return at;
}

/* Moves to the front the fewest best candidates whose mass reaches p, at least min_keep; returns how many.
 * What stands before `low` is in and has mass `have`; what stands from `high` on is out. */
static size_t reach_mass(struct candidate_set *set, double p, size_t min_keep, const double *log_sum)
{
    size_t low = 0, high = set->len;
    double have = 0;
    for (int round = 0; high - low > MASS_SORTED_MAX && round < MASS_ROUNDS_MAX; round++) {
        size_t at = low + partition(set->items + low, high - low);
        double left = 0;
        for (size_t i = low; i < at; i++)
            left += mass_of(&set->items[i], log_sum);
        if (have + left >= p && at >= min_keep) {
            high = at;
            continue;
        }
        have += left + mass_of(&set->items[at], log_sum);
        low = at + 1;
        if (have >= p && low >= min_keep)
            return low;
    }
    select_best(set->items + low, high - low, high - low);
    while (low < high) {
        have += mass_of(&set->items[low++], log_sum);
        if (have >= p && low >= min_keep)
            break;
    }
    return low;
}

static void score_by_logit(struct candidate_set *set)
{
    for (size_t i = 0; i < set->len; i++)
        set->items[i].p = set->items[i].logit;
}

static void keep_best(struct candidate_set *set, size_t k)
{
    score_by_logit(set);
    select_best(set->items, set->len, k);
    set->len = k;
}

static float max_logit(const struct candidate_set *set)
{
    float max = -INFINITY;
    for (size_t i = 0; i < set->len; i++)
        max = fmaxf(max, set->items[i].logit);
    return max;
}

/* Drops every candidate below the threshold, keeping order. */
static void drop_below(struct candidate_set *set, float threshold)
{
    size_t kept = 0;
    for (size_t i = 0; i < set->len; i++)
        if (set->items[i].logit >= threshold)
            set->items[kept++] = set->items[i];
    set->len = kept;
}

/* ---- stages ---- */

static struct candidate *find_id(struct candidate_set *set, int32_t id)
{
    size_t index = (size_t)id;
    if (index < set->len && set->items[index].id == id)
        return &set->items[index];
    for (size_t i = 0; i < set->len; i++)
        if (set->items[i].id == id)
            return &set->items[i];
    return NULL;
}

void candidates_bias(struct candidate_set *set, const struct logit_bias *bias, size_t count)
{
    bool forbids = false;
    for (size_t i = 0; i < count; i++) {
        struct candidate *item = find_id(set, bias[i].id);
        if (!item)
            continue;
        bool forbidden = bias[i].bias == -INFINITY || item->logit == -INFINITY;
        item->logit = forbidden ? -INFINITY : clamp_finite(item->logit + bias[i].bias);
        forbids = forbids || forbidden;
    }
    if (forbids)
        drop_below(set, -FLT_MAX);
}

void candidates_penalize(struct candidate_set *set, const uint32_t *counts, float repeat, float frequency,
                         float presence)
{
    for (size_t i = 0; i < set->len; i++) {
        struct candidate *item = &set->items[i];
        uint32_t count = counts[item->id];
        if (count == 0)
            continue;
        float logit = item->logit <= 0 ? item->logit * repeat : item->logit / repeat;
        item->logit = clamp_finite(logit - (float)count * frequency - presence);
    }
}

/* Keeps what lies within n standard deviations of the best logit ("Top-n-sigma", Tang et al. 2024). */
void candidates_top_n_sigma(struct candidate_set *set, float n)
{
    if (n <= 0 || set->len <= 1)
        return;
    double sum = 0, squares = 0;
    for (size_t i = 0; i < set->len; i++)
        sum += (double)set->items[i].logit;
    double mean = sum / (double)set->len;
    for (size_t i = 0; i < set->len; i++) {
        double distance = (double)set->items[i].logit - mean;
        squares += distance * distance;
    }
    double width = (double)n * sqrt(squares / (double)set->len);
    drop_below(set, clamp_finite((float)((double)max_logit(set) - width)));
}

void candidates_top_k(struct candidate_set *set, size_t k)
{
    if (k == 0 || k >= set->len)
        return;
    keep_best(set, k);
}

/* Fills p with probabilities; returns the natural logarithm of what the exponentials summed to. */
static double softmax(struct candidate_set *set)
{
    float max = max_logit(set);
    double sum = 0;
    for (size_t i = 0; i < set->len; i++) {
        float weight = expf(set->items[i].logit - max);
        set->items[i].p = weight;
        sum += (double)weight;
    }
    float scale = (float)(1.0 / sum);
    for (size_t i = 0; i < set->len; i++)
        set->items[i].p *= scale;
    return (double)max + log(sum);
}

void candidates_softmax(struct candidate_set *set)
{
    if (set->len)
        (void)softmax(set);
}

/* Locally typical sampling (Meister et al. 2022): candidates whose surprise is closest to the entropy first,
 * until their probabilities sum to p. */
void candidates_typical(struct candidate_set *set, float p, size_t min_keep)
{
    if (p >= 1 || set->len == 0)
        return;
    double log_sum = softmax(set), entropy = 0;
    for (size_t i = 0; i < set->len; i++)
        entropy += (double)set->items[i].p * (log_sum - (double)set->items[i].logit);
    for (size_t i = 0; i < set->len; i++) {
        double surprise = log_sum - (double)set->items[i].logit;
        set->items[i].p = (float)-fabs(surprise - entropy);
    }
    set->len = reach_mass(set, (double)p, min_keep, &log_sum);
}

void candidates_top_p(struct candidate_set *set, float p, size_t min_keep)
{
    if (p >= 1 || set->len == 0)
        return;
    (void)softmax(set);
    set->len = reach_mass(set, (double)p, min_keep, NULL);
}

void candidates_min_p(struct candidate_set *set, float p, size_t min_keep)
{
    if (p <= 0 || set->len == 0)
        return;
    float threshold = clamp_finite(max_logit(set) + logf(p));
    size_t above = 0;
    for (size_t i = 0; i < set->len; i++)
        above += set->items[i].logit >= threshold;
    if (above > 0 && above >= min_keep) {
        drop_below(set, threshold);
        return;
    }
    size_t least = min_keep > 0 ? min_keep : 1;
    keep_best(set, least < set->len ? least : set->len);
}

/* Logits are measured from the best one, so that no temperature, however small, takes them out of range. */
void candidates_temperature(struct candidate_set *set, float temperature)
{
    if (set->len == 0)
        return;
    if (!(temperature > 0)) {
        keep_best(set, 1);
        return;
    }
    float max = max_logit(set);
    for (size_t i = 0; i < set->len; i++)
        set->items[i].logit = clamp_finite((set->items[i].logit - max) / temperature);
}
