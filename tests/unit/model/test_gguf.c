/* GGUF: what is written reads back; what is damaged is refused with a message that says where. */
#include <sys/stat.h>

#include "base/mem.h"
#include "model/model.h"
#include "test_support.h"

/* A file under construction, byte by byte, so that tests can make what the writer refuses to. */
struct image {
    uint8_t bytes[4096];
    size_t len;
};

static void put(struct image *image, uint64_t value, size_t width)
{
    for (size_t i = 0; i < width; i++)
        image->bytes[image->len++] = (uint8_t)(value >> (8 * i));
}

static void put_text(struct image *image, const char *text)
{
    put(image, strlen(text), 8);
    memcpy(image->bytes + image->len, text, strlen(text));
    image->len += strlen(text);
}

static void put_header(struct image *image, uint32_t version, uint64_t tensors, uint64_t keys)
{
    image->len = 0;
    memcpy(image->bytes, "GGUF", 4);
    image->len = 4;
    put(image, version, 4);
    put(image, tensors, 8);
    put(image, keys, 8);
}

static void put_uint_key(struct image *image, const char *key, uint32_t value)
{
    put_text(image, key);
    put(image, GGUF_UINT32, 4);
    put(image, value, 4);
}

static void put_tensor(struct image *image, const char *name, uint64_t dim, uint32_t type, uint64_t offset)
{
    put_text(image, name);
    put(image, 1, 4);
    put(image, dim, 8);
    put(image, type, 4);
    put(image, offset, 8);
}

static void put_data(struct image *image, size_t len)
{
    while (image->len % 32)
        image->bytes[image->len++] = 0;
    memset(image->bytes + image->len, 0, len);
    image->len += len;
}

static void assert_refused(const struct image *image, enum ph_status status, const char *words)
{
    struct gguf *gguf = NULL;
    struct ph_err err = {0};
    assert_int_equal(gguf_open_memory(&gguf, image->bytes, image->len, "test.gguf", &err), status);
    assert_null(gguf);
    if (!strstr(err.message, words))
        fail_msg("'%s' is not in '%s'", words, err.message);
    assert_non_null(strstr(err.message, "test.gguf"));
}

static void refuses_what_is_not_gguf(void **state)
{
    (void)state;
    struct image image = {.len = 0};
    assert_refused(&image, PH_ERR_FORMAT, "not a GGUF file");
    put_header(&image, 3, 0, 0);
    image.bytes[0] = 'g';
    assert_refused(&image, PH_ERR_FORMAT, "not a GGUF file");
    put_header(&image, 1, 0, 0);
    assert_refused(&image, PH_ERR_UNSUPPORTED, "version 1");
    put_header(&image, 3u << 24, 0, 0);
    assert_refused(&image, PH_ERR_UNSUPPORTED, "big-endian");
    put_header(&image, 3, 0, UINT64_MAX);
    assert_refused(&image, PH_ERR_FORMAT, "promises");
    put_header(&image, 3, UINT64_MAX / 2, 0);
    assert_refused(&image, PH_ERR_FORMAT, "promises");
    put_header(&image, 3, 0, 65536);
    assert_refused(&image, PH_ERR_FORMAT, "cannot hold them");
}

static void refuses_bad_keys(void **state)
{
    (void)state;
    struct image image;
    put_header(&image, 3, 0, 2);
    put_uint_key(&image, "a.key", 1);
    put_uint_key(&image, "a.key", 2);
    assert_refused(&image, PH_ERR_FORMAT, "'a.key' is there twice");

    put_header(&image, 3, 0, 1);
    put_text(&image, "typed");
    put(&image, 13, 4);
    put(&image, 0, 8);
    assert_refused(&image, PH_ERR_FORMAT, "'typed' has value type 13");

    put_header(&image, 3, 0, 1);
    put_text(&image, "nested");
    put(&image, GGUF_ARRAY, 4);
    put(&image, GGUF_ARRAY, 4);
    put(&image, 1, 8);
    assert_refused(&image, PH_ERR_UNSUPPORTED, "array of arrays");

    put_header(&image, 3, 0, 1);
    put_text(&image, "long");
    put(&image, GGUF_ARRAY, 4);
    put(&image, GGUF_UINT64, 4);
    put(&image, UINT64_MAX / 8 + 2, 8); /* times 8 wraps to 8 */
    put(&image, 0, 8);
    assert_refused(&image, PH_ERR_FORMAT, "ends at byte");

    put_header(&image, 3, 0, 1);
    put_text(&image, "text");
    put(&image, GGUF_STRING, 4);
    put(&image, UINT64_MAX, 8);
    assert_refused(&image, PH_ERR_FORMAT, "ends at byte");

    put_header(&image, 3, 0, 1);
    put_uint_key(&image, "nul", 1);
    image.bytes[24 + 8 + 1] = 0;
    assert_refused(&image, PH_ERR_FORMAT, "0 byte");

    put_header(&image, 3, 0, 1);
    put_uint_key(&image, "general.alignment", 24);
    assert_refused(&image, PH_ERR_FORMAT, "power of two");
}

