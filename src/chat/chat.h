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

/* Whose JSON: the clients' at the edge, and the providers'. */
enum chat_dialect { CHAT_OPENAI, CHAT_ANTHROPIC, CHAT_RESPONSES, CHAT_GEMINI };

enum chat_role { CHAT_SYSTEM, CHAT_DEVELOPER, CHAT_USER, CHAT_ASSISTANT, CHAT_TOOL };

struct chat_text {
    const char *text; /* terminated; NULL: absent */
    size_t len;
};

struct chat_tool_call {
    const char *id, *name;
    struct chat_text arguments; /* JSON text, as the model wrote it */
    bool custom;                /* of a tool that takes free text: `arguments` are no JSON */
};

enum chat_part_kind {
    CHAT_PART_TEXT,
    CHAT_PART_IMAGE,
    CHAT_PART_AUDIO,
    CHAT_PART_FILE,
    CHAT_PART_REASONING, /* what a model thought, given back to it */
    CHAT_PART_OTHER      /* known to one dialect only: in `raw` */
};

/* A piece of a message. Media have `data` (base64, as it came) with `media_type`, or a `url`. */
struct chat_part {
    enum chat_part_kind kind;
    struct chat_text text; /* TEXT, REASONING */
    const char *media_type, *url, *detail, *filename;
    struct chat_text data;
    const char *signature;            /* REASONING: the provider's seal on it; NULL: none */
    const struct json *cache_control; /* a prompt-cache mark as Anthropic has it; NULL: none */
    const struct json *raw;           /* the part as it came */
};

