/* How much of the evidence a context has.
 *
 *   build/bench_memory [--spt F.gguf] [--embed F.gguf] [--limit N] [--rows F] CASES.jsonl...
 *   build/bench_memory --sum F
 *
 * For every file and kind of question, each strategy's evidence recall at 1,024 tokens, the share of questions with
 * all of their evidence at 1,024 and at 4,096, and for reply links whether the first, and one of the first ten,
 * is right. --rows adds the sums to a file, --sum shows one. p50 and p95 of the time that building takes at
 * each of the two budgets, in CPU time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/embedder.h"
#include "memory/context.h"
#include "memory/embed.h"
#include "memory/spt.h"

#define KINDS_MAX 16
#define TIMES_MAX 200000
#define BUDGETS 2
#define ARENA_BYTES_MAX (256u << 20)

struct score {
    double recall, all, all_4096, first, ten;
    size_t count;
};

struct bench {
    struct embed_space *space; /* NULL: no embedding model */
    float *vectors;            /* of the case's messages */
    struct context_near *near; /* room for them */
    const struct spt *spt;
    size_t limit, cases;
    char kinds[KINDS_MAX][32];
    size_t kind_count;
    struct score scores[KINDS_MAX][CONTEXT_STRATEGY_COUNT];
    float *times[CONTEXT_STRATEGY_COUNT][BUDGETS];
    size_t time_count[CONTEXT_STRATEGY_COUNT];
};

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void check(enum ph_status status, const struct ph_err *err)
{
    if (!status)
        return;
    fprintf(stderr, "bench_memory: %s\n", err->message);
    exit(1);
}

static size_t kind_of(struct bench *bench, const char *kind)
{
    for (size_t i = 0; i < bench->kind_count; i++)
        if (!strcmp(bench->kinds[i], kind))
            return i;
    if (bench->kind_count == KINDS_MAX)
        return KINDS_MAX - 1;
    snprintf(bench->kinds[bench->kind_count], sizeof bench->kinds[0], "%s", kind);
    return bench->kind_count++;
}

static bool is_evidence(const struct spt_question *q, int64_t message)
{
    for (size_t i = 0; i < q->evidence_count; i++)
        if ((int64_t)q->evidence[i] + 1 == message)
            return true;
    return false;
}

static double recall(const struct memory_index *index, const struct spt_question *q,
                     struct context_request *request, uint32_t budget, float *ms, struct arena *arena)
{
    struct context_result result;
    struct ph_err err;
    request->budget_tokens = budget;
    double start = cpu_s();
    check(context_build(index, request, arena, &result, &err), &err);
    *ms = (float)((cpu_s() - start) * 1e3);
    size_t found = 0;
    for (size_t i = 0; i < result.count; i++)
        found += is_evidence(q, result.items[i].message);
    arena_clear(arena);
    return (double)found / (double)q->evidence_count;
}

static void embed_messages(struct bench *bench, const struct spt_case *one)
{
    struct ph_err err;
    size_t width = embed_space_width(bench->space);
    bench->vectors = calloc(one->message_count, width * sizeof(float));
    bench->near = calloc(one->message_count, sizeof *bench->near);
    for (size_t i = 0; bench->vectors && bench->near && i < one->message_count; i++) {
        struct embed_text text = {one->messages[i].text, one->messages[i].text_len};
        check(embed_texts(bench->space, &text, 1, false, bench->vectors + i * width, &err), &err);
    }
}

static void find_near(struct bench *bench, const struct spt_question *q, struct context_request *request)
{
    struct ph_err err;
    struct embed_text text = {q->query, q->query_len};
    size_t width = embed_space_width(bench->space);
    float *query = calloc(width, sizeof *query);
    if (!query)
        exit(1);
    check(embed_texts(bench->space, &text, 1, false, query, &err), &err);
    for (size_t i = 0; i < q->before; i++) {
        float sum = 0;
        for (size_t k = 0; k < width; k++)
            sum += query[k] * bench->vectors[i * width + k];
        bench->near[i] = (struct context_near){.message = (int64_t)i + 1, .cosine = sum};
    }
    request->near = bench->near;
    request->near_count = q->before;
    free(query);
}

