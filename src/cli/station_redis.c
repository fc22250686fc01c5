/* A shared cache's address: redis://[[USER]:PASSWORD@]HOST[:PORT][/NUMBER].
 *
 * What stands before the last "@" is the user's name and password, so that a password which came from the
 * environment may have any character but "%", which begins an escape (%25 is itself). A password may stand
 * alone in redis_password instead, as keys of accounts do. No error repeats the address: it may have a
 * password in it. */
#include <stdlib.h>
#include <string.h>

#include "cli/secret_int.h"
#include "cli/station_int.h"

#define SCHEME "redis://"
#define TLS_SCHEME "rediss://"
#define PORT_DEFAULT 6379
#define DATABASE_MAX 1000000

struct address {
    struct arena *arena;
    struct gateway_redis *out;
    struct ph_err *err;
    const char *section; /* "cache", "memory": where it stands */
};

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)((at - digits) % 16) : -1;
}

static enum ph_status decode(struct address *a, const char *text, size_t len, const char **out)
{
    char *copy = arena_strndup(a->arena, text, len), *to = copy;
    if (!copy)
        return ph_fail(a->err, PH_ERR_NOMEM, "out of memory");
    for (const char *from = copy; *from; to++) {
        if (*from != '%') {
            *to = *from++;
            continue;
        }
        int high = hex_digit(from[1]), low = high < 0 ? -1 : hex_digit(from[2]);
        if (low < 0 || !(high | low))
            return ph_fail(a->err, PH_ERR_ARG,
                           "%s.redis: two hexadecimal digits must follow a percent sign; one that is meant "
                           "is %%25",
                           a->section);
        *to = (char)(high << 4 | low);
        from += 3;
    }
    *to = 0;
    *out = copy;
    return PH_OK;
}

static enum ph_status read_user(struct address *a, const char *text, size_t len)
{
    const char *colon = memchr(text, ':', len);
    size_t user_len = colon ? (size_t)(colon - text) : len;
    enum ph_status status = user_len ? decode(a, text, user_len, &a->out->user) : PH_OK;
    if (status == PH_OK && colon && len > user_len + 1)
        status = decode(a, colon + 1, len - user_len - 1, &a->out->password);
    return status;
}

/* A whole number at the end of the text, 0 to max; "" is `none`. */
static bool read_number(const char *text, unsigned long none, unsigned long max, unsigned long *out)
{
    char *end;
    *out = none;
    if (!*text)
        return true;
    if (*text < '0' || *text > '9')
        return false;
    *out = strtoul(text, &end, 10);
    return !*end && *out <= max;
}

/* host, host:port, [::1]:port; the text is the arena's, and is cut up. */
static enum ph_status read_place(struct address *a, char *text)
{
    unsigned long port, database;
    char *slash = strchr(text, '/');
    if (slash)
        *slash = 0;
    bool literal = *text == '[';
    char *end = literal ? strchr(text, ']') : strchr(text, ':');
    const char *number = "";
    if (end && literal) {
        *end++ = 0;
        number = *end == ':' ? end + 1 : *end ? "x" : "";
    } else if (end) {
        *end = 0;
        number = end + 1;
    }
    a->out->host = text + literal;
    if (!*a->out->host || (literal && !end) || strpbrk(a->out->host, " \t?#"))
        return ph_fail(a->err, PH_ERR_ARG, "%s.redis: it names no host; write redis://HOST:PORT/NUMBER",
                       a->section);
    if (!read_number(number, PORT_DEFAULT, 65535, &port) || !port)
        return ph_fail(a->err, PH_ERR_ARG, "%s.redis: the port is not a number from 1 to 65535", a->section);
    if (!read_number(slash ? slash + 1 : "", 0, DATABASE_MAX, &database))
        return ph_fail(a->err, PH_ERR_ARG,
                       "%s.redis: behind the slash there may be a database's number and nothing else",
                       a->section);
    a->out->port = (uint16_t)port;
    a->out->database = (unsigned)database;
    return PH_OK;
}

static enum ph_status read_url(struct address *a, const char *url)
{
    if (strncmp(url, TLS_SCHEME, sizeof TLS_SCHEME - 1) == 0)
        return ph_fail(a->err, PH_ERR_UNSUPPORTED,
                       "%s.redis: rediss:// (TLS) is not spoken here; let a tunnel on this machine (stunnel, "
                       "WireGuard, ssh -L) carry it, and write redis://127.0.0.1:PORT",
                       a->section);
    if (strncmp(url, SCHEME, sizeof SCHEME - 1) != 0)
        return ph_fail(a->err, PH_ERR_ARG, "%s.redis: write redis://HOST:PORT/NUMBER", a->section);
    url += sizeof SCHEME - 1;
    const char *at = strrchr(url, '@');
    enum ph_status status = at ? read_user(a, url, (size_t)(at - url)) : PH_OK;
    char *place = arena_strdup(a->arena, at ? at + 1 : url);
    if (!place)
        return ph_fail(a->err, PH_ERR_NOMEM, "out of memory");
    return status == PH_OK ? read_place(a, place) : status;
}

static enum ph_status read_password(struct address *a, const char *value)
{
    const char *const *secrets;
    size_t count;
    struct ph_err reason;
    enum ph_status status = secret_read(a->arena, value, &secrets, &count, &reason);
    if (status != PH_OK)
        return ph_fail(a->err, status, "%s.redis_password: %s", a->section, reason.message);
    if (count != 1 || a->out->password)
        return ph_fail(a->err, PH_ERR_ARG,
                       "%s: give one password, in redis or in redis_password; there are several", a->section);
    a->out->password = secrets[0];
    return PH_OK;
}

enum ph_status station_redis_read(struct arena *arena, const char *section, const char *url,
                                  const char *password, struct gateway_redis *out, struct ph_err *err)
{
    struct address address = {arena, out, err, section};
    *out = (struct gateway_redis){0};
    if (!url && password)
        return ph_fail(err, PH_ERR_ARG, "%s: there is a redis_password without redis", section);
    enum ph_status status = url ? read_url(&address, url) : PH_OK;
    if (status == PH_OK && password)
        status = read_password(&address, password);
    if (status == PH_OK && out->user && !out->password)
        status = ph_fail(err, PH_ERR_ARG, "%s.redis: there is a user without a password", section);
    return status;
}
