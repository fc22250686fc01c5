/* pharos drill: does a running station survive what providers do?
 *
 * The station opens a drill (POST /v1/drills), which gives it models whose providers fail as their names say;
 * each fault is then met in every way a client may meet it, some at a time; at last the drill is ended
 * (DELETE). All of it runs on one loop: what is done next is decided when a call ends. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/cli_int.h"
#include "cli/drill_cell_int.h"
#include "cli/secret_int.h"

#define URL_DEFAULT "http://127.0.0.1:8080"
#define KEY_VARIABLE "PHAROS_KEY"
#define AT_ONCE_DEFAULT 24
#define AT_ONCE_MAX 64
#define ARENA_BYTES_MAX ((size_t)64 << 20)
#define OUTPUT_BYTES_MAX ((size_t)8 << 20)
#define TEXT_MAX 160
#define PROBLEM_BYTES_MAX 512
#define BEGIN_TRIES 20 /* while the last drill comes to its end */
#define BEGIN_AGAIN_MS 250

struct drill_args {
    const char *url, *key, *ca;
    struct cli_list faults, apis;
    size_t at_once;
    bool json;
};

static const struct cli_option options[] = {
    {CLI_OPTION("--url", "U", CLI_TEXT, struct drill_args, url, "the station (" URL_DEFAULT ")")},
    {CLI_OPTION("--key", "K", CLI_TEXT, struct drill_args, key,
                "a key with the scope admin, or file:PATH ($" KEY_VARIABLE
                "); a station without keys needs none")},
    {CLI_OPTION("--fault", "NAME", CLI_LIST, struct drill_args, faults,
                "only this fault, may be given several times; `list` lists them")},
    {CLI_OPTION(
        "--api", "NAME", CLI_LIST, struct drill_args, apis,
        "only providers with this API (openai, together, anthropic, gemini), may be given several times")},
    {CLI_OPTION("--at-once", "N", CLI_COUNT, struct drill_args, at_once, "requests at the same time (24)"),
     .min = 1, .max = AT_ONCE_MAX},
    {CLI_OPTION("--ca", "F", CLI_TEXT, struct drill_args, ca,
                "PEM file, trusted besides the system's, for https")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct drill_args, json, "print the result as JSON")},
    CLI_OPTIONS_END};

struct result {
    struct drill_cell cell;
    bool is_taken, is_done;
    const char *problem; /* NULL: it holds */
    int status;
    uint64_t start_ns, end_ns;
};

struct asker {
    struct run *run;
    struct drill_call call;
    struct result *result;
    char text[TEXT_MAX];
};

struct run {
    struct drill_args args;
    struct drill_station station;
    struct net_loop *loop;
    struct net_timer *timer;
    struct drill_call control; /* the beginning and the end */
    struct asker askers[AT_ONCE_MAX];
    struct arena arena;
    struct result *results;
    size_t count, done, failed, running;
    bool alone_runs; /* a cell that wants to be the only one of its kind */
    unsigned tries;
    char id[64], version[32];
    struct cli_progress progress;
    uint64_t start_ns, end_ns;
    bool is_interrupted, is_ending, is_over;
    enum ph_status status;
    struct ph_err err;
};

static uint64_t now_ns(void)
{
    return clock_monotonic_ns(clock_system());
}

/* ---- The end */

static void close_all(struct run *run)
{
    if (run->is_over)
        return;
    run->is_over = true;
    net_timer_close(run->timer);
    http_client_close(run->station.client);
    net_loop_stop(run->loop);
}

static void fail(struct run *run, enum ph_status status)
{
    run->status = status;
    close_all(run);
}

static void on_ended(struct drill_call *call)
{
    close_all(call->ud);
}

/* The drill is ended in order, whatever became of it: the next one can begin at once. */
static void end_drill(struct run *run)
{
    char path[96];
    struct ph_err err;
    if (run->is_ending)
        return;
    run->is_ending = true;
    run->end_ns = now_ns();
    for (size_t i = 0; i < run->args.at_once; i++)
        drill_call_cancel(&run->askers[i].call);
    snprintf(path, sizeof path, "/v1/drills/%s", run->id);
    run->control.done = on_ended;
    buf_clear(&run->control.request);
    if (drill_call_send(&run->control, &run->station, "DELETE", path, &err) != PH_OK)
        close_all(run);
}

