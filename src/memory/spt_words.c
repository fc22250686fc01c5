/* Word vectors from plain text: positive pointwise mutual information of words near each other, and the
 * eigenvectors of that matrix (Levy and Goldberg 2014; Levy, Goldberg and Dagan 2015), found by subspace
 * iteration (Halko, Martinsson and Tropp 2011). Two minutes for 50 MB of text, the same on every machine
 * up to rounding.
 * Words are stems, so that one row serves all forms. Stop words take no part. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "memory/index_int.h"
#include "memory/spt_words_int.h"

#define COUNT_MIN 5
#define WINDOW 6       /* words to either side */
#define SMOOTHING 0.75 /* of contexts' counts */
#define RANK (SPT_WIDTH + 16)
#define ROUNDS 7
#define RARITY 1e-3    /* smooth inverse frequency (Arora, Liang and Ma 2017) */
#define END UINT32_MAX /* between texts */
#define TOKENS_MAX (1u << 27)
#define PAIRS_MAX (1u << 25)

struct spt_words {
    struct text_stemmer *stemmer;
    struct hash_table known;
    uint64_t *stems;
    uint32_t *counts;
    char (*texts)[SPT_WORD_TEXT]; /* as first written, cut */
    size_t word_count, word_capacity;
    uint32_t *tokens;
    size_t token_count, token_capacity;
};

enum ph_status spt_words_create(struct spt_words **out, struct ph_err *err)
{
    struct spt_words *words = mem_calloc(1, sizeof *words);
    if (!words)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    enum ph_status status = text_stemmer_create(&words->stemmer, NULL, err);
    if (status) {
        mem_free(words);
        return status;
    }
    *out = words;
    return PH_OK;
}

void spt_words_free(struct spt_words *words)
{
    if (!words)
        return;
    text_stemmer_free(words->stemmer);
    mem_free(words->known.slots);
    mem_free(words->stems);
    mem_free(words->counts);
    mem_free(words->texts);
    mem_free(words->tokens);
    mem_free(words);
}

static bool room(struct spt_words *words)
{
    if (words->token_count + 2 > words->token_capacity) {
        size_t wanted = words->token_capacity * 2 + 65536;
        uint32_t *tokens = mem_realloc(words->tokens, wanted, sizeof *tokens);
        if (!tokens)
            return false;
        words->tokens = tokens;
        words->token_capacity = wanted;
    }
    if (words->word_count == words->word_capacity) {
        size_t wanted = words->word_capacity * 2 + 4096;
        uint64_t *stems = mem_realloc(words->stems, wanted, sizeof *stems);
        if (!stems)
            return false;
        words->stems = stems;
        uint32_t *counts = mem_realloc(words->counts, wanted, sizeof *counts);
        if (!counts)
            return false;
        words->counts = counts;
        char(*texts)[SPT_WORD_TEXT] = mem_realloc(words->texts, wanted, sizeof *texts);
        if (!texts)
            return false;
        words->texts = texts;
        words->word_capacity = wanted;
    }
    return hash_table_reserve(&words->known, 1);
}

enum ph_status spt_words_add(struct spt_words *words, const char *text, size_t len)
{
    struct text_reader reader;
    struct text_word word;
    text_reader_init(&reader, words->stemmer, text, len);
    while (text_next(&reader, &word)) {
        if (word.flags & TEXT_STOP)
            continue;
        if (words->token_count >= TOKENS_MAX)
            return PH_ERR_LIMIT;
        if (!room(words))
            return PH_ERR_NOMEM;
        uint32_t id = hash_table_find(&words->known, word.stem);
        if (id == INDEX_NONE) {
            id = (uint32_t)words->word_count++;
            words->stems[id] = word.stem;
            words->counts[id] = 0;
            snprintf(words->texts[id], SPT_WORD_TEXT, "%.*s", SPT_WORD_TEXT - 1, word.folded);
            hash_table_put(&words->known, word.stem, id);
        }
        words->counts[id]++;
        words->tokens[words->token_count++] = id;
    }
    if (!room(words))
        return PH_ERR_NOMEM;
    words->tokens[words->token_count++] = END;
    return PH_OK;
}

/* ---- The matrix ---- */

struct sparse { /* symmetric, rows of [first[i], first[i + 1]) */
    size_t rows;
    size_t *first;
    uint32_t *columns;
    float *values;
};

