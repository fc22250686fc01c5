/* What only a server can do to a store: go away, come back, lose an answer, be shared. The rest is the suite of
 * test_store.c, which runs on PostgreSQL too. */
#include "store_support.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <uv.h>

#define WRITERS 4
#define KILL_SESSIONS                                                  \
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid" \
    " <> pg_backend_pid() AND application_name = 'pharos'"

/* ---- Every message is there once */

/* Each writer's message i, in conversation "k<writer>": "w<writer> <i>". Odd ones have ids. */
static enum ph_status submit_one(struct store *store, int writer, int i, struct store_done done,
                                 struct ph_err *err)
{
    char key[16], text[32], id[32];
    snprintf(key, sizeof key, "k%d", writer);
    snprintf(text, sizeof text, "w%d %d", writer, i);
    snprintf(id, sizeof id, "id-%d", i);
    struct store_message message = store_test_message(i % 2 ? id : NULL, text);
    struct store_write write = {
        .kind = STORE_APPEND,
        .u.append = {.user = "u", .key = key, .messages = &message, .count = 1, .at = STORE_AT_END}};
    enum ph_status status;
    while ((status = store_submit(store, &write, done, err)) == PH_ERR_BUSY)
        uv_sleep(1);
    return status;
}

/* `acked[i]`: message i of this writer was acknowledged. */
static void assert_once(struct store_test *test, int writer, const bool *acked, int count)
{
    char key[16], prefix[16];
    int *seen = calloc((size_t)count, sizeof *seen);
    snprintf(key, sizeof key, "k%d", writer);
    snprintf(prefix, sizeof prefix, "w%d ", writer);
    struct store_messages got = store_test_messages(test, "u", key);
    for (size_t i = 0; i < got.count; i++) {
        assert_memory_equal(got.items[i].content, prefix, strlen(prefix));
        long number = strtol(got.items[i].content + strlen(prefix), NULL, 10);
        assert_in_range(number, 0, count - 1);
        seen[number]++;
    }
    for (int i = 0; i < count; i++) {
        assert_true(seen[i] <= 1);
        assert_true(seen[i] == 1 || !acked[i]);
    }
    free(seen);
}

/* ---- The server goes away under load */

#define LOAD_MAX 200000

struct load {
    struct store *store;
    uv_thread_t thread;
    int writer, submitted;
    atomic_bool *stop;
    _Atomic int answered, failed;
    bool *acked;
    struct ph_err err;
};

struct one {
    struct load *load;
    int i;
};

static void on_done(void *ud, enum ph_status status, const struct store_result *result,
                    const struct ph_err *err)
{
    struct one *one = ud;
    (void)result;
    if (status == PH_OK)
        one->load->acked[one->i] = true;
    else if (one->load->failed++ == 0)
        one->load->err = *err;
    one->load->answered++;
    free(one);
}

static void run_load(void *ud)
{
    struct load *load = ud;
    while (!atomic_load(load->stop) && load->submitted < LOAD_MAX) {
        struct one *one = malloc(sizeof *one);
        *one = (struct one){load, load->submitted};
        struct ph_err err;
        if (submit_one(load->store, load->writer, load->submitted, (struct store_done){on_done, one}, &err) !=
            PH_OK)
            break;
        load->submitted++;
        while (load->submitted - load->answered > 100)
            uv_sleep(1);
    }
}

static int answered(const struct load *loads)
{
    int sum = 0;
    for (int i = 0; i < WRITERS; i++)
        sum += loads[i].answered;
    return sum;
}

static void wait_for_answers(const struct load *loads, int more)
{
    for (int from = answered(loads); answered(loads) < from + more;)
        uv_sleep(1);
}

static void test_server_restarts_under_load(void **state)
{
    struct store_test *test = *state;
    static const char *const commands[] = {"restart fast\n", "restart immediate\n", "restart kill\n",
                                           "restart immediate\n", "restart fast\n"};
    struct load loads[WRITERS] = {{.store = NULL}};
    size_t found = 0;
    atomic_bool stop = false;
    store_test_fill(test, "u", "before", 1);
    for (int i = 0; i < WRITERS; i++) {
        loads[i].store = test->store;
        loads[i].writer = i;
        loads[i].stop = &stop;
        loads[i].acked = calloc(LOAD_MAX, sizeof(bool));
        assert_int_equal(uv_thread_create(&loads[i].thread, run_load, &loads[i]), 0);
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        wait_for_answers(loads, 200);
        store_test_tell_postgres(commands[i]);
        struct store_conversation before; /* a reader's connection was lost, too */
        found +=
            store_find_conversation(test->store, &test->arena, "u", "before", &before, &test->err) == PH_OK;
    }
    wait_for_answers(loads, 200);
    stop = true;
    for (int i = 0; i < WRITERS; i++)
        uv_thread_join(&loads[i].thread);
    assert_int_equal(found, sizeof commands / sizeof commands[0]);
    store_test_reopen(test);
    for (int i = 0; i < WRITERS; i++) {
        if (loads[i].failed)
            print_message("%s\n", loads[i].err.message);
        assert_int_equal(loads[i].failed, 0);
        assert_int_equal(loads[i].answered, loads[i].submitted);
        assert_once(test, i, loads[i].acked, loads[i].submitted);
        free(loads[i].acked);
    }
    store_test_sound(test);
}

