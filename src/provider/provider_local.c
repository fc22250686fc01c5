/* A model in this process: chat requests become engine sequences, engine events become chat events.
 *
 * For each loop that asks, a pump: one wake-up and the loop's calls. The scheduler thread marks a sequence
 * ready and wakes the loop; the pump then reads every marked sequence until it has no more or the sink is
 * full. A pump lives as long as it has calls, so that an idle provider holds nothing of a loop.
 *
 * Invariants:
 *  P1  After a sink has said "no more" nothing is emitted for its call before provider_resume. So each call
 *      is a little machine that can stop between any two events: what a sequence owes is in its `stage`.
 *  P2  Calls are unlinked and freed outside of the pump's walk only; inside, they are marked dead.
 *  P3  No sequence of a call exists when its pump is closed: the scheduler cannot wake a closed loop. */
#include <stdatomic.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "provider/provider_int.h"

#define SPEED_SAMPLES 8 /* the length of the running averages */

enum stage {
    STAGE_BEGIN, /* owes ROLE */
    STAGE_ECHO,  /* owes the prompt's text, when it is to be echoed */
    STAGE_RUN,
    STAGE_FINISH, /* owes FINISH */
    STAGE_OVER
};

struct local_seq {
    struct local_call *call;
    struct engine_seq *seq;
    atomic_bool ready; /* set by the scheduler: there is something to read */
    enum stage stage;
    size_t choice;
    size_t told;              /* tokens that emitted events stand for */
    size_t read;              /* tokens that were read */
    bool holding;             /* `last` was read and is still to be said */
    struct engine_event last; /* its text lives until the next engine_read */
};

struct local_call {
    struct provider_call base;
    struct pump *pump;
    struct local_call *next;
    const struct chat_request *request;
    struct provider_sink sink;
    struct errand *errand; /* its prompt is on a helper thread; NULL: done */
    struct local_seq *seqs;
    size_t seq_count, unfinished;
    struct chat_text *echoes; /* one a prompt; NULL: no echo */
    size_t echo_count;
    struct buf scratch; /* bytes of tokens, for logprobs */
    bool blocked, usage_said, dead;
    bool hung_up; /* nobody waits for it any more, but it is counted to its end */
    uint64_t prompt_tokens, cached_tokens, completion_tokens;
};

struct pump {
    struct local *local;
    struct net_loop *loop;
    struct net_wake *wake;
    struct local_call *calls;
    struct pump *next;
    bool walking;
};

struct local {
    struct provider base;
    const struct clock_source *clock;
    struct engine *engine;      /* NULL: not attached */
    struct prompt_maker *maker; /* NULL: not attached */
    struct pump *pumps;
    struct token_ratio prompts;               /* for prompts that are too long to be counted on the loop */
    double prefill_tokens_s, decode_tokens_s; /* running averages; 0: nothing measured yet */
};

/* A prompt on its way through a helper thread. It outlives a cancelled call. */
struct errand {
    struct prompt_job *job;
    struct local_call *call; /* NULL: cancelled */
};

/* ---- Pumps */

static void pump_run(void *ud);

static struct pump *pump_of(struct local *local, struct net_loop *loop)
{
    for (struct pump *pump = local->pumps; pump; pump = pump->next)
        if (pump->loop == loop)
            return pump;
    struct pump *pump = mem_calloc(1, sizeof *pump);
    if (!pump)
        return NULL;
    *pump = (struct pump){.local = local, .loop = loop, .next = local->pumps};
    if (net_wake_open(&pump->wake, loop, pump_run, pump) != PH_OK) {
        mem_free(pump);
        return NULL;
    }
    local->pumps = pump;
    return pump;
}

static void pump_close_if_idle(struct pump *pump)
{
    if (pump->calls || pump->walking)
        return;
    struct pump **link = &pump->local->pumps;
    while (*link != pump)
        link = &(*link)->next;
    *link = pump->next;
    net_wake_close(pump->wake);
    mem_free(pump);
}

/* ---- Calls: life */

static void release_seqs(struct local_call *call)
{
    for (size_t i = 0; i < call->seq_count; i++)
        if (call->seqs[i].seq)
            engine_seq_free(call->seqs[i].seq);
    mem_free(call->seqs);
    call->seqs = NULL;
    call->seq_count = 0;
}

