/* Replies of OpenAI-compatible providers into chat events, streamed or whole.
 *
 * A whole reply is read like a stream of one chunk whose deltas are called messages. What differs from engine
 * to engine, as seen on the wire:
 *  - the first chunk may have no choices (Azure), usage may come in the last chunk, beside choices, in every
 *    chunk, under x_groq, within a choice (Moonshot), or not at all; completion_tokens may lack the reasoning
 *    tokens that total_tokens has (xAI);
 *  - thoughts are `reasoning_content`, `reasoning`, or parts of a content that is an array (Mistral);
 *  - pieces of tool calls may lack index, id or type, repeat id and name, or give every call index 0: a new
 *    id with a name is a new call;
 *  - finish_reason says "stop" in spite of tool calls;
 *  - an error may be a chunk, a member of a chunk that has choices, or of a choice.
 * A stream is whole when every choice has its finish_reason; [DONE] may miss. Without that it was cut, [DONE]
 * or not. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/id.h"
#include "chat/openai_frame_int.h"
#include "chat/openai_int.h"

#define CHUNK_ARENA_BYTES_MAX ((size_t)8 * CHAT_SSE_EVENT_BYTES_MAX)
#define WHOLE_ARENA_BYTES_MAX ((size_t)4 * CHAT_REPLY_BYTES_MAX)

struct call_state {
    int64_t index;  /* the provider's */
    const char *id; /* NULL: not said yet */
    bool told;      /* its name is out; before, arguments wait */
    struct buf waiting;
};

struct choice_state {
    bool begun, finished;
    struct call_state *calls; /* [CHAT_TOOL_CALLS_MAX]; NULL: none yet */
    size_t call_count;
};

struct chat_reader {
    struct arena *arena;
    struct chat_reader_params params;
    struct chat_sse sse;
    struct buf body;      /* whole replies */
    struct arena scratch; /* one chunk's document */
    struct openai_frame frame;
    size_t frame_choice;
    size_t emitted;        /* events of the chunk in work, and of them ... */
    struct chat_text text; /* ... the last text that came without log-probabilities; NULL: none; and whose */
    size_t text_choice;
    struct choice_state *choices;
    size_t choice_count, unfinished;
    bool done;   /* [DONE] came */
    bool ending; /* what is read now is what was left at the end */
    struct chat_event usage;
    bool has_usage, usage_is_news;
    struct chat_fault *fault;
    enum ph_status status; /* of the chunk in work */
};

static void reader_release(void *ud)
{
    struct chat_reader *r = ud;
    chat_sse_release(&r->sse);
    openai_frame_release(&r->frame);
    buf_release(&r->body);
    for (size_t i = 0; i < r->choice_count; i++)
        for (size_t c = 0; c < r->choices[i].call_count; c++)
            buf_release(&r->choices[i].calls[c].waiting);
    arena_release(&r->scratch);
}

struct chat_reader *openai_reader_new(struct arena *arena, const struct chat_reader_params *params)
{
    size_t count = chat_choice_count(params->request);
    struct chat_reader *r = arena_calloc(arena, 1, sizeof *r);
    struct choice_state *choices = arena_calloc(arena, count, sizeof *choices);
    if (!r || !choices)
        return NULL;
    *r = (struct chat_reader){
        .arena = arena, .params = *params, .choices = choices, .choice_count = count, .unfinished = count};
    chat_sse_init(&r->sse, CHAT_SSE_EVENT_BYTES_MAX);
    openai_frame_init(&r->frame);
    buf_init(&r->body, CHAT_REPLY_BYTES_MAX);
    arena_init_pooled(&r->scratch, params->is_stream ? CHUNK_ARENA_BYTES_MAX : WHOLE_ARENA_BYTES_MAX,
                      arena->pool);
    return arena_on_release(arena, reader_release, r) == 0 ? r : NULL;
}

/* ---- Emitting and failing */

static void emit(struct chat_reader *r, struct chat_event event)
{
    r->emitted++;
    r->params.event(r->params.ud, &event);
}

static void fail_memory(struct chat_reader *r)
{
    r->status = upstream_broken(r->fault, CHAT_CAUSE_SERVER, "the provider's reply needs too much memory");
}

static void fail(struct chat_reader *r, const char *what)
{
    r->status = upstream_broken(r->fault, CHAT_CAUSE_SERVER, what);
}

