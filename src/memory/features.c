/* Everything that is known about a candidate, made comparable: most features are shares of the greatest
 * value among the candidates, so that a weight means the same for a short query and a long one.
 * What was learned from others and from our own measuring: neighbours of a hit are the cheapest gain; age
 * must never multiply (docs/MEMORY.md has the figures). Features of age count in talk of many only
 * (F_GROUP_*): in a talk of two the newest turns are kept anyway. */
#include <math.h>
#include <string.h>
#include <time.h>

#include "memory/features_int.h"
#include "memory/spt_int.h"

#define DAY_S 86400

static const char *const names[FEATURE_COUNT] = {
    [F_WORDS] = "words",
    [F_BEFORE_1] = "before_1",
    [F_AFTER_1] = "after_1",
    [F_BEFORE_2] = "before_2",
    [F_AFTER_2] = "after_2",
    [F_WINDOW] = "window",
    [F_WIDE] = "wide",
    [F_SESSION] = "session",
    [F_CONVERSATION] = "conversation",
    [F_GRAMS] = "grams",
    [F_GRAMS_AROUND] = "grams_around",
    [F_COVERAGE] = "coverage",
    [F_COVERAGE_AROUND] = "coverage_around",
    [F_GENERAL] = "general",
    [F_GENERAL_AROUND] = "general_around",
    [F_PAIRS] = "pairs",
    [F_RAREST] = "rarest",
    [F_RANK_WORDS] = "rank_words",
    [F_RANK_WINDOW] = "rank_window",
    [F_RANK_WIDE] = "rank_wide",
    [F_RANK_SESSION] = "rank_session",
    [F_RANK_GRAMS] = "rank_grams",
    [F_RANK_MEANING] = "rank_meaning",
    [F_MEANING] = "meaning",
    [F_MEANING_AROUND] = "meaning_around",
    [F_MEANING_WIDE] = "meaning_wide",
    [F_SOFT] = "soft",
    [F_SOFT_AROUND] = "soft_around",
    [F_FEEDBACK] = "feedback",
    [F_RANK_FEEDBACK] = "rank_feedback",
    [F_SPEAKER] = "speaker",
    [F_OTHER_SPEAKER] = "other_speaker",
    [F_USER] = "user",
    [F_MENTIONS] = "mentions",
    [F_SPEAKER_WORDS] = "speaker_words",
    [F_ASKS] = "asks",
    [F_ANSWERS] = "answers",
    [F_ANSWERS_WORDS] = "answers_words",
    [F_LENGTH] = "length",
    [F_SHORT] = "short",
    [F_NAMES] = "names",
    [F_NEW] = "new",
    [F_NAMES_WIDE] = "names_wide",
    [F_WHEN_TIME] = "when_time",
    [F_MANY_NUMBER] = "many_number",
    [F_DATE] = "date",
    [F_GROUP_AGE] = "group_age",
    [F_GROUP_LAST] = "group_last",
    [F_GROUP_ADDRESSED] = "group_addressed",
    [F_GROUP_ADDRESSES] = "group_addresses",
    [F_GROUP_SAME] = "group_same",
    [F_GROUP_RECENT_ADDRESSED] = "group_recent_addressed",
    [F_GROUP_ADDRESSES_LAST] = "group_addresses_last",
    [F_GROUP_SAME_LAST] = "group_same_last",
    [F_GROUP_ASKS] = "group_asks",
};

const char *feature_name(enum feature feature)
{
    return names[feature];
}

const char *talk_name(enum talk talk)
{
    static const char *const talks[TALK_COUNT] = {"assistant", "people", "group"};
    return talks[talk];
}

/* ---- Which turns ---- */

struct first_look {
    float score;
    uint32_t slot;
};

static void sift(struct first_look *heap, size_t count, size_t at)
{
    for (;;) {
        size_t least = at, left = 2 * at + 1;
        for (size_t child = left; child < left + 2 && child < count; child++)
            if (heap[child].score < heap[least].score)
                least = child;
        if (least == at)
            return;
        struct first_look kept = heap[at];
        heap[at] = heap[least];
        heap[least] = kept;
        at = least;
    }
}

