/* memory/store: every conversation kept, durably, in SQLite (one file) or PostgreSQL.
 *
 * A store holds users, their conversations, the messages in them, stored responses, feedback, embeddings.
 * Messages are kept verbatim, one row each, compressed with a dictionary that the store trains from itself.
 *
 * Numbers. Everything that is stored has a number, given in the order of commits and never given again: of
 * two messages the one with the greater number was stored later. Whoever keeps an index of a user catches up
 * with "messages above the last number I know"; when `deletions` of the user (store_user) has changed,
 * something was taken away and the index is built anew. A user who was deleted and came back is another one,
 * with another number.
 *
 * Names. A user is known by a text; a conversation by a text (`key`) that is unique for its user; a message
 * by an id that is unique in its conversation. A message given without an id has its place as its id:
 * "msg_<seq>". `seq` counts a conversation's messages from 0; deleted ones leave gaps.
 *
 * Writing is asynchronous: store_submit copies what it is given into a bounded queue (PH_ERR_BUSY when it is
 * full), one thread writes many of them in one transaction, and `done` is called on that thread when it is on
 * the disk, in the order of submission (but for a user's deletion, which takes longer). What `done` is told
 * of as PH_OK survives kill -9 and power cuts. store_write waits for that. Writes are idempotent, so that
 * one whose outcome is unknown may be repeated. Several processes may use one store at the same time.
 *
 * Reading is blocking and sees everything that was acknowledged before the call. Results lie in the caller's
 * arena. Texts are terminated; those with a length beside them may hold 0 bytes.
 *
 * Limits are STORE_* in base/limits.h. Nothing that is kept here is ever logged, or quoted in an error: those
 * name users and conversations. Thread: any, but for what a comment says. */
#ifndef PHAROS_MEMORY_STORE_H
#define PHAROS_MEMORY_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/status.h"

struct store;

struct store_params {
    const char *dir;      /* SQLite: `dir`/store.db; made if absent, 0700, the file 0600 */
    const char *postgres; /* "postgresql://..."; NULL: SQLite */
    const struct clock_source *clock;
    size_t readers;  /* connections for reading; 0: STORE_READERS_DEFAULT */
    bool must_exist; /* PH_ERR_NOTFOUND instead of making a new store */
    bool read_only;  /* no writer: store_submit is PH_ERR_UNSUPPORTED */
    bool is_further; /* the store's own, after its first connection: waits for a server that is away */
};
/* Brings an older store up to this program's schema; refuses a newer one (PH_ERR_UNSUPPORTED). */
PH_MUST_USE enum ph_status store_open(struct store **out, const struct store_params *params,
                                      struct ph_err *err);
/* Writes what is queued, calls every `done`, closes. No other thread may be inside. NULL: fine. */
void store_close(struct store *store);

/* ---- What is kept */

struct store_user {
    int64_t number;
    const char *name;
    int64_t created_ms;
    int64_t deletions;    /* goes up whenever something of this user is deleted */
    int64_t last_message; /* number of the newest one; 0: none */
};

struct store_conversation {
    int64_t number, user; /* numbers */
    const char *user_name;
    const char *key;
    const char *domain;   /* "": none */
    const char *metadata; /* JSON text; "": none was ever given */
    int64_t created_ms;
    int64_t updated_ms; /* of its newest message */
    int64_t next_seq;
    int64_t messages;     /* how many there are: next_seq less the deleted ones */
    int64_t last_message; /* number of the one appended last; 0: none */
};

enum {
    STORE_CONTENT_TEXT, /* content is the text */
    STORE_CONTENT_JSON, /* content is JSON: parts, images, ... as they came */
    STORE_CONTENT_NONE  /* null, as in an assistant's message that only calls tools */
};

/* Both what is given and what is read. Given, `number`, `conversation` and `seq` are ignored. */
struct store_message {
    int64_t number, conversation, seq;
    const char *id;   /* NULL or "" when given: its place is its id */
    const char *role; /* "user", "assistant", "tool", ...: any text, kept as it is */
    const char *name; /* "": none; NULL is fine when given, as in all of these */
    const char *content;
    size_t content_len;
    int content_kind;  /* STORE_CONTENT_* */
    const char *extra; /* JSON object: tool_calls, tool_call_id, finish, metadata, ...; "": none */
    int64_t tokens;    /* 0: not known */
    int64_t created_ms;
};

