/* Messages as items and back: what one writes the other reads. */
#include "chat/chat.h"
#include "test_support.h"

#define ARENA_BYTES_MAX ((size_t)4 << 20)

static const char *put_items(struct arena *arena, const struct chat_message *message, bool is_cut,
                             size_t *count)
{
    struct buf out;
    buf_init(&out, ARENA_BYTES_MAX);
    buf_putc(&out, '[');
    *count = chat_items_write(message, "msg_abc", is_cut, &out);
    buf_putc(&out, ']');
    assert_int_equal(buf_status(&out), PH_OK);
    const char *text = arena_strndup(arena, out.data, out.len);
    buf_release(&out);
    return text;
}

static void items_come_back(void **state)
{
    static const struct chat_part parts[] = {
        {.kind = CHAT_PART_REASONING, .text = {"hm", 2}, .signature = "seal"},
        {.kind = CHAT_PART_TEXT, .text = {"a \"b\"\n", 6}},
        {.kind = CHAT_PART_IMAGE, .url = "https://x/y.png", .detail = "low"},
        {.kind = CHAT_PART_IMAGE, .media_type = "image/png", .data = {"AAAA", 4}},
        {.kind = CHAT_PART_FILE, .media_type = "application/pdf", .data = {"BBBB", 4}, .filename = "f"},
        {.kind = CHAT_PART_AUDIO, .media_type = "audio/mpeg", .data = {"CCCC", 4}},
    };
    static const struct chat_tool_call calls[] = {{"c1", "f", {"{\"x\":1}", 7}, false},
                                                  {"c2", "g", {"free", 4}, true}};
    static const struct {
        struct chat_message message;
        const char *first; /* the first item's id */
        size_t items;
    } cases[] = {
        {{.role = CHAT_USER, .content = {"hello", 5}}, "msg_abc", 1},
        {{.role = CHAT_SYSTEM, .content = {"", 0}}, "msg_abc", 1},
        {{.role = CHAT_USER, .content = {"a \"b\"\n", 6}, .parts = parts + 1, .part_count = 5}, "msg_abc", 1},
        {{.role = CHAT_ASSISTANT, .content = {"hi", 2}}, "msg_abc_0", 1},
        {{.role = CHAT_ASSISTANT,
          .content = {"a \"b\"\n", 6},
          .parts = parts,
          .part_count = 2,
          .tool_calls = calls,
          .tool_call_count = 2},
         "rs_abc_0",
         4},
        {{.role = CHAT_ASSISTANT, .tool_calls = calls, .tool_call_count = 2}, "fc_abc_0", 2},
        {{.role = CHAT_TOOL, .content = {"done", 4}, .tool_call_id = "c1"}, "fco_abc", 1},
        {{.role = CHAT_TOOL,
          .content = {"a \"b\"\n", 6},
          .tool_call_id = "c1",
          .parts = parts + 1,
          .part_count = 2},
         "fco_abc",
         1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct arena arena;
        struct json *items;
        const struct chat_message *list, *from = &cases[i].message;
        struct chat_fault fault;
        size_t count, back, index;
        char id[CHAT_ITEM_ID_MAX];
        arena_init(&arena, ARENA_BYTES_MAX);
        const char *text = put_items(&arena, from, i == 3, &count);
        assert_int_equal(json_parse(&arena, text, strlen(text), &items, NULL), PH_OK);
        assert_int_equal(count, cases[i].items);
        assert_int_equal(json_count(items), count);
        assert_string_equal(json_text(json_get(json_at(items, 0), "id"), ""), cases[i].first);
        assert_string_equal(json_text(json_get(json_at(items, 0), "status"), ""),
                            i == 3 ? "incomplete" : "completed");
        for (size_t k = 0; k < count; k++) {
            const char *item = json_text(json_get(json_at(items, k), "id"), "");
            assert_true(chat_item_id_read(item, id, &index));
            assert_string_equal(id, "msg_abc");
            assert_int_equal(index, from->role == CHAT_ASSISTANT ? k : 0);
        }
        if (chat_items_decode(&arena, items, "items", &list, &back, &fault) != PH_OK)
            fail_msg("%s: %s", text, fault.message);
        assert_int_equal(back, 1);
        assert_int_equal(list[0].role, from->role);
        assert_int_equal(list[0].content.len, from->content.len);
        assert_int_equal(list[0].part_count, from->part_count);
        for (size_t p = 0; p < from->part_count; p++) {
            const struct chat_part *a = &list[0].parts[p], *b = &from->parts[p];
            assert_int_equal(a->kind, b->kind);
            assert_int_equal(a->text.len, b->text.len);
            assert_int_equal(a->data.len, b->data.len);
            if (b->media_type)
                assert_string_equal(a->media_type, b->media_type);
        }
        assert_int_equal(list[0].tool_call_count, from->tool_call_count);
        for (size_t c = 0; c < from->tool_call_count; c++) {
            assert_string_equal(list[0].tool_calls[c].id, calls[c].id);
            assert_int_equal(list[0].tool_calls[c].custom, calls[c].custom);
        }
        arena_release(&arena);
    }
}

static void faults_name_the_items(void **state)
{
    struct arena arena;
    struct json *items;
    const struct chat_message *list;
    struct chat_fault fault;
    size_t count;
    static const char text[] =
        "[{\"role\":\"user\",\"content\":\"x\"},{\"type\":\"function_call\",\"call_id\":\"c\"}]";
    (void)state;
    arena_init(&arena, ARENA_BYTES_MAX);
    assert_int_equal(json_parse(&arena, text, sizeof text - 1, &items, NULL), PH_OK);
    assert_int_not_equal(chat_items_decode(&arena, items, "items", &list, &count, &fault), PH_OK);
    assert_string_equal(fault.param, "items[1].name");
    assert_true(strncmp(fault.message, "items[1].name", 13) == 0);
    arena_release(&arena);
}

static void ids_that_are_none(void **state)
{
    static const char *const wrong[] = {"",       "msg",     "_",        "msg_",
                                        "msg_a_", "msg_a_x", "msg_a_1x", "msg_a_99999999"};
    char id[CHAT_ITEM_ID_MAX], longest[2 * CHAT_ITEM_ID_MAX];
    size_t index;
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        if (chat_item_id_read(wrong[i], id, &index))
            fail_msg("\"%s\" is taken for an id: %s", wrong[i], id);
    memset(longest, 'a', sizeof longest);
    longest[3] = '_';
    longest[sizeof longest - 1] = 0;
    assert_false(chat_item_id_read(longest, id, &index));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_come_back),
        cmocka_unit_test(faults_name_the_items),
        cmocka_unit_test(ids_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
