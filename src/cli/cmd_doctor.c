/* pharos doctor: what of a configuration is looked at, the checks of configuration and keys, and how it is
 * told. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "cli/cli_int.h"
#include "cli/secret_int.h"
#include "cli/station_int.h"
#include "gateway/keys.h"
#include "net/net.h"
#include "ops/doctor.h"

#define ARENA_BYTES_MAX ((size_t)64 << 20)
#define OUT_BYTES_MAX ((size_t)4 << 20)
#define SECRETS_MAX 256
#define PROGRAM "/proc/self/exe"

struct doctor_args {
    const char *config, *data, *listen;
    struct cli_list models;
    bool full, online, json;
};

struct visit {
    struct doctor_args args;
    struct arena arena;
    struct station_config config;
    enum ph_status config_status;
    struct ph_err config_err;
    char data[PATH_BYTES_MAX];
    struct doctor_subject subject;
    struct doctor_secret secrets[SECRETS_MAX];
    size_t secret_count;
    struct buf out;
    size_t told;
};

/* ---- The checks that know configuration and keys */

static void check_config(struct doctor *doctor)
{
    const struct visit *visit = doctor->subject->ud;
    if (visit->config_status != PH_OK)
        doctor_say(doctor, DOCTOR_FAIL, "mend it; what follows may be about half of it", "%s",
                   visit->config_err.message);
    else if (!visit->args.config)
        doctor_say(doctor, DOCTOR_SKIP, "", "none was named; look at one with --config F");
    else
        doctor_say(doctor, DOCTOR_OK, "", "%s: models %zu, providers %zu, routes %zu", visit->args.config,
                   visit->config.models.count, visit->config.providers.count, visit->config.routes.count);
}

static void check_keys(struct doctor *doctor)
{
    struct visit *visit = doctor->subject->ud;
    struct key *keys;
    struct ph_err err;
    size_t count = 0;
    if (!doctor->subject->data) {
        doctor_say(doctor, DOCTOR_SKIP, "", "there is no data directory");
        return;
    }
    enum ph_status status = keys_list(&visit->arena, visit->data, &keys, &count, &err);
    if (status != PH_OK)
        doctor_say(doctor, DOCTOR_FAIL, "mend it, or restore it from a backup: the station does not start",
                   "%s", err.message);
    else if (count == 0 && !origin_is_loopback_address(doctor->subject->host))
        doctor_say(doctor, DOCTOR_FAIL, "pharos keys create --name me, or listen on 127.0.0.1",
                   "listening on %s without a key: the station refuses to start", doctor->subject->host);
    else
        doctor_say(doctor, DOCTOR_OK, "",
                   count ? "%zu, in order" : "none: whoever is on this machine may use the station", count);
}

static const struct doctor_check own_checks[] = {
    {"config", check_config}, {"keys", check_keys}, {NULL, NULL}};

/* ---- What is looked at */

static void add_secret(struct visit *visit, const char *value, const char *what)
{
    size_t prefix = sizeof SECRET_FILE_PREFIX - 1;
    if (value && strncmp(value, SECRET_FILE_PREFIX, prefix) == 0 && visit->secret_count < SECRETS_MAX)
        visit->secrets[visit->secret_count++] = (struct doctor_secret){value + prefix, what};
}

static void collect_secrets(struct visit *visit)
{
    const struct station_config *config = &visit->config;
    const struct station_provider *providers = config->providers.items;
    add_secret(visit, config->cache.redis_password, "cache.redis_password");
    add_secret(visit, config->memory.redis_password, "memory.redis_password");
    for (size_t i = 0; i < config->providers.count; i++) {
        add_secret(visit, providers[i].key, providers[i].name);
        for (size_t k = 0; k < providers[i].keys.count; k++)
            add_secret(visit, ((char **)providers[i].keys.items)[k], providers[i].name);
    }
    if (config->tls.key && visit->secret_count < SECRETS_MAX)
        visit->secrets[visit->secret_count++] = (struct doctor_secret){config->tls.key, "tls.key"};
}

static bool collect_models(struct visit *visit)
{
    const struct station_model *models = visit->config.models.items;
    struct doctor_model *list = arena_calloc(&visit->arena, visit->config.models.count + 1, sizeof *list);
    size_t count = 0;
    for (size_t i = 0; list && i < visit->config.models.count; i++)
        if (models[i].path)
            list[count++] = (struct doctor_model){models[i].id, models[i].path};
    visit->subject.models = list;
    visit->subject.model_count = count;
    return list != NULL;
}

static bool collect_providers(struct visit *visit)
{
    const struct station_provider *providers = visit->config.providers.items;
    struct doctor_provider *list =
        arena_calloc(&visit->arena, visit->config.providers.count + 1, sizeof *list);
    size_t count = 0;
    for (size_t i = 0; list && i < visit->config.providers.count; i++) {
        struct doctor_provider *to = &list[count];
        struct http_header *headers = NULL;
        *to = (struct doctor_provider){.name = providers[i].name, .url = station_provider_url(&providers[i])};
        if (!to->url)
            continue; /* check_config has said so */
        if (visit->args.online)
            headers = station_provider_auth(&visit->arena, &providers[i], &to->header_count);
        to->headers = headers;
        count++;
    }
    visit->subject.providers = list;
    visit->subject.provider_count = count;
    return list != NULL;
}

static enum ph_status configure(struct visit *visit, struct ph_err *err)
{
    const struct doctor_args *args = &visit->args;
    struct station_config *config = &visit->config;
    enum ph_status status = PH_OK;
    station_config_default(config);
    if (args->config)
        status = station_config_read(&visit->arena, args->config, config, err);
    if (args->listen)
        config->listen = arena_strdup(&visit->arena, args->listen);
    for (size_t i = 0; i < args->models.count && status == PH_OK; i++)
        status = station_config_add_model(&visit->arena, config, args->models.items[i], err);
    if (status == PH_OK && (args->config || args->models.count || args->listen))
        status = station_config_check(&visit->arena, config, err);
    return status;
}

