/* Embeddings in OpenAI's shape: from the client, to the client, to a provider and back.
 *
 * OpenAI's libraries ask for base64 without telling their users, and decode whatever comes as such: a list of
 * numbers would silently become an empty vector, so the client's form is kept to. Providers are always asked
 * for base64, a quarter of the bytes and exact; engines that do not know it answer with numbers, which is
 * fine too. Base64 holds little-endian float32. */
#include <math.h>
#include <string.h>

#include "base/base64.h"
#include "chat/openai_int.h"

/* ---- From the client */

static enum ph_status decode_format(struct decoder *d, struct chat_embed_request *out)
{
    const struct json *format = json_get(d->body, "encoding_format");
    out->base64 = json_text_is(format, "base64");
    if (!json_is_absent(format) && !out->base64 && !json_text_is(format, "float"))
        return DECODE_REFUSE(d, "encoding_format", "encoding_format must be float or base64");
    return PH_OK;
}

static enum ph_status decode_dimensions(struct decoder *d, struct chat_embed_request *out)
{
    const struct json *value = json_get(d->body, "dimensions");
    int64_t dimensions = 0;
    if (json_is_absent(value))
        return PH_OK;
    if (!json_to_int64(value, &dimensions) || dimensions < 1 || dimensions > (int64_t)CHAT_EMBED_WIDTH_MAX)
        return DECODE_REFUSE(d, "dimensions", "dimensions must be an integer from 1 to %u",
                             CHAT_EMBED_WIDTH_MAX);
    out->dimensions = (size_t)dimensions;
    return PH_OK;
}

static enum ph_status decode_word(struct decoder *d, const char *name, const char **out)
{
    const struct json *value = json_get(d->body, name);
    if (!json_is_absent(value) && !json_is(value, JSON_STRING))
        return DECODE_REFUSE(d, name, "%s must be a string, not %s", name, decode_type_name(value));
    *out = json_text(value, NULL);
    return PH_OK;
}

enum ph_status chat_embed_decode(struct arena *arena, const struct json *body, struct chat_embed_request *out,
                                 struct chat_fault *fault)
{
    struct decoder d = {.arena = arena, .body = body, .fault = fault};
    *out = (struct chat_embed_request){.arena = arena, .raw = body};
    if (!json_is(body, JSON_OBJECT))
        return DECODE_REFUSE(&d, NULL, "the body must be a JSON object, not %s", decode_type_name(body));
    enum ph_status status = decode_word(&d, "model", &out->model);
    if (status == PH_OK)
        status = decode_word(&d, "user", &out->user);
    if (status == PH_OK)
        status = decode_format(&d, out);
    if (status == PH_OK)
        status = decode_dimensions(&d, out);
    if (status == PH_OK)
        status = openai_decode_prompts(&d, "input", CHAT_EMBED_INPUTS_MAX, &out->inputs, &out->input_count);
    return status;
}

/* ---- To the client */

static void write_base64(struct buf *out, const float *values, size_t width)
{
    unsigned char bytes[4 * 192]; /* a multiple of 3, so that no padding falls between pieces */
    for (size_t at = 0; at < width;) {
        size_t count = 0;
        for (; count < sizeof bytes / 4 && at < width; count++, at++) {
            uint32_t word;
            memcpy(&word, &values[at], sizeof word);
            for (size_t b = 0; b < 4; b++)
                bytes[4 * count + b] = (unsigned char)(word >> (8 * b));
        }
        base64_write(out, bytes, 4 * count);
    }
}

/* Nine digits tell every float32 from its neighbours. */
static void write_numbers(struct buf *out, const float *values, size_t width)
{
    for (size_t i = 0; i < width; i++) {
        if (i)
            buf_putc(out, ',');
        if (isfinite(values[i]))
            buf_printf(out, "%.9g", (double)values[i]);
        else
            buf_puts(out, "null");
    }
}

void chat_embed_encode(const struct chat_embed_request *request, const char *model,
                       const struct chat_embeddings *embeddings, struct buf *out)
{
    unsigned long long tokens = embeddings->prompt_tokens;
    buf_puts(out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < embeddings->count; i++) {
        const float *values = embeddings->values + i * embeddings->width;
        buf_printf(out, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":%s", i ? "," : "", i,
                   request->base64 ? "\"" : "[");
        if (request->base64)
            write_base64(out, values, embeddings->width);
        else
            write_numbers(out, values, embeddings->width);
        buf_puts(out, request->base64 ? "\"}" : "]}");
    }
    buf_puts(out, "],\"model\":");
    json_write_string(out, model, strlen(model));
    buf_printf(out, ",\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}}", tokens, tokens);
}

/* ---- To a provider */

