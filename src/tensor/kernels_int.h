/* The table behind `struct kernels`: what an instruction set provides, and the forms of input rows it may ask
 * for.
 *
 * A matrix product is a function for each format and phase that computes some weight rows against all input
 * rows. It names the forms it reads; the driver (matmul.c) makes them, once, before the product. */
#ifndef PHAROS_TENSOR_KERNELS_INT_H
#define PHAROS_TENSOR_KERNELS_INT_H

#include "tensor/formats_int.h"
#include "tensor/product_int.h"
#include "tensor/tensor.h"

/* ---- Forms of input rows ----
 *
 * Row forms keep a row together; they serve decode. Tile forms transpose groups of TILE_ROWS rows, so that
 * one vector holds the same input of sixteen rows; they serve prefill. They are cut into stretches of
 * TILE_STRETCH inputs, [stretch][group], so that what a product reads next lies together: a cache then holds
 * it without conflicts. Missing rows of the last group are zero.
 *
 * Inputs are rounded as ggml rounds them before a product of that format: to blocks of 8 bits for quantised
 * weights, to F16 for F16 (what F16 cannot hold stays as it is), to BF16 for BF16. */
enum act_form {
    /* codes int8 [d], then for each block of 32: scale, sum of codes, scale * sum rounded to F16 (floats).
     * The scale is rounded to F16, the codes are made with the unrounded one (as ggml's Q8_0 and Q8_1 do). */
    FORM_Q8,
    /* codes int8 [d], int16 sums of 16 codes, a float scale for each block of 256 (ggml's Q8_K) */
    FORM_Q8K,
    /* floats, rounded */
    FORM_F16,
    FORM_BF16,
    /* tiles of FORM_Q8 and FORM_Q8K: struct q8_tile, struct q8k_tile */
    FORM_Q8T,
    FORM_Q8KT,
    /* tiles of floats, [TILE_STRETCH][16], as they are and rounded */
    FORM_F32T,
    FORM_F16T,
    FORM_BF16T,
    /* bf16, [TILE_STRETCH / 2][16][2], zeros up to a multiple of 32 inputs: the operand shape of AMX */
    FORM_BF16P,
    FORM_COUNT
};

#define TILE_ROWS 16
#define TILE_STRETCH 512
#define FORM_BIT(form) (1u << (form))

/* Sixteen rows of a stretch in int8: codes in quads of consecutive inputs, the operand shape of byte products
 * (VPDPBUSD, VPMADDUBSW, TDPBSSD); scales and sums one vector for each block or group. */
struct q8_tile {
    int8_t codes[TILE_STRETCH / 4][TILE_ROWS][4];
    float scales[TILE_STRETCH / 32][TILE_ROWS];
    float scaled_sums[TILE_STRETCH / 32][TILE_ROWS];
    int32_t sums[TILE_STRETCH / 32][TILE_ROWS];
};

struct q8k_tile {
    int8_t codes[TILE_STRETCH / 4][TILE_ROWS][4];
    float scales[TILE_STRETCH / 256][TILE_ROWS];
    int32_t sums[TILE_STRETCH / 16][TILE_ROWS];
};

/* One form's place: rows (or groups) `stride` bytes apart. */
struct act_view {
    uint8_t *data;
    size_t stride;
};

struct act_view act_view(const struct act *act, enum act_form form);
/* Tile forms: the stretch that holds input `from`, group after group `stride` bytes apart. */
struct act_view act_stretch(const struct act *act, enum act_form form, size_t from);
/* The rows of floats that products with weights of a float `type` read. */
struct act_view act_floats(const struct act *act, enum tensor_type type);

static inline const float *act_row(struct act_view floats, int row)
{
    return (const float *)(const void *)(floats.data + (size_t)row * floats.stride);
}

/* Where the planes of a row form lie, in bytes from the row's start. */
static inline size_t align64(size_t n)
{
    return (n + 63) / 64 * 64;
}
static inline size_t q8_scales(size_t d)
{
    return align64(d);
}
static inline size_t q8_sums(size_t d)
{
    return q8_scales(d) + align64(d / 32 * 4);
}
static inline size_t q8_scaled_sums(size_t d)
{
    return q8_sums(d) + align64(d / 32 * 4);
}
static inline size_t q8k_sums(size_t d)
{
    return align64(d);
}
static inline size_t q8k_scales(size_t d)
{
    return q8k_sums(d) + align64(d / 16 * 2);
}

/* ---- Matrix products ---- */

struct gemm;

