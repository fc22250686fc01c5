/* Turns of chats over a real store: what is recognised, what is sent, what is kept; and messages as they are
 * stored. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/file.h"
#include "memory/memory.h"
#include "test_support.h"

#define ARENA_BYTES_MAX ((size_t)64 << 20)
#define MESSAGES_MAX 64

struct fixture {
    char dir[64];
    struct memory *memory;
    struct arena arena;
};

static void open_memory(struct fixture *f, size_t bytes_max)
{
    struct ph_err err;
    struct memory_params params = {.dir = f->dir, .clock = clock_system(), .bytes_max = bytes_max};
    if (memory_create(&f->memory, &params, &err) != PH_OK)
        fail_msg("%s", err.message);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "/tmp/pharos-memory-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    arena_init(&f->arena, ARENA_BYTES_MAX);
    open_memory(f, 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[128];
    memory_free(f->memory);
    arena_release(&f->arena);
    snprintf(command, sizeof command, "rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

/* ---- Talking. A message is "u:text", "a:text", "s:text", "t:result", "c:" (an assistant's call); several are
 * joined by '|'. */

static struct chat_message read_message(struct arena *arena, const char *text, size_t len)
{
    static const struct {
        char letter;
        enum chat_role role;
    } roles[] = {
        {'u', CHAT_USER}, {'a', CHAT_ASSISTANT}, {'s', CHAT_SYSTEM}, {'t', CHAT_TOOL}, {'c', CHAT_ASSISTANT}};
    struct chat_message message = {0};
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        if (roles[i].letter == *text)
            message.role = roles[i].role;
    message.content = (struct chat_text){arena_strndup(arena, text + 2, len - 2), len - 2};
    if (*text == 't')
        message.tool_call_id = "call_1";
    if (*text == 'c') {
        struct chat_tool_call *call = arena_calloc(arena, 1, sizeof *call);
        *call = (struct chat_tool_call){.id = "call_1", .name = "f", .arguments = {"{}", 2}};
        message.tool_calls = call;
        message.tool_call_count = 1;
        message.content = (struct chat_text){NULL, 0};
    }
    return message;
}

static struct chat_request read_request(struct arena *arena, const char *text)
{
    struct chat_message *list = arena_calloc(arena, MESSAGES_MAX, sizeof *list);
    struct chat_request request = {.arena = arena, .messages = list, .choices = 1};
    while (*text) {
        size_t len = strcspn(text, "|");
        list[request.message_count++] = read_message(arena, text, len);
        text += len + (text[len] == '|');
    }
    return request;
}

static const char *show(struct arena *arena, const struct chat_message *list, size_t count)
{
    struct buf out;
    buf_init(&out, ARENA_BYTES_MAX);
    for (size_t i = 0; i < count; i++) {
        const struct chat_message *m = &list[i];
        const char *letter = m->role == CHAT_USER ? "u:" : m->role == CHAT_TOOL ? "t:" : "a:";
        if (m->role == CHAT_SYSTEM)
            letter = "s:";
        buf_puts(&out, i ? "|" : "");
        buf_puts(&out, m->tool_call_count ? "c:" : letter);
        if (m->content.len)
            buf_append(&out, m->content.text, m->content.len);
    }
    const char *text = arena_strndup(arena, out.data ? out.data : "", out.len);
    buf_release(&out);
    return text;
}

struct said {
    const char *sent, *strategy;
    size_t fresh, chosen, history;
    bool is_branch;
    enum ph_status status;
};

struct turning {
    const char *user, *conversation, *previous, *reply, *response;
    uint32_t budget, keep_recent;
    bool cut, must_exist;
};

