/* bench load without a server: percentiles, schedules, saturation, prompts, logs, criteria, sums. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "ops/load.h"
#include "test_support.h"

#define ARENA_BYTES_MAX ((size_t)16 << 20)
#define MS 1000000u

/* ---- Figures */

static void test_percentiles(void **state)
{
    const double one[] = {7}, four[] = {1, 2, 3, 4};
    double hundred[100];
    (void)state;
    for (int i = 0; i < 100; i++)
        hundred[i] = i + 1;
    assert_true(isnan(load_percentile(one, 0, 50)));
    assert_true(load_percentile(one, 1, 1) == 7 && load_percentile(one, 1, 99) == 7);
    assert_true(load_percentile(four, 4, 50) == 2 && load_percentile(four, 4, 51) == 3);
    assert_true(load_percentile(four, 4, 95) == 4 && load_percentile(four, 4, 100) == 4);
    assert_true(load_percentile(hundred, 100, 95) == 95 && load_percentile(hundred, 100, 99) == 99);
    assert_true(load_percentile(hundred, 100, 0) == 1);
}

static void test_poisson(void **state)
{
    struct rng rng;
    double sum = 0, squares = 0;
    int n = 200000, short_ones = 0;
    (void)state;
    assert_true(load_gap_s(10, 0) == 0);
    assert_true(fabs(load_gap_s(10, 0.5) - log(2) / 10) < 1e-12);
    rng_init(&rng, 42);
    for (int i = 0; i < n; i++) {
        double gap = load_gap_s(50, rng_double(&rng));
        assert_true(gap >= 0 && isfinite(gap));
        sum += gap;
        squares += gap * gap;
        short_ones += gap < log(2) / 50;
    }
    /* Mean and deviation of an exponential are equal, its median is ln 2 of that. */
    double mean = sum / n, deviation = sqrt(squares / n - mean * mean);
    assert_true(fabs(mean * 50 - 1) < 0.01 && fabs(deviation * 50 - 1) < 0.02);
    assert_true(fabs(short_ones / (double)n - 0.5) < 0.005);
}

struct made {
    struct load_run run;
    struct load_sample samples[8];
    uint64_t chunks[32];
};

/* A request due at `due`, sent `late` after, whose pieces come at first, first + gap, ... (milliseconds). */
static void add(struct made *m, unsigned due, unsigned late, unsigned first, unsigned gap, size_t pieces,
                enum load_error error)
{
    struct load_sample *s = &m->samples[m->run.count++];
    *s = (struct load_sample){.intended_ns = due * (uint64_t)MS,
                              .sent_ns = (due + late) * (uint64_t)MS,
                              .chunk_first = m->run.chunk_count,
                              .chunk_count = pieces,
                              .tokens_in = 10,
                              .tokens_out = pieces,
                              .counted = LOAD_COUNTED_USAGE,
                              .error = error,
                              .is_stream = true};
    for (size_t i = 0; i < pieces; i++)
        m->chunks[m->run.chunk_count++] = (first + gap * i) * (uint64_t)MS;
    s->end_ns = (first + gap * pieces) * (uint64_t)MS;
    m->run.samples = m->samples;
    m->run.chunks_ns = m->chunks;
}

static void test_summary(void **state)
{
    struct made m = {.run = {0}};
    struct load_summary s;
    const struct load_slo none = {0}, slo = {.ttft_s = 0.1, .tpot_s = 0.015};
    (void)state;
    add(&m, 0, 0, 500, 10, 5, LOAD_OK); /* the warm-up: nowhere */
    m.samples[0].is_warmup = true;
    add(&m, 1000, 0, 1050, 10, 5, LOAD_OK);   /* ttft 50, tpot 10, e2e 100 */
    add(&m, 1100, 100, 1300, 20, 3, LOAD_OK); /* ttft 200, tpot 20, e2e 260 */
    add(&m, 1200, 0, 1250, 10, 2, LOAD_CUT);
    add(&m, 1300, 0, 1300, 0, 0, LOAD_RATE);
    add(&m, 1900, 0, 2000, 0, 1, LOAD_OK); /* one token: no tpot; ttft 100 */
    add(&m, 1950, 0, 2000, 0, 0, LOAD_UNFINISHED);
    assert_int_equal(load_summarize(&m.run, &slo, &s, NULL), PH_OK);
    assert_true(s.requests == 6 && s.succeeded == 3 && s.failed == 2 && s.unfinished == 1);
    assert_true(s.errors[LOAD_CUT] == 1 && s.errors[LOAD_RATE] == 1);
    assert_true(s.seconds == 1.0 && s.requests_per_s == 3 && s.tokens_out == 9 && s.tokens_out_per_s == 9);
    assert_true(s.success_percent == 60);
    assert_true(s.goodput_percent == 40 && s.goodput_per_s == 2); /* the first and the one of one token */
    assert_true(s.ttft.count == 3 && s.ttft.p50 == 100 && s.ttft.max == 200);
    assert_true(s.tpot.count == 2 && s.tpot.p50 == 10 && s.tpot.p99 == 20);
    assert_true(s.itl.count == 6 && s.itl.p50 == 10 && s.itl.p95 == 20);
    assert_true(s.e2e.count == 3 && s.e2e.p50 == 100 && s.e2e.max == 260);
    assert_true(s.late.count == 6 && s.late.max == 100);
    assert_true(s.in_flight_max == 2); /* an end and a send at the same moment are not two */
    assert_int_equal(load_summarize(&m.run, &none, &s, NULL), PH_OK);
    assert_true(isnan(s.goodput_percent));
}

