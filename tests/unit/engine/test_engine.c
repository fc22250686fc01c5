/* The engine on a small trained model: texts against the reference, ends, events, limits. */
#include <math.h>
#include <uv.h>

#include "engine_test.h"

static const struct engine_params f32 = {.kv_type = TENSOR_F32};

static void all_prompts_together_say_what_the_reference_says(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct arena arena;
    const struct json *expected = expected_model(&arena, "stories260K-F32");
    struct engine *engine = open_engine(MODEL_F32, f32);
    struct engine_seq *seqs[8];
    size_t count = 0;
    JSON_EACH (prompt, json_get(expected, "prompts")) {
        int32_t ids[IDS_MAX];
        size_t len = ids_of(json_get(prompt, "ids"), ids);
        struct engine_request request = greedy(ids, len, 128);
        seqs[count++] = submit(engine, &request);
    }
    assert_true(count >= 3);
    count = 0;
    JSON_EACH (prompt, json_get(expected, "prompts")) {
        struct result result;
        int32_t want[IDS_MAX];
        size_t want_count = ids_of(json_get(prompt, "greedy"), want);
        read_to_end(seqs[count], &result);
        engine_seq_free(seqs[count++]);
        assert_int_equal(result.count, want_count);
        assert_memory_equal(result.ids, want, want_count * sizeof *want);
        assert_string_equal(result.text, json_text(json_get(prompt, "greedy_text"), ""));
        assert_int_equal(result.last.finish, ENGINE_FINISH_LENGTH);
        assert_int_equal(result.last.generated_tokens, want_count);
    }
    engine_free(engine);
    arena_release(&arena);
}

static void logprobs_and_prompt_logits_are_the_references(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct arena arena;
    const struct json *model = expected_model(&arena, "stories260K-F32");
    const struct json *prompt = json_at(json_get(model, "prompts"), 0);
    int32_t ids[IDS_MAX];
    size_t len = ids_of(json_get(prompt, "ids"), ids);
    struct engine *engine = open_engine(MODEL_F32, f32);
    struct engine_request request = greedy(ids, len, 8);
    request.want_logprobs = request.prompt_logits = true;
    request.top_logprobs = 5;
    struct engine_seq *seq = submit(engine, &request);
    struct engine_event event;
    assert_null(engine_seq_logits(seq));
    size_t step = 0;
    while (engine_wait(seq, &event, UINT64_MAX)) {
        if (event.kind != ENGINE_TOKEN)
            continue;
        double want;
        assert_true(json_to_double(json_at(json_get(prompt, "greedy_logprob"), step), &want));
        assert_true(fabs((double)event.logprob - want) < 1e-3);
        assert_int_equal(event.top_count, 5);
        assert_int_equal(event.top[0].id, event.token);
        assert_non_null(engine_seq_logits(seq));
        for (size_t i = 0; step == 0 && i < 5; i++) {
            const struct json *pair = json_at(json_get(prompt, "top5"), i);
            int64_t id;
            assert_true(json_to_int64(json_at(pair, 0), &id) && json_to_double(json_at(pair, 1), &want));
            assert_int_equal(event.top[i].id, id);
            assert_true(fabs((double)event.top[i].logprob - want) < 1e-3);
        }
        step++;
    }
    assert_int_equal(step, 8);
    const float *logits = engine_seq_logits(seq);
    int32_t best = 0;
    for (int32_t i = 1; i < 512; i++)
        if (logits[i] > logits[best])
            best = i;
    int64_t want_best;
    assert_true(json_to_int64(json_at(json_get(prompt, "greedy"), 0), &want_best));
    assert_int_equal(best, want_best);
    engine_seq_free(seq);
    engine_free(engine);
    arena_release(&arena);
}

static void stop_strings_end_the_text_before_them(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct engine *engine = open_engine(MODEL_F32, f32);
    const int32_t prompt[] = {1, 403, 407, 261, 378};
    struct engine_request request = greedy(prompt, 5, 100);
    struct result whole, cut;
    run(engine, &request, &whole);
    assert_true(whole.text_len > 60);
    for (size_t at = 1; at + 7 < whole.text_len && at < 60; at += 3)
        for (size_t len = 1; len <= 7; len += 2) {
            const struct engine_text stops[2] = {{"never in the text", 17}, {whole.text + at, len}};
            request.stops = stops;
            request.stop_count = 2;
            run(engine, &request, &cut);
            char needle[8] = "";
            memcpy(needle, whole.text + at, len);
            size_t first = (size_t)(strstr(whole.text, needle) - whole.text);
            assert_int_equal(cut.text_len, first);
            assert_memory_equal(cut.text, whole.text, first);
            assert_int_equal(cut.last.finish, ENGINE_FINISH_STOP);
            assert_true(cut.last.stop_matched);
        }
    engine_free(engine);
}

