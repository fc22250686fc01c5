/* The book of routes: the last ROUTE_RECORDS_MAX answers, each with the whole decision behind it, as JSON.
 *
 * A ring of records and a table of their names (two each: the reply's id and the request's), open addressing,
 * rebuilt by nobody: a name's place is found again from the record when its record goes. */
#include <string.h>

#include "base/mem.h"
#include "gateway/gateway_int.h"

#define NAMES 2

struct record {
    char *json; /* NULL: free */
    size_t len;
    char *names[NAMES];         /* in one allocation with json */
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

static struct record **chain_of(struct route_book *book, const char *name)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * UINT64_C(1099511628211);
    return &book->chains[hash % book->chain_count];
}

/* Which of its names hangs a record in this chain: a chain's link is found by its name. */
static struct record **next_of(struct route_book *book, struct record *record, struct record **chain)
{
    return chain_of(book, record->names[0]) == chain ? &record->next[0] : &record->next[1];
}

static void unhang(struct route_book *book, struct record *record)
{
    for (int i = 0; i < NAMES; i++) {
        struct record **chain = chain_of(book, record->names[i]), **link = chain;
        if (i && chain == chain_of(book, record->names[0]))
            continue; /* both names in one chain: it hangs there once */
        while (*link && *link != record)
            link = next_of(book, *link, chain);
        if (*link)
            *link = *next_of(book, record, chain);
    }
}

void route_book_add(struct route_book *book, const char *response_id, const char *request_id,
                    const struct buf *json)
{
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
    memory[json->len] = 0;
    record->names[0] = memory + json->len + 1;
    record->names[1] = record->names[0] + lens[0] + 1;
    memcpy(record->names[0], response_id, lens[0] + 1);
    memcpy(record->names[1], request_id, lens[1] + 1);
    for (int i = 0; i < NAMES; i++) {
        struct record **chain = chain_of(book, record->names[i]);
        if (i && chain == chain_of(book, record->names[0]))
            continue;
        record->next[i] = *chain;
        *chain = record;
    }
    book->at = (book->at + 1) % book->count_max;
}

const char *route_book_find(const struct route_book *book, const char *id, size_t *len)
{
    struct route_book *walk = (struct route_book *)(uintptr_t)book; /* the chain's link is only read */
    struct record **chain = chain_of(walk, id);
    for (struct record *r = *chain; r; r = *next_of(walk, r, chain))
        if (strcmp(r->names[0], id) == 0 || strcmp(r->names[1], id) == 0) {
            *len = r->len;
            return r->json;
        }
    return NULL;
}
