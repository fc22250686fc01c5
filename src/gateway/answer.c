/* Answers: attempts until one holds.
 *
 * An answer walks down the route's list. As long as nothing was said, another attempt is invisible to the
 * client; the role of a choice is said together with its first content. A reply that is not streamed can
 * begin anew at any time. After something was said in a stream, the next model goes on from there, when it
 * can go on from the beginning of an answer and the answer is plain text; otherwise the client gets an
 * error and a broken stream, never an end that looks like one.
 *
 * Cascade: attempts of all stages but the last are recorded and judged; a trusted recording is played, the
 * others are thrown away (their cost stays in the record). When the dear models cannot be had, the best of
 * what was thrown away is played after all.
 *
 * Hedge: when nothing came for hedge_ms the next candidate is asked beside the first; who speaks first,
 * stays.
 *
 * Invariants:
 *  A1  At most one attempt speaks, and it speaks until it ends.
 *  A2  DONE or ERROR goes out when every attempt is OVER: the arena dies with that event.
 *  A3  After a call that may emit DONE or ERROR nothing of the answer is touched. */
#include <limits.h>
#include <string.h>

#include "gateway/answer_int.h"
#include "gateway/verdict_int.h"

#define ROUNDS_MAX 1        /* the whole list once more, when what failed may pass */
#define BACKOFF_MS 250      /* before that */
#define RETRY_AFTER_MAX_S 2 /* a longer wait is the client's */
#define AWAITED_RETRY_S 5   /* for an engine that is not there yet */

/* ---- Saying */

static bool say(struct answer *answer, const struct chat_event *event)
{
    return answer->params.event(answer->params.ud, event);
}

static void say_role(struct answer *answer, size_t choice)
{
    struct chat_event role = {.kind = CHAT_EVENT_ROLE, .choice = choice};
    if (choice >= answer->choice_count || answer->role_said[choice])
        return;
    answer->role_said[choice] = true;
    (void)say(answer, &role);
}

/* What was said is kept while it may have to be continued. */
static void remember(struct answer *answer, const struct chat_event *event)
{
    answer->said_tokens += event->tokens;
    if (event->kind == CHAT_EVENT_TEXT && answer->can_continue)
        buf_append(&answer->said, event->text.text, event->text.len);
    if (event->kind == CHAT_EVENT_TOOL_CALL || buf_status(&answer->said) != PH_OK)
        answer->can_continue = false;
    if (event->kind == CHAT_EVENT_FINISH)
        answer->finished++;
}

/* A continuation may repeat the space that was cut from the end of the beginning. */
static void join(struct answer *answer, struct chat_event *event)
{
    const char *owed = answer->said.data + answer->said.len - answer->owed_len;
    while (answer->owed_len && event->text.len && *event->text.text == *owed) {
        event->text.text++;
        event->text.len--;
        answer->owed_len--;
        owed++;
    }
    if (event->text.len)
        answer->owed_len = 0;
}

static bool say_content(struct answer *answer, const struct chat_event *event)
{
    struct chat_event joined;
    say_role(answer, event->choice);
    if (answer->owed_len && event->kind == CHAT_EVENT_TEXT) {
        joined = *event;
        join(answer, &joined);
        event = &joined;
    }
    remember(answer, event);
    return say(answer, event);
}

/* ---- The end */

static void close_timer(struct answer *answer)
{
    net_timer_close(answer->timer);
    answer->timer = NULL;
}

/* A2, A3 */
static void end_if_all_over(struct answer *answer)
{
    struct chat_event last = {.kind = CHAT_EVENT_DONE};
    /* A stream that broke and could not be continued: what broke it is the news. */
    const struct chat_fault *fault = answer->has_spoken ? &answer->broken_by : &answer->fault;
    if (answer->running || answer->ending == ENDING_NOT)
        return;
    close_timer(answer);
    answer->is_over = true;
    if (answer->ending == ENDING_BADLY) {
        last = chat_fault_event(fault->message[0] ? fault : &answer->fault, PH_ERR_IO);
    } else {
        answer->usage.kind = CHAT_EVENT_USAGE;
        (void)say(answer, &answer->usage);
    }
    (void)say(answer, &last);
}

