/* A message's texts as the bytes of its row, and back.
 *
 * The texts are laid end to end and compressed with zstd and a dictionary trained from the store's own
 * messages, for a single message is too short to compress on its own. What zstd's frame says of a short text
 * besides its length is always the same, and as long as a third of what is left of it, so it is left out:
 *
 *     size (1 to 255), block         a frame of one compressed block, whose content has `size` bytes
 *     0, frame                       any other frame, without the magic number that it begins with
 *
 * The dictionary's number is a column of the row. What does not become shorter is kept as it is.
 *
 * Dictionaries are immutable and few, and are known until the store is closed; contexts are handed round. */
#include <stdio.h>
#include <string.h>
#include <zdict.h>
#include <zstd.h>

#include "base/mem.h"
#include "memory/store_int.h"

#define LEVEL 11      /* with a dictionary: half of what 6 saves more, at 4 us a message */
#define LEVEL_ALONE 5 /* without */
#define LEVEL_LONG 3
#define MAGIC_BYTES 4
#define SHORT_HEAD_BYTES 9      /* magic, descriptor, content size, block header */
#define SHORT_DESCRIPTOR 0x20   /* RFC 8878, section 3.1.1.1.1: one segment, a size of one byte */
#define FRAME_HEAD_BYTES_MAX 18 /* RFC 8878, section 3.1.1.1, with the magic */
#define FIELDS 3                /* ended by a 0 each: role, name, extra */
#define DICTIONARY_BYTES ((size_t)128 << 10)
#define UNPACKED_BYTES_MAX (STORE_MESSAGE_BYTES_MAX + STORE_ROLE_BYTES_MAX + STORE_NAME_BYTES_MAX + 16u)

static const unsigned char magic[MAGIC_BYTES] = {0x28, 0xb5, 0x2f, 0xfd}; /* RFC 8878, section 3.1.1 */

struct store_dictionary {
    struct store_dictionary *next;
    int64_t number;
    ZSTD_CDict *packing;
    ZSTD_DDict *unpacking;
};

struct store_context {
    struct store_context *next;
    ZSTD_CCtx *packing;
    ZSTD_DCtx *unpacking;
};

/* ---- The codec */

enum ph_status store_codec_init(struct store_codec *codec, struct ph_err *err)
{
    *codec = (struct store_codec){.contexts = NULL};
    return uv_mutex_init(&codec->mutex) == 0 ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory for a lock");
}

static void free_dictionary(struct store_dictionary *dictionary)
{
    ZSTD_freeCDict(dictionary->packing);
    ZSTD_freeDDict(dictionary->unpacking);
    mem_free(dictionary);
}

static void free_context(struct store_context *context)
{
    ZSTD_freeCCtx(context->packing);
    ZSTD_freeDCtx(context->unpacking);
    mem_free(context);
}

void store_codec_release(struct store_codec *codec)
{
    for (struct store_dictionary *next, *at = codec->dictionaries; at; at = next) {
        next = at->next;
        free_dictionary(at);
    }
    for (struct store_context *next, *at = codec->contexts; at; at = next) {
        next = at->next;
        free_context(at);
    }
    uv_mutex_destroy(&codec->mutex);
}

static const struct store_dictionary *find(struct store_codec *codec, int64_t number)
{
    uv_mutex_lock(&codec->mutex);
    const struct store_dictionary *at = codec->dictionaries;
    while (at && at->number != number)
        at = at->next;
    uv_mutex_unlock(&codec->mutex);
    return at;
}

bool store_codec_has(struct store_codec *codec, int64_t dictionary)
{
    return dictionary <= 0 || find(codec, dictionary);
}

