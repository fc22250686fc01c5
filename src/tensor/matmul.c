/* The driver of matrix products: makes the forms the kernels read, shares the weight rows out, waits.
 *
 * All products of a step are cut into grains, which lie in one row and are shared out in one loop. A grain
 * of decode is a few rows, about as many bytes in every matrix; lanes take long runs of them first, which
 * stream from memory undisturbed, and single ones last, so that they end together. A grain of prefill is so
 * much work that each is taken by itself. Where a run begins never changes a result (T1): kernels compute
 * each weight row by itself or in tiles whose rows do not mix. */
#include "tensor/act_int.h"
#include "tensor/pool_int.h"

#include <assert.h>

#define DECODE_GRAIN_BYTES ((size_t)8 << 10)
#define PREFILL_GRAIN_ROWS 256
#define GRAINS_PER_LANE 4

struct share {
    struct mm_job job;
    size_t grain_rows, grains;
};

static size_t grain_rows(const struct matrix *w, const struct mm_kernel *kernel, enum phase phase,
                         unsigned lanes)
{
    size_t row_bytes = tensor_row_bytes(w->type, w->cols);
    size_t most = phase == PHASE_PREFILL ? PREFILL_GRAIN_ROWS : DECODE_GRAIN_BYTES / (row_bytes + 1) + 1;
    size_t fair = w->rows / ((size_t)lanes * GRAINS_PER_LANE) + 1;
    size_t rows = most < fair ? most : fair;
    return (rows + kernel->tile - 1) / kernel->tile * kernel->tile;
}

static struct share make_share(const struct lane *lane, const struct matmul *matmul, const struct act *x,
                               enum phase phase)
{
    const struct matrix *w = &matmul->w;
    assert((unsigned)w->type < FORMAT_TYPES && w->cols == x->d && matmul->y_stride >= w->rows);
    const struct mm_kernel *kernels = phase == PHASE_PREFILL ? lane->kernels->prefill : lane->kernels->decode;
    const struct mm_kernel *kernel = &kernels[w->type];
    assert(kernel->run);
    size_t rows = grain_rows(w, kernel, phase, lane->count);
    return (struct share){.job = {.w = w,
                                  .x = x,
                                  .y = matmul->y,
                                  .y_stride = matmul->y_stride,
                                  .panel = lane->panel,
                                  .kernel = kernel},
                          .grain_rows = rows,
                          .grains = (w->rows + rows - 1) / rows};
}

/* Grains [first, end) of the row in which the shares' grains lie. */
static void run_grains(const struct share *share, size_t first, size_t end)
{
    for (; end > 0; share++) {
        size_t here = end < share->grains ? end : share->grains;
        if (first < here) {
            size_t row_end = here * share->grain_rows, rows = share->job.w->rows;
            share->job.kernel->run(&share->job, first * share->grain_rows, row_end < rows ? row_end : rows);
        }
        first = first > here ? first - here : 0;
        end -= here;
    }
}

void tensor_matmuls(struct lane *lane, const struct matmul *matmuls, size_t count, struct act *x,
                    enum phase phase)
{
    struct share shares[MATMULS_MAX];
    size_t grains = 0, first, end;
    uint32_t forms = 0;
    assert(count <= MATMULS_MAX);
    for (size_t i = 0; i < count; i++) {
        shares[i] = make_share(lane, &matmuls[i], x, phase);
        forms |= shares[i].job.kernel->forms;
        grains += shares[i].grains;
    }
    act_prepare(lane, x, forms);
    while (phase == PHASE_PREFILL ? lane_take(lane, grains, 1, &first, &end)
                                  : lane_take_tapered(lane, grains, &first, &end))
        run_grains(shares, first, end);
    lane_barrier(lane);
}

void tensor_matmul(struct lane *lane, const struct matrix *w, struct act *x, float *y, size_t y_stride,
                   enum phase phase)
{
    tensor_matmuls(lane, &(struct matmul){*w, y, y_stride}, 1, x, phase);
}
