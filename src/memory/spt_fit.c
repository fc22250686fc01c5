/* Fitting the linear ranker: listwise softmax (Cao et al. 2007) over each question's candidates, evidence
 * sharing the mass, sources of equal weight. Convex, so that the minimum does not depend on where it
 * starts. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "memory/context_int.h"
#include "memory/spt_train_int.h"
#include "train/train.h"

#define RATE 0.05
#define BATCH 32
#define LIST_MAX CANDIDATES_MAX

/* How strongly weights are drawn to the hand-made mix: as strongly as sources that were left out want it
 * (docs/MEMORY.md). Resumed dialogues and questions to an assistant differ most from each other. */
static const double decays[TALK_COUNT] = {[TALK_ASSISTANT] = 0.4, [TALK_PEOPLE] = 0.01, [TALK_GROUP] = 1e-4};

struct fit {
    double decay;
    float prior[FEATURE_COUNT];
    double gradient[FEATURE_COUNT], first[FEATURE_COUNT], second[FEATURE_COUNT];
    uint64_t step;
};

/* Adds the example's gradient; returns its loss. */
static double learn(struct fit *fit, const struct spt_example *example, const float *weights)
{
    float scores[LIST_MAX], relevance[LIST_MAX], slopes[LIST_MAX];
    size_t rows[LIST_MAX], count = 0;
    for (size_t i = 0; i < example->count; i++) {
        if (example->relevance[i] < 0)
            continue;
        scores[count] = context_linear(weights, example->features[i]);
        relevance[count] = example->relevance[i];
        rows[count++] = i;
    }
    double loss = loss_listwise(scores, relevance, count, slopes);
    for (size_t i = 0; i < count; i++)
        for (size_t f = 0; f < FEATURE_COUNT; f++)
            fit->gradient[f] += (double)(example->weight * slopes[i] * example->features[rows[i]][f]);
    return loss;
}

static void step(struct fit *fit, float *weights, double rate, double total)
{
    fit->step++;
    double c1 = 1 - pow(0.9, (double)fit->step), c2 = 1 - pow(0.99, (double)fit->step);
    for (size_t f = 0; f < FEATURE_COUNT; f++) {
        double g = fit->gradient[f] / total + fit->decay * (double)(weights[f] - fit->prior[f]);
        fit->first[f] = 0.9 * fit->first[f] + 0.1 * g;
        fit->second[f] = 0.99 * fit->second[f] + 0.01 * g * g;
        weights[f] -= (float)(rate * (fit->first[f] / c1) / (sqrt(fit->second[f] / c2) + 1e-8));
        fit->gradient[f] = 0;
    }
}

double spt_fit(const struct spt_example *examples, size_t all, enum talk talk, size_t epochs, uint64_t seed,
               float *weights, size_t *used)
{
    size_t count = 0;
    struct fit fit = {.decay = decays[talk]};
    struct rng rng;
    rng_init(&rng, seed);
    uint64_t *order = mem_alloc((all + 1) * sizeof *order);
    double mean = 0;
    memcpy(fit.prior, weights, sizeof fit.prior);
    for (size_t i = 0; order && i < all; i++)
        if (examples[i].talk == talk)
            order[count++] = i;
    *used = count;
    for (size_t epoch = 0; order && epoch < epochs; epoch++) {
        rng_shuffle(&rng, order, count);
        double rate = RATE * (1 - (double)epoch / (double)epochs), losses = 0, total = 0, batch = 0;
        for (size_t i = 0; i < count; i++) {
            const struct spt_example *example = &examples[order[i]];
            losses += (double)example->weight * learn(&fit, example, weights);
            total += (double)example->weight;
            batch += (double)example->weight;
            if ((i + 1) % BATCH && i + 1 < count)
                continue;
            step(&fit, weights, rate, batch);
            batch = 0;
        }
        mean = total > 0 ? losses / total : 0;
    }
    mem_free(order);
    return mean;
}
