/* The Nth write, sync or truncation of SQLite's files fails, for every N, once or from then on: whatever was
 * acknowledged is there afterwards, whole and once, and the file is sound. */
#include "store_support.h"

#include <sqlite3.h>

#define APPENDS 5
#define MESSAGES 3
#define TRIES_MAX 2000

/* ---- A layer between SQLite and its files */

struct shim_file {
    sqlite3_file base;
    sqlite3_file *real; /* lies behind this struct */
};

static struct {
    sqlite3_vfs vfs, *real;
    _Atomic long left; /* operations until the fault; 0: none is coming */
    _Atomic bool broken;
    bool lasting;
    int code;
} shim;

static bool fails(void)
{
    if (shim.broken && shim.lasting)
        return true;
    if (shim.left <= 0 || --shim.left > 0)
        return false;
    shim.broken = true;
    return true;
}

static sqlite3_file *real_of(sqlite3_file *file)
{
    return ((struct shim_file *)file)->real;
}

static int shim_close(sqlite3_file *file)
{
    return real_of(file)->pMethods ? real_of(file)->pMethods->xClose(real_of(file)) : SQLITE_OK;
}

static int shim_read(sqlite3_file *file, void *bytes, int len, sqlite3_int64 at)
{
    return real_of(file)->pMethods->xRead(real_of(file), bytes, len, at);
}

/* A write that fails may have written a part. */
static int shim_write(sqlite3_file *file, const void *bytes, int len, sqlite3_int64 at)
{
    sqlite3_file *real = real_of(file);
    if (!fails())
        return real->pMethods->xWrite(real, bytes, len, at);
    (void)real->pMethods->xWrite(real, bytes, len / 2, at);
    return shim.code;
}

static int shim_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    return fails() ? SQLITE_IOERR_TRUNCATE : real_of(file)->pMethods->xTruncate(real_of(file), size);
}

/* Nobody pulls the plug here: what is not brought to the disk is not missed, and the test is fast. */
static int shim_sync(sqlite3_file *file, int flags)
{
    (void)file;
    (void)flags;
    return fails() ? SQLITE_IOERR_FSYNC : SQLITE_OK;
}

static int shim_size(sqlite3_file *file, sqlite3_int64 *size)
{
    return real_of(file)->pMethods->xFileSize(real_of(file), size);
}

static int shim_lock(sqlite3_file *file, int lock)
{
    return real_of(file)->pMethods->xLock(real_of(file), lock);
}

static int shim_unlock(sqlite3_file *file, int lock)
{
    return real_of(file)->pMethods->xUnlock(real_of(file), lock);
}

static int shim_check_lock(sqlite3_file *file, int *out)
{
    return real_of(file)->pMethods->xCheckReservedLock(real_of(file), out);
}

static int shim_control(sqlite3_file *file, int op, void *arg)
{
    return real_of(file)->pMethods->xFileControl(real_of(file), op, arg);
}

static int shim_sector(sqlite3_file *file)
{
    return real_of(file)->pMethods->xSectorSize(real_of(file));
}

static int shim_traits(sqlite3_file *file)
{
    return real_of(file)->pMethods->xDeviceCharacteristics(real_of(file));
}

static int shim_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **out)
{
    return real_of(file)->pMethods->xShmMap(real_of(file), page, size, extend, out);
}

static int shim_shm_lock(sqlite3_file *file, int offset, int count, int flags)
{
    return real_of(file)->pMethods->xShmLock(real_of(file), offset, count, flags);
}

static void shim_shm_barrier(sqlite3_file *file)
{
    real_of(file)->pMethods->xShmBarrier(real_of(file));
}

static int shim_shm_unmap(sqlite3_file *file, int remove)
{
    return real_of(file)->pMethods->xShmUnmap(real_of(file), remove);
}

static const sqlite3_io_methods shim_methods = {
    2,           shim_close,   shim_read,     shim_write,       shim_truncate,  shim_sync,
    shim_size,   shim_lock,    shim_unlock,   shim_check_lock,  shim_control,   shim_sector,
    shim_traits, shim_shm_map, shim_shm_lock, shim_shm_barrier, shim_shm_unmap, NULL,
    NULL,
};

static int shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    struct shim_file *made = (struct shim_file *)file;
    (void)vfs;
    made->real = (sqlite3_file *)&made[1];
    memset(made->real, 0, (size_t)shim.real->szOsFile);
    int code = shim.real->xOpen(shim.real, name, made->real, flags, out_flags);
    made->base.pMethods = made->real->pMethods ? &shim_methods : NULL;
    return code;
}

