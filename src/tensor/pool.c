/* Worker pool: every lane runs the same function; lanes meet at barriers and share loops out on demand.
 *
 * Barrier. The last lane to arrive opens the next generation; the others watch the generation counter, first
 * spinning, then asleep on a condition variable. How long to spin is learned: a wait that ended while
 * spinning lengthens the budget, one that had to sleep shortens it, so that a quiet machine never pays for a
 * wake-up and a busy one is not fought for its cores. It never falls below what a wake-up costs, which is
 * longer than the ordinary waits of a step: else a moment's disturbance would leave every one of them to
 * sleep, and none would be left to lengthen the budget again. With more lanes than CPUs spinning can only
 * hold up the lane that is waited for, so there is none.
 *
 * Shared loops. One 64-bit word holds the number of the loop in progress and how much of it is taken. A lane
 * that comes to a loop first opens it by raising the number; a lane that comes late and finds a higher number
 * knows that its loop was used up, because a lane moves on only when nothing is left. So one word serves any
 * number of loops without a barrier between them.
 *
 *  P1  A lane raises the loop number from r to r + 1 only after loop r was exhausted.
 *  P2  `fn` and `ud` are written before the barrier that starts a run and read after it. */
#include <assert.h>
#include <stdatomic.h>
#include <uv.h>

#include "base/mem.h"
#include "tensor/pool_int.h"

#define SPIN_MAX 20000u /* pauses: of the order of 0.3 ms */
#define SPIN_MIN 512u   /* of the order of 25 us */
#define LANES_MAX 1024u

struct pool {
    _Alignas(MEM_CACHE_LINE) _Atomic uint64_t loop; /* loop number << 32 | elements taken */
    _Alignas(MEM_CACHE_LINE) _Atomic uint32_t generation;
    _Atomic uint32_t sleepers;
    _Alignas(MEM_CACHE_LINE) _Atomic uint32_t arrived;
    _Alignas(MEM_CACHE_LINE) _Atomic uint32_t spin_budget;
    unsigned count;
    unsigned started; /* threads running, for a clean end after a failed start */
    uint32_t spin_max;
    void (*fn)(struct lane *lane, void *ud);
    void *ud;
    uv_mutex_t mutex;
    uv_cond_t opened;
    struct lane *lanes;
    uv_thread_t *threads; /* [count - 1], lane i runs on threads[i - 1] */
    uint8_t *scratch;
};

static void cpu_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static bool spin_until_opened(struct pool *pool, uint32_t generation)
{
    uint32_t budget = atomic_load_explicit(&pool->spin_budget, memory_order_relaxed);
    for (uint32_t i = 0; i < budget; i++) {
        if (atomic_load_explicit(&pool->generation, memory_order_acquire) != generation) {
            uint32_t longer = budget + budget / 8 + 1;
            atomic_store_explicit(&pool->spin_budget, longer < pool->spin_max ? longer : pool->spin_max,
                                  memory_order_relaxed);
            return true;
        }
        cpu_pause();
    }
    uint32_t shorter = budget / 2 > SPIN_MIN ? budget / 2 : SPIN_MIN;
    atomic_store_explicit(&pool->spin_budget, pool->spin_max ? shorter : 0, memory_order_relaxed);
    return false;
}

static void sleep_until_opened(struct pool *pool, uint32_t generation)
{
    uv_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleepers, 1);
    while (atomic_load(&pool->generation) == generation)
        uv_cond_wait(&pool->opened, &pool->mutex);
    atomic_fetch_sub(&pool->sleepers, 1);
    uv_mutex_unlock(&pool->mutex);
}

static void open_next_generation(struct pool *pool)
{
    atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
    atomic_fetch_add(&pool->generation, 1);
    if (atomic_load(&pool->sleepers) == 0) /* a sleeper counts itself before it looks at the generation */
        return;
    uv_mutex_lock(&pool->mutex);
    uv_cond_broadcast(&pool->opened);
    uv_mutex_unlock(&pool->mutex);
}

void lane_barrier(struct lane *lane)
{
    struct pool *pool = lane->pool;
    if (pool->count == 1)
        return;
    uint32_t generation = atomic_load_explicit(&pool->generation, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&pool->arrived, 1, memory_order_acq_rel) + 1 == pool->count)
        open_next_generation(pool);
    else if (!spin_until_opened(pool, generation))
        sleep_until_opened(pool, generation);
}

