/* memory: what the station remembers, as the gateway and the command line use it.
 * Behind this door are the store (store.h: durable, one row a message), the users' indexes and the
 * building of contexts (context.h), and here: what of them is kept in memory, and the turns of chats. A
 * turn finds out which messages of a request are new, which of the old ones the model gets to see, and
 * stores what was said.
 * Nothing is opened before it is needed: a station whose requests name no conversation has no store file
 * and pays nothing. A store that cannot be opened is tried again at the next call.
 * Calls block (a disk, a database) and belong on helper threads, but for those that say "asynchronous".
 * Thread: any; calls for one user wait for each other. */
#ifndef PHAROS_MEMORY_MEMORY_H
#define PHAROS_MEMORY_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/status.h"
#include "chat/chat.h"
#include "memory/context.h"
#include "memory/hot.h"
#include "memory/store.h"

struct memory;

#define MEMORY_USER_LOCAL "local" /* whose conversations are of whom nobody said */

struct memory_params {
    const char *dir;      /* of the embedded store; copied, as the others */
    const char *postgres; /* "postgresql://..."; NULL: the embedded store */
    const char *selector; /* a file of pharos train spt; NULL: the shipped one */
    bool must_exist;      /* a store that is not there is an error, not made */
    bool read_only;
    const struct clock_source *clock;
    size_t bytes_max; /* of indexes and conversations kept in memory; 0: MEMORY_BYTES_MAX */
    struct hot *hot;  /* hot.h: a cache that stations share; outlives the memory. NULL: there is none */
};

struct embedder; /* engine/embedder.h */

/* Opens nothing. */
PH_MUST_USE enum ph_status memory_create(struct memory **out, const struct memory_params *params,
                                         struct ph_err *err);
/* Writes what is queued. No other thread may be inside. NULL is fine. */
void memory_free(struct memory *memory);
/* Opens it when it was not open. Lives as long as the memory. */
PH_MUST_USE enum ph_status memory_store(struct memory *memory, struct store **out, struct ph_err *err);
/* From now on contexts heed how near messages are in this model's space; who stores their vectors is
 * embed.h's worker. It outlives the memory. The first one stays. */
PH_MUST_USE enum ph_status memory_use_embedder(struct memory *memory, struct embedder *embedder,
                                               struct ph_err *err);
/* A new message's or conversation's name. */
void memory_make_id(struct memory *memory, const char *prefix, char out[ID_TEXT_MAX]);
/* What is in memory now. With a shared cache: for the loop's thread. */
struct memory_stats {
    size_t users, bytes;
    uint64_t turns, hits; /* hits: of them, those whose conversation was in memory */
    bool is_shared;       /* there is a cache that stations share, which gave, ... */
    uint64_t shared_hits, shared_misses;
    uint64_t shared_refused; /* ... or gave what the store says is not so */
    struct redis_stats redis;
};
void memory_stats_read(struct memory *memory, struct memory_stats *out);

/* Asynchronous: what other stations find of a conversation that something was deleted from is of no use any
 * more, and need not lie there. */
void memory_forget(struct memory *memory, const struct store_conversation *conversation);

/* ---- Messages */

/* The messages of a store as those of chats, in `arena`, and the reverse. false: no memory. */
struct memory_message {
    struct chat_message chat;
    int64_t number, seq, created_ms;
    const char *id;
    uint64_t print;    /* equal for messages that say the same */
    uint32_t tokens;   /* estimated */
    bool is_head;      /* a system message that holds for what follows */
    bool is_cut;       /* a reply whose reader left, or that broke off */
    bool is_branch;    /* what came after seq `after` is not part of the history any more */
    int64_t after;     /* -1: nothing was before */
    const char *extra; /* JSON; "": none */
};
PH_MUST_USE bool memory_message_read(struct arena *arena, const struct store_message *stored,
                                     struct memory_message *out);
/* number, seq and created_ms are not written. */
PH_MUST_USE bool memory_message_write(struct arena *arena, const struct memory_message *message,
                                      const char *finish, struct store_message *out);
/* The texts in a message's metadata (captions, titles), by which it is to be found too; *about NULL: none.
 * false: no memory. */
PH_MUST_USE bool memory_message_about(struct arena *arena, const char *extra, const char **about,
                                      size_t *about_len);
uint64_t memory_message_print(const struct chat_message *message);
const char *memory_role_name(enum chat_role role);

/* ---- Turns of chats */

