#include "chat/chat_int.h"
#include "test_support.h"

/* Bodies as providers send them. */
static const struct {
    int status;
    const char *body;
    enum chat_cause cause;
    int answer;
    const char *code;
} refusals[] = {
    {401,
     "{\"error\":{\"message\":\"Incorrect API key provided: "
     "sk-abc***xyz.\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"invalid_api_key\"}}",
     CHAT_CAUSE_KEY, 502, "provider_key_refused"},
    {402,
     "{\"error\":{\"message\":\"Insufficient "
     "Balance\",\"type\":\"unknown_error\",\"param\":null,\"code\":\"invalid_request_error\"}}",
     CHAT_CAUSE_KEY, 502, NULL},
    {403,
     "{\"error\":{\"message\":\"Country, region, or territory not "
     "supported\",\"code\":\"unsupported_country_region_territory\"}}",
     CHAT_CAUSE_KEY, 502, NULL},
    {403,
     "{\"error\":{\"message\":\"Project `proj_1` does not have access to model "
     "`gpt-4o`\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"model_not_found\"}}",
     CHAT_CAUSE_NO_MODEL, 404, "model_not_found"},
    {403,
     "{\"error\":{\"code\":403,\"message\":\"openai/gpt-4 requires moderation on OpenRouter. Your input was "
     "flagged for \\\"violence\\\".\",\"metadata\":{\"reasons\":[\"violence\"]}}}",
     CHAT_CAUSE_REFUSED, 400, "content_filter"},
    {400,
     "{\"code\":\"Client specified an invalid argument\",\"error\":\"Incorrect API key provided: xa***ey.\"}",
     CHAT_CAUSE_KEY, 502, NULL},
    {400,
     "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"Your credit balance is "
     "too low to access the Anthropic API.\"}}",
     CHAT_CAUSE_KEY, 502, NULL},
    {404,
     "{\"error\":{\"message\":\"The model `gpt-9` does not exist or you do not have access to "
     "it.\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"model_not_found\"}}",
     CHAT_CAUSE_NO_MODEL, 404, "model_not_found"},
    {404, "{\"error\":{\"message\":\"No endpoints found that support image input\",\"code\":404}}",
     CHAT_CAUSE_UNABLE, 400, NULL},
    {404,
     "{\"object\":\"error\",\"message\":\"The model `x` does not "
     "exist.\",\"type\":\"NotFoundError\",\"param\":null,\"code\":404}",
     CHAT_CAUSE_NO_MODEL, 404, "model_not_found"},
    {400,
     "{\"error\":{\"message\":\"Model Not "
     "Exist\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"invalid_request_error\"}}",
     CHAT_CAUSE_NO_MODEL, 404, NULL},
    {408, "", CHAT_CAUSE_SERVER, 502, NULL},
    {409, "{}", CHAT_CAUSE_SERVER, 502, NULL},
    {429,
     "{\"error\":{\"message\":\"Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used "
     "29000, Requested 3000. Please try again in "
     "4s.\",\"type\":\"tokens\",\"param\":null,\"code\":\"rate_limit_exceeded\"}}",
     CHAT_CAUSE_RATE, 429, "rate_limit_exceeded"},
    {429,
     "{\"error\":{\"message\":\"You exceeded your current quota, please check your plan and billing "
     "details.\",\"type\":\"insufficient_quota\",\"param\":null,\"code\":\"insufficient_quota\"}}",
     CHAT_CAUSE_KEY, 502, NULL},
    {429,
     "{\"error\":{\"code\":429,\"message\":\"You exceeded your current quota, please check your plan and "
     "billing details.\",\"status\":\"RESOURCE_EXHAUSTED\"}}",
     CHAT_CAUSE_RATE, 429, NULL},
    {429,
     "{\"error\":{\"message\":\"Request too large for gpt-4o in organization org-1 on tokens per min (TPM): "
     "Limit 30000, Requested 50000.\",\"type\":\"tokens\",\"code\":\"rate_limit_exceeded\"}}",
     CHAT_CAUSE_CONTEXT, 400, "context_length_exceeded"},
    {413, "<html><head><title>413 Request Entity Too Large</title></head></html>", CHAT_CAUSE_CONTEXT, 400,
     "context_length_exceeded"},
    {400,
     "{\"error\":{\"message\":\"This model's maximum context length is 4097 tokens. However, your messages "
     "resulted in 6988 "
     "tokens.\",\"type\":\"invalid_request_error\",\"param\":\"messages\",\"code\":\"context_length_"
     "exceeded\"}}",
     CHAT_CAUSE_CONTEXT, 400, "context_length_exceeded"},
    {400,
     "{\"object\":\"error\",\"message\":\"This model's maximum context length is 4096 tokens. However, you "
     "requested 6379 tokens (6029 in the messages, 350 in the "
     "completion).\",\"type\":\"BadRequestError\",\"param\":null,\"code\":400}",
     CHAT_CAUSE_CONTEXT, 400, NULL},
    {400,
     "{\"error\":{\"message\":\"You passed 1015 input tokens and requested 10 output tokens. However, the "
     "model's context length is only 1024 "
     "tokens.\",\"type\":\"BadRequestError\",\"param\":\"input_tokens\",\"code\":400}}",
     CHAT_CAUSE_CONTEXT, 400, NULL},
    {400,
     "{\"error\":{\"code\":400,\"message\":\"request (100 tokens) exceeds the available context size (64 "
     "tokens), try increasing "
     "it\",\"type\":\"exceed_context_size_error\",\"n_prompt_tokens\":100,\"n_ctx\":64}}",
     CHAT_CAUSE_CONTEXT, 400, NULL},
    {500,
     "{\"error\":{\"code\":500,\"message\":\"Context size has been exceeded.\",\"type\":\"server_error\"}}",
     CHAT_CAUSE_CONTEXT, 400, NULL},
    {422,
     "{\"error\":\"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 "
     "`inputs` tokens\",\"error_type\":\"validation\"}",
     CHAT_CAUSE_CONTEXT, 400, NULL},
    {400,
     "{\"id\":\"x\",\"error\":{\"message\":\"The input (170071 tokens) is longer than the model's context "
     "length (131072 tokens).\",\"type\":\"invalid_request_error\"}}",
     CHAT_CAUSE_CONTEXT, 400, NULL},
    {400,
     "{\"error\":{\"message\":\"Provider returned "
     "error\",\"code\":400,\"metadata\":{\"raw\":\"{\\\"error\\\":{\\\"message\\\":\\\"prompt is too long: "
     "213462 tokens > 200000 maximum\\\"}}\",\"provider_name\":\"Anthropic\"}}}",
     CHAT_CAUSE_CONTEXT, 400, NULL},
    {400,
     "{\"error\":{\"message\":\"This endpoint's maximum context length is 163840 tokens. However, you "
     "requested about 270231 tokens\",\"code\":400,\"metadata\":{\"provider_name\":null}}}",
     CHAT_CAUSE_CONTEXT, 400, NULL},
    {400,
     "{\"error\":\"The number of tokens to keep from the initial prompt is greater than the context "
     "length.\"}",
     CHAT_CAUSE_CONTEXT, 400, NULL},
    {400,
     "{\"error\":{\"message\":\"The response was filtered due to the prompt triggering Azure OpenAI's "
     "content management "
     "policy.\",\"type\":null,\"param\":\"prompt\",\"code\":\"content_filter\",\"status\":400}}",
     CHAT_CAUSE_REFUSED, 400, "content_filter"},
    {400,
     "{\"error\":{\"message\":\"Content Exists "
     "Risk\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"invalid_request_error\"}}",
     CHAT_CAUSE_REFUSED, 400, NULL},
    {400,
     "{\"error\":{\"message\":\"x is not a multimodal "
     "model\",\"type\":\"BadRequestError\",\"param\":null,\"code\":400}}",
     CHAT_CAUSE_UNABLE, 400, NULL},
    {422,
     "Failed to deserialize the JSON body into the target type: messages[0]: unknown variant `image_url`, "
     "expected `text` at line 1",
     CHAT_CAUSE_UNABLE, 400, NULL},
    {400,
     "{\"object\":\"error\",\"message\":\"\\\"auto\\\" tool choice requires --enable-auto-tool-choice and "
     "--tool-call-parser to be set\",\"type\":\"BadRequestError\",\"param\":null,\"code\":400}",
     CHAT_CAUSE_UNABLE, 400, NULL},
    {400,
     "{\"error\":{\"message\":\"Unsupported parameter: 'max_tokens' is not supported with this model. Use "
     "'max_completion_tokens' "
     "instead.\",\"type\":\"invalid_request_error\",\"param\":\"max_tokens\",\"code\":\"unsupported_"
     "parameter\"}}",
     CHAT_CAUSE_UNABLE, 400, "unsupported_parameter"},
    {400,
     "{\"error\":{\"message\":\"Invalid type for 'temperature': expected a decimal, but got a string "
     "instead.\",\"type\":\"invalid_request_error\",\"param\":\"temperature\",\"code\":\"invalid_type\"}}",
     CHAT_CAUSE_REQUEST, 400, "invalid_type"},
    {422, "{\"detail\":[{\"type\":\"missing\",\"loc\":[\"body\",\"messages\"],\"msg\":\"Field required\"}]}",
     CHAT_CAUSE_REQUEST, 422, NULL},
    {500, "{\"error\":{\"message\":\"The server had an error\",\"type\":\"server_error\"}}",
     CHAT_CAUSE_SERVER, 502, "provider_error"},
    {502, "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>",
     CHAT_CAUSE_SERVER, 502, NULL},
    {503, "upstream connect error or disconnect/reset before headers", CHAT_CAUSE_OVERLOADED, 503,
     "provider_overloaded"},
    {529, "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}",
     CHAT_CAUSE_OVERLOADED, 503, NULL},
    {500,
     "{\"error\":{\"message\":\"The engine is currently overloaded, please try again "
     "later\",\"type\":\"server_error\"}}",
     CHAT_CAUSE_OVERLOADED, 503, NULL},
    {302, "", CHAT_CAUSE_SERVER, 502, NULL},
    /* With status 200, or in mid-stream. */
    {200, "{\"error\":{\"message\":\"Overloaded\",\"type\":\"overloaded_error\"}}", CHAT_CAUSE_OVERLOADED,
     503, NULL},
    {200, "{\"error\":{\"code\":502,\"message\":\"Provider disconnected\"}}", CHAT_CAUSE_SERVER, 502, NULL},
    {200, "{\"error\":{\"code\":\"429\",\"message\":\"slow down\"}}", CHAT_CAUSE_RATE, 429, NULL},
    {200, "{\"error\":\"model runner has stopped\"}", CHAT_CAUSE_SERVER, 502, NULL},
    {200, "{\"object\":\"error\",\"message\":\"prompt is too long\",\"code\":40303}", CHAT_CAUSE_CONTEXT, 400,
     NULL},
    {200, "{\"detail\":\"Not authenticated\"}", CHAT_CAUSE_SERVER, 502, NULL},
    {200,
     "[{\"error\":{\"code\":400,\"message\":\"API key not valid. Please pass a valid API "
     "key.\",\"status\":\"INVALID_ARGUMENT\"}}]",
     CHAT_CAUSE_KEY, 502, NULL},
    {200, "{\"errors\":[{\"message\":\"Too many\",\"code\":429}]}", CHAT_CAUSE_RATE, 429, NULL},
};

