/* Vector operations of training, after vector_body.h: the same for every set.
 *
 * PIECES runs a statement for each vector of a row, GET and PUT are that vector's loads and stores; of a tail
 * shorter than a vector, what is not there reads as zero and is not stored. */

#define PIECES(len, statement)                                 \
    do {                                                       \
        size_t at_ = 0;                                        \
        for (; at_ + VECTOR_LEN <= (len); at_ += VECTOR_LEN) { \
            const size_t left_ = VECTOR_LEN;                   \
            statement                                          \
        }                                                      \
        if (at_ < (len)) {                                     \
            const size_t left_ = (len)-at_;                    \
            statement                                          \
        }                                                      \
    } while (0)
#define GET(p) (left_ == VECTOR_LEN ? load((p) + at_) : load_part((p) + at_, left_))
#define PUT(p, v) (left_ == VECTOR_LEN ? store((p) + at_, (v)) : store_part((p) + at_, (v), left_))

/* ---- Loss ---- */

static float learn_softmax_loss(float *logits, size_t len, size_t target, float weight)
{
    float wanted = logits[target], top = largest(logits, len);
    float sum = exp_shifted(logits, len, top, 1.0f);
    vector_scale(logits, weight / sum, len);
    logits[target] -= weight;
    return top - wanted + logf(sum);
}

/* ---- Norms ----
 *
 * With xhat = (x - mean) * inverse and g = dy * w, both norms have
 *   dx = inverse * (g - mean(g) - xhat * mean(g * xhat)),
 * RMSNorm without the middle term. */