static void test_lost_sessions_come_back(void **state)
{
    struct store_test *test = *state;
    store_test_fill(test, "u", "k", 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(store_test_messages(test, "u", "k").count, 3 + i);
        store_test_sql(KILL_SESSIONS);
        store_test_fill(test, "u", "k", 1);
        store_test_sql(KILL_SESSIONS);
    }
    store_test_sound(test);
}

/* ---- The writer goes away: a child writes and says what was acknowledged */

#define KILLS (SANITIZED ? 4 : 10)

static int ack_pipe;

static void say_ack(void *ud, enum ph_status status, const struct store_result *result,
                    const struct ph_err *err)
{
    int i = (int)(intptr_t)ud;
    (void)result;
    (void)err;
    if (status == PH_OK && write(ack_pipe, &i, sizeof i) != sizeof i)
        _exit(1);
}

static void write_until_killed(const struct store_test *test, int from)
{
    struct store_params params = {.dir = test->dir, .postgres = test->url, .clock = clock_system()};
    struct store *store = NULL;
    struct ph_err err;
    if (store_open(&store, &params, &err) != PH_OK)
        _exit(1);
    for (int i = from;; i++) {
        while (store_queued(store) > 50)
            uv_sleep(1);
        if (submit_one(store, 0, i, (struct store_done){say_ack, (void *)(intptr_t)i}, &err) != PH_OK)
            _exit(1);
    }
}

static void test_writer_is_killed(void **state)
{
    struct store_test *test = *state;
    bool *acked = calloc(LOAD_MAX, sizeof *acked);
    int next = 0, count = 0;
    store_test_close(test); /* no threads in whoever forks */
    for (int kill_number = 0; kill_number < KILLS; kill_number++) {
        int ends[2], i;
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) {
            ack_pipe = ends[1];
            write_until_killed(test, next);
        }
        close(ends[1]);
        for (int acks = 0; read(ends[0], &i, sizeof i) == sizeof i; acks++) {
            assert_in_range(i, 0, LOAD_MAX - 1);
            acked[i] = true;
            count++;
            if (acks == 7 * kill_number + 1)
                kill(child, SIGKILL);
        }
        close(ends[0]);
        waitpid(child, NULL, 0);
        next += 1000;
    }
    store_test_open(test);
    assert_true(count > KILLS);
    assert_once(test, 0, acked, LOAD_MAX);
    store_test_sound(test);
    free(acked);
}

/* ---- The answer to a commit is lost: a go-between cuts the connection around it */

/* Before or after the server has the COMMIT; or before, and the server crashes with all that it had not written
 * down, and others go on with the ids of its transactions. */
enum cut { CUT_NOTHING, CUT_BEFORE, CUT_AFTER, CUT_CRASH };

struct between {
    char dir[64], server_path[sizeof((struct sockaddr_un *)0)->sun_path];
    int listener;
    uv_thread_t thread;
    atomic_int cut, cuts;
    struct {
        int client, server;
    } pairs[16];
    size_t count;
};

