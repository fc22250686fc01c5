/* From documents to a token file.
 *
 * A conversation is rendered by its template as the engine would render it. Where only the assistant's tokens
 * are to count, each of its parts is found by rendering twice more: the messages before it with a generation
 * prompt, and those up to it without. What the second has beyond the first is the assistant's. That works
 * for every template for which a conversation's beginning reads as the conversation begins; where it does
 * not, the document is an error that says so, and no mask is guessed. The whole is tokenised at once, as
 * the engine does, and tokens are placed in the text by their bytes; one that begins before a part does not
 * count. */
#include "base/limits.h"
#include "train/corpus_int.h"
#include "train/train.h"

#define RENDER_ARENA_BYTES_MAX ((size_t)1 << 30)

struct part {
    size_t begin, end; /* of the rendered text */
};

struct building {
    const struct corpus_build *build;
    struct corpus_build_stats *stats;
    bool (*progress)(void *ud, uint64_t done, uint64_t total);
    void *ud;
    bool stopped;
    const struct vocab *vocab;
    struct corpus_writer *writer;
    struct dedup *dedup;
    struct arena arena;
    struct buf text, before, upto; /* rendered */
    struct part *parts;            /* the assistant's */
    size_t part_count, part_cap;
    struct token_list ids;
    uint8_t *targets;
    size_t targets_cap;
};

/* ---- Rendering */

static void set_token(struct building *b, struct json *vars, const char *name, int32_t id)
{
    struct gguf_string text = {"", 0};
    if (id >= 0)
        text = vocab_token_text(b->vocab, id);
    json_set(&b->arena, vars, name, json_new_string(&b->arena, text.text, text.len));
}

/* Renders the first `count` messages into out. */
static enum ph_status render(struct building *b, const struct document *document, size_t count, bool prompt,
                             struct buf *out, struct ph_err *err)
{
    struct ph_err inner;
    arena_clear(&b->arena);
    struct json *vars = json_new(&b->arena, JSON_OBJECT), *messages = json_new(&b->arena, JSON_ARRAY);
    size_t number = 0;
    JSON_EACH (message, document->messages) {
        if (number++ < count)
            json_push(messages, json_copy(&b->arena, message));
    }
    json_set(&b->arena, vars, "messages", messages);
    json_set(&b->arena, vars, "add_generation_prompt", json_new(&b->arena, prompt ? JSON_TRUE : JSON_FALSE));
    set_token(b, vars, "bos_token", vocab_info(b->vocab)->bos);
    set_token(b, vars, "eos_token", vocab_info(b->vocab)->eos);
    if (!vars || json_count(json_get(vars, "messages")) != count)
        return ph_fail(err, PH_ERR_NOMEM, "%s:%zu: no memory for the conversation", document->path,
                       document->line);
    buf_clear(out);
    enum ph_status status = chat_template_render(b->build->chat_template, vars, clock_system(), out, &inner);
    return status == PH_OK
               ? PH_OK
               : ph_fail(err, status, "%s:%zu: %s", document->path, document->line, inner.message);
}

static bool begins_with(const struct buf *text, const struct buf *beginning)
{
    return text->len >= beginning->len &&
           (beginning->len == 0 || memcmp(text->data, beginning->data, beginning->len) == 0);
}

static enum ph_status find_part(struct building *b, const struct document *document, size_t index,
                                struct ph_err *err)
{
    enum ph_status status = render(b, document, index, true, &b->before, err);
    if (status == PH_OK)
        status = render(b, document, index + 1, false, &b->upto, err);
    if (status != PH_OK)
        return status;
    if (!begins_with(&b->text, &b->upto) || !begins_with(&b->upto, &b->before))
        return ph_fail(
            err, PH_ERR_UNSUPPORTED,
            "%s:%zu: message %zu: the template does not render the conversation's beginning as the "
            "conversation begins, so the assistant's part cannot be told; go without the mask",
            document->path, document->line, index + 1);
    if (!corpus_room(&b->parts, &b->part_cap, b->part_count + 1, sizeof *b->parts))
        return ph_fail(err, PH_ERR_NOMEM, "%s:%zu: no memory", document->path, document->line);
    b->parts[b->part_count++] = (struct part){b->before.len, b->upto.len};
    return PH_OK;
}