struct store_messages {
    struct store_message *items; /* [count] */
    size_t count;
    bool more; /* the limit cut it off: there are further ones */
};

struct store_response {
    const char *id;       /* unique for its user */
    int64_t user;         /* numbers: as read; given, `user` is ignored */
    int64_t conversation; /* 0: none, or deleted */
    int64_t end_seq;      /* the conversation's messages before this seq are what it had seen and said */
    const char *previous; /* id of the previous response; "": none */
    const char *json;     /* the response object, or whatever the caller keeps */
    size_t json_len;
    int64_t created_ms;
};

struct store_feedback {
    int64_t user;         /* numbers: as read */
    const char *response; /* id of a response, or of a request whose answer was not stored */
    double score;         /* -1 to 1, kept to a millionth */
    const char *note;     /* "": none */
    int64_t created_ms;
};

/* ---- Writing */

/* Where the first message of an append goes. */
#define STORE_AT_END INT64_C(-1)

/* Messages added to a conversation's end; user and conversation are made when they are not there. Of messages
 * with ids those that the conversation has are passed over. Of messages without ids and an `at` that is not
 * STORE_AT_END those whose place is taken are passed over, so that an import may be repeated. */
struct store_append {
    const char *user, *key; /* names */
    const char *domain;     /* of a new conversation, as metadata is; NULL: none */
    const char *metadata;
    const struct store_message *messages; /* created_ms 0: now */
    size_t count;                         /* 0: only makes the conversation */
    int64_t at;      /* STORE_AT_END, or the seq that messages[0] must get: PH_ERR_CONFLICT when others were
                      * first and not all of the messages are there already */
    bool must_exist; /* PH_ERR_NOTFOUND instead of a new conversation */
    const struct store_response *response; /* stored with it; conversation and end_seq are filled in */
};

/* A conversation's metadata or domain, anew. */
struct store_update {
    const char *user, *key;
    const char *domain, *metadata; /* NULL: stays as it is */
};

struct store_vector {
    int64_t message; /* number; one that is not the user's (any more) is passed over */
    const void *bytes;
    size_t len;
};
/* Vectors of a user's messages in a space (an embedding model's name and hash); they replace older ones. */
struct store_embeddings {
    int64_t user;
    const char *space;
    const struct store_vector *items;
    size_t count;
};

enum store_write_kind {
    STORE_APPEND,
    STORE_UPDATE,
    STORE_RESPOND,  /* `response`, of user `user`, made where absent; replaces one of its id */
    STORE_FEEDBACK, /* `feedback`, of user `user`; the last word on a response counts */
    STORE_EMBED,
    STORE_DELETE_USER,         /* `user`: every trace, in the file too; takes seconds in a large store */
    STORE_DELETE_CONVERSATION, /* `user`, `key`: its messages and their vectors; responses stay */
    STORE_DELETE_MESSAGE,      /* `user`, `key`, `id` */
    STORE_DELETE_RESPONSE,     /* `user`, `id` */
    STORE_DELETE_SPACE,        /* `id`: the space's name; every vector in it */
    STORE_TIDY, /* after many were added: done when all are packed with a dictionary that fits them */
    STORE_WRITE_KIND_COUNT
};

struct store_write {
    enum store_write_kind kind;
    const char *user, *key, *id; /* of the kinds that say so above */
    union {
        struct store_append append;
        struct store_update update;
        struct store_response response;
        struct store_feedback feedback;
        struct store_embeddings embeddings;
    } u;
};

/* What a write did. What has no meaning for its kind is 0. */
struct store_result {
    int64_t user, conversation; /* numbers */
    bool new_user, new_conversation;
    int64_t first_number; /* APPEND: of the first message that was added */
    int64_t first_seq;    /* APPEND: of the first message that was added, or of the first one given */
    int64_t next_seq;
    size_t added, present; /* messages, vectors or rows added or deleted; messages passed over */
};

