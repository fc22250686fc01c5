/* The scheduler: one thread that alone touches the runner, the KV pages and the sequences' insides.
 *
 * A sequence is a list of tokens of which the KV cache holds a beginning. What is missing is fed: prompt
 * tokens in PREFILL steps, generated tokens in DECODE steps. Ordinary decoding feeds the one token that was
 * sampled last; a sequence that was preempted feeds its prompt again and then its own tokens, each in the
 * phase in which it was first computed, so that every number is the same as without the preemption (E1, with
 * T1 of tensor.h). Whoever's last token is fed gets logits, is sampled, and grows by one.
 *
 * One round: take what arrived; end what was cancelled; admit in order of submission; one decode step over
 * every sequence whose reader keeps up; one prefill step, cut to a time slice while streams are running. A
 * round that found nothing to do sleeps until the doorbell rings.
 *
 * Pages. A sequence is admitted when its tokens fit and every running one could still take another page. When
 * pages run out, the victim is a sequence whose reader has fallen behind, else the youngest; so the oldest
 * always gets on, since the cache holds at least one full context. A victim waits at its old place in the
 * order of submission (E4).
 *
 * Lists. `running` and `waiting` are sorted by ticket. A sequence that leaves `running` is only marked, since
 * leaving happens in the middle of walks; sweep_running closes the gaps once a round. */
#include <string.h>

#include "engine/engine_int.h"

#define PREFILL_SLICE_NS 200e6 /* of prefill between two decode steps while streams run */
#define PREFILL_SLICE_ROWS_MIN 32
#define PREFILL_SHARE_ROWS_MIN 32  /* of a prompt in a step that several prompts share */
#define REFEED_ROWS_MAX 32         /* of generated tokens fed again in a decode step, all together */
#define STALLED_MAX_NS 1000000000u /* then a slow reader's pages may go to who waits for them */
#define STALLED_LOOK_NS 100000000u
#define SAMPLE_SHARED_MIN 16384 /* logits of a step from which on lanes share the sampling */

static uint64_t now_ns(const struct engine *engine)
{
    return clock_monotonic_ns(engine->clock);
}

static size_t fed_len(const struct engine_seq *seq)
{
    return seq->kv ? kv_seq_len(seq->kv) : 0;
}

static bool in_prefill(const struct engine_seq *seq)
{
    return fed_len(seq) < seq->prompt_len;
}

/* ---- Places */

static void insert_waiting(struct engine *engine, struct engine_seq *seq)
{
    struct engine_seq **link = &engine->waiting;
    while (*link && (*link)->ticket < seq->ticket)
        link = &(*link)->next;
    seq->next = *link;
    *link = seq;
    seq->place = SEQ_WAITING;
}

static void insert_running(struct engine *engine, struct engine_seq *seq)
{
    size_t i = engine->running_count++;
    for (; i > 0 && engine->running[i - 1]->ticket > seq->ticket; i--)
        engine->running[i] = engine->running[i - 1];
    engine->running[i] = seq;
    seq->place = SEQ_RUNNING;
    seq->step_rows = 0;
    engine->active++;
}

static void leave_pages(struct engine *engine, struct engine_seq *seq)
{
    if (seq->kv)
        kv_seq_give(engine->runner, seq->kv);
    seq->kv = NULL;
}

/* The end: the prompt may be gone on from, so its pages go to the shelf. */
static void shelve_pages(struct engine *engine, struct engine_seq *seq)
{
    if (seq->kv)
        shelf_put(engine, seq->kv, seq->tokens, seq->prompt_len);
    seq->kv = NULL;
}

static void sweep_running(struct engine *engine)
{
    size_t kept = 0;
    for (size_t i = 0; i < engine->running_count; i++) {
        struct engine_seq *seq = engine->running[i];
        if (seq->place == SEQ_RUNNING)
            engine->running[kept++] = seq;
        else if (seq->place == SEQ_OVER)
            seq_unref(seq);
    }
    engine->running_count = kept;
}

