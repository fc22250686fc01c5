/* memory/embed: how messages get their vectors: the spaces, and the indexing of what the store has.
 *
 * A space is made by an embedding model, or by the lexical embedding when there is none. Its name says which
 * one exactly (a model's name and the hash of its file's description; the hash of the statistics), so that
 * vectors of two models never meet.
 *
 * Thread: any. */
#ifndef PHAROS_MEMORY_EMBED_H
#define PHAROS_MEMORY_EMBED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "memory/store.h"

struct embedder; /* engine/embedder.h */
struct embed_space;

/* The space of a model; the embedder must outlive it. */
PH_MUST_USE enum ph_status embed_space_of_model(struct embed_space **out, struct embedder *embedder,
                                                struct ph_err *err);
/* The lexical space. Its statistics are read from `path`; where there are none they are counted from the
 * store's messages and kept there, and, if the store has but few yet, counted anew the next time it is opened
 * with many more: then it is another space, and messages are indexed again. */
PH_MUST_USE enum ph_status embed_space_lexical(struct embed_space **out, struct store *store,
                                               const char *path, struct ph_err *err);
/* After a user was deleted: the statistics, which knew his words too, go with the vectors made by them. The
 * next indexing counts anew. */
PH_MUST_USE enum ph_status embed_lexical_forget(struct store *store, const char *path, struct ph_err *err);
void embed_space_free(struct embed_space *space); /* NULL is fine */
const char *embed_space_name(const struct embed_space *space);
size_t embed_space_width(const struct embed_space *space);

struct embed_text {
    const char *text;
    size_t len;
};
/* out [count][width], of length 1, or all zeros where a text says nothing. Texts longer than a model reads
 * are cut. `background`: others go first. */
PH_MUST_USE enum ph_status embed_texts(struct embed_space *space, const struct embed_text *texts,
                                       size_t count, bool background, float *out, struct ph_err *err);

/* What of a message is embedded: its text, or the texts of its parts; len 0: nothing. In the arena. */
struct embed_text embed_message_text(struct arena *arena, const struct store_message *message);

/* ---- Indexing: every message that has no vector in the space gets one */
struct embed_index_params {
    struct store *store;
    struct embed_space *space;
    const char *user; /* NULL: all users */
    int64_t after;    /* users whose newest message's number is not above are passed over; 0: none are */
    bool background;
    /* Messages looked at, and in all (0 in the background, where nobody counts them first); may be NULL;
     * false: stop. */
    bool (*progress)(void *ud, int64_t done, int64_t total);
    void *ud;
};
struct embed_index_result {
    int64_t users, messages,
        embedded; /* messages: that had no vector; embedded: of them, that have one now */
};
/* Blocks. What was embedded is stored in pieces as it goes, so a run that is stopped (PH_ERR_CANCELLED) or
 * killed goes on where it was. A message without text gets no vector. */
PH_MUST_USE enum ph_status embed_index(const struct embed_index_params *params,
                                       struct embed_index_result *result, struct ph_err *err);

/* ---- Indexing beside a running station: a thread that looks now and then whether there is something new */
struct embed_worker;

struct embed_worker_params {
    struct embedder *embedder; /* outlives it */
    /* The store, or NULL while there is none. Called on the worker's thread; the store outlives it. */
    struct store *(*store)(void *ud);
    void *ud;
    uint32_t interval_ms; /* between looks; 0: EMBED_WORKER_INTERVAL_MS */
};
struct embed_worker_stats {
    int64_t embedded; /* since it began */
    uint64_t looks;
    bool failed; /* the last look; it was logged */
};
PH_MUST_USE enum ph_status embed_worker_start(struct embed_worker **out,
                                              const struct embed_worker_params *params, struct ph_err *err);
void embed_worker_stats_read(struct embed_worker *worker, struct embed_worker_stats *out);
/* Stops after the piece it is at. NULL is fine. */
void embed_worker_stop(struct embed_worker *worker);

#endif
