/* The mapped holds: a header page and LEDGER_SLOTS slots of 512 bytes, in the machine's own byte order.
 *
 * A killed process loses nothing that it had stored to the map, and had stored everything up to the
 * instruction that it was killed at. So order is all that matters:
 *
 * S1. A slot's state is stored last (release), after everything it vouches for: a hold's prices and identity,
 *     then HELD; a whole record, then SETTLED. What is written while the state is older is not looked at.
 * S2. A slot becomes FREE after its record was written to the journal.
 * S3. Killed between the two, the record is in both; recovery looks up the sequence in the journal.
 * S4. The prompt's three counts change together: they are written to the copy that is not in use, then the
 *     turn is stored.
 *
 * A power cut may leave any page older than its neighbours. Then checksums tell: a hold's, over what does not
 * change while it runs, with the sequence that the state must agree with, and a record's own. A slot that
 * fails its check is torn; it is skipped and counted. */
#include <string.h>

#include "base/mem.h"
#include "gateway/ledger_int.h"

#define HEADER_BYTES 4096
#define SLOTS_BYTES (HEADER_BYTES + sizeof(struct ledger_slot) * LEDGER_SLOTS)
#define CHUNK_SLOTS 128

struct slots_header {
    char magic[8];
    uint32_t version, slot_bytes; /* another byte order looks like another version */
    uint64_t slot_count;
    _Atomic uint64_t next_sequence;
};
static const char magic[8] = {'P', 'H', 'H', 'O', 'L', 'D', 'S', 0};

/* ---- The file */

/* A header of zeroes is new; one that is damaged is made anew, for the slots vouch for themselves. */
static enum ph_status check_header(struct slots_header *header, const char *path, struct ph_err *err)
{
    if (memcmp(header->magic, magic, sizeof magic) != 0) {
        header->version = LEDGER_FORMAT_VERSION;
        header->slot_bytes = sizeof(struct ledger_slot);
        header->slot_count = LEDGER_SLOTS;
        atomic_store(&header->next_sequence, 1);
        memcpy(header->magic, magic, sizeof magic);
        return PH_OK;
    }
    if (header->version == LEDGER_FORMAT_VERSION && header->slot_bytes == sizeof(struct ledger_slot) &&
        header->slot_count == LEDGER_SLOTS)
        return PH_OK;
    return ph_fail(err, PH_ERR_UNSUPPORTED,
                   "%s was made by another version or machine: end that station in order, then move the "
                   "file away",
                   path);
}

enum ph_status slots_open(struct slots *slots, const char *path, struct ph_err *err)
{
    *slots = (struct slots){0};
    static_assert(sizeof(struct slots_header) <= HEADER_BYTES, "the header has its page");
    enum ph_status status = file_shared_open(&slots->map, path, SLOTS_BYTES, err);
    if (status != PH_OK)
        return status;
    slots->header = (struct slots_header *)(void *)slots->map.data;
    slots->slot = (struct ledger_slot *)(void *)(slots->map.data + HEADER_BYTES);
    status = check_header(slots->header, path, err);
    if (status != PH_OK)
        slots_release(slots);
    return status;
}

void slots_release(struct slots *slots)
{
    file_shared_release(&slots->map);
    *slots = (struct slots){0};
}

uint64_t slots_next_sequence(struct slots *slots)
{
    return atomic_fetch_add_explicit(&slots->header->next_sequence, 1, memory_order_relaxed);
}

void slots_raise_sequence(struct slots *slots, uint64_t at_least)
{
    if (atomic_load(&slots->header->next_sequence) < at_least)
        atomic_store(&slots->header->next_sequence, at_least);
}

enum ph_status slots_find_used(const char *path, uint32_t *used, size_t *count, struct ph_err *err)
{
    struct file_at file;
    size_t got = 1;
    *count = 0;
    enum ph_status status = file_at_open(&file, path, false, err);
    if (status != PH_OK)
        return status;
    struct ledger_slot *chunk = mem_alloc(CHUNK_SLOTS * sizeof *chunk);
    if (!chunk)
        status = ph_fail(err, PH_ERR_NOMEM, "no memory to read %s", path);
    for (size_t at = 0; status == PH_OK && at < LEDGER_SLOTS; at += CHUNK_SLOTS) {
        status = file_at_read(&file, HEADER_BYTES + at * sizeof *chunk, chunk, CHUNK_SLOTS * sizeof *chunk,
                              &got, err);
        for (size_t i = 0; status == PH_OK && i < got / sizeof *chunk; i++)
            if (atomic_load_explicit(&chunk[i].state, memory_order_relaxed) != SLOT_FREE)
                used[(*count)++] = (uint32_t)(at + i);
    }
    mem_free(chunk);
    file_at_close(&file);
    return status;
}

