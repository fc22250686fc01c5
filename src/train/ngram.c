/* n-gram models: counting by sorting, a trie of counts, and probabilities straight from the formula.
 *
 * Counting. Positions of the stream are sorted by the k tokens that begin there, for k = 1, 2, ..., order. A
 * list sorted by k tokens becomes one sorted by k + 1 when every position p + 1, in the list's order, is
 * dealt to the bucket of the token at p: a stable counting sort, least significant token first, nothing
 * compared. Equal n-grams are now neighbours and get their number, which is their place in the order.
 *   N1 A level's n-grams are in lexicographic order. So those that go on from n-gram g of level k are
 *      neighbours, [child[g], child[g + 1]) of level k + 1, in order of their last token: the levels are a
 *      trie.
 *   N2 numbers[p] of level k is the n-gram at p, for every p <= tokens - k; of level 0 it is 0.
 * An n-gram of level k + 1 at p has numbers[p] of level k for its context and numbers[p + 1] for its ending,
 * which thereby has one more different token before it: the counts of Kneser and Ney take no further look.
 *
 * Memory is three arrays of the stream's length while counting (a list that was dealt out becomes the next
 * numbers), and the levels. Rejected: hash tables, which need more memory and jump about in it.
 *
 * Probabilities are not stored: counts and sums of a context are, as integers, and the formula is computed
 * when asked. Looking up is a bisection a token of history. */
#include "train/ngram.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"

#define PROGRESS_TOKENS 65536
#define LEVEL_PASSES 3
#define SCALE_COUNTS 4 /* counts of counts that discounts come from */

/* What follows a context. */
struct sums {
    uint32_t total, ones, twos;
};

struct level {
    size_t count;
    uint32_t *word;    /* [count] last token */
    uint32_t *seen;    /* [count] times, or of lower levels: different tokens before it */
    uint32_t *child;   /* [count + 1] N1; NULL: this is the highest level */
    struct sums *sums; /* [count] of the children; NULL: as above */
};

struct ngram {
    size_t n_vocab;
    struct level levels[NGRAM_ORDER_MAX + 1]; /* level 0 has one n-gram, of no tokens */
    struct ngram_stats stats;
};

/* ---- Memory that is accounted for */

static void *take(struct ngram *m, size_t count, size_t size)
{
    void *memory = mem_calloc(count, size);
    if (memory)
        m->stats.bytes += (uint64_t)count * size;
    if (m->stats.bytes > m->stats.bytes_peak)
        m->stats.bytes_peak = m->stats.bytes;
    return memory;
}

static bool take_level(struct ngram *m, struct level *level, size_t count)
{
    level->count = count;
    level->word = take(m, count, sizeof *level->word);
    level->seen = take(m, count, sizeof *level->seen);
    return level->word && level->seen;
}

void ngram_free(struct ngram *ngram)
{
    if (!ngram)
        return;
    for (size_t k = 0; k <= NGRAM_ORDER_MAX; k++) {
        mem_free(ngram->levels[k].word);
        mem_free(ngram->levels[k].seen);
        mem_free(ngram->levels[k].child);
        mem_free(ngram->levels[k].sums);
    }
    mem_free(ngram);
}

/* ---- Counting */

struct counting {
    struct ngram *model;
    const int32_t *tokens;
    size_t count;
    uint32_t *sorted;  /* [count + 1] positions, by the tokens of the present level */
    uint32_t *numbers; /* [count + 1] N2 */
    uint32_t *spare;   /* [count + 1] */
    uint32_t *bucket;  /* [n_vocab + 1] */
    void (*progress)(void *ud, uint64_t done, uint64_t total);
    void *ud;
    uint64_t passes; /* over the stream, done */
};

/* From level k: the positions where k + 1 tokens are left, sorted by them, in `spare`. */
static void sort_positions(struct counting *c, size_t k)
{
    size_t listed = c->count + 1 - k;
    memset(c->bucket, 0, (c->model->n_vocab + 1) * sizeof *c->bucket);
    for (size_t p = 0; p + 1 < listed; p++)
        c->bucket[c->tokens[p] + 1]++;
    for (size_t t = 1; t <= c->model->n_vocab; t++)
        c->bucket[t] += c->bucket[t - 1];
    for (size_t i = 0; i < listed; i++) {
        uint32_t next = c->sorted[i];
        if (next > 0)
            c->spare[c->bucket[c->tokens[next - 1]]++] = next - 1;
    }
}

static bool same_gram(const struct counting *c, uint32_t a, uint32_t b)
{
    return c->tokens[a] == c->tokens[b] && c->numbers[a + 1] == c->numbers[b + 1];
}

