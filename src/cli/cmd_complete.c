/* pharos complete: one prompt, one continuation, in this process. Text appears as it is generated. */
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "cli/cli_int.h"
#include "engine/engine.h"

#define TOKENS_DEFAULT 256

struct args {
    const char *model, *prompt, *prompt_ids, *kernels;
    size_t count, seed, context_len, threads;
    double temperature, top_k, top_p, min_p, repeat_penalty;
    struct cli_list loras, stops;
    int kv;
    bool ids, json, special, ignore_end;
};

static const struct cli_option options[] = {
    {CLI_OPTION("--model", "F", CLI_TEXT, struct args, model, "GGUF file"), .required = true},
    {CLI_OPTION("--prompt", "T", CLI_TEXT, struct args, prompt, "text to continue")},
    {CLI_OPTION("--prompt-ids", "1,2,3", CLI_TEXT, struct args, prompt_ids,
                "token ids to continue, fed as they are")},
    {CLI_OPTION("-n", "N", CLI_COUNT, struct args, count,
                "tokens at most (256); 0: until the context is full")},
    {CLI_OPTION("--temperature", "X", CLI_NUMBER, struct args, temperature, "0: always the best token (0.8)"),
     .max = 100},
    {CLI_OPTION("--seed", "S", CLI_COUNT, struct args, seed, "repeats a sampled text (a random one)")},
    {CLI_OPTION("--top-k", "N", CLI_NUMBER, struct args, top_k, "0: off (0)"), .max = 1e9},
    {CLI_OPTION("--top-p", "X", CLI_NUMBER, struct args, top_p, "1: off (1)"), .max = 1},
    {CLI_OPTION("--min-p", "X", CLI_NUMBER, struct args, min_p, "0: off (0.05)"), .max = 1},
    {CLI_OPTION("--repeat-penalty", "X", CLI_NUMBER, struct args, repeat_penalty,
                "over the last 64 tokens, 1: off (1)"),
     .max = 100},
    {CLI_OPTION("--stop", "T", CLI_LIST, struct args, stops,
                "text before which to stop; several may be given")},
    {CLI_OPTION("--lora", "F[:SCALE]", CLI_LIST, struct args, loras, "adapter to apply (scale 1)")},
    {CLI_OPTION("--kv", CLI_KV_VALUE, CLI_CHOICE, struct args, kv, "type of the KV cache (f16)"),
     .names = cli_kv_names},
    {CLI_OPTION("--context", "N", CLI_COUNT, struct args, context_len,
                "context length (the model's, up to 8192)"),
     .max = MODEL_CONTEXT_MAX},
    {CLI_OPTION("--threads", "N", CLI_COUNT, struct args, threads, "threads (one a CPU)"), .max = 4096},
    {CLI_OPTION("--kernels", "SET", CLI_TEXT, struct args, kernels,
                "ref, avx2, avx512, avx512bf16, amx (the best this CPU has)")},
    {CLI_OPTION("--ids", NULL, CLI_SWITCH, struct args, ids, "print the generated token ids, nothing else")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print one object with text, ids and times")},
    {CLI_OPTION("--special", NULL, CLI_SWITCH, struct args, special, "control tokens appear in the text")},
    {CLI_OPTION("--ignore-end", NULL, CLI_SWITCH, struct args, ignore_end, "go on past end tokens")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {"complete", "--model F (--prompt T | --prompt-ids 1,2,3) [options]",
                                       "Continues a prompt and prints the continuation as it is generated.",
                                       options};

struct job {
    struct args args;
    struct arena arena;
    struct engine *engine;
    struct engine_seq *seq;
    struct token_list prompt, generated;
    struct buf text;
    struct engine_event last;
};

static enum ph_status open_engine(struct job *job, struct ph_err *err)
{
    const struct args *args = &job->args;
    struct engine_params params;
    const char *const *paths;
    float *scales;
    enum ph_status status = cli_loras_parse(&job->arena, &args->loras, &paths, &scales, err);
    if (status != PH_OK)
        return status;
    engine_params_default(&params);
    params.model_path = args->model;
    params.threads = (unsigned)args->threads;
    params.kernels = args->kernels;
    params.kv_type = cli_kv_type(args->kv);
    params.context_len = args->context_len;
    params.sequences_max = 1;
    params.lora_paths = paths;
    params.lora_scales = scales;
    params.lora_count = args->loras.count;
    return engine_open(&job->engine, &params, err);
}

static enum ph_status read_prompt(struct job *job, struct ph_err *err)
{
    const struct args *args = &job->args;
    if (args->prompt_ids)
        return cli_ids_parse(args->prompt_ids, strlen(args->prompt_ids), &job->prompt, err);
    const struct vocab *vocab = model_vocab(engine_model(job->engine));
    return vocab_tokenize(vocab, args->prompt, strlen(args->prompt), true, true, &job->prompt, err);
}

static uint64_t choose_seed(const struct args *args)
{
    uint64_t seed = args->seed;
    if (args->seed == SIZE_MAX && entropy_fill(&seed, sizeof seed) != 0)
        seed = clock_monotonic_ns(clock_system());
    return seed;
}

static enum ph_status submit(struct job *job, struct ph_err *err)
{
    const struct args *args = &job->args;
    struct engine_text stops[CLI_LIST_MAX];
    for (size_t i = 0; i < args->stops.count; i++)
        stops[i] = (struct engine_text){args->stops.items[i], strlen(args->stops.items[i])};
    struct engine_request request = {
        .prompt = job->prompt.ids,
        .prompt_len = job->prompt.len,
        .max_tokens = args->count,
        .stops = stops,
        .stop_count = args->stops.count,
        .ignore_end = args->ignore_end,
        .show_special = args->special,
    };
    sampler_params_default(&request.sampling);
    request.sampling.temperature = (float)args->temperature;
    request.sampling.top_k = (int32_t)args->top_k;
    request.sampling.top_p = (float)args->top_p;
    request.sampling.min_p = (float)args->min_p;
    request.sampling.repeat_penalty = (float)args->repeat_penalty;
    request.sampling.penalty_last_n = 64;
    request.sampling.seed = choose_seed(args);
    return engine_submit(job->engine, &request, &job->seq, err);
}

static enum ph_status keep(struct job *job, const struct engine_event *event, struct ph_err *err)
{
    buf_append(&job->text, event->text, event->text_len);
    if (event->kind != ENGINE_TOKEN)
        return PH_OK;
    return cli_id_append(&job->generated, event->token, err);
}

static enum ph_status show(const struct job *job, const struct engine_event *event, struct ph_err *err)
{
    if (job->args.json)
        return PH_OK;
    if (!job->args.ids)
        fwrite(event->text, 1, event->text_len, stdout);
    else if (event->kind == ENGINE_TOKEN)
        printf(event->generated_tokens > 1 ? ",%d" : "%d", (int)event->token);
    return cli_sent(err);
}

static enum ph_status stream(struct job *job, struct ph_err *err)
{
    struct cli_progress progress;
    enum ph_status status = PH_OK;
    cli_progress_begin(&progress, "reading the prompt");
    while (status == PH_OK && engine_wait(job->seq, &job->last, UINT64_MAX)) {
        const struct engine_event *event = &job->last;
        if (event->kind == ENGINE_PREFILL) {
            cli_progress_show(&progress, event->prefilled, event->prompt_tokens);
            continue;
        }
        cli_progress_end(&progress);
        progress.drawn_ns = 0;
        status = show(job, event, err);
        if (status == PH_OK)
            status = keep(job, event, err);
    }
    if (status == PH_OK && job->last.finish == ENGINE_FINISH_ERROR)
        status = ph_fail(err, job->last.status, "%s: generating failed (%s)", job->args.model,
                         ph_status_name(job->last.status));
    return status;
}

/* ---- JSON */

static double per_second(size_t count, uint64_t ns)
{
    return ns ? (double)count * 1e9 / (double)ns : 0;
}

static void print_json(struct job *job)
{
    const struct engine_event *last = &job->last;
    size_t decoded = last->generated_tokens ? last->generated_tokens - 1 : 0; /* prefill gave the first */
    struct buf out;
    buf_init(&out, SIZE_MAX / 4);
    buf_puts(&out, "{\"text\":");
    json_write_string(&out, job->text.data ? job->text.data : "", job->text.len);
    buf_puts(&out, ",\"ids\":[");
    cli_ids_write(&out, job->generated.ids, job->generated.len);
    buf_printf(&out, "],\"finish\":\"%s\",\"prompt_tokens\":%zu,\"generated_tokens\":%zu",
               last->finish == ENGINE_FINISH_LENGTH ? "length" : "stop", last->prompt_tokens,
               last->generated_tokens);
    buf_printf(&out, ",\"prefill_ms\":%.3f,\"decode_ms\":%.3f", (double)last->prefill_ns * 1e-6,
               (double)last->decode_ns * 1e-6);
    buf_printf(&out, ",\"prefill_tokens_per_s\":%.2f,\"decode_tokens_per_s\":%.2f}\n",
               per_second(last->prompt_tokens, last->prefill_ns), per_second(decoded, last->decode_ns));
    fwrite(out.data, 1, out.len, stdout);
    buf_release(&out);
}

static void print_end(struct job *job)
{
    if (job->args.json)
        print_json(job);
    else if (job->args.ids || isatty(STDOUT_FILENO) == 1)
        putchar('\n'); /* piped text stays exactly what the model said */
}

int cmd_complete(int argc, char **argv)
{
    struct job job = {.args = {.count = TOKENS_DEFAULT,
                               .temperature = 0.8,
                               .top_p = 1,
                               .min_p = 0.05,
                               .repeat_penalty = 1,
                               .kv = CLI_KV_F16,
                               .seed = SIZE_MAX}};
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &job.args, &exit_code))
        return exit_code;
    if (!job.args.prompt == !job.args.prompt_ids)
        return cli_error(CLI_EXIT_USAGE, "complete: give either --prompt or --prompt-ids");
    struct ph_err err;
    arena_init(&job.arena, 1 << 20);
    buf_init(&job.text, SIZE_MAX / 4);
    enum ph_status status = open_engine(&job, &err);
    if (status == PH_OK)
        status = read_prompt(&job, &err);
    if (status == PH_OK)
        status = submit(&job, &err);
    if (status == PH_OK)
        status = stream(&job, &err);
    if (status == PH_OK)
        print_end(&job);
    engine_seq_free(job.seq);
    engine_free(job.engine);
    token_list_release(&job.prompt);
    token_list_release(&job.generated);
    buf_release(&job.text);
    arena_release(&job.arena);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}