/* Takes `least` elements, or the `part`th part of what is left where that is more. */
static bool take(struct lane *lane, size_t total, size_t least, size_t part, size_t *first, size_t *end)
{
    struct pool *pool = lane->pool;
    assert(least > 0 && total < UINT32_MAX);
    uint64_t seen = atomic_load_explicit(&pool->loop, memory_order_relaxed);
    for (;;) {
        int32_t ahead = (int32_t)((uint32_t)(seen >> 32) - lane->round);
        size_t taken = ahead < 0 ? 0 : (uint32_t)seen;
        if (ahead > 0 || taken >= total) {
            lane->round++; /* P1 */
            return false;
        }
        size_t left = total - taken, wanted = left / part > least ? left / part : least;
        *first = taken;
        *end = taken + (wanted < left ? wanted : left);
        uint64_t next = (uint64_t)lane->round << 32 | *end;
        if (atomic_compare_exchange_weak_explicit(&pool->loop, &seen, next, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    }
}

bool lane_take(struct lane *lane, size_t total, size_t chunk, size_t *first, size_t *end)
{
    return take(lane, total, chunk, SIZE_MAX, first, end);
}

bool lane_take_tapered(struct lane *lane, size_t total, size_t *first, size_t *end)
{
    return take(lane, total, 1, 2 * (size_t)lane->count, first, end);
}

/* ---- Runs ---- */

static void worker_main(void *ud)
{
    struct lane *lane = ud;
    for (;;) {
        lane_barrier(lane); /* a run begins, or the pool ends */
        if (!lane->pool->fn)
            return;
        lane->pool->fn(lane, lane->pool->ud);
        lane_barrier(lane);
    }
}

void pool_run(struct pool *pool, void (*fn)(struct lane *lane, void *ud), void *ud)
{
    pool->fn = fn;
    pool->ud = ud;
    lane_barrier(&pool->lanes[0]);
    fn(&pool->lanes[0], ud);
    lane_barrier(&pool->lanes[0]);
}

unsigned pool_lanes(const struct pool *pool)
{
    return pool->count;
}

const struct kernels *pool_kernels(const struct pool *pool)
{
    return pool->lanes[0].kernels;
}

/* ---- Life ---- */

static enum ph_status pool_start(struct pool *pool, struct ph_err *err)
{
    for (unsigned i = 1; i < pool->count; i++) {
        int rc = uv_thread_create(&pool->threads[i - 1], worker_main, &pool->lanes[i]);
        if (rc != 0)
            return ph_fail(err, PH_ERR_IO, "cannot start worker thread %u of %u: %s; ask for fewer threads",
                           i, pool->count - 1, uv_strerror(rc));
        pool->started++;
    }
    return PH_OK;
}

/* Of one lane; scratch_bytes is at most SIZE_MAX / 2 / LANES_MAX. */
static size_t lane_bytes(size_t scratch_bytes)
{
    return (scratch_bytes + MEM_CACHE_LINE - 1) / MEM_CACHE_LINE * MEM_CACHE_LINE + POOL_PANEL_BYTES;
}

size_t pool_scratch_bytes(unsigned lanes, size_t scratch_bytes)
{
    return lanes * lane_bytes(scratch_bytes);
}

static bool pool_allocate(struct pool *pool, size_t scratch_bytes, const struct kernels *kernels)
{
    if (scratch_bytes > SIZE_MAX / 2 / LANES_MAX - POOL_PANEL_BYTES - MEM_CACHE_LINE)
        return false;
    size_t each = lane_bytes(scratch_bytes);
    pool->lanes = mem_calloc(pool->count, sizeof *pool->lanes);
    pool->threads = mem_calloc(pool->count, sizeof *pool->threads);
    pool->scratch = mem_alloc_aligned(4096, each * pool->count);
    if (!pool->lanes || !pool->threads || !pool->scratch)
        return false;
    for (unsigned i = 0; i < pool->count; i++)
        pool->lanes[i] = (struct lane){.pool = pool,
                                       .kernels = kernels,
                                       .index = i,
                                       .count = pool->count,
                                       .panel = pool->scratch + each * i,
                                       .scratch = pool->scratch + each * i + POOL_PANEL_BYTES};
    return true;
}

enum ph_status pool_create(struct pool **out, unsigned lanes, size_t scratch_bytes,
                           const struct kernels *kernels, struct ph_err *err)
{
    unsigned cpus = uv_available_parallelism();
    struct pool *pool = mem_alloc_aligned(MEM_CACHE_LINE, sizeof *pool);
    enum ph_status status = PH_OK;
    *out = NULL;
    if (!pool)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a worker pool");
    pool->count = lanes ? lanes : cpus;
    pool->spin_max = pool->count <= cpus ? SPIN_MAX : 0;
    atomic_store(&pool->spin_budget, pool->spin_max);
    uv_mutex_init(&pool->mutex);
    uv_cond_init(&pool->opened);
    if (pool->count > LANES_MAX)
        status =
            ph_fail(err, PH_ERR_LIMIT, "%u worker threads asked for; the most is %u", pool->count, LANES_MAX);
    else if (!pool_allocate(pool, scratch_bytes, kernels))
        status = ph_fail(err, PH_ERR_NOMEM, "no memory for the scratch of %u workers (%zu bytes each)",
                         pool->count, scratch_bytes);
    else
        status = pool_start(pool, err);
    if (status != PH_OK)
        pool_free(pool);
    else
        *out = pool;
    return status;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    if (pool->started > 0) {
        pool->fn = NULL;
        atomic_fetch_add(&pool->arrived, pool->count - 1 - pool->started); /* for those that never started */
        lane_barrier(&pool->lanes[0]);
    }
    for (unsigned i = 0; i < pool->started; i++)
        uv_thread_join(&pool->threads[i]);
    uv_cond_destroy(&pool->opened);
    uv_mutex_destroy(&pool->mutex);
    mem_free(pool->scratch);
    mem_free(pool->threads);
    mem_free(pool->lanes);
    mem_free(pool);
}
