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
#define ROW_LEN 2048
#define ROW_TRIES 3
#define CACHED_BYTES_A_LANE ((size_t)1 << 20)

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

/* ---- Reading */

struct read_buffer {
    uint8_t *data;
    size_t bytes;
};

static void lane_touch(struct lane *lane, void *ud)
{
    const struct read_buffer *b = ud;
    size_t share = b->bytes / lane->count;
    memset(b->data + share * lane->index, (int)lane->index + 1, share);
}

struct read_buffer *tensor_read_buffer_create(struct pool *pool, size_t bytes)
{
    size_t least = READ_AT_ONCE * pool_lanes(pool);
    struct read_buffer *buffer = mem_calloc(1, sizeof *buffer);
    if (!buffer)
        return NULL;
    buffer->bytes = bytes > least ? bytes : least;
    buffer->data = mem_alloc(buffer->bytes);
    if (!buffer->data) {
        mem_free(buffer);
        return NULL;
    }
    pool_run(pool, lane_touch, buffer); /* real pages, near the lane that will read them */
    return buffer;
}

void tensor_read_buffer_free(struct read_buffer *buffer)
{
    if (buffer)
        mem_free(buffer->data);
    mem_free(buffer);
}

double tensor_measure_read(struct pool *pool, const struct read_buffer *buffer, double seconds)
{
    struct measurement m = {
        .read = pool_kernels(pool)->peak->read, .buffer = buffer->data, .bytes = buffer->bytes};
    return measure(pool, &m, lane_read, seconds);
}

double tensor_measure_read_bandwidth(struct pool *pool, size_t bytes, double seconds)
{
    struct read_buffer *buffer = tensor_read_buffer_create(pool, bytes);
    double rate = buffer ? tensor_measure_read(pool, buffer, seconds) : 0;
    tensor_read_buffer_free(buffer);
    return rate;
}

/* ---- Arithmetic */

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

/* ---- Products with one row */

struct gemv {
    struct matrix matrix;
    const float *x;
    float *y;
    void *workspace;
    double seconds;
    uint64_t start_ns;
    _Atomic bool is_over;
    uint64_t times; /* of lane 0; all do as many */
};

static void lane_multiply(struct lane *lane, void *ud)
{
    struct gemv *p = ud;
    struct act act;
    act_init(&act, p->x, 1, p->matrix.cols, p->workspace);
    while (!atomic_load(&p->is_over)) {
        act.ready = 0; /* as in a model: every product has new inputs */
        tensor_matmul(lane, &p->matrix, &act, p->y, p->matrix.rows, PHASE_DECODE);
        if (lane->index == 0) {
            p->times++;
            atomic_store(&p->is_over, (double)(uv_hrtime() - p->start_ns) * 1e-9 >= p->seconds);
        }
        lane_barrier(lane);
    }
}

static double time_gemv(struct pool *pool, struct gemv *p, double seconds)
{
    p->seconds = 0; /* once, so that caches hold the weights */
    pool_run(pool, lane_multiply, p);
    p->seconds = seconds / ROW_TRIES;
    double best = 0, ops = 2.0 * (double)p->matrix.rows * (double)p->matrix.cols;
    for (int i = 0; i < ROW_TRIES; i++) { /* others only ever slow us down */
        p->times = 0;
        atomic_store(&p->is_over, false);
        p->start_ns = uv_hrtime();
        pool_run(pool, lane_multiply, p);
        double rate = ops * (double)p->times / ((double)(uv_hrtime() - p->start_ns) * 1e-9);
        best = rate > best ? rate : best;
    }
    return best;
}

double tensor_measure_gemv(struct pool *pool, enum tensor_type type, double seconds)
{
    size_t row_bytes = tensor_row_bytes(type, ROW_LEN);
    size_t rows = (CACHED_BYTES_A_LANE * pool_lanes(pool) + row_bytes - 1) / row_bytes;
    uint8_t *weights = mem_alloc(rows * row_bytes);
    float *x = mem_calloc(ROW_LEN, sizeof *x), *y = mem_calloc(rows, sizeof *y);
    void *workspace = mem_alloc_aligned(MEM_CACHE_LINE, act_workspace_bytes(1, ROW_LEN));
    double rate = 0;
    if (weights && x && y && workspace) {
        for (size_t i = 0; i < ROW_LEN; i++)
            x[i] = (float)((i * 37 + 11) % 64) / 64.0f - 0.5f;
        tensor_quantize(type, x, weights, ROW_LEN);
        for (size_t i = 1; i < rows; i++) /* one row many times: quantising takes long */
            memcpy(weights + i * row_bytes, weights, row_bytes);
        struct gemv p = {.matrix = {type, rows, ROW_LEN, weights}, .x = x, .y = y, .workspace = workspace};
        rate = time_gemv(pool, &p, seconds);
    }
    mem_free(weights);
    mem_free(x);
    mem_free(y);
    mem_free(workspace);
    return rate;
}