static void call_free(struct local_call *call)
{
    release_seqs(call);
    for (size_t i = 0; call->echoes && i < call->echo_count; i++)
        mem_free((char *)call->echoes[i].text);
    mem_free(call->echoes);
    buf_release(&call->scratch);
    mem_free(call);
}

/* Its work stops at once; its memory goes now or, during a walk, right after it. */
static void call_kill(struct local_call *call)
{
    struct pump *pump = call->pump;
    call->dead = true;
    release_seqs(call);
    if (pump->walking)
        return;
    struct local_call **link = &pump->calls;
    while (*link != call)
        link = &(*link)->next;
    *link = call->next;
    call_free(call);
    pump_close_if_idle(pump);
}

static void sweep(struct pump *pump)
{
    struct local_call **link = &pump->calls;
    while (*link) {
        struct local_call *call = *link;
        if (call->dead) {
            *link = call->next;
            call_free(call);
        } else {
            link = &call->next;
        }
    }
}

/* ---- Events out */

static void emit(struct local_call *call, const struct chat_event *event)
{
    if (!call->sink.event(call->sink.ud, event) && !call->dead)
        call->blocked = !call->hung_up;
}

/* ERROR or DONE: the last event. The request may be gone when the sink returns. */
static void emit_last(struct local_call *call, const struct chat_event *event)
{
    call->sink.event(call->sink.ud, event);
    call_kill(call);
}

static void emit_fault(struct local_call *call, const struct chat_fault *fault, enum ph_status status)
{
    struct chat_event event = chat_fault_event(fault, status);
    emit_last(call, &event);
}

/* A single token's bytes, appended to the scratch buffer, whose room was taken before. */
static struct chat_text token_bytes(struct local_call *call, int32_t id)
{
    const struct vocab *vocab = model_vocab(engine_model(call->pump->local->engine));
    char *room = buf_reserve(&call->scratch, VOCAB_TOKEN_BYTES_MAX);
    if (!room)
        return (struct chat_text){"", 0};
    size_t len = vocab_piece(vocab, id, true, room);
    buf_grew(&call->scratch, len);
    return (struct chat_text){room, len};
}

/* Texts point into the scratch buffer, so it gets its full size first and does not move. */
static void emit_logprobs(struct local_call *call, struct chat_event *out, const struct engine_event *event)
{
    struct chat_token_logprob token, top[ENGINE_LOGPROBS_MAX];
    buf_clear(&call->scratch);
    if (!buf_reserve(&call->scratch, (ENGINE_LOGPROBS_MAX + 2) * VOCAB_TOKEN_BYTES_MAX)) {
        emit(call, out);
        return;
    }
    token =
        (struct chat_token_logprob){event->token, token_bytes(call, event->token), (double)event->logprob};
    for (size_t i = 0; i < event->top_count; i++)
        top[i] = (struct chat_token_logprob){event->top[i].id, token_bytes(call, event->top[i].id),
                                             (double)event->top[i].logprob};
    out->logprobs = &token;
    out->logprob_count = 1;
    out->top = top;
    out->top_count = event->top_count;
    emit(call, out);
}

static void emit_text(struct local_seq *s, const struct engine_event *event)
{
    struct local_call *call = s->call;
    struct chat_event out = {.kind = CHAT_EVENT_TEXT,
                             .choice = s->choice,
                             .text = {event->text, event->text_len},
                             .tokens = s->read - s->told};
    bool logprobs = event->kind == ENGINE_TOKEN && call->request->logprobs;
    if (!logprobs && event->text_len == 0)
        return; /* its tokens count with the next text */
    s->told = s->read;
    if (logprobs)
        emit_logprobs(call, &out, event);
    else
        emit(call, &out);
}

/* A running average of tokens a second. */
static void measure(double *speed, size_t tokens, uint64_t ns)
{
    if (tokens == 0 || ns == 0)
        return;
    double now = (double)tokens * 1e9 / (double)ns;
    *speed += *speed > 0 ? (now - *speed) / SPEED_SAMPLES : now;
}

