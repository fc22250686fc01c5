/* A file of cases of any bytes: what is read names only messages that are there, and each question can be
 * asked of an index of them. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/spt.h"

#define ARENA_BYTES_MAX ((size_t)64 << 20)
#define QUESTIONS_MAX 4 /* asked of a case */

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void ask(const struct memory_index *index, const struct spt_case *one, const struct spt_question *q)
{
    const struct context_request request = {.query = q->query,
                                            .query_len = q->query_len,
                                            .query_name = q->name,
                                            .budget_tokens = 1000,
                                            .strategy = CONTEXT_HYBRID,
                                            .after = q->after,
                                            .before = (int64_t)q->before + 1};
    struct context_ranked *ranked;
    struct arena arena;
    size_t count;
    arena_init(&arena, ARENA_BYTES_MAX);
    require(context_rank(index, &request, &arena, &ranked, &count, NULL) == PH_OK);
    for (size_t i = 0; i < count; i++)
        require(ranked[i].message >= 1 && ranked[i].message <= (int64_t)one->message_count);
    arena_release(&arena);
}

static enum ph_status each(void *ud, const struct spt_case *one)
{
    const struct index_params params = {.spt = NULL};
    struct memory_index *index;
    (void)ud;
    require(one->id && one->source && one->message_count > 0);
    require(spt_case_index(one, &params, &index, NULL) == PH_OK);
    for (size_t i = 0; i < one->question_count; i++) {
        const struct spt_question *q = &one->questions[i];
        require(q->query && q->kind && q->after <= one->message_count && q->before <= one->message_count);
        require(q->quality >= 0 && q->quality <= 1);
        for (size_t k = 0; k < q->evidence_count; k++)
            require(q->evidence[k] < one->message_count);
        if (i < QUESTIONS_MAX)
            ask(index, one, q);
    }
    memory_index_free(index);
    return PH_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct ph_err err = {.code = PH_OK};
    char path[64];
    int fd = memfd_create("fuzz", 0);
    require(fd >= 0 && write(fd, data, len) == (ssize_t)len);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (spt_cases_read(path, each, NULL, &err) != PH_OK)
        require(err.message[0]);
    close(fd);
    return 0;
}
