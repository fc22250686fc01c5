/* Any bytes as a key, as a line, and as the file of keys; what is read is written and read again. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
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

static void as_file(const char *text, size_t len)
{
    struct ph_err err = {0};
    struct key_file file = {.path = mem_strdup("fuzz")};
    require(file.path != NULL);
    buf_init(&file.text, len + 1);
    buf_append(&file.text, text, len);
    enum ph_status status = key_file_parse(&file, &err);
    require(status == PH_OK || strncmp(err.message, "fuzz line ", 10) == 0);
    for (size_t i = 0; i < file.count; i++) {
        const struct key_line *line = &file.lines[i];
        require(line->offset + line->len <= len && !memchr(text + line->offset, '\n', line->len));
        require(i == 0 || line->number > file.lines[i - 1].number);
    }
    key_file_release(&file);
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
    as_file(exact, size);
    free(exact);
    return 0;
}
