/* Man pages and shell completion from the tables that parse the options, so that neither can be forgotten.
 *
 * A command is described by running it with one argument, CLI_DESCRIBE and the name of a form: its cli_parse
 * prints its own part and ends it; cli_dispatch prints the part of a group, then runs each of the group's
 * commands the same way. So no second list of commands is kept. In a completion a command's part is one
 * branch on the words before it; a manual page is a file, whose directory is the rest of the argument.
 *
 * Sources: man(7) and groff_man(7); "Programmable Completion" of the Bash manual; zshcompsys(1);
 * fish's complete(1). */
#include <ctype.h>
#include <string.h>

#include "base/file.h"
#include "cli/cli_int.h"

#define PAGE_BYTES_MAX ((size_t)1 << 20)

/* What is described: a group of commands, or one with options. */
struct topic {
    const char *words; /* "bench engine"; "": the program itself */
    const char *help, *synopsis;
    const struct cli_command *commands; /* NULL: it is no group */
    const struct cli_option *options;
};

struct form {
    const char *name; /* ends in ':' where a directory follows */
    void (*put)(struct buf *out, const struct topic *topic);
};

static bool is_positional(const struct cli_option *option)
{
    return option->flag[0] != '-';
}

static bool has_positional(const struct topic *topic)
{
    for (const struct cli_option *option = topic->options; option && option->flag; option++)
        if (is_positional(option))
            return true;
    return false;
}

/* In single quotes: '\'' in all the shells but fish, where \' does. */
static void put_quoted(struct buf *out, const char *text, const char *quote)
{
    buf_putc(out, '\'');
    for (; *text; text++)
        *text == '\'' ? buf_puts(out, quote) : buf_putc(out, *text);
    buf_putc(out, '\'');
}

/* ---- bash: the words that may follow; no words: the names of files */

static void put_bash_option(struct buf *out, const struct cli_option *option)
{
    buf_printf(out, "        %s) words='", option->flag);
    for (int i = 0; option->names && option->names[i]; i++)
        buf_printf(out, "%s%s", i ? " " : "", option->names[i]);
    buf_puts(out, "' ;;\n");
}

static void put_bash(struct buf *out, const struct topic *topic)
{
    buf_printf(out, "    '%s')\n        case $previous in\n", topic->words);
    for (const struct cli_option *option = topic->options; option && option->flag; option++)
        if (!is_positional(option) && option->type != CLI_SWITCH)
            put_bash_option(out, option);
    buf_puts(out, "        *) words='--help");
    for (const struct cli_command *command = topic->commands; command && command->name; command++)
        buf_printf(out, " %s", command->name);
    for (const struct cli_option *option = topic->options; option && option->flag; option++)
        if (!is_positional(option))
            buf_printf(out, " %s", option->flag);
    buf_printf(out, "'%s ;;\n        esac ;;\n",
               has_positional(topic) ? "; [[ $current == -* ]] || words=" : "");
}

/* ---- zsh: the same with what each word means */

static void put_zsh_word(struct buf *out, const char *word, const char *help)
{
    char text[512];
    snprintf(text, sizeof text, "%s:%s", word, help);
    buf_putc(out, ' ');
    put_quoted(out, text, "'\\''");
}

static void put_zsh_option(struct buf *out, const struct cli_option *option)
{
    buf_printf(out, "        %s) ", option->flag);
    if (!option->names)
        buf_puts(out, "_files; return");
    for (int i = 0; option->names && option->names[i]; i++)
        buf_printf(out, "%s%s", i ? " " : "compadd -- ", option->names[i]);
    buf_printf(out, "%s ;;\n", option->names ? "; return" : "");
}

static void put_zsh(struct buf *out, const struct topic *topic)
{
    buf_printf(out, "    '%s')\n        case $previous in\n", topic->words);
    for (const struct cli_option *option = topic->options; option && option->flag; option++)
        if (!is_positional(option) && option->type != CLI_SWITCH)
            put_zsh_option(out, option);
    buf_printf(out, "        esac\n%s        words_here=(",
               has_positional(topic) ? "        [[ $current == -* ]] || { _files; return; }\n" : "");
    for (const struct cli_command *command = topic->commands; command && command->name; command++)
        put_zsh_word(out, command->name, command->help);
    for (const struct cli_option *option = topic->options; option && option->flag; option++)
        if (!is_positional(option))
            put_zsh_word(out, option->flag, option->help);
    buf_puts(out, " '--help:what it does') ;;\n");
}

