/* What a query asks: its words with their rarity, who is named, which time. */
#include <math.h>
#include <string.h>

#include "memory/features_int.h"
#include "memory/spt_int.h"

struct reading {
    const struct context_scope *scope;
    struct context_query *query;
    struct arena *arena;
    float sum[SPT_WIDTH];
};

/* The term that the index has for a word; only words of the scope's turns count for rarity. */
static uint32_t turns_with(const struct context_scope *scope, const struct index_term *term)
{
    if (scope->count == scope->index->turn_count)
        return term->count;
    uint32_t count = 0;
    for (uint32_t i = 0; i < term->count; i++)
        count += context_scope_slot(scope, term->postings[i].turn) != INDEX_NONE;
    return count;
}

static float rarity_of(const struct context_scope *scope, uint32_t known)
{
    if (known == INDEX_NONE)
        return 0;
    float with = (float)turns_with(scope, &scope->index->terms[known]);
    return with > 0 ? logf(1 + ((float)scope->count - with + 0.5f) / (with + 0.5f)) : 0;
}

static void add_grams(struct reading *r, const struct text_word *word)
{
    uint64_t grams[INDEX_TERM_GRAMS_MAX];
    struct context_query *query = r->query;
    size_t count = text_grams(word->folded, word->stem_len, grams, INDEX_TERM_GRAMS_MAX);
    for (size_t i = 0; i < count && query->gram_count < QUERY_GRAMS_MAX; i++) {
        uint32_t gram = hash_table_find(&r->scope->index->gram_of, grams[i]);
        bool known = gram == INDEX_NONE;
        for (size_t k = 0; k < query->gram_count && !known; k++)
            known = query->grams[k] == gram;
        if (!known)
            query->grams[query->gram_count++] = gram;
    }
}

static void add_vector(struct reading *r, int32_t row)
{
    if (row < 0)
        return;
    const int8_t *v = spt_word_vector(r->scope->index->params.spt, row);
    float weight = spt_word_weight(r->scope->index->params.spt, row);
    for (size_t i = 0; i < SPT_WIDTH; i++)
        r->sum[i] += weight * (float)v[i];
}

static void name_speakers(struct reading *r, uint64_t stem)
{
    const struct memory_index *index = r->scope->index;
    for (uint32_t i = 0; i < index->speaker_count; i++)
        for (size_t k = 0; k < index->speakers[i].stem_count; k++)
            if (index->speakers[i].stems[k] == stem && !r->query->is_named[i]) {
                r->query->is_named[i] = true;
                r->query->named_count++;
            }
}

static void read_time(struct context_query *query, const struct text_word *word)
{
    int month = text_month(word->folded);
    if (month && !(month == 5 && !(word->flags & TEXT_NAME)))
        query->month = month;
    if (!(word->flags & TEXT_NUMBER))
        return;
    int number = 0;
    const char *c = word->folded;
    while (*c >= '0' && *c <= '9' && number < 10000)
        number = number * 10 + (*c++ - '0');
    if (number >= 1900 && number < 2200)
        query->year = number;
    else if (number >= 1 && number <= 31 && (c - word->folded) <= 2)
        query->day = number;
}

static void add_word(struct reading *r, const struct text_word *word)
{
    struct context_query *query = r->query;
    const struct memory_index *index = r->scope->index;
    query->flags |= word->flags;
    read_time(query, word);
    if (!(word->flags & TEXT_STOP))
        name_speakers(r, word->stem);
    uint32_t known = hash_table_find(&index->term_of, word->stem);
    int32_t vector =
        known != INDEX_NONE ? index->terms[known].vector : spt_word(index->params.spt, word->stem);
    for (size_t i = 0; i < query->count; i++)
        if (known != INDEX_NONE && query->terms[i].term == known) {
            query->terms[i].count++;
            return;
        }
    if (query->count == QUERY_TERMS_MAX)
        return;
    struct query_term term = {.term = known, .flags = word->flags, .count = 1, .vector = vector};
    term.rarity = rarity_of(r->scope, known);
    if (!(word->flags & TEXT_STOP))
        term.general = spt_word_rarity(index->params.spt, vector);
    query->terms[query->count++] = term;
    if (!(word->flags & TEXT_STOP)) {
        add_grams(r, word);
        add_vector(r, vector);
    }
}

/* "and?": where a query has stop words only, they are what there is. */
static void weigh_stop_words(struct context_query *query)
{
    bool all = true;
    for (size_t i = 0; i < query->count; i++)
        all = all && (query->terms[i].flags & TEXT_STOP);
    for (size_t i = 0; i < query->count; i++)
        if (!all && (query->terms[i].flags & TEXT_STOP))
            query->terms[i].rarity = 0;
}

static uint32_t find_speaker(const struct memory_index *index, const char *name)
{
    for (uint32_t i = index->speaker_count; name && i-- > 0;)
        if (!strcmp(index->speakers[i].name, name))
            return i;
    return INDEX_NONE;
}

/* "my" and "you" name the one who asks and the other one. */
static void resolve_pronouns(struct context_query *query, const struct memory_index *index)
{
    if (query->named_count || query->asker == INDEX_NONE || index->speaker_count != 2)
        return;
    uint32_t other = query->asker ? 0 : 1;
    uint32_t named = query->flags & TEXT_ME ? query->asker : query->flags & TEXT_YOU ? other : INDEX_NONE;
    if (named == INDEX_NONE)
        return;
    query->is_named[named] = true;
    query->named_count = 1;
}

enum ph_status context_query_read(const struct context_scope *scope, const struct context_request *request,
                                  struct arena *arena, struct context_query *query)
{
    const struct memory_index *index = scope->index;
    struct reading r = {.scope = scope, .query = query, .arena = arena};
    *query =
        (struct context_query){.asker = find_speaker(index, request->query_name), .addressed = INDEX_NONE};
    query->is_named = arena_calloc(arena, index->speaker_count + 1u, sizeof *query->is_named);
    struct text_stemmer *stemmer;
    if (!query->is_named || text_stemmer_create(&stemmer, index->params.language, NULL))
        return PH_ERR_NOMEM;
    struct text_reader reader;
    struct text_word word;
    text_reader_init(&reader, stemmer, request->query, request->query_len);
    for (bool is_first = true; text_next(&reader, &word); is_first = false) {
        if (is_first)
            for (uint32_t i = index->speaker_count; i-- > 0 && query->addressed == INDEX_NONE;)
                if (i != query->asker && index->speakers[i].stem_count &&
                    index->speakers[i].stems[0] == word.stem)
                    query->addressed = i;
        add_word(&r, &word);
    }
    text_stemmer_free(stemmer);
    weigh_stop_words(query);
    resolve_pronouns(query, index);
    for (size_t i = 0; i < SPT_WIDTH; i++)
        query->has_direction = query->has_direction || r.sum[i] != 0;
    spt_direction(r.sum, query->direction);
    return PH_OK;
}