static void finish(struct answer *answer)
{
    answer->ending = ENDING_WELL;
    end_if_all_over(answer);
}

static void finish_with_fault(struct answer *answer)
{
    answer->ending = ENDING_BADLY;
    end_if_all_over(answer);
}

/* ---- Dropping */

static void drop(struct answer *answer, struct attempt *attempt, enum ledger_outcome outcome)
{
    if (attempt->state != ATTEMPT_OVER && attempt_drop(attempt, outcome))
        answer->running--;
}

static void drop_all_but(struct answer *answer, const struct attempt *kept, enum ledger_outcome outcome)
{
    for (struct attempt *a = answer->attempts; a; a = a->next)
        if (a != kept)
            drop(answer, a, outcome);
}

/* ---- Usage */

/* A continued answer is one answer: its prompt is the client's, its output is everybody's. */
static void keep_usage(struct answer *answer, const struct chat_event *event, bool is_continuation)
{
    uint64_t before = is_continuation ? answer->tokens_before : 0;
    answer->usage = *event;
    answer->usage.usage.completion_tokens += before;
    answer->usage.usage.prompt_tokens -=
        before < event->usage.prompt_tokens ? before : event->usage.prompt_tokens;
    answer->has_usage = true;
}

static void make_usage(struct answer *answer, const struct attempt *attempt)
{
    struct chat_event event = {.kind = CHAT_EVENT_USAGE};
    event.usage.prompt_tokens = attempt->usage.prompt_tokens;
    event.usage.cached_tokens = attempt->usage.cached_tokens;
    event.usage.cache_write_tokens = attempt->usage.cache_write_tokens;
    event.usage.completion_tokens = attempt->usage.output_tokens;
    keep_usage(answer, &event, attempt->is_continuation);
}

/* ---- Playing a recording */

static void play(struct answer *answer)
{
    struct chat_event event;
    while (recording_next(answer->playing, &answer->play_at, &answer->play_arena, &event)) {
        bool more = true;
        if (event.kind == CHAT_EVENT_USAGE)
            keep_usage(answer, &event, false);
        else if (event.kind != CHAT_EVENT_ROLE && event.kind != CHAT_EVENT_DONE)
            more = say_content(answer, &event);
        arena_clear(&answer->play_arena);
        if (!more)
            return; /* goes on in answer_resume */
    }
    finish(answer);
}

static void play_attempt(struct answer *answer, struct attempt *attempt)
{
    answer->speaking = attempt;
    answer->playing = &attempt->recording;
    make_usage(answer, attempt);
    play(answer);
}

/* ---- Continuing */

/* The client's request, its last message being what was said so far. */
static bool continue_chat(struct answer *answer, struct chat_request *request, struct chat_text said)
{
    const struct chat_request *from = answer->params.request;
    size_t count = from->message_count;
    bool joins = from->continue_final_message;
    struct chat_message *list = arena_calloc(answer->arena, count + 1, sizeof *list);
    if (!list)
        return false;
    memcpy(list, from->messages, count * sizeof *list);
    struct chat_message *last = &list[joins ? count - 1 : count];
    struct chat_text before = joins ? last->content : (struct chat_text){"", 0};
    char *text = arena_alloc(answer->arena, before.len + said.len + 1);
    if (!text)
        return false;
    if (before.len)
        memcpy(text, before.text, before.len);
    memcpy(text + before.len, said.text, said.len);
    text[before.len + said.len] = 0;
    *last = (struct chat_message){.role = CHAT_ASSISTANT, .content = {text, before.len + said.len}};
    request->messages = list;
    request->message_count = joins ? count : count + 1;
    request->continue_final_message = true;
    request->messages_changed = true;
    return true;
}

static bool continue_prompt(struct answer *answer, struct chat_request *request, struct chat_text said)
{
    const struct chat_prompt *from = &answer->params.request->prompts[0];
    struct chat_prompt *prompt = arena_calloc(answer->arena, 1, sizeof *prompt);
    char *text = arena_alloc(answer->arena, from->text.len + said.len + 1);
    if (!prompt || !text || from->ids)
        return false;
    memcpy(text, from->text.text, from->text.len);
    memcpy(text + from->text.len, said.text, said.len);
    text[from->text.len + said.len] = 0;
    prompt->text = (struct chat_text){text, from->text.len + said.len};
    request->prompts = prompt;
    request->messages_changed = true;
    request->echo = false;
    return true;
}

