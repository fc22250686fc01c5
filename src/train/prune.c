/* Structured pruning of a decoder.
 *
 * The weights that read a structure's output are columns: of attn_output for heads, of ffn_down for the
 * feed-forward. With the output scaled by a gate of 1, their sum of w dL/dw is the loss's slope along the
 * gate; for ffn_up's rows it would be the same number, so nothing is gained by adding it.
 *
 * What leaves are rows of the matrices that make a structure's output and columns of the one that reads it. A
 * table says which; a unit is as many neighbouring rows or columns as belong together. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "train/prune.h"
#include "train/train_int.h"

enum unit { WHOLE, GROUP, COLUMN };

static const struct cut {
    const char *part;
    enum unit rows, cols;
} cuts[] = {
    {"attn_norm", WHOLE, WHOLE}, {"attn_q", GROUP, WHOLE},      {"attn_k", GROUP, WHOLE},
    {"attn_v", GROUP, WHOLE},    {"attn_output", WHOLE, GROUP}, {"ffn_norm", WHOLE, WHOLE},
    {"ffn_gate", COLUMN, WHOLE}, {"ffn_up", COLUMN, WHOLE},     {"ffn_down", WHOLE, COLUMN},
};

static const struct param *find_param(const struct decoder *decoder, const char *name)
{
    size_t count;
    const struct param *params = decoder_params(decoder, &count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(params[i].name, name) == 0)
            return &params[i];
    return NULL;
}

static const struct param *find_part(const struct decoder *decoder, size_t layer, const char *part)
{
    char name[PARAM_NAME_MAX];
    snprintf(name, sizeof name, "blk.%zu.%s.weight", layer, part);
    return find_param(decoder, name);
}

/* ---- Importance */

enum ph_status saliency_init(struct saliency *m, const struct decoder *decoder, struct ph_err *err)
{
    const struct decoder_config *c = decoder_config(decoder);
    *m = (struct saliency){.layers = c->layers, .groups = c->kv_heads, .columns = c->ff};
    m->of_groups = mem_calloc(c->layers * c->kv_heads, sizeof *m->of_groups);
    m->of_columns = mem_calloc(c->layers * c->ff, sizeof *m->of_columns);
    if (m->of_groups && m->of_columns)
        return PH_OK;
    saliency_release(m);
    return ph_fail(err, PH_ERR_NOMEM, "no memory for the importance of %zu layers", c->layers);
}

void saliency_release(struct saliency *m)
{
    mem_free(m->of_groups);
    mem_free(m->of_columns);
    *m = (struct saliency){0};
}

/* Adds |sum of w dL/dw| over the columns of each of `count` units. */
static void add_units(struct decoder *decoder, const struct param *p, size_t count, double *importance)
{
    const float *w = decoder_weights(decoder) + p->offset, *g = decoder_gradients(decoder) + p->offset;
    size_t width = p->cols / count;
    for (size_t unit = 0; unit < count; unit++) {
        double slope = 0;
        for (size_t row = 0; row < p->rows; row++)
            for (size_t i = row * p->cols + unit * width; i < row * p->cols + (unit + 1) * width; i++)
                slope += (double)w[i] * (double)g[i];
        importance[unit] += fabs(slope);
    }
}

void saliency_add(struct saliency *m, struct decoder *decoder)
{
    for (size_t l = 0; l < m->layers; l++) {
        add_units(decoder, find_part(decoder, l, "attn_output"), m->groups, m->of_groups + l * m->groups);
        add_units(decoder, find_part(decoder, l, "ffn_down"), m->columns, m->of_columns + l * m->columns);
    }
}

/* ---- Choosing */

struct ranked {
    double importance;
    size_t index;
};

/* The most important first; of equals the one that comes first. */
static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->importance > y->importance || x->importance < y->importance)
        return x->importance > y->importance ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static int compare_index(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    return x->index < y->index ? -1 : 1;
}

/* ranked [count] begins with the `kept` most important, in their old order. */
static void choose(const double *importance, size_t count, size_t kept, struct ranked *ranked)
{
    for (size_t i = 0; i < count; i++)
        ranked[i] = (struct ranked){importance[i], i};
    qsort(ranked, count, sizeof *ranked, compare_ranked);
    qsort(ranked, kept, sizeof *ranked, compare_index);
}

/* ---- Copying what stays */