/* An error object with status 200, or in mid-stream. */
static bool read_error(struct chat_reader *r, const struct json *value)
{
    struct upstream_error error;
    if (!upstream_error_read(&r->scratch, value, &error))
        return false;
    upstream_fault(r->arena, 200, &error, r->fault);
    r->status = PH_ERR_FORMAT;
    return true;
}

/* ---- Usage */

static uint64_t count_of(const struct json *object, const char *name)
{
    int64_t value = 0;
    return json_to_int64(json_get(object, name), &value) && value > 0 ? (uint64_t)value : 0;
}

static uint64_t first_count(const struct json *a, const char *a_name, const struct json *b,
                            const char *b_name)
{
    uint64_t count = count_of(a, a_name);
    return count ? count : count_of(b, b_name);
}

static bool same_usage(const struct chat_event *a, const struct chat_event *b)
{
    return a->usage.prompt_tokens == b->usage.prompt_tokens &&
           a->usage.cached_tokens == b->usage.cached_tokens &&
           a->usage.cache_write_tokens == b->usage.cache_write_tokens &&
           a->usage.completion_tokens == b->usage.completion_tokens &&
           a->usage.reasoning_tokens == b->usage.reasoning_tokens;
}

static void read_usage(struct chat_reader *r, const struct json *usage)
{
    if (!json_is(usage, JSON_OBJECT))
        return;
    const struct json *input = json_get(usage, "prompt_tokens_details");
    const struct json *output = json_get(usage, "completion_tokens_details");
    struct chat_event now = {.kind = CHAT_EVENT_USAGE};
    now.usage.prompt_tokens = count_of(usage, "prompt_tokens");
    now.usage.completion_tokens = count_of(usage, "completion_tokens");
    now.usage.reasoning_tokens = count_of(output, "reasoning_tokens");
    now.usage.cached_tokens = first_count(input, "cached_tokens", usage, "prompt_cache_hit_tokens");
    if (!now.usage.cached_tokens)
        now.usage.cached_tokens = count_of(usage, "cached_tokens");
    now.usage.cache_write_tokens =
        first_count(input, "cache_write_tokens", usage, "cache_creation_input_tokens");
    uint64_t said = now.usage.prompt_tokens + now.usage.completion_tokens;
    if (now.usage.reasoning_tokens && count_of(usage, "total_tokens") == said + now.usage.reasoning_tokens)
        now.usage.completion_tokens += now.usage.reasoning_tokens;
    r->usage_is_news = !r->has_usage || !same_usage(&now, &r->usage);
    r->usage = now;
    r->has_usage = true;
}

/* ---- Tool calls */

static const char *new_call_id(struct chat_reader *r)
{
    struct rng rng;
    uint64_t seed = 0;
    char id[ID_TEXT_MAX];
    if (entropy_fill(&seed, sizeof seed) != 0)
        seed = (uint64_t)(uintptr_t)r;
    rng_init(&rng, seed);
    id_make(&rng, "call-", id);
    return arena_strdup(r->arena, id);
}

static struct call_state *add_call(struct chat_reader *r, struct choice_state *c, int64_t index)
{
    if (!c->calls)
        c->calls = arena_calloc(r->arena, CHAT_TOOL_CALLS_MAX, sizeof *c->calls);
    if (!c->calls) {
        fail_memory(r);
        return NULL;
    }
    if (c->call_count == CHAT_TOOL_CALLS_MAX) {
        fail(r, "the provider's reply calls too many tools at once");
        return NULL;
    }
    struct call_state *call = &c->calls[c->call_count++];
    *call = (struct call_state){.index = index};
    buf_init(&call->waiting, CHAT_REPLY_BYTES_MAX);
    return call;
}

/* The call that a piece belongs to. `id` and `name` are NULL where the piece has none. */
static struct call_state *find_call(struct chat_reader *r, struct choice_state *c, const struct json *piece,
                                    const char *id, const char *name)
{
    int64_t index = -1;
    struct call_state *found = NULL;
    bool indexed = json_to_int64(json_get(piece, "index"), &index);
    for (size_t i = 0; i < c->call_count; i++) {
        struct call_state *call = &c->calls[i];
        if (indexed ? call->index == index : (!id || (call->id && strcmp(call->id, id) == 0)))
            found = call;
    }
    bool other_id = found && id && found->id && strcmp(found->id, id) != 0;
    bool again = found && !indexed && !id && name && found->told;
    if (!found || (other_id && name) || again)
        return add_call(r, c, indexed ? index : (int64_t)c->call_count);
    return found;
}