static float greatest(const float *values, size_t count)
{
    float most = 0;
    for (size_t i = 0; i < count; i++)
        most = values[i] > most ? values[i] : most;
    return most > 0 ? most : 1;
}

/* A heap of the best so far, the worst of them on top. In talk of many the newest turns count by
 * themselves. */
static bool choose_slots(const struct context_scope *scope, const struct context_search *search,
                         struct arena *arena, struct context_candidates *out)
{
    struct first_look *heap = arena_alloc(arena, CANDIDATES_MAX * sizeof *heap);
    uint8_t *chosen = arena_calloc(arena, scope->count + 1u, 1);
    if (!heap || !chosen)
        return false;
    size_t n = scope->count, count = 0;
    const float window = 1 / greatest(search->window, n), session = 0.2f / greatest(search->session, n);
    const float meaning = 0.5f / greatest(search->meaning, n), wide = 0.5f / greatest(search->wide, n);
    const float feedback = 0.2f / greatest(search->feedback, n), newer = 1e-4f / (float)(n + 1);
    bool is_group = scope->talk == TALK_GROUP;
    for (uint32_t i = 0; i < n; i++) {
        float score = search->window[i] * window + search->session[i] * session + search->wide[i] * wide +
                      search->meaning[i] * meaning + search->feedback[i] * feedback + newer * (float)i;
        if (is_group)
            score += 4.0f / (float)(n - i);
        if ((count == CANDIDATES_MAX && score <= heap[0].score) ||
            (scope->index->turns[scope->turns[i]].flags & (TURN_FORGOTTEN | TURN_SYSTEM)))
            continue;
        struct first_look look = {.score = score, .slot = i};
        if (count < CANDIDATES_MAX) {
            heap[count++] = look;
            if (count == CANDIDATES_MAX)
                for (size_t k = CANDIDATES_MAX / 2; k-- > 0;)
                    sift(heap, count, k);
        } else {
            heap[0] = look;
            sift(heap, count, 0);
        }
    }
    for (size_t i = 0; i < count; i++)
        chosen[heap[i].slot] = 1;
    for (uint32_t i = 0; i < n; i++)
        if (chosen[i])
            out->slots[out->count++] = i;
    return true;
}

/* ---- What is known about each ---- */

struct knowing {
    const struct context_scope *scope;
    const struct context_query *query;
    const struct context_search *search;
    struct context_candidates *out;
    float rarity_sum, rarest;
    uint64_t *gram_bits;  /* [terms][QUERY_GRAMS_MAX / 64]: the query's grams that a term has ... */
    float *gram_rarity;   /* [QUERY_GRAMS_MAX] */
    float *soft;          /* [terms][count of the query's words]: nearness */
    uint8_t *is_known;    /* [terms]: whether these two are filled */
    uint8_t *group_roles; /* [scope] see group_roles */
};

#define GRAM_WORDS (QUERY_GRAMS_MAX / 64)

static uint32_t turn_at(const struct knowing *k, size_t i)
{
    return k->scope->turns[k->out->slots[i]];
}

static const struct index_turn_row *row_of(const struct knowing *k, uint32_t turn)
{
    return &k->scope->index->turns[turn];
}

/* Grams and nearness of a term to the query's words, once. */
static void know_term(struct knowing *k, uint32_t known)
{
    if (k->is_known[known])
        return;
    k->is_known[known] = 1;
    const struct memory_index *index = k->scope->index;
    const struct index_term *term = &index->terms[known];
    uint64_t *bits = k->gram_bits + (size_t)known * GRAM_WORDS;
    for (uint32_t g = 0; g < term->gram_count; g++)
        for (size_t q = 0; q < k->query->gram_count; q++)
            if (k->query->grams[q] == index->term_grams[term->grams + g])
                bits[q / 64] |= (uint64_t)1 << (q % 64);
    for (size_t q = 0; q < k->query->count; q++) {
        const struct query_term *word = &k->query->terms[q];
        float near = word->term == known;
        if (near == 0 && word->vector >= 0 && term->vector >= 0 && !(term->flags & TEXT_STOP))
            near = spt_cosine(spt_word_vector(index->params.spt, word->vector),
                              spt_word_vector(index->params.spt, term->vector));
        k->soft[(size_t)known * k->query->count + q] = near > 0.25f ? near : 0;
    }
}