/* ---- fish: a line a word */

static void put_fish_line(struct buf *out, const struct topic *topic, const char *kind, const char *word,
                          const char *help)
{
    buf_printf(out, "complete -c pharos -n '%s %s' %s %s -d ",
               topic->commands ? "__pharos_at" : "__pharos_in", topic->words, kind, word);
    put_quoted(out, help, "\\'");
}

static void put_fish(struct buf *out, const struct topic *topic)
{
    for (const struct cli_command *command = topic->commands; command && command->name; command++) {
        put_fish_line(out, topic, "-f -a", command->name, command->help);
        buf_putc(out, '\n');
    }
    for (const struct cli_option *option = topic->options; option && option->flag; option++) {
        if (is_positional(option))
            continue;
        size_t dashes = strspn(option->flag, "-");
        put_fish_line(out, topic, dashes > 1 ? "-l" : "-s", option->flag + dashes, option->help);
        if (option->type != CLI_SWITCH)
            buf_puts(out, option->names ? " -x -a '" : " -r");
        for (int i = 0; option->names && option->names[i]; i++)
            buf_printf(out, "%s%s", i ? " " : "", option->names[i]);
        buf_puts(out, option->names ? "'\n" : "\n");
    }
}

/* ---- man(7) */

/* A dash is a minus, a backslash is one, and no line begins with what roff obeys. */
static void put_roff(struct buf *out, const char *text)
{
    for (bool begins = true; *text; begins = *text++ == '\n') {
        if (begins && (*text == '.' || *text == '\''))
            buf_puts(out, "\\&");
        if (*text == '-' || *text == '\\')
            buf_puts(out, *text == '-' ? "\\-" : "\\e");
        else
            buf_putc(out, *text);
    }
}

static void put_item(struct buf *out, const char *name, const char *value, const char *help)
{
    buf_puts(out, ".TP\n\\fB");
    put_roff(out, name);
    buf_puts(out, "\\fR");
    if (value && *value) {
        buf_puts(out, " \\fI");
        put_roff(out, value);
        buf_puts(out, "\\fR");
    }
    buf_putc(out, '\n');
    put_roff(out, help);
    buf_putc(out, '\n');
}

static void put_page_name(struct buf *out, const char *words)
{
    buf_puts(out, "pharos");
    if (*words)
        buf_putc(out, '-');
    for (; *words; words++)
        buf_putc(out, *words == ' ' ? '-' : *words);
}

static void put_see_also(struct buf *out, const struct topic *topic)
{
    buf_puts(out, ".SH SEE ALSO\n");
    for (const struct cli_command *command = topic->commands; command && command->name; command++) {
        char words[256];
        snprintf(words, sizeof words, "%s%s%s", topic->words, *topic->words ? " " : "", command->name);
        buf_puts(out, ".BR ");
        put_page_name(out, words);
        buf_printf(out, " (1)%s\n", command[1].name ? "," : "");
    }
    if (!topic->commands)
        buf_puts(out, ".BR pharos (1)\n");
}

