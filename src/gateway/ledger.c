/* The ledger: holds from reservation to the journal, and what they do to the budgets.
 *
 * A hold is a slot of the mapped file (what must outlive the process: ledger_slots.c) and a struct here (what
 * need not: which accounts, how much they hold for it). Its way: reserved, counted, settled, in line for the
 * journal, written, free. Until it is written its slot is its record; a full disk makes the line longer, and
 * when there is no slot left the station is too busy for more.
 *
 * L1. A sum's `held` is what its running holds cost if each runs to its output_max; `spent` is what settled
 *     ones did cost. A hold is granted where spent + held stays within every limit.
 * L2. When a sum is over its limit nevertheless (a prompt was longer than thought, a limit was lowered, a
 *     provider counted more than we), its streams give back what they have not used, each at its next token,
 *     until it is not. So nothing passes a limit but what is already owed, and one token a stream.
 * L3. A hold's month and day are those of its reservation: what a month may spend is decided once, and a
 *     record's file follows from the record, which recovery needs.
 * L4. A sequence is in the journal once at most.
 * L5. A running hold that is used up takes GROW_TOKENS more, within its bound, where L1 allows it; where not,
 *     its stream ends. What it may cost is kept here only: a killed station leaves what was counted. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "gateway/ledger_int.h"

#define AREA "ledger"
#define NO_MONTH (-1)
#define TOKENS_MAX UINT32_MAX /* that a hold can be for; so no sum of products leaves 128 bits */
#define GROW_TOKENS 64
#define SCOPES LEDGER_SCOPE_COUNT

struct ledger_hold {
    struct ledger_slot *slot;
    const size_t *over;         /* the accounts' */
    uint64_t stop_at;           /* the first count of output at which it is used up */
    uint64_t output_max, asked; /* asked of the provider: what output_max was at first */
    uint64_t bound;             /* of output_max */
    uint64_t stride;            /* the delta with which it last grew */
    int64_t price_output, prompt_pico;
    __int128 held;
    struct ledger *ledger;
    struct account *accounts[SCOPES];
    int64_t month_number;
    int month; /* in the accounts; NO_MONTH: not there any more */
    bool running;
};

struct month {
    int64_t number; /* months since year 0; of an empty one INT64_MIN */
};

struct ledger {
    char *dir;
    const struct clock_source *clock;
    int lock;
    struct crc32c crc;
    struct slots slots;
    struct journal journal;
    struct ledger_sync *sync;
    struct accounts accounts;
    struct month months[LEDGER_MONTHS];
    int month;                     /* the current one */
    int64_t day;                   /* of which `month` is; INT64_MIN: none yet */
    struct ledger_hold *holds;     /* [LEDGER_SLOTS], beside the slots */
    size_t holds_used;             /* only those below were ever used */
    uint32_t *free, *line, *found; /* slots: a stack, a ring, what recovery found; [LEDGER_SLOTS] each */
    size_t free_count, line_first, line_len, running;
    bool failing;
    struct ph_err problem;
    uint8_t *batch; /* [LEDGER_BATCH_RECORDS][RECORD_BYTES] */
};

static int64_t month_of_day(int64_t day)
{
    struct clock_date date = clock_date(day);
    return date.year * 12 + date.month - 1;
}

static int64_t month_first_day(int64_t number)
{
    return clock_day_of((struct clock_date){number / 12, (int)(number % 12) + 1, 1});
}

static uint32_t slot_index(const struct ledger *ledger, const struct ledger_slot *slot)
{
    return (uint32_t)(slot - ledger->slots.slot);
}

/* ---- Accounts of a record, of a hold */

static bool find_accounts(struct ledger *ledger, enum ledger_tier tier, const char *provider, const char *key,
                          struct account *out[SCOPES])
{
    out[LEDGER_STATION] = &ledger->accounts.station;
    out[LEDGER_BY_TIER] = &ledger->accounts.tiers[tier];
    out[LEDGER_BY_PROVIDER] = accounts_get(&ledger->accounts, LEDGER_BY_PROVIDER, provider);
    out[LEDGER_BY_KEY] = accounts_get(&ledger->accounts, LEDGER_BY_KEY, key);
    return out[LEDGER_BY_PROVIDER] && out[LEDGER_BY_KEY];
}

