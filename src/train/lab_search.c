/* The smallest assignment of formats within a bound: sensitivities, a path, a search along it (lab.h says
 * why).
 *
 * Rounding errors of formats are measured on some rows of each matrix. Along a matrix's lower convex hull
 * of (bytes, predicted divergence) every step saves bytes at a growing price; all matrices' steps, cheapest
 * first, are the path. Predictions only order the steps: which place on the path is within the bound is
 * measured, by bisection. */
#include "train/lab_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define SAMPLE_ROWS 64 /* of a matrix, in SAMPLE_PIECES places, for rounding errors */
#define SAMPLE_PIECES 4
#define PROBE_WINDOWS_MAX 8
#define KL_FLOOR 1e-9

/* From large to small; fitted to a matrix's rows, several may be the same. */
static const enum tensor_type candidates[] = {
    TENSOR_F16,  TENSOR_Q8_0, TENSOR_Q6_K,   TENSOR_Q5_1,   TENSOR_Q5_K,  TENSOR_Q5_0, TENSOR_Q4_1,
    TENSOR_Q4_K, TENSOR_Q4_0, TENSOR_IQ4_NL, TENSOR_IQ4_XS, TENSOR_MXFP4, TENSOR_Q3_K, TENSOR_Q2_K};
#define CANDIDATES (sizeof candidates / sizeof *candidates)

struct choice {
    enum tensor_type type;
    double bytes, kl;
};

/* A step down the path: tensor `tensor` goes over to `type`. */
struct step {
    size_t tensor;
    enum tensor_type type;
    double price; /* divergence a byte saved */
};

struct search {
    struct lab *lab;
    struct lab_bound bound;
    struct step *steps;
    size_t step_count;
    enum tensor_type *types; /* of the assignment at hand */
};

static size_t tensor_rows(const struct gguf_tensor *t)
{
    return (size_t)(t->dims[1] * t->dims[2] * t->dims[3]);
}

static double type_bytes(const struct gguf_tensor *t, enum tensor_type type)
{
    return (double)tensor_row_bytes(type, (size_t)t->dims[0]) * (double)tensor_rows(t);
}

static bool is_quantised(enum tensor_type type)
{
    return type != TENSOR_F32 && type != TENSOR_F16 && type != TENSOR_BF16;
}

/* ---- Rounding errors */

struct sample {
    const struct lab_tensor *t;
    float *original, *rounded;
    uint8_t *blocks;
    size_t rows; /* a piece */
};

/* Weighted squared error of some rows in this format, scaled to all rows. */
static enum ph_status rounding_error(struct lab *lab, struct sample *s, enum tensor_type type, double *error,
                                     struct ph_err *err)
{
    const struct gguf_tensor *t = s->t->tensor;
    size_t cols = (size_t)t->dims[0], rows = tensor_rows(t), seen = 0;
    size_t from_bytes = tensor_row_bytes(t->type, cols);
    const struct tensor_conversion conversion = {lab->gguf, t, type, s->t->weights};
    *error = 0;
    for (size_t piece = 0; piece < SAMPLE_PIECES; piece++) {
        size_t first = (rows - s->rows) * piece / (SAMPLE_PIECES - 1);
        enum ph_status status = tensor_convert(&conversion, lab->pool, first, s->rows, s->blocks, err);
        if (status != PH_OK)
            return status;
        tensor_dequantize(t->type, (const uint8_t *)t->data + first * from_bytes, s->original,
                          s->rows * cols);
        tensor_dequantize(type, s->blocks, s->rounded, s->rows * cols);
        for (size_t i = 0; i < s->rows * cols; i++) {
            size_t matrix = (first + i / cols) / (size_t)t->dims[1];
            double w = s->t->weights ? (double)s->t->weights[matrix * cols + i % cols] : 1;
            double diff = (double)s->original[i] - (double)s->rounded[i];
            *error += w * diff * diff;
        }
        seen += s->rows;
    }
    *error *= (double)rows / (double)seen;
    return PH_OK;
}

static enum ph_status sample_open(struct sample *s, const struct lab_tensor *t, struct ph_err *err)
{
    size_t rows = tensor_rows(t->tensor), cols = (size_t)t->tensor->dims[0];
    *s = (struct sample){.t = t, .rows = SAMPLE_ROWS / SAMPLE_PIECES};
    s->rows = s->rows < rows ? s->rows : rows;
    s->original = mem_alloc(s->rows * cols * sizeof *s->original);
    s->rounded = mem_alloc(s->rows * cols * sizeof *s->rounded);
    s->blocks = mem_alloc(s->rows * cols * sizeof(float));
    return s->original && s->rounded && s->blocks ? PH_OK
                                                  : ph_fail(err, PH_ERR_NOMEM, "no memory for a few rows");
}

