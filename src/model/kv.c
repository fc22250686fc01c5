/* Paged KV cache: one lazily touched mapping cut into equal pages, a stack of free ones, a page table for
 * each sequence.
 *
 * Invariants:
 *  K1  A page belongs to one sequence or lies on the free stack.
 *  K2  A sequence holds at least ceil(len / KV_PAGE_LEN) pages, in the order of its positions.
 *  K3  Everything is allocated in kv_create; taking, reserving and giving back allocate nothing.
 *  K4  A page is as large as estimates are told. */
#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "model/forward_int.h"

static size_t align64(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

static size_t pages_for(size_t len)
{
    return (len + KV_PAGE_LEN - 1) / KV_PAGE_LEN;
}

/* A layer's rows of a page are a multiple of 64 bytes long: KV_PAGE_LEN rows, of an even number of bytes. */
size_t kv_page_bytes(size_t kv_heads, size_t k_row_bytes, size_t v_row_bytes)
{
    return kv_heads * KV_PAGE_LEN * (k_row_bytes + v_row_bytes);
}

/* Lays the layers out in a page. */
static void plan_page(struct kv_cache *kv, const struct model *model)
{
    size_t at = 0, heads = 0;
    for (size_t i = 0; i < model->hp.n_layer; i++) {
        heads += model->layers[i].n_head_kv;
        size_t rows = model->layers[i].n_head_kv * KV_PAGE_LEN;
        kv->layers[i].k = at;
        at = align64(at + rows * kv->k_row_bytes);
        kv->layers[i].v = at;
        at = align64(at + rows * kv->v_row_bytes);
    }
    kv->page_bytes = at;
    assert(at == kv_page_bytes(heads, kv->k_row_bytes, kv->v_row_bytes)); /* K4 */
}

static enum ph_status check_type(const struct model *model, enum tensor_type type, struct ph_err *err)
{
    const struct tensor_format *format = tensor_format((uint32_t)type);
    if (type != TENSOR_F32 && type != TENSOR_F16 && type != TENSOR_Q8_0)
        return ph_fail(err, PH_ERR_ARG, "the KV cache can be F32, F16 or Q8_0, not %s",
                       format ? format->name : "that");
    if (model->hp.head_dim_k % format->block_len != 0 || model->hp.head_dim_v % format->block_len != 0)
        return ph_fail(err, PH_ERR_UNSUPPORTED,
                       "%s: heads of %zu and %zu values do not fill blocks of a %s KV cache; use f16",
                       model->info.name, model->hp.head_dim_k, model->hp.head_dim_v, format->name);
    return PH_OK;
}

static enum ph_status allocate(struct kv_cache *kv, size_t sequences)
{
    size_t bytes;
    if (__builtin_mul_overflow(kv->pages_total, kv->page_bytes, &bytes) || bytes > SIZE_MAX - 64)
        return PH_ERR_NOMEM;
    /* zeroed memory of that size comes from the operating system untouched: it costs nothing until used */
    kv->pages_raw = mem_calloc(bytes + 64, 1);
    kv->free_pages = mem_calloc(kv->pages_total, sizeof *kv->free_pages);
    kv->seqs = mem_calloc(sequences, sizeof *kv->seqs);
    if (!kv->pages_raw || !kv->free_pages || !kv->seqs)
        return PH_ERR_NOMEM;
    kv->pages = (uint8_t *)(((uintptr_t)kv->pages_raw + 63) & ~(uintptr_t)63);
    for (size_t i = 0; i < sequences; i++) {
        kv->seqs[i] = (struct kv_seq){.cache = kv, .pages = mem_calloc(kv->pages_seq_max, sizeof(uint32_t))};
        kv->seq_count++;
        if (!kv->seqs[i].pages)
            return PH_ERR_NOMEM;
    }
    for (size_t i = 0; i < kv->pages_total; i++) /* low pages on top */
        kv->free_pages[i] = (uint32_t)(kv->pages_total - 1 - i);
    kv->free_count = kv->pages_total;
    return PH_OK;
}

enum ph_status kv_create(struct kv_cache *kv, const struct model *model, enum tensor_type type,
                         size_t context_len, size_t bytes_max, size_t sequences, struct ph_err *err)
{
    *kv = (struct kv_cache){.type = type, .context_len = context_len};
    enum ph_status status = check_type(model, type, err);
    if (status != PH_OK)
        return status;
    kv->k_row_bytes = tensor_row_bytes(type, model->hp.head_dim_k);
    kv->v_row_bytes = tensor_row_bytes(type, model->hp.head_dim_v);
    kv->layers = mem_calloc(model->hp.n_layer, sizeof *kv->layers);
    if (!kv->layers)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the KV cache's plan");
    plan_page(kv, model);
    kv->pages_seq_max = pages_for(context_len);
    kv->pages_total = bytes_max ? bytes_max / kv->page_bytes : kv->pages_seq_max;
    if (kv->pages_total == 0)
        status = ph_fail(err, PH_ERR_ARG,
                         "the KV budget of %zu bytes holds no page: %d positions of %s take %zu bytes",
                         bytes_max, KV_PAGE_LEN, model->info.name, kv->page_bytes);
    else if (kv->pages_total > UINT32_MAX)
        kv->pages_total = UINT32_MAX;
    if (status == PH_OK && (status = allocate(kv, sequences)) != PH_OK)
        status = ph_fail(err, status, "no memory for a KV cache of %zu pages of %zu bytes and %zu sequences",
                         kv->pages_total, kv->page_bytes, sequences);
    if (status != PH_OK)
        kv_release(kv);
    return status;
}

void kv_release(struct kv_cache *kv)
{
    for (size_t i = 0; i < kv->seq_count; i++)
        mem_free(kv->seqs[i].pages);
    mem_free(kv->seqs);
    mem_free(kv->free_pages);
    mem_free(kv->pages_raw);
    mem_free(kv->layers);
    *kv = (struct kv_cache){0};
}

static void keep_pages(struct kv_seq *seq, size_t count)
{
    struct kv_cache *kv = seq->cache;
    while (seq->page_count > count)
        kv->free_pages[kv->free_count++] = seq->pages[--seq->page_count];
    assert(kv->free_count <= kv->pages_total); /* K1 */
}

struct kv_seq *kv_seq_take(struct runner *runner)
{
    struct kv_cache *kv = &runner->kv;
    for (size_t i = 0; i < kv->seq_count; i++)
        if (!kv->seqs[i].taken) {
            kv->seqs[i].taken = true;
            kv->seqs[i].len = 0;
            return &kv->seqs[i];
        }
    return NULL;
}

void kv_seq_give(struct runner *runner, struct kv_seq *seq)
{
    if (!seq)
        return;
    assert(seq->taken && seq->cache == &runner->kv);
    (void)runner;
    keep_pages(seq, 0);
    seq->len = 0;
    seq->taken = false;
}

enum ph_status kv_seq_reserve(struct runner *runner, struct kv_seq *seq, size_t len)
{
    struct kv_cache *kv = &runner->kv;
    if (len > kv->context_len)
        return PH_ERR_LIMIT;
    while (seq->page_count < pages_for(len)) {
        if (kv->free_count == 0)
            return PH_ERR_NOMEM;
        seq->pages[seq->page_count++] = kv->free_pages[--kv->free_count];
    }
    return PH_OK;
}

void kv_seq_truncate(struct runner *runner, struct kv_seq *seq, size_t len)
{
    (void)runner;
    if (seq->len > len)
        seq->len = len;
    keep_pages(seq, pages_for(len));
}

size_t kv_seq_len(const struct kv_seq *seq)
{
    return seq->len;
}

size_t runner_kv_page_len(const struct runner *runner)
{
    (void)runner;
    return KV_PAGE_LEN;
}

size_t runner_kv_pages_free(const struct runner *runner)
{
    return runner->kv.free_count;
}

size_t runner_kv_pages_total(const struct runner *runner)
{
    return runner->kv.pages_total;
}
