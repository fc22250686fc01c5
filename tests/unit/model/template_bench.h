/* What the tests of chat templates share: rendering a source with JSON variables at a fixed time. */
#ifndef PHAROS_TESTS_TEMPLATE_BENCH_H
#define PHAROS_TESTS_TEMPLATE_BENCH_H

#include "model/model.h"

struct bench {
    struct arena arena; /* of the variables */
    struct buf out;
    struct ph_err err;
    int64_t now_ms;
    struct clock_source clock;
};

void bench_init(struct bench *bench);
void bench_release(struct bench *bench);
/* A failure must have left a message. */
enum ph_status bench_render_json(struct bench *bench, const char *source, size_t len,
                                 const struct json *vars);
enum ph_status bench_render(struct bench *bench, const char *source, const char *vars);
const char *bench_text(const struct bench *bench);

#endif
