/* Vocabulary files made in memory. */
#ifndef PHAROS_TESTS_VOCAB_SUPPORT_H
#define PHAROS_TESTS_VOCAB_SUPPORT_H

#include <stddef.h>
#include <stdint.h>

struct vocab_image {
    uint8_t bytes[1 << 16];
    size_t len;
};

struct vocab_image *vocab_image_create(void);
void vocab_image_free(struct vocab_image *image);
void vocab_image_begin(struct vocab_image *image); /* a GGUF without keys */
void vocab_image_string(struct vocab_image *image, const char *key, const char *text);
void vocab_image_uint(struct vocab_image *image, const char *key, uint32_t value);
void vocab_image_strings(struct vocab_image *image, const char *key, const char *const *texts);
void vocab_image_bool(struct vocab_image *image, const char *key, int value);
void vocab_image_bytes(struct vocab_image *image, const char *key, const uint8_t *bytes, size_t len);
void vocab_image_floats(struct vocab_image *image, const char *key, const float *values, size_t count);
/* tokenizer.ggml.token_type: `count` of one type */
void vocab_image_types(struct vocab_image *image, size_t count, uint32_t type);
void vocab_image_type_list(struct vocab_image *image, const uint32_t *types, size_t count);
/* tokenizer.ggml.tokens and token_type: GPT-2's byte alphabet, what the merges make, special tokens. */
void vocab_image_byte_tokens(struct vocab_image *image, const char *const *merges,
                             const char *const *specials);
/* The same for SPM: <unk>, <s>, </s>, the 256 byte tokens, the texts given with falling scores. */
void vocab_image_spm_tokens(struct vocab_image *image, const char *const *texts);

#endif
