/* Many sequences at once: E1 (texts do not depend on company), E3 and E4 (pages come back, nobody is dropped),
 * slow readers, closing in the middle, memory over time. */
#include <uv.h>

#include "base/clock.h"
#include "engine_test.h"

#define STREAMS (SANITIZED ? 10 : 32) /* sanitizers and slow kernels multiply */
#define TOKENS_MAX (SANITIZED ? 30 : 100)
#define PROMPT_MAX 200

struct stream {
    int32_t prompt[PROMPT_MAX];
    struct engine_request request;
    struct engine_seq *seq;
    struct result alone, together;
    size_t cancel_after; /* tokens; 0: never */
};

/* Prompts of 1 to 200 tokens, greedy and sampled, with and without penalties and end tokens. */
static void make_stream(struct stream *stream, struct rng *rng)
{
    size_t len = 1 + (size_t)(rng_u64(rng) % (rng_u64(rng) % 4 ? 40 : PROMPT_MAX));
    stream->prompt[0] = 1;
    for (size_t i = 1; i < len; i++)
        stream->prompt[i] = (int32_t)(3 + rng_u64(rng) % 509);
    stream->request = greedy(stream->prompt, len, 20 + (size_t)(rng_u64(rng) % TOKENS_MAX));
    struct sampler_params *sampling = &stream->request.sampling;
    sampling->seed = rng_u64(rng);
    if (rng_u64(rng) % 3)
        sampling->temperature = 0.5f + rng_float(rng);
    if (rng_u64(rng) % 2) {
        sampling->penalty_last_n = 64;
        sampling->repeat_penalty = 1.2f;
    }
    if (rng_u64(rng) % 3 == 0)
        stream->cancel_after = 1 + (size_t)(rng_u64(rng) % 20);
}

static void run_alone(struct stream *streams, const struct engine_params *params)
{
    struct engine *engine = open_engine(MODEL_F32, *params);
    for (size_t i = 0; i < STREAMS; i++)
        run(engine, &streams[i].request, &streams[i].alone);
    engine_free(engine);
}

/* Reads what is there; answers whether the sequence is over. */
static bool poll_stream(struct stream *stream)
{
    struct engine_event event;
    while (engine_read(stream->seq, &event)) {
        take(&stream->together, &event);
        if (stream->cancel_after && stream->together.count == stream->cancel_after)
            engine_cancel(stream->seq);
        if (event.kind == ENGINE_FINISH)
            return true;
    }
    return false;
}

static void check_stream(const struct stream *stream)
{
    const struct result *alone = &stream->alone, *together = &stream->together;
    if (together->last.finish == ENGINE_FINISH_CANCELLED) {
        assert_true(stream->cancel_after > 0 && together->count <= alone->count);
        assert_memory_equal(together->ids, alone->ids, together->count * sizeof *alone->ids);
        return;
    }
    assert_int_equal(together->last.finish, alone->last.finish);
    assert_int_equal(together->count, alone->count);
    assert_memory_equal(together->ids, alone->ids, alone->count * sizeof *alone->ids);
    assert_string_equal(together->text, alone->text);
}

static void ring(void *ud)
{
    uv_sem_post(ud);
}

/* Streams join at random moments, some are cancelled; every text must be what it is alone. */
static struct engine_stats run_together(struct stream *streams, const struct engine_params *params,
                                        struct rng *rng, bool at_once)
{
    struct engine *engine = open_engine(MODEL_F32, *params);
    size_t joined = 0, left = STREAMS;
    uv_sem_t news;
    uv_sem_init(&news, 0);
    while (left > 0) {
        bool all = joined == STREAMS, none = joined == STREAMS - left;
        if (!none && (all || !at_once))
            uv_sem_wait(&news);
        if (!all && (none || at_once || rng_u64(rng) % 20 == 0)) {
            streams[joined].together = (struct result){.count = 0};
            streams[joined].request.wake = ring;
            streams[joined].request.ud = &news;
            streams[joined].seq = submit(engine, &streams[joined].request);
            joined++;
        }
        for (size_t i = 0; i < joined; i++)
            if (streams[i].seq && poll_stream(&streams[i])) {
                engine_seq_free(streams[i].seq);
                streams[i].seq = NULL;
                left--;
            }
    }
    for (size_t i = 0; i < STREAMS; i++)
        check_stream(&streams[i]);
    struct engine_stats stats = stats_of(engine);
    assert_int_equal(stats.kv_pages_used, 0);
    assert_int_equal(stats.running, 0);
    assert_int_equal(stats.waiting, 0);
    assert_int_equal(stats.finished_error, 0);
    assert_int_equal(stats.finished_stop + stats.finished_length + stats.finished_cancelled, STREAMS);
    engine_free(engine);
    uv_sem_destroy(&news);
    return stats;
}

