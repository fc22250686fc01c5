/* Dictionaries: when one is trained, from what, and how it goes.
 *
 * A training takes half a second, so it has a thread and a connection of its own; what it finds comes in
 * through the queue like any write. The first is made when there are TRAIN_MESSAGES, then whenever the store
 * has grown GROWTH-fold. Samples are runs of messages from conversations all over the store. A dictionary
 * takes the place of the one before: that one is retired, every row that it packed is packed anew (a third
 * of a row for each that is written, all in all), and it is deleted.
 *
 * A dictionary holds pieces of people's messages. So the store knows whose (its donors), and when one of them
 * is deleted the dictionary is retired at once. Then the file itself is purged. These are the chores: they
 * are done in small steps between the writer's groups, what is left of them is found in the store itself,
 * and a process that is killed over them leaves them to the next one. */
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "memory/store_int.h"

#define TRAIN_MESSAGES 2000
#define GROWTH 4
#define SAMPLES_MAX 20000
#define SAMPLES_MIN 500
#define SAMPLE_BYTES_MAX 4096 /* of one message */
#define SAMPLES_BYTES_MAX ((size_t)3 << 20)
#define RUN_MESSAGES 16
#define RUNS_MAX 4000
#define ARENA_BYTES_MAX ((size_t)64 << 20)
#define RECODE_ROWS 2000
#define NOTHING STORE_UPGRADE_NONE
#define NS_PER_MS UINT64_C(1000000)
#define CHORE_RETRY_NS (500 * NS_PER_MS)
#define CHORE_LATER_NS (30000 * NS_PER_MS) /* when it was told that it does not get done */
#define TRAIN_LOOK_NS (20 * NS_PER_MS)

struct store_trainer {
    uv_thread_t thread;
    _Atomic bool done;
    struct store *store;
    struct store_db *db;
    int64_t number; /* the store's last one */
    struct rng rng;
    struct arena arena, scratch; /* what is kept to the end; what is not */
    char *samples;
    size_t *sizes;
    int64_t *donors;
    size_t bytes, count, donor_count;
};

int64_t store_train_next(int64_t trained_at)
{
    return trained_at > 0 ? trained_at * GROWTH : TRAIN_MESSAGES;
}

/* ---- The training, on its thread */

static enum ph_status note_donor(struct store_trainer *trainer, int64_t owner)
{
    for (size_t i = trainer->donor_count; i-- > 0;)
        if (trainer->donors[i] == owner)
            return PH_OK;
    trainer->donors[trainer->donor_count++] = owner; /* one a run at most */
    return PH_OK;
}

static enum ph_status take_sample(struct store_trainer *trainer, struct store_row *row)
{
    const char *bytes;
    size_t len;
    enum ph_status status =
        store_codec_unpack(&trainer->store->codec, &trainer->scratch, &row->body, &bytes, &len, NULL);
    if (status == PH_ERR_NOTFOUND) {
        status = store_dictionary_load(trainer->store, trainer->db, row->body.coding, NULL);
        if (status == PH_OK)
            status =
                store_codec_unpack(&trainer->store->codec, &trainer->scratch, &row->body, &bytes, &len, NULL);
    }
    if (status != PH_OK)
        return status;
    if (len > SAMPLE_BYTES_MAX)
        len = SAMPLE_BYTES_MAX;
    if (trainer->count == SAMPLES_MAX || trainer->bytes + len > SAMPLES_BYTES_MAX)
        return PH_ERR_LIMIT;
    memcpy(trainer->samples + trainer->bytes, bytes, len);
    trainer->bytes += len;
    trainer->sizes[trainer->count++] = len;
    return note_donor(trainer, row->owner);
}

