/* The whole decoder: gradients, learning, lanes, accumulation, recomputation; AdamW and schedules. */
#include "test_support.h"

#include <math.h>

#include "base/clock.h"
#include "base/mem.h"
#include "train/reference.h"

enum { BATCH = 2, TIME = 7, ROWS = BATCH * TIME, VOCAB = 37 };

static const struct decoder_config tiny = {.vocab = VOCAB,
                                           .d = 18,
                                           .layers = 2,
                                           .heads = 3,
                                           .kv_heads = 1,
                                           .ff = 23,
                                           .context = TIME,
                                           .rope_base = 100,
                                           .norm_eps = 1e-5f,
                                           .tied = true};

struct fixture {
    struct pool *pool;
    struct decoder *decoder;
    int32_t tokens[ROWS], targets[ROWS];
    float weights[ROWS];
    struct decoder_batch batch;
    struct decoder_config config;
    const struct param *params;
    double *w;
};

static void open_fixture(struct fixture *f, struct decoder_config config, unsigned lanes, size_t time)
{
    size_t count;
    struct ph_err err = {0};
    *f = (struct fixture){.config = config};
    assert_int_equal(pool_create(&f->pool, lanes, 0, kernels_select(NULL), NULL), PH_OK);
    if (decoder_create(&f->decoder, f->pool, &config, BATCH, TIME, &err) != PH_OK)
        fail_msg("%s", err.message);
    f->params = decoder_params(f->decoder, &count);
    fill_random(5, 0.5, decoder_weights(f->decoder), NULL, decoder_len(f->decoder));
    for (size_t r = 0; r < ROWS; r++) {
        f->tokens[r] = (int32_t)(r * 5 % VOCAB);
        f->targets[r] = r % 5 == 3 ? -1 : (int32_t)((r * 17 + 3) % VOCAB);
    }
    f->batch = (struct decoder_batch){BATCH, time, f->tokens, f->targets, f->weights};
    loss_weights_token_mean(f->targets, BATCH * time, f->weights);
}

static void close_fixture(struct fixture *f)
{
    decoder_free(f->decoder);
    pool_free(f->pool);
    mem_free(f->w);
}

static double whole_loss(void *ud)
{
    struct fixture *f = ud;
    return reference_decoder(&f->config, f->params, f->w, &f->batch);
}

static void check_decoder(struct decoder_config config, size_t time)
{
    struct fixture f;
    size_t count;
    open_fixture(&f, config, 2, time);
    decoder_params(f.decoder, &count);
    size_t len = decoder_len(f.decoder);
    f.w = mem_calloc(len, sizeof *f.w);
    for (size_t i = 0; i < len; i++)
        f.w[i] = (double)decoder_weights(f.decoder)[i];
    decoder_clear_gradients(f.decoder);
    double loss = decoder_accumulate(f.decoder, &f.batch);
    assert_near(loss, whole_loss(&f), 1e-5);
    assert_near(decoder_evaluate(f.decoder, &f.batch, NULL), loss, 0);
    for (size_t p = 0; p < count; p++)
        check_gradient(f.params[p].name, f.w + f.params[p].offset,
                       decoder_gradients(f.decoder) + f.params[p].offset, f.params[p].rows * f.params[p].cols,
                       SANITIZED ? 23 : 5, whole_loss, &f);
    close_fixture(&f);
}

static void gradients_of_the_whole_are_central_differences(void **state)
{
    (void)state;
    struct decoder_config config = tiny;
    check_decoder(config, TIME);
    config.tied = false;
    config.rope_neox = true;
    config.kv_heads = 3;
    check_decoder(config, TIME);
    config.recompute = true;
    check_decoder(config, 1);
}

/* Sizes that are multiples of nothing; heads in groups, untied, recomputed, both kinds of rotation. */
static void gradients_hold_at_odd_shapes(void **state)
{
    (void)state;
    const struct decoder_config shapes[] = {
        {.d = 30, .layers = 3, .heads = 5, .kv_heads = 5, .ff = 1},
        {.d = 20, .layers = 1, .heads = 10, .kv_heads = 2, .ff = 37, .tied = true, .rope_neox = true},
        {.d = 24, .layers = 3, .heads = 4, .kv_heads = 2, .ff = 7, .recompute = true},
        {.d = 13, .layers = 2, .heads = 3, .kv_heads = 1, .ff = 9, .head_dim = 8},
        {.d = 22, .layers = 2, .heads = 2, .kv_heads = 2, .ff = 9, .head_dim = 4, .tied = true},
        {.d = 14, .layers = 2, .heads = 1, .kv_heads = 1, .ff = 5, .tied = true, .recompute = true},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct decoder_config c = shapes[i];
        c.vocab = VOCAB;
        c.context = TIME;
        c.rope_base = 100;
        c.norm_eps = 1e-5f;
        check_decoder(c, i % 2 ? TIME - 2 : TIME);
    }
}