static void refusals_have_their_cause(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct arena arena;
        struct chat_fault fault;
        arena_init(&arena, 1 << 20);
        upstream_fault_of_body(&arena, refusals[i].status, refusals[i].body, strlen(refusals[i].body),
                               &fault);
        if (fault.cause != refusals[i].cause || fault.http_status != refusals[i].answer)
            fail_msg("%d %s: %s, answered %d: %s", refusals[i].status, refusals[i].body,
                     chat_cause_name(fault.cause), fault.http_status, fault.message);
        if (refusals[i].code)
            assert_string_equal(fault.code, refusals[i].code);
        assert_true(*fault.message);
        assert_null(strstr(fault.message, "sk-"));
        assert_null(strstr(fault.message, "<h"));
        arena_release(&arena);
    }
}

static void messages_say_what_the_provider_said(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *body, *message;
    } cases[] = {
        {502, "<html>\n<head><TITLE>502 Bad Gateway</title>",
         "the provider answered with status 502 and a web page: 502 Bad Gateway"},
        {500, "<html>", "the provider answered with status 500 and a web page"},
        {500, "", "the provider answered with status 500 and no message"},
        {500, "{\"x\":1}", "the provider answered with status 500 and no message"},
        {500, "  out of\r\nmemory", "out of  memory"},
        {400, "{\"error\":{\"message\":\"Provider returned error\",\"metadata\":{\"raw\":\"bad thing\"}}}",
         "Provider returned error: bad thing"},
        {422, "{\"detail\":[{\"msg\":\"Field required\"}]}", "Field required"},
        {401, "{\"error\":{\"message\":\"Incorrect API key provided: sk-proj-1234***5678.\"}}",
         "Incorrect API key provided: [key]."},
        {400, "{\"code\":\"x\",\"error\":\"Incorrect API key provided: xa***ey. Look\"}",
         "Incorrect API key provided: [key]. Look"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena arena;
        struct chat_fault fault;
        arena_init(&arena, 1 << 20);
        upstream_fault_of_body(&arena, cases[i].status, cases[i].body, strlen(cases[i].body), &fault);
        assert_string_equal(fault.message, cases[i].message);
        arena_release(&arena);
    }
}