static bool collect(struct visit *visit)
{
    static const struct station_config none;
    struct station_config *config = &visit->config;
    struct ph_err err;
    visit->config_status = configure(visit, &visit->config_err);
    if (visit->config_status != PH_OK && !config->host && !config->models.count)
        *config = none;
    bool has_data =
        cli_data_dir(visit->args.data ? visit->args.data : config->data, visit->data, &err) == PH_OK;
    collect_secrets(visit);
    const char *postgres = config->memory.store && strncmp(config->memory.store, "postgres", 8) == 0
                               ? config->memory.store
                               : NULL;
    visit->subject = (struct doctor_subject){.data = has_data ? visit->data : NULL,
                                             .host = config->host ? config->host : "127.0.0.1",
                                             .port = config->host ? config->port : 8080,
                                             .tls = config->tls.key != NULL,
                                             .ca_file = config->ca_file,
                                             .secrets = visit->secrets,
                                             .secret_count = visit->secret_count,
                                             .has_store = !config->memory.is_off,
                                             .postgres = postgres,
                                             .full = visit->args.full,
                                             .root = "",
                                             .program = PROGRAM,
                                             .clock = clock_system(),
                                             .tell = visit->subject.tell,
                                             .ud = visit};
    return collect_models(visit) && collect_providers(visit);
}

/* ---- Told */

static void write_member(struct buf *out, const char *key, const char *text)
{
    buf_printf(out, ",\"%s\":", key);
    json_write_string(out, text, strlen(text));
}

static void on_line(void *ud, const struct doctor_line *line)
{
    struct visit *visit = ud;
    struct buf *out = &visit->out;
    struct ph_err err;
    if (visit->args.json) {
        buf_printf(out, "%s{\"check\":\"%s\",\"level\":\"%s\"", visit->told++ ? "," : "", line->check,
                   doctor_level_name(line->level));
        write_member(out, "what", line->what);
        write_member(out, "do", line->advice);
        buf_putc(out, '}');
        return;
    }
    (void)ph_fail(&err, PH_OK, "%s", line->what); /* printable */
    buf_printf(out, "%-4s  %-9s  %s\n", doctor_level_name(line->level), line->check, err.message);
    if (line->advice[0])
        buf_printf(out, "%17s%s\n", "-> ", line->advice);
    (void)!cli_flush(out, &err); /* at the end it is asked for again */
}

static int run(struct visit *visit)
{
    struct ph_err err;
    visit->subject.tell = on_line;
    if (!collect(visit))
        return cli_error(CLI_EXIT_FAILURE, "doctor: out of memory");
    struct doctor doctor = {.subject = &visit->subject};
    if (visit->args.json)
        buf_puts(&visit->out, "{\"checks\":[");
    doctor_run(&doctor, own_checks);
    doctor_run(&doctor, doctor_checks);
    const size_t *counts = doctor.counts;
    buf_printf(&visit->out,
               visit->args.json ? "],\"ok\":%zu,\"warn\":%zu,\"fail\":%zu,\"skip\":%zu}\n"
                                : "%zu ok, %zu to look at, %zu wrong, %zu not looked at\n",
               counts[DOCTOR_OK], counts[DOCTOR_WARN], counts[DOCTOR_FAIL], counts[DOCTOR_SKIP]);
    if (cli_flush(&visit->out, &err) != PH_OK)
        return cli_fail(&err);
    return counts[DOCTOR_FAIL] ? CLI_EXIT_FAILURE : CLI_EXIT_OK;
}

int cmd_doctor(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {CLI_OPTION("--config", "F", CLI_TEXT, struct doctor_args, config, "the station's configuration")},
        {CLI_OPTION("--data", "DIR", CLI_TEXT, struct doctor_args, data, CLI_DATA_HELP)},
        {CLI_OPTION("--listen", "H:P", CLI_TEXT, struct doctor_args, listen, "as `serve` takes it")},
        {CLI_OPTION("--model", "F", CLI_LIST, struct doctor_args, models, "as `serve` takes it")},
        {CLI_OPTION("--full", NULL, CLI_SWITCH, struct doctor_args, full,
                    "read every message and every model whole")},
        {CLI_OPTION("--online", NULL, CLI_SWITCH, struct doctor_args, online,
                    "send providers their keys: are they taken?")},
        {CLI_OPTION("--json", NULL, CLI_SWITCH, struct doctor_args, json, "print JSON")},
        CLI_OPTIONS_END};
    static const struct cli_usage usage = {
        "doctor", "[--config F] [--data DIR] [options]",
        "Looks over a station: configuration, keys, permissions, models, port, disk, clock, providers, "
        "store,\n"
        "libraries, sensors. Changes nothing. Each line says what to do; exit code 1 when anything is wrong.",
        options};
    struct visit *visit;
    struct arena arena;
    int exit_code;
    log_setup(2, LOG_ERROR, false);
    arena_init(&arena, ARENA_BYTES_MAX);
    visit = arena_calloc(&arena, 1, sizeof *visit);
    if (!visit)
        return cli_error(CLI_EXIT_FAILURE, "doctor: out of memory");
    if (cli_parse(&usage, argc, argv, &visit->args, &exit_code)) {
        arena_init(&visit->arena, ARENA_BYTES_MAX);
        buf_init(&visit->out, OUT_BYTES_MAX);
        exit_code = run(visit);
        buf_release(&visit->out);
        arena_release(&visit->arena);
    }
    arena_release(&arena);
    return exit_code;
}