enum ph_status chat_embed_post(struct arena *arena, const struct chat_embed_request *request,
                               const struct chat_target *target, struct chat_post *out,
                               struct chat_fault *fault)
{
    struct json *inputs = NULL;
    bool came = json_is(request->raw, JSON_OBJECT);
    struct json *body = came ? json_share(arena, request->raw) : json_new(arena, JSON_OBJECT);
    enum ph_status status = openai_prompt_list(arena, request->inputs, request->input_count, &inputs);
    bool ok = status == PH_OK &&
              json_set(arena, body, "model", json_new_string(arena, target->model, strlen(target->model))) &&
              json_set(arena, body, "input", inputs) &&
              json_set(arena, body, "encoding_format", json_new_string(arena, "base64", 6));
    if (ok && request->dimensions)
        ok = json_set(arena, body, "dimensions", json_new_int(arena, (int64_t)request->dimensions));
    if (ok)
        ok = openai_post(arena, target, "/embeddings", body, "application/json", out) == PH_OK;
    if (!ok) {
        chat_fault_set(fault, 503, NULL, NULL, "the request for the provider needs too much memory");
        return PH_ERR_NOMEM;
    }
    openai_post_id(out, request->request_id);
    return PH_OK;
}

/* ---- And back */

static enum ph_status broken(struct chat_fault *fault, const char *what)
{
    return upstream_broken(fault, CHAT_CAUSE_SERVER, what);
}

static size_t width_of(const struct json *embedding)
{
    if (!json_is(embedding, JSON_STRING))
        return json_count(embedding);
    size_t len = embedding->u.str.len;
    while (len && embedding->u.str.text[len - 1] == '=')
        len--;
    return len * 3 / 4 / sizeof(float);
}

static bool read_base64(struct arena *arena, const struct json *embedding, float *out, size_t width)
{
    size_t len = embedding->u.str.len;
    unsigned char *bytes = arena_alloc(arena, BASE64_BYTES_MAX(len));
    if (!bytes || base64_read(embedding->u.str.text, len, bytes) != width * sizeof(float))
        return false;
    for (size_t i = 0; i < width; i++) {
        uint32_t word = 0;
        for (size_t b = 4; b-- > 0;)
            word = word << 8 | bytes[4 * i + b];
        memcpy(&out[i], &word, sizeof word);
    }
    return true;
}

static bool read_numbers(const struct json *embedding, float *out)
{
    JSON_EACH (item, embedding) {
        double value;
        if (!json_to_double(item, &value))
            return false;
        *out++ = (float)value;
    }
    return true;
}

/* Every index once, all of one width. */
static enum ph_status read_data(struct arena *arena, const struct json *data, struct chat_embeddings *out,
                                struct chat_fault *fault)
{
    size_t count = json_count(data), position = 0;
    size_t width = width_of(json_get(json_first(data), "embedding"));
    if (width == 0 || width > CHAT_EMBED_WIDTH_MAX || count > CHAT_EMBED_INPUTS_MAX)
        return broken(fault, "the provider's reply has no embeddings");
    float *values = arena_calloc(arena, count * width, sizeof *values);
    bool *seen = arena_calloc(arena, count, sizeof *seen);
    if (!values || !seen)
        return broken(fault, "the provider's embeddings need too much memory");
    JSON_EACH (item, data) {
        const struct json *embedding = json_get(item, "embedding");
        int64_t index = (int64_t)position++;
        (void)json_to_int64(json_get(item, "index"), &index);
        if (index < 0 || (uint64_t)index >= count || seen[index] || width_of(embedding) != width)
            return broken(fault, "the provider's embeddings differ in width, or one is missing");
        float *place = values + (size_t)index * width;
        seen[index] = true;
        if (!(json_is(embedding, JSON_STRING) ? read_base64(arena, embedding, place, width)
                                              : read_numbers(embedding, place)))
            return broken(fault, "an embedding of the provider is neither numbers nor base64");
    }
    *out = (struct chat_embeddings){.count = count, .width = width, .values = values};
    return PH_OK;
}

enum ph_status chat_embed_read(struct arena *arena, const char *body, size_t len, struct chat_embeddings *out,
                               struct chat_fault *fault)
{
    struct json *document;
    struct upstream_error error;
    int64_t tokens = 0;
    *out = (struct chat_embeddings){0};
    if (json_parse(arena, body, len, &document, NULL) != PH_OK)
        return broken(fault, "the provider's reply is not JSON");
    if (upstream_error_read(arena, document, &error)) {
        upstream_fault(arena, 200, &error, fault);
        return PH_ERR_FORMAT;
    }
    enum ph_status status = read_data(arena, json_get(document, "data"), out, fault);
    const struct json *usage = json_get(document, "usage");
    if (json_to_int64(json_get(usage, "prompt_tokens"), &tokens) ||
        json_to_int64(json_get(usage, "total_tokens"), &tokens))
        out->prompt_tokens = tokens > 0 ? (uint64_t)tokens : 0;
    return status;
}