/* The weight of a word in soft coverage: its rarity where it is known, else as a rare one. */
static float word_weight(const struct query_term *word)
{
    if (word->flags & TEXT_STOP)
        return 0;
    return word->rarity > 0 ? word->rarity : word->vector >= 0 ? 3.0f : 0;
}

struct turn_words { /* of a turn against the query */
    float grams, soft, pairs;
    uint64_t has; /* the query's words, by bits */
};

static float gram_score(const struct knowing *k, const uint64_t *bits, float length)
{
    float sum = 0;
    for (size_t w = 0; w < GRAM_WORDS; w++)
        for (uint64_t rest = bits[w]; rest; rest &= rest - 1)
            sum += k->gram_rarity[w * 64 + (size_t)__builtin_ctzll(rest)];
    return sum / (0.7f + 0.3f * length / k->scope->length_mean);
}

static struct turn_words read_turn(struct knowing *k, uint32_t turn)
{
    struct turn_words out = {0};
    const struct index_turn_row *row = row_of(k, turn);
    uint64_t bits[GRAM_WORDS] = {0};
    float best[QUERY_TERMS_MAX] = {0};
    size_t q_before = SIZE_MAX;
    for (uint32_t i = 0; i < row->word_count; i++) {
        uint32_t known = k->scope->index->occurrences[row->words + i];
        know_term(k, known);
        for (size_t w = 0; w < GRAM_WORDS; w++)
            bits[w] |= k->gram_bits[(size_t)known * GRAM_WORDS + w];
        const float *soft = k->soft + (size_t)known * k->query->count;
        size_t q_here = SIZE_MAX;
        for (size_t q = 0; q < k->query->count; q++) {
            best[q] = soft[q] > best[q] ? soft[q] : best[q];
            if (k->query->terms[q].term == known) {
                out.has |= (uint64_t)1 << q;
                q_here = q;
            }
        }
        if (q_here != SIZE_MAX && q_before != SIZE_MAX && q_here == q_before + 1)
            out.pairs += k->query->terms[q_here].rarity + k->query->terms[q_before].rarity;
        q_before = q_here;
    }
    float weights = 0;
    for (size_t q = 0; q < k->query->count; q++) {
        float weight = word_weight(&k->query->terms[q]);
        out.soft += weight * best[q];
        weights += weight;
    }
    out.soft = weights > 0 ? out.soft / weights : 0;
    out.grams = gram_score(k, bits, (float)row->length);
    return out;
}

static float coverage(const struct knowing *k, uint64_t has)
{
    float sum = 0;
    for (size_t q = 0; q < k->query->count; q++)
        if (has >> q & 1)
            sum += k->query->terms[q].rarity;
    return k->rarity_sum > 0 ? sum / k->rarity_sum : 0;
}

static float general_coverage(const struct knowing *k, uint64_t has)
{
    float sum = 0, all = 1e-6f;
    for (size_t q = 0; q < k->query->count; q++) {
        all += k->query->terms[q].general;
        sum += has >> q & 1 ? k->query->terms[q].general : 0;
    }
    return sum / all;
}

static float at_turn(const struct knowing *k, const float *values, uint32_t turn)
{
    uint32_t slot = turn == INDEX_NONE ? INDEX_NONE : context_scope_slot(k->scope, turn);
    return slot == INDEX_NONE ? 0 : values[slot];
}

/* How well the date of a turn agrees with a day, month and year of the query; 0 where none is named. */
static float date_agrees(const struct context_query *query, int64_t created_at)
{
    if ((!query->month && !query->year) || !created_at)
        return 0;
    time_t seconds = (time_t)created_at;
    struct tm date;
    if (!gmtime_r(&seconds, &date))
        return 0;
    float agree = 0, asked = 0;
    if (query->year) {
        asked += 1;
        agree += date.tm_year + 1900 == query->year ? 1 : 0;
    }
    if (query->month) {
        int apart = (date.tm_mon + 1 - query->month + 12) % 12;
        asked += 2;
        agree += apart == 0 ? 2 : apart == 1 ? 1 : 0; /* a month is told in the next one too */
    }
    if (query->month && query->day) {
        int apart = date.tm_mday - query->day;
        asked += 1;
        agree += apart >= 0 && apart <= 7 && date.tm_mon + 1 == query->month ? 1 : 0;
    }
    return agree / asked;
}

