/* The forward pass against llama.cpp's numbers: every model of the conformance pack. */
#include "base/file.h"
#include "forward_support.h"

struct tolerance {
    double logits;  /* relative L2 */
    double margin;  /* a greedy id is clear when the second best is that far away */
    double logprob; /* absolute */
};

static struct tolerance tolerance_of(const char *id)
{
    if (strncmp(id, "gemma", 5) == 0)
        return (struct tolerance){2e-3, 1e-2, 5e-3};
    if (strstr(id, "BF16"))
        return (struct tolerance){1.5e-2, 0.1, 0.1};
    if (strstr(id, "F16"))
        return (struct tolerance){2e-3, 2e-2, 1e-2};
    if (strncmp(id, "base-", 5) == 0 && !strstr(id, "F32"))
        return (struct tolerance){5e-2, 0.4, 0.4};
    return (struct tolerance){1e-4, 1e-3, 1e-3};
}

/* Feeds the recorded greedy ids. Where the reference was clear about the best id we must name the same; the
 * log probability of the recorded id must be near everywhere. Returns how many ids were clear. */
static size_t follow_greedy(struct session *s, const struct json *prompt, const struct tolerance *tol,
                            size_t steps_max, const char *id)
{
    const struct json *margin = json_first(json_get(prompt, "greedy_margin"));
    const struct json *logprob = json_first(json_get(prompt, "greedy_logprob"));
    size_t clear = 0, index = 0;
    JSON_EACH (step, json_get(prompt, "greedy")) {
        double by = 0, want_logprob = 0;
        if (index == steps_max)
            break;
        int64_t want = -1;
        assert_true(json_to_int64(step, &want) && json_to_double(margin, &by) &&
                    json_to_double(logprob, &want_logprob));
        int32_t got = argmax(s->logits, s->n_vocab), next = (int32_t)want;
        if (by >= tol->margin && got != next)
            fail_msg("%s: greedy step %zu is %d, not %d", id, index, got, next);
        clear += by >= tol->margin;
        double difference = fabs((double)logits_logprob(s->logits, s->n_vocab, next, NULL, 0) - want_logprob);
        if (!(difference <= tol->logprob))
            fail_msg("%s: greedy step %zu: log probability differs by %.3g", id, index, difference);
        session_feed(s, &next, 1, 1, PHASE_DECODE, NULL);
        margin = margin->next;
        logprob = logprob->next;
        index++;
    }
    assert_true(index > 0);
    return clear;
}

static void check_model(const struct json *entry, struct arena *arena)
{
    const char *id = json_text(json_get(entry, "id"), "?");
    const char *lora = json_text(json_get(entry, "lora"), NULL);
    struct tolerance tol = tolerance_of(id);
    double scale = 1, worst = 0;
    size_t index = 0, steps = 0;
    json_to_double(json_get(entry, "lora_scale"), &scale);
    struct session s;
    session_open(&s, &(struct session_params){
                         .path = conformance_path(arena, json_text(json_get(entry, "model"), "")),
                         .lora = lora ? conformance_path(arena, lora) : NULL,
                         .lora_scale = (float)scale,
                     });
    const float *want = conformance_floats(arena, json_text(json_get(entry, "logits"), ""), 4 * s.n_vocab);
    JSON_EACH (prompt, json_get(entry, "prompts")) {
        int32_t ids[512];
        size_t count = json_ids(json_get(prompt, "ids"), ids, 512);
        session_restart(&s);
        session_feed(&s, ids, count, 512, PHASE_PREFILL, NULL);
        double distance = rel_l2(s.logits, want + index * s.n_vocab, s.n_vocab);
        if (!(distance <= tol.logits))
            fail_msg("%s: prompt of %zu tokens: relative L2 %.3g, allowed %.3g", id, count, distance,
                     tol.logits);
        worst = distance > worst ? distance : worst;
        steps += follow_greedy(&s, prompt, &tol, SIZE_MAX, id);
        index++;
    }
    assert_int_equal(index, 4);
    print_message("%-24s relative L2 %.2e (allowed %.0e), %zu clear greedy ids\n", id, worst, tol.logits,
                  steps);
    session_close(&s);
}

static void models_answer_as_recorded(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct arena arena;
    arena_init(&arena, 1u << 30);
    struct json *root = conformance_json(&arena, "expected/models.json");
    size_t count = 0;
    JSON_EACH (entry, json_get(root, "models")) {
        check_model(entry, &arena);
        count++;
    }
    assert_true(count >= 34);
    arena_release(&arena);
}

static void every_position_answers_as_recorded(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct arena arena;
    arena_init(&arena, 1u << 30);
    const struct json *entry =
        json_at(json_get(conformance_json(&arena, "expected/models.json"), "models"), 0);
    const struct json *all = json_get(entry, "logits_all_positions");
    const struct json *prompt = json_at(json_get(entry, "prompts"), 2);
    int32_t ids[512];
    size_t count = json_ids(json_get(prompt, "ids"), ids, 512);
    struct session s;
    session_open(&s, &(struct session_params){
                         .path = conformance_path(&arena, json_text(json_get(entry, "model"), ""))});
    const float *want = conformance_floats(&arena, json_text(json_get(all, "file"), ""), count * s.n_vocab);
    float *got = arena_alloc(&arena, count * s.n_vocab * sizeof *got);
    session_feed(&s, ids, count, 512, PHASE_PREFILL, got);
    for (size_t i = 0; i < count; i++)
        if (!(rel_l2(got + i * s.n_vocab, want + i * s.n_vocab, s.n_vocab) <= 1e-4))
            fail_msg("position %zu differs", i);
    session_close(&s);
    arena_release(&arena);
}

