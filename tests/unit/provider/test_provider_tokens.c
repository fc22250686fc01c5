/* Estimates of tokens, and what providers say about coming again. */
#include <math.h>

#include "provider/provider_account_int.h"
#include "provider/provider_int.h"
#include "test_support.h"

/* ---- When to come again */

#define NOW_MS INT64_C(1794831743000) /* 2026-11-16T12:22:23Z */

static uint64_t hint1(const char *name, const char *value)
{
    struct http_header header = {name, value};
    return retry_hint_ms(429, &header, 1, NOW_MS);
}

static void every_way_to_say_when(void **state)
{
    (void)state;
    assert_int_equal(hint1("retry-after", "20"), 20000);
    assert_int_equal(hint1("retry-after", "0.5"), 500);
    assert_int_equal(hint1("retry-after-ms", "1500"), 1500);
    assert_int_equal(hint1("retry-after", "Mon, 16 Nov 2026 12:22:53 GMT"), 30000);
    assert_int_equal(hint1("retry-after", "Monday, 16-Nov-26 12:23:23 GMT"), 60000);
    assert_int_equal(hint1("retry-after", "Mon Nov 16 12:22:24 2026"), 1000);
    assert_int_equal(hint1("x-ratelimit-reset-requests", "1m6.5s"), 66500);
    assert_int_equal(hint1("x-ratelimit-reset-tokens", "250ms"), 250);
    assert_int_equal(hint1("x-ratelimit-reset-tokens", "1h0m1s"), 3601000);
    assert_int_equal(hint1("x-ratelimit-reset", "12"), 12000);
    assert_int_equal(hint1("x-ratelimit-reset", "1794831750"), 7000);
    assert_int_equal(hint1("x-ratelimit-reset", "1794831744500"), 1500);
    assert_int_equal(hint1("anthropic-ratelimit-tokens-reset", "2026-11-16T12:22:33Z"), 10000);
    assert_int_equal(hint1("anthropic-ratelimit-tokens-reset", "2026-11-16T14:22:33.5+02:00"), 10500);
}

static void what_is_no_time_says_nothing(void **state)
{
    (void)state;
    static const char *const values[] = {"",
                                         "soon",
                                         "-5",
                                         "1x",
                                         "5m 3",
                                         "2026-11-16",
                                         "2026-13-16T12:22:33Z",
                                         "Mon, 16 Nov 2026",
                                         "Mon, 16 Nov 2020 12:22:53 GMT",
                                         "nan",
                                         "99:99:99",
                                         "1e400000",
                                         "12:",
                                         "Nov",
                                         "16 Nov 2026 12:22"};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        assert_int_equal(hint1("retry-after", values[i]), 0);
    assert_int_equal(hint1("retry-after-ms", "never"), 0);
    assert_int_equal(hint1("x-other", "20"), 0);
    assert_int_equal(hint1("retry-after", "99999999"), UINT64_C(1000) * ACCOUNT_HINT_MAX_S);
    assert_int_equal(hint1("retry-after", "99999999999999999999999999999999"),
                     UINT64_C(1000) * ACCOUNT_HINT_MAX_S);
}

static void the_limit_that_is_used_up_counts(void **state)
{
    (void)state;
    struct http_header headers[] = {{"x-ratelimit-reset-requests", "1s"},
                                    {"x-ratelimit-remaining-requests", "59"},
                                    {"x-ratelimit-reset-tokens", "6m0s"},
                                    {"x-ratelimit-remaining-tokens", "0"},
                                    {"retry-after", "3"}};
    assert_int_equal(retry_hint_ms(429, headers, 5, NOW_MS), 3000); /* what is meant wins */
    assert_int_equal(retry_hint_ms(429, headers, 4, NOW_MS), 360000);
    assert_int_equal(retry_hint_ms(500, headers, 4, NOW_MS), 0); /* that has another reason */
    assert_int_equal(retry_hint_ms(503, headers, 5, NOW_MS), 3000);
    headers[3].value = "12";
    assert_int_equal(retry_hint_ms(429, headers, 4, NOW_MS), 1000); /* none is used up: the soonest */
}

