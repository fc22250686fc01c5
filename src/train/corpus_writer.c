/* Writing token files. Tokens go out as they come, through a buffer; a bit a token and a row a document wait
 * in memory. The header, which needs the sums, is written over its place at the end, and the file takes its
 * name only then. */
#include <inttypes.h>

#include "base/file.h"
#include "base/limits.h"
#include "train/corpus_int.h"
#include "train/train.h"

#define FILE_MODE 0644
#define PENDING_BYTES ((size_t)1 << 20) /* a multiple of 8: see corpus_hash_more */

struct corpus_writer {
    struct file_out file;
    struct corpus_params params;
    size_t width;
    uint64_t doc_count, token_count, text_bytes, written;
    uint64_t tokens_hash;
    uint8_t *pending; /* [PENDING_BYTES] */
    size_t pending_len;
    uint8_t *targets;
    size_t targets_cap;
    uint8_t *docs;
    size_t docs_cap;
};

static void put_uint(uint8_t *at, uint64_t value, size_t width)
{
    for (size_t i = 0; i < width; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

enum ph_status corpus_writer_open(struct corpus_writer **out, const char *path,
                                  const struct corpus_params *params, struct ph_err *err)
{
    static const uint8_t zeros[CORPUS_HEADER_BYTES];
    *out = NULL;
    if (params->n_vocab == 0 || params->n_vocab > VOCAB_TOKENS_MAX || params->held_out_ppm > CORPUS_PPM)
        return ph_fail(err, PH_ERR_ARG, "%s: a vocabulary of %zu tokens, %u ppm held out: out of range", path,
                       params->n_vocab, params->held_out_ppm);
    struct corpus_writer *w = mem_calloc(1, sizeof *w);
    uint8_t *pending = mem_alloc(PENDING_BYTES);
    if (!w || !pending) {
        mem_free(w);
        mem_free(pending);
        return ph_fail(err, PH_ERR_NOMEM, "%s: no memory to write it", path);
    }
    w->params = *params;
    w->width = corpus_token_width(params->n_vocab);
    w->tokens_hash = CORPUS_HASH_BEGIN;
    w->pending = pending;
    enum ph_status status = file_out_open(&w->file, path, FILE_MODE, err);
    if (status == PH_OK)
        status = file_out_write(&w->file, zeros, sizeof zeros, err);
    w->written = sizeof zeros;
    if (status == PH_OK)
        *out = w;
    else
        corpus_writer_abandon(w);
    return status;
}

void corpus_writer_abandon(struct corpus_writer *writer)
{
    if (!writer)
        return;
    file_out_abandon(&writer->file);
    mem_free(writer->pending);
    mem_free(writer->targets);
    mem_free(writer->docs);
    mem_free(writer);
}

/* ---- Documents */

static enum ph_status write_out(struct corpus_writer *w, const void *bytes, size_t len, struct ph_err *err)
{
    w->written += len;
    return len ? file_out_write(&w->file, bytes, len, err) : PH_OK;
}

static enum ph_status flush(struct corpus_writer *w, struct ph_err *err)
{
    size_t len = w->pending_len;
    w->tokens_hash = corpus_hash_more(w->tokens_hash, w->pending, len);
    w->pending_len = 0;
    return write_out(w, w->pending, len, err);
}

static bool make_room(struct corpus_writer *w, size_t count)
{
    size_t tokens = (size_t)w->token_count + count, before = w->targets_cap;
    if (!corpus_room(&w->docs, &w->docs_cap, (size_t)(w->doc_count + 2) * CORPUS_DOC_BYTES, 1))
        return false;
    if (w->params.targets && !corpus_room(&w->targets, &w->targets_cap, (tokens + 7) / 8, 1))
        return false;
    if (w->targets_cap > before)
        memset(w->targets + before, 0, w->targets_cap - before);
    return true;
}

static void put_doc(struct corpus_writer *w, uint64_t hash, uint64_t text_bytes)
{
    uint8_t *row = w->docs + w->doc_count * CORPUS_DOC_BYTES;
    put_uint(row, w->token_count, 8);
    put_uint(row + 8, hash, 8);
    put_uint(row + 16, text_bytes, 8);
}

enum ph_status corpus_writer_add(struct corpus_writer *writer, const int32_t *ids, const uint8_t *targets,
                                 size_t count, uint64_t hash, uint64_t text_bytes, struct ph_err *err)
{
    struct corpus_writer *w = writer;
    enum ph_status status = PH_OK;
    if (count == 0)
        return ph_fail(err, PH_ERR_ARG, "%s: document %" PRIu64 " has no tokens", w->file.path, w->doc_count);
    if (!make_room(w, count))
        return ph_fail(err, PH_ERR_NOMEM, "%s: no memory for document %" PRIu64, w->file.path, w->doc_count);
    put_doc(w, hash, text_bytes);
    for (size_t i = 0; i < count && status == PH_OK; i++, w->token_count++) {
        if (ids[i] < 0 || (size_t)ids[i] >= w->params.n_vocab)
            return ph_fail(err, PH_ERR_ARG, "%s: document %" PRIu64 ": the vocabulary has no token %d",
                           w->file.path, w->doc_count, (int)ids[i]);
        put_uint(w->pending + w->pending_len, (uint64_t)ids[i], w->width);
        w->pending_len += w->width;
        if (w->params.targets && (!targets || targets[i]))
            w->targets[w->token_count / 8] |= (uint8_t)(1u << (w->token_count % 8));
        if (w->pending_len == PENDING_BYTES)
            status = flush(w, err);
    }
    w->doc_count++;
    w->text_bytes += text_bytes;
    return status;
}

/* ---- The end */

static enum ph_status pad(struct corpus_writer *w, struct ph_err *err)
{
    static const uint8_t zeros[8];
    return write_out(w, zeros, (size_t)(corpus_align(w->written) - w->written), err);
}

static void make_header(const struct corpus_writer *w, uint8_t h[CORPUS_HEADER_BYTES], uint64_t targets_at,
                        uint64_t docs_at)
{
    uint64_t targets_len = w->params.targets ? (w->token_count + 7) / 8 : 0;
    memset(h, 0, CORPUS_HEADER_BYTES);
    memcpy(h + AT_MAGIC, CORPUS_MAGIC, 8);
    put_uint(h + AT_VERSION, CORPUS_VERSION, 4);
    put_uint(h + AT_HEADER_BYTES, CORPUS_HEADER_BYTES, 4);
    put_uint(h + AT_VOCAB, w->params.n_vocab, 4);
    put_uint(h + AT_WIDTH, w->width, 4);
    put_uint(h + AT_FLAGS, w->params.targets ? CORPUS_FLAG_TARGETS : 0, 4);
    put_uint(h + AT_HELD_OUT, w->params.held_out_ppm, 4);
    put_uint(h + AT_VOCAB_HASH, w->params.vocab_hash, 8);
    put_uint(h + AT_DOCS, w->doc_count, 8);
    put_uint(h + AT_TOKENS, w->token_count, 8);
    put_uint(h + AT_TEXT_BYTES, w->text_bytes, 8);
    put_uint(h + AT_SEED, w->params.split_seed, 8);
    put_uint(h + AT_TARGETS_AT, targets_at, 8);
    put_uint(h + AT_DOCS_AT, docs_at, 8);
    put_uint(h + AT_FILE_BYTES, w->written, 8);
    if (w->token_count)
        put_uint(h + AT_TOKENS_SUM, corpus_sum_end(w->tokens_hash, w->token_count * w->width), 8);
    if (targets_len)
        put_uint(h + AT_TARGETS_SUM, corpus_sum(w->targets, (size_t)targets_len), 8);
    put_uint(h + AT_DOCS_SUM, corpus_sum(w->docs, (size_t)(w->doc_count + 1) * CORPUS_DOC_BYTES), 8);
    put_uint(h + AT_HEADER_SUM, corpus_sum(h, AT_HEADER_SUM), 8);
}

static enum ph_status finish(struct corpus_writer *w, struct ph_err *err)
{
    uint8_t header[CORPUS_HEADER_BYTES];
    uint64_t targets_at = 0, docs_at;
    if (!make_room(w, 0))
        return ph_fail(err, PH_ERR_NOMEM, "%s: no memory to finish it", w->file.path);
    put_doc(w, 0, 0);
    enum ph_status status = flush(w, err);
    if (status == PH_OK)
        status = pad(w, err);
    if (status == PH_OK && w->params.targets) {
        targets_at = w->written;
        status = write_out(w, w->targets, (size_t)((w->token_count + 7) / 8), err);
        if (status == PH_OK)
            status = pad(w, err);
    }
    docs_at = w->written;
    if (status == PH_OK)
        status = write_out(w, w->docs, (size_t)(w->doc_count + 1) * CORPUS_DOC_BYTES, err);
    if (status != PH_OK)
        return status;
    make_header(w, header, targets_at, docs_at);
    return file_out_rewrite(&w->file, 0, header, sizeof header, err);
}

enum ph_status corpus_writer_close(struct corpus_writer *writer, struct ph_err *err)
{
    enum ph_status status = finish(writer, err);
    if (status == PH_OK)
        status = file_out_commit(&writer->file, err);
    corpus_writer_abandon(writer);
    return status;
}
