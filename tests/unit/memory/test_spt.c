/* The trained selector: its file, its words, its cases, its training. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "memory/context_int.h"
#include "memory/spt_train_int.h"
#include "test_support.h"

#define SHIPPED "models/spt.gguf"

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/pharos-spt-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    char path[128];
    const char *const files[] = {"cases.jsonl", "out.gguf", "bad.gguf"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
    return rmdir(dir);
}

static const char *in_dir(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static float nearness(const struct spt *spt, const char *a, const char *b)
{
    struct text_stemmer *stemmer;
    struct text_reader reader;
    struct text_word one, other;
    assert_int_equal(text_stemmer_create(&stemmer, NULL, NULL), PH_OK);
    text_reader_init(&reader, stemmer, a, strlen(a));
    assert_true(text_next(&reader, &one));
    text_reader_init(&reader, stemmer, b, strlen(b));
    assert_true(text_next(&reader, &other));
    text_stemmer_free(stemmer);
    int32_t x = spt_word(spt, one.stem), y = spt_word(spt, other.stem);
    assert_true(x >= 0 && y >= 0);
    return spt_cosine(spt_word_vector(spt, x), spt_word_vector(spt, y));
}

static void test_shipped(void **state)
{
    (void)state;
    struct spt *spt;
    struct ph_err err;
    assert_int_equal(spt_open_shipped(&spt, &err), PH_OK);
    assert_true(nearness(spt, "boat", "ships") > nearness(spt, "boat", "guitar") + 0.2f);
    assert_true(nearness(spt, "paid", "money") > nearness(spt, "paid", "tree") + 0.2f);
    assert_true(nearness(spt, "dog", "dogs") > 0.97f);
    assert_int_equal(spt_word(spt, 12345), -1);
    spt_close(spt);
}

static void test_wrong_files(void **state)
{
    (void)state;
    struct spt *spt;
    struct ph_err err;
    assert_int_equal(spt_open(&spt, "models/default.gguf", &err), PH_ERR_FORMAT);
    assert_non_null(strstr(err.message, "not a selector"));
    assert_int_equal(spt_open(&spt, "models/none.gguf", &err), PH_ERR_NOTFOUND);
    struct file_map map;
    assert_int_equal(file_map_open(&map, SHIPPED, &err), PH_OK);
    for (size_t part = 1; part < 12; part++) { /* cut short anywhere: an error, never a crash */
        assert_int_equal(file_write_atomic(in_dir("bad.gguf"), map.data, map.len * part / 12, 0600, &err),
                         PH_OK);
        assert_int_equal(spt_open(&spt, in_dir("bad.gguf"), &err), PH_ERR_FORMAT);
        assert_non_null(strstr(err.message, "bad.gguf"));
    }
    file_map_release(&map);
}

static void write_cases(const char *text)
{
    assert_int_equal(file_write_atomic(in_dir("cases.jsonl"), text, strlen(text), 0600, NULL), PH_OK);
}

static enum ph_status count_case(void *ud, const struct spt_case *one)
{
    size_t *counts = ud;
    counts[0]++;
    counts[1] += one->message_count;
    counts[2] += one->question_count;
    if (one->question_count) {
        assert_int_equal(one->questions[0].before, 2);
        assert_int_equal(one->questions[0].evidence[0], 1);
        assert_string_equal(one->questions[0].query, "who?");
    }
    return PH_OK;
}