static void sparse_release(struct sparse *m)
{
    mem_free(m->first);
    mem_free(m->columns);
    mem_free(m->values);
}

struct ranked_word {
    uint32_t count, id;
    uint64_t stem;
};

static int by_count(const void *a, const void *b)
{
    const struct ranked_word *x = a, *y = b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return x->stem < y->stem ? -1 : x->stem > y->stem;
}

static int by_stem(const void *a, const void *b)
{
    const struct ranked_word *x = a, *y = b;
    return x->stem < y->stem ? -1 : x->stem > y->stem;
}

/* The commonest words, in the order of their stems; the others' tokens become END + nothing: `row_of`
 * says. */
static struct ranked_word *choose_words(const struct spt_words *words, size_t max, size_t *count,
                                        uint32_t *row_of)
{
    struct ranked_word *all = mem_alloc((words->word_count + 1) * sizeof *all);
    if (!all)
        return NULL;
    size_t n = 0;
    for (size_t i = 0; i < words->word_count; i++) {
        row_of[i] = END;
        if (words->counts[i] >= COUNT_MIN)
            all[n++] = (struct ranked_word){words->counts[i], (uint32_t)i, words->stems[i]};
    }
    qsort(all, n, sizeof *all, by_count);
    n = n < max ? n : max;
    qsort(all, n, sizeof *all, by_stem);
    for (size_t i = 0; i < n; i++)
        row_of[all[i].id] = (uint32_t)i;
    *count = n;
    return all;
}

/* Pairs in a window, near ones count more: key 1 + row * rows + column with row <= column. */
static enum ph_status count_pairs(const struct spt_words *words, const uint32_t *row_of, size_t rows,
                                  struct hash_table *pairs)
{
    static const uint32_t share[WINDOW + 1] = {0, 12, 6, 4, 3, 2, 2};
    for (size_t i = 0; i < words->token_count; i++) {
        uint32_t a = words->tokens[i] == END ? END : row_of[words->tokens[i]];
        if (a == END)
            continue;
        for (size_t d = 1; d <= WINDOW && i + d < words->token_count; d++) {
            uint32_t token = words->tokens[i + d];
            if (token == END)
                break;
            uint32_t b = row_of[token];
            if (b == END || a == b)
                continue;
            uint64_t key = 1 + (a < b ? (uint64_t)a * rows + b : (uint64_t)b * rows + a);
            if (pairs->count >= PAIRS_MAX || !hash_table_reserve(pairs, 1))
                return PH_ERR_NOMEM;
            hash_table_add(pairs, key, share[d]);
        }
    }
    return PH_OK;
}

static enum ph_status build_matrix(const struct hash_table *pairs, size_t rows, struct sparse *m)
{
    double *sums = mem_calloc(rows, sizeof *sums);
    m->rows = rows;
    m->first = mem_calloc(rows + 2, sizeof *m->first);
    m->columns = mem_alloc((pairs->count * 2 + 1) * sizeof *m->columns);
    m->values = mem_alloc((pairs->count * 2 + 1) * sizeof *m->values);
    if (!sums || !m->first || !m->columns || !m->values) {
        mem_free(sums);
        return PH_ERR_NOMEM;
    }
    double total = 0, smoothed = 0;
    for (size_t s = 0; s < pairs->capacity; s++)
        if (pairs->slots[s].key) {
            uint64_t key = pairs->slots[s].key - 1;
            sums[key / rows] += pairs->slots[s].value;
            sums[key % rows] += pairs->slots[s].value;
        }
    for (size_t i = 0; i < rows; i++) {
        total += sums[i];
        smoothed += pow(sums[i], SMOOTHING);
    }
    for (size_t pass = 0; pass < 2; pass++) { /* count rows, then fill them */
        for (size_t s = 0; s < pairs->capacity; s++) {
            if (!pairs->slots[s].key)
                continue;
            size_t a = (pairs->slots[s].key - 1) / rows, b = (pairs->slots[s].key - 1) % rows;
            double joint = (double)pairs->slots[s].value / total;
            double expect_ab = sums[a] / total * pow(sums[b], SMOOTHING) / smoothed;
            double expect_ba = sums[b] / total * pow(sums[a], SMOOTHING) / smoothed;
            float value = (float)(0.5 * (log(joint / expect_ab) + log(joint / expect_ba)));
            if (value <= 0)
                continue;
            if (!pass) {
                m->first[a + 2]++;
                m->first[b + 2]++;
                continue;
            }
            m->columns[m->first[a + 1]] = (uint32_t)b;
            m->values[m->first[a + 1]++] = value;
            m->columns[m->first[b + 1]] = (uint32_t)a;
            m->values[m->first[b + 1]++] = value;
        }
        for (size_t i = 0; !pass && i < rows; i++)
            m->first[i + 2] += m->first[i + 1];
    }
    mem_free(sums);
    return PH_OK;
}

