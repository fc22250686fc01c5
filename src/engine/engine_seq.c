/* One sequence between its two threads: the scheduler, which pushes events, and its reader.
 *
 * Everything a sequence will ever need is allocated when it is made, so a step allocates nothing (E2). Events
 * wait in a ring, their text in one byte queue beside it. The scheduler asks seq_has_room before it lets the
 * sequence take part in a step; room is always kept for FINISH, so ending needs no waiting. A reader that
 * makes room again rings the doorbell, once.
 *
 * Ownership: two references, the reader's and the scheduler's; the last one frees. The wake callback runs
 * under the mutex, which is how engine_seq_free can promise that it runs no more. */
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "engine/engine_int.h"

/* One token makes at most so much text readable: its bytes, and up to 3 that were waiting for it. Each byte
 * that can never become a character turns into three. */
#define PIECE_BYTES_MAX (3 * ((size_t)VOCAB_TOKEN_BYTES_MAX + 4))
#define TEXT_SLACK_BYTES 2048
#define WAIT_FOREVER_NS (UINT64_C(1) << 62)

/* ---- Doorbell */

struct doorbell *doorbell_create(void)
{
    struct doorbell *bell = mem_calloc(1, sizeof *bell);
    if (!bell)
        return NULL;
    if (uv_mutex_init(&bell->mutex) != 0) {
        mem_free(bell);
        return NULL;
    }
    if (uv_cond_init(&bell->cond) != 0) {
        uv_mutex_destroy(&bell->mutex);
        mem_free(bell);
        return NULL;
    }
    atomic_init(&bell->refs, 1);
    return bell;
}

void doorbell_ref(struct doorbell *bell)
{
    atomic_fetch_add_explicit(&bell->refs, 1, memory_order_relaxed);
}

void doorbell_unref(struct doorbell *bell)
{
    if (!bell || atomic_fetch_sub_explicit(&bell->refs, 1, memory_order_acq_rel) != 1)
        return;
    uv_cond_destroy(&bell->cond);
    uv_mutex_destroy(&bell->mutex);
    mem_free(bell);
}

void doorbell_ring(struct doorbell *bell)
{
    uv_mutex_lock(&bell->mutex);
    bell->rung = true;
    uv_cond_broadcast(&bell->cond);
    uv_mutex_unlock(&bell->mutex);
}

/* ---- Making one */

static enum ph_status check_stops(const struct engine_request *request, struct ph_err *err)
{
    if (request->stop_count > ENGINE_STOP_COUNT_MAX)
        return ph_fail(err, PH_ERR_ARG, "%zu stop strings are given, at most %d are allowed",
                       request->stop_count, ENGINE_STOP_COUNT_MAX);
    for (size_t i = 0; i < request->stop_count; i++) {
        const struct engine_text *stop = &request->stops[i];
        if (stop->len == 0 || stop->len > ENGINE_STOP_BYTES_MAX)
            return ph_fail(err, PH_ERR_ARG, "stop string %zu has %zu bytes, 1 to %d are allowed", i,
                           stop->len, ENGINE_STOP_BYTES_MAX);
        if (!utf8_valid(stop->text, stop->len))
            return ph_fail(err, PH_ERR_ARG, "stop string %zu is not valid UTF-8", i);
    }
    return PH_OK;
}

