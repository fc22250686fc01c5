/* Any bytes as a day's journal and as mapped holds: what is read is looked at to its last letter, a station
 * recovers it and goes on behind it, and what it then writes is whole. By the first byte the checksums are put
 * right, or hardly anything would get beyond them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "gateway/ledger_int.h"

#define DAY 20777
#define SLOTS_FUZZED 8

enum flags { FIX_RECORDS = 1, FIX_HEADER = 2, FIX_SLOTS = 4 };

static void put32(uint8_t *at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

struct sight {
    uint64_t records, sum;
};

static bool look_at(void *ud, const struct ledger_record *r)
{
    struct sight *sight = ud;
    sight->records++;
    sight->sum += strlen(r->request_id) + strlen(r->key_id) + strlen(r->model) + strlen(r->provider);
    sight->sum += r->usage.prompt_tokens + (uint64_t)r->cost_pico;
    sight->sum += strlen(ledger_tier_name(r->tier)) + (uint64_t)r->outcome;
    return true;
}

static void write_file(const char *path, const uint8_t *bytes, size_t len)
{
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, len, file) != len)
        abort();
    fclose(file);
}

static void fuzz_journal(const struct crc32c *crc, const char *dir, uint8_t *bytes, size_t len, uint8_t flags)
{
    char path[PATH_BYTES_MAX];
    uint64_t damaged;
    struct sight before = {0}, after = {0};
    struct journal journal;
    if (flags & FIX_HEADER && len >= RECORD_BYTES) {
        memcpy(bytes, "PHLEDGER\1\0\0\0\0\1\0\0", 16);
        put32(bytes + 252, crc32c(crc, bytes, 252));
    }
    for (size_t at = RECORD_BYTES; flags & FIX_RECORDS && at + RECORD_BYTES <= len; at += RECORD_BYTES)
        put32(bytes + at, crc32c(crc, bytes + at + 4, RECORD_BYTES - 4));
    journal_path(dir, DAY, "", path);
    write_file(path, bytes, len);
    if (ledger_read(dir, DAY, DAY, look_at, &before, &damaged, NULL) != PH_OK)
        return;
    struct ledger_slot slot = {0};
    slot_hold(crc, &slot,
              &(struct ledger_ask){.request_id = "r", .key_id = "k", .model = "m", .provider = "p"}, 7,
              INT64_C(86400000) * DAY);
    slot_settle(crc, &slot, &(struct ledger_usage){.output_tokens = 5}, LEDGER_WHOLE);
    journal_init(&journal, dir, crc);
    if (journal_append(&journal, DAY, slot.record, 1, NULL) != PH_OK)
        abort();
    journal_release(&journal);
    if (ledger_read(dir, DAY, DAY, look_at, &after, &damaged, NULL) != PH_OK ||
        after.records != before.records + 1)
        abort();
    journal_path(dir, DAY, ".torn", path);
    unlink(path);
}

static void fuzz_slots(const struct crc32c *crc, const uint8_t *bytes, size_t len, uint8_t flags)
{
    for (size_t i = 0; i < SLOTS_FUZZED && len >= (i + 1) * sizeof(struct ledger_slot); i++) {
        struct ledger_slot slot;
        struct ledger_record record;
        struct sight sight = {0};
        memcpy(&slot, bytes + i * sizeof slot, sizeof slot);
        if (flags & FIX_SLOTS) {
            uint64_t sequence = record_get(slot.record, RECORD_SEQUENCE);
            atomic_store(&slot.state, sequence << 2 | (slot.state & 3));
            for (size_t at = RECORD_PROVIDER - 1; at < RECORD_BYTES; at++)
                if (at == RECORD_PROVIDER - 1 || at == RECORD_MODEL - 1 || at == RECORD_REQUEST - 1 ||
                    at == RECORD_BYTES - 1)
                    slot.record[at] = 0;
            slot.record[RECORD_TIER] %= LEDGER_TIER_COUNT;
            put32(slot.record, crc32c(crc, slot.record + 4, RECORD_BYTES - 4));
            slot.check = crc32c(crc, (const uint8_t *)&slot.price, 2 * sizeof slot.price) ^
                         crc32c(crc, slot.record + RECORD_IDENTITY, RECORD_BYTES - RECORD_IDENTITY);
        }
        if (!slot_recover(crc, &slot))
            continue;
        if (!record_read(crc, slot.record, &record))
            abort();
        look_at(&sight, &record);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static char dir[64];
    static struct crc32c crc;
    if (!dir[0]) {
        bool memory = access("/dev/shm", W_OK) == 0;
        snprintf(dir, sizeof dir, "%s/fuzz_ledger.XXXXXX", memory ? "/dev/shm" : "/tmp");
        if (!mkdtemp(dir))
            abort();
        crc32c_init(&crc);
    }
    if (len == 0)
        return 0;
    uint8_t *bytes = malloc(len);
    if (!bytes)
        return 0;
    memcpy(bytes, data + 1, len - 1);
    fuzz_slots(&crc, bytes, len - 1, data[0]);
    fuzz_journal(&crc, dir, bytes, len - 1, data[0]);
    free(bytes);
    return 0;
}
