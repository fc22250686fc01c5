/* The bridge to a shared Redis: what helper threads want is queued, and a wake-up takes it to the loop, where
 * the client is. One lock is over both lists; the client is the loop's alone.
 *
 * A wish belongs to its waiter as long as he waits, and to the loop when he has left, or never waited:
 *  H1  a wish is in `queued` until the loop takes it, then, a look-up that was sent, in `asked`;
 *  H2  a waiter who leaves a wish in a list marks it `is_left`, and whoever takes it out frees it;
 *  H3  after hot_close both lists are empty and stay so.
 * The time limit is the client's (redis_client_get); the waiter's own is a little longer, for a loop that is
 * busy with something else. */
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "base/limits.h"
#include "base/mem.h"
#include "memory/hot.h"

#define DROPPED "0" /* Redis has no empty values by SET ... EX; this is none of ours */
#define DROPPED_TTL_S 1

struct wish {
    struct wish *next;
    struct hot *hot;
    struct buf value; /* found, or to be put */
    uint32_t ttl_s;   /* 0: it is a look-up */
    bool is_done, is_left;
    char name[MEMORY_HOT_NAME_MAX];
};

struct hot {
    uv_mutex_t lock;
    uv_cond_t done; /* of any look-up: there are few helper threads */
    struct net_wake *wake;
    struct redis_client *client;
    struct wish *queued, **queue_end, *asked;
    size_t queued_bytes;
    uint32_t wait_ms, ttl_s;
    bool is_closed;
};

static void wish_free(struct wish *wish)
{
    buf_release(&wish->value);
    mem_free(wish);
}

static struct wish *wish_new(struct hot *hot, const char *name, uint32_t ttl_s)
{
    struct wish *wish = mem_calloc(1, sizeof *wish);
    if (!wish)
        return NULL;
    wish->hot = hot;
    wish->ttl_s = ttl_s;
    buf_init(&wish->value, MEMORY_HOT_BYTES_MAX);
    snprintf(wish->name, sizeof wish->name, "%s", name);
    return wish;
}

/* ---- On the loop */

/* Under the lock: a look-up is over. H2 */
static void finish(struct wish *wish)
{
    wish->is_done = true;
    if (wish->is_left)
        wish_free(wish);
    else
        uv_cond_broadcast(&wish->hot->done);
}

static void unlink_asked(struct wish *wish)
{
    struct wish **link = &wish->hot->asked;
    while (*link != wish)
        link = &(*link)->next;
    *link = wish->next;
}

static void on_found(void *ud, const char *bytes, size_t len)
{
    struct wish *wish = ud;
    struct hot *hot = wish->hot;
    uv_mutex_lock(&hot->lock);
    unlink_asked(wish);
    if (bytes && !wish->is_left)
        buf_append(&wish->value, bytes, len);
    finish(wish);
    uv_mutex_unlock(&hot->lock);
}

/* The client calls nobody inside of these calls. */
static void fulfil(struct hot *hot, struct wish *wish)
{
    if (wish->ttl_s) {
        (void)redis_client_set(hot->client, wish->name, wish->value.data, wish->value.len, wish->ttl_s);
        wish_free(wish);
        return;
    }
    bool is_asked = redis_client_get(hot->client, wish->name, hot->wait_ms, on_found, wish) != 0;
    uv_mutex_lock(&hot->lock);
    if (is_asked) {
        wish->next = hot->asked;
        hot->asked = wish;
    } else {
        finish(wish);
    }
    uv_mutex_unlock(&hot->lock);
}

static struct wish *take_queued(struct hot *hot)
{
    struct wish *list = hot->queued;
    hot->queued = NULL;
    hot->queue_end = &hot->queued;
    hot->queued_bytes = 0;
    return list;
}

static void on_wake(void *ud)
{
    struct hot *hot = ud;
    uv_mutex_lock(&hot->lock);
    struct wish *wish = take_queued(hot);
    uv_mutex_unlock(&hot->lock);
    while (wish) {
        struct wish *next = wish->next;
        fulfil(hot, wish);
        wish = next;
    }
}

/* ---- Opening and closing */

