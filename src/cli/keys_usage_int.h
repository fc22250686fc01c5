/* keys_usage: what keys have used this month, from the ledger's journal. */
#ifndef PHAROS_CLI_KEYS_USAGE_INT_H
#define PHAROS_CLI_KEYS_USAGE_INT_H

#include "base/arena.h"
#include "gateway/keys.h"

struct key_usage {
    char account[KEY_ID_LEN + 1];
    uint64_t requests, prompt_tokens, output_tokens; /* requests: attempts with a provider */
    int64_t cost_pico;
};

struct key_usages {
    struct key_usage *items; /* in order of account */
    size_t count;
    uint64_t damaged; /* records of the journal that could not be read */
};

/* Of the calendar month, UTC, in which `now_unix_s` lies, also while a station runs. In the arena. */
PH_MUST_USE enum ph_status keys_usage_read(struct arena *arena, const char *data_dir, const struct key *keys,
                                           size_t count, int64_t now_unix_s, struct key_usages *out,
                                           struct ph_err *err);
/* A key's account's; keys of one account share it. */
const struct key_usage *keys_usage_of(const struct key_usages *usages, const struct key *key);

#endif
