/* A chat that belongs to a conversation: from the request as it came to what the model gets to see, and from
 * the reply to what is kept.
 *
 * The way: remember_begin reads what was asked for and gives the turn to a helper thread, which loads the
 * conversation, finds out what is new and builds the context (memory.h). On the loop again the request's
 * messages are exchanged; when it has been admitted, what is new goes to the store. The reply is heard as its
 * events pass; when it is whole, its end is held back until the store's writer says that it is durable, and
 * with it all that was queued before. A reply whose reader leaves, or that breaks off, is kept as cut.
 *
 * Of n > 1 choices the first is kept. With `store: false` the conversation is read and nothing is stored. */
#include <string.h>

#include "base/log.h"
#include "gateway/gateway_int.h"

#define THOUGHTS_MAX 64

struct heard_call {
    size_t index;
    const char *id, *name;
    bool custom;
    struct buf arguments;
};

struct heard_thought {
    struct buf text;
    const char *signature;
    bool is_over;
};

struct remembering {
    struct gateway *gateway;
    struct arena *arena; /* the exchange's */
    struct chat_request *request;
    struct memory_turn_params params;
    struct memory_counter counter;
    struct memory_turn turn;
    enum ph_status status; /* of the turn */
    struct ph_err err;
    void (*ready)(void *ud);
    void *ud;
    const char *response_id;

    struct letter *asked, *told;
    enum ph_status asked_status;
    struct ph_err asked_err;
    void (*stored)(void *ud, const struct chat_fault *fault);

    struct buf text;
    struct heard_thought thoughts[THOUGHTS_MAX];
    size_t thought_count;
    struct heard_call calls[CHAT_TOOL_CALLS_MAX];
    size_t call_count;
    size_t choices, finished;
    enum chat_finish finish;
    uint64_t tokens;
    bool is_kept; /* or was tried */
};

/* ---- Beginning */

bool remember_wants(const struct gateway *gateway, const struct chat_request *request)
{
    if (!gateway->memory || request->kind != CHAT_KIND_CHAT)
        return false;
    bool is_kept = request->dialect == CHAT_RESPONSES && !request->unkept;
    return (request->conversation && *request->conversation) || request->previous_response || is_kept;
}

static void release(void *ud)
{
    struct remembering *r = ud;
    letter_forget(r->asked);
    letter_forget(r->told);
    buf_release(&r->text);
    for (size_t i = 0; i < THOUGHTS_MAX; i++)
        buf_release(&r->thoughts[i].text);
    for (size_t i = 0; i < CHAT_TOOL_CALLS_MAX; i++)
        buf_release(&r->calls[i].arguments);
    memory_turn_release(&r->turn);
}

/* Who may be asked: a model by its name, or a route's members. */
static const struct gateway_route *find_route(const struct gateway *gateway, const char *name)
{
    for (size_t i = 0; name && i < gateway->route_count; i++)
        if (strcmp(gateway->routes[i].name, name) == 0)
            return &gateway->routes[i];
    return NULL;
}

/* The one with the least room decides, so that whoever is asked can take it. */
static size_t narrowest(const struct gateway *gateway, const struct chat_request *request, size_t *window)
{
    const struct gateway_route *route = find_route(gateway, request->model);
    struct chat_fault fault;
    size_t best = 0;
    *window = 0;
    if (!route) {
        if (gateway_find(gateway, request->model, &best, &fault))
            *window = provider_context_len(gateway->models[best].provider);
        return best;
    }
    best = route->member_count ? route->members[0].model : 0;
    for (size_t i = 0; i < route->member_count; i++) {
        size_t len = provider_context_len(gateway->models[route->members[i].model].provider);
        if (len == 0 || (*window && len >= *window))
            continue;
        *window = len;
        best = route->members[i].model;
    }
    return best;
}

/* What the request has besides its messages. */
static size_t other_tokens(const struct chat_request *request)
{
    struct chat_request bare = *request;
    bare.message_count = 0;
    return route_estimate_tokens(&bare);
}

static uint32_t budget_of(const struct chat_request *request, size_t window)
{
    size_t answer = request->max_tokens;
    if (!window)
        return MEMORY_BUDGET_DEFAULT;
    if (!answer)
        answer = window / 4 < MEMORY_ANSWER_TOKENS ? window / 4 : MEMORY_ANSWER_TOKENS;
    if (answer > window / 2) /* a limit that is no plan: many clients send the greatest they know */
        answer = window / 2;
    size_t taken = answer + other_tokens(request);
    size_t left = taken < window ? window - taken : 1;
    return left < MEMORY_CONTEXT_BUDGET_MAX ? (uint32_t)left : MEMORY_CONTEXT_BUDGET_MAX;
}

