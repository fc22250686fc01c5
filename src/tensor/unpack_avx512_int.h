/* Unpackers of prefill with AVX-512: struct mm_kernel's `unpack` for each format, to BF16 and to F32. */
#ifndef PHAROS_TENSOR_UNPACK_AVX512_INT_H
#define PHAROS_TENSOR_UNPACK_AVX512_INT_H

#include "tensor/codes_avx512_int.h"

#define UNPACKER_DECLARED(name)                                                                         \
    void name(const struct matrix *w, size_t row, size_t rows, size_t from, size_t len, uint8_t *panel, \
              size_t stride)

UNPACKER_DECLARED(unpack_bf16_q8_0);
UNPACKER_DECLARED(unpack_f32_q8_0);
UNPACKER_DECLARED(unpack_bf16_q4_0);
UNPACKER_DECLARED(unpack_f32_q4_0);
UNPACKER_DECLARED(unpack_bf16_q4_1);
UNPACKER_DECLARED(unpack_f32_q4_1);
UNPACKER_DECLARED(unpack_bf16_q5_0);
UNPACKER_DECLARED(unpack_f32_q5_0);
UNPACKER_DECLARED(unpack_bf16_q5_1);
UNPACKER_DECLARED(unpack_f32_q5_1);
UNPACKER_DECLARED(unpack_bf16_iq4_nl);
UNPACKER_DECLARED(unpack_f32_iq4_nl);
UNPACKER_DECLARED(unpack_bf16_mxfp4);
UNPACKER_DECLARED(unpack_f32_mxfp4);
UNPACKER_DECLARED(unpack_bf16_q2_k);
UNPACKER_DECLARED(unpack_f32_q2_k);
UNPACKER_DECLARED(unpack_bf16_q3_k);
UNPACKER_DECLARED(unpack_f32_q3_k);
UNPACKER_DECLARED(unpack_bf16_q4_k);
UNPACKER_DECLARED(unpack_f32_q4_k);
UNPACKER_DECLARED(unpack_bf16_q5_k);
UNPACKER_DECLARED(unpack_f32_q5_k);
UNPACKER_DECLARED(unpack_bf16_q6_k);
UNPACKER_DECLARED(unpack_f32_q6_k);
UNPACKER_DECLARED(unpack_bf16_q8_k);
UNPACKER_DECLARED(unpack_f32_q8_k);
UNPACKER_DECLARED(unpack_bf16_iq4_xs);
UNPACKER_DECLARED(unpack_f32_iq4_xs);
UNPACKER_DECLARED(unpack_f32_f32);
UNPACKER_DECLARED(unpack_f32_f16);
UNPACKER_DECLARED(unpack_f32_bf16);

#endif
