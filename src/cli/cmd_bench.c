#include "cli/cli_int.h"

static const struct cli_command commands[] = {
    {"engine", "prefill and decode speed of a model on this machine", cmd_bench_engine},
    {"load", "load and acceptance tests of any OpenAI-compatible server", cmd_bench_load},
    {"model", "make a model with random weights, for speed work", cmd_bench_model},
    {"probe", "what this machine is and can do", cmd_bench_probe},
    {"train", "training speed of decoders of a few shapes", cmd_bench_train},
    {NULL, NULL, NULL},
};

int cmd_bench(int argc, char **argv)
{
    return cli_dispatch("pharos bench", "Measures speed, beside its limits.", commands, argc, argv);
}
