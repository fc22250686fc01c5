/* Merging: SPM and BPE both begin with single characters and join, again and again, the best pair of
 * neighbours; ties go to the leftmost. They differ in what "best" means: the score of the joined text's token
 * (SPM), or the rank of the pair in the list of merges (BPE).
 *
 * Candidates wait in a binary heap; joining two symbols adds at most two. A candidate whose symbols have
 * changed since is recognised by its size and dropped when it surfaces. So n characters take n log n steps,
 * whatever the text.
 *
 * Text for SPM is cut by the length that a first byte announces, valid or not, as the reference does. */
#include <string.h>

#include "model/vocab_int.h"

struct symbol {
    uint32_t start, len; /* of the text; len 0: joined to the one on its left */
    int32_t prev, next;  /* neighbours, -1: none */
};

struct candidate_merge {
    uint64_t key; /* priority << 32 | index of the left symbol: the smallest goes first */
    uint32_t right;
    uint32_t size; /* of both texts when the candidate was made */
};

/* ---- The heap */

static void heap_push(struct tokenize *t, struct candidate_merge item)
{
    if (!tokenize_room(t, &t->heap, &t->heap_cap, t->heap_len + 1, sizeof *t->heap))
        return;
    size_t at = t->heap_len++;
    for (; at > 0 && t->heap[(at - 1) / 2].key > item.key; at = (at - 1) / 2)
        t->heap[at] = t->heap[(at - 1) / 2];
    t->heap[at] = item;
}

static struct candidate_merge heap_pop(struct tokenize *t)
{
    struct candidate_merge best = t->heap[0], last = t->heap[--t->heap_len];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= t->heap_len)
            break;
        if (child + 1 < t->heap_len && t->heap[child + 1].key < t->heap[child].key)
            child++;
        if (t->heap[child].key >= last.key)
            break;
        t->heap[at] = t->heap[child];
        at = child;
    }
    t->heap[at] = last;
    return best;
}

/* ---- Priorities */

/* Larger scores come first: the bits of a float, turned so that they order as an unsigned number. */
static uint32_t score_priority(float score)
{
    uint32_t bits;
    score += 0.0f; /* -0 and 0 are one score */
    memcpy(&bits, &score, sizeof bits);
    return bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
}

static bool pair_priority(const struct tokenize *t, const struct symbol *left, const struct symbol *right,
                          uint32_t *priority)
{
    const char *text = t->text.data;
    if (t->vocab->info.kind == VOCAB_SPM) {
        int32_t id = vocab_lookup(t->vocab, text + left->start, left->len + right->len);
        if (id >= 0)
            *priority = score_priority(vocab_score(t->vocab, id));
        return id >= 0;
    }
    int32_t rank = vocab_merge_rank(t->vocab, text + left->start, left->len, text + right->start, right->len);
    if (rank >= 0)
        *priority = (uint32_t)rank;
    return rank >= 0;
}

/* ---- The loop */

static void add_symbol(struct tokenize *t, size_t *count, size_t start, size_t len)
{
    if (tokenize_room(t, &t->symbols, &t->symbols_cap, *count + 1, sizeof *t->symbols)) {
        t->symbols[*count] = (struct symbol){(uint32_t)start, (uint32_t)len, (int32_t)*count - 1, -1};
        if (*count > 0)
            t->symbols[*count - 1].next = (int32_t)*count;
        ++*count;
    }
}

static void consider(struct tokenize *t, int32_t left, int32_t right)
{
    uint32_t priority;
    if (left < 0 || right < 0)
        return;
    const struct symbol *a = &t->symbols[left], *b = &t->symbols[right];
    if (pair_priority(t, a, b, &priority))
        heap_push(t, (struct candidate_merge){(uint64_t)priority << 32 | (uint32_t)left, (uint32_t)right,
                                              a->len + b->len});
}

static void merge(struct tokenize *t, size_t count)
{
    t->heap_len = 0;
    for (size_t i = 1; i < count; i++)
        consider(t, (int32_t)i - 1, (int32_t)i);
    while (t->heap_len > 0 && t->status == PH_OK) {
        struct candidate_merge best = heap_pop(t);
        int32_t index = (int32_t)(uint32_t)best.key;
        struct symbol *left = &t->symbols[index], *right = &t->symbols[best.right];
        if (left->len == 0 || right->len == 0 || left->len + right->len != best.size)
            continue;
        left->len += right->len;
        right->len = 0;
        left->next = right->next;
        if (right->next >= 0)
            t->symbols[right->next].prev = index;
        consider(t, left->prev, index);
        consider(t, index, left->next);
    }
}

/* ---- SPM */

static void append_escaped(struct buf *out, const char *text, size_t len)
{
    for (const char *end = text + len; text < end;) {
        const char *blank = memchr(text, ' ', (size_t)(end - text));
        size_t plain = (size_t)((blank ? blank : end) - text);
        buf_append(out, text, plain);
        if (blank)
            buf_append(out, "\xe2\x96\x81", 3);
        text += plain + (blank != NULL);
    }
}

static size_t announced_length(char first)
{
    unsigned byte = (unsigned char)first;
    return byte < 0xc0 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

static void emit_bytes(struct tokenize *t, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        int32_t id = t->vocab->byte_token[(unsigned char)text[i]];
        tokenize_emit(t, id >= 0 || t->vocab->info.kind != VOCAB_SPM ? id : t->vocab->info.unk);
    }
}