/* A whole turn; the reply is stored when there is one. */
static struct said turn(struct fixture *f, const struct turning *how, const char *text)
{
    struct chat_request request = read_request(&f->arena, text);
    struct memory_turn_params params = {.user = how->user,
                                        .conversation = how->conversation,
                                        .previous_response = how->previous,
                                        .must_exist = how->must_exist,
                                        .request = &request,
                                        .budget_tokens = how->budget,
                                        .keep_recent = how->keep_recent,
                                        .strategy = CONTEXT_HYBRID};
    struct memory_turn made;
    struct ph_err err;
    struct store *store;
    static unsigned number;
    char id[32];
    struct said said = {.status = memory_turn_open(f->memory, &params, &made, &err)};
    if (said.status == PH_OK) {
        struct store_done nobody = {.fn = NULL};
        said.sent = show(&f->arena, made.messages, made.message_count);
        said.strategy = made.strategy;
        said.fresh = made.fresh_count;
        said.is_branch = made.is_branch;
        said.chosen = made.chosen;
        said.history = made.history;
        assert_int_equal(memory_turn_ask(f->memory, &made, nobody, &err), PH_OK);
        snprintf(id, sizeof id, "msg_reply%u", number++);
        struct memory_reply reply = {.id = id, .finish = "stop", .is_cut = how->cut};
        if (how->response) {
            reply.response_id = how->response;
            reply.response = "{}";
            reply.response_len = 2;
        }
        if (how->reply) {
            reply.chat = read_message(&f->arena, how->reply, strlen(how->reply));
            assert_int_equal(memory_turn_reply(f->memory, &made, &reply, nobody, &err), PH_OK);
        }
        /* A write that waits comes behind all of them. */
        struct store_write wait = {.kind = STORE_APPEND, .u.append = {.user = "nobody", .key = "wait"}};
        assert_int_equal(memory_store(f->memory, &store, &err), PH_OK);
        assert_int_equal(store_write(store, &wait, NULL, &err), PH_OK);
    }
    memory_turn_release(&made);
    return said;
}

/* All that is kept of a conversation, branches too. */
static const char *kept(struct fixture *f, const char *user, const char *key)
{
    struct store *store;
    struct ph_err err;
    struct store_conversation conversation;
    struct store_messages messages;
    struct chat_message *list = arena_calloc(&f->arena, 4096, sizeof *list);
    assert_int_equal(memory_store(f->memory, &store, &err), PH_OK);
    if (store_find_conversation(store, &f->arena, user, key, &conversation, &err) != PH_OK)
        return NULL;
    struct store_range range = {.conversation = conversation.number};
    assert_int_equal(store_read_messages(store, &f->arena, &range, &messages, &err), PH_OK);
    for (size_t i = 0; i < messages.count; i++) {
        struct memory_message message;
        assert_true(memory_message_read(&f->arena, &messages.items[i], &message));
        list[i] = message.chat;
    }
    return show(&f->arena, list, messages.count);
}

/* ---- Recognising */

