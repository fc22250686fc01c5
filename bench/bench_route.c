/* Speed of a decision: who answers.
 *
 *   build/bench_route [--json] [MODEL.gguf]
 *
 * For every policy and 1, 8 and 64 candidates, nanoseconds of CPU time for a 1 KB chat request: the choice
 * alone (route.c), and all of it, with the key's limits, the account's window and a hold in the ledger under
 * budgets of station, tier, account and key. Candidates are models of eight accounts with two keys each and,
 * where a model is given, engines in this process that run it: one of each eight, and the only one of one.
 * They have answered the same request before, so that their speeds are known and its prefix is cached.
 *
 * Figures are medians of ROUNDS. The bar is BAR_NS for every one; the exit status says whether it was met. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "gateway/gateway_int.h"

#define BAR_NS 10000
#define CANDIDATES_MAX 64
#define ACCOUNTS 8
#define EVERY 8 /* one of so many candidates is local */
#define ROUNDS 7
#define ROUND_NS 4000000
#define SHARE_MIN 0.9 /* of the core; a round with less is taken again */
#define TRIES_MAX 50
#define MESSAGES 8
#define MUCH (INT64_MAX / 4)

static const size_t sizes[] = {1, 8, 64};
#define SIZES (sizeof sizes / sizeof *sizes)

struct bench {
    struct net_loop *loop;
    struct http_client *client;
    struct provider_account *accounts[ACCOUNTS];
    char account_names[ACCOUNTS][16];
    const char *model_path; /* NULL: none is local */
    bool json;
    struct gateway gateway;
    struct gateway_model models[CANDIDATES_MAX];
    struct model_speed speeds[CANDIDATES_MAX];
    struct gate *gates[CANDIDATES_MAX];
    struct gateway_account limits[ACCOUNTS];
    struct gateway_member members[CANDIDATES_MAX];
    struct gateway_route route;
    struct key key;
    struct caller caller;
    struct chat_request request;
    struct chat_message messages[MESSAGES];
    struct arena arena, fixed;
    size_t warming; /* the local model that answers now */
    struct provider_call *call;
    struct net_wake *wake;
    char dir[64];
    uint64_t worst;
};

static void check(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "bench_route: %s\n", what);
    exit(2);
}

static bool is_local(const struct bench *b, size_t index)
{
    return b->model_path && index % EVERY == 0;
}

/* ---- The station, by hand */

static void make_request(struct bench *b)
{
    static const char text[] =
        "Somewhere in the harbour a bell rings; the keeper of the light writes down the hour, and "
        "what the sea is like.";
    struct json *metadata;
    for (size_t i = 0; i < MESSAGES; i++)
        b->messages[i] = (struct chat_message){.role = i % 2 ? CHAT_ASSISTANT : CHAT_USER,
                                               .content = {text, strlen(text)}};
    b->messages[MESSAGES - 1].role = CHAT_USER;
    check(json_parse(&b->fixed, "{\"task\":\"nuance\"}", 17, &metadata, NULL) == PH_OK, "metadata");
    b->request = (struct chat_request){.model = "auto",
                                       .messages = b->messages,
                                       .message_count = MESSAGES - 1,
                                       .choices = 1,
                                       .max_tokens = 16,
                                       .conversation = "conversation-17",
                                       .request_id = "req-1",
                                       .metadata = metadata};
}

static struct provider *make_local(struct bench *b, const char *id)
{
    struct provider *provider;
    struct engine_params params;
    struct engine *engine;
    struct ph_err err;
    engine_params_default(&params);
    params.model_path = b->model_path;
    params.threads = 1;
    if (engine_open(&engine, &params, &err) != PH_OK)
        check(false, err.message);
    check(provider_local_create(&provider, id, clock_system(), &err) == PH_OK &&
              provider_local_attach(provider, engine, &err) == PH_OK,
          "the model cannot be used");
    return provider;
}

static void make_accounts(struct bench *b)
{
    static const char *const keys[] = {"sk-one", "sk-two"};
    struct ph_err err;
    const struct http_client_params client = {.loop = b->loop, .clock = clock_system()};
    check(http_client_open(&b->client, &client, &err) == PH_OK, "no HTTP client");
    for (size_t i = 0; i < ACCOUNTS; i++) {
        snprintf(b->account_names[i], sizeof b->account_names[i], "account%zu", i);
        const struct provider_account_params params = {.name = b->account_names[i],
                                                       .base_url = "http://127.0.0.1:9/v1",
                                                       .codec = &chat_codec_openai,
                                                       .keys = keys,
                                                       .key_count = 2,
                                                       .client = b->client,
                                                       .clock = clock_system()};
        check(provider_account_create(&b->accounts[i], &params, &err) == PH_OK, "no account");
        b->limits[i] = (struct gateway_account){b->account_names[i], 1000000, 1000000000, MUCH, NULL};
    }
}

