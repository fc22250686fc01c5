/* An embedding model in this process: requests become jobs of its embedder.
 *
 * A request's texts are tokenised in an errand, on the loop when they are short and on a helper thread when
 * they are long; the errand holds copies, so that the request may go away meanwhile. Then the job waits for
 * its turn on the embedder's thread, which wakes the loop when it is over.
 *
 * Invariants:
 *  V1  A call has an errand on a helper thread, or a job, never both.
 *  V2  A call's job is freed before its wake-up is closed: the embedder's thread cannot wake a closed loop.
 */
#include <string.h>

#include "base/mem.h"
#include "provider/provider_int.h"

#define ERRAND_ARENA_BYTES_MAX ((size_t)256 << 20)

struct vectors {
    struct provider base;
    struct embedder *embedder; /* NULL: not attached */
    size_t running;            /* calls */
};

struct vectors_call {
    struct provider_call base;
    struct vectors *vectors;
    struct net_wake *wake;
    const struct chat_embed_request *request;
    struct provider_embed_sink sink;
    struct errand *errand;    /* on a helper thread; NULL: done */
    struct embedder_job *job; /* NULL: not submitted */
    uint64_t tokens;
};

struct errand {
    struct arena arena;
    const struct embedder *embedder;
    struct vectors_call *call; /* NULL: cancelled */
    struct chat_prompt *inputs;
    size_t count, bytes;
    struct token_list tokens;
    size_t *ends; /* of each input in `tokens` */
    enum ph_status status;
    struct chat_fault fault;
};

/* ---- Errands: texts to tokens */
static void errand_free(struct errand *errand)
{
    token_list_release(&errand->tokens);
    arena_release(&errand->arena);
    mem_free(errand);
}

static bool copy_input(struct arena *arena, const struct chat_prompt *from, struct chat_prompt *to)
{
    size_t bytes = from->ids ? from->id_count * sizeof *from->ids : from->text.len;
    void *copy = arena_alloc(arena, bytes + 1);
    if (!copy)
        return false;
    if (bytes)
        memcpy(copy, from->ids ? (const void *)from->ids : from->text.text, bytes);
    *to = *from;
    if (from->ids)
        to->ids = copy;
    else
        to->text.text = copy;
    return true;
}

/* NULL: out of memory. */
static struct errand *errand_new(const struct embedder *embedder, const struct chat_embed_request *request)
{
    struct errand *errand = mem_calloc(1, sizeof *errand);
    if (!errand)
        return NULL;
    errand->embedder = embedder;
    errand->count = request->input_count;
    arena_init(&errand->arena, ERRAND_ARENA_BYTES_MAX);
    errand->inputs = arena_calloc(&errand->arena, errand->count, sizeof *errand->inputs);
    errand->ends = arena_calloc(&errand->arena, errand->count, sizeof *errand->ends);
    bool ok = errand->inputs && errand->ends;
    for (size_t i = 0; i < errand->count && ok; i++) {
        ok = copy_input(&errand->arena, &request->inputs[i], &errand->inputs[i]);
        errand->bytes += request->inputs[i].ids ? request->inputs[i].id_count * sizeof(int32_t)
                                                : request->inputs[i].text.len;
    }
    if (ok)
        return errand;
    errand_free(errand);
    return NULL;
}

static enum ph_status append_ids(struct token_list *list, const struct chat_prompt *input)
{
    size_t need = list->len + input->id_count;
    if (need > list->cap) {
        size_t cap = need > 2 * list->cap ? need : 2 * list->cap;
        int32_t *ids = mem_realloc(list->ids, cap, sizeof *ids);
        if (!ids)
            return PH_ERR_NOMEM;
        list->ids = ids;
        list->cap = cap;
    }
    memcpy(list->ids + list->len, input->ids, input->id_count * sizeof *input->ids);
    list->len = need;
    return PH_OK;
}

