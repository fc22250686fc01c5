/* The ledger's sums: what is held, spent, refused, cut, in every scope and month. */
#include "gateway/ledger_test.h"

static void a_request_is_held_and_settled(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    struct ledger_hold *hold = reserve(f->ledger, &ask);
    assert_int_equal(ledger_hold_output_max(hold), 1000);
    static const char *const names[] = {"", "premium", "openai", "abcd1234"};
    for (int scope = 0; scope < LEDGER_SCOPE_COUNT; scope++)
        assert_sum(f->ledger, (enum ledger_scope)scope, names[scope], 0, 15300);
    assert_true(ledger_count(hold, 7));
    assert_true(ledger_count_prompt(hold, 90, 50, 10));
    assert_sum(f->ledger, LEDGER_STATION, "", 0, 15000 + 30 * 3 + 50 * 1 + 10 * 4);
    assert_true(ledger_count(hold, 8));
    ledger_settle(f->ledger, hold, NULL, LEDGER_ABORTED);
    for (int scope = 0; scope < LEDGER_SCOPE_COUNT; scope++)
        assert_sum(f->ledger, (enum ledger_scope)scope, names[scope], 180 + 8 * 15, 0);
    assert_sum(f->ledger, LEDGER_BY_TIER, "local", 0, 0);
    assert_sum(f->ledger, LEDGER_BY_KEY, "openai", 0, 0); /* scopes do not share names */
    f->now_ms += 1000;
    hold = reserve(f->ledger, &ask);
    ledger_settle(f->ledger, hold, &(struct ledger_usage){.prompt_tokens = 101, .output_tokens = 3},
                  LEDGER_WHOLE);
    ledger_tick(f->ledger);
    assert_null(ledger_problem(f->ledger));
    struct seen seen = read_all(f);
    assert_int_equal(seen.count, 2);
    assert_int_equal(seen.damaged, 0);
    const struct seen_record *first = &seen.records[0], *second = &seen.records[1];
    assert_int_equal(first->record.unix_ms, NOON);
    assert_int_equal(second->record.unix_ms, NOON + 1000);
    assert_true(first->record.sequence < second->record.sequence);
    assert_string_equal(first->request_id, "req-1");
    assert_string_equal(first->key_id, "abcd1234");
    assert_string_equal(first->model, "gpt-4o");
    assert_string_equal(first->provider, "openai");
    assert_int_equal(first->record.tier, LEDGER_PREMIUM);
    assert_int_equal(first->record.outcome, LEDGER_ABORTED);
    assert_true(first->record.usage.estimated);
    assert_int_equal(first->record.usage.prompt_tokens, 90);
    assert_int_equal(first->record.usage.cached_tokens, 50);
    assert_int_equal(first->record.usage.cache_write_tokens, 10);
    assert_int_equal(first->record.usage.output_tokens, 8);
    assert_int_equal(first->record.cost_pico, 300);
    assert_int_equal(second->record.cost_pico, 348);
    assert_false(second->record.usage.estimated);
    free(seen.records);
}

static void sums_outlive_the_station(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    for (int i = 0; i < 700; i++) /* batches and a rest */
        ledger_settle(f->ledger, reserve(f->ledger, &ask), NULL, LEDGER_WHOLE);
    struct ledger_hold *open = reserve(f->ledger, &ask);
    assert_true(ledger_count(open, 2));
    reopen(f);
    assert_sum(f->ledger, LEDGER_BY_KEY, "abcd1234", 701 * 300 + 30, 0);
    struct seen seen = read_all(f);
    assert_int_equal(seen.count, 701);
    assert_int_equal(seen.records[700].record.outcome, LEDGER_ABORTED);
    free(seen.records);
    struct ledger_hold *next = reserve(f->ledger, &ask);
    ledger_settle(f->ledger, next, NULL, LEDGER_WHOLE);
    reopen(f);
    seen = read_all(f);
    for (size_t i = 1; i < seen.count; i++) /* numbers go on where they were */
        assert_true(seen.records[i].record.sequence > seen.records[i - 1].record.sequence);
    free(seen.records);
}

