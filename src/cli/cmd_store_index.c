/* pharos store index and find: vectors for messages, and messages by their vectors.
 *
 * The space is that of --model, or of the configuration's memory.embedding, or the lexical one. Both commands
 * work beside a running station: vectors are the store's, files of them are the station's. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "cli/cmd_store_int.h"
#include "cli/station_int.h"
#include "engine/embedder.h"
#include "memory/embed.h"
#include "memory/vectors.h"

#define CONFIG_ARENA_BYTES_MAX (16u << 20)
#define FIND_ARENA_BYTES_MAX ((size_t)1 << 30)
#define OUT_BYTES_MAX ((size_t)64 << 20)
#define SHOWN_BYTES 160 /* of a message, for people */

struct space_args {
    struct cli_store_args common;
    const char *config, *model, *user, *query;
    size_t threads, count;
};

#define OPTION_CONFIG                                                                      \
    {                                                                                      \
        CLI_OPTION("--config", "F", CLI_TEXT, struct space_args, config,                   \
                   "configuration: its memory.embedding is the model, its data the store") \
    }
#define OPTION_MODEL                                                                         \
    {                                                                                        \
        CLI_OPTION("--model", "F", CLI_TEXT, struct space_args, model,                       \
                   "GGUF file of an embedding model (none: the built-in lexical embedding)") \
    }
#define OPTION_THREADS                                                                              \
    {                                                                                               \
        CLI_OPTION("--threads", "N", CLI_COUNT, struct space_args, threads, "threads (one a CPU)"), \
            .min = 1, .max = 4096                                                                   \
    }

/* ---- The store and the space */
struct opened {
    struct arena arena; /* of the configuration */
    struct store *store;
    struct embedder *embedder;
    struct embed_space *space;
    char memory[PATH_BYTES_MAX + 16], vectors[PATH_BYTES_MAX + 32];
};

/* What is said on the command line wins. */
static enum ph_status read_config(struct opened *o, struct space_args *args, const char **postgres,
                                  struct ph_err *err)
{
    struct station_config config;
    if (!args->config)
        return PH_OK;
    station_config_default(&config);
    enum ph_status status = station_config_read(&o->arena, args->config, &config, err);
    if (status == PH_OK)
        status = station_config_check(&o->arena, &config, err);
    if (status != PH_OK)
        return status;
    if (!args->common.data)
        args->common.data = config.data;
    if (!args->model && config.memory.embedding_model)
        args->model = config.memory.embedding_model->path;
    *postgres = config.memory.postgres;
    return PH_OK;
}

static enum ph_status open_space(struct opened *o, const struct space_args *args, struct ph_err *err)
{
    char words[PATH_BYTES_MAX + 32];
    if (!args->model) {
        snprintf(words, sizeof words, "%s/" CLI_WORDS_FILE, o->memory);
        return embed_space_lexical(&o->space, o->store, words, err);
    }
    const struct embedder_params params = {.model_path = args->model, .threads = (unsigned)args->threads};
    enum ph_status status = embedder_open(&o->embedder, &params, err);
    return status == PH_OK ? embed_space_of_model(&o->space, o->embedder, err) : status;
}

static enum ph_status open_all(struct opened *o, struct space_args *args, enum cli_store_mode mode,
                               struct ph_err *err)
{
    char root[PATH_BYTES_MAX];
    struct store_params params = {
        .dir = o->memory, .clock = clock_system(), .must_exist = true, .read_only = mode == CLI_STORE_READ};
    *o = (struct opened){.store = NULL};
    arena_init(&o->arena, CONFIG_ARENA_BYTES_MAX);
    enum ph_status status = read_config(o, args, &params.postgres, err);
    if (args->common.store)
        params.postgres = args->common.store;
    if (status == PH_OK)
        status = cli_data_dir(args->common.data, root, err);
    if (status != PH_OK)
        return status;
    snprintf(o->memory, sizeof o->memory, "%s/" CLI_MEMORY_DIR, root);
    snprintf(o->vectors, sizeof o->vectors, "%s/" CLI_VECTORS_DIR, root);
    status = store_open(&o->store, &params, err);
    return status == PH_OK ? open_space(o, args, err) : status;
}

