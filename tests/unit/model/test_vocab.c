/* Tokenizers against the reference cases of eight vocabularies, and what no reference covers: hostile
 * lengths, damaged vocabularies, streaming. */
#include <time.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/mem.h"
#include "model/model.h"
#include "test_support.h"
#include "vocab_support.h"

/* ---- The reference cases */

static size_t hex_to_bytes(const char *hex, char *out)
{
    size_t len = strlen(hex) / 2;
    for (size_t i = 0; i < len; i++) {
        unsigned value;
        char pair[3] = {hex[2 * i], hex[2 * i + 1], 0};
        value = (unsigned)strtoul(pair, NULL, 16);
        out[i] = (char)value;
    }
    return len;
}

static bool ids_equal(const struct json *expected, const struct token_list *tokens)
{
    size_t i = 0;
    if (json_count(expected) != tokens->len)
        return false;
    JSON_EACH (item, expected) {
        int64_t id;
        if (!json_to_int64(item, &id) || tokens->ids[i++] != id)
            return false;
    }
    return true;
}

static bool text_equals(const struct vocab *vocab, const struct token_list *tokens, bool special,
                        const struct json *expected)
{
    static char bytes[1 << 20];
    struct buf out;
    if (!expected)
        return true;
    buf_init(&out, SIZE_MAX);
    size_t len = hex_to_bytes(json_text(expected, ""), bytes);
    bool same = vocab_detokenize(vocab, tokens->ids, tokens->len, special, &out) == PH_OK && out.len == len &&
                memcmp(out.len ? out.data : "", bytes, len) == 0;
    buf_release(&out);
    return same;
}

static bool case_passes(const struct vocab *vocab, const struct json *item)
{
    static char text[1 << 20];
    struct token_list plain = {.ids = NULL}, special = {.ids = NULL};
    size_t len = hex_to_bytes(json_text(json_get(item, "hex"), ""), text);
    bool pass = vocab_tokenize(vocab, text, len, false, false, &plain, NULL) == PH_OK &&
                vocab_tokenize(vocab, text, len, true, true, &special, NULL) == PH_OK;
    if (pass && !json_get(item, "error")) /* where the reference refuses, any answer will do */
        pass = ids_equal(json_get(item, "ids"), &plain) &&
               ids_equal(json_get(item, "ids_special"), &special) &&
               text_equals(vocab, &plain, false, json_get(item, "detok_hex")) &&
               text_equals(vocab, &special, true, json_get(item, "detok_special_hex"));
    token_list_release(&plain);
    token_list_release(&special);
    return pass;
}

static void check_reference(const char *name, const char *vocab_path)
{
    char path[256];
    struct buf text;
    struct arena arena;
    struct json *root;
    struct gguf *gguf;
    struct vocab *vocab;
    struct ph_err err = {0};
    snprintf(path, sizeof path, TEST_SHARED_DIR "/conformance/tokenizer/%s.json", name);
    buf_init(&text, 1 << 24);
    arena_init(&arena, 1 << 28);
    assert_int_equal(file_read(path, &text, &err), PH_OK);
    assert_int_equal(json_parse(&arena, text.data, text.len, &root, &err), PH_OK);
    assert_int_equal(gguf_open(&gguf, vocab_path, &err), PH_OK);
    if (vocab_create(&vocab, gguf, &err) != PH_OK)
        fail_msg("%s", err.message);
    size_t passed = 0;
    JSON_EACH (item, json_get(root, "cases")) {
        if (case_passes(vocab, item))
            passed++;
        else
            print_error("%s: differs on %s\n", name, json_text(json_get(item, "hex"), ""));
    }
    assert_true(passed > 200);
    assert_int_equal(passed, json_count(json_get(root, "cases")));
    vocab_free(vocab);
    gguf_free(gguf);
    arena_release(&arena);
    buf_release(&text);
}

static void agrees_with_the_reference(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    static const char *const in_pack[] = {"ggml-vocab-bert-bge", "ggml-vocab-gpt-2", "ggml-vocab-llama-spm",
                                          "ggml-vocab-mpt",      "ggml-vocab-phi-3", "vocab-stories260K",
                                          "vocab-stories3M"};
    for (size_t i = 0; i < sizeof in_pack / sizeof *in_pack; i++) {
        char path[256];
        snprintf(path, sizeof path, TEST_SHARED_DIR "/conformance/tokenizer/vocabs/%s.gguf", in_pack[i]);
        check_reference(strstr(in_pack[i], "vocab-") + strlen("vocab-"), path);
    }
    check_reference("starcoder", TEST_SHARED_DIR "/models/ggml-vocab-starcoder.gguf");
}

/* ---- Small vocabularies made here */

