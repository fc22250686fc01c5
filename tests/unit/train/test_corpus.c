/* Token files, duplicates, splits and batches. */
#include "test_support.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "train/corpus_int.h"
#include "train/train.h"

#define DOCS 60

static void path_of(char *path, size_t size, const char *name)
{
    const char *dir = getenv("TMPDIR");
    snprintf(path, size, "%s/pharos-test-corpus-%d-%s", dir ? dir : "/tmp", (int)getpid(), name);
}

/* Document i has i + 1 tokens, i * 1000 + 0, 1, 2, ...; odd tokens are targets. */
static void write_corpus(const char *path, size_t n_vocab, bool targets, const uint32_t *order, size_t count)
{
    const struct corpus_params params = {.n_vocab = n_vocab,
                                         .vocab_hash = 0x1234567890abcdef,
                                         .targets = targets,
                                         .held_out_ppm = 300000,
                                         .split_seed = 7};
    struct corpus_writer *w;
    struct ph_err err;
    int32_t ids[DOCS];
    uint8_t odd[DOCS];
    if (corpus_writer_open(&w, path, &params, &err) != PH_OK)
        fail_msg("%s", err.message);
    for (size_t d = 0; d < count; d++) {
        uint32_t doc = order ? order[d] : (uint32_t)d;
        for (uint32_t i = 0; i <= doc; i++) {
            ids[i] = (int32_t)(doc * 1000 + i);
            odd[i] = i % 2;
        }
        if (corpus_writer_add(w, ids, odd, doc + 1, corpus_mix(doc + 1), 10 * (doc + 1), &err) != PH_OK)
            fail_msg("%s", err.message);
    }
    if (corpus_writer_close(w, &err) != PH_OK)
        fail_msg("%s", err.message);
}

static struct corpus *open_corpus(const char *path)
{
    struct corpus *corpus;
    struct ph_err err;
    if (corpus_open(&corpus, path, &err) != PH_OK)
        fail_msg("%s", err.message);
    return corpus;
}

static struct corpus *make_corpus(const char *name, size_t n_vocab, bool targets)
{
    char path[256];
    path_of(path, sizeof path, name);
    write_corpus(path, n_vocab, targets, NULL, DOCS);
    struct corpus *corpus = open_corpus(path);
    unlink(path); /* the map stays */
    return corpus;
}

static void what_was_written_is_read(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        bool targets = kind & 1;
        size_t n_vocab = kind & 2 ? 100000 : 60000;
        struct corpus *c = make_corpus("read", n_vocab, targets);
        const struct corpus_totals *all = corpus_totals(c, CORPUS_ALL);
        assert_int_equal(corpus_params(c)->n_vocab, n_vocab);
        assert_int_equal(corpus_params(c)->vocab_hash, 0x1234567890abcdef);
        assert_int_equal(all->documents, DOCS);
        assert_int_equal(all->tokens, DOCS * (DOCS + 1) / 2);
        assert_int_equal(all->text_bytes, 10 * all->tokens);
        uint64_t odd = 0;
        for (uint64_t d = 0; d < DOCS; d++) {
            struct corpus_doc doc = corpus_doc(c, d);
            assert_int_equal(doc.count, d + 1);
            assert_int_equal(doc.hash, corpus_mix(d + 1));
            for (uint64_t i = 0; i < doc.count; i++) {
                assert_int_equal(corpus_token(c, doc.first + i), d * 1000 + i);
                assert_true(corpus_is_target(c, doc.first + i) == (!targets || i % 2));
                odd += i % 2;
            }
        }
        assert_int_equal(all->targets, targets ? odd : all->tokens);
        assert_int_equal(corpus_totals(c, CORPUS_TRAIN)->tokens + corpus_totals(c, CORPUS_HELD_OUT)->tokens,
                         all->tokens);
        corpus_free(c);
    }
}

/* ---- Damage */

static struct buf read_bytes(const char *path)
{
    struct buf bytes;
    buf_init(&bytes, 1 << 20);
    assert_int_equal(file_read(path, &bytes, NULL), PH_OK);
    return bytes;
}

static enum ph_status open_status(const struct buf *bytes, size_t len, struct ph_err *err)
{
    struct corpus *corpus;
    /* a block of its own, so that reading beyond it is noticed */
    uint8_t *copy = mem_alloc(len ? len : 1);
    memcpy(copy, bytes->data, len);
    enum ph_status status = corpus_open_memory(&corpus, copy, len, "test", err);
    if (status == PH_OK)
        corpus_free(corpus);
    mem_free(copy);
    return status;
}

