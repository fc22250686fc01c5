/* Log-probabilities of OpenAI replies, in the two forms there are: chats have one object a token, completions
 * parallel arrays. Rows of alternatives may differ in length; the event's table is as wide as the longest,
 * and a row that ends before has a text that is NULL. Ids are not known on the wire: -1. */
#include <math.h>
#include <string.h>

#include "chat/openai_int.h"

static double number_or_nan(const struct json *value)
{
    double number;
    return json_to_double(value, &number) ? number : (double)NAN;
}

static struct chat_token_logprob *table(struct arena *arena, size_t rows, size_t columns)
{
    return columns && rows > SIZE_MAX / columns
               ? NULL
               : arena_calloc(arena, rows * columns, sizeof(struct chat_token_logprob));
}

/* ---- Chats */

/* The bytes are exact where they are given; the text of a part of a character is not. */
static struct chat_text token_text(struct arena *arena, const struct json *entry)
{
    const struct json *text = json_get(entry, "token"), *list = json_get(entry, "bytes");
    struct chat_text plain = {json_text(text, ""), json_is(text, JSON_STRING) ? text->u.str.len : 0};
    char *bytes = json_is(list, JSON_ARRAY) ? arena_alloc(arena, json_count(list) + 1) : NULL;
    size_t len = 0;
    if (!bytes)
        return plain;
    JSON_EACH (item, list) {
        int64_t byte;
        if (!json_to_int64(item, &byte) || byte < 0 || byte > 255)
            return plain;
        bytes[len++] = (char)(unsigned char)byte;
    }
    bytes[len] = 0;
    return (struct chat_text){bytes, len};
}

static struct chat_token_logprob chat_entry(struct arena *arena, const struct json *entry)
{
    return (struct chat_token_logprob){-1, token_text(arena, entry),
                                       number_or_nan(json_get(entry, "logprob"))};
}

static bool read_chat(struct arena *arena, const struct json *content, struct chat_event *out)
{
    size_t count = json_count(content), width = 0, row = 0;
    JSON_EACH (entry, content) {
        size_t tops = json_count(json_get(entry, "top_logprobs"));
        width = tops > width ? tops : width;
    }
    width = width < ENGINE_LOGPROBS_MAX + 1 ? width : ENGINE_LOGPROBS_MAX + 1;
    struct chat_token_logprob *tokens = table(arena, count, 1), *top = table(arena, count, width);
    if (!tokens || !top)
        return false;
    JSON_EACH (entry, content) {
        size_t column = 0;
        tokens[row] = chat_entry(arena, entry);
        JSON_EACH (other, json_get(entry, "top_logprobs")) {
            if (column < width)
                top[row * width + column++] = chat_entry(arena, other);
        }
        row++;
    }
    *out = (struct chat_event){
        .logprobs = tokens, .logprob_count = count, .top = width ? top : NULL, .top_count = width};
    return true;
}

/* ---- Completions */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "bytes:\xe2\x82" is how a token that is no text is spelt. */
static struct chat_text spelt_text(struct arena *arena, const char *text, size_t len)
{
    struct chat_text plain = {text, len};
    if (len < 10 || (len - 6) % 4 != 0 || memcmp(text, "bytes:", 6) != 0)
        return plain;
    size_t count = (len - 6) / 4;
    char *bytes = arena_alloc(arena, count + 1);
    for (size_t i = 0; i < count && bytes; i++) {
        const char *at = text + 6 + 4 * i;
        int high = hex_digit(at[2]), low = hex_digit(at[3]);
        if (at[0] != '\\' || at[1] != 'x' || high < 0 || low < 0)
            return plain;
        bytes[i] = (char)(unsigned char)(high * 16 + low);
    }
    if (!bytes)
        return plain;
    bytes[count] = 0;
    return (struct chat_text){bytes, count};
}

static bool read_completion(struct arena *arena, const struct json *logprobs, struct chat_event *out)
{
    const struct json *names = json_get(logprobs, "tokens");
    const struct json *value = json_first(json_get(logprobs, "token_logprobs"));
    const struct json *others = json_get(logprobs, "top_logprobs"), *other = json_first(others);
    size_t count = json_count(names), width = 0, row = 0;
    JSON_EACH (item, others)
        width = json_count(item) > width ? json_count(item) : width;
    width = width < ENGINE_LOGPROBS_MAX + 1 ? width : ENGINE_LOGPROBS_MAX + 1;
    struct chat_token_logprob *tokens = table(arena, count, 1), *top = table(arena, count, width);
    if (!tokens || !top)
        return false;
    JSON_EACH (name, names) {
        size_t column = 0, len = json_is(name, JSON_STRING) ? name->u.str.len : 0;
        tokens[row] = (struct chat_token_logprob){-1, spelt_text(arena, json_text(name, ""), len),
                                                  number_or_nan(value)};
        JSON_EACH (item, other) {
            if (column < width)
                top[row * width + column++] = (struct chat_token_logprob){
                    -1, spelt_text(arena, item->key ? item->key : "", item->key_len), number_or_nan(item)};
        }
        value = value ? value->next : NULL;
        other = other ? other->next : NULL;
        row++;
    }
    *out = (struct chat_event){
        .logprobs = tokens, .logprob_count = count, .top = width ? top : NULL, .top_count = width};
    return true;
}

bool openai_read_logprobs(struct arena *arena, const struct json *logprobs, struct chat_event *out)
{
    const struct json *content = json_get(logprobs, "content");
    *out = (struct chat_event){0};
    if (json_count(content))
        return read_chat(arena, content, out);
    if (json_count(json_get(logprobs, "tokens")))
        return read_completion(arena, logprobs, out);
    return true;
}
