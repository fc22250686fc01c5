/* The index of one user's turns: who said which words when.
 * A turn is added once and never changes. Adding reserves all memory first, so that a failure leaves the
 * index as it was (I1). Turns are in the order of their messages' numbers (I2); a conversation's turns are
 * linked, because others' may lie between them. What is forgotten stays in the arrays, flagged, and is
 * skipped by every query (I3): its memory goes with the index, which its owner builds anew. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "memory/index_int.h"
#include "memory/spt_int.h"
#include "tensor/tensor.h"

#define SESSION_GAP_S 7200   /* a longer silence begins a new session ... */
#define SESSION_TURNS_MAX 40 /* ... and so does this many turns, where times are unknown */
#define TURN_WORDS_MAX 4096  /* of one turn; what follows is not found by its words */
#define WORD_TERMS_MAX (1u << 24)

/* ---- Hash tables ---- */

static size_t slot_of(const struct hash_table *table, uint64_t key)
{
    size_t mask = table->capacity - 1;
    size_t at = (size_t)(key * 0x9E3779B97F4A7C15u >> 20) & mask;
    while (table->slots[at].key && table->slots[at].key != key)
        at = (at + 1) & mask;
    return at;
}

uint32_t hash_table_find(const struct hash_table *table, uint64_t key)
{
    if (!table->capacity)
        return INDEX_NONE;
    const struct hash_slot *slot = &table->slots[slot_of(table, key)];
    return slot->key ? slot->value : INDEX_NONE;
}

bool hash_table_reserve(struct hash_table *table, size_t more)
{
    if ((table->count + more) * 4 <= table->capacity * 3)
        return true;
    size_t capacity = table->capacity ? table->capacity : 64;
    while ((table->count + more) * 4 > capacity * 3)
        capacity *= 2;
    struct hash_slot *old = table->slots;
    size_t old_capacity = table->capacity;
    struct hash_slot *slots = mem_calloc(capacity, sizeof *slots);
    if (!slots)
        return false;
    table->slots = slots;
    table->capacity = capacity;
    for (size_t i = 0; i < old_capacity; i++)
        if (old[i].key)
            slots[slot_of(table, old[i].key)] = old[i];
    mem_free(old);
    return true;
}

void hash_table_put(struct hash_table *table, uint64_t key, uint32_t value)
{
    table->slots[slot_of(table, key)] = (struct hash_slot){.key = key, .value = value};
    table->count++;
}

void hash_table_add(struct hash_table *table, uint64_t key, uint32_t more)
{
    struct hash_slot *slot = &table->slots[slot_of(table, key)];
    table->count += !slot->key;
    slot->key = key;
    slot->value += more;
}

/* ---- Growing arrays ---- */

/* Room for `more` elements after `count`; by halves, so that many small ones cost little. */
static bool grow(void *array, size_t *capacity, size_t count, size_t more, size_t size)
{
    void **at = array;
    if (count + more <= *capacity)
        return true;
    size_t wanted = *capacity + *capacity / 2 + 16;
    if (wanted < count + more)
        wanted = count + more;
    void *grown = mem_realloc(*at, wanted, size);
    if (!grown)
        return false;
    *at = grown;
    *capacity = wanted;
    return true;
}

static bool grow32(void *array, uint32_t *capacity, uint32_t count, uint32_t more, size_t size)
{
    size_t wide = *capacity;
    if (!grow(array, &wide, count, more, size))
        return false;
    *capacity = (uint32_t)wide;
    return true;
}

/* ---- Life ---- */

enum ph_status memory_index_create(struct memory_index **out, const struct index_params *params,
                                   struct ph_err *err)
{
    struct memory_index *index = mem_calloc(1, sizeof *index);
    if (!index)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    index->params = *params;
    index->kernels = kernels_select(NULL);
    enum ph_status status = text_stemmer_create(&index->stemmer, params->language, err);
    if (status) {
        memory_index_free(index);
        return status;
    }
    *out = index;
    return PH_OK;
}

void memory_index_free(struct memory_index *index)
{
    if (!index)
        return;
    for (uint32_t i = 0; i < index->term_count; i++)
        mem_free(index->terms[i].postings);
    for (uint32_t i = 0; i < index->speaker_count; i++) {
        mem_free(index->speakers[i].name);
        mem_free(index->speakers[i].stems);
    }
    void *arrays[] = {index->term_of.slots, index->gram_of.slots, index->known_as.slots, index->terms,
                      index->gram_turns,    index->gram_last,     index->term_grams,     index->turns,
                      index->occurrences,   index->words,         index->speakers,       index->conversations,
                      index->vectors};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        mem_free(arrays[i]);
    text_stemmer_free(index->stemmer);
    mem_free(index);
}

