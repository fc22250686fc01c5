/* model: GGUF files, tokenizers, chat templates, the forward pass, sampling.
 *
 * An open model is immutable and may be shared by threads; what changes while running (KV cache, workspace,
 * samplers) belongs to the thread that created it. Every byte of a file is hostile: each length and offset is
 * checked before use, and a bad file ends in an error that names file and offset or key. */
#ifndef PHAROS_MODEL_MODEL_H
#define PHAROS_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/status.h"
#include "tensor/tensor.h"

/* ---- GGUF v2 and v3 (ggml docs/gguf.md), mapped, read-only ---- */
enum gguf_type {
    GGUF_UINT8,
    GGUF_INT8,
    GGUF_UINT16,
    GGUF_INT16,
    GGUF_UINT32,
    GGUF_INT32,
    GGUF_FLOAT32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_UINT64,
    GGUF_INT64,
    GGUF_FLOAT64
};

struct gguf;

struct gguf_string {
    const char *text; /* not terminated; points into the map */
    size_t len;
};

struct gguf_array {
    enum gguf_type type; /* of the elements; never GGUF_ARRAY */
    uint64_t count;
    const uint8_t *data; /* numbers: packed little-endian, unaligned; strings: walk with gguf_array_string */
    uint64_t data_bytes;
};

struct gguf_tensor {
    const char *name; /* terminated */
    enum tensor_type type;
    uint32_t n_dims;
    uint64_t dims[4]; /* dims[0] contiguous; unused ones are 1 */
    const void *data; /* in the map */
    size_t bytes;
};

PH_MUST_USE enum ph_status gguf_open(struct gguf **out, const char *path, struct ph_err *err);
PH_MUST_USE enum ph_status
gguf_open_memory(struct gguf **out, const void *bytes, size_t len, const char *name,
                 struct ph_err *err); /* bytes must outlive it; for fuzzing and tests */
void gguf_free(struct gguf *gguf);

/* Typed look-ups; integers convert between widths when the value fits. false: absent or of another type. */
bool gguf_has(const struct gguf *gguf, const char *key);
bool gguf_get_uint(const struct gguf *gguf, const char *key, uint64_t *out);
bool gguf_get_int(const struct gguf *gguf, const char *key, int64_t *out);
bool gguf_get_float(const struct gguf *gguf, const char *key, double *out);
bool gguf_get_bool(const struct gguf *gguf, const char *key, bool *out);
bool gguf_get_string(const struct gguf *gguf, const char *key, struct gguf_string *out);
bool gguf_get_array(const struct gguf *gguf, const char *key, struct gguf_array *out);
/* Element `*cursor` bytes into a string array's data; advances the cursor. false at the end. */
bool gguf_array_string(const struct gguf_array *array, uint64_t *cursor, struct gguf_string *out);
double gguf_array_number(const struct gguf_array *array,
                         uint64_t index); /* any numeric or bool element type */

size_t gguf_key_count(const struct gguf *gguf);
const char *gguf_key(const struct gguf *gguf, size_t index, enum gguf_type *type);
size_t gguf_tensor_count(const struct gguf *gguf);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *gguf, size_t index);
const struct gguf_tensor *gguf_tensor_find(const struct gguf *gguf, const char *name); /* NULL: absent */
const char *gguf_path(const struct gguf *gguf);
uint64_t gguf_file_bytes(const struct gguf *gguf);
/* From now on the tensor is these bytes, in another format but of the same shape; they must outlive gguf.
 * PH_ERR_ARG: no such tensor, or its rows are no whole number of the format's blocks. */
PH_MUST_USE enum ph_status gguf_tensor_replace(struct gguf *gguf, const char *name, enum tensor_type type,
                                               const void *data, struct ph_err *err);

/* Writing: header and tensor descriptions first, then each tensor's bytes in order of description. */
struct gguf_writer;
PH_MUST_USE enum ph_status gguf_writer_open(struct gguf_writer **out, const char *path, struct ph_err *err);
void gguf_writer_set_string(struct gguf_writer *w, const char *key, const char *text, size_t len);
void gguf_writer_set_uint(struct gguf_writer *w, const char *key, uint32_t value);
void gguf_writer_set_float(struct gguf_writer *w, const char *key, float value);
void gguf_writer_set_bool(struct gguf_writer *w, const char *key, bool value);
void gguf_writer_set_array(struct gguf_writer *w, const char *key,
                           const struct gguf_array *array); /* data packed as in a file */