static int dial(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void drop_pair(struct between *between, size_t i)
{
    close(between->pairs[i].client);
    close(between->pairs[i].server);
    between->pairs[i] = between->pairs[--between->count];
}

/* Passes on what one side said; false: the pair is over. */
static bool pass(struct between *between, int from, int to, bool from_client)
{
    char bytes[65536];
    ssize_t len = read(from, bytes, sizeof bytes);
    if (len <= 0)
        return false;
    static const char commit[] = "Q\0\0\0\013COMMIT";
    int cut = CUT_NOTHING;
    if (from_client && len == sizeof commit && memcmp(bytes, commit, sizeof commit) == 0)
        cut = atomic_exchange(&between->cut, CUT_NOTHING);
    if ((cut == CUT_NOTHING || cut == CUT_AFTER) && write(to, bytes, (size_t)len) != len)
        return false;
    if (cut == CUT_AFTER)
        (void)!read(to, bytes, sizeof bytes); /* it has answered: it is done */
    if (cut == CUT_CRASH) {
        store_test_tell_postgres("restart immediate\n");
        for (int i = 0; i < 20; i++)
            store_test_sql("SELECT txid_current()");
    }
    if (cut != CUT_NOTHING)
        between->cuts++;
    return cut == CUT_NOTHING;
}

static void run_between(void *ud)
{
    struct between *between = ud;
    for (;;) {
        struct pollfd fds[33] = {{.fd = between->listener, .events = POLLIN}};
        size_t count = between->count;
        for (size_t i = 0; i < count; i++) {
            fds[1 + 2 * i] = (struct pollfd){.fd = between->pairs[i].client, .events = POLLIN};
            fds[2 + 2 * i] = (struct pollfd){.fd = between->pairs[i].server, .events = POLLIN};
        }
        if (poll(fds, (nfds_t)(1 + 2 * count), -1) < 0 || fds[0].revents & (POLLHUP | POLLERR | POLLNVAL))
            break;
        for (size_t i = count; i-- > 0;) {
            int client = between->pairs[i].client, server = between->pairs[i].server;
            if ((fds[1 + 2 * i].revents && !pass(between, client, server, true)) ||
                (fds[2 + 2 * i].revents && !pass(between, server, client, false)))
                drop_pair(between, i);
        }
        if (fds[0].revents & POLLIN) {
            int client = accept(between->listener, NULL, NULL);
            if (client < 0)
                break;
            between->pairs[between->count].client = client;
            between->pairs[between->count++].server = dial(between->server_path);
        }
    }
    while (between->count)
        drop_pair(between, between->count - 1);
}

static void start_between(struct between *between, const char *url)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *folder = strstr(url, "host=") + 5;
    snprintf(between->server_path, sizeof between->server_path, "%.80s/.s.PGSQL.5432", folder);
    snprintf(between->dir, sizeof between->dir, "/tmp/pharos-between-XXXXXX");
    assert_non_null(mkdtemp(between->dir));
    snprintf(address.sun_path, sizeof address.sun_path, "%.80s/.s.PGSQL.5432", between->dir);
    between->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(between->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(between->listener, 8), 0);
    assert_int_equal(uv_thread_create(&between->thread, run_between, between), 0);
}

static void stop_between(struct between *between)
{
    char path[128];
    shutdown(between->listener, SHUT_RDWR);
    uv_thread_join(&between->thread);
    close(between->listener);
    snprintf(path, sizeof path, "%s/.s.PGSQL.5432", between->dir);
    unlink(path);
    rmdir(between->dir);
}

static void test_lost_answers_are_looked_up(void **state)
{
    struct store_test *test = *state;
    struct between between = {.count = 0};
    char url[sizeof test->url];
    memcpy(url, test->url, sizeof url);
    store_test_close(test);
    start_between(&between, test->url);
    snprintf(test->url, sizeof test->url, "postgresql://pharos@/postgres?host=%s", between.dir);
    store_test_open(test);
    store_test_fill(test, "u", "k", 1);
    for (int i = 0; i < 6; i++) {
        store_test_sql(
            "CHECKPOINT"); /* before: any commit may be the one that is cut, and the server be gone */
        between.cut = CUT_BEFORE + i % 3;
        store_test_fill(test, "u", "k", 2);
        assert_int_equal(between.cuts, i + 1);
        assert_int_equal(store_test_messages(test, "u", "k").count, 1 + 2 * (i + 1));
    }
    store_test_sound(test);
    store_test_close(test);
    stop_between(&between);
    memcpy(test->url, url, sizeof url);
    store_test_open(test);
}

/* ---- Several stations write, one keeps an index */

#define SHARED_APPENDS 150

struct station {
    struct store_test test;
    uv_thread_t thread;
    const char *key;
    atomic_int *running;
};

static void run_station(void *ud)
{
    struct station *station = ud;
    for (int i = 0; i < SHARED_APPENDS; i++)
        store_test_fill(&station->test, "u", station->key, (size_t)(1 + i % 3));
    --*station->running;
}

static enum ph_status count_up(void *ud, const struct store_message *message)
{
    int64_t *last_and_count = ud;
    if (message->number <= last_and_count[0])
        return PH_ERR_CONFLICT;
    last_and_count[0] = message->number;
    last_and_count[1]++;
    return PH_OK;
}

