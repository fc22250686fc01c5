/* The offline commands from argv to bytes on stdout, against the recorded references. */
#include <math.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/cli_int.h"
#include "test_support.h"

#define PACK TEST_SHARED_DIR "/conformance/"
#define STORIES PACK "models/stories260K-F32.gguf"
#define WORDS_MAX 24

/* ---- Running a command with its input and output in files ---- */

struct outcome {
    int exit_code;
    struct buf out;
};

static int redirect(int fd, const char *path, const char *mode)
{
    FILE *file = fopen(path, mode);
    assert_non_null(file);
    int kept = dup(fd);
    dup2(fileno(file), fd);
    fclose(file);
    return kept;
}

static void restore(int fd, int kept)
{
    dup2(kept, fd);
    close(kept);
}

static void spill(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fwrite(text, 1, strlen(text), file);
    fclose(file);
}

static const char *scratch(const char *name)
{
    static char path[64][128];
    static unsigned turn;
    char *at = path[turn++ % 64];
    snprintf(at, sizeof path[0], "/tmp/pharos-test-%d-%s", (int)getpid(), name);
    return at;
}

static struct outcome command(int (*run)(int, char **), const char *input, const char *const *words)
{
    struct outcome outcome;
    char *argv[WORDS_MAX + 1] = {(char[]){"command"}};
    int argc = 1;
    for (; words[argc - 1]; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc - 1];
    const char *in = scratch("in"), *out = scratch("out");
    spill(in, input ? input : "");
    fflush(stdout);
    int kept_in = redirect(STDIN_FILENO, in, "rb"), kept_out = redirect(STDOUT_FILENO, out, "wb");
    outcome.exit_code = run(argc, argv);
    fflush(stdout);
    restore(STDIN_FILENO, kept_in);
    restore(STDOUT_FILENO, kept_out);
    buf_init(&outcome.out, 16 << 20);
    assert_int_equal(file_read(out, &outcome.out, NULL), PH_OK);
    buf_puts(&outcome.out, "");
    unlink(in);
    unlink(out);
    return outcome;
}
#define COMMAND(run, input, ...) command(run, input, (const char *const[]){__VA_ARGS__, NULL})

static const struct json *reference(struct arena *arena, const char *path)
{
    struct buf text;
    struct json *root;
    buf_init(&text, 64 << 20);
    arena_init(arena, 256 << 20);
    assert_int_equal(file_read(path, &text, NULL), PH_OK);
    assert_int_equal(json_parse(arena, text.data, text.len, &root, NULL), PH_OK);
    buf_release(&text);
    return root;
}

/* "1,2,3" of a JSON list of ids; terminated by `end`. */
static void join(const struct json *ids, const char *end, struct buf *out)
{
    bool first = true;
    JSON_EACH (id, ids) {
        buf_printf(out, "%s%s", first ? "" : ",", id->u.str.text);
        first = false;
    }
    buf_puts(out, end);
}

/* ---- The commands ---- */

static void complete_says_what_the_reference_says(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct arena arena;
    const struct json *root = reference(&arena, PACK "expected/stories.json");
    const struct json *prompt = json_at(json_get(json_at(json_get(root, "models"), 0), "prompts"), 0);
    struct buf ids, want;
    buf_init(&ids, 1 << 16);
    buf_init(&want, 1 << 16);
    join(json_get(prompt, "ids"), "", &ids);
    join(json_get(prompt, "greedy"), "\n", &want);
    const char *text = json_text(json_get(prompt, "text"), "");
    struct outcome by_ids = COMMAND(cmd_complete, NULL, "--model", STORIES, "--prompt-ids", ids.data, "-n",
                                    "128", "--temperature", "0", "--ids");
    assert_int_equal(by_ids.exit_code, 0);
    assert_string_equal(by_ids.out.data, want.data);
    struct outcome by_text = COMMAND(cmd_complete, NULL, "--model=" STORIES, "--prompt", text, "-n=128",
                                     "--temperature=0", "--kv=f32");
    assert_string_equal(by_text.out.data, json_text(json_get(prompt, "greedy_text"), ""));
    struct outcome wrong = COMMAND(cmd_complete, NULL, "--model", STORIES);
    assert_int_equal(wrong.exit_code, CLI_EXIT_USAGE);
    struct outcome failing = COMMAND(cmd_complete, NULL, "--model", STORIES, "--prompt-ids", "99999");
    assert_int_equal(failing.exit_code, CLI_EXIT_FAILURE);
    buf_release(&by_ids.out);
    buf_release(&by_text.out);
    buf_release(&wrong.out);
    buf_release(&failing.out);
    buf_release(&ids);
    buf_release(&want);
    arena_release(&arena);
}

