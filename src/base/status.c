#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/utf8.h"

/* A message quotes what others sent, and goes to terminals, logs and replies. */
static void make_printable(char *text, size_t len)
{
    for (size_t i = 0, read; i < len; i += read) {
        uint32_t c;
        read = utf8_decode(text + i, len - i, &c);
        if (read == 0 || c < 0x20 || c == 0x7F) {
            text[i] = text[i] == '\n' || text[i] == '\r' || text[i] == '\t' ? ' ' : '?';
            read = 1;
        }
    }
}

enum ph_status ph_fail(struct ph_err *err, enum ph_status code, const char *fmt, ...)
{
    if (!err)
        return code;
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    err->code = code;
    size_t kept = len < 0 ? 0 : (size_t)len;
    if (kept >= sizeof err->message) {
        kept = sizeof err->message - 1;
        kept -= utf8_incomplete_tail(err->message, kept);
    }
    err->message[kept] = 0;
    make_printable(err->message, kept);
    return code;
}

const char *ph_status_name(enum ph_status code)
{
    static const char *const names[PH_STATUS_COUNT] = {
        [PH_OK] = "ok",
        [PH_ERR_ARG] = "bad argument",
        [PH_ERR_FORMAT] = "bad format",
        [PH_ERR_LIMIT] = "limit exceeded",
        [PH_ERR_NOTFOUND] = "not found",
        [PH_ERR_UNSUPPORTED] = "unsupported",
        [PH_ERR_NOMEM] = "out of memory",
        [PH_ERR_IO] = "input/output error",
        [PH_ERR_BUSY] = "busy",
        [PH_ERR_CANCELLED] = "cancelled",
        [PH_ERR_TIMEOUT] = "timed out",
        [PH_ERR_INTERNAL] = "internal error",
        [PH_ERR_CONFLICT] = "conflict",
    };
    return (unsigned)code < PH_STATUS_COUNT ? names[code] : "unknown status";
}
