/* Why a turn was chosen, in words: features belong to families, a family's points are its features' parts
 * of the score, and the greatest are said. */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "memory/context_int.h"

#define REASON_BYTES_MAX 256
#define REASON_WORDS_MAX 5

enum family {
    FAMILY_WORDS,
    FAMILY_AROUND,
    FAMILY_SESSION,
    FAMILY_LETTERS,
    FAMILY_MEANING,
    FAMILY_FEEDBACK,
    FAMILY_SPEAKER,
    FAMILY_TALK,
    FAMILY_TIME,
    FAMILY_NEWS,
    FAMILY_AGE,
    FAMILY_OTHERS, /* no feature's: the set transformer's */
    FAMILY_COUNT
};

static const enum family family_of[FEATURE_COUNT] = {
    [F_WORDS] = FAMILY_WORDS,
    [F_BEFORE_1] = FAMILY_AROUND,
    [F_AFTER_1] = FAMILY_AROUND,
    [F_BEFORE_2] = FAMILY_AROUND,
    [F_AFTER_2] = FAMILY_AROUND,
    [F_WINDOW] = FAMILY_AROUND,
    [F_WIDE] = FAMILY_SESSION,
    [F_SESSION] = FAMILY_SESSION,
    [F_CONVERSATION] = FAMILY_SESSION,
    [F_GRAMS] = FAMILY_LETTERS,
    [F_GRAMS_AROUND] = FAMILY_AROUND,
    [F_COVERAGE] = FAMILY_WORDS,
    [F_COVERAGE_AROUND] = FAMILY_AROUND,
    [F_GENERAL] = FAMILY_WORDS,
    [F_GENERAL_AROUND] = FAMILY_AROUND,
    [F_PAIRS] = FAMILY_WORDS,
    [F_RAREST] = FAMILY_WORDS,
    [F_RANK_WORDS] = FAMILY_WORDS,
    [F_RANK_WINDOW] = FAMILY_AROUND,
    [F_RANK_WIDE] = FAMILY_SESSION,
    [F_RANK_SESSION] = FAMILY_SESSION,
    [F_RANK_GRAMS] = FAMILY_LETTERS,
    [F_RANK_MEANING] = FAMILY_MEANING,
    [F_MEANING] = FAMILY_MEANING,
    [F_MEANING_AROUND] = FAMILY_AROUND,
    [F_MEANING_WIDE] = FAMILY_SESSION,
    [F_SOFT] = FAMILY_MEANING,
    [F_SOFT_AROUND] = FAMILY_AROUND,
    [F_FEEDBACK] = FAMILY_FEEDBACK,
    [F_RANK_FEEDBACK] = FAMILY_FEEDBACK,
    [F_SPEAKER] = FAMILY_SPEAKER,
    [F_OTHER_SPEAKER] = FAMILY_SPEAKER,
    [F_USER] = FAMILY_SPEAKER,
    [F_MENTIONS] = FAMILY_SPEAKER,
    [F_SPEAKER_WORDS] = FAMILY_SPEAKER,
    [F_ASKS] = FAMILY_TALK,
    [F_ANSWERS] = FAMILY_TALK,
    [F_ANSWERS_WORDS] = FAMILY_TALK,
    [F_LENGTH] = FAMILY_TALK,
    [F_SHORT] = FAMILY_TALK,
    [F_NAMES] = FAMILY_NEWS,
    [F_NEW] = FAMILY_NEWS,
    [F_NAMES_WIDE] = FAMILY_NEWS,
    [F_WHEN_TIME] = FAMILY_TIME,
    [F_MANY_NUMBER] = FAMILY_TIME,
    [F_DATE] = FAMILY_TIME,
    [F_GROUP_AGE] = FAMILY_AGE,
    [F_GROUP_LAST] = FAMILY_AGE,
    [F_GROUP_ADDRESSED] = FAMILY_TALK,
    [F_GROUP_ADDRESSES] = FAMILY_TALK,
    [F_GROUP_SAME] = FAMILY_TALK,
    [F_GROUP_RECENT_ADDRESSED] = FAMILY_TALK,
    [F_GROUP_ADDRESSES_LAST] = FAMILY_TALK,
    [F_GROUP_SAME_LAST] = FAMILY_TALK,
    [F_GROUP_ASKS] = FAMILY_TALK,
};