/* Every case of a vocabulary in one call, as hexadecimal lines. */
static void check_vocabulary(const struct json *cases, const char *model, bool special)
{
    struct buf hex, ids, bytes;
    buf_init(&hex, 16 << 20);
    buf_init(&ids, 16 << 20);
    buf_init(&bytes, 16 << 20);
    JSON_EACH (item, cases) {
        if (json_get(item, "error"))
            continue;
        buf_printf(&hex, "%s\n", json_text(json_get(item, "hex"), ""));
        join(json_get(item, special ? "ids_special" : "ids"), "\n", &ids);
        buf_printf(&bytes, "%s\n",
                   json_text(json_get(item, special ? "detok_special_hex" : "detok_hex"), ""));
    }
    const char *flag = special ? "--special" : "--hex";
    struct outcome there = COMMAND(cmd_tokenize, hex.data, "--model", model, "--hex", flag);
    struct outcome back = COMMAND(cmd_detokenize, ids.data, "--model", model, "--hex", flag);
    assert_string_equal(there.out.data, ids.data);
    assert_string_equal(back.out.data, bytes.data);
    buf_release(&there.out);
    buf_release(&back.out);
    buf_release(&hex);
    buf_release(&ids);
    buf_release(&bytes);
}

static void tokenize_and_detokenize_match_the_vectors(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    static const char *const names[] = {"gpt-2", "stories3M", "bert-bge"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct arena arena;
        char cases[160], model[160];
        snprintf(cases, sizeof cases, PACK "tokenizer/%s.json", names[i]);
        snprintf(model, sizeof model, PACK "tokenizer/vocabs/%s%s.gguf", i == 1 ? "vocab-" : "ggml-vocab-",
                 names[i]);
        const struct json *root = reference(&arena, cases);
        check_vocabulary(json_get(root, "cases"), model, false);
        check_vocabulary(json_get(root, "cases"), model, true);
        arena_release(&arena);
    }
    struct outcome bad = COMMAND(cmd_tokenize, "00\n0\n", "--model", STORIES, "--hex");
    assert_int_equal(bad.exit_code, CLI_EXIT_FAILURE);
    buf_release(&bad.out);
}

static void logits_are_the_references(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct arena arena;
    const struct json *root = reference(&arena, PACK "expected/stories.json");
    const struct json *prompt = json_at(json_get(json_at(json_get(root, "models"), 0), "prompts"), 0);
    struct buf ids, got, want;
    buf_init(&ids, 1 << 16);
    buf_init(&got, 1 << 20);
    buf_init(&want, 1 << 20);
    join(json_get(prompt, "ids"), "", &ids);
    const char *path = scratch("logits");
    struct outcome outcome = COMMAND(cmd_logits, NULL, "--model", STORIES, "--ids", ids.data, "--out", path);
    assert_int_equal(outcome.exit_code, 0);
    assert_int_equal(file_read(path, &got, NULL), PH_OK);
    assert_int_equal(file_read(PACK "expected/logits/stories260K-F32.f32", &want, NULL), PH_OK);
    assert_int_equal(got.len, 512 * 4);
    double distance = 0, norm = 0;
    for (size_t i = 0; i < 512; i++) {
        float x, y;
        memcpy(&x, got.data + 4 * i, 4);
        memcpy(&y, want.data + 4 * i, 4);
        distance += pow((double)x - (double)y, 2);
        norm += pow((double)y, 2);
    }
    assert_true(sqrt(distance / norm) < 1e-4);
    unlink(path);
    buf_release(&outcome.out);
    buf_release(&ids);
    buf_release(&got);
    buf_release(&want);
    arena_release(&arena);
}

/* A vector a line, of length 1; of a text more than the model reads, an error that says which. */
static void embed_prints_a_vector_a_line(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    const char *model = PACK "models/bert-mean.gguf";
    struct arena arena;
    struct outcome outcome = COMMAND(cmd_embed, "hello world\n\nhello world\r\n", "--model", model, "--json");
    assert_int_equal(outcome.exit_code, 0);
    const char *line, *first = NULL;
    size_t cursor = 0, len, lines = 0, first_len = 0;
    while (cli_next_line(outcome.out.data, outcome.out.len, &cursor, &line, &len)) {
        struct json *vector;
        double sum = 0, value;
        arena_init(&arena, 1 << 20);
        assert_int_equal(json_parse(&arena, line, len, &vector, NULL), PH_OK);
        assert_int_equal(json_count(vector), 64);
        JSON_EACH (number, vector) {
            assert_true(json_to_double(number, &value));
            sum += value * value;
        }
        assert_true(fabs(sum - 1) < 1e-5);
        arena_release(&arena);
        first_len = lines ? first_len : len;
        first = lines++ ? first : line;
    }
    assert_int_equal(lines, 3);
    assert_memory_equal(first, line, first_len); /* the third line's text is the first one's */
    buf_release(&outcome.out);
    char text[2 * 600 + 2];
    for (size_t i = 0; i < 1200; i++)
        text[i] = i % 2 ? ' ' : 'a';
    text[1200] = '\n';
    text[1201] = 0;
    outcome = COMMAND(cmd_embed, text, "--model", model);
    assert_int_equal(outcome.exit_code, 1);
    buf_release(&outcome.out);
    outcome = COMMAND(cmd_embed, text, "--model", model, "--truncate");
    assert_int_equal(outcome.exit_code, 0);
    buf_release(&outcome.out);
    outcome = COMMAND(cmd_embed, "x\n", "--model", STORIES);
    assert_int_equal(outcome.exit_code, 1);
    buf_release(&outcome.out);
}

