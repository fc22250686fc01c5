/* The lexical embedding: near what says the same in other forms, far from the rest; its file. */
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "memory/lexical.h"
#include "test_support.h"

static const char *const corpus[] = {
    "the meeting with the finance team is moved to thursday afternoon",
    "could you send me the report about the new budget by friday",
    "my daughter starts her piano lessons next week, she is so excited",
    "the server in the basement crashed again last night after the update",
    "we went hiking near the lake and saw a family of deer",
    "i would like to book a table for four people at the italian restaurant",
    "the doctor said that my knee needs another six weeks to heal",
    "did you finish the book about the lighthouse keeper in norway",
    "the cat is hiding under the sofa because of the thunderstorm",
    "please remind me to water the plants and to call the plumber",
    "our flight to lisbon leaves at seven in the morning from gate twelve",
    "the recipe needs two eggs, flour, butter and a pinch of salt",
};
#define CORPUS (sizeof corpus / sizeof *corpus)

static struct lexical *filled(void)
{
    struct lexical *l;
    assert_int_equal(lexical_create(&l, NULL), PH_OK);
    for (size_t i = 0; i < CORPUS; i++)
        lexical_add(l, corpus[i], strlen(corpus[i]));
    return l;
}

static float nearness(const struct lexical *l, const char *a, const char *b)
{
    float x[LEXICAL_WIDTH], y[LEXICAL_WIDTH], sum = 0;
    assert_int_equal(lexical_embed(l, a, strlen(a), x), PH_OK);
    assert_int_equal(lexical_embed(l, b, strlen(b), y), PH_OK);
    for (size_t i = 0; i < LEXICAL_WIDTH; i++)
        sum += x[i] * y[i];
    return sum;
}

/* Each variant must be nearer to its own text than to every other one. */
static void expect_own(const struct lexical *l, const char *variant, size_t own)
{
    float best = nearness(l, variant, corpus[own]);
    for (size_t i = 0; i < CORPUS; i++)
        if (i != own && nearness(l, variant, corpus[i]) >= best - 0.05f)
            fail_msg("\"%s\": %.3f to its own, %.3f to \"%s\"", variant, (double)best,
                     (double)nearness(l, variant, corpus[i]), corpus[i]);
}

static void test_variants(void **state)
{
    (void)state;
    struct lexical *l = filled();
    expect_own(l, "is the finance meeting on thursday?", 0);
    expect_own(l, "when do the piano lessons begin", 2);
    expect_own(l, "why did the servers crash", 3);
    expect_own(l, "the sever in the basement crashd last nigth", 3); /* typing mistakes */
    expect_own(l, "a book on lighthouses in Norwegian", 7);
    expect_own(l, "thunderstorms scare our cats", 8);
    expect_own(l, "CALLING PLUMBERS", 9);
    expect_own(l, "flights from gate 12 to Lisbon", 10);
    lexical_free(l);
}

static void test_rarity(void **state)
{
    (void)state;
    struct lexical *plain, *l = filled();
    assert_int_equal(lexical_create(&plain, NULL), PH_OK);
    for (size_t i = 0; i < 300; i++)
        lexical_add(l, "about the project plan", 22);
    const char *query = "project lighthouse", *rare = "lighthouse stories", *common = "project stories";
    assert_true(nearness(l, query, rare) > nearness(l, query, common) + 0.2f);
    assert_true(fabsf(nearness(plain, query, rare) - nearness(plain, query, common)) < 0.3f);
    lexical_free(plain);
    lexical_free(l);
}

static void test_odd_texts(void **state)
{
    (void)state;
    struct lexical *l = filled();
    float x[LEXICAL_WIDTH], y[LEXICAL_WIDTH];
    static char text[200000];
    assert_int_equal(lexical_embed(l, "", 0, x), PH_OK);
    for (size_t i = 0; i < LEXICAL_WIDTH; i++)
        assert_true(x[i] == 0.0f);
    assert_int_equal(lexical_embed(l, " ... !?", 7, x), PH_OK);
    assert_true(x[0] == 0.0f);
    assert_int_equal(lexical_embed(l, "\xff\xfe\x80 word \xc3", 10, x), PH_OK);
    assert_int_equal(lexical_embed(l, "word", 4, y), PH_OK);
    assert_true(nearness(l, "\xff\xfe\x80 word \xc3", "word") > 0.99f);
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = i % 6 == 5 ? ' ' : (char)('a' + (i * i / 7) % 26);
    assert_int_equal(lexical_embed(l, text, sizeof text, x), PH_OK);
    double sum = 0;
    for (size_t i = 0; i < LEXICAL_WIDTH; i++)
        sum += (double)x[i] * (double)x[i];
    assert_true(fabs(sum - 1) < 1e-4);
    assert_true(nearness(l, "\xe6\x9d\xb1\xe4\xba\xac\xe3\x81\xaf\xe9\x9b\xa8", "\xe6\x9d\xb1\xe4\xba\xac") >
                nearness(l, "\xe6\x9d\xb1\xe4\xba\xac\xe3\x81\xaf\xe9\x9b\xa8", "\xe5\xa4\xa7\xe9\x98\xaa"));
    lexical_free(l);
}

static void spoil(const char *path, long at)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    fputc(0x5a, file);
    assert_int_equal(fclose(file), 0);
}

static void test_file(void **state)
{
    (void)state;
    char dir[] = "/tmp/pharos-lexical-XXXXXX", path[64], a[LEXICAL_NAME_MAX], b[LEXICAL_NAME_MAX];
    struct lexical *l = filled(), *back;
    struct ph_err err = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/words", dir);
    assert_int_equal(lexical_read(&back, path, &err), PH_ERR_NOTFOUND);
    assert_int_equal(lexical_write(l, path, &err), PH_OK);
    assert_int_equal(lexical_read(&back, path, &err), PH_OK);
    assert_int_equal(lexical_texts(back), CORPUS);
    lexical_name(l, a);
    lexical_name(back, b);
    assert_string_equal(a, b);
    assert_true(nearness(back, corpus[0], corpus[1]) == nearness(l, corpus[0], corpus[1]));
    lexical_add(back, "another text", 12);
    lexical_name(back, b);
    assert_string_not_equal(a, b);
    lexical_free(back);
    spoil(path, 1000);
    assert_int_equal(lexical_read(&back, path, &err), PH_ERR_FORMAT);
    assert_non_null(strstr(err.message, "damaged"));
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(lexical_read(&back, path, &err), PH_ERR_FORMAT);
    lexical_free(l);
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variants),
        cmocka_unit_test(test_rarity),
        cmocka_unit_test(test_odd_texts),
        cmocka_unit_test(test_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
