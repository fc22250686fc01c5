/* Routing: who is asked first under each policy, who is not asked and why. The catalogue is made by hand. */
#include "base/mem.h"
#include "gateway/gateway_int.h"
#include "provider/provider_int.h"
#include "test_support.h"

enum { SMALL, TALL, SUB, PREMIUM, MODEL_COUNT };

struct fake {
    struct provider base;
    struct provider_state state;
    size_t cached, looked; /* how often that was asked */
};

static void fake_state(const struct provider *provider, struct provider_state *out)
{
    *out = ((const struct fake *)provider)->state;
}

static size_t fake_cached(struct provider *provider, const struct chat_request *request)
{
    struct fake *fake = (struct fake *)provider;
    (void)request;
    fake->looked++;
    return fake->cached;
}

static struct engine *no_engine(const struct provider *provider)
{
    (void)provider;
    return NULL;
}

static void fake_free(struct provider *provider)
{
    mem_free(provider);
}

struct fixture {
    struct gateway gateway;
    struct gateway_model models[MODEL_COUNT];
    struct model_speed speeds[MODEL_COUNT];
    struct gate *gates[MODEL_COUNT];
    struct gateway_brake brakes[MODEL_COUNT];
    struct fake *fakes[MODEL_COUNT];
    struct gateway_route route;
    struct gateway_member members[MODEL_COUNT];
    struct chat_request request;
    struct chat_message message;
    struct caller caller;
    struct route_choice choice;
    struct arena arena;
    struct chat_fault fault;
};

static void fixture_open(struct fixture *f, enum gateway_policy policy)
{
    static const char *const names[MODEL_COUNT] = {"small", "tall", "sub", "premium"};
    static const enum ledger_tier tiers[MODEL_COUNT] = {LEDGER_LOCAL, LEDGER_LOCAL, LEDGER_SUBSCRIPTION,
                                                        LEDGER_PREMIUM};
    static const struct provider_ops ops = {
        .kind = "fake", .engine = no_engine, .state = fake_state, .cached = fake_cached, .free = fake_free};
    memset(f, 0, sizeof *f);
    arena_init(&f->arena, 1 << 20);
    for (size_t i = 0; i < MODEL_COUNT; i++) {
        f->fakes[i] = mem_calloc(1, sizeof *f->fakes[i]);
        assert_int_equal(provider_init(&f->fakes[i]->base, &ops, names[i]), 0);
        f->fakes[i]->base.ready = true;
        f->fakes[i]->state.usable = true;
        f->models[i] = (struct gateway_model){
            .provider = &f->fakes[i]->base, .tier = tiers[i], .abilities = GATEWAY_TOOLS};
        f->members[i] = (struct gateway_member){i, (unsigned)tiers[i], 1};
        f->speeds[i] = (struct model_speed){.first_token_s = 0.1, .token_s = 0.01};
        assert_int_equal(gate_create(&f->gates[i], 4, 16), PH_OK);
        f->models[i].concurrency = 4;
        f->brakes[i].share = 1;
    }
    f->models[PREMIUM].price = (struct ledger_price){.input = 2500000, .output = 10000000};
    f->route = (struct gateway_route){
        .name = "r", .policy = policy, .members = f->members, .member_count = MODEL_COUNT};
    f->gateway = (struct gateway){.clock = clock_system(),
                                  .models = f->models,
                                  .speeds = f->speeds,
                                  .gates = f->gates,
                                  .brakes = f->brakes,
                                  .model_count = MODEL_COUNT,
                                  .routes = &f->route,
                                  .route_count = 1};
    rng_init(&f->gateway.rng, 1);
    f->message = (struct chat_message){.role = CHAT_USER, .content = {"hello", 5}};
    f->request =
        (struct chat_request){.model = "r", .messages = &f->message, .message_count = 1, .choices = 1};
}

static void fixture_close(struct fixture *f)
{
    arena_release(&f->arena);
    for (size_t i = 0; i < MODEL_COUNT; i++) {
        provider_free(&f->fakes[i]->base);
        gate_free(f->gates[i]);
    }
}

