/* The journal's files: their format, damage at every byte, disks that are full, memory that is short. */
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

#include "base/log.h"
#include "base/mem.h"
#include "gateway/ledger_test.h"

/* ---- The allocator's door, so that the n-th request can fail (in the place of base/mem.c) */

static long allocations_left = -1; /* negative: no end */

static bool refuse_memory(void)
{
    if (allocations_left == 0)
        return true;
    allocations_left -= allocations_left > 0;
    return false;
}

void *mem_alloc(size_t size)
{
    return refuse_memory() ? NULL : malloc(size ? size : 1);
}

void *mem_calloc(size_t count, size_t size)
{
    return refuse_memory() ? NULL : calloc(count ? count : 1, size ? size : 1);
}

void *mem_realloc(void *old, size_t count, size_t size)
{
    return refuse_memory() ? NULL : realloc(old, count * size + 1);
}

void *mem_alloc_aligned(size_t alignment, size_t size)
{
    void *memory;
    return refuse_memory() || posix_memalign(&memory, alignment, size) != 0 ? NULL : memset(memory, 0, size);
}

char *mem_strdup(const char *text)
{
    return refuse_memory() ? NULL : strdup(text);
}

void mem_free(void *memory)
{
    free(memory);
}

/* ---- Files */

#define RECORDS 3
#define JOURNAL_BYTES ((size_t)256 * (RECORDS + 1))

static void path_of(const struct fixture *f, const char *name, char out[128])
{
    snprintf(out, 128, "%s/%s", f->dir, name);
}

static void read_file(const struct fixture *f, const char *name, struct buf *out)
{
    char path[128];
    path_of(f, name, path);
    buf_init(out, 64 << 20);
    assert_int_equal(file_read(path, out, NULL), PH_OK);
}

static void write_file(const struct fixture *f, const char *name, const void *bytes, size_t len)
{
    char path[128];
    path_of(f, name, path);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    fclose(file);
}

#define TODAY "2026-11-20.journal"

/* A day of three requests that cost 315, 330, 345. */
static void make_journal(struct fixture *f, uint8_t bytes[JOURNAL_BYTES])
{
    struct ledger_ask ask = usual();
    struct buf file;
    open_ledger(f, NULL);
    for (uint64_t i = 1; i <= RECORDS; i++) {
        struct ledger_hold *hold = reserve(f->ledger, &ask);
        assert_true(ledger_count(hold, i));
        ledger_settle(f->ledger, hold, NULL, LEDGER_WHOLE);
    }
    ledger_close(f->ledger);
    f->ledger = NULL;
    read_file(f, TODAY, &file);
    assert_int_equal(file.len, JOURNAL_BYTES);
    memcpy(bytes, file.data, JOURNAL_BYTES);
    buf_release(&file);
}

static void the_format_is_what_it_was(void **state)
{
    struct fixture *f = *state;
    struct crc32c crc;
    uint8_t bytes[JOURNAL_BYTES];
    crc32c_init(&crc);
    assert_int_equal(crc32c(&crc, (const uint8_t *)"123456789", 9), 0xE3069283);
    assert_int_equal(crc32c_by_tables(&crc, (const uint8_t *)"123456789", 9), 0xE3069283);
    make_journal(f, bytes);
    for (size_t len = 0; len < 300; len++)
        assert_int_equal(crc32c(&crc, bytes + 77, len), crc32c_by_tables(&crc, bytes + 77, len));
    static const uint8_t header[] = {'P', 'H', 'L', 'E', 'D',  'G',  'E', 'R', 1, 0, 0, 0,
                                     0,   1,   0,   0,   0x29, 0x51, 0,   0,   0, 0, 0, 0};
    assert_memory_equal(bytes, header, sizeof header); /* day 20,777 */
    const uint8_t *record = bytes + 512;
    static const uint8_t known[] = {
        1,   0, 1, 0, /* version, whole, estimated */
        100, 0, 0, 0, 0, 0, 0, 0, 0,    0, 0, 0, 0, 0, 0, 0, 0,    0, 0, 0, 0, 0, 0, 0,
        2,   0, 0, 0, 0, 0, 0, 0, 0x4A, 1, 0, 0, 0, 0, 0, 0, 0x4A, 1, 0, 0, 0, 0, 0, 0, /* 330 */
        2,   0, 0, 0, 0, 0, 0, 0,                                                       /* sequence */
    };
    assert_memory_equal(record + 4, known, sizeof known);
    assert_int_equal(record_time(record), NOON);
    assert_int_equal(record[72], LEDGER_PREMIUM);
    assert_string_equal((const char *)record + 73, "abcd1234");
    assert_string_equal((const char *)record + 96, "openai");
    assert_string_equal((const char *)record + 136, "gpt-4o");
    assert_string_equal((const char *)record + 200, "req-1");
}