static void refuses_bad_tensors(void **state)
{
    (void)state;
    struct image image;
    put_header(&image, 3, 2, 0);
    put_tensor(&image, "one", 8, TENSOR_F32, 0);
    put_tensor(&image, "one", 8, TENSOR_F32, 32);
    put_data(&image, 64);
    assert_refused(&image, PH_ERR_FORMAT, "'one' is there twice");

    put_header(&image, 3, 2, 0);
    put_tensor(&image, "one", 16, TENSOR_F32, 32); /* out of order, so that they must be sorted */
    put_tensor(&image, "two", 16, TENSOR_F32, 0);
    put_data(&image, 96);
    assert_refused(&image, PH_ERR_FORMAT, "overlap");

    put_header(&image, 3, 1, 0);
    put_tensor(&image, "far", 8, TENSOR_F32, 32);
    put_data(&image, 32);
    assert_refused(&image, PH_ERR_FORMAT, "reaches beyond");

    put_header(&image, 3, 1, 0);
    put_tensor(&image, "odd", 8, TENSOR_F32, 8);
    put_data(&image, 64);
    assert_refused(&image, PH_ERR_FORMAT, "multiple of the alignment");

    put_header(&image, 3, 1, 0);
    put_tensor(&image, "huge", UINT64_MAX / 4 + 2, TENSOR_F32, 0);
    put_data(&image, 64);
    assert_refused(&image, PH_ERR_FORMAT, "impossible dimensions");

    put_header(&image, 3, 1, 0);
    put_tensor(&image, "ragged", 33, TENSOR_Q8_0, 0);
    put_data(&image, 64);
    assert_refused(&image, PH_ERR_FORMAT, "impossible dimensions");

    put_header(&image, 3, 1, 0);
    put_tensor(&image, "alien", 32, 4711, 0);
    put_data(&image, 64);
    assert_refused(&image, PH_ERR_UNSUPPORTED, "number format 4711");

    put_header(&image, 3, 1, 0);
    put_text(&image, "many");
    put(&image, 5, 4);
    put_data(&image, 64);
    assert_refused(&image, PH_ERR_FORMAT, "has 5 dimensions");

    put_header(&image, 3, 1, 0);
    put_text(&image, "product");
    put(&image, 3, 4);
    put(&image, 1u << 20, 8);
    put(&image, 1u << 30, 8);
    put(&image, 1u << 30, 8);
    put(&image, TENSOR_F32, 4);
    put(&image, 0, 8);
    put_data(&image, 64);
    assert_refused(&image, PH_ERR_FORMAT, "impossible dimensions");
}

static void make_sample(struct image *image)
{
    put_header(image, 2, 2, 4);
    put_uint_key(image, "number", 7);
    put_text(image, "small");
    put(image, GGUF_INT8, 4);
    put(image, (uint8_t)-3, 1);
    put_text(image, "names");
    put(image, GGUF_ARRAY, 4);
    put(image, GGUF_STRING, 4);
    put(image, 3, 8);
    put_text(image, "x");
    put_text(image, "");
    put_text(image, "long one");
    put_text(image, "halves");
    put(image, GGUF_ARRAY, 4);
    put(image, GGUF_INT16, 4);
    put(image, 2, 8);
    put(image, (uint16_t)-2, 2);
    put(image, 40, 2);
    put_tensor(image, "b", 32, TENSOR_Q8_0, 64);
    put_tensor(image, "a", 16, TENSOR_F32, 0);
    put_data(image, 64 + 34);
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    struct image image;
    struct gguf *gguf;
    make_sample(&image);
    for (size_t len = 0; len < image.len; len++) {
        uint8_t *exact = mem_alloc(len); /* so that a sanitizer sees a byte too far */
        struct ph_err err;
        memcpy(exact, image.bytes, len);
        assert_int_not_equal(gguf_open_memory(&gguf, exact, len, "cut", &err), PH_OK);
        mem_free(exact);
    }
    assert_int_equal(gguf_open_memory(&gguf, image.bytes, image.len, "whole", NULL), PH_OK);
    gguf_free(gguf);
}

