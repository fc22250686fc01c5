/* Reads verdicts and judged answers back. A line that is no use is reported by number and passed over: the
 * files are written by a station that may have been killed, or by hand. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "gateway/verdict_int.h"

#define LINE_ARENA_BYTES_MAX (1u << 20)
#define LIST_FIRST 256

struct reader {
    const struct verdict_query *query;
    struct verdict_data *data;
    size_t verdict_capacity, answer_capacity;
    const char *path;
    struct ph_err *err;
};

/* What is wrong with a line; NULL: nothing. *status is set when it is no fault of the line's. */
typedef const char *line_reader(struct reader *reader, const struct json *line, enum ph_status *status);

/* Room for one more; NULL: no memory. */
static void *grow(void **list, size_t count, size_t *capacity, size_t size)
{
    if (count == *capacity) {
        size_t wanted = *capacity ? 2 * *capacity : LIST_FIRST;
        void *wider = mem_realloc(*list, wanted, size);
        if (!wider)
            return NULL;
        *list = wider;
        *capacity = wanted;
    }
    return (char *)*list + count * size;
}

/* Whether a line is of the route and the time that were asked for. */
static bool is_wanted(const struct reader *reader, const struct json *line, int64_t *at, const char **why)
{
    *why = NULL;
    if (!json_is(json_get(line, "route"), JSON_STRING))
        *why = "it names no \"route\"";
    else if (!json_to_int64(json_get(line, "at"), at))
        *why = "it has no time \"at\"";
    return !*why && json_text_is(json_get(line, "route"), reader->query->route) &&
           *at >= reader->query->since_s;
}

static const char *read_verdict(struct reader *reader, const struct json *line, enum ph_status *status)
{
    struct verdict_data *data = reader->data;
    const char *why, *id = json_text(json_get(line, "response_id"), NULL);
    double score, confidence;
    int64_t at;
    if (!is_wanted(reader, line, &at, &why))
        return why;
    if (!json_to_double(json_get(line, "score"), &score) || score < -1 || score > 1)
        return "its \"score\" is not a number from -1 to 1";
    if (!id)
        return "it names no \"response_id\"";
    if (!json_is_bool(json_get(line, "cheap")) ||
        !json_to_double(json_get(line, "confidence"), &confidence) || confidence < 0 || confidence > 1)
        return NULL; /* of an answer that was not judged */
    struct verdict *verdict = grow((void **)&data->verdicts, data->verdict_count, &reader->verdict_capacity,
                                   sizeof *data->verdicts);
    if (!verdict) {
        *status = PH_ERR_NOMEM;
        return NULL;
    }
    *verdict = (struct verdict){.confidence = confidence,
                                .quality = (score + 1) / 2,
                                .is_cheap = json_is(json_get(line, "cheap"), JSON_TRUE),
                                .id_hash = hash_text(id),
                                .order = data->verdict_count};
    data->verdict_count++;
    return NULL;
}

static const char *read_answer(struct reader *reader, const struct json *line, enum ph_status *status)
{
    struct verdict_data *data = reader->data;
    struct verdict_answer answer = {.has_dear = json_is(json_get(line, "dear"), JSON_TRUE)};
    const char *why;
    int64_t at;
    if (!is_wanted(reader, line, &at, &why))
        return why;
    if (!json_to_double(json_get(line, "confidence"), &answer.confidence) || answer.confidence > 1)
        return "its \"confidence\" is not a number up to 1";
    if (!json_to_double(json_get(line, "cheap_usd"), &answer.cheap_usd) || answer.cheap_usd < 0 ||
        !json_to_double(json_get(line, "dear_usd"), &answer.dear_usd) || answer.dear_usd < 0)
        return "its costs are not two amounts, \"cheap_usd\" and \"dear_usd\"";
    struct verdict_answer *place =
        grow((void **)&data->answers, data->answer_count, &reader->answer_capacity, sizeof *data->answers);
    if (!place) {
        *status = PH_ERR_NOMEM;
        return NULL;
    }
    *place = answer;
    if (!data->answer_count++ || at < data->first_answer_s)
        data->first_answer_s = at;
    return NULL;
}

