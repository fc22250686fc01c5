/* n-gram models against the formula, counted the long way. */
#include "test_support.h"

#include <math.h>

#include "base/clock.h"
#include "base/mem.h"
#include "train/corpus_int.h"
#include "train/train.h"

#define CLOSE 1e-12

/* ---- The formula of Chen and Goodman, with every count taken by reading the whole stream */

#define REFERENCE_VOCAB_MAX 80

struct reference {
    const int32_t *tokens;
    size_t count, n_vocab, order;
    double discounts[NGRAM_ORDER_MAX + 1][4]; /* of length, for a count of 1, 2, 3; none for 0 */
};

static bool is_at(const struct reference *r, const int32_t *gram, size_t len, size_t p)
{
    return p + len <= r->count && memcmp(r->tokens + p, gram, len * sizeof *gram) == 0;
}

static size_t count_gram(const struct reference *r, const int32_t *gram, size_t len)
{
    bool before[REFERENCE_VOCAB_MAX] = {false};
    size_t times = 0, different = 0;
    for (size_t p = 0; p < r->count; p++)
        if (is_at(r, gram, len, p)) {
            times++;
            different += p == 0 || !before[r->tokens[p - 1]];
            if (p > 0)
                before[r->tokens[p - 1]] = true;
        }
    if (len == r->order)
        return times;
    return different;
}

static void estimate(struct reference *r, size_t len)
{
    double n[5] = {0}, *d = r->discounts[len];
    for (size_t p = 0; p + len <= r->count; p++) {
        bool first = true;
        for (size_t q = 0; q < p && first; q++)
            first = !is_at(r, r->tokens + p, len, q);
        size_t times = first ? count_gram(r, r->tokens + p, len) : 0;
        if (times >= 1 && times <= 4)
            n[times]++;
    }
    double y = n[1] / (n[1] + 2 * n[2]);
    d[1] = 1 - 2 * y * n[2] / n[1];
    d[2] = 2 - 3 * y * n[3] / n[2];
    d[3] = 3 - 4 * y * n[4] / n[3];
    if (!(n[1] > 0 && n[2] > 0 && n[3] > 0 && n[4] > 0 && d[1] > 0 && d[2] > 0 && d[3] > 0)) {
        d[1] = 0.5;
        d[2] = 1;
        d[3] = 1.5;
    }
}

static double reference_probability(const struct reference *r, const int32_t *history, size_t len,
                                    int32_t token)
{
    int32_t gram[NGRAM_ORDER_MAX + 1];
    double total = 0, freed = 0, kept = 0, lower = 1 / (double)r->n_vocab;
    const double *d = r->discounts[len + 1];
    if (len > 0)
        lower = reference_probability(r, history + 1, len - 1, token);
    if (len > 0)
        memcpy(gram, history, len * sizeof *gram);
    for (int32_t w = 0; w < (int32_t)r->n_vocab; w++) {
        gram[len] = w;
        size_t times = count_gram(r, gram, len + 1);
        double discount = d[times < 3 ? times : 3];
        total += (double)times;
        freed += discount;
        if (w == token)
            kept = (double)times - discount;
    }
    return total > 0 ? kept / total + freed / total * lower : lower;
}

/* ---- Streams */

/* With the probability `follow` one of the two ids that belong to the last two tokens, else the lower the
 * likelier. The last id of the vocabulary never comes. */
static void make_stream(int32_t *tokens, size_t count, size_t n_vocab, double follow, uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    for (size_t i = 0; i < count; i++) {
        double u = rng_double(&rng), square = rng_double(&rng);
        uint64_t mixed = i < 2 ? i : corpus_mix((uint64_t)tokens[i - 1] * 64 + (uint64_t)tokens[i - 2]);
        if (u < follow)
            tokens[i] = (int32_t)((mixed + (u < follow / 3)) % (n_vocab - 1));
        else
            tokens[i] = (int32_t)(square * square * (double)(n_vocab - 1));
    }
}

static struct ngram *make_model(const int32_t *tokens, size_t count, size_t n_vocab, size_t order)
{
    struct ngram *model;
    struct ph_err err;
    if (ngram_create(&model, tokens, count, n_vocab, order, NULL, NULL, &err) != PH_OK)
        fail_msg("%s", err.message);
    return model;
}

/* ---- Tests */

