/* The file: a head of HEAD_BYTES, then chunks of CHUNK_ROWS rows. A chunk holds, one after the other, the
 * rows' messages, conversations, scales, sums, codes [rows][width] and halves [rows][width], so that a search
 * reads nothing but codes and scales in a run. Numbers are the machine's own: the file is not for carrying.
 *
 * Invariants:
 *  X1  Rows [0, count) are whole, ascending by message. `count` in the head moves after the row is there.
 *  X2  Rows [0, synced) reached the disk. When a file is opened, those behind are believed as far as their
 *      sums are right: after a power cut any page may be old, and a torn tail is cut off.
 *  X3  Whoever searches sees the map of vectors->data; adding may move it, hence the owner's lock. */
#include "memory/vectors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "memory/vectors_int.h"
#include "tensor/tensor.h"

#define MAGIC "PHVEC001"
#define HEAD_BYTES ((size_t)4096)
#define CHUNK_ROWS ((size_t)256)
#define GROW_PART 4    /* a file grows by one part in so many, and at least by a chunk */
#define RERANK 4       /* so many times k are ranked again, */
#define RERANK_MORE 32 /* and so many more */

struct head {
    char magic[8];
    uint64_t width, user_hash;
    int64_t deletions;
    uint64_t count, synced;
    char space[STORE_SPACE_BYTES_MAX + 1];
};

/* One chunk's parts. */
struct chunk {
    int64_t *messages, *conversations;
    float *scales;
    uint32_t *sums;
    int8_t *codes;
    uint16_t *halves;
};

struct vectors {
    struct vector_home *home;
    const struct kernels *kernels;
    char path[PATH_BYTES_MAX];
    int64_t user;
    char space[STORE_SPACE_BYTES_MAX + 1];
    size_t width, chunk_bytes, capacity; /* rows there is room for */
    struct file_shared map;              /* data NULL: in memory */
    uint8_t *data;
    void *memory; /* not ours: what data points to */
};

static struct head *head_of(const struct vectors *v)
{
    return (struct head *)(void *)v->data;
}

static struct chunk chunk_at(const struct vectors *v, size_t index)
{
    uint8_t *at = v->data + HEAD_BYTES + index * v->chunk_bytes;
    struct chunk c = {.messages = (int64_t *)(void *)at};
    c.conversations = c.messages + CHUNK_ROWS;
    c.scales = (float *)(void *)(c.conversations + CHUNK_ROWS);
    c.sums = (uint32_t *)(void *)(c.scales + CHUNK_ROWS);
    c.codes = (int8_t *)(c.sums + CHUNK_ROWS);
    c.halves = (uint16_t *)(void *)(c.codes + CHUNK_ROWS * v->width);
    return c;
}

static size_t bytes_for(const struct vectors *v, size_t rows)
{
    return HEAD_BYTES + (rows + CHUNK_ROWS - 1) / CHUNK_ROWS * v->chunk_bytes;
}

static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    uint64_t word;
    for (; len >= 8; at += 8, len -= 8) {
        memcpy(&word, at, 8);
        hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 32;
    }
    for (; len; len--)
        hash = (hash ^ *at++) * UINT64_C(0x100000001b3);
    return hash ^ hash >> 29;
}

static uint32_t row_sum(const struct vectors *v, const struct chunk *c, size_t row)
{
    uint64_t hash = hash_bytes(1, &c->messages[row], 8);
    hash = hash_bytes(hash, &c->conversations[row], 8);
    hash = hash_bytes(hash, &c->scales[row], 4);
    hash = hash_bytes(hash, c->codes + row * v->width, v->width);
    hash = hash_bytes(hash, c->halves + row * v->width, 2 * v->width);
    return (uint32_t)(hash ^ hash >> 32);
}

/* ---- Room */
static void head_fill(struct vectors *v, int64_t deletions)
{
    struct head *head = head_of(v);
    *head = (struct head){.width = v->width, .user_hash = (uint64_t)v->user, .deletions = deletions};
    memcpy(head->magic, MAGIC, 8);
    memcpy(head->space, v->space, sizeof head->space);
}