static void make_models(struct bench *b)
{
    struct ph_err err;
    for (size_t i = 0; i < CANDIDATES_MAX; i++) {
        struct gateway_model *model = &b->models[i];
        char id[32];
        snprintf(id, sizeof id, "model-%zu", i);
        *model = (struct gateway_model){.tier = is_local(b, i) ? LEDGER_LOCAL : LEDGER_PREMIUM,
                                        .price = {2500000, 1250000, 2500000, 10000000},
                                        .abilities = ~0u};
        if (is_local(b, i))
            model->provider = make_local(b, id);
        else
            check(provider_remote_create(&model->provider, id, b->accounts[i % ACCOUNTS], id, 128000, &err) ==
                      PH_OK,
                  "no model");
        b->members[i] = (struct gateway_member){i, (unsigned)(i % 3), 1 + (double)i};
        b->speeds[i] = (struct model_speed){0.3 + 0.001 * (double)(i * 37 % 64), 0.01};
        check(gate_create(&b->gates[i], 64, 256) == PH_OK, "no gate");
    }
}

static void make_gateway(struct bench *b)
{
    const struct ledger_params ledger = {b->dir, clock_system()};
    static const char *const scopes[] = {"chat", "read", "models:gpt-*", "models:model-*"};
    struct ph_err err;
    b->gateway = (struct gateway){.clock = clock_system(),
                                  .models = b->models,
                                  .speeds = b->speeds,
                                  .gates = b->gates,
                                  .model_count = CANDIDATES_MAX,
                                  .accounts = b->limits,
                                  .account_count = ACCOUNTS,
                                  .routes = &b->route,
                                  .route_count = 1,
                                  .request_log_fd = -1};
    rng_init(&b->gateway.rng, 1);
    check(rates_create(&b->gateway.rates, clock_system()) == PH_OK, "no rates");
    check(ledger_open(&b->gateway.ledger, &ledger, NULL, &err) == PH_OK, "no ledger");
    b->key =
        (struct key){.id = "abcd1234", .account = "abcd1234", .rpm = MUCH, .tpm = MUCH, .concurrency = 64};
    for (size_t i = 0; i < sizeof scopes / sizeof *scopes; i++)
        snprintf(b->key.scopes[b->key.scope_count++], KEY_SCOPE_MAX, "%s", scopes[i]);
    b->caller = (struct caller){.key = &b->key};
    check(ledger_set_budget(b->gateway.ledger, LEDGER_STATION, "", MUCH) == PH_OK &&
              ledger_set_budget(b->gateway.ledger, LEDGER_BY_TIER, "premium", MUCH) == PH_OK &&
              ledger_set_budget(b->gateway.ledger, LEDGER_BY_KEY, "abcd1234", MUCH) == PH_OK,
          "no budgets");
    for (size_t i = 0; i < ACCOUNTS; i++)
        check(ledger_set_budget(b->gateway.ledger, LEDGER_BY_PROVIDER, b->account_names[i], MUCH) == PH_OK,
              "no budget");
}

/* ---- A decision */

static const struct gateway_model *choose(struct bench *b)
{
    struct route_choice choice;
    struct chat_fault fault;
    arena_clear(&b->arena);
    if (!route_choose(&b->gateway, &b->arena, &b->request, route_needs(&b->request), &b->caller, &choice,
                      &fault))
        check(false, fault.message);
    return &b->models[choice.list[0].model];
}

static void choose_only(struct bench *b)
{
    (void)choose(b);
}

static void hold(struct bench *b, const struct gateway_model *model)
{
    const char *account = provider_name(model->provider);
    struct ledger_hold *held;
    struct rate_take take = {0};
    uint32_t retry_after_s;
    const char *which;
    char who[80];
    size_t prompt = route_estimate_tokens(&b->request);
    const struct ledger_ask ask = {.request_id = "req-1",
                                   .key_id = b->key.account,
                                   .model = provider_model_id(model->provider),
                                   .provider = account,
                                   .tier = model->tier,
                                   .price = model->price,
                                   .premium = model->price,
                                   .prompt_tokens = prompt,
                                   .output_tokens_max = 1000};
    snprintf(who, sizeof who, "provider:%.64s", account);
    check(rates_take(b->gateway.rates, who, &(struct rate_limits){1000000000, 1000000000, 0}, prompt, &take,
                     &retry_after_s, &which),
          "the account's window is full");
    check(ledger_reserve(b->gateway.ledger, &ask, &held, NULL) == PH_OK, "no hold");
    ledger_settle(b->gateway.ledger, held, NULL, LEDGER_UNUSED);
    rates_give(b->gateway.rates, &take, 0);
}

