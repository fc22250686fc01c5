/* cli: what the commands share. A command is one file, cmd_<name>.c, with one function int cmd_<name>(argc,
 * argv) that answers the exit code, and a row in main.c's table.
 *
 * Options are data: a table of struct cli_option fills the command's own struct through offsets, and the same
 * table prints its --help. Thread: main. */
#ifndef PHAROS_CLI_CLI_INT_H
#define PHAROS_CLI_CLI_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

#define PHAROS_VERSION "0.1.0"
#define CLI_LIST_MAX 64

enum cli_exit { CLI_EXIT_OK = 0, CLI_EXIT_FAILURE = 1, CLI_EXIT_USAGE = 2 };

/* ---- Options */

enum cli_type {
    CLI_SWITCH, /* bool; takes no value */
    CLI_TEXT,   /* const char *, into argv */
    CLI_LIST,   /* struct cli_list: the option may be given several times */
    CLI_COUNT,  /* size_t, within [min, max] */
    CLI_NUMBER, /* double, within [min, max] */
    CLI_CHOICE  /* int, index into `names` */
};

struct cli_list {
    const char *items[CLI_LIST_MAX];
    size_t count;
};

struct cli_option {
    const char *flag;  /* "--model", "-n"; without a dash: a positional argument, filled in table order */
    const char *value; /* the value's name in help; NULL for a switch */
    const char *help;  /* one line; says the default */
    enum cli_type type;
    size_t offset; /* in the struct that the table describes */
    bool required;
    double min, max;          /* COUNT, NUMBER; both 0: no bounds */
    const char *const *names; /* CHOICE: NULL-terminated */
};

/* One row: {CLI_OPTION("-n", "N", CLI_COUNT, struct args, count, "tokens (16)"), .min = 1, .max = 9}. */
#define CLI_OPTION(flag_, value_, type_, values_, member_, help_) \
    .flag = (flag_), .value = (value_), .help = (help_), .type = (type_), .offset = offsetof(values_, member_)
#define CLI_OPTIONS_END \
    {                   \
        .flag = NULL    \
    }

struct cli_usage {
    const char *name;                 /* "bench engine" */
    const char *synopsis;             /* what follows the name; NULL: "[options]" */
    const char *help;                 /* what the command does: a line or a few */
    const struct cli_option *options; /* a NULL flag ends the table */
};

/* Fills `values` (defaults are already in it) from argv[1..]. Both `--flag value` and `--flag=value` are
 * understood; `--` ends the options. false: the command is over with *exit_code, because --help was asked
 * for or because the usage was wrong, and everything was said. */
PH_MUST_USE bool cli_parse(const struct cli_usage *usage, int argc, char **argv, void *values,
                           int *exit_code);

/* ---- Commands */

struct cli_command {
    const char *name;
    const char *help; /* one line */
    int (*run)(int argc, char **argv);
};

/* Runs the row that argv[1] names, with argv moved so that argv[0] is that name. `program` is what was said
 * so far ("pharos bench"). Answers help, --version and unknown names itself. A NULL name ends the table. */
int cli_dispatch(const char *program, const char *about, const struct cli_command *commands, int argc,
                 char **argv);

int cmd_serve(int argc, char **argv);
int cmd_chat(int argc, char **argv);

/* ---- Saying things */

/* One line on stderr, "pharos: what, where, what to do"; answers `exit_code`, so that `return cli_error(...)`
 * reads well. */
int cli_error(int exit_code, const char *fmt, ...) PH_PRINTF(2, 3);
int cli_fail(const struct ph_err *err); /* the same for an operating error: exit code 1 */

/* A bar on stderr, shown when stderr is a terminal and the work has lasted for two seconds. */
struct cli_progress {
    const char *label;
    uint64_t start_ns, drawn_ns; /* drawn_ns 0: not shown yet */
    bool terminal;
};

void cli_progress_begin(struct cli_progress *progress, const char *label);
void cli_progress_show(struct cli_progress *progress, uint64_t done, uint64_t total);
void cli_progress_end(struct cli_progress *progress); /* wipes the bar */

#endif
