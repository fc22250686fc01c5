#include <math.h>

#include "base/file.h"
#include "base/plot.h"
#include "test_support.h"

static char *draw(const struct plot *plot)
{
    struct buf out;
    buf_init(&out, PLOT_BYTES_MAX);
    plot_svg(plot, &out);
    assert_int_equal(buf_status(&out), PH_OK);
    return buf_take(&out);
}

/* ---- A reader of the little XML there is: tags match, text holds no bare < or &. */

struct reader {
    const char *at;
    const char *open[16];
    size_t open_len[16], depth, elements;
};

static void read_tag(struct reader *r)
{
    const char *end = strchr(r->at, '>'), *name = r->at + 1;
    assert_non_null(end);
    for (const char *c = name; c < end; c++)
        assert_true(*c != '<');
    bool closes = *name == '/', empty = end[-1] == '/' || *name == '?';
    name += closes;
    size_t len = strcspn(name, " />\n");
    if (closes) {
        assert_true(r->depth > 0);
        r->depth--;
        assert_int_equal(len, r->open_len[r->depth]);
        assert_memory_equal(name, r->open[r->depth], len);
    } else if (!empty) {
        assert_true(r->depth < 16);
        r->open[r->depth] = name;
        r->open_len[r->depth++] = len;
    }
    r->elements += !closes;
    r->at = end + 1;
}

static size_t well_formed(const char *svg)
{
    struct reader r = {.at = svg};
    while (*r.at) {
        if (*r.at == '<') {
            read_tag(&r);
            continue;
        }
        unsigned char c = (unsigned char)*r.at;
        assert_true(c >= 0x20 || c == '\n');
        if (*r.at == '&')
            assert_true(r.at[1] == '#' && strspn(r.at + 2, "0123456789") > 0);
        r.at++;
    }
    assert_int_equal(r.depth, 0);
    return r.elements;
}

/* The x (or y) of a tick's text: its line in the picture (texts of the y axis stand 4 below it). */
static double tick_place(const char *svg, const char *text, char axis)
{
    char needle[64];
    snprintf(needle, sizeof needle, "text-anchor=\"%s\">%s</text>", axis == 'x' ? "middle" : "end", text);
    const char *found = strstr(svg, needle);
    assert_non_null(found);
    while (strncmp(found, "<text", 5) != 0)
        found--;
    const char *attribute = strstr(found, axis == 'x' ? " x=\"" : " y=\"");
    return strtod(attribute + 4, NULL) - (axis == 'x' ? 0 : 4);
}

static void circle(const char *svg, size_t index, double *x, double *y)
{
    const char *at = svg;
    for (size_t i = 0; i <= index; i++) {
        at = strstr(at + 1, "<circle");
        assert_non_null(at);
    }
    *x = strtod(strstr(at, " cx=\"") + 5, NULL);
    *y = strtod(strstr(at, " cy=\"") + 5, NULL);
}

static size_t count_of(const char *svg, const char *needle)
{
    size_t count = 0;
    for (const char *at = svg; (at = strstr(at, needle)); at++)
        count++;
    return count;
}

/* ---- Tests */

static void points_lie_on_the_grid_lines_of_their_values(void **state)
{
    (void)state;
    static const double x[] = {0, 20, 60, 100}, y[] = {1, 2, 3, 4};
    const struct plot_series series = {.kind = PLOT_POINTS, .count = 4, .x = x, .y = y};
    char *svg = draw(&(struct plot){.series = &series, .series_count = 1});
    well_formed(svg);
    static const char *const xs[] = {"0", "20", "60", "100"}, *const ys[] = {"1", "2", "3", "4"};
    for (size_t i = 0; i < 4; i++) {
        double cx, cy;
        circle(svg, i, &cx, &cy);
        assert_true(fabs(cx - tick_place(svg, xs[i], 'x')) < 0.11);
        assert_true(fabs(cy - tick_place(svg, ys[i], 'y')) < 0.11);
    }
    free(svg);
}

static void a_log_axis_spaces_ratios_evenly(void **state)
{
    (void)state;
    static const double x[] = {1, 10, 1e6}, y[] = {1e-5, 1e-3, 1e-1};
    const struct plot_series series = {.kind = PLOT_POINTS, .count = 3, .x = x, .y = y};
    char *svg = draw(&(struct plot){.x.log = true, .y.log = true, .series = &series, .series_count = 1});
    well_formed(svg);
    double at[3], up[3];
    for (size_t i = 0; i < 3; i++)
        circle(svg, i, &at[i], &up[i]);
    assert_true(fabs((at[2] - at[0]) - 6 * (at[1] - at[0])) < 0.7);
    assert_true(fabs((up[2] - up[1]) - (up[1] - up[0])) < 0.3 && up[2] < up[1]);
    assert_true(fabs(at[0] - tick_place(svg, "1", 'x')) < 0.11);
    assert_true(fabs(at[2] - tick_place(svg, "1M", 'x')) < 0.11);
    assert_true(fabs(up[0] - tick_place(svg, "1e-5", 'y')) < 0.11);
    free(svg);
}

static void hostile_texts_are_escaped(void **state)
{
    (void)state;
    static const double one[] = {1};
    static const char *const labels[] = {"<script>&\"'\x01\xFF\xEF\xBF\xBE</text>"};
    const struct plot_series series = {
        .name = "a<b", .kind = PLOT_POINTS, .count = 1, .x = one, .y = one, .labels = labels};
    char *svg = draw(&(struct plot){.title = "]]>&amp;",
                                    .x.title = "<x>",
                                    .y.title = "\"y\" \xC3\xA9",
                                    .series = &series,
                                    .series_count = 1});
    well_formed(svg);
    assert_null(strstr(svg, "<script"));
    assert_non_null(
        strstr(svg, "&#60;script&#62;&#38;&#34;&#39;\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD&#60;/text"));
    assert_non_null(strstr(svg, "\xC3\xA9"));
    free(svg);
}