size_t memory_index_turns(const struct memory_index *index)
{
    return index->turn_count;
}

int64_t memory_index_last(const struct memory_index *index)
{
    return index->turn_count ? index->turns[index->turn_count - 1].message : 0;
}

size_t memory_index_bytes(const struct memory_index *index)
{
    return sizeof *index + index->posting_bytes +
           (index->term_of.capacity + index->gram_of.capacity + index->known_as.capacity) *
               sizeof(struct hash_slot) +
           index->term_capacity * sizeof *index->terms + index->gram_capacity * 8u +
           index->term_gram_capacity * 4 + index->turn_capacity * sizeof *index->turns +
           index->occurrence_capacity * 4 + index->word_capacity + index->vector_capacity * SPT_WIDTH;
}

uint32_t memory_token_estimate(const char *name, size_t content_len)
{
    return (uint32_t)((strlen(name) + 2 + content_len + 1 + 3) / 4);
}

/* ---- Grams ---- */

size_t text_grams(const char *folded, size_t len, uint64_t *grams, size_t max)
{
    char padded[TEXT_WORD_BYTES_MAX + 2];
    padded[0] = '<';
    memcpy(padded + 1, folded, len);
    padded[len + 1] = '>';
    size_t count = 0;
    for (size_t n = 3; n <= 4; n++)
        for (size_t i = 0; i + n <= len + 2 && count < max; i++)
            grams[count++] = text_hash(padded + i, n);
    return count;
}

static bool learn_grams(struct memory_index *index, struct index_term *term, const struct text_word *word)
{
    uint64_t grams[INDEX_TERM_GRAMS_MAX];
    size_t count = text_grams(word->folded, word->stem_len, grams, INDEX_TERM_GRAMS_MAX);
    if (!hash_table_reserve(&index->gram_of, count) || !grow(&index->term_grams, &index->term_gram_capacity,
                                                             index->term_gram_count, count, sizeof(uint32_t)))
        return false;
    uint32_t capacity = index->gram_capacity;
    if (!grow32(&index->gram_turns, &capacity, index->gram_count, (uint32_t)count, sizeof(uint32_t)))
        return false;
    if (capacity != index->gram_capacity) {
        uint32_t *last = mem_realloc(index->gram_last, capacity, sizeof *last);
        if (!last)
            return false;
        index->gram_last = last;
        index->gram_capacity = capacity;
    }
    term->grams = (uint32_t)index->term_gram_count;
    term->gram_count = (uint8_t)count;
    for (size_t i = 0; i < count; i++) {
        uint32_t gram = hash_table_find(&index->gram_of, grams[i]);
        if (gram == INDEX_NONE) {
            gram = index->gram_count++;
            index->gram_turns[gram] = 0;
            index->gram_last[gram] = INDEX_NONE;
            hash_table_put(&index->gram_of, grams[i], gram);
        }
        index->term_grams[index->term_gram_count++] = gram;
    }
    return true;
}

/* ---- Terms ---- */

/* The term of a word, made where it is new; INDEX_NONE: no memory. */
static uint32_t learn_term(struct memory_index *index, const struct text_word *word)
{
    uint32_t known = hash_table_find(&index->term_of, word->stem);
    if (known != INDEX_NONE)
        return known;
    if (index->term_count >= WORD_TERMS_MAX || !hash_table_reserve(&index->term_of, 1) ||
        !grow32(&index->terms, &index->term_capacity, index->term_count, 1, sizeof *index->terms) ||
        !grow(&index->words, &index->word_capacity, index->word_bytes, word->folded_len + 1u, 1))
        return INDEX_NONE;
    struct index_term term = {.stem = word->stem,
                              .flags = (uint16_t)(word->flags & ~TEXT_NAME),
                              .text = (uint32_t)index->word_bytes,
                              .vector = spt_word(index->params.spt, word->stem)};
    if (!learn_grams(index, &term, word))
        return INDEX_NONE;
    memcpy(index->words + index->word_bytes, word->folded, word->folded_len + 1u);
    index->word_bytes += word->folded_len + 1u;
    index->terms[index->term_count] = term;
    hash_table_put(&index->term_of, word->stem, index->term_count);
    return index->term_count++;
}

