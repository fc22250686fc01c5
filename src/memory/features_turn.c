/* A turn against the query, word by word: which of its words it has, which letters are alike, how near in
 * meaning. This is most of what a context costs, so nothing is done twice: a turn is read once, though it is
 * a candidate and the neighbour of two others, and a term is compared once, in however many turns it is. Most
 * terms have nothing in common with the query; for them a turn's word costs one look. */
#include <math.h>
#include <string.h>

#include "memory/features_int.h"
#include "memory/spt_int.h"
#include "tensor/tensor.h"

#define NEAR_LEAST 0.25f /* what is less near has nothing to do with it */
#define MATCHES_FIRST 256
#define NO_WORD QUERY_TERMS_MAX

/* match_of: what is known of a term; from MATCHES on it is 1 + MATCH_NOTHING + its place in matches. */
enum { MATCH_UNKNOWN, MATCH_NOTHING };

struct term_match { /* what a term has of the query */
    uint64_t grams[GRAM_WORDS];
    uint8_t word; /* the query's, or NO_WORD */
    bool is_near; /* else its row of `near` is nothing */
};

/* ---- Small maps ---- */

static size_t small_map_at(const struct small_map *map, uint32_t key)
{
    size_t at = (key * 0x9E3779B1u) >> (32 - SMALL_MAP_BITS);
    while (map->keys[at] != INDEX_NONE && map->keys[at] != key)
        at = (at + 1) % SMALL_MAP_SLOTS;
    return at;
}

/* ---- A term ---- */

static bool more_matches(struct turn_reader *r)
{
    if (r->match_count < r->match_capacity)
        return true;
    size_t wanted = r->match_capacity ? r->match_capacity * 2 : MATCHES_FIRST, width = r->query->count;
    struct term_match *matches = arena_alloc(r->arena, wanted * sizeof *matches);
    float *near = arena_alloc(r->arena, (wanted * width + 1) * sizeof *near);
    if (!matches || !near)
        return false;
    if (r->match_count) {
        memcpy(matches, r->matches, r->match_count * sizeof *matches);
        memcpy(near, r->near, r->match_count * width * sizeof *near);
    }
    r->matches = matches;
    r->near = near;
    r->match_capacity = wanted;
    return true;
}

static bool find_grams(const struct turn_reader *r, const struct index_term *term, struct term_match *match)
{
    const uint32_t *grams = r->scope->index->term_grams + term->grams;
    bool any = false;
    for (uint32_t g = 0; g < term->gram_count; g++) {
        size_t at = small_map_at(&r->gram_places, grams[g]);
        if (r->gram_places.keys[at] == INDEX_NONE)
            continue;
        size_t place = r->gram_places.values[at];
        match->grams[place / 64] |= (uint64_t)1 << (place % 64);
        any = true;
    }
    return any;
}

/* near [words of the query]: the term itself 1, others by the angle of their vectors. */
static bool find_near_words(const struct turn_reader *r, uint32_t known, const struct index_term *term,
                            struct term_match *match, float *near)
{
    const struct memory_index *index = r->scope->index;
    int32_t dots[QUERY_TERMS_MAX];
    bool has_meaning = term->vector >= 0 && !(term->flags & TEXT_STOP) && r->vector_count;
    if (has_meaning)
        tensor_codes_dot(index->kernels, spt_word_vector(index->params.spt, term->vector), r->vectors,
                         r->vector_count, SPT_WIDTH, dots);
    for (size_t q = 0, v = 0; q < r->query->count; q++) {
        const struct query_term *word = &r->query->terms[q];
        float cosine = 0;
        if (has_meaning && word->vector >= 0)
            cosine = (float)dots[v++] / (127.0f * 127.0f);
        if (word->term == known) {
            cosine = 1;
            match->word = (uint8_t)q;
        }
        near[q] = cosine > NEAR_LEAST ? cosine : 0;
        match->is_near = match->is_near || near[q] > 0;
    }
    return match->is_near || match->word != NO_WORD;
}

/* What a term has of the query, found when it is first met. false: no memory. */
static bool know_term(struct turn_reader *r, uint32_t known)
{
    if (r->match_of[known] != MATCH_UNKNOWN)
        return true;
    if (!more_matches(r))
        return false;
    const struct index_term *term = &r->scope->index->terms[known];
    struct term_match *match = &r->matches[r->match_count];
    *match = (struct term_match){.word = NO_WORD};
    bool any = find_grams(r, term, match);
    any = find_near_words(r, known, term, match, r->near + r->match_count * r->query->count) || any;
    r->match_of[known] = any ? (uint32_t)(1 + MATCH_NOTHING + r->match_count++) : MATCH_NOTHING;
    return true;
}

/* ---- A turn ---- */

/* The weight of a word in soft coverage: its rarity where it is known, else as a rare one. */
static float word_weight(const struct query_term *word)
{
    if (word->flags & TEXT_STOP)
        return 0;
    return word->rarity > 0 ? word->rarity : word->vector >= 0 ? 3.0f : 0;
}