static void preempt(struct engine *engine, struct engine_seq *seq)
{
    leave_pages(engine, seq);
    seq->step_rows = 0;
    engine->active--;
    engine->counts.preemptions++;
    insert_waiting(engine, seq);
}

/* ---- Ending */

static void count_finish(struct engine_stats *counts, enum engine_finish finish)
{
    uint64_t *const counters[] = {
        [ENGINE_FINISH_STOP] = &counts->finished_stop,
        [ENGINE_FINISH_LENGTH] = &counts->finished_length,
        [ENGINE_FINISH_CANCELLED] = &counts->finished_cancelled,
        [ENGINE_FINISH_ERROR] = &counts->finished_error,
    };
    (*counters[finish])++;
}

/* What is still held back is shown, unless a stop string ends it. */
static size_t last_text(struct engine_seq *seq, struct engine_event *event)
{
    if (event->stop_matched)
        return 0;
    size_t ready;
    detok_flush(&seq->detok, &seq->filter.held);
    if (!stop_filter_scan(&seq->filter, &ready))
        return seq->filter.held.len;
    event->finish = ENGINE_FINISH_STOP;
    event->stop_matched = true;
    return ready;
}

/* Everything is given back and counted before the reader learns of the end (E3). The caller sees to it that
 * the sequence leaves its list, with the scheduler's reference. */
static void end_seq(struct engine *engine, struct engine_seq *seq, struct engine_event event)
{
    uint64_t now = now_ns(engine);
    uint64_t admitted = seq->admit_ns ? seq->admit_ns : now;
    uint64_t first = seq->first_ns ? seq->first_ns : now;
    event.kind = ENGINE_FINISH;
    event.prefilled = event.prompt_tokens = seq->prompt_len;
    event.generated_tokens = seq->len - seq->prompt_len;
    event.queue_ns = admitted - seq->submit_ns;
    event.prefill_ns = first - admitted;
    event.decode_ns = now - first;
    event.cached_tokens = seq->cached;
    size_t text_len = last_text(seq, &event);
    if (event.finish == ENGINE_FINISH_ERROR)
        leave_pages(engine, seq);
    else
        shelve_pages(engine, seq);
    sampler_free(seq->sampler);
    seq->sampler = NULL;
    if (seq->place == SEQ_RUNNING)
        engine->active--;
    engine->ended++;
    seq->place = SEQ_OVER;
    count_finish(&engine->counts, event.finish);
    engine_publish(engine);
    seq_push_finish(seq, &event, text_len);
}

static bool is_cancelled(const struct engine_seq *seq)
{
    return atomic_load_explicit(&seq->cancelled, memory_order_relaxed);
}

static void end_cancelled(struct engine *engine, bool everything)
{
    const struct engine_event cancelled = {.finish = ENGINE_FINISH_CANCELLED, .status = PH_ERR_CANCELLED};
    for (size_t i = 0; i < engine->running_count; i++)
        if (everything || is_cancelled(engine->running[i]))
            end_seq(engine, engine->running[i], cancelled);
    sweep_running(engine);
    for (struct engine_seq **link = &engine->waiting; *link;) {
        struct engine_seq *seq = *link;
        if (!everything && !is_cancelled(seq)) {
            link = &seq->next;
            continue;
        }
        *link = seq->next;
        end_seq(engine, seq, cancelled);
        seq_unref(seq);
    }
}

/* ---- Admission */

static bool is_stalled(struct engine *engine, struct engine_seq *seq)
{
    if (seq_has_room(seq)) {
        seq->stalled_ns = 0;
        return false;
    }
    if (!seq->stalled_ns)
        seq->stalled_ns = now_ns(engine);
    return true;
}

/* The youngest whose reader has been behind for so long that others may have its place; NULL: none. */
static struct engine_seq *find_stalled(struct engine *engine, uint64_t at_least_ns)
{
    uint64_t now = now_ns(engine);
    for (size_t i = engine->running_count; i-- > 0;) {
        struct engine_seq *seq = engine->running[i];
        if (seq->place == SEQ_RUNNING && is_stalled(engine, seq) && now >= seq->stalled_ns + at_least_ns)
            return seq;
    }
    return NULL;
}

