/* Importance matrices: for each tensor the sum of squares of every input its columns were multiplied with,
 * and how many rows were seen; their ratio is what a column's squared rounding error costs on average, when
 * inputs are taken as independent. (Counting large weights more on top of that, as llama.cpp's K formats do,
 * gave a higher perplexity in five formats of six on a model of 3 M parameters.)
 *
 * Files are llama.cpp's. GGUF: general.type "imatrix", imatrix.datasets, imatrix.chunk_count and
 * .chunk_size; for each tensor NAME.in_sum2 F32 [cols][matrices] and NAME.counts F32 [1][matrices or 1].
 * The older .dat: i32 entries; each i32 length, name, i32 calls, i32 values, F32 values (mean times calls);
 * what follows is a note about the text. Both are hostile until checked.
 *
 * Invariant: I1  in an entry `count_len` is 1 or divides `len`, and sums and counts are finite, not
 * negative. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "model/model.h"

#define SUM_SUFFIX ".in_sum2"
#define COUNT_SUFFIX ".counts"
#define LEGACY_BYTES_MAX ((size_t)1 << 31)
#define LEGACY_NAME_MAX 4096
#define NAME_MAX_BYTES 512
#define FLOOR 0.1 /* of the mean: a column that this text hardly used is not left to chance */

struct entry {
    const char *name;
    const void *weights; /* the tensor's data while collecting; entries are sorted by it */
    size_t len;          /* values: cols * matrices */
    size_t count_len;    /* 1, or one for each matrix */
    double *sums, *counts;
};

struct importance {
    struct arena arena;
    struct entry *entries;
    size_t count;
    const char *dataset;
    size_t chunks, chunk_len;
};

static enum ph_status make(struct importance **out, size_t entries, const char *path, struct ph_err *err)
{
    struct importance *imp = mem_calloc(1, sizeof *imp);
    *out = imp;
    if (imp) {
        arena_init(&imp->arena, SIZE_MAX);
        imp->entries = arena_calloc(&imp->arena, entries + 1, sizeof *imp->entries);
        imp->dataset = "";
    }
    if (imp && imp->entries)
        return PH_OK;
    importance_free(imp);
    *out = NULL;
    return ph_fail(err, PH_ERR_NOMEM, "%s: no memory for an importance matrix", path);
}

void importance_free(struct importance *importance)
{
    if (!importance)
        return;
    arena_release(&importance->arena);
    mem_free(importance);
}

static bool take_room(struct importance *imp, struct entry *e)
{
    e->sums = arena_calloc(&imp->arena, e->len, sizeof *e->sums);
    e->counts = arena_calloc(&imp->arena, e->count_len, sizeof *e->counts);
    return e->sums && e->counts;
}

/* ---- Collecting */

static int by_weights(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return (x->weights > y->weights) - (x->weights < y->weights);
}

enum ph_status importance_create(struct importance **out, const struct gguf *gguf, struct ph_err *err)
{
    size_t count = gguf_tensor_count(gguf);
    enum ph_status status = make(out, count, gguf_path(gguf), err);
    for (size_t i = 0; status == PH_OK && i < count; i++) {
        const struct gguf_tensor *t = gguf_tensor_at(gguf, i);
        struct importance *imp = *out;
        if (!quantize_is_matrix(t))
            continue;
        struct entry *e = &imp->entries[imp->count++];
        *e = (struct entry){.name = t->name, .weights = t->data};
        e->count_len = (size_t)(t->dims[2] * t->dims[3]);
        e->len = (size_t)t->dims[0] * e->count_len;
        if (!take_room(imp, e))
            status = ph_fail(err, PH_ERR_NOMEM, "%s: no memory for an importance matrix", gguf_path(gguf));
    }
    if (status != PH_OK) {
        importance_free(*out);
        *out = NULL;
        return status;
    }
    qsort((*out)->entries, (*out)->count, sizeof *(*out)->entries, by_weights);
    return PH_OK;
}

void importance_add(void *ud, const void *weights, size_t expert, const float *x, size_t n, size_t d)
{
    struct importance *imp = ud;
    const struct entry key = {.weights = weights};
    const struct entry *e = bsearch(&key, imp->entries, imp->count, sizeof key, by_weights);
    if (!e || expert >= e->count_len || e->len / e->count_len != d)
        return;
    double *sums = e->sums + expert * d;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < d; j++)
            sums[j] += (double)x[i * d + j] * (double)x[i * d + j];
    e->counts[expert] += (double)n;
}

void importance_describe(struct importance *importance, const char *dataset, size_t chunks, size_t chunk_len)
{
    const char *copy = arena_strdup(&importance->arena, dataset);
    importance->dataset = copy ? copy : "";
    importance->chunks = chunks;
    importance->chunk_len = chunk_len;
}

size_t importance_count(const struct importance *importance)
{
    return importance->count;
}

static const struct entry *find(const struct importance *imp, const char *name)
{
    for (size_t i = 0; i < imp->count; i++)
        if (strcmp(imp->entries[i].name, name) == 0)
            return &imp->entries[i];
    return NULL;
}

