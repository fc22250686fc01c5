/* pharos bench load: requests at any OpenAI-compatible server, and whether what came of them will do. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/cli_int.h"
#include "cli/secret_int.h"
#include "ops/load.h"

#define URL_DEFAULT "http://127.0.0.1:8080"
#define KEY_VARIABLE "PHAROS_KEY"
#define STAGES_MAX 320
#define LEVELS_MAX 40
#define ARENA_BYTES_MAX ((size_t)2 << 30)
#define OUTPUT_BYTES_MAX ((size_t)512 << 20)
#define PIECE_BYTES ((size_t)1 << 20)
#define LEVEL_SECONDS 10
#define LEVEL_WARMUP 2
#define REQUESTS_DEFAULT 64
#define AGENT_THINK_S 5
#define AGENT_TURNS 4
#define HELP_COLUMNS 100

static const char *const api_names[] = {"chat", "completions", NULL};

struct load_args {
    const char *url, *key_file, *ca, *model, *prompts, *replay, *sweep, *sweep_rates, *slo, *out, *html,
        *accept;
    const char *machine;
    struct cli_list tests;
    int api;
    bool whole, ignore_end, stop_saturated, json;
    size_t concurrency, agents, turns, in_flight, requests, warmup, prompt_tokens, max_tokens, seed;
    double rate, speed, think_s, duration_s, timeout_s;
};

#define OPTION(flag_, value_, type_, member_, help_) \
    CLI_OPTION(flag_, value_, type_, struct load_args, member_, help_)
static const struct cli_option options[] = {
    {OPTION("--url", "U", CLI_TEXT, url, "the server (" URL_DEFAULT ")")},
    {OPTION("--key-file", "F", CLI_TEXT, key_file,
            "file with the key, its owner's alone ($" KEY_VARIABLE ")")},
    {OPTION("--ca", "F", CLI_TEXT, ca, "PEM file, trusted besides the system's, for https")},
    {OPTION("--model", "M", CLI_TEXT, model, "the model's name (the first of /v1/models)")},
    {OPTION("--api", "chat|completions", CLI_CHOICE, api, "which endpoint (chat)"), .names = api_names},
    {OPTION("--whole", NULL, CLI_SWITCH, whole, "answers in one piece instead of streamed")},
    {OPTION("--concurrency", "N", CLI_COUNT, concurrency,
            "closed loop: clients, one request at a time each (1)"),
     .min = 1, .max = LOAD_IN_FLIGHT_MAX},
    {OPTION("--rate", "R", CLI_NUMBER, rate, "open loop: R requests a second, Poisson arrivals"),
     .min = 0.001, .max = 1e6},
    {OPTION("--agents", "N", CLI_COUNT, agents, "N agents that hold conversations and think in between"),
     .min = 1, .max = LOAD_IN_FLIGHT_MAX},
    {OPTION("--think", "S", CLI_NUMBER, think_s, "agents: mean seconds of thinking, exponential (5)"),
     .min = 0, .max = 1e5},
    {OPTION("--turns", "N", CLI_COUNT, turns, "agents: turns of a conversation (4)"), .min = 1, .max = 1e5},
    {OPTION("--replay", "F.jsonl", CLI_TEXT, replay,
            "a station's request log, or what --out wrote, at its times")},
    {OPTION("--speed", "X", CLI_NUMBER, speed, "replay: X times as fast (1)"), .min = 1e-3, .max = 1e6},
    {OPTION("--sweep", "auto|N,N,...", CLI_TEXT, sweep,
            "closed loops of ever more clients until over-saturated")},
    {OPTION("--sweep-rates", "auto|R,R,...", CLI_TEXT, sweep_rates,
            "open loops of ever higher rates, the same")},
    {OPTION("--in-flight", "N", CLI_COUNT, in_flight,
            "open loop, replay: at most N at once, the rest waits (1024)"),
     .min = 1, .max = LOAD_IN_FLIGHT_MAX},
    {OPTION("--requests", "N", CLI_COUNT, requests, "how many (64, or two a client); of a sweep: a level's"),
     .min = 1, .max = 1e7},
    {OPTION("--duration", "S", CLI_NUMBER, duration_s, "for how many seconds; of a sweep: a level's (10)"),
     .min = 0.1, .max = 1e6},
    {OPTION("--warmup", "N", CLI_COUNT, warmup, "requests before the measured ones (0; of a sweep: 2)"),
     .min = 0, .max = 1e6},
    {OPTION("--timeout", "S", CLI_NUMBER, timeout_s, "of a request (300)"), .min = 0.001, .max = 1e5},
    {OPTION("--prompts", "F", CLI_TEXT, prompts,
            "a prompt a line: text, {\"prompt\": ...}, {\"messages\": [...]}; in turn")},
    {OPTION("--prompt-tokens", "N", CLI_COUNT, prompt_tokens, "else prompts of words, N tokens long (64)"),
     .min = 1, .max = LOAD_TOKENS_MAX},
    {OPTION("--max-tokens", "N", CLI_COUNT, max_tokens, "of an answer (64)"), .min = 1,
     .max = LOAD_TOKENS_MAX},
    {OPTION("--ignore-eos", NULL, CLI_SWITCH, ignore_end,
            "answers of exactly that length, where the server can")},
    {OPTION("--seed", "N", CLI_COUNT, seed, "of prompts, arrivals, thinking (1)"), .min = 0, .max = 1e15},
    {OPTION("--slo", "ttft=T,tpot=T,e2e=T", CLI_TEXT, slo,
            "what a good request keeps: 200ms, 2s; for goodput")},
    {OPTION("--stop-saturated", NULL, CLI_SWITCH, stop_saturated,
            "open loop, replay: end when the queue only grows")},
    {OPTION("--accept", "F.yaml", CLI_TEXT, accept,
            "run the tests of F and judge them; exit code 1 when one fails")},
    {OPTION("--machine", "CLASS", CLI_TEXT, machine, "accept: also the tests for this class of machines")},
    {OPTION("--test", "NAME", CLI_LIST, tests, "accept: only this test, may be given several times")},
    {OPTION("--out", "F.jsonl", CLI_TEXT, out, "every request with every time, a line each")},
    {OPTION("--html", "F", CLI_TEXT, html, "a report with plots that opens offline")},
    {OPTION("--json", NULL, CLI_SWITCH, json, "print the result as JSON")},
    CLI_OPTIONS_END};

struct session {
    struct load_args args;
    struct arena arena;
    struct load_params base;
    struct load_replay replay;
    struct load_report report;
    struct load_stage stages[STAGES_MAX];
    struct load_run runs[STAGES_MAX];
    struct load_verdict *verdicts;
    bool is_terminal, was_shown;
    char url[512];
};

/* ---- Progress */

