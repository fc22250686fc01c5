/* Messages in the form that chat templates expect.
 *
 * Templates are written against the JSON that their authors tried: content is text, a member is there or it
 * is not (`'tool_calls' in message` is how many tell a call from an answer, so a null must not be there), and
 * tool-call arguments are objects to be walked. Unknown members stay, because a template may know them. */
#include <string.h>

#include "chat/chat.h"

static bool is_empty_member(const struct json *value)
{
    return json_is_absent(value) || (json_is(value, JSON_ARRAY) && json_count(value) == 0);
}

static const char *role_name(enum chat_role role, bool keep_developer)
{
    static const char *const names[] = {"system", "developer", "user", "assistant", "tool"};
    return names[role == CHAT_DEVELOPER && !keep_developer ? CHAT_SYSTEM : role];
}

static struct json *content_of(struct arena *arena, const struct chat_message *message)
{
    if (message->content.text)
        return json_new_string(arena, message->content.text, message->content.len);
    /* A message that only calls tools has no content, and templates ask whether it is none. */
    return message->tool_call_count ? json_new(arena, JSON_NULL) : json_new_string(arena, "", 0);
}

static struct json *arguments_of(struct arena *arena, struct chat_text text)
{
    struct json *object;
    if (json_parse(arena, text.text, text.len, &object, NULL) == PH_OK && json_is(object, JSON_OBJECT))
        return object;
    return json_new_string(arena, text.text, text.len);
}

static struct json *calls_of(struct arena *arena, const struct chat_message *message)
{
    struct json *list = json_new(arena, JSON_ARRAY);
    for (size_t i = 0; i < message->tool_call_count && list; i++) {
        const struct chat_tool_call *call = &message->tool_calls[i];
        struct json *function = json_new(arena, JSON_OBJECT), *item = json_new(arena, JSON_OBJECT);
        bool ok =
            json_set(arena, function, "name", json_new_string(arena, call->name, strlen(call->name))) &&
            json_set(arena, function, "arguments", arguments_of(arena, call->arguments)) &&
            (!call->id || json_set(arena, item, "id", json_new_string(arena, call->id, strlen(call->id)))) &&
            json_set(arena, item, "type", json_new_string(arena, "function", 8)) &&
            json_set(arena, item, "function", function) && json_push(list, item);
        if (!ok)
            return NULL;
    }
    return list;
}

static struct json *message_of(struct arena *arena, const struct chat_message *message, bool keep_developer)
{
    const char *role = role_name(message->role, keep_developer);
    struct json *object = json_new(arena, JSON_OBJECT);
    bool ok = json_set(arena, object, "role", json_new_string(arena, role, strlen(role))) &&
              json_set(arena, object, "content", content_of(arena, message));
    if (message->tool_call_count)
        ok = ok && json_set(arena, object, "tool_calls", calls_of(arena, message));
    JSON_EACH (member, message->raw) {
        if (!is_empty_member(member) && !json_get(object, member->key))
            ok = ok && json_set(arena, object, member->key, json_copy(arena, member));
    }
    return ok ? object : NULL;
}

struct json *chat_template_messages(struct arena *arena, const struct chat_request *request,
                                    bool keep_developer)
{
    struct json *list = json_new(arena, JSON_ARRAY);
    for (size_t i = 0; i < request->message_count && list; i++)
        if (!json_push(list, message_of(arena, &request->messages[i], keep_developer)))
            return NULL;
    return list;
}