static void sample_release(struct sample *s)
{
    mem_free(s->original);
    mem_free(s->rounded);
    mem_free(s->blocks);
}

/* ---- Sensitivity */

/* Divergence with this tensor alone in that format. */
static enum ph_status probe(struct search *s, size_t index, enum tensor_type type, double *kl,
                            struct ph_err *err)
{
    struct lab *lab = s->lab;
    struct lab_candidate candidate;
    struct lab_result result = {0};
    struct lab_set set = lab->learn;
    set.windows = set.windows < PROBE_WINDOWS_MAX ? set.windows : PROBE_WINDOWS_MAX;
    for (size_t i = 0; i < lab->tensor_count; i++)
        s->types[i] = i == index ? type : lab->tensors[i].tensor->type;
    enum ph_status status = lab_build(lab, s->types, true, &candidate, err);
    if (status == PH_OK)
        status = lab_run(lab, candidate.model, &set, &result, err);
    model_free(candidate.model);
    *kl = result.kl;
    return status;
}

static enum ph_status probe_tensor(struct search *s, size_t index, struct ph_err *err)
{
    struct lab_tensor *t = &s->lab->tensors[index];
    enum tensor_type high = quantize_fitting(TENSOR_Q8_0, t->tensor->dims[0]);
    enum tensor_type low = quantize_fitting(TENSOR_Q4_0, t->tensor->dims[0]);
    struct sample sample;
    double error_high = 0, error_low = 0;
    if (!is_quantised(high) || !is_quantised(low)) /* rows that fit no block */
        return PH_OK;
    enum ph_status status = sample_open(&sample, t, err);
    if (status == PH_OK)
        status = rounding_error(s->lab, &sample, high, &error_high, err);
    if (status == PH_OK)
        status = rounding_error(s->lab, &sample, low, &error_low, err);
    if (status == PH_OK)
        status = probe(s, index, high, &t->kl_high, err);
    if (status == PH_OK)
        status = probe(s, index, low, &t->kl_low, err);
    sample_release(&sample);
    if (status != PH_OK || !(error_low > error_high))
        return status;
    t->slope = fmax(t->kl_low - t->kl_high, KL_FLOOR) / (error_low - error_high);
    t->activation = fmax(t->kl_high - t->slope * error_high, 0);
    t->sensitive = true;
    return PH_OK;
}

static enum ph_status probe_all(struct search *s, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < s->lab->tensor_count && status == PH_OK; i++) {
        status = lab_tell(s->lab, "sensitivity", i, s->lab->tensor_count, err);
        if (status == PH_OK)
            status = probe_tensor(s, i, err);
    }
    return status;
}

/* ---- The path */

/* The largest format of the path: what costs nothing to speak of. */
static enum tensor_type top_type(const struct gguf_tensor *t)
{
    return is_quantised(t->type) || t->type == TENSOR_BF16 ? t->type : TENSOR_F16;
}

static int by_bytes(const void *a, const void *b)
{
    const struct choice *x = a, *y = b;
    return x->bytes != y->bytes ? (x->bytes < y->bytes) - (x->bytes > y->bytes)
                                : (x->kl > y->kl) - (x->kl < y->kl);
}

/* Appends the steps down the lower convex hull of the choices, which begin with the top and shrink. */
static void add_steps(struct search *s, size_t tensor, const struct choice *choices, size_t count)
{
    size_t at = 0;
    while (at + 1 < count) {
        size_t best = 0;
        double least = INFINITY;
        for (size_t i = at + 1; i < count; i++) {
            double saved = choices[at].bytes - choices[i].bytes;
            double price = saved > 0 ? (choices[i].kl - choices[at].kl) / saved : INFINITY;
            if (price <= least) { /* of equal prices the longest step */
                least = price;
                best = i;
            }
        }
        if (!isfinite(least))
            return;
        s->steps[s->step_count++] = (struct step){tensor, choices[best].type, least};
        at = best;
    }
}