static void test_summary_of_nothing(void **state)
{
    struct load_run run = {0};
    struct load_summary s;
    (void)state;
    assert_int_equal(load_summarize(&run, &(struct load_slo){0}, &s, NULL), PH_OK);
    assert_true(s.requests == 0 && isnan(s.success_percent) && isnan(s.ttft.p50) && isnan(s.requests_per_s));
}

/* ---- Saturation */

static void test_saturated(void **state)
{
    (void)state;
    const struct load_level grows[] = {{1, 1, 10, 100}, {2, 2, 11, 195}, {4, 4, 12, 380}};
    const struct load_level drowns[] = {{1, 1, 10, 100}, {2, 2, 11, 195}, {4, 4, 25, 199}};
    const struct load_level slower[] = {{1, 1, 10, 100}, {2, 2, 30, 190}};   /* but it is worth it */
    const struct load_level steady[] = {{10, 5, 10, 100}, {20, 5, 10, 101}}; /* the generator's limit */
    assert_false(load_saturated(grows, 1));
    assert_false(load_saturated(grows, 3));
    assert_true(load_saturated(drowns, 3));
    assert_false(load_saturated(drowns, 2));
    assert_false(load_saturated(slower, 2));
    assert_false(load_saturated(steady, 2));
    assert_int_equal(load_knee(grows, 3), 2);
    assert_int_equal(load_knee(drowns, 3), 1);
}

static void test_drowning(void **state)
{
    struct load_level w[30];
    (void)state;
    for (int i = 0; i < 30; i++) /* a queue that grows by 5 a second, and the wait with it */
        w[i] = (struct load_level){.in_flight = 10 + 5 * i, .ttft_ms = 50 + 40 * i + (i % 4 == 0 ? -60 : 0)};
    assert_false(load_drowning(w, 9));
    assert_true(load_drowning(w, 12));
    for (int i = 0; i < 30; i++) /* waves */
        w[i] = (struct load_level){.in_flight = 30 + 20 * sin(i), .ttft_ms = 100 + 50 * sin(i)};
    for (size_t n = 1; n <= 30; n++)
        assert_false(load_drowning(w, n));
    for (int i = 0; i < 30; i++) /* more in flight, but nobody waits longer: it scales */
        w[i] = (struct load_level){.in_flight = 10 + 5 * i, .ttft_ms = 50};
    assert_false(load_drowning(w, 30));
}

/* ---- Prompts and logs */

static void test_words(void **state)
{
    struct load_prompts prompts = {.tokens_per_word = 2, .tokens_around = 8};
    struct buf a, b;
    size_t spaces = 0;
    (void)state;
    buf_init(&a, 1 << 20);
    buf_init(&b, 1 << 20);
    load_prompt_words(&prompts, 7, 3, 108, &a); /* (108 - 8) / 2 words */
    load_prompt_words(&prompts, 7, 3, 108, &b);
    assert_string_equal(a.data, b.data);
    for (size_t i = 0; i < a.len; i++)
        spaces += a.data[i] == ' ';
    assert_int_equal(spaces, 49);
    buf_clear(&b);
    load_prompt_words(&prompts, 7, 4, 108, &b);
    assert_string_not_equal(a.data, b.data);
    buf_clear(&b);
    load_prompt_words(&prompts, 7, 4, 1, &b); /* less than what is around it: one word */
    assert_null(strchr(b.data, ' '));
    buf_release(&a);
    buf_release(&b);
}

static enum ph_status parse_prompt(struct arena *arena, const char *line, struct load_prompt *out)
{
    return load_prompt_parse(arena, line, strlen(line), out, NULL);
}