static void gradients_of(struct decoder_config config, unsigned lanes, bool in_two, float *out)
{
    struct fixture f;
    open_fixture(&f, config, lanes, TIME);
    decoder_clear_gradients(f.decoder);
    if (in_two) {
        struct decoder_batch half = {1, TIME, f.tokens, f.targets, f.weights};
        decoder_accumulate(f.decoder, &half);
        half = (struct decoder_batch){1, TIME, f.tokens + TIME, f.targets + TIME, f.weights + TIME};
        decoder_accumulate(f.decoder, &half);
    } else {
        decoder_accumulate(f.decoder, &f.batch);
    }
    memcpy(out, decoder_gradients(f.decoder), decoder_len(f.decoder) * sizeof *out);
    close_fixture(&f);
}

static void lanes_and_recomputation_change_no_bit(void **state)
{
    (void)state;
    static float one[1 << 15], other[1 << 15];
    struct decoder_config config = tiny;
    gradients_of(config, 1, false, one);
    gradients_of(config, 3, false, other);
    assert_memory_equal(one, other, sizeof one);
    config.recompute = true;
    gradients_of(config, 3, false, other);
    assert_memory_equal(one, other, sizeof one);
    config.layers = 5;
    config.recompute = false;
    gradients_of(config, 2, false, one);
    config.recompute = true;
    for (config.keep = 0; config.keep <= 6; config.keep++) {
        gradients_of(config, 2, false, other);
        assert_memory_equal(one, other, sizeof one);
    }
}

static uint64_t wanted(struct pool *pool, bool recompute, size_t keep, size_t batch)
{
    struct decoder_config c = tiny;
    struct decoder *decoder;
    c.layers = 5;
    c.recompute = recompute;
    c.keep = keep;
    uint64_t bytes = decoder_bytes_wanted(&c, pool, batch, TIME);
    assert_int_equal(decoder_create(&decoder, pool, &c, batch, TIME, NULL), PH_OK);
    assert_int_equal(bytes, decoder_bytes(decoder) + 2 * decoder_len(decoder) * sizeof(float));
    decoder_free(decoder);
    return bytes;
}

static void memory_decides_what_is_recomputed(void **state)
{
    (void)state;
    struct pool *pool;
    struct ph_err err = {0};
    struct decoder_config c = tiny;
    c.layers = 5;
    assert_int_equal(pool_create(&pool, 1, 0, kernels_select(NULL), NULL), PH_OK);
    uint64_t all = wanted(pool, false, 0, 8), none = wanted(pool, true, 0, 8);
    assert_true(none < all);
    assert_int_equal(wanted(pool, true, 4, 8), all); /* one layer alone shares with nobody */
    assert_int_equal(decoder_fit(&c, pool, 8, TIME, all, &err), PH_OK);
    assert_false(c.recompute);
    for (size_t keep = 0; keep < 4; keep++) {
        assert_int_equal(decoder_fit(&c, pool, 8, TIME, wanted(pool, true, keep, 8), &err), PH_OK);
        assert_true(c.recompute && c.keep == keep);
        assert_int_equal(decoder_fit(&c, pool, 8, TIME, wanted(pool, true, keep + 1, 8) - 1, &err), PH_OK);
        assert_true(c.recompute && c.keep == keep);
    }
    assert_int_equal(decoder_fit(&c, pool, 8, TIME, none - 1, &err), PH_ERR_NOMEM);
    assert_non_null(strstr(err.message, "batch to 7"));
    assert_int_equal(decoder_fit(&c, pool, 8, TIME, wanted(pool, true, 0, 3), &err), PH_ERR_NOMEM);
    assert_non_null(strstr(err.message, "batch to 3"));
    assert_int_equal(decoder_fit(&c, pool, 8, TIME, 1000, &err), PH_ERR_NOMEM);
    assert_non_null(strstr(err.message, "even one window"));
    assert_int_equal(decoder_fit(&c, pool, 8, TIME, 0, &err), PH_OK); /* of this machine's memory */
    assert_false(c.recompute);
    c.layers = 1;
    assert_int_equal(decoder_fit(&c, pool, 8, TIME, 1000, &err), PH_ERR_NOMEM);
    pool_free(pool);
}

