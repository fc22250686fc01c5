/* Growable byte buffer with a maximum, for building text and protocol messages.
 *
 * Failure is sticky: after an append that would pass `max` (PH_ERR_LIMIT) or finds no memory (PH_ERR_NOMEM)
 * later appends do nothing, so that a writer checks buf_status() once, at its end. `data` is always
 * terminated by a 0 that is not counted in `len` (NULL while nothing was ever appended). Thread: one at a
 * time. */
#ifndef PHAROS_BASE_BUF_H
#define PHAROS_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/status.h"

struct buf {
    char *data;
    size_t len;
    size_t cap;
    size_t max; /* bytes, terminator not counted */
    enum ph_status status;
};

void buf_init(struct buf *buf, size_t max);
void buf_release(struct buf *buf); /* frees the memory; the struct may be initialised again */
void buf_clear(struct buf *buf);   /* len 0, status OK, memory kept */
static inline void buf_append(struct buf *buf, const void *bytes, size_t len);
static inline void buf_puts(struct buf *buf, const char *text);
static inline void buf_putc(struct buf *buf, char c);
void buf_printf(struct buf *buf, const char *fmt, ...) PH_PRINTF(2, 3);
/* Decimal numbers, for hot paths: printf takes ten times as long. `fixed` is value / 10^decimals (at most
 * 18), without zeroes at its end: buf_put_fixed(b, 1500, 3) is "1.5". */
void buf_put_uint(struct buf *buf, uint64_t value);
void buf_put_fixed(struct buf *buf, int64_t value, unsigned decimals);
void buf_consume(struct buf *buf, size_t len); /* drops `len` bytes from the front */

/* Room for `len` more bytes at data + buf->len, to be filled by the caller and then announced with
 * buf_grew(); NULL (and a sticky status) when that is too much. */
char *buf_reserve(struct buf *buf, size_t len);
void buf_grew(struct buf *buf, size_t len);

PH_MUST_USE enum ph_status buf_status(const struct buf *buf);

/* The memory changes hands (free with mem_free); the buffer is left empty. NULL when nothing was appended. */
char *buf_take(struct buf *buf);

/* ---- Inline, because writers of text call nothing else: with room for the bytes, an append of a literal is
 * a few moves. */

void buf_append_growing(struct buf *buf, const void *bytes, size_t len); /* for buf_append */

static inline void buf_append(struct buf *buf, const void *bytes, size_t len)
{
    if (buf->cap - buf->len <= len || buf->status != PH_OK) {
        buf_append_growing(buf, bytes, len);
        return;
    }
    if (len)
        memcpy(buf->data + buf->len, bytes, len);
    buf->len += len;
    buf->data[buf->len] = 0;
}

static inline void buf_puts(struct buf *buf, const char *text)
{
    buf_append(buf, text, strlen(text));
}

static inline void buf_putc(struct buf *buf, char c)
{
    buf_append(buf, &c, 1);
}

#endif
