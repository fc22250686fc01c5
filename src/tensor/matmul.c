/* The driver of matrix products: makes the forms the kernel reads, shares the weight rows out, waits.
 *
 * Chunks are sized so that a lane takes many of them (a slow lane then holds nobody up for long) and each is
 * long enough that its rows stream from memory undisturbed. Where a chunk begins never changes a result (T1):
 * kernels compute each weight row by itself or in tiles whose rows do not mix. */
#include "tensor/act_int.h"
#include "tensor/pool_int.h"

#include <assert.h>

#define DECODE_CHUNK_BYTES ((size_t)64 << 10)
#define PREFILL_CHUNK_ROWS 256
#define CHUNKS_PER_LANE 4

static size_t chunk_rows(const struct matrix *w, const struct mm_kernel *kernel, enum phase phase,
                         unsigned lanes)
{
    size_t row_bytes = tensor_row_bytes(w->type, w->cols);
    size_t most = phase == PHASE_PREFILL ? PREFILL_CHUNK_ROWS : DECODE_CHUNK_BYTES / (row_bytes + 1) + 1;
    size_t fair = w->rows / ((size_t)lanes * CHUNKS_PER_LANE) + 1;
    size_t rows = most < fair ? most : fair;
    return (rows + kernel->tile - 1) / kernel->tile * kernel->tile;
}

void tensor_matmul(struct lane *lane, const struct matrix *w, struct act *x, float *y, size_t y_stride,
                   enum phase phase)
{
    assert((unsigned)w->type < FORMAT_TYPES && w->cols == x->d && y_stride >= w->rows);
    const struct kernels *k = lane->kernels;
    const struct mm_kernel *kernel = phase == PHASE_PREFILL ? &k->prefill[w->type] : &k->decode[w->type];
    assert(kernel->run);
    act_prepare(lane, x, kernel->forms);
    struct mm_job job = {
        .w = w, .x = x, .y = y, .y_stride = y_stride, .panel = lane->panel, .kernel = kernel};
    size_t chunk = chunk_rows(w, kernel, phase, lane->count), first, end;
    while (lane_take(lane, w->rows, chunk, &first, &end))
        kernel->run(&job, first, end);
    lane_barrier(lane);
}