/* What stays along one side of a matrix: new position i is old position
 * kept[i / width] * width + i % width. */
struct side {
    const struct ranked *kept; /* NULL: all */
    size_t width;
};

static size_t old_position(const struct side *side, size_t i)
{
    return side->kept ? side->kept[i / side->width].index * side->width + i % side->width : i;
}

static void copy_param(struct decoder *to, const struct param *t, struct decoder *from, const struct param *f,
                       const struct side *rows, const struct side *cols)
{
    for (size_t r = 0; r < t->rows; r++) {
        const float *old = decoder_weights(from) + f->offset + old_position(rows, r) * f->cols;
        float *new = decoder_weights(to) + t->offset + r * t->cols;
        for (size_t i = 0; i < t->cols; i++)
            new[i] = old[old_position(cols, i)];
    }
}

struct choice {
    struct ranked *groups, *columns;  /* the kept ones first */
    size_t group_count, column_count; /* in the old decoder */
};

static struct side side_of(enum unit unit, const struct choice *choice, size_t old_len)
{
    if (unit == GROUP)
        return (struct side){choice->groups, old_len / choice->group_count};
    if (unit == COLUMN)
        return (struct side){choice->columns, old_len / choice->column_count};
    return (struct side){.width = 1};
}

static void copy_layer(struct decoder *to, struct decoder *from, size_t layer, const struct choice *choice)
{
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        const struct param *t = find_part(to, layer, cuts[i].part);
        const struct param *f = find_part(from, layer, cuts[i].part);
        struct side rows = side_of(cuts[i].rows, choice, f->rows);
        struct side cols = side_of(cuts[i].cols, choice, f->cols);
        copy_param(to, t, from, f, &rows, &cols);
    }
}

static void copy_rest(struct decoder *to, struct decoder *from)
{
    static const char *const names[] = {"token_embd.weight", "output_norm.weight", "output.weight"};
    const struct side all = {.width = 1};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct param *f = find_param(from, names[i]);
        if (f)
            copy_param(to, find_param(to, names[i]), from, f, &all, &all);
    }
}

/* ---- The whole */

static enum ph_status check_sizes(const struct decoder_config *c, size_t heads, size_t ff, struct ph_err *err)
{
    size_t group = c->heads / c->kv_heads;
    if (heads == 0 || heads > c->heads || heads % group != 0)
        return ph_fail(
            err, PH_ERR_ARG,
            "%zu heads can't stay: of the %zu there are, %zu share keys and values, so it must be a "
            "multiple of that",
            heads, c->heads, group);
    if (ff == 0 || ff > c->ff || (ff != c->ff && ff % PRUNE_FF_MULTIPLE != 0))
        return ph_fail(
            err, PH_ERR_ARG,
            "%zu feed-forward columns can't stay: it must be a multiple of %zu, at most the %zu there "
            "are",
            ff, PRUNE_FF_MULTIPLE, c->ff);
    return PH_OK;
}

enum ph_status decoder_prune(struct decoder **out, struct pool *pool, struct decoder *from,
                             const struct saliency *m, size_t heads, size_t ff, size_t batch, size_t time,
                             struct ph_err *err)
{
    struct decoder_config c = *decoder_config(from);
    struct choice choice = {.group_count = m->groups, .column_count = m->columns};
    *out = NULL;
    enum ph_status status = check_sizes(&c, heads, ff, err);
    if (status != PH_OK)
        return status;
    c.kv_heads = heads / (c.heads / c.kv_heads);
    c.heads = heads;
    c.ff = ff;
    choice.groups = mem_calloc(m->groups, sizeof *choice.groups);
    choice.columns = mem_calloc(m->columns, sizeof *choice.columns);
    if (!choice.groups || !choice.columns)
        status = ph_fail(err, PH_ERR_NOMEM, "no memory to choose among %zu columns", m->columns);
    else
        status = decoder_create(out, pool, &c, batch, time, err);
    if (status == PH_OK)
        copy_rest(*out, from);
    for (size_t l = 0; status == PH_OK && l < c.layers; l++) {
        choose(m->of_groups + l * m->groups, m->groups, c.kv_heads, choice.groups);
        choose(m->of_columns + l * m->columns, m->columns, ff, choice.columns);
        copy_layer(*out, from, l, &choice);
    }
    mem_free(choice.groups);
    mem_free(choice.columns);
    return status;
}
