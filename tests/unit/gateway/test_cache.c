/* The cache's store and its keys: what is equal, who stays, what happens when memory is short.
 * This program defines base/mem.h's functions itself. */
#include "base/json.h"
#include "base/mem.h"
#include "gateway/cache.h"
#include "test_support.h"

static long long live, fail_after = -1; /* allocations; those that still succeed, negative: all do */

static bool may_allocate(void)
{
    return fail_after < 0 || fail_after-- > 0;
}

static void *note(void *memory)
{
    live += memory != NULL;
    return memory;
}

void *mem_alloc(size_t size)
{
    return may_allocate() ? note(malloc(size ? size : 1)) : NULL;
}

void *mem_calloc(size_t count, size_t size)
{
    return may_allocate() ? note(calloc(count ? count : 1, size ? size : 1)) : NULL;
}

void *mem_realloc(void *old, size_t count, size_t size)
{
    if (!may_allocate())
        return NULL;
    live -= old != NULL;
    return note(realloc(old, count * size + 1));
}

void *mem_alloc_aligned(size_t alignment, size_t size)
{
    void *memory = NULL;
    if (!may_allocate() || posix_memalign(&memory, alignment, size ? size : 1) != 0)
        return NULL;
    return note(memset(memory, 0, size));
}

char *mem_strdup(const char *text)
{
    char *copy = mem_alloc(strlen(text) + 1);
    return copy ? memcpy(copy, text, strlen(text) + 1) : NULL;
}

void mem_free(void *memory)
{
    live -= memory != NULL;
    free(memory);
}

static uint64_t now;

static uint64_t test_now(void *ud)
{
    (void)ud;
    return now;
}

static int64_t test_unix_ms(void *ud)
{
    (void)ud;
    return 0;
}

static const struct clock_source test_clock = {test_now, test_unix_ms, NULL};

static struct cache *open_cache(size_t bytes_max, bool shared)
{
    struct cache *cache;
    struct cache_params params = {.bytes_max = bytes_max,
                                  .ttl_ns = 100,
                                  .shared = shared,
                                  .default_model = "first",
                                  .clock = &test_clock};
    now = 1000;
    assert_int_equal(cache_create(&cache, &params), PH_OK);
    return cache;
}

/* ---- Keys */

struct asker {
    const char *dialect, *account, *body, *betas;
    enum chat_kind kind;
};

static void make_key(struct cache *cache, const struct asker *asker, struct cache_key *out)
{
    struct arena arena;
    struct json *body;
    arena_init(&arena, 1 << 20);
    assert_int_equal(json_parse(&arena, asker->body, strlen(asker->body), &body, NULL), PH_OK);
    struct chat_request request = {.arena = &arena,
                                   .kind = asker->kind,
                                   .model = json_text(json_get(body, "model"), NULL),
                                   .api_betas = asker->betas,
                                   .metadata = json_get(body, "metadata"),
                                   .raw = body};
    assert_true(cache_key_make(cache, &arena, asker->dialect, asker->account, &request, out));
    arena_release(&arena);
}

static bool same_in(bool shared, const struct asker *a, const struct asker *b)
{
    struct cache *cache = open_cache(1 << 20, shared);
    struct cache_key m, n;
    make_key(cache, a, &m);
    make_key(cache, b, &n);
    cache_free(cache);
    return memcmp(&m, &n, sizeof m) == 0;
}

static void the_same_request_has_the_same_key(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"{\"a\":1,\"b\":{\"c\":[1,2],\"d\":\"x\"}}", "{ \"b\" : {\"d\":\"x\",\"c\":[1,2]} , \"a\":1}"},
        {"{\"t\":1}", "{\"t\":1.0}"},
        {"{\"t\":0.50}", "{\"t\":5e-1}"},
        {"{\"t\":0}", "{\"t\":-0.0}"},
        {"{\"t\":\"\\u00e9\\/\"}", "{\"t\":\"\xc3\xa9/\"}"},
        {"{\"t\":1,\"stream\":true,\"stream_options\":{\"include_usage\":true}}", "{\"t\":1}"},
        {"{\"t\":1,\"user\":\"me\",\"safety_identifier\":\"me\",\"store\":true}", "{\"t\":1}"},
        {"{\"t\":1,\"metadata\":{\"run\":\"7\"},\"prompt_cache_key\":\"k\"}", "{\"t\":1}"},
        {"{\"model\":\"default\"}", "{}"},
        {"{\"model\":\"\"}", "{\"model\":null}"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct asker a = {"openai", "A", pairs[i][0], NULL, CHAT_KIND_CHAT};
        struct asker b = {"openai", "A", pairs[i][1], NULL, CHAT_KIND_CHAT};
        if (!same_in(false, &a, &b))
            fail_msg("differ: %s %s", pairs[i][0], pairs[i][1]);
    }
}

