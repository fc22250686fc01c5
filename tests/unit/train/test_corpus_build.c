/* From documents to token files: what counts in the loss, what is dropped, and errors that name the line. */
#include "test_support.h"

#include "base/file.h"
#include "train/train.h"

struct place {
    char input[256], vocab[256], out[256];
    struct gguf *gguf;
    struct vocab *vocabulary;
    struct chat_template *chat_template;
};

static const char training[] =
    "hello there, how are you today? I am fine, thank you. And you? The weather is fine today.";

static void set_up(struct place *p, enum bpe_kind kind, const char *suffix, const char *input)
{
    const char *dir = getenv("TMPDIR");
    struct bpe_params params;
    struct bpe_trainer *trainer;
    struct ph_err err;
    dir = dir ? dir : "/tmp";
    snprintf(p->input, sizeof p->input, "%s/pharos-test-build-%d%s", dir, (int)getpid(), suffix);
    snprintf(p->vocab, sizeof p->vocab, "%s/pharos-test-build-%d.gguf", dir, (int)getpid());
    snprintf(p->out, sizeof p->out, "%s/pharos-test-build-%d.tokens", dir, (int)getpid());
    bpe_params_default(&params);
    params.kind = kind;
    params.n_tokens = 330;
    params.specials = chat_default_specials;
    params.special_count = chat_default_special_count;
    assert_int_equal(bpe_trainer_create(&trainer, &params, NULL), PH_OK);
    assert_int_equal(bpe_trainer_add(trainer, training, sizeof training - 1, NULL), PH_OK);
    assert_int_equal(bpe_trainer_run(trainer, NULL, NULL, NULL), PH_OK);
    assert_int_equal(bpe_trainer_save(trainer, p->vocab, "test", NULL, NULL), PH_OK);
    bpe_trainer_free(trainer);
    assert_int_equal(gguf_open(&p->gguf, p->vocab, NULL), PH_OK);
    assert_int_equal(vocab_create(&p->vocabulary, p->gguf, NULL), PH_OK);
    if (chat_template_create(&p->chat_template, chat_default_template, strlen(chat_default_template), &err) !=
        PH_OK)
        fail_msg("%s", err.message);
    assert_int_equal(file_write_atomic(p->input, input, strlen(input), 0600, NULL), PH_OK);
}

static enum ph_status build(const struct place *p, const char *separator, bool targets,
                            struct corpus_build_stats *stats, struct corpus **corpus, struct ph_err *err)
{
    const char *const paths[] = {p->input};
    const struct corpus_build what = {
        .source = {.paths = paths, .path_count = 1, .separator = separator},
        .path = p->out,
        .vocab = p->vocabulary,
        .params = {.n_vocab = vocab_info(p->vocabulary)->n_tokens, .targets = targets},
        .chat_template = p->chat_template,
        .dedup = true,
    };
    enum ph_status status = corpus_build(&what, stats, NULL, NULL, err);
    return status == PH_OK ? corpus_open(corpus, p->out, err) : status;
}

static void tear_down(struct place *p)
{
    chat_template_free(p->chat_template);
    vocab_free(p->vocabulary);
    gguf_free(p->gguf);
    unlink(p->input);
    unlink(p->vocab);
    unlink(p->out);
}

static void expect_text(const struct place *p, const struct corpus *c, bool targets_only,
                        const char *expected)
{
    struct buf out;
    buf_init(&out, 1 << 16);
    for (uint64_t i = 0; i < corpus_totals(c, CORPUS_ALL)->tokens; i++) {
        char piece[2048];
        size_t len = vocab_piece(p->vocabulary, corpus_token(c, i), true, piece);
        if (!targets_only || corpus_is_target(c, i))
            buf_append(&out, piece, len);
    }
    assert_string_equal(out.data, expected);
    buf_release(&out);
}

