/* Base64 (RFC 4648, section 4). */
#ifndef PHAROS_BASE_BASE64_H
#define PHAROS_BASE_BASE64_H

#include <stddef.h>

#include "base/buf.h"

void base64_write(struct buf *out, const void *bytes, size_t len); /* padded; failures stick to the buffer */

/* Room that base64_read needs for a text of this length. */
#define BASE64_BYTES_MAX(text_len) ((text_len) / 4 * 3 + 3)
#define BASE64_BAD ((size_t)-1)
/* Returns the number of bytes, BASE64_BAD when the text is none. Padding may be missing; nothing else may be
 * between or behind. */
size_t base64_read(const char *text, size_t len, void *out);

#endif