static void test_prompt_lines(void **state)
{
    struct arena arena;
    struct load_prompt p;
    (void)state;
    arena_init(&arena, ARENA_BYTES_MAX);
    assert_int_equal(parse_prompt(&arena, "tell me\r", &p), PH_OK);
    assert_string_equal(p.text, "tell me");
    assert_null(p.messages);
    assert_int_equal(parse_prompt(&arena, "{\"prompt\":\"x\",\"max_tokens\":9}", &p), PH_OK);
    assert_string_equal(p.text, "x");
    assert_int_equal(p.max_tokens, 9);
    assert_int_equal(parse_prompt(&arena, "\"say\\nit\"", &p), PH_OK);
    assert_string_equal(p.text, "say\nit");
    const char *chat = "{\"messages\":[{\"role\":\"system\",\"content\":\"be\"},"
                       "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]}]}";
    assert_int_equal(parse_prompt(&arena, chat, &p), PH_OK);
    assert_string_equal(p.text, "be\nhi");
    assert_non_null(strstr(p.messages, "\"system\""));
    assert_int_equal(parse_prompt(&arena, "  ", &p), PH_ERR_NOTFOUND);
    assert_int_equal(parse_prompt(&arena, "{\"messages\":[]}", &p), PH_ERR_FORMAT);
    assert_int_equal(parse_prompt(&arena, "{\"messages\":[1]}", &p), PH_ERR_FORMAT);
    assert_int_equal(parse_prompt(&arena, "{\"x\":1}", &p), PH_ERR_FORMAT);
    assert_int_equal(parse_prompt(&arena, "{", &p), PH_ERR_FORMAT);
    assert_int_equal(parse_prompt(&arena, "\xff", &p), PH_ERR_FORMAT);
    arena_release(&arena);
}

static enum ph_status parse_log(struct arena *arena, const char *line, struct load_arrival *out)
{
    return load_replay_parse(arena, line, strlen(line), out, NULL);
}

static void test_log_lines(void **state)
{
    struct arena arena;
    struct load_arrival a;
    (void)state;
    arena_init(&arena, ARENA_BYTES_MAX);
    assert_int_equal(
        parse_log(&arena, "{\"warmup\":false,\"intended_ns\":5000,\"tokens_in\":7,\"tokens_out\":3}", &a),
        PH_OK);
    assert_true(a.at_ns == 5000 && a.prompt.tokens == 7 && a.prompt.max_tokens == 3 && !a.prompt.text);
    assert_int_equal(parse_log(&arena, "{\"warmup\":true,\"intended_ns\":5000}", &a), PH_ERR_NOTFOUND);
    assert_int_equal(
        parse_log(
            &arena,
            "{\"created\":100,\"attempts\":["
            "{\"outcome\":\"failed\",\"ended_ms\":9,\"prompt_tokens\":1},"
            "{\"outcome\":\"answered\",\"ended_ms\":2500,\"prompt_tokens\":20,\"completion_tokens\":30}]}",
            &a),
        PH_OK);
    assert_true(a.at_ns == (uint64_t)97500 * MS && a.prompt.tokens == 20 && a.prompt.max_tokens == 30);
    assert_int_equal(
        parse_log(&arena,
                  "{\"created\":100,\"attempts\":[],\"request\":{\"model\":\"m\",\"max_tokens\":4,"
                  "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}}",
                  &a),
        PH_OK);
    assert_string_equal(a.prompt.messages, "[{\"role\":\"user\",\"content\":\"hi\"}]");
    assert_int_equal(a.prompt.max_tokens, 4);
    assert_int_equal(parse_log(&arena, "{\"created\":100,\"attempts\":[]}", &a), PH_ERR_NOTFOUND);
    assert_int_equal(
        parse_log(&arena, "{\"created\":-1e300,\"attempts\":[{\"ended_ms\":1e300,\"prompt_tokens\":1e30}]}",
                  &a),
        PH_ERR_NOTFOUND);
    const char *wild = "{\"created\":555555555555555.37,\"attempts\":[{\"prompt_tokens\":3}]}";
    assert_int_equal(parse_log(&arena, wild, &a), PH_OK);
    assert_true(a.at_ns == 0); /* no date */
    assert_int_equal(parse_log(&arena, "{\"intended_ns\":9.9e19}", &a), PH_OK);
    assert_true(a.at_ns == 0);
    assert_int_equal(parse_log(&arena, "{}", &a), PH_ERR_FORMAT);
    assert_int_equal(parse_log(&arena, "", &a), PH_ERR_NOTFOUND);
    arena_release(&arena);
}