/* Space at the end goes: some providers refuse it, all tokenise it badly. */
static bool prepare_continuation(struct answer *answer, struct attempt *attempt)
{
    struct chat_text said = {answer->said.data, answer->said.len};
    while (said.len && strchr(" \n\r\t", said.text[said.len - 1]))
        said.len--;
    answer->owed_len = answer->said.len - said.len;
    answer->tokens_before = answer->said_tokens;
    attempt->is_continuation = true;
    struct chat_request *request = &attempt->request;
    if (request->max_tokens)
        request->max_tokens =
            request->max_tokens > answer->said_tokens ? request->max_tokens - answer->said_tokens : 1;
    return request->kind == CHAT_KIND_CHAT ? continue_chat(answer, request, said)
                                           : continue_prompt(answer, request, said);
}

/* ---- Beginning attempts */

static bool has_later_stage(const struct answer *answer, size_t index)
{
    unsigned last = answer->choice.list[answer->choice.usable - 1].stage;
    return answer->choice.list[index].stage < last;
}

static void note_failure(struct answer *answer, struct attempt *attempt)
{
    answer->fault = attempt->fault;
    answer_translate_fault(answer, attempt);
}

/* One attempt at the candidate; false: it failed at once, answer->fault says why. */
static bool begin(struct answer *answer, size_t index)
{
    const struct route_candidate *candidate = &answer->choice.list[index];
    struct gateway *gateway = answer->params.gateway;
    if (answer->attempt_count >= ROUTE_ATTEMPTS_MAX)
        return false;
    struct attempt *attempt =
        attempt_new(answer, gateway, answer->arena, candidate->model, answer->params.request);
    if (!attempt || arena_on_release(answer->arena, answer_release_attempt, attempt) != 0) {
        chat_fault_set(&answer->fault, 503, NULL, NULL, "out of memory");
        return false;
    }
    attempt->candidate = index;
    attempt->next = answer->attempts;
    answer->attempts = attempt;
    answer->attempt_count++;
    attempt->is_judged = answer->is_cascade && has_later_stage(answer, index) && !answer->said_tokens;
    attempt->request.logprobs =
        attempt->request.logprobs ||
        (attempt->is_judged && gateway->models[candidate->model].abilities & GATEWAY_LOGPROBS);
    bool ok = !answer->has_spoken || prepare_continuation(answer, attempt);
    if (ok &&
        attempt_start(attempt, answer->params.caller, answer->params.request_id, candidate->prompt_tokens)) {
        answer->running++;
        return true;
    }
    if (!ok) {
        attempt->state = ATTEMPT_OVER;
        attempt->failed = true;
        chat_fault_set(&attempt->fault, 503, NULL, NULL, "out of memory");
    }
    note_failure(answer, attempt);
    return false;
}

static bool may_ask(const struct answer *answer, size_t index)
{
    const struct route_candidate *candidate = &answer->choice.list[index];
    const struct gateway_model *model = &answer->params.gateway->models[candidate->model];
    if (answer->has_spoken && !(model->abilities & GATEWAY_PREFIX))
        return false;
    return candidate->tried <= answer->round;
}

/* The next candidate that can be begun. false: there is none. */
static bool begin_next(struct answer *answer)
{
    for (; answer->next < answer->choice.usable; answer->next++) {
        size_t index = answer->next;
        if (!may_ask(answer, index))
            continue;
        answer->choice.list[index].tried++;
        answer->next++;
        if (begin(answer, index))
            return true;
        answer->next--;
        if (!answer_may_pass(&answer->fault))
            return false;
    }
    return false;
}

