/* An embedding model in this process, as the gateway asks it. */
#include <math.h>

#include "base/mem.h"
#include "model/tiny_bert.h"
#include "provider/provider.h"

static struct tiny_bert tiny;

struct ask {
    struct net_loop *loop;
    struct arena arena;
    struct chat_embed_request request;
    struct provider_call *call;
    float values[8 * TINY_BERT_EMBD];
    size_t count, width, told;
    uint64_t tokens;
    int http_status; /* 0: vectors came */
    char code[64], message[PH_ERR_MESSAGE_MAX];
};

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

static struct provider *open_provider(void)
{
    struct provider *provider;
    struct embedder *embedder = NULL;
    struct ph_err err;
    const struct embedder_params params = {.model_path = tiny.path, .threads = 1};
    if (provider_embedder_create(&provider, "vec", &err) != PH_OK ||
        embedder_open(&embedder, &params, &err) != PH_OK)
        fail_msg("%s", err.message);
    assert_null(provider_embedder(provider));
    provider_embedder_attach(provider, embedder);
    assert_true(provider_ready(provider) && provider_is_embedder(provider));
    return provider;
}

static void keep_fault(struct ask *ask, const struct chat_fault *fault)
{
    ask->http_status = fault->http_status;
    snprintf(ask->code, sizeof ask->code, "%s", fault->code ? fault->code : "");
    snprintf(ask->message, sizeof ask->message, "%s", fault->message);
}

static void on_done(void *ud, const struct chat_embeddings *embeddings, const struct chat_fault *fault)
{
    struct ask *ask = ud;
    ask->told++;
    if (embeddings) {
        assert_true(embeddings->count * embeddings->width <= sizeof ask->values / sizeof *ask->values);
        ask->count = embeddings->count;
        ask->width = embeddings->width;
        ask->tokens = embeddings->prompt_tokens;
        memcpy(ask->values, embeddings->values, ask->count * ask->width * sizeof *ask->values);
    } else {
        keep_fault(ask, fault);
    }
    net_loop_stop(ask->loop);
}

/* false: refused at once. */
static bool begin(struct ask *ask, struct provider *provider, const char *body)
{
    struct json *json;
    struct chat_fault fault;
    struct ph_err err;
    struct provider_embed_sink sink = {on_done, ask};
    *ask = (struct ask){.told = 0};
    arena_init(&ask->arena, 1 << 22);
    if (net_loop_create(&ask->loop, &err) != PH_OK ||
        json_parse(&ask->arena, body, strlen(body), &json, &err) != PH_OK)
        fail_msg("%s", err.message);
    if (chat_embed_decode(&ask->arena, json, &ask->request, &fault) != PH_OK)
        fail_msg("%s", fault.message);
    bool begun = provider_embed(provider, ask->loop, &ask->request, &sink, &ask->call, &fault) == PH_OK;
    if (!begun)
        keep_fault(ask, &fault);
    assert_int_equal(ask->told, 0); /* nothing inside the call */
    return begun;
}

static void finish(struct ask *ask)
{
    net_loop_free(ask->loop);
    arena_release(&ask->arena);
}

static void embed(struct ask *ask, struct provider *provider, const char *body)
{
    if (begin(ask, provider, body)) {
        net_loop_run(ask->loop);
        assert_int_equal(ask->told, 1);
    } else {
        net_loop_stop(ask->loop);
        net_loop_run(ask->loop);
    }
    finish(ask);
}

