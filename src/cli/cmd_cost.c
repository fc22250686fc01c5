#include "cli/cli_int.h"

static const struct cli_command commands[] = {
    {"report", "what requests cost, from the station's ledger", cmd_cost_report},
    {NULL, NULL, NULL},
};

int cmd_cost(int argc, char **argv)
{
    return cli_dispatch("pharos cost", "Says what the station's traffic costs.", commands, argc, argv);
}
