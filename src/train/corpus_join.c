/* The documents of a token file as one run of tokens, for those who read it without batches. */
#include "base/mem.h"
#include "train/corpus.h"

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
    for (uint64_t d = 0; d < corpus_totals(corpus, CORPUS_ALL)->documents; d++) {
        struct corpus_doc doc = corpus_doc(corpus, d);
        for (uint64_t i = 0; (part == CORPUS_ALL || doc.part == part) && i < doc.count; i++)
            ids[out->len++] = corpus_token(corpus, doc.first + i);
    }
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