/* A sweep's samples count from their own stage's beginning: the stages follow one another. */
static void test_a_sweep_is_replayed_in_its_order(void **state)
{
    char path[] = "/tmp/pharos-replay-XXXXXX";
    struct arena arena;
    struct load_replay replay;
    struct ph_err err;
    (void)state;
    FILE *file = fdopen(mkstemp(path), "w");
    assert_non_null(file);
    fputs(
        "{\"stage\":1,\"intended_ns\":7,\"tokens_in\":3}\n{\"stage\":0,\"intended_ns\":105,\"tokens_in\":2}\n"
        "{\"stage\":0,\"intended_ns\":100,\"tokens_in\":1}\n{\"stage\":1,\"intended_ns\":9,\"tokens_in\":4}"
        "\n",
        file);
    fclose(file);
    arena_init(&arena, ARENA_BYTES_MAX);
    assert_int_equal(load_replay_read(&arena, path, &replay, &err), PH_OK);
    const uint64_t at[] = {0, 5, 5, 7};
    assert_int_equal(replay.count, 4);
    for (size_t i = 0; i < 4; i++)
        assert_true(replay.items[i].prompt.tokens == i + 1 && replay.items[i].at_ns == at[i]);
    unlink(path);
    arena_release(&arena);
}

/* ---- Criteria */

static void test_slo(void **state)
{
    struct load_slo slo;
    (void)state;
    assert_int_equal(load_slo_parse("ttft=200ms,e2e=2s", &slo, NULL), PH_OK);
    assert_true(slo.ttft_s == 0.2 && slo.e2e_s == 2 && slo.tpot_s == 0);
    assert_int_equal(load_slo_parse("tpot=1.5", &slo, NULL), PH_OK);
    assert_true(slo.tpot_s == 1.5);
    const char *const wrong[] = {"",    "ttft",    "ttft=",   "ttft=0",  "ttft=-1",
                                 "x=1", "ttft=1,", "ttft=1m", "ttft=nan"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(load_slo_parse(wrong[i], &slo, NULL), PH_ERR_ARG);
}

static enum ph_status parse_criteria(struct arena *arena, const char *text, struct load_criteria *out,
                                     struct ph_err *err)
{
    return load_criteria_parse(arena, "c.yaml", text, strlen(text), out, err);
}

static void test_criteria(void **state)
{
    struct arena arena;
    struct load_criteria c;
    struct ph_err err;
    struct buf words;
    (void)state;
    arena_init(&arena, ARENA_BYTES_MAX);
    buf_init(&words, 4096);
    assert_int_equal(
        parse_criteria(
            &arena,
            "tests:\n  - {name: a, concurrency: 3, slo: ttft=1s, want: [ttft_p50_ms < 100, failed <= 0]}\n"
            "  - {name: b, machine: gpu, mode: open, rate: 2.5, duration_s: 9, want: [success_percent >= "
            "99.5]}\n",
            &c, &err),
        PH_OK);
    assert_int_equal(c.count, 2);
    assert_true(c.tests[0].params.concurrency == 3 && c.tests[0].slo.ttft_s == 1 &&
                c.tests[0].params.requests == 32);
    assert_true(c.tests[1].params.mode == LOAD_OPEN && c.tests[1].params.rate_per_s == 2.5 &&
                !c.tests[1].params.requests);
    assert_string_equal(c.tests[1].machine, "gpu");

    struct load_summary s = {.failed = 1, .success_percent = 99.5, .ttft = {.p50 = 180}};
    struct load_verdict v = load_judge("a", &c.tests[0].wants[0], &s);
    assert_false(v.holds);
    load_put_verdict(&v, &words);
    assert_string_equal(words.data, "FAILS by 80.00 (80 % too much)");
    assert_false(load_judge("a", &c.tests[0].wants[1], &s).holds);
    assert_true(load_judge("b", &c.tests[1].wants[0], &s).holds);
    s.ttft.p50 = NAN;
    assert_false(load_judge("a", &c.tests[0].wants[0], &s).holds);
    s.ttft.p50 = 99.9;
    assert_true(load_judge("a", &c.tests[0].wants[0], &s).holds);
    buf_release(&words);
    arena_release(&arena);
}

static void test_criteria_errors(void **state)
{
    static const struct {
        const char *text, *words;
    } rows[] = {
        {"tests: []", "tests"},
        {"tests:\n  - {name: a, want: [ttft < 1]}", "there is no figure \"ttft\""},
        {"tests:\n  - {name: a, want: [ttft_p50_ms = 1]}", "write FIGURE"},
        {"tests:\n  - {name: a, want: [ttft_p50_ms < 1x]}", "write FIGURE"},
        {"tests:\n  - {name: a, want: [ttft_p50_ms <]}", "write FIGURE"},
        {"tests:\n  - {name: a, want: []}", "wants nothing"},
        {"tests:\n  - {name: a, mode: open, want: [failed <= 0]}", "rate"},
        {"tests:\n  - {name: a, rate: 3, want: [failed <= 0]}", "mode: open"},
        {"tests:\n  - {name: a, concurency: 3, want: [failed <= 0]}", "concurrency"},
        {"tests:\n  - {name: a, slo: fast, want: [failed <= 0]}", "SLO"},
    };
    struct arena arena;
    struct load_criteria c;
    struct ph_err err;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        arena_init(&arena, ARENA_BYTES_MAX);
        assert_int_not_equal(parse_criteria(&arena, rows[i].text, &c, &err), PH_OK);
        if (!strstr(err.message, rows[i].words) || !strstr(err.message, "c.yaml"))
            fail_msg("row %zu: %s", i, err.message);
        arena_release(&arena);
    }
}

