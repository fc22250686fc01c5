/* pharos route: how routes choose, and the threshold of a cascade calibrated from verdicts. */
#include <math.h>
#include <string.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "cli/cli_int.h"
#include "cli/station_int.h"
#include "gateway/verdict.h"

#define OUTPUT_BYTES_MAX (4u << 20)
#define ARENA_BYTES_MAX (16u << 20)
#define DAMAGED_SHOWN 10
#define TABLE_STEP 10 /* a row every so many points */
#define NOT_SAID (-1.0)
#define SINCE_DEFAULT "90d"

static int finish(struct buf *out, enum ph_status status, struct ph_err *err)
{
    if (status == PH_OK)
        status = cli_flush(out, err);
    buf_release(out);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(err);
}

static void put_text(struct buf *out, const char *text)
{
    json_write_string(out, text, strlen(text));
}

/* ---- calibrate */

struct calibrate_args {
    const char *route, *data, *since;
    double quality, spend;
    bool json, dry_run;
};

struct job {
    struct calibrate_args args;
    char dir[PATH_BYTES_MAX], target[64];
    int64_t now_s;
    size_t damaged;
    struct verdict_data data;
    struct verdict_curve curve;
    const struct verdict_point *chosen;
    struct buf out;
};

static const struct cli_option calibrate_options[] = {
    {CLI_OPTION("ROUTE", NULL, CLI_TEXT, struct calibrate_args, route, "a route whose policy is cascade"),
     .required = true},
    {CLI_OPTION("--quality", "Q", CLI_NUMBER, struct calibrate_args, quality,
                "expected quality to reach, 0 to 1 (scores of -1 to 1 count as 0 to 1)"),
     .max = 1},
    {CLI_OPTION("--spend", "USD", CLI_NUMBER, struct calibrate_args, spend,
                "USD a month to stay within, instead of --quality"),
     .max = 1e9},
    {CLI_OPTION("--since", "SPAN", CLI_TEXT, struct calibrate_args, since,
                "how old verdicts and answers may be (" SINCE_DEFAULT ")")},
    {CLI_OPTION("--data", "DIR", CLI_TEXT, struct calibrate_args, data, CLI_DATA_HELP)},
    {CLI_OPTION("--dry-run", NULL, CLI_SWITCH, struct calibrate_args, dry_run,
                "say what would be chosen, change nothing")},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct calibrate_args, json, "print the result as JSON")},
    CLI_OPTIONS_END,
};
static const struct cli_usage calibrate_usage = {
    "route calibrate", "ROUTE (--quality Q | --spend USD) [options]",
    "Chooses the confidence below which a cascade escalates, from verdicts (POST /v1/feedback) and recent\n"
    "answers: the lowest that promises the quality, or the highest that stays within the spend. A running\n"
    "station takes it up within a second.",
    calibrate_options};

static void on_damaged(void *ud, const char *path, size_t line, const char *why)
{
    struct job *job = ud;
    if (job->damaged++ < DAMAGED_SHOWN)
        fprintf(stderr, "pharos: %s line %zu is passed over: %s\n", path, line, why);
}

static bool is_row(const struct job *job, const struct verdict_point *point)
{
    size_t i = (size_t)(point - job->curve.points);
    return point == job->chosen || i == 0 || i + 1 == job->curve.count ||
           (size_t)lround(point->threshold * (VERDICT_POINTS - 1)) % TABLE_STEP == 0;
}

static void print_table(struct job *job)
{
    struct buf *out = &job->out;
    buf_printf(out, "  below   quality (9 in 10)       escalated   USD a month\n");
    for (size_t i = 0; i < job->curve.count; i++) {
        const struct verdict_point *p = &job->curve.points[i];
        if (is_row(job, p))
            buf_printf(out, "%s %.3f   %.3f   (%.3f to %.3f)   %7.1f %%   %11.2f\n",
                       p == job->chosen ? "*" : " ", p->threshold, p->quality, p->low, p->high,
                       p->escalated * 100, p->usd_month);
    }
    buf_printf(out,
               "From %zu verdicts on cheap answers, %zu on escalated ones, and %zu answers (%.0f a month).\n",
               job->data.cheap_count, job->data.verdict_count - job->data.cheap_count, job->data.answer_count,
               job->curve.answers_month);
    if (job->curve.points[0].threshold > 0)
        buf_printf(
            out,
            "Nothing is known of cheap answers below %.3f: too few were judged. A lower escalate_below for a "
            "while would show.\n",
            job->curve.points[0].threshold);
    buf_printf(out, "Route %s %s below %.3f (%s).\n", job->args.route,
               job->args.dry_run ? "would escalate" : "escalates", job->chosen->threshold, job->target);
}

static void json_point(struct buf *out, const struct verdict_point *p)
{
    buf_printf(out,
               "{\"escalate_below\":%.3f,\"quality\":%.6g,\"low\":%.6g,\"high\":%.6g,\"escalated\":%.6g,"
               "\"usd_month\":%.9g}",
               p->threshold, p->quality, p->low, p->high, p->escalated, p->usd_month);
}

