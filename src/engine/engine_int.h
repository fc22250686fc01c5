/* engine, inside: what the scheduler and the readers share. See README.md for the protocol. */
#ifndef PHAROS_ENGINE_ENGINE_INT_H
#define PHAROS_ENGINE_ENGINE_INT_H

#include <stdatomic.h>

#include <uv.h>

#include "base/arena.h"
#include "base/buf.h"
#include "engine/engine.h"

/* ---- The doorbell: how other threads wake the scheduler. Counted, because a sequence may outlive its engine
 * and its reader may still ring. */
struct doorbell {
    uv_mutex_t mutex; /* also guards what engine.c says it guards */
    uv_cond_t cond;
    bool rung;
    atomic_uint refs;
};

struct doorbell *doorbell_create(void);
void doorbell_ref(struct doorbell *bell);
void doorbell_unref(struct doorbell *bell);
void doorbell_ring(struct doorbell *bell);

/* ---- Stop strings: text that may be the beginning of one is held back */
struct stop_filter {
    const struct engine_text *stops;
    size_t count;
    size_t seen;     /* bytes of held.data that were searched before */
    struct buf held; /* fixed memory: never grows */
};

/* Searches what was appended to `held` since the last call. true: a stop string is complete, and *ready is
 * where it begins; else *ready counts the bytes at the front that can be in no stop string any more. */
bool stop_filter_scan(struct stop_filter *filter, size_t *ready);
void stop_filter_drop(struct stop_filter *filter, size_t len); /* the front was passed on */

/* ---- One sequence */
enum seq_place { SEQ_WAITING, SEQ_RUNNING, SEQ_OVER };

struct seq_choice { /* what sampling one row found */
    int32_t id;
    float logprob;
    struct candidate top[ENGINE_LOGPROBS_MAX];
};

/* ENGINE_EVENTS_MAX tokens, a merged PREFILL and the FINISH always find a place. */
#define SEQ_RING_LEN (ENGINE_EVENTS_MAX + 2)

struct engine_seq {
    atomic_uint refs; /* the reader's and the scheduler's */
    atomic_bool cancelled;
    struct doorbell *bell;
    struct arena arena; /* everything below but the sampler */

    /* The request, immutable after submit */
    size_t prompt_len, len_max; /* tokens in all, at most */
    size_t n_vocab, top_logprobs;
    bool ignore_end, want_logprobs;

    /* The scheduler's own */
    enum seq_place place;
    struct engine_seq *next; /* in the waiting list */
    uint64_t ticket;         /* order of submission; the highest is the youngest */
    int32_t *tokens;         /* [len_max]; those in [kv_seq_len, len) are still to be fed */
    size_t len;
    struct kv_seq *kv; /* NULL while waiting */
    size_t cached;     /* prompt tokens found on the shelf at first admission */
    struct sampler *sampler;
    struct seq_choice choice;
    struct detok detok;
    struct stop_filter filter;
    size_t step_rows;                                   /* granted in the step being gathered */
    uint64_t submit_ns, admit_ns, first_ns, stalled_ns; /* 0: not yet, not now */

    /* Between scheduler and reader, under mutex */
    uv_mutex_t mutex;
    uv_cond_t cond;
    struct engine_event *ring; /* [SEQ_RING_LEN] */
    size_t ring_first, ring_count;
    char *text; /* of the events in the ring, oldest first */
    size_t text_cap, text_first, text_len, text_event_max;
    bool stalled;  /* the scheduler wants to be rung when there is room again */
    bool hungry;   /* engine_read has said "nothing": the next event wakes */
    bool finished; /* FINISH was read */
    void (*wake)(void *ud);
    void *wake_ud;
    float *logits;
    bool logits_set, logits_visible;

    /* The reader's own */
    char *read_text;
};

PH_MUST_USE enum ph_status seq_create(struct engine_seq **out, const struct engine *engine,
                                      const struct engine_request *request, struct ph_err *err);
void seq_unref(struct engine_seq *seq);
/* Room for one more token's event and for FINISH; when not, the reader will ring. */
bool seq_has_room(struct engine_seq *seq);
void seq_push_prefill(struct engine_seq *seq, size_t prefilled);
/* Shows text [0, len) of the filter's held text with the token chosen last. */
void seq_push_token(struct engine_seq *seq, size_t text_len);
/* event: finish, status, counts and times; the text is the filter's [0, text_len). */
void seq_push_finish(struct engine_seq *seq, const struct engine_event *event, size_t text_len);
void seq_keep_logits(struct engine_seq *seq, const float *logits);

/* ---- Prompts that are over, kept for whoever goes on from them (engine_shelf.c) */
#define SHELF_LEN_MAX 32

struct shelf_entry {
    struct kv_seq *kv; /* NULL: a free place */
    int32_t *tokens;   /* [context_len]; what its positions hold */
    size_t len;
    uint64_t used;
};

struct shelf {
    uv_mutex_t mutex; /* the scheduler alone changes entries, and holds it then; others hold it to look */
    bool has_mutex;
    struct shelf_entry entries[SHELF_LEN_MAX];
    int32_t *tokens;
    size_t context_len;
    size_t pages; /* held by all entries */
    uint64_t clock;
};

bool shelf_open(struct shelf *shelf, size_t context_len);
void shelf_release(struct shelf *shelf);
/* Takes the pages of a sequence that is over, or gives them back. */
void shelf_put(struct engine *engine, struct kv_seq *kv, const int32_t *tokens, size_t prompt_len);
/* The entry that shares most with the first len tokens; *common of them. NULL: none worth taking. */
struct shelf_entry *shelf_find(struct engine *engine, const int32_t *tokens, size_t len, size_t *common);
/* How many of the first len tokens would be taken; any thread. */
size_t shelf_look(struct engine *engine, const int32_t *tokens, size_t len);
struct kv_seq *shelf_take(struct engine *engine, struct shelf_entry *entry, size_t common);
/* Gives the pages of the least recently used entry back, `keep` excepted. false: there is none. */
bool shelf_drop_oldest(struct engine *engine, const struct shelf_entry *keep);

/* ---- The engine */
struct engine {
    /* Immutable once open */
    struct engine_params params; /* resolved: no zeros left */
    struct model *model;
    const struct vocab *vocab;
    size_t n_vocab;
    const struct clock_source *clock;
    struct lora **loras;
    float *lora_scales;
    uv_thread_t thread;
    struct doorbell *bell;

    /* Under bell->mutex */
    bool opened, stop;
    enum ph_status open_status;
    struct ph_err open_err;
    struct engine_seq *incoming, **incoming_end;
    size_t held; /* submitted and not over; at most engine_capacity */
    uint64_t tickets;
    struct engine_stats stats;

    /* The scheduler's own */
    struct runner *runner;
    struct engine_seq *waiting;  /* by ticket */
    struct engine_seq **running; /* by ticket; [sequences_max] */
    size_t running_count;        /* entries; some may just have left, until they are swept */
    size_t active;               /* entries that have not left */
    struct runner_row *rows;     /* [rows_max] */
    size_t rows_max;
    float *logits;               /* [sequences_max][n_vocab] */
    struct engine_seq **outputs; /* whose logits these are */
    size_t output_count;
    struct shelf shelf;
    size_t prefill_turn;        /* where the next round of shares begins */
    double prefill_ns_per_row;  /* measured; 0: not yet */
    struct engine_stats counts; /* published into stats */
    size_t ended;               /* since the last publication */
};

void engine_scheduler(void *engine); /* the thread's body */
void engine_publish(struct engine *engine);

#endif