static void add(struct ledger *ledger, struct account *const accounts[SCOPES], int month, __int128 spent,
                __int128 held)
{
    for (size_t i = 0; i < SCOPES && month != NO_MONTH; i++)
        accounts_add(&ledger->accounts, accounts[i], month, spent, held);
}

static bool add_record(struct ledger *ledger, const struct ledger_record *record, int month)
{
    struct account *accounts[SCOPES];
    if (!find_accounts(ledger, record->tier, record->provider, record->key_id, accounts))
        return false;
    add(ledger, accounts, month, record->cost_pico, 0);
    return true;
}

/* ---- Months */

struct month_load {
    struct ledger *ledger;
    int month;
    uint64_t sequence_max;
    bool no_memory;
};

static bool load_record(void *ud, const struct ledger_record *record)
{
    struct month_load *load = ud;
    if (record->sequence > load->sequence_max)
        load->sequence_max = record->sequence;
    load->no_memory = !add_record(load->ledger, record, load->month);
    return !load->no_memory;
}

/* What is not in the journal: settled and in line, or running. */
static bool load_slots(struct month_load *load, int64_t number)
{
    struct ledger *ledger = load->ledger;
    struct ledger_record record;
    for (size_t i = 0; i < ledger->line_len; i++) {
        size_t at = (ledger->line_first + i) % LEDGER_SLOTS;
        const uint8_t *bytes = ledger->slots.slot[ledger->line[at]].record;
        if (month_of_day(record_day(bytes)) == number && record_read(&ledger->crc, bytes, &record) &&
            !load_record(load, &record))
            return false;
    }
    for (size_t i = 0; i < ledger->holds_used; i++) {
        struct ledger_hold *hold = &ledger->holds[i];
        if (!hold->running || hold->month_number != number)
            continue;
        hold->month = load->month;
        add(ledger, hold->accounts, hold->month, 0, hold->held);
    }
    return true;
}

static void forget_month(struct ledger *ledger, int month)
{
    ledger->months[month].number = INT64_MIN;
    accounts_clear_month(&ledger->accounts, month);
    for (size_t i = 0; i < ledger->holds_used; i++)
        if (ledger->holds[i].month == month)
            ledger->holds[i].month = NO_MONTH;
}

static enum ph_status load_month(struct ledger *ledger, int month, int64_t number, struct ph_err *err)
{
    struct month_load load = {.ledger = ledger, .month = month};
    struct journal_visit visit = {.fn = load_record, .ud = &load};
    enum ph_status status = PH_OK;
    forget_month(ledger, month);
    int64_t end = month_first_day(number + 1);
    for (int64_t day = month_first_day(number); day < end && status == PH_OK && !load.no_memory; day++)
        status = journal_visit_day(ledger->dir, &ledger->crc, day, &visit, err);
    if (status == PH_OK && (load.no_memory || !load_slots(&load, number)))
        status = ph_fail(err, PH_ERR_NOMEM, "no memory for the sums of a month's journal in %s", ledger->dir);
    if (status != PH_OK) {
        forget_month(ledger, month);
        return status;
    }
    if (visit.damaged > 0)
        log_warn(AREA, "%llu damaged records in this month's journal in %s were skipped",
                 (unsigned long long)visit.damaged, ledger->dir);
    slots_raise_sequence(&ledger->slots, load.sequence_max + 1);
    ledger->months[month].number = number;
    return PH_OK;
}

/* Makes the month of `now` the current one, from the journal unless it is in memory: a clock that was wrong
 * and is put right leads back to the true sums. */
