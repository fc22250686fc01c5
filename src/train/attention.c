/* Softmax attention, one sequence's group of heads (those that share keys and values) at a time.
 *
 * Method: a tile of queries at once against all the keys that its last one can see, as products of matrices:
 * S = Q K^T, P = softmax of S's rows, O = P V. Keys past the tile are never touched where attention is
 * causal; within the tile's own stretch what a query can't see is zero. Backward makes P again rather than
 * keep batch x heads x time x time of it (Dao et al. 2022), and then
 *   G = dO V^T,  dS = scale P (G - sum of P G),  dQ = dS K,  dV += P^T dO,  dK += dS^T Q.
 * Keys and values are packed once for their group, tiles as they are made.
 *
 * A group belongs to one lane, so sums into dk and dv run over heads and tiles in order (L3). */
#include <math.h>
#include <string.h>

#include "train/train_int.h"

#define TILE ((size_t)32) /* queries */

/* A lane's scratch, one part after the other: packed keys and values, as they are and transposed; a packed
 * tile; scores and their gradients, [TILE][time]. */
struct scratch {
    uint8_t *keys, *values, *keys_across, *values_across, *left, *right;
    float *scores, *grads;
    size_t bytes;
};

/* One sequence's view of a group: rows are `stride` floats apart. */
struct group {
    const struct lane *lane;
    const struct attention *a;
    const float *q, *k, *v;
    size_t q_stride, kv_stride, out_stride;
    float scale;
    struct scratch scratch;
};

/* A tile of one head: queries [first, first + count), which see the keys before `seen` together. */
struct tile {
    size_t first, count, seen;
    size_t at, out_at; /* of the first query's head in q and dq, in out and dout */
};

static uint8_t *part(struct scratch *s, uint8_t *base, size_t bytes)
{
    uint8_t *place = base ? base + s->bytes : NULL;
    s->bytes += align_bytes(bytes);
    return place;
}

static struct scratch scratch_of(const struct attention *a, uint8_t *base)
{
    struct scratch s = {0};
    size_t whole = tensor_packed_bytes(a->time + TILE, a->head_dim + TILE);
    size_t tile = most(tensor_packed_bytes(TILE, a->time), tensor_packed_bytes(a->time, TILE));
    size_t scores = TILE * (a->time + TILE) * sizeof(float);
    s.keys = part(&s, base, whole);
    s.values = part(&s, base, whole);
    s.keys_across = part(&s, base, whole);
    s.values_across = part(&s, base, whole);
    s.left = part(&s, base, most(tile, tensor_packed_bytes(TILE, a->head_dim)));
    s.right = part(&s, base, tensor_packed_bytes(a->head_dim, TILE));
    s.scores = (float *)(void *)part(&s, base, scores);
    s.grads = (float *)(void *)part(&s, base, scores);
    return s;
}

size_t attention_scratch_bytes(const struct attention *a, unsigned lanes)
{
    return scratch_of(a, NULL).bytes * lanes;
}

static struct group group_of(const struct lane *lane, const struct attention *a, const float *q,
                             const float *k, const float *v, void *scratch, size_t index)
{
    size_t q_stride = a->q_stride ? a->q_stride : a->heads * a->head_dim;
    size_t kv_stride = a->kv_stride ? a->kv_stride : a->kv_heads * a->head_dim;
    size_t sequence = index / a->kv_heads, kv_head = index % a->kv_heads, shared = a->heads / a->kv_heads;
    uint8_t *mine = (uint8_t *)scratch + scratch_of(a, NULL).bytes * lane->index;
    return (struct group){.lane = lane,
                          .a = a,
                          .q = q + sequence * a->time * q_stride + kv_head * shared * a->head_dim,
                          .k = k + sequence * a->time * kv_stride + kv_head * a->head_dim,
                          .v = v + sequence * a->time * kv_stride + kv_head * a->head_dim,
                          .q_stride = q_stride,
                          .kv_stride = kv_stride,
                          .out_stride = a->heads * a->head_dim,
                          .scale = (float)(1 / sqrt((double)a->head_dim)),
                          .scratch = scratch_of(a, mine)};
}

/* Where a group begins in out and dout. */
static size_t out_place(const struct attention *a, size_t index)
{
    size_t sequence = index / a->kv_heads, shared = a->heads / a->kv_heads;
    return (sequence * a->time * a->heads + index % a->kv_heads * shared) * a->head_dim;
}

/* Tiles of all the group's heads in order; false: no more. Begin with a tile of zeros. */
static bool next_tile(const struct group *g, size_t *head, struct tile *t)
{
    size_t first = t->first + t->count;
    if (first >= g->a->time) {
        first = 0;
        ++*head;
    }
    if (*head >= g->a->heads / g->a->kv_heads)
        return false;
    t->first = first;
    t->count = least(TILE, g->a->time - first);
    t->seen = g->a->causal ? first + t->count : g->a->time;
    t->at = first * g->q_stride + *head * g->a->head_dim;
    t->out_at = first * g->out_stride + *head * g->a->head_dim;
    return true;
}

/* ---- Packing and products ---- */

static struct operand rows_of(const float *data, size_t rows, size_t depth, size_t stride)
{
    return (struct operand){.data = data, .rows = rows, .depth = depth, .stride = stride};
}

static struct operand columns_of(const float *data, size_t rows, size_t depth, size_t stride)
{
    return (struct operand){.data = data, .rows = rows, .depth = depth, .stride = stride, .across = true};
}