static void emit_finish(struct local_seq *s)
{
    const struct engine_event *last = &s->last;
    struct local *local = s->call->pump->local;
    struct chat_event out = {.kind = CHAT_EVENT_FINISH, .choice = s->choice};
    out.tokens = last->generated_tokens - s->told;
    measure(&local->prefill_tokens_s, last->prompt_tokens - last->cached_tokens, last->prefill_ns);
    if (last->generated_tokens > 1)
        measure(&local->decode_tokens_s, last->generated_tokens - 1, last->decode_ns);
    out.finish = last->finish == ENGINE_FINISH_LENGTH ? CHAT_FINISH_LENGTH : CHAT_FINISH_STOP;
    out.timing.queue_ns = last->queue_ns;
    out.timing.prefill_ns = last->prefill_ns;
    out.timing.decode_ns = last->decode_ns;
    out.timing.tokens = last->generated_tokens;
    s->stage = STAGE_OVER;
    s->call->unfinished--;
    emit(s->call, &out);
}

/* What the prompt has beside what was estimated for it. */
static void learn_prompt(struct local_call *call)
{
    struct prompt_weight weight = prompt_weigh(call->request);
    if (weight.known == 0 && weight.media == 0)
        token_ratio_learn(&call->pump->local->prompts, weight.text, (double)call->prompt_tokens);
}

static void emit_usage(struct local_call *call)
{
    struct chat_event out = {.kind = CHAT_EVENT_USAGE};
    out.usage.prompt_tokens = call->prompt_tokens;
    out.usage.cached_tokens = call->cached_tokens;
    out.usage.completion_tokens = call->completion_tokens;
    call->usage_said = true;
    learn_prompt(call);
    emit(call, &out);
}

/* ---- Engine events in */

static bool is_failure(const struct local_call *call, const struct engine_event *finish)
{
    return (finish->finish == ENGINE_FINISH_CANCELLED && !call->hung_up) ||
           finish->finish == ENGINE_FINISH_ERROR;
}

static void on_engine_failure(struct local_call *call, const struct engine_event *event)
{
    struct chat_fault fault;
    enum ph_status status = event->finish == ENGINE_FINISH_CANCELLED ? PH_ERR_CANCELLED : event->status;
    if (status == PH_ERR_CANCELLED)
        chat_fault_set(&fault, 503, "server_stopping", NULL, "the station is stopping");
    else if (status == PH_ERR_NOMEM)
        chat_fault_set(&fault, 503, "server_overloaded", NULL, "the model has no room for this request");
    else
        chat_fault_set(&fault, 500, NULL, NULL, "the model failed: %s", ph_status_name(status));
    emit_fault(call, &fault, status);
}

static void on_engine_finish(struct local_seq *s, const struct engine_event *event)
{
    struct local_call *call = s->call;
    if (is_failure(call, event)) {
        on_engine_failure(call, event);
        return;
    }
    if (s->choice % call->request->choices == 0) { /* choices of one prompt share it */
        call->prompt_tokens += event->prompt_tokens;
        call->cached_tokens += event->cached_tokens;
    }
    call->completion_tokens += event->generated_tokens;
    s->last = *event;
    s->stage = STAGE_FINISH;
    emit_text(s, event);
}

static void emit_echo(struct local_seq *s)
{
    const struct chat_text *text = &s->call->echoes[s->choice / s->call->request->choices];
    emit(s->call, &(struct chat_event){.kind = CHAT_EVENT_TEXT, .choice = s->choice, .text = *text});
}

/* One event further. false: nothing to be had now. */
static bool seq_advance(struct local_seq *s)
{
    struct engine_event event;
    switch (s->stage) {
    case STAGE_BEGIN:
        if (!engine_read(s->seq, &event))
            return false;
        if (event.kind == ENGINE_PREFILL) {
            emit(s->call, &(struct chat_event){.kind = CHAT_EVENT_PROGRESS, .choice = s->choice});
            return true;
        }
        if (event.kind == ENGINE_FINISH &&
            is_failure(s->call, &event)) { /* nothing was said: it keeps its status */
            on_engine_failure(s->call, &event);
            return true;
        }
        s->last = event;
        s->holding = true;
        s->stage = s->call->echoes ? STAGE_ECHO : STAGE_RUN;
        emit(s->call, &(struct chat_event){.kind = CHAT_EVENT_ROLE, .choice = s->choice});
        return true;
    case STAGE_ECHO:
        s->stage = STAGE_RUN;
        emit_echo(s);
        return true;
    case STAGE_RUN:
        if (s->holding)
            event = s->last;
        else if (!engine_read(s->seq, &event))
            return false;
        s->holding = false;
        s->read += event.kind == ENGINE_TOKEN;
        if (event.kind == ENGINE_TOKEN)
            emit_text(s, &event);
        else if (event.kind == ENGINE_FINISH)
            on_engine_finish(s, &event);
        return true;
    case STAGE_FINISH:
        emit_finish(s);
        return true;
    case STAGE_OVER:
        return false;
    }
    return false;
}

