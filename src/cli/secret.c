/* Keys of accounts elsewhere. They are sent in headers, so a key is what a header's value can be without
 * quoting: visible ASCII, no spaces. */
#include "cli/secret_int.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/limits.h"

#define SECRET_BYTES_MAX ((size_t)8 << 10)
#define FILE_BYTES_MAX ((size_t)64 << 10)

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static void trim(const char **text, size_t *len)
{
    while (*len && is_space(**text)) {
        (*text)++;
        (*len)--;
    }
    while (*len && is_space((*text)[*len - 1]))
        (*len)--;
}

struct secret_list {
    struct arena *arena;
    const char **items; /* [ACCOUNT_KEYS_MAX] */
    size_t count;
};

/* `where` begins the error: a file and a line, or what holds the value. */
static enum ph_status add(struct secret_list *list, const char *text, size_t len, const char *where,
                          struct ph_err *err)
{
    if (len > SECRET_BYTES_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%s: a key has at most %zu bytes", where, SECRET_BYTES_MAX);
    for (size_t i = 0; i < len; i++)
        if (text[i] <= ' ' || text[i] > '~')
            return ph_fail(err, PH_ERR_FORMAT, "%s: a key has no spaces and only visible ASCII characters",
                           where);
    if (list->count == ACCOUNT_KEYS_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%s: an account has at most %d keys", where, ACCOUNT_KEYS_MAX);
    list->items[list->count] = arena_strndup(list->arena, text, len);
    if (!list->items[list->count])
        return ph_fail(err, PH_ERR_NOMEM, "%s: no memory for a key", where);
    list->count++;
    return PH_OK;
}

static enum ph_status add_lines(struct secret_list *list, const struct buf *text, const char *path,
                                struct ph_err *err)
{
    enum ph_status status = PH_OK;
    for (size_t at = 0, number = 1, len; status == PH_OK && at < text->len; at += len + 1, number++) {
        const char *line = text->data + at, *end = memchr(line, '\n', text->len - at);
        len = end ? (size_t)(end - line) : text->len - at;
        size_t trimmed = len;
        char where[PH_ERR_MESSAGE_MAX];
        trim(&line, &trimmed);
        if (trimmed == 0 || line[0] == '#')
            continue;
        snprintf(where, sizeof where, "%.400s line %zu", path, number);
        status = add(list, line, trimmed, where, err);
    }
    if (status == PH_OK && list->count == 0)
        status = ph_fail(err, PH_ERR_FORMAT, "%s has no key; write one a line", path);
    return status;
}

static enum ph_status read_lines(struct secret_list *list, const char *path, struct ph_err *err)
{
    struct buf text;
    buf_init(&text, FILE_BYTES_MAX);
    enum ph_status status = file_read_private(path, &text, NULL, err);
    if (status == PH_OK)
        status = add_lines(list, &text, path, err);
    buf_release(&text);
    return status;
}

enum ph_status secret_read(struct arena *arena, const char *value, const char *const **out, size_t *count,
                           struct ph_err *err)
{
    const size_t prefix_len = sizeof SECRET_FILE_PREFIX - 1;
    struct secret_list list = {.arena = arena,
                               .items = arena_calloc(arena, ACCOUNT_KEYS_MAX, sizeof(const char *))};
    enum ph_status status;
    *out = NULL;
    *count = 0;
    if (!list.items)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for keys");
    if (strncmp(value, SECRET_FILE_PREFIX, prefix_len) == 0)
        status = read_lines(&list, value + prefix_len, err);
    else if (value[0] == 0)
        status = ph_fail(err, PH_ERR_ARG, "the key is empty; is the variable set?");
    else
        status = add(&list, value, strlen(value), "the key", err);
    if (status == PH_OK) {
        *out = list.items;
        *count = list.count;
    }
    return status;
}
