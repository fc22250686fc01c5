/* station: the configuration of a station and the run of it. Used by cmd_serve.c. Thread: main. */
#ifndef PHAROS_CLI_STATION_INT_H
#define PHAROS_CLI_STATION_INT_H

#include "base/arena.h"
#include "base/config.h"
#include "base/status.h"
#include "tensor/tensor.h"

#define STATION_LISTEN_DEFAULT "127.0.0.1:8080"
#define STATION_MODELS_MAX 64

struct station_model {
    char *id;
    int tier;
    char *path;
    int64_t context, threads, sequences, queue;
    int kv;
    char *command, *api; /* a supervised engine */
    int64_t ttl_s;
    char *provider, *upstream; /* an account elsewhere */
    const struct json *traits, *price;
};

struct station_provider {
    char *name, *api, *base_url, *key;
    double monthly_usd;
    int64_t rpm;
};

struct station_route {
    char *model;
    int policy;
    struct config_list order; /* char * */
    double escalate_below;
    const struct json *weights;
};

struct station_config {
    char *listen, *data;
    struct config_list models;    /* struct station_model */
    struct config_list providers; /* struct station_provider */
    struct config_list routes;    /* struct station_route */
    struct {
        double premium_usd_month;
    } budgets;
    struct {
        char *store;
        const struct json *embedding;
    } memory;
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
/* Checks what tables cannot say, takes `listen` apart, warns of keys that this version does nothing with,
 * and leaves out the models it cannot run. */
PH_MUST_USE enum ph_status station_config_check(struct arena *arena, struct station_config *config,
                                                struct ph_err *err);

/* Runs until a signal ends it. Answers the exit code; everything was said. */
int station_run(const struct station_config *config);

#endif