static bool read_request(struct remembering *r, struct http_exchange *exchange, const struct caller *caller,
                         struct chat_fault *fault)
{
    const struct chat_request *request = r->request;
    struct remember_wishes wishes;
    const char *user, *conversation = request->conversation;
    size_t window;
    if (conversation && strlen(conversation) > STORE_KEY_BYTES_MAX) {
        chat_fault_set(fault, 400, "invalid_conversation", "conversation",
                       "the conversation's id is longer than %d bytes", STORE_KEY_BYTES_MAX);
        return false;
    }
    if (!remember_user(exchange, caller, request->user, &user, fault) ||
        !remember_wishes(http_exchange_request(exchange), request->metadata, &wishes, fault))
        return false;
    size_t model = narrowest(r->gateway, request, &window);
    bool counts = r->gateway->model_count && remember_counter(r->gateway, model, &r->counter);
    r->params = (struct memory_turn_params){
        .user = user,
        .conversation = conversation && *conversation ? conversation : NULL,
        .must_exist = request->must_exist,
        .previous_response = request->previous_response,
        .request = request,
        .budget_tokens = wishes.budget_tokens ? wishes.budget_tokens : budget_of(request, window),
        .keep_recent = wishes.keep_recent,
        .strategy = wishes.strategy,
        .counter = counts ? &r->counter : NULL,
        .unkept = request->unkept};
    return true;
}

/* A helper thread. */
static void open_turn(void *ud)
{
    struct remembering *r = ud;
    r->status = memory_turn_open(r->gateway->memory, &r->params, &r->turn, &r->err);
}

static void on_opened(void *ud)
{
    struct remembering *r = ud;
    r->ready(r->ud);
}

struct remembering *remember_begin(struct gateway *gateway, struct http_exchange *exchange,
                                   const struct caller *caller, struct chat_request *request,
                                   void (*ready)(void *ud), void *ud, struct chat_fault *fault)
{
    struct arena *arena = http_exchange_arena(exchange);
    struct remembering *r = arena_calloc(arena, 1, sizeof *r);
    if (!r || arena_on_release(arena, release, r) != 0) {
        chat_fault_set(fault, 503, NULL, NULL, "out of memory");
        return NULL;
    }
    r->gateway = gateway;
    r->arena = arena;
    r->request = request;
    r->ready = ready;
    r->ud = ud;
    r->choices = chat_choice_count(request);
    arena_init(&r->turn.arena, 0);
    buf_init(&r->text, CHAT_REPLY_BYTES_MAX);
    if (!read_request(r, exchange, caller, fault))
        return NULL;
    if (net_work(gateway->loop, open_turn, on_opened, r) == PH_OK)
        return r;
    chat_fault_set(fault, 503, "server_overloaded", NULL,
                   "too many conversations are being loaded; try again in a second");
    fault->retry_after_s = 1;
    return NULL;
}

bool remember_apply(struct remembering *r, struct chat_fault *fault)
{
    struct chat_request *request = r->request;
    if (r->status != PH_OK) {
        remember_fault(&r->err, fault);
        if (r->status == PH_ERR_NOTFOUND) {
            fault->param = request->previous_response ? "previous_response_id" : "conversation";
            fault->code = request->previous_response ? "previous_response_not_found" : fault->code;
        }
        return false;
    }
    request->is_kept = request->dialect == CHAT_RESPONSES && !request->unkept;
    if (!r->turn.is_changed)
        return true;
    request->messages = r->turn.messages;
    request->message_count = r->turn.message_count;
    request->messages_changed = true;
    return true;
}

static void on_asked(void *ud, enum ph_status status, const struct ph_err *err)
{
    struct remembering *r = ud;
    r->asked = NULL;
    r->asked_status = status;
    r->asked_err = *err;
}

bool remember_ask(struct remembering *r, struct chat_fault *fault)
{
    struct ph_err err;
    if (r->turn.unkept || r->turn.fresh_count == 0)
        return true;
    struct letter *letter = letter_new(r->gateway->mail, on_asked, r);
    enum ph_status status = letter ? memory_turn_ask(r->gateway->memory, &r->turn, letter_done(letter), &err)
                                   : ph_fail(&err, PH_ERR_NOMEM, "out of memory");
    if (status == PH_OK) {
        r->asked = letter;
        return true;
    }
    letter_free(letter);
    remember_fault(&err, fault);
    return false;
}

/* ---- Listening */

static void hear_thought(struct remembering *r, const struct chat_event *event)
{
    struct heard_thought *last = r->thought_count ? &r->thoughts[r->thought_count - 1] : NULL;
    if (!last || last->is_over) {
        if (r->thought_count == THOUGHTS_MAX)
            return;
        last = &r->thoughts[r->thought_count++];
        buf_init(&last->text, CHAT_REPLY_BYTES_MAX);
    }
    if (event->text.len)
        buf_append(&last->text, event->text.text, event->text.len);
    if (event->signature) {
        last->signature = arena_strdup(r->arena, event->signature);
        last->is_over = true;
    }
}

