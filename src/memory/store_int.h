/* What the files of the store share: the open store, its codec, its writer. */
#ifndef PHAROS_MEMORY_STORE_INT_H
#define PHAROS_MEMORY_STORE_INT_H

#include <stdatomic.h>

#include <uv.h>

#include "memory/store.h"
#include "memory/store_db_int.h"
#include "memory/store_sql_int.h"

/* ---- Codec (store_codec.c): a message's texts as the bytes of its row, and back. Thread: any */

/* How a row's body lies there; above 0: compressed with the dictionary of that number. */
#define STORE_CODING_RAW INT64_C(-1)
#define STORE_CODING_PLAIN INT64_C(0)
#define STORE_UPGRADE_NONE INT64_C(-2)
#define STORE_LONG_BYTES ((size_t)64 << 10) /* from here on a dictionary is of no use */

struct store_dictionary;
struct store_context;

struct store_codec {
    uv_mutex_t mutex;
    struct store_dictionary *dictionaries; /* never freed before the codec */
    struct store_context *contexts;        /* idle ones */
};

struct store_body {
    int64_t coding;
    const void *bytes;
    size_t len;
};

PH_MUST_USE enum ph_status store_codec_init(struct store_codec *codec, struct ph_err *err);
void store_codec_release(struct store_codec *codec);
bool store_codec_has(struct store_codec *codec, int64_t dictionary);
PH_MUST_USE enum ph_status store_codec_add(struct store_codec *codec, int64_t dictionary, const void *bytes,
                                           size_t len, struct ph_err *err);
/* Compresses with a dictionary (0: with none; one that is not known here: with none). */
PH_MUST_USE enum ph_status store_codec_pack(struct store_codec *codec, struct arena *arena,
                                            int64_t dictionary, const void *bytes, size_t len,
                                            struct store_body *out, struct ph_err *err);
/* `*out` is terminated. PH_ERR_NOTFOUND: the dictionary is not known here; PH_ERR_FORMAT: damaged. */
PH_MUST_USE enum ph_status store_codec_unpack(struct store_codec *codec, struct arena *arena,
                                              const struct store_body *body, const char **out, size_t *len,
                                              struct ph_err *err);
/* How many bytes it unpacks to, without doing it; 0: damaged. */
size_t store_codec_unpacked(const struct store_body *body);

/* The texts of a message as one run of bytes. */
PH_MUST_USE enum ph_status store_message_join(struct arena *arena, const struct store_message *message,
                                              const char **out, size_t *len, struct ph_err *err);
/* Points the message's role, name, extra and content into such a run. false: it is none. */
bool store_message_split(const char *bytes, size_t len, struct store_message *message);

/* Trains a dictionary on samples laid end to end. PH_ERR_NOTFOUND: there is nothing to learn from them. */
PH_MUST_USE enum ph_status store_codec_train(struct arena *arena, const char *samples, const size_t *sizes,
                                             size_t count, const void **out, size_t *len, struct ph_err *err);

/* "msg_<number>" as the store itself writes it; false: an id of another kind. */
bool store_place_of(const char *id, int64_t *seq);

/* ---- Jobs and the writer (store_submit.c, store_writer.c, store_write.c) */

enum { STORE_INSTALL = STORE_WRITE_KIND_COUNT }; /* a kind of the store's own: a trained dictionary */

struct store_install {
    struct store_body dictionary; /* bytes, len; coding is not used */
    const int64_t *donors;        /* users whose texts are in it */
    size_t donor_count;
    int64_t trained_at; /* the store's last number then */
};

struct store_job {
    struct store_job *next;
    struct arena arena;
    struct store_write write;  /* its texts lie in the arena; messages without their texts, ... */
    struct store_body *bodies; /* ... which are here, as the response's json is in response_body */
    struct store_body response_body;
    struct store_install install;
    struct store_done done;
    size_t bytes, rows; /* what it counts for in the queue and in a batch */
    enum ph_status status;
    struct ph_err err;
    struct store_result result;
};

struct store_queue {
    uv_mutex_t mutex;
    uv_cond_t filled, drained;
    struct store_job *first, **last;
    size_t count, bytes; /* waiting or at work */
    bool closed;
};

/* One transaction's view of the row `state`. */
struct store_state {
    int64_t schema, number, dictionary, purge;
};

