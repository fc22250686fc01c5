/* The set transformer (Lee et al. 2019; blocks with the norm first, as in Xiong et al. 2020): every candidate
 * is a row, rows see each other in every block and have no order, so the result is as good as the set. What
 * comes out is added to the linear ranker's score.
 *
 * Weights are BF16 tensors "set.*" of the selector's file, packed for the products when it is opened; sums,
 * norms and softmax are F32. spt_set_fit.c has the same forward in F32 throughout, and the test holds one
 * against the other. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "memory/spt_set_int.h"
#include "tensor/tensor.h"

#define EPS 1e-5f
#define SCORE_SCALE 0.25f
#define SCORE_LEAST (-4.0f)
#define VECTOR_SCALE (8.0f / (127.0f * 127.0f))
#define HEAD_DIM (SET_WIDTH / SET_HEADS)
#define ALIGNMENT 64

static const struct {
    const char *name;
    size_t rows, cols;
    bool is_matrix;
} outer[SET_BLOCKS] =
    {
        [SET_IN] = {"in.weight", SET_WIDTH, SET_INPUTS, true},
        [SET_IN_BIAS] = {"in.bias", 1, SET_WIDTH, false},
        [SET_NORM] = {"norm.weight", 1, SET_WIDTH, false},
        [SET_NORM_BIAS] = {"norm.bias", 1, SET_WIDTH, false},
        [SET_HEAD] = {"head.weight", 1, SET_WIDTH, true},
},
  inner[SET_BLOCK_SLICES] = {
      [BLOCK_NORM_1] = {"norm1.weight", 1, SET_WIDTH, false},
      [BLOCK_NORM_1_BIAS] = {"norm1.bias", 1, SET_WIDTH, false},
      [BLOCK_QKV] = {"qkv.weight", 3 * SET_WIDTH, SET_WIDTH, true},
      [BLOCK_QKV_BIAS] = {"qkv.bias", 1, 3 * SET_WIDTH, false},
      [BLOCK_OUT] = {"out.weight", SET_WIDTH, SET_WIDTH, true},
      [BLOCK_OUT_BIAS] = {"out.bias", 1, SET_WIDTH, false},
      [BLOCK_NORM_2] = {"norm2.weight", 1, SET_WIDTH, false},
      [BLOCK_NORM_2_BIAS] = {"norm2.bias", 1, SET_WIDTH, false},
      [BLOCK_UP] = {"up.weight", SET_INNER, SET_WIDTH, true},
      [BLOCK_UP_BIAS] = {"up.bias", 1, SET_INNER, false},
      [BLOCK_DOWN] = {"down.weight", SET_WIDTH, SET_INNER, true},
      [BLOCK_DOWN_BIAS] = {"down.bias", 1, SET_WIDTH, false},
};

static void add_slice(struct set_layout *layout, size_t at, const char *name, size_t rows, size_t cols,
                      bool is_matrix)
{
    struct param *slice = &layout->slices[at];
    *slice = (struct param){.rows = rows, .cols = cols, .offset = layout->len, .decay = is_matrix};
    snprintf(slice->name, sizeof slice->name, "%s", name);
    layout->len += rows * cols;
}

void set_layout_make(struct set_layout *layout)
{
    layout->len = 0;
    for (size_t i = 0; i < SET_SLICES; i++) {
        char name[PARAM_NAME_MAX];
        size_t block = i < SET_BLOCKS ? 0 : (i - SET_BLOCKS) / SET_BLOCK_SLICES;
        size_t k = i < SET_BLOCKS ? i : (i - SET_BLOCKS) % SET_BLOCK_SLICES;
        if (i < SET_BLOCKS) {
            snprintf(name, sizeof name, "set.%s", outer[k].name);
            add_slice(layout, i, name, outer[k].rows, outer[k].cols, outer[k].is_matrix);
        } else {
            snprintf(name, sizeof name, "set.%zu.%s", block, inner[k].name);
            add_slice(layout, i, name, inner[k].rows, inner[k].cols, inner[k].is_matrix);
        }
    }
}

void set_read(const struct set_list *list, float *inputs)
{
    float first = -INFINITY;
    for (size_t i = 0; i < list->count; i++)
        first = fmaxf(first, list->scores[i]);
    for (size_t i = 0; i < list->count; i++) {
        float *x = inputs + i * SET_INPUTS;
        memcpy(x, list->features[i], FEATURE_COUNT * sizeof *x);
        x += FEATURE_COUNT;
        *x++ = fmaxf((list->scores[i] - first) * SCORE_SCALE, SCORE_LEAST);
        for (int talk = 0; talk < TALK_COUNT; talk++)
            *x++ = (int)list->talk == talk;
        for (size_t k = 0; k < SPT_WIDTH; k++)
            x[k] = (float)(list->vectors[i][k] * list->query[k]) * VECTOR_SCALE;
    }
}

/* ---- Running ---- */

