/* How much memory an engine needs: what it had when this very command last ran, kept beside its log as
 * "BYTES HASH", the hash being the command's; before its first run the size of the GGUF files that the
 * command names, for a model in memory is not smaller than its file. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "provider/provider_engine_int.h"

#define LINE_BYTES_MAX 64
#define SUFFIX ".gguf"

/* ---- Kept */

uint64_t engine_need_recall(const struct engine_files *files, const char *command)
{
    struct buf line;
    struct ph_err err;
    uint64_t bytes = 0;
    if (!file_exists(files->memory))
        return 0;
    buf_init(&line, LINE_BYTES_MAX);
    if (file_read(files->memory, &line, &err) == PH_OK && line.len) {
        char *end;
        bytes = strtoull(line.data, &end, 10);
        if (*end != ' ' || strtoull(end, NULL, 16) != hash_text(command))
            bytes = 0;
    }
    buf_release(&line);
    return bytes;
}

void engine_need_remember(const struct engine_files *files, const char *command, uint64_t bytes)
{
    char line[LINE_BYTES_MAX];
    struct ph_err err;
    int len = snprintf(line, sizeof line, "%llu %llx\n", (unsigned long long)bytes,
                       (unsigned long long)hash_text(command));
    if (file_write_atomic(files->memory, line, (size_t)len, 0600, &err) != PH_OK)
        log_warn("provider", "%s", err.message);
}

/* ---- Guessed */

static uint64_t size_of(const char *path)
{
    struct file_stamp stamp;
    file_stamp(path, &stamp);
    return stamp.bytes;
}

/* A model in parts, NAME-00001-of-00003.gguf, is named by its first; the others lie beside it. */
static uint64_t sum_parts(char *path, size_t len)
{
    static const char pattern[] = "-ddddd-of-ddddd" SUFFIX;
    size_t tail = sizeof pattern - 1;
    char *mark = len > tail ? path + len - tail : NULL;
    uint64_t sum = 0;
    for (size_t i = 0; mark && i < tail; i++)
        if (pattern[i] == 'd' ? !isdigit((unsigned char)mark[i]) : mark[i] != pattern[i])
            mark = NULL;
    if (!mark)
        return size_of(path);
    unsigned long parts = strtoul(mark + sizeof "-ddddd-of-" - 1, NULL, 10);
    for (unsigned long part = 1; part <= parts && part <= SUPERVISED_MODEL_FILES_MAX; part++) {
        char number[8];
        snprintf(number, sizeof number, "%05lu", part);
        memcpy(mark + 1, number, 5);
        sum += size_of(path);
    }
    return sum;
}

/* Words as a shell would part them, roughly: what it would expand is no file and counts for nothing. */
uint64_t engine_need_guess(const char *command)
{
    uint64_t sum = 0;
    int files = 0;
    for (const char *at = command; *at && files < SUPERVISED_MODEL_FILES_MAX;) {
        char path[PATH_BYTES_MAX];
        size_t len = strcspn(at, " \t\n\"'=;&|()<>");
        bool is_model = len > sizeof SUFFIX - 1 && len < sizeof path &&
                        memcmp(at + len - (sizeof SUFFIX - 1), SUFFIX, sizeof SUFFIX - 1) == 0;
        if (is_model) {
            memcpy(path, at, len);
            path[len] = '\0';
            sum += sum_parts(path, len);
            files++;
        }
        at += len + (at[len] != '\0');
    }
    return sum;
}
