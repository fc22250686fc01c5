/* GGUF files of any bytes: opening, every look-up, and a vocabulary made from what opens. Small model and
 * vocabulary files make a good corpus. */
#include <stdlib.h>
#include <string.h>

#include "model/model.h"

static void look_at(const struct gguf *gguf)
{
    struct gguf_string text;
    struct gguf_array array;
    double d;
    int64_t i;
    uint64_t u;
    volatile size_t sum = 0;
    for (size_t k = 0; k < gguf_key_count(gguf); k++) {
        enum gguf_type type;
        const char *key = gguf_key(gguf, k, &type);
        uint64_t cursor = 0;
        gguf_get_uint(gguf, key, &u);
        gguf_get_int(gguf, key, &i);
        gguf_get_float(gguf, key, &d);
        if (gguf_get_string(gguf, key, &text) && text.len)
            sum += (unsigned char)text.text[0] + (unsigned char)text.text[text.len - 1];
        if (!gguf_get_array(gguf, key, &array))
            continue;
        while (gguf_array_string(&array, &cursor, &text))
            sum += text.len ? (unsigned char)text.text[text.len - 1] : 0;
        if (array.count)
            sum += gguf_array_number(&array, array.count - 1) > 0;
    }
    for (size_t t = 0; t < gguf_tensor_count(gguf); t++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, t);
        const unsigned char *data = tensor->data;
        sum += data[0] + data[tensor->bytes - 1];
        if (gguf_tensor_find(gguf, tensor->name) != tensor)
            abort();
    }
}

static void use_vocab(const struct gguf *gguf)
{
    static const char text[] =
        "Hello  world's\n\t 1234 caf\xc3\xa9 \xe4\xb8\xad <s></s><0x41> \xff\xc3 ABc'LL ...";
    struct vocab *vocab;
    struct token_list tokens = {.ids = NULL};
    struct buf out;
    struct detok detok;
    if (vocab_create(&vocab, gguf, NULL) != PH_OK)
        return;
    buf_init(&out, 1 << 20);
    if (vocab_tokenize(vocab, text, sizeof text, true, true, &tokens, NULL) == PH_OK &&
        vocab_detokenize(vocab, tokens.ids, tokens.len, true, &out) == PH_ERR_ARG)
        abort(); /* the tokenizer made an id that does not exist */
    detok_init(&detok, vocab, false, false);
    for (size_t i = 0; i < tokens.len; i++)
        detok_push(&detok, tokens.ids[i], &out);
    detok_flush(&detok, &out);
    token_list_release(&tokens);
    buf_release(&out);
    vocab_free(vocab);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct gguf *gguf;
    if (gguf_open_memory(&gguf, data, len, "fuzz", NULL) != PH_OK)
        return 0;
    look_at(gguf);
    use_vocab(gguf);
    gguf_free(gguf);
    return 0;
}