/* ---- Its eigenvectors ---- */

/* y [rows][RANK] = m x. */
static void multiply(const struct sparse *m, const float *x, float *y)
{
    for (size_t i = 0; i < m->rows; i++) {
        float sum[RANK] = {0};
        for (size_t k = m->first[i]; k < m->first[i + 1]; k++) {
            const float *row = x + (size_t)m->columns[k] * RANK;
            for (size_t r = 0; r < RANK; r++)
                sum[r] += m->values[k] * row[r];
        }
        memcpy(y + i * RANK, sum, sizeof sum);
    }
}

/* g [RANK][RANK] = x^T y */
static void inner(const float *x, const float *y, size_t rows, double *g)
{
    memset(g, 0, RANK * RANK * sizeof *g);
    for (size_t i = 0; i < rows; i++)
        for (size_t a = 0; a < RANK; a++) {
            double xa = (double)x[i * RANK + a];
            for (size_t b = 0; b < RANK; b++)
                g[a * RANK + b] += xa * (double)y[i * RANK + b];
        }
}

/* Columns of y become orthonormal: y L^-T with y^T y = L L^T (Cholesky). */
static void orthonormalise(float *y, size_t rows, double *g)
{
    inner(y, y, rows, g);
    for (size_t a = 0; a < RANK; a++)
        for (size_t b = 0; b <= a; b++) {
            double sum = g[a * RANK + b];
            for (size_t k = 0; k < b; k++)
                sum -= g[a * RANK + k] * g[b * RANK + k];
            g[a * RANK + b] = a == b ? sqrt(fmax(sum, 1e-12)) : sum / g[b * RANK + b];
        }
    for (size_t i = 0; i < rows; i++)
        for (size_t a = 0; a < RANK; a++) {
            double sum = (double)y[i * RANK + a];
            for (size_t k = 0; k < a; k++)
                sum -= g[a * RANK + k] * (double)y[i * RANK + k];
            y[i * RANK + a] = (float)(sum / g[a * RANK + a]);
        }
}

void symmetric_diagonalise(double *g, double *v, size_t n)
{
    memset(v, 0, n * n * sizeof *v);
    for (size_t i = 0; i < n; i++)
        v[i * n + i] = 1;
    for (int sweep = 0; sweep < 12; sweep++)
        for (size_t p = 0; p + 1 < n; p++)
            for (size_t q = p + 1; q < n; q++) {
                double apq = g[p * n + q];
                if (fabs(apq) < 1e-12)
                    continue;
                double theta = (g[q * n + q] - g[p * n + p]) / (2 * apq);
                double t = (theta >= 0 ? 1 : -1) / (fabs(theta) + sqrt(theta * theta + 1));
                double c = 1 / sqrt(t * t + 1), s = t * c;
                for (size_t k = 0; k < n; k++) {
                    double kp = g[k * n + p], kq = g[k * n + q];
                    g[k * n + p] = c * kp - s * kq;
                    g[k * n + q] = s * kp + c * kq;
                }
                for (size_t k = 0; k < n; k++) {
                    double pk = g[p * n + k], qk = g[q * n + k];
                    g[p * n + k] = c * pk - s * qk;
                    g[q * n + k] = s * pk + c * qk;
                    double vp = v[k * n + p], vq = v[k * n + q];
                    v[k * n + p] = c * vp - s * vq;
                    v[k * n + q] = s * vp + c * vq;
                }
            }
}