/* ---- Estimates */

static struct chat_request request_with(struct chat_message *message, const char *text)
{
    *message = (struct chat_message){.role = CHAT_USER, .content = {text, strlen(text)}};
    return (struct chat_request){.kind = CHAT_KIND_CHAT,
                                 .messages = message,
                                 .message_count = 1,
                                 .choices = 1,
                                 .reasoning_tokens = -1};
}

static void estimates_lean_upwards_and_learn(void **state)
{
    (void)state;
    static const char text[] = "The quick brown fox jumps over the lazy dog, and then it sleeps for an hour.";
    struct chat_message message;
    struct chat_request request = request_with(&message, text);
    struct prompt_weight weight = prompt_weigh(&request);
    struct token_ratio ratio = {0};
    size_t unlearned = prompt_estimate(&weight, &ratio);
    assert_in_range(unlearned, 25, 40); /* 17 words, and the template's */
    for (int i = 0; i < 40; i++)
        token_ratio_learn(&ratio, weight.text, i % 2 ? 20 : 22);
    size_t learned = prompt_estimate(&weight, &ratio);
    assert_in_range(learned, 22, unlearned); /* above all that was seen */
    assert_in_range(prompt_guess(&weight, &ratio), 20, 22);
    token_ratio_learn(&ratio, 0, 5);
    token_ratio_learn(&ratio, 5, 0);
    token_ratio_learn(&ratio, NAN, 5);
    assert_int_equal(prompt_estimate(&weight, &ratio), learned); /* nonsense teaches nothing */
}

static void other_scripts_and_media_weigh_more(void **state)
{
    (void)state;
    struct chat_message message;
    struct chat_request latin = request_with(&message, "abcdefghijkl");
    double a = prompt_weigh(&latin).text;
    struct chat_request chinese = request_with(&message, "\xe4\xbd\xa0\xe5\xa5\xbd\xe5\x90\x97\xef\xbc\x9f");
    assert_true(prompt_weigh(&chinese).text > a + 2); /* as many bytes */
    struct chat_part parts[] = {{.kind = CHAT_PART_IMAGE}, {.kind = CHAT_PART_IMAGE}};
    message.parts = parts;
    message.part_count = 2;
    assert_true(prompt_weigh(&chinese).media >= 2000);
    int32_t ids[7] = {0};
    struct chat_prompt prompt = {.ids = ids, .id_count = 7};
    struct chat_request completion = {
        .kind = CHAT_KIND_COMPLETION, .prompts = &prompt, .prompt_count = 1, .choices = 1};
    struct prompt_weight weight = prompt_weigh(&completion);
    assert_int_equal(prompt_estimate(&weight, &(struct token_ratio){0}), 7);
}

static void deltas_are_tokens_until_shown_otherwise(void **state)
{
    (void)state;
    struct token_ratio ratio = {0};
    struct delta_count count = {0};
    size_t sum = 0;
    for (int i = 0; i < 100; i++)
        sum += delta_count_add(&count, &ratio, 5, 0);
    assert_int_equal(sum, 100);
    assert_int_equal(delta_count_add(&count, &ratio, 400, 0), 100); /* no token is that long */
    assert_int_equal(delta_count_add(&count, &ratio, 5, 3), 3);     /* the codec knows */
    assert_int_equal(delta_count_add(&count, &ratio, 0, 0), 0);
    for (int i = 0; i < 10; i++)
        token_ratio_learn(&ratio, 100, 130);
    count = (struct delta_count){0};
    sum = 0;
    for (int i = 0; i < 1000; i++)
        sum += delta_count_add(&count, &ratio, 5, 0);
    assert_in_range(sum, 1299, 1301); /* fractions are not lost */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_way_to_say_when),
        cmocka_unit_test(what_is_no_time_says_nothing),
        cmocka_unit_test(the_limit_that_is_used_up_counts),
        cmocka_unit_test(estimates_lean_upwards_and_learn),
        cmocka_unit_test(other_scripts_and_media_weigh_more),
        cmocka_unit_test(deltas_are_tokens_until_shown_otherwise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
