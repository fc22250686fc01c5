/* From verdicts to a threshold.
 *
 * The quality of a cheap answer is taken to rise with its confidence and to be nothing else in particular:
 * isotonic regression over its verdicts, a step function. Between two verdicts the lower one's step holds.
 * The quality of a dear answer is its verdicts' mean. With the confidences of all recent answers, judged by
 * people or not, each threshold then has an expected quality, a share escalated, and a spend.
 *
 * A threshold admits answers down to itself. Where nearly no cheap answer was ever judged (mostly below the
 * threshold that was in force) nothing is known of them, so no threshold is offered there.
 *
 * How far to trust the quality: verdicts are drawn again with replacement, BOOTSTRAPS times, with a generator
 * of a fixed seed, so that the same files give the same answer. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "gateway/verdict.h"

#define BOOTSTRAPS 200
#define BOOTSTRAP_SEED 1
#define LOW_QUANTILE 0.05
#define EDGE 5 /* verdicts that must lie below the lowest threshold */
#define MONTH_S (30.0 * 86400)
#define SPAN_MIN_S 3600.0

void verdict_isotonic(double *values, double *weights, size_t *lengths, size_t count)
{
    size_t blocks = 0;
    for (size_t i = 0; i < count; i++) {
        double value = values[i], weight = weights[i];
        size_t length = 1;
        for (; blocks && values[blocks - 1] >= value; blocks--) {
            double sum = weights[blocks - 1] + weight;
            value = (values[blocks - 1] * weights[blocks - 1] + value * weight) / sum;
            weight = sum;
            length += lengths[blocks - 1];
        }
        values[blocks] = value;
        weights[blocks] = weight;
        lengths[blocks++] = length;
    }
    /* A block's values lie at or after its own place: from behind, nothing is overwritten that is needed. */
    for (size_t at = count; blocks-- > 0;) {
        double value = values[blocks];
        for (size_t k = lengths[blocks]; k > 0; k--)
            values[--at] = value;
    }
}

struct fit {
    const struct verdict_data *data;
    struct verdict_curve *curve;
    size_t group_count; /* cheap verdicts of one confidence are one group */
    double *confidences, *sums, *weights, *values;
    size_t *group_of, *lengths; /* a cheap verdict's group; scratch */
    double *cheap, *dear;       /* qualities of the verdicts */
    size_t cheap_count, dear_count;
    double
        *above; /* [answer_count + 1]: summed quality of the answers from here on, were they not escalated */
    size_t below[VERDICT_POINTS]; /* answers below each threshold */
    double *samples;              /* [count of points][BOOTSTRAPS] */
};

/* ---- Preparing */

static enum ph_status check_amounts(const struct verdict_data *data, struct ph_err *err)
{
    size_t dear = data->verdict_count - data->cheap_count;
    if (data->cheap_count >= VERDICTS_CHEAP_MIN && dear >= VERDICTS_DEAR_MIN &&
        data->answer_count >= VERDICT_ANSWERS_MIN)
        return PH_OK;
    return ph_fail(
        err, PH_ERR_NOTFOUND,
        "too little is known: %zu verdicts on cheap answers (%d are needed), %zu on escalated ones "
        "(%d), %zu judged answers (%d); send more with POST /v1/feedback",
        data->cheap_count, VERDICTS_CHEAP_MIN, dear, VERDICTS_DEAR_MIN, data->answer_count,
        VERDICT_ANSWERS_MIN);
}

static bool allocate(struct fit *fit)
{
    size_t n = fit->data->verdict_count, points = fit->curve->count;
    fit->confidences = mem_calloc(n, sizeof(double));
    fit->sums = mem_calloc(n, sizeof(double));
    fit->weights = mem_calloc(n, sizeof(double));
    fit->values = mem_calloc(n, sizeof(double));
    fit->group_of = mem_calloc(n, sizeof(size_t));
    fit->lengths = mem_calloc(n, sizeof(size_t));
    fit->cheap = mem_calloc(n, sizeof(double));
    fit->dear = mem_calloc(n, sizeof(double));
    fit->above = mem_calloc(fit->data->answer_count + 1, sizeof(double));
    fit->samples = mem_calloc(points * BOOTSTRAPS, sizeof(double));
    return fit->confidences && fit->sums && fit->weights && fit->values && fit->group_of && fit->lengths &&
           fit->cheap && fit->dear && fit->above && fit->samples;
}

