/* A selector's file of any bytes: what opens chooses a context within its budget. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/context.h"
#include "memory/spt.h"

#define ARENA_BYTES_MAX ((size_t)64 << 20)
#define BUDGET 40

static void require(bool condition)
{
    if (!condition)
        abort();
}

static const char *const texts[] = {"My sister Ingrid keeps the lighthouse at Troms\xc3\xb8.",
                                    "What is her boat called?",
                                    "The boat is called Vinterlyst, since last May.",
                                    "And who paints it every 3 years?",
                                    "Ben does, with the dog.",
                                    ""};

static void choose(const struct spt *spt, const char *name, const char *other)
{
    const struct index_params params = {.spt = spt};
    struct memory_index *index;
    struct context_result result;
    struct arena arena;
    struct ph_err err = {.code = PH_OK};
    arena_init(&arena, ARENA_BYTES_MAX);
    require(memory_index_create(&index, &params, &err) == PH_OK);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const struct index_turn turn = {.message = (int64_t)i + 1,
                                        .conversation = 1 + (int64_t)(i / 4),
                                        .role = i % 2 ? "assistant" : "user",
                                        .name = i % 2 ? name : other,
                                        .text = texts[i],
                                        .text_len = strlen(texts[i]),
                                        .created_at = 1700000000 + (int64_t)i * 86400,
                                        .tokens = 12};
        require(memory_index_add(index, &turn) == PH_OK);
    }
    const struct context_request request = {.query = "Who painted the boat in May?",
                                            .query_len = 28,
                                            .budget_tokens = BUDGET,
                                            .strategy = CONTEXT_SPT};
    require(context_build(index, &request, &arena, &result, &err) == PH_OK);
    require(result.tokens <= BUDGET && result.count <= sizeof texts / sizeof texts[0]);
    for (size_t i = 1; i < result.count; i++)
        require(result.items[i].message > result.items[i - 1].message);
    memory_index_free(index);
    arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct spt *spt = NULL;
    struct ph_err err = {.code = PH_OK};
    char path[64];
    int fd = memfd_create("fuzz", 0);
    require(fd >= 0 && write(fd, data, len) == (ssize_t)len);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (spt_open(&spt, path, &err) == PH_OK) {
        choose(spt, NULL, NULL);
        choose(spt, "Ann", "Ben");
        spt_close(spt);
    } else
        require(err.message[0]);
    close(fd);
    return 0;
}
