/* Importance matrices: collecting, files, and what they are good for. */
#include "test_support.h"

#include <math.h>

#include "base/file.h"
#include "model/model.h"
#include "tiny_model.h"

#define WINDOW 8
#define TOKENS 30 /* four windows of seven, and two tokens over */

static char path_out[64];

static int begin(void **state)
{
    (void)state;
    snprintf(path_out, sizeof path_out, "/tmp/pharos-imp-%d", (int)getpid());
    return 0;
}

static int end(void **state)
{
    (void)state;
    unlink(path_out);
    return 0;
}

static void fill_tokens(int32_t *tokens)
{
    for (size_t i = 0; i < TOKENS; i++)
        tokens[i] = (int32_t)(3 + i * 7 % (TINY_VOCAB - 3));
}

static struct importance *collect(const struct model *model)
{
    int32_t tokens[TOKENS];
    struct importance *imp;
    struct ph_err err;
    fill_tokens(tokens);
    const struct importance_job job = {.model = model,
                                       .dataset = "some text",
                                       .tokens = tokens,
                                       .count = TOKENS,
                                       .window = WINDOW,
                                       .threads = 2};
    if (importance_collect(&imp, &job, &err) != PH_OK)
        fail_msg("%s", err.message);
    return imp;
}

static struct model *open_tiny(struct tiny *tiny)
{
    struct model *model;
    struct ph_err err;
    tiny_write(tiny);
    if (model_open(&model, tiny->path, false, &err) != PH_OK)
        fail_msg("%s", err.message);
    return model;
}

static const struct gguf_tensor *tensor(const struct model *model, const char *name)
{
    const struct gguf_tensor *t = gguf_tensor_find(model_gguf(model), name);
    assert_non_null(t);
    return t;
}

/* What blk.0.attn_q is multiplied with is known by hand: the normed embeddings of BOS and the tokens. */
static void the_first_layers_inputs_are_the_normed_embeddings(void **state)
{
    (void)state;
    struct tiny tiny = {0};
    struct model *model = open_tiny(&tiny);
    struct importance *imp = collect(model);
    const float *embed = tensor(model, "token_embd.weight")->data;
    const float *norm = tensor(model, "blk.0.attn_norm.weight")->data;
    int32_t tokens[TOKENS];
    double want[TINY_EMBD] = {0}, mean = 0;
    size_t rows = 0;
    fill_tokens(tokens);
    for (size_t w = 0; w + WINDOW - 1 <= TOKENS; w += WINDOW - 1)
        for (size_t i = 0; i < WINDOW - 1; i++, rows++) {
            const float *x = embed + (size_t)(i ? tokens[w + i - 1] : 1) * TINY_EMBD;
            double square = 0;
            for (size_t j = 0; j < TINY_EMBD; j++)
                square += (double)x[j] * (double)x[j];
            for (size_t j = 0; j < TINY_EMBD; j++)
                want[j] += pow((double)x[j] * (double)norm[j], 2) / (square / TINY_EMBD + 1e-5);
        }
    for (size_t j = 0; j < TINY_EMBD; j++)
        mean += want[j] / (double)rows / TINY_EMBD;
    float got[TINY_FF];
    assert_true(importance_weights(imp, tensor(model, "blk.0.attn_q.weight"), got));
    for (size_t j = 0; j < TINY_EMBD; j++)
        assert_true(fabs((double)got[j] - (want[j] / (double)rows + 0.1 * mean)) < 1e-4 * (double)got[j]);
    assert_true(importance_weights(imp, tensor(model, "blk.1.ffn_down.weight"), got));
    assert_true(importance_weights(imp, tensor(model, "output.weight"), got));
    assert_false(importance_weights(imp, tensor(model, "token_embd.weight"), got)); /* only looked up */
    importance_free(imp);
    model_free(model);
    tiny_remove(&tiny);
}

