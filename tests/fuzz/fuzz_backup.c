/* Bytes as the list of a snapshot. One that is taken keeps what restoring relies on, and comes out of the writer
 * as a list that says the same. */
#include <stdlib.h>
#include <string.h>

#include "ops/backup_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void check_entry(const struct backup_entry *entry)
{
    uint64_t sum = 0;
    require(backup_path_is_safe(entry->path, strlen(entry->path)));
    require(entry->path[0] != '/' && entry->path[0] != '.' && !strstr(entry->path, "/../"));
    require((entry->mode & ~0755u) == 0);
    for (size_t i = 0; i < entry->chunk_count; i++) {
        require(entry->chunks[i].bytes > 0 && entry->chunks[i].bytes <= BACKUP_CHUNK_BYTES_MAX);
        sum += entry->chunks[i].bytes;
    }
    require(sum == entry->bytes && sum <= BACKUP_FILE_BYTES_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct arena arena;
    struct backup_list list, again;
    struct ph_err err;
    arena_init(&arena, (size_t)512 << 20);
    if (backup_list_parse(&arena, (const char *)bytes, len, &list, &err) == PH_OK) {
        struct buf text, twice;
        for (size_t i = 0; i < list.count; i++)
            check_entry(&list.entries[i]);
        buf_init(&text, BACKUP_LIST_BYTES_MAX);
        buf_init(&twice, BACKUP_LIST_BYTES_MAX);
        backup_list_write(&list, &text);
        require(backup_list_parse(&arena, text.data, text.len, &again, &err) == PH_OK);
        backup_list_write(&again, &twice);
        require(text.len == twice.len && memcmp(text.data, twice.data, text.len) == 0);
        buf_release(&text);
        buf_release(&twice);
    } else {
        require(strlen(err.message) > 0);
    }
    arena_release(&arena);
    return 0;
}
