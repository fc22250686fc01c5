/* memory, private: the index of one user's turns. Everything is numbered from 0 in arrays: turns, terms
 * (stems), grams (of 3 and 4 letters), speakers, conversations. */
#ifndef PHAROS_MEMORY_INDEX_INT_H
#define PHAROS_MEMORY_INDEX_INT_H

#include "memory/context.h"
#include "memory/spt.h"
#include "memory/text_int.h"

#define INDEX_NONE UINT32_MAX
#define INDEX_TERM_GRAMS_MAX 48 /* of one word: those of its first letters */

struct hash_slot { /* open addressing; key 0: free */
    uint64_t key;
    uint32_t value;
};

struct hash_table {
    struct hash_slot *slots; /* a power of two of them, or none */
    size_t capacity, count;
};

struct posting {
    uint32_t turn;
    uint32_t count; /* how often the term is in it */
};

struct index_term {
    uint64_t stem;
    struct posting *postings; /* ascending by turn */
    uint32_t count, capacity; /* count: turns that have it */
    uint32_t grams;           /* first of its grams in index->term_grams */
    uint8_t gram_count;
    uint16_t flags; /* of every word with this stem; TEXT_NAME: most often */
    uint32_t names; /* how often it was written like a name */
    uint32_t uses;  /* how often it was written */
    uint32_t text;  /* as first written, in index->words: for people */
    int32_t vector; /* its row in the selector's words; -1: none */
};

enum turn_flag {
    TURN_ASKS = 1 << 0,   /* has a question mark */
    TURN_TIME = 1 << 1,   /* has a word of time */
    TURN_NUMBER = 1 << 2, /* has a number */
    TURN_FORGOTTEN = 1 << 3,
    TURN_SYSTEM = 1 << 4
};

struct index_turn_row {
    int64_t message;
    int64_t created_at;
    uint32_t conversation, speaker;
    uint32_t before, after; /* its neighbours in the conversation, or INDEX_NONE */
    uint32_t place;         /* in the conversation */
    uint32_t session;       /* numbered over the index */
    uint32_t tokens;
    uint32_t words, word_count; /* in index->occurrences */
    uint32_t addressed;         /* the speaker named at its beginning, or INDEX_NONE */
    uint32_t flags;
    uint32_t length; /* words that count */
};

struct index_speaker {
    uint64_t *stems; /* of the words of the name */
    size_t stem_count;
    char *name;
    bool has_name; /* not a role only */
};

struct index_conversation {
    int64_t number;
    uint32_t first, last; /* turns */
    uint32_t turns, sessions;
};

struct memory_index {
    struct index_params params;
    struct text_stemmer *stemmer;
    const struct kernels *kernels;
    struct hash_table term_of;  /* stem -> term */
    struct hash_table gram_of;  /* hash -> gram */
    struct hash_table known_as; /* conversation's number -> conversation */
    struct index_term *terms;
    uint32_t term_count, term_capacity;
    uint32_t *gram_turns; /* [gram_count]: turns that have it */
    uint32_t *gram_last;  /* the last turn counted there */
    uint32_t gram_count, gram_capacity;
    uint32_t *term_grams; /* gram numbers, term after term */
    size_t term_gram_count, term_gram_capacity;
    struct index_turn_row *turns;
    uint32_t turn_count, turn_capacity;
    uint32_t *occurrences; /* terms in the order of the texts */
    size_t occurrence_count, occurrence_capacity;
    char *words; /* each with its zero */
    size_t word_bytes, word_capacity;
    struct index_speaker *speakers;
    uint32_t speaker_count, speaker_capacity;
    struct index_conversation *conversations;
    uint32_t conversation_count, conversation_capacity;
    uint32_t session_count;
    uint32_t session_of_last;
    bool has_forgotten; /* any turn */
    int8_t *vectors;    /* [turn_count][SPT_WIDTH], unit length x 127; NULL without a selector */
    size_t vector_capacity;
    uint64_t length_sum; /* of all turns' lengths */
    size_t posting_bytes;
};

uint32_t hash_table_find(const struct hash_table *table, uint64_t key); /* INDEX_NONE: not there */
/* Room for one more key; false: no memory. */
bool hash_table_reserve(struct hash_table *table, size_t more);
void hash_table_put(struct hash_table *table, uint64_t key, uint32_t value); /* the key is new */
void hash_table_add(struct hash_table *table, uint64_t key, uint32_t more);  /* to its value, or to 0 */

/* Grams of 3 and 4 letters of "<word>": hashes, at most `max`. */
size_t text_grams(const char *folded, size_t len, uint64_t *grams, size_t max);

#endif