static struct vocab *vocab_of(const struct vocab_image *image, struct gguf **gguf)
{
    struct vocab *vocab = NULL;
    struct ph_err err = {0};
    if (gguf_open_memory(gguf, image->bytes, image->len, "made", &err) != PH_OK ||
        vocab_create(&vocab, *gguf, &err) != PH_OK)
        fail_msg("%s", err.message);
    return vocab;
}

static void assert_no_vocab(const struct vocab_image *image, enum ph_status status, const char *words)
{
    struct gguf *gguf;
    struct vocab *vocab;
    struct ph_err err = {0};
    assert_int_equal(gguf_open_memory(&gguf, image->bytes, image->len, "made", &err), PH_OK);
    assert_int_equal(vocab_create(&vocab, gguf, &err), status);
    assert_null(vocab);
    if (!strstr(err.message, words))
        fail_msg("'%s' is not in '%s'", words, err.message);
    gguf_free(gguf);
}

static void refuses_what_it_cannot_be_right_about(void **state)
{
    (void)state;
    static const char *const tokens[] = {"a", "b", NULL};
    static const char *const merges[] = {"a b", NULL};
    struct vocab_image *image = vocab_image_create();
    vocab_image_begin(image);
    assert_no_vocab(image, PH_ERR_FORMAT, "tokenizer.ggml.model");
    vocab_image_begin(image);
    vocab_image_string(image, "tokenizer.ggml.model", "unheard-of");
    assert_no_vocab(image, PH_ERR_UNSUPPORTED, "'unheard-of'");
    vocab_image_begin(image);
    vocab_image_string(image, "tokenizer.ggml.model", "gpt2");
    vocab_image_string(image, "tokenizer.ggml.pre", "pre-of-tomorrow");
    vocab_image_strings(image, "tokenizer.ggml.tokens", tokens);
    vocab_image_strings(image, "tokenizer.ggml.merges", merges);
    assert_no_vocab(image, PH_ERR_UNSUPPORTED, "'pre-of-tomorrow'");
    vocab_image_begin(image);
    vocab_image_string(image, "tokenizer.ggml.model", "gpt2");
    vocab_image_strings(image, "tokenizer.ggml.tokens", tokens);
    assert_no_vocab(image, PH_ERR_FORMAT, "tokenizer.ggml.merges");
    vocab_image_begin(image);
    vocab_image_string(image, "tokenizer.ggml.model", "llama");
    assert_no_vocab(image, PH_ERR_FORMAT, "tokenizer.ggml.tokens");
    vocab_image_begin(image);
    vocab_image_string(image, "tokenizer.ggml.model", "llama");
    vocab_image_strings(image, "tokenizer.ggml.tokens", tokens);
    vocab_image_types(image, 1, 1);
    assert_no_vocab(image, PH_ERR_FORMAT, "tokenizer.ggml.token_type");
    vocab_image_free(image);
}

/* A byte-level vocabulary of single bytes, the merges given, and special tokens. */
static void make_bytes(struct vocab_image *image, const char *pre, const char *const *merges,
                       const char *const *specials)
{
    vocab_image_begin(image);
    vocab_image_string(image, "tokenizer.ggml.model", "gpt2");
    vocab_image_string(image, "tokenizer.ggml.pre", pre);
    vocab_image_byte_tokens(image, merges, specials);
    vocab_image_strings(image, "tokenizer.ggml.merges", merges);
}

static void finds_special_tokens_longest_first(void **state)
{
    (void)state;
    static const char *const merges[] = {"a a", NULL};
    static const char *const specials[] = {"<|a|>", "<|a|><|b|>", "<|im_end|>", "aaa", NULL};
    struct vocab_image *image = vocab_image_create();
    struct gguf *gguf;
    struct token_list tokens = {.ids = NULL};
    make_bytes(image, "gpt-2", merges, specials);
    struct vocab *vocab = vocab_of(image, &gguf);
    const int32_t a = vocab_find(vocab, "<|a|>", 5), ab = vocab_find(vocab, "<|a|><|b|>", 10);
    const int32_t end = vocab_find(vocab, "<|im_end|>", 10), x = vocab_find(vocab, "x", 1);
    assert_true(a > 0 && ab > 0 && end > 0 && x > 0);
    assert_int_equal(vocab_find(vocab, "<|a|", 4), -1);
    assert_true(vocab_is_end(vocab, end) && !vocab_is_end(vocab, a) && !vocab_is_end(vocab, -1));
    assert_true(vocab_is_special(vocab, a) && !vocab_is_special(vocab, x));

    static const char text[] = "x<|a|><|b|>x<|a|>x<|im_end|>";
    const int32_t expected[] = {x, ab, x, a, x, end};
    assert_int_equal(vocab_tokenize(vocab, text, sizeof text - 1, false, true, &tokens, NULL), PH_OK);
    assert_int_equal(tokens.len, 6);
    assert_memory_equal(tokens.ids, expected, sizeof expected);
    tokens.len = 0;
    assert_int_equal(vocab_tokenize(vocab, text, sizeof text - 1, false, false, &tokens, NULL), PH_OK);
    assert_true(tokens.len > 20);
    token_list_release(&tokens);
    vocab_free(vocab);
    gguf_free(gguf);
    vocab_image_free(image);
}

