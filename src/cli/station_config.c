/* The configuration file: its tables, and the checks that tables cannot express.
 *
 * All keys of the contract are read, so that one file serves every version. A key whose feature this version
 * has not is answered with a warning that says so. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"
#include "cli/station_int.h"

static const char *const tiers[] = {"local", "subscription", "premium", NULL};
/* In the order of enum gateway_policy. */
static const char *const policies[] = {"fallback", "weighted", "fastest", "cheapest",
                                       "tiers",    "cascade",  "task",    NULL};
static const char *const apis[] = {"auto", "openai", "anthropic", "gemini", NULL};
static const char *const kv_types[] = {"f16", "f32", "q8_0", NULL};

#define ROW(name_, type_, struct_, member_, help_) \
    .key = (name_), .type = (type_), .offset = offsetof(struct struct_, member_), .help = (help_)
#define END         \
    {               \
        .key = NULL \
    }

static const struct config_field price_fields[] = {
    {ROW("input_usd_per_mtok", CONFIG_DOUBLE, station_price, input, "a million tokens of prompt"),
     .max = 1e6},
    {ROW("cached_input_usd_per_mtok", CONFIG_DOUBLE, station_price, cached_input,
         "... read from a prompt cache"),
     .max = 1e6},
    {ROW("cache_write_usd_per_mtok", CONFIG_DOUBLE, station_price, cache_write, "... written to one"),
     .max = 1e6},
    {ROW("output_usd_per_mtok", CONFIG_DOUBLE, station_price, output, "a million tokens of answer"),
     .max = 1e6},
    END};

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
    {ROW("api", CONFIG_ENUM, station_model, api, "what that program speaks: openai"), .names = apis},
    {ROW("health", CONFIG_STRING, station_model, health, "its path that answers 200 when it is ready")},
    {ROW("ttl_s", CONFIG_INT, station_model, ttl_s, "stop it after this idle time; 0: never"), .max = 1e9},
    {ROW("start_timeout_s", CONFIG_INT, station_model, start_timeout_s, "how long it may take to start"),
     .max = 86400},
    {ROW("memory_mb", CONFIG_INT, station_model, memory_mb, "what that program needs; 0: as measured"),
     .max = STATION_MEMORY_MB_MAX},
    {ROW("provider", CONFIG_STRING, station_model, provider, "an entry of providers")},
    {ROW("upstream", CONFIG_STRING, station_model, upstream, "the model's name there")},
    {ROW("traits", CONFIG_FREE, station_model, traits, "what kind of model it is, for juries")},
    {ROW("price", CONFIG_STRUCT, station_model, price, "what it costs"), .fields = price_fields},
    {ROW("max_output", CONFIG_INT, station_model, max_output, "tokens of one answer, at most"), .max = 1e9},
    {ROW("concurrency", CONFIG_INT, station_model, concurrency, "requests at the same time"), .max = 65536},
    {ROW("capabilities", CONFIG_LIST, station_model, capabilities,
         "tools, images, logprobs, prefix, json, choices, completion, embeddings")},
    END};

static const struct config_field provider_fields[] = {
    {ROW("api", CONFIG_ENUM, station_provider, api, "openai, anthropic, gemini"), .names = apis},
    {ROW("base_url", CONFIG_STRING, station_provider, base_url, "where it is")},
    {ROW("key", CONFIG_STRING, station_provider, key, "${NAME} or file:/path")},
    {ROW("keys", CONFIG_LIST, station_provider, keys, "several of them")},
    {ROW("headers", CONFIG_FREE, station_provider, headers, "sent with every request: name: value")},
    {ROW("monthly_usd", CONFIG_DOUBLE, station_provider, monthly_usd, "what the subscription costs"),
     .max = 1e9},
    {ROW("budget_usd_month", CONFIG_DOUBLE, station_provider, budget_usd_month,
         "at most this much; 0: no limit"),
     .max = 1e9},
    {ROW("rpm", CONFIG_INT, station_provider, rpm, "requests a minute it allows"), .max = 1e9},
    {ROW("tpm", CONFIG_INT, station_provider, tpm, "tokens a minute it allows"), .max = 1e9},
    {ROW("connect_timeout_s", CONFIG_DOUBLE, station_provider, connect_timeout_s, "name, connection, TLS"),
     .max = 3600},
    {ROW("timeout_s", CONFIG_DOUBLE, station_provider, timeout_s, "until the reply begins"), .max = 86400},
    {ROW("silence_timeout_s", CONFIG_DOUBLE, station_provider, silence_timeout_s, "between two pieces of it"),
     .max = 86400},
    {ROW("max_completion_tokens", CONFIG_BOOL, station_provider, max_completion_tokens,
         "the limit has this name there")},
    {ROW("no_stream_usage", CONFIG_BOOL, station_provider, no_stream_usage, "it refuses stream_options")},
    END};