static enum ph_status map_file(struct vectors *v, size_t bytes, struct ph_err *err)
{
    struct file_shared map;
    enum ph_status status = file_shared_open(&map, v->path, bytes, err);
    if (status != PH_OK)
        return status;
    file_shared_release(&v->map);
    v->map = map;
    v->data = map.data;
    return PH_OK;
}

static enum ph_status grow_memory(struct vectors *v, size_t bytes, struct ph_err *err)
{
    void *memory = mem_calloc(1, bytes);
    if (!memory)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for %zu bytes of vectors", bytes);
    if (v->memory)
        memcpy(memory, v->memory, bytes_for(v, v->capacity));
    mem_free(v->memory);
    v->memory = memory;
    v->data = memory;
    return PH_OK;
}

static enum ph_status reserve(struct vectors *v, size_t rows, struct ph_err *err)
{
    if (rows <= v->capacity && v->data)
        return PH_OK;
    size_t want = v->capacity + v->capacity / GROW_PART;
    want = want > rows ? want : rows;
    want = (want + CHUNK_ROWS - 1) / CHUNK_ROWS * CHUNK_ROWS;
    enum ph_status status =
        v->home->lock >= 0 ? map_file(v, bytes_for(v, want), err) : grow_memory(v, bytes_for(v, want), err);
    if (status == PH_OK)
        v->capacity = want;
    return status;
}

/* ---- Opening */
/* X2: cuts what is not whole. */
static void cut_torn(struct vectors *v)
{
    struct head *head = head_of(v);
    size_t row = head->synced < head->count ? (size_t)head->synced : (size_t)head->count;
    int64_t before = row ? chunk_at(v, (row - 1) / CHUNK_ROWS).messages[(row - 1) % CHUNK_ROWS] : 0;
    for (; row < head->count; row++) {
        struct chunk c = chunk_at(v, row / CHUNK_ROWS);
        size_t at = row % CHUNK_ROWS;
        if (c.messages[at] <= before || c.sums[at] != row_sum(v, &c, at))
            break;
        before = c.messages[at];
    }
    if (row < head->count)
        log_warn("memory", "%s: %llu of %llu vectors were not whole and are fetched again", v->path,
                 (unsigned long long)(head->count - row), (unsigned long long)head->count);
    head->count = row;
}

static bool head_is_ours(const struct vectors *v)
{
    const struct head *head = head_of(v);
    return memcmp(head->magic, MAGIC, 8) == 0 && head->width == v->width &&
           head->user_hash == (uint64_t)v->user && memcmp(head->space, v->space, sizeof v->space) == 0 &&
           head->count <= v->capacity && head->synced <= v->capacity;
}

static enum ph_status load(struct vectors *v, struct ph_err *err)
{
    struct file_stamp stamp = {0};
    size_t rows = 0;
    if (v->home->lock >= 0)
        file_stamp(v->path, &stamp);
    if (stamp.bytes > HEAD_BYTES)
        rows = (size_t)(stamp.bytes - HEAD_BYTES) / v->chunk_bytes * CHUNK_ROWS;
    enum ph_status status = reserve(v, rows ? rows : CHUNK_ROWS, err);
    if (status != PH_OK)
        return status;
    if (head_is_ours(v))
        cut_torn(v);
    else
        head_fill(v, 0);
    return PH_OK;
}

enum ph_status vectors_open(struct vectors **out, const struct vectors_params *params, struct ph_err *err)
{
    *out = NULL;
    if (params->width == 0 || params->width > VECTORS_WIDTH_MAX ||
        strlen(params->space) > STORE_SPACE_BYTES_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "vectors of %zu numbers in space %.60s cannot be kept",
                       params->width, params->space);
    struct vectors *v = mem_calloc(1, sizeof *v);
    if (!v)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for vectors");
    v->home = params->home;
    v->kernels = kernels_select(NULL);
    v->user = params->user;
    v->width = params->width;
    v->chunk_bytes = (CHUNK_ROWS * (8 + 8 + 4 + 4 + 3 * v->width) + 63) & ~(size_t)63;
    memcpy(v->space, params->space, strlen(params->space));
    uint64_t hash = hash_bytes(7, v->space, strlen(v->space));
    int len = snprintf(v->path, sizeof v->path, "%s/%lld-%016llx.vec", v->home->dir, (long long)v->user,
                       (unsigned long long)hash);
    enum ph_status status = len > 0 && (size_t)len < sizeof v->path
                                ? load(v, err)
                                : ph_fail(err, PH_ERR_LIMIT, "%s: the name is too long", v->home->dir);
    if (status == PH_OK)
        *out = v;
    else
        vectors_close(v);
    return status;
}