#define HISTORIES 12

static void compare(const struct ngram *model, const struct reference *r, uint64_t seed)
{
    struct rng rng;
    int32_t history[NGRAM_ORDER_MAX];
    rng_init(&rng, seed);
    for (size_t h = 0; h < HISTORIES; h++) {
        size_t len = h % (r->order + 1), known = len > r->order - 1 ? r->order - 1 : len;
        size_t at = h < 2 ? r->count - len : rng_u64(&rng) % (r->count - len + 1); /* at first: its end */
        for (size_t i = 0; i < len; i++) /* as in the stream, or any */
            history[i] = h % 3 < 2 ? r->tokens[at + i] : (int32_t)(rng_u64(&rng) % r->n_vocab);
        double sum = 0;
        for (int32_t w = 0; w < (int32_t)r->n_vocab; w++) {
            double p = ngram_probability(model, history, len, w);
            sum += p;
            if (w % 5 != (int32_t)h % 5) /* the reference takes its time */
                continue;
            double expected = reference_probability(r, history + (len - known), known, w);
            if (!(fabs(p - expected) <= CLOSE * expected) || p <= 0)
                fail_msg("order %zu, history %zu of %zu, token %d: %.15g, not %.15g", r->order, h, len,
                         (int)w, p, expected);
        }
        if (!(fabs(sum - 1) <= CLOSE))
            fail_msg("order %zu, history %zu: probabilities sum to %.15g", r->order, h, sum);
    }
}

static void probabilities_follow_the_formula(void **state)
{
    (void)state;
    static const struct {
        size_t count, n_vocab;
        double follow;
    } streams[] = {{1, 3, 0.5}, {6, 3, 0.5}, {150, 4, 0.5}, {800, 15, 0.6}, {600, 80, 0}};
    static int32_t tokens[800];
    size_t estimated = 0; /* lengths whose discounts come from counts */
    for (size_t s = 0; s < sizeof streams / sizeof *streams; s++)
        for (size_t order = 1; order <= NGRAM_ORDER_MAX && order <= streams[s].count; order++) {
            struct reference r = {tokens, streams[s].count, streams[s].n_vocab, order, {{0}}};
            struct ngram_stats stats;
            make_stream(tokens, r.count, r.n_vocab, streams[s].follow, s);
            struct ngram *model = make_model(tokens, r.count, r.n_vocab, order);
            ngram_stats(model, &stats);
            for (size_t len = 1; len <= order; len++) {
                estimate(&r, len);
                estimated += r.discounts[len][1] != 0.5;
                for (size_t c = 0; c < NGRAM_DISCOUNTS; c++)
                    assert_true(fabs(stats.discounts[len - 1][c] - r.discounts[len][c + 1]) < CLOSE);
            }
            compare(model, &r, s * 10 + order);
            ngram_free(model);
        }
    assert_in_range(estimated, 15, 40);
}

/* 0 1 0 1 2 of four tokens, by hand: too small for estimates, so discounts are 1/2, 1, 3/2. Different tokens
 * before 0: 2 (what is before the stream, 1); before 1: 1; before 2: 1. */
static void a_small_case_by_hand(void **state)
{
    (void)state;
    static const int32_t tokens[] = {0, 1, 0, 1, 2};
    static const double single[] = {0.375, 0.25, 0.25, 0.125};
    struct ngram *model = make_model(tokens, 5, 4, 2);
    struct ngram_stats stats;
    ngram_stats(model, &stats);
    assert_int_equal(stats.tokens, 5);
    assert_int_equal(stats.grams[0], 3);
    assert_int_equal(stats.grams[1], 3);
    for (int32_t w = 0; w < 4; w++) {
        const int32_t last = 2, never = 3;
        assert_true(fabs(ngram_probability(model, NULL, 0, w) - single[w]) < CLOSE);
        assert_true(fabs(ngram_probability(model, &last, 1, w) - single[w]) < CLOSE);
        assert_true(fabs(ngram_probability(model, &never, 1, w) - single[w]) < CLOSE);
    }
    assert_true(fabs(ngram_probability(model, tokens, 1, 1) - 0.625) < CLOSE);      /* 1 after 0, (1+1/4)/2 */
    assert_true(fabs(ngram_probability(model, tokens, 2, 2) - 0.375) < CLOSE);      /* 2 after 1 */
    assert_true(fabs(ngram_probability(model, tokens + 1, 2, 3) - 0.0625) < CLOSE); /* 3 after 0 */
    ngram_free(model);
}