void gguf_writer_copy_key(struct gguf_writer *w, const struct gguf *from, const char *key); /* any type */
void gguf_writer_describe(struct gguf_writer *w, const char *name, enum tensor_type type, uint32_t n_dims,
                          const uint64_t *dims);
void gguf_writer_data(struct gguf_writer *w, const void *bytes,
                      size_t len); /* any split; alignment is its business */
/* Flushes, fsyncs, renames over path. Any earlier failure is reported here, and nothing is left behind. Frees
 * w. */
PH_MUST_USE enum ph_status gguf_writer_close(struct gguf_writer *w, struct ph_err *err);
void gguf_writer_abandon(struct gguf_writer *w);

/* ---- Quantising a file ---- */
/* Which format each place of a model gets; llama.cpp's mixtures. */
struct mixture {
    const char *name;   /* "Q4_K_M" */
    uint32_t file_type; /* general.file_type */
    enum tensor_type main;
    enum tensor_type more; /* values (attn_v) and ffn_down where more bits pay: some layers, or all */
    enum tensor_type attn_output, embedding, output;
    bool more_everywhere;
    enum tensor_type first; /* instead of `more` in the first layers; 0: no such rule */
};

const struct mixture *mixture_at(size_t index); /* NULL: no more */
/* `part` is a tensor's name without "blk.N." and ".weight". */
enum tensor_type mixture_type(const struct mixture *mixture, const char *part, size_t layer, size_t layers);

/* The same for a tensor of a file: its own format where it is to stay (norms, routers), and where its rows
 * do not fit the blocks the next larger format that they fit. */
enum tensor_type mixture_tensor_type(const struct mixture *mixture, const struct gguf *gguf,
                                     const struct gguf_tensor *tensor);
/* Whether quantising touches the tensor at all. */
bool quantize_is_matrix(const struct gguf_tensor *tensor);
enum tensor_type quantize_fitting(enum tensor_type type, uint64_t cols);

/* Which inputs of a matrix matter: the mean square of each over a text. (llama.cpp's importance matrix) */
struct importance;

/* `gguf` must outlive it. */
PH_MUST_USE enum ph_status importance_create(struct importance **out, const struct gguf *gguf,
                                             struct ph_err *err);
/* Reads llama.cpp's files, GGUF and the older .dat. */
PH_MUST_USE enum ph_status importance_open(struct importance **out, const char *path, struct ph_err *err);
void importance_free(struct importance *importance);
/* Adds rows x [n][d] that `weights`, a tensor's data (its matrix `expert`), is multiplied with; see
 * struct product_watch. Other addresses are ignored. */
void importance_add(void *importance, const void *weights, size_t expert, const float *x, size_t n, size_t d);
/* What the text was, for those who read the file. */
void importance_describe(struct importance *importance, const char *dataset, size_t chunks, size_t chunk_len);
PH_MUST_USE enum ph_status importance_write(const struct importance *importance, const char *path,
                                            struct ph_err *err);
size_t importance_count(const struct importance *importance); /* tensors known of */
/* Weights for tensor_quantize_weighted: out [matrices][cols], the mean squares, all alike where an expert
 * saw nothing. false: nothing of use is known of the tensor. */
bool importance_weights(const struct importance *importance, const struct gguf_tensor *tensor, float *out);

/* A tensor in another format. */
struct tensor_conversion {
    const struct gguf *gguf; /* for messages */
    const struct gguf_tensor *tensor;
    enum tensor_type type;
    const float *weights; /* [matrices][cols], see importance_weights; NULL: none */
};
/* Rows [first, first + rows) of all its rows to out. PH_ERR_FORMAT: a number that is not finite. */
PH_MUST_USE enum ph_status tensor_convert(const struct tensor_conversion *conversion, struct pool *pool,
                                          size_t first, size_t rows, void *out, struct ph_err *err);

struct quantize_job {
    const char *in, *out;
    const struct mixture *mixture;
    /* instead of the mixture's formats, which then only name the file's type; NULL: the mixture's */
    enum tensor_type (*choose)(void *ud, const struct gguf_tensor *tensor);
    const struct importance *importance;                       /* NULL: none */
    bool again;                                                /* take a file that is quantised already */
    unsigned threads;                                          /* 0: one a CPU */
    bool (*progress)(void *ud, uint64_t done, uint64_t total); /* bytes of `in`; may be NULL; false: stop */
    void *ud;
};

