/* Sums of a month's journal by account. Stations beside the first one of a data directory have ledgers of
 * their own, ledger.2 and so on, which count too. */
#include "cli/keys_usage_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/limits.h"
#include "gateway/ledger.h"

static int by_account(const void *a, const void *b)
{
    return strcmp(((const struct key_usage *)a)->account, ((const struct key_usage *)b)->account);
}

static struct key_usage *find(const struct key_usages *usages, const char *account)
{
    struct key_usage wanted = {0};
    if (strlen(account) != KEY_ID_LEN || usages->count == 0)
        return NULL;
    memcpy(wanted.account, account, sizeof wanted.account);
    return bsearch(&wanted, usages->items, usages->count, sizeof wanted, by_account);
}

static bool add(void *ud, const struct ledger_record *record)
{
    struct key_usage *usage = find(ud, record->key_id);
    if (!usage)
        return true;
    usage->requests++;
    usage->prompt_tokens += record->usage.prompt_tokens;
    usage->output_tokens += record->usage.output_tokens;
    usage->cost_pico += record->cost_pico;
    return true;
}

static int64_t first_of_month(int64_t day)
{
    struct clock_date date = clock_date(day);
    date.day = 1;
    return clock_day_of(date);
}

/* Keys that were rotated share an account. */
static size_t drop_repeated(struct key_usage *sorted, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || by_account(&sorted[kept - 1], &sorted[i]) != 0)
            sorted[kept++] = sorted[i];
    return kept;
}

enum ph_status keys_usage_read(struct arena *arena, const char *data_dir, const struct key *keys,
                               size_t count, int64_t now_unix_s, struct key_usages *out, struct ph_err *err)
{
    int64_t today = clock_day(now_unix_s * 1000);
    enum ph_status status = PH_OK;
    *out = (struct key_usages){.items = arena_calloc(arena, count, sizeof *out->items), .count = count};
    if (!out->items)
        return ph_fail(err, PH_ERR_NOMEM, "no memory to sum up what keys have used");
    for (size_t i = 0; i < count; i++)
        memcpy(out->items[i].account, keys[i].account, sizeof keys[i].account);
    qsort(out->items, count, sizeof *out->items, by_account);
    out->count = drop_repeated(out->items, count);
    for (int n = 1; status == PH_OK; n++) {
        char dir[PATH_BYTES_MAX];
        uint64_t damaged = 0;
        int len = n == 1 ? snprintf(dir, sizeof dir, "%s/ledger", data_dir)
                         : snprintf(dir, sizeof dir, "%s/ledger.%d", data_dir, n);
        if (len < 0 || (size_t)len >= sizeof dir || !file_exists(dir))
            break;
        status = ledger_read(dir, first_of_month(today), today, add, out, &damaged, err);
        out->damaged += damaged;
    }
    return status;
}

const struct key_usage *keys_usage_of(const struct key_usages *usages, const struct key *key)
{
    return find(usages, key->account);
}
