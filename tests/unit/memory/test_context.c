/* Indexes and contexts: what is found, what is chosen, what it costs, why. */
#include <stdio.h>
#include <string.h>

#include "memory/context.h"
#include "memory/text_int.h"
#include "test_support.h"

static const char *const talk[][2] = {
    {"Anna", "We finally bought the lighthouse keeper's cottage near Bodø!"},
    {"Ben", "No way! What did it cost you?"},
    {"Anna", "Less than the boat, 95000 kroner with the furniture."},
    {"Ben", "My sister Clara is moving to Lisbon in March."},
    {"Anna", "She will love the trams there."},
    {"Ben", "I planted tomatoes on the balcony yesterday."},
    {"Anna", "The old stove in the kitchen smokes, so we cook outside."},
    {"Ben", "Football was cancelled because of the snow."},
};
#define TALK (sizeof talk / sizeof *talk)

static struct memory_index *talk_index(int64_t conversation)
{
    struct memory_index *index;
    assert_int_equal(memory_index_create(&index, &(struct index_params){0}, NULL), PH_OK);
    for (size_t i = 0; i < TALK; i++) {
        struct index_turn turn = {.message = (int64_t)i + 1,
                                  .conversation = conversation,
                                  .role = "user",
                                  .name = talk[i][0],
                                  .text = talk[i][1],
                                  .text_len = strlen(talk[i][1]),
                                  .created_at = 1700000000 + (int64_t)i * 60,
                                  .tokens = memory_token_estimate(talk[i][0], strlen(talk[i][1]))};
        assert_int_equal(memory_index_add(index, &turn), PH_OK);
    }
    return index;
}

struct built {
    struct arena arena;
    struct context_result result;
};

static void build(struct built *built, const struct memory_index *index, struct context_request request)
{
    arena_init(&built->arena, 1 << 26);
    request.query_len = request.query ? strlen(request.query) : 0;
    assert_int_equal(context_build(index, &request, &built->arena, &built->result, NULL), PH_OK);
    assert_true(built->result.tokens <= request.budget_tokens);
    uint32_t tokens = 0;
    for (size_t i = 0; i < built->result.count; i++) {
        tokens += built->result.items[i].tokens;
        if (i)
            assert_true(built->result.items[i].message > built->result.items[i - 1].message);
    }
    assert_int_equal(tokens, built->result.tokens);
}

static bool has(const struct built *built, int64_t message)
{
    for (size_t i = 0; i < built->result.count; i++)
        if (built->result.items[i].message == message)
            return true;
    return false;
}

static void test_words(void **state)
{
    (void)state;
    struct text_stemmer *stemmer;
    assert_int_equal(text_stemmer_create(&stemmer, NULL, NULL), PH_OK);
    struct text_reader reader;
    struct text_word word;
    const char text[] =
        "Anna's cafés: DON\xE2\x80\x99T stop \xFF\xFE running 2023 \xE4\xBD\xA0\xE5\xA5\xBD\xE5\x90\x97";
    const char *const expected[] = {"anna",
                                    "cafes",
                                    "dont",
                                    "stop",
                                    "running",
                                    "2023",
                                    "\xE4\xBD\xA0\xE5\xA5\xBD",
                                    "\xE5\xA5\xBD\xE5\x90\x97"};
    text_reader_init(&reader, stemmer, text, sizeof text - 1);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        assert_true(text_next(&reader, &word));
        assert_string_equal(word.folded, expected[i]);
    }
    assert_false(text_next(&reader, &word));
    text_stemmer_free(stemmer);
    assert_int_equal(text_stemmer_create(&stemmer, "klingon", NULL), PH_ERR_ARG);
}

static void test_finds(void **state)
{
    (void)state;
    struct memory_index *index = talk_index(7);
    assert_int_equal(memory_index_turns(index), TALK);
    assert_int_equal(memory_index_last(index), TALK);
    struct context_request request = {
        .conversation = 7, .query = "Where does the lighthouse stand?", .budget_tokens = 40};
    for (int s = CONTEXT_SEMANTIC_FOCUS; s < CONTEXT_STRATEGY_COUNT; s++) {
        struct built built;
        request.strategy = (enum context_strategy)s;
        build(&built, index, request);
        assert_true(has(&built, 1));
        arena_release(&built.arena);
    }
    memory_index_free(index);
}

static void test_explains(void **state)
{
    (void)state;
    struct memory_index *index = talk_index(7);
    struct built built;
    build(&built, index,
          (struct context_request){
              .query = "Who moves to Lisbon?", .budget_tokens = 30, .strategy = CONTEXT_HYBRID});
    assert_true(has(&built, 4));
    const struct context_item *item = &built.result.items[0];
    while (item->message != 4)
        item++;
    bool named = false;
    for (size_t i = 0; i < item->reason_count; i++)
        named = named || strstr(item->reasons[i].what, "lisbon");
    assert_true(named);
    assert_int_equal(item->conversation, 7);
    arena_release(&built.arena);
    memory_index_free(index);
}