static enum ph_status check_ids(struct errand *errand, size_t index)
{
    const struct chat_prompt *input = &errand->inputs[index];
    size_t n_vocab = model_info(embedder_model(errand->embedder))->n_vocab;
    size_t context = embedder_context_len(errand->embedder);
    if (input->id_count == 0) {
        chat_fault_set(&errand->fault, 400, NULL, "input", "input %zu is an empty list of tokens", index);
        return PH_ERR_ARG;
    }
    for (size_t i = 0; i < input->id_count; i++)
        if (input->ids[i] < 0 || (size_t)input->ids[i] >= n_vocab) {
            chat_fault_set(&errand->fault, 400, NULL, "input",
                           "input %zu: token %d is not in the model's vocabulary of %zu", index,
                           (int)input->ids[i], n_vocab);
            return PH_ERR_ARG;
        }
    return input->id_count <= context ? append_ids(&errand->tokens, input) : PH_ERR_LIMIT;
}

static void set_fault(struct errand *errand, size_t index, size_t tokens, const char *message)
{
    if (errand->status == PH_ERR_LIMIT) {
        chat_fault_set(&errand->fault, 400, "context_length_exceeded", "input",
                       "this model's maximum context length is %zu tokens and input %zu has %zu; shorten it",
                       embedder_context_len(errand->embedder), index, tokens);
        errand->fault.cause = CHAT_CAUSE_CONTEXT;
    } else if (errand->status != PH_ERR_ARG) {
        chat_fault_set(&errand->fault, 503, NULL, NULL, "input %zu: %s", index, message);
    }
}

static void errand_run(void *ud) /* any thread */
{
    struct errand *errand = ud;
    for (size_t i = 0; i < errand->count && errand->status == PH_OK; i++) {
        const struct chat_prompt *input = &errand->inputs[i];
        struct ph_err err = {0};
        size_t before = errand->tokens.len, cut = 0, len = input->id_count;
        if (input->ids) {
            errand->status = check_ids(errand, i);
        } else {
            errand->status = embedder_tokenize(errand->embedder, input->text.text, input->text.len, &cut,
                                               &errand->tokens, &err);
            len = errand->tokens.len - before + cut;
            if (errand->status == PH_OK && cut)
                errand->status = PH_ERR_LIMIT;
        }
        errand->ends[i] = errand->tokens.len;
        if (errand->status != PH_OK)
            set_fault(errand, i, len, err.message);
    }
}

/* ---- Calls */
static void call_free(struct vectors_call *call)
{
    if (call->errand)
        call->errand->call = NULL;
    embedder_job_free(call->job);
    net_wake_close(call->wake);
    call->vectors->running--;
    mem_free(call);
}

static void tell_fault(struct vectors_call *call, const struct chat_fault *fault)
{
    struct provider_embed_sink sink = call->sink;
    struct chat_fault copy = *fault;
    call_free(call);
    sink.done(sink.ud, NULL, &copy);
}

/* The first numbers of each vector, of length 1 again (Kusupati et al. 2022). */
static float *shorten(const float *values, size_t count, size_t width, size_t to)
{
    float *out = mem_alloc(count * to * sizeof *out);
    for (size_t i = 0; out && i < count; i++) {
        memcpy(out + i * to, values + i * width, to * sizeof *out);
        encoder_normalise(out + i * to, to);
    }
    return out;
}

static void tell_vectors(struct vectors_call *call)
{
    size_t width = embedder_width(call->vectors->embedder), to = call->request->dimensions;
    struct chat_embeddings embeddings = {.count = call->request->input_count,
                                         .width = width,
                                         .values = embedder_job_vectors(call->job),
                                         .prompt_tokens = call->tokens};
    float *shorter = NULL;
    if (to && to < width) {
        shorter = shorten(embeddings.values, embeddings.count, width, to);
        if (!shorter) {
            struct chat_fault fault;
            chat_fault_set(&fault, 503, NULL, NULL, "out of memory");
            tell_fault(call, &fault);
            return;
        }
        embeddings.values = shorter;
        embeddings.width = to;
    }
    struct provider_embed_sink sink = call->sink;
    struct embedder_job *job = call->job; /* holds the values */
    call->job = NULL;
    call_free(call);
    sink.done(sink.ud, &embeddings, NULL);
    embedder_job_free(job);
    mem_free(shorter);
}

