/* Drills: does this station survive what providers do, as it runs now, without a cent spent or a user
 * disturbed?
 *
 * While a drill is on (POST /v1/drills, until DELETE, or DRILL_IDLE_S without a request) there are models
 *
 *   drill/<api>/<fault>/<copy>       a provider with this fault, and nobody else
 *   drill/<api>/<fault>+ok/<copy>    the same, and a healthy provider behind it
 *
 * for callers who may do everything. They are not the station's: a drill has a gateway of its own beside it,
 * with the same code, the same loop and the same edge, but its own catalogue, accounts, breakers, gates,
 * rates, ledger, records, metrics and connections. So nothing of it can get into anybody's budget, report,
 * breaker or chart, and nothing in the house has to ask whether a request is real. Behind its accounts is
 * drill.h's provider on loopback, which is all that they can reach.
 *
 * Each copy has an account of its own: no request of a drill sees what another one did to a key or a breaker,
 * and each drill begins with all of them fresh.
 *
 * A drill ends in a tick, when none of its requests runs: nothing of it is then on the stack. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/id.h"
#include "base/log.h"
#include "base/mem.h"
#include "drill/drill.h"
#include "gateway/gateway_int.h"

#define MODEL_PREFIX "drill/"
#define COPIES 6 /* a request of each of three dialects, streamed and whole */
#define ARENA_BYTES_MAX ((size_t)16 << 20)
#define REPLY_BYTES_MAX 16384
#define NAME_BYTES_MAX 64
#define BUSY_RETRY_S 1

struct drill {
    struct gateway *gateway; /* the station's */
    struct gateway *inner;   /* the drill's own */
    struct drill_provider *provider;
    struct http_client *client;
    struct ledger *ledger;
    struct arena arena;                 /* names and lists */
    struct provider_account **accounts; /* one a model */
    struct gateway_model *models;
    struct gateway_route *routes;
    size_t model_count, route_count;
    size_t healthy[2]; /* models: who is behind; one of them speaks another API than the faulty one */
    char id[ID_TEXT_MAX], dir[PATH_BYTES_MAX];
    uint64_t used_ns;
    bool is_ending, is_closed;
    void (*over)(void *ud); /* the station waits for the end; NULL: it does not */
    void *over_ud;
};

/* What is asked for: all, or some. */
struct selection {
    bool apis[DRILL_API_COUNT];
    bool *faults; /* [drill_fault_count] */
};

/* ---- The end */

static void on_provider_stopped(void *ud)
{
    struct drill *drill = ud;
    void (*over)(void *) = drill->over;
    void *over_ud = drill->over_ud;
    drill->gateway->drill = NULL;
    mem_free(drill);
    if (over)
        over(over_ud);
}

static void close_drill(struct drill *drill)
{
    struct ph_err err;
    drill->is_closed = true;
    http_client_close(drill->client);
    gateway_free(drill->inner);
    for (size_t i = 0; i < drill->model_count; i++) {
        provider_free(drill->models[i].provider);
        provider_account_free(drill->accounts[i]);
    }
    ledger_close(drill->ledger);
    if (drill->dir[0] && file_remove_dir(drill->dir, &err) != PH_OK)
        log_warn("drill", "%s", err.message);
    arena_release(&drill->arena);
    if (drill->provider)
        drill_provider_stop(drill->provider, on_provider_stopped, drill);
    else
        on_provider_stopped(drill);
}

void drill_tick(struct gateway *gateway)
{
    struct drill *drill = gateway->drill;
    if (!drill || drill->is_closed)
        return;
    gateway_chats_tick(drill->inner);
    ledger_tick(drill->ledger);
    uint64_t idle_ns = clock_monotonic_ns(gateway->clock) - drill->used_ns;
    if (!drill->inner->open_chats && (drill->is_ending || idle_ns > DRILL_IDLE_S * UINT64_C(1000000000)))
        close_drill(drill);
}

void drill_stop(struct gateway *gateway, void (*over)(void *ud), void *ud)
{
    struct drill *drill = gateway->drill;
    if (!drill) {
        over(ud);
        return;
    }
    drill->over = over;
    drill->over_ud = ud;
    if (!drill->is_closed)
        close_drill(drill);
}

/* ---- The catalogue */