/* A text, or the JSON of what some engines send in its place. */
static struct chat_text arguments_of(struct chat_reader *r, const struct json *value)
{
    if (json_is(value, JSON_STRING))
        return (struct chat_text){value->u.str.text, value->u.str.len};
    if (json_is_absent(value))
        return (struct chat_text){"", 0};
    struct buf text;
    buf_init(&text, CHAT_REPLY_BYTES_MAX);
    json_write(&text, value);
    const char *copy = buf_status(&text) == PH_OK ? arena_strndup(&r->scratch, text.data, text.len) : NULL;
    struct chat_text out = {copy, copy ? text.len : 0};
    buf_release(&text);
    if (!copy)
        fail_memory(r);
    return out;
}

static void read_call(struct chat_reader *r, size_t choice, const struct json *piece)
{
    struct choice_state *c = &r->choices[choice];
    bool custom = !json_is_absent(json_get(piece, "custom"));
    const struct json *inside = json_get(piece, custom ? "custom" : "function");
    const char *id = json_text(json_get(piece, "id"), ""), *name = json_text(json_get(inside, "name"), "");
    struct call_state *call = find_call(r, c, piece, *id ? id : NULL, *name ? name : NULL);
    struct chat_text arguments = arguments_of(r, json_get(inside, custom ? "input" : "arguments"));
    if (!call || r->status != PH_OK)
        return;
    if (!call->id && *id)
        call->id = arena_strdup(r->arena, id);
    if (!call->told && !*name) {
        buf_append(&call->waiting, arguments.text, arguments.len);
        return;
    }
    struct chat_event event = {.kind = CHAT_EVENT_TOOL_CALL, .choice = choice};
    event.tool_call.index = (size_t)(call - c->calls);
    event.tool_call.custom = custom;
    event.tool_call.arguments = arguments;
    if (!call->told) {
        if (!call->id)
            call->id = new_call_id(r);
        event.tool_call.id = call->id;
        event.tool_call.name = name;
        buf_append(&call->waiting, arguments.text, arguments.len);
        event.tool_call.arguments = (struct chat_text){call->waiting.data, call->waiting.len};
        if (buf_status(&call->waiting) != PH_OK || !call->id) {
            fail_memory(r);
            return;
        }
    } else if (arguments.len == 0) {
        return;
    }
    emit(r, event);
    call->told = true;
    buf_release(&call->waiting);
}

static void read_calls(struct chat_reader *r, size_t choice, const struct json *delta)
{
    JSON_EACH (piece, json_get(delta, "tool_calls")) {
        if (r->status == PH_OK)
            read_call(r, choice, piece);
    }
    const struct json *old = json_get(delta, "function_call"); /* of before tool_calls */
    struct json *piece = json_is(old, JSON_OBJECT) ? json_new(&r->scratch, JSON_OBJECT) : NULL;
    if (piece && json_set(&r->scratch, piece, "index", json_new_int(&r->scratch, 0)) &&
        json_set(&r->scratch, piece, "function", json_share(&r->scratch, old)))
        read_call(r, choice, piece);
}

/* ---- Text and thoughts */

static void emit_text(struct chat_reader *r, enum chat_event_kind kind, size_t choice,
                      const struct json *text)
{
    if (!json_is(text, JSON_STRING) || text->u.str.len == 0)
        return;
    emit(r, (struct chat_event){.kind = kind, .choice = choice, .text = {text->u.str.text, text->u.str.len}});
}

/* [{"type":"text","text":..}, {"type":"thinking","thinking":[{"type":"text",..}]}] */
static void read_content_parts(struct chat_reader *r, size_t choice, const struct json *parts)
{
    JSON_EACH (part, parts) {
        const struct json *thinking = json_get(part, "thinking");
        emit_text(r, CHAT_EVENT_TEXT, choice, json_get(part, "text"));
        emit_text(r, CHAT_EVENT_REASONING, choice, thinking);
        if (json_is(thinking, JSON_ARRAY))
            JSON_EACH (thought, thinking)
                emit_text(r, CHAT_EVENT_REASONING, choice, json_get(thought, "text"));
    }
}

static void read_reasoning(struct chat_reader *r, size_t choice, const struct json *delta)
{
    static const char *const names[] = {"reasoning_content", "reasoning", "reasoning_text"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct json *text = json_get(delta, names[i]);
        if (*json_text(text, "")) {
            emit_text(r, CHAT_EVENT_REASONING, choice, text);
            return;
        }
    }
}

