/* The list of a snapshot: written as JSON, read as hostile JSON.
 *
 * L1. A path is relative, of plain names, and no two of a list are the same: nothing that is restored can
 *     lie outside, or be written twice.
 * L2. Lengths of chunks add up to the file's, and each is at most BACKUP_CHUNK_BYTES_MAX: whoever unpacks
 *     knows how much room it takes. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "ops/backup_int.h"

#define FORMAT_VERSION 1
#define NAME_BYTES_MAX 255
#define MODES_ALLOWED 0755u

static const char *const kinds[] = {
    [BACKUP_FILE] = "file", [BACKUP_SQLITE] = "sqlite", [BACKUP_GGUF] = "gguf"};
#define KIND_COUNT (sizeof kinds / sizeof *kinds)

/* ---- Names */

void backup_id_make(int64_t created_ms, const struct digest *digest, char out[BACKUP_ID_BYTES])
{
    struct clock_date date = clock_date(clock_day(created_ms));
    char text[DIGEST_TEXT_BYTES];
    int64_t ms = created_ms - clock_day(created_ms) * CLOCK_MS_PER_DAY;
    unsigned seconds = (unsigned)(ms / 1000);
    digest_text(digest, text);
    snprintf(out, BACKUP_ID_BYTES, "%04u%02u%02uT%02u%02u%02u%03uZ-%.16s", (unsigned)(date.year % 10000),
             (unsigned)date.month % 100, (unsigned)date.day % 100, seconds / 3600 % 100, seconds / 60 % 60,
             seconds % 60, (unsigned)(ms % 1000), text);
}

bool backup_id_is(const char *text)
{
    static const char pattern[] = "ddddddddTdddddddddZ-xxxxxxxxxxxxxxxx";
    if (strlen(text) != sizeof pattern - 1)
        return false;
    for (size_t i = 0; pattern[i]; i++) {
        bool is_digit = text[i] >= '0' && text[i] <= '9';
        bool fits = pattern[i] == 'd'   ? is_digit
                    : pattern[i] == 'x' ? is_digit || (text[i] >= 'a' && text[i] <= 'f')
                                        : text[i] == pattern[i];
        if (!fits)
            return false;
    }
    return true;
}

bool backup_path_is_safe(const char *path, size_t len)
{
    size_t name = 0; /* bytes of the last name so far */
    if (len == 0 || len >= BACKUP_PATH_BYTES_MAX || path[0] == '.')
        return false;
    for (size_t i = 0; i <= len; i++) {
        bool ends = i == len || path[i] == '/';
        const char *start = path + i - name;
        bool is_dots = (name == 1 && start[0] == '.') || (name == 2 && start[0] == '.' && start[1] == '.');
        if (ends && (name == 0 || name > NAME_BYTES_MAX || is_dots))
            return false;
        if (!ends && ((unsigned char)path[i] < ' ' || path[i] == 0x7f || path[i] == '\\'))
            return false;
        name = ends ? 0 : name + 1;
    }
    return true;
}

/* ---- Writing */

static void write_text(struct buf *out, const char *key, const char *text)
{
    buf_printf(out, ",\"%s\":", key);
    json_write_string(out, text, strlen(text));
}

static void write_entry(const struct backup_entry *entry, struct buf *out)
{
    char digest[DIGEST_TEXT_BYTES];
    const struct file_stamp *stamp = &entry->stamp;
    digest_text(&entry->digest, digest);
    buf_puts(out, "{\"path\":");
    json_write_string(out, entry->path, strlen(entry->path));
    write_text(out, "from", entry->from);
    buf_printf(out, ",\"kind\":\"%s\",\"bytes\":%" PRIu64 ",\"mode\":%u,\"sha256\":\"%s\"",
               kinds[entry->kind], entry->bytes, entry->mode, digest);
    if (stamp->inode)
        buf_printf(out, ",\"stamp\":[%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 "]",
                   (int64_t)stamp->device, (int64_t)stamp->inode, stamp->modified_ns, stamp->changed_ns);
    for (size_t i = 0; i < entry->row_count; i++) {
        buf_puts(out, i ? "," : ",\"rows\":{");
        json_write_string(out, entry->rows[i].table, strlen(entry->rows[i].table));
        buf_printf(out, ":%" PRId64 "%s", entry->rows[i].count, i + 1 == entry->row_count ? "}" : "");
    }
    buf_puts(out, ",\"chunks\":[");
    for (size_t i = 0; i < entry->chunk_count; i++) {
        digest_text(&entry->chunks[i].digest, digest);
        buf_printf(out, "%s[\"%s\",%" PRIu32 "]", i ? "," : "", digest, entry->chunks[i].bytes);
    }
    buf_puts(out, "]}");
}

