/* The quantisation lab, on a small random model. */
#include <math.h>
#include <sys/stat.h>

#include "../model/tiny_model.h"
#include "base/file.h"
#include "train/lab_int.h"
#include "train/train.h"

#define WINDOW 16
#define TOKENS 300
#define LEARNT 150 /* ten windows of fifteen to learn from, ten to measure */

struct bench {
    struct tiny tiny;
    struct lab *lab;
    int32_t tokens[TOKENS];
    char kept[64], folder[64];
};

static bool never(void *ud, const char *what, uint64_t done, uint64_t total)
{
    (void)ud;
    (void)what;
    (void)done;
    (void)total;
    return false;
}

static struct bench *bench_open(bool timed)
{
    struct bench *b = calloc(1, sizeof *b);
    struct rng rng;
    struct ph_err err;
    assert_non_null(b);
    tiny_write(&b->tiny);
    snprintf(b->kept, sizeof b->kept, "/tmp/pharos-lab-%d.gguf", (int)getpid());
    snprintf(b->folder, sizeof b->folder, "/tmp/pharos-lab-%d", (int)getpid());
    rng_init(&rng, 5);
    for (size_t i = 0; i < TOKENS; i++)
        b->tokens[i] = (int32_t)(3 + rng_u64(&rng) % (TINY_VOCAB - 3));
    const struct lab_params params = {
        .model = b->tiny.path, .window = WINDOW, .tokens_max = LEARNT, .threads = 2, .timed = timed};
    if (lab_create(&b->lab, &params, &err) != PH_OK)
        fail_msg("%s", err.message);
    if (lab_read(b->lab, b->tokens, TOKENS, "random", &err) != PH_OK)
        fail_msg("%s", err.message);
    return b;
}

static void bench_close(struct bench *b)
{
    lab_free(b->lab);
    tiny_remove(&b->tiny);
    unlink(b->kept);
    free(b);
}

static const struct mixture *mixture_named(const char *name)
{
    for (size_t i = 0; mixture_at(i); i++)
        if (strcmp(mixture_at(i)->name, name) == 0)
            return mixture_at(i);
    fail_msg("no mixture %s", name);
    return NULL;
}

static const struct lab_row *measure(struct bench *b, const char *type, bool weighted)
{
    struct ph_err err;
    size_t count;
    if (lab_measure(b->lab, mixture_named(type), weighted, &err) != PH_OK)
        fail_msg("%s", err.message);
    const struct lab_row *rows = lab_rows(b->lab, &count);
    return &rows[count - 1];
}

static const struct lab_row *search(struct bench *b, double nats)
{
    struct ph_err err;
    size_t count;
    if (lab_search(b->lab, (struct lab_bound){.value = nats}, &err) != PH_OK)
        fail_msg("%s", err.message);
    const struct lab_row *rows = lab_rows(b->lab, &count);
    return strcmp(rows[count - 1].name, "mixed") == 0 ? &rows[count - 1] : NULL;
}

/* ---- The same figures by plain means: both models' predictions one after the other, in double */

struct predictions {
    double p[LEARNT][TINY_VOCAB]; /* logarithms */
};

static void see(void *ud, const struct window_rows *rows)
{
    struct predictions *out = ud;
    for (size_t i = 0; i < rows->rows; i++) {
        double sum = 0;
        for (size_t j = 0; j < TINY_VOCAB; j++)
            sum += exp((double)rows->logits[i * TINY_VOCAB + j]);
        for (size_t j = 0; j < TINY_VOCAB; j++)
            out->p[rows->first + i][j] = (double)rows->logits[i * TINY_VOCAB + j] - log(sum);
    }
}

static void predict(const struct bench *b, const char *path, struct predictions *out)
{
    struct model *model;
    struct runner *runner;
    struct windows *windows;
    struct ph_err err;
    const struct runner_params params = {
        .threads = 1, .context_len = WINDOW, .rows_max = WINDOW, .outputs_max = WINDOW};
    assert_int_equal(model_open(&model, path, false, &err), PH_OK);
    assert_int_equal(runner_create(&runner, model, &params, &err), PH_OK);
    struct kv_seq *seq = kv_seq_take(runner);
    assert_int_equal(windows_create(&windows, model, runner, seq, WINDOW, WINDOW, &err), PH_OK);
    for (size_t at = 0; at < LEARNT; at += WINDOW - 1)
        assert_int_equal(windows_read(windows, -1, b->tokens + LEARNT + at, at, see, out, &err), PH_OK);
    windows_free(windows);
    kv_seq_give(runner, seq);
    runner_free(runner);
    model_free(model);
}

