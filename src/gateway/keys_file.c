/* The file of keys: one JSON object a line, DIR/keys.jsonl.
 *
 * Reading: the file must be private (base/file.h); an empty line is passed over, any other must be a key, or
 * nothing is read and the error names the line: half a list of keys would let a revoked one in.
 *
 * Writing: under a lock on a file beside it the text is read, one line is replaced or added, and the whole is
 * written anew and renamed into place. Lines that are not changed are copied byte by byte. So a reader sees
 * the old text or the new, and needs no lock. */
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/limits.h"
#include "base/mem.h"
#include "gateway/keys_int.h"

#define LOCK_NAME "keys.lock"
#define LOCK_TIMEOUT_MS 5000
#define LINE_ARENA_BYTES_MAX ((size_t)64 << 20)
#define ID_TRIES_MAX 8

/* ---- Reading */

enum ph_status key_file_path(const char *dir, const char *name, char **out, struct ph_err *err)
{
    struct buf path;
    buf_init(&path, PATH_BYTES_MAX);
    buf_printf(&path, "%s/%s", dir, name);
    enum ph_status status = buf_status(&path);
    *out = status == PH_OK ? buf_take(&path) : NULL;
    buf_release(&path);
    if (status == PH_OK)
        return PH_OK;
    return ph_fail(err, status, "the path of %s in the data directory %s", name,
                   status == PH_ERR_LIMIT ? "is too long" : "finds no memory");
}

static bool is_blank(const char *line, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
            return false;
    return true;
}

static enum ph_status add_line(struct key_file *file, size_t number, size_t offset, size_t len,
                               struct arena *arena, struct ph_err *err)
{
    struct key_line *line = &file->lines[file->count];
    struct json *object;
    struct ph_err inner;
    enum ph_status status = json_parse(arena, file->text.data + offset, len, &object, &inner);
    if (status == PH_OK)
        status = key_line_read(object, &line->key, &inner);
    if (status != PH_OK)
        return ph_fail(err, status, "%s line %zu: %s", file->path, number, inner.message);
    line->number = number;
    line->offset = offset;
    line->len = len;
    file->count++;
    return PH_OK;
}

static enum ph_status read_lines(struct key_file *file, struct ph_err *err)
{
    struct arena arena;
    enum ph_status status = PH_OK;
    size_t room = 0;
    arena_init(&arena, LINE_ARENA_BYTES_MAX);
    for (size_t at = 0, number = 1, len; status == PH_OK && at < file->text.len; at += len + 1, number++) {
        const char *start = file->text.data + at, *end = memchr(start, '\n', file->text.len - at);
        len = end ? (size_t)(end - start) : file->text.len - at;
        if (is_blank(start, len))
            continue;
        if (file->count == KEYS_MAX) {
            status = ph_fail(err, PH_ERR_LIMIT, "%s line %zu: a station has at most %d keys; remove old ones",
                             file->path, number, KEYS_MAX);
            break;
        }
        if (file->count == room) {
            room = room ? 2 * room : 16;
            struct key_line *more = mem_realloc(file->lines, room, sizeof *more);
            if (!more) {
                status = ph_fail(err, PH_ERR_NOMEM, "no memory to read %s", file->path);
                break;
            }
            file->lines = more;
        }
        status = add_line(file, number, at, len, &arena, err);
        arena_clear(&arena);
    }
    arena_release(&arena);
    return status;
}

static int by_id(const void *a, const void *b)
{
    const struct key_line *const *one = a, *const *two = b;
    int order = memcmp((*one)->key.id, (*two)->key.id, KEY_ID_LEN);
    return order ? order : (*one)->number < (*two)->number ? -1 : 1;
}

static enum ph_status check_ids(const struct key_file *file, struct ph_err *err)
{
    if (file->count < 2)
        return PH_OK;
    const struct key_line **sorted = mem_calloc(file->count, sizeof *sorted);
    if (!sorted)
        return ph_fail(err, PH_ERR_NOMEM, "no memory to read %s", file->path);
    for (size_t i = 0; i < file->count; i++)
        sorted[i] = &file->lines[i];
    qsort(sorted, file->count, sizeof *sorted, by_id);
    enum ph_status status = PH_OK;
    for (size_t i = 1; i < file->count && status == PH_OK; i++)
        if (strcmp(sorted[i]->key.id, sorted[i - 1]->key.id) == 0)
            status = ph_fail(err, PH_ERR_FORMAT, "%s line %zu: key %s stands on line %zu already; remove one",
                             file->path, sorted[i]->number, sorted[i]->key.id, sorted[i - 1]->number);
    mem_free(sorted);
    return status;
}

enum ph_status key_file_parse(struct key_file *file, struct ph_err *err)
{
    enum ph_status status = read_lines(file, err);
    return status == PH_OK ? check_ids(file, err) : status;
}