struct chat_message {
    enum chat_role role;
    struct chat_text content;      /* text parts joined by line ends; NULL when the message has none */
    const struct chat_part *parts; /* count 0: the content is plain text, or absent */
    size_t part_count;
    bool tool_failed;         /* role TOOL: the result is an error */
    const char *name;         /* NULL: none */
    const char *tool_call_id; /* role TOOL */
    const struct chat_tool_call *tool_calls;
    size_t tool_call_count;
    const struct json *raw; /* as it came; NULL: made or changed here, or one message became several */
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

/* Members of the struct win over `raw`: who forwards a request writes these and keeps from `raw` what the
 * struct does not know. A shallow copy with other members is another request. */
struct chat_request {
    struct arena *arena;
    enum chat_kind kind;
    enum chat_dialect dialect; /* of `raw` */
    const char *model;         /* as asked for; NULL: the station's default */
    const struct chat_message *messages;
    size_t message_count;
    const struct chat_prompt *prompts; /* COMPLETION: choice p * n + k answers prompt p */
    size_t prompt_count;
    struct chat_text suffix;  /* COMPLETION, fill in the middle */
    bool echo;                /* COMPLETION: the prompt comes back before the completion */
    const struct json *tools; /* in OpenAI's shape, whatever the dialect; NULL: none */
    const struct json *tool_choice, *response_format; /* in OpenAI's shape */
    bool single_tool_call;                            /* parallel_tool_calls: false */
    const char *reasoning_effort;                     /* OpenAI's words; NULL: not said */
    int64_t reasoning_tokens;                         /* budget; -1: not said, 0: none wanted */
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
    /* RESPONSES: what a station that remembers is asked for. */
    const char *previous_response; /* previous_response_id; NULL: none */
    bool must_exist;               /* `conversation` names one that is there already */
    bool unkept;                   /* store: false */
    bool is_kept;                  /* by the gateway: the reply says that it is stored */
    bool refers;                   /* items of the input are named only, and not among the messages */
    size_t instruction_count;      /* so many messages at the beginning are this request's alone */
    /* Headers of Anthropic clients (anthropic-version, anthropic-beta), set by who has them: `raw` is to be
     * read by these rules, so they go with it to a provider of that dialect. NULL: none. */
    const char *api_version, *api_betas;
    const char *request_id; /* passed on as x-request-id, and in errors of dialects that say it; NULL: none */
    const struct json *metadata;
    const struct json *raw; /* the body as it came */
    bool messages_changed;  /* `messages` are not those of `raw` any more */
    /* OPENAI: the members as decoded from `raw`, before anybody wrote over them, but for messages and
     * prompts. NULL: it is not known any more what `raw` says. */
    const struct chat_request *as_came;
};

enum chat_finish {
    CHAT_FINISH_NONE,
    CHAT_FINISH_STOP,
    CHAT_FINISH_LENGTH,
    CHAT_FINISH_TOOL_CALLS,
    CHAT_FINISH_CONTENT_FILTER
};

/* Why something failed, as far as it decides what to try next. */
enum chat_cause {
    CHAT_CAUSE_OURS,       /* a fault of the station or of this model: another one may do */
    CHAT_CAUSE_REQUEST,    /* the request itself is wrong: nobody can do it */
    CHAT_CAUSE_KEY,        /* 401, 402, 403: this key is out */
    CHAT_CAUSE_RATE,       /* 429: too much for this key now */
    CHAT_CAUSE_OVERLOADED, /* 503, 529: too much for the provider now */
    CHAT_CAUSE_SERVER,     /* 5xx, a reply that is none, an error in mid-stream */
    CHAT_CAUSE_NETWORK,    /* no connection: refused, no such name, TLS */
    CHAT_CAUSE_TIMEOUT,
    CHAT_CAUSE_CUT,      /* the reply ended before its end was said */
    CHAT_CAUSE_CONTEXT,  /* too long for this model */
    CHAT_CAUSE_REFUSED,  /* the provider's filter does not want this content */
    CHAT_CAUSE_NO_MODEL, /* the provider does not know the model, or the address is wrong */
    CHAT_CAUSE_UNABLE,   /* the model cannot do what is asked for (images, tools): another one may */
    CHAT_CAUSE_BUDGET,   /* no money left for it */
    CHAT_CAUSE_COUNT
};
/* "network", "context", ...: names for records and metrics. */
const char *chat_cause_name(enum chat_cause cause);

enum chat_event_kind {
    CHAT_EVENT_ROLE,      /* a choice begins */
    CHAT_EVENT_TEXT,      /* text delta, with logprobs when asked for */
    CHAT_EVENT_REASONING, /* text delta of what the model thinks; `signature` comes with the last one */
    CHAT_EVENT_TOOL_CALL, /* tool-call delta */
    CHAT_EVENT_PROGRESS,  /* alive, nothing to show yet: the edge may send a comment line */
    CHAT_EVENT_FINISH,    /* a choice ends, with its reason */
    CHAT_EVENT_USAGE,     /* the sums so far; the last one, after the last choice's FINISH, is final */
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
    /* Generated tokens that this event stands for (TEXT, REASONING, TOOL_CALL, FINISH), so that a sum over
     * them is what was generated so far. From a codec: 0 unless it knows. From a provider: filled, by count
     * where the model is here, else by what replies taught about this provider. */
    size_t tokens;
    struct chat_text text;
    const struct chat_token_logprob *logprobs; /* one for each token of this delta; NULL: not asked for */
    size_t logprob_count;
    const struct chat_token_logprob *top; /* [logprob_count][top_count]; a text NULL: a row ends before */
    size_t top_count;
    struct {
        size_t index;
        const char *id, *name; /* first delta only */
        struct chat_text arguments;
        bool custom; /* as in chat_tool_call */
    } tool_call;
    enum chat_finish finish;
    const char *stop_text; /* FINISH: the stop string that was found, where the provider tells; NULL */
    const char *signature; /* REASONING */
    bool redacted;         /* REASONING: the thought is sealed in the signature, there is no text */
    struct {
        uint64_t queue_ns, prefill_ns, decode_ns; /* FINISH; 0: the provider does not know */
        uint64_t tokens;                          /* generated for this choice */
    } timing;
    struct {
        uint64_t prompt_tokens;      /* all of them, the cached and the newly cached ones too */
        uint64_t cached_tokens;      /* read from a prompt cache */
        uint64_t cache_write_tokens; /* written to one, where that has a price of its own */
        uint64_t completion_tokens;  /* all of them, reasoning too */
        uint64_t reasoning_tokens;
        bool estimated; /* by the provider module, because the provider did not say */
    } usage;
    struct {
        enum ph_status status;
        int http_status;  /* what a reply that has not begun should carry */
        const char *type; /* OpenAI's words: invalid_request_error, ... */
        const char *code; /* context_length_exceeded, ...; NULL: none */
        const char *param;
        const char *message;
        uint32_t retry_after_s; /* 0: none */
        enum chat_cause cause;
    } error;
};

#define CHAT_ITEM_ID_MAX 96

/* How many sequences answer this request: n for each prompt. */
size_t chat_choice_count(const struct chat_request *request);

/* An error in a dialect's terms; fields as in chat_event.error. Strings are static or in the request's arena.
 */
struct chat_fault {
    int http_status;
    const char *type, *code, *param;
    char message[PH_ERR_MESSAGE_MAX];
    uint32_t retry_after_s;
    enum chat_cause cause;
};

/* Fills the fault. The type follows from the status: 400 is invalid_request_error, 429 rate_limit_error, 5xx
 * server_error; so does the cause: 4xx REQUEST, 429 RATE, 5xx OURS. */
void chat_fault_set(struct chat_fault *fault, int http_status, const char *code, const char *param,
                    const char *fmt, ...) PH_PRINTF(5, 6);
/* What a provider wrote may repeat a key: words that look like one become "[key]", in place. */
void chat_scrub(char *message);
/* The same for one secret; one that is so short that ordinary words may have it is left. */
void chat_scrub_secret(char *text, const char *secret);
/* The ERROR event that says the same. It points into the fault. */
struct chat_event chat_fault_event(const struct chat_fault *fault, enum ph_status status);

/* ---- The edge: how the clients of a dialect are served ---- */

struct chat_reply {
    const char *id;    /* "chatcmpl-...", "msg_...", "resp_..." */
    const char *model; /* as the client shall read it */
    int64_t created_unix_s;
};

struct chat_encoder; /* one a reply, in the request's arena */

/* An edge is a table of functions, in one file a dialect. */
struct chat_edge {
    const char *name;      /* "openai", "anthropic", "responses" */
    const char *id_prefix; /* of chats' reply ids, with the separator the dialect uses: "chatcmpl-" */

