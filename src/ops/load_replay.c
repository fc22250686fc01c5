/* Recorded logs as a schedule: the station's request log (gateway/request_log.c) and the samples of this
 * tool. Each line is judged by what it has: "intended_ns" is ours, "attempts" the station's. */
#include <stdlib.h>
#include <string.h>

#include "ops/load_int.h"

#define STAGES_MAX 1e6
#define SECONDS_MAX 9e9 /* of a date; its nanoseconds fit into 64 bits */

/* A number of 0 to `most`; else 0. */
static double number_of(const struct json *object, const char *name, double most)
{
    double value;
    return json_to_double(json_get(object, name), &value) && value >= 0 && value <= most ? value : 0;
}

static size_t tokens_of(const struct json *object, const char *name)
{
    return (size_t)number_of(object, name, LOAD_TOKENS_MAX);
}

static enum ph_status take_sample(const struct json *line, struct load_arrival *out, struct ph_err *err)
{
    if (json_is(json_get(line, "warmup"), JSON_TRUE))
        return ph_fail(err, PH_ERR_NOTFOUND, "a warm-up");
    out->at_ns = (uint64_t)number_of(line, "intended_ns", SECONDS_MAX * 1e9);
    out->stage = (size_t)number_of(line, "stage", STAGES_MAX);
    out->prompt.tokens = tokens_of(line, "tokens_in");
    out->prompt.max_tokens = tokens_of(line, "tokens_out");
    return PH_OK;
}

/* How long it took and how long it was: of the attempt that was given to the client, else the last. */
static const struct json *attempt_of(const struct json *line)
{
    const struct json *last = NULL;
    JSON_EACH (attempt, json_get(line, "attempts")) {
        if (!last || !json_text_is(json_get(last, "outcome"), "answered"))
            last = attempt;
    }
    return last;
}

static enum ph_status take_record(struct arena *arena, const struct json *line, struct load_arrival *out,
                                  struct ph_err *err)
{
    const struct json *attempt = attempt_of(line), *request = json_get(line, "request");
    double ended_s = number_of(line, "created", SECONDS_MAX),
           took_s = number_of(attempt, "ended_ms", SECONDS_MAX) * 1e-3;
    out->at_ns = (uint64_t)((ended_s > took_s ? ended_s - took_s : 0) * 1e9);
    out->prompt.tokens = tokens_of(attempt, "prompt_tokens");
    out->prompt.max_tokens = tokens_of(attempt, "completion_tokens");
    const struct json *messages = json_get(request, "messages"), *text = json_get(request, "prompt");
    if ((json_is(messages, JSON_ARRAY) && json_count(messages)) || json_is(text, JSON_STRING)) {
        size_t tokens = out->prompt.tokens;
        struct buf body;
        buf_init(&body, LOAD_BODY_BYTES_MAX);
        json_write(&body, request);
        enum ph_status status = buf_status(&body) == PH_OK
                                    ? load_prompt_parse(arena, body.data, body.len, &out->prompt, err)
                                    : ph_fail(err, PH_ERR_LIMIT, "a request is too long");
        buf_release(&body);
        out->prompt.tokens = tokens;
        return status;
    }
    return out->prompt.tokens ? PH_OK : ph_fail(err, PH_ERR_NOTFOUND, "no request and no length");
}

enum ph_status load_replay_parse(struct arena *arena, const char *line, size_t len, struct load_arrival *out,
                                 struct ph_err *err)
{
    struct json *value;
    *out = (struct load_arrival){0};
    if (len == 0 || (len == 1 && *line == '\r'))
        return ph_fail(err, PH_ERR_NOTFOUND, "an empty line");
    enum ph_status status = json_parse(arena, line, len, &value, err);
    if (status != PH_OK)
        return status;
    if (json_get(value, "intended_ns"))
        return take_sample(value, out, err);
    if (json_get(value, "attempts"))
        return take_record(arena, value, out, err);
    return ph_fail(err, PH_ERR_FORMAT, "neither a line of a request log nor one of bench load --out");
}

static enum ph_status parse_line(struct arena *arena, const char *line, size_t len, void *item,
                                 struct ph_err *err)
{
    return load_replay_parse(arena, line, len, item, err);
}

static int by_time(const void *a, const void *b)
{
    const struct load_arrival *x = a, *y = b;
    if (x->stage != y->stage)
        return x->stage < y->stage ? -1 : 1;
    return (x->at_ns > y->at_ns) - (x->at_ns < y->at_ns);
}

enum ph_status load_replay_read(struct arena *arena, const char *path, struct load_replay *out,
                                struct ph_err *err)
{
    void *items;
    enum ph_status status =
        load_lines_read(arena, path, sizeof(struct load_arrival), parse_line, &items, &out->count, err);
    struct load_arrival *arrivals = items;
    out->items = arrivals;
    if (status != PH_OK)
        return status;
    qsort(arrivals, out->count, sizeof *arrivals, by_time);
    uint64_t first_ns = 0, begin_ns = 0, last_ns = 0;
    for (size_t i = 0; i < out->count; i++) {
        if (i == 0 || arrivals[i].stage != arrivals[i - 1].stage) {
            first_ns = arrivals[i].at_ns;
            begin_ns = last_ns;
        }
        arrivals[i].at_ns = last_ns = begin_ns + (arrivals[i].at_ns - first_ns);
    }
    return PH_OK;
}
