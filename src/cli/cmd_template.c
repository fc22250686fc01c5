/* pharos template: renders a conversation with a chat template, as the model will see it. */
#include <string.h>

#include "base/file.h"
#include "base/limits.h"
#include "cli/cli_int.h"

struct args {
    const char *template_path, *model, *bos, *eos;
    double now_unix_s;
    bool json;
};

static const struct cli_option options[] = {
    {CLI_OPTION("--template", "F.jinja", CLI_TEXT, struct args, template_path, "template file")},
    {CLI_OPTION("--model", "F", CLI_TEXT, struct args, model,
                "GGUF file whose template, BOS and EOS to use")},
    {CLI_OPTION("--bos", "S", CLI_TEXT, struct args, bos, "the text of bos_token (the model's, or empty)")},
    {CLI_OPTION("--eos", "S", CLI_TEXT, struct args, eos, "the text of eos_token (the model's, or empty)")},
    {CLI_OPTION("--now", "UNIX", CLI_NUMBER, struct args, now_unix_s,
                "the time that strftime_now sees, in seconds, UTC (now)"),
     .min = -1e11, .max = 1e12},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json, "print {\"prompt\": ...}")},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {"template", "(--template F.jinja | --model F) [options] < JSON",
                                       "Reads {messages, tools?, add_generation_prompt = true} from standard "
                                       "input and writes the exact prompt.\n"
                                       "Other members become variables of the template.",
                                       options};

/* ---- A clock that stands still */

static uint64_t still_monotonic_ns(void *ud)
{
    (void)ud;
    return 0;
}

static int64_t still_unix_ms(void *ud)
{
    return (int64_t)(*(const double *)ud * 1000);
}

/* ---- The job */

struct job {
    struct args args;
    struct arena arena;
    struct gguf *gguf;
    struct vocab *vocab;
    struct buf source, input, prompt;
    struct chat_template *chat_template;
};

static enum ph_status read_model(struct job *job, struct ph_err *err)
{
    enum ph_status status = gguf_open(&job->gguf, job->args.model, err);
    if (status == PH_OK)
        status = vocab_create(&job->vocab, job->gguf, err);
    if (status != PH_OK || job->args.template_path)
        return status;
    struct gguf_string text;
    if (!gguf_get_string(job->gguf, "tokenizer.chat_template", &text))
        return ph_fail(err, PH_ERR_NOTFOUND, "%s: the file has no chat template; give one with --template",
                       job->args.model);
    buf_append(&job->source, text.text, text.len);
    return PH_OK;
}

static enum ph_status read_sources(struct job *job, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    if (job->args.model)
        status = read_model(job, err);
    if (status == PH_OK && job->args.template_path)
        status = file_read(job->args.template_path, &job->source, err);
    if (status == PH_OK && buf_status(&job->source) != PH_OK)
        status = ph_fail(err, buf_status(&job->source), "the template is longer than %u bytes",
                         TEMPLATE_BYTES_MAX);
    if (status == PH_OK)
        status = file_read("-", &job->input, err);
    return status;
}

static void set_token(struct job *job, struct json *vars, const char *name, const char *said, int32_t id)
{
    struct gguf_string text = {said, said ? strlen(said) : 0};
    if (!said && json_get(vars, name))
        return;
    if (!said && job->vocab && id >= 0)
        text = vocab_token_text(job->vocab, id);
    json_set(&job->arena, vars, name, json_new_string(&job->arena, text.text ? text.text : "", text.len));
}

static enum ph_status make_vars(struct job *job, struct json **out, struct ph_err *err)
{
    struct ph_err inner;
    const char *text = job->input.data ? job->input.data : "";
    if (json_parse(&job->arena, text, job->input.len, out, &inner) != PH_OK)
        return ph_fail(err, inner.code, "standard input: %s", inner.message);
    if (!json_is(*out, JSON_OBJECT) || !json_is(json_get(*out, "messages"), JSON_ARRAY))
        return ph_fail(err, PH_ERR_FORMAT, "standard input: an object with a list \"messages\" is expected");
    const struct vocab_info *info = job->vocab ? vocab_info(job->vocab) : NULL;
    set_token(job, *out, "bos_token", job->args.bos, info ? info->bos : -1);
    set_token(job, *out, "eos_token", job->args.eos, info ? info->eos : -1);
    if (!json_get(*out, "add_generation_prompt"))
        json_set(&job->arena, *out, "add_generation_prompt", json_new(&job->arena, JSON_TRUE));
    return PH_OK;
}

static enum ph_status render(struct job *job, struct ph_err *err)
{
    struct json *vars;
    enum ph_status status = read_sources(job, err);
    const char *name = job->args.template_path ? job->args.template_path : job->args.model;
    struct ph_err inner;
    if (status == PH_OK)
        status = make_vars(job, &vars, err);
    if (status != PH_OK)
        return status;
    const struct clock_source still = {still_monotonic_ns, still_unix_ms, &job->args.now_unix_s};
    const struct clock_source *clock = job->args.now_unix_s >= -1e11 ? &still : clock_system();
    status = chat_template_create(&job->chat_template, job->source.data ? job->source.data : "",
                                  job->source.len, &inner);
    if (status == PH_OK)
        status = chat_template_render(job->chat_template, vars, clock, &job->prompt, &inner);
    return status == PH_OK ? PH_OK : ph_fail(err, status, "%s: %s", name, inner.message);
}

static void print(struct job *job)
{
    const char *text = job->prompt.data ? job->prompt.data : "";
    if (!job->args.json) {
        fwrite(text, 1, job->prompt.len, stdout);
        return;
    }
    struct buf out;
    buf_init(&out, SIZE_MAX / 4);
    buf_puts(&out, "{\"prompt\":");
    json_write_string(&out, text, job->prompt.len);
    buf_puts(&out, "}\n");
    fwrite(out.data, 1, out.len, stdout);
    buf_release(&out);
}

int cmd_template(int argc, char **argv)
{
    struct job job = {.args.now_unix_s = -1e12};
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &job.args, &exit_code))
        return exit_code;
    if (!job.args.template_path && !job.args.model)
        return cli_error(CLI_EXIT_USAGE, "template: --template or --model is missing");
    arena_init(&job.arena, CLI_INPUT_BYTES_MAX);
    buf_init(&job.source, TEMPLATE_BYTES_MAX);
    buf_init(&job.input, CLI_INPUT_BYTES_MAX);
    buf_init(&job.prompt, TEMPLATE_OUTPUT_BYTES_MAX);
    struct ph_err err;
    enum ph_status status = render(&job, &err);
    if (status == PH_OK)
        print(&job);
    chat_template_free(job.chat_template);
    vocab_free(job.vocab);
    gguf_free(job.gguf);
    buf_release(&job.source);
    buf_release(&job.input);
    buf_release(&job.prompt);
    arena_release(&job.arena);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}
