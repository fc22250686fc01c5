/* pharos keys: who may call a station. A new secret goes to standard output, once and alone, so that
 * `KEY=$(pharos keys create --name me)` is all there is to do; everything that is said about it goes to
 * standard error. No command shows a secret or its hash again. */
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/utf8.h"
#include "cli/cli_int.h"
#include "cli/keys_usage_int.h"
#include "gateway/keys.h"
#include "gateway/ledger.h"

#define COUNT_MAX 9007199254740992.0 /* 2^53 */
#define ARENA_BYTES_MAX ((size_t)64 << 20)
#define OUT_BYTES_MAX ((size_t)64 << 20)
#define OVERLAP_DEFAULT "24h"

struct args {
    const char *data, *name, *user, *expires, *id, *overlap;
    struct cli_list scopes;
    double budget_usd_month;
    size_t rpm, tpm, concurrency;
    bool json, usage;
};

#define OPTION_DATA                                                             \
    {                                                                           \
        CLI_OPTION("--data", "DIR", CLI_TEXT, struct args, data, CLI_DATA_HELP) \
    }
#define OPTION_JSON                                                              \
    {                                                                            \
        CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "answer JSON") \
    }
#define OPTION_ID                                                                                   \
    {                                                                                               \
        CLI_OPTION("ID", NULL, CLI_TEXT, struct args, id, "the key's id, as ls shows, or the key"), \
            .required = true                                                                        \
    }

/* ---- What is said of a key */

static const char *const state_names[] = {
    [KEY_OK] = "active", [KEY_REVOKED] = "revoked", [KEY_EXPIRED] = "expired"};

static const char *state_of(const struct key *key, int64_t now)
{
    enum key_verdict state = key_state(key, now);
    return state == KEY_OK && key->replaced_by[0] ? "rotated" : state_names[state];
}

static void write_scopes(struct buf *out, const struct key *key, const char *between)
{
    if (key->scope_count == 0)
        buf_printf(out, "chat%sread", between);
    for (size_t i = 0; i < key->scope_count; i++)
        buf_printf(out, "%s%s", i ? between : "", key->scopes[i]);
}

static void write_limits(struct buf *out, const struct key *key)
{
    size_t before = out->len;
    const struct {
        int64_t limit;
        const char *unit;
    } limits[] = {{key->rpm, "requests/min"}, {key->tpm, "tokens/min"}, {key->concurrency, "at once"}};
    if (key->budget_usd_month >= 0)
        buf_printf(out, "%.10g USD/month", key->budget_usd_month);
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
        if (limits[i].limit)
            buf_printf(out, "%s%lld %s", out->len > before ? ", " : "", (long long)limits[i].limit,
                       limits[i].unit);
    if (out->len == before)
        buf_puts(out, "none");
}

static void write_minute(struct buf *out, int64_t unix_s, const char *never)
{
    char text[CLOCK_UTC_TEXT_MAX];
    clock_format_utc(unix_s * 1000, text);
    if (unix_s)
        buf_printf(out, "%.10s %.5s", text, text + 11);
    else
        buf_puts(out, never);
}

static void write_member_text(struct buf *out, const char *name, const char *text)
{
    buf_printf(out, "\"%s\":", name);
    if (text[0])
        json_write_string(out, text, strlen(text));
    else
        buf_puts(out, "null");
    buf_putc(out, ',');
}

static void write_member_count(struct buf *out, const char *name, int64_t count)
{
    if (count)
        buf_printf(out, "\"%s\":%lld,", name, (long long)count);
    else
        buf_printf(out, "\"%s\":null,", name);
}

