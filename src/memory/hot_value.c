/* A conversation's messages as they lie in a shared Redis.
 *
 *     "PhT1"  digest [16]  deletions [8]  count [4]  message...
 *     message: number [8]  seq [8]  created_ms [8]  tokens [8]  kind [1]  lengths [5 x 4]
 *              id, role, name, content, extra: each with a 0 behind it
 *
 * Little-endian. The digest is the beginning of SHA-256 over the value's name and all that follows, so that a
 * value that was cut, damaged, or put under another name is nobody's conversation. It keeps accidents out,
 * not people, as that of the response cache. Whether the messages still are the store's is for
 * memory_shared.c to find out. The version is in the name's prefix too; whoever changes this form counts both
 * on. */
#include <string.h>

#include <openssl/evp.h>

#include "base/bytes.h"
#include "memory/memory_int.h"

#define MAGIC "PhT1"
#define MAGIC_BYTES 4
#define DIGEST_BYTES 16
#define DIGESTED (MAGIC_BYTES + DIGEST_BYTES)
#define HEAD_BYTES (DIGESTED + 8 + 4)
#define TEXTS 5
#define MESSAGE_BYTES (4 * 8 + 1 + TEXTS * 4)
#define NAME_PREFIX "pharos:talk:1:"

static bool digest(const char *const parts[], const size_t lens[], size_t count,
                   unsigned char out[EVP_MAX_MD_SIZE])
{
    EVP_MD_CTX *hasher = EVP_MD_CTX_new();
    bool ok = hasher && EVP_DigestInit_ex(hasher, EVP_sha256(), NULL) == 1;
    for (size_t i = 0; ok && i < count; i++)
        ok = EVP_DigestUpdate(hasher, parts[i], lens[i]) == 1;
    ok = ok && EVP_DigestFinal_ex(hasher, out, NULL) == 1;
    EVP_MD_CTX_free(hasher);
    return ok;
}

/* The numbers are the store's; when it was made tells apart those of several stores. */
bool hot_value_name(const struct store_conversation *c, char out[MEMORY_HOT_NAME_MAX])
{
    const size_t prefix = sizeof NAME_PREFIX - 1;
    unsigned char sum[EVP_MAX_MD_SIZE];
    char numbers[3 * 8];
    bytes_put_le(numbers, (uint64_t)c->number, 8);
    bytes_put_le(numbers + 8, (uint64_t)c->user, 8);
    bytes_put_le(numbers + 16, (uint64_t)c->created_ms, 8);
    const char *const parts[] = {numbers, c->user_name, c->key};
    const size_t lens[] = {sizeof numbers, strlen(c->user_name) + 1, strlen(c->key) + 1};
    if (!digest(parts, lens, 3, sum))
        return false;
    memcpy(out, NAME_PREFIX, prefix);
    bytes_hex(out + prefix, sum, DIGEST_BYTES);
    return true;
}

/* ---- Writing */

void hot_value_begin(struct buf *out)
{
    char head[HEAD_BYTES] = MAGIC;
    buf_append(out, head, sizeof head);
}

void hot_value_add(struct buf *out, const struct store_message *m)
{
    const char *const texts[TEXTS] = {m->id, m->role, m->name, m->content, m->extra};
    const int64_t numbers[] = {m->number, m->seq, m->created_ms, m->tokens};
    char fixed[MESSAGE_BYTES];
    size_t lens[TEXTS];
    for (size_t i = 0; i < 4; i++)
        bytes_put_le(fixed + 8 * i, (uint64_t)numbers[i], 8);
    fixed[32] = (char)m->content_kind;
    for (size_t i = 0; i < TEXTS; i++) {
        lens[i] = !texts[i] ? 0 : i == 3 ? m->content_len : strlen(texts[i]);
        bytes_put_le(fixed + 33 + 4 * i, lens[i], 4);
    }
    buf_append(out, fixed, sizeof fixed);
    for (size_t i = 0; i < TEXTS; i++) {
        if (lens[i])
            buf_append(out, texts[i], lens[i]);
        buf_putc(out, 0);
    }
}

bool hot_value_seal(struct buf *value, const char *name, int64_t deletions, size_t count)
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    bytes_put_le(value->data + DIGESTED, (uint64_t)deletions, 8);
    bytes_put_le(value->data + DIGESTED + 8, count, 4);
    const char *const parts[] = {name, value->data + DIGESTED};
    const size_t lens[] = {strlen(name), value->len - DIGESTED};
    if (!digest(parts, lens, 2, sum))
        return false;
    memcpy(value->data + MAGIC_BYTES, sum, DIGEST_BYTES);
    return true;
}

/* ---- Reading */

/* false: it does not fit. */
static bool read_message(const char **at, const char *end, struct store_message *out)
{
    const char *texts[TEXTS], *bytes = *at;
    if ((size_t)(end - bytes) < MESSAGE_BYTES)
        return false;
    *out = (struct store_message){.number = (int64_t)bytes_get_le(bytes, 8),
                                  .seq = (int64_t)bytes_get_le(bytes + 8, 8),
                                  .created_ms = (int64_t)bytes_get_le(bytes + 16, 8),
                                  .tokens = (int64_t)bytes_get_le(bytes + 24, 8),
                                  .content_kind = bytes[32],
                                  .content_len = bytes_get_le(bytes + 33 + 4 * 3, 4)};
    const char *text = bytes + MESSAGE_BYTES;
    for (size_t i = 0; i < TEXTS; i++) {
        size_t len = bytes_get_le(bytes + 33 + 4 * i, 4);
        if (len >= (size_t)(end - text) || text[len] != 0)
            return false;
        texts[i] = text;
        text += len + 1;
    }
    out->id = texts[0];
    out->role = texts[1];
    out->name = texts[2];
    out->content = texts[3];
    out->extra = texts[4];
    *at = text;
    return true;
}

bool hot_value_read(struct arena *arena, const char *name, const char *bytes, size_t len, int64_t *deletions,
                    struct store_messages *out)
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    if (len < HEAD_BYTES || memcmp(bytes, MAGIC, MAGIC_BYTES) != 0)
        return false;
    const char *const parts[] = {name, bytes + DIGESTED};
    const size_t lens[] = {strlen(name), len - DIGESTED};
    if (!digest(parts, lens, 2, sum) || memcmp(bytes + MAGIC_BYTES, sum, DIGEST_BYTES) != 0)
        return false;
    const char *at = bytes + HEAD_BYTES, *end = bytes + len;
    size_t count = bytes_get_le(bytes + DIGESTED + 8, 4);
    if (count == 0 || count > len / MESSAGE_BYTES)
        return false;
    *deletions = (int64_t)bytes_get_le(bytes + DIGESTED, 8);
    *out = (struct store_messages){.items = arena_calloc(arena, count, sizeof *out->items), .count = count};
    for (size_t i = 0; out->items && i < count; i++) {
        if (!read_message(&at, end, &out->items[i]))
            return false;
        if (i && out->items[i].seq <= out->items[i - 1].seq)
            return false;
    }
    return out->items && at == end;
}
