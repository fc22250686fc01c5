/* A directory for copies that are looked at and thrown away. */
#include <stdio.h>

#include "ops/backup_int.h"

#define LOCK "/lock"

enum ph_status scratch_open(struct scratch *scratch, const char *parent, struct ph_err *err)
{
    uint64_t random = 0;
    char path[PATH_BYTES_MAX];
    scratch->dir[0] = 0;
    scratch->lock = -1;
    if (entropy_fill(&random, sizeof random) != 0)
        return ph_fail(err, PH_ERR_IO, "the system gives no random bytes");
    int len = snprintf(scratch->dir, sizeof scratch->dir, "%s/" SCRATCH_PREFIX "%016llx", parent,
                       (unsigned long long)random);
    if (len < 0 || (size_t)len >= sizeof scratch->dir - 64) {
        scratch->dir[0] = 0;
        return ph_fail(err, PH_ERR_LIMIT, "%.200s... is too long a path", parent);
    }
    scratch_path(scratch, "lock", path);
    enum ph_status status = file_make_private_dir(scratch->dir, err);
    if (status == PH_OK)
        status = file_lock(path, &scratch->lock, err);
    if (status != PH_OK)
        scratch_close(scratch);
    return status;
}

void scratch_path(const struct scratch *scratch, const char *name, char out[PATH_BYTES_MAX])
{
    snprintf(out, PATH_BYTES_MAX, "%.*s/%.60s", PATH_BYTES_MAX - 64, scratch->dir, name);
}

void scratch_close(struct scratch *scratch)
{
    struct ph_err err;
    if (!scratch->dir[0])
        return;
    (void)!file_remove_dir(scratch->dir, &err); /* what stays is removed by the next writer */
    file_unlock(scratch->lock);
    scratch->dir[0] = 0;
}

void scratch_remove_stray(const char *dir)
{
    char path[PATH_BYTES_MAX];
    struct ph_err err;
    int lock;
    snprintf(path, sizeof path, "%.*s" LOCK, PATH_BYTES_MAX - 8, dir);
    if (file_lock(path, &lock, &err) != PH_OK)
        return;
    (void)!file_remove_dir(dir, &err);
    file_unlock(lock);
}
