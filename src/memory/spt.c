/* The selector's file is a GGUF without tensors:
 *   general.architecture "pharos-spt"
 *   spt.features        the names of the features, between commas
 *   spt.weights         f32 [features]
 *   spt.words.stems     u64 [words], ascending: hashes of stems (text_hash)
 *   spt.words.rarity    f32 [words]
 *   spt.words.vectors   i8 [words][SPT_WIDTH], unit length x 127
 * A feature that the file does not know has weight 0; one that we do not know is an error. */
#include "memory/spt.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "memory/features_int.h"
#include "memory/spt_int.h"
#include "model/model.h"

struct spt {
    struct gguf *gguf;
    uint32_t words;
    const uint8_t *stems; /* unaligned */
    const uint8_t *rarities;
    const int8_t *vectors;
    float weights[FEATURE_COUNT];
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
    for (uint64_t i = 0; !status && i < weights.count; i++) {
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
        spt->weights[feature] = (float)gguf_array_number(&weights, i);
        at = end + 1;
    }
    return status;
}

static uint64_t stem_at(const struct spt *spt, uint32_t row)
{
    uint64_t stem;
    memcpy(&stem, spt->stems + (size_t)row * sizeof stem, sizeof stem);
    return stem;
}

static enum ph_status read_words(struct spt *spt, struct ph_err *err)
{
    struct gguf_array stems, rarities, vectors;
    enum ph_status status = find_array(spt, "spt.words.stems", GGUF_UINT64, 0, &stems, err);
    if (!status)
        status = find_array(spt, "spt.words.rarity", GGUF_FLOAT32, stems.count, &rarities, err);
    if (!status)
        status = find_array(spt, "spt.words.vectors", GGUF_INT8, stems.count * SPT_WIDTH, &vectors, err);
    if (status)
        return status;
    spt->words = (uint32_t)stems.count;
    spt->stems = stems.data;
    spt->rarities = rarities.data;
    spt->vectors = (const int8_t *)vectors.data;
    for (uint32_t i = 1; i < spt->words; i++)
        if (stem_at(spt, i) <= stem_at(spt, i - 1))
            return ph_fail(err, PH_ERR_FORMAT, "%s: spt.words.stems is not in order at %u",
                           gguf_path(spt->gguf), i);
    return PH_OK;
}

enum ph_status spt_open(struct spt **out, const char *path, struct ph_err *err)
{
    struct spt *spt = mem_calloc(1, sizeof *spt);
    if (!spt)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    struct gguf_string architecture;
    enum ph_status status = gguf_open(&spt->gguf, path, err);
    if (!status && (!gguf_get_string(spt->gguf, "general.architecture", &architecture) ||
                    architecture.len != 10 || memcmp(architecture.text, "pharos-spt", 10)))
        status = ph_fail(err, PH_ERR_FORMAT, "%s: not a selector, which `pharos train spt` makes", path);
    if (!status)
        status = read_weights(spt, err);
    if (!status)
        status = read_words(spt, err);
    if (status) {
        spt_close(spt);
        return status;
    }
    *out = spt;
    return PH_OK;
}

void spt_close(struct spt *spt)
{
    if (!spt)
        return;
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
    float rarity;
    memcpy(&rarity, spt->rarities + (size_t)row * sizeof rarity, sizeof rarity);
    return rarity;
}

const float *spt_weights(const struct spt *spt)
{
    return spt->weights;
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
