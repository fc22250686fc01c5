/* Engines that are started when they are needed: tiny servers in Python play them. */
#include <signal.h>
#include <sys/wait.h>

#include "base/file.h"
#include "fake_provider.h"
#include "provider/provider_engine_int.h"
#include "test_support.h"

#define ASKS 5

/* Its words: PORT, the folder, and how it is: "slow" to start, without "nohealth", "hangs" before it is
 * ready. A prompt that says "crash" is answered by half a reply and an end. */
static const char engine_py[] =
    "import http.server, os, sys, time\n"
    "port, folder, how = int(sys.argv[1]), sys.argv[2], sys.argv[3]\n"
    "open(folder + '/starts', 'a').write('x')\n"
    "print('engine', how, 'begins', flush=True)\n"
    "time.sleep(0.5 if how == 'slow' else 100 if how == 'hangs' else 0)\n"
    "def chunk(text, finish='null'):\n"
    "    return ('data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",'\n"
    "            '\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"finish_reason\":%s}]}\\n\\n'\n"
    "            % (text, finish)).encode()\n"
    "class Handler(http.server.BaseHTTPRequestHandler):\n"
    "    def log_message(self, *args): pass\n"
    "    def do_GET(self):\n"
    "        known = self.path == '/v1/models' or (self.path == '/health' and how != 'nohealth')\n"
    "        self.send_response(200 if known else 404)\n"
    "        self.end_headers()\n"
    "        self.wfile.write(b'{}')\n"
    "    def do_POST(self):\n"
    "        body = self.rfile.read(int(self.headers['content-length']))\n"
    "        self.send_response(200)\n"
    "        self.send_header('content-type', 'text/event-stream')\n"
    "        self.end_headers()\n"
    "        self.wfile.write(chunk('Hel'))\n"
    "        self.wfile.flush()\n"
    "        if b'crash' in body:\n"
    "            os._exit(7)\n"
    "        if b'wait' in body:\n"
    "            time.sleep(100)\n"
    "        self.wfile.write(chunk('lo') + chunk('', '\"stop\"') + b'data: [DONE]\\n\\n')\n"
    "http.server.ThreadingHTTPServer(('127.0.0.1', port), Handler).serve_forever()\n";

struct fixture {
    struct fake_provider fake; /* for its loop and client */
    char dir[64];
    struct provider *provider;
    bool stopped;
};

static void path_in(const struct fixture *f, char out[128], const char *name)
{
    snprintf(out, 128, "%s/%s", f->dir, name);
}

static void create(struct fixture *f, const char *command, uint32_t ttl_s, uint32_t start_timeout_s)
{
    struct ph_err err;
    struct provider_supervised_params params = {.model_id = "org/mine",
                                                .command = command,
                                                .codec = &chat_codec_openai,
                                                .log_dir = f->dir,
                                                .context_len = 2048,
                                                .ttl_s = ttl_s,
                                                .start_timeout_s = start_timeout_s,
                                                .loop = f->fake.loop,
                                                .client = f->fake.client,
                                                .clock = clock_system()};
    if (provider_supervised_create(&f->provider, &params, &err) != PH_OK)
        fail_msg("%s", err.message);
}

static void open_dir(struct fixture *f)
{
    *f = (struct fixture){.dir = "/tmp/pharos-test-XXXXXX"};
    assert_non_null(mkdtemp(f->dir));
    fake_open(&f->fake);
}

/* An engine that is `how`. */
static void open_engine(struct fixture *f, const char *how, uint32_t ttl_s)
{
    char script[128], command[256];
    struct ph_err err;
    open_dir(f);
    path_in(f, script, "engine.py");
    if (file_write_atomic(script, engine_py, sizeof engine_py - 1, 0600, &err) != PH_OK)
        fail_msg("%s", err.message);
    snprintf(command, sizeof command, "python3 %s {port} %s %s", script, f->dir, how);
    create(f, command, ttl_s, 0);
}

static void on_stopped(void *ud)
{
    *(bool *)ud = true;
}

static void close_engine(struct fixture *f)
{
    static const char *const names[] = {"engine.py",      "starts",       "org_mine.log",
                                        "org_mine.log.1", "org_mine.pid", "org_mine.memory"};
    provider_stop(f->provider, f->fake.loop, on_stopped, &f->stopped);
    fake_run_until(&f->fake, &f->stopped);
    provider_free(f->provider);
    fake_close(&f->fake);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[128];
        path_in(f, path, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(f->dir), 0); /* nothing else is left */
}

