/* Fuzzer of the request parser: the verdict on some bytes must not depend on how they are cut. The first byte of
 * the input seeds the cuts; what follows is fed whole, and again in pieces. After each request that is complete the
 * next one begins in the rest, as on a connection. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "net/http_parse_int.h"

#define BODY_MAX 5000
#define CHECK(condition)  \
    do {                  \
        if (!(condition)) \
            abort();      \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Feeds one request from bytes; pieces are copies of their own, so that reading past one is seen. seed 0: whole. */
static enum http_event parse(struct http_reader *parser, const char *bytes, size_t len, unsigned seed,
                             size_t *taken)
{
    enum http_event event = HTTP_EVENT_MORE;
    size_t heads = 0;
    *taken = 0;
    while (*taken < len && event != HTTP_EVENT_DONE && event != HTTP_EVENT_REFUSED) {
        size_t size = len - *taken, used = 0;
        if (seed) {
            seed = seed * 1103515245u + 12345u;
            size_t piece = 1 + (seed >> 16) % 7;
            size = piece < size ? piece : size;
        }
        char *piece = mem_alloc(size);
        if (!piece)
            break;
        memcpy(piece, bytes + *taken, size);
        event = http_reader_feed(parser, piece, size, &used);
        mem_free(piece);
        CHECK(used <= size);
        CHECK(event != HTTP_EVENT_MORE || used == size);
        heads += event == HTTP_EVENT_HEAD;
        *taken += used;
    }
    CHECK(heads <= 1);
    return event;
}

static void check_request(const struct http_reader *p)
{
    const char *text = p->text.data;
    CHECK(text[p->path] == '/');
    CHECK(p->path < p->text.len && p->query < p->text.len);
    CHECK(p->field_count <= HTTP_HEADER_COUNT_MAX);
    CHECK(p->body.len <= BODY_MAX);
    for (size_t i = 0; i < p->field_count; i++) {
        CHECK(p->fields[i].name < p->fields[i].value && p->fields[i].value < p->text.len);
        CHECK(text[p->fields[i].name] != 0);
        CHECK(!strpbrk(text + p->fields[i].value, "\r\n"));
    }
}

static void check_same(const struct http_reader *a, const struct http_reader *b)
{
    CHECK(a->text.len == b->text.len && memcmp(a->text.data, b->text.data, a->text.len) == 0);
    CHECK(a->body.len == b->body.len);
    CHECK(a->body.len == 0 || memcmp(a->body.data, b->body.data, a->body.len) == 0);
    CHECK(a->field_count == b->field_count && a->path == b->path && a->query == b->query);
    CHECK(memcmp(a->fields, b->fields, a->field_count * sizeof *a->fields) == 0);
    CHECK(a->keep_alive == b->keep_alive && a->version == b->version);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct http_reader whole, cut;
    http_reader_init(&whole, BODY_MAX);
    http_reader_init(&cut, BODY_MAX);
    const char *bytes = (const char *)data + 1;
    size_t len = size - 1, a = 0, b = 0;
    enum http_event event;
    do {
        event = parse(&whole, bytes, len, 0, &a);
        enum http_event again = parse(&cut, bytes, len, 1u + data[0], &b);
        bool is_over = event == HTTP_EVENT_DONE || event == HTTP_EVENT_REFUSED;
        CHECK(!is_over || event == again);
        CHECK(is_over || (again != HTTP_EVENT_DONE && again != HTTP_EVENT_REFUSED));
        if (event == HTTP_EVENT_REFUSED)
            CHECK(whole.status == cut.status && strcmp(whole.reason, cut.reason) == 0);
        if (event == HTTP_EVENT_DONE) {
            CHECK(a == b);
            check_request(&whole);
            check_same(&whole, &cut);
        }
        bytes += a;
        len -= a;
        http_reader_clear(&whole);
        http_reader_clear(&cut);
    } while (event == HTTP_EVENT_DONE && len);
    http_reader_release(&whole);
    http_reader_release(&cut);
    return 0;
}