static void a_file_may_end_anywhere(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[JOURNAL_BYTES];
    make_journal(f, bytes);
    for (size_t len = 0; len <= JOURNAL_BYTES; len++) {
        write_file(f, TODAY, bytes, len);
        struct seen seen = read_all(f);
        assert_int_equal(seen.count, len < 512 ? 0 : len / 256 - 1);
        assert_int_equal(seen.damaged, len % 256 ? 1 : 0);
        free(seen.records);
    }
}

/* J2 */
static void a_torn_end_is_put_aside(void **state)
{
    struct fixture *f = *state;
    struct crc32c crc;
    struct journal journal;
    struct ph_err err = {0};
    uint8_t bytes[JOURNAL_BYTES];
    struct buf file, torn;
    char path[128];
    crc32c_init(&crc);
    make_journal(f, bytes);
    path_of(f, TODAY ".torn", path);
    for (size_t len = 0; len < JOURNAL_BYTES; len++) {
        size_t whole = len < 256 ? 0 : len / 256 * 256;
        write_file(f, TODAY, bytes, len);
        journal_init(&journal, f->dir, &crc);
        if (journal_append(&journal, clock_day(NOON), bytes + 256, 1, &err) != PH_OK)
            fail_msg("%s", err.message);
        journal_release(&journal);
        read_file(f, TODAY, &file);
        assert_int_equal(file.len, (whole ? whole : 256) + 256);
        assert_memory_equal(file.data, bytes, whole ? whole : 256); /* a new header is the old one */
        assert_memory_equal(file.data + file.len - 256, bytes + 256, 256);
        buf_release(&file);
        assert_int_equal(file_exists(path), len > whole);
        if (len == whole)
            continue;
        read_file(f, TODAY ".torn", &torn);
        assert_int_equal(torn.len, len - whole);
        assert_memory_equal(torn.data, bytes + whole, torn.len);
        buf_release(&torn);
        unlink(path);
    }
}

static void damage_costs_one_record(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[JOURNAL_BYTES];
    make_journal(f, bytes);
    for (size_t at = 0; at < JOURNAL_BYTES; at++) {
        bytes[at] ^= (uint8_t)(1 << at % 8);
        write_file(f, TODAY, bytes, JOURNAL_BYTES);
        struct seen seen = read_all(f);
        assert_int_equal(seen.damaged, 1);
        assert_int_equal(seen.count, at < 256 ? 3 : 2);
        for (size_t i = 0; i < seen.count; i++) {
            size_t number = i + (at >= 256 && i + 1 >= at / 256);
            assert_int_equal(seen.records[i].record.cost_pico, 315 + 15 * (int64_t)number);
        }
        free(seen.records);
        bytes[at] ^= (uint8_t)(1 << at % 8);
    }
}

/* The next station skips what is damaged, goes on behind it, and mends the header. */
static void a_station_lives_with_damage(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    uint8_t bytes[JOURNAL_BYTES];
    struct buf file;
    make_journal(f, bytes);
    bytes[9] ^= 1;
    bytes[256 + 130] ^= 1;
    write_file(f, TODAY, bytes, JOURNAL_BYTES);
    open_ledger(f, NULL);
    assert_sum(f->ledger, LEDGER_STATION, "", 330 + 345, 0);
    ledger_settle(f->ledger, reserve(f->ledger, &ask), NULL, LEDGER_WHOLE);
    ledger_tick(f->ledger);
    bytes[9] ^= 1;
    read_file(f, TODAY, &file);
    assert_int_equal(file.len, JOURNAL_BYTES + 256);
    assert_memory_equal(file.data, bytes, JOURNAL_BYTES);
    buf_release(&file);
    struct seen seen = read_all(f);
    assert_int_equal(seen.count, 3);
    assert_int_equal(seen.damaged, 1);
    assert_int_equal(seen.records[2].record.sequence, 4);
    free(seen.records);
}

