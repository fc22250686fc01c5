/* Command-line options as data: one table fills a struct, prints the help, and knows what a misspelt option
 * may have meant. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli_int.h"

#define SUGGEST_LEN_MAX 32

struct parser {
    const struct cli_usage *usage;
    char **argv;
    int argc, next;
    char *values;
    const struct cli_option *positional; /* the next one to fill */
    bool options_over;
};

static bool is_positional(const struct cli_option *option)
{
    return option->flag[0] != '-';
}

/* ---- Help */

static void print_row(const char *left, const char *right)
{
    if (strlen(left) > 26)
        printf("  %s\n  %-26s  %s\n", left, "", right);
    else
        printf("  %-26s  %s\n", left, right);
}

static void print_help(const struct cli_usage *usage)
{
    printf("usage: pharos %s %s\n\n%s\n\n", usage->name, usage->synopsis ? usage->synopsis : "[options]",
           usage->help);
    for (const struct cli_option *option = usage->options; option->flag; option++) {
        char left[128];
        const char *value = option->value && !is_positional(option) ? option->value : "";
        snprintf(left, sizeof left, "%s%s%s", option->flag, *value ? " " : "", value);
        print_row(left, option->help);
    }
    print_row("--help", "this text");
}

/* ---- What may have been meant */

/* Levenshtein distance, two rows at a time; words longer than SUGGEST_LEN_MAX count as far away. */
static size_t distance(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b), row[SUGGEST_LEN_MAX + 1];
    if (la > SUGGEST_LEN_MAX || lb > SUGGEST_LEN_MAX)
        return SUGGEST_LEN_MAX;
    for (size_t j = 0; j <= lb; j++)
        row[j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t replace = diagonal + (a[i - 1] != b[j - 1]);
            size_t other = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = replace < other ? replace : other;
        }
    }
    return row[lb];
}

struct guess {
    const char *word; /* NULL: none near enough */
    size_t distance;
};

static void consider(struct guess *guess, const char *said, const char *candidate)
{
    size_t d = distance(said, candidate);
    if (d <= 1 + strlen(candidate) / 4 && (!guess->word || d < guess->distance))
        *guess = (struct guess){candidate, d};
}

static int unknown_option(const struct parser *p, const char *said)
{
    struct guess guess = {0};
    for (const struct cli_option *option = p->usage->options; option->flag; option++)
        if (!is_positional(option))
            consider(&guess, said, option->flag);
    if (guess.word)
        return cli_error(CLI_EXIT_USAGE, "%s: unknown option %s; did you mean %s?", p->usage->name, said,
                         guess.word);
    return cli_error(CLI_EXIT_USAGE, "%s: unknown option %s; see pharos %s --help", p->usage->name, said,
                     p->usage->name);
}

/* ---- Values */

static bool out_of_bounds(const struct cli_option *option, double value)
{
    bool bounded = option->min != 0 || option->max != 0;
    return !isfinite(value) || (bounded && (value < option->min || value > option->max));
}

static bool parse_count(const struct cli_option *option, const char *text, size_t *out)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || value > SIZE_MAX ||
        out_of_bounds(option, (double)value))
        return false;
    *out = (size_t)value;
    return true;
}

static bool parse_number(const struct cli_option *option, const char *text, double *out)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || out_of_bounds(option, value))
        return false;
    *out = value;
    return true;
}

static bool parse_choice(const struct cli_option *option, const char *text, int *out)
{
    for (int i = 0; option->names[i]; i++)
        if (strcmp(option->names[i], text) == 0) {
            *out = i;
            return true;
        }
    return false;
}

static bool parse_list(const char *text, struct cli_list *out)
{
    if (out->count == CLI_LIST_MAX)
        return false;
    out->items[out->count++] = text;
    return true;
}

static bool store(const struct cli_option *option, const char *text, void *where)
{
    switch (option->type) {
    case CLI_SWITCH:
        *(bool *)where = true;
        return true;
    case CLI_TEXT:
        *(const char **)where = text;
        return true;
    case CLI_LIST:
        return parse_list(text, where);
    case CLI_COUNT:
        return parse_count(option, text, where);
    case CLI_NUMBER:
        return parse_number(option, text, where);
    case CLI_CHOICE:
        return parse_choice(option, text, where);
    }
    return false;
}

static int bad_choice(const char *command, const struct cli_option *option, const char *text)
{
    char names[256] = "";
    size_t len = 0;
    for (size_t i = 0; option->names[i] && len < sizeof names; i++)
        len += (size_t)snprintf(names + len, sizeof names - len, "%s%s", i ? ", " : "", option->names[i]);
    return cli_error(CLI_EXIT_USAGE, "%s: %s \"%s\" is none of %s", command, option->flag, text, names);
}

static int bad_value(const struct parser *p, const struct cli_option *option, const char *text)
{
    const char *command = p->usage->name;
    if (option->type == CLI_LIST)
        return cli_error(CLI_EXIT_USAGE, "%s: %s is given more than %d times", command, option->flag,
                         CLI_LIST_MAX);
    if (option->type == CLI_CHOICE)
        return bad_choice(command, option, text);
    const char *what = option->type == CLI_COUNT ? "a whole number" : "a number";
    if (option->min != 0 || option->max != 0)
        return cli_error(CLI_EXIT_USAGE, "%s: %s \"%s\" is not %s from %.10g to %.10g", command, option->flag,
                         text, what, option->min, option->max);
    return cli_error(CLI_EXIT_USAGE, "%s: %s \"%s\" is not %s", command, option->flag, text, what);
}

