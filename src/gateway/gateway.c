/* The gateway: which path is whose, who may call, and replies in one shape.
 *
 * The routes are a table. Whatever goes wrong on the way to a handler is answered in the error shape of the
 * path's dialect, and whatever net refuses by itself in OpenAI's, because clients lose every other one. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "gateway/gateway_int.h"
#include "gateway/verdict_int.h"

#define ROUTE_TEXT_MAX 256

/* ---- Replies */

void gateway_reply(struct gateway *gateway, struct http_exchange *exchange, int status, const char *type,
                   const struct buf *body)
{
    metrics_status(gateway->metrics, status);
    http_reply(exchange, status, type, body ? body->data : NULL, body ? body->len : 0);
}

const struct chat_edge *gateway_edge(const struct http_request *request)
{
    if (strncmp(request->path, "/v1/messages", 12) == 0)
        return &chat_edge_anthropic;
    return strncmp(request->path, "/v1/responses", 13) == 0 ? &chat_edge_responses : &chat_edge_openai;
}

void gateway_reply_fault(struct gateway *gateway, struct http_exchange *exchange,
                         const struct chat_fault *fault)
{
    const struct http_request *request = http_exchange_request(exchange);
    const struct chat_edge *edge = gateway_edge(request);
    struct buf body;
    char seconds[24];
    buf_init(&body, 4 * PH_ERR_MESSAGE_MAX * 8);
    edge->encode_fault(fault, request->id, &body);
    if (fault->retry_after_s) {
        snprintf(seconds, sizeof seconds, "%u", (unsigned)fault->retry_after_s);
        http_set_header(exchange, "retry-after", seconds);
    }
    gateway_reply(gateway, exchange, edge->fault_status(fault), JSON_TYPE, &body);
    buf_release(&body);
}

/* What net refuses by itself, before there is a path. */
static void encode_error(void *ud, int status, const char *message, struct buf *out)
{
    struct gateway *gateway = ud;
    struct chat_fault fault;
    metrics_status(gateway->metrics, status);
    chat_fault_set(&fault, status, NULL, NULL, "%s", message);
    chat_edge_openai.encode_fault(&fault, NULL, out);
}

/* ---- What handlers share */

bool gateway_body(struct http_exchange *exchange, struct json **out, struct chat_fault *fault)
{
    const struct http_request *request = http_exchange_request(exchange);
    struct ph_err err;
    enum ph_status status =
        json_parse(http_exchange_arena(exchange), request->body, request->body_len, out, &err);
    if (status == PH_OK)
        return true;
    if (request->body_len == 0)
        chat_fault_set(fault, 400, "invalid_json", NULL, "the body is empty: send a JSON object");
    else if (status == PH_ERR_NOMEM)
        chat_fault_set(fault, 413, NULL, NULL, "the body needs more memory than one request may take");
    else
        chat_fault_set(fault, 400, "invalid_json", NULL, "the body is not JSON: %s", err.message);
    return false;
}

size_t gateway_default(const struct gateway *gateway, unsigned needs)
{
    size_t i = 0;
    bool vectors = (needs & GATEWAY_EMBEDDINGS) != 0;
    while (i < gateway->model_count && vectors != !!(gateway->models[i].abilities & GATEWAY_VECTORS_ONLY))
        i++;
    return i < gateway->model_count ? i : 0;
}

bool gateway_find(const struct gateway *gateway, const char *model, size_t *index, struct chat_fault *fault)
{
    *index = gateway_default(gateway, 0);
    bool any = !model || !*model;
    for (size_t i = 0; i < gateway->model_count && !any; i++)
        if (strcmp(provider_model_id(gateway->models[i].provider), model) == 0) {
            *index = i;
            return true;
        }
    if (gateway->model_count && (any || strcmp(model, "default") == 0))
        return true;
    chat_fault_set(fault, 404, "model_not_found", "model",
                   "there is no model \"%.100s\" here; GET /v1/models lists those there are",
                   any ? "" : model);
    return false;
}

const struct gateway_account *gateway_account(const struct gateway *gateway, size_t model)
{
    const char *name = provider_name(gateway->models[model].provider);
    for (size_t i = 0; i < gateway->account_count; i++)
        if (strcmp(gateway->accounts[i].name, name) == 0)
            return &gateway->accounts[i];
    return NULL;
}

