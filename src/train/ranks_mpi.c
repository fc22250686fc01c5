/* Ranks over MPI.
 *
 * A sum is taken in pieces: each rank gets one part of the piece from all (all-to-all), adds the parts up in
 * the order of the ranks, and gives the result to all (all-gather). That is what a ring moves, 2 (n - 1) / n
 * of the array each way; but MPI_Allreduce may add in any order it likes, and this is one order in one place,
 * so that all ranks go on with the same bits and a run can be repeated.
 *
 * MPI's own errors end all ranks with MPI's message (its default). */
#include <mpi.h>
#include <string.h>

#include "base/mem.h"
#include "train/ranks.h"

#define PART_LEN ((size_t)1 << 17)            /* floats that a rank adds up at once */
#define BROADCAST_BYTES_MAX ((size_t)1 << 30) /* MPI counts in int */

struct ranks {
    int index, count, here;
    float *out, *in; /* [count][PART_LEN] */
};

static void count_here(struct ranks *r)
{
    MPI_Comm machine;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine);
    MPI_Comm_size(machine, &r->here);
    MPI_Comm_free(&machine);
}

enum ph_status ranks_open(struct ranks **out, struct ph_err *err)
{
    int threads;
    *out = NULL;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &threads);
    if (threads < MPI_THREAD_FUNNELED)
        return ph_fail(err, PH_ERR_UNSUPPORTED, "this MPI can't be used beside threads");
    struct ranks *r = mem_calloc(1, sizeof *r);
    if (!r)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the ranks");
    MPI_Comm_rank(MPI_COMM_WORLD, &r->index);
    MPI_Comm_size(MPI_COMM_WORLD, &r->count);
    count_here(r);
    r->out = mem_calloc((size_t)r->count * 2, PART_LEN * sizeof *r->out);
    if (!r->out) {
        mem_free(r);
        return ph_fail(err, PH_ERR_NOMEM, "no memory to add gradients up");
    }
    r->in = r->out + (size_t)r->count * PART_LEN;
    *out = r;
    return PH_OK;
}

void ranks_close(struct ranks *r)
{
    if (!r)
        return;
    MPI_Finalize();
    mem_free(r->out);
    mem_free(r);
}

void ranks_end_all(struct ranks *r)
{
    if (ranks_count(r) > 1)
        MPI_Abort(MPI_COMM_WORLD, 1);
}

unsigned ranks_index(const struct ranks *r)
{
    return r ? (unsigned)r->index : 0;
}

unsigned ranks_count(const struct ranks *r)
{
    return r ? (unsigned)r->count : 1;
}

unsigned ranks_here(const struct ranks *r)
{
    return r ? (unsigned)r->here : 1;
}

/* out [count][part], of which the last may be filled up with anything: it is added to nothing else. */
static void sum_piece(struct ranks *r, size_t part)
{
    int len = (int)part;
    MPI_Alltoall(r->out, len, MPI_FLOAT, r->in, len, MPI_FLOAT, MPI_COMM_WORLD);
    for (size_t rank = 1; rank < (size_t)r->count; rank++)
        for (size_t i = 0; i < part; i++)
            r->in[i] += r->in[rank * part + i];
    MPI_Allgather(r->in, len, MPI_FLOAT, r->out, len, MPI_FLOAT, MPI_COMM_WORLD);
}

void ranks_sum(struct ranks *r, float *x, size_t len)
{
    size_t count = ranks_count(r);
    if (count == 1)
        return;
    for (size_t at = 0, piece; at < len; at += piece) {
        piece = len - at < count * PART_LEN ? len - at : count * PART_LEN;
        memcpy(r->out, x + at, piece * sizeof *x);
        sum_piece(r, (piece + count - 1) / count);
        memcpy(x + at, r->out, piece * sizeof *x);
    }
}

void ranks_sum_doubles(struct ranks *r, double *x, size_t len)
{
    for (size_t i = 0; i < len && ranks_count(r) > 1; i++) {
        double *all = (double *)(void *)r->in, sum = 0;
        MPI_Allgather(&x[i], 1, MPI_DOUBLE, all, 1, MPI_DOUBLE, MPI_COMM_WORLD);
        for (int rank = 0; rank < r->count; rank++)
            sum += all[rank];
        x[i] = sum;
    }
}

void ranks_broadcast(struct ranks *r, void *bytes, size_t len)
{
    if (ranks_count(r) == 1)
        return;
    for (size_t at = 0, piece; at < len; at += piece) {
        piece = len - at < BROADCAST_BYTES_MAX ? len - at : BROADCAST_BYTES_MAX;
        MPI_Bcast((char *)bytes + at, (int)piece, MPI_BYTE, 0, MPI_COMM_WORLD);
    }
}