static void show(void *ud, const struct load_live *live)
{
    struct session *s = ud;
    char ttft[32] = "-", of[32] = "";
    if (!s->is_terminal)
        return;
    if (isfinite(live->ttft_ms))
        snprintf(ttft, sizeof ttft, "%.0f ms", live->ttft_ms);
    if (live->wanted)
        snprintf(of, sizeof of, " of %zu", live->wanted);
    fprintf(stderr, "\r%s%.0f s: %zu%s done, %zu failed, %zu in flight, %.0f pieces/s, TTFT %s\033[K",
            live->is_warming ? "warming up, " : "", live->is_warming ? 0 : live->seconds, live->done, of,
            live->failed, live->in_flight, live->tokens_out_per_s, ttft);
    fflush(stderr);
    s->was_shown = true;
}

static void end_show(struct session *s)
{
    if (s->was_shown)
        fputs("\r\033[K", stderr);
    s->was_shown = false;
}

/* ---- Runs */

/* One more stage of the report. */
static enum ph_status run_stage(struct session *s, const char *name, const struct load_params *params,
                                const struct load_slo *slo, struct ph_err *err)
{
    struct load_stage *stage = &s->stages[s->report.count];
    struct load_run *run = &s->runs[s->report.count];
    *stage = (struct load_stage){.name = name, .params = *params, .run = run};
    stage->params.progress = show;
    stage->params.ud = s;
    enum ph_status status = load_run(&stage->params, run, err);
    end_show(s);
    if (status == PH_OK)
        status = load_summarize(run, slo, &stage->summary, err);
    s->report.count += status == PH_OK;
    return status;
}

