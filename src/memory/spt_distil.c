/* Word vectors that learn from an embedding model what whole texts mean.
 * The teacher's vectors of many texts are projected onto their SPT_WIDTH principal directions. Then each
 * word gets the vector, length included, whose sums over texts point where the teacher's do: the mean of 1
 * - cosine falls by Adam (distillation, Hinton et al. 2015, into a model that adds up words). A word's
 * length becomes its weight in a text, learned instead of guessed from its rarity. Answering a question
 * then costs no model at all. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/embedder.h"
#include "memory/embed.h"
#include "memory/spt_train_int.h"

#define SAMPLE_FILE_MAX 16000 /* texts of one file */
#define SENTENCE_BYTES_MIN 12
#define SENTENCE_BYTES_MAX 240
#define TEACHER_BATCH 64
#define TEACHER_WIDTH_MAX 1024
#define HELD_OUT 25 /* one text of so many is not learned from */
#define EPOCHS 8
#define BATCH 2048
#define RATE 0.02
#define TEXT_WORDS_MAX 256

/* ---- Sample ---- */

void spt_sample_file(struct spt_sample *sample)
{
    sample->first = sample->count;
    sample->seen = 0;
}

/* Reservoir (Vitter 1985): every sentence of a file has the same chance to stay. */
static enum ph_status offer(struct spt_sample *sample, const char *text, size_t len)
{
    size_t own = sample->count - sample->first, place = rng_u64(&sample->rng) % ++sample->seen;
    if (own == SAMPLE_FILE_MAX && place >= SAMPLE_FILE_MAX)
        return PH_OK;
    char *copy = mem_alloc(len + 1);
    if (!copy)
        return PH_ERR_NOMEM;
    memcpy(copy, text, len);
    copy[len] = 0;
    if (own == SAMPLE_FILE_MAX) {
        mem_free(sample->texts[sample->first + place]);
        sample->texts[sample->first + place] = copy;
        return PH_OK;
    }
    if (sample->count == sample->capacity) {
        size_t wanted = sample->capacity * 2 + 1024;
        char **grown = mem_realloc(sample->texts, wanted, sizeof *grown);
        if (!grown) {
            mem_free(copy);
            return PH_ERR_NOMEM;
        }
        sample->texts = grown;
        sample->capacity = wanted;
    }
    sample->texts[sample->count++] = copy;
    return PH_OK;
}

enum ph_status spt_sample_add(struct spt_sample *sample, const char *text, size_t len)
{
    enum ph_status status = PH_OK;
    for (size_t begin = 0, at = 0; at < len && status == PH_OK; at++) {
        bool ends = at + 1 == len || ((text[at] == '.' || text[at] == '!' || text[at] == '?') &&
                                      (text[at + 1] == ' ' || text[at + 1] == '\n'));
        if (!ends)
            continue;
        size_t bytes = at + 1 - begin;
        if (bytes >= SENTENCE_BYTES_MIN && bytes <= SENTENCE_BYTES_MAX)
            status = offer(sample, text + begin, bytes);
        begin = at + 1;
    }
    return status;
}

void spt_sample_release(struct spt_sample *sample)
{
    for (size_t i = 0; i < sample->count; i++)
        mem_free(sample->texts[i]);
    mem_free(sample->texts);
    *sample = (struct spt_sample){0};
}

/* ---- The teacher ---- */

struct lesson {
    const struct spt_word_table *words;
    size_t texts, width; /* of the teacher */
    float *said;         /* [texts][width], then [texts][SPT_WIDTH] in its first part */
    uint32_t *ids;       /* words, text after text */
    size_t *first;       /* [texts + 1] */
    float *learned;      /* [words][SPT_WIDTH] */
};

static const char *text_at(const struct lesson *lesson, const struct spt_sample *sample, size_t i)
{
    return i < sample->count ? sample->texts[i] : lesson->words->texts[i - sample->count];
}

