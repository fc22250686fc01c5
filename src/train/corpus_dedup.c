/* Duplicate documents: what the rule is stands in corpus.h. Texts are normalised into one reused buffer, and
 * are not kept: an exact duplicate is known by its hash, a near one by 128 minima of 4 bytes. Bands are
 * looked up in one flat table; one that many share (boilerplate) remembers BAND_DOCS_MAX of them. */
#include "train/corpus_int.h"
#include "train/train.h"

#define SHINGLE_WORDS 5
#define MINIMA 128
#define BAND_ROWS 8
#define BANDS (MINIMA / BAND_ROWS)
#define BAND_DOCS_MAX 32
#define TEXT_BYTES_MAX ((size_t)1 << 34)

struct band {
    uint64_t key; /* 0: empty */
    uint32_t doc;
};

struct dedup {
    double near;
    struct buf text; /* normalised */
    uint64_t *seen;  /* hashes; 0: empty */
    size_t seen_count, seen_slots;
    uint32_t *minima; /* [doc_count][MINIMA] */
    size_t doc_count, minima_cap;
    struct band *bands;
    size_t band_count, band_slots;
    uint64_t factors[MINIMA], addends[MINIMA];
};

enum ph_status dedup_create(struct dedup **out, double near, struct ph_err *err)
{
    *out = NULL;
    if (!(near >= 0 && near <= 1))
        return ph_fail(err, PH_ERR_ARG, "the similarity of near duplicates must be from 0 (off) to 1");
    struct dedup *d = mem_calloc(1, sizeof *d);
    if (!d)
        return ph_fail(err, PH_ERR_NOMEM, "no memory to look for duplicates");
    d->near = near;
    buf_init(&d->text, TEXT_BYTES_MAX);
    for (uint64_t i = 0; i < MINIMA; i++) {
        d->factors[i] = corpus_mix(2 * i + 1) | 1;
        d->addends[i] = corpus_mix(2 * i + 2);
    }
    *out = d;
    return PH_OK;
}

void dedup_free(struct dedup *dedup)
{
    if (!dedup)
        return;
    buf_release(&dedup->text);
    mem_free(dedup->seen);
    mem_free(dedup->minima);
    mem_free(dedup->bands);
    mem_free(dedup);
}

/* ---- Exact */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void normalise(struct dedup *d, const char *text, size_t len)
{
    buf_clear(&d->text);
    for (size_t at = 0; at < len;) {
        size_t first = at;
        while (at < len && !is_space(text[at]))
            at++;
        if (at > first) {
            if (d->text.len)
                buf_putc(&d->text, ' ');
            buf_append(&d->text, text + first, at - first);
        }
        while (at < len && is_space(text[at]))
            at++;
    }
}

static uint64_t *seen_slot(uint64_t *seen, size_t slots, uint64_t hash)
{
    size_t at = (size_t)hash & (slots - 1);
    while (seen[at] && seen[at] != hash)
        at = (at + 1) & (slots - 1);
    return &seen[at];
}

static bool grow_seen(struct dedup *d)
{
    size_t slots = d->seen_slots ? d->seen_slots * 2 : 1024;
    uint64_t *seen = mem_calloc(slots, sizeof *seen);
    if (!seen)
        return false;
    for (size_t i = 0; i < d->seen_slots; i++)
        if (d->seen[i])
            *seen_slot(seen, slots, d->seen[i]) = d->seen[i];
    mem_free(d->seen);
    d->seen = seen;
    d->seen_slots = slots;
    return true;
}

/* ---- Near */

/* false: the text is too short for a shingle. */
static bool find_minima(const struct dedup *d, uint32_t minima[MINIMA])
{
    const char *text = d->text.data;
    uint64_t words[SHINGLE_WORDS];
    size_t count = 0, len = d->text.len;
    memset(minima, 0xff, MINIMA * sizeof *minima);
    for (size_t at = 0; at < len; at++, count++) {
        const char *end = memchr(text + at, ' ', len - at);
        size_t word_len = end ? (size_t)(end - text) - at : len - at;
        words[count % SHINGLE_WORDS] = corpus_hash(text + at, word_len);
        at += word_len;
        if (count + 1 < SHINGLE_WORDS)
            continue;
        uint64_t shingle = CORPUS_HASH_BEGIN;
        for (size_t i = 1; i <= SHINGLE_WORDS; i++)
            shingle = corpus_mix(shingle ^ words[(count + i) % SHINGLE_WORDS]);
        for (size_t i = 0; i < MINIMA; i++) {
            uint32_t value = (uint32_t)((shingle * d->factors[i] + d->addends[i]) >> 32);
            minima[i] = value < minima[i] ? value : minima[i];
        }
    }
    return count >= SHINGLE_WORDS;
}