static void hear_call(struct remembering *r, const struct chat_event *event)
{
    size_t i = 0;
    while (i < r->call_count && r->calls[i].index != event->tool_call.index)
        i++;
    if (i == CHAT_TOOL_CALLS_MAX)
        return;
    struct heard_call *call = &r->calls[i];
    if (i == r->call_count) {
        r->call_count++;
        *call = (struct heard_call){.index = event->tool_call.index, .custom = event->tool_call.custom};
        buf_init(&call->arguments, CHAT_REPLY_BYTES_MAX);
    }
    if (event->tool_call.id)
        call->id = arena_strdup(r->arena, event->tool_call.id);
    if (event->tool_call.name)
        call->name = arena_strdup(r->arena, event->tool_call.name);
    if (event->tool_call.arguments.len)
        buf_append(&call->arguments, event->tool_call.arguments.text, event->tool_call.arguments.len);
}

void remember_hear(struct remembering *r, const struct chat_event *event)
{
    if (!r)
        return;
    if (event->kind == CHAT_EVENT_FINISH)
        r->finished++;
    if (event->kind == CHAT_EVENT_USAGE)
        r->tokens = r->choices == 1 ? event->usage.completion_tokens : 0;
    if (event->choice != 0)
        return;
    if (event->kind == CHAT_EVENT_TEXT && event->text.len)
        buf_append(&r->text, event->text.text, event->text.len);
    else if (event->kind == CHAT_EVENT_REASONING)
        hear_thought(r, event);
    else if (event->kind == CHAT_EVENT_TOOL_CALL)
        hear_call(r, event);
    else if (event->kind == CHAT_EVENT_FINISH)
        r->finish = event->finish;
}

void remember_restart(struct remembering *r)
{
    if (!r)
        return;
    buf_clear(&r->text);
    for (size_t i = 0; i < r->thought_count; i++)
        buf_release(&r->thoughts[i].text);
    for (size_t i = 0; i < r->call_count; i++)
        buf_release(&r->calls[i].arguments);
    r->thought_count = r->call_count = r->finished = 0;
}

bool remember_holds(const struct remembering *r)
{
    return r && !r->turn.unkept && r->finished >= r->choices;
}

/* ---- The reply as a message */

static struct chat_text text_of(const struct buf *buf)
{
    return (struct chat_text){buf->len ? buf->data : "", buf->len};
}

/* What the client had it begin with is part of it. */
static bool write_text(struct remembering *r, struct chat_text *out)
{
    struct chat_text begun = r->turn.begun;
    *out = text_of(&r->text);
    if (!begun.len)
        return true;
    char *text = arena_alloc(r->arena, begun.len + out->len + 1);
    if (!text)
        return false;
    memcpy(text, begun.text, begun.len);
    memcpy(text + begun.len, out->text, out->len);
    text[begun.len + out->len] = 0;
    *out = (struct chat_text){text, begun.len + out->len};
    return true;
}

static bool write_calls(struct remembering *r, struct chat_message *out)
{
    struct chat_tool_call *calls = arena_calloc(r->arena, r->call_count + 1, sizeof *calls);
    for (size_t i = 0; calls && i < r->call_count; i++) {
        const struct heard_call *call = &r->calls[i];
        calls[i] = (struct chat_tool_call){call->id ? call->id : "", call->name ? call->name : "",
                                           text_of(&call->arguments), call->custom};
    }
    out->tool_calls = calls;
    out->tool_call_count = r->call_count;
    return calls != NULL;
}

static bool write_thoughts(struct remembering *r, struct chat_message *out)
{
    if (!r->thought_count)
        return true;
    struct chat_part *parts = arena_calloc(r->arena, r->thought_count + 1, sizeof *parts);
    if (!parts)
        return false;
    for (size_t i = 0; i < r->thought_count; i++)
        parts[i] = (struct chat_part){.kind = CHAT_PART_REASONING,
                                      .text = text_of(&r->thoughts[i].text),
                                      .signature = r->thoughts[i].signature};
    out->parts = parts;
    out->part_count = r->thought_count;
    if (out->content.len)
        parts[out->part_count++] = (struct chat_part){.kind = CHAT_PART_TEXT, .text = out->content};
    return true;
}