static char *name_of(struct drill *drill, const char *api, const char *fault, const char *more)
{
    char name[NAME_BYTES_MAX];
    snprintf(name, sizeof name, MODEL_PREFIX "%s/%s%s", api, fault, more);
    return arena_strdup(&drill->arena, name);
}

/* A model of an account of its own; it is the drill's as soon as it is made. */
static enum ph_status add_model(struct drill *drill, const char *name, enum drill_api api, size_t fault,
                                struct ph_err *err)
{
    char url[DRILL_URL_MAX];
    const char *key = drill_provider_key(drill->provider);
    bool is_faulty = fault < drill_fault_count;
    uint32_t timeout_ms = is_faulty ? DRILL_TIMEOUT_MS : 0;
    size_t at = drill->model_count;
    struct gateway_model *model = &drill->models[at];
    if (!name)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    drill_provider_url(drill->provider, api, fault, url);
    struct provider_account_params params = {.name = name,
                                             .base_url = url,
                                             .codec = chat_codec_find(drill_api_codec(api)),
                                             .keys = &key,
                                             .key_count = 1,
                                             .connect_timeout_ms = timeout_ms,
                                             .head_timeout_ms = timeout_ms,
                                             .silence_timeout_ms = timeout_ms,
                                             .reply_bytes_max = DRILL_REPLY_BYTES_MAX,
                                             .is_drill = true,
                                             .client = drill->client,
                                             .clock = drill->gateway->clock};
    enum ph_status status = provider_account_create(&drill->accounts[at], &params, err);
    if (status != PH_OK)
        return status;
    drill->model_count++;
    model->tier = LEDGER_PREMIUM;
    model->price = (struct ledger_price){2500000, 1250000, 2500000, 10000000}; /* as the dear ones have */
    model->abilities = is_faulty ? 0 : GATEWAY_PREFIX;
    return provider_remote_create(&model->provider, name, drill->accounts[at], "drill", 0, err);
}

static enum ph_status add_route(struct drill *drill, const char *name, size_t second, struct ph_err *err)
{
    bool is_backed = second < drill->model_count;
    struct gateway_member *members = arena_calloc(&drill->arena, 2, sizeof *members);
    if (!members)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    members[0].model = drill->model_count - 1;
    members[1].model = second;
    drill->routes[drill->route_count++] = (struct gateway_route){
        .name = name, .policy = GATEWAY_FALLBACK, .members = members, .member_count = is_backed ? 2 : 1};
    return PH_OK;
}

static enum ph_status add_fault(struct drill *drill, enum drill_api api, size_t fault, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    bool goes_on_in_openai = api == DRILL_ANTHROPIC || api == DRILL_GEMINI;
    for (int i = 0; i < 2 * COPIES && status == PH_OK; i++) {
        char more[16];
        bool is_backed = i >= COPIES;
        snprintf(more, sizeof more, "%s/%d", is_backed ? "+ok" : "", i % COPIES + 1);
        const char *name = name_of(drill, drill_api_name(api), drill_faults[fault].name, more);
        status = add_model(drill, name, api, fault, err);
        if (status == PH_OK)
            status =
                add_route(drill, name, is_backed ? drill->healthy[goes_on_in_openai ? 0 : 1] : SIZE_MAX, err);
    }
    return status;
}

static enum ph_status make_catalogue(struct drill *drill, const struct selection *selection,
                                     struct ph_err *err)
{
    static const enum drill_api behind[2] = {DRILL_OPENAI, DRILL_ANTHROPIC};
    size_t most = 2 + DRILL_API_COUNT * drill_fault_count * 2 * COPIES;
    drill->models = arena_calloc(&drill->arena, most, sizeof *drill->models);
    drill->routes = arena_calloc(&drill->arena, most, sizeof *drill->routes);
    drill->accounts = arena_calloc(&drill->arena, most, sizeof *drill->accounts);
    if (!drill->models || !drill->routes || !drill->accounts)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    enum ph_status status = PH_OK;
    for (int i = 0; i < 2 && status == PH_OK; i++) {
        drill->healthy[i] = drill->model_count;
        const char *name = name_of(drill, drill_api_name(behind[i]), "ok", "");
        status = add_model(drill, name, behind[i], drill_fault_count, err);
    }
    for (int api = 0; api < DRILL_API_COUNT; api++)
        for (size_t fault = 0; fault < drill_fault_count && status == PH_OK; fault++)
            if (selection->apis[api] && selection->faults[fault])
                status = add_fault(drill, (enum drill_api)api, fault, err);
    return status;
}