struct quantize_result {
    size_t converted, kept, weighted;   /* tensors; weighted: of the converted */
    uint64_t bytes_read, bytes_written; /* of tensor data */
};

/* Writes `out` with every matrix in its mixture's format (a larger one where rows do not fit its blocks)
 * and everything else as it is. `out` appears only when it is whole and may be `in`. PH_ERR_ARG: quantised
 * already; PH_ERR_FORMAT: not a GGUF file, or a weight that is not finite; PH_ERR_CANCELLED: progress said
 * so. Blocks; allocates a few megabytes. */
PH_MUST_USE enum ph_status gguf_quantize(const struct quantize_job *job, struct quantize_result *result,
                                         struct ph_err *err);

/* ---- Vocabulary and tokenizer ---- */
struct vocab;

enum vocab_kind { VOCAB_SPM, VOCAB_BPE, VOCAB_WPM, VOCAB_UGM };

struct vocab_info {
    enum vocab_kind kind;
    size_t n_tokens;
    int32_t bos, eos, unk; /* -1: none */
    bool add_bos, add_eos;
};

/* `gguf` must outlive the vocabulary. PH_ERR_UNSUPPORTED names an unknown tokenizer model or pre-tokenizer.
 */
PH_MUST_USE enum ph_status vocab_create(struct vocab **out, const struct gguf *gguf, struct ph_err *err);
void vocab_free(struct vocab *vocab);
const struct vocab_info *vocab_info(const struct vocab *vocab);
bool vocab_is_end(const struct vocab *vocab,
                  int32_t id); /* eos, eot and every other end-of-generation token */
bool vocab_is_special(const struct vocab *vocab,
                      int32_t id); /* control or user-defined: hidden from readers */
/* The token whose text is exactly this, or -1. */
int32_t vocab_find(const struct vocab *vocab, const char *text, size_t len);
/* The token's text as the file has it (for templates: bos_token, eos_token). */
struct gguf_string vocab_token_text(const struct vocab *vocab, int32_t id);

struct token_list {
    int32_t *ids; /* mem_alloc'd; token_list_release */
    size_t len, cap;
};
void token_list_release(struct token_list *list);

/* Appends the tokens of text. add_special: BOS/EOS (or [CLS]/[SEP]) as the model says. parse_special: the
 * text of control tokens becomes those tokens. Any bytes are accepted. Thread: any; the vocabulary is
 * immutable. */
PH_MUST_USE enum ph_status vocab_tokenize(const struct vocab *vocab, const char *text, size_t len,
                                          bool add_special, bool parse_special, struct token_list *out,
                                          struct ph_err *err);

/* Appends the bytes of a whole sequence. special: control tokens show their text, else they are empty. Ids
 * out of range are PH_ERR_ARG. */
PH_MUST_USE enum ph_status vocab_detokenize(const struct vocab *vocab, const int32_t *ids, size_t count,
                                            bool special, struct buf *out);

/* The bytes one token adds to a text it does not begin, at most VOCAB_TOKEN_BYTES_MAX, which `out` must have
 * room for. Returns their count; 0 for ids out of range. */
size_t vocab_piece(const struct vocab *vocab, int32_t id, bool special, char *out);

/* Cuts text into words as the pre-tokenizer of that name ("gpt-2", "smollm", ...; PH_ERR_UNSUPPORTED: none)
 * does and tells them in order; joined they are the text, with U+FFFD for what is not UTF-8. `word` answers
 * false to stop: PH_ERR_CANCELLED. */
PH_MUST_USE enum ph_status pretokenize(const char *pre, const char *text, size_t len,
                                       bool (*word)(void *ud, const char *text, size_t len), void *ud,
                                       struct ph_err *err);

/* Streaming detokenisation: bytes come out only as whole UTF-8 characters; what can never become valid
 * becomes U+FFFD. The concatenation over a stream plus detok_flush equals the batch text with invalid bytes
 * replaced, but for the clean-up of spaces before punctuation that some vocabularies ask for: that would
 * rewrite what was sent, and spoil code. */
struct detok {
    const struct vocab *vocab;
    bool special; /* show control tokens */
    bool started; /* a first piece was seen (an SPM prefix space is dropped once) */
    uint8_t held_len;
    char held[4];
};
void detok_init(struct detok *detok, const struct vocab *vocab, bool special,
                bool continues); /* continues: text goes on
after other text, the first piece keeps its space */
/* Appends what token `id` makes readable, at most 3 * (VOCAB_TOKEN_BYTES_MAX + 1) bytes (each may need a
 * U+FFFD). Allocates nothing where there is room. */