static void print_json(struct job *job)
{
    struct buf *out = &job->out;
    buf_puts(out, "{\"route\":");
    put_text(out, job->args.route);
    buf_puts(out, ",\"target\":");
    put_text(out, job->target);
    buf_puts(out, ",\"chosen\":");
    json_point(out, job->chosen);
    buf_printf(out,
               ",\"written\":%s,\"cheap_verdicts\":%zu,\"dear_verdicts\":%zu,\"answers\":%zu,"
               "\"answers_month\":%.6g,\"damaged\":%zu,\"curve\":[",
               job->args.dry_run ? "false" : "true", job->data.cheap_count,
               job->data.verdict_count - job->data.cheap_count, job->data.answer_count,
               job->curve.answers_month, job->damaged);
    for (size_t i = 0; i < job->curve.count; i++) {
        if (i)
            buf_putc(out, ',');
        json_point(out, &job->curve.points[i]);
    }
    buf_puts(out, "]}\n");
}

/* Nothing does: what comes nearest. */
static enum ph_status explain(const struct job *job, struct ph_err *err)
{
    const struct verdict_curve *curve = &job->curve;
    const struct verdict_point *best = &curve->points[0];
    for (size_t i = 1; i < curve->count; i++)
        if (curve->points[i].quality > best->quality)
            best = &curve->points[i];
    if (job->args.spend == NOT_SAID)
        return ph_fail(
            err, PH_ERR_NOTFOUND,
            "no threshold of route %.100s promises a quality of %g: the best is %.3f, at %.3f; ask "
            "for less, or put a better model at the end of its order",
            job->args.route, job->args.quality, best->quality, best->threshold);
    return ph_fail(err, PH_ERR_NOTFOUND,
                   "route %.100s cannot stay within %g USD a month: the lowest threshold that can be judged, "
                   "%.3f, would cost %.2f; allow more, or use cheaper models",
                   job->args.route, job->args.spend, curve->points[0].threshold, curve->points[0].usd_month);
}

static enum ph_status choose(struct job *job, struct ph_err *err)
{
    enum ph_status status = verdict_curve_make(&job->curve, &job->data, job->now_s, err);
    if (status != PH_OK)
        return status;
    bool by_spend = job->args.spend != NOT_SAID;
    snprintf(job->target, sizeof job->target, by_spend ? "spend %g USD a month" : "quality %g",
             by_spend ? job->args.spend : job->args.quality);
    job->chosen = by_spend ? verdict_for_spend(&job->curve, job->args.spend)
                           : verdict_for_quality(&job->curve, job->args.quality);
    return job->chosen ? PH_OK : explain(job, err);
}

static enum ph_status keep(const struct job *job, struct ph_err *err)
{
    struct calibration_entry entry = {.route = job->args.route,
                                      .target = job->target,
                                      .escalate_below = job->chosen->threshold,
                                      .quality = job->chosen->quality,
                                      .low = job->chosen->low,
                                      .high = job->chosen->high,
                                      .escalated = job->chosen->escalated,
                                      .usd_month = job->chosen->usd_month,
                                      .verdicts = (int64_t)job->data.verdict_count,
                                      .at = job->now_s};
    return job->args.dry_run ? PH_OK : calibration_put(job->dir, &entry, err);
}

static enum ph_status calibrate(struct job *job, struct ph_err *err)
{
    int64_t span;
    enum ph_status status = cli_data_dir(job->args.data, job->dir, err);
    if (status == PH_OK)
        status = cli_duration_parse(job->args.since, &span, err);
    if (status != PH_OK)
        return status;
    struct verdict_query query = {job->dir, job->args.route, job->now_s - span, on_damaged, job};
    status = verdict_data_read(&job->data, &query, err);
    if (job->damaged > DAMAGED_SHOWN)
        fprintf(stderr, "pharos: and %zu more lines\n", job->damaged - DAMAGED_SHOWN);
    if (status == PH_OK)
        status = choose(job, err);
    if (status == PH_OK)
        status = keep(job, err);
    if (status == PH_OK)
        (job->args.json ? print_json : print_table)(job);
    return status;
}

static int cmd_calibrate(int argc, char **argv)
{
    struct calibrate_args args = {.since = SINCE_DEFAULT, .quality = NOT_SAID, .spend = NOT_SAID};
    struct ph_err err;
    int exit_code;
    if (!cli_parse(&calibrate_usage, argc, argv, &args, &exit_code))
        return exit_code;
    if ((args.quality == NOT_SAID) == (args.spend == NOT_SAID))
        return cli_error(CLI_EXIT_USAGE, "route calibrate: give either --quality Q or --spend USD");
    struct job *job = mem_calloc(1, sizeof *job);
    if (!job)
        return cli_error(CLI_EXIT_FAILURE, "route calibrate: out of memory");
    job->args = args;
    job->now_s = clock_unix_ms(clock_system()) / 1000;
    buf_init(&job->out, OUTPUT_BYTES_MAX);
    enum ph_status status = calibrate(job, &err);
    exit_code = finish(&job->out, status, &err);
    verdict_data_release(&job->data);
    mem_free(job);
    return exit_code;
}

/* ---- ls */

