/* The configuration file: its tables, and the checks that tables cannot express.
 *
 * All keys of the contract are read, so that one file serves every version. A key whose feature this version
 * has not is answered with a warning that says so: nobody shall believe in a budget that is not kept. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"
#include "cli/station_int.h"

static const char *const tiers[] = {"local", "subscription", "premium", NULL};
static const char *const policies[] = {"cascade", "weighted", "fallback", NULL};
static const char *const kv_types[] = {"f16", "f32", "q8_0", NULL};

#define ROW(name_, type_, struct_, member_, help_) \
    .key = (name_), .type = (type_), .offset = offsetof(struct struct_, member_), .help = (help_)
#define END         \
    {               \
        .key = NULL \
    }

static const struct config_field model_fields[] = {
    {ROW("id", CONFIG_STRING, station_model, id, "the name that requests use"), .required = true},
    {ROW("tier", CONFIG_ENUM, station_model, tier, "what it costs to ask"), .names = tiers},
    {ROW("path", CONFIG_STRING, station_model, path, "a GGUF file to run here")},
    {ROW("context", CONFIG_INT, station_model, context, "tokens of prompt and reply; 0: as trained"),
     .max = MODEL_CONTEXT_MAX},
    {ROW("threads", CONFIG_INT, station_model, threads, "0: one a CPU"), .max = 4096},
    {ROW("sequences", CONFIG_INT, station_model, sequences, "decoding together; 0: default"),
     .max = ENGINE_SEQUENCES_MAX},
    {ROW("queue", CONFIG_INT, station_model, queue, "waiting for a place; 0: default"),
     .max = ENGINE_QUEUE_MAX},
    {ROW("kv", CONFIG_ENUM, station_model, kv, "type of the KV cache"), .names = kv_types},
    {ROW("command", CONFIG_STRING, station_model, command, "a program to run and supervise")},
    {ROW("api", CONFIG_STRING, station_model, api, "what that program speaks")},
    {ROW("ttl_s", CONFIG_INT, station_model, ttl_s, "stop it after this idle time"), .max = 1e9},
    {ROW("provider", CONFIG_STRING, station_model, provider, "an entry of providers")},
    {ROW("upstream", CONFIG_STRING, station_model, upstream, "the model's name there")},
    {ROW("traits", CONFIG_FREE, station_model, traits, "what kind of model it is, for juries")},
    {ROW("price", CONFIG_FREE, station_model, price, "USD a million tokens")},
    END};

static const struct config_field provider_fields[] = {
    {ROW("api", CONFIG_STRING, station_provider, api, "openai, anthropic, gemini")},
    {ROW("base_url", CONFIG_STRING, station_provider, base_url, "where it is")},
    {ROW("key", CONFIG_STRING, station_provider, key, "${NAME} or file:/path")},
    {ROW("monthly_usd", CONFIG_DOUBLE, station_provider, monthly_usd, "what the subscription costs"),
     .max = 1e9},
    {ROW("rpm", CONFIG_INT, station_provider, rpm, "requests a minute it allows"), .max = 1e9},
    END};

static const struct config_field route_fields[] = {
    {ROW("model", CONFIG_STRING, station_route, model, "the name that requests use"), .required = true},
    {ROW("policy", CONFIG_ENUM, station_route, policy, "how to choose"), .names = policies},
    {ROW("order", CONFIG_LIST, station_route, order, "tiers or models, first first")},
    {ROW("escalate_below", CONFIG_DOUBLE, station_route, escalate_below, "agreement, 0 to 1"), .max = 1},
    {ROW("weights", CONFIG_FREE, station_route, weights, "model: share")},
    END};

static const struct config_field budget_fields[] = {
    {ROW("premium_usd_month", CONFIG_DOUBLE, station_config, budgets.premium_usd_month, "at most this much"),
     .max = 1e9},
    END};

static const struct config_field memory_fields[] = {
    {ROW("store", CONFIG_STRING, station_config, memory.store, "sqlite")},
    {ROW("embedding", CONFIG_FREE, station_config, memory.embedding, "a model, or null")},
    END};

static const struct config_field station_fields[] = {
    {ROW("listen", CONFIG_STRING, station_config, listen, "host:port")},
    {ROW("data", CONFIG_STRING, station_config, data, "directory of the store")},
    {ROW("models", CONFIG_LIST, station_config, models, "who can answer"), .fields = model_fields,
     .item_size = sizeof(struct station_model)},
    {ROW("providers", CONFIG_MAP, station_config, providers, "accounts elsewhere"), .fields = provider_fields,
     .item_size = sizeof(struct station_provider)},
    {ROW("routes", CONFIG_LIST, station_config, routes, "names that choose a model"), .fields = route_fields,
     .item_size = sizeof(struct station_route)},
    /* Both tables hold offsets from the station's own start. */
    {.key = "budgets", .type = CONFIG_STRUCT, .fields = budget_fields, .help = "limits on spending"},
    {.key = "memory", .type = CONFIG_STRUCT, .fields = memory_fields, .help = "what is remembered"},
    END};

void station_config_default(struct station_config *config)
{
    *config = (struct station_config){.listen = NULL};
}

