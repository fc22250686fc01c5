#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Cuts a message that filled its buffer back to the end of a whole UTF-8 character. */
static void cut_at_character(char *text, size_t len)
{
    while (len > 0 && ((unsigned char)text[len - 1] & 0xC0) == 0x80)
        len--;
    if (len > 0 && ((unsigned char)text[len - 1] & 0x80))
        len--;
    text[len] = 0;
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
    if (len < 0)
        err->message[0] = 0;
    else if ((size_t)len >= sizeof err->message)
        cut_at_character(err->message, sizeof err->message - 1);
    for (char *c = err->message; *c; c++)
        if (*c == '\n' || *c == '\r')
            *c = ' ';
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
    };
    return (unsigned)code < PH_STATUS_COUNT ? names[code] : "unknown status";
}
