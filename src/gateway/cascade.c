/* Cascades: may a cheap model's answer be trusted?
 *
 * Confidence from the model itself: the geometric mean of its tokens' probabilities (exp of the mean
 * log-probability, that is 1 / perplexity of the answer under its author), pulled down by its weakest
 * stretch: a long fluent answer hides one invented name in its mean, but not in the mean of its worst eight
 * tokens together. What ended for lack of room, or is empty, is not trusted. FrugalGPT (Chen et al. 2023)
 * and AutoMix (Aggarwal et al. 2023) judge by a second model; agreement between two cheap models costs no
 * more than the second one and needs no training.
 *
 * Agreement: the cosine of the answers' hashed counts of words and word pairs; numbers weigh more, because
 * two
 * answers that differ in a number differ. Short answers are compared as they are, without case and marks. */
#include <ctype.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "gateway/gateway_int.h"

#define WEAK_STRETCH 8 /* tokens */
#define SCRATCH_BYTES (1u << 20)
#define CUT_FACTOR 0.3  /* it ended for lack of room */
#define HASH_SLOTS 1024 /* of words and pairs */
#define NUMBER_WEIGHT 3.0

/* ---- Confidence */

struct stretch {
    double last[WEAK_STRETCH], sum, worst, total;
    size_t count;
};

static void stretch_add(struct stretch *s, double logprob)
{
    double clipped = logprob < -20 ? -20 : logprob > 0 ? 0 : logprob;
    size_t place = s->count % WEAK_STRETCH;
    if (s->count >= WEAK_STRETCH)
        s->sum -= s->last[place];
    s->last[place] = clipped;
    s->sum += clipped;
    s->total += clipped;
    s->count++;
    size_t len = s->count < WEAK_STRETCH ? s->count : WEAK_STRETCH;
    if (len == WEAK_STRETCH && (s->count == WEAK_STRETCH || s->sum / WEAK_STRETCH < s->worst))
        s->worst = s->sum / WEAK_STRETCH;
}

static double stretch_confidence(const struct stretch *s)
{
    double mean = s->total / (double)s->count;
    double worst = s->count >= WEAK_STRETCH ? s->worst : mean;
    return exp((mean + worst) / 2);
}

double cascade_confidence(const struct recording *recording)
{
    struct stretch stretch = {.count = 0};
    struct arena arena;
    struct chat_event event;
    size_t at = 0, text_bytes = 0;
    bool was_cut = false, called = false;
    arena_init(&arena, SCRATCH_BYTES);
    while (recording_next(recording, &at, &arena, &event)) {
        for (size_t i = 0; i < event.logprob_count; i++)
            stretch_add(&stretch, event.logprobs[i].logprob);
        text_bytes += event.kind == CHAT_EVENT_TEXT ? event.text.len : 0;
        called = called || event.kind == CHAT_EVENT_TOOL_CALL;
        if (event.kind == CHAT_EVENT_FINISH)
            was_cut =
                was_cut || event.finish == CHAT_FINISH_LENGTH || event.finish == CHAT_FINISH_CONTENT_FILTER;
        arena_clear(&arena);
    }
    arena_release(&arena);
    if (!text_bytes && !called)
        return 0;
    if (!stretch.count)
        return was_cut ? 0 : -1;
    return stretch_confidence(&stretch) * (was_cut ? CUT_FACTOR : 1);
}

/* ---- Agreement */

struct bag {
    double counts[HASH_SLOTS];
    double norm;
};

static uint32_t hash_more(uint32_t hash, unsigned char c)
{
    return (hash ^ c) * 16777619u; /* FNV-1a */
}

static void bag_word(struct bag *bag, uint32_t *previous, uint32_t hash, bool is_number)
{
    double weight = is_number ? NUMBER_WEIGHT : 1;
    uint32_t pair = (*previous * 31 + hash) * 2654435761u;
    bag->counts[(hash ^ hash >> 15) % HASH_SLOTS] += weight;
    if (*previous)
        bag->counts[(pair ^ pair >> 13) % HASH_SLOTS] += 0.5 * weight;
    *previous = hash;
}

static void bag_text(struct bag *bag, const struct buf *text)
{
    uint32_t hash = 2166136261u, previous = 0;
    bool in_word = false, is_number = false;
    for (size_t i = 0; i <= text->len; i++) {
        unsigned char c = i < text->len ? (unsigned char)text->data[i] : ' ';
        if (isalnum(c) || c >= 0x80) {
            hash = hash_more(hash, (unsigned char)tolower(c));
            is_number = is_number || isdigit(c);
            in_word = true;
        } else if (in_word) {
            bag_word(bag, &previous, hash, is_number);
            hash = 2166136261u;
            in_word = is_number = false;
        }
    }
}

static void collect(const struct recording *recording, struct buf *text)
{
    struct arena arena;
    struct chat_event event;
    size_t at = 0;
    arena_init(&arena, SCRATCH_BYTES);
    while (recording_next(recording, &at, &arena, &event)) {
        if (event.kind == CHAT_EVENT_TEXT && event.choice == 0)
            buf_append(text, event.text.text, event.text.len);
        if (event.kind == CHAT_EVENT_TOOL_CALL) {
            if (event.tool_call.name)
                buf_puts(text, event.tool_call.name);
            buf_append(text, event.tool_call.arguments.text, event.tool_call.arguments.len);
        }
        arena_clear(&arena);
    }
    arena_release(&arena);
}

double cascade_agreement(const struct recording *a, const struct recording *b)
{
    struct bag *bags = mem_calloc(2, sizeof *bags);
    struct buf texts[2];
    double dot = 0;
    buf_init(&texts[0], CHAT_REPLY_BYTES_MAX);
    buf_init(&texts[1], CHAT_REPLY_BYTES_MAX);
    collect(a, &texts[0]);
    collect(b, &texts[1]);
    for (int i = 0; bags && i < 2; i++) {
        bag_text(&bags[i], &texts[i]);
        for (size_t k = 0; k < HASH_SLOTS; k++)
            bags[i].norm += bags[i].counts[k] * bags[i].counts[k];
    }
    for (size_t k = 0; bags && k < HASH_SLOTS; k++)
        dot += bags[0].counts[k] * bags[1].counts[k];
    double norms = bags ? sqrt(bags[0].norm * bags[1].norm) : 0;
    mem_free(bags);
    buf_release(&texts[0]);
    buf_release(&texts[1]);
    return norms > 0 ? dot / norms : 0;
}
