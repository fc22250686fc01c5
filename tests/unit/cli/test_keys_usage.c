/* What keys have used this month, from journals that a ledger has written. */
#include <dirent.h>

#include "base/clock.h"
#include "cli/keys_usage_int.h"
#include "gateway/ledger.h"
#include "test_support.h"

#define NOW INT64_C(1795265934) /* 2026-11-21 */
#define DAY INT64_C(86400)

static int64_t wall_s;

static uint64_t clock_ns(void *ud)
{
    (void)ud;
    return (uint64_t)wall_s * 1000000000;
}

static int64_t clock_ms(void *ud)
{
    (void)ud;
    return wall_s * 1000;
}

static const struct clock_source test_clock = {clock_ns, clock_ms, NULL};

static void spend(const char *dir, const char *ledger_name, int64_t when, const char *key_id, uint64_t tokens)
{
    char path[256];
    struct ledger *ledger;
    struct ledger_hold *hold;
    struct ledger_refusal refusal;
    struct ph_err err;
    wall_s = when;
    snprintf(path, sizeof path, "%s/%s", dir, ledger_name);
    const struct ledger_params params = {.dir = path, .clock = &test_clock};
    assert_int_equal(ledger_open(&ledger, &params, NULL, &err), PH_OK);
    const struct ledger_ask ask = {.request_id = "req-1",
                                   .key_id = key_id,
                                   .model = "m",
                                   .provider = "p",
                                   .tier = LEDGER_PREMIUM,
                                   .price = {.input = 1000, .output = 2000},
                                   .prompt_tokens = tokens,
                                   .output_tokens_max = tokens};
    const struct ledger_usage usage = {.prompt_tokens = tokens, .output_tokens = tokens / 2};
    assert_int_equal(ledger_reserve(ledger, &ask, &hold, &refusal), PH_OK);
    ledger_settle(ledger, hold, &usage, LEDGER_WHOLE);
    ledger_close(ledger);
}

static void remove_all(const char *path)
{
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        char inner[512];
        snprintf(inner, sizeof inner, "%.200s/%s", path, entry->d_name);
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (remove(inner) != 0)
            remove_all(inner);
    }
    closedir(dir);
    assert_int_equal(rmdir(path), 0);
}

static struct key key_of(const char *id, const char *account)
{
    struct key key = {0};
    memcpy(key.id, id, sizeof key.id);
    memcpy(key.account, account, sizeof key.account);
    return key;
}

static void a_month_is_summed_by_account(void **state)
{
    char dir[] = "/tmp/test_keys_usage.XXXXXX";
    struct arena arena;
    struct key_usages usages;
    struct ph_err err;
    (void)state;
    assert_non_null(mkdtemp(dir));
    spend(dir, "ledger", NOW - 25 * DAY, "aaaaaaaa", 1000); /* October */
    spend(dir, "ledger", NOW - 3 * DAY, "aaaaaaaa", 100);
    spend(dir, "ledger", NOW, "aaaaaaaa", 10);
    spend(dir, "ledger.2", NOW, "aaaaaaaa", 2);
    spend(dir, "ledger", NOW, "bbbbbbbb", 40);
    spend(dir, "ledger", NOW, "", 7);
    spend(dir, "ledger", NOW, "gone-key", 7);
    const struct key keys[] = {key_of("cccccccc", "aaaaaaaa"), key_of("bbbbbbbb", "bbbbbbbb"),
                               key_of("aaaaaaaa", "aaaaaaaa"), key_of("dddddddd", "dddddddd")};
    arena_init(&arena, 1u << 20);
    assert_int_equal(keys_usage_read(&arena, dir, keys, 4, NOW, &usages, &err), PH_OK);
    assert_int_equal(usages.count, 3);
    assert_int_equal(usages.damaged, 0);
    const struct key_usage *a = keys_usage_of(&usages, &keys[0]), *b = keys_usage_of(&usages, &keys[1]);
    assert_ptr_equal(a, keys_usage_of(&usages, &keys[2]));
    assert_int_equal(a->requests, 3);
    assert_int_equal(a->prompt_tokens, 112);
    assert_int_equal(a->output_tokens, 56);
    assert_int_equal(a->cost_pico, 112 * 1000 + 56 * 2000);
    assert_int_equal(b->requests, 1);
    assert_int_equal(b->prompt_tokens, 40);
    assert_int_equal(keys_usage_of(&usages, &keys[3])->requests, 0);
    arena_release(&arena);
    remove_all(dir);
}

static void without_a_ledger_nothing_was_used(void **state)
{
    struct arena arena;
    struct key_usages usages;
    struct ph_err err;
    const struct key key = key_of("aaaaaaaa", "aaaaaaaa");
    (void)state;
    arena_init(&arena, 1u << 20);
    assert_int_equal(keys_usage_read(&arena, "/nowhere", &key, 1, NOW, &usages, &err), PH_OK);
    assert_int_equal(keys_usage_of(&usages, &key)->requests, 0);
    assert_int_equal(keys_usage_read(&arena, "/nowhere", NULL, 0, NOW, &usages, &err), PH_OK);
    assert_int_equal(usages.count, 0);
    arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_month_is_summed_by_account),
        cmocka_unit_test(without_a_ledger_nothing_was_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
