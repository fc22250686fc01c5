/* pharos context: what a model would get to see of what was said, and why. Works on the store itself, or asks
 * a running station (--url), which counts with a model's own tokens where --model names one. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli_int.h"
#include "cli/drill_cell_int.h"
#include "cli/secret_int.h"
#include "memory/memory.h"

#define ARENA_BYTES_MAX ((size_t)1 << 30)
#define OUT_BYTES_MAX ((size_t)256 << 20)
#define KEY_VARIABLE "PHAROS_KEY"
#define SHOWN_BYTES_MAX 500 /* of a message, to people */

/* In the order of enum context_strategy. */
static const char *const strategies[] = {"recent_only", "semantic_focus", "temporal_decay", "hybrid", "spt",
                                         NULL};

struct args {
    const char *conversation, *user, *query, *model, *data, *store, *url, *key;
    size_t budget, keep_recent;
    int strategy;
    bool explain, json;
};

static const struct cli_option options[] = {
    {CLI_OPTION("--conversation", "ID", CLI_TEXT, struct args, conversation,
                "whose messages are looked at (all of the user's)")},
    {CLI_OPTION("--user", "U", CLI_TEXT, struct args, user,
                "whose conversation it is (whoever's has this ID; without one: local)")},
    {CLI_OPTION("--query", "T", CLI_TEXT, struct args, query, "what is to be answered"), .required = true},
    {CLI_OPTION("--budget", "N", CLI_COUNT, struct args, budget, "tokens (1024)"), .min = 1,
     .max = MEMORY_CONTEXT_BUDGET_MAX},
    {CLI_OPTION("--keep-recent", "N", CLI_COUNT, struct args, keep_recent,
                "newest messages that are always in (0)"),
     .max = CHAT_MESSAGES_MAX},
    {CLI_OPTION("--strategy", "S", CLI_CHOICE, struct args, strategy,
                "recent_only, semantic_focus, temporal_decay, hybrid, spt (spt)"),
     .names = strategies},
    {CLI_OPTION("--explain", NULL, CLI_SWITCH, struct args, explain, "why each message was chosen")},
    {CLI_OPTION("--data", "DIR", CLI_TEXT, struct args, data, CLI_DATA_HELP)},
    {CLI_OPTION("--store", "URL", CLI_TEXT, struct args, store,
                "postgres://... (the store in the station's data)")},
    {CLI_OPTION("--url", "U", CLI_TEXT, struct args, url, "ask the station there, not the store")},
    {CLI_OPTION("--key", "K", CLI_TEXT, struct args, key, "for --url ($" KEY_VARIABLE ")")},
    {CLI_OPTION("--model", "M", CLI_TEXT, struct args, model, "for --url: count with this model's tokens")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "answer JSON, as POST /v1/context does")},
    CLI_OPTIONS_END};

struct job {
    struct args args;
    struct arena arena;
    struct buf reply; /* JSON */
    struct ph_err err;
};

/* ---- From the store */

static enum ph_status ask_store(struct job *job)
{
    const struct args *args = &job->args;
    const struct clock_source *clock = clock_system();
    char data[PATH_BYTES_MAX], dir[PATH_BYTES_MAX + sizeof "/" CLI_MEMORY_DIR];
    struct memory *memory = NULL;
    struct memory_context context;
    struct memory_context_params params = {.user = args->user,
                                           .conversation = args->conversation,
                                           .query = args->query,
                                           .query_len = strlen(args->query),
                                           .budget_tokens = (uint32_t)args->budget,
                                           .keep_recent = (uint32_t)args->keep_recent,
                                           .strategy = (enum context_strategy)args->strategy};
    enum ph_status status = cli_data_dir(args->data, data, &job->err);
    if (status != PH_OK)
        return status;
    snprintf(dir, sizeof dir, "%s/" CLI_MEMORY_DIR, data);
    struct memory_params memory_params = {
        .dir = dir, .postgres = args->store, .must_exist = true, .read_only = true, .clock = clock};
    status = memory_create(&memory, &memory_params, &job->err);
    uint64_t began = clock_monotonic_ns(clock);
    if (status == PH_OK)
        status = memory_context_build(memory, &job->arena, &params, &context, &job->err);
    if (status == PH_OK)
        memory_context_write(&context, &params, args->explain,
                             (double)(clock_monotonic_ns(clock) - began) / 1e6, &job->reply);
    memory_free(memory);
    return status;
}

/* ---- From a station */

struct asking {
    struct job *job;
    struct net_loop *loop;
    struct drill_station station;
    struct drill_call call;
    enum ph_status status;
};

static void on_answer(struct drill_call *call)
{
    struct asking *asking = call->ud;
    struct job *job = asking->job;
    struct json *body = NULL;
    const char *message = NULL;
    if (json_parse(&job->arena, call->reply.body, call->reply.body_len, &body, NULL) == PH_OK)
        message = json_text(json_get(json_get(body, "error"), "message"), NULL);
    if (call->reply.status == 200)
        buf_append(&job->reply, call->reply.body, call->reply.body_len);
    else if (call->reply.status)
        asking->status =
            ph_fail(&job->err, PH_ERR_ARG, "%s", message ? message : "what answers there is no station");
    else
        asking->status = ph_fail(&job->err, PH_ERR_IO, "no station at %s: %s; start one with pharos serve",
                                 asking->station.url, call->why);
    http_client_close(asking->station.client);
    net_loop_stop(asking->loop);
}

static void put(struct buf *out, const char *name, const char *text)
{
    if (!text)
        return;
    buf_printf(out, ",\"%s\":", name);
    json_write_string(out, text, strlen(text));
}

