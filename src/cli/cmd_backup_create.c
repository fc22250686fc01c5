/* pharos backup create: what of a station is kept, from its configuration and its data directory. */
#include <inttypes.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "cli/cmd_backup_int.h"
#include "cli/secret_int.h"
#include "cli/station_int.h"

#define ARENA_BYTES_MAX ((size_t)512 << 20)
#define OUT_BYTES_MAX ((size_t)1 << 20)
#define SECRETS_MAX 1024
#define GGUF ".gguf"
#define PARTS "-00001-of-"

struct create_args {
    const char *to, *config, *data, *scratch;
    struct cli_list models;
    bool verify, full, rebuild, json;
};

struct job {
    const struct create_args *args;
    struct arena *arena;
    struct station_config config;
    struct backup_set set;
    const char *secrets[SECRETS_MAX];
    size_t secret_count;
    char data[PATH_BYTES_MAX];
};

/* ---- Secrets stay where they are */

static enum ph_status note_secret_file(struct job *job, const char *path, const char *what,
                                       struct ph_err *err)
{
    if (job->secret_count == SECRETS_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "the configuration names more than %d secrets", SECRETS_MAX);
    job->secrets[job->secret_count++] = path;
    return backup_set_leave_out(&job->set, err,
                                "%s (%s): secrets are not copied; keep them in a safe place of their own",
                                path, what);
}

static enum ph_status note_secret(struct job *job, const char *value, const char *what, struct ph_err *err)
{
    size_t prefix = sizeof SECRET_FILE_PREFIX - 1;
    if (!value || strncmp(value, SECRET_FILE_PREFIX, prefix) != 0)
        return PH_OK;
    return note_secret_file(job, value + prefix, what, err);
}

static enum ph_status note_secrets(struct job *job, struct ph_err *err)
{
    const struct station_provider *providers = job->config.providers.items;
    enum ph_status status = note_secret(job, job->config.cache.redis_password, "cache.redis_password", err);
    if (status == PH_OK)
        status = note_secret(job, job->config.memory.redis_password, "memory.redis_password", err);
    for (size_t i = 0; i < job->config.providers.count && status == PH_OK; i++) {
        const struct config_list *keys = &providers[i].keys;
        status = note_secret(job, providers[i].key, providers[i].name, err);
        for (size_t k = 0; k < keys->count && status == PH_OK; k++)
            status = note_secret(job, ((char **)keys->items)[k], providers[i].name, err);
    }
    if (status == PH_OK && job->config.tls.key)
        status = note_secret_file(job, job->config.tls.key, "tls.key", err);
    return status;
}

/* ---- Models */

/* One that is not there must not keep the rest from being saved. */
static enum ph_status add_model(struct job *job, const char *path, struct ph_err *err)
{
    struct ph_err reason;
    enum ph_status status = backup_set_add(&job->set, "models", path, &reason);
    if (status == PH_ERR_NOTFOUND)
        return backup_set_leave_out(&job->set, err, "model %s: %s", path, reason.message);
    return status == PH_OK ? PH_OK : ph_fail(err, status, "%s", reason.message);
}

/* The other parts of NAME-00001-of-00003.gguf lie beside it. */
static enum ph_status add_parts(struct job *job, const char *path, struct ph_err *err)
{
    char part[PATH_BYTES_MAX];
    const char *mark = strstr(path, PARTS);
    enum ph_status status = add_model(job, path, err);
    for (unsigned n = 2; mark && n < 100000 && status == PH_OK; n++) {
        int len = snprintf(part, sizeof part, "%.*s-%05u-of-%s", (int)(mark - path), path, n,
                           mark + sizeof PARTS - 1);
        if (len < 0 || (size_t)len >= sizeof part || !file_exists(part))
            break;
        status = add_model(job, part, err);
    }
    return status;
}

/* Words of an engine's command, roughly as a shell would part them, that are model files. */
static enum ph_status add_command(struct job *job, const char *command, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    for (const char *at = command; *at && status == PH_OK;) {
        size_t len = strcspn(at, " \t\n\"'=;&|()<>");
        if (len > sizeof GGUF - 1 && len < PATH_BYTES_MAX && memcmp(at + len - 5, GGUF, 5) == 0) {
            const char *path = arena_strndup(job->arena, at, len);
            status = path ? add_parts(job, path, err) : ph_fail(err, PH_ERR_NOMEM, "out of memory");
        }
        at += len + (at[len] != 0);
    }
    return status;
}