/* ---- Routes */

struct route {
    const char *method;
    const char *path;  /* what follows the '{' of "/v1/models/{id}" is given to the handler */
    const char *scope; /* what the caller's key must allow; NULL: anybody */
    void (*handle)(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit);
};

static const struct route routes[] = {
    {"POST", "/v1/chat/completions", "chat", handle_chat_completions},
    {"POST", "/v1/completions", "chat", handle_completions},
    {"POST", "/v1/messages", "chat", handle_messages},
    {"POST", "/v1/messages/count_tokens", "chat", handle_count_tokens},
    {"POST", "/v1/responses", "chat", handle_responses},
    {"GET", "/v1/responses/{id}", "chat", handle_response_get},
    {"DELETE", "/v1/responses/{id}", "chat", handle_response_delete},
    {"POST", "/v1/conversations", "chat", handle_conversation_create},
    {"GET", "/v1/conversations/{id}", "chat", handle_conversation_get},
    {"POST", "/v1/conversations/{id}", "chat", handle_conversation_post},
    {"DELETE", "/v1/conversations/{id}", "chat", handle_conversation_delete},
    {"POST", "/v1/context", "chat", handle_context},
    {"POST", "/v1/embeddings", "chat", handle_embeddings},
    {"GET", "/v1/models", "read", handle_models},
    {"GET", "/v1/models/{id}", "read", handle_model},
    {"GET", "/v1/routes/{id}", "read", handle_route},
    {"POST", "/v1/feedback", "chat", handle_feedback},
    {"POST", "/tokenize", "chat", handle_tokenize},
    {"POST", "/detokenize", "chat", handle_detokenize},
    {"POST", "/apply-template", "chat", handle_apply_template},
    {"POST", "/v1/drills", "admin", handle_drill_begin},
    {"DELETE", "/v1/drills/{id}", "admin", handle_drill_end},
    {"GET", "/health", NULL, handle_health},
    {"GET", "/ready", NULL, handle_ready},
    {"GET", "/metrics", "read", handle_metrics},
};

/* What the path leaves over for the handler; NULL: another route. */
static const char *match(const struct route *route, const char *path)
{
    const char *brace = strchr(route->path, '{');
    size_t len = brace ? (size_t)(brace - route->path) : strlen(route->path);
    if (strncmp(path, route->path, len) != 0)
        return NULL;
    if (brace)
        return path[len] ? path + len : NULL;
    return path[len] == 0 || (path[len] == '/' && path[len + 1] == 0) ? "" : NULL;
}

/* "GET, HEAD, OPTIONS" into out: what this path understands. "" when nothing does. */
static void allowed_methods(const char *path, char out[ROUTE_TEXT_MAX])
{
    out[0] = 0;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++)
        if (match(&routes[i], path)) {
            size_t len = strlen(out);
            const char *method = strcmp(routes[i].method, "GET") == 0 ? "GET, HEAD" : routes[i].method;
            snprintf(out + len, ROUTE_TEXT_MAX - len, "%s, ", method);
        }
    size_t len = strlen(out);
    if (len)
        snprintf(out + len, ROUTE_TEXT_MAX - len, "OPTIONS");
}

static const struct route *find_route(const char *method, const char *path, const char **rest)
{
    if (strcmp(method, "HEAD") == 0)
        method = "GET";
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        *rest = match(&routes[i], path);
        if (*rest && strcmp(routes[i].method, method) == 0)
            return &routes[i];
    }
    return NULL;
}

static void refuse_path(struct gateway *gateway, struct http_exchange *exchange)
{
    const struct http_request *request = http_exchange_request(exchange);
    struct chat_fault fault;
    char allowed[ROUTE_TEXT_MAX];
    allowed_methods(request->path, allowed);
    if (allowed[0]) {
        http_set_header(exchange, "allow", allowed);
        chat_fault_set(&fault, 405, "method_not_allowed", NULL, "%.40s is not allowed on %.200s; use %s",
                       request->method, request->path, allowed);
    } else {
        chat_fault_set(&fault, 404, "unknown_url", NULL, "there is nothing at %.40s %.200s", request->method,
                       request->path);
    }
    gateway_reply_fault(gateway, exchange, &fault);
}

/* ---- Browsers */

