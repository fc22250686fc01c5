/* How near messages are to a query in meaning, by the station's embedding model, from the vectors that the
 * worker has stored. Contexts get better by it and are built without it: what fails here is logged, and
 * nobody waits for a message that has no vector yet. */
#include <stdio.h>
#include <stdlib.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "memory/memory_int.h"

enum ph_status memory_use_embedder(struct memory *memory, struct embedder *embedder, struct ph_err *err)
{
    struct embed_space *space;
    enum ph_status status = embed_space_of_model(&space, embedder, err);
    if (status != PH_OK)
        return status;
    uv_mutex_lock(&memory->lock);
    struct embed_space *old = memory->space;
    memory->space = old ? old : space;
    uv_mutex_unlock(&memory->lock);
    if (old)
        embed_space_free(space);
    return PH_OK;
}

void memory_near_release(struct memory *memory)
{
    embed_space_free(memory->space);
    vector_home_close(memory->home);
}

static enum ph_status find_space(struct memory *memory, struct embed_space **out, struct ph_err *err)
{
    char dir[PATH_BYTES_MAX];
    enum ph_status status = PH_OK;
    uv_mutex_lock(&memory->lock);
    *out = memory->space;
    if (memory->space && !memory->home) {
        snprintf(dir, sizeof dir, "%s/vectors", memory->dir);
        status = vector_home_open(&memory->home, dir, err);
    }
    uv_mutex_unlock(&memory->lock);
    return status;
}

static enum ph_status update_vectors(struct memory *memory, struct memory_user *user,
                                     const struct embed_space *space, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    const struct vectors_params params = {.home = memory->home,
                                          .user = user->number,
                                          .space = embed_space_name(space),
                                          .width = embed_space_width(space)};
    if (!user->vectors)
        status = vectors_open(&user->vectors, &params, err);
    return status == PH_OK ? vectors_update(user->vectors, memory->store, err) : status;
}

static int by_message(const void *a, const void *b)
{
    const struct vectors_hit *x = a, *y = b;
    return x->message < y->message ? -1 : x->message > y->message;
}

static enum ph_status search(const struct memory_user *user, struct embed_space *space, struct arena *arena,
                             struct context_request *request, struct ph_err *err)
{
    const struct vectors_filter filter = {
        .conversation = request->conversation, .after = request->after, .before = request->before};
    const struct embed_text text = {request->query, request->query_len};
    struct vectors_hit *hits = arena_alloc(arena, VECTORS_HITS_MAX * sizeof *hits);
    struct context_near *near = arena_alloc(arena, VECTORS_HITS_MAX * sizeof *near);
    float *vector = arena_alloc(arena, embed_space_width(space) * sizeof *vector);
    if (!hits || !near || !vector)
        return PH_ERR_NOMEM;
    enum ph_status status = embed_texts(space, &text, 1, false, vector, err);
    if (status != PH_OK)
        return status;
    size_t count = vectors_search(user->vectors, vector, VECTORS_HITS_MAX, &filter, hits);
    qsort(hits, count, sizeof *hits, by_message);
    for (size_t i = 0; i < count; i++)
        near[i] = (struct context_near){.message = hits[i].message, .cosine = hits[i].score};
    request->near = near;
    request->near_count = count;
    return PH_OK;
}

void memory_find_near(struct memory *memory, struct memory_user *user, struct arena *arena,
                      struct context_request *request)
{
    struct embed_space *space;
    struct ph_err err = {.message = "out of memory"};
    enum ph_status status = find_space(memory, &space, &err);
    if (status == PH_OK && (!space || !request->query_len || request->strategy == CONTEXT_RECENT_ONLY))
        return;
    if (status == PH_OK)
        status = update_vectors(memory, user, space, &err);
    if (status == PH_OK)
        status = search(user, space, arena, request, &err);
    if (status != PH_OK)
        log_warn("memory", "a context is built without the embedding model: %s", err.message);
}