static enum ph_status add_models(struct job *job, struct ph_err *err)
{
    const struct station_model *models = job->config.models.items;
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < job->config.models.count && status == PH_OK; i++) {
        if (models[i].path)
            status = add_parts(job, models[i].path, err);
        if (status == PH_OK && models[i].command)
            status = add_command(job, models[i].command, err);
    }
    for (size_t i = 0; i < job->args->models.count && status == PH_OK; i++)
        status = add_parts(job, job->args->models.items[i], err);
    return status;
}

/* ---- The set */

static bool is_same_file(const struct file_stamp *a, const struct file_stamp *b)
{
    return a->inode && a->inode == b->inode && a->device == b->device;
}

/* A certificate may lie in one file with its key. */
static bool is_secret(const struct job *job, const char *path)
{
    struct file_stamp file, secret;
    file_stamp(path, &file);
    for (size_t i = 0; i < job->secret_count; i++) {
        file_stamp(job->secrets[i], &secret);
        if (is_same_file(&file, &secret))
            return true;
    }
    return false;
}

static enum ph_status add_config(struct job *job, struct ph_err *err)
{
    const char *const files[] = {job->args->config, job->config.ca_file, job->config.tls.certificate};
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < sizeof files / sizeof *files && status == PH_OK; i++)
        if (files[i] && !is_secret(job, files[i]))
            status = backup_set_add(&job->set, "config", files[i], err);
    const char *store = job->config.memory.store;
    if (status == PH_OK && store && strncmp(store, "postgres", 8) == 0)
        status = backup_set_leave_out(
            &job->set, err,
            "conversations: memory.store is PostgreSQL; back that up with pg_dump, or as "
            "text with `pharos store export --store URL`");
    return status;
}

static enum ph_status collect(struct job *job, struct ph_err *err)
{
    station_config_default(&job->config);
    enum ph_status status = PH_OK;
    if (job->args->config)
        status = station_config_read(job->arena, job->args->config, &job->config, err);
    if (status == PH_OK)
        status = cli_data_dir(job->args->data ? job->args->data : job->config.data, job->data, err);
    if (status == PH_OK)
        status = note_secrets(job, err);
    if (status == PH_OK)
        status = add_config(job, err);
    if (status == PH_OK)
        status = add_models(job, err);
    return status == PH_OK ? backup_set_add_data(&job->set, job->data, job->secrets, job->secret_count, err)
                           : status;
}

/* ---- Where it goes */

/* What lies in the data directory would be copied into itself, and is lost with it. */
static enum ph_status check_place(const struct job *job, struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    struct file_stamp data, above;
    file_stamp(job->data, &data);
    int len = snprintf(path, sizeof path - 4, "%s", job->args->to);
    for (unsigned depth = 0; len > 0 && (size_t)len + 4 < sizeof path && depth < 64; depth++) {
        file_stamp(path, &above);
        if (is_same_file(&data, &above))
            return ph_fail(err, PH_ERR_ARG,
                           "%s lies in the data directory %s, which it is to save; name another disk",
                           job->args->to, job->data);
        if (above.inode) {
            memcpy(path + len, "/..", 4);
            len += 3;
        } else {
            char *slash = strrchr(path, '/');
            len = slash ? (int)(slash - path) : (int)snprintf(path, sizeof path, ".");
            path[len] = 0;
        }
    }
    return PH_OK;
}

static void warn_of_disk(const struct job *job)
{
    struct file_stamp data, to;
    file_stamp(job->data, &data);
    file_stamp(job->args->to, &to);
    if (data.inode && data.device == to.device)
        (void)cli_error(0, "%s is on the same file system as %s: a broken disk takes both", job->args->to,
                        job->data);
}

/* ---- Told */

