#include "cli/cli_int.h"

static const struct cli_command commands[] = {
    {"thermal", "temperatures, power, throttling, and what the guard would do", cmd_monitor_thermal},
    {NULL, NULL, NULL},
};

int cmd_monitor(int argc, char **argv)
{
    return cli_dispatch("pharos monitor", "Watches the machine.", commands, argc, argv);
}
