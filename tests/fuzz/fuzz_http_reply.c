/* Replies of hostile servers: cut anywhere, they are read the same, and never into more memory than allowed. The
 * first byte says how long the pieces are, and whether the request was a HEAD. */
#include <assert.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "net/http_reply_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#define BODY_BYTES_MAX 300

static void feed(struct http_reply *reply, const char *bytes, size_t len, size_t piece, struct buf *body)
{
    char *copy = mem_alloc(len ? len : 1);
    assert(copy);
    for (size_t at = 0; at < len && reply->state == HTTP_REPLY_GOES_ON; at += piece) {
        size_t n = len - at < piece ? len - at : piece, body_len = 0;
        memcpy(copy, bytes + at, n);
        http_reply_feed(reply, copy, n, &body_len);
        assert(body_len <= n);
        buf_append(body, copy, body_len);
    }
    http_reply_end(reply);
    mem_free(copy);
}

static void check_fields(const struct http_reply *reply)
{
    size_t at = 0;
    for (size_t i = 0; i < 2 * reply->field_count; i++) {
        at += strlen(reply->text.data + at) + 1;
        assert(at <= reply->text.len);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len < 1)
        return 0;
    struct http_reply replies[2];
    struct buf bodies[2];
    size_t pieces[2] = {len, bytes[0] % 16u + 1};
    for (size_t i = 0; i < 2; i++) {
        buf_init(&bodies[i], 1 << 20);
        http_reply_init(&replies[i]);
        http_reply_clear(&replies[i], bytes[0] >= 240, BODY_BYTES_MAX);
        feed(&replies[i], (const char *)bytes + 1, len - 1, pieces[i], &bodies[i]);
        assert(bodies[i].len <= BODY_BYTES_MAX && replies[i].text.len <= HTTP_CALL_HEAD_BYTES_MAX);
    }
    assert(replies[0].state == replies[1].state && replies[0].has_head == replies[1].has_head);
    if (replies[0].has_head) {
        assert(replies[0].status == replies[1].status && replies[0].field_count == replies[1].field_count);
        assert(replies[0].text.len == replies[1].text.len);
        check_fields(&replies[0]);
    }
    if (replies[0].state != HTTP_REPLY_TOO_LARGE) { /* how much of the last piece is told is not fixed then */
        assert(bodies[0].len == bodies[1].len);
        assert(!bodies[0].len || memcmp(bodies[0].data, bodies[1].data, bodies[0].len) == 0);
    }
    for (size_t i = 0; i < 2; i++) {
        http_reply_release(&replies[i]);
        buf_release(&bodies[i]);
    }
    return 0;
}
