#include <math.h>

#include "chat/chat.h"
#include "test_support.h"

struct fixture {
    struct arena arena;
    struct chat_embed_request request;
    struct chat_fault fault;
};

static enum ph_status decode(struct fixture *f, const char *body)
{
    struct json *document;
    memset(f, 0, sizeof *f);
    arena_init(&f->arena, 1 << 22);
    assert_int_equal(json_parse(&f->arena, body, strlen(body), &document, NULL), PH_OK);
    return chat_embed_decode(&f->arena, document, &f->request, &f->fault);
}

static void requests_are_read(void **state)
{
    (void)state;
    struct fixture f;
    assert_int_equal(decode(&f, "{\"model\":\"e\",\"input\":[\"a\",\"b\"],\"encoding_format\":\"base64\","
                                "\"dimensions\":3,\"user\":\"u\",\"zzz\":1}"),
                     PH_OK);
    assert_string_equal(f.request.model, "e");
    assert_int_equal(f.request.input_count, 2);
    assert_string_equal(f.request.inputs[1].text.text, "b");
    assert_true(f.request.base64);
    assert_int_equal(f.request.dimensions, 3);
    assert_string_equal(f.request.user, "u");
    arena_release(&f.arena);
    assert_int_equal(decode(&f, "{\"input\":[[1,2],[3]],\"encoding_format\":null,\"dimensions\":null}"),
                     PH_OK);
    assert_int_equal(f.request.inputs[0].id_count, 2);
    assert_int_equal(f.request.inputs[1].ids[0], 3);
    assert_false(f.request.base64);
    assert_null(f.request.model);
    arena_release(&f.arena);
    assert_int_equal(decode(&f, "{\"input\":\"a\",\"encoding_format\":\"float\"}"), PH_OK);
    assert_int_equal(f.request.input_count, 1);
    arena_release(&f.arena);
}