/* Large enough to be taken in pieces, of a size that depends on the lanes. */
enum { LONG_BATCH = 24, LONG_TIME = 64, LONG_ROWS = LONG_BATCH * LONG_TIME };

static double long_gradients(unsigned lanes, size_t time, bool bf16, float *out)
{
    static int32_t tokens[LONG_ROWS + 1];
    static float weights[LONG_ROWS];
    struct pool *pool;
    struct decoder *decoder;
    struct decoder_config config = tiny;
    config.context = LONG_TIME;
    config.bf16 = bf16;
    for (size_t r = 0; r <= LONG_ROWS; r++)
        tokens[r] = (int32_t)(r * r % 97 % VOCAB);
    loss_weights_token_mean(tokens + 1, LONG_BATCH * time, weights);
    assert_int_equal(pool_create(&pool, lanes, 0, kernels_select(NULL), NULL), PH_OK);
    assert_int_equal(decoder_create(&decoder, pool, &config, LONG_BATCH, LONG_TIME, NULL), PH_OK);
    fill_random(5, 0.5, decoder_weights(decoder), NULL, decoder_len(decoder));
    decoder_clear_gradients(decoder);
    struct decoder_batch batch = {LONG_BATCH, time, tokens, tokens + 1, weights};
    double loss = decoder_accumulate(decoder, &batch);
    memcpy(out, decoder_gradients(decoder), decoder_len(decoder) * sizeof *out);
    decoder_free(decoder);
    pool_free(pool);
    return loss;
}

static void pieces_change_no_bit(void **state)
{
    static float one[1 << 14], other[1 << 14];
    static const size_t times[] = {LONG_TIME, 48, 7};
    (void)state;
    for (size_t i = 0; i < 6; i++) {
        size_t time = times[i / 2];
        double loss = long_gradients(1, time, i % 2, one);
        assert_true(loss == long_gradients(2, time, i % 2, other));
        assert_memory_equal(one, other, sizeof one);
        assert_true(loss == long_gradients(5, time, i % 2, other));
        assert_memory_equal(one, other, sizeof one);
    }
}

static void micro_batches_add_up_to_the_batch(void **state)
{
    (void)state;
    static float whole[1 << 14], parts[1 << 14];
    gradients_of(tiny, 2, false, whole);
    gradients_of(tiny, 2, true, parts);
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        assert_near(whole[i], parts[i], 1e-5f);
}

static double overfit(bool bf16)
{
    struct fixture f;
    struct decoder_config config = tiny;
    double loss = 0;
    config.bf16 = bf16;
    open_fixture(&f, config, 2, TIME);
    size_t len = decoder_len(f.decoder);
    struct adamw adamw = {.beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .decay = 0.01f};
    adamw.m = mem_calloc(2 * len, sizeof *adamw.m);
    adamw.v = adamw.m + len;
    struct schedule schedule = {.peak = 0.01, .floor = 0.001, .warmup = 10, .steps = 200};
    decoder_init_weights(f.decoder, 1);
    for (uint64_t step = 1; step <= 200; step++) {
        adamw.step = step;
        adamw.rate = (float)schedule_rate(&schedule, step);
        decoder_clear_gradients(f.decoder);
        loss = decoder_accumulate(f.decoder, &f.batch);
        decoder_update(f.decoder, &adamw, 1);
    }
    mem_free(adamw.m);
    close_fixture(&f);
    return loss;
}

static void a_tiny_model_learns_one_batch_by_heart(void **state)
{
    (void)state;
    double loss = overfit(false), rounded = overfit(true);
    print_message("loss %.7f, with BF16 products %.7f\n", loss, rounded);
    assert_true(loss < 0.01);
    assert_true(rounded < 0.02);
}