static void on_signal(void *ud, int signal_number)
{
    struct run *run = ud;
    if (run->is_interrupted)
        _exit(128 + signal_number);
    run->is_interrupted = true;
    run->status = ph_fail(&run->err, PH_ERR_CANCELLED, "interrupted");
    if (run->id[0]) /* else on_begun sees to it */
        end_drill(run);
}

/* ---- Cells */

static bool is_alone(const struct result *result)
{
    return drill_faults[result->cell.fault].traits & DRILL_ALONE;
}

/* Those that want to be alone go first, for they are the longest way. */
static struct result *next_result(struct run *run)
{
    for (int alone = run->alone_runs ? 0 : 1; alone >= 0; alone--)
        for (size_t i = 0; i < run->count; i++)
            if (!run->results[i].is_taken && is_alone(&run->results[i]) == alone)
                return &run->results[i];
    return NULL;
}

static void make_text(struct asker *asker, size_t index)
{
    /* Characters that stumble; and a number, so that no answer can be another request's. */
    snprintf(
        asker->text, sizeof asker->text,
        "Drill %.12s %zu: na\xc3\xafve words, \xe6\x9d\xb1\xe4\xba\xac \xf0\x9f\x99\x82, \"quoted\" a\\b "
        "{x} data: <b>\n and an end.",
        asker->run->id + sizeof "drill-" - 1, index);
}

static void take_next(struct asker *asker);

static void on_answered(struct drill_call *call)
{
    struct asker *asker = call->ud;
    struct run *run = asker->run;
    struct result *result = asker->result;
    struct arena arena;
    struct buf problem;
    arena_init(&arena, ARENA_BYTES_MAX);
    buf_init(&problem, PROBLEM_BYTES_MAX);
    result->end_ns = now_ns();
    result->status = call->reply.status;
    if (call->reply.status)
        drill_judge(&arena, &result->cell, asker->text, &call->reply, &problem);
    else
        buf_printf(&problem, "no reply: %s", call->why);
    if (problem.len)
        result->problem = arena_strdup(&run->arena, problem.data);
    if (problem.len && !result->problem)
        result->problem = "out of memory";
    run->failed += problem.len > 0;
    buf_release(&problem);
    arena_release(&arena);
    result->is_done = true;
    run->running--;
    run->done++;
    if (is_alone(result))
        run->alone_runs = false;
    cli_progress_show(&run->progress, run->done, run->count);
    take_next(asker);
}

static void take_next(struct asker *asker)
{
    struct run *run = asker->run;
    struct result *result = next_result(run);
    struct ph_err err;
    if (!result) {
        if (!run->running)
            end_drill(run);
        return;
    }
    result->is_taken = true;
    result->start_ns = now_ns();
    asker->result = result;
    run->running++;
    if (is_alone(result))
        run->alone_runs = true;
    make_text(asker, (size_t)(result - run->results));
    buf_clear(&asker->call.request);
    drill_body(&result->cell, asker->text, &asker->call.request);
    if (drill_call_send(&asker->call, &run->station, "POST", drill_path(&result->cell), &err) != PH_OK) {
        run->status = ph_fail(&run->err, err.code, "%s", err.message);
        end_drill(run);
    }
}

/* ---- The beginning */

static enum ph_status make_results(struct run *run, const struct json *drill)
{
    size_t most = json_count(json_get(drill, "apis")) * json_count(json_get(drill, "faults")) * 2 *
                  DRILL_EDGE_COUNT * 2;
    run->results = arena_calloc(&run->arena, most, sizeof *run->results);
    if (!run->results)
        return ph_fail(&run->err, PH_ERR_NOMEM, "out of memory");
    JSON_EACH (fault, json_get(drill, "faults")) {
        JSON_EACH (api, json_get(drill, "apis")) {
            struct drill_cell cell;
            if (!drill_fault_find(json_text(fault, ""), &cell.fault) ||
                !drill_api_find(json_text(api, ""), &cell.api))
                continue; /* of a newer station */
            for (int i = 0; i < 2 * DRILL_EDGE_COUNT * 2; i++) {
                cell.is_backed = i / (2 * DRILL_EDGE_COUNT) == 0;
                cell.edge = (enum drill_edge)(i / 2 % DRILL_EDGE_COUNT);
                cell.is_stream = i % 2;
                run->results[run->count++].cell = cell;
            }
        }
    }
    return PH_OK;
}

