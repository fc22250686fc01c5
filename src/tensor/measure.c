/* The machine's limits, measured: every lane runs the kernel set's loop of pure arithmetic, or reads its
 * share of a buffer, for about the time asked for; the rate is work done by all lanes over the time from
 * start to the last. */
#include <stdatomic.h>
#include <uv.h>

#include "base/mem.h"
#include "tensor/kernels_int.h"
#include "tensor/pool_int.h"

#define ROUNDS_AT_ONCE 10000u
#define READ_AT_ONCE ((size_t)1 << 20)

struct measurement {
    uint64_t (*loop)(uint64_t rounds);
    uint64_t (*read)(const void *data, size_t bytes);
    const uint8_t *buffer;
    size_t bytes;
    uint64_t deadline_ns;
    _Atomic uint64_t work;
    _Atomic uint64_t sink; /* what was read must look used */
};

static void lane_compute(struct lane *lane, void *ud)
{
    struct measurement *m = ud;
    (void)lane;
    uint64_t done = 0;
    do
        done += m->loop(ROUNDS_AT_ONCE);
    while (uv_hrtime() < m->deadline_ns);
    atomic_fetch_add(&m->work, done);
}

static void lane_read(struct lane *lane, void *ud)
{
    struct measurement *m = ud;
    size_t share = m->bytes / lane->count / READ_AT_ONCE * READ_AT_ONCE, at = 0;
    const uint8_t *mine = m->buffer + share * lane->index;
    uint64_t done = 0, sink = 0;
    do {
        sink += m->read(mine + at, READ_AT_ONCE);
        done += READ_AT_ONCE;
        at = at + READ_AT_ONCE < share ? at + READ_AT_ONCE : 0;
    } while (uv_hrtime() < m->deadline_ns);
    atomic_fetch_add(&m->work, done);
    atomic_fetch_add(&m->sink, sink);
}

static double measure(struct pool *pool, struct measurement *m, void (*fn)(struct lane *lane, void *ud),
                      double seconds)
{
    uint64_t start = uv_hrtime();
    m->deadline_ns = start + (uint64_t)(seconds * 1e9);
    pool_run(pool, fn, m);
    return (double)atomic_load(&m->work) / ((double)(uv_hrtime() - start) * 1e-9);
}

static double measure_loop(struct pool *pool, uint64_t (*loop)(uint64_t rounds), double seconds)
{
    struct measurement m = {.loop = loop};
    return loop ? measure(pool, &m, lane_compute, seconds) : 0.0;
}

struct touch {
    uint8_t *buffer;
    size_t bytes;
};

static void lane_touch(struct lane *lane, void *ud)
{
    struct touch *t = ud;
    size_t share = t->bytes / lane->count;
    memset(t->buffer + share * lane->index, (int)lane->index + 1, share);
}

double tensor_measure_read_bandwidth(struct pool *pool, size_t bytes, double seconds)
{
    size_t least = READ_AT_ONCE * pool_lanes(pool);
    bytes = bytes > least ? bytes : least;
    struct touch touch = {mem_alloc(bytes), bytes};
    if (!touch.buffer)
        return 0.0;
    pool_run(pool, lane_touch, &touch); /* real pages, near the lane that will read them */
    struct measurement m = {.read = pool_kernels(pool)->peak->read, .buffer = touch.buffer, .bytes = bytes};
    double rate = measure(pool, &m, lane_read, seconds);
    mem_free(touch.buffer);
    return rate;
}

double tensor_measure_peak_f32(struct pool *pool, double seconds)
{
    return measure_loop(pool, pool_kernels(pool)->peak->f32, seconds);
}

double tensor_measure_peak_bf16(struct pool *pool, double seconds)
{
    return measure_loop(pool, pool_kernels(pool)->peak->bf16, seconds);
}

double tensor_measure_peak_int8(struct pool *pool, double seconds)
{
    return measure_loop(pool, pool_kernels(pool)->peak->int8, seconds);
}
