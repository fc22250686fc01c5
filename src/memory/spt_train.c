/* Training the selector: word vectors from texts and from the cases' messages, then features of every
 * question's candidates, then the ranker's weights.
 * The file with the word vectors is written first, with weights of 0, and opened again, so that features
 * come from the very vectors that a station uses. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "memory/context_int.h"
#include "memory/spt_set_int.h"
#include "memory/spt_train_int.h"
#include "train/train.h"

#define WORDS_DEFAULT 24000
#define QUESTIONS_DEFAULT 3000
#define MADE_UP_DEFAULT 24
#define EPOCHS_DEFAULT 20
#define LIST_TRAIN_MAX 96 /* candidates of a question that are kept: the evidence and the hardest others */
#define MASKED 12         /* hardest others of a made-up question: they may be evidence as well */
#define SOURCES_MAX 32
#define TEXT_BYTES_MAX 16384 /* of one paragraph */
#define ARENA_BYTES_MAX (512u << 20)
#define EXAMPLES_BYTES_MAX ((size_t)4096 << 20)

struct training {
    const struct spt_training *set;
    struct spt_words *texts;
    struct spt_sample sample; /* of the texts, for a teacher */
    struct spt_word_table words;
    struct spt *spt;
    struct arena kept; /* examples */
    struct spt_example *examples;
    size_t count, capacity;
    char sources[SOURCES_MAX][64];
    size_t counts[SOURCES_MAX];
    size_t source_count;
    size_t left, stride, seen; /* of the file at hand */
    struct rng rng;
    struct ph_err *err;
};

static void note(const struct training *t, const char *format, ...) PH_PRINTF(2, 3);
static void note(const struct training *t, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (t->set->note)
        t->set->note(t->set->ud, text);
}

static enum ph_status no_memory(const struct training *t)
{
    return ph_fail(t->err, PH_ERR_NOMEM, "out of memory for training the selector");
}

/* ---- Words ---- */

static bool is_skipped(const struct training *t, const struct spt_case *one)
{
    return t->set->skip && (!strcmp(one->source, t->set->skip) || !strcmp(one->id, t->set->skip));
}

static enum ph_status read_words(void *ud, const struct spt_case *one)
{
    struct training *t = ud;
    if (is_skipped(t, one))
        return PH_OK;
    for (size_t i = 0; i < one->message_count; i++) {
        enum ph_status status = spt_words_add(t->texts, one->messages[i].text, one->messages[i].text_len);
        if (!status && t->set->teacher)
            status = spt_sample_add(&t->sample, one->messages[i].text, one->messages[i].text_len);
        if (status)
            return status == PH_ERR_LIMIT ? PH_OK : no_memory(t);
    }
    return PH_OK;
}

static enum ph_status read_text(struct training *t, const char *path)
{
    struct file_map map;
    enum ph_status status = file_map_open(&map, path, t->err);
    for (size_t at = 0; !status && at < map.len;) {
        const char *begin = (const char *)map.data + at;
        size_t len = 0, left = map.len - at;
        while (len < left && len < TEXT_BYTES_MAX &&
               !(begin[len] == '\n' && len + 1 < left && begin[len + 1] == '\n'))
            len++;
        status = spt_words_add(t->texts, begin, len);
        if (!status && t->set->teacher)
            status = spt_sample_add(&t->sample, begin, len);
        at += len + 1;
    }
    if (status == PH_ERR_LIMIT)
        status = PH_OK;
    file_map_release(&map);
    return status == PH_ERR_NOMEM ? no_memory(t) : status;
}

static enum ph_status learn_meaning(struct training *t)
{
    double agreement = 0;
    if (!t->set->teacher)
        return PH_OK;
    note(t, "asking %s about %zu texts and %zu words", t->set->teacher, t->sample.count, t->words.count);
    enum ph_status status =
        spt_distil(&t->words, &t->sample, t->set->teacher, t->set->seed, &agreement, t->err);
    if (!status)
        note(t, "the vectors agree with it by a cosine of %.3f on texts that were held out", agreement);
    return status;
}