static void set_cors(struct http_exchange *exchange, const char *origin)
{
    http_set_header(exchange, "access-control-allow-origin", origin);
    http_set_header(exchange, "access-control-expose-headers",
                    "x-request-id, request-id, " ROUTE_HEADER ", " CACHE_HEADER
                    ", retry-after, x-should-retry");
    http_set_header(exchange, "vary", "origin");
}

/* OPTIONS: a preflight, or a question. */
static void answer_options(struct gateway *gateway, struct http_exchange *exchange)
{
    const struct http_request *request = http_exchange_request(exchange);
    const char *headers = http_request_header(request, "access-control-request-headers");
    char allowed[ROUTE_TEXT_MAX];
    allowed_methods(request->path, allowed);
    if (!allowed[0]) {
        refuse_path(gateway, exchange);
        return;
    }
    http_set_header(exchange, "allow", allowed);
    if (http_request_header(request, "access-control-request-method")) {
        http_set_header(exchange, "access-control-allow-methods", allowed);
        if (headers)
            http_set_header(exchange, "access-control-allow-headers", headers);
        if (http_request_header(request, "access-control-request-private-network"))
            http_set_header(exchange, "access-control-allow-private-network", "true");
        http_set_header(exchange, "access-control-max-age", "600");
    }
    gateway_reply(gateway, exchange, 204, NULL, NULL);
}

/* false: the caller was refused, and the exchange is over. */
static bool admit(struct gateway *gateway, struct http_exchange *exchange)
{
    const struct http_request *request = http_exchange_request(exchange);
    const char *host = http_request_header(request, "host");
    const char *origin = http_request_header(request, "origin");
    struct chat_fault fault;
    if (gateway->local_only && host && *host && !origin_host_is_safe(host)) {
        chat_fault_set(&fault, 403, "host_not_allowed", NULL,
                       "this station listens on loopback and is not called \"%.100s\"; use its address, or "
                       "localhost",
                       host);
        gateway_reply_fault(gateway, exchange, &fault);
        return false;
    }
    if (origin && !origin_is_allowed(origin, host)) {
        chat_fault_set(&fault, 403, "origin_not_allowed", NULL,
                       "pages from \"%.100s\" may not use this station; pages of this machine may", origin);
        gateway_reply_fault(gateway, exchange, &fault);
        return false;
    }
    if (origin)
        set_cors(exchange, origin);
    return true;
}

static void handle(void *ud, struct http_exchange *exchange)
{
    struct gateway *gateway = ud;
    const struct http_request *request = http_exchange_request(exchange);
    const char *rest;
    if (!admit(gateway, exchange))
        return;
    if (strcmp(request->method, "OPTIONS") == 0) {
        answer_options(gateway, exchange);
        return;
    }
    const struct route *route = find_route(request->method, request->path, &rest);
    if (!route) {
        refuse_path(gateway, exchange);
        return;
    }
    struct caller caller;
    struct chat_fault fault;
    struct visit visit = {&caller, rest};
    if (admission_check(gateway, request, route->scope, &caller, &fault))
        route->handle(gateway, exchange, &visit);
    else
        gateway_reply_fault(gateway, exchange, &fault);
}

/* ---- Life */

#define TICK_MS 250
#define TICKS_A_SECOND (1000 / TICK_MS)

static void set_key_budgets(struct gateway *gateway)
{
    for (size_t i = 0; i < keys_count(gateway->keys); i++) {
        const struct key *key = keys_at(gateway->keys, i);
        int64_t pico = ledger_pico(key->budget_usd_month);
        if (ledger_set_budget(gateway->ledger, LEDGER_BY_KEY, key->account, pico) != PH_OK)
            log_error("gateway", "no memory for the budget of key %s", key->id);
    }
}

static void on_tick(void *ud)
{
    struct gateway *gateway = ud;
    gateway_chats_tick(gateway);
    ledger_tick(gateway->ledger);
    drill_tick(gateway);
    if (gateway->verdicts)
        verdicts_tick(gateway->verdicts);
    if (gateway->ticks++ % TICKS_A_SECOND)
        return;
    if (gateway->keys && keys_refresh(gateway->keys))
        set_key_budgets(gateway);
    if (gateway->verdicts)
        verdicts_second(gateway->verdicts);
}