void backup_list_write(const struct backup_list *list, struct buf *out)
{
    char time[CLOCK_UTC_TEXT_MAX];
    clock_format_utc(list->created_ms, time);
    buf_printf(out, "{\"pharos_backup\":%d,\"created_ms\":%" PRId64, FORMAT_VERSION, list->created_ms);
    write_text(out, "created", time);
    write_text(out, "host", list->host);
    write_text(out, "version", list->version);
    buf_puts(out, ",\"left_out\":[");
    for (size_t i = 0; i < list->left_out_count; i++) {
        buf_puts(out, i ? "," : "");
        json_write_string(out, list->left_out[i], strlen(list->left_out[i]));
    }
    buf_puts(out, "],\"files\":[");
    for (size_t i = 0; i < list->count; i++) {
        buf_puts(out, i ? "," : "");
        write_entry(&list->entries[i], out);
    }
    buf_puts(out, "]}");
}

/* ---- Reading */

/* The JSON is several times as large as what is kept of it, and lists of many snapshots are kept at once. */
struct reader {
    struct arena *arena; /* of the list; the JSON has its own */
    struct ph_err *err;
    const char *where; /* a file's path, for errors */
};

static enum ph_status bad(const struct reader *r, const char *what)
{
    return ph_fail(r->err, PH_ERR_FORMAT, "%.200s: %s", r->where, what);
}

/* Texts are printed and are paths: no 0 in them. In the list's arena. */
static const char *text_of(const struct reader *r, const struct json *object, const char *key)
{
    const struct json *value = json_get(object, key);
    const char *text = json_text(value, NULL);
    return text && strlen(text) == value->u.str.len ? arena_strdup(r->arena, text) : NULL;
}

static bool number_of(const struct json *value, int64_t max, int64_t *out)
{
    return json_to_int64(value, out) && *out >= 0 && *out <= max;
}

static enum ph_status read_chunks(const struct reader *r, const struct json *chunks,
                                  struct backup_entry *entry)
{
    uint64_t sum = 0;
    if (!json_is(chunks, JSON_ARRAY))
        return bad(r, "it has no list of chunks");
    entry->chunks = arena_calloc(r->arena, json_count(chunks) + 1, sizeof *entry->chunks);
    if (!entry->chunks)
        return ph_fail(r->err, PH_ERR_NOMEM, "no memory for so many chunks");
    JSON_EACH (item, chunks) {
        struct backup_chunk *chunk = &entry->chunks[entry->chunk_count++];
        const struct json *digest = json_at(item, 0);
        int64_t bytes;
        if (!json_is(item, JSON_ARRAY) || json_count(item) != 2 || !json_is(digest, JSON_STRING) ||
            !digest_parse(digest->u.str.text, digest->u.str.len, &chunk->digest) ||
            !number_of(json_at(item, 1), (int64_t)BACKUP_CHUNK_BYTES_MAX, &bytes) || bytes == 0)
            return bad(r, "a chunk is none");
        chunk->bytes = (uint32_t)bytes;
        sum += chunk->bytes;
    }
    return sum == entry->bytes ? PH_OK : bad(r, "its chunks are not as long as it is");
}

static enum ph_status read_rows(const struct reader *r, const struct json *rows, struct backup_entry *entry)
{
    if (!rows)
        return PH_OK;
    if (!json_is(rows, JSON_OBJECT))
        return bad(r, "its counts of rows are none");
    entry->rows = arena_calloc(r->arena, json_count(rows) + 1, sizeof *entry->rows);
    if (!entry->rows)
        return ph_fail(r->err, PH_ERR_NOMEM, "no memory for the counts of rows");
    JSON_EACH (item, rows) {
        struct backup_rows *row = &entry->rows[entry->row_count++];
        row->table = arena_strdup(r->arena, item->key);
        if (!row->table)
            return ph_fail(r->err, PH_ERR_NOMEM, "no memory for the counts of rows");
        if (strlen(item->key) != item->key_len || !number_of(item, INT64_MAX, &row->count))
            return bad(r, "a count of rows is none");
    }
    return PH_OK;
}

static enum ph_status read_stamp(const struct reader *r, const struct json *stamp, struct backup_entry *entry)
{
    int64_t values[4];
    size_t count = 0;
    if (!stamp)
        return PH_OK;
    JSON_EACH (item, stamp) {
        if (count == 4 || !json_to_int64(item, &values[count++]))
            return bad(r, "its stamp is none");
    }
    if (count != 4)
        return bad(r, "its stamp is none");
    entry->stamp = (struct file_stamp){.device = (uint64_t)values[0],
                                       .inode = (uint64_t)values[1],
                                       .bytes = entry->bytes,
                                       .modified_ns = values[2],
                                       .changed_ns = values[3]};
    return PH_OK;
}