static double length_of(const float *x, size_t len)
{
    double sum = 0;
    for (size_t i = 0; i < len; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

static void test_inputs(void **state)
{
    (void)state;
    struct provider *provider = open_provider();
    struct ask one, several, ids, shorter;
    embed(&one, provider, "{\"input\":\"ab c\"}");
    assert_int_equal(one.http_status, 0);
    assert_int_equal(one.count, 1);
    assert_int_equal(one.width, TINY_BERT_EMBD);
    assert_int_equal(one.tokens, 5); /* [CLS] a b c [SEP] */
    assert_true(fabs(length_of(one.values, one.width) - 1) < 1e-5);
    embed(&several, provider, "{\"input\":[\"x\",\"ab c\",\"\"]}");
    assert_int_equal(several.count, 3);
    assert_int_equal(several.tokens, 3 + 5 + 2);
    assert_memory_equal(several.values + TINY_BERT_EMBD, one.values, TINY_BERT_EMBD * sizeof(float));
    embed(&ids, provider, "{\"input\":[2,5,32,7,3]}");
    assert_memory_equal(ids.values, one.values, TINY_BERT_EMBD * sizeof(float));
    embed(&shorter, provider, "{\"input\":\"ab c\",\"dimensions\":16}");
    assert_int_equal(shorter.width, 16);
    assert_true(fabs(length_of(shorter.values, 16) - 1) < 1e-5);
    double scale = (double)shorter.values[0] / (double)one.values[0];
    for (size_t i = 0; i < 16; i++)
        assert_true(fabs((double)one.values[i] * scale - (double)shorter.values[i]) < 1e-5);
    provider_free(provider);
}

static void expect_fault(struct provider *provider, const char *body, int status, const char *says)
{
    struct ask ask;
    embed(&ask, provider, body);
    assert_int_equal(ask.http_status, status);
    if (!strstr(ask.message, says))
        fail_msg("\"%s\" does not say \"%s\"", ask.message, says);
}

static void test_faults(void **state)
{
    (void)state;
    static char text[(64 << 10) + 64];
    struct provider *provider = open_provider();
    expect_fault(provider, "{\"input\":\"a\",\"dimensions\":65}", 400, "64 numbers");
    expect_fault(provider, "{\"input\":[[2,3],[2,64]]}", 400, "input 1: token 64");
    snprintf(text, 16, "{\"input\":[\"a\",\"");
    for (size_t i = 15; i < 15 + 400; i++)
        text[i] = i % 2 ? 'a' : ' ';
    snprintf(text + 415, 8, "\"]}");
    expect_fault(provider, text, 400, "input 1 has 202"); /* on the loop */
    memset(text + 15, 'b', 64 << 10);
    for (size_t i = 0; i < 64 << 10; i += 8)
        text[15 + i] = ' ';
    snprintf(text + 15 + (64 << 10), 8, "\"]}");
    expect_fault(provider, text, 400, "input 1 has "); /* on a helper thread */
    provider_free(provider);
}

static void test_cancel(void **state)
{
    (void)state;
    struct provider *provider = open_provider();
    struct ask ask;
    struct provider_state state_now;
    for (size_t i = 0; i < 20; i++) {
        assert_true(begin(&ask, provider, "{\"input\":[\"some text\",\"and more of it\"]}"));
        provider_cancel(ask.call);
        net_loop_stop(ask.loop);
        net_loop_run(ask.loop);
        assert_int_equal(ask.told, 0);
        finish(&ask);
    }
    provider_state(provider, &state_now);
    assert_int_equal(state_now.running, 0);
    provider_free(provider);
}

static void test_not_there(void **state)
{
    (void)state;
    struct provider *provider;
    struct ph_err err;
    assert_int_equal(provider_embedder_create(&provider, "vec", &err), PH_OK);
    expect_fault(provider, "{\"input\":\"a\"}", 503, "still loading");
    provider_local_fail(provider, "the disk is gone");
    expect_fault(provider, "{\"input\":\"a\"}", 503, "the disk is gone");
    struct chat_request request = {.choices = 1};
    struct provider_sink sink = {NULL, NULL};
    struct provider_call *call;
    struct chat_fault fault;
    assert_int_equal(provider_start(provider, NULL, &request, &sink, &call, &fault), PH_ERR_UNSUPPORTED);
    assert_non_null(strstr(fault.message, "embedding model"));
    provider_free(provider);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inputs),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_not_there),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
