/* A running station: one loop, one gateway, a provider a model, a ledger, the keys.
 *
 * The station listens before any model is loaded, so that /health answers at once; models of files load one
 * after the other on a helper thread and are attached as they come. A model that fails leaves the others
 * running; when none is left the station ends with exit code 1.
 *
 * Opened in the order of the fields of struct station, closed in the reverse.
 *
 * The first SIGTERM or SIGINT stops it gracefully, the second one cuts. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/process.h"
#include "cli/cli_int.h"
#include "cli/station_int.h"
#include "gateway/gateway.h"
#include "memory/embed.h"
#include "memory/memory.h"

#define LEDGERS_MAX 8        /* stations at the same time on one data directory */
#define FREE_PORT_FIRST 1024 /* those below it are the superuser's */

struct station {
    struct arena *arena;
    const struct station_config *config;
    const struct clock_source *clock;
    char data[PATH_BYTES_MAX];
    struct net_loop *loop;
    struct http_client *client;
    struct ledger *ledger;
    struct keys *keys;
    int request_log_fd; /* -1: none */
    struct station_catalog catalog;
    struct station_thermal *thermal; /* NULL: not guarded */
    struct gateway *gateway;
    struct memory *memory;         /* NULL: nothing is remembered */
    struct hot *hot;               /* NULL: conversations are shared with nobody */
    struct embed_worker *indexing; /* NULL: no embedding model is configured, or it is not loaded */
    struct net_timer *watchdog;    /* NULL: no service manager wants to hear of us */
    size_t loading;                /* index of the model being loaded */
    size_t usable;                 /* models that can be asked, or may be */
    size_t providers_left;         /* to be stopped */
    struct engine *engine;         /* the helper thread's result, one of these */
    struct embedder *embedder;
    enum ph_status load_status;
    struct ph_err load_err;
    struct station_prediction load_prediction;
    uint64_t load_start_ns, load_bytes;
    bool stopping;
    int exit_code;
};

/* ---- Stopping */

static void on_provider_stopped(void *ud)
{
    struct station *station = ud;
    if (--station->providers_left)
        return;
    http_client_close(station->client);
    station->client = NULL;
    hot_close(station->hot);
    if (station->watchdog)
        net_timer_close(station->watchdog);
    net_loop_stop(station->loop);
}

static void on_stopped(void *ud)
{
    struct station *station = ud;
    station->providers_left = station->catalog.model_count;
    for (size_t i = 0; i < station->catalog.model_count; i++)
        provider_stop(station->catalog.models[i].provider, station->loop, on_provider_stopped, station);
}

static void stop(struct station *station)
{
    if (station->stopping)
        return;
    station->stopping = true;
    station_thermal_stop(station->thermal);
    gateway_stop(station->gateway, on_stopped, station);
}

static void on_signal(void *ud, int signal_number)
{
    struct station *station = ud;
    if (station->stopping) {
        log_warn("station", "a second signal: cutting what is still running");
        _exit(128 + signal_number);
    }
    log_info("station", "stopping; running requests may finish (again to cut them)");
    (void)process_notify("STOPPING=1");
    stop(station);
}

/* ---- Loading models */

static void load_next(struct station *station);

static void load_embedder(struct station *station, const struct station_model *model)
{
    const struct embedder_params params = {.model_path = model->path,
                                           .threads = (unsigned)model->threads,
                                           .context_len = (size_t)model->context,
                                           .queue_max = (size_t)model->queue};
    station->load_status = embedder_open(&station->embedder, &params, &station->load_err);
}

static void load_work(void *ud) /* helper thread */
{
    static const enum tensor_type kv_types[] = {TENSOR_F16, TENSOR_F32, TENSOR_Q8_0};
    struct station *station = ud;
    const struct station_model *model =
        (const struct station_model *)station->config->models.items + station->loading;
    struct engine_params params;
    if (provider_is_embedder(station->catalog.models[station->loading].provider)) {
        load_embedder(station, model);
        return;
    }
    engine_params_default(&params);
    params.model_path = model->path;
    params.threads = (unsigned)model->threads;
    params.context_len = (size_t)model->context;
    params.sequences_max = (size_t)model->sequences;
    params.queue_max = (size_t)model->queue;
    params.kv_type = kv_types[model->kv];
    params.clock = station->clock;
    station->load_status = engine_open(&station->engine, &params, &station->load_err);
    station_predict(station->data, model, params.kv_type, &station->load_prediction);
}

