/* provider, private: what the two files of a supervised engine share: its life (provider_supervised.c) and
 * the calls that wait for it or use it (provider_supervised_calls.c). */
#ifndef PHAROS_PROVIDER_PROVIDER_SUPERVISED_INT_H
#define PHAROS_PROVIDER_PROVIDER_SUPERVISED_INT_H

#include "provider/provider_engine_int.h"
#include "provider/provider_int.h"
#include "provider/provider_room_int.h"

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

enum engine_state { ENGINE_STOPPED, ENGINE_STARTING, ENGINE_RUNNING, ENGINE_STOPPING, ENGINE_RESTING };

struct supervised {
    struct provider base;
    struct provider_supervised_params params; /* strings owned */
    char *command, *base_path, *health_path;
    struct engine_files files;
    struct room_member member; /* of params.room, where there is one */
    struct provider_account *account;
    struct provider *remote;

    enum engine_state state;
    struct net_process *process;
    struct net_timer *timer;
    unsigned port, port_tries;
    uint64_t since_ns;            /* the state's beginning */
    uint64_t retry_ns;            /* after a failure: not before */
    unsigned failures;            /* in a row */
    char why[PH_ERR_MESSAGE_MAX]; /* of the last one */
    uint64_t idle_ns;             /* since when nobody uses it */

    enum provider_engine_end end; /* STOPPING: why */
    struct provider_engine_stats stats;

    uint64_t need, peak; /* bytes: before this run, and in it */
    bool guessed;        /* the need, from the size of files */
    struct process_memory taken;
    struct engine_look *look; /* under way; the log is not turned meanwhile */
    uint64_t look_ns;         /* when it began */
    bool ran, look_soon;      /* ran: it has become ready in this run */
    bool wants_room;          /* STOPPED, RESTING: waits until others have left or are idle ... */
    uint64_t wants_room_ns;
    struct room_figures figures; /* ... for these */

    struct http_call *health;
    bool health_fallback; /* /health is not known there: the list of models is asked for */
    int health_status;
    uint64_t health_ns; /* when it was last asked */
    unsigned misses;

    struct supervised_call *queue, **queue_end;
    size_t waiting, running;
    uint64_t progress_ns;
    void (*stopped)(void *ud); /* provider_stop */
    void *stopped_ud;
    bool leaving;
};

struct supervised_call {
    struct provider_call base;
    struct supervised *owner;
    struct supervised_call *next; /* in the queue */
    const struct chat_request *request;
    const struct chat_embed_request *embed; /* or this */
    struct provider_sink sink;
    struct provider_embed_sink embed_sink;
    struct provider_call *inner; /* NULL: waiting */
    uint64_t since_ns;
    bool is_queued, blocked, hung_up, dead;
    unsigned depth;
};

/* ---- Its life */
uint64_t supervised_now_ns(const struct supervised *s);
void supervised_drive(struct supervised *s); /* its timer comes in a turn of the loop, and then on and on */
void supervised_is_idle(struct supervised *s);
uint64_t supervised_start_timeout_ns(const struct supervised *s);
void supervised_failed_fault(const struct supervised *s, struct chat_fault *fault);
void supervised_waiting_fault(const struct supervised *s, struct chat_fault *fault);
void supervised_stopping_fault(struct chat_fault *fault);

/* ---- Its calls */
void supervised_queue_begin(struct supervised *s); /* the engine is there: those that wait begin */
void supervised_queue_wait(struct supervised *s);  /* they are told that they are not forgotten, or refused */
/* Everybody who waits now; those that come meanwhile are not meant. */
void supervised_queue_refuse(struct supervised *s, const struct chat_fault *fault);

enum ph_status supervised_start(struct provider *provider, struct net_loop *loop,
                                const struct chat_request *request, const struct provider_sink *sink,
                                struct provider_call **out, struct chat_fault *fault);
enum ph_status supervised_embed(struct provider *provider, struct net_loop *loop,
                                const struct chat_embed_request *request,
                                const struct provider_embed_sink *sink, struct provider_call **out,
                                struct chat_fault *fault);
void supervised_resume(struct provider_call *call);
void supervised_cancel(struct provider_call *call);
void supervised_hang_up(struct provider_call *call, uint32_t drain_ms);
void supervised_note(const struct provider_call *call, struct provider_call_note *out);

#endif