static struct engine_seq *find_youngest(struct engine *engine)
{
    size_t i = engine->running_count;
    while (engine->running[i - 1]->place != SEQ_RUNNING)
        i--;
    return engine->running[i - 1];
}

/* Pages for everything the sequence has and one token more, while every running one could take another. What
 * the shelf has of its prompt need not be fed; the last token always is, for its logits. */
static bool take_pages(struct engine *engine, struct engine_seq *seq)
{
    size_t page_len = runner_kv_page_len(engine->runner), common;
    size_t useful = seq->len == seq->prompt_len ? seq->prompt_len - 1 : seq->prompt_len;
    struct shelf_entry *entry = shelf_find(engine, seq->tokens, useful, &common);
    size_t need = (seq->len + page_len) / page_len - common / page_len;
    while (engine->active > 0 && runner_kv_pages_free(engine->runner) < need + engine->active)
        if (!shelf_drop_oldest(engine, entry))
            return false;
    seq->kv = entry ? shelf_take(engine, entry, common) : kv_seq_take(engine->runner);
    while (seq->kv && kv_seq_reserve(engine->runner, seq->kv, seq->len + 1) != PH_OK)
        if (!shelf_drop_oldest(engine, NULL))
            leave_pages(engine, seq);
    if (!seq->admit_ns)
        seq->cached = seq->kv ? common : 0;
    return seq->kv != NULL;
}

static bool admit_one(struct engine *engine, struct engine_seq **link)
{
    struct engine_seq *seq = *link;
    if (engine->active == engine->params.sequences_max || !take_pages(engine, seq))
        return false;
    *link = seq->next;
    if (!seq->admit_ns) {
        seq->admit_ns = now_ns(engine);
        engine->counts.prompt_tokens += seq->prompt_len;
    }
    insert_running(engine, seq);
    return true;
}

/* Alone and still without pages: the cache is smaller than it was promised to be. */
static void refuse(struct engine *engine, struct engine_seq **link)
{
    struct engine_seq *seq = *link;
    *link = seq->next;
    end_seq(engine, seq, (struct engine_event){.finish = ENGINE_FINISH_ERROR, .status = PH_ERR_NOMEM});
    seq_unref(seq);
}

static void admit(struct engine *engine)
{
    for (struct engine_seq **link = &engine->waiting; *link;) {
        if (!seq_has_room(*link)) { /* preempted, and its reader has not come back */
            link = &(*link)->next;
            continue;
        }
        if (admit_one(engine, link))
            continue;
        struct engine_seq *stalled = find_stalled(engine, STALLED_MAX_NS);
        if (stalled) {
            preempt(engine, stalled);
            sweep_running(engine);
        } else if (engine->active == 0) {
            refuse(engine, link);
        } else {
            return;
        }
    }
}

/* ---- One step */

/* The granted tokens as rows; the last token of all asks for logits. */
static void lay_out(struct engine *engine, struct engine_seq *seq, struct runner_row *rows)
{
    size_t first = fed_len(seq);
    for (size_t i = 0; i < seq->step_rows; i++)
        rows[i] = (struct runner_row){.seq = seq->kv, .token = seq->tokens[first + i]};
    if (first + seq->step_rows < seq->len)
        return;
    rows[seq->step_rows - 1].logits = engine->logits + engine->output_count * engine->n_vocab;
    engine->outputs[engine->output_count++] = seq;
}

static void end_step_with(struct engine *engine, enum ph_status status)
{
    const struct engine_event failed = {.finish = ENGINE_FINISH_ERROR, .status = status};
    for (size_t i = 0; i < engine->running_count; i++)
        if (engine->running[i]->step_rows > 0)
            end_seq(engine, engine->running[i], failed);
    engine->output_count = 0;
}

