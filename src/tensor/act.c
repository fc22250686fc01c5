/* Input rows and their forms. A form is made for all rows at once, by all lanes together, before the first
 * product that wants it; each form has its own place in the workspace, so that several can be valid at a
 * time.
 *
 * Quantisation follows ggml's arithmetic as its x86 kernels do it, because products should round where
 * llama.cpp's do: blocks of 32 take 127 / max as their inverse scale and round to even; blocks of 256 are
 * quantize_q8_k. */
#include "tensor/act_int.h"

enum rounding { AS_IT_IS, TO_F16, TO_BF16 };

static const enum rounding roundings[FORM_COUNT] = {
    [FORM_F16] = TO_F16,  [FORM_BF16] = TO_BF16,  [FORM_F32T] = AS_IT_IS,
    [FORM_F16T] = TO_F16, [FORM_BF16T] = TO_BF16,
};

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static bool form_is_tile(enum act_form form)
{
    return form >= FORM_Q8T;
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
    case FORM_Q8T:
        return sizeof(struct q8_tile);
    case FORM_Q8KT:
        return sizeof(struct q8k_tile);
    default:
        if (!form_is_tile(form))
            return align64(d * 4);
        return (size_t)TILE_STRETCH * TILE_ROWS * (form == FORM_BF16P ? 2 : 4);
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

struct act_view act_floats(const struct act *act, enum tensor_type type)
{
    if (type == TENSOR_F32)
        return (struct act_view){(uint8_t *)(uintptr_t)act->x, act->d * 4};
    return act_view(act, type == TENSOR_F16 ? FORM_F16 : FORM_BF16);
}

/* ---- Rows ---- */

static void round_floats(const struct vector_kernels *v, enum rounding rounding, const float *x, float *to,
                         size_t len)
{
    if (rounding == TO_F16)
        v->round_f16(x, to, len);
    else if (rounding == TO_BF16)
        v->round_bf16(x, to, len);
    else
        memcpy(to, x, len * sizeof *to);
}

static float through_f16(float x)
{
    return tensor_f16_to_f32(tensor_f32_to_f16(x));
}

static void make_q8(const struct vector_kernels *v, const float *x, size_t d, uint8_t *row)
{
    float *scales = (float *)(void *)(row + q8_scales(d));
    float *sums = (float *)(void *)(row + q8_sums(d));
    float *scaled = (float *)(void *)(row + q8_scaled_sums(d));
    for (size_t b = 0; b < d / 32; b++) {
        int32_t sum;
        float scale;
        v->quantize_q8(x + 32 * b, (int8_t *)row + 32 * b, &scale, &sum, 32);
        scales[b] = through_f16(scale);
        sums[b] = (float)sum;
        scaled[b] = through_f16(scale * (float)sum);
    }
}

static void make_q8k(const struct vector_kernels *v, const float *x, size_t d, uint8_t *row)
{
    v->quantize_q8k(x, (int8_t *)row, (float *)(void *)(row + q8k_scales(d)),
                    (int16_t *)(void *)(row + q8k_sums(d)), d);
}

static void make_row(enum act_form form, const struct vector_kernels *v, const struct act *act, size_t r)
{
    struct act_view view = act_view(act, form);
    const float *x = act->x + r * act->d;
    uint8_t *row = view.data + r * view.stride;
    if (form == FORM_Q8)
        make_q8(v, x, act->d, row);
    else if (form == FORM_Q8K)
        make_q8k(v, x, act->d, row);
    else
        round_floats(v, roundings[form], x, (float *)(void *)row, act->d);
}

/* ---- Tiles: pieces of a row, scattered among those of fifteen others ---- */

#define PIECE 256 /* inputs of a row at a time: sixteen rows of them stay in the nearest cache */
_Static_assert(TILE_STRETCH % PIECE == 0, "a piece of a row lies in one stretch");

/* Row r of sixteen: consecutive 4-byte numbers of the row become TILE_ROWS numbers apart. */
static void scatter(const void *numbers, size_t count, size_t r, void *tile)
{
    const uint32_t *from = numbers;
    uint32_t *to = tile;
    for (size_t i = 0; i < count; i++)
        to[i * TILE_ROWS + r] = from[i];
}

static void q8_piece(const struct vector_kernels *v, const float *x, size_t at, size_t len, size_t r,
                     struct q8_tile *tile)
{
    int8_t codes[PIECE];
    float scales[PIECE / 32], scaled[PIECE / 32];
    int32_t sums[PIECE / 32];
    v->quantize_q8(x, codes, scales, sums, len);
    for (size_t b = 0; b < len / 32; b++) {
        scaled[b] = through_f16(scales[b] * (float)sums[b]);
        scales[b] = through_f16(scales[b]);
    }
    scatter(codes, len / 4, r, tile->codes[at / 4]);
    scatter(scales, len / 32, r, tile->scales[at / 32]);
    scatter(scaled, len / 32, r, tile->scaled_sums[at / 32]);
    scatter(sums, len / 32, r, tile->sums[at / 32]);
}

static void q8k_piece(const struct vector_kernels *v, const float *x, size_t at, size_t len, size_t r,
                      struct q8k_tile *tile)
{
    int8_t codes[PIECE];
    float scale;
    int16_t sums[PIECE / 16];
    int32_t wide[PIECE / 16];
    v->quantize_q8k(x, codes, &scale, sums, len);
    for (size_t g = 0; g < PIECE / 16; g++)
        wide[g] = sums[g];
    scatter(codes, len / 4, r, tile->codes[at / 4]);
    scatter(&scale, 1, r, tile->scales[at / 256]);
    scatter(wide, len / 16, r, tile->sums[at / 16]);
}

static void float_piece(const struct vector_kernels *v, enum rounding rounding, const float *x, size_t at,
                        size_t len, size_t r, float *tile)
{
    float floats[PIECE];
    round_floats(v, rounding, x, floats, len);
    scatter(floats, len, r, tile + at * TILE_ROWS);
}

static void bf16_piece(const struct vector_kernels *v, const float *x, size_t at, size_t len, size_t r,
                       uint16_t *tile)
{
    uint16_t numbers[PIECE] = {0};
    v->to_bf16(x, numbers, len);
    scatter(numbers, round_up(len, 32) / 2, r, tile + at * TILE_ROWS);
}

static void make_group(enum act_form form, const struct vector_kernels *v, const struct act *act,
                       size_t group)
{
    static const float nothing[PIECE];
    for (size_t from = 0; from < act->d; from += PIECE) {
        size_t len = act->d - from < PIECE ? act->d - from : PIECE, at = from % TILE_STRETCH;
        struct act_view view = act_stretch(act, form, from);
        void *tile = view.data + group * view.stride;
        for (size_t r = 0; r < TILE_ROWS; r++) {
            size_t row = group * TILE_ROWS + r;
            const float *x = row < act->n ? act->x + row * act->d + from : nothing;
            if (form == FORM_Q8T)
                q8_piece(v, x, at, len, r, tile);
            else if (form == FORM_Q8KT)
                q8k_piece(v, x, at, len, r, tile);
            else if (form == FORM_BF16P)
                bf16_piece(v, x, at, len, r, tile);
            else
                float_piece(v, roundings[form], x, at, len, r, tile);
        }
    }
}

void act_prepare(struct lane *lane, struct act *act, uint32_t forms)
{
    uint32_t missing = forms & ~act->ready;
    if (!missing)
        return;
    const struct vector_kernels *v = lane->kernels->vector;
    for (unsigned form = 0; form < FORM_COUNT; form++) {
        if (!(missing & FORM_BIT(form)))
            continue;
        size_t unit, end;
        while (lane_take(lane, form_units(form, act->n), 1, &unit, &end)) {
            if (form_is_tile(form))
                make_group(form, v, act, unit);
            else
                make_row(form, v, act, unit);
        }
    }
    act->ready |= missing;
    lane_barrier(lane);
}
