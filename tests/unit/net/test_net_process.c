/* Child processes: how they begin, what they inherit, and that nothing of them is left. */
#include "test_support.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "client_support.h"

struct fixture {
    struct net_loop *loop;
    struct net_process *process;
    char dir[64], log[100];
    int code;
    bool ended;
    int ended_count;
};

static void on_ended(void *ud, int code)
{
    struct fixture *f = ud;
    f->code = code;
    f->ended = true;
    f->ended_count++;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    assert_int_equal(net_loop_create(&f->loop, NULL), PH_OK);
    memcpy(f->dir, "/tmp/pharos-process-XXXXXX", sizeof "/tmp/pharos-process-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->log, sizeof f->log, "%s/log", f->dir);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    net_process_free(f->process);
    net_loop_free(f->loop);
    unlink(f->log);
    rmdir(f->dir);
    free(f);
    return 0;
}

static void start(struct fixture *f, const char *command, const char *const *env)
{
    struct ph_err err = {0};
    struct net_process_params params = {
        .command = command, .log_path = f->log, .env = env, .ended = on_ended, .ud = f};
    f->ended = false;
    if (net_process_start(&f->process, f->loop, &params, &err) != PH_OK)
        fail_msg("%s", err.message);
    assert_false(f->ended);
}

static void wait_ended(struct fixture *f)
{
    struct test_client client = {.loop = f->loop};
    assert_true(test_client_turn(&client, &f->ended));
}

static void run(struct fixture *f, const char *command, const char *const *env)
{
    start(f, command, env);
    wait_ended(f);
}

static const char *read_log(const struct fixture *f, char *out, size_t size)
{
    int fd = open(f->log, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, out, size - 1);
    if (fd >= 0)
        close(fd);
    out[n > 0 ? n : 0] = 0;
    return out;
}

static void wait_for_log(struct fixture *f, const char *text)
{
    char out[1000];
    struct test_client client = {.loop = f->loop};
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    while (!strstr(read_log(f, out, sizeof out), text) && test_now_ms() < until)
        test_client_turn_for(&client, 2);
    assert_non_null(strstr(out, text));
}

/* A process that nobody has buried yet does not live. */
static bool lives(int pid)
{
    char path[40], text[300];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return false;
    text[n] = 0;
    const char *state = strrchr(text, ')');
    return state && state[2] != 'Z';
}

static void wait_dead(int pid)
{
    uint64_t until = test_now_ms() + TEST_DEADLINE_MS;
    while (lives(pid) && test_now_ms() < until)
        test_pause();
    assert_false(lives(pid));
}

static int logged_pid(struct fixture *f)
{
    char out[1000];
    wait_for_log(f, "\n");
    const char *at = strstr(read_log(f, out, sizeof out), "pid ");
    assert_non_null(at);
    return (int)strtol(at + 4, NULL, 10);
}

static void tells_how_it_ended(void **state)
{
    static const struct {
        const char *command;
        int code;
    } cases[] = {
        {"exit 0", 0}, {"exit 7", 7}, {"kill -KILL $$", 137}, {"kill -TERM $$", 143}, {"/no/such", 127}};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        run(f, cases[i].command, NULL);
        assert_int_equal(f->code, cases[i].code);
        assert_int_equal(f->ended_count, (int)i + 1);
        net_process_free(f->process);
        f->process = NULL;
    }
}