static void every_budget_can_refuse(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    static const char *const names[] = {"", "premium", "openai", "abcd1234"};
    for (int i = 0; i < LEDGER_SCOPE_COUNT; i++) {
        enum ledger_scope scope = (enum ledger_scope)i;
        struct ledger_hold *hold;
        struct ledger_refusal no;
        budget(f->ledger, scope, names[i], 314); /* the prompt is 300, a token 15 */
        assert_int_equal(ledger_reserve(f->ledger, &ask, &hold, &no), PH_ERR_LIMIT);
        assert_null(hold);
        assert_int_equal(no.scope, scope);
        assert_string_equal(no.name, names[i]);
        assert_int_equal(no.limit_pico, 314);
        assert_int_equal(no.spent_pico, 0);
        assert_int_equal(no.held_pico, 0);
        assert_int_equal(no.renews_unix_s, 1796083200); /* 2026-12-01 */
        assert_int_equal(ledger_reserve(f->ledger, &ask, &hold, NULL), PH_ERR_LIMIT);
        budget(f->ledger, scope, names[i], 315 + 15 * 9);
        hold = reserve(f->ledger, &ask);
        assert_int_equal(ledger_hold_output_max(hold), 10);
        assert_int_equal(ledger_sum(f->ledger, scope, names[i]).limit_pico, 450);
        struct ledger_hold *second;
        assert_int_equal(ledger_reserve(f->ledger, &ask, &second, &no), PH_ERR_LIMIT);
        assert_int_equal(no.held_pico, 450);
        ledger_settle(f->ledger, hold, NULL, LEDGER_UNUSED);
        assert_sum(f->ledger, scope, names[i], 0, 0);
        budget(f->ledger, scope, names[i], -1);
    }
    assert_int_equal(ledger_set_budget(f->ledger, LEDGER_BY_TIER, "golden", 5), PH_ERR_ARG);
    budget(f->ledger, LEDGER_BY_TIER, "premium", 1000); /* the smallest of several counts */
    budget(f->ledger, LEDGER_BY_KEY, "abcd1234", 400);
    struct ledger_hold *hold = reserve(f->ledger, &ask);
    assert_int_equal(ledger_hold_output_max(hold), 6);
    ledger_settle(f->ledger, hold, NULL, LEDGER_UNUSED);
    ask.key_id = "other";
    hold = reserve(f->ledger, &ask);
    assert_int_equal(ledger_hold_output_max(hold), 46);
    ledger_settle(f->ledger, hold, NULL, LEDGER_UNUSED);
    struct seen seen = read_all(f);
    assert_int_equal(seen.count, 0); /* unused ones leave no record */
    free(seen.records);
}

static void what_costs_nothing_is_not_refused(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    budget(f->ledger, LEDGER_STATION, "", 0);
    struct ledger_hold *hold;
    assert_int_equal(ledger_reserve(f->ledger, &ask, &hold, NULL), PH_ERR_LIMIT);
    ask.tier = LEDGER_LOCAL;
    ask.price = (struct ledger_price){0};
    hold = reserve(f->ledger, &ask);
    assert_int_equal(ledger_hold_output_max(hold), 1000);
    assert_true(ledger_count(hold, 999999));
    ledger_settle(f->ledger, hold, NULL, LEDGER_WHOLE);
    ask.output_tokens_max = UINT64_MAX;
    hold = reserve(f->ledger, &ask);
    assert_true(ledger_count(hold, UINT64_MAX - 1));
    ledger_settle(f->ledger, hold, NULL, LEDGER_UNUSED);
    ledger_tick(f->ledger);
    struct seen seen = read_all(f);
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.records[0].record.cost_pico, 0);
    assert_int_equal(seen.records[0].record.premium_pico, 300 + 999999 * 15);
    free(seen.records);
}