static void impossible_sizes_are_refused_in_words(void **state)
{
    (void)state;
    struct pool *pool;
    struct decoder *decoder;
    struct ph_err err;
    struct decoder_config c = tiny;
    assert_int_equal(pool_create(&pool, 1, 0, kernels_select("ref"), NULL), PH_OK);
    c.heads = 4;
    assert_int_equal(decoder_create(&decoder, pool, &c, 1, 1, &err), PH_ERR_ARG);
    assert_non_null(strstr(err.message, "18"));
    c = tiny;
    c.kv_heads = 2;
    assert_int_equal(decoder_create(&decoder, pool, &c, 1, 1, &err), PH_ERR_ARG);
    assert_int_equal(decoder_create(&decoder, pool, &tiny, 1, TIME + 1, &err), PH_ERR_ARG);
    assert_non_null(strstr(err.message, "context"));
    c = tiny;
    c.head_dim = 5;
    assert_int_equal(decoder_create(&decoder, pool, &c, 1, 1, &err), PH_ERR_ARG);
    c = tiny;
    c.layers = 0;
    assert_int_equal(decoder_create(&decoder, pool, &c, 1, 1, &err), PH_ERR_ARG);
    c = tiny;
    c.ff = 100;
    assert_int_equal(decoder_create(&decoder, pool, &c, 1 << 24, TIME, &err), PH_ERR_LIMIT);
    assert_null(decoder);
    pool_free(pool);
}

/* ---- Optimiser ---- */

struct optimizing {
    struct adamw adamw;
    struct param params[2];
    float *w, *g;
    void *scratch;
    double norm;
    size_t len;
};

static void optimize(struct lane *lane, void *ud)
{
    struct optimizing *o = ud;
    double norm = gradient_norm(lane, o->g, o->len, o->scratch);
    if (lane->index == 0)
        o->norm = norm;
    adamw_step(lane, &o->adamw, o->params, 2, o->w, o->g, clip_scale(norm, 1), NULL);
}

/* Muon against its definition in FP64, on a wide, a tall and a square matrix of odd sizes. */
static void newton_schulz(double *x, size_t rows, size_t cols)
{
    double *g = mem_calloc(rows * rows * 2 + rows * cols, sizeof *g), *gg = g + rows * rows;
    double *y = gg + rows * rows, norm = 0;
    for (size_t i = 0; i < rows * cols; i++)
        norm += x[i] * x[i];
    for (size_t i = 0; i < rows * cols; i++)
        x[i] /= sqrt(norm);
    for (int step = 0; step < 5; step++) {
        for (size_t i = 0; i < rows * rows; i++) {
            g[i] = 0;
            for (size_t c = 0; c < cols; c++)
                g[i] += x[i / rows * cols + c] * x[i % rows * cols + c];
        }
        for (size_t i = 0; i < rows * rows; i++) {
            gg[i] = 0;
            for (size_t k = 0; k < rows; k++)
                gg[i] += g[i / rows * rows + k] * g[k * rows + i % rows];
        }
        for (size_t i = 0; i < rows * cols; i++) {
            y[i] = 3.4445 * x[i];
            for (size_t k = 0; k < rows; k++)
                y[i] += (-4.7750 * g[i / cols * rows + k] + 2.0315 * gg[i / cols * rows + k]) *
                        x[k * cols + i % cols];
        }
        memcpy(x, y, rows * cols * sizeof *x);
    }
    mem_free(g);
}

struct muon_case {
    struct adamw adamw;
    struct param param;
    float *w, *g;
    void *scratch;
};

static void step_by_muon(struct lane *lane, void *ud)
{
    struct muon_case *c = ud;
    adamw_step(lane, &c->adamw, &c->param, 1, c->w, c->g, 0.5f, c->scratch);
}

static void muon_is_its_definition(void **state)
{
    (void)state;
    static const size_t shapes[][2] = {{13, 37}, {37, 13}, {19, 19}, {1, 7}, {7, 1}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        size_t rows = shapes[s][0], cols = shapes[s][1], len = rows * cols;
        float w[19 * 37], w0[19 * 37], g[19 * 37], m[19 * 37] = {0};
        double x[19 * 37], turned[19 * 37], worst = 0;
        struct muon_case c = {.adamw = {.rate = 0.1f, .decay = 0.2f, .step = 1, .muon = true, .m = m},
                              .param = {.rows = rows, .cols = cols, .decay = true, .hidden = true},
                              .w = w,
                              .g = g,
                              .scratch = mem_alloc_aligned(64, muon_scratch_bytes(&c.param, 1))};
        struct pool *pool;
        struct rng rng;
        rng_init(&rng, s);
        for (size_t i = 0; i < len; i++) {
            w0[i] = w[i] = (float)rng_double(&rng);
            g[i] = (float)rng_double(&rng) - 0.5f;
            turned[i % cols * rows + i / cols] = (double)g[i];
            x[i] = (double)g[i];
        }
        assert_int_equal(pool_create(&pool, 3, 0, kernels_select(NULL), NULL), PH_OK);
        pool_run(pool, step_by_muon, &c);
        newton_schulz(rows > cols ? turned : x, rows > cols ? cols : rows, rows > cols ? rows : cols);
        for (size_t i = 0; i < len; i++) {
            double unit = rows > cols ? turned[i % cols * rows + i / cols] : x[i];
            double expected = (double)w0[i] * (1 - 0.1 * 0.2) -
                              0.1 * 0.2 * sqrt((double)(rows > cols ? rows : cols)) * unit;
            worst = fmax(worst, fabs((double)w[i] - expected));
            assert_float_equal(m[i], 0.05f * 0.5f * g[i], 1e-6f);
        }
        if (!(worst < 3e-3)) /* products of BF16, five times over */
            fail_msg("%zu x %zu: off by %g", rows, cols, worst);
        pool_free(pool);
        mem_free(c.scratch);
    }
}

