/* Tools of OpenAI's Responses API into the shape of its chats, which is the house's.
 *
 * A function's members lie flat beside its type there, one level deeper here. Tools that OpenAI's own servers
 * run (web search, code, computers) have nobody to run them here: they are refused by name, because a model
 * that is silently not given a tool answers without it. */
#include <string.h>

#include "chat/decode_int.h"
#include "chat/responses_int.h"

static struct json *text_json(struct decoder *d, const char *text)
{
    return json_new_string(d->arena, text, strlen(text));
}

/* {"type": kind, kind: {the named members of `flat`}}; NULL: out of memory. */
static struct json *nest(struct decoder *d, const char *kind, const struct json *flat,
                         const char *const *names, size_t count)
{
    struct json *outer = json_new(d->arena, JSON_OBJECT), *inner = json_new(d->arena, JSON_OBJECT);
    for (size_t i = 0; i < count && inner; i++) {
        const struct json *value = json_get(flat, names[i]);
        if (!json_is_absent(value) && !json_set(d->arena, inner, names[i], json_copy(d->arena, value)))
            return NULL;
    }
    bool ok = json_set(d->arena, outer, "type", text_json(d, kind)) && json_set(d->arena, outer, kind, inner);
    return ok ? outer : NULL;
}

/* Clients written for chats send tools in that shape here too. */
static const struct json *flat_of(const struct json *tool)
{
    const struct json *inside = json_get(tool, json_text(json_get(tool, "type"), "function"));
    return json_is(inside, JSON_OBJECT) ? inside : tool;
}

/* A tool that is called with free text instead of JSON. */
static bool is_custom(const struct json *tool)
{
    return json_text_is(json_get(tool, "type"), "custom");
}

/* A grammar's members lie flat beside its type there, one level deeper here too. */
static struct json *nest_custom(struct decoder *d, const struct json *flat)
{
    static const char *const members[] = {"name", "description"}, *const grammar[] = {"syntax", "definition"};
    struct json *tool = nest(d, "custom", flat, members, 2);
    const struct json *format = json_get(flat, "format");
    if (!tool || json_is_absent(format))
        return tool;
    bool flat_grammar = json_text_is(json_get(format, "type"), "grammar") && !json_get(format, "grammar");
    struct json *copy = flat_grammar ? nest(d, "grammar", format, grammar, 2) : json_copy(d->arena, format);
    struct json *inside = json_copy(d->arena, json_get(tool, "custom"));
    bool ok = json_set(d->arena, inside, "format", copy) && json_set(d->arena, tool, "custom", inside);
    return ok ? tool : NULL;
}

static struct json *nest_tool(struct decoder *d, const struct json *tool)
{
    static const char *const members[] = {"name", "description", "parameters", "strict"};
    return is_custom(tool) ? nest_custom(d, flat_of(tool)) : nest(d, "function", flat_of(tool), members, 4);
}

static enum ph_status check_tool(struct decoder *d, const struct json *tool, size_t index)
{
    const struct json *type = json_get(tool, "type"), *name = json_get(flat_of(tool), "name");
    const struct json *parameters = json_get(flat_of(tool), "parameters");
    if (!json_is(tool, JSON_OBJECT))
        return DECODE_REFUSE(d, decode_path(d, "tools[%zu]", index), "tools[%zu] must be an object, not %s",
                             index, decode_type_name(tool));
    if (!json_text_is(type, "function") && !is_custom(tool))
        return decode_unable(d, decode_path(d, "tools[%zu].type", index),
                             "tools[%zu] is the built-in tool \"%.40s\", which runs at OpenAI only: leave it "
                             "out, or give a function tool",
                             index, json_text(type, "?"));
    if (!json_is(name, JSON_STRING) || name->u.str.len == 0)
        return DECODE_REFUSE(d, decode_path(d, "tools[%zu].name", index), "tools[%zu].name is missing",
                             index);
    if (!json_is_absent(parameters) && !json_is(parameters, JSON_OBJECT))
        return DECODE_REFUSE(d, decode_path(d, "tools[%zu].parameters", index),
                             "tools[%zu].parameters must be an object, not %s", index,
                             decode_type_name(parameters));
    return PH_OK;
}