static void experts_are_kept_apart_and_files_give_back_what_was_written(void **state)
{
    (void)state;
    struct tiny tiny = {.experts = 4, .used = 2};
    struct model *model = open_tiny(&tiny);
    struct importance *imp = collect(model), *read;
    struct ph_err err;
    const struct gguf_tensor *up = tensor(model, "blk.0.ffn_up_exps.weight");
    float a[4 * TINY_EMBD], b[4 * TINY_EMBD];
    assert_int_equal(importance_write(imp, path_out, &err), PH_OK);
    if (importance_open(&read, path_out, &err) != PH_OK)
        fail_msg("%s", err.message);
    assert_true(importance_weights(imp, up, a));
    assert_true(importance_weights(read, up, b));
    bool differ = false;
    for (size_t i = 0; i < 4 * TINY_EMBD; i++) {
        assert_true(fabsf(a[i] - b[i]) <= 1e-6f * a[i]);
        differ = differ || fabsf(a[i] - a[i % TINY_EMBD]) > 1e-3f * a[i];
    }
    assert_true(differ);
    struct gguf *gguf;
    struct gguf_string type;
    uint64_t chunks;
    assert_int_equal(gguf_open(&gguf, path_out, &err), PH_OK);
    assert_true(gguf_get_string(gguf, "general.type", &type) && memcmp(type.text, "imatrix", 7) == 0);
    assert_true(gguf_get_uint(gguf, "imatrix.chunk_count", &chunks) && chunks == 4);
    assert_int_equal(gguf_tensor_find(gguf, "blk.0.ffn_up_exps.weight.in_sum2")->dims[1], 4);
    const struct gguf_tensor *counts = gguf_tensor_find(gguf, "blk.0.ffn_up_exps.weight.counts");
    float seen = 0;
    for (size_t i = 0; i < 4; i++)
        seen += ((const float *)counts->data)[i];
    assert_int_equal((int)seen, 4 * (WINDOW - 1) * 2); /* every row went to two experts */
    gguf_free(gguf);
    importance_free(read);
    importance_free(imp);
    model_free(model);
    tiny_remove(&tiny);
}

static void put_i32(struct buf *out, int32_t value)
{
    buf_append(out, &value, sizeof value);
}

/* One entry as llama.cpp's older files have it: means times calls. */
static void write_legacy(struct buf *out, int32_t name_len, int32_t values, float last)
{
    buf_init(out, 1 << 16);
    put_i32(out, 1);
    put_i32(out, name_len);
    buf_puts(out, "blk.0.attn_q.weight");
    put_i32(out, 5);
    put_i32(out, values);
    for (size_t i = 0; i < TINY_EMBD; i++) {
        float value = i + 1 == TINY_EMBD ? last : (float)(5 * i);
        buf_append(out, &value, sizeof value);
    }
    put_i32(out, 5);
}

static void older_files_are_read_and_spoilt_ones_refused(void **state)
{
    (void)state;
    struct tiny tiny = {0};
    struct model *model = open_tiny(&tiny);
    struct importance *imp;
    struct ph_err err;
    struct buf file;
    float got[TINY_EMBD];
    write_legacy(&file, 19, TINY_EMBD, 0);
    assert_int_equal(file_write_atomic(path_out, file.data, file.len, 0644, &err), PH_OK);
    assert_int_equal(importance_open(&imp, path_out, &err), PH_OK);
    assert_true(importance_weights(imp, tensor(model, "blk.0.attn_q.weight"), got));
    assert_true(fabsf((got[9] - got[0]) - 9.0f) < 1e-3f);
    importance_free(imp);
    for (size_t len = 0; len < file.len - 4; len += 3) { /* cut anywhere before the note */
        assert_int_equal(file_write_atomic(path_out, file.data, len, 0644, &err), PH_OK);
        assert_int_not_equal(importance_open(&imp, path_out, &err), PH_OK);
        assert_non_null(strstr(err.message, path_out));
    }
    buf_release(&file);
    const struct {
        int32_t name_len, values;
        float last;
    } spoilt[] = {{-1, TINY_EMBD, 0},         {1 << 30, TINY_EMBD, 0}, {19, -4, 0},
                  {19, 1 << 30, 0},           {19, TINY_EMBD, NAN},    {19, TINY_EMBD, -1},
                  {19, TINY_EMBD, -INFINITY}, {0, TINY_EMBD, 0}};
    for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
        write_legacy(&file, spoilt[i].name_len, spoilt[i].values, spoilt[i].last);
        assert_int_equal(file_write_atomic(path_out, file.data, file.len, 0644, &err), PH_OK);
        assert_int_equal(importance_open(&imp, path_out, &err), PH_ERR_FORMAT);
        buf_release(&file);
    }
    assert_int_equal(importance_open(&imp, tiny.path, &err), PH_ERR_FORMAT); /* a model */
    assert_non_null(strstr(err.message, "imatrix"));
    model_free(model);
    tiny_remove(&tiny);
}

