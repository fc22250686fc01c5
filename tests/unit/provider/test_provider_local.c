/* The local provider on a small trained model that is given chat templates of our own. */
#include "base/mem.h"
#include "provider/provider.h"
#include "test_support.h"

#define MODEL TEST_SHARED_DIR "/conformance/models/stories260K-Q8_0.gguf"
#define EVENTS_MAX 4096

#define TURNS "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
#define TEMPLATE_PLAIN TURNS "{% if add_generation_prompt %}[assistant]{% endif %}"
#define TEMPLATE_BOS "{{ bos_token }}" TEMPLATE_PLAIN
#define TEMPLATE_REFUSES "{{ raise_exception('roles must alternate') }}"
#define TEMPLATE_BROKEN "{% for %}"

/* ---- A model with a template */

static void copy_model(const char *path, const char *chat_template)
{
    struct ph_err err;
    struct gguf *from;
    struct gguf_writer *to;
    if (gguf_open(&from, MODEL, &err) != PH_OK || gguf_writer_open(&to, path, &err) != PH_OK)
        fail_msg("%s", err.message);
    for (size_t i = 0; i < gguf_key_count(from); i++) {
        enum gguf_type type;
        const char *key = gguf_key(from, i, &type);
        if (strcmp(key, "tokenizer.chat_template") != 0)
            gguf_writer_copy_key(to, from, key);
    }
    gguf_writer_set_string(to, "tokenizer.chat_template", chat_template, strlen(chat_template));
    for (size_t i = 0; i < gguf_tensor_count(from); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(from, i);
        gguf_writer_describe(to, t->name, t->type, t->n_dims, t->dims);
    }
    for (size_t i = 0; i < gguf_tensor_count(from); i++)
        gguf_writer_data(to, gguf_tensor_at(from, i)->data, gguf_tensor_at(from, i)->bytes);
    if (gguf_writer_close(to, &err) != PH_OK)
        fail_msg("%s", err.message);
    gguf_free(from);
}

static struct provider *provider_with(const char *chat_template) /* NULL: the model's own (none) */
{
    char path[] = "/tmp/pharos-test-XXXXXX";
    struct ph_err err;
    struct engine *engine;
    struct provider *provider = NULL;
    struct engine_params params;
    engine_params_default(&params);
    params.threads = 1;
    params.context_len = 256;
    params.model_path = MODEL;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    if (chat_template) {
        copy_model(path, chat_template);
        params.model_path = path;
    }
    if (engine_open(&engine, &params, &err) != PH_OK ||
        provider_local_create(&provider, "test", clock_system(), &err) != PH_OK ||
        provider_local_attach(provider, engine, &err) != PH_OK)
        fail_msg("%s", err.message);
    unlink(path); /* mapped; the name is not needed */
    return provider;
}

/* ---- A request and what comes of it */

struct conversation {
    struct net_loop *loop;
    struct arena arena;
    struct chat_request request;
    struct provider_call *call;
    enum chat_event_kind kinds[EVENTS_MAX];
    size_t choices[EVENTS_MAX];
    size_t count, text_count, take_max; /* take_max: then the sink is full, once; 0: never */
    bool cancel_at_first_text, over, paused;
    struct buf text[8];
    enum chat_finish finish;
    uint64_t prompt_tokens, completion_tokens, told_tokens;
    size_t hang_up_at; /* after so many texts; 0: never */
    enum chat_cause cause;
    int http_status;
    char code[64], message[PH_ERR_MESSAGE_MAX];
    struct net_timer *timer;
};

static void end_conversation(struct conversation *c)
{
    c->over = true;
    if (c->timer)
        net_timer_close(c->timer);
    c->timer = NULL;
    net_loop_stop(c->loop);
}

static void resume(void *ud)
{
    struct conversation *c = ud;
    c->paused = false;
    provider_resume(c->call);
}

