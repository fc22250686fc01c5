/* pharos chat: a conversation in the terminal. The history lives as long as the session, or, with
 * --conversation, at the station: then each turn sends what is new, and the station knows the rest. */
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cli_int.h"
#include "cli/talk_int.h"

#define URL_DEFAULT "http://127.0.0.1:8080"
#define LINE_BYTES_MAX (1u << 20)
#define REPLY_BYTES_MAX (16u << 20)
#define HISTORY_BYTES_MAX (256u << 20)

struct chat_args {
    const char *model, *conversation, *url, *system;
};

static const struct cli_option options[] = {
    {CLI_OPTION("--model", "M", CLI_TEXT, struct chat_args, model,
                "a GGUF file to run in this process, or the name of a station's model")},
    {CLI_OPTION("--conversation", "ID", CLI_TEXT, struct chat_args, conversation,
                "the conversation's name: the station keeps it, and goes on with it")},
    {CLI_OPTION("--url", "U", CLI_TEXT, struct chat_args, url, "the station (" URL_DEFAULT ")")},
    {CLI_OPTION("--system", "TEXT", CLI_TEXT, struct chat_args, system, "the system message")},
    CLI_OPTIONS_END};

struct session {
    struct talk *talk;
    struct arena arena; /* the history */
    struct json *messages;
    const char *system;
    bool terminal;
    bool is_kept; /* the history is at the station */
};

bool talk_show(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        bool control = (c < 32 && c != '\n' && c != '\t') || c == 127;
        putchar(control ? '?' : c);
    }
    return fflush(stdout) == 0;
}

/* ---- The history */

static bool remember(struct session *s, const char *role, const char *text, size_t len)
{
    struct json *message = json_new(&s->arena, JSON_OBJECT);
    return json_set(&s->arena, message, "role", json_new_string(&s->arena, role, strlen(role))) &&
           json_set(&s->arena, message, "content", json_new_string(&s->arena, text, len)) &&
           json_push(s->messages, message);
}

/* Takes the last message back: a request that failed shall not be part of the next one. */
static void forget_last(struct session *s)
{
    struct json *before = NULL;
    for (struct json *m = s->messages->u.list.first; m && m->next; m = m->next)
        before = m;
    s->messages->u.list.count--;
    s->messages->u.list.last = before;
    if (before)
        before->next = NULL;
    else
        s->messages->u.list.first = NULL;
}

static bool begin_history(struct session *s)
{
    arena_clear(&s->arena);
    s->messages = json_new(&s->arena, JSON_ARRAY);
    return s->messages && (!s->system || remember(s, "system", s->system, strlen(s->system)));
}

/* ---- Lines */

static void prompt(const struct session *s, const char *text)
{
    if (!s->terminal)
        return;
    fputs(text, stdout);
    fflush(stdout);
}

/* A line, or several that end in a backslash. false: the end of the input. */
static bool read_message(const struct session *s, struct buf *line)
{
    char piece[4096];
    buf_clear(line);
    prompt(s, "> ");
    while (fgets(piece, sizeof piece, stdin)) {
        size_t len = strlen(piece);
        buf_append(line, piece, len);
        if (!len || piece[len - 1] != '\n')
            continue;
        line->data[--line->len] = 0;
        if (!line->len || line->data[line->len - 1] != '\\')
            return true;
        line->data[line->len - 1] = '\n';
        prompt(s, ". ");
    }
    return line->len > 0;
}

/* "/exit" and its like. false: not one of them. */
static bool is_command(struct session *s, const char *line, bool *over)
{
    if (strcmp(line, "/exit") == 0 || strcmp(line, "/quit") == 0) {
        *over = true;
    } else if (strcmp(line, "/new") == 0) {
        *over = !begin_history(s);
        prompt(s, s->is_kept ? "(the station goes on with this conversation; --conversation NAME begins "
                               "another)\n"
                             : "(a new conversation)\n");
    } else if (strcmp(line, "/help") == 0) {
        prompt(s, "/new begins another conversation, /exit (or Ctrl-D) ends, a line ending in \\ goes on, "
                  "Ctrl-C stops a reply\n");
    } else {
        return false;
    }
    return true;
}

/* ---- Turns */

/* false: it makes no sense to go on. */
static bool take_turn(struct session *s, const struct buf *line)
{
    struct buf reply;
    struct ph_err err = {.code = PH_ERR_NOMEM, .message = "the reply does not fit into memory"};
    buf_init(&reply, REPLY_BYTES_MAX);
    if (s->is_kept && !begin_history(s))
        return false;
    if (!remember(s, "user", line->data, line->len)) {
        cli_error(CLI_EXIT_FAILURE, "the conversation has become too long; /new begins another");
        return true;
    }
    enum ph_status status = s->talk->ops->reply(s->talk, s->messages, &reply, &err);
    bool kept = status == PH_OK || (status == PH_ERR_CANCELLED && reply.len);
    bool ok = !kept || remember(s, "assistant", reply.len ? reply.data : "", reply.len);
    if (!kept)
        forget_last(s);
    talk_show("\n", 1);
    if (status != PH_OK)
        cli_fail(&err);
    bool heard = cli_sent(&err) == PH_OK;
    if (!heard)
        cli_fail(&err);
    buf_release(&reply);
    return ok && heard && (s->terminal || kept);
}

static int converse(struct session *s)
{
    struct buf line;
    bool over = false, failed = !begin_history(s);
    buf_init(&line, LINE_BYTES_MAX);
    prompt(s, "(/help for help, Ctrl-D to end)\n");
    while (!over && !failed && read_message(s, &line)) {
        if (buf_status(&line) != PH_OK)
            cli_error(CLI_EXIT_FAILURE, "a message of more than %u bytes is left out", LINE_BYTES_MAX);
        else if (line.len && !is_command(s, line.data, &over))
            failed = !take_turn(s, &line);
    }
    prompt(s, "\n");
    buf_release(&line);
    arena_release(&s->arena);
    return failed ? CLI_EXIT_FAILURE : CLI_EXIT_OK;
}

static bool is_file(const struct chat_args *args)
{
    size_t len = args->model ? strlen(args->model) : 0;
    bool is_gguf = len > 5 && strcmp(args->model + len - 5, ".gguf") == 0;
    return !args->url && args->model && (is_gguf || file_exists(args->model));
}

static enum ph_status open_talk(const struct chat_args *args, struct talk **out, struct ph_err *err)
{
    if (is_file(args))
        return talk_local_open(out, args->model, err);
    return talk_http_open(out, args->url ? args->url : URL_DEFAULT, args->model, args->conversation, err);
}

int cmd_chat(int argc, char **argv)
{
    static const struct cli_usage usage = {
        "chat", "[--model M] [--conversation ID] [--url U] [--system TEXT]",
        "Talks in the terminal: with a station, or with a model file in this process. Ctrl-C stops a reply.",
        options};
    struct chat_args args = {0};
    struct session session = {.terminal = isatty(STDIN_FILENO) == 1};
    struct ph_err err;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    log_setup(2, LOG_WARN, false);
    session.is_kept = args.conversation != NULL;
    if (args.conversation && is_file(&args))
        return cli_error(CLI_EXIT_USAGE,
                         "--conversation: only a station keeps conversations; leave out --model %s, or name "
                         "a model of the station",
                         args.model);
    if (open_talk(&args, &session.talk, &err) != PH_OK)
        return cli_fail(&err);
    session.system = args.system;
    arena_init(&session.arena, HISTORY_BYTES_MAX);
    exit_code = converse(&session);
    session.talk->ops->close(session.talk);
    return exit_code;
}