static struct load_level level_of(const struct load_stage *stage)
{
    const struct load_summary *s = &stage->summary;
    return (struct load_level){.load = stage->params.mode == LOAD_OPEN ? stage->params.rate_per_s
                                                                       : (double)stage->params.concurrency,
                               .in_flight = s->in_flight_mean,
                               .ttft_ms = stage->params.whole ? s->e2e.p50 : s->ttft.p50,
                               .throughput = s->tokens_out > 0 ? s->tokens_out_per_s : s->requests_per_s};
}

/* "auto": doubling; else the numbers of a list. false: it is none. */
static bool read_levels(const char *text, bool is_rates, double levels[LEVELS_MAX], size_t *count)
{
    double most = is_rates ? 1e6 : LOAD_IN_FLIGHT_MAX;
    *count = 0;
    if (strcmp(text, "auto") == 0) {
        for (double level = 1; level <= most && *count < LEVELS_MAX; level *= 2)
            levels[(*count)++] = level;
        return true;
    }
    for (const char *at = text; *count < LEVELS_MAX; at++) {
        char *end;
        double level = strtod(at, &end);
        bool rises = !*count || level > levels[*count - 1];
        if (end == at || !(level > 0) || level > most || !rises || (!is_rates && level != floor(level)))
            return false;
        levels[(*count)++] = level;
        at = end;
        if (!*at)
            return true;
        if (*at != ',')
            return false;
    }
    return false;
}

static const char *level_name(struct session *s, double level, bool is_rates)
{
    char name[64];
    snprintf(name, sizeof name, "%g %s", level, is_rates ? "requests/s" : level > 1 ? "clients" : "client");
    const char *kept = arena_strdup(&s->arena, name);
    return kept ? kept : "";
}

static enum ph_status sweep(struct session *s, const double *levels, size_t count, bool is_rates,
                            struct ph_err *err)
{
    struct load_level seen[LEVELS_MAX];
    enum ph_status status = PH_OK;
    s->report.load_name = is_rates ? "requests a second" : "clients";
    for (size_t i = 0; i < count && status == PH_OK && !s->report.found_knee; i++) {
        struct load_params params = s->base;
        params.mode = is_rates ? LOAD_OPEN : LOAD_CLOSED;
        params.rate_per_s = is_rates ? levels[i] : 0;
        params.concurrency = is_rates ? s->args.in_flight : (size_t)levels[i];
        params.seed = s->base.seed + i; /* no prompt twice: caches would know it */
        status = run_stage(s, level_name(s, levels[i], is_rates), &params, &s->report.slo, err);
        if (status != PH_OK || s->runs[i].was_interrupted)
            break;
        seen[i] = level_of(&s->stages[i]);
        s->report.found_knee = load_saturated(seen, i + 1) || s->runs[i].was_saturated;
        s->report.knee = load_knee(seen, i + 1);
    }
    return status;
}

/* ---- Acceptance */

static bool is_wanted(const struct load_args *args, const struct load_test *test)
{
    for (size_t i = 0; i < args->tests.count; i++)
        if (strcmp(args->tests.items[i], test->name) == 0)
            return true;
    if (args->tests.count)
        return false;
    return !test->machine || (args->machine && strcmp(args->machine, test->machine) == 0);
}

static enum ph_status run_test(struct session *s, const struct load_test *test, struct ph_err *err)
{
    struct load_params params = test->params;
    params.clock = s->base.clock;
    params.target = s->base.target;
    params.seed = s->base.seed + s->report.count;
    params.prompts = s->base.prompts;
    params.prompts.tokens = test->prompt_tokens;
    fprintf(stderr, "%s ...\n", test->name);
    enum ph_status status = run_stage(s, test->name, &params, &test->slo, err);
    for (size_t i = 0; status == PH_OK && i < test->want_count; i++)
        s->verdicts[s->report.verdict_count++] =
            load_judge(test->name, &test->wants[i], &s->stages[s->report.count - 1].summary);
    return status;
}

