/* The selective state space's sequential scan (Gu and Dao 2023) and its gradient.
 *
 * Method: `channels` are shared out in fixed blocks; a lane walks its block through all sequences in order,
 * so the gradients of A and D are its own to add up. Forward keeps the state at the beginning of each stretch
 * of SCAN_STRETCH positions; backward walks the stretches from the last, computes the states of one again
 * into the lane's scratch, and carries the state's gradient back. The gradients of b and c are sums over all
 * channels: each block writes its part, and parts are added in order of blocks (L3).
 *
 * With step = softplus(delta), keep = exp(step A), the state's gradient g_t = C_t dy_t + keep_{t+1} g_{t+1}:
 *   dx += step B g;  dB += step x g;  dC += h dy;  dstep += (B x + A keep h_{t-1}) g;
 *   dA += step keep h_{t-1} g.
 * A = -exp(a_log), so da_log = A dA. */
#include <math.h>
#include <string.h>

#include "train/train_int.h"

#define SCAN_STRETCH ((size_t)32)
#define SCAN_CHANNELS ((size_t)8)

/* ---- Sizes ---- */

static size_t stretches(const struct scan_layer *s)
{
    return (s->time + SCAN_STRETCH - 1) / SCAN_STRETCH;
}

static size_t blocks(const struct scan_layer *s)
{
    return (s->channels + SCAN_CHANNELS - 1) / SCAN_CHANNELS;
}

size_t scan_kept_len(const struct scan_layer *s)
{
    return s->batch * stretches(s) * s->channels * s->states;
}

/* A stretch's states and the one before it; the state's gradient. */
static size_t lane_bytes(const struct scan_layer *s)
{
    return align_bytes((SCAN_STRETCH + 2) * s->states * sizeof(float));
}

static size_t parts_len(const struct scan_layer *s)
{
    return blocks(s) * s->batch * s->time * s->states;
}

size_t scan_scratch_bytes(const struct scan_layer *s, unsigned lanes)
{
    return 2 * align_bytes(parts_len(s) * sizeof(float)) + lanes * lane_bytes(s);
}

/* ---- Forward ---- */

static float softplus(float x)
{
    return x > 20 ? x : log1pf(expf(x));
}

/* One position of one channel: h becomes the next state. Returns C . h. */
static float advance(const struct scan_layer *s, size_t channel, size_t row, const struct scan_inputs *in,
                     const float *before, float *after)
{
    const float *a_log = s->a_log + channel * s->states, *b = in->b + row * s->states;
    const float *c = in->c + row * s->states;
    float step = softplus(in->delta[row * s->channels + channel]), sum = 0;
    float pushed = step * in->x[row * s->channels + channel];
    for (size_t n = 0; n < s->states; n++) {
        after[n] = expf(-step * expf(a_log[n])) * before[n] + pushed * b[n];
        sum += c[n] * after[n];
    }
    return sum;
}

static size_t kept_at(const struct scan_layer *s, size_t sequence, size_t stretch, size_t channel)
{
    return ((sequence * stretches(s) + stretch) * s->channels + channel) * s->states;
}

static void forward_channel(const struct scan_layer *s, const struct scan_inputs *in, size_t sequence,
                            size_t channel, float *h, float *y, float *kept)
{
    memset(h, 0, s->states * sizeof *h);
    for (size_t t = 0; t < s->time; t++) {
        size_t row = sequence * s->time + t, at = row * s->channels + channel;
        if (t % SCAN_STRETCH == 0)
            memcpy(kept + kept_at(s, sequence, t / SCAN_STRETCH, channel), h, s->states * sizeof *h);
        y[at] = advance(s, channel, row, in, h, h) + s->skip[channel] * in->x[at];
    }
}

static float *lane_part(struct lane *lane, const struct scan_layer *s, void *scratch)
{
    uint8_t *mine = (uint8_t *)scratch + 2 * align_bytes(parts_len(s) * sizeof(float));
    return (float *)(void *)(mine + lane_bytes(s) * lane->index);
}

void scan_forward(struct lane *lane, const struct scan_layer *s, const struct scan_inputs *in, float *y,
                  float *kept, void *scratch)
{
    size_t first, end;
    float *h = lane_part(lane, s, scratch);
    while (lane_take(lane, s->channels, SCAN_CHANNELS, &first, &end))
        for (size_t b = 0; b < s->batch; b++)
            for (size_t channel = first; channel < end; channel++)
                forward_channel(s, in, b, channel, h, y, kept);
    lane_barrier(lane);
}

