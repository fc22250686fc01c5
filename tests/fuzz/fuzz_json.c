/* What is read must come out, be read again, be equal, and come out the same. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void visit(struct arena *arena, const struct json *value)
{
    double real;
    int64_t integer, again;
    if (json_to_int64(value, &integer))
        require(json_to_int64(json_new_int(arena, integer), &again) && again == integer);
    if (json_to_double(value, &real)) {
        double back;
        require(json_to_double(json_new_double(arena, real), &back) &&
                memcmp(&real, &back, sizeof real) == 0);
    }
    if (json_is(value, JSON_STRING))
        require(utf8_valid(value->u.str.text, value->u.str.len) && value->u.str.text[value->u.str.len] == 0);
    size_t count = 0;
    JSON_EACH (item, value) {
        visit(arena, item);
        count++;
    }
    require(count == json_count(value));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct buf once, twice;
    struct json *first, *second;
    struct ph_err err = {0};
    arena_init(&arena, 64u << 20);
    buf_init(&once, 16u << 20);
    buf_init(&twice, 16u << 20);
    if (json_parse(&arena, (const char *)data, size, &first, &err) == PH_OK) {
        visit(&arena, first);
        json_write(&once, first);
        require(buf_status(&once) == PH_OK);
        require(json_parse(&arena, once.data, once.len, &second, &err) == PH_OK);
        require(json_equal(first, second) && json_equal(second, first));
        json_write(&twice, json_copy(&arena, second));
        require(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
    } else {
        require(err.code != PH_OK && err.message[0]);
    }
    buf_release(&once);
    buf_release(&twice);
    arena_release(&arena);
    return 0;
}