static bool mentions_named(const struct knowing *k, const struct index_turn_row *row)
{
    for (uint32_t s = 0; s < k->scope->index->speaker_count; s++) {
        const struct index_speaker *speaker = &k->scope->index->speakers[s];
        if (!k->query->is_named[s] || s == row->speaker || !speaker->stem_count)
            continue;
        uint32_t term = hash_table_find(&k->scope->index->term_of, speaker->stems[0]);
        for (uint32_t i = 0; i < row->word_count; i++)
            if (k->scope->index->occurrences[row->words + i] == term)
                return true;
    }
    return false;
}

static void know_words(struct knowing *k, size_t i)
{
    float *f = k->out->features[i];
    uint32_t turn = turn_at(k, i);
    const struct index_turn_row *row = row_of(k, turn);
    uint32_t before = row->before, after = row->after;
    uint32_t before2 = before == INDEX_NONE ? before : row_of(k, before)->before;
    uint32_t after2 = after == INDEX_NONE ? after : row_of(k, after)->after;
    const float *words = k->search->words;
    uint32_t slot = k->out->slots[i];
    f[F_WORDS] = words[slot];
    f[F_BEFORE_1] = at_turn(k, words, before);
    f[F_AFTER_1] = at_turn(k, words, after);
    f[F_BEFORE_2] = at_turn(k, words, before2);
    f[F_AFTER_2] = at_turn(k, words, after2);
    f[F_WINDOW] = k->search->window[slot];
    f[F_WIDE] = k->search->wide[slot];
    f[F_MEANING_WIDE] = k->search->meaning_wide[slot];
    f[F_SESSION] = k->search->session[slot];
    f[F_CONVERSATION] = k->search->conversation[slot];
    f[F_FEEDBACK] = k->search->feedback[slot];
    f[F_MEANING] = k->search->meaning[slot];
    float left = at_turn(k, k->search->meaning, before), right = at_turn(k, k->search->meaning, after);
    f[F_MEANING_AROUND] = left > right ? left : right;
    struct turn_words here = read_turn(k, turn), beside[2];
    memset(beside, 0, sizeof beside);
    if (before != INDEX_NONE && context_scope_slot(k->scope, before) != INDEX_NONE)
        beside[0] = read_turn(k, before);
    if (after != INDEX_NONE && context_scope_slot(k->scope, after) != INDEX_NONE)
        beside[1] = read_turn(k, after);
    f[F_GRAMS] = here.grams;
    f[F_GRAMS_AROUND] = fmaxf(beside[0].grams, beside[1].grams);
    f[F_SOFT] = here.soft;
    f[F_SOFT_AROUND] = fmaxf(beside[0].soft, beside[1].soft);
    f[F_COVERAGE] = coverage(k, here.has);
    f[F_COVERAGE_AROUND] = coverage(k, here.has | beside[0].has | beside[1].has);
    f[F_GENERAL] = general_coverage(k, here.has);
    f[F_GENERAL_AROUND] = general_coverage(k, here.has | beside[0].has | beside[1].has);
    f[F_PAIRS] = here.pairs;
    for (size_t q = 0; q < k->query->count; q++)
        if ((here.has >> q & 1) && k->query->terms[q].rarity >= k->rarest)
            f[F_RAREST] = 1;
}

/* Names and numbers, and words that nobody said before. */
static void know_news(const struct knowing *k, const struct index_turn_row *row, uint32_t turn, float *f)
{
    float values = 0, fresh = 0;
    for (uint32_t i = 0; i < row->word_count; i++) {
        const struct index_term *term = &k->scope->index->terms[k->scope->index->occurrences[row->words + i]];
        if (term->flags & TEXT_STOP)
            continue;
        values += term->names * 2 > term->uses || (term->flags & TEXT_NUMBER);
        fresh += term->count && term->postings[0].turn == turn;
    }
    f[F_NAMES] = logf(1 + values) / 3;
    f[F_NEW] = logf(1 + fresh) / 4;
    f[F_NAMES_WIDE] = f[F_NAMES] * f[F_WIDE];
}