static void on_wake(void *ud)
{
    struct vectors_call *call = ud;
    struct chat_fault fault;
    if (!call->job || !embedder_job_over(call->job))
        return;
    enum ph_status status = embedder_job_wait(call->job);
    if (status == PH_OK) {
        tell_vectors(call);
        return;
    }
    if (status == PH_ERR_CANCELLED)
        chat_fault_set(&fault, 503, "server_stopping", NULL, "the station is stopping");
    else
        chat_fault_set(&fault, 500, NULL, NULL, "the model failed: %s", ph_status_name(status));
    tell_fault(call, &fault);
}

static void on_over(void *ud) /* the embedder's thread */
{
    net_wake_call(((struct vectors_call *)ud)->wake);
}

static enum ph_status submit(struct vectors_call *call, struct errand *errand, struct chat_fault *fault)
{
    struct ph_err err = {0};
    if (errand->status != PH_OK) {
        *fault = errand->fault;
        return errand->status;
    }
    struct embedder_text *texts = arena_calloc(&errand->arena, errand->count, sizeof *texts);
    enum ph_status status = texts ? PH_OK : PH_ERR_NOMEM;
    for (size_t i = 0, from = 0; i < errand->count && texts; from = errand->ends[i++])
        texts[i] = (struct embedder_text){errand->tokens.ids + from, errand->ends[i] - from};
    call->tokens = errand->tokens.len;
    if (status == PH_OK) {
        const struct embedder_request request = {
            .texts = texts, .count = errand->count, .done = on_over, .ud = call};
        status = embedder_submit(call->vectors->embedder, &request, &call->job, &err);
    }
    if (status == PH_ERR_BUSY) {
        chat_fault_set(fault, 429, "rate_limit_exceeded", NULL,
                       "the model's queue is full; try again in a moment");
        fault->retry_after_s = 1;
        fault->cause = CHAT_CAUSE_OVERLOADED;
    } else if (status != PH_OK) {
        chat_fault_set(fault, 503, NULL, NULL, "%s", status == PH_ERR_NOMEM ? "out of memory" : err.message);
    }
    return status;
}

static void errand_done(void *ud)
{
    struct errand *errand = ud;
    struct vectors_call *call = errand->call;
    struct chat_fault fault;
    if (call) {
        call->errand = NULL;
        if (submit(call, errand, &fault) != PH_OK)
            tell_fault(call, &fault);
    }
    errand_free(errand);
}

static enum ph_status begin(struct vectors_call *call, struct net_loop *loop, struct errand *errand,
                            struct chat_fault *fault)
{
    if (errand->bytes > CHAT_INLINE_BYTES_MAX) {
        errand->call = call;
        enum ph_status status = net_work(loop, errand_run, errand_done, errand);
        if (status == PH_OK) {
            call->errand = errand;
            return PH_OK;
        }
        errand_free(errand);
        chat_fault_set(fault, 429, "rate_limit_exceeded", NULL,
                       "too many long texts are waiting; try again in a moment");
        fault->retry_after_s = 1;
        fault->cause = CHAT_CAUSE_OVERLOADED;
        return status;
    }
    errand_run(errand);
    enum ph_status status = submit(call, errand, fault);
    errand_free(errand);
    return status;
}

/* ---- The provider's functions */
static enum ph_status check(const struct vectors *vectors, const struct chat_embed_request *request,
                            struct chat_fault *fault)
{
    enum ph_status status = provider_check_loaded(&vectors->base, fault);
    if (status != PH_OK)
        return status;
    size_t width = embedder_width(vectors->embedder);
    if (request->dimensions > width) {
        chat_fault_set(fault, 400, NULL, "dimensions",
                       "dimensions is %zu, and the embeddings of %s have %zu numbers", request->dimensions,
                       vectors->base.model_id, width);
        fault->cause = CHAT_CAUSE_UNABLE;
        return PH_ERR_ARG;
    }
    return PH_OK;
}

