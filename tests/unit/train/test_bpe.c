/* Tokenizer training: the fast trainer finds what a plain one finds that recounts everything after every
 * step; what it writes loads, and texts come back from their ids. */
#include "test_support.h"

#include "base/mem.h"
#include "train/train.h"

#define SYMBOLS_MAX 512
#define WORDS_MAX 40000
#define MERGES_MAX 1024

/* ---- The plain trainer */

struct plain_word {
    int len;
    int symbols[256];
};

struct plain {
    char symbols[SYMBOLS_MAX][65];
    int symbol_count;
    struct plain_word words[WORDS_MAX];
    int word_count;
    int merges[MERGES_MAX][2];
    int merge_count;
    int counts[SYMBOLS_MAX][SYMBOLS_MAX];
};

static bool plain_add(void *ud, const char *text, size_t len)
{
    struct plain *p = ud;
    struct plain_word *word = &p->words[p->word_count++];
    assert_true(p->word_count < WORDS_MAX && len <= 256);
    word->len = (int)len;
    for (size_t i = 0; i < len; i++)
        word->symbols[i] = (unsigned char)text[i];
    return true;
}

static void plain_best(struct plain *p, int *left, int *right)
{
    int best = 0;
    memset(p->counts, 0, sizeof p->counts);
    for (int w = 0; w < p->word_count; w++)
        for (int i = 0; i + 1 < p->words[w].len; i++)
            p->counts[p->words[w].symbols[i]][p->words[w].symbols[i + 1]]++;
    for (int a = 0; a < p->symbol_count; a++)
        for (int b = 0; b < p->symbol_count; b++)
            if (p->counts[a][b] > best) {
                best = p->counts[a][b];
                *left = a;
                *right = b;
            }
    if (best < 2)
        *left = -1;
}

static int plain_symbol(struct plain *p, int left, int right)
{
    char text[130];
    size_t len = strlen(p->symbols[left]);
    memcpy(text, p->symbols[left], len);
    memcpy(text + len, p->symbols[right], strlen(p->symbols[right]) + 1);
    for (int i = 1; i < p->symbol_count; i++)
        if (strcmp(p->symbols[i], text) == 0)
            return i;
    assert_true(p->symbol_count < SYMBOLS_MAX && strlen(text) <= 64);
    memcpy(p->symbols[p->symbol_count], text, strlen(text) + 1);
    return p->symbol_count++;
}

static void plain_join(struct plain *p, int left, int right)
{
    int made = plain_symbol(p, left, right);
    bool listed = false;
    for (int i = 0; i < p->merge_count; i++)
        listed |= p->merges[i][0] == left && p->merges[i][1] == right;
    if (!listed) {
        p->merges[p->merge_count][0] = left;
        p->merges[p->merge_count++][1] = right;
    }
    for (int w = 0; w < p->word_count; w++) {
        struct plain_word *word = &p->words[w];
        int len = 0;
        for (int i = 0; i < word->len; i++) {
            bool joins = i + 1 < word->len && word->symbols[i] == left && word->symbols[i + 1] == right;
            word->symbols[len++] = joins ? made : word->symbols[i];
            i += joins;
        }
        word->len = len;
    }
}

static struct plain *plain_train(const char *text, size_t len, int made_max)
{
    struct plain *p = mem_calloc(1, sizeof *p);
    assert_non_null(p);
    for (int byte = 0; byte < 256; byte++)
        p->symbols[p->symbol_count++][0] = (char)byte;
    assert_int_equal(pretokenize("smollm", text, len, plain_add, p, NULL), PH_OK);
    while (p->symbol_count < 256 + made_max) {
        int left, right;
        plain_best(p, &left, &right);
        if (left < 0)
            break;
        plain_join(p, left, right);
    }
    return p;
}

/* ---- The trainer */

static void path_of(char *path, size_t size, const char *name)
{
    const char *dir = getenv("TMPDIR");
    snprintf(path, size, "%s/pharos-test-bpe-%d-%s.gguf", dir ? dir : "/tmp", (int)getpid(), name);
}