static enum ph_status read_lines(struct reader *reader, const struct buf *text, line_reader *read)
{
    const struct verdict_query *query = reader->query;
    enum ph_status status = PH_OK;
    struct arena arena;
    size_t number = 0;
    arena_init(&arena, LINE_ARENA_BYTES_MAX);
    for (size_t at = 0, end; at < text->len && status == PH_OK; at = end + 1) {
        const char *line = text->data + at, *stop = memchr(line, '\n', text->len - at);
        struct json *value = NULL;
        struct ph_err reason;
        end = stop ? (size_t)(stop - text->data) : text->len;
        number++;
        if (end == at)
            continue;
        const char *why = NULL;
        if (json_parse(&arena, line, end - at, &value, &reason) != PH_OK)
            why = reason.message;
        else
            why = json_is(value, JSON_OBJECT) ? read(reader, value, &status) : "it is no JSON object";
        if (why && query->damaged)
            query->damaged(query->ud, reader->path, number, why);
        arena_clear(&arena);
    }
    arena_release(&arena);
    return status == PH_OK ? PH_OK : ph_fail(reader->err, status, "no memory for %s", reader->path);
}

/* The older half, then the newer one. */
static enum ph_status read_file(struct reader *reader, const char *name, size_t bytes_max, line_reader *read)
{
    static const char *const suffixes[] = {".1", ""};
    enum ph_status status = PH_OK;
    for (int i = 0; i < 2 && status == PH_OK; i++) {
        char path[PATH_BYTES_MAX];
        struct buf text;
        int len = snprintf(path, sizeof path, "%s/%s%s", reader->query->dir, name, suffixes[i]);
        if (len < 0 || (size_t)len >= sizeof path)
            return ph_fail(reader->err, PH_ERR_LIMIT, "the name of the data directory is too long");
        if (!file_exists(path))
            continue;
        buf_init(&text, bytes_max);
        reader->path = path;
        status = file_read(path, &text, reader->err);
        if (status == PH_OK)
            status = read_lines(reader, &text, read);
        buf_release(&text);
    }
    return status;
}

/* ---- Order */

static int compare_ids(const void *a, const void *b)
{
    const struct verdict *x = a, *y = b;
    if (x->id_hash != y->id_hash)
        return x->id_hash < y->id_hash ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

static int compare_verdicts(const void *a, const void *b)
{
    const struct verdict *x = a, *y = b;
    if (x->confidence != y->confidence)
        return x->confidence < y->confidence ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

static int compare_answers(const void *a, const void *b)
{
    const struct verdict_answer *x = a, *y = b;
    return (x->confidence > y->confidence) - (x->confidence < y->confidence);
}

static void put_in_order(struct verdict_data *data)
{
    size_t kept = 0;
    if (data->verdict_count)
        qsort(data->verdicts, data->verdict_count, sizeof *data->verdicts, compare_ids);
    for (size_t i = 0; i < data->verdict_count; i++) {
        bool is_last =
            i + 1 == data->verdict_count || data->verdicts[i].id_hash != data->verdicts[i + 1].id_hash;
        if (is_last)
            data->verdicts[kept++] = data->verdicts[i];
    }
    data->verdict_count = kept;
    for (size_t i = 0; i < kept; i++)
        data->cheap_count += data->verdicts[i].is_cheap;
    if (kept)
        qsort(data->verdicts, kept, sizeof *data->verdicts, compare_verdicts);
    if (data->answer_count)
        qsort(data->answers, data->answer_count, sizeof *data->answers, compare_answers);
}

enum ph_status verdict_data_read(struct verdict_data *data, const struct verdict_query *query,
                                 struct ph_err *err)
{
    struct reader reader = {.query = query, .data = data, .err = err};
    *data = (struct verdict_data){.verdict_count = 0};
    enum ph_status status = read_file(&reader, VERDICTS_FILE, VERDICTS_READ_BYTES_MAX, read_verdict);
    if (status == PH_OK)
        status = read_file(&reader, CASCADE_FILE, VERDICTS_READ_BYTES_MAX, read_answer);
    put_in_order(data);
    return status;
}

void verdict_data_release(struct verdict_data *data)
{
    mem_free(data->verdicts);
    mem_free(data->answers);
    *data = (struct verdict_data){.verdict_count = 0};
}