/* Numbers the n-grams of level k + 1, in the list that `spare` replaces. Answers how many there are. */
static size_t number_grams(struct counting *c, size_t k)
{
    uint32_t *list = c->spare, *numbers = c->sorted;
    size_t grams = 0;
    for (size_t i = 0; i < c->count - k; i++) {
        grams += i == 0 || !same_gram(c, list[i - 1], list[i]);
        numbers[list[i]] = (uint32_t)(grams - 1);
    }
    return grams;
}

/* Fills level k + 1, the children of level k, and the different tokens before each n-gram of level k. */
static void fill_level(struct counting *c, size_t k)
{
    struct level *level = &c->model->levels[k], *next = &c->model->levels[k + 1];
    const uint32_t *list = c->spare, *next_numbers = c->sorted;
    uint32_t context = 0;
    memset(level->seen, 0, level->count * sizeof *level->seen);
    level->seen[c->numbers[0]] = 1; /* what lies before the stream */
    for (size_t i = 0, gram = 0; i < c->count - k; i++) {
        uint32_t p = list[i];
        next->seen[next_numbers[p]]++;
        if (i > 0 && next_numbers[p] == gram)
            continue;
        gram = next_numbers[p];
        next->word[gram] = (uint32_t)c->tokens[p + k];
        level->seen[c->numbers[p + 1]]++;
        for (; context <= c->numbers[p]; context++)
            level->child[context] = (uint32_t)gram;
    }
    for (; context <= level->count; context++)
        level->child[context] = (uint32_t)next->count;
}

static void pass_done(struct counting *c)
{
    c->passes++;
    if (c->progress)
        c->progress(c->ud, c->passes, LEVEL_PASSES * c->model->stats.order);
}

static bool count_level(struct counting *c, size_t k)
{
    struct level *level = &c->model->levels[k];
    sort_positions(c, k);
    pass_done(c);
    size_t grams = number_grams(c, k);
    pass_done(c);
    level->child = take(c->model, level->count + 1, sizeof *level->child);
    if (!level->child || !take_level(c->model, &c->model->levels[k + 1], grams))
        return false;
    fill_level(c, k);
    pass_done(c);
    uint32_t *list = c->spare;
    c->spare = c->numbers;
    c->numbers = c->sorted;
    c->sorted = list;
    return true;
}

static bool begin_counting(struct counting *c)
{
    struct ngram *m = c->model;
    c->sorted = take(m, c->count + 1, sizeof *c->sorted);
    c->numbers = take(m, c->count + 1, sizeof *c->numbers);
    c->spare = take(m, c->count + 1, sizeof *c->spare);
    c->bucket = take(m, m->n_vocab + 1, sizeof *c->bucket);
    if (!c->sorted || !c->numbers || !c->spare || !c->bucket || !take_level(m, &m->levels[0], 1))
        return false;
    for (size_t i = 0; i <= c->count; i++)
        c->sorted[i] = (uint32_t)i;
    return true;
}

static void end_counting(struct counting *c)
{
    mem_free(c->sorted);
    mem_free(c->numbers);
    mem_free(c->spare);
    mem_free(c->bucket);
    c->model->stats.bytes -= 3 * (c->count + 1) * sizeof *c->sorted;
    c->model->stats.bytes -= (c->model->n_vocab + 1) * sizeof *c->bucket;
}

/* ---- Smoothing */

static bool add_sums(struct ngram *m, size_t k)
{
    struct level *level = &m->levels[k];
    const struct level *next = level + 1;
    level->sums = take(m, level->count, sizeof *level->sums);
    for (size_t g = 0; level->sums && g < level->count; g++) {
        struct sums *s = &level->sums[g];
        for (size_t i = level->child[g]; i < level->child[g + 1]; i++) {
            s->total += next->seen[i];
            s->ones += next->seen[i] == 1;
            s->twos += next->seen[i] == 2;
        }
    }
    return level->sums != NULL;
}

/* Chen and Goodman's estimates, where they are discounts at all: with few n-grams they may not be, as with
 * single tokens of a small vocabulary, nearly all of which follow many others. Then half of each count up to
 * three goes. */
static void estimate_discounts(const struct level *level, double discounts[NGRAM_DISCOUNTS])
{
    uint64_t of_count[SCALE_COUNTS + 1] = {0};
    bool usable = true;
    for (size_t g = 0; g < level->count; g++)
        if (level->seen[g] <= SCALE_COUNTS)
            of_count[level->seen[g]]++;
    for (size_t c = 1; c <= SCALE_COUNTS; c++)
        usable = usable && of_count[c] > 0;
    double scale = usable ? (double)of_count[1] / ((double)of_count[1] + 2 * (double)of_count[2]) : 0;
    for (size_t c = 1; c <= NGRAM_DISCOUNTS; c++) {
        double d =
            usable ? (double)c - (double)(c + 1) * scale * (double)of_count[c + 1] / (double)of_count[c] : 0;
        usable = usable && d > 0;
        discounts[c - 1] = d;
    }
    for (size_t c = 1; !usable && c <= NGRAM_DISCOUNTS; c++)
        discounts[c - 1] = (double)c / 2;
}

