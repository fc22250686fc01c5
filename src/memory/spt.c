/* The selector's file is a GGUF:
 *   general.architecture "pharos-spt"
 *   spt.features        the names of the features, between commas
 *   spt.weights         f32 [talks][features]: with an assistant, of people, of a group
 *   spt.set.shares      f32 [talks], 0 to 1: how much the set transformer's corrections count; and its
 *                       tensors "set.*" (spt_set.c). Both may be missing
 *   spt.words.stems     u64 [words], ascending: hashes of stems (text_hash)
 *   spt.words.rarity    f32 [words], a / (a + share of all words), a = 0.001
 *   spt.words.weights   f32 [words], in the direction of a text
 *   spt.words.vectors   i8 [words][SPT_WIDTH], unit length x 127
 *   spt.words.texts     u8 [words][SPT_WORD_TEXT]: a word of the stem, zeroes behind it
 * A feature that the file does not know has weight 0; one that we do not know is an error. */
#include "memory/spt.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "memory/features_int.h"
#include "memory/spt_int.h"
#include "memory/spt_set_int.h"
#include "memory/spt_words_int.h"
#include "model/model.h"

struct spt {
    struct gguf *gguf;
    uint32_t words;
    const uint8_t *stems; /* unaligned */
    const uint8_t *rarities, *weights_of_words;
    const int8_t *vectors;
    const char *texts;
    float weights[TALK_COUNT][FEATURE_COUNT];
    struct spt_set *set; /* or NULL */
    float shares[TALK_COUNT];
};

static enum ph_status find_array(const struct spt *spt, const char *key, enum gguf_type type, uint64_t count,
                                 struct gguf_array *out, struct ph_err *err)
{
    if (!gguf_get_array(spt->gguf, key, out) || out->type != type || (count && out->count != count))
        return ph_fail(err, PH_ERR_FORMAT, "%s: %s is missing, or not what a selector has there",
                       gguf_path(spt->gguf), key);
    return PH_OK;
}

static enum ph_status read_weights(struct spt *spt, struct ph_err *err)
{
    struct gguf_string features;
    struct gguf_array weights;
    if (!gguf_get_string(spt->gguf, "spt.features", &features))
        return ph_fail(err, PH_ERR_FORMAT, "%s: spt.features is missing", gguf_path(spt->gguf));
    enum ph_status status = find_array(spt, "spt.weights", GGUF_FLOAT32, 0, &weights, err);
    size_t at = 0;
    uint64_t count = weights.count / TALK_COUNT;
    for (uint64_t i = 0; !status && i < count; i++) {
        size_t end = at;
        while (end < features.len && features.text[end] != ',')
            end++;
        int feature = 0;
        while (feature < FEATURE_COUNT &&
               (strlen(feature_name((enum feature)feature)) != end - at ||
                memcmp(feature_name((enum feature)feature), features.text + at, end - at)))
            feature++;
        if (feature == FEATURE_COUNT)
            return ph_fail(err, PH_ERR_UNSUPPORTED, "%s: feature %.*s is not known to this version",
                           gguf_path(spt->gguf), (int)(end - at), features.text + at);
        for (uint64_t talk = 0; talk < TALK_COUNT; talk++) {
            float weight = (float)gguf_array_number(&weights, talk * count + i);
            if (!isfinite(weight))
                return ph_fail(err, PH_ERR_FORMAT, "%s: the weight of %.*s is not a number",
                               gguf_path(spt->gguf), (int)(end - at), features.text + at);
            spt->weights[talk][feature] = weight;
        }
        at = end + 1;
    }
    if (!status && (at <= features.len || weights.count % TALK_COUNT))
        return ph_fail(err, PH_ERR_FORMAT, "%s: spt.weights has not %d weights for each of spt.features",
                       gguf_path(spt->gguf), TALK_COUNT);
    return status;
}

static enum ph_status read_set(struct spt *spt, struct ph_err *err)
{
    struct gguf_array shares;
    enum ph_status status = spt_set_open(&spt->set, spt->gguf, err);
    if (status || !spt->set)
        return status;
    status = find_array(spt, "spt.set.shares", GGUF_FLOAT32, TALK_COUNT, &shares, err);
    for (uint64_t talk = 0; !status && talk < TALK_COUNT; talk++) {
        spt->shares[talk] = (float)gguf_array_number(&shares, talk);
        if (!(spt->shares[talk] >= 0 && spt->shares[talk] <= 1))
            status = ph_fail(err, PH_ERR_FORMAT, "%s: spt.set.shares[%d] is not between 0 and 1",
                             gguf_path(spt->gguf), (int)talk);
    }
    return status;
}

static uint64_t stem_at(const struct spt *spt, uint32_t row)
{
    uint64_t stem;
    memcpy(&stem, spt->stems + (size_t)row * sizeof stem, sizeof stem);
    return stem;
}