static void read_content(struct chat_reader *r, size_t choice, const struct json *value,
                         const struct json *delta)
{
    struct chat_event event;
    const struct json *content = delta ? json_get(delta, "content") : json_get(value, "text");
    if (!openai_read_logprobs(&r->scratch, json_get(value, "logprobs"), &event)) {
        fail_memory(r);
        return;
    }
    if (json_is(content, JSON_ARRAY))
        read_content_parts(r, choice, content);
    event.kind = CHAT_EVENT_TEXT;
    event.choice = choice;
    event.tokens = event.logprob_count;
    event.text = json_is(content, JSON_STRING) ? (struct chat_text){content->u.str.text, content->u.str.len}
                                               : (struct chat_text){"", 0};
    if (event.text.len || event.logprob_count)
        emit(r, event);
    if (event.text.len && !event.logprob_count) {
        r->text = event.text;
        r->text_choice = choice;
    }
    emit_text(r, CHAT_EVENT_TEXT, choice, json_get(delta, "refusal"));
}

/* ---- Ends */

/* What engines say beside OpenAI's words. NONE: the reply failed. */
static enum chat_finish finish_of(const char *reason)
{
    static const struct {
        const char *name;
        enum chat_finish finish;
    } rows[] = {{"stop", CHAT_FINISH_STOP},
                {"length", CHAT_FINISH_LENGTH},
                {"max_tokens", CHAT_FINISH_LENGTH},
                {"model_length", CHAT_FINISH_LENGTH},
                {"tool_calls", CHAT_FINISH_TOOL_CALLS},
                {"tool_use", CHAT_FINISH_TOOL_CALLS},
                {"function_call", CHAT_FINISH_TOOL_CALLS},
                {"content_filter", CHAT_FINISH_CONTENT_FILTER},
                {"sensitive", CHAT_FINISH_CONTENT_FILTER},
                {"error", CHAT_FINISH_NONE},
                {"abort", CHAT_FINISH_NONE},
                {"network_error", CHAT_FINISH_NONE},
                {"insufficient_system_resource", CHAT_FINISH_NONE}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(reason, rows[i].name) == 0)
            return rows[i].finish;
    return CHAT_FINISH_STOP; /* "eos", "end_turn", ... */
}

static uint64_t nanoseconds(const struct json *timings, const char *name)
{
    double ms;
    return json_to_double(json_get(timings, name), &ms) && ms > 0 && ms < 1e12 ? (uint64_t)(ms * 1e6) : 0;
}

static void read_finish(struct chat_reader *r, size_t choice, const struct json *value,
                        const struct json *chunk)
{
    struct choice_state *c = &r->choices[choice];
    const char *reason = json_text(json_get(value, "finish_reason"), "");
    const struct json *stop = json_get(value, "stop_reason"); /* vLLM */
    struct chat_event event = {.kind = CHAT_EVENT_FINISH, .choice = choice};
    if (!*reason && r->params.is_stream)
        return;
    event.finish = *reason ? finish_of(reason) : CHAT_FINISH_STOP;
    if (event.finish == CHAT_FINISH_NONE) {
        fail(r, "the provider gave up in the middle of its reply");
        return;
    }
    if (event.finish == CHAT_FINISH_STOP && c->call_count)
        event.finish = CHAT_FINISH_TOOL_CALLS;
    event.stop_text = json_text(stop, NULL);
    event.timing.prefill_ns = nanoseconds(json_get(chunk, "timings"), "prompt_ms"); /* llama.cpp */
    event.timing.decode_ns = nanoseconds(json_get(chunk, "timings"), "predicted_ms");
    c->finished = true;
    r->unfinished--;
    emit(r, event);
    r->usage_is_news = r->usage_is_news || r->has_usage; /* it is final now */
}

/* ---- Chunks */

static void read_choice(struct chat_reader *r, const struct json *value, size_t position,
                        const struct json *chunk)
{
    int64_t index = (int64_t)position;
    (void)json_to_int64(json_get(value, "index"), &index);
    if (index < 0 || (uint64_t)index >= r->choice_count) {
        fail(r, "the provider's reply has a choice that was not asked for");
        return;
    }
    struct choice_state *c = &r->choices[index];
    if (read_error(r, value) || c->finished)
        return;
    const struct json *delta = json_get(value, "delta");
    if (json_is_absent(delta))
        delta = json_get(value, "message");
    if (!c->begun)
        emit(r, (struct chat_event){.kind = CHAT_EVENT_ROLE, .choice = (size_t)index});
    c->begun = true;
    read_reasoning(r, (size_t)index, delta);
    read_content(r, (size_t)index, value, json_is(delta, JSON_OBJECT) ? delta : NULL);
    read_calls(r, (size_t)index, delta);
    if (r->status == PH_OK)
        read_finish(r, (size_t)index, value, chunk);
}

