/* verdicts: what its files share. */
#ifndef PHAROS_GATEWAY_VERDICT_INT_H
#define PHAROS_GATEWAY_VERDICT_INT_H

#include "base/buf.h"
#include "base/limits.h"
#include "gateway/gateway.h"
#include "gateway/verdict.h"

#define VERDICT_LINE_BYTES_MAX 8192
#define VERDICT_BATCH_BYTES_MAX (256u << 10) /* of judged answers, between two ticks; the rest is not kept */
#define VERDICTS_FILE_BYTES_MAX (64u << 20)
#define CASCADE_FILE_BYTES_MAX (16u << 20)
#define VERDICTS_READ_BYTES_MAX \
    (VERDICTS_FILE_BYTES_MAX + VERDICT_BATCH_BYTES_MAX) /* the last write may pass */

/* A station's side of the files (verdict.c). Thread: the loop's. */
struct verdicts;
PH_MUST_USE enum ph_status verdicts_open(struct verdicts **out, const char *dir,
                                         const struct gateway_route *routes, size_t route_count,
                                         struct ph_err *err);
void verdicts_close(struct verdicts *verdicts); /* what was added is on the disk then */
/* A line, without its end. In the file when it returns, on the disk a second later. */
PH_MUST_USE enum ph_status verdicts_add(struct verdicts *verdicts, const struct buf *line,
                                        struct ph_err *err);
/* A line about a judged answer: written with the next tick, lost when there is no room. */
void verdicts_note(struct verdicts *verdicts, const struct buf *line);
void verdicts_tick(struct verdicts *verdicts);
/* Once a second: brings verdicts to the disk, reads a calibration that has changed. */
void verdicts_second(struct verdicts *verdicts);
/* As calibrated, else as configured. */
double verdicts_threshold(const struct verdicts *verdicts, const struct gateway_route *route);

#endif