static void seq_drain(struct local_seq *s)
{
    struct local_call *call = s->call;
    if (!atomic_exchange_explicit(&s->ready, false, memory_order_acq_rel))
        return;
    while (!call->dead && !call->blocked)
        if (!seq_advance(s))
            return;
    if (!call->dead)
        atomic_store_explicit(&s->ready, true, memory_order_release); /* stopped half-way */
}

static void call_drain(struct local_call *call)
{
    for (size_t i = 0; i < call->seq_count && !call->dead && !call->blocked; i++)
        seq_drain(&call->seqs[i]);
    if (call->errand || call->dead || call->blocked || call->unfinished)
        return;
    if (!call->usage_said)
        emit_usage(call);
    if (!call->dead && !call->blocked)
        emit_last(call, &(struct chat_event){.kind = CHAT_EVENT_DONE});
}

static void pump_run(void *ud)
{
    struct pump *pump = ud;
    pump->walking = true;
    for (struct local_call *call = pump->calls; call; call = call->next)
        if (!call->dead && !call->blocked)
            call_drain(call);
    pump->walking = false;
    sweep(pump);
    pump_close_if_idle(pump);
}

static void on_engine(void *ud) /* scheduler thread */
{
    struct local_seq *s = ud;
    atomic_store_explicit(&s->ready, true, memory_order_release);
    net_wake_call(s->call->pump->wake);
}

/* ---- Requests in */

static void sampling_of(const struct chat_request *request, struct logit_bias *bias,
                        struct sampler_params *out)
{
    const struct chat_sampling *s = &request->sampling;
    sampler_params_default(out);
    out->temperature = s->has_temperature ? (float)s->temperature : out->temperature;
    out->top_p = s->has_top_p ? (float)s->top_p : out->top_p;
    out->min_p = s->has_min_p ? (float)s->min_p : out->min_p;
    out->top_k = s->has_top_k && s->top_k > 0 ? (int32_t)s->top_k : 0;
    out->repeat_penalty = s->has_repeat_penalty ? (float)s->repeat_penalty : out->repeat_penalty;
    out->frequency_penalty = (float)s->frequency_penalty;
    out->presence_penalty = (float)s->presence_penalty;
    out->penalty_last_n = -1;
    out->seed = s->seed;
    if (!s->has_seed && entropy_fill(&out->seed, sizeof out->seed) != 0)
        out->seed = 0;
    for (size_t i = 0; i < s->logit_bias_count; i++)
        bias[i] = (struct logit_bias){s->logit_bias[i].id, s->logit_bias[i].bias};
    out->bias = bias;
    out->bias_count = s->logit_bias_count;
}

static enum ph_status submit_fault(const struct local_call *call, size_t prompt_len, enum ph_status status,
                                   const struct ph_err *err, struct chat_fault *fault)
{
    const char *param = call->request->kind == CHAT_KIND_CHAT ? "messages" : "prompt";
    if (status == PH_ERR_LIMIT) {
        size_t context = engine_context_len(call->pump->local->engine);
        chat_fault_set(
            fault, 400, "context_length_exceeded", param,
            "this model's maximum context length is %zu tokens and the prompt has %zu; shorten the %s",
            context, prompt_len, param);
        fault->cause = CHAT_CAUSE_CONTEXT;
    } else if (status == PH_ERR_BUSY) {
        chat_fault_set(fault, 429, "rate_limit_exceeded", NULL,
                       "the model's queue is full; try again in a moment");
        fault->retry_after_s = 1;
        fault->cause = CHAT_CAUSE_OVERLOADED;
    } else if (status == PH_ERR_ARG) {
        chat_fault_set(fault, 400, NULL, param, "%s", err->message);
    } else if (status == PH_ERR_CANCELLED) {
        chat_fault_set(fault, 503, "server_stopping", NULL, "the station is stopping");
    } else {
        chat_fault_set(fault, status == PH_ERR_NOMEM ? 503 : 500, NULL, NULL, "%s", err->message);
    }
    return status;
}

