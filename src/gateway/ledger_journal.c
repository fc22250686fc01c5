/* The journal: DIR/YYYY-MM-DD.journal, a header and records, all of 256 bytes.
 *
 * One station writes (it holds the lock), at offsets it knows: a write that failed half-way is done again at
 * the same place, so that nothing is doubled. Whoever reads needs no lock: a record is whole by its checksum,
 * or it is not there yet.
 *
 * J1. What lies before the last whole record is never written again, but for the header, which is known.
 * J2. Before a file is written to, what lies behind its last whole record is put aside (.torn) and cut off:
 *     what a power cut or a full disk left of the last batch.
 * J3. Records of a day are in that day's file, whenever they are written. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "gateway/ledger_int.h"

#define CHUNK_BYTES ((size_t)256 << 10)
static_assert(CHUNK_BYTES % RECORD_BYTES == 0, "a chunk is whole records");

/* The header: magic, version (32 bits), bytes a record (32), day (64), zeroes, CRC of it all (32). */
static const uint8_t magic[8] = {'P', 'H', 'L', 'E', 'D', 'G', 'E', 'R'};
enum header_field { HEADER_VERSION = 8, HEADER_RECORD = 12, HEADER_DAY = 16, HEADER_CRC = 252 };

static void put(uint8_t *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void make_header(const struct crc32c *crc, int64_t day, uint8_t header[RECORD_BYTES])
{
    memset(header, 0, RECORD_BYTES);
    memcpy(header, magic, sizeof magic);
    put(header + HEADER_VERSION, LEDGER_FORMAT_VERSION, 4);
    put(header + HEADER_RECORD, RECORD_BYTES, 4);
    put(header + HEADER_DAY, (uint64_t)day, 8);
    put(header + HEADER_CRC, crc32c(crc, header, HEADER_CRC), 4);
}

void journal_path(const char *dir, int64_t day, const char *suffix, char out[PATH_BYTES_MAX])
{
    struct clock_date date = clock_date(day);
    snprintf(out, PATH_BYTES_MAX, "%s/%04lld-%02d-%02d.journal%s", dir, (long long)date.year, date.month,
             date.day, suffix);
}

/* ---- Reading */

/* A damaged header is only counted: the records behind it vouch for themselves. */
static enum ph_status check_header(const struct crc32c *crc, const uint8_t *header, int64_t day,
                                   const char *path, struct journal_visit *visit, struct ph_err *err)
{
    uint8_t expected[RECORD_BYTES];
    make_header(crc, day, expected);
    if (memcmp(header, expected, RECORD_BYTES) == 0)
        return PH_OK;
    bool whole = memcmp(header, magic, sizeof magic) == 0 &&
                 get32(header + HEADER_CRC) == crc32c(crc, header, HEADER_CRC);
    if (whole && get32(header + HEADER_VERSION) > LEDGER_FORMAT_VERSION)
        return ph_fail(err, PH_ERR_UNSUPPORTED, "%s has version %u; this program reads %d: use a newer one",
                       path, (unsigned)get32(header + HEADER_VERSION), LEDGER_FORMAT_VERSION);
    visit->header_damaged = true;
    visit->damaged++;
    return PH_OK;
}

static void visit_records(const struct crc32c *crc, const uint8_t *bytes, size_t len, uint64_t offset,
                          struct journal_visit *visit)
{
    struct ledger_record record;
    for (size_t at = 0; at < len && !visit->stopped; at += RECORD_BYTES) {
        if (len - at < RECORD_BYTES || !record_read(crc, bytes + at, &record)) {
            visit->damaged++;
            continue;
        }
        visit->end = offset + at + RECORD_BYTES;
        visit->stopped = visit->fn && !visit->fn(visit->ud, &record);
    }
}

static enum ph_status visit_file(const struct file_at *file, const struct crc32c *crc, int64_t day,
                                 uint8_t *chunk, struct journal_visit *visit, struct ph_err *err)
{
    size_t got = CHUNK_BYTES;
    for (uint64_t offset = 0; got == CHUNK_BYTES && !visit->stopped; offset += got) {
        enum ph_status status = file_at_read(file, offset, chunk, CHUNK_BYTES, &got, err);
        size_t skip = 0;
        if (status == PH_OK && offset == 0 && got >= RECORD_BYTES) {
            skip = RECORD_BYTES;
            status = check_header(crc, chunk, day, file->path, visit, err);
            visit->end = visit->header_damaged ? 0 : RECORD_BYTES;
        }
        if (status != PH_OK)
            return status;
        visit_records(crc, chunk + skip, got - skip, offset + skip, visit);
    }
    return PH_OK;
}

enum ph_status journal_visit_day(const char *dir, const struct crc32c *crc, int64_t day,
                                 struct journal_visit *visit, struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    struct file_at file;
    visit->end = 0;
    visit->stopped = visit->header_damaged = false;
    journal_path(dir, day, "", path);
    enum ph_status status = file_at_open(&file, path, false, err);
    if (status != PH_OK)
        return status == PH_ERR_NOTFOUND ? PH_OK : status;
    uint8_t *chunk = mem_alloc(CHUNK_BYTES);
    status = chunk ? visit_file(&file, crc, day, chunk, visit, err)
                   : ph_fail(err, PH_ERR_NOMEM, "no memory to read %s", path);
    mem_free(chunk);
    file_at_close(&file);
    return status;
}

#define DAY_MIN (-719162) /* 0001-01-01 */
#define DAY_MAX 2932896   /* 9999-12-31 */

enum ph_status ledger_read(const char *dir, int64_t day_from, int64_t day_to,
                           bool (*fn)(void *ud, const struct ledger_record *record), void *ud,
                           uint64_t *damaged, struct ph_err *err)
{
    struct journal_visit visit = {.fn = fn, .ud = ud};
    enum ph_status status = PH_OK;
    struct crc32c *crc = mem_alloc(sizeof *crc);
    if (!crc)
        return ph_fail(err, PH_ERR_NOMEM, "no memory to read the journal");
    crc32c_init(crc);
    int64_t day = day_from > DAY_MIN ? day_from : DAY_MIN, last = day_to < DAY_MAX ? day_to : DAY_MAX;
    for (; day <= last && status == PH_OK && !visit.stopped; day++)
        status = journal_visit_day(dir, crc, day, &visit, err);
    if (damaged)
        *damaged = visit.damaged;
    mem_free(crc);
    return status;
}

/* ---- Writing */

void journal_init(struct journal *journal, const char *dir, const struct crc32c *crc)
{
    *journal = (struct journal){.dir = dir, .crc = crc};
}

void journal_release(struct journal *journal)
{
    for (size_t i = 0; i < JOURNAL_DAYS_OPEN; i++)
        file_at_close(&journal->days[i].file);
}

static enum ph_status copy_tail(const struct file_at *from, uint64_t offset, struct file_at *to,
                                uint8_t *chunk, struct ph_err *err)
{
    uint64_t at;
    size_t got;
    enum ph_status status = file_at_len(to, &at, err);
    do {
        if (status == PH_OK)
            status = file_at_read(from, offset, chunk, CHUNK_BYTES, &got, err);
        if (status == PH_OK)
            status = file_at_write(to, at, chunk, got, err);
        if (status != PH_OK)
            return status;
        offset += got;
        at += got;
    } while (got == CHUNK_BYTES);
    return PH_OK;
}

/* J2. Several tails of a day follow one another. */
static enum ph_status put_tail_aside(const struct journal *journal, const struct journal_day *open,
                                     struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    struct file_at torn = {0};
    journal_path(journal->dir, open->day, ".torn", path);
    uint8_t *chunk = mem_alloc(CHUNK_BYTES);
    enum ph_status status = chunk ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory to put a torn end aside");
    if (status == PH_OK)
        status = file_at_open(&torn, path, true, err);
    if (status == PH_OK)
        status = copy_tail(&open->file, open->len, &torn, chunk, err);
    file_at_close(&torn);
    mem_free(chunk);
    if (status == PH_OK)
        status = file_sync(path, err);
    return status == PH_OK ? file_at_cut(&open->file, open->len, err) : status;
}

static enum ph_status open_day(struct journal *journal, struct journal_day *slot, int64_t day,
                               struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    uint8_t header[RECORD_BYTES];
    uint64_t len = 0;
    struct journal_visit visit = {0};
    enum ph_status status = journal_visit_day(journal->dir, journal->crc, day, &visit, err);
    if (status != PH_OK)
        return status;
    if (slot->dirty) {
        journal_path(journal->dir, slot->day, "", path);
        status = file_sync(path, err);
        if (status != PH_OK)
            return status;
    }
    file_at_close(&slot->file);
    *slot = (struct journal_day){.day = day, .len = visit.end};
    journal_path(journal->dir, day, "", path);
    status = file_at_open(&slot->file, path, true, err);
    if (status == PH_OK)
        status = file_at_len(&slot->file, &len, err);
    if (status == PH_OK && len > slot->len)
        status = put_tail_aside(journal, slot, err);
    if (status == PH_OK && (visit.header_damaged || slot->len == 0)) {
        make_header(journal->crc, day, header);
        status = file_at_write(&slot->file, 0, header, sizeof header, err);
        slot->len = slot->len ? slot->len : RECORD_BYTES;
    }
    if (status != PH_OK)
        file_at_close(&slot->file);
    return status;
}

static struct journal_day *find_day(struct journal *journal, int64_t day)
{
    struct journal_day *oldest = &journal->days[0];
    for (size_t i = 0; i < JOURNAL_DAYS_OPEN; i++) {
        struct journal_day *at = &journal->days[i];
        if (at->file.path && at->day == day)
            return at;
        if (!at->file.path || (oldest->file.path && at->used < oldest->used))
            oldest = at;
    }
    return oldest;
}

enum ph_status journal_append(struct journal *journal, int64_t day, const uint8_t *records, size_t count,
                              struct ph_err *err)
{
    struct journal_day *open = find_day(journal, day);
    enum ph_status status = PH_OK;
    if (!open->file.path || open->day != day)
        status = open_day(journal, open, day, err);
    if (status != PH_OK)
        return status;
    open->used = ++journal->turn;
    status = file_at_write(&open->file, open->len, records, count * RECORD_BYTES, err);
    if (status != PH_OK) {
        (void)!file_at_cut(&open->file, open->len, NULL); /* else the next try writes over it */
        return status;
    }
    open->len += count * RECORD_BYTES;
    open->dirty = true;
    return PH_OK;
}
