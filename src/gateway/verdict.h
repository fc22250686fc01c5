/* verdicts: what people thought of a cascade's answers, and the threshold that follows from it.
 *
 * Files in DATA, each a JSON object a line, mode 0600; at its greatest length a file becomes "NAME.1":
 *   verdicts.jsonl  one a POST /v1/feedback      cascade.jsonl  one an answer of a cascade that was judged
 * and DATA/calibration.json, which `pharos route calibrate` writes and a station reads again within a second.
 * No text of a request is in any of them but the note that came with a verdict.
 *
 * A cascade is seen as two stages: the first (cheap), whose confidence the threshold is compared with, and
 * all that comes after it (dear). Quality is a score of -1 to 1 brought to 0 to 1. Thread: any; no state. */
#ifndef PHAROS_GATEWAY_VERDICT_H
#define PHAROS_GATEWAY_VERDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/status.h"

#define VERDICTS_FILE "verdicts.jsonl"
#define CASCADE_FILE "cascade.jsonl"
#define CALIBRATION_FILE "calibration.json"

/* ---- What there is to learn from (verdict_file.c) */

struct verdict {
    double confidence, quality; /* each 0 to 1 */
    bool is_cheap;              /* of an answer of the first stage */
    uint64_t id_hash;           /* of the answer: its last verdict counts */
    size_t order;
};

struct verdict_answer {
    double confidence; /* of the first stage's answer; negative: nothing to judge by */
    bool has_dear;     /* a later stage answered it, to the end */
    double cheap_usd, dear_usd;
};

struct verdict_data { /* both sorted by confidence */
    struct verdict *verdicts;
    size_t verdict_count, cheap_count;
    struct verdict_answer *answers;
    size_t answer_count;
    int64_t first_answer_s; /* Unix seconds */
};

struct verdict_query {
    const char *dir, *route;
    int64_t since_s; /* older lines are passed over */
    /* A line that cannot be used, numbered from 1; NULL: nobody wants to know. */
    void (*damaged)(void *ud, const char *path, size_t line, const char *why);
    void *ud;
};

/* Files that are absent are empty. Release in either case. */
PH_MUST_USE enum ph_status verdict_data_read(struct verdict_data *data, const struct verdict_query *query,
                                             struct ph_err *err);
void verdict_data_release(struct verdict_data *data);

/* ---- What follows from it (verdict_fit.c) */

#define VERDICTS_CHEAP_MIN 30 /* verdicts on answers of the first stage */
#define VERDICTS_DEAR_MIN 10  /* ... and of later ones */
#define VERDICT_ANSWERS_MIN 50
#define VERDICT_POINTS 201 /* thresholds 0, 0.005, ... 1 */

/* The rising sequence nearest to values[count] in weighted least squares, in place: pool adjacent violators
 * (Ayer et al. 1955). Weights are positive and destroyed; lengths [count] is scratch. */
void verdict_isotonic(double *values, double *weights, size_t *lengths, size_t count);

struct verdict_point {
    double threshold;
    double quality, low, high; /* expected, and where it lies in 9 of 10 resamplings of the verdicts */
    double escalated;          /* share of the answers */
    double usd_month;
};

struct verdict_curve {
    struct verdict_point points[VERDICT_POINTS]; /* rising; from the lowest threshold that can be judged */
    size_t count;
    double answers_month;
};

/* PH_ERR_NOTFOUND: too little is known; the message says how much is, and how much is needed. */
PH_MUST_USE enum ph_status verdict_curve_make(struct verdict_curve *curve, const struct verdict_data *data,
                                              int64_t now_s, struct ph_err *err);
/* The lowest threshold that promises a quality, the highest that stays within a month's spend. NULL: none. */
const struct verdict_point *verdict_for_quality(const struct verdict_curve *curve, double quality);
const struct verdict_point *verdict_for_spend(const struct verdict_curve *curve, double usd_month);

/* ---- What was decided (verdict_calibration.c) */

#define CALIBRATION_BYTES_MAX (1u << 20)

struct calibration_entry {
    const char *route, *target; /* target: "quality 0.9", for people */
    double escalate_below;
    double quality, low, high, escalated, usd_month; /* as expected then */
    int64_t verdicts, at;                            /* how many; Unix seconds */
};

struct calibration {
    struct arena arena;
    struct calibration_entry *list;
    size_t count;
};

/* No file: nothing in it. Release in either case. */
PH_MUST_USE enum ph_status calibration_read(struct calibration *calibration, const char *dir,
                                            struct ph_err *err);
void calibration_release(struct calibration *calibration);
const struct calibration_entry *calibration_find(const struct calibration *calibration, const char *route);
/* Writes the entry in place of its route's last one; the others stay. */
PH_MUST_USE enum ph_status calibration_put(const char *dir, const struct calibration_entry *entry,
                                           struct ph_err *err);

#endif