static void know_talk(struct knowing *k, size_t i)
{
    float *f = k->out->features[i];
    const struct context_query *query = k->query;
    const struct index_turn_row *row = row_of(k, turn_at(k, i));
    bool is_named = query->is_named[row->speaker];
    f[F_SPEAKER] = is_named;
    f[F_OTHER_SPEAKER] = query->named_count && !is_named;
    f[F_USER] = !strcmp(k->scope->index->speakers[row->speaker].name, "user");
    f[F_MENTIONS] = query->named_count && mentions_named(k, row);
    f[F_SPEAKER_WORDS] = is_named ? f[F_WORDS] : 0;
    f[F_ASKS] = (row->flags & TURN_ASKS) != 0;
    const struct index_turn_row *before = row->before == INDEX_NONE ? NULL : row_of(k, row->before);
    bool answers = before && (before->flags & TURN_ASKS) && before->speaker != row->speaker;
    f[F_ANSWERS] = answers;
    f[F_ANSWERS_WORDS] = answers ? f[F_BEFORE_1] : 0;
    f[F_LENGTH] = logf(1 + (float)row->length) / 5;
    f[F_SHORT] = row->length < 4;
    f[F_WHEN_TIME] = (query->flags & TEXT_WHEN) && (row->flags & TURN_TIME) ? 1 : 0;
    f[F_MANY_NUMBER] = (query->flags & TEXT_MANY) && (row->flags & TURN_NUMBER) ? 1 : 0;
    f[F_DATE] = date_agrees(query, row->created_at);
    know_news(k, row, turn_at(k, i), f);
}

/* Talk of many: who speaks to whom, and how long ago. */
static void know_group(struct knowing *k)
{
    const struct context_query *query = k->query;
    if (k->scope->talk != TALK_GROUP)
        return;
    size_t addressed_last = SIZE_MAX, addresses_last = SIZE_MAX, same_last = SIZE_MAX;
    for (size_t i = k->out->count; i-- > 0;) {
        float *f = k->out->features[i];
        const struct index_turn_row *row = row_of(k, turn_at(k, i));
        float age = (float)(k->scope->count - k->out->slots[i]); /* 1: the last one */
        f[F_GROUP_AGE] = 1 - logf(age) / logf((float)k->scope->count + 1);
        f[F_GROUP_LAST] = age == 1;
        f[F_GROUP_ADDRESSED] = query->addressed != INDEX_NONE && row->speaker == query->addressed;
        f[F_GROUP_ADDRESSES] = query->asker != INDEX_NONE && row->addressed == query->asker;
        f[F_GROUP_SAME] = query->asker != INDEX_NONE && row->speaker == query->asker;
        f[F_GROUP_ASKS] = (row->flags & TURN_ASKS) && row->addressed == INDEX_NONE;
        if (f[F_GROUP_ADDRESSED] > 0 && addressed_last == SIZE_MAX)
            addressed_last = i;
        if (f[F_GROUP_ADDRESSES] > 0 && addresses_last == SIZE_MAX)
            addresses_last = i;
        if (f[F_GROUP_SAME] > 0 && same_last == SIZE_MAX)
            same_last = i;
    }
    if (addressed_last != SIZE_MAX)
        k->out->features[addressed_last][F_GROUP_RECENT_ADDRESSED] = 1;
    if (addresses_last != SIZE_MAX)
        k->out->features[addresses_last][F_GROUP_ADDRESSES_LAST] = 1;
    if (same_last != SIZE_MAX)
        k->out->features[same_last][F_GROUP_SAME_LAST] = 1;
}

/* ---- Comparable ---- */

static const enum feature scaled[] = {
    F_NAMES_WIDE,   F_WIDE,          F_MEANING_WIDE, F_WORDS,          F_BEFORE_1,     F_AFTER_1,
    F_BEFORE_2,     F_AFTER_2,       F_WINDOW,       F_SESSION,        F_CONVERSATION, F_GRAMS,
    F_GRAMS_AROUND, F_PAIRS,         F_MEANING,      F_MEANING_AROUND, F_SOFT,         F_SOFT_AROUND,
    F_FEEDBACK,     F_SPEAKER_WORDS, F_ANSWERS_WORDS};