struct mm_job {
    const struct matrix *w;
    const struct act *x;
    float *y;
    size_t y_stride;
    uint8_t *panel; /* POOL_PANEL_BYTES */
    const struct mm_kernel *kernel;
};

struct mm_kernel {
    void (*run)(const struct mm_job *job, size_t first, size_t end); /* weight rows [first, end) */
    uint32_t forms;          /* FORM_BIT of what it reads; 0: the float rows themselves */
    uint32_t tile;           /* weight rows it likes to take together; chunks are multiples of it */
    const struct gemm *gemm; /* for run = gemm_run, with the format's unpacker; else NULL */
    /* Inputs [from, from + len) of weight rows [row, row + rows) into a panel whose rows are `stride` bytes
     * apart; from there to the next multiple of 32 inputs come zeros. */
    void (*unpack)(const struct matrix *w, size_t row, size_t rows, size_t from, size_t len, uint8_t *panel,
                   size_t stride);
};

/* Decode kernels are small functions that must melt into their callers: the number of inputs is a
 * constant there. */
#define INLINE static inline __attribute__((always_inline))
#define INPUTS_MAX 8
/* Bytes from the weights in use to those fetched: measured, beyond the hardware's own reach. */
#define DECODE_AHEAD 6144

/* Runs CALL with N inputs at a time: eights first, then four, two, one. */
#define FOR_INPUTS(count, at, CALL)   \
    do {                              \
        size_t at = 0, n_ = (count);  \
        for (; n_ - at >= 8; at += 8) \
            CALL(8);                  \
        if (n_ - at >= 4) {           \
            CALL(4);                  \
            at += 4;                  \
        }                             \
        if (n_ - at >= 2) {           \
            CALL(2);                  \
            at += 2;                  \
        }                             \
        if (n_ - at >= 1)             \
            CALL(1);                  \
    } while (0)

/* A product of many rows (gemm.c): a panel of weight rows is unpacked once for a stretch of inputs, then
 * multiplied with all groups of TILE_ROWS input rows. */
struct gemm_part {
    const uint8_t *panel;
    size_t len;             /* inputs */
    struct act_view inputs; /* data: the first group, its first input */
    size_t groups;
    float *sums; /* [groups][panel_rows][TILE_ROWS] */
    struct gemm_ahead *ahead;
};

struct gemm {
    enum act_form form; /* what `multiply` reads */
    uint32_t panel_rows;
    uint32_t stride; /* bytes from panel row to panel row */
    uint32_t panel_bytes;
    /* sums += panel * inputs [from, from + len); calls gemm_look_ahead for each group. */
    void (*multiply)(const struct gemm_part *part);
    /* y [columns][y_stride] = sums [rows][TILE_ROWS], transposed; columns <= TILE_ROWS. */
    void (*write)(const float *sums, size_t rows, size_t columns, float *y, size_t y_stride);
    /* Around a lane's use of the unit (AMX tiles); may be NULL. */
    void (*begin)(void);
    void (*finish)(void);
};

/* The weights of the next panel, fetched into the cache while this one is multiplied. */
struct gemm_ahead {
    const uint8_t *data;
    size_t stride, bytes, rows; /* what is left: rows, `bytes` of each */
    size_t rows_each;           /* rows to fetch in one call */
};

static inline void gemm_look_ahead(struct gemm_ahead *ahead)
{
    for (size_t r = 0; r < ahead->rows_each && ahead->rows > 0; r++, ahead->rows--) {
        for (size_t i = 0; i < ahead->bytes; i += 64)
            __builtin_prefetch(ahead->data + i, 0, 2);
        ahead->data += ahead->stride;
    }
}

void gemm_run(const struct mm_job *job, size_t first, size_t end);
void gemm_write(const float *sums, size_t rows, size_t columns, float *y, size_t y_stride); /* in plain C */

/* Entries of a decode table, by the form they read. */
#define DOT(run)              \
    {                         \
        run, 0, 1, NULL, NULL \
    }
#define DOT_OF(form, run)                  \
    {                                      \
        run, FORM_BIT(form), 1, NULL, NULL \
    }
#define DOT_Q8(run) DOT_OF(FORM_Q8, run)
#define DOT_Q8K(run) DOT_OF(FORM_Q8K, run)

#define ATTEND_KEYS ((size_t)16) /* cache rows that attention converts at a time */