static const struct config_field route_fields[] = {
    {ROW("model", CONFIG_STRING, station_route, model, "the name that requests use"), .required = true},
    {ROW("policy", CONFIG_ENUM, station_route, policy, "how to choose"), .names = policies},
    {ROW("order", CONFIG_LIST, station_route, order, "tiers or models, first first")},
    {ROW("escalate_below", CONFIG_DOUBLE, station_route, escalate_below, "confidence, 0 to 1"), .max = 1},
    {ROW("agree", CONFIG_INT, station_route, agree, "cheap models asked at once and compared"), .max = 8},
    {ROW("hedge_ms", CONFIG_INT, station_route, hedge_ms, "ask a second one after this silence"),
     .max = 3.6e6},
    {ROW("weights", CONFIG_FREE, station_route, weights, "model: share")},
    {ROW("context_fallback", CONFIG_LIST, station_route, context_fallback, "for prompts that are too long")},
    {ROW("refusal_fallback", CONFIG_LIST, station_route, refusal_fallback, "for refused content")},
    END};

static const struct config_field budget_fields[] = {
    {ROW("total_usd_month", CONFIG_DOUBLE, station_config, budgets.total_usd_month, "of the whole station"),
     .max = 1e9},
    {ROW("premium_usd_month", CONFIG_DOUBLE, station_config, budgets.premium_usd_month,
         "of the premium tier"),
     .max = 1e9},
    {ROW("subscription_usd_month", CONFIG_DOUBLE, station_config, budgets.subscription_usd_month,
         "of what subscriptions cost by the token"),
     .max = 1e9},
    END};

static const struct config_field tls_fields[] = {
    {ROW("certificate", CONFIG_STRING, station_config, tls.certificate, "PEM file, with its chain")},
    {ROW("key", CONFIG_STRING, station_config, tls.key, "PEM file")},
    END};

static const struct config_field cache_fields[] = {
    {ROW("max_mb", CONFIG_INT, station_config, cache.max_mb, "memory for answers; 0: no cache"),
     .required = true, .max = CACHE_MB_MAX},
    {ROW("ttl_s", CONFIG_INT, station_config, cache.ttl_s, "how long an answer is good"), .min = 1,
     .max = 1e9},
    {ROW("shared", CONFIG_BOOL, station_config, cache.shared, "one key's answers serve the others too")},
    {ROW("redis", CONFIG_STRING, station_config, cache.redis,
         "one behind it, shared: redis://[[user]:password@]host[:port][/number]")},
    {ROW("redis_password", CONFIG_STRING, station_config, cache.redis_password, "${NAME} or file:/path")},
    END};

static const struct config_field request_log_fields[] = {
    {ROW("path", CONFIG_STRING, station_config, request_log.path, "the file"), .required = true},
    {ROW("bodies", CONFIG_BOOL, station_config, request_log.bodies, "with what was asked and said")},
    END};

static const struct config_field engines_fields[] = {
    {ROW("memory_mb", CONFIG_INT, station_config, engines.memory_mb,
         "what they may take together; 0: what is there"),
     .max = STATION_MEMORY_MB_MAX},
    END};