/* Called on the writer's thread: be short, and never wait for the store there. `err` is NULL with PH_OK.
 * PH_ERR_CONFLICT and PH_ERR_NOTFOUND: nothing was written, see the kinds. PH_ERR_IO: the disk or the server
 * refuses (full, gone); nothing of it is known to be there, repeating it is safe. */
struct store_done {
    void (*fn)(void *ud, enum ph_status status, const struct store_result *result, const struct ph_err *err);
    void *ud;
};

/* PH_OK: `done` will be called, once, perhaps before this returns. Any other status: it will not be.
 * PH_ERR_BUSY: the queue is full. PH_ERR_ARG, PH_ERR_LIMIT: what is given can't be stored; the error says
 * why. `done.fn` NULL: nobody wants to know. */
PH_MUST_USE enum ph_status store_submit(struct store *store, const struct store_write *write,
                                        struct store_done done, struct ph_err *err);
/* The same, waiting until it is durable, and for room in the queue. For commands and tests; not on the
 * writer's thread. `result` may be NULL. */
PH_MUST_USE enum ph_status store_write(struct store *store, const struct store_write *write,
                                       struct store_result *result, struct ph_err *err);
/* Writes waiting or at work. */
size_t store_queued(struct store *store);

/* ---- Reading. PH_ERR_NOTFOUND: there is none (lists are empty instead); PH_ERR_NOMEM: the arena's budget */

PH_MUST_USE enum ph_status store_find_user(struct store *store, struct arena *arena, const char *name,
                                           struct store_user *out, struct ph_err *err);
/* Users by number above `after`, at most `limit` of them (1 to STORE_PAGE_MAX). */
struct store_users {
    struct store_user *items;
    size_t count;
    bool more;
};
PH_MUST_USE enum ph_status store_list_users(struct store *store, struct arena *arena, int64_t after,
                                            size_t limit, struct store_users *out, struct ph_err *err);

/* `user` NULL: whoever's; PH_ERR_ARG when several users have one of this key. */
PH_MUST_USE enum ph_status store_find_conversation(struct store *store, struct arena *arena, const char *user,
                                                   const char *key, struct store_conversation *out,
                                                   struct ph_err *err);

/* Which conversations, newest first by updated_ms (and number). NULL and 0 mean any. */
struct store_filter {
    const char *user, *domain;
    int64_t from_ms, to_ms; /* updated_ms in [from, to) */
    size_t limit;           /* 0: STORE_PAGE_MAX, also the most */
    bool oldest_first;
    bool by_number; /* in the order in which they were made, oldest first, whatever the rest says */
    /* The page after this one: updated_ms and number of the last conversation seen; number 0: the first. */
    int64_t after_ms, after_number;
};
struct store_conversations {
    struct store_conversation *items;
    size_t count;
    bool more;
};
PH_MUST_USE enum ph_status store_list_conversations(struct store *store, struct arena *arena,
                                                    const struct store_filter *filter,
                                                    struct store_conversations *out, struct ph_err *err);

/* Messages of a conversation with seq in [from_seq, to_seq), in that order, or from the end backwards; at
 * most `limit` (0: no limit). to_seq 0: to the end. The newest N: {.newest_first = true, .limit = N}. */
struct store_range {
    int64_t conversation;
    int64_t from_seq, to_seq;
    size_t limit;
    bool newest_first;
};
PH_MUST_USE enum ph_status store_read_messages(struct store *store, struct arena *arena,
                                               const struct store_range *range, struct store_messages *out,
                                               struct ph_err *err);
/* One message by its id in a conversation; to page after it, go on from its seq. */
PH_MUST_USE enum ph_status store_find_message(struct store *store, struct arena *arena, int64_t conversation,
                                              const char *id, struct store_message *out, struct ph_err *err);
/* In which of a user's conversations a message with this id was stored last. Takes longer the more
 * conversations he has. */
PH_MUST_USE enum ph_status store_find_owned(struct store *store, const char *user, const char *id,
                                            int64_t *conversation, struct ph_err *err);
