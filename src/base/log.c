/* A line is put together on the stack, so that being out of memory can be logged, and never exceeds
 * LOG_LINE_BYTES_MAX, which is what a pipe takes in one piece. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <uv.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/utf8.h"

#define LOG_TAIL_BYTES 8 /* kept free for "...", the closing of JSON and the newline */
#define STDERR_FD 2

struct sink {
    int fd;
    enum log_level level;
    bool json_lines;
};

static struct sink sink = {STDERR_FD, LOG_INFO, false};

static const char *const level_names[] = {
    [LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info", [LOG_DEBUG] = "debug"};

struct line {
    size_t len;
    bool cut;
    char data[LOG_LINE_BYTES_MAX];
};

void log_setup(int fd, enum log_level level, bool json_lines)
{
    sink = (struct sink){fd, level, json_lines};
}

bool log_enabled(enum log_level level)
{
    return level <= sink.level;
}

bool log_level_parse(const char *name, enum log_level *out)
{
    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return true;
        }
    }
    return false;
}

/* Whole or not at all, and after a refusal nothing more: a cut line ends at a character. */
static void put(struct line *line, const char *text, size_t len)
{
    if (line->cut || len > sizeof line->data - LOG_TAIL_BYTES - line->len) {
        line->cut = true;
        return;
    }
    memcpy(line->data + line->len, text, len);
    line->len += len;
}

static void put_tail(struct line *line, const char *text)
{
    size_t len = strlen(text);
    memcpy(line->data + line->len, text, len);
    line->len += len;
}

/* What could end a line, move a terminal's cursor or turn the reading direction. */
static bool is_dangerous(uint32_t c)
{
    return c < 0x20 || (c >= 0x7F && c < 0xA0) || (c >= 0x2028 && c <= 0x202E) ||
           (c >= 0x2066 && c <= 0x2069);
}

static void put_escaped(struct line *line, const char *text, size_t len, bool json)
{
    for (size_t read; len > 0; text += read, len -= read) {
        uint32_t c;
        read = utf8_decode(text, len, &c);
        char escape[16];
        if (read == 0 && json) {
            read = 1;
            put(line, "\xEF\xBF\xBD", 3);
        } else if (read == 0) {
            read = 1;
            put(line, escape, (size_t)snprintf(escape, sizeof escape, "\\x%02x", (unsigned char)*text));
        } else if (c == '\n') {
            put(line, "\\n", 2);
        } else if (is_dangerous(c)) {
            put(line, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", (unsigned)c));
        } else if (json && (c == '"' || c == '\\')) {
            put(line, c == '"' ? "\\\"" : "\\\\", 2);
        } else {
            put(line, text, read);
        }
    }
}

static void put_text(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

static void format_line(struct line *line, enum log_level level, const char *area, const char *message)
{
    char time[CLOCK_UTC_TEXT_MAX];
    clock_format_utc(clock_unix_ms(clock_system()), time);
    bool json = sink.json_lines;
    put_text(line, json ? "{\"time\":\"" : "");
    put_text(line, time);
    put_text(line, json ? "\",\"level\":\"" : " ");
    put_text(line, level_names[level]);
    put_text(line, json ? "\",\"area\":\"" : strlen(level_names[level]) < 5 ? "  " : " ");
    put_escaped(line, area, strlen(area), json);
    put_text(line, json ? "\",\"message\":\"" : ": ");
    put_escaped(line, message, strlen(message), json);
    put_tail(line, line->cut ? "..." : "");
    put_tail(line, json ? "\"}\n" : "\n");
}

/* One write; only where the system took a part (a full disk, a socket) is there a second. */
static void write_out(const char *data, size_t len)
{
    while (len > 0) {
        uv_fs_t request;
        uv_buf_t piece = uv_buf_init((char *)data, (unsigned)len);
        int written = uv_fs_write(NULL, &request, sink.fd, &piece, 1, -1, NULL);
        uv_fs_req_cleanup(&request);
        if (written <= 0)
            return; /* nowhere to complain */
        data += written;
        len -= (size_t)written;
    }
}

void log_write(enum log_level level, const char *area, const char *fmt, ...)
{
    if (!log_enabled(level))
        return;
    char message[LOG_LINE_BYTES_MAX + 1]; /* longer than fits, so that the cut is noticed */
    va_list args;
    va_start(args, fmt);
    if (vsnprintf(message, sizeof message, fmt, args) < 0)
        message[0] = 0;
    va_end(args);
    struct line line;
    line.len = 0;
    line.cut = false;
    format_line(&line, level, area, message);
    write_out(line.data, line.len);
}
