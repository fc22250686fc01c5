/* Bringing a user's vectors to the state of the store.
 *
 * Messages get their vectors in the order of their numbers, so what is new lies behind what is known. When
 * that does not hold (something was deleted, the store is another one, an older message got a vector), the
 * counts differ, or the last vector does, and all are read again. The bytes of a vector in the store are its
 * numbers in F16, little-endian. */
#include <string.h>

#include "base/arena.h"
#include "base/mem.h"
#include "memory/store.h"
#include "memory/vectors_int.h"
#include "tensor/tensor.h"

#define BATCH 256
#define ARENA_BYTES_MAX ((size_t)1 << 30)

struct update {
    struct vectors *vectors;
    struct store *store;
    struct ph_err *err;
    struct arena arena;
    int64_t messages[BATCH];
    uint16_t *halves; /* [BATCH][width] */
    float *row;       /* [width] */
    size_t count;
};

static void read_halves(const void *bytes, size_t width, uint16_t *out)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < width; i++)
        out[i] = (uint16_t)(at[2 * i] | at[2 * i + 1] << 8);
}

/* Adds what was gathered; messages that are gone meanwhile are left out. */
static enum ph_status flush(struct update *u)
{
    struct store_messages found = {0};
    size_t width = vectors_width(u->vectors);
    arena_clear(&u->arena);
    enum ph_status status = u->count ? store_read_numbers(u->store, &u->arena, vectors_user(u->vectors),
                                                          u->messages, u->count, &found, u->err)
                                     : PH_OK;
    for (size_t i = 0; i < found.count && i < u->count && status == PH_OK; i++) {
        if (!found.items[i].number)
            continue;
        for (size_t k = 0; k < width; k++)
            u->row[k] = tensor_f16_to_f32(u->halves[i * width + k]);
        status = vectors_add(u->vectors, u->messages[i], found.items[i].conversation, u->row, u->err);
    }
    u->count = 0;
    return status;
}

static enum ph_status take(void *ud, const struct store_vector *vector)
{
    struct update *u = ud;
    size_t width = vectors_width(u->vectors);
    if (vector->len != 2 * width)
        return ph_fail(u->err, PH_ERR_FORMAT,
                       "the store's vector of message %lld has %zu bytes, space %.60s has %zu: remove the "
                       "space and index again",
                       (long long)vector->message, vector->len, vectors_space(u->vectors), 2 * width);
    u->messages[u->count] = vector->message;
    read_halves(vector->bytes, width, u->halves + u->count * width);
    return ++u->count == BATCH ? flush(u) : PH_OK;
}

static enum ph_status add_new(struct vectors *vectors, struct store *store, struct ph_err *err)
{
    size_t width = vectors_width(vectors);
    struct update *u = mem_calloc(1, sizeof *u);
    if (!u)
        return ph_fail(err, PH_ERR_NOMEM, "no memory to read vectors");
    u->vectors = vectors;
    u->store = store;
    u->err = err;
    arena_init(&u->arena, ARENA_BYTES_MAX);
    u->halves = mem_calloc(BATCH * width, sizeof *u->halves);
    u->row = mem_calloc(width, sizeof *u->row);
    enum ph_status status = u->halves && u->row
                                ? store_each_vector(store, vectors_user(vectors), vectors_space(vectors),
                                                    vectors_last(vectors), take, u, err)
                                : ph_fail(err, PH_ERR_NOMEM, "no memory to read vectors");
    if (status == PH_OK)
        status = flush(u);
    arena_release(&u->arena);
    mem_free(u->halves);
    mem_free(u->row);
    mem_free(u);
    return status;
}

/* ---- Is what is here the store's? */
struct comparison {
    const struct vectors *vectors;
    bool same;
};

static enum ph_status compare(void *ud, const struct store_vector *vector)
{
    struct comparison *c = ud;
    const uint16_t *halves = vectors_halves(c->vectors, vector->message);
    size_t width = vectors_width(c->vectors);
    uint16_t theirs[VECTORS_WIDTH_MAX];
    if (halves && vector->len == 2 * width) {
        read_halves(vector->bytes, width, theirs);
        c->same = memcmp(theirs, halves, 2 * width) == 0;
    }
    return PH_ERR_CANCELLED; /* one is enough */
}

static bool last_is_same(const struct vectors *vectors, struct store *store)
{
    struct comparison c = {.vectors = vectors};
    if (vectors_count(vectors) == 0)
        return true;
    enum ph_status status = store_each_vector(store, vectors_user(vectors), vectors_space(vectors),
                                              vectors_last(vectors) - 1, compare, &c, NULL);
    return c.same && (status == PH_ERR_CANCELLED || status == PH_OK);
}

static enum ph_status find_deletions(const struct vectors *vectors, struct store *store, int64_t *out,
                                     struct ph_err *err)
{
    struct arena arena;
    struct store_users users;
    arena_init(&arena, 1 << 20);
    *out = -1; /* no such user */
    enum ph_status status = store_list_users(store, &arena, vectors_user(vectors) - 1, 1, &users, err);
    if (status == PH_OK && users.count && users.items[0].number == vectors_user(vectors))
        *out = users.items[0].deletions;
    arena_release(&arena);
    return status;
}

enum ph_status vectors_update(struct vectors *vectors, struct store *store, struct ph_err *err)
{
    int64_t deletions, count = 0, last = 0;
    enum ph_status status = find_deletions(vectors, store, &deletions, err);
    for (int round = 0; status == PH_OK && round < 2; round++) {
        status =
            store_count_vectors(store, vectors_user(vectors), vectors_space(vectors), &count, &last, err);
        if (status != PH_OK)
            return status;
        int64_t have = (int64_t)vectors_count(vectors);
        if (deletions == vectors_deletions(vectors) && have == count && vectors_last(vectors) == last &&
            (round || last_is_same(vectors, store)))
            return PH_OK;
        if (round || deletions != vectors_deletions(vectors) || have > count ||
            !last_is_same(vectors, store)) {
            status = vectors_clear(vectors, err);
            vectors_set_deletions(vectors, deletions);
        }
        if (status == PH_OK)
            status = add_new(vectors, store, err);
        if (status == PH_OK && (int64_t)vectors_count(vectors) >= count)
            break;
    }
    return status;
}
