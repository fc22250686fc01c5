/* pharos serve: options and configuration make a station. Options win over the file. */
#include "base/log.h"
#include "cli/cli_int.h"
#include "cli/station_int.h"

#define CONFIG_ARENA_BYTES_MAX (16u << 20)

struct serve_args {
    const char *config, *listen, *data, *log;
    struct cli_list models;
};

static const struct cli_option options[] = {
    {CLI_OPTION("--config", "F", CLI_TEXT, struct serve_args, config, "YAML configuration file")},
    {CLI_OPTION("--listen", "H:P", CLI_TEXT, struct serve_args, listen,
                "address and port (" STATION_LISTEN_DEFAULT "); port 0: any free one")},
    {CLI_OPTION("--data", "DIR", CLI_TEXT, struct serve_args, data, "directory of the store")},
    {CLI_OPTION("--model", "F.gguf", CLI_LIST, struct serve_args, models,
                "a model to serve, may be given several times; the first is the default")},
    {CLI_OPTION("--log", "LEVEL", CLI_TEXT, struct serve_args, log, "error, warn, info or debug (info)")},
    CLI_OPTIONS_END};

static enum ph_status configure(struct arena *arena, const struct serve_args *args,
                                struct station_config *config, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    station_config_default(config);
    if (args->config)
        status = station_config_read(arena, args->config, config, err);
    if (status == PH_OK && args->listen)
        config->listen = arena_strdup(arena, args->listen);
    if (status == PH_OK && args->data)
        config->data = arena_strdup(arena, args->data);
    for (size_t i = 0; i < args->models.count && status == PH_OK; i++)
        status = station_config_add_model(arena, config, args->models.items[i], err);
    return status == PH_OK ? station_config_check(arena, config, err) : status;
}

int cmd_serve(int argc, char **argv)
{
    static const struct cli_usage usage = {
        "serve", "[--config F] [--listen H:P] [--data DIR] [--model F.gguf]...",
        "Runs the station: the OpenAI and Anthropic APIs over local models, engines and accounts. SIGTERM or "
        "Ctrl-C stops it gracefully, twice at once.",
        options};
    struct serve_args args = {0};
    struct station_config config;
    struct arena arena;
    struct ph_err err;
    enum log_level level = LOG_INFO;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    if (args.log && !log_level_parse(args.log, &level))
        return cli_error(CLI_EXIT_USAGE, "serve: --log \"%s\" is none of error, warn, info, debug", args.log);
    log_setup(2, level, false);
    arena_init(&arena, CONFIG_ARENA_BYTES_MAX);
    if (configure(&arena, &args, &config, &err) == PH_OK)
        exit_code = station_run(&arena, &config);
    else
        exit_code = cli_fail(&err);
    arena_release(&arena);
    return exit_code;
}
