/* Checkpoints: everything that a run is, in one file that is whole or not there.
 *
 * Little-endian; all sections begin at multiples of 8 with zeros between them:
 *      0 magic "PHTRAIN\0"          8 version u32 (1)            12 header bytes u32 (128)
 *     16 file bytes u64            24 settings bytes u64         32 data files u64
 *     40 floats of each array u64  48 steps done u64             56 positions predicted so far u64
 *     64 cooling from step u64     72 over steps u64 (0: not)    80 sum of all after the header u64
 *     88 zeros                    120 sum of bytes 0 to 119 u64
 *    128 settings: lines "key=value"; data files' positions: seed, epoch, index u64 each; weights, first and
 *        second moments f32, each the parameters one after the other in decoder_params' order.
 * Sums are corpus_sum's. So no byte can change without being found, and reading trusts nothing before all
 * is checked. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "train/corpus_int.h"
#include "train/train_int.h"
#include "train/trainer_int.h"

#define MAGIC "PHTRAIN"
#define VERSION 1u
#define HEADER_BYTES 128u
#define STAGE_BYTES ((size_t)1 << 20) /* a multiple of 8, as sums in pieces ask for */
#define FILE_MODE 0644

enum at {
    AT_STEP_MAGIC = 0,
    AT_FORMAT = 8,
    AT_HEADER = 12,
    AT_LENGTH = 16,
    AT_SETTINGS = 24,
    AT_SOURCES = 32,
    AT_FLOATS = 40,
    AT_STEP = 48,
    AT_GIVEN = 56,
    AT_COOL_FROM = 64,
    AT_COOL_STEPS = 72,
    AT_BODY_SUM = 80,
    AT_SUM = 120
};

/* ---- Writing */

struct stage {
    struct file_out file;
    uint8_t *bytes; /* [STAGE_BYTES] */
    size_t len;
    uint64_t total, sum; /* of the body so far */
    enum ph_status status;
    struct ph_err *err;
};

static void flush(struct stage *s)
{
    if (s->status != PH_OK)
        return;
    s->sum = corpus_hash_more(s->sum, s->bytes, s->len);
    s->total += s->len;
    s->status = file_out_write(&s->file, s->bytes, s->len, s->err);
    s->len = 0;
}

static void put(struct stage *s, const void *bytes, size_t len)
{
    const uint8_t *from = bytes;
    while (len > 0 && s->status == PH_OK) {
        size_t now = least(len, STAGE_BYTES - s->len);
        memcpy(s->bytes + s->len, from, now);
        s->len += now;
        from += now;
        len -= now;
        if (s->len == STAGE_BYTES)
            flush(s);
    }
}

static void put_padding(struct stage *s, uint64_t written)
{
    static const uint8_t zeros[8];
    put(s, zeros, (size_t)(-written & 7));
}

static void put_positions(struct stage *s, const struct mix *mix)
{
    for (size_t i = 0; i < mix->count; i++) {
        struct batcher_position at = batcher_position(mix->sources[i].batcher);
        uint8_t bytes[CHECKPOINT_POSITION_BYTES];
        bytes_put_le(bytes, at.seed, 8);
        bytes_put_le(bytes + 8, at.epoch, 8);
        bytes_put_le(bytes + 16, at.index, 8);
        put(s, bytes, sizeof bytes);
    }
}

static uint64_t float_count(const struct decoder *decoder)
{
    size_t count;
    uint64_t floats = 0;
    const struct param *params = decoder_params(decoder, &count);
    for (size_t i = 0; i < count; i++)
        floats += params[i].rows * params[i].cols;
    return floats;
}

static void put_array(struct stage *s, const struct decoder *decoder, const float *array)
{
    size_t count;
    const struct param *params = decoder_params(decoder, &count);
    for (size_t i = 0; i < count; i++)
        put(s, array + params[i].offset, params[i].rows * params[i].cols * sizeof *array);
}

