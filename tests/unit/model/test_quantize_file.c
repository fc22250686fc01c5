/* Quantising a file, against files of llama.cpp's own llama-quantize. */
#include "test_support.h"

#include <math.h>
#include <unistd.h>

#include "base/mem.h"
#include "model/model.h"

#define MODELS TEST_SHARED_DIR "/conformance/models/"

static const char *out_path(void)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/pharos-test-%d-quantized.gguf", (int)getpid());
    return path;
}

static const struct mixture *mixture_named(const char *name)
{
    for (size_t i = 0; mixture_at(i); i++)
        if (strcmp(mixture_at(i)->name, name) == 0)
            return mixture_at(i);
    fail_msg("no mixture %s", name);
    return NULL;
}

static enum ph_status quantize(const char *in, const char *type, bool again, struct ph_err *err)
{
    struct quantize_result result;
    struct quantize_job job = {
        .in = in, .out = out_path(), .mixture = mixture_named(type), .again = again, .threads = 2};
    return gguf_quantize(&job, &result, err);
}

/* Mean square distance of a tensor from the original's. */
static double distance(const struct gguf_tensor *t, const struct gguf_tensor *original)
{
    size_t len = original->bytes / sizeof(float);
    float *x = mem_alloc(len * sizeof *x), *y = mem_alloc(len * sizeof *y);
    tensor_dequantize(t->type, t->data, x, len);
    tensor_dequantize(original->type, original->data, y, len);
    double sum = 0;
    for (size_t i = 0; i < len; i++)
        sum += pow((double)x[i] - (double)y[i], 2);
    mem_free(x);
    mem_free(y);
    return sum / (double)len;
}

static int remove_output(void **state)
{
    (void)state;
    unlink(out_path());
    return 0;
}

static struct gguf *open_file(const char *path)
{
    struct gguf *gguf = NULL;
    struct ph_err err;
    if (gguf_open(&gguf, path, &err) != PH_OK)
        fail_msg("%s", err.message);
    return gguf;
}

/* The same formats in the same places, and nowhere much further from the original than the other's file (ours
 * weighs large numbers more, which plain distances do not show). */
static void files_are_as_good_as_llama_quantize_makes_them(void **state)
{
    (void)state;
    static const char *const types[] = {"F16",  "BF16", "Q8_0",   "Q4_0",   "Q4_1",   "Q5_0",   "Q5_1",
                                        "Q2_K", "Q6_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "IQ4_NL", "IQ4_XS"};
    REQUIRE_SHARED();
    struct gguf *original = open_file(MODELS "base-F32.gguf");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char path[256];
        struct ph_err err;
        if (quantize(MODELS "base-F32.gguf", types[i], false, &err) != PH_OK)
            fail_msg("%s", err.message);
        snprintf(path, sizeof path, MODELS "base-%s.gguf", types[i]);
        struct gguf *ours = open_file(out_path()), *theirs = open_file(path);
        uint64_t a = 0, b = 0;
        assert_true(gguf_get_uint(ours, "general.file_type", &a));
        assert_true(gguf_get_uint(theirs, "general.file_type", &b));
        assert_int_equal(a, b);
        assert_int_equal(gguf_tensor_count(ours), gguf_tensor_count(theirs));
        for (size_t k = 0; k < gguf_tensor_count(theirs); k++) {
            const struct gguf_tensor *want = gguf_tensor_at(theirs, k),
                                     *got = gguf_tensor_find(ours, want->name);
            assert_non_null(got);
            if (got->type != want->type)
                fail_msg("%s %s: type %d, not %d", types[i], want->name, (int)got->type, (int)want->type);
            const struct gguf_tensor *from = gguf_tensor_find(original, want->name);
            double far = distance(got, from), theirs_far = distance(want, from);
            if (!(far <= theirs_far * 1.05))
                fail_msg("%s %s: %g from the original, theirs %g", types[i], want->name, far, theirs_far);
        }
        gguf_free(ours);
        gguf_free(theirs);
    }
    gguf_free(original);
}

static void rows_that_fit_no_block_get_a_format_they_fit(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct ph_err err;
    assert_int_equal(quantize(MODELS "stories260K-F32.gguf", "Q4_K_M", false, &err), PH_OK);
    struct gguf *gguf = open_file(out_path()); /* rows of 64, and of 172 */
    assert_int_equal(gguf_tensor_find(gguf, "blk.0.attn_q.weight")->type, TENSOR_Q5_0);
    assert_int_equal(gguf_tensor_find(gguf, "blk.0.ffn_down.weight")->type, TENSOR_F16);
    assert_int_equal(gguf_tensor_find(gguf, "blk.0.attn_norm.weight")->type, TENSOR_F32);
    assert_int_equal(gguf_tensor_find(gguf, "output.weight")->type, TENSOR_Q8_0);
    gguf_free(gguf);
}

static void what_is_quantised_is_not_quantised_again_by_accident(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct ph_err err;
    assert_int_equal(quantize(MODELS "base-Q8_0.gguf", "Q4_0", false, &err), PH_ERR_ARG);
    assert_non_null(strstr(err.message, "--again"));
    assert_int_equal(access(out_path(), F_OK), -1);
    assert_int_equal(quantize(MODELS "base-Q8_0.gguf", "Q4_0", true, &err), PH_OK);
    assert_int_equal(quantize(MODELS "base-Q8_0.gguf", "F32", false, &err), PH_OK); /* which rounds nothing */
}

/* Written by hand: one matrix of 2 x 32 with a NaN at its end. */
static void a_weight_that_is_no_number_is_named(void **state)
{
    (void)state;
    struct gguf_writer *w;
    struct ph_err err;
    char in[64];
    float x[64] = {0};
    const uint64_t dims[2] = {32, 2};
    snprintf(in, sizeof in, "/tmp/pharos-test-%d-nan.gguf", (int)getpid());
    assert_int_equal(gguf_writer_open(&w, in, &err), PH_OK);
    gguf_writer_set_string(w, "general.architecture", "llama", 5);
    gguf_writer_describe(w, "blk.0.ffn_up.weight", TENSOR_F32, 2, dims);
    x[63] = NAN;
    gguf_writer_data(w, x, sizeof x);
    assert_int_equal(gguf_writer_close(w, &err), PH_OK);
    assert_int_equal(quantize(in, "Q8_0", false, &err), PH_ERR_FORMAT);
    assert_non_null(strstr(err.message, "blk.0.ffn_up.weight"));
    assert_int_equal(access(out_path(), F_OK), -1);
    unlink(in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(files_are_as_good_as_llama_quantize_makes_them, remove_output),
        cmocka_unit_test_teardown(rows_that_fit_no_block_get_a_format_they_fit, remove_output),
        cmocka_unit_test_teardown(what_is_quantised_is_not_quantised_again_by_accident, remove_output),
        cmocka_unit_test_teardown(a_weight_that_is_no_number_is_named, remove_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
