#include "train/reference.h"

#include "test_support.h"

#include <math.h>

#include "base/clock.h"
#include "base/mem.h"

void reference_linear(const double *x, const double *w, const double *bias, size_t rows, size_t in,
                      size_t out, double *y)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t o = 0; o < out; o++) {
            double sum = bias ? bias[o] : 0;
            for (size_t i = 0; i < in; i++)
                sum += x[r * in + i] * w[o * in + i];
            y[r * out + o] = sum;
        }
}

void reference_norm(const double *x, const double *w, const double *bias, size_t rows, size_t d, double eps,
                    bool centred, double *y)
{
    for (size_t r = 0; r < rows; r++) {
        double mean = 0, variance = 0;
        for (size_t i = 0; i < d && centred; i++)
            mean += x[r * d + i] / (double)d;
        for (size_t i = 0; i < d; i++)
            variance += pow(x[r * d + i] - mean, 2) / (double)d;
        for (size_t i = 0; i < d; i++)
            y[r * d + i] = (x[r * d + i] - mean) / sqrt(variance + eps) * w[i] + (bias ? bias[i] : 0);
    }
}

void reference_rotary(double *x, size_t rows, size_t time, size_t heads, size_t head_dim, double base,
                      bool neox)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t h = 0; h < heads; h++)
            for (size_t i = 0; i < head_dim / 2; i++) {
                double *head = x + (r * heads + h) * head_dim;
                double *a = neox ? head + i : head + 2 * i, *b = neox ? a + head_dim / 2 : a + 1;
                double angle = (double)(r % time) / pow(base, 2.0 * (double)i / (double)head_dim);
                double before_a = *a, before_b = *b;
                *a = before_a * cos(angle) - before_b * sin(angle);
                *b = before_a * sin(angle) + before_b * cos(angle);
            }
}

void reference_attention(const struct attention *a, const double *q, const double *k, const double *v,
                         double *out)
{
    double weights[128];
    for (size_t row = 0; row < a->batch * a->time; row++)
        for (size_t h = 0; h < a->heads; h++) {
            size_t t = row % a->time, start = row - t, kv = h / (a->heads / a->kv_heads);
            size_t seen = a->causal ? t + 1 : a->time, d = a->head_dim;
            double sum = 0;
            for (size_t s = 0; s < seen; s++) {
                double score = 0;
                for (size_t i = 0; i < d; i++)
                    score += q[(row * a->heads + h) * d + i] * k[((start + s) * a->kv_heads + kv) * d + i];
                sum += weights[s] = exp(score / sqrt((double)d));
            }
            for (size_t i = 0; i < d; i++) {
                double mixed = 0;
                for (size_t s = 0; s < seen; s++)
                    mixed += weights[s] / sum * v[((start + s) * a->kv_heads + kv) * d + i];
                out[(row * a->heads + h) * d + i] = mixed;
            }
        }
}

void reference_convolution(const struct convolution *c, const double *x, const double *w, const double *bias,
                           double *y)
{
    for (size_t i = 0; i < c->batch * c->time_out * c->out; i++) {
        size_t o = i % c->out, t = i / c->out % c->time_out, b = i / c->out / c->time_out;
        y[i] = bias[o];
        for (size_t k = 0; k < c->kernel; k++) {
            long at = (long)(t * c->stride + k) - (long)c->pad;
            const double *row = x + (long)(b * c->time * c->in) + at * (long)c->in;
            if (at < 0 || at >= (long)c->time)
                continue;
            for (size_t n = 0; n < c->in && !c->depthwise; n++)
                y[i] += w[(o * c->kernel + k) * c->in + n] * row[n];
            y[i] += c->depthwise ? w[o * c->kernel + k] * row[o] : 0;
        }
    }
}

void reference_scan(const struct scan_layer *s, const double *const in[6], double *y)
{
    for (size_t i = 0; i < s->batch * s->channels; i++) {
        double h[8] = {0};
        size_t d = i % s->channels, b = i / s->channels;
        for (size_t row = b * s->time; row < (b + 1) * s->time; row++) {
            size_t at = row * s->channels + d;
            double step = log(1 + exp(in[1][at]));
            y[at] = in[5][d] * in[0][at];
            for (size_t n = 0; n < s->states; n++) {
                h[n] = exp(-step * exp(in[4][d * s->states + n])) * h[n];
                h[n] += step * in[2][row * s->states + n] * in[0][at];
                y[at] += in[3][row * s->states + n] * h[n];
            }
        }
    }
}

double reference_silu(double x)
{
    return x / (1 + exp(-x));
}

