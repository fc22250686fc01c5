/* Which kernel set runs here: what the CPU has and the operating system saves, found once per call. */
#include "tensor/kernels_int.h"

#include <strings.h>

struct candidate {
    const char *name;
    const struct kernels *kernels;
    bool (*usable)(void);
};

static bool always(void)
{
    return true;
}

/* Best last. */
static const struct candidate candidates[] = {
    {"ref", &kernels_ref, always},
};

const struct kernels *kernels_select(const char *limit)
{
    const struct kernels *best = NULL;
    for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++) {
        bool usable = candidates[i].usable();
        if (usable)
            best = candidates[i].kernels;
        if (limit && strcasecmp(limit, candidates[i].name) == 0)
            return usable ? best : NULL;
    }
    return limit ? NULL : best;
}

const char *kernels_name(const struct kernels *kernels)
{
    return kernels->name;
}