static void perplexity_is_the_references(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct arena arena, result_arena;
    const struct json *root = reference(&arena, PACK "expected/stories.json");
    const struct json *entry = json_at(json_get(json_at(json_get(root, "models"), 0), "perplexity"), 0);
    struct buf text;
    buf_init(&text, 64 << 20);
    char path[200];
    snprintf(path, sizeof path, PACK "%s", json_text(json_get(entry, "text"), ""));
    assert_int_equal(file_read(path, &text, NULL), PH_OK);
    text.data[1500] = 0; /* a few windows say as much as fifty */
    const char *part = scratch("text");
    spill(part, text.data);
    struct outcome outcome = COMMAND(cmd_perplexity, NULL, "--model", STORIES, "--text", part, "--json");
    assert_int_equal(outcome.exit_code, 0);
    struct json *result;
    arena_init(&result_arena, 1 << 20);
    assert_int_equal(json_parse(&result_arena, outcome.out.data, outcome.out.len, &result, NULL), PH_OK);
    int64_t windows;
    double mean, want = 0;
    assert_true(json_to_int64(json_get(result, "windows"), &windows) && windows >= 2);
    assert_true(json_to_double(json_get(result, "mean_nll"), &mean));
    for (int64_t i = 0; i < windows; i++) {
        double nll;
        assert_true(json_to_double(json_at(json_get(entry, "per_window_nll"), (size_t)i), &nll));
        want += nll / (double)windows;
    }
    assert_true(fabs(mean - want) < 1e-3);
    unlink(part);
    buf_release(&outcome.out);
    buf_release(&text);
    arena_release(&result_arena);
    arena_release(&arena);
}

static void template_renders_exactly(void **state)
{
    (void)state;
    const char *path = scratch("template");
    spill(path, "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
                "{% if add_generation_prompt %}>{{ strftime_now('%Y') }}{% endif %}");
    struct outcome outcome =
        COMMAND(cmd_template, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\\u00e9\"}]}", "--template",
                path, "--bos", "<s>", "--now", "0");
    assert_int_equal(outcome.exit_code, 0);
    assert_string_equal(outcome.out.data, "<s>[user]a\xC3\xA9>1970");
    struct outcome bad = COMMAND(cmd_template, "{\"messages\":1}", "--template", path);
    assert_int_equal(bad.exit_code, CLI_EXIT_FAILURE);
    unlink(path);
    buf_release(&outcome.out);
    buf_release(&bad.out);
}

static void a_made_model_runs(void **state)
{
    (void)state;
    static const char *const types[] = {"Q4_K_M", "Q8_0", "F16"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const char *path = scratch("made.gguf");
        struct outcome made = COMMAND(cmd_bench_model, NULL, "--shape", "tiny", "--type", types[i], path);
        struct outcome said = COMMAND(cmd_complete, NULL, "--model", path, "--prompt", "w1 w2", "-n", "5",
                                      "--ignore-end", "--ids");
        struct outcome bench =
            COMMAND(cmd_bench_engine, NULL, "--model", path, "-p", "4", "-n", "2", "-r", "1", "--json");
        size_t commas = 0;
        for (const char *c = said.out.data; *c; c++)
            commas += *c == ',';
        assert_int_equal(made.exit_code + said.exit_code + bench.exit_code, 0);
        assert_int_equal(commas, 4);
        assert_non_null(strstr(bench.out.data, "\"limit_tokens_per_s\""));
        unlink(path);
        buf_release(&made.out);
        buf_release(&said.out);
        buf_release(&bench.out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(complete_says_what_the_reference_says),
        cmocka_unit_test(tokenize_and_detokenize_match_the_vectors),
        cmocka_unit_test(logits_are_the_references),
        cmocka_unit_test(embed_prints_a_vector_a_line),
        cmocka_unit_test(perplexity_is_the_references),
        cmocka_unit_test(template_renders_exactly),
        cmocka_unit_test(a_made_model_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