/* ---- Backward ---- */

struct scan_pass {
    const struct scan_layer *s;
    const struct scan_inputs *in;
    const struct scan_gradients *out;
    const float *dy;
    const float *kept;
    float *db, *dc; /* this block's parts */
    float *h;       /* [SCAN_STRETCH + 1][states] */
    float *g;       /* [states], carried from the position after: keep g */
};

/* One position of one channel, given the states before and after it. */
static void backward_position(const struct scan_pass *p, size_t channel, size_t row, const float *before,
                              const float *after)
{
    const struct scan_layer *s = p->s;
    size_t at = row * s->channels + channel, wide = row * s->states;
    float raw = p->in->delta[at], step = softplus(raw), x = p->in->x[at], dy = p->dy[at];
    float dx = s->skip[channel] * dy, dstep = 0;
    for (size_t n = 0; n < s->states; n++) {
        float a = -expf(s->a_log[channel * s->states + n]), keep = expf(step * a);
        float g = p->in->c[wide + n] * dy + p->g[n], b = p->in->b[wide + n];
        float through = keep * before[n] * g;
        p->dc[wide + n] += after[n] * dy;
        p->db[wide + n] += step * x * g;
        dx += step * b * g;
        dstep += b * x * g + a * through;
        if (s->da_log)
            s->da_log[channel * s->states + n] += a * step * through;
        p->g[n] = keep * g;
    }
    if (s->dskip)
        s->dskip[channel] += x * dy;
    p->out->dx[at] = dx;
    p->out->ddelta[at] = dstep / (1 + expf(-raw));
}

static void backward_channel(const struct scan_pass *p, size_t sequence, size_t channel)
{
    const struct scan_layer *s = p->s;
    memset(p->g, 0, s->states * sizeof *p->g);
    for (size_t stretch = stretches(s); stretch-- > 0;) {
        size_t from = stretch * SCAN_STRETCH, count = least(SCAN_STRETCH, s->time - from);
        size_t row = sequence * s->time + from;
        memcpy(p->h, p->kept + kept_at(s, sequence, stretch, channel), s->states * sizeof *p->h);
        for (size_t i = 0; i < count; i++)
            advance(s, channel, row + i, p->in, p->h + i * s->states, p->h + (i + 1) * s->states);
        for (size_t i = count; i-- > 0;)
            backward_position(p, channel, row + i, p->h + i * s->states, p->h + (i + 1) * s->states);
    }
}

static void add_parts(struct lane *lane, const float *parts, size_t count, size_t len, float *sum)
{
    size_t first, end;
    while (lane_take(lane, len, ELEMENTS_AT_ONCE, &first, &end)) {
        memset(sum + first, 0, (end - first) * sizeof *sum);
        for (size_t p = 0; p < count; p++)
            tensor_add(lane->kernels, sum + first, parts + p * len + first, end - first);
    }
    lane_barrier(lane);
}

void scan_backward(struct lane *lane, const struct scan_layer *s, const struct scan_inputs *in,
                   const float *kept, const float *dy, const struct scan_gradients *out, void *scratch)
{
    size_t first, end, len = s->batch * s->time * s->states;
    float *db = scratch;
    float *dc = (float *)(void *)((uint8_t *)scratch + align_bytes(parts_len(s) * sizeof(float)));
    struct scan_pass p = {.s = s, .in = in, .out = out, .dy = dy, .kept = kept};
    p.h = lane_part(lane, s, scratch);
    p.g = p.h + (SCAN_STRETCH + 1) * s->states;
    while (lane_take(lane, s->channels, SCAN_CHANNELS, &first, &end)) {
        p.db = db + first / SCAN_CHANNELS * len;
        p.dc = dc + first / SCAN_CHANNELS * len;
        memset(p.db, 0, len * sizeof *db);
        memset(p.dc, 0, len * sizeof *dc);
        for (size_t b = 0; b < s->batch; b++)
            for (size_t channel = first; channel < end; channel++)
                backward_channel(&p, b, channel);
    }
    lane_barrier(lane);
    add_parts(lane, db, blocks(s), len, out->db);
    add_parts(lane, dc, blocks(s), len, out->dc);
}
