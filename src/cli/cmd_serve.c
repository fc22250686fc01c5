#include "cli/cli_int.h"

static const struct cli_option options[] = {CLI_OPTIONS_END};

int cmd_serve(int argc, char **argv)
{
    static const struct cli_usage usage = {"serve", NULL, "Runs the station.", options};
    int exit_code;
    if (!cli_parse(&usage, argc, argv, NULL, &exit_code))
        return exit_code;
    return cli_error(CLI_EXIT_FAILURE, "serve: this build has no server yet");
}
