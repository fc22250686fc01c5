/* Learning: a run of several formats took q times as long as predicted; whose fault was it? Each format is
 * blamed by its share s of the predicted time: its ratio is multiplied by q^(w s / sum of s^2). With one
 * format alone that is the exponential average of the logarithm of measured over perfect time; with w = 1 the
 * run would now be predicted as it was, to first order (Kaczmarz 1937; as normalised least mean squares).
 * w begins at 1 and falls to WEIGHT_MIN, so that the first samples count alike and old ones fade. Only
 * formats with SHARE_MIN of the time are blamed, and summed over: what is less was hardly measured. */
#include "ops/efficiency.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"

#define WEIGHT_MIN 0.2
#define SHARE_MIN 0.25 /* of the time; what has less of it is not to blame, and keeps what it has */
#define RATIO_MIN 0.05
#define RATIO_MAX 1000.0
#define STEP_MAX 0.7 /* one run moves no logarithm further: a factor of two */
#define FILE_BYTES_MAX ((size_t)1 << 20)
#define ARENA_BYTES_MAX ((size_t)8 << 20)
#define FILE_VERSION 2 /* 1: decode was held against bandwidth alone */
#define SAMPLES_MAX 1000000000000

const char *const efficiency_phase_names[] = {"decode", "prefill", NULL};

void efficiency_device(const struct machine *machine, unsigned threads, char out[EFFICIENCY_DEVICE_BYTES])
{
    snprintf(out, EFFICIENCY_DEVICE_BYTES, "%s, %s, %u threads", machine->cpu, machine->isa, threads);
}

static struct efficiency_row *find(const struct efficiency *c, const char *device, const char *type,
                                   enum efficiency_phase phase)
{
    for (size_t i = 0; i < c->count; i++) {
        const struct efficiency_row *row = &c->rows[i];
        if (row->phase == phase && strcmp(row->type, type) == 0 && strcmp(row->device, device) == 0)
            return (struct efficiency_row *)row;
    }
    return NULL;
}

const struct efficiency_row *efficiency_find(const struct efficiency *calibration, const char *device,
                                             const char *type, enum efficiency_phase phase)
{
    const struct efficiency_row *row = calibration ? find(calibration, device, type, phase) : NULL;
    return row && row->samples >= EFFICIENCY_SAMPLES_MIN ? row : NULL;
}

static double ratio_of(const struct efficiency *e, const char *device, enum efficiency_phase phase,
                       const struct efficiency_part *part)
{
    const struct efficiency_row *row = find(e, device, part->type, phase);
    return row ? row->ratio : part->prior_ratio;
}

static struct efficiency_row *take(struct efficiency *e, const char *device, enum efficiency_phase phase,
                                   const struct efficiency_part *part)
{
    struct efficiency_row *row = find(e, device, part->type, phase);
    if (row || e->count == EFFICIENCY_ROWS_MAX)
        return row;
    row = &e->rows[e->count++];
    *row = (struct efficiency_row){.phase = phase, .ratio = part->prior_ratio};
    snprintf(row->device, sizeof row->device, "%s", device);
    snprintf(row->type, sizeof row->type, "%s", part->type);
    return row;
}

