/* A run in a directory: begin or go on, step after step, checkpoints in two files by turns, a model at the
 * end.
 *
 * Killed at any moment, the directory holds at least one whole checkpoint as soon as one was ever finished:
 * the file that is written is never the newest good one, and it is replaced in one piece. A checkpoint that
 * can't be written while steps remain is said and tried again when the next is due: stopping would lose
 * more. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/limits.h"
#include "train/run_int.h"

#define SLOTS 2
#define SPEED_SMOOTHING 0.9
#define NS_PER_S 1e9
#define NOTE_BYTES_MAX 1024

struct run {
    struct trainer *trainer;
    const struct run_params *params;
    const struct run_hooks *hooks;
    struct run_result *result;
    char slots[SLOTS][PATH_BYTES_MAX], curve_path[PATH_BYTES_MAX], chart_path[PATH_BYTES_MAX],
        model_path[PATH_BYTES_MAX];
    int lock;
    unsigned next_slot;
    uint64_t saved_step, saved_ns; /* saved_step UINT64_MAX: none */
    struct curve curve;
    bool curve_failed, chart_failed;
    double tokens_per_s;
};

static uint64_t now_ns(void)
{
    return clock_monotonic_ns(clock_system());
}

static bool is_first(const struct run *run)
{
    return ranks_index(run->trainer->ranks) == 0;
}

static void note(const struct run *run, const char *text)
{
    if (run->hooks->note && is_first(run))
        run->hooks->note(run->hooks->ud, text);
}

/* Whichever rank was asked, all stop after the same step. */
static bool asked_to_stop(const struct run *run)
{
    double asked = run->hooks->stop && run->hooks->stop(run->hooks->ud);
    ranks_sum_doubles(run->trainer->ranks, &asked, 1);
    return asked > 0;
}

/* ---- Paths */

static bool join(char out[PATH_BYTES_MAX], const char *dir, const char *name)
{
    int len = snprintf(out, PATH_BYTES_MAX, "%s/%s", dir, name);
    return len > 0 && len < PATH_BYTES_MAX;
}

static enum ph_status name_files(struct run *run, struct ph_err *err)
{
    const struct run_params *p = run->params;
    bool ok = join(run->slots[0], p->dir, "checkpoint-0") && join(run->slots[1], p->dir, "checkpoint-1") &&
              join(run->curve_path, p->dir, "loss.csv") && join(run->chart_path, p->dir, "loss.svg");
    if (ok && p->model)
        ok = snprintf(run->model_path, PATH_BYTES_MAX, "%s", p->model) < PATH_BYTES_MAX;
    else if (ok)
        ok = join(run->model_path, p->dir, "model.gguf");
    return ok ? PH_OK : ph_fail(err, PH_ERR_LIMIT, "%.100s...: the path is too long", p->dir);
}

static enum ph_status claim_directory(struct run *run, struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    enum ph_status status = file_make_dir(run->params->dir, err);
    if (status != PH_OK)
        return status;
    if (!join(path, run->params->dir, "lock"))
        return ph_fail(err, PH_ERR_LIMIT, "%.100s...: the path is too long", run->params->dir);
    status = file_lock(path, &run->lock, err);
    if (status == PH_ERR_BUSY)
        return ph_fail(err, status, "another process is training in %s; stop it, or train in another one",
                       run->params->dir);
    if (status == PH_OK)
        file_remove_strays(run->params->dir);
    return status;
}

/* ---- Checkpoints */

/* The newest good one, or SLOTS where there is none at all. All damaged is an error: beginning anew would
 * overwrite what somebody may still want to rescue. */