static void pack_right(const struct group *g, struct operand o, void *to)
{
    tensor_pack_right(g->lane->kernels, &o, g->a->bf16, to);
}

/* c = (+=) a left operand times a packed right one. */
static void multiply(const struct group *g, struct operand left, const void *right, size_t columns,
                     size_t right_depth, float *c, size_t c_stride, bool add)
{
    tensor_multiply_packed(g->lane->kernels, &(struct packed_product){.left = left,
                                                                      .right = right,
                                                                      .columns = columns,
                                                                      .right_depth = right_depth,
                                                                      .accumulate = add,
                                                                      .bf16 = g->a->bf16,
                                                                      .c = c,
                                                                      .c_stride = c_stride,
                                                                      .workspace = g->scratch.left});
}

/* ---- Forward ---- */

/* P of the tile's queries, zero where a query can't see. */
static void weigh(const struct group *g, const struct tile *t)
{
    const struct attention *a = g->a;
    multiply(g, rows_of(g->q + t->at, t->count, a->head_dim, g->q_stride), g->scratch.keys, t->seen,
             a->head_dim, g->scratch.scores, t->seen, false);
    for (size_t i = 0; i < t->count; i++) {
        float *row = g->scratch.scores + i * t->seen;
        size_t seen = a->causal ? t->first + i + 1 : t->seen;
        tensor_softmax_scaled(g->lane->kernels, row, seen, g->scale);
        memset(row + seen, 0, (t->seen - seen) * sizeof *row);
    }
}

static void forward_group(const struct group *g, float *out)
{
    const struct attention *a = g->a;
    struct tile t = {0};
    size_t head = 0;
    pack_right(g, rows_of(g->k, a->time, a->head_dim, g->kv_stride), g->scratch.keys);
    pack_right(g, columns_of(g->v, a->head_dim, a->time, g->kv_stride), g->scratch.values_across);
    while (next_tile(g, &head, &t)) {
        weigh(g, &t);
        multiply(g, rows_of(g->scratch.scores, t.count, t.seen, t.seen), g->scratch.values_across,
                 a->head_dim, a->time, out + t.out_at, g->out_stride, false);
    }
}

void attention_forward(struct lane *lane, const struct attention *a, const float *q, const float *k,
                       const float *v, float *out, void *scratch)
{
    size_t first, end;
    while (lane_take(lane, a->batch * a->kv_heads, 1, &first, &end)) {
        struct group g = group_of(lane, a, q, k, v, scratch, first);
        forward_group(&g, out + out_place(a, first));
    }
    lane_barrier(lane);
}

/* ---- Backward ---- */

/* dk or dv [seen] += scores^T x, where the tile's scores are P or dS and x is dout or q. */
static void add_up(const struct group *g, const struct tile *t, const float *scores, struct operand x,
                   float *to)
{
    const struct attention *a = g->a;
    pack_right(g, x, g->scratch.right);
    multiply(g, columns_of(scores, t->seen, t->count, t->seen), g->scratch.right, a->head_dim, t->count, to,
             g->kv_stride, true);
}

static void backward_tile(const struct group *g, const struct tile *t, const float *dout, float *dq,
                          float *dk, float *dv)
{
    const struct attention *a = g->a;
    const struct scratch *s = &g->scratch;
    weigh(g, t);
    add_up(g, t, s->scores, columns_of(dout + t->out_at, a->head_dim, t->count, g->out_stride), dv);
    multiply(g, rows_of(dout + t->out_at, t->count, a->head_dim, g->out_stride), s->values, t->seen,
             a->head_dim, s->grads, t->seen, false);
    for (size_t i = 0; i < t->count; i++)
        tensor_softmax_backward(g->lane->kernels, s->scores + i * t->seen, s->grads + i * t->seen, t->seen,
                                g->scale);
    add_up(g, t, s->grads, columns_of(g->q + t->at, a->head_dim, t->count, g->q_stride), dk);
    multiply(g, rows_of(s->grads, t->count, t->seen, t->seen), s->keys_across, a->head_dim, a->time,
             dq + t->at, g->q_stride, false);
}

static void backward_group(const struct group *g, const float *dout, float *dq, float *dk, float *dv)
{
    const struct attention *a = g->a;
    struct tile t = {0};
    size_t head = 0;
    for (size_t i = 0; i < a->time; i++) {
        memset(dk + i * g->kv_stride, 0, a->head_dim * sizeof *dk);
        memset(dv + i * g->kv_stride, 0, a->head_dim * sizeof *dv);
    }
    pack_right(g, rows_of(g->k, a->time, a->head_dim, g->kv_stride), g->scratch.keys);
    pack_right(g, columns_of(g->k, a->head_dim, a->time, g->kv_stride), g->scratch.keys_across);
    pack_right(g, rows_of(g->v, a->time, a->head_dim, g->kv_stride), g->scratch.values);
    while (next_tile(g, &head, &t))
        backward_tile(g, &t, dout, dq, dk, dv);
}

void attention_backward(struct lane *lane, const struct attention *a, const float *q, const float *k,
                        const float *v, const float *dout, float *dq, float *dk, float *dv, void *scratch)
{
    size_t first, end;
    while (lane_take(lane, a->batch * a->kv_heads, 1, &first, &end)) {
        struct group g = group_of(lane, a, q, k, v, scratch, first);
        backward_group(&g, dout + out_place(a, first), dq + (g.q - q), dk + (g.k - k), dv + (g.v - v));
    }
    lane_barrier(lane);
}