static void a_newer_format_is_left_alone(void **state)
{
    struct fixture *f = *state;
    struct crc32c crc;
    struct ph_err err = {0};
    uint8_t bytes[JOURNAL_BYTES];
    crc32c_init(&crc);
    make_journal(f, bytes);
    bytes[8] = 2;
    uint32_t sum = crc32c(&crc, bytes, 252);
    for (size_t i = 0; i < 4; i++)
        bytes[252 + i] = (uint8_t)(sum >> (8 * i));
    write_file(f, TODAY, bytes, JOURNAL_BYTES);
    assert_int_equal(ledger_open(&f->ledger, &(struct ledger_params){f->dir, &f->clock}, NULL, &err),
                     PH_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, TODAY));
    assert_int_equal(ledger_read(f->dir, clock_day(NOON), clock_day(NOON), see, NULL, NULL, &err),
                     PH_ERR_UNSUPPORTED);
    struct buf file;
    read_file(f, TODAY, &file);
    assert_memory_equal(file.data, bytes, JOURNAL_BYTES);
    buf_release(&file);
}

static void the_holds_file_may_be_lost(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    uint8_t bytes[JOURNAL_BYTES];
    char path[128];
    struct buf file;
    make_journal(f, bytes);
    path_of(f, "holds", path);
    unlink(path);
    open_ledger(f, NULL);
    assert_sum(f->ledger, LEDGER_STATION, "", 990, 0);
    ledger_settle(f->ledger, reserve(f->ledger, &ask), NULL, LEDGER_WHOLE);
    ledger_close(f->ledger);
    read_file(f, "holds", &file);
    for (size_t at = 0; at < 8; at++) { /* a damaged header is made anew */
        file.data[at] ^= 1;
        write_file(f, "holds", file.data, file.len);
        open_ledger(f, NULL);
        assert_sum(f->ledger, LEDGER_STATION, "", 1290, 0);
        ledger_close(f->ledger);
        file.data[at] ^= 1;
    }
    f->ledger = NULL;
    struct seen seen = read_all(f);
    for (size_t i = 0; i < seen.count; i++)
        assert_int_equal(seen.records[i].record.sequence, i + 1);
    free(seen.records);
    for (size_t at = 8; at < 24; at++) { /* another version, another machine */
        struct ph_err err = {0};
        file.data[at] ^= 1;
        write_file(f, "holds", file.data, file.len);
        assert_int_equal(ledger_open(&f->ledger, &(struct ledger_params){f->dir, &f->clock}, NULL, &err),
                         PH_ERR_UNSUPPORTED);
        assert_non_null(strstr(err.message, path));
        file.data[at] ^= 1;
    }
    buf_release(&file);
}

static bool stop_at_second(void *ud, const struct ledger_record *record)
{
    (void)record;
    return ++*(int *)ud < 2;
}

static void a_reader_may_stop(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[JOURNAL_BYTES];
    int count = 0;
    make_journal(f, bytes);
    assert_int_equal(ledger_read(f->dir, INT64_MIN, INT64_MAX, stop_at_second, &count, NULL, NULL), PH_OK);
    assert_int_equal(count, 2);
    assert_int_equal(ledger_read(f->dir, 5, 4, stop_at_second, &count, NULL, NULL), PH_OK);
    assert_int_equal(ledger_read("/no/such/place", 0, 9, stop_at_second, &count, NULL, NULL), PH_OK);
    assert_int_equal(count, 2);
}

/* ---- A full disk */

struct limit {
    struct rlimit before;
    void (*handler)(int);
};

