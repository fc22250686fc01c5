/* Numbers as bytes, bytes as text. Thread: any. */
#ifndef PHAROS_BASE_BYTES_H
#define PHAROS_BASE_BYTES_H

#include <stddef.h>
#include <stdint.h>

/* The low `count` bytes of a number (8 at most), the lowest first, at an address of any alignment. */
void bytes_put_le(void *at, uint64_t value, size_t count);
uint64_t bytes_get_le(const void *at, size_t count);

/* Two lower-case digits a byte and an end: out holds 2 * count + 1. */
void bytes_hex(char *out, const void *bytes, size_t count);

#endif