static size_t read_all(const struct fixture *f, const char *name, char *out, size_t size)
{
    char path[128];
    struct buf text;
    struct ph_err err;
    path_in(f, path, name);
    buf_init(&text, size - 1);
    size_t len = file_exists(path) && file_read(path, &text, &err) == PH_OK ? text.len : 0;
    memcpy(out, len ? text.data : "", len + 1);
    buf_release(&text);
    return len;
}

static size_t starts(const struct fixture *f)
{
    char text[64];
    return read_all(f, "starts", text, sizeof text);
}

/* The number of the engine's process group; 0: none. */
static long group_of(const struct fixture *f)
{
    char text[64];
    read_all(f, "org_mine.pid", text, sizeof text);
    return strtol(text, NULL, 10);
}

static void ask_one(struct fixture *f, struct ask *ask)
{
    ask_init(ask, &f->fake, true);
    ask_run(ask, f->provider);
}

static void check_hello(struct ask *ask)
{
    if (!ask->is_done)
        fail_msg("%d: %s", ask->fault.http_status, ask->fault.message);
    assert_string_equal(ask->text.data, "Hello");
}

/* Runs the loop until the engine's state is so. */
static void wait_for_group(struct fixture *f, bool runs)
{
    for (int i = 0; i < 1000 && (group_of(f) != 0) != runs; i++) {
        struct fake_wait wait;
        fake_wait_begin(&wait, &f->fake, 10);
        fake_run_until(&f->fake, &wait.over);
    }
    assert_int_equal(group_of(f) != 0, runs);
}

#define REQUIRE_PYTHON()                                         \
    do {                                                         \
        if (access("/usr/bin/python3", X_OK) != 0) {             \
            printf("SKIP: %s: no /usr/bin/python3\n", __func__); \
            skip();                                              \
        }                                                        \
    } while (0)

/* ---- Starting */

static void many_calls_start_one_engine(void **state)
{
    (void)state;
    REQUIRE_PYTHON();
    struct fixture f;
    struct ask asks[ASKS];
    struct provider_state s;
    open_engine(&f, "slow", 0);
    provider_state(f.provider, &s);
    assert_true(s.usable); /* it would be started */
    for (size_t i = 0; i < ASKS; i++) {
        ask_init(&asks[i], &f.fake, true);
        ask_start(&asks[i], f.provider);
        assert_false(asks[i].over);
    }
    provider_state(f.provider, &s);
    assert_int_equal(s.waiting, ASKS);
    provider_cancel(asks[1].call); /* does not want to wait */
    provider_hang_up(asks[2].call, 100);
    for (size_t i = 0; i < ASKS; i++)
        if (i != 1)
            fake_run_until(&f.fake, &asks[i].over);
    check_hello(&asks[0]);
    check_hello(&asks[3]);
    check_hello(&asks[4]);
    assert_int_equal(asks[0].kinds[0], CHAT_EVENT_PROGRESS);
    assert_int_equal(asks[1].count, 0);
    assert_true(asks[2].is_done);
    assert_int_equal(asks[2].completion_tokens, 0);
    assert_int_equal(starts(&f), 1);
    for (size_t i = 0; i < ASKS; i++)
        ask_release(&asks[i]);
    ask_one(&f, &asks[0]); /* and the next one finds it there */
    check_hello(&asks[0]);
    assert_int_equal(asks[0].kinds[0], CHAT_EVENT_ROLE);
    assert_int_equal(starts(&f), 1);
    ask_release(&asks[0]);
    close_engine(&f);
}

static void without_health_the_models_are_asked_for(void **state)
{
    (void)state;
    REQUIRE_PYTHON();
    struct fixture f;
    struct ask ask;
    open_engine(&f, "nohealth", 0);
    ask_one(&f, &ask);
    check_hello(&ask);
    ask_release(&ask);
    close_engine(&f);
}