/* Nothing is made for indexing alone: no store, no vectors. */
static struct store *store_to_index(void *ud) /* the worker's thread */
{
    const struct station *station = ud;
    struct store *store = NULL;
    char path[PATH_BYTES_MAX + 32];
    snprintf(path, sizeof path, "%s/" CLI_MEMORY_DIR "/store.db", station->data);
    if (!station->config->memory.postgres && !file_exists(path))
        return NULL;
    return memory_store(station->memory, &store, NULL) == PH_OK ? store : NULL;
}

static void start_indexing(struct station *station, const struct provider *provider)
{
    const struct station_model *models = station->config->models.items;
    struct ph_err err;
    const struct embed_worker_params params = {
        .embedder = provider_embedder(provider), .store = store_to_index, .ud = station};
    if (!station->memory || station->config->memory.embedding_model != &models[station->loading])
        return;
    if (!params.embedder)
        log_warn("station", "memory.embedding: %s is no embedding model; messages get no vectors",
                 provider_model_id(provider));
    else if (embed_worker_start(&station->indexing, &params, &err) != PH_OK ||
             memory_use_embedder(station->memory, params.embedder, &err) != PH_OK)
        log_warn("station", "memory.embedding: %s", err.message);
}

static void tell_prediction(struct station *station, const char *id)
{
    const struct station_prediction *p = &station->load_prediction;
    if (p->decode_tokens_s <= 0)
        return;
    log_info("station", "model %s should write %.1f to %.1f tokens/s here, by the machine's profile", id,
             p->decode_low, p->decode_high);
    gateway_predict(station->gateway, station->loading, p->prefill_tokens_s, p->decode_tokens_s);
}

static void load_done(void *ud)
{
    struct station *station = ud;
    struct provider *provider = station->catalog.models[station->loading].provider;
    const char *id = provider_model_id(provider);
    provider_room_unclaim(station->catalog.room, station->load_bytes);
    if (station->load_status == PH_OK && provider_is_embedder(provider))
        provider_embedder_attach(provider, station->embedder);
    else if (station->load_status == PH_OK)
        station->load_status = provider_local_attach(provider, station->engine, &station->load_err);
    if (station->load_status == PH_OK) {
        double ms = (double)(clock_monotonic_ns(station->clock) - station->load_start_ns) * 1e-6;
        log_info("station", "model %s is ready: %zu tokens of context, loaded in %.0f ms", id,
                 provider_context_len(provider), ms);
        tell_prediction(station, id);
        start_indexing(station, provider);
    } else {
        provider_local_fail(provider, station->load_err.message);
        station->usable--;
        log_error("station", "model %s: %s", id, station->load_err.message);
    }
    station->loading++;
    load_next(station);
}

static void load_next(struct station *station)
{
    const struct station_model *models = station->config->models.items;
    if (station->stopping)
        return;
    while (station->loading < station->config->models.count && !models[station->loading].path)
        station->loading++; /* elsewhere */
    if (station->loading < station->config->models.count) {
        struct file_stamp file;
        file_stamp(models[station->loading].path, &file);
        station->load_start_ns = clock_monotonic_ns(station->clock);
        station->load_bytes = file.bytes;
        if (net_work(station->loop, load_work, load_done, station) == PH_OK) {
            provider_room_claim(station->catalog.room, station->load_bytes);
            return;
        }
        log_error("station", "no helper thread to load models with");
        station->exit_code = CLI_EXIT_FAILURE;
        stop(station);
        return;
    }
    if (station->usable == 0) {
        log_error("station", "no model could be loaded");
        station->exit_code = CLI_EXIT_FAILURE;
        stop(station);
    }
}

/* ---- Opening */