static enum ph_status submit_one(struct local_call *call, size_t index, const struct token_list *prompt,
                                 struct engine_request *request, struct chat_fault *fault)
{
    struct ph_err err = {0};
    struct local_seq *s = &call->seqs[index];
    *s = (struct local_seq){.call = call, .choice = index};
    atomic_init(&s->ready, false);
    request->prompt = prompt->ids;
    request->prompt_len = prompt->len;
    request->ud = s;
    if (prompt->len == 0) {
        chat_fault_set(fault, 400, NULL, "prompt",
                       "the prompt is empty, and this model needs at least a token");
        return PH_ERR_ARG;
    }
    enum ph_status status = engine_submit(call->pump->local->engine, request, &s->seq, &err);
    if (status != PH_OK)
        return submit_fault(call, prompt->len, status, &err, fault);
    call->seq_count++;
    call->unfinished++;
    return PH_OK;
}

static enum ph_status check_bias(const struct local_call *call, struct chat_fault *fault)
{
    const struct chat_sampling *s = &call->request->sampling;
    size_t n_vocab = model_info(engine_model(call->pump->local->engine))->n_vocab;
    for (size_t i = 0; i < s->logit_bias_count; i++)
        if ((size_t)s->logit_bias[i].id >= n_vocab) {
            chat_fault_set(fault, 400, NULL, "logit_bias",
                           "logit_bias: token %d is not in the model's vocabulary of %zu",
                           (int)s->logit_bias[i].id, n_vocab);
            return PH_ERR_ARG;
        }
    return PH_OK;
}

/* More than the engine holds when it has nothing else is refused for good: "try again" would be a lie. */
static enum ph_status check_capacity(const struct local_call *call, struct chat_fault *fault)
{
    const struct chat_request *r = call->request;
    size_t count = chat_choice_count(r), capacity = engine_capacity(call->pump->local->engine);
    if (count <= capacity)
        return PH_OK;
    const char *param = r->choices > 1 ? "n" : "prompt";
    chat_fault_set(fault, 400, NULL, param,
                   "%s: %zu sequences are asked for at once, and this model holds at most %zu, running and "
                   "waiting; ask for fewer choices or prompts",
                   param, count, capacity);
    fault->cause = CHAT_CAUSE_UNABLE;
    return PH_ERR_LIMIT;
}

/* All sequences of a call, or none. */
static enum ph_status submit(struct local_call *call, const struct prompt_job *job, struct chat_fault *fault)
{
    const struct chat_request *r = call->request;
    size_t count = chat_choice_count(r);
    struct engine_text stops[ENGINE_STOP_COUNT_MAX];
    struct engine_request request = {.max_tokens = r->max_tokens,
                                     .stops = stops,
                                     .ignore_end = r->ignore_end,
                                     .continues =
                                         r->kind == CHAT_KIND_COMPLETION || r->continue_final_message,
                                     .want_logprobs = r->logprobs,
                                     .top_logprobs = r->top_logprobs,
                                     .wake = on_engine};
    struct logit_bias *bias = mem_calloc(r->sampling.logit_bias_count, sizeof *bias);
    call->seqs = mem_calloc(count, sizeof *call->seqs);
    enum ph_status status = bias && call->seqs ? check_bias(call, fault) : PH_ERR_NOMEM;
    if (status == PH_OK)
        status = check_capacity(call, fault);
    if (status == PH_ERR_NOMEM)
        chat_fault_set(fault, 503, NULL, NULL, "out of memory");
    const char *own_stop = prompt_maker_stop(call->pump->local->maker);
    for (size_t i = 0; i < r->stop_count; i++)
        stops[request.stop_count++] = (struct engine_text){r->stops[i].text, r->stops[i].len};
    if (own_stop && r->kind == CHAT_KIND_CHAT)
        stops[request.stop_count++] = (struct engine_text){own_stop, strlen(own_stop)};
    if (status == PH_OK)
        sampling_of(r, bias, &request.sampling);
    uint64_t seed = request.sampling.seed;
    for (size_t i = 0; i < count && status == PH_OK; i++) {
        request.sampling.seed = seed + i % r->choices; /* a prompt's answer does not depend on its place */
        status = submit_one(call, i, &job->prompts[i / r->choices], &request, fault);
    }
    mem_free(bias);
    if (status != PH_OK)
        release_seqs(call);
    return status;
}