static void a_start_that_fails_says_why(void **state)
{
    (void)state;
    struct fixture f;
    struct ask ask;
    open_dir(&f);
    assert_int_equal(rmdir(f.dir), 0); /* it is made when it is needed */
    create(&f, "seq 1000; echo first line; echo 'cannot load {port}: no such file' >&2; exit 3", 0, 0);
    ask_one(&f, &ask);
    assert_false(ask.is_done);
    assert_int_equal(ask.fault.http_status, 503);
    assert_string_equal(ask.fault_code, "model_unavailable");
    assert_true(ask.fault.retry_after_s > 0);
    assert_non_null(strstr(ask.fault.message, "org/mine: the engine did not start: it ended with code 3"));
    assert_non_null(strstr(ask.fault.message, "first line | cannot load "));
    ask_release(&ask);
    ask_init(&ask, &f.fake, true); /* not again at once */
    ask_start(&ask, f.provider);
    assert_true(ask.over);
    assert_int_equal(ask.fault.http_status, 503);
    assert_non_null(strstr(ask.fault.message, "no such file"));
    assert_true(ask.fault.retry_after_s > 0);
    struct provider_state s;
    provider_state(f.provider, &s);
    assert_false(s.usable);
    assert_int_equal(s.why, CHAT_CAUSE_OURS);
    assert_true(s.usable_at_ns > 0);
    ask_release(&ask);
    close_engine(&f);
}

static void a_start_that_takes_too_long_is_ended(void **state)
{
    (void)state;
    REQUIRE_PYTHON();
    struct fixture f;
    struct ask ask;
    open_engine(&f, "hangs", 0);
    provider_stop(f.provider, f.fake.loop, on_stopped, &f.stopped); /* the one with a long time-out */
    fake_run_until(&f.fake, &f.stopped);
    provider_free(f.provider);
    f.stopped = false;
    char command[256];
    snprintf(command, sizeof command, "python3 %s/engine.py {port} %s hangs", f.dir, f.dir);
    create(&f, command, 0, 3); /* time for its first words on a busy machine */
    ask_one(&f, &ask);
    assert_int_equal(ask.fault.http_status, 503);
    assert_non_null(strstr(ask.fault.message, "did not become ready in time"));
    assert_non_null(strstr(ask.fault.message, "engine hangs begins"));
    ask_release(&ask);
    wait_for_group(&f, false);
    close_engine(&f);
}

static void a_command_without_a_port_is_refused(void **state)
{
    (void)state;
    struct ph_err err;
    struct provider *provider;
    struct provider_supervised_params params = {
        .model_id = "m", .command = "llama-server", .log_dir = "/tmp"};
    assert_int_equal(provider_supervised_create(&provider, &params, &err), PH_ERR_ARG);
    assert_non_null(strstr(err.message, "{port}"));
}

/* ---- Running and ending */

static void ask_saying(struct fixture *f, struct ask *ask, const char *text)
{
    ask_init(ask, &f->fake, true);
    struct chat_message *message = arena_alloc(&ask->arena, sizeof *message);
    *message = ask->request.messages[0];
    message->content = (struct chat_text){text, strlen(text)};
    message->raw = NULL;
    ask->request.messages = message;
    ask->request.messages_changed = true;
    ask_start(ask, f->provider);
}

static void a_crash_is_a_cut_and_a_new_start(void **state)
{
    (void)state;
    REQUIRE_PYTHON();
    struct fixture f;
    struct ask ask;
    open_engine(&f, "well", 0);
    ask_one(&f, &ask);
    check_hello(&ask);
    ask_release(&ask);
    ask_saying(&f, &ask, "crash");
    fake_run_until(&f.fake, &ask.over);
    assert_int_equal(ask.fault.cause, CHAT_CAUSE_CUT);
    assert_string_equal(ask.text.data, "Hel");
    ask_release(&ask);
    wait_for_group(&f, false);
    wait_for_group(&f, true); /* by itself, after a back-off */
    ask_one(&f, &ask);
    check_hello(&ask);
    assert_int_equal(starts(&f), 2);
    char old_log[256];
    assert_true(read_all(&f, "org_mine.log.1", old_log, sizeof old_log) > 0);
    assert_non_null(strstr(old_log, "engine well begins"));
    ask_release(&ask);
    close_engine(&f);
}

