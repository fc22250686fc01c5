/* ledger: what its files share. */
#ifndef PHAROS_GATEWAY_LEDGER_INT_H
#define PHAROS_GATEWAY_LEDGER_INT_H

#include <assert.h>
#include <stdatomic.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/limits.h"
#include "gateway/ledger.h"

/* ---- Records (ledger_record.c) */

/* CRC-32C (ledger_crc.c); tables and choice are made where they are needed. */
struct crc32c {
    uint32_t (*run)(const struct crc32c *crc, const uint8_t *bytes, size_t len);
    uint32_t table[8][256];
};
void crc32c_init(struct crc32c *crc);
uint32_t crc32c(const struct crc32c *crc, const uint8_t *bytes, size_t len);
uint32_t crc32c_by_tables(const struct crc32c *crc, const uint8_t *bytes, size_t len);
uint32_t crc32c_sse42(const struct crc32c *crc, const uint8_t *bytes, size_t len); /* x86 with SSE 4.2 */

/* A record as it lies in the journal: little-endian, texts terminated and padded with zeroes. Everything from
 * RECORD_IDENTITY on is known when a hold is made, the rest when it ends. */
enum record_field {
    RECORD_CRC = 0, /* of all that follows */
    RECORD_VERSION = 4,
    RECORD_OUTCOME = 5,
    RECORD_FLAGS = 6, /* 1: estimated */
    RECORD_PROMPT = 8,
    RECORD_CACHED = 16,
    RECORD_CACHE_WRITE = 24,
    RECORD_OUTPUT = 32,
    RECORD_COST = 40,
    RECORD_PREMIUM = 48,
    RECORD_IDENTITY = 56,
    RECORD_SEQUENCE = 56,
    RECORD_TIME = 64,
    RECORD_TIER = 72,
    RECORD_KEY = 73,
    RECORD_PROVIDER = 96,
    RECORD_MODEL = 136,
    RECORD_REQUEST = 200,
    RECORD_BYTES = 256
};
#define LEDGER_FORMAT_VERSION 1
#define RECORD_NAME_BYTES_MAX (RECORD_REQUEST - RECORD_MODEL) /* the longest of the names', with its zero */

uint64_t record_get(const uint8_t *record, enum record_field field);
int64_t record_time(const uint8_t *record);
int64_t record_day(const uint8_t *record);

/* A text as a field of `size` bytes keeps it: whole, or its beginning and a checksum of all of it. The rest
 * of the field becomes zero. */
void record_fit(const char *text, uint8_t *field, size_t size);
/* The same for a name, as the field of its scope keeps it. */
void record_fit_name(enum ledger_scope scope, const char *name, char out[RECORD_NAME_BYTES_MAX]);

void record_begin(uint8_t record[RECORD_BYTES], const struct ledger_ask *ask, uint64_t sequence,
                  int64_t unix_ms);
struct ledger_ending {
    struct ledger_usage usage;
    enum ledger_outcome outcome;
    int64_t cost_pico, premium_pico;
};
void record_end(const struct crc32c *crc, uint8_t record[RECORD_BYTES], const struct ledger_ending *ending);
/* false: damaged. The texts of `out` lie in the record. */
bool record_read(const struct crc32c *crc, const uint8_t record[RECORD_BYTES], struct ledger_record *out);

/* ---- The journal (ledger_journal.c) */

/* Calls fn for every whole record of a day; a damaged one is counted. `*end`: where the last whole one ends,
 * 0: nothing is there (a missing file is no error). fn answers false to stop. */
struct journal_visit {
    bool (*fn)(void *ud, const struct ledger_record *record);
    void *ud;
    uint64_t damaged, end;
    bool stopped, header_damaged;
};
PH_MUST_USE enum ph_status journal_visit_day(const char *dir, const struct crc32c *crc, int64_t day,
                                             struct journal_visit *visit, struct ph_err *err);
void journal_path(const char *dir, int64_t day, const char *suffix, char out[PATH_BYTES_MAX]);

#define JOURNAL_DAYS_OPEN 2 /* around midnight there are two */
struct journal {
    const char *dir; /* not owned, as crc */
    const struct crc32c *crc;
    struct journal_day {
        struct file_at file; /* path NULL: none */
        int64_t day;
        uint64_t len;
        bool dirty; /* written to since the disk was asked for it */
        uint64_t used;
    } days[JOURNAL_DAYS_OPEN];
    uint64_t turn;
};
void journal_init(struct journal *journal, const char *dir, const struct crc32c *crc);
void journal_release(struct journal *journal);
/* All of the records, or an error and none of them (a reader may see some until the next try). */
PH_MUST_USE enum ph_status journal_append(struct journal *journal, int64_t day, const uint8_t *records,
                                          size_t count, struct ph_err *err);

