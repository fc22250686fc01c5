/* The smaller endpoints: models, tokens, templates, health.
 *
 * Work that grows with its input (tokenising a book) runs on a helper thread as an errand; the exchange stays
 * valid until it is answered, so an errand needs no cancelling. */
#include <string.h>

#include "gateway/gateway_int.h"

/* ---- Models */

static void write_model(const struct gateway *gateway, const struct provider *provider, struct buf *out)
{
    const char *id = provider_model_id(provider);
    buf_puts(out, "{\"id\":");
    json_write_string(out, id, strlen(id));
    buf_printf(out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"pharos\",\"ready\":%s",
               (long long)gateway->started_unix_s, provider_ready(provider) ? "true" : "false");
    if (provider_context_len(provider))
        buf_printf(out, ",\"max_model_len\":%zu", provider_context_len(provider));
    buf_putc(out, '}');
}

/* A name of the configuration that chooses among models is listed too: clients offer what is listed. */
static void write_route(const struct gateway *gateway, const struct gateway_route *route, struct buf *out)
{
    buf_puts(out, gateway->model_count ? ",{\"id\":" : "{\"id\":");
    json_write_string(out, route->name, strlen(route->name));
    buf_printf(out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"pharos\",\"policy\":\"%s\"}",
               (long long)gateway->started_unix_s, gateway_policy_name(route->policy));
}

/* The exchange, its arena and all that hangs on it are gone after this. */
static void reply(struct gateway *gateway, struct http_exchange *exchange, int status, const struct buf *body)
{
    struct chat_fault fault;
    if (buf_status(body) == PH_OK) {
        gateway_reply(gateway, exchange, status, JSON_TYPE, body);
        return;
    }
    chat_fault_set(&fault, 503, NULL, NULL, "the reply does not fit into memory");
    gateway_reply_fault(gateway, exchange, &fault);
}

void handle_models(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit)
{
    (void)visit;
    struct buf body;
    buf_init(&body, CHAT_REPLY_BYTES_MAX);
    buf_puts(&body, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < gateway->model_count; i++) {
        if (i)
            buf_putc(&body, ',');
        write_model(gateway, gateway->models[i].provider, &body);
    }
    for (size_t i = 0; i < gateway->route_count; i++)
        write_route(gateway, &gateway->routes[i], &body);
    buf_puts(&body, "]}");
    reply(gateway, exchange, 200, &body);
    buf_release(&body);
}

void handle_model(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit)
{
    struct chat_fault fault;
    size_t index;
    if (!gateway_find(gateway, visit->rest, &index, &fault)) {
        gateway_reply_fault(gateway, exchange, &fault);
        return;
    }
    struct buf body;
    buf_init(&body, CHAT_REPLY_BYTES_MAX);
    write_model(gateway, gateway->models[index].provider, &body);
    reply(gateway, exchange, 200, &body);
    buf_release(&body);
}

/* Why an answer came from where it did: by the reply's id or the request's. */
void handle_route(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit)
{
    size_t len = 0;
    const char *json = route_book_find(gateway->book, visit->rest, &len);
    struct chat_fault fault;
    if (!json)
        json = drill_find_route(gateway, visit->rest, &len);
    if (!json || !caller_may_see(gateway, visit->caller, json, len)) {
        chat_fault_set(&fault, 404, "route_not_found", NULL,
                       "no answer \"%.100s\" is remembered; the last %d are", visit->rest, ROUTE_RECORDS_MAX);
        gateway_reply_fault(gateway, exchange, &fault);
        return;
    }
    struct buf body;
    buf_init(&body, CHAT_REPLY_BYTES_MAX);
    buf_append(&body, json, len);
    reply(gateway, exchange, 200, &body);
    buf_release(&body);
}

/* ---- Health */

void handle_health(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit)
{
    (void)visit;
    struct buf body;
    buf_init(&body, 1024);
    buf_printf(&body, "{\"status\":\"ok\",\"version\":\"%s\"}", gateway->version);
    reply(gateway, exchange, 200, &body);
    buf_release(&body);
}

/* Ready: every model has either loaded or failed for good, and at least one can answer. */
static bool is_ready(const struct gateway *gateway)
{
    bool any = false;
    for (size_t i = 0; i < gateway->model_count; i++) {
        bool ready = provider_ready(gateway->models[i].provider);
        if (!ready && !provider_problem(gateway->models[i].provider))
            return false;
        any = any || ready;
    }
    return any && !gateway->stopping;
}

