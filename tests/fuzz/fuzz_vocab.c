/* Any text through vocabularies of every kind. The first byte chooses kind, pre-tokenizer and flags. What a
 * byte-level vocabulary that has all bytes makes of valid UTF-8 must spell it again. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/model.h"

#define LENGTH(array) (sizeof(array) / sizeof *(array))

struct image {
    uint8_t bytes[1 << 16];
    size_t len;
    size_t keys;
};

static void put(struct image *image, uint64_t value, size_t width)
{
    for (size_t i = 0; i < width; i++)
        image->bytes[image->len++] = (uint8_t)(value >> (8 * i));
}

static void put_text(struct image *image, const char *text, size_t len)
{
    put(image, len, 8);
    memcpy(image->bytes + image->len, text, len);
    image->len += len;
}

static void put_key(struct image *image, const char *key, enum gguf_type type)
{
    put_text(image, key, strlen(key));
    put(image, type, 4);
    image->keys++;
}

static void put_string_key(struct image *image, const char *key, const char *text)
{
    put_key(image, key, GGUF_STRING);
    put_text(image, text, strlen(text));
}

static size_t put_array(struct image *image, const char *key, enum gguf_type type)
{
    put_key(image, key, GGUF_ARRAY);
    put(image, type, 4);
    put(image, 0, 8);
    return image->len - 8;
}

static void set_count(struct image *image, size_t at, uint64_t count)
{
    for (size_t i = 0; i < 8; i++)
        image->bytes[at + i] = (uint8_t)(count >> (8 * i));
}

/* The byte alphabet of GPT-2, or SPM's byte tokens; then some words, then special tokens. */
static size_t put_tokens(struct image *image, bool bpe, size_t *byte_count)
{
    static const char *const words[] = {"th",
                                        "he",
                                        "the",
                                        "\xe2\x96\x81",
                                        "\xe2\x96\x81the",
                                        "\xe2\x96\x81\xe2\x96\x81",
                                        "aa",
                                        "aaaa",
                                        "\xc4\xa0t",
                                        "\xc4\xa0the",
                                        "ab",
                                        "<|im_end|>",
                                        "<s>",
                                        "</s>"};
    size_t count_at = put_array(image, "tokenizer.ggml.tokens", GGUF_STRING), extra = 0;
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[8];
        size_t len;
        if (bpe) {
            bool printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
            len = utf8_encode(printable ? byte : 256 + extra++, text);
        } else {
            static const char hex[] = "0123456789ABCDEF";
            memcpy(text, "<0x__>", 7);
            text[3] = hex[byte >> 4];
            text[4] = hex[byte & 15];
            len = 6;
        }
        put_text(image, text, len);
    }
    for (size_t i = 0; i < LENGTH(words); i++)
        put_text(image, words[i], strlen(words[i]));
    *byte_count = 256;
    set_count(image, count_at, 256 + LENGTH(words));
    return 256 + LENGTH(words);
}

static void put_types(struct image *image, bool bpe, size_t bytes, size_t count)
{
    size_t count_at = put_array(image, "tokenizer.ggml.token_type", GGUF_INT32);
    for (size_t i = 0; i < count; i++)
        put(image, i < bytes ? (bpe ? 1 : 6) : i + 2 < count ? 1 : 3, 4);
    set_count(image, count_at, count);
}

static void put_merges(struct image *image)
{
    static const char *const merges[] = {"t h",   "h e",        "th e",         "a a",
                                         "aa aa", "\xc4\xa0 t", "\xc4\xa0t he", "a b"};
    size_t count_at = put_array(image, "tokenizer.ggml.merges", GGUF_STRING);
    for (size_t i = 0; i < LENGTH(merges); i++)
        put_text(image, merges[i], strlen(merges[i]));
    set_count(image, count_at, LENGTH(merges));
}

static void make_image(struct image *image, const char *model, const char *pre)
{
    bool bpe = pre != NULL;
    size_t bytes, count;
    image->len = image->keys = 0;
    memcpy(image->bytes, "GGUF", 4);
    image->len = 4;
    put(image, 3, 4);
    put(image, 0, 8);
    put(image, 0, 8);
    put_string_key(image, "tokenizer.ggml.model", model);
    if (bpe)
        put_string_key(image, "tokenizer.ggml.pre", pre);
    count = put_tokens(image, bpe, &bytes);
    put_types(image, bpe, bytes, count);
    if (bpe)
        put_merges(image);
    set_count(image, 16, image->keys);
}

static const struct {
    const char *model, *pre;
} kinds[] = {
    {"llama", NULL},
    {"bert", NULL},
    {"t5", NULL},
    {"gpt2", "default"},
    {"gpt2", "gpt-2"},
    {"gpt2", "llama-bpe"},
    {"gpt2", "qwen2"},
    {"gpt2", "qwen35"},
    {"gpt2", "deepseek-llm"},
    {"gpt2", "deepseek-v3"},
    {"gpt2", "falcon"},
    {"gpt2", "starcoder"},
    {"gpt2", "deepseek-coder"},
    {"gpt2", "gpt-4o"},
    {"gpt2", "tekken"},
    {"gpt2", "kimi-k2"},
    {"gpt2", "bloom"},
    {"gpt2", "chameleon"},
    {"gpt2", "superbpe"},
    {"gpt2", "exaone-moe"},
    {"gpt2", "jais-2"},
    {"gpt2", "afmoe"},
    {"gpt2", "tiny_aya"},
    {"gpt2", "youtu"},
    {"gpt2", "viking"},
    {"gpt2", "spark2_5"},
    {"gpt2", "seed-coder"},
    {"gpt2", "minicpm5"},
    {"gpt2", "laguna"},
    {"gpt2", "sarvam-moe"},
    {"gpt2", "ufakzeka"},
    {"gpt2", "granite-embed-multi-97m"},
};

static struct vocab *vocabs[LENGTH(kinds)];

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    for (size_t i = 0; i < LENGTH(kinds); i++) {
        static struct image images[LENGTH(kinds)];
        static struct gguf *ggufs[LENGTH(kinds)];
        make_image(&images[i], kinds[i].model, kinds[i].pre);
        if (gguf_open_memory(&ggufs[i], images[i].bytes, images[i].len, "fuzz", NULL) != PH_OK ||
            vocab_create(&vocabs[i], ggufs[i], NULL) != PH_OK)
            abort();
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct token_list tokens = {.ids = NULL};
    struct buf out;
    if (len < 2)
        return 0;
    size_t kind = data[0] % LENGTH(kinds);
    bool add = data[1] & 1, parse = data[1] & 2;
    const char *text = (const char *)data + 2;
    len -= 2;
    if (vocab_tokenize(vocabs[kind], text, len, add, parse, &tokens, NULL) != PH_OK)
        abort();
    buf_init(&out, SIZE_MAX);
    for (size_t i = 0; i < tokens.len; i++)
        if (tokens.ids[i] < 0 || (size_t)tokens.ids[i] >= vocab_info(vocabs[kind])->n_tokens)
            abort();
    if (kinds[kind].pre && strcmp(kinds[kind].pre, "sarvam-moe") != 0 && !add && !parse &&
        utf8_valid(text, len)) {
        struct detok detok;
        detok_init(&detok, vocabs[kind], true, true);
        for (size_t i = 0; i < tokens.len; i++)
            detok_push(&detok, tokens.ids[i], &out);
        detok_flush(&detok, &out);
        if (out.len != len || (len && memcmp(out.data, text, len) != 0))
            abort();
    }
    token_list_release(&tokens);
    buf_release(&out);
    return 0;
}