static const struct config_field memory_fields[] = {
    {ROW("store", CONFIG_STRING, station_config, memory.store, "sqlite, postgres://..., or off")},
    {ROW("embedding", CONFIG_FREE, station_config, memory.embedding, "a model, or null")},
    {ROW("redis", CONFIG_STRING, station_config, memory.redis,
         "conversations that stations share: redis://[[user]:password@]host[:port][/number]")},
    {ROW("redis_password", CONFIG_STRING, station_config, memory.redis_password, "${NAME} or file:/path")},
    {ROW("redis_ttl_s", CONFIG_INT, station_config, memory.redis_ttl_s, "how long one lies there"), .min = 1,
     .max = 31536000},
    END};

static const struct config_field thermal_cpu_fields[] = {
    {ROW("warn_c", CONFIG_DOUBLE, station_config, thermal.cpu.warn_c, "degrees"), .max = 200},
    {ROW("critical_c", CONFIG_DOUBLE, station_config, thermal.cpu.critical_c, "degrees"), .max = 200},
    END};

static const struct config_field thermal_gpu_fields[] = {
    {ROW("warn_c", CONFIG_DOUBLE, station_config, thermal.gpu.warn_c, "degrees"), .max = 200},
    {ROW("critical_c", CONFIG_DOUBLE, station_config, thermal.gpu.critical_c, "degrees"), .max = 200},
    END};

static const struct config_field thermal_fields[] = {
    {ROW("enabled", CONFIG_BOOL, station_config, thermal.enabled, "false: heat is nobody's business")},
    {ROW("interval_s", CONFIG_DOUBLE, station_config, thermal.interval_s, "between readings"), .min = 0.05,
     .max = 3600},
    {ROW("warn_c", CONFIG_DOUBLE, station_config, thermal.limits.warn_c, "degrees"), .min = 1, .max = 200},
    {ROW("critical_c", CONFIG_DOUBLE, station_config, thermal.limits.critical_c, "degrees"), .min = 1,
     .max = 200},
    {ROW("margin_c", CONFIG_DOUBLE, station_config, thermal.limits.margin_c,
         "degrees below a threshold that count as cool"),
     .min = 0.1, .max = 100},
    {ROW("admit_less_after_s", CONFIG_DOUBLE, station_config, thermal.limits.admit_less_after_s,
         "at warn for so long: fewer requests"),
     .max = 86400},
    {ROW("stop_after_s", CONFIG_DOUBLE, station_config, thermal.limits.stop_after_s,
         "at critical for so long: engines are stopped"),
     .max = 86400},
    {ROW("resume_after_s", CONFIG_DOUBLE, station_config, thermal.limits.resume_after_s,
         "cool for so long: a step back"),
     .max = 86400},
    {ROW("admit_share", CONFIG_DOUBLE, station_config, thermal.admit_share,
         "of the requests at a time, that fewer are"),
     .min = 0.01, .max = 1},
    {.key = "cpu", .type = CONFIG_STRUCT, .fields = thermal_cpu_fields, .help = "other thresholds for CPUs"},
    {.key = "gpu", .type = CONFIG_STRUCT, .fields = thermal_gpu_fields, .help = "other thresholds for GPUs"},
    {ROW("csv", CONFIG_STRING, station_config, thermal.csv, "a file for every reading")},
    {ROW("csv_max_mb", CONFIG_INT, station_config, thermal.csv_max_mb,
         "its size, and that of the one before"),
     .min = 1, .max = 65536},
    {ROW("sysfs", CONFIG_STRING, station_config, thermal.sysfs, "where the kernel shows sensors")},
    {ROW("nvml", CONFIG_STRING, station_config, thermal.nvml, "NVIDIA's management library")},
    END};