static enum ph_status check_request(const struct engine *engine, const struct engine_request *request,
                                    struct ph_err *err)
{
    size_t context_len = engine->params.context_len;
    if (!request->prompt || request->prompt_len == 0)
        return ph_fail(err, PH_ERR_ARG, "the prompt is empty: at least one token is needed");
    if (request->prompt_len >= context_len)
        return ph_fail(err, PH_ERR_LIMIT,
                       "the prompt has %zu tokens, the context holds %zu and one must be left to generate",
                       request->prompt_len, context_len);
    for (size_t i = 0; i < request->prompt_len; i++)
        if (request->prompt[i] < 0 || (size_t)request->prompt[i] >= engine->n_vocab)
            return ph_fail(err, PH_ERR_ARG, "token %zu of the prompt is %d, the vocabulary has 0 to %zu", i,
                           (int)request->prompt[i], engine->n_vocab - 1);
    if (request->top_logprobs > ENGINE_LOGPROBS_MAX)
        return ph_fail(err, PH_ERR_ARG, "%zu top logprobs are asked for, at most %d are given",
                       request->top_logprobs, ENGINE_LOGPROBS_MAX);
    if (request->sampling.bias_count > ENGINE_LOGIT_BIAS_MAX)
        return ph_fail(err, PH_ERR_ARG, "%zu logit biases are given, at most %d are allowed",
                       request->sampling.bias_count, ENGINE_LOGIT_BIAS_MAX);
    return check_stops(request, err);
}

static size_t longest_stop(const struct engine_request *request)
{
    size_t longest = 0;
    for (size_t i = 0; i < request->stop_count; i++)
        if (request->stops[i].len > longest)
            longest = request->stops[i].len;
    return longest;
}

static bool copy_stops(struct engine_seq *seq, const struct engine_request *request)
{
    struct engine_text *stops = arena_calloc(&seq->arena, request->stop_count, sizeof *stops);
    if (!stops)
        return false;
    for (size_t i = 0; i < request->stop_count; i++) {
        stops[i].len = request->stops[i].len;
        stops[i].text = arena_strndup(&seq->arena, request->stops[i].text, request->stops[i].len);
        if (!stops[i].text)
            return false;
    }
    seq->filter.stops = stops;
    seq->filter.count = request->stop_count;
    return true;
}

static bool make_buffers(struct engine_seq *seq, const struct engine_request *request)
{
    seq->text_event_max = longest_stop(request) + PIECE_BYTES_MAX;
    seq->text_cap = 2 * seq->text_event_max + TEXT_SLACK_BYTES;
    size_t held_cap = seq->text_event_max + 1;
    char *held = arena_alloc(&seq->arena, held_cap);
    seq->ring = arena_alloc(&seq->arena, SEQ_RING_LEN * sizeof *seq->ring);
    seq->text = arena_alloc(&seq->arena, seq->text_cap);
    seq->read_text = arena_alloc(&seq->arena, seq->text_event_max);
    seq->tokens = arena_alloc(&seq->arena, seq->len_max * sizeof *seq->tokens);
    if (request->prompt_logits)
        seq->logits = arena_alloc(&seq->arena, seq->n_vocab * sizeof *seq->logits);
    if (!held || !seq->ring || !seq->text || !seq->read_text || !seq->tokens ||
        (request->prompt_logits && !seq->logits) || !copy_stops(seq, request))
        return false;
    held[0] = 0;
    seq->filter.held = (struct buf){.data = held, .cap = held_cap, .max = held_cap - 1};
    memcpy(seq->tokens, request->prompt, request->prompt_len * sizeof *seq->tokens);
    seq->len = request->prompt_len;
    return true;
}

static bool make_locks(struct engine_seq *seq)
{
    if (uv_mutex_init(&seq->mutex) != 0)
        return false;
    if (uv_cond_init(&seq->cond) == 0)
        return true;
    uv_mutex_destroy(&seq->mutex);
    return false;
}

