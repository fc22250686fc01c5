/* E2: a decode step allocates nothing. The allocator's door is counted while a sequence runs. */
#include <stdatomic.h>

#include "engine_test.h"

static atomic_size_t allocations;

#if !SANITIZED && defined(__GLIBC__)
#define COUNTS 1
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_realloc(old, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : 12;
}
#else
#define COUNTS 0
#endif

static void steps_allocate_nothing(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    if (!COUNTS)
        skip();
    struct engine *engine = open_engine(MODEL_F32, (struct engine_params){.kv_type = TENSOR_F16});
    const int32_t prompt[] = {1, 403, 407, 261, 378};
    const struct engine_text stop = {"no such text", 12};
    struct engine_request request = greedy(prompt, 5, 120);
    request.sampling.temperature = 1;
    request.sampling.top_p = 0.9f;
    request.sampling.penalty_last_n = -1;
    request.sampling.repeat_penalty = 1.1f;
    request.want_logprobs = true;
    request.top_logprobs = 20;
    request.ignore_end = true;
    request.stops = &stop;
    request.stop_count = 1;
    struct engine_seq *seqs[3];
    struct engine_event event;
    size_t before = atomic_load(&allocations);
    for (size_t i = 0; i < 3; i++)
        seqs[i] = submit(engine, &request);
    size_t submitted = atomic_load(&allocations), tokens = 0;
    assert_true(submitted > before); /* the counter works */
    for (size_t i = 0; i < 3; i++)
        while (engine_wait(seqs[i], &event, UINT64_MAX))
            tokens += event.kind == ENGINE_TOKEN;
    assert_int_equal(tokens, 3 * 120);
    assert_int_equal(atomic_load(&allocations) - submitted, 0);
    for (size_t i = 0; i < 3; i++)
        engine_seq_free(seqs[i]);
    engine_free(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_allocate_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