static const struct recognition {
    const char *before; /* turns that were said, each "sent>reply" */
    const char *sent;
    const char *expected; /* what the model gets to see */
    size_t fresh;
    bool is_branch;
} recognitions[] = {
    /* new messages alone */
    {"u:a>a:b", "u:c", "u:a|a:b|u:c", 1, false},
    {"u:a>a:b", "u:a", "u:a|a:b|u:a", 1, false},
    {"u:a>c:", "t:r", "u:a|c:|t:r", 1, false},
    {"u:a>c:;t:r>a:b", "u:c", "u:a|c:|t:r|a:b|u:c", 1, false},
    /* the whole history, or its end */
    {"u:a>a:b", "u:a|a:b|u:c", "u:a|a:b|u:c", 1, false},
    {"u:a>a:b;u:c>a:d", "a:d|u:e", "u:a|a:b|u:c|a:d|u:e", 1, false},
    {"u:a>a:b;u:c>a:d", "u:c|a:d|u:e", "u:a|a:b|u:c|a:d|u:e", 1, false},
    {"u:a>a:b;u:c>a:d", "u:a|a:b|u:c|a: d\n|u:e", "u:a|a:b|u:c|a: d\n|u:e", 1, false},
    {"u:a>c:", "u:a|c:|t:r", "u:a|c:|t:r", 1, false},
    /* asked again, without an answer so far */
    {"u:a>", "u:a", "u:a", 0, false},
    {"u:a>a:b;u:c>", "u:a|a:b|u:c", "u:a|a:b|u:c", 0, false},
    /* edited, and answered anew */
    {"u:a>a:b;u:c>a:d", "u:a|a:b|u:x", "u:a|a:b|u:x", 1, true},
    {"u:a>a:b;u:c>a:d", "u:a|a:b|u:c", "u:a|a:b|u:c", 0, true},
    {"u:a>a:b;u:c>a:d", "u:a|a:x|u:c", "u:a|a:x|u:c", 2, true},
    /* a history of somebody else's */
    {"u:a>a:b", "u:x|a:y|u:z", "u:a|a:b|u:x|a:y|u:z", 3, false},
    /* system messages */
    {"s:one|u:a>a:b", "u:c", "s:one|u:a|a:b|u:c", 1, false},
    {"s:one|u:a>a:b", "s:one|u:c", "s:one|u:a|a:b|u:c", 1, false},
    {"s:one|u:a>a:b", "s:two|u:c", "s:two|u:a|a:b|u:c", 2, false},
    {"s:one|u:a>a:b", "s:one|u:a|a:b|u:c", "s:one|u:a|a:b|u:c", 1, false},
};

static void histories_are_recognised(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof recognitions / sizeof recognitions[0]; i++) {
        const struct recognition *r = &recognitions[i];
        char name[32], before[256];
        snprintf(name, sizeof name, "c%zu", i);
        struct turning how = {.user = "u", .conversation = name};
        for (const char *at = r->before; *at;) {
            size_t len = strcspn(at, ";");
            snprintf(before, sizeof before, "%.*s", (int)len, at);
            char *reply = strchr(before, '>');
            *reply++ = 0;
            how.reply = *reply ? reply : NULL;
            turn(f, &how, before);
            at += len + (at[len] == ';');
        }
        how.reply = "a:reply";
        struct said said = turn(f, &how, r->sent);
        if (strcmp(said.sent, r->expected) != 0 || said.fresh != r->fresh || said.is_branch != r->is_branch)
            fail_msg("%s, then %s: sent %s with %zu new, branch %d", r->before, r->sent, said.sent,
                     said.fresh, said.is_branch);
        /* The same history with the reply is known as a whole. */
        char next[512];
        snprintf(next, sizeof next, "%s|a:reply|u:on", said.sent);
        said = turn(f, &how, next);
        if (said.fresh != 1 || strcmp(said.sent, next) != 0)
            fail_msg("%s, then %s, then %s: sent %s with %zu new", r->before, r->sent, next, said.sent,
                     said.fresh);
    }
}

static void branches_stay_in_the_store(void **state)
{
    struct fixture *f = *state;
    struct turning how = {.user = "u", .conversation = "c", .reply = "a:b"};
    turn(f, &how, "u:a");
    how.reply = "a:d";
    turn(f, &how, "u:c");
    how.reply = "a:y";
    turn(f, &how, "u:a|a:b|u:x");
    assert_string_equal(kept(f, "u", "c"), "u:a|a:b|u:c|a:d|u:x|a:y");
    assert_string_equal(turn(f, &how, "u:z").sent, "u:a|a:b|u:x|a:y|u:z");
    memory_free(f->memory); /* the same when it is read anew */
    open_memory(f, 0);
    assert_string_equal(turn(f, &how, "u:n").sent, "u:a|a:b|u:x|a:y|u:z|a:y|u:n");
}

static void cut_replies_are_recognised(void **state)
{
    struct fixture *f = *state;
    struct turning how = {.user = "u", .conversation = "c", .reply = "a:it was a dark", .cut = true};
    turn(f, &how, "u:tell");
    how = (struct turning){.user = "u", .conversation = "c", .reply = "a:b"};
    assert_int_equal(turn(f, &how, "u:tell|a:it was|u:on").fresh, 1);
    assert_string_equal(kept(f, "u", "c"), "u:tell|a:it was a dark|u:on|a:b");
}