static bool choose(struct fixture *f)
{
    arena_clear(&f->arena);
    return route_choose(&f->gateway, &f->arena, &f->request, route_needs(&f->request), &f->caller, &f->choice,
                        &f->fault);
}

static void expect_order(struct fixture *f, size_t usable, const char *const *names)
{
    bool ok = choose(f);
    if (!ok)
        fail_msg("%s", f->fault.message);
    assert_int_equal(f->choice.usable, usable);
    for (size_t i = 0; i < usable; i++)
        assert_string_equal(provider_model_id(f->models[f->choice.list[i].model].provider), names[i]);
}

#define EXPECT(f, ...)                                             \
    do {                                                           \
        static const char *const names_[] = {__VA_ARGS__};         \
        expect_order((f), sizeof names_ / sizeof *names_, names_); \
    } while (0)

static void each_policy_has_its_order(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, GATEWAY_FALLBACK);
    f.speeds[TALL].token_s = 0.001;
    EXPECT(&f, "small", "tall", "sub", "premium");
    f.route.policy = GATEWAY_TIERS;
    EXPECT(&f, "tall", "small", "sub", "premium");
    f.speeds[PREMIUM] = (struct model_speed){.first_token_s = 0.001, .token_s = 0.0001};
    f.route.policy = GATEWAY_FASTEST;
    EXPECT(&f, "premium", "tall", "small", "sub");
    f.route.policy = GATEWAY_CHEAPEST;
    f.models[SMALL].price.output = 1; /* a picodollar a token is dearer than nothing, and less than speed */
    EXPECT(&f, "tall", "sub", "small", "premium");
    f.route.policy = GATEWAY_TASK;
    EXPECT(&f, "tall", "small", "sub", "premium");
    fixture_close(&f);
}

static void tasks_name_their_tier(void **state)
{
    (void)state;
    struct fixture f;
    struct arena arena;
    struct json *metadata;
    arena_init(&arena, 1 << 16);
    fixture_open(&f, GATEWAY_TASK);
    assert_int_equal(json_parse(&arena, "{\"task\":\"nuance\"}", 17, &metadata, NULL), PH_OK);
    f.request.metadata = metadata;
    EXPECT(&f, "premium", "small", "tall", "sub");
    assert_int_equal(json_parse(&arena, "{\"task\":\"diversity\"}", 20, &metadata, NULL), PH_OK);
    f.request.metadata = metadata;
    EXPECT(&f, "sub", "small", "tall", "premium");
    fixture_close(&f);
    arena_release(&arena);
}

static void queues_and_caches_count(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, GATEWAY_FASTEST);
    for (int i = SMALL; i <= TALL; i++)
        f.fakes[i]->state = (struct provider_state){
            .usable = true, .sequences_max = 4, .prefill_tokens_s = 1000, .decode_tokens_s = 100};
    f.fakes[SMALL]->state.waiting = 9;
    f.fakes[SMALL]->state.running = 4;
    EXPECT(&f, "tall", "sub", "premium", "small");
    fixture_close(&f);
}

/* Before anything was seen, and only then. */
static void predictions_count_until_something_was_measured(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, GATEWAY_FASTEST);
    memset(f.speeds, 0, sizeof f.speeds);
    gateway_predict(&f.gateway, SUB, 1000, 100);
    gateway_predict(&f.gateway, TALL, 1000, 200);
    EXPECT(&f, "tall", "sub", "small", "premium"); /* a guess comes last */
    f.fakes[TALL]->state.decode_tokens_s = 20;
    EXPECT(&f, "sub", "small", "premium", "tall");
    fixture_close(&f);
}

#define LONG_TEXT 4000

static void set_long(struct fixture *f)
{
    static char text[LONG_TEXT];
    memset(text, 'x', sizeof text);
    f->message.content = (struct chat_text){text, sizeof text};
}

static size_t looks(struct fixture *f)
{
    size_t sum = 0;
    for (size_t i = 0; i < MODEL_COUNT; i++) {
        sum += f->fakes[i]->looked;
        f->fakes[i]->looked = 0;
    }
    return sum;
}

