/* A whole training run against PyTorch's: the same initial weights and batches, FP32, 50 steps of clipped AdamW
 * with warm-up and cosine. The model, the loss and the schedule are written out a second time in
 * peer_torch.py; gradients there are autograd's, optimiser, clipping and schedule the library's own. */
#include "test_support.h"

#include <math.h>

#include "base/clock.h"
#include "base/mem.h"
#include "train/peer.h"
#include "train/reference.h"

enum { STEPS = 50, WARMUP = 10, BATCH = 6, TIME = 49, ROWS = BATCH * TIME, VOCAB = 211 };

static const float decay = 0.1f, beta2 = 0.95f, norm_max = 1;
static const struct schedule schedule = {.peak = 0.004, .floor = 0.0004, .warmup = WARMUP, .steps = STEPS};

struct variant {
    const char *name;
    struct decoder_config config;
    size_t pieces; /* micro-batches a step */
    bool quality;  /* weighted examples instead of the token mean */
};

#define SHAPE \
    .vocab = VOCAB, .d = 60, .layers = 3, .ff = 87, .context = TIME, .rope_base = 10000, .norm_eps = 1e-5f

static const struct variant variants[] = {
    {.name = "tied, heads shared", .config = {SHAPE, .heads = 6, .kv_heads = 2, .tied = true}, .pieces = 1},
    {.name = "untied, NeoX, recomputed, quality-weighted in three pieces",
     .config = {SHAPE, .heads = 5, .kv_heads = 5, .rope_neox = true, .recompute = true},
     .pieces = 3,
     .quality = true},
};

struct data {
    int32_t tokens[STEPS][ROWS], targets[STEPS][ROWS];
    float quality[STEPS][BATCH];
};

/* A language with something to learn in fifty steps: mostly the next token follows from the last. */
static void make_data(struct data *data)
{
    struct rng rng;
    rng_init(&rng, 11);
    for (size_t step = 0; step < STEPS; step++) {
        for (size_t r = 0; r < ROWS; r++) {
            bool begins = r % TIME == 0 || rng_double(&rng) < 0.2;
            int32_t last = begins ? (int32_t)(rng_double(&rng) * 40) : data->targets[step][r - 1];
            last = last < 0 ? data->tokens[step][r - 1] : last;
            data->tokens[step][r] = last;
            data->targets[step][r] = rng_double(&rng) < 0.1 ? -1 : (last * 7 + 3) % VOCAB;
        }
        for (size_t i = 0; i < BATCH; i++)
            data->quality[step][i] = (float)(rng_double(&rng) * 1.4 - 0.2); /* some beyond the clip */
    }
}

static void train(const struct variant *v, struct decoder *decoder, const struct data *data, double *losses)
{
    size_t len = decoder_len(decoder), rows = ROWS / v->pieces;
    float *m = mem_calloc(2 * len, sizeof *m), weights[ROWS];
    struct adamw adamw = {.beta1 = 0.9f, .beta2 = beta2, .eps = 1e-8f, .decay = decay, .m = m, .v = m + len};
    for (size_t step = 0; step < STEPS; step++) {
        losses[step] = 0;
        decoder_clear_gradients(decoder);
        if (v->quality)
            loss_weights_quality(data->targets[step], data->quality[step], BATCH, TIME, weights);
        else
            loss_weights_token_mean(data->targets[step], ROWS, weights);
        for (size_t from = 0; from < ROWS; from += rows) {
            struct decoder_batch batch = {BATCH / v->pieces, TIME, data->tokens[step] + from,
                                          data->targets[step] + from, weights + from};
            losses[step] += decoder_accumulate(decoder, &batch);
        }
        adamw.step = step + 1;
        adamw.rate = (float)schedule_rate(&schedule, step + 1);
        decoder_update(decoder, &adamw, (double)norm_max);
    }
    mem_free(m);
}

