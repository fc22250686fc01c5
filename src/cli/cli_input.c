/* What several commands read: lines, token ids, hexadecimal bytes, adapters. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "cli/cli_int.h"

const char *const cli_kv_names[] = {"f32", "f16", "q8_0", NULL};

enum tensor_type cli_kv_type(int choice)
{
    static const enum tensor_type types[] = {
        [CLI_KV_F32] = TENSOR_F32, [CLI_KV_F16] = TENSOR_F16, [CLI_KV_Q8_0] = TENSOR_Q8_0};
    return types[choice];
}

bool cli_next_line(const char *text, size_t len, size_t *cursor, const char **line, size_t *line_len)
{
    if (*cursor >= len)
        return false;
    *line = text + *cursor;
    const char *end = memchr(*line, '\n', len - *cursor);
    *line_len = end ? (size_t)(end - *line) : len - *cursor;
    *cursor += *line_len + 1;
    return true;
}

/* ---- Token ids */

static bool is_separator(char c)
{
    return c == ',' || c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

enum ph_status cli_id_append(struct token_list *list, int32_t id, struct ph_err *err)
{
    if (list->len == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 64;
        int32_t *ids = mem_realloc(list->ids, cap, sizeof *ids);
        if (!ids)
            return ph_fail(err, PH_ERR_NOMEM, "no memory for %zu token ids", cap);
        list->ids = ids;
        list->cap = cap;
    }
    list->ids[list->len++] = id;
    return PH_OK;
}

enum ph_status cli_ids_parse(const char *text, size_t len, struct token_list *out, struct ph_err *err)
{
    size_t i = 0;
    while (i < len) {
        if (is_separator(text[i])) {
            i++;
            continue;
        }
        size_t first = i;
        int64_t id = 0;
        for (; i < len && text[i] >= '0' && text[i] <= '9' && id <= INT32_MAX; i++)
            id = id * 10 + (text[i] - '0');
        if (i == first || (i < len && !is_separator(text[i])) || id > INT32_MAX)
            return ph_fail(err, PH_ERR_ARG, "\"%.*s\" is not a token id: give ids like 1,2,3",
                           (int)(len - first < 20 ? len - first : 20), text + first);
        enum ph_status status = cli_id_append(out, (int32_t)id, err);
        if (status != PH_OK)
            return status;
    }
    return PH_OK;
}

void cli_ids_write(struct buf *out, const int32_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++)
        buf_printf(out, i ? ",%d" : "%d", (int)ids[i]);
}

/* ---- Hexadecimal */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

enum ph_status cli_hex_parse(const char *text, size_t len, struct buf *out, struct ph_err *err)
{
    if (len > 0 && text[len - 1] == '\r')
        len--;
    if (len % 2 != 0)
        return ph_fail(err, PH_ERR_FORMAT, "an odd number of hexadecimal digits");
    for (size_t i = 0; i < len; i += 2) {
        int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);
        if (high < 0 || low < 0)
            return ph_fail(err, PH_ERR_FORMAT, "column %zu is not a hexadecimal digit", i + 1 + (high >= 0));
        buf_putc(out, (char)(high * 16 + low));
    }
    return buf_status(out) == PH_OK ? PH_OK : ph_fail(err, buf_status(out), "the line is too long");
}

void cli_hex_write(struct buf *out, const void *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *b = bytes;
    for (size_t i = 0; i < len; i++) {
        buf_putc(out, digits[b[i] >> 4]);
        buf_putc(out, digits[b[i] & 15]);
    }
}

/* ---- Adapters */

static enum ph_status parse_lora(struct arena *arena, const char *item, const char **path, float *scale,
                                 struct ph_err *err)
{
    const char *colon = strrchr(item, ':');
    size_t len = strlen(item);
    *scale = 1;
    if (colon && colon[1]) {
        char *end;
        float value = strtof(colon + 1, &end);
        if (*end == 0 && value >= -1000 && value <= 1000) { /* else the colon belongs to the path */
            *scale = value;
            len = (size_t)(colon - item);
        }
    }
    *path = arena_strndup(arena, item, len);
    return *path ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory for an adapter's name");
}

enum ph_status cli_loras_parse(struct arena *arena, const struct cli_list *items, const char *const **paths,
                               float **scales, struct ph_err *err)
{
    const char **list = arena_calloc(arena, items->count, sizeof *list);
    *scales = arena_calloc(arena, items->count, sizeof **scales);
    *paths = list;
    if (!list || !*scales)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for %zu adapters", items->count);
    for (size_t i = 0; i < items->count; i++) {
        enum ph_status status = parse_lora(arena, items->items[i], &list[i], &(*scales)[i], err);
        if (status != PH_OK)
            return status;
    }
    return PH_OK;
}

/* ---- Standard output */

enum ph_status cli_mixture_parse(const char *name, const struct mixture **out, struct ph_err *err)
{
    char names[256];
    size_t len = 0;
    for (size_t i = 0; (*out = mixture_at(i)) != NULL; i++) {
        if (strcasecmp((*out)->name, name) == 0)
            return PH_OK;
        len += (size_t)snprintf(names + len, sizeof names - len, "%s%s", i ? ", " : "", (*out)->name);
    }
    return ph_fail(err, PH_ERR_ARG, "'%s' is no type to quantise to; there are %s", name, names);
}

enum ph_status cli_flush(struct buf *out, struct ph_err *err)
{
    if (buf_status(out) != PH_OK)
        return ph_fail(err, buf_status(out), "the output does not fit in memory");
    bool sent = out->len == 0 || fwrite(out->data, 1, out->len, stdout) == out->len;
    buf_clear(out);
    return sent ? PH_OK : cli_sent(err);
}
