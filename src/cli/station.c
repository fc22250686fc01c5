/* A running station: one loop, one gateway, a provider a model.
 *
 * The station listens before any model is loaded, so that /health answers at once; models load one after the
 * other on a helper thread and are attached as they come. A model that fails leaves the others running; when
 * none is left the station ends with exit code 1.
 *
 * The first SIGTERM or SIGINT stops it gracefully, the second one cuts. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "cli/cli_int.h"
#include "cli/station_int.h"
#include "gateway/gateway.h"

struct station {
    const struct station_config *config;
    const struct clock_source *clock;
    struct net_loop *loop;
    struct gateway *gateway;
    struct provider **providers; /* one a model */
    size_t loading;              /* index of the model being loaded */
    size_t loaded;
    struct engine *engine; /* the helper thread's result */
    enum ph_status load_status;
    struct ph_err load_err;
    uint64_t load_start_ns;
    bool stopping;
    int exit_code;
};

/* ---- Stopping */

static void on_stopped(void *ud)
{
    struct station *station = ud;
    net_loop_stop(station->loop);
}

static void stop(struct station *station)
{
    if (station->stopping)
        return;
    station->stopping = true;
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
    stop(station);
}

/* ---- Loading models */

static void load_next(struct station *station);

static void load_work(void *ud) /* helper thread */
{
    static const enum tensor_type kv_types[] = {TENSOR_F16, TENSOR_F32, TENSOR_Q8_0};
    struct station *station = ud;
    const struct station_model *model =
        (const struct station_model *)station->config->models.items + station->loading;
    struct engine_params params;
    engine_params_default(&params);
    params.model_path = model->path;
    params.threads = (unsigned)model->threads;
    params.context_len = (size_t)model->context;
    params.sequences_max = (size_t)model->sequences;
    params.queue_max = (size_t)model->queue;
    params.kv_type = kv_types[model->kv];
    params.clock = station->clock;
    station->load_status = engine_open(&station->engine, &params, &station->load_err);
}

static void load_done(void *ud)
{
    struct station *station = ud;
    struct provider *provider = station->providers[station->loading];
    const char *id = provider_model_id(provider);
    if (station->load_status == PH_OK)
        station->load_status = provider_local_attach(provider, station->engine, &station->load_err);
    if (station->load_status == PH_OK) {
        double ms = (double)(clock_monotonic_ns(station->clock) - station->load_start_ns) * 1e-6;
        station->loaded++;
        log_info("station", "model %s is ready: %zu tokens of context, loaded in %.0f ms", id,
                 provider_context_len(provider), ms);
    } else {
        provider_local_fail(provider, station->load_err.message);
        log_error("station", "model %s: %s", id, station->load_err.message);
    }
    station->loading++;
    load_next(station);
}

static void load_next(struct station *station)
{
    if (station->stopping)
        return;
    if (station->loading < station->config->models.count) {
        station->load_start_ns = clock_monotonic_ns(station->clock);
        if (net_work(station->loop, load_work, load_done, station) == PH_OK)
            return;
        log_error("station", "no helper thread to load models with");
        station->exit_code = CLI_EXIT_FAILURE;
        stop(station);
        return;
    }
    if (station->loaded == 0) {
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

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0;
}

static void greet(const struct station *station)
{
    const char *host = is_everywhere(station->config->host) ? "127.0.0.1" : station->config->host;
    const char *open = strchr(host, ':') ? "[" : "", *close = *open ? "]" : "";
    unsigned port = gateway_port(station->gateway);
    if (!is_loopback(station->config->host))
        log_warn(
            "station",
            "listening on %s: EVERYBODY who can reach this address may use the station. This version has no "
            "keys; use 127.0.0.1, or put a proxy that checks keys in front",
            station->config->host);
    printf(
        "Pharos %s is listening on http://%s%s%s:%u\n"
        "Talk to it with any OpenAI client (base URL http://%s%s%s:%u/v1, any key), with `pharos chat --url "
        "http://%s%s%s:%u`, or:\n"
        "  curl http://%s%s%s:%u/v1/chat/completions -d "
        "'{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}'\n",
        PHAROS_VERSION, open, host, close, port, open, host, close, port, open, host, close, port, open, host,
        close, port);
    fflush(stdout);
}

static enum ph_status create_providers(struct station *station, struct ph_err *err)
{
    const struct station_model *models = station->config->models.items;
    size_t count = station->config->models.count;
    station->providers = mem_calloc(count, sizeof *station->providers);
    enum ph_status status = station->providers ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < count && status == PH_OK; i++)
        status = provider_local_create(&station->providers[i], models[i].id, station->clock, err);
    return status;
}

static enum ph_status open_gateway(struct station *station, struct ph_err *err)
{
    struct gateway_params params = {.host = station->config->host,
                                    .port = station->config->port,
                                    .providers = station->providers,
                                    .provider_count = station->config->models.count,
                                    .clock = station->clock,
                                    .version = PHAROS_VERSION};
    http_limits_default(&params.limits);
    if (entropy_fill(&params.seed, sizeof params.seed) != 0)
        return ph_fail(err, PH_ERR_IO, "the system gives no random bytes");
    struct ph_err reason;
    enum ph_status status = gateway_open(&station->gateway, station->loop, &params, &reason);
    if (status != PH_OK)
        return ph_fail(err, status, "%s; choose another address with --listen HOST:PORT", reason.message);
    return PH_OK;
}

static enum ph_status open_station(struct station *station, struct ph_err *err)
{
    enum ph_status status = net_loop_create(&station->loop, err);
    if (status == PH_OK)
        status = create_providers(station, err);
    if (status == PH_OK)
        status = open_gateway(station, err);
    if (status != PH_OK)
        return status;
    if (net_on_signal(station->loop, on_signal, station) != PH_OK)
        log_warn("station", "signals cannot be watched: the station will not stop gracefully");
    return PH_OK;
}

int station_run(const struct station_config *config)
{
    struct station station = {.config = config, .clock = clock_system()};
    struct ph_err err;
    enum ph_status status = open_station(&station, &err);
    if (status == PH_OK) {
        greet(&station);
        load_next(&station);
        net_loop_run(station.loop);
        log_info("station", "stopped");
    }
    for (size_t i = 0; station.providers && i < config->models.count; i++)
        provider_free(station.providers[i]);
    mem_free(station.providers);
    gateway_free(station.gateway);
    net_loop_free(station.loop);
    return status == PH_OK ? station.exit_code : cli_fail(&err);
}
