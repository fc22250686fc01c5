/* Low-rank adapters (Hu et al. 2021): a GGUF file with pairs `<tensor>.lora_a` and `<tensor>.lora_b`.
 *
 * A pair of a matrix W [out][in] is A [rank][in] and B [out][rank]; it adds alpha / rank * B A to W. The
 * sum is never formed: a runner computes B (A x) beside W x, so that W may be quantised and shared.
 * Experts' pairs have a third dimension. The embedding table is looked up, not multiplied: its A has a row
 * for each token.
 *
 * The adapter keeps its map open; it refers to the model only for checking. */
#include <math.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "model/arch_int.h"

#define LORA_ARENA_BYTES_MAX ((size_t)1 << 28)
#define NAME_BYTES_MAX 128

static const char suffix_a[] = ".lora_a", suffix_b[] = ".lora_b";

static enum ph_status check_kind(const struct lora *lora, struct ph_err *err)
{
    const struct {
        const char *key, *value;
    } wanted[] = {
        {"general.type", "adapter"},
        {"adapter.type", "lora"},
        {"general.architecture", lora->model->info.architecture},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        struct gguf_string text = {"", 0};
        bool there = gguf_get_string(lora->gguf, wanted[i].key, &text);
        if (!there || text.len != strlen(wanted[i].value) ||
            memcmp(text.text, wanted[i].value, text.len) != 0)
            return ph_fail(err, PH_ERR_FORMAT, "%s: %s is \"%.*s\", must be \"%s\" for an adapter of %s",
                           gguf_path(lora->gguf), wanted[i].key, (int)(text.len < 40 ? text.len : 40),
                           text.text, wanted[i].value, lora->model->info.name);
    }
    return PH_OK;
}

static bool ends_with(const char *name, const char *suffix)
{
    size_t len = strlen(name), n = strlen(suffix);
    return len > n && strcmp(name + len - n, suffix) == 0;
}

/* Where a tensor's pair is kept, the base matrix and how many experts it has. NULL: not a matrix of the
 * model. */
static struct lora_pair *find_target(struct lora *lora, const char *base, const struct matrix **w,
                                     size_t *experts)
{
    const struct model *model = lora->model;
    size_t layer;
    const char *suffix;
    enum weight_slot slot;
    *experts = 1;
    for (int i = 0; i < G_WEIGHT_COUNT; i++) {
        const char *name = i == G_EMBED ? "token_embd.weight" : "output.weight";
        if (strcmp(base, name) == 0) {
            *w = &model->weight[i];
            return &lora->global[i];
        }
    }
    if (!layer_name_split(base, &layer, &suffix) || layer >= model->hp.n_layer ||
        !weight_slot_find(model->layers[layer].traits, suffix, &slot) ||
        !model->layers[layer].weight[slot].data)
        return NULL;
    *w = &model->layers[layer].weight[slot];
    if (slot == W_GATE_EXPERTS || slot == W_UP_EXPERTS || slot == W_DOWN_EXPERTS)
        *experts = model->hp.n_expert;
    return &lora->pairs[layer * W_COUNT + slot];
}

static struct matrix as_matrix(const struct gguf_tensor *t)
{
    return (struct matrix){
        .type = t->type, .rows = (size_t)t->dims[1], .cols = (size_t)t->dims[0], .data = t->data};
}

static enum ph_status add_pair(struct lora *lora, const char *base, const struct gguf_tensor *a,
                               const struct gguf_tensor *b, struct ph_err *err)
{
    const struct matrix *w = NULL;
    size_t experts;
    struct lora_pair *pair = find_target(lora, base, &w, &experts);
    if (!pair)
        return ph_fail(err, PH_ERR_FORMAT, "%s: %s adapts %s, which is no matrix of %s",
                       gguf_path(lora->gguf), a->name, base, lora->model->info.name);
    bool lookup = pair == &lora->global[G_EMBED];
    uint64_t in = lookup ? a->dims[1] : a->dims[0], rank = lookup ? a->dims[0] : a->dims[1], out = b->dims[1];
    uint64_t want_in = lookup ? w->rows : w->cols, want_out = lookup ? w->cols : w->rows;
    if (in != want_in || out != want_out || b->dims[0] != rank || a->dims[2] != experts ||
        b->dims[2] != experts)
        return ph_fail(err, PH_ERR_FORMAT,
                       "%s: the pair of %s is [%llu, %llu, %llu] and [%llu, %llu, %llu], which does not fit "
                       "[%zu, %zu, %zu]",
                       gguf_path(lora->gguf), base, (unsigned long long)a->dims[0],
                       (unsigned long long)a->dims[1], (unsigned long long)a->dims[2],
                       (unsigned long long)b->dims[0], (unsigned long long)b->dims[1],
                       (unsigned long long)b->dims[2], w->cols, w->rows, experts);
    if (rank > MODEL_DIM_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%s: rank %llu of %s is more than %u", gguf_path(lora->gguf),
                       (unsigned long long)rank, base, MODEL_DIM_MAX);
    *pair = (struct lora_pair){.a = as_matrix(a), .b = as_matrix(b)};
    if (lora->rank_max < rank)
        lora->rank_max = (size_t)rank;
    if (lora->out_max < out)
        lora->out_max = (size_t)out;
    return PH_OK;
}