static bool is_everywhere(const char *host)
{
    return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

static void greet(const struct station *station)
{
    const struct station_config *config = station->config;
    const char *host = is_everywhere(config->host) ? "127.0.0.1" : config->host;
    const char *open = strchr(host, ':') ? "[" : "", *close = *open ? "]" : "";
    const char *key = keys_on(station->keys) ? "a key of `pharos keys create`" : "any key";
    char url[320];
    snprintf(url, sizeof url, "%s://%s%.250s%s:%u", config->tls.key ? "https" : "http", open, host, close,
             (unsigned)gateway_port(station->gateway));
    printf("Pharos %s is listening on %s\n"
           "Talk to it with any OpenAI client (base URL %s/v1) or Anthropic client (base URL %s), %s,\n"
           "with `pharos chat --url %s`, or:\n"
           "  curl %s/v1/chat/completions %s-d "
           "'{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}'\n",
           PHAROS_VERSION, url, url, url, key, url, url,
           keys_on(station->keys) ? "-H \"Authorization: Bearer $PHAROS_KEY\" " : "");
    fflush(stdout);
}

static void feed_watchdog(void *ud)
{
    (void)ud;
    (void)process_notify("WATCHDOG=1");
}

/* A service manager waits until the station listens, and hears from its loop as often as it wants to. */
static void tell_manager(struct station *station)
{
    uint64_t every_ms = process_watchdog_us() / 2000;
    if (process_notify("READY=1") && every_ms &&
        net_timer_open(&station->watchdog, station->loop, feed_watchdog, station) == PH_OK)
        net_timer_start(station->watchdog, every_ms, every_ms);
}

/* Beyond this machine nobody is served without a key. */
static enum ph_status check_exposure(const struct station *station, struct ph_err *err)
{
    if (origin_is_loopback_address(station->config->host) || keys_on(station->keys))
        return PH_OK;
    return ph_fail(err, PH_ERR_ARG,
                   "listening on %s would let everybody who reaches it use the station: create a key first "
                   "(pharos keys create --name me --data %s), or listen on 127.0.0.1",
                   station->config->host, station->data);
}

static enum ph_status open_client(struct station *station, struct ph_err *err)
{
    struct http_client_params params = {.loop = station->loop,
                                        .clock = station->clock,
                                        .ca_file = station->config->ca_file,
                                        .user_agent = "pharos/" PHAROS_VERSION};
    return http_client_open(&station->client, &params, err);
}

static bool is_money_at_stake(const struct station *station)
{
    const struct station_config *config = station->config;
    const struct station_model *models = config->models.items;
    bool any = config->budgets.total_usd_month >= 0;
    for (size_t i = 0; i < config->models.count; i++)
        any = any || models[i].price.input > 0 || models[i].price.output > 0;
    for (size_t i = 0; i < keys_count(station->keys); i++)
        any = any || keys_at(station->keys, i)->budget_usd_month >= 0;
    return any;
}

/* A second station on the same data has a ledger of its own, unless there are budgets, which only one can
 * keep. */
static enum ph_status open_ledger(struct station *station, struct ph_err *err)
{
    char dir[PATH_BYTES_MAX];
    size_t recovered = 0;
    enum ph_status status = PH_ERR_BUSY;
    for (int n = 1; n <= LEDGERS_MAX && status == PH_ERR_BUSY; n++) {
        char suffix[16] = "";
        if (n > 1)
            snprintf(suffix, sizeof suffix, ".%d", n);
        int len = snprintf(dir, sizeof dir, "%s/ledger%s", station->data, suffix);
        if (len < 0 || (size_t)len >= sizeof dir)
            return ph_fail(err, PH_ERR_LIMIT, "the name of the data directory is too long");
        struct ledger_params params = {.dir = dir, .clock = station->clock};
        status = ledger_open(&station->ledger, &params, &recovered, err);
        if (status == PH_ERR_BUSY && is_money_at_stake(station))
            return status;
    }
    if (recovered)
        log_warn("station",
                 "the last station was killed with %zu requests on their way; what was counted of them "
                 "is in the ledger",
                 recovered);
    return status;
}

static enum ph_status set_budgets(struct station *station, struct ph_err *err)
{
    const struct station_config *config = station->config;
    const struct {
        enum ledger_scope scope;
        const char *name;
        double usd;
    } rows[] = {{LEDGER_STATION, "", config->budgets.total_usd_month},
                {LEDGER_BY_TIER, "premium", config->budgets.premium_usd_month},
                {LEDGER_BY_TIER, "subscription", config->budgets.subscription_usd_month}};
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < sizeof rows / sizeof *rows && status == PH_OK; i++)
        status = ledger_set_budget(station->ledger, rows[i].scope, rows[i].name, ledger_pico(rows[i].usd));
    for (size_t i = 0; i < station->catalog.account_count && status == PH_OK; i++)
        status = ledger_set_budget(station->ledger, LEDGER_BY_PROVIDER, station->catalog.accounts[i].name,
                                   station->catalog.accounts[i].budget_pico_month);
    return status == PH_OK ? PH_OK : ph_fail(err, status, "out of memory");
}