void detok_push(struct detok *detok, int32_t id, struct buf *out);
void detok_flush(struct detok *detok, struct buf *out);

/* ---- Chat templates: the Jinja subset that model files use ---- */
struct chat_template;

PH_MUST_USE enum ph_status chat_template_create(struct chat_template **out, const char *source, size_t len,
                                                struct ph_err *err); /* errors carry line and column */
void chat_template_free(struct chat_template *chat_template);
/* Renders with the members of `vars` (an object: messages, tools, add_generation_prompt, bos_token, ...) as
 * global names; strftime_now reads `clock` (UTC). A raise_exception() in the template is PH_ERR_ARG with its
 * message. Limits: TEMPLATE_*. Thread: any; the compiled template is immutable. */
PH_MUST_USE enum ph_status chat_template_render(const struct chat_template *chat_template,
                                                const struct json *vars, const struct clock_source *clock,
                                                struct buf *out, struct ph_err *err);

/* ---- Models ---- */
struct model;

struct model_info {
    const char *architecture, *name; /* name: general.name or file stem */
    const char *chat_template;       /* NULL: none in the file */
    const char *pooling;             /* of an encoder: "mean", "cls", "last"; else NULL */
    size_t chat_template_len;
    size_t n_vocab, n_layer, n_embd, n_head, n_head_kv, n_context_train;
    uint64_t n_params;
    uint64_t weight_bytes; /* all tensors */
    uint64_t
        decode_bytes; /* read for one decoded token without KV: all but unused embedding rows and experts */
    uint64_t kv_bytes_per_token_f16;
    uint64_t flops_per_token; /* 2 x active matrix parameters */
};

/* Maps the file and checks that every tensor the architecture needs is there with the shape it must have. A
 * vocabulary-only file opens with `vocab_only`. */
PH_MUST_USE enum ph_status model_open(struct model **out, const char *path, bool vocab_only,
                                      struct ph_err *err);
/* The same of an open file, which is the model's from now on (also after a failure). */
PH_MUST_USE enum ph_status model_open_gguf(struct model **out, struct gguf *gguf, bool vocab_only,
                                           struct ph_err *err);
void model_free(struct model *model);
/* It makes vectors of texts (struct encoder) and writes none (struct runner). */
bool model_is_encoder(const struct model *model);
/* The same of a file, of which only the description is read; false also when it cannot be read. */
bool model_file_is_encoder(const char *path);
const struct model_info *model_info(const struct model *model);
const struct vocab *model_vocab(const struct model *model);
const struct gguf *model_gguf(const struct model *model);

/* Low-rank adapter (Hu et al. 2021), GGUF as llama.cpp writes it. Immutable, shareable. */
struct lora;
PH_MUST_USE enum ph_status lora_open(struct lora **out, const struct model *model, const char *path,
                                     struct ph_err *err);
void lora_free(struct lora *lora);

/* ---- Forward pass ---- */
/* A runner owns the workspace, the KV pages and the worker pool for one model. Everything is allocated in
 * runner_create; runner_step allocates nothing. Thread: its creator's only. */
struct runner;
struct kv_seq; /* one sequence's pages */

/* Sees what matrices are multiplied with: rows x [n][d] and a tensor's data (its matrix `expert`), on the
 * caller's thread, before the product. Only to be read. */
struct product_watch {
    void (*see)(void *ud, const void *weights, size_t expert, const float *x, size_t n, size_t d);
    void *ud;
};

struct runner_params {
    unsigned threads;         /* 0: one a CPU */
    const char *kernels;      /* NULL: best; see kernels_select */
    enum tensor_type kv_type; /* F32, F16 or Q8_0 */
    size_t context_len;       /* longest sequence, tokens; 0: what the model was trained with */
    size_t kv_bytes_max; /* page budget; 0: enough for one full context. Pages are touched only when used */
    size_t rows_max;     /* most tokens in one step (prefill chunk) */
    size_t outputs_max;  /* most rows with logits in one step */
    size_t sequences_max;
    const struct lora *const *loras; /* applied to every row, with their scales */
    const float *lora_scales;
    size_t lora_count;
    struct product_watch watch; /* see NULL: nobody looks */
};