static void rate_limits_say_when(void **state)
{
    (void)state;
    static const struct {
        const char *message;
        uint32_t seconds;
    } cases[] = {{"Please try again in 4s.", 4},
                 {"Please try again in 350ms.", 1},
                 {"try again in 6.208s. Visit", 7},
                 {"Try again in 1m26.4s", 87},
                 {"try again in 2h1m", 7260},
                 {"try again in a moment", 0},
                 {"try again in 99999999999999h", 86400},
                 {"try again in ", 0},
                 {"try again in 1e30ms", 86400},
                 {"slow down", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct chat_fault fault;
        struct upstream_error error = {.message = cases[i].message};
        upstream_fault(NULL, 429, &error, &fault);
        assert_int_equal(fault.retry_after_s, cases[i].seconds);
    }
}

static void replies_are_no_errors(void **state)
{
    (void)state;
    static const char *const replies[] = {"{\"choices\":[],\"error\":null}",
                                          "{\"choices\":[{}],\"detail\":\"x\"}",
                                          "{\"id\":\"x\",\"error\":\"\"}",
                                          "{\"object\":\"list\",\"data\":[]}",
                                          "[]",
                                          "\"error\"",
                                          "{\"type\":\"message\",\"content\":[]}"};
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++) {
        struct arena arena;
        struct json *value;
        struct upstream_error error;
        arena_init(&arena, 1 << 20);
        assert_int_equal(json_parse(&arena, replies[i], strlen(replies[i]), &value, NULL), PH_OK);
        assert_false(upstream_error_read(&arena, value, &error));
        arena_release(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals_have_their_cause),
        cmocka_unit_test(messages_say_what_the_provider_said),
        cmocka_unit_test(rate_limits_say_when),
        cmocka_unit_test(replies_are_no_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
