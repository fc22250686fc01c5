/* The reference kernels: every format and both phases in plain C, for any CPU, and the measure of all others.
 *
 * A product takes each weight block apart once (formats.c says how) and multiplies it with every input row.
 * Codes are multiplied as integers, whose sums are exact; what is rounded is one product of scales for each
 * group. */
#include "tensor/kernels_int.h"
#include "tensor/unpack_body.h"

#define REF_COLUMNS 64 /* input rows whose sums are kept at a time */

static float load_weight(enum tensor_type type, const uint8_t *row, size_t i)
{
    if (type == TENSOR_F16)
        return load_f16(row + 2 * i);
    if (type == TENSOR_BF16)
        return tensor_bf16_to_f32(load_u16(row + 2 * i));
    return float_of_bits(load_u32(row + 4 * i));
}

void mm_ref_float(const struct mm_job *job, size_t first, size_t end)
{
    const struct matrix *w = job->w;
    struct act_view view = act_floats(job->x, w->type);
    size_t row_bytes = tensor_row_bytes(w->type, w->cols);
    for (size_t r = first; r < end; r++) {
        const uint8_t *row = (const uint8_t *)w->data + r * row_bytes;
        for (size_t i = 0; i < job->x->n; i++) {
            const float *x = act_row(view, (int)i);
            double sum = 0.0;
            for (size_t j = 0; j < w->cols; j++)
                sum += (double)load_weight(w->type, row, j) * (double)x[j];
            job->y[i * job->y_stride + r] = (float)sum;
        }
    }
}

static int32_t dot_codes(const int8_t *a, const int8_t *b, uint32_t len)
{
    int32_t sum = 0;
    for (uint32_t j = 0; j < len; j++)
        sum += a[j] * b[j];
    return sum;
}

/* One block of 32 against one row in FORM_Q8. */
static float block_q8(const struct unpacked *u, bool has_min, const uint8_t *row, size_t d, size_t b)
{
    const float *scales = (const float *)(const void *)(row + q8_scales(d));
    const float *scaled = (const float *)(const void *)(row + q8_scaled_sums(d));
    int32_t dot = dot_codes(u->q, (const int8_t *)row + 32 * b, 32);
    float value = u->scale[0] * scales[b] * (float)dot;
    return has_min ? value - u->min[0] * scaled[b] : value;
}

/* One block of 256 against one row in FORM_Q8K. */
static float block_q8k(const struct unpacked *u, const struct format_ops *op, const uint8_t *row, size_t d,
                       size_t b)
{
    const int8_t *codes = (const int8_t *)row + 256 * b;
    const int16_t *sums = (const int16_t *)(const void *)(row + q8k_sums(d)) + 16 * b;
    const float *scales = (const float *)(const void *)(row + q8k_scales(d));
    float value = 0.0f;
    for (uint32_t g = 0; g < 256 / op->group; g++) {
        value += u->scale[g] * (float)dot_codes(u->q + g * op->group, codes + g * op->group, op->group);
        if (op->has_min) {
            uint32_t each = op->group / 16;
            int sum = sums[g * each] + (each == 2 ? sums[g * each + 1] : 0);
            value -= u->min[g] * (float)sum;
        }
    }
    return value * scales[b];
}

static void mm_ref_blocks(const struct mm_job *job, size_t first, size_t end, enum act_form form)
{
    const struct matrix *w = job->w;
    const struct tensor_format *f = tensor_format((uint32_t)w->type);
    const struct format_ops *op = format_ops(w->type);
    struct act_view view = act_view(job->x, form);
    size_t d = w->cols, blocks = d / f->block_len;
    struct unpacked u;
    float sums[REF_COLUMNS];
    for (size_t r = first; r < end; r++) {
        const uint8_t *row = (const uint8_t *)w->data + r * blocks * f->block_bytes;
        for (size_t from = 0; from < job->x->n; from += REF_COLUMNS) {
            size_t count = job->x->n - from < REF_COLUMNS ? job->x->n - from : REF_COLUMNS;
            memset(sums, 0, sizeof sums);
            for (size_t b = 0; b < blocks; b++) {
                unpack_block[w->type](row + b * f->block_bytes, &u);
                for (size_t i = 0; i < count; i++) {
                    const uint8_t *x = view.data + (from + i) * view.stride;
                    sums[i] +=
                        form == FORM_Q8 ? block_q8(&u, op->has_min, x, d, b) : block_q8k(&u, op, x, d, b);
                }
            }
            for (size_t i = 0; i < count; i++)
                job->y[(from + i) * job->y_stride + r] = sums[i];
        }
    }
}

void mm_ref_q8(const struct mm_job *job, size_t first, size_t end)
{
    mm_ref_blocks(job, first, end, FORM_Q8);
}

void mm_ref_q8k(const struct mm_job *job, size_t first, size_t end)
{
    mm_ref_blocks(job, first, end, FORM_Q8K);
}

/* ---- Peaks: what plain C reaches ---- */

static uint64_t peak_f32(uint64_t rounds)
{
    float lanes[16] = {0};
    for (uint64_t i = 0; i < rounds; i++)
        for (int j = 0; j < 16; j++)
            lanes[j] = lanes[j] * 0.999f + 1.0f;
    volatile float sink = lanes[0] + lanes[15];
    (void)sink;
    return rounds * 32;
}

static uint64_t read_all(const void *data, size_t bytes)
{
    const uint64_t *words = data;
    uint64_t sums[4] = {0};
    for (size_t i = 0; i + 4 <= bytes / 8; i += 4)
        for (int j = 0; j < 4; j++)
            sums[j] += words[i + (size_t)j];
    return sums[0] + sums[1] + sums[2] + sums[3];
}

static const struct peak_kernels peak_ref = {peak_f32, NULL, NULL, read_all};

#define REF_KERNELS                                                                         \
    {                                                                                       \
        [TENSOR_F32] = DOT(mm_ref_float), [TENSOR_F16] = DOT_OF(FORM_F16, mm_ref_float),    \
        [TENSOR_BF16] = DOT_OF(FORM_BF16, mm_ref_float), [TENSOR_Q4_0] = DOT_Q8(mm_ref_q8), \
        [TENSOR_Q4_1] = DOT_Q8(mm_ref_q8), [TENSOR_Q5_0] = DOT_Q8(mm_ref_q8),               \
        [TENSOR_Q5_1] = DOT_Q8(mm_ref_q8), [TENSOR_Q8_0] = DOT_Q8(mm_ref_q8),               \
        [TENSOR_IQ4_NL] = DOT_Q8(mm_ref_q8), [TENSOR_MXFP4] = DOT_Q8(mm_ref_q8),            \
        [TENSOR_Q2_K] = DOT_Q8K(mm_ref_q8k), [TENSOR_Q3_K] = DOT_Q8K(mm_ref_q8k),           \
        [TENSOR_Q4_K] = DOT_Q8K(mm_ref_q8k), [TENSOR_Q5_K] = DOT_Q8K(mm_ref_q8k),           \
        [TENSOR_Q6_K] = DOT_Q8K(mm_ref_q8k), [TENSOR_Q8_K] = DOT_Q8K(mm_ref_q8k),           \
        [TENSOR_IQ4_XS] = DOT_Q8K(mm_ref_q8k)                                               \
    }

const struct kernels kernels_ref = {.name = "ref",
                                    .vector = &vector_ref,
                                    .peak = &peak_ref,
                                    .product = {&product_ref, &product_ref},
                                    .decode = REF_KERNELS,
                                    .prefill = REF_KERNELS};