static float gram_score(const struct turn_reader *r, const uint64_t *bits, float length)
{
    float sum = 0;
    for (size_t w = 0; w < GRAM_WORDS; w++)
        for (uint64_t rest = bits[w]; rest; rest &= rest - 1)
            sum += r->gram_rarity[w * 64 + (size_t)__builtin_ctzll(rest)];
    return sum / (0.7f + 0.3f * length / r->scope->length_mean);
}

static float soft_coverage(const struct turn_reader *r, const float *best)
{
    float sum = 0, weights = 0;
    for (size_t q = 0; q < r->query->count; q++) {
        float weight = word_weight(&r->query->terms[q]);
        sum += weight * best[q];
        weights += weight;
    }
    return weights > 0 ? sum / weights : 0;
}

/* false: no memory. */
static bool read_words(struct turn_reader *r, const struct index_turn_row *row, struct turn_words *out)
{
    const struct query_term *terms = r->query->terms;
    size_t count = r->query->count;
    uint64_t bits[GRAM_WORDS] = {0};
    float best[QUERY_TERMS_MAX] = {0};
    size_t word_before = NO_WORD;
    *out = (struct turn_words){0};
    for (uint32_t i = 0; i < row->word_count; i++) {
        uint32_t known = r->scope->index->occurrences[row->words + i];
        if (!know_term(r, known))
            return false;
        if (r->match_of[known] == MATCH_NOTHING) {
            word_before = NO_WORD;
            continue;
        }
        size_t at = r->match_of[known] - 1 - MATCH_NOTHING;
        const struct term_match *match = &r->matches[at];
        const float *near = r->near + at * count;
        for (size_t w = 0; w < GRAM_WORDS; w++)
            bits[w] |= match->grams[w];
        for (size_t q = 0; match->is_near && q < count; q++)
            best[q] = near[q] > best[q] ? near[q] : best[q];
        if (match->word != NO_WORD) {
            out->has |= (uint64_t)1 << match->word;
            if (word_before != NO_WORD && match->word == word_before + 1)
                out->pairs += terms[match->word].rarity + terms[word_before].rarity;
        }
        word_before = match->word;
    }
    out->soft = soft_coverage(r, best);
    out->grams = gram_score(r, bits, (float)row->length);
    return true;
}

const struct turn_words *turn_reader_read(struct turn_reader *r, uint32_t slot)
{
    static const struct turn_words nothing = {0};
    if (slot == INDEX_NONE)
        return &nothing;
    size_t at = small_map_at(&r->turn_places, slot);
    if (r->turn_places.keys[at] != INDEX_NONE)
        return &r->turns[r->turn_places.values[at]];
    if (!read_words(r, &r->scope->index->turns[r->scope->turns[slot]], &r->turns[r->turn_count]))
        return NULL;
    r->turn_places.keys[at] = slot;
    r->turn_places.values[at] = (uint16_t)r->turn_count;
    return &r->turns[r->turn_count++];
}

/* ---- The query ---- */

static void place_grams(struct turn_reader *r)
{
    float turns = (float)r->scope->index->turn_count;
    for (size_t g = 0; g < r->query->gram_count; g++) {
        uint32_t gram = r->query->grams[g];
        float with = (float)r->scope->index->gram_turns[gram];
        r->gram_rarity[g] = logf(1 + (turns - with + 0.5f) / (with + 0.5f));
        size_t at = small_map_at(&r->gram_places, gram);
        r->gram_places.keys[at] = gram;
        r->gram_places.values[at] = (uint16_t)g;
    }
}

/* The vectors of its words, one behind the other. */
static bool place_vectors(struct turn_reader *r)
{
    r->vectors = arena_alloc(r->arena, QUERY_TERMS_MAX * SPT_WIDTH);
    for (size_t q = 0; r->vectors && q < r->query->count; q++)
        if (r->query->terms[q].vector >= 0)
            memcpy(r->vectors + r->vector_count++ * SPT_WIDTH,
                   spt_word_vector(r->scope->index->params.spt, r->query->terms[q].vector), SPT_WIDTH);
    return r->vectors;
}

enum ph_status turn_reader_open(struct turn_reader **out, const struct context_scope *scope,
                                const struct context_query *query, struct arena *arena)
{
    struct turn_reader *r = arena_calloc(arena, 1, sizeof *r);
    if (!r)
        return PH_ERR_NOMEM;
    r->scope = scope;
    r->query = query;
    r->arena = arena;
    r->match_of = arena_calloc(arena, scope->index->term_count + 1u, sizeof *r->match_of);
    memset(r->gram_places.keys, 0xFF, sizeof r->gram_places.keys);
    memset(r->turn_places.keys, 0xFF, sizeof r->turn_places.keys);
    if (!r->match_of || !place_vectors(r))
        return PH_ERR_NOMEM;
    place_grams(r);
    *out = r;
    return PH_OK;
}
