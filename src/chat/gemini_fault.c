/* Gemini's errors as faults.
 *
 * An error is {"error": {"code", "message", "status", "details": [...]}}, sometimes inside an array. What it
 * means is decided where all providers' errors are (chat_upstream.c); what lies in the details is Google's
 * alone: a bad key, which comes as INVALID_ARGUMENT with status 400, and how long to wait. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "chat/gemini_int.h"

/* "34.07s" is 35; 0: it says nothing. */
static uint32_t seconds_of(const char *text)
{
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || *end != 's' || !(seconds > 0))
        return 0;
    return seconds < 86400 ? (uint32_t)ceil(seconds) : 86400;
}

void gemini_error(struct arena *arena, int http_status, const struct json *reply, struct chat_fault *out)
{
    struct upstream_error error;
    uint32_t retry_after_s = 0;
    if (json_is(reply, JSON_ARRAY))
        reply = json_first(reply);
    (void)upstream_error_read(arena, reply, &error);
    JSON_EACH (detail, json_get(json_get(reply, "error"), "details")) {
        const char *reason = json_text(json_get(detail, "reason"), "");
        uint32_t seconds = seconds_of(json_text(json_get(detail, "retryDelay"), ""));
        if (strncmp(reason, "API_KEY_", 8) == 0)
            error.code = "api_key_invalid"; /* expired, blocked, of another service: all the same to us */
        retry_after_s = seconds ? seconds : retry_after_s;
    }
    upstream_fault(arena, http_status, &error, out);
    if (retry_after_s && (out->cause == CHAT_CAUSE_RATE || out->cause == CHAT_CAUSE_OVERLOADED))
        out->retry_after_s = retry_after_s;
}

void gemini_fault(struct arena *arena, int http_status, const char *body, size_t len, struct chat_fault *out)
{
    struct json *json;
    if (json_parse(arena, body, len, &json, NULL) == PH_OK)
        gemini_error(arena, http_status, json, out);
    else
        upstream_fault_of_body(arena, http_status, body, len, out);
}
