/* Mixture of experts: route rows, group them by expert, run each expert once with all its rows.
 *
 * A slot is a (row, chosen expert) pair. Slots are put in the order of their experts by counting; an
 * expert's rows then lie together, and its weights are read once a step however many rows chose it. The sum
 * over a row's experts runs in the order in which they were chosen, best first, so that a row's result does
 * not depend on what else is in the step (T1). */
#include <math.h>
#include <string.h>

#include "model/forward_int.h"

/* Scores of the experts for one row, from the router's logits. */
static void score(const struct runner *r, float *logits)
{
    const struct hparams *hp = &r->model->hp;
    if (hp->gating == GATING_SOFTMAX)
        tensor_softmax(r->kernels, logits, hp->n_expert);
    else if (hp->gating == GATING_SIGMOID)
        for (size_t i = 0; i < hp->n_expert; i++)
            logits[i] = 1.0f / (1.0f + expf(-logits[i]));
}

/* The k best experts, best first, lower number first on ties. Works on NaN too: some expert is always
 * chosen. */
static void choose(const float *scores, const float *bias, size_t n, size_t k, uint32_t *chosen)
{
    for (size_t j = 0; j < k; j++) {
        size_t best = n;
        float best_score = 0;
        for (size_t i = 0; i < n; i++) {
            float s = bias ? scores[i] + bias[i] : scores[i];
            bool taken = false;
            for (size_t t = 0; t < j; t++)
                taken = taken || chosen[t] == i;
            if (!taken && (best == n || s > best_score)) {
                best = i;
                best_score = s;
            }
        }
        chosen[j] = (uint32_t)best;
    }
}

static void weigh(const struct runner *r, const float *scores, const uint32_t *chosen, float *weight)
{
    const struct hparams *hp = &r->model->hp;
    const float sum_min = 6.103515625e-5f; /* the smallest normal half-precision number */
    float sum = 0;
    for (size_t j = 0; j < hp->n_expert_used; j++)
        weight[j] = scores[chosen[j]];
    if (hp->gating == GATING_SOFTMAX_CHOSEN)
        tensor_softmax(r->kernels, weight, hp->n_expert_used);
    for (size_t j = 0; j < hp->n_expert_used; j++)
        sum += weight[j];
    float scale = hp->expert_scale;
    if (hp->expert_renormalise)
        scale /= sum > sum_min ? sum : sum_min;
    for (size_t j = 0; j < hp->n_expert_used; j++)
        weight[j] *= scale;
}

static void route_row(const struct runner *r, const struct model_layer *l, size_t row)
{
    const struct hparams *hp = &r->model->hp;
    float *scores = r->ws.router + row * hp->n_expert;
    uint32_t *chosen = r->ws.chosen + row * hp->n_expert_used;
    if (l->vector[V_ROUTER_B])
        tensor_add(r->kernels, scores, l->vector[V_ROUTER_B], hp->n_expert);
    score(r, scores);
    choose(scores, l->vector[V_CHOICE_B], hp->n_expert, hp->n_expert_used, chosen);
    weigh(r, scores, chosen, r->ws.chosen_weight + row * hp->n_expert_used);
}

/* Counting sort of the slots by expert. */
static void group_slots(struct runner *r, size_t n)
{
    const struct hparams *hp = &r->model->hp;
    struct workspace *ws = &r->ws;
    size_t slots = n * hp->n_expert_used;
    memset(ws->first, 0, (hp->n_expert + 1) * sizeof *ws->first);
    for (size_t s = 0; s < slots; s++)
        ws->first[ws->chosen[s] + 1]++;
    for (size_t e = 0; e < hp->n_expert; e++)
        ws->first[e + 1] += ws->first[e];
    for (size_t s = 0; s < slots; s++) { /* first[e] moves to the end of e while places are dealt out */
        uint32_t place = ws->first[ws->chosen[s]]++;
        ws->place[s] = place;
        ws->source[place] = (uint32_t)(s / hp->n_expert_used);
        ws->owner[place] = ws->chosen[s];
    }
    for (size_t e = hp->n_expert; e > 0; e--)
        ws->first[e] = ws->first[e - 1];
    ws->first[0] = 0;
}

static void route(struct lane *lane, struct runner *r, size_t index, size_t n)
{
    const struct model_layer *l = &r->model->layers[index];
    size_t first, end;
    struct act xn;
    act_init(&xn, r->ws.xn, n, r->model->hp.n_embd, r->ws.act);
    forward_project(lane, r, index, &(struct projection){W_ROUTER, 0, r->ws.router, r->model->hp.n_expert}, 1,
                    &xn);
    while (lane_take(lane, n, 1, &first, &end))
        for (size_t i = first; i < end; i++)
            route_row(r, l, i);
    lane_barrier(lane);
    if (lane->index == 0)
        group_slots(r, n);
    lane_barrier(lane);
}