/* Why the station began no drill, and what to do. */
static enum ph_status explain(struct run *run, const struct drill_call *call, const struct json *error)
{
    const char *code = json_text(json_get(error, "code"), "");
    const char *message = json_text(json_get(error, "message"), "");
    const char *url = run->station.url;
    int status = call->reply.status;
    if (!status && call->how == HTTP_CALL_NO_CONNECTION)
        return ph_fail(&run->err, PH_ERR_IO,
                       "drill: no station answers at %s (%s); start one with `pharos serve`, or give --url",
                       url, call->why);
    if (!status)
        return ph_fail(&run->err, PH_ERR_IO, "drill: %s: %s", url, call->why);
    if (strcmp(code, "invalid_api_key") == 0)
        return ph_fail(&run->err, PH_ERR_ARG, "drill: %s: %s; give --key, or put it into $" KEY_VARIABLE, url,
                       message);
    if (strcmp(code, "key_not_allowed") == 0)
        return ph_fail(&run->err, PH_ERR_ARG,
                       "drill: this key may not do drills; `pharos keys create --name drill --scope admin` "
                       "makes one that may");
    if (status == 404 || !message[0])
        return ph_fail(&run->err, PH_ERR_UNSUPPORTED,
                       "drill: what answers at %s (status %d) is no station that does drills", url, status);
    return ph_fail(&run->err, PH_ERR_ARG, "drill: %s: %s", url, message);
}

static void begin(void *ud);

static void on_begun(struct drill_call *call)
{
    struct run *run = call->ud;
    struct json *drill = NULL;
    if (json_parse(&run->arena, call->reply.body, call->reply.body_len, &drill, NULL) != PH_OK)
        drill = NULL;
    const struct json *error = json_get(drill, "error");
    if (json_text_is(json_get(error, "code"), "drill_ending") && ++run->tries < BEGIN_TRIES &&
        !run->is_interrupted) {
        net_timer_start(run->timer, BEGIN_AGAIN_MS, 0);
        return;
    }
    const char *id = json_text(json_get(drill, "id"), "");
    if (call->reply.status != 200 || !*id || strlen(id) >= sizeof run->id) {
        fail(run, explain(run, call, error));
        return;
    }
    snprintf(run->id, sizeof run->id, "%s", id);
    snprintf(run->version, sizeof run->version, "%s", json_text(json_get(drill, "version"), "?"));
    if (!run->is_interrupted)
        run->status = make_results(run, drill);
    if (run->status != PH_OK) {
        end_drill(run);
        return;
    }
    cli_progress_begin(&run->progress, "drill");
    run->start_ns = now_ns();
    for (size_t i = 0; i < run->args.at_once && !run->is_ending; i++)
        take_next(&run->askers[i]);
}

static void put_names(struct buf *out, const char *member, const struct cli_list *names)
{
    if (!names->count)
        return;
    buf_printf(out, "%s\"%s\":[", out->len > 1 ? "," : "", member);
    for (size_t i = 0; i < names->count; i++) {
        if (i)
            buf_putc(out, ',');
        json_write_string(out, names->items[i], strlen(names->items[i]));
    }
    buf_putc(out, ']');
}

static void begin(void *ud)
{
    struct run *run = ud;
    struct buf *body = &run->control.request;
    buf_clear(body);
    buf_putc(body, '{');
    put_names(body, "apis", &run->args.apis);
    put_names(body, "faults", &run->args.faults);
    buf_putc(body, '}');
    enum ph_status status = drill_call_send(&run->control, &run->station, "POST", "/v1/drills", &run->err);
    if (status != PH_OK)
        fail(run, status);
}

/* ---- What came out */

static void print_row(const struct result *row, size_t count, struct buf *out)
{
    char cell[64];
    buf_printf(out, "%-12s", drill_faults[row->cell.fault].name);
    for (size_t at = 0; at < count;) {
        enum drill_api api = row[at].cell.api;
        size_t bad = 0, of = 0;
        for (; at < count && row[at].cell.api == api; at++, of++)
            bad += row[at].problem != NULL;
        if (bad)
            snprintf(cell, sizeof cell, "%zu of %zu fail", bad, of);
        buf_printf(out, "  %-13s", bad ? cell : "ok");
    }
    buf_printf(out, "  %s\n", drill_faults[row->cell.fault].what);
}

