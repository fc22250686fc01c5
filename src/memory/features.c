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
#define LANES 8

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

/* Ascending; merges runs of 1, 2, 4 ... Both have room for `count`, and either holds the result. */
static uint64_t *sort_keys(uint64_t *keys, uint64_t *spare, size_t count)
{
    for (size_t run = 1; run < count; run *= 2) {
        for (size_t at = 0; at < count; at += 2 * run) {
            size_t middle = at + run < count ? at + run : count;
            size_t end = at + 2 * run < count ? at + 2 * run : count;
            for (size_t to = at, a = at, b = middle; to < end; to++) {
                bool first = b == end || (a < middle && keys[a] < keys[b]);
                spare[to] = first ? keys[a++] : keys[b++];
            }
        }
        uint64_t *kept = keys;
        keys = spare;
        spare = kept;
    }
    return keys;
}

static float greatest(const float *values, size_t count)
{
    float most[LANES] = {0}; /* so that none waits for the one before it */
    for (size_t i = 0; i + LANES <= count; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            most[lane] = values[i + lane] > most[lane] ? values[i + lane] : most[lane];
    for (size_t i = count - count % LANES; i < count; i++)
        most[0] = values[i] > most[0] ? values[i] : most[0];
    for (size_t lane = 1; lane < LANES; lane++)
        most[0] = most[lane] > most[0] ? most[lane] : most[0];
    return most[0] > 0 ? most[0] : 1;
}

/* A heap of the best so far, the worst of them on top. In talk of many the newest turns count by
 * themselves. */
static void choose_slots(const struct context_scope *scope, const struct context_search *search,
                         struct context_candidates *out)
{
    struct first_look heap[CANDIDATES_MAX];
    size_t n = scope->count, count = 0;
    const float session = 0.2f / greatest(search->sessions, scope->index->session_count);
    const float window = 1 / greatest(search->window, n), wide = 0.5f / greatest(search->wide, n);
    const float meaning = 0.5f / greatest(search->meaning, n);
    const float feedback = 0.2f / greatest(search->feedback, n), newer = 1e-4f / (float)(n + 1);
    bool is_group = scope->talk == TALK_GROUP;
    for (uint32_t i = 0; i < n; i++) {
        float score = search->window[i] * window + search->sessions[scope->sessions[i]] * session +
                      search->wide[i] * wide + search->meaning[i] * meaning + search->feedback[i] * feedback +
                      newer * (float)i;
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
    uint64_t room[2][CANDIDATES_MAX];
    for (size_t i = 0; i < count; i++)
        room[0][i] = heap[i].slot;
    const uint64_t *order = sort_keys(room[0], room[1], count);
    for (size_t i = 0; i < count; i++)
        out->slots[i] = (uint32_t)order[i];
    out->count = count;
}

/* ---- What is known about each ---- */

struct knowing {
    const struct context_scope *scope;
    const struct context_query *query;
    const struct context_search *search;
    struct context_candidates *out;
    struct turn_reader *reader;
    float rarity_sum, rarest, general_sum;
};

static uint32_t turn_at(const struct knowing *k, size_t i)
{
    return k->scope->turns[k->out->slots[i]];
}

static const struct index_turn_row *row_of(const struct knowing *k, uint32_t turn)
{
    return &k->scope->index->turns[turn];
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
    float sum = 0;
    for (size_t q = 0; q < k->query->count; q++)
        if (has >> q & 1)
            sum += k->query->terms[q].general;
    return sum / k->general_sum;
}

static uint32_t slot_of(const struct knowing *k, uint32_t turn)
{
    return turn == INDEX_NONE ? INDEX_NONE : context_scope_slot(k->scope, turn);
}

static float at_slot(const float *values, uint32_t slot)
{
    return slot == INDEX_NONE ? 0 : values[slot];
}

static float greater(float a, float b)
{
    return a > b ? a : b;
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

/* What the first look has found. */
static void know_search(const struct knowing *k, uint32_t slot, uint32_t before, uint32_t after, float *f)
{
    const struct context_search *search = k->search;
    uint32_t conversation = row_of(k, k->scope->turns[slot])->conversation;
    f[F_WORDS] = search->words[slot];
    f[F_WINDOW] = search->window[slot];
    f[F_WIDE] = search->wide[slot];
    f[F_MEANING_WIDE] = search->meaning_wide[slot];
    f[F_SESSION] = search->sessions[k->scope->sessions[slot]];
    f[F_CONVERSATION] = search->conversations ? search->conversations[conversation] : 0;
    f[F_FEEDBACK] = search->feedback[slot];
    f[F_MEANING] = search->meaning[slot];
    f[F_BEFORE_1] = at_slot(search->words, before);
    f[F_AFTER_1] = at_slot(search->words, after);
    f[F_MEANING_AROUND] = greater(at_slot(search->meaning, before), at_slot(search->meaning, after));
}

/* false: no memory. */
static bool know_words(struct knowing *k, size_t i)
{
    float *f = k->out->features[i];
    const struct index_turn_row *row = row_of(k, turn_at(k, i));
    uint32_t before2 = row->before == INDEX_NONE ? row->before : row_of(k, row->before)->before;
    uint32_t after2 = row->after == INDEX_NONE ? row->after : row_of(k, row->after)->after;
    uint32_t slot = k->out->slots[i], before = slot_of(k, row->before), after = slot_of(k, row->after);
    know_search(k, slot, before, after, f);
    f[F_BEFORE_2] = at_slot(k->search->words, slot_of(k, before2));
    f[F_AFTER_2] = at_slot(k->search->words, slot_of(k, after2));
    const struct turn_words *here = turn_reader_read(k->reader, slot);
    const struct turn_words *left = turn_reader_read(k->reader, before);
    const struct turn_words *right = turn_reader_read(k->reader, after);
    if (!here || !left || !right)
        return false;
    uint64_t around = here->has | left->has | right->has;
    f[F_GRAMS] = here->grams;
    f[F_GRAMS_AROUND] = greater(left->grams, right->grams);
    f[F_SOFT] = here->soft;
    f[F_SOFT_AROUND] = greater(left->soft, right->soft);
    f[F_COVERAGE] = coverage(k, here->has);
    f[F_COVERAGE_AROUND] = around == here->has ? f[F_COVERAGE] : coverage(k, around);
    f[F_GENERAL] = general_coverage(k, here->has);
    f[F_GENERAL_AROUND] = around == here->has ? f[F_GENERAL] : general_coverage(k, around);
    f[F_PAIRS] = here->pairs;
    for (size_t q = 0; q < k->query->count; q++)
        if ((here->has >> q & 1) && k->query->terms[q].rarity >= k->rarest)
            f[F_RAREST] = 1;
    return true;
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
static void rank(struct context_candidates *out, enum feature to, enum feature of, const float *shares)
{
    uint64_t room[2][CANDIDATES_MAX];
    size_t count = 0;
    for (size_t i = 0; i < out->count; i++) {
        uint32_t bits; /* of numbers above 0 they ascend as these do */
        memcpy(&bits, &out->features[i][of], sizeof bits);
        if (out->features[i][of] > 0)
            room[0][count++] = (uint64_t)~bits << 32 | i;
    }
    const uint64_t *order = sort_keys(room[0], room[1], count);
    float share = 1;
    for (size_t i = 0; i < count; i++) {
        if (!i || order[i] >> 32 != order[i - 1] >> 32)
            share = shares[i];
        out->features[(uint32_t)order[i]][to] = share;
    }
}

static void make_comparable(struct context_candidates *out)
{
    float shares[CANDIDATES_MAX];
    for (size_t i = 0; i < out->count; i++)
        shares[i] = 1 - logf((float)i + 1) / logf((float)CANDIDATES_MAX + 1);
    for (size_t r = 0; r < sizeof ranked / sizeof *ranked; r++)
        rank(out, ranked[r].rank, ranked[r].of, shares);
    for (size_t s = 0; s < sizeof scaled / sizeof *scaled; s++) {
        float most = 0;
        for (size_t i = 0; i < out->count; i++)
            most = greater(most, out->features[i][scaled[s]]);
        for (size_t i = 0; i < out->count && most > 0; i++)
            out->features[i][scaled[s]] /= most;
    }
}

static void prepare(struct knowing *k)
{
    k->general_sum = 1e-6f;
    for (size_t q = 0; q < k->query->count; q++) {
        k->rarity_sum += k->query->terms[q].rarity;
        k->rarest = greater(k->rarest, k->query->terms[q].rarity);
        k->general_sum += k->query->terms[q].general;
    }
    if (k->rarest == 0)
        k->rarest = 1e9f;
}

enum ph_status context_candidates_find(const struct context_scope *scope, const struct context_query *query,
                                       const struct context_search *search, struct arena *arena,
                                       struct context_candidates *candidates)
{
    *candidates = (struct context_candidates){0};
    struct knowing k = {.scope = scope, .query = query, .search = search, .out = candidates};
    if (turn_reader_open(&k.reader, scope, query, arena))
        return PH_ERR_NOMEM;
    choose_slots(scope, search, candidates);
    candidates->features = arena_calloc(arena, candidates->count + 1, sizeof *candidates->features);
    if (!candidates->features)
        return PH_ERR_NOMEM;
    prepare(&k);
    for (size_t i = 0; i < candidates->count; i++) {
        if (!know_words(&k, i))
            return PH_ERR_NOMEM;
        know_talk(&k, i);
    }
    know_group(&k);
    make_comparable(candidates);
    return PH_OK;
}