PH_MUST_USE enum ph_status runner_create(struct runner **out, const struct model *model,
                                         const struct runner_params *params, struct ph_err *err);
void runner_free(struct runner *runner);

/* What a runner's memory follows from: the widest row that any layer makes of each kind, and a few counts.
 * Known of a model without its file too. */
struct runner_widths {
    size_t n_embd, n_vocab, head_dim_k, head_dim_v, rope_dims;
    size_t kv_heads;                             /* of all layers together */
    size_t qkv, attn, gate, up;                  /* gate and up: of dense layers and shared experts */
    size_t group;                                /* query heads that share a KV head */
    bool windowed;                               /* some layers attend within a window */
    size_t n_expert, n_expert_used, n_ff_expert; /* n_expert 0: no layer has experts */
    size_t lora_count, lora_rank;                /* adapters, and their largest rank */
};
void model_widths(const struct model *model, struct runner_widths *out); /* without adapters */
/* Of a layer < n_layer: heads, KV heads, and how far it looks back (0: to the beginning). */
void model_attention(const struct model *model, size_t layer, size_t *heads, size_t *heads_kv,
                     size_t *window);

struct runner_memory {
    size_t workspace; /* touched as far as steps have rows */
    size_t kv_page, kv_page_len, kv_pages;
    size_t lanes; /* scratch of all threads */
};
/* The same computation that runner_create makes room by; rows_max, outputs_max, sequences_max, threads and
 * context_len must be said, loras are the widths'. */
void runner_memory(const struct runner_widths *widths, const struct runner_params *params,
                   struct runner_memory *out);

struct pool *runner_pool(struct runner *runner);
size_t runner_context_len(const struct runner *runner);

/* Sequences. A new one has no pages. kv_seq_reserve makes room for `len` positions in all: PH_ERR_NOMEM when
 * the page budget is used up (what was taken stays), PH_ERR_LIMIT beyond the context. kv_seq_truncate gives
 * pages back. */
struct kv_seq *kv_seq_take(struct runner *runner); /* NULL: sequences_max in use */
void kv_seq_give(struct runner *runner, struct kv_seq *seq);
PH_MUST_USE enum ph_status kv_seq_reserve(struct runner *runner, struct kv_seq *seq, size_t len);
void kv_seq_truncate(struct runner *runner, struct kv_seq *seq, size_t len);
size_t kv_seq_len(const struct kv_seq *seq);            /* positions filled by steps so far */
size_t runner_kv_page_len(const struct runner *runner); /* positions a page */
size_t runner_kv_pages_free(const struct runner *runner);
size_t runner_kv_pages_total(const struct runner *runner);

struct runner_row {
    struct kv_seq *seq;
    int32_t token;
    float *logits; /* [n_vocab], or NULL: not wanted. Owned by the caller */
};

/* Runs rows through the model. Rows of one sequence are consecutive and in order; each is appended at the
 * sequence's end (room must have been reserved). A row's logits do not depend on the other sequences in the
 * step (T1). Token ids are checked: PH_ERR_ARG. */
PH_MUST_USE enum ph_status runner_step(struct runner *runner, const struct runner_row *rows, size_t count,
                                       enum phase phase, struct ph_err *err);

/* ---- Encoders: texts to vectors ---- */
/* An encoder owns the workspace and the worker pool for one model that is one. Everything is allocated in
 * encoder_create. Thread: its creator's only. */
struct encoder;

struct encoder_params {
    unsigned threads;    /* 0: one a CPU */
    const char *kernels; /* NULL: best; see kernels_select */
    size_t context_len;  /* longest text, tokens; 0: what the model was trained with. Never more than that
                          * where positions have learned embeddings */
    size_t rows_max;     /* most tokens in one run; 0: default. At least context_len */
};

struct encoder_text {
    const int32_t *tokens; /* [len], those at both ends included */
    size_t len;            /* 1 .. encoder_context_len */
    float *out;            /* [n_embd] */
};

PH_MUST_USE enum ph_status encoder_create(struct encoder **out, const struct model *model,
                                          const struct encoder_params *params, struct ph_err *err);
void encoder_free(struct encoder *encoder);
size_t encoder_context_len(const struct encoder *encoder);
size_t encoder_rows_max(const struct encoder *encoder);
/* Makes a vector of each text, as the model pools its tokens; not normalised. A text's vector does not depend
 * on the others in the run (T1). PH_ERR_ARG: a token id that is none, an empty text; PH_ERR_LIMIT: a text
 * beyond the context, or more tokens than rows_max. */
