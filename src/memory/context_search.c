/* A first look at every turn of the scope: BM25 (Robertson and Zaragoza 2009) of turns, of their windows,
 * sessions and conversations, nearness of vectors, and a second look with the words of the best hits
 * (pseudo-relevance feedback, Rocchio 1971). Postings are walked once a term; the rest is linear in the
 * scope's turns. */
#include <math.h>
#include <string.h>

#include "memory/features_int.h"
#include "memory/spt_int.h"
#include "tensor/tensor.h"

#define BM25_K1 1.2f
#define BM25_B 0.6f
#define SESSION_B 0.75f
#define MEANING_BLOCK 256 /* turns at once */
#define WIDE_FALL 0.85f
#define WIDE_BREAK 0.4f
#define WIDE_LEAST 1e-6f /* what is less is nothing, or it would end in slow denormal numbers */
#define GROUP_SPEAKERS 4 /* from so many on it is a talk of many */

struct scope_arrays { /* what the scope's constant ones point to */
    uint32_t *turns, *before, *sessions;
    float *session_lengths;
    bool *breaks, *seen;
};

static bool scope_arrays_take(struct scope_arrays *a, size_t count, const struct memory_index *index,
                              struct arena *arena)
{
    a->turns = arena_alloc(arena, (count + 1) * sizeof *a->turns);
    a->before = arena_alloc(arena, (count + 1) * sizeof *a->before);
    a->sessions = arena_alloc(arena, (count + 1) * sizeof *a->sessions);
    a->breaks = arena_alloc(arena, count + 1);
    a->session_lengths = arena_calloc(arena, index->session_count + 1u, sizeof *a->session_lengths);
    a->seen = arena_calloc(arena, index->speaker_count + 1u, sizeof *a->seen);
    return a->turns && a->before && a->sessions && a->breaks && a->session_lengths && a->seen;
}

/* What a turn adds to the length of a group; never nothing. */
static float group_length(const struct index_turn_row *row)
{
    return (float)row->length + 0.01f;
}

static void scope_take(struct context_scope *scope, struct scope_arrays *a, uint32_t turn)
{
    const struct index_turn_row *row = &scope->index->turns[turn];
    uint32_t slot = scope->count, before = row->before;
    if (before != INDEX_NONE) { /* a slot, if it is one of those taken before */
        uint32_t place = scope->conversation == INDEX_NONE ? before : row->place - 1;
        before = place >= scope->first && place - scope->first < slot ? place - scope->first : INDEX_NONE;
    }
    a->turns[slot] = turn;
    a->before[slot] = before;
    a->breaks[slot] = before == INDEX_NONE || a->sessions[before] != row->session;
    a->sessions[slot] = row->session;
    scope->session_count += a->session_lengths[row->session] == 0;
    a->session_lengths[row->session] += group_length(row);
    scope->count++;
}

enum ph_status context_scope_find(const struct memory_index *index, const struct context_request *request,
                                  struct arena *arena, struct context_scope *scope)
{
    struct scope_arrays a;
    *scope = (struct context_scope){.index = index, .conversation = INDEX_NONE, .length_mean = 1};
    uint32_t at = 0, count = index->turn_count;
    if (request->conversation) {
        scope->conversation = hash_table_find(&index->known_as, (uint64_t)request->conversation + 1);
        bool known = scope->conversation != INDEX_NONE;
        at = known ? index->conversations[scope->conversation].first : 0;
        count = known ? index->conversations[scope->conversation].turns : 0;
    }
    if (!scope_arrays_take(&a, count, index, arena))
        return PH_ERR_NOMEM;
    uint64_t length = 0;
    uint32_t speakers = 0, names = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct index_turn_row *row = &index->turns[at];
        if (request->before && row->message >= request->before)
            break;
        if (request->after && row->message <= request->after) {
            scope->first = i + 1;
        } else {
            scope_take(scope, &a, at);
            length += row->length;
            speakers += !a.seen[row->speaker] && !(row->flags & TURN_SYSTEM);
            names += !a.seen[row->speaker] && index->speakers[row->speaker].has_name;
            a.seen[row->speaker] = true;
        }
        at = request->conversation ? row->after : at + 1;
    }
    scope->turns = a.turns;
    scope->before = a.before;
    uint32_t taken = scope->count;
    scope->is_dense = taken && !index->has_forgotten && a.turns[taken - 1] - a.turns[0] == taken - 1;
    scope->breaks = a.breaks;
    scope->sessions = a.sessions;
    scope->session_lengths = a.session_lengths;
    if (scope->count && length)
        scope->length_mean = (float)length / (float)scope->count;
    bool is_group = speakers >= GROUP_SPEAKERS && scope->conversation != INDEX_NONE;
    scope->talk = is_group ? TALK_GROUP : names ? TALK_PEOPLE : TALK_ASSISTANT;
    return PH_OK;
}

