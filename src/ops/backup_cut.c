/* Where a changing file is cut, so that an insertion moves one cut and not all that follow.
 *
 * FastCDC (Xia et al., USENIX ATC 2016): a gear hash rolls over the bytes, h = 2h + gear[byte], and a chunk
 * ends where some of its high bits are 0. Nothing is looked at before the least length; until the mean length
 * more bits are asked for than after it, which keeps lengths near the mean (normalised chunking). The gear's
 * numbers and the masks are part of the format: others would cut elsewhere, and nothing would be found again.
 */
#include "base/clock.h"
#include "ops/backup_int.h"

#define CUT_BYTES_MIN ((size_t)32 << 10)
#define CUT_BYTES_MEAN ((size_t)128 << 10) /* 2^17 */
#define GEAR_SEED 0x70686172u
#define MASK_TOP(bits) (~UINT64_C(0) << (64 - (bits)))
#define MASK_BEFORE MASK_TOP(19)
#define MASK_AFTER MASK_TOP(15)

void cutter_init(struct cutter *cutter)
{
    struct rng rng;
    rng_init(&rng, GEAR_SEED);
    for (size_t i = 0; i < 256; i++)
        cutter->gear[i] = rng_u64(&rng);
}

size_t cutter_cut(const struct cutter *cutter, const uint8_t *bytes, size_t len)
{
    uint64_t hash = 0;
    size_t at = CUT_BYTES_MIN;
    if (len <= CUT_BYTES_MIN)
        return len;
    if (len > CUT_BYTES_MAX)
        len = CUT_BYTES_MAX;
    size_t mean = len < CUT_BYTES_MEAN ? len : CUT_BYTES_MEAN;
    for (; at < mean; at++) {
        hash = (hash << 1) + cutter->gear[bytes[at]];
        if (!(hash & MASK_BEFORE))
            return at + 1;
    }
    for (; at < len; at++) {
        hash = (hash << 1) + cutter->gear[bytes[at]];
        if (!(hash & MASK_AFTER))
            return at + 1;
    }
    return len;
}