static void responses_make_chains_and_branches(void **state)
{
    struct fixture *f = *state;
    struct turning how = {.user = "u", .reply = "a:1", .response = "resp_1"};
    assert_string_equal(turn(f, &how, "u:one").sent, "u:one");
    how = (struct turning){.user = "u", .previous = "resp_1", .reply = "a:2", .response = "resp_2"};
    assert_string_equal(turn(f, &how, "u:two").sent, "u:one|a:1|u:two");
    how = (struct turning){.user = "u", .previous = "resp_1", .reply = "a:3", .response = "resp_3"};
    assert_string_equal(turn(f, &how, "u:three").sent, "u:one|a:1|u:three");
    how.previous = "resp_3";
    how.response = "resp_4";
    assert_string_equal(turn(f, &how, "u:four").sent, "u:one|a:1|u:three|a:3|u:four");
    how.previous = "resp_2"; /* the older branch, from where it was */
    how.response = "resp_5";
    assert_string_equal(turn(f, &how, "u:five").sent, "u:one|a:1|u:two|a:2|u:five");
    how.user = "somebody else";
    assert_int_equal(turn(f, &how, "u:x").status, PH_ERR_NOTFOUND);
}

/* ---- Users */

static void users_have_their_own(void **state)
{
    struct fixture *f = *state;
    struct turning how = {.user = "alice", .conversation = "diary", .reply = "a:b"};
    turn(f, &how, "u:secret");
    how.user = "bob";
    assert_string_equal(turn(f, &how, "u:hello").sent, "u:hello");
    how.must_exist = true;
    how.conversation = "other";
    assert_int_equal(turn(f, &how, "u:x").status, PH_ERR_NOTFOUND);
    how = (struct turning){.conversation = "diary"}; /* two have one */
    assert_int_equal(turn(f, &how, "u:x").status, PH_ERR_ARG);
    how = (struct turning){.conversation = "new", .reply = "a:b"};
    turn(f, &how, "u:x");
    assert_string_equal(kept(f, MEMORY_USER_LOCAL, "new"), "u:x|a:b");
    how = (struct turning){.user = "alice", .conversation = "only", .reply = "a:b"};
    turn(f, &how, "u:x");
    how.user = NULL; /* whoever's it is */
    assert_string_equal(turn(f, &how, "u:y").sent, "u:x|a:b|u:y");
}

/* ---- Budgets */

static void budgets_hold(void **state)
{
    struct fixture *f = *state;
    struct turning how = {.user = "u", .conversation = "c", .reply = "a:I see, that is good to know."};
    turn(f, &how, "s:Be short.|u:The lighthouse keeper of Utsira is called Brynhild.");
    for (int i = 0; i < 40; i++)
        turn(f, &how, "u:Something that has nothing to do with it, whatever it may be this time.");
    how.budget = 160;
    how.keep_recent = 2;
    struct said said = turn(f, &how, "u:What is the name of the lighthouse keeper of Utsira?");
    assert_string_equal(said.strategy, "hybrid");
    assert_true(said.chosen < said.history && said.history == 82);
    assert_non_null(strstr(said.sent, "Brynhild"));
    assert_true(strncmp(said.sent, "s:Be short.|u:", 14) == 0); /* a user begins */
    assert_non_null(strstr(said.sent, "|a:I see, that is good to know.|u:What is the name"));
    how.budget = 1; /* what is new goes all the same */
    said = turn(f, &how, "u:And now?");
    assert_string_equal(said.sent, "s:Be short.|u:And now?");
    how.budget = 100000;
    assert_string_equal(turn(f, &how, "u:And then?").strategy, "all");
}

