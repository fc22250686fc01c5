/* The documents of a token file as one run of tokens, for those who read it without batches, and what
 * tokens spell. */
#include "base/limits.h"
#include "base/mem.h"
#include "train/corpus.h"

int32_t *corpus_copy(const struct corpus *corpus, enum corpus_part part, int32_t *out)
{
    for (uint64_t d = 0; d < corpus_totals(corpus, CORPUS_ALL)->documents; d++) {
        struct corpus_doc doc = corpus_doc(corpus, d);
        for (uint64_t i = 0; (part == CORPUS_ALL || doc.part == part) && i < doc.count; i++)
            *out++ = corpus_token(corpus, doc.first + i);
    }
    return out;
}

uint32_t *corpus_piece_bytes(const struct vocab *vocab)
{
    char piece[VOCAB_TOKEN_BYTES_MAX];
    size_t count = vocab_info(vocab)->n_tokens;
    uint32_t *bytes = mem_calloc(count, sizeof *bytes);
    for (size_t id = 0; bytes && id < count; id++)
        bytes[id] = (uint32_t)vocab_piece(vocab, (int32_t)id, false, piece);
    return bytes;
}

static enum ph_status join(const struct corpus *corpus, enum corpus_part part, const char *path,
                           struct token_list *out, struct ph_err *err)
{
    size_t count = (size_t)corpus_totals(corpus, part)->tokens;
    if (count == 0)
        return ph_fail(err, PH_ERR_ARG, "%s: no document is %s", path,
                       part == CORPUS_HELD_OUT ? "held out" : "in this part");
    int32_t *ids = mem_realloc(out->ids, out->len + count, sizeof *ids);
    if (!ids)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for %zu tokens", count);
    out->ids = ids;
    corpus_copy(corpus, part, ids + out->len);
    out->len += count;
    out->cap = out->len;
    return PH_OK;
}

enum ph_status corpus_join(const char *path, const struct gguf *gguf, enum corpus_part part,
                           struct token_list *out, struct ph_err *err)
{
    struct corpus *corpus;
    enum ph_status status = corpus_open(&corpus, path, err);
    if (status != PH_OK)
        return status;
    if (corpus_vocab_hash(gguf) != corpus_params(corpus)->vocab_hash)
        status = ph_fail(err, PH_ERR_ARG, "%s was made with another vocabulary than that of %s", path,
                         gguf_path(gguf));
    else
        status = join(corpus, part, path, out, err);
    corpus_free(corpus);
    return status;
}
