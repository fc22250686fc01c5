/* Questions made up from conversations without any: what a person might ask later about a turn, in other
 * words, and not always naming the right one.
 * One to four of a turn's words, the rare ones more often; a quarter of them replaced by words of near
 * meaning; a speaker's name that is right, wrong or missing; sometimes words of the turn beside it,
 * sometimes a word that has nothing to do with it; sometimes several turns of one speaker in several
 * sessions. That this transfers to real questions where reply links alone do not is measured in
 * docs/MEMORY.md. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "memory/spt_train_int.h"

#define WORDS_MAX 4
#define TRIES 50
#define QUALITY 0.15f /* beside questions that people asked */
#define NEAR_MIN 0.45f
#define NEAR_COUNT 6
#define SEVERAL_MAX 5
#define LENGTH_ASKED 16.0f
#define QUERY_BYTES_MAX 1024

struct making {
    const struct memory_index *index;
    const struct spt_word_table *words;
    struct rng *rng;
    struct buf text;
};

static uint32_t pick(struct making *m, uint32_t count)
{
    return (uint32_t)(rng_u64(m->rng) % count);
}

static bool chance(struct making *m, float share)
{
    return rng_float(m->rng) < share;
}

static float rarity(const struct memory_index *index, uint32_t term)
{
    return logf(((float)index->turn_count + 1) / ((float)index->terms[term].count + 0.5f));
}

/* A word of near meaning, other than itself; NULL: none. */
static const char *near_word(struct making *m, uint32_t term)
{
    int32_t row = m->index->terms[term].vector;
    if (row < 0)
        return NULL;
    const int8_t *vector = m->words->vectors + (size_t)row * SPT_WIDTH;
    size_t best[NEAR_COUNT], found = 0;
    float cosines[NEAR_COUNT];
    for (size_t i = 0; i < m->words->count; i++) {
        float cosine = spt_cosine(vector, m->words->vectors + i * SPT_WIDTH);
        if (i == (size_t)row || cosine < NEAR_MIN || (found == NEAR_COUNT && cosine <= cosines[found - 1]))
            continue;
        size_t at = found < NEAR_COUNT ? found++ : found - 1;
        while (at && cosines[at - 1] < cosine) {
            cosines[at] = cosines[at - 1];
            best[at] = best[at - 1];
            at--;
        }
        cosines[at] = cosine;
        best[at] = i;
    }
    return found ? m->words->texts[best[pick(m, (uint32_t)found)]] : NULL;
}

static void say_word(struct making *m, uint32_t term)
{
    const char *other = chance(m, 0.25f) ? near_word(m, term) : NULL;
    buf_puts(&m->text, other ? other : m->index->words + m->index->terms[term].text);
    buf_putc(&m->text, ' ');
}

/* One of a turn's words that is not chosen yet, rare ones more often; INDEX_NONE: no more. */
static uint32_t pick_word(struct making *m, const struct index_turn_row *row, const uint32_t *chosen,
                          size_t count)
{
    uint32_t best = INDEX_NONE;
    float best_key = 0;
    for (uint32_t i = 0; i < row->word_count; i++) { /* weighted reservoir: greatest u^(1 / w) */
        uint32_t term = m->index->occurrences[row->words + i];
        bool skip = m->index->terms[term].flags & TEXT_STOP;
        for (size_t k = 0; k < count && !skip; k++)
            skip = chosen[k] == term;
        if (skip)
            continue;
        float key = powf(rng_float(m->rng), 1 / fmaxf(rarity(m->index, term), 0.1f));
        if (best == INDEX_NONE || key > best_key) {
            best = term;
            best_key = key;
        }
    }
    return best;
}

static size_t say_turn(struct making *m, const struct index_turn_row *row)
{
    uint32_t chosen[WORDS_MAX];
    size_t wanted = 1 + pick(m, WORDS_MAX), count = 0;
    while (count < wanted) {
        uint32_t term = pick_word(m, row, chosen, count);
        if (term == INDEX_NONE)
            break;
        chosen[count++] = term;
    }
    for (size_t i = 0; i < count; i++)
        say_word(m, chosen[i]);
    return count;
}