static void put_sum(struct buf *bytes)
{
    uint64_t sum = corpus_sum(bytes->data, AT_HEADER_SUM);
    for (int i = 0; i < 8; i++)
        bytes->data[AT_HEADER_SUM + i] = (char)(sum >> (8 * i));
}

/* Every field, with a header checksum that fits: whoever made the file meant harm. Only what nothing else in
 * the file tells (vocabulary's hash and size, the split) may pass. */
static void every_field_is_checked(void **state)
{
    (void)state;
    static const struct {
        size_t at, len;
        bool free;
    } fields[] = {
        {AT_MAGIC, 8, false},      {AT_VERSION, 4, false},     {AT_HEADER_BYTES, 4, false},
        {AT_VOCAB, 4, true},       {AT_WIDTH, 4, false},       {AT_FLAGS, 4, false},
        {AT_HELD_OUT, 4, true},    {AT_VOCAB_HASH, 8, true},   {AT_DOCS, 8, false},
        {AT_TOKENS, 8, false},     {AT_TEXT_BYTES, 8, false},  {AT_SEED, 8, true},
        {AT_TARGETS_AT, 8, false}, {AT_DOCS_AT, 8, false},     {AT_FILE_BYTES, 8, false},
        {AT_TOKENS_SUM, 8, false}, {AT_TARGETS_SUM, 8, false}, {AT_DOCS_SUM, 8, false},
    };
    char path[256];
    path_of(path, sizeof path, "fields");
    write_corpus(path, 60000, true, NULL, DOCS);
    struct buf bytes = read_bytes(path);
    unlink(path);
    assert_int_equal(open_status(&bytes, bytes.len, NULL), PH_OK);
    for (size_t f = 0; f < sizeof fields / sizeof *fields; f++)
        for (size_t i = 0; i < fields[f].len * 8; i++) {
            struct ph_err err;
            char *byte = &bytes.data[fields[f].at + i / 8], kept = *byte;
            *byte = (char)(kept ^ (1 << (i % 8)));
            assert_int_equal(open_status(&bytes, bytes.len, NULL), PH_ERR_FORMAT); /* by its checksum */
            put_sum(&bytes);
            enum ph_status status = open_status(&bytes, bytes.len, &err);
            if (!fields[f].free && status != PH_ERR_FORMAT)
                fail_msg("field at %zu, bit %zu: status %d", fields[f].at, i, (int)status);
            if (status != PH_OK)
                assert_non_null(strstr(err.message, "byte "));
            *byte = kept;
            put_sum(&bytes);
        }
    buf_release(&bytes);
}

static void cut_and_damaged_files_are_refused(void **state)
{
    (void)state;
    char path[256];
    path_of(path, sizeof path, "cut");
    write_corpus(path, 60000, true, NULL, 12);
    struct buf bytes = read_bytes(path);
    unlink(path);
    for (size_t len = 0; len < bytes.len; len++)
        assert_int_equal(open_status(&bytes, len, NULL), PH_ERR_FORMAT);
    for (size_t i = 0; i < bytes.len; i++) {
        bytes.data[i] ^= 0x10;
        assert_int_equal(open_status(&bytes, bytes.len, NULL), PH_ERR_FORMAT);
        bytes.data[i] ^= 0x10;
    }
    assert_int_equal(open_status(&bytes, bytes.len, NULL), PH_OK);
    buf_release(&bytes);
}

/* A token beyond the vocabulary, with sums that fit. */
static void tokens_beyond_the_vocabulary_are_refused(void **state)
{
    (void)state;
    char path[256];
    struct ph_err err;
    path_of(path, sizeof path, "ids");
    write_corpus(path, 60000, false, NULL, 12);
    struct buf bytes = read_bytes(path);
    unlink(path);
    bytes.data[AT_VOCAB] = 5;
    bytes.data[AT_VOCAB + 1] = bytes.data[AT_VOCAB + 2] = 0;
    put_sum(&bytes);
    assert_int_equal(open_status(&bytes, bytes.len, &err), PH_ERR_FORMAT);
    assert_non_null(strstr(err.message, "byte 130")); /* the second token is 1000 */
    buf_release(&bytes);
}

