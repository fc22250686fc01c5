/* memory, private: what is known about a candidate, as numbers that mean the same for every query. */
#ifndef PHAROS_MEMORY_FEATURES_INT_H
#define PHAROS_MEMORY_FEATURES_INT_H

#include "base/arena.h"
#include "memory/index_int.h"

#define QUERY_TERMS_MAX 64
#define QUERY_GRAMS_MAX 192
#define CANDIDATES_MAX 256
#define FEEDBACK_TURNS 6
#define FEEDBACK_TERMS 12

/* All between 0 and 1, most of them as shares of the greatest among the candidates. */
enum feature {
    F_WORDS,    /* BM25 of the turn */
    F_BEFORE_1, /* of the turn before it ... */
    F_AFTER_1,
    F_BEFORE_2,
    F_AFTER_2,
    F_WINDOW,          /* of it and three on either side, less the farther */
    F_WIDE,            /* of all turns around it, ever less */
    F_SESSION,         /* of its session as one text */
    F_CONVERSATION,    /* of its conversation as one text */
    F_GRAMS,           /* BM25 of groups of 3 and 4 letters */
    F_GRAMS_AROUND,    /* the better of its two neighbours */
    F_COVERAGE,        /* share of the query's words, by their rarity, that it has */
    F_COVERAGE_AROUND, /* the same with its two neighbours */
    F_GENERAL,         /* coverage by the words' rarity in the language instead of in the scope */
    F_GENERAL_AROUND,
    F_PAIRS,      /* words of the query that are next to each other in it too */
    F_RAREST,     /* has the rarest word that can be found at all */
    F_RANK_WORDS, /* ranks: 1 for the first, falling with their logarithm */
    F_RANK_WINDOW,
    F_RANK_WIDE,
    F_RANK_SESSION,
    F_RANK_GRAMS,
    F_RANK_MEANING,
    F_MEANING, /* cosine of its vector with the query's */
    F_MEANING_AROUND,
    F_MEANING_WIDE,
    F_SOFT, /* each word of the query against the nearest of its words */
    F_SOFT_AROUND,
    F_FEEDBACK, /* BM25 of words that the best turns have besides the query's */
    F_RANK_FEEDBACK,
    F_SPEAKER,       /* its speaker is whom the query names */
    F_OTHER_SPEAKER, /* the query names somebody else only */
    F_USER,          /* said by the user of an assistant */
    F_MENTIONS,      /* names who is named in the query */
    F_SPEAKER_WORDS, /* said by the one named, times BM25 */
    F_ASKS,          /* has a question mark */
    F_ANSWERS,       /* the turn before it has one, of somebody else */
    F_ANSWERS_WORDS, /* that, times the BM25 of the turn before */
    F_LENGTH,
    F_SHORT,
    F_NAMES,                  /* has names, numbers: values that are asked for later */
    F_NEW,                    /* says words for the first time */
    F_NAMES_WIDE,             /* names, where the talk is about it */
    F_WHEN_TIME,              /* the query asks when, the turn has a word of time */
    F_MANY_NUMBER,            /* the query asks how many, the turn has a number */
    F_DATE,                   /* written on a date that the query names */
    F_GROUP_AGE,              /* in talk of many: how new it is */
    F_GROUP_LAST,             /* the very last */
    F_GROUP_ADDRESSED,        /* its speaker is the one whom the query addresses */
    F_GROUP_ADDRESSES,        /* it addresses the one who speaks now */
    F_GROUP_SAME,             /* the same speaker */
    F_GROUP_RECENT_ADDRESSED, /* the addressed one's newest turn */
    F_GROUP_ADDRESSES_LAST,   /* the newest turn that addresses the one who speaks */
    F_GROUP_SAME_LAST,        /* the speaker's own newest turn */
    F_GROUP_ASKS,             /* a question of somebody who waits */
    FEATURE_COUNT
};

/* Kinds of talk, of which each has its own weights in a trained selector. */
enum talk {
    TALK_ASSISTANT, /* between a user and an assistant: nobody has a name */
    TALK_PEOPLE,    /* of two or three who have names; of all conversations of a user */
    TALK_GROUP,     /* of many */
    TALK_COUNT
};

struct query_term {
    uint32_t term; /* INDEX_NONE: in no turn */
    uint16_t flags;
    float count;   /* in the query */
    float rarity;  /* idf in the scope; 0: a stop word or nowhere */
    float general; /* idf in the language; 0: a stop word */
    int32_t vector;
};