enum ph_status seq_create(struct engine_seq **out, const struct engine *engine,
                          const struct engine_request *request, struct ph_err *err)
{
    *out = NULL;
    enum ph_status status = check_request(engine, request, err);
    if (status != PH_OK)
        return status;
    struct engine_seq *seq = mem_calloc(1, sizeof *seq);
    if (!seq || !make_locks(seq)) {
        mem_free(seq);
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a sequence");
    }
    size_t room = engine->params.context_len - request->prompt_len;
    size_t max_tokens = request->max_tokens && request->max_tokens < room ? request->max_tokens : room;
    arena_init(&seq->arena, SIZE_MAX / 4);
    atomic_init(&seq->refs, 1);
    atomic_init(&seq->cancelled, false);
    seq->bell = engine->bell;
    doorbell_ref(seq->bell);
    seq->prompt_len = request->prompt_len;
    seq->len_max = request->prompt_len + max_tokens;
    seq->n_vocab = engine->n_vocab;
    seq->ignore_end = request->ignore_end;
    seq->want_logprobs = request->want_logprobs;
    seq->top_logprobs = request->want_logprobs ? request->top_logprobs : 0;
    seq->wake = request->wake;
    seq->wake_ud = request->ud;
    seq->hungry = true;
    detok_init(&seq->detok, engine->vocab, request->show_special, request->continues);
    status = make_buffers(seq, request) ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory for a sequence");
    if (status == PH_OK)
        status = sampler_create(&seq->sampler, &request->sampling, engine->n_vocab, err);
    if (status != PH_OK) {
        seq_unref(seq);
        return status;
    }
    for (size_t i = 0; i < seq->prompt_len; i++)
        sampler_accept(seq->sampler, seq->tokens[i]);
    *out = seq;
    return PH_OK;
}

void seq_unref(struct engine_seq *seq)
{
    if (!seq || atomic_fetch_sub_explicit(&seq->refs, 1, memory_order_acq_rel) != 1)
        return;
    sampler_free(seq->sampler);
    arena_release(&seq->arena);
    uv_cond_destroy(&seq->cond);
    uv_mutex_destroy(&seq->mutex);
    doorbell_unref(seq->bell);
    mem_free(seq);
}

/* ---- The scheduler's side */

bool seq_has_room(struct engine_seq *seq)
{
    uv_mutex_lock(&seq->mutex);
    bool room =
        seq->ring_count < ENGINE_EVENTS_MAX && seq->text_cap - seq->text_len >= 2 * seq->text_event_max;
    seq->stalled = !room;
    uv_mutex_unlock(&seq->mutex);
    return room;
}

static struct engine_event *ring_at(const struct engine_seq *seq, size_t index)
{
    return &seq->ring[(seq->ring_first + index) % SEQ_RING_LEN];
}

/* Puts an event with the filter's first text_len bytes behind the others; the mutex is held. */
static void push(struct engine_seq *seq, const struct engine_event *event, size_t text_len)
{
    if (seq->text_first + seq->text_len + text_len > seq->text_cap) {
        memmove(seq->text, seq->text + seq->text_first, seq->text_len);
        seq->text_first = 0;
    }
    if (text_len)
        memcpy(seq->text + seq->text_first + seq->text_len, seq->filter.held.data, text_len);
    seq->text_len += text_len;
    struct engine_event *slot = ring_at(seq, seq->ring_count++);
    *slot = *event;
    slot->text = NULL;
    slot->text_len = text_len;
}

static void announce(struct engine_seq *seq)
{
    uv_cond_signal(&seq->cond);
    if (!seq->hungry)
        return;
    seq->hungry = false;
    if (seq->wake)
        seq->wake(seq->wake_ud);
}

void seq_push_prefill(struct engine_seq *seq, size_t prefilled)
{
    uv_mutex_lock(&seq->mutex);
    struct engine_event *last = seq->ring_count ? ring_at(seq, seq->ring_count - 1) : NULL;
    if (last && last->kind == ENGINE_PREFILL) {
        last->prefilled = prefilled;
    } else if (!last) { /* progress is news only to a reader who has nothing else to read */
        struct engine_event event = {
            .kind = ENGINE_PREFILL, .prefilled = prefilled, .prompt_tokens = seq->prompt_len};
        push(seq, &event, 0);
    }
    announce(seq);
    uv_mutex_unlock(&seq->mutex);
}