static void print_table(const struct run *run, struct buf *out)
{
    buf_printf(out, "%-12s", "fault");
    for (size_t i = 0, shown = DRILL_API_COUNT; i < run->count; i++)
        if (run->results[i].cell.fault == run->results[0].cell.fault && run->results[i].cell.api != shown) {
            shown = run->results[i].cell.api;
            buf_printf(out, "  %-13s", drill_api_name(run->results[i].cell.api));
        }
    buf_puts(out, "  what the provider does\n");
    for (size_t i = 0, n; i < run->count; i += n) {
        for (n = 0; i + n < run->count && run->results[i + n].cell.fault == run->results[i].cell.fault; n++)
            ;
        print_row(&run->results[i], n, out);
    }
    for (size_t i = 0; i < run->count; i++)
        if (run->results[i].problem) {
            char title[DRILL_TITLE_MAX];
            drill_title(&run->results[i].cell, title);
            buf_printf(out, "FAILED %s: %s\n", title, run->results[i].problem);
        }
    buf_printf(out, "%zu of %zu requests ended as they should, in %.0f s: %s %s\n", run->done - run->failed,
               run->count, (double)(run->end_ns - run->start_ns) * 1e-9, run->station.url,
               run->failed ? "does not survive everything" : "survives what its providers may do");
}

static void put_result(const struct result *result, struct buf *out)
{
    const struct drill_cell *cell = &result->cell;
    buf_printf(out,
               "{\"api\":\"%s\",\"fault\":\"%s\",\"dialect\":\"%s\",\"stream\":%s,\"second_provider\":%s,"
               "\"ok\":%s,\"status\":%d,\"ms\":%llu",
               drill_api_name(cell->api), drill_faults[cell->fault].name, drill_edge_name(cell->edge),
               cell->is_stream ? "true" : "false", cell->is_backed ? "true" : "false",
               result->problem ? "false" : "true", result->status,
               (unsigned long long)(result->end_ns - result->start_ns) / 1000000);
    if (result->problem) {
        buf_puts(out, ",\"problem\":");
        json_write_string(out, result->problem, strlen(result->problem));
    }
    buf_putc(out, '}');
}

static void print_json(const struct run *run, struct buf *out)
{
    buf_puts(out, "{\"url\":");
    json_write_string(out, run->station.url, strlen(run->station.url));
    buf_printf(out, ",\"id\":\"%s\",\"version\":", run->id);
    json_write_string(out, run->version, strlen(run->version));
    buf_printf(out, ",\"requests\":%zu,\"failed\":%zu,\"seconds\":%.1f,\"results\":[", run->count,
               run->failed, (double)(run->end_ns - run->start_ns) * 1e-9);
    for (size_t i = 0; i < run->count; i++) {
        if (i)
            buf_putc(out, ',');
        put_result(&run->results[i], out);
    }
    buf_puts(out, "]}\n");
}

static int report(struct run *run)
{
    struct buf out;
    cli_progress_end(&run->progress);
    if (run->status != PH_OK)
        return cli_fail(&run->err);
    buf_init(&out, OUTPUT_BYTES_MAX);
    if (run->args.json)
        print_json(run, &out);
    else
        print_table(run, &out);
    enum ph_status status = cli_flush(&out, &run->err);
    buf_release(&out);
    if (status != PH_OK)
        return cli_fail(&run->err);
    return run->failed || run->done < run->count ? CLI_EXIT_FAILURE : CLI_EXIT_OK;
}

/* ---- Options */

static int list_faults(void)
{
    for (size_t i = 0; i < drill_fault_count; i++)
        printf("%-12s  %s\n", drill_faults[i].name, drill_faults[i].what);
    return CLI_EXIT_OK;
}

static bool check_names(const struct drill_args *args, int *exit_code)
{
    size_t index;
    enum drill_api api;
    for (size_t i = 0; i < args->faults.count; i++)
        if (!drill_fault_find(args->faults.items[i], &index)) {
            *exit_code =
                cli_error(CLI_EXIT_USAGE,
                          "drill: --fault \"%.40s\" is no fault; `pharos drill --fault list` lists them",
                          args->faults.items[i]);
            return false;
        }
    for (size_t i = 0; i < args->apis.count; i++)
        if (!drill_api_find(args->apis.items[i], &api)) {
            *exit_code = cli_error(CLI_EXIT_USAGE,
                                   "drill: --api \"%.40s\" is none of openai, together, anthropic, gemini",
                                   args->apis.items[i]);
            return false;
        }
    return true;
}

