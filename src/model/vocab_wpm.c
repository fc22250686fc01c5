/* WordPiece, as BERT has it: text is cleaned and cut into words, each word is covered from left to right with
 * the longest tokens, and a word that cannot be covered is one unknown token. In GGUF a word begins with
 * U+2581, and its continuations ("##ing" elsewhere) have no mark. */
#include <string.h>

#include "model/vocab_int.h"

#define WORD_MARK "\xe2\x96\x81"

/* Ideographs stand alone. The ranges are those of the original tokenizer, gaps included. */
static bool is_ideograph(uint32_t point)
{
    static const uint32_t ranges[][2] = {{0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xf900, 0xfaff},
                                         {0x20000, 0x2a6df}, {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f},
                                         {0x2b920, 0x2ceaf}, {0x2f800, 0x2fa1f}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (ranges[i][0] <= point && point <= ranges[i][1])
            return true;
    return false;
}

/* Covers the word in t->text, and begins the next. */
static void finish_word(struct tokenize *t)
{
    const char *text = t->text.data;
    size_t len = t->text.len, before = t->out->len, at = 0;
    if (buf_status(&t->text) != PH_OK || t->status != PH_OK)
        return;
    if (len <= sizeof WORD_MARK - 1)
        return;
    while (at < len) {
        size_t n = len - at < t->vocab->token_len_max ? len - at : t->vocab->token_len_max;
        int32_t id = -1;
        while (n > 0 && (id = vocab_lookup(t->vocab, text + at, n)) < 0)
            n--;
        if (id < 0)
            break;
        tokenize_emit(t, id);
        at += n;
    }
    if (at < len) {
        t->out->len = before;
        tokenize_emit(t, t->vocab->info.unk);
    }
    buf_clear(&t->text);
    buf_puts(&t->text, WORD_MARK);
}

void tokenize_wpm(struct tokenize *t, const char *text, size_t len)
{
    const struct vocab *vocab = t->vocab;
    buf_clear(&t->text);
    buf_puts(&t->text, WORD_MARK);
    for (size_t at = 0; at < len;) {
        uint32_t point;
        char utf8[4];
        at += unicode_decode(text + at, len - at, &point);
        if (vocab->strip_accents)
            point = unicode_base(point);
        uint32_t classes = unicode_class(point);
        if (classes & UNICODE_SPACE) {
            finish_word(t);
            continue;
        }
        if (point == 0 || point == 0xfffd || (classes & UNICODE_CONTROL) ||
            (vocab->strip_accents && (classes & UNICODE_MARK)))
            continue;
        bool alone = (classes & UNICODE_PUNCTUATION) || (point < 0x7f && (classes & UNICODE_SYMBOL)) ||
                     is_ideograph(point);
        if (alone)
            finish_word(t);
        buf_append(&t->text, utf8, unicode_encode(vocab->lowercase ? unicode_lower(point) : point, utf8));
        if (alone)
            finish_word(t);
    }
    finish_word(t);
}