/* The members of a key's object, a comma after each but the last. */
static void write_members(struct buf *out, const struct key *key, int64_t now)
{
    write_member_text(out, "id", key->id);
    write_member_text(out, "name", key->name);
    write_member_text(out, "user", key->user);
    write_member_text(out, "account", key->account);
    buf_puts(out, "\"scopes\":[");
    if (key->scope_count == 0)
        buf_puts(out, "\"chat\",\"read\"");
    for (size_t i = 0; i < key->scope_count; i++) {
        buf_puts(out, i ? "," : "");
        json_write_string(out, key->scopes[i], strlen(key->scopes[i]));
    }
    buf_puts(out, "],\"budget_usd_month\":");
    if (key->budget_usd_month >= 0)
        json_write_double(out, key->budget_usd_month);
    else
        buf_puts(out, "null");
    buf_putc(out, ',');
    write_member_count(out, "rpm", key->rpm);
    write_member_count(out, "tpm", key->tpm);
    write_member_count(out, "concurrency", key->concurrency);
    write_member_count(out, "created_at", key->created_unix_s);
    write_member_count(out, "expires_at", key->expires_unix_s);
    write_member_count(out, "revoked_at", key->revoked_unix_s);
    write_member_text(out, "replaced_by", key->replaced_by);
    buf_printf(out, "\"state\":\"%s\"", state_of(key, now));
}

static void write_usage_members(struct buf *out, const struct key_usage *usage)
{
    buf_puts(out, ",\"month\":{\"spent_usd\":");
    json_write_double(out, ledger_usd(usage->cost_pico));
    buf_printf(out, ",\"requests\":%llu,\"prompt_tokens\":%llu,\"output_tokens\":%llu}",
               (unsigned long long)usage->requests, (unsigned long long)usage->prompt_tokens,
               (unsigned long long)usage->output_tokens);
}

/* ---- What all of them do */

struct job {
    struct args args;
    char dir[PATH_BYTES_MAX], id[KEY_ID_LEN + 1];
    struct arena arena;
    struct buf out;
    int64_t now; /* Unix seconds */
};

/* Who has found a key may name it whole; nothing repeats it then. */
static void shorten_id(struct job *job)
{
    static const char prefix[] = "sk-pharos-";
    const char *id = job->args.id;
    if (!id || strncmp(id, prefix, sizeof prefix - 1) != 0)
        return;
    snprintf(job->id, sizeof job->id, "%.*s", KEY_ID_LEN, id + sizeof prefix - 1);
    job->args.id = job->id;
}

/* Parses, and runs the command with its data directory at hand. */
static int run(const struct cli_usage *usage, struct args args, int argc, char **argv,
               enum ph_status (*command)(struct job *job, struct ph_err *err))
{
    struct job job = {.args = args, .now = clock_unix_ms(clock_system()) / 1000};
    struct ph_err err;
    int exit_code;
    if (!cli_parse(usage, argc, argv, &job.args, &exit_code))
        return exit_code;
    shorten_id(&job);
    arena_init(&job.arena, ARENA_BYTES_MAX);
    buf_init(&job.out, OUT_BYTES_MAX);
    enum ph_status status = cli_data_dir(job.args.data, job.dir, &err);
    if (status == PH_OK)
        status = command(&job, &err);
    if (status == PH_OK)
        status = cli_flush(&job.out, &err);
    arena_release(&job.arena);
    buf_release(&job.out);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}

/* Sent before anything is said about it. */
static enum ph_status show_secret(struct job *job, const struct key *key, const char *text,
                                  struct ph_err *err)
{
    if (job->args.json) {
        buf_putc(&job->out, '{');
        write_member_text(&job->out, "key", text);
        write_members(&job->out, key, job->now);
        buf_puts(&job->out, "}\n");
    } else {
        buf_printf(&job->out, "%s\n", text);
    }
    enum ph_status status = cli_flush(&job->out, err);
    return status == PH_OK ? cli_sent(err) : status;
}

/* ---- create */

static enum ph_status copy(char *out, size_t size, const char *text, const char *what, struct ph_err *err)
{
    size_t len = strlen(text);
    if (len == 0 || len >= size)
        return ph_fail(err, PH_ERR_ARG, "%s has 1 to %zu bytes", what, size - 1);
    memcpy(out, text, len + 1);
    return PH_OK;
}

