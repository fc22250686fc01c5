/* Streaming detokenisation: any split of any bytes gives the text of the whole, and no piece of it ends
 * within a character. */
#include "base/limits.h"
#include "base/utf8.h"
#include "model/model.h"
#include "test_support.h"
#include "vocab_support.h"

struct fixture {
    struct vocab_image *image;
    struct gguf *gguf;
    struct vocab *vocab;
};

/* Every byte is a token (259 - 256 = 3 is the first); longer ones carry parts of characters. */
static int set_up(void **state)
{
    static struct fixture fixture;
    static const char *const texts[] = {"\xe2\x96\x81", "\xe2\x96\x81hi", "\xf0\x9f", "\x98\x80",
                                        "\x80\xe2\x82", "a\xf0",          "\xff\xfe", NULL};
    fixture.image = vocab_image_create();
    vocab_image_begin(fixture.image);
    vocab_image_string(fixture.image, "tokenizer.ggml.model", "llama");
    vocab_image_spm_tokens(fixture.image, texts);
    if (gguf_open_memory(&fixture.gguf, fixture.image->bytes, fixture.image->len, "made", NULL) != PH_OK ||
        vocab_create(&fixture.vocab, fixture.gguf, NULL) != PH_OK)
        return -1;
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    vocab_free(fixture->vocab);
    gguf_free(fixture->gguf);
    vocab_image_free(fixture->image);
    return 0;
}

/* The longest beginning of a character at text[0..len): what one U+FFFD replaces. */
static size_t maximal_subpart(const char *text, size_t len)
{
    size_t n = len < 3 ? len : 3;
    while (n > 1 && utf8_incomplete_tail(text, n) != n)
        n--;
    return n;
}

static void replace_invalid(const char *text, size_t len, struct buf *out)
{
    for (size_t at = 0; at < len;) {
        uint32_t point;
        size_t n = utf8_decode(text + at, len - at, &point);
        if (n > 0) {
            buf_append(out, text + at, n);
            at += n;
        } else {
            buf_puts(out, "\xef\xbf\xbd");
            at += maximal_subpart(text + at, len - at);
        }
    }
}

static void check_stream(const struct vocab *vocab, const int32_t *ids, size_t count)
{
    struct buf batch, expected, streamed;
    struct detok detok;
    buf_init(&batch, 1 << 16);
    buf_init(&expected, 1 << 16);
    buf_init(&streamed, 1 << 16);
    assert_int_equal(vocab_detokenize(vocab, ids, count, true, &batch), PH_OK);
    replace_invalid(batch.len ? batch.data : "", batch.len, &expected);
    detok_init(&detok, vocab, true, false);
    for (size_t i = 0; i < count; i++) {
        detok_push(&detok, ids[i], &streamed);
        assert_true(utf8_valid(streamed.len ? streamed.data : "", streamed.len));
    }
    detok_flush(&detok, &streamed);
    assert_int_equal(streamed.len, expected.len);
    if (expected.len)
        assert_memory_equal(streamed.data, expected.data, expected.len);
    buf_release(&batch);
    buf_release(&expected);
    buf_release(&streamed);
}

static void any_split_gives_the_text_of_the_whole(void **state)
{
    struct fixture *fixture = *state;
    static const uint8_t interesting[] = {0x61, 0x80, 0xbf, 0xc0, 0xc2, 0xc3, 0xe0, 0xa0, 0xe2,
                                          0x82, 0xed, 0x9f, 0xf0, 0x90, 0x8f, 0xf4, 0xf5, 0xff};
    uint64_t random = 12345;
    for (int round = 0; round < 3000; round++) {
        int32_t ids[12];
        size_t count = 0;
        for (; count < 12; count++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            uint32_t r = (uint32_t)(random >> 33);
            if (r % 16 == 0)
                ids[count] = 3 + 256 + (int32_t)(r / 16 % 7);
            else if (r % 16 == 1)
                break;
            else
                ids[count] = 3 + interesting[r / 16 % sizeof interesting];
        }
        check_stream(fixture->vocab, ids, count);
    }
}

static void emits_a_character_with_its_last_byte(void **state)
{
    struct fixture *fixture = *state;
    struct detok detok;
    struct buf out;
    buf_init(&out, 100);
    detok_init(&detok, fixture->vocab, false, false);
    const int32_t smile[] = {3 + 256 + 2, 3 + 0x98, 3 + 0x80};
    detok_push(&detok, smile[0], &out);
    detok_push(&detok, smile[1], &out);
    assert_int_equal(out.len, 0);
    detok_push(&detok, smile[2], &out);
    assert_string_equal(out.data, "\xf0\x9f\x98\x80");
    detok_push(&detok, 3 + 0xe2, &out);
    detok_flush(&detok, &out);
    detok_flush(&detok, &out);
    assert_string_equal(out.data, "\xf0\x9f\x98\x80\xef\xbf\xbd");
    buf_release(&out);
}

static void drops_the_first_space_once(void **state)
{
    struct fixture *fixture = *state;
    const int32_t hi = 3 + 256 + 1, bos = 1;
    struct detok detok;
    struct buf out;
    buf_init(&out, 100);
    detok_init(&detok, fixture->vocab, false, false);
    detok_push(&detok, hi, &out);
    detok_push(&detok, hi, &out);
    assert_string_equal(out.data, "hi hi");
    buf_clear(&out);
    detok_init(&detok, fixture->vocab, false, true);
    detok_push(&detok, hi, &out);
    assert_string_equal(out.data, " hi");
    buf_clear(&out);
    detok_init(&detok, fixture->vocab, true, true);
    detok_push(&detok, bos, &out);
    detok_push(&detok, -5, &out);
    assert_string_equal(out.data, "<s>");
    char piece[VOCAB_TOKEN_BYTES_MAX];
    assert_int_equal(vocab_piece(fixture->vocab, hi, false, piece), 3);
    assert_memory_equal(piece, " hi", 3);
    assert_int_equal(vocab_piece(fixture->vocab, bos, false, piece), 0);
    assert_int_equal(vocab_piece(fixture->vocab, 100000, true, piece), 0);
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_split_gives_the_text_of_the_whole),
        cmocka_unit_test(emits_a_character_with_its_last_byte),
        cmocka_unit_test(drops_the_first_space_once),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