static enum ph_status enter_day(struct ledger *ledger, int64_t now_ms, struct ph_err *err)
{
    int64_t day = clock_day(now_ms);
    if (day == ledger->day)
        return PH_OK;
    int64_t number = month_of_day(day);
    int found = NO_MONTH;
    for (int i = 0; i < LEDGER_MONTHS; i++)
        if (ledger->months[i].number == number)
            found = i;
    if (found == NO_MONTH) {
        found = (ledger->month + 1) % LEDGER_MONTHS;
        enum ph_status status = load_month(ledger, found, number, err);
        if (status != PH_OK)
            return status;
    }
    ledger->month = found;
    ledger->day = day;
    return PH_OK;
}

/* ---- The line to the journal */

static void line_push(struct ledger *ledger, uint32_t index)
{
    ledger->line[(ledger->line_first + ledger->line_len++) % LEDGER_SLOTS] = index;
}

static void fail_writing(struct ledger *ledger, const struct ph_err *err)
{
    if (!ledger->failing)
        log_error(AREA, "%s; budgets hold on, records wait in %s/holds", err->message, ledger->dir);
    ledger->failing = true;
    (void)ph_fail(&ledger->problem, err->code, "%s; %zu records wait for it, of at most %d", err->message,
                  ledger->line_len, LEDGER_SLOTS);
}

/* The first records in line that are of one day. false: it could not be. */
static bool write_batch(struct ledger *ledger)
{
    struct ph_err err;
    size_t count = 0;
    int64_t day = 0;
    for (; count < ledger->line_len && count < LEDGER_BATCH_RECORDS; count++) {
        size_t at = (ledger->line_first + count) % LEDGER_SLOTS;
        const uint8_t *record = ledger->slots.slot[ledger->line[at]].record;
        if (count > 0 && record_day(record) != day)
            break;
        day = record_day(record);
        memcpy(ledger->batch + count * RECORD_BYTES, record, RECORD_BYTES);
    }
    if (journal_append(&ledger->journal, day, ledger->batch, count, &err) != PH_OK) {
        fail_writing(ledger, &err);
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        uint32_t index = ledger->line[ledger->line_first];
        slot_free(&ledger->slots.slot[index]);
        ledger->free[ledger->free_count++] = index;
        ledger->line_first = (ledger->line_first + 1) % LEDGER_SLOTS;
        ledger->line_len--;
    }
    return true;
}

static bool write_line(struct ledger *ledger)
{
    while (ledger->line_len > 0)
        if (!write_batch(ledger))
            return false;
    if (ledger->failing)
        log_info(AREA, "the journal in %s is written again", ledger->dir);
    ledger->failing = false;
    return true;
}

static void ask_for_sync(struct ledger *ledger)
{
    for (size_t i = 0; i < JOURNAL_DAYS_OPEN; i++) {
        struct journal_day *day = &ledger->journal.days[i];
        if (day->dirty && ledger_sync_ask(ledger->sync, day->day))
            day->dirty = false;
    }
}

void ledger_tick(struct ledger *ledger)
{
    struct ph_err err;
    (void)write_line(ledger);
    if (ledger_sync_failed(ledger->sync, &err))
        log_error(AREA, "%s; what was recorded last may not survive a power cut", err.message);
    ask_for_sync(ledger);
}

const char *ledger_problem(const struct ledger *ledger)
{
    return ledger->failing ? ledger->problem.message : NULL;
}

/* ---- What a killed station left */

struct left {
    int64_t day;
    uint64_t sequence;
    uint32_t index;
    bool written;
};

static int compare_left(const void *a, const void *b)
{
    const struct left *x = a, *y = b;
    if (x->day != y->day)
        return x->day < y->day ? -1 : 1;
    return (x->sequence > y->sequence) - (x->sequence < y->sequence);
}

struct left_of_day {
    struct left *first;
    size_t count;
};