/* A cascade asks as many of a stage at once as shall agree. */
static bool begin_stage(struct answer *answer)
{
    if (!begin_next(answer))
        return false;
    const struct gateway_route *route = answer->choice.route;
    if (!answer->is_cascade || !answer->attempts->is_judged)
        return true;
    unsigned stage = answer->choice.list[answer->attempts->candidate].stage;
    for (unsigned i = 1; i < route->agree && answer->next < answer->choice.usable &&
                         answer->choice.list[answer->next].stage == stage;
         i++) {
        size_t index = answer->next++;
        answer->choice.list[index].tried++;
        (void)begin(answer, index);
    }
    return true;
}

/* ---- After failures */

static void set_timer(struct answer *answer, uint64_t delay_ms);

/* Candidates that the failure makes worth asking first: they go before what is left of the list. */
static void prefer(struct answer *answer, const size_t *models, size_t count)
{
    struct route_choice *choice = &answer->choice;
    size_t prompt_tokens = choice->list[0].prompt_tokens, at = answer->next;
    for (size_t m = 0; m < count && at + m < choice->count_max; m++) {
        size_t end = choice->count < choice->count_max ? choice->count : choice->count_max - 1;
        struct route_candidate *place = &choice->list[at + m];
        memmove(place + 1, place, (end - (at + m)) * sizeof *place);
        *place =
            (struct route_candidate){.model = models[m], .prompt_tokens = prompt_tokens, .stage = UINT_MAX};
        choice->count = end + 1;
        choice->usable = choice->usable < choice->count ? choice->usable + 1 : choice->count;
    }
}

static void prefer_by_cause(struct answer *answer)
{
    const struct gateway_route *route = answer->choice.route;
    if (!route || answer->has_preferred)
        return;
    if (answer->fault.cause == CHAT_CAUSE_CONTEXT && route->too_long_count) {
        answer->has_preferred = true;
        prefer(answer, route->too_long, route->too_long_count);
    } else if (answer->fault.cause == CHAT_CAUSE_REFUSED && route->refused_count) {
        answer->has_preferred = true;
        prefer(answer, route->refused, route->refused_count);
    }
}

/* The same model with another key. */
static bool try_other_key(struct answer *answer, const struct attempt *failed)
{
    struct provider_state state;
    enum chat_cause cause = failed->fault.cause;
    if (cause != CHAT_CAUSE_KEY && cause != CHAT_CAUSE_RATE)
        return false;
    provider_state(answer->params.gateway->models[failed->model].provider, &state);
    return state.usable && failed->http_status && begin(answer, failed->candidate);
}

/* The whole list once more, after a while. Who was turned away here, at a full gate or window, is told so:
 * the client's own retry finds it open as well as ours would. */
static bool try_again_later(struct answer *answer)
{
    uint32_t wait_ms = answer->fault.retry_after_s * 1000;
    if (answer->attempts && !answer->attempts->sent_ns)
        return false;
    if (answer->round >= ROUNDS_MAX || !answer_is_transient(&answer->fault) ||
        wait_ms > RETRY_AFTER_MAX_S * 1000)
        return false;
    answer->round++;
    answer->next = 0;
    answer->waits_to_retry = true;
    set_timer(answer, wait_ms ? wait_ms : BACKOFF_MS);
    return answer->timer != NULL;
}

/* The best of the answers that were not trusted; NULL: there is none. */
static struct attempt *best_recorded(struct answer *answer)
{
    struct attempt *best = NULL;
    for (struct attempt *a = answer->attempts; a; a = a->next)
        if (a->is_judged && a->state == ATTEMPT_OVER && !a->failed && a->outcome == LEDGER_WHOLE &&
            (!best || a->confidence >= best->confidence))
            best = a;
    return best;
}

static void give_up(struct answer *answer)
{
    struct attempt *best = answer->has_spoken ? NULL : best_recorded(answer);
    if (best) {
        answer->settled_for_less = true;
        play_attempt(answer, best);
    } else {
        finish_with_fault(answer);
    }
}

/* A whole reply that nobody has seen yet begins anew, with one author. */
static void restart_if_unseen(struct answer *answer)
{
    if (!answer->has_spoken || !answer->params.restart(answer->params.ud))
        return;
    answer->has_spoken = answer->has_usage = false;
    answer->finished = 0;
    answer->said_tokens = 0;
    answer->owed_len = 0;
    buf_clear(&answer->said);
    memset(answer->role_said, 0, answer->choice_count * sizeof *answer->role_said);
}