enum ph_status key_file_read(struct key_file *file, const char *dir, struct ph_err *err)
{
    *file = (struct key_file){0};
    buf_init(&file->text, KEYS_FILE_BYTES_MAX);
    enum ph_status status = key_file_path(dir, KEYS_FILE_NAME, &file->path, err);
    if (status != PH_OK)
        return status;
    status = file_read_private(file->path, &file->text, &file->stamp, err);
    if (status == PH_ERR_NOTFOUND)
        return PH_OK;
    return status == PH_OK ? key_file_parse(file, err) : status;
}

void key_file_release(struct key_file *file)
{
    mem_free(file->path);
    mem_free(file->lines);
    buf_release(&file->text);
    *file = (struct key_file){0};
}

enum ph_status keys_list(struct arena *arena, const char *dir, struct key **out, size_t *count,
                         struct ph_err *err)
{
    struct key_file file;
    *out = NULL;
    *count = 0;
    enum ph_status status = key_file_read(&file, dir, err);
    struct key *keys = status == PH_OK ? arena_calloc(arena, file.count, sizeof *keys) : NULL;
    if (status == PH_OK && !keys)
        status = ph_fail(err, PH_ERR_NOMEM, "no memory for the list of keys");
    for (size_t i = 0; status == PH_OK && i < file.count; i++)
        keys[i] = file.lines[i].key;
    if (status == PH_OK) {
        *out = keys;
        *count = file.count;
    }
    key_file_release(&file);
    return status;
}

/* ---- Writing */

struct edit {
    struct key_file file;
    struct arena arena;
    int lock;
    const struct clock_source *clock;
};

static enum ph_status edit_begin(struct edit *edit, const char *dir, const struct clock_source *clock,
                                 struct ph_err *err)
{
    *edit = (struct edit){.lock = -1, .clock = clock};
    arena_init(&edit->arena, LINE_ARENA_BYTES_MAX);
    buf_init(&edit->file.text, KEYS_FILE_BYTES_MAX);
    char *path = NULL;
    enum ph_status status = file_make_private_dir(dir, err);
    if (status == PH_OK)
        status = key_file_path(dir, LOCK_NAME, &path, err);
    if (status == PH_OK)
        status = file_lock_wait(path, LOCK_TIMEOUT_MS, &edit->lock, err);
    mem_free(path);
    return status == PH_OK ? key_file_read(&edit->file, dir, err) : status;
}

static void edit_end(struct edit *edit)
{
    file_unlock(edit->lock);
    arena_release(&edit->arena);
    key_file_release(&edit->file);
}

static struct key_line *find_line(struct edit *edit, const char *id)
{
    for (size_t i = 0; i < edit->file.count; i++)
        if (strcmp(edit->file.lines[i].key.id, id) == 0)
            return &edit->file.lines[i];
    return NULL;
}

static enum ph_status need_line(struct edit *edit, const char *id, struct key_line **out, struct ph_err *err)
{
    *out = find_line(edit, id);
    if (*out)
        return PH_OK;
    return ph_fail(err, PH_ERR_NOTFOUND, "there is no key %s in %s; pharos keys ls shows the ids", id,
                   edit->file.path);
}

static int64_t now_of(const struct edit *edit)
{
    return clock_unix_ms(edit->clock) / 1000;
}

/* The file's text with one line as `changed` has it (NULL: none) and one more at its end (NULL: none). */
static enum ph_status edit_commit(struct edit *edit, const struct key_line *changed, const struct key *added,
                                  struct ph_err *err)
{
    struct buf out;
    struct json *object = NULL;
    const char *text = edit->file.text.data ? edit->file.text.data : "";
    size_t len = edit->file.text.len, from = changed ? changed->offset : len;
    size_t till = changed ? from + changed->len : len;
    enum ph_status status = PH_OK;
    buf_init(&out, KEYS_FILE_BYTES_MAX);
    buf_append(&out, text, from);
    if (changed) {
        status = json_parse(&edit->arena, text + from, changed->len, &object, err);
        if (status == PH_OK)
            status = key_line_update(&edit->arena, object, &changed->key);
        json_write(&out, object);
    }
    buf_append(&out, text + till, len - till);
    if (out.len && out.data[out.len - 1] != '\n')
        buf_putc(&out, '\n');
    if (added && status == PH_OK) {
        object = json_new(&edit->arena, JSON_OBJECT);
        status = object ? key_line_update(&edit->arena, object, added) : PH_ERR_NOMEM;
        json_write(&out, object);
        buf_putc(&out, '\n');
    }
    if (status == PH_OK)
        status = buf_status(&out);
    if (status != PH_OK)
        ph_fail(err, status, "%s cannot be written: %s", edit->file.path,
                status == PH_ERR_LIMIT ? "it would be too long; remove old keys" : ph_status_name(status));
    else
        status = file_write_private(edit->file.path, out.data, out.len, err);
    buf_release(&out);
    return status;
}

