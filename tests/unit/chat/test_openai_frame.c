/* Frames of chunks: what matches means the same but for its content, whatever the bytes. */
#include "test_support.h"

#include "base/clock.h"
#include "base/json.h"
#include "chat/openai_frame_int.h"

#define CHUNK_MAX 400

static const char *const chunks[] = {
    "{\"id\":\"c-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"},\"finish_reason\":null}]}",
    "{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\" you\",\"x\":[1,2]},\"logprobs\":null}]}",
    "{\"choices\":[{\"delta\":{\"content\":\"\xc3\xa9\"}}],\"created\":17,\"content_type\":\"text\"}",
};

static struct json *content_member(struct json *chunk)
{
    struct json *choice = (struct json *)(uintptr_t)json_first(json_get(chunk, "choices"));
    return (struct json *)(uintptr_t)json_get(json_get(choice, "delta"), "content");
}

static bool learn(struct openai_frame *frame, const char *chunk)
{
    struct arena arena;
    struct json *value = NULL;
    arena_init(&arena, 1 << 20);
    assert_int_equal(json_parse(&arena, chunk, strlen(chunk), &value, NULL), PH_OK);
    const struct json *content = content_member(value);
    openai_frame_learn(frame, chunk, strlen(chunk),
                       (struct chat_text){content->u.str.text, content->u.str.len});
    arena_release(&arena);
    return frame->before != 0;
}

/* The chunk that was learned, with this content in place of its own, is what matched. */
static void check_meaning(const char *learned, const char *matched, struct chat_text content)
{
    struct arena arena;
    struct json *want = NULL, *got = NULL;
    arena_init(&arena, 1 << 20);
    assert_int_equal(json_parse(&arena, learned, strlen(learned), &want, NULL), PH_OK);
    assert_int_equal(json_parse(&arena, matched, strlen(matched), &got, NULL), PH_OK);
    struct json *member = content_member(want);
    member->u.str.text = content.text;
    member->u.str.len = content.len;
    assert_true(json_equal(want, got));
    arena_release(&arena);
}

static void texts_between_the_same_bytes_match(void **state)
{
    (void)state;
    static const struct {
        const char *chunk;
        bool matches;
        const char *content;
    } cases[] = {
        {"{\"choices\":[{\"delta\":{\"content\":\"b\"}}]}", true, "b"},
        {"{\"choices\":[{\"delta\":{\"content\":\"\"}}]}", true, ""},
        {"{\"choices\":[{\"delta\":{\"content\":\"a longer text, {with} [marks]\"}}]}", true,
         "a longer text, {with} [marks]"},
        {"{\"choices\":[{\"delta\":{\"content\":\"\xe2\x82\xac\"}}]}", true, "\xe2\x82\xac"},
        {"{\"choices\":[{\"delta\":{\"content\":\"\xe2\x82\"}}]}", false, NULL},
        {"{\"choices\":[{\"delta\":{\"content\":\"a\\n\"}}]}", false, NULL},
        {"{\"choices\":[{\"delta\":{\"content\":\"a\nb\"}}]}", false, NULL},
        {"{\"choices\":[{\"delta\":{\"content\":\"a\",\"b\":\"c\"}}]}", false, NULL},
        {"{\"choices\":[{\"delta\":{\"content\":\"b\"}}]} ", false, NULL},
        {"{\"choices\":[{\"delta\":{\"content\":null}}]}", false, NULL},
        {"{\"choices\":[{\"delta\":{\"content\":\"}}]}", false, NULL},
        {"[DONE]", false, NULL},
    };
    struct openai_frame frame;
    openai_frame_init(&frame);
    assert_true(learn(&frame, "{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct chat_text content = {0};
        bool matches = openai_frame_match(&frame, cases[i].chunk, strlen(cases[i].chunk), &content);
        if (matches != cases[i].matches || (matches && strcmp(content.text, cases[i].content) != 0))
            fail_msg("%s", cases[i].chunk);
    }
    openai_frame_release(&frame);
}

static void doubtful_chunks_are_not_kept(void **state)
{
    (void)state;
    static const char *const doubtful[] = {
        "{\"content\":\"a\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}",
        "{\"content\":\"a\",\"choices\":[{\"delta\":{\"cont\\u0065nt\":\"a\"}}]}",
        "{\"choices\":[{\"delta\":{\"content\":\"a\\u0062\"}}]}",
        "{\"choices\":[{\"delta\":{\"content\" :\"a\"}}]}",
        "{\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"note\":\"\\\"\"}",
    };
    struct openai_frame frame;
    openai_frame_init(&frame);
    for (size_t i = 0; i < sizeof doubtful / sizeof *doubtful; i++)
        if (learn(&frame, doubtful[i]))
            fail_msg("%s", doubtful[i]);
    struct chat_text content;
    assert_false(openai_frame_match(&frame, doubtful[0], strlen(doubtful[0]), &content));
    openai_frame_release(&frame);
}

/* Some bytes put in, taken out or changed. */
static void change(struct rng *rng, char *text)
{
    static const char *const pieces[] = {
        "\"", "\\",   "{",        "}",    ",",           ":", "content", "\"content\":\"x\"",
        "a",  "\x01", "\xc3\xa9", "\xff", "\"content\"", "]", " ",       "\\\""};
    size_t len = strlen(text), at = rng_u64(rng) % (len + 1), cut = rng_u64(rng) % 4;
    const char *piece = pieces[rng_u64(rng) % (sizeof pieces / sizeof *pieces)];
    if (cut > len - at)
        cut = len - at;
    size_t piece_len = rng_u64(rng) % 8 ? strlen(piece) : 0;
    memmove(text + at + piece_len, text + at + cut, len - at - cut + 1);
    memcpy(text + at, piece, piece_len);
}

static void what_matches_means_the_same(void **state)
{
    (void)state;
    size_t matches = 0;
    struct rng rng;
    struct openai_frame frame;
    rng_init(&rng, 7);
    openai_frame_init(&frame);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        assert_true(learn(&frame, chunks[i]));
        for (int n = 0; n < 100000; n++) {
            char text[CHUNK_MAX];
            struct chat_text content;
            snprintf(text, sizeof text, "%s", chunks[i]);
            for (size_t changes = rng_u64(&rng) % 3; changes < 3; changes++)
                change(&rng, text);
            if (!openai_frame_match(&frame, text, strlen(text), &content))
                continue;
            check_meaning(chunks[i], text, content);
            matches++;
        }
    }
    assert_true(matches > 1000);
    openai_frame_release(&frame);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_between_the_same_bytes_match),
        cmocka_unit_test(doubtful_chunks_are_not_kept),
        cmocka_unit_test(what_matches_means_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