static enum ph_status learn_words(struct training *t)
{
    enum ph_status status = spt_words_create(&t->texts, t->err);
    rng_init(&t->sample.rng, t->set->seed);
    for (size_t i = 0; !status && i < t->set->text_count; i++) {
        spt_sample_file(&t->sample);
        status = read_text(t, t->set->texts[i]);
    }
    for (size_t i = 0; !status && i < t->set->case_count; i++) {
        spt_sample_file(&t->sample);
        status = spt_cases_read(t->set->cases[i], read_words, t, t->err);
    }
    if (!status)
        note(t, "texts are read; learning word vectors");
    size_t max = t->set->words_max ? t->set->words_max : WORDS_DEFAULT;
    if (!status)
        status = spt_words_train(t->texts, max, t->set->seed, &t->words, t->err);
    spt_words_free(t->texts);
    t->texts = NULL;
    if (!status)
        note(t, "%zu word vectors", t->words.count);
    return status ? status : learn_meaning(t);
}

/* ---- Examples ---- */

static uint32_t source_of(struct training *t, const char *name)
{
    for (size_t i = 0; i < t->source_count; i++)
        if (!strcmp(t->sources[i], name))
            return (uint32_t)i;
    if (t->source_count == SOURCES_MAX)
        return SOURCES_MAX - 1;
    snprintf(t->sources[t->source_count], sizeof t->sources[0], "%s", name);
    return (uint32_t)t->source_count++;
}

static bool is_evidence(const struct spt_question *question, int64_t message)
{
    for (size_t i = 0; i < question->evidence_count; i++)
        if ((int64_t)question->evidence[i] + 1 == message)
            return true;
    return false;
}

/* Keeps the evidence and the hardest of the others, as the hand-made mix sees them. */
static enum ph_status keep_example(struct training *t, const struct context_scope *scope,
                                   const struct context_query *query, const struct spt_question *question,
                                   const struct context_candidates *candidates, struct spt_example *example)
{
    struct context_place order[CANDIDATES_MAX];
    size_t found = 0;
    for (size_t i = 0; i < candidates->count; i++) {
        bool evidence =
            is_evidence(question, scope->index->turns[scope->turns[candidates->slots[i]]].message);
        found += evidence;
        order[i] = (struct context_place){
            .score = evidence ? INFINITY : context_linear(context_hybrid, candidates->features[i]),
            .at = (uint32_t)i};
    }
    example->count = 0;
    if (!found || found == candidates->count)
        return PH_OK;
    context_sort(order, candidates->count);
    size_t count = candidates->count < LIST_TRAIN_MAX ? candidates->count : LIST_TRAIN_MAX;
    size_t masked = strcmp(question->kind, "made up") ? 0 : MASKED;
    masked = count > found + masked ? masked : 0;
    example->features = arena_alloc(&t->kept, count * sizeof *example->features);
    example->relevance = arena_alloc(&t->kept, count * sizeof *example->relevance);
    example->vectors = arena_alloc(&t->kept, count * sizeof *example->vectors);
    if (!example->features || !example->relevance || !example->vectors)
        return no_memory(t);
    example->count = count;
    memcpy(example->query, query->direction, sizeof example->query);
    for (size_t i = 0; i < count; i++) {
        uint32_t turn = scope->turns[candidates->slots[order[i].at]];
        memcpy(example->vectors[i], scope->index->vectors + (size_t)turn * SPT_WIDTH, SPT_WIDTH);
        memcpy(example->features[i], candidates->features[order[i].at], sizeof *example->features);
        example->relevance[i] = i < found ? 1 : i < found + masked ? -1 : 0;
    }
    return PH_OK;
}