/* To make a prompt only to see what of it is cached takes longer than everything else here. */
static void caches_are_looked_into_where_they_decide(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, GATEWAY_FALLBACK);
    set_long(&f);
    for (int i = SMALL; i <= TALL; i++)
        f.fakes[i]->state =
            (struct provider_state){.usable = true, .prefill_tokens_s = 1000, .decode_tokens_s = 100};
    f.fakes[TALL]->cached = 500;
    EXPECT(&f, "small", "tall", "sub", "premium");
    f.route.policy = GATEWAY_WEIGHTED;
    assert_true(choose(&f));
    assert_int_equal(looks(&f), 0); /* nothing is faster or slower there */
    f.route.policy = GATEWAY_TIERS;
    EXPECT(&f, "tall", "small", "sub", "premium");
    assert_int_equal(looks(&f), 2);
    f.fakes[TALL]->state.decode_tokens_s = 10; /* too slow, whatever is cached */
    EXPECT(&f, "small", "tall", "sub", "premium");
    assert_int_equal(looks(&f), 0);
    f.route.policy = GATEWAY_CHEAPEST; /* among those of one price */
    f.fakes[TALL]->state.decode_tokens_s = 100;
    f.models[SUB].price.output = 1000;
    EXPECT(&f, "tall", "small", "sub", "premium");
    assert_int_equal(looks(&f), 2);
    f.models[TALL].price.output = 2000;
    EXPECT(&f, "small", "sub", "tall", "premium");
    assert_int_equal(looks(&f), 0);
    fixture_close(&f);
}

/* As if all caches had been looked into at once. */
static double finish_s(const struct fixture *f, size_t model)
{
    const struct provider_state *s = &f->fakes[model]->state;
    double fresh = LONG_TEXT / 4.0 + 16 / 4.0 + 1 - (double)f->fakes[model]->cached;
    return fresh / s->prefill_tokens_s + 300 / s->decode_tokens_s;
}

static void the_order_is_that_of_full_knowledge(void **state)
{
    (void)state;
    struct fixture f;
    struct rng rng;
    size_t looked = 0;
    rng_init(&rng, 3);
    fixture_open(&f, GATEWAY_TIERS);
    set_long(&f);
    for (int round = 0; round < 5000; round++) {
        for (size_t i = 0; i < MODEL_COUNT; i++) {
            double prefill = 500 + (double)(rng_u64(&rng) % 8 * 500);
            double decode = 50 + (double)(rng_u64(&rng) % 4 * 5);
            f.fakes[i]->state = (struct provider_state){
                .usable = true, .prefill_tokens_s = prefill, .decode_tokens_s = decode};
            f.fakes[i]->cached = rng_u64(&rng) % 3 * 450;
            f.members[i].stage = rng_u64(&rng) % 2;
        }
        assert_true(choose(&f));
        looked += looks(&f);
        for (size_t i = 1; i < MODEL_COUNT; i++) {
            const struct route_candidate *a = &f.choice.list[i - 1], *b = &f.choice.list[i];
            assert_true(a->stage < b->stage ||
                        (a->stage == b->stage && finish_s(&f, a->model) <= finish_s(&f, b->model) + 1e-9));
        }
    }
    assert_in_range(looked, 1000, 5000 * MODEL_COUNT - 1000); /* some decide, some do not */
    fixture_close(&f);
}

static void many_candidates_are_sorted(void **state)
{
    (void)state;
    struct fixture f;
    struct gateway_member members[ROUTE_CANDIDATES_MAX];
    fixture_open(&f, GATEWAY_TIERS);
    f.route.members = members;
    f.route.member_count = ROUTE_CANDIDATES_MAX;
    for (size_t i = 0; i < ROUTE_CANDIDATES_MAX; i++)
        members[i] = (struct gateway_member){i % MODEL_COUNT, (unsigned)(i * 29 % 7), 1};
    f.fakes[SUB]->state = (struct provider_state){.why = CHAT_CAUSE_RATE};
    assert_true(choose(&f));
    assert_int_equal(f.choice.usable, ROUTE_CANDIDATES_MAX * 3 / 4);
    for (size_t i = 1; i < f.choice.usable; i++)
        assert_true(f.choice.list[i - 1].stage <= f.choice.list[i].stage);
    for (size_t i = f.choice.usable; i < ROUTE_CANDIDATES_MAX; i++)
        assert_int_equal(f.choice.list[i].model, SUB);
    fixture_close(&f);
}