static enum ph_status accept(struct session *s, struct ph_err *err)
{
    struct load_criteria criteria;
    size_t wants = 0, chosen = 0;
    enum ph_status status = load_criteria_read(&s->arena, s->args.accept, &criteria, err);
    if (status != PH_OK)
        return status;
    for (size_t i = 0; i < criteria.count; i++) {
        chosen += is_wanted(&s->args, &criteria.tests[i]);
        wants += criteria.tests[i].want_count;
        if (!is_wanted(&s->args, &criteria.tests[i]) && !s->args.tests.count)
            fprintf(stderr, "%s: left out, it is for machines of the class %s (--machine)\n",
                    criteria.tests[i].name, criteria.tests[i].machine);
    }
    if (!chosen)
        return ph_fail(err, PH_ERR_ARG, "%s has no test that was asked for: see --test and --machine",
                       s->args.accept);
    s->verdicts = arena_calloc(&s->arena, wants, sizeof *s->verdicts);
    if (!s->verdicts)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    s->report.verdicts = s->verdicts;
    for (size_t i = 0; i < criteria.count && status == PH_OK; i++) {
        if (is_wanted(&s->args, &criteria.tests[i]))
            status = run_test(s, &criteria.tests[i], err);
        if (s->report.count && s->runs[s->report.count - 1].was_interrupted)
            break;
    }
    return status;
}

/* ---- What is written */

static enum ph_status write_samples(const struct session *s, const char *path, struct ph_err *err)
{
    struct file_out file;
    struct buf piece;
    enum ph_status status = file_out_open(&file, path, 0644, err);
    if (status != PH_OK)
        return status;
    buf_init(&piece, OUTPUT_BYTES_MAX);
    for (size_t stage = 0; stage < s->report.count; stage++)
        for (size_t i = 0; i < s->runs[stage].count && status == PH_OK; i++) {
            load_put_sample(&s->stages[stage], stage, i, &piece);
            if (piece.len < PIECE_BYTES)
                continue;
            status = file_out_write(&file, piece.data, piece.len, err);
            buf_clear(&piece);
        }
    if (status == PH_OK && piece.len)
        status = file_out_write(&file, piece.data, piece.len, err);
    buf_release(&piece);
    if (status == PH_OK)
        return file_out_commit(&file, err);
    file_out_abandon(&file);
    return status;
}

static enum ph_status write_html(const struct session *s, const char *path, struct ph_err *err)
{
    struct buf page;
    buf_init(&page, OUTPUT_BYTES_MAX);
    load_put_html(&s->report, &page);
    enum ph_status status = buf_status(&page) == PH_OK
                                ? file_write_atomic(path, page.data, page.len, 0644, err)
                                : ph_fail(err, PH_ERR_NOMEM, "%s: no memory for the report", path);
    buf_release(&page);
    return status;
}

static enum ph_status write_all(const struct session *s, struct ph_err *err)
{
    struct buf out;
    enum ph_status status = PH_OK;
    if (s->args.out)
        status = write_samples(s, s->args.out, err);
    if (status == PH_OK && s->args.html)
        status = write_html(s, s->args.html, err);
    if (status != PH_OK)
        return status;
    buf_init(&out, OUTPUT_BYTES_MAX);
    if (s->args.json)
        load_put_json(&s->report, &out);
    else
        load_put_text(&s->report, &out);
    status = cli_flush(&out, err);
    buf_release(&out);
    return status;
}

/* What a script learns: acceptance, or whether anything could be measured at all. */
static int judge(const struct session *s)
{
    double succeeded = 0;
    size_t broken = 0;
    const struct load_verdict *first = NULL;
    bool was_interrupted = false;
    for (size_t i = 0; i < s->report.count; i++) {
        succeeded += s->stages[i].summary.succeeded;
        was_interrupted = was_interrupted || s->runs[i].was_interrupted;
    }
    for (size_t i = s->report.verdict_count; i-- > 0;)
        if (!s->verdicts[i].holds) {
            first = &s->verdicts[i];
            broken++;
        }
    if (first)
        return cli_error(CLI_EXIT_FAILURE,
                         "bench load: %zu of %zu criteria fail; the first: %s: %s, measured %.2f", broken,
                         s->report.verdict_count, first->test, first->want->text, first->measured);
    if (s->args.accept && was_interrupted)
        return cli_error(CLI_EXIT_FAILURE, "bench load: interrupted, so nothing is accepted");
    if (succeeded <= 0)
        return cli_error(CLI_EXIT_FAILURE, "bench load: no request succeeded at %s", s->base.target.url);
    return CLI_EXIT_OK;
}

