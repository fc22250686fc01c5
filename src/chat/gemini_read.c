/* Gemini's replies into chat events.
 *
 * A whole reply and an event of a stream are the same object: candidates with the next parts of their
 * content, the reason why one ended, and the sums so far. A stream has no mark for its end: it was whole when
 * every candidate has told its reason. FINISH waits until the body has ended, because parts may come behind
 * the reason.
 *
 * Each object is read into a scratch arena that is cleared behind it, so that a long stream takes no more
 * memory than its longest event.
 *
 * A reason that is neither an end nor a filter (a call that cannot be read, "OTHER") is a failure: another
 * attempt, or another provider, may do better, and the client must not take it for an answer. */
#include <stdio.h>
#include <string.h>

#include "chat/gemini_int.h"

#define SCRATCH_BYTES_MAX (CHAT_REPLY_BYTES_MAX * 4) /* a document is larger than its text */

struct candidate {
    bool begun;
    enum chat_finish finish; /* NONE: not told yet */
    size_t call_count;
};

struct chat_reader {
    struct arena *arena; /* the request's */
    struct chat_reader_params params;
    struct chat_sse sse;
    struct buf body;      /* not a stream */
    struct arena scratch; /* one object's */
    struct candidate *candidates;
    size_t candidate_count;
    struct chat_event usage;
    bool has_usage;
    bool ending;               /* the body has ended: what cannot be read was cut */
    enum ph_status status;     /* of the object being read, for the SSE callback */
    struct chat_fault *fault;  /* the caller's, during a call */
    const struct json *object; /* being read */
};

static void reader_release(void *ud)
{
    struct chat_reader *r = ud;
    chat_sse_release(&r->sse);
    buf_release(&r->body);
    arena_release(&r->scratch);
}

static struct chat_reader *gemini_reader_new(struct arena *arena, const struct chat_reader_params *params)
{
    struct chat_reader *r = arena_calloc(arena, 1, sizeof *r);
    size_t count = chat_choice_count(params->request);
    struct candidate *candidates = arena_calloc(arena, count, sizeof *candidates);
    if (!r || !candidates)
        return NULL;
    *r = (struct chat_reader){
        .arena = arena, .params = *params, .candidates = candidates, .candidate_count = count};
    chat_sse_init(&r->sse, CHAT_SSE_EVENT_BYTES_MAX);
    buf_init(&r->body, CHAT_REPLY_BYTES_MAX);
    arena_init_pooled(&r->scratch, SCRATCH_BYTES_MAX, arena->pool);
    if (arena_on_release(arena, reader_release, r) != 0) {
        reader_release(r);
        return NULL;
    }
    return r;
}

/* ---- Failures */

static enum ph_status fail(struct chat_reader *r, enum chat_cause cause, const char *message)
{
    return upstream_broken(r->fault, cause, message);
}

static enum ph_status fail_memory(struct chat_reader *r)
{
    chat_fault_set(r->fault, 503, NULL, NULL, "a reply of Gemini's needs more memory than one may take");
    return PH_ERR_NOMEM;
}

static enum ph_status fail_blocked(struct chat_reader *r, const struct json *feedback)
{
    const char *words = json_text(json_get(feedback, "blockReasonMessage"), "");
    chat_fault_set(r->fault, 400, "content_filter", NULL, "Gemini refused the prompt: %.60s%s%.300s",
                   json_text(json_get(feedback, "blockReason"), ""), *words ? ": " : "", words);
    chat_scrub(r->fault->message);
    r->fault->cause = CHAT_CAUSE_REFUSED;
    return PH_ERR_ARG;
}

/* ---- Events */

static void emit(struct chat_reader *r, struct chat_event event)
{
    struct candidate *candidate = &r->candidates[event.choice];
    if (!candidate->begun) {
        const struct chat_event role = {.kind = CHAT_EVENT_ROLE, .choice = event.choice};
        candidate->begun = true;
        r->params.event(r->params.ud, &role);
    }
    r->params.event(r->params.ud, &event);
}

static bool take_token(const struct json *value, struct chat_token_logprob *out)
{
    const struct json *token = json_get(value, "token");
    int64_t id = 0;
    double logprob = 0; /* left out when it is 0, as their format does with zeros */
    (void)json_to_int64(json_get(value, "tokenId"), &id);
    (void)json_to_double(json_get(value, "logProbability"), &logprob);
    if (!json_is(token, JSON_STRING))
        return false;
    *out = (struct chat_token_logprob){
        id > 0 && id <= INT32_MAX ? (int32_t)id : 0, {token->u.str.text, token->u.str.len}, logprob};
    return true;
}