static void after_failure(struct answer *answer, struct attempt *failed)
{
    bool was_speaking = answer->speaking == failed;
    note_failure(answer, failed);
    if (was_speaking) {
        answer->speaking = NULL;
        answer->broken_by = answer->fault;
    }
    if (was_speaking &&
        answer->finished >= answer->choice_count) { /* all was said; only the bill is missing */
        make_usage(answer, failed);
        finish(answer);
        return;
    }
    if (answer->running) /* a hedge, or the others of a stage, may still do it */
        return;
    restart_if_unseen(answer);
    bool goes_on = answer_may_pass(&answer->fault) && (!answer->has_spoken || answer->can_continue);
    if (goes_on) {
        metrics_fallback(answer->params.gateway->metrics, failed->fault.cause);
        prefer_by_cause(answer);
        if (try_other_key(answer, failed) || begin_stage(answer) || try_again_later(answer)) {
            if (answer->has_spoken)
                metrics_continuation(answer->params.gateway->metrics);
            return;
        }
    }
    give_up(answer);
}

/* ---- Judging */

/* All recorded attempts of a stage are over. */
static void judge(struct answer *answer)
{
    unsigned stage = answer->choice.list[answer->attempts->candidate].stage;
    struct attempt *first = NULL, *second = NULL;
    for (struct attempt *a = answer->attempts; a; a = a->next) {
        if (!a->is_judged || a->failed || a->outcome != LEDGER_WHOLE ||
            answer->choice.list[a->candidate].stage != stage)
            continue;
        a->confidence = cascade_confidence(&a->recording);
        second = first;
        first = a;
    }
    if (first && second) {
        double agreement = cascade_agreement(&first->recording, &second->recording);
        struct attempt *pair[] = {first, second};
        for (int i = 0; i < 2; i++)
            pair[i]->confidence = pair[i]->confidence < 0 ? agreement : (pair[i]->confidence + agreement) / 2;
    }
    struct attempt *best = best_recorded(answer);
    answer->confidence = best ? best->confidence : -1;
    if (!answer->was_judged) {
        answer->was_judged = true;
        answer->first_confidence = answer->confidence;
        answer->first_stage = stage;
    }
    if (best && best->confidence >= answer->escalate_below) {
        play_attempt(answer, best);
        return;
    }
    answer->escalations++;
    metrics_escalation(answer->params.gateway->metrics);
    while (answer->next < answer->choice.usable && answer->choice.list[answer->next].stage <= stage)
        answer->next++;
    if (!begin_stage(answer) && !answer->running)
        give_up(answer);
}

/* ---- What attempts tell */

bool answer_attempt_event(struct attempt *attempt, const struct chat_event *event)
{
    struct answer *answer = attempt->answer;
    if (answer->is_abandoned || (answer->speaking && answer->speaking != attempt))
        return true;
    if (attempt->is_judged) {
        recording_add(&attempt->recording, event);
        return true;
    }
    switch (event->kind) {
    case CHAT_EVENT_PROGRESS:
        return say(answer, event);
    case CHAT_EVENT_USAGE:
        if (answer->speaking == attempt)
            keep_usage(answer, event, attempt->is_continuation);
        return true;
    case CHAT_EVENT_TEXT:
    case CHAT_EVENT_REASONING:
    case CHAT_EVENT_TOOL_CALL:
    case CHAT_EVENT_FINISH:
        break;
    default:
        return true; /* the role is said with the first content */
    }
    if (!answer->speaking) {
        answer->speaking = attempt;
        answer->has_spoken = true;
        drop_all_but(answer, attempt, LEDGER_ABORTED);
    }
    attempt->said_something = true;
    return say_content(answer, event);
}

/* The budget ended in the middle: the answer ends there, as one that became too long does. */
static void end_cut(struct answer *answer, const struct attempt *attempt)
{
    for (size_t i = 0; i < answer->choice_count && answer->finished < answer->choice_count; i++) {
        struct chat_event event = {.kind = CHAT_EVENT_FINISH, .choice = i, .finish = CHAT_FINISH_LENGTH};
        (void)say_content(answer, &event);
    }
    make_usage(answer, attempt);
}