/* ---- A slot */

static uint32_t hold_check(const struct crc32c *crc, const struct ledger_slot *slot)
{
    const uint8_t *identity = slot->record + RECORD_IDENTITY;
    uint32_t prices = crc32c(crc, (const uint8_t *)&slot->price, 2 * sizeof slot->price);
    return prices ^ crc32c(crc, identity, (size_t)RECORD_BYTES - (size_t)RECORD_IDENTITY);
}
static_assert(offsetof(struct ledger_slot, premium) ==
                  offsetof(struct ledger_slot, price) + sizeof(struct ledger_price),
              "the prices lie side by side");

static void set_state(struct ledger_slot *slot, uint64_t sequence, enum slot_phase phase)
{
    atomic_store_explicit(&slot->state, sequence << 2 | phase, memory_order_release);
}

void slot_hold(const struct crc32c *crc, struct ledger_slot *slot, const struct ledger_ask *ask,
               uint64_t sequence, int64_t unix_ms)
{
    atomic_store_explicit(&slot->output, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->prompt_turn, 0, memory_order_relaxed);
    slot->prompt[0] = (struct slot_prompt){.prompt = ask->prompt_tokens};
    slot->price = ask->price;
    slot->premium = ask->premium;
    record_begin(slot->record, ask, sequence, unix_ms);
    slot->check = hold_check(crc, slot);
    set_state(slot, sequence, SLOT_HELD);
}

void slot_count_prompt(struct ledger_slot *slot, const struct slot_prompt *prompt)
{
    uint64_t turn = atomic_load_explicit(&slot->prompt_turn, memory_order_relaxed) + 1;
    slot->prompt[turn & 1] = *prompt;
    atomic_store_explicit(&slot->prompt_turn, turn, memory_order_release); /* S4 */
}

struct ledger_usage slot_counted(const struct ledger_slot *slot)
{
    uint64_t turn = atomic_load_explicit(&slot->prompt_turn, memory_order_acquire);
    const struct slot_prompt *prompt = &slot->prompt[turn & 1];
    return (struct ledger_usage){
        .prompt_tokens = prompt->prompt,
        .cached_tokens = prompt->cached,
        .cache_write_tokens = prompt->cache_write,
        .output_tokens = atomic_load_explicit(&slot->output, memory_order_acquire),
        .estimated = true,
    };
}

bool slot_prompt_was_said(const struct ledger_slot *slot)
{
    return atomic_load_explicit(&slot->prompt_turn, memory_order_acquire) > 0;
}

int64_t slot_settle(const struct crc32c *crc, struct ledger_slot *slot, const struct ledger_usage *usage,
                    enum ledger_outcome outcome)
{
    const struct ledger_ending ending = {.usage = *usage,
                                         .outcome = outcome,
                                         .cost_pico = ledger_cost(&slot->price, usage),
                                         .premium_pico = ledger_cost(&slot->premium, usage)};
    record_end(crc, slot->record, &ending);
    set_state(slot, record_get(slot->record, RECORD_SEQUENCE), SLOT_SETTLED); /* S1 */
    return ending.cost_pico;
}

void slot_free(struct ledger_slot *slot)
{
    atomic_store_explicit(&slot->state, SLOT_FREE, memory_order_release);
}

bool slot_recover(const struct crc32c *crc, struct ledger_slot *slot)
{
    uint64_t state = atomic_load_explicit(&slot->state, memory_order_acquire);
    struct ledger_record record;
    if (state >> 2 != (record_get(slot->record, RECORD_SEQUENCE) & UINT64_MAX >> 2))
        return false;
    if ((state & 3) == SLOT_SETTLED)
        return record_read(crc, slot->record, &record);
    if ((state & 3) != SLOT_HELD || slot->check != hold_check(crc, slot))
        return false;
    struct ledger_usage counted = slot_counted(slot);
    slot_settle(crc, slot, &counted, LEDGER_CRASHED);
    return record_read(crc, slot->record, &record);
}