static void take(struct conversation *c, const struct chat_event *event)
{
    assert_true(c->count < EVENTS_MAX);
    c->kinds[c->count] = event->kind;
    c->choices[c->count++] = event->choice;
    c->told_tokens += event->tokens;
    if (event->kind == CHAT_EVENT_TEXT) {
        c->text_count++;
        buf_append(&c->text[event->choice], event->text.text, event->text.len);
    } else if (event->kind == CHAT_EVENT_FINISH) {
        c->finish = event->finish;
    } else if (event->kind == CHAT_EVENT_USAGE) {
        c->prompt_tokens = event->usage.prompt_tokens;
        c->completion_tokens = event->usage.completion_tokens;
    } else if (event->kind == CHAT_EVENT_ERROR) {
        c->http_status = event->error.http_status;
        c->cause = event->error.cause;
        snprintf(c->code, sizeof c->code, "%s", event->error.code ? event->error.code : "");
        snprintf(c->message, sizeof c->message, "%s", event->error.message);
    }
}

static bool on_event(void *ud, const struct chat_event *event)
{
    struct conversation *c = ud;
    assert_false(c->over);
    bool last = event->kind == CHAT_EVENT_DONE || event->kind == CHAT_EVENT_ERROR;
    assert_true(!c->paused || last); /* P1 */
    take(c, event);
    if (last) {
        end_conversation(c);
    } else if (c->cancel_at_first_text && event->kind == CHAT_EVENT_TEXT) {
        provider_cancel(c->call);
        end_conversation(c);
    } else if (c->hang_up_at && c->text_count == c->hang_up_at && event->kind == CHAT_EVENT_TEXT) {
        provider_hang_up(c->call, 1000);
        return false; /* which does not matter any more */
    } else if (c->take_max && c->count % c->take_max == 0) {
        c->paused = true;
        net_timer_start(c->timer, 1, 0);
        return false;
    }
    return true;
}

static void begin(struct conversation *c, enum chat_kind kind, const char *body)
{
    struct ph_err err;
    struct json *json;
    struct chat_fault fault;
    *c = (struct conversation){0};
    arena_init(&c->arena, 1 << 26);
    for (size_t i = 0; i < 8; i++)
        buf_init(&c->text[i], 1 << 20);
    if (net_loop_create(&c->loop, &err) != PH_OK ||
        json_parse(&c->arena, body, strlen(body), &json, &err) != PH_OK)
        fail_msg("%s", err.message);
    if (chat_edge_openai.decode(&c->arena, kind, json, &c->request, &fault) != PH_OK)
        fail_msg("%s", fault.message);
}

static void start(struct conversation *c, struct provider *provider)
{
    struct provider_sink sink = {on_event, c};
    struct chat_fault fault;
    if (c->take_max)
        assert_int_equal(net_timer_open(&c->timer, c->loop, resume, c), PH_OK);
    enum ph_status status = provider_start(provider, c->loop, &c->request, &sink, &c->call, &fault);
    if (status != PH_OK) {
        c->http_status = fault.http_status;
        snprintf(c->code, sizeof c->code, "%s", fault.code ? fault.code : "");
        snprintf(c->message, sizeof c->message, "%s", fault.message);
        end_conversation(c);
    }
    assert_int_equal(c->count, 0); /* nothing inside provider_start */
}

static void finish(struct conversation *c)
{
    net_loop_run(c->loop);
    net_loop_free(c->loop);
}

static void release(struct conversation *c)
{
    for (size_t i = 0; i < 8; i++)
        buf_release(&c->text[i]);
    arena_release(&c->arena);
}

static void converse(struct conversation *c, struct provider *provider, enum chat_kind kind, const char *body)
{
    begin(c, kind, body);
    start(c, provider);
    finish(c);
}

#define HELLO "{\"messages\":[{\"role\":\"user\",\"content\":\"Once\"}],\"max_tokens\":12,\"temperature\":0}"

/* ---- Tests */

