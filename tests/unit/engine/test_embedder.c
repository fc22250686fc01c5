/* The embedder: many callers, turns, cancelling, refusing, closing. */
#include <math.h>
#include <stdatomic.h>

#include <uv.h>

#include "base/mem.h"
#include "engine/embedder.h"
#include "model/tiny_bert.h"

static struct tiny_bert tiny;

static int make_model(void **state)
{
    (void)state;
    tiny_bert_write(&tiny);
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    tiny_bert_remove(&tiny);
    return 0;
}

static struct embedder *open_tiny(struct embedder_params params)
{
    struct embedder *embedder;
    struct ph_err err = {0};
    params.model_path = tiny.path;
    params.threads = 2;
    if (embedder_open(&embedder, &params, &err) != PH_OK)
        fail_msg("%s", err.message);
    return embedder;
}

static size_t tokens_of(const struct embedder *embedder, const char *text, struct token_list *list)
{
    list->len = 0;
    assert_int_equal(embedder_tokenize(embedder, text, strlen(text), NULL, list, NULL), PH_OK);
    return list->len;
}

static void embed_text(struct embedder *embedder, const char *text, bool raw, float *out)
{
    struct token_list list = {0};
    struct ph_err err = {0};
    struct embedder_text one = {.len = tokens_of(embedder, text, &list)};
    one.tokens = list.ids;
    if (embedder_run(embedder, &(struct embedder_request){.texts = &one, .count = 1, .raw = raw}, out,
                     &err) != PH_OK)
        fail_msg("%s", err.message);
    token_list_release(&list);
}