/* The longest row of alternatives; shorter ones end with a text that is NULL. */
static size_t top_count_of(const struct json *top, size_t tokens)
{
    size_t count = 0;
    JSON_EACH (item, top) {
        size_t here = json_count(json_get(item, "candidates"));
        count = here > count ? here : count;
    }
    if (json_count(top) != tokens)
        return 0;
    return count < ENGINE_LOGPROBS_MAX ? count : ENGINE_LOGPROBS_MAX;
}

static void add_logprobs(struct chat_reader *r, const struct json *candidate, struct chat_event *event)
{
    const struct json *result = json_get(candidate, "logprobsResult");
    const struct json *chosen = json_get(result, "chosenCandidates"),
                      *top = json_get(result, "topCandidates");
    size_t tokens = json_count(chosen), top_count = top_count_of(top, tokens);
    struct chat_token_logprob *list = arena_calloc(&r->scratch, tokens * (1 + top_count), sizeof *list);
    if (!tokens || !list || !r->params.request->logprobs)
        return;
    size_t at = 0;
    JSON_EACH (value, chosen) {
        if (!take_token(value, &list[at++]))
            return;
    }
    for (const struct json *row = json_first(top); row && top_count; row = row->next, at += top_count) {
        const struct json *value = json_first(json_get(row, "candidates"));
        for (size_t i = 0; i < top_count && value && take_token(value, &list[at + i]); i++)
            value = value->next;
    }
    event->logprobs = list;
    event->logprob_count = tokens;
    event->top = top_count ? list + tokens : NULL;
    event->top_count = top_count;
}

/* ---- Calls */

static void mix(uint64_t *hash, const char *text)
{
    for (; *text; text++)
        *hash = (*hash ^ (unsigned char)*text) * 0x100000001B3u; /* FNV-1a */
    *hash = (*hash ^ 0xFF) * 0x100000001B3u;
}

/* An id for a call without one: the same for the same reply, another one in every turn. */
static void make_id(const struct chat_reader *r, size_t choice, size_t index, const char *name,
                    const char *arguments, char out[32])
{
    uint64_t hash = 0xCBF29CE484222325u;
    char place[80];
    snprintf(place, sizeof place, "%zu %zu %zu", r->params.request->message_count, choice, index);
    mix(&hash, json_text(json_get(r->object, "responseId"), ""));
    mix(&hash, place);
    mix(&hash, name);
    mix(&hash, arguments);
    snprintf(out, 32, "call_%016llx", (unsigned long long)hash);
}

static enum ph_status take_call(struct chat_reader *r, size_t choice, const struct json *part)
{
    const struct json *call = json_get(part, "functionCall"), *arguments = json_get(call, "args");
    const char *name = json_text(json_get(call, "name"), NULL);
    struct gemini_seal seal = {json_text(json_get(call, "id"), NULL),
                               json_text(json_get(part, "thoughtSignature"), NULL)};
    struct chat_event event = {.kind = CHAT_EVENT_TOOL_CALL, .choice = choice};
    struct buf text;
    char made[32];
    if (!name)
        return fail(r, CHAT_CAUSE_SERVER, "Gemini sent a function call without a name");
    buf_init(&text, CHAT_REPLY_BYTES_MAX);
    if (json_is(arguments, JSON_OBJECT))
        json_write(&text, arguments);
    else
        buf_puts(&text, "{}");
    if (buf_status(&text) == PH_OK) {
        event.tool_call.index = r->candidates[choice].call_count++;
        make_id(r, choice, event.tool_call.index, name, text.data, made);
        event.tool_call.id = gemini_seal(&r->scratch, made, &seal);
        event.tool_call.name = name;
        event.tool_call.arguments = (struct chat_text){text.data, text.len};
    }
    if (event.tool_call.id)
        emit(r, event);
    buf_release(&text);
    return event.tool_call.id ? PH_OK : fail_memory(r);
}

/* ---- Candidates */