/* Gives `key` an id that is not there yet, a secret's hash, and the time. */
static enum ph_status make_key(struct edit *edit, struct key *key, char text[KEY_TEXT_MAX],
                               struct ph_err *err)
{
    struct key_parts parts;
    if (edit->file.count == KEYS_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%s has %d keys, the most there can be; remove old ones",
                       edit->file.path, KEYS_MAX);
    for (int tries = 0; tries < ID_TRIES_MAX; tries++) {
        if (!key_text_make(text, &parts))
            return ph_fail(err, PH_ERR_IO, "the system gives no random numbers");
        if (find_line(edit, parts.id))
            continue;
        memcpy(key->id, parts.id, sizeof key->id);
        key->created_unix_s = now_of(edit);
        key->revoked_unix_s = 0;
        key->replaced_by[0] = 0;
        if (EVP_Digest(parts.secret, KEY_SECRET_LEN, key->hash, NULL, EVP_sha256(), NULL) != 1)
            return ph_fail(err, PH_ERR_INTERNAL, "OpenSSL has no SHA-256");
        return PH_OK;
    }
    return ph_fail(err, PH_ERR_INTERNAL, "the system's random numbers repeat themselves");
}

enum ph_status keys_create(const char *dir, const struct clock_source *clock, const struct key *spec,
                           struct key *out, char text[KEY_TEXT_MAX], struct ph_err *err)
{
    struct edit edit;
    struct key key = *spec;
    text[0] = 0;
    enum ph_status status = key_spec_check(spec, err);
    if (status == PH_OK && spec->expires_unix_s && spec->expires_unix_s <= clock_unix_ms(clock) / 1000)
        status = ph_fail(err, PH_ERR_ARG, "the key would expire before it begins; name a later time");
    if (status != PH_OK)
        return status;
    status = edit_begin(&edit, dir, clock, err);
    if (status == PH_OK)
        status = make_key(&edit, &key, text, err);
    if (status == PH_OK) {
        memcpy(key.account, key.id, sizeof key.account);
        status = edit_commit(&edit, NULL, &key, err);
    }
    edit_end(&edit);
    if (status == PH_OK)
        *out = key;
    else
        text[0] = 0;
    return status;
}

enum ph_status keys_revoke(const char *dir, const struct clock_source *clock, const char *id,
                           struct ph_err *err)
{
    struct edit edit;
    struct key_line *line;
    enum ph_status status = edit_begin(&edit, dir, clock, err);
    if (status == PH_OK)
        status = need_line(&edit, id, &line, err);
    if (status == PH_OK && !line->key.revoked_unix_s) {
        line->key.revoked_unix_s = now_of(&edit);
        status = edit_commit(&edit, line, NULL, err);
    }
    edit_end(&edit);
    return status;
}

static enum ph_status check_rotatable(const struct edit *edit, const struct key *key, struct ph_err *err)
{
    if (key->replaced_by[0])
        return ph_fail(err, PH_ERR_ARG, "key %s was rotated already; rotate %s, which replaces it", key->id,
                       key->replaced_by);
    enum key_verdict state = key_state(key, now_of(edit));
    if (state != KEY_OK)
        return ph_fail(err, PH_ERR_ARG, "key %s %s; create a new one", key->id,
                       state == KEY_REVOKED ? "is revoked" : "has expired");
    return PH_OK;
}

enum ph_status keys_rotate(const char *dir, const struct clock_source *clock, const char *id,
                           int64_t overlap_s, struct key *out, char text[KEY_TEXT_MAX], struct ph_err *err)
{
    struct edit edit;
    struct key_line *line = NULL;
    struct key key = {0};
    text[0] = 0;
    enum ph_status status = edit_begin(&edit, dir, clock, err);
    if (status == PH_OK)
        status = need_line(&edit, id, &line, err);
    if (status == PH_OK)
        status = check_rotatable(&edit, &line->key, err);
    if (status == PH_OK) {
        key = line->key;
        status = make_key(&edit, &key, text, err);
    }
    if (status == PH_OK) {
        int64_t until_unix_s = now_of(&edit) + (overlap_s > 0 ? overlap_s : 0);
        if (!line->key.expires_unix_s || line->key.expires_unix_s > until_unix_s)
            line->key.expires_unix_s = until_unix_s;
        memcpy(line->key.replaced_by, key.id, sizeof key.id);
        status = edit_commit(&edit, line, &key, err);
    }
    edit_end(&edit);
    if (status == PH_OK)
        *out = key;
    else
        text[0] = 0;
    return status;
}