static enum ph_status spec_of(const struct job *job, struct key *spec, struct ph_err *err)
{
    const struct args *args = &job->args;
    *spec = (struct key){.budget_usd_month = args->budget_usd_month,
                         .rpm = (int64_t)args->rpm,
                         .tpm = (int64_t)args->tpm,
                         .concurrency = (int64_t)args->concurrency};
    enum ph_status status = copy(spec->name, sizeof spec->name, args->name, "--name", err);
    if (status == PH_OK && args->user)
        status = copy(spec->user, sizeof spec->user, args->user, "--user", err);
    if (status == PH_OK && args->scopes.count > KEY_SCOPES_MAX)
        status = ph_fail(err, PH_ERR_ARG, "a key has at most %d scopes", KEY_SCOPES_MAX);
    for (; status == PH_OK && spec->scope_count < args->scopes.count; spec->scope_count++)
        status = copy(spec->scopes[spec->scope_count], KEY_SCOPE_MAX, args->scopes.items[spec->scope_count],
                      "--scope", err);
    if (status == PH_OK && args->expires)
        status = cli_until_parse(args->expires, job->now, &spec->expires_unix_s, err);
    return status;
}

static enum ph_status create(struct job *job, struct ph_err *err)
{
    struct key spec, key;
    char text[KEY_TEXT_MAX];
    enum ph_status status = spec_of(job, &spec, err);
    if (status == PH_OK)
        status = keys_create(job->dir, clock_system(), &spec, &key, text, err);
    if (status == PH_OK)
        status = show_secret(job, &key, text, err);
    if (status != PH_OK)
        return status;
    fprintf(
        stderr,
        "This is the only time the key is shown. Send it as \"Authorization: Bearer KEY\" or \"x-api-key: "
        "KEY\".\nIts id is %s; pharos keys revoke %s ends it. A running station knows it within a second.\n",
        key.id, key.id);
    return PH_OK;
}

static int cmd_create(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {CLI_OPTION("--name", "N", CLI_TEXT, struct args, name, "whose it is, what for"), .required = true},
        {CLI_OPTION("--user", "U", CLI_TEXT, struct args, user,
                    "whose conversations it may see (those of its name; keys of one user share them)")},
        {CLI_OPTION("--budget-usd-month", "X", CLI_NUMBER, struct args, budget_usd_month,
                    "what it may spend in a calendar month, UTC (no limit)"),
         .max = 1e9},
        {CLI_OPTION("--rpm", "N", CLI_COUNT, struct args, rpm, "requests a minute (no limit)"), .min = 1,
         .max = COUNT_MAX},
        {CLI_OPTION("--tpm", "N", CLI_COUNT, struct args, tpm, "tokens a minute (no limit)"), .min = 1,
         .max = COUNT_MAX},
        {CLI_OPTION("--concurrency", "N", CLI_COUNT, struct args, concurrency,
                    "requests at the same time (no limit)"),
         .min = 1, .max = COUNT_MAX},
        {CLI_OPTION("--scope", "S", CLI_LIST, struct args, scopes,
                    "chat, read, admin or models:NAME (NAME may end in *); several times (chat, read)")},
        {CLI_OPTION("--expires", "WHEN", CLI_TEXT, struct args, expires,
                    "30d, 12h, or 2027-01-31 for the end of that day, UTC (never)")},
        OPTION_DATA,
        OPTION_JSON,
        CLI_OPTIONS_END,
    };
    static const struct cli_usage usage = {
        "keys create", "--name N [options]",
        "Makes a key and writes it to standard output, this one time; only a hash of it is kept.", options};
    return run(&usage, (struct args){.budget_usd_month = -1}, argc, argv, create);
}

/* ---- ls */

enum { COLUMN_COUNT = 8 }; /* the last with --usage only */

struct row {
    const char *cells[COLUMN_COUNT];
};

/* Columns on a terminal; wide and combining characters are counted as one. */
static size_t width_of(const char *text)
{
    size_t width = 0, len = strlen(text);
    for (uint32_t code; len > 0; width++) {
        size_t step = utf8_next(text, len, &code);
        text += step;
        len -= step;
    }
    return width;
}

