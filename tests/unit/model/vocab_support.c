#include "vocab_support.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "model/model.h"

enum { KEY_COUNT_AT = 16, TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_BYTE = 6 };

struct vocab_image *vocab_image_create(void)
{
    return mem_calloc(1, sizeof(struct vocab_image));
}

void vocab_image_free(struct vocab_image *image)
{
    mem_free(image);
}

static void put(struct vocab_image *image, uint64_t value, size_t width)
{
    assert(image->len + width <= sizeof image->bytes);
    for (size_t i = 0; i < width; i++)
        image->bytes[image->len++] = (uint8_t)(value >> (8 * i));
}

static void put_text(struct vocab_image *image, const char *text, size_t len)
{
    put(image, len, 8);
    assert(image->len + len <= sizeof image->bytes);
    memcpy(image->bytes + image->len, text, len);
    image->len += len;
}

static void put_key(struct vocab_image *image, const char *key, enum gguf_type type)
{
    uint8_t *count = image->bytes + KEY_COUNT_AT;
    count[0]++;
    put_text(image, key, strlen(key));
    put(image, type, 4);
}

/* Begins an array; its count is filled in by end_array. */
static size_t begin_array(struct vocab_image *image, const char *key, enum gguf_type type)
{
    put_key(image, key, GGUF_ARRAY);
    put(image, type, 4);
    put(image, 0, 8);
    return image->len - 8;
}

static void end_array(struct vocab_image *image, size_t at, size_t count)
{
    for (size_t i = 0; i < 8; i++)
        image->bytes[at + i] = (uint8_t)(count >> (8 * i));
}

void vocab_image_begin(struct vocab_image *image)
{
    memset(image, 0, sizeof *image);
    memcpy(image->bytes, "GGUF\3", 5);
    image->len = 24;
}

void vocab_image_string(struct vocab_image *image, const char *key, const char *text)
{
    put_key(image, key, GGUF_STRING);
    put_text(image, text, strlen(text));
}

void vocab_image_uint(struct vocab_image *image, const char *key, uint32_t value)
{
    put_key(image, key, GGUF_UINT32);
    put(image, value, 4);
}

void vocab_image_strings(struct vocab_image *image, const char *key, const char *const *texts)
{
    size_t at = begin_array(image, key, GGUF_STRING), count = 0;
    for (; texts[count]; count++)
        put_text(image, texts[count], strlen(texts[count]));
    end_array(image, at, count);
}

void vocab_image_bool(struct vocab_image *image, const char *key, int value)
{
    put_key(image, key, GGUF_BOOL);
    put(image, value != 0, 1);
}

void vocab_image_bytes(struct vocab_image *image, const char *key, const uint8_t *bytes, size_t len)
{
    size_t at = begin_array(image, key, GGUF_UINT8);
    for (size_t i = 0; i < len; i++)
        put(image, bytes[i], 1);
    end_array(image, at, len);
}

void vocab_image_floats(struct vocab_image *image, const char *key, const float *values, size_t count)
{
    size_t at = begin_array(image, key, GGUF_FLOAT32);
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        put(image, bits, 4);
    }
    end_array(image, at, count);
}

static void put_types(struct vocab_image *image, size_t count, uint32_t type)
{
    for (size_t i = 0; i < count; i++)
        put(image, type, 4);
}

void vocab_image_types(struct vocab_image *image, size_t count, uint32_t type)
{
    size_t at = begin_array(image, "tokenizer.ggml.token_type", GGUF_INT32);
    put_types(image, count, type);
    end_array(image, at, count);
}

void vocab_image_type_list(struct vocab_image *image, const uint32_t *types, size_t count)
{
    size_t at = begin_array(image, "tokenizer.ggml.token_type", GGUF_INT32);
    for (size_t i = 0; i < count; i++)
        put(image, types[i], 4);
    end_array(image, at, count);
}

static void put_alphabet(struct vocab_image *image)
{
    uint32_t next = 256;
    for (uint32_t byte = 0; byte < 256; byte++) {
        char text[UTF8_LEN_MAX];
        int printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
        put_text(image, text, utf8_encode(printable ? byte : next++, text));
    }
}

static void put_joined(struct vocab_image *image, const char *merge)
{
    char text[64];
    size_t left = (size_t)(strchr(merge + 1, ' ') - merge), right = strlen(merge) - left - 1;
    assert(left + right < sizeof text);
    memcpy(text, merge, left);
    memcpy(text + left, merge + left + 1, right);
    put_text(image, text, left + right);
}

void vocab_image_byte_tokens(struct vocab_image *image, const char *const *merges,
                             const char *const *specials)
{
    size_t at = begin_array(image, "tokenizer.ggml.tokens", GGUF_STRING), normal = 256, special = 0;
    put_alphabet(image);
    for (; merges[normal - 256]; normal++)
        put_joined(image, merges[normal - 256]);
    for (; specials[special]; special++)
        put_text(image, specials[special], strlen(specials[special]));
    end_array(image, at, normal + special);
    at = begin_array(image, "tokenizer.ggml.token_type", GGUF_INT32);
    put_types(image, normal, TYPE_NORMAL);
    put_types(image, special, TYPE_CONTROL);
    end_array(image, at, normal + special);
}

void vocab_image_spm_tokens(struct vocab_image *image, const char *const *texts)
{
    static const char *const first[] = {"<unk>", "<s>", "</s>"};
    size_t at = begin_array(image, "tokenizer.ggml.tokens", GGUF_STRING), count = 0;
    for (size_t i = 0; i < 3; i++)
        put_text(image, first[i], strlen(first[i]));
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", byte & 0xff);
        put_text(image, text, 6);
    }
    for (; texts[count]; count++)
        put_text(image, texts[count], strlen(texts[count]));
    end_array(image, at, 3 + 256 + count);
    at = begin_array(image, "tokenizer.ggml.token_type", GGUF_INT32);
    put_types(image, 1, TYPE_UNKNOWN);
    put_types(image, 2, TYPE_CONTROL);
    put_types(image, 256, TYPE_BYTE);
    put_types(image, count, TYPE_NORMAL);
    end_array(image, at, 3 + 256 + count);
    float scores[1024];
    assert(3 + 256 + count <= sizeof scores / sizeof *scores);
    for (size_t i = 0; i < 3 + 256 + count; i++)
        scores[i] = -(float)i;
    vocab_image_floats(image, "tokenizer.ggml.scores", scores, 3 + 256 + count);
}