enum ph_status store_codec_add(struct store_codec *codec, int64_t dictionary, const void *bytes, size_t len,
                               struct ph_err *err)
{
    if (store_codec_has(codec, dictionary))
        return PH_OK;
    struct store_dictionary *made = mem_calloc(1, sizeof *made);
    if (!made)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a dictionary");
    made->number = dictionary;
    made->packing = ZSTD_createCDict(bytes, len, LEVEL);
    made->unpacking = ZSTD_createDDict(bytes, len);
    if (!made->packing || !made->unpacking) {
        free_dictionary(made);
        return ph_fail(err, PH_ERR_FORMAT, "the store's dictionary %lld is damaged", (long long)dictionary);
    }
    uv_mutex_lock(&codec->mutex); /* one that another thread adds meanwhile is the same */
    made->next = codec->dictionaries;
    codec->dictionaries = made;
    uv_mutex_unlock(&codec->mutex);
    return PH_OK;
}

static struct store_context *take_context(struct store_codec *codec)
{
    uv_mutex_lock(&codec->mutex);
    struct store_context *context = codec->contexts;
    if (context)
        codec->contexts = context->next;
    uv_mutex_unlock(&codec->mutex);
    if (context || !(context = mem_calloc(1, sizeof *context)))
        return context;
    context->packing = ZSTD_createCCtx();
    context->unpacking = ZSTD_createDCtx();
    if (context->packing && context->unpacking) {
        (void)ZSTD_CCtx_setParameter(context->packing, ZSTD_c_dictIDFlag, 0);
        return context;
    }
    free_context(context);
    return NULL;
}

static void put_context(struct store_codec *codec, struct store_context *context)
{
    uv_mutex_lock(&codec->mutex);
    context->next = codec->contexts;
    codec->contexts = context;
    uv_mutex_unlock(&codec->mutex);
}

/* ---- Bytes */

static enum ph_status no_memory(struct ph_err *err)
{
    return ph_fail(err, PH_ERR_NOMEM, "no memory for a stored text");
}

/* The last block, compressed, of so many bytes (RFC 8878, section 3.1.1.2). */
static uint32_t block_header(size_t len)
{
    return (uint32_t)len << 3 | 2u << 1 | 1u;
}

/* Turns a frame into what is kept of it, in place. */
static void shorten(unsigned char *frame, size_t len, struct store_body *out)
{
    uint32_t block =
        len < SHORT_HEAD_BYTES ? 0 : frame[6] | (uint32_t)frame[7] << 8 | (uint32_t)frame[8] << 16;
    if (len >= SHORT_HEAD_BYTES && frame[4] == SHORT_DESCRIPTOR && frame[5] &&
        block == block_header(len - SHORT_HEAD_BYTES)) {
        frame[SHORT_HEAD_BYTES - 1] = frame[5];
        out->bytes = frame + SHORT_HEAD_BYTES - 1;
        out->len = len - SHORT_HEAD_BYTES + 1;
        return;
    }
    frame[MAGIC_BYTES - 1] = 0;
    out->bytes = frame + MAGIC_BYTES - 1;
    out->len = len - MAGIC_BYTES + 1;
}

/* The frame of which `body` was kept; NULL: no memory. */
static unsigned char *lengthen(struct arena *arena, const struct store_body *body, size_t *len)
{
    const unsigned char *kept = body->bytes;
    unsigned char *frame = arena_alloc(arena, SHORT_HEAD_BYTES + body->len);
    if (!frame)
        return NULL;
    size_t rest = body->len - 1, head = MAGIC_BYTES;
    memcpy(frame, magic, MAGIC_BYTES);
    if (kept[0]) {
        uint32_t block = block_header(rest);
        frame[4] = SHORT_DESCRIPTOR;
        frame[5] = kept[0];
        frame[6] = (unsigned char)block;
        frame[7] = (unsigned char)(block >> 8);
        frame[8] = (unsigned char)(block >> 16);
        head = SHORT_HEAD_BYTES;
    }
    memcpy(frame + head, kept + 1, rest);
    *len = head + rest;
    return frame;
}

