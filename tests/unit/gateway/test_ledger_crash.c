/* kill -9 of the station: nothing that was counted is lost, nothing is counted twice.
 *
 * The child tells what it is about to do and what it has done through memory that it shares with the test, so
 * that it can be killed between any two of its instructions. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#include "gateway/ledger_test.h"

#define REQUESTS_MAX 60000
#define RUNNING 24
#define ESTIMATE 777 /* of every prompt; what is said is even */

enum { NOT, INTENDED, DONE };

struct told {
    _Atomic int reserved, settled;
    _Atomic uint64_t output_intended, output_done, prompt_intended, prompt_done;
    _Atomic uint64_t final_output; /* with the prompt as said before */
    _Atomic int outcome;
};

struct log {
    _Atomic uint64_t requests, steps;
    struct told told[REQUESTS_MAX];
};

static const struct ledger_price price = {3, 1, 4, 15};

static struct log *open_log(void)
{
    struct log *log = mmap(NULL, sizeof *log, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(log != MAP_FAILED);
    return log;
}

/* ---- The station that will be killed */

static void tell_reserve(struct ledger *ledger, struct log *log, uint64_t number, struct ledger_hold **hold)
{
    char id[32];
    snprintf(id, sizeof id, "r%llu", (unsigned long long)number);
    struct ledger_ask ask = usual();
    ask.request_id = id;
    ask.prompt_tokens = ESTIMATE;
    ask.output_tokens_max = 2; /* so that it grows again and again */
    ask.output_tokens_bound = 1000000;
    struct told *told = &log->told[number];
    atomic_store(&told->prompt_intended, ESTIMATE);
    atomic_store(&told->prompt_done, ESTIMATE);
    atomic_store(&told->reserved, INTENDED);
    if (ledger_reserve(ledger, &ask, hold, NULL) != PH_OK)
        _exit(1);
    atomic_store(&told->reserved, DONE);
}

static void tell_count(struct told *told, struct ledger_hold *hold)
{
    uint64_t next = atomic_load(&told->output_done) + 1;
    atomic_store(&told->output_intended, next);
    if (!ledger_count(hold, next))
        _exit(2);
    atomic_store(&told->output_done, next);
}

static void tell_prompt(struct told *told, struct ledger_hold *hold, uint64_t prompt)
{
    atomic_store(&told->prompt_intended, prompt);
    if (!ledger_count_prompt(hold, prompt, prompt / 2, 0))
        _exit(3);
    atomic_store(&told->prompt_done, prompt);
}

static void tell_settle(struct ledger *ledger, struct told *told, struct ledger_hold *hold, uint64_t more,
                        enum ledger_outcome outcome)
{
    uint64_t prompt = atomic_load(&told->prompt_done);
    struct ledger_usage usage = {.prompt_tokens = prompt,
                                 .cached_tokens = prompt == ESTIMATE ? 0 : prompt / 2,
                                 .output_tokens = atomic_load(&told->output_done) + more};
    atomic_store(&told->outcome, (int)outcome);
    atomic_store(&told->final_output, usage.output_tokens);
    atomic_store(&told->settled, INTENDED);
    ledger_settle(ledger, hold, &usage, outcome);
    atomic_store(&told->settled, DONE);
}

static void station(struct fixture *f, struct log *log, uint64_t seed)
{
    struct ledger_hold *holds[RUNNING] = {0};
    uint64_t numbers[RUNNING] = {0};
    struct ledger *ledger;
    struct rng rng;
    rng_init(&rng, seed);
    if (ledger_open(&ledger, &(struct ledger_params){f->dir, &f->clock}, NULL, NULL) != PH_OK)
        _exit(4);
    for (;;) {
        size_t i = rng_u64(&rng) % RUNNING;
        uint64_t dice = rng_u64(&rng) % 100;
        struct told *told = &log->told[numbers[i]];
        if (!holds[i]) {
            numbers[i] = atomic_fetch_add(&log->requests, 1);
            while (numbers[i] >= REQUESTS_MAX) /* the killer lost its processor for long: it comes */
                pause();
            tell_reserve(ledger, log, numbers[i], &holds[i]);
        } else if (dice < 70) {
            tell_count(told, holds[i]);
        } else if (dice < 80) {
            tell_prompt(told, holds[i], rng_u64(&rng) % 1000 * 2);
        } else {
            tell_settle(ledger, told, holds[i], rng_u64(&rng) % 3,
                        (enum ledger_outcome)(rng_u64(&rng) % LEDGER_OUTCOME_COUNT));
            holds[i] = NULL;
        }
        if (dice == 99)
            ledger_tick(ledger);
        f->now_ms += dice == 98 ? DAY_MS / 50 : 0; /* over days, and over the end of the month */
        atomic_fetch_add(&log->steps, 1);
    }
}

/* ---- What has to be there afterwards */

static void check_identity(const struct ledger_record *r)
{
    assert_string_equal(r->key_id, "abcd1234");
    assert_string_equal(r->model, "gpt-4o");
    assert_string_equal(r->provider, "openai");
    assert_int_equal(r->tier, LEDGER_PREMIUM);
    assert_int_equal(r->cost_pico, ledger_cost(&price, &r->usage));
}

/* The prompt is what was told last, or what was about to be; its cached half belongs to it. */
static void check_prompt(const struct told *told, const struct ledger_record *r)
{
    uint64_t prompt = r->usage.prompt_tokens;
    assert_true(prompt == atomic_load(&told->prompt_done) || prompt == atomic_load(&told->prompt_intended));
    assert_int_equal(r->usage.cached_tokens, prompt == ESTIMATE ? 0 : prompt / 2);
}

static void check_settled(const struct told *told, const struct ledger_record *r)
{
    assert_int_equal(r->outcome, atomic_load(&told->outcome));
    assert_int_equal(r->usage.output_tokens, atomic_load(&told->final_output));
    assert_int_equal(r->usage.prompt_tokens, atomic_load(&told->prompt_done));
    check_prompt(told, r);
}

static void check_crashed(const struct told *told, const struct ledger_record *r)
{
    assert_int_equal(r->outcome, LEDGER_CRASHED);
    assert_true(r->usage.output_tokens >= atomic_load(&told->output_done));
    assert_true(r->usage.output_tokens <= atomic_load(&told->output_intended));
    assert_true(r->usage.estimated);
    check_prompt(told, r);
}

/* `r` NULL: there is no record. */
static void check_request(const struct told *told, const struct ledger_record *r)
{
    int reserved = atomic_load(&told->reserved), settled = atomic_load(&told->settled);
    bool unused = settled != NOT && atomic_load(&told->outcome) == LEDGER_UNUSED;
    if (!r) {
        assert_true(reserved != DONE || unused);
        return;
    }
    assert_int_not_equal(reserved, NOT);
    check_identity(r);
    if (settled == DONE)
        assert_false(unused);
    if (settled == DONE || (settled == INTENDED && r->outcome != LEDGER_CRASHED))
        check_settled(told, r);
    else if (settled == NOT || atomic_load(&told->outcome) != LEDGER_CRASHED)
        check_crashed(told, r);
}

struct whole {
    const struct log *log;
    bool *seen;
    int64_t month; /* whose cost is added up */
    int64_t cost;
};

static bool check_record(void *ud, const struct ledger_record *record)
{
    struct whole *whole = ud;
    assert_int_equal(record->request_id[0], 'r');
    size_t number = strtoul(record->request_id + 1, NULL, 10);
    assert_true(number < REQUESTS_MAX);
    assert_false(whole->seen[number]); /* L4 */
    whole->seen[number] = true;
    check_request(&whole->log->told[number], record);
    struct clock_date date = clock_date(clock_day(record->unix_ms));
    if (date.year * 12 + date.month == whole->month)
        whole->cost += record->cost_pico;
    return true;
}

/* Opens the ledger as the next station would, and compares the journal with what was told. */
static void check_all(struct fixture *f, const struct log *log)
{
    struct clock_date date = clock_date(clock_day(f->now_ms));
    struct whole whole = {log, calloc(REQUESTS_MAX, sizeof(bool)), date.year * 12 + date.month, 0};
    uint64_t damaged;
    struct ph_err err = {0};
    open_ledger(f, NULL);
    ledger_tick(f->ledger);
    if (ledger_read(f->dir, clock_day(NOON) - 1, clock_day(NOON) + 400, check_record, &whole, &damaged, &err))
        fail_msg("%s", err.message);
    assert_int_equal(damaged, 0);
    for (size_t i = 0; i < REQUESTS_MAX; i++)
        if (!whole.seen[i])
            check_request(&log->told[i], NULL);
    assert_sum(f->ledger, LEDGER_STATION, "", whole.cost, 0);
    assert_sum(f->ledger, LEDGER_BY_KEY, "abcd1234", whole.cost, 0);
    ledger_close(f->ledger);
    f->ledger = NULL;
    free(whole.seen);
}

static void kill_after(pid_t child, struct log *log, uint64_t steps)
{
    const struct timespec little = {.tv_nsec = 20000};
    uint64_t from = atomic_load(&log->steps);
    for (int waited = 0; atomic_load(&log->steps) - from < steps &&
                         atomic_load(&log->requests) < REQUESTS_MAX && waited < 100000;
         waited++) {
        int status;
        if (waitpid(child, &status, WNOHANG) == child)
            fail_msg("the station ended by itself: %d", status);
        nanosleep(&little, NULL);
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

static void a_killed_station_loses_and_doubles_nothing(void **state)
{
    struct fixture *f = *state;
    struct log *log = open_log();
    struct rng rng;
    rng_init(&rng, 9);
    for (int round = 0; round < 120; round++) {
        uint64_t seed = rng_u64(&rng);
        pid_t child = fork();
        if (child == 0)
            station(f, log, seed);
        /* some are killed while they settle what the one before left */
        kill_after(child, log, round % 4 == 0 ? 0 : rng_u64(&rng) % 400);
        f->now_ms += (int64_t)(rng_u64(&rng) % (uint64_t)DAY_MS / 8);
        if (round % 5 == 4)
            check_all(f, log);
    }
    assert_true(atomic_load(&log->requests) > 2000);
    munmap(log, sizeof *log);
}

/* ---- Every instruction */

#define TRACED_STEPS_MAX 3000000

static void one_request(struct ledger *ledger, struct log *log)
{
    struct ledger_hold *hold;
    struct told *told = &log->told[0];
    tell_reserve(ledger, log, 0, &hold);
    tell_count(told, hold);
    tell_prompt(told, hold, 500);
    tell_count(told, hold);
    tell_count(told, hold); /* the hold grows */
    tell_prompt(told, hold, 900);
    tell_settle(ledger, told, hold, 1, LEDGER_WHOLE);
}

/* What the next station would make of the slot, were this one killed now. */
static void check_slot(const struct crc32c *crc, const struct ledger_slot *slot, const struct log *log)
{
    struct ledger_slot copy;
    struct ledger_record record;
    memcpy(&copy, slot, sizeof copy);
    bool used = atomic_load(&copy.state) != SLOT_FREE;
    if (used && (!slot_recover(crc, &copy) || !record_read(crc, copy.record, &record)))
        fail_msg("a torn slot");
    check_request(&log->told[0], used ? &record : NULL);
}

static void every_instruction_leaves_a_whole_slot(void **state)
{
    struct fixture *f = *state;
    struct log *log = open_log();
    struct crc32c crc;
    struct file_map map;
    char path[128];
    int status;
    crc32c_init(&crc);
    snprintf(path, sizeof path, "%s/holds", f->dir);
    pid_t child = fork();
    if (child == 0) {
        struct ledger *ledger;
        if (ledger_open(&ledger, &(struct ledger_params){f->dir, &f->clock}, NULL, NULL) != PH_OK ||
            ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(7);
        raise(SIGSTOP);
        one_request(ledger, log);
        atomic_store(&log->steps, 1);
        for (;;)
            pause();
    }
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 7)
        skip(); /* nobody may be traced here */
    assert_true(WIFSTOPPED(status));
    assert_int_equal(file_map_open(&map, path, NULL), PH_OK);
    const struct ledger_slot *slot = (const void *)(map.data + 4096);
    long steps = 0, held = 0, settled = 0;
    while (atomic_load(&log->steps) == 0 && steps < TRACED_STEPS_MAX) {
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSTOPPED(status));
        check_slot(&crc, slot, log);
        steps++;
        held += (atomic_load(&slot->state) & 3) == SLOT_HELD;
        settled += (atomic_load(&slot->state) & 3) == SLOT_SETTLED;
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_true(steps < TRACED_STEPS_MAX && held > 100 && settled > 0 && steps > held + settled);
    check_all(f, log);
    file_map_release(&map);
    munmap(log, sizeof *log);
}

/* S3: killed after the journal was written and before the slots were free. */
static void what_the_journal_has_is_not_written_again(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    size_t recovered;
    char path[128];
    struct buf holds;
    snprintf(path, sizeof path, "%s/holds", f->dir);
    open_ledger(f, NULL);
    for (int i = 0; i < 300; i++) {
        ledger_settle(f->ledger, reserve(f->ledger, &ask), NULL, LEDGER_WHOLE);
        f->now_ms += DAY_MS / 100; /* three days */
    }
    struct ledger_hold *running = reserve(f->ledger, &ask);
    assert_true(ledger_count(running, 9));
    buf_init(&holds, 64 << 20);
    assert_int_equal(file_read(path, &holds, NULL), PH_OK);
    ledger_tick(f->ledger);
    ledger_close(f->ledger);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(file_write_atomic(path, holds.data, holds.len, 0600, NULL), PH_OK);
        open_ledger(f, &recovered);
        assert_int_equal(recovered, 0);
        assert_sum(f->ledger, LEDGER_STATION, "", 301 * 300 + 9 * 15, 0);
        ledger_close(f->ledger);
    }
    f->ledger = NULL;
    struct seen seen = read_all(f);
    assert_int_equal(seen.count, 301);
    free(seen.records);
    buf_release(&holds);
}

static void torn_slots_are_told_from_whole_ones(void **state)
{
    (void)state;
    struct crc32c crc;
    struct ledger_slot whole = {0}, copy;
    struct ledger_ask ask = usual();
    struct ledger_record record;
    crc32c_init(&crc);
    for (int settled = 0; settled < 2; settled++) {
        size_t torn = 0;
        slot_hold(&crc, &whole, &ask, 5, NOON);
        if (settled)
            slot_settle(&crc, &whole, &(struct ledger_usage){.output_tokens = 5}, LEDGER_WHOLE);
        for (size_t bit = 0; bit < sizeof whole * 8; bit++) {
            memcpy(&copy, &whole, sizeof copy);
            ((uint8_t *)&copy)[bit / 8] ^= (uint8_t)(1 << bit % 8);
            if (!slot_recover(&crc, &copy)) {
                torn++;
                continue;
            }
            assert_true(record_read(&crc, copy.record, &record));
            assert_string_equal(record.request_id, "req-1");
            assert_string_equal(record.key_id, "abcd1234");
            assert_int_equal(record.unix_ms, NOON);
            assert_int_equal(record.sequence, 5);
            if (settled)
                assert_int_equal(record.cost_pico, 75);
        }
        assert_true(torn >= (settled ? 256 * 8 : 264 * 8));
    }
}

static void two_stations_are_one_too_many(void **state)
{
    struct fixture *f = *state;
    open_ledger(f, NULL);
    pid_t child = fork();
    if (child == 0) {
        struct ledger *second;
        struct ph_err err = {0};
        char pid[32];
        snprintf(pid, sizeof pid, "(pid %d)", (int)getppid());
        enum ph_status status = ledger_open(&second, &(struct ledger_params){f->dir, &f->clock}, NULL, &err);
        _exit(status == PH_ERR_BUSY && !second && strstr(err.message, pid) ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    struct ledger_ask ask = usual();
    ledger_settle(f->ledger, reserve(f->ledger, &ask), NULL, LEDGER_WHOLE); /* and the first goes on */
    reopen(f);
    assert_sum(f->ledger, LEDGER_STATION, "", 300, 0);
}

int main(void)
{
#define WITH_DIR(test) cmocka_unit_test_setup_teardown(test, setup_dir, teardown)
    const struct CMUnitTest tests[] = {
        WITH_DIR(a_killed_station_loses_and_doubles_nothing),
        WITH_DIR(every_instruction_leaves_a_whole_slot),
        WITH_DIR(what_the_journal_has_is_not_written_again),
        cmocka_unit_test(torn_slots_are_told_from_whole_ones),
        WITH_DIR(two_stations_are_one_too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
