/* The catalogue: a configuration becomes accounts, providers, models and routes.
 *
 * What a configuration need not say is a table here: where well-known providers are and what they speak, what
 * each kind of model can do. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli_int.h"
#include "cli/secret_int.h"
#include "cli/station_int.h"

enum api { API_AUTO, API_OPENAI, API_ANTHROPIC, API_GEMINI }; /* as the configuration counts them */

struct maker {
    struct arena *arena;
    const struct station_config *config;
    const char *log_dir;
    struct net_loop *loop;
    struct http_client *client;
    const struct clock_source *clock;
    struct station_catalog *out;
    struct ph_err *err;
};

static enum ph_status no_memory(struct maker *m)
{
    return ph_fail(m->err, PH_ERR_NOMEM, "out of memory");
}

/* ---- Accounts */

static const struct known {
    const char *name;
    enum api api;
    const char *base_url;
    bool max_completion;
} known_providers[] = {
    {"openai", API_OPENAI, "https://api.openai.com/v1", true},
    {"anthropic", API_ANTHROPIC, "https://api.anthropic.com/v1", false},
    {"gemini", API_GEMINI, "https://generativelanguage.googleapis.com/v1beta", false},
    {"together", API_OPENAI, "https://api.together.xyz/v1", false},
    {"groq", API_OPENAI, "https://api.groq.com/openai/v1", false},
    {"mistral", API_OPENAI, "https://api.mistral.ai/v1", false},
    {"deepseek", API_OPENAI, "https://api.deepseek.com/v1", false},
    {"openrouter", API_OPENAI, "https://openrouter.ai/api/v1", false},
    {"fireworks", API_OPENAI, "https://api.fireworks.ai/inference/v1", false},
    {"xai", API_OPENAI, "https://api.x.ai/v1", false},
};

static const struct known *find_known(const char *name)
{
    for (size_t i = 0; i < sizeof known_providers / sizeof *known_providers; i++)
        if (strcmp(known_providers[i].name, name) == 0)
            return &known_providers[i];
    return NULL;
}

bool station_knows_provider(const char *name)
{
    return find_known(name) != NULL;
}

static const struct chat_codec *codec_of(enum api api)
{
    static const char *const names[] = {"openai", "openai", "anthropic", "gemini"};
    return chat_codec_find(names[api]);
}

/* Well-known accounts need no entry but a key in the environment, where SDKs read it: OPENAI_API_KEY. */
static const char *environment_key(const char *name)
{
    char variable[64];
    size_t len = 0;
    for (; name[len] && len < 40; len++)
        variable[len] = (char)toupper((unsigned char)name[len]);
    snprintf(variable + len, sizeof variable - len, "_API_KEY");
    return getenv(variable);
}

/* `key` and all of `keys`, each of which may be a file of several. */
static enum ph_status read_keys(struct maker *m, const struct station_provider *from, const char *const **out,
                                size_t *count)
{
    char *const *list = from->keys.items;
    size_t values = from->keys.count + (from->key != NULL);
    const char **all = arena_calloc(m->arena, ACCOUNT_KEYS_MAX, sizeof *all);
    enum ph_status status = all ? PH_OK : no_memory(m);
    *count = 0;
    *out = all;
    if (status == PH_OK && !values && find_known(from->name)) {
        all[0] = environment_key(from->name);
        *count = all[0] && *all[0] ? 1 : 0;
        if (!*count)
            log_warn("config", "provider %s has no key: give it one under providers, or in the environment",
                     from->name);
    }
    for (size_t i = 0; i < values && status == PH_OK; i++) {
        const char *const *some;
        size_t some_count = 0;
        status =
            secret_read(m->arena, i < from->keys.count ? list[i] : from->key, &some, &some_count, m->err);
        if (status == PH_OK && *count + some_count > ACCOUNT_KEYS_MAX)
            return ph_fail(m->err, PH_ERR_LIMIT, "provider %s has more than %d keys", from->name,
                           ACCOUNT_KEYS_MAX);
        for (size_t k = 0; k < some_count && status == PH_OK; k++)
            all[(*count)++] = some[k];
    }
    return status;
}