static void release(struct fit *fit)
{
    mem_free(fit->confidences);
    mem_free(fit->sums);
    mem_free(fit->weights);
    mem_free(fit->values);
    mem_free(fit->group_of);
    mem_free(fit->lengths);
    mem_free(fit->cheap);
    mem_free(fit->dear);
    mem_free(fit->above);
    mem_free(fit->samples);
}

static void group(struct fit *fit)
{
    for (size_t i = 0; i < fit->data->verdict_count; i++) {
        const struct verdict *verdict = &fit->data->verdicts[i];
        if (!verdict->is_cheap) {
            fit->dear[fit->dear_count++] = verdict->quality;
            continue;
        }
        if (!fit->group_count || fit->confidences[fit->group_count - 1] < verdict->confidence)
            fit->confidences[fit->group_count++] = verdict->confidence;
        fit->group_of[fit->cheap_count] = fit->group_count - 1;
        fit->cheap[fit->cheap_count++] = verdict->quality;
    }
}

static double threshold_at(size_t i)
{
    return (double)i / (VERDICT_POINTS - 1);
}

/* From the lowest one with EDGE cheap verdicts below or at it. */
static void place_points(struct verdict_curve *curve, const struct verdict_data *data)
{
    size_t seen = 0, first = 0;
    double edge = 1;
    for (size_t i = 0; i < data->verdict_count && seen < EDGE; i++)
        if (data->verdicts[i].is_cheap && ++seen == EDGE)
            edge = data->verdicts[i].confidence;
    while (first < VERDICT_POINTS - 1 && threshold_at(first) < edge)
        first++;
    curve->count = VERDICT_POINTS - first;
    for (size_t i = 0; i < curve->count; i++)
        curve->points[i] = (struct verdict_point){.threshold = threshold_at(first + i)};
}

static void count_below(struct fit *fit)
{
    const struct verdict_data *data = fit->data;
    size_t at = 0;
    for (size_t i = 0; i < fit->curve->count; i++) {
        while (at < data->answer_count && data->answers[at].confidence < fit->curve->points[i].threshold)
            at++;
        fit->below[i] = at;
    }
}

/* ---- Quality */

/* sums and weights of the groups to the quality at each point. */
static void evaluate(struct fit *fit, double dear, double *out, size_t stride)
{
    const struct verdict_data *data = fit->data;
    size_t kept = 0, step = 0, n = data->answer_count;
    for (size_t g = 0; g < fit->group_count; g++)
        if (fit->weights[g] > 0) {
            fit->values[kept] = fit->sums[g] / fit->weights[g];
            fit->sums[kept] = fit->confidences[g]; /* its own sum is spent */
            fit->weights[kept++] = fit->weights[g];
        }
    verdict_isotonic(fit->values, fit->weights, fit->lengths, kept);
    for (size_t i = 0; i < n; i++) {
        while (step + 1 < kept && fit->sums[step + 1] <= data->answers[i].confidence)
            step++;
        fit->above[i] = fit->values[step];
    }
    fit->above[n] = 0;
    for (size_t i = n; i-- > 0;)
        fit->above[i] += fit->above[i + 1];
    for (size_t p = 0; p < fit->curve->count; p++)
        out[p * stride] = (fit->above[fit->below[p]] + (double)fit->below[p] * dear) / (double)n;
}

static void clear_groups(struct fit *fit)
{
    memset(fit->sums, 0, fit->group_count * sizeof *fit->sums);
    memset(fit->weights, 0, fit->group_count * sizeof *fit->weights);
}

