/* Verdicts: the fit against a brute-force one, thresholds that are known beforehand, files with damage, and
 * the station's side of the files. */
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "gateway/verdict_int.h"
#include "test_support.h"

#define NOW 1700000000
#define DAY 86400

struct place {
    char dir[64];
    char text[PATH_BYTES_MAX];
};

static void place_open(struct place *p)
{
    snprintf(p->dir, sizeof p->dir, "/tmp/pharos-test-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
}

static const char *in(struct place *p, const char *name)
{
    snprintf(p->text, sizeof p->text, "%s/%s", p->dir, name);
    return p->text;
}

static void place_close(struct place *p)
{
    static const char *const names[] = {VERDICTS_FILE, CASCADE_FILE, VERDICTS_FILE ".1", CALIBRATION_FILE,
                                        "calibration.lock"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(in(p, names[i]));
    assert_int_equal(rmdir(p->dir), 0);
}

static void write_text(struct place *p, const char *name, const struct buf *text)
{
    struct ph_err err;
    assert_int_equal(buf_status(text), PH_OK);
    if (file_write_private(in(p, name), text->data, text->len, &err) != PH_OK)
        fail_msg("%s", err.message);
}

/* ---- The fit */

/* max over starts, min over ends, of the mean between: another way to the same sequence. */
static double brute(const double *values, const double *weights, size_t count, size_t at)
{
    double highest = -INFINITY;
    for (size_t from = 0; from <= at; from++) {
        double lowest = INFINITY;
        for (size_t to = at; to < count; to++) {
            double sum = 0, weight = 0;
            for (size_t i = from; i <= to; i++) {
                sum += values[i] * weights[i];
                weight += weights[i];
            }
            lowest = sum / weight < lowest ? sum / weight : lowest;
        }
        highest = lowest > highest ? lowest : highest;
    }
    return highest;
}

static void the_fit_is_the_isotonic_one(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 7);
    for (int round = 0; round < 300; round++) {
        double values[24], weights[24], fitted[24], spent[24];
        size_t lengths[24], count = 1 + (size_t)(rng_double(&rng) * 24);
        for (size_t i = 0; i < count; i++) {
            values[i] = fitted[i] = floor(rng_double(&rng) * 5) / 4 + (round % 3 ? 0 : 0.1 * (double)i);
            weights[i] = spent[i] = 1 + floor(rng_double(&rng) * 3);
        }
        verdict_isotonic(fitted, spent, lengths, count);
        for (size_t i = 0; i < count; i++)
            assert_true(fabs(fitted[i] - brute(values, weights, count, i)) < 1e-12);
    }
}

/* ---- Known thresholds */

/* Cheap answers are right from 0.7 up and wrong below, dear ones always right; confidences are even over 0
 * to 1, a tenth of a cent for cheap answers, 2 cents more for dear ones, 1,000 of them in ten days. */
static void write_synthetic(struct place *p, size_t verdicts)
{
    struct buf text;
    buf_init(&text, 1 << 20);
    for (size_t i = 0; i < verdicts; i++) {
        double confidence = ((double)i + 0.5) / (double)verdicts;
        buf_printf(
            &text,
            "{\"at\":%d,\"response_id\":\"c%zu\",\"route\":\"auto\",\"confidence\":%.6f,\"cheap\":true,"
            "\"score\":%d}\n",
            NOW - DAY, i, confidence, confidence >= 0.7 ? 1 : -1);
        if (i % 4 == 0)
            buf_printf(&text,
                       "{\"at\":%d,\"response_id\":\"d%zu\",\"route\":\"auto\",\"confidence\":0.1,\"cheap\":"
                       "false,\"score\":1}\n",
                       NOW - DAY, i);
    }
    write_text(p, VERDICTS_FILE, &text);
    buf_clear(&text);
    for (int i = 0; i < 1000; i++)
        buf_printf(&text,
                   "{\"at\":%d,\"route\":\"auto\",\"confidence\":%.6f,\"dear\":%s,\"cheap_usd\":0.001,\"dear_"
                   "usd\":%s}\n",
                   NOW - i * DAY / 100, (i + 0.5) / 1000, i < 600 ? "true" : "false", i < 600 ? "0.02" : "0");
    write_text(p, CASCADE_FILE, &text);
    buf_release(&text);
}

struct damage {
    size_t count, lines[8];
};

static void on_damaged(void *ud, const char *path, size_t line, const char *why)
{
    struct damage *damage = ud;
    assert_non_null(strstr(path, ".jsonl"));
    assert_true(why[0] != 0 && damage->count < 8);
    damage->lines[damage->count++] = line;
}

static void read_data(struct place *p, struct verdict_data *data, struct damage *damage)
{
    struct verdict_query query = {p->dir, "auto", NOW - 30 * DAY, on_damaged, damage};
    struct ph_err err;
    if (verdict_data_read(data, &query, &err) != PH_OK)
        fail_msg("%s", err.message);
}

static void the_threshold_is_found(void **state)
{
    (void)state;
    static struct verdict_curve curve;
    struct verdict_data data;
    struct damage damage = {0};
    struct place p;
    struct ph_err err;
    place_open(&p);
    write_synthetic(&p, 200);
    read_data(&p, &data, &damage);
    assert_int_equal(damage.count, 0);
    assert_int_equal(data.cheap_count, 200);
    assert_int_equal(data.verdict_count, 250);
    assert_int_equal(verdict_curve_make(&curve, &data, NOW, &err), PH_OK);
    const struct verdict_point *right = verdict_for_quality(&curve, 0.999);
    assert_non_null(right);
    assert_true(fabs(right->threshold - 0.7) <= 0.0051);
    assert_true(fabs(right->escalated - 0.7) <= 0.006);
    assert_true(right->low <= right->quality && right->quality <= right->high);
    /* A wrong answer in ten: of the 70 % below 0.7, one in seven stays. */
    const struct verdict_point *less = verdict_for_quality(&curve, 0.9);
    assert_true(fabs(less->threshold - 0.6) <= 0.0101);
    assert_null(verdict_for_quality(&curve, 1.01));
    /* 3,000 answers a month: 3 USD, and 60 times the share that escalates. */
    assert_true(fabs(curve.answers_month - 3000) < 10);
    assert_true(fabs(less->usd_month - (3 + 60 * less->escalated)) < 0.3);
    const struct verdict_point *paid = verdict_for_spend(&curve, 33);
    assert_true(fabs(paid->threshold - 0.5) <= 0.0101 && paid->usd_month <= 33);
    assert_null(verdict_for_spend(&curve, 1));
    /* Nothing is offered where nobody has judged. */
    assert_true(curve.points[0].threshold >= data.verdicts[0].confidence);
    verdict_data_release(&data);
    place_close(&p);
}

static void too_few_verdicts_are_said(void **state)
{
    (void)state;
    static struct verdict_curve curve;
    struct verdict_data data;
    struct damage damage = {0};
    struct place p;
    struct ph_err err;
    place_open(&p);
    read_data(&p, &data, &damage); /* no files at all */
    assert_int_equal(verdict_curve_make(&curve, &data, NOW, &err), PH_ERR_NOTFOUND);
    verdict_data_release(&data);
    write_synthetic(&p, VERDICTS_CHEAP_MIN - 1);
    read_data(&p, &data, &damage);
    assert_int_equal(verdict_curve_make(&curve, &data, NOW, &err), PH_ERR_NOTFOUND);
    assert_non_null(strstr(err.message, "29 verdicts on cheap answers (30 are needed)"));
    verdict_data_release(&data);
    place_close(&p);
}

static void damaged_lines_are_named(void **state)
{
    (void)state;
    static const char good[] =
        "{\"at\":1700000000,\"response_id\":\"a\",\"route\":\"auto\",\"confidence\":0.5,"
        "\"cheap\":true,\"score\":%s}\n";
    struct verdict_data data;
    struct damage damage = {0};
    struct place p;
    struct buf text;
    place_open(&p);
    buf_init(&text, 1 << 16);
    buf_printf(&text, good, "-1");
    buf_puts(&text, "{\"at\":17000\n\n[]\n");                 /* 2: torn, 4: no object */
    buf_printf(&text, good, "1.5");                           /* 5 */
    buf_puts(&text, "{\"at\":1700000000,\"score\":1}\n");     /* 6 */
    buf_puts(&text, "{\"at\":1,\"route\":\"auto\"}\n");       /* too old to be looked at */
    buf_puts(&text, "{\"at\":1700000000,\"route\":\"b\"}\n"); /* another route's */
    buf_printf(&text, good, "0.5");                           /* another verdict on the same answer */
    buf_puts(&text, "{\"at\":1700000000,\"response_id\":\"x\",\"route\":\"auto\",\"confidence\":null,"
                    "\"score\":1}\n"); /* not judged: no use, no damage */
    write_text(&p, VERDICTS_FILE, &text);
    buf_release(&text);
    read_data(&p, &data, &damage);
    assert_int_equal(damage.count, 4);
    const size_t lines[] = {2, 4, 5, 6};
    assert_memory_equal(damage.lines, lines, sizeof lines);
    assert_int_equal(data.verdict_count, 1);
    assert_true(data.verdicts[0].quality == 0.75);
    verdict_data_release(&data);
    place_close(&p);
}

/* ---- The station's side */

static void a_calibration_is_taken_up(void **state)
{
    (void)state;
    static const struct gateway_route routes[] = {
        {.name = "auto", .policy = GATEWAY_CASCADE, .escalate_below = 0.6},
        {.name = "other", .policy = GATEWAY_CASCADE, .escalate_below = 0.4}};
    struct calibration_entry entry = {.route = "auto", .target = "quality 0.9", .escalate_below = 0.825};
    struct calibration calibration;
    struct verdicts *verdicts;
    struct place p;
    struct ph_err err;
    struct buf bad;
    place_open(&p);
    assert_int_equal(verdicts_open(&verdicts, p.dir, routes, 2, &err), PH_OK);
    assert_true(verdicts_threshold(verdicts, &routes[0]) == 0.6);
    assert_int_equal(calibration_put(p.dir, &entry, &err), PH_OK);
    verdicts_second(verdicts);
    assert_true(verdicts_threshold(verdicts, &routes[0]) == 0.825);
    assert_true(verdicts_threshold(verdicts, &routes[1]) == 0.4);
    entry = (struct calibration_entry){.route = "other", .target = "spend 3", .escalate_below = 0};
    assert_int_equal(calibration_put(p.dir, &entry, &err), PH_OK);
    verdicts_second(verdicts);
    assert_true(verdicts_threshold(verdicts, &routes[0]) == 0.825);
    assert_true(verdicts_threshold(verdicts, &routes[1]) == 0);
    assert_int_equal(calibration_read(&calibration, p.dir, &err), PH_OK);
    assert_string_equal(calibration_find(&calibration, "auto")->target, "quality 0.9");
    calibration_release(&calibration);
    buf_init(&bad, 1000);
    buf_puts(&bad, "{\"routes\":[{\"route\":\"auto\",\"escalate_below\":2}]}");
    write_text(&p, CALIBRATION_FILE, &bad); /* what was known stays */
    buf_release(&bad);
    verdicts_second(verdicts);
    assert_true(verdicts_threshold(verdicts, &routes[0]) == 0.825);
    unlink(in(&p, CALIBRATION_FILE)); /* back to the configuration */
    verdicts_second(verdicts);
    assert_true(verdicts_threshold(verdicts, &routes[0]) == 0.6);
    verdicts_close(verdicts);
    place_close(&p);
}

static void lines_are_appended_whole(void **state)
{
    (void)state;
    struct verdicts *verdicts;
    struct place p;
    struct ph_err err;
    struct buf text, line;
    place_open(&p);
    buf_init(&text, 1 << 20);
    buf_init(&line, VERDICT_LINE_BYTES_MAX);
    buf_puts(&text, "{\"torn");
    write_text(&p, VERDICTS_FILE, &text);
    assert_int_equal(verdicts_open(&verdicts, p.dir, NULL, 0, &err), PH_OK);
    buf_puts(&line, "{\"n\":1}");
    assert_int_equal(verdicts_add(verdicts, &line, &err), PH_OK);
    assert_int_equal(verdicts_add(verdicts, &line, &err), PH_OK);
    verdicts_second(verdicts);
    verdicts_note(verdicts, &line);
    verdicts_note(verdicts, &line);
    assert_false(file_exists(in(&p, CASCADE_FILE)));
    verdicts_tick(verdicts);
    verdicts_note(verdicts, &line); /* written when it closes */
    while (buf_status(&line) == PH_OK)
        buf_puts(&line, "too long ");
    assert_int_equal(verdicts_add(verdicts, &line, &err), PH_ERR_LIMIT);
    verdicts_close(verdicts);
    buf_clear(&text);
    assert_int_equal(file_read_private(in(&p, VERDICTS_FILE), &text, NULL, &err), PH_OK);
    assert_string_equal(text.data, "{\"torn\n{\"n\":1}\n{\"n\":1}\n");
    buf_clear(&text);
    assert_int_equal(file_read_private(in(&p, CASCADE_FILE), &text, NULL, &err), PH_OK);
    assert_string_equal(text.data, "{\"n\":1}\n{\"n\":1}\n{\"n\":1}\n");
    buf_release(&text);
    buf_release(&line);
    place_close(&p);
}

static void a_long_file_is_turned_over(void **state)
{
    (void)state;
    struct verdicts *verdicts;
    struct place p;
    struct ph_err err;
    struct buf line;
    place_open(&p);
    buf_init(&line, VERDICT_LINE_BYTES_MAX);
    buf_puts(&line, "{}");
    assert_int_equal(verdicts_open(&verdicts, p.dir, NULL, 0, &err), PH_OK);
    assert_int_equal(verdicts_add(verdicts, &line, &err), PH_OK);
    assert_int_equal(truncate(in(&p, VERDICTS_FILE), VERDICTS_FILE_BYTES_MAX), 0); /* a hole */
    assert_int_equal(verdicts_add(verdicts, &line, &err), PH_OK);
    assert_false(file_exists(in(&p, VERDICTS_FILE)));
    assert_true(file_exists(in(&p, VERDICTS_FILE ".1")));
    assert_int_equal(verdicts_add(verdicts, &line, &err), PH_OK);
    assert_true(file_exists(in(&p, VERDICTS_FILE)));
    verdicts_close(verdicts);
    buf_release(&line);
    place_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fit_is_the_isotonic_one), cmocka_unit_test(the_threshold_is_found),
        cmocka_unit_test(too_few_verdicts_are_said),   cmocka_unit_test(damaged_lines_are_named),
        cmocka_unit_test(a_calibration_is_taken_up),   cmocka_unit_test(lines_are_appended_whole),
        cmocka_unit_test(a_long_file_is_turned_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