static void texts_do_not_depend_on_company(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    static struct stream streams[STREAMS];
    struct rng rng;
    rng_init(&rng, 7);
    for (size_t i = 0; i < STREAMS; i++)
        make_stream(&streams[i], &rng);
    const struct engine_params roomy = {.kv_type = TENSOR_F16};
    run_alone(streams, &roomy);
    run_together(streams, &roomy, &rng, false);
    const struct engine_params chunked = {
        .kv_type = TENSOR_F16, .prefill_chunk = 7, .sequences_max = 5, .threads = 1};
    run_together(streams, &chunked, &rng, false);
}

static void preemption_changes_no_text(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    static struct stream streams[STREAMS];
    struct rng rng;
    rng_init(&rng, 11);
    for (size_t i = 0; i < STREAMS; i++) {
        make_stream(&streams[i], &rng);
        streams[i].request.max_tokens = 150;
    }
    /* Room for one context of 320 tokens and no more, for all of them. */
    struct engine_params tight = {.kv_type = TENSOR_F16, .context_len = 320};
    const struct engine_params roomy = {.kv_type = TENSOR_F16, .context_len = 320};
    run_alone(streams, &roomy);
    struct engine *engine = open_engine(MODEL_F32, roomy);
    tight.kv_bytes_max = (size_t)model_info(engine_model(engine))->kv_bytes_per_token_f16 * 320;
    engine_free(engine);
    struct engine_stats stats = run_together(streams, &tight, &rng, true);
    assert_true(stats.preemptions > 0);
}

static void a_slow_reader_holds_up_only_itself(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    const struct engine_params params = {.kv_type = TENSOR_F16, .sequences_max = 2};
    struct engine *engine = open_engine(MODEL_F32, params);
    const int32_t prompt[] = {1, 403, 407, 261, 378};
    struct engine_request request = greedy(prompt, 5, 300);
    request.ignore_end = true;
    struct result alone, quick, slow;
    run(engine, &request, &alone);
    assert_int_equal(alone.count, 300);
    struct engine_seq *seq = submit(engine, &request);
    for (int i = 0; i < 3; i++) { /* the slow one is stuck at its full ring meanwhile */
        run(engine, &request, &quick);
        assert_string_equal(quick.text, alone.text);
    }
    assert_int_equal(stats_of(engine).running, 1);
    assert_true(stats_of(engine).generated_tokens <= 4 * 300 + ENGINE_EVENTS_MAX + 1);
    read_to_end(seq, &slow);
    assert_string_equal(slow.text, alone.text);
    engine_seq_free(seq);
    engine_free(engine);
}

/* One place; its holder does not read; who waits gets the place after a second, and the holder loses nothing. */
static void a_stuck_reader_gives_its_place_away(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    const struct engine_params params = {.kv_type = TENSOR_F16, .sequences_max = 1};
    struct engine *engine = open_engine(MODEL_F32, params);
    const int32_t prompt[] = {1, 403, 407, 261, 378};
    struct engine_request request = greedy(prompt, 5, 200);
    request.ignore_end = true;
    struct result first, second;
    struct engine_seq *stuck = submit(engine, &request);
    run(engine, &request, &second);
    assert_int_equal(second.count, 200);
    assert_int_equal(stats_of(engine).preemptions, 1);
    read_to_end(stuck, &first);
    assert_string_equal(first.text, second.text);
    engine_seq_free(stuck);
    engine_free(engine);
}

/* A conversation: each turn sends what the last one sent and said. */
static void going_on_from_a_prompt_saves_its_prefill(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    const struct engine_params params = {.kv_type = TENSOR_F16};
    struct engine *kept = open_engine(MODEL_F32, params);
    int32_t prompt[IDS_MAX] = {1};
    size_t len = 80, last_len = 0;
    for (size_t i = 1; i < len; i++)
        prompt[i] = (int32_t)(3 + i * 7 % 500);
    for (int turn = 0; turn < 4; turn++) {
        struct engine_request request = greedy(prompt, len, 30);
        struct result with, without;
        struct engine *fresh = open_engine(MODEL_F32, params);
        request.ignore_end = true;
        run(kept, &request, &with);
        run(fresh, &request, &without);
        engine_free(fresh);
        assert_int_equal(with.last.cached_tokens, last_len);
        assert_int_equal(without.last.cached_tokens, 0);
        assert_memory_equal(with.ids, without.ids, 30 * sizeof *with.ids);
        last_len = len;
        memcpy(prompt + len, with.ids, 30 * sizeof *with.ids);
        len += 30;
    }
    struct engine_request again =
        greedy(prompt, last_len, 1); /* the same once more: all but its last token */
    struct result result;
    run(kept, &again, &result);
    assert_int_equal(result.last.cached_tokens, last_len - 1);
    prompt[20] = 9; /* shares too little of the entry to be worth it */
    run(kept, &again, &result);
    assert_int_equal(result.last.cached_tokens, 0);
    assert_int_equal(stats_of(kept).kv_pages_used, 0);
    engine_free(kept);
}