static bool reserve_posting(struct memory_index *index, struct index_term *term)
{
    uint32_t before = term->capacity;
    if (term->count < before)
        return true;
    uint32_t wanted = before ? before * 2 : 2;
    struct posting *grown = mem_realloc(term->postings, wanted, sizeof *grown);
    if (!grown)
        return false;
    term->postings = grown;
    term->capacity = wanted;
    index->posting_bytes += (wanted - before) * sizeof *grown;
    return true;
}

/* ---- Speakers and conversations ---- */

/* A name's words, of which any may stand for it. */
static bool learn_name(struct memory_index *index, struct index_speaker *speaker)
{
    struct text_reader reader;
    struct text_word word;
    size_t capacity = 0;
    text_reader_init(&reader, index->stemmer, speaker->name, strlen(speaker->name));
    while (text_next(&reader, &word)) {
        if (!grow(&speaker->stems, &capacity, speaker->stem_count, 1, sizeof *speaker->stems))
            return false;
        speaker->stems[speaker->stem_count++] = word.stem;
    }
    return true;
}

static uint32_t learn_speaker(struct memory_index *index, const char *name, bool has_name)
{
    for (uint32_t i = index->speaker_count; i-- > 0;)
        if (!strcmp(index->speakers[i].name, name))
            return i;
    if (!grow32(&index->speakers, &index->speaker_capacity, index->speaker_count, 1, sizeof *index->speakers))
        return INDEX_NONE;
    struct index_speaker speaker = {.name = mem_strdup(name), .has_name = has_name};
    if (!speaker.name || !learn_name(index, &speaker)) {
        mem_free(speaker.name);
        mem_free(speaker.stems);
        return INDEX_NONE;
    }
    index->speakers[index->speaker_count] = speaker;
    return index->speaker_count++;
}

static uint32_t learn_conversation(struct memory_index *index, int64_t number)
{
    uint64_t key = (uint64_t)number + 1;
    uint32_t known = hash_table_find(&index->known_as, key);
    if (known != INDEX_NONE)
        return known;
    if (!hash_table_reserve(&index->known_as, 1) ||
        !grow32(&index->conversations, &index->conversation_capacity, index->conversation_count, 1,
                sizeof *index->conversations))
        return INDEX_NONE;
    index->conversations[index->conversation_count] =
        (struct index_conversation){.number = number, .first = INDEX_NONE, .last = INDEX_NONE};
    hash_table_put(&index->known_as, key, index->conversation_count);
    return index->conversation_count++;
}

/* ---- Adding ---- */

struct adding { /* a turn on its way in */
    struct index_turn_row row;
    bool first_words; /* nothing but a name was said so far */
    float direction[SPT_WIDTH];
};

static void sum_vector(const struct memory_index *index, const struct index_term *term, float *sum)
{
    if (term->vector < 0)
        return;
    const int8_t *v = spt_word_vector(index->params.spt, term->vector);
    float weight = spt_word_weight(index->params.spt, term->vector);
    for (size_t i = 0; i < SPT_WIDTH; i++)
        sum[i] += weight * (float)v[i];
}

/* Who is named by the first word: "will: totem is fine". Of many of a name the latest. */
static uint32_t addressee(const struct memory_index *index, const struct text_word *word, uint32_t speaker)
{
    for (uint32_t i = index->speaker_count; i-- > 0;)
        if (i != speaker && index->speakers[i].stem_count && index->speakers[i].stems[0] == word->stem)
            return i;
    return INDEX_NONE;
}

static bool add_words(struct memory_index *index, const char *text, size_t len, struct adding *adding)
{
    struct text_reader reader;
    struct text_word word;
    text_reader_init(&reader, index->stemmer, text, len);
    while (adding->row.word_count < TURN_WORDS_MAX && text_next(&reader, &word)) {
        uint32_t term = learn_term(index, &word);
        if (term == INDEX_NONE || !reserve_posting(index, &index->terms[term]) ||
            !grow(&index->occurrences, &index->occurrence_capacity,
                  adding->row.words + adding->row.word_count, 1, sizeof(uint32_t)))
            return false;
        if (!adding->row.word_count)
            adding->row.addressed = addressee(index, &word, adding->row.speaker);
        index->occurrences[adding->row.words + adding->row.word_count++] = term;
        index->terms[term].uses++;
        index->terms[term].names += word.flags & TEXT_NAME ? 1 : 0;
        adding->row.length += word.flags & TEXT_STOP ? 0 : 1;
        adding->row.flags |= word.flags & TEXT_TIME ? TURN_TIME : 0;
        adding->row.flags |= word.flags & TEXT_NUMBER ? TURN_NUMBER : 0;
        sum_vector(index, &index->terms[term], adding->direction);
    }
    if (reader.questions)
        adding->row.flags |= TURN_ASKS;
    return true;
}