/* A run of messages somewhere in a conversation chosen by chance. */
static enum ph_status take_run(struct store_trainer *trainer)
{
    struct store_db *db = trainer->db;
    bool row;
    arena_clear(&trainer->scratch);
    db->driver->start(db, STORE_SQL_CONVERSATION_NEAR);
    db->driver->bind_int(db, (int64_t)(rng_double(&trainer->rng) * (double)trainer->number));
    enum ph_status status = db->driver->step(db, &row, NULL);
    if (status != PH_OK || !row)
        return status;
    int64_t conversation = db->driver->column_int(db, 0), next_seq = db->driver->column_int(db, 1);
    int64_t seq = (int64_t)(rng_double(&trainer->rng) * (double)next_seq) - RUN_MESSAGES / 2;
    struct store_rows rows = {.items = NULL};
    db->driver->start(db, STORE_SQL_MESSAGES_WALK);
    db->driver->bind_int(db, conversation);
    db->driver->bind_int(db, seq);
    db->driver->bind_int(db, RUN_MESSAGES);
    status = store_rows_take(db, &trainer->scratch, RUN_MESSAGES, true, &rows, NULL);
    for (size_t i = 0; status == PH_OK && i < rows.count; i++)
        status = take_sample(trainer, &rows.items[i]);
    return status;
}

static enum ph_status gather(struct store_trainer *trainer)
{
    trainer->samples = arena_alloc(&trainer->arena, SAMPLES_BYTES_MAX);
    trainer->sizes = arena_calloc(&trainer->arena, SAMPLES_MAX, sizeof *trainer->sizes);
    trainer->donors = arena_calloc(&trainer->arena, SAMPLES_MAX, sizeof *trainer->donors);
    if (!trainer->samples || !trainer->sizes || !trainer->donors)
        return PH_ERR_NOMEM;
    enum ph_status status = PH_OK;
    for (size_t i = 0; status == PH_OK && i < RUNS_MAX && (int64_t)trainer->count < trainer->number; i++)
        status = take_run(trainer);
    if (status != PH_OK && status != PH_ERR_LIMIT)
        return status;
    return trainer->count >= SAMPLES_MIN ? PH_OK : PH_ERR_NOTFOUND;
}

static enum ph_status hand_in(struct store_trainer *trainer, const void *bytes, size_t len)
{
    struct store_job *job = NULL;
    enum ph_status status = store_job_new(&job, NULL);
    if (status != PH_OK)
        return status;
    void *dictionary = arena_alloc(&job->arena, len);
    int64_t *donors = arena_calloc(&job->arena, trainer->donor_count, sizeof *donors);
    if (!dictionary || !donors) {
        store_job_free(job);
        return PH_ERR_NOMEM;
    }
    memcpy(dictionary, bytes, len);
    memcpy(donors, trainer->donors, trainer->donor_count * sizeof *donors);
    job->write.kind = (enum store_write_kind)STORE_INSTALL;
    job->install = (struct store_install){.dictionary = {.bytes = dictionary, .len = len},
                                          .donors = donors,
                                          .donor_count = trainer->donor_count,
                                          .trained_at = trainer->number};
    store_job_put_always(trainer->store, job);
    return PH_OK;
}

static void train(void *ud)
{
    struct store_trainer *trainer = ud;
    const struct store *store = trainer->store;
    const void *bytes;
    size_t len;
    struct store_params params = store->params;
    params.must_exist = params.is_further = true;
    enum ph_status status = store->driver->open(&params, store_sql, STORE_SQL_COUNT, &trainer->db, NULL);
    if (status == PH_OK)
        status = gather(trainer);
    if (status == PH_OK)
        status = store_codec_train(&trainer->arena, trainer->samples, trainer->sizes, trainer->count, &bytes,
                                   &len, NULL);
    if (status == PH_OK)
        status = hand_in(trainer, bytes, len);
    if (status != PH_OK)
        log_debug("store", "no dictionary was trained from %zu messages: %s", trainer->count,
                  ph_status_name(status));
    atomic_store(&trainer->done, true);
}

/* ---- The writer's side */

static void free_trainer(struct store_trainer *trainer)
{
    if (trainer->db)
        trainer->db->driver->close(trainer->db);
    arena_release(&trainer->arena);
    arena_release(&trainer->scratch);
    mem_free(trainer);
}

