/* From tokens to text: a token's bytes, and whole sequences with the clean-up that some vocabularies want. */
#include <string.h>

#include "base/limits.h"
#include "model/vocab_int.h"

#define ESCAPED_SPACE "\xe2\x96\x81"

struct piece {
    char *out;
    size_t len; /* up to VOCAB_TOKEN_BYTES_MAX; what goes beyond is cut off */
};

static void put(struct piece *piece, const char *text, size_t len)
{
    size_t room = VOCAB_TOKEN_BYTES_MAX - piece->len;
    len = len < room ? len : room;
    memcpy(piece->out + piece->len, text, len);
    piece->len += len;
}

static void put_unescaped(struct piece *piece, struct gguf_string text)
{
    for (size_t at = 0; at < text.len;) {
        bool space = text.len - at >= 3 && memcmp(text.text + at, ESCAPED_SPACE, 3) == 0;
        put(piece, space ? " " : text.text + at, 1);
        at += space ? 3 : 1;
    }
}

/* Out of GPT-2's byte alphabet. A character that is not in it (in a token that somebody added by hand) is
 * reported the way llama.cpp does, so that both show the same. */
static void put_decoded(struct piece *piece, struct gguf_string text)
{
    static const char hex[] = "0123456789abcdef";
    for (size_t at = 0; at < text.len;) {
        uint32_t point;
        char utf8[4];
        at += unicode_decode(text.text + at, text.len - at, &point);
        int byte = byte_alphabet_byte(point);
        if (byte >= 0) {
            char c = (char)byte;
            put(piece, &c, 1);
            continue;
        }
        put(piece, "[UNK_BYTE_0x", 12);
        size_t len = unicode_encode(point, utf8);
        for (size_t i = 0; i < len; i++) {
            put(piece, &hex[(unsigned char)utf8[i] >> 4], 1);
            put(piece, &hex[(unsigned char)utf8[i] & 15], 1);
        }
        put(piece, text.text, text.len);
        put(piece, "]", 1);
    }
}

static unsigned hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10 : 16;
}

/* "<0x0A>" */
static void put_byte(struct piece *piece, struct gguf_string text)
{
    unsigned high = text.len >= 5 ? hex_digit(text.text[3]) : 16;
    unsigned low = text.len >= 5 ? hex_digit(text.text[4]) : 16;
    char c = (char)(high < 16 && low < 16 ? high << 4 | low : high < 16 ? high : 0);
    put(piece, &c, 1);
}

size_t vocab_piece(const struct vocab *vocab, int32_t id, bool special, char *out)
{
    struct piece piece = {.out = out};
    if (id < 0 || (size_t)id >= vocab->info.n_tokens)
        return 0;
    uint8_t attr = vocab->attr[id];
    struct gguf_string text = text_table_at(&vocab->tokens, (size_t)id);
    if (!special && (attr & TOKEN_HIDDEN))
        return 0;
    if (attr & TOKEN_SPECIAL)
        put(&piece, text.text, text.len);
    else if (attr & TOKEN_NORMAL && vocab->byte_level)
        put_decoded(&piece, text);
    else if (attr & TOKEN_NORMAL)
        put_unescaped(&piece, text);
    else if (attr & TOKEN_BYTE)
        put_byte(&piece, text);
    return piece.len;
}

/* ---- Clean-up: three passes that drop a space before what `rule` recognises. A rule looks at text that
 * follows a space and says how many spaces go: 0, 1 (the one before) or 2 (the one after too). */

static int before_punctuation(const char *at, size_t left)
{
    (void)left;
    return *at == '?' || *at == '!' || *at == '.' || *at == ',';
}

static int lone_apostrophe(const char *at, size_t left)
{
    return left > 1 && at[0] == '\'' && at[1] == ' ' ? 2 : 0;
}

static int contraction(const char *at, size_t left)
{
    if (left < 2 || at[0] != '\'')
        return 0;
    if (at[1] == 's' || at[1] == 'm')
        return 1;
    return left > 2 && (at[1] == 'r' || at[1] == 'v') && at[2] == 'e';
}

static size_t drop_spaces(char *text, size_t len, int (*rule)(const char *at, size_t left))
{
    size_t out = len > 0;
    char before = len > 0 ? text[0] : 0;
    for (size_t i = 1; i < len; i++) {
        int drop = before == ' ' ? rule(text + i, len - i) : 0;
        before = text[i];
        if (drop > 0)
            out--;
        text[out++] = before;
        if (drop > 1) {
            before = 0;
            i++;
        }
    }
    return out;
}

enum ph_status vocab_detokenize(const struct vocab *vocab, const int32_t *ids, size_t count, bool special,
                                struct buf *out)
{
    size_t begin = out->len;
    char piece[VOCAB_TOKEN_BYTES_MAX];
    for (size_t i = 0; i < count; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= vocab->info.n_tokens)
            return PH_ERR_ARG;
        size_t len = vocab_piece(vocab, ids[i], special, piece);
        size_t skip = i == 0 && vocab->space_prefix && len > 0 && piece[0] == ' ';
        buf_append(out, piece + skip, len - skip);
    }
    if (buf_status(out) == PH_OK && vocab->clean_spaces && out->len > begin) {
        char *text = out->data + begin;
        size_t len = drop_spaces(text, out->len - begin, before_punctuation);
        len = drop_spaces(text, len, lone_apostrophe);
        len = drop_spaces(text, len, contraction);
        out->len = begin + len;
        out->data[out->len] = 0;
    }
    return buf_status(out);
}