double reference_gelu(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

void reference_losses(const double *x, const double *w, const int32_t *targets, size_t rows, size_t vocab,
                      size_t d, double *losses)
{
    double *logits = mem_calloc(rows * vocab, sizeof *logits);
    reference_linear(x, w, NULL, rows, d, vocab, logits);
    for (size_t r = 0; r < rows; r++) {
        double sum = 0;
        for (size_t i = 0; i < vocab; i++)
            sum += exp(logits[r * vocab + i]);
        losses[r] = targets[r] < 0 ? 0 : log(sum) - logits[r * vocab + (size_t)targets[r]];
    }
    mem_free(logits);
}

static void add_to(double *y, const double *x, size_t len)
{
    for (size_t i = 0; i < len; i++)
        y[i] += x[i];
}

double reference_decoder(const struct decoder_config *c, const struct param *params, const double *w,
                         const struct decoder_batch *b)
{
    size_t rows = b->batch * b->time, d = c->d, len = rows * d;
    size_t hd = c->head_dim ? c->head_dim : d / c->heads, qd = hd * c->heads, kv = hd * c->kv_heads;
    struct attention a = {.batch = b->batch,
                          .time = b->time,
                          .heads = c->heads,
                          .kv_heads = c->kv_heads,
                          .head_dim = hd,
                          .causal = true};
    double *x = mem_calloc(rows, (2 * d + 2 * qd + 2 * kv + 2 * c->ff + 1) * sizeof *x), *n = x + len;
    double *q = n + len, *k = q + rows * qd, *v = k + rows * kv, *mixed = v + rows * kv;
    double *gate = mixed + rows * qd, *up = gate + rows * c->ff;
    double *losses = up + rows * c->ff, total = 0, eps = (double)c->norm_eps;
    for (size_t r = 0; r < rows; r++)
        memcpy(x + r * d, w + (size_t)b->tokens[r] * d, d * sizeof *x);
    const struct param *p = params + 1;
    for (size_t l = 0; l < c->layers; l++, p += 9) {
        reference_norm(x, w + p[0].offset, NULL, rows, d, eps, false, n);
        reference_linear(n, w + p[1].offset, NULL, rows, d, qd, q);
        reference_linear(n, w + p[2].offset, NULL, rows, d, kv, k);
        reference_linear(n, w + p[3].offset, NULL, rows, d, kv, v);
        reference_rotary(q, rows, b->time, c->heads, hd, c->rope_base, c->rope_neox);
        reference_rotary(k, rows, b->time, c->kv_heads, hd, c->rope_base, c->rope_neox);
        reference_attention(&a, q, k, v, mixed);
        reference_linear(mixed, w + p[4].offset, NULL, rows, qd, d, n);
        add_to(x, n, len);
        reference_norm(x, w + p[5].offset, NULL, rows, d, eps, false, n);
        reference_linear(n, w + p[6].offset, NULL, rows, d, c->ff, gate);
        reference_linear(n, w + p[7].offset, NULL, rows, d, c->ff, up);
        for (size_t i = 0; i < rows * c->ff; i++)
            gate[i] = reference_silu(gate[i]) * up[i];
        reference_linear(gate, w + p[8].offset, NULL, rows, c->ff, d, n);
        add_to(x, n, len);
    }
    reference_norm(x, w + p[0].offset, NULL, rows, d, eps, false, n);
    reference_losses(n, w + (c->tied ? 0 : p[1].offset), b->targets, rows, c->vocab, d, losses);
    for (size_t r = 0; r < rows; r++)
        total += (double)b->weights[r] * losses[r];
    mem_free(x);
    return total;
}

void check_gradient(const char *name, double *x, const float *grad, size_t len, size_t step,
                    double (*loss)(void *ud), void *ud)
{
    double greatest = 0;
    for (size_t i = 0; i < len; i++)
        greatest = fmax(greatest, fabs((double)grad[i]));
    for (size_t i = 0; i < len; i += step) {
        double kept = x[i], h = 1e-5, above, below;
        x[i] = kept + h;
        above = loss(ud);
        x[i] = kept - h;
        below = loss(ud);
        x[i] = kept;
        double wanted = (above - below) / (2 * h), got = (double)grad[i];
        if (!(fabs(got - wanted) <= 1e-3 * fabs(wanted) + 2e-5 * greatest + 1e-8))
            fail_msg("%s: gradient %zu is %.9g, central difference %.9g (greatest %.3g)", name, i, got,
                     wanted, greatest);
    }
}

void fill_random(uint64_t seed, double scale, float *f, double *d, size_t len)
{
    struct rng rng;
    rng_init(&rng, seed);
    for (size_t i = 0; i < len; i++) {
        f[i] = (float)((rng_double(&rng) * 2 - 1) * scale);
        if (d)
            d[i] = (double)f[i];
    }
}
