/* What a model needs of a machine and what it gets from it, predicted from physics.
 *
 * A model is a GGUF file or a named shape with a weight type; a machine is measured (ops/machine.h) or named.
 * Everything follows from bytes over bandwidth and operations over peak, each times the share of it that the
 * device reaches with the number format: calibrated (ops/efficiency.h) or a wide prior. Every result is the
 * sum of the lines of its sheet, whole bytes and nanoseconds; docs/PHYSICS.md explains the formulas.
 *
 * Thread: any; nothing here has state. */
#ifndef PHAROS_OPS_ESTIMATE_H
#define PHAROS_OPS_ESTIMATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/status.h"
#include "model/model.h"
#include "ops/efficiency.h"
#include "ops/machine.h"

#define ESTIMATE_ARENA_BYTES_MAX ((size_t)256 << 20)

/* ---- Named shapes and hardware: those shipped, then users' files, which may replace them ---- */
struct estimate_data;

struct estimate_files {
    const char *const *shapes, *const *hardware; /* paths */
    size_t shape_count, hardware_count;
};
/* Lives in the arena. */
PH_MUST_USE enum ph_status estimate_data_open(struct estimate_data **out, struct arena *arena,
                                              const struct estimate_files *files, struct ph_err *err);
/* The same of texts, without what is shipped; either may be NULL. */
PH_MUST_USE enum ph_status estimate_data_parse(struct estimate_data **out, struct arena *arena,
                                               const char *shapes, size_t shapes_len, const char *hardware,
                                               size_t hardware_len, struct ph_err *err);
void estimate_data_list(const struct estimate_data *data, struct buf *out, bool json);
const char *estimate_shape_name(const struct estimate_data *data, size_t index); /* NULL: no more */
const char *estimate_hardware_name(const struct estimate_data *data, size_t index);
/* "desktop", "rtx-4090", "ryzen-9900x+rtx-5070-ti": a machine, cards, or both. */
PH_MUST_USE enum ph_status estimate_machine(const struct estimate_data *data, const char *names,
                                            struct machine *out, struct ph_err *err);

/* ---- A model, as far as its speed and size go ---- */
enum estimate_place { ESTIMATE_EMBED, ESTIMATE_OUTPUT, ESTIMATE_MATRIX, ESTIMATE_EXPERTS, ESTIMATE_VECTOR };

struct estimate_tensor {
    const char *type; /* "Q4_K"; lives as long as the program */
    enum estimate_place place;
    size_t layer; /* of a layer's */
    bool is_late; /* of a layer, behind its keys and values: in the last one only wanted rows get there */
    uint64_t params, bytes;
};

struct estimate_layer {
    size_t heads, heads_kv, window; /* window 0: none */
};

struct estimate_model {
    char name[MACHINE_TEXT_BYTES], type[MACHINE_TEXT_BYTES];
    struct runner_widths widths;
    struct estimate_layer *layers;
    size_t layer_count;
    struct estimate_tensor *tensors;
    size_t tensor_count;
    bool tied; /* the embedding is the output matrix */
    size_t context_train;
    uint64_t params, bytes, file_bytes; /* file_bytes 0: there is no file */
    uint64_t published_params;          /* of a shape; 0: not said */
};

PH_MUST_USE enum ph_status estimate_model_file(struct estimate_model *out, struct arena *arena,
                                               const char *path, struct ph_err *err);
/* `type`: a mixture (Q4_K_M, F16, ...) or FP8, INT8, INT4: every matrix of a layer in so many bits, embedding
 * and output in F16, as GPU engines have it. */
PH_MUST_USE enum ph_status estimate_model_shape(struct estimate_model *out, struct arena *arena,
                                                const struct estimate_data *data, const char *name,
                                                const char *type, struct ph_err *err);
const char *estimate_type_name(size_t index); /* what `type` may be; NULL: no more */

/* ---- Asking ---- */
enum estimate_on { ESTIMATE_ON_ANY, ESTIMATE_ON_CPU, ESTIMATE_ON_GPU, ESTIMATE_ON_NPU };
extern const char *const estimate_on_names[];