/* A provider that was told the most it may answer ends by itself; one that does not is stopped one later. */
static void a_stream_is_stopped_where_its_budget_ends(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    budget(f->ledger, LEDGER_STATION, "", 300 + 15 * 10);
    struct ledger_hold *hold = reserve(f->ledger, &ask);
    for (uint64_t n = 0; n <= 10; n++)
        assert_true(ledger_count(hold, n));
    assert_false(ledger_count(hold, 11));
    assert_sum(f->ledger, LEDGER_STATION, "", 0, 465); /* the truth, though it is too much */
    ledger_settle(f->ledger, hold, NULL, LEDGER_CUT);
    assert_sum(f->ledger, LEDGER_STATION, "", 465, 0);
}

static void a_longer_prompt_takes_from_the_output(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    budget(f->ledger, LEDGER_STATION, "", 300 + 15 * 10);
    struct ledger_hold *hold = reserve(f->ledger, &ask);
    assert_true(ledger_count_prompt(hold, 110, 0, 0)); /* 30 more: two tokens */
    assert_int_equal(ledger_hold_output_max(hold), 8);
    assert_sum(f->ledger, LEDGER_STATION, "", 0, 450);
    assert_true(ledger_count(hold, 7));
    assert_false(ledger_count(hold, 8)); /* the provider does not know: this is the last one that is paid */
    assert_false(ledger_count_prompt(hold, 111, 0, 0));
    assert_sum(f->ledger, LEDGER_STATION, "", 0, 333 + 120);
    ledger_settle(f->ledger, hold, NULL, LEDGER_CUT);
    ask.output_tokens_max = 0; /* an embedding: its prompt is all there is */
    budget(f->ledger, LEDGER_STATION, "", 453 + 300);
    hold = reserve(f->ledger, &ask);
    assert_int_equal(ledger_hold_output_max(hold), 0);
    assert_true(ledger_count_prompt(hold, 200, 0, 0));
    assert_sum(f->ledger, LEDGER_STATION, "", 453, 600);
    ledger_settle(f->ledger, hold, NULL, LEDGER_WHOLE);
}

/* L2: another stream's surprise is paid from what the others have not used. */
static void streams_give_back_what_others_owe(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    budget(f->ledger, LEDGER_BY_KEY, "abcd1234", 2 * (300 + 15 * 100));
    ask.output_tokens_max = 100;
    struct ledger_hold *a = reserve(f->ledger, &ask), *b = reserve(f->ledger, &ask);
    assert_true(ledger_count(a, 20));
    assert_true(ledger_count(b, 20));
    assert_false(ledger_count_prompt(a, 900, 0, 0)); /* 2,400 more than thought; its own output pays 1,200 */
    assert_int_equal(ledger_hold_output_max(a), 20);
    ledger_settle(f->ledger, a, NULL, LEDGER_CUT);
    assert_sum(f->ledger, LEDGER_BY_KEY, "abcd1234", 3000, 1800);
    assert_false(ledger_count(b, 21)); /* there is nothing left for it */
    ledger_settle(f->ledger, b, NULL, LEDGER_CUT);
    assert_sum(f->ledger, LEDGER_BY_KEY, "abcd1234", 3615, 0); /* 15 over: one token */
    budget(f->ledger, LEDGER_BY_KEY, "abcd1234", 3615 + 1800);
    a = reserve(f->ledger, &ask);
    assert_true(ledger_count(a, 10));
    budget(f->ledger, LEDGER_BY_KEY, "abcd1234", 3615 + 300 + 15 * 50); /* lowered while it runs */
    assert_true(ledger_count(a, 49));
    assert_int_equal(ledger_hold_output_max(a), 50);
    assert_false(ledger_count(a, 50));
    ledger_settle(f->ledger, a, NULL, LEDGER_CUT);
    struct ledger_sum sum = ledger_sum(f->ledger, LEDGER_BY_KEY, "abcd1234");
    assert_int_equal(sum.spent_pico, sum.limit_pico);
}

