/* Indexing: walks each user's messages behind the last one that has a vector, in pieces of PIECE_TEXTS; each
 * piece is embedded and stored before the next one is read, which is all that makes a run resumable. */
#include <string.h>

#include "base/json.h"
#include "base/limits.h"
#include "base/mem.h"
#include "memory/embed.h"
#include "tensor/tensor.h"

#define PIECE_TEXTS 256
#define PIECE_BYTES ((size_t)1 << 20)
#define PIECE_BYTES_BACKGROUND ((size_t)16 << 10) /* whoever stops it waits for a piece */
#define TEXT_BYTES_MAX ((size_t)64 << 10)         /* of one message; no model reads further */

/* ---- The text of a message */
static struct embed_text join_parts(struct arena *arena, const struct store_message *message)
{
    struct json *parts;
    struct embed_text out = {"", 0};
    if (json_parse(arena, message->content, message->content_len, &parts, NULL) != PH_OK)
        return out;
    if (json_is(parts, JSON_STRING))
        return (struct embed_text){parts->u.str.text, parts->u.str.len};
    char *text = arena_alloc(arena, message->content_len + 1);
    if (!text || !json_is(parts, JSON_ARRAY))
        return out;
    JSON_EACH (part, parts) {
        const struct json *said = json_get(part, "text");
        if (!json_is(said, JSON_STRING) || out.len + said->u.str.len + 1 > message->content_len)
            continue;
        if (out.len)
            text[out.len++] = '\n';
        memcpy(text + out.len, said->u.str.text, said->u.str.len);
        out.len += said->u.str.len;
    }
    out.text = text;
    return out;
}

struct embed_text embed_message_text(struct arena *arena, const struct store_message *message)
{
    struct embed_text text = {"", 0};
    if (message->content_kind == STORE_CONTENT_TEXT)
        text = (struct embed_text){message->content, message->content_len};
    else if (message->content_kind == STORE_CONTENT_JSON)
        text = join_parts(arena, message);
    if (text.len > TEXT_BYTES_MAX)
        text.len = TEXT_BYTES_MAX;
    return text;
}

/* ---- One user's messages */
struct indexer {
    const struct embed_index_params *params;
    struct embed_index_result *result;
    struct ph_err *err;
    int64_t user, done, total;
    struct arena arena; /* the piece's texts */
    struct embed_text texts[PIECE_TEXTS];
    int64_t numbers[PIECE_TEXTS];
    size_t count, bytes;
    float *vectors;  /* [PIECE_TEXTS][width] */
    uint8_t *halves; /* [PIECE_TEXTS][2 * width] */
};

static enum ph_status store_piece(struct indexer *x)
{
    struct store_vector items[PIECE_TEXTS];
    size_t width = embed_space_width(x->params->space);
    for (size_t i = 0; i < x->count; i++) {
        uint8_t *at = x->halves + i * 2 * width;
        items[i] = (struct store_vector){x->numbers[i], at, 2 * width};
        for (size_t k = 0; k < width; k++) {
            uint16_t half = tensor_f32_to_f16(x->vectors[i * width + k]);
            at[2 * k] = (uint8_t)half;
            at[2 * k + 1] = (uint8_t)(half >> 8);
        }
    }
    const struct store_write write = {
        .kind = STORE_EMBED,
        .u.embeddings = {
            .user = x->user, .space = embed_space_name(x->params->space), .items = items, .count = x->count}};
    struct store_result stored;
    enum ph_status status = store_write(x->params->store, &write, &stored, x->err);
    if (status == PH_OK)
        x->result->embedded += (int64_t)stored.added;
    return status;
}

static enum ph_status flush(struct indexer *x)
{
    enum ph_status status = PH_OK;
    if (x->count)
        status = embed_texts(x->params->space, x->texts, x->count, x->params->background, x->vectors, x->err);
    if (x->count && status == PH_OK)
        status = store_piece(x);
    x->count = x->bytes = 0;
    arena_clear(&x->arena);
    if (status == PH_OK && x->params->progress &&
        !x->params->progress(x->params->ud, x->done < x->total ? x->done : x->total, x->total))
        status = ph_fail(x->err, PH_ERR_CANCELLED, "indexing was stopped");
    return status;
}