void handle_ready(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit)
{
    (void)visit;
    bool ready = is_ready(gateway);
    struct buf body;
    buf_init(&body, CHAT_REPLY_BYTES_MAX);
    buf_printf(&body, "{\"status\":\"%s\",\"models\":{",
               gateway->stopping ? "stopping"
               : ready           ? "ready"
                                 : "loading");
    for (size_t i = 0; i < gateway->model_count; i++) {
        const struct provider *provider = gateway->models[i].provider;
        const char *id = provider_model_id(provider), *problem = provider_problem(provider);
        if (i)
            buf_putc(&body, ',');
        json_write_string(&body, id, strlen(id));
        buf_printf(&body, ":\"%s\"", provider_ready(provider) ? "ready" : problem ? "failed" : "loading");
    }
    buf_puts(&body, "}}");
    if (!ready)
        http_set_header(exchange, "retry-after", "1");
    reply(gateway, exchange, ready ? 200 : 503, &body);
    buf_release(&body);
}

void handle_metrics(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit)
{
    (void)visit;
    struct buf body;
    buf_init(&body, CHAT_REPLY_BYTES_MAX);
    metrics_write(gateway->metrics, gateway, &body);
    gateway_reply(gateway, exchange, buf_status(&body) == PH_OK ? 200 : 503, "text/plain; version=0.0.4",
                  &body);
    buf_release(&body);
}

/* ---- Errands */

struct errand {
    struct gateway *gateway;
    struct http_exchange *exchange;
    struct provider *provider;
    const struct vocab *vocab;
    const struct json *body;
    struct buf out;
    struct chat_fault fault;
    bool failed;
    void (*work)(void *ud); /* any thread: fills out, or fault and failed */
};

static void errand_done(void *ud)
{
    struct errand *errand = ud;
    if (errand->failed) {
        gateway_reply_fault(errand->gateway, errand->exchange, &errand->fault);
        return;
    }
    reply(errand->gateway, errand->exchange, 200, &errand->out);
}

static void release_out(void *ud)
{
    buf_release(ud);
}

/* Body, model, vocabulary: what every errand needs. NULL: answered already. */
static struct errand *errand_new(struct gateway *gateway, struct http_exchange *exchange,
                                 void (*work)(void *ud))
{
    struct chat_fault fault;
    struct json *body;
    size_t index;
    struct errand *errand = arena_calloc(http_exchange_arena(exchange), 1, sizeof *errand);
    bool ok = gateway_body(exchange, &body, &fault);
    if (ok && !json_is(body, JSON_OBJECT)) {
        chat_fault_set(&fault, 400, NULL, NULL, "the body must be a JSON object");
        ok = false;
    }
    ok = ok && gateway_find(gateway, json_text(json_get(body, "model"), NULL), &index, &fault);
    if (ok && !provider_model(gateway->models[index].provider)) {
        chat_fault_set(&fault, 503, "model_loading", "model", "%s is not loaded",
                       provider_model_id(gateway->models[index].provider));
        fault.retry_after_s = 2;
        ok = false;
    }
    if (ok && !errand) {
        chat_fault_set(&fault, 503, NULL, NULL, "out of memory");
        ok = false;
    }
    if (!ok) {
        gateway_reply_fault(gateway, exchange, &fault);
        return NULL;
    }
    struct provider *provider = gateway->models[index].provider;
    *errand = (struct errand){.gateway = gateway, .exchange = exchange, .provider = provider, .body = body};
    errand->vocab = model_vocab(provider_model(provider));
    errand->work = work;
    buf_init(&errand->out, CHAT_REPLY_BYTES_MAX);
    if (arena_on_release(http_exchange_arena(exchange), release_out, &errand->out) != 0)
        buf_init(&errand->out, 0); /* every append fails, and that is the answer */
    return errand;
}

static void errand_run(struct gateway *gateway, struct http_exchange *exchange, void (*work)(void *ud))
{
    struct errand *errand = errand_new(gateway, exchange, work);
    if (!errand)
        return;
    if (http_exchange_request(exchange)->body_len <= CHAT_INLINE_BYTES_MAX) {
        work(errand);
        errand_done(errand);
        return;
    }
    if (net_work(gateway->loop, work, errand_done, errand) == PH_OK)
        return;
    chat_fault_set(&errand->fault, 429, "rate_limit_exceeded", NULL, "too much work is waiting; try again");
    errand->fault.retry_after_s = 1;
    gateway_reply_fault(gateway, exchange, &errand->fault);
}

#define ERRAND_FAIL(errand, param, ...) \
    ((errand)->failed = true, chat_fault_set(&(errand)->fault, 400, NULL, (param), __VA_ARGS__))