static void failures_cost_what_came(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    struct ledger_hold *hold = reserve(f->ledger, &ask);
    ledger_settle(f->ledger, hold, NULL, LEDGER_FAILED);
    assert_sum(f->ledger, LEDGER_STATION, "", 0, 0);
    hold = reserve(f->ledger, &ask);
    assert_true(ledger_count_prompt(hold, 100, 0, 0));
    ledger_settle(f->ledger, hold, NULL, LEDGER_FAILED);
    assert_sum(f->ledger, LEDGER_STATION, "", 300, 0);
    hold = reserve(f->ledger, &ask);
    assert_true(ledger_count(hold, 1));
    ledger_settle(f->ledger, hold, NULL, LEDGER_FAILED);
    assert_sum(f->ledger, LEDGER_STATION, "", 615, 0);
}

static void money_is_exact_and_never_wraps(void **state)
{
    (void)state;
    const struct ledger_price price = {37500, 3750, 46875, 150000}; /* a token of 0.0375 USD a million */
    assert_int_equal(ledger_cost(&price, &(struct ledger_usage){1000000, 0, 0, 0, false}), 37500000000);
    assert_int_equal(ledger_cost(&price, &(struct ledger_usage){10, 4, 3, 2, false}),
                     3 * 37500 + 4 * 3750 + 3 * 46875 + 2 * 150000);
    /* a provider that says less prompt than cache */
    assert_int_equal(ledger_cost(&price, &(struct ledger_usage){1, 4, 0, 0, false}), 4 * 3750);
    const struct ledger_usage absurd = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, false};
    assert_int_equal(ledger_cost(&price, &absurd), INT64_MAX);
    assert_int_equal(
        ledger_cost(&(struct ledger_price){0, 0, 0, INT64_MAX}, &(struct ledger_usage){.output_tokens = 9}),
        INT64_MAX);
    assert_int_equal(ledger_cost(&(struct ledger_price){0, 0, 0, -5}, &absurd), 0);
}

static void absurd_numbers_are_held_and_told(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    ask.price.output = INT64_MAX;
    ask.output_tokens_max = UINT64_MAX;
    struct ledger_hold *holds[20];
    for (size_t i = 0; i < 20; i++) {
        holds[i] = reserve(f->ledger, &ask);
        assert_false(ledger_count(holds[i], UINT64_MAX));
    }
    assert_sum(f->ledger, LEDGER_STATION, "", 0, INT64_MAX);
    for (size_t i = 0; i < 20; i++)
        ledger_settle(f->ledger, holds[i], &(struct ledger_usage){.output_tokens = i < 19 ? 0 : 1},
                      LEDGER_WHOLE);
    assert_sum(f->ledger, LEDGER_STATION, "", INT64_MAX, 0);
    struct ledger_hold *hold;
    budget(f->ledger, LEDGER_STATION, "", INT64_MAX);
    assert_int_equal(ledger_reserve(f->ledger, &ask, &hold, NULL), PH_ERR_LIMIT);
    ask.price = (struct ledger_price){-1, -1, -1, -1}; /* is none */
    hold = reserve(f->ledger, &ask);
    ledger_settle(f->ledger, hold, NULL, LEDGER_WHOLE);
    assert_sum(f->ledger, LEDGER_STATION, "", INT64_MAX, 0);
}