    /* Body -> request. Unknown fields and nulls are accepted; a wrong type or value is a fault that names the
     * parameter. Texts point into the body's document where they are used as they came, so `arena` must be
     * the document's. */
    enum ph_status (*decode)(struct arena *arena, enum chat_kind kind, const struct json *body,
                             struct chat_request *out, struct chat_fault *fault);
    /* NULL: out of memory. `request` and `reply` must outlive it. The prompt's tokens as estimated, for
     * dialects that say them at the beginning. */
    struct chat_encoder *(*encoder_new)(struct arena *arena, const struct chat_request *request,
                                        const struct chat_reply *reply, uint64_t prompt_tokens);
    /* Streaming: appends the SSE bytes of one event to out. PROGRESS becomes something that clients skip.
     * Not streaming: collects until DONE, then appends the one JSON object. ERROR is the dialect's error
     * chunk; nothing follows it. Events with choice > 0 that a dialect cannot say are refused by decode. */
    void (*encode)(struct chat_encoder *encoder, const struct chat_event *event, struct buf *out);
    /* The body of a reply that failed before it began. */
    void (*encode_fault)(const struct chat_fault *fault, const char *request_id, struct buf *out);
    /* The HTTP status its clients expect where it is not the usual one (Anthropic: 503 is 529). */
    int (*fault_status)(const struct chat_fault *fault);
};
extern const struct chat_edge chat_edge_openai, chat_edge_anthropic, chat_edge_responses;

/* ---- Items: messages as OpenAI's Responses and Conversations have them (responses_items.c) ---- */

/* An array of items as messages: what an assistant did in one turn is one message. `list` is what the items
 * are called in faults; five letters, as "input" has. */
PH_MUST_USE enum ph_status chat_items_decode(struct arena *arena, const struct json *items, const char *list,
                                             const struct chat_message **out, size_t *count,
                                             struct chat_fault *fault);
/* Appends a message's items, commas between them; answers how many. `id` is the message's, "msg_..."; an
 * assistant's items have it with a number behind it, as its reply had: "msg_..._0", "fc_..._1". */
size_t chat_items_write(const struct chat_message *message, const char *id, bool is_cut, struct buf *out);
/* The parts of its content as a JSON array, read back by chat_items_decode as an item's `content`. */
void chat_parts_write(const struct chat_message *message, struct buf *out);
/* The id of the item that this one names instead of being one; NULL: it is one. */
const char *chat_item_refers(const struct json *item);
/* The message's id from an item's: "fc_abc_1" -> "msg_abc", index 1. false: not an id of ours. */
bool chat_item_id_read(const char *item, char message[CHAT_ITEM_ID_MAX], size_t *index);
/* RESPONSES: the response object as it will be said at the end; after the last FINISH and USAGE. */
void chat_responses_write(struct chat_encoder *encoder, struct buf *out);

/* POST /v1/messages/count_tokens: the edge's decode, but max_tokens may be missing; and the reply. */
PH_MUST_USE enum ph_status chat_anthropic_count_decode(struct arena *arena, const struct json *body,
                                                       struct chat_request *out, struct chat_fault *fault);
void chat_anthropic_count_encode(uint64_t tokens, struct buf *out);

/* ---- The other side: how a provider of a dialect is asked, and how its replies are read ---- */

struct chat_header {
    const char *name, *value; /* lower case name */
};
#define CHAT_POST_HEADERS_MAX 16

/* What a provider adds to a request. */
struct chat_target {
    const char *base_url;    /* "https://api.openai.com/v1": without a slash at its end */
    const char *model;       /* the model's name there */
    const char *key;         /* NULL: none */
    bool max_completion;     /* OpenAI: the limit is called max_completion_tokens there */
    bool no_stream_usage;    /* OpenAI: an engine that does not know stream_options */
    const char *api_version; /* Anthropic; NULL: the client's, else the one the codec was made for */
};

/* Anthropic: the API demands a limit; this one is sent when the request has none. */
#define CHAT_ANTHROPIC_MAX_TOKENS 8192

/* An HTTP POST: in the request's arena. */
struct chat_post {
    const char *url;
    struct chat_header headers[CHAT_POST_HEADERS_MAX]; /* content-type, authorisation, versions */
    size_t header_count;
    const char *body;
    size_t body_len;
};

struct chat_reader; /* reads one reply */

struct chat_reader_params {
    const struct chat_request *request; /* outlives the reader */
    bool is_stream;                     /* SSE, as its content-type says; else one JSON object */
    /* Events in the provider's order (provider.h): ROLE first, FINISH for each choice, USAGE; never PROGRESS,
     * ERROR or DONE. Their memory is valid during the call. */
    void (*event)(void *ud, const struct chat_event *event);
    void *ud;
};

/* A codec is a table of functions, in one file a dialect. */
struct chat_codec {
    const char *name; /* "openai", "anthropic", "gemini" */
    /* Does the model, by its name there, go on from the beginning of an answer (continue_final_message)?
     * NULL: none does by this dialect alone. */
    bool (*continues)(const char *model);
    /* Same dialect: `raw` goes out as it came but for what the struct or the target says otherwise, so that
     * unknown members, member order and prompt-cache marks survive. Other dialect: translated; what has no
     * counterpart is left out when harmless (sampling knobs), else a fault with cause UNABLE. */
    enum ph_status (*encode)(struct arena *arena, const struct chat_request *request,
                             const struct chat_target *target, struct chat_post *out,
                             struct chat_fault *fault);
    /* Its memory hangs on the arena but is bounded: a long stream does not grow it. NULL: out of memory. */
    struct chat_reader *(*reader_new)(struct arena *arena, const struct chat_reader_params *params);
    /* Bytes of a 200 reply as they come, cut anywhere. Not PH_OK: the fault says why, with its cause, and the
     * reader is spent: a bad line, an error in mid-stream, an error object with status 200, too long a line.
     */
    enum ph_status (*feed)(struct chat_reader *reader, const char *bytes, size_t len,
                           struct chat_fault *fault);
    /* The body has ended. PH_OK: it was whole, everything was emitted; else cause CUT. */
    enum ph_status (*end)(struct chat_reader *reader, struct chat_fault *fault);
    /* The body of a reply that is no 200 (maybe HTML, maybe cut) as a fault with its cause. The fault's
     * strings are static or in the arena; the provider's message is kept, shortened. */
    void (*fault)(struct arena *arena, int http_status, const char *body, size_t len, struct chat_fault *out);
};
extern const struct chat_codec chat_codec_openai, chat_codec_anthropic, chat_codec_gemini;
/* By name; NULL: there is none. */
const struct chat_codec *chat_codec_find(const char *name);

/* ---- Embeddings (OpenAI's shape; the only one there is) ---- */

struct chat_embed_request {
    struct arena *arena;
    const char *model;
    const struct chat_prompt *inputs;
    size_t input_count;
    size_t dimensions; /* 0: not said */
    bool base64;       /* how the client wants them; its SDK asks for base64 in silence */
    const char *user;
    const char *request_id; /* as in chat_request */
    const struct json *raw;
};
struct chat_embeddings {
    size_t count, width;
    const float *values; /* [count][width] */
    uint64_t prompt_tokens;
};
PH_MUST_USE enum ph_status chat_embed_decode(struct arena *arena, const struct json *body,
                                             struct chat_embed_request *out, struct chat_fault *fault);
void chat_embed_encode(const struct chat_embed_request *request, const char *model,
                       const struct chat_embeddings *embeddings, struct buf *out);
/* To an OpenAI-compatible provider (as base64) and back (either form). */
PH_MUST_USE enum ph_status chat_embed_post(struct arena *arena, const struct chat_embed_request *request,
                                           const struct chat_target *target, struct chat_post *out,
                                           struct chat_fault *fault);
PH_MUST_USE enum ph_status chat_embed_read(struct arena *arena, const char *body, size_t len,
                                           struct chat_embeddings *out, struct chat_fault *fault);

/* ---- Server-sent events (WHATWG HTML, 9.2), for codecs ---- */

/* Feeds bytes cut anywhere; calls `event` for each dispatched one. `data` lines are joined by line ends and
 * terminated; `name` is "" when none was given. LF, CR and CRLF end lines; comments are skipped; a byte-order
 * mark at the start too. `event` answers false to stop. Memory: one event, up to `event_bytes_max`. */
struct chat_sse {
    struct buf line, data, name;
    size_t event_bytes_max;
    bool after_cr, begun, has_data;
};
void chat_sse_init(struct chat_sse *sse, size_t event_bytes_max);
void chat_sse_release(struct chat_sse *sse);
/* PH_ERR_LIMIT: a line or event is too long; PH_ERR_CANCELLED: `event` said stop; PH_ERR_NOMEM. */
PH_MUST_USE enum ph_status
chat_sse_feed(struct chat_sse *sse, const char *bytes, size_t len,
              bool (*event)(void *ud, const char *name, const char *data, size_t len), void *ud);

/* ---- Local models ---- */

/* Messages as the JSON array that chat templates expect: content as text, tool-call arguments as objects,
 * absent members left out instead of null, unknown members kept. `keep_developer`: the template knows that
 * role; otherwise it becomes system. NULL: out of memory. */
struct json *chat_template_messages(struct arena *arena, const struct chat_request *request,
                                    bool keep_developer);

#endif