/* ---- Trained models: stories.json. STORIES_FULL=1 runs all of it, which takes minutes. */
static bool full_length(void)
{
    return getenv("STORIES_FULL") != NULL;
}

static void check_story_prompt(struct session *s, const struct json *prompt, const float *want,
                               const char *id)
{
    struct tolerance tol = strstr(id, "Q8_0")  ? (struct tolerance){5e-2, 0.4, 0.4}
                           : strstr(id, "F16") ? (struct tolerance){2e-3, 2e-2, 2e-2}
                                               : (struct tolerance){1e-4, 1e-3, 2e-3};
    int32_t ids[512];
    size_t count = json_ids(json_get(prompt, "ids"), ids, 512), rank = 0;
    struct candidate top[5];
    session_restart(s);
    session_feed(s, ids, count, 512, PHASE_PREFILL, NULL);
    if (!(rel_l2(s->logits, want, s->n_vocab) <= tol.logits))
        fail_msg("%s: relative L2 %.3g", id, rel_l2(s->logits, want, s->n_vocab));
    logits_logprob(s->logits, s->n_vocab, 0, top, 5);
    JSON_EACH (pair, json_get(prompt, "top5")) {
        double logprob = 0;
        assert_true(json_to_double(json_at(pair, 1), &logprob));
        assert_true(fabs((double)top[rank++].p - logprob) <= tol.logprob);
    }
    follow_greedy(s, prompt, &tol, full_length() ? SIZE_MAX : 32, id);
}

static double window_nll(struct session *s, const int32_t *window, size_t count, float *all)
{
    double sum = 0;
    session_restart(s);
    session_feed(s, window, count, 512, PHASE_PREFILL, all);
    for (size_t i = 0; i + 1 < count; i++)
        sum -= (double)logits_logprob(all + i * s->n_vocab, s->n_vocab, window[i + 1], NULL, 0);
    return sum / (double)(count - 1);
}

#define WINDOW 255

static void check_perplexity(struct session *s, const struct json *entry, const char *id, struct arena *arena)
{
    double tolerance = strstr(id, "Q8_0") ? 0.02 : strstr(id, "F16") ? 0.002 : 0.001, total = 0, wanted = 0;
    const char *name = json_text(json_get(entry, "text"), "");
    size_t windows_max = full_length() ? SIZE_MAX : 1, window = 0;
    int32_t ids[WINDOW + 1] = {vocab_info(model_vocab(s->model))->bos};
    float *all = arena_alloc(arena, (WINDOW + 1) * s->n_vocab * sizeof *all);
    struct token_list tokens = {0};
    struct buf text;
    struct ph_err err = {0};
    buf_init(&text, 16u << 20);
    if (file_read(conformance_path(arena, name), &text, &err) != PH_OK ||
        vocab_tokenize(model_vocab(s->model), text.data, text.len, false, false, &tokens, &err) != PH_OK)
        fail_msg("%s", err.message);
    JSON_EACH (recorded, json_get(entry, "per_window_nll")) {
        double want = 0;
        if (window == windows_max)
            break;
        assert_true((window + 1) * WINDOW <= tokens.len && json_to_double(recorded, &want));
        memcpy(ids + 1, tokens.ids + window * WINDOW, WINDOW * sizeof *ids);
        double got = window_nll(s, ids, WINDOW + 1, all);
        /* one window may stray further than the mean of all */
        if (!(fabs(got - want) <= 4 * tolerance))
            fail_msg("%s: %s window %zu: %.5f nats, recorded %.5f", id, name, window, got, want);
        total += got;
        wanted += want;
        window++;
    }
    assert_true(window > 0 && fabs(total - wanted) / (double)window <= tolerance);
    print_message("%-16s %-24s %3zu windows: %.6f nats, recorded %.6f\n", id, name, window,
                  total / (double)window, wanted / (double)window);
    token_list_release(&tokens);
    buf_release(&text);
}

static void stories_are_told_as_recorded(void **state)
{
    (void)state;
    REQUIRE_SHARED();
    struct arena arena;
    arena_init(&arena, 1u << 30);
    JSON_EACH (entry, json_get(conformance_json(&arena, "expected/stories.json"), "models")) {
        const char *id = json_text(json_get(entry, "id"), "?");
        size_t index = 0, prompts = json_count(json_get(entry, "prompts"));
        struct session s;
        session_open(&s, &(struct session_params){
                             .path = conformance_path(&arena, json_text(json_get(entry, "model"), ""))});
        float *want =
            conformance_floats(&arena, json_text(json_get(entry, "logits"), ""), prompts * s.n_vocab);
        JSON_EACH (prompt, json_get(entry, "prompts"))
            check_story_prompt(&s, prompt, want + index++ * s.n_vocab, id);
        JSON_EACH (text, json_get(entry, "perplexity"))
            check_perplexity(&s, text, id, &arena);
        session_close(&s);
    }
    arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_answer_as_recorded),
        cmocka_unit_test(every_position_answers_as_recorded),
        cmocka_unit_test(stories_are_told_as_recorded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