static bool smooth(struct ngram *m)
{
    for (size_t k = 0; k < m->stats.order; k++) {
        if (!add_sums(m, k))
            return false;
        m->stats.grams[k] = m->levels[k + 1].count;
        estimate_discounts(&m->levels[k + 1], m->stats.discounts[k]);
    }
    return true;
}

/* ---- Creating */

static enum ph_status check_input(const int32_t *tokens, size_t count, size_t n_vocab, size_t order,
                                  struct ph_err *err)
{
    if (order < 1 || order > NGRAM_ORDER_MAX)
        return ph_fail(err, PH_ERR_ARG, "an n-gram model of order %zu: give between 1 and %d", order,
                       NGRAM_ORDER_MAX);
    if (count < order)
        return ph_fail(err, PH_ERR_ARG, "%zu tokens to train on are too few for n-grams of %zu", count,
                       order);
    if (count >= UINT32_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%zu tokens: an n-gram model is trained on less than 2^32", count);
    for (size_t i = 0; i < count; i++)
        if (tokens[i] < 0 || (size_t)tokens[i] >= n_vocab)
            return ph_fail(err, PH_ERR_ARG, "token %zu is %" PRId32 ", out of a vocabulary of %zu", i,
                           tokens[i], n_vocab);
    return PH_OK;
}

enum ph_status ngram_create(struct ngram **out, const int32_t *tokens, size_t count, size_t n_vocab,
                            size_t order, void (*progress)(void *ud, uint64_t done, uint64_t total), void *ud,
                            struct ph_err *err)
{
    *out = NULL;
    enum ph_status status = check_input(tokens, count, n_vocab, order, err);
    if (status != PH_OK)
        return status;
    struct ngram *m = mem_calloc(1, sizeof *m);
    if (!m)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for an n-gram model");
    m->n_vocab = n_vocab;
    m->stats.order = order;
    m->stats.tokens = count;
    struct counting c = {.model = m, .tokens = tokens, .count = count, .progress = progress, .ud = ud};
    bool ok = begin_counting(&c);
    for (size_t k = 0; ok && k < order; k++)
        ok = count_level(&c, k);
    end_counting(&c);
    if (!ok || !smooth(m)) {
        uint64_t bytes = m->stats.bytes_peak;
        ngram_free(m);
        return ph_fail(err, PH_ERR_NOMEM,
                       "no memory for n-grams of %zu over %zu tokens (%" PRIu64
                       " MB were not enough); lower the order",
                       order, count, bytes >> 20);
    }
    *out = m;
    return PH_OK;
}

enum ph_status ngram_train(struct ngram **out, const struct corpus *const *corpora, size_t count,
                           size_t order, void (*progress)(void *ud, uint64_t done, uint64_t total), void *ud,
                           struct ph_err *err)
{
    uint64_t n_tokens = 0;
    *out = NULL;
    for (size_t i = 0; i < count; i++) {
        if (corpus_params(corpora[i])->vocab_hash != corpus_params(corpora[0])->vocab_hash ||
            corpus_params(corpora[i])->n_vocab != corpus_params(corpora[0])->n_vocab)
            return ph_fail(err, PH_ERR_ARG,
                           "data file %zu was made with another tokenizer than the first; make it again with "
                           "pharos train data",
                           i + 1);
        n_tokens += corpus_totals(corpora[i], CORPUS_TRAIN)->tokens;
    }
    if (n_tokens == 0)
        return ph_fail(err, PH_ERR_ARG, "the data have no tokens to train on");
    int32_t *tokens = mem_calloc((size_t)n_tokens, sizeof *tokens), *end = tokens;
    if (!tokens)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for %" PRIu64 " tokens", n_tokens);
    for (size_t i = 0; i < count; i++)
        end = corpus_copy(corpora[i], CORPUS_TRAIN, end);
    enum ph_status status = ngram_create(out, tokens, (size_t)n_tokens, corpus_params(corpora[0])->n_vocab,
                                         order, progress, ud, err);
    mem_free(tokens);
    if (status == PH_OK)
        (*out)->stats.bytes_peak += n_tokens * sizeof *tokens;
    return status;
}

void ngram_stats(const struct ngram *ngram, struct ngram_stats *out)
{
    *out = ngram->stats;
}

/* ---- Probabilities */

#define NO_GRAM SIZE_MAX

/* The n-gram of level k + 1 that goes on from `context` with `word`. */
static size_t find_child(const struct ngram *m, size_t k, size_t context, uint32_t word)
{
    const uint32_t *words = m->levels[k + 1].word;
    size_t low = m->levels[k].child[context], end = m->levels[k].child[context + 1], high = end;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (words[middle] < word)
            low = middle + 1;
        else
            high = middle;
    }
    return low < end && words[low] == word ? low : NO_GRAM;
}