static void faults_name_the_parameter(void **state)
{
    (void)state;
    static const struct {
        const char *body, *param;
    } cases[] = {{"[]", NULL},
                 {"{}", "input"},
                 {"{\"input\":[]}", "input"},
                 {"{\"input\":5}", "input"},
                 {"{\"input\":[[\"a\"]]}", "input"},
                 {"{\"input\":\"a\",\"model\":5}", "model"},
                 {"{\"input\":\"a\",\"user\":{}}", "user"},
                 {"{\"input\":\"a\",\"encoding_format\":\"int8\"}", "encoding_format"},
                 {"{\"input\":\"a\",\"encoding_format\":1}", "encoding_format"},
                 {"{\"input\":\"a\",\"dimensions\":0}", "dimensions"},
                 {"{\"input\":\"a\",\"dimensions\":\"3\"}", "dimensions"},
                 {"{\"input\":\"a\",\"dimensions\":99999999}", "dimensions"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture f;
        assert_int_not_equal(decode(&f, cases[i].body), PH_OK);
        assert_int_equal(f.fault.http_status, 400);
        if (cases[i].param)
            assert_string_equal(f.fault.param, cases[i].param);
        else
            assert_null(f.fault.param);
        arena_release(&f.arena);
    }
}

static const float values[] = {1, -0.5f, 0.1f, 3.4028235e38f, 0, 1e-42f};

static void replies_have_the_form_that_was_asked_for(void **state)
{
    (void)state;
    struct chat_embeddings two = {.count = 2, .width = 3, .values = values, .prompt_tokens = 7};
    struct chat_embed_request request = {.base64 = true};
    struct buf out;
    buf_init(&out, 1 << 16);
    chat_embed_encode(&request, "m\"", &two, &out);
    /* python: base64.b64encode(struct.pack('<3f', 1, -0.5, 0.1)) */
    assert_string_equal(out.data,
                        "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":"
                        "\"AACAPwAAAL/NzMw9\"},{\"object\":\"embedding\",\"index\":1,\"embedding\":"
                        "\"//9/fwAAAADKAgAA\"}],\"model\":\"m\\\"\",\"usage\":{\"prompt_tokens\":7,"
                        "\"total_tokens\":7}}");
    buf_clear(&out);
    request.base64 = false;
    chat_embed_encode(&request, "m", &two, &out);
    assert_string_equal(
        out.data,
        "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":"
        "[1,-0.5,0.100000001]},{\"object\":\"embedding\",\"index\":1,\"embedding\":[3.40282347e+38,0,"
        "1.0005271e-42]}],\"model\":\"m\",\"usage\":{\"prompt_tokens\":7,\"total_tokens\":7}}");
    buf_release(&out);
}

/* What is written comes back, bit for bit, in both forms and at every width. */
static void both_forms_read_back_equal(void **state)
{
    (void)state;
    float many[2 * 400];
    for (size_t i = 0; i < sizeof many / sizeof *many; i++)
        many[i] = sinf((float)i) * powf(10, (float)(i % 60) - 30);
    for (size_t width = 1; width <= 400; width += 37)
        for (int base64 = 0; base64 < 2; base64++) {
            struct chat_embeddings sent = {.count = 2, .width = width, .values = many, .prompt_tokens = 3};
            struct chat_embeddings back;
            struct chat_embed_request request = {.base64 = base64};
            struct chat_fault fault;
            struct arena arena;
            struct buf out;
            arena_init(&arena, 1 << 22);
            buf_init(&out, 1 << 20);
            chat_embed_encode(&request, "m", &sent, &out);
            assert_int_equal(chat_embed_read(&arena, out.data, out.len, &back, &fault), PH_OK);
            assert_int_equal(back.count, 2);
            assert_int_equal(back.width, width);
            assert_int_equal(back.prompt_tokens, 3);
            assert_memory_equal(back.values, many, 2 * width * sizeof *many);
            buf_release(&out);
            arena_release(&arena);
        }
}

static void replies_may_come_in_any_order(void **state)
{
    (void)state;
    static const char body[] = "{\"data\":[{\"index\":1,\"embedding\":[2,3]},{\"index\":0,\"embedding\":"
                               "\"AACAPwAAAL8=\"}],\"usage\":{\"total_tokens\":4}}";
    struct arena arena;
    struct chat_fault fault;
    struct chat_embeddings out;
    arena_init(&arena, 1 << 20);
    assert_int_equal(chat_embed_read(&arena, body, sizeof body - 1, &out, &fault), PH_OK);
    assert_true(out.values[0] == 1 && out.values[1] == -0.5f && out.values[2] == 2 && out.values[3] == 3);
    assert_int_equal(out.prompt_tokens, 4);
    arena_release(&arena);
}

static void broken_replies_are_faults(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        enum chat_cause cause;
    } cases[] = {
        {"", CHAT_CAUSE_SERVER},
        {"<html>", CHAT_CAUSE_SERVER},
        {"{}", CHAT_CAUSE_SERVER},
        {"{\"data\":[]}", CHAT_CAUSE_SERVER},
        {"{\"data\":[{\"embedding\":[]}]}", CHAT_CAUSE_SERVER},
        {"{\"data\":[{\"embedding\":[1]},{\"embedding\":[1,2]}]}", CHAT_CAUSE_SERVER},
        {"{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":0,\"embedding\":[1]}]}", CHAT_CAUSE_SERVER},
        {"{\"data\":[{\"index\":5,\"embedding\":[1]}]}", CHAT_CAUSE_SERVER},
        {"{\"data\":[{\"index\":-1,\"embedding\":[1]}]}", CHAT_CAUSE_SERVER},
        {"{\"data\":[{\"embedding\":[\"x\"]}]}", CHAT_CAUSE_SERVER},
        {"{\"data\":[{\"embedding\":\"AACAP\"}]}", CHAT_CAUSE_SERVER},
        {"{\"data\":[{\"embedding\":\"AACA*w==\"}]}", CHAT_CAUSE_SERVER},
        {"{\"data\":[{\"embedding\":\"AACAPwAA\"}]}", CHAT_CAUSE_SERVER},
        {"{\"error\":{\"message\":\"too long\",\"code\":\"context_length_exceeded\"}}", CHAT_CAUSE_CONTEXT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena arena;
        struct chat_fault fault;
        struct chat_embeddings out;
        arena_init(&arena, 1 << 20);
        if (chat_embed_read(&arena, cases[i].body, strlen(cases[i].body), &out, &fault) == PH_OK)
            fail_msg("taken: %s", cases[i].body);
        assert_int_equal(fault.cause, cases[i].cause);
        arena_release(&arena);
    }
}

static void providers_are_asked_for_base64(void **state)
{
    (void)state;
    struct fixture f;
    struct chat_post post;
    struct chat_target target = {.base_url = "http://h/v1", .model = "up", .key = "k"};
    assert_int_equal(decode(&f, "{\"zzz\":1,\"model\":\"e\",\"input\":\"a\",\"encoding_format\":\"float\"}"),
                     PH_OK);
    f.request.request_id = "r";
    assert_int_equal(chat_embed_post(&f.arena, &f.request, &target, &post, &f.fault), PH_OK);
    assert_string_equal(post.url, "http://h/v1/embeddings");
    assert_string_equal(post.body,
                        "{\"zzz\":1,\"model\":\"up\",\"input\":\"a\",\"encoding_format\":\"base64\"}");
    assert_int_equal(post.header_count, 4);
    arena_release(&f.arena);
    assert_int_equal(decode(&f, "{\"input\":[[1],[2,3]],\"dimensions\":2}"), PH_OK);
    f.request.raw = NULL;
    assert_int_equal(chat_embed_post(&f.arena, &f.request, &target, &post, &f.fault), PH_OK);
    assert_string_equal(
        post.body,
        "{\"model\":\"up\",\"input\":[[1],[2,3]],\"encoding_format\":\"base64\",\"dimensions\":2}");
    arena_release(&f.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_read),
        cmocka_unit_test(faults_name_the_parameter),
        cmocka_unit_test(replies_have_the_form_that_was_asked_for),
        cmocka_unit_test(both_forms_read_back_equal),
        cmocka_unit_test(replies_may_come_in_any_order),
        cmocka_unit_test(broken_replies_are_faults),
        cmocka_unit_test(providers_are_asked_for_base64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