/* Is the tool among those of {"type": "allowed_tools", "tools": [{"type", "name"}]}? NULL allows all. */
static bool is_allowed(const struct json *allowed, const struct json *tool)
{
    JSON_EACH (item, allowed) {
        if (json_equal(json_get(flat_of(item), "name"), json_get(flat_of(tool), "name")))
            return true;
    }
    return !allowed;
}

static enum ph_status take_tools(struct decoder *d, const struct json *tools, const struct json *allowed)
{
    struct json *list = json_new(d->arena, JSON_ARRAY);
    size_t index = 0;
    JSON_EACH (tool, tools) {
        enum ph_status status = check_tool(d, tool, index++);
        if (status != PH_OK)
            return status;
        if (is_allowed(allowed, tool) && !json_push(list, nest_tool(d, tool)))
            return decode_no_memory(d);
    }
    if (!list)
        return decode_no_memory(d);
    if (json_count(list))
        d->out->tools = list;
    return PH_OK;
}

static bool is_choice_word(const struct json *choice)
{
    return json_text_is(choice, "none") || json_text_is(choice, "auto") || json_text_is(choice, "required");
}

/* A choice that is an object: a function, or several that are allowed. */
static enum ph_status take_choice_object(struct decoder *d, const struct json *choice,
                                         const struct json **allowed)
{
    static const char *const members[] = {"name"};
    const struct json *type = json_get(choice, "type");
    if (json_text_is(type, "allowed_tools")) {
        const struct json *mode = json_get(choice, "mode");
        *allowed = json_get(choice, "tools");
        if (!json_is(*allowed, JSON_ARRAY) || json_count(*allowed) == 0)
            return DECODE_REFUSE(d, "tool_choice.tools", "tool_choice.tools must be an array of tools");
        if (!json_is_absent(mode) && !is_choice_word(mode))
            return DECODE_REFUSE(d, "tool_choice.mode", "tool_choice.mode must be auto or required");
        d->out->tool_choice = json_is_absent(mode) ? NULL : mode;
        return PH_OK;
    }
    if (!json_text_is(type, "function") && !is_custom(choice))
        return decode_unable(d, "tool_choice.type",
                             "tool_choice asks for the built-in tool \"%.40s\", which runs at OpenAI only",
                             json_text(type, "?"));
    if (!json_is(json_get(flat_of(choice), "name"), JSON_STRING))
        return DECODE_REFUSE(d, "tool_choice.name", "tool_choice.name is missing");
    d->out->tool_choice = nest(d, type->u.str.text, flat_of(choice), members, 1);
    return d->out->tool_choice ? PH_OK : decode_no_memory(d);
}

enum ph_status responses_decode_tools(struct decoder *d)
{
    const struct json *tools = json_get(d->body, "tools"), *choice = json_get(d->body, "tool_choice");
    const struct json *allowed = NULL;
    enum ph_status status = PH_OK;
    if (!json_is_absent(tools) && !json_is(tools, JSON_ARRAY))
        return DECODE_REFUSE(d, "tools", "tools must be an array, not %s", decode_type_name(tools));
    if (is_choice_word(choice))
        d->out->tool_choice = choice;
    else if (json_is(choice, JSON_OBJECT))
        status = take_choice_object(d, choice, &allowed);
    else if (!json_is_absent(choice))
        return DECODE_REFUSE(d, "tool_choice", "tool_choice must be none, auto, required or an object");
    if (status == PH_OK)
        status = take_tools(d, tools, allowed);
    if (json_text_is(d->out->tool_choice, "none"))
        d->out->tools = NULL;
    return status;
}