static size_t running_max(const struct gateway_model *model)
{
    return model->concurrency ? model->concurrency : GATE_RUNNING_DEFAULT;
}

static enum ph_status create_gates(struct gateway *gateway)
{
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < gateway->model_count && status == PH_OK; i++) {
        const struct gateway_model *model = &gateway->models[i];
        gateway->brakes[i].share = 1;
        status = gate_create(&gateway->gates[i], running_max(model),
                             model->queue_max ? model->queue_max : GATE_WAITING_MAX);
    }
    return status;
}

void gateway_predict(struct gateway *gateway, size_t model, double prefill_tokens_s, double decode_tokens_s)
{
    gateway->speeds[model].predicted_prefill_tokens_s = prefill_tokens_s;
    gateway->speeds[model].predicted_decode_tokens_s = decode_tokens_s;
}

void gateway_set_brake(struct gateway *gateway, size_t model, const struct gateway_brake *brake)
{
    struct gate *gate = gateway->gates[model];
    size_t most = running_max(&gateway->models[model]), running = gate_running(gate);
    if (brake->share < 1 && running > 0 && running < most)
        most = running;
    bool is_held_anew = brake->held && !gateway->brakes[model].held;
    gateway->brakes[model] = *brake;
    if (is_held_anew) /* those that wait get their turn, and find that they must go elsewhere */
        gate_resize(gate, SIZE_MAX);
    gate_resize(gate, brake->share < 1 ? (size_t)((double)most * brake->share) : most);
}

static void find_premium(struct gateway *gateway)
{
    for (size_t i = gateway->model_count; i-- > 0;)
        if (gateway->models[i].tier == LEDGER_PREMIUM)
            gateway->premium = gateway->models[i].price;
}

static enum ph_status create_cache(struct gateway *gateway, const struct gateway_params *params)
{
    const struct gateway_redis *redis = &params->cache.redis;
    struct cache_params cache = {
        .bytes_max = params->cache.bytes_max,
        .ttl_ns = (uint64_t)params->cache.ttl_s * 1000000000,
        .shared = params->cache.shared,
        .default_model = gateway->model_count
                             ? provider_model_id(gateway->models[gateway_default(gateway, 0)].provider)
                             : NULL,
        .clock = params->clock};
    enum ph_status status = cache_create(&gateway->cache, &cache);
    if (status != PH_OK || !redis->host)
        return status;
    gateway->redis_wait_ms = redis->wait_ms ? redis->wait_ms : CACHE_REDIS_WAIT_MS;
    struct redis_params client = {.loop = gateway->loop,
                                  .clock = params->clock,
                                  .host = redis->host,
                                  .port = redis->port,
                                  .user = redis->user,
                                  .password = redis->password,
                                  .database = redis->database,
                                  .value_bytes_max =
                                      cache_answer_bytes_max(gateway->cache) + CACHE_VALUE_EXTRA_BYTES,
                                  .late_ms = gateway->redis_wait_ms};
    return redis_client_open(&gateway->redis, &client);
}

/* Everything but the server and the timer. */
static enum ph_status create_parts(struct gateway *gateway, const struct gateway_params *params)
{
    size_t count = params->model_count;
    gateway->models = mem_calloc(count, sizeof *gateway->models);
    gateway->speeds = mem_calloc(count, sizeof *gateway->speeds);
    gateway->gates = mem_calloc(count, sizeof *gateway->gates);
    gateway->brakes = mem_calloc(count, sizeof *gateway->brakes);
    gateway->metrics = metrics_create(count);
    gateway->book = route_book_create(ROUTE_RECORDS_MAX);
    if (!gateway->models || !gateway->speeds || !gateway->gates || !gateway->brakes || !gateway->metrics ||
        !gateway->book)
        return PH_ERR_NOMEM;
    gateway->model_count = count;
    if (count)
        memcpy(gateway->models, params->models, count * sizeof *gateway->models);
    find_premium(gateway);
    if (gateway->keys)
        set_key_budgets(gateway);
    enum ph_status status = create_gates(gateway);
    if (status == PH_OK)
        status = rates_create(&gateway->rates, params->clock);
    return status == PH_OK && params->cache.bytes_max ? create_cache(gateway, params) : status;
}

