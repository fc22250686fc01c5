/* probe: what this machine is, found out and measured.
 *
 * Devices come from NVIDIA's library and from sysfs; the processors' read bandwidth and arithmetic, the
 * disk's read speed and fsync are measured. What cannot be found out stays 0, and notes say why. Takes from a
 * few seconds to half a minute. Thread: any, one at a time; all processors are kept busy. */
#ifndef PHAROS_OPS_PROBE_H
#define PHAROS_OPS_PROBE_H

#include "base/clock.h"
#include "ops/machine.h"

#define PROBE_NOTE_BYTES 320

struct probe_params {
    const char *sysfs; /* NULL: "/sys" */
    const char *nvml;  /* path of NVIDIA's library; NULL: the system's, if it has one */
    const char *dir;   /* the disk that is measured, by a scratch file in there; NULL: none */
    bool quick;        /* shorter measurements: rougher */
    const struct clock_source *clock;
    void (*progress)(void *ud, uint64_t done, uint64_t total); /* NULL is fine */
    void *ud;
};

struct probe_notes {
    char devices[PROBE_NOTE_BYTES]; /* why NVIDIA's were not asked; "" */
    char disk[PROBE_NOTE_BYTES];    /* how it was read, or why not */
    double
        cpu_share; /* of the worst sample that had to be kept: processor time over wall time, all threads */
};

PH_MUST_USE enum ph_status probe_machine(struct machine *out, const struct probe_params *params,
                                         struct probe_notes *notes, struct ph_err *err);

/* Its processor alone, as it calls itself, and the kernels that it runs: nothing is measured. */
void probe_cpu(struct machine *out);

/* Its devices alone: nothing is measured. */
void probe_devices(struct machine *out, const char *sysfs, const char *nvml, struct probe_notes *notes);

#endif