static enum ph_status read_headers(struct maker *m, const struct station_provider *from,
                                   struct http_header **out, size_t *count)
{
    struct http_header *list = arena_calloc(m->arena, json_count(from->headers), sizeof *list);
    if (!list)
        return no_memory(m);
    *out = list;
    *count = 0;
    JSON_EACH (item, from->headers) {
        if (!item->key || !json_is(item, JSON_STRING))
            return ph_fail(m->err, PH_ERR_ARG, "provider %s: headers must be names with texts", from->name);
        list[(*count)++] = (struct http_header){item->key, item->u.str.text};
    }
    return PH_OK;
}

static uint32_t to_ms(double seconds)
{
    return (uint32_t)(seconds * 1000);
}

static char *without_slash(struct arena *arena, const char *url)
{
    size_t len = strlen(url);
    while (len && url[len - 1] == '/')
        len--;
    return arena_strndup(arena, url, len);
}

static enum api api_of(const struct station_provider *provider)
{
    const struct known *known = find_known(provider->name);
    if (provider->api != API_AUTO)
        return (enum api)provider->api;
    return known ? known->api : API_OPENAI;
}

const char *station_provider_url(const struct station_provider *provider)
{
    const struct known *known = find_known(provider->name);
    return provider->base_url ? provider->base_url : known ? known->base_url : NULL;
}

struct http_header *station_provider_auth(struct arena *arena, const struct station_provider *provider,
                                          size_t *count)
{
    static const struct http_header headers[] = {[API_OPENAI] = {"authorization", "Bearer "},
                                                 [API_ANTHROPIC] = {"x-api-key", ""},
                                                 [API_GEMINI] = {"x-goog-api-key", ""}};
    const struct http_header *form = &headers[api_of(provider)];
    const char *const *keys;
    struct ph_err err;
    struct maker m = {.arena = arena, .err = &err};
    size_t key_count;
    struct http_header *out = arena_calloc(arena, 2, sizeof *out);
    *count = 0;
    if (!out || read_keys(&m, provider, &keys, &key_count) != PH_OK || key_count == 0)
        return out;
    size_t size = strlen(form->value) + strlen(keys[0]) + 1;
    char *value = arena_alloc(arena, size);
    if (!value)
        return out;
    snprintf(value, size, "%s%s", form->value, keys[0]);
    out[(*count)++] = (struct http_header){form->name, value};
    if (api_of(provider) == API_ANTHROPIC)
        out[(*count)++] = (struct http_header){"anthropic-version", "2023-06-01"};
    return out;
}

static enum ph_status make_account(struct maker *m, const struct station_provider *from, size_t index)
{
    const struct known *known = find_known(from->name);
    const char *url = station_provider_url(from);
    if (!url)
        return ph_fail(m->err, PH_ERR_ARG,
                       "provider %s is not one whose address is known here: give base_url", from->name);
    struct provider_account_params params = {
        .name = from->name,
        .base_url = without_slash(m->arena, url),
        .codec = codec_of(api_of(from)),
        .connect_timeout_ms = to_ms(from->connect_timeout_s),
        .head_timeout_ms = to_ms(from->timeout_s),
        .silence_timeout_ms = to_ms(from->silence_timeout_s),
        .max_completion = from->max_completion_tokens || (known && known->max_completion && !from->base_url),
        .no_stream_usage = from->no_stream_usage,
        .client = m->client,
        .clock = m->clock};
    struct http_header *headers = NULL;
    enum ph_status status = read_keys(m, from, &params.keys, &params.key_count);
    if (status == PH_OK)
        status = read_headers(m, from, &headers, &params.header_count);
    params.headers = headers;
    if (status == PH_OK && !params.base_url)
        status = no_memory(m);
    if (status == PH_OK && !params.codec)
        status = ph_fail(m->err, PH_ERR_UNSUPPORTED, "provider %s: this version does not speak its api",
                         from->name);
    if (status == PH_OK)
        status = provider_account_create(&m->out->provider_accounts[index], &params, m->err);
    m->out->accounts[index] = (struct gateway_account){
        .name = from->name,
        .rpm = from->rpm,
        .tpm = from->tpm,
        .budget_pico_month = from->budget_usd_month > 0 ? ledger_pico(from->budget_usd_month) : -1,
        .account = m->out->provider_accounts[index]};
    return status;
}

/* ---- Models */

static const struct {
    const char *name;
    unsigned bit;
} abilities[] = {{"tools", GATEWAY_TOOLS},
                 {"images", GATEWAY_IMAGES},
                 {"logprobs", GATEWAY_LOGPROBS},
                 {"prefix", GATEWAY_PREFIX},
                 {"json", GATEWAY_JSON},
                 {"choices", GATEWAY_CHOICES},
                 {"completion", GATEWAY_COMPLETION},
                 {"embeddings", GATEWAY_EMBEDDINGS}};

