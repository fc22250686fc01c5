/* Timing a candidate: prompts read, tokens decoded one by one.
 *
 * Rounds alternate between the two until enough are quiet, or time is up. A round whose threads had their
 * cores for less than 90 % of the time is not counted, unless there is none better; then the figures say
 * so. The limit of decoding is the bandwidth with which these threads read as much memory as the weights
 * take: a small model lives in the caches, where the limit is far higher than that of main memory. */
#include "base/clock.h"
#include "base/values.h"
#include "train/lab_int.h"

#include <stdlib.h>

#include <uv.h>

#include "base/mem.h"

#define PROMPT 256
#define DECODED 64
#define ROUNDS 4        /* quiet ones wanted */
#define SECONDS_MAX 6.0 /* then it is over, quiet or not ... */
#define ROUNDS_MAX 12   /* ... and at the latest after these */
#define QUIET_SHARE 0.9
#define LIMIT_SECONDS 0.15
#define LIMIT_BYTES_MIN ((size_t)1 << 20)
#define LIMIT_BYTES_MAX ((size_t)256 << 20)

struct timing {
    struct runner *runner;
    struct kv_seq *seq;
    size_t n_vocab;
    float *logits;
    struct runner_row rows[PROMPT];
    double prefill[ROUNDS_MAX], decode[ROUNDS_MAX], share[ROUNDS_MAX], latency[ROUNDS_MAX][DECODED];
    size_t rounds, quiet;
};

static double seconds_since(uint64_t start_ns)
{
    return (double)(uv_hrtime() - start_ns) * 1e-9;
}

static enum ph_status prefill(struct timing *t, double *speed, struct ph_err *err)
{
    for (size_t i = 0; i < PROMPT; i++)
        t->rows[i] = (struct runner_row){t->seq, (int32_t)(i * 7919 % t->n_vocab), NULL};
    t->rows[PROMPT - 1].logits = t->logits;
    uint64_t start = uv_hrtime();
    enum ph_status status = runner_step(t->runner, t->rows, PROMPT, PHASE_PREFILL, err);
    *speed = PROMPT / seconds_since(start);
    return status;
}

static enum ph_status decode(struct timing *t, double *speed, double *latency, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    uint64_t start = uv_hrtime();
    for (size_t i = 0; i < DECODED && status == PH_OK; i++) {
        const struct runner_row row = {t->seq, (int32_t)((i + 1) * 104729 % t->n_vocab), t->logits};
        uint64_t begun = uv_hrtime();
        status = runner_step(t->runner, &row, 1, PHASE_DECODE, err);
        latency[i] = seconds_since(begun);
    }
    *speed = DECODED / seconds_since(start);
    return status;
}

static enum ph_status time_round(struct timing *t, struct ph_err *err)
{
    double cpu = clock_cpu_seconds();
    uint64_t start = uv_hrtime();
    size_t i = t->rounds;
    kv_seq_truncate(t->runner, t->seq, 0);
    enum ph_status status = kv_seq_reserve(t->runner, t->seq, PROMPT + DECODED);
    if (status != PH_OK)
        return ph_fail(err, status, "no room for %d tokens to time", PROMPT + DECODED);
    status = prefill(t, &t->prefill[i], err);
    if (status == PH_OK)
        status = decode(t, &t->decode[i], t->latency[i], err);
    t->share[i] = (clock_cpu_seconds() - cpu) / (seconds_since(start) * pool_lanes(runner_pool(t->runner)));
    t->quiet += t->share[i] >= QUIET_SHARE;
    t->rounds++;
    return status;
}

static double quantile(double *values, size_t count, double share)
{
    values_sort(values, count);
    size_t at = (size_t)(share * (double)(count - 1) + 0.5);
    return count ? values[at] : 0;
}

/* Keeps the quiet rounds, if there are any. */
static void summarise(struct timing *t, struct lab_speed *out)
{
    double latency[ROUNDS_MAX * DECODED];
    size_t kept = 0;
    for (size_t i = 0; i < t->rounds; i++) {
        if (t->quiet && t->share[i] < QUIET_SHARE)
            continue;
        t->prefill[kept] = t->prefill[i];
        t->decode[kept] = t->decode[i];
        for (size_t k = 0; k < DECODED; k++)
            latency[kept * DECODED + k] = t->latency[i][k];
        kept++;
    }
    out->quiet = t->quiet > 0;
    out->prefill = quantile(t->prefill, kept, 0.5);
    out->decode = quantile(t->decode, kept, 0.5);
    out->p50_ms = 1000 * quantile(latency, kept * DECODED, 0.5);
    out->p95_ms = 1000 * quantile(latency, kept * DECODED, 0.95);
}

static double decode_limit(struct timing *t, const struct model_info *info)
{
    size_t bytes = (size_t)info->decode_bytes;
    bytes = bytes < LIMIT_BYTES_MIN ? LIMIT_BYTES_MIN : bytes > LIMIT_BYTES_MAX ? LIMIT_BYTES_MAX : bytes;
    return tensor_measure_read_bandwidth(runner_pool(t->runner), bytes, LIMIT_SECONDS) /
           (double)info->decode_bytes;
}

enum ph_status lab_time(const struct lab *lab, const struct model *model, struct lab_speed *out,
                        struct ph_err *err)
{
    const struct model_info *info = model_info(model);
    const struct runner_params params = {.threads = lab->params.threads,
                                         .kernels = lab->params.kernels,
                                         .kv_type = TENSOR_F16,
                                         .context_len = PROMPT + DECODED,
                                         .rows_max = PROMPT,
                                         .sequences_max = 1};
    struct timing *t = mem_calloc(1, sizeof *t);
    enum ph_status status = t ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory to time");
    if (status == PH_OK)
        status = runner_create(&t->runner, model, &params, err);
    if (status == PH_OK) {
        t->n_vocab = info->n_vocab;
        t->seq = kv_seq_take(t->runner);
        t->logits = mem_calloc(t->n_vocab, sizeof *t->logits);
        status = t->seq && t->logits ? time_round(t, err) : ph_fail(err, PH_ERR_NOMEM, "no memory to time");
        t->rounds = t->quiet = 0; /* that one warmed up */
    }
    uint64_t start = uv_hrtime();
    while (status == PH_OK && t->quiet < ROUNDS && t->rounds < ROUNDS_MAX &&
           (t->rounds == 0 || seconds_since(start) < SECONDS_MAX)) {
        status = time_round(t, err);
        if (status == PH_OK)
            status = lab_tell(lab, "timing", t->rounds, ROUNDS_MAX, err);
    }
    if (status == PH_OK) {
        summarise(t, out);
        out->decode_limit = decode_limit(t, info);
    }
    if (t) {
        if (t->seq)
            kv_seq_give(t->runner, t->seq);
        runner_free(t->runner);
        mem_free(t->logits);
    }
    mem_free(t);
    return status;
}
