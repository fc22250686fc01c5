/* pharos health: one question to a running station, for health checks of containers and service managers. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "cli/cli_int.h"
#include "net/net.h"

#define URL_BYTES_MAX 1024
#define BODY_BYTES_MAX ((size_t)1 << 20)

struct args {
    const char *url, *ca;
    double timeout_s;
    bool alive, json;
};

struct visit {
    struct args args;
    struct net_loop *loop;
    struct http_client *client;
    struct http_call *call;
    struct buf url, body;
    int status; /* of the reply; 0: none */
    char why[PH_ERR_MESSAGE_MAX];
};

static const struct cli_option options[] = {
    {CLI_OPTION("--url", "U", CLI_TEXT, struct args, url, "the station (http://127.0.0.1:8080)")},
    {CLI_OPTION("--ca", "F", CLI_TEXT, struct args, ca, "PEM: certificates trusted besides the system's")},
    {CLI_OPTION("--timeout", "S", CLI_NUMBER, struct args, timeout_s, "seconds until it counts as dead (4)"),
     .min = 0.1, .max = 600},
    {CLI_OPTION("--alive", NULL, CLI_SWITCH, struct args, alive,
                "whether it runs; not: whether it can answer")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print what the station says")},
    CLI_OPTIONS_END};

static void on_head(void *ud, int status, const struct http_header *headers, size_t header_count)
{
    (void)headers;
    (void)header_count;
    ((struct visit *)ud)->status = status;
}

static bool on_body(void *ud, const char *bytes, size_t len)
{
    buf_append(&((struct visit *)ud)->body, bytes, len);
    return true;
}

static void close_visit(struct visit *visit)
{
    http_client_close(visit->client);
    visit->client = NULL;
    net_loop_stop(visit->loop);
}

static void on_end(void *ud, enum http_call_end how, const char *message)
{
    struct visit *visit = ud;
    if (how != HTTP_CALL_WHOLE) {
        visit->status = 0;
        snprintf(visit->why, sizeof visit->why, "%s", message);
    }
    close_visit(visit);
}

static enum ph_status ask(struct visit *visit, struct ph_err *err)
{
    const uint32_t ms = (uint32_t)(visit->args.timeout_s * 1000);
    const struct http_client_params client = {.loop = visit->loop,
                                              .clock = clock_system(),
                                              .ca_file = visit->args.ca,
                                              .user_agent = "pharos-health/" PHAROS_VERSION};
    buf_printf(&visit->url, "%s/%s", visit->args.url, visit->args.alive ? "health" : "ready");
    const struct http_call_params params = {.method = "GET",
                                            .url = visit->url.data,
                                            .connect_timeout_ms = ms,
                                            .head_timeout_ms = ms,
                                            .silence_timeout_ms = ms,
                                            .total_timeout_ms = ms,
                                            .body_bytes_max = BODY_BYTES_MAX};
    const struct http_call_sink sink = {on_head, on_body, on_end, visit};
    if (buf_status(&visit->url) != PH_OK)
        return ph_fail(err, PH_ERR_LIMIT, "health: the address is too long");
    enum ph_status status = http_client_open(&visit->client, &client, err);
    if (status == PH_OK)
        status = http_call_start(&visit->call, visit->client, &params, &sink, err);
    if (status == PH_OK)
        net_loop_run(visit->loop);
    else if (visit->client)
        http_client_close(visit->client);
    return status;
}

static int verdict(const struct visit *visit)
{
    const char *url = visit->args.url, *state = visit->args.alive ? "alive" : "ready";
    if (visit->args.json && visit->body.len && visit->status)
        printf("%.*s\n", (int)visit->body.len, visit->body.data);
    if (visit->status == 200) {
        if (!visit->args.json)
            printf("%s is %s\n", url, state);
        return CLI_EXIT_OK;
    }
    if (visit->status)
        return cli_error(CLI_EXIT_FAILURE, "health: %s is not %s: it answers with status %d", url, state,
                         visit->status);
    return cli_error(CLI_EXIT_FAILURE, "health: %s does not answer: %s", url, visit->why);
}

int cmd_health(int argc, char **argv)
{
    static const struct cli_usage usage = {
        "health", "[--url U] [--alive] [--timeout S]",
        "Whether a running station can answer (exit code 0) or not (1): for health checks.", options};
    struct visit visit = {.args = {.url = "http://127.0.0.1:8080", .timeout_s = 4}};
    struct ph_err err;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &visit.args, &exit_code))
        return exit_code;
    buf_init(&visit.url, URL_BYTES_MAX);
    buf_init(&visit.body, BODY_BYTES_MAX);
    enum ph_status status = net_loop_create(&visit.loop, &err);
    if (status == PH_OK)
        status = ask(&visit, &err);
    exit_code = status == PH_OK ? verdict(&visit) : cli_fail(&err);
    if (visit.loop)
        net_loop_free(visit.loop);
    buf_release(&visit.url);
    buf_release(&visit.body);
    return exit_code;
}