static void count_step(struct engine *engine, enum phase phase, size_t rows, uint64_t ns)
{
    engine->counts.steps++;
    engine->counts.busy_ns += ns;
    if (phase != PHASE_PREFILL)
        return;
    double ns_per_row = (double)ns / (double)rows, old = engine->prefill_ns_per_row;
    engine->prefill_ns_per_row = old > 0 ? 0.7 * old + 0.3 * ns_per_row : ns_per_row;
}

/* Runs the granted rows. Answers their number; after a failure their sequences have ended. */
static size_t run_rows(struct engine *engine, enum phase phase)
{
    size_t count = 0;
    engine->output_count = 0;
    for (size_t i = 0; i < engine->running_count; i++) {
        struct engine_seq *seq = engine->running[i];
        if (seq->step_rows > 0)
            lay_out(engine, seq, engine->rows + count);
        count += seq->step_rows;
    }
    if (count == 0)
        return 0;
    uint64_t start = now_ns(engine);
    enum ph_status status = runner_step(engine->runner, engine->rows, count, phase, NULL);
    count_step(engine, phase, count, now_ns(engine) - start);
    if (status != PH_OK)
        end_step_with(engine, status);
    return count;
}

/* ---- Sampling: sequences are independent, so lanes may share them out */

static void choose(struct engine *engine, size_t output)
{
    struct engine_seq *seq = engine->outputs[output];
    const float *logits = engine->logits + output * engine->n_vocab;
    struct seq_choice *choice = &seq->choice;
    choice->id = sampler_sample(seq->sampler, logits);
    if (choice->id < 0)
        return;
    sampler_accept(seq->sampler, choice->id);
    if (seq->want_logprobs)
        choice->logprob = logits_logprob(logits, engine->n_vocab, choice->id, choice->top, seq->top_logprobs);
}

static void choose_shared(struct lane *lane, void *ud)
{
    struct engine *engine = ud;
    size_t first, end;
    while (lane_take(lane, engine->output_count, 1, &first, &end))
        for (size_t i = first; i < end; i++)
            choose(engine, i);
}

static void choose_all(struct engine *engine)
{
    if (engine->output_count > 1 && engine->output_count * engine->n_vocab >= SAMPLE_SHARED_MIN) {
        pool_run(runner_pool(engine->runner), choose_shared, engine);
        return;
    }
    for (size_t i = 0; i < engine->output_count; i++)
        choose(engine, i);
}

/* One token further: its text, its event, and perhaps the end. */
static void advance(struct engine *engine, struct engine_seq *seq)
{
    if (!seq->first_ns)
        seq->first_ns = now_ns(engine);
    if (seq->choice.id < 0) { /* every token is forbidden, or no logit is a number */
        end_seq(engine, seq, (struct engine_event){.finish = ENGINE_FINISH_ERROR, .status = PH_ERR_INTERNAL});
        return;
    }
    if (vocab_is_end(engine->vocab, seq->choice.id) && !seq->ignore_end) {
        end_seq(engine, seq, (struct engine_event){.finish = ENGINE_FINISH_STOP});
        return;
    }
    seq->tokens[seq->len++] = seq->choice.id;
    engine->counts.generated_tokens++;
    detok_push(&seq->detok, seq->choice.id, &seq->filter.held);
    size_t ready;
    bool stop = stop_filter_scan(&seq->filter, &ready);
    seq_push_token(seq, ready);
    stop_filter_drop(&seq->filter, ready);
    if (stop)
        end_seq(engine, seq, (struct engine_event){.finish = ENGINE_FINISH_STOP, .stop_matched = true});
    else if (seq->len == seq->len_max)
        end_seq(engine, seq, (struct engine_event){.finish = ENGINE_FINISH_LENGTH});
}

