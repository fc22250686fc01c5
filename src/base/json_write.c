/* The writer: compact, and as close to what was read as JSON allows. */
#include <string.h>

#include "base/json_int.h"
#include "base/utf8.h"

static size_t plain_len(const char *text, size_t len)
{
    size_t i = 0;
    for (; len - i >= JSON_WORD_BYTES; i += JSON_WORD_BYTES) {
        uint64_t mask = json_special_mask(json_load_word(text + i));
        if (mask)
            return i + json_mask_index(mask);
    }
    if (i && json_special_mask(json_load_word(text + len - JSON_WORD_BYTES)) == 0)
        return len;
    while (i < len && !json_is_special(text[i]))
        i++;
    return i;
}

static void write_escape(struct buf *out, unsigned char c)
{
    static const char names[] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r', ['"'] = '"', ['\\'] = '\\'};
    static const char digits[] = "0123456789abcdef";
    if (c < sizeof names && names[c]) {
        char text[2] = {'\\', names[c]};
        buf_append(out, text, sizeof text);
    } else {
        char text[6] = {'\\', 'u', '0', '0', digits[c >> 4], digits[c & 15]};
        buf_append(out, text, sizeof text);
    }
}

/* A character that is not ASCII, or its replacement; returns the bytes of `text` that it stands for. */
static size_t write_character(struct buf *out, const char *text, size_t len)
{
    uint32_t code_point;
    char bytes[UTF8_LEN_MAX];
    size_t read = utf8_next(text, len, &code_point);
    buf_append(out, bytes, utf8_encode(code_point, bytes));
    return read;
}

/* Most strings need nothing but their quotes. */
static void write_plain(struct buf *out, const char *text, size_t len)
{
    char *room = len < SIZE_MAX - 2 ? buf_reserve(out, len + 2) : NULL;
    if (!room)
        return;
    room[0] = '"';
    if (len)
        memcpy(room + 1, text, len);
    room[len + 1] = '"';
    buf_grew(out, len + 2);
}

void json_write_string(struct buf *out, const char *text, size_t len)
{
    size_t done = plain_len(text, len);
    if (done == len) {
        write_plain(out, text, len);
        return;
    }
    buf_putc(out, '"');
    for (; len > 0; done = plain_len(text, len)) {
        if (done) {
            buf_append(out, text, done);
        } else if ((unsigned char)*text < 0x80) {
            write_escape(out, (unsigned char)*text);
            done = 1;
        } else {
            done = write_character(out, text, len);
        }
        text += done;
        len -= done;
    }
    buf_putc(out, '"');
}

static void write_text(struct buf *out, const char *text, size_t len, bool is_plain)
{
    if (is_plain)
        write_plain(out, text, len);
    else
        json_write_string(out, text, len);
}

static void write_value(struct buf *out, const struct json *value, size_t depth);

static void write_list(struct buf *out, const struct json *list, size_t depth)
{
    if (depth == JSON_TREE_DEPTH_MAX) {
        if (out->status == PH_OK)
            out->status = PH_ERR_LIMIT;
        return;
    }
    bool object = list->type == JSON_OBJECT;
    buf_putc(out, object ? '{' : '[');
    for (const struct json *item = list->u.list.first; item && out->status == PH_OK; item = item->next) {
        if (item != list->u.list.first)
            buf_putc(out, ',');
        if (object) {
            write_text(out, item->key, item->key_len, item->key_is_plain);
            buf_putc(out, ':');
        }
        write_value(out, item, depth + 1);
    }
    buf_putc(out, object ? '}' : ']');
}

static void write_value(struct buf *out, const struct json *value, size_t depth)
{
    switch (value->type) {
    case JSON_FALSE:
        buf_append(out, "false", 5);
        break;
    case JSON_TRUE:
        buf_append(out, "true", 4);
        break;
    case JSON_NUMBER:
        buf_append(out, value->u.str.text, value->u.str.len);
        break;
    case JSON_STRING:
        write_text(out, value->u.str.text, value->u.str.len, value->is_plain);
        break;
    case JSON_ARRAY:
    case JSON_OBJECT:
        write_list(out, value, depth);
        break;
    case JSON_NULL:
    default:
        buf_append(out, "null", 4);
        break;
    }
}

void json_write(struct buf *out, const struct json *value)
{
    static const struct json null = {.type = JSON_NULL};
    write_value(out, value ? value : &null, 0);
}
