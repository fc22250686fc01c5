/* chat: the one vocabulary of a conversation, and the codecs of its dialects.
 *
 * `struct chat_request` and `struct chat_event` are the middle of the house: every API dialect decodes into
 * the first and encodes the second; every provider consumes the first and emits the second. Fields a dialect
 * does not know stay in `raw`, so that nothing is lost when a request is forwarded. All memory of a request
 * lives in its arena. Thread: a request belongs to the thread that runs its connection. */
#ifndef PHAROS_CHAT_CHAT_H
#define PHAROS_CHAT_CHAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/status.h"

enum chat_role { CHAT_SYSTEM, CHAT_DEVELOPER, CHAT_USER, CHAT_ASSISTANT, CHAT_TOOL };

struct chat_text {
    const char *text; /* terminated; NULL: absent */
    size_t len;
};

struct chat_tool_call {
    const char *id, *name;
    struct chat_text arguments; /* JSON text, as the model wrote it */
};

struct chat_message {
    enum chat_role role;
    struct chat_text content; /* text parts joined; NULL when the message has none */
    const char *name;         /* NULL: none */
    const char *tool_call_id; /* role TOOL */
    const struct chat_tool_call *tool_calls;
    size_t tool_call_count;
    const struct json *raw; /* the message as it came */
};

/* Sampling values carry "was it given": what the caller did not say is the model's or the engine's default.
 */
struct chat_sampling {
    bool has_temperature, has_top_p, has_seed, has_top_k, has_min_p, has_repeat_penalty;
    double temperature, top_p, min_p, repeat_penalty;
    double frequency_penalty, presence_penalty; /* 0: off */
    int64_t top_k;
    uint64_t seed;
    const struct chat_logit_bias {
        int32_t id;
        float bias;
    } * logit_bias;
    size_t logit_bias_count;
};

enum chat_kind {
    CHAT_KIND_CHAT,      /* messages, rendered by the model's template */
    CHAT_KIND_COMPLETION /* bare prompts: text, or token ids */
};

struct chat_prompt {
    struct chat_text text;
    const int32_t *ids; /* NULL: use the text */
    size_t id_count;
};

struct chat_request {
    struct arena *arena;
    enum chat_kind kind;
    const char *model; /* as asked for; NULL: the station's default */
    const struct chat_message *messages;
    size_t message_count;
    const struct chat_prompt *prompts; /* COMPLETION: choice p * n + k answers prompt p */
    size_t prompt_count;
    struct chat_text suffix;  /* COMPLETION, fill in the middle */
    bool echo;                /* COMPLETION: the prompt comes back before the completion */
    const struct json *tools; /* as given; NULL: none */
    const struct json *tool_choice, *response_format;
    struct chat_sampling sampling;
    size_t max_tokens; /* 0: not said */
    const struct chat_text *stops;
    size_t stop_count;
    size_t choices; /* n, >= 1: for each prompt */
    bool logprobs;
    size_t top_logprobs;
    bool stream, include_usage;
    bool ignore_end;                  /* ignore_eos: for measuring */
    bool no_generation_prompt;        /* render the messages alone; /apply-template asks for it */
    bool continue_final_message;      /* the last assistant message is a beginning to go on from */
    const struct json *template_vars; /* chat_template_kwargs */
    const char *user, *conversation;  /* NULL: not said */
    const struct json *metadata;
    const struct json *raw; /* the body as it came */
};

enum chat_finish {
    CHAT_FINISH_NONE,
    CHAT_FINISH_STOP,
    CHAT_FINISH_LENGTH,
    CHAT_FINISH_TOOL_CALLS,
    CHAT_FINISH_CONTENT_FILTER
};

enum chat_event_kind {
    CHAT_EVENT_ROLE,      /* a choice begins */
    CHAT_EVENT_TEXT,      /* text delta, with logprobs when asked for */
    CHAT_EVENT_TOOL_CALL, /* tool-call delta */
    CHAT_EVENT_PROGRESS,  /* alive, nothing to show yet: the edge may send a comment line */
    CHAT_EVENT_FINISH,    /* a choice ends, with its reason */
    CHAT_EVENT_USAGE,     /* once, after the last choice's FINISH */
    CHAT_EVENT_ERROR,     /* the end: status and message; nothing follows */
    CHAT_EVENT_DONE       /* the end: everything was said; nothing follows */
};