/* ---- Vector operations: the tensor_* functions without their first argument ---- */
struct vector_kernels {
    float (*dot)(const float *a, const float *b, size_t len);
    void (*axpy)(float *y, float alpha, const float *x, size_t len);
    void (*add)(float *y, const float *x, size_t len);
    void (*mul)(float *y, const float *x, size_t len);
    void (*scale)(float *y, float alpha, size_t len);
    void (*rms_norm)(float *y, const float *x, const float *weight, size_t len, float eps);
    void (*layer_norm)(float *y, const float *x, const float *weight, const float *bias, size_t len,
                       float eps);
    void (*softmax_scaled)(float *x, size_t len, float scale);
    void (*softmax_backward)(const float *p, float *dp, size_t len, float scale);
    void (*silu_mul)(float *gate, const float *up, size_t len);
    void (*gelu_mul)(float *gate, const float *up, size_t len);
    void (*silu)(float *x, size_t len);
    void (*gelu)(float *x, size_t len);
    void (*softcap)(float *x, size_t len, float cap);
    void (*rope)(float *x, const float *cos_sin, size_t pairs, bool neox);
    float (*softmax_loss)(float *logits, size_t len, size_t target, float weight);
    void (*norm_row)(const struct norm_row *n, const float *x, float *y, float stats[2]);
    void (*norm_row_backward)(const struct norm_row *n, const float *x, const float stats[2], const float *dy,
                              float *dx, bool add);
    void (*norm_columns)(const float *x, const float *stats, const float *dy, size_t rows, size_t stride,
                         size_t len, float *dw, float *dbias);
    void (*swiglu)(const float *gate, const float *up, float *y, size_t len);
    void (*swiglu_backward)(const float *gate, const float *up, const float *dy, float *dgate, float *dup,
                            size_t len);
    void (*silu_backward)(const float *x, const float *dy, float *dx, size_t len);
    void (*gelu_exact)(const float *x, float *y, size_t len);
    void (*gelu_backward)(const float *x, const float *dy, float *dx, size_t len);
    void (*rotate)(float *x, const float *cos_sin, size_t pairs, bool neox, bool back);
    double (*sum_squares)(const float *x, size_t len);
    void (*attend)(const struct attn *attn, const float *q, size_t group, float *out, void *scratch);
    void (*attend_rows)(const struct attn *attn, size_t window, const float *q, size_t q_stride, size_t rows,
                        size_t group, float *out, size_t out_stride, void *scratch);
    void (*to_f16)(const float *src, uint16_t *dst, size_t len);
    void (*to_bf16)(const float *src, uint16_t *dst, size_t len);
    void (*round_f16)(const float *src, float *dst, size_t len); /* beyond the range of F16: as it is */
    void (*round_bf16)(const float *src, float *dst, size_t len);
    void (*codes_dot)(const int8_t *query, const int8_t *rows, size_t n, size_t len, int32_t *out);
    float (*dot_f16)(const float *a, const uint16_t *halves, size_t len);
    void (*quantize_q8)(const float *src, int8_t *codes, float *scales, int32_t *sums, size_t len);
    void (*quantize_q8k)(const float *src, int8_t *codes, float *scales, int16_t *sums, size_t len);
};

/* Loops of arithmetic alone, for tensor_measure_peak_*: each returns operations done and runs `rounds`
 * rounds. */
struct peak_kernels {
    uint64_t (*f32)(uint64_t rounds);
    uint64_t (*bf16)(uint64_t rounds);
    uint64_t (*int8)(uint64_t rounds);
    uint64_t (*read)(const void *data,
                     size_t bytes); /* reads every byte; returns something that depends on them */
};

struct kernels {
    const char *name;
    const struct vector_kernels *vector;
    const struct peak_kernels *peak;
    struct mm_kernel decode[FORMAT_TYPES];
    struct mm_kernel prefill[FORMAT_TYPES];
    const struct product_kernel *product[2]; /* F32, BF16 (product_int.h) */
};

extern const struct vector_kernels vector_ref, vector_avx2, vector_avx512;
extern const struct peak_kernels peak_avx2, peak_avx512, peak_avx512bf16, peak_amx;
extern const struct kernels kernels_ref, kernels_avx2, kernels_avx512, kernels_avx512bf16, kernels_amx;

bool kernels_amx_permitted(void);

/* The reference product of any format, which other sets name for what they do not speed up. */
void mm_ref_float(const struct mm_job *job, size_t first, size_t end);
void mm_ref_q8(const struct mm_job *job, size_t first, size_t end);
void mm_ref_q8k(const struct mm_job *job, size_t first, size_t end);

#endif
