/* Choosing what a request gets to see: an index of everything a user said, and the building of a context
 * from it under a token budget.
 * An index lives in memory and belongs to one user; it holds words, not texts, so what it finds are
 * numbers of messages. Its owner fills it from the store, in order, and keeps it up to date. Building
 * reads only: candidates, features, score, pack (docs/MEMORY.md). The cost depends on this
 * user's turns alone.
 * Thread: any number may build at the same time while nobody adds or removes; the owner holds the lock. */
#ifndef PHAROS_MEMORY_CONTEXT_H
#define PHAROS_MEMORY_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"

struct spt; /* memory/spt.h: the trained selector */

/* ---- Index ---- */
struct memory_index;

struct index_params {
    const struct spt *spt; /* its words' vectors are used; outlives the index. NULL: without */
    const char *language;  /* of the stems: Snowball's name, "english"; NULL: that */
};

struct index_turn {
    int64_t message;      /* the store's number; greater than that of any turn before */
    int64_t conversation; /* the store's number */
    const char *role;     /* "user", "assistant", "tool", "system" */
    const char *name;     /* who speaks; NULL: the role says it */
    const char *text;     /* what was said, UTF-8; other bytes are skipped */
    size_t text_len;
    const char *about; /* what else is to be found by (captions in metadata); NULL: nothing */
    size_t about_len;
    int64_t created_at; /* Unix seconds; 0: unknown */
    uint32_t tokens;    /* what it costs in a context */
};

PH_MUST_USE enum ph_status memory_index_create(struct memory_index **out, const struct index_params *params,
                                               struct ph_err *err);
void memory_index_free(struct memory_index *index);
/* Turns of a conversation come in its order; those of several may be mixed. PH_ERR_NOMEM leaves the index
 * as it was. */
PH_MUST_USE enum ph_status memory_index_add(struct memory_index *index, const struct index_turn *turn);
/* Its turns are never found again; their memory goes with the index. */
void memory_index_forget(struct memory_index *index, int64_t conversation);
size_t memory_index_turns(const struct memory_index *index);
size_t memory_index_bytes(const struct memory_index *index); /* of memory */
int64_t memory_index_last(const struct memory_index *index); /* the newest message's number; 0: none */

/* What a message costs where no tokenizer is known: ceil(bytes of "name: content\n" / 4). name NULL: the
 * role's. */
uint32_t memory_token_estimate(const char *name, size_t content_len);

/* ---- Building ---- */
enum context_strategy {
    CONTEXT_RECENT_ONLY,    /* the newest turns */
    CONTEXT_SEMANTIC_FOCUS, /* the nearest in words and meaning, by themselves */
    CONTEXT_TEMPORAL_DECAY, /* the same, halved every 30 days: what others do, kept to compare with */
    CONTEXT_HYBRID,         /* a fixed mix of all features */
    CONTEXT_SPT,            /* the trained selector */
    CONTEXT_STRATEGY_COUNT
};
const char *context_strategy_name(enum context_strategy strategy);             /* "hybrid" */
bool context_strategy_find(const char *name, enum context_strategy *strategy); /* false: no such name */

/* How near a message is to the query, by an embedding model. */
struct context_near {
    int64_t message;
    float cosine;
};

struct context_request {
    int64_t conversation; /* whose turns are looked at; 0: all of the user's */
    const char *query;    /* what is to be answered, UTF-8 */
    size_t query_len;
    const char *query_name; /* who asks; NULL: unknown */
    uint32_t budget_tokens; /* for the items together */
    enum context_strategy strategy;
    uint32_t keep_recent;  /* so many newest turns are always in, as far as the budget goes */
    int64_t before, after; /* only messages with smaller, with greater numbers; 0: all */
    int64_t now;           /* Unix seconds; 0: the newest turn's time */
    const int64_t
        *previous; /* messages chosen for the turn before, ascending: kept where they do no harm, so */
    size_t previous_count;
    const struct context_near
        *near; /* the nearest, ascending by message; NULL: the selector's own words are */
    size_t near_count; /* ... compared instead */ /* ... that prompt caches hit */
    /* What a message costs, instead of what its turn said. NULL: that. Asked for candidates only. */
    uint32_t (*cost)(void *ud, int64_t message);
    void *cost_ud;
};

/* One reason why an item was chosen, in words a person understands. */
struct context_reason {
    const char *what; /* "shares rare words: lighthouse, Tromsø"; in the arena */
    float points;     /* its part of the score */
};
#define CONTEXT_REASONS_MAX 6

struct context_item {
    int64_t message, conversation;
    uint32_t tokens;
    float score;    /* of the strategy; greater is better; comparable within one result only */
    bool is_recent; /* in because it is new */
    struct context_reason reasons[CONTEXT_REASONS_MAX]; /* the greatest parts first */
    size_t reason_count;
};

struct context_result {
    struct context_item *items; /* ascending by message: conversation order; in the arena */
    size_t count;
    uint32_t tokens;     /* of all items */
    uint32_t turns;      /* looked at */
    uint32_t candidates; /* scored in full */
};

/* A turn that was scored, without packing. */
struct context_ranked {
    int64_t message;
    float score;
};
/* The candidates, best first; in the arena. For measuring, and for those who pack themselves. */
PH_MUST_USE enum ph_status context_rank(const struct memory_index *index,
                                        const struct context_request *request, struct arena *arena,
                                        struct context_ranked **ranked, size_t *count, struct ph_err *err);

/* An empty query chooses recent turns. Fails for want of memory only. */
PH_MUST_USE enum ph_status context_build(const struct memory_index *index,
                                         const struct context_request *request, struct arena *arena,
                                         struct context_result *result, struct ph_err *err);

#endif
