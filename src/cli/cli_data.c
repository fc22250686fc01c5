/* Where a station keeps what it has to remember: keys, ledger, conversations. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/limits.h"
#include "cli/cli_int.h"

#define NAME_BYTES_MAX 64 /* of a file that we name */

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] ? value : NULL;
}

static enum ph_status join(const char *dir, const char *below, char out[PATH_BYTES_MAX], struct ph_err *err)
{
    int len = snprintf(out, PATH_BYTES_MAX, "%s%s", dir, below);
    if (len > 0 && len < PATH_BYTES_MAX)
        return PH_OK;
    return ph_fail(err, PH_ERR_LIMIT, "the data directory %.200s... is longer than %d bytes; use --data DIR",
                   dir, PATH_BYTES_MAX - 1);
}

/* XDG base directories: a relative XDG_DATA_HOME is to be ignored. */
enum ph_status cli_data_dir(const char *given, char out[PATH_BYTES_MAX], struct ph_err *err)
{
    const char *pharos = environment("PHAROS_DATA"), *xdg = environment("XDG_DATA_HOME");
    const char *home = environment("HOME");
    if (given && given[0] == 0)
        return ph_fail(err, PH_ERR_ARG, "the data directory has an empty name; use --data DIR");
    if (given || pharos)
        return join(given ? given : pharos, "", out, err);
    if (xdg && xdg[0] == '/')
        return join(xdg, "/pharos", out, err);
    if (home)
        return join(home, "/.local/share/pharos", out, err);
    return ph_fail(err, PH_ERR_NOTFOUND,
                   "no data directory: neither PHAROS_DATA nor HOME is set; use --data DIR");
}

enum ph_status cli_data_file(const char *given, const char *name, char out[PATH_BYTES_MAX],
                             struct ph_err *err)
{
    char dir[PATH_BYTES_MAX], below[NAME_BYTES_MAX];
    enum ph_status status = cli_data_dir(given, dir, err);
    snprintf(below, sizeof below, "/%s", name);
    return status == PH_OK ? join(dir, below, out, err) : status;
}