static enum ph_status add_question(struct training *t, const struct memory_index *index,
                                   const struct spt_question *question, const char *source)
{
    struct context_request request = {.conversation = 1,
                                      .query = question->query,
                                      .query_len = question->query_len,
                                      .query_name = question->name,
                                      .before = (int64_t)question->before + 1,
                                      .after = question->after};
    struct arena arena;
    struct context_scope scope;
    struct context_query query;
    struct context_search search;
    struct context_candidates candidates;
    struct spt_example example = {.weight = fmaxf(question->quality, LOSS_QUALITY_MIN)};
    arena_init(&arena, ARENA_BYTES_MAX);
    enum ph_status status = context_scope_find(index, &request, &arena, &scope);
    if (!status)
        status = context_query_read(&scope, &request, &arena, &query);
    if (!status)
        status = context_search(&scope, &request, &query, &arena, &search);
    if (!status)
        status = context_candidates_find(&scope, &query, &search, &arena, &candidates);
    status = status ? no_memory(t) : keep_example(t, &scope, &query, question, &candidates, &example);
    arena_release(&arena);
    if (status || !example.count)
        return status;
    if (t->count == t->capacity) {
        size_t wanted = t->capacity * 2 + 256;
        struct spt_example *grown = mem_realloc(t->examples, wanted, sizeof *grown);
        if (!grown)
            return no_memory(t);
        t->examples = grown;
        t->capacity = wanted;
    }
    char name[64]; /* a source counts by itself in each kind of talk */
    snprintf(name, sizeof name, "%.40s %s", source, talk_name(scope.talk));
    example.talk = scope.talk;
    example.source = source_of(t, name);
    t->examples[t->count++] = example;
    t->counts[example.source]++;
    return PH_OK;
}

static enum ph_status make_questions(struct training *t, const struct memory_index *index, const char *source)
{
    size_t count = t->set->made_up ? t->set->made_up : MADE_UP_DEFAULT;
    enum ph_status status = PH_OK;
    struct arena arena;
    arena_init(&arena, 1 << 20);
    for (size_t i = 0; i < count && !status; i++) {
        struct spt_question question;
        arena_clear(&arena);
        status = spt_make_up(index, &t->words, &t->rng, &arena, &question);
        if (status)
            status = no_memory(t);
        else if (question.evidence_count)
            status = add_question(t, index, &question, source);
    }
    arena_release(&arena);
    return status;
}

static enum ph_status count_questions(void *ud, const struct spt_case *one)
{
    struct training *t = ud;
    t->left += one->question_count;
    return PH_OK;
}

static enum ph_status read_case(struct training *t, const struct spt_case *one, size_t seen)
{
    struct memory_index *index;
    enum ph_status status = spt_case_index(one, &(struct index_params){.spt = t->spt}, &index, t->err);
    if (status)
        return status;
    for (size_t i = 0; i < one->question_count && !status; i++)
        if (seen++ % t->stride == 0 && one->questions[i].evidence_count)
            status = add_question(t, index, &one->questions[i], one->source);
    if (!status && !one->question_count)
        status = make_questions(t, index, one->source);
    memory_index_free(index);
    return status;
}

/* Two people without their names are a user and an assistant to us: what is asked about them later is
 * asked about these too. false: it is no talk of two people with names. */
static bool take_names(const struct spt_case *one)
{
    const char *first = one->messages[0].name, *second = NULL;
    for (size_t i = 0; i < one->message_count; i++) {
        const char *name = one->messages[i].name;
        if (!name || !first)
            return false;
        if (!second && strcmp(name, first) != 0)
            second = name;
        if (strcmp(name, first) != 0 && strcmp(name, second) != 0)
            return false;
    }
    for (size_t i = 0; second && i < one->message_count; i++) {
        one->messages[i].role = strcmp(one->messages[i].name, first) != 0 ? "assistant" : "user";
        one->messages[i].name = NULL;
    }
    return second;
}

static enum ph_status read_questions(void *ud, const struct spt_case *one)
{
    struct training *t = ud;
    if (is_skipped(t, one))
        return PH_OK;
    enum ph_status status = read_case(t, one, t->seen);
    if (!status && take_names(one))
        status = read_case(t, one, t->seen);
    t->seen += one->question_count;
    return status;
}

