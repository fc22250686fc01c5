/* What a run's course depends on, as text: what a checkpoint keeps, and what going on from it compares.
 * Lengths of the run are not among it (nor lanes, L3): a longer cosine bends from here on, as one asked. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "train/trainer_int.h"

/* So that SIZE stands for both. */
_Static_assert(sizeof(size_t) == sizeof(uint64_t), "sizes are 64 bits");

enum kind { SIZE, NUMBER, FLOAT, SWITCH, SCHEDULE };

static const struct setting {
    const char *key;
    enum kind kind;
    size_t offset; /* in struct trainer_params */
    bool shape;    /* of the model: can't change even where one adapts */
} settings[] = {
#define ROW(key_, kind_, member_, shape_)                             \
    {                                                                 \
        key_, kind_, offsetof(struct trainer_params, member_), shape_ \
    }
    ROW("d", SIZE, model.d, true),
    ROW("layers", SIZE, model.layers, true),
    ROW("heads", SIZE, model.heads, true),
    ROW("kv_heads", SIZE, model.kv_heads, true),
    ROW("head_dim", SIZE, model.head_dim, true),
    ROW("ff", SIZE, model.ff, true),
    ROW("tied", SWITCH, model.tied, true),
    ROW("vocabulary", SIZE, model.vocab, true),
    ROW("context", SIZE, model.context, false),
    ROW("rope_base", NUMBER, model.rope_base, false),
    ROW("norm_eps", FLOAT, model.norm_eps, false),
    ROW("bf16", SWITCH, model.bf16, false),
    ROW("batch", SIZE, batch, false),
    ROW("accumulate", SIZE, accumulate, false),
    ROW("time", SIZE, time, false),
    ROW("schedule", SCHEDULE, schedule, false),
    ROW("rate", NUMBER, rate, false),
    ROW("floor", NUMBER, floor, false),
    ROW("warmup", SIZE, warmup, false),
    ROW("decay", NUMBER, decay, false),
    ROW("beta1", NUMBER, beta1, false),
    ROW("beta2", NUMBER, beta2, false),
    ROW("eps", NUMBER, eps, false),
    ROW("clip", NUMBER, clip, false),
    ROW("muon", SWITCH, muon, false),
    ROW("seed", SIZE, seed, false),
#undef ROW
};
#define SETTING_COUNT (sizeof settings / sizeof *settings)

static const char *const schedule_names[] = {"cosine", "wsd", "wsd-sqrt"};

static void write_value(struct buf *out, const struct setting *s, const struct trainer_params *params)
{
    const char *at = (const char *)params + s->offset;
    switch (s->kind) {
    case SIZE:
        buf_printf(out, "%" PRIu64, *(const uint64_t *)(const void *)at);
        break;
    case NUMBER:
        buf_printf(out, "%.17g", *(const double *)(const void *)at);
        break;
    case FLOAT:
        buf_printf(out, "%.9g", (double)*(const float *)(const void *)at);
        break;
    case SWITCH:
        buf_puts(out, *(const bool *)(const void *)at ? "true" : "false");
        break;
    case SCHEDULE:
        buf_puts(out, schedule_names[*(const enum schedule_kind *)(const void *)at]);
        break;
    }
}

static void write_data(struct buf *out, const struct mix *mix)
{
    for (size_t i = 0; i < mix->count; i++)
        buf_printf(out, "data[%zu]=%016" PRIx64 " weight %.17g\n", i, mix->sources[i].identity,
                   mix->sources[i].share);
}

void settings_write(struct buf *out, const struct trainer *t)
{
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        buf_printf(out, "%s=", settings[i].key);
        write_value(out, &settings[i], &t->params);
        buf_putc(out, '\n');
    }
    buf_printf(out, "tokenizer=%016" PRIx64 "\n", t->vocab_hash);
    write_data(out, &t->mix);
}

/* ---- Comparing */

struct line {
    const char *text;
    size_t key_len, len;
};

static bool next_line(const char *text, size_t len, size_t *cursor, struct line *line)
{
    if (*cursor >= len)
        return false;
    const char *from = text + *cursor, *end = memchr(from, '\n', len - *cursor);
    line->text = from;
    line->len = end ? (size_t)(end - from) : len - *cursor;
    const char *equals = memchr(from, '=', line->len);
    line->key_len = equals ? (size_t)(equals - from) : line->len;
    *cursor += line->len + 1;
    return true;
}

static bool find_line(const char *text, size_t len, const struct line *like, struct line *found)
{
    size_t cursor = 0;
    while (next_line(text, len, &cursor, found))
        if (found->key_len == like->key_len && memcmp(found->text, like->text, like->key_len) == 0)
            return true;
    return false;
}

static bool is_shape(const struct line *line)
{
    for (size_t i = 0; i < SETTING_COUNT; i++)
        if (settings[i].shape && strlen(settings[i].key) == line->key_len &&
            memcmp(settings[i].key, line->text, line->key_len) == 0)
            return true;
    return line->key_len == 9 && memcmp(line->text, "tokenizer", 9) == 0;
}

static size_t value_at(const struct line *line)
{
    return line->key_len < line->len ? line->key_len + 1 : 0;
}

