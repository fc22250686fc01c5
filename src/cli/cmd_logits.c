/* pharos logits: what a model says after a prompt of token ids, as raw numbers for comparison. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "cli/cli_int.h"
#include "cli/cli_run_int.h"

#define TOP 5

struct args {
    struct cli_run_args run;
    const char *ids, *out;
    bool json;
};

static const struct cli_option options[] = {
    CLI_RUN_OPTIONS(struct args, run),
    {CLI_OPTION("--ids", "1,2,3", CLI_TEXT, struct args, ids, "the prompt's token ids, fed as they are"),
     .required = true},
    {CLI_OPTION("--out", "F", CLI_TEXT, struct args, out,
                "file for the last position's logits, float32, little-endian (\"-\": standard output)"),
     .required = true},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print the most likely tokens as JSON")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {
    "logits", "--model F --ids 1,2,3 --out F32FILE [options]",
    "Feeds token ids and writes the logits after the last one. The KV cache is F32 unless told otherwise.",
    options};

static enum ph_status write_floats(const char *path, const float *values, size_t count, struct ph_err *err)
{
    bool to_stdout = strcmp(path, "-") == 0;
    FILE *file = to_stdout ? stdout : fopen(path, "wb");
    if (!file)
        return ph_fail(err, PH_ERR_IO, "%s cannot be written; does its folder exist?", path);
    bool good = true;
    for (size_t i = 0; i < count && good; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        const unsigned char bytes[4] = {(unsigned char)bits, (unsigned char)(bits >> 8),
                                        (unsigned char)(bits >> 16), (unsigned char)(bits >> 24)};
        good = fwrite(bytes, 1, 4, file) == 4;
    }
    if (to_stdout)
        return cli_sent(err);
    good = fclose(file) == 0 && good;
    return good ? PH_OK : ph_fail(err, PH_ERR_IO, "%s could not be written; is the disk full?", path);
}

static void print_top(const float *logits, size_t n_vocab)
{
    struct candidate top[TOP];
    (void)logits_logprob(logits, n_vocab, 0, top, TOP);
    printf("{\"n_vocab\":%zu,\"top\":[", n_vocab);
    for (size_t i = 0; i < TOP && top[i].id >= 0; i++)
        printf("%s[%d,%.6f]", i ? "," : "", (int)top[i].id, (double)top[i].p);
    puts("]}");
}

int cmd_logits(int argc, char **argv)
{
    struct args args = {.run.kv = CLI_KV_F32};
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    struct ph_err err;
    struct cli_run run = {.model = NULL};
    struct token_list ids = {0};
    float *logits = NULL;
    enum ph_status status = cli_ids_parse(args.ids, strlen(args.ids), &ids, &err);
    if (status == PH_OK && ids.len == 0)
        status = ph_fail(&err, PH_ERR_ARG, "logits: --ids has no token ids");
    if (status == PH_OK)
        status = cli_run_open(&run, &args.run, 0, 1, &err);
    if (status == PH_OK) {
        logits = mem_calloc(run.n_vocab, sizeof *logits);
        status = logits ? cli_run_feed(&run, ids.ids, ids.len, logits, NULL, &err)
                        : ph_fail(&err, PH_ERR_NOMEM, "no memory for %zu logits", run.n_vocab);
    }
    if (status == PH_OK)
        status = write_floats(args.out, logits, run.n_vocab, &err);
    if (status == PH_OK && args.json && strcmp(args.out, "-") != 0)
        print_top(logits, run.n_vocab);
    mem_free(logits);
    cli_run_close(&run);
    token_list_release(&ids);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}