static void limit_files(struct limit *limit, rlim_t bytes)
{
    limit->handler = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit->before), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){bytes, limit->before.rlim_max}), 0);
}

static void unlimit_files(const struct limit *limit)
{
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit->before), 0);
    signal(SIGXFSZ, limit->handler);
}

static size_t lines_of(const char *path, const char *word)
{
    struct buf text;
    size_t count = 0;
    buf_init(&text, 1 << 20);
    assert_int_equal(file_read(path, &text, NULL), PH_OK);
    for (const char *at = text.data; at && (at = strstr(at, word)); at++)
        count++;
    buf_release(&text);
    return count;
}

static void a_full_disk_stops_nothing(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    struct limit limit;
    char path[] = "/tmp/test_ledger_log.XXXXXX";
    int log = mkstemp(path);
    open_ledger(f, NULL);
    budget(f->ledger, LEDGER_STATION, "", 1000 * 300 + 700);
    log_setup(log, LOG_INFO, false);
    limit_files(&limit, 256 * 10 + 100); /* nine records and a piece */
    size_t settled = 0;
    struct ledger_hold *hold;
    struct ledger_refusal refusal;
    for (; settled < 1000; settled++) {
        assert_int_equal(ledger_reserve(f->ledger, &ask, &hold, &refusal), PH_OK);
        ledger_settle(f->ledger, hold, NULL, LEDGER_WHOLE);
        if (settled % 100 == 50)
            ledger_tick(f->ledger);
    }
    assert_non_null(ledger_problem(f->ledger));
    assert_non_null(strstr(ledger_problem(f->ledger), "File too large"));
    assert_non_null(strstr(ledger_problem(f->ledger), TODAY));
    assert_sum(f->ledger, LEDGER_STATION, "", 300000, 0);
    assert_int_equal(ledger_reserve(f->ledger, &ask, &hold, &refusal), PH_OK); /* budgets hold as ever */
    assert_int_equal(ledger_hold_output_max(hold), 26);
    struct ledger_hold *second;
    assert_int_equal(ledger_reserve(f->ledger, &ask, &second, &refusal), PH_ERR_LIMIT);
    ledger_settle(f->ledger, hold, NULL, LEDGER_WHOLE);
    unlimit_files(&limit);
    ledger_tick(f->ledger);
    log_setup(2, LOG_INFO, false);
    close(log);
    assert_null(ledger_problem(f->ledger));
    assert_int_equal(lines_of(path, "File too large"), 1);
    assert_int_equal(lines_of(path, "is written again"), 1);
    unlink(path);
    struct seen seen = read_all(f);
    assert_int_equal(seen.count, 1001);
    assert_int_equal(seen.damaged, 0);
    for (size_t i = 0; i < seen.count; i++)
        assert_int_equal(seen.records[i].record.sequence, i + 1);
    free(seen.records);
}

static int silence(void)
{
    int kept = dup(STDERR_FILENO), null = open("/dev/null", O_WRONLY);
    dup2(null, STDERR_FILENO);
    close(null);
    return kept;
}

static void speak(int kept)
{
    dup2(kept, STDERR_FILENO);
    close(kept);
}

/* The slots keep for the next station what the journal could not take. */
static void a_full_disk_loses_nothing_over_restarts(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    struct limit limit;
    size_t recovered;
    open_ledger(f, NULL);
    int kept = silence();
    for (int round = 1; round <= 3; round++) {
        limit_files(&limit, 100);
        for (int i = 0; i < 500; i++)
            ledger_settle(f->ledger, reserve(f->ledger, &ask), NULL, LEDGER_WHOLE);
        ledger_close(f->ledger);
        unlimit_files(&limit);
        open_ledger(f, &recovered);
        assert_int_equal(recovered, 500);
        assert_sum(f->ledger, LEDGER_STATION, "", round * 150000, 0);
        f->now_ms += DAY_MS;
    }
    speak(kept);
    struct seen seen = read_all(f);
    assert_int_equal(seen.count, 1500);
    assert_int_equal(seen.damaged, 0);
    free(seen.records);
}