static void another_request_has_another_key(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"{\"t\":1}", "{\"t\":2}"},
        {"{\"t\":1}", "{\"t\":\"1\"}"},
        {"{\"t\":1}", "{\"t\":true}"},
        {"{\"t\":1}", "{\"t\":[1]}"},
        {"{\"t\":null}", "{\"t\":false}"},
        {"{\"t\":null}", "{}"},
        {"{\"t\":[]}", "{\"t\":{}}"},
        {"{\"t\":\"\"}", "{\"t\":[]}"},
        {"{\"t\":[1,2]}", "{\"t\":[2,1]}"},
        {"{\"t\":[[1],2]}", "{\"t\":[[1,2]]}"},
        {"{\"t\":[\"ab\",\"c\"]}", "{\"t\":[\"a\",\"bc\"]}"},
        {"{\"ab\":\"c\"}", "{\"a\":\"bc\"}"},
        {"{\"a\":{\"b\":1},\"c\":2}", "{\"a\":{\"b\":1,\"c\":2}}"},
        {"{\"t\":1,\"t\":2}", "{\"t\":2,\"t\":1}"},
        {"{\"t\":\"a\\u0000b\"}", "{\"t\":\"a\\u0000c\"}"},
        {"{\"t\":{\"a\\u0000b\":1}}", "{\"t\":{\"a\\u0000c\":1}}"},
        {"{\"seed\":18446744073709551614}", "{\"seed\":18446744073709551615}"},
        {"{\"t\":0.123456789012345678}", "{\"t\":0.123456789012345679}"},
        {"{\"t\":{\"user\":\"a\"}}", "{\"t\":{\"user\":\"b\"}}"}, /* left out of the body only */
        {"{\"t\":{\"stream\":true}}", "{\"t\":{}}"},
        {"{\"model\":\"a\"}", "{\"model\":\"b\"}"},
        {"{\"metadata\":{\"task\":\"nuance\"}}", "{\"metadata\":{\"task\":\"plain\"}}"},
    };
    static const struct asker base = {"openai", "A", "{\"t\":1}", NULL, CHAT_KIND_CHAT};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct asker a = base, b = base;
        a.body = pairs[i][0];
        b.body = pairs[i][1];
        if (same_in(false, &a, &b))
            fail_msg("the same: %s %s", pairs[i][0], pairs[i][1]);
    }
    static const struct asker others[] = {{"anthropic", "A", "{\"t\":1}", NULL, CHAT_KIND_CHAT},
                                          {"openai", "A", "{\"t\":1}", "beta", CHAT_KIND_CHAT},
                                          {"openai", "A", "{\"t\":1}", NULL, CHAT_KIND_COMPLETION}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(same_in(false, &base, &others[i]));
    struct asker other = base;
    other.account = "B";
    assert_false(same_in(false, &base, &other));
    assert_true(same_in(true, &base, &other));
}

/* ---- Who stays */

static struct cache_key key_of(unsigned n)
{
    struct cache_key key = {{(unsigned char)n, (unsigned char)(n >> 8)}};
    key.bytes[20] = (unsigned char)(n >> 16); /* beyond what chooses the chain */
    return key;
}

static void put(struct cache *cache, unsigned n, const char *bytes, size_t len)
{
    struct cache_key key = key_of(n);
    cache_put(cache, &key, &(struct cache_found){bytes, len, n, 0});
}

static bool has(struct cache *cache, unsigned n, const char *bytes, size_t len)
{
    struct cache_key key = key_of(n);
    struct cache_found found;
    return cache_find(cache, &key, &found) && found.len == len && found.model == n &&
           memcmp(found.bytes, bytes, len) == 0;
}

