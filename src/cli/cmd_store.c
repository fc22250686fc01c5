/* pharos store: what a station remembers, from the command line. All of it works beside a running station. */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "cli/cmd_store_int.h"

#define FAULTS_SHOWN 100
#define OUT_BYTES_MAX ((size_t)1 << 20)

static enum ph_status memory_dir(const struct cli_store_args *args, char out[PATH_BYTES_MAX],
                                 struct ph_err *err)
{
    char data[PATH_BYTES_MAX];
    enum ph_status status = cli_data_dir(args->data, data, err);
    if (status != PH_OK)
        return status;
    int len = snprintf(out, PATH_BYTES_MAX, "%s/" CLI_MEMORY_DIR, data);
    return len > 0 && len < PATH_BYTES_MAX
               ? PH_OK
               : ph_fail(err, PH_ERR_LIMIT, "the name of the data directory is too long");
}

enum ph_status cli_store_open(const struct cli_store_args *args, enum cli_store_mode mode, struct store **out,
                              struct ph_err *err)
{
    char dir[PATH_BYTES_MAX];
    enum ph_status status = memory_dir(args, dir, err);
    if (status != PH_OK)
        return status;
    struct store_params params = {.dir = dir,
                                  .postgres = args->store,
                                  .clock = clock_system(),
                                  .must_exist = mode != CLI_STORE_MAKE,
                                  .read_only = mode == CLI_STORE_READ};
    return store_open(out, &params, err);
}

static int finish(struct store *store, struct buf *out, enum ph_status status, struct ph_err *err)
{
    store_close(store);
    if (status == PH_OK && out->data)
        status = cli_flush(out, err);
    buf_release(out);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(err);
}

static void on_progress(void *ud, int64_t done, int64_t total)
{
    cli_progress_show(ud, (uint64_t)done, (uint64_t)total);
}

/* ---- stat */

struct row {
    const char *label, *name; /* for people, for programs */
    int64_t value;
};

static double mib(int64_t bytes)
{
    return (double)bytes / (1 << 20);
}

static void print_stat(struct buf *out, const struct store_stat *stat, bool json)
{
    const struct row rows[] = {
        {"users", "users", stat->users},
        {"conversations", "conversations", stat->conversations},
        {"messages", "messages", stat->messages},
        {"responses", "responses", stat->responses},
        {"feedback", "feedback", stat->feedback},
        {"vectors", "vectors", stat->vectors},
        {"dictionaries", "dictionaries", stat->dictionaries},
    };
    double share = stat->text_bytes ? (double)stat->stored_bytes / (double)stat->text_bytes : 0;
    if (json)
        buf_printf(out, "{\"backend\":\"%s\",\"schema\":%" PRId64, stat->backend, stat->schema);
    else
        buf_printf(out, "store          %s, schema %" PRId64 "\n", stat->backend, stat->schema);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        buf_printf(out, json ? ",\"%s\":%" PRId64 : "%-14s %" PRId64 "\n", rows[i].name, rows[i].value);
    if (json)
        buf_printf(out,
                   ",\"text_bytes\":%" PRId64 ",\"stored_bytes\":%" PRId64 ",\"file_bytes\":%" PRId64
                   ",\"compressed_share\":%.4f}\n",
                   stat->text_bytes, stat->stored_bytes, stat->file_bytes, share);
    else
        buf_printf(out, "text           %.1f MiB, stored in %.1f MiB (%.0f %%), %.1f MiB on disk\n",
                   mib(stat->text_bytes), mib(stat->stored_bytes), share * 100, mib(stat->file_bytes));
}

static int cmd_stat(int argc, char **argv)
{
    static const struct cli_option options[] = {CLI_STORE_OPTION_DATA, CLI_STORE_OPTION_STORE,
                                                CLI_STORE_OPTION_JSON, CLI_OPTIONS_END};
    static const struct cli_usage usage = {"store stat", NULL,
                                           "Says what is in the store and how large it is.", options};
    struct cli_store_args args = {.data = NULL};
    struct store *store = NULL;
    struct store_stat stat;
    struct cli_progress progress;
    struct ph_err err;
    struct buf out;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    buf_init(&out, OUT_BYTES_MAX);
    cli_progress_begin(&progress, "counting");
    enum ph_status status = cli_store_open(&args, CLI_STORE_READ, &store, &err);
    if (status == PH_OK)
        status = store_stat(store, &stat, on_progress, &progress, &err);
    cli_progress_end(&progress);
    if (status == PH_OK)
        print_stat(&out, &stat, args.json);
    return finish(store, &out, status, &err);
}

/* ---- verify */

struct verify {
    struct cli_progress progress;
    struct buf out;
    bool json;
    size_t told;
};

