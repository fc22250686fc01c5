/* load, private: one request (load_call.c), the run around it (load.c), a question to the server
 * (load_ask.c). */
#ifndef PHAROS_OPS_LOAD_INT_H
#define PHAROS_OPS_LOAD_INT_H

#include "chat/chat.h"
#include "net/net.h"
#include "ops/load.h"

#define LOAD_LINE_BYTES_MAX ((size_t)64 << 20) /* of prompts and logs */
#define LOAD_FILE_BYTES_MAX ((size_t)1 << 30)
#define LOAD_BODY_BYTES_MAX ((size_t)32 << 20)
#define LOAD_URL_BYTES_MAX 2048
#define LOAD_BEARER_BYTES_MAX 8300

bool load_is_measured(const struct load_sample *sample);

/* "http://host:port/v1/chat/completions" from what a person calls the address. */
void load_put_url(struct buf *out, const struct load_target *target, const char *path);
/* The headers of a request; `bearer` holds the key's. Returns how many. */
#define LOAD_HEADERS_MAX 2
size_t load_headers(const struct load_target *target, struct buf *bearer,
                    struct http_header out[LOAD_HEADERS_MAX]);

/* What is asked: messages as JSON, or else text. */
struct load_body {
    const char *messages, *text;
    size_t text_len;
    size_t max_tokens;
    bool whole, ignore_end;
};
void load_put_body(const struct load_target *target, const struct load_body *body, struct buf *out);

/* ---- A request */

struct load_wire { /* what all requests of a run share */
    const struct load_target *target;
    const struct clock_source *clock;
    struct http_client *client;
    struct arena_pool pool;
    struct buf url, bearer;
    struct http_header headers[LOAD_HEADERS_MAX];
    size_t header_count;
    struct chat_request request; /* as far as readers of replies ask for it */
    uint32_t timeout_ms;
    uint64_t start_ns;
    uint64_t pieces; /* of all answers, so far */
};

struct load_call {
    struct load_wire *wire;
    void (*ended)(struct load_call *call); /* once; the call may be sent again inside */
    void *ud;
    struct http_call *http; /* NULL: none is running */
    struct arena arena;
    struct chat_reader *reader;
    struct chat_fault fault;
    struct buf body;    /* the request's: the caller fills it before load_call_send */
    struct buf times;   /* uint64_t: when pieces came */
    struct buf answer;  /* its text, where keep_answer */
    struct buf refusal; /* the body of a reply that is no 200 */
    bool keep_answer;
    enum load_error broken; /* the reply is no use any more: why; LOAD_OK: it is */
    struct load_sample sample;
    char words[LOAD_WORDS_MAX];
};
void load_call_init(struct load_call *call, struct load_wire *wire, void (*ended)(struct load_call *call),
                    void *ud);
void load_call_release(struct load_call *call); /* not while it runs */
/* call->sample.intended_ns and is_warmup are set. What cannot even begin ends as LOAD_OURS, by status. */
PH_MUST_USE enum ph_status load_call_send(struct load_call *call, struct ph_err *err);
void load_call_cancel(struct load_call *call); /* `ended` does not come; the sample says LOAD_UNFINISHED */

/* Each line of a file as an item, in the arena; PH_ERR_NOTFOUND from `parse` passes a line over. The line is
 * terminated. */
PH_MUST_USE enum ph_status load_lines_read(struct arena *arena, const char *path, size_t item_bytes,
                                           enum ph_status (*parse)(struct arena *arena, const char *line,
                                                                   size_t len, void *item,
                                                                   struct ph_err *err),
                                           void **items, size_t *count, struct ph_err *err);

/* "32 clients", "10 requests/s, Poisson"; "usage" and so on. */
void load_put_load_name(const struct load_params *params, struct buf *out);
const char *load_counted_words(const struct load_summary *summary);

uint64_t load_now_ns(const struct load_wire *wire); /* since the run began */

#endif