static const char talk[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"hello "
                           "\u00e9\"},{\"role\":\"assistant\",\"content\":\"how are "
                           "you?\"},{\"role\":\"user\",\"content\":\"fine\"},{\"role\":\"assistant\","
                           "\"content\":\" \u00e9t\u00e9 \"}]}\n"
                           "{\"text\":\"The weather\"}\n";

static void only_the_assistant_is_a_target(void **state)
{
    (void)state;
    static const char *const ends[][2] = {{"", "<|endoftext|>"}, {"<s>", "</s>"}};
    for (int kind = 0; kind < 2; kind++) {
        struct place p;
        struct corpus *c;
        struct corpus_build_stats stats;
        struct ph_err err;
        char expected[512];
        set_up(&p, (enum bpe_kind)kind, ".jsonl", talk);
        if (build(&p, NULL, true, &stats, &c, &err) != PH_OK)
            fail_msg("%s", err.message);
        snprintf(
            expected, sizeof expected,
            "%s<|user|>\nhello \u00e9<|end|>\n<|assistant|>\nhow are you?<|end|>\n<|user|>\nfine<|end|>\n"
            "<|assistant|>\n \u00e9t\u00e9 <|end|>\n%s%sThe weather%s",
            ends[kind][0], ends[kind][1], ends[kind][0], ends[kind][1]);
        expect_text(&p, c, false, expected);
        snprintf(expected, sizeof expected, "how are you?<|end|>\n \u00e9t\u00e9 <|end|>\nThe weather%s",
                 ends[kind][1]);
        expect_text(&p, c, true, expected);
        assert_int_equal(stats.documents, 2);
        corpus_free(c);
        tear_down(&p);
    }
}

static void texts_are_cut_at_separators_and_equal_ones_dropped(void **state)
{
    (void)state;
    struct place p;
    struct corpus *c;
    struct corpus_build_stats stats;
    struct ph_err err;
    set_up(&p, BPE_BYTES, ".txt", "hello\n---\nhow are you\n---\n\n---\n hello \r\n---\r\n-- -\nfine");
    if (build(&p, "---", false, &stats, &c, &err) != PH_OK)
        fail_msg("%s", err.message);
    assert_int_equal(stats.documents, 4);
    assert_int_equal(stats.exact, 1);
    expect_text(&p, c, false, "hello\n<|endoftext|>how are you\n<|endoftext|>-- -\nfine<|endoftext|>");
    corpus_free(c);
    tear_down(&p);
}

/* The same conversation in every form makes the same tokens. */
static void forms_of_conversations(void **state)
{
    (void)state;
    static const char *const forms[] = {
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"},{\"role\":\"assistant\",\"content\":"
        "\"fine\"}]}",
        "{\"conversations\":[{\"from\":\"human\",\"value\":\"hello\"},{\"from\":\"gpt\",\"value\":\"fine\"}]"
        "}",
        "{\"conversations\":[{\"role\":\"user\",\"content\":\"hello\"},{\"role\":\"bot\",\"content\":"
        "\"fine\"}]}",
        "{\"id\":1,\"turns\":[{\"speaker\":\"user\",\"text\":\"hello\"},{\"speaker\":\"system\",\"text\":"
        "\"fine\"}]}",
        "{\"turns\":[[\"user\",\"hello\"],[\"assistant\",\"fine\"]]}",
        "{\"instruction\":\"hello\",\"input\":\"\",\"output\":\"fine\",\"text\":\"all of it\"}",
        "{\"prompt\":\"hello\",\"completion\":\"fine\"}",
        "{\"question\":\"hello\",\"answer\":\"fine\"}",
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct place p;
        struct corpus *c;
        struct corpus_build_stats stats;
        struct ph_err err;
        set_up(&p, BPE_BYTES, ".jsonl", forms[i]);
        if (build(&p, NULL, true, &stats, &c, &err) != PH_OK)
            fail_msg("%s: %s", forms[i], err.message);
        expect_text(&p, c, false, "<|user|>\nhello<|end|>\n<|assistant|>\nfine<|end|>\n<|endoftext|>");
        expect_text(&p, c, true, "fine<|end|>\n");
        corpus_free(c);
        tear_down(&p);
    }
}

/* A build of this text ends with an error that says `what`, and leaves no file. */
static void expect_refused(const char *suffix, const char *text, const char *separator, const char *what)
{
    struct place p;
    struct corpus *c;
    struct corpus_build_stats stats;
    struct ph_err err;
    set_up(&p, BPE_BYTES, suffix, text);
    assert_int_equal(build(&p, separator, false, &stats, &c, &err), PH_ERR_FORMAT);
    assert_non_null(strstr(err.message, what));
    assert_false(file_exists(p.out));
    tear_down(&p);
}

static void errors_name_the_line_and_leave_no_file(void **state)
{
    (void)state;
    static const char *const bad[] = {"{\"text\":\"a\"}\n\n{\"text\":",
                                      "{\"text\":\"a\"}\n\n{\"text\":1}",
                                      "{\"text\":\"a\"}\n\n{\"messages\":[]}",
                                      "{\"text\":\"a\"}\n\n{\"messages\":[{\"role\":\"user\"}]}",
                                      "{\"text\":\"a\"}\n\n{\"turns\":[[\"user\",\"b\"],[\"user\"]]}",
                                      "{\"text\":\"a\"}\n\n{\"prompt\":\"b\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_refused(".jsonl", bad[i], NULL, ".jsonl:3: ");
}

static void text_that_is_not_utf8_is_named(void **state)
{
    (void)state;
    expect_refused(".txt", "one\ntwo\n---\nthr\xe9\x65\n", "---", ".txt:4: the byte 0xE9");
    expect_refused(".txt", "one\ntwo\n---\nthree\xe2\x82", "---", ".txt:4: the byte 0xE2");
}

static bool stop_at_once(void *ud, uint64_t done, uint64_t total)
{
    (void)done, (void)total;
    return ++*(int *)ud < 2;
}

static void a_build_that_is_stopped_leaves_nothing(void **state)
{
    (void)state;
    struct place p;
    struct corpus_build_stats stats;
    struct ph_err err;
    int asked = 0;
    set_up(&p, BPE_BYTES, ".txt", "one\n---\ntwo\n---\nthree\n---\nfour\n");
    const char *const paths[] = {p.input};
    const struct corpus_build what = {
        .source = {.paths = paths, .path_count = 1, .separator = "---"},
        .path = p.out,
        .vocab = p.vocabulary,
        .params = {.n_vocab = vocab_info(p.vocabulary)->n_tokens},
        .chat_template = p.chat_template,
    };
    assert_int_equal(corpus_build(&what, &stats, stop_at_once, &asked, &err), PH_ERR_CANCELLED);
    assert_int_equal(stats.documents, 2);
    assert_non_null(strstr(err.message, p.out));
    assert_false(file_exists(p.out));
    tear_down(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_assistant_is_a_target),
        cmocka_unit_test(texts_are_cut_at_separators_and_equal_ones_dropped),
        cmocka_unit_test(forms_of_conversations),
        cmocka_unit_test(errors_name_the_line_and_leave_no_file),
        cmocka_unit_test(text_that_is_not_utf8_is_named),
        cmocka_unit_test(a_build_that_is_stopped_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