static float squares_about(const float *x, size_t len, float mean)
{
    vf sum = {0};
    size_t i = 0;
    for (; i + VECTOR_LEN <= len; i += VECTOR_LEN) {
        vf apart = load(x + i) - splat(mean);
        sum = vector_fma(apart, apart, sum);
    }
    float squares = fold_sum(sum);
    for (; i < len; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    return squares;
}

static void learn_norm_row(const struct norm_row *n, const float *x, float *y, float stats[2])
{
    float mean = n->centred ? sum_of(x, n->len) / (float)n->len : 0.0f;
    float squares = n->centred ? squares_about(x, n->len, mean) : vector_dot(x, x, n->len);
    float inverse = 1.0f / sqrtf(squares / (float)n->len + n->eps);
    stats[0] = mean;
    stats[1] = inverse;
    if (n->bias)
        PIECES(n->len, PUT(y, vector_fma((GET(x) - splat(mean)) * splat(inverse), GET(n->w), GET(n->bias))););
    else
        PIECES(n->len, PUT(y, (GET(x) - splat(mean)) * splat(inverse) * GET(n->w)););
}

static void learn_norm_row_backward(const struct norm_row *n, const float *x, const float stats[2],
                                    const float *dy, float *dx, bool add)
{
    vf sums = {0}, alongs = {0}, mean = splat(stats[0]), inverse = splat(stats[1]);
    PIECES(n->len, vf g = GET(dy) * GET(n->w); /* zero where nothing is */
           sums += g; alongs = vector_fma(g, GET(x) - mean, alongs););
    float len = (float)n->len;
    vf middle = splat(n->centred ? fold_sum(sums) / len : 0.0f);
    vf slope = splat(fold_sum(alongs) * stats[1] * stats[1] / len);
    if (add)
        PIECES(n->len,
               PUT(dx, GET(dx) + inverse * (GET(dy) * GET(n->w) - middle - (GET(x) - mean) * slope)););
    else
        PIECES(n->len, PUT(dx, inverse * (GET(dy) * GET(n->w) - middle - (GET(x) - mean) * slope)););
}

#define NORM_VECTORS 4 /* that go down the rows together: cache lines are used as they come */

static void norm_vectors(const float *x, const float *stats, const float *dy, size_t rows, size_t stride,
                         float *dw, float *dbias)
{
    vf w[NORM_VECTORS] = {{0}}, b[NORM_VECTORS] = {{0}};
    for (size_t r = 0; r < rows; r++, x += stride, dy += stride) {
        vf mean = splat(stats[2 * r]), inverse = splat(stats[2 * r + 1]);
        UNROLLED for (size_t i = 0; i < NORM_VECTORS; i++)
        {
            vf g = load(dy + i * VECTOR_LEN);
            w[i] = vector_fma(g, (load(x + i * VECTOR_LEN) - mean) * inverse, w[i]);
            b[i] += g;
        }
    }
    UNROLLED for (size_t i = 0; i < NORM_VECTORS; i++)
    {
        if (dw)
            store(dw + i * VECTOR_LEN, load(dw + i * VECTOR_LEN) + w[i]);
        if (dbias)
            store(dbias + i * VECTOR_LEN, load(dbias + i * VECTOR_LEN) + b[i]);
    }
}

static void learn_norm_columns(const float *x, const float *stats, const float *dy, size_t rows,
                               size_t stride, size_t len, float *dw, float *dbias)
{
    for (; len >= NORM_VECTORS * VECTOR_LEN; len -= NORM_VECTORS * VECTOR_LEN) {
        norm_vectors(x, stats, dy, rows, stride, dw, dbias);
        x += NORM_VECTORS * VECTOR_LEN;
        dy += NORM_VECTORS * VECTOR_LEN;
        dw += dw ? NORM_VECTORS * VECTOR_LEN : 0;
        dbias += dbias ? NORM_VECTORS * VECTOR_LEN : 0;
    }
    PIECES(
        len, vf w = {0}; vf b = {0}; const float *row = x; const float *grad = dy;
        for (size_t r = 0; r < rows; r++, row += stride, grad += stride) {
            vf g = GET(grad);
            w = vector_fma(g, (GET(row) - splat(stats[2 * r])) * splat(stats[2 * r + 1]), w);
            b += g;
        } if (dw) PUT(dw, GET(dw) + w);
        if (dbias) PUT(dbias, GET(dbias) + b););
}

/* ---- Activations: silu' = s + x s (1 - s), s the sigmoid ---- */

static inline vf sigmoid_of(vf x)
{
    return splat(1.0f) / (splat(1.0f) + exp_of(-x));
}

static void learn_swiglu(const float *gate, const float *up, float *y, size_t len)
{
    PIECES(len, PUT(y, silu_of(GET(gate)) * GET(up)););
}

static void learn_swiglu_backward(const float *gate, const float *up, const float *dy, float *dgate,
                                  float *dup, size_t len)
{
    PIECES(len, vf x = GET(gate); vf other = GET(up); vf grad = GET(dy); vf s = sigmoid_of(x);
           vf silu = x * s; PUT(dgate, grad * other * vector_fma(silu, splat(1.0f) - s, s));
           PUT(dup, grad * silu););
}

static void learn_silu_backward(const float *x, const float *dy, float *dx, size_t len)
{
    PIECES(len, vf in = GET(x); vf grad = GET(dy); vf s = sigmoid_of(in);
           PUT(dx, grad * vector_fma(in * s, splat(1.0f) - s, s)););
}

/* 0.5 x (1 + tanh(z)) = x sigmoid(2 z), z = sqrt(2 / pi) (x + 0.044715 x^3) */
#define GELU_SCALE 0.797884560802865355879892119868763737f
#define GELU_CUBE 0.044715f

static inline vf gelu_share(vf x)
{
    return sigmoid_of(splat(2 * GELU_SCALE) * x * (splat(1.0f) + splat(GELU_CUBE) * x * x));
}

static void learn_gelu(const float *x, float *y, size_t len)
{
    PIECES(len, vf in = GET(x); PUT(y, in * gelu_share(in)););
}

static void learn_gelu_backward(const float *x, const float *dy, float *dx, size_t len)
{
    PIECES(len, vf in = GET(x); vf grad = GET(dy); vf s = gelu_share(in);
           vf inner = splat(2 * GELU_SCALE) * (splat(1.0f) + splat(3 * GELU_CUBE) * in * in);
           PUT(dx, grad * vector_fma(in * inner * s, splat(1.0f) - s, s)););
}

/* ---- Rotation ---- */

/* Pairs that lie side by side, whole vectors of them; returns how many. */
static size_t rotate_neighbours(float *x, const float *cos_sin, size_t pairs, bool back)
{
    size_t i = 0;
    vf signs;
    for (size_t j = 0; j < VECTOR_LEN; j++)
        signs[j] = (j % 2 == 0) == back ? 1.0f : -1.0f;
    for (; i + VECTOR_LEN / 2 <= pairs; i += VECTOR_LEN / 2) {
        vf v = load(x + 2 * i), angle = load(cos_sin + 2 * i);
        store(x + 2 * i, vector_fma(vector_swap(v), vector_odd(angle) * signs, v * vector_even(angle)));
    }
    return i;
}

static void learn_rotate(float *x, const float *cos_sin, size_t pairs, bool neox, bool back)
{
    size_t step = neox ? 1 : 2, apart = neox ? pairs : 1;
    float way = back ? -1.0f : 1.0f;
    for (size_t i = neox ? 0 : rotate_neighbours(x, cos_sin, pairs, back); i < pairs; i++) {
        float *a = x + i * step, *b = a + apart, c = cos_sin[2 * i], s = way * cos_sin[2 * i + 1];
        float first = *a, second = *b;
        *a = first * c - second * s;
        *b = first * s + second * c;
    }
}

/* ---- Sums ---- */

static double learn_sum_squares(const float *x, size_t len)
{
    double sums[8] = {0}, rest = 0;
    size_t i = 0;
    for (; i + 8 <= len; i += 8)
        for (size_t j = 0; j < 8; j++)
            sums[j] += (double)x[i + j] * (double)x[i + j];
    for (; i < len; i++)
        rest += (double)x[i] * (double)x[i];
    for (size_t j = 0; j < 8; j++)
        rest += sums[j];
    return rest;
}
