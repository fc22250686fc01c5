/* Estimates: every dimension of the shapes, every total the sum of its parts, sizes those of the engine. */
#include <math.h>

#include "base/mem.h"
#include "ops/estimate.h"
#include "test_support.h"

#define TINY                                                                                                \
    "shapes:\n  tiny: {layers: 3, width: 256, heads: 4, kv_heads: 2, head_dim: 64, ffn: 512, vocab: 1000, " \
    "context: 2048}\n"

struct bench {
    struct arena arena;
    struct estimate_data *data;
    struct machine machine;
    struct estimate_model model, draft;
    struct estimate_request request;
    struct ph_err err;
};

static int begin(void **state)
{
    struct bench *b = mem_calloc(1, sizeof *b);
    arena_init(&b->arena, ESTIMATE_ARENA_BYTES_MAX);
    assert_int_equal(estimate_data_open(&b->data, &b->arena, &(struct estimate_files){0}, &b->err), PH_OK);
    estimate_request_default(&b->request);
    b->request.model = &b->model;
    b->request.machine = &b->machine;
    *state = b;
    return 0;
}

static int end(void **state)
{
    struct bench *b = *state;
    arena_release(&b->arena);
    mem_free(b);
    return 0;
}

static struct estimate *make(struct bench *b, const char *model, const char *type, const char *hardware)
{
    struct estimate *e;
    assert_int_equal(estimate_model_shape(&b->model, &b->arena, b->data, model, type, &b->err), PH_OK);
    assert_int_equal(estimate_machine(b->data, hardware, &b->machine, &b->err), PH_OK);
    assert_int_equal(estimate_make(&e, &b->arena, &b->request, &b->err), PH_OK);
    return e;
}

static void shapes_have_every_dimension(void **state)
{
    struct bench *b = *state;
    const char *name;
    size_t published = 0;
    for (size_t i = 0; (name = estimate_shape_name(b->data, i)); i++) {
        assert_int_equal(estimate_model_shape(&b->model, &b->arena, b->data, name, "F16", &b->err), PH_OK);
        if (!b->model.published_params)
            continue;
        if (b->model.params != b->model.published_params)
            fail_msg("%s: %llu parameters, published are %llu", name, (unsigned long long)b->model.params,
                     (unsigned long long)b->model.published_params);
        published++;
    }
    assert_true(published >= 30);
}

static void names_are_forgiving(void **state)
{
    struct bench *b = *state;
    assert_int_equal(estimate_model_shape(&b->model, &b->arena, b->data, "Llama 3.1 8B", "q4_k_m", &b->err),
                     PH_OK);
    assert_int_equal(b->model.params, 8030261248);
    assert_int_equal(estimate_model_shape(&b->model, &b->arena, b->data, "DeepSeek_6.7B", "F16", &b->err),
                     PH_OK);
    assert_int_equal(estimate_model_shape(&b->model, &b->arena, b->data, "llama-9", "F16", &b->err),
                     PH_ERR_NOTFOUND);
    assert_non_null(strstr(b->err.message, "--shapes"));
    assert_int_equal(estimate_model_shape(&b->model, &b->arena, b->data, "phi-4", "Q9", &b->err), PH_ERR_ARG);
    assert_non_null(strstr(b->err.message, "Q4_K_M"));
    assert_int_equal(estimate_machine(b->data, "rtx-9090", &b->machine, &b->err), PH_ERR_NOTFOUND);
    assert_non_null(strstr(b->err.message, "rtx-4090"));
    assert_int_equal(estimate_machine(b->data, "i7-7700+desktop", &b->machine, &b->err), PH_ERR_ARG);
}

/* ---- P1: a sum is exactly its parts */

static void check_sums(const struct estimate_sheet *sheet)
{
    for (size_t i = 0; i < sheet->count; i++) {
        const struct estimate_line *sum = &sheet->lines[i];
        uint64_t total = 0;
        if (sum->kind != LINE_SUM)
            continue;
        for (size_t k = i + 1; k < sheet->count && sheet->lines[k].depth > sum->depth; k++)
            if (sheet->lines[k].depth == sum->depth + 1 && sheet->lines[k].kind != LINE_NOTE) {
                assert_int_equal(sheet->lines[k].unit, sum->unit);
                total += sheet->lines[k].value;
            }
        assert_int_equal(total, sum->value);
    }
}

