/* A line of JSON and, on a second line, its SHA-256. The second line has one spelling, so that no bit of the
 * file can change unseen. */
#include <string.h>

#include "ops/backup_int.h"

#define SUM_BEFORE "\n{\"sha256\":\""
#define SUM_AFTER "\"}\n"
#define SUM_BYTES (sizeof SUM_BEFORE - 1 + 2 * DIGEST_BYTES + sizeof SUM_AFTER - 1)

static void append_sum(struct buf *out, const struct digest *digest)
{
    char text[DIGEST_TEXT_BYTES];
    digest_text(digest, text);
    buf_printf(out, SUM_BEFORE "%s" SUM_AFTER, text);
}

enum ph_status seal_digest(const char *text, size_t len, struct digest *out, struct ph_err *err)
{
    struct hasher hasher;
    enum ph_status status = hasher_open(&hasher, err);
    if (status != PH_OK)
        return status;
    hasher_begin(&hasher);
    hasher_add(&hasher, text, len);
    if (!hasher_end(&hasher, out))
        status = ph_fail(err, PH_ERR_INTERNAL, "SHA-256 cannot be computed");
    hasher_close(&hasher);
    return status;
}

enum ph_status seal_write(const char *path, const struct buf *text, struct digest *digest, struct ph_err *err)
{
    struct buf sealed;
    enum ph_status status = buf_status(text);
    if (status != PH_OK)
        return ph_fail(err, status, "%s would be too large; back up less, or prune", path);
    status = seal_digest(text->data, text->len, digest, err);
    if (status != PH_OK)
        return status;
    buf_init(&sealed, text->max + SUM_BYTES);
    buf_append(&sealed, text->data, text->len);
    append_sum(&sealed, digest);
    status = buf_status(&sealed);
    status = status == PH_OK ? file_write_atomic(path, sealed.data, sealed.len, 0600, err)
                             : ph_fail(err, status, "no memory to write %s", path);
    buf_release(&sealed);
    return status;
}

/* A repository is somebody else's: a pipe in it must not hold us up. */
static enum ph_status read_regular(const char *path, struct buf *text, struct ph_err *err)
{
    struct file_at file;
    uint64_t len = 0;
    size_t got = 0;
    buf_init(text, BACKUP_LIST_BYTES_MAX + SUM_BYTES);
    enum ph_status status = file_at_open(&file, path, false, err);
    if (status != PH_OK)
        return status;
    status = file_at_len(&file, &len, err);
    char *bytes = status == PH_OK && len <= text->max ? buf_reserve(text, (size_t)len) : NULL;
    if (status == PH_OK && !bytes)
        status = ph_fail(err, PH_ERR_LIMIT, "%s is too large to be read", path);
    if (status == PH_OK)
        status = file_at_read(&file, 0, bytes, (size_t)len, &got, err);
    if (status == PH_OK)
        buf_grew(text, got);
    file_at_close(&file);
    return status;
}

enum ph_status seal_read(const char *path, struct buf *text, struct digest *digest, struct ph_err *err)
{
    struct buf sum;
    enum ph_status status = read_regular(path, text, err);
    if (status != PH_OK)
        return status;
    if (text->len < SUM_BYTES)
        return ph_fail(err, PH_ERR_FORMAT, "%s is damaged: it is cut short", path);
    size_t len = text->len - SUM_BYTES;
    status = seal_digest(text->data, len, digest, err);
    if (status != PH_OK)
        return status;
    buf_init(&sum, SUM_BYTES);
    append_sum(&sum, digest);
    if (buf_status(&sum) != PH_OK)
        status = ph_fail(err, PH_ERR_NOMEM, "no memory to read %s", path);
    else if (memcmp(text->data + len, sum.data, SUM_BYTES) != 0)
        status = ph_fail(err, PH_ERR_FORMAT, "%s is damaged: its SHA-256 is not the one it was written with",
                         path);
    buf_release(&sum);
    text->len = len;
    text->data[len] = 0;
    return status;
}
