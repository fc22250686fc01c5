/* Hashed features with weights.
 *
 * A text is read twice over: its features are gathered in a table, each once with its count, and then every
 * one adds its weight to two places of the vector. A feature's hash gives both places and both signs, so that
 * two features that share a place hardly ever share the other.
 *
 * weight = kind * sqrt(count) * rarity, rarity = log((N + 1) / (n + 1)) / log(N + 1) of N texts. The pieces
 * of a word together weigh somewhat more than the word, whatever its length. Pairs of words are not counted
 * in the sketch, which they would fill; a pair is as rare as the rarer of its words. */
#include "memory/lexical.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/mem.h"
#include "memory/text_int.h"

#define ROWS 2
#define ROW_LEN (1u << 17)
#define MAGIC "PHLEX001"
#define FILE_BYTES (8 + 8 + (size_t)ROWS * ROW_LEN * 2 + 8)

#define WORD_WEIGHT 1.0f
#define STOP_WEIGHT 0.15f
#define PAIR_WEIGHT 0.4f
#define PIECES_WEIGHT 1.2f /* of all pieces of a word together */
#define RARITY_MIN 0.05f
#define PIECE_MIN 3
#define PIECE_MAX 4

struct lexical {
    uint64_t texts;
    uint16_t *counts; /* [ROWS][ROW_LEN], saturating */
};

/* ---- The features of a text, each once */
struct feature {
    uint64_t hash; /* 0: a free place */
    float weight;  /* by its kind */
    float count;
    float rarity; /* of pairs: given; 0: asked of the sketch */
};

struct features {
    struct feature *places;
    size_t mask, used;
};

static bool features_init(struct features *f, size_t cap)
{
    f->places = mem_calloc(cap, sizeof *f->places);
    f->mask = cap - 1;
    f->used = 0;
    return f->places != NULL;
}

static struct feature *features_place(const struct features *f, uint64_t hash)
{
    size_t at = (size_t)(hash >> 20) & f->mask;
    while (f->places[at].hash && f->places[at].hash != hash)
        at = (at + 1) & f->mask;
    return &f->places[at];
}

static bool features_grow(struct features *f)
{
    struct features larger;
    if (!features_init(&larger, 2 * (f->mask + 1)))
        return false;
    for (size_t i = 0; i <= f->mask; i++)
        if (f->places[i].hash)
            *features_place(&larger, f->places[i].hash) = f->places[i];
    larger.used = f->used;
    mem_free(f->places);
    *f = larger;
    return true;
}