static void put_man(struct buf *out, const struct topic *topic)
{
    const char *line_end = strchr(topic->help, '\n');
    buf_puts(out, ".TH \"");
    size_t name_at = out->len;
    put_page_name(out, topic->words);
    for (size_t i = name_at; i < out->len; i++)
        out->data[i] = (char)toupper((unsigned char)out->data[i]);
    buf_puts(out, "\" 1 \"\" \"pharos " PHAROS_VERSION "\" \"Pharos\"\n.SH NAME\n");
    put_page_name(out, topic->words);
    buf_puts(out, " \\- ");
    char first[256];
    snprintf(first, sizeof first, "%.*s", (int)(line_end ? line_end - topic->help : 200), topic->help);
    put_roff(out, first);
    buf_printf(out, "\n.SH SYNOPSIS\n.B pharos%s%s\n", *topic->words ? " " : "", topic->words);
    put_roff(out, topic->synopsis);
    buf_puts(out, "\n.SH DESCRIPTION\n");
    put_roff(out, topic->help);
    buf_printf(out, "\n.SH %s\n", topic->commands ? "COMMANDS" : "OPTIONS");
    for (const struct cli_command *command = topic->commands; command && command->name; command++)
        put_item(out, command->name, NULL, command->help);
    for (const struct cli_option *option = topic->options; option && option->flag; option++)
        put_item(out, option->flag, is_positional(option) ? NULL : option->value, option->help);
    put_item(out, "--help", NULL, "a short text of this");
    buf_puts(out, ".SH EXIT STATUS\n0 on success, 1 on failure, 2 on wrong usage.\n");
    if (!*topic->words)
        buf_puts(out, ".SH ENVIRONMENT\n.TP\n.B PHAROS_DATA\nThe directory of keys, conversations, budgets "
                      "and logs, where no option and no configuration names one.\n");
    put_see_also(out, topic);
}

static enum ph_status write_page(const char *dir, const struct topic *topic, const struct buf *text,
                                 struct ph_err *err)
{
    struct buf path;
    buf_init(&path, PATH_BYTES_MAX);
    buf_printf(&path, "%s/", dir);
    put_page_name(&path, topic->words);
    buf_puts(&path, ".1");
    enum ph_status status = buf_status(&path) == PH_OK ? buf_status(text) : buf_status(&path);
    if (status != PH_OK)
        (void)ph_fail(err, status, "the manual page of pharos %s is too long", topic->words);
    else
        status = file_write_atomic(path.data, text->data, text->len, 0644, err);
    buf_release(&path);
    return status;
}

/* ---- All of them */

static const struct form forms[] = {
    {"bash", put_bash}, {"zsh", put_zsh}, {"fish", put_fish}, {"man:", put_man}, {NULL, NULL}};

static int describe(const char *wanted, const struct topic *topic)
{
    struct ph_err err;
    struct buf text;
    enum ph_status status = PH_ERR_ARG;
    for (const struct form *form = forms; form->name; form++) {
        size_t len = strlen(form->name);
        bool to_files = form->name[len - 1] == ':';
        if (to_files ? strncmp(wanted, form->name, len) != 0 : strcmp(wanted, form->name) != 0)
            continue;
        buf_init(&text, PAGE_BYTES_MAX);
        form->put(&text, topic);
        status = to_files ? write_page(wanted + len, topic, &text, &err) : cli_flush(&text, &err);
        buf_release(&text);
        return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
    }
    return cli_error(CLI_EXIT_USAGE, "a command is described as bash, zsh, fish or man:DIR");
}

bool cli_describe_asked(int argc, char **argv)
{
    return argc == 2 && strncmp(argv[1], CLI_DESCRIBE, sizeof CLI_DESCRIBE - 1) == 0;
}

int cli_describe_command(const struct cli_usage *usage, const char *asked)
{
    const struct topic topic = {.words = usage->name,
                                .help = usage->help,
                                .synopsis = usage->synopsis ? usage->synopsis : "[options]",
                                .options = usage->options};
    return describe(asked + sizeof CLI_DESCRIBE - 1, &topic);
}

int cli_describe_group(const char *program, const char *about, const struct cli_command *commands,
                       char *asked)
{
    const char *space = strchr(program, ' ');
    const struct topic topic = {.words = space ? space + 1 : "",
                                .help = about,
                                .synopsis = "COMMAND [options]",
                                .commands = commands};
    int exit_code = describe(asked + sizeof CLI_DESCRIBE - 1, &topic);
    for (const struct cli_command *command = commands; command->name && exit_code == CLI_EXIT_OK; command++) {
        char name[64];
        snprintf(name, sizeof name, "%s", command->name);
        exit_code = command->run(2, (char *[]){name, asked, NULL});
    }
    return exit_code;
}
