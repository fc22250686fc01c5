/* pharos store import: conversations from lines of JSON. Lines are read and packed here while the store's
 * writer commits earlier ones in groups. A line may take several writes; it is acknowledged when the last of
 * them is durable. What is there already is passed over, so an import that was interrupted is run again. */
#include <string.h>

#include <uv.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/process.h"
#include "cli/cmd_store_int.h"

#define LINE_ARENA_BYTES_MAX ((size_t)4 << 30)
#define PIECE_MESSAGES 1024 /* of a long conversation, in one write */
#define FAULTS_SHOWN 20
#define OUT_BYTES_MAX ((size_t)1 << 20)

struct args {
    struct cli_store_args common;
    const char *file;
    bool acknowledge;
};

struct import {
    struct store *store;
    const struct args *args;
    struct arena arena;
    uv_mutex_t mutex; /* for what follows: `done` comes on the writer's thread */
    uv_cond_t changed;
    size_t in_flight;
    size_t lines, bad, added, present, conversations;
    bool refused; /* the store itself failed: no sense in going on */
    struct ph_err err;
};

/* One write of a line; the last one speaks for it. */
struct piece {
    struct import *import;
    size_t line;
    bool last;
};

/* ---- What is said */

/* With the mutex held. */
static void tell_bad(struct import *import, size_t line, const char *why)
{
    if (import->bad++ < FAULTS_SHOWN)
        fprintf(stderr, "pharos: %s line %zu is passed over: %s\n", import->args->file, line, why);
    else if (import->bad == FAULTS_SHOWN + 1)
        fputs("pharos: there are further bad lines; they are counted only\n", stderr);
}

static bool is_the_stores_fault(enum ph_status status)
{
    return status == PH_ERR_IO || status == PH_ERR_NOMEM || status == PH_ERR_BUSY ||
           status == PH_ERR_INTERNAL || status == PH_ERR_TIMEOUT;
}

static void on_done(void *ud, enum ph_status status, const struct store_result *result,
                    const struct ph_err *err)
{
    struct piece *piece = ud;
    struct import *import = piece->import;
    uv_mutex_lock(&import->mutex);
    import->added += result->added;
    import->present += result->present;
    import->conversations += result->new_conversation;
    if (status != PH_OK && is_the_stores_fault(status) && !import->refused) {
        import->refused = true;
        import->err = *err;
    } else if (status != PH_OK && !import->refused)
        tell_bad(import, piece->line, err->message);
    else if (status == PH_OK && piece->last && import->args->acknowledge) {
        printf("line %zu\n", piece->line);
        fflush(stdout);
    }
    import->in_flight--;
    uv_cond_signal(&import->changed);
    uv_mutex_unlock(&import->mutex);
    mem_free(piece);
}

/* ---- One line */

static enum ph_status submit(struct import *import, const struct store_append *append, size_t line, bool last,
                             struct ph_err *err)
{
    struct piece *piece = mem_alloc(sizeof *piece);
    if (!piece)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a line");
    *piece = (struct piece){import, line, last};
    struct store_write write = {.kind = STORE_APPEND, .u.append = *append};
    uv_mutex_lock(&import->mutex);
    import->in_flight++;
    uv_mutex_unlock(&import->mutex);
    enum ph_status status;
    while ((status = store_submit(import->store, &write, (struct store_done){on_done, piece}, err)) ==
           PH_ERR_BUSY) {
        uv_mutex_lock(&import->mutex); /* until a write is through */
        if (import->in_flight > 1)
            uv_cond_timedwait(&import->changed, &import->mutex, UINT64_C(10000000));
        uv_mutex_unlock(&import->mutex);
    }
    if (status == PH_OK)
        return PH_OK;
    uv_mutex_lock(&import->mutex);
    import->in_flight--;
    uv_mutex_unlock(&import->mutex);
    mem_free(piece);
    return status;
}

static enum ph_status take_line(struct import *import, const char *text, size_t len, size_t line,
                                struct ph_err *err)
{
    struct store_append whole, piece;
    if (len > STORE_LINE_BYTES_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "it is longer than %u bytes", STORE_LINE_BYTES_MAX);
    arena_clear(&import->arena);
    enum ph_status status = store_line_read(&import->arena, text, len, &whole, err);
    size_t at = 0;
    do {
        if (status != PH_OK)
            return status;
        piece = whole;
        piece.messages = whole.messages + at;
        piece.count = whole.count - at > PIECE_MESSAGES ? PIECE_MESSAGES : whole.count - at;
        piece.at = whole.at == STORE_AT_END ? STORE_AT_END : (int64_t)at;
        at += piece.count;
        status = submit(import, &piece, line, at == whole.count, err);
    } while (at < whole.count);
    return status;
}

/* ---- All lines */

static bool is_refused(struct import *import)
{
    uv_mutex_lock(&import->mutex);
    bool refused = import->refused;
    uv_mutex_unlock(&import->mutex);
    return refused;
}

