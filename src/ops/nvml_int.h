/* ops, private: NVIDIA's management library, opened at run time, so that one program runs with and without
 * it. Only what is read here is declared. Thread: one at a time; calls take milliseconds, so not the loop's.
 */
#ifndef PHAROS_OPS_NVML_INT_H
#define PHAROS_OPS_NVML_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "ops/machine.h"

#define NVML_LIBRARY "libnvidia-ml.so.1"

struct nvml;

/* `library` NULL: the system's, whose absence is PH_OK and *out NULL: there is no NVIDIA device. One that was
 * named and cannot be used is an error, as is a driver that refuses. */
PH_MUST_USE enum ph_status nvml_open(struct nvml **out, const char *library, struct ph_err *err);
void nvml_close(struct nvml *nvml);         /* NULL is fine */
size_t nvml_count(const struct nvml *nvml); /* NULL: 0 */

/* What the device is; a figure that the driver does not give is 0. false: it has gone. */
bool nvml_describe(struct nvml *nvml, size_t index, struct machine_device *out);

/* What it is doing. */
struct nvml_sample {
    bool has_temperature, has_power, has_use, has_memory, has_throttle;
    double temperature_c, power_w, use_percent;
    uint64_t memory_used, memory_total;
    uint64_t throttle; /* bits, as nvml.h numbers them */
};
bool nvml_sample(struct nvml *nvml, size_t index, struct nvml_sample *out); /* false: it has gone */

/* The throttle reasons as words, "thermal (hardware), power cap"; "" none that matters. */
void nvml_throttle_words(uint64_t bits, char *out, size_t size);
bool nvml_throttle_is_heat(uint64_t bits);

#endif