static enum ph_status fail_line(const struct line *now, const struct line *then, const char *path,
                                struct ph_err *err)
{
    size_t value = value_at(now), old = value_at(then);
    return ph_fail(
        err, PH_ERR_ARG, "%.*s is %.*s, but %s was trained with %.*s; %s", (int)now->key_len, now->text,
        (int)(now->len - value), now->text + value, path, (int)(then->len - old), then->text + old,
        is_shape(now) ? "set it back, or begin in another directory"
                      : "set it back, begin in another directory, or say --adapt to go on with it");
}

static bool is_data(const struct line *line)
{
    return line->len > 5 && memcmp(line->text, "data[", 5) == 0;
}

/* The first line of `now` that is another in `then`. A setting that the writer of `then` did not know yet had
 * no say there and is passed over; a data file is not. */
static bool differing_line(const struct buf *now, const char *then, size_t len, bool shapes_only,
                           struct line *mine, struct line *other)
{
    size_t cursor = 0;
    while (next_line(now->data, now->len, &cursor, mine)) {
        bool found = find_line(then, len, mine, other);
        if (!found)
            *other = (struct line){.text = "nothing of that name", .key_len = 20, .len = 20};
        bool same = found ? mine->len == other->len && memcmp(mine->text, other->text, mine->len) == 0
                          : !is_data(mine);
        if (!same && (!shapes_only || is_shape(mine)))
            return true;
    }
    return false;
}

static size_t count_data(const char *text, size_t len)
{
    size_t count = 0, cursor = 0;
    for (struct line line; next_line(text, len, &cursor, &line);)
        count += is_data(&line);
    return count;
}

enum ph_status settings_compare(const char *old, size_t len, const struct trainer *trainer, const char *path,
                                bool adapt, struct ph_err *err)
{
    struct buf now;
    struct line mine, other;
    buf_init(&now, SETTINGS_BYTES_MAX);
    settings_write(&now, trainer);
    enum ph_status status = buf_status(&now);
    if (status != PH_OK)
        status = ph_fail(err, status, "no memory to compare settings");
    else if (differing_line(&now, old, len, adapt, &mine, &other))
        status = fail_line(&mine, &other, path, err);
    else if (!adapt && count_data(old, len) > trainer->mix.count)
        status = ph_fail(err, PH_ERR_ARG,
                         "%s was trained on %zu data files, not %zu; give them all, begin in another "
                         "directory, or say --adapt to go on without",
                         path, count_data(old, len), trainer->mix.count);
    buf_release(&now);
    return status;
}

/* ---- Data */

static bool same_lines(const char *old, size_t len, const struct trainer *trainer,
                       bool (*matters)(const struct line *line))
{
    struct buf now;
    struct line mine, other;
    size_t cursor = 0;
    buf_init(&now, SETTINGS_BYTES_MAX);
    settings_write(&now, trainer);
    bool same = buf_status(&now) == PH_OK;
    while (same && next_line(now.data, now.len, &cursor, &mine))
        if (matters(&mine))
            same = find_line(old, len, &mine, &other) && mine.len == other.len &&
                   memcmp(mine.text, other.text, mine.len) == 0;
    buf_release(&now);
    return same;
}

static bool is_window(const struct line *line)
{
    return line->len > 5 && (memcmp(line->text, "time=", 5) == 0 || memcmp(line->text, "seed=", 5) == 0);
}

bool settings_same_windows(const char *old, size_t len, const struct trainer *trainer)
{
    return same_lines(old, len, trainer, is_window);
}

bool settings_same_mix(const char *old, size_t len, const struct trainer *trainer)
{
    return count_data(old, len) == trainer->mix.count && same_lines(old, len, trainer, is_data);
}

/* The number in a line of this key: its digits up to what is none. The text has no end but its length. */
static bool number_of(const char *text, size_t len, const char *key, unsigned base, uint64_t *out)
{
    static const char digits[] = "0123456789abcdef";
    const struct line wanted = {.text = key, .key_len = strlen(key)};
    struct line found;
    if (!find_line(text, len, &wanted, &found))
        return false;
    *out = 0;
    for (size_t i = found.key_len + 1; i < found.len; i++) {
        const char *digit = memchr(digits, found.text[i], base);
        if (!digit)
            break;
        *out = *out * base + (uint64_t)(digit - digits);
    }
    return true;
}

size_t settings_find_source(const char *old, size_t len, uint64_t identity, uint64_t taken)
{
    for (size_t i = 0; i < TRAINER_SOURCES_MAX; i++) {
        char key[32];
        uint64_t value;
        snprintf(key, sizeof key, "data[%zu]", i);
        if (number_of(old, len, key, 16, &value) && value == identity && !(taken >> i & 1))
            return i;
    }
    return SIZE_MAX;
}

uint64_t settings_begun(const char *old, size_t len, size_t source)
{
    char key[32];
    uint64_t value;
    snprintf(key, sizeof key, "begun[%zu]", source);
    return number_of(old, len, key, 10, &value) ? value : 0;
}

void settings_write_begun(struct buf *out, const struct trainer *t)
{
    for (size_t i = 0; i < t->mix.count; i++)
        if (t->mix.sources[i].begun > 0)
            buf_printf(out, "begun[%zu]=%" PRIu64 "\n", i, t->mix.sources[i].begun);
}

void settings_adopt(const char *old, size_t len, struct trainer *trainer)
{
    uint64_t warmup;
    if (trainer->chose_warmup && number_of(old, len, "warmup", 10, &warmup))
        trainer->params.warmup = warmup;
}