static void a_disk_that_stays_full_ends_in_busy(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    struct ledger_hold *hold;
    struct limit limit;
    open_ledger(f, NULL);
    limit_files(&limit, 100);
    int kept = silence();
    size_t count = 0;
    while (ledger_reserve(f->ledger, &ask, &hold, NULL) == PH_OK) {
        ledger_settle(f->ledger, hold, NULL, LEDGER_WHOLE);
        count++;
    }
    speak(kept);
    assert_int_equal(count, LEDGER_SLOTS);
    assert_int_equal(ledger_reserve(f->ledger, &ask, &hold, NULL), PH_ERR_BUSY);
    unlimit_files(&limit);
    ledger_tick(f->ledger);
    ledger_settle(f->ledger, reserve(f->ledger, &ask), NULL, LEDGER_WHOLE);
    reopen(f);
    assert_sum(f->ledger, LEDGER_STATION, "", (LEDGER_SLOTS + 1) * 300, 0);
}

/* ---- Memory that is short */

static void every_allocation_may_fail(void **state)
{
    struct fixture *f = *state;
    struct ledger_ask ask = usual();
    struct ledger_hold *hold = NULL;
    long n = 0;
    bool all = false;
    size_t refused = 0;
    for (; !all; n++) {
        struct ph_err err = {0};
        allocations_left = n;
        enum ph_status status =
            ledger_open(&f->ledger, &(struct ledger_params){f->dir, &f->clock}, NULL, &err);
        assert_true(status == PH_OK || (status == PH_ERR_NOMEM && !f->ledger && err.message[0]));
        refused += status != PH_OK;
        if (status != PH_OK)
            continue;
        char key[32];
        snprintf(key, sizeof key, "key%ld", n);
        ask.key_id = ask.provider = key;
        status = ledger_reserve(f->ledger, &ask, &hold, NULL);
        assert_true(status == PH_OK || status == PH_ERR_BUSY);
        all = status == PH_OK;
        if (status == PH_OK)
            ledger_settle(f->ledger, hold, NULL, LEDGER_WHOLE);
        ledger_tick(f->ledger);
        all = all && !ledger_problem(f->ledger);
        allocations_left = -1;
        ledger_close(f->ledger); /* what could not be written before is now */
        f->ledger = NULL;
    }
    allocations_left = -1;
    assert_true(refused > 5);
    open_ledger(f, NULL);
    struct seen seen = read_all(f);
    assert_sum(f->ledger, LEDGER_STATION, "", 300 * (int64_t)seen.count, 0);
    assert_true(seen.count > 0);
    free(seen.records);
}

static void reading_survives_short_memory(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[JOURNAL_BYTES];
    int count = 0;
    make_journal(f, bytes);
    for (long n = 0;; n++) {
        struct ph_err err = {0};
        allocations_left = n;
        enum ph_status status =
            ledger_read(f->dir, clock_day(NOON), clock_day(NOON), stop_at_second, &count, NULL, &err);
        allocations_left = -1;
        if (status == PH_OK)
            break;
        assert_int_equal(status, PH_ERR_NOMEM);
        assert_int_equal(count, 0);
    }
    assert_int_equal(count, 2);
}

int main(void)
{
#define WITH_DIR(test) cmocka_unit_test_setup_teardown(test, setup_dir, teardown)
    const struct CMUnitTest tests[] = {
        WITH_DIR(the_format_is_what_it_was),
        WITH_DIR(a_file_may_end_anywhere),
        WITH_DIR(a_torn_end_is_put_aside),
        WITH_DIR(damage_costs_one_record),
        WITH_DIR(a_station_lives_with_damage),
        WITH_DIR(a_newer_format_is_left_alone),
        WITH_DIR(the_holds_file_may_be_lost),
        WITH_DIR(a_reader_may_stop),
        WITH_DIR(a_full_disk_stops_nothing),
        WITH_DIR(a_full_disk_loses_nothing_over_restarts),
        WITH_DIR(a_disk_that_stays_full_ends_in_busy),
        WITH_DIR(every_allocation_may_fail),
        WITH_DIR(reading_survives_short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
