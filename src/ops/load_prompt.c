/* Prompts: lines of a file, or made of words. The words are common and short, which most vocabularies have as
 * one token each; load_calibrate finds out what they really cost. Made prompts differ from each other, so
 * that no prefix cache answers for the model unless somebody wants that. */
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "ops/load_int.h"

#define GOLDEN 0x9E3779B97F4A7C15u
#define WORD_COUNT (sizeof words / sizeof *words)

static const char *const words[] = {
    "time",    "year",   "people",  "way",    "day",     "man",     "thing",   "woman",  "life",    "child",
    "world",   "school", "state",   "family", "student", "group",   "country", "hand",   "part",    "place",
    "case",    "week",   "company", "system", "program", "work",    "night",   "point",  "home",    "water",
    "room",    "mother", "area",    "money",  "story",   "fact",    "month",   "lot",    "right",   "study",
    "book",    "eye",    "job",     "word",   "side",    "kind",    "head",    "house",  "service", "friend",
    "father",  "power",  "hour",    "game",   "line",    "end",     "member",  "law",    "car",     "city",
    "name",    "team",   "minute",  "idea",   "body",    "back",    "parent",  "face",   "others",  "level",
    "office",  "door",   "health",  "person", "art",     "war",     "history", "party",  "result",  "change",
    "morning", "reason", "girl",    "moment", "air",     "teacher", "force",   "foot",   "boy",     "age",
    "policy",  "music",  "market",  "sense",  "nation",  "plan",    "college", "death",  "road",    "land",
    "rock",    "field",  "light",   "voice",  "paper",   "space",   "ground",  "form",   "event",   "matter",
    "center",  "table",  "court",   "arm",    "oil",     "half",    "fire",    "future", "wall",    "bank",
    "west",    "sport",  "board",   "rate",   "street",  "trade",   "deal",    "order",  "son",     "window",
    "north",   "blood",  "the",     "and",    "of",      "to",      "in",      "is",     "was",     "for",
    "with",    "on",     "at",      "from",   "into",    "over",    "after",   "under",  "between", "before",
    "without", "about",  "near",    "through"};

void load_prompt_words(const struct load_prompts *prompts, uint64_t seed, uint64_t index, size_t tokens,
                       struct buf *out)
{
    struct rng rng;
    double per_word = prompts->tokens_per_word > 0 ? prompts->tokens_per_word : 1;
    double wanted = ((double)tokens - prompts->tokens_around) / per_word;
    size_t count = wanted < 1 ? 1 : (size_t)(wanted + 0.5);
    rng_init(&rng, seed ^ (GOLDEN * (index + 1)));
    for (size_t i = 0; i < count; i++) {
        if (i)
            buf_putc(out, ' ');
        buf_puts(out, words[rng_u64(&rng) % WORD_COUNT]);
    }
}

/* ---- Lines */

static bool is_blank(const char *line, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
            return false;
    return true;
}

/* The content of a message as text: a string, or parts of which some are text. */
static void put_content(struct buf *out, const struct json *content)
{
    if (json_is(content, JSON_STRING))
        buf_append(out, content->u.str.text, content->u.str.len);
    JSON_EACH (part, json_is(content, JSON_ARRAY) ? content : NULL)
        buf_puts(out, json_text(json_get(part, "text"), ""));
}

static const char *kept(struct arena *arena, struct buf *text)
{
    const char *copy =
        buf_status(text) == PH_OK ? arena_strndup(arena, text->data ? text->data : "", text->len) : NULL;
    buf_release(text);
    return copy;
}

/* Messages as they came; and their text, for an API that takes no messages. */
static enum ph_status take_messages(struct arena *arena, const struct json *messages, struct load_prompt *out,
                                    struct ph_err *err)
{
    struct buf text;
    if (!json_count(messages))
        return ph_fail(err, PH_ERR_FORMAT, "\"messages\" has no message");
    JSON_EACH (message, messages)
        if (!json_is(message, JSON_OBJECT) || !json_is(json_get(message, "role"), JSON_STRING))
            return ph_fail(err, PH_ERR_FORMAT, "a message is an object with \"role\" and \"content\"");
    buf_init(&text, LOAD_BODY_BYTES_MAX);
    json_write(&text, messages);
    out->messages = kept(arena, &text);
    buf_init(&text, LOAD_BODY_BYTES_MAX);
    JSON_EACH (message, messages) {
        if (text.len)
            buf_putc(&text, '\n');
        put_content(&text, json_get(message, "content"));
    }
    out->text = kept(arena, &text);
    return out->messages && out->text ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "a prompt is too long");
}