/* L3 */
static void a_hold_stays_in_its_month(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    f->now_ms = NOON + 10 * DAY_MS + DAY_MS / 2 - 1; /* 2026-11-30T23:59:59.999Z */
    budget(f->ledger, LEDGER_STATION, "", 300 + 15 * 10);
    struct ledger_hold *old = reserve(f->ledger, &ask), *next;
    assert_true(ledger_count(old, 3));
    assert_int_equal(ledger_reserve(f->ledger, &ask, &next, NULL), PH_ERR_LIMIT);
    f->now_ms++;
    assert_sum(f->ledger, LEDGER_STATION, "", 0, 0);
    next = reserve(f->ledger, &ask); /* December has its own money */
    assert_int_equal(ledger_hold_output_max(next), 10);
    assert_true(ledger_count(old, 10));
    assert_false(ledger_count(old, 11));
    ledger_settle(f->ledger, old, NULL, LEDGER_CUT);
    assert_sum(f->ledger, LEDGER_STATION, "", 0, 450);
    ledger_settle(f->ledger, next, NULL, LEDGER_WHOLE);
    assert_sum(f->ledger, LEDGER_STATION, "", 300, 0);
    ledger_tick(f->ledger);
    struct seen november = read_days(f->dir, NOON, f->now_ms - 1);
    struct seen december = read_days(f->dir, f->now_ms, f->now_ms);
    assert_int_equal(november.count, 1);
    assert_int_equal(december.count, 1);
    assert_int_equal(november.records[0].record.cost_pico, 465);
    free(november.records);
    free(december.records);
    reopen(f);
    assert_sum(f->ledger, LEDGER_STATION, "", 300, 0);
    f->now_ms--;
    next = reserve(f->ledger, &ask); /* a clock put back finds the old month as it was */
    assert_sum(f->ledger, LEDGER_STATION, "", 465, 15300);
    ledger_settle(f->ledger, next, NULL, LEDGER_UNUSED);
}

/* A machine without a battery begins in 1970 and learns the time later; a hold from there ends anywhere. */
static void a_clock_that_jumps_finds_the_true_sums(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    ledger_settle(f->ledger, reserve(f->ledger, &ask), NULL, LEDGER_WHOLE);
    ledger_close(f->ledger);
    f->now_ms = 5000;
    open_ledger(f, NULL);
    assert_sum(f->ledger, LEDGER_STATION, "", 0, 0);
    struct ledger_hold *old = reserve(f->ledger, &ask);
    f->now_ms = NOON;
    struct ledger_hold *now = reserve(f->ledger, &ask);
    assert_sum(f->ledger, LEDGER_STATION, "", 300, 15300);
    f->now_ms = NOON + 3000 * DAY_MS;
    struct ledger_hold *future = reserve(f->ledger, &ask);
    assert_true(ledger_count(old, 5)); /* its month is not in memory any more */
    f->now_ms = NOON + 60 * DAY_MS;
    struct ledger_hold *between = reserve(f->ledger, &ask);
    ledger_settle(f->ledger, future, NULL, LEDGER_WHOLE);
    ledger_settle(f->ledger, between, NULL, LEDGER_UNUSED);
    f->now_ms = NOON;
    between = reserve(f->ledger, &ask);
    assert_sum(f->ledger, LEDGER_STATION, "", 300, 2 * 15300); /* what runs is found again */
    ledger_settle(f->ledger, now, NULL, LEDGER_WHOLE);
    ledger_settle(f->ledger, between, NULL, LEDGER_WHOLE);
    assert_sum(f->ledger, LEDGER_STATION, "", 900, 0);
    ledger_settle(f->ledger, old, NULL, LEDGER_WHOLE);
    assert_sum(f->ledger, LEDGER_STATION, "", 900, 0);
    f->now_ms = 5000;
    between = reserve(f->ledger, &ask);
    assert_sum(f->ledger, LEDGER_STATION, "", 375, 15300); /* from the line, not from the file */
    ledger_settle(f->ledger, between, NULL, LEDGER_UNUSED);
}

