#include "cli/cli_int.h"

static const struct cli_command commands[] = {
    {"report", "what requests cost, from the station's ledger", cmd_cost_report},
    {"tco", "what the station costs in all, beside what others charge", cmd_cost_tco},
    {NULL, NULL, NULL},
};

int cmd_cost(int argc, char **argv)
{
    return cli_dispatch("pharos cost", "What the station and its traffic cost.", commands, argc, argv);
}