static void test_catching_up_misses_nothing(void **state)
{
    struct store_test *test = *state;
    atomic_int running = 3;
    struct station stations[3];
    static const char *const keys[] = {"a", "b", "c"};
    int64_t last_and_count[2] = {0, 0}, in_all = 0;
    store_test_fill(test, "u", "k", 1);
    int64_t user = store_test_conversation(test, "u", "k").user;
    for (int i = 0; i < 3; i++) {
        stations[i] = (struct station){.test = *test, .key = keys[i], .running = &running};
        store_test_open(&stations[i].test);
        assert_int_equal(uv_thread_create(&stations[i].thread, run_station, &stations[i]), 0);
    }
    for (bool last = false; !last;) {
        last = running == 0;
        assert_int_equal(
            store_each_message(test->store, user, last_and_count[0], count_up, last_and_count, &test->err),
            PH_OK);
    }
    for (int i = 0; i < 3; i++) {
        uv_thread_join(&stations[i].thread);
        store_test_close(&stations[i].test);
        in_all += store_test_conversation(test, "u", keys[i]).messages;
    }
    assert_int_equal(in_all, 3 * 2 * SHARED_APPENDS);
    assert_int_equal(last_and_count[1], in_all + 1);
    store_test_sound(test);
}

/* ---- A deleted user's rows have left the files of tables and indexes */

/* Raises when the number of files that hold the text is (`wrong`, as in "= 0"). */
#define LOOK_FOR(text, wrong)                                                                        \
    "CHECKPOINT; DO $$ BEGIN IF (SELECT count(*) FROM pg_class c JOIN pg_namespace n "               \
    "ON n.oid = c.relnamespace WHERE n.nspname = 'pharos' AND c.relkind IN ('r', 'i') AND position(" \
    "'" text "'::bytea IN pg_read_binary_file(pg_relation_filepath(c.oid))) > 0) " wrong             \
    " THEN RAISE 'traces are not as they should be'; END IF; END $$"

static void test_deleted_rows_are_gone(void **state)
{
    struct store_test *test = *state;
    store_test_fill(test, "one-who-left", "k", 5);
    store_test_fill(test, "one-who-stays", "k", 5);
    store_test_sql(LOOK_FOR("one-who-left", "< 2"));
    assert_int_equal(store_test_delete(test, STORE_DELETE_USER, "one-who-left", NULL, NULL), PH_OK);
    store_test_sql(LOOK_FOR("one-who-left", "> 0"));
    store_test_sql(LOOK_FOR("one-who-stays", "< 2"));
    assert_int_equal(store_test_messages(test, "one-who-stays", "k").count, 5);
    store_test_sound(test);
}

/* ---- What can't be reached is told without its password */

static void test_addresses(void **state)
{
    struct store_test *test = *state;
    static const struct {
        const char *url, *says;
        enum ph_status status;
    } cases[] = {
        {"postgresql://u:geheim%zz@h/db", "memory.store", PH_ERR_ARG},
        {"postgresql://u:geheim@h/db?geheim=1", "memory.store", PH_ERR_ARG},
        {"postgresql://u:geheim@127.0.0.1:1/db", "127.0.0.1:1/db", PH_ERR_IO},
        {"postgresql://u:geheim@/db?host=/nowhere", "/nowhere/db", PH_ERR_IO},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct store_params params = {.dir = "", .postgres = cases[i].url, .clock = clock_system()};
        struct store *store = NULL;
        assert_int_equal(store_open(&store, &params, &test->err), cases[i].status);
        assert_non_null(strstr(test->err.message, cases[i].says));
        assert_null(strstr(test->err.message, "geheim"));
    }
}

static void test_nothing_there_is_told(void **state)
{
    struct store_test *test = *state;
    struct store_params params = {
        .dir = "", .postgres = test->url, .clock = clock_system(), .must_exist = true};
    struct store *store = NULL;
    store_test_close(test);
    store_test_sql("DROP SCHEMA pharos CASCADE");
    assert_int_equal(store_open(&store, &params, &test->err), PH_ERR_NOTFOUND);
    store_test_sql("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0");
    char url[300];
    snprintf(url, sizeof url, "%s&dbname=latin", test->url);
    params = (struct store_params){.dir = "", .postgres = url, .clock = clock_system()};
    assert_int_equal(store_open(&store, &params, &test->err), PH_ERR_UNSUPPORTED);
    assert_non_null(strstr(test->err.message, "LATIN1"));
    store_test_sql("DROP DATABASE latin");
    store_test_open(test);
}

#define ON_POSTGRES(test)                                                                   \
    {                                                                                       \
#test, test, store_test_setup, store_test_teardown, (void *)&store_backend_postgres \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_POSTGRES(test_writer_is_killed), /* it forks: before there were threads */
        ON_POSTGRES(test_server_restarts_under_load), ON_POSTGRES(test_lost_sessions_come_back),
        ON_POSTGRES(test_lost_answers_are_looked_up), ON_POSTGRES(test_catching_up_misses_nothing),
        ON_POSTGRES(test_deleted_rows_are_gone),      ON_POSTGRES(test_addresses),
        ON_POSTGRES(test_nothing_there_is_told),
    };
    if (!store_test_start_postgres())
        return 0;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    store_test_stop_postgres();
    return failed;
}
