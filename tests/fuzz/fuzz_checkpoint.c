/* Checkpoints of any bytes: opening, then every section to its last byte. The checksums are put right first,
 * or hardly anything would get beyond them. */
#include <stdlib.h>
#include <string.h>

#include "train/corpus_int.h"
#include "train/trainer_int.h"

static void put_sum(uint8_t *bytes, size_t at, uint64_t sum)
{
    for (size_t i = 0; i < 8; i++)
        bytes[at + i] = (uint8_t)(sum >> (8 * i));
}

static void look_at(const struct checkpoint *c)
{
    volatile uint64_t sum = 0;
    for (size_t i = 0; i < c->settings_len; i++)
        sum += (uint8_t)c->settings[i];
    struct trainer trainer = {.chose_warmup = true}; /* no data files: its settings are only compared */
    sum += settings_find_source(c->settings, c->settings_len, 0x1234, 2);
    sum += settings_begun(c->settings, c->settings_len, 3);
    settings_adopt(c->settings, c->settings_len, &trainer);
    sum += settings_same_mix(c->settings, c->settings_len, &trainer);
    sum += settings_same_windows(c->settings, c->settings_len, &trainer);
    sum += settings_compare(c->settings, c->settings_len, &trainer, "fuzz", false, NULL);
    for (size_t i = 0; i < c->source_count * CHECKPOINT_POSITION_BYTES; i++)
        sum += c->positions[i];
    for (uint64_t i = 0; i < c->float_count * 3 * sizeof(float); i++)
        sum += c->floats[i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct checkpoint c;
    uint8_t *bytes = malloc(len ? len : 1);
    if (!bytes)
        return 0;
    memcpy(bytes, data, len);
    if (len >= 128) {
        memcpy(bytes, "PHTRAIN\0\1\0\0\0\200\0\0\0", 16);
        put_sum(bytes, 16, len);
        put_sum(bytes, 80, corpus_sum(bytes + 128, len - 128));
        put_sum(bytes, 120, corpus_sum(bytes, 120));
    }
    if (checkpoint_open_memory(&c, bytes, len, "fuzz", NULL) == PH_OK)
        look_at(&c);
    free(bytes);
    return 0;
}
