/* Chunks on the disk: chunks/ab/abcd..., named by the SHA-256 of their bytes.
 *
 * A file is one byte, how it is packed, and then the bytes as they are, or the SHA-256 of a zstd frame and
 * the frame. The frame has a sum of its own because one may have bits that its decoder ignores, and a flipped
 * bit is to be seen whatever it does. What is read is never longer than a chunk may be; a frame is unpacked
 * into exactly as much room as its chunk has bytes. */
#include <stdio.h>
#include <string.h>
#include <zstd.h>

#include "base/mem.h"
#include "ops/backup_int.h"

#define LEVEL 3
#define WORTH_IT(packed, plain) ((packed) < (plain) - (plain) / 16)
#define FRAME_AT ((size_t)1 + DIGEST_BYTES)

enum packing { PACKED_NOT, PACKED_ZSTD };

void chunk_path(const struct repository *repository, const struct digest *digest, char out[PATH_BYTES_MAX])
{
    char text[DIGEST_TEXT_BYTES], name[DIGEST_TEXT_BYTES + 16];
    digest_text(digest, text);
    snprintf(name, sizeof name, "chunks/%.2s/%s", text, text);
    repository_path(repository, name, out);
}

/* ---- Reading */

static enum ph_status damaged(struct ph_err *err, const char *how)
{
    return ph_fail(err, PH_ERR_FORMAT, "damaged: %s", how);
}

/* The file as it lies there, in repository->packed. */
static enum ph_status fetch(struct repository *repository, const struct digest *digest, size_t *len,
                            struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    struct file_at file;
    chunk_path(repository, digest, path);
    enum ph_status status = file_at_open(&file, path, false, err);
    if (status == PH_ERR_NOTFOUND)
        return ph_fail(err, status, "missing");
    if (status != PH_OK)
        return status;
    size_t most = FRAME_AT + ZSTD_COMPRESSBOUND(BACKUP_CHUNK_BYTES_MAX);
    status = file_at_read(&file, 0, repository->packed, most, len, err);
    file_at_close(&file);
    if (status == PH_OK && *len < 2)
        status = damaged(err, "it is cut short");
    if (status == PH_OK && *len == most)
        status = damaged(err, "it is longer than a chunk can be");
    return status;
}

static enum ph_status check_frame(struct repository *repository, size_t len, struct ph_err *err)
{
    struct digest sum;
    if (len <= FRAME_AT)
        return damaged(err, "it is cut short");
    hasher_begin(&repository->hasher);
    hasher_add(&repository->hasher, repository->packed + FRAME_AT, len - FRAME_AT);
    if (!hasher_end(&repository->hasher, &sum))
        return ph_fail(err, PH_ERR_INTERNAL, "SHA-256 cannot be computed");
    if (memcmp(sum.bytes, repository->packed + 1, DIGEST_BYTES) != 0)
        return damaged(err, "its packed bytes are not those that were written");
    return PH_OK;
}

static enum ph_status unpack(struct repository *repository, size_t len, uint8_t *out, size_t bytes,
                             struct ph_err *err)
{
    if (repository->packed[0] == PACKED_NOT) {
        if (len - 1 != bytes)
            return damaged(err, "it is not as long as its file's list says");
        memcpy(out, repository->packed + 1, bytes);
        return PH_OK;
    }
    if (repository->packed[0] != PACKED_ZSTD)
        return damaged(err, "its first byte is none that is written");
    enum ph_status status = check_frame(repository, len, err);
    if (status != PH_OK)
        return status;
    size_t got =
        ZSTD_decompressDCtx(repository->unpacking, out, bytes, repository->packed + FRAME_AT, len - FRAME_AT);
    return !ZSTD_isError(got) && got == bytes ? PH_OK : damaged(err, "it does not unpack to its length");
}

enum ph_status chunk_read(struct repository *repository, const struct backup_chunk *chunk, uint8_t *out,
                          struct ph_err *err)
{
    size_t len;
    struct digest sum;
    enum ph_status status = fetch(repository, &chunk->digest, &len, err);
    if (status == PH_OK)
        status = unpack(repository, len, out, chunk->bytes, err);
    if (status != PH_OK)
        return status;
    hasher_begin(&repository->hasher);
    hasher_add(&repository->hasher, out, chunk->bytes);
    if (!hasher_end(&repository->hasher, &sum))
        return ph_fail(err, PH_ERR_INTERNAL, "SHA-256 cannot be computed");
    return digest_equal(&sum, &chunk->digest) ? PH_OK : damaged(err, "its SHA-256 is not its name");
}

