/* Speed of the ledger.
 *
 *   build/bench_ledger [DIR [requests]]
 *
 * Reserve, 20 tokens counted, settle, with writes of full batches in it: ns a request. A token's count alone.
 * Then how long a new station takes to open the directory with that month's journal in it. Each in CPU time
 * of the thread and in elapsed time; what it writes (256 bytes a request) is deleted. DIR: /tmp. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "gateway/ledger.h"

#define REQUESTS 1000000
#define TOKENS 20
#define COUNTS 100000000
#define RUNNING 64
#define KEYS 100

struct span {
    double cpu_s, wall_s;
};

static double seconds(clockid_t which)
{
    struct timespec t;
    clock_gettime(which, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static struct span now(void)
{
    return (struct span){seconds(CLOCK_THREAD_CPUTIME_ID), seconds(CLOCK_MONOTONIC)};
}

static struct span since(struct span start)
{
    struct span end = now();
    return (struct span){end.cpu_s - start.cpu_s, end.wall_s - start.wall_s};
}

static struct ledger *open_ledger(const char *dir)
{
    struct ledger *ledger;
    struct ph_err err;
    if (ledger_open(&ledger, &(struct ledger_params){dir, clock_system()}, NULL, &err) != PH_OK) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    for (int i = 0; i < KEYS; i++) {
        char key[16];
        snprintf(key, sizeof key, "key%05d", i);
        if (ledger_set_budget(ledger, LEDGER_BY_KEY, key, INT64_MAX) != PH_OK)
            exit(1);
    }
    if (ledger_set_budget(ledger, LEDGER_BY_TIER, "premium", INT64_MAX) != PH_OK)
        exit(1);
    return ledger;
}

static struct ledger_hold *reserve(struct ledger *ledger, size_t i)
{
    struct ledger_hold *hold;
    char key[16], request[40];
    snprintf(key, sizeof key, "key%05zu", i % KEYS);
    snprintf(request, sizeof request, "req-%024zu", i);
    const struct ledger_ask ask = {.request_id = request,
                                   .key_id = key,
                                   .model = "meta-llama/Llama-3-70b-chat-hf",
                                   .provider = "together",
                                   .tier = LEDGER_PREMIUM,
                                   .price = {900000, 450000, 900000, 900000},
                                   .premium = {2500000, 1250000, 2500000, 10000000},
                                   .prompt_tokens = 700,
                                   .output_tokens_max = 1000};
    if (ledger_reserve(ledger, &ask, &hold, NULL) != PH_OK)
        exit(1);
    return hold;
}

static void bench_requests(struct ledger *ledger, size_t requests)
{
    struct ledger_hold *running[RUNNING];
    struct span start = now();
    for (size_t i = 0; i < requests + RUNNING; i++) {
        if (i >= RUNNING)
            ledger_settle(ledger, running[i % RUNNING],
                          &(struct ledger_usage){.prompt_tokens = 698, .output_tokens = TOKENS},
                          LEDGER_WHOLE);
        if (i >= requests)
            continue;
        running[i % RUNNING] = reserve(ledger, i);
        for (uint64_t n = 1; n <= TOKENS; n++)
            if (!ledger_count(running[i % RUNNING], n))
                exit(1);
    }
    struct span took = since(start);
    printf("reserve, %d counts, settle   %7.0f ns CPU, %7.0f ns (with batches written, names made)\n", TOKENS,
           took.cpu_s / (double)requests * 1e9, took.wall_s / (double)requests * 1e9);
}

static void bench_counts(struct ledger *ledger)
{
    struct ledger_hold *hold = reserve(ledger, 0);
    struct span start = now();
    for (uint64_t n = 0; n < COUNTS; n++)
        if (!ledger_count(hold, n % 1000))
            exit(1);
    struct span took = since(start);
    printf("a token's count              %7.2f ns CPU, %7.2f ns\n", took.cpu_s / COUNTS * 1e9,
           took.wall_s / COUNTS * 1e9);
    ledger_settle(ledger, hold, NULL, LEDGER_WHOLE);
}

static void clean(const char *dir)
{
    char text[CLOCK_UTC_TEXT_MAX], path[1200];
    clock_format_utc(clock_unix_ms(clock_system()), text);
    snprintf(path, sizeof path, "%s/%.10s.journal", dir, text);
    unlink(path);
    snprintf(path, sizeof path, "%s/holds", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/lock", dir);
    unlink(path);
    rmdir(dir);
}

int main(int argc, char **argv)
{
    char dir[1024];
    size_t requests = argc > 2 ? strtoul(argv[2], NULL, 10) : REQUESTS;
    snprintf(dir, sizeof dir, "%s/bench_ledger.XXXXXX", argc > 1 ? argv[1] : "/tmp");
    if (!mkdtemp(dir)) {
        perror(dir);
        return 1;
    }
    struct ledger *ledger = open_ledger(dir);
    bench_requests(ledger, requests);
    bench_counts(ledger);
    ledger_close(ledger);
    for (int i = 0; i < 3; i++) {
        struct span start = now();
        ledger = open_ledger(dir);
        struct span took = since(start);
        printf("open, %zu records       %7.0f ms CPU, %7.0f ms\n", requests, took.cpu_s * 1e3,
               took.wall_s * 1e3);
        ledger_close(ledger);
    }
    clean(dir);
    return 0;
}
