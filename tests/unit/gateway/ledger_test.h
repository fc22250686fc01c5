/* What the tests of the ledger share: a directory of its own, a clock that is set, an ask that is usual. */
#ifndef PHAROS_TESTS_LEDGER_TEST_H
#define PHAROS_TESTS_LEDGER_TEST_H

#include <dirent.h>
#include <sys/stat.h>

#include "gateway/ledger_int.h"
#include "test_support.h"

#define DAY_MS INT64_C(86400000)
#define NOON (INT64_C(1795176000000)) /* 2026-11-20T12:00:00Z */

struct fixture {
    char dir[64];
    int64_t now_ms;
    struct clock_source clock;
    struct ledger *ledger;
};

static inline uint64_t fake_monotonic(void *ud)
{
    return (uint64_t) * (int64_t *)ud * 1000000u;
}

static inline int64_t fake_unix(void *ud)
{
    return *(int64_t *)ud;
}

static inline void empty_dir(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));) {
        char name[512];
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (entry->d_name[0] != '.')
            unlink(name);
    }
    closedir(dir);
}

static inline struct ledger *open_ledger(struct fixture *f, size_t *recovered)
{
    struct ph_err err = {0};
    if (ledger_open(&f->ledger, &(struct ledger_params){f->dir, &f->clock}, recovered, &err) != PH_OK)
        fail_msg("%s", err.message);
    return f->ledger;
}

static inline struct ledger *reopen(struct fixture *f)
{
    ledger_close(f->ledger);
    return open_ledger(f, NULL);
}

static inline int setup_dir(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    bool memory = access("/dev/shm", W_OK) == 0; /* where syncing is cheap */
    snprintf(f->dir, sizeof f->dir, "%s/test_ledger.XXXXXX", memory ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(f->dir));
    f->now_ms = NOON;
    f->clock = (struct clock_source){fake_monotonic, fake_unix, &f->now_ms};
    *state = f;
    return 0;
}

static inline int setup(void **state)
{
    setup_dir(state);
    open_ledger(*state, NULL);
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;
    ledger_close(f->ledger);
    empty_dir(f->dir);
    rmdir(f->dir);
    free(f);
    return 0;
}

/* 100 tokens of prompt at 3 and up to 1000 of output at 15. */
static inline struct ledger_ask usual(void)
{
    return (struct ledger_ask){.request_id = "req-1",
                               .key_id = "abcd1234",
                               .model = "gpt-4o",
                               .provider = "openai",
                               .tier = LEDGER_PREMIUM,
                               .price = {3, 1, 4, 15},
                               .premium = {3, 1, 4, 15},
                               .prompt_tokens = 100,
                               .output_tokens_max = 1000};
}

static inline struct ledger_hold *reserve(struct ledger *ledger, const struct ledger_ask *ask)
{
    struct ledger_hold *hold;
    struct ledger_refusal refusal;
    assert_int_equal(ledger_reserve(ledger, ask, &hold, &refusal), PH_OK);
    assert_non_null(hold);
    return hold;
}

static inline void budget(struct ledger *ledger, enum ledger_scope scope, const char *name, int64_t pico)
{
    assert_int_equal(ledger_set_budget(ledger, scope, name, pico), PH_OK);
}

static inline void assert_sum(const struct ledger *ledger, enum ledger_scope scope, const char *name,
                              int64_t spent, int64_t held)
{
    struct ledger_sum sum = ledger_sum(ledger, scope, name);
    assert_int_equal(sum.spent_pico, spent);
    assert_int_equal(sum.held_pico, held);
}

/* ---- What the journal says */

#define SEEN_MAX 20000
struct seen {
    struct seen_record {
        char request_id[64], key_id[32], model[64], provider[64];
        struct ledger_record record; /* texts point above */
    } * records;
    size_t count;
    uint64_t damaged;
};

static inline bool see(void *ud, const struct ledger_record *record)
{
    struct seen *seen = ud;
    assert_true(seen->count < SEEN_MAX);
    struct seen_record *r = &seen->records[seen->count++];
    r->record = *record;
    snprintf(r->request_id, sizeof r->request_id, "%s", record->request_id);
    snprintf(r->key_id, sizeof r->key_id, "%s", record->key_id);
    snprintf(r->model, sizeof r->model, "%s", record->model);
    snprintf(r->provider, sizeof r->provider, "%s", record->provider);
    return true;
}

static inline struct seen read_days(const char *dir, int64_t from_ms, int64_t to_ms)
{
    struct seen seen = {.records = malloc(SEEN_MAX * sizeof *seen.records)};
    struct ph_err err = {0};
    if (ledger_read(dir, clock_day(from_ms), clock_day(to_ms), see, &seen, &seen.damaged, &err) != PH_OK)
        fail_msg("%s", err.message);
    return seen;
}

static inline struct seen read_all(const struct fixture *f)
{
    return read_days(f->dir, NOON - 400 * DAY_MS, NOON + 400 * DAY_MS);
}

#endif