static void write_question(const struct args *args, struct buf *out)
{
    buf_printf(out, "{\"budget_tokens\":%zu,\"keep_recent\":%zu,\"explain\":%s", args->budget,
               args->keep_recent, args->explain ? "true" : "false");
    put(out, "conversation", args->conversation);
    put(out, "user", args->user);
    put(out, "query", args->query);
    put(out, "model", args->model);
    put(out, "strategy", strategies[args->strategy]); /* the NULL at its end: not said */
    buf_putc(out, '}');
}

static enum ph_status read_station(struct job *job, struct drill_station *out)
{
    const char *url = job->args.url, *value = job->args.key ? job->args.key : getenv(KEY_VARIABLE);
    const char *const *keys;
    size_t count = 0;
    int len = snprintf(out->url, sizeof out->url, "%s%s", strstr(url, "://") ? "" : "http://", url);
    if (len < 0 || (size_t)len >= sizeof out->url)
        return ph_fail(&job->err, PH_ERR_ARG, "--url is too long");
    while (len > 0 && out->url[len - 1] == '/')
        out->url[--len] = 0;
    if (!value || !*value)
        return PH_OK;
    enum ph_status status = secret_read(&job->arena, value, &keys, &count, &job->err);
    if (status == PH_OK && count)
        snprintf(out->bearer, sizeof out->bearer, "Bearer %.240s", keys[0]);
    return status;
}

static enum ph_status ask_station(struct job *job)
{
    struct asking asking = {.job = job};
    struct http_client_params client = {.clock = clock_system(), .user_agent = "pharos/" PHAROS_VERSION};
    enum ph_status status = read_station(job, &asking.station);
    if (status == PH_OK)
        status = net_loop_create(&asking.loop, &job->err);
    if (status != PH_OK)
        return status;
    client.loop = asking.loop;
    drill_call_init(&asking.call, on_answer, &asking);
    write_question(&job->args, &asking.call.request);
    status = http_client_open(&asking.station.client, &client, &job->err);
    if (status == PH_OK)
        status = drill_call_send(&asking.call, &asking.station, "POST", "/v1/context", &job->err);
    if (status != PH_OK) {
        http_client_close(asking.station.client);
        net_loop_stop(asking.loop);
    }
    net_loop_run(asking.loop);
    net_loop_free(asking.loop);
    drill_call_release(&asking.call);
    return status == PH_OK ? asking.status : status;
}

/* ---- For people */

/* Control characters would drive the terminal. */
static void show_text(const char *text, struct buf *out)
{
    for (size_t i = 0; text[i] && i < SHOWN_BYTES_MAX; i++) {
        unsigned char c = (unsigned char)text[i];
        buf_putc(out, c < ' ' || c == 0x7f ? ' ' : text[i]);
    }
    buf_puts(out, strlen(text) > SHOWN_BYTES_MAX ? " ...\n" : "\n");
}

static void show_item(const struct json *item, struct buf *out)
{
    const struct json *score = json_get(item, "score"), *tokens = json_get(item, "tokens");
    const char *name = json_text(json_get(item, "name"), json_text(json_get(item, "role"), ""));
    buf_printf(out, "%8s %6s  ", score ? score->u.str.text : "", tokens ? tokens->u.str.text : "");
    buf_puts(out, name);
    buf_puts(out, ": ");
    show_text(json_text(json_get(item, "content"), "(parts)"), out);
    JSON_EACH (reason, json_get(item, "why")) {
        const struct json *points = json_get(reason, "points");
        buf_printf(out, "%24s  ", points ? points->u.str.text : "");
        show_text(json_text(json_get(reason, "what"), ""), out);
    }
}

static enum ph_status show(struct job *job)
{
    struct json *body = NULL;
    struct buf out;
    enum ph_status status = buf_status(&job->reply);
    if (status != PH_OK)
        return ph_fail(&job->err, status, "the context does not fit into memory");
    buf_init(&out, OUT_BYTES_MAX);
    if (job->args.json) {
        buf_append(&out, job->reply.data, job->reply.len);
        buf_putc(&out, '\n');
    } else {
        status = json_parse(&job->arena, job->reply.data, job->reply.len, &body, &job->err);
        buf_puts(&out, "   SCORE TOKENS  MESSAGE\n");
        JSON_EACH (item, json_get(body, "items"))
            show_item(item, &out);
        const struct json *tokens = json_get(body, "tokens"), *turns = json_get(body, "turns");
        if (tokens && turns)
            buf_printf(&out, "%zu of %s messages, %s of %zu tokens, %s\n",
                       json_count(json_get(body, "items")), turns->u.str.text, tokens->u.str.text,
                       job->args.budget, json_text(json_get(body, "strategy"), ""));
    }
    if (status == PH_OK)
        status = cli_flush(&out, &job->err);
    buf_release(&out);
    return status;
}

int cmd_context(int argc, char **argv)
{
    static const struct cli_usage usage = {
        "context", "--query T [--conversation ID] [--user U] [--budget N] [options]",
        "Shows which messages of a conversation a model would get to see for a question, under a budget of\n"
        "tokens, and with --explain why. Reads the store of the station's data, running or not; with --url "
        "it\n"
        "asks a station.",
        options};
    struct job job = {.args = {.budget = 1024, .strategy = CONTEXT_STRATEGY_COUNT}};
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &job.args, &exit_code))
        return exit_code;
    log_setup(2, LOG_ERROR, false);
    arena_init(&job.arena, ARENA_BYTES_MAX);
    buf_init(&job.reply, OUT_BYTES_MAX);
    enum ph_status status = job.args.url ? ask_station(&job) : ask_store(&job);
    if (status == PH_OK)
        status = show(&job);
    arena_release(&job.arena);
    buf_release(&job.reply);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&job.err);
}