struct chat_token_logprob {
    int32_t id;
    struct chat_text token; /* its bytes; may be a part of a character */
    double logprob;
};

struct chat_event {
    enum chat_event_kind kind;
    size_t choice; /* 0 .. n - 1, or prompts * n - 1 */
    struct chat_text text;
    const struct chat_token_logprob *logprobs; /* one for each token of this delta; NULL: not asked for */
    size_t logprob_count;
    const struct chat_token_logprob *top; /* [logprob_count][top_count] */
    size_t top_count;
    struct {
        size_t index;
        const char *id, *name; /* first delta only */
        struct chat_text arguments;
    } tool_call;
    enum chat_finish finish;
    struct {
        uint64_t queue_ns, prefill_ns, decode_ns; /* FINISH; 0: the provider does not know */
        uint64_t tokens;                          /* generated for this choice */
    } timing;
    struct {
        uint64_t prompt_tokens, cached_tokens, completion_tokens;
    } usage;
    struct {
        enum ph_status status;
        int http_status;  /* what a reply that has not begun should carry */
        const char *type; /* OpenAI's words: invalid_request_error, ... */
        const char *code; /* context_length_exceeded, ...; NULL: none */
        const char *param;
        const char *message;
        uint32_t retry_after_s; /* 0: none */
    } error;
};

/* How many sequences answer this request: n for each prompt. */
size_t chat_choice_count(const struct chat_request *request);

/* An error in a dialect's terms; fields as in chat_event.error. Strings are static or in the request's arena.
 */
struct chat_fault {
    int http_status;
    const char *type, *code, *param;
    char message[PH_ERR_MESSAGE_MAX];
    uint32_t retry_after_s;
};

/* Fills the fault. The type follows from the status: 400 is invalid_request_error, 429 rate_limit_error, 5xx
 * server_error. */
void chat_fault_set(struct chat_fault *fault, int http_status, const char *code, const char *param,
                    const char *fmt, ...) PH_PRINTF(5, 6);
/* The ERROR event that says the same. It points into the fault. */
struct chat_event chat_fault_event(const struct chat_fault *fault, enum ph_status status);

/* ---- OpenAI dialect, both directions for the edge ---- */

/* Body -> request. Unknown fields and nulls are accepted; a wrong type or value is a fault that names the
 * parameter. The request's memory, and a copy of everything it points to, is in `arena`. */
PH_MUST_USE enum ph_status chat_openai_decode(struct arena *arena, enum chat_kind kind,
                                              const struct json *body, struct chat_request *out,
                                              struct chat_fault *fault);

/* Events -> body. One encoder a reply, for a stream (SSE lines) or for one object. */
struct chat_openai_encoder;
struct chat_openai_reply {
    const char *id; /* "chatcmpl-..." */
    const char *model;
    int64_t created_unix_s;
};
/* In the request's arena; NULL: out of memory. `request` and `reply` must outlive it. */
struct chat_openai_encoder *chat_openai_encoder_new(struct arena *arena, const struct chat_request *request,
                                                    const struct chat_openai_reply *reply);
/* Streaming: appends the SSE bytes of one event to out ("data: {...}\n\n", "data: [DONE]\n\n", ":
 * keep-alive\n\n"). Not streaming: collects until DONE, then appends the one JSON object. */
void chat_openai_encode(struct chat_openai_encoder *encoder, const struct chat_event *event, struct buf *out);
/* {"error":{...}} */
void chat_openai_encode_fault(const struct chat_fault *fault, struct buf *out);

/* Messages as the JSON array that chat templates expect: content as text, tool-call arguments as objects,
 * absent members left out instead of null, unknown members kept. `keep_developer`: the template knows that
 * role; otherwise it becomes system. NULL: out of memory. */
struct json *chat_template_messages(struct arena *arena, const struct chat_request *request,
                                    bool keep_developer);

#endif
