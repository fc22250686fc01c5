/* GGUF v3 writer. Keys and tensor descriptions gather in memory; the first tensor byte (or the close) fixes
 * them and writes the header, since only then is the length of everything before the data known. Data goes
 * straight to a temporary file beside the target, which takes the target's place when all of it is there.
 *
 * Errors stick: the first is kept and told by gguf_writer_close. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/mem.h"
#include "model/gguf_int.h"

#define FILE_MODE 0644
#define HEADER_BYTES_MAX ((size_t)1 << 31)

struct span {
    size_t at, len;
};

struct described {
    struct span name; /* in infos */
    size_t offset_at; /* where in infos the tensor's offset goes */
    uint64_t bytes;
};

struct gguf_writer {
    struct file_out file;
    const char *path; /* file's own */
    enum ph_status status;
    struct ph_err err;
    struct buf keys, infos; /* serialised */
    struct span *key_spans;
    size_t key_count, key_cap;
    struct described *tensors;
    size_t tensor_count, tensor_cap;
    uint64_t alignment;
    bool started;  /* the header is written */
    size_t at;     /* tensor whose bytes come next */
    uint64_t done; /* bytes of it */
};

static bool fail(struct gguf_writer *w, enum ph_status status, const char *what, const char *name)
{
    if (w->status == PH_OK)
        w->status = ph_fail(&w->err, status, "%s: %s '%.200s'", w->path, what, name);
    return false;
}

static bool grow(struct gguf_writer *w, void *items, size_t *cap, size_t count, size_t size)
{
    void *old;
    if (count < *cap)
        return true;
    memcpy(&old, items, sizeof old);
    size_t larger = *cap ? *cap * 2 : 64;
    void *grown = mem_realloc(old, larger, size);
    if (!grown)
        return fail(w, PH_ERR_NOMEM, "out of memory for", "the header");
    memcpy(items, &grown, sizeof grown);
    *cap = larger;
    return true;
}

static void put_uint(struct buf *out, uint64_t value, size_t width)
{
    char bytes[8];
    for (size_t i = 0; i < width; i++)
        bytes[i] = (char)(value >> (8 * i));
    buf_append(out, bytes, width);
}

static void put_string(struct buf *out, const char *text, size_t len)
{
    put_uint(out, len, 8);
    buf_append(out, text, len);
}

enum ph_status gguf_writer_open(struct gguf_writer **out, const char *path, struct ph_err *err)
{
    *out = NULL;
    struct gguf_writer *w = mem_calloc(1, sizeof *w);
    if (!w)
        return ph_fail(err, PH_ERR_NOMEM, "%s: out of memory to write it", path);
    enum ph_status status = file_out_open(&w->file, path, FILE_MODE, err);
    if (status != PH_OK) {
        mem_free(w);
        return status;
    }
    w->path = w->file.path;
    w->alignment = GGUF_ALIGNMENT_DEFAULT;
    buf_init(&w->keys, HEADER_BYTES_MAX);
    buf_init(&w->infos, HEADER_BYTES_MAX);
    *out = w;
    return PH_OK;
}

/* ---- Keys */

/* Takes an earlier value of the key out: the last one set counts. */
static void forget_key(struct gguf_writer *w, const char *key)
{
    size_t len = strlen(key), i = 0;
    for (; i < w->key_count; i++) {
        const char *entry = w->keys.data + w->key_spans[i].at;
        if (w->key_spans[i].len > 8 + len && memcmp(entry + 8, key, len) == 0 &&
            (unsigned char)entry[0] == (len & 0xff) && (unsigned char)entry[1] == (len >> 8 & 0xff))
            break;
    }
    if (i == w->key_count)
        return;
    struct span gone = w->key_spans[i];
    memmove(w->keys.data + gone.at, w->keys.data + gone.at + gone.len, w->keys.len - gone.at - gone.len);
    w->keys.len -= gone.len;
    w->key_count--;
    for (; i < w->key_count; i++) {
        w->key_spans[i] = w->key_spans[i + 1];
        w->key_spans[i].at -= gone.len;
    }
}