#define ABILITIES_LOCAL \
    (GATEWAY_TOOLS | GATEWAY_LOGPROBS | GATEWAY_PREFIX | GATEWAY_CHOICES | GATEWAY_COMPLETION)
#define ABILITIES_OPENAI                                                                  \
    (GATEWAY_TOOLS | GATEWAY_IMAGES | GATEWAY_LOGPROBS | GATEWAY_JSON | GATEWAY_CHOICES | \
     GATEWAY_COMPLETION | GATEWAY_EMBEDDINGS)
#define ABILITIES_ANTHROPIC (GATEWAY_TOOLS | GATEWAY_IMAGES | GATEWAY_JSON)
#define ABILITIES_GEMINI (ABILITIES_ANTHROPIC | GATEWAY_CHOICES | GATEWAY_LOGPROBS)

/* An engine of one's own goes on from a beginning; of others, those whose dialect says so. */
static unsigned usual_abilities(const struct maker *m, const struct station_model *model)
{
    const struct station_provider *providers = m->config->providers.items;
    enum api api = API_OPENAI;
    if (model->path)
        return model_file_is_encoder(model->path) ? GATEWAY_EMBEDDINGS : ABILITIES_LOCAL;
    if (model->command)
        return ABILITIES_OPENAI | GATEWAY_PREFIX;
    for (size_t i = 0; i < m->config->providers.count; i++)
        if (strcmp(providers[i].name, model->provider) == 0)
            api = api_of(&providers[i]);
    const struct chat_codec *codec = codec_of(api);
    const char *name = model->upstream ? model->upstream : model->id;
    unsigned prefix = codec && codec->continues && codec->continues(name) ? GATEWAY_PREFIX : 0;
    return prefix | (api == API_ANTHROPIC ? ABILITIES_ANTHROPIC
                     : api == API_GEMINI  ? ABILITIES_GEMINI
                                          : ABILITIES_OPENAI);
}

static enum ph_status read_abilities(struct maker *m, const struct station_model *model, unsigned *out)
{
    char *const *names = model->capabilities.items;
    *out = model->capabilities.count ? 0 : usual_abilities(m, model);
    for (size_t i = 0; i < model->capabilities.count; i++) {
        unsigned bit = 0;
        for (size_t k = 0; k < sizeof abilities / sizeof *abilities; k++)
            if (strcmp(abilities[k].name, names[i]) == 0)
                bit = abilities[k].bit;
        if (!bit)
            return ph_fail(
                m->err, PH_ERR_ARG,
                "model %s: \"%s\" is no capability; there are tools, images, logprobs, prefix, json, "
                "choices, completion, embeddings",
                model->id, names[i]);
        *out |= bit;
    }
    return PH_OK;
}

/* USD a million tokens is micro-USD a token: a million picodollars. */
static struct ledger_price price_of(const struct station_price *from)
{
    double cached = from->cached_input > 0 ? from->cached_input : from->input;
    double write = from->cache_write > 0 ? from->cache_write : from->input;
    return (struct ledger_price){.input = (int64_t)(from->input * 1e6 + 0.5),
                                 .cached_input = (int64_t)(cached * 1e6 + 0.5),
                                 .cache_write = (int64_t)(write * 1e6 + 0.5),
                                 .output = (int64_t)(from->output * 1e6 + 0.5)};
}

static struct provider_account *account_of(struct maker *m, const char *name)
{
    for (size_t i = 0; i < m->out->account_count; i++)
        if (strcmp(m->out->accounts[i].name, name) == 0)
            return m->out->provider_accounts[i];
    return NULL;
}

static enum ph_status make_supervised(struct maker *m, const struct station_model *from,
                                      struct provider **out)
{
    struct provider_supervised_params params = {.model_id = from->id,
                                                .upstream = from->upstream,
                                                .command = from->command,
                                                .codec = codec_of((enum api)from->api),
                                                .health_path = from->health,
                                                .log_dir = m->log_dir,
                                                .context_len = (size_t)from->context,
                                                .ttl_s = (uint32_t)from->ttl_s,
                                                .start_timeout_s = (uint32_t)from->start_timeout_s,
                                                .memory_bytes = (uint64_t)from->memory_mb << 20,
                                                .room = m->out->room,
                                                .loop = m->loop,
                                                .client = m->client,
                                                .clock = m->clock};
    return provider_supervised_create(out, &params, m->err);
}