enum ph_status station_config_read(struct arena *arena, const char *path, struct station_config *config,
                                   struct ph_err *err)
{
    return config_read(arena, path, station_fields, config, err);
}

/* ---- Models of the command line */

static char *file_stem(struct arena *arena, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    size_t len = strlen(name);
    if (len > 5 && strcmp(name + len - 5, ".gguf") == 0)
        len -= 5;
    return arena_strndup(arena, name, len);
}

enum ph_status station_config_add_model(struct arena *arena, struct station_config *config, const char *path,
                                        struct ph_err *err)
{
    size_t count = config->models.count;
    struct station_model *models = arena_calloc(arena, count + 1, sizeof *models);
    char *id = file_stem(arena, path), *copy = arena_strdup(arena, path);
    if (!models || !id || !copy)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    if (count)
        memcpy(models, config->models.items, count * sizeof *models);
    models[count] = (struct station_model){.id = id, .path = copy};
    config->models = (struct config_list){models, count + 1};
    return PH_OK;
}

/* ---- Checks */

static bool parse_port(const char *text, uint16_t *out)
{
    char *end;
    long port = strtol(text, &end, 10);
    if (end == text || *end || port < 0 || port > 65535)
        return false;
    *out = (uint16_t)port;
    return true;
}

/* "127.0.0.1:8080", "[::1]:8080", "localhost:8080", ":8080" (every address), "8080" (loopback). */
static enum ph_status parse_listen(struct arena *arena, struct station_config *config, struct ph_err *err)
{
    const char *text = config->listen ? config->listen : STATION_LISTEN_DEFAULT;
    const char *colon = strrchr(text, ':');
    const char *port = colon ? colon + 1 : text;
    const char *host = text;
    size_t len = colon ? (size_t)(colon - text) : 0;
    if (len >= 2 && host[0] == '[' && host[len - 1] == ']') {
        host++;
        len -= 2;
    }
    config->host =
        len ? arena_strndup(arena, host, len) : arena_strdup(arena, colon ? "0.0.0.0" : "127.0.0.1");
    if (!config->host)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    if (!parse_port(port, &config->port))
        return ph_fail(err, PH_ERR_ARG, "listen: \"%s\" is not an address and a port, such as 127.0.0.1:8080",
                       text);
    return PH_OK;
}

static enum ph_status check_ids(const struct station_config *config, struct ph_err *err)
{
    const struct station_model *models = config->models.items;
    for (size_t i = 0; i < config->models.count; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(models[i].id, models[j].id) == 0)
                return ph_fail(err, PH_ERR_ARG, "two models are called %s; give each its own id",
                               models[i].id);
    return PH_OK;
}

/* Why this version cannot run the model; NULL: it can. */
static const char *unrunnable(const struct station_model *model)
{
    if (model->path)
        return NULL;
    if (model->command)
        return "engines run as a command are not available in this version";
    if (model->provider)
        return "models of providers are not available in this version";
    return "it has no path";
}

/* Keeps the models that can run, in order. */
static enum ph_status keep_runnable(struct station_config *config, struct ph_err *err)
{
    struct station_model *models = config->models.items;
    size_t kept = 0;
    for (size_t i = 0; i < config->models.count; i++) {
        const char *reason = unrunnable(&models[i]);
        if (reason) {
            log_warn("config", "model %s is left out: %s", models[i].id, reason);
            continue;
        }
        if (!file_exists(models[i].path))
            return ph_fail(err, PH_ERR_NOTFOUND, "model %s: there is no file %s", models[i].id,
                           models[i].path);
        if (models[i].price || models[i].traits)
            log_warn("config", "model %s: price and traits are not used in this version", models[i].id);
        models[kept++] = models[i];
    }
    if (config->models.count == 0)
        return ph_fail(err, PH_ERR_ARG,
                       "there is no model to serve; give --model FILE.gguf, or --config with models");
    if (kept == 0)
        return ph_fail(err, PH_ERR_UNSUPPORTED,
                       "none of the %zu models can be run by this version; add one "
                       "with a path",
                       config->models.count);
    if (kept > STATION_MODELS_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%zu models are configured; at most %d are served", kept,
                       STATION_MODELS_MAX);
    config->models.count = kept;
    return PH_OK;
}

static void warn_of_unused(const struct station_config *config)
{
    const struct {
        bool given;
        const char *text;
    } rows[] = {
        {config->data != NULL, "data: nothing is stored in this version; the directory is not used"},
        {config->memory.store || !json_is_absent(config->memory.embedding),
         "memory: conversations are not stored in this version"},
        {config->providers.count > 0, "providers: accounts elsewhere are not available in this version"},
        {config->routes.count > 0,
         "routes: not available in this version; requests for their names are answered with model_not_found"},
        {config->budgets.premium_usd_month > 0,
         "budgets: not available in this version, and nothing in it can spend money"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].given)
            log_warn("config", "%s", rows[i].text);
}

enum ph_status station_config_check(struct arena *arena, struct station_config *config, struct ph_err *err)
{
    enum ph_status status = parse_listen(arena, config, err);
    if (status == PH_OK)
        status = check_ids(config, err);
    if (status == PH_OK)
        status = keep_runnable(config, err);
    if (status == PH_OK)
        warn_of_unused(config);
    return status;
}
