/* A request of the drill command to the station: the reply is kept whole, with how it ended. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/drill_cell_int.h"

#define BODY_BYTES_MAX ((size_t)4 << 20)
#define URL_BYTES_MAX 1024
#define TOTAL_TIMEOUT_MS 60000 /* far beyond what any cell takes: the station hangs then */

void drill_call_init(struct drill_call *call, void (*done)(struct drill_call *call), void *ud)
{
    *call = (struct drill_call){.done = done, .ud = ud};
    buf_init(&call->url, URL_BYTES_MAX);
    buf_init(&call->request, BODY_BYTES_MAX);
    buf_init(&call->body, BODY_BYTES_MAX);
}

void drill_call_release(struct drill_call *call)
{
    buf_release(&call->url);
    buf_release(&call->request);
    buf_release(&call->body);
}

static void on_head(void *ud, int status, const struct http_header *headers, size_t header_count)
{
    struct drill_call *call = ud;
    call->reply.status = status;
    for (size_t i = 0; i < header_count; i++) {
        const char *value = headers[i].value, *attempts = strstr(value, "attempts=");
        if (strcmp(headers[i].name, "x-pharos-route") == 0 && attempts)
            call->reply.attempts = strtol(attempts + 9, NULL, 10);
        else if (strcmp(headers[i].name, "retry-after") == 0)
            call->reply.retry_after = strtol(value, NULL, 10);
        call->reply.leaks_in_header = call->reply.leaks_in_header || strstr(value, DRILL_KEY_PREFIX);
    }
}

static bool on_body(void *ud, const char *bytes, size_t len)
{
    struct drill_call *call = ud;
    buf_append(&call->body, bytes, len);
    return true;
}

static void on_end(void *ud, enum http_call_end how, const char *message)
{
    struct drill_call *call = ud;
    call->http = NULL;
    call->how = how;
    call->reply.body = call->body.data ? call->body.data : "";
    call->reply.body_len = call->body.len;
    call->reply.is_complete = how == HTTP_CALL_WHOLE;
    snprintf(call->why, sizeof call->why, "%s", message);
    if (how == HTTP_CALL_TIMEOUT_TOTAL)
        call->reply.status = 0; /* what came is no reply */
    call->done(call);
}

enum ph_status drill_call_send(struct drill_call *call, const struct drill_station *station,
                               const char *method, const char *path, struct ph_err *err)
{
    const struct http_header headers[] = {{"content-type", "application/json"},
                                          {"authorization", station->bearer}};
    struct http_call_sink sink = {on_head, on_body, on_end, call};
    buf_clear(&call->url);
    buf_clear(&call->body);
    buf_puts(&call->url, station->url);
    buf_puts(&call->url, path);
    call->reply = (struct drill_reply){.attempts = -1, .retry_after = -1, .body = ""};
    if (buf_status(&call->url) != PH_OK || buf_status(&call->request) != PH_OK)
        return ph_fail(err, PH_ERR_LIMIT, "the request is too long");
    struct http_call_params params = {.method = method,
                                      .url = call->url.data,
                                      .headers = headers,
                                      .header_count = station->bearer[0] ? 2 : 1,
                                      .body = call->request.data,
                                      .body_len = call->request.len,
                                      .head_timeout_ms = TOTAL_TIMEOUT_MS,
                                      .silence_timeout_ms = TOTAL_TIMEOUT_MS,
                                      .total_timeout_ms = TOTAL_TIMEOUT_MS,
                                      .body_bytes_max = BODY_BYTES_MAX};
    return http_call_start(&call->http, station->client, &params, &sink, err);
}

void drill_call_cancel(struct drill_call *call)
{
    if (call->http)
        http_call_cancel(call->http);
    call->http = NULL;
}