/* Right 55 of 100 times, somebody else 25, nobody 20. */
static void say_name(struct making *m, uint32_t speaker)
{
    float roll = rng_float(m->rng);
    uint32_t said = speaker;
    if (roll >= 0.8f)
        return;
    if (roll >= 0.55f && m->index->speaker_count > 1)
        said = (speaker + 1 + pick(m, m->index->speaker_count - 1)) % m->index->speaker_count;
    buf_puts(&m->text, m->index->speakers[said].name);
    buf_putc(&m->text, ' ');
}

static void say_noise(struct making *m)
{
    uint32_t turn = pick(m, m->index->turn_count);
    uint32_t term = pick_word(m, &m->index->turns[turn], NULL, 0);
    if (term != INDEX_NONE)
        say_word(m, term);
}

/* A turn, or the one beside it in whose words it is asked for. */
static bool ask_about_one(struct making *m, uint32_t *evidence, size_t *count)
{
    uint32_t turn = pick(m, m->index->turn_count);
    const struct index_turn_row *row = &m->index->turns[turn], *said = row;
    if (row->length < 3 || !chance(m, (float)row->length / LENGTH_ASKED)) /* people ask for what says much */
        return false;
    if (chance(m, 0.25f)) {
        uint32_t beside = chance(m, 0.7f) ? row->before : row->after;
        if (beside == INDEX_NONE || m->index->turns[beside].session != row->session)
            return false;
        said = &m->index->turns[beside];
    }
    if ((row->flags & TURN_TIME) && chance(m, 0.4f))
        buf_puts(&m->text, "When did ");
    else if ((row->flags & TURN_NUMBER) && chance(m, 0.3f))
        buf_puts(&m->text, "How many ");
    say_name(m, row->speaker);
    if (!say_turn(m, said))
        return false;
    if (chance(m, 0.5f))
        say_noise(m);
    evidence[(*count)++] = turn;
    return true;
}

/* All turns of one speaker that have a word, if these are two to five in two or more sessions. */
static bool ask_about_several(struct making *m, uint32_t *evidence, size_t *count)
{
    uint32_t turn = pick(m, m->index->turn_count);
    const struct index_turn_row *row = &m->index->turns[turn];
    uint32_t known = pick_word(m, row, NULL, 0);
    if (known == INDEX_NONE)
        return false;
    const struct index_term *term = &m->index->terms[known];
    if (term->count > 4 * SEVERAL_MAX)
        return false;
    uint32_t sessions = 0, last = INDEX_NONE;
    for (uint32_t i = 0; i < term->count; i++) {
        const struct index_turn_row *other = &m->index->turns[term->postings[i].turn];
        if (other->speaker != row->speaker)
            continue;
        if (*count == SEVERAL_MAX)
            return false;
        evidence[(*count)++] = term->postings[i].turn;
        sessions += other->session != last;
        last = other->session;
    }
    if (*count < 2 || sessions < 2)
        return false;
    say_name(m, row->speaker);
    say_word(m, known);
    if (chance(m, 0.5f))
        say_noise(m);
    return true;
}

enum ph_status spt_make_up(const struct memory_index *index, const struct spt_word_table *words,
                           struct rng *rng, struct arena *arena, struct spt_question *question)
{
    struct making m = {.index = index, .words = words, .rng = rng};
    uint32_t evidence[SEVERAL_MAX];
    size_t count = 0;
    buf_init(&m.text, QUERY_BYTES_MAX);
    for (size_t tries = 0; tries < TRIES && !count; tries++) {
        buf_clear(&m.text);
        bool made =
            chance(&m, 0.2f) ? ask_about_several(&m, evidence, &count) : ask_about_one(&m, evidence, &count);
        count = made ? count : 0;
    }
    *question = (struct spt_question){.kind = "made up", .before = index->turn_count, .quality = QUALITY};
    uint32_t *kept = arena_calloc(arena, count + 1, sizeof *kept);
    question->query = arena_strndup(arena, m.text.data ? m.text.data : "", m.text.len);
    question->query_len = m.text.len;
    question->evidence = kept;
    enum ph_status status = kept && question->query ? buf_status(&m.text) : PH_ERR_NOMEM;
    if (!status)
        memcpy(kept, evidence, count * sizeof *kept);
    question->evidence_count = status ? 0 : count;
    buf_release(&m.text);
    return status;
}
