/* Reading token files. Every field of the header is checked against the others and against the file's length
 * before anything is followed; then the sums, the documents and the ids, in one pass over the file. So later
 * reads need no checks:
 *   C1 every token is below the vocabulary's size;
 *   C2 documents are in order, none is empty, and together they are all the tokens. */
#include <inttypes.h>

#include "base/file.h"
#include "base/limits.h"
#include "train/corpus_int.h"
#include "train/train.h"

struct corpus {
    struct file_map map; /* data NULL: the bytes are somebody else's */
    const uint8_t *bytes, *tokens, *targets, *docs;
    size_t width;
    struct corpus_params params;
    struct corpus_totals totals[3];
};

struct opening {
    struct corpus *corpus;
    const char *name;
    uint64_t len, doc_count, token_count, text_bytes, docs_at, targets_at;
    struct ph_err *err;
};

static uint64_t get_uint(const uint8_t *at, size_t width)
{
    uint64_t value = 0;
    for (size_t i = 0; i < width; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static enum ph_status bad(const struct opening *o, uint64_t offset, const char *what)
{
    return ph_fail(o->err, PH_ERR_FORMAT,
                   "%s: byte %" PRIu64 ": %s; make the file again with pharos train data", o->name, offset,
                   what);
}

/* ---- The header */

static enum ph_status read_identity(const struct opening *o)
{
    const uint8_t *h = o->corpus->bytes;
    if (o->len < CORPUS_HEADER_BYTES)
        return bad(o, o->len, "the file is too short for a header of 128 bytes");
    if (memcmp(h, CORPUS_MAGIC, 8) != 0)
        return bad(o, AT_MAGIC, "this is no token file (it would begin with " CORPUS_MAGIC ")");
    if (get_uint(h + AT_VERSION, 4) != CORPUS_VERSION)
        return bad(o, AT_VERSION, "this version of the format is not known");
    if (get_uint(h + AT_HEADER_BYTES, 4) != CORPUS_HEADER_BYTES)
        return bad(o, AT_HEADER_BYTES, "the header's length is not 128");
    if (get_uint(h + AT_HEADER_SUM, 8) != corpus_sum(h, AT_HEADER_SUM))
        return bad(o, AT_HEADER_SUM, "the header's checksum is wrong, it was damaged");
    return PH_OK;
}

static enum ph_status read_sizes(struct opening *o)
{
    struct corpus *c = o->corpus;
    const uint8_t *h = c->bytes;
    c->params = (struct corpus_params){.n_vocab = (size_t)get_uint(h + AT_VOCAB, 4),
                                       .vocab_hash = get_uint(h + AT_VOCAB_HASH, 8),
                                       .targets = get_uint(h + AT_FLAGS, 4) == CORPUS_FLAG_TARGETS,
                                       .held_out_ppm = (uint32_t)get_uint(h + AT_HELD_OUT, 4),
                                       .split_seed = get_uint(h + AT_SEED, 8)};
    c->width = (size_t)get_uint(h + AT_WIDTH, 4);
    o->doc_count = get_uint(h + AT_DOCS, 8);
    o->token_count = get_uint(h + AT_TOKENS, 8);
    o->text_bytes = get_uint(h + AT_TEXT_BYTES, 8);
    if (c->params.n_vocab == 0 || c->params.n_vocab > VOCAB_TOKENS_MAX)
        return bad(o, AT_VOCAB, "an impossible size of vocabulary");
    if (c->width != corpus_token_width(c->params.n_vocab))
        return bad(o, AT_WIDTH, "the width of a token does not fit the vocabulary");
    if (get_uint(h + AT_FLAGS, 4) > CORPUS_FLAG_TARGETS)
        return bad(o, AT_FLAGS, "an unknown flag");
    if (c->params.held_out_ppm > CORPUS_PPM)
        return bad(o, AT_HELD_OUT, "more than everything is held out");
    if (o->token_count > o->len)
        return bad(o, AT_TOKENS, "more tokens than the file has bytes");
    if (o->doc_count > o->token_count)
        return bad(o, AT_DOCS, "more documents than tokens");
    return PH_OK;
}

static enum ph_status read_places(struct opening *o)
{
    struct corpus *c = o->corpus;
    const uint8_t *h = c->bytes;
    uint64_t end = corpus_align(CORPUS_HEADER_BYTES + o->token_count * c->width);
    o->targets_at = get_uint(h + AT_TARGETS_AT, 8);
    o->docs_at = get_uint(h + AT_DOCS_AT, 8);
    if (o->targets_at != (c->params.targets ? end : 0))
        return bad(o, AT_TARGETS_AT, "the targets are not where they must be");
    if (c->params.targets)
        end = corpus_align(end + (o->token_count + 7) / 8);
    if (o->docs_at != end)
        return bad(o, AT_DOCS_AT, "the documents are not where they must be");
    end += (o->doc_count + 1) * CORPUS_DOC_BYTES;
    if (get_uint(h + AT_FILE_BYTES, 8) != end)
        return bad(o, AT_FILE_BYTES, "the file's length does not fit its contents");
    if (end != o->len)
        return bad(o, o->len, "the file was cut, or something was appended to it");
    c->tokens = c->bytes + CORPUS_HEADER_BYTES;
    c->targets = c->params.targets ? c->bytes + o->targets_at : NULL;
    c->docs = c->bytes + o->docs_at;
    return PH_OK;
}

/* ---- The contents */

static enum ph_status check_sum(const struct opening *o, uint64_t at, uint64_t len, enum corpus_offset sum,
                                const char *what)
{
    const uint8_t *bytes = o->corpus->bytes;
    if (get_uint(bytes + sum, 8) != (len ? corpus_sum(bytes + at, (size_t)len) : 0))
        return bad(o, at, what);
    return PH_OK;
}

static enum ph_status check_zeros(const struct opening *o, uint64_t at)
{
    for (; at % 8 != 0; at++)
        if (o->corpus->bytes[at] != 0)
            return bad(o, at, "something lies between the sections");
    return PH_OK;
}

static enum ph_status check_sums(const struct opening *o)
{
    const struct corpus *c = o->corpus;
    uint64_t targets_len = c->params.targets ? (o->token_count + 7) / 8 : 0;
    enum ph_status status = check_sum(o, CORPUS_HEADER_BYTES, o->token_count * c->width, AT_TOKENS_SUM,
                                      "the checksum of the tokens from here on is wrong");
    if (status == PH_OK)
        status = check_zeros(o, CORPUS_HEADER_BYTES + o->token_count * c->width);
    if (status == PH_OK)
        status = check_zeros(o, o->targets_at + targets_len);
    if (status == PH_OK)
        status = check_sum(o, o->targets_at, targets_len, AT_TARGETS_SUM,
                           "the checksum of the targets from here on is wrong");
    if (status == PH_OK)
        status = check_sum(o, o->docs_at, (o->doc_count + 1) * CORPUS_DOC_BYTES, AT_DOCS_SUM,
                           "the checksum of the documents from here on is wrong");
    return status;
}

static enum ph_status check_tokens(const struct opening *o)
{
    const struct corpus *c = o->corpus;
    for (uint64_t i = 0; i < o->token_count; i++)
        if ((uint32_t)corpus_token(c, i) >= c->params.n_vocab)
            return bad(o, CORPUS_HEADER_BYTES + i * c->width, "a token that the vocabulary has not");
    return PH_OK;
}

static void count_doc(struct corpus *c, const struct corpus_doc *doc)
{
    uint64_t targets = c->params.targets ? 0 : doc->count;
    for (uint64_t i = doc->first; c->params.targets && i < doc->first + doc->count; i++)
        targets += corpus_is_target(c, i);
    for (int part = 0; part <= CORPUS_ALL; part++) {
        if (part != CORPUS_ALL && part != (int)doc->part)
            continue;
        c->totals[part].documents++;
        c->totals[part].tokens += doc->count;
        c->totals[part].targets += targets;
        c->totals[part].text_bytes += doc->text_bytes;
    }
}

static enum ph_status check_docs(const struct opening *o)
{
    struct corpus *c = o->corpus;
    uint64_t first = 0;
    for (uint64_t i = 0; i <= o->doc_count; i++) {
        uint64_t at = o->docs_at + i * CORPUS_DOC_BYTES;
        uint64_t start = get_uint(c->bytes + at, 8), text_bytes = get_uint(c->bytes + at + 16, 8);
        if (i == 0 ? start != 0 : start <= first || start > o->token_count)
            return bad(o, at, "a document that begins where it cannot");
        if (text_bytes > UINT64_MAX / 2 - c->totals[CORPUS_ALL].text_bytes)
            return bad(o, at + 16, "an impossible length of a document's text");
        if (i > 0) {
            struct corpus_doc doc = corpus_doc(c, i - 1);
            count_doc(c, &doc);
        }
        first = start;
    }
    if (first != o->token_count)
        return bad(o, o->docs_at + o->doc_count * CORPUS_DOC_BYTES, "the documents are not all the tokens");
    if (c->totals[CORPUS_ALL].text_bytes != o->text_bytes)
        return bad(o, AT_TEXT_BYTES, "the bytes of text are not the documents' sum");
    return PH_OK;
}

/* ---- Opening */

static enum ph_status open_bytes(struct corpus *corpus, const void *bytes, size_t len, const char *name,
                                 struct ph_err *err)
{
    struct opening o = {.corpus = corpus, .name = name, .len = len, .err = err};
    corpus->bytes = bytes;
    enum ph_status status = read_identity(&o);
    if (status == PH_OK)
        status = read_sizes(&o);
    if (status == PH_OK)
        status = read_places(&o);
    if (status == PH_OK)
        status = check_sums(&o);
    if (status == PH_OK)
        status = check_tokens(&o);
    return status == PH_OK ? check_docs(&o) : status;
}

static enum ph_status create(struct corpus **out, struct file_map map, const void *bytes, size_t len,
                             const char *name, struct ph_err *err)
{
    struct corpus *corpus = mem_calloc(1, sizeof *corpus);
    enum ph_status status = PH_ERR_NOMEM;
    if (!corpus) {
        file_map_release(&map);
        return ph_fail(err, status, "%s: no memory to open it", name);
    }
    corpus->map = map;
    status = open_bytes(corpus, bytes, len, name, err);
    if (status == PH_OK)
        *out = corpus;
    else
        corpus_free(corpus);
    return status;
}

enum ph_status corpus_open(struct corpus **out, const char *path, struct ph_err *err)
{
    struct file_map map;
    *out = NULL;
    enum ph_status status = file_map_open(&map, path, err);
    return status == PH_OK ? create(out, map, map.data, map.len, path, err) : status;
}

enum ph_status corpus_open_memory(struct corpus **out, const void *bytes, size_t len, const char *name,
                                  struct ph_err *err)
{
    *out = NULL;
    return create(out, (struct file_map){.data = NULL}, bytes, len, name, err);
}

void corpus_free(struct corpus *corpus)
{
    if (!corpus)
        return;
    file_map_release(&corpus->map);
    mem_free(corpus);
}

/* ---- Looking */

const struct corpus_params *corpus_params(const struct corpus *corpus)
{
    return &corpus->params;
}

const struct corpus_totals *corpus_totals(const struct corpus *corpus, enum corpus_part part)
{
    return &corpus->totals[part];
}

struct corpus_doc corpus_doc(const struct corpus *corpus, uint64_t index)
{
    const uint8_t *at = corpus->docs + index * CORPUS_DOC_BYTES;
    uint64_t first = get_uint(at, 8), hash = get_uint(at + 8, 8);
    bool held_out = corpus_holds_out(hash, corpus->params.split_seed, corpus->params.held_out_ppm);
    return (struct corpus_doc){.first = first,
                               .count = get_uint(at + CORPUS_DOC_BYTES, 8) - first,
                               .hash = hash,
                               .text_bytes = get_uint(at + 16, 8),
                               .part = held_out ? CORPUS_HELD_OUT : CORPUS_TRAIN};
}

int32_t corpus_token(const struct corpus *corpus, uint64_t index)
{
    return (int32_t)get_uint(corpus->tokens + index * corpus->width, corpus->width);
}

bool corpus_is_target(const struct corpus *corpus, uint64_t index)
{
    return !corpus->targets || corpus->targets[index / 8] >> (index % 8) & 1;
}

/* ---- Which tokenizer */

uint64_t corpus_vocab_hash(const struct gguf *gguf)
{
    static const char *const texts[] = {"tokenizer.ggml.model", "tokenizer.ggml.pre"};
    static const char *const arrays[] = {"tokenizer.ggml.tokens", "tokenizer.ggml.token_type",
                                         "tokenizer.ggml.scores", "tokenizer.ggml.merges"};
    uint64_t hash = CORPUS_HASH_BEGIN;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct gguf_string text;
        if (gguf_get_string(gguf, texts[i], &text))
            hash = corpus_mix(hash ^ i) ^ corpus_hash(text.text, text.len);
    }
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        struct gguf_array array;
        if (gguf_get_array(gguf, arrays[i], &array))
            hash = corpus_mix(hash ^ i) ^ corpus_hash(array.data, (size_t)array.data_bytes);
    }
    return corpus_mix(hash);
}

uint64_t corpus_identity(const struct corpus *corpus)
{
    return get_uint(corpus->bytes + AT_HEADER_SUM, 8); /* over a header with all other sums in it */
}