/* Marks the one of this sequence (L4); most records are older than all of them. */
static bool mark_written(void *ud, const struct ledger_record *record)
{
    const struct left_of_day *of = ud;
    size_t low = 0, high = of->count;
    if (record->sequence < of->first[0].sequence)
        return true;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (of->first[middle].sequence < record->sequence)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < of->count && of->first[low].sequence == record->sequence)
        of->first[low].written = true;
    return true;
}

static enum ph_status find_written(const struct ledger *ledger, struct left *left, size_t count,
                                   struct ph_err *err)
{
    enum ph_status status = PH_OK;
    for (size_t at = 0, n; at < count && status == PH_OK; at += n) {
        for (n = 1; at + n < count && left[at + n].day == left[at].day;)
            n++;
        struct left_of_day of = {left + at, n};
        struct journal_visit visit = {.fn = mark_written, .ud = &of};
        status = journal_visit_day(ledger->dir, &ledger->crc, left[at].day, &visit, err);
    }
    return status;
}

/* The whole ones become settled where they lie, so that being killed here changes nothing. */
static size_t recover_slots(struct ledger *ledger, struct left *left, size_t found, size_t *torn)
{
    size_t count = 0;
    for (size_t i = 0; i < found; i++) {
        struct ledger_slot *slot = &ledger->slots.slot[ledger->found[i]];
        if (!slot_recover(&ledger->crc, slot)) {
            slot_free(slot);
            ++*torn;
            continue;
        }
        uint64_t sequence = record_get(slot->record, RECORD_SEQUENCE);
        left[count++] = (struct left){record_day(slot->record), sequence, ledger->found[i], false};
        slots_raise_sequence(&ledger->slots, sequence + 1);
    }
    qsort(left, count, sizeof *left, compare_left);
    return count;
}

static enum ph_status recover(struct ledger *ledger, size_t found, size_t *recovered, struct ph_err *err)
{
    size_t torn = 0;
    *recovered = 0;
    if (found == 0)
        return PH_OK;
    struct left *left = mem_calloc(found, sizeof *left);
    if (!left)
        return ph_fail(err, PH_ERR_NOMEM, "no memory to settle what a killed station left in %s",
                       ledger->dir);
    size_t count = recover_slots(ledger, left, found, &torn);
    enum ph_status status = find_written(ledger, left, count, err);
    for (size_t i = 0; i < count && status == PH_OK; i++) {
        if (left[i].written) {
            slot_free(&ledger->slots.slot[left[i].index]);
            continue;
        }
        line_push(ledger, left[i].index);
        ++*recovered;
    }
    mem_free(left);
    if (torn > 0)
        log_warn(AREA, "%zu torn holds in %s/holds were dropped", torn, ledger->dir);
    return status;
}

/* Slots that are not in line, the lowest on top: pages that were touched are touched again first, and the
 * others not even here. */
static void stack_free_slots(struct ledger *ledger)
{
    uint32_t *in_line = ledger->found; /* not needed any more */
    memset(in_line, 0, LEDGER_SLOTS * sizeof *in_line);
    for (size_t i = 0; i < ledger->line_len; i++)
        in_line[ledger->line[i]] = 1;
    for (uint32_t i = LEDGER_SLOTS; i-- > 0;)
        if (!in_line[i])
            ledger->free[ledger->free_count++] = i;
}

/* ---- Opening and closing */

static enum ph_status allocate(struct ledger *ledger)
{
    ledger->holds = mem_calloc(LEDGER_SLOTS, sizeof *ledger->holds);
    ledger->free = mem_alloc(LEDGER_SLOTS * sizeof *ledger->free);
    ledger->line = mem_alloc(LEDGER_SLOTS * sizeof *ledger->line);
    ledger->found = mem_alloc(LEDGER_SLOTS * sizeof *ledger->found);
    ledger->batch = mem_alloc((size_t)LEDGER_BATCH_RECORDS * RECORD_BYTES);
    bool all = ledger->holds && ledger->free && ledger->line && ledger->found && ledger->batch;
    return all ? accounts_init(&ledger->accounts) : PH_ERR_NOMEM;
}