/* How many tokens a text has for the model that is to answer. Called on the calling thread. */
struct memory_counter {
    const char *model; /* counts are kept under this name */
    uint32_t (*count)(void *ud, const char *text, size_t len);
    void *ud;
};

struct memory_turn_params {
    const char *user;         /* NULL: nobody said; whoever's conversation it is, "local" for a new one */
    const char *conversation; /* NULL: none was named */
    bool must_exist;
    const char *previous_response; /* goes on from there; NULL: no */
    const struct chat_request *request;
    uint32_t budget_tokens;               /* of all that is sent; 0: no limit */
    uint32_t keep_recent;                 /* newest messages that always go */
    enum context_strategy strategy;       /* CONTEXT_STRATEGY_COUNT: the best there is */
    const struct memory_counter *counter; /* NULL: estimates */
    bool unkept;                          /* nothing of this turn shall be stored */
};

struct memory_turn {
    struct arena arena;
    const char *user, *key; /* whose conversation, and which */
    /* To be sent instead of the request's messages. */
    struct chat_message *messages;
    size_t message_count;
    bool is_changed;              /* they are not the request's */
    struct memory_message *fresh; /* to be stored */
    size_t fresh_count;
    bool must_exist;
    bool is_branch; /* the reply begins one, when nothing fresh does */
    int64_t after;
    const char *previous;   /* response; NULL: none */
    struct chat_text begun; /* what the client had the reply begin with */
    const char *strategy;   /* "all": everything fitted */
    uint32_t tokens, budget_tokens;
    size_t history, chosen; /* messages there are before this turn's, and of them, sent */
    bool unkept;
};

/* Loads, recognises, builds. PH_ERR_NOTFOUND: no such conversation or response. The turn is valid, and to
 * be released, whatever comes back. */
PH_MUST_USE enum ph_status memory_turn_open(struct memory *memory, const struct memory_turn_params *params,
                                            struct memory_turn *turn, struct ph_err *err);
void memory_turn_release(struct memory_turn *turn);
/* Asynchronous: the fresh messages are queued, or there are none. Never waits. */
PH_MUST_USE enum ph_status memory_turn_ask(struct memory *memory, const struct memory_turn *turn,
                                           struct store_done done, struct ph_err *err);

struct memory_reply {
    const char *id; /* of the message: "msg_..." */
    struct chat_message chat;
    const char *finish; /* "stop", "length", "tool_calls", "content_filter", "cut" */
    bool is_cut;
    int64_t tokens;
    const char *response_id; /* a response object is stored too; NULL: none */
    const char *response;
    size_t response_len;
};
/* Asynchronous: the reply is queued; `done` says when it is durable, and with it all before it. */
PH_MUST_USE enum ph_status memory_turn_reply(struct memory *memory, const struct memory_turn *turn,
                                             const struct memory_reply *reply, struct store_done done,
                                             struct ph_err *err);
/* A kept response: "conversation", "input" (ids), "response" of what was kept. */
struct memory_response {
    struct store_response stored;
    const char *key;             /* its conversation's */
    const struct json *input;    /* ids of the messages that it answered */
    const struct json *response; /* the object */
};
PH_MUST_USE enum ph_status memory_find_response(struct memory *memory, struct arena *arena, const char *user,
                                                const char *id, struct memory_response *out,
                                                struct ph_err *err);

/* ---- Contexts */

struct memory_context_params {
    const char *user;         /* NULL: nobody said */
    const char *conversation; /* NULL: all of the user's */
    const char *query;
    size_t query_len;
    const char *query_name;
    uint32_t budget_tokens, keep_recent;
    enum context_strategy strategy; /* as of a turn */
    const struct memory_counter *counter;
};
struct memory_context_item {
    struct store_message message;
    const char *conversation; /* its key */
    struct context_item item;
};
struct memory_context {
    struct memory_context_item *items; /* in conversation order; in the arena */
    size_t count;
    uint32_t tokens, turns, candidates;
    enum context_strategy strategy; /* that was used */
};
PH_MUST_USE enum ph_status memory_context_build(struct memory *memory, struct arena *arena,
                                                const struct memory_context_params *params,
                                                struct memory_context *out, struct ph_err *err);
/* As JSON, the contract's; `explain`: with the reasons. */
void memory_context_write(const struct memory_context *context, const struct memory_context_params *params,
                          bool explain, double elapsed_ms, struct buf *out);

#endif
