/* Questions to the server before a run: which model there is, and what a word costs in tokens. */
#include <stdio.h>
#include <string.h>

#include "ops/load_int.h"

#define REPLY_MAX ((size_t)16 << 20)
#define TIMEOUT_MS 60000
#define WORDS_FEW 8
#define WORDS_MANY 72
#define SEED 0x63616c

struct question {
    struct net_loop *loop;
    struct http_client *client;
    struct buf url, bearer, reply;
    int status;
    enum http_call_end how;
    char why[LOAD_WORDS_MAX];
};

static void on_head(void *ud, int status, const struct http_header *headers, size_t header_count)
{
    struct question *q = ud;
    (void)headers;
    (void)header_count;
    q->status = status;
}

static bool on_body(void *ud, const char *bytes, size_t len)
{
    struct question *q = ud;
    buf_append(&q->reply, bytes, len);
    return true;
}

static void on_end(void *ud, enum http_call_end how, const char *message)
{
    struct question *q = ud;
    q->how = how;
    snprintf(q->why, sizeof q->why, "%s", message);
    http_client_close(q->client);
    net_loop_stop(q->loop);
}

static enum ph_status start(struct question *q, const struct load_target *target, const struct buf *body,
                            struct ph_err *err)
{
    struct http_header headers[LOAD_HEADERS_MAX];
    struct http_call *call;
    struct http_call_params params = {.method = body ? "POST" : "GET",
                                      .url = q->url.data,
                                      .headers = headers,
                                      .header_count = load_headers(target, &q->bearer, headers),
                                      .body = body ? body->data : NULL,
                                      .body_len = body ? body->len : 0,
                                      .head_timeout_ms = TIMEOUT_MS,
                                      .total_timeout_ms = TIMEOUT_MS,
                                      .body_bytes_max = REPLY_MAX};
    if (buf_status(&q->url) != PH_OK || buf_status(&q->bearer) != PH_OK ||
        (body && buf_status(body) != PH_OK))
        return ph_fail(err, PH_ERR_LIMIT, "the address or the key is too long");
    enum ph_status status =
        http_client_open(&q->client,
                         &(struct http_client_params){.loop = q->loop,
                                                      .clock = clock_system(),
                                                      .ca_file = target->ca_file,
                                                      .plain_only = strncmp(q->url.data, "http://", 7) == 0,
                                                      .user_agent = "pharos-load"},
                         err);
    if (status != PH_OK)
        return status;
    status = http_call_start(&call, q->client, &params, &(struct http_call_sink){on_head, on_body, on_end, q},
                             err);
    if (status != PH_OK)
        http_client_close(q->client);
    return status;
}

static enum ph_status judge(const struct load_target *target, const struct question *q, struct ph_err *err)
{
    if (q->how != HTTP_CALL_WHOLE)
        return ph_fail(err, PH_ERR_IO, "%s does not answer: %s", target->url, q->why);
    if (q->status == 401 || q->status == 403)
        return ph_fail(err, PH_ERR_ARG, "%s wants a key (status %d): --key-file F, or $PHAROS_KEY",
                       target->url, q->status);
    if (q->status != 200)
        return ph_fail(err, PH_ERR_IO, "%s answers with status %d to %s", target->url, q->status,
                       q->url.data);
    return PH_OK;
}

/* The reply's JSON; a body makes it a POST. */
static enum ph_status ask(struct arena *arena, const struct load_target *target, const char *path,
                          const struct buf *body, struct json **out, struct ph_err *err)
{
    struct question q = {.how = HTTP_CALL_FAILED};
    buf_init(&q.url, LOAD_URL_BYTES_MAX);
    buf_init(&q.bearer, LOAD_BEARER_BYTES_MAX);
    buf_init(&q.reply, REPLY_MAX);
    load_put_url(&q.url, target, path);
    enum ph_status status = net_loop_create(&q.loop, err);
    if (status == PH_OK) {
        status = start(&q, target, body, err);
        if (status == PH_OK)
            net_loop_run(q.loop);
        net_loop_free(q.loop);
    }
    if (status == PH_OK)
        status = judge(target, &q, err);
    if (status == PH_OK &&
        json_parse(arena, q.reply.data ? q.reply.data : "", q.reply.len, out, NULL) != PH_OK)
        status = ph_fail(err, PH_ERR_FORMAT, "%s answers to %s with what is no JSON", target->url, path);
    buf_release(&q.url);
    buf_release(&q.bearer);
    buf_release(&q.reply);
    return status;
}

enum ph_status load_first_model(struct arena *arena, const struct load_target *target, const char **model,
                                struct ph_err *err)
{
    struct json *reply;
    enum ph_status status = ask(arena, target, "/v1/models", NULL, &reply, err);
    if (status != PH_OK)
        return status;
    const struct json *first = json_at(json_get(reply, "data"), 0);
    *model = json_text(json_get(first, "id"), NULL);
    return *model && **model
               ? PH_OK
               : ph_fail(err, PH_ERR_NOTFOUND, "%s lists no model: say one with --model", target->url);
}

/* How many tokens the server counts in a prompt of so many words; 0: it does not say. */
static enum ph_status count_words(const struct load_target *target, size_t count, int64_t *tokens,
                                  struct ph_err *err)
{
    struct arena arena;
    struct buf text, body;
    struct json *reply = NULL;
    const struct load_prompts plain = {.tokens_per_word = 1};
    arena_init(&arena, 4 * REPLY_MAX);
    buf_init(&text, LOAD_BODY_BYTES_MAX);
    buf_init(&body, LOAD_BODY_BYTES_MAX);
    load_prompt_words(&plain, SEED, 0, count, &text);
    load_put_body(
        target, &(struct load_body){.text = text.data, .text_len = text.len, .max_tokens = 1, .whole = true},
        &body);
    enum ph_status status =
        ask(&arena, target, target->api == LOAD_COMPLETION ? "/v1/completions" : "/v1/chat/completions",
            &body, &reply, err);
    *tokens = 0;
    (void)json_to_int64(json_get(json_get(reply, "usage"), "prompt_tokens"), tokens);
    buf_release(&text);
    buf_release(&body);
    arena_release(&arena);
    return status;
}

enum ph_status load_calibrate(const struct load_target *target, struct load_prompts *prompts,
                              struct ph_err *err)
{
    int64_t few, many;
    enum ph_status status = count_words(target, WORDS_FEW, &few, err);
    if (status == PH_OK)
        status = count_words(target, WORDS_MANY, &many, err);
    if (status != PH_OK || few <= 0 || many <= few)
        return status;
    prompts->tokens_per_word = (double)(many - few) / (WORDS_MANY - WORDS_FEW);
    prompts->tokens_around = (double)few - WORDS_FEW * prompts->tokens_per_word;
    return PH_OK;
}