/* What the prompts say, for echo; token ids are spelt out. */
static enum ph_status keep_echoes(struct local_call *call, const struct prompt_job *job,
                                  struct chat_fault *fault)
{
    const struct chat_request *r = call->request;
    if (!r->echo)
        return PH_OK;
    const struct vocab *vocab = model_vocab(engine_model(call->pump->local->engine));
    call->echoes = mem_calloc(r->prompt_count, sizeof *call->echoes);
    call->echo_count = r->prompt_count;
    enum ph_status status = call->echoes ? PH_OK : PH_ERR_NOMEM;
    for (size_t i = 0; i < r->prompt_count && status == PH_OK; i++) {
        struct buf text;
        buf_init(&text, CHAT_PROMPT_BYTES_MAX);
        if (r->prompts[i].ids)
            status = vocab_detokenize(vocab, job->prompts[i].ids, job->prompts[i].len, false, &text);
        else
            buf_append(&text, r->prompts[i].text.text, r->prompts[i].text.len);
        if (status == PH_OK)
            status = buf_status(&text);
        call->echoes[i].len = text.len;
        call->echoes[i].text = buf_take(&text);
    }
    if (status != PH_OK)
        chat_fault_set(fault, status == PH_ERR_ARG ? 400 : 503, NULL, "prompt",
                       status == PH_ERR_ARG ? "prompt: a token id is not in the model's vocabulary"
                                            : "the prompt is too long to be echoed");
    return status;
}

static enum ph_status submit_job(struct local_call *call, const struct prompt_job *job,
                                 struct chat_fault *fault)
{
    if (job->status != PH_OK) {
        *fault = job->fault;
        return job->status;
    }
    enum ph_status status = keep_echoes(call, job, fault);
    return status == PH_OK ? submit(call, job, fault) : status;
}

/* ---- Long prompts go over a helper thread */

static void errand_work(void *ud)
{
    struct errand *errand = ud;
    prompt_job_run(errand->job);
}

static void errand_done(void *ud)
{
    struct errand *errand = ud;
    struct local_call *call = errand->call;
    if (call && !call->dead) {
        struct chat_fault fault;
        call->errand = NULL;
        enum ph_status status = submit_job(call, errand->job, &fault);
        if (status != PH_OK)
            emit_fault(call, &fault, status);
    }
    prompt_job_free(errand->job);
    mem_free(errand);
}

/* ---- The provider's functions */

static enum ph_status refuse(struct chat_fault *fault, const char *param, const char *what)
{
    chat_fault_set(fault, 400, "unsupported_parameter", param, "%s is not supported by local models yet",
                   what);
    fault->cause = CHAT_CAUSE_UNABLE;
    return PH_ERR_UNSUPPORTED;
}

/* Well-formed, but not something this provider can do. */
static enum ph_status check_supported(const struct chat_request *request, struct chat_fault *fault)
{
    const struct json *format = json_get(request->response_format, "type");
    if (!json_is_absent(format) && !json_text_is(format, "text"))
        return refuse(fault, "response_format", "a response_format other than text");
    if (json_is(request->tool_choice, JSON_OBJECT) || json_text_is(request->tool_choice, "required"))
        return refuse(fault, "tool_choice", "a tool_choice other than none and auto");
    if (request->suffix.text)
        return refuse(fault, "suffix", "suffix");
    if (request->echo && request->logprobs)
        return refuse(fault, "echo", "echo together with logprobs");
    return prompt_check(request, fault);
}

