/* Chat requests as bodies for providers that speak OpenAI's API.
 *
 * A request of the same dialect goes out as it came, member for member, so that what we do not know survives
 * and providers' prompt caches see the same bytes again. What is written over it is found by comparing: `was`
 * is what the body said when it was decoded, the request is what it shall say, and only where they differ a
 * member is replaced, added or taken out. A request of another dialect is the same with an empty body, which
 * says what a request says by default; then members that only some engines know are left out, as OpenAI
 * refuses them.
 *
 * What is the station's goes no further: metadata without `store` (OpenAI refuses it) and the name of a
 * conversation. Usage is always asked for in streams, because money is counted by it. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "chat/openai_int.h"

#define BODY_BYTES_USUAL 2000

struct writer {
    struct arena *arena;
    const struct chat_request *request, *was;
    const struct chat_target *target;
    struct json *body;
    bool same;   /* the body began as the client's */
    bool failed; /* out of memory */
};

static void put(struct writer *w, const char *name, struct json *value)
{
    if (!json_set(w->arena, w->body, name, value))
        w->failed = true;
}

static void put_text(struct writer *w, const char *name, const char *text)
{
    put(w, name, json_new_string(w->arena, text, strlen(text)));
}

static void put_bool(struct writer *w, const char *name, bool value)
{
    put(w, name, json_new(w->arena, value ? JSON_TRUE : JSON_FALSE));
}

static bool has(const struct writer *w, const char *name)
{
    return !json_is_absent(json_get(w->body, name));
}

/* ---- Scalars */

static const void *place_of(const struct chat_request *request, size_t offset)
{
    return (const char *)request + offset;
}