enum ph_status gateway_new(struct gateway **out, struct net_loop *loop, const struct gateway_params *params,
                           struct ph_err *err)
{
    struct gateway *gateway = *out = mem_calloc(1, sizeof *gateway);
    if (!gateway)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    *gateway = (struct gateway){.loop = loop,
                                .clock = params->clock,
                                .routes = params->routes,
                                .route_count = params->route_count,
                                .accounts = params->accounts,
                                .account_count = params->account_count,
                                .ledger = params->ledger,
                                .keys = params->keys,
                                .request_log_fd = params->request_log_fd,
                                .request_log_bodies = params->request_log_bodies,
                                .version = params->version,
                                .more_metrics = params->metrics,
                                .more_metrics_ud = params->metrics_ud,
                                .drills = params->drills,
                                .data = params->data,
                                .local_only = origin_is_loopback_address(params->host)};
    rng_init(&gateway->rng, params->seed);
    gateway->started_unix_s = clock_unix_ms(params->clock) / 1000;
    enum ph_status status = create_parts(gateway, params);
    if (status == PH_OK)
        return PH_OK;
    gateway_free(gateway);
    *out = NULL;
    return ph_fail(err, status, "out of memory");
}

enum ph_status gateway_open(struct gateway **out, struct net_loop *loop, const struct gateway_params *params,
                            struct ph_err *err)
{
    enum ph_status status = gateway_new(out, loop, params, err);
    if (status != PH_OK)
        return status;
    struct gateway *gateway = *out;
    status = net_timer_open(&gateway->timer, loop, on_tick, gateway);
    if (status != PH_OK)
        (void)ph_fail(err, status, "out of memory");
    if (status == PH_OK && params->memory) {
        gateway->memory = params->memory;
        status = mail_open(&gateway->mail, loop);
        if (status != PH_OK)
            (void)ph_fail(err, status, "out of memory");
    }
    if (status == PH_OK && params->data)
        status = verdicts_open(&gateway->verdicts, params->data, params->routes, params->route_count, err);
    struct http_server_params server = {.host = params->host,
                                        .port = params->port,
                                        .limits = params->limits,
                                        .tls_certificate = params->tls_certificate,
                                        .tls_key = params->tls_key,
                                        .clock = params->clock,
                                        .handle = handle,
                                        .encode_error = encode_error,
                                        .ud = gateway};
    if (status == PH_OK)
        status = http_server_open(&gateway->server, loop, &server, err);
    if (status != PH_OK) {
        net_timer_close(gateway->timer);
        redis_client_close(gateway->redis);
        mail_close(gateway->mail, NULL, NULL);
        gateway_free(gateway);
        *out = NULL;
        return status;
    }
    net_timer_start(gateway->timer, TICK_MS, TICK_MS);
    return PH_OK;
}

uint16_t gateway_port(const struct gateway *gateway)
{
    return http_server_port(gateway->server);
}

static void on_mail_closed(void *ud)
{
    struct gateway *gateway = ud;
    drill_stop(gateway, gateway->stopped, gateway->stopped_ud);
}

static void on_server_stopped(void *ud)
{
    struct gateway *gateway = ud;
    struct mail *mail = gateway->mail;
    gateway->server = NULL;
    net_timer_close(gateway->timer);
    gateway->timer = NULL;
    redis_client_close(gateway->redis);
    gateway->redis = NULL;
    gateway->mail = NULL;
    mail_close(mail, on_mail_closed, gateway);
}

void gateway_stop(struct gateway *gateway, void (*stopped)(void *ud), void *ud)
{
    gateway->stopping = true;
    gateway->stopped = stopped;
    gateway->stopped_ud = ud;
    http_server_stop(gateway->server, on_server_stopped, gateway);
}

void gateway_free(struct gateway *gateway)
{
    if (!gateway)
        return;
    for (size_t i = 0; gateway->gates && i < gateway->model_count; i++)
        gate_free(gateway->gates[i]);
    mem_free(gateway->gates);
    mem_free(gateway->brakes);
    rates_free(gateway->rates);
    cache_free(gateway->cache);
    route_book_free(gateway->book);
    verdicts_close(gateway->verdicts);
    metrics_free(gateway->metrics);
    mem_free(gateway->speeds);
    mem_free(gateway->models);
    mem_free(gateway);
}