enum ph_status store_codec_pack(struct store_codec *codec, struct arena *arena, int64_t dictionary,
                                const void *bytes, size_t len, struct store_body *out, struct ph_err *err)
{
    size_t room = ZSTD_compressBound(len);
    unsigned char *packed = arena_alloc(arena, room);
    struct store_context *context = packed ? take_context(codec) : NULL;
    if (!context)
        return no_memory(err);
    const struct store_dictionary *known =
        dictionary > 0 && len < STORE_LONG_BYTES ? find(codec, dictionary) : NULL;
    (void)ZSTD_CCtx_setParameter(context->packing, ZSTD_c_compressionLevel,
                                 len < STORE_LONG_BYTES ? LEVEL_ALONE : LEVEL_LONG);
    (void)ZSTD_CCtx_refCDict(context->packing, known ? known->packing : NULL);
    size_t got = ZSTD_compress2(context->packing, packed, room, bytes, len);
    put_context(codec, context);
    if (ZSTD_isError(got) || got < MAGIC_BYTES || memcmp(packed, magic, MAGIC_BYTES) != 0)
        return ph_fail(err, PH_ERR_INTERNAL, "a text could not be compressed: %s", ZSTD_getErrorName(got));
    out->coding = known ? known->number : STORE_CODING_PLAIN;
    shorten(packed, got, out);
    if (out->len >= len) {
        memcpy(packed, bytes, len);
        *out = (struct store_body){STORE_CODING_RAW, packed, len};
    }
    return PH_OK;
}

size_t store_codec_unpacked(const struct store_body *body)
{
    unsigned char head[FRAME_HEAD_BYTES_MAX];
    const unsigned char *kept = body->bytes;
    if (body->coding == STORE_CODING_RAW)
        return body->len;
    if (body->len < 2 || kept[0])
        return body->len < 2 ? 0 : kept[0];
    size_t len = body->len - 1 < sizeof head - MAGIC_BYTES ? body->len - 1 : sizeof head - MAGIC_BYTES;
    memcpy(head, magic, MAGIC_BYTES);
    memcpy(head + MAGIC_BYTES, kept + 1, len);
    unsigned long long size = ZSTD_getFrameContentSize(head, MAGIC_BYTES + len);
    return size == ZSTD_CONTENTSIZE_UNKNOWN || size == ZSTD_CONTENTSIZE_ERROR || size > UNPACKED_BYTES_MAX
               ? 0
               : (size_t)size;
}

static enum ph_status damaged(struct ph_err *err)
{
    return ph_fail(err, PH_ERR_FORMAT, "a stored text is damaged; `pharos store verify` says where");
}

enum ph_status store_codec_unpack(struct store_codec *codec, struct arena *arena,
                                  const struct store_body *body, const char **out, size_t *len,
                                  struct ph_err *err)
{
    if (body->coding == STORE_CODING_RAW) {
        *out = arena_strndup(arena, body->bytes, body->len);
        *len = body->len;
        return *out ? PH_OK : no_memory(err);
    }
    const struct store_dictionary *known = body->coding > 0 ? find(codec, body->coding) : NULL;
    if (body->coding > 0 && !known)
        return ph_fail(err, PH_ERR_NOTFOUND, "dictionary %lld is missing", (long long)body->coding);
    size_t size = store_codec_unpacked(body), frame_len;
    if (size == 0)
        return damaged(err);
    const unsigned char *frame = lengthen(arena, body, &frame_len);
    char *text = arena_alloc(arena, size + 1);
    struct store_context *context = frame && text ? take_context(codec) : NULL;
    if (!context)
        return no_memory(err);
    size_t got = ZSTD_decompress_usingDDict(context->unpacking, text, size, frame, frame_len,
                                            known ? known->unpacking : NULL);
    put_context(codec, context);
    if (got != size)
        return damaged(err);
    text[size] = 0;
    *out = text;
    *len = size;
    return PH_OK;
}