static void after_success(struct answer *answer, struct attempt *attempt)
{
    if (answer->speaking == attempt) {
        if (attempt->outcome == LEDGER_CUT)
            end_cut(answer, attempt);
        else if (!answer->has_usage)
            make_usage(answer, attempt);
        finish(answer);
    } else if (attempt->is_judged && !answer->running) {
        judge(answer);
    } else if (!answer->running) {
        chat_fault_set(&attempt->fault, 502, NULL, NULL, "the model ended without an answer");
        after_failure(answer, attempt);
    }
}

void answer_attempt_ended(struct attempt *attempt)
{
    struct answer *answer = attempt->answer;
    answer->running--;
    if (answer->is_abandoned) {
        if (answer->running)
            return;
        answer->is_over = true;
        close_timer(answer);
        answer->over(answer->over_ud); /* A3 */
    } else if (answer->ending != ENDING_NOT) {
        end_if_all_over(answer);
    } else if (!attempt->failed) {
        after_success(answer, attempt);
    } else if (attempt->is_judged) {
        note_failure(answer, attempt);
        if (!answer->running)
            judge(answer);
    } else {
        after_failure(answer, attempt);
    }
}

/* ---- Time */

/* The model that is asked now, when its engine is not there yet; NULL: it is not that which took the time. */
static const struct provider *engine_awaited(const struct answer *answer)
{
    for (const struct attempt *a = answer->attempts; a && !answer->has_spoken; a = a->next) {
        const struct provider *provider = answer->params.gateway->models[a->model].provider;
        struct provider_state state;
        provider_state(provider, &state);
        if (a->state != ATTEMPT_OVER && state.starting)
            return provider;
    }
    return NULL;
}

static void time_out(struct answer *answer)
{
    const struct provider *awaited = engine_awaited(answer);
    if (awaited) {
        chat_fault_set(&answer->fault, 503, "model_loading", "model",
                       "%s is still being started, and the time that the request allows is over",
                       provider_model_id(awaited));
        answer->fault.retry_after_s = AWAITED_RETRY_S;
    } else {
        chat_fault_set(&answer->fault, 504, "deadline_exceeded", NULL,
                       "no complete answer came within the time that the request allows");
    }
    answer->fault.cause = CHAT_CAUSE_TIMEOUT;
    answer->broken_by = answer->fault;
    drop_all_but(answer, NULL, LEDGER_ABORTED);
    finish_with_fault(answer);
}

static void on_timer(void *ud)
{
    struct answer *answer = ud;
    uint64_t now = clock_monotonic_ns(answer->params.gateway->clock);
    bool retries = answer->waits_to_retry, hedges = answer->waits_to_hedge;
    if (answer->ending != ENDING_NOT)
        return;
    bool waits = !answer->has_spoken || !answer->params.request->stream; /* for anything to be seen */
    if (answer->params.deadline_ns && now >= answer->params.deadline_ns) {
        if (waits)
            time_out(answer); /* A3 */
        return;
    }
    answer->waits_to_retry = answer->waits_to_hedge = false;
    set_timer(answer, 0);
    if (retries && !begin_stage(answer))
        give_up(answer); /* A3 */
    else if (hedges && !answer->has_spoken)
        (void)begin_next(answer);
}

/* After delay_ms, or at the deadline if that is earlier; 0: at the deadline only. */
static void set_timer(struct answer *answer, uint64_t delay_ms)
{
    struct gateway *gateway = answer->params.gateway;
    uint64_t now = clock_monotonic_ns(gateway->clock), deadline = answer->params.deadline_ns;
    uint64_t left_ms = deadline > now ? (deadline - now) / 1000000 + 1 : 1;
    if (deadline && (!delay_ms || left_ms < delay_ms))
        delay_ms = left_ms;
    if (!delay_ms)
        return;
    if (!answer->timer && net_timer_open(&answer->timer, gateway->loop, on_timer, answer) != PH_OK)
        answer->timer = NULL;
    if (answer->timer)
        net_timer_start(answer->timer, delay_ms, 0);
}

