/* The file of keys: what is written, what is refused, what survives. */
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/file.h"
#include "gateway/keys_int.h"
#include "gateway/keys_support.h"

#define NOW 1700000000
#define HASH_TAIL "0112233445566778899aabbccddeeff00112233445566778899aabbccddee0f"
#define HASH "0" HASH_TAIL
#define LINE(id) "{\"id\":\"" id "\",\"name\":\"n\",\"sha256\":\"" HASH "\"}\n"

struct fixture {
    struct test_dir dir;
    struct test_clock clock;
    struct arena arena;
    struct ph_err err;
    struct key *keys;
    size_t count;
};

static int setup(void **state)
{
    struct fixture *f = mem_calloc(1, sizeof *f);
    test_dir_make(&f->dir);
    test_clock_init(&f->clock, NOW);
    arena_init(&f->arena, 64u << 20);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    test_dir_remove(&f->dir);
    arena_release(&f->arena);
    mem_free(f);
    return 0;
}

static enum ph_status list(struct fixture *f)
{
    return keys_list(&f->arena, f->dir.path, &f->keys, &f->count, &f->err);
}

static struct key create(struct fixture *f, const struct key *spec)
{
    struct key made;
    char text[KEY_TEXT_MAX];
    assert_int_equal(keys_create(f->dir.path, &f->clock.source, spec, &made, text, &f->err), PH_OK);
    return made;
}

static const struct key plain = {.name = "plain", .budget_usd_month = -1};

static void no_file_has_no_keys(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(list(f), PH_OK);
    assert_int_equal(f->count, 0);
}

static void all_of_a_key_is_kept_but_its_secret(void **state)
{
    struct fixture *f = *state;
    char text[KEY_TEXT_MAX];
    struct key made;
    const struct key spec = {.name = "L\xc3\xa9"
                                     "a's \"laptop\"",
                             .scopes = {"models:small", "models:qwen*", "read"},
                             .scope_count = 3,
                             .budget_usd_month = 12.5,
                             .rpm = 60,
                             .tpm = 100000,
                             .concurrency = 4,
                             .expires_unix_s = NOW + 1};
    assert_int_equal(keys_create(f->dir.path, &f->clock.source, &spec, &made, text, &f->err), PH_OK);
    assert_int_equal(list(f), PH_OK);
    assert_int_equal(f->count, 1);
    test_keys_equal(&f->keys[0], &made);
    assert_string_equal(made.account, made.id);
    assert_int_equal(made.created_unix_s, NOW);
    assert_int_equal(made.rpm, 60);
    assert_string_equal(made.scopes[1], "models:qwen*");
    char *written = test_dir_read(&f->dir, KEYS_FILE_NAME);
    struct key_parts parts;
    assert_true(key_text_parse(text, strlen(text), &parts));
    char secret[KEY_SECRET_LEN + 1] = "";
    memcpy(secret, parts.secret, KEY_SECRET_LEN);
    assert_null(strstr(written, secret));
    assert_non_null(strstr(written, made.id));
    mem_free(written);
}

