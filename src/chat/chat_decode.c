/* What the decoders of clients' bodies share. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "chat/decode_int.h"

/* ---- Faults */

const char *decode_path(struct decoder *d, const char *fmt, ...)
{
    char text[160];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return arena_strdup(d->arena, text);
}

enum ph_status decode_unable(struct decoder *d, const char *param, const char *fmt, ...)
{
    char text[PH_ERR_MESSAGE_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    chat_fault_set(d->fault, 400, "unsupported", param, "%s", text);
    d->fault->cause = CHAT_CAUSE_UNABLE;
    return PH_ERR_UNSUPPORTED;
}

enum ph_status decode_no_memory(struct decoder *d)
{
    chat_fault_set(d->fault, 503, NULL, NULL, "the request needs more memory than one may take");
    return PH_ERR_NOMEM;
}

const char *decode_type_name(const struct json *value)
{
    static const char *const names[] = {"null",     "a boolean", "a boolean", "a number",
                                        "a string", "an array",  "an object"};
    return names[value ? value->type : JSON_NULL];
}

/* ---- Scalars */

static enum ph_status decode_integer(struct decoder *d, const struct scalar *row, const struct json *value,
                                     int64_t *out)
{
    if (!json_is(value, JSON_NUMBER))
        return DECODE_REFUSE(d, row->name, "%s must be an integer, not %s", row->name,
                             decode_type_name(value));
    if (!json_to_int64(value, out))
        return DECODE_REFUSE(d, row->name, "%s must be an integer", row->name);
    if ((double)*out < row->min || (double)*out > row->max)
        return DECODE_REFUSE(d, row->name, "%s is %lld; it must be from %.0f to %.0f", row->name,
                             (long long)*out, row->min, row->max);
    return PH_OK;
}

static enum ph_status decode_double(struct decoder *d, const struct scalar *row, const struct json *value,
                                    double *out)
{
    if (!json_to_double(value, out))
        return DECODE_REFUSE(d, row->name, "%s must be a number, not %s", row->name, decode_type_name(value));
    if (*out < row->min || *out > row->max)
        return DECODE_REFUSE(d, row->name, "%s is %g; it must be from %g to %g", row->name, *out, row->min,
                             row->max);
    return PH_OK;
}

static enum ph_status decode_scalar(struct decoder *d, const struct scalar *row)
{
    const struct json *value = json_get(d->body, row->name);
    void *place = (char *)d->out + row->offset;
    int64_t integer = 0;
    enum ph_status status = PH_OK;
    if (json_is_absent(value))
        return PH_OK;
    switch (row->kind) {
    case SCALAR_BOOL:
        if (!json_is_bool(value))
            return DECODE_REFUSE(d, row->name, "%s must be true or false, not %s", row->name,
                                 decode_type_name(value));
        *(bool *)place = value->type == JSON_TRUE;
        break;
    case SCALAR_TEXT:
        if (!json_is(value, JSON_STRING))
            return DECODE_REFUSE(d, row->name, "%s must be a string, not %s", row->name,
                                 decode_type_name(value));
        *(const char **)place = value->u.str.text;
        break;
    case SCALAR_DOUBLE:
        status = decode_double(d, row, value, place);
        break;
    case SCALAR_SIZE:
        status = decode_integer(d, row, value, &integer);
        *(size_t *)place = (size_t)integer;
        break;
    case SCALAR_INT: /* 64 bits, signed or not */
        status = decode_integer(d, row, value, &integer);
        *(int64_t *)place = integer;
        break;
    }
    if (status == PH_OK && row->given_offset)
        *(bool *)((char *)d->out + row->given_offset) = true;
    return status;
}

enum ph_status decode_scalars(struct decoder *d, const struct scalar *rows, size_t count)
{
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < count && status == PH_OK; i++)
        status = decode_scalar(d, &rows[i]);
    return status;
}

enum ph_status decode_object(struct decoder *d, const char *name, const struct json **out)
{
    const struct json *value = json_get(d->body, name);
    if (json_is_absent(value))
        return PH_OK;
    if (!json_is(value, JSON_OBJECT))
        return DECODE_REFUSE(d, name, "%s must be an object, not %s", name, decode_type_name(value));
    *out = value;
    return PH_OK;
}

/* ---- Media */

/* RFC 2397, with ;base64 as everybody writes it: anything else is left as a URL. */
enum ph_status decode_media_url(struct decoder *d, const struct json *url, struct chat_part *part)
{
    const char *text = url->u.str.text, *end = text + url->u.str.len;
    const char *comma = strncmp(text, "data:", 5) == 0 ? memchr(text, ',', url->u.str.len) : NULL;
    if (!comma || comma - text < 12 || memcmp(comma - 7, ";base64", 7) != 0) {
        part->url = text;
        return PH_OK;
    }
    size_t type_len = strcspn(text + 5, ";,"); /* parameters such as charset are left out */
    part->media_type = type_len ? arena_strndup(d->arena, text + 5, type_len) : "text/plain";
    part->data = (struct chat_text){comma + 1, (size_t)(end - comma - 1)};
    return part->media_type ? PH_OK : decode_no_memory(d);
}