static int assign(struct parser *p, const struct cli_option *option, const char *text)
{
    return store(option, text, p->values + option->offset) ? CLI_EXIT_OK : bad_value(p, option, text);
}

/* ---- Arguments */

static const struct cli_option *find_option(const struct cli_usage *usage, const char *flag, size_t len)
{
    for (const struct cli_option *option = usage->options; option->flag; option++)
        if (!is_positional(option) && strlen(option->flag) == len && memcmp(option->flag, flag, len) == 0)
            return option;
    return NULL;
}

static int parse_option(struct parser *p, const char *said)
{
    const char *equals = strchr(said, '=');
    size_t len = equals ? (size_t)(equals - said) : strlen(said);
    const struct cli_option *option = find_option(p->usage, said, len);
    if (!option)
        return unknown_option(p, said);
    if (option->type == CLI_SWITCH) {
        if (equals)
            return cli_error(CLI_EXIT_USAGE, "%s: %s takes no value", p->usage->name, option->flag);
        return assign(p, option, NULL);
    }
    if (equals)
        return assign(p, option, equals + 1);
    if (p->next == p->argc)
        return cli_error(CLI_EXIT_USAGE, "%s: %s needs a value: %s %s", p->usage->name, option->flag,
                         option->flag, option->value);
    return assign(p, option, p->argv[p->next++]);
}

static const struct cli_option *next_positional(const struct cli_option *option)
{
    while (option->flag && !is_positional(option))
        option++;
    return option;
}

static int parse_positional(struct parser *p, const char *text)
{
    p->positional = next_positional(p->positional);
    if (!p->positional->flag)
        return cli_error(CLI_EXIT_USAGE, "%s: unexpected argument \"%s\"; see pharos %s --help",
                         p->usage->name, text, p->usage->name);
    const struct cli_option *option = p->positional;
    if (option->type != CLI_LIST)
        p->positional++;
    return assign(p, option, text);
}

/* Required means: its pointer, list or number is no longer what an unset one is. */
static bool is_unset(const struct cli_option *option, const char *values)
{
    const void *where = values + option->offset;
    if (option->type == CLI_LIST)
        return ((const struct cli_list *)where)->count == 0;
    return option->type == CLI_TEXT && !*(const char *const *)where;
}

static int check_required(const struct parser *p)
{
    for (const struct cli_option *option = p->usage->options; option->flag; option++)
        if (option->required && is_unset(option, p->values))
            return cli_error(CLI_EXIT_USAGE, "%s: %s%s%s is missing; see pharos %s --help", p->usage->name,
                             option->flag, is_positional(option) ? "" : " ",
                             is_positional(option) ? "" : option->value, p->usage->name);
    return CLI_EXIT_OK;
}

bool cli_parse(const struct cli_usage *usage, int argc, char **argv, void *values, int *exit_code)
{
    struct parser p = {.usage = usage, .argv = argv, .argc = argc, .next = 1, .values = values};
    p.positional = usage->options;
    *exit_code = CLI_EXIT_OK;
    if (cli_describe_asked(argc, argv)) {
        *exit_code = cli_describe_command(usage, argv[1]);
        return false;
    }
    while (p.next < argc && *exit_code == CLI_EXIT_OK) {
        const char *said = argv[p.next++];
        if (!p.options_over && (strcmp(said, "--help") == 0 || strcmp(said, "-h") == 0)) {
            print_help(usage);
            return false;
        }
        if (!p.options_over && strcmp(said, "--") == 0)
            p.options_over = true;
        else if (!p.options_over && said[0] == '-' && said[1])
            *exit_code = parse_option(&p, said);
        else
            *exit_code = parse_positional(&p, said);
    }
    if (*exit_code == CLI_EXIT_OK)
        *exit_code = check_required(&p);
    return *exit_code == CLI_EXIT_OK;
}

/* ---- Commands */

static int print_commands(const char *program, const char *about, const struct cli_command *commands)
{
    printf("usage: %s COMMAND [options]\n\n%s\n\n", program, about);
    for (const struct cli_command *command = commands; command->name; command++)
        print_row(command->name, command->help);
    printf("\n%s COMMAND --help tells more.\n", program);
    return CLI_EXIT_OK;
}

int cli_dispatch(const char *program, const char *about, const struct cli_command *commands, int argc,
                 char **argv)
{
    const char *said = argc > 1 ? argv[1] : NULL;
    if (!said) {
        print_commands(program, about, commands);
        return CLI_EXIT_USAGE;
    }
    if (cli_describe_asked(argc, argv))
        return cli_describe_group(program, about, commands, argv[1]);
    if (strcmp(said, "--help") == 0 || strcmp(said, "-h") == 0 || strcmp(said, "help") == 0)
        return print_commands(program, about, commands);
    if (strcmp(said, "--version") == 0) {
        printf("pharos %s\n", PHAROS_VERSION);
        return CLI_EXIT_OK;
    }
    struct guess guess = {0};
    for (const struct cli_command *command = commands; command->name; command++) {
        if (strcmp(command->name, said) == 0)
            return command->run(argc - 1, argv + 1);
        consider(&guess, said, command->name);
    }
    if (guess.word)
        return cli_error(CLI_EXIT_USAGE, "unknown command %s; did you mean %s?", said, guess.word);
    return cli_error(CLI_EXIT_USAGE, "unknown command %s; see %s --help", said, program);
}