static void post_words(struct memory_index *index, uint32_t turn, const struct index_turn_row *row)
{
    for (uint32_t i = 0; i < row->word_count; i++) {
        struct index_term *term = &index->terms[index->occurrences[row->words + i]];
        if (term->count && term->postings[term->count - 1].turn == turn) {
            term->postings[term->count - 1].count++;
            continue;
        }
        term->postings[term->count++] = (struct posting){.turn = turn, .count = 1};
        for (uint32_t g = 0; g < term->gram_count; g++) {
            uint32_t gram = index->term_grams[term->grams + g];
            if (index->gram_last[gram] == turn)
                continue;
            index->gram_last[gram] = turn;
            index->gram_turns[gram]++;
        }
    }
}

/* Links the turn to the one before it in its conversation; a long silence begins a session. */
static void link_turn(struct memory_index *index, uint32_t turn, struct index_turn_row *row)
{
    struct index_conversation *conversation = &index->conversations[row->conversation];
    bool is_new = conversation->last == INDEX_NONE;
    row->before = conversation->last;
    row->after = INDEX_NONE;
    row->place = conversation->turns++;
    if (is_new) {
        conversation->first = turn;
    } else {
        struct index_turn_row *last = &index->turns[conversation->last];
        last->after = turn;
        bool timed = row->created_at && last->created_at;
        is_new =
            timed ? row->created_at - last->created_at > SESSION_GAP_S : row->place % SESSION_TURNS_MAX == 0;
        row->session = last->session;
    }
    if (is_new) {
        row->session = index->session_count++;
        conversation->sessions++;
    }
    conversation->last = turn;
}

static bool reserve_turn(struct memory_index *index)
{
    uint32_t count = index->turn_count;
    return count < INDEX_NONE - 1 &&
           grow32(&index->turns, &index->turn_capacity, count, 1, sizeof *index->turns) &&
           (!index->params.spt || grow(&index->vectors, &index->vector_capacity, count, 1, SPT_WIDTH));
}

enum ph_status memory_index_add(struct memory_index *index, const struct index_turn *turn)
{
    bool has_name = turn->name && *turn->name;
    const char *name = has_name ? turn->name : turn->role;
    struct adding adding = {.row = {.message = turn->message,
                                    .created_at = turn->created_at,
                                    .tokens = turn->tokens,
                                    .words = (uint32_t)index->occurrence_count,
                                    .addressed = INDEX_NONE,
                                    .flags = strcmp(turn->role, "system") ? 0 : TURN_SYSTEM}};
    adding.row.speaker = learn_speaker(index, name, has_name);
    adding.row.conversation = learn_conversation(index, turn->conversation);
    if (adding.row.speaker == INDEX_NONE || adding.row.conversation == INDEX_NONE || !reserve_turn(index) ||
        !add_words(index, turn->text, turn->text_len, &adding) ||
        (turn->about && !add_words(index, turn->about, turn->about_len, &adding)))
        return PH_ERR_NOMEM; /* I1: terms that nobody posts do no harm */
    uint32_t at = index->turn_count;
    link_turn(index, at, &adding.row);
    post_words(index, at, &adding.row);
    index->turns[at] = adding.row;
    if (index->vectors)
        spt_direction(adding.direction, index->vectors + (size_t)at * SPT_WIDTH);
    index->occurrence_count += adding.row.word_count;
    index->length_sum += adding.row.length;
    index->turn_count++;
    return PH_OK;
}

void memory_index_forget(struct memory_index *index, int64_t conversation)
{
    uint32_t known = hash_table_find(&index->known_as, (uint64_t)conversation + 1);
    if (known == INDEX_NONE)
        return;
    for (uint32_t t = index->conversations[known].first; t != INDEX_NONE; t = index->turns[t].after)
        index->turns[t].flags |= TURN_FORGOTTEN;
    index->has_forgotten = true;
}
