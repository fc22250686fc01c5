/* Attention of several consecutive query positions over the same pages; part of vector_body.h.
 *
 * A page's keys are turned on their side once, so that a vector holds one dimension of many keys, and every
 * query head of every position multiplies with them; the values likewise are made floats once. Query
 * vectors are worked on four at a time, which keeps eight sums in registers.
 *
 * T1 holds because each sum has one order whatever the block: over dimensions ascending for a score, over
 * keys ascending for an output. Keys that a position must not see are left out, not multiplied by zero:
 * what lies there may be anything. */
#define TILE_BLOCK ((size_t)4)

struct tile {
    const struct attn *attn;
    size_t window, group;
    size_t keys_stride, out_stride; /* floats, multiples of VECTOR_LEN */
    float *keys;                    /* [head_dim_k][keys_stride] */
    float *values;                  /* [page_len][out_stride] */
    float *scores;                  /* [TILE_BLOCK][keys_stride] */
    float *out;                     /* [rows * group][out_stride] running sums */
    float *top, *sum;               /* [rows * group] */
    float *row;                     /* one key as floats */
};

struct span {
    size_t from, to; /* keys of a page */
};

static size_t tile_round(size_t n)
{
    return (n + VECTOR_LEN - 1) / VECTOR_LEN * VECTOR_LEN;
}

/* The keys of the page beginning at position `start` that query vector i may see. */
static struct span tile_span(const struct tile *t, size_t i, size_t start)
{
    size_t end = t->attn->both_ways ? t->attn->end : t->attn->end + i / t->group;
    size_t first = t->window && end > t->window ? end - t->window : 0;
    struct span s = {first > start ? first - start : 0, end > start ? end - start : 0};
    if (s.to > t->attn->page_len)
        s.to = t->attn->page_len;
    if (s.from > s.to)
        s.from = s.to;
    return s;
}

static void tile_load_page(const struct tile *t, size_t page, size_t count)
{
    const struct attn *a = t->attn;
    for (size_t key = 0; key < count; key++) {
        const float *row = cache_row(a->type, a->k_pages[page], key, a->head_dim_k, t->row);
        for (size_t j = 0; j < a->head_dim_k; j++)
            t->keys[j * t->keys_stride + key] = row[j];
        float *to = t->values + key * t->out_stride;
        row = cache_row(a->type, a->v_pages[page], key, a->head_dim_v, to);
        if (row != to)
            memcpy(to, row, a->head_dim_v * sizeof *to);
    }
}

#define TILE_INLINE static inline __attribute__((always_inline))

/* Scores of n query vectors with `width` vectors of keys from key c on. */
TILE_INLINE void tile_score_part(const struct tile *t, const float *const *q, size_t n, size_t c,
                                 size_t width)
{
    vf sum[TILE_BLOCK][2] = {{{0}}};
    for (size_t j = 0; j < t->attn->head_dim_k; j++) {
        const float *keys = t->keys + j * t->keys_stride + c;
        for (size_t w = 0; w < width; w++) {
            vf key = load(keys + w * VECTOR_LEN);
            for (size_t m = 0; m < n; m++)
                sum[m][w] = vector_fma(splat(q[m][j]), key, sum[m][w]);
        }
    }
    for (size_t m = 0; m < n; m++)
        for (size_t w = 0; w < width; w++)
            store(t->scores + m * t->keys_stride + c + w * VECTOR_LEN, sum[m][w]);
}

TILE_INLINE void tile_score(const struct tile *t, const float *const *q, size_t n, size_t count)
{
    size_t c = 0;
    for (; c + VECTOR_LEN < count; c += 2 * VECTOR_LEN)
        tile_score_part(t, q, n, c, 2);
    if (c < count)
        tile_score_part(t, q, n, c, 1);
}

/* out += weights * values for n query vectors, `width` vectors of dimensions from c on. */
TILE_INLINE void tile_gather_part(const struct tile *t, float *out, const float *weights, size_t n,
                                  struct span keys, size_t c, size_t width)
{
    vf sum[TILE_BLOCK][2];
    for (size_t m = 0; m < n; m++)
        for (size_t w = 0; w < width; w++)
            sum[m][w] = load(out + m * t->out_stride + c + w * VECTOR_LEN);
    for (size_t k = keys.from; k < keys.to; k++)
        for (size_t w = 0; w < width; w++) {
            vf value = load(t->values + k * t->out_stride + c + w * VECTOR_LEN);
            for (size_t m = 0; m < n; m++)
                sum[m][w] = vector_fma(splat(weights[m * t->keys_stride + k]), value, sum[m][w]);
        }
    for (size_t m = 0; m < n; m++)
        for (size_t w = 0; w < width; w++)
            store(out + m * t->out_stride + c + w * VECTOR_LEN, sum[m][w]);
}