static void a_full_context_ends_with_length(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    /* 40 is no multiple of a page: the default budget must still hold a whole context. */
    struct engine *engine =
        open_engine(MODEL_F32, (struct engine_params){.context_len = 40, .sequences_max = 1});
    const int32_t prompt[] = {1, 403, 407, 261, 378};
    struct engine_request request = greedy(prompt, 5, 0);
    request.ignore_end = true;
    struct result result;
    run(engine, &request, &result);
    assert_int_equal(result.last.finish, ENGINE_FINISH_LENGTH);
    assert_int_equal(result.count, 35);
    int32_t longest[40];
    for (size_t i = 0; i < 40; i++)
        longest[i] = prompt[i % 5];
    request = greedy(longest, 39, 0);
    run(engine, &request, &result);
    assert_int_equal(result.count + (result.last.finish == ENGINE_FINISH_STOP), 1);
    struct engine_seq *seq;
    struct ph_err err;
    request.prompt_len = 40;
    assert_int_equal(engine_submit(engine, &request, &seq, &err), PH_ERR_LIMIT);
    assert_null(seq);
    assert_non_null(strstr(err.message, "40"));
    engine_free(engine);
}

static void end_tokens_end_unless_ignored(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct engine *engine = open_engine(MODEL_F32, f32);
    const int32_t prompt[] = {1, 403, 407};
    const struct logit_bias eos = {.id = vocab_info(model_vocab(engine_model(engine)))->eos, .bias = 1e6f};
    struct engine_request request = greedy(prompt, 3, 9);
    request.sampling.bias = &eos;
    request.sampling.bias_count = 1;
    struct result result;
    run(engine, &request, &result);
    assert_int_equal(result.last.finish, ENGINE_FINISH_STOP);
    assert_false(result.last.stop_matched);
    assert_int_equal(result.count, 0);
    assert_int_equal(result.last.generated_tokens, 0);
    request.ignore_end = true;
    run(engine, &request, &result);
    assert_int_equal(result.last.finish, ENGINE_FINISH_LENGTH);
    assert_int_equal(result.count, 9);
    assert_int_equal(result.text_len, 0);
    engine_free(engine);
}

static void bad_requests_are_refused_with_reasons(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct engine *engine = open_engine(MODEL_F32, f32);
    const int32_t good[] = {1, 2}, bad[] = {1, 512}, negative[] = {-1};
    const struct engine_text empty = {"", 0}, broken = {"\xFF", 1};
    struct engine_request requests[8];
    for (size_t i = 0; i < 8; i++)
        requests[i] = greedy(good, 2, 1);
    requests[0].prompt_len = 0;
    requests[1].prompt = bad;
    requests[2] = greedy(negative, 1, 1);
    requests[3].top_logprobs = ENGINE_LOGPROBS_MAX + 1;
    requests[4].stops = &empty;
    requests[4].stop_count = 1;
    requests[5].stops = &broken;
    requests[5].stop_count = 1;
    requests[6].stop_count = ENGINE_STOP_COUNT_MAX + 1;
    requests[7].sampling.bias_count = ENGINE_LOGIT_BIAS_MAX + 1;
    for (size_t i = 0; i < 8; i++) {
        struct engine_seq *seq;
        struct ph_err err = {.message = ""};
        if (engine_submit(engine, &requests[i], &seq, &err) != PH_ERR_ARG)
            fail_msg("request %zu was not refused", i);
        assert_null(seq);
        assert_true(strlen(err.message) > 10);
    }
    struct engine *none;
    struct ph_err err;
    struct engine_params params = {.model_path = "/nowhere/model.gguf"};
    assert_int_not_equal(engine_open(&none, &params, &err), PH_OK);
    assert_non_null(strstr(err.message, "/nowhere/model.gguf"));
    assert_null(none);
    engine_free(engine);
}