static enum ph_status read_pairs(struct lora *lora, struct ph_err *err)
{
    size_t count = gguf_tensor_count(lora->gguf), halves = 0;
    for (size_t i = 0; i < count; i++) {
        const struct gguf_tensor *a = gguf_tensor_at(lora->gguf, i);
        char name[NAME_BYTES_MAX];
        size_t len = strlen(a->name) - (sizeof suffix_a - 1);
        if (!ends_with(a->name, suffix_a))
            continue;
        if (len + sizeof suffix_b > sizeof name)
            return ph_fail(err, PH_ERR_FORMAT, "%s: tensor name %.60s... is too long", gguf_path(lora->gguf),
                           a->name);
        memcpy(name, a->name, len);
        memcpy(name + len, suffix_b, sizeof suffix_b);
        const struct gguf_tensor *b = gguf_tensor_find(lora->gguf, name);
        if (!b)
            return ph_fail(err, PH_ERR_FORMAT, "%s: %s has no partner %s", gguf_path(lora->gguf), a->name,
                           name);
        name[len] = 0;
        enum ph_status status = add_pair(lora, name, a, b, err);
        if (status != PH_OK)
            return status;
        halves += 2;
    }
    if (halves == 0 || halves != count)
        return ph_fail(err, PH_ERR_FORMAT, "%s: %zu of %zu tensors form pairs of .lora_a and .lora_b",
                       gguf_path(lora->gguf), halves, count);
    return PH_OK;
}

static enum ph_status read_alpha(struct lora *lora, struct ph_err *err)
{
    double alpha = 0;
    if (gguf_has(lora->gguf, "adapter.lora.alpha") &&
        (!gguf_get_float(lora->gguf, "adapter.lora.alpha", &alpha) || !(fabs(alpha) <= 1e6)))
        return ph_fail(err, PH_ERR_FORMAT, "%s: adapter.lora.alpha must be a number of at most 1e6",
                       gguf_path(lora->gguf));
    lora->alpha = (float)alpha;
    return PH_OK;
}

enum ph_status lora_open(struct lora **out, const struct model *model, const char *path, struct ph_err *err)
{
    *out = NULL;
    if (!model->arch)
        return ph_fail(err, PH_ERR_ARG, "%s: an adapter needs a model with weights", path);
    struct lora *lora = mem_calloc(1, sizeof *lora);
    if (!lora)
        return ph_fail(err, PH_ERR_NOMEM, "%s: no memory", path);
    arena_init(&lora->arena, LORA_ARENA_BYTES_MAX);
    lora->model = model;
    enum ph_status status = gguf_open(&lora->gguf, path, err);
    if (status == PH_OK)
        status = check_kind(lora, err);
    if (status == PH_OK)
        status = read_alpha(lora, err);
    if (status == PH_OK) {
        lora->pairs = arena_calloc(&lora->arena, model->hp.n_layer * W_COUNT, sizeof *lora->pairs);
        status = lora->pairs ? read_pairs(lora, err) : ph_fail(err, PH_ERR_NOMEM, "%s: no memory", path);
    }
    if (status == PH_OK)
        *out = lora;
    else
        lora_free(lora);
    return status;
}

void lora_free(struct lora *lora)
{
    if (!lora)
        return;
    gguf_free(lora->gguf);
    arena_release(&lora->arena);
    mem_free(lora);
}