static const struct config_field station_fields[] = {
    {ROW("listen", CONFIG_STRING, station_config, listen, "host:port")},
    {ROW("data", CONFIG_STRING, station_config, data, "directory of the store")},
    {ROW("ca_file", CONFIG_STRING, station_config, ca_file, "PEM: trusted besides the system's")},
    {ROW("drills", CONFIG_BOOL, station_config, drills, "`pharos drill` may be run against this station")},
    {ROW("keep_rights", CONFIG_BOOL, station_config, keep_rights,
         "for engines that need set-user-ID programs or namespaces: the station gives up nothing")},
    {ROW("models", CONFIG_LIST, station_config, models, "who can answer"), .fields = model_fields,
     .item_size = sizeof(struct station_model)},
    {ROW("providers", CONFIG_MAP, station_config, providers, "accounts elsewhere"), .fields = provider_fields,
     .item_size = sizeof(struct station_provider)},
    {ROW("routes", CONFIG_LIST, station_config, routes, "names that choose a model"), .fields = route_fields,
     .item_size = sizeof(struct station_route)},
    /* These tables hold offsets from the station's own start. */
    {.key = "request_log",
     .type = CONFIG_STRUCT,
     .fields = request_log_fields,
     .takes_scalar = true,
     .help = "file: a line of JSON for each answer"},
    {.key = "budgets", .type = CONFIG_STRUCT, .fields = budget_fields, .help = "limits on spending"},
    {.key = "tls", .type = CONFIG_STRUCT, .fields = tls_fields, .help = "HTTPS instead of HTTP"},
    {.key = "engines", .type = CONFIG_STRUCT, .fields = engines_fields, .help = "programs that are started"},
    {.key = "cache", .type = CONFIG_STRUCT, .fields = cache_fields, .help = "answers that come again"},
    {.key = "memory", .type = CONFIG_STRUCT, .fields = memory_fields, .help = "what is remembered"},
    {.key = "thermal", .type = CONFIG_STRUCT, .fields = thermal_fields, .help = "what is done about heat"},
    END};

void station_config_default(struct station_config *config)
{
    *config = (struct station_config){
        .budgets = {-1, -1, -1},
        .cache = {.ttl_s = 3600},
        .memory = {.store = "sqlite", .redis_ttl_s = 3600},
        .thermal = {
            .enabled = true, .interval_s = 5, .admit_share = 0.5, .csv_max_mb = THERMAL_CSV_BYTES_MAX >> 20}};
    thermal_limits_default(&config->thermal.limits);
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

/* A model is a file here, a command, or a name at a provider. */
static enum ph_status check_model(const struct station_config *config, const struct station_model *model,
                                  struct ph_err *err)
{
    const struct station_provider *providers = config->providers.items;
    int ways = (model->path != NULL) + (model->command != NULL) + (model->provider != NULL);
    if (ways != 1)
        return ph_fail(
            err, PH_ERR_ARG,
            "model %s: give it one of path (a GGUF file), command (an engine to start) or provider "
            "(an account elsewhere); it has %s",
            model->id, ways ? "several" : "none");
    if (model->path && !file_exists(model->path))
        return ph_fail(err, PH_ERR_NOTFOUND, "model %s: there is no file %s", model->id, model->path);
    if (model->command && !strstr(model->command, "{port}"))
        return ph_fail(err, PH_ERR_ARG,
                       "model %s: the command has no {port}, so nobody could reach the engine", model->id);
    for (size_t i = 0; model->provider && i < config->providers.count; i++)
        if (strcmp(providers[i].name, model->provider) == 0)
            return PH_OK;
    if (model->provider)
        return ph_fail(err, PH_ERR_NOTFOUND, "model %s: there is no provider %s under providers", model->id,
                       model->provider);
    return PH_OK;
}

/* Models may name a well-known provider without an entry of its own. */
static enum ph_status add_known_providers(struct arena *arena, struct station_config *config,
                                          struct ph_err *err)
{
    const struct station_model *models = config->models.items;
    const struct station_provider *given = config->providers.items;
    size_t count = config->providers.count;
    struct station_provider *all = arena_calloc(arena, count + config->models.count, sizeof *all);
    if (!all)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < count; i++)
        all[i] = given[i];
    for (size_t i = 0; i < config->models.count; i++) {
        size_t k = 0;
        if (!models[i].provider || !station_knows_provider(models[i].provider))
            continue;
        while (k < count && strcmp(all[k].name, models[i].provider) != 0)
            k++;
        if (k == count)
            all[count++] = (struct station_provider){.name = models[i].provider};
    }
    config->providers = (struct config_list){all, count};
    return PH_OK;
}

