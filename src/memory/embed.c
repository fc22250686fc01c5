/* Spaces: an embedding model, or the lexical embedding, behind one face. */
#include "memory/embed.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/embedder.h"
#include "memory/lexical.h"

#define ANEW_FACTOR 8 /* statistics of so many times fewer messages than there are now are counted anew */
#define ANEW_MIN 64
#define SAMPLE_BYTES 64

struct embed_space {
    char name[STORE_SPACE_BYTES_MAX + 1];
    size_t width;
    struct embedder *embedder; /* or */
    struct lexical *lexical;
};

/* ---- Models */
static uint64_t mix(uint64_t hash, const void *bytes, size_t len)
{
    const unsigned char *at = bytes;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    return hash ^ hash >> 29;
}

/* Of what the file describes, and of both ends of every tensor: another model, another number format or
 * another training run has another hash. */
static uint64_t model_hash(const struct model *model)
{
    const struct gguf *gguf = model_gguf(model);
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < gguf_tensor_count(gguf); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(gguf, i);
        size_t len = t->bytes < SAMPLE_BYTES ? t->bytes : SAMPLE_BYTES;
        hash = mix(hash, t->name, strlen(t->name));
        hash = mix(hash, &t->type, sizeof t->type);
        hash = mix(hash, t->dims, sizeof t->dims);
        hash = mix(hash, t->data, len);
        hash = mix(hash, (const uint8_t *)t->data + t->bytes - len, len);
    }
    const char *pooling = model_info(model)->pooling;
    return mix(hash, pooling, strlen(pooling));
}

static struct embed_space *space_new(struct ph_err *err)
{
    struct embed_space *space = mem_calloc(1, sizeof *space);
    if (!space)
        (void)ph_fail(err, PH_ERR_NOMEM, "no memory for a space of vectors");
    return space;
}

enum ph_status embed_space_of_model(struct embed_space **out, struct embedder *embedder, struct ph_err *err)
{
    const struct model_info *info = model_info(embedder_model(embedder));
    struct embed_space *space = *out = space_new(err);
    if (!space)
        return PH_ERR_NOMEM;
    space->embedder = embedder;
    space->width = embedder_width(embedder);
    snprintf(space->name, sizeof space->name, "%.100s-%016llx", info->name,
             (unsigned long long)model_hash(embedder_model(embedder)));
    return PH_OK;
}

/* ---- The lexical space */
struct counting {
    struct lexical *lexical;
    struct arena arena;
};

static enum ph_status count_message(void *ud, const struct store_message *message)
{
    struct counting *c = ud;
    arena_clear(&c->arena);
    struct embed_text text = embed_message_text(&c->arena, message);
    if (text.len)
        lexical_add(c->lexical, text.text, text.len);
    return lexical_texts(c->lexical) < LEXICAL_TEXTS_MAX ? PH_OK : PH_ERR_CANCELLED;
}

/* Hands over every user, in pages. */
static enum ph_status each_user(struct store *store,
                                enum ph_status (*fn)(void *ud, const struct store_user *user), void *ud,
                                struct ph_err *err)
{
    struct arena arena;
    struct store_users users = {.more = true};
    int64_t after = 0;
    enum ph_status status = PH_OK;
    arena_init(&arena, 64u << 20);
    while (users.more && status == PH_OK) {
        arena_clear(&arena);
        status = store_list_users(store, &arena, after, STORE_PAGE_MAX, &users, err);
        for (size_t i = 0; i < users.count && status == PH_OK; i++) {
            after = users.items[i].number;
            status = fn(ud, &users.items[i]);
        }
    }
    arena_release(&arena);
    return status;
}

struct count_job {
    struct store *store;
    struct counting counting;
    struct ph_err *err;
};

static enum ph_status count_user(void *ud, const struct store_user *user)
{
    struct count_job *job = ud;
    return store_each_message(job->store, user->number, 0, count_message, &job->counting, job->err);
}

static enum ph_status greatest(void *ud, const struct store_user *user)
{
    int64_t *most = ud;
    *most = user->last_message > *most ? user->last_message : *most;
    return PH_OK;
}

static enum ph_status count_store(struct lexical **out, struct store *store, struct ph_err *err)
{
    struct count_job job = {.store = store, .err = err};
    enum ph_status status = lexical_create(&job.counting.lexical, err);
    if (status != PH_OK)
        return status;
    arena_init(&job.counting.arena, STORE_MESSAGE_BYTES_MAX * (size_t)4);
    status = each_user(store, count_user, &job, err);
    arena_release(&job.counting.arena);
    if (status == PH_OK || status == PH_ERR_CANCELLED) {
        *out = job.counting.lexical;
        return PH_OK;
    }
    lexical_free(job.counting.lexical);
    return status;
}