/* ---- What is asked for */

static int wrong(const char *what)
{
    return cli_error(CLI_EXIT_USAGE, "bench load: %s", what);
}

static int check_args(const struct load_args *a)
{
    int modes = (a->concurrency != 0) + (a->rate > 0) + (a->agents != 0) + (a->replay != NULL) +
                (a->sweep != NULL) + (a->sweep_rates != NULL) + (a->accept != NULL);
    if (modes > 1)
        return wrong(
            "choose one of --concurrency, --rate, --agents, --replay, --sweep, --sweep-rates, --accept");
    if ((a->tests.count || a->machine) && !a->accept)
        return wrong("--test and --machine belong to --accept");
    if (a->speed > 0 && !a->replay)
        return wrong("--speed belongs to --replay");
    if (a->stop_saturated && !(a->rate > 0 || a->replay || a->sweep_rates))
        return wrong("--stop-saturated belongs to --rate, --replay and --sweep-rates");
    if (a->agents && a->api != LOAD_CHAT)
        return wrong("agents hold conversations, which /v1/completions has none of");
    return CLI_EXIT_OK;
}

static enum ph_status read_key(struct session *s, struct ph_err *err)
{
    const char *const *keys;
    size_t count;
    const char *value = getenv(KEY_VARIABLE);
    if (s->args.key_file) {
        char path[PATH_BYTES_MAX];
        if (snprintf(path, sizeof path, SECRET_FILE_PREFIX "%s", s->args.key_file) >= (int)sizeof path)
            return ph_fail(err, PH_ERR_ARG, "--key-file: the path is too long");
        value = arena_strdup(&s->arena, path);
    }
    if (!value || !*value)
        return PH_OK;
    enum ph_status status = secret_read(&s->arena, value, &keys, &count, err);
    if (status == PH_OK)
        s->base.target.key = keys[0];
    return status;
}

static void set_mode(struct session *s)
{
    const struct load_args *a = &s->args;
    struct load_params *p = &s->base;
    bool is_sweep = a->sweep || a->sweep_rates;
    p->mode = a->rate > 0 ? LOAD_OPEN : a->replay ? LOAD_REPLAY : a->agents ? LOAD_AGENTS : LOAD_CLOSED;
    p->concurrency = p->mode == LOAD_AGENTS   ? a->agents
                     : p->mode == LOAD_CLOSED ? (a->concurrency ? a->concurrency : 1)
                                              : a->in_flight;
    if (is_sweep) {
        p->warmup = a->warmup != SIZE_MAX ? a->warmup : LEVEL_WARMUP;
        p->duration_s = a->duration_s > 0 ? a->duration_s : a->requests ? 0 : LEVEL_SECONDS;
    } else if (!a->requests && a->duration_s <= 0 && p->mode != LOAD_REPLAY) {
        bool many = p->mode != LOAD_OPEN && 2 * p->concurrency > REQUESTS_DEFAULT;
        p->requests = many ? 2 * p->concurrency : REQUESTS_DEFAULT;
    }
}

static enum ph_status prepare(struct session *s, struct ph_err *err)
{
    const struct load_args *a = &s->args;
    struct load_params *p = &s->base;
    *p = (struct load_params){
        .clock = clock_system(),
        .target = {.url = a->url, .ca_file = a->ca, .model = a->model, .api = (enum load_api)a->api},
        .rate_per_s = a->rate,
        .think_s = a->think_s,
        .turns = a->turns,
        .speed = a->speed > 0 ? a->speed : 1,
        .requests = a->requests,
        .duration_s = a->duration_s,
        .warmup = a->warmup != SIZE_MAX ? a->warmup : 0,
        .timeout_s = a->timeout_s,
        .max_tokens = a->max_tokens,
        .whole = a->whole,
        .ignore_end = a->ignore_end,
        .stop_saturated = a->stop_saturated,
        .seed = a->seed,
        .prompts = {.tokens = a->prompt_tokens, .tokens_per_word = 1}};
    set_mode(s);
    enum ph_status status = read_key(s, err);
    if (status == PH_OK && a->slo)
        status = load_slo_parse(a->slo, &s->report.slo, err);
    if (status == PH_OK && a->prompts)
        status = load_prompts_read(&s->arena, a->prompts, &p->prompts, err);
    if (status == PH_OK && a->replay)
        status = load_replay_read(&s->arena, a->replay, &p->replay, err);
    if (status == PH_OK && a->out)
        status = file_out_check(a->out, err);
    if (status == PH_OK && a->html)
        status = file_out_check(a->html, err);
    if (status == PH_OK && !a->model)
        status = load_first_model(&s->arena, &p->target, &p->target.model, err);
    if (status == PH_OK && !a->prompts)
        status = load_calibrate(&p->target, &p->prompts, err);
    return status;
}