static int close_all(struct opened *o, struct buf *out, enum ph_status status, struct ph_err *err)
{
    embed_space_free(o->space);
    embedder_free(o->embedder);
    store_close(o->store);
    arena_release(&o->arena);
    if (status == PH_OK)
        status = cli_flush(out, err);
    buf_release(out);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(err);
}

enum ph_status cli_store_forget(const char *data, struct store *store, int64_t user, struct ph_err *err)
{
    char root[PATH_BYTES_MAX], path[PATH_BYTES_MAX + 32];
    struct vector_home *home = NULL;
    enum ph_status status = cli_data_dir(data, root, err);
    if (status != PH_OK)
        return status;
    snprintf(path, sizeof path, "%s/" CLI_VECTORS_DIR, root);
    if (file_exists(path)) {
        status = vector_home_open(&home, path, err);
        if (status == PH_OK)
            status = vector_home_forget(home, user, err);
        vector_home_close(home);
    }
    snprintf(path, sizeof path, "%s/" CLI_MEMORY_DIR "/" CLI_WORDS_FILE, root);
    return status == PH_OK ? embed_lexical_forget(store, path, err) : status;
}

/* ---- index */
static bool show_progress(void *ud, int64_t done, int64_t total)
{
    cli_progress_show(ud, (uint64_t)done, (uint64_t)total);
    return true;
}

int cmd_store_index(int argc, char **argv)
{
    static const struct cli_option options[] = {
        OPTION_MODEL,
        OPTION_CONFIG,
        {CLI_OPTION("--user", "U", CLI_TEXT, struct space_args, user, "only this user's messages")},
        OPTION_THREADS,
        CLI_STORE_OPTION_DATA,
        CLI_STORE_OPTION_STORE,
        CLI_STORE_OPTION_JSON,
        CLI_OPTIONS_END};
    static const struct cli_usage usage = {
        "store index", "[--model F.gguf] [options]",
        "Gives every message that has none a vector, to be found by. Stopped or killed, it goes on where\n"
        "it was.",
        options};
    struct space_args args = {.model = NULL};
    struct embed_index_result result = {0};
    struct cli_progress progress;
    struct opened o;
    struct ph_err err;
    struct buf out;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    buf_init(&out, OUT_BYTES_MAX);
    cli_progress_begin(&progress, "messages");
    enum ph_status status = open_all(&o, &args, CLI_STORE_WRITE, &err);
    if (status == PH_OK) {
        const struct embed_index_params params = {.store = o.store,
                                                  .space = o.space,
                                                  .user = args.user,
                                                  .progress = show_progress,
                                                  .ud = &progress};
        status = embed_index(&params, &result, &err);
    }
    cli_progress_end(&progress);
    if (status == PH_OK && args.common.json) {
        buf_printf(&out,
                   "{\"users\":%" PRId64 ",\"messages\":%" PRId64 ",\"embedded\":%" PRId64 ",\"space\":",
                   result.users, result.messages, result.embedded);
        json_write_string(&out, embed_space_name(o.space), strlen(embed_space_name(o.space)));
        buf_puts(&out, "}\n");
    } else if (status == PH_OK) {
        buf_printf(&out, "%" PRId64 " messages got a vector in %s; %" PRId64 " have no text.\n",
                   result.embedded, embed_space_name(o.space), result.messages - result.embedded);
    }
    return close_all(&o, &out, status, &err);
}

/* ---- find */
static void print_hit(struct buf *out, const struct store_message *message, float score, bool json,
                      bool first)
{
    struct buf line;
    if (json) {
        buf_printf(out, "%s{\"score\":%.6f,\"id\":", first ? "" : ",", (double)score);
        json_write_string(out, message->id, strlen(message->id));
        buf_puts(out, ",\"role\":");
        json_write_string(out, message->role, strlen(message->role));
        buf_printf(out, ",\"conversation\":%" PRId64 ",\"content\":", message->conversation);
        json_write_string(out, message->content, message->content_len);
        buf_putc(out, '}');
        return;
    }
    buf_init(&line, SHOWN_BYTES + 1);
    for (size_t i = 0; i < message->content_len && line.len < SHOWN_BYTES; i++)
        buf_putc(&line, (unsigned char)message->content[i] < ' ' ? ' ' : message->content[i]);
    while (line.len && utf8_incomplete_tail(line.data, line.len))
        line.len--;
    buf_printf(out, "%6.3f  %s  %s: %.*s%s\n", (double)score, message->id, message->role, (int)line.len,
               line.data ? line.data : "", line.len < message->content_len ? " ..." : "");
    buf_release(&line);
}