static void put_body(struct stage *s, struct trainer *t, const struct buf *settings)
{
    put(s, settings->data, settings->len);
    put_padding(s, settings->len);
    put_positions(s, &t->mix);
    put_array(s, t->decoder, decoder_weights(t->decoder));
    put_array(s, t->decoder, t->adamw.m);
    put_array(s, t->decoder, t->adamw.v);
    put_padding(s, float_count(t->decoder) * 3 * sizeof(float));
    flush(s);
}

static void make_header(const struct stage *s, const struct trainer *t, size_t settings_len, uint8_t *h)
{
    memset(h, 0, HEADER_BYTES);
    memcpy(h, MAGIC, sizeof MAGIC);
    h[AT_FORMAT] = VERSION;
    h[AT_HEADER] = HEADER_BYTES;
    bytes_put_le(h + AT_LENGTH, HEADER_BYTES + s->total, 8);
    bytes_put_le(h + AT_SETTINGS, settings_len, 8);
    bytes_put_le(h + AT_SOURCES, t->mix.count, 8);
    bytes_put_le(h + AT_FLOATS, float_count(t->decoder), 8);
    bytes_put_le(h + AT_STEP, t->adamw.step, 8);
    bytes_put_le(h + AT_GIVEN, t->tokens, 8);
    bytes_put_le(h + AT_COOL_FROM, t->cool_from, 8);
    bytes_put_le(h + AT_COOL_STEPS, t->cool_steps, 8);
    bytes_put_le(h + AT_BODY_SUM, corpus_sum_end(s->sum, s->total), 8);
    bytes_put_le(h + AT_SUM, corpus_sum(h, AT_SUM), 8);
}

/* The header is written twice: zeros, to make room, and its content when the sum is known. */
static enum ph_status write_file(struct stage *s, struct trainer *t, const struct buf *settings)
{
    uint8_t header[HEADER_BYTES] = {0};
    s->status = file_out_write(&s->file, header, sizeof header, s->err);
    put_body(s, t, settings);
    if (s->status == PH_OK) {
        make_header(s, t, settings->len, header);
        s->status = file_out_rewrite(&s->file, 0, header, sizeof header, s->err);
    }
    if (s->status == PH_OK)
        return file_out_commit(&s->file, s->err);
    file_out_abandon(&s->file);
    return s->status;
}

/* Weights of which no loss comes must not take a good checkpoint's place. Finite ones may be too large to
 * multiply, so one window goes through the model as well, every position of it: that of a conversation may
 * have no target of its own. */
static enum ph_status check_sound(struct trainer *t, struct ph_err *err)
{
    const float *w = decoder_weights(t->decoder);
    const struct decoder_batch batch = {
        .batch = 1, .time = t->params.time, .tokens = t->inputs, .targets = t->inputs, .weights = t->weights};
    bool sound = true;
    for (size_t i = 0; i < t->params.time; i++)
        t->weights[i] = 1 / (float)t->params.time; /* each step makes its own */
    for (size_t i = 0; sound && i < decoder_len(t->decoder); i++)
        sound = isfinite(w[i]);
    if (sound && isfinite(decoder_evaluate(t->decoder, &batch, NULL)))
        return PH_OK;
    return ph_fail(err, PH_ERR_LIMIT,
                   "step %" PRIu64 ": the weights have come apart, so no checkpoint is written; go on from "
                   "the last one with a lower rate (and --adapt)",
                   t->adamw.step);
}

enum ph_status trainer_save(struct trainer *t, const char *path, struct ph_err *err)
{
    struct stage s = {.sum = CORPUS_HASH_BEGIN, .err = err};
    struct buf settings;
    enum ph_status status = check_sound(t, err);
    if (status != PH_OK)
        return status;
    buf_init(&settings, SETTINGS_BYTES_MAX);
    settings_write(&settings, t);
    settings_write_begun(&settings, t);
    s.bytes = mem_alloc(STAGE_BYTES);
    if (buf_status(&settings) != PH_OK || !s.bytes)
        status = ph_fail(err, PH_ERR_NOMEM, "no memory to write %s", path);
    if (status == PH_OK)
        status = file_out_open(&s.file, path, FILE_MODE, err);
    if (status == PH_OK)
        status = write_file(&s, t, &settings);
    mem_free(s.bytes);
    buf_release(&settings);
    return status;
}

/* ---- Reading */

