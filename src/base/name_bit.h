/* One bit of 32 for a name, a constant where the name is a literal: the bits of all names in a list tell of
 * most others that they are absent, without a look at any. An empty name must be terminated. */
#ifndef PHAROS_BASE_NAME_BIT_H
#define PHAROS_BASE_NAME_BIT_H

#include <stdint.h>

#define NAME_BIT(name, len) (UINT32_C(1) << ((7 * (unsigned char)*(name) + (unsigned)(len)) % 32))

#endif
