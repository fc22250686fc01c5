/* Recordings: an answer's events in a flat buffer, to be judged, kept and played later.
 *
 * A frame is its kind and then, by the table below, the fields that this kind has. Numbers are little-endian
 * base 128 (7 bits a byte, the high bit says that more follow), texts are their length plus one (0: absent),
 * their bytes and a zero, so that a reader can point at them. Nothing in it is a pointer or depends on the
 * machine's byte order but doubles, which go as their 64 bits: a recording may be kept outside of the
 * process. A reader takes nothing on trust. */
#include <string.h>

#include "gateway/gateway_int.h"

enum field { FIELD_TEXT = 1, FIELD_LOGPROBS = 2, FIELD_CALL = 4, FIELD_FINISH = 8, FIELD_USAGE = 16 };

static const unsigned fields_of[] = {
    [CHAT_EVENT_ROLE] = 0,
    [CHAT_EVENT_TEXT] = FIELD_TEXT | FIELD_LOGPROBS,
    [CHAT_EVENT_REASONING] = FIELD_TEXT,
    [CHAT_EVENT_TOOL_CALL] = FIELD_CALL,
    [CHAT_EVENT_FINISH] = FIELD_FINISH,
    [CHAT_EVENT_USAGE] = FIELD_USAGE,
    [CHAT_EVENT_DONE] = 0,
};
#define TOPS_MAX (ENGINE_LOGPROBS_MAX + 1) /* the token said may be one more than was asked for */
#define LOGPROB_BYTES_MIN 10               /* an id, a text that is absent, a double */
#define KIND_COUNT (sizeof fields_of / sizeof *fields_of)

void recording_init(struct recording *recording, size_t bytes_max)
{
    buf_init(&recording->bytes, bytes_max);
}

void recording_release(struct recording *recording)
{
    buf_release(&recording->bytes);
}

/* ---- Writing */

static void put_number(struct buf *out, uint64_t n)
{
    for (; n >= 0x80; n >>= 7)
        buf_putc(out, (char)(n | 0x80));
    buf_putc(out, (char)n);
}

static void put_text(struct buf *out, const char *text, size_t len)
{
    put_number(out, text ? len + 1 : 0);
    if (text) {
        buf_append(out, text, len);
        buf_putc(out, 0);
    }
}

static void put_string(struct buf *out, const char *text)
{
    put_text(out, text, text ? strlen(text) : 0);
}

static void put_double(struct buf *out, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    for (int i = 0; i < 8; i++)
        buf_putc(out, (char)(bits >> 8 * i & 0xff));
}

static void put_logprob(struct buf *out, const struct chat_token_logprob *token)
{
    put_number(out, (uint32_t)token->id);
    put_text(out, token->token.text, token->token.len);
    put_double(out, token->logprob);
}

static void put_logprobs(struct buf *out, const struct chat_event *event)
{
    size_t count = event->logprobs ? event->logprob_count : 0;
    put_number(out, count);
    put_number(out, count ? event->top_count : 0);
    for (size_t i = 0; i < count; i++) {
        put_logprob(out, &event->logprobs[i]);
        for (size_t k = 0; k < event->top_count; k++)
            put_logprob(out, &event->top[i * event->top_count + k]);
    }
}

void recording_add(struct recording *recording, const struct chat_event *event)
{
    struct buf *out = &recording->bytes;
    if (event->kind >= KIND_COUNT || event->kind == CHAT_EVENT_PROGRESS || event->kind == CHAT_EVENT_ERROR)
        return;
    unsigned fields = fields_of[event->kind];
    buf_putc(out, (char)event->kind);
    put_number(out, event->choice);
    put_number(out, event->tokens);
    if (fields & FIELD_TEXT) {
        put_text(out, event->text.text, event->text.len);
        put_string(out, event->signature);
        put_number(out, event->redacted);
    }
    if (fields & FIELD_LOGPROBS)
        put_logprobs(out, event);
    if (fields & FIELD_CALL) {
        put_number(out, event->tool_call.index);
        put_number(out, event->tool_call.custom);
        put_string(out, event->tool_call.id);
        put_string(out, event->tool_call.name);
        put_text(out, event->tool_call.arguments.text, event->tool_call.arguments.len);
    }
    if (fields & FIELD_FINISH) {
        put_number(out, event->finish);
        put_string(out, event->stop_text);
    }
    if (fields & FIELD_USAGE) {
        put_number(out, event->usage.prompt_tokens);
        put_number(out, event->usage.cached_tokens);
        put_number(out, event->usage.cache_write_tokens);
        put_number(out, event->usage.completion_tokens);
        put_number(out, event->usage.reasoning_tokens);
        put_number(out, event->usage.estimated);
    }
}