static void file_and_directory_are_private(void **state)
{
    struct fixture *f = *state;
    struct test_dir inner;
    struct stat info;
    struct key made;
    char text[KEY_TEXT_MAX], path[160];
    snprintf(inner.path, sizeof inner.path, "%.48s/a", f->dir.path);
    mode_t before = umask(0);
    assert_int_equal(keys_create(inner.path, &f->clock.source, &plain, &made, text, &f->err), PH_OK);
    umask(before);
    assert_int_equal(stat(inner.path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    snprintf(path, sizeof path, "%s/%s", inner.path, KEYS_FILE_NAME);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    test_dir_remove(&inner);
}

static void what_others_can_read_is_refused(void **state)
{
    struct fixture *f = *state;
    test_dir_write(&f->dir, KEYS_FILE_NAME, LINE("2Wq9fKxZ"), 0640);
    assert_int_equal(list(f), PH_ERR_ARG);
    assert_non_null(strstr(f->err.message, "chmod 600 "));
    assert_non_null(strstr(f->err.message, f->dir.path));
    test_dir_write(&f->dir, KEYS_FILE_NAME, LINE("2Wq9fKxZ"), 0400);
    assert_int_equal(list(f), PH_OK);
    assert_int_equal(f->count, 1);
}

static void where_others_can_write_no_key_is_made(void **state)
{
    struct fixture *f = *state;
    struct key made;
    char text[KEY_TEXT_MAX];
    assert_int_equal(chmod(f->dir.path, 0770), 0);
    assert_int_equal(keys_create(f->dir.path, &f->clock.source, &plain, &made, text, &f->err), PH_ERR_ARG);
    assert_non_null(strstr(f->err.message, "chmod 700 "));
    assert_string_equal(text, "");
    assert_int_equal(chmod(f->dir.path, 0700), 0);
}

static void a_bad_line_is_named(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *line, *words;
    } cases[] = {
        {"{\"id\":\"2Wq9fKxZ\"", "line 3"},
        {"[]", "no JSON object"},
        {"{}", "\"id\""},
        {"{\"id\":\"2Wq9fKx0\",\"sha256\":\"" HASH "\"}", "\"id\""},
        {"{\"id\":\"2Wq9fKxZ\"}", "\"sha256\""},
        {"{\"id\":\"2Wq9fKxZ\",\"sha256\":\"0011\"}", "\"sha256\""},
        {"{\"id\":\"2Wq9fKxZ\",\"sha256\":\"X" HASH "\"}", "\"sha256\""},
        {"{\"id\":\"2Wq9fKxZ\",\"sha256\":\"x" HASH_TAIL "\"}", "\"sha256\""},
        {"{\"id\":\"2Wq9fKxZ\",\"sha256\":\"" HASH "\",\"rpm\":-1}", "\"rpm\""},
        {"{\"id\":\"2Wq9fKxZ\",\"sha256\":\"" HASH "\",\"tpm\":1.5}", "\"tpm\""},
        {"{\"id\":\"2Wq9fKxZ\",\"sha256\":\"" HASH "\",\"concurrency\":1e300}", "\"concurrency\""},
        {"{\"id\":\"2Wq9fKxZ\",\"sha256\":\"" HASH "\",\"revoked_at\":\"yes\"}", "\"revoked_at\""},
        {"{\"id\":\"2Wq9fKxZ\",\"sha256\":\"" HASH "\",\"budget_usd_month\":-2}", "\"budget_usd_month\""},
        {"{\"id\":\"2Wq9fKxZ\",\"sha256\":\"" HASH "\",\"scopes\":\"admin\"}", "\"scopes\""},
        {"{\"id\":\"2Wq9fKxZ\",\"sha256\":\"" HASH "\",\"scopes\":[1]}", "\"scopes\""},
        {"{\"id\":\"2Wq9fKxZ\",\"sha256\":\"" HASH "\",\"name\":7}", "\"name\""},
        {"{\"id\":\"2Wq9fKxZ\",\"sha256\":\"" HASH "\",\"name\":\"\\u001b[2J\"}", "\"name\""},
        {"{\"id\":\"2Wq9fKxZ\",\"sha256\":\"" HASH "\",\"account\":\"x\"}", "\"account\""},
        {"{\"id\":\"3Wq9fKxZ\",\"sha256\":\"" HASH "\"}", "stands on line 1 already"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[1024];
        snprintf(text, sizeof text, LINE("3Wq9fKxZ") "\n%s\n", cases[i].line);
        test_dir_write(&f->dir, KEYS_FILE_NAME, text, 0600);
        assert_int_not_equal(list(f), PH_OK);
        assert_non_null(strstr(f->err.message, cases[i].words));
        assert_non_null(strstr(f->err.message, "keys.jsonl line 3:"));
        assert_int_equal(f->count, 0);
        assert_int_not_equal(keys_revoke(f->dir.path, &f->clock.source, "3Wq9fKxZ", &f->err), PH_OK);
    }
}

static void unknown_members_and_other_lines_stay(void **state)
{
    struct fixture *f = *state;
    static const char first[] =
        "{ \"note\" : [1.50, {\"x\":1e400}],\"id\":\"2Wq9fKxZ\",\"sha256\":\"" HASH "\"}\n";
    static const char second[] = "{\"id\":\"3Wq9fKxZ\",  \"sha256\":\"" HASH "\", \"team\":\"red\"}";
    char text[1024];
    snprintf(text, sizeof text, "\n%s%s", first, second); /* the last line has no end */
    test_dir_write(&f->dir, KEYS_FILE_NAME, text, 0600);
    assert_int_equal(keys_revoke(f->dir.path, &f->clock.source, "3Wq9fKxZ", &f->err), PH_OK);
    create(f, &plain);
    char *written = test_dir_read(&f->dir, KEYS_FILE_NAME);
    assert_memory_equal(written + 1, first, sizeof first - 1);
    assert_non_null(strstr(written, "\"team\":\"red\""));
    assert_non_null(strstr(written, "\"revoked_at\":1700000000"));
    mem_free(written);
    assert_int_equal(keys_revoke(f->dir.path, &f->clock.source, "2Wq9fKxZ", &f->err), PH_OK);
    written = test_dir_read(&f->dir, KEYS_FILE_NAME);
    assert_non_null(strstr(written, "\"note\":[1.50,{\"x\":1e400}]"));
    mem_free(written);
    assert_int_equal(list(f), PH_OK);
    assert_int_equal(f->count, 3);
}

static void revoking_is_once_and_needs_a_key(void **state)
{
    struct fixture *f = *state;
    struct key made = create(f, &plain);
    assert_int_equal(keys_revoke(f->dir.path, &f->clock.source, made.id, &f->err), PH_OK);
    f->clock.unix_ms += 5000;
    assert_int_equal(keys_revoke(f->dir.path, &f->clock.source, made.id, &f->err), PH_OK);
    assert_int_equal(list(f), PH_OK);
    assert_int_equal(f->keys[0].revoked_unix_s, NOW);
    assert_int_equal(keys_revoke(f->dir.path, &f->clock.source, "nobody", &f->err), PH_ERR_NOTFOUND);
    assert_non_null(strstr(f->err.message, "nobody"));
}

static void rotating_keeps_rights_and_account(void **state)
{
    struct fixture *f = *state;
    char text[KEY_TEXT_MAX];
    struct key spec = plain, second, third;
    spec.rpm = 7;
    spec.scope_count = 1;
    memcpy(spec.scopes[0], "admin", 6);
    struct key first = create(f, &spec);
    f->clock.unix_ms += 100000;
    assert_int_equal(keys_rotate(f->dir.path, &f->clock.source, first.id, 3600, &second, text, &f->err),
                     PH_OK);
    assert_int_equal(keys_rotate(f->dir.path, &f->clock.source, second.id, 0, &third, text, &f->err), PH_OK);
    assert_int_equal(list(f), PH_OK);
    assert_int_equal(f->count, 3);
    const struct key *old = &f->keys[0], *new = &f->keys[2];
    assert_int_equal(old->expires_unix_s, NOW + 100 + 3600);
    assert_string_equal(old->replaced_by, second.id);
    assert_int_equal(key_state(old, NOW + 100 + 3599), KEY_OK);
    assert_int_equal(key_state(old, NOW + 100 + 3600), KEY_EXPIRED);
    assert_int_equal(key_state(&f->keys[1], NOW + 100), KEY_EXPIRED);
    test_keys_equal(new, &third);
    assert_string_equal(new->account, first.id);
    assert_int_equal(new->rpm, 7);
    assert_string_equal(new->scopes[0], "admin");
    assert_int_equal(new->expires_unix_s, 0);
    assert_int_equal(new->created_unix_s, NOW + 100);
    assert_string_equal(new->replaced_by, "");
}

static void what_cannot_be_rotated(void **state)
{
    struct fixture *f = *state;
    char text[KEY_TEXT_MAX];
    struct key made, out, dated = plain;
    struct key rotated = create(f, &plain), revoked = create(f, &plain);
    dated.expires_unix_s = NOW + 10;
    struct key expired = create(f, &dated);
    assert_int_equal(keys_rotate(f->dir.path, &f->clock.source, rotated.id, 60, &made, text, &f->err), PH_OK);
    assert_int_equal(keys_revoke(f->dir.path, &f->clock.source, revoked.id, &f->err), PH_OK);
    f->clock.unix_ms += 10000;
    const char *const ids[] = {rotated.id, revoked.id, expired.id, "nobody"};
    for (size_t i = 0; i < 4; i++) {
        assert_int_not_equal(keys_rotate(f->dir.path, &f->clock.source, ids[i], 60, &out, text, &f->err),
                             PH_OK);
        assert_non_null(strstr(f->err.message, ids[i]));
        assert_string_equal(text, "");
    }
    assert_int_equal(list(f), PH_OK);
    assert_int_equal(f->count, 4);
}

/* An overlap does not lengthen the life of a key that ends sooner. */
static void an_overlap_ends_no_later_than_the_key(void **state)
{
    struct fixture *f = *state;
    char text[KEY_TEXT_MAX];
    struct key out, dated = plain;
    dated.expires_unix_s = NOW + 10;
    struct key old = create(f, &dated);
    assert_int_equal(keys_rotate(f->dir.path, &f->clock.source, old.id, 3600, &out, text, &f->err), PH_OK);
    assert_int_equal(list(f), PH_OK);
    assert_int_equal(f->keys[0].expires_unix_s, NOW + 10);
    assert_int_equal(f->keys[1].expires_unix_s, NOW + 10);
}

static void what_people_give_is_checked(void **state)
{
    struct fixture *f = *state;
    struct key made;
    char text[KEY_TEXT_MAX];
    const struct key bad[] = {
        {.name = "a\nb"},
        {.name = "\xff"},
        {.name = "x", .scopes = {"everything"}, .scope_count = 1},
        {.name = "x", .scopes = {"models:"}, .scope_count = 1},
        {.name = "x", .scopes = {"models:\t"}, .scope_count = 1},
        {.name = "x", .rpm = -1},
        {.name = "x", .tpm = INT64_MAX},
        {.name = "x", .budget_usd_month = 1e308 * 10},
        {.name = "x", .expires_unix_s = NOW},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_not_equal(keys_create(f->dir.path, &f->clock.source, &bad[i], &made, text, &f->err),
                             PH_OK);
    assert_int_equal(list(f), PH_OK);
    assert_int_equal(f->count, 0);
}

/* Eight processes make keys at once: none is lost. */
static void writers_take_turns(void **state)
{
    struct fixture *f = *state;
    enum { WRITERS = 8, EACH = 5 };
    for (int i = 0; i < WRITERS; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct key made;
            char text[KEY_TEXT_MAX];
            bool good = true;
            for (int k = 0; k < EACH; k++)
                good &= keys_create(f->dir.path, &f->clock.source, &plain, &made, text, NULL) == PH_OK;
            _exit(!good);
        }
    }
    for (int i = 0; i < WRITERS; i++) {
        int status;
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    assert_int_equal(list(f), PH_OK);
    assert_int_equal(f->count, WRITERS * EACH);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(no_file_has_no_keys),
        TEST(all_of_a_key_is_kept_but_its_secret),
        TEST(file_and_directory_are_private),
        TEST(what_others_can_read_is_refused),
        TEST(where_others_can_write_no_key_is_made),
        TEST(a_bad_line_is_named),
        TEST(unknown_members_and_other_lines_stay),
        TEST(revoking_is_once_and_needs_a_key),
        TEST(rotating_keeps_rights_and_account),
        TEST(what_cannot_be_rotated),
        TEST(an_overlap_ends_no_later_than_the_key),
        TEST(what_people_give_is_checked),
        TEST(writers_take_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
