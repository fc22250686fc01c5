/* pharos estimate: what a model needs and gets, from physics; and what others claim of it, judged. */
#include <string.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cli/cli_int.h"
#include "ops/estimate.h"

#define OUTPUT_BYTES_MAX ((size_t)64 << 20)

struct args {
    const char *model, *draft, *type, *draft_type, *hardware, *data, *check;
    struct cli_list shapes, hardware_files;
    size_t prompt, generate, context, streams, rows, threads, gpu_layers, lora_rank, draft_len;
    double acceptance;
    int kv, on;
    bool explain, json, list, types;
};

static const struct cli_option options[] = {
    {CLI_OPTION("--model", "F|SHAPE", CLI_TEXT, struct args, model,
                "a GGUF file, or a shape by name (see --list)")},
    {CLI_OPTION("--type", "T", CLI_TEXT, struct args, type,
                "weights of a shape: Q4_K_M, F16, FP8, INT8 ... (Q4_K_M)")},
    {CLI_OPTION("--types", NULL, CLI_SWITCH, struct args, types,
                "every type of a shape, one line each: what fits")},
    {CLI_OPTION(
        "--hardware", "H", CLI_TEXT, struct args, hardware,
        "named hardware, as desktop or ryzen-9900x+rtx-4090 (this machine, as bench probe measured it)")},
    {CLI_OPTION("--on", "D", CLI_CHOICE, struct args, on, "any, cpu, gpu or npu (any)"),
     .names = estimate_on_names},
    {CLI_OPTION("--prompt", "N", CLI_COUNT, struct args, prompt, "tokens of a prompt (512)"),
     .max = MODEL_CONTEXT_MAX / 2},
    {CLI_OPTION("--generate", "N", CLI_COUNT, struct args, generate, "tokens of an answer (128)"),
     .max = MODEL_CONTEXT_MAX / 2},
    {CLI_OPTION("--context", "N", CLI_COUNT, struct args, context,
                "room for so many tokens a stream (prompt and answer)"),
     .max = MODEL_CONTEXT_MAX},
    {CLI_OPTION("--streams", "N", CLI_COUNT, struct args, streams, "at the same time (1)"), .min = 1,
     .max = 4096},
    {CLI_OPTION("--kv", CLI_KV_VALUE, CLI_CHOICE, struct args, kv, "type of the KV cache (f16)"),
     .names = cli_kv_names},
    {CLI_OPTION("--threads", "N", CLI_COUNT, struct args, threads, "threads of the CPU (all)"), .max = 4096},
    {CLI_OPTION("--gpu-layers", "N", CLI_COUNT, struct args, gpu_layers,
                "layers on accelerators (as many as fit)"),
     .max = MODEL_LAYERS_MAX},
    {CLI_OPTION("--chunk", "N", CLI_COUNT, struct args, rows, "tokens of a prefill step (512)"),
     .max = 65536},
    {CLI_OPTION("--lora", "RANK", CLI_COUNT, struct args, lora_rank,
                "an adapter of that rank on every matrix"),
     .max = 4096},
    {CLI_OPTION("--draft", "F|SHAPE", CLI_TEXT, struct args, draft,
                "speculative decoding: the model that guesses")},
    {CLI_OPTION("--draft-type", "T", CLI_TEXT, struct args, draft_type, "weights of that shape (Q4_K_M)")},
    {CLI_OPTION("--draft-tokens", "N", CLI_COUNT, struct args, draft_len, "guessed at a time (the best)"),
     .max = 64},
    {CLI_OPTION("--acceptance", "X", CLI_NUMBER, struct args, acceptance, "of a guessed token (0.7)"),
     .max = 1},
    {CLI_OPTION("--shapes", "F", CLI_LIST, struct args, shapes, "more shapes (YAML, see docs/PHYSICS.md)")},
    {CLI_OPTION("--hardware-file", "F", CLI_LIST, struct args, hardware_files, "more hardware (YAML)")},
    {CLI_OPTION("--data", "DIR", CLI_TEXT, struct args, data, CLI_DATA_HELP)},
    {CLI_OPTION("--check", "F.yaml", CLI_TEXT, struct args, check,
                "judge the claims of a file; - is standard input")},
    {CLI_OPTION("--list", NULL, CLI_SWITCH, struct args, list,
                "name the shapes and the hardware that are known")},
    {CLI_OPTION("--explain", NULL, CLI_SWITCH, struct args, explain,
                "every number with its formula, bytes and operations")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print the result as JSON")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {
    "estimate", "--model F|SHAPE [--hardware H] [options]",
    "Predicts memory, loading, prefill and decode from physics, with the range that the prediction has.\n"
    "Judges what others claim: pharos estimate --check deploy/claims.yaml",
    options};

struct job {
    struct args args;
    struct arena arena;
    struct estimate_data *data;
    struct machine machine;
    struct efficiency *calibration;
    struct buf out;
};

static enum ph_status find_machine(struct job *job, struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    if (job->args.hardware)
        return estimate_machine(job->data, job->args.hardware, &job->machine, err);
    enum ph_status status = cli_data_file(job->args.data, MACHINE_FILE, path, err);
    if (status != PH_OK)
        return status;
    if (!file_exists(path))
        return ph_fail(err, PH_ERR_NOTFOUND,
                       "%s: this machine was not measured yet: run `pharos bench probe`, or name "
                       "hardware with --hardware (see --list)",
                       path);
    return machine_read(&job->machine, path, err);
}

static enum ph_status read_calibration(struct job *job, struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    job->calibration = arena_calloc(&job->arena, 1, sizeof *job->calibration);
    if (!job->calibration)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a calibration");
    enum ph_status status = cli_data_file(job->args.data, EFFICIENCY_FILE, path, err);
    return status == PH_OK ? efficiency_read(job->calibration, path, err) : status;
}

static enum ph_status find_model(struct job *job, const char *name, const char *type,
                                 struct estimate_model *out, struct ph_err *err)
{
    if (!file_exists(name))
        return estimate_model_shape(out, &job->arena, job->data, name, type ? type : "Q4_K_M", err);
    if (type)
        return ph_fail(err, PH_ERR_ARG, "%s is a file and has its types: leave --type out, or name a shape",
                       name);
    return estimate_model_file(out, &job->arena, name, err);
}

static void fill_request(const struct args *args, struct estimate_request *request)
{
    estimate_request_default(request);
    request->prompt = args->prompt;
    request->generate = args->generate;
    request->context = args->context;
    request->streams = args->streams;
    request->rows_max = args->rows;
    request->kv_type = (size_t)cli_kv_type(args->kv);
    request->threads = (unsigned)args->threads;
    request->gpu_layers = args->gpu_layers;
    request->lora_rank = args->lora_rank;
    request->acceptance = args->acceptance;
    request->draft_len = args->draft_len;
    request->on = (enum estimate_on)args->on;
}

/* One line for each type: what it takes and gives. */
static enum ph_status print_types(struct job *job, struct estimate_request *request, struct ph_err *err)
{
    const char *type;
    enum ph_status status = PH_OK;
    buf_puts(&job->out,
             job->args.json ? "[" : "type        weights     memory   fits   prefill tok/s   decode tok/s\n");
    for (size_t i = 0; status == PH_OK && (type = estimate_type_name(i)) != NULL; i++) {
        struct estimate_model model;
        struct estimate *e;
        request->model = &model;
        status = estimate_model_shape(&model, &job->arena, job->data, job->args.model, type, err);
        if (status == PH_OK)
            status = estimate_make(&e, &job->arena, request, err);
        if (status != PH_OK)
            return status;
        if (job->args.json)
            buf_printf(&job->out,
                       "%s{\"type\":\"%s\",\"weight_bytes\":%llu,\"memory_bytes\":%llu,\"fits\":%s,"
                       "\"prefill_tokens_per_s\":%.6g,\"decode_tokens_per_s\":%.6g}",
                       i ? "," : "", type, (unsigned long long)model.bytes,
                       (unsigned long long)e->memory_bytes, e->fits ? "true" : "false",
                       e->prefill_tokens_per_s.mid, e->decode_tokens_per_s.mid);
        else
            buf_printf(&job->out, "%-8s %7.2f GB %7.2f GB   %-4s %15.4g %14.4g\n", type,
                       (double)model.bytes * 1e-9, (double)e->memory_bytes * 1e-9, e->fits ? "yes" : "no",
                       e->prefill_tokens_per_s.mid, e->decode_tokens_per_s.mid);
    }
    buf_puts(&job->out, job->args.json ? "]\n" : "");
    return status;
}

static enum ph_status estimate(struct job *job, struct ph_err *err)
{
    const struct args *args = &job->args;
    struct estimate_model model, draft;
    struct estimate_request request;
    struct estimate *e;
    fill_request(args, &request);
    enum ph_status status = find_machine(job, err);
    if (status == PH_OK)
        status = read_calibration(job, err);
    if (status == PH_OK && args->draft)
        status = find_model(job, args->draft, args->draft_type, &draft, err);
    if (status != PH_OK)
        return status;
    request.machine = &job->machine;
    request.efficiency = job->calibration;
    request.draft = args->draft ? &draft : NULL;
    if (args->types)
        return print_types(job, &request, err);
    request.model = &model;
    status = find_model(job, args->model, args->type, &model, err);
    if (status == PH_OK)
        status = estimate_make(&e, &job->arena, &request, err);
    if (status == PH_OK && args->json)
        estimate_print_json(&request, e, &job->out);
    else if (status == PH_OK)
        estimate_print(&request, e, args->explain, &job->out);
    return status;
}

static enum ph_status check_claims(struct job *job, struct ph_err *err)
{
    struct buf text;
    buf_init(&text, CONFIG_BYTES_MAX);
    enum ph_status status = file_read(job->args.check, &text, err);
    if (status == PH_OK)
        status = estimate_check(job->data, &job->arena, job->args.check, text.data ? text.data : "", text.len,
                                job->args.json, &job->out, err);
    buf_release(&text);
    return status;
}

static enum ph_status run(struct job *job, struct ph_err *err)
{
    const struct args *args = &job->args;
    const struct estimate_files files = {args->shapes.items, args->hardware_files.items, args->shapes.count,
                                         args->hardware_files.count};
    enum ph_status status = estimate_data_open(&job->data, &job->arena, &files, err);
    if (status != PH_OK)
        return status;
    if (args->list)
        estimate_data_list(job->data, &job->out, args->json);
    else
        status = args->check ? check_claims(job, err) : estimate(job, err);
    return status == PH_OK ? cli_flush(&job->out, err) : status;
}

int cmd_estimate(int argc, char **argv)
{
    struct job job = {.args = {.prompt = 512,
                               .generate = 128,
                               .streams = 1,
                               .kv = CLI_KV_F16,
                               .gpu_layers = SIZE_MAX,
                               .acceptance = 0.7}};
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &job.args, &exit_code))
        return exit_code;
    if (!job.args.list && !job.args.check && !job.args.model)
        return cli_error(CLI_EXIT_USAGE,
                         "estimate needs --model, --check or --list; see pharos estimate --help");
    struct ph_err err;
    arena_init(&job.arena, ESTIMATE_ARENA_BYTES_MAX);
    buf_init(&job.out, OUTPUT_BYTES_MAX);
    enum ph_status status = run(&job, &err);
    buf_release(&job.out);
    arena_release(&job.arena);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}