static enum ph_status bad(const char *name, uint64_t offset, const char *what, struct ph_err *err)
{
    return ph_fail(err, PH_ERR_FORMAT, "%s: byte %" PRIu64 ": %s", name, offset, what);
}

static enum ph_status check_header(const uint8_t *h, size_t len, const char *name, struct ph_err *err)
{
    if (len < HEADER_BYTES)
        return bad(name, len, "the file is too short for a checkpoint", err);
    if (memcmp(h, MAGIC, sizeof MAGIC) != 0)
        return bad(name, 0, "this is no checkpoint (it would begin with " MAGIC ")", err);
    if (bytes_get_le(h + AT_SUM, 8) != corpus_sum(h, AT_SUM))
        return bad(name, AT_SUM, "the header's checksum is wrong, it was damaged", err);
    if (bytes_get_le(h + AT_FORMAT, 8) != (VERSION | (uint64_t)HEADER_BYTES << 32))
        return bad(name, AT_FORMAT, "this version of the format is not known", err);
    if (bytes_get_le(h + AT_LENGTH, 8) != len)
        return bad(name, AT_LENGTH, "the file has another length than it was written with", err);
    return PH_OK;
}

/* Fills the sections; all arithmetic is on numbers below the file's length. */
static enum ph_status find_sections(struct checkpoint *c, const uint8_t *h, size_t len, const char *name,
                                    struct ph_err *err)
{
    uint64_t settings = bytes_get_le(h + AT_SETTINGS, 8), sources = bytes_get_le(h + AT_SOURCES, 8),
             floats = bytes_get_le(h + AT_FLOATS, 8);
    if (settings > len || sources > len / CHECKPOINT_POSITION_BYTES || floats > len / (3 * sizeof(float)))
        return bad(name, AT_SETTINGS, "a section is longer than the file", err);
    uint64_t positions_at = HEADER_BYTES + ((settings + 7) & ~(uint64_t)7);
    uint64_t floats_at = positions_at + sources * CHECKPOINT_POSITION_BYTES;
    uint64_t end = floats_at + floats * 3 * sizeof(float);
    if (((end + 7) & ~(uint64_t)7) != len)
        return bad(name, AT_SETTINGS, "the sections do not make up the file", err);
    c->settings = (const char *)h + HEADER_BYTES;
    c->settings_len = (size_t)settings;
    c->positions = h + positions_at;
    c->source_count = (size_t)sources;
    c->floats = h + floats_at;
    c->float_count = floats;
    return PH_OK;
}

enum ph_status checkpoint_open_memory(struct checkpoint *c, const void *bytes, size_t len, const char *name,
                                      struct ph_err *err)
{
    const uint8_t *h = bytes;
    *c = (struct checkpoint){0};
    enum ph_status status = check_header(h, len, name, err);
    if (status == PH_OK)
        status = find_sections(c, h, len, name, err);
    if (status != PH_OK)
        return status;
    if (bytes_get_le(h + AT_BODY_SUM, 8) != corpus_sum(h + HEADER_BYTES, len - HEADER_BYTES))
        return bad(name, AT_BODY_SUM, "the checksum is wrong, the file was damaged", err);
    c->step = bytes_get_le(h + AT_STEP, 8);
    c->tokens = bytes_get_le(h + AT_GIVEN, 8);
    c->cool_from = bytes_get_le(h + AT_COOL_FROM, 8);
    c->cool_steps = bytes_get_le(h + AT_COOL_STEPS, 8);
    return PH_OK;
}

enum ph_status checkpoint_open(struct checkpoint *c, const char *path, struct ph_err *err)
{
    struct file_map map;
    *c = (struct checkpoint){0};
    enum ph_status status = file_map_open(&map, path, err);
    if (status != PH_OK)
        return status;
    status = checkpoint_open_memory(c, map.data, map.len, path, err);
    c->map = map;
    if (status != PH_OK)
        checkpoint_release(c);
    return status;
}

void checkpoint_release(struct checkpoint *c)
{
    file_map_release(&c->map);
    *c = (struct checkpoint){0};
}

/* ---- Going on from one */

