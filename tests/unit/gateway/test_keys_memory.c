/* Keys, rates and the gate when memory is short: every allocation fails once, and nothing is lost or leaked.
 * This program defines base/mem.h's functions itself. */
#include <fcntl.h>
#include <malloc.h>

#include "base/log.h"
#include "gateway/gate.h"
#include "gateway/keys.h"
#include "gateway/keys_support.h"
#include "gateway/rates.h"

static long long bytes, fail_after = -1; /* allocations that still succeed; negative: all do */

static bool may_allocate(void)
{
    return fail_after < 0 || fail_after-- > 0;
}

static void *note(void *memory)
{
    bytes += memory ? (long long)malloc_usable_size(memory) : 0;
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
    bytes -= old ? (long long)malloc_usable_size(old) : 0;
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
    bytes -= memory ? (long long)malloc_usable_size(memory) : 0;
    free(memory);
}

/* ---- Each scenario answers whether it went through */

struct scenario {
    struct test_dir dir;
    struct test_clock clock;
    char text[KEY_TEXT_MAX];
    struct key first;
};

static const struct key plain = {.name = "plain", .budget_usd_month = -1};

static bool make_keys(struct scenario *s)
{
    struct key made;
    char text[KEY_TEXT_MAX];
    struct ph_err err = {0};
    return keys_create(s->dir.path, &s->clock.source, &plain, &made, text, &err) == PH_OK &&
           keys_rotate(s->dir.path, &s->clock.source, made.id, 60, &made, text, &err) == PH_OK &&
           keys_revoke(s->dir.path, &s->clock.source, made.id, &err) == PH_OK;
}

static bool open_keys(struct scenario *s)
{
    struct keys *keys;
    struct ph_err err = {0};
    const struct key *key;
    enum ph_status status = keys_open(&keys, s->dir.path, &s->clock.source, &err);
    if (status != PH_OK) {
        assert_int_equal(err.code, status);
        assert_null(keys);
        return false;
    }
    assert_int_equal(keys_check(keys, s->text, strlen(s->text), &key), KEY_OK);
    keys_close(keys);
    return true;
}

/* A file with other keys: a reading that fails leaves what was. */
static bool refresh_keys(struct scenario *s)
{
    struct keys *keys;
    const struct key *key;
    long long when = fail_after;
    fail_after = -1;
    char *before = test_dir_read(&s->dir, KEYS_FILE_NAME);
    assert_int_equal(keys_open(&keys, s->dir.path, &s->clock.source, NULL), PH_OK);
    size_t count = keys_count(keys);
    for (int i = 0; i < 40; i++) {
        struct key made;
        char text[KEY_TEXT_MAX];
        assert_int_equal(keys_create(s->dir.path, &s->clock.source, &plain, &made, text, NULL), PH_OK);
    }
    fail_after = when;
    bool read = keys_refresh(keys);
    fail_after = -1;
    assert_int_equal(keys_check(keys, s->text, strlen(s->text), &key), KEY_OK);
    assert_int_equal(keys_count(keys), read ? count + 40 : count);
    assert_true(read || keys_refresh(keys)); /* it is tried again */
    assert_int_equal(keys_count(keys), count + 40);
    keys_close(keys);
    test_dir_write(&s->dir, KEYS_FILE_NAME, before, 0600);
    mem_free(before);
    return read;
}

static bool take_rates(struct scenario *s)
{
    struct rates *rates;
    struct rate_take takes[40];
    uint32_t wait;
    const char *which;
    size_t let_in = 0;
    if (rates_create(&rates, &s->clock.source) != PH_OK)
        return false;
    for (int i = 0; i < 40; i++) {
        char who[8];
        snprintf(who, sizeof who, "%d", i);
        bool in = rates_take(rates, who, &(struct rate_limits){.rpm = 1}, 1, &takes[i], &wait, &which);
        assert_true(in || wait == 1);
        let_in += in;
    }
    for (int i = 0; i < 40; i++)
        rates_give(rates, &takes[i], 1);
    rates_free(rates);
    return let_in == 40;
}

static void nothing(void *ud)
{
    (void)ud;
}

static bool pass_gate(struct scenario *s)
{
    struct gate *gate;
    struct gate_ticket tickets[40];
    size_t let_in = 0;
    (void)s;
    if (gate_create(&gate, 2, 64) != PH_OK)
        return false;
    for (int i = 0; i < 40; i++) {
        char who[8];
        bool entered;
        snprintf(who, sizeof who, "%d", i);
        enum ph_status status = gate_enter(gate, who, 1, &tickets[i], nothing, NULL, &entered);
        assert_true(status == PH_OK || (status == PH_ERR_NOMEM && !tickets[i].gate));
        let_in += status == PH_OK;
    }
    assert_int_equal(gate_running(gate) + gate_waiting(gate), let_in);
    for (int round = 0; round < 40; round++)
        for (int i = 0; i < 40; i++)
            if (!tickets[i].line)
                gate_leave(&tickets[i]);
    assert_int_equal(gate_running(gate) + gate_waiting(gate), 0);
    gate_free(gate);
    return let_in == 40;
}

/* Fails each allocation of a scenario in turn, until one run has come through without. */
static void without_each(bool (*run)(struct scenario *s))
{
    struct scenario s = {0};
    int sink = open("/dev/null", O_WRONLY);
    log_setup(sink, LOG_ERROR, false);
    test_dir_make(&s.dir);
    test_clock_init(&s.clock, 1700000000);
    assert_int_equal(keys_create(s.dir.path, &s.clock.source, &plain, &s.first, s.text, NULL), PH_OK);
    char *begin = test_dir_read(&s.dir, KEYS_FILE_NAME);
    long long before = bytes;
    bool through = false;
    for (long long after = 0; !through; after++) {
        assert_true(after < 5000);
        fail_after = after;
        through = run(&s);
        assert_true(through || fail_after == 0 || fail_after == -1);
        fail_after = -1;
        assert_int_equal(bytes, before);
        test_dir_write(&s.dir, KEYS_FILE_NAME, begin, 0600);
    }
    mem_free(begin);
    test_dir_remove(&s.dir);
    log_setup(STDERR_FILENO, LOG_INFO, false);
    close(sink);
}

static void the_file_of_keys(void **state)
{
    (void)state;
    without_each(make_keys);
}

static void a_stations_keys(void **state)
{
    (void)state;
    without_each(open_keys);
    without_each(refresh_keys);
}

static void rates_of_names(void **state)
{
    (void)state;
    without_each(take_rates);
}

static void turns_at_the_gate(void **state)
{
    (void)state;
    without_each(pass_gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_of_keys),
        cmocka_unit_test(a_stations_keys),
        cmocka_unit_test(rates_of_names),
        cmocka_unit_test(turns_at_the_gate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
