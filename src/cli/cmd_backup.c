/* pharos backup: snapshots of a station, made, checked, brought back, let go. */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "cli/cmd_backup_int.h"

#define FAULTS_SHOWN 1000
#define OUT_BYTES_MAX ((size_t)16 << 20)
#define GRACE_DEFAULT "24h"
#define ARENA_BYTES_MAX ((size_t)256 << 20)

/* ---- What all of them tell */

static void on_progress(void *ud, uint64_t done, uint64_t total)
{
    cli_progress_show(&((struct backup_ear *)ud)->progress, done, total);
}

static void on_note(void *ud, const char *text)
{
    buf_printf(&((struct backup_ear *)ud)->notes, "pharos: %s\n", text);
}

static void put_member(struct buf *out, const char *key, const char *text)
{
    if (!text)
        return;
    buf_printf(out, "\"%s\":", key);
    json_write_string(out, text, strlen(text));
    buf_putc(out, ',');
}

void backup_ear_fault(void *ud, const struct backup_fault *fault)
{
    struct backup_ear *ear = ud;
    struct buf *out = &ear->faults;
    if (ear->told++ >= FAULTS_SHOWN)
        return;
    if (ear->json) {
        buf_puts(out, ear->told > 1 ? ",{" : "{");
        put_member(out, "snapshot", fault->snapshot);
        put_member(out, "file", fault->file);
        put_member(out, "chunk", fault->chunk);
        if (fault->offset >= 0)
            buf_printf(out, "\"offset\":%" PRId64 ",", fault->offset);
        buf_puts(out, "\"what\":");
        json_write_string(out, fault->what, strlen(fault->what));
        buf_putc(out, '}');
        return;
    }
    if (fault->snapshot)
        buf_printf(out, "%s: ", fault->snapshot);
    if (fault->file)
        buf_printf(out, "%s: ", fault->file);
    if (fault->offset >= 0)
        buf_printf(out, "at %" PRId64 ": ", fault->offset);
    if (fault->chunk)
        buf_printf(out, "chunk %s: ", fault->chunk);
    buf_printf(out, "%s\n", fault->what);
}

void backup_ear_open(struct backup_ear *ear, const char *label, bool json)
{
    *ear = (struct backup_ear){.json = json};
    buf_init(&ear->faults, OUT_BYTES_MAX);
    buf_init(&ear->notes, OUT_BYTES_MAX);
    cli_progress_begin(&ear->progress, label);
}

void backup_ear_close(struct backup_ear *ear)
{
    cli_progress_end(&ear->progress);
    if (ear->notes.len)
        fputs(ear->notes.data, stderr);
}

void backup_ear_release(struct backup_ear *ear)
{
    buf_release(&ear->faults);
    buf_release(&ear->notes);
}

struct backup_place backup_ear_place(struct backup_ear *ear, const char *dir)
{
    return (struct backup_place){
        .dir = dir, .clock = clock_system(), .progress = on_progress, .note = on_note, .ud = ear};
}

