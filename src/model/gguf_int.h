/* What the GGUF reader and writer share. */
#ifndef PHAROS_MODEL_GGUF_INT_H
#define PHAROS_MODEL_GGUF_INT_H

#include "model/model.h"

#define GGUF_MAGIC "GGUF"
#define GGUF_VERSION_MIN 2u
#define GGUF_VERSION 3u
#define GGUF_ALIGNMENT_KEY "general.alignment"
#define GGUF_ALIGNMENT_DEFAULT 32u
#define GGUF_ALIGNMENT_MIN 8u
#define GGUF_ALIGNMENT_MAX (1u << 20)

/* A key's value as it lies in the file (strings with their length, arrays with their header). */
struct gguf_raw {
    enum gguf_type type;
    const uint8_t *bytes;
    size_t len;
};

bool gguf_get_raw(const struct gguf *gguf, const char *key, struct gguf_raw *out);
/* Bytes of one value of a fixed-size type; 0 for strings, arrays and unknown types. */
size_t gguf_scalar_bytes(uint32_t type);
bool gguf_alignment_ok(uint64_t alignment);
/* Bytes of a tensor's data. false: a dimension is 0, dims[0] is no whole number of blocks, or the product
 * overflows. */
bool gguf_tensor_bytes(const struct tensor_format *format, uint32_t n_dims, const uint64_t *dims,
                       uint64_t *bytes);

#endif