static void adamw_is_the_papers(void **state)
{
    (void)state;
    enum { LEN = 9001, MATRIX = 8000 };
    float *w = mem_calloc(4 * LEN, sizeof *w), *g = w + LEN;
    double *x = mem_calloc(4 * LEN, sizeof *x), *m = x + LEN, *v = m + LEN, *dg = v + LEN;
    struct optimizing o = {
        .adamw = {.rate = 0.01f, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-8f, .decay = 0.1f},
        .params = {{.rows = 80, .cols = 100, .decay = true}, {.rows = 1, .cols = 1001, .offset = MATRIX}},
        .w = w,
        .g = g,
        .len = LEN};
    struct pool *pool;
    o.adamw.m = g + LEN;
    o.adamw.v = o.adamw.m + LEN;
    o.scratch = mem_calloc(1, gradient_norm_scratch_bytes(LEN));
    assert_int_equal(pool_create(&pool, 3, 0, kernels_select(NULL), NULL), PH_OK);
    fill_random(1, 1, w, x, LEN);
    for (uint64_t step = 1; step <= 5; step++) {
        double squares = 0;
        o.adamw.step = step;
        fill_random(step + 1, step == 1 ? 0.001 : 1, g, dg, LEN); /* the first is not clipped */
        pool_run(pool, optimize, &o);
        for (size_t i = 0; i < LEN; i++)
            squares += dg[i] * dg[i];
        assert_near(o.norm, sqrt(squares), 1e-9);
        double scale = fmin(1, 1 / sqrt(squares));
        for (size_t i = 0; i < LEN; i++) {
            double grad = dg[i] * scale;
            m[i] = 0.9 * m[i] + 0.1 * grad;
            v[i] = 0.99 * v[i] + 0.01 * grad * grad;
            x[i] -= 0.01 * (i < MATRIX ? 0.1 : 0) * x[i];
            x[i] -= 0.01 * (m[i] / (1 - pow(0.9, (double)step))) /
                    (sqrt(v[i] / (1 - pow(0.99, (double)step))) + 1e-8);
            assert_near(w[i], x[i], 3e-6);
        }
    }
    pool_free(pool);
    mem_free(o.scratch);
    mem_free(w);
    mem_free(x);
}

static void schedules_warm_up_and_fall_as_a_cosine(void **state)
{
    (void)state;
    struct schedule s = {.peak = 2, .floor = 0.5, .warmup = 10, .steps = 110};
    assert_near(schedule_rate(&s, 1), 0.2, 1e-12);
    assert_near(schedule_rate(&s, 10), 2, 1e-12);
    assert_near(schedule_rate(&s, 60), 1.25, 1e-12);
    assert_near(schedule_rate(&s, 35), 0.5 + 1.5 * (1 + sqrt(0.5)) / 2, 1e-12);
    assert_near(schedule_rate(&s, 110), 0.5, 1e-12);
    assert_near(schedule_rate(&s, 1000), 0.5, 1e-12);
}