static void cancelling_gives_pages_back(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct engine *engine = open_engine(MODEL_F32, (struct engine_params){.kv_type = TENSOR_F16});
    const int32_t prompt[] = {1, 403, 407};
    struct engine_request request = greedy(prompt, 3, 0);
    request.ignore_end = true;
    struct engine_seq *seq = submit(engine, &request);
    struct result result = {.count = 0};
    struct engine_event event;
    while (result.count < 5 && engine_wait(seq, &event, UINT64_MAX))
        take(&result, &event);
    assert_true(stats_of(engine).kv_pages_used > 0);
    engine_cancel(seq);
    read_to_end(seq, &result);
    assert_int_equal(result.last.finish, ENGINE_FINISH_CANCELLED);
    assert_int_equal(stats_of(engine).kv_pages_used, 0);
    engine_seq_free(seq);
    seq = submit(engine, &request); /* freeing is cancelling */
    engine_seq_free(seq);
    const struct engine_request last = greedy(prompt, 3, 1);
    run(engine, &last, &result);
    assert_int_equal(stats_of(engine).finished_cancelled, 2);
    engine_free(engine);
}

static void closing_cancels_and_leaves_the_rest_to_read(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct engine *engine =
        open_engine(MODEL_F32, (struct engine_params){.kv_type = TENSOR_F16, .sequences_max = 4});
    const int32_t prompt[] = {1, 403, 407};
    struct engine_request request = greedy(prompt, 3, 0);
    request.ignore_end = true;
    struct engine_seq *seqs[8];
    struct engine_event event;
    for (size_t i = 0; i < 8; i++)
        seqs[i] = submit(engine, &request);
    while (engine_wait(seqs[0], &event, UINT64_MAX) && event.kind != ENGINE_TOKEN)
        ;
    engine_free(engine);
    for (size_t i = 0; i < 8; i++) {
        struct result result;
        read_to_end(seqs[i], &result);
        assert_int_equal(result.last.finish, ENGINE_FINISH_CANCELLED);
        engine_cancel(seqs[i]);
        engine_seq_free(seqs[i]);
    }
}

static size_t resident_bytes(void)
{
    struct buf text;
    buf_init(&text, 4096);
    assert_int_equal(file_read("/proc/self/statm", &text, NULL), PH_OK);
    char *end;
    (void)strtoul(text.data, &end, 10);
    size_t pages = strtoul(end, NULL, 10);
    buf_release(&text);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void short_requests_leave_memory_flat(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct engine *engine = open_engine(MODEL_F32, (struct engine_params){.kv_type = TENSOR_F16});
    const int32_t prompt[] = {403};
    const struct engine_request request = greedy(prompt, 1, 1);
    size_t rounds = SANITIZED ? 20 : 313, before = 0;
    for (size_t round = 0; round < rounds; round++) {
        struct engine_seq *seqs[32];
        struct result result;
        for (size_t i = 0; i < 32; i++)
            seqs[i] = submit(engine, &request);
        for (size_t i = 0; i < 32; i++) {
            read_to_end(seqs[i], &result);
            engine_seq_free(seqs[i]);
        }
        if (round == rounds / 10)
            before = resident_bytes();
    }
    assert_int_equal(stats_of(engine).finished_length, rounds * 32);
    /* How many were there at once is luck, so the allocators' high-water mark still moves; 9,000 lost sequences
     * would be more than 200 MB, and small losses are the leak sanitizer's to find. */
    if (!SANITIZED)
        assert_in_range(resident_bytes(), 0, before + (4 << 20));
    engine_free(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_requests_leave_memory_flat), /* first: a fresh heap shows most */
        cmocka_unit_test(texts_do_not_depend_on_company),
        cmocka_unit_test(preemption_changes_no_text),
        cmocka_unit_test(a_slow_reader_holds_up_only_itself),
        cmocka_unit_test(a_stuck_reader_gives_its_place_away),
        cmocka_unit_test(going_on_from_a_prompt_saves_its_prefill),
        cmocka_unit_test(cancelling_gives_pages_back),
        cmocka_unit_test(closing_cancels_and_leaves_the_rest_to_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
