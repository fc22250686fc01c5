/* A file of vectors that was changed at any places: it opens as far as it is whole, and can be searched and
 * added to. The input: a byte for the number of rows, then changes of 4 bytes each: where (3), what (1). */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "memory/vectors.h"

#define WIDTH 4
#define ROWS_MAX 600 /* three chunks */
#define HITS 8

static void require(bool condition)
{
    if (!condition)
        abort();
}

static char dir[64];
static struct vector_home *home;
static const struct vectors_params params = {.user = 3, .space = "fuzz", .width = WIDTH};

static void remove_dir(void)
{
    vector_home_close(home);
    (void)file_remove_dir(dir, NULL);
}

static struct vectors *open_vectors(void)
{
    struct vectors *vectors = NULL;
    struct vectors_params with_home = params;
    with_home.home = home;
    require(vectors_open(&vectors, &with_home, NULL) == PH_OK);
    return vectors;
}

static void add(struct vectors *vectors, int64_t message)
{
    const float vector[WIDTH] = {0.5f, -0.5f, message % 2 ? 0.5f : -0.5f, 0.5f};
    require(vectors_add(vectors, message, message % 5, vector, NULL) == PH_OK);
}

/* A whole file with so many rows, half of which are known to be on the disk. */
static void write_file(size_t rows)
{
    struct vectors *vectors = open_vectors();
    require(vectors_clear(vectors, NULL) == PH_OK);
    for (size_t i = 0; i < rows; i++) {
        add(vectors, (int64_t)i + 1);
        if (i == rows / 2)
            require(vectors_sync(vectors, NULL) == PH_OK);
    }
    vectors_close(vectors);
}

static void change_file(const uint8_t *data, size_t len)
{
    char path[512] = "";
    DIR *list = opendir(dir);
    require(list != NULL);
    for (const struct dirent *entry; (entry = readdir(list));)
        if (strstr(entry->d_name, ".vec"))
            snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
    closedir(list);
    int fd = open(path, O_RDWR);
    require(fd >= 0);
    off_t size = lseek(fd, 0, SEEK_END);
    for (; len >= 4; data += 4, len -= 4) {
        off_t at = (data[0] | data[1] << 8 | data[2] << 16) % size;
        if (data[2] == 255) /* cut or longer */
            require(ftruncate(fd, at) == 0);
        else
            require(pwrite(fd, &data[3], 1, at) == 1);
    }
    close(fd);
}

static void use(struct vectors *vectors)
{
    static const float query[WIDTH] = {0.5f, -0.5f, 0.5f, 0.5f};
    struct vectors_hit hits[HITS];
    const struct vectors_filter filter = {.conversation = 2, .after = 1, .before = 300};
    float vector[WIDTH];
    size_t count = vectors_count(vectors);
    require(vectors_search(vectors, query, HITS, NULL, hits) <= HITS);
    require(vectors_search(vectors, query, HITS, &filter, hits) <= HITS);
    for (int64_t message = 0; message < 8; message++)
        (void)vectors_get(vectors, message * 71, vector);
    if (vectors_last(vectors) < INT64_MAX) {
        int64_t next = vectors_last(vectors) < 0 ? 1 : vectors_last(vectors) + 1;
        add(vectors, next);
        require(vectors_count(vectors) == count + 1 && vectors_last(vectors) == next);
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    snprintf(dir, sizeof dir, "%s/pharos-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    require(mkdtemp(dir) != NULL && vector_home_open(&home, dir, NULL) == PH_OK);
    atexit(remove_dir);
    log_setup(2, LOG_ERROR, false);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len == 0)
        return 0;
    write_file((size_t)data[0] * ROWS_MAX / 255);
    change_file(data + 1, len - 1);
    struct vectors *vectors = open_vectors();
    use(vectors);
    vectors_close(vectors);
    return 0;
}