static void schedules_stay_and_fall_at_the_end(void **state)
{
    (void)state;
    struct schedule s = {
        .peak = 2, .floor = 0.5, .warmup = 10, .steps = 110, .kind = SCHEDULE_LINEAR, .cooldown = 20};
    assert_near(schedule_rate(&s, 5), 1, 1e-12);
    assert_near(schedule_rate(&s, 10), 2, 1e-12);
    assert_near(schedule_rate(&s, 90), 2, 1e-12);
    assert_near(schedule_rate(&s, 95), 2 - 1.5 / 4, 1e-12);
    assert_near(schedule_rate(&s, 110), 0.5, 1e-12);
    s.kind = SCHEDULE_SQRT;
    assert_near(schedule_rate(&s, 90), 2, 1e-12);
    assert_near(schedule_rate(&s, 95), 0.5 + 1.5 * (1 - 0.5), 1e-12);
    assert_near(schedule_rate(&s, 111), 0.5, 1e-12);
    s.cooldown = 0; /* never falls */
    assert_near(schedule_rate(&s, 109), 2, 1e-12);
    assert_near(schedule_rate(&s, 110), 2, 1e-12);
    s.cooldown = 500; /* all of the run */
    assert_near(schedule_rate(&s, 55), 0.5 + 1.5 * (1 - sqrt(0.5)), 1e-12);
}

/* ---- Losses ---- */

static void quality_weights_are_shares_of_means(void **state)
{
    (void)state;
    const int32_t targets[] = {1, 2, 3, -1, 4, -1, -1, -1, -1, 5, 6, 7};
    const float quality[] = {0.5f, 7, 0.9f, 0};
    float w[12];
    loss_weights_quality(targets, quality, 4, 3, w);
    const double q[] = {0.5, 1, 0, 0.05}, n[] = {3, 1, 1, 3};
    for (size_t i = 0; i < 12; i++)
        assert_near(w[i], targets[i] < 0 ? 0 : q[i / 3] / 1.55 / n[i / 3], 1e-7);
    loss_weights_token_mean(targets, 12, w);
    for (size_t i = 0; i < 12; i++)
        assert_near(w[i], targets[i] < 0 ? 0 : 1 / 7.0, 1e-7);
}

struct ranking {
    double x[8], y[8];
    float relevance[8];
};

static double pairwise_loss(void *ud)
{
    struct ranking *r = ud;
    double loss = 0;
    for (size_t i = 0; i < 8; i++)
        loss += log(1 + exp(r->y[i] - r->x[i])) / 8;
    return loss;
}

static double listwise_loss(void *ud)
{
    struct ranking *r = ud;
    double sum = 0, relevant = 0, loss = 0;
    for (size_t i = 0; i < 8; i++) {
        sum += exp(r->x[i]);
        relevant += (double)r->relevance[i];
    }
    for (size_t i = 0; i < 8; i++)
        loss -= (double)r->relevance[i] / relevant * log(exp(r->x[i]) / sum);
    return loss;
}

static void ranking_losses_have_their_gradients(void **state)
{
    (void)state;
    struct ranking r = {.relevance = {0, 1, 0, 0.5f, 0, 0, 2, 0}};
    float x[8], y[8], dx[8], dy[8];
    fill_random(1, 3, x, r.x, 8);
    fill_random(2, 3, y, r.y, 8);
    assert_near(loss_pairwise(x, y, 8, dx, dy), pairwise_loss(&r), 1e-9);
    check_gradient("pairwise, better", r.x, dx, 8, 1, pairwise_loss, &r);
    check_gradient("pairwise, worse", r.y, dy, 8, 1, pairwise_loss, &r);
    assert_near(loss_listwise(x, r.relevance, 8, dx), listwise_loss(&r), 1e-9);
    check_gradient("listwise", r.x, dx, 8, 1, listwise_loss, &r);
    assert_near(loss_pairwise((float[]){-1e4f}, (float[]){1e4f}, 1, dx, NULL), 2e4, 1e-3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_of_the_whole_are_central_differences),
        cmocka_unit_test(gradients_hold_at_odd_shapes),
        cmocka_unit_test(lanes_and_recomputation_change_no_bit),
        cmocka_unit_test(memory_decides_what_is_recomputed),
        cmocka_unit_test(pieces_change_no_bit),
        cmocka_unit_test(micro_batches_add_up_to_the_batch),
        cmocka_unit_test(a_tiny_model_learns_one_batch_by_heart),
        cmocka_unit_test(impossible_sizes_are_refused_in_words),
        cmocka_unit_test(adamw_is_the_papers),
        cmocka_unit_test(muon_is_its_definition),
        cmocka_unit_test(schedules_warm_up_and_fall_as_a_cosine),
        cmocka_unit_test(schedules_stay_and_fall_at_the_end),
        cmocka_unit_test(quality_weights_are_shares_of_means),
        cmocka_unit_test(ranking_losses_have_their_gradients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