static void events_come_in_order(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct provider *provider = provider_with(TEMPLATE_PLAIN);
    struct conversation c;
    converse(
        &c, provider, CHAT_KIND_COMPLETION,
        "{\"prompt\":[\"Once\",\"Lily\"],\"n\":2,\"max_tokens\":9,\"temperature\":0,\"ignore_eos\":true}");
    size_t i = 0, stage[4] = {0};
    for (; i < c.count && c.kinds[i] != CHAT_EVENT_USAGE; i++) {
        size_t choice = c.choices[i];
        if (c.kinds[i] == CHAT_EVENT_PROGRESS)
            continue;
        assert_true(choice < 4);
        if (c.kinds[i] == CHAT_EVENT_ROLE)
            assert_int_equal(stage[choice]++, 0);
        else if (c.kinds[i] == CHAT_EVENT_TEXT)
            assert_int_equal(stage[choice], 1);
        else if (c.kinds[i] == CHAT_EVENT_FINISH)
            assert_int_equal(stage[choice]++, 1);
        else
            fail_msg("event kind %d", (int)c.kinds[i]);
    }
    for (size_t choice = 0; choice < 4; choice++)
        assert_int_equal(stage[choice], 2);
    assert_int_equal(c.count, i + 2);
    assert_int_equal(c.kinds[i + 1], CHAT_EVENT_DONE);
    assert_int_equal(c.completion_tokens, 36);
    assert_string_equal(c.text[0].data, c.text[1].data);
    assert_string_not_equal(c.text[0].data, c.text[2].data);
    release(&c);
    provider_free(provider);
}

static void beginning_token_comes_once(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct conversation plain, bos;
    struct provider *a = provider_with(TEMPLATE_PLAIN), *b = provider_with(TEMPLATE_BOS);
    converse(&plain, a, CHAT_KIND_CHAT, HELLO);
    converse(&bos, b, CHAT_KIND_CHAT, HELLO);
    assert_int_equal(plain.prompt_tokens, bos.prompt_tokens);
    assert_string_equal(plain.text[0].data, bos.text[0].data);
    release(&plain);
    release(&bos);
    provider_free(a);
    provider_free(b);
}

static void check_prompt(struct provider *provider, const char *body, const char *expected)
{
    struct conversation c;
    struct chat_fault fault;
    struct buf out;
    buf_init(&out, 1 << 20);
    begin(&c, CHAT_KIND_CHAT, body);
    if (provider_prompt(provider, &c.request, &out, &fault) != PH_OK)
        assert_string_equal(fault.message, expected);
    else
        assert_string_equal(out.data, expected);
    buf_release(&out);
    net_loop_free(c.loop);
    release(&c);
}

static void prompts_are_the_templates(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct provider *own = provider_with(TEMPLATE_PLAIN), *none = provider_with(NULL);
    check_prompt(own, HELLO, "[user]Once[assistant]");
    check_prompt(own, "{\"messages\":[{\"role\":\"developer\",\"content\":\"d\"}]}", "[system]d[assistant]");
    check_prompt(
        own,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\" It "
        "was \"}],\"continue_final_message\":true}",
        "[user]a[assistant] It was");
    check_prompt(
        none,
        "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"a\"}]}",
        "System: s\nUser: a\nAssistant:");
    provider_free(own);
    provider_free(none);
    struct provider *refuses = provider_with(TEMPLATE_REFUSES), *broken = provider_with(TEMPLATE_BROKEN);
    struct conversation c;
    converse(&c, refuses, CHAT_KIND_CHAT, HELLO);
    assert_int_equal(c.http_status, 400);
    assert_non_null(strstr(c.message, "roles must alternate"));
    release(&c);
    converse(&c, broken, CHAT_KIND_CHAT, HELLO);
    assert_int_equal(c.http_status, 501);
    assert_string_equal(c.code, "chat_template_unusable");
    release(&c);
    converse(&c, broken, CHAT_KIND_COMPLETION, "{\"prompt\":\"Once\",\"max_tokens\":2}");
    assert_int_equal(c.kinds[c.count - 1], CHAT_EVENT_DONE);
    release(&c);
    provider_free(refuses);
    provider_free(broken);
}