static bool flag_or(const struct json *value, bool fallback)
{
    return json_is_bool(value) ? value->type == JSON_TRUE : fallback;
}

static void tokenize_work(void *ud)
{
    struct errand *errand = ud;
    const struct json *content = json_get(errand->body, "content");
    struct token_list list = {0};
    struct ph_err err;
    if (!json_is(content, JSON_STRING)) {
        ERRAND_FAIL(errand, "content", "content must be a string");
        return;
    }
    enum ph_status status =
        vocab_tokenize(errand->vocab, content->u.str.text, content->u.str.len,
                       flag_or(json_get(errand->body, "add_special"), false),
                       flag_or(json_get(errand->body, "parse_special"), true), &list, &err);
    if (status != PH_OK)
        ERRAND_FAIL(errand, "content", "%s", err.message);
    buf_puts(&errand->out, "{\"tokens\":[");
    for (size_t i = 0; i < list.len && status == PH_OK; i++)
        buf_printf(&errand->out, "%s%d", i ? "," : "", (int)list.ids[i]);
    buf_puts(&errand->out, "]}");
    token_list_release(&list);
}

/* As llama.cpp's server does it, because clients of this endpoint were written for that: the pieces one after
 * the other, special tokens spelt out, the first one's space kept. So texts of parts can be joined; the exact
 * reverse of /tokenize, without a space that the vocabulary put in front, is `pharos detokenize`. */
static void detokenize_ids(struct errand *errand, const int32_t *ids, size_t count)
{
    struct buf text;
    struct detok detok;
    buf_init(&text, CHAT_REPLY_BYTES_MAX);
    detok_init(&detok, errand->vocab, true, true);
    for (size_t i = 0; i < count; i++)
        detok_push(&detok, ids[i], &text);
    detok_flush(&detok, &text);
    if (buf_status(&text) != PH_OK)
        ERRAND_FAIL(errand, "tokens", "tokens: the text is too long");
    buf_puts(&errand->out, "{\"content\":");
    json_write_string(&errand->out, text.len ? text.data : "", text.len);
    buf_putc(&errand->out, '}');
    buf_release(&text);
}

static void detokenize_work(void *ud)
{
    struct errand *errand = ud;
    const struct json *tokens = json_get(errand->body, "tokens");
    size_t count = 0, n_tokens = vocab_info(errand->vocab)->n_tokens;
    if (!json_is(tokens, JSON_ARRAY)) {
        ERRAND_FAIL(errand, "tokens", "tokens must be an array of token ids");
        return;
    }
    int32_t *ids = arena_calloc(http_exchange_arena(errand->exchange), json_count(tokens), sizeof *ids);
    if (!ids) {
        ERRAND_FAIL(errand, "tokens", "tokens: more than one request may hold");
        return;
    }
    JSON_EACH (item, tokens) {
        int64_t id;
        if (!json_to_int64(item, &id) || id < 0 || (uint64_t)id >= n_tokens) {
            ERRAND_FAIL(errand, "tokens", "tokens: element %zu is not an id of the model's vocabulary of %zu",
                        count, n_tokens);
            return;
        }
        ids[count++] = (int32_t)id;
    }
    detokenize_ids(errand, ids, count);
}

static void template_work(void *ud)
{
    struct errand *errand = ud;
    struct chat_request request;
    struct buf prompt;
    struct arena *arena = http_exchange_arena(errand->exchange);
    if (chat_edge_openai.decode(arena, CHAT_KIND_CHAT, errand->body, &request, &errand->fault) != PH_OK) {
        errand->failed = true;
        return;
    }
    request.no_generation_prompt = !flag_or(json_get(errand->body, "add_generation_prompt"), true);
    buf_init(&prompt, CHAT_PROMPT_BYTES_MAX);
    errand->failed = provider_prompt(errand->provider, &request, &prompt, &errand->fault) != PH_OK;
    buf_puts(&errand->out, "{\"prompt\":");
    json_write_string(&errand->out, prompt.len ? prompt.data : "", prompt.len);
    buf_putc(&errand->out, '}');
    buf_release(&prompt);
}

void handle_tokenize(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit)
{
    (void)visit;
    errand_run(gateway, exchange, tokenize_work);
}

void handle_detokenize(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit)
{
    (void)visit;
    errand_run(gateway, exchange, detokenize_work);
}

void handle_apply_template(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit)
{
    (void)visit;
    errand_run(gateway, exchange, template_work);
}
