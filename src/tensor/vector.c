/* The public vector operations: each is one entry of the kernel set's table (see vector_body.h). */
#include <float.h>
#include <math.h>

#include "tensor/kernels_int.h"

float tensor_dot(const struct kernels *k, const float *a, const float *b, size_t len)
{
    return k->vector->dot(a, b, len);
}

void tensor_codes_dot(const struct kernels *k, const int8_t *query, const int8_t *rows, size_t n, size_t len,
                      int32_t *out)
{
    k->vector->codes_dot(query, rows, n, len, out);
}

float tensor_dot_f16(const struct kernels *k, const float *a, const uint16_t *halves, size_t len)
{
    return k->vector->dot_f16(a, halves, len);
}

float tensor_codes_make(const float *x, int8_t *codes, size_t len)
{
    float most = 0;
    for (size_t i = 0; i < len; i++) {
        float size = fabsf(x[i]);
        most = size > most && size <= FLT_MAX ? size : most;
    }
    float scale = most / 127.0f, inverse = scale >= FLT_MIN ? 1.0f / scale : 0.0f;
    for (size_t i = 0; i < len; i++) {
        float code = x[i] * inverse;
        code = fabsf(code) <= 127.5f ? code : 0.0f; /* also what is not a number */
        codes[i] = (int8_t)(code + (code < 0 ? -0.5f : 0.5f));
    }
    return inverse > 0 ? scale : 0.0f;
}

void tensor_axpy(const struct kernels *k, float *y, float alpha, const float *x, size_t len)
{
    k->vector->axpy(y, alpha, x, len);
}

void tensor_add(const struct kernels *k, float *y, const float *x, size_t len)
{
    k->vector->add(y, x, len);
}

void tensor_mul(const struct kernels *k, float *y, const float *x, size_t len)
{
    k->vector->mul(y, x, len);
}

void tensor_scale(const struct kernels *k, float *y, float alpha, size_t len)
{
    k->vector->scale(y, alpha, len);
}

void tensor_rms_norm(const struct kernels *k, float *y, const float *x, const float *weight, size_t len,
                     float eps)
{
    k->vector->rms_norm(y, x, weight, len, eps);
}

void tensor_layer_norm(const struct kernels *k, float *y, const float *x, const float *weight,
                       const float *bias, size_t len, float eps)
{
    k->vector->layer_norm(y, x, weight, bias, len, eps);
}

void tensor_softmax(const struct kernels *k, float *x, size_t len)
{
    k->vector->softmax_scaled(x, len, 1.0f);
}

void tensor_softmax_scaled(const struct kernels *k, float *x, size_t len, float scale)
{
    k->vector->softmax_scaled(x, len, scale);
}

void tensor_softmax_backward(const struct kernels *k, const float *p, float *dp, size_t len, float scale)
{
    k->vector->softmax_backward(p, dp, len, scale);
}

void tensor_silu_mul(const struct kernels *k, float *gate, const float *up, size_t len)
{
    k->vector->silu_mul(gate, up, len);
}

void tensor_gelu_mul(const struct kernels *k, float *gate, const float *up, size_t len)
{
    k->vector->gelu_mul(gate, up, len);
}

void tensor_silu(const struct kernels *k, float *x, size_t len)
{
    k->vector->silu(x, len);
}

void tensor_gelu(const struct kernels *k, float *x, size_t len)
{
    k->vector->gelu(x, len);
}

void tensor_softcap(const struct kernels *k, float *x, size_t len, float cap)
{
    k->vector->softcap(x, len, cap);
}

void tensor_rope(const struct kernels *k, float *x, const float *cos_sin, size_t pairs, bool neox)
{
    k->vector->rope(x, cos_sin, pairs, neox);
}

float tensor_softmax_loss(const struct kernels *k, float *logits, size_t len, size_t target, float weight)
{
    return k->vector->softmax_loss(logits, len, target, weight);
}