enum ph_status chunk_length(struct repository *repository, const struct digest *digest, uint32_t *out,
                            struct ph_err *err)
{
    size_t len;
    enum ph_status status = fetch(repository, digest, &len, err);
    if (status != PH_OK)
        return status;
    unsigned long long bytes = len - 1;
    if (repository->packed[0] == PACKED_ZSTD)
        bytes = len > FRAME_AT ? ZSTD_getFrameContentSize(repository->packed + FRAME_AT, len - FRAME_AT) : 0;
    if (bytes == 0 || bytes > BACKUP_CHUNK_BYTES_MAX) /* also what zstd answers to what is no frame */
        return damaged(err, "it has no length that a chunk can have");
    *out = (uint32_t)bytes;
    return PH_OK;
}

/* ---- Writing */

/* Puts the file together in repository->packed; answers its length. */
static size_t pack(struct repository *repository, const uint8_t *bytes, size_t len, bool *helped,
                   struct ph_err *err)
{
    uint8_t *packed = repository->packed;
    if (*helped) {
        struct digest sum;
        size_t got = ZSTD_compressCCtx(repository->packing, packed + FRAME_AT,
                                       ZSTD_COMPRESSBOUND(BACKUP_CHUNK_BYTES_MAX), bytes, len, LEVEL);
        *helped = !ZSTD_isError(got) && WORTH_IT(FRAME_AT + got, len);
        hasher_begin(&repository->hasher);
        hasher_add(&repository->hasher, packed + FRAME_AT, *helped ? got : 0);
        if (!hasher_end(&repository->hasher, &sum)) {
            (void)ph_fail(err, PH_ERR_INTERNAL, "SHA-256 cannot be computed");
            return 0;
        }
        if (*helped) {
            packed[0] = PACKED_ZSTD;
            memcpy(packed + 1, sum.bytes, DIGEST_BYTES);
            return FRAME_AT + got;
        }
    }
    packed[0] = PACKED_NOT;
    memcpy(packed + 1, bytes, len);
    return len + 1;
}

enum ph_status chunk_write(struct repository *repository, const struct digest *digest, const uint8_t *bytes,
                           size_t len, bool *helped, uint64_t *stored, struct ph_err *err)
{
    char path[PATH_BYTES_MAX], dir[PATH_BYTES_MAX];
    struct file_out out;
    size_t packed = pack(repository, bytes, len, helped, err);
    if (!packed)
        return PH_ERR_INTERNAL;
    chunk_path(repository, digest, path);
    memcpy(dir, path, strlen(path) + 1);
    *strrchr(dir, '/') = 0;
    enum ph_status status = file_make_private_dir(dir, err);
    if (status == PH_OK)
        status = file_out_open(&out, path, 0600, err);
    if (status != PH_OK)
        return status;
    status = file_out_write(&out, repository->packed, packed, err);
    if (status != PH_OK) {
        file_out_abandon(&out);
        return status;
    }
    *stored += packed;
    return file_out_commit_unsynced(&out, err);
}

/* ---- All of them */

struct walk {
    const struct repository *repository;
    enum ph_status (*fn)(void *ud, const struct digest *digest, const char *path, uint64_t bytes);
    void *ud;
    struct ph_err *err;
    char shard[PATH_BYTES_MAX];
};

static enum ph_status on_chunk(void *ud, const struct file_entry *entry)
{
    const struct walk *walk = ud;
    struct digest digest;
    char path[PATH_BYTES_MAX];
    int len = snprintf(path, sizeof path, "%s/%s", walk->shard, entry->name);
    if (len < 0 || (size_t)len >= sizeof path)
        return PH_OK;
    bool is_named = entry->is_regular && !entry->is_link &&
                    digest_parse(entry->name, strlen(entry->name), &digest) &&
                    strncmp(entry->name, strrchr(walk->shard, '/') + 1, 2) == 0;
    return walk->fn(walk->ud, is_named ? &digest : NULL, path, entry->stamp.bytes);
}

static enum ph_status on_shard(void *ud, const struct file_entry *entry)
{
    struct walk *walk = ud;
    char chunks[PATH_BYTES_MAX];
    repository_path(walk->repository, "chunks", chunks);
    int len = snprintf(walk->shard, sizeof walk->shard, "%s/%s", chunks, entry->name);
    if (!entry->is_dir || len < 0 || (size_t)len >= sizeof walk->shard)
        return PH_OK;
    return file_each(walk->shard, on_chunk, walk, walk->err);
}

enum ph_status chunk_each(const struct repository *repository,
                          enum ph_status (*fn)(void *ud, const struct digest *digest, const char *path,
                                               uint64_t bytes),
                          void *ud, struct ph_err *err)
{
    struct walk walk = {.repository = repository, .fn = fn, .ud = ud, .err = err};
    char chunks[PATH_BYTES_MAX];
    repository_path(repository, "chunks", chunks);
    if (!file_exists(chunks))
        return PH_OK;
    return file_each(chunks, on_shard, &walk, err);
}