static void calls_go_with_their_results(void **state)
{
    struct fixture *f = *state;
    struct turning how = {.user = "u", .conversation = "c"};
    for (int i = 0; i < 12; i++) {
        how.reply = "c:";
        turn(f, &how, "u:please look at the weather in the harbour");
        how.reply = "a:there is a storm in the harbour";
        turn(f, &how, "t:a result about a storm in the harbour, from the north");
    }
    for (uint32_t budget = 20; budget < 400; budget += 20) {
        how = (struct turning){.user = "u", .conversation = "c", .budget = budget, .keep_recent = 3};
        const char *sent = turn(f, &how, "u:was there a storm in the harbour").sent;
        for (const char *at = strstr(sent, "c:"); at; at = strstr(at + 1, "c:"))
            if (strncmp(at, "c:|t:", 5) != 0)
                fail_msg("%u: a call without its result: %s", budget, sent);
        for (const char *at = strstr(sent, "t:a result"); at; at = strstr(at + 1, "t:a result"))
            if (at - sent < 3 || strncmp(at - 3, "c:|", 3) != 0)
                fail_msg("%u: a result without its call: %s", budget, sent);
    }
}

/* With hardly any room nothing stays in memory, and all is as before. */
static void eviction_changes_nothing(void **state)
{
    struct fixture *f = *state;
    struct memory_stats stats;
    memory_free(f->memory);
    open_memory(f, 1);
    for (int round = 0; round < 3; round++)
        for (int user = 0; user < 5; user++) {
            char name[16], expected[256] = "";
            snprintf(name, sizeof name, "u%d", user);
            for (int i = 0; i < round; i++)
                snprintf(expected + strlen(expected), sizeof expected - strlen(expected), "u:q%d|a:r|", i);
            struct turning how = {.user = name, .conversation = "c", .reply = "a:r"};
            char question[16];
            snprintf(question, sizeof question, "u:q%d", round);
            snprintf(expected + strlen(expected), sizeof expected - strlen(expected), "%s", question);
            assert_string_equal(turn(f, &how, question).sent, expected);
        }
    memory_stats_read(f->memory, &stats);
    assert_true(stats.users <= 1);
    assert_int_equal(stats.turns, 15);
}

static void deletions_are_noticed(void **state)
{
    struct fixture *f = *state;
    struct store *store;
    struct ph_err err;
    struct turning how = {.user = "u", .conversation = "c", .reply = "a:b"};
    turn(f, &how, "u:secret");
    turn(f, &how, "u:more");
    assert_int_equal(memory_store(f->memory, &store, &err), PH_OK);
    struct store_write gone = {.kind = STORE_DELETE_CONVERSATION, .user = "u", .key = "c"};
    assert_int_equal(store_write(store, &gone, NULL, &err), PH_OK);
    assert_string_equal(turn(f, &how, "u:again").sent, "u:again");
    gone = (struct store_write){.kind = STORE_DELETE_USER, .user = "u"};
    assert_int_equal(store_write(store, &gone, NULL, &err), PH_OK);
    assert_string_equal(turn(f, &how, "u:once more").sent, "u:once more");
    struct memory_context_params params = {
        .user = "u", .query = "secret", .query_len = 6, .budget_tokens = 100, .strategy = CONTEXT_HYBRID};
    struct memory_context context;
    assert_int_equal(memory_context_build(f->memory, &f->arena, &params, &context, &err), PH_OK);
    for (size_t i = 0; i < context.count; i++)
        assert_null(strstr(context.items[i].message.content, "secret"));
    assert_true(context.count > 0);
}

/* ---- Threads */

struct talker {
    struct fixture *f;
    char user[8], conversation[8];
    int failures;
};