struct spt_set {
    struct set_layout layout;
    const struct kernels *kernels;
    float *w;                 /* [layout.len] */
    void *packed[SET_SLICES]; /* matrices, as right operands */
};

struct run { /* rows of all candidates */
    const struct spt_set *set;
    size_t count;
    float *x, *y, *wide, *heads, *scores;
    void *right, *left;
};

static const float *weights_at(const struct spt_set *set, size_t slice)
{
    return set->w + set->layout.slices[slice].offset;
}

/* y [count][rows of the slice] = x w^T + the slice behind it */
static void multiply(const struct run *r, size_t slice, const float *x, float *y)
{
    const struct param *p = &r->set->layout.slices[slice];
    const struct packed_product product = {
        .left = {.data = x, .rows = r->count, .depth = p->cols, .stride = p->cols},
        .right = r->set->packed[slice],
        .columns = p->rows,
        .right_depth = p->cols,
        .bf16 = true,
        .c = y,
        .c_stride = p->rows,
        .workspace = r->left};
    tensor_multiply_packed(r->set->kernels, &product);
    for (size_t i = 0; slice != SET_HEAD && i < r->count; i++)
        tensor_add(r->set->kernels, y + i * p->rows, weights_at(r->set, slice + 1), p->rows);
}

static void normalise(const struct run *r, size_t slice, const float *x, float *y)
{
    for (size_t i = 0; i < r->count; i++)
        tensor_layer_norm(r->set->kernels, y + i * SET_WIDTH, x + i * SET_WIDTH, weights_at(r->set, slice),
                          weights_at(r->set, slice + 1), SET_WIDTH, EPS);
}

/* out [count][SET_WIDTH] of rows of queries, keys and values side by side. */
static void attend(const struct run *r, const float *qkv, float *out)
{
    const struct kernels *k = r->set->kernels;
    const size_t stride = 3 * SET_WIDTH;
    for (size_t head = 0; head < SET_HEADS; head++) {
        const float *q = qkv + head * HEAD_DIM;
        const struct operand keys = {
            .data = q + SET_WIDTH, .rows = r->count, .depth = HEAD_DIM, .stride = stride};
        const struct operand values = {
            .data = q + 2 * SET_WIDTH, .rows = HEAD_DIM, .depth = r->count, .stride = stride, .across = true};
        struct packed_product p = {.left = {.data = q, .rows = r->count, .depth = HEAD_DIM, .stride = stride},
                                   .right = r->right,
                                   .columns = r->count,
                                   .right_depth = HEAD_DIM,
                                   .bf16 = true,
                                   .c = r->scores,
                                   .c_stride = r->count,
                                   .workspace = r->left};
        tensor_pack_right(k, &keys, true, r->right);
        tensor_multiply_packed(k, &p);
        for (size_t i = 0; i < r->count; i++)
            tensor_softmax_scaled(k, r->scores + i * r->count, r->count, 1 / sqrtf(HEAD_DIM));
        tensor_pack_right(k, &values, true, r->right);
        p.left = (struct operand){.data = r->scores, .rows = r->count, .depth = r->count, .stride = r->count};
        p.columns = HEAD_DIM;
        p.right_depth = r->count;
        p.c = out + head * HEAD_DIM;
        p.c_stride = SET_WIDTH;
        tensor_multiply_packed(k, &p);
    }
}

static void run_block(const struct run *r, size_t block)
{
    const struct kernels *k = r->set->kernels;
    size_t first = SET_BLOCKS + block * SET_BLOCK_SLICES;
    normalise(r, first + BLOCK_NORM_1, r->x, r->y);
    multiply(r, first + BLOCK_QKV, r->y, r->wide);
    attend(r, r->wide, r->heads);
    multiply(r, first + BLOCK_OUT, r->heads, r->y);
    tensor_add(k, r->x, r->y, r->count * SET_WIDTH);
    normalise(r, first + BLOCK_NORM_2, r->x, r->y);
    multiply(r, first + BLOCK_UP, r->y, r->wide);
    tensor_gelu_exact(k, r->wide, r->wide, r->count * SET_INNER);
    multiply(r, first + BLOCK_DOWN, r->wide, r->y);
    tensor_add(k, r->x, r->y, r->count * SET_WIDTH);
}

static void *take_aligned(struct arena *arena, size_t bytes)
{
    uint8_t *memory = arena_alloc(arena, bytes + ALIGNMENT);
    return memory ? memory + (ALIGNMENT - (uintptr_t)memory % ALIGNMENT) % ALIGNMENT : NULL;
}

