/* Input rows and their forms. A form is made for all rows at once, by all lanes together, before the first
 * product that wants it; each form has its own place in the workspace, so that several can be valid at a
 * time.
 *
 * Quantisation follows ggml's arithmetic as its x86 kernels do it, because products should round where
 * llama.cpp's do: blocks of 32 take 127 / max as their inverse scale and round to even; blocks of 256 are
 * quantize_q8_k. */
#include "tensor/act_int.h"

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static bool form_is_tile(enum act_form form)
{
    return form >= FORM_F32T;
}

/* Rows, or groups of TILE_ROWS rows. */
static size_t form_units(enum act_form form, size_t n)
{
    return form_is_tile(form) ? (n + TILE_ROWS - 1) / TILE_ROWS : n;
}

/* Bytes from unit to unit: a whole row, or one stretch of a group. */
static size_t form_stride(enum act_form form, size_t d)
{
    switch (form) {
    case FORM_Q8:
        return q8_scaled_sums(d) + align64(d / 32 * 4);
    case FORM_Q8K:
        return q8k_scales(d) + align64(d / 256 * 4);
    case FORM_F32T:
        return TILE_STRETCH * TILE_ROWS * 4;
    case FORM_BF16T:
    case FORM_BF16L:
        return TILE_STRETCH * TILE_ROWS * 2;
    default:
        return 0;
    }
}

static size_t form_bytes(enum act_form form, size_t n, size_t d)
{
    size_t stretches = form_is_tile(form) ? (d + TILE_STRETCH - 1) / TILE_STRETCH : 1;
    return form_units(form, n) * stretches * form_stride(form, d);
}

size_t act_workspace_bytes(size_t n_max, size_t d_max)
{
    size_t total = 0, d = round_up(d_max, 256);
    for (unsigned form = 0; form < FORM_COUNT; form++)
        total += form_bytes(form, n_max, d);
    return total;
}

void act_init(struct act *act, const float *x, size_t n, size_t d, void *workspace)
{
    *act = (struct act){.x = x, .n = n, .d = d, .workspace = workspace};
}

struct act_view act_view(const struct act *act, enum act_form form)
{
    size_t offset = 0;
    for (unsigned f = 0; f < (unsigned)form; f++)
        offset += form_bytes(f, act->n, act->d);
    return (struct act_view){(uint8_t *)act->workspace + offset, form_stride(form, act->d)};
}

struct act_view act_stretch(const struct act *act, enum act_form form, size_t from)
{
    struct act_view view = act_view(act, form);
    view.data += from / TILE_STRETCH * form_units(form, act->n) * view.stride;
    return view;
}

/* ---- Making a row or a group of a form ---- */

static void make_q8(const struct vector_kernels *v, const float *x, size_t d, uint8_t *row)
{
    float *scales = (float *)(void *)(row + q8_scales(d));
    float *sums = (float *)(void *)(row + q8_sums(d));
    float *scaled = (float *)(void *)(row + q8_scaled_sums(d));
    for (size_t b = 0; b < d / 32; b++) {
        int32_t sum;
        float scale;
        v->quantize_q8(x + 32 * b, (int8_t *)row + 32 * b, &scale, &sum, 32);
        scales[b] = tensor_f16_to_f32(tensor_f32_to_f16(scale));
        sums[b] = (float)sum;
        scaled[b] = tensor_f16_to_f32(tensor_f32_to_f16(scale * (float)sum));
    }
}

static void make_q8k(const float *x, size_t d, uint8_t *row)
{
    uint8_t block[292];
    for (size_t b = 0; b < d / 256; b++) {
        tensor_quantize(TENSOR_Q8_K, x + 256 * b, block, 256);
        memcpy(row + 256 * b, block + 4, 256);
        memcpy(row + q8k_sums(d) + 32 * b, block + 260, 32);
        memcpy(row + q8k_scales(d) + 4 * b, block, 4);
    }
}

/* Writes row r of sixteen: consecutive 4-byte pieces of the row become TILE_ROWS pieces apart. */
static void scatter(const uint32_t *pieces, size_t count, size_t r, uint32_t *tile)
{
    for (size_t i = 0; i < count; i++)
        tile[i * TILE_ROWS + r] = pieces[i];
}

#define SCATTER_LEN 256 /* inputs of a row at a time: sixteen rows of them stay in the nearest cache */
_Static_assert(TILE_STRETCH % SCATTER_LEN == 0, "a piece of a row lies in one stretch");

static void make_f32t(const struct act *act, size_t first, size_t from, size_t len, uint32_t *to)
{
    for (size_t r = 0; r < TILE_ROWS; r++) {
        uint32_t pieces[SCATTER_LEN] = {0};
        if (first + r < act->n)
            memcpy(pieces, act->x + (first + r) * act->d + from, len * 4);
        scatter(pieces, len, r, to);
    }
}

static void make_bf16t(const struct vector_kernels *v, const struct act *act, size_t first, size_t from,
                       size_t len, bool low, uint32_t *to)
{
    for (size_t r = 0; r < TILE_ROWS; r++) {
        uint32_t high_pieces[SCATTER_LEN / 2] = {0}, low_pieces[SCATTER_LEN / 2] = {0};
        if (first + r < act->n)
            v->to_bf16(act->x + (first + r) * act->d + from, (uint16_t *)high_pieces, (uint16_t *)low_pieces,
                       len);
        scatter(low ? low_pieces : high_pieces, round_up(len, 32) / 2, r, to);
    }
}

static void make_group(enum act_form form, const struct kernels *k, const struct act *act, size_t group)
{
    size_t element = form == FORM_F32T ? 4 : 2;
    for (size_t from = 0; from < act->d; from += SCATTER_LEN) {
        size_t len = act->d - from < SCATTER_LEN ? act->d - from : SCATTER_LEN;
        struct act_view view = act_stretch(act, form, from);
        uint8_t *to = view.data + group * view.stride + from % TILE_STRETCH * TILE_ROWS * element;
        uint32_t *pieces = (uint32_t *)(void *)to;
        if (form == FORM_F32T)
            make_f32t(act, group * TILE_ROWS, from, len, pieces);
        else
            make_bf16t(k->vector, act, group * TILE_ROWS, from, len, form == FORM_BF16L, pieces);
    }
}

static void make_form(enum act_form form, const struct kernels *k, const struct act *act, size_t unit)
{
    struct act_view view = act_view(act, form);
    if (form == FORM_Q8)
        make_q8(k->vector, act->x + unit * act->d, act->d, view.data + unit * view.stride);
    else if (form == FORM_Q8K)
        make_q8k(act->x + unit * act->d, act->d, view.data + unit * view.stride);
    else
        make_group(form, k, act, unit);
}

void act_prepare(struct lane *lane, struct act *act, uint32_t forms)
{
    uint32_t missing = forms & ~act->ready;
    if (!missing)
        return;
    for (unsigned form = 0; form < FORM_COUNT; form++) {
        if (!(missing & FORM_BIT(form)))
            continue;
        size_t unit, end;
        while (lane_take(lane, form_units(form, act->n), 1, &unit, &end))
            make_form(form, lane->kernels, act, unit);
    }
    act->ready |= missing;
    lane_barrier(lane);
}
