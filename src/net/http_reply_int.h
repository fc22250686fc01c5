/* net, private: the incremental parser of HTTP/1.1 replies (http_reply.c). Knows bytes, not sockets. */
#ifndef PHAROS_NET_HTTP_REPLY_INT_H
#define PHAROS_NET_HTTP_REPLY_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum http_reply_state {
    HTTP_REPLY_GOES_ON,
    HTTP_REPLY_WHOLE,
    HTTP_REPLY_BAD,       /* not HTTP; `why` says what of it */
    HTTP_REPLY_TOO_LARGE, /* head or body; `why` says which */
    HTTP_REPLY_NO_MEMORY
};

struct http_reply {
    enum http_reply_state state;
    const char *why; /* static */
    int step;
    bool is_for_head; /* the request was HEAD: no body whatever the head says */
    bool has_begun;   /* a byte has come */
    bool has_head;    /* the final head is complete: status and text are good */
    bool keeps_alive; /* the connection may carry another request, once this is WHOLE */
    bool ends_by_close;
    int version; /* 10 or 11 */
    int status;
    struct buf text;    /* the head; once complete: name, value, name, value ... each terminated */
    size_t field_count; /* names are lower case, values trimmed and unfolded */
    size_t line;        /* in text: where the line being read begins; behind the head: its length so far */
    bool is_blank_line; /* behind the head: it is empty, or a CR so far */
    size_t head_room;   /* bytes that heads, then chunk extensions and trailers may still take */
    size_t body_room;   /* bytes that the body may still take */
    uint64_t missing;   /* of the body, or of this chunk */
    size_t digits;      /* of a chunk's size */
};

void http_reply_init(struct http_reply *reply);
void http_reply_release(struct http_reply *reply);
/* For the next reply; memory is kept. */
void http_reply_clear(struct http_reply *reply, bool is_for_head, size_t body_bytes_max);

/* Takes all bytes; *body_len of the body's are left at the front of `bytes`. The result does not depend on
 * how the bytes were cut. Not to be called once the state is another than GOES_ON. Bytes behind a whole reply
 * mean that the connection is out of step: keeps_alive is false then. */
void http_reply_feed(struct http_reply *reply, char *bytes, size_t len, size_t *body_len);

/* Nothing follows: WHOLE where the reply's framing has its end in that, else it stays as it is, cut. */
void http_reply_end(struct http_reply *reply);

#endif