/* A file of conversations is its owner's alone, also one that was there before. */
static enum ph_status make_private(int fd, const char *path, struct ph_err *err)
{
    struct stat stat;
    if (fstat(fd, &stat) == 0 && (!S_ISREG(stat.st_mode) || (stat.st_mode & 0777) == 0600))
        return PH_OK;
    if (fchmod(fd, 0600) == 0)
        return PH_OK;
    return ph_fail(err, PH_ERR_IO, "request_log: %s is readable by others and cannot be closed to them: %s",
                   path, strerror(errno));
}

static enum ph_status open_request_log(struct station *station, struct ph_err *err)
{
    const char *path = station->config->request_log.path;
    if (!path)
        return PH_OK;
    station->request_log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (station->request_log_fd < 0)
        return ph_fail(err, PH_ERR_IO, "request_log: %s cannot be opened: %s", path, strerror(errno));
    if (!station->config->request_log.bodies)
        return PH_OK;
    log_warn("station", "what is asked and answered is written to %s (request_log: bodies)", path);
    return make_private(station->request_log_fd, path, err);
}

static enum ph_status open_hot(struct station *station, struct ph_err *err)
{
    const struct gateway_redis *redis = &station->config->memory.redis_at;
    const struct hot_params params = {.loop = station->loop,
                                      .clock = station->clock,
                                      .host = redis->host,
                                      .port = redis->port,
                                      .user = redis->user,
                                      .password = redis->password,
                                      .database = redis->database,
                                      .wait_ms = MEMORY_HOT_WAIT_MS,
                                      .ttl_s = (uint32_t)station->config->memory.redis_ttl_s};
    if (!redis->host)
        return PH_OK;
    enum ph_status status = hot_open(&station->hot, &params);
    return status == PH_OK ? PH_OK : ph_fail(err, status, "out of memory");
}

/* The store itself is opened when something is to be remembered. */
static enum ph_status open_memory(struct station *station, struct ph_err *err)
{
    char dir[PATH_BYTES_MAX];
    const struct station_config *config = station->config;
    struct memory_params params = {.dir = dir, .postgres = config->memory.postgres, .clock = station->clock};
    if (config->memory.is_off)
        return PH_OK;
    int len = snprintf(dir, sizeof dir, "%s/" CLI_MEMORY_DIR, station->data);
    if (len < 0 || (size_t)len >= sizeof dir)
        return ph_fail(err, PH_ERR_LIMIT, "the name of the data directory is too long");
    enum ph_status status = open_hot(station, err);
    params.hot = station->hot;
    return status == PH_OK ? memory_create(&station->memory, &params, err) : status;
}

static enum ph_status open_gateway(struct station *station, struct ph_err *err)
{
    const struct station_config *config = station->config;
    struct gateway_params params = {.host = config->host,
                                    .port = config->port,
                                    .tls_certificate = config->tls.certificate,
                                    .tls_key = config->tls.key,
                                    .models = station->catalog.models,
                                    .model_count = station->catalog.model_count,
                                    .routes = station->catalog.routes,
                                    .route_count = station->catalog.route_count,
                                    .accounts = station->catalog.accounts,
                                    .account_count = station->catalog.account_count,
                                    .cache = {.bytes_max = (size_t)config->cache.max_mb << 20,
                                              .ttl_s = (uint32_t)config->cache.ttl_s,
                                              .shared = config->cache.shared,
                                              .redis = config->cache.redis_at},
                                    .ledger = station->ledger,
                                    .keys = station->keys,
                                    .data = station->data,
                                    .memory = station->memory,
                                    .drills = config->drills,
                                    .request_log_fd = station->request_log_fd,
                                    .request_log_bodies = config->request_log.bodies,
                                    .metrics = station->thermal ? station_thermal_metrics : NULL,
                                    .metrics_ud = station->thermal,
                                    .clock = station->clock,
                                    .version = PHAROS_VERSION};
    http_limits_default(&params.limits);
    if (entropy_fill(&params.seed, sizeof params.seed) != 0)
        return ph_fail(err, PH_ERR_IO, "the system gives no random bytes");
    struct ph_err reason;
    enum ph_status status = gateway_open(&station->gateway, station->loop, &params, &reason);
    if (status != PH_OK)
        return ph_fail(err, status, "%s; choose another address with --listen HOST:PORT", reason.message);
    if (station->thermal)
        station_thermal_start(station->thermal, station->gateway);
    return PH_OK;
}