static void long_names_keep_apart(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    char one[300], two[300];
    memset(one, 'n', 299);
    one[299] = 0;
    memcpy(two, one, sizeof two);
    two[298] = 'm';
    ask.key_id = ask.provider = ask.model = ask.request_id = one;
    ledger_settle(f->ledger, reserve(f->ledger, &ask), NULL, LEDGER_WHOLE);
    ask.key_id = ask.provider = ask.model = ask.request_id = two;
    struct ledger_hold *hold = reserve(f->ledger, &ask);
    for (int round = 0; round < 2; round++) {
        assert_sum(f->ledger, LEDGER_BY_KEY, one, 300, 0);
        assert_sum(f->ledger, LEDGER_BY_PROVIDER, one, 300, 0);
        assert_int_equal(ledger_sum(f->ledger, LEDGER_BY_KEY, two).spent_pico, round * 300);
        if (round == 0) {
            ledger_settle(f->ledger, hold, NULL, LEDGER_WHOLE);
            reopen(f);
        }
    }
    struct seen seen = read_all(f);
    assert_string_not_equal(seen.records[0].request_id, seen.records[1].request_id);
    assert_string_not_equal(seen.records[0].model, seen.records[1].model);
    assert_memory_equal(seen.records[0].model, "nnnnnnnn", 8);
    free(seen.records);
}

static void there_are_so_many_holds(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    struct ledger_hold **holds = malloc(LEDGER_HOLDS_MAX * sizeof *holds), *more;
    for (size_t i = 0; i < LEDGER_HOLDS_MAX; i++)
        holds[i] = reserve(f->ledger, &ask);
    assert_int_equal(ledger_reserve(f->ledger, &ask, &more, NULL), PH_ERR_BUSY);
    assert_null(more);
    assert_sum(f->ledger, LEDGER_STATION, "", 0, (int64_t)LEDGER_HOLDS_MAX * 15300);
    ledger_settle(f->ledger, holds[17], NULL, LEDGER_UNUSED);
    holds[17] = reserve(f->ledger, &ask);
    for (size_t i = 0; i < LEDGER_HOLDS_MAX; i++)
        ledger_settle(f->ledger, holds[i], NULL, LEDGER_WHOLE);
    assert_sum(f->ledger, LEDGER_STATION, "", (int64_t)LEDGER_HOLDS_MAX * 300, 0);
    free(holds);
}

/* ---- Against plain sums */

#define KEYS 5
#define PROVIDERS 3
#define HOLDS 40

static const char *const key_names[KEYS] = {"", "k1", "k2", "k3", "k4"};
static const char *const provider_names[PROVIDERS] = {"local", "together", "openai"};

struct plain { /* a request as anybody would keep it */
    struct ledger_hold *hold;
    int64_t month;
    int key, provider, tier;
    int64_t input, output_price;
    uint64_t prompt, output;
};

struct plain_sums {
    int64_t station, tiers[LEDGER_TIER_COUNT], providers[PROVIDERS], keys[KEYS];
};

static void plain_add(struct plain_sums *sums, const struct plain *p, int64_t pico)
{
    sums->station += pico;
    sums->tiers[p->tier] += pico;
    sums->providers[p->provider] += pico;
    sums->keys[p->key] += pico;
}

static void compare(const struct ledger *ledger, const struct plain_sums *want)
{
    assert_int_equal(ledger_sum(ledger, LEDGER_STATION, "").spent_pico, want->station);
    for (int i = 0; i < LEDGER_TIER_COUNT; i++)
        assert_int_equal(ledger_sum(ledger, LEDGER_BY_TIER, ledger_tier_name((enum ledger_tier)i)).spent_pico,
                         want->tiers[i]);
    for (int i = 0; i < PROVIDERS; i++)
        assert_int_equal(ledger_sum(ledger, LEDGER_BY_PROVIDER, provider_names[i]).spent_pico,
                         want->providers[i]);
    for (int i = 0; i < KEYS; i++)
        assert_int_equal(ledger_sum(ledger, LEDGER_BY_KEY, key_names[i]).spent_pico, want->keys[i]);
}

struct walk {
    struct fixture *f;
    struct rng rng;
    struct plain plain[HOLDS];
    struct plain_sums months[4];
    int64_t month; /* 0 is November */
    size_t records, refused, cut;
};

static uint64_t below(struct walk *w, uint64_t n)
{
    return rng_u64(&w->rng) % n;
}

