/* pharos cost report: sums over the ledger's journal, also while a station writes it.
 *
 * One pass: each record is added to the group that its fields name and to the total. A request that was tried
 * several times has several records with one id; it counts as one request in each group that it touches, so
 * the groups' requests may add up to more than the total's. Money is added exactly and rounded only in the
 * table. Where premium's price is not known, what was paid stands in for it: nothing is called saved that may
 * not have been. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "cli/cli_int.h"
#include "gateway/ledger.h"

#define ARENA_BYTES_MAX ((size_t)1 << 30)
#define OUTPUT_BYTES_MAX ((size_t)1 << 30)
#define TABLE_FIRST 1024
#define PICO_PER_TABLE_UNIT 100000000 /* the table shows 1/10,000 of a dollar */
#define DAY_TEXT_BYTES 11
#define NUMBER_BYTES 48

enum field { FIELD_DAY, FIELD_KEY, FIELD_MODEL, FIELD_TIER, FIELD_PROVIDER, FIELD_COUNT };
static const char *const field_names[FIELD_COUNT] = {"day", "key", "model", "tier", "provider"};

/* ---- Options */

struct args {
    const char *data, *from, *to, *by;
    bool json, csv;
};

static const struct cli_option options[] = {
    {CLI_OPTION("--data", "DIR", CLI_TEXT, struct args, data, CLI_DATA_HELP)},
    {CLI_OPTION("--from", "DAY", CLI_TEXT, struct args, from, "YYYY-MM-DD, UTC (the first of --to's month)")},
    {CLI_OPTION("--to", "DAY", CLI_TEXT, struct args, to, "the last day (today)")},
    {CLI_OPTION("--by", "FIELDS", CLI_TEXT, struct args, by,
                "a row for each of: day, key, model, tier, provider, comma-separated (day)")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print the result as JSON")},
    {CLI_OPTION("--csv", NULL, CLI_SWITCH, struct args, csv, "print the rows as CSV")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {
    "cost report", NULL,
    "What requests cost, what the same traffic would have cost at premium prices, and what that saved, from\n"
    "the station's ledger. The station may be running.",
    options};

/* ---- Sums */

struct sums {
    uint64_t requests, attempts, input, cached, cache_write, output, estimated;
    uint64_t outcomes[LEDGER_OUTCOME_COUNT];
    __int128 cost_pico, premium_pico;
};

struct group {
    const char *fields[FIELD_COUNT]; /* those of --by, in its order */
    uint64_t hash;
    struct sums sums;
};

struct report {
    struct args args;
    enum field by[FIELD_COUNT];
    size_t by_count;
    int64_t from, to;
    struct arena arena;
    struct group **groups; /* open addressing; in the end the first group_count, sorted */
    size_t group_count, group_capacity;
    uint64_t *requests; /* hashes of (group, request id), 0: free */
    size_t request_count, request_capacity;
    struct sums total;
    uint64_t damaged;
    bool no_memory;
};

static uint64_t hash_text(uint64_t seed, const char *text)
{
    for (; *text; text++)
        seed = (seed ^ (uint8_t)*text) * 1099511628211u;
    seed = (seed ^ seed >> 32) * 0x9E3779B97F4A7C15u;
    return seed ^ seed >> 29;
}

static bool grow_groups(struct report *r)
{
    size_t capacity = r->group_capacity ? r->group_capacity * 2 : TABLE_FIRST;
    struct group **table = mem_calloc(capacity, sizeof(struct group *));
    if (!table)
        return false;
    for (size_t i = 0; i < r->group_capacity; i++) {
        if (!r->groups[i])
            continue;
        size_t at = (size_t)r->groups[i]->hash;
        while (table[at & (capacity - 1)])
            at++;
        table[at & (capacity - 1)] = r->groups[i];
    }
    mem_free(r->groups);
    r->groups = table;
    r->group_capacity = capacity;
    return true;
}

static bool same_group(const struct report *r, const struct group *group, uint64_t hash,
                       const char *const fields[FIELD_COUNT])
{
    bool same = group->hash == hash;
    for (size_t i = 0; i < r->by_count && same; i++)
        same = strcmp(group->fields[i], fields[r->by[i]]) == 0;
    return same;
}

/* The group of these fields, made when it is the first; NULL: no memory. */
static struct group *find_group(struct report *r, const char *const fields[FIELD_COUNT])
{
    uint64_t hash = 1;
    for (size_t i = 0; i < r->by_count; i++)
        hash = hash_text(hash, fields[r->by[i]]);
    if (2 * r->group_count >= r->group_capacity && !grow_groups(r))
        return NULL;
    size_t at = (size_t)hash, mask = r->group_capacity - 1;
    while (r->groups[at & mask] && !same_group(r, r->groups[at & mask], hash, fields))
        at++;
    struct group **place = &r->groups[at & mask];
    if (*place)
        return *place;
    struct group *group = arena_calloc(&r->arena, 1, sizeof *group);
    for (size_t i = 0; i < r->by_count && group; i++)
        if (!(group->fields[i] = arena_strdup(&r->arena, fields[r->by[i]])))
            return NULL;
    if (!group)
        return NULL;
    group->hash = hash;
    r->group_count++;
    return *place = group;
}

static bool grow_requests(struct report *r)
{
    size_t capacity = r->request_capacity ? r->request_capacity * 2 : TABLE_FIRST;
    uint64_t *table = mem_calloc(capacity, sizeof *table);
    if (!table)
        return false;
    for (size_t i = 0; i < r->request_capacity; i++) {
        size_t at = (size_t)r->requests[i];
        while (table[at & (capacity - 1)])
            at++;
        table[at & (capacity - 1)] = r->requests[i];
    }
    mem_free(r->requests);
    r->requests = table;
    r->request_capacity = capacity;
    return true;
}

/* Whether this is the group's first record of that request. By a hash of 64 bits: among ten million requests
 * two are taken for one with a chance of 1 in 300,000. */
static bool is_new_request(struct report *r, uint64_t group_hash, const char *request_id)
{
    if (request_id[0] == 0)
        return true;
    if (2 * r->request_count >= r->request_capacity && !grow_requests(r)) {
        r->no_memory = true;
        return false;
    }
    uint64_t hash = hash_text(group_hash, request_id) | 1;
    size_t at = (size_t)hash, mask = r->request_capacity - 1;
    for (; r->requests[at & mask]; at++)
        if (r->requests[at & mask] == hash)
            return false;
    r->requests[at & mask] = hash;
    r->request_count++;
    return true;
}

static void add(struct sums *sums, const struct ledger_record *record, bool new_request)
{
    const struct ledger_usage *used = &record->usage;
    sums->requests += new_request;
    sums->attempts++;
    sums->input += used->prompt_tokens;
    sums->cached += used->cached_tokens;
    sums->cache_write += used->cache_write_tokens;
    sums->output += used->output_tokens;
    sums->estimated += used->estimated;
    sums->outcomes[record->outcome]++;
    sums->cost_pico += record->cost_pico;
    sums->premium_pico += record->premium_pico ? record->premium_pico : record->cost_pico;
}

static void write_day(int64_t day, char out[DAY_TEXT_BYTES])
{
    char text[CLOCK_UTC_TEXT_MAX];
    clock_format_utc(day * CLOCK_MS_PER_DAY, text);
    memcpy(out, text, DAY_TEXT_BYTES - 1);
    out[DAY_TEXT_BYTES - 1] = 0;
}

static bool add_record(void *ud, const struct ledger_record *record)
{
    struct report *r = ud;
    char day[DAY_TEXT_BYTES];
    write_day(clock_day(record->unix_ms), day);
    const char *const fields[FIELD_COUNT] = {day, record->key_id, record->model,
                                             ledger_tier_name(record->tier), record->provider};
    struct group *group = find_group(r, fields);
    r->no_memory = r->no_memory || !group;
    if (r->no_memory)
        return false;
    add(&group->sums, record, is_new_request(r, group->hash, record->request_id));
    add(&r->total, record, is_new_request(r, 0, record->request_id));
    return !r->no_memory;
}

static int compare_groups(const void *a, const void *b)
{
    const struct group *x = *(struct group *const *)a, *y = *(struct group *const *)b;
    int order = 0;
    for (size_t i = 0; i < FIELD_COUNT && x->fields[i] && order == 0; i++)
        order = strcmp(x->fields[i], y->fields[i]);
    return order;
}

static void sort_groups(struct report *r)
{
    size_t count = 0;
    for (size_t i = 0; i < r->group_capacity; i++)
        if (r->groups[i])
            r->groups[count++] = r->groups[i];
    if (count > 0)
        qsort(r->groups, count, sizeof *r->groups, compare_groups);
}

/* ---- Money and columns */

/* Dollars with as many of the 12 decimals as it takes, at least 2. */
static void write_exact(__int128 pico, char out[NUMBER_BYTES])
{
    bool negative = pico < 0;
    unsigned __int128 value = negative ? -(unsigned __int128)pico : (unsigned __int128)pico;
    unsigned long long whole = (unsigned long long)(value / LEDGER_PICO_PER_USD);
    unsigned long long rest = (unsigned long long)(value % LEDGER_PICO_PER_USD);
    int len = snprintf(out, NUMBER_BYTES, "%s%llu.%012llu", negative ? "-" : "", whole, rest);
    while (out[len - 1] == '0' && out[len - 3] != '.')
        out[--len] = 0;
}

/* Rounded to what the table shows; an amount is never shown as nothing. */
static void write_rounded(__int128 pico, char out[NUMBER_BYTES])
{
    bool negative = pico < 0;
    __int128 value = negative ? -pico : pico;
    unsigned long long units = (unsigned long long)((value + PICO_PER_TABLE_UNIT / 2) / PICO_PER_TABLE_UNIT);
    if (value > 0 && units == 0)
        snprintf(out, NUMBER_BYTES, "%s0.0001", negative ? ">-" : "<");
    else
        snprintf(out, NUMBER_BYTES, "%s%llu.%04llu", negative ? "-" : "", units / 10000, units % 10000);
}

enum column {
    COLUMN_REQUESTS,
    COLUMN_ATTEMPTS,
    COLUMN_INPUT,
    COLUMN_CACHED,
    COLUMN_CACHE_WRITE,
    COLUMN_OUTPUT,
    COLUMN_COST,
    COLUMN_PREMIUM,
    COLUMN_SAVED,
    COLUMN_ABORTED,
    COLUMN_CUT,
    COLUMN_FAILED,
    COLUMN_CRASHED,
    COLUMN_ESTIMATED,
    COLUMN_COUNT
};

static const struct {
    const char *name;  /* in JSON and CSV */
    const char *title; /* in the table; NULL: not there */
} columns[COLUMN_COUNT] = {
    [COLUMN_REQUESTS] = {"requests", "requests"},
    [COLUMN_ATTEMPTS] = {"attempts", NULL},
    [COLUMN_INPUT] = {"input_tokens", "tokens in"},
    [COLUMN_CACHED] = {"cached_tokens", "cached"},
    [COLUMN_CACHE_WRITE] = {"cache_write_tokens", NULL},
    [COLUMN_OUTPUT] = {"output_tokens", "tokens out"},
    [COLUMN_COST] = {"cost_usd", "cost $"},
    [COLUMN_PREMIUM] = {"premium_usd", "at premium $"},
    [COLUMN_SAVED] = {"saved_usd", "saved $"},
    [COLUMN_ABORTED] = {"aborted", NULL},
    [COLUMN_CUT] = {"cut", NULL},
    [COLUMN_FAILED] = {"failed", NULL},
    [COLUMN_CRASHED] = {"crashed", NULL},
    [COLUMN_ESTIMATED] = {"estimated", NULL},
};

static void write_column(const struct sums *sums, enum column column, bool exact, char out[NUMBER_BYTES])
{
    const uint64_t counts[COLUMN_COUNT] = {
        [COLUMN_REQUESTS] = sums->requests,
        [COLUMN_ATTEMPTS] = sums->attempts,
        [COLUMN_INPUT] = sums->input,
        [COLUMN_CACHED] = sums->cached,
        [COLUMN_CACHE_WRITE] = sums->cache_write,
        [COLUMN_OUTPUT] = sums->output,
        [COLUMN_ABORTED] = sums->outcomes[LEDGER_ABORTED],
        [COLUMN_CUT] = sums->outcomes[LEDGER_CUT],
        [COLUMN_FAILED] = sums->outcomes[LEDGER_FAILED],
        [COLUMN_CRASHED] = sums->outcomes[LEDGER_CRASHED],
        [COLUMN_ESTIMATED] = sums->estimated,
    };
    const __int128 money[COLUMN_COUNT] = {
        [COLUMN_COST] = sums->cost_pico,
        [COLUMN_PREMIUM] = sums->premium_pico,
        [COLUMN_SAVED] = sums->premium_pico - sums->cost_pico,
    };
    if (column < COLUMN_COST || column > COLUMN_SAVED)
        snprintf(out, NUMBER_BYTES, "%" PRIu64, counts[column]);
    else if (exact)
        write_exact(money[column], out);
    else
        write_rounded(money[column], out);
}

/* ---- JSON */

static void json_sums(struct buf *out, const struct sums *sums)
{
    char number[NUMBER_BYTES];
    for (int column = 0; column < COLUMN_COUNT; column++) {
        write_column(sums, (enum column)column, true, number);
        buf_printf(out, "%s\"%s\":%s", column ? "," : "", columns[column].name, number);
    }
}

static void print_json(const struct report *r, struct buf *out)
{
    char from[DAY_TEXT_BYTES], to[DAY_TEXT_BYTES];
    write_day(r->from, from);
    write_day(r->to, to);
    buf_printf(out, "{\"from\":\"%s\",\"to\":\"%s\",\"by\":[", from, to);
    for (size_t i = 0; i < r->by_count; i++)
        buf_printf(out, "%s\"%s\"", i ? "," : "", field_names[r->by[i]]);
    buf_puts(out, "],\"rows\":[");
    for (size_t g = 0; g < r->group_count; g++) {
        buf_puts(out, g ? ",{" : "{");
        for (size_t i = 0; i < r->by_count; i++) {
            buf_printf(out, "\"%s\":", field_names[r->by[i]]);
            json_write_string(out, r->groups[g]->fields[i], strlen(r->groups[g]->fields[i]));
            buf_putc(out, ',');
        }
        json_sums(out, &r->groups[g]->sums);
        buf_putc(out, '}');
    }
    buf_puts(out, "],\"total\":{");
    json_sums(out, &r->total);
    buf_printf(out, "},\"damaged\":%" PRIu64 "}\n", r->damaged);
}

/* ---- CSV (RFC 4180, with the line ends of this system) */

static void csv_text(struct buf *out, const char *text)
{
    if (!strpbrk(text, ",\"\r\n")) {
        buf_puts(out, text);
        return;
    }
    buf_putc(out, '"');
    for (; *text; text++)
        buf_printf(out, "%s%c", *text == '"' ? "\"" : "", *text);
    buf_putc(out, '"');
}

static void print_csv(const struct report *r, struct buf *out)
{
    char number[NUMBER_BYTES];
    for (size_t i = 0; i < r->by_count; i++)
        buf_printf(out, "%s,", field_names[r->by[i]]);
    for (int column = 0; column < COLUMN_COUNT; column++)
        buf_printf(out, "%s%s", columns[column].name, column + 1 < COLUMN_COUNT ? "," : "\n");
    for (size_t g = 0; g < r->group_count; g++) {
        for (size_t i = 0; i < r->by_count; i++) {
            csv_text(out, r->groups[g]->fields[i]);
            buf_putc(out, ',');
        }
        for (int column = 0; column < COLUMN_COUNT; column++) {
            write_column(&r->groups[g]->sums, (enum column)column, true, number);
            buf_printf(out, "%s%s", number, column + 1 < COLUMN_COUNT ? "," : "\n");
        }
    }
}

/* ---- The table */

/* Letters, not bytes; what is no letter on a terminal is one '?'. */
static size_t width(const char *text)
{
    size_t count = 0;
    for (; *text; text++)
        count += ((uint8_t)*text & 0xC0) != 0x80;
    return count;
}

static void put_left(struct buf *out, const char *text, size_t columns_wide)
{
    size_t has = width(text);
    for (const char *at = text; *at; at++)
        buf_putc(out, (uint8_t)*at < ' ' || *at == 0x7F ? '?' : *at);
    buf_printf(out, "%*s", has < columns_wide ? (int)(columns_wide - has) : 0, "");
}

struct layout {
    size_t fields[FIELD_COUNT], numbers[COLUMN_COUNT];
};

static void widen(size_t *to, size_t candidate)
{
    if (candidate > *to)
        *to = candidate;
}

static const char *shown(const char *field)
{
    return field[0] ? field : "-";
}

static void measure_sums(struct layout *layout, const struct sums *sums)
{
    char number[NUMBER_BYTES];
    for (int column = 0; column < COLUMN_COUNT; column++) {
        write_column(sums, (enum column)column, false, number);
        widen(&layout->numbers[column], strlen(number));
    }
}

static void measure(const struct report *r, struct layout *layout)
{
    *layout = (struct layout){0};
    for (int column = 0; column < COLUMN_COUNT; column++)
        widen(&layout->numbers[column], columns[column].title ? strlen(columns[column].title) : 0);
    for (size_t i = 0; i < r->by_count; i++)
        widen(&layout->fields[i], strlen(field_names[r->by[i]]));
    widen(&layout->fields[0], strlen("total"));
    for (size_t g = 0; g < r->group_count; g++) {
        for (size_t i = 0; i < r->by_count; i++)
            widen(&layout->fields[i], width(shown(r->groups[g]->fields[i])));
        measure_sums(layout, &r->groups[g]->sums);
    }
    measure_sums(layout, &r->total);
}

static void print_numbers(struct buf *out, const struct layout *layout, const struct sums *sums)
{
    char number[NUMBER_BYTES];
    for (int column = 0; column < COLUMN_COUNT; column++) {
        if (!columns[column].title)
            continue;
        write_column(sums, (enum column)column, false, number);
        buf_printf(out, "  %*s", (int)layout->numbers[column], number);
    }
    buf_putc(out, '\n');
}

static void print_table(const struct report *r, struct buf *out)
{
    struct layout layout;
    measure(r, &layout);
    for (size_t i = 0; i < r->by_count; i++) {
        buf_puts(out, i ? "  " : "");
        put_left(out, field_names[r->by[i]], layout.fields[i]);
    }
    for (int column = 0; column < COLUMN_COUNT; column++)
        if (columns[column].title)
            buf_printf(out, "  %*s", (int)layout.numbers[column], columns[column].title);
    buf_putc(out, '\n');
    for (size_t g = 0; g < r->group_count; g++) {
        for (size_t i = 0; i < r->by_count; i++) {
            buf_puts(out, i ? "  " : "");
            put_left(out, shown(r->groups[g]->fields[i]), layout.fields[i]);
        }
        print_numbers(out, &layout, &r->groups[g]->sums);
    }
    for (size_t i = 0; i < r->by_count; i++) {
        buf_puts(out, i ? "  " : "");
        put_left(out, i ? "" : "total", layout.fields[i]);
    }
    print_numbers(out, &layout, &r->total);
}

/* ---- The command */

static bool parse_day(const char *text, int64_t *day)
{
    struct clock_date date = {0};
    char again[DAY_TEXT_BYTES];
    if (strlen(text) != DAY_TEXT_BYTES - 1)
        return false;
    date.year = (text[0] - '0') * 1000 + (text[1] - '0') * 100 + (text[2] - '0') * 10 + (text[3] - '0');
    date.month = (text[5] - '0') * 10 + (text[6] - '0');
    date.day = (text[8] - '0') * 10 + (text[9] - '0');
    for (size_t i = 0; i < DAY_TEXT_BYTES - 1; i++)
        if (i == 4 || i == 7 ? text[i] != '-' : text[i] < '0' || text[i] > '9')
            return false;
    *day = clock_day_of(date);
    write_day(*day, again);
    return strcmp(text, again) == 0; /* there is such a day */
}

static bool parse_days(struct report *r, int *exit_code)
{
    const char *const given[] = {r->args.to, r->args.from};
    int64_t *const into[] = {&r->to, &r->from};
    r->to = clock_day(clock_unix_ms(clock_system()));
    for (size_t i = 0; i < 2; i++) {
        if (given[i] && !parse_day(given[i], into[i])) {
            *exit_code =
                cli_error(CLI_EXIT_USAGE, "cost report: %s is no day; write it as 2026-11-21", given[i]);
            return false;
        }
        if (i == 0) {
            struct clock_date date = clock_date(r->to);
            r->from = clock_day_of((struct clock_date){date.year, date.month, 1});
        }
    }
    if (r->from <= r->to)
        return true;
    *exit_code =
        cli_error(CLI_EXIT_USAGE, "cost report: the report would end before it begins; see --from and --to");
    return false;
}

static bool parse_by(struct report *r, int *exit_code)
{
    const char *at = r->args.by ? r->args.by : "day";
    while (at) {
        size_t len = strcspn(at, ",");
        size_t field = 0;
        while (field < FIELD_COUNT &&
               (strlen(field_names[field]) != len || memcmp(field_names[field], at, len) != 0))
            field++;
        bool twice = false;
        for (size_t i = 0; i < r->by_count; i++)
            twice = twice || r->by[i] == (enum field)field;
        if (field == FIELD_COUNT || twice) {
            *exit_code = cli_error(CLI_EXIT_USAGE,
                                   "cost report: --by takes day, key, model, tier, provider, each once, "
                                   "comma-separated; not \"%.*s\"",
                                   (int)len, at);
            return false;
        }
        r->by[r->by_count++] = (enum field)field;
        at = at[len] ? at + len + 1 : NULL;
    }
    return true;
}

static enum ph_status read_journal(struct report *r, struct ph_err *err)
{
    char data[PATH_BYTES_MAX], dir[PATH_BYTES_MAX + sizeof "/ledger"];
    enum ph_status status = cli_data_dir(r->args.data, data, err);
    if (status != PH_OK)
        return status;
    snprintf(dir, sizeof dir, "%s/ledger", data);
    if (!file_exists(dir))
        return ph_fail(err, PH_ERR_NOTFOUND,
                       "no ledger in %s: no station has kept its data there; use --data DIR", data);
    struct cli_progress progress;
    cli_progress_begin(&progress, "cost report");
    for (int64_t day = r->from; day <= r->to && status == PH_OK; day++) {
        uint64_t damaged = 0;
        status = ledger_read(dir, day, day, add_record, r, &damaged, err);
        r->damaged += damaged;
        if (status == PH_OK && r->no_memory)
            status =
                ph_fail(err, PH_ERR_NOMEM, "no memory for so many rows; choose fewer days or --by fields");
        cli_progress_show(&progress, (uint64_t)(day - r->from + 1), (uint64_t)(r->to - r->from + 1));
    }
    cli_progress_end(&progress);
    return status;
}

static int run(struct report *r)
{
    struct ph_err err;
    struct buf out;
    enum ph_status status = read_journal(r, &err);
    if (status != PH_OK)
        return cli_fail(&err);
    sort_groups(r);
    buf_init(&out, OUTPUT_BYTES_MAX);
    if (r->args.json)
        print_json(r, &out);
    else if (r->args.csv)
        print_csv(r, &out);
    else
        print_table(r, &out);
    status = cli_flush(&out, &err);
    buf_release(&out);
    if (status != PH_OK)
        return cli_fail(&err);
    if (r->damaged > 0 && !r->args.json)
        (void)cli_error(CLI_EXIT_OK, "%" PRIu64 " damaged records were skipped; the sums are without them",
                        r->damaged);
    return CLI_EXIT_OK;
}

int cmd_cost_report(int argc, char **argv)
{
    struct report report = {0};
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &report.args, &exit_code) || !parse_days(&report, &exit_code) ||
        !parse_by(&report, &exit_code))
        return exit_code;
    if (report.args.json && report.args.csv)
        return cli_error(CLI_EXIT_USAGE, "cost report: --json or --csv, not both");
    arena_init(&report.arena, ARENA_BYTES_MAX);
    exit_code = run(&report);
    arena_release(&report.arena);
    mem_free(report.groups);
    mem_free(report.requests);
    return exit_code;
}