struct ls_args {
    const char *config, *data;
    bool json;
};

static const struct cli_option ls_options[] = {
    {CLI_OPTION("--config", "F", CLI_TEXT, struct ls_args, config,
                "the station's configuration (without it: calibrated routes only)")},
    {CLI_OPTION("--data", "DIR", CLI_TEXT, struct ls_args, data, CLI_DATA_HELP)},
    {CLI_OPTION("--json", NULL, CLI_SWITCH, struct ls_args, json, "print the result as JSON")},
    CLI_OPTIONS_END,
};
static const struct cli_usage ls_usage = {
    "route ls", NULL,
    "Lists routes, the confidence below which cascades escalate, and where that comes from.", ls_options};

struct row {
    const char *route, *policy, *source;
    double threshold; /* negative: it has none */
    const struct calibration_entry *entry;
};

static void print_row(struct buf *out, const struct row *row, bool json, bool first)
{
    const struct calibration_entry *entry = row->entry;
    char threshold[32] = "-";
    if (row->threshold >= 0)
        snprintf(threshold, sizeof threshold, "%.3f", row->threshold);
    if (!json) {
        buf_printf(out, "%-20s  %-10s  %9s  %s", row->route, row->policy, threshold, row->source);
        if (entry)
            buf_printf(out, ": %s, expected %.3f (%.3f to %.3f), %.0f %% escalated, %.2f USD a month",
                       entry->target, entry->quality, entry->low, entry->high, entry->escalated * 100,
                       entry->usd_month);
        buf_putc(out, '\n');
        return;
    }
    buf_puts(out, first ? "\n{\"route\":" : ",\n{\"route\":");
    put_text(out, row->route);
    buf_puts(out, ",\"policy\":");
    put_text(out, row->policy);
    buf_printf(out, ",\"escalate_below\":%s,\"source\":\"%s\"", row->threshold >= 0 ? threshold : "null",
               row->source);
    if (entry) {
        buf_puts(out, ",\"target\":");
        put_text(out, entry->target);
        buf_printf(out, ",\"quality\":%.6g,\"calibrated_at\":%lld", entry->quality, (long long)entry->at);
    }
    buf_putc(out, '}');
}

static void list(const struct station_config *config, const struct calibration *calibration, bool json,
                 struct buf *out)
{
    const struct station_route *routes = config->routes.items;
    size_t count = config->routes.count, rows = 0;
    if (json)
        buf_putc(out, '[');
    else
        buf_printf(out, "%-20s  %-10s  %9s  %s\n", "route", "policy", "below", "from");
    for (size_t i = 0; i < count; i++) {
        bool cascades = routes[i].policy == GATEWAY_CASCADE;
        const struct calibration_entry *entry =
            cascades ? calibration_find(calibration, routes[i].model) : NULL;
        double configured =
            routes[i].escalate_below > 0 ? routes[i].escalate_below : GATEWAY_ESCALATE_BELOW_DEFAULT;
        struct row row = {routes[i].model, gateway_policy_name((enum gateway_policy)routes[i].policy),
                          !cascades ? "-"
                          : entry   ? "calibrated"
                                    : "configuration",
                          !cascades ? -1
                          : entry   ? entry->escalate_below
                                    : configured,
                          entry};
        print_row(out, &row, json, rows++ == 0);
    }
    for (size_t i = 0; i < calibration->count && !count; i++) {
        const struct calibration_entry *entry = &calibration->list[i];
        struct row row = {entry->route, "cascade", "calibrated", entry->escalate_below, entry};
        print_row(out, &row, json, rows++ == 0);
    }
    buf_puts(out, json ? "\n]\n" : "");
}

static int cmd_ls(int argc, char **argv)
{
    struct ls_args args = {0};
    struct station_config config = {0};
    struct calibration calibration = {.count = 0};
    struct arena arena;
    struct buf out;
    struct ph_err err;
    char dir[PATH_BYTES_MAX];
    int exit_code;
    if (!cli_parse(&ls_usage, argc, argv, &args, &exit_code))
        return exit_code;
    arena_init(&arena, ARENA_BYTES_MAX);
    arena_init(&calibration.arena, 0);
    buf_init(&out, OUTPUT_BYTES_MAX);
    enum ph_status status = PH_OK;
    station_config_default(&config);
    if (args.config)
        status = station_config_read(&arena, args.config, &config, &err);
    if (status == PH_OK)
        status = cli_data_dir(args.data ? args.data : config.data, dir, &err);
    if (status == PH_OK)
        status = calibration_read(&calibration, dir, &err);
    if (status == PH_OK)
        list(&config, &calibration, args.json, &out);
    exit_code = finish(&out, status, &err);
    calibration_release(&calibration);
    arena_release(&arena);
    return exit_code;
}

int cmd_route(int argc, char **argv)
{
    static const struct cli_command commands[] = {
        {"ls", "list routes and where their thresholds come from", cmd_ls},
        {"calibrate", "choose a cascade's threshold from verdicts", cmd_calibrate},
        {NULL, NULL, NULL},
    };
    return cli_dispatch("pharos route", "How routes choose who answers.", commands, argc, argv);
}