static float float_at(const uint8_t *values, int32_t row)
{
    float value;
    memcpy(&value, values + (size_t)row * sizeof value, sizeof value);
    return value;
}

static enum ph_status read_words(struct spt *spt, struct ph_err *err)
{
    struct gguf_array stems, rarities, weights, vectors, texts;
    enum ph_status status = find_array(spt, "spt.words.stems", GGUF_UINT64, 0, &stems, err);
    if (!status)
        status = find_array(spt, "spt.words.rarity", GGUF_FLOAT32, stems.count, &rarities, err);
    if (!status)
        status = find_array(spt, "spt.words.weights", GGUF_FLOAT32, stems.count, &weights, err);
    if (!status)
        status = find_array(spt, "spt.words.vectors", GGUF_INT8, stems.count * SPT_WIDTH, &vectors, err);
    if (!status)
        status = find_array(spt, "spt.words.texts", GGUF_UINT8, stems.count * SPT_WORD_TEXT, &texts, err);
    if (status)
        return status;
    spt->words = (uint32_t)stems.count;
    spt->stems = stems.data;
    spt->rarities = rarities.data;
    spt->weights_of_words = weights.data;
    spt->vectors = (const int8_t *)vectors.data;
    spt->texts = (const char *)texts.data;
    for (uint32_t i = 0; i < spt->words; i++) {
        if (i && stem_at(spt, i) <= stem_at(spt, i - 1))
            return ph_fail(err, PH_ERR_FORMAT, "%s: spt.words.stems is not in order at %u",
                           gguf_path(spt->gguf), i);
        if (!isfinite(float_at(spt->rarities, (int32_t)i)) ||
            !isfinite(float_at(spt->weights_of_words, (int32_t)i)))
            return ph_fail(err, PH_ERR_FORMAT, "%s: the weight or rarity of word %u is not a number",
                           gguf_path(spt->gguf), i);
    }
    return PH_OK;
}

static enum ph_status read_selector(struct spt **out, struct gguf *gguf, struct ph_err *err)
{
    struct gguf_string architecture;
    struct spt *spt = mem_calloc(1, sizeof *spt);
    if (!spt) {
        gguf_free(gguf);
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    }
    spt->gguf = gguf;
    enum ph_status status = PH_OK;
    if (!gguf_get_string(gguf, "general.architecture", &architecture) || architecture.len != 10 ||
        memcmp(architecture.text, "pharos-spt", 10) != 0)
        status = ph_fail(err, PH_ERR_FORMAT, "%s: not a selector, which `pharos train spt` makes",
                         gguf_path(gguf));
    if (!status)
        status = read_weights(spt, err);
    if (!status)
        status = read_words(spt, err);
    if (!status)
        status = read_set(spt, err);
    if (status) {
        spt_close(spt);
        return status;
    }
    *out = spt;
    return PH_OK;
}

enum ph_status spt_open(struct spt **out, const char *path, struct ph_err *err)
{
    struct gguf *gguf;
    enum ph_status status = gguf_open(&gguf, path, err);
    return status ? status : read_selector(out, gguf, err);
}

enum ph_status spt_open_shipped(struct spt **out, struct ph_err *err)
{
    struct gguf *gguf;
    struct spt_bytes bytes = spt_shipped();
    enum ph_status status = gguf_open_memory(&gguf, bytes.data, bytes.len, "the shipped selector", err);
    return status ? status : read_selector(out, gguf, err);
}

void spt_close(struct spt *spt)
{
    if (!spt)
        return;
    spt_set_close(spt->set);
    gguf_free(spt->gguf);
    mem_free(spt);
}

int32_t spt_word(const struct spt *spt, uint64_t stem)
{
    uint32_t low = 0, high = spt ? spt->words : 0;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (stem_at(spt, middle) < stem)
            low = middle + 1;
        else
            high = middle;
    }
    return spt && low < spt->words && stem_at(spt, low) == stem ? (int32_t)low : -1;
}

const int8_t *spt_word_vector(const struct spt *spt, int32_t row)
{
    return spt->vectors + (size_t)row * SPT_WIDTH;
}

float spt_word_weight(const struct spt *spt, int32_t row)
{
    return float_at(spt->weights_of_words, row);
}

/* rarity = a / (a + share), spt_words.c */
float spt_word_rarity(const struct spt *spt, int32_t row)
{
    float rarity = row < 0 ? 1 : float_at(spt->rarities, row);
    float share = 1e-3f * (1 - rarity) / fmaxf(rarity, 1e-6f);
    return -logf(fmaxf(share, 1e-6f));
}

const float *spt_weights(const struct spt *spt, unsigned talk)
{
    return spt->weights[talk];
}