static void describe(struct peer *peer, const struct variant *v, struct decoder *decoder)
{
    size_t count;
    const struct param *params = decoder_params(decoder, &count);
    const struct decoder_config *c = &v->config;
    FILE *out = peer->manifest;
    fprintf(out, "steps %d\nbatch %d\ntime %d\n", STEPS, BATCH, TIME);
    fprintf(out, "layers %zu\nheads %zu\nkv_heads %zu\n", c->layers, c->heads, c->kv_heads);
    fprintf(out, "rope_base %.17g\neps %.9g\n", c->rope_base, (double)c->norm_eps);
    fprintf(out, "neox %d\ntied %d\nquality %d\n", c->rope_neox, c->tied, v->quality);
    fprintf(out, "peak %.17g\nfloor %.17g\nwarmup %d\n", schedule.peak, schedule.floor, WARMUP);
    fprintf(out, "decay %.9g\nbeta2 %.9g\nnorm_max %.9g\n", (double)decay, (double)beta2, (double)norm_max);
    for (size_t i = 0; i < count; i++)
        fprintf(out, "param %s %zu %zu %zu\n", params[i].name, params[i].rows, params[i].cols,
                params[i].offset);
    fprintf(out, "\n");
}

/* The greatest difference of final weights over the greatest movement of any: rounding, not method. */
static double weights_apart(const float *start, const float *a, const float *b, size_t len)
{
    double apart = 0, moved = 0;
    for (size_t i = 0; i < len; i++) {
        apart = fmax(apart, fabs((double)a[i] - (double)b[i]));
        moved = fmax(moved, fabs((double)a[i] - (double)start[i]));
    }
    return apart / moved;
}

static void check_variant(const struct variant *v, const struct data *data)
{
    struct peer peer;
    struct pool *pool;
    struct decoder *decoder;
    double losses[STEPS], theirs[STEPS], worst = 0;
    if (!peer_open(&peer))
        skip();
    assert_int_equal(pool_create(&pool, 2, 0, kernels_select(NULL), NULL), PH_OK);
    assert_int_equal(decoder_create(&decoder, pool, &v->config, BATCH, TIME, NULL), PH_OK);
    decoder_init_weights(decoder, 3);
    size_t len = decoder_len(decoder), bytes = len * sizeof(float);
    float *start = mem_calloc(2 * len, sizeof *start), *end = start + len;
    memcpy(start, decoder_weights(decoder), bytes);
    describe(&peer, v, decoder);
    peer_put(&peer, "weights", start, bytes);
    peer_put(&peer, "tokens", data->tokens, sizeof data->tokens);
    peer_put(&peer, "targets", data->targets, sizeof data->targets);
    peer_put(&peer, "quality", data->quality, sizeof data->quality);
    peer_run(&peer, "train");
    peer_get(&peer, "losses", theirs, sizeof theirs);
    peer_get(&peer, "trained", end, bytes);
    train(v, decoder, data, losses);
    for (size_t step = 0; step < STEPS; step++) {
        worst = fmax(worst, fabs(losses[step] - theirs[step]));
        if (!(fabs(losses[step] - theirs[step]) <= 1e-4))
            fail_msg("%s: loss of step %zu is %.7f, PyTorch's %.7f", v->name, step + 1, losses[step],
                     theirs[step]);
    }
    double apart = weights_apart(start, decoder_weights(decoder), end, len);
    print_message("%s: loss %.4f to %.4f, at most %.1e from PyTorch's; weights apart by %.1e of the way\n",
                  v->name, losses[0], losses[STEPS - 1], worst, apart);
    assert_true(losses[STEPS - 1] < losses[0] - 1.5); /* it was a run worth comparing */
    assert_true(apart < 0.01);
    mem_free(start);
    decoder_free(decoder);
    pool_free(pool);
    peer_close(&peer);
}

static void a_run_is_pytorchs(void **state)
{
    (void)state;
    static struct data data; /* a skipped test does not come back to free it */
    make_data(&data);
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
        check_variant(&variants[i], &data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_run_is_pytorchs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
