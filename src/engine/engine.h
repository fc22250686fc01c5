/* engine: runs language models for many callers at once. The boundary of everything that computes tokens.
 *
 * Each open engine holds one model and one scheduler thread, which alone touches its KV cache and sequences.
 * New sequences join between decode steps; prompts are prefilled in chunks between steps, so that running
 * streams keep flowing. Tokens wait in a bounded ring for each sequence; a sequence whose reader is slow is
 * left out of steps until it reads, and holds up nobody else.
 *
 * Invariants (assertions cite the number):
 *  E1  A sequence's text depends on its own request only, never on what runs beside it.
 *  E2  A decode step allocates nothing.
 *  E3  After engine_cancel, or engine_seq_free, its pages are free again within one step.
 *  E4  A sequence that cannot get pages waits or is preempted and recomputed; it is never dropped silently.
 *
 * Thread: every function may be called from any thread, except that one sequence has one reader thread at a
 * time. */
#ifndef PHAROS_ENGINE_ENGINE_H
#define PHAROS_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/status.h"
#include "model/model.h"

struct engine;
struct engine_seq;

struct engine_params {
    const char *model_path;
    unsigned threads;         /* 0: one a CPU */
    const char *kernels;      /* NULL: best */
    enum tensor_type kv_type; /* F16 unless told otherwise */
    size_t context_len;       /* 0: what the model was trained with, at most ENGINE_CONTEXT_DEFAULT_MAX */
    size_t kv_bytes_max;      /* 0: room for a few full contexts, within a share of the machine's memory */
    size_t sequences_max;     /* decoding together; 0: default */
    size_t queue_max;         /* taken in beyond sequences_max, to wait; 0: default */
    size_t prefill_chunk;     /* tokens between two decode steps; 0: default */
    const char *const *lora_paths; /* applied to every sequence */
    const float *lora_scales;
    size_t lora_count;
    const struct clock_source *clock; /* NULL: the system's */
};

void engine_params_default(struct engine_params *params);

/* Maps the model, makes every buffer, starts the scheduler. */
PH_MUST_USE enum ph_status engine_open(struct engine **out, const struct engine_params *params,
                                       struct ph_err *err);
/* Ends every sequence as cancelled, joins the scheduler. Sequences still held by callers stay valid until
 * they free them, but only for reading what is left. Must not be called from a wake callback. */
void engine_free(struct engine *engine);

const struct model *
engine_model(const struct engine *engine); /* immutable: tokenise and template on your own thread */
size_t engine_context_len(const struct engine *engine);
size_t engine_capacity(const struct engine *engine); /* sequences it takes in at once, to run or wait */

/* ---- One sequence ---- */
struct engine_text {
    const char *text;
    size_t len;
};

struct engine_request {
    const int32_t *prompt; /* copied */
    size_t prompt_len;     /* 1 .. context_len - 1 */
    size_t max_tokens;     /* 0: until the context is full */
    struct sampler_params sampling;
    const struct engine_text *stops; /* copied; the text ends before the first one that appears */
    size_t stop_count;
    bool ignore_end;   /* go on past end-of-generation tokens */
    bool show_special; /* control tokens appear in the text */
    bool continues;    /* the text goes on after other text: the first piece keeps its leading space */
    bool want_logprobs;
    size_t top_logprobs; /* 0 .. ENGINE_LOGPROBS_MAX */
    bool prompt_logits;  /* keep the logits of the last prompt position for engine_seq_logits */
    /* Called on the scheduler thread when the sequence has something to read after engine_read last said
     * there was nothing (edge-triggered). Must be quick and call nothing of the engine. Not called any more
     * once engine_seq_free has returned. May be NULL (engine_wait serves blocking callers). */
    void (*wake)(void *ud);
    void *ud;
};

/* PH_ERR_LIMIT: the prompt does not fit (the message names both sizes); PH_ERR_BUSY: engine_capacity is used
 * up; PH_ERR_ARG: a value or token id out of range. */
PH_MUST_USE enum ph_status engine_submit(struct engine *engine, const struct engine_request *request,
                                         struct engine_seq **out, struct ph_err *err);

enum engine_finish { ENGINE_FINISH_STOP, ENGINE_FINISH_LENGTH, ENGINE_FINISH_CANCELLED, ENGINE_FINISH_ERROR };

enum engine_event_kind {
    ENGINE_PREFILL, /* progress: prefilled tokens so far; several are merged into one */
    ENGINE_TOKEN, /* one generated token; its text may be empty while a character or stop string is pending */
    ENGINE_FINISH /* the last event: finish, the text still held back, counts and times */
};

struct engine_logprob {
    int32_t id;
    float logprob; /* natural */
};

struct engine_event {
    enum engine_event_kind kind;
    int32_t token;
    const char *text; /* whole UTF-8 characters; valid until the sequence's next engine_read */
    size_t text_len;
    float logprob;
    size_t top_count;
    struct engine_logprob top[ENGINE_LOGPROBS_MAX];
    enum engine_finish finish;
    bool stop_matched;     /* FINISH_STOP came from a stop string, not from an end token */
    enum ph_status status; /* FINISH_ERROR: why */
    size_t prefilled, prompt_tokens, cached_tokens, generated_tokens;
    uint64_t queue_ns, prefill_ns, decode_ns; /* in FINISH */
};

/* The next event, if there is one. After ENGINE_FINISH always false. */
bool engine_read(struct engine_seq *seq, struct engine_event *event);
/* Blocks until an event is there, the sequence is over or the time is up; then as engine_read. */
bool engine_wait(struct engine_seq *seq, struct engine_event *event, uint64_t timeout_ns);
void engine_cancel(struct engine_seq *seq);   /* a flag; the FINISH event follows */
void engine_seq_free(struct engine_seq *seq); /* cancels when still running; waits for no step */
/* With prompt_logits: [n_vocab] after the first TOKEN or FINISH event was read; else NULL. */
const float *engine_seq_logits(const struct engine_seq *seq);

/* ---- What it is doing (for metrics, routing and readiness) ---- */
struct engine_stats {
    size_t running, waiting, sequences_max;
    size_t kv_pages_used, kv_pages_total, kv_page_len; /* a page in tokens */
    uint64_t prompt_tokens, generated_tokens, preemptions, steps;
    uint64_t finished_stop, finished_length, finished_cancelled, finished_error;
    uint64_t busy_ns; /* time spent in steps */
};

void engine_stats_read(struct engine *engine, struct engine_stats *out);
/* Tokens of this prompt that the engine has kept from an earlier one and would not compute again now. */
size_t engine_cached_tokens(struct engine *engine, const int32_t *prompt, size_t prompt_len);

#endif
