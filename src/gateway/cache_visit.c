/* A request and the cache: look it up, play what was found, keep what was not there.
 *
 * What is recorded is what the client's encoder is given, and a hit is played through such an encoder, so a
 * hit differs from the answer it repeats by its id and its time only, in a stream as in a whole reply. The
 * recording is copied out of the cache before it is played: a slow reader must not see it evicted.
 *
 * An answer is kept when a model said it to its end and the end is one the client would get again: not cut by
 * money, not continued by another model, not the second best of a cascade, not filtered, and too long only by
 * the client's own limit. A caller gets no answer of a model that its key does not allow. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "gateway/gateway_int.h"

/* Does the header's list have this directive? */
static bool has_directive(const char *list, const char *directive)
{
    size_t len = strlen(directive);
    while (list && *list) {
        list += strspn(list, " \t,");
        size_t n = strcspn(list, " \t,=");
        if (n == len && strncasecmp(list, directive, len) == 0)
            return true;
        list += strcspn(list, ",");
    }
    return false;
}

static const struct gateway_model *model_of(const struct cache_visit *visit)
{
    return &visit->gateway->models[visit->model];
}

static bool may_have(const struct cache_visit *visit, const struct caller *caller)
{
    return !caller->key || key_allows_model(caller->key, provider_model_id(model_of(visit)->provider));
}

/* ---- Looking up */

static bool copy_found(struct cache_visit *visit, const struct cache_found *found)
{
    visit->model = found->model;
    visit->age_ns = found->age_ns;
    buf_append(&visit->recording.bytes, found->bytes, found->len);
    return buf_status(&visit->recording.bytes) == PH_OK;
}

static void look_up(struct cache_visit *visit, const struct caller *caller)
{
    struct cache *cache = visit->gateway->cache;
    struct cache_found found;
    visit->is_hit =
        cache_find(cache, &visit->key, &found) && copy_found(visit, &found) && may_have(visit, caller);
    cache_count(cache, visit->is_hit);
    if (visit->is_hit)
        return;
    recording_release(&visit->recording);
    recording_init(&visit->recording, cache_answer_bytes_max(cache));
}

static void release_visit(void *ud)
{
    struct cache_visit *visit = ud;
    recording_release(&visit->recording);
    arena_release(&visit->play_arena);
}

void cache_visit_begin(struct cache_visit *visit, struct gateway *gateway, const struct http_request *http,
                       const char *dialect, const struct caller *caller, const struct chat_request *request)
{
    const char *control = http_request_header(http, "cache-control");
    *visit = (struct cache_visit){.gateway = gateway, .request = request};
    if (!gateway->cache || has_directive(control, "no-store") ||
        !cache_key_make(gateway->cache, request->arena, dialect, caller_account(caller), request,
                        &visit->key))
        return;
    recording_init(&visit->recording, cache_answer_bytes_max(gateway->cache));
    arena_init(&visit->play_arena, HTTP_REQUEST_ARENA_BYTES_MAX);
    if (arena_on_release(request->arena, release_visit, visit) != 0)
        return;
    if (!has_directive(control, "no-cache"))
        look_up(visit, caller);
    visit->keeps = !visit->is_hit;
}

bool cache_visit_next(struct cache_visit *visit, struct chat_event *event)
{
    arena_clear(&visit->play_arena);
    return recording_next(&visit->recording, &visit->play_at, &visit->play_arena, event);
}

/* ---- Keeping */

static bool is_fit_end(const struct cache_visit *visit, enum chat_finish finish)
{
    return finish == CHAT_FINISH_STOP || finish == CHAT_FINISH_TOOL_CALLS ||
           (finish == CHAT_FINISH_LENGTH && visit->request->max_tokens);
}

void cache_visit_record(struct cache_visit *visit, const struct chat_event *event)
{
    if (!visit->keeps || visit->is_unfit)
        return;
    struct chat_event copy = *event;
    if (!visit->request->logprobs) /* a cascade's judge wanted them, the client did not */
        copy.logprobs = NULL;
    recording_add(&visit->recording, &copy);
    visit->is_unfit = buf_status(&visit->recording.bytes) != PH_OK ||
                      (event->kind == CHAT_EVENT_FINISH && !is_fit_end(visit, event->finish));
    if (visit->is_unfit)
        recording_release(&visit->recording);
}

void cache_visit_restart(struct cache_visit *visit)
{
    if (!visit->keeps)
        return;
    recording_release(&visit->recording);
    recording_init(&visit->recording, cache_answer_bytes_max(visit->gateway->cache));
    visit->is_unfit = false;
}

void cache_visit_keep(struct cache_visit *visit, const struct answer *answer)
{
    const struct buf *bytes = &visit->recording.bytes;
    if (visit->keeps && !visit->is_unfit && answer_is_whole(answer))
        cache_put(visit->gateway->cache, &visit->key, answer_model(answer), bytes->data, bytes->len);
}

/* ---- Telling */

static const char *name_of(const struct cache_visit *visit)
{
    return provider_model_id(model_of(visit)->provider);
}

void cache_visit_route_text(const struct cache_visit *visit, char *out, size_t size)
{
    snprintf(out, size, "model=%s; provider=%s; attempts=0; tier=%s; policy=cache", name_of(visit),
             provider_name(model_of(visit)->provider), ledger_tier_name(model_of(visit)->tier));
}

static void put_string(struct buf *out, const char *key, const char *value)
{
    buf_printf(out, ",\"%s\":", key);
    if (value)
        json_write_string(out, value, strlen(value));
    else
        buf_puts(out, "null");
}

void cache_visit_write_record(const struct cache_visit *visit, const struct caller *caller,
                              const char *response_id, struct buf *out)
{
    const struct chat_request *request = visit->request;
    bool has_name = request->model && *request->model;
    buf_puts(out, "{\"id\":");
    json_write_string(out, response_id, strlen(response_id));
    put_string(out, "request_id", request->request_id);
    buf_printf(out, ",\"created\":%lld", (long long)(clock_unix_ms(visit->gateway->clock) / 1000));
    put_string(out, "asked_for", has_name ? request->model : name_of(visit));
    put_string(out, "policy", "cache");
    put_string(out, "key", caller->key ? caller->key->id : NULL);
    put_string(out, "conversation", request->conversation);
    put_string(out, "model", name_of(visit));
    put_string(out, "tier", ledger_tier_name(model_of(visit)->tier));
    buf_printf(out, ",\"cached\":true,\"age_s\":%.3f", (double)visit->age_ns * 1e-9);
    buf_puts(out, ",\"cost_usd\":0,\"candidates\":[],\"attempts\":[]}");
}