/* The n-gram that tokens[first..end) are. */
static size_t find_context(const struct ngram *m, const int32_t *tokens, size_t first, size_t end)
{
    size_t context = 0;
    for (size_t i = first; i < end && context != NO_GRAM; i++)
        context = find_child(m, i - first, context, (uint32_t)tokens[i]);
    return context;
}

/* The formula of ngram.h, for a context of k tokens that was seen. */
static double interpolate(const struct ngram *m, size_t k, size_t context, uint32_t word, double lower)
{
    const struct level *level = &m->levels[k];
    const struct sums *s = &level->sums[context];
    const double *discount = m->stats.discounts[k];
    size_t gram = find_child(m, k, context, word);
    uint32_t children = level->child[context + 1] - level->child[context];
    double freed =
        discount[0] * s->ones + discount[1] * s->twos + discount[2] * (children - s->ones - s->twos);
    double kept = 0;
    if (gram != NO_GRAM) {
        uint32_t seen = level[1].seen[gram];
        kept = seen - discount[(seen < NGRAM_DISCOUNTS ? seen : NGRAM_DISCOUNTS) - 1];
    }
    return (kept + freed * lower) / s->total;
}

double ngram_probability(const struct ngram *ngram, const int32_t *history, size_t len, int32_t token)
{
    double p = 1 / (double)ngram->n_vocab;
    for (size_t k = 0; k < ngram->stats.order && k <= len; k++) {
        size_t context = find_context(ngram, history, len - k, len);
        if (context == NO_GRAM || ngram->levels[k].sums[context].total == 0)
            break; /* so no longer one was seen */
        p = interpolate(ngram, k, context, (uint32_t)token, p);
    }
    return p;
}

/* ---- Scoring */

struct scoring {
    const struct ngram *model;
    uint64_t at, end; /* tokens of the stream, how many of them there are to see */
    double mean_bytes;
    const uint32_t *piece_bytes;
    int32_t history[NGRAM_ORDER_MAX];
    size_t len;
};

static void add_loss(struct ngram_loss *loss, double nats, double bytes)
{
    loss->tokens++;
    loss->nats += nats;
    loss->bytes += bytes;
}

static void score_token(struct scoring *s, int32_t token, bool target, struct ngram_score *score)
{
    if (s->at++ > 0) {
        double nats = -log(ngram_probability(s->model, s->history, s->len, token));
        double bytes = s->piece_bytes ? s->piece_bytes[token] : s->mean_bytes;
        add_loss(&score->all, nats, bytes);
        if (target)
            add_loss(&score->targets, nats, bytes);
    }
    if (s->len == NGRAM_ORDER_MAX)
        memmove(s->history, s->history + 1, --s->len * sizeof *s->history);
    s->history[s->len++] = token;
}

void ngram_score(const struct ngram *ngram, const struct corpus *corpus, enum corpus_part part, size_t time,
                 const uint32_t *piece_bytes, struct ngram_score *score,
                 void (*progress)(void *ud, uint64_t done, uint64_t total), void *ud)
{
    const struct corpus_totals *totals = corpus_totals(corpus, part);
    uint64_t docs = corpus_totals(corpus, CORPUS_ALL)->documents;
    struct scoring s = {.model = ngram, .end = totals->tokens, .piece_bytes = piece_bytes};
    if (totals->tokens == 0)
        return;
    s.mean_bytes = (double)totals->text_bytes / (double)totals->tokens;
    if (time > 0)
        s.end = (totals->tokens - 1) / time * time + 1;
    for (uint64_t d = 0; d < docs && s.at < s.end; d++) {
        struct corpus_doc doc = corpus_doc(corpus, d);
        if (part != CORPUS_ALL && doc.part != part)
            continue;
        for (uint64_t i = doc.first; i < doc.first + doc.count && s.at < s.end; i++) {
            score_token(&s, corpus_token(corpus, i), corpus_is_target(corpus, i), score);
            if (progress && s.at % PROGRESS_TOKENS == 0)
                progress(ud, s.at, s.end);
        }
    }
}