static void expect(struct fit *fit)
{
    double quality[VERDICT_POINTS], dear = 0;
    clear_groups(fit);
    for (size_t i = 0; i < fit->cheap_count; i++) {
        fit->sums[fit->group_of[i]] += fit->cheap[i];
        fit->weights[fit->group_of[i]] += 1;
    }
    for (size_t i = 0; i < fit->dear_count; i++)
        dear += fit->dear[i];
    evaluate(fit, dear / (double)fit->dear_count, quality, 1);
    for (size_t p = 0; p < fit->curve->count; p++)
        fit->curve->points[p].quality = quality[p];
}

static size_t draw(struct rng *rng, size_t count)
{
    return (size_t)(rng_double(rng) * (double)count);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void find_ranges(struct fit *fit)
{
    struct rng rng;
    rng_init(&rng, BOOTSTRAP_SEED);
    for (size_t b = 0; b < BOOTSTRAPS; b++) {
        double dear = 0;
        clear_groups(fit);
        for (size_t i = 0; i < fit->cheap_count; i++) {
            size_t drawn = draw(&rng, fit->cheap_count);
            fit->sums[fit->group_of[drawn]] += fit->cheap[drawn];
            fit->weights[fit->group_of[drawn]] += 1;
        }
        for (size_t i = 0; i < fit->dear_count; i++)
            dear += fit->dear[draw(&rng, fit->dear_count)];
        evaluate(fit, dear / (double)fit->dear_count, fit->samples + b, BOOTSTRAPS);
    }
    for (size_t p = 0; p < fit->curve->count; p++) {
        double *samples = fit->samples + p * BOOTSTRAPS;
        size_t low = (size_t)(LOW_QUANTILE * BOOTSTRAPS);
        qsort(samples, BOOTSTRAPS, sizeof *samples, compare_doubles);
        fit->curve->points[p].low = samples[low];
        fit->curve->points[p].high = samples[BOOTSTRAPS - 1 - low];
    }
}

/* ---- Spend */

static void find_spend(struct fit *fit, int64_t now_s)
{
    const struct verdict_data *data = fit->data;
    double cheap = 0, dear = 0, span = (double)(now_s - data->first_answer_s);
    size_t dear_count = 0;
    for (size_t i = 0; i < data->answer_count; i++) {
        cheap += data->answers[i].cheap_usd;
        dear += data->answers[i].has_dear ? data->answers[i].dear_usd : 0;
        dear_count += data->answers[i].has_dear;
    }
    double count = (double)data->answer_count;
    fit->curve->answers_month = count * MONTH_S / (span > SPAN_MIN_S ? span : SPAN_MIN_S);
    cheap /= count;
    dear = dear_count ? dear / (double)dear_count : 0;
    for (size_t p = 0; p < fit->curve->count; p++) {
        struct verdict_point *point = &fit->curve->points[p];
        point->escalated = (double)fit->below[p] / count;
        point->usd_month = fit->curve->answers_month * (cheap + point->escalated * dear);
    }
}

enum ph_status verdict_curve_make(struct verdict_curve *curve, const struct verdict_data *data, int64_t now_s,
                                  struct ph_err *err)
{
    struct fit fit = {.data = data, .curve = curve};
    *curve = (struct verdict_curve){.count = 0};
    enum ph_status status = check_amounts(data, err);
    if (status != PH_OK)
        return status;
    place_points(curve, data);
    if (!allocate(&fit)) {
        release(&fit);
        return ph_fail(err, PH_ERR_NOMEM, "no memory for %zu verdicts and %zu answers", data->verdict_count,
                       data->answer_count);
    }
    group(&fit);
    count_below(&fit);
    expect(&fit);
    find_ranges(&fit);
    find_spend(&fit, now_s);
    release(&fit);
    return PH_OK;
}

/* ---- Choosing */

const struct verdict_point *verdict_for_quality(const struct verdict_curve *curve, double quality)
{
    for (size_t i = 0; i < curve->count; i++)
        if (curve->points[i].quality >= quality)
            return &curve->points[i];
    return NULL;
}

const struct verdict_point *verdict_for_spend(const struct verdict_curve *curve, double usd_month)
{
    for (size_t i = curve->count; i-- > 0;)
        if (curve->points[i].usd_month <= usd_month)
            return &curve->points[i];
    return NULL;
}
