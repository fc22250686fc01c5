/* A model that a command runs by itself, without an engine: one sequence over one runner on this thread. */
#ifndef PHAROS_CLI_CLI_RUN_INT_H
#define PHAROS_CLI_CLI_RUN_INT_H

#include "cli/cli_int.h"

#define CLI_RUN_ROWS_MAX 512

struct cli_run_args {
    const char *model, *kernels;
    struct cli_list loras;
    size_t threads, context_len;
    int kv; /* enum cli_kv */
};

/* Rows of an option table that fill values_.member_, a struct cli_run_args. */
#define CLI_RUN_OPTIONS(values_, member_)                                                                    \
    {CLI_OPTION("--model", "F", CLI_TEXT, values_, member_.model, "GGUF file"), .required = true},           \
        {CLI_OPTION("--lora", "F[:SCALE]", CLI_LIST, values_, member_.loras, "adapter to apply (scale 1)")}, \
        {CLI_OPTION("--kv", CLI_KV_VALUE, CLI_CHOICE, values_, member_.kv, "type of the KV cache"),          \
         .names = cli_kv_names},                                                                             \
        {CLI_OPTION("--threads", "N", CLI_COUNT, values_, member_.threads, "threads (one a CPU)"), .min = 1, \
         .max = 4096},                                                                                       \
    {                                                                                                        \
        CLI_OPTION("--kernels", "SET", CLI_TEXT, values_, member_.kernels,                                   \
                   "ref, avx2, avx512, amx (the best this CPU has)")                                         \
    }

struct cli_run {
    struct model *model;
    struct lora *loras[CLI_LIST_MAX];
    size_t lora_count;
    struct runner *runner;
    struct kv_seq *seq;
    size_t n_vocab;
    struct runner_row rows[CLI_RUN_ROWS_MAX];
};

/* context_len 0: the model's own. outputs_max: rows with logits in one feed. The struct must be zeroed; close
 * it also after a failure. */
PH_MUST_USE enum ph_status cli_run_open(struct cli_run *run, const struct cli_run_args *args,
                                        size_t context_len, size_t outputs_max, struct ph_err *err);
void cli_run_close(struct cli_run *run);
void cli_run_forget(struct cli_run *run); /* empties the KV cache */

/* Appends ids to the sequence in PREFILL steps; last_logits [n_vocab] or NULL. Shows progress when given. */
PH_MUST_USE enum ph_status cli_run_feed(struct cli_run *run, const int32_t *ids, size_t count,
                                        float *last_logits, struct cli_progress *progress,
                                        struct ph_err *err);
/* Up to outputs_max ids in one step of the given phase, logits [count][n_vocab] or NULL. */
PH_MUST_USE enum ph_status cli_run_step(struct cli_run *run, const int32_t *ids, size_t count,
                                        enum phase phase, float *logits, struct ph_err *err);

#endif