static void take_outputs(struct engine *engine)
{
    choose_all(engine);
    for (size_t i = 0; i < engine->output_count; i++) {
        struct engine_seq *seq = engine->outputs[i];
        if (seq->len == seq->prompt_len)
            seq_keep_logits(seq, engine->logits + i * engine->n_vocab);
        advance(engine, seq);
    }
}

/* ---- Decode */

/* Room for the granted rows, by others' pages when there is no other way. false: it was the victim itself.
 * Called oldest first, so a victim is younger, or stalled and without rows: no granted row is ever lost. */
static bool make_room(struct engine *engine, struct engine_seq *seq)
{
    while (kv_seq_reserve(engine->runner, seq->kv, fed_len(seq) + seq->step_rows) != PH_OK) {
        if (shelf_drop_oldest(engine, NULL))
            continue;
        struct engine_seq *stalled = find_stalled(engine, 0);
        struct engine_seq *victim = stalled ? stalled : find_youngest(engine);
        preempt(engine, victim);
        if (victim == seq)
            return false;
    }
    return true;
}

static size_t decode(struct engine *engine)
{
    size_t refeed = engine->rows_max - engine->running_count;
    if (refeed > REFEED_ROWS_MAX)
        refeed = REFEED_ROWS_MAX;
    for (size_t i = 0; i < engine->running_count; i++) {
        struct engine_seq *seq = engine->running[i];
        seq->step_rows = 0;
        if (seq->place != SEQ_RUNNING || in_prefill(seq) || is_stalled(engine, seq))
            continue;
        size_t behind = seq->len - fed_len(seq) - 1;
        size_t extra = behind < refeed ? behind : refeed;
        seq->step_rows = 1 + extra;
        if (make_room(engine, seq))
            refeed -= extra;
    }
    size_t rows = run_rows(engine, PHASE_DECODE);
    take_outputs(engine);
    sweep_running(engine);
    return rows;
}

/* ---- Prefill */

static size_t prefill_budget(const struct engine *engine, bool streams_run)
{
    size_t chunk = engine->params.prefill_chunk;
    if (!streams_run || engine->prefill_ns_per_row <= 0)
        return chunk;
    double slice = PREFILL_SLICE_NS / engine->prefill_ns_per_row;
    if (slice < PREFILL_SLICE_ROWS_MIN)
        slice = PREFILL_SLICE_ROWS_MIN;
    return slice < (double)chunk ? (size_t)slice : chunk;
}

/* Marks the prompts that take part in this step with one row each, beginning behind where the last step ended
 * so that all get their turn. Answers how many. */
static size_t choose_prompts(struct engine *engine, size_t most)
{
    size_t chosen = 0, count = engine->running_count, turn = engine->prefill_turn;
    for (size_t k = 0; k < count; k++) {
        size_t i = (turn + k) % count;
        struct engine_seq *seq = engine->running[i];
        seq->step_rows = 0;
        if (chosen == most || !in_prefill(seq))
            continue;
        seq->step_rows = 1;
        chosen++;
        engine->prefill_turn = i + 1;
    }
    return chosen;
}

/* Shares the rest out evenly; what a short prompt leaves goes to the others. */
static void share_rows(struct engine *engine, size_t budget, size_t chosen)
{
    size_t left = budget - chosen, hungry = chosen;
    while (left > 0 && hungry > 0) {
        size_t share = left / hungry ? left / hungry : 1;
        hungry = 0;
        for (size_t i = 0; i < engine->running_count && left > 0; i++) {
            struct engine_seq *seq = engine->running[i];
            if (seq->step_rows == 0)
                continue;
            size_t want = seq->prompt_len - fed_len(seq) - seq->step_rows;
            size_t more = want < share ? want : share;
            if (more > left)
                more = left;
            seq->step_rows += more;
            left -= more;
            hungry += want > more;
        }
    }
}

static void tell_progress(struct engine *engine)
{
    for (size_t i = 0; i < engine->running_count; i++) {
        struct engine_seq *seq = engine->running[i];
        if (seq->place == SEQ_RUNNING && seq->step_rows > 0 && seq->len == seq->prompt_len)
            seq_push_prefill(seq, fed_len(seq));
    }
}