static enum ph_status read_entry(struct reader *r, const struct json *item, struct backup_entry *entry)
{
    const char *digest = text_of(r, item, "sha256"), *kind = text_of(r, item, "kind");
    int64_t bytes, mode;
    size_t k = 0;
    r->where = "a file without a path";
    entry->path = text_of(r, item, "path");
    entry->from = text_of(r, item, "from");
    if (!entry->path || !entry->from)
        return bad(r, "it is none");
    r->where = entry->path;
    if (!backup_path_is_safe(entry->path, strlen(entry->path)))
        return bad(r, "a path that would leave the place of a restore, or is none");
    while (k < KIND_COUNT && !(kind && strcmp(kinds[k], kind) == 0))
        k++;
    if (k == KIND_COUNT)
        return bad(r, "its kind is not known; a newer pharos may know it");
    entry->kind = (enum backup_kind)k;
    if (!number_of(json_get(item, "bytes"), (int64_t)BACKUP_FILE_BYTES_MAX, &bytes) ||
        !number_of(json_get(item, "mode"), 07777, &mode) || !digest ||
        !digest_parse(digest, strlen(digest), &entry->digest))
        return bad(r, "its length, mode or SHA-256 is none");
    entry->bytes = (uint64_t)bytes;
    entry->mode = ((unsigned)mode & MODES_ALLOWED) | 0600;
    enum ph_status status = read_chunks(r, json_get(item, "chunks"), entry);
    if (status == PH_OK)
        status = read_rows(r, json_get(item, "rows"), entry);
    return status == PH_OK ? read_stamp(r, json_get(item, "stamp"), entry) : status;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum ph_status check_unique(const struct reader *r, const struct backup_list *list)
{
    const char **paths = arena_calloc(r->arena, list->count + 1, sizeof *paths);
    if (!paths)
        return ph_fail(r->err, PH_ERR_NOMEM, "no memory for so many files");
    for (size_t i = 0; i < list->count; i++)
        paths[i] = list->entries[i].path;
    qsort(paths, list->count, sizeof *paths, compare_paths);
    for (size_t i = 1; i < list->count; i++)
        if (strcmp(paths[i - 1], paths[i]) == 0)
            return ph_fail(r->err, PH_ERR_FORMAT, "%.200s: the list has it twice", paths[i]);
    return PH_OK;
}

static enum ph_status read_left_out(const struct reader *r, const struct json *lines,
                                    struct backup_list *list)
{
    list->left_out = arena_calloc(r->arena, json_count(lines) + 1, sizeof *list->left_out);
    if (!list->left_out)
        return ph_fail(r->err, PH_ERR_NOMEM, "no memory for a list");
    JSON_EACH (item, lines) {
        const char *line = json_text(item, NULL);
        list->left_out[list->left_out_count] = line ? arena_strdup(r->arena, line) : NULL;
        if (!list->left_out[list->left_out_count++])
            return bad(r, "what was left out is no text");
    }
    return PH_OK;
}

static enum ph_status read_root(struct reader *r, const struct json *root, struct backup_list *out)
{
    const struct json *files = json_get(root, "files");
    int64_t version;
    if (!json_to_int64(json_get(root, "pharos_backup"), &version))
        return bad(r, "it is no list of a backup");
    if (version != FORMAT_VERSION)
        return ph_fail(r->err, PH_ERR_UNSUPPORTED, "its format is %" PRId64 "; this pharos knows %d", version,
                       FORMAT_VERSION);
    out->host = text_of(r, root, "host");
    out->version = text_of(r, root, "version");
    if (!number_of(json_get(root, "created_ms"), INT64_C(253402300799999), &out->created_ms) || !out->host ||
        !out->version || !json_is(files, JSON_ARRAY))
        return bad(r, "it lacks its time, host, version or files");
    if (json_count(files) > BACKUP_FILES_MAX)
        return ph_fail(r->err, PH_ERR_LIMIT, "it has more than %d files", BACKUP_FILES_MAX);
    enum ph_status status = read_left_out(r, json_get(root, "left_out"), out);
    out->entries = arena_calloc(r->arena, json_count(files) + 1, sizeof *out->entries);
    if (status == PH_OK && !out->entries)
        status = ph_fail(r->err, PH_ERR_NOMEM, "no memory for so many files");
    for (const struct json *item = json_first(files); item && status == PH_OK; item = item->next)
        status = read_entry(r, item, &out->entries[out->count++]);
    return status == PH_OK ? check_unique(r, out) : status;
}

enum ph_status backup_list_parse(struct arena *arena, const char *text, size_t len, struct backup_list *out,
                                 struct ph_err *err)
{
    struct json *root;
    struct arena scratch;
    struct reader r = {.arena = arena, .err = err, .where = "the list"};
    *out = (struct backup_list){.created_ms = 0};
    arena_init(&scratch, BACKUP_ARENA_BYTES_MAX);
    enum ph_status status = json_parse(&scratch, text, len, &root, err);
    if (status == PH_OK)
        status = read_root(&r, root, out);
    arena_release(&scratch);
    return status;
}