static enum ph_status ask_teacher(struct lesson *lesson, const struct spt_sample *sample,
                                  struct embed_space *space, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < lesson->texts && status == PH_OK; i += TEACHER_BATCH) {
        struct embed_text batch[TEACHER_BATCH];
        size_t count = 0;
        for (; count < TEACHER_BATCH && i + count < lesson->texts; count++) {
            const char *text = text_at(lesson, sample, i + count);
            batch[count] = (struct embed_text){*text ? text : "-", *text ? strlen(text) : 1};
        }
        status = embed_texts(space, batch, count, false, lesson->said + i * lesson->width, err);
    }
    return status;
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return x[0] < y[0] ? 1 : x[0] > y[0] ? -1 : 0;
}

/* directions [SPT_WIDTH][width]: of the greatest variance; mean [width]. */
static bool principal(const struct lesson *lesson, double *mean, double *directions)
{
    size_t d = lesson->width;
    double *g = mem_calloc(d * d, sizeof *g), *v = mem_calloc(d * d, sizeof *v);
    double(*order)[2] = mem_calloc(d, sizeof *order);
    bool enough = g && v && order;
    for (size_t i = 0; enough && i < lesson->texts; i++)
        for (size_t k = 0; k < d; k++)
            mean[k] += (double)lesson->said[i * d + k] / (double)lesson->texts;
    for (size_t i = 0; enough && i < lesson->texts; i++)
        for (size_t k = 0; k < d; k++) {
            double a = (double)lesson->said[i * d + k] - mean[k];
            for (size_t l = 0; l <= k; l++)
                g[k * d + l] += a * ((double)lesson->said[i * d + l] - mean[l]);
        }
    for (size_t k = 0; enough && k < d; k++)
        for (size_t l = 0; l < k; l++)
            g[l * d + k] = g[k * d + l];
    if (enough) {
        symmetric_diagonalise(g, v, d);
        for (size_t k = 0; k < d; k++) {
            order[k][0] = g[k * d + k];
            order[k][1] = (double)k;
        }
        qsort(order, d, sizeof *order, by_value);
        for (size_t r = 0; r < SPT_WIDTH; r++)
            for (size_t k = 0; k < d; k++)
                directions[r * d + k] = v[k * d + (size_t)order[r][1]];
    }
    mem_free(g);
    mem_free(v);
    mem_free(order);
    return enough;
}

/* What the teacher said, in SPT_WIDTH numbers of length 1, in place. */
static bool project(struct lesson *lesson)
{
    size_t d = lesson->width;
    double *mean = mem_calloc(d, sizeof *mean), *directions = mem_calloc(SPT_WIDTH * d, sizeof *directions);
    bool enough = mean && directions && principal(lesson, mean, directions);
    for (size_t i = 0; enough && i < lesson->texts; i++) {
        double out[SPT_WIDTH], square = 1e-12;
        for (size_t r = 0; r < SPT_WIDTH; r++) {
            out[r] = 0;
            for (size_t k = 0; k < d; k++)
                out[r] += ((double)lesson->said[i * d + k] - mean[k]) * directions[r * d + k];
            square += out[r] * out[r];
        }
        for (size_t r = 0; r < SPT_WIDTH; r++) /* i * SPT_WIDTH is not beyond what was read */
            lesson->said[i * SPT_WIDTH + r] = (float)(out[r] / sqrt(square));
    }
    mem_free(mean);
    mem_free(directions);
    return enough;
}

/* ---- Learning ---- */

static uint32_t row_of(const struct spt_word_table *words, uint64_t stem)
{
    size_t low = 0, high = words->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (words->stems[middle] < stem)
            low = middle + 1;
        else
            high = middle;
    }
    return low < words->count && words->stems[low] == stem ? (uint32_t)low : UINT32_MAX;
}