uint32_t context_scope_slot_of_row(const struct context_scope *scope, uint32_t turn)
{
    const struct index_turn_row *row = &scope->index->turns[turn];
    uint32_t place = turn;
    if (scope->conversation != INDEX_NONE) {
        if (row->conversation != scope->conversation)
            return INDEX_NONE;
        place = row->place;
    }
    if (place < scope->first || place - scope->first >= scope->count || (row->flags & TURN_FORGOTTEN))
        return INDEX_NONE;
    return place - scope->first;
}

/* Groups of turns as texts: sessions, conversations. */
struct groups {
    float *counts;        /* [groups]: how often the term at hand is in each */
    const float *lengths; /* [groups] */
    float *scores;        /* [groups] */
    uint32_t count;       /* of those that have turns here */
    float length_mean;
    bool by_session;
};

static uint32_t group_of(const struct groups *groups, const struct context_scope *scope, uint32_t slot)
{
    return groups->by_session ? scope->sessions[slot] : scope->index->turns[scope->turns[slot]].conversation;
}

static bool groups_take(struct groups *groups, const struct context_scope *scope, uint32_t all,
                        struct arena *arena)
{
    groups->counts = arena_calloc(arena, all + 1u, sizeof(float));
    groups->scores = arena_calloc(arena, all + 1u, sizeof(float));
    groups->length_mean =
        groups->count ? scope->length_mean * (float)scope->count / (float)groups->count + 0.01f : 1;
    return groups->counts && groups->scores;
}

static bool sessions_open(struct groups *groups, const struct context_scope *scope, struct arena *arena)
{
    *groups =
        (struct groups){.by_session = true, .lengths = scope->session_lengths, .count = scope->session_count};
    return groups_take(groups, scope, scope->index->session_count, arena);
}

static bool conversations_open(struct groups *groups, const struct context_scope *scope, struct arena *arena)
{
    uint32_t all = scope->index->conversation_count;
    float *lengths = arena_calloc(arena, all + 1u, sizeof *lengths);
    *groups = (struct groups){.lengths = lengths};
    for (uint32_t i = 0; lengths && i < scope->count; i++) {
        const struct index_turn_row *row = &scope->index->turns[scope->turns[i]];
        groups->count += lengths[row->conversation] == 0;
        lengths[row->conversation] += group_length(row);
    }
    return lengths && groups_take(groups, scope, all, arena);
}

static void groups_add_term(struct groups *groups, const struct context_scope *scope,
                            const struct query_term *query_term)
{
    const struct index_term *term = &scope->index->terms[query_term->term];
    uint32_t with = 0;
    for (uint32_t i = 0; i < term->count; i++) {
        uint32_t slot = context_scope_slot(scope, term->postings[i].turn);
        if (slot == INDEX_NONE)
            continue;
        float *count = &groups->counts[group_of(groups, scope, slot)];
        with += *count == 0;
        *count += (float)term->postings[i].count;
    }
    float rarity = logf(1 + ((float)groups->count - (float)with + 0.5f) / ((float)with + 0.5f));
    for (uint32_t i = 0; i < term->count; i++) {
        uint32_t slot = context_scope_slot(scope, term->postings[i].turn);
        if (slot == INDEX_NONE)
            continue;
        uint32_t group = group_of(groups, scope, slot);
        float count = groups->counts[group];
        if (count == 0)
            continue;
        groups->counts[group] = 0;
        float norm = BM25_K1 * (1 - SESSION_B + SESSION_B * groups->lengths[group] / groups->length_mean);
        groups->scores[group] += rarity * count * (BM25_K1 + 1) / (count + norm);
    }
}

static void add_term(float *scores, const struct context_scope *scope, uint32_t known, float rarity)
{
    const struct index_term *term = &scope->index->terms[known];
    for (uint32_t i = 0; i < term->count; i++) {
        uint32_t slot = context_scope_slot(scope, term->postings[i].turn);
        if (slot == INDEX_NONE)
            continue;
        float length = (float)scope->index->turns[term->postings[i].turn].length;
        float count = (float)term->postings[i].count;
        float norm = BM25_K1 * (1 - BM25_B + BM25_B * length / scope->length_mean);
        scores[slot] += rarity * count * (BM25_K1 + 1) / (count + norm);
    }
}