static bool features_add(struct features *f, uint64_t hash, float weight, float rarity)
{
    hash = hash ? hash : 1;
    if (2 * f->used > f->mask && !features_grow(f))
        return false;
    struct feature *feature = features_place(f, hash);
    if (!feature->hash) {
        *feature = (struct feature){.hash = hash, .weight = weight, .rarity = rarity};
        f->used++;
    }
    feature->count += 1;
    if (weight > feature->weight)
        feature->weight = weight;
    return true;
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* ---- Statistics */
static size_t slot(uint64_t hash, unsigned row)
{
    return row * ROW_LEN + (size_t)(mix(hash + row) % ROW_LEN);
}

static float rarity(const struct lexical *l, uint64_t hash)
{
    uint16_t n = UINT16_MAX;
    if (l->texts == 0)
        return 1.0f;
    for (unsigned row = 0; row < ROWS; row++)
        n = l->counts[slot(hash, row)] < n ? l->counts[slot(hash, row)] : n;
    double most = log((double)l->texts + 1);
    float value = (float)((most - log((double)n + 1)) / most);
    return value > RARITY_MIN ? value : RARITY_MIN;
}

/* ---- Reading a text */
/* Pieces of "<word>": an end is a character too. A piece begins with the first byte of a character. */
static bool add_pieces(struct features *f, const struct text_word *word, float weight)
{
    char text[TEXT_WORD_BYTES_MAX + 3];
    size_t starts[TEXT_WORD_BYTES_MAX + 3], chars = 0, len = (size_t)word->folded_len + 2;
    text[0] = '<';
    memcpy(text + 1, word->folded, word->folded_len);
    text[len - 1] = '>';
    for (size_t i = 0; i < len; i++)
        if (((unsigned char)text[i] & 0xc0) != 0x80)
            starts[chars++] = i;
    starts[chars] = len;
    size_t pieces = 0;
    for (size_t n = PIECE_MIN; n <= PIECE_MAX; n++)
        pieces += chars > n ? chars - n + 1 : 0;
    if (!pieces) /* two letters and less: the word says it all */
        return true;
    float each = weight * PIECES_WEIGHT / sqrtf((float)pieces);
    for (size_t n = PIECE_MIN; n <= PIECE_MAX; n++)
        for (size_t i = 0; i + n <= chars && chars > n; i++)
            if (!features_add(f, text_hash(text + starts[i], starts[i + n] - starts[i]) ^ n, each, 0))
                return false;
    return true;
}

static bool gather(const struct lexical *l, struct features *f, struct text_stemmer *stemmer,
                   const char *text, size_t len)
{
    struct text_reader reader;
    struct text_word word;
    uint64_t before = 0;
    float before_rarity = 0;
    bool ok = true;
    text_reader_init(&reader, stemmer, text, len);
    for (size_t words = 0; ok && words < LEXICAL_WORDS_MAX && text_next(&reader, &word); words++) {
        if (word.flags & TEXT_STOP) {
            ok = features_add(f, word.stem, STOP_WEIGHT, 0);
            continue;
        }
        float rare = rarity(l, word.stem);
        ok = features_add(f, word.stem, WORD_WEIGHT, 0) && add_pieces(f, &word, WORD_WEIGHT);
        if (ok && before)
            ok = features_add(f, mix(before) + word.stem, PAIR_WEIGHT,
                              rare > before_rarity ? rare : before_rarity);
        before = word.stem;
        before_rarity = rare;
    }
    return ok;
}

static bool features_of(const struct lexical *l, const char *text, size_t len, struct features *f)
{
    struct text_stemmer *stemmer = NULL;
    if (!features_init(f, 512))
        return false;
    bool ok = text_stemmer_create(&stemmer, "english", NULL) == PH_OK && gather(l, f, stemmer, text, len);
    text_stemmer_free(stemmer);
    if (!ok)
        mem_free(f->places);
    return ok;
}

/* ---- Public */
enum ph_status lexical_create(struct lexical **out, struct ph_err *err)
{
    struct lexical *l = *out = mem_calloc(1, sizeof *l);
    if (l)
        l->counts = mem_calloc((size_t)ROWS * ROW_LEN, sizeof *l->counts);
    if (l && l->counts)
        return PH_OK;
    lexical_free(l);
    *out = NULL;
    return ph_fail(err, PH_ERR_NOMEM, "no memory for the statistics of words");
}

void lexical_free(struct lexical *lexical)
{
    if (!lexical)
        return;
    mem_free(lexical->counts);
    mem_free(lexical);
}

void lexical_add(struct lexical *lexical, const char *text, size_t len)
{
    struct features f;
    if (lexical->texts >= LEXICAL_TEXTS_MAX || !features_of(lexical, text, len, &f))
        return;
    for (size_t i = 0; i <= f.mask; i++) {
        if (!f.places[i].hash || f.places[i].rarity > 0)
            continue;
        for (unsigned row = 0; row < ROWS; row++)
            if (lexical->counts[slot(f.places[i].hash, row)] < UINT16_MAX)
                lexical->counts[slot(f.places[i].hash, row)]++;
    }
    lexical->texts++;
    mem_free(f.places);
}

uint64_t lexical_texts(const struct lexical *lexical)
{
    return lexical->texts;
}

static void spread(float out[LEXICAL_WIDTH], uint64_t hash, float weight)
{
    uint64_t bits = mix(hash);
    for (int i = 0; i < 2; i++, bits >>= 24)
        out[bits % LEXICAL_WIDTH] += bits >> 16 & 1 ? weight : -weight;
}

enum ph_status lexical_embed(const struct lexical *lexical, const char *text, size_t len,
                             float out[LEXICAL_WIDTH])
{
    struct features f;
    double sum = 0;
    if (!features_of(lexical, text, len, &f))
        return PH_ERR_NOMEM;
    memset(out, 0, LEXICAL_WIDTH * sizeof *out);
    for (size_t i = 0; i <= f.mask; i++) {
        const struct feature *feature = &f.places[i];
        if (!feature->hash)
            continue;
        float rare = feature->rarity > 0 ? feature->rarity : rarity(lexical, feature->hash);
        spread(out, feature->hash, feature->weight * sqrtf(feature->count) * rare);
    }
    mem_free(f.places);
    for (size_t i = 0; i < LEXICAL_WIDTH; i++)
        sum += (double)out[i] * (double)out[i];
    for (size_t i = 0; i < LEXICAL_WIDTH && sum > 0; i++)
        out[i] = (float)((double)out[i] / sqrt(sum));
    return PH_OK;
}

/* ---- The file: magic, texts, counts, hash of what is before it; little-endian */
static void put(uint8_t *out, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t get(const uint8_t *in, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = bytes; i-- > 0;)
        value = value << 8 | in[i];
    return value;
}

static uint64_t statistics_hash(const struct lexical *l)
{
    uint64_t hash = mix(l->texts + 1);
    for (size_t i = 0; i < (size_t)ROWS * ROW_LEN; i++)
        if (l->counts[i])
            hash = mix(hash ^ (i << 16 | l->counts[i]));
    return hash;
}

void lexical_name(const struct lexical *lexical, char out[LEXICAL_NAME_MAX])
{
    snprintf(out, LEXICAL_NAME_MAX, "lexical-%016llx", (unsigned long long)statistics_hash(lexical));
}

enum ph_status lexical_write(const struct lexical *lexical, const char *path, struct ph_err *err)
{
    uint8_t *bytes = mem_alloc(FILE_BYTES);
    if (!bytes)
        return ph_fail(err, PH_ERR_NOMEM, "%s: no memory to write it", path);
    memcpy(bytes, MAGIC, 8);
    put(bytes + 8, lexical->texts, 8);
    for (size_t i = 0; i < (size_t)ROWS * ROW_LEN; i++)
        put(bytes + 16 + 2 * i, lexical->counts[i], 2);
    put(bytes + FILE_BYTES - 8, statistics_hash(lexical), 8);
    enum ph_status status = file_write_private(path, bytes, FILE_BYTES, err);
    mem_free(bytes);
    return status;
}

static enum ph_status parse(struct lexical *l, const char *path, const struct buf *text, struct ph_err *err)
{
    const uint8_t *bytes = (const uint8_t *)text->data;
    if (text->len != FILE_BYTES || memcmp(bytes, MAGIC, 8) != 0)
        return ph_fail(err, PH_ERR_FORMAT, "%s holds no statistics of words; remove it to count anew", path);
    l->texts = get(bytes + 8, 8);
    for (size_t i = 0; i < (size_t)ROWS * ROW_LEN; i++)
        l->counts[i] = (uint16_t)get(bytes + 16 + 2 * i, 2);
    if (get(bytes + FILE_BYTES - 8, 8) != statistics_hash(l))
        return ph_fail(err, PH_ERR_FORMAT, "%s is damaged; remove it to count anew", path);
    return PH_OK;
}

enum ph_status lexical_read(struct lexical **out, const char *path, struct ph_err *err)
{
    struct buf text;
    struct lexical *l = NULL;
    *out = NULL;
    buf_init(&text, FILE_BYTES + 1);
    enum ph_status status = file_read_private(path, &text, NULL, err);
    if (status == PH_ERR_LIMIT)
        status =
            ph_fail(err, PH_ERR_FORMAT, "%s holds no statistics of words; remove it to count anew", path);
    if (status == PH_OK)
        status = lexical_create(&l, err);
    if (status == PH_OK)
        status = parse(l, path, &text, err);
    buf_release(&text);
    if (status == PH_OK)
        *out = l;
    else
        lexical_free(l);
    return status;
}

enum ph_status lexical_remove(const char *path, struct ph_err *err)
{
    if (remove(path) == 0 || !file_exists(path))
        return PH_OK;
    return ph_fail(err, PH_ERR_IO, "%s cannot be removed; remove it by hand", path);
}