static int run(struct session *s)
{
    struct ph_err err;
    double levels[LEVELS_MAX];
    size_t level_count = 0;
    const char *list = s->args.sweep ? s->args.sweep : s->args.sweep_rates;
    bool is_rates = s->args.sweep_rates != NULL;
    if (list && !read_levels(list, is_rates, levels, &level_count))
        return wrong(is_rates ? "--sweep-rates: rising rates with commas between them, or auto"
                              : "--sweep: rising whole numbers with commas between them, or auto");
    enum ph_status status = prepare(s, &err);
    if (status == PH_OK)
        status = s->args.accept ? accept(s, &err)
                 : list         ? sweep(s, levels, level_count, is_rates, &err)
                                : run_stage(s, NULL, &s->base, &s->report.slo, &err);
    if (status == PH_OK)
        status = write_all(s, &err);
    return status == PH_OK ? judge(s) : cli_fail(&err);
}

/* A paragraph in lines of HELP_COLUMNS. */
static void put_wrapped(struct buf *out, const char *name, const char *text)
{
    size_t column = strlen(name) + 3;
    buf_printf(out, "  %s:", name);
    for (size_t len; *text; text += len) {
        text += strspn(text, " ");
        len = strcspn(text, " ");
        if (column + 1 + len > HELP_COLUMNS) {
            buf_puts(out, "\n   ");
            column = 3;
        }
        buf_putc(out, ' ');
        buf_append(out, text, len);
        column += 1 + len;
    }
    buf_putc(out, '\n');
}

int cmd_bench_load(int argc, char **argv)
{
    static const char about[] =
        "Sends requests to an OpenAI-compatible server and says what came of them. Choose one way:\n"
        "clients that wait for their answers (--concurrency), arrivals at a rate (--rate), agents\n"
        "(--agents), a recorded log (--replay), ever more load until the server is over-saturated\n"
        "(--sweep, --sweep-rates), or tests with criteria (--accept). Ctrl-C ends it with a report.\n\n";
    struct session *s = mem_calloc(1, sizeof *s);
    struct buf help;
    int exit_code;
    if (!s)
        return cli_error(CLI_EXIT_FAILURE, "bench load: out of memory");
    buf_init(&help, OUTPUT_BYTES_MAX);
    buf_puts(&help, about);
    buf_puts(&help, "What the figures mean:\n");
    for (const struct load_definition *d = load_definitions; d->name; d++)
        put_wrapped(&help, d->name, d->text);
    const struct cli_usage usage = {"bench load", "[--url U] [options]", help.data ? help.data : about,
                                    options};
    s->args = (struct load_args){.url = URL_DEFAULT,
                                 .turns = AGENT_TURNS,
                                 .think_s = AGENT_THINK_S,
                                 .in_flight = 1024,
                                 .warmup = SIZE_MAX,
                                 .prompt_tokens = 64,
                                 .max_tokens = 64,
                                 .seed = 1};
    if (cli_parse(&usage, argc, argv, &s->args, &exit_code)) {
        log_setup(2, LOG_WARN, false);
        arena_init(&s->arena, ARENA_BYTES_MAX);
        s->report.stages = s->stages;
        s->is_terminal = isatty(STDERR_FILENO) == 1;
        exit_code = check_args(&s->args);
        if (exit_code == CLI_EXIT_OK)
            exit_code = run(s);
        for (size_t i = 0; i < STAGES_MAX; i++)
            load_run_release(&s->runs[i]);
        arena_release(&s->arena);
    }
    buf_release(&help);
    mem_free(s);
    return exit_code;
}
