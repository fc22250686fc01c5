/* Words: what a pre-tokenizer cuts a text into before anything is merged. For whoever counts words to train a
 * tokenizer; the tokenizer itself walks its own array and never makes words apart. */
#include <string.h>

#include "base/mem.h"
#include "model/vocab_int.h"

struct words {
    bool (*word)(void *ud, const char *text, size_t len);
    void *ud;
    struct buf text;
};

static enum ph_status tell_words(struct words *words, const uint32_t *chars, size_t count)
{
    char utf8[4];
    for (size_t i = 0; i < count; i++) {
        buf_append(&words->text, utf8, unicode_encode(chars[i] & CHAR_POINT, utf8));
        if (!(chars[i] & CHAR_CUT))
            continue;
        if (buf_status(&words->text) != PH_OK)
            break;
        if (!words->word(words->ud, words->text.data, words->text.len))
            return PH_ERR_CANCELLED;
        buf_clear(&words->text);
    }
    return buf_status(&words->text);
}

enum ph_status pretokenize(const char *pre, const char *text, size_t len,
                           bool (*word)(void *ud, const char *text, size_t len), void *ud, struct ph_err *err)
{
    const struct pretokenizer *known = pretokenizer_find(pre, strlen(pre));
    if (!known)
        return ph_fail(err, PH_ERR_UNSUPPORTED, "pre-tokenizer '%.64s' is not known to this build", pre);
    uint32_t *chars = mem_realloc(NULL, len ? len : 1, sizeof *chars);
    if (!chars)
        return ph_fail(err, PH_ERR_NOMEM, "no memory to cut %zu bytes into words", len);
    size_t count = 0;
    for (size_t at = 0; at < len; count++) {
        uint32_t point;
        at += unicode_decode(text + at, len - at, &point);
        chars[count] = point | unicode_class(point) << CHAR_CLASS_SHIFT;
    }
    pretokenizer_split(known, chars, count);
    struct words words = {.word = word, .ud = ud};
    buf_init(&words.text, 4 * len + 4);
    enum ph_status status = tell_words(&words, chars, count);
    buf_release(&words.text);
    mem_free(chars);
    return status == PH_OK ? PH_OK
                           : ph_fail(err, status, "cutting a text into words: %s", ph_status_name(status));
}
