/* Cases for training and measuring, one a line. */
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "memory/spt.h"

#define CASE_BYTES_MAX (64u << 20)
#define CASE_FILE_BYTES_MAX (2048u << 20)

struct reading {
    const char *path;
    size_t line;
    struct arena arena;
    struct ph_err *err;
};

static enum ph_status wrong(const struct reading *r, const char *what)
{
    return ph_fail(r->err, PH_ERR_FORMAT, "%s:%zu: %s", r->path, r->line, what);
}

static enum ph_status read_message(struct reading *r, const struct json *from, size_t at,
                                   struct index_turn *to)
{
    const struct json *content = json_get(from, "content");
    if (!json_is(content, JSON_STRING))
        return wrong(r, "a message has no text in \"content\"");
    *to = (struct index_turn){.message = (int64_t)at + 1,
                              .conversation = 1,
                              .role = json_text(json_get(from, "role"), "user"),
                              .name = json_text(json_get(from, "name"), NULL),
                              .text = content->u.str.text,
                              .text_len = content->u.str.len};
    json_to_int64(json_get(from, "created_at"), &to->created_at);
    to->tokens = memory_token_estimate(to->name ? to->name : to->role, to->text_len);
    return PH_OK;
}

static bool read_place(const struct json *value, uint32_t max, uint32_t *out)
{
    int64_t number;
    if (!json_to_int64(value, &number) || number < 0 || number > max)
        return false;
    *out = (uint32_t)number;
    return true;
}

static enum ph_status read_places(struct reading *r, const struct json *list, uint32_t messages,
                                  struct spt_question *to)
{
    if (!json_is(list, JSON_ARRAY))
        return wrong(r, "a question needs a list of messages in \"evidence\", a context one in \"items\"");
    uint32_t *places = arena_calloc(&r->arena, json_count(list) + 1, sizeof *places);
    if (!places)
        return ph_fail(r->err, PH_ERR_NOMEM, "out of memory");
    to->evidence = places;
    to->evidence_count = json_count(list);
    JSON_EACH (one, list)
        if (!read_place(one, messages - 1, places++))
            return wrong(r, "\"evidence\" or \"items\" names a message that is not there");
    return PH_OK;
}

static float read_quality(const struct json *from)
{
    double quality = 1;
    json_to_double(json_get(from, "quality"), &quality);
    return (float)(quality < 0 ? 0 : quality > 1 ? 1 : quality);
}

/* As many questions as it has contexts, or one. */
static size_t count_questions(const struct json *question)
{
    size_t contexts = json_count(json_get(question, "contexts"));
    return contexts ? contexts : 1;
}

static enum ph_status read_question(struct reading *r, const struct json *from, uint32_t messages,
                                    struct spt_question *to)
{
    const struct json *query = json_get(from, "query"), *contexts = json_get(from, "contexts");
    if (!json_is(query, JSON_STRING))
        return wrong(r, "a question needs a text in \"query\"");
    struct spt_question question = {.query = query->u.str.text,
                                    .query_len = query->u.str.len,
                                    .name = json_text(json_get(from, "name"), NULL),
                                    .kind = json_text(json_get(from, "kind"), ""),
                                    .before = messages,
                                    .quality = read_quality(from)};
    if (json_get(from, "before") && !read_place(json_get(from, "before"), messages, &question.before))
        return wrong(r, "\"before\" is not the place of a message");
    if (json_get(from, "after") && !read_place(json_get(from, "after"), messages, &question.after))
        return wrong(r, "\"after\" is not the place of a message");
    if (!json_count(contexts)) {
        *to = question;
        return read_places(r, json_get(from, "evidence"), messages, to);
    }
    JSON_EACH (context, contexts) {
        *to = question;
        to->quality = read_quality(context);
        enum ph_status status = read_places(r, json_get(context, "items"), messages, to++);
        if (status)
            return status;
    }
    return PH_OK;
}

static enum ph_status read_case(struct reading *r, const struct json *root, struct spt_case *one)
{
    const struct json *messages = json_get(root, "messages"), *questions = json_get(root, "questions");
    if (!json_is(messages, JSON_ARRAY) || !json_count(messages))
        return wrong(r, "a case needs \"messages\"");
    *one = (struct spt_case){.id = json_text(json_get(root, "id"), ""),
                             .source = json_text(json_get(root, "source"), ""),
                             .message_count = json_count(messages)};
    JSON_EACH (question, questions)
        one->question_count += count_questions(question);
    one->messages = arena_calloc(&r->arena, one->message_count, sizeof *one->messages);
    one->questions = arena_calloc(&r->arena, one->question_count + 1, sizeof *one->questions);
    if (!one->messages || !one->questions)
        return ph_fail(r->err, PH_ERR_NOMEM, "out of memory");
    enum ph_status status = PH_OK;
    size_t at = 0;
    JSON_EACH (message, messages) {
        status = read_message(r, message, at, &one->messages[at]);
        if (status)
            return status;
        at++;
    }
    at = 0;
    JSON_EACH (question, questions) {
        status = read_question(r, question, (uint32_t)one->message_count, &one->questions[at]);
        if (status)
            return status;
        at += count_questions(question);
    }
    return PH_OK;
}

enum ph_status spt_cases_read(const char *path, enum ph_status (*each)(void *ud, const struct spt_case *one),
                              void *ud, struct ph_err *err)
{
    struct file_map map;
    enum ph_status status = file_map_open(&map, path, err);
    if (status)
        return status;
    struct reading r = {.path = path, .err = err};
    arena_init(&r.arena, CASE_FILE_BYTES_MAX);
    for (size_t at = 0; at < map.len && !status;) {
        const char *line = (const char *)map.data + at;
        const char *end = memchr(line, '\n', map.len - at);
        size_t len = end ? (size_t)(end - line) : map.len - at;
        at += len + 1;
        r.line++;
        if (!len)
            continue;
        struct json *root;
        struct spt_case one;
        struct ph_err why;
        arena_clear(&r.arena);
        if (len > CASE_BYTES_MAX)
            status = wrong(&r, "the line is too long");
        else if (json_parse(&r.arena, line, len, &root, &why))
            status = wrong(&r, why.message);
        else
            status = read_case(&r, root, &one);
        if (!status)
            status = each(ud, &one);
    }
    arena_release(&r.arena);
    file_map_release(&map);
    return status;
}

enum ph_status spt_case_index(const struct spt_case *one, const struct index_params *params,
                              struct memory_index **out, struct ph_err *err)
{
    enum ph_status status = memory_index_create(out, params, err);
    if (status)
        return status;
    for (size_t i = 0; i < one->message_count && !status; i++)
        status = memory_index_add(*out, &one->messages[i]);
    if (!status)
        return PH_OK;
    memory_index_free(*out);
    *out = NULL;
    return ph_fail(err, status, "out of memory for an index of %zu messages", one->message_count);
}