struct context_query {
    struct query_term terms[QUERY_TERMS_MAX];
    size_t count;
    uint16_t flags;                  /* of all words */
    uint32_t grams[QUERY_GRAMS_MAX]; /* known to the index, each once */
    size_t gram_count;
    int8_t direction[SPT_WIDTH];
    bool has_direction;
    uint32_t asker;     /* a speaker, or INDEX_NONE */
    uint32_t addressed; /* by its first word */
    bool *is_named;     /* [speakers] */
    size_t named_count;
    int month, year, day; /* named in it; 0: not */
};

/* The turns looked at, numbered from 0 in their order: a slot is a turn's place there. */
struct context_scope {
    const struct memory_index *index;
    uint32_t conversation;        /* INDEX_NONE: all */
    const uint32_t *turns;        /* [count] */
    const uint32_t *before;       /* [count] slot of the turn before in its conversation, or INDEX_NONE */
    const bool *breaks;           /* [count] begins a session */
    const uint32_t *sessions;     /* [count] */
    const float *session_lengths; /* [the index's sessions] of their turns here; 0: none is here */
    uint32_t count, session_count;
    uint32_t first; /* of turns, or of places in the conversation */
    bool is_dense;  /* turns follow one another in the index: none of another conversation is between */
    enum talk talk;
    float length_mean;
};

/* What a whole scope gives for a query, [count] each; of sessions and conversations as texts one each. */
struct context_search {
    float *words, *window, *wide, *meaning, *meaning_wide, *feedback;
    const float *sessions;      /* [the index's sessions] */
    const float *conversations; /* [the index's conversations]; NULL: the scope is one */
};

struct context_candidates {
    uint32_t slots[CANDIDATES_MAX]; /* ascending */
    size_t count;
    float (*features)[FEATURE_COUNT]; /* [count] */
};

/* ---- A turn against the query (features_turn.c) ---- */

#define GRAM_WORDS (QUERY_GRAMS_MAX / 64)
#define SMALL_MAP_BITS 11
#define SMALL_MAP_SLOTS (1u << SMALL_MAP_BITS)
#define TURNS_READ_MAX (3 * CANDIDATES_MAX) /* candidates and the two beside each */

struct turn_words {
    float grams, soft, pairs;
    uint64_t has; /* the query's words, by bits */
};

struct small_map { /* of far fewer numbers than there are slots; INDEX_NONE: free */
    uint32_t keys[SMALL_MAP_SLOTS];
    uint16_t values[SMALL_MAP_SLOTS];
};

struct turn_reader {
    const struct context_scope *scope;
    const struct context_query *query;
    struct arena *arena;
    struct small_map gram_places; /* gram -> its place in the query */
    float gram_rarity[QUERY_GRAMS_MAX];
    int8_t *vectors; /* [vector_count][SPT_WIDTH] of the query's words that have one */
    size_t vector_count;
    uint32_t *match_of; /* [terms] */
    struct term_match *matches;
    float *near; /* [match_count][words of the query] */
    size_t match_count, match_capacity;
    struct small_map turn_places; /* slot -> its place in turns */
    struct turn_words turns[TURNS_READ_MAX];
    size_t turn_count;
};

PH_MUST_USE enum ph_status turn_reader_open(struct turn_reader **out, const struct context_scope *scope,
                                            const struct context_query *query, struct arena *arena);
/* Of at most TURNS_READ_MAX different slots; INDEX_NONE: of nothing. NULL: no memory. */
const struct turn_words *turn_reader_read(struct turn_reader *reader, uint32_t slot);

/* ---- Steps ---- */

/* PH_ERR_NOMEM only, all four; memory from the arena. */
PH_MUST_USE enum ph_status context_scope_find(const struct memory_index *index,
                                              const struct context_request *request, struct arena *arena,
                                              struct context_scope *scope);
/* The slot of a turn; INDEX_NONE: not in the scope. */
uint32_t context_scope_slot_of_row(const struct context_scope *scope, uint32_t turn);
static inline uint32_t context_scope_slot(const struct context_scope *scope, uint32_t turn)
{
    if (!scope->is_dense)
        return context_scope_slot_of_row(scope, turn);
    uint32_t slot = turn - scope->turns[0]; /* one before it: far too great */
    return slot < scope->count ? slot : INDEX_NONE;
}
PH_MUST_USE enum ph_status context_query_read(const struct context_scope *scope,
                                              const struct context_request *request, struct arena *arena,
                                              struct context_query *query);
PH_MUST_USE enum ph_status context_search(const struct context_scope *scope,
                                          const struct context_request *request, struct context_query *query,
                                          struct arena *arena, struct context_search *search);
/* The best of the scope by a first look, and all that is known about them. */
PH_MUST_USE enum ph_status context_candidates_find(const struct context_scope *scope,
                                                   const struct context_query *query,
                                                   const struct context_search *search, struct arena *arena,
                                                   struct context_candidates *candidates);
const char *talk_name(enum talk talk);
const char *feature_name(enum feature feature);

#endif