void backup_size(uint64_t bytes, char out[BACKUP_SIZE_BYTES])
{
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB"};
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 1000 && unit + 1 < sizeof units / sizeof *units; unit++)
        value /= 1000;
    snprintf(out, BACKUP_SIZE_BYTES, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

static int print(struct buf *out, int exit_code)
{
    struct ph_err err;
    enum ph_status status = cli_flush(out, &err);
    return status == PH_OK ? exit_code : cli_fail(&err);
}

#define OPTION_FROM(struct_)                                                                     \
    {                                                                                            \
        CLI_OPTION("--from", "DIR", CLI_TEXT, struct_, from, "the repository"), .required = true \
    }
#define OPTION_JSON(struct_)                                                \
    {                                                                       \
        CLI_OPTION("--json", NULL, CLI_SWITCH, struct_, json, "print JSON") \
    }

/* ---- ls */

struct ls_args {
    const char *from;
    bool json;
};

static void print_snapshot(struct buf *out, const struct backup_snapshot *s, bool json)
{
    char size[BACKUP_SIZE_BYTES], time[CLOCK_UTC_TEXT_MAX];
    clock_format_utc(s->created_ms, time);
    backup_size(s->bytes, size);
    if (json && s->problem) {
        buf_printf(out, "{\"id\":\"%s\",\"problem\":", s->id);
        json_write_string(out, s->problem, strlen(s->problem));
        buf_putc(out, '}');
    } else if (json) {
        buf_printf(out, "{\"id\":\"%s\",\"created\":\"%s\",\"files\":%zu,\"bytes\":%" PRIu64 "}", s->id, time,
                   s->files, s->bytes);
    } else if (s->problem) {
        buf_printf(out, "%s  %s\n", s->id, s->problem);
    } else {
        buf_printf(out, "%s  %.19sZ  %6zu files  %s\n", s->id, time, s->files, size);
    }
}

static int cmd_ls(int argc, char **argv)
{
    static const struct cli_option options[] = {OPTION_FROM(struct ls_args), OPTION_JSON(struct ls_args),
                                                CLI_OPTIONS_END};
    static const struct cli_usage usage = {"backup ls", "--from DIR [options]",
                                           "Lists the snapshots in a repository, oldest first.", options};
    struct ls_args args = {.from = NULL};
    struct backup_snapshot *snapshots;
    struct backup_ear ear;
    struct arena arena;
    struct ph_err err;
    struct buf out;
    size_t count = 0;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    arena_init(&arena, ARENA_BYTES_MAX);
    buf_init(&out, OUT_BYTES_MAX);
    backup_ear_open(&ear, "reading", args.json);
    struct backup_place at = backup_ear_place(&ear, args.from);
    enum ph_status status = backup_list(&at, &arena, &snapshots, &count, &err);
    backup_ear_close(&ear);
    buf_puts(&out, args.json ? "[" : "");
    for (size_t i = 0; i < count && status == PH_OK; i++) {
        buf_puts(&out, args.json && i ? "," : "");
        print_snapshot(&out, &snapshots[i], args.json);
        exit_code = snapshots[i].problem ? CLI_EXIT_FAILURE : exit_code;
    }
    buf_puts(&out, args.json ? "]\n" : "");
    if (status == PH_OK && count == 0 && !args.json)
        buf_printf(&out, "There is no snapshot in %s.\n", args.from);
    exit_code = status == PH_OK ? print(&out, exit_code) : cli_fail(&err);
    backup_ear_release(&ear);
    buf_release(&out);
    arena_release(&arena);
    return exit_code;
}

/* ---- verify */

static void print_verified(struct buf *out, const struct backup_ear *ear, const struct backup_verified *done)
{
    char size[BACKUP_SIZE_BYTES];
    backup_size(done->bytes, size);
    if (ear->json) {
        buf_printf(out,
                   "{\"ok\":%s,\"snapshots\":%zu,\"files\":%zu,\"bytes\":%" PRIu64
                   ",\"count\":%zu,\"faults\":[",
                   done->faults ? "false" : "true", done->snapshots, done->files, done->bytes, done->faults);
        buf_append(out, ear->faults.data, ear->faults.len);
        buf_puts(out, "]}\n");
        return;
    }
    buf_append(out, ear->faults.data, ear->faults.len);
    if (done->faults)
        buf_printf(out,
                   "%zu faults%s. What is damaged and still there in the station is mended by `pharos backup "
                   "create --full`.\n",
                   done->faults, done->faults > FAULTS_SHOWN ? " (the first 1000 are shown)" : "");
    else
        buf_printf(
            out,
            "Sound: %zu snapshot%s, %zu files, %s read back; databases and models restored and opened.\n",
            done->snapshots, done->snapshots == 1 ? "" : "s", done->files, size);
}

int backup_verify_run(const struct backup_verify_args *args)
{
    struct backup_verified done;
    struct backup_ear ear;
    struct ph_err err;
    struct buf out;
    backup_ear_open(&ear, "verifying", args->json);
    const struct backup_verify verify = {.at = backup_ear_place(&ear, args->from),
                                         .id = args->id,
                                         .all = args->all,
                                         .scratch = args->scratch,
                                         .fault = backup_ear_fault};
    enum ph_status status = backup_verify(&verify, &done, &err);
    backup_ear_close(&ear);
    buf_init(&out, 2 * OUT_BYTES_MAX);
    print_verified(&out, &ear, &done);
    int exit_code =
        status == PH_OK ? print(&out, done.faults ? CLI_EXIT_FAILURE : CLI_EXIT_OK) : cli_fail(&err);
    buf_release(&out);
    backup_ear_release(&ear);
    return exit_code;
}

static int cmd_verify(int argc, char **argv)
{
    static const struct cli_option options[] = {
        OPTION_FROM(struct backup_verify_args),
        {CLI_OPTION("ID", NULL, CLI_TEXT, struct backup_verify_args, id,
                    "a snapshot, or how its name begins")},
        {CLI_OPTION("--all", NULL, CLI_SWITCH, struct backup_verify_args, all,
                    "every snapshot, and chunks that none uses")},
        {CLI_OPTION("--scratch", "DIR", CLI_TEXT, struct backup_verify_args, scratch,
                    "where copies are opened: room for the largest file (the repository)")},
        OPTION_JSON(struct backup_verify_args),
        CLI_OPTIONS_END};
    static const struct cli_usage usage = {
        "backup verify", "--from DIR [ID] [options]",
        "Reads every byte of a snapshot (the newest) back and hashes it, restores databases and models to a\n"
        "scratch directory and opens them: SQLite's own check, the counts of rows, every message, every "
        "tensor.\n"
        "Exit code 1 when anything is wrong; each fault names snapshot, file, offset and chunk.",
        options};
    struct backup_verify_args args = {.from = NULL};
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    if (args.all && args.id)
        return cli_error(CLI_EXIT_USAGE, "backup verify: a snapshot or --all, not both");
    return backup_verify_run(&args);
}

/* ---- restore */

struct restore_args {
    const char *from, *id, *to;
    bool overwrite, json;
};

static void print_restored(struct buf *out, const struct backup_ear *ear, const struct restore_args *args,
                           const struct backup_restored *done)
{
    char size[BACKUP_SIZE_BYTES];
    backup_size(done->bytes, size);
    if (ear->json) {
        buf_printf(out,
                   "{\"id\":\"%s\",\"files\":%zu,\"kept\":%zu,\"failed\":%zu,\"bytes\":%" PRIu64
                   ",\"faults\":[",
                   done->id, done->files, done->kept, done->failed, done->bytes);
        buf_append(out, ear->faults.data, ear->faults.len);
        buf_puts(out, "]}\n");
        return;
    }
    buf_append(out, ear->faults.data, ear->faults.len);
    for (size_t i = 0; i < done->left_out_count; i++)
        buf_printf(out, "Not in the backup: %s\n", done->left_out[i]);
    if (done->failed)
        buf_printf(out,
                   "%zu of %zu files are damaged in the repository and were not restored; the others are in "
                   "%s. An older snapshot may have them: pharos backup ls --from %s\n",
                   done->failed, done->files, args->to, args->from);
    else
        buf_printf(out,
                   "Restored %s: %zu files, %s written, %zu were there already. Models are in %s/models, the "
                   "configuration in %s/config; set the paths in it, then:\n"
                   "  pharos serve --config %s/config/... --data %s/data\n",
                   done->id, done->files, size, done->kept, args->to, args->to, args->to, args->to);
}

static int cmd_restore(int argc, char **argv)
{
    static const struct cli_option options[] = {
        OPTION_FROM(struct restore_args),
        {CLI_OPTION("ID", NULL, CLI_TEXT, struct restore_args, id,
                    "a snapshot (the newest), or how its name begins")},
        {CLI_OPTION("--to", "DIR", CLI_TEXT, struct restore_args, to, "an empty directory; made when absent"),
         .required = true},
        {CLI_OPTION("--overwrite", NULL, CLI_SWITCH, struct restore_args, overwrite,
                    "DIR may hold files; those of the same names are replaced")},
        OPTION_JSON(struct restore_args),
        CLI_OPTIONS_END};
    static const struct cli_usage usage = {"backup restore", "--from DIR [ID] --to DIR [options]",
                                           "Brings a snapshot back. A file gets its name when all of it is "
                                           "on the disk and its SHA-256 is right. Run\n"
                                           "again after an interruption, it goes on where it was.",
                                           options};
    struct restore_args args = {.from = NULL};
    struct backup_restored done;
    struct backup_ear ear;
    struct arena arena;
    struct ph_err err;
    struct buf out;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    arena_init(&arena, ARENA_BYTES_MAX);
    backup_ear_open(&ear, "restoring", args.json);
    const struct backup_restore restore = {.at = backup_ear_place(&ear, args.from),
                                           .id = args.id,
                                           .to = args.to,
                                           .overwrite = args.overwrite,
                                           .fault = backup_ear_fault};
    enum ph_status status = backup_restore(&restore, &arena, &done, &err);
    backup_ear_close(&ear);
    buf_init(&out, 2 * OUT_BYTES_MAX);
    print_restored(&out, &ear, &args, &done);
    exit_code = status == PH_OK ? print(&out, done.failed ? CLI_EXIT_FAILURE : CLI_EXIT_OK) : cli_fail(&err);
    buf_release(&out);
    backup_ear_release(&ear);
    arena_release(&arena);
    return exit_code;
}

/* ---- prune */

struct prune_args {
    const char *from, *grace;
    size_t last, daily, weekly, monthly, yearly;
    bool dry_run, json;
};

static void on_decided(void *ud, const struct backup_snapshot *snapshot, const char *why)
{
    struct backup_ear *ear = ud;
    if (!ear->json)
        buf_printf(&ear->faults, "%s  %s%s\n", snapshot->id, why ? "stays: " : "goes", why ? why : "");
    else
        buf_printf(&ear->faults, "%s{\"id\":\"%s\",\"keep\":%s%s%s}", ear->told++ ? "," : "", snapshot->id,
                   why ? "\"" : "null", why ? why : "", why ? "\"" : "");
}

static void print_pruned(struct buf *out, const struct backup_ear *ear, const struct prune_args *args,
                         const struct backup_pruned *done)
{
    char size[BACKUP_SIZE_BYTES];
    backup_size(done->deleted_bytes, size);
    if (ear->json) {
        buf_printf(out,
                   "{\"dry_run\":%s,\"kept\":%zu,\"removed\":%zu,\"deleted_chunks\":%" PRIu64
                   ",\"deleted_bytes\":%" PRIu64 ",\"waiting_chunks\":%" PRIu64 ",\"snapshots\":[",
                   args->dry_run ? "true" : "false", done->kept, done->removed, done->deleted_chunks,
                   done->deleted_bytes, done->waiting_chunks);
        buf_append(out, ear->faults.data, ear->faults.len);
        buf_puts(out, "]}\n");
        return;
    }
    buf_append(out, ear->faults.data, ear->faults.len);
    buf_printf(out,
               "%s%zu snapshots stay, %zu go; %" PRIu64 " chunks (%s) deleted, %" PRIu64
               " unused ones wait for a later run.\n",
               args->dry_run ? "Nothing was done. " : "", done->kept, done->removed, done->deleted_chunks,
               size, done->waiting_chunks);
}

static int cmd_prune(int argc, char **argv)
{
#define KEEP(name_, member_, what_)                                         \
    CLI_OPTION("--keep-" name_, "N", CLI_COUNT, struct prune_args, member_, \
               "the newest snapshot of the last N " what_)
    static const struct cli_option options[] = {
        OPTION_FROM(struct prune_args),
        {CLI_OPTION("--keep-last", "N", CLI_COUNT, struct prune_args, last, "the last N snapshots")},
        {KEEP("daily", daily, "days that have one")},
        {KEEP("weekly", weekly, "weeks")},
        {KEEP("monthly", monthly, "months")},
        {KEEP("yearly", yearly, "years")},
        {CLI_OPTION("--grace", "SPAN", CLI_TEXT, struct prune_args, grace,
                    "how long a chunk that nobody uses stays (" GRACE_DEFAULT
                    "), and till the next run at least")},
        {CLI_OPTION("--dry-run", NULL, CLI_SWITCH, struct prune_args, dry_run,
                    "only say what would be done")},
        OPTION_JSON(struct prune_args),
        CLI_OPTIONS_END};
    static const struct cli_usage usage = {"backup prune", "--from DIR --keep-... N [options]",
                                           "Removes the snapshots that no rule keeps. Room comes free with a "
                                           "later run: a chunk is never deleted in\n"
                                           "the run that finds it unused.",
                                           options};
    struct prune_args args = {.grace = GRACE_DEFAULT};
    struct backup_pruned done;
    struct backup_ear ear;
    struct ph_err err;
    struct buf out;
    int64_t grace_s;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    if (cli_duration_parse(args.grace, &grace_s, &err) != PH_OK)
        return cli_error(CLI_EXIT_USAGE, "backup prune: --grace: %s", err.message);
    if (!(args.last || args.daily || args.weekly || args.monthly || args.yearly))
        return cli_error(CLI_EXIT_USAGE,
                         "backup prune: say what stays, as with --keep-last 7 --keep-weekly 4");
    backup_ear_open(&ear, "pruning", args.json);
    const struct backup_prune prune = {.at = backup_ear_place(&ear, args.from),
                                       .keep_last = args.last,
                                       .keep = {args.daily, args.weekly, args.monthly, args.yearly},
                                       .grace_ms = grace_s * 1000,
                                       .dry_run = args.dry_run,
                                       .decided = on_decided};
    enum ph_status status = backup_prune(&prune, &done, &err);
    backup_ear_close(&ear);
    buf_init(&out, 2 * OUT_BYTES_MAX);
    print_pruned(&out, &ear, &args, &done);
    exit_code = status == PH_OK ? print(&out, CLI_EXIT_OK) : cli_fail(&err);
    buf_release(&out);
    backup_ear_release(&ear);
    return exit_code;
}

int cmd_backup(int argc, char **argv)
{
    static const struct cli_command commands[] = {
        {"create", "copy models, memory, keys and configuration to another disk", cmd_backup_create},
        {"ls", "which snapshots there are", cmd_ls},
        {"verify", "read one back, restore it to scratch, open it", cmd_verify},
        {"restore", "bring one back", cmd_restore},
        {"prune", "let old ones go", cmd_prune},
        {NULL, NULL, NULL},
    };
    return cli_dispatch("pharos backup", "Backups that were tried.", commands, argc, argv);
}
