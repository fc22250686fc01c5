#include "cli/cli_int.h"

static const struct cli_option options[] = {CLI_OPTIONS_END};

int cmd_chat(int argc, char **argv)
{
    static const struct cli_usage usage = {"chat", NULL, "Talks with a model in the terminal.", options};
    int exit_code;
    if (!cli_parse(&usage, argc, argv, NULL, &exit_code))
        return exit_code;
    return cli_error(CLI_EXIT_FAILURE, "chat: this build has no chat yet");
}