static enum ph_status newest(struct run *run, unsigned *slot, struct ph_err *err)
{
    uint64_t best = 0;
    unsigned there = 0;
    char text[NOTE_BYTES_MAX];
    struct ph_err problem = {0};
    *slot = SLOTS;
    for (unsigned i = 0; i < SLOTS; i++) {
        struct checkpoint c;
        if (!file_exists(run->slots[i]))
            continue;
        there++;
        if (checkpoint_open(&c, run->slots[i], &problem) != PH_OK) {
            snprintf(text, sizeof text, "%s; it is not used", problem.message);
            note(run, text);
            continue;
        }
        if (*slot == SLOTS || c.step > best) {
            *slot = i;
            best = c.step;
        }
        checkpoint_release(&c);
    }
    if (there > 0 && *slot == SLOTS)
        return ph_fail(err, PH_ERR_FORMAT,
                       "%s has no checkpoint that is whole (%s); remove them to begin anew", run->params->dir,
                       problem.message);
    return PH_OK;
}

static enum ph_status resume(struct run *run, struct ph_err *err)
{
    unsigned slot = SLOTS;
    char text[NOTE_BYTES_MAX];
    run->saved_step = UINT64_MAX;
    enum ph_status status = is_first(run) ? newest(run, &slot, err) : PH_OK;
    if (status != PH_OK)
        return status;
    ranks_broadcast(run->trainer->ranks, &slot, sizeof slot);
    if (slot >= SLOTS)
        return PH_OK;
    status = trainer_load(run->trainer, run->slots[slot], run->params->adapt, err);
    if (status != PH_OK)
        return status;
    run->next_slot = 1 - slot;
    run->saved_step = trainer_step_at(run->trainer);
    snprintf(text, sizeof text, "going on from step %" PRIu64 " of %s", run->saved_step, run->slots[slot]);
    note(run, text);
    return PH_OK;
}

static enum ph_status save(struct run *run, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    trainer_level(run->trainer);
    if (is_first(run))
        status = trainer_save(run->trainer, run->slots[run->next_slot], err);
    run->saved_ns = now_ns();
    if (status != PH_OK)
        return status;
    run->next_slot = 1 - run->next_slot;
    run->saved_step = trainer_step_at(run->trainer);
    return PH_OK;
}

static bool is_due(uint64_t every, uint64_t step)
{
    return every > 0 && step % every == 0;
}

/* Rank 0's clock counts. */
static bool is_late(struct run *run)
{
    double minutes = (double)(now_ns() - run->saved_ns) / NS_PER_S / 60;
    bool late = run->params->checkpoint_minutes > 0 && minutes >= run->params->checkpoint_minutes;
    ranks_broadcast(run->trainer->ranks, &late, sizeof late);
    return late;
}

static void save_if_due(struct run *run)
{
    struct ph_err err;
    char text[NOTE_BYTES_MAX];
    if (!is_late(run) && !is_due(run->params->checkpoint_every, trainer_step_at(run->trainer)))
        return;
    if (save(run, &err) != PH_OK) {
        snprintf(text, sizeof text, "%s; training goes on, and the checkpoint is tried again later",
                 err.message);
        note(run, text);
    }
}

/* ---- The model file */

static enum ph_status write_model(struct run *run, struct ph_err *err)
{
    return trainer_export_as(run->trainer, run->model_path, run->params->name, run->params->type, err);
}

static void write_model_if_due(struct run *run)
{
    struct ph_err err;
    if (is_first(run) && is_due(run->params->export_every, trainer_step_at(run->trainer)) &&
        write_model(run, &err) != PH_OK)
        note(run, err.message);
}

/* ---- Steps */

static void draw(struct run *run)
{
    struct ph_err err;
    if (run->chart_failed || curve_draw(run->curve_path, run->chart_path, run->params->name, &err) == PH_OK)
        return;
    run->chart_failed = true;
    note(run, err.message);
}

