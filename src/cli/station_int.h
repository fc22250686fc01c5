/* station: the configuration of a station and the run of it. Used by cmd_serve.c. Thread: main. */
#ifndef PHAROS_CLI_STATION_INT_H
#define PHAROS_CLI_STATION_INT_H

#include "base/arena.h"
#include "base/config.h"
#include "base/status.h"
#include "gateway/gateway.h"
#include "ops/thermal.h"
#include "tensor/tensor.h"

#define STATION_LISTEN_DEFAULT "127.0.0.1:8080"
#define STATION_MODELS_MAX 64
#define STATION_MEMORY_MB_MAX (1 << 30)

struct station_price { /* USD a million tokens; 0 for the two in the middle: as input */
    double input, cached_input, cache_write, output;
};

struct station_model {
    char *id;
    int tier;
    char *path;
    int64_t context, threads, sequences, queue;
    int kv;
    char *command, *health; /* a supervised engine */
    int api;                /* what it speaks */
    int64_t ttl_s, start_timeout_s, memory_mb;
    char *provider, *upstream; /* an account elsewhere */
    struct station_price price;
    int64_t max_output, concurrency;
    struct config_list capabilities; /* char *; none: as its kind has them */
    const struct json *traits;
};

struct station_provider {
    char *name;
    int api; /* 0: as the name says */
    char *base_url, *key;
    struct config_list keys; /* char * */
    const struct json *headers;
    double monthly_usd, budget_usd_month;
    int64_t rpm, tpm;
    double connect_timeout_s, timeout_s, silence_timeout_s;
    bool max_completion_tokens, no_stream_usage;
};

struct station_route {
    char *model;
    int policy;
    struct config_list order; /* char * */
    double escalate_below;
    int64_t agree, hedge_ms;
    const struct json *weights;
    struct config_list context_fallback, refusal_fallback; /* char * */
};

struct station_config {
    char *listen, *data, *ca_file;
    struct {
        char *path; /* NULL: none */
        bool bodies;
    } request_log;
    bool drills, keep_rights;
    struct config_list models;    /* struct station_model */
    struct config_list providers; /* struct station_provider */
    struct config_list routes;    /* struct station_route */
    struct {
        double total_usd_month, premium_usd_month, subscription_usd_month; /* negative: no limit */
    } budgets;
    struct {
        char *certificate, *key;
    } tls;
    struct {
        int64_t memory_mb; /* 0: what the system has */
    } engines;
    struct {
        int64_t max_mb, ttl_s; /* max_mb 0: no cache */
        bool shared;
        char *redis, *redis_password;
        struct gateway_redis redis_at; /* from these */
    } cache;
    struct {
        const char *store;
        const struct json *embedding;
        bool is_off;                                 /* from `store` */
        const char *postgres;                        /* likewise; NULL: the embedded store */
        const struct station_model *embedding_model; /* from `embedding`; NULL: lexical */
        char *redis, *redis_password;
        int64_t redis_ttl_s;
        struct gateway_redis redis_at; /* from these */
    } memory;
    struct {
        bool enabled;
        double interval_s, admit_share;
        struct thermal_limits limits;
        struct {
            double warn_c, critical_c; /* 0: as in limits */
        } cpu, gpu;
        char *csv, *sysfs, *nvml; /* NULL: none; the system's */
        int64_t csv_max_mb;
    } thermal;
    char *host; /* from listen */
    uint16_t port;
};

/* Defaults; `config` must be zeroed by the caller's initialiser or be this function's. */
void station_config_default(struct station_config *config);
PH_MUST_USE enum ph_status station_config_read(struct arena *arena, const char *path,
                                               struct station_config *config, struct ph_err *err);
/* Adds a model file from the command line; its id is the file's name without ".gguf". */
PH_MUST_USE enum ph_status station_config_add_model(struct arena *arena, struct station_config *config,
                                                    const char *path, struct ph_err *err);
/* Checks what tables cannot say, takes `listen` apart, warns of keys that this version does nothing with. */
PH_MUST_USE enum ph_status station_config_check(struct arena *arena, struct station_config *config,
                                                struct ph_err *err);

/* The address of a shared cache (station_redis.c); NULL: none. `section`: of the configuration, for errors.
 * No error repeats a password. */
PH_MUST_USE enum ph_status station_redis_read(struct arena *arena, const char *section, const char *url,
                                              const char *password, struct gateway_redis *out,
                                              struct ph_err *err);

/* ---- The catalogue: what the configuration means to the gateway (station_catalog.c) */

struct station_catalog {
    struct gateway_model *models;
    struct gateway_account *accounts;
    struct gateway_route *routes;
    size_t model_count, account_count, route_count;
    struct provider_account **provider_accounts; /* one an account */
    struct provider_room *room;                  /* of the engines that are started */
};

/* Makes providers, accounts and routes; arrays are in the arena, providers and accounts are freed by
 * station_catalog_release, also after a failure. */
PH_MUST_USE enum ph_status station_catalog_make(struct arena *arena, const struct station_config *config,
                                                const char *log_dir, struct net_loop *loop,
                                                struct http_client *client, const struct clock_source *clock,
                                                struct station_catalog *out, struct ph_err *err);
/* openai, anthropic, ...: their addresses are known. */
bool station_knows_provider(const char *name);
/* Where a provider is, as configured or as known; NULL: neither. */
const char *station_provider_url(const struct station_provider *provider);
/* The headers that show its first key, in the arena; none (0) when it has none that can be read. */
struct http_header *station_provider_auth(struct arena *arena, const struct station_provider *provider,
                                          size_t *count);
void station_catalog_release(struct station_catalog *catalog);

/* ---- What a model of a file should do on this machine (station_predict.c) */

struct station_prediction { /* tokens a second; 0: nobody has measured the machine (pharos bench probe) */
    double prefill_tokens_s, decode_tokens_s, decode_low, decode_high;
};
void station_predict(const char *data, const struct station_model *model, enum tensor_type kv_type,
                     struct station_prediction *out);

/* ---- The guard against heat (station_thermal.c): reads sensors on a helper thread, acts on the loop */

struct station_thermal;

/* Thresholds in order, or an error that names the key. */
PH_MUST_USE enum ph_status station_thermal_check(const struct station_config *config, struct ph_err *err);
/* `config` and `catalog` outlive it. A file or library that was named and cannot be opened is an error. */
PH_MUST_USE enum ph_status station_thermal_open(struct station_thermal **out,
                                                const struct station_config *config,
                                                const struct station_catalog *catalog, struct net_loop *loop,
                                                const struct clock_source *clock, struct ph_err *err);
/* From now on it brakes the gateway's models. */
void station_thermal_start(struct station_thermal *thermal, struct gateway *gateway);
void station_thermal_metrics(void *thermal, struct buf *out); /* for gateway_params */
void station_thermal_stop(struct station_thermal *thermal);   /* reads no more; NULL is fine */
/* After the loop has ended, or when it never ran; NULL is fine. */
void station_thermal_free(struct station_thermal *thermal);

/* Runs until a signal ends it. Answers the exit code; everything was said. */
int station_run(struct arena *arena, const struct station_config *config);

#endif