void tensor_norm_row(const struct kernels *k, const struct norm_row *n, const float *x, float *y,
                     float stats[2])
{
    k->vector->norm_row(n, x, y, stats);
}

void tensor_norm_row_backward(const struct kernels *k, const struct norm_row *n, const float *x,
                              const float stats[2], const float *dy, float *dx, bool add)
{
    k->vector->norm_row_backward(n, x, stats, dy, dx, add);
}

void tensor_norm_columns(const struct kernels *k, const float *x, const float *stats, const float *dy,
                         size_t rows, size_t stride, size_t len, float *dw, float *dbias)
{
    k->vector->norm_columns(x, stats, dy, rows, stride, len, dw, dbias);
}

void tensor_swiglu(const struct kernels *k, const float *gate, const float *up, float *y, size_t len)
{
    k->vector->swiglu(gate, up, y, len);
}

void tensor_swiglu_backward(const struct kernels *k, const float *gate, const float *up, const float *dy,
                            float *dgate, float *dup, size_t len)
{
    k->vector->swiglu_backward(gate, up, dy, dgate, dup, len);
}

void tensor_silu_backward(const struct kernels *k, const float *x, const float *dy, float *dx, size_t len)
{
    k->vector->silu_backward(x, dy, dx, len);
}

void tensor_gelu_exact(const struct kernels *k, const float *x, float *y, size_t len)
{
    k->vector->gelu_exact(x, y, len);
}

void tensor_gelu_backward(const struct kernels *k, const float *x, const float *dy, float *dx, size_t len)
{
    k->vector->gelu_backward(x, dy, dx, len);
}

void tensor_rotate(const struct kernels *k, float *x, const float *cos_sin, size_t pairs, bool neox,
                   bool back)
{
    k->vector->rotate(x, cos_sin, pairs, neox, back);
}

double tensor_sum_squares(const struct kernels *k, const float *x, size_t len)
{
    return k->vector->sum_squares(x, len);
}

void tensor_attend(const struct kernels *k, const struct attn *attn, const float *q, size_t group, float *out,
                   void *scratch)
{
    k->vector->attend(attn, q, group, out, scratch);
}

/* scores [group][page_len], maxima and sums [group], ATTEND_KEYS key or value rows as floats; each
 * part 64-byte aligned */
size_t tensor_attend_scratch_bytes(size_t group, size_t page_len, size_t head_dim_k, size_t head_dim_v)
{
    size_t row = head_dim_k > head_dim_v ? head_dim_k : head_dim_v;
    return align64(group * page_len * 4) + 2 * align64(group * 4) + align64(ATTEND_KEYS * row * 4) + 64;
}

void tensor_attend_rows(const struct kernels *k, const struct attn *attn, size_t window, const float *q,
                        size_t q_stride, size_t rows, size_t group, float *out, size_t out_stride,
                        void *scratch)
{
    k->vector->attend_rows(attn, window, q, q_stride, rows, group, out, out_stride, scratch);
}

/* keys on their side, values, scores of four query vectors, running sums, maxima and sums, one key; widths
 * are rounded up for the widest vectors */
size_t tensor_attend_rows_scratch_bytes(size_t rows, size_t group, size_t page_len, size_t head_dim_k,
                                        size_t head_dim_v)
{
    size_t page = (page_len + 15) & ~(size_t)15, dim_v = (head_dim_v + 15) & ~(size_t)15, n = rows * group;
    size_t floats = head_dim_k * page + page_len * dim_v + 4 * page + n * dim_v + head_dim_k + 15 + 2 * n;
    return floats * sizeof(float) + 64;
}

void tensor_kv_store(const struct kernels *k, enum tensor_type type, const float *src, void *dst, size_t len)
{
    if (type == TENSOR_F16)
        k->vector->to_f16(src, dst, len);
    else
        tensor_quantize(type, src, dst, len);
}
