/* A context as JSON, as POST /v1/context and `pharos context --json` show it. */
#include <string.h>

#include "memory/memory.h"

#define SCRATCH_BYTES_MAX (64u << 20)

static void write_reasons(const struct context_item *item, struct buf *out)
{
    buf_puts(out, ",\"why\":[");
    for (size_t i = 0; i < item->reason_count; i++) {
        buf_puts(out, i ? ",{\"what\":" : "{\"what\":");
        json_write_string(out, item->reasons[i].what, strlen(item->reasons[i].what));
        buf_printf(out, ",\"points\":%.3f}", (double)item->reasons[i].points);
    }
    buf_putc(out, ']');
}

static void put_member(struct buf *out, const char *name, const char *text, size_t len)
{
    buf_printf(out, ",\"%s\":", name);
    if (text)
        json_write_string(out, text, len);
    else
        buf_puts(out, "null");
}

static void write_item(const struct memory_context_item *item, bool explain, struct buf *out)
{
    const struct store_message *m = &item->message;
    struct json *extra = NULL;
    struct arena scratch;
    arena_init(&scratch, SCRATCH_BYTES_MAX);
    if (*m->extra && json_parse(&scratch, m->extra, strlen(m->extra), &extra, NULL) != PH_OK)
        extra = NULL;
    buf_puts(out, "{\"id\":");
    json_write_string(out, m->id, strlen(m->id));
    put_member(out, "conversation", item->conversation, strlen(item->conversation));
    put_member(out, "role", m->role, strlen(m->role));
    put_member(out, "name", m->name && *m->name ? m->name : NULL, m->name ? strlen(m->name) : 0);
    if (m->content_kind == STORE_CONTENT_JSON) {
        buf_puts(out, ",\"content\":");
        buf_append(out, m->content, m->content_len);
    } else {
        put_member(out, "content", m->content_kind == STORE_CONTENT_NONE ? NULL : m->content, m->content_len);
    }
    buf_printf(out, ",\"created_at\":%lld,\"metadata\":", (long long)(m->created_ms / 1000));
    if (json_get(extra, "metadata"))
        json_write(out, json_get(extra, "metadata"));
    else
        buf_puts(out, "{}");
    buf_printf(out, ",\"tokens\":%u,\"score\":%.3f", (unsigned)item->item.tokens, (double)item->item.score);
    if (explain)
        write_reasons(&item->item, out);
    buf_putc(out, '}');
    arena_release(&scratch);
}

void memory_context_write(const struct memory_context *context, const struct memory_context_params *params,
                          bool explain, double elapsed_ms, struct buf *out)
{
    buf_puts(out, "{\"items\":[");
    for (size_t i = 0; i < context->count; i++) {
        buf_puts(out, i ? "," : "");
        write_item(&context->items[i], explain, out);
    }
    buf_printf(out, "],\"tokens\":%u,\"budget_tokens\":%u,\"strategy\":\"%s\",\"turns\":%u,",
               (unsigned)context->tokens, (unsigned)params->budget_tokens,
               context_strategy_name(context->strategy), (unsigned)context->turns);
    buf_printf(out, "\"candidates\":%u,\"elapsed_ms\":%.3f}", (unsigned)context->candidates, elapsed_ms);
}