static enum ph_status take_finish(struct chat_reader *r, struct candidate *candidate,
                                  const struct json *value)
{
    static const struct {
        const char *reason;
        enum chat_finish finish;
    } reasons[] = {
        {"STOP", CHAT_FINISH_STOP},
        {"MAX_TOKENS", CHAT_FINISH_LENGTH},
        {"SAFETY", CHAT_FINISH_CONTENT_FILTER},
        {"RECITATION", CHAT_FINISH_CONTENT_FILTER},
        {"BLOCKLIST", CHAT_FINISH_CONTENT_FILTER},
        {"PROHIBITED_CONTENT", CHAT_FINISH_CONTENT_FILTER},
        {"SPII", CHAT_FINISH_CONTENT_FILTER},
        {"LANGUAGE", CHAT_FINISH_CONTENT_FILTER},
        {"MODEL_ARMOR", CHAT_FINISH_CONTENT_FILTER},
        {"IMAGE_SAFETY", CHAT_FINISH_CONTENT_FILTER},
        {"IMAGE_PROHIBITED_CONTENT", CHAT_FINISH_CONTENT_FILTER},
        {"IMAGE_RECITATION", CHAT_FINISH_CONTENT_FILTER},
    };
    const struct json *reason = json_get(value, "finishReason");
    if (json_is_absent(reason) || json_text_is(reason, "FINISH_REASON_UNSPECIFIED"))
        return PH_OK;
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
        if (json_text_is(reason, reasons[i].reason)) {
            candidate->finish = reasons[i].finish;
            return PH_OK;
        }
    char message[400];
    snprintf(message, sizeof message, "Gemini ended its answer with %.60s. %.300s", json_text(reason, "?"),
             json_text(json_get(value, "finishMessage"), ""));
    chat_scrub(message);
    return fail(r, CHAT_CAUSE_SERVER, message);
}

static enum ph_status take_part(struct chat_reader *r, size_t choice, const struct json *part,
                                struct chat_event *logprobs)
{
    const struct json *text = json_get(part, "text");
    if (json_is(json_get(part, "functionCall"), JSON_OBJECT))
        return take_call(r, choice, part);
    if (!json_is(text, JSON_STRING) || text->u.str.len == 0)
        return PH_OK; /* an empty one carries a signature at most; other kinds were not asked for */
    struct chat_event event = {.kind = CHAT_EVENT_REASONING};
    if (!json_is(json_get(part, "thought"), JSON_TRUE)) {
        event = *logprobs; /* they belong to all of the text, so they come with its first part */
        *logprobs = (struct chat_event){0};
        event.kind = CHAT_EVENT_TEXT;
    }
    event.choice = choice;
    event.text = (struct chat_text){text->u.str.text, text->u.str.len};
    emit(r, event);
    return PH_OK;
}

static enum ph_status take_candidate(struct chat_reader *r, const struct json *value)
{
    int64_t choice = 0;
    (void)json_to_int64(json_get(value, "index"), &choice); /* left out when it is 0 */
    if (choice < 0 || (uint64_t)choice >= r->candidate_count)
        return fail(r, CHAT_CAUSE_SERVER, "Gemini sent more candidates than were asked for");
    struct chat_event logprobs = {0};
    add_logprobs(r, value, &logprobs);
    enum ph_status status = PH_OK;
    JSON_EACH (part, json_get(json_get(value, "content"), "parts")) {
        if (status == PH_OK)
            status = take_part(r, (size_t)choice, part, &logprobs);
    }
    return status == PH_OK ? take_finish(r, &r->candidates[choice], value) : status;
}

/* ---- Sums */

static uint64_t count_of(const struct json *usage, const char *name)
{
    int64_t count;
    return json_to_int64(json_get(usage, name), &count) && count > 0 ? (uint64_t)count : 0;
}

/* The thoughts are beside the candidates' tokens there, among them here; so are tools' prompts. */
static void take_usage(struct chat_reader *r, const struct json *usage)
{
    struct chat_event event = {.kind = CHAT_EVENT_USAGE};
    if (!json_is(usage, JSON_OBJECT))
        return;
    event.usage.prompt_tokens =
        count_of(usage, "promptTokenCount") + count_of(usage, "toolUsePromptTokenCount");
    event.usage.cached_tokens = count_of(usage, "cachedContentTokenCount");
    event.usage.reasoning_tokens = count_of(usage, "thoughtsTokenCount");
    event.usage.completion_tokens = count_of(usage, "candidatesTokenCount") + event.usage.reasoning_tokens;
    bool changed = !r->has_usage || memcmp(&event.usage, &r->usage.usage, sizeof event.usage) != 0;
    r->usage = event;
    r->has_usage = true;
    if (changed && r->params.is_stream && r->candidates[0].begun)
        r->params.event(r->params.ud, &event);
}

/* ---- Objects */