/* 4 tokens come once, 1 twice, 5 three times, 1 four times: the estimate of D(2) is 2 - 3 (2/3) 5 = -8. */
static void an_estimate_below_zero_is_no_discount(void **state)
{
    (void)state;
    static const int32_t tokens[] = {0, 1, 2, 3, 4, 4, 5, 5, 5,  6,  6,  6, 7,
                                     7, 7, 8, 8, 8, 9, 9, 9, 10, 10, 10, 10};
    struct ngram *model = make_model(tokens, sizeof tokens / sizeof *tokens, 12, 1);
    struct ngram_stats stats;
    ngram_stats(model, &stats);
    for (size_t c = 0; c < NGRAM_DISCOUNTS; c++)
        assert_true(stats.discounts[0][c] == 0.5 * (double)(c + 1));
    assert_true(fabs(ngram_probability(model, NULL, 0, 4) - (1 + 12.0 / 12) / 25) <
                CLOSE); /* frees 4/2 + 1 + 6 3/2 */
    ngram_free(model);
}

static void wrong_input_is_refused(void **state)
{
    (void)state;
    static const int32_t tokens[] = {0, 1, 2, 1};
    struct ngram *model;
    struct ph_err err;
    static const struct {
        size_t count, n_vocab, order;
        const char *says;
    } cases[] = {{4, 3, 0, "between 1 and 6"},
                 {4, 3, 7, "between 1 and 6"},
                 {3, 3, 4, "too few"},
                 {4, 2, 2, "token 2 is 2"},
                 {(size_t)1 << 32, 3, 2, "2^32"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        enum ph_status status =
            ngram_create(&model, tokens, cases[i].count, cases[i].n_vocab, cases[i].order, NULL, NULL, &err);
        assert_true(status == PH_ERR_ARG || status == PH_ERR_LIMIT);
        assert_null(model);
        if (!strstr(err.message, cases[i].says))
            fail_msg("case %zu: %s", i, err.message);
    }
}

/* ---- Token files */

#define DOCS 40
#define DOC_TOKENS 30
#define VOCAB 50

static struct corpus *make_corpus(uint64_t seed, uint64_t vocab_hash)
{
    const char *dir = getenv("TMPDIR");
    char path[256];
    int32_t ids[DOC_TOKENS];
    uint8_t targets[DOC_TOKENS];
    struct corpus *corpus = NULL;
    struct corpus_writer *w;
    struct ph_err err;
    const struct corpus_params params = {
        .n_vocab = VOCAB, .vocab_hash = vocab_hash, .targets = true, .held_out_ppm = 300000};
    snprintf(path, sizeof path, "%s/pharos-test-ngram-%d", dir ? dir : "/tmp", (int)getpid());
    if (corpus_writer_open(&w, path, &params, &err) != PH_OK)
        fail_msg("%s", err.message);
    for (size_t d = 0; d < DOCS; d++) {
        size_t len = DOC_TOKENS - d % 7;
        make_stream(ids, len, VOCAB, 0.5, seed + d);
        for (size_t i = 0; i < len; i++)
            targets[i] = ids[i] % 3 == 0;
        if (corpus_writer_add(w, ids, targets, len, corpus_mix(seed + d), 4 * len, &err) != PH_OK)
            fail_msg("%s", err.message);
    }
    if (corpus_writer_close(w, &err) != PH_OK || corpus_open(&corpus, path, &err) != PH_OK)
        fail_msg("%s", err.message);
    unlink(path); /* the map stays */
    return corpus;
}

/* A part's documents, joined. */
static size_t join(const struct corpus *corpus, enum corpus_part part, int32_t *tokens, bool *targets)
{
    size_t count = 0;
    for (uint64_t d = 0; d < DOCS; d++) {
        struct corpus_doc doc = corpus_doc(corpus, d);
        for (uint64_t i = doc.first; doc.part == part && i < doc.first + doc.count; i++) {
            targets[count] = corpus_is_target(corpus, i);
            tokens[count++] = corpus_token(corpus, i);
        }
    }
    return count;
}

static void training_joins_the_files(void **state)
{
    (void)state;
    static int32_t tokens[2 * DOCS * DOC_TOKENS];
    static bool targets[2 * DOCS * DOC_TOKENS];
    struct corpus *files[] = {make_corpus(100, 1), make_corpus(200, 1), make_corpus(300, 2)};
    const struct corpus *const *corpora = (const struct corpus *const *)files;
    struct ngram *model;
    size_t count = join(files[0], CORPUS_TRAIN, tokens, targets);
    count += join(files[1], CORPUS_TRAIN, tokens + count, targets + count);
    struct ngram *expected = make_model(tokens, count, VOCAB, 3);
    assert_int_equal(ngram_train(&model, corpora, 2, 3, NULL, NULL, NULL), PH_OK);
    for (size_t i = 2; i < 200; i++)
        assert_true(ngram_probability(model, tokens + i - 2, 2, tokens[i]) ==
                    ngram_probability(expected, tokens + i - 2, 2, tokens[i]));
    ngram_free(model);
    ngram_free(expected);
    assert_int_equal(ngram_train(&model, corpora, 3, 3, NULL, NULL, NULL), PH_ERR_ARG);
    for (size_t i = 0; i < 3; i++)
        corpus_free(files[i]);
}

static double windows_of(const struct corpus *corpus, size_t time)
{
    const struct batcher_params params = {.part = CORPUS_HELD_OUT, .time = time, .ordered = true};
    struct batcher *b;
    assert_int_equal(batcher_create(&b, corpus, &params, NULL), PH_OK);
    double windows = (double)batcher_windows(b);
    batcher_free(b);
    return windows;
}

static void the_score_is_that_of_every_predicted_token(void **state)
{
    (void)state;
    static int32_t tokens[DOCS * DOC_TOKENS];
    static bool targets[DOCS * DOC_TOKENS];
    static const size_t times[] = {0, 1, 16, 100};
    uint32_t piece_bytes[VOCAB];
    struct corpus *corpus = make_corpus(400, 1);
    struct ngram *model;
    assert_int_equal(ngram_train(&model, (const struct corpus *const *)&corpus, 1, 4, NULL, NULL, NULL),
                     PH_OK);
    size_t count = join(corpus, CORPUS_HELD_OUT, tokens, targets);
    for (uint32_t t = 0; t < VOCAB; t++)
        piece_bytes[t] = t % 5;
    for (size_t k = 0; k < sizeof times / sizeof *times; k++) {
        struct ngram_score even = {0}, score = {0};
        struct ngram_loss all = {0}, some = {0};
        size_t end = times[k] ? (size_t)windows_of(corpus, times[k]) * times[k] + 1 : count;
        for (size_t i = 1; i < end; i++) {
            double nats = -log(ngram_probability(model, tokens, i, tokens[i]));
            all.nats += nats;
            all.bytes += piece_bytes[tokens[i]];
            some.nats += targets[i] ? nats : 0;
            some.bytes += targets[i] ? piece_bytes[tokens[i]] : 0;
            some.tokens += targets[i];
        }
        ngram_score(model, corpus, CORPUS_HELD_OUT, times[k], piece_bytes, &score, NULL, NULL);
        assert_int_equal(score.all.tokens, end - 1);
        assert_int_equal(score.targets.tokens, some.tokens);
        assert_true(some.tokens > 0 && some.tokens < end - 1);
        assert_true(fabs(score.all.nats - all.nats) < 1e-9 && fabs(score.targets.nats - some.nats) < 1e-9);
        assert_true(score.all.bytes == all.bytes && score.targets.bytes == some.bytes);
        ngram_score(model, corpus, CORPUS_HELD_OUT, times[k], NULL, &even, NULL, NULL);
        assert_true(even.all.nats == score.all.nats);
        assert_true(fabs(even.all.bytes - 4 * (double)(end - 1)) < 1e-6); /* each document has 4 a token */
    }
    ngram_free(model);
    corpus_free(corpus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probabilities_follow_the_formula),
        cmocka_unit_test(a_small_case_by_hand),
        cmocka_unit_test(an_estimate_below_zero_is_no_discount),
        cmocka_unit_test(wrong_input_is_refused),
        cmocka_unit_test(training_joins_the_files),
        cmocka_unit_test(the_score_is_that_of_every_predicted_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
