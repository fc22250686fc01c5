/* What bench load reads from files: prompts, logs to replay, criteria. The first byte says which. What is
 * accepted is within its limits and makes a body that is JSON. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "ops/load.h"

#define ARENA_BYTES_MAX ((size_t)64 << 20)

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void check_prompt(struct arena *arena, const struct load_prompt *prompt)
{
    struct json *messages;
    require(prompt->tokens <= LOAD_TOKENS_MAX && prompt->max_tokens <= LOAD_TOKENS_MAX);
    if (prompt->messages) {
        require(prompt->text != NULL);
        require(json_parse(arena, prompt->messages, strlen(prompt->messages), &messages, NULL) == PH_OK);
        require(json_count(messages) > 0);
    }
}

static void check_criteria(const struct load_criteria *criteria)
{
    struct load_summary summary = {0};
    require(criteria->count > 0);
    for (size_t i = 0; i < criteria->count; i++) {
        const struct load_test *test = &criteria->tests[i];
        require(test->name && test->want_count > 0 && test->params.concurrency >= 1);
        require(test->params.concurrency <= LOAD_IN_FLIGHT_MAX);
        require(test->params.requests || test->params.duration_s > 0);
        for (size_t w = 0; w < test->want_count; w++) {
            struct buf words;
            require(isfinite(test->wants[w].limit));
            struct load_verdict verdict = load_judge(test->name, &test->wants[w], &summary);
            buf_init(&words, 4096);
            load_put_verdict(&verdict, &words);
            require(words.len > 0);
            buf_release(&words);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct ph_err err = {.code = PH_OK};
    struct load_prompt prompt;
    struct load_arrival arrival;
    struct load_criteria criteria;
    struct load_slo slo;
    if (!size)
        return 0;
    arena_init(&arena, ARENA_BYTES_MAX);
    char *text = arena_strndup(&arena, (const char *)data + 1, size - 1);
    require(text != NULL);
    switch (data[0] % 4) {
    case 0:
        if (load_prompt_parse(&arena, text, size - 1, &prompt, &err) == PH_OK) {
            require(prompt.text != NULL);
            check_prompt(&arena, &prompt);
        }
        break;
    case 1:
        if (load_replay_parse(&arena, text, size - 1, &arrival, &err) == PH_OK)
            check_prompt(&arena, &arrival.prompt);
        break;
    case 2:
        if (load_criteria_parse(&arena, "fuzz", text, size - 1, &criteria, &err) == PH_OK)
            check_criteria(&criteria);
        break;
    default:
        if (load_slo_parse(text, &slo, &err) == PH_OK)
            require(slo.ttft_s > 0 || slo.tpot_s > 0 || slo.e2e_s > 0);
    }
    require(err.code == PH_OK || err.message[0]);
    arena_release(&arena);
    return 0;
}