static void read_chunk(struct chat_reader *r, const struct json *chunk)
{
    size_t position = 0;
    if (read_error(r, chunk))
        return;
    read_usage(r, json_get(chunk, "usage"));
    read_usage(r, json_get(json_get(chunk, "x_groq"), "usage"));
    JSON_EACH (choice, json_get(chunk, "choices")) {
        if (r->status != PH_OK)
            return;
        read_usage(r, json_get(choice, "usage"));
        read_choice(r, choice, position++, chunk);
    }
    if (r->status == PH_OK && r->has_usage && r->usage_is_news)
        emit(r, r->usage);
    r->usage_is_news = false;
}

/* At the end, half a document is a reply that was cut; behind a stream's last word it does not matter. */
static void fail_document(struct chat_reader *r, const char *text)
{
    if (r->ending && r->params.is_stream && !r->unfinished)
        return;
    if (r->ending && (!*text || *text == '{' || *text == '['))
        r->status = upstream_broken(r->fault, CHAT_CAUSE_CUT, "the provider's reply was cut in the middle");
    else
        fail(r, r->params.is_stream ? "the provider sent an event that is not JSON"
                                    : "the provider's reply is not JSON");
}

static void read_document(struct chat_reader *r, const char *text, size_t len)
{
    struct json *document;
    r->emitted = 0;
    r->text = (struct chat_text){0};
    enum ph_status status = json_parse(&r->scratch, text, len, &document, NULL);
    if (status == PH_ERR_NOMEM)
        fail_memory(r);
    else if (status != PH_OK)
        fail_document(r, text);
    else if (!json_is(document, JSON_OBJECT) && !json_is(document, JSON_ARRAY))
        fail(r, "the provider's reply is not an object");
    else
        read_chunk(r, document);
    if (r->params.is_stream && r->status == PH_OK && r->emitted == 1 && r->text.text) {
        openai_frame_learn(&r->frame, text, len, r->text);
        r->frame_choice = r->text_choice;
    }
    arena_clear(&r->scratch);
}

/* A chunk like the last one but for its text. */
static bool read_known(struct chat_reader *r, const char *text, size_t len)
{
    struct chat_text content;
    if (!openai_frame_match(&r->frame, text, len, &content) || r->choices[r->frame_choice].finished)
        return false;
    if (content.len)
        emit(r, (struct chat_event){.kind = CHAT_EVENT_TEXT, .choice = r->frame_choice, .text = content});
    return true;
}

static bool on_sse(void *ud, const char *name, const char *data, size_t len)
{
    struct chat_reader *r = ud;
    if (r->done || len == 0)
        return true;
    if (strcmp(data, "[DONE]") == 0) {
        r->done = true;
        return true;
    }
    if (strcmp(name, "error") == 0) {
        upstream_fault_of_body(r->arena, 200, data, len, r->fault);
        r->status = PH_ERR_FORMAT;
    } else if (!read_known(r, data, len)) {
        read_document(r, data, len);
    }
    return r->status == PH_OK;
}

/* ---- The door */

enum ph_status openai_reader_feed(struct chat_reader *r, const char *bytes, size_t len,
                                  struct chat_fault *fault)
{
    r->fault = fault;
    if (!r->params.is_stream) {
        buf_append(&r->body, bytes, len);
        if (buf_status(&r->body) != PH_OK)
            fail(r, "the provider's reply is too long");
        return r->status;
    }
    enum ph_status status = chat_sse_feed(&r->sse, bytes, len, on_sse, r);
    if (status != PH_OK && r->status == PH_OK)
        fail(r, "the provider sent an event that is too long");
    return r->status;
}

enum ph_status openai_reader_end(struct chat_reader *r, struct chat_fault *fault)
{
    r->fault = fault;
    r->ending = true;
    if (r->params.is_stream)
        (void)openai_reader_feed(r, "\n\n", 2, fault); /* a last event may lack its empty line */
    else
        read_document(r, r->body.len ? r->body.data : "", r->body.len);
    if (r->status == PH_OK && r->unfinished)
        r->status =
            upstream_broken(fault, CHAT_CAUSE_CUT, "the provider's reply ended before its end was said");
    return r->status;
}