static enum ph_status start_job(struct local_call *call, struct prompt_job *job, struct chat_fault *fault)
{
    if (job->input_bytes <= CHAT_INLINE_BYTES_MAX) {
        prompt_job_run(job);
        enum ph_status status = submit_job(call, job, fault);
        prompt_job_free(job);
        return status;
    }
    struct errand *errand = mem_calloc(1, sizeof *errand);
    enum ph_status status = PH_ERR_NOMEM;
    if (errand) {
        *errand = (struct errand){job, call};
        status = net_work(call->pump->loop, errand_work, errand_done, errand);
    }
    if (status == PH_OK) {
        call->errand = errand;
        return PH_OK;
    }
    mem_free(errand);
    prompt_job_free(job);
    chat_fault_set(fault, status == PH_ERR_BUSY ? 429 : 503,
                   status == PH_ERR_BUSY ? "rate_limit_exceeded" : NULL, NULL,
                   "too many long prompts are waiting; try again in a moment");
    fault->retry_after_s = 1;
    fault->cause = CHAT_CAUSE_OVERLOADED;
    return status;
}

static enum ph_status local_start(struct provider *provider, struct net_loop *loop,
                                  const struct chat_request *request, const struct provider_sink *sink,
                                  struct provider_call **out, struct chat_fault *fault)
{
    struct local *local = (struct local *)provider;
    *out = NULL;
    enum ph_status status = provider_check_loaded(provider, fault);
    if (status == PH_OK)
        status = check_supported(request, fault);
    if (status != PH_OK)
        return status;
    struct prompt_job *job = prompt_job_new(local->maker, request);
    struct pump *pump = job ? pump_of(local, loop) : NULL;
    struct local_call *call = pump ? mem_calloc(1, sizeof *call) : NULL;
    if (!call) {
        prompt_job_free(job);
        if (pump)
            pump_close_if_idle(pump);
        chat_fault_set(fault, 503, NULL, NULL, "out of memory");
        return PH_ERR_NOMEM;
    }
    *call = (struct local_call){
        .base.ops = provider->ops, .pump = pump, .next = pump->calls, .request = request, .sink = *sink};
    buf_init(&call->scratch, (ENGINE_LOGPROBS_MAX + 2) * VOCAB_TOKEN_BYTES_MAX * 2);
    pump->calls = call;
    status = start_job(call, job, fault);
    if (status == PH_OK)
        *out = &call->base;
    else
        call_kill(call);
    return status;
}

static void local_resume(struct provider_call *base)
{
    struct local_call *call = (struct local_call *)base;
    call->blocked = false;
    net_wake_call(call->pump->wake);
}

static void local_cancel(struct provider_call *base)
{
    struct local_call *call = (struct local_call *)base;
    if (call->errand)
        call->errand->call = NULL;
    call_kill(call);
}

/* The engine stops after its step and says what it has generated; nobody is slow any more. */
static void local_hang_up(struct provider_call *base, uint32_t drain_ms)
{
    struct local_call *call = (struct local_call *)base;
    (void)drain_ms;
    if (call->errand)
        call->errand->call = NULL;
    call->errand = NULL;
    call->hung_up = true;
    call->blocked = false;
    for (size_t i = 0; i < call->seq_count; i++)
        engine_cancel(call->seqs[i].seq);
    net_wake_call(call->pump->wake);
}

static void local_halt(struct provider *provider, const struct chat_fault *fault)
{
    struct local *local = (struct local *)provider;
    for (struct pump *pump = local->pumps, *next; pump; pump = next) {
        next = pump->next;
        pump->walking = true; /* P2 */
        for (struct local_call *call = pump->calls; call; call = call->next) {
            if (call->dead)
                continue;
            if (call->errand)
                call->errand->call = NULL;
            call->errand = NULL;
            emit_fault(call, fault, PH_ERR_BUSY);
        }
        pump->walking = false;
        sweep(pump);
        pump_close_if_idle(pump);
    }
}

static void local_state(const struct provider *provider, struct provider_state *out)
{
    const struct local *local = (const struct local *)provider;
    if (!local->engine)
        return;
    struct engine_stats stats;
    engine_stats_read(local->engine, &stats);
    out->running = stats.running + stats.waiting;
    out->waiting = stats.waiting;
    out->sequences_max = stats.sequences_max;
    out->kv_tokens_free = (stats.kv_pages_total - stats.kv_pages_used) * stats.kv_page_len;
    out->prefill_tokens_s = local->prefill_tokens_s;
    out->decode_tokens_s = local->decode_tokens_s;
}

