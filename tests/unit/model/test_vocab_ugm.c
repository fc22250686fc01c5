/* Unigram vocabularies: the best cover, unknown text, spaces, the normalisation map. */
#include "model/model.h"
#include "test_support.h"
#include "vocab_support.h"

enum { EOS = 1, UNKNOWN = 2, SPACE = 3, SPACE_A, SPACE_AB, B, C, BC, MASK, TOKEN_COUNT };

static const char *const texts[] = {
    "<pad>", "</s>",   "<unk>", "\xe2\x96\x81", "\xe2\x96\x81\x61", "\xe2\x96\x81\x61\x62", "b", "c",
    "bc",    "<mask>", NULL};
static const float scores[TOKEN_COUNT] = {0, 0, 0, -5, -2, -4, -3, -3, -1, 0};

/* A map of one rule, 'A' to "a", in the format of SentencePiece: root, child 'A' (a leaf), its value. */
enum {
    ROOT_BASE = 0x100,
    CHILD = ROOT_BASE ^ 'A',
    VALUE = CHILD ^ 1,
    NODES = CHILD + 1,
    MAP_BYTES = 4 + NODES * 4 + 2
};

static void put_word(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static void make_map(uint8_t map[MAP_BYTES], uint32_t value)
{
    memset(map, 0, MAP_BYTES);
    put_word(map, NODES * 4);
    put_word(map + 4, (uint32_t)ROOT_BASE << 10);
    put_word(map + 4 + CHILD * 4, 1u << 10 | 1u << 8 | 'A');
    put_word(map + 4 + VALUE * 4, 1u << 31 | value);
    map[4 + NODES * 4] = 'a';
}

struct settings {
    bool prefix, merge_spaces;
    const uint8_t *map;
    size_t map_len;
};

static void make(struct vocab_image *image, const struct settings *settings)
{
    static const uint32_t types[] = {3, 3, 2, 1, 1, 1, 1, 1, 1, 4};
    vocab_image_begin(image);
    vocab_image_string(image, "tokenizer.ggml.model", "t5");
    vocab_image_strings(image, "tokenizer.ggml.tokens", texts);
    vocab_image_floats(image, "tokenizer.ggml.scores", scores, TOKEN_COUNT);
    vocab_image_type_list(image, types, TOKEN_COUNT);
    vocab_image_bool(image, "tokenizer.ggml.add_space_prefix", settings->prefix);
    vocab_image_bool(image, "tokenizer.ggml.remove_extra_whitespaces", settings->merge_spaces);
    if (settings->map)
        vocab_image_bytes(image, "tokenizer.ggml.precompiled_charsmap", settings->map, settings->map_len);
}

static void expect(const struct settings *settings, const char *text, bool special, const int32_t *ids,
                   size_t count)
{
    struct vocab_image *image = vocab_image_create();
    struct gguf *gguf;
    struct vocab *vocab;
    struct ph_err err = {0};
    struct token_list tokens = {.ids = NULL};
    make(image, settings);
    assert_int_equal(gguf_open_memory(&gguf, image->bytes, image->len, "made", &err), PH_OK);
    if (vocab_create(&vocab, gguf, &err) != PH_OK)
        fail_msg("%s", err.message);
    assert_int_equal(vocab_tokenize(vocab, text, strlen(text), special, special, &tokens, &err), PH_OK);
    assert_int_equal(tokens.len, count);
    assert_memory_equal(tokens.ids, ids, count * sizeof *ids);
    token_list_release(&tokens);
    vocab_free(vocab);
    gguf_free(gguf);
    vocab_image_free(image);
}

#define IDS(...) (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)

static void takes_the_best_cover(void **state)
{
    (void)state;
    const struct settings settings = {.prefix = true, .merge_spaces = true};
    expect(&settings, "abc", false, IDS(SPACE_A, BC)); /* -3, where longest first would take -7 */
    expect(&settings, "abc", true, IDS(SPACE_A, BC, EOS));
    expect(&settings, "ab", false, IDS(SPACE_AB));
    expect(&settings, "a<mask>b", false, IDS(SPACE_A, MASK, SPACE, B));
}

static void joins_neighbouring_unknowns(void **state)
{
    (void)state;
    const struct settings settings = {.prefix = true, .merge_spaces = true};
    expect(&settings, "xyz b", false, IDS(SPACE, UNKNOWN, SPACE, B));
    expect(&settings, "\xff\xc3x", false, IDS(SPACE, UNKNOWN));
}

static void treats_spaces_as_the_file_says(void **state)
{
    (void)state;
    const struct settings merged = {.prefix = true, .merge_spaces = true}, kept = {.prefix = true};
    const struct settings bare = {.prefix = false};
    expect(&merged, "  b   c ", false, IDS(SPACE, B, SPACE, C));
    expect(&kept, "b  c", false, IDS(SPACE, B, SPACE, SPACE, C));
    expect(&bare, "b c", false, IDS(B, SPACE, C));
}

static void normalises_by_the_map(void **state)
{
    (void)state;
    uint8_t map[MAP_BYTES];
    struct settings settings = {.prefix = true, .merge_spaces = true, .map = map, .map_len = sizeof map};
    make_map(map, 0);
    expect(&settings, "Ab", false, IDS(SPACE_AB));
    make_map(map, 99); /* points outside the pool: as if there were no rule */
    expect(&settings, "Ab", false, IDS(SPACE, UNKNOWN, B));
    make_map(map, 0);
    put_word(map + 4, UINT32_MAX); /* a root that leads out of the array */
    expect(&settings, "Ab", false, IDS(SPACE, UNKNOWN, B));
}

static void refuses_a_map_longer_than_its_key(void **state)
{
    (void)state;
    uint8_t map[MAP_BYTES];
    struct settings settings = {.map = map, .map_len = sizeof map};
    struct vocab_image *image = vocab_image_create();
    struct gguf *gguf;
    struct vocab *vocab;
    struct ph_err err = {0};
    make_map(map, 0);
    put_word(map, UINT32_MAX);
    make(image, &settings);
    assert_int_equal(gguf_open_memory(&gguf, image->bytes, image->len, "made", &err), PH_OK);
    assert_int_equal(vocab_create(&vocab, gguf, &err), PH_ERR_FORMAT);
    assert_non_null(strstr(err.message, "precompiled_charsmap"));
    gguf_free(gguf);
    vocab_image_free(image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_the_best_cover),
        cmocka_unit_test(joins_neighbouring_unknowns),
        cmocka_unit_test(treats_spaces_as_the_file_says),
        cmocka_unit_test(normalises_by_the_map),
        cmocka_unit_test(refuses_a_map_longer_than_its_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