static const uint8_t *get_array(const struct decoder *decoder, const uint8_t *from, float *array)
{
    size_t count;
    const struct param *params = decoder_params(decoder, &count);
    for (size_t i = 0; i < count; i++) {
        size_t bytes = params[i].rows * params[i].cols * sizeof *array;
        memcpy(array + params[i].offset, from, bytes);
        from += bytes;
    }
    return from;
}

/* Each data file goes on where it was. In a new mixture shares count from here on; a file that is new, or all
 * of them when windows or their order are others, begin at their beginning. */
static enum ph_status seek(struct trainer *t, const struct checkpoint *c, const char *path,
                           struct ph_err *err)
{
    bool same_mix = settings_same_mix(c->settings, c->settings_len, t);
    uint64_t taken = 0;
    if (!settings_same_windows(c->settings, c->settings_len, t))
        return PH_OK;
    for (size_t i = 0; i < t->mix.count; i++) {
        struct mix_source *s = &t->mix.sources[i];
        size_t from = settings_find_source(c->settings, c->settings_len, s->identity, taken);
        if (from >= c->source_count && same_mix)
            return bad(path, AT_SOURCES, "the number of data files is not that of the settings", err);
        if (from >= c->source_count)
            continue;
        const uint8_t *at = c->positions + from * CHECKPOINT_POSITION_BYTES;
        struct batcher_position position = {bytes_get_le(at, 8), bytes_get_le(at + 8, 8),
                                            bytes_get_le(at + 16, 8)};
        enum ph_status status = batcher_seek(s->batcher, position, err);
        if (status != PH_OK)
            return status;
        taken |= (uint64_t)1 << from;
        s->begun = same_mix ? settings_begun(c->settings, c->settings_len, from) : mix_source_given(s);
    }
    return PH_OK;
}

static enum ph_status load(struct trainer *t, const struct checkpoint *c, const char *path, bool adapt,
                           struct ph_err *err)
{
    settings_adopt(c->settings, c->settings_len, t);
    enum ph_status status = settings_compare(c->settings, c->settings_len, t, path, adapt, err);
    if (status != PH_OK)
        return status;
    if (c->float_count != float_count(t->decoder))
        return bad(path, AT_FLOATS, "the number of weights is not that of the settings", err);
    if ((status = seek(t, c, path, err)) != PH_OK)
        return status;
    const uint8_t *at = get_array(t->decoder, c->floats, decoder_weights(t->decoder));
    at = get_array(t->decoder, at, t->adamw.m);
    get_array(t->decoder, at, t->adamw.v);
    t->adamw.step = c->step;
    t->tokens = c->tokens;
    t->cool_from = c->cool_from;
    t->cool_steps = c->cool_steps;
    return PH_OK;
}

/* Rank 0's file, as bytes for all: other machines need not see it. */
static enum ph_status open_shared(struct trainer *t, struct checkpoint *c, uint8_t **bytes, const char *path,
                                  struct ph_err *err)
{
    struct file_map map = {0};
    bool first = ranks_index(t->ranks) == 0;
    if (first) {
        enum ph_status status = file_map_open(&map, path, err);
        if (status != PH_OK)
            return status;
    }
    uint64_t len = map.len;
    ranks_broadcast(t->ranks, &len, sizeof len);
    *bytes = mem_alloc(len ? len : 1);
    if (*bytes && first)
        memcpy(*bytes, map.data, len);
    file_map_release(&map);
    if (!*bytes)
        return ph_fail(err, PH_ERR_NOMEM, "no memory to read %s", path);
    ranks_broadcast(t->ranks, *bytes, len);
    return checkpoint_open_memory(c, *bytes, len, path, err);
}

enum ph_status trainer_load(struct trainer *t, const char *path, bool adapt, struct ph_err *err)
{
    struct checkpoint c = {0};
    uint8_t *bytes = NULL;
    enum ph_status status =
        ranks_count(t->ranks) == 1 ? checkpoint_open(&c, path, err) : open_shared(t, &c, &bytes, path, err);
    if (status == PH_OK)
        status = load(t, &c, path, adapt, err);
    checkpoint_release(&c);
    mem_free(bytes);
    return status;
}