static bool run_take(struct run *r, struct arena *arena)
{
    size_t n = r->count, deepest = n > SET_INPUTS ? n : SET_INPUTS;
    r->x = arena_alloc(arena, n * SET_WIDTH * sizeof(float));
    r->y = arena_alloc(arena, n * SET_WIDTH * sizeof(float));
    r->wide = arena_alloc(arena, n * 3 * SET_WIDTH * sizeof(float));
    r->heads = arena_alloc(arena, n * SET_WIDTH * sizeof(float));
    r->scores = arena_alloc(arena, n * n * sizeof(float));
    r->right = take_aligned(arena, tensor_packed_bytes(n > HEAD_DIM ? n : HEAD_DIM, n + HEAD_DIM));
    r->left = take_aligned(arena, tensor_packed_bytes(n, deepest));
    return r->x && r->y && r->wide && r->heads && r->scores && r->right && r->left;
}

enum ph_status spt_set_run(const struct spt_set *set, const struct set_list *list, struct arena *arena,
                           float *corrections)
{
    struct run r = {.set = set, .count = list->count};
    if (!list->count)
        return PH_OK;
    float *inputs = arena_alloc(arena, list->count * SET_INPUTS * sizeof *inputs);
    if (!inputs || !run_take(&r, arena))
        return PH_ERR_NOMEM;
    set_read(list, inputs);
    multiply(&r, SET_IN, inputs, r.x);
    for (size_t block = 0; block < SET_LAYERS; block++)
        run_block(&r, block);
    normalise(&r, SET_NORM, r.x, r.y);
    multiply(&r, SET_HEAD, r.y, corrections);
    return PH_OK;
}

/* ---- Files ---- */

static enum ph_status read_slice(struct spt_set *set, size_t at, const struct gguf *gguf, struct ph_err *err)
{
    const struct param *p = &set->layout.slices[at];
    const struct gguf_tensor *t = gguf_tensor_find(gguf, p->name);
    bool is_matrix = p->decay;
    enum tensor_type type = is_matrix ? TENSOR_BF16 : TENSOR_F32;
    if (!t || t->type != type || t->dims[0] != p->cols || t->dims[1] != p->rows ||
        t->dims[2] * t->dims[3] != 1)
        return ph_fail(err, PH_ERR_FORMAT, "%s: %s is missing, or is not %s [%zu][%zu]", gguf_path(gguf),
                       p->name, is_matrix ? "BF16" : "F32", p->rows, p->cols);
    float *w = set->w + p->offset;
    tensor_dequantize(type, t->data, w, p->rows * p->cols);
    for (size_t i = 0; i < p->rows * p->cols; i++)
        if (!isfinite(w[i]))
            return ph_fail(err, PH_ERR_FORMAT, "%s: %s has a weight that is no finite number",
                           gguf_path(gguf), p->name);
    if (!is_matrix)
        return PH_OK;
    set->packed[at] = mem_alloc_aligned(ALIGNMENT, tensor_packed_bytes(p->rows, p->cols));
    if (!set->packed[at])
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    const struct operand operand = {.data = w, .rows = p->rows, .depth = p->cols, .stride = p->cols};
    tensor_pack_right(set->kernels, &operand, true, set->packed[at]);
    return PH_OK;
}

enum ph_status spt_set_open(struct spt_set **out, const struct gguf *gguf, struct ph_err *err)
{
    *out = NULL;
    if (!gguf_tensor_count(gguf))
        return PH_OK;
    struct spt_set *set = mem_calloc(1, sizeof *set);
    if (!set)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    set_layout_make(&set->layout);
    set->kernels = kernels_select(NULL);
    set->w = mem_alloc(set->layout.len * sizeof *set->w);
    enum ph_status status = set->w ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < SET_SLICES && !status; i++)
        status = read_slice(set, i, gguf, err);
    if (status)
        spt_set_close(set);
    else
        *out = set;
    return status;
}

void spt_set_close(struct spt_set *set)
{
    for (size_t i = 0; set && i < SET_SLICES; i++)
        mem_free(set->packed[i]);
    if (set)
        mem_free(set->w);
    mem_free(set);
}

void spt_set_describe(struct gguf_writer *writer, const struct set_layout *layout)
{
    for (size_t i = 0; i < SET_SLICES; i++) {
        const struct param *p = &layout->slices[i];
        gguf_writer_describe(writer, p->name, p->decay ? TENSOR_BF16 : TENSOR_F32, 2,
                             (const uint64_t[]){p->cols, p->rows});
    }
}

void spt_set_write(struct gguf_writer *writer, const struct set_layout *layout, const float *w)
{
    for (size_t i = 0; i < SET_SLICES; i++) {
        const struct param *p = &layout->slices[i];
        if (!p->decay) {
            gguf_writer_data(writer, w + p->offset, p->rows * p->cols * sizeof *w);
            continue;
        }
        for (size_t k = 0; k < p->rows * p->cols; k++) {
            uint16_t bits = tensor_f32_to_bf16(w[p->offset + k]);
            gguf_writer_data(writer, &bits, sizeof bits);
        }
    }
}