static void set_key(struct gguf_writer *w, const char *key, enum gguf_type type, const struct buf *head,
                    const void *bytes, size_t len)
{
    size_t key_len = strlen(key);
    if (w->status != PH_OK)
        return;
    if (w->started || key_len == 0 || key_len > GGUF_NAME_BYTES_MAX || w->key_count >= GGUF_KEY_COUNT_MAX) {
        fail(w, PH_ERR_ARG, "no place for the key (empty, too long, too many, or after tensor data)", key);
        return;
    }
    forget_key(w, key);
    if (!grow(w, &w->key_spans, &w->key_cap, w->key_count, sizeof *w->key_spans))
        return;
    size_t at = w->keys.len;
    put_string(&w->keys, key, key_len);
    put_uint(&w->keys, type, 4);
    if (head)
        buf_append(&w->keys, head->data, head->len);
    buf_append(&w->keys, bytes, len);
    if (buf_status(&w->keys) != PH_OK)
        fail(w, buf_status(&w->keys), "the header has no room for the key", key);
    else
        w->key_spans[w->key_count++] = (struct span){at, w->keys.len - at};
}

static void set_number(struct gguf_writer *w, const char *key, enum gguf_type type, uint64_t bits,
                       size_t width)
{
    char bytes[8];
    for (size_t i = 0; i < width; i++)
        bytes[i] = (char)(bits >> (8 * i));
    if (strcmp(key, GGUF_ALIGNMENT_KEY) == 0) {
        if (type != GGUF_UINT32 || !gguf_alignment_ok(bits))
            fail(w, PH_ERR_ARG, "not an alignment:", key);
        else
            w->alignment = bits;
    }
    set_key(w, key, type, NULL, bytes, width);
}

void gguf_writer_set_string(struct gguf_writer *w, const char *key, const char *text, size_t len)
{
    struct buf head;
    buf_init(&head, 8);
    put_uint(&head, len, 8);
    if (buf_status(&head) == PH_OK)
        set_key(w, key, GGUF_STRING, &head, text, len);
    else
        fail(w, PH_ERR_NOMEM, "out of memory for the key", key);
    buf_release(&head);
}

void gguf_writer_set_uint(struct gguf_writer *w, const char *key, uint32_t value)
{
    set_number(w, key, GGUF_UINT32, value, 4);
}

void gguf_writer_set_float(struct gguf_writer *w, const char *key, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    set_number(w, key, GGUF_FLOAT32, bits, 4);
}

void gguf_writer_set_bool(struct gguf_writer *w, const char *key, bool value)
{
    set_number(w, key, GGUF_BOOL, value, 1);
}

void gguf_writer_set_array(struct gguf_writer *w, const char *key, const struct gguf_array *array)
{
    struct buf head;
    size_t width = gguf_scalar_bytes(array->type);
    if (array->type != GGUF_STRING && (width == 0 || array->data_bytes / width != array->count)) {
        fail(w, PH_ERR_ARG, "the array's type or length is wrong for the key", key);
        return;
    }
    buf_init(&head, 12);
    put_uint(&head, array->type, 4);
    put_uint(&head, array->count, 8);
    if (buf_status(&head) == PH_OK)
        set_key(w, key, GGUF_ARRAY, &head, array->data, (size_t)array->data_bytes);
    else
        fail(w, PH_ERR_NOMEM, "out of memory for the key", key);
    buf_release(&head);
}

void gguf_writer_copy_key(struct gguf_writer *w, const struct gguf *from, const char *key)
{
    struct gguf_raw raw;
    uint64_t alignment;
    if (!gguf_get_raw(from, key, &raw))
        fail(w, PH_ERR_NOTFOUND, "the source has no key", key);
    else if (strcmp(key, GGUF_ALIGNMENT_KEY) == 0 && gguf_get_uint(from, key, &alignment))
        gguf_writer_set_uint(w, key, (uint32_t)alignment);
    else
        set_key(w, key, raw.type, NULL, raw.bytes, raw.len);
}

/* ---- Tensors */

static bool is_described(const struct gguf_writer *w, const char *name, size_t len)
{
    for (size_t i = 0; i < w->tensor_count; i++)
        if (w->tensors[i].name.len == len && memcmp(w->infos.data + w->tensors[i].name.at, name, len) == 0)
            return true;
    return false;
}