void seq_push_token(struct engine_seq *seq, size_t text_len)
{
    const struct seq_choice *choice = &seq->choice;
    struct engine_event event = {.kind = ENGINE_TOKEN,
                                 .token = choice->id,
                                 .prefilled = seq->prompt_len,
                                 .prompt_tokens = seq->prompt_len,
                                 .cached_tokens = seq->cached,
                                 .generated_tokens = seq->len - seq->prompt_len};
    if (seq->want_logprobs) {
        event.logprob = choice->logprob;
        for (; event.top_count < seq->top_logprobs && choice->top[event.top_count].id >= 0; event.top_count++)
            event.top[event.top_count] =
                (struct engine_logprob){choice->top[event.top_count].id, choice->top[event.top_count].p};
    }
    uv_mutex_lock(&seq->mutex);
    push(seq, &event, text_len);
    announce(seq);
    uv_mutex_unlock(&seq->mutex);
}

void seq_push_finish(struct engine_seq *seq, const struct engine_event *event, size_t text_len)
{
    uv_mutex_lock(&seq->mutex);
    push(seq, event, text_len);
    seq->stalled = false;
    announce(seq);
    uv_mutex_unlock(&seq->mutex);
}

void seq_keep_logits(struct engine_seq *seq, const float *logits)
{
    if (!seq->logits)
        return;
    memcpy(seq->logits, logits, seq->n_vocab * sizeof *logits);
    uv_mutex_lock(&seq->mutex);
    seq->logits_set = true;
    uv_mutex_unlock(&seq->mutex);
}

/* ---- The reader's side */

/* Takes the oldest event out; the mutex is held. Answers whether the scheduler waits for the room. */
static bool pop(struct engine_seq *seq, struct engine_event *event)
{
    *event = *ring_at(seq, 0);
    seq->ring_first = (seq->ring_first + 1) % SEQ_RING_LEN;
    seq->ring_count--;
    if (event->text_len)
        memcpy(seq->read_text, seq->text + seq->text_first, event->text_len);
    event->text = seq->read_text;
    seq->text_first += event->text_len;
    seq->text_len -= event->text_len;
    seq->finished = event->kind == ENGINE_FINISH;
    if (event->kind != ENGINE_PREFILL)
        seq->logits_visible = seq->logits_set;
    bool ring_bell = seq->stalled;
    seq->stalled = false;
    return ring_bell;
}

static bool read_locked(struct engine_seq *seq, struct engine_event *event)
{
    bool ring_bell = false, found = seq->ring_count > 0;
    if (found)
        ring_bell = pop(seq, event);
    else
        seq->hungry = true;
    uv_mutex_unlock(&seq->mutex);
    if (ring_bell)
        doorbell_ring(seq->bell);
    return found;
}

bool engine_read(struct engine_seq *seq, struct engine_event *event)
{
    uv_mutex_lock(&seq->mutex);
    return read_locked(seq, event);
}

bool engine_wait(struct engine_seq *seq, struct engine_event *event, uint64_t timeout_ns)
{
    uint64_t now = uv_hrtime();
    uint64_t deadline = timeout_ns < WAIT_FOREVER_NS ? now + timeout_ns : UINT64_MAX;
    uv_mutex_lock(&seq->mutex);
    while (seq->ring_count == 0 && !seq->finished && now < deadline) {
        if (deadline == UINT64_MAX)
            uv_cond_wait(&seq->cond, &seq->mutex);
        else if (uv_cond_timedwait(&seq->cond, &seq->mutex, deadline - now) == UV_ETIMEDOUT)
            break;
        now = uv_hrtime();
    }
    return read_locked(seq, event);
}

void engine_cancel(struct engine_seq *seq)
{
    if (!atomic_exchange(&seq->cancelled, true))
        doorbell_ring(seq->bell);
}

void engine_seq_free(struct engine_seq *seq)
{
    if (!seq)
        return;
    uv_mutex_lock(&seq->mutex);
    seq->wake = NULL;
    uv_mutex_unlock(&seq->mutex);
    engine_cancel(seq);
    seq_unref(seq);
}

const float *engine_seq_logits(const struct engine_seq *seq)
{
    return seq->logits_visible ? seq->logits : NULL; /* only the reader changes it */
}