static bool is_given(const struct chat_request *request, const struct scalar *row)
{
    return !row->given_offset || *(const bool *)place_of(request, row->given_offset);
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool row_is_same(const struct writer *w, const struct scalar *row)
{
    const void *now = place_of(w->request, row->offset), *before = place_of(w->was, row->offset);
    if (is_given(w->request, row) != is_given(w->was, row))
        return false;
    if (!is_given(w->request, row))
        return true;
    switch (row->kind) {
    case SCALAR_BOOL:
        return *(const bool *)now == *(const bool *)before;
    case SCALAR_TEXT:
        return same_text(*(const char *const *)now, *(const char *const *)before);
    case SCALAR_DOUBLE:
        return *(const double *)now == *(const double *)before;
    case SCALAR_SIZE:
        return *(const size_t *)now == *(const size_t *)before;
    case SCALAR_INT:
    default:
        return *(const int64_t *)now == *(const int64_t *)before;
    }
}

/* NULL: nothing is to be said. */
static struct json *row_value(struct writer *w, const struct scalar *row)
{
    const void *now = place_of(w->request, row->offset);
    struct json *value = NULL;
    if (row->kind == SCALAR_TEXT && *(const char *const *)now == NULL)
        return NULL;
    if (row->kind == SCALAR_SIZE && !row->given_offset && *(const size_t *)now == 0)
        return NULL;
    switch (row->kind) {
    case SCALAR_BOOL:
        value = json_new(w->arena, *(const bool *)now ? JSON_TRUE : JSON_FALSE);
        break;
    case SCALAR_TEXT:
        value = json_new_string(w->arena, *(const char *const *)now, strlen(*(const char *const *)now));
        break;
    case SCALAR_DOUBLE:
        value = json_new_double(w->arena, *(const double *)now);
        break;
    case SCALAR_SIZE:
        value = json_new_int(w->arena, (int64_t) * (const size_t *)now);
        break;
    case SCALAR_INT:
        value = json_new_int(w->arena, *(const int64_t *)now);
        break;
    }
    w->failed = w->failed || !value;
    return value;
}

static void write_rows(struct writer *w, const struct openai_rows *rows)
{
    for (size_t i = 0; i < rows->count; i++) {
        const struct scalar *row = &rows->rows[i];
        if (row->writing == SCALAR_WRITTEN_APART || row_is_same(w, row))
            continue;
        if (row->writing == SCALAR_WRITTEN_IF_NAMED && !has(w, row->name))
            continue;
        struct json *value = is_given(w->request, row) ? row_value(w, row) : NULL;
        if (value)
            put(w, row->name, value);
        else
            json_remove(w->body, row->name);
    }
}

/* The limit has two names. The client's stays, unless the provider knows the new one only. */
static void write_limit(struct writer *w)
{
    bool chat = w->request->kind == CHAT_KIND_CHAT;
    bool new_name = chat && (w->target->max_completion || has(w, "max_completion_tokens"));
    const char *name = new_name ? "max_completion_tokens" : "max_tokens";
    const char *other = new_name ? "max_tokens" : "max_completion_tokens";
    if (w->request->max_tokens == w->was->max_tokens && !(w->target->max_completion && has(w, other)))
        return;
    if (chat)
        json_remove(w->body, other);
    if (w->request->max_tokens)
        put(w, name, json_new_int(w->arena, (int64_t)w->request->max_tokens));
    else
        json_remove(w->body, name);
}

/* ---- Structures */

static bool same_stops(const struct chat_request *a, const struct chat_request *b)
{
    bool same = a->stop_count == b->stop_count;
    for (size_t i = 0; i < a->stop_count && same; i++)
        same = a->stops[i].len == b->stops[i].len &&
               memcmp(a->stops[i].text, b->stops[i].text, a->stops[i].len) == 0;
    return same;
}

static void write_stops(struct writer *w)
{
    const struct chat_request *r = w->request;
    if (same_stops(r, w->was))
        return;
    json_remove(w->body, "stop");
    struct json *list = json_new(w->arena, JSON_ARRAY);
    for (size_t i = 0; i < r->stop_count; i++)
        if (!json_push(list, openai_text(w->arena, r->stops[i])))
            w->failed = true;
    if (r->stop_count)
        put(w, "stop", list);
}

static bool same_bias(const struct chat_sampling *a, const struct chat_sampling *b)
{
    bool same = a->logit_bias_count == b->logit_bias_count;
    for (size_t i = 0; i < a->logit_bias_count && same; i++)
        same = a->logit_bias[i].id == b->logit_bias[i].id && a->logit_bias[i].bias == b->logit_bias[i].bias;
    return same;
}

static void write_bias(struct writer *w)
{
    const struct chat_sampling *s = &w->request->sampling;
    if (same_bias(s, &w->was->sampling))
        return;
    json_remove(w->body, "logit_bias");
    struct json *object = json_new(w->arena, JSON_OBJECT);
    for (size_t i = 0; i < s->logit_bias_count; i++) {
        char name[16];
        double bias = isinf(s->logit_bias[i].bias) ? -100 : (double)s->logit_bias[i].bias;
        snprintf(name, sizeof name, "%d", (int)s->logit_bias[i].id);
        if (!json_set(w->arena, object, name, json_new_double(w->arena, bias)))
            w->failed = true;
    }
    if (s->logit_bias_count)
        put(w, "logit_bias", object);
}

/* What the request keeps as JSON is the body's own when nobody changed it. */
static void write_kept(struct writer *w, const char *name, const struct json *now, const struct json *before)
{
    if (now == before)
        return;
    if (now)
        put(w, name, json_share(w->arena, now));
    else
        json_remove(w->body, name);
}

/* Tools that another dialect's provider has itself: nobody would run them here. */
static enum ph_status check_tools(const struct chat_request *request, struct chat_fault *fault)
{
    JSON_EACH (tool, request->tools) {
        const char *type = json_text(json_get(tool, "type"), "function");
        if (strcmp(type, "function") == 0 || strcmp(type, "custom") == 0)
            continue;
        chat_fault_set(fault, 400, "unsupported", "tools",
                       "the tool \"%.40s\" is not known to a provider that speaks OpenAI's API", type);
        fault->cause = CHAT_CAUSE_UNABLE;
        return PH_ERR_UNSUPPORTED;
    }
    return PH_OK;
}

static void write_tools(struct writer *w)
{
    const struct chat_request *r = w->request;
    write_kept(w, "tools", r->tools, w->was->tools);
    if (r->tools || w->same) /* a choice without tools is refused */
        write_kept(w, "tool_choice", r->tool_choice, w->was->tool_choice);
    if (r->single_tool_call == w->was->single_tool_call)
        return;
    json_remove(w->body, "parallel_tool_calls");
    if (r->single_tool_call && r->tools)
        put_bool(w, "parallel_tool_calls", false);
}

static void write_stream(struct writer *w)
{
    const struct json *came = json_get(w->body, "stream_options");
    struct json *options =
        json_is(came, JSON_OBJECT) ? json_share(w->arena, came) : json_new(w->arena, JSON_OBJECT);
    json_remove(w->body, "stream_options");
    if (w->request->stream || has(w, "stream"))
        put_bool(w, "stream", w->request->stream);
    if (!w->request->stream || w->target->no_stream_usage)
        return;
    if (!json_set(w->arena, options, "include_usage", json_new(w->arena, JSON_TRUE)))
        w->failed = true;
    put(w, "stream_options", options);
}

static void write_metadata(struct writer *w)
{
    const struct json *came = json_get(w->body, "metadata");
    bool stored = json_is(json_get(w->body, "store"), JSON_TRUE);
    if (!came)
        return;
    struct json *metadata = json_share(w->arena, came);
    json_remove(w->body, "metadata");
    JSON_EACH (member, came) {
        if (metadata && json_is(metadata, JSON_OBJECT) && chat_metadata_is_ours(member->key))
            json_remove(metadata, member->key);
    }
    if (stored && json_count(metadata))
        put(w, "metadata", metadata);
}

/* vLLM's words for it; llama.cpp goes on from a last message of the assistant anyway. */
static void write_continue(struct writer *w)
{
    bool now = w->request->continue_final_message;
    if (now) {
        put_bool(w, "continue_final_message", true);
        put_bool(w, "add_generation_prompt", false);
    } else if (w->was->continue_final_message) {
        json_remove(w->body, "continue_final_message");
        json_remove(w->body, "add_generation_prompt");
    }
}

static enum ph_status write_messages(struct writer *w, struct chat_fault *fault)
{
    struct json *list = NULL;
    if (w->same && !w->request->messages_changed && openai_ids_fit(w->request))
        return PH_OK;
    bool chat = w->request->kind == CHAT_KIND_CHAT;
    enum ph_status status =
        chat ? openai_messages(w->arena, w->request, &list, fault)
             : openai_prompt_list(w->arena, w->request->prompts, w->request->prompt_count, &list);
    if (status == PH_OK)
        put(w, chat ? "messages" : "prompt", list);
    return status;
}

/* ---- The post */

static enum ph_status no_memory(struct chat_fault *fault)
{
    chat_fault_set(fault, 503, NULL, NULL,
                   "the request for the provider needs more memory than one may take");
    return PH_ERR_NOMEM;
}

static enum ph_status write_body(struct writer *w, struct chat_fault *fault)
{
    const struct chat_request *r = w->request;
    put_text(w, "model", w->target->model);
    enum ph_status status = write_messages(w, fault);
    if (status == PH_OK && !w->same)
        status = check_tools(r, fault);
    if (status != PH_OK)
        return status;
    write_rows(w, &openai_shared_rows);
    write_rows(w, &openai_kind_rows[r->kind]);
    write_limit(w);
    write_stops(w);
    write_bias(w);
    write_tools(w);
    write_kept(w, "response_format", r->response_format, w->was->response_format);
    if (w->same)
        write_kept(w, "chat_template_kwargs", r->template_vars, w->was->template_vars);
    if (r->suffix.text && r->suffix.text != w->was->suffix.text)
        put(w, "suffix", openai_text(w->arena, r->suffix));
    write_continue(w);
    write_stream(w);
    write_metadata(w);
    return PH_OK;
}

static void free_text(void *ud)
{
    mem_free(ud);
}

static char *join(struct arena *arena, const char *a, const char *b)
{
    size_t a_len = strlen(a), b_len = strlen(b);
    char *text = arena_alloc(arena, a_len + b_len + 1);
    if (text) {
        memcpy(text, a, a_len);
        memcpy(text + a_len, b, b_len + 1);
    }
    return text;
}

enum ph_status openai_post(struct arena *arena, const struct chat_target *target, const char *path,
                           const struct json *body, const char *accept, struct chat_post *out)
{
    struct buf text;
    *out = (struct chat_post){.url = join(arena, target->base_url, path)};
    const char *key = target->key ? join(arena, "Bearer ", target->key) : NULL;
    buf_init(&text, HTTP_REQUEST_ARENA_BYTES_MAX);
    if (buf_reserve(&text, BODY_BYTES_USUAL)) /* once, instead of doubling its way up */
        json_write(&text, body);
    bool ok = out->url && (key || !target->key) && buf_status(&text) == PH_OK;
    out->body_len = text.len;
    char *bytes = ok ? buf_take(&text) : NULL;
    buf_release(&text);
    if (!bytes || arena_on_release(arena, free_text, bytes) != 0) {
        mem_free(bytes);
        return PH_ERR_NOMEM;
    }
    out->body = bytes;
    out->headers[out->header_count++] = (struct chat_header){"content-type", "application/json"};
    out->headers[out->header_count++] = (struct chat_header){"accept", accept};
    if (key)
        out->headers[out->header_count++] = (struct chat_header){"authorization", key};
    return PH_OK;
}

void openai_post_id(struct chat_post *post, const char *request_id)
{
    if (request_id)
        post->headers[post->header_count++] = (struct chat_header){"x-request-id", request_id};
}

enum ph_status openai_request(struct arena *arena, const struct chat_request *request,
                              const struct chat_target *target, struct chat_post *out,
                              struct chat_fault *fault)
{
    static const struct chat_request nothing = {.choices = 1, .reasoning_tokens = -1};
    struct writer w = {.arena = arena, .request = request, .was = &nothing, .target = target};
    w.same = request->dialect == CHAT_OPENAI && json_is(request->raw, JSON_OBJECT) && request->as_came;
    w.body = w.same ? json_share(arena, request->raw) : json_new(arena, JSON_OBJECT);
    if (w.same)
        w.was = request->as_came;
    enum ph_status status = w.body ? write_body(&w, fault) : PH_ERR_NOMEM;
    if (status == PH_OK && !w.failed)
        status =
            openai_post(arena, target, request->kind == CHAT_KIND_CHAT ? "/chat/completions" : "/completions",
                        w.body, request->stream ? "text/event-stream" : "application/json", out);
    if (status == PH_ERR_NOMEM || w.failed)
        return no_memory(fault);
    if (status == PH_OK)
        openai_post_id(out, request->request_id);
    return status;
}