static enum ph_status vectors_embed(struct provider *provider, struct net_loop *loop,
                                    const struct chat_embed_request *request,
                                    const struct provider_embed_sink *sink, struct provider_call **out,
                                    struct chat_fault *fault)
{
    struct vectors *vectors = (struct vectors *)provider;
    *out = NULL;
    enum ph_status status = check(vectors, request, fault);
    if (status != PH_OK)
        return status;
    struct errand *errand = errand_new(vectors->embedder, request);
    struct vectors_call *call = errand ? mem_calloc(1, sizeof *call) : NULL;
    if (call) {
        *call = (struct vectors_call){
            .base.ops = provider->ops, .vectors = vectors, .request = request, .sink = *sink};
        if (net_wake_open(&call->wake, loop, on_wake, call) != PH_OK) {
            mem_free(call);
            call = NULL;
        }
    }
    if (!call) {
        if (errand)
            errand_free(errand);
        chat_fault_set(fault, 503, NULL, NULL, "out of memory");
        return PH_ERR_NOMEM;
    }
    vectors->running++;
    status = begin(call, loop, errand, fault);
    if (status == PH_OK)
        *out = &call->base;
    else
        call_free(call);
    return status;
}

static enum ph_status vectors_start(struct provider *provider, struct net_loop *loop,
                                    const struct chat_request *request, const struct provider_sink *sink,
                                    struct provider_call **out, struct chat_fault *fault)
{
    (void)loop;
    (void)request;
    (void)sink;
    *out = NULL;
    chat_fault_set(fault, 400, "unsupported", "model",
                   "%s is an embedding model: it makes vectors (/v1/embeddings) and writes no text",
                   provider->model_id);
    fault->cause = CHAT_CAUSE_UNABLE;
    return PH_ERR_UNSUPPORTED;
}

static void vectors_resume(struct provider_call *base)
{
    (void)base; /* nothing streams */
}

static void vectors_cancel(struct provider_call *base)
{
    call_free((struct vectors_call *)base);
}

static void vectors_state(const struct provider *provider, struct provider_state *out)
{
    const struct vectors *vectors = (const struct vectors *)provider;
    struct embedder_stats stats = {0};
    if (vectors->embedder)
        embedder_stats_read(vectors->embedder, &stats);
    out->running = vectors->running;
    out->waiting = stats.waiting > 1 ? stats.waiting - 1 : 0;
    if (stats.busy_ns)
        out->prefill_tokens_s = (double)stats.tokens * 1e9 / (double)stats.busy_ns;
}

static const struct model *vectors_model(const struct provider *provider)
{
    const struct vectors *vectors = (const struct vectors *)provider;
    return vectors->embedder ? embedder_model(vectors->embedder) : NULL;
}

static struct embedder *vectors_embedder(const struct provider *provider)
{
    return ((const struct vectors *)provider)->embedder;
}

static void vectors_free(struct provider *provider)
{
    struct vectors *vectors = (struct vectors *)provider;
    embedder_free(vectors->embedder);
    mem_free(vectors);
}

enum ph_status provider_embedder_create(struct provider **out, const char *model_id, struct ph_err *err)
{
    static const struct provider_ops ops = {
        .kind = "local",
        .start = vectors_start,
        .resume = vectors_resume,
        .cancel = vectors_cancel,
        .embed = vectors_embed,
        .state = vectors_state,
        .model = vectors_model,
        .embedder = vectors_embedder,
        .free = vectors_free,
    };
    struct vectors *vectors = mem_calloc(1, sizeof *vectors);
    *out = NULL;
    if (!vectors || provider_init(&vectors->base, &ops, model_id) != 0) {
        mem_free(vectors);
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    }
    *out = &vectors->base;
    return PH_OK;
}

void provider_embedder_attach(struct provider *provider, struct embedder *embedder)
{
    ((struct vectors *)provider)->embedder = embedder;
    provider->context_len = embedder_context_len(embedder);
    provider->ready = true;
}