static struct bpe_trainer *train(const struct bpe_params *params, const char *text, size_t len)
{
    struct bpe_trainer *trainer = NULL;
    struct ph_err err;
    if (bpe_trainer_create(&trainer, params, &err) != PH_OK ||
        bpe_trainer_add(trainer, text, len, &err) != PH_OK ||
        bpe_trainer_run(trainer, NULL, NULL, &err) != PH_OK)
        fail_msg("%s", err.message);
    return trainer;
}

static struct gguf *train_file(const struct bpe_params *params, const char *text, size_t len,
                               const char *name)
{
    char path[256];
    struct ph_err err;
    struct gguf *gguf = NULL;
    struct bpe_trainer *trainer = train(params, text, len);
    path_of(path, sizeof path, name);
    if (bpe_trainer_save(trainer, path, "test", NULL, &err) != PH_OK || gguf_open(&gguf, path, &err) != PH_OK)
        fail_msg("%s", err.message);
    bpe_trainer_free(trainer);
    unlink(path);
    return gguf;
}

static struct bpe_params small_params(enum bpe_kind kind, size_t n_tokens)
{
    struct bpe_params params;
    bpe_params_default(&params);
    params.kind = kind;
    params.n_tokens = n_tokens;
    params.token_bytes_max = 64;
    return params;
}

/* A symbol as the file spells it: the texts used here have no bytes beyond printable ASCII, ' ' and '\n'. */
static void append_spelled(char *out, const char *symbol)
{
    size_t at = strlen(out);
    for (; *symbol; symbol++) {
        const char *spelled = *symbol == ' ' ? "\u0120" : *symbol == '\n' ? "\u010a" : NULL;
        if (spelled) {
            memcpy(out + at, spelled, 2);
            at += 2;
        } else {
            out[at++] = *symbol;
        }
    }
    out[at] = 0;
}

static void expect_plain_merges(const char *text, size_t len, int made)
{
    const struct bpe_params params = small_params(BPE_BYTES, 257 + (size_t)made);
    struct plain *plain = plain_train(text, len, made);
    struct gguf *gguf = train_file(&params, text, len, "plain");
    struct gguf_array merges;
    struct gguf_string found;
    uint64_t cursor = 0;
    assert_true(gguf_get_array(gguf, "tokenizer.ggml.merges", &merges));
    for (int i = 0; i < plain->merge_count; i++) {
        char expected[300] = "";
        append_spelled(expected, plain->symbols[plain->merges[i][0]]);
        expected[strlen(expected) + 1] = 0;
        expected[strlen(expected)] = ' ';
        append_spelled(expected, plain->symbols[plain->merges[i][1]]);
        assert_true(gguf_array_string(&merges, &cursor, &found));
        if (found.len != strlen(expected) || memcmp(found.text, expected, found.len) != 0)
            fail_msg("merge %d is '%.*s', should be '%s'", i, (int)found.len, found.text, expected);
    }
    assert_int_equal(merges.count, plain->merge_count);
    gguf_free(gguf);
    mem_free(plain);
}

/* Few letters make ties, overlaps (aaa) and texts that are made in two ways. */
static void merges_are_those_of_a_plain_trainer(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= (SANITIZED ? 2 : 6); seed++) {
        static char text[6000];
        struct rng rng;
        rng_init(&rng, seed);
        for (size_t i = 0; i < sizeof text; i++)
            text[i] = "aaaabbbcde \n"[rng_u64(&rng) % (seed % 2 ? 12 : 11)];
        expect_plain_merges(text, sizeof text, SANITIZED ? 40 : 150);
    }
}

static const char *const english =
    "The tokenizer reads the text, and the text is what the tokenizer reads. There is a time for reading "
    "and a time for writing; there is a time for tokens, and tokens are read in time.\n\n  int main(void) "
    "{ return 0; }\n\tThe caf\u00e9 is na\u00efve. 2024, 2025 and 12345. \u4f60\u597d \u4f60\u597d "
    "\U0001F600\U0001F600 the end of the text.\n";

