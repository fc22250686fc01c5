/* GGUF reader: header, keys and tensor descriptions are checked once, when the file is opened; afterwards
 * every look-up hands out pointers into the map.
 *
 * Nothing in the file is trusted. Reading goes through one cursor that knows where the file ends and turns
 * the first problem into an error with file, offset and key or tensor. What is allocated is proportional to
 * the file: a count is believed only as far as the bytes left could hold that many entries.
 *
 * Invariants:
 *  G1  Key and tensor names are unique, not empty, free of 0 bytes, and copied to the arena, terminated.
 *  G2  An entry's value, array elements and strings included, lies wholly inside the map.
 *  G3  Tensor data lies wholly inside the map, aligned, and no two tensors share a byte.
 *
 * Ownership: the handle owns the map (or borrows the caller's bytes) and an arena with names and indexes. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/mem.h"
#include "model/gguf_int.h"
#include "model/hash_int.h"

#define KEY_BYTES_MIN (8 + 1 + 4 + 1)            /* length, one letter, type, one byte of value */
#define TENSOR_BYTES_MIN (8 + 1 + 4 + 8 + 4 + 8) /* length, one letter, one dimension, type, offset */

struct entry {
    const char *key; /* terminated */
    struct gguf_raw value;
};

/* Open addressing; a slot holds an index into the names plus one. */
struct name_index {
    uint32_t *slots;
    size_t mask;
};

struct gguf {
    struct file_map map;
    bool mapped; /* the map is ours to release */
    const char *path;
    struct arena arena;
    struct entry *keys;
    struct gguf_tensor *tensors;
    size_t key_count, tensor_count;
    struct name_index key_index, tensor_index;
};

struct reader {
    const uint8_t *data;
    size_t len, at;
    const char *path;
    struct ph_err *err;
};

/* ---- The cursor */

