/* The output layer fused with its loss, weights of rows, ranking losses.
 *
 * Output. For a chunk of rows: logits = x w^T; each row's softmax in place; minus the target's one, times the
 * row's weight, is the logits' gradient, from which dx and dw follow by two products. */
#include <math.h>

#include "train/train_int.h"

#define CHUNK_ROWS SUM_ROWS

size_t output_scratch_bytes(size_t vocab, size_t d, size_t rows)
{
    return linear_scratch_bytes(d, vocab, CHUNK_ROWS) +
           align_bytes(least(rows, CHUNK_ROWS) * spread_row(vocab) * sizeof(float));
}

static void losses_of_rows(struct lane *lane, float *logits, size_t vocab, const int32_t *targets,
                           const float *weights, size_t rows, float *losses)
{
    size_t first, end;
    while (lane_take(lane, rows, rows_at_once(vocab), &first, &end)) {
        for (size_t r = first; r < end; r++) {
            float *row = logits + r * spread_row(vocab);
            losses[r] = 0;
            if (weights[r] != 0)
                losses[r] = tensor_softmax_loss(lane->kernels, row, vocab, (size_t)targets[r], weights[r]);
            for (size_t i = 0; weights[r] == 0 && i < vocab; i++)
                row[i] = 0;
        }
    }
    lane_barrier(lane);
}

void output_loss(struct lane *lane, const struct output *o, const float *x, const int32_t *targets,
                 const float *weights, size_t rows, float *losses, float *dx, void *scratch)
{
    struct linear l = {.in = o->d,
                       .out = o->vocab,
                       .y_stride = spread_row(o->vocab),
                       .w = o->w,
                       .dw = o->dw,
                       .bf16 = o->bf16};
    float *logits = (float *)(void *)((uint8_t *)scratch + linear_scratch_bytes(o->d, o->vocab, CHUNK_ROWS));
    for (size_t from = 0; from < rows; from += CHUNK_ROWS) {
        size_t count = least(CHUNK_ROWS, rows - from);
        const float *in = x + from * o->d;
        linear_forward(lane, &l, in, count, logits, scratch);
        losses_of_rows(lane, logits, o->vocab, targets + from, weights + from, count, losses + from);
        if (dx)
            linear_backward(lane, &l, in, logits, count, dx + from * o->d, false, scratch);
    }
}

/* ---- Weights of rows ---- */

static size_t predicted(const int32_t *targets, size_t rows)
{
    size_t count = 0;
    for (size_t r = 0; r < rows; r++)
        count += targets[r] >= 0;
    return count;
}

void loss_weights_token_mean(const int32_t *targets, size_t rows, float *weights)
{
    size_t count = predicted(targets, rows);
    for (size_t r = 0; r < rows; r++)
        weights[r] = targets[r] >= 0 ? (float)(1 / (double)count) : 0;
}

static double clipped(float quality)
{
    if (!(quality > LOSS_QUALITY_MIN)) /* NaN too: an example of unknown quality counts least */
        return (double)LOSS_QUALITY_MIN;
    return quality < 1 ? (double)quality : 1;
}

void loss_weights_quality(const int32_t *targets, const float *quality, size_t examples, size_t time,
                          float *weights)
{
    double total = 0;
    for (size_t i = 0; i < examples; i++)
        total += predicted(targets + i * time, time) ? clipped(quality[i]) : 0;
    for (size_t i = 0; i < examples; i++) {
        double share = clipped(quality[i]) / ((double)predicted(targets + i * time, time) * total);
        for (size_t t = 0; t < time; t++)
            weights[i * time + t] = targets[i * time + t] >= 0 ? (float)share : 0;
    }
}

/* ---- Ranking ---- */

double loss_pairwise(const float *better, const float *worse, size_t pairs, float *dbetter, float *dworse)
{
    double loss = 0;
    for (size_t i = 0; i < pairs; i++) {
        double margin = (double)better[i] - (double)worse[i], small = exp(-fabs(margin));
        double slope = (margin > 0 ? small : 1) / (1 + small) / (double)pairs; /* sigmoid(-margin) / pairs */
        loss += log1p(small) + (margin < 0 ? -margin : 0);
        if (dbetter)
            dbetter[i] = (float)-slope;
        if (dworse)
            dworse[i] = (float)slope;
    }
    return pairs ? loss / (double)pairs : 0;
}

double loss_listwise(const float *scores, const float *relevance, size_t count, float *dscores)
{
    double top = -INFINITY, sum = 0, relevant = 0, loss = 0;
    for (size_t i = 0; i < count; i++) {
        top = fmax(top, (double)scores[i]);
        relevant += (double)relevance[i];
    }
    for (size_t i = 0; i < count; i++)
        sum += exp((double)scores[i] - top);
    for (size_t i = 0; i < count; i++) {
        double share = relevant > 0 ? (double)relevance[i] / relevant : 0, p = (double)scores[i] - top;
        loss -= share * (p - log(sum));
        if (dscores)
            dscores[i] = relevant > 0 ? (float)(exp(p) / sum - share) : 0;
    }
    return loss;
}