static enum ph_status print_hits(struct opened *o, int64_t user, const struct vectors_hit *hits, size_t count,
                                 bool json, struct buf *out, struct ph_err *err)
{
    int64_t numbers[VECTORS_HITS_MAX];
    struct store_messages messages = {0};
    struct arena arena;
    for (size_t i = 0; i < count; i++)
        numbers[i] = hits[i].message;
    arena_init(&arena, FIND_ARENA_BYTES_MAX);
    enum ph_status status =
        count ? store_read_numbers(o->store, &arena, user, numbers, count, &messages, err) : PH_OK;
    bool first = true;
    buf_puts(out, json ? "[" : "");
    for (size_t i = 0; i < messages.count; i++)
        if (messages.items[i].number) {
            print_hit(out, &messages.items[i], hits[i].score, json, first);
            first = false;
        }
    buf_puts(out, json ? "]\n" : "");
    arena_release(&arena);
    return status;
}

static enum ph_status find(struct opened *o, const struct space_args *args, struct buf *out,
                           struct ph_err *err)
{
    struct vectors_hit hits[VECTORS_HITS_MAX];
    struct vector_home *home = NULL;
    struct vectors *vectors = NULL;
    struct store_user user;
    struct embed_text query = {args->query, strlen(args->query)};
    float *vector = mem_calloc(embed_space_width(o->space), sizeof *vector);
    enum ph_status status = vector ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory to search");
    if (status == PH_OK)
        status = store_find_user(o->store, &o->arena, args->user, &user, err);
    if (status == PH_OK)
        status = vector_home_open(&home, o->vectors, err);
    struct vectors_params params = {.home = home,
                                    .user = status == PH_OK ? user.number : 0,
                                    .space = embed_space_name(o->space),
                                    .width = embed_space_width(o->space)};
    if (status == PH_OK)
        status = vectors_open(&vectors, &params, err);
    if (status == PH_OK)
        status = vectors_update(vectors, o->store, err);
    if (status == PH_OK && vectors_count(vectors) == 0)
        status = ph_fail(err, PH_ERR_NOTFOUND, "no message of %s has a vector in %s; run pharos store index",
                         args->user, params.space);
    if (status == PH_OK)
        status = embed_texts(o->space, &query, 1, false, vector, err);
    if (status == PH_OK) {
        size_t count = vectors_search(vectors, vector, args->count, NULL, hits);
        status = print_hits(o, user.number, hits, count, args->common.json, out, err);
    }
    vectors_close(vectors);
    vector_home_close(home);
    mem_free(vector);
    return status;
}

int cmd_store_find(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {CLI_OPTION("TEXT", NULL, CLI_TEXT, struct space_args, query, "what to look for"), .required = true},
        {CLI_OPTION("--user", "U", CLI_TEXT, struct space_args, user, "whose messages (local)")},
        {CLI_OPTION("-k", "N", CLI_COUNT, struct space_args, count, "how many (10)"), .min = 1,
         .max = VECTORS_HITS_MAX},
        OPTION_MODEL,
        OPTION_CONFIG,
        OPTION_THREADS,
        CLI_STORE_OPTION_DATA,
        CLI_STORE_OPTION_STORE,
        CLI_STORE_OPTION_JSON,
        CLI_OPTIONS_END};
    static const struct cli_usage usage = {
        "store find", "TEXT [--user U] [-k N] [options]",
        "The messages of a user that are nearest to a text, by the vectors of\n"
        "pharos store index.",
        options};
    struct space_args args = {.user = "local", .count = 10};
    struct opened o;
    struct ph_err err;
    struct buf out;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    buf_init(&out, OUT_BYTES_MAX);
    enum ph_status status = open_all(&o, &args, CLI_STORE_READ, &err);
    if (status == PH_OK)
        status = find(&o, &args, &out, &err);
    return close_all(&o, &out, status, &err);
}
