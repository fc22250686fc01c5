#include "template_bench.h"

#include "test_support.h"

static int64_t fixed_now(void *ud)
{
    return *(const int64_t *)ud;
}

void bench_init(struct bench *bench)
{
    *bench = (struct bench){.now_ms = 1767265445000};
    bench->clock = (struct clock_source){.unix_ms = fixed_now, .ud = &bench->now_ms};
    arena_init(&bench->arena, 64 << 20);
    buf_init(&bench->out, 64 << 20);
}

void bench_release(struct bench *bench)
{
    buf_release(&bench->out);
    arena_release(&bench->arena);
}

enum ph_status bench_render_json(struct bench *bench, const char *source, size_t len, const struct json *vars)
{
    struct chat_template *chat_template = NULL;
    bench->err = (struct ph_err){0};
    buf_clear(&bench->out);
    enum ph_status status = chat_template_create(&chat_template, source, len, &bench->err);
    if (status == PH_OK)
        status = chat_template_render(chat_template, vars, &bench->clock, &bench->out, &bench->err);
    chat_template_free(chat_template);
    if (status != PH_OK)
        assert_true(bench->err.message[0] != '\0');
    return status;
}

enum ph_status bench_render(struct bench *bench, const char *source, const char *vars)
{
    struct json *json = NULL;
    assert_int_equal(json_parse(&bench->arena, vars, strlen(vars), &json, NULL), PH_OK);
    return bench_render_json(bench, source, strlen(source), json);
}

const char *bench_text(const struct bench *bench)
{
    return bench->out.len ? bench->out.data : "";
}
