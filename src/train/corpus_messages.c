/* The forms in which people keep conversations, all made into one: a list of {"role", "content"}.
 *
 * A form is a row of a table. Who speaks goes by the names of roles that are about; in "turns", as dialogue
 * research writes them, the system is who answers, elsewhere it is who sets the frame. A name that no row
 * knows stays as it is: templates have the last word on roles. */
#include "base/json.h"
#include "train/corpus_int.h"

/* A list of turns. */
static const struct list_form {
    const char *list, *who, *what;
    bool system_answers;
} list_forms[] = {
    {"messages", "role", "content", false},      {"conversations", "from", "value", false},
    {"conversations", "role", "content", false}, {"turns", "speaker", "text", true},
    {"dialog", "speaker", "text", true},
};

/* A question and its answer; `more` follows the question where it is there. */
static const struct pair_form {
    const char *question, *more, *answer;
} pair_forms[] = {
    {"instruction", "input", "output"}, {"prompt", NULL, "completion"},    {"prompt", NULL, "response"},
    {"question", NULL, "answer"},       {"instruction", NULL, "response"},
};

static const struct {
    const char *name, *role;
} roles[] = {{"human", "user"}, {"gpt", "assistant"}, {"bot", "assistant"}, {"model", "assistant"}};

static const char *role_of(const struct list_form *form, const char *who)
{
    if (form->system_answers && strcmp(who, "system") == 0)
        return "assistant";
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strcmp(who, roles[i].name) == 0)
            return roles[i].role;
    return who;
}

/* What else a turn has (a name, calls of tools) is the template's to use. */
static struct json *say(struct arena *arena, struct json *messages, const struct json *turn, const char *role,
                        const char *text, size_t len)
{
    bool object = json_is(turn, JSON_OBJECT);
    struct json *message =
        json_push(messages, object ? json_copy(arena, turn) : json_new(arena, JSON_OBJECT));
    json_set(arena, message, "role", json_new_string(arena, role, strlen(role)));
    return json_set(arena, message, "content", json_new_string(arena, text, len));
}

/* ---- Lists */

/* A turn is an object, or the two texts of it in a list. */
static bool turn_parts(const struct list_form *form, const struct json *turn, const struct json **who,
                       const struct json **what)
{
    bool bare = json_is(turn, JSON_ARRAY) && json_count(turn) == 2;
    *who = bare ? json_at(turn, 0) : json_get(turn, form->who);
    *what = bare ? json_at(turn, 1) : json_get(turn, form->what);
    return json_is(*who, JSON_STRING) && json_is(*what, JSON_STRING);
}

static const struct list_form *find_list(const struct json *object)
{
    const struct list_form *found = NULL;
    for (size_t i = 0; i < sizeof list_forms / sizeof *list_forms; i++) {
        const struct list_form *form = &list_forms[i];
        const struct json *list = json_get(object, form->list), *who, *what;
        if (!json_is_absent(list) && (!found || turn_parts(form, json_at(list, 0), &who, &what)))
            found = form;
    }
    return found;
}

static enum ph_status read_list(struct arena *arena, const struct list_form *form, const struct json *list,
                                struct json *messages, struct ph_err *err)
{
    const struct json *who, *what;
    size_t number = 1;
    if (!json_is(list, JSON_ARRAY) || json_count(list) == 0)
        return ph_fail(err, PH_ERR_FORMAT, "\"%s\" must be a list with at least one turn", form->list);
    JSON_EACH (turn, list) {
        if (!turn_parts(form, turn, &who, &what))
            return ph_fail(err, PH_ERR_FORMAT, "\"%s\": turn %zu needs the texts \"%s\" and \"%s\"",
                           form->list, number, form->who, form->what);
        const char *role = role_of(form, json_text(who, ""));
        if (!say(arena, messages, turn, role, what->u.str.text, what->u.str.len))
            return ph_fail(err, PH_ERR_NOMEM, "no memory for the conversation");
        number++;
    }
    return PH_OK;
}

/* ---- Pairs */

static const struct pair_form *find_pair(const struct json *object)
{
    for (size_t i = 0; i < sizeof pair_forms / sizeof *pair_forms; i++)
        if (json_is(json_get(object, pair_forms[i].question), JSON_STRING) &&
            json_is(json_get(object, pair_forms[i].answer), JSON_STRING))
            return &pair_forms[i];
    return NULL;
}

static enum ph_status read_pair(struct arena *arena, const struct pair_form *form, const struct json *object,
                                struct json *messages, struct ph_err *err)
{
    const struct json *question = json_get(object, form->question), *answer = json_get(object, form->answer);
    const struct json *more = form->more ? json_get(object, form->more) : NULL;
    struct buf asked;
    buf_init(&asked, SIZE_MAX);
    buf_append(&asked, question->u.str.text, question->u.str.len);
    if (json_is(more, JSON_STRING) && more->u.str.len > 0) {
        buf_puts(&asked, "\n\n");
        buf_append(&asked, more->u.str.text, more->u.str.len);
    }
    bool said = buf_status(&asked) == PH_OK &&
                say(arena, messages, NULL, "user", asked.data ? asked.data : "", asked.len) &&
                say(arena, messages, NULL, "assistant", answer->u.str.text, answer->u.str.len);
    buf_release(&asked);
    return said ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory for the conversation");
}

enum ph_status corpus_messages(struct arena *arena, const struct json *object, const struct json **out,
                               struct ph_err *err)
{
    const struct list_form *list = find_list(object);
    const struct pair_form *pair = list ? NULL : find_pair(object);
    struct json *messages = json_new(arena, JSON_ARRAY);
    *out = NULL;
    if (!messages)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the conversation");
    if (!list && !pair)
        return PH_OK;
    enum ph_status status = list ? read_list(arena, list, json_get(object, list->list), messages, err)
                                 : read_pair(arena, pair, object, messages, err);
    if (status == PH_OK)
        *out = messages;
    return status;
}