/* The words that it shares with the query, the rarest first. */
static void list_shared(const struct context_scope *scope, const struct context_query *query,
                        const struct index_turn_row *row, struct buf *out)
{
    bool said[QUERY_TERMS_MAX] = {false};
    for (size_t n = 0; n < REASON_WORDS_MAX; n++) {
        size_t best = query->count;
        for (uint32_t i = 0; i < row->word_count; i++)
            for (size_t q = 0; q < query->count; q++)
                if (!said[q] && query->terms[q].rarity > 0 &&
                    query->terms[q].term == scope->index->occurrences[row->words + i] &&
                    (best == query->count || query->terms[q].rarity > query->terms[best].rarity))
                    best = q;
        if (best == query->count)
            return;
        said[best] = true;
        buf_puts(out, n ? ", " : "");
        buf_puts(out, scope->index->words + scope->index->terms[query->terms[best].term].text);
    }
}

static void say(enum family family, const struct context_scope *scope, const struct context_query *query,
                uint32_t slot, struct buf *out)
{
    const struct index_turn_row *row = &scope->index->turns[scope->turns[slot]];
    static const char *const phrases[FAMILY_COUNT] = {
        [FAMILY_WORDS] = "shares words with the question: ",
        [FAMILY_AROUND] = "stands among turns that fit the question",
        [FAMILY_SESSION] = "was said in a conversation about this",
        [FAMILY_LETTERS] = "has words spelled alike",
        [FAMILY_MEANING] = "is near in meaning",
        [FAMILY_FEEDBACK] = "shares words with the best hits",
        [FAMILY_SPEAKER] = "was said by whom the question is about: ",
        [FAMILY_TALK] = "its place in the talk fits (who answers whom)",
        [FAMILY_TIME] = "has the time or number that is asked for",
        [FAMILY_NEWS] = "says names, numbers or something new",
        [FAMILY_AGE] = "is recent",
        [FAMILY_OTHERS] = "stands out beside the others that were found",
    };
    buf_puts(out, phrases[family]);
    if (family == FAMILY_WORDS)
        list_shared(scope, query, row, out);
    if (family == FAMILY_SPEAKER)
        buf_puts(out, scope->index->speakers[row->speaker].name);
}

static enum ph_status add_reason(struct context_item *item, const char *text, size_t len, float points,
                                 struct arena *arena)
{
    char *what = arena_strndup(arena, text, len);
    if (!what)
        return PH_ERR_NOMEM;
    item->reasons[item->reason_count++] = (struct context_reason){.what = what, .points = points};
    return PH_OK;
}

enum ph_status context_explain(const struct context_scope *scope, const struct context_query *query,
                               const float *weights, const float *features, float others, uint32_t slot,
                               struct arena *arena, struct context_item *item)
{
    float points[FAMILY_COUNT] = {0};
    static const char recent[] = "is one of the newest turns";
    if (item->is_recent && add_reason(item, recent, sizeof recent - 1, 0, arena))
        return PH_ERR_NOMEM;
    for (size_t f = 0; weights && f < FEATURE_COUNT; f++)
        points[family_of[f]] += weights[f] * features[f];
    points[FAMILY_OTHERS] = others;
    while (item->reason_count < CONTEXT_REASONS_MAX) {
        size_t best = 0;
        for (size_t i = 1; i < FAMILY_COUNT; i++)
            best = points[i] > points[best] ? i : best;
        if (points[best] < 0.05f)
            break;
        struct buf text;
        buf_init(&text, REASON_BYTES_MAX);
        say((enum family)best, scope, query, slot, &text);
        enum ph_status status = add_reason(item, text.data, text.len, points[best], arena);
        buf_release(&text);
        if (status)
            return status;
        points[best] = 0;
    }
    return PH_OK;
}