static void measure(struct bench *bench, const struct memory_index *index, const struct spt_question *q,
                    enum context_strategy strategy, struct arena *arena)
{
    struct context_request request = {.conversation = 1,
                                      .query = q->query,
                                      .query_len = q->query_len,
                                      .query_name = q->name,
                                      .strategy = strategy,
                                      .before = (int64_t)q->before + 1,
                                      .after = q->after};
    struct score *score = &bench->scores[kind_of(bench, q->kind)][strategy];
    if (bench->space)
        find_near(bench, q, &request);
    float *ms[BUDGETS];
    size_t at = bench->time_count[strategy];
    for (size_t b = 0; b < BUDGETS; b++)
        ms[b] = &bench->times[strategy][b][at];
    bench->time_count[strategy] += at + 1 < TIMES_MAX;
    double at_1024 = recall(index, q, &request, 1024, ms[0], arena);
    score->recall += at_1024;
    score->all += at_1024 > 0.999;
    score->all_4096 += recall(index, q, &request, 4096, ms[1], arena) > 0.999;
    struct context_ranked *ranked;
    size_t count;
    struct ph_err err;
    check(context_rank(index, &request, arena, &ranked, &count, &err), &err);
    for (size_t i = 0; i < count && i < 10; i++)
        if (is_evidence(q, ranked[i].message)) {
            score->first += i == 0;
            score->ten += 1;
            break;
        }
    arena_clear(arena);
    score->count++;
}

static enum ph_status measure_case(void *ud, const struct spt_case *one)
{
    struct bench *bench = ud;
    if (bench->limit && bench->cases++ >= bench->limit)
        return PH_OK;
    struct memory_index *index;
    struct ph_err err;
    check(spt_case_index(one, &(struct index_params){.spt = bench->spt}, &index, &err), &err);
    struct arena arena;
    arena_init(&arena, ARENA_BYTES_MAX);
    if (bench->space)
        embed_messages(bench, one);
    for (size_t i = 0; i < one->question_count; i++)
        for (int s = 0; s < CONTEXT_STRATEGY_COUNT; s++)
            if (one->questions[i].evidence_count && (s != CONTEXT_SPT || bench->spt))
                measure(bench, index, &one->questions[i], (enum context_strategy)s, &arena);
    arena_release(&arena);
    free(bench->vectors);
    free(bench->near);
    bench->vectors = NULL;
    bench->near = NULL;
    memory_index_free(index);
    return PH_OK;
}

static int by_time(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

static void print_row(const char *kind, enum context_strategy strategy, const struct score *score)
{
    double n = (double)score->count;
    printf("%-10s %-15s %6zu  %.3f   %.3f    %.3f     %.3f  %.3f\n", kind, context_strategy_name(strategy),
           score->count, score->recall / n, score->all / n, score->all_4096 / n, score->first / n,
           score->ten / n);
}

/* Sums of one run behind those of others, so that runs with different selectors give one table. */
static void add_rows(const struct bench *bench, const char *path)
{
    FILE *file = fopen(path, "a");
    for (size_t k = 0; file && k < bench->kind_count; k++)
        for (int s = 0; s < CONTEXT_STRATEGY_COUNT; s++) {
            const struct score *one = &bench->scores[k][s];
            fprintf(file, "%s %d %.9g %.9g %.9g %.9g %.9g %zu\n", bench->kinds[k], s, one->recall, one->all,
                    one->all_4096, one->first, one->ten, one->count);
        }
    if (!file || fclose(file)) {
        perror(path);
        exit(1);
    }
}

static void read_rows(struct bench *bench, const char *path)
{
    char line[512], kind[64];
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) {
        char *at = strchr(line, ' ');
        double value[7];
        if (!at)
            continue;
        snprintf(kind, sizeof kind, "%.*s", (int)(at - line), line);
        for (size_t i = 0; i < 7; i++)
            value[i] = strtod(at, &at);
        if (value[0] < 0 || value[0] >= CONTEXT_STRATEGY_COUNT)
            continue;
        struct score *one = &bench->scores[kind_of(bench, kind)][(int)value[0]];
        one->recall += value[1];
        one->all += value[2];
        one->all_4096 += value[3];
        one->first += value[4];
        one->ten += value[5];
        one->count += (size_t)value[6];
    }
    if (!file || fclose(file)) {
        perror(path);
        exit(1);
    }
}