static size_t below(struct rng *rng, size_t n)
{
    return (size_t)(rng_u64(rng) % n);
}

/* A share of its perfect speed may be above 1 for vectors (caches); the whole stays beneath what physics allows
 * only as far as weights set the pace, so it is the low end that is compared. */
static void check_answer(const struct bench *b, const struct estimate *e)
{
    uint64_t stages = 0, layers = 0;
    check_sums(&e->memory);
    check_sums(&e->load);
    check_sums(&e->prefill);
    check_sums(&e->decode);
    check_sums(&e->draft);
    for (size_t i = 0; i < e->stage_count; i++) {
        assert_int_equal(e->stages[i].first, layers);
        layers = e->stages[i].end;
        stages += e->stages[i].bytes;
    }
    assert_int_equal(layers, b->model.layer_count);
    assert_true(e->stages[e->stage_count - 1].outputs);
    assert_int_equal(e->memory.lines[0].value, e->memory_bytes);
    assert_true(stages <= e->memory_bytes);
    double rounding = 1e-9 * (double)(e->decode.count + 1);
    assert_true(fabs((double)e->decode.lines[0].value * 1e-9 - e->decode_s.mid) <= rounding);
    assert_true(fabs((double)e->prefill.lines[0].value * 1e-9 - e->prefill_s.mid) <= rounding);
    assert_true(e->decode_s.low <= e->decode_s.mid && e->decode_s.mid <= e->decode_s.high);
    assert_true(e->decode_tokens_per_s.low <= e->ceiling_tokens_per_s * 1.0000001);
}

static void sums_are_their_parts_anywhere(void **state)
{
    struct bench *b = *state;
    struct rng rng;
    size_t shapes = 0, types = 0, hardware = 0, made = 0;
    rng_init(&rng, 7);
    while (estimate_shape_name(b->data, shapes))
        shapes++;
    while (estimate_type_name(types))
        types++;
    while (estimate_hardware_name(b->data, hardware))
        hardware++;
    for (int i = 0; i < 120; i++) {
        struct estimate *e;
        arena_clear(&b->arena);
        assert_int_equal(estimate_data_open(&b->data, &b->arena, &(struct estimate_files){0}, &b->err),
                         PH_OK);
        assert_int_equal(estimate_model_shape(&b->model, &b->arena, b->data,
                                              estimate_shape_name(b->data, below(&rng, shapes)),
                                              estimate_type_name(below(&rng, types)), &b->err),
                         PH_OK);
        assert_int_equal(
            estimate_model_shape(&b->draft, &b->arena, b->data, "tinyllama-1.1b", "Q4_0", &b->err), PH_OK);
        assert_int_equal(estimate_machine(b->data, estimate_hardware_name(b->data, below(&rng, hardware)),
                                          &b->machine, &b->err),
                         PH_OK);
        b->request.prompt = 1 + below(&rng, 5000);
        b->request.generate = below(&rng, 1000);
        b->request.streams = 1 + below(&rng, 40);
        b->request.context = below(&rng, 2) ? 8192 : 0;
        b->request.lora_rank = below(&rng, 3) * 8;
        b->request.threads = (unsigned)below(&rng, 9);
        b->request.draft = below(&rng, 2) ? &b->draft : NULL;
        if (estimate_make(&e, &b->arena, &b->request, &b->err) != PH_OK)
            continue; /* a bare NPU has no memory of its own */
        check_answer(b, e);
        made++;
    }
    assert_true(made >= 100);
}

/* ---- Sizes against what is known */

static uint64_t line_value(const struct estimate_sheet *sheet, const char *name)
{
    uint64_t value = 0;
    for (size_t i = 0; i < sheet->count; i++)
        value += strcmp(sheet->lines[i].name, name) == 0 ? sheet->lines[i].value : 0;
    return value;
}