static void check_by_plain_means(const struct bench *b, const struct lab_row *row)
{
    struct predictions *p = calloc(2, sizeof *p), *q = p + 1;
    double kl = 0, nll = 0;
    assert_non_null(p);
    predict(b, b->tiny.path, p);
    predict(b, b->kept, q);
    for (size_t i = 0; i < LEARNT; i++) {
        nll -= q->p[i][b->tokens[LEARNT + i]] / LEARNT;
        for (size_t j = 0; j < TINY_VOCAB; j++)
            kl += exp(p->p[i][j]) * (p->p[i][j] - q->p[i][j]) / LEARNT;
    }
    if (fabs(kl - row->kl) > 1e-6 + 1e-3 * kl || fabs(nll - row->nll) > 1e-5)
        fail_msg("%s: kl %g nll %g, by plain means %g %g", row->name, row->kl, row->nll, kl, nll);
    free(p);
}

static void write_row(const struct bench *b, const struct lab_row *row)
{
    struct ph_err err;
    struct gguf *gguf;
    uint64_t bytes = 0;
    if (lab_write(b->lab, row, b->kept, &err) != PH_OK)
        fail_msg("%s", err.message);
    assert_int_equal(gguf_open(&gguf, b->kept, &err), PH_OK);
    for (size_t i = 0; i < gguf_tensor_count(gguf); i++)
        bytes += gguf_tensor_at(gguf, i)->bytes;
    assert_int_equal(bytes, row->weight_bytes);
    int64_t off = (int64_t)gguf_file_bytes(gguf) - (int64_t)row->file_bytes;
    assert_true(off >= -256 && off <= 256); /* two keys are added, and padding */
    gguf_free(gguf);
}

/* ---- Tests */

static void rows_are_what_the_files_would_be(void **state)
{
    (void)state;
    struct bench *b = bench_open(false);
    size_t count;
    const struct lab_row *original = lab_rows(b->lab, &count);
    assert_int_equal(count, 1);
    assert_true(original->kl < 1e-7 && original->top1 == 1);
    const struct lab_row *q8 = measure(b, "Q8_0", false), *q4 = measure(b, "Q4_0", true);
    assert_true(q8->kl > 1e-7 && q8->kl < q4->kl && q4->top1 <= q8->top1);
    assert_true(q4->file_bytes < q8->file_bytes && q8->memory_bytes > q8->weight_bytes);
    write_row(b, q8);
    check_by_plain_means(b, q8);
    write_row(b, q4);
    check_by_plain_means(b, q4);
    bench_close(b);
}

/* Of two matrices of one shape, the one whose rounding costs several times more has no fewer bits. */
static void check_sensitive_kept_higher(const struct lab *lab, const struct lab_row *row)
{
    const enum tensor_type *types = lab->types[row - lab->rows];
    size_t pairs = 0, apart = 0;
    for (size_t i = 0; i < lab->tensor_count; i++)
        for (size_t j = 0; j < lab->tensor_count; j++) {
            const struct lab_tensor *a = &lab->tensors[i], *b = &lab->tensors[j];
            if (a->tensor->dims[0] != b->tensor->dims[0] || a->tensor->dims[1] != b->tensor->dims[1] ||
                !(a->kl_low > 3 * b->kl_low))
                continue;
            size_t bytes_a = tensor_row_bytes(types[i], 256), bytes_b = tensor_row_bytes(types[j], 256);
            if (bytes_a < bytes_b)
                fail_msg("%s costs %g and has %zu bytes for 256 numbers, %s costs %g and has %zu",
                         a->tensor->name, a->kl_low, bytes_a, b->tensor->name, b->kl_low, bytes_b);
            pairs++;
            apart += bytes_a > bytes_b;
        }
    assert_true(pairs > 0 && apart > 0);
}

/* The mixture is within its bound, smaller than what one format for everything gives there, and monotonic. */
static void a_search_finds_a_small_mixture_within_its_bound(void **state)
{
    (void)state;
    struct bench *b = bench_open(false);
    double bound = sqrt(measure(b, "Q8_0", true)->kl * measure(b, "Q5_0", true)->kl);
    const struct lab_row *mixed = search(b, bound);
    assert_non_null(mixed);
    assert_true(mixed->kl <= bound);
    check_sensitive_kept_higher(b->lab, mixed);
    struct lab_bound asked = {.value = bound};
    const struct lab_row *best = lab_smallest(b->lab, asked);
    assert_ptr_equal(best, mixed);
    write_row(b, mixed);
    check_by_plain_means(b, mixed);
    const struct lab_row *larger = search(b, 100 * bound);
    assert_non_null(larger);
    assert_true(larger->file_bytes < mixed->file_bytes && larger->kl <= 100 * bound);
    struct lab_bound none = {.value = -1};
    assert_null(lab_smallest(b->lab, none));
    bench_close(b);
}