static void test_cases(void **state)
{
    (void)state;
    size_t counts[3] = {0};
    struct ph_err err;
    write_cases(
        "{\"id\":\"a\",\"messages\":[{\"content\":\"x\"},{\"name\":\"Ann\",\"content\":\"it was me\"}],"
        "\"questions\":[{\"query\":\"who?\",\"evidence\":[1]}]}\n\n"
        "{\"messages\":[{\"content\":\"y\"}]}");
    assert_int_equal(spt_cases_read(in_dir("cases.jsonl"), count_case, counts, &err), PH_OK);
    assert_int_equal(counts[0], 2);
    assert_int_equal(counts[1], 3);
    assert_int_equal(counts[2], 1);
    size_t contexts[3] = {0}; /* what a jury made of two contexts is two questions */
    write_cases("{\"messages\":[{\"content\":\"x\"},{\"content\":\"y\"}],\"questions\":[{\"query\":\"who?\","
                "\"contexts\":[{\"items\":[1],\"quality\":0.9},{\"items\":[0,1],\"quality\":0.2}]}]}");
    assert_int_equal(spt_cases_read(in_dir("cases.jsonl"), count_case, contexts, &err), PH_OK);
    assert_int_equal(contexts[2], 2);
    static const char *const wrong[] = {
        "nonsense",
        "{}",
        "{\"messages\":[{}]}",
        "{\"messages\":[{\"content\":\"x\"}],\"questions\":[{\"query\":\"q\",\"evidence\":[1]}]}",
        ("{\"messages\":[{\"content\":\"x\"}],\"questions\":[{\"query\":\"q\",\"evidence\":[0],"
         "\"before\":7}]}"),
        "{\"messages\":[{\"content\":\"x\"}],\"questions\":[{\"evidence\":[0]}]}"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"messages\":[{\"content\":\"y\"}]}\n%s", wrong[i]);
        write_cases(text);
        assert_int_equal(spt_cases_read(in_dir("cases.jsonl"), count_case, counts, &err), PH_ERR_FORMAT);
        assert_non_null(strstr(err.message, "cases.jsonl:2:"));
    }
}

/* Two sets of words that never meet: near within, far between. */
static void test_words_learn(void **state)
{
    (void)state;
    struct spt_words *words;
    struct spt_word_table table;
    struct rng rng;
    struct ph_err err;
    rng_init(&rng, 5);
    assert_int_equal(spt_words_create(&words, &err), PH_OK);
    for (size_t i = 0; i < 4000; i++) {
        char text[256];
        size_t at = 0;
        for (size_t k = 0; k < 8; k++)
            at += (size_t)snprintf(text + at, sizeof text - at, "%c%c%cx%c ", i % 2 ? 'b' : 'z',
                                   (char)('a' + rng_u64(&rng) % 10), (char)('k' + rng_u64(&rng) % 10),
                                   i % 2 ? 'k' : 'v');
        assert_int_equal(spt_words_add(words, text, at), PH_OK);
    }
    assert_int_equal(spt_words_train(words, 1000, 1, &table, &err), PH_OK);
    assert_int_equal(table.count, 200);
    double within = 0, between = 0;
    for (size_t i = 0; i < table.count; i++)
        for (size_t k = 0; k < i; k++) {
            double cosine = (double)spt_cosine(table.vectors + i * SPT_WIDTH, table.vectors + k * SPT_WIDTH);
            *(table.texts[i][0] == table.texts[k][0] ? &within : &between) += cosine;
        }
    assert_true(within / 9900 > between / 10000 + 0.15);
    spt_word_table_release(&table);
    spt_words_free(words);
    assert_int_equal(spt_words_create(&words, &err), PH_OK);
    assert_int_equal(spt_words_add(words, "too little", 10), PH_OK);
    assert_int_equal(spt_words_train(words, 1000, 1, &table, &err), PH_ERR_ARG);
    spt_words_free(words);
}

/* Evidence that one feature tells: its weight grows, another's does not. */
static void test_fit(void **state)
{
    (void)state;
    static float features[40][8][FEATURE_COUNT];
    static float relevance[40][8];
    struct spt_example examples[40];
    struct rng rng;
    rng_init(&rng, 3);
    memset(features, 0, sizeof features);
    for (size_t i = 0; i < 40; i++) {
        examples[i] = (struct spt_example){
            .count = 8, .features = features[i], .relevance = relevance[i], .weight = 1, .talk = TALK_PEOPLE};
        for (size_t k = 0; k < 8; k++) {
            relevance[i][k] = k == i % 8;
            features[i][k][F_SOFT] = (relevance[i][k] > 0 ? 0.6f : 0.2f) + 0.2f * rng_float(&rng);
            features[i][k][F_LENGTH] = rng_float(&rng);
        }
    }
    float weights[FEATURE_COUNT] = {0};
    size_t used;
    double first = spt_fit(examples, 40, TALK_PEOPLE, 1, 1, weights, &used);
    assert_int_equal(used, 40);
    double last = spt_fit(examples, 40, TALK_PEOPLE, 200, 1, weights, &used);
    assert_true(last < 0.5 * first);
    assert_true(weights[F_SOFT] > 5 && weights[F_SOFT] > 4 * weights[F_LENGTH]);
    (void)spt_fit(examples, 40, TALK_GROUP, 5, 1, weights, &used);
    assert_int_equal(used, 0);
}