static void knows_every_pretokenizer(void **state)
{
    (void)state;
    static const char *const names[] = {"default",
                                        "gpt-2",
                                        "llama-bpe",
                                        "llama3",
                                        "qwen2",
                                        "qwen35",
                                        "deepseek-llm",
                                        "deepseek-coder",
                                        "deepseek-v3",
                                        "deepseek-r1-qwen",
                                        "falcon",
                                        "falcon3",
                                        "mpt",
                                        "starcoder",
                                        "refact",
                                        "command-r",
                                        "tekken",
                                        "smollm",
                                        "olmo",
                                        "dbrx",
                                        "gpt-4o",
                                        "llama4",
                                        "phi-2",
                                        "stablelm2",
                                        "bloom",
                                        "gpt3-finnish",
                                        "chatglm-bpe",
                                        "glm4",
                                        "codeshell",
                                        "viking",
                                        "jais",
                                        "jais-2",
                                        "minerva-7b",
                                        "exaone",
                                        "exaone4",
                                        "exaone-moe",
                                        "granite-docling",
                                        "seed-coder",
                                        "hunyuan",
                                        "hunyuan-dense",
                                        "kimi-k2",
                                        "superbpe",
                                        "trillion",
                                        "chameleon",
                                        "tiny_aya",
                                        "youtu",
                                        "afmoe",
                                        "minicpm5",
                                        "sarvam-moe"};
    static const char text[] = "It's  12345 caf\xc3\xa9s\r\n\n  \xe4\xb8\xad\xe6\x96\x87 don't\t<x>  ";
    static const char *const merges[] = {"c a", NULL};
    static const char *const none[] = {NULL};
    struct vocab_image *image = vocab_image_create();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct gguf *gguf;
        struct token_list tokens = {.ids = NULL};
        struct buf out;
        struct detok detok;
        make_bytes(image, names[i], merges, none);
        struct vocab *vocab = vocab_of(image, &gguf);
        buf_init(&out, 1000);
        detok_init(&detok, vocab, false, false);
        assert_int_equal(vocab_tokenize(vocab, text, sizeof text - 1, false, false, &tokens, NULL), PH_OK);
        for (size_t t = 0; t < tokens.len; t++)
            detok_push(&detok, tokens.ids[t], &out);
        if (strcmp(names[i], "sarvam-moe") != 0) /* not byte-level: its bytes are not in this vocabulary */
            assert_string_equal(out.data, text);
        buf_release(&out);
        token_list_release(&tokens);
        vocab_free(vocab);
        gguf_free(gguf);
    }
    vocab_image_free(image);
}

/* The merges join across most borders, so that tokens show where the words were cut. */
static void cuts_words_as_published(void **state)
{
    (void)state;
    static const struct {
        const char *pre, *text, *tokens;
    } cases[] = {
        {"gpt-2", "1111", "1111"},
        {"llama-bpe", "1111", "11|1|1"},
        {"qwen2", "1111", "1|1|1|1"},
        {"falcon", "1111", "11|1|1"},
        {"superbpe", "1111", "1|11|1"},
        {"tiny_aya", "1111", "1|11|1"},
        {"tiny_aya", "aa1111", "aa|1|11|1"},
        {"gpt-2", "a's", "a|'s"},
        {"gpt-2", "a'S", "a|'|S"},
        {"llama-bpe", "a'S", "a|'S"},
        {"ufakzeka", "a's", "a|'s"},
        {"bloom", "a's", "a'|s"},
        {"falcon", "a's", "a|'|s"},
        {"gpt-4o", "a's", "a'|s"},
        {"gpt-2", "a  a", "a| | a"},
        {"gpt-2", "a  ", "a|  "},
        {"llama-bpe", "a\n\na", "a|\n\n|a"},
        {"deepseek-llm", "\n\n", "\n|\n"},
        {"gpt-2", "'\n\n", "'|\n\n"},
        {"llama-bpe", "'\n\n", "'\n|\n"},
        {"qwen2", "SaS", "Sa|S"},
        {"tekken", "SaS", "Sa|S"},
        {"tekken", "aSa", "a|Sa"},
        {"qwen2", "aSa", "aSa"},
    };
    static const char *const merges[] = {
        "' \xc4\x8a",        "1 1",  "11 11", "a '",  "' s", "' S", "\xc4\xa0 a", "S a", "\xc4\xa0 \xc4\xa0",
        "\xc4\x8a \xc4\x8a", "a Sa", "a a",   "aa 1", NULL};
    static const char *const none[] = {NULL};
    struct vocab_image *image = vocab_image_create();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gguf *gguf;
        struct token_list tokens = {.ids = NULL};
        struct buf out;
        make_bytes(image, cases[i].pre, merges, none);
        struct vocab *vocab = vocab_of(image, &gguf);
        buf_init(&out, 1000);
        assert_int_equal(
            vocab_tokenize(vocab, cases[i].text, strlen(cases[i].text), false, false, &tokens, NULL), PH_OK);
        for (size_t t = 0; t < tokens.len; t++) {
            if (t > 0)
                buf_putc(&out, '|');
            assert_int_equal(vocab_detokenize(vocab, &tokens.ids[t], 1, false, &out), PH_OK);
        }
        if (strcmp(out.data, cases[i].tokens) != 0)
            fail_msg("%s of '%s': %s, not %s", cases[i].pre, cases[i].text, out.data, cases[i].tokens);
        buf_release(&out);
        token_list_release(&tokens);
        vocab_free(vocab);
        gguf_free(gguf);
    }
    vocab_image_free(image);
}