/* ---- Outside */

static void release_answer(void *ud)
{
    struct answer *answer = ud;
    buf_release(&answer->said);
    arena_release(&answer->play_arena);
}

static struct answer *answer_new(struct arena *arena, const struct answer_params *params)
{
    size_t choices = chat_choice_count(params->request);
    struct answer *answer = arena_calloc(arena, 1, sizeof *answer);
    bool *roles = arena_calloc(arena, choices, sizeof *roles);
    if (!answer || !roles)
        return NULL;
    answer->params = *params;
    answer->arena = arena;
    answer->choice_count = choices;
    answer->role_said = roles;
    answer->confidence = -1;
    answer->can_continue = choices == 1 && !params->request->echo && params->request->stream;
    answer->start_ns = clock_monotonic_ns(params->gateway->clock);
    buf_init(&answer->said, CHAT_REPLY_BYTES_MAX);
    arena_init(&answer->play_arena, HTTP_REQUEST_ARENA_BYTES_MAX);
    return arena_on_release(arena, release_answer, answer) == 0 ? answer : NULL;
}

bool answer_start(struct arena *arena, const struct answer_params *params, struct answer **out,
                  struct chat_fault *fault)
{
    struct answer *answer = *out = answer_new(arena, params);
    if (!answer) {
        chat_fault_set(fault, 503, NULL, NULL, "out of memory");
        return false;
    }
    struct route_choice *choice = &answer->choice;
    if (!route_choose(params->gateway, arena, params->request, route_needs(params->request), params->caller,
                      choice, &answer->fault)) {
        *fault = answer->fault;
        answer->is_over = true;
        return false;
    }
    const struct gateway_route *route = choice->route;
    answer->is_cascade = route && route->policy == GATEWAY_CASCADE;
    answer->escalate_below = answer->is_cascade ? verdicts_threshold(params->gateway->verdicts, route) : 0;
    answer->waits_to_hedge = route && !answer->is_cascade && choice->usable > 1 && route->hedge_ms;
    set_timer(answer, answer->waits_to_hedge ? route->hedge_ms : 0);
    if (begin_stage(answer) || (answer_may_pass(&answer->fault) && try_again_later(answer)))
        return true;
    close_timer(answer);
    answer->is_over = true;
    *fault = answer->fault;
    return false;
}

void answer_resume(struct answer *answer)
{
    if (answer->is_over || answer->is_abandoned || !answer->speaking)
        return;
    if (answer->playing)
        play(answer);
    else
        attempt_resume(answer->speaking);
}

bool answer_abandon(struct answer *answer, void (*over)(void *ud), void *ud)
{
    if (answer->is_over)
        return true;
    answer->is_abandoned = true;
    answer->over = over;
    answer->over_ud = ud;
    drop_all_but(answer, NULL, LEDGER_ABORTED);
    if (answer->running)
        return false;
    close_timer(answer);
    answer->is_over = true;
    return true;
}

void answer_release_attempt(void *ud)
{
    struct attempt *attempt = ud;
    recording_release(&attempt->recording);
}

bool answer_is_whole(const struct answer *answer)
{
    const struct attempt *attempt = answer->speaking;
    return attempt && !attempt->failed && attempt->outcome == LEDGER_WHOLE && !attempt->is_continuation &&
           !answer->settled_for_less && attempt->request.max_tokens == answer->params.request->max_tokens;
}

bool answer_is_first_stage(const struct answer *answer, const struct attempt *attempt)
{
    return attempt->is_judged && answer->choice.list[attempt->candidate].stage == answer->first_stage;
}

bool answer_was_retried(const struct answer *answer)
{
    size_t sent = 0;
    for (const struct attempt *a = answer->attempts; a; a = a->next)
        sent += a->sent_ns != 0;
    return sent > 1;
}

size_t answer_model(const struct answer *answer)
{
    if (answer->speaking)
        return answer->speaking->model;
    if (answer->attempts)
        return answer->attempts->model;
    return answer->choice.count ? answer->choice.list[0].model : 0;
}