/* The slot of a neighbour; INDEX_NONE: none, or outside. */
static uint32_t slot_or_none(const struct context_scope *scope, uint32_t turn)
{
    return turn == INDEX_NONE ? INDEX_NONE : context_scope_slot(scope, turn);
}

static void spread_over_window(const struct context_scope *scope, const float *words, float *window)
{
    static const float share[] = {1, 0.6f, 0.35f, 0.2f};
    for (uint32_t i = 0; i < scope->count; i++) {
        if (words[i] == 0)
            continue;
        window[i] += words[i];
        uint32_t before = scope->turns[i], after = before;
        for (size_t step = 1; step < sizeof share / sizeof *share; step++) {
            before = before == INDEX_NONE ? before : scope->index->turns[before].before;
            after = after == INDEX_NONE ? after : scope->index->turns[after].after;
            uint32_t left = slot_or_none(scope, before), right = slot_or_none(scope, after);
            if (left != INDEX_NONE)
                window[left] += share[step] * words[i];
            if (right != INDEX_NONE)
                window[right] += share[step] * words[i];
        }
    }
}

/* Every turn around counts, WIDE_FALL less a step, WIDE_BREAK less over the border of a session. Two kinds of
 * values at once, because each step waits for the one before it. room [2 * count]. */
static void spread_wide(const struct context_scope *scope, const struct context_search *search, float *room)
{
    const float *words = search->words, *meaning = search->meaning;
    float *wide = search->wide, *meant = search->meaning_wide, *back = room,
          *back_meant = room + scope->count;
    for (uint32_t i = 0; i < scope->count; i++) {
        uint32_t before = scope->before[i];
        float fall = scope->breaks[i] ? WIDE_BREAK * WIDE_FALL : WIDE_FALL;
        float left = before == INDEX_NONE ? 0 : fall * wide[before];
        float left_meant = before == INDEX_NONE ? 0 : fall * meant[before];
        wide[i] = words[i] + (left > WIDE_LEAST ? left : 0);
        meant[i] = meaning[i] + (left_meant > WIDE_LEAST ? left_meant : 0);
        back[i] = words[i];
        back_meant[i] = meaning[i];
    }
    for (uint32_t i = scope->count; i-- > 0;) {
        uint32_t before = scope->before[i];
        float fall = scope->breaks[i] ? WIDE_BREAK * WIDE_FALL : WIDE_FALL;
        wide[i] += back[i] - words[i];
        meant[i] += back_meant[i] - meaning[i];
        if (before == INDEX_NONE)
            continue;
        back[before] += back[i] > WIDE_LEAST ? fall * back[i] : 0;
        back_meant[before] += back_meant[i] > WIDE_LEAST ? fall * back_meant[i] : 0;
    }
}

struct hit {
    float score;
    uint32_t slot;
};

/* The best turns by their windows, best first. */
static size_t best_turns(const struct context_scope *scope, const float *scores, struct hit *hits, size_t max)
{
    size_t count = 0;
    for (uint32_t i = 0; i < scope->count; i++) {
        if (scores[i] <= 0 || (count == max && scores[i] <= hits[max - 1].score))
            continue;
        size_t at = count < max ? count++ : max - 1;
        while (at && hits[at - 1].score < scores[i]) {
            hits[at] = hits[at - 1];
            at--;
        }
        hits[at] = (struct hit){.score = scores[i], .slot = i};
    }
    return count;
}

struct expansion {
    uint32_t term;
    float weight;
};

static void expand_with(struct expansion *terms, size_t *count, const struct context_scope *scope,
                        const struct context_query *query, const struct hit *hit)
{
    const struct index_turn_row *row = &scope->index->turns[scope->turns[hit->slot]];
    for (uint32_t i = 0; i < row->word_count && i < 80; i++) {
        uint32_t known = scope->index->occurrences[row->words + i];
        const struct index_term *term = &scope->index->terms[known];
        bool skip = term->flags & TEXT_STOP;
        for (size_t k = 0; k < query->count && !skip; k++)
            skip = query->terms[k].term == known;
        if (skip)
            continue;
        float rarity = logf(1 + (float)scope->index->turn_count / ((float)term->count + 0.5f));
        float name = term->names * 2 > term->uses ? 1.5f : 1;
        float weight = term->count > 1 ? hit->score * rarity * name : 0;
        size_t at = 0;
        while (at < *count && terms[at].term != known)
            at++;
        if (at == 512)
            continue;
        if (at == *count)
            terms[(*count)++] = (struct expansion){.term = known};
        terms[at].weight += weight;
    }
}