static void keep_time(struct run *run, struct run_report *report, uint64_t start_ns)
{
    double seconds = (double)(now_ns() - start_ns) / NS_PER_S;
    double speed = (double)trainer_step_tokens(run->trainer) / (seconds > 0 ? seconds : 1 / NS_PER_S);
    run->tokens_per_s =
        run->tokens_per_s > 0 ? SPEED_SMOOTHING * run->tokens_per_s + (1 - SPEED_SMOOTHING) * speed : speed;
    uint64_t left = trainer_step_end(run->trainer) - trainer_step_at(run->trainer);
    report->tokens_per_s = run->tokens_per_s;
    report->left_s = (double)(left * trainer_step_tokens(run->trainer)) / run->tokens_per_s;
}

static void tell(struct run *run, const struct run_report *report)
{
    if (!is_first(run))
        return;
    if (!curve_add(&run->curve, report) && !run->curve_failed) {
        run->curve_failed = true;
        note(run, "loss.csv could not be written (is the disk full?); training goes on without its rows");
    }
    if (report->validation)
        draw(run);
    if (run->hooks->step)
        run->hooks->step(run->hooks->ud, report);
}

static enum ph_status one_step(struct run *run, struct ph_err *err)
{
    struct run_report report = {0};
    struct trainer_validation validation;
    uint64_t start_ns = now_ns();
    enum ph_status status = trainer_step(run->trainer, &report.step, err);
    if (status != PH_OK)
        return status;
    keep_time(run, &report, start_ns);
    if (is_due(run->params->validate_every, report.step.step) ||
        report.step.step == trainer_step_end(run->trainer)) {
        status = trainer_validate(run->trainer, false, &validation, err);
        report.validation = status == PH_OK && validation.windows > 0 ? &validation : NULL;
    }
    if (status == PH_OK) {
        tell(run, &report);
        run->result->last = report.step;
    }
    return status;
}

static enum ph_status all_steps(struct run *run, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    run->saved_ns = now_ns();
    while (status == PH_OK && trainer_step_at(run->trainer) < trainer_step_end(run->trainer)) {
        if (asked_to_stop(run)) {
            run->result->stopped = true;
            break;
        }
        status = one_step(run, err);
        if (status == PH_OK) {
            save_if_due(run);
            write_model_if_due(run);
        }
    }
    if (status == PH_OK && run->saved_step != trainer_step_at(run->trainer))
        status = save(run, err);
    return status;
}

/* ---- The end */

static enum ph_status train(struct run *run, struct ph_err *err)
{
    enum ph_status status = resume(run, err);
    if (status == PH_OK && run->params->cool_now > 0)
        status = trainer_cool_down(run->trainer, run->params->cool_now, err);
    if (status != PH_OK)
        return status;
    run->result->begun_at = trainer_step_at(run->trainer);
    if (is_first(run))
        status = curve_open(&run->curve, run->curve_path, run->result->begun_at, err);
    if (status == PH_OK)
        status = all_steps(run, err);
    run->result->ended_at = trainer_step_at(run->trainer);
    if (status == PH_OK && !run->result->stopped && trainer_params(run->trainer)->validation_windows > 0) {
        note(run, "measuring on everything that is held out");
        status = trainer_validate(run->trainer, true, &run->result->validation, err);
    }
    if (!is_first(run))
        return status;
    if (status == PH_OK && !run->result->stopped)
        status = write_model(run, err);
    if (run->curve.len > 0)
        draw(run);
    curve_close(&run->curve);
    return status;
}

enum ph_status trainer_run(struct trainer *trainer, const struct run_params *params,
                           const struct run_hooks *hooks, struct run_result *result, struct ph_err *err)
{
    struct run run = {.trainer = trainer, .params = params, .hooks = hooks, .result = result, .lock = -1};
    *result = (struct run_result){0};
    enum ph_status status = name_files(&run, err);
    if (status == PH_OK && is_first(&run))
        status = file_out_check(run.model_path, err); /* not after hours */
    if (status == PH_OK && is_first(&run))
        status = claim_directory(&run, err);
    if (status == PH_OK)
        status = train(&run, err);
    file_unlock(run.lock);
    return status;
}