static void merges_of_english_are_those_of_a_plain_trainer(void **state)
{
    (void)state;
    static const char plain_english[] =
        "The tokenizer reads the text, and the text is what the tokenizer reads. There is a time for reading "
        "and a time for writing; there is a time for tokens, and tokens are read in time.\n\nThis is the end "
        "of the text, and the beginning of the time in which the reader rereads it.\n";
    expect_plain_merges(plain_english, sizeof plain_english - 1, SANITIZED ? 30 : 100);
}

static void expect_round_trip(const struct vocab *vocab, const char *text, size_t len)
{
    struct token_list ids = {.ids = NULL};
    struct buf out;
    buf_init(&out, 1 << 20);
    assert_int_equal(vocab_tokenize(vocab, text, len, false, false, &ids, NULL), PH_OK);
    assert_int_equal(vocab_detokenize(vocab, ids.ids, ids.len, false, &out), PH_OK);
    assert_int_equal(out.len, len);
    assert_memory_equal(out.data, text, len);
    token_list_release(&ids);
    buf_release(&out);
}

static void texts_come_back(void **state)
{
    (void)state;
    static const char other[] = "  Zebra\tquiz: <|user|> \u20ac \U0001F680 \u0416\n\n\n   x=\"y\";";
    for (int kind = 0; kind < 2; kind++) {
        struct bpe_params params = small_params((enum bpe_kind)kind, 400);
        struct vocab *vocab;
        params.specials = chat_default_specials;
        params.special_count = chat_default_special_count;
        params.turn_end = CHAT_DEFAULT_TURN_END;
        struct gguf *gguf = train_file(&params, english, strlen(english), "round");
        struct ph_err err;
        if (vocab_create(&vocab, gguf, &err) != PH_OK)
            fail_msg("%s", err.message);
        expect_round_trip(vocab, english, strlen(english));
        expect_round_trip(vocab, other, sizeof other - 1);
        int32_t end = vocab_find(vocab, CHAT_DEFAULT_TURN_END, strlen(CHAT_DEFAULT_TURN_END));
        assert_true(end > 0 && vocab_is_end(vocab, end) && vocab_is_special(vocab, end));
        struct token_list ids = {.ids = NULL};
        assert_int_equal(vocab_tokenize(vocab, "<|end|>", 7, false, true, &ids, NULL), PH_OK);
        assert_true(ids.len == 1 && ids.ids[0] == end);
        token_list_release(&ids);
        vocab_free(vocab);
        gguf_free(gguf);
    }
}

/* What was learned is used: the training text takes the tokens that the trainer says it takes. */
static void tokenizing_merges_as_training_did(void **state)
{
    (void)state;
    const struct bpe_params params = small_params(BPE_BYTES, 380);
    struct bpe_trainer *trainer = train(&params, english, strlen(english));
    struct gguf *gguf = train_file(&params, english, strlen(english), "used");
    struct vocab *vocab;
    struct bpe_stats stats;
    struct token_list ids = {.ids = NULL};
    assert_int_equal(vocab_create(&vocab, gguf, NULL), PH_OK);
    assert_int_equal(vocab_tokenize(vocab, english, strlen(english), false, false, &ids, NULL), PH_OK);
    bpe_trainer_stats(trainer, &stats);
    assert_int_equal(ids.len, stats.corpus_symbols);
    assert_int_equal(vocab_info(vocab)->n_tokens, stats.tokens);
    token_list_release(&ids);
    vocab_free(vocab);
    gguf_free(gguf);
    bpe_trainer_free(trainer);
}

/* SPM: a character that is too rare has no token and is spelled by bytes; scores fall as tokens are made. */
static void rare_characters_fall_back_to_bytes(void **state)
{
    (void)state;
    struct bpe_params params = small_params(BPE_SPM, 340);
    struct vocab *vocab;
    struct gguf_array scores;
    static const char text[] = "aaaa bbbb aaaa bbbb aaaa bbbb aaaa bbbb aaaa bbbb aaaa bbbb \u4f60";
    params.coverage = 0.97;
    struct gguf *gguf = train_file(&params, text, sizeof text - 1, "rare");
    assert_int_equal(vocab_create(&vocab, gguf, NULL), PH_OK);
    assert_int_equal(vocab_find(vocab, "\u4f60", 3), -1);
    struct token_list ids = {.ids = NULL};
    assert_int_equal(vocab_tokenize(vocab, "\u4f60", 3, false, false, &ids, NULL), PH_OK);
    assert_int_equal(ids.len, 3);
    assert_int_equal(ids.ids[0], 3 + 0xe4);
    ids.len = 0;
    assert_int_equal(vocab_tokenize(vocab, " aaaa", 5, false, false, &ids, NULL), PH_OK);
    assert_int_equal(ids.len, 1);
    token_list_release(&ids);
    assert_true(gguf_get_array(gguf, "tokenizer.ggml.scores", &scores));
    for (uint64_t i = 3 + 256 + 1; i < scores.count; i++)
        assert_true(gguf_array_number(&scores, i) < gguf_array_number(&scores, i - 1));
    vocab_free(vocab);
    gguf_free(gguf);
}