static void on_fault(void *ud, const char *fault)
{
    struct verify *verify = ud;
    if (verify->told++ >= FAULTS_SHOWN)
        return;
    if (!verify->json) {
        buf_printf(&verify->out, "%s\n", fault);
        return;
    }
    buf_putc(&verify->out, verify->told > 1 ? ',' : '[');
    json_write_string(&verify->out, fault, strlen(fault));
}

static void on_verify_progress(void *ud, int64_t done, int64_t total)
{
    on_progress(&((struct verify *)ud)->progress, done, total);
}

static void sum_up(struct verify *verify, int64_t faults)
{
    if (verify->json)
        buf_printf(&verify->out, "%s],\"ok\":%s,\"count\":%" PRId64 "}\n", faults ? "" : "[",
                   faults ? "false" : "true", faults);
    else if (faults == 0)
        buf_puts(&verify->out, "The store is sound: every row can be read, all counts agree.\n");
    else
        buf_printf(&verify->out, "%" PRId64 " faults%s.\n", faults,
                   faults > FAULTS_SHOWN ? " (the first 100 are shown)" : "");
}

static int cmd_verify(int argc, char **argv)
{
    static const struct cli_option options[] = {CLI_STORE_OPTION_DATA, CLI_STORE_OPTION_STORE,
                                                CLI_STORE_OPTION_JSON, CLI_OPTIONS_END};
    static const struct cli_usage usage = {
        "store verify", NULL,
        "Checks the whole store: the database's own check, references, counts, and that every row can be\n"
        "read. Exit code 1 when something is wrong; each fault says what to do.",
        options};
    struct cli_store_args args = {.data = NULL};
    struct verify verify = {.told = 0};
    struct store *store = NULL;
    struct ph_err err;
    int64_t faults = 0;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    verify.json = args.json;
    buf_init(&verify.out, OUT_BYTES_MAX);
    if (args.json)
        buf_puts(&verify.out, "{\"faults\":");
    cli_progress_begin(&verify.progress, "verifying");
    enum ph_status status = cli_store_open(&args, CLI_STORE_READ, &store, &err);
    if (status == PH_OK)
        status = store_verify(store, &faults, on_fault, on_verify_progress, &verify, &err);
    cli_progress_end(&verify.progress);
    if (status == PH_OK)
        sum_up(&verify, faults);
    exit_code = finish(store, &verify.out, status, &err);
    return exit_code == CLI_EXIT_OK && faults ? CLI_EXIT_FAILURE : exit_code;
}

/* ---- rm-user */

struct rm_args {
    struct cli_store_args common;
    const char *user;
};

static int cmd_rm_user(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {CLI_OPTION("USER", NULL, CLI_TEXT, struct rm_args, user, "the user's name"), .required = true},
        CLI_STORE_OPTION_DATA,
        CLI_STORE_OPTION_STORE,
        CLI_STORE_OPTION_JSON,
        CLI_OPTIONS_END,
    };
    static const struct cli_usage usage = {
        "store rm-user", "USER [options]",
        "Deletes a user: conversations, responses, feedback, vectors. The file is written anew, so that no\n"
        "trace is left in it; that takes as much room again, and some seconds in a large store.",
        options};
    struct rm_args args = {.user = NULL};
    struct store *store = NULL;
    struct store_result result = {.added = 0};
    struct ph_err err;
    struct buf out;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    buf_init(&out, OUT_BYTES_MAX);
    struct store_write write = {.kind = STORE_DELETE_USER, .user = args.user};
    enum ph_status status = cli_store_open(&args.common, CLI_STORE_WRITE, &store, &err);
    if (status == PH_OK)
        status = store_write(store, &write, &result, &err);
    if (status == PH_OK)
        status = cli_store_forget(args.common.data, store, result.user, &err);
    if (status == PH_OK)
        buf_printf(&out, args.common.json ? "{\"messages\":%zu}\n" : "%zu messages deleted.\n", result.added);
    return finish(store, &out, status, &err);
}

/* ---- The table */

int cmd_store(int argc, char **argv)
{
    static const struct cli_command commands[] = {
        {"import", "conversations from JSON lines", cmd_store_import},
        {"export", "conversations as JSON lines", cmd_store_export},
        {"index", "vectors for messages that have none", cmd_store_index},
        {"find", "messages near a text, by their vectors", cmd_store_find},
        {"stat", "what is in the store", cmd_stat},
        {"verify", "check all of it", cmd_verify},
        {"rm-user", "delete a user, without a trace", cmd_rm_user},
        {NULL, NULL, NULL},
    };
    return cli_dispatch("pharos store", "What the station remembers.", commands, argc, argv);
}
