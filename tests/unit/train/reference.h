/* Plain FP64 forwards of every layer, and the check of a gradient against their central differences. */
#ifndef PHAROS_TESTS_TRAIN_REFERENCE_H
#define PHAROS_TESTS_TRAIN_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "train/layers.h"

void reference_linear(const double *x, const double *w, const double *bias, size_t rows, size_t in,
                      size_t out, double *y);
void reference_norm(const double *x, const double *w, const double *bias, size_t rows, size_t d, double eps,
                    bool centred, double *y);
void reference_rotary(double *x, size_t rows, size_t time, size_t heads, size_t head_dim, double base,
                      bool neox);
void reference_attention(const struct attention *a, const double *q, const double *k, const double *v,
                         double *out);
void reference_convolution(const struct convolution *c, const double *x, const double *w, const double *bias,
                           double *y);
/* x, delta, b, c, a_log, skip as in[0..5] */
void reference_scan(const struct scan_layer *s, const double *const in[6], double *y);
double reference_silu(double x);
double reference_gelu(double x);
/* -log softmax(logits of row)[target] of each row */
void reference_losses(const double *x, const double *w, const int32_t *targets, size_t rows, size_t vocab,
                      size_t d, double *losses);
/* The weighted loss of a decoder whose parameters are w, laid out as `params` says. */
double reference_decoder(const struct decoder_config *c, const struct param *params, const double *w,
                         const struct decoder_batch *b);

/* Fails the test unless each grad[i] is d loss / d x[i] to 1e-3 of itself (and 2e-5 of the greatest, for what
 * rounding leaves of those near 0). Every `step`th element is looked at. */
void check_gradient(const char *name, double *x, const float *grad, size_t len, size_t step,
                    double (*loss)(void *ud), void *ud);

/* cmocka compares floats only. */
#define assert_near(got, wanted, bound)                            \
    do {                                                           \
        double got_ = (double)(got), wanted_ = (double)(wanted);   \
        if (!(fabs(got_ - wanted_) <= (double)(bound)))            \
            fail_msg("%s is %.9g, not %.9g", #got, got_, wanted_); \
    } while (0)

/* Deterministic values around 0 in floats, and the same in doubles. */
void fill_random(uint64_t seed, double scale, float *f, double *d, size_t len);

#endif