static void print_made(struct buf *out, const struct job *job, const struct backup_made *made)
{
    char size[BACKUP_SIZE_BYTES], fresh[BACKUP_SIZE_BYTES];
    backup_size(made->bytes, size);
    backup_size(made->new_bytes, fresh);
    if (!job->args->json) {
        for (size_t i = 0; i < job->set.left_out_count; i++)
            buf_printf(out, "Not in the backup: %s\n", job->set.left_out[i]);
        buf_printf(out, "Snapshot %s: %zu files, %s; %zu had not changed; %" PRIu64 " new chunks, %s.\n",
                   made->id, made->files, size, made->unchanged, made->new_chunks, fresh);
        if (made->mended)
            buf_printf(out, "%" PRIu64 " damaged chunks in the repository were replaced; look at its disk.\n",
                       made->mended);
        return;
    }
    buf_printf(out,
               "{\"id\":\"%s\",\"files\":%zu,\"unchanged\":%zu,\"bytes\":%" PRIu64 ",\"new_bytes\":%" PRIu64
               ",\"new_chunks\":%" PRIu64 ",\"mended\":%" PRIu64 ",\"left_out\":[",
               made->id, made->files, made->unchanged, made->bytes, made->new_bytes, made->new_chunks,
               made->mended);
    for (size_t i = 0; i < job->set.left_out_count; i++) {
        buf_puts(out, i ? "," : "");
        json_write_string(out, job->set.left_out[i], strlen(job->set.left_out[i]));
    }
    buf_puts(out, "]}\n");
}

static int run(struct job *job)
{
    struct backup_made made;
    struct backup_ear ear;
    struct ph_err err;
    struct buf out;
    enum ph_status status = collect(job, &err);
    if (status == PH_OK)
        status = check_place(job, &err);
    if (status != PH_OK)
        return cli_fail(&err);
    backup_ear_open(&ear, "backing up", job->args->json);
    const struct backup_create create = {.at = backup_ear_place(&ear, job->args->to),
                                         .set = &job->set,
                                         .version = PHAROS_VERSION,
                                         .full = job->args->full,
                                         .rebuild = job->args->rebuild};
    status = backup_create(&create, &made, &err);
    backup_ear_close(&ear);
    backup_ear_release(&ear);
    if (status != PH_OK)
        return cli_fail(&err);
    warn_of_disk(job);
    buf_init(&out, OUT_BYTES_MAX);
    print_made(&out, job, &made);
    status = cli_flush(&out, &err);
    buf_release(&out);
    if (status != PH_OK)
        return cli_fail(&err);
    const struct backup_verify_args verify = {
        .from = job->args->to, .id = made.id, .scratch = job->args->scratch, .json = job->args->json};
    return job->args->verify ? backup_verify_run(&verify) : CLI_EXIT_OK;
}

int cmd_backup_create(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {CLI_OPTION("--to", "DIR", CLI_TEXT, struct create_args, to,
                    "the repository, on another disk; made when absent"),
         .required = true},
        {CLI_OPTION("--config", "F", CLI_TEXT, struct create_args, config, "the station's configuration")},
        {CLI_OPTION("--data", "DIR", CLI_TEXT, struct create_args, data, CLI_DATA_HELP)},
        {CLI_OPTION("--model", "F", CLI_LIST, struct create_args, models,
                    "another model, besides those configured")},
        {CLI_OPTION("--verify", NULL, CLI_SWITCH, struct create_args, verify, "then verify the snapshot")},
        {CLI_OPTION("--scratch", "DIR", CLI_TEXT, struct create_args, scratch, "as in `backup verify`")},
        {CLI_OPTION("--full", NULL, CLI_SWITCH, struct create_args, full,
                    "read every file again, also unchanged ones, and mend damaged chunks")},
        {CLI_OPTION("--rebuild", NULL, CLI_SWITCH, struct create_args, rebuild,
                    "make a lost or damaged list of snapshots anew")},
        {CLI_OPTION("--json", NULL, CLI_SWITCH, struct create_args, json, "print JSON")},
        CLI_OPTIONS_END};
    static const struct cli_usage usage = {
        "backup create", "--to DIR [--config F] [--data DIR] [options]",
        "Makes a snapshot of a station: models, conversations, keys' hashes, ledger, what was measured and "
        "learned,\n"
        "configuration. It may run meanwhile. Only what is new is written; killed, it is simply run again.",
        options};
    struct create_args args = {.to = NULL};
    struct arena arena;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    arena_init(&arena, ARENA_BYTES_MAX);
    struct job *job = arena_calloc(&arena, 1, sizeof *job);
    if (!job)
        return cli_error(CLI_EXIT_FAILURE, "backup create: out of memory");
    job->args = &args;
    job->arena = job->set.arena = &arena;
    exit_code = run(job);
    arena_release(&arena);
    return exit_code;
}