/* Before the first thread, so that none keeps what is given up here. */
static enum ph_status drop_rights(struct station *station, struct ph_err *err)
{
    const struct station_config *config = station->config;
    enum ph_status status = cli_data_dir(config->data, station->data, err);
    if (status == PH_OK)
        status = file_make_private_dir(station->data, err);
    if (status == PH_OK && !config->keep_rights)
        status = process_drop_rights(station->data, config->port > 0 && config->port < FREE_PORT_FIRST, err);
    return status;
}

static enum ph_status open_data(struct station *station, struct ph_err *err)
{
    enum ph_status status = keys_open(&station->keys, station->data, station->clock, err);
    if (status == PH_OK)
        status = check_exposure(station, err);
    return status == PH_OK ? open_ledger(station, err) : status;
}

static enum ph_status open_station(struct station *station, struct ph_err *err)
{
    char logs[PATH_BYTES_MAX + 8];
    uint64_t files = process_allow_files();
    if (files && files < HTTP_CONNECTIONS_MAX)
        log_warn(
            "station",
            "only %llu files and connections may be open at once (ulimit -n): fewer clients can be served",
            (unsigned long long)files);
    enum ph_status status = drop_rights(station, err);
    if (status == PH_OK)
        status = net_loop_create(&station->loop, err);
    if (status == PH_OK)
        status = open_client(station, err);
    if (status == PH_OK)
        status = open_data(station, err);
    if (status == PH_OK)
        status = open_request_log(station, err);
    snprintf(logs, sizeof logs, "%s/logs", station->data);
    if (status == PH_OK)
        status = station_catalog_make(station->arena, station->config, logs, station->loop, station->client,
                                      station->clock, &station->catalog, err);
    if (status == PH_OK)
        status = set_budgets(station, err);
    if (status == PH_OK)
        status = open_memory(station, err);
    if (status == PH_OK && station->config->thermal.enabled)
        status = station_thermal_open(&station->thermal, station->config, &station->catalog, station->loop,
                                      station->clock, err);
    if (status == PH_OK)
        status = open_gateway(station, err);
    if (status != PH_OK)
        return status;
    station->usable = station->catalog.model_count;
    if (net_on_signal(station->loop, on_signal, station) != PH_OK)
        log_warn("station", "signals cannot be watched: the station will not stop gracefully");
    return PH_OK;
}

static void close_station(struct station *station)
{
    embed_worker_stop(station->indexing);
    memory_free(station->memory); /* what is queued is written */
    hot_close(station->hot);
    hot_free(station->hot);
    gateway_free(station->gateway);
    station_thermal_free(station->thermal);
    station_catalog_release(&station->catalog);
    if (station->request_log_fd >= 0)
        close(station->request_log_fd);
    keys_close(station->keys);
    ledger_close(station->ledger);
    http_client_close(station->client);
    net_loop_free(station->loop);
}

int station_run(struct arena *arena, const struct station_config *config)
{
    struct ph_err err;
    struct station *station = arena_calloc(arena, 1, sizeof *station);
    if (!station)
        return cli_error(CLI_EXIT_FAILURE, "serve: out of memory");
    station->arena = arena;
    station->config = config;
    station->clock = clock_system();
    station->request_log_fd = -1;
    enum ph_status status = open_station(station, &err);
    if (status == PH_OK) {
        greet(station);
        tell_manager(station);
        load_next(station);
        net_loop_run(station->loop);
        log_info("station", "stopped");
    }
    close_station(station);
    return status == PH_OK ? station->exit_code : cli_fail(&err);
}
