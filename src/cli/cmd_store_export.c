/* pharos store export: conversations as lines of JSON, in the order in which they were made. */
#include "cli/cmd_store_int.h"

#define ARENA_BYTES_MAX ((size_t)2 << 30)
#define PAGE 100

struct args {
    struct cli_store_args common;
    const char *conversation, *user, *domain;
};

struct export
{
    struct store *store;
    struct arena page, arena; /* a list of conversations; one of them */
    struct buf line;
    size_t written;
};

static enum ph_status write_one(struct export *export, const struct store_conversation *conversation,
                                struct ph_err *err)
{
    struct store_range range = {.conversation = conversation->number};
    struct store_messages messages;
    arena_clear(&export->arena);
    enum ph_status status = store_read_messages(export->store, &export->arena, &range, &messages, err);
    if (status != PH_OK)
        return status;
    store_line_write(&export->line, &export->arena, conversation, &messages);
    export->written++;
    return cli_flush(&export->line, err);
}

static enum ph_status write_list(struct export *export, const struct args *args, struct ph_err *err)
{
    struct store_filter filter = {
        .user = args->user, .domain = args->domain, .by_number = true, .limit = PAGE};
    struct store_conversations list = {.more = true};
    enum ph_status status = PH_OK;
    while (status == PH_OK && list.more) {
        arena_clear(&export->page);
        status = store_list_conversations(export->store, &export->page, &filter, &list, err);
        for (size_t i = 0; status == PH_OK && i < list.count; i++) {
            status = write_one(export, &list.items[i], err);
            filter.after_number = list.items[i].number;
        }
    }
    return status;
}

static enum ph_status write_all(struct export *export, const struct args *args, struct ph_err *err)
{
    struct store_conversation conversation;
    if (!args->conversation)
        return write_list(export, args, err);
    enum ph_status status = store_find_conversation(export->store, &export->page, args->user,
                                                    args->conversation, &conversation, err);
    return status == PH_OK ? write_one(export, &conversation, err) : status;
}

int cmd_store_export(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {CLI_OPTION("--conversation", "ID", CLI_TEXT, struct args, conversation, "only this one")},
        {CLI_OPTION("--user", "NAME", CLI_TEXT, struct args, user, "only this user's")},
        {CLI_OPTION("--domain", "NAME", CLI_TEXT, struct args, domain, "only those of this domain")},
        CLI_STORE_OPTION_DATA,
        CLI_STORE_OPTION_STORE,
        CLI_STORE_OPTION_JSON,
        CLI_OPTIONS_END,
    };
    static const struct cli_usage usage = {
        "store export", "[options] > F.jsonl",
        "Writes conversations to standard output, one a line, as `pharos store import` takes them (which is\n"
        "JSON with or without --json).",
        options};
    struct args args = {.user = NULL};
    struct export export = {.store = NULL};
    struct ph_err err;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    arena_init(&export.page, ARENA_BYTES_MAX);
    arena_init(&export.arena, ARENA_BYTES_MAX);
    buf_init(&export.line, STORE_LINE_BYTES_MAX);
    enum ph_status status = cli_store_open(&args.common, CLI_STORE_READ, &export.store, &err);
    if (status == PH_OK)
        status = write_all(&export, &args, &err);
    store_close(export.store);
    buf_release(&export.line);
    arena_release(&export.arena);
    arena_release(&export.page);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}