static enum ph_status plan_tensor(struct search *s, size_t index, struct ph_err *err)
{
    const struct lab_tensor *t = &s->lab->tensors[index];
    struct choice choices[CANDIDATES + 1];
    struct sample sample;
    size_t count = 0;
    enum ph_status status = sample_open(&sample, t, err);
    choices[count++] = (struct choice){top_type(t->tensor), type_bytes(t->tensor, top_type(t->tensor)), 0};
    for (size_t c = 0; c < CANDIDATES && status == PH_OK; c++) {
        enum tensor_type type = quantize_fitting(candidates[c], t->tensor->dims[0]);
        double error;
        if (!is_quantised(type) || type_bytes(t->tensor, type) >= choices[0].bytes)
            continue;
        status = rounding_error(s->lab, &sample, type, &error, err);
        if (t->sensitive)
            choices[count++] =
                (struct choice){type, type_bytes(t->tensor, type), t->activation + t->slope * error};
    }
    sample_release(&sample);
    if (status != PH_OK)
        return status;
    qsort(choices + 1, count - 1, sizeof *choices, by_bytes);
    add_steps(s, index, choices, count);
    return PH_OK;
}

static int by_price(const void *a, const void *b)
{
    const struct step *x = a, *y = b;
    if (x->price != y->price)
        return (x->price > y->price) - (x->price < y->price);
    return (x->tensor > y->tensor) - (x->tensor < y->tensor);
}

static enum ph_status plan(struct search *s, struct ph_err *err)
{
    struct lab *lab = s->lab;
    enum ph_status status = PH_OK;
    s->steps = mem_calloc(lab->tensor_count * (CANDIDATES + 1), sizeof *s->steps);
    if (!s->steps)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a path");
    for (size_t i = 0; i < lab->tensor_count && status == PH_OK; i++) {
        status = lab_tell(lab, "rounding errors", i, lab->tensor_count, err);
        if (status == PH_OK)
            status = plan_tensor(s, i, err);
    }
    qsort(s->steps, s->step_count, sizeof *s->steps, by_price);
    return status;
}

/* The assignment after the first `steps` steps. */
static void assign(struct search *s, size_t steps)
{
    for (size_t i = 0; i < s->lab->tensor_count; i++)
        s->types[i] = top_type(s->lab->tensors[i].tensor);
    for (size_t i = 0; i < steps; i++)
        s->types[s->steps[i].tensor] = s->steps[i].type;
}

static enum ph_status measure_place(struct search *s, size_t steps, bool *within, struct ph_err *err)
{
    struct lab *lab = s->lab;
    struct lab_candidate candidate;
    struct lab_result result = {0};
    assign(s, steps);
    enum ph_status status = lab_build(lab, s->types, true, &candidate, err);
    if (status == PH_OK)
        status = lab_run(lab, candidate.model, &lab->test, &result, err);
    model_free(candidate.model);
    if (status == PH_OK && lab->point_count < LAB_POINTS_MAX)
        lab->points[lab->point_count++] = (struct lab_point){(double)candidate.file_bytes, result.kl};
    const struct lab_row row = {.nll = result.nll, .kl = result.kl};
    *within = lab_loss(lab, &row, s->bound.percent) <= s->bound.value;
    return status;
}

/* The last place on the path that is within the bound; found is false when not even the first is. */
static enum ph_status bisect(struct search *s, size_t *place, bool *found, struct ph_err *err)
{
    size_t good = 0, bad = s->step_count + 1;
    enum ph_status status = measure_place(s, 0, found, err);
    if (!*found)
        return status;
    while (status == PH_OK && bad - good > 1) {
        size_t middle = good + (bad - good) / 2;
        bool within = false;
        status = measure_place(s, middle, &within, err);
        if (within)
            good = middle;
        else
            bad = middle;
    }
    *place = good;
    return status;
}

enum ph_status lab_search(struct lab *lab, struct lab_bound bound, struct ph_err *err)
{
    struct search s = {.lab = lab, .bound = bound};
    size_t place = 0;
    bool found = false;
    s.types = mem_calloc(lab->tensor_count, sizeof *s.types);
    enum ph_status status = s.types ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory for a search");
    if (status == PH_OK)
        status = probe_all(&s, err);
    if (status == PH_OK)
        status = plan(&s, err);
    if (status == PH_OK)
        status = bisect(&s, &place, &found, err);
    if (status == PH_OK && found) {
        assign(&s, place);
        status = lab_add_row(lab, "mixed", s.types, true, err);
    }
    mem_free(s.steps);
    mem_free(s.types);
    return status;
}