static enum ph_status read_texts(struct lesson *lesson, const struct spt_sample *sample, struct ph_err *err)
{
    struct text_stemmer *stemmer;
    enum ph_status status = text_stemmer_create(&stemmer, NULL, err);
    size_t count = 0, capacity = 0;
    for (size_t i = 0; i < lesson->texts && status == PH_OK; i++) {
        struct text_reader reader;
        struct text_word word;
        const char *text = text_at(lesson, sample, i);
        lesson->first[i] = count;
        if (count + TEXT_WORDS_MAX > capacity) {
            capacity = capacity * 2 + 65536;
            uint32_t *grown = mem_realloc(lesson->ids, capacity, sizeof *grown);
            status = grown ? PH_OK : PH_ERR_NOMEM;
            lesson->ids = grown ? grown : lesson->ids;
        }
        text_reader_init(&reader, stemmer, text, strlen(text));
        while (status == PH_OK && count - lesson->first[i] < TEXT_WORDS_MAX && text_next(&reader, &word)) {
            uint32_t row = word.flags & TEXT_STOP ? UINT32_MAX : row_of(lesson->words, word.stem);
            if (row != UINT32_MAX)
                lesson->ids[count++] = row;
        }
        lesson->first[i + 1] = count;
    }
    text_stemmer_free(stemmer);
    return status;
}

/* The cosine of a text's sum with what the teacher said; its gradient times `rate` is taken from `slopes`,
 * where there are any. A text without a word says 0. */
static double compare(const struct lesson *lesson, size_t i, float *slopes)
{
    float sum[SPT_WIDTH] = {0};
    const float *said = lesson->said + i * SPT_WIDTH;
    double square = 1e-12, dot = 0;
    for (size_t w = lesson->first[i]; w < lesson->first[i + 1]; w++)
        for (size_t r = 0; r < SPT_WIDTH; r++)
            sum[r] += lesson->learned[(size_t)lesson->ids[w] * SPT_WIDTH + r];
    for (size_t r = 0; r < SPT_WIDTH; r++) {
        square += (double)(sum[r] * sum[r]);
        dot += (double)(sum[r] * said[r]);
    }
    double norm = sqrt(square), cosine = dot / norm;
    for (size_t w = lesson->first[i]; slopes && w < lesson->first[i + 1]; w++)
        for (size_t r = 0; r < SPT_WIDTH; r++)
            slopes[(size_t)lesson->ids[w] * SPT_WIDTH + r] -=
                (float)(((double)said[r] - cosine * (double)sum[r] / norm) / norm);
    return cosine;
}

/* Each word begins where the texts that have it point. */
static void begin(struct lesson *lesson)
{
    for (size_t i = 0; i < lesson->texts; i++)
        for (size_t w = lesson->first[i]; i % HELD_OUT && w < lesson->first[i + 1]; w++)
            for (size_t r = 0; r < SPT_WIDTH; r++)
                lesson->learned[(size_t)lesson->ids[w] * SPT_WIDTH + r] += lesson->said[i * SPT_WIDTH + r];
    for (size_t k = 0; k < lesson->words->count; k++) {
        float square = 1e-12f, *vector = lesson->learned + k * SPT_WIDTH;
        for (size_t r = 0; r < SPT_WIDTH; r++)
            square += vector[r] * vector[r];
        for (size_t r = 0; r < SPT_WIDTH; r++)
            vector[r] /= sqrtf(square);
    }
}

struct adam {
    float *slopes, *first, *second;
    uint64_t step;
};

static void adam_step(struct adam *adam, float *learned, size_t count, double rate)
{
    adam->step++;
    float c1 = (float)(1 - pow(0.9, (double)adam->step)), c2 = (float)(1 - pow(0.99, (double)adam->step));
    for (size_t i = 0; i < count; i++) {
        float g = adam->slopes[i];
        adam->first[i] = 0.9f * adam->first[i] + 0.1f * g;
        adam->second[i] = 0.99f * adam->second[i] + 0.01f * g * g;
        learned[i] -= (float)rate * (adam->first[i] / c1) / (sqrtf(adam->second[i] / c2) + 1e-8f);
        adam->slopes[i] = 0;
    }
}

