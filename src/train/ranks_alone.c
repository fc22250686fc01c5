/* Builds without MPI: there is one rank. */
#include <stdlib.h>

#include "train/ranks.h"

enum ph_status ranks_open(struct ranks **out, struct ph_err *err)
{
    static const char *const launchers[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    *out = NULL;
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++) {
        const char *count = getenv(launchers[i]);
        if (count && strtol(count, NULL, 10) > 1)
            return ph_fail(err, PH_ERR_UNSUPPORTED,
                           "%s processes were started to train together, and this program was built to train "
                           "alone; build with make WITH_MPI=1 and start build/mpi/pharos",
                           count);
    }
    return PH_OK;
}

void ranks_close(struct ranks *ranks)
{
    (void)ranks;
}

void ranks_end_all(struct ranks *ranks)
{
    (void)ranks;
}

unsigned ranks_index(const struct ranks *ranks)
{
    (void)ranks;
    return 0;
}

unsigned ranks_count(const struct ranks *ranks)
{
    (void)ranks;
    return 1;
}

unsigned ranks_here(const struct ranks *ranks)
{
    (void)ranks;
    return 1;
}

void ranks_sum(struct ranks *ranks, float *x, size_t len)
{
    (void)ranks, (void)x, (void)len;
}

void ranks_sum_doubles(struct ranks *ranks, double *x, size_t len)
{
    (void)ranks, (void)x, (void)len;
}

void ranks_broadcast(struct ranks *ranks, void *bytes, size_t len)
{
    (void)ranks, (void)bytes, (void)len;
}