enum ph_status store_codec_train(struct arena *arena, const char *samples, const size_t *sizes, size_t count,
                                 const void **out, size_t *len, struct ph_err *err)
{
    void *dictionary = arena_alloc(arena, DICTIONARY_BYTES);
    if (!dictionary)
        return no_memory(err);
    size_t got = ZDICT_trainFromBuffer(dictionary, DICTIONARY_BYTES, samples, sizes, (unsigned)count);
    if (ZDICT_isError(got))
        return ph_fail(err, PH_ERR_NOTFOUND, "no dictionary was trained: %s", ZDICT_getErrorName(got));
    *out = dictionary;
    *len = got;
    return PH_OK;
}

/* ---- Messages: the first byte says what follows. A small letter: the content alone, of a text that has
 * neither name nor extra, by the role of that letter. A digit, the kind of content: role, name, extra, each
 * ended by a 0, and the content. */

static const struct {
    char letter;
    const char *role;
} plain_roles[] = {{'u', "user"}, {'a', "assistant"}, {'s', "system"}, {'t', "tool"}};
#define PLAIN_ROLES (sizeof plain_roles / sizeof plain_roles[0])

static const char *or_empty(const char *text)
{
    return text ? text : "";
}

/* 0: it has more to say. */
static char plain_letter(const struct store_message *message)
{
    if (message->content_kind != STORE_CONTENT_TEXT || or_empty(message->name)[0] ||
        or_empty(message->extra)[0])
        return 0;
    for (size_t i = 0; i < PLAIN_ROLES; i++)
        if (strcmp(or_empty(message->role), plain_roles[i].role) == 0)
            return plain_roles[i].letter;
    return 0;
}

enum ph_status store_message_join(struct arena *arena, const struct store_message *message, const char **out,
                                  size_t *len, struct ph_err *err)
{
    const char *fields[FIELDS] = {or_empty(message->role), or_empty(message->name), or_empty(message->extra)};
    char letter = plain_letter(message);
    size_t size = 1 + message->content_len, count = letter ? 0 : FIELDS;
    for (size_t i = 0; i < count; i++)
        size += strlen(fields[i]) + 1;
    char *bytes = arena_alloc(arena, size), *at = bytes;
    if (!bytes)
        return no_memory(err);
    *at++ = letter ? letter : (char)('0' + message->content_kind);
    for (size_t i = 0; i < count; i++) {
        size_t field = strlen(fields[i]) + 1;
        memcpy(at, fields[i], field);
        at += field;
    }
    if (message->content_len)
        memcpy(at, message->content, message->content_len);
    *out = bytes;
    *len = size;
    return PH_OK;
}

static bool split_fields(const char **at, const char *end, const char *fields[FIELDS])
{
    for (size_t i = 0; i < FIELDS; i++) {
        const char *stop = memchr(*at, 0, (size_t)(end - *at));
        if (!stop)
            return false;
        fields[i] = *at;
        *at = stop + 1;
    }
    return true;
}

bool store_message_split(const char *bytes, size_t len, struct store_message *message)
{
    const char *fields[FIELDS] = {NULL, "", ""}, *end = bytes + len;
    if (len == 0)
        return false;
    char head = *bytes++;
    message->content_kind = STORE_CONTENT_TEXT;
    for (size_t i = 0; i < PLAIN_ROLES; i++)
        if (plain_roles[i].letter == head)
            fields[0] = plain_roles[i].role;
    if (!fields[0]) {
        message->content_kind = head - '0';
        if (head < '0' || head > '0' + STORE_CONTENT_NONE || !split_fields(&bytes, end, fields))
            return false;
    }
    message->role = fields[0];
    message->name = fields[1];
    message->extra = fields[2];
    message->content = bytes;
    message->content_len = (size_t)(end - bytes);
    return true;
}

bool store_place_of(const char *id, int64_t *seq)
{
    int64_t value = 0;
    size_t digits = 0;
    if (!id || strncmp(id, "msg_", 4) != 0)
        return false;
    for (const char *at = id + 4; *at; at++, digits++) {
        if (*at < '0' || *at > '9' || digits == 18 || (at > id + 4 && value == 0))
            return false;
        value = value * 10 + (*at - '0');
    }
    *seq = value;
    return digits > 0;
}