bool importance_weights(const struct importance *importance, const struct gguf_tensor *t, float *out)
{
    const struct entry *e = find(importance, t->name);
    size_t cols = (size_t)t->dims[0], matrices = (size_t)(t->dims[2] * t->dims[3]);
    bool useful = false;
    if (!e || e->len != cols * matrices || (e->count_len != 1 && e->count_len != matrices))
        return false;
    for (size_t m = 0; m < matrices; m++) {
        double count = e->counts[e->count_len == 1 ? 0 : m], sum = 0;
        const double *sums = e->sums + m * cols;
        for (size_t j = 0; j < cols; j++)
            sum += sums[j];
        bool seen = count > 0 && sum > 0;
        for (size_t j = 0; j < cols; j++)
            out[m * cols + j] = seen ? (float)((sums[j] + FLOOR * sum / (double)cols) / count) : 1.0f;
        useful = useful || seen;
    }
    return useful;
}

/* ---- Writing */

static void write_tensors(struct gguf_writer *w, const struct importance *imp, bool data)
{
    for (size_t i = 0; i < imp->count; i++) {
        const struct entry *e = &imp->entries[i];
        char name[NAME_MAX_BYTES];
        const uint64_t sum_dims[2] = {e->len / e->count_len, e->count_len}, count_dims[2] = {1, e->count_len};
        double seen = 0;
        for (size_t m = 0; m < e->count_len; m++)
            seen += e->counts[m];
        if (!(seen > 0)) /* an embedding that is only looked up */
            continue;
        for (size_t k = 0; data && k < e->len; k++)
            gguf_writer_data(w, &(float){(float)e->sums[k]}, sizeof(float));
        for (size_t k = 0; data && k < e->count_len; k++)
            gguf_writer_data(w, &(float){(float)e->counts[k]}, sizeof(float));
        if (data)
            continue;
        snprintf(name, sizeof name, "%s" SUM_SUFFIX, e->name);
        gguf_writer_describe(w, name, TENSOR_F32, 2, sum_dims);
        snprintf(name, sizeof name, "%s" COUNT_SUFFIX, e->name);
        gguf_writer_describe(w, name, TENSOR_F32, 2, count_dims);
    }
}

enum ph_status importance_write(const struct importance *importance, const char *path, struct ph_err *err)
{
    struct gguf_writer *w;
    enum ph_status status = gguf_writer_open(&w, path, err);
    if (status != PH_OK)
        return status;
    size_t len = strlen(importance->dataset);
    struct buf dataset;
    buf_init(&dataset, len + 8);
    for (int i = 0; i < 8; i++)
        buf_putc(&dataset, (char)((uint64_t)len >> (8 * i)));
    buf_puts(&dataset, importance->dataset);
    if (buf_status(&dataset) == PH_OK) {
        gguf_writer_set_string(w, "general.type", "imatrix", 7);
        gguf_writer_set_array(w, "imatrix.datasets",
                              &(struct gguf_array){.type = GGUF_STRING,
                                                   .count = 1,
                                                   .data = (const uint8_t *)dataset.data,
                                                   .data_bytes = dataset.len});
        gguf_writer_set_uint(w, "imatrix.chunk_count", (uint32_t)importance->chunks);
        gguf_writer_set_uint(w, "imatrix.chunk_size", (uint32_t)importance->chunk_len);
        write_tensors(w, importance, false);
        write_tensors(w, importance, true);
        status = gguf_writer_close(w, err);
    } else {
        gguf_writer_abandon(w);
        status = ph_fail(err, PH_ERR_NOMEM, "%s: no memory to write it", path);
    }
    buf_release(&dataset);
    return status;
}

/* ---- Reading */

/* I1 for the numbers of an entry. */
static bool read_floats(const uint8_t *bytes, size_t len, double scale, double *out)
{
    for (size_t i = 0; i < len; i++) {
        float value;
        memcpy(&value, bytes + 4 * i, sizeof value);
        if (!isfinite(value) || value < 0)
            return false;
        out[i] = (double)value * scale;
    }
    return true;
}

static bool ends_with(const char *text, const char *suffix)
{
    size_t len = strlen(text), suffix_len = strlen(suffix);
    return len > suffix_len && strcmp(text + len - suffix_len, suffix) == 0;
}