static void walk_reserve(struct walk *w, struct plain *p)
{
    *p = (struct plain){.month = w->month,
                        .key = (int)below(w, KEYS),
                        .provider = (int)below(w, PROVIDERS),
                        .prompt = below(w, 3000)};
    p->tier = p->provider;
    p->input = p->provider == 2 ? (int64_t)below(w, 5000) : 0;
    p->output_price = p->provider == 2 ? (int64_t)below(w, 15000) : 0;
    struct ledger_ask ask = {.request_id = "r",
                             .key_id = key_names[p->key],
                             .model = "m",
                             .provider = provider_names[p->provider],
                             .tier = (enum ledger_tier)p->tier,
                             .price = {p->input, 0, 0, p->output_price},
                             .prompt_tokens = p->prompt,
                             .output_tokens_max = below(w, 4000)};
    enum ph_status status = ledger_reserve(w->f->ledger, &ask, &p->hold, NULL);
    assert_true(status == PH_OK || (status == PH_ERR_LIMIT && p->input + p->output_price > 0));
    w->refused += status == PH_ERR_LIMIT;
}

static void walk_settle(struct walk *w, struct plain *p)
{
    enum ledger_outcome outcome = (enum ledger_outcome)below(w, LEDGER_OUTCOME_COUNT);
    struct ledger_usage usage = {.prompt_tokens = p->prompt, .output_tokens = p->output};
    bool said = below(w, 2) == 0;
    if (said)
        usage.output_tokens = p->output += below(w, 3);
    bool nothing = outcome == LEDGER_UNUSED || (outcome == LEDGER_FAILED && !said && p->output == 0);
    ledger_settle(w->f->ledger, p->hold, said ? &usage : NULL, outcome);
    int64_t cost = nothing ? 0 : (int64_t)p->prompt * p->input + (int64_t)p->output * p->output_price;
    plain_add(&w->months[p->month], p, cost);
    w->records += outcome != LEDGER_UNUSED;
    p->hold = NULL;
}

static void walk_step(struct walk *w)
{
    struct plain *p = &w->plain[below(w, HOLDS)];
    uint64_t choice = below(w, 100);
    if (!p->hold) {
        walk_reserve(w, p);
    } else if (choice < 70) {
        p->output += below(w, 50);
        if (!ledger_count(p->hold, p->output)) {
            w->cut++;
            walk_settle(w, p);
        }
    } else {
        walk_settle(w, p);
    }
    if (below(w, 50) == 0)
        ledger_tick(w->f->ledger);
    w->f->now_ms += (int64_t)below(w, 700000);
    if (clock_date(clock_day(w->f->now_ms)).month != (11 + (int)w->month - 1) % 12 + 1)
        w->month++;
}

static void sums_are_as_plain_sums(void **state)
{
    struct walk w = {.f = *state};
    rng_init(&w.rng, 20261121);
    budget(w.f->ledger, LEDGER_BY_TIER, "premium", 1500000000);
    budget(w.f->ledger, LEDGER_BY_KEY, "k2", 300000000);
    for (size_t i = 0; i < 20000 && w.month < 3; i++) {
        walk_step(&w);
        compare(w.f->ledger, &w.months[w.month]);
        if (i % 4001 == 4000) { /* a new station goes on with them */
            for (size_t h = 0; h < HOLDS; h++)
                if (w.plain[h].hold)
                    walk_settle(&w, &w.plain[h]);
            reopen(w.f);
            budget(w.f->ledger, LEDGER_BY_TIER, "premium", 1500000000);
            budget(w.f->ledger, LEDGER_BY_KEY, "k2", 300000000);
            compare(w.f->ledger, &w.months[w.month]);
        }
    }
    assert_true(w.month >= 2);
    assert_true(w.refused > 50);
    assert_true(w.cut > 10);
    for (size_t h = 0; h < HOLDS; h++)
        if (w.plain[h].hold)
            walk_settle(&w, &w.plain[h]);
    for (int scope = 0; scope < 2; scope++)
        assert_int_equal(ledger_sum(w.f->ledger, scope ? LEDGER_BY_KEY : LEDGER_STATION, "").held_pico, 0);
    ledger_tick(w.f->ledger);
    struct seen seen = read_all(w.f);
    struct plain_sums journal[4] = {0};
    for (size_t i = 0; i < seen.count; i++) {
        const struct ledger_record *r = &seen.records[i].record;
        struct clock_date date = clock_date(clock_day(r->unix_ms));
        journal[(date.month + 12 - 11) % 12].station += r->cost_pico;
    }
    assert_int_equal(seen.count, w.records);
    for (int64_t m = 0; m <= w.month && m < 4; m++)
        assert_int_equal(journal[m].station, w.months[m].station);
    free(seen.records);
}