static const struct {
    enum feature rank, of;
} ranked[] = {{F_RANK_WORDS, F_WORDS},      {F_RANK_WINDOW, F_WINDOW}, {F_RANK_SESSION, F_SESSION},
              {F_RANK_WIDE, F_WIDE},        {F_RANK_GRAMS, F_GRAMS},   {F_RANK_MEANING, F_MEANING},
              {F_RANK_FEEDBACK, F_FEEDBACK}};

/* 1 for the first, 0 for the last and for those without any; equals share the better rank. */
static void rank(struct context_candidates *out, enum feature to, enum feature of, struct first_look *order)
{
    size_t n = out->count;
    for (size_t i = 0; i < n; i++)
        order[i] = (struct first_look){.score = out->features[i][of], .slot = (uint32_t)i};
    for (size_t k = n / 2; k-- > 0;)
        sift(order, n, k);
    for (size_t left = n; left > 1; left--) { /* heap sort, greatest first */
        struct first_look least = order[0];
        order[0] = order[left - 1];
        order[left - 1] = least;
        sift(order, left - 1, 0);
    }
    float share = 1;
    for (size_t i = 0; i < n; i++) {
        if (!i || order[i].score < order[i - 1].score)
            share = 1 - logf((float)i + 1) / logf((float)CANDIDATES_MAX + 1);
        out->features[order[i].slot][to] = order[i].score > 0 ? share : 0;
    }
}

static bool make_comparable(struct context_candidates *out, struct arena *arena)
{
    struct first_look *order = arena_alloc(arena, (out->count + 1) * sizeof *order);
    if (!order)
        return false;
    for (size_t r = 0; r < sizeof ranked / sizeof *ranked; r++)
        rank(out, ranked[r].rank, ranked[r].of, order);
    for (size_t s = 0; s < sizeof scaled / sizeof *scaled; s++) {
        float most = 0;
        for (size_t i = 0; i < out->count; i++)
            most = fmaxf(most, out->features[i][scaled[s]]);
        for (size_t i = 0; i < out->count && most > 0; i++)
            out->features[i][scaled[s]] /= most;
    }
    return true;
}

static bool prepare(struct knowing *k, struct arena *arena)
{
    size_t terms = k->scope->index->term_count + 1u;
    k->gram_bits = arena_calloc(arena, terms * GRAM_WORDS, sizeof(uint64_t));
    k->gram_rarity = arena_calloc(arena, QUERY_GRAMS_MAX, sizeof(float));
    k->soft = arena_alloc(arena, terms * (k->query->count + 1) * sizeof(float));
    k->is_known = arena_calloc(arena, terms, 1);
    k->out->features = arena_calloc(arena, k->out->count + 1, sizeof *k->out->features);
    if (!k->gram_bits || !k->gram_rarity || !k->soft || !k->is_known || !k->out->features)
        return false;
    float turns = (float)k->scope->index->turn_count;
    for (size_t g = 0; g < k->query->gram_count; g++) {
        float with = (float)k->scope->index->gram_turns[k->query->grams[g]];
        k->gram_rarity[g] = logf(1 + (turns - with + 0.5f) / (with + 0.5f));
    }
    for (size_t q = 0; q < k->query->count; q++) {
        k->rarity_sum += k->query->terms[q].rarity;
        k->rarest = fmaxf(k->rarest, k->query->terms[q].rarity);
    }
    if (k->rarest == 0)
        k->rarest = 1e9f;
    return true;
}

enum ph_status context_candidates_find(const struct context_scope *scope, const struct context_query *query,
                                       const struct context_search *search, struct arena *arena,
                                       struct context_candidates *candidates)
{
    *candidates = (struct context_candidates){0};
    struct knowing k = {.scope = scope, .query = query, .search = search, .out = candidates};
    if (!choose_slots(scope, search, arena, candidates) || !prepare(&k, arena))
        return PH_ERR_NOMEM;
    for (size_t i = 0; i < candidates->count; i++) {
        know_words(&k, i);
        know_talk(&k, i);
    }
    know_group(&k);
    return make_comparable(candidates, arena) ? PH_OK : PH_ERR_NOMEM;
}
