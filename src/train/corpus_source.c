/* Documents from files. A text is cut where a line equals the separator; of JSON lines each is parsed in an
 * arena that the next one reuses. What is wrong with a line is told with file and line, and ends the reading:
 * training on part of what was meant is worse than stopping. */
#include "base/file.h"
#include "base/utf8.h"
#include "train/corpus_int.h"
#include "train/train.h"

#define STDIN_BYTES_MAX ((size_t)1 << 34)
#define LINE_ARENA_BYTES_MAX ((size_t)1 << 30)

struct reading {
    const struct source_params *params;
    enum ph_status (*take)(void *ud, const struct document *document, struct ph_err *err);
    void (*progress)(void *ud, uint64_t done, uint64_t total);
    void *ud;
    const char *path;
    uint64_t done, total; /* bytes: of the files before this one; of all */
    struct arena arena;
};

static void show(const struct reading *r, size_t at)
{
    if (r->progress)
        r->progress(r->ud, r->done + at, r->total);
}

/* The line at *cursor without its end, and where the next one begins. */
static size_t next_line(const char *text, size_t len, size_t *cursor)
{
    const char *line = text + *cursor;
    const char *end = memchr(line, '\n', len - *cursor);
    size_t line_len = end ? (size_t)(end - line) : len - *cursor;
    *cursor += line_len + (end != NULL);
    return line_len > 0 && line[line_len - 1] == '\r' ? line_len - 1 : line_len;
}

static bool is_blank(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (text[i] != ' ' && (text[i] < '\t' || text[i] > '\r'))
            return false;
    return true;
}

/* ---- Text */

static enum ph_status fail_utf8(const struct reading *r, const char *text, size_t len, size_t line,
                                struct ph_err *err)
{
    size_t at = 0, n;
    uint32_t point;
    for (; (n = utf8_decode(text + at, len - at, &point)) > 0; at += n)
        line += text[at] == '\n';
    return ph_fail(err, PH_ERR_FORMAT,
                   "%s:%zu: the byte 0x%02X there is not UTF-8; convert the text, as with iconv -f latin1 -t "
                   "utf-8",
                   r->path, line, (unsigned)(unsigned char)text[at]);
}

static enum ph_status tell_text(const struct reading *r, const char *text, size_t len, size_t line,
                                struct ph_err *err)
{
    struct document document = {.path = r->path, .line = line, .text = text, .len = len};
    if (is_blank(text, len))
        return PH_OK;
    return utf8_valid(text, len) ? r->take(r->ud, &document, err) : fail_utf8(r, text, len, line, err);
}

static enum ph_status read_text(const struct reading *r, const char *text, size_t len, struct ph_err *err)
{
    const char *separator = r->params->separator;
    size_t separator_len = separator ? strlen(separator) : 0;
    size_t first = 0, first_line = 1, number = 1;
    enum ph_status status = PH_OK;
    for (size_t cursor = 0; separator && cursor < len && status == PH_OK; number++) {
        size_t at = cursor, line_len = next_line(text, len, &cursor);
        if (line_len != separator_len || memcmp(text + at, separator, line_len) != 0)
            continue;
        status = tell_text(r, text + first, at - first, first_line, err);
        first = cursor;
        first_line = number + 1;
        show(r, cursor);
    }
    return status == PH_OK ? tell_text(r, text + first, len - first, first_line, err) : status;
}

/* ---- JSON lines */