static void report(struct bench *bench, const char *path)
{
    printf("%s\nkind       strategy        asked  recall  all1024  all4096   @1     @10\n", path);
    for (int s = 0; s < CONTEXT_STRATEGY_COUNT; s++) {
        struct score total = {0};
        for (size_t k = 0; k < bench->kind_count; k++) {
            const struct score *one = &bench->scores[k][s];
            if (!one->count)
                continue;
            if (bench->kind_count > 1)
                print_row(bench->kinds[k], (enum context_strategy)s, one);
            total.recall += one->recall;
            total.all += one->all;
            total.all_4096 += one->all_4096;
            total.first += one->first;
            total.ten += one->ten;
            total.count += one->count;
        }
        if (total.count)
            print_row("all", (enum context_strategy)s, &total);
        size_t n = bench->time_count[s];
        if (!n)
            continue;
        printf("           building, CPU ms:");
        for (size_t b = 0; b < BUDGETS; b++) {
            float *times = bench->times[s][b];
            qsort(times, n, sizeof *times, by_time);
            printf("%s p50 %.3f, p95 %.3f at %s", b ? ";" : "", (double)times[n / 2],
                   (double)times[n * 95 / 100], b ? "4,096\n" : "1,024");
        }
    }
}

struct options {
    struct spt *spt;
    struct embedder *embedder;
    struct embed_space *space;
    size_t limit;
    const char *rows;
};

static void run(const struct options *options, const char *path, bool is_sum)
{
    struct ph_err err;
    struct bench *bench = calloc(1, sizeof *bench);
    for (size_t i = 0; bench && i < CONTEXT_STRATEGY_COUNT * BUDGETS; i++)
        if (!(bench->times[i / BUDGETS][i % BUDGETS] = calloc(TIMES_MAX, sizeof(float))))
            exit(1);
    if (!bench)
        exit(1);
    bench->spt = options->spt;
    bench->space = options->space;
    bench->limit = options->limit;
    if (is_sum)
        read_rows(bench, path);
    else
        check(spt_cases_read(path, measure_case, bench, &err), &err);
    report(bench, path);
    if (options->rows)
        add_rows(bench, options->rows);
    for (size_t i = 0; i < CONTEXT_STRATEGY_COUNT * BUDGETS; i++)
        free(bench->times[i / BUDGETS][i % BUDGETS]);
    free(bench);
}

int main(int argc, char **argv)
{
    struct options options = {.limit = 0};
    struct ph_err err;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--spt") && value) {
            check(spt_open(&options.spt, value, &err), &err);
            i++;
        } else if (!strcmp(argv[i], "--embed") && value) {
            const struct embedder_params params = {.model_path = value, .threads = 2};
            check(embedder_open(&options.embedder, &params, &err), &err);
            check(embed_space_of_model(&options.space, options.embedder, &err), &err);
            i++;
        } else if (!strcmp(argv[i], "--limit") && value) {
            options.limit = (size_t)strtoul(argv[++i], NULL, 10);
        } else if (!strcmp(argv[i], "--rows") && value) {
            options.rows = argv[++i];
        } else if (!strcmp(argv[i], "--sum") && value) {
            run(&options, argv[++i], true);
        } else {
            run(&options, argv[i], false);
        }
    }
    spt_close(options.spt);
    embed_space_free(options.space);
    embedder_free(options.embedder);
    return 0;
}
