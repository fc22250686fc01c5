/* memory/vectors: the vectors of a user's messages in one space, to search among and to look up.
 *
 * They lie in a mapped file, vectors/<user>-<space>.vec, which is derived from the store's embeddings and is
 * never the only copy: a file that is missing, damaged, or of another state of the store is made anew. A
 * search reads codes of 8 bits of all messages in question, and ranks the best of them again by their vectors
 * in F16. The cost depends on this user's messages alone.
 *
 * One process at a time has the files (`home`); others, such as commands beside a running station, keep what
 * they need in memory.
 *
 * A space is what vectors can be compared in: an embedding model, or the lexical embedding with its
 * statistics (embed.h). Vectors have length 1, so nearness is their dot product, -1 to 1.
 *
 * Thread: any number may search at the same time while nobody adds; the owner holds the lock. */
#ifndef PHAROS_MEMORY_VECTORS_H
#define PHAROS_MEMORY_VECTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct store;

/* ---- The folder */
struct vector_home;
/* Makes the folder (0700). Another process has it: no error, see above. */
PH_MUST_USE enum ph_status vector_home_open(struct vector_home **out, const char *dir, struct ph_err *err);
void vector_home_close(struct vector_home *home); /* after what was opened in it; NULL is fine */
bool vector_home_is_ours(const struct vector_home *home);
/* A deleted user's files go. */
PH_MUST_USE enum ph_status vector_home_forget(struct vector_home *home, int64_t user, struct ph_err *err);

/* ---- A user's vectors */
struct vectors;

struct vectors_params {
    struct vector_home *home; /* outlives it */
    int64_t user;             /* the store's number */
    const char *space;        /* at most STORE_SPACE_BYTES_MAX */
    size_t width;             /* numbers of a vector, 1 .. VECTORS_WIDTH_MAX */
};

/* What the file holds, as far as it is whole; nothing when it is another's. */
PH_MUST_USE enum ph_status vectors_open(struct vectors **out, const struct vectors_params *params,
                                        struct ph_err *err);
void vectors_close(struct vectors *vectors); /* NULL is fine */
/* Catches up with the store: adds what is new; makes it anew when something was deleted, or differs. */
PH_MUST_USE enum ph_status vectors_update(struct vectors *vectors, struct store *store, struct ph_err *err);

/* `message` must be greater than every one there is (PH_ERR_ARG); vector [width]. */
PH_MUST_USE enum ph_status vectors_add(struct vectors *vectors, int64_t message, int64_t conversation,
                                       const float *vector, struct ph_err *err);
/* Empties it. */
PH_MUST_USE enum ph_status vectors_clear(struct vectors *vectors, struct ph_err *err);
/* Brings it to the disk. What is not is checked row by row when the file is opened after a power cut. */
PH_MUST_USE enum ph_status vectors_sync(struct vectors *vectors, struct ph_err *err);

size_t vectors_count(const struct vectors *vectors);
size_t vectors_width(const struct vectors *vectors);
int64_t vectors_last(const struct vectors *vectors); /* the newest message; 0: none */
/* A message's vector [width]; false: it has none. */
bool vectors_get(const struct vectors *vectors, int64_t message, float *out);

struct vectors_filter {
    int64_t conversation;                    /* 0: any */
    int64_t after, before;                   /* messages between these, both excluded; 0: no bound */
    bool (*keep)(void *ud, int64_t message); /* NULL: all; asked of the near ones only */
    void *ud;
};

struct vectors_hit {
    int64_t message;
    float score;
};

/* The k nearest to query [width], best first; of equals the newer. k <= VECTORS_HITS_MAX. Answers how many.
 * filter NULL: all. */
size_t vectors_search(const struct vectors *vectors, const float *query, size_t k,
                      const struct vectors_filter *filter, struct vectors_hit *hits);

#endif