static void weights_are_shares_and_conversations_stay(void **state)
{
    (void)state;
    struct fixture f;
    size_t firsts[MODEL_COUNT] = {0};
    char id[32];
    fixture_open(&f, GATEWAY_WEIGHTED);
    f.members[SMALL].weight = 90;
    f.members[TALL].weight = 10;
    f.route.member_count = 2;
    for (int i = 0; i < 10000; i++) {
        snprintf(id, sizeof id, "conversation-%d", i);
        f.request.conversation = i % 2 ? id : NULL;
        assert_true(choose(&f));
        size_t first = f.choice.list[0].model;
        firsts[first]++;
        assert_int_equal(f.choice.usable, 2); /* the other one is the fallback */
        assert_true(choose(&f));
        if (f.request.conversation)
            assert_int_equal(f.choice.list[0].model, first);
    }
    assert_in_range(firsts[TALL], 850, 1150);
    f.members[TALL].weight = 0;
    for (int i = 0; i < 100; i++)
        EXPECT(&f, "small", "tall");
    fixture_close(&f);
}

/* An embedding model writes no text, is nobody's default for it, and is the default for vectors. */
static void vectors_and_text_go_to_their_own(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, GATEWAY_FALLBACK);
    f.models[SMALL].abilities = GATEWAY_EMBEDDINGS | GATEWAY_VECTORS_ONLY;
    f.models[SUB].abilities = GATEWAY_EMBEDDINGS;
    EXPECT(&f, "tall", "sub", "premium");
    f.request.model = NULL;
    assert_true(choose(&f));
    assert_string_equal(f.choice.name, "tall");
    assert_true(
        route_choose(&f.gateway, &f.arena, &f.request, GATEWAY_EMBEDDINGS, &f.caller, &f.choice, &f.fault));
    assert_string_equal(f.choice.name, "small");
    f.request.model = "r";
    f.fakes[SMALL]->base.context_len = 1; /* of each input, not of all together */
    assert_true(
        route_choose(&f.gateway, &f.arena, &f.request, GATEWAY_EMBEDDINGS, &f.caller, &f.choice, &f.fault));
    assert_int_equal(f.choice.usable, 2);
    fixture_close(&f);
}

static void who_cannot_is_skipped_with_a_reason(void **state)
{
    (void)state;
    struct fixture f;
    struct arena arena;
    struct json *tools;
    arena_init(&arena, 1 << 16);
    assert_int_equal(json_parse(&arena, "[{}]", 4, &tools, NULL), PH_OK);
    fixture_open(&f, GATEWAY_FALLBACK);
    f.request.tools = tools;
    f.models[SMALL].abilities = 0;
    f.fakes[TALL]->state = (struct provider_state){.why = CHAT_CAUSE_OVERLOADED};
    f.fakes[SUB]->base.context_len = 16;
    char text[400];
    memset(text, 'x', sizeof text);
    f.message.content = (struct chat_text){text, sizeof text};
    EXPECT(&f, "premium");
    assert_int_equal(f.choice.count, MODEL_COUNT);
    for (size_t i = 1; i < MODEL_COUNT; i++)
        assert_non_null(f.choice.list[i].skipped);
    f.route.member_count = 3;
    assert_false(choose(&f));
    assert_int_equal(f.fault.http_status, 400);
    assert_string_equal(f.fault.code, "context_length_exceeded");
    f.message.content.len = 4;
    f.fakes[SUB]->state = (struct provider_state){.why = CHAT_CAUSE_RATE};
    assert_false(choose(&f)); /* of all reasons the one that a caller can do something about */
    assert_string_equal(f.fault.code, "unsupported_parameter");
    f.request.tools = NULL;
    f.models[SMALL].abilities = 0;
    f.fakes[SMALL]->state = (struct provider_state){
        .why = CHAT_CAUSE_RATE, .usable_at_ns = clock_monotonic_ns(clock_system()) + 5000000000};
    assert_false(choose(&f));
    assert_int_equal(f.fault.http_status, 429);
    assert_true(f.fault.retry_after_s >= 1 && f.fault.retry_after_s <= 6);
    fixture_close(&f);
    arena_release(&arena);
}