/* No token is longer than asked for, or spells a special token. */
static void some_tokens_are_never_made(void **state)
{
    (void)state;
    static const char text[] = "abab abab abab abab abab abab abab abab";
    static const char *const specials[] = {"abab"};
    struct bpe_params params = small_params(BPE_BYTES, 300);
    struct vocab *vocab;
    params.specials = specials;
    params.special_count = 1;
    struct gguf *gguf = train_file(&params, text, sizeof text - 1, "never");
    assert_int_equal(vocab_create(&vocab, gguf, NULL), PH_OK);
    assert_int_equal(vocab_find(vocab, "abab", 4), 1);
    assert_true(vocab_find(vocab, "ab", 2) > 256);
    expect_round_trip(vocab, text, sizeof text - 1);
    vocab_free(vocab);
    gguf_free(gguf);
    params.special_count = 0;
    params.token_bytes_max = 2;
    gguf = train_file(&params, text, sizeof text - 1, "short");
    assert_int_equal(vocab_create(&vocab, gguf, NULL), PH_OK);
    assert_int_equal(vocab_find(vocab, "abab", 4), -1);
    assert_true(vocab_find(vocab, "ab", 2) > 256);
    vocab_free(vocab);
    gguf_free(gguf);
}

static void wrong_wishes_are_refused(void **state)
{
    (void)state;
    static const char *const twice[] = {"<a>", "<a>"};
    static const char *const own[] = {"<|endoftext|>"};
    static const char *const one_byte[] = {"x"};
    struct bpe_trainer *trainer = NULL;
    struct bpe_params params = small_params(BPE_BYTES, 256);
    assert_int_equal(bpe_trainer_create(&trainer, &params, NULL), PH_ERR_ARG);
    params = small_params(BPE_BYTES, 300);
    params.pre = "no such one";
    assert_int_equal(bpe_trainer_create(&trainer, &params, NULL), PH_ERR_UNSUPPORTED);
    params = small_params(BPE_BYTES, 300);
    params.specials = twice;
    params.special_count = 2;
    assert_int_equal(bpe_trainer_create(&trainer, &params, NULL), PH_ERR_ARG);
    params.specials = own;
    params.special_count = 1;
    assert_int_equal(bpe_trainer_create(&trainer, &params, NULL), PH_ERR_ARG);
    params.specials = one_byte;
    assert_int_equal(bpe_trainer_create(&trainer, &params, NULL), PH_ERR_ARG);
    params = small_params(BPE_BYTES, 300);
    params.turn_end = "<end>";
    assert_int_equal(bpe_trainer_create(&trainer, &params, NULL), PH_ERR_ARG);
    params.turn_end = NULL;
    assert_int_equal(bpe_trainer_create(&trainer, &params, NULL), PH_OK);
    assert_int_equal(bpe_trainer_run(trainer, NULL, NULL, NULL), PH_ERR_ARG); /* no text */
    bpe_trainer_free(trainer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_are_those_of_a_plain_trainer),
        cmocka_unit_test(merges_of_english_are_those_of_a_plain_trainer),
        cmocka_unit_test(texts_come_back),
        cmocka_unit_test(tokenizing_merges_as_training_did),
        cmocka_unit_test(rare_characters_fall_back_to_bytes),
        cmocka_unit_test(some_tokens_are_never_made),
        cmocka_unit_test(wrong_wishes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