static void decide(struct bench *b)
{
    struct chat_fault fault;
    check(admission_begin(&b->gateway, &b->caller, route_estimate_tokens(&b->request), &fault),
          "the key's window is full");
    hold(b, choose(b));
    admission_end(&b->gateway, &b->caller, 0);
}

/* ---- Timing */

static uint64_t ns(clockid_t which)
{
    struct timespec t;
    clock_gettime(which, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* One round; false: somebody else had the core meanwhile. */
static bool time_round(struct bench *b, void (*fn)(struct bench *b), uint64_t *each)
{
    uint64_t wall = ns(CLOCK_MONOTONIC), start = ns(CLOCK_THREAD_CPUTIME_ID), now = start, count = 0;
    for (; now - start < ROUND_NS; now = ns(CLOCK_THREAD_CPUTIME_ID), count += 16)
        for (int i = 0; i < 16; i++)
            fn(b);
    *each = (now - start) / count;
    return (double)(now - start) >= SHARE_MIN * (double)(ns(CLOCK_MONOTONIC) - wall);
}

static uint64_t time_of(struct bench *b, void (*fn)(struct bench *b))
{
    uint64_t rounds[ROUNDS];
    size_t kept = 0;
    for (int tries = 0; kept < ROUNDS; tries++)
        kept += time_round(b, fn, &rounds[kept]) || tries > TRIES_MAX;
    qsort(rounds, ROUNDS, sizeof *rounds, compare);
    return rounds[ROUNDS / 2];
}

static void measure(struct bench *b)
{
    printf(b->json ? "{" : "%-10s", "");
    for (size_t s = 0; s < SIZES && !b->json; s++)
        printf("%7zu: choice   all", sizes[s]);
    for (int policy = 0; policy < GATEWAY_POLICY_COUNT; policy++) {
        const char *name = gateway_policy_name((enum gateway_policy)policy);
        if (!b->json)
            printf("\n%-10s", name);
        for (size_t s = 0; s < SIZES; s++) {
            b->route = (struct gateway_route){.name = "auto",
                                              .policy = (enum gateway_policy)policy,
                                              .members = b->members,
                                              .member_count = sizes[s]};
            uint64_t choice = time_of(b, choose_only), all = time_of(b, decide);
            b->worst = all > b->worst ? all : b->worst;
            if (b->json)
                printf("\"%s_%zu\":{\"choice_ns\":%llu,\"all_ns\":%llu},", name, sizes[s],
                       (unsigned long long)choice, (unsigned long long)all);
            else
                printf("%16llu%6llu", (unsigned long long)choice, (unsigned long long)all);
        }
    }
    printf(b->json ? "\"worst_ns\":%llu}\n" : "\nworst: %llu ns of CPU a decision\n",
           (unsigned long long)b->worst);
}

/* ---- The local models answer once, then all is timed, on the loop's thread */

static void finish(struct bench *b)
{
    char command[128];
    measure(b);
    ledger_close(b->gateway.ledger);
    snprintf(command, sizeof command, "rm -rf %s", b->dir);
    check(system(command) == 0, "the ledger's directory cannot be deleted");
    fflush(stdout);
    _exit(b->worst > BAR_NS); /* loop, engines and threads end with it */
}

static bool on_event(void *ud, const struct chat_event *event)
{
    struct bench *b = ud;
    check(event->kind != CHAT_EVENT_ERROR, "the model does not answer");
    if (event->kind == CHAT_EVENT_DONE) {
        b->warming += EVERY;
        net_wake_call(b->wake);
    }
    return true;
}

static void go_on(void *ud)
{
    struct bench *b = ud;
    struct chat_fault fault;
    if (!b->model_path || b->warming >= CANDIDATES_MAX)
        finish(b);
    const struct provider_sink sink = {on_event, b};
    if (provider_start(b->models[b->warming].provider, b->loop, &b->request, &sink, &b->call, &fault) !=
        PH_OK)
        check(false, fault.message);
}

int main(int argc, char **argv)
{
    struct bench *b = calloc(1, sizeof *b);
    struct ph_err err;
    check(b, "out of memory");
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            b->json = true;
        else
            b->model_path = argv[i];
    }
    snprintf(b->dir, sizeof b->dir, "/tmp/pharos-bench.XXXXXX");
    check(mkdtemp(b->dir), "no directory in /tmp");
    arena_init(&b->arena, 1 << 20);
    arena_init(&b->fixed, 1 << 20);
    check(net_loop_create(&b->loop, &err) == PH_OK, "no loop");
    make_request(b);
    make_accounts(b);
    make_models(b);
    make_gateway(b);
    check(net_wake_open(&b->wake, b->loop, go_on, b) == PH_OK, "no wake-up");
    net_wake_call(b->wake);
    net_loop_run(b->loop);
    return 2;
}
