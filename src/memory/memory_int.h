/* memory, private: users and locks (memory.c), conversations (memory_history.c), turns (memory_turn.c). */
#ifndef PHAROS_MEMORY_MEMORY_INT_H
#define PHAROS_MEMORY_MEMORY_INT_H

#include <uv.h>

#include "memory/embed.h"
#include "memory/memory.h"
#include "memory/spt.h"
#include "memory/vectors.h"

#define COST_NEVER (2 * MEMORY_CONTEXT_BUDGET_MAX) /* of a message that shall not be chosen */

enum history_flag {
    HISTORY_HEAD = 1 << 0,
    HISTORY_SYSTEM = 1 << 1,
    HISTORY_BRANCH = 1 << 2,
    HISTORY_CALLS = 1 << 3, /* has calls of tools */
    HISTORY_RESULT = 1 << 4 /* is what one gave */
};

/* What every turn looks at of every message, beside the messages because these are much larger. */
struct history_note {
    uint32_t flags;    /* of enum history_flag */
    uint32_t estimate; /* tokens */
    uint32_t counted;  /* tokens for `model`; 0: not counted */
};

/* A conversation in memory. Its messages lie in its arena; evicted with it. */
struct history {
    struct arena arena;
    struct history *next; /* of the user's, newest use first */
    char *key;
    int64_t number;
    int64_t next_seq;
    struct memory_message *list; /* ascending by seq */
    struct history_note *notes;  /* one a message */
    size_t count, capacity;
    char *model;
    int64_t *chosen; /* numbers that the last turn's context had */
    size_t chosen_count;
    struct buf packed;   /* the messages as a shared cache keeps them; empty: there is none */
    size_t shared_count; /* of them, those that it has, or had */
};

struct memory_user {
    uv_mutex_t lock; /* all below; held by whoever has it acquired */
    char *name;
    unsigned refs; /* under the memory's lock, as the next two */
    uint64_t used; /* when, in acquisitions */
    size_t bytes;
    int64_t number, deletions;
    struct memory_index *index; /* NULL: not needed so far */
    struct vectors *vectors;    /* likewise */
    struct history *histories;
    size_t history_count;
};

struct memory {
    uv_mutex_t lock;
    char *dir, *postgres, *selector;
    struct spt *spt;           /* NULL: it cannot be read */
    struct embed_space *space; /* of the embedding model; NULL: there is none, or not yet */
    struct vector_home *home;  /* NULL: not needed so far */
    bool must_exist, read_only;
    const struct clock_source *clock;
    size_t bytes_max;
    struct store *store;
    struct rng rng;
    struct memory_user **users;
    size_t user_count, user_capacity;
    uint64_t clock_uses;
    uint64_t turns, hits;
    struct hot *hot; /* NULL: no cache that stations share */
    uint64_t shared_hits, shared_misses, shared_refused;
};

/* ---- Users (memory.c) */

/* The user's lock is held until memory_leave. NULL: no memory. */
struct memory_user *memory_enter(struct memory *memory, const char *name);
void memory_leave(struct memory *memory, struct memory_user *user);
/* What can be done of what is wanted: without a selector spt is hybrid. After memory_store. */
enum context_strategy memory_strategy(const struct memory *memory, enum context_strategy wanted);
void memory_count_turn(struct memory *memory, bool was_in_memory);
/* Forgets what something was deleted from since. */
PH_MUST_USE enum ph_status memory_user_refresh(struct memory_user *user, struct store *store,
                                               struct arena *scratch, struct ph_err *err);
/* The index with everything that is stored of the user. */
PH_MUST_USE enum ph_status memory_user_index(const struct memory *memory, struct memory_user *user,
                                             struct ph_err *err);

/* Fills request->near, in the arena; leaves it empty where there is no embedding model. */
void memory_find_near(struct memory *memory, struct memory_user *user, struct arena *arena,
                      struct context_request *request);
void memory_near_release(struct memory *memory); /* after the users' vectors */

/* ---- Conversations (memory_history.c) */

/* The conversation, caught up. `was_there`: it was in memory. */
PH_MUST_USE enum ph_status history_load(struct memory *memory, struct memory_user *user, struct store *store,
                                        const struct store_conversation *conversation, struct history **out,
                                        bool *was_there, struct ph_err *err);
/* Adds messages that follow. */
PH_MUST_USE enum ph_status history_take(struct history *history, const struct store_messages *messages);
void history_free(struct history *history);
/* The way from the beginning to seq `end` (INT64_MAX: the end): indices into the list, without heads. `head`
 * gets those of the system messages that hold there. Both have room for all. */
void history_path(const struct history *history, int64_t end, size_t *path, size_t *count, size_t *head,
                  size_t *head_count);
uint32_t history_cost(struct history *history, size_t index, const struct memory_counter *counter);
uint32_t memory_cost(const struct chat_message *message, const struct memory_counter *counter);
/* A deep copy. false: no memory. */
PH_MUST_USE bool memory_chat_copy(struct arena *arena, const struct chat_message *from,
                                  struct chat_message *to);
bool memory_says_same(const struct memory_message *stored, const struct chat_message *message,
                      uint64_t print);

/* ---- Conversations in a cache that stations share (memory_shared.c, hot_value.c) */

/* Fills an empty history from there, caught up. PH_ERR_NOTFOUND: it is not there. PH_ERR_CONFLICT: what is
 * there does not hold, and what the history has is to be thrown away. */
PH_MUST_USE enum ph_status history_recall(struct memory *memory, struct memory_user *user,
                                          struct store *store, const struct store_conversation *conversation,
                                          struct history *history, struct ph_err *err);
/* Puts it there when enough has been added. */
void history_share(struct memory *memory, const struct memory_user *user,
                   const struct store_conversation *conversation, struct history *history);
void memory_count_shared(struct memory *memory, enum ph_status status); /* of history_recall */

/* A value: begun, filled, sealed for a name, perhaps filled on and sealed again. */
bool hot_value_name(const struct store_conversation *conversation, char out[MEMORY_HOT_NAME_MAX]);
void hot_value_begin(struct buf *out);
void hot_value_add(struct buf *out, const struct store_message *message);
bool hot_value_seal(struct buf *value, const char *name, int64_t deletions, size_t count);
/* false: it is none of ours, damaged, or another name's. Points into `bytes`; conversation is 0. */
bool hot_value_read(struct arena *arena, const char *name, const char *bytes, size_t len, int64_t *deletions,
                    struct store_messages *out);

#endif
