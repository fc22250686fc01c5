/* Chat templates: the public face of the interpreter.
 *
 * A template is compiled once into a syntax tree in its own arena, which renders only read, so any number of
 * threads may render it. A render owns an arena, a step budget and a depth budget; whatever a template does
 * ends in text or in an error within them. The order of reading the parts: template_lex, template_parse,
 * template_stmt (source to tree), template_eval, template_exec, template_call (tree to text),
 * template_value, template_ops, template_text, template_print, template_format (values),
 * template_filter_*, template_global, template_method_* (tables of what templates can call). */
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "model/template_int.h"

/* All line ends become \n, and one at the end is dropped. Returns the new length. */
static size_t normalize_newlines(char *text, size_t len)
{
    size_t out = 0;
    for (size_t i = 0; i < len; i++) {
        bool carriage = text[i] == '\r';
        if (carriage && i + 1 < len && text[i + 1] == '\n')
            i++;
        text[out++] = carriage ? '\n' : text[i];
    }
    return out && text[out - 1] == '\n' ? out - 1 : out;
}

static enum ph_status compile(struct chat_template *t, struct ph_err *err)
{
    struct token_stream tokens = {0};
    enum ph_status status = template_lex(t->source, &tokens, err);
    if (status == PH_OK)
        status = template_parse(t, &tokens, err);
    mem_free(tokens.items);
    return status;
}

enum ph_status chat_template_create(struct chat_template **out, const char *source, size_t len,
                                    struct ph_err *err)
{
    *out = NULL;
    if (len > TEMPLATE_BYTES_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "a chat template of %zu bytes is longer than %u", len,
                       TEMPLATE_BYTES_MAX);
    if (!utf8_valid(source, len))
        return ph_fail(err, PH_ERR_FORMAT, "the chat template is not valid UTF-8");
    struct chat_template *t = mem_calloc(1, sizeof *t);
    if (!t)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a chat template");
    arena_init(&t->arena, TEMPLATE_ARENA_BYTES_MAX);
    char *text = arena_strndup(&t->arena, source, len);
    enum ph_status status = PH_ERR_NOMEM;
    if (text) {
        t->source = (struct text){text, normalize_newlines(text, len)};
        status = compile(t, err);
    }
    if (status != PH_OK) {
        chat_template_free(t);
        return text ? status : ph_fail(err, PH_ERR_NOMEM, "no memory for a chat template");
    }
    *out = t;
    return PH_OK;
}

void chat_template_free(struct chat_template *chat_template)
{
    if (!chat_template)
        return;
    arena_release(&chat_template->arena);
    mem_free(chat_template);
}

/* Only names the template mentions are made into values. */
static void bind_globals(struct render *r, const struct json *vars)
{
    const struct name_table *names = &r->t->names;
    r->globals = render_alloc(r, (names->len + 1) * sizeof *r->globals);
    for (size_t i = 0; r->globals && i < names->len && r->status == PH_OK; i++) {
        const struct builtin *builtin = global_find(names->names[i]);
        r->globals[i] = tv_undefined;
        if (builtin)
            r->globals[i] =
                tv_callable_new(r, (struct tv_callable){.kind = CALL_BUILTIN, .builtin = builtin});
    }
    if (r->status != PH_OK)
        return;
    JSON_EACH (member, vars) {
        struct text key = {member->key, member->key_len};
        const uint32_t *name = template_name_find(names, key);
        if (name && r->status == PH_OK)
            r->globals[*name - 1] = tv_from_json(r, member);
    }
}

enum ph_status chat_template_render(const struct chat_template *chat_template, const struct json *vars,
                                    const struct clock_source *clock, struct buf *out, struct ph_err *err)
{
    struct render r = {.t = chat_template, .clock = clock ? clock : clock_system(), .err = err};
    if (!json_is(vars, JSON_OBJECT))
        return ph_fail(err, PH_ERR_ARG, "a chat template needs an object of variables");
    arena_init(&r.arena, TEMPLATE_ARENA_BYTES_MAX);
    buf_init(&r.out, TEMPLATE_OUTPUT_BYTES_MAX);
    r.scope = &r.root;
    bind_globals(&r, vars);
    exec_body(&r, chat_template->body);
    if (r.status == PH_OK && r.out.len) {
        buf_append(out, r.out.data, r.out.len);
        if (buf_status(out) != PH_OK)
            r.status = ph_fail(err, buf_status(out), "the prompt is longer than its buffer may grow");
    }
    buf_release(&r.out);
    arena_release(&r.arena);
    return r.status;
}