struct visitor {
    struct gate_ticket ticket;
    bool entered;
};

static void on_turn(void *ud)
{
    ((struct visitor *)ud)->entered = true;
}

static void a_brake_holds_and_lets_go(void **state)
{
    (void)state;
    struct fixture f;
    struct visitor visitors[6] = {0};
    fixture_open(&f, GATEWAY_FALLBACK);
    gateway_set_brake(&f.gateway, SMALL, &(struct gateway_brake){0.5, NULL, 0});
    EXPECT(&f, "small", "tall", "sub", "premium"); /* asked less, but asked */
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(gate_enter(f.gates[SMALL], "k", 1, &visitors[i].ticket, on_turn, &visitors[i],
                                    &visitors[i].entered),
                         PH_OK);
    assert_int_equal(gate_running(f.gates[SMALL]), 2); /* of four */
    gateway_set_brake(&f.gateway, SMALL, &(struct gateway_brake){0.5, NULL, 0});
    gate_leave(&visitors[0].ticket);
    assert_int_equal(gate_running(f.gates[SMALL]), 1); /* half of those that ran */
    gateway_set_brake(&f.gateway, SMALL, &(struct gateway_brake){0.5, "it is too hot", 31});
    assert_int_equal(gate_waiting(f.gates[SMALL]), 0); /* they had their turn, to go elsewhere */
    EXPECT(&f, "tall", "sub", "premium");
    f.request.model = "small"; /* by its own name */
    assert_false(choose(&f));
    assert_int_equal(f.fault.http_status, 503);
    assert_int_equal(f.fault.retry_after_s, 31);
    assert_non_null(strstr(f.fault.message, "it is too hot"));
    for (size_t i = 1; i < 6; i++)
        gate_leave(&visitors[i].ticket);
    gateway_set_brake(&f.gateway, SMALL, &(struct gateway_brake){1, NULL, 0});
    assert_true(choose(&f));
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(gate_enter(f.gates[SMALL], "k", 1, &visitors[i].ticket, on_turn, &visitors[i],
                                    &visitors[i].entered),
                         PH_OK);
    assert_int_equal(gate_running(f.gates[SMALL]), 4);
    for (size_t i = 6; i-- > 0;)
        gate_leave(&visitors[i].ticket);
    fixture_close(&f);
}

static void a_key_sees_its_models_only(void **state)
{
    (void)state;
    struct fixture f;
    struct key key = {.scopes = {"models:s*"}, .scope_count = 1, .budget_usd_month = -1};
    fixture_open(&f, GATEWAY_FALLBACK);
    f.caller.key = &key;
    EXPECT(&f, "small", "sub");
    f.request.model = "premium";
    assert_false(choose(&f));
    assert_int_equal(f.fault.http_status, 403);
    f.request.model = "small";
    EXPECT(&f, "small");
    f.request.model = "nobody";
    assert_false(choose(&f));
    assert_int_equal(f.fault.http_status, 404);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_policy_has_its_order),
        cmocka_unit_test(tasks_name_their_tier),
        cmocka_unit_test(queues_and_caches_count),
        cmocka_unit_test(predictions_count_until_something_was_measured),
        cmocka_unit_test(caches_are_looked_into_where_they_decide),
        cmocka_unit_test(the_order_is_that_of_full_knowledge),
        cmocka_unit_test(many_candidates_are_sorted),
        cmocka_unit_test(weights_are_shares_and_conversations_stay),
        cmocka_unit_test(vectors_and_text_go_to_their_own),
        cmocka_unit_test(who_cannot_is_skipped_with_a_reason),
        cmocka_unit_test(a_brake_holds_and_lets_go),
        cmocka_unit_test(a_key_sees_its_models_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
