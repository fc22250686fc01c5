/* pharos quantize: a GGUF file with its matrices in smaller number formats. */
#include "cli/cli_int.h"

struct args {
    const char *in, *out, *type;
    bool again, json;
    size_t threads;
};

static const struct cli_option options[] = {
    {CLI_OPTION("IN.gguf", "F", CLI_TEXT, struct args, in, "model to read, F32, F16 or BF16"),
     .required = true},
    {CLI_OPTION("OUT.gguf", "F", CLI_TEXT, struct args, out, "file to write"), .required = true},
    {CLI_OPTION("TYPE", "T", CLI_TEXT, struct args, type,
                "F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q5_1, Q5_0, Q4_K_M, Q4_1, Q4_0, IQ4_NL, IQ4_XS, MXFP4, "
                "Q3_K_M, Q2_K"),
     .required = true},
    {CLI_OPTION("--again", NULL, CLI_SWITCH, struct args, again, "take a file that is quantised already")},
    {CLI_OPTION("--threads", "N", CLI_COUNT, struct args, threads, "threads (one a CPU)"), .min = 1,
     .max = 1024},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print the summary as JSON")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {"quantize", "IN.gguf OUT.gguf TYPE [--again]",
                                       "Writes a model with its matrices in the number format TYPE, in "
                                       "llama.cpp's mixtures: delicate places get\n"
                                       "more bits, norms and routers stay as they are.",
                                       options};

static void show(void *ud, uint64_t done, uint64_t total)
{
    cli_progress_show(ud, done, total);
}

static void print(const struct args *args, const struct quantize_result *r)
{
    const double mib = 1 << 20;
    if (args->json)
        printf("{\"converted\":%zu,\"kept\":%zu,\"bytes_read\":%llu,\"bytes_written\":%llu}\n", r->converted,
               r->kept, (unsigned long long)r->bytes_read, (unsigned long long)r->bytes_written);
    else
        printf("%s: %zu tensors converted, %zu kept, %.1f MiB of weights from %.1f\n", args->out,
               r->converted, r->kept, (double)r->bytes_written / mib, (double)r->bytes_read / mib);
}

int cmd_quantize(int argc, char **argv)
{
    struct args args = {0};
    struct quantize_result result;
    struct cli_progress progress;
    struct ph_err err;
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    struct quantize_job job = {.in = args.in,
                               .out = args.out,
                               .again = args.again,
                               .threads = (unsigned)args.threads,
                               .progress = show,
                               .ud = &progress};
    if (cli_mixture_parse(args.type, &job.mixture, &err) != PH_OK)
        return cli_error(CLI_EXIT_USAGE, "%s", err.message);
    cli_progress_begin(&progress, "quantising");
    enum ph_status status = gguf_quantize(&job, &result, &err);
    cli_progress_end(&progress);
    if (status != PH_OK)
        return cli_fail(&err);
    print(&args, &result);
    return CLI_EXIT_OK;
}