static void output_is_appended_to_a_private_file(void **state)
{
    struct fixture *f = *state;
    char out[1000];
    struct stat info;
    for (int i = 0; i < 2; i++) {
        run(f, "echo out; echo err >&2; cat", NULL); /* nothing to read */
        net_process_free(f->process);
        f->process = NULL;
    }
    assert_string_equal(read_log(f, out, sizeof out), "out\nerr\nout\nerr\n");
    assert_int_equal(stat(f->log, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
}

static void the_environment_is_ours_and_more(void **state)
{
    struct fixture *f = *state;
    static const char *const env[] = {"PHAROS_TEST_A=new", "PHAROS_TEST_B=b c", NULL};
    char out[1000];
    setenv("PHAROS_TEST_A", "old", 1);
    setenv("PHAROS_TEST_C", "kept", 1);
    run(f, "env | grep PHAROS_TEST | sort", env);
    assert_string_equal(read_log(f, out, sizeof out),
                        "PHAROS_TEST_A=new\nPHAROS_TEST_B=b c\nPHAROS_TEST_C=kept\n");
}

static void descriptors_and_signals_are_not_inherited(void **state)
{
    struct fixture *f = *state;
    char out[1000], command[200];
    int fd = dup(0), high = dup2(fd, 77);
    assert_int_equal(high, 77);
    snprintf(command, sizeof command,
             "for i in 3 4 5 6 7 8 9 %d 77; do [ -e /proc/$$/fd/$i ] && echo has $i; done; "
             "grep -o 'SigIgn.*' /proc/$$/status | tail -c 8",
             fd);
    run(f, command, NULL);
    close(fd);
    close(high);
    assert_string_equal(read_log(f, out, sizeof out), "0000000\n");
}

static void what_a_command_leaves_behind_is_killed(void **state)
{
    struct fixture *f = *state;
    run(f, "sleep 1000 & echo pid $!; exit 3", NULL);
    assert_int_equal(f->code, 3);
    assert_false(lives(logged_pid(f)));
}

static void stopping_asks_first(void **state)
{
    struct fixture *f = *state;
    char out[1000];
    start(f, "trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.01; done", NULL);
    wait_for_log(f, "ready");
    net_process_stop(f->process, TEST_DEADLINE_MS);
    net_process_stop(f->process, TEST_DEADLINE_MS);
    assert_false(f->ended);
    wait_ended(f);
    assert_int_equal(f->code, 4);
    assert_non_null(strstr(read_log(f, out, sizeof out), "bye"));
    assert_int_equal(f->ended_count, 1);
}

static void who_does_not_hear_is_killed_after_the_grace(void **state)
{
    struct fixture *f = *state;
    start(f, "trap '' TERM; echo pid $$; while :; do sleep 1000; done", NULL);
    int pid = logged_pid(f);
    assert_int_equal(pid, net_process_pid(f->process));
    uint64_t began = test_now_ms();
    net_process_stop(f->process, TEST_DEADLINE_MS * 2);
    net_process_stop(f->process, 100);
    wait_ended(f);
    assert_true(test_now_ms() - began >= 95);
    assert_int_equal(f->code, 137);
    assert_false(lives(pid));
}

/* The shell dies of SIGTERM at once, the engine behind it needs a moment. */
static void the_grace_is_for_the_whole_group(void **state)
{
    struct fixture *f = *state;
    char out[1000];
    start(f,
          "(trap 'sleep 0.1; echo tidied; exit' TERM; echo pid $$; while :; do sleep 0.01; done) & "
          "wait",
          NULL);
    logged_pid(f);
    net_process_stop(f->process, TEST_DEADLINE_MS);
    wait_ended(f);
    assert_int_equal(f->code, 143);
    assert_non_null(strstr(read_log(f, out, sizeof out), "tidied"));
}

static void a_command_that_waits_for_its_children_ends(void **state)
{
    struct fixture *f = *state;
    run(f, "sleep 0.01 & wait; exit 5", NULL);
    assert_int_equal(f->code, 5);
}

/* The shell dies first, and who adopts the engine must bury it, or its group would seem to live. */
static void orphans_are_buried(void **state)
{
    struct fixture *f = *state;
    start(f, "sleep 1000; true", NULL);
    uint64_t began = test_now_ms();
    net_process_stop(f->process, TEST_DEADLINE_MS);
    wait_ended(f);
    assert_int_equal(f->code, 143);
    assert_true(test_now_ms() - began < 1000);
}

static void a_port_is_free_while_nobody_listens(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    assert_false(net_port_is_free(ntohs(address.sin_port)));
    close(fd);
    assert_true(net_port_is_free(ntohs(address.sin_port)));
}

static void many_at_once(void **state)
{
    enum { N = 20 };
    struct fixture *f = *state;
    static struct fixture all[N];
    memset(all, 0, sizeof all);
    for (int i = 0; i < N; i++) {
        all[i].loop = f->loop;
        snprintf(all[i].log, sizeof all[i].log, "/dev/null");
        start(&all[i], i % 2 ? "sleep 1000" : "exit 6", NULL);
    }
    for (int i = 1; i < N; i += 2)
        net_process_stop(all[i].process, TEST_DEADLINE_MS);
    for (int i = 0; i < N; i++) {
        wait_ended(&all[i]);
        assert_int_equal(all[i].code, i % 2 ? 143 : 6);
        net_process_free(all[i].process);
    }
}

/* A station of its own process, killed without a chance to say anything. */
static void they_do_not_outlive_us(void **state)
{
    struct fixture *f = *state;
    pid_t station = fork();
    if (station == 0) {
        struct net_loop *loop;
        struct net_process *process;
        struct net_process_params params = {
            .command = "trap 'echo asked' TERM; sleep 1000 & echo pid $$; wait; sleep 1000",
            .log_path = f->log,
            .ended = on_ended,
            .ud = f};
        if (net_loop_create(&loop, NULL) == PH_OK &&
            net_process_start(&process, loop, &params, NULL) == PH_OK)
            net_loop_run(loop);
        _exit(1);
    }
    int pid = logged_pid(f);
    assert_true(lives(pid));
    pid_t watcher = getpgid(pid);
    kill(station, SIGKILL);
    waitpid(station, NULL, 0);
    wait_for_log(f, "asked"); /* by SIGTERM */
    wait_dead(pid);           /* which it has ignored: of SIGKILL */
    wait_dead(watcher);
}

static void a_log_that_cannot_be_written_is_named(void **state)
{
    struct fixture *f = *state;
    struct ph_err err = {0};
    struct net_process_params params = {
        .command = "true", .log_path = "/no/such/dir/log", .ended = on_ended, .ud = f};
    assert_int_equal(net_process_start(&f->process, f->loop, &params, &err), PH_ERR_IO);
    assert_non_null(strstr(err.message, "/no/such/dir/log"));
    assert_null(f->process);
}

static void a_free_port_can_be_listened_on(void **state)
{
    (void)state;
    uint16_t port = net_free_port();
    assert_true(port > 0);
    struct net_loop *loop;
    struct http_server *server;
    struct ph_err err = {0};
    struct http_server_params params = {.host = "127.0.0.1", .port = port, .clock = clock_system()};
    http_limits_default(&params.limits);
    assert_int_equal(net_loop_create(&loop, &err), PH_OK);
    assert_int_equal(http_server_open(&server, loop, &params, &err), PH_OK);
    assert_int_equal(http_server_port(server), port);
    http_server_stop(server, NULL, NULL);
    struct test_client client = {.loop = loop};
    test_client_turn_for(&client, 5);
    net_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tells_how_it_ended, setup, teardown),
        cmocka_unit_test_setup_teardown(output_is_appended_to_a_private_file, setup, teardown),
        cmocka_unit_test_setup_teardown(the_environment_is_ours_and_more, setup, teardown),
        cmocka_unit_test_setup_teardown(descriptors_and_signals_are_not_inherited, setup, teardown),
        cmocka_unit_test_setup_teardown(what_a_command_leaves_behind_is_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(stopping_asks_first, setup, teardown),
        cmocka_unit_test_setup_teardown(who_does_not_hear_is_killed_after_the_grace, setup, teardown),
        cmocka_unit_test_setup_teardown(the_grace_is_for_the_whole_group, setup, teardown),
        cmocka_unit_test_setup_teardown(a_command_that_waits_for_its_children_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(orphans_are_buried, setup, teardown),
        cmocka_unit_test_setup_teardown(many_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(they_do_not_outlive_us, setup, teardown),
        cmocka_unit_test_setup_teardown(a_log_that_cannot_be_written_is_named, setup, teardown),
        cmocka_unit_test(a_free_port_can_be_listened_on),
        cmocka_unit_test(a_port_is_free_while_nobody_listens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