void vectors_close(struct vectors *vectors)
{
    if (!vectors)
        return;
    file_shared_release(&vectors->map);
    mem_free(vectors->memory);
    mem_free(vectors);
}

/* ---- Rows */
enum ph_status vectors_add(struct vectors *vectors, int64_t message, int64_t conversation,
                           const float *vector, struct ph_err *err)
{
    size_t count = vectors_count(vectors), at = count % CHUNK_ROWS;
    if (message <= vectors_last(vectors))
        return ph_fail(err, PH_ERR_ARG, "message %lld has its place before %lld", (long long)message,
                       (long long)vectors_last(vectors));
    enum ph_status status = reserve(vectors, count + 1, err);
    if (status != PH_OK)
        return status;
    struct chunk c = chunk_at(vectors, count / CHUNK_ROWS);
    c.messages[at] = message;
    c.conversations[at] = conversation;
    c.scales[at] = tensor_codes_make(vector, c.codes + at * vectors->width, vectors->width);
    tensor_kv_store(vectors->kernels, TENSOR_F16, vector, c.halves + at * vectors->width, vectors->width);
    c.sums[at] = row_sum(vectors, &c, at);
    head_of(vectors)->count = count + 1;
    return PH_OK;
}

enum ph_status vectors_clear(struct vectors *vectors, struct ph_err *err)
{
    head_fill(vectors, 0);
    return vectors_sync(vectors, err);
}

enum ph_status vectors_sync(struct vectors *vectors, struct ph_err *err)
{
    uint64_t count = head_of(vectors)->count;
    if (!vectors->map.data)
        return PH_OK;
    enum ph_status status = file_sync(vectors->path, err);
    if (status == PH_OK)
        head_of(vectors)->synced = count;
    return status;
}

int64_t vectors_deletions(const struct vectors *vectors)
{
    return head_of(vectors)->deletions;
}

void vectors_set_deletions(struct vectors *vectors, int64_t deletions)
{
    head_of(vectors)->deletions = deletions;
}

size_t vectors_count(const struct vectors *vectors)
{
    return (size_t)head_of(vectors)->count;
}

size_t vectors_width(const struct vectors *vectors)
{
    return vectors->width;
}

const char *vectors_space(const struct vectors *vectors)
{
    return vectors->space;
}

int64_t vectors_user(const struct vectors *vectors)
{
    return vectors->user;
}

static int64_t message_at(const struct vectors *v, size_t row)
{
    return chunk_at(v, row / CHUNK_ROWS).messages[row % CHUNK_ROWS];
}

int64_t vectors_last(const struct vectors *vectors)
{
    size_t count = vectors_count(vectors);
    return count ? message_at(vectors, count - 1) : 0;
}

