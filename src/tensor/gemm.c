/* Prefill: the loops around a kernel set's unpack and multiply.
 *
 * A lane takes up to TASK_ROWS weight rows. For each stretch of inputs it unpacks a panel of them
 * (which then lies in the nearest cache) and multiplies it with all input rows, GROUPS_AT_ONCE groups
 * at a time, whose stretch stays in the second-level cache while the panels go by. Sums live in the
 * lane's scratch until the last stretch and are then written out, transposed.
 *
 * The order of additions for one element is: stretches in order, and within a stretch whatever
 * `multiply` does for one row and one lane of a vector, which does not depend on its neighbours (T1). */
#include <assert.h>

#include "tensor/kernels_int.h"
#include "tensor/pool_int.h"

#define TASK_ROWS ((size_t)256)
#define GROUPS_AT_ONCE ((size_t)32)
#define SUMS_BYTES (TASK_ROWS * GROUPS_AT_ONCE * TILE_ROWS * sizeof(float))

_Static_assert(SUMS_BYTES <= POOL_PANEL_BYTES / 2, "sums and a panel share the lane's scratch");

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* y [n][rows] from sums [row][TILE_ROWS] of one group */
static void write_group(const struct mm_job *job, const float *sums, size_t row, size_t rows, size_t group)
{
    size_t columns = smaller(job->x->n - group * TILE_ROWS, TILE_ROWS);
    for (size_t c = 0; c < columns; c++) {
        float *y = job->y + (group * TILE_ROWS + c) * job->y_stride + row;
        for (size_t r = 0; r < rows; r++)
            y[r] = sums[r * TILE_ROWS + c];
    }
}

static void run_groups(const struct mm_job *job, size_t first, size_t end, size_t group, size_t groups)
{
    const struct gemm *g = job->gemm;
    float *sums = (float *)(void *)job->panel;
    void *panel = job->panel + SUMS_BYTES;
    size_t panel_sums = g->panel_rows * TILE_ROWS * groups;
    size_t panels = (end - first + g->panel_rows - 1) / g->panel_rows;
    struct gemm_part part = {.panel = panel, .d = job->w->cols, .groups = groups};
    for (size_t i = 0; i < 2; i++) {
        part.inputs[i] = act_view(job->x, g->forms[i]);
        part.inputs[i].data += group * part.inputs[i].stride;
    }
    memset(sums, 0, panels * panel_sums * sizeof *sums);
    for (part.from = 0; part.from < part.d; part.from += part.len) {
        part.len = smaller(part.d - part.from, g->depth);
        for (size_t p = 0; p < panels; p++) {
            size_t row = first + p * g->panel_rows;
            g->unpack(job->w, row, smaller(end - row, g->panel_rows), part.from, part.len, panel);
            part.sums = sums + p * panel_sums;
            g->multiply(&part);
        }
    }
    for (size_t p = 0; p < panels; p++) {
        size_t row = first + p * g->panel_rows;
        for (size_t i = 0; i < groups; i++)
            write_group(job, sums + p * panel_sums + i * g->panel_rows * TILE_ROWS, row,
                        smaller(end - row, g->panel_rows), group + i);
    }
}

void gemm_run(const struct mm_job *job, size_t first, size_t end)
{
    const struct gemm *g = job->gemm;
    assert(TASK_ROWS % g->panel_rows == 0 &&
           (size_t)g->panel_rows * g->depth * g->element_bytes <= POOL_PANEL_BYTES - SUMS_BYTES);
    size_t groups = (job->x->n + TILE_ROWS - 1) / TILE_ROWS;
    if (g->begin)
        g->begin();
    for (size_t row = first; row < end; row += TASK_ROWS)
        for (size_t group = 0; group < groups; group += GROUPS_AT_ONCE)
            run_groups(job, row, smaller(end, row + TASK_ROWS), group,
                       smaller(groups - group, GROUPS_AT_ONCE));
    if (g->finish)
        g->finish();
}