static void idle_engines_are_stopped(void **state)
{
    (void)state;
    REQUIRE_PYTHON();
    struct fixture f;
    struct ask ask, busy;
    open_engine(&f, "well", 1);
    assert_false(provider_supervised_release(f.provider)); /* it does not run */
    ask_one(&f, &ask);
    check_hello(&ask);
    ask_release(&ask);
    ask_saying(&f, &busy, "wait");
    struct fake_wait wait;
    fake_wait_begin(&wait, &f.fake, 2500);
    fake_run_until(&f.fake, &wait.over);
    assert_true(group_of(&f) != 0);                        /* it is not idle */
    assert_false(provider_supervised_release(f.provider)); /* nor may it be taken away */
    provider_cancel(busy.call);
    ask_release(&busy);
    long group = group_of(&f);
    wait_for_group(&f, false);
    assert_int_equal(kill((pid_t)-group, 0), -1); /* all of them */
    ask_one(&f, &ask);
    check_hello(&ask);
    assert_int_equal(starts(&f), 2);
    ask_release(&ask);
    assert_true(provider_supervised_release(f.provider));
    wait_for_group(&f, false);
    close_engine(&f);
}

static void stopping_ends_whatever_there_is(void **state)
{
    (void)state;
    REQUIRE_PYTHON();
    struct fixture f;
    struct ask waiting, late;
    open_engine(&f, "hangs", 0);
    ask_init(&waiting, &f.fake, true);
    ask_start(&waiting, f.provider);
    wait_for_group(&f, true);
    long group = group_of(&f);
    provider_stop(f.provider, f.fake.loop, on_stopped, &f.stopped);
    assert_false(f.stopped);
    ask_init(&late, &f.fake, true);
    ask_start(&late, f.provider);
    assert_true(late.over);
    assert_string_equal(late.fault_code, "server_stopping");
    fake_run_until(&f.fake, &f.stopped);
    assert_true(waiting.over);
    assert_string_equal(waiting.fault_code, "server_stopping");
    assert_int_equal(kill((pid_t)-group, 0), -1);
    ask_release(&waiting);
    ask_release(&late);
    f.stopped = false;
    close_engine(&f); /* a second time does no harm */
}

static void a_halt_stops_it_until_somebody_asks(void **state)
{
    (void)state;
    REQUIRE_PYTHON();
    struct fixture f;
    struct ask ask, busy, waiting;
    struct chat_fault fault;
    struct provider_engine_stats stats;
    chat_fault_set(&fault, 503, "model_unavailable", NULL, "too hot");
    open_engine(&f, "well", 0);
    provider_halt(f.provider, &fault); /* it does not run */
    ask_one(&f, &ask);
    check_hello(&ask);
    ask_release(&ask);
    ask_saying(&f, &busy, "wait");
    provider_halt(f.provider, &fault);
    fake_run_until(&f.fake, &busy.over); /* cut */
    assert_false(busy.is_done);
    ask_release(&busy);
    wait_for_group(&f, false);
    assert_true(provider_engine_stats(f.provider, &stats));
    assert_int_equal(stats.ends[ENGINE_END_HALT], 1);
    assert_int_equal(stats.running, 0);
    ask_init(&waiting, &f.fake, true);
    ask_start(&waiting, f.provider);
    provider_halt(f.provider, &fault); /* while it is started, or before */
    assert_true(waiting.over);
    assert_string_equal(waiting.fault.message, "too hot");
    ask_release(&waiting);
    wait_for_group(&f, false);
    ask_one(&f, &ask);
    check_hello(&ask);
    ask_release(&ask);
    close_engine(&f);
}

/* ---- Memory */

#define MIB (UINT64_C(1) << 20)

struct pair { /* two engines in one room */
    struct fixture f;
    struct provider_room *room;
    uint64_t available;
    struct provider *a, *b;
};

static uint64_t injected(void *ud, uint64_t mapped)
{
    return *(uint64_t *)ud - mapped;
}

static void create_in_room(struct pair *p, struct provider **out, const char *id, uint64_t need)
{
    char command[256];
    struct ph_err err;
    snprintf(command, sizeof command, "python3 %s/engine.py {port} %s well", p->f.dir, p->f.dir);
    struct provider_supervised_params params = {.model_id = id,
                                                .command = command,
                                                .codec = &chat_codec_openai,
                                                .log_dir = p->f.dir,
                                                .context_len = 2048,
                                                .memory_bytes = need,
                                                .room = p->room,
                                                .loop = p->f.fake.loop,
                                                .client = p->f.fake.client,
                                                .clock = clock_system()};
    if (provider_supervised_create(out, &params, &err) != PH_OK)
        fail_msg("%s", err.message);
}