static void look_ups_convert_what_fits(void **state)
{
    (void)state;
    struct image image;
    struct gguf *gguf;
    uint64_t u = 99, cursor = 0;
    int64_t i = 99;
    double d = 99;
    bool b;
    struct gguf_array array;
    struct gguf_string text;
    make_sample(&image);
    assert_int_equal(gguf_open_memory(&gguf, image.bytes, image.len, "sample", NULL), PH_OK);
    assert_true(gguf_get_uint(gguf, "number", &u) && u == 7);
    assert_true(gguf_get_int(gguf, "number", &i) && i == 7);
    assert_false(gguf_get_uint(gguf, "small", &u));
    assert_true(gguf_get_int(gguf, "small", &i) && i == -3);
    assert_false(gguf_get_float(gguf, "number", &d));
    assert_false(gguf_get_bool(gguf, "number", &b));
    assert_false(gguf_get_string(gguf, "number", &text));
    assert_false(gguf_get_int(gguf, "absent", &i));
    assert_false(gguf_has(gguf, "numbe"));
    assert_true(gguf_get_array(gguf, "names", &array) && array.count == 3);
    assert_true(gguf_array_string(&array, &cursor, &text) && text.len == 1);
    assert_true(gguf_array_string(&array, &cursor, &text) && text.len == 0);
    assert_true(gguf_array_string(&array, &cursor, &text) && text.len == 8);
    assert_memory_equal(text.text, "long one", 8);
    assert_false(gguf_array_string(&array, &cursor, &text));
    assert_true(gguf_get_array(gguf, "halves", &array) && array.type == GGUF_INT16);
    assert_true(gguf_array_number(&array, 0) == -2 && gguf_array_number(&array, 1) == 40);
    assert_true(gguf_array_number(&array, 2) == 0);
    assert_int_equal(gguf_key_count(gguf), 4);
    assert_null(gguf_key(gguf, 4, NULL));
    const struct gguf_tensor *a = gguf_tensor_find(gguf, "a"), *q = gguf_tensor_find(gguf, "b");
    assert_non_null(a);
    assert_non_null(q);
    assert_null(gguf_tensor_find(gguf, "c"));
    assert_int_equal(q->bytes, 34);
    assert_int_equal((const uint8_t *)q->data - (const uint8_t *)a->data, 64);
    assert_true(q->dims[0] == 32 && q->dims[3] == 1);
    gguf_free(gguf);
}

static void opens_the_reference_models(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct gguf *gguf;
    struct ph_err err;
    struct gguf_string text;
    const char *path = TEST_SHARED_DIR "/conformance/models/base-Q4_K_M.gguf";
    assert_int_equal(gguf_open(&gguf, path, &err), PH_OK);
    assert_true(gguf_get_string(gguf, "general.architecture", &text));
    assert_memory_equal(text.text, "llama", text.len);
    const struct gguf_tensor *embedding = gguf_tensor_find(gguf, "token_embd.weight");
    assert_non_null(embedding);
    assert_int_equal(embedding->dims[1], 512);
    assert_string_equal(gguf_path(gguf), path);
    assert_int_equal(gguf_file_bytes(gguf), 666784);
    gguf_free(gguf);
    assert_int_equal(gguf_open(&gguf, "/nowhere/at/all.gguf", &err), PH_ERR_NOTFOUND);
    assert_null(gguf);
}

/* ---- Writing */

static char directory[] = "/tmp/pharos-gguf-XXXXXX";
static char target[64];

static int make_directory(void **state)
{
    (void)state;
    if (!mkdtemp(directory))
        return -1;
    snprintf(target, sizeof target, "%s/out.gguf", directory);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    unlink(target);
    return rmdir(directory); /* fails when a temporary file was left behind */
}