static bool look_again(const struct context_scope *scope, const struct context_query *query,
                       const float *window, float *feedback, struct arena *arena)
{
    struct hit hits[FEEDBACK_TURNS];
    size_t found = best_turns(scope, window, hits, FEEDBACK_TURNS);
    struct expansion *terms = arena_alloc(arena, 512 * sizeof *terms);
    if (!terms)
        return false;
    size_t count = 0;
    for (size_t i = 0; i < found; i++)
        expand_with(terms, &count, scope, query, &hits[i]);
    float first = 0;
    for (size_t k = 0; k < FEEDBACK_TERMS; k++) {
        size_t best = 0;
        for (size_t i = 1; i < count; i++)
            if (terms[i].weight > terms[best].weight)
                best = i;
        if (!count || terms[best].weight <= 0)
            break;
        first = k ? first : terms[best].weight;
        add_term(feedback, scope, terms[best].term, terms[best].weight / first);
        terms[best].weight = 0;
    }
    return true;
}

/* Both ascend by message. */
static void look_at_near(const struct context_scope *scope, const struct context_request *request, float *out)
{
    uint32_t slot = 0;
    for (size_t i = 0; i < request->near_count; i++) {
        while (slot < scope->count &&
               scope->index->turns[scope->turns[slot]].message < request->near[i].message)
            slot++;
        if (slot == scope->count)
            return;
        if (scope->index->turns[scope->turns[slot]].message == request->near[i].message &&
            request->near[i].cosine > 0)
            out[slot] = request->near[i].cosine;
    }
}

static void look_at_meaning(const struct context_scope *scope, const struct context_request *request,
                            const struct context_query *query, float *out)
{
    if (request->near) {
        look_at_near(scope, request, out);
        return;
    }
    const int8_t *vectors = scope->index->vectors;
    int32_t dots[MEANING_BLOCK];
    if (!vectors || !query->has_direction)
        return;
    for (uint32_t i = 0; i < scope->count;) { /* runs of turns that lie next to each other */
        uint32_t run = 1;
        while (run < MEANING_BLOCK && i + run < scope->count &&
               scope->turns[i + run] == scope->turns[i] + run)
            run++;
        tensor_codes_dot(scope->index->kernels, query->direction,
                         vectors + (size_t)scope->turns[i] * SPT_WIDTH, run, SPT_WIDTH, dots);
        for (uint32_t k = 0; k < run; k++)
            out[i + k] = dots[k] > 0 ? (float)dots[k] / (127.0f * 127.0f) : 0;
        i += run;
    }
}

enum ph_status context_search(const struct context_scope *scope, const struct context_request *request,
                              struct context_query *query, struct arena *arena, struct context_search *search)
{
    size_t n = scope->count + 1u;
    float *sums = arena_calloc(arena, 4 * n, sizeof *sums),
          *others = arena_alloc(arena, 4 * n * sizeof *sums);
    struct groups sessions, conversations = {.scores = NULL};
    bool several = scope->conversation == INDEX_NONE && scope->index->conversation_count > 1;
    if (!sums || !others || !sessions_open(&sessions, scope, arena) ||
        (several && !conversations_open(&conversations, scope, arena)))
        return PH_ERR_NOMEM;
    *search = (struct context_search){.words = sums,
                                      .window = sums + n,
                                      .feedback = sums + 2 * n,
                                      .meaning = sums + 3 * n,
                                      .wide = others,
                                      .meaning_wide = others + n,
                                      .sessions = sessions.scores,
                                      .conversations = conversations.scores};
    for (size_t i = 0; i < query->count; i++) {
        const struct query_term *term = &query->terms[i];
        if (term->rarity <= 0)
            continue;
        add_term(search->words, scope, term->term, term->rarity);
        groups_add_term(&sessions, scope, term);
        if (several)
            groups_add_term(&conversations, scope, term);
    }
    spread_over_window(scope, search->words, search->window);
    look_at_meaning(scope, request, query, search->meaning);
    spread_wide(scope, search, others + 2 * n);
    return look_again(scope, query, search->window, search->feedback, arena) ? PH_OK : PH_ERR_NOMEM;
}