PH_MUST_USE enum ph_status encoder_run(struct encoder *encoder, const struct encoder_text *texts,
                                       size_t count, struct ph_err *err);
/* x / |x|, in place; a vector of zeros stays. */
void encoder_normalise(float *x, size_t len);

/* ---- A text in windows, as perplexity reads it ---- Each window is read from an empty cache behind a BOS,
 * so that all of its tokens are predicted, from BOS and what precedes them in the window. */
struct windows;

struct window_rows {
    const float *logits;    /* [rows][n_vocab] */
    const int32_t *targets; /* [rows] the tokens that came */
    size_t rows, n_vocab;
    size_t first; /* tokens of the text before these */
};

/* `len`: tokens a window, BOS included, at least 2. rows_max and outputs_max of the runner bound a step;
 * logits of a step take at most 64 MiB. PH_ERR_UNSUPPORTED: the vocabulary has no token to begin with. */
PH_MUST_USE enum ph_status windows_create(struct windows **out, const struct model *model,
                                          struct runner *runner, struct kv_seq *seq, size_t len,
                                          size_t rows_max, struct ph_err *err);
void windows_free(struct windows *windows);
/* Reads tokens [len - 1] behind `head` (-1: BOS); shows the logits of each step. Token `first` of the text is
 * tokens[0]. */
PH_MUST_USE enum ph_status windows_read(struct windows *windows, int32_t head, const int32_t *tokens,
                                        size_t first, void (*see)(void *ud, const struct window_rows *rows),
                                        void *ud, struct ph_err *err);

/* An importance matrix of the tokens of a text, read in windows; what does not fill one is left out. */
struct importance_job {
    const struct model *model; /* outlives what comes out */
    const char *dataset;       /* the text's name */
    const int32_t *tokens;
    size_t count, window;
    unsigned threads;                                          /* 0: one a CPU */
    const char *kernels;                                       /* NULL: best */
    bool (*progress)(void *ud, uint64_t done, uint64_t total); /* tokens; may be NULL; false: stop */
    void *ud;
};
PH_MUST_USE enum ph_status importance_collect(struct importance **out, const struct importance_job *job,
                                              struct ph_err *err);

/* ---- Sampling ---- */
struct logit_bias {
    int32_t id;
    float bias; /* -inf forbids */
};

struct sampler_params {
    float temperature;       /* 0: the best token, lowest id on ties */
    int32_t top_k;           /* 0: off */
    float top_p;             /* 1: off */
    float min_p;             /* 0: off */
    float typical_p;         /* 1: off */
    float top_n_sigma;       /* <= 0: off */
    int32_t penalty_last_n;  /* tokens looked back on; 0: none, -1: all */
    float repeat_penalty;    /* 1: off */
    float frequency_penalty; /* 0: off */
    float presence_penalty;  /* 0: off */
    uint64_t seed;
    const struct logit_bias *bias; /* copied */
    size_t bias_count;
};

struct sampler;
struct candidate {
    int32_t id;
    float logit;
    float p; /* after the chain */
};

void sampler_params_default(struct sampler_params *params); /* temperature 1, all else off */
PH_MUST_USE enum ph_status sampler_create(struct sampler **out, const struct sampler_params *params,
                                          size_t n_vocab, struct ph_err *err);
void sampler_free(struct sampler *sampler);
void sampler_accept(struct sampler *sampler, int32_t id); /* prompt and generated tokens, oldest first */
/* Chooses a token from logits [n_vocab] (left unchanged). Chain: bias, penalties, top_n_sigma, top_k,
 * typical_p, top_p, min_p, temperature, draw. NaN counts as forbidden; -1 when every token is forbidden.
 * Allocates nothing. */
int32_t sampler_sample(struct sampler *sampler, const float *logits);
/* The candidates the last sampler_sample left, for tests: sorted by id. */
const struct candidate *sampler_candidates(const struct sampler *sampler, size_t *count);

/* Natural-log probabilities of the raw logits: that of `id`, and the `top_count` best into top (best first,
 * ties by lower id; `p` is the log probability; id -1 past the vocabulary's end). Allocates nothing. */
float logits_logprob(const float *logits, size_t n_vocab, int32_t id, struct candidate *top,
                     size_t top_count);

#endif