static size_t prefill(struct engine *engine, bool streams_run)
{
    size_t budget = prefill_budget(engine, streams_run);
    size_t most = budget / PREFILL_SHARE_ROWS_MIN;
    size_t chosen = choose_prompts(engine, most ? most : 1);
    if (chosen == 0)
        return 0;
    share_rows(engine, budget, chosen);
    size_t rows = run_rows(engine, PHASE_PREFILL);
    tell_progress(engine);
    take_outputs(engine);
    sweep_running(engine);
    return rows;
}

/* ---- The thread */

/* Moves what arrived to the waiting list; sleeps first when there is nothing to do. false: stop. */
static bool take_arrivals(struct engine *engine, bool idle)
{
    struct doorbell *bell = engine->bell;
    engine_publish(engine);
    uv_mutex_lock(&bell->mutex);
    while (idle && !bell->rung && !engine->stop) {
        if (!engine->waiting)
            uv_cond_wait(&bell->cond, &bell->mutex);
        else if (uv_cond_timedwait(&bell->cond, &bell->mutex, STALLED_LOOK_NS) != 0)
            break; /* someone waits for the pages of slow readers: see how long they have been slow */
    }
    bool rung = bell->rung;
    bell->rung = false;
    struct engine_seq *arrived = engine->incoming;
    engine->incoming = NULL;
    engine->incoming_end = &engine->incoming;
    bool go_on = !engine->stop;
    uv_mutex_unlock(&bell->mutex);
    while (arrived) {
        struct engine_seq *next = arrived->next;
        insert_waiting(engine, arrived);
        arrived = next;
    }
    if (rung)
        end_cancelled(engine, false);
    return go_on;
}

static void serve(struct engine *engine)
{
    bool idle = true;
    while (take_arrivals(engine, idle)) {
        admit(engine);
        engine_publish(engine); /* who runs now, before a step that may take long */
        size_t decoded = decode(engine);
        idle = prefill(engine, decoded > 0) == 0 && decoded == 0;
    }
    end_cancelled(engine, true);
    while (shelf_drop_oldest(engine, NULL))
        ;
}

static enum ph_status make_runner(struct engine *engine, struct ph_err *err)
{
    const struct engine_params *params = &engine->params;
    struct runner_params runner_params = {
        .threads = params->threads,
        .kernels = params->kernels,
        .kv_type = params->kv_type,
        .context_len = params->context_len,
        .kv_bytes_max = params->kv_bytes_max,
        .rows_max = engine->rows_max,
        .outputs_max = params->sequences_max,
        .sequences_max = params->sequences_max + SHELF_LEN_MAX,
        .loras = (const struct lora *const *)engine->loras,
        .lora_scales = engine->lora_scales,
        .lora_count = params->lora_count,
    };
    enum ph_status status = runner_create(&engine->runner, engine->model, &runner_params, err);
    if (status != PH_OK)
        return status;
    size_t room = runner_kv_pages_total(engine->runner) * runner_kv_page_len(engine->runner);
    if (room < params->context_len)
        return ph_fail(
            err, PH_ERR_LIMIT,
            "%s: the KV budget of %zu bytes holds %zu tokens, less than a context of %zu; raise one "
            "or lower the other",
            params->model_path, params->kv_bytes_max, room, params->context_len);
    return PH_OK;
}

void engine_scheduler(void *ud)
{
    struct engine *engine = ud;
    struct ph_err err = {.code = PH_OK};
    enum ph_status status = make_runner(engine, &err);
    if (status == PH_OK)
        engine_publish(engine);
    uv_mutex_lock(&engine->bell->mutex);
    engine->opened = true;
    engine->open_status = status;
    engine->open_err = err;
    uv_cond_broadcast(&engine->bell->cond);
    uv_mutex_unlock(&engine->bell->mutex);
    if (status == PH_OK)
        serve(engine);
    runner_free(engine->runner);
}
