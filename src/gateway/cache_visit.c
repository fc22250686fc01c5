/* A request and the cache: look it up, play what was found, keep what was not there.
 *
 * What is recorded is what the client's encoder is given, and a hit is played through such an encoder, so a
 * hit differs from the answer it repeats by its id and its time only, in a stream as in a whole reply. The
 * recording is copied out of the cache before it is played: a slow reader must not see it evicted.
 *
 * There may be a second cache behind the one of this process, a Redis that stations share. It is asked when
 * the first does not know: CACHE_REDIS_WAIT_MS at most, and less if the client's deadline is nearer; then the
 * request goes on without. What it gives is checked as if a stranger had written it (cache_value.c,
 * recording_check.c), and goes into the first cache with the age that it has. What is kept is kept in both.
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
    struct cache_found found;
    visit->is_hit = cache_find(visit->gateway->cache, &visit->key, &found) && copy_found(visit, &found) &&
                    may_have(visit, caller);
    if (visit->is_hit)
        return;
    recording_release(&visit->recording);
    recording_init(&visit->recording, cache_answer_bytes_max(visit->gateway->cache));
}

static void end_look_up(struct cache_visit *visit, enum cache_level level)
{
    visit->level = level;
    visit->keeps = level == CACHE_MISS;
    cache_count(visit->gateway->cache, level);
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
    visit->caller = caller;
    visit->keeps = true;
    visit->asks = !has_directive(control, "no-cache");
    if (visit->asks)
        look_up(visit, caller);
    if (visit->is_hit)
        end_look_up(visit, CACHE_MEMORY);
}

/* ---- The shared cache */

static uint64_t age_of(const struct cache_visit *visit, int64_t made_unix_ms)
{
    int64_t now = clock_unix_ms(visit->gateway->clock); /* the other's clock may be ahead */
    return now > made_unix_ms ? (uint64_t)(now - made_unix_ms) * 1000000 : 0;
}

static bool find_model(const struct gateway *gateway, const char *name, size_t *index)
{
    for (*index = 0; *index < gateway->model_count; ++*index)
        if (strcmp(provider_model_id(gateway->models[*index].provider), name) == 0)
            return true;
    return false;
}

/* The recording is in the visit when it is one that this request may be given. */
static bool take_value(struct cache_visit *visit, const char *bytes, size_t len)
{
    struct gateway *gateway = visit->gateway;
    struct cache_value value;
    if (!cache_value_read(gateway->cache, &visit->key, bytes, len, &value))
        return false;
    struct cache_found found = {value.bytes, value.len, 0, age_of(visit, value.made_unix_ms)};
    if (found.age_ns >= cache_ttl_ns(gateway->cache) || !find_model(gateway, value.model, &found.model) ||
        !copy_found(visit, &found) ||
        !recording_is_whole(&visit->recording, visit->request, &visit->play_arena))
        return false;
    cache_put(gateway->cache, &visit->key, &found);
    return true;
}

static void on_value(void *ud, const char *bytes, size_t len)
{
    struct cache_visit *visit = ud;
    struct gateway *gateway = visit->gateway;
    bool is_ours = bytes && take_value(visit, bytes, len);
    visit->ticket = 0;
    visit->is_hit = is_ours && may_have(visit, visit->caller);
    metrics_cache_wait(gateway->metrics, clock_monotonic_ns(gateway->clock) - visit->asked_ns);
    if (bytes && !is_ours)
        cache_count_refused(gateway->cache);
    if (!visit->is_hit) {
        recording_release(&visit->recording);
        recording_init(&visit->recording, cache_answer_bytes_max(gateway->cache));
    }
    end_look_up(visit, visit->is_hit ? CACHE_REDIS : CACHE_MISS);
    visit->looked_up(visit->ud);
}

static uint32_t wait_ms(const struct cache_visit *visit, uint64_t deadline_ns)
{
    uint32_t most = visit->gateway->redis_wait_ms;
    uint64_t left_ms = deadline_ns > visit->asked_ns ? (deadline_ns - visit->asked_ns) / 1000000 : 0;
    return deadline_ns && left_ms < most ? (uint32_t)left_ms : most;
}