static enum ph_status in_dir(const struct ledger *ledger, const char *name, char out[PATH_BYTES_MAX],
                             struct ph_err *err)
{
    size_t dir = strlen(ledger->dir), len = strlen(name);
    if (dir + 32 > PATH_BYTES_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "the ledger's directory has a name of %zu bytes; choose a shorter",
                       dir);
    memcpy(out, ledger->dir, dir);
    memcpy(out + dir, name, len + 1);
    return PH_OK;
}

static enum ph_status open_files(struct ledger *ledger, size_t *found, struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    enum ph_status status = in_dir(ledger, "/lock", path, err);
    if (status == PH_OK)
        status = file_make_private_dir(ledger->dir, err);
    if (status == PH_OK)
        status = file_lock(path, &ledger->lock, err);
    if (status == PH_OK)
        status = in_dir(ledger, "/holds", path, err);
    if (status == PH_OK)
        status = slots_open(&ledger->slots, path, err);
    if (status == PH_OK)
        status = slots_find_used(path, ledger->found, found, err);
    return status;
}

static enum ph_status open_all(struct ledger *ledger, size_t *recovered, struct ph_err *err)
{
    size_t found = 0;
    if (!ledger->dir || allocate(ledger) != PH_OK)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the ledger");
    enum ph_status status = open_files(ledger, &found, err);
    if (status == PH_OK)
        status = recover(ledger, found, recovered, err);
    if (status != PH_OK)
        return status;
    stack_free_slots(ledger);
    if (ledger_sync_open(&ledger->sync, ledger->dir) != PH_OK)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the ledger's thread");
    (void)write_line(ledger); /* a full disk does not keep the station from starting */
    return enter_day(ledger, clock_unix_ms(ledger->clock), err);
}

static void release(struct ledger *ledger)
{
    ledger_sync_close(ledger->sync);
    journal_release(&ledger->journal);
    slots_release(&ledger->slots);
    file_unlock(ledger->lock);
    if (ledger->accounts.table)
        accounts_release(&ledger->accounts);
    mem_free(ledger->batch);
    mem_free(ledger->found);
    mem_free(ledger->line);
    mem_free(ledger->free);
    mem_free(ledger->holds);
    mem_free(ledger->dir);
    mem_free(ledger);
}

enum ph_status ledger_open(struct ledger **out, const struct ledger_params *params, size_t *recovered,
                           struct ph_err *err)
{
    size_t count = 0;
    struct ledger *ledger = mem_calloc(1, sizeof *ledger);
    *out = NULL;
    if (!ledger)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the ledger");
    ledger->lock = -1;
    ledger->day = ledger->months[0].number = ledger->months[1].number = INT64_MIN;
    ledger->clock = params->clock;
    ledger->dir = mem_strdup(params->dir);
    crc32c_init(&ledger->crc);
    journal_init(&ledger->journal, ledger->dir, &ledger->crc);
    enum ph_status status = open_all(ledger, &count, err);
    if (recovered)
        *recovered = count;
    if (status != PH_OK) {
        release(ledger);
        return status;
    }
    *out = ledger;
    return PH_OK;
}

void ledger_close(struct ledger *ledger)
{
    if (!ledger)
        return;
    for (size_t i = 0; i < ledger->holds_used; i++)
        if (ledger->holds[i].running)
            ledger_settle(ledger, &ledger->holds[i], NULL, LEDGER_ABORTED);
    (void)write_line(ledger);
    for (size_t i = 0; i < JOURNAL_DAYS_OPEN; i++) { /* the thread may be busy with another one */
        char path[PATH_BYTES_MAX];
        struct ph_err err;
        journal_path(ledger->dir, ledger->journal.days[i].day, "", path);
        if (ledger->journal.days[i].dirty && file_sync(path, &err) != PH_OK)
            log_error(AREA, "%s", err.message);
    }
    release(ledger);
}

/* ---- Budgets */