static enum ph_status render_document(struct building *b, const struct document *document, struct ph_err *err)
{
    size_t index = 0;
    b->part_count = 0;
    enum ph_status status = render(b, document, json_count(document->messages), false, &b->text, err);
    if (!b->build->params.targets)
        return status;
    JSON_EACH (message, document->messages) {
        if (status == PH_OK && json_text_is(json_get(message, "role"), "assistant"))
            status = find_part(b, document, index, err);
        index++;
    }
    return status;
}

/* ---- Tokens */

static enum ph_status add_id(struct building *b, size_t at, int32_t id)
{
    size_t cap = b->ids.cap;
    if (!corpus_room(&b->ids.ids, &cap, b->ids.len + 1, sizeof *b->ids.ids))
        return PH_ERR_NOMEM;
    b->ids.cap = cap;
    memmove(b->ids.ids + at + 1, b->ids.ids + at, (b->ids.len - at) * sizeof *b->ids.ids);
    b->ids.ids[at] = id;
    b->ids.len++;
    return PH_OK;
}

/* Where the token's bytes end in the text, or SIZE_MAX when they are not there. The space that llama's
 * tokenizers put before a text, or a special token, is not in the text. */
static size_t place_token(const struct vocab *vocab, int32_t id, const char *text, size_t len, size_t at)
{
    char piece[VOCAB_TOKEN_BYTES_MAX];
    size_t n = vocab_piece(vocab, id, true, piece);
    if (n <= len - at && memcmp(text + at, piece, n) == 0)
        return at + n;
    if (n > 0 && piece[0] == ' ' && n - 1 <= len - at && memcmp(text + at, piece + 1, n - 1) == 0)
        return at + n - 1;
    return SIZE_MAX;
}

static enum ph_status mark_targets(struct building *b, const struct document *document, const char *text,
                                   size_t len, struct ph_err *err)
{
    if (!corpus_room(&b->targets, &b->targets_cap, b->ids.len + 2, 1))
        return ph_fail(err, PH_ERR_NOMEM, "%s:%zu: no memory", document->path, document->line);
    memset(b->targets, document->messages == NULL, b->ids.len + 2);
    if (!document->messages)
        return PH_OK;
    for (size_t i = 0, at = 0, part = 0; i < b->ids.len; i++) {
        size_t end = place_token(b->vocab, b->ids.ids[i], text, len, at);
        if (end == SIZE_MAX)
            return ph_fail(
                err, PH_ERR_UNSUPPORTED,
                "%s:%zu: token %zu (%d) is not found in the text at byte %zu: with this tokenizer the "
                "assistant's part cannot be told; go without the mask",
                document->path, document->line, i, (int)b->ids.ids[i], at);
        while (part < b->part_count && at >= b->parts[part].end)
            part++;
        b->targets[i] = part < b->part_count && at >= b->parts[part].begin;
        at = end;
    }
    return PH_OK;
}

/* BOS as the model says, EOS always; neither twice. */
static enum ph_status add_ends(struct building *b)
{
    const struct vocab_info *info = vocab_info(b->vocab);
    enum ph_status status = PH_OK;
    if (info->add_bos && info->bos >= 0 && (b->ids.len == 0 || b->ids.ids[0] != info->bos)) {
        status = add_id(b, 0, info->bos);
        if (status == PH_OK && b->targets)
            memmove(b->targets + 1, b->targets, b->ids.len - 1);
        if (status == PH_OK && b->targets)
            b->targets[0] = 0;
    }
    if (status == PH_OK && info->eos >= 0 && (b->ids.len == 0 || b->ids.ids[b->ids.len - 1] != info->eos))
        status = add_id(b, b->ids.len, info->eos);
    return status;
}