/* Numbers of messages are given without gaps while nothing is deleted: the greatest is about their count. */
static bool is_outgrown(const struct lexical *lexical, struct store *store)
{
    int64_t most = 0;
    uint64_t texts = lexical_texts(lexical);
    if (texts >= LEXICAL_TEXTS_MAX || each_user(store, greatest, &most, NULL) != PH_OK)
        return false;
    return most >= (int64_t)(texts * ANEW_FACTOR) && most >= ANEW_MIN;
}

static enum ph_status drop_space(struct store *store, const struct lexical *lexical, struct ph_err *err)
{
    char name[LEXICAL_NAME_MAX];
    lexical_name(lexical, name);
    const struct store_write write = {.kind = STORE_DELETE_SPACE, .id = name};
    enum ph_status status = store_write(store, &write, NULL, err);
    return status == PH_ERR_NOTFOUND ? PH_OK : status;
}

enum ph_status embed_lexical_forget(struct store *store, const char *path, struct ph_err *err)
{
    struct lexical *lexical = NULL;
    enum ph_status status = lexical_read(&lexical, path, err);
    if (status == PH_ERR_NOTFOUND)
        return PH_OK;
    if (lexical)
        status = drop_space(store, lexical, err);
    lexical_free(lexical);
    if (status == PH_OK || status == PH_ERR_FORMAT)
        status = lexical_remove(path, err);
    return status;
}

static enum ph_status find_statistics(struct lexical **out, struct store *store, const char *path,
                                      struct ph_err *err)
{
    struct lexical *old = NULL;
    struct ph_err why = {0};
    enum ph_status status = lexical_read(&old, path, &why);
    if (status == PH_OK && !is_outgrown(old, store)) {
        *out = old;
        return PH_OK;
    }
    if (old)
        (void)drop_space(store, old, NULL); /* of no use any more; a store that is only read keeps it */
    lexical_free(old);
    if (status == PH_ERR_FORMAT)
        log_warn("memory", "%s; it is counted anew", why.message);
    else if (status != PH_OK && status != PH_ERR_NOTFOUND)
        return ph_fail(err, status, "%s", why.message);
    status = count_store(out, store, err);
    if (status != PH_OK)
        return status;
    status = lexical_write(*out, path, err);
    if (status != PH_OK) {
        lexical_free(*out);
        *out = NULL;
    }
    return status;
}

enum ph_status embed_space_lexical(struct embed_space **out, struct store *store, const char *path,
                                   struct ph_err *err)
{
    struct embed_space *space = *out = space_new(err);
    if (!space)
        return PH_ERR_NOMEM;
    enum ph_status status = find_statistics(&space->lexical, store, path, err);
    if (status != PH_OK) {
        embed_space_free(space);
        *out = NULL;
        return status;
    }
    space->width = LEXICAL_WIDTH;
    lexical_name(space->lexical, space->name);
    return PH_OK;
}

void embed_space_free(struct embed_space *space)
{
    if (!space)
        return;
    lexical_free(space->lexical);
    mem_free(space);
}

const char *embed_space_name(const struct embed_space *space)
{
    return space->name;
}

size_t embed_space_width(const struct embed_space *space)
{
    return space->width;
}

/* ---- Texts */
struct batch {
    struct token_list tokens;
    struct embedder_text *texts;
    size_t *ends;
};

static void batch_release(struct batch *b)
{
    token_list_release(&b->tokens);
    mem_free(b->texts);
    mem_free(b->ends);
}

static enum ph_status embed_with_model(struct embed_space *space, const struct embed_text *texts,
                                       size_t count, bool background, float *out, struct ph_err *err)
{
    struct batch b = {.texts = mem_calloc(count, sizeof *b.texts), .ends = mem_calloc(count, sizeof *b.ends)};
    enum ph_status status =
        b.texts && b.ends ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory to embed %zu texts", count);
    for (size_t i = 0; i < count && status == PH_OK; i++) {
        size_t cut;
        status = embedder_tokenize(space->embedder, texts[i].text, texts[i].len, &cut, &b.tokens, err);
        b.ends[i] = b.tokens.len;
    }
    for (size_t i = 0; i < count && status == PH_OK; i++) {
        size_t from = i ? b.ends[i - 1] : 0;
        b.texts[i] = (struct embedder_text){b.tokens.ids + from, b.ends[i] - from};
    }
    const struct embedder_request request = {.texts = b.texts, .count = count, .background = background};
    if (status == PH_OK)
        status = embedder_run(space->embedder, &request, out, err);
    batch_release(&b);
    return status;
}

enum ph_status embed_texts(struct embed_space *space, const struct embed_text *texts, size_t count,
                           bool background, float *out, struct ph_err *err)
{
    if (count == 0)
        return PH_OK;
    if (space->embedder)
        return embed_with_model(space, texts, count, background, out, err);
    for (size_t i = 0; i < count; i++)
        if (lexical_embed(space->lexical, texts[i].text, texts[i].len, out + i * space->width) != PH_OK)
            return ph_fail(err, PH_ERR_NOMEM, "no memory to embed a text");
    return PH_OK;
}
