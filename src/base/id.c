#include "base/id.h"

#include <assert.h>
#include <string.h>

#define ID_RANDOM_CHARS 24
#define ID_PREFIX_MAX 20

void id_make(struct rng *rng, const char *prefix, char out[ID_TEXT_MAX])
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    size_t len = strlen(prefix);
    assert(len <= ID_PREFIX_MAX);
    memcpy(out, prefix, len);
    uint64_t bits = 0;
    for (int made = 0, left = 0; made < ID_RANDOM_CHARS; left--, bits >>= 6) {
        if (left == 0) {
            bits = rng_u64(rng);
            left = 10;
        }
        if ((bits & 63) < sizeof alphabet - 1) { /* the two values too many would favour two letters */
            out[len++] = alphabet[bits & 63];
            made++;
        }
    }
    out[len] = 0;
}
