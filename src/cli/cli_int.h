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

#include "base/buf.h"
#include "base/limits.h"
#include "base/status.h"
#include "model/model.h"

#define PHAROS_VERSION "0.1.0"
#define CLI_LIST_MAX 64
#define CLI_INPUT_BYTES_MAX ((size_t)1 << 30) /* standard input, or a text file */

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

/* Reads a YAML file into the same struct by the same table: `--kv-heads N` is `kv_heads: N`, a switch is true
 * or false, a list a list. Options without "--" or in `not_there` (NULL-terminated) are no keys. Strings live
 * in `arena`. */
PH_MUST_USE enum ph_status cli_config_read(struct arena *arena, const char *path,
                                           const struct cli_usage *usage, const char *const *not_there,
                                           void *values, size_t values_bytes, struct ph_err *err);

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

/* The whole program: the table of main.c. */
int cli_main(int argc, char **argv);

int cmd_serve(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_complete(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_detokenize(int argc, char **argv);
int cmd_template(int argc, char **argv);
int cmd_logits(int argc, char **argv);
int cmd_perplexity(int argc, char **argv);
int cmd_embed(int argc, char **argv);
int cmd_quantize(int argc, char **argv);
int cmd_train(int argc, char **argv);
int cmd_train_tokenizer(int argc, char **argv);
int cmd_train_data(int argc, char **argv);
int cmd_train_lab(int argc, char **argv);
int cmd_train_lm(int argc, char **argv);
int cmd_train_prune(int argc, char **argv);
int cmd_train_spt(int argc, char **argv);
int cmd_train_ngram(int argc, char **argv);
int cmd_keys(int argc, char **argv);
int cmd_context(int argc, char **argv);
int cmd_store(int argc, char **argv);
int cmd_cost(int argc, char **argv);
int cmd_route(int argc, char **argv);
int cmd_cost_report(int argc, char **argv);
int cmd_cost_tco(int argc, char **argv);
int cmd_backup(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_drill(int argc, char **argv);
int cmd_monitor(int argc, char **argv);
int cmd_monitor_thermal(int argc, char **argv);
int cmd_estimate(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_bench_engine(int argc, char **argv);
int cmd_bench_load(int argc, char **argv);
int cmd_bench_probe(int argc, char **argv);
int cmd_bench_model(int argc, char **argv);
int cmd_bench_train(int argc, char **argv);

int cmd_health(int argc, char **argv);
int cmd_man(int argc, char **argv);
int cmd_completion(int argc, char **argv);

/* ---- Manual pages and completion: cli_describe.c */

/* The only argument of a command that shall describe itself, before the name of the form. cli_parse and
 * cli_dispatch hand on to these; they answer the exit code. */
#define CLI_DESCRIBE "--describe="
bool cli_describe_asked(int argc, char **argv);
int cli_describe_command(const struct cli_usage *usage, const char *asked);
int cli_describe_group(const char *program, const char *about, const struct cli_command *commands,
                       char *asked);

/* ---- Saying things */

/* One line on stderr, "pharos: what, where, what to do"; answers `exit_code`, so that `return cli_error(...)`
 * reads well. */
int cli_error(int exit_code, const char *fmt, ...) PH_PRINTF(2, 3);
/* The same for an operating error: exit code 1. PH_ERR_CANCELLED is what nobody wants to hear more about. */
int cli_fail(const struct ph_err *err);

/* Sends what was printed so far. PH_ERR_CANCELLED: its reader has gone (`| head -1`), so stop and say
 * nothing; PH_ERR_IO: it cannot be written. Whoever prints while working asks after each piece. */
PH_MUST_USE enum ph_status cli_sent(struct ph_err *err);

/* A bar on stderr, shown when stderr is a terminal and the work has lasted for two seconds. */
struct cli_progress {
    const char *label;
    uint64_t start_ns, drawn_ns; /* drawn_ns 0: not shown yet */
    bool terminal;
};

void cli_progress_begin(struct cli_progress *progress, const char *label);
void cli_progress_show(struct cli_progress *progress, uint64_t done, uint64_t total);
void cli_progress_end(struct cli_progress *progress); /* wipes the bar */

/* ---- What several commands take */

/* The data directory's name: `given` (--data; NULL: not said), else $PHAROS_DATA, else $XDG_DATA_HOME/pharos,
 * else $HOME/.local/share/pharos. Makes nothing: who writes there calls file_make_dirs first. */
#define CLI_MEMORY_DIR "memory" /* in it: the store of conversations */
#define CLI_DATA_HELP "the station's data ($PHAROS_DATA, $XDG_DATA_HOME/pharos, ~/.local/share/pharos)"
PH_MUST_USE enum ph_status cli_data_dir(const char *given, char out[PATH_BYTES_MAX], struct ph_err *err);
/* A file's path in it. */
PH_MUST_USE enum ph_status cli_data_file(const char *given, const char *name, char out[PATH_BYTES_MAX],
                                         struct ph_err *err);

/* "f32", "f16", "q8_0" for a CLI_CHOICE, and the types they name. */
enum cli_kv { CLI_KV_F32, CLI_KV_F16, CLI_KV_Q8_0 };
#define CLI_KV_VALUE "f32|f16|q8_0"
extern const char *const cli_kv_names[];
enum tensor_type cli_kv_type(int choice);

/* Appends the ids of "1,2,3" (spaces and commas between them) to out. */
PH_MUST_USE enum ph_status cli_ids_parse(const char *text, size_t len, struct token_list *out,
                                         struct ph_err *err);
PH_MUST_USE enum ph_status cli_id_append(struct token_list *list, int32_t id, struct ph_err *err);
void cli_ids_write(struct buf *out, const int32_t *ids, size_t count); /* comma-separated */

PH_MUST_USE enum ph_status cli_hex_parse(const char *text, size_t len, struct buf *out, struct ph_err *err);
void cli_hex_write(struct buf *out, const void *bytes, size_t len);

/* The next line of text[*cursor..len) without its '\n'; false at the end. A text that ends in '\n' has no
 * empty line after it. */
bool cli_next_line(const char *text, size_t len, size_t *cursor, const char **line, size_t *line_len);

/* Appends the members of "F[:SCALE]" items: paths (terminated, in `arena`) and scales, each [count]. */
PH_MUST_USE enum ph_status cli_loras_parse(struct arena *arena, const struct cli_list *items,
                                           const char *const **paths, float **scales, struct ph_err *err);

/* The mixture of this name, in any case; the error lists them all. */
PH_MUST_USE enum ph_status cli_mixture_parse(const char *name, const struct mixture **out,
                                             struct ph_err *err);

/* A span is "30m", "24h", "30d", "2w" or "0". A time is a span from now, or "2027-01-31", the end of that day
 * in UTC. */
PH_MUST_USE enum ph_status cli_duration_parse(const char *text, int64_t *seconds, struct ph_err *err);
PH_MUST_USE enum ph_status cli_until_parse(const char *text, int64_t now_unix_s, int64_t *unix_s,
                                           struct ph_err *err);

/* Writes the buffer to stdout and empties it; a sticky failure of the buffer is an error, and stdout's own as
 * cli_sent has it, perhaps some calls later. */
PH_MUST_USE enum ph_status cli_flush(struct buf *out, struct ph_err *err);

#endif