static void take_lines(struct import *import, const char *text, size_t len)
{
    struct cli_progress progress;
    struct ph_err err;
    const char *line;
    size_t cursor = 0, line_len;
    cli_progress_begin(&progress, "importing");
    while (!is_refused(import) && !process_stop_asked() &&
           cli_next_line(text, len, &cursor, &line, &line_len)) {
        import->lines++;
        while (line_len && (line[line_len - 1] == '\r' || line[line_len - 1] == ' '))
            line_len--;
        if (line_len && take_line(import, line, line_len, import->lines, &err) != PH_OK) {
            uv_mutex_lock(&import->mutex);
            tell_bad(import, import->lines, err.message);
            uv_mutex_unlock(&import->mutex);
        }
        cli_progress_show(&progress, cursor, len);
    }
    uv_mutex_lock(&import->mutex);
    while (import->in_flight)
        uv_cond_wait(&import->changed, &import->mutex);
    uv_mutex_unlock(&import->mutex);
    cli_progress_end(&progress);
}

/* Many new messages deserve a dictionary that knows them. */
static enum ph_status tidy(struct import *import, struct ph_err *err)
{
    struct store_write write = {.kind = STORE_TIDY};
    return import->added && !import->refused && !process_stop_asked()
               ? store_write(import->store, &write, NULL, err)
               : PH_OK;
}

static enum ph_status import_file(struct import *import, struct ph_err *err)
{
    struct file_map map = {.data = NULL};
    struct buf text;
    enum ph_status status;
    if (strcmp(import->args->file, "-") != 0) {
        status = file_map_open(&map, import->args->file, err);
        if (status == PH_OK)
            take_lines(import, (const char *)map.data, map.len);
        file_map_release(&map);
        return status;
    }
    buf_init(&text, CLI_INPUT_BYTES_MAX);
    status = file_read("-", &text, err);
    if (status == PH_OK)
        take_lines(import, text.data, text.len);
    buf_release(&text);
    return status;
}

static enum ph_status sum_up(struct import *import, struct ph_err *err)
{
    struct buf out;
    buf_init(&out, OUT_BYTES_MAX);
    if (import->args->common.json)
        buf_printf(&out,
                   "{\"lines\":%zu,\"bad\":%zu,\"conversations\":%zu,\"messages\":%zu,\"present\":%zu}\n",
                   import->lines, import->bad, import->conversations, import->added, import->present);
    else if (!import->args->acknowledge)
        buf_printf(&out, "%zu lines: %zu new conversations, %zu new messages, %zu were there already%s\n",
                   import->lines, import->conversations, import->added, import->present,
                   import->bad ? "; bad lines were passed over" : "");
    enum ph_status status = out.data ? cli_flush(&out, err) : PH_OK;
    buf_release(&out);
    if (status == PH_OK && import->refused) {
        *err = import->err;
        return err->code;
    }
    if (status == PH_OK && process_stop_asked())
        return ph_fail(err, PH_ERR_CANCELLED, "stopped");
    if (status == PH_OK && import->bad)
        return ph_fail(err, PH_ERR_FORMAT,
                       "%s: %zu bad lines of %zu were passed over; mend them and run it again",
                       import->args->file, import->bad, import->lines);
    return status;
}

static const struct cli_option options[] = {
    {CLI_OPTION("FILE", NULL, CLI_TEXT, struct args, file,
                "JSON lines, a conversation each; - for standard input"),
     .required = true},
    {CLI_OPTION("--acknowledge", NULL, CLI_SWITCH, struct args, acknowledge,
                "print \"line N\" when that line is safe on the disk")},
    CLI_STORE_OPTION_DATA,
    CLI_STORE_OPTION_STORE,
    CLI_STORE_OPTION_JSON,
    CLI_OPTIONS_END,
};

int cmd_store_import(int argc, char **argv)
{
    static const struct cli_usage usage = {"store import", "FILE [options]",
                                           "Adds conversations, one a line: {\"id\", \"user\", \"domain\", "
                                           "\"metadata\", \"messages\": [{\"role\",\n"
                                           "\"name\", \"content\", \"created_at\", \"metadata\"}]}, "
                                           "created_at in Unix seconds. What is there already\n"
                                           "is passed over, so it may be run again after an interruption. A "
                                           "bad line is named, the rest goes on.",
                                           options};
    struct args args = {.file = NULL};
    struct import import = {.args = &args};
    struct ph_err err;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    process_catch_stop();
    if (uv_mutex_init(&import.mutex) != 0 || uv_cond_init(&import.changed) != 0)
        return cli_error(CLI_EXIT_FAILURE, "no memory for a lock");
    arena_init(&import.arena, LINE_ARENA_BYTES_MAX);
    enum ph_status status = cli_store_open(&args.common, CLI_STORE_MAKE, &import.store, &err);
    if (status == PH_OK)
        status = import_file(&import, &err);
    if (status == PH_OK)
        status = tidy(&import, &err);
    store_close(import.store);
    if (status == PH_OK)
        status = sum_up(&import, &err);
    arena_release(&import.arena);
    uv_cond_destroy(&import.changed);
    uv_mutex_destroy(&import.mutex);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}