static void the_writer_refuses_what_cannot_be_read(void **state)
{
    (void)state;
    static const int32_t ids[] = {1, 2, 10};
    const struct corpus_params params = {.n_vocab = 10};
    char path[256];
    struct corpus_writer *w;
    path_of(path, sizeof path, "refused");
    assert_int_equal(corpus_writer_open(&w, path, &params, NULL), PH_OK);
    assert_int_equal(corpus_writer_add(w, ids, NULL, 0, 1, 1, NULL), PH_ERR_ARG);
    assert_int_equal(corpus_writer_add(w, ids, NULL, 3, 1, 1, NULL), PH_ERR_ARG);
    corpus_writer_abandon(w);
    assert_false(file_exists(path));
}

/* ---- The split */

static void the_split_depends_on_documents_alone(void **state)
{
    (void)state;
    char path[256];
    uint32_t order[DOCS / 2];
    struct corpus *a = make_corpus("split", 60000, false);
    for (uint32_t i = 0; i < DOCS / 2; i++) /* every other one, backwards */
        order[i] = DOCS - 1 - 2 * i;
    path_of(path, sizeof path, "split2");
    write_corpus(path, 60000, false, order, DOCS / 2);
    struct corpus *b = open_corpus(path);
    unlink(path);
    for (uint64_t i = 0; i < DOCS / 2; i++)
        assert_int_equal(corpus_doc(b, i).part, corpus_doc(a, order[i]).part);
    uint64_t held_out = corpus_totals(a, CORPUS_HELD_OUT)->documents;
    assert_in_range(held_out, DOCS / 10, DOCS / 2); /* 30 % of 60, give or take four deviations */
    corpus_free(a);
    corpus_free(b);
}

static void the_split_has_the_wanted_share(void **state)
{
    (void)state;
    size_t held_out = 0, both = 0;
    for (uint64_t i = 0; i < 100000; i++) {
        bool one = corpus_holds_out(corpus_mix(i), 1, 50000),
             other = corpus_holds_out(corpus_mix(i), 2, 50000);
        held_out += one;
        both += one && other;
    }
    assert_in_range(held_out, 4700, 5300);
    assert_in_range(both, 150, 350); /* another seed holds out others */
}

/* ---- Batches */

#define TIME 16

static void an_epoch_has_every_window_once(void **state)
{
    (void)state;
    struct corpus *c = make_corpus("epoch", 60000, true);
    for (int ordered = 0; ordered < 2; ordered++) {
        const struct batcher_params params = {CORPUS_TRAIN, TIME, ordered, 3};
        struct batcher *b;
        int32_t tokens[TIME + 1];
        uint8_t targets[TIME];
        static uint8_t seen[DOCS * 1000];
        size_t predicted = 0;
        memset(seen, 0, sizeof seen);
        assert_int_equal(batcher_create(&b, c, &params, NULL), PH_OK);
        for (uint64_t i = 0; i < batcher_windows(b); i++) {
            batcher_next(b, 1, tokens, targets);
            for (int t = 1; t <= TIME; t++) {
                assert_int_equal(seen[tokens[t]], 0);
                seen[tokens[t]] = 1;
                predicted++;
                assert_int_equal(targets[t - 1], tokens[t] % 1000 % 2);
                /* within a document tokens follow each other */
                assert_true(tokens[t] % 1000 == 0 || tokens[t] == tokens[t - 1] + 1);
                assert_false(corpus_holds_out(corpus_mix((uint64_t)tokens[t] / 1000 + 1), 7, 300000));
            }
        }
        assert_in_range(predicted, corpus_totals(c, CORPUS_TRAIN)->tokens - TIME,
                        corpus_totals(c, CORPUS_TRAIN)->tokens - 1);
        assert_int_equal(batcher_position(b).epoch, 0);
        batcher_next(b, 1, tokens, targets);
        assert_int_equal(batcher_position(b).epoch, 1);
        assert_int_equal(batcher_position(b).index, 1);
        batcher_free(b);
    }
    corpus_free(c);
}