/* notes: Llama 3 8B 128 KiB a token, Qwen 2.5 7B 56 KiB, Llama 2 7B 512 KiB */
static void keys_and_values_are_known(void **state)
{
    struct bench *b = *state;
    const struct {
        const char *model;
        uint64_t kib;
    } known[] = {{"llama-3.1-8b", 128}, {"qwen-2.5-7b", 56}, {"llama-2-7b", 512}};
    b->request.prompt = 4096 - b->request.generate;
    for (size_t i = 0; i < 3; i++) {
        struct estimate *e = make(b, known[i].model, "Q4_0", "h200");
        assert_int_equal(line_value(&e->memory, "keys and values"), known[i].kib * 1024 * 4096);
    }
    b->request.kv_type = TENSOR_Q8_0;
    struct estimate *e = make(b, "llama-3.1-8b", "Q4_0", "h200");
    assert_int_equal(line_value(&e->memory, "keys and values"), 128ull * 1024 * 4096 * 34 / 64);
}

static void what_fits_is_not_split(void **state)
{
    struct bench *b = *state;
    struct estimate *e = make(b, "llama-3.1-8b", "Q4_K_M", "desktop");
    assert_int_equal(e->stage_count, 1);
    assert_int_equal(e->stages[0].device, 0);
    e = make(b, "llama-3.3-70b", "Q4_K_M", "desktop");
    assert_int_equal(e->stage_count, 2);
    assert_int_equal(e->stages[0].device, 0);
    assert_int_equal(e->stages[1].device, -1);
    assert_true(e->fits && e->stages[0].end > 20 && e->stages[0].end < 40);
    assert_true(e->ceiling_tokens_per_s > 2 && e->ceiling_tokens_per_s < 4.5);
    size_t alone = e->stages[0].end;
    double split = e->decode_tokens_per_s.mid;
    b->request.gpu_layers = alone / 2; /* fewer layers on the card are slower */
    assert_true(make(b, "llama-3.3-70b", "Q4_K_M", "desktop")->decode_tokens_per_s.mid < split);
    b->request.gpu_layers = SIZE_MAX;
    e = make(b, "llama-3.3-70b", "F32", "desktop");
    assert_false(e->fits);
    assert_non_null(strstr(e->why_not, "--type"));
}

static void experts_are_touched_as_chance_has_it(void **state)
{
    struct bench *b = *state;
    struct estimate *e = make(b, "mixtral-8x7b", "Q4_0", "h200");
    double whole = (double)b->model.bytes;
    assert_true((double)e->decode_bytes < 0.3 * whole); /* 2 of 8 */
    uint64_t one = line_value(&e->decode, "Q4_0 weights read");
    b->request.streams = 64; /* all of them, almost surely */
    e = make(b, "mixtral-8x7b", "Q4_0", "h200");
    uint64_t many = line_value(&e->decode, "Q4_0 weights read");
    assert_true((double)many > 3.5 * (double)one && (double)many < 4.1 * (double)one);
    assert_true(e->knee > 1);
}

/* (1 - a^(g+1)) / (1 - a) */
static void drafts_pay_when_they_are_cheap(void **state)
{
    struct bench *b = *state;
    assert_int_equal(estimate_model_shape(&b->draft, &b->arena, b->data, "llama-3.2-1b", "Q4_K_M", &b->err),
                     PH_OK);
    b->request.draft = &b->draft;
    b->request.draft_len = 4;
    b->request.acceptance = 0.5;
    struct estimate *e = make(b, "llama-3.3-70b", "Q4_K_M", "a100");
    assert_true(fabs(e->draft_tokens_per_step - 1.9375) < 1e-9);
    assert_true(e->draft_speedup > 1);
    b->request.acceptance = 0;
    e = make(b, "llama-3.3-70b", "Q4_K_M", "a100");
    assert_true(e->draft_speedup < 1);
}

