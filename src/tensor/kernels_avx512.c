/* The AVX-512 table (F, BW, VL, DQ and VNNI). */
#include "tensor/kernels_avx512_int.h"

const struct kernels kernels_avx512 = {.name = "avx512",
                                       .vector = &vector_avx512,
                                       .peak = &peak_avx512,
                                       .decode = DECODE_AVX512,
                                       .prefill = DECODE_AVX512};