enum ph_status ledger_set_budget(struct ledger *ledger, enum ledger_scope scope, const char *name,
                                 int64_t pico_month)
{
    struct account *account = accounts_get(&ledger->accounts, scope, name);
    if (!account)
        return scope == LEDGER_BY_TIER ? PH_ERR_ARG : PH_ERR_NOMEM;
    accounts_set_limit(&ledger->accounts, account, pico_month);
    return PH_OK;
}

static int64_t clamp(__int128 value)
{
    return value > INT64_MAX ? INT64_MAX : value < INT64_MIN ? INT64_MIN : (int64_t)value;
}

struct ledger_sum ledger_sum(const struct ledger *ledger, enum ledger_scope scope, const char *name)
{
    const struct account *account = accounts_find(&ledger->accounts, scope, name);
    int64_t number = month_of_day(clock_day(clock_unix_ms(ledger->clock)));
    struct ledger_sum sum = {.limit_pico = account ? account->limit_pico : -1};
    for (int i = 0; i < LEDGER_MONTHS && account; i++)
        if (ledger->months[i].number == number) {
            sum.spent_pico = clamp(account->sums[i].spent);
            sum.held_pico = clamp(account->sums[i].held);
        }
    return sum;
}

/* What a hold of these accounts may cost, what it holds itself included; `tightest` is whose word that is. */
static __int128 available(const struct ledger_hold *hold, const struct account **tightest)
{
    __int128 least = (__int128)INT64_MAX << 32; /* no limit: more than any hold can cost */
    for (size_t i = 0; i < SCOPES; i++) {
        const struct account *account = hold->accounts[i];
        const struct account_sum *sum = &account->sums[hold->month];
        __int128 room = account->limit_pico - sum->spent - sum->held + hold->held;
        if (account->limit_pico >= 0 && room < least) {
            least = room;
            *tightest = account;
        }
    }
    return least;
}

/* How many tokens of output that pays for, of those wished for (L1). */
static uint64_t affordable(const struct ledger_hold *hold, __int128 room, uint64_t wished)
{
    int64_t price = hold->price_output;
    __int128 tokens = price > 0 ? (room - hold->prompt_pico) / price : wished;
    if (tokens >= wished)
        return wished;
    return tokens > 0 ? (uint64_t)tokens : 0;
}

/* Beyond what the provider was told it need not stop by itself: there the stream ends before the delta that
 * would not be paid. */
static void set_output_max(struct ledger_hold *hold, uint64_t output_max)
{
    uint64_t margin = output_max > hold->asked ? hold->stride - 1 : 0;
    hold->output_max = output_max;
    if (hold->price_output == 0)
        hold->stop_at = UINT64_MAX;
    else if (output_max == hold->asked)
        hold->stop_at = output_max + 1;
    else
        hold->stop_at = output_max > margin ? output_max - margin : 0;
}

/* Makes the accounts hold what the hold may cost, or costs already. */
static void set_held(struct ledger_hold *hold, uint64_t output)
{
    uint64_t tokens = output > hold->output_max ? output : hold->output_max;
    tokens = tokens < TOKENS_MAX ? tokens : TOKENS_MAX;
    __int128 held = hold->prompt_pico + (__int128)tokens * hold->price_output;
    if (held != hold->held)
        add(hold->ledger, hold->accounts, hold->month, 0, held - hold->held);
    hold->held = held;
}

/* ---- Reserving */

static struct ledger_slot *take_slot(struct ledger *ledger)
{
    if (ledger->running >= LEDGER_HOLDS_MAX)
        return NULL;
    if (ledger->free_count == 0 && (ledger->failing || ledger->line_len == 0 || !write_batch(ledger)))
        return NULL;
    return &ledger->slots.slot[ledger->free[--ledger->free_count]];
}

