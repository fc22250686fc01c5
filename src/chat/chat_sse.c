/* Server-sent events (WHATWG HTML, 9.2.6), bytes cut anywhere.
 *
 * A line that lies whole in the bytes is read where it is; only one that is cut is kept until its end comes.
 * A CR ends its line at once, so that no event waits for a byte that may never come; an LF right behind it
 * belongs to it, even when it comes with the next bytes.
 *
 * What is found does not depend on the cuts: a line, an event's data and its name are each held to the same
 * limit, whether they were copied or not. `id` and `retry` are for reconnecting, which nobody does here. */
#include <string.h>

#include "chat/chat.h"

#define LINE_SCAN_BYTES 512

typedef bool sse_event_fn(void *ud, const char *name, const char *data, size_t len);

void chat_sse_init(struct chat_sse *sse, size_t event_bytes_max)
{
    *sse = (struct chat_sse){.event_bytes_max = event_bytes_max};
    buf_init(&sse->line, event_bytes_max);
    buf_init(&sse->data, event_bytes_max);
    buf_init(&sse->name, event_bytes_max);
}

void chat_sse_release(struct chat_sse *sse)
{
    buf_release(&sse->line);
    buf_release(&sse->data);
    buf_release(&sse->name);
}

static const char *text_of(const struct buf *buf)
{
    return buf->len ? buf->data : "";
}

/* The empty line. Without a data line there is no event, only a name to forget. */
static enum ph_status dispatch(struct chat_sse *sse, sse_event_fn *event, void *ud)
{
    bool go_on = !sse->has_data || event(ud, text_of(&sse->name), text_of(&sse->data), sse->data.len);
    buf_clear(&sse->data);
    buf_clear(&sse->name);
    sse->has_data = false;
    return go_on ? PH_OK : PH_ERR_CANCELLED;
}

static bool is_field(const char *line, size_t len, const char *name)
{
    return len == strlen(name) && memcmp(line, name, len) == 0;
}

static enum ph_status take_field(struct chat_sse *sse, const char *line, size_t len)
{
    const char *colon = memchr(line, ':', len);
    size_t name_len = colon ? (size_t)(colon - line) : len;
    const char *value = colon ? colon + 1 : line + len;
    if (value < line + len && *value == ' ')
        value++;
    size_t value_len = (size_t)(line + len - value);
    if (is_field(line, name_len, "data")) {
        if (sse->has_data)
            buf_putc(&sse->data, '\n');
        buf_append(&sse->data, value, value_len);
        sse->has_data = true;
        return buf_status(&sse->data);
    }
    if (is_field(line, name_len, "event")) {
        buf_clear(&sse->name);
        buf_append(&sse->name, value, value_len);
        return buf_status(&sse->name);
    }
    return PH_OK; /* a comment (its name is empty), id, retry, or nothing we know */
}

static enum ph_status take_line(struct chat_sse *sse, const char *line, size_t len, sse_event_fn *event,
                                void *ud)
{
    static const char mark[] = {'\xEF', '\xBB', '\xBF'};
    if (!sse->begun && len >= sizeof mark && memcmp(line, mark, sizeof mark) == 0) {
        line += sizeof mark;
        len -= sizeof mark;
    }
    sse->begun = true;
    return len ? take_field(sse, line, len) : dispatch(sse, event, ud);
}

/* The rest of a line: `len` bytes and the end behind them. */
static enum ph_status end_line(struct chat_sse *sse, const char *bytes, size_t len, sse_event_fn *event,
                               void *ud)
{
    if (sse->line.len == 0)
        return len > sse->event_bytes_max ? PH_ERR_LIMIT : take_line(sse, bytes, len, event, ud);
    buf_append(&sse->line, bytes, len);
    enum ph_status status = buf_status(&sse->line);
    if (status == PH_OK)
        status = take_line(sse, sse->line.data, sse->line.len, event, ud);
    buf_clear(&sse->line);
    return status;
}

/* By the library's search, which takes 32 bytes a step; in pieces, so that lines which end in CR alone do not
 * each look for an LF in all that follows. */
static size_t line_len(const char *bytes, size_t len)
{
    for (size_t at = 0; at < len; at += LINE_SCAN_BYTES) {
        size_t n = len - at < LINE_SCAN_BYTES ? len - at : LINE_SCAN_BYTES;
        const char *lf = memchr(bytes + at, '\n', n);
        const char *cr = memchr(bytes + at, '\r', lf ? (size_t)(lf - bytes) - at : n);
        if (cr || lf)
            return (size_t)((cr ? cr : lf) - bytes);
    }
    return len;
}

enum ph_status chat_sse_feed(struct chat_sse *sse, const char *bytes, size_t len, sse_event_fn *event,
                             void *ud)
{
    enum ph_status status = PH_OK;
    if (len && sse->after_cr) {
        size_t skip = *bytes == '\n';
        bytes += skip;
        len -= skip;
        sse->after_cr = false;
    }
    while (len && status == PH_OK) {
        size_t piece = line_len(bytes, len);
        if (piece == len) {
            buf_append(&sse->line, bytes, len);
            return buf_status(&sse->line);
        }
        status = end_line(sse, bytes, piece, event, ud);
        size_t end = piece + 1;
        if (bytes[piece] == '\r') {
            sse->after_cr = end == len;
            end += end < len && bytes[end] == '\n';
        }
        bytes += end;
        len -= end;
    }
    return status;
}