/* The SPT_WIDTH greatest eigenvalues' directions, each times the root of its value. */
static void project(const float *x, size_t rows, const double *values, const double *v, int8_t *out)
{
    size_t order[RANK];
    for (size_t i = 0; i < RANK; i++) {
        size_t at = i;
        while (at && values[order[at - 1] * RANK + order[at - 1]] < values[i * RANK + i]) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = i;
    }
    for (size_t i = 0; i < rows; i++) {
        float sum[SPT_WIDTH];
        for (size_t d = 0; d < SPT_WIDTH; d++) {
            double value = 0, lambda = values[order[d] * RANK + order[d]];
            for (size_t k = 0; k < RANK; k++)
                value += (double)x[i * RANK + k] * v[k * RANK + order[d]];
            sum[d] = (float)(value * sqrt(lambda > 0 ? lambda : 0));
        }
        spt_direction(sum, out + i * SPT_WIDTH);
    }
}

static enum ph_status factorise(const struct sparse *m, uint64_t seed, int8_t *out)
{
    float *x = mem_alloc(m->rows * RANK * sizeof *x), *y = mem_alloc(m->rows * RANK * sizeof *y);
    double *g = mem_alloc(RANK * RANK * sizeof *g), *v = mem_alloc(RANK * RANK * sizeof *v);
    bool enough = x && y && g && v;
    if (enough) {
        struct rng rng;
        rng_init(&rng, seed);
        for (size_t i = 0; i < m->rows * RANK; i++)
            x[i] = rng_float(&rng) - 0.5f;
        for (int round = 0; round < ROUNDS; round++) {
            multiply(m, x, y);
            orthonormalise(y, m->rows, g);
            float *kept = x;
            x = y;
            y = kept;
        }
        multiply(m, x, y);
        inner(x, y, m->rows, g);
        symmetric_diagonalise(g, v, RANK);
        project(x, m->rows, g, v, out);
    }
    mem_free(x);
    mem_free(y);
    mem_free(g);
    mem_free(v);
    return enough ? PH_OK : PH_ERR_NOMEM;
}

enum ph_status spt_words_train(const struct spt_words *words, size_t max, uint64_t seed,
                               struct spt_word_table *table, struct ph_err *err)
{
    struct hash_table pairs = {0};
    struct sparse matrix = {0};
    size_t rows = 0;
    *table = (struct spt_word_table){0};
    uint32_t *row_of = mem_alloc((words->word_count + 1) * sizeof *row_of);
    struct ranked_word *chosen = row_of ? choose_words(words, max, &rows, row_of) : NULL;
    enum ph_status status = chosen ? PH_OK : PH_ERR_NOMEM;
    if (!status && rows < RANK)
        status =
            ph_fail(err, PH_ERR_ARG, "the texts have only %zu words %d times or more; at least %d are needed",
                    rows, COUNT_MIN, RANK);
    else if (!status)
        status = count_pairs(words, row_of, rows, &pairs);
    if (!status)
        status = build_matrix(&pairs, rows, &matrix);
    mem_free(pairs.slots);
    if (!status) {
        table->count = rows;
        table->stems = mem_alloc(rows * sizeof *table->stems);
        table->rarities = mem_alloc(rows * sizeof *table->rarities);
        table->weights = mem_alloc(rows * sizeof *table->weights);
        table->vectors = mem_alloc(rows * SPT_WIDTH);
        table->texts = mem_calloc(rows, sizeof *table->texts);
        status = table->stems && table->rarities && table->weights && table->vectors && table->texts
                     ? factorise(&matrix, seed, table->vectors)
                     : PH_ERR_NOMEM;
    }
    for (size_t i = 0; !status && i < rows; i++) {
        double share = (double)chosen[i].count / (double)words->token_count;
        table->stems[i] = chosen[i].stem;
        snprintf(table->texts[i], SPT_WORD_TEXT, "%s", words->texts[chosen[i].id]);
        table->rarities[i] = (float)(RARITY / (RARITY + share));
        table->weights[i] = table->rarities[i];
    }
    sparse_release(&matrix);
    mem_free(chosen);
    mem_free(row_of);
    if (status)
        spt_word_table_release(table);
    return status == PH_ERR_NOMEM ? ph_fail(err, status, "out of memory for word vectors") : status;
}

void spt_word_table_release(struct spt_word_table *table)
{
    mem_free(table->stems);
    mem_free(table->rarities);
    mem_free(table->weights);
    mem_free(table->vectors);
    mem_free(table->texts);
    *table = (struct spt_word_table){0};
}