static void a_full_queue_is_busy(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct engine_params params = {.sequences_max = 1, .queue_max = 2};
    struct engine *engine = open_engine(MODEL_F32, params);
    const int32_t prompt[] = {1, 403, 407};
    struct engine_request request = greedy(prompt, 3, 0);
    request.ignore_end = true;
    struct engine_seq *seqs[3], *refused;
    struct engine_event event;
    seqs[0] = submit(engine, &request);
    while (engine_wait(seqs[0], &event, UINT64_MAX) && event.kind != ENGINE_TOKEN)
        ;
    seqs[1] = submit(engine, &request);
    seqs[2] = submit(engine, &request);
    struct ph_err err;
    assert_int_equal(engine_submit(engine, &request, &refused, &err), PH_ERR_BUSY);
    assert_int_equal(stats_of(engine).waiting, 2);
    engine_cancel(seqs[1]); /* a waiting one can be cancelled too */
    while (engine_wait(seqs[1], &event, UINT64_MAX))
        ;
    assert_int_equal(event.finish, ENGINE_FINISH_CANCELLED);
    assert_int_equal(stats_of(engine).waiting, 1); /* the scheduler has looked at the other one meanwhile */
    engine_seq_free(seqs[1]);
    seqs[1] = submit(engine, &request); /* there is room again */
    for (size_t i = 0; i < 3; i++)
        engine_seq_free(seqs[i]);
    engine_free(engine);
}

/* What fits beside nothing else is taken in, however late the scheduler looks. */
static void an_idle_engine_takes_its_capacity(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct engine_params params = {.sequences_max = 2, .queue_max = 3};
    struct engine *engine = open_engine(MODEL_F32, params);
    assert_int_equal(engine_capacity(engine), 5);
    const int32_t prompt[] = {1, 403, 407};
    struct engine_request request = greedy(prompt, 3, 2);
    for (int round = 0; round < 20; round++) {
        struct engine_seq *seqs[5];
        struct result result;
        for (size_t i = 0; i < 5; i++)
            seqs[i] = submit(engine, &request);
        for (size_t i = 0; i < 5; i++) {
            read_to_end(seqs[i], &result);
            assert_int_equal(result.count, 2);
            engine_seq_free(seqs[i]);
        }
        assert_int_equal(stats_of(engine).waiting, 0);
    }
    engine_free(engine);
}

/* ---- Wake and wait */

struct waker {
    uv_sem_t sem;
    size_t calls;
};

static void wake(void *ud)
{
    struct waker *waker = ud;
    waker->calls++;
    uv_sem_post(&waker->sem);
}

static void wake_comes_once_after_reading_nothing(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct engine *engine = open_engine(MODEL_F32, f32);
    const int32_t prompt[] = {1, 403, 407};
    struct waker waker = {.calls = 0};
    uv_sem_init(&waker.sem, 0);
    struct engine_request request = greedy(prompt, 3, 40);
    request.wake = wake;
    request.ud = &waker;
    struct engine_seq *seq = submit(engine, &request);
    size_t reads = 0, tokens = 0;
    bool over = false;
    while (!over) {
        struct engine_event event;
        uv_sem_wait(&waker.sem);
        while (engine_read(seq, &event)) {
            tokens += event.kind == ENGINE_TOKEN;
            over = event.kind == ENGINE_FINISH;
        }
        reads++;
    }
    assert_int_equal(tokens, 40);
    assert_int_equal(waker.calls, reads); /* never more than one for each time nothing was there */
    engine_seq_free(seq);
    uv_sem_destroy(&waker.sem);
    engine_free(engine);
}

static void waiting_times_out(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct engine_params params = {.sequences_max = 1};
    struct engine *engine = open_engine(MODEL_F32, params);
    const int32_t prompt[] = {1, 403, 407};
    struct engine_request request = greedy(prompt, 3, 0);
    request.ignore_end = true;
    struct engine_seq *first = submit(engine, &request), *second = submit(engine, &request);
    struct engine_event event;
    /* The first one is not read, so it stays before the second until its pages are wanted for a second. */
    assert_false(engine_wait(second, &event, 20000000));
    engine_seq_free(first);
    assert_true(engine_wait(second, &event, UINT64_MAX));
    engine_seq_free(second);
    engine_free(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_prompts_together_say_what_the_reference_says),
        cmocka_unit_test(logprobs_and_prompt_logits_are_the_references),
        cmocka_unit_test(stop_strings_end_the_text_before_them),
        cmocka_unit_test(a_full_context_ends_with_length),
        cmocka_unit_test(end_tokens_end_unless_ignored),
        cmocka_unit_test(bad_requests_are_refused_with_reasons),
        cmocka_unit_test(a_full_queue_is_busy),
        cmocka_unit_test(an_idle_engine_takes_its_capacity),
        cmocka_unit_test(wake_comes_once_after_reading_nothing),
        cmocka_unit_test(waiting_times_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