static enum ph_status read_gguf_entry(struct importance *imp, const struct gguf *gguf,
                                      const struct gguf_tensor *sums, struct ph_err *err)
{
    struct entry *e = &imp->entries[imp->count];
    char counts_name[NAME_MAX_BYTES];
    size_t stem = strlen(sums->name) - strlen(SUM_SUFFIX);
    e->name = arena_strndup(&imp->arena, sums->name, stem);
    int wanted = snprintf(counts_name, sizeof counts_name, "%.*s" COUNT_SUFFIX, (int)stem, sums->name);
    const struct gguf_tensor *counts =
        (size_t)wanted < sizeof counts_name ? gguf_tensor_find(gguf, counts_name) : NULL;
    if (!counts || counts->type != TENSOR_F32 || sums->type != TENSOR_F32)
        return ph_fail(err, PH_ERR_FORMAT, "%s: '%.200s' has no counts, or is not F32", gguf_path(gguf),
                       sums->name);
    e->len = sums->bytes / sizeof(float);
    e->count_len = counts->bytes / sizeof(float);
    if (e->count_len != 1 && e->len / sums->dims[0] != e->count_len)
        return ph_fail(err, PH_ERR_FORMAT, "%s: '%.200s' has %zu counts for %zu matrices", gguf_path(gguf),
                       sums->name, e->count_len, (size_t)(e->len / sums->dims[0]));
    if (!e->name || !take_room(imp, e))
        return ph_fail(err, PH_ERR_NOMEM, "%s: no memory for '%.200s'", gguf_path(gguf), sums->name);
    if (!read_floats(sums->data, e->len, 1, e->sums) ||
        !read_floats(counts->data, e->count_len, 1, e->counts))
        return ph_fail(err, PH_ERR_FORMAT, "%s: '%.200s' holds a number that is negative or not finite",
                       gguf_path(gguf), sums->name);
    imp->count++;
    return PH_OK;
}

static enum ph_status read_gguf(struct importance **out, const char *path, struct ph_err *err)
{
    struct gguf *gguf;
    struct gguf_string type;
    enum ph_status status = gguf_open(&gguf, path, err);
    if (status != PH_OK)
        return status;
    if (!gguf_get_string(gguf, "general.type", &type) || type.len != 7 ||
        memcmp(type.text, "imatrix", 7) != 0)
        status = ph_fail(err, PH_ERR_FORMAT,
                         "%s is no importance matrix (general.type is not \"imatrix\"); make one with pharos "
                         "quantize --text T --keep-importance F",
                         path);
    if (status == PH_OK)
        status = make(out, gguf_tensor_count(gguf), path, err);
    for (size_t i = 0; status == PH_OK && i < gguf_tensor_count(gguf); i++)
        if (ends_with(gguf_tensor_at(gguf, i)->name, SUM_SUFFIX))
            status = read_gguf_entry(*out, gguf, gguf_tensor_at(gguf, i), err);
    gguf_free(gguf);
    return status;
}

struct cursor {
    const uint8_t *data;
    size_t len, at;
};

static bool read_i32(struct cursor *c, int32_t *out)
{
    if (c->len - c->at < 4)
        return false;
    uint32_t value = 0;
    for (int i = 0; i < 4; i++)
        value |= (uint32_t)c->data[c->at + (size_t)i] << (8 * i);
    memcpy(out, &value, sizeof *out);
    c->at += 4;
    return true;
}

static bool read_legacy_entry(struct importance *imp, struct cursor *c)
{
    struct entry *e = &imp->entries[imp->count];
    int32_t name_len, calls, values;
    if (!read_i32(c, &name_len) || name_len <= 0 || name_len > LEGACY_NAME_MAX ||
        (size_t)name_len > c->len - c->at)
        return false;
    e->name = arena_strndup(&imp->arena, (const char *)c->data + c->at, (size_t)name_len);
    c->at += (size_t)name_len;
    if (!read_i32(c, &calls) || !read_i32(c, &values) || values <= 0 ||
        (size_t)values > (c->len - c->at) / sizeof(float))
        return false;
    e->len = (size_t)values;
    e->count_len = 1;
    if (!e->name || !take_room(imp, e) || !read_floats(c->data + c->at, e->len, 1, e->sums))
        return false;
    e->counts[0] = calls > 0 ? (double)calls : 1;
    c->at += e->len * sizeof(float);
    imp->count++;
    return true;
}

static enum ph_status read_legacy(struct importance **out, const char *path, const struct file_map *map,
                                  struct ph_err *err)
{
    struct cursor c = {.data = map->data, .len = map->len};
    int32_t entries = 0;
    if (!read_i32(&c, &entries) || entries <= 0 || (size_t)entries > map->len / 16)
        return ph_fail(err, PH_ERR_FORMAT, "%s is neither a GGUF nor a .dat importance matrix", path);
    enum ph_status status = make(out, (size_t)entries, path, err);
    for (int32_t i = 0; status == PH_OK && i < entries; i++) {
        size_t at = c.at;
        if (!read_legacy_entry(*out, &c))
            status = ph_fail(err, PH_ERR_FORMAT,
                             "%s: entry %d at byte %zu is cut short or makes no sense; fetch the file again",
                             path, (int)i + 1, at);
    }
    return status;
}

enum ph_status importance_open(struct importance **out, const char *path, struct ph_err *err)
{
    struct file_map map;
    *out = NULL;
    enum ph_status status = file_map_open(&map, path, err);
    if (status != PH_OK)
        return status;
    if (map.len >= 4 && memcmp(map.data, "GGUF", 4) == 0)
        status = read_gguf(out, path, err);
    else
        status = read_legacy(out, path, &map, err);
    file_map_release(&map);
    if (status == PH_OK && (*out)->count == 0)
        status = ph_fail(err, PH_ERR_FORMAT, "%s: there is no tensor in this importance matrix", path);
    if (status != PH_OK) {
        importance_free(*out);
        *out = NULL;
    }
    return status;
}