static double clamp(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

/* `blame`: the part's share over the sum of the squares of all blamed ones. */
static void move(struct efficiency_row *row, double blame, double surprise, int64_t unix_s)
{
    bool first = row->samples == 0;
    double weight = 1.0 / (double)(row->samples + 1);
    double step = (weight > WEIGHT_MIN ? weight : WEIGHT_MIN) * blame * surprise;
    row->ratio =
        clamp(row->ratio * exp(first ? step : clamp(step, -STEP_MAX, STEP_MAX)), RATIO_MIN, RATIO_MAX);
    if (!first) /* the first surprise is the prior's */
        row->spread += (fabs(surprise) - row->spread) * (row->samples == 1 ? 1 : WEIGHT_MIN);
    row->samples++;
    row->unix_s = unix_s;
}

enum ph_status efficiency_learn(struct efficiency *efficiency, const char *device,
                                enum efficiency_phase phase, const struct efficiency_part *parts,
                                size_t count, double measured_s, int64_t unix_s, struct ph_err *err)
{
    double shares[EFFICIENCY_PARTS_MAX], predicted = 0, largest = 0, squares = 0;
    assert(count <= EFFICIENCY_PARTS_MAX);
    for (size_t i = 0; i < count; i++) {
        shares[i] = parts[i].perfect_s * ratio_of(efficiency, device, phase, &parts[i]);
        predicted += shares[i];
        largest = shares[i] > largest ? shares[i] : largest;
    }
    if (!(predicted > 0) || !(measured_s > 0))
        return PH_OK;
    for (size_t i = 0; i < count; i++) {
        bool blamed = shares[i] >= SHARE_MIN * predicted || shares[i] == largest;
        shares[i] = blamed ? shares[i] / predicted : 0;
        squares += shares[i] * shares[i];
    }
    double surprise = log(measured_s / predicted);
    for (size_t i = 0; i < count; i++) {
        struct efficiency_row *row = shares[i] > 0 ? take(efficiency, device, phase, &parts[i]) : NULL;
        if (shares[i] > 0 && !row)
            return ph_fail(err, PH_ERR_LIMIT,
                           "the calibration is full with %d rows: remove %s and measure anew",
                           EFFICIENCY_ROWS_MAX, EFFICIENCY_FILE);
        if (row)
            move(row, shares[i] / squares, surprise, unix_s);
    }
    return PH_OK;
}

/* ---- The file */

struct reader {
    const char *source;
    size_t row;
    struct ph_err *err;
};

static enum ph_status bad(const struct reader *r, const char *member, const char *must)
{
    return ph_fail(r->err, PH_ERR_FORMAT, "%s: row %zu: \"%s\" must be %s; remove the file to begin anew",
                   r->source, r->row, member, must);
}

static enum ph_status read_text(const struct reader *r, const struct json *object, const char *member,
                                char *out, size_t cap)
{
    const struct json *value = json_get(object, member);
    const char *text = json_text(value, "");
    size_t len = strlen(text);
    bool good = len > 0 && len < cap && len == value->u.str.len;
    for (size_t i = 0; good && i < len; i++)
        good = (unsigned char)text[i] >= ' ' && text[i] != 127;
    if (!good)
        return bad(r, member, "a short printable text");
    memcpy(out, text, len + 1);
    return PH_OK;
}

static enum ph_status read_number(const struct reader *r, const struct json *object, const char *member,
                                  double min, double max, double *out)
{
    if (json_to_double(json_get(object, member), out) && *out >= min && *out <= max)
        return PH_OK;
    return bad(r, member, "a number within its bounds");
}

static enum ph_status read_row(const struct reader *r, const struct json *object, struct efficiency_row *row)
{
    char phase[16];
    double samples = 0, unix_s = 0;
    enum ph_status status = read_text(r, object, "device", row->device, sizeof row->device);
    if (status == PH_OK)
        status = read_text(r, object, "type", row->type, sizeof row->type);
    if (status == PH_OK)
        status = read_text(r, object, "phase", phase, sizeof phase);
    if (status == PH_OK)
        status = read_number(r, object, "ratio", RATIO_MIN, RATIO_MAX, &row->ratio);
    if (status == PH_OK)
        status = read_number(r, object, "spread", 0, RATIO_MAX, &row->spread);
    if (status == PH_OK)
        status = read_number(r, object, "samples", 0, SAMPLES_MAX, &samples);
    if (status == PH_OK)
        status = read_number(r, object, "unix_s", 0, 1e12, &unix_s);
    if (status != PH_OK)
        return status;
    bool prefill = strcmp(phase, efficiency_phase_names[EFFICIENCY_PREFILL]) == 0;
    if (!prefill && strcmp(phase, efficiency_phase_names[EFFICIENCY_DECODE]) != 0)
        return bad(r, "phase", "decode or prefill");
    row->phase = prefill ? EFFICIENCY_PREFILL : EFFICIENCY_DECODE;
    row->samples = (uint64_t)samples;
    row->unix_s = (int64_t)unix_s;
    return PH_OK;
}

enum ph_status efficiency_parse(struct efficiency *out, const char *source, const char *text, size_t len,
                                struct ph_err *err)
{
    struct arena arena;
    struct json *root;
    struct ph_err why;
    struct reader reader = {.source = source, .err = err};
    out->count = 0;
    arena_init(&arena, ARENA_BYTES_MAX);
    enum ph_status status = json_parse(&arena, text, len, &root, &why);
    if (status != PH_OK) {
        status = ph_fail(err, status, "%s: %s; remove the file to begin anew", source, why.message);
        goto done;
    }
    double version;
    const struct json *rows = json_get(root, "rows");
    if (json_to_double(json_get(root, "version"), &version) && version >= 1 && version < FILE_VERSION)
        goto done;
    if (!json_to_double(json_get(root, "version"), &version) || version != FILE_VERSION ||
        !json_is(rows, JSON_ARRAY) || json_count(rows) > EFFICIENCY_ROWS_MAX) {
        status = ph_fail(err, PH_ERR_FORMAT,
                         "%s: no calibration of version %d with at most %d rows; remove it to "
                         "begin anew",
                         source, FILE_VERSION, EFFICIENCY_ROWS_MAX);
        goto done;
    }
    JSON_EACH (item, rows) {
        struct efficiency_row row = {0};
        reader.row++;
        if ((status = read_row(&reader, item, &row)) != PH_OK)
            goto done;
        if (find(out, row.device, row.type, row.phase)) {
            status = bad(&reader, "type", "there once for a device and phase");
            goto done;
        }
        out->rows[out->count++] = row;
    }
done:
    arena_release(&arena);
    if (status != PH_OK)
        out->count = 0;
    return status;
}

enum ph_status efficiency_read(struct efficiency *out, const char *path, struct ph_err *err)
{
    struct buf text;
    out->count = 0;
    if (!file_exists(path))
        return PH_OK;
    buf_init(&text, FILE_BYTES_MAX);
    enum ph_status status = file_read(path, &text, err);
    if (status == PH_OK)
        status = efficiency_parse(out, path, text.data ? text.data : "", text.len, err);
    buf_release(&text);
    return status;
}

void efficiency_print(const struct efficiency *calibration, struct buf *out)
{
    buf_printf(out, "{\"version\":%d,\"rows\":[", FILE_VERSION);
    for (size_t i = 0; i < calibration->count; i++) {
        const struct efficiency_row *row = &calibration->rows[i];
        buf_puts(out, i ? ",\n{\"device\":" : "\n{\"device\":");
        json_write_string(out, row->device, strlen(row->device));
        buf_puts(out, ",\"type\":");
        json_write_string(out, row->type, strlen(row->type));
        buf_printf(out, ",\"phase\":\"%s\",\"ratio\":", efficiency_phase_names[row->phase]);
        json_write_double(out, row->ratio);
        buf_puts(out, ",\"spread\":");
        json_write_double(out, row->spread);
        buf_printf(out, ",\"samples\":%llu,\"unix_s\":%lld}", (unsigned long long)row->samples,
                   (long long)row->unix_s);
    }
    buf_puts(out, "\n]}\n");
}

enum ph_status efficiency_write(const struct efficiency *calibration, const char *path, struct ph_err *err)
{
    struct buf text;
    buf_init(&text, FILE_BYTES_MAX);
    efficiency_print(calibration, &text);
    enum ph_status status = buf_status(&text);
    if (status == PH_OK)
        status = file_write_atomic(path, text.data, text.len, 0600, err);
    else
        status = ph_fail(err, status, "%s: no memory to write it", path);
    buf_release(&text);
    return status;
}
