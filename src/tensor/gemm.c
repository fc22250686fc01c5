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

void gemm_write(const float *sums, size_t rows, size_t columns, float *y, size_t y_stride)
{
    for (size_t c = 0; c < columns; c++)
        for (size_t r = 0; r < rows; r++)
            y[c * y_stride + r] = sums[r * TILE_ROWS + c];
}

/* All panels of a group before the next group: a result row is then written in one stretch. */
static void write_sums(const struct mm_job *job, const float *sums, size_t first, size_t end, size_t group,
                       size_t groups)
{
    const struct gemm *g = job->kernel->gemm;
    size_t group_sums = g->panel_rows * TILE_ROWS;
    for (size_t i = 0; i < groups; i++) {
        size_t column = (group + i) * TILE_ROWS;
        const float *from = sums + i * group_sums;
        for (size_t row = first; row < end; row += g->panel_rows, from += groups * group_sums)
            g->write(from, smaller(end - row, g->panel_rows), smaller(job->x->n - column, TILE_ROWS),
                     job->y + column * job->y_stride + row, job->y_stride);
    }
}

/* Unpacks panel p of stretch `from`, zero where there are no more rows. */
static void unpack_panel(const struct mm_job *job, size_t row, size_t rows, size_t from, size_t len,
                         uint8_t *panel)
{
    const struct gemm *g = job->kernel->gemm;
    if (rows < g->panel_rows)
        memset(panel, 0, g->panel_bytes);
    job->kernel->unpack(job->w, row, rows, from, len, panel, g->stride);
}

static struct gemm_ahead next_panel(const struct mm_job *job, size_t row, size_t rows, size_t from,
                                    size_t groups)
{
    size_t row_bytes = tensor_row_bytes(job->w->type, job->w->cols);
    size_t len = smaller(job->w->cols - from, TILE_STRETCH);
    return (struct gemm_ahead){.data = (const uint8_t *)job->w->data + row * row_bytes +
                                       tensor_row_bytes(job->w->type, from),
                               .stride = row_bytes,
                               .bytes = tensor_row_bytes(job->w->type, len),
                               .rows = rows,
                               .rows_each = rows / groups + 1};
}

static void run_groups(const struct mm_job *job, size_t first, size_t end, size_t group, size_t groups)
{
    const struct gemm *g = job->kernel->gemm;
    float *sums = (float *)(void *)job->panel;
    uint8_t *panel = job->panel + SUMS_BYTES;
    size_t d = job->w->cols, panel_sums = g->panel_rows * TILE_ROWS * groups;
    size_t panels = (end - first + g->panel_rows - 1) / g->panel_rows;
    struct gemm_ahead ahead;
    struct gemm_part part = {.panel = panel, .groups = groups, .ahead = &ahead};
    memset(sums, 0, panels * panel_sums * sizeof *sums);
    for (size_t from = 0; from < d; from += part.len) {
        part.len = smaller(d - from, TILE_STRETCH);
        part.inputs = act_stretch(job->x, g->form, from);
        part.inputs.data += group * part.inputs.stride;
        for (size_t p = 0; p < panels; p++) {
            size_t row = first + p * g->panel_rows;
            unpack_panel(job, row, smaller(end - row, g->panel_rows), from, part.len, panel);
            bool last = p + 1 == panels; /* then the next one is the first of the next stretch */
            size_t next = last ? first : row + g->panel_rows, then = last ? from + part.len : from;
            size_t rows = then < d ? smaller(end - next, g->panel_rows) : 0;
            ahead = next_panel(job, next, rows, smaller(then, d), groups);
            part.sums = sums + p * panel_sums;
            g->multiply(&part);
        }
    }
    write_sums(job, sums, first, end, group, groups);
}

void gemm_run(const struct mm_job *job, size_t first, size_t end)
{
    const struct gemm *g = job->kernel->gemm;
    assert(TASK_ROWS % g->panel_rows == 0 && g->panel_bytes <= POOL_PANEL_BYTES - SUMS_BYTES);
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