TILE_INLINE void tile_gather(const struct tile *t, float *out, const float *weights, size_t n,
                             struct span keys)
{
    size_t c = 0;
    if (keys.from >= keys.to)
        return;
    for (; c + 2 * VECTOR_LEN <= t->out_stride; c += 2 * VECTOR_LEN)
        tile_gather_part(t, out, weights, n, keys, c, 2);
    if (c < t->out_stride)
        tile_gather_part(t, out, weights, n, keys, c, 1);
}

/* Query vectors [i, i + n): n is TILE_BLOCK or 1, known where this is inlined. */
TILE_INLINE void tile_block(const struct tile *t, const float *const *q, size_t i, size_t n, size_t start,
                            size_t count)
{
    struct span spans[TILE_BLOCK], common = {0, SIZE_MAX};
    float *out = t->out + i * t->out_stride;
    tile_score(t, q, n, count);
    for (size_t m = 0; m < n; m++) {
        struct span s = spans[m] = tile_span(t, i + m, start);
        attend_soften(t->attn, t->scores + m * t->keys_stride + s.from, s.to - s.from, &t->top[i + m],
                      &t->sum[i + m], out + m * t->out_stride, t->out_stride);
        common.from = s.from > common.from ? s.from : common.from;
        common.to = s.to < common.to ? s.to : common.to;
    }
    if (common.from > common.to)
        common.from = common.to;
    for (size_t m = 0; m < n; m++)
        tile_gather(t, out + m * t->out_stride, t->scores + m * t->keys_stride, 1,
                    (struct span){spans[m].from, common.from < spans[m].to ? common.from : spans[m].to});
    tile_gather(t, out, t->scores, n, common);
    for (size_t m = 0; m < n; m++)
        tile_gather(t, out + m * t->out_stride, t->scores + m * t->keys_stride, 1,
                    (struct span){common.to > spans[m].from ? common.to : spans[m].from, spans[m].to});
}

static struct tile tile_make(const struct attn *a, size_t window, size_t rows, size_t group, void *scratch)
{
    struct tile t = {.attn = a,
                     .window = window,
                     .group = group,
                     .keys_stride = tile_round(a->page_len),
                     .out_stride = tile_round(a->head_dim_v)};
    float *at = (float *)(void *)align64((size_t)scratch);
    t.keys = at;
    t.values = t.keys + a->head_dim_k * t.keys_stride;
    t.scores = t.values + a->page_len * t.out_stride;
    t.out = t.scores + TILE_BLOCK * t.keys_stride;
    t.row = t.out + rows * group * t.out_stride;
    t.top = t.row + tile_round(a->head_dim_k);
    t.sum = t.top + rows * group;
    return t;
}

static void tile_begin(const struct tile *t, size_t rows)
{
    size_t vectors = rows * t->group;
    memset(t->out, 0, vectors * t->out_stride * sizeof *t->out);
    memset(t->keys, 0, t->attn->head_dim_k * t->keys_stride * sizeof *t->keys);
    memset(t->values, 0, t->attn->page_len * t->out_stride * sizeof *t->values);
    for (size_t i = 0; i < vectors; i++) {
        t->top[i] = t->attn->sinks ? t->attn->sinks[i % t->group] : -INFINITY;
        t->sum[i] = t->attn->sinks ? 1.0f : 0.0f;
    }
}

static void vector_attend_rows(const struct attn *a, size_t window, const float *q, size_t q_stride,
                               size_t rows, size_t group, float *out, size_t out_stride, void *scratch)
{
    struct tile t = tile_make(a, window, rows, group, scratch);
    size_t vectors = rows * group, last = a->both_ways ? a->end : a->end + rows - 1; /* of the last row */
    size_t first = window && a->end > window ? a->end - window : 0;
    tile_begin(&t, rows);
    for (size_t page = first / a->page_len; page * a->page_len < last; page++) {
        size_t start = page * a->page_len, i = 0;
        size_t count = last - start < a->page_len ? last - start : a->page_len;
        const float *block[TILE_BLOCK];
        tile_load_page(&t, page, count);
        for (; i < vectors; i += vectors - i >= TILE_BLOCK ? TILE_BLOCK : 1) {
            size_t n = vectors - i >= TILE_BLOCK ? TILE_BLOCK : 1;
            for (size_t m = 0; m < n; m++)
                block[m] = q + (i + m) / group * q_stride + (i + m) % group * a->head_dim_k;
            if (n == TILE_BLOCK)
                tile_block(&t, block, i, TILE_BLOCK, start, count);
            else
                tile_block(&t, block, i, 1, start, count);
        }
    }
    for (size_t i = 0; i < vectors; i++) {
        float *to = out + i / group * out_stride + i % group * a->head_dim_v;
        memcpy(to, t.out + i * t.out_stride, a->head_dim_v * sizeof *to);
        if (t.sum[i] > 0.0f)
            vector_scale(to, 1.0f / t.sum[i], a->head_dim_v);
    }
}
