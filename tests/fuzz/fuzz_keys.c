/* Any bytes as a key, then as the file of keys, a line at a time; what is read is written and read again. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "gateway/keys_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void as_text(const char *text, size_t len)
{
    struct key_parts parts;
    if (!key_text_parse(text, len, &parts))
        return;
    require(len < KEY_TEXT_MAX && key_id_is_valid(parts.id));
    require(parts.secret > text && parts.secret + KEY_SECRET_LEN < text + len);
}

static void as_line(const char *text, size_t len)
{
    struct arena arena;
    struct ph_err err = {0};
    struct json *object, *again;
    struct key key, back;
    arena_init(&arena, 16u << 20);
    if (json_parse(&arena, text, len, &object, &err) == PH_OK) {
        enum ph_status status = key_line_read(object, &key, &err);
        if (status == PH_OK) {
            struct buf out;
            buf_init(&out, 16u << 20);
            require(key_id_is_valid(key.id) && utf8_valid(key.name, strlen(key.name)));
            require(key.scope_count <= KEY_SCOPES_MAX && key.rpm >= 0 && key.expires_unix_s >= 0);
            (void)key_allows(&key, "chat");
            (void)key_allows_model(&key, "small");
            require(key_line_update(&arena, object, &key) == PH_OK);
            json_write(&out, object);
            require(buf_status(&out) == PH_OK);
            require(json_parse(&arena, out.data, out.len, &again, &err) == PH_OK);
            require(key_line_read(again, &back, &err) == PH_OK);
            struct buf second;
            buf_init(&second, 16u << 20);
            require(key_line_update(&arena, again, &back) == PH_OK);
            json_write(&second, again);
            require(second.len == out.len && memcmp(second.data, out.data, out.len) == 0);
            buf_release(&second);
            buf_release(&out);
        } else {
            require(err.code == status && err.message[0]);
        }
    }
    arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1); /* of exactly that size, so that reading beyond is seen */
    require(text != NULL);
    if (size > 0)
        memcpy(text, data, size);
    char *exact = realloc(text, size ? size : 1);
    as_text(exact, size);
    as_line(exact, size);
    free(exact);
    return 0;
}