static void begin_training(struct store_writer *writer)
{
    struct store_trainer *trainer = mem_calloc(1, sizeof *trainer);
    if (!trainer)
        return;
    trainer->store = writer->store;
    trainer->number = writer->state.number;
    arena_init(&trainer->arena, ARENA_BYTES_MAX);
    arena_init(&trainer->scratch, ARENA_BYTES_MAX * 4);
    rng_init(&trainer->rng, (uint64_t)trainer->number);
    if (uv_thread_create(&trainer->thread, train, trainer) == 0)
        writer->trainer = trainer;
    else
        free_trainer(trainer);
}

void store_train_join(struct store_writer *writer)
{
    if (!writer->trainer)
        return;
    uv_thread_join(&writer->trainer->thread);
    free_trainer(writer->trainer);
    writer->trainer = NULL;
}

bool store_train_running(struct store_writer *writer)
{
    if (writer->trainer && atomic_load(&writer->trainer->done))
        store_train_join(writer);
    return writer->trainer != NULL;
}

void store_train_look(struct store_writer *writer)
{
    if (store_train_running(writer) || writer->state.number < writer->train_at)
        return;
    writer->trained_at = writer->state.number;
    writer->train_at = store_train_next(writer->state.number);
    begin_training(writer);
}

/* ---- Chores */

static enum ph_status recode_row(struct store_writer *writer, const struct store_row *row, struct ph_err *err)
{
    struct store *store = writer->store;
    struct store_db *db = writer->db;
    struct store_body body;
    const char *bytes;
    size_t len;
    if (row->body.coding == STORE_CODING_PLAIN && store_codec_unpacked(&row->body) >= STORE_LONG_BYTES)
        return PH_OK; /* no dictionary is of use for it */
    enum ph_status status =
        store_codec_unpack(&store->codec, &writer->scratch, &row->body, &bytes, &len, err);
    if (status == PH_OK)
        status = store_codec_pack(&store->codec, &writer->scratch, writer->state.dictionary, bytes, len,
                                  &body, err);
    if (status != PH_OK)
        return status;
    db->driver->start(db, STORE_SQL_MESSAGE_RECODE);
    db->driver->bind_int(db, row->message.conversation);
    db->driver->bind_int(db, row->message.seq);
    db->driver->bind_int(db, body.coding);
    db->driver->bind_blob(db, body.bytes, body.len);
    return db->driver->step(db, NULL, err);
}

static enum ph_status drop_dictionary(struct store_writer *writer, int64_t dictionary, struct ph_err *err)
{
    static const unsigned statements[] = {STORE_SQL_DONORS_DELETE, STORE_SQL_DICTIONARY_DELETE};
    struct store_db *db = writer->db;
    enum ph_status status = PH_OK;
    for (size_t i = 0; status == PH_OK && i < 2; i++) {
        db->driver->start(db, statements[i]);
        db->driver->bind_int(db, dictionary);
        status = db->driver->step(db, NULL, err);
    }
    return status;
}

static enum ph_status upgraded(struct store_writer *writer)
{
    writer->upgrade = writer->upgrade == STORE_CODING_PLAIN ? STORE_CODING_RAW : NOTHING;
    return PH_OK;
}

/* Some of the rows packed with a retired dictionary (when there are none left, it goes), or, when there is a
 * first dictionary, with none. */
static enum ph_status recode_some(struct store_writer *writer, int64_t dictionary, struct ph_err *err)
{
    struct store_db *db = writer->db;
    struct store_rows rows = {.items = NULL};
    enum ph_status status = store_dictionary_load(writer->store, db, dictionary, err);
    if (status == PH_OK && writer->state.dictionary)
        status = store_dictionary_load(writer->store, db, writer->state.dictionary, err);
    if (status != PH_OK)
        return status;
    db->driver->start(db, STORE_SQL_MESSAGES_CODED);
    db->driver->bind_int(db, writer->recode_conversation);
    db->driver->bind_int(db, writer->recode_seq);
    db->driver->bind_int(db, dictionary);
    db->driver->bind_int(db, RECODE_ROWS);
    status = store_rows_take(db, &writer->scratch, RECODE_ROWS, false, &rows, err);
    for (size_t i = 0; status == PH_OK && i < rows.count; i++)
        status = recode_row(writer, &rows.items[i], err);
    if (status == PH_OK && rows.count == 0)
        return dictionary > 0 ? drop_dictionary(writer, dictionary, err) : upgraded(writer);
    if (status == PH_OK) {
        writer->recode_conversation = rows.items[rows.count - 1].message.conversation;
        writer->recode_seq = rows.items[rows.count - 1].message.seq;
    }
    return status;
}

