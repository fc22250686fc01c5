/* Any bytes as shapes, hardware, claims and calibration; whatever is accepted must give sheets that add up. The
 * first byte says as what. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "ops/estimate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void check_sums(const struct estimate_sheet *sheet)
{
    for (size_t i = 0; i < sheet->count; i++) {
        const struct estimate_line *sum = &sheet->lines[i];
        uint64_t total = 0;
        for (size_t k = i + 1; k < sheet->count && sheet->lines[k].depth > sum->depth; k++)
            if (sheet->lines[k].depth == sum->depth + 1 && sheet->lines[k].kind != LINE_NOTE)
                total += sheet->lines[k].value;
        require(sum->kind != LINE_SUM || total == sum->value);
    }
}

static void estimate_each(const struct estimate_data *data, struct arena *arena, struct buf *out)
{
    static const char *const types[] = {"Q4_K_M", "F32", "INT4"};
    struct machine *machine = arena_alloc(arena, sizeof *machine);
    const char *shape = estimate_shape_name(data, 0), *hardware = estimate_hardware_name(data, 0);
    for (size_t i = 0; machine && shape && hardware && i < 3; i++) {
        struct estimate_model model;
        struct estimate_request request;
        struct estimate *e;
        estimate_request_default(&request);
        request.model = &model;
        request.machine = machine;
        request.streams = 3;
        if (estimate_model_shape(&model, arena, data, shape, types[i], NULL) != PH_OK ||
            estimate_machine(data, hardware, machine, NULL) != PH_OK ||
            estimate_make(&e, arena, &request, NULL) != PH_OK)
            continue;
        check_sums(&e->memory);
        check_sums(&e->prefill);
        check_sums(&e->decode);
        estimate_print(&request, e, true, out);
        estimate_print_json(&request, e, out);
    }
}

static void claims(const char *text, size_t len, struct arena *arena, struct buf *out)
{
    struct estimate_data *data;
    require(estimate_data_open(&data, arena, &(struct estimate_files){0}, NULL) == PH_OK);
    if (estimate_check(data, arena, "fuzz", text, len, true, out, NULL) == PH_OK) {
        struct json *json;
        require(json_parse(arena, out->data, out->len, &json, NULL) == PH_OK);
    }
}

static void calibration(const char *text, size_t len)
{
    struct efficiency *a = mem_calloc(1, sizeof *a), *b = mem_calloc(1, sizeof *b);
    struct buf out;
    buf_init(&out, 1 << 24);
    if (a && b && efficiency_parse(a, "fuzz", text, len, NULL) == PH_OK) {
        efficiency_print(a, &out);
        require(efficiency_parse(b, "fuzz", out.data, out.len, NULL) == PH_OK && a->count == b->count);
    }
    buf_release(&out);
    mem_free(a);
    mem_free(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char shape[] =
        "shapes:\n  s: {layers: 2, width: 64, heads: 2, kv_heads: 1, head_dim: 32, ffn: 64, vocab: 99}\n";
    static const char hardware[] =
        "machines:\n  m: {cpu: C, threads: 2, memory_gib: 1, gb_per_s: 10, f32: 0.1}\n";
    struct arena arena;
    struct estimate_data *parsed;
    struct buf out;
    if (size == 0)
        return 0;
    const char *text = (const char *)data + 1;
    size_t len = size - 1;
    arena_init(&arena, ESTIMATE_ARENA_BYTES_MAX);
    buf_init(&out, (size_t)64 << 20);
    if (data[0] == 's' &&
        estimate_data_parse(&parsed, &arena, text, len, hardware, strlen(hardware), NULL) == PH_OK)
        estimate_each(parsed, &arena, &out);
    else if (data[0] == 'h' &&
             estimate_data_parse(&parsed, &arena, shape, strlen(shape), text, len, NULL) == PH_OK)
        estimate_each(parsed, &arena, &out);
    else if (data[0] == 'c')
        claims(text, len, &arena, &out);
    else if (data[0] == 'k')
        calibration(text, len);
    buf_release(&out);
    arena_release(&arena);
    return 0;
}
