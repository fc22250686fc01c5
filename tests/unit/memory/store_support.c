#include "store_support.h"

#include <sys/wait.h>

#include "base/file.h"
#include "memory/store_db_int.h"

static int64_t fixed_ms(void *ud)
{
    return ((struct store_test *)ud)->now_ms;
}

static uint64_t fixed_ns(void *ud)
{
    (void)ud;
    return 0;
}

static bool make_sqlite(char dir[64], char url[256])
{
    snprintf(dir, 64, "/tmp/pharos-store-XXXXXX");
    url[0] = 0;
    return mkdtemp(dir) != NULL;
}

static void remove_sqlite(const char *dir, const char *url)
{
    (void)url;
    assert_int_equal(file_remove_dir(dir, NULL), PH_OK);
}

const struct store_backend store_backend_sqlite = {"sqlite", make_sqlite, remove_sqlite};

/* ---- PostgreSQL: a server that lives as long as this process holds the other end of its input */

static struct {
    pid_t process;
    int input, output;
    char url[256];
} server;

static void read_line(int from, char *out, size_t len)
{
    size_t used = 0;
    while (used + 1 < len && read(from, out + used, 1) == 1 && out[used] != '\n')
        used++;
    out[used] = 0;
}

bool store_test_start_postgres(void)
{
    int in[2], out[2];
    if (pipe(in) != 0 || pipe(out) != 0 || (server.process = fork()) < 0)
        return false;
    if (server.process == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        close(in[1]);
        execlp("python3", "python3", "tests/e2e/postgres.py", (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    server.input = in[1];
    server.output = out[0];
    read_line(server.output, server.url, sizeof server.url);
    if (strncmp(server.url, "postgresql:", 11) == 0)
        return true;
    printf("%s\n", server.url[0] ? server.url : "SKIP: a store in PostgreSQL: there is no python3");
    store_test_stop_postgres();
    return false;
}

void store_test_tell_postgres(const char *line)
{
    char answer[64];
    assert_int_equal(write(server.input, line, strlen(line)), strlen(line));
    read_line(server.output, answer, sizeof answer);
    assert_string_equal(answer, "done");
}

void store_test_stop_postgres(void)
{
    close(server.input);
    close(server.output);
    waitpid(server.process, NULL, 0);
}

void store_test_sql(const char *sql)
{
    struct store_params params = {.postgres = server.url};
    struct store_db *db = NULL;
    struct ph_err err = {.code = PH_OK};
    enum ph_status status = store_driver_postgres.open(&params, NULL, 0, &db, &err);
    if (status == PH_OK)
        status = store_driver_postgres.exec(db, sql, &err);
    if (status != PH_OK)
        print_message("%s\n", err.message);
    store_driver_postgres.close(db);
    assert_int_equal(status, PH_OK);
}

static bool make_postgres(char dir[64], char url[256])
{
    snprintf(dir, 64, "/nowhere");
    snprintf(url, 256, "%s", server.url);
    store_test_sql("DROP SCHEMA IF EXISTS pharos CASCADE");
    return true;
}

static void remove_postgres(const char *dir, const char *url)
{
    (void)dir;
    (void)url;
}

const struct store_backend store_backend_postgres = {"postgres", make_postgres, remove_postgres};

/* ---- Any of them */

void store_test_open(struct store_test *test)
{
    struct store_params params = {
        .dir = test->dir, .postgres = test->url[0] ? test->url : NULL, .clock = &test->clock};
    enum ph_status status = store_open(&test->store, &params, &test->err);
    if (status != PH_OK)
        print_message("%s\n", test->err.message);
    assert_int_equal(status, PH_OK);
}

void store_test_close(struct store_test *test)
{
    store_close(test->store);
    test->store = NULL;
}

void store_test_reopen(struct store_test *test)
{
    store_test_close(test);
    store_test_open(test);
}

int store_test_setup(void **state)
{
    const struct store_backend *backend = *state;
    struct store_test *test = calloc(1, sizeof *test);
    test->backend = backend;
    test->now_ms = 1700000000000;
    test->clock = (struct clock_source){.monotonic_ns = fixed_ns, .unix_ms = fixed_ms, .ud = test};
    arena_init(&test->arena, (size_t)512 << 20);
    assert_true(backend->make(test->dir, test->url));
    store_test_open(test);
    *state = test;
    return 0;
}

int store_test_teardown(void **state)
{
    struct store_test *test = *state;
    store_test_close(test);
    arena_release(&test->arena);
    test->backend->remove(test->dir, test->url);
    free(test);
    return 0;
}

struct store_message store_test_message(const char *id, const char *content)
{
    return (struct store_message){.id = id,
                                  .role = "user",
                                  .content = content,
                                  .content_len = strlen(content),
                                  .tokens = 3,
                                  .created_ms = 1600000000000};
}

enum ph_status store_test_append(struct store_test *test, const struct store_append *append,
                                 struct store_result *result)
{
    struct store_write write = {.kind = STORE_APPEND, .u.append = *append};
    return store_write(test->store, &write, result, &test->err);
}

enum ph_status store_test_delete(struct store_test *test, enum store_write_kind kind, const char *user,
                                 const char *key, const char *id)
{
    struct store_write write = {.kind = kind, .user = user, .key = key, .id = id};
    return store_write(test->store, &write, NULL, &test->err);
}

void store_test_fill(struct store_test *test, const char *user, const char *key, size_t count)
{
    struct store_message *messages = calloc(count, sizeof *messages);
    char(*texts)[64] = calloc(count, sizeof *texts);
    for (size_t i = 0; i < count; i++) {
        snprintf(texts[i], sizeof texts[i], "what %s said as number %zu", user, i);
        messages[i] = store_test_message(NULL, texts[i]);
        messages[i].created_ms += (int64_t)i * 1000;
    }
    struct store_append append = {
        .user = user, .key = key, .messages = messages, .count = count, .at = STORE_AT_END};
    assert_int_equal(store_test_append(test, &append, NULL), PH_OK);
    free(texts);
    free(messages);
}

struct store_conversation store_test_conversation(struct store_test *test, const char *user, const char *key)
{
    struct store_conversation conversation;
    assert_int_equal(store_find_conversation(test->store, &test->arena, user, key, &conversation, &test->err),
                     PH_OK);
    return conversation;
}

struct store_messages store_test_messages(struct store_test *test, const char *user, const char *key)
{
    struct store_messages messages;
    struct store_range range = {.conversation = store_test_conversation(test, user, key).number};
    enum ph_status status = store_read_messages(test->store, &test->arena, &range, &messages, &test->err);
    if (status != PH_OK)
        print_message("%s\n", test->err.message);
    assert_int_equal(status, PH_OK);
    return messages;
}

static void on_fault(void *ud, const char *fault)
{
    (void)ud;
    print_message("%s\n", fault);
}

void store_test_sound(struct store_test *test)
{
    int64_t faults = -1;
    enum ph_status status = store_verify(test->store, &faults, on_fault, NULL, NULL, &test->err);
    if (status != PH_OK)
        print_message("%s\n", test->err.message);
    assert_int_equal(status, PH_OK);
    assert_int_equal(faults, 0);
}