/* ---- The beginning */

static enum ph_status open_parts(struct drill *drill, const struct selection *selection, struct ph_err *err)
{
    struct gateway *gateway = drill->gateway;
    struct http_client_params client = {
        .loop = gateway->loop, .clock = gateway->clock, .user_agent = "pharos-drill"};
    struct ledger_params ledger = {.dir = drill->dir, .clock = gateway->clock};
    int len = snprintf(drill->dir, sizeof drill->dir, "%s/drill", gateway->data);
    if (len < 0 || (size_t)len >= sizeof drill->dir) {
        drill->dir[0] = 0;
        return ph_fail(err, PH_ERR_LIMIT, "the name of the data directory is too long");
    }
    enum ph_status status = ledger_open(&drill->ledger, &ledger, NULL, err);
    if (status != PH_OK)
        drill->dir[0] = 0; /* it may be another station's */
    if (status == PH_OK)
        status = http_client_open(&drill->client, &client, err);
    if (status == PH_OK)
        status = drill_provider_open(&drill->provider, gateway->loop, gateway->clock, err);
    if (status == PH_OK)
        status = make_catalogue(drill, selection, err);
    struct gateway_params params = {.host = "127.0.0.1",
                                    .models = drill->models,
                                    .model_count = drill->model_count,
                                    .routes = drill->routes,
                                    .route_count = drill->route_count,
                                    .ledger = drill->ledger,
                                    .request_log_fd = -1,
                                    .clock = gateway->clock,
                                    .seed = rng_u64(&gateway->rng),
                                    .version = gateway->version};
    return status == PH_OK ? gateway_new(&drill->inner, gateway->loop, &params, err) : status;
}

static enum ph_status open_drill(struct gateway *gateway, const struct selection *selection,
                                 struct ph_err *err)
{
    struct drill *drill = mem_calloc(1, sizeof *drill);
    if (!drill)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    drill->gateway = gateway;
    drill->used_ns = clock_monotonic_ns(gateway->clock);
    arena_init(&drill->arena, ARENA_BYTES_MAX);
    id_make(&gateway->rng, "drill-", drill->id);
    gateway->drill = drill;
    enum ph_status status = open_parts(drill, selection, err);
    if (status != PH_OK)
        close_drill(drill);
    return status;
}

/* ---- Requests */

struct gateway *drill_gateway(struct gateway *gateway, const struct chat_request *request,
                              const struct caller *caller)
{
    struct drill *drill = gateway->drill;
    bool is_asked = drill && !drill->is_ending && !drill->is_closed && request->model &&
                    strncmp(request->model, MODEL_PREFIX, sizeof MODEL_PREFIX - 1) == 0;
    if (!is_asked || (caller->key && !key_allows(caller->key, "admin")))
        return gateway;
    drill->used_ns = clock_monotonic_ns(gateway->clock);
    return drill->inner;
}

const char *drill_find_route(const struct gateway *gateway, const char *id, size_t *len)
{
    const struct drill *drill = gateway->drill;
    return drill && !drill->is_closed ? route_book_find(drill->inner->book, id, len) : NULL;
}

/* ---- Endpoints */

/* One list of names; absent: all. */
static bool select_names(const struct json *names, const char *param, struct selection *out,
                         struct chat_fault *fault)
{
    bool is_api = strcmp(param, "apis") == 0;
    bool *list = is_api ? out->apis : out->faults;
    size_t count = is_api ? DRILL_API_COUNT : drill_fault_count;
    for (size_t i = 0; i < count; i++)
        list[i] = json_is_absent(names);
    JSON_EACH (item, names) {
        const char *name = json_text(item, "");
        enum drill_api api = DRILL_API_COUNT;
        size_t index = count;
        if (is_api && drill_api_find(name, &api))
            index = (size_t)api;
        else if (!is_api)
            (void)drill_fault_find(name, &index);
        if (index >= count) {
            chat_fault_set(fault, 400, "drill_unknown", param,
                           "this station knows no \"%.60s\" to drill with", name);
            return false;
        }
        list[index] = true;
    }
    return true;
}