static bool learn(struct lesson *lesson, uint64_t seed)
{
    size_t count = lesson->words->count * SPT_WIDTH;
    struct adam adam = {.slopes = mem_calloc(count, sizeof(float)),
                        .first = mem_calloc(count, sizeof(float)),
                        .second = mem_calloc(count, sizeof(float))};
    uint64_t *order = mem_calloc(lesson->texts + 1, sizeof *order);
    bool enough = adam.slopes && adam.first && adam.second && order;
    struct rng rng;
    rng_init(&rng, seed);
    for (size_t i = 0; enough && i < lesson->texts; i++)
        order[i] = i;
    for (int epoch = 0; enough && epoch < EPOCHS; epoch++) {
        rng_shuffle(&rng, order, lesson->texts);
        for (size_t i = 0; i < lesson->texts; i++) {
            if (order[i] % HELD_OUT)
                (void)compare(lesson, order[i], adam.slopes);
            if ((i + 1) % BATCH == 0 || i + 1 == lesson->texts)
                adam_step(&adam, lesson->learned, count, RATE * (1 - (double)epoch / EPOCHS));
        }
    }
    mem_free(adam.slopes);
    mem_free(adam.first);
    mem_free(adam.second);
    mem_free(order);
    return enough;
}

/* Directions and lengths; these between 0 and 1. */
static void write_words(const struct lesson *lesson, struct spt_word_table *words)
{
    float most = 1e-6f;
    for (size_t i = 0; i < words->count; i++) {
        float square = 0;
        for (size_t r = 0; r < SPT_WIDTH; r++)
            square += lesson->learned[i * SPT_WIDTH + r] * lesson->learned[i * SPT_WIDTH + r];
        words->weights[i] = sqrtf(square);
        most = fmaxf(most, words->weights[i]);
        spt_direction(lesson->learned + i * SPT_WIDTH, words->vectors + i * SPT_WIDTH);
    }
    for (size_t i = 0; i < words->count; i++)
        words->weights[i] /= most;
}

static double measure(const struct lesson *lesson, size_t sentences)
{
    double sum = 0, count = 0;
    for (size_t i = 0; i < sentences; i += HELD_OUT) {
        sum += compare(lesson, i, NULL);
        count++;
    }
    return count > 0 ? sum / count : 0;
}

static enum ph_status teach(struct lesson *lesson, const struct spt_sample *sample,
                            struct spt_word_table *words, struct embed_space *space, uint64_t seed,
                            struct ph_err *err)
{
    lesson->texts = sample->count + words->count;
    lesson->width = embed_space_width(space);
    if (lesson->width < SPT_WIDTH || lesson->width > TEACHER_WIDTH_MAX)
        return ph_fail(err, PH_ERR_UNSUPPORTED, "a teacher of %zu numbers: between %d and %d are possible",
                       lesson->width, SPT_WIDTH, TEACHER_WIDTH_MAX);
    lesson->said = mem_alloc(lesson->texts * lesson->width * sizeof *lesson->said);
    lesson->first = mem_calloc(lesson->texts + 2, sizeof *lesson->first);
    lesson->learned = mem_calloc(words->count * SPT_WIDTH, sizeof *lesson->learned);
    if (!lesson->said || !lesson->first || !lesson->learned)
        return PH_ERR_NOMEM;
    enum ph_status status = ask_teacher(lesson, sample, space, err);
    if (status == PH_OK)
        status = project(lesson) ? read_texts(lesson, sample, err) : PH_ERR_NOMEM;
    if (status != PH_OK)
        return status;
    begin(lesson);
    return learn(lesson, seed) ? PH_OK : PH_ERR_NOMEM;
}

enum ph_status spt_distil(struct spt_word_table *words, const struct spt_sample *sample, const char *teacher,
                          uint64_t seed, double *agreement, struct ph_err *err)
{
    struct lesson lesson = {.words = words};
    struct embedder *embedder = NULL;
    struct embed_space *space = NULL;
    enum ph_status status = embedder_open(&embedder, &(struct embedder_params){.model_path = teacher}, err);
    if (status == PH_OK)
        status = embed_space_of_model(&space, embedder, err);
    if (status == PH_OK)
        status = teach(&lesson, sample, words, space, seed, err);
    if (status == PH_OK) {
        *agreement = measure(&lesson, sample->count);
        write_words(&lesson, words);
    }
    embed_space_free(space);
    embedder_free(embedder);
    mem_free(lesson.said);
    mem_free(lesson.first);
    mem_free(lesson.ids);
    mem_free(lesson.learned);
    return status == PH_ERR_NOMEM ? ph_fail(err, status, "out of memory for learning from %s", teacher)
                                  : status;
}