static void answers_come_back_until_they_are_old(void **state)
{
    (void)state;
    struct cache *cache = open_cache(1 << 20, false);
    struct cache_key key = key_of(1);
    struct cache_found found;
    struct cache_stats s;
    assert_false(cache_find(cache, &key, &found));
    put(cache, 1, "one", 3);
    put(cache, 1u << 16 | 1, "other", 5); /* the same chain */
    now += 99;
    put(cache, 2, "two", 3);
    assert_true(cache_find(cache, &key, &found));
    assert_int_equal(found.age_ns, 99);
    assert_true(has(cache, 1, "one", 3) && has(cache, 1u << 16 | 1, "other", 5));
    put(cache, 1, "uno", 3); /* renewed */
    now += 1;
    assert_true(has(cache, 1, "uno", 3) && has(cache, 2, "two", 3));
    assert_false(has(cache, 1u << 16 | 1, "other", 5));
    cache_read_stats(cache, &s);
    assert_true(s.entries == 2 && s.stored == 4 && s.expired == 1 && s.evicted == 0);
    now += 100;
    assert_false(has(cache, 1, "uno", 3) || has(cache, 2, "two", 3));
    size_t before = s.bytes;
    cache_read_stats(cache, &s);
    assert_true(s.entries == 0 && s.bytes < before);
    cache_put(cache, &key, &(struct cache_found){"elsewhere", 9, 1, 99}); /* as old as it says */
    assert_true(has(cache, 1, "elsewhere", 9));
    now += 1;
    assert_false(has(cache, 1, "elsewhere", 9));
    cache_count(cache, CACHE_MEMORY);
    cache_count(cache, CACHE_REDIS);
    cache_count(cache, CACHE_MISS);
    cache_read_stats(cache, &s);
    assert_true(s.hits == 2 && s.redis_hits == 1 && s.misses == 1);
    cache_free(cache);
    assert_int_equal(live, 0);
}

static void the_least_recently_used_goes(void **state)
{
    (void)state;
    static char text[8192];
    struct cache *cache = open_cache(64 << 10, false);
    struct cache_stats s;
    size_t most = cache_answer_bytes_max(cache);
    assert_int_equal(most, sizeof text);
    put(cache, 0, text, most + 1); /* too large for one */
    cache_read_stats(cache, &s);
    assert_int_equal(s.entries, 0);
    for (unsigned i = 0; i < 1000; i++) {
        put(cache, i, text, 1 + i * 37 % most);
        assert_true(has(cache, i, text, 1 + i * 37 % most));
        assert_true(i == 0 || has(cache, 0, text, 1)); /* used all the time: it stays */
        cache_read_stats(cache, &s);
        assert_true(s.bytes <= s.bytes_max);
    }
    assert_true(s.evicted > 900 && s.entries > 4);
    assert_int_equal(s.stored, s.evicted + s.entries);
    assert_false(has(cache, 1, text, 38));
    cache_free(cache);
    struct cache *tiny = open_cache(16, false); /* less than its own table */
    put(tiny, 1, "a", 1);
    assert_false(has(tiny, 1, "a", 1));
    cache_free(tiny);
    assert_int_equal(live, 0);
}

static void no_memory_is_no_harm(void **state)
{
    (void)state;
    struct cache_params params = {.bytes_max = 1 << 20, .ttl_ns = 100, .clock = &test_clock};
    for (long long n = 0;; n++) {
        struct cache *cache;
        fail_after = n;
        enum ph_status status = cache_create(&cache, &params);
        if (status == PH_OK) {
            put(cache, 1, "one", 3);
            fail_after = -1;
            bool kept = has(cache, 1, "one", 3);
            put(cache, 1, "two", 3);
            assert_true(has(cache, 1, "two", 3));
            fail_after = 0;
            put(cache, 1, "three", 5); /* the old one stays */
            fail_after = -1;
            assert_true(has(cache, 1, "two", 3));
            cache_free(cache);
            assert_int_equal(live, 0);
            if (kept)
                break;
        }
        fail_after = -1;
        assert_int_equal(live, 0);
        assert_true(n < 100);
    }
    struct cache *cache = open_cache(1 << 20, false);
    struct arena arena, none;
    struct json *body;
    struct cache_key key;
    arena_init(&arena, 1 << 20);
    arena_init(&none, 0);
    assert_int_equal(json_parse(&arena, "{\"a\":{}}", 8, &body, NULL), PH_OK);
    struct chat_request request = {.raw = body};
    assert_false(cache_key_make(cache, &none, "openai", "", &request, &key));
    request.raw = NULL;
    assert_false(cache_key_make(cache, &arena, "openai", "", &request, &key));
    arena_release(&arena);
    arena_release(&none);
    cache_free(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_request_has_the_same_key),
        cmocka_unit_test(another_request_has_another_key),
        cmocka_unit_test(answers_come_back_until_they_are_old),
        cmocka_unit_test(the_least_recently_used_goes),
        cmocka_unit_test(no_memory_is_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