static void refuse(const struct ledger *ledger, const struct account *account, struct ledger_refusal *refusal)
{
    const struct account_sum *sum = &account->sums[ledger->month];
    *refusal = (struct ledger_refusal){
        .scope = account->scope,
        .limit_pico = account->limit_pico,
        .spent_pico = clamp(sum->spent),
        .held_pico = clamp(sum->held),
        .renews_unix_s =
            month_first_day(ledger->months[ledger->month].number + 1) * (CLOCK_MS_PER_DAY / 1000),
    };
    static_assert(sizeof refusal->name >= sizeof account->name, "an account's name fits");
    memcpy(refusal->name, account->name, sizeof account->name);
}

static struct ledger_price sane_price(const struct ledger_price *price)
{
    return (struct ledger_price){
        price->input > 0 ? price->input : 0, price->cached_input > 0 ? price->cached_input : 0,
        price->cache_write > 0 ? price->cache_write : 0, price->output > 0 ? price->output : 0};
}

/* How much of the output asked for is granted; false: a budget says no. */
static bool grant(const struct ledger *ledger, struct ledger_hold *hold, struct ledger_refusal *refusal)
{
    const struct account *tightest = NULL;
    __int128 room = available(hold, &tightest);
    __int128 least = hold->prompt_pico + (hold->asked > 0 ? (__int128)hold->price_output : 0);
    if (least > room && least > 0) {
        if (refusal)
            refuse(ledger, tightest, refusal);
        return false;
    }
    hold->asked = affordable(hold, room, hold->asked);
    set_output_max(hold, hold->asked);
    return true;
}

enum ph_status ledger_reserve(struct ledger *ledger, const struct ledger_ask *given, struct ledger_hold **out,
                              struct ledger_refusal *refusal)
{
    int64_t now_ms = clock_unix_ms(ledger->clock);
    struct ph_err err;
    *out = NULL;
    enum ph_status status = enter_day(ledger, now_ms, &err);
    if (status != PH_OK) {
        log_error(AREA, "%s; nothing can be reserved before that is readable", err.message);
        return status;
    }
    struct ledger_ask ask = *given;
    ask.price = sane_price(&given->price);
    ask.premium = sane_price(&given->premium);
    struct ledger_hold terms = {
        .over = &ledger->accounts.over,
        .ledger = ledger,
        .month_number = ledger->months[ledger->month].number,
        .month = ledger->month,
        .price_output = ask.price.output,
        .asked = ask.output_tokens_max < TOKENS_MAX ? ask.output_tokens_max : TOKENS_MAX,
        .bound = ask.output_tokens_bound < TOKENS_MAX ? ask.output_tokens_bound : TOKENS_MAX,
        .stride = 1,
        .running = true};
    if (!find_accounts(ledger, ask.tier, ask.provider, ask.key_id, terms.accounts))
        return PH_ERR_BUSY;
    terms.prompt_pico = ledger_cost(&ask.price, &(struct ledger_usage){.prompt_tokens = ask.prompt_tokens});
    if (!grant(ledger, &terms, refusal))
        return PH_ERR_LIMIT;
    struct ledger_slot *slot = take_slot(ledger);
    if (!slot)
        return PH_ERR_BUSY;
    slot_hold(&ledger->crc, slot, &ask, slots_next_sequence(&ledger->slots), now_ms);
    struct ledger_hold *hold = &ledger->holds[slot_index(ledger, slot)];
    *hold = terms;
    hold->slot = slot;
    set_held(hold, 0);
    ledger->running++;
    if (slot_index(ledger, slot) >= ledger->holds_used)
        ledger->holds_used = slot_index(ledger, slot) + 1;
    *out = hold;
    return PH_OK;
}

uint64_t ledger_hold_output_max(const struct ledger_hold *hold)
{
    return hold->output_max;
}

/* ---- Counting */

/* L2: gives back what the tightest of its budgets is over by, as far as it is not used. */
static void give_back(struct ledger_hold *hold, uint64_t output)
{
    __int128 excess = 0, price = hold->price_output;
    for (size_t i = 0; i < SCOPES; i++) {
        const struct account *account = hold->accounts[i];
        const struct account_sum *sum = &account->sums[hold->month];
        __int128 over = sum->over ? sum->spent + sum->held - account->limit_pico : 0;
        excess = over > excess ? over : excess;
    }
    if (excess == 0 || price == 0 || output >= hold->output_max)
        return;
    __int128 tokens = (excess + price - 1) / price;
    uint64_t unused = hold->output_max - output;
    set_output_max(hold, tokens < unused ? hold->output_max - (uint64_t)tokens : output);
}

