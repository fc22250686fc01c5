/* How much of what physics allows a device reaches with a number format, learnt from this machine's own runs.
 *
 * A row says for (device, format, phase) how long the work took over how long a perfect device would have
 * taken: an exponential average, kept in DATA/efficiency.json. It belongs to device and format, not to a
 * model: what one model taught holds for every other. Under EFFICIENCY_SAMPLES_MIN samples a row is not
 * believed. Plain data: copy it. */
#ifndef PHAROS_OPS_EFFICIENCY_H
#define PHAROS_OPS_EFFICIENCY_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"
#include "ops/machine.h"

#define EFFICIENCY_FILE "efficiency.json" /* in the data directory */
#define EFFICIENCY_ROWS_MAX 512
#define EFFICIENCY_SAMPLES_MIN 3
#define EFFICIENCY_PARTS_MAX 32 /* of one run */
#define EFFICIENCY_DEVICE_BYTES 224

enum efficiency_phase { EFFICIENCY_DECODE, EFFICIENCY_PREFILL };
extern const char *const efficiency_phase_names[]; /* "decode", "prefill", NULL */

struct efficiency_row {
    char device[EFFICIENCY_DEVICE_BYTES], type[MACHINE_TYPE_BYTES];
    enum efficiency_phase phase;
    double ratio;  /* measured over perfect time, at least 0.05 */
    double spread; /* average distance of a sample from what was predicted then, relative */
    uint64_t samples;
    int64_t unix_s; /* of the last one */
};

struct efficiency {
    struct efficiency_row rows[EFFICIENCY_ROWS_MAX];
    size_t count;
};

/* What a run consisted of: for each format the time that a perfect device would take. */
struct efficiency_part {
    const char *type;
    double perfect_s;
    double prior_ratio; /* until there is a row */
};

/* The processor of a machine when so many threads work: what rows are filed under. */
void efficiency_device(const struct machine *machine, unsigned threads, char out[EFFICIENCY_DEVICE_BYTES]);
/* NULL: none, or of too few samples. */
const struct efficiency_row *efficiency_find(const struct efficiency *calibration, const char *device,
                                             const char *type, enum efficiency_phase phase);

/* One measured run moves the rows of its formats, each by its share of the time. PH_ERR_LIMIT: the table is
 * full. */
PH_MUST_USE enum ph_status efficiency_learn(struct efficiency *calibration, const char *device,
                                            enum efficiency_phase phase, const struct efficiency_part *parts,
                                            size_t count, double measured_s, int64_t unix_s,
                                            struct ph_err *err);

/* A file that is not there is an empty table, and so is one of an older version, whose ratios meant something
 * else. Every value is checked; an error names file and row. */
PH_MUST_USE enum ph_status efficiency_parse(struct efficiency *out, const char *source, const char *text,
                                            size_t len, struct ph_err *err);
PH_MUST_USE enum ph_status efficiency_read(struct efficiency *out, const char *path, struct ph_err *err);
PH_MUST_USE enum ph_status efficiency_write(const struct efficiency *calibration, const char *path,
                                            struct ph_err *err);
void efficiency_print(const struct efficiency *calibration, struct buf *out); /* the file's text */

#endif