static void reports_are_whole(void **state)
{
    (void)state;
    static const char *const files[] = {"lab.csv", "lab.md", "tensors.csv", "loss.svg", "speed.svg"};
    struct bench *b = bench_open(true);
    struct ph_err err;
    struct lab_bound bound = {.value = 0.5};
    const struct lab_row *row = measure(b, "Q8_0", false);
    assert_true(row->speed.decode > 0 && row->speed.prefill > 0 && row->speed.decode_limit > 0);
    assert_true(row->speed.p50_ms > 0 && row->speed.p50_ms <= row->speed.p95_ms);
    assert_non_null(search(b, 0.5));
    if (lab_report(b->lab, bound, b->folder, &err) != PH_OK)
        fail_msg("%s", err.message);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[128];
        struct buf text;
        snprintf(path, sizeof path, "%s/%s", b->folder, files[i]);
        buf_init(&text, 1 << 20);
        assert_int_equal(file_read(path, &text, &err), PH_OK);
        assert_non_null(strstr(text.data, i == 2 ? "blk.1.ffn_down.weight" : "Q8_0"));
        size_t lines = 0, commas = 0;
        for (size_t k = 0; i == 0 && k < text.len; k++) {
            lines += text.data[k] == '\n';
            commas += text.data[k] == ',';
        }
        assert_true(i != 0 || (lines == 4 && commas % 4 == 0));
        buf_release(&text);
        unlink(path);
    }
    rmdir(b->folder);
    struct buf json;
    struct arena arena;
    struct json *parsed;
    buf_init(&json, 1 << 20);
    arena_init(&arena, 1 << 20);
    lab_json(b->lab, bound, &json);
    assert_int_equal(json_parse(&arena, json.data, json.len, &parsed, &err), PH_OK);
    arena_release(&arena);
    buf_release(&json);
    bench_close(b);
}

static void what_is_no_number_is_within_no_bound(void **state)
{
    (void)state;
    struct bench *b = bench_open(false);
    struct buf json;
    struct arena arena;
    struct json *parsed;
    measure(b, "Q8_0", false);
    b->lab->rows[1].kl = b->lab->rows[1].nll = b->lab->rows[1].ppl = NAN;
    assert_null(lab_smallest(b->lab, (struct lab_bound){.value = 1e9}));
    assert_null(lab_smallest(b->lab, (struct lab_bound){.value = 1e9, .percent = true}));
    buf_init(&json, 1 << 20);
    arena_init(&arena, 1 << 20);
    lab_json(b->lab, (struct lab_bound){.value = 1}, &json);
    assert_int_equal(json_parse(&arena, json.data, json.len, &parsed, NULL), PH_OK);
    assert_true(json_is(json_get(json_at(json_get(parsed, "rows"), 1), "perplexity"), JSON_NULL));
    arena_release(&arena);
    buf_release(&json);
    bench_close(b);
}

static void what_cannot_be_measured_is_said(void **state)
{
    (void)state;
    struct bench *b = bench_open(false);
    struct lab *lab;
    struct ph_err err;
    struct lab_params params = {.model = b->tiny.path, .window = WINDOW, .tokens_max = LEARNT, .threads = 1};
    assert_int_equal(lab_create(&lab, &params, &err), PH_OK);
    assert_int_equal(lab_read(lab, b->tokens, 20, "short", &err), PH_ERR_ARG);
    assert_non_null(strstr(err.message, "short"));
    lab_free(lab);
    params.progress = never;
    assert_int_equal(lab_create(&lab, &params, &err), PH_OK);
    assert_int_equal(lab_read(lab, b->tokens, TOKENS, "random", &err), PH_ERR_CANCELLED);
    lab_free(lab);
    write_row(b, measure(b, "Q8_0", false));
    params = (struct lab_params){.model = b->kept, .window = WINDOW, .tokens_max = LEARNT, .threads = 1};
    assert_int_equal(lab_create(&lab, &params, &err), PH_ERR_ARG);
    assert_non_null(strstr(err.message, "--again"));
    params.again = true;
    assert_int_equal(lab_create(&lab, &params, &err), PH_OK);
    lab_free(lab);
    bench_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_what_the_files_would_be),
        cmocka_unit_test(a_search_finds_a_small_mixture_within_its_bound),
        cmocka_unit_test(reports_are_whole),
        cmocka_unit_test(what_is_no_number_is_within_no_bound),
        cmocka_unit_test(what_cannot_be_measured_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