static enum ph_status take_json(struct arena *arena, const struct json *value, struct load_prompt *out,
                                struct ph_err *err)
{
    int64_t most = 0;
    if (json_is(value, JSON_OBJECT) && json_to_int64(json_get(value, "max_tokens"), &most) && most > 0)
        out->max_tokens = most < LOAD_TOKENS_MAX ? (size_t)most : LOAD_TOKENS_MAX;
    const struct json *messages = json_is(value, JSON_OBJECT) ? json_get(value, "messages") : value;
    if (json_is(messages, JSON_ARRAY))
        return take_messages(arena, messages, out, err);
    const struct json *text = json_is(value, JSON_STRING) ? value : json_get(value, "prompt");
    if (!json_is(text, JSON_STRING))
        return ph_fail(err, PH_ERR_FORMAT,
                       "neither \"messages\" nor \"prompt\": write {\"prompt\": \"...\"}, or plain text");
    out->text = arena_strndup(arena, text->u.str.text, strlen(text->u.str.text));
    return out->text ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "out of memory");
}

enum ph_status load_prompt_parse(struct arena *arena, const char *line, size_t len, struct load_prompt *out,
                                 struct ph_err *err)
{
    *out = (struct load_prompt){0};
    if (is_blank(line, len))
        return ph_fail(err, PH_ERR_NOTFOUND, "an empty line");
    size_t skip = strspn(line, " \t");
    if (skip < len && (line[skip] == '{' || line[skip] == '[' || line[skip] == '"')) {
        struct json *value;
        enum ph_status status = json_parse(arena, line, len, &value, err);
        return status == PH_OK ? take_json(arena, value, out, err) : status;
    }
    while (len && line[len - 1] == '\r')
        len--;
    if (!utf8_valid(line, len) || memchr(line, 0, len))
        return ph_fail(err, PH_ERR_FORMAT, "text that is not UTF-8");
    out->text = arena_strndup(arena, line, len);
    return out->text ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "out of memory");
}

enum ph_status load_lines_read(struct arena *arena, const char *path, size_t item_bytes,
                               enum ph_status (*parse)(struct arena *arena, const char *line, size_t len,
                                                       void *item, struct ph_err *err),
                               void **items, size_t *count, struct ph_err *err)
{
    struct buf text, found;
    struct ph_err why;
    buf_init(&text, LOAD_FILE_BYTES_MAX);
    buf_init(&found, LOAD_FILE_BYTES_MAX);
    char *item = arena_calloc(arena, 1, item_bytes);
    enum ph_status status = item ? file_read(path, &text, err) : ph_fail(err, PH_ERR_NOMEM, "out of memory");
    *count = 0;
    for (size_t at = 0, number = 1, len; status == PH_OK && at < text.len; at += len + 1, number++) {
        const char *end = memchr(text.data + at, '\n', text.len - at);
        len = end ? (size_t)(end - text.data) - at : text.len - at;
        text.data[at + len] = 0; /* a line is terminated, for who looks beyond it */
        enum ph_status parsed = parse(arena, text.data + at, len, item, &why);
        if (parsed == PH_ERR_NOTFOUND)
            continue;
        if (parsed != PH_OK)
            status = ph_fail(err, parsed, "%s line %zu: %s", path, number, why.message);
        buf_append(&found, item, item_bytes);
        (*count)++;
    }
    if (status == PH_OK && buf_status(&found) != PH_OK)
        status = ph_fail(err, PH_ERR_LIMIT, "%s has too many lines", path);
    if (status == PH_OK && !*count)
        status = ph_fail(err, PH_ERR_FORMAT, "%s has no line to send", path);
    *items = status == PH_OK ? arena_alloc(arena, found.len) : NULL;
    if (*items)
        memcpy(*items, found.data, found.len);
    else if (status == PH_OK)
        status = ph_fail(err, PH_ERR_NOMEM, "%s: no memory for %zu lines", path, *count);
    buf_release(&text);
    buf_release(&found);
    return status;
}

static enum ph_status parse_line(struct arena *arena, const char *line, size_t len, void *item,
                                 struct ph_err *err)
{
    return load_prompt_parse(arena, line, len, item, err);
}

enum ph_status load_prompts_read(struct arena *arena, const char *path, struct load_prompts *out,
                                 struct ph_err *err)
{
    void *items;
    enum ph_status status =
        load_lines_read(arena, path, sizeof(struct load_prompt), parse_line, &items, &out->count, err);
    out->items = items;
    return status;
}