static enum ph_status make_provider(struct maker *m, const struct station_model *from, struct provider **out)
{
    if (from->path && model_file_is_encoder(from->path))
        return provider_embedder_create(out, from->id, m->err);
    if (from->path)
        return provider_local_create(out, from->id, m->clock, m->err);
    if (from->command)
        return make_supervised(m, from, out);
    return provider_remote_create(out, from->id, account_of(m, from->provider),
                                  from->upstream ? from->upstream : from->id, (size_t)from->context, m->err);
}

static enum ph_status make_model(struct maker *m, const struct station_model *from, struct gateway_model *out)
{
    unsigned bits = 0;
    enum ph_status status = read_abilities(m, from, &bits);
    if (status == PH_OK)
        status = make_provider(m, from, &out->provider);
    out->tier = (enum ledger_tier)from->tier;
    out->price = price_of(&from->price);
    out->abilities = bits;
    if (status == PH_OK && provider_is_embedder(out->provider))
        out->abilities |= GATEWAY_VECTORS_ONLY;
    out->max_output = (size_t)from->max_output;
    out->concurrency = (size_t)from->concurrency;
    out->queue_max = (size_t)from->queue;
    if (from->path && !out->concurrency) /* who waits, waits in the gate, where turns are taken */
        out->concurrency = from->sequences ? (size_t)from->sequences : ENGINE_SEQUENCES_DEFAULT;
    if (from->path && !out->queue_max)
        out->queue_max = ENGINE_QUEUE_DEFAULT;
    out->traits = from->traits;
    if (status == PH_OK && out->tier == LEDGER_PREMIUM && !out->price.input && !out->price.output)
        log_warn("config", "model %s is premium and has no price: its budget cannot be kept", from->id);
    return status;
}

/* ---- Routes */

struct members {
    struct gateway_member *list;
    size_t count;
};

static size_t find_model(const struct maker *m, const char *id)
{
    const struct station_model *models = m->config->models.items;
    size_t i = 0;
    while (i < m->config->models.count && strcmp(models[i].id, id) != 0)
        i++;
    return i;
}

static int find_tier(const char *name)
{
    for (int i = 0; i < LEDGER_TIER_COUNT; i++)
        if (strcmp(ledger_tier_name((enum ledger_tier)i), name) == 0)
            return i;
    return -1;
}

static void add_member(struct members *members, size_t model, unsigned stage, double weight)
{
    for (size_t i = 0; i < members->count; i++)
        if (members->list[i].model == model)
            return; /* the first mention counts */
    members->list[members->count++] = (struct gateway_member){model, stage, weight};
}

/* An entry of `order`: a model, or all models of a tier. */
static enum ph_status add_entry(struct maker *m, const struct station_route *from, const char *name,
                                unsigned stage, struct members *members)
{
    const struct station_model *models = m->config->models.items;
    size_t model = find_model(m, name);
    int tier = find_tier(name);
    if (model < m->config->models.count) {
        add_member(members, model, stage, 1);
        return PH_OK;
    }
    if (tier < 0)
        return ph_fail(m->err, PH_ERR_NOTFOUND, "route %s: \"%s\" is neither a model nor a tier", from->model,
                       name);
    for (size_t i = 0; i < m->config->models.count; i++)
        if (models[i].tier == tier)
            add_member(members, i, stage, 1);
    return PH_OK;
}

static enum ph_status add_weights(struct maker *m, const struct station_route *from, struct members *members)
{
    JSON_EACH (item, from->weights) {
        double weight;
        size_t model = find_model(m, item->key ? item->key : "");
        if (model >= m->config->models.count) { /* a rollout's candidate may be still to come */
            log_warn("config", "route %s: there is no model %.100s; the others have its share", from->model,
                     item->key ? item->key : "");
            continue;
        }
        if (!json_to_double(item, &weight) || weight < 0)
            return ph_fail(m->err, PH_ERR_ARG, "route %s: the weight of %s must be a number of at least 0",
                           from->model, item->key);
        add_member(members, model, 0, weight);
    }
    return PH_OK;
}

