/* The frame of a stream's chunks: what stays the same from one to the next around the text.
 *
 * Nearly all chunks of a stream differ in their content alone. So the chunk that was read last as JSON, and
 * said a piece of text and nothing else, is kept; one that has the same bytes before and behind its content
 * means the same but for that content, and need not be read as JSON: two comparisons instead of a parse.
 *
 * Why that is sound. A kept chunk has no backslash, so its only member called content is the one whose name
 * stands there once in plain letters; its value is a string without an escape. Bytes that differ from it
 * within that string only, and have there neither quote, backslash, control character nor broken UTF-8, are
 * JSON of the same shape. */
#include <string.h>

#include "base/utf8.h"
#include "chat/openai_frame_int.h"

#define FRAME_BYTES_MAX 4096
#define NAME "\"content\""

void openai_frame_init(struct openai_frame *frame)
{
    *frame = (struct openai_frame){0};
    buf_init(&frame->text, FRAME_BYTES_MAX);
    buf_init(&frame->content, CHAT_SSE_EVENT_BYTES_MAX);
}

void openai_frame_release(struct openai_frame *frame)
{
    buf_release(&frame->text);
    buf_release(&frame->content);
}

/* Where the only member of that name has its value; 0: there is none, or more than one. */
static size_t find_value(const char *text, size_t len)
{
    size_t found = 0;
    for (size_t i = 0; i + sizeof NAME <= len; i++) {
        const char *quote = memchr(text + i, '"', len - i);
        if (!quote)
            break;
        i = (size_t)(quote - text);
        if (len - i < sizeof NAME || memcmp(quote, NAME, sizeof NAME - 1) != 0)
            continue;
        if (found)
            return 0;
        found = i + sizeof NAME - 1;
    }
    return found;
}

void openai_frame_learn(struct openai_frame *frame, const char *chunk, size_t len, struct chat_text content)
{
    frame->before = 0;
    size_t at = len <= FRAME_BYTES_MAX && !memchr(chunk, '\\', len) ? find_value(chunk, len) : 0;
    if (!at || at + 2 > len || memcmp(chunk + at, ":\"", 2) != 0)
        return;
    at += 2;
    if (content.len >= len - at || memcmp(chunk + at, content.text, content.len) != 0 ||
        chunk[at + content.len] != '"')
        return;
    buf_clear(&frame->text);
    buf_append(&frame->text, chunk, len);
    if (buf_status(&frame->text) != PH_OK)
        return;
    frame->before = at;
    frame->behind = len - at - content.len;
}

/* Text that stands for itself within the quotes of JSON. */
static bool is_plain(const char *text, size_t len)
{
    unsigned char all = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < ' ' || c == '"' || c == '\\')
            return false;
        all |= c;
    }
    return all < 0x80 || utf8_valid(text, len);
}

bool openai_frame_match(struct openai_frame *frame, const char *chunk, size_t len, struct chat_text *content)
{
    const struct buf *text = &frame->text;
    if (!frame->before || len < frame->before + frame->behind ||
        memcmp(chunk, text->data, frame->before) != 0 ||
        memcmp(chunk + len - frame->behind, text->data + text->len - frame->behind, frame->behind) != 0)
        return false;
    size_t content_len = len - frame->before - frame->behind;
    if (!is_plain(chunk + frame->before, content_len))
        return false;
    buf_clear(&frame->content);
    buf_append(&frame->content, chunk + frame->before, content_len);
    *content = (struct chat_text){content_len ? frame->content.data : "", content_len};
    return buf_status(&frame->content) == PH_OK;
}