/* No limit is passed by more than one token a running stream, whatever is asked, as long as prompts are no
 * longer than said. */
static void no_budget_is_passed_by_more_than_a_token_a_stream(void **state)
{
    struct fixture *f = *state;
    struct ledger_hold *holds[HOLDS] = {0};
    uint64_t counts[HOLDS] = {0};
    struct rng rng;
    rng_init(&rng, 7);
    budget(f->ledger, LEDGER_STATION, "", 300000);
    for (int i = 0; i < 30000; i++) {
        size_t h = rng_u64(&rng) % HOLDS;
        struct ledger_ask ask = usual();
        ask.output_tokens_max = rng_u64(&rng) % 2000;
        if (!holds[h]) {
            counts[h] = 0;
            (void)!ledger_reserve(f->ledger, &ask, &holds[h], NULL);
        } else if (!ledger_count(holds[h], ++counts[h]) || rng_u64(&rng) % 500 == 0) {
            ledger_settle(f->ledger, holds[h], NULL, LEDGER_CUT);
            holds[h] = NULL;
        }
        int64_t owed = 0;
        for (size_t k = 0; k < HOLDS; k++)
            owed += holds[k] ? 300 + 15 * (int64_t)counts[k] : 0;
        if (i == 15000) /* in the middle of it all the owner has second thoughts */
            budget(f->ledger, LEDGER_STATION, "",
                   ledger_sum(f->ledger, LEDGER_STATION, "").spent_pico + owed + 20000);
        struct ledger_sum sum = ledger_sum(f->ledger, LEDGER_STATION, "");
        assert_true(i >= 15000 || sum.spent_pico + sum.held_pico <= sum.limit_pico + 15 * HOLDS);
    }
    struct ledger_sum sum = ledger_sum(f->ledger, LEDGER_STATION, "");
    assert_true(sum.spent_pico + sum.held_pico > sum.limit_pico - 400);
    assert_true(sum.spent_pico + sum.held_pico <= sum.limit_pico + 15 * HOLDS);
}

int main(void)
{
#define WITH_LEDGER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_LEDGER(a_request_is_held_and_settled),
        WITH_LEDGER(sums_outlive_the_station),
        WITH_LEDGER(every_budget_can_refuse),
        WITH_LEDGER(what_costs_nothing_is_not_refused),
        WITH_LEDGER(a_stream_is_stopped_where_its_budget_ends),
        WITH_LEDGER(a_longer_prompt_takes_from_the_output),
        WITH_LEDGER(streams_give_back_what_others_owe),
        WITH_LEDGER(failures_cost_what_came),
        cmocka_unit_test(money_is_exact_and_never_wraps),
        WITH_LEDGER(absurd_numbers_are_held_and_told),
        WITH_LEDGER(a_hold_stays_in_its_month),
        WITH_LEDGER(a_clock_that_jumps_finds_the_true_sums),
        WITH_LEDGER(long_names_keep_apart),
        WITH_LEDGER(there_are_so_many_holds),
        WITH_LEDGER(sums_are_as_plain_sums),
        WITH_LEDGER(no_budget_is_passed_by_more_than_a_token_a_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