bool cache_visit_wait(struct cache_visit *visit, uint64_t deadline_ns, void (*looked_up)(void *ud), void *ud)
{
    struct gateway *gateway = visit->gateway;
    char name[CACHE_VALUE_NAME_MAX];
    if (!visit->asks || visit->is_hit)
        return false;
    visit->asked_ns = clock_monotonic_ns(gateway->clock);
    uint32_t ms = gateway->redis ? wait_ms(visit, deadline_ns) : 0;
    if (ms) {
        cache_value_name(&visit->key, name);
        visit->looked_up = looked_up;
        visit->ud = ud;
        visit->ticket = redis_client_get(gateway->redis, name, ms, on_value, visit);
    }
    if (!visit->ticket)
        end_look_up(visit, CACHE_MISS);
    return visit->ticket != 0;
}

bool cache_visit_cancel(struct cache_visit *visit)
{
    if (!visit->ticket)
        return false;
    redis_client_cancel(visit->gateway->redis, visit->ticket);
    visit->ticket = 0;
    return true;
}

static void keep_in_redis(struct cache_visit *visit, size_t model)
{
    struct gateway *gateway = visit->gateway;
    const struct buf *recording = &visit->recording.bytes;
    struct cache_value value = {clock_unix_ms(gateway->clock),
                                provider_model_id(gateway->models[model].provider), recording->data,
                                recording->len};
    struct redis_stats redis;
    struct buf bytes;
    char name[CACHE_VALUE_NAME_MAX];
    redis_client_stats(gateway->redis, &redis);
    if (!redis.is_ready)
        return;
    buf_init(&bytes, recording->len + CACHE_VALUE_EXTRA_BYTES);
    cache_value_name(&visit->key, name);
    if (cache_value_write(gateway->cache, &visit->key, &value, &bytes))
        (void)redis_client_set(gateway->redis, name, bytes.data, bytes.len,
                               (uint32_t)(cache_ttl_ns(gateway->cache) / 1000000000));
    buf_release(&bytes);
}

bool cache_visit_next(struct cache_visit *visit, struct chat_event *event)
{
    arena_clear(&visit->play_arena);
    return recording_next(&visit->recording, &visit->play_at, &visit->play_arena, event);
}

/* ---- Keeping */

void cache_visit_record(struct cache_visit *visit, const struct chat_event *event)
{
    if (!visit->keeps || visit->is_unfit)
        return;
    struct chat_event copy = *event;
    if (!visit->request->logprobs) /* a cascade's judge wanted them, the client did not */
        copy.logprobs = NULL;
    recording_add(&visit->recording, &copy);
    visit->is_unfit =
        buf_status(&visit->recording.bytes) != PH_OK ||
        (event->kind == CHAT_EVENT_FINISH && !recording_end_is_fit(visit->request, event->finish));
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
    if (!visit->keeps || visit->is_unfit || !bytes->len || !answer_is_whole(answer))
        return;
    struct cache_found found = {bytes->data, bytes->len, answer_model(answer), 0};
    cache_put(visit->gateway->cache, &visit->key, &found);
    if (visit->gateway->redis)
        keep_in_redis(visit, found.model);
}

/* ---- Telling */

static const char *name_of(const struct cache_visit *visit)
{
    return provider_model_id(model_of(visit)->provider);
}

void cache_visit_route_text(const struct cache_visit *visit, struct buf *out)
{
    buf_printf(out, "model=%s; provider=%s; attempts=0; tier=%s; policy=cache", name_of(visit),
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
    put_string(out, "cache", visit->level == CACHE_REDIS ? "redis" : "memory");
    buf_printf(out, ",\"cached\":true,\"age_s\":%.3f", (double)visit->age_ns * 1e-9);
    buf_puts(out, ",\"cost_usd\":0,\"candidates\":[],\"attempts\":[]}");
}