static const char *cell(struct job *job, struct buf *text)
{
    const char *kept = arena_strdup(&job->arena, text->data ? text->data : "");
    buf_clear(text);
    return kept ? kept : "";
}

static struct row row_of(struct job *job, const struct key *key, const struct key_usage *usage,
                         struct buf *text)
{
    struct row row = {{key->id, key->name, state_of(key, job->now)}};
    size_t at = 3;
    write_scopes(text, key, ",");
    row.cells[at++] = cell(job, text);
    write_limits(text, key);
    row.cells[at++] = cell(job, text);
    write_minute(text, key->created_unix_s, "?");
    row.cells[at++] = cell(job, text);
    write_minute(text, key->expires_unix_s, "never");
    row.cells[at++] = cell(job, text);
    if (usage)
        buf_printf(text, "%.4f USD, %llu requests, %llu tokens", ledger_usd(usage->cost_pico),
                   (unsigned long long)usage->requests,
                   (unsigned long long)(usage->prompt_tokens + usage->output_tokens));
    row.cells[at] = cell(job, text);
    return row;
}

static void write_table(struct buf *out, const struct row *rows, size_t count, size_t columns)
{
    size_t widths[COLUMN_COUNT] = {0};
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < columns; c++)
            if (width_of(rows[i].cells[c]) > widths[c])
                widths[c] = width_of(rows[i].cells[c]);
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < columns; c++) {
            bool last = c + 1 == columns;
            size_t gap = last ? 0 : widths[c] - width_of(rows[i].cells[c]) + 2;
            buf_printf(out, "%s%*s%s", rows[i].cells[c], (int)gap, "", last ? "\n" : "");
        }
}

static enum ph_status list_as_table(struct job *job, const struct key *keys, size_t count,
                                    const struct key_usages *usages, struct ph_err *err)
{
    struct row *rows = arena_calloc(&job->arena, count + 1, sizeof *rows);
    struct buf text;
    if (!rows)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the list");
    buf_init(&text, OUT_BYTES_MAX);
    rows[0] = (struct row){
        {"ID", "NAME", "STATE", "SCOPES", "LIMITS", "CREATED (UTC)", "EXPIRES (UTC)", "THIS MONTH"}};
    for (size_t i = 0; i < count; i++)
        rows[i + 1] = row_of(job, &keys[i], keys_usage_of(usages, &keys[i]), &text);
    if (count)
        write_table(&job->out, rows, count + 1, job->args.usage ? COLUMN_COUNT : COLUMN_COUNT - 1);
    else
        fprintf(stderr, "There are no keys in %s; pharos keys create --name N makes one.\n", job->dir);
    buf_release(&text);
    return PH_OK;
}

static enum ph_status list(struct job *job, struct ph_err *err)
{
    struct key *keys;
    size_t count;
    struct key_usages usages = {0};
    enum ph_status status = keys_list(&job->arena, job->dir, &keys, &count, err);
    if (status == PH_OK && job->args.usage)
        status = keys_usage_read(&job->arena, job->dir, keys, count, job->now, &usages, err);
    if (status != PH_OK)
        return status;
    if (usages.damaged)
        fprintf(stderr, "%llu records of the ledger are damaged and not in these sums.\n",
                (unsigned long long)usages.damaged);
    if (!job->args.json)
        return list_as_table(job, keys, count, &usages, err);
    buf_puts(&job->out, "{\"keys\":[");
    for (size_t i = 0; i < count; i++) {
        buf_puts(&job->out, i ? ",{" : "{");
        write_members(&job->out, &keys[i], job->now);
        if (job->args.usage)
            write_usage_members(&job->out, keys_usage_of(&usages, &keys[i]));
        buf_putc(&job->out, '}');
    }
    buf_puts(&job->out, "]}\n");
    return PH_OK;
}

static int cmd_ls(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {CLI_OPTION("--usage", NULL, CLI_SWITCH, struct args, usage,
                    "what each has used this month (UTC), rotations together")},
        OPTION_DATA,
        OPTION_JSON,
        CLI_OPTIONS_END,
    };
    static const struct cli_usage usage = {"keys ls", NULL, "Lists the keys; never a secret or its hash.",
                                           options};
    return run(&usage, (struct args){0}, argc, argv, list);
}