/* L5; by a delta at least: a hold that grew by less would end at once. */
static void grow(struct ledger_hold *hold, uint64_t output, uint64_t delta)
{
    const struct account *tightest = NULL;
    uint64_t more = delta > GROW_TOKENS ? delta : GROW_TOKENS;
    uint64_t wished = output < hold->bound && hold->bound - output > more ? output + more : hold->bound;
    if (wished <= hold->output_max)
        return;
    uint64_t paid = affordable(hold, available(hold, &tightest), wished);
    if (paid <= hold->output_max)
        return;
    hold->stride = delta;
    set_output_max(hold, paid);
}

static bool count_with_care(struct ledger_hold *hold, uint64_t output, uint64_t before)
{
    set_held(hold, output);
    if (hold->month != NO_MONTH) {
        give_back(hold, output);
        if (output >= hold->stop_at)
            grow(hold, output, output > before ? output - before : 1);
    }
    set_held(hold, output);
    return output < hold->stop_at;
}

bool ledger_count(struct ledger_hold *hold, uint64_t output_tokens)
{
    uint64_t before = atomic_load_explicit(&hold->slot->output, memory_order_relaxed);
    atomic_store_explicit(&hold->slot->output, output_tokens, memory_order_release);
    if (output_tokens < hold->stop_at && output_tokens >= before && *hold->over == 0)
        return true;
    return count_with_care(hold, output_tokens, before);
}

bool ledger_count_prompt(struct ledger_hold *hold, uint64_t prompt_tokens, uint64_t cached_tokens,
                         uint64_t cache_write_tokens)
{
    const struct slot_prompt prompt = {prompt_tokens, cached_tokens, cache_write_tokens};
    slot_count_prompt(hold->slot, &prompt);
    struct ledger_usage usage = slot_counted(hold->slot);
    uint64_t output = usage.output_tokens;
    usage.output_tokens = 0;
    hold->prompt_pico = ledger_cost(&hold->slot->price, &usage);
    const struct account *tightest = NULL;
    if (hold->month != NO_MONTH && output < hold->output_max) {
        uint64_t paid = affordable(hold, available(hold, &tightest), hold->output_max);
        if (paid < hold->output_max)
            set_output_max(hold, paid > output ? paid : output);
    }
    set_held(hold, output);
    return output < hold->stop_at;
}

/* ---- Settling */

static void leave(struct ledger *ledger, struct ledger_hold *hold, int64_t cost_pico)
{
    add(ledger, hold->accounts, hold->month, cost_pico, -hold->held);
    hold->running = false;
    hold->month = NO_MONTH;
    ledger->running--;
}

void ledger_settle(struct ledger *ledger, struct ledger_hold *hold, const struct ledger_usage *usage,
                   enum ledger_outcome outcome)
{
    struct ledger_slot *slot = hold->slot;
    struct ledger_usage counted = slot_counted(slot);
    assert(hold->running);
    if (outcome == LEDGER_FAILED && counted.output_tokens == 0 && !slot_prompt_was_said(slot))
        counted = (struct ledger_usage){.estimated = true};
    if (outcome == LEDGER_UNUSED) {
        leave(ledger, hold, 0);
        slot_free(slot);
        ledger->free[ledger->free_count++] = slot_index(ledger, slot);
        return;
    }
    leave(ledger, hold, slot_settle(&ledger->crc, slot, usage ? usage : &counted, outcome));
    line_push(ledger, slot_index(ledger, slot));
    if (ledger->line_len >= LEDGER_BATCH_RECORDS && !ledger->failing)
        (void)write_batch(ledger);
}