/* "http://host:port", without what OpenAI's clients call the base. */
static enum ph_status read_url(struct run *run)
{
    const char *url = run->args.url ? run->args.url : URL_DEFAULT;
    bool has_scheme = strstr(url, "://") != NULL;
    bool is_http = strncmp(url, "http://", 7) == 0 || strncmp(url, "https://", 8) == 0;
    int len = snprintf(run->station.url, sizeof run->station.url, "%s%s", has_scheme ? "" : "http://", url);
    if (len < 0 || (size_t)len >= sizeof run->station.url || (has_scheme && !is_http) || !*url)
        return ph_fail(&run->err, PH_ERR_ARG,
                       "drill: \"%.100s\" is not the address of a station; try " URL_DEFAULT, url);
    char *end = run->station.url + len;
    while (end[-1] == '/')
        *--end = 0;
    if (end - run->station.url > 3 && strcmp(end - 3, "/v1") == 0)
        end[-3] = 0;
    return PH_OK;
}

static enum ph_status read_key(struct run *run)
{
    const char *value = run->args.key ? run->args.key : getenv(KEY_VARIABLE);
    const char *const *keys;
    size_t count = 0;
    if (!value || !*value)
        return PH_OK;
    enum ph_status status = secret_read(&run->arena, value, &keys, &count, &run->err);
    if (status != PH_OK || !count)
        return status;
    int len = snprintf(run->station.bearer, sizeof run->station.bearer, "Bearer %s", keys[0]);
    if (len < 0 || (size_t)len >= sizeof run->station.bearer)
        return ph_fail(&run->err, PH_ERR_ARG, "drill: the key is too long for one");
    return PH_OK;
}

static enum ph_status open_run(struct run *run)
{
    struct http_client_params client = {
        .clock = clock_system(), .ca_file = run->args.ca, .user_agent = "pharos-drill/" PHAROS_VERSION};
    enum ph_status status = read_url(run);
    if (status == PH_OK)
        status = read_key(run);
    if (status == PH_OK)
        status = net_loop_create(&run->loop, &run->err);
    client.loop = run->loop;
    if (status == PH_OK)
        status = http_client_open(&run->station.client, &client, &run->err);
    if (status == PH_OK && net_timer_open(&run->timer, run->loop, begin, run) != PH_OK)
        status = ph_fail(&run->err, PH_ERR_NOMEM, "out of memory");
    if (status == PH_OK && net_on_signal(run->loop, on_signal, run) != PH_OK)
        status = ph_fail(&run->err, PH_ERR_IO, "signals cannot be watched");
    return status;
}

static int drill(struct run *run)
{
    arena_init(&run->arena, ARENA_BYTES_MAX);
    drill_call_init(&run->control, on_begun, run);
    for (size_t i = 0; i < run->args.at_once; i++) {
        run->askers[i].run = run;
        drill_call_init(&run->askers[i].call, on_answered, &run->askers[i]);
    }
    run->status = open_run(run);
    if (run->status == PH_OK)
        begin(run);
    else if (run->loop)
        close_all(run);
    if (run->loop) {
        net_loop_run(run->loop);
        net_loop_free(run->loop);
    }
    int exit_code = report(run);
    for (size_t i = 0; i < run->args.at_once; i++)
        drill_call_release(&run->askers[i].call);
    drill_call_release(&run->control);
    arena_release(&run->arena);
    return exit_code;
}

int cmd_drill(int argc, char **argv)
{
    static const struct cli_usage usage = {
        "drill", "[--url U] [--key K] [--fault NAME]... [--api NAME]... [--json]",
        "Lets a running station meet every fault of a provider: in each of three dialects, streamed and "
        "whole,\n"
        "with a healthy second provider (the right answer must come) and without (the right error must "
        "come).\n"
        "The station's configuration has to say `drills: true`. Nothing is spent, no provider is asked, no\n"
        "budget, breaker, report or metric of the station is touched. Takes about half a minute.",
        options};
    struct run *run = mem_calloc(1, sizeof *run);
    int exit_code;
    if (!run)
        return cli_error(CLI_EXIT_FAILURE, "drill: out of memory");
    run->args.at_once = AT_ONCE_DEFAULT;
    if (!cli_parse(&usage, argc, argv, &run->args, &exit_code)) {
        mem_free(run);
        return exit_code;
    }
    log_setup(2, LOG_WARN, false);
    if (run->args.faults.count && strcmp(run->args.faults.items[0], "list") == 0)
        exit_code = list_faults();
    else if (check_names(&run->args, &exit_code))
        exit_code = drill(run);
    mem_free(run);
    return exit_code;
}