/* The first row whose message is at least this. */
static size_t row_from(const struct vectors *v, int64_t message)
{
    size_t low = 0, high = vectors_count(v);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (message_at(v, middle) < message)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const uint16_t *vectors_halves(const struct vectors *vectors, int64_t message)
{
    size_t row = row_from(vectors, message);
    if (row == vectors_count(vectors) || message_at(vectors, row) != message)
        return NULL;
    return chunk_at(vectors, row / CHUNK_ROWS).halves + row % CHUNK_ROWS * vectors->width;
}

bool vectors_get(const struct vectors *vectors, int64_t message, float *out)
{
    const uint16_t *halves = vectors_halves(vectors, message);
    for (size_t i = 0; halves && i < vectors->width; i++)
        out[i] = tensor_f16_to_f32(halves[i]);
    return halves != NULL;
}

/* ---- Searching */
struct near {
    float score;
    uint32_t row;
};

/* The best rows so far: a heap with the worst on top. */
struct heap {
    struct near items[VECTORS_HITS_MAX * RERANK + RERANK_MORE];
    size_t count, max;
};

static bool is_worse(const struct near *a, const struct near *b)
{
    return a->score != b->score ? a->score < b->score : a->row < b->row;
}

static void sift_down(struct heap *h, size_t i)
{
    for (;;) {
        size_t child = 2 * i + 1, worst = i;
        for (size_t c = child; c < child + 2 && c < h->count; c++)
            if (is_worse(&h->items[c], &h->items[worst]))
                worst = c;
        if (worst == i)
            return;
        struct near swap = h->items[i];
        h->items[i] = h->items[worst];
        h->items[worst] = swap;
        i = worst;
    }
}

static void heap_offer(struct heap *h, struct near item)
{
    if (h->count == h->max) {
        h->items[0] = item;
        sift_down(h, 0);
        return;
    }
    size_t i = h->count++;
    for (; i > 0 && is_worse(&item, &h->items[(i - 1) / 2]); i = (i - 1) / 2)
        h->items[i] = h->items[(i - 1) / 2];
    h->items[i] = item;
}

static bool is_kept(const struct vectors_filter *filter, const struct chunk *c, size_t at)
{
    if (!filter)
        return true;
    if (filter->conversation && c->conversations[at] != filter->conversation)
        return false;
    return !filter->keep || filter->keep(filter->ud, c->messages[at]);
}

static void scan(const struct vectors *v, const int8_t *query, float scale, size_t first, size_t end,
                 const struct vectors_filter *filter, struct heap *heap)
{
    int32_t dots[CHUNK_ROWS];
    while (first < end) {
        struct chunk c = chunk_at(v, first / CHUNK_ROWS);
        size_t at = first % CHUNK_ROWS, n = CHUNK_ROWS - at < end - first ? CHUNK_ROWS - at : end - first;
        tensor_codes_dot(v->kernels, query, c.codes + at * v->width, n, v->width, dots);
        for (size_t i = 0; i < n; i++) {
            struct near item = {(float)dots[i] * c.scales[at + i] * scale, (uint32_t)(first + i)};
            if ((heap->count < heap->max || !is_worse(&item, &heap->items[0])) && is_kept(filter, &c, at + i))
                heap_offer(heap, item);
        }
        first += n;
    }
}

/* Exact scores; then the heap empties itself, worst first. */
static size_t rank(const struct vectors *v, const float *query, size_t k, struct heap *heap,
                   struct vectors_hit *hits)
{
    for (size_t i = 0; i < heap->count; i++) {
        size_t row = heap->items[i].row;
        heap->items[i].score = tensor_dot_f16(
            v->kernels, query, chunk_at(v, row / CHUNK_ROWS).halves + row % CHUNK_ROWS * v->width, v->width);
    }
    for (size_t i = heap->count / 2; i-- > 0;)
        sift_down(heap, i);
    size_t found = heap->count < k ? heap->count : k;
    while (heap->count) {
        struct near worst = heap->items[0];
        heap->items[0] = heap->items[--heap->count];
        sift_down(heap, 0);
        if (heap->count < found)
            hits[heap->count] = (struct vectors_hit){message_at(v, worst.row), worst.score};
    }
    return found;
}

size_t vectors_search(const struct vectors *vectors, const float *query, size_t k,
                      const struct vectors_filter *filter, struct vectors_hit *hits)
{
    int8_t codes[VECTORS_WIDTH_MAX];
    struct heap heap;
    size_t first = 0, end = vectors_count(vectors);
    k = k < VECTORS_HITS_MAX ? k : VECTORS_HITS_MAX;
    if (filter && filter->after > 0)
        first = row_from(vectors, filter->after + 1);
    if (filter && filter->before > 0)
        end = row_from(vectors, filter->before);
    if (k == 0 || first >= end)
        return 0;
    heap.count = 0;
    heap.max = k * RERANK + RERANK_MORE;
    float scale = tensor_codes_make(query, codes, vectors->width);
    scan(vectors, codes, scale, first, end, filter, &heap);
    return rank(vectors, query, k, &heap, hits);
}