static enum ph_status read_examples(struct training *t)
{
    size_t max = t->set->questions_max ? t->set->questions_max : QUESTIONS_DEFAULT;
    enum ph_status status = PH_OK;
    for (size_t i = 0; !status && i < t->set->case_count; i++) {
        size_t before = t->count;
        t->left = t->seen = 0;
        status = spt_cases_read(t->set->cases[i], count_questions, t, t->err);
        t->stride = t->left > max ? (t->left + max - 1) / max : 1;
        if (!status)
            status = spt_cases_read(t->set->cases[i], read_questions, t, t->err);
        if (!status)
            note(t, "%s: %zu questions", t->set->cases[i], t->count - before);
    }
    if (!status && !t->count)
        status = ph_fail(t->err, PH_ERR_ARG, "the cases have no question whose evidence can be found");
    for (size_t i = 0; i < t->count; i++) /* every source counts the same, times its questions' quality */
        t->examples[i].weight *= 100.0f / (float)t->counts[t->examples[i].source];
    return status;
}

/* ---- All of it ---- */

static enum ph_status copy_words(struct training *t)
{
    struct spt *from;
    enum ph_status status = spt_open(&from, t->set->words_of, t->err);
    if (status)
        return status;
    status = spt_copy_words(from, &t->words) ? PH_OK : no_memory(t);
    spt_close(from);
    return status;
}

static void fit_talks(const struct training *t, float weights[TALK_COUNT][FEATURE_COUNT])
{
    size_t epochs = t->set->epochs ? t->set->epochs : EPOCHS_DEFAULT;
    for (int talk = 0; talk < TALK_COUNT; talk++) {
        size_t used;
        memcpy(weights[talk], context_hybrid, sizeof context_hybrid);
        double loss =
            spt_fit(t->examples, t->count, (enum talk)talk, epochs, t->set->seed, weights[talk], &used);
        note(t, "%s: %zu questions, listwise loss %.4f nats", talk_name((enum talk)talk), used, loss);
    }
    note(t, "%-24s %9s %9s %9s", "feature", talk_name(0), talk_name(1), talk_name(2));
    for (int f = 0; f < FEATURE_COUNT; f++)
        note(t, "%-24s %9.3f %9.3f %9.3f", feature_name((enum feature)f), (double)weights[0][f],
             (double)weights[1][f], (double)weights[2][f]);
}

/* How much the set transformer counts in a kind of talk that it has learned from: what was best for
 * conversations that were left out (docs/MEMORY.md). */
#define SET_SHARE 0.25f

static enum ph_status fit_set(const struct training *t, const float weights[TALK_COUNT][FEATURE_COUNT],
                              struct set_fit **out, float shares[TALK_COUNT])
{
    double loss;
    *out = NULL;
    for (size_t i = 0; i < t->count; i++)
        shares[t->examples[i].talk] = SET_SHARE;
    if (!t->set->set_epochs)
        return PH_OK;
    enum ph_status status = set_fit_create(out, t->set->seed, t->err);
    if (!status &&
        set_fit_learn(*out, t->examples, t->count, weights, t->set->set_epochs, t->set->seed, &loss))
        status = no_memory(t);
    if (!status)
        note(t, "set transformer: listwise loss %.4f nats", loss);
    return status;
}

enum ph_status spt_train(const struct spt_training *set, struct ph_err *err)
{
    struct training t = {.set = set, .err = err};
    float weights[TALK_COUNT][FEATURE_COUNT] = {{0}};
    float shares[TALK_COUNT] = {0};
    struct spt_ranker ranker = {.weights = weights[0], .shares = shares};
    struct set_fit *fit = NULL;
    rng_init(&t.rng, set->seed);
    arena_init(&t.kept, EXAMPLES_BYTES_MAX);
    enum ph_status status = set->words_of ? copy_words(&t) : learn_words(&t);
    if (!status)
        status = spt_write(set->out, &t.words, &ranker, err);
    if (!status)
        status = spt_open(&t.spt, set->out, err);
    if (!status)
        status = read_examples(&t);
    if (!status) {
        fit_talks(&t, weights);
        status = fit_set(&t, (const float(*)[FEATURE_COUNT])weights, &fit, shares);
    }
    spt_close(t.spt);
    ranker.set = fit ? set_fit_weights(fit) : NULL;
    if (!status)
        status = spt_write(set->out, &t.words, &ranker, err);
    set_fit_free(fit);
    arena_release(&t.kept);
    mem_free(t.examples);
    spt_sample_release(&t.sample);
    spt_word_table_release(&t.words);
    return status;
}