/* ---- revoke, rotate */

/* The key as it is now, for what is said of it. */
static enum ph_status find(struct job *job, const char *id, const struct key **out, struct ph_err *err)
{
    struct key *keys;
    size_t count;
    enum ph_status status = keys_list(&job->arena, job->dir, &keys, &count, err);
    for (size_t i = 0; status == PH_OK && i < count; i++)
        if (strcmp(keys[i].id, id) == 0) {
            *out = &keys[i];
            return PH_OK;
        }
    return status != PH_OK ? status : ph_fail(err, PH_ERR_NOTFOUND, "there is no key %s any more", id);
}

static enum ph_status revoke(struct job *job, struct ph_err *err)
{
    const struct key *key = NULL;
    enum ph_status status = keys_revoke(job->dir, clock_system(), job->args.id, err);
    if (status == PH_OK && job->args.json)
        status = find(job, job->args.id, &key, err);
    if (status != PH_OK)
        return status;
    if (!job->args.json) {
        fprintf(stderr, "Key %s is revoked; a running station refuses it within a second.\n", job->args.id);
        return PH_OK;
    }
    buf_putc(&job->out, '{');
    write_members(&job->out, key, job->now);
    buf_puts(&job->out, "}\n");
    return PH_OK;
}

static int cmd_revoke(int argc, char **argv)
{
    static const struct cli_option options[] = {OPTION_ID, OPTION_DATA, OPTION_JSON, CLI_OPTIONS_END};
    static const struct cli_usage usage = {"keys revoke", "ID", "Ends a key, for good.", options};
    return run(&usage, (struct args){0}, argc, argv, revoke);
}

static enum ph_status rotate(struct job *job, struct ph_err *err)
{
    int64_t overlap_s;
    struct key key;
    const struct key *old;
    struct buf until;
    char text[KEY_TEXT_MAX];
    buf_init(&until, CLOCK_UTC_TEXT_MAX);
    enum ph_status status = cli_duration_parse(job->args.overlap, &overlap_s, err);
    if (status == PH_OK)
        status = keys_rotate(job->dir, clock_system(), job->args.id, overlap_s, &key, text, err);
    if (status == PH_OK)
        status = show_secret(job, &key, text, err);
    if (status != PH_OK)
        return status;
    status = find(job, job->args.id, &old, err);
    if (status != PH_OK)
        return status;
    write_minute(&until, old->expires_unix_s, "now");
    fprintf(stderr,
            "This is the only time the new key is shown; its id is %s. The old one, %s, works until %s UTC.\n"
            "Both share budget and limits.\n",
            key.id, old->id, until.data);
    buf_release(&until);
    return PH_OK;
}

static int cmd_rotate(int argc, char **argv)
{
    static const struct cli_option options[] = {
        OPTION_ID,
        {CLI_OPTION("--overlap", "SPAN", CLI_TEXT, struct args, overlap,
                    "how long the old key goes on working: 30m, 24h, 7d, 0 (" OVERLAP_DEFAULT ")")},
        OPTION_DATA,
        OPTION_JSON,
        CLI_OPTIONS_END,
    };
    static const struct cli_usage usage = {
        "keys rotate", "ID [--overlap SPAN]",
        "Makes a new key with the rights, limits and budget of an old one, which works for a while longer.",
        options};
    return run(&usage, (struct args){.overlap = OVERLAP_DEFAULT}, argc, argv, rotate);
}

/* ---- The table */

int cmd_keys(int argc, char **argv)
{
    static const struct cli_command commands[] = {
        {"create", "make a key and show it, once", cmd_create},
        {"ls", "list keys, their rights and limits", cmd_ls},
        {"revoke", "end a key", cmd_revoke},
        {"rotate", "a new key for an old one, both working for a while", cmd_rotate},
        {NULL, NULL, NULL},
    };
    return cli_dispatch("pharos keys", "Who may call the station, what, and how much.", commands, argc, argv);
}