struct estimate_request {
    const struct estimate_model *model;
    const struct machine *machine;
    const struct efficiency *efficiency; /* NULL: none */
    enum estimate_on on;
    size_t prompt, generate;            /* tokens of a stream */
    size_t context;                     /* 0: prompt + generate */
    size_t streams;                     /* at the same time */
    size_t rows_max;                    /* tokens of a prefill step; 0: as our engine */
    size_t kv_type;                     /* enum tensor_type */
    unsigned threads;                   /* 0: all */
    size_t gpu_layers;                  /* SIZE_MAX: as many as fit */
    size_t lora_rank;                   /* 0: no adapter */
    const struct estimate_model *draft; /* NULL: no speculation */
    double acceptance;                  /* of a drafted token */
    size_t draft_len;                   /* 0: the best */
    bool perfect;                       /* every device reaches all of its limits: what physics allows */
};
void estimate_request_default(struct estimate_request *request);

/* ---- The answer ---- */
enum estimate_unit { UNIT_BYTES, UNIT_NS, UNIT_OPERATIONS };

/* A sum's value is exactly that of the lines one level deeper that follow it, notes left out. */
enum estimate_kind { LINE_PART, LINE_SUM, LINE_NOTE };
struct estimate_line {
    char name[72], how[216];
    uint64_t value;
    enum estimate_unit unit;
    enum estimate_kind kind;
    unsigned depth;
};

struct estimate_sheet {
    struct estimate_line *lines;
    size_t count, cap;
    bool full;
};

struct estimate_range {
    double low, mid, high;
};

/* Consecutive layers on one device; a token passes stages one after the other. */
struct estimate_stage {
    int device; /* of the machine; -1: its CPU */
    size_t first, end;
    bool embeds, outputs;
    uint64_t bytes, room; /* taken, and there */
};
#define ESTIMATE_STAGES_MAX (MACHINE_DEVICES_MAX + 1)
#define ESTIMATE_BATCHES_MAX 10

struct estimate_batch {
    size_t streams;
    struct estimate_range tokens_per_s; /* all together */
    uint64_t memory_bytes;
    bool fits, is_arithmetic; /* arithmetic, not memory, sets its pace */
};

struct estimate {
    struct estimate_sheet memory, load, prefill, decode, draft;
    struct estimate_stage stages[ESTIMATE_STAGES_MAX];
    size_t stage_count;
    uint64_t memory_bytes, decode_bytes;
    double operations; /* of a decoded token */
    bool fits;
    char why_not[256]; /* it does not fit */
    struct estimate_range load_s, prefill_s, prefill_tokens_per_s, decode_s, decode_tokens_per_s;
    double ceiling_tokens_per_s, ceiling_prefill_tokens_per_s; /* what physics allows */
    struct estimate_batch batches[ESTIMATE_BATCHES_MAX];
    size_t batch_count, knee; /* streams from which on arithmetic sets the pace; 0: not seen */
    double draft_tokens_per_step, draft_speedup;
    struct estimate_range draft_tokens_per_s;
    size_t draft_len;
    bool calibrated;    /* every part that matters rests on enough samples */
    double prior_share; /* of the time of a decoded token that rests on priors */
};

/* Lives in the arena. */
PH_MUST_USE enum ph_status estimate_make(struct estimate **out, struct arena *arena,
                                         const struct estimate_request *request, struct ph_err *err);
void estimate_print(const struct estimate_request *request, const struct estimate *e, bool explain,
                    struct buf *out);
void estimate_print_json(const struct estimate_request *request, const struct estimate *e, struct buf *out);

/* Teaches the calibration what a run on the machine's CPU took: `tokens` prefilled from an empty cache, or
 * decoded one by one. */
PH_MUST_USE enum ph_status estimate_learn(struct efficiency *calibration,
                                          const struct estimate_request *request, enum efficiency_phase phase,
                                          size_t tokens, double seconds, int64_t unix_s, struct ph_err *err);

/* ---- Judging what others claim ---- */
/* Reads claims (YAML, see deploy/claims.yaml) and judges each. */
PH_MUST_USE enum ph_status estimate_check(const struct estimate_data *data, struct arena *arena,
                                          const char *source, const char *text, size_t len, bool json,
                                          struct buf *out, struct ph_err *err);

#endif
