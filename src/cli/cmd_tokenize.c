/* pharos tokenize and detokenize: text to token ids and back, a line at a time. Only the vocabulary of the
 * file is read, so vocabulary-only files do. */
#include "base/file.h"
#include "cli/cli_int.h"

#define LINE_BYTES_MAX CLI_INPUT_BYTES_MAX

struct args {
    const char *model;
    bool special, hex, json;
};

/* Everything a line needs; the buffers are kept from line to line. */
struct job {
    struct args args;
    struct gguf *gguf;
    struct vocab *vocab;
    struct buf input, text, out;
    struct token_list ids;
    enum ph_status (*convert)(struct job *job, const char *line, size_t len, struct ph_err *err);
};

static const struct cli_option options[] = {
    {CLI_OPTION("--model", "F", CLI_TEXT, struct args, model,
                "GGUF file; one with a vocabulary only will do"),
     .required = true},
    {CLI_OPTION("--special", NULL, CLI_SWITCH, struct args, special,
                "add BOS/EOS as the model says, parse special tokens; detokenize: show them")},
    {CLI_OPTION("--hex", NULL, CLI_SWITCH, struct args, hex, "a line is the text's bytes in hexadecimal")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct args, json,
                "a line of output is a JSON array, or string")},
    CLI_OPTIONS_END,
};

static enum ph_status tokenize_line(struct job *job, const char *line, size_t len, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    const char *text = line;
    if (job->args.hex) {
        buf_clear(&job->text);
        status = cli_hex_parse(line, len, &job->text, err);
        text = job->text.data ? job->text.data : "";
        len = job->text.len;
    }
    job->ids.len = 0;
    if (status == PH_OK)
        status = vocab_tokenize(job->vocab, text, len, job->args.special, job->args.special, &job->ids, err);
    if (status != PH_OK)
        return status;
    buf_puts(&job->out, job->args.json ? "[" : "");
    cli_ids_write(&job->out, job->ids.ids, job->ids.len);
    buf_puts(&job->out, job->args.json ? "]\n" : "\n");
    return PH_OK;
}

static enum ph_status detokenize_line(struct job *job, const char *line, size_t len, struct ph_err *err)
{
    job->ids.len = 0;
    enum ph_status status = cli_ids_parse(line, len, &job->ids, err);
    if (status != PH_OK)
        return status;
    size_t n_tokens = vocab_info(job->vocab)->n_tokens;
    for (size_t i = 0; i < job->ids.len; i++)
        if ((size_t)job->ids.ids[i] >= n_tokens)
            return ph_fail(err, PH_ERR_ARG, "id %d is not in the vocabulary, which has 0 to %zu",
                           (int)job->ids.ids[i], n_tokens - 1);
    buf_clear(&job->text);
    status = vocab_detokenize(job->vocab, job->ids.ids, job->ids.len, job->args.special, &job->text);
    if (status != PH_OK)
        return ph_fail(err, status, "the line cannot be detokenized (%s)", ph_status_name(status));
    if (job->args.hex)
        cli_hex_write(&job->out, job->text.data, job->text.len);
    else if (job->args.json)
        json_write_string(&job->out, job->text.data ? job->text.data : "", job->text.len);
    else
        buf_append(&job->out, job->text.data, job->text.len);
    buf_putc(&job->out, '\n');
    return PH_OK;
}

static enum ph_status each_line(struct job *job, struct ph_err *err)
{
    size_t cursor = 0, number = 1, len;
    const char *line;
    enum ph_status status = PH_OK;
    struct cli_progress progress;
    cli_progress_begin(&progress, "lines");
    while (status == PH_OK && cli_next_line(job->input.data, job->input.len, &cursor, &line, &len)) {
        struct ph_err inner;
        status = job->convert(job, line, len, &inner);
        if (status != PH_OK)
            ph_fail(err, status, "standard input, line %zu: %s", number, inner.message);
        else
            status = cli_flush(&job->out, err);
        cli_progress_show(&progress, cursor, job->input.len);
        number++;
    }
    cli_progress_end(&progress);
    return status;
}

static int run(const struct cli_usage *usage, struct job job, int argc, char **argv)
{
    int exit_code;
    if (!cli_parse(usage, argc, argv, &job.args, &exit_code))
        return exit_code;
    buf_init(&job.input, CLI_INPUT_BYTES_MAX);
    buf_init(&job.text, LINE_BYTES_MAX);
    buf_init(&job.out, SIZE_MAX / 4);
    struct ph_err err;
    enum ph_status status = gguf_open(&job.gguf, job.args.model, &err);
    if (status == PH_OK)
        status = vocab_create(&job.vocab, job.gguf, &err);
    if (status == PH_OK)
        status = file_read("-", &job.input, &err);
    if (status == PH_OK)
        status = each_line(&job, &err);
    vocab_free(job.vocab);
    gguf_free(job.gguf);
    buf_release(&job.input);
    buf_release(&job.text);
    buf_release(&job.out);
    token_list_release(&job.ids);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}

int cmd_tokenize(int argc, char **argv)
{
    static const struct cli_usage usage = {
        "tokenize", "--model F [--special] [--hex] < TEXT",
        "Reads text from standard input; writes the token ids of each line, comma-separated.", options};
    return run(&usage, (struct job){.convert = tokenize_line}, argc, argv);
}

int cmd_detokenize(int argc, char **argv)
{
    static const struct cli_usage usage = {
        "detokenize", "--model F [--special] [--hex] < IDS",
        "Reads lines of token ids from standard input; writes the text of each line.", options};
    return run(&usage, (struct job){.convert = detokenize_line}, argc, argv);
}