static uint64_t band_key(const uint32_t *minima, size_t band)
{
    uint64_t key = corpus_mix(corpus_hash(minima + band * BAND_ROWS, BAND_ROWS * sizeof *minima) ^ band);
    return key ? key : 1;
}

static bool is_near(const struct dedup *d, const uint32_t *a, const uint32_t *b)
{
    size_t equal = 0;
    for (size_t i = 0; i < MINIMA; i++)
        equal += a[i] == b[i];
    return (double)equal >= d->near * MINIMA;
}

static bool has_near(const struct dedup *d, const uint32_t *minima)
{
    for (size_t band = 0; band < BANDS && d->band_slots; band++) {
        uint64_t key = band_key(minima, band);
        for (size_t at = (size_t)key & (d->band_slots - 1); d->bands[at].key;
             at = (at + 1) & (d->band_slots - 1))
            if (d->bands[at].key == key && is_near(d, minima, d->minima + (size_t)d->bands[at].doc * MINIMA))
                return true;
    }
    return false;
}

/* true: it was put in; false: the band has its BAND_DOCS_MAX documents. */
static bool put_band(struct band *bands, size_t slots, struct band item)
{
    size_t same = 0, at = (size_t)item.key & (slots - 1);
    for (; bands[at].key; at = (at + 1) & (slots - 1))
        if (bands[at].key == item.key && ++same == BAND_DOCS_MAX)
            return false;
    bands[at] = item;
    return true;
}

static bool grow_bands(struct dedup *d)
{
    size_t slots = d->band_slots ? d->band_slots * 2 : 1 << 14;
    struct band *bands = mem_calloc(slots, sizeof *bands);
    if (!bands)
        return false;
    for (size_t i = 0; i < d->band_slots; i++)
        if (d->bands[i].key)
            put_band(bands, slots, d->bands[i]);
    mem_free(d->bands);
    d->bands = bands;
    d->band_slots = slots;
    return true;
}

static bool remember_minima(struct dedup *d, const uint32_t *minima)
{
    if (d->doc_count >= UINT32_MAX ||
        !corpus_room(&d->minima, &d->minima_cap, (d->doc_count + 1) * MINIMA, sizeof *d->minima))
        return false;
    memcpy(d->minima + d->doc_count * MINIMA, minima, MINIMA * sizeof *minima);
    while ((d->band_count + BANDS) * 2 > d->band_slots)
        if (!grow_bands(d))
            return false;
    for (size_t band = 0; band < BANDS; band++)
        d->band_count +=
            put_band(d->bands, d->band_slots, (struct band){band_key(minima, band), (uint32_t)d->doc_count});
    d->doc_count++;
    return true;
}

/* ---- The answer */

enum ph_status dedup_check(struct dedup *dedup, const char *text, size_t len, enum dedup_answer *answer,
                           uint64_t *hash, struct ph_err *err)
{
    struct dedup *d = dedup;
    uint32_t minima[MINIMA];
    normalise(d, text, len);
    if (buf_status(&d->text) != PH_OK || ((d->seen_count + 1) * 2 > d->seen_slots && !grow_seen(d)))
        return ph_fail(err, PH_ERR_NOMEM, "no memory to look for duplicates of %zu bytes", len);
    *hash = corpus_hash(d->text.data ? d->text.data : "", d->text.len);
    uint64_t key = *hash ? *hash : 1;
    uint64_t *slot = seen_slot(d->seen, d->seen_slots, key);
    *answer = *slot ? DEDUP_EXACT : DEDUP_NEW;
    if (*slot)
        return PH_OK;
    *slot = key;
    d->seen_count++;
    if (d->near == 0 || !find_minima(d, minima))
        return PH_OK;
    if (has_near(d, minima))
        *answer = DEDUP_NEAR;
    else if (!remember_minima(d, minima))
        return ph_fail(err, PH_ERR_NOMEM, "no memory to look for near duplicates among %zu", d->doc_count);
    return PH_OK;
}