void gguf_writer_describe(struct gguf_writer *w, const char *name, enum tensor_type type, uint32_t n_dims,
                          const uint64_t *dims)
{
    size_t len = strlen(name);
    const struct tensor_format *format = tensor_format(type);
    struct described tensor = {.name = {w->infos.len + 8, len}};
    if (w->status != PH_OK)
        return;
    if (w->started || len == 0 || len > GGUF_NAME_BYTES_MAX || w->tensor_count >= GGUF_TENSOR_COUNT_MAX ||
        is_described(w, name, len)) {
        fail(w, PH_ERR_ARG, "no place for the tensor (no name, named twice, or described too late)", name);
        return;
    }
    if (!format || n_dims < 1 || n_dims > GGUF_DIMS_MAX ||
        !gguf_tensor_bytes(format, n_dims, dims, &tensor.bytes)) {
        fail(w, PH_ERR_ARG, "impossible format or dimensions of tensor", name);
        return;
    }
    if (!grow(w, &w->tensors, &w->tensor_cap, w->tensor_count, sizeof *w->tensors))
        return;
    put_string(&w->infos, name, len);
    put_uint(&w->infos, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++)
        put_uint(&w->infos, dims[i], 8);
    put_uint(&w->infos, type, 4);
    tensor.offset_at = w->infos.len;
    put_uint(&w->infos, 0, 8);
    if (buf_status(&w->infos) != PH_OK)
        fail(w, buf_status(&w->infos), "the header has no room for tensor", name);
    else
        w->tensors[w->tensor_count++] = tensor;
}

static void write_out(struct gguf_writer *w, const void *bytes, size_t len)
{
    if (w->status == PH_OK)
        w->status = file_out_write(&w->file, bytes, len, &w->err);
}

static void write_padding(struct gguf_writer *w, uint64_t written)
{
    static const char zeros[4096];
    for (uint64_t left = -written & (w->alignment - 1); left > 0;) {
        size_t len = left < sizeof zeros ? (size_t)left : sizeof zeros;
        write_out(w, zeros, len);
        left -= len;
    }
}

static void write_header(struct gguf_writer *w)
{
    struct buf head;
    uint64_t offset = 0;
    if (w->started)
        return;
    w->started = true;
    for (size_t i = 0; i < w->tensor_count; i++) {
        for (size_t b = 0; b < 8; b++)
            w->infos.data[w->tensors[i].offset_at + b] = (char)(offset >> (8 * b));
        offset += w->tensors[i].bytes + (-w->tensors[i].bytes & (w->alignment - 1));
    }
    buf_init(&head, 24);
    buf_puts(&head, GGUF_MAGIC);
    put_uint(&head, GGUF_VERSION, 4);
    put_uint(&head, w->tensor_count, 8);
    put_uint(&head, w->key_count, 8);
    if (buf_status(&head) == PH_OK)
        write_out(w, head.data, head.len);
    else
        fail(w, PH_ERR_NOMEM, "out of memory for", "the header");
    buf_release(&head);
    if (w->keys.len)
        write_out(w, w->keys.data, w->keys.len);
    if (w->infos.len)
        write_out(w, w->infos.data, w->infos.len);
    write_padding(w, 24 + w->keys.len + w->infos.len);
}

void gguf_writer_data(struct gguf_writer *w, const void *bytes, size_t len)
{
    const char *from = bytes;
    if (w->status != PH_OK)
        return;
    write_header(w);
    while (len > 0 && w->status == PH_OK) {
        if (w->at == w->tensor_count) {
            fail(w, PH_ERR_ARG, "more bytes than the described tensors have:", "data");
            return;
        }
        uint64_t room = w->tensors[w->at].bytes - w->done;
        size_t now = len < room ? len : (size_t)room;
        write_out(w, from, now);
        from += now;
        len -= now;
        w->done += now;
        if (w->done == w->tensors[w->at].bytes) {
            write_padding(w, w->done);
            w->at++;
            w->done = 0;
        }
    }
}

/* ---- The end */

static void release(struct gguf_writer *w)
{
    buf_release(&w->keys);
    buf_release(&w->infos);
    mem_free(w->key_spans);
    mem_free(w->tensors);
    mem_free(w);
}

enum ph_status gguf_writer_close(struct gguf_writer *w, struct ph_err *err)
{
    if (w->status == PH_OK)
        write_header(w);
    if (w->status == PH_OK && w->at < w->tensor_count) {
        struct span name = w->tensors[w->at].name;
        w->status =
            ph_fail(&w->err, PH_ERR_ARG, "%s: tensor '%.*s' has only %" PRIu64 " of its %" PRIu64 " bytes",
                    w->path, (int)(name.len < 200 ? name.len : 200), w->infos.data + name.at, w->done,
                    w->tensors[w->at].bytes);
    }
    if (w->status == PH_OK)
        w->status = file_out_commit(&w->file, &w->err);
    else
        file_out_abandon(&w->file);
    enum ph_status status = w->status;
    if (status != PH_OK && err)
        *err = w->err;
    release(w);
    return status;
}

void gguf_writer_abandon(struct gguf_writer *w)
{
    if (!w)
        return;
    file_out_abandon(&w->file);
    release(w);
}
