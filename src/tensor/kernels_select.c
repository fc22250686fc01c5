/* Which kernel set runs here: what the CPU has and the operating system saves, found once per call. */
#include "tensor/kernels_int.h"

#include <strings.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

struct candidate {
    const char *name;
    const struct kernels *kernels;
    bool (*usable)(void);
};

static bool always(void)
{
    return true;
}

#if defined(__x86_64__)

/* Register sets the operating system saves (Intel SDM volume 1, 13.3). */
#define SAVED_AVX 0x6u
#define SAVED_AVX512 0xe6u
#define SAVED_TILES 0x60000u

enum cpu_register { CPU_EBX, CPU_ECX, CPU_EDX };

static bool saved(uint32_t sets)
{
    uint32_t a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return false;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & sets) == sets;
}

static bool leaf_has(uint32_t leaf, enum cpu_register which, uint32_t bits)
{
    uint32_t a, r[3];
    return __get_cpuid_count(leaf, 0, &a, &r[CPU_EBX], &r[CPU_ECX], &r[CPU_EDX]) && (r[which] & bits) == bits;
}

static bool has_avx2(void)
{
    const uint32_t fma_avx_f16c = 1u << 12 | 1u << 28 | 1u << 29;
    return saved(SAVED_AVX) && leaf_has(1, CPU_ECX, fma_avx_f16c) && leaf_has(7, CPU_EBX, 1u << 5);
}

static bool has_avx512(void)
{
    const uint32_t f_dq_bw_vl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    return has_avx2() && saved(SAVED_AVX512) && leaf_has(7, CPU_EBX, f_dq_bw_vl) &&
           leaf_has(7, CPU_ECX, 1u << 11);
}

static bool has_avx512bf16(void)
{
    uint32_t a = 0, b, c, d;
    return has_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5);
}

static bool has_amx(void)
{
    const uint32_t bf16_tile = 1u << 22 | 1u << 24;
    return has_avx512bf16() && saved(SAVED_TILES) && leaf_has(7, CPU_EDX, bf16_tile) &&
           kernels_amx_permitted();
}

#endif

/* Best last. */
static const struct candidate candidates[] = {
    {"ref", &kernels_ref, always},
#if defined(__x86_64__)
    {"avx2", &kernels_avx2, has_avx2},
    {"avx512", &kernels_avx512, has_avx512},
    {"avx512bf16", &kernels_avx512bf16, has_avx512bf16},
    {"amx", &kernels_amx, has_amx},
#endif
};

const struct kernels *kernels_select(const char *limit)
{
    const struct kernels *best = NULL;
    for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++) {
        bool usable = candidates[i].usable();
        if (usable)
            best = candidates[i].kernels;
        if (limit && strcasecmp(limit, candidates[i].name) == 0)
            return usable ? best : NULL;
    }
    return limit ? NULL : best;
}

const char *kernels_name(const struct kernels *kernels)
{
    return kernels->name;
}