static void open_pair(struct pair *p, uint64_t available, uint64_t need_a, uint64_t need_b)
{
    char script[128];
    struct ph_err err;
    *p = (struct pair){.available = available};
    open_dir(&p->f);
    path_in(&p->f, script, "engine.py");
    assert_int_equal(file_write_atomic(script, engine_py, sizeof engine_py - 1, 0600, &err), PH_OK);
    struct provider_room_params params = {.available = injected, .ud = &p->available};
    assert_int_equal(provider_room_create(&p->room, &params, &err), PH_OK);
    create_in_room(p, &p->a, "a", need_a);
    create_in_room(p, &p->b, "b", need_b);
}

static void stop_and_free(struct pair *p, struct provider *provider)
{
    p->f.stopped = false;
    provider_stop(provider, p->f.fake.loop, on_stopped, &p->f.stopped);
    fake_run_until(&p->f.fake, &p->f.stopped);
    provider_free(provider);
}

static void close_pair(struct pair *p)
{
    char command[80];
    stop_and_free(p, p->a);
    stop_and_free(p, p->b);
    provider_room_free(p->room);
    fake_close(&p->f.fake);
    snprintf(command, sizeof command, "rm -r %s", p->f.dir);
    assert_int_equal(system(command), 0);
}

static struct provider_engine_stats stats_of(const struct provider *provider)
{
    struct provider_engine_stats s;
    assert_true(provider_engine_stats(provider, &s));
    return s;
}

static void check_answer(struct pair *p, struct provider *provider)
{
    struct ask ask;
    ask_init(&ask, &p->f.fake, true);
    ask_run(&ask, provider);
    check_hello(&ask);
    ask_release(&ask);
}

static void turn(struct pair *p, uint64_t ms)
{
    struct fake_wait wait;
    fake_wait_begin(&wait, &p->f.fake, ms);
    fake_run_until(&p->f.fake, &wait.over);
}

static void an_idle_engine_leaves_for_another(void **state)
{
    (void)state;
    REQUIRE_PYTHON();
    struct pair p;
    open_pair(&p, 500 * MIB, 300 * MIB, 300 * MIB);
    check_answer(&p, p.a);
    check_answer(&p, p.b);
    assert_int_equal(stats_of(p.a).ends[ENGINE_END_MEMORY], 1);
    assert_int_equal(stats_of(p.a).running, 0);
    check_answer(&p, p.a);
    assert_int_equal(stats_of(p.a).starts, 2);
    assert_int_equal(stats_of(p.b).ends[ENGINE_END_MEMORY], 1);
    p.available = 1000 * MIB;
    check_answer(&p, p.b); /* now there is room for both */
    assert_int_equal(stats_of(p.a).running + stats_of(p.b).running, 2);
    close_pair(&p);
}

static void a_busy_engine_is_waited_for(void **state)
{
    (void)state;
    REQUIRE_PYTHON();
    struct pair p;
    struct ask busy, waiting, impatient;
    open_pair(&p, 500 * MIB, 300 * MIB, 300 * MIB);
    p.f.provider = p.a;
    ask_saying(&p.f, &busy, "wait");
    while (busy.text.len == 0)
        turn(&p, 10);
    ask_init(&waiting, &p.f.fake, true);
    ask_init(&impatient, &p.f.fake, true);
    ask_start(&waiting, p.b);
    ask_start(&impatient, p.b);
    turn(&p, 1200);
    assert_int_equal(stats_of(p.b).waits_for_memory, 1);
    assert_int_equal(stats_of(p.b).waiting, 2);
    assert_int_equal(stats_of(p.a).running, 1);
    assert_int_equal(waiting.kinds[0], CHAT_EVENT_PROGRESS);
    provider_cancel(impatient.call);
    assert_false(waiting.over);
    provider_cancel(busy.call); /* it is idle: the other is woken, and does not wait for its timer */
    fake_run_until(&p.f.fake, &waiting.over);
    check_hello(&waiting);
    assert_int_equal(stats_of(p.a).ends[ENGINE_END_MEMORY], 1);
    assert_int_equal(stats_of(p.b).waits_for_memory, 0);
    ask_release(&busy);
    ask_release(&waiting);
    ask_release(&impatient);
    close_pair(&p);
}

