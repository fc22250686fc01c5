/* Server-sent events: cut anywhere, the same events come out, and no more memory is taken than allowed. The
 * first byte says how long the pieces are. */
#include <assert.h>
#include <string.h>

#include "base/buf.h"
#include "chat/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#define EVENT_BYTES_MAX 200

static bool on_event(void *ud, const char *name, const char *data, size_t len)
{
    assert(len <= EVENT_BYTES_MAX && strlen(name) <= EVENT_BYTES_MAX && data[len] == 0);
    buf_puts(ud, name);
    buf_putc(ud, '\n');
    buf_append(ud, data, len);
    buf_putc(ud, '\n');
    return true;
}

static enum ph_status feed(const char *bytes, size_t len, size_t piece, struct buf *out)
{
    struct chat_sse sse;
    enum ph_status status = PH_OK;
    chat_sse_init(&sse, EVENT_BYTES_MAX);
    for (size_t at = 0; at < len && status == PH_OK; at += piece)
        status = chat_sse_feed(&sse, bytes + at, len - at < piece ? len - at : piece, on_event, out);
    chat_sse_release(&sse);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len < 2)
        return 0;
    struct buf whole, cut;
    buf_init(&whole, 1 << 24);
    buf_init(&cut, 1 << 24);
    const char *text = (const char *)bytes + 1;
    assert(feed(text, len - 1, len, &whole) == feed(text, len - 1, bytes[0] % 16u + 1, &cut));
    assert(whole.len == cut.len && (whole.len == 0 || memcmp(whole.data, cut.data, whole.len) == 0));
    buf_release(&whole);
    buf_release(&cut);
    return 0;
}
