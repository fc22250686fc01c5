#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#define BUF_BYTES_MIN ((size_t)64)

void buf_init(struct buf *buf, size_t max)
{
    *buf = (struct buf){.max = max < SIZE_MAX / 4 ? max : SIZE_MAX / 4};
}

void buf_release(struct buf *buf)
{
    if (buf->data)
        mem_free(buf->data);
    buf_init(buf, buf->max);
}

void buf_clear(struct buf *buf)
{
    buf->len = 0;
    buf->status = PH_OK;
    if (buf->data)
        buf->data[0] = 0;
}

char *buf_reserve(struct buf *buf, size_t len)
{
    if (buf->status != PH_OK)
        return NULL;
    if (len > buf->max - buf->len) {
        buf->status = PH_ERR_LIMIT;
        return NULL;
    }
    size_t need = buf->len + len + 1;
    if (need > buf->cap) {
        size_t cap = buf->cap ? buf->cap : BUF_BYTES_MIN;
        while (cap < need)
            cap *= 2;
        if (cap > buf->max + 1)
            cap = buf->max + 1;
        char *data = mem_realloc(buf->data, cap, 1);
        if (!data) {
            buf->status = PH_ERR_NOMEM;
            return NULL;
        }
        buf->data = data;
        buf->cap = cap;
    }
    return buf->data + buf->len;
}

void buf_grew(struct buf *buf, size_t len)
{
    buf->len += len;
    buf->data[buf->len] = 0;
}

void buf_append_growing(struct buf *buf, const void *bytes, size_t len)
{
    char *room = buf_reserve(buf, len);
    if (!room)
        return;
    if (len)
        memcpy(room, bytes, len);
    buf_grew(buf, len);
}

void buf_printf(struct buf *buf, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *room = len >= 0 ? buf_reserve(buf, (size_t)len) : NULL;
    if (room) {
        vsnprintf(room, (size_t)len + 1, fmt, again);
        buf_grew(buf, (size_t)len);
    }
    va_end(again);
}

void buf_put_uint(struct buf *buf, uint64_t value)
{
    char digits[24];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + value % 10);
    while (value /= 10);
    buf_append(buf, digits + at, sizeof digits - at);
}

void buf_put_fixed(struct buf *buf, int64_t value, unsigned decimals)
{
    uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value, unit = 1;
    char digits[24];
    for (unsigned i = 0; i < decimals; i++)
        unit *= 10;
    if (value < 0)
        buf_putc(buf, '-');
    buf_put_uint(buf, left / unit);
    left %= unit;
    unsigned count = decimals;
    for (; count && left % 10 == 0; count--)
        left /= 10;
    for (unsigned i = count; i-- > 0; left /= 10)
        digits[i] = (char)('0' + left % 10);
    if (count) {
        buf_putc(buf, '.');
        buf_append(buf, digits, count);
    }
}

void buf_consume(struct buf *buf, size_t len)
{
    if (len == 0)
        return;
    memmove(buf->data, buf->data + len, buf->len - len + 1);
    buf->len -= len;
}

enum ph_status buf_status(const struct buf *buf)
{
    return buf->status;
}

char *buf_take(struct buf *buf)
{
    char *data = buf->data;
    *buf = (struct buf){.max = buf->max};
    return data;
}