static enum ph_status read_object(struct reading *r, const char *text, size_t len, size_t line,
                                  struct ph_err *err)
{
    struct ph_err inner;
    struct json *object;
    struct document document = {.path = r->path, .line = line};
    arena_clear(&r->arena);
    if (json_parse(&r->arena, text, len, &object, &inner) != PH_OK)
        return ph_fail(err, inner.code, "%s:%zu: %s", r->path, line, inner.message);
    if (corpus_messages(&r->arena, object, &document.messages, &inner) != PH_OK)
        return ph_fail(err, inner.code, "%s:%zu: %s", r->path, line, inner.message);
    if (document.messages)
        return r->take(r->ud, &document, err);
    const struct json *plain = json_get(object, "text");
    if (!json_is(plain, JSON_STRING))
        return ph_fail(err, PH_ERR_FORMAT,
                       "%s:%zu: an object with a text \"text\" or a conversation is expected (\"messages\", "
                       "\"conversations\", \"turns\", or \"prompt\" and \"completion\")",
                       r->path, line);
    document.text = plain->u.str.text;
    document.len = plain->u.str.len;
    return is_blank(document.text, document.len) ? PH_OK : r->take(r->ud, &document, err);
}

static enum ph_status read_lines(struct reading *r, const char *text, size_t len, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    size_t number = 1;
    for (size_t cursor = 0; cursor < len && status == PH_OK; number++) {
        size_t at = cursor, line_len = next_line(text, len, &cursor);
        if (!is_blank(text + at, line_len))
            status = read_object(r, text + at, line_len, number, err);
        show(r, cursor);
    }
    return status;
}

/* ---- Files */

static bool ends_with(const char *path, const char *end)
{
    size_t len = strlen(path), end_len = strlen(end);
    return len >= end_len && memcmp(path + len - end_len, end, end_len) == 0;
}

static bool is_jsonl(const struct source_params *params, const char *path, const char *text, size_t len)
{
    if (params->format != SOURCE_AUTO)
        return params->format == SOURCE_JSONL;
    if (strcmp(path, "-") == 0)
        return len > 0 && text[0] == '{';
    return ends_with(path, ".jsonl") || ends_with(path, ".ndjson");
}

static enum ph_status read_bytes(struct reading *r, const char *path, const char *text, size_t len,
                                 struct ph_err *err)
{
    r->path = strcmp(path, "-") == 0 ? "standard input" : path;
    enum ph_status status =
        is_jsonl(r->params, path, text, len) ? read_lines(r, text, len, err) : read_text(r, text, len, err);
    r->done += len;
    show(r, 0);
    return status;
}

static enum ph_status read_file(struct reading *r, const char *path, struct ph_err *err)
{
    struct file_map map;
    enum ph_status status = file_map_open(&map, path, err);
    if (status != PH_OK)
        return status;
    status = read_bytes(r, path, map.data ? (const char *)map.data : "", map.len, err);
    file_map_release(&map);
    return status;
}

static enum ph_status read_stdin(struct reading *r, struct ph_err *err)
{
    struct buf text;
    buf_init(&text, STDIN_BYTES_MAX);
    enum ph_status status = file_read("-", &text, err);
    r->total += text.len;
    if (status == PH_OK)
        status = read_bytes(r, "-", text.data ? text.data : "", text.len, err);
    buf_release(&text);
    return status;
}

/* Looks at all files before any is read: a name mistyped is told at once, not after an hour. */
static enum ph_status measure(struct reading *r, struct ph_err *err)
{
    for (size_t i = 0; i < r->params->path_count; i++) {
        struct file_map map;
        if (strcmp(r->params->paths[i], "-") == 0)
            continue;
        enum ph_status status = file_map_open(&map, r->params->paths[i], err);
        if (status != PH_OK)
            return status;
        r->total += map.len;
        file_map_release(&map);
    }
    return PH_OK;
}

enum ph_status
source_each(const struct source_params *params,
            enum ph_status (*take)(void *ud, const struct document *document, struct ph_err *err),
            void (*progress)(void *ud, uint64_t done, uint64_t total), void *ud, struct ph_err *err)
{
    struct reading r = {.params = params, .take = take, .progress = progress, .ud = ud};
    arena_init(&r.arena, LINE_ARENA_BYTES_MAX);
    enum ph_status status = measure(&r, err);
    for (size_t i = 0; i < params->path_count && status == PH_OK; i++)
        status =
            strcmp(params->paths[i], "-") == 0 ? read_stdin(&r, err) : read_file(&r, params->paths[i], err);
    arena_release(&r.arena);
    return status;
}