/* The job of a prompt that can be made here and now; NULL: too long for the loop, or impossible. */
static struct prompt_job *short_job(const struct local *local, const struct chat_request *request,
                                    const struct prompt_weight *weight)
{
    if (!local->maker || weight->text * 4 > CHAT_INLINE_BYTES_MAX)
        return NULL;
    struct prompt_job *job = prompt_job_new(local->maker, request);
    if (!job)
        return NULL;
    prompt_job_run(job);
    if (job->status == PH_OK)
        return job;
    prompt_job_free(job);
    return NULL;
}

static size_t local_count(struct provider *provider, const struct chat_request *request, bool *exact)
{
    struct local *local = (struct local *)provider;
    struct prompt_weight weight = prompt_weigh(request);
    struct prompt_job *job = short_job(local, request, &weight);
    if (!job)
        return prompt_estimate(&weight, &local->prompts);
    size_t tokens = 0;
    for (size_t i = 0; i < job->prompt_count; i++)
        tokens += job->prompts[i].len;
    prompt_job_free(job);
    *exact = true;
    return tokens;
}

static size_t local_cached(struct provider *provider, const struct chat_request *request)
{
    struct local *local = (struct local *)provider;
    struct prompt_weight weight = prompt_weigh(request);
    struct prompt_job *job = short_job(local, request, &weight);
    size_t tokens = 0;
    for (size_t i = 0; job && i < job->prompt_count; i++)
        tokens += engine_cached_tokens(local->engine, job->prompts[i].ids, job->prompts[i].len);
    prompt_job_free(job);
    return tokens;
}

static enum ph_status local_prompt(struct provider *provider, const struct chat_request *request,
                                   struct buf *out, struct chat_fault *fault)
{
    struct local *local = (struct local *)provider;
    enum ph_status status = provider_check_loaded(provider, fault);
    if (status == PH_OK)
        status = prompt_check(request, fault);
    if (status != PH_OK)
        return status;
    struct prompt_job *job = prompt_job_new(local->maker, request);
    if (!job) {
        chat_fault_set(fault, 503, NULL, NULL, "out of memory");
        return PH_ERR_NOMEM;
    }
    status = prompt_job_render(job, out);
    if (status != PH_OK)
        *fault = job->fault;
    prompt_job_free(job);
    return status;
}

static struct engine *local_engine(const struct provider *provider)
{
    return ((const struct local *)provider)->engine;
}

static const struct model *local_model(const struct provider *provider)
{
    const struct local *local = (const struct local *)provider;
    return local->engine ? engine_model(local->engine) : NULL;
}

static void local_free(struct provider *provider)
{
    struct local *local = (struct local *)provider;
    prompt_maker_free(local->maker);
    if (local->engine)
        engine_free(local->engine);
    mem_free(local);
}

enum ph_status provider_local_create(struct provider **out, const char *model_id,
                                     const struct clock_source *clock, struct ph_err *err)
{
    static const struct provider_ops ops = {
        .kind = "local",
        .start = local_start,
        .resume = local_resume,
        .cancel = local_cancel,
        .hang_up = local_hang_up,
        .prompt = local_prompt,
        .engine = local_engine,
        .model = local_model,
        .state = local_state,
        .count = local_count,
        .cached = local_cached,
        .halt = local_halt,
        .free = local_free,
    };
    struct local *local = mem_calloc(1, sizeof *local);
    *out = NULL;
    if (!local || provider_init(&local->base, &ops, model_id) != 0) {
        mem_free(local);
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    }
    local->clock = clock;
    *out = &local->base;
    return PH_OK;
}

enum ph_status provider_local_attach(struct provider *provider, struct engine *engine, struct ph_err *err)
{
    struct local *local = (struct local *)provider;
    enum ph_status status = prompt_maker_create(&local->maker, engine_model(engine), local->clock, err);
    if (status != PH_OK) {
        engine_free(engine);
        return status;
    }
    local->engine = engine;
    provider->ready = true;
    return PH_OK;
}

void provider_local_fail(struct provider *provider, const char *reason)
{
    provider_set_problem(provider, reason);
}