/* The error that counts, of products with inputs like the text's, falls in every format. */
static void weighted_files_are_nearer_where_it_counts(void **state)
{
    (void)state;
    static const char *const types[] = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4", "Q4_K_M"};
    struct tiny tiny = {0};
    struct model *model = open_tiny(&tiny);
    struct importance *imp = collect(model);
    const struct gguf_tensor *from = tensor(model, "blk.1.ffn_gate.weight");
    float w[TINY_EMBD], x[TINY_EMBD];
    assert_true(importance_weights(imp, from, w));
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        double error[2] = {0};
        for (int weighted = 0; weighted < 2; weighted++) {
            struct quantize_result result;
            struct quantize_job job = {.in = tiny.path, .out = path_out, .threads = 1};
            struct gguf *gguf;
            struct ph_err err;
            job.importance = weighted ? imp : NULL;
            for (size_t i = 0; mixture_at(i); i++)
                if (strcmp(mixture_at(i)->name, types[t]) == 0)
                    job.mixture = mixture_at(i);
            assert_int_equal(gguf_quantize(&job, &result, &err), PH_OK);
            assert_int_equal(result.weighted, weighted ? result.converted - 1 : 0); /* not the embedding */
            assert_int_equal(gguf_open(&gguf, path_out, &err), PH_OK);
            const struct gguf_tensor *to = gguf_tensor_find(gguf, from->name);
            size_t bytes = tensor_row_bytes(to->type, TINY_EMBD);
            for (size_t r = 0; r < TINY_FF; r++) {
                tensor_dequantize(to->type, (const uint8_t *)to->data + r * bytes, x, TINY_EMBD);
                for (size_t j = 0; j < TINY_EMBD; j++)
                    error[weighted] +=
                        (double)w[j] *
                        pow((double)(x[j] - ((const float *)from->data)[r * TINY_EMBD + j]), 2);
            }
            gguf_free(gguf);
        }
        /* MXFP4's scales are powers of two: on even numbers there is nothing to choose */
        if (!(error[1] <= (strcmp(types[t], "MXFP4") == 0 ? 1 : 0.99) * error[0]))
            fail_msg("%s: weighted error %g, plain %g", types[t], error[1], error[0]);
    }
    importance_free(imp);
    model_free(model);
    tiny_remove(&tiny);
}

/* A tensor put in by hand is what the model runs with. */
static void a_replaced_tensor_is_what_runs(void **state)
{
    (void)state;
    struct tiny tiny = {0};
    struct ph_err err;
    struct gguf *gguf;
    struct model *plain = open_tiny(&tiny), *other;
    static float zeros[TINY_EMBD * TINY_VOCAB];
    float logits[2][TINY_VOCAB];
    assert_int_equal(gguf_open(&gguf, tiny.path, &err), PH_OK);
    assert_int_equal(gguf_tensor_replace(gguf, "no.such", TENSOR_F32, zeros, &err), PH_ERR_ARG);
    assert_int_equal(gguf_tensor_replace(gguf, "output.weight", TENSOR_Q4_K, zeros, &err), PH_ERR_ARG);
    assert_int_equal(gguf_tensor_replace(gguf, "output.weight", TENSOR_Q8_0, zeros, &err), PH_OK);
    assert_int_equal(model_open_gguf(&other, gguf, false, &err), PH_OK);
    assert_true(model_info(other)->weight_bytes < model_info(plain)->weight_bytes);
    for (int i = 0; i < 2; i++) {
        const struct runner_params params = {.threads = 1, .sequences_max = 1};
        struct runner *runner;
        assert_int_equal(runner_create(&runner, i ? other : plain, &params, &err), PH_OK);
        struct kv_seq *seq = kv_seq_take(runner);
        assert_int_equal(kv_seq_reserve(runner, seq, 1), PH_OK);
        const struct runner_row row = {seq, 5, logits[i]};
        assert_int_equal(runner_step(runner, &row, 1, PHASE_DECODE, &err), PH_OK);
        kv_seq_give(runner, seq);
        runner_free(runner);
    }
    bool all_zero = true, plain_zero = true;
    for (size_t i = 0; i < TINY_VOCAB; i++) {
        all_zero = all_zero && fabsf(logits[1][i]) < 1e-9f;
        plain_zero = plain_zero && fabsf(logits[0][i]) < 1e-9f;
    }
    assert_true(all_zero && !plain_zero);
    model_free(other);
    model_free(plain);
    tiny_remove(&tiny);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_first_layers_inputs_are_the_normed_embeddings, begin, end),
        cmocka_unit_test_setup_teardown(experts_are_kept_apart_and_files_give_back_what_was_written, begin,
                                        end),
        cmocka_unit_test_setup_teardown(older_files_are_read_and_spoilt_ones_refused, begin, end),
        cmocka_unit_test_setup_teardown(weighted_files_are_nearer_where_it_counts, begin, end),
        cmocka_unit_test_setup_teardown(a_replaced_tensor_is_what_runs, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