static void users_bring_their_own(void **state)
{
    struct bench *b = *state;
    static const char hardware[] =
        "machines:\n  mine: {cpu: C, threads: 2, memory_gib: 1, gb_per_s: 10, f32: 0.1}\n";
    assert_int_equal(
        estimate_data_parse(&b->data, &b->arena, TINY, strlen(TINY), hardware, strlen(hardware), &b->err),
        PH_OK);
    struct estimate *e = make(b, "tiny", "F32", "mine");
    check_answer(b, e);
    assert_int_equal(b->model.bytes, 4 * b->model.params);
    assert_int_equal(e->decode_bytes, b->model.bytes - 4 * 256 * 1000); /* but the embedding */
    static const char *const bad[] = {
        "shapes:\n  x: {layers: 3}\n",
        "shapes:\n  x: {layers: 3, width: 8, heads: 3, kv_heads: 2, head_dim: 4, ffn: 8, vocab: 9}\n",
        "shapes:\n  x: {layers: 3, width: 8, heads: 2, kv_heads: 2, head_dim: 4, vocab: 9, experts: 4}\n",
        "shapes:\n  x: {layers: -3}\n",
        "shapes: [1]\n",
        "cards: {}\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_not_equal(
            estimate_data_parse(&b->data, &b->arena, bad[i], strlen(bad[i]), NULL, 0, &b->err), PH_OK);
}

/* ---- Learning: what one model taught is true of another */

/* A machine whose true shares are known, and a model of other size than it learnt from. */
static void learning_finds_the_shares(void **state)
{
    struct bench *b = *state;
    struct efficiency *learnt = arena_calloc(&b->arena, 1, sizeof *learnt),
                      *truth = arena_calloc(&b->arena, 1, sizeof *truth);
    char device[EFFICIENCY_DEVICE_BYTES];
    static const char *const types[] = {"Q4_K", "Q6_K", "Q8_0", "F32"};
    static const double ratios[] = {1.9, 1.45, 1.2, 1.3};
    assert_int_equal(estimate_machine(b->data, "i7-7700", &b->machine, &b->err), PH_OK);
    efficiency_device(&b->machine, b->machine.threads, device);
    for (size_t i = 0; i < 4; i++)
        for (int phase = 0; phase < 2; phase++) {
            struct efficiency_row *row = &truth->rows[truth->count++];
            *row = (struct efficiency_row){
                .phase = (enum efficiency_phase)phase, .ratio = ratios[i], .samples = 9};
            snprintf(row->device, sizeof row->device, "%s", device);
            snprintf(row->type, sizeof row->type, "%s", types[i]);
        }
    b->request.prompt = 0;
    b->request.generate = 64;
    static const char *const lessons[] = {"Q8_0", "Q6_K", "Q4_K_M"};
    for (int round = 0; round < 6; round++)
        for (size_t i = 0; i < 3; i++) {
            b->request.efficiency = truth;
            struct estimate *e = make(b, "bench-500m", lessons[i], "i7-7700");
            b->request.efficiency = learnt;
            assert_int_equal(
                estimate_learn(learnt, &b->request, EFFICIENCY_DECODE, 64, 64 * e->decode_s.mid, 1, &b->err),
                PH_OK);
        }
    static const char *const asked[] = {"Q4_K_M", "Q8_0", "Q6_K"};
    for (size_t i = 0; i < 3; i++) {
        b->request.efficiency = truth;
        double want = make(b, "tinyllama-1.1b", asked[i], "i7-7700")->decode_s.mid;
        b->request.efficiency = learnt;
        struct estimate *e = make(b, "tinyllama-1.1b", asked[i], "i7-7700");
        assert_true(fabs(e->decode_s.mid / want - 1) < 0.03);
        assert_true(e->calibrated && e->prior_share < 0.1);
        assert_true(e->decode_s.high / e->decode_s.low < 1.7);
    }
    struct estimate *other = make(b, "tinyllama-1.1b", "IQ4_XS", "i7-7700"); /* nobody measured that */
    assert_false(other->calibrated);
    assert_true(other->decode_s.high / other->decode_s.low > 1.7);
}

static void three_samples_make_a_row(void **state)
{
    (void)state;
    struct efficiency *e = mem_calloc(1, sizeof *e);
    struct ph_err err;
    const struct efficiency_part part = {"Q4_0", 1.0, 1.4};
    for (int i = 0; i < 3; i++) {
        assert_null(efficiency_find(e, "d", "Q4_0", EFFICIENCY_DECODE));
        assert_int_equal(efficiency_learn(e, "d", EFFICIENCY_DECODE, &part, 1, 2.0, 7, &err), PH_OK);
    }
    const struct efficiency_row *row = efficiency_find(e, "d", "Q4_0", EFFICIENCY_DECODE);
    assert_non_null(row);
    assert_true(fabs(row->ratio - 2) < 1e-9 && row->unix_s == 7);
    assert_null(efficiency_find(e, "d", "Q4_0", EFFICIENCY_PREFILL));
    assert_null(efficiency_find(e, "other", "Q4_0", EFFICIENCY_DECODE));
    mem_free(e);
}