/* Stopping between any two events loses nothing and says nothing twice. */
static void a_full_sink_gets_nothing_more(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    static const char body[] =
        "{\"prompt\":\"Once upon\",\"n\":3,\"max_tokens\":40,\"seed\":3,\"echo\":true}";
    struct provider *provider = provider_with(TEMPLATE_PLAIN);
    struct conversation free_run;
    converse(&free_run, provider, CHAT_KIND_COMPLETION, body);
    for (size_t take_max = 1; take_max <= 5; take_max += 2) {
        struct conversation c;
        begin(&c, CHAT_KIND_COMPLETION, body);
        c.take_max = take_max;
        start(&c, provider);
        finish(&c);
        for (size_t i = 0; i < 3; i++) {
            assert_memory_equal(c.text[i].data, "Once upon ", 9);
            assert_string_equal(c.text[i].data, free_run.text[i].data);
        }
        assert_int_equal(c.completion_tokens, free_run.completion_tokens);
        release(&c);
    }
    release(&free_run);
    provider_free(provider);
}

static void wait_until_idle(struct provider *provider)
{
    struct engine_stats stats;
    do
        engine_stats_read(provider_engine(provider), &stats);
    while (stats.running || stats.waiting || stats.kv_pages_used);
}

static void cancelled_calls_say_nothing_more(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    static const char body[] = "{\"prompt\":\"Once\",\"n\":4,\"max_tokens\":200,\"ignore_eos\":true}";
    struct provider *provider = provider_with(TEMPLATE_PLAIN);
    struct conversation c;
    begin(&c, CHAT_KIND_COMPLETION, body); /* from inside the sink */
    c.cancel_at_first_text = true;
    start(&c, provider);
    finish(&c);
    assert_int_equal(c.text_count, 1);
    release(&c);
    begin(&c, CHAT_KIND_COMPLETION, body); /* at once */
    start(&c, provider);
    provider_cancel(c.call);
    end_conversation(&c);
    finish(&c);
    assert_int_equal(c.count, 0);
    release(&c);
    wait_until_idle(provider);
    provider_free(provider);
}

static void halted_calls_end_with_the_reason(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    static const char body[] = "{\"prompt\":\"Once\",\"n\":4,\"max_tokens\":200,\"ignore_eos\":true}";
    struct provider *provider = provider_with(TEMPLATE_PLAIN);
    struct conversation c;
    struct chat_fault fault;
    chat_fault_set(&fault, 503, "model_unavailable", NULL, "too hot");
    fault.cause = CHAT_CAUSE_OVERLOADED;
    provider_halt(provider, &fault); /* nobody is there */
    begin(&c, CHAT_KIND_COMPLETION, body);
    start(&c, provider);
    provider_halt(provider, &fault);
    assert_true(c.over);
    finish(&c);
    assert_int_equal(c.http_status, 503);
    assert_int_equal(c.cause, CHAT_CAUSE_OVERLOADED);
    assert_string_equal(c.message, "too hot");
    release(&c);
    wait_until_idle(provider);
    begin(&c, CHAT_KIND_COMPLETION, body); /* it works on */
    start(&c, provider);
    finish(&c);
    assert_int_equal(c.completion_tokens, 800);
    release(&c);
    provider_free(provider);
}