static void test_shipped_criteria(void **state)
{
    struct arena arena;
    struct load_criteria c;
    struct ph_err err;
    (void)state;
    arena_init(&arena, ARENA_BYTES_MAX);
    if (load_criteria_read(&arena, "deploy/criteria.yaml", &c, &err) != PH_OK)
        fail_msg("%s", err.message);
    assert_true(c.count >= 5);
    arena_release(&arena);
}

/* ---- Reports */

static void test_reports(void **state)
{
    struct made m = {.run = {.words = {[LOAD_RATE] = "slow <down> & \"wait\""}}};
    struct load_stage stage = {
        .name = "<script>x",
        .params = {.target = {.url = "http://x/?<a>&b", .model = "m<b>"}, .concurrency = 2},
        .run = &m.run};
    struct load_report report = {.stages = &stage, .count = 1};
    struct arena arena;
    struct buf out;
    struct json *json;
    double value;
    (void)state;
    add(&m, 1000, 0, 1050, 10, 5, LOAD_OK);
    add(&m, 1300, 0, 1300, 0, 0, LOAD_RATE);
    assert_int_equal(load_summarize(&m.run, &report.slo, &stage.summary, NULL), PH_OK);
    arena_init(&arena, ARENA_BYTES_MAX);
    buf_init(&out, 64 << 20);
    load_put_json(&report, &out);
    assert_int_equal(json_parse(&arena, out.data, out.len, &json, NULL), PH_OK);
    const struct json *shown = json_at(json_get(json, "stages"), 0), *metrics = json_get(shown, "metrics");
    for (const struct load_metric *metric = load_metrics; metric->name; metric++) {
        double wanted = load_metric_value(metric, &stage.summary);
        assert_non_null(json_get(metrics, metric->name));
        if (json_to_double(json_get(metrics, metric->name), &value))
            assert_true(value == wanted);
        else
            assert_true(isnan(wanted));
    }
    assert_string_equal(json_text(json_get(json_get(shown, "error_examples"), "http_429"), ""),
                        m.run.words[LOAD_RATE]);
    buf_clear(&out);
    load_put_html(&report, &out);
    assert_int_equal(buf_status(&out), PH_OK);
    assert_non_null(strstr(out.data, "&lt;script&gt;x"));
    assert_non_null(strstr(out.data, "slow &lt;down&gt; &amp; &quot;wait&quot;"));
    assert_non_null(strstr(out.data, "<svg"));
    assert_null(strstr(out.data, "<script"));
    assert_null(strstr(out.data, "src="));
    assert_null(strstr(out.data, "href="));
    buf_clear(&out);
    load_put_sample(&stage, 4, 0, &out);
    assert_int_equal(json_parse(&arena, out.data, out.len, &json, NULL), PH_OK);
    assert_int_equal(json_count(json_get(json, "chunks_ns")), 5);
    buf_release(&out);
    arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_percentiles),
        cmocka_unit_test(test_poisson),
        cmocka_unit_test(test_summary),
        cmocka_unit_test(test_summary_of_nothing),
        cmocka_unit_test(test_saturated),
        cmocka_unit_test(test_drowning),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_prompt_lines),
        cmocka_unit_test(test_log_lines),
        cmocka_unit_test(test_a_sweep_is_replayed_in_its_order),
        cmocka_unit_test(test_slo),
        cmocka_unit_test(test_criteria),
        cmocka_unit_test(test_criteria_errors),
        cmocka_unit_test(test_shipped_criteria),
        cmocka_unit_test(test_reports),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