static void long_runs_take_linear_time(void **state)
{
    (void)state;
    static const char *const pres[] = {"gpt-2",        "llama-bpe", "jais-2",
                                       "deepseek-llm", "gpt-4o",    "exaone-moe"};
    static const char *const runs[] = {"a", " ", "\n", "1", "'", "<|", "A\xc3\xa9", "\xff", " \n"};
    static const char *const merges[] = {"a a", "aa aa", "\xc4\xa0 \xc4\xa0", NULL};
    static const char *const specials[] = {"<|im_end|>", "<|im_start|>", NULL};
    enum { RUN_BYTES = 200000 };
    struct vocab_image *image = vocab_image_create();
    char *text = mem_alloc(RUN_BYTES + 1);
    assert_non_null(text);
    clock_t begin = clock();
    for (size_t p = 0; p < sizeof pres / sizeof *pres; p++) {
        struct gguf *gguf;
        make_bytes(image, pres[p], merges, specials);
        struct vocab *vocab = vocab_of(image, &gguf);
        for (size_t r = 0; r < sizeof runs / sizeof *runs; r++) {
            struct token_list tokens = {.ids = NULL};
            for (size_t i = 0; i < RUN_BYTES; i++)
                text[i] = runs[r][i % strlen(runs[r])];
            text[RUN_BYTES] = 'x'; /* so that lookahead at the run's end fails */
            assert_int_equal(vocab_tokenize(vocab, text, RUN_BYTES + 1, false, true, &tokens, NULL), PH_OK);
            assert_true(tokens.len > 0);
            token_list_release(&tokens);
        }
        vocab_free(vocab);
        gguf_free(gguf);
    }
    /* 11 MB in all; a quadratic step anywhere would take minutes */
    assert_true((double)(clock() - begin) / CLOCKS_PER_SEC < 60);
    mem_free(text);
    vocab_image_free(image);
}

static void ids_are_checked(void **state)
{
    (void)state;
    static const char *const merges[] = {"a a", NULL};
    static const char *const none[] = {NULL};
    struct vocab_image *image = vocab_image_create();
    struct gguf *gguf;
    struct buf out;
    make_bytes(image, "gpt-2", merges, none);
    struct vocab *vocab = vocab_of(image, &gguf);
    const int32_t below = -1, above = (int32_t)vocab_info(vocab)->n_tokens;
    buf_init(&out, 100);
    assert_int_equal(vocab_detokenize(vocab, &below, 1, false, &out), PH_ERR_ARG);
    assert_int_equal(vocab_detokenize(vocab, &above, 1, false, &out), PH_ERR_ARG);
    assert_int_equal(vocab_token_text(vocab, above).len, 0);
    assert_int_equal(vocab_token_text(vocab, above - 1).len, 2);
    buf_release(&out);
    vocab_free(vocab);
    gguf_free(gguf);
    vocab_image_free(image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_reference),
        cmocka_unit_test(refuses_what_it_cannot_be_right_about),
        cmocka_unit_test(finds_special_tokens_longest_first),
        cmocka_unit_test(knows_every_pretokenizer),
        cmocka_unit_test(cuts_words_as_published),
        cmocka_unit_test(long_runs_take_linear_time),
        cmocka_unit_test(ids_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
