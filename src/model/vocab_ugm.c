/* Unigram language models (Kudo 2018), as SentencePiece trains them and T5 and XLM-R carry them: of all ways
 * to cover a text with tokens, take the one whose scores add up highest (Viterbi). A character that no token
 * is, scores less than any token.
 *
 * Before that the text is normalised by the file's own rules: a map from character sequences to replacements,
 * stored as an XOR-compressed double array (Kanda 2018), whose nodes are 32-bit words: BASE in bits 10-30
 * (shifted by 8 when bit 9 is set), LEAF in bit 8, the character that leads here in bits 0-7; the word under
 * a leaf is the replacement's place in a pool of terminated strings. Every index is checked: the map is part
 * of a file. */
#include <float.h>
#include <string.h>

#include "model/vocab_int.h"

#define ESCAPED_SPACE "\xe2\x96\x81"
#define REPLACEMENT "\xef\xbf\xbd"
#define WORD_BYTES 4

/* The best cover of the text up to a place: its last token, where that began, and the score of it all. */
struct best_cover {
    double score;
    uint32_t from;
    int32_t id;
};

struct replacement {
    const char *text;
    size_t len, consumed;
};

/* ---- Normalisation */

static uint32_t node_at(const struct charsmap *map, uint32_t index)
{
    const uint8_t *at = map->nodes + (size_t)index * WORD_BYTES;
    if (index >= map->node_count)
        return 0;
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint32_t node_base(uint32_t node)
{
    return (node >> 10) << ((node & (1u << 9)) >> 6);
}

/* The replacement of the longest sequence at text that has one. */
static bool find_replacement(const struct charsmap *map, const char *text, size_t len,
                             struct replacement *out)
{
    uint32_t index = node_base(node_at(map, 0));
    bool found = false;
    for (size_t i = 0; i < len && text[i] != 0; i++) {
        uint32_t c = (unsigned char)text[i];
        index ^= c;
        uint32_t node = node_at(map, index);
        if ((node & (1u << 31 | 0xff)) != c)
            break;
        index ^= node_base(node);
        if (!(node >> 8 & 1))
            continue;
        size_t at = node_at(map, index) & 0x7fffffff;
        const char *end = at < map->pool_len ? memchr(map->pool + at, 0, map->pool_len - at) : NULL;
        if (end) {
            *out = (struct replacement){map->pool + at, (size_t)(end - (map->pool + at)), i + 1};
            found = true;
        }
    }
    return found;
}

/* How far text agrees with some user-defined token: such text is left as it is. */
static size_t user_prefix(const struct vocab *vocab, const char *text, size_t len)
{
    size_t longest = 0;
    for (size_t i = 0; i < vocab->user_id_count; i++) {
        struct gguf_string user = text_table_at(&vocab->tokens, (size_t)vocab->user_ids[i]);
        size_t n = 0;
        while (n < len && n < user.len && user.text[n] == text[n])
            n++;
        longest = n > longest ? n : longest;
    }
    return longest;
}

static struct replacement normalize_at(const struct vocab *vocab, const char *text, size_t len)
{
    struct replacement out;
    uint32_t point;
    size_t user = user_prefix(vocab, text, len);
    if (user > 0)
        return (struct replacement){text, user, user};
    if (vocab->charsmap.node_count > 0 && find_replacement(&vocab->charsmap, text, len, &out))
        return out;
    size_t n = unicode_decode(text, len, &point);
    if (n == 1 && ((unsigned char)*text & 0x80))
        return (struct replacement){REPLACEMENT, sizeof REPLACEMENT - 1, 1};
    return (struct replacement){text, n, n};
}

/* Writes the normalised text to t->text. Words are led by an escaped space: the first one when the
 * vocabulary has a space prefix, each one when runs of spaces are merged; other spaces are kept. */
static void normalize(struct tokenize *t, const char *text, size_t len)
{
    const struct vocab *vocab = t->vocab;
    bool prefixed = !vocab->space_prefix, in_word = false;
    buf_clear(&t->text);
    for (size_t at = 0; at < len;) {
        struct replacement r = normalize_at(vocab, text + at, len - at);
        at += r.consumed;
        for (size_t i = 0; i < r.len; i++) {
            if (r.text[i] == ' ') {
                in_word = false;
                if (!vocab->merge_spaces)
                    buf_puts(&t->text, ESCAPED_SPACE);
                continue;
            }
            if (!in_word && (!prefixed || vocab->merge_spaces)) {
                buf_puts(&t->text, ESCAPED_SPACE);
                prefixed = true;
            }
            in_word = true;
            buf_putc(&t->text, r.text[i]);
        }
    }
}

/* ---- The best cover */

static size_t announced_length(char first, size_t left)
{
    unsigned byte = (unsigned char)first;
    size_t len = byte < 0xc0 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
    return len < left ? len : left;
}

static void improve(struct best_cover *best, double score, size_t from, int32_t id)
{
    if (score > best->score)
        *best = (struct best_cover){score, (uint32_t)from, id};
}

/* Tries every token at `at`. Bytes, control tokens and the unknown token are no part of text. */
static void extend(const struct tokenize *t, size_t at, size_t character)
{
    const struct vocab *vocab = t->vocab;
    size_t left = t->text.len - at;
    size_t max = left < vocab->token_len_max ? left : vocab->token_len_max;
    double here = t->best[at].score;
    bool known = false;
    for (size_t len = 1; len <= max; len++) {
        int32_t id = vocab_lookup(vocab, t->text.data + at, len);
        if (id < 0 || (vocab->attr[id] & (TOKEN_HIDDEN | TOKEN_BYTE)))
            continue;
        known = known || len == character;
        double score = vocab->attr[id] & TOKEN_USER ? 0.0 : (double)vocab_score(vocab, id);
        improve(&t->best[at + len], here + score, at, id);
    }
    if (!known)
        improve(&t->best[at + character], here + (double)vocab->unknown_score, at, vocab->info.unk);
}

/* Walks back from the end; neighbouring unknowns become one. */
static void emit_cover(struct tokenize *t)
{
    size_t begin = t->out->len, at = t->text.len;
    bool after_unknown = false;
    while (at > 0) {
        const struct best_cover *best = &t->best[at];
        bool unknown = best->id == t->vocab->info.unk;
        if (!(unknown && after_unknown))
            tokenize_emit(t, best->id);
        after_unknown = unknown;
        at = best->from;
    }
    for (size_t i = begin, j = t->out->len; i + 1 < j; i++) {
        int32_t id = t->out->ids[i];
        t->out->ids[i] = t->out->ids[--j];
        t->out->ids[j] = id;
    }
}

void tokenize_ugm(struct tokenize *t, const char *text, size_t len)
{
    normalize(t, text, len);
    if (buf_status(&t->text) != PH_OK || t->text.len == 0 ||
        !tokenize_room(t, &t->best, &t->best_cap, t->text.len + 1, sizeof *t->best))
        return;
    for (size_t i = 0; i <= t->text.len; i++)
        t->best[i] = (struct best_cover){i == 0 ? 0 : -DBL_MAX, 0, t->vocab->info.unk};
    for (size_t at = 0; at < t->text.len;) {
        size_t character = announced_length(t->text.data[at], t->text.len - at);
        extend(t, at, character);
        at += character;
    }
    emit_cover(t);
}