static double length_of(const float *x)
{
    double sum = 0;
    for (size_t i = 0; i < TINY_BERT_EMBD; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

static void test_texts(void **state)
{
    (void)state;
    struct embedder *embedder = open_tiny((struct embedder_params){0});
    float a[TINY_BERT_EMBD], b[TINY_BERT_EMBD], raw[TINY_BERT_EMBD];
    assert_int_equal(embedder_width(embedder), TINY_BERT_EMBD);
    assert_int_equal(embedder_context_len(embedder), TINY_BERT_CONTEXT);
    embed_text(embedder, "a small text", false, a);
    embed_text(embedder, "a small text", true, raw);
    embed_text(embedder, "A SMALL  text", false, b); /* WordPiece lowers letters and drops blanks */
    assert_memory_equal(a, b, sizeof a);
    assert_true(fabs(length_of(a) - 1) < 1e-5 && fabs(length_of(raw) - 1) > 1e-3);
    embed_text(embedder, "", false, a); /* [CLS][SEP] */
    assert_true(fabs(length_of(a) - 1) < 1e-5);
    embedder_free(embedder);
}

static void test_too_long(void **state)
{
    (void)state;
    struct embedder *embedder = open_tiny((struct embedder_params){0});
    static char text[2 * TINY_BERT_CONTEXT];
    struct token_list list = {0};
    struct ph_err err = {0};
    size_t cut;
    for (size_t i = 0; i + 1 < sizeof text; i++)
        text[i] = i % 2 ? ' ' : 'x';
    assert_int_equal(embedder_tokenize(embedder, text, strlen(text), NULL, &list, &err), PH_ERR_LIMIT);
    if (!strstr(err.message, "130 tokens"))
        fail_msg("%s", err.message);
    assert_int_equal(list.len, 0);
    assert_int_equal(embedder_tokenize(embedder, text, strlen(text), &cut, &list, &err), PH_OK);
    assert_int_equal(list.len, TINY_BERT_CONTEXT);
    assert_int_equal(cut, 2);
    assert_int_equal(list.ids[0], 2);
    assert_int_equal(list.ids[list.len - 1], 3); /* [SEP] stays */
    token_list_release(&list);
    embedder_free(embedder);
}

/* ---- Many callers */
#define CALLERS 6
#define TEXTS 40

struct caller {
    struct embedder *embedder;
    uint32_t seed;
    bool background;
    int32_t ids[TEXTS][20];
    struct embedder_text texts[TEXTS];
    float out[TEXTS][TINY_BERT_EMBD];
    enum ph_status status;
};

static void fill_caller(struct caller *c)
{
    uint32_t x = c->seed;
    for (size_t i = 0; i < TEXTS; i++) {
        size_t len = 1 + (x = x * 1664525u + 1013904223u) % 20;
        for (size_t k = 0; k < len; k++)
            c->ids[i][k] = (int32_t)(((x = x * 1664525u + 1013904223u) >> 9) % TINY_BERT_VOCAB);
        c->texts[i] = (struct embedder_text){c->ids[i], len};
    }
}

static void call(void *ud)
{
    struct caller *c = ud;
    struct embedder_request request = {.texts = c->texts, .count = TEXTS, .background = c->background};
    c->status = embedder_run(c->embedder, &request, c->out[0], NULL);
}

static void test_many(void **state)
{
    (void)state;
    static struct caller callers[CALLERS];
    struct embedder *embedder = open_tiny((struct embedder_params){.rows_max = 130});
    uv_thread_t threads[CALLERS];
    for (size_t i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){embedder, (uint32_t)i + 1, i % 3 == 2, {{0}}, {{0}}, {{0}}, 0};
        fill_caller(&callers[i]);
        assert_int_equal(uv_thread_create(&threads[i], call, &callers[i]), 0);
    }
    for (size_t i = 0; i < CALLERS; i++)
        uv_thread_join(&threads[i]);
    for (size_t i = 0; i < CALLERS; i++) {
        assert_int_equal(callers[i].status, PH_OK);
        for (size_t k = 0; k < TEXTS; k++) {
            float alone[TINY_BERT_EMBD];
            struct embedder_request one = {.texts = &callers[i].texts[k], .count = 1};
            assert_int_equal(embedder_run(embedder, &one, alone, NULL), PH_OK);
            assert_memory_equal(alone, callers[i].out[k], sizeof alone);
        }
    }
    struct embedder_stats stats;
    embedder_stats_read(embedder, &stats);
    assert_int_equal(stats.texts, 2 * CALLERS * TEXTS);
    assert_int_equal(stats.waiting, 0);
    assert_true(stats.runs < stats.texts);
    embedder_free(embedder);
}

/* ---- Ends */
static void count_done(void *ud)
{
    atomic_fetch_add((atomic_uint *)ud, 1);
}

static void test_cancel_and_close(void **state)
{
    (void)state;
    enum { JOBS = 8 };
    static struct caller work;
    struct embedder_job *jobs[JOBS];
    atomic_uint done;
    atomic_init(&done, 0);
    work.seed = 5;
    fill_caller(&work);
    struct embedder *embedder = open_tiny((struct embedder_params){.rows_max = 1, .queue_max = JOBS});
    struct embedder_request request = {.texts = work.texts, .count = TEXTS, .done = count_done, .ud = &done};
    for (size_t i = 0; i < JOBS; i++)
        assert_int_equal(embedder_submit(embedder, &request, &jobs[i], NULL), PH_OK);
    for (size_t i = 0; i < JOBS; i += 2)
        embedder_job_free(jobs[i]);
    unsigned before = atomic_load(&done);
    embedder_free(embedder);
    for (size_t i = 1; i < JOBS; i += 2) {
        assert_true(embedder_job_over(jobs[i]));
        enum ph_status status = embedder_job_wait(jobs[i]);
        assert_true(status == PH_OK || status == PH_ERR_CANCELLED);
        embedder_job_free(jobs[i]);
    }
    assert_true(atomic_load(&done) >= before && atomic_load(&done) >= JOBS / 2);
}

static void test_refusals(void **state)
{
    (void)state;
    struct embedder *embedder = open_tiny((struct embedder_params){.rows_max = 1, .queue_max = 1});
    static int32_t ids[TINY_BERT_CONTEXT + 1];
    struct embedder_job *job = NULL;
    struct ph_err err = {0};
    const int32_t wrong[1] = {TINY_BERT_VOCAB};
    struct embedder_text text = {ids, 0};
    struct embedder_request request = {.texts = &text, .count = 1};
    assert_int_equal(embedder_submit(embedder, &request, &job, &err), PH_ERR_ARG);
    text.len = TINY_BERT_CONTEXT + 1;
    assert_int_equal(embedder_submit(embedder, &request, &job, &err), PH_ERR_LIMIT);
    text = (struct embedder_text){wrong, 1};
    assert_int_equal(embedder_submit(embedder, &request, &job, &err), PH_ERR_ARG);
    request.count = 0;
    assert_int_equal(embedder_submit(embedder, &request, &job, &err), PH_ERR_ARG);
    assert_null(job);
    embedder_free(embedder);
    struct embedder_params params = {.model_path = "/nonexistent.gguf"};
    assert_int_equal(embedder_open(&embedder, &params, &err), PH_ERR_NOTFOUND);
}

static void test_no_encoder(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct embedder *embedder;
    struct ph_err err = {0};
    struct embedder_params params = {.model_path =
                                         TEST_SHARED_DIR "/conformance/models/stories260K-F32.gguf"};
    assert_int_equal(embedder_open(&embedder, &params, &err), PH_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "no embedding model"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),    cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_many),     cmocka_unit_test(test_cancel_and_close),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_no_encoder),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