static void talk(void *ud)
{
    struct talker *t = ud;
    struct store_done nobody = {.fn = NULL};
    for (int i = 0; i < 20; i++) {
        struct arena arena;
        struct memory_turn made;
        struct ph_err err;
        char id[ID_TEXT_MAX];
        arena_init(&arena, ARENA_BYTES_MAX);
        struct chat_request request = read_request(&arena, "u:a lighthouse in the north");
        struct memory_turn_params params = {.user = t->user,
                                            .conversation = t->conversation,
                                            .request = &request,
                                            .budget_tokens = 60,
                                            .keep_recent = 2,
                                            .strategy = CONTEXT_HYBRID};
        memory_make_id(t->f->memory, "msg_", id);
        struct memory_reply reply = {
            .id = id, .chat = {.role = CHAT_ASSISTANT, .content = {"it stands", 9}}, .finish = "stop"};
        t->failures += memory_turn_open(t->f->memory, &params, &made, &err) != PH_OK ||
                       memory_turn_ask(t->f->memory, &made, nobody, &err) != PH_OK ||
                       memory_turn_reply(t->f->memory, &made, &reply, nobody, &err) != PH_OK;
        memory_turn_release(&made);
        arena_release(&arena);
    }
}

static void threads_share_a_memory(void **state)
{
    enum { TALKERS = 6 };
    struct fixture *f = *state;
    struct talker talkers[TALKERS];
    uv_thread_t threads[TALKERS];
    memory_free(f->memory);
    open_memory(f, 200000); /* some are evicted */
    for (int i = 0; i < TALKERS; i++) {
        talkers[i] = (struct talker){.f = f};
        snprintf(talkers[i].user, sizeof talkers[i].user, "u%d", i % 3);
        snprintf(talkers[i].conversation, sizeof talkers[i].conversation, "c%d", i % 4);
        assert_int_equal(uv_thread_create(&threads[i], talk, &talkers[i]), 0);
    }
    for (int i = 0; i < TALKERS; i++) {
        uv_thread_join(&threads[i]);
        assert_int_equal(talkers[i].failures, 0);
    }
    struct turning how = {.user = "u1", .conversation = "other"};
    turn(f, &how, "u:x"); /* waits until all of it is stored */
    how.conversation = "c1";
    assert_true(turn(f, &how, "u:and then").history >
                20); /* every reply; a question without one is not stored again */
}

/* ---- Messages */

static void messages_come_back(void **state)
{
    struct fixture *f = *state;
    const struct chat_part parts[] = {
        {.kind = CHAT_PART_REASONING, .text = {"hm", 2}, .signature = "seal"},
        {.kind = CHAT_PART_TEXT, .text = {"see", 3}},
        {.kind = CHAT_PART_IMAGE, .media_type = "image/png", .data = {"AAAA", 4}, .detail = "low"},
        {.kind = CHAT_PART_FILE, .url = "https://x/y.pdf", .filename = "y.pdf"},
        {.kind = CHAT_PART_AUDIO, .media_type = "audio/wav", .data = {"BBBB", 4}},
    };
    const struct chat_tool_call calls[] = {{"c1", "f", {"{\"a\": 1}", 8}, false},
                                           {"c2", "g", {"x y", 3}, true}};
    const struct memory_message messages[] = {
        {.chat = {.role = CHAT_USER, .content = {"plain", 5}, .name = "Ann"}},
        {.chat = {.role = CHAT_USER, .content = {"see", 3}, .parts = parts + 1, .part_count = 4}},
        {.chat = {.role = CHAT_ASSISTANT, .content = {"see", 3}, .parts = parts, .part_count = 2}},
        {.chat = {.role = CHAT_ASSISTANT, .tool_calls = calls, .tool_call_count = 2}},
        {.chat = {.role = CHAT_TOOL, .content = {"", 0}, .tool_call_id = "c1", .tool_failed = true}},
        {.chat = {.role = CHAT_SYSTEM, .content = {"rules", 5}}, .is_head = true},
        {.chat = {.role = CHAT_USER, .content = {"new way", 7}}, .is_branch = true, .after = 7},
    };
    for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++) {
        struct store_message stored;
        struct memory_message back;
        struct memory_message message = messages[i];
        message.id = "msg_1";
        assert_true(memory_message_write(&f->arena, &message, i == 2 ? "cut" : NULL, &stored));
        assert_true(memory_message_read(&f->arena, &stored, &back));
        assert_int_equal(back.chat.role, message.chat.role);
        assert_int_equal(back.print, memory_message_print(&message.chat));
        assert_int_equal(back.chat.part_count, message.chat.part_count);
        for (size_t p = 0; p < back.chat.part_count; p++) {
            const struct chat_part *a = &back.chat.parts[p], *b = &message.chat.parts[p];
            assert_int_equal(a->kind, b->kind);
            assert_int_equal(a->text.len, b->text.len);
            assert_int_equal(a->data.len, b->data.len);
            if (b->media_type)
                assert_string_equal(a->media_type, b->media_type);
            if (b->signature)
                assert_string_equal(a->signature, b->signature);
        }
        assert_int_equal(back.chat.tool_call_count, message.chat.tool_call_count);
        for (size_t c = 0; c < back.chat.tool_call_count; c++) {
            assert_string_equal(back.chat.tool_calls[c].id, calls[c].id);
            assert_string_equal(back.chat.tool_calls[c].arguments.text, calls[c].arguments.text);
            assert_int_equal(back.chat.tool_calls[c].custom, calls[c].custom);
        }
        assert_int_equal(back.chat.tool_failed, message.chat.tool_failed);
        assert_int_equal(back.is_head, message.is_head);
        assert_int_equal(back.is_cut, i == 2);
        assert_int_equal(back.is_branch, message.is_branch);
        assert_int_equal(back.after, message.after);
        if (message.chat.name)
            assert_string_equal(back.chat.name, message.chat.name);
    }
}

