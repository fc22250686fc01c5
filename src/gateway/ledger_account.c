/* Budgets: what each scope has spent and holds, by month. */
#include <string.h>

#include "gateway/ledger_int.h"

#define ARENA_BYTES_MAX ((size_t)64 << 20)
#define CAPACITY_FIRST 64
#define FNV_OFFSET 14695981039346656037u
#define FNV_PRIME 1099511628211u

static uint64_t hash(enum ledger_scope scope, const char *name)
{
    uint64_t value = FNV_OFFSET ^ (uint64_t)scope;
    for (; *name; name++)
        value = (value ^ (uint8_t)*name) * FNV_PRIME;
    return value ^ value >> 29;
}

enum ph_status accounts_init(struct accounts *accounts)
{
    *accounts = (struct accounts){.station = {.scope = LEDGER_STATION, .limit_pico = -1}};
    for (size_t i = 0; i < LEDGER_TIER_COUNT; i++) {
        struct account *tier = &accounts->tiers[i];
        const char *name = ledger_tier_name((enum ledger_tier)i);
        *tier = (struct account){.scope = LEDGER_BY_TIER, .limit_pico = -1};
        memcpy(tier->name, name, strlen(name) + 1);
    }
    arena_init(&accounts->arena, ARENA_BYTES_MAX);
    accounts->table = arena_calloc(&accounts->arena, CAPACITY_FIRST, sizeof(struct account *));
    accounts->capacity = CAPACITY_FIRST;
    return accounts->table ? PH_OK : PH_ERR_NOMEM;
}

void accounts_release(struct accounts *accounts)
{
    arena_release(&accounts->arena);
    *accounts = (struct accounts){0};
}

/* The place of a name, or the free one where it belongs. */
static struct account **place(struct account **table, size_t capacity, enum ledger_scope scope,
                              const char *name)
{
    for (size_t at = (size_t)hash(scope, name);; at++) {
        struct account **slot = &table[at & (capacity - 1)];
        if (!*slot || ((*slot)->scope == scope && strcmp((*slot)->name, name) == 0))
            return slot;
    }
}

static bool grow(struct accounts *accounts)
{
    size_t capacity = accounts->capacity * 2;
    struct account **table = arena_calloc(&accounts->arena, capacity, sizeof(struct account *));
    if (!table)
        return false;
    for (size_t i = 0; i < accounts->capacity; i++)
        if (accounts->table[i])
            *place(table, capacity, accounts->table[i]->scope, accounts->table[i]->name) = accounts->table[i];
    accounts->table = table;
    accounts->capacity = capacity;
    return true;
}

/* Those that are not in the table; a tier's name has to be one. */
static struct account *fixed(const struct accounts *accounts, enum ledger_scope scope, const char *name)
{
    const struct account *found = scope == LEDGER_STATION ? &accounts->station : NULL;
    for (size_t i = 0; scope == LEDGER_BY_TIER && i < LEDGER_TIER_COUNT; i++)
        if (strcmp(name, accounts->tiers[i].name) == 0)
            found = &accounts->tiers[i];
    return (struct account *)(uintptr_t)found;
}

static bool is_fixed(enum ledger_scope scope)
{
    return scope == LEDGER_STATION || scope == LEDGER_BY_TIER;
}

struct account *accounts_find(const struct accounts *accounts, enum ledger_scope scope, const char *name)
{
    char fitted[RECORD_NAME_BYTES_MAX];
    if (is_fixed(scope))
        return fixed(accounts, scope, name);
    record_fit_name(scope, name, fitted);
    return *place(accounts->table, accounts->capacity, scope, fitted);
}

struct account *accounts_get(struct accounts *accounts, enum ledger_scope scope, const char *name)
{
    char fitted[RECORD_NAME_BYTES_MAX];
    if (is_fixed(scope))
        return fixed(accounts, scope, name);
    record_fit_name(scope, name, fitted);
    struct account **slot = place(accounts->table, accounts->capacity, scope, fitted);
    if (*slot)
        return *slot;
    if (accounts->count >= LEDGER_ACCOUNTS_MAX)
        return NULL;
    if (2 * accounts->count >= accounts->capacity) {
        if (!grow(accounts))
            return NULL;
        slot = place(accounts->table, accounts->capacity, scope, fitted);
    }
    struct account *account = arena_calloc(&accounts->arena, 1, sizeof *account);
    if (!account)
        return NULL;
    account->scope = scope;
    account->limit_pico = -1;
    memcpy(account->name, fitted, strlen(fitted) + 1);
    accounts->count++;
    return *slot = account;
}

static void look(struct accounts *accounts, struct account *account, int month)
{
    struct account_sum *sum = &account->sums[month];
    bool over = account->limit_pico >= 0 && sum->spent + sum->held > account->limit_pico;
    if (over != sum->over)
        accounts->over = over ? accounts->over + 1 : accounts->over - 1;
    sum->over = over;
}

void accounts_set_limit(struct accounts *accounts, struct account *account, int64_t limit_pico)
{
    account->limit_pico = limit_pico;
    for (int month = 0; month < LEDGER_MONTHS; month++)
        look(accounts, account, month);
}

void accounts_add(struct accounts *accounts, struct account *account, int month, __int128 spent,
                  __int128 held)
{
    account->sums[month].spent += spent;
    account->sums[month].held += held;
    look(accounts, account, month);
}

static void clear(struct accounts *accounts, struct account *account, int month)
{
    accounts->over -= account->sums[month].over;
    account->sums[month] = (struct account_sum){0};
}

void accounts_clear_month(struct accounts *accounts, int month)
{
    clear(accounts, &accounts->station, month);
    for (size_t i = 0; i < LEDGER_TIER_COUNT; i++)
        clear(accounts, &accounts->tiers[i], month);
    for (size_t i = 0; i < accounts->capacity; i++)
        if (accounts->table[i])
            clear(accounts, accounts->table[i], month);
}