void tokenize_spm(struct tokenize *t, const char *text, size_t len, bool prefix)
{
    size_t count = 0;
    buf_clear(&t->text);
    append_escaped(&t->text, " ", prefix);
    append_escaped(&t->text, text, len);
    if (buf_status(&t->text) != PH_OK)
        return;
    for (size_t at = 0, n; at < t->text.len; at += n) {
        n = announced_length(t->text.data[at]);
        n = n < t->text.len - at ? n : t->text.len - at;
        add_symbol(t, &count, at, n);
    }
    merge(t, t->status == PH_OK ? count : 0);
    for (int32_t i = 0; i >= 0 && t->status == PH_OK; i = t->symbols[i].next) {
        const char *symbol = t->text.data + t->symbols[i].start;
        int32_t id = vocab_lookup(t->vocab, symbol, t->symbols[i].len);
        if (id >= 0)
            tokenize_emit(t, id);
        else
            emit_bytes(t, symbol, t->symbols[i].len);
    }
}

/* ---- BPE */

uint32_t byte_alphabet_point(uint8_t byte)
{
    if (byte <= 0x20)
        return 256u + byte;
    if (byte >= 0x7f && byte <= 0xa0)
        return 256u + 33u + (byte - 0x7fu);
    return byte == 0xad ? 256u + 33u + 34u : byte;
}

int byte_alphabet_byte(uint32_t point)
{
    if (point < 256)
        return byte_alphabet_point((uint8_t)point) == point ? (int)point : -1;
    if (point < 256 + 33)
        return (int)point - 256;
    if (point < 256 + 33 + 34)
        return (int)point - 256 - 33 + 0x7f;
    return point == 256 + 33 + 34 ? 0xad : -1;
}

/* Puts a word into t->text in the alphabet of the merges, a symbol a character. */
static size_t encode_word(struct tokenize *t, const uint32_t *chars, size_t len)
{
    size_t count = 0;
    char utf8[4], symbol[4];
    buf_clear(&t->text);
    for (size_t i = 0; i < len; i++) {
        size_t n = unicode_encode(chars[i] & CHAR_POINT, utf8);
        if (!t->vocab->byte_level) {
            add_symbol(t, &count, t->text.len, n);
            buf_append(&t->text, utf8, n);
            continue;
        }
        for (size_t j = 0; j < n; j++) {
            size_t m = unicode_encode(byte_alphabet_point((uint8_t)utf8[j]), symbol);
            add_symbol(t, &count, t->text.len, m);
            buf_append(&t->text, symbol, m);
        }
    }
    return count;
}

/* A symbol that no token spells: its bytes, as far as there are tokens for them. */
static void emit_unknown(struct tokenize *t, const char *text, size_t len)
{
    if (!t->vocab->byte_level) {
        emit_bytes(t, text, len);
        return;
    }
    for (size_t i = 0; i < len; i++)
        tokenize_emit(t, vocab_lookup(t->vocab, text + i, 1));
}

static bool is_whole_token(const struct tokenize *t, int32_t *id)
{
    uint32_t flags = t->vocab->pre->flags;
    const char *text = t->text.data;
    size_t len = t->text.len;
    bool whole = (flags & PRE_IGNORE_MERGES) != 0;
    if (!whole && (flags & PRE_NEWLINES_WHOLE))
        for (size_t i = 0; i == 0 || (whole && i < len); i++)
            whole = text[i] == '\n';
    *id = whole ? vocab_lookup(t->vocab, text, len) : -1;
    return *id >= 0;
}

static void tokenize_word(struct tokenize *t, const uint32_t *chars, size_t len)
{
    int32_t id;
    size_t count = encode_word(t, chars, len);
    if (t->status != PH_OK || buf_status(&t->text) != PH_OK)
        return;
    if (is_whole_token(t, &id)) {
        tokenize_emit(t, id);
        return;
    }
    merge(t, count);
    for (int32_t i = 0; i >= 0 && t->status == PH_OK; i = t->symbols[i].next) {
        const char *symbol = t->text.data + t->symbols[i].start;
        id = vocab_lookup(t->vocab, symbol, t->symbols[i].len);
        if (id >= 0)
            tokenize_emit(t, id);
        else
            emit_unknown(t, symbol, t->symbols[i].len);
    }
}

void tokenize_bpe(struct tokenize *t, const char *text, size_t len)
{
    size_t count = 0;
    bool escape = t->vocab->escape_spaces;
    if (!tokenize_room(t, &t->chars, &t->chars_cap, len, sizeof *t->chars))
        return;
    for (size_t at = 0; at < len; count++) {
        uint32_t point;
        at += unicode_decode(text + at, len - at, &point);
        point = escape && point == ' ' ? 0x2581 : point;
        t->chars[count] = point | unicode_class(point) << CHAR_CLASS_SHIFT;
    }
    pretokenizer_split(t->vocab->pre, t->chars, count);
    for (size_t begin = 0, end; begin < count && t->status == PH_OK; begin = end) {
        end = begin + 1;
        while (!(t->chars[end - 1] & CHAR_CUT))
            end++;
        tokenize_word(t, t->chars + begin, end - begin);
    }
}
