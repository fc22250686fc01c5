/* Streaming detokenisation. Tokens end in the middle of characters; readers want whole ones. Up to three
 * bytes that may still become a character are held back. Bytes that cannot are replaced by U+FFFD, one for
 * each longest beginning of a character (Unicode 15.1, section 3.9, "maximal subpart"), so that the text does
 * not depend on how the bytes were split. */
#include <string.h>

#include "base/limits.h"
#include "model/vocab_int.h"

#define REPLACEMENT "\xef\xbf\xbd"

void detok_init(struct detok *detok, const struct vocab *vocab, bool special, bool continues)
{
    *detok = (struct detok){.vocab = vocab, .special = special, .started = continues};
}

static size_t sequence_length(unsigned char first)
{
    return first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
}

/* Whether `byte` may follow the `len` bytes held, which begin a character (RFC 3629, section 4). */
static bool continues_held(const char *held, size_t len, unsigned char byte)
{
    unsigned low = 0x80, high = 0xbf;
    if (len == 1) {
        switch ((unsigned char)held[0]) {
        case 0xe0:
            low = 0xa0;
            break;
        case 0xed:
            high = 0x9f;
            break;
        case 0xf0:
            low = 0x90;
            break;
        case 0xf4:
            high = 0x8f;
            break;
        default:
            break;
        }
    }
    return byte >= low && byte <= high;
}

static void push_byte(struct detok *detok, char c, struct buf *out)
{
    unsigned char byte = (unsigned char)c;
    if (detok->held_len > 0) {
        if (continues_held(detok->held, detok->held_len, byte)) {
            detok->held[detok->held_len++] = c;
            if (detok->held_len == sequence_length((unsigned char)detok->held[0])) {
                buf_append(out, detok->held, detok->held_len);
                detok->held_len = 0;
            }
            return;
        }
        detok_flush(detok, out);
    }
    size_t len = sequence_length(byte);
    if (len == 1)
        buf_putc(out, c);
    else if (len == 0)
        buf_puts(out, REPLACEMENT);
    else
        detok->held[detok->held_len++] = c;
}

void detok_push(struct detok *detok, int32_t id, struct buf *out)
{
    char piece[VOCAB_TOKEN_BYTES_MAX];
    const struct vocab *vocab = detok->vocab;
    size_t len = vocab_piece(vocab, id, detok->special, piece);
    size_t at = !detok->started && vocab->space_prefix && len > 0 && piece[0] == ' ';
    detok->started = true;
    for (; at < len; at++)
        push_byte(detok, piece[at], out);
}

void detok_flush(struct detok *detok, struct buf *out)
{
    if (detok->held_len > 0)
        buf_puts(out, REPLACEMENT);
    detok->held_len = 0;
}