static enum ph_status add_document(struct building *b, const struct document *document, const char *text,
                                   size_t len, uint64_t hash, struct ph_err *err)
{
    struct ph_err inner;
    b->ids.len = 0;
    enum ph_status status =
        vocab_tokenize(b->vocab, text, len, false, document->messages != NULL, &b->ids, &inner);
    if (status != PH_OK)
        return ph_fail(err, status, "%s:%zu: %s", document->path, document->line, inner.message);
    if (b->build->params.targets)
        status = mark_targets(b, document, text, len, err);
    if (status != PH_OK)
        return status;
    if (add_ends(b) != PH_OK)
        return ph_fail(err, PH_ERR_NOMEM, "%s:%zu: no memory", document->path, document->line);
    return b->ids.len == 0 ? PH_OK
                           : corpus_writer_add(b->writer, b->ids.ids, b->targets, b->ids.len, hash, len, err);
}

static enum ph_status take(void *ud, const struct document *document, struct ph_err *err)
{
    struct building *b = ud;
    const char *text = document->text;
    size_t len = document->len;
    enum dedup_answer answer;
    uint64_t hash;
    enum ph_status status = PH_OK;
    if (b->stopped)
        return ph_fail(err, PH_ERR_CANCELLED, "stopped; %s is not written", b->build->path);
    if (document->messages) {
        status = render_document(b, document, err);
        text = b->text.data ? b->text.data : "";
        len = b->text.len;
    }
    if (status == PH_OK)
        status = dedup_check(b->dedup, text, len, &answer, &hash, err);
    if (status != PH_OK)
        return status;
    b->stats->documents++;
    b->stats->documents_bytes += len;
    if (b->build->dedup && answer != DEDUP_NEW) {
        b->stats->exact += answer == DEDUP_EXACT;
        b->stats->near += answer == DEDUP_NEAR;
        return PH_OK;
    }
    return add_document(b, document, text, len, hash, err);
}

static void show(void *ud, uint64_t done, uint64_t total)
{
    struct building *b = ud;
    b->stopped = b->stopped || (b->progress && !b->progress(b->ud, done, total));
}

enum ph_status corpus_build(const struct corpus_build *build, struct corpus_build_stats *stats,
                            bool (*progress)(void *ud, uint64_t done, uint64_t total), void *ud,
                            struct ph_err *err)
{
    struct building b = {
        .build = build, .stats = stats, .progress = progress, .ud = ud, .vocab = build->vocab};
    *stats = (struct corpus_build_stats){.documents = 0};
    arena_init(&b.arena, RENDER_ARENA_BYTES_MAX);
    buf_init(&b.text, TEMPLATE_OUTPUT_BYTES_MAX);
    buf_init(&b.before, TEMPLATE_OUTPUT_BYTES_MAX);
    buf_init(&b.upto, TEMPLATE_OUTPUT_BYTES_MAX);
    enum ph_status status = dedup_create(&b.dedup, build->dedup ? build->near : 0, err);
    if (status == PH_OK)
        status = corpus_writer_open(&b.writer, build->path, &build->params, err);
    if (status == PH_OK)
        status = source_each(&build->source, take, show, &b, err);
    if (status == PH_OK && stats->documents == 0)
        status = ph_fail(err, PH_ERR_ARG, "%s: there is no document in the input", build->path);
    if (status == PH_OK)
        status = corpus_writer_close(b.writer, err);
    else
        corpus_writer_abandon(b.writer);
    dedup_free(b.dedup);
    arena_release(&b.arena);
    buf_release(&b.text);
    buf_release(&b.before);
    buf_release(&b.upto);
    token_list_release(&b.ids);
    mem_free(b.parts);
    mem_free(b.targets);
    return status;
}
