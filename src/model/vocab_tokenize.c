/* From text to tokens: special tokens are found first, what lies between them goes to the vocabulary's own
 * tokenizer.
 *
 * Longer special tokens win over shorter ones anywhere in the text, and among those of one length the
 * leftmost. So the lengths are tried in turn, longest first, at every place where a special token may begin
 * and that no longer one has claimed. A table of the byte pairs special tokens begin with leaves few such
 * places in ordinary text; the time is bounded by places x lengths whatever the text is. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/vocab_int.h"

#define TEXT_BYTES_MAX (UINT32_MAX / 4)

struct special_match {
    size_t begin, end; /* with the spaces it swallows */
    int32_t id;
};

struct partition {
    const char *text;
    size_t len;
    const struct special_set *set;
    bool all; /* control and unknown tokens too, not only user-defined ones */
    uint32_t *places;
    size_t place_count, place_cap;
    uint8_t *claimed; /* [len] */
    size_t claimed_cap;
    struct special_match *matches;
    size_t match_count, match_cap;
};

bool tokenize_room(struct tokenize *t, void *items, size_t *cap, size_t count, size_t size)
{
    void *old;
    if (t->status != PH_OK)
        return false;
    if (count <= *cap)
        return true;
    size_t larger = *cap ? *cap : 64;
    while (larger < count)
        larger *= 2;
    memcpy(&old, items, sizeof old);
    void *grown = mem_realloc(old, larger, size);
    if (!grown) {
        t->status = PH_ERR_NOMEM;
        return false;
    }
    memcpy(items, &grown, sizeof grown);
    *cap = larger;
    return true;
}

void tokenize_emit(struct tokenize *t, int32_t id)
{
    struct token_list *out = t->out;
    if (id >= 0 && tokenize_room(t, &out->ids, &out->cap, out->len + 1, sizeof *out->ids))
        out->ids[out->len++] = id;
}

void token_list_release(struct token_list *list)
{
    mem_free(list->ids);
    *list = (struct token_list){.ids = NULL};
}

/* ---- Special tokens in the text */

static bool may_begin(const struct special_set *set, const char *text, size_t left)
{
    unsigned first = (unsigned char)text[0], second = left > 1 ? (unsigned char)text[1] : 0;
    return set->pairs[(first << 8 | second) / 8] >> (second % 8) & 1;
}

static void find_places(struct tokenize *t, struct partition *p)
{
    for (size_t at = 0; at < p->len; at++)
        if (may_begin(p->set, p->text + at, p->len - at) &&
            tokenize_room(t, &p->places, &p->place_cap, p->place_count + 1, sizeof *p->places))
            p->places[p->place_count++] = (uint32_t)at;
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void claim(struct tokenize *t, struct partition *p, size_t at, size_t len, int32_t id)
{
    struct special_match match = {at, at + len, id};
    uint8_t attr = t->vocab->attr[id];
    while ((attr & TOKEN_LSTRIP) && match.begin > 0 && !p->claimed[match.begin - 1] &&
           is_blank(p->text[match.begin - 1]))
        match.begin--;
    while ((attr & TOKEN_RSTRIP) && match.end < p->len && !p->claimed[match.end] &&
           is_blank(p->text[match.end]))
        match.end++;
    memset(p->claimed + match.begin, 1, match.end - match.begin);
    if (tokenize_room(t, &p->matches, &p->match_cap, p->match_count + 1, sizeof *p->matches))
        p->matches[p->match_count++] = match;
}

/* A token marked as control on top of being user-defined counts as control. */
static bool is_wanted(const struct partition *p, uint8_t attr)
{
    return p->all ? (attr & TOKEN_SPECIAL) != 0 : (attr & TOKEN_SPECIAL) == TOKEN_USER;
}

static void claim_length(struct tokenize *t, struct partition *p, size_t len)
{
    for (size_t i = 0; i < p->place_count && t->status == PH_OK; i++) {
        size_t at = p->places[i];
        if (len > p->len - at || p->claimed[at] || memchr(p->claimed + at, 1, len))
            continue;
        int32_t id = vocab_lookup(t->vocab, p->text + at, len);
        if (id >= 0 && is_wanted(p, t->vocab->attr[id]))
            claim(t, p, at, len, id);
    }
}

static int by_begin(const void *a, const void *b)
{
    const struct special_match *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

static void find_specials(struct tokenize *t, struct partition *p)
{
    find_places(t, p);
    if (p->place_count == 0 || !tokenize_room(t, &p->claimed, &p->claimed_cap, p->len, 1))
        return;
    memset(p->claimed, 0, p->len);
    for (size_t i = 0; i < p->set->length_count; i++)
        claim_length(t, p, p->set->lengths[i]);
    if (p->match_count > 1)
        qsort(p->matches, p->match_count, sizeof *p->matches, by_begin);
}

/* ---- Between them */

static void tokenize_fragment(struct tokenize *t, const char *text, size_t len, bool after_special)
{
    if (len == 0 || t->status != PH_OK)
        return;
    switch (t->vocab->info.kind) {
    case VOCAB_SPM:
        tokenize_spm(t, text, len, after_special && t->vocab->space_prefix);
        break;
    case VOCAB_BPE:
        tokenize_bpe(t, text, len);
        break;
    case VOCAB_WPM:
        tokenize_wpm(t, text, len);
        break;
    case VOCAB_UGM:
        tokenize_ugm(t, text, len);
        break;
    }
}

static void tokenize_text(struct tokenize *t, const char *text, size_t len, bool parse_special)
{
    struct partition p = {.text = text,
                          .len = len,
                          .all = parse_special,
                          .set = parse_special ? &t->vocab->special : &t->vocab->user};
    find_specials(t, &p);
    size_t at = 0;
    bool after_special = true; /* the beginning counts as one */
    for (size_t i = 0; i < p.match_count; i++) {
        tokenize_fragment(t, text + at, p.matches[i].begin - at, after_special);
        tokenize_emit(t, p.matches[i].id);
        at = p.matches[i].end;
        after_special = true;
    }
    tokenize_fragment(t, text + at, len - at, after_special);
    mem_free(p.places);
    mem_free(p.claimed);
    mem_free(p.matches);
}

enum ph_status vocab_tokenize(const struct vocab *vocab, const char *text, size_t len, bool add_special,
                              bool parse_special, struct token_list *out, struct ph_err *err)
{
    struct tokenize t = {.vocab = vocab, .out = out};
    bool wpm = vocab->info.kind == VOCAB_WPM;
    size_t before = out->len;
    if (len > TEXT_BYTES_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "a text of %zu bytes is too long to tokenise; at most %u are taken",
                       len, TEXT_BYTES_MAX);
    buf_init(&t.text, SIZE_MAX);
    if (add_special && (wpm || vocab->info.add_bos))
        tokenize_emit(&t, vocab->info.bos);
    if (len > 0)
        tokenize_text(&t, text, len, parse_special);
    if (add_special && wpm)
        tokenize_emit(&t, vocab->sep);
    else if (add_special && vocab->info.add_eos)
        tokenize_emit(&t, vocab->info.eos);
    if (t.status == PH_OK)
        t.status = buf_status(&t.text);
    buf_release(&t.text);
    mem_free(t.chars);
    mem_free(t.symbols);
    mem_free(t.heap);
    mem_free(t.best);
    if (t.status == PH_OK)
        return PH_OK;
    out->len = before;
    return ph_fail(err, t.status, "tokenising %zu bytes: %s", len, ph_status_name(t.status));
}
