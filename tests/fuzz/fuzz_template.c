/* Input: a template's source, then, after a 0 byte, the JSON of its variables; without one, fixed variables.
 * Checked: no crash, no leak, no overlong run, a message with every failure, valid UTF-8 with every success. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/model.h"

static int64_t fixed_now(void *ud)
{
    (void)ud;
    return 1767265445000;
}

static const char fixed_vars[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"be "
    "brief\"},{\"role\":\"user\",\"content\":\"a\\u00e9\\n\"},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c1\",\"type\":\"function\","
    "\"function\":"
    "{\"name\":\"f\",\"arguments\":{\"x\":[1,2.5,null,true,\"s\"]}}}]},{\"role\":\"tool\",\"tool_call_id\":"
    "\"c1\","
    "\"content\":\"7\"}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":"
    "\"d\","
    "\"parameters\":{\"type\":\"object\",\"properties\":{\"x\":{\"type\":\"array\"}}}}}],\"bos_token\":\"<s>"
    "\","
    "\"eos_token\":\"</"
    "s>\",\"add_generation_prompt\":true,\"n\":42,\"f\":1.5,\"l\":[3,1,2],\"d\":{\"b\":1,\"a\":[]}}";

static void require(int holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct clock_source clock = {.unix_ms = fixed_now};
    const char *text = (const char *)data;
    const char *zero = size ? memchr(text, '\0', size) : NULL;
    size_t len = zero ? (size_t)(zero - text) : size;
    struct arena arena;
    struct json *vars = NULL;
    struct chat_template *chat_template = NULL;
    struct buf out;
    struct ph_err err = {0};
    arena_init(&arena, 64 << 20);
    buf_init(&out, 64 << 20);
    enum ph_status status = zero ? json_parse(&arena, zero + 1, size - len - 1, &vars, &err)
                                 : json_parse(&arena, fixed_vars, sizeof fixed_vars - 1, &vars, &err);
    if (status == PH_OK)
        status = chat_template_create(&chat_template, text, len, &err);
    if (status == PH_OK)
        status = chat_template_render(chat_template, vars, &clock, &out, &err);
    if (status == PH_OK)
        require(out.len == 0 || utf8_valid(out.data, out.len));
    else
        require(out.len == 0 && err.message[0]);
    chat_template_free(chat_template);
    buf_release(&out);
    arena_release(&arena);
    return 0;
}