static void what_never_fits_is_refused_with_figures(void **state)
{
    (void)state;
    REQUIRE_PYTHON();
    struct pair p;
    struct ask ask;
    open_pair(&p, 500 * MIB, 300 * MIB, 900 * MIB);
    check_answer(&p, p.a);
    ask_init(&ask, &p.f.fake, true);
    ask_run(&ask, p.b);
    assert_int_equal(ask.fault.http_status, 503);
    assert_true(ask.fault.retry_after_s > 0);
    assert_non_null(strstr(ask.fault.message, "b: there is not enough memory to start it: it needs 900 MiB"));
    assert_int_equal(stats_of(p.a).running, 1);
    assert_int_equal(stats_of(p.b).starts, 0);
    ask_release(&ask);
    p.available = 2000 * MIB;
    check_answer(&p, p.b); /* no back-off: it did not fail */
    close_pair(&p);
}

static void what_was_measured_is_needed_the_next_time(void **state)
{
    (void)state;
    REQUIRE_PYTHON();
    struct pair p;
    open_pair(&p, 500 * MIB, 0, 0);
    assert_int_equal(stats_of(p.a).memory_need, 0);
    check_answer(&p, p.a);
    for (int i = 0; i < 500 && stats_of(p.a).memory < MIB; i++) /* before: a shell */
        turn(&p, 10);
    uint64_t measured = stats_of(p.a).memory;
    assert_true(measured > MIB && measured < 500 * MIB);
    stop_and_free(&p, p.a);
    create_in_room(&p, &p.a, "a", 0);
    assert_true(stats_of(p.a).memory_need >= measured);
    assert_int_equal(stats_of(p.b).memory_need, 0);
    close_pair(&p);
}

/* ---- What a killed station leaves behind */

static pid_t sleep_in_a_group(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        setpgid(0, 0);
        execl("/bin/sh", "sh", "-c", "sleep 100", (char *)NULL);
        _exit(127);
    }
    setpgid(pid, pid);
    return pid;
}

static void orphans_are_ended_and_others_are_not(void **state)
{
    (void)state;
    if (access("/proc/self/stat", R_OK) != 0)
        skip();
    struct fixture f;
    struct engine_files files;
    struct ph_err err;
    int how = 0;
    open_dir(&f);
    assert_int_equal(engine_files_init(&files, f.dir, "org/mine", &err), PH_OK);
    pid_t orphan = sleep_in_a_group(), stranger = sleep_in_a_group();
    char line[64];
    int len =
        snprintf(line, sizeof line, "%d %d 1\n", (int)stranger, (int)stranger); /* it began at another time */
    assert_int_equal(file_write_atomic(files.pid, line, (size_t)len, 0600, &err), PH_OK);
    create(&f, "true {port}", 0, 0);
    assert_int_equal(waitpid(stranger, &how, WNOHANG), 0);
    assert_false(file_exists(files.pid));
    provider_free(f.provider);
    engine_files_note(&files, (int)orphan, (int)orphan);
    create(&f, "true {port}", 0, 0);
    assert_int_equal(waitpid(orphan, &how, 0), orphan);
    assert_true(WIFSIGNALED(how));
    kill(-stranger, SIGKILL);
    waitpid(stranger, &how, 0);
    engine_files_release(&files);
    close_engine(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_calls_start_one_engine),
        cmocka_unit_test(without_health_the_models_are_asked_for),
        cmocka_unit_test(a_start_that_fails_says_why),
        cmocka_unit_test(a_start_that_takes_too_long_is_ended),
        cmocka_unit_test(a_command_without_a_port_is_refused),
        cmocka_unit_test(a_crash_is_a_cut_and_a_new_start),
        cmocka_unit_test(idle_engines_are_stopped),
        cmocka_unit_test(stopping_ends_whatever_there_is),
        cmocka_unit_test(a_halt_stops_it_until_somebody_asks),
        cmocka_unit_test(an_idle_engine_leaves_for_another),
        cmocka_unit_test(a_busy_engine_is_waited_for),
        cmocka_unit_test(what_never_fits_is_refused_with_figures),
        cmocka_unit_test(what_was_measured_is_needed_the_next_time),
        cmocka_unit_test(orphans_are_ended_and_others_are_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