static void what_cannot_be_drawn_is_a_gap(void **state)
{
    (void)state;
    static const double x[] = {0, 1, 2, 3, 4, 5, 6}, y[] = {1, 2, NAN, 2, INFINITY, 1e308, 3};
    const struct plot_series line = {.kind = PLOT_LINE, .count = 7, .x = x, .y = y};
    char *svg = draw(&(struct plot){.series = &line, .series_count = 1});
    well_formed(svg);
    const char *path = strstr(svg, "<path class=\"line");
    assert_non_null(path);
    size_t moves = 0;
    for (const char *c = strstr(path, " d=\"") + 4; *c != '"'; c++)
        moves += *c == 'M';
    assert_int_equal(moves, 3);
    assert_null(strstr(svg, "nan"));
    assert_null(strstr(svg, "inf"));
    free(svg);
}

static void odd_ranges_have_axes(void **state)
{
    (void)state;
    static const double pairs[][2] = {{5, 5},         {0, 0},          {-3, -3},      {1e17, 1e17 + 16},
                                      {1e-9, 2e-9},   {-1e299, 1e299}, {0.99, 1.01},  {1e-310, 1e-305},
                                      {12345, 12346}, {1e290, 1e299},  {-1e-9, 1e-8}, {3, 7000000}};
    static const double x[2] = {1, 2};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        for (int log = 0; log < 2; log++) {
            const struct plot_series line = {.kind = PLOT_LINE, .count = 2, .x = x, .y = pairs[i]};
            char *svg = draw(&(struct plot){.y.log = log, .series = &line, .series_count = 1});
            well_formed(svg);
            size_t ticks = count_of(svg, "text-anchor=\"end\"");
            assert_in_range(ticks, 2, 16);
            assert_null(strstr(svg, "nan"));
            assert_null(strstr(svg, "inf"));
            free(svg);
        }
    char *svg = draw(&(struct plot){.title = "nothing"});
    well_formed(svg);
    free(svg);
}

static void a_long_line_is_short_and_keeps_its_peaks(void **state)
{
    (void)state;
    enum { COUNT = 200000 };
    double *x = calloc(COUNT, sizeof *x), *y = calloc(COUNT, sizeof *y);
    assert_true(x && y);
    for (size_t i = 0; i < COUNT; i++) {
        x[i] = (double)i;
        y[i] = (double)(i * 7919 % 1000);
    }
    y[COUNT / 2] = 5000;
    const struct plot_series line = {.name = "loss", .kind = PLOT_LINE, .count = COUNT, .x = x, .y = y};
    char *svg = draw(&(struct plot){.series = &line, .series_count = 1});
    well_formed(svg);
    assert_true(strlen(svg) < 100000);
    char peak[32]; /* the top of the frame, less the margin: where the one high value must be */
    double per = (tick_place(svg, "4000", 'y') - tick_place(svg, "2000", 'y')) / 2000;
    double top = tick_place(svg, "4000", 'y') + 1000 * per;
    bool found = false;
    for (int tenth = -2; tenth <= 2; tenth++) {
        snprintf(peak, sizeof peak, " %.1fL", top + 0.1 * tenth);
        found |= strstr(svg, peak) != NULL;
    }
    assert_true(found);
    free(svg);
    free(x);
    free(y);
}

static void labels_do_not_cover_each_other(void **state)
{
    (void)state;
    static const double x[] = {1, 1.01, 1.02, 5}, y[] = {1, 1.01, 1.02, 5};
    static const char *const labels[] = {"first", "second", "third", "far"};
    const struct plot_series series = {.kind = PLOT_POINTS, .count = 4, .x = x, .y = y, .labels = labels};
    char *svg = draw(&(struct plot){.series = &series, .series_count = 1});
    double left[3], base[3];
    const char *at = svg;
    for (size_t i = 0; i < 3; i++) {
        at = strstr(at, "class=\"label\"");
        assert_non_null(at);
        left[i] = strtod(strstr(at, " x=\"") + 4, NULL);
        base[i] = strtod(strstr(at, " y=\"") + 4, NULL);
        at++;
    }
    for (size_t i = 0; i < 3; i++)
        for (size_t j = 0; j < i; j++)
            assert_true(fabs(left[i] - left[j]) > 25 || fabs(base[i] - base[j]) > 10);
    free(svg);
}

static void a_picture_is_written_whole_or_not_at_all(void **state)
{
    (void)state;
    char folder[] = "/tmp/pharos-plot-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.svg", folder);
    struct ph_err err;
    const struct plot plot = {.title = "empty"};
    assert_int_equal(plot_write(&plot, path, &err), PH_OK);
    struct buf read;
    buf_init(&read, PLOT_BYTES_MAX);
    assert_int_equal(file_read(path, &read, &err), PH_OK);
    char *again = draw(&plot);
    assert_string_equal(read.data, again);
    free(again);
    buf_release(&read);
    unlink(path);
    rmdir(folder);
    assert_int_equal(plot_write(&plot, path, &err), PH_ERR_NOTFOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(points_lie_on_the_grid_lines_of_their_values),
        cmocka_unit_test(a_log_axis_spaces_ratios_evenly),
        cmocka_unit_test(hostile_texts_are_escaped),
        cmocka_unit_test(what_cannot_be_drawn_is_a_gap),
        cmocka_unit_test(odd_ranges_have_axes),
        cmocka_unit_test(a_long_line_is_short_and_keeps_its_peaks),
        cmocka_unit_test(labels_do_not_cover_each_other),
        cmocka_unit_test(a_picture_is_written_whole_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