const struct spt_set *spt_set_of(const struct spt *spt, unsigned talk, float *share)
{
    *share = spt->shares[talk];
    return *share > 0 ? spt->set : NULL;
}

float spt_cosine(const int8_t *a, const int8_t *b)
{
    int32_t sum = 0;
    for (size_t i = 0; i < SPT_WIDTH; i++)
        sum += (int16_t)(a[i] * b[i]);
    return (float)sum / (127.0f * 127.0f);
}

void spt_direction(const float sum[SPT_WIDTH], int8_t out[SPT_WIDTH])
{
    float square = 0;
    for (size_t i = 0; i < SPT_WIDTH; i++)
        square += sum[i] * sum[i];
    float scale = square > 0 ? 127.0f / sqrtf(square) : 0;
    for (size_t i = 0; i < SPT_WIDTH; i++)
        out[i] = (int8_t)lrintf(sum[i] * scale);
}

enum ph_status spt_write(const char *path, const struct spt_word_table *words,
                         const struct spt_ranker *ranker, struct ph_err *err)
{
    struct gguf_writer *writer;
    struct buf features;
    enum ph_status status = gguf_writer_open(&writer, path, err);
    if (status)
        return status;
    buf_init(&features, 65536);
    for (int f = 0; f < FEATURE_COUNT; f++) {
        buf_puts(&features, f ? "," : "");
        buf_puts(&features, feature_name((enum feature)f));
    }
    gguf_writer_set_string(writer, "general.architecture", "pharos-spt", 10);
    gguf_writer_set_string(writer, "spt.features", features.data, features.len);
    const struct gguf_array arrays[] = {
        {GGUF_FLOAT32, (size_t)TALK_COUNT * FEATURE_COUNT, (const uint8_t *)ranker->weights,
         (size_t)TALK_COUNT * FEATURE_COUNT * sizeof *ranker->weights},
        {GGUF_UINT64, words->count, (const uint8_t *)words->stems, words->count * sizeof *words->stems},
        {GGUF_FLOAT32, words->count, (const uint8_t *)words->rarities, words->count * sizeof(float)},
        {GGUF_FLOAT32, words->count, (const uint8_t *)words->weights, words->count * sizeof(float)},
        {GGUF_INT8, words->count * SPT_WIDTH, (const uint8_t *)words->vectors, words->count * SPT_WIDTH},
        {GGUF_UINT8, words->count * SPT_WORD_TEXT, (const uint8_t *)words->texts,
         words->count * SPT_WORD_TEXT},
    };
    gguf_writer_set_array(writer, "spt.weights", &arrays[0]);
    gguf_writer_set_array(writer, "spt.words.stems", &arrays[1]);
    gguf_writer_set_array(writer, "spt.words.rarity", &arrays[2]);
    gguf_writer_set_array(writer, "spt.words.weights", &arrays[3]);
    gguf_writer_set_array(writer, "spt.words.vectors", &arrays[4]);
    gguf_writer_set_array(writer, "spt.words.texts", &arrays[5]);
    buf_release(&features);
    if (ranker->set) {
        struct set_layout layout;
        set_layout_make(&layout);
        gguf_writer_set_array(writer, "spt.set.shares",
                              &(struct gguf_array){GGUF_FLOAT32, TALK_COUNT, (const uint8_t *)ranker->shares,
                                                   TALK_COUNT * sizeof *ranker->shares});
        spt_set_describe(writer, &layout);
        spt_set_write(writer, &layout, ranker->set);
    }
    return gguf_writer_close(writer, err);
}

bool spt_copy_words(const struct spt *spt, struct spt_word_table *table)
{
    size_t n = spt->words;
    *table = (struct spt_word_table){.count = n,
                                     .stems = mem_alloc(n * sizeof *table->stems + 1),
                                     .rarities = mem_alloc(n * sizeof *table->rarities + 1),
                                     .weights = mem_alloc(n * sizeof *table->weights + 1),
                                     .vectors = mem_alloc(n * SPT_WIDTH + 1),
                                     .texts = mem_calloc(n + 1, sizeof *table->texts)};
    if (!table->stems || !table->rarities || !table->weights || !table->vectors || !table->texts) {
        spt_word_table_release(table);
        return false;
    }
    memcpy(table->stems, spt->stems, n * sizeof *table->stems);
    memcpy(table->rarities, spt->rarities, n * sizeof *table->rarities);
    memcpy(table->weights, spt->weights_of_words, n * sizeof *table->weights);
    memcpy(table->vectors, spt->vectors, n * SPT_WIDTH);
    for (size_t i = 0; i < n; i++)
        memcpy(table->texts[i], spt->texts + i * SPT_WORD_TEXT, SPT_WORD_TEXT - 1);
    return true;
}
