/* Memory's words at the edge: whose conversations, how much context, what its errors mean.
 *
 * With keys every user's name begins with the key's own and a slash ends it, so whatever a caller writes as
 * `user` stays under his key: a slash in a key's user is written %2F (and % as %25). */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "gateway/gateway_int.h"

#define KEY_USER_BYTES_MAX (3 * KEY_NAME_MAX + 1)

/* ---- Users */

static const char *key_user(const struct key *key)
{
    if (key->user[0])
        return key->user;
    return key->name[0] ? key->name : key->account;
}

static void escape(const char *text, struct buf *out)
{
    for (; *text; text++)
        if (*text == '/')
            buf_puts(out, "%2F");
        else if (*text == '%')
            buf_puts(out, "%25");
        else
            buf_putc(out, *text);
}

bool remember_user(struct http_exchange *exchange, const struct caller *caller, const char *user,
                   const char **out, struct chat_fault *fault)
{
    const struct http_request *http = http_exchange_request(exchange);
    struct buf name;
    const char *header = http_request_header(http, "x-user-id");
    if (header && *header) /* a proxy's word is above its clients' */
        user = header;
    if (user && !*user)
        user = NULL;
    *out = user;
    if (user && strlen(user) + KEY_USER_BYTES_MAX > STORE_USER_BYTES_MAX) {
        chat_fault_set(fault, 400, NULL, "user", "user is longer than %d bytes",
                       STORE_USER_BYTES_MAX - KEY_USER_BYTES_MAX);
        return false;
    }
    if (!caller->key)
        return true;
    buf_init(&name, STORE_USER_BYTES_MAX);
    escape(key_user(caller->key), &name);
    if (user) {
        buf_putc(&name, '/');
        buf_puts(&name, user);
    }
    *out = buf_status(&name) == PH_OK
               ? arena_strndup(http_exchange_arena(exchange), name.data ? name.data : "", name.len)
               : NULL;
    buf_release(&name);
    if (*out)
        return true;
    chat_fault_set(fault, 503, NULL, NULL, "out of memory");
    return false;
}

/* ---- Errors */

void remember_fault(const struct ph_err *err, struct chat_fault *fault)
{
    static const struct {
        enum ph_status status;
        int http_status;
        const char *code;
    } rows[] = {{PH_ERR_NOTFOUND, 404, "conversation_not_found"},
                {PH_ERR_ARG, 400, "invalid_conversation"},
                {PH_ERR_LIMIT, 413, "too_large_to_store"},
                {PH_ERR_CONFLICT, 409, "conversation_conflict"},
                {PH_ERR_BUSY, 503, "store_overloaded"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].status == err->code) {
            chat_fault_set(fault, rows[i].http_status, rows[i].code, NULL, "%s", err->message);
            fault->retry_after_s = err->code == PH_ERR_BUSY ? 1 : 0;
            return;
        }
    log_warn("gateway", "the store of conversations failed: %s", err->message);
    chat_fault_set(fault, 503, "store_unavailable", NULL,
                   "the store of conversations failed; the station's log says why");
}

/* ---- Wishes */

/* SDKs make strings of all values. */
static bool read_count(const struct json *value, const char *header, const char *name, uint32_t max,
                       uint32_t *out, struct chat_fault *fault)
{
    const char *text = json_is(value, JSON_STRING) || json_is(value, JSON_NUMBER) ? value->u.str.text : NULL;
    if (!text)
        text = header;
    if (!text)
        return true;
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (end != text && !*end && *text != '-' && n <= max) {
        *out = (uint32_t)n;
        return true;
    }
    chat_fault_set(fault, 400, NULL, name, "%s must be a whole number up to %u", name, (unsigned)max);
    return false;
}

bool remember_wishes(const struct http_request *http, const struct json *metadata,
                     struct remember_wishes *out, struct chat_fault *fault)
{
    const char *strategy = json_text(json_get(metadata, "context_strategy"), NULL);
    *out = (struct remember_wishes){.keep_recent = MEMORY_KEEP_RECENT, .strategy = CONTEXT_STRATEGY_COUNT};
    if (!strategy)
        strategy = http_request_header(http, "x-context-strategy");
    if (strategy && !context_strategy_find(strategy, &out->strategy)) {
        chat_fault_set(fault, 400, "unknown_strategy", "metadata.context_strategy",
                       "there is no context strategy \"%.40s\"; there are recent_only, semantic_focus, "
                       "temporal_decay, hybrid and spt",
                       strategy);
        return false;
    }
    return read_count(json_get(metadata, "context_budget_tokens"),
                      http_request_header(http, "x-context-budget"), "metadata.context_budget_tokens",
                      MEMORY_CONTEXT_BUDGET_MAX, &out->budget_tokens, fault) &&
           read_count(json_get(metadata, "context_keep_recent"),
                      http_request_header(http, "x-context-keep-recent"), "metadata.context_keep_recent",
                      CHAT_MESSAGES_MAX, &out->keep_recent, fault);
}

/* ---- Counts */

static uint32_t count_tokens(void *ud, const char *text, size_t len)
{
    const struct vocab *vocab = ud;
    struct token_list list = {.len = 0};
    uint32_t count = (uint32_t)(len / 4 + 1);
    if (vocab_tokenize(vocab, text, len, false, false, &list, NULL) == PH_OK)
        count = (uint32_t)list.len;
    token_list_release(&list);
    return count;
}

bool remember_counter(const struct gateway *gateway, size_t model, struct memory_counter *out)
{
    const struct provider *provider = gateway->models[model].provider;
    struct engine *engine = provider_engine(provider);
    if (!engine)
        return false;
    union { /* the vocabulary is only read */
        const struct vocab *from;
        void *to;
    } vocab = {model_vocab(engine_model(engine))};
    *out = (struct memory_counter){provider_model_id(provider), count_tokens, vocab.to};
    return true;
}