static void a_position_resumes_exactly(void **state)
{
    (void)state;
    struct corpus *c = make_corpus("resume", 100000, true);
    const struct batcher_params params = {CORPUS_TRAIN, TIME, false, 11},
                                other = {CORPUS_TRAIN, TIME, false, 5};
    struct batcher *a, *b;
    int32_t at[7 * (TIME + 1)], bt[7 * (TIME + 1)];
    uint8_t am[7 * TIME], bm[7 * TIME];
    assert_int_equal(batcher_create(&a, c, &params, NULL), PH_OK);
    assert_int_equal(batcher_create(&b, c, &other, NULL), PH_OK);
    batcher_next(a, 7, at, am);
    batcher_next(b, 7, bt, bm);
    assert_memory_not_equal(at, bt, sizeof at); /* another seed, another order */
    for (int i = 0; i < 60; i++) {              /* several epochs */
        assert_int_equal(batcher_seek(b, batcher_position(a), NULL), PH_OK);
        for (int more = 0; more < 2; more++) {
            batcher_next(a, 7, at, am);
            batcher_next(b, 7, bt, bm);
            assert_memory_equal(at, bt, sizeof at);
            assert_memory_equal(am, bm, sizeof am);
        }
    }
    assert_true(batcher_position(a).epoch > 2);
    struct batcher_position beyond = batcher_position(a);
    beyond.index = batcher_windows(a) + 1;
    assert_int_equal(batcher_seek(b, beyond, NULL), PH_ERR_ARG);
    batcher_free(a);
    batcher_free(b);
    corpus_free(c);
}

static void a_window_longer_than_the_data_is_refused(void **state)
{
    (void)state;
    struct corpus *c = make_corpus("short", 60000, false);
    struct batcher *b;
    struct batcher_params params = {CORPUS_ALL, DOCS * (DOCS + 1) / 2, false, 1};
    assert_int_equal(batcher_create(&b, c, &params, NULL), PH_ERR_ARG);
    params.time--;
    assert_int_equal(batcher_create(&b, c, &params, NULL), PH_OK);
    assert_int_equal(batcher_windows(b), 1);
    batcher_free(b);
    corpus_free(c);
}

/* ---- Duplicates */

static enum dedup_answer check(struct dedup *d, const char *text)
{
    enum dedup_answer answer;
    uint64_t hash;
    assert_int_equal(dedup_check(d, text, strlen(text), &answer, &hash, NULL), PH_OK);
    return answer;
}

static void white_space_makes_no_difference(void **state)
{
    (void)state;
    struct dedup *d;
    assert_int_equal(dedup_create(&d, 0, NULL), PH_OK);
    assert_int_equal(check(d, "one two three"), DEDUP_NEW);
    assert_int_equal(check(d, "  one\ttwo\n\nthree "), DEDUP_EXACT);
    assert_int_equal(check(d, "one twothree"), DEDUP_NEW);
    assert_int_equal(check(d, "one two three four"), DEDUP_NEW);
    assert_int_equal(check(d, ""), DEDUP_NEW);
    assert_int_equal(check(d, " \n"), DEDUP_EXACT);
    dedup_free(d);
}

static void write_words(char *out, size_t size, uint32_t first, uint32_t count, uint32_t changed)
{
    size_t at = 0;
    for (uint32_t i = 0; i < count; i++)
        at += (size_t)snprintf(out + at, size - at, "w%u ", i == changed ? 999999 : first + i);
}

static void near_duplicates_are_found(void **state)
{
    (void)state;
    static char text[32768];
    struct dedup *d;
    assert_int_equal(dedup_create(&d, 0.8, NULL), PH_OK);
    for (uint32_t i = 0; i < 200; i++) {
        write_words(text, sizeof text, i * 1000, 200, UINT32_MAX);
        assert_int_equal(check(d, text), DEDUP_NEW);
    }
    for (uint32_t i = 0; i < 200; i++) { /* one word of 200: similarity 191 / 201 */
        write_words(text, sizeof text, i * 1000, 200, 100);
        assert_int_equal(check(d, text), DEDUP_NEAR);
    }
    for (uint32_t i = 0; i < 200; i++) { /* half of it: 98 / 294 */
        write_words(text, sizeof text, i * 1000 + 100, 200, UINT32_MAX);
        assert_int_equal(check(d, text), DEDUP_NEW);
    }
    dedup_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(every_field_is_checked),
        cmocka_unit_test(cut_and_damaged_files_are_refused),
        cmocka_unit_test(tokens_beyond_the_vocabulary_are_refused),
        cmocka_unit_test(the_writer_refuses_what_cannot_be_read),
        cmocka_unit_test(the_split_depends_on_documents_alone),
        cmocka_unit_test(the_split_has_the_wanted_share),
        cmocka_unit_test(an_epoch_has_every_window_once),
        cmocka_unit_test(a_position_resumes_exactly),
        cmocka_unit_test(a_window_longer_than_the_data_is_refused),
        cmocka_unit_test(white_space_makes_no_difference),
        cmocka_unit_test(near_duplicates_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
