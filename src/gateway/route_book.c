/* The book of routes: the last ROUTE_RECORDS_MAX answers, each with the whole decision behind it, as JSON.
 *
 * A ring of records, each hanging in the chains of its two names: the reply's id and the request's. */
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "gateway/gateway_int.h"

#define NAMES 2

struct record {
    char *json; /* NULL: free */
    size_t len;
    char *names[NAMES]; /* in one allocation with json */
    uint64_t hashes[NAMES];
    struct record *next[NAMES]; /* in their chains */
};

struct route_book {
    struct record *records;
    struct record **chains; /* by hash of a name; a record hangs in two */
    size_t count_max, chain_count, at;
};

struct route_book *route_book_create(size_t count_max)
{
    struct route_book *book = mem_calloc(1, sizeof *book);
    if (!book)
        return NULL;
    book->count_max = count_max;
    book->chain_count = 2 * count_max;
    book->records = mem_calloc(count_max, sizeof *book->records);
    book->chains = mem_calloc(book->chain_count, sizeof *book->chains);
    if (!book->records || !book->chains) {
        route_book_free(book);
        return NULL;
    }
    return book;
}

void route_book_free(struct route_book *book)
{
    if (!book)
        return;
    for (size_t i = 0; book->records && i < book->count_max; i++)
        mem_free(book->records[i].json);
    mem_free(book->records);
    mem_free(book->chains);
    mem_free(book);
}

static struct record **chain_of(const struct route_book *book, uint64_t hash)
{
    return &book->chains[hash % book->chain_count];
}

/* By which of its names a record hangs in this chain. */
static struct record **next_of(const struct route_book *book, struct record *record, struct record **chain)
{
    return chain_of(book, record->hashes[0]) == chain ? &record->next[0] : &record->next[1];
}

/* Both names in one chain: it hangs there once. */
static bool is_twice(const struct route_book *book, const struct record *record)
{
    return chain_of(book, record->hashes[0]) == chain_of(book, record->hashes[1]);
}

static void unhang(struct route_book *book, struct record *record)
{
    for (int i = 0; i < NAMES && !(i && is_twice(book, record)); i++) {
        struct record **chain = chain_of(book, record->hashes[i]), **link = chain;
        while (*link && *link != record)
            link = next_of(book, *link, chain);
        if (*link)
            *link = *next_of(book, record, chain);
    }
}

static void hang(struct route_book *book, struct record *record)
{
    for (int i = 0; i < NAMES && !(i && is_twice(book, record)); i++) {
        struct record **chain = chain_of(book, record->hashes[i]);
        record->next[i] = *chain;
        *chain = record;
    }
}

void route_book_add(struct route_book *book, const char *response_id, const char *request_id,
                    const struct buf *json)
{
    const char *given[NAMES] = {response_id, request_id};
    struct record *record = &book->records[book->at];
    size_t lens[NAMES] = {strlen(response_id), strlen(request_id)};
    if (buf_status(json) != PH_OK || !json->len)
        return;
    char *memory = mem_alloc(json->len + lens[0] + lens[1] + 3);
    if (!memory)
        return;
    if (record->json) {
        unhang(book, record);
        mem_free(record->json);
    }
    *record = (struct record){.json = memory, .len = json->len};
    memcpy(memory, json->data, json->len);
    memory += json->len;
    *memory++ = 0;
    for (int i = 0; i < NAMES; i++) {
        record->hashes[i] = hash_text(given[i]);
        record->names[i] = memcpy(memory, given[i], lens[i] + 1);
        memory += lens[i] + 1;
    }
    hang(book, record);
    book->at = (book->at + 1) % book->count_max;
}

const char *route_book_find(const struct route_book *book, const char *id, size_t *len)
{
    struct record **chain = chain_of(book, hash_text(id));
    for (struct record *r = *chain; r; r = *next_of(book, r, chain))
        if (strcmp(r->names[0], id) == 0 || strcmp(r->names[1], id) == 0) {
            *len = r->len;
            return r->json;
        }
    return NULL;
}