/* What somebody else wrote into the store is still a message. */
static void strange_messages_are_read(void **state)
{
    struct fixture *f = *state;
    static const struct store_message rows[] = {
        {.id = "1", .role = "narrator", .content = "x", .content_len = 1, .extra = ""},
        {.id = "2", .role = "user", .content = "[1,2]", .content_len = 5, .content_kind = STORE_CONTENT_JSON},
        {.id = "3", .role = "user", .content = "{", .content_len = 1, .content_kind = STORE_CONTENT_JSON},
        {.id = "4",
         .role = "assistant",
         .content = "",
         .extra = "{\"tool_calls\":[7,{\"id\":1}],\"reasoning\":[null]}"},
        {.id = "5", .role = "", .content = "x", .content_len = 1, .extra = "not json"},
        {.id = "6",
         .role = "user",
         .content_kind = STORE_CONTENT_NONE,
         .content = "",
         .extra = "{\"after\":\"x\"}"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct memory_message back;
        struct store_message again;
        assert_true(memory_message_read(&f->arena, &rows[i], &back));
        assert_true(memory_message_write(&f->arena, &back, NULL, &again));
    }
    struct memory_message narrator;
    assert_true(memory_message_read(&f->arena, &rows[0], &narrator));
    assert_string_equal(narrator.chat.name, "narrator");
}

static void a_store_that_is_none_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct ph_err err;
    struct memory *other;
    struct store *store;
    struct memory_params params = {.dir = "/proc/nothing/here", .clock = clock_system()};
    (void)f;
    assert_int_equal(memory_create(&other, &params, &err), PH_OK); /* nothing is opened so far */
    assert_int_equal(memory_store(other, &store, &err), PH_ERR_IO);
    assert_null(store);
    memory_free(other);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(histories_are_recognised),
        T(branches_stay_in_the_store),
        T(cut_replies_are_recognised),
        T(responses_make_chains_and_branches),
        T(users_have_their_own),
        T(budgets_hold),
        T(calls_go_with_their_results),
        T(eviction_changes_nothing),
        T(deletions_are_noticed),
        T(threads_share_a_memory),
        T(messages_come_back),
        T(strange_messages_are_read),
        T(a_store_that_is_none_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