struct store_writer {
    struct store *store;
    struct store_db *db;
    struct store_state state;                  /* in a transaction only */
    struct arena scratch;                      /* cleared after each batch */
    struct store_job *waiting, **waiting_last; /* jobs that are done when the chores are */
    bool chores;                               /* there may be some */
    int64_t recode_conversation, recode_seq;   /* how far a retired dictionary's rows were rewritten */
    int64_t recode_dictionary;
    int64_t upgrade; /* the coding whose rows are packed anew because there is a dictionary now */
    uint64_t chore_next_ns, chore_until_ns; /* one that failed: its next try, and when that is told, */
    struct ph_err chore_err;                /* with these words, */
    bool chore_told;                        /* once */
    int64_t trained_at, train_at; /* the store's number at the last training, and for the next one */
    struct store_trainer *trainer;
};

struct store_conn {
    struct store_conn *next;
    struct store_db *db;
};

struct store {
    const struct store_driver *driver;
    const struct clock_source *clock;
    struct store_params params; /* its texts are this store's own */
    struct store_codec codec;
    _Atomic int64_t dictionary; /* the newest one, for packing; a guess that the writer checks */
    struct store_queue queue;
    struct store_writer writer;
    uv_thread_t writer_thread;
    bool writing; /* the thread runs */
    bool is_open; /* a connection that is made from now on waits for a server that is away */
    uv_mutex_t readers_mutex;
    uv_cond_t readers_free;
    struct store_conn *readers; /* idle ones */
    size_t readers_open, readers_max;
};

/* Runs until the queue is closed and empty. */
void store_writer_run(void *store);
void store_writer_init(struct store_writer *writer, struct store *store);
void store_writer_release(struct store_writer *writer);

/* Inside the writer's transaction. PH_OK: the transaction is sound, job->status and result say what became of
 * the job. Anything else: it must be rolled back. */
PH_MUST_USE enum ph_status store_apply(struct store_writer *writer, struct store_job *job,
                                       struct ph_err *err);
PH_MUST_USE enum ph_status store_state_lock(struct store_writer *writer, struct ph_err *err);
PH_MUST_USE enum ph_status store_state_write(struct store_writer *writer, struct ph_err *err);

PH_MUST_USE enum ph_status store_job_new(struct store_job **out, struct ph_err *err);
void store_job_free(struct store_job *job);
PH_MUST_USE enum ph_status store_job_put(struct store *store, struct store_job *job, bool wait,
                                         struct ph_err *err);
/* Whether the queue is full, or closed, or not: for what the store itself has to write. */
void store_job_put_always(struct store *store, struct store_job *job);

/* ---- Dictionaries (store_train.c) */

void store_train_look(struct store_writer *writer);    /* begins a training when it is time for one */
bool store_train_running(struct store_writer *writer); /* joins one that is done */
void store_train_join(struct store_writer *writer);
/* How the store goes on after a user was deleted: rewrites some rows of a retired dictionary, then purges.
 * Answers how long the writer may sleep before it asks again; 0: at once; UINT64_MAX: there is nothing. */
uint64_t store_chore(struct store_writer *writer);
int64_t store_train_next(int64_t trained_at);
void store_train_installed(struct store_writer *writer); /* there is a new dictionary: rows are packed anew */
void store_train_hasten(struct store_writer *writer);    /* trains now if the store has grown a little */

/* ---- Reading (store.c, store_read.c) */

PH_MUST_USE enum ph_status store_reader_take(struct store *store, struct store_conn **out,
                                             struct ph_err *err);
void store_reader_put(struct store *store, struct store_conn *conn);
/* Makes a dictionary known to the codec. PH_ERR_NOTFOUND: the store has none of that number. */
PH_MUST_USE enum ph_status store_dictionary_load(struct store *store, struct store_db *db, int64_t dictionary,
                                                 struct ph_err *err);

/* A message's row as it lies there, its body in the arena. */
struct store_row {
    struct store_message message;
    struct store_body body;
    int64_t owner; /* MESSAGES_WALK only */
};
struct store_rows {
    struct store_row *items;
    size_t count, room, bytes;
    bool whole; /* no further rows */
};
/* Steps the current statement until its end, `max` rows or STORE_PAGE_BYTES. */
PH_MUST_USE enum ph_status store_rows_take(struct store_db *db, struct arena *arena, size_t max, bool owner,
                                           struct store_rows *rows, struct ph_err *err);
PH_MUST_USE enum ph_status store_row_unpack(struct store *store, struct store_db *db, struct arena *arena,
                                            struct store_row *row, struct ph_err *err);
/* A statement with one number as its result; no row: 0. */
PH_MUST_USE enum ph_status store_query_int(struct store_db *db, unsigned statement, int64_t *out,
                                           struct ph_err *err);

#endif