static bool read_selection(struct http_exchange *exchange, struct selection *out, struct chat_fault *fault)
{
    struct json *body = NULL;
    out->faults = arena_calloc(http_exchange_arena(exchange), drill_fault_count, sizeof *out->faults);
    if (!out->faults) {
        chat_fault_set(fault, 503, NULL, NULL, "out of memory");
        return false;
    }
    if (http_exchange_request(exchange)->body_len && !gateway_body(exchange, &body, fault))
        return false;
    return select_names(json_get(body, "apis"), "apis", out, fault) &&
           select_names(json_get(body, "faults"), "faults", out, fault);
}

static void write_drill(const struct drill *drill, const struct selection *selection, struct buf *out)
{
    const char *comma = "";
    buf_printf(out, "{\"id\":\"%s\",\"version\":\"%s\",\"copies\":%d,\"expires_s\":%d,\"apis\":[", drill->id,
               drill->gateway->version, COPIES, DRILL_IDLE_S);
    for (int api = 0; api < DRILL_API_COUNT; api++)
        if (selection->apis[api]) {
            buf_printf(out, "%s\"%s\"", comma, drill_api_name((enum drill_api)api));
            comma = ",";
        }
    buf_puts(out, "],\"faults\":[");
    comma = "";
    for (size_t i = 0; i < drill_fault_count; i++)
        if (selection->faults[i]) {
            buf_printf(out, "%s\"%s\"", comma, drill_faults[i].name);
            comma = ",";
        }
    buf_puts(out, "]}");
}

static bool may_begin(const struct gateway *gateway, struct chat_fault *fault)
{
    if (!gateway->drills || !gateway->data) {
        chat_fault_set(fault, 403, "drills_not_enabled", NULL,
                       "this station does no drills: put `drills: true` into its configuration and start it "
                       "again");
        return false;
    }
    if (!gateway->drill)
        return true;
    bool is_ending = gateway->drill->is_ending || gateway->drill->is_closed;
    chat_fault_set(fault, 409, is_ending ? "drill_ending" : "drill_running", NULL,
                   is_ending
                       ? "the last drill is coming to its end; try again in a second"
                       : "a drill is on already; it ends by itself when nobody goes on with it for %d s",
                   DRILL_IDLE_S);
    fault->retry_after_s = is_ending ? BUSY_RETRY_S : DRILL_IDLE_S;
    return false;
}

void handle_drill_begin(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit)
{
    (void)visit;
    struct selection selection;
    struct chat_fault fault;
    struct ph_err err;
    struct buf body;
    bool ok = may_begin(gateway, &fault) && read_selection(exchange, &selection, &fault);
    if (ok && open_drill(gateway, &selection, &err) != PH_OK) {
        chat_fault_set(&fault, 503, "drill_unavailable", NULL, "no drill can be begun: %s", err.message);
        ok = false;
    }
    if (!ok) {
        gateway_reply_fault(gateway, exchange, &fault);
        return;
    }
    log_info("drill", "%s begins: %zu models", gateway->drill->id, gateway->drill->model_count);
    buf_init(&body, REPLY_BYTES_MAX);
    write_drill(gateway->drill, &selection, &body);
    gateway_reply(gateway, exchange, 200, JSON_TYPE, &body);
    buf_release(&body);
}

void handle_drill_end(struct gateway *gateway, struct http_exchange *exchange, const struct visit *visit)
{
    struct drill *drill = gateway->drill;
    struct chat_fault fault;
    struct buf body;
    if (!drill || drill->is_closed || strcmp(drill->id, visit->rest) != 0) {
        chat_fault_set(&fault, 404, "drill_not_found", NULL, "no drill \"%.60s\" is on", visit->rest);
        gateway_reply_fault(gateway, exchange, &fault);
        return;
    }
    drill->is_ending = true;
    log_info("drill", "%s ends: its provider had %llu requests", drill->id,
             (unsigned long long)drill_provider_requests(drill->provider));
    buf_init(&body, REPLY_BYTES_MAX);
    buf_printf(&body, "{\"id\":\"%s\",\"ended\":true,\"provider_requests\":%llu}", drill->id,
               (unsigned long long)drill_provider_requests(drill->provider));
    gateway_reply(gateway, exchange, 200, JSON_TYPE, &body);
    buf_release(&body);
}