static void the_file_is_checked(void **state)
{
    (void)state;
    struct efficiency *a = mem_calloc(1, sizeof *a), *b = mem_calloc(1, sizeof *b);
    struct ph_err err;
    struct buf text;
    const struct efficiency_part parts[] = {{"Q4_K", 1.0, 1.4}, {"Q6_K", 0.4, 1.4}};
    char path[] = "/tmp/pharos-efficiency-XXXXXX";
    close(mkstemp(path));
    unlink(path);
    assert_int_equal(efficiency_read(b, path, &err), PH_OK);
    assert_int_equal(b->count, 0);
    assert_int_equal(efficiency_learn(a, "a \"cpu\", 2 threads", EFFICIENCY_PREFILL, parts, 2, 1.7, 5, &err),
                     PH_OK);
    assert_int_equal(efficiency_write(a, path, &err), PH_OK);
    assert_int_equal(efficiency_read(b, path, &err), PH_OK);
    assert_memory_equal(a, b, sizeof *a);
    unlink(path);
    buf_init(&text, 1 << 20);
    efficiency_print(a, &text);
    for (size_t cut = 0; cut < text.len - 1; cut++) {
        enum ph_status status = efficiency_parse(b, "f", text.data, cut, &err);
        assert_int_not_equal(status, PH_OK);
        assert_non_null(strstr(err.message, "f: "));
    }
    static const char *const bad[] = {
        "{\"version\":2,\"rows\":[{\"device\":\"d\",\"type\":\"t\",\"phase\":\"decode\",\"ratio\":0,"
        "\"spread\":0,\"samples\":3,\"unix_s\":1}]}",
        "{\"version\":2,\"rows\":[{\"device\":\"d\",\"type\":\"t\",\"phase\":\"x\",\"ratio\":1,\"spread\":0,"
        "\"samples\":3,\"unix_s\":1}]}",
        "{\"version\":2,\"rows\":[{\"device\":\"d\\n\",\"type\":\"t\",\"phase\":\"decode\",\"ratio\":1,"
        "\"spread\":0,\"samples\":3,\"unix_s\":1}]}",
        "{\"version\":3,\"rows\":[]}",
        "[]",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(efficiency_parse(b, "f", bad[i], strlen(bad[i]), &err), PH_ERR_FORMAT);
    const char *old = "{\"version\":1,\"rows\":[{\"ratio\":\"meant something else\"}]}";
    assert_int_equal(efficiency_parse(b, "f", old, strlen(old), &err), PH_OK);
    assert_int_equal(b->count, 0);
    buf_release(&text);
    mem_free(a);
    mem_free(b);
}

/* Unpacking joins reading: of one that is much slower than the other nothing is added, of equals a quarter. */
static void unpacking_joins_reading(void **state)
{
    struct bench *b = *state;
    struct estimate_request *r = &b->request;
    r->prompt = 0;
    r->generate = 1;
    r->kv_type = TENSOR_F16;
    double read_s = make(b, "tinyllama-1.1b", "Q8_0", "i7-7700")->decode_s.mid;
    struct machine machine = b->machine;
    double bandwidth = machine.memory_bytes_per_s[machine.memory_points - 1];
    const struct {
        double share, low, high; /* unpacking's speed over reading's; time over that of reading alone */
    } cases[] = {{100, 0.70, 0.80}, {1, 0.88, 1.01}, {0.25, 2.7, 3.2}};
    for (size_t i = 0; i < 3; i++) {
        b->machine = machine;
        machine_set_gemv_rate(&b->machine, "Q8_0", cases[i].share * bandwidth / 34 * 32 * 2);
        struct estimate *e;
        assert_int_equal(estimate_make(&e, &b->arena, r, &b->err), PH_OK);
        double times = e->decode_s.mid / read_s; /* the prior of a measured row is 0.95, else 0.70 */
        assert_true(times > cases[i].low && times < cases[i].high);
    }
}

/* ---- Claims */

static char *check(struct bench *b, const char *text, struct buf *out)
{
    buf_init(out, 1 << 20);
    assert_int_equal(estimate_check(b->data, &b->arena, "claims", text, strlen(text), false, out, &b->err),
                     PH_OK);
    return out->data;
}

#define CLAIM(model_, type_, hardware_, low_, high_)                                  \
    "claims:\n  - {name: c, model: " model_ ", type: " type_ ", hardware: " hardware_ \
    ", quantity: decode_tokens_per_s, low: " low_ ", high: " high_ "}\n"

static void claims_are_judged(void **state)
{
    struct bench *b = *state;
    const struct {
        const char *text, *verdict;
    } cases[] = {
        {CLAIM("llama-3.3-70b", "Q4_K_M", "desktop", "30", "40"), "tokens/s: impossible"},
        {CLAIM("llama-3.3-70b", "Q4_K_M", "desktop", "2", "2.5"), "tokens/s: plausible"},
        {CLAIM("llama-3.3-70b", "Q4_K_M", "desktop", "3", "9"), "partly impossible"},
        {CLAIM("llama-3.3-70b", "Q4_K_M", "desktop", "3.55", "3.58"), "optimistic"},
        {CLAIM("llama-3.2-1b", "Q4_K_M", "gtx-1650", "10", "15"), "too modest"},
        {CLAIM("llama-3.3-70b", "F16", "rtx-4090", "1", "2"), "does not fit"},
        {"claims:\n  - {name: c, quantity: latency_ms, low: 0.1, high: 0.1, assumed: {low: 0.5, high: 1}}\n",
         "impossible"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf out;
        if (!strstr(check(b, cases[i].text, &out), cases[i].verdict))
            fail_msg("case %zu: %s not in:\n%s", i, cases[i].verdict, out.data);
        buf_release(&out);
    }
}

static void reviewers_slips_are_named(void **state)
{
    struct bench *b = *state;
    struct buf out;
    char *text =
        check(b,
              "claims:\n  - {name: c, model: llama-3.3-70b, hardware: desktop, quantity: "
              "decode_tokens_per_s, low: 30,\n"
              "     high: 40, review: {low: 8, high: 15, physics: 1.76, gb_per_s: 51.2, streams: 8}}\n",
              &out);
    assert_non_null(strstr(text, "one channel of 2"));
    assert_non_null(strstr(text, "sum of 8 streams"));
    assert_non_null(strstr(text, "contradicts itself"));
    buf_release(&out);
    static const char bad[] = "claims:\n  - {name: c, quantity: decode_tokens_per_s, low: 1}\n";
    assert_int_equal(estimate_check(b->data, &b->arena, "f", bad, strlen(bad), false, &out, &b->err),
                     PH_ERR_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(shapes_have_every_dimension, begin, end),
        cmocka_unit_test_setup_teardown(names_are_forgiving, begin, end),
        cmocka_unit_test_setup_teardown(sums_are_their_parts_anywhere, begin, end),
        cmocka_unit_test_setup_teardown(keys_and_values_are_known, begin, end),
        cmocka_unit_test_setup_teardown(what_fits_is_not_split, begin, end),
        cmocka_unit_test_setup_teardown(experts_are_touched_as_chance_has_it, begin, end),
        cmocka_unit_test_setup_teardown(drafts_pay_when_they_are_cheap, begin, end),
        cmocka_unit_test_setup_teardown(users_bring_their_own, begin, end),
        cmocka_unit_test_setup_teardown(learning_finds_the_shares, begin, end),
        cmocka_unit_test(three_samples_make_a_row),
        cmocka_unit_test(the_file_is_checked),
        cmocka_unit_test_setup_teardown(unpacking_joins_reading, begin, end),
        cmocka_unit_test_setup_teardown(claims_are_judged, begin, end),
        cmocka_unit_test_setup_teardown(reviewers_slips_are_named, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
