/* What the estimator's files share. Included only inside src/ops. */
#ifndef PHAROS_OPS_ESTIMATE_INT_H
#define PHAROS_OPS_ESTIMATE_INT_H

#include "base/config.h"
#include "ops/estimate.h"

/* ---- Data (estimate_data.c) */
struct shape {
    char *name;
    struct config_list aliases;
    int64_t layers, width, heads, kv_heads, head_dim, ffn, vocab, context;
    int64_t experts, experts_used, expert_ffn, norms, window, window_period, parameters;
    bool tied, plain, qkv_bias, biases, qk_norm, fused;
    char *about;
};

/* By name without regard to case, spaces and underscores being dashes; also by alias. NULL: unknown. */
const struct shape *shape_find(const struct estimate_data *data, const char *name);
void shape_list(const struct estimate_data *data, char *out, size_t cap); /* for error messages */

struct estimate_bytes {
    const char *text;
    size_t len;
};
struct estimate_bytes shapes_shipped(void); /* estimate_shipped.c */
struct estimate_bytes hardware_shipped(void);

/* ---- Sheets (estimate_sheet.c) */
PH_MUST_USE bool sheet_open(struct estimate_sheet *sheet, struct arena *arena, size_t cap);
void sheet_add(struct estimate_sheet *sheet, enum estimate_kind kind, unsigned depth, enum estimate_unit unit,
               double value, const char *name, const char *fmt, ...) PH_PRINTF(7, 8);
/* Gives every sum its value, the deepest first. */
void sheet_sum(struct estimate_sheet *sheet);
void sheet_print(const struct estimate_sheet *sheet, struct buf *out);
void sheet_print_json(const struct estimate_sheet *sheet, struct buf *out);
void estimate_human_bytes(double bytes, char out[32]); /* "4.37 GB" */

/* ---- Physics (estimate_speed.c) */
struct share { /* of a device's limit that is reached */
    struct estimate_range value;
    bool calibrated;
};

struct speed { /* what one asks about one step */
    const struct estimate_request *request;
    const struct estimate_model *model;
    const struct estimate_stage *stages;
    size_t stage_count;
};

/* A cost in time: what a perfect device needs, and what this one will. */
struct cost {
    struct estimate_range s;
    double perfect_s;
    double prior_s; /* of the middle, resting on priors */
    bool is_arithmetic;
};

/* One decode step of `rows` tokens, one each of `streams` sequences at `position` (streams < rows: a
 * sequence's draft is looked at). The sheet may be NULL. */
struct cost decode_cost(const struct speed *speed, size_t rows, size_t streams, size_t position,
                        struct estimate_sheet *sheet, unsigned depth);
/* A prompt from an empty cache. */
struct cost prefill_cost(const struct speed *speed, size_t tokens, struct estimate_sheet *sheet);
uint64_t decode_bytes_of(const struct estimate_model *model);
double decode_operations_of(const struct estimate_model *model);
double device_bandwidth(const struct estimate_request *request, int device); /* bytes/s, 0: not known */
unsigned request_threads(const struct estimate_request *request);
double experts_touched(const struct runner_widths *w, double rows);
const char *device_name(const struct machine *machine, int device);
size_t kv_row_bytes(const struct estimate_request *request, const struct estimate_model *model);

/* ---- Memory and placement (estimate_memory.c) */
/* Chooses stages and fills the memory sheet, for so many streams. false: it does not fit; `why` says. */
bool place_model(const struct estimate_request *request, struct estimate *e, size_t streams,
                 struct estimate_sheet *sheet);
uint64_t memory_of_streams(const struct estimate_request *request, const struct estimate *e, size_t streams);
uint64_t lora_bytes(const struct estimate_model *model, size_t rank);
size_t request_rows(const struct estimate_request *request);
size_t request_context(const struct estimate_request *request);

#endif