/* A user's messages by their numbers: out->items[i] is that of numbers[i], with number 0 where the user has
 * none such. */
PH_MUST_USE enum ph_status store_read_numbers(struct store *store, struct arena *arena, int64_t user,
                                              const int64_t *numbers, size_t count,
                                              struct store_messages *out, struct ph_err *err);

/* All messages of a user with a number above `after`, ascending, each handed to `fn`, to which they belong
 * until it returns. fn answers PH_OK to go on; anything else ends the walk, which answers it. No lock is held
 * and no transaction open while fn runs: it may use the store. */
PH_MUST_USE enum ph_status store_each_message(struct store *store, int64_t user, int64_t after,
                                              enum ph_status (*fn)(void *ud,
                                                                   const struct store_message *message),
                                              void *ud, struct ph_err *err);
/* The same for a user's vectors in a space. */
PH_MUST_USE enum ph_status
store_each_vector(struct store *store, int64_t user, const char *space, int64_t after,
                  enum ph_status (*fn)(void *ud, const struct store_vector *vector), void *ud,
                  struct ph_err *err);
/* How many vectors a user has in a space, and the greatest number of a message with one (0: none). */
PH_MUST_USE enum ph_status store_count_vectors(struct store *store, int64_t user, const char *space,
                                               int64_t *count, int64_t *last, struct ph_err *err);

PH_MUST_USE enum ph_status store_find_response(struct store *store, struct arena *arena, const char *user,
                                               const char *id, struct store_response *out,
                                               struct ph_err *err);
/* Of all users, above number `after` (0: from the first), ascending, as store_each_message does it. */
PH_MUST_USE enum ph_status store_each_feedback(struct store *store,
                                               enum ph_status (*fn)(void *ud,
                                                                    const struct store_feedback *feedback),
                                               void *ud, struct ph_err *err);

/* ---- Lines: a conversation as one line of JSON, as `pharos store import` and `export` have it:
 * {"id","user","domain","metadata","messages":[{"role","name","content","created_at","metadata"}]},
 * created_at in Unix seconds. "id" and "messages" must be there. What else a message has (tool_calls, ...)
 * is in its `extra`, and comes out again. */

#define STORE_LINE_USER "local" /* of a line that names none */

/* Fills an append from a line; everything lies in the arena. PH_ERR_FORMAT, PH_ERR_ARG: what is wrong with
 * it, and where. It may be repeated: what is there already is passed over. A created_at that is not said is
 * 0. */
PH_MUST_USE enum ph_status store_line_read(struct arena *arena, const char *text, size_t len,
                                           struct store_append *out, struct ph_err *err);
/* Appends the line, with its end; failures are the buffer's. `scratch` is for the time of the call. */
void store_line_write(struct buf *out, struct arena *scratch, const struct store_conversation *conversation,
                      const struct store_messages *messages);

/* ---- Looking after it */

struct store_stat {
    const char *backend; /* "sqlite", "postgres" */
    int64_t schema;
    int64_t users, conversations, messages, responses, feedback, vectors, dictionaries;
    int64_t text_bytes;   /* of contents, names, roles, extras */
    int64_t stored_bytes; /* the same, as it lies compressed in its rows */
    int64_t file_bytes;   /* of the whole store, with its indexes and its log */
};
/* Reads every row. `progress` (may be NULL) is told of messages done and in all. */
PH_MUST_USE enum ph_status store_stat(struct store *store, struct store_stat *out,
                                      void (*progress)(void *ud, int64_t done, int64_t total), void *ud,
                                      struct ph_err *err);

/* Checks all of it: the database's own check, references, counts, and that every row can be read. Each fault
 * is told to `fn` in one line: what is wrong, where, what to do. PH_OK: the check was made, `faults` says how
 * many were found. */
PH_MUST_USE enum ph_status store_verify(struct store *store, int64_t *faults,
                                        void (*fn)(void *ud, const char *fault),
                                        void (*progress)(void *ud, int64_t done, int64_t total), void *ud,
                                        struct ph_err *err);

#endif