enum ph_status hot_open(struct hot **out, const struct hot_params *params)
{
    struct redis_params client = {.loop = params->loop,
                                  .clock = params->clock,
                                  .host = params->host,
                                  .port = params->port,
                                  .user = params->user,
                                  .password = params->password,
                                  .database = params->database,
                                  .value_bytes_max = MEMORY_HOT_BYTES_MAX,
                                  .late_ms = params->wait_ms};
    struct hot *hot = mem_calloc(1, sizeof *hot);
    *out = NULL;
    if (!hot)
        return PH_ERR_NOMEM;
    hot->wait_ms = params->wait_ms;
    hot->ttl_s = params->ttl_s;
    hot->queue_end = &hot->queued;
    if (uv_mutex_init(&hot->lock) != 0) {
        mem_free(hot);
        return PH_ERR_NOMEM;
    }
    if (uv_cond_init(&hot->done) != 0) {
        uv_mutex_destroy(&hot->lock);
        mem_free(hot);
        return PH_ERR_NOMEM;
    }
    enum ph_status status = net_wake_open(&hot->wake, params->loop, on_wake, hot);
    if (status == PH_OK) {
        status = redis_client_open(&hot->client, &client);
        if (status != PH_OK)
            net_wake_close(hot->wake);
    }
    if (status != PH_OK) {
        hot->is_closed = true;
        hot_free(hot);
        return status;
    }
    *out = hot;
    return PH_OK;
}

/* H3 */
void hot_close(struct hot *hot)
{
    if (!hot || hot->is_closed)
        return;
    uv_mutex_lock(&hot->lock);
    hot->is_closed = true;
    struct wish *lists[] = {take_queued(hot), hot->asked};
    hot->asked = NULL;
    for (size_t i = 0; i < 2; i++)
        while (lists[i]) {
            struct wish *wish = lists[i];
            lists[i] = wish->next;
            if (wish->ttl_s)
                wish_free(wish);
            else
                finish(wish);
        }
    uv_mutex_unlock(&hot->lock);
    net_wake_close(hot->wake);
    redis_client_close(hot->client); /* on_found does not come any more */
    hot->client = NULL;
}

void hot_free(struct hot *hot)
{
    if (!hot)
        return;
    uv_cond_destroy(&hot->done);
    uv_mutex_destroy(&hot->lock);
    mem_free(hot);
}

void hot_stats(const struct hot *hot, struct redis_stats *out)
{
    *out = (struct redis_stats){.is_ready = false};
    if (hot->client)
        redis_client_stats(hot->client, out);
}

/* ---- On helper threads */

/* Under the lock. false: it is closed, or too much waits. */
static bool enqueue(struct hot *hot, struct wish *wish)
{
    if (hot->is_closed || hot->queued_bytes + wish->value.len > MEMORY_HOT_QUEUE_BYTES_MAX)
        return false;
    *hot->queue_end = wish;
    hot->queue_end = &wish->next;
    hot->queued_bytes += wish->value.len;
    net_wake_call(hot->wake);
    return true;
}

bool hot_get(struct hot *hot, const char *name, struct buf *out)
{
    uint64_t now = uv_hrtime(), end = now + (hot->wait_ms + MEMORY_HOT_GRACE_MS) * (uint64_t)1000000;
    struct wish *wish = wish_new(hot, name, 0);
    if (!wish)
        return false;
    uv_mutex_lock(&hot->lock);
    wish->is_done = !enqueue(hot, wish);
    while (!wish->is_done && now < end) {
        (void)uv_cond_timedwait(&hot->done, &hot->lock, end - now);
        now = uv_hrtime();
    }
    bool is_done = wish->is_done;
    wish->is_left = !is_done; /* H2 */
    uv_mutex_unlock(&hot->lock);
    if (!is_done)
        return false;
    bool is_there = wish->value.len && buf_status(&wish->value) == PH_OK;
    if (is_there)
        buf_append(out, wish->value.data, wish->value.len);
    wish_free(wish);
    return is_there && buf_status(out) == PH_OK;
}

static void put(struct hot *hot, const char *name, const void *bytes, size_t len, uint32_t ttl_s)
{
    struct wish *wish = wish_new(hot, name, ttl_s);
    if (!wish)
        return;
    buf_append(&wish->value, bytes, len);
    bool ok = buf_status(&wish->value) == PH_OK;
    uv_mutex_lock(&hot->lock);
    ok = ok && enqueue(hot, wish);
    uv_mutex_unlock(&hot->lock);
    if (!ok)
        wish_free(wish);
}

void hot_put(struct hot *hot, const char *name, const void *bytes, size_t len)
{
    put(hot, name, bytes, len, hot->ttl_s);
}

void hot_drop(struct hot *hot, const char *name)
{
    put(hot, name, DROPPED, sizeof DROPPED - 1, DROPPED_TTL_S);
}