static char *long_body(size_t words)
{
    struct buf body;
    buf_init(&body, 1 << 24);
    buf_puts(&body, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (size_t i = 0; i < words; i++)
        buf_puts(&body, "once upon ");
    buf_puts(&body, "\"}]}");
    assert_int_equal(buf_status(&body), PH_OK);
    return buf_take(&body);
}

/* What was generated is counted to its last token, and told event by event. */
static void tokens_are_told(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    static const char body[] =
        "{\"prompt\":\"Once upon\",\"n\":2,\"max_tokens\":60,\"seed\":5,\"stop\":[\"zzzz\"],\"echo\":true}";
    struct provider *provider = provider_with(TEMPLATE_PLAIN);
    struct conversation c;
    converse(&c, provider, CHAT_KIND_COMPLETION, body);
    assert_true(c.completion_tokens > 60);
    assert_int_equal(c.told_tokens, c.completion_tokens);
    release(&c);
    struct provider_state s;
    provider_state(provider, &s);
    assert_true(s.usable);
    assert_true(s.prefill_tokens_s > 0);
    assert_true(s.decode_tokens_s > 0);
    assert_true(s.kv_tokens_free > 0);
    provider_free(provider);
}

static void hung_up_calls_end_in_usage(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    static const char body[] =
        "{\"prompt\":\"Once upon\",\"n\":3,\"max_tokens\":200,\"ignore_eos\":true,\"seed\":3}";
    struct provider *provider = provider_with(TEMPLATE_PLAIN);
    struct conversation c;
    begin(&c, CHAT_KIND_COMPLETION, body);
    c.hang_up_at = 5;
    start(&c, provider);
    finish(&c);
    assert_int_equal(c.kinds[c.count - 1], CHAT_EVENT_DONE);
    assert_int_equal(c.kinds[c.count - 2], CHAT_EVENT_USAGE);
    assert_in_range(c.completion_tokens, 5, 599); /* not all of the 600 */
    assert_int_equal(c.told_tokens, c.completion_tokens);
    assert_int_equal(c.prompt_tokens, 3);
    release(&c);
    begin(&c, CHAT_KIND_COMPLETION, body); /* before anything came */
    start(&c, provider);
    provider_hang_up(c.call, 1000);
    finish(&c);
    assert_int_equal(c.kinds[c.count - 1], CHAT_EVENT_DONE);
    assert_int_equal(c.told_tokens, c.completion_tokens);
    release(&c);
    wait_until_idle(provider);
    provider_free(provider);
}

static void prompts_are_counted_as_they_will_run(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    static const char body[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Once upon a time there was a little girl who had a "
        "red ball and a dog, and they went to the park to play all day long.\"}],\"max_tokens\":3}";
    struct provider *provider = provider_with(TEMPLATE_PLAIN);
    struct conversation c;
    bool exact = false;
    begin(&c, CHAT_KIND_CHAT, body);
    size_t counted = provider_count_tokens(provider, &c.request, &exact);
    assert_true(exact);
    assert_int_equal(provider_cached_tokens(provider, &c.request), 0);
    start(&c, provider);
    finish(&c);
    assert_int_equal(c.prompt_tokens, counted);
    release(&c);
    wait_until_idle(provider);
    begin(&c, CHAT_KIND_CHAT, body);
    assert_int_equal(provider_cached_tokens(provider, &c.request), counted - 1); /* all but the last */
    end_conversation(&c);
    finish(&c);
    release(&c);
    char *text = long_body(20000);
    begin(&c, CHAT_KIND_CHAT, text);
    assert_true(provider_count_tokens(provider, &c.request, &exact) > 20000); /* not on the loop */
    assert_false(exact);
    end_conversation(&c);
    finish(&c);
    release(&c);
    mem_free(text);
    provider_free(provider);
}

static void note_stopped(void *ud)
{
    struct conversation *c = ud;
    c->count++;
    end_conversation(c);
}

static void a_local_model_stops_in_a_turn_of_the_loop(void **state)
{
    (void)state;
    struct provider *provider;
    struct conversation c;
    assert_int_equal(provider_local_create(&provider, "any", clock_system(), NULL), PH_OK);
    begin(&c, CHAT_KIND_CHAT, HELLO);
    provider_stop(provider, c.loop, note_stopped, &c);
    assert_int_equal(c.count, 0);
    finish(&c);
    assert_int_equal(c.count, 1);
    release(&c);
    provider_free(provider);
}

static void long_prompts_go_over_a_helper(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct provider *provider = provider_with(TEMPLATE_PLAIN);
    struct conversation c;
    char *body = long_body(20000);
    converse(&c, provider, CHAT_KIND_CHAT, body);
    assert_int_equal(c.count, 1); /* the fault comes as an event */
    assert_int_equal(c.kinds[0], CHAT_EVENT_ERROR);
    assert_int_equal(c.http_status, 400);
    assert_string_equal(c.code, "context_length_exceeded");
    assert_int_equal(c.cause, CHAT_CAUSE_CONTEXT);
    assert_non_null(strstr(c.message, "256"));
    release(&c);
    begin(&c, CHAT_KIND_CHAT, body); /* the request goes away while the helper works */
    start(&c, provider);
    provider_cancel(c.call);
    end_conversation(&c);
    release(&c);
    finish(&c);
    assert_int_equal(c.count, 0);
    mem_free(body);
    provider_free(provider);
}

static void what_cannot_be_done_is_refused(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    static const struct {
        enum chat_kind kind;
        const char *body, *code;
    } cases[] = {
        {CHAT_KIND_CHAT,
         "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"response_format\":{\"type\":\"json_"
         "schema\"}}",
         "unsupported_parameter"},
        {CHAT_KIND_CHAT,
         "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tool_choice\":\"required\"}",
         "unsupported_parameter"},
        {CHAT_KIND_COMPLETION, "{\"prompt\":\"x\",\"suffix\":\"y\"}", "unsupported_parameter"},
        {CHAT_KIND_COMPLETION, "{\"prompt\":\"x\",\"echo\":true,\"logprobs\":1}", "unsupported_parameter"},
        {CHAT_KIND_COMPLETION, "{\"prompt\":\"x\",\"logit_bias\":{\"512\":1}}", ""},
        {CHAT_KIND_COMPLETION, "{\"prompt\":[512]}", ""},
        {CHAT_KIND_COMPLETION, "{\"prompt\":[512],\"echo\":true}", ""},
        {CHAT_KIND_COMPLETION, "{\"prompt\":[[1],[512]]}", ""},
    };
    struct provider *provider = provider_with(NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct conversation c;
        converse(&c, provider, cases[i].kind, cases[i].body);
        assert_int_equal(c.http_status, 400);
        assert_string_equal(c.code, cases[i].code);
        release(&c);
    }
    wait_until_idle(provider);
    provider_free(provider);
}

static void a_model_that_is_not_there_says_so(void **state)
{
    (void)state;
    struct provider *provider;
    struct conversation c;
    assert_int_equal(provider_local_create(&provider, "late", clock_system(), NULL), PH_OK);
    assert_false(provider_ready(provider));
    converse(&c, provider, CHAT_KIND_CHAT, HELLO);
    assert_int_equal(c.http_status, 503);
    assert_string_equal(c.code, "model_loading");
    release(&c);
    provider_local_fail(provider, "the disk is on fire");
    converse(&c, provider, CHAT_KIND_CHAT, HELLO);
    assert_int_equal(c.http_status, 503);
    assert_string_equal(c.code, "model_unavailable");
    assert_non_null(strstr(c.message, "the disk is on fire"));
    release(&c);
    provider_free(provider);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_come_in_order),
        cmocka_unit_test(beginning_token_comes_once),
        cmocka_unit_test(prompts_are_the_templates),
        cmocka_unit_test(a_full_sink_gets_nothing_more),
        cmocka_unit_test(cancelled_calls_say_nothing_more),
        cmocka_unit_test(halted_calls_end_with_the_reason),
        cmocka_unit_test(tokens_are_told),
        cmocka_unit_test(hung_up_calls_end_in_usage),
        cmocka_unit_test(prompts_are_counted_as_they_will_run),
        cmocka_unit_test(a_local_model_stops_in_a_turn_of_the_loop),
        cmocka_unit_test(long_prompts_go_over_a_helper),
        cmocka_unit_test(what_cannot_be_done_is_refused),
        cmocka_unit_test(a_model_that_is_not_there_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