static uint64_t load_le(const uint8_t *bytes, size_t width)
{
    uint64_t value = 0;
    for (size_t i = 0; i < width; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static enum ph_status cut_short(const struct reader *r, const char *what)
{
    return ph_fail(r->err, PH_ERR_FORMAT,
                   "%s: the file ends at byte %zu inside %s that begins at byte %zu; it is truncated or "
                   "damaged: fetch it again",
                   r->path, r->len, what, r->at);
}

static enum ph_status read_uint(struct reader *r, size_t width, const char *what, uint64_t *out)
{
    *out = 0;
    if (r->len - r->at < width)
        return cut_short(r, what);
    *out = load_le(r->data + r->at, width);
    r->at += width;
    return PH_OK;
}

static enum ph_status read_string(struct reader *r, const char *what, struct gguf_string *out)
{
    uint64_t len;
    *out = (struct gguf_string){"", 0};
    enum ph_status status = read_uint(r, 8, what, &len);
    if (status != PH_OK)
        return status;
    if (len > r->len - r->at)
        return cut_short(r, what);
    *out = (struct gguf_string){(const char *)r->data + r->at, (size_t)len};
    r->at += (size_t)len;
    return PH_OK;
}

/* Reads the name of a key or tensor into the arena (G1 but for uniqueness). */
static enum ph_status read_name(struct reader *r, struct gguf *gguf, const char *what, const char **out)
{
    struct gguf_string name;
    size_t at = r->at;
    enum ph_status status = read_string(r, what, &name);
    if (status != PH_OK)
        return status;
    if (name.len == 0 || name.len > GGUF_NAME_BYTES_MAX || memchr(name.text, 0, name.len))
        return ph_fail(r->err, PH_ERR_FORMAT,
                       "%s: byte %zu: %s of %zu bytes is empty, too long or contains a 0 byte", r->path, at,
                       what, name.len);
    *out = arena_strndup(&gguf->arena, name.text, name.len);
    return *out ? PH_OK : ph_fail(r->err, PH_ERR_NOMEM, "%s: out of memory for names", r->path);
}

/* ---- Names */

static bool index_init(struct gguf *gguf, struct name_index *index, size_t count)
{
    size_t slots = hash_slots(count);
    index->slots = arena_calloc(&gguf->arena, slots, sizeof *index->slots);
    index->mask = slots - 1;
    return index->slots;
}

/* The slot where `name` is, or the empty one where it belongs. `names` points at the first entry's name;
 * entries are `stride` bytes apart. */
static uint32_t *index_slot(const struct name_index *index, const void *names, size_t stride,
                            const char *name)
{
    size_t at = (size_t)hash_bytes(name, strlen(name)) & index->mask;
    for (;; at = (at + 1) & index->mask) {
        uint32_t *slot = &index->slots[at];
        if (*slot == 0)
            return slot;
        const char *const *other = (const void *)((const char *)names + (*slot - 1) * stride);
        if (strcmp(*other, name) == 0)
            return slot;
    }
}

static const struct entry *find_key(const struct gguf *gguf, const char *key)
{
    uint32_t slot = *index_slot(&gguf->key_index, &gguf->keys->key, sizeof *gguf->keys, key);
    return slot ? &gguf->keys[slot - 1] : NULL;
}

/* ---- Keys */

size_t gguf_scalar_bytes(uint32_t type)
{
    static const uint8_t bytes[] = {
        [GGUF_UINT8] = 1,  [GGUF_INT8] = 1,    [GGUF_UINT16] = 2,  [GGUF_INT16] = 2,  [GGUF_UINT32] = 4,
        [GGUF_INT32] = 4,  [GGUF_FLOAT32] = 4, [GGUF_BOOL] = 1,    [GGUF_STRING] = 0, [GGUF_ARRAY] = 0,
        [GGUF_UINT64] = 8, [GGUF_INT64] = 8,   [GGUF_FLOAT64] = 8,
    };
    return type < sizeof bytes ? bytes[type] : 0;
}

static enum ph_status bad_type(const struct reader *r, const char *key, uint64_t type)
{
    return ph_fail(r->err, PH_ERR_FORMAT,
                   "%s: byte %zu: key '%.200s' has value type %" PRIu64 ", which GGUF does not define here",
                   r->path, r->at, key, type);
}

static enum ph_status skip_array(struct reader *r, const char *key)
{
    uint64_t type, count;
    enum ph_status status = read_uint(r, 4, key, &type);
    if (status == PH_OK)
        status = read_uint(r, 8, key, &count);
    if (status != PH_OK)
        return status;
    if (type == GGUF_ARRAY)
        return ph_fail(r->err, PH_ERR_UNSUPPORTED, "%s: byte %zu: key '%.200s' is an array of arrays",
                       r->path, r->at, key);
    if (type == GGUF_STRING) {
        struct gguf_string ignored;
        for (uint64_t i = 0; i < count && status == PH_OK; i++)
            status = read_string(r, key, &ignored);
        return status;
    }
    size_t width = gguf_scalar_bytes((uint32_t)type);
    if (width == 0)
        return bad_type(r, key, type);
    if (count > (r->len - r->at) / width)
        return cut_short(r, key);
    r->at += (size_t)count * width;
    return PH_OK;
}

static enum ph_status skip_value(struct reader *r, const char *key, uint64_t type)
{
    struct gguf_string ignored;
    uint64_t number;
    if (type == GGUF_STRING)
        return read_string(r, key, &ignored);
    if (type == GGUF_ARRAY)
        return skip_array(r, key);
    size_t width = type <= UINT32_MAX ? gguf_scalar_bytes((uint32_t)type) : 0;
    return width ? read_uint(r, width, key, &number) : bad_type(r, key, type);
}

static enum ph_status read_key(struct reader *r, struct gguf *gguf, size_t i)
{
    struct entry *entry = &gguf->keys[i];
    size_t at = r->at;
    uint64_t type;
    enum ph_status status = read_name(r, gguf, "a key", &entry->key);
    if (status == PH_OK)
        status = read_uint(r, 4, entry->key, &type);
    if (status != PH_OK)
        return status;
    size_t value_at = r->at;
    status = skip_value(r, entry->key, type);
    if (status != PH_OK)
        return status;
    entry->value = (struct gguf_raw){(enum gguf_type)type, r->data + value_at, r->at - value_at};
    uint32_t *slot = index_slot(&gguf->key_index, &gguf->keys->key, sizeof *entry, entry->key);
    if (*slot)
        return ph_fail(r->err, PH_ERR_FORMAT, "%s: byte %zu: key '%.200s' is there twice", r->path, at,
                       entry->key);
    *slot = (uint32_t)i + 1;
    return PH_OK;
}

/* ---- Tensors */

bool gguf_alignment_ok(uint64_t alignment)
{
    return alignment >= GGUF_ALIGNMENT_MIN && alignment <= GGUF_ALIGNMENT_MAX &&
           (alignment & (alignment - 1)) == 0;
}

bool gguf_tensor_bytes(const struct tensor_format *format, uint32_t n_dims, const uint64_t *dims,
                       uint64_t *bytes)
{
    if (dims[0] == 0 || dims[0] % format->block_len != 0 || dims[0] > INT64_MAX / format->block_bytes)
        return false;
    uint64_t total = dims[0] / format->block_len * format->block_bytes;
    for (uint32_t i = 1; i < n_dims; i++) {
        if (dims[i] == 0 || dims[i] > INT64_MAX / total)
            return false;
        total *= dims[i];
    }
    *bytes = total;
    return true;
}

/* Name, dimensions and raw type number; the offset counts from the data section, whose start is not known
 * yet. */
static enum ph_status read_description(struct reader *r, struct gguf *gguf, struct gguf_tensor *tensor,
                                       uint64_t *type, uint64_t *offset)
{
    size_t at = r->at;
    uint64_t n_dims;
    enum ph_status status = read_name(r, gguf, "a tensor name", &tensor->name);
    if (status == PH_OK)
        status = read_uint(r, 4, tensor->name, &n_dims);
    if (status != PH_OK)
        return status;
    if (n_dims < 1 || n_dims > GGUF_DIMS_MAX)
        return ph_fail(r->err, PH_ERR_FORMAT,
                       "%s: byte %zu: tensor '%.200s' has %" PRIu64 " dimensions; 1 to %d are allowed",
                       r->path, at, tensor->name, n_dims, GGUF_DIMS_MAX);
    tensor->n_dims = (uint32_t)n_dims;
    for (uint32_t d = 0; d < GGUF_DIMS_MAX; d++)
        tensor->dims[d] = 1;
    for (uint32_t d = 0; d < n_dims && status == PH_OK; d++)
        status = read_uint(r, 8, tensor->name, &tensor->dims[d]);
    if (status == PH_OK)
        status = read_uint(r, 4, tensor->name, type);
    return status == PH_OK ? read_uint(r, 8, tensor->name, offset) : status;
}

static enum ph_status size_tensor(struct reader *r, struct gguf_tensor *tensor, uint64_t type)
{
    const struct tensor_format *format = tensor_format((uint32_t)type);
    uint64_t bytes;
    if (!format)
        return ph_fail(r->err, PH_ERR_UNSUPPORTED,
                       "%s: byte %zu: tensor '%.200s' is stored in number format %" PRIu64
                       ", which this build cannot read; use a file in another quantisation",
                       r->path, r->at, tensor->name, type);
    tensor->type = format->type;
    if (!gguf_tensor_bytes(format, tensor->n_dims, tensor->dims, &bytes))
        return ph_fail(r->err, PH_ERR_FORMAT,
                       "%s: byte %zu: tensor '%.200s' (%s) has impossible dimensions %" PRIu64 "x%" PRIu64
                       "x%" PRIu64 "x%" PRIu64,
                       r->path, r->at, tensor->name, format->name, tensor->dims[0], tensor->dims[1],
                       tensor->dims[2], tensor->dims[3]);
    if (bytes > r->len)
        return ph_fail(r->err, PH_ERR_FORMAT,
                       "%s: tensor '%.200s' needs %" PRIu64
                       " bytes, the file has only %zu: it is truncated, fetch it again",
                       r->path, tensor->name, bytes, r->len);
    tensor->bytes = (size_t)bytes;
    return PH_OK;
}

static enum ph_status read_tensor(struct reader *r, struct gguf *gguf, size_t i, uint64_t *offset)
{
    struct gguf_tensor *tensor = &gguf->tensors[i];
    size_t at = r->at;
    uint64_t type = 0;
    enum ph_status status = read_description(r, gguf, tensor, &type, offset);
    if (status == PH_OK)
        status = size_tensor(r, tensor, type);
    if (status != PH_OK)
        return status;
    uint32_t *slot = index_slot(&gguf->tensor_index, &gguf->tensors->name, sizeof *tensor, tensor->name);
    if (*slot)
        return ph_fail(r->err, PH_ERR_FORMAT, "%s: byte %zu: tensor '%.200s' is there twice", r->path, at,
                       tensor->name);
    *slot = (uint32_t)i + 1;
    return PH_OK;
}

static int by_data(const void *a, const void *b)
{
    const struct gguf_tensor *const *x = a, *const *y = b;
    return ((*x)->data > (*y)->data) - ((*x)->data < (*y)->data);
}

/* G3: no two tensors share a byte. Files list their tensors in order, so sorting is rarely needed. */
static enum ph_status check_overlap(struct reader *r, struct gguf *gguf)
{
    size_t count = gguf->tensor_count;
    const struct gguf_tensor **sorted = mem_alloc(count * sizeof(const struct gguf_tensor *));
    if (!sorted)
        return ph_fail(r->err, PH_ERR_NOMEM, "%s: out of memory for %zu tensors", r->path, count);
    bool in_order = true;
    for (size_t i = 0; i < count; i++) {
        sorted[i] = &gguf->tensors[i];
        in_order = in_order && (i == 0 || by_data(&sorted[i - 1], &sorted[i]) <= 0);
    }
    if (!in_order)
        qsort(sorted, count, sizeof *sorted, by_data);
    enum ph_status status = PH_OK;
    for (size_t i = 1; i < count && status == PH_OK; i++) {
        const uint8_t *begin = sorted[i]->data, *before = sorted[i - 1]->data;
        if ((size_t)(begin - before) < sorted[i - 1]->bytes)
            status = ph_fail(r->err, PH_ERR_FORMAT, "%s: tensors '%.200s' and '%.200s' overlap at byte %zu",
                             r->path, sorted[i - 1]->name, sorted[i]->name, (size_t)(begin - r->data));
    }
    mem_free(sorted);
    return status;
}

static enum ph_status place_tensors(struct reader *r, struct gguf *gguf, const uint64_t *offsets)
{
    uint64_t alignment = GGUF_ALIGNMENT_DEFAULT;
    if (gguf_has(gguf, GGUF_ALIGNMENT_KEY) &&
        (!gguf_get_uint(gguf, GGUF_ALIGNMENT_KEY, &alignment) || !gguf_alignment_ok(alignment)))
        return ph_fail(r->err, PH_ERR_FORMAT, "%s: %s must be a power of two from %u to %u", r->path,
                       GGUF_ALIGNMENT_KEY, GGUF_ALIGNMENT_MIN, GGUF_ALIGNMENT_MAX);
    size_t padding = (size_t)(-(uint64_t)r->at & (alignment - 1));
    size_t room = r->len - r->at > padding ? r->len - r->at - padding : 0;
    for (size_t i = 0; i < gguf->tensor_count; i++) {
        struct gguf_tensor *tensor = &gguf->tensors[i];
        if (offsets[i] % alignment != 0)
            return ph_fail(r->err, PH_ERR_FORMAT,
                           "%s: tensor '%.200s' begins at data offset %" PRIu64
                           ", which is no multiple of the alignment %" PRIu64,
                           r->path, tensor->name, offsets[i], alignment);
        if (offsets[i] > room || tensor->bytes > room - (size_t)offsets[i])
            return ph_fail(r->err, PH_ERR_FORMAT,
                           "%s: tensor '%.200s' (%zu bytes at data offset %" PRIu64
                           ") reaches beyond the file's %zu bytes: it is truncated, fetch it again",
                           r->path, tensor->name, tensor->bytes, offsets[i], r->len);
        tensor->data = r->data + r->at + padding + (size_t)offsets[i];
    }
    return check_overlap(r, gguf);
}

/* ---- Opening */

static enum ph_status read_header(struct reader *r, struct gguf *gguf)
{
    uint64_t version, tensors, keys;
    if (r->len < 4 || memcmp(r->data, GGUF_MAGIC, 4) != 0)
        return ph_fail(r->err, PH_ERR_FORMAT, "%s: not a GGUF file: it does not begin with 'GGUF'", r->path);
    r->at = 4;
    enum ph_status status = read_uint(r, 4, "the header", &version);
    if (status != PH_OK)
        return status;
    if (version < GGUF_VERSION_MIN || version > GGUF_VERSION)
        return ph_fail(r->err, PH_ERR_UNSUPPORTED,
                       "%s: GGUF version %" PRIu64 "%s is not supported; this build reads versions %u and %u",
                       r->path, version, (version & 0xffff) == 0 ? " (a big-endian file)" : "",
                       GGUF_VERSION_MIN, GGUF_VERSION);
    status = read_uint(r, 8, "the header", &tensors);
    if (status == PH_OK)
        status = read_uint(r, 8, "the header", &keys);
    if (status != PH_OK)
        return status;
    size_t left = r->len - r->at;
    if (keys > GGUF_KEY_COUNT_MAX || tensors > GGUF_TENSOR_COUNT_MAX ||
        keys * KEY_BYTES_MIN + tensors * TENSOR_BYTES_MIN > left)
        return ph_fail(r->err, PH_ERR_FORMAT,
                       "%s: the header promises %" PRIu64 " keys and %" PRIu64
                       " tensors; %zu bytes cannot hold them (at most %d and %d are read)",
                       r->path, keys, tensors, left, GGUF_KEY_COUNT_MAX, GGUF_TENSOR_COUNT_MAX);
    gguf->key_count = (size_t)keys;
    gguf->tensor_count = (size_t)tensors;
    return PH_OK;
}

static enum ph_status read_all(struct reader *r, struct gguf *gguf)
{
    enum ph_status status = read_header(r, gguf);
    if (status != PH_OK)
        return status;
    gguf->keys = arena_calloc(&gguf->arena, gguf->key_count, sizeof *gguf->keys);
    gguf->tensors = arena_calloc(&gguf->arena, gguf->tensor_count, sizeof *gguf->tensors);
    uint64_t *offsets = arena_calloc(&gguf->arena, gguf->tensor_count, sizeof *offsets);
    if (!gguf->keys || !gguf->tensors || !offsets || !index_init(gguf, &gguf->key_index, gguf->key_count) ||
        !index_init(gguf, &gguf->tensor_index, gguf->tensor_count))
        return ph_fail(r->err, PH_ERR_NOMEM, "%s: out of memory for %zu keys and %zu tensors", r->path,
                       gguf->key_count, gguf->tensor_count);
    for (size_t i = 0; i < gguf->key_count && status == PH_OK; i++)
        status = read_key(r, gguf, i);
    for (size_t i = 0; i < gguf->tensor_count && status == PH_OK; i++)
        status = read_tensor(r, gguf, i, &offsets[i]);
    return status == PH_OK ? place_tensors(r, gguf, offsets) : status;
}

static enum ph_status open_map(struct gguf **out, struct file_map map, bool mapped, const char *name,
                               struct ph_err *err)
{
    enum ph_status status = PH_ERR_NOMEM;
    struct gguf *gguf = mem_calloc(1, sizeof *gguf);
    if (!gguf) {
        if (mapped)
            file_map_release(&map);
        return ph_fail(err, PH_ERR_NOMEM, "%s: out of memory", name);
    }
    gguf->map = map;
    gguf->mapped = mapped;
    arena_init(&gguf->arena, SIZE_MAX / 4);
    gguf->path = arena_strdup(&gguf->arena, name);
    if (gguf->path) {
        struct reader r = {.data = map.data, .len = map.len, .path = gguf->path, .err = err};
        status = read_all(&r, gguf);
    } else {
        ph_fail(err, PH_ERR_NOMEM, "%s: out of memory", name);
    }
    if (status != PH_OK) {
        gguf_free(gguf);
        return status;
    }
    *out = gguf;
    return PH_OK;
}

enum ph_status gguf_open(struct gguf **out, const char *path, struct ph_err *err)
{
    struct file_map map;
    *out = NULL;
    enum ph_status status = file_map_open(&map, path, err);
    return status == PH_OK ? open_map(out, map, true, path, err) : status;
}

enum ph_status gguf_open_memory(struct gguf **out, const void *bytes, size_t len, const char *name,
                                struct ph_err *err)
{
    *out = NULL;
    return open_map(out, (struct file_map){.data = bytes, .len = len}, false, name, err);
}

void gguf_free(struct gguf *gguf)
{
    if (!gguf)
        return;
    arena_release(&gguf->arena);
    if (gguf->mapped)
        file_map_release(&gguf->map);
    mem_free(gguf);
}

/* ---- Look-ups */

bool gguf_get_raw(const struct gguf *gguf, const char *key, struct gguf_raw *out)
{
    const struct entry *entry = find_key(gguf, key);
    if (entry)
        *out = entry->value;
    return entry;
}

bool gguf_has(const struct gguf *gguf, const char *key)
{
    return find_key(gguf, key);
}

static bool is_signed(enum gguf_type type)
{
    return type == GGUF_INT8 || type == GGUF_INT16 || type == GGUF_INT32 || type == GGUF_INT64;
}

static bool is_unsigned(enum gguf_type type)
{
    return type == GGUF_UINT8 || type == GGUF_UINT16 || type == GGUF_UINT32 || type == GGUF_UINT64;
}

static int64_t load_signed(const uint8_t *bytes, size_t width)
{
    unsigned unused_bits = 64 - 8 * (unsigned)width;
    return (int64_t)(load_le(bytes, width) << unused_bits) >> unused_bits;
}

static double load_float(const uint8_t *bytes, enum gguf_type type)
{
    if (type == GGUF_FLOAT32) {
        uint32_t bits = (uint32_t)load_le(bytes, 4);
        float value;
        memcpy(&value, &bits, sizeof value);
        return (double)value;
    }
    uint64_t bits = load_le(bytes, 8);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

bool gguf_get_uint(const struct gguf *gguf, const char *key, uint64_t *out)
{
    struct gguf_raw raw;
    if (!gguf_get_raw(gguf, key, &raw) || (!is_signed(raw.type) && !is_unsigned(raw.type)))
        return false;
    if (is_signed(raw.type) && load_signed(raw.bytes, raw.len) < 0)
        return false;
    *out = load_le(raw.bytes, raw.len);
    return true;
}

bool gguf_get_int(const struct gguf *gguf, const char *key, int64_t *out)
{
    struct gguf_raw raw;
    if (!gguf_get_raw(gguf, key, &raw) || (!is_signed(raw.type) && !is_unsigned(raw.type)))
        return false;
    if (is_unsigned(raw.type) && load_le(raw.bytes, raw.len) > INT64_MAX)
        return false;
    *out = is_signed(raw.type) ? load_signed(raw.bytes, raw.len) : (int64_t)load_le(raw.bytes, raw.len);
    return true;
}

bool gguf_get_float(const struct gguf *gguf, const char *key, double *out)
{
    struct gguf_raw raw;
    if (!gguf_get_raw(gguf, key, &raw) || (raw.type != GGUF_FLOAT32 && raw.type != GGUF_FLOAT64))
        return false;
    *out = load_float(raw.bytes, raw.type);
    return true;
}

bool gguf_get_bool(const struct gguf *gguf, const char *key, bool *out)
{
    struct gguf_raw raw;
    if (!gguf_get_raw(gguf, key, &raw) || raw.type != GGUF_BOOL)
        return false;
    *out = raw.bytes[0] != 0;
    return true;
}

bool gguf_get_string(const struct gguf *gguf, const char *key, struct gguf_string *out)
{
    struct gguf_raw raw;
    if (!gguf_get_raw(gguf, key, &raw) || raw.type != GGUF_STRING)
        return false;
    *out = (struct gguf_string){(const char *)raw.bytes + 8, raw.len - 8};
    return true;
}

bool gguf_get_array(const struct gguf *gguf, const char *key, struct gguf_array *out)
{
    struct gguf_raw raw;
    if (!gguf_get_raw(gguf, key, &raw) || raw.type != GGUF_ARRAY)
        return false;
    *out = (struct gguf_array){.type = (enum gguf_type)load_le(raw.bytes, 4),
                               .count = load_le(raw.bytes + 4, 8),
                               .data = raw.bytes + 12,
                               .data_bytes = raw.len - 12};
    return true;
}

bool gguf_array_string(const struct gguf_array *array, uint64_t *cursor, struct gguf_string *out)
{
    if (array->type != GGUF_STRING || *cursor > array->data_bytes || array->data_bytes - *cursor < 8)
        return false;
    uint64_t len = load_le(array->data + *cursor, 8), at = *cursor + 8;
    if (len > array->data_bytes - at)
        return false;
    *out = (struct gguf_string){(const char *)array->data + at, (size_t)len};
    *cursor = at + len;
    return true;
}

double gguf_array_number(const struct gguf_array *array, uint64_t index)
{
    size_t width = gguf_scalar_bytes(array->type);
    if (width == 0 || index >= array->count)
        return 0;
    const uint8_t *bytes = array->data + index * width;
    if (array->type == GGUF_FLOAT32 || array->type == GGUF_FLOAT64)
        return load_float(bytes, array->type);
    return is_signed(array->type) ? (double)load_signed(bytes, width) : (double)load_le(bytes, width);
}

size_t gguf_key_count(const struct gguf *gguf)
{
    return gguf->key_count;
}

const char *gguf_key(const struct gguf *gguf, size_t index, enum gguf_type *type)
{
    if (index >= gguf->key_count)
        return NULL;
    if (type)
        *type = gguf->keys[index].value.type;
    return gguf->keys[index].key;
}

size_t gguf_tensor_count(const struct gguf *gguf)
{
    return gguf->tensor_count;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *gguf, size_t index)
{
    return index < gguf->tensor_count ? &gguf->tensors[index] : NULL;
}

const struct gguf_tensor *gguf_tensor_find(const struct gguf *gguf, const char *name)
{
    uint32_t slot = *index_slot(&gguf->tensor_index, &gguf->tensors->name, sizeof *gguf->tensors, name);
    return slot ? &gguf->tensors[slot - 1] : NULL;
}

const char *gguf_path(const struct gguf *gguf)
{
    return gguf->path;
}

uint64_t gguf_file_bytes(const struct gguf *gguf)
{
    return gguf->map.len;
}

enum ph_status gguf_tensor_replace(struct gguf *gguf, const char *name, enum tensor_type type,
                                   const void *data, struct ph_err *err)
{
    const struct tensor_format *format = tensor_format((uint32_t)type);
    uint32_t slot = *index_slot(&gguf->tensor_index, &gguf->tensors->name, sizeof *gguf->tensors, name);
    if (!slot)
        return ph_fail(err, PH_ERR_ARG, "%s: there is no tensor '%.200s'", gguf->path, name);
    struct gguf_tensor *tensor = &gguf->tensors[slot - 1];
    uint64_t bytes;
    if (!format || !gguf_tensor_bytes(format, tensor->n_dims, tensor->dims, &bytes))
        return ph_fail(err, PH_ERR_ARG, "%s: tensor '%.200s' does not fit the format asked for", gguf->path,
                       name);
    tensor->type = type;
    tensor->bytes = (size_t)bytes;
    tensor->data = data;
    return PH_OK;
}
