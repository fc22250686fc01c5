/* POST /v1/feedback {response_id, score -1..1, note}: a verdict on an answer that the book of routes still
 * remembers, and what is noted of every judged answer of a cascade. */
#include <string.h>

#include "base/log.h"
#include "gateway/answer_int.h"
#include "gateway/verdict_int.h"

#define NOTE_BYTES_MAX 2000
#define ID_BYTES_MAX 256

struct feedback {
    const char *id, *note;
    double score;
};

static bool refuse(struct chat_fault *fault, const char *param, const char *what)
{
    chat_fault_set(fault, 400, "invalid_feedback", param, "%s", what);
    return false;
}

static bool read_feedback(const struct json *body, struct feedback *out, struct chat_fault *fault)
{
    const struct json *id = json_get(body, "response_id"), *note = json_get(body, "note");
    if (!json_is(body, JSON_OBJECT))
        return refuse(fault, NULL, "feedback is a JSON object {response_id, score, note}");
    if (!json_is(id, JSON_STRING) || !id->u.str.len || id->u.str.len > ID_BYTES_MAX)
        return refuse(fault, "response_id", "response_id must be the id of a reply, or its x-request-id");
    if (!json_to_double(json_get(body, "score"), &out->score) || out->score < -1 || out->score > 1)
        return refuse(fault, "score", "score must be a number from -1 (useless) to 1 (right)");
    if (!json_is_absent(note) && (!json_is(note, JSON_STRING) || note->u.str.len > NOTE_BYTES_MAX))
        return refuse(fault, "note", "note must be a text of at most 2000 bytes");
    out->id = id->u.str.text;
    out->note = json_text(note, NULL);
    return true;
}

/* ---- The line */

static void copy(struct json *to, struct arena *arena, const char *name, const struct json *from,
                 const char *member)
{
    const struct json *value = json_get(from, member);
    json_set(arena, to, name, value ? json_copy(arena, value) : json_new(arena, JSON_NULL));
}

static void write_verdict(struct arena *arena, const struct json *record, const struct feedback *feedback,
                          int64_t at, const char *by, struct buf *out)
{
    static const struct {
        const char *name, *member;
    } rows[] = {{"response_id", "id"},    {"route", "asked_for"},
                {"policy", "policy"},     {"model", "model"},
                {"tier", "tier"},         {"confidence", "first_confidence"},
                {"cheap", "cheap"},       {"escalations", "escalations"},
                {"cost_usd", "cost_usd"}, {"key", "key"}};
    struct json *line = json_new(arena, JSON_OBJECT);
    json_set(arena, line, "at", json_new_int(arena, at));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        copy(line, arena, rows[i].name, record, rows[i].member);
    if (by)
        json_set(arena, line, "by", json_new_string(arena, by, strlen(by)));
    json_set(arena, line, "score", json_new_double(arena, feedback->score));
    if (feedback->note)
        json_set(arena, line, "note", json_new_string(arena, feedback->note, strlen(feedback->note)));
    json_write(out, line);
}

static bool keep(struct gateway *gateway, struct arena *arena, const struct feedback *feedback,
                 const struct caller *caller, struct buf *line, struct chat_fault *fault)
{
    size_t len = 0;
    const char *text = route_book_find(gateway->book, feedback->id, &len);
    struct json *record = NULL;
    struct ph_err err;
    if (!text || !caller_may_see(gateway, caller, text, len)) {
        chat_fault_set(fault, 404, "route_not_found", "response_id",
                       "no answer \"%.100s\" is remembered; the last %d are", feedback->id,
                       ROUTE_RECORDS_MAX);
        return false;
    }
    enum ph_status status = json_parse(arena, text, len, &record, &err);
    if (status == PH_OK) {
        write_verdict(arena, record, feedback, clock_unix_ms(gateway->clock) / 1000,
                      caller->key ? caller->key->id : NULL, line);
        status = gateway->verdicts ? verdicts_add(gateway->verdicts, line, &err)
                                   : ph_fail(&err, PH_ERR_IO, "this station has no data directory");
    }
    if (status == PH_OK)
        return true;
    log_warn("gateway", "a verdict was lost: %s", err.message);
    chat_fault_set(fault, 503, "feedback_not_kept", NULL, "the verdict could not be written; try again");
    return false;
}

/* An answer in a conversation, or a response that was stored: the store keeps what was thought of it, by the
 * answer's own id. */
static bool goes_to_store(struct gateway *gateway, struct arena *arena, struct feedback *feedback)
{
    size_t len = 0;
    const char *text = route_book_find(gateway->book, feedback->id, &len);
    struct json *record = NULL;
    if (!text)
        return strncmp(feedback->id, "resp_", 5) == 0;
    if (json_parse(arena, text, len, &record, NULL) != PH_OK)
        return false;
    const char *id = json_text(json_get(record, "id"), feedback->id);
    bool is_stored = json_is(json_get(record, "conversation"), JSON_STRING) || strncmp(id, "resp_", 5) == 0;
    if (is_stored)
        feedback->id = id;
    return is_stored;
}

void handle_feedback(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit)
{
    struct arena *arena = http_exchange_arena(exchange);
    struct feedback feedback;
    struct chat_fault fault;
    struct json *body;
    struct buf line;
    size_t len = 0;
    buf_init(&line, VERDICT_LINE_BYTES_MAX);
    bool ok = gateway_body(exchange, &body, &fault) && read_feedback(body, &feedback, &fault);
    bool is_known = ok && route_book_find(gateway->book, feedback.id, &len);
    bool is_stored = ok && gateway->memory && goes_to_store(gateway, arena, &feedback);
    if (ok && (is_known || !is_stored)) /* a reply that only the store remembers has no verdict of a route */
        ok = keep(gateway, arena, &feedback, visit->caller, &line, &fault);
    if (ok && is_stored)
        remember_verdict(gateway, exchange, visit, is_known ? &line : NULL, feedback.id, feedback.score,
                         feedback.note);
    else if (ok)
        gateway_reply(gateway, exchange, 200, JSON_TYPE, &line);
    else
        gateway_reply_fault(gateway, exchange, &fault);
    buf_release(&line);
}

/* ---- Judged answers */

void feedback_note_answer(const struct answer *answer, const char *response_id)
{
    struct gateway *gateway = answer->params.gateway;
    int64_t cheap = 0, dear = 0;
    struct buf line;
    if (!gateway->verdicts || !answer->was_judged)
        return;
    for (const struct attempt *a = answer->attempts; a; a = a->next)
        *(answer_is_first_stage(answer, a) ? &cheap : &dear) += a->cost_pico;
    bool has_dear =
        answer->ending == ENDING_WELL && answer->speaking && !answer_is_first_stage(answer, answer->speaking);
    buf_init(&line, VERDICT_LINE_BYTES_MAX);
    buf_printf(&line, "{\"at\":%lld,\"response_id\":", (long long)(clock_unix_ms(gateway->clock) / 1000));
    json_write_string(&line, response_id, strlen(response_id));
    buf_puts(&line, ",\"route\":");
    json_write_string(&line, answer->choice.name, strlen(answer->choice.name));
    buf_printf(&line, ",\"confidence\":%.6g,\"escalated\":%s,\"dear\":%s", answer->first_confidence,
               answer->escalations ? "true" : "false", has_dear ? "true" : "false");
    buf_printf(&line, ",\"cheap_usd\":%.9g,\"dear_usd\":%.9g}", ledger_usd(cheap), ledger_usd(dear));
    verdicts_note(gateway->verdicts, &line);
    buf_release(&line);
}