static int set_up(void **state)
{
    (void)state;
    shim.real = sqlite3_vfs_find(NULL);
    shim.vfs = *shim.real;
    shim.vfs.zName = "shim";
    shim.vfs.xOpen = shim_open;
    shim.vfs.szOsFile += (int)sizeof(struct shim_file);
    return sqlite3_vfs_register(&shim.vfs, 1);
}

static int tear_down(void **state)
{
    (void)state;
    return sqlite3_vfs_unregister(&shim.vfs);
}

/* ---- One run */

static enum ph_status append(struct store_test *test, int number)
{
    struct store_message messages[MESSAGES];
    char texts[MESSAGES][64];
    for (int i = 0; i < MESSAGES; i++) {
        snprintf(texts[i], sizeof texts[i], "append %d, message %d, and some words", number, i);
        messages[i] = store_test_message(NULL, texts[i]);
    }
    struct store_append given = {
        .user = "u", .key = "k", .messages = messages, .count = MESSAGES, .at = number * MESSAGES};
    return store_test_append(test, &given, NULL);
}

/* *acknowledged appends of the APPENDS went through; false: the store could not even be opened. */
static void write_all(struct store_test *test, int *acknowledged)
{
    struct store_params params = {.dir = test->dir, .clock = &test->clock};
    *acknowledged = 0;
    if (store_open(&test->store, &params, &test->err) != PH_OK) {
        assert_true(test->err.message[0] != 0);
        test->store = NULL;
        return;
    }
    for (int i = 0; i < APPENDS; i++) {
        enum ph_status status = append(test, i);
        assert_true(status == PH_OK || status == PH_ERR_IO || status == PH_ERR_CONFLICT);
        if (status == PH_OK) {
            assert_int_equal(*acknowledged, i); /* none after one that is missing */
            *acknowledged = i + 1;
        }
    }
    store_test_close(test);
}

static void check_all(struct store_test *test, int acknowledged)
{
    struct store_conversation conversation;
    store_test_open(test);
    store_test_sound(test);
    enum ph_status status =
        store_find_conversation(test->store, &test->arena, "u", "k", &conversation, &test->err);
    size_t count = status == PH_OK ? store_test_messages(test, "u", "k").count : 0;
    assert_true(count >= (size_t)acknowledged * MESSAGES);
    assert_int_equal(count % MESSAGES, 0); /* an append is there whole, or not at all */
    for (int i = 0; i < APPENDS; i++)
        assert_int_equal(append(test, i), PH_OK);
    struct store_messages messages = store_test_messages(test, "u", "k");
    assert_int_equal(messages.count, APPENDS * MESSAGES);
    for (size_t i = 0; i < messages.count; i++) {
        char text[64];
        snprintf(text, sizeof text, "append %zu, message %zu, and some words", i / MESSAGES, i % MESSAGES);
        assert_string_equal(messages.items[i].content, text);
    }
    store_test_sound(test);
}

/* Runs with the fault at operation n; false: there are fewer operations than that. */
static bool run(long n, bool lasting, int code)
{
    void *state = (void *)&store_backend_sqlite;
    int acknowledged;
    store_test_setup(&state);
    struct store_test *test = state;
    store_test_close(test); /* in an empty file everything is to be made; so take another folder */
    test->backend->remove(test->dir, test->url);
    assert_true(test->backend->make(test->dir, test->url));
    shim.lasting = lasting;
    shim.code = code;
    shim.broken = false;
    shim.left = n;
    write_all(test, &acknowledged);
    bool met = shim.broken;
    shim.left = 0;
    shim.broken = false;
    if (!met)
        assert_int_equal(acknowledged, APPENDS);
    check_all(test, acknowledged);
    store_test_teardown(&state);
    return met;
}

static void run_every(bool lasting, int code)
{
    long n = 1;
    while (n < TRIES_MAX && run(n, lasting, code))
        n += SANITIZED ? 5 : 1;
    assert_in_range(n, 20, TRIES_MAX - 1); /* there were some, and an end */
}

static void test_one_write_fails(void **state)
{
    (void)state;
    run_every(false, SQLITE_IOERR_WRITE);
}

static void test_disk_is_full_from_then_on(void **state)
{
    (void)state;
    run_every(true, SQLITE_FULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_write_fails),
        cmocka_unit_test(test_disk_is_full_from_then_on),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
