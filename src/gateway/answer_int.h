/* gateway: what the files of an answer share: answer.c (its course), answer_fault.c (what failures mean),
 * answer_record.c (what is told about it). */
#ifndef PHAROS_GATEWAY_ANSWER_INT_H
#define PHAROS_GATEWAY_ANSWER_INT_H

#include "gateway/gateway_int.h"

enum ending { ENDING_NOT, ENDING_WELL, ENDING_BADLY };

struct answer {
    struct answer_params params;
    struct arena *arena;
    struct route_choice choice;
    size_t next;    /* candidate to begin next */
    unsigned round; /* of the whole list */
    bool waits_to_retry, waits_to_hedge;
    struct attempt *attempts; /* newest first */
    size_t attempt_count, running;
    struct attempt *speaking; /* A1 */

    size_t choice_count, finished; /* choices; of them, ended */
    bool *role_said;               /* one a choice */
    bool has_spoken;               /* something went out */
    bool can_continue;
    struct buf said; /* the text so far */
    uint64_t said_tokens, tokens_before;
    size_t owed_len; /* of `said`, at its end: what a continuation was not told */

    bool is_cascade, settled_for_less, has_preferred, was_judged;
    unsigned escalations;
    double escalate_below;   /* as it was when the answer began */
    double confidence;       /* of the last judgement; negative: none */
    double first_confidence; /* of the first one */
    unsigned first_stage;    /* that was judged */
    const struct recording *playing;
    size_t play_at;
    struct arena play_arena;

    struct chat_event usage;
    bool has_usage;
    struct chat_fault fault;     /* the last failure, in words for the client */
    struct chat_fault broken_by; /* the last failure of an attempt that spoke */
    struct net_timer *timer;     /* deadline, hedge, retry; NULL: none needed so far */
    uint64_t start_ns;
    enum ending ending; /* said when every attempt is over */
    bool is_over, is_abandoned;
    void (*over)(void *ud);
    void *over_ud;
};

void answer_release_attempt(void *ud);
/* Is it one of those that were judged first? */
bool answer_is_first_stage(const struct answer *answer, const struct attempt *attempt);

/* May another model do what this one could not? */
bool answer_may_pass(const struct chat_fault *fault);
/* May the same model do it in a moment? */
bool answer_is_transient(const struct chat_fault *fault);
/* Puts answer->fault into words for the client: a provider's 401 is not the client's. */
void answer_translate_fault(struct answer *answer, const struct attempt *attempt);

#endif