static enum ph_status list_models(struct maker *m, const struct station_route *from,
                                  const struct config_list *names, const size_t **out, size_t *count)
{
    char *const *list = names->items;
    size_t *models = arena_calloc(m->arena, names->count, sizeof *models);
    if (!models)
        return no_memory(m);
    for (size_t i = 0; i < names->count; i++) {
        models[i] = find_model(m, list[i]);
        if (models[i] >= m->config->models.count)
            return ph_fail(m->err, PH_ERR_NOTFOUND, "route %s: there is no model \"%s\"", from->model,
                           list[i]);
    }
    *out = models;
    *count = names->count;
    return PH_OK;
}

static enum ph_status make_route(struct maker *m, const struct station_route *from, struct gateway_route *out)
{
    static const char *const every_tier[] = {"local", "subscription", "premium"};
    struct members members = {arena_calloc(m->arena, m->config->models.count, sizeof *members.list), 0};
    const char *const *order = from->order.count ? from->order.items : every_tier;
    size_t order_count = from->order.count ? from->order.count : LEDGER_TIER_COUNT;
    enum ph_status status = members.list ? add_weights(m, from, &members) : no_memory(m);
    bool weighs = from->policy == GATEWAY_WEIGHTED;
    if (status == PH_OK && weighs && !members.count)
        return ph_fail(m->err, PH_ERR_ARG, "route %s: the policy weighted needs weights", from->model);
    for (size_t i = 0; i < order_count && status == PH_OK && (!weighs || from->order.count); i++)
        status = add_entry(m, from, order[i], (unsigned)i, &members);
    if (status == PH_OK && !members.count)
        return ph_fail(m->err, PH_ERR_ARG, "route %s has no model to choose from", from->model);
    *out = (struct gateway_route){.name = from->model,
                                  .policy = (enum gateway_policy)from->policy,
                                  .members = members.list,
                                  .member_count = members.count,
                                  .escalate_below = from->escalate_below > 0 ? from->escalate_below
                                                                             : GATEWAY_ESCALATE_BELOW_DEFAULT,
                                  .agree = (unsigned)from->agree,
                                  .hedge_ms = (uint32_t)from->hedge_ms};
    if (status == PH_OK)
        status = list_models(m, from, &from->context_fallback, &out->too_long, &out->too_long_count);
    if (status == PH_OK)
        status = list_models(m, from, &from->refusal_fallback, &out->refused, &out->refused_count);
    return status;
}

/* ---- All of it */

static enum ph_status make_all(struct maker *m)
{
    const struct station_config *config = m->config;
    const struct station_provider *providers = config->providers.items;
    const struct station_model *models = config->models.items;
    const struct station_route *routes = config->routes.items;
    struct station_catalog *out = m->out;
    struct provider_room_params room = {.limit_bytes = (uint64_t)config->engines.memory_mb << 20};
    enum ph_status status = provider_room_create(&out->room, &room, m->err);
    for (size_t i = 0; i < config->providers.count && status == PH_OK; i++, out->account_count++)
        status = make_account(m, &providers[i], i);
    for (size_t i = 0; i < config->models.count && status == PH_OK; i++, out->model_count++)
        status = make_model(m, &models[i], &out->models[i]);
    for (size_t i = 0; i < config->routes.count && status == PH_OK; i++, out->route_count++)
        status = make_route(m, &routes[i], &out->routes[i]);
    return status;
}

enum ph_status station_catalog_make(struct arena *arena, const struct station_config *config,
                                    const char *log_dir, struct net_loop *loop, struct http_client *client,
                                    const struct clock_source *clock, struct station_catalog *out,
                                    struct ph_err *err)
{
    struct maker m = {arena, config, log_dir, loop, client, clock, out, err};
    *out = (struct station_catalog){
        .models = arena_calloc(arena, config->models.count, sizeof *out->models),
        .accounts = arena_calloc(arena, config->providers.count, sizeof *out->accounts),
        .routes = arena_calloc(arena, config->routes.count, sizeof *out->routes),
        .provider_accounts = arena_calloc(arena, config->providers.count, sizeof *out->provider_accounts)};
    if (!out->models || !out->accounts || !out->routes || !out->provider_accounts)
        return no_memory(&m);
    return make_all(&m);
}

void station_catalog_release(struct station_catalog *catalog)
{
    for (size_t i = 0; i < catalog->model_count; i++)
        provider_free(catalog->models[i].provider);
    for (size_t i = 0; i < catalog->account_count; i++)
        provider_account_free(catalog->provider_accounts[i]);
    provider_room_free(catalog->room);
}