/* ---- Reading */

struct player {
    const unsigned char *at, *end;
    struct arena *arena;
    bool bad;
};

static uint64_t get_number(struct player *p)
{
    uint64_t n = 0;
    for (unsigned shift = 0; shift < 64 && p->at < p->end; shift += 7) {
        unsigned char byte = *p->at++;
        n |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return n;
    }
    p->bad = true;
    return 0;
}

static struct chat_text get_text(struct player *p)
{
    uint64_t n = get_number(p);
    if (n == 0 || p->bad)
        return (struct chat_text){NULL, 0};
    size_t left = (size_t)(p->end - p->at);
    if (n > left || p->at[n - 1] != 0) {
        p->bad = true;
        return (struct chat_text){NULL, 0};
    }
    struct chat_text text = {(const char *)p->at, (size_t)n - 1};
    p->at += n;
    return text;
}

static double get_double(struct player *p)
{
    uint64_t bits = 0;
    double value;
    if (p->end - p->at < 8) {
        p->bad = true;
        return 0;
    }
    for (int i = 0; i < 8; i++)
        bits |= (uint64_t)*p->at++ << 8 * i;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void get_logprob(struct player *p, struct chat_token_logprob *out)
{
    out->id = (int32_t)(uint32_t)get_number(p);
    out->token = get_text(p);
    out->logprob = get_double(p);
}

static void get_logprobs(struct player *p, struct chat_event *out)
{
    uint64_t count = get_number(p), tops = get_number(p);
    uint64_t left = (uint64_t)(p->end - p->at);
    if (count == 0 || p->bad)
        return;
    if (tops > TOPS_MAX || count > left / (LOGPROB_BYTES_MIN * (1 + tops))) {
        p->bad = true;
        return;
    }
    struct chat_token_logprob *list = arena_calloc(p->arena, count, sizeof *list);
    struct chat_token_logprob *top = arena_calloc(p->arena, count * tops, sizeof *top);
    if (!list || !top) {
        p->bad = true;
        return;
    }
    for (uint64_t i = 0; i < count && !p->bad; i++) {
        get_logprob(p, &list[i]);
        for (uint64_t k = 0; k < tops && !p->bad; k++)
            get_logprob(p, &top[i * tops + k]);
    }
    out->logprobs = list;
    out->logprob_count = count;
    out->top = tops ? top : NULL;
    out->top_count = tops;
}

static void get_usage(struct player *p, struct chat_event *out)
{
    out->usage.prompt_tokens = get_number(p);
    out->usage.cached_tokens = get_number(p);
    out->usage.cache_write_tokens = get_number(p);
    out->usage.completion_tokens = get_number(p);
    out->usage.reasoning_tokens = get_number(p);
    out->usage.estimated = get_number(p) != 0;
}

static void get_fields(struct player *p, unsigned fields, struct chat_event *out)
{
    if (fields & FIELD_TEXT) {
        out->text = get_text(p);
        out->signature = get_text(p).text;
        out->redacted = get_number(p) != 0;
    }
    if (fields & FIELD_LOGPROBS)
        get_logprobs(p, out);
    if (fields & FIELD_CALL) {
        out->tool_call.index = get_number(p);
        out->tool_call.custom = get_number(p) != 0;
        out->tool_call.id = get_text(p).text;
        out->tool_call.name = get_text(p).text;
        out->tool_call.arguments = get_text(p);
    }
    if (fields & FIELD_FINISH) {
        uint64_t finish = get_number(p);
        p->bad = p->bad || finish > CHAT_FINISH_CONTENT_FILTER;
        out->finish = p->bad ? CHAT_FINISH_NONE : (enum chat_finish)finish;
        out->stop_text = get_text(p).text;
    }
    if (fields & FIELD_USAGE)
        get_usage(p, out);
}

bool recording_next(const struct recording *recording, size_t *at, struct arena *arena,
                    struct chat_event *out)
{
    const struct buf *bytes = &recording->bytes;
    if (*at >= bytes->len || buf_status(bytes) != PH_OK)
        return false;
    const unsigned char *data = (const unsigned char *)bytes->data;
    struct player p = {data + *at, data + bytes->len, arena, false};
    unsigned kind = *p.at++;
    *out = (struct chat_event){.kind = (enum chat_event_kind)kind};
    if (kind >= KIND_COUNT || kind == CHAT_EVENT_PROGRESS || kind == CHAT_EVENT_ERROR)
        return false;
    out->choice = get_number(&p);
    out->tokens = get_number(&p);
    get_fields(&p, fields_of[kind], out);
    *at = (size_t)(p.at - data);
    return !p.bad;
}