/* One transaction of chores; *left says whether there is more to do but the purge. */
static enum ph_status chore_step(struct store_writer *writer, bool *left, struct ph_err *err)
{
    struct store_db *db = writer->db;
    int64_t dictionary = 0;
    enum ph_status status = db->driver->begin(db, STORE_DB_WRITE, err);
    if (status == PH_OK)
        status = store_state_lock(writer, err);
    if (status == PH_OK)
        status = store_query_int(db, STORE_SQL_DICTIONARY_RETIRED, &dictionary, err);
    if (dictionary == 0)
        dictionary = writer->upgrade;
    *left = dictionary != NOTHING;
    if (*left && dictionary != writer->recode_dictionary) {
        writer->recode_dictionary = dictionary;
        writer->recode_conversation = writer->recode_seq = -1;
    }
    if (status == PH_OK && *left)
        status = recode_some(writer, dictionary, err);
    if (status == PH_OK)
        return db->driver->commit(db, err);
    db->driver->rollback(db);
    return status;
}

static enum ph_status purge(struct store_writer *writer, struct ph_err *err)
{
    struct store_db *db = writer->db;
    enum ph_status status = db->driver->purge(db, err);
    if (status == PH_OK)
        status = db->driver->begin(db, STORE_DB_WRITE, err);
    if (status != PH_OK)
        return status;
    status = store_state_lock(writer, err);
    writer->state.purge = 0;
    if (status == PH_OK)
        status = store_state_write(writer, err);
    if (status == PH_OK)
        return db->driver->commit(db, err);
    db->driver->rollback(db);
    return status;
}

/* Somebody reads, or the disk is full: whoever writes is told that himself, and it may pass. So a chore that
 * fails is told only when it has failed for long, once, and tried less often from then on. */
static uint64_t retry(struct store_writer *writer)
{
    uint64_t now = uv_hrtime(), wait_ns = CHORE_RETRY_NS;
    if (!writer->chore_until_ns)
        writer->chore_until_ns = now + (uint64_t)STORE_PURGE_WAIT_MS * NS_PER_MS;
    if (now > writer->chore_until_ns) {
        if (!writer->chore_told)
            log_warn("store", "tidying up the store is put off and tried again: %s",
                     writer->chore_err.message);
        writer->chore_told = true;
        wait_ns = CHORE_LATER_NS;
    }
    writer->chore_next_ns = now + wait_ns;
    return wait_ns;
}

void store_train_hasten(struct store_writer *writer)
{
    if (writer->state.number >= TRAIN_MESSAGES &&
        writer->state.number > writer->trained_at + writer->trained_at / 4)
        writer->train_at = 0;
}

void store_train_installed(struct store_writer *writer)
{
    writer->upgrade = STORE_CODING_PLAIN;
    writer->recode_dictionary = NOTHING;
    writer->chores = true;
}

uint64_t store_chore(struct store_writer *writer)
{
    struct ph_err *err = &writer->chore_err;
    bool left = false;
    uint64_t now = uv_hrtime();
    if (now < writer->chore_next_ns)
        return writer->chore_next_ns - now;
    if (store_train_running(writer)) /* its dictionary will be wanted */
        return TRAIN_LOOK_NS;
    enum ph_status status = chore_step(writer, &left, err);
    arena_clear(&writer->scratch);
    if (status == PH_OK && left)
        return 0;
    if (status == PH_OK && writer->state.purge)
        status = purge(writer, err);
    if (status != PH_OK)
        return retry(writer);
    writer->chore_until_ns = 0;
    writer->chore_told = false;
    return UINT64_MAX;
}
