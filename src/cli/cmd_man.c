/* pharos man, pharos completion: what the tables of options say, as pages and for shells (cli_describe.c). */
#include <string.h>

#include "base/file.h"
#include "cli/cli_int.h"

#define FORM_BYTES_MAX (PATH_BYTES_MAX + 32)

static int describe_all(const char *form, const char *dir)
{
    char asked[FORM_BYTES_MAX], name[] = "pharos";
    int len = snprintf(asked, sizeof asked, CLI_DESCRIBE "%s%s", form, dir);
    if (len < 0 || (size_t)len >= sizeof asked)
        return cli_error(CLI_EXIT_USAGE, "man: the directory's name is too long");
    return cli_main(2, (char *[]){name, asked, NULL});
}

struct man_args {
    const char *dir;
};

int cmd_man(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {CLI_OPTION("DIR", "DIR", CLI_TEXT, struct man_args, dir, "where the pages go; made where absent"),
         .required = true},
        CLI_OPTIONS_END};
    static const struct cli_usage usage = {
        "man", "DIR", "Writes a manual page for every command: pharos.1, pharos-serve.1 and so on.", options};
    struct man_args args = {0};
    struct ph_err err;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    if (file_make_dirs(args.dir, 0755, &err) != PH_OK)
        return cli_fail(&err);
    return describe_all("man:", args.dir);
}

/* ---- Completion: what comes before and after the commands' own lines */

struct shell {
    const char *name, *before, *after;
};

/* The words of the command, as far as they are commands: in each branch they are what `command` is. */
static const struct shell shells[] = {
    {"bash",
     "# bash completion for pharos: source it, or put it into /usr/share/bash-completion/completions/pharos\n"
     "_pharos() {\n"
     "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} command= words= i\n"
     "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
     "        [[ ${COMP_WORDS[i]} == -* ]] && break\n"
     "        command=\"$command${command:+ }${COMP_WORDS[i]}\"\n"
     "    done\n"
     "    while :; do case $command in\n",
     "    *' '*) command=${command% *}; continue ;;\n"
     "    esac; break; done\n"
     "    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
     "}\n"
     "complete -o default -F _pharos pharos\n"},
    {"zsh",
     "#compdef pharos\n"
     "_pharos() {\n"
     "    local current=$words[CURRENT] previous=$words[CURRENT-1] command= i\n"
     "    local -a words_here\n"
     "    for ((i = 2; i < CURRENT; i++)); do\n"
     "        [[ $words[i] == -* ]] && break\n"
     "        command=\"$command${command:+ }$words[i]\"\n"
     "    done\n"
     "    while :; do case $command in\n",
     "    *' '*) command=${command% *}; continue ;;\n"
     "    esac; break; done\n"
     "    _describe pharos words_here\n"
     "}\n"
     "if [ \"$funcstack[1]\" = _pharos ]; then _pharos \"$@\"; else compdef _pharos pharos; fi\n"},
    {"fish",
     "# fish completion for pharos: put it into ~/.config/fish/completions/pharos.fish\n"
     "function __pharos_words\n"
     "    string match -v -- '-*' (commandline -opc)[2..] | string join ' '\n"
     "end\n"
     "function __pharos_at\n"
     "    test \"$(__pharos_words)\" = \"$argv\"\n"
     "end\n"
     "function __pharos_in\n"
     "    string match -q -- \"$argv *\" \"$(__pharos_words) \"\n"
     "end\n",
     ""},
    {NULL, NULL, NULL}};

struct completion_args {
    const char *shell;
};

int cmd_completion(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {CLI_OPTION("SHELL", "SHELL", CLI_TEXT, struct completion_args, shell, "bash, zsh or fish"),
         .required = true},
        CLI_OPTIONS_END};
    static const struct cli_usage usage = {
        "completion", "bash|zsh|fish",
        "Prints what a shell needs to complete commands and options: source <(pharos completion bash)",
        options};
    struct completion_args args = {0};
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    for (const struct shell *shell = shells; shell->name; shell++) {
        if (strcmp(shell->name, args.shell) != 0)
            continue;
        fputs(shell->before, stdout);
        exit_code = describe_all(shell->name, "");
        fputs(shell->after, stdout);
        return exit_code;
    }
    return cli_error(CLI_EXIT_USAGE, "completion: \"%s\" is none of bash, zsh, fish", args.shell);
}
