/* A station's view of its keys: who is let in, what may be done, what a changed file changes. */
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#include "base/log.h"
#include "gateway/keys_int.h"
#include "gateway/keys_support.h"

#define NOW 1700000000

struct fixture {
    struct test_dir dir;
    struct test_clock clock;
    struct keys *keys;
    struct key made;
    char text[KEY_TEXT_MAX];
};

static const struct key plain = {.name = "plain", .budget_usd_month = -1};

static void create(struct fixture *f, const struct key *spec)
{
    struct ph_err err;
    assert_int_equal(keys_create(f->dir.path, &f->clock.source, spec, &f->made, f->text, &err), PH_OK);
}

static int setup(void **state)
{
    struct fixture *f = mem_calloc(1, sizeof *f);
    struct ph_err err;
    test_dir_make(&f->dir);
    test_clock_init(&f->clock, NOW);
    create(f, &plain);
    assert_int_equal(keys_open(&f->keys, f->dir.path, &f->clock.source, &err), PH_OK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    keys_close(f->keys);
    test_dir_remove(&f->dir);
    mem_free(f);
    return 0;
}

static enum key_verdict check(struct fixture *f, const char *text, const struct key **out)
{
    return keys_check(f->keys, text, strlen(text), out);
}

static void a_key_is_known_and_others_are_not(void **state)
{
    struct fixture *f = *state;
    const struct key *key;
    assert_int_equal(check(f, f->text, &key), KEY_OK);
    test_keys_equal(key, &f->made);
    char other[KEY_TEXT_MAX], mixed[KEY_TEXT_MAX];
    struct key_parts parts;
    assert_true(key_text_make(other, &parts));
    assert_int_equal(check(f, other, &key), KEY_UNKNOWN);
    assert_null(key);
    assert_int_equal(check(f, "", &key), KEY_MALFORMED);
    assert_int_equal(check(f, "sk-something-else", &key), KEY_MALFORMED);
    memcpy(mixed, f->text, sizeof mixed);
    mixed[30] = mixed[30] == 'a' ? 'b' : 'a';
    assert_int_equal(check(f, mixed, &key), KEY_MALFORMED);
}

/* A right id with another's secret: a file in which somebody else's hash stands. */
static void the_secret_decides(void **state)
{
    struct fixture *f = *state;
    const struct key *key;
    char *text = test_dir_read(&f->dir, KEYS_FILE_NAME), *hash = strstr(text, "\"sha256\":\"");
    assert_non_null(hash);
    hash[10 + 63] = hash[10 + 63] == '0' ? '1' : '0'; /* the last of its digits */
    test_dir_write(&f->dir, KEYS_FILE_NAME, text, 0600);
    mem_free(text);
    assert_true(keys_refresh(f->keys));
    assert_int_equal(check(f, f->text, &key), KEY_UNKNOWN);
    assert_null(key);
}

static void time_and_revocation_end_it(void **state)
{
    struct fixture *f = *state;
    const struct key *key, *held;
    struct key dated = plain;
    dated.expires_unix_s = NOW + 10;
    create(f, &dated);
    assert_int_equal(check(f, f->text, &key), KEY_UNKNOWN); /* not read yet */
    assert_true(keys_refresh(f->keys));
    assert_int_equal(keys_count(f->keys), 2);
    assert_int_equal(check(f, f->text, &key), KEY_OK);
    f->clock.unix_ms += 9999;
    assert_int_equal(check(f, f->text, &key), KEY_OK);
    f->clock.unix_ms += 1;
    assert_int_equal(check(f, f->text, &held), KEY_EXPIRED);
    assert_int_equal(keys_revoke(f->dir.path, &f->clock.source, f->made.id, NULL), PH_OK);
    assert_true(keys_refresh(f->keys));
    assert_int_equal(check(f, f->text, &key), KEY_REVOKED);
    assert_ptr_equal(key, held);
    assert_int_equal(held->revoked_unix_s, NOW + 10); /* seen by who held it */
    assert_false(keys_refresh(f->keys));
}

static void a_broken_file_changes_nothing(void **state)
{
    struct fixture *f = *state;
    const struct key *key;
    char *good = test_dir_read(&f->dir, KEYS_FILE_NAME), path[160];
    int sink = open("/dev/null", O_WRONLY);
    log_setup(sink, LOG_ERROR, false);
    test_dir_write(&f->dir, KEYS_FILE_NAME, "{\"id\":", 0600);
    assert_false(keys_refresh(f->keys));
    assert_int_equal(check(f, f->text, &key), KEY_OK);
    test_dir_write(&f->dir, KEYS_FILE_NAME, good, 0644);
    assert_false(keys_refresh(f->keys));
    assert_int_equal(keys_count(f->keys), 1);
    snprintf(path, sizeof path, "%s/%s", f->dir.path, KEYS_FILE_NAME);
    assert_int_equal(chmod(path, 0600), 0);
    struct timespec tick = {.tv_nsec = 1};
    while (!keys_refresh(f->keys)) { /* a file system's clock may stand for some milliseconds */
        chmod(path, 0600);
        nanosleep(&tick, NULL);
    }
    log_setup(STDERR_FILENO, LOG_INFO, false);
    close(sink);
    mem_free(good);
}

static void a_lost_key_is_revoked_and_a_lost_file_stays_closed(void **state)
{
    struct fixture *f = *state;
    const struct key *first, *key;
    char text[KEY_TEXT_MAX];
    assert_int_equal(check(f, f->text, &first), KEY_OK);
    assert_true(keys_on(f->keys));
    memcpy(text, f->text, sizeof text);
    test_dir_write(&f->dir, KEYS_FILE_NAME, "\n", 0600);
    assert_true(keys_refresh(f->keys));
    assert_int_equal(keys_count(f->keys), 0);
    assert_null(keys_at(f->keys, 0));
    assert_int_equal(check(f, text, &key), KEY_REVOKED);
    assert_int_equal(first->revoked_unix_s, NOW);
    assert_true(keys_on(f->keys));
    char path[160];
    snprintf(path, sizeof path, "%s/%s", f->dir.path, KEYS_FILE_NAME);
    assert_int_equal(unlink(path), 0);
    assert_true(keys_refresh(f->keys));
    assert_true(keys_on(f->keys));
    create(f, &plain);
    assert_true(keys_refresh(f->keys));
    assert_int_equal(check(f, f->text, &key), KEY_OK);
    assert_ptr_equal(key, keys_at(f->keys, 0));
}

static void a_station_without_keys_asks_for_none(void **state)
{
    struct fixture *f = *state;
    struct keys *none;
    const struct key *key;
    struct test_dir empty;
    test_dir_make(&empty);
    assert_int_equal(keys_open(&none, empty.path, &f->clock.source, NULL), PH_OK);
    assert_false(keys_on(none));
    assert_int_equal(keys_count(none), 0);
    assert_int_equal(keys_check(none, f->text, strlen(f->text), &key), KEY_UNKNOWN);
    assert_false(keys_refresh(none));
    keys_close(none);
    test_dir_write(&empty, KEYS_FILE_NAME, "nonsense\n", 0600);
    struct ph_err err;
    assert_int_equal(keys_open(&none, empty.path, &f->clock.source, &err), PH_ERR_FORMAT);
    assert_null(none);
    test_dir_remove(&empty);
}

static void scopes_open_what_they_name(void **state)
{
    static const struct {
        const char *scopes[3];
        bool chat, read, admin, small, big;
    } cases[] = {
        {{NULL}, true, true, false, true, true},
        {{"chat"}, true, false, false, true, true},
        {{"read"}, false, true, false, false, false},
        {{"admin"}, true, true, true, true, true},
        {{"models:small"}, true, false, false, true, false},
        {{"models:small", "chat"}, true, false, false, true, false},
        {{"models:sm*", "read"}, true, true, false, true, false},
        {{"models:*"}, true, false, false, true, true},
        {{"models:s"}, true, false, false, false, false},
        {{"models:small", "models:b*"}, true, false, false, true, true},
        {{"models:small", "admin"}, true, true, true, true, true},
        {{"of-the-future"}, false, false, false, false, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct key key = {0};
        for (; key.scope_count < 3 && cases[i].scopes[key.scope_count]; key.scope_count++)
            snprintf(key.scopes[key.scope_count], KEY_SCOPE_MAX, "%s", cases[i].scopes[key.scope_count]);
        assert_int_equal(key_allows(&key, "chat"), cases[i].chat);
        assert_int_equal(key_allows(&key, "read"), cases[i].read);
        assert_int_equal(key_allows(&key, "admin"), cases[i].admin);
        assert_int_equal(key_allows_model(&key, "small"), cases[i].small);
        assert_int_equal(key_allows_model(&key, "big"), cases[i].big);
    }
}

/* Keys beyond a few tables' sizes, and what a check costs. The bound is loose: the machine is not ours. */
static void many_keys_are_found_fast(void **state)
{
    struct fixture *f = *state;
    enum { MANY = 3000, CHECKS = SANITIZED ? 2000 : 100000 };
    struct buf text;
    const struct key *key;
    char *own = test_dir_read(&f->dir, KEYS_FILE_NAME);
    buf_init(&text, 16u << 20);
    for (int i = 0; i < MANY; i++) {
        char id[KEY_ID_LEN + 1] = "11111111";
        for (int k = 0, left = i; k < KEY_ID_LEN; k++, left /= 9)
            id[k] = (char)('1' + left % 9);
        buf_printf(&text, "{\"id\":\"%s\",\"sha256\":\"%064d\"}\n", id, i);
    }
    buf_puts(&text, own);
    test_dir_write(&f->dir, KEYS_FILE_NAME, text.data, 0600);
    assert_true(keys_refresh(f->keys));
    assert_int_equal(keys_count(f->keys), MANY + 1);
    double start = test_cpu_ns();
    for (int i = 0; i < CHECKS; i++)
        assert_int_equal(check(f, f->text, &key), KEY_OK);
    double each_ns = (test_cpu_ns() - start) / CHECKS;
    print_message("a check of %d keys takes %.0f ns\n", MANY + 1, each_ns);
    assert_true(SANITIZED || each_ns < 10000);
    buf_release(&text);
    mem_free(own);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_key_is_known_and_others_are_not),
        TEST(the_secret_decides),
        TEST(time_and_revocation_end_it),
        TEST(a_broken_file_changes_nothing),
        TEST(a_lost_key_is_revoked_and_a_lost_file_stays_closed),
        TEST(a_station_without_keys_asks_for_none),
        TEST(scopes_open_what_they_name),
        TEST(many_keys_are_found_fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
