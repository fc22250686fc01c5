/* The folder of vector files: who has it, and forgetting users. */
#include <stdio.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "memory/vectors_int.h"

static enum ph_status take(struct vector_home *home, struct ph_err *err)
{
    char path[PATH_BYTES_MAX + 8];
    snprintf(path, sizeof path, "%s/lock", home->dir);
    enum ph_status status = file_lock_wait(path, 0, &home->lock, err);
    if (status != PH_ERR_BUSY)
        return status;
    home->lock = -1;
    log_debug("memory", "%s belongs to another process: vectors are kept in memory", home->dir);
    return PH_OK;
}

enum ph_status vector_home_open(struct vector_home **out, const char *dir, struct ph_err *err)
{
    *out = NULL;
    struct vector_home *home = mem_calloc(1, sizeof *home);
    if (!home)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a folder of vectors");
    home->lock = -1;
    int len = snprintf(home->dir, sizeof home->dir, "%s", dir);
    enum ph_status status = len >= 0 && (size_t)len < sizeof home->dir
                                ? file_make_private_dir(dir, err)
                                : ph_fail(err, PH_ERR_LIMIT, "%s: the name is too long", dir);
    if (status == PH_OK)
        status = take(home, err);
    if (status == PH_OK)
        *out = home;
    else
        mem_free(home);
    return status;
}

void vector_home_close(struct vector_home *home)
{
    if (!home)
        return;
    if (home->lock >= 0)
        file_unlock(home->lock);
    mem_free(home);
}

bool vector_home_is_ours(const struct vector_home *home)
{
    return home->lock >= 0;
}

enum ph_status vector_home_forget(struct vector_home *home, int64_t user, struct ph_err *err)
{
    char prefix[32];
    snprintf(prefix, sizeof prefix, "%lld-", (long long)user);
    return file_remove_prefixed(home->dir, prefix, err);
}