/* Copies each place's row, unless there is one row only, which every expert can read where it is. */
static void gather(struct lane *lane, struct runner *r, size_t n)
{
    size_t d = r->model->hp.n_embd, slots = n * r->model->hp.n_expert_used, first, end;
    if (n == 1)
        return;
    while (lane_take(lane, slots, 4, &first, &end))
        for (size_t i = first; i < end; i++)
            memcpy(r->ws.expert_x + i * d, r->ws.xn + r->ws.source[i] * d, d * sizeof(float));
    lane_barrier(lane);
}

/* Gate and up of every expert with rows. A single row is read by all its experts: their products make one
 * step. */
static void expand(struct lane *lane, struct runner *r, size_t index, size_t n)
{
    const struct hparams *hp = &r->model->hp;
    struct workspace *ws = &r->ws;
    struct projection batch[MATMULS_MAX];
    size_t batched = 0, width = hp->n_ff_expert;
    struct act x;
    act_init(&x, ws->xn, 1, hp->n_embd, ws->act);
    for (size_t e = 0; e < hp->n_expert; e++) {
        size_t at = ws->first[e], count = ws->first[e + 1] - at;
        if (count == 0)
            continue;
        if (n > 1)
            act_init(&x, ws->expert_x + at * hp->n_embd, count, hp->n_embd, ws->act);
        batch[batched++] = (struct projection){W_GATE_EXPERTS, e, ws->expert_gate + at * width, width};
        batch[batched++] = (struct projection){W_UP_EXPERTS, e, ws->expert_up + at * width, width};
        if (n > 1 || batched + 2 > MATMULS_MAX) {
            forward_project(lane, r, index, batch, batched, &x);
            batched = 0;
        }
    }
    if (batched > 0)
        forward_project(lane, r, index, batch, batched, &x);
}

static const float *expert_bias(const struct model_layer *l, enum vector_slot slot, size_t expert, size_t len)
{
    return l->vector[slot] ? l->vector[slot] + expert * len : NULL;
}

static void activate(struct lane *lane, struct runner *r, size_t index, size_t slots)
{
    const struct model_layer *l = &r->model->layers[index];
    size_t width = r->model->hp.n_ff_expert, first, end;
    while (lane_take(lane, slots, 1, &first, &end))
        for (size_t i = first; i < end; i++) {
            size_t expert = r->ws.owner[i];
            struct glu glu = {.activation = r->model->arch->activation,
                              .gate_bias = expert_bias(l, V_GATE_EXPERTS_B, expert, width),
                              .up_bias = expert_bias(l, V_UP_EXPERTS_B, expert, width)};
            forward_glu(r->kernels, &glu, r->ws.expert_gate + i * width, r->ws.expert_up + i * width, width);
        }
    lane_barrier(lane);
}

static void contract(struct lane *lane, struct runner *r, size_t index)
{
    const struct hparams *hp = &r->model->hp;
    struct workspace *ws = &r->ws;
    for (size_t e = 0; e < hp->n_expert; e++) {
        size_t at = ws->first[e], count = ws->first[e + 1] - at;
        if (count == 0)
            continue;
        struct act hidden;
        act_init(&hidden, ws->expert_gate + at * hp->n_ff_expert, count, hp->n_ff_expert, ws->act);
        forward_project(lane, r, index,
                        &(struct projection){W_DOWN_EXPERTS, e, ws->expert_x + at * hp->n_embd, hp->n_embd},
                        1, &hidden);
    }
}

static void combine_row(const struct runner *r, const struct model_layer *l, size_t row)
{
    const struct hparams *hp = &r->model->hp;
    size_t d = hp->n_embd;
    float *out = r->ws.out + row * d;
    if (!(l->traits & FACT_SHARED)) {
        memset(out, 0, d * sizeof *out);
    } else if (l->vector[V_SHARED_ROUTER]) {
        float logit = tensor_dot(r->kernels, r->ws.xn + row * d, l->vector[V_SHARED_ROUTER], d);
        tensor_scale(r->kernels, out, 1.0f / (1.0f + expf(-logit)), d);
    }
    for (size_t j = 0; j < hp->n_expert_used; j++) {
        size_t slot = row * hp->n_expert_used + j;
        const float *bias = expert_bias(l, V_DOWN_EXPERTS_B, r->ws.chosen[slot], d);
        float *y = r->ws.expert_x + r->ws.place[slot] * d;
        if (bias)
            tensor_add(r->kernels, y, bias, d);
        tensor_axpy(r->kernels, out, r->ws.chosen_weight[slot], y, d);
    }
}

void forward_experts(struct lane *lane, struct runner *r, size_t index, size_t n)
{
    const struct model_layer *l = &r->model->layers[index];
    size_t first, end;
    route(lane, r, index, n);
    gather(lane, r, n);
    expand(lane, r, index, n);
    activate(lane, r, index, n * r->model->hp.n_expert_used);
    contract(lane, r, index);
    while (lane_take(lane, n, 1, &first, &end))
        for (size_t i = first; i < end; i++)
            combine_row(r, l, i);
    lane_barrier(lane);
}