static void test_recent(void **state)
{
    (void)state;
    struct memory_index *index = talk_index(7);
    struct built built;
    build(&built, index, (struct context_request){.strategy = CONTEXT_RECENT_ONLY, .budget_tokens = 30});
    assert_true(has(&built, TALK));
    assert_false(has(&built, 1));
    arena_release(&built.arena);
    struct context_request request = {
        .query = "lighthouse", .strategy = CONTEXT_HYBRID, .budget_tokens = 60, .keep_recent = 2};
    build(&built, index, request);
    assert_true(has(&built, TALK) && has(&built, TALK - 1) && has(&built, 1));
    assert_true(built.result.items[built.result.count - 1].is_recent);
    arena_release(&built.arena);
    memory_index_free(index);
}

static void test_scope(void **state)
{
    (void)state;
    struct memory_index *index = talk_index(7);
    struct index_turn other = {
        .message = 100, .conversation = 8, .role = "user", .text = "lighthouse", .text_len = 10, .tokens = 4};
    assert_int_equal(memory_index_add(index, &other), PH_OK);
    struct context_request request = {
        .conversation = 8, .query = "lighthouse", .strategy = CONTEXT_HYBRID, .budget_tokens = 1000};
    struct built built;
    build(&built, index, request);
    assert_int_equal(built.result.count, 1);
    assert_true(has(&built, 100));
    arena_release(&built.arena);
    request.conversation = 7;
    request.after = 1;
    request.before = 5;
    build(&built, index, request);
    assert_int_equal(built.result.count, 3);
    assert_false(has(&built, 1) || has(&built, 5));
    arena_release(&built.arena);
    memory_index_forget(index, 7);
    request =
        (struct context_request){.query = "lighthouse", .strategy = CONTEXT_HYBRID, .budget_tokens = 1000};
    build(&built, index, request);
    assert_int_equal(built.result.count, 1);
    arena_release(&built.arena);
    request.conversation = 9;
    build(&built, index, request);
    assert_int_equal(built.result.count, 0);
    arena_release(&built.arena);
    memory_index_free(index);
}

static uint32_t dear(void *ud, int64_t message)
{
    (void)message;
    ++*(int *)ud;
    return 500;
}

static void test_costs(void **state)
{
    (void)state;
    struct memory_index *index = talk_index(7);
    int asked = 0;
    struct context_request request = {.query = "lighthouse",
                                      .strategy = CONTEXT_HYBRID,
                                      .budget_tokens = 1200,
                                      .cost = dear,
                                      .cost_ud = &asked};
    struct built built;
    build(&built, index, request);
    assert_int_equal(built.result.count, 2);
    assert_true(asked >= (int)TALK);
    arena_release(&built.arena);
    assert_int_equal(memory_token_estimate("Anna", 10), 5); /* 4 + 2 + 10 + 1 = 17 bytes */
    memory_index_free(index);
}

/* Memory that runs out at any point is an answer, never a crash. */
static void test_small_arena(void **state)
{
    (void)state;
    struct memory_index *index = talk_index(7);
    struct context_request request = {
        .query = "lighthouse", .query_len = 10, .strategy = CONTEXT_HYBRID, .budget_tokens = 100};
    size_t failed = 0;
    for (size_t bytes = 64; bytes < 400000; bytes += 1500) {
        struct arena arena;
        struct context_result result;
        arena_init(&arena, bytes);
        enum ph_status status = context_build(index, &request, &arena, &result, NULL);
        assert_true(status == PH_OK || status == PH_ERR_NOMEM);
        failed += status != PH_OK;
        arena_release(&arena);
    }
    assert_true(failed > 3);
    memory_index_free(index);
}

/* What an embedding model finds near is found without a word in common. */
static void test_near(void **state)
{
    (void)state;
    struct memory_index *index = talk_index(7);
    const struct context_near near[] = {{2, 0.1f}, {6, 0.9f}, {99, 0.5f}};
    struct context_request request = {
        .query = "gardening", .strategy = CONTEXT_HYBRID, .budget_tokens = 16, .near = near, .near_count = 3};
    struct built built;
    build(&built, index, request);
    assert_int_equal(built.result.count, 1);
    assert_true(has(&built, 6));
    arena_release(&built.arena);
    memory_index_free(index);
}

static void test_strategies(void **state)
{
    (void)state;
    enum context_strategy strategy;
    for (int s = 0; s < CONTEXT_STRATEGY_COUNT; s++) {
        assert_true(context_strategy_find(context_strategy_name((enum context_strategy)s), &strategy));
        assert_int_equal(strategy, s);
    }
    assert_false(context_strategy_find("best", &strategy));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),       cmocka_unit_test(test_finds), cmocka_unit_test(test_explains),
        cmocka_unit_test(test_recent),      cmocka_unit_test(test_scope), cmocka_unit_test(test_costs),
        cmocka_unit_test(test_small_arena), cmocka_unit_test(test_near),  cmocka_unit_test(test_strategies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