static enum ph_status take_object(struct chat_reader *r, const struct json *object)
{
    const struct json *error = json_get(object, "error"), *feedback = json_get(object, "promptFeedback");
    enum ph_status status = PH_OK;
    r->object = object;
    if (!json_is(object, JSON_OBJECT))
        return fail(r, CHAT_CAUSE_SERVER, "Gemini sent something that is no object");
    if (json_is(error, JSON_OBJECT)) {
        gemini_error(r->arena, 0, object, r->fault);
        return PH_ERR_IO;
    }
    if (json_is(json_get(feedback, "blockReason"), JSON_STRING))
        return fail_blocked(r, feedback);
    JSON_EACH (candidate, json_get(object, "candidates")) {
        if (status == PH_OK)
            status = take_candidate(r, candidate);
    }
    if (status == PH_OK)
        take_usage(r, json_get(object, "usageMetadata"));
    return status;
}

static enum ph_status fail_unreadable(struct chat_reader *r, const char *text, const struct ph_err *err)
{
    char message[PH_ERR_MESSAGE_MAX];
    if (err->code == PH_ERR_NOMEM)
        return fail_memory(r);
    while (*text && (unsigned char)*text <= ' ')
        text++;
    bool cut = r->ending && (*text == 0 || *text == '{' || *text == '[');
    snprintf(message, sizeof message, "Gemini's reply %s: %.300s", cut ? "was cut" : "cannot be read",
             err->message);
    return fail(r, cut ? CHAT_CAUSE_CUT : CHAT_CAUSE_SERVER, message);
}

/* One object, or an array of them (a stream that was not asked for as events, an error). */
static enum ph_status take_json(struct chat_reader *r, const char *text, size_t len)
{
    struct json *json;
    struct ph_err err = {0};
    enum ph_status status = json_parse(&r->scratch, text, len, &json, &err);
    if (status != PH_OK) {
        status = fail_unreadable(r, text, &err);
    } else if (json_is(json, JSON_ARRAY)) {
        JSON_EACH (object, json) {
            if (status == PH_OK)
                status = take_object(r, object);
        }
    } else {
        status = take_object(r, json);
    }
    arena_clear(&r->scratch);
    return status;
}

static bool on_sse_event(void *ud, const char *name, const char *data, size_t len)
{
    struct chat_reader *r = ud;
    (void)name;
    if (strcmp(data, "[DONE]") != 0) /* Gemini has none; what stands before it may */
        r->status = take_json(r, data, len);
    return r->status == PH_OK;
}

static enum ph_status feed_sse(struct chat_reader *r, const char *bytes, size_t len)
{
    enum ph_status status = chat_sse_feed(&r->sse, bytes, len, on_sse_event, r);
    if (status == PH_ERR_CANCELLED)
        return r->status;
    if (status == PH_ERR_LIMIT)
        return fail(r, CHAT_CAUSE_SERVER, "Gemini sent an event that is too long");
    return status == PH_OK ? PH_OK : fail_memory(r);
}

static enum ph_status gemini_feed(struct chat_reader *r, const char *bytes, size_t len,
                                  struct chat_fault *fault)
{
    r->fault = fault;
    if (r->params.is_stream)
        return feed_sse(r, bytes, len);
    buf_append(&r->body, bytes, len);
    if (buf_status(&r->body) == PH_ERR_LIMIT)
        return fail(r, CHAT_CAUSE_SERVER, "Gemini sent a reply that is too long");
    return buf_status(&r->body) == PH_OK ? PH_OK : fail_memory(r);
}

/* ---- The end */

static void finish(struct chat_reader *r)
{
    for (size_t i = 0; i < r->candidate_count; i++) {
        struct candidate *candidate = &r->candidates[i];
        struct chat_event event = {.kind = CHAT_EVENT_FINISH, .choice = i, .finish = candidate->finish};
        if (event.finish == CHAT_FINISH_STOP && candidate->call_count)
            event.finish = CHAT_FINISH_TOOL_CALLS;
        emit(r, event);
    }
    if (r->has_usage)
        r->params.event(r->params.ud, &r->usage);
}

static enum ph_status gemini_end(struct chat_reader *r, struct chat_fault *fault)
{
    enum ph_status status;
    r->fault = fault;
    r->ending = true;
    if (r->params.is_stream)
        status = feed_sse(r, "\n\n", 2); /* an event whose empty line is missing */
    else
        status = take_json(r, r->body.len ? r->body.data : "", r->body.len);
    if (status != PH_OK)
        return status;
    for (size_t i = 0; i < r->candidate_count; i++)
        if (r->candidates[i].finish == CHAT_FINISH_NONE)
            return fail(r, CHAT_CAUSE_CUT, "Gemini's reply ended before its end was said");
    finish(r);
    return PH_OK;
}

const struct chat_codec chat_codec_gemini = {
    .name = "gemini",
    .encode = gemini_encode,
    .reader_new = gemini_reader_new,
    .feed = gemini_feed,
    .end = gemini_end,
    .fault = gemini_fault,
};