static enum ph_status check_models(const struct station_config *config, struct ph_err *err)
{
    const struct station_model *models = config->models.items;
    enum ph_status status = PH_OK;
    if (config->models.count == 0)
        return ph_fail(err, PH_ERR_ARG,
                       "there is no model to serve; give --model FILE.gguf, or --config with models");
    if (config->models.count > STATION_MODELS_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%zu models are configured; at most %d are served",
                       config->models.count, STATION_MODELS_MAX);
    for (size_t i = 0; i < config->models.count && status == PH_OK; i++)
        status = check_model(config, &models[i], err);
    return status;
}

static enum ph_status check_tls(const struct station_config *config, struct ph_err *err)
{
    if (!config->tls.certificate == !config->tls.key)
        return PH_OK;
    return ph_fail(err, PH_ERR_ARG, "tls: certificate and key belong together; %s is missing",
                   config->tls.key ? "certificate" : "key");
}

static bool is_one_of(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(text, *words) == 0)
            return true;
    return false;
}

/* "sqlite", a database's address, or off (which YAML may have made a null or false of). */
static enum ph_status check_memory(struct station_config *config, struct ph_err *err)
{
    static const char *const none[] = {"off", "none", "null", "false", NULL};
    const char *store = config->memory.store;
    config->memory.is_off = !store || is_one_of(store, none);
    if (config->memory.is_off || strcmp(store, "sqlite") == 0)
        return PH_OK;
    if (strncmp(store, "postgres://", 11) != 0 && strncmp(store, "postgresql://", 13) != 0)
        return ph_fail(err, PH_ERR_ARG,
                       "memory.store is none that there is: sqlite, off, or postgres://user@host/database");
    config->memory.postgres = store;
    return PH_OK;
}

/* A model of this process, or null: the lexical embedding. */
static enum ph_status check_embedding(struct station_config *config, struct ph_err *err)
{
    const struct station_model *models = config->models.items;
    const struct json *embedding = config->memory.embedding;
    const char *id = json_text(embedding, NULL);
    if (json_is_absent(embedding) || (id && strcmp(id, "lexical") == 0))
        return PH_OK;
    for (size_t i = 0; id && i < config->models.count; i++)
        if (strcmp(models[i].id, id) == 0 && models[i].path) {
            config->memory.embedding_model = &models[i];
            return PH_OK;
        }
    return ph_fail(err, PH_ERR_ARG,
                   "memory.embedding: \"%.100s\" is no model with a path; name one, or null for the built-in "
                   "lexical embedding",
                   id ? id : "(no text)");
}

static void warn_of_unused(const struct station_config *config)
{
    if (config->cache.redis && !config->cache.max_mb)
        log_warn("config", "cache: with max_mb: 0 nothing is kept, in Redis neither");
    if (config->memory.redis && !config->memory.postgres)
        log_warn("config", "memory.redis: only stations with one store in PostgreSQL have anything to share");
}

enum ph_status station_config_check(struct arena *arena, struct station_config *config, struct ph_err *err)
{
    enum ph_status status = parse_listen(arena, config, err);
    if (status == PH_OK)
        status = check_ids(config, err);
    if (status == PH_OK)
        status = add_known_providers(arena, config, err);
    if (status == PH_OK)
        status = check_models(config, err);
    if (status == PH_OK)
        status = check_tls(config, err);
    if (status == PH_OK)
        status = check_memory(config, err);
    if (status == PH_OK)
        status = check_embedding(config, err);
    if (status == PH_OK)
        status = station_redis_read(arena, "cache", config->cache.redis, config->cache.redis_password,
                                    &config->cache.redis_at, err);
    if (status == PH_OK)
        status = station_redis_read(arena, "memory", config->memory.redis, config->memory.redis_password,
                                    &config->memory.redis_at, err);
    if (status == PH_OK)
        status = station_thermal_check(config, err);
    if (status == PH_OK)
        warn_of_unused(config);
    return status;
}