static void what_is_written_reads_back(void **state)
{
    (void)state;
    struct gguf_writer *w;
    struct gguf *gguf, *copy;
    struct ph_err err;
    const uint64_t dims_a[] = {32, 2}, dims_b[] = {5};
    const uint8_t data[2 * 34 + 20] = {[0] = 1, [67] = 2, [68] = 3, [87] = 4};
    static const uint8_t packed[] = {1, 0, 0, 0, 0, 0, 0, 0, 'x', 0, 0, 0, 0, 0, 0, 0, 0};
    struct gguf_array names = {.type = GGUF_STRING, .count = 2, .data = packed, .data_bytes = sizeof packed};
    assert_int_equal(gguf_writer_open(&w, target, &err), PH_OK);
    gguf_writer_set_string(w, "general.architecture", "first", 5);
    gguf_writer_set_uint(w, "general.alignment", 64);
    gguf_writer_set_string(w, "general.architecture", "test", 4); /* the last one counts */
    gguf_writer_set_bool(w, "flag", true);
    gguf_writer_set_float(w, "ratio", 0.5f);
    gguf_writer_set_array(w, "names", &names);
    gguf_writer_describe(w, "a", TENSOR_Q8_0, 2, dims_a);
    gguf_writer_describe(w, "b", TENSOR_F32, 1, dims_b);
    for (size_t at = 0; at < sizeof data; at += 11)
        gguf_writer_data(w, data + at, sizeof data - at < 11 ? sizeof data - at : 11);
    assert_int_equal(gguf_writer_close(w, &err), PH_OK);

    struct gguf_string text;
    double ratio;
    bool flag;
    uint64_t number;
    struct gguf_array array;
    assert_int_equal(gguf_open(&gguf, target, &err), PH_OK);
    assert_int_equal(gguf_key_count(gguf), 5);
    assert_true(gguf_get_string(gguf, "general.architecture", &text) && text.len == 4);
    assert_true(gguf_get_float(gguf, "ratio", &ratio) && ratio == 0.5);
    assert_true(gguf_get_bool(gguf, "flag", &flag) && flag);
    assert_true(gguf_get_uint(gguf, "general.alignment", &number) && number == 64);
    assert_true(gguf_get_array(gguf, "names", &array) && array.count == 2);
    const struct gguf_tensor *a = gguf_tensor_find(gguf, "a"), *b = gguf_tensor_find(gguf, "b");
    assert_memory_equal(a->data, data, 68);
    assert_memory_equal(b->data, data + 68, 20);
    assert_int_equal((uintptr_t)b->data % 64, 0);

    /* a copy over the file it was made from: the map keeps the old one */
    assert_int_equal(gguf_writer_open(&w, target, &err), PH_OK);
    for (size_t i = 0; i < gguf_key_count(gguf); i++)
        gguf_writer_copy_key(w, gguf, gguf_key(gguf, i, NULL));
    gguf_writer_set_uint(w, "extra", 9);
    gguf_writer_describe(w, "b", b->type, b->n_dims, b->dims);
    gguf_writer_data(w, b->data, b->bytes);
    assert_int_equal(gguf_writer_close(w, &err), PH_OK);
    assert_int_equal(gguf_open(&copy, target, &err), PH_OK);
    assert_int_equal(gguf_key_count(copy), 6);
    assert_int_equal(gguf_tensor_count(copy), 1);
    assert_memory_equal(gguf_tensor_at(copy, 0)->data, data + 68, 20);
    assert_memory_equal(a->data, data, 68);
    gguf_free(copy);
    gguf_free(gguf);
}

static void writer_reports_the_first_mistake(void **state)
{
    (void)state;
    struct gguf_writer *w;
    struct ph_err err;
    const uint64_t dims[] = {4}, ragged[] = {31};
    unlink(target);
    assert_int_equal(gguf_writer_open(&w, target, &err), PH_OK);
    gguf_writer_describe(w, "short", TENSOR_F32, 1, dims);
    gguf_writer_data(w, dims, 8);
    assert_int_equal(gguf_writer_close(w, &err), PH_ERR_ARG);
    assert_non_null(strstr(err.message, "'short' has only 8 of its 16 bytes"));

    assert_int_equal(gguf_writer_open(&w, target, &err), PH_OK);
    gguf_writer_data(w, dims, 8);
    assert_int_equal(gguf_writer_close(w, &err), PH_ERR_ARG);

    assert_int_equal(gguf_writer_open(&w, target, &err), PH_OK);
    gguf_writer_describe(w, "ragged", TENSOR_Q8_0, 1, ragged);
    gguf_writer_describe(w, "", TENSOR_F32, 1, dims);
    assert_int_equal(gguf_writer_close(w, &err), PH_ERR_ARG);
    assert_non_null(strstr(err.message, "'ragged'"));

    assert_int_equal(gguf_writer_open(&w, target, &err), PH_OK);
    gguf_writer_set_uint(w, "general.alignment", 3);
    assert_int_equal(gguf_writer_close(w, &err), PH_ERR_ARG);

    assert_int_equal(gguf_writer_open(&w, target, &err), PH_OK);
    gguf_writer_describe(w, "twice", TENSOR_F32, 1, dims);
    gguf_writer_describe(w, "twice", TENSOR_F32, 1, dims);
    assert_int_equal(gguf_writer_close(w, &err), PH_ERR_ARG);

    assert_int_equal(gguf_writer_open(&w, target, &err), PH_OK);
    gguf_writer_abandon(w);
    gguf_writer_abandon(NULL);
    assert_int_not_equal(access(target, F_OK), 0);
    assert_int_not_equal(gguf_writer_open(&w, "/nowhere/at/all.gguf", &err), PH_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_is_not_gguf),   cmocka_unit_test(refuses_bad_keys),
        cmocka_unit_test(refuses_bad_tensors),        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(look_ups_convert_what_fits), cmocka_unit_test(opens_the_reference_models),
        cmocka_unit_test(what_is_written_reads_back), cmocka_unit_test(writer_reports_the_first_mistake),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