static bool write_reply(struct remembering *r, struct memory_reply *out)
{
    static const char *const names[] = {[CHAT_FINISH_NONE] = NULL,
                                        [CHAT_FINISH_STOP] = "stop",
                                        [CHAT_FINISH_LENGTH] = "length",
                                        [CHAT_FINISH_TOOL_CALLS] = "tool_calls",
                                        [CHAT_FINISH_CONTENT_FILTER] = "content_filter"};
    *out = (struct memory_reply){.chat = {.role = CHAT_ASSISTANT},
                                 .finish = names[r->finish],
                                 .tokens = (int64_t)(r->tokens < INT64_MAX ? r->tokens : 0)};
    if (buf_status(&r->text) != PH_OK || !write_text(r, &out->chat.content) || !write_calls(r, &out->chat) ||
        !write_thoughts(r, &out->chat))
        return false;
    if (out->chat.tool_call_count && !out->chat.content.len)
        out->chat.content.text = NULL;
    return true;
}

/* "chatcmpl-abc", "resp_abc", "msg_abc": the message is "msg_abc". */
static const char *message_id(struct remembering *r, const char *reply_id)
{
    const char *cut = strpbrk(reply_id, "_-");
    struct buf text;
    buf_init(&text, ID_TEXT_MAX * 2);
    buf_puts(&text, "msg_");
    buf_puts(&text, cut ? cut + 1 : reply_id);
    const char *id = buf_status(&text) == PH_OK ? arena_strdup(r->arena, text.data) : NULL;
    buf_release(&text);
    return id;
}

/* ---- Storing it */

static void on_told(void *ud, enum ph_status status, const struct ph_err *err)
{
    struct remembering *r = ud;
    struct chat_fault fault;
    r->told = NULL;
    if (status == PH_OK && r->asked_status != PH_OK) {
        status = r->asked_status;
        err = &r->asked_err;
    }
    if (status != PH_OK)
        remember_fault(err, &fault);
    r->stored(r->ud, status == PH_OK ? NULL : &fault);
}

static bool tell(struct remembering *r, struct memory_reply *reply, struct letter *letter,
                 struct chat_fault *fault)
{
    struct ph_err err;
    struct store_done done = letter ? letter_done(letter) : (struct store_done){.fn = NULL};
    enum ph_status status = reply->id ? memory_turn_reply(r->gateway->memory, &r->turn, reply, done, &err)
                                      : ph_fail(&err, PH_ERR_NOMEM, "out of memory");
    r->is_kept = true;
    if (status == PH_OK)
        return true;
    remember_fault(&err, fault);
    return false;
}

bool remember_store(struct remembering *r, const char *reply_id, struct chat_encoder *encoder,
                    void (*stored)(void *ud, const struct chat_fault *fault), struct chat_fault *fault)
{
    struct memory_reply reply;
    struct buf response;
    struct letter *letter = letter_new(r->gateway->mail, on_told, r);
    if (!letter || !write_reply(r, &reply)) {
        letter_free(letter);
        chat_fault_set(fault, 503, NULL, NULL, "out of memory");
        return false;
    }
    reply.id = message_id(r, reply_id);
    buf_init(&response, CHAT_REPLY_BYTES_MAX);
    if (r->request->is_kept) {
        chat_responses_write(encoder, &response);
        reply.response_id = reply_id;
        reply.response = response.data;
        reply.response_len = response.len;
    }
    r->stored = stored;
    bool ok = buf_status(&response) == PH_OK;
    if (!ok)
        chat_fault_set(fault, 503, NULL, NULL, "out of memory");
    ok = ok && tell(r, &reply, letter, fault);
    buf_release(&response);
    if (ok)
        r->told = letter;
    else
        letter_free(letter);
    return ok;
}

/* Nobody is there to be told when it fails; the log is. */
void remember_cut(struct remembering *r, const char *reply_id)
{
    struct memory_reply reply;
    struct chat_fault fault;
    bool has_any = r && (r->text.len || r->call_count);
    if (!has_any || r->turn.unkept || r->is_kept || r->turn.user == NULL)
        return;
    r->call_count = 0; /* a call that has no end cannot be answered */
    if (!r->text.len || !write_reply(r, &reply))
        return;
    reply.id = message_id(r, reply_id);
    reply.is_cut = true;
    if (!tell(r, &reply, NULL, &fault))
        log_warn("gateway", "a cut reply was not kept: %s", fault.message);
}

void remember_route_text(const struct remembering *r, struct buf *out)
{
    if (!r || r->status != PH_OK || !r->turn.strategy)
        return;
    buf_puts(out, "; context=");
    buf_put_uint(out, r->turn.tokens);
    buf_putc(out, '/');
    buf_put_uint(out, r->turn.budget_tokens);
    buf_puts(out, "; strategy=");
    buf_puts(out, r->turn.strategy);
    buf_puts(out, "; history=");
    buf_put_uint(out, r->turn.chosen);
    buf_putc(out, '/');
    buf_put_uint(out, r->turn.history);
}