/* Every sentence of a file has its chance; a file's sample is bounded. */
static void test_sample(void **state)
{
    (void)state;
    struct spt_sample sample = {0};
    rng_init(&sample.rng, 1);
    spt_sample_file(&sample);
    assert_int_equal(spt_sample_add(&sample, "No. This one is long enough. So is this one! Yes", 49), PH_OK);
    assert_int_equal(sample.count, 2);
    assert_string_equal(sample.texts[0], " This one is long enough.");
    spt_sample_file(&sample);
    for (size_t i = 0; i < 40000; i++) {
        char text[64];
        int len = snprintf(text, sizeof text, "sentence number %zu", i);
        assert_int_equal(spt_sample_add(&sample, text, (size_t)len), PH_OK);
    }
    assert_int_equal(sample.count, 2 + 16000);
    size_t late = 0;
    for (size_t i = 2; i < sample.count; i++)
        late += strtoul(sample.texts[i] + 16, NULL, 10) >= 20000;
    assert_in_range(late, 7500, 8500);
    spt_sample_release(&sample);
}

static void test_teacher(void **state)
{
    (void)state;
    struct spt_sample sample = {0};
    struct ph_err err;
    struct spt *spt;
    struct spt_word_table words;
    double agreement;
    assert_int_equal(spt_open_shipped(&spt, &err), PH_OK);
    assert_true(spt_copy_words(spt, &words));
    spt_close(spt);
    assert_int_equal(spt_distil(&words, &sample, "models/none.gguf", 1, &agreement, &err), PH_ERR_NOTFOUND);
    assert_int_not_equal(spt_distil(&words, &sample, "models/default.gguf", 1, &agreement, &err), PH_OK);
    spt_word_table_release(&words);
}

static size_t notes;
static void count_note(void *ud, const char *text)
{
    (void)ud;
    (void)text;
    notes++;
}

/* From cases to a file that a station opens; the same seed gives the same bytes. */
static void test_train(void **state)
{
    (void)state;
    struct ph_err err;
    uint8_t *first = NULL;
    size_t first_len = 0;
    for (size_t round = 0; round < 2; round++) {
        const char *const cases[] = {"models/chats.jsonl"};
        char out[128];
        snprintf(out, sizeof out, "%s", in_dir("out.gguf"));
        assert_int_equal(spt_train(&(struct spt_training){.cases = cases,
                                                          .case_count = 1,
                                                          .words_of = SHIPPED,
                                                          .out = out,
                                                          .questions_max = 12,
                                                          .epochs = 3,
                                                          .set_epochs = 1,
                                                          .seed = 1,
                                                          .note = count_note},
                                   &err),
                         PH_OK);
        struct file_map map;
        assert_int_equal(file_map_open(&map, out, &err), PH_OK);
        if (!round) {
            first = test_malloc(map.len);
            first_len = map.len;
            memcpy(first, map.data, map.len);
        } else {
            assert_int_equal(map.len, first_len);
            assert_memory_equal(map.data, first, first_len);
        }
        file_map_release(&map);
        struct spt *spt;
        assert_int_equal(spt_open(&spt, out, &err), PH_OK);
        assert_true(spt_weights(spt, TALK_PEOPLE)[F_SOFT] != context_hybrid[F_SOFT]);
        assert_true(spt_weights(spt, TALK_ASSISTANT)[F_SOFT] != context_hybrid[F_SOFT]); /* without names */
        assert_true(spt_weights(spt, TALK_GROUP)[F_SOFT] == context_hybrid[F_SOFT]);     /* no case of it */
        spt_close(spt);
    }
    test_free(first);
    assert_true(notes > 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shipped),     cmocka_unit_test(test_wrong_files), cmocka_unit_test(test_cases),
        cmocka_unit_test(test_words_learn), cmocka_unit_test(test_fit),         cmocka_unit_test(test_train),
        cmocka_unit_test(test_sample),      cmocka_unit_test(test_teacher),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
