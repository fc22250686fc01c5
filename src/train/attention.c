/* Softmax attention, one sequence's group of heads (those that share keys and values) at a time.
 *
 * Method: for each query position the weights over the keys it can see are one row in the lane's scratch.
 * Backward computes that row again rather than keep batch x heads x time x time of them (Dao et al. 2022),
 * and with g_s = dout . v_s and p the weights takes ds_s = p_s (g_s - sum p g). Keys past the query are never
 * touched where attention is causal. A group belongs to one lane, so sums into dk and dv run over heads and
 * positions in order (L3). */
#include <math.h>
#include <string.h>

#include "train/train_int.h"

/* One sequence's view of q or k: rows are `stride` floats apart. */
struct group {
    const struct lane *lane;
    const struct attention *a;
    const float *q, *k, *v;
    size_t q_stride, kv_stride;
    float scale;
    float *weights, *grads; /* [time] each */
};

static size_t row_bytes(const struct attention *a)
{
    return align_bytes(a->time * sizeof(float));
}

size_t attention_scratch_bytes(const struct attention *a, unsigned lanes)
{
    return 2 * row_bytes(a) * lanes;
}

static struct group group_of(const struct lane *lane, const struct attention *a, const float *q,
                             const float *k, const float *v, void *scratch, size_t index)
{
    size_t q_stride = a->heads * a->head_dim, kv_stride = a->kv_heads * a->head_dim;
    size_t sequence = index / a->kv_heads, kv_head = index % a->kv_heads, shared = a->heads / a->kv_heads;
    uint8_t *mine = (uint8_t *)scratch + 2 * row_bytes(a) * lane->index;
    return (struct group){.lane = lane,
                          .a = a,
                          .q = q + sequence * a->time * q_stride + kv_head * shared * a->head_dim,
                          .k = k + sequence * a->time * kv_stride + kv_head * a->head_dim,
                          .v = v + sequence * a->time * kv_stride + kv_head * a->head_dim,
                          .q_stride = q_stride,
                          .kv_stride = kv_stride,
                          .scale = (float)(1 / sqrt((double)a->head_dim)),
                          .weights = (float *)(void *)mine,
                          .grads = (float *)(void *)(mine + row_bytes(a))};
}

/* The weights of the query at q over the first `seen` keys. */
static void weigh(const struct group *g, const float *q, size_t seen)
{
    for (size_t s = 0; s < seen; s++)
        g->weights[s] = g->scale * tensor_dot(g->lane->kernels, q, g->k + s * g->kv_stride, g->a->head_dim);
    tensor_softmax(g->lane->kernels, g->weights, seen);
}

static void forward_group(const struct group *g, float *out)
{
    size_t shared = g->a->heads / g->a->kv_heads, d = g->a->head_dim;
    for (size_t h = 0; h < shared; h++) {
        for (size_t t = 0; t < g->a->time; t++) {
            size_t at = t * g->q_stride + h * d, seen = g->a->causal ? t + 1 : g->a->time;
            weigh(g, g->q + at, seen);
            memset(out + at, 0, d * sizeof *out);
            for (size_t s = 0; s < seen; s++)
                tensor_axpy(g->lane->kernels, out + at, g->weights[s], g->v + s * g->kv_stride, d);
        }
    }
}

void attention_forward(struct lane *lane, const struct attention *a, const float *q, const float *k,
                       const float *v, float *out, void *scratch)
{
    size_t first, end;
    while (lane_take(lane, a->batch * a->kv_heads, 1, &first, &end)) {
        struct group g = group_of(lane, a, q, k, v, scratch, first);
        forward_group(&g, out + (g.q - q));
    }
    lane_barrier(lane);
}

/* One query: dv_s += p_s dout; dq = sum ds_s k_s; dk_s += ds_s q. */
static void backward_query(const struct group *g, const float *q, const float *dout, size_t seen, float *dq,
                           float *dk, float *dv)
{
    const struct kernels *kernels = g->lane->kernels;
    size_t d = g->a->head_dim;
    weigh(g, q, seen);
    for (size_t s = 0; s < seen; s++)
        g->grads[s] = tensor_dot(kernels, dout, g->v + s * g->kv_stride, d);
    float mean = tensor_dot(kernels, g->weights, g->grads, seen);
    memset(dq, 0, d * sizeof *dq);
    for (size_t s = 0; s < seen; s++) {
        float ds = g->weights[s] * (g->grads[s] - mean) * g->scale;
        tensor_axpy(kernels, dv + s * g->kv_stride, g->weights[s], dout, d);
        tensor_axpy(kernels, dq, ds, g->k + s * g->kv_stride, d);
        tensor_axpy(kernels, dk + s * g->kv_stride, ds, q, d);
    }
}

static void backward_group(const struct group *g, const float *dout, float *dq, float *dk, float *dv)
{
    size_t shared = g->a->heads / g->a->kv_heads, d = g->a->head_dim;
    for (size_t t = 0; t < g->a->time; t++) {
        memset(dk + t * g->kv_stride, 0, d * sizeof *dk);
        memset(dv + t * g->kv_stride, 0, d * sizeof *dv);
    }
    for (size_t h = 0; h < shared; h++) {
        for (size_t t = 0; t < g->a->time; t++) {
            size_t at = t * g->q_stride + h * d, seen = g->a->causal ? t + 1 : g->a->time;
            backward_query(g, g->q + at, dout + at, seen, dq + at, dk, dv);
        }
    }
}

void attention_backward(struct lane *lane, const struct attention *a, const float *q, const float *k,
                        const float *v, const float *dout, float *dq, float *dk, float *dv, void *scratch)
{
    size_t first, end;
    while (lane_take(lane, a->batch * a->kv_heads, 1, &first, &end)) {
        struct group g = group_of(lane, a, q, k, v, scratch, first);
        backward_group(&g, dout + (g.q - q), dq + (g.q - q), dk + (g.k - k), dv + (g.v - v));
    }
    lane_barrier(lane);
}