/* ---- The mapped holds (ledger_slots.c) */

enum slot_phase { SLOT_FREE = 0, SLOT_HELD = 1, SLOT_SETTLED = 2 };

/* State is the sequence times 4 plus the phase, 0 when free, and is stored after what it vouches for. */
struct ledger_slot {
    _Atomic uint64_t state;
    _Atomic uint64_t output;      /* counted so far */
    _Atomic uint64_t prompt_turn; /* how often the prompt was counted: which of the two is the last */
    struct slot_prompt {
        uint64_t prompt, cached, cache_write;
    } prompt[2];
    struct ledger_price price, premium;
    uint32_t check; /* of the prices and the record's identity, while held */
    uint32_t unused;
    uint8_t padding[112];
    uint8_t record[RECORD_BYTES]; /* in the making; whole when settled */
};
static_assert(sizeof(struct ledger_slot) == 512, "a slot lies in one sector");

struct slots {
    struct file_shared map;
    struct slots_header *header;
    struct ledger_slot *slot; /* [LEDGER_SLOTS] */
};
PH_MUST_USE enum ph_status slots_open(struct slots *slots, const char *path, struct ph_err *err);
void slots_release(struct slots *slots);
uint64_t slots_next_sequence(struct slots *slots);
void slots_raise_sequence(struct slots *slots, uint64_t at_least);

/* The indices of slots that are not free, [LEDGER_SLOTS], read past the map: its untouched pages stay
 * untouched. */
PH_MUST_USE enum ph_status slots_find_used(const char *path, uint32_t *used, size_t *count,
                                           struct ph_err *err);

void slot_hold(const struct crc32c *crc, struct ledger_slot *slot, const struct ledger_ask *ask,
               uint64_t sequence, int64_t unix_ms);
void slot_count_prompt(struct ledger_slot *slot, const struct slot_prompt *prompt);
struct ledger_usage slot_counted(const struct ledger_slot *slot);
bool slot_prompt_was_said(const struct ledger_slot *slot);
/* Answers the cost. */
int64_t slot_settle(const struct crc32c *crc, struct ledger_slot *slot, const struct ledger_usage *usage,
                    enum ledger_outcome outcome);
void slot_free(struct ledger_slot *slot);
/* A slot that was found: settled as crashed unless it was settled. false: it is torn. */
bool slot_recover(const struct crc32c *crc, struct ledger_slot *slot);

/* ---- Budgets (ledger_account.c) */

#define LEDGER_MONTHS 2 /* in memory: this one, and the one before it while its holds end */

/* 128 bits, so that no sum of 64-bit amounts can overflow. */
struct account {
    enum ledger_scope scope;
    char name[RECORD_NAME_BYTES_MAX];
    int64_t limit_pico; /* negative: none */
    struct account_sum {
        __int128 spent, held;
        bool over; /* more is spent and held than may be */
    } sums[LEDGER_MONTHS];
};

struct accounts {
    struct account station, tiers[LEDGER_TIER_COUNT];
    struct account **table; /* keys and providers; open addressing, a power of two */
    size_t capacity, count;
    struct arena arena;
    size_t over; /* sums that are, of all months */
};
PH_MUST_USE enum ph_status accounts_init(struct accounts *accounts);
void accounts_release(struct accounts *accounts);
struct account *accounts_find(const struct accounts *accounts, enum ledger_scope scope, const char *name);
struct account *accounts_get(struct accounts *accounts, enum ledger_scope scope,
                             const char *name); /* made if absent; NULL: no room */
void accounts_set_limit(struct accounts *accounts, struct account *account, int64_t limit_pico);
void accounts_add(struct accounts *accounts, struct account *account, int month, __int128 spent,
                  __int128 held);
void accounts_clear_month(struct accounts *accounts, int month);

/* ---- Bringing it to the disk (ledger_sync.c) */

struct ledger_sync;
PH_MUST_USE enum ph_status ledger_sync_open(struct ledger_sync **out, const char *dir);
void ledger_sync_close(struct ledger_sync *sync); /* after what it was asked for is done; NULL is fine */
/* false: it is busy, ask again later. */
bool ledger_sync_ask(struct ledger_sync *sync, int64_t day);
/* true: the disk has refused since the last call; err says what. */
bool ledger_sync_failed(struct ledger_sync *sync, struct ph_err *err);

#endif