static enum ph_status take(void *ud, const struct store_message *message)
{
    struct indexer *x = ud;
    x->done++;
    x->result->messages++;
    struct embed_text text = embed_message_text(&x->arena, message);
    if (text.len == 0)
        return PH_OK;
    char *copy = arena_alloc(&x->arena, text.len);
    if (!copy)
        return ph_fail(x->err, PH_ERR_NOMEM, "no memory to index message %lld", (long long)message->number);
    memcpy(copy, text.text, text.len);
    x->texts[x->count] = (struct embed_text){copy, text.len};
    x->numbers[x->count++] = message->number;
    x->bytes += text.len;
    size_t bytes_max = x->params->background ? PIECE_BYTES_BACKGROUND : PIECE_BYTES;
    return x->count == PIECE_TEXTS || x->bytes >= bytes_max ? flush(x) : PH_OK;
}

static enum ph_status index_user(struct indexer *x, int64_t user)
{
    int64_t count, last;
    const char *space = embed_space_name(x->params->space);
    enum ph_status status = store_count_vectors(x->params->store, user, space, &count, &last, x->err);
    x->user = user;
    x->done += count;
    x->result->users++;
    if (status == PH_OK)
        status = store_each_message(x->params->store, user, last, take, x, x->err);
    return status == PH_OK ? flush(x) : status;
}

/* ---- All of them */
static enum ph_status count_messages(struct indexer *x, const char *user)
{
    struct arena arena;
    struct store_conversations page = {.more = true};
    struct store_filter filter = {.user = user, .oldest_first = true};
    enum ph_status status = PH_OK;
    arena_init(&arena, 256u << 20);
    while (page.more && status == PH_OK) {
        arena_clear(&arena);
        status = store_list_conversations(x->params->store, &arena, &filter, &page, x->err);
        for (size_t i = 0; i < page.count && status == PH_OK; i++) {
            x->total += page.items[i].messages;
            filter.after_ms = page.items[i].updated_ms;
            filter.after_number = page.items[i].number;
        }
    }
    arena_release(&arena);
    return status;
}

static enum ph_status index_all(struct indexer *x)
{
    struct arena arena;
    struct store_users users = {.more = true};
    int64_t after = 0;
    enum ph_status status = PH_OK;
    arena_init(&arena, 64u << 20);
    while (users.more && status == PH_OK) {
        arena_clear(&arena);
        status = store_list_users(x->params->store, &arena, after, STORE_PAGE_MAX, &users, x->err);
        for (size_t i = 0; i < users.count && status == PH_OK; i++) {
            after = users.items[i].number;
            if (users.items[i].last_message > x->params->after)
                status = index_user(x, after);
        }
    }
    arena_release(&arena);
    return status;
}

static enum ph_status index_one(struct indexer *x)
{
    struct arena arena;
    struct store_user user;
    arena_init(&arena, 1 << 20);
    enum ph_status status = store_find_user(x->params->store, &arena, x->params->user, &user, x->err);
    if (status == PH_OK)
        status = index_user(x, user.number);
    arena_release(&arena);
    return status;
}

enum ph_status embed_index(const struct embed_index_params *params, struct embed_index_result *result,
                           struct ph_err *err)
{
    size_t width = embed_space_width(params->space);
    struct indexer *x = mem_calloc(1, sizeof *x);
    *result = (struct embed_index_result){0};
    if (!x)
        return ph_fail(err, PH_ERR_NOMEM, "no memory to index");
    x->params = params;
    x->result = result;
    x->err = err;
    arena_init(&x->arena, (size_t)4 * STORE_MESSAGE_BYTES_MAX);
    x->vectors = mem_calloc(PIECE_TEXTS * width, sizeof *x->vectors);
    x->halves = mem_calloc(PIECE_TEXTS * width, 2);
    enum ph_status status =
        x->vectors && x->halves ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory to index");
    if (status == PH_OK && params->progress && !params->background)
        status = count_messages(x, params->user);
    if (status == PH_OK)
        status = params->user ? index_one(x) : index_all(x);
    arena_release(&x->arena);
    mem_free(x->vectors);
    mem_free(x->halves);
    mem_free(x);
    return status;
}
