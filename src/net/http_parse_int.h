/* net, private: the incremental HTTP/1.1 request parser (http_parse.c). Knows bytes, not sockets. */
#ifndef PHAROS_NET_HTTP_PARSE_INT_H
#define PHAROS_NET_HTTP_PARSE_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/limits.h"

enum http_event {
    HTTP_EVENT_MORE,   /* all bytes taken, the request is not complete */
    HTTP_EVENT_HEAD,   /* the head is complete and good, a body follows; told once */
    HTTP_EVENT_DONE,   /* the request is complete; bytes beyond it were not touched */
    HTTP_EVENT_REFUSED /* status and reason say why; the connection has no future */
};

struct http_field {
    uint32_t name, value; /* offsets in the parser's text, each terminated */
};

/* Lives from a request's first byte until it is handed on; may then be cleared and used for the next. */
struct http_reader {
    int step;            /* index into the table of steps */
    bool trailing;       /* fields being read are trailers */
    bool saw_blank_line; /* the one that is tolerated before a request line */
    bool is_chunked;
    bool expects_continue; /* the client waits for "100 Continue" */
    bool keep_alive;       /* what the client asked for, its version considered */
    bool is_head;          /* method HEAD: no reply may have a body */
    int version;           /* 10 or 11 */
    int status;            /* REFUSED: what to answer */
    const char *reason;    /* REFUSED: one sentence for the client */
    uint32_t path, query;  /* offsets in text; path is decoded */
    size_t matched;        /* characters of "HTTP/x.y", or digits of a chunk size */
    size_t head_room;      /* bytes that the head, then chunk extensions and trailers, may still take */
    size_t token;          /* where in text the token being read begins */
    size_t missing;        /* bytes of the body, or of this chunk, still to come */
    size_t body_bytes_max;
    enum http_event event;
    struct buf text; /* method, target, then names and values, each terminated */
    struct buf body;
    size_t field_count;
    struct http_field fields[HTTP_HEADER_COUNT_MAX + 1]; /* the last is room for a trailer */
};

void http_reader_init(struct http_reader *parser, size_t body_bytes_max);
void http_reader_clear(struct http_reader *parser); /* ready for the next request; memory of text is kept */
void http_reader_release(struct http_reader *parser);

/* Takes bytes until there is something to tell; `used` says how many were taken. The result does not depend
 * on how the bytes were cut. Not to be called again after DONE or REFUSED before a clear. */
enum http_event http_reader_feed(struct http_reader *parser, const char *bytes, size_t len, size_t *used);

static inline const char *http_reader_method(const struct http_reader *parser)
{
    return parser->text.data;
}

/* False while nothing but the tolerated empty line has come. */
static inline bool http_reader_has_begun(const struct http_reader *parser)
{
    return parser->text.len > 0;
}

/* For http_parse.c: http_target.c's half of the work. Splits and decodes the target in place; sets path and
 * query. Returns NULL, or why the target is refused (a 400). */
const char *http_target_split(struct http_reader *parser, uint32_t target);

/* A Host field's value: host [":" port], or empty. Stricter than RFC 3986: no escapes, no punctuation that
 * names don't have, no empty port. */
bool http_authority_is_valid(const char *text, size_t len);

/* Character classes of RFC 9110 and RFC 3986, as bits. */
enum {
    HTTP_CHAR_TOKEN = 1,  /* tchar */
    HTTP_CHAR_TARGET = 2, /* may stand in a request target: RFC 3986 plus [] and %, without # */
    HTTP_CHAR_VALUE = 4,  /* field-vchar, space, tab, obs-text */
    HTTP_CHAR_HOST = 8    /* a host's name, and what we keep of a client's x-request-id; a colon, too */
};
extern const unsigned char http_char_classes[256];

static inline bool http_char_is(unsigned char c, unsigned char_class)
{
    return http_char_classes[c] & char_class;
}

static inline char http_lower(char c)
{
    return (char)(c | ((unsigned char)(c - 'A') < 26) << 5);
}

static inline int http_hex_value(char c) /* -1: it is no digit */
{
    c = http_lower(c);
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Compares without case; `lower` is lower case. */
bool http_word_is(const char *text, size_t len, const char *lower);

#endif
