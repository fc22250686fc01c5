/* Bounded queue of pointers between threads: any number of producers, any number of consumers.
 * A full queue refuses at once (PH_ERR_BUSY); nobody waits to put. Thread: any. */
#ifndef PHAROS_BASE_QUEUE_H
#define PHAROS_BASE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct queue;

/* len_max at least 1 (PH_ERR_ARG); items are never NULL. */
PH_MUST_USE enum ph_status queue_create(struct queue **out, size_t len_max);
void queue_free(struct queue *queue); /* items still inside are the caller's to drain first */

PH_MUST_USE enum ph_status queue_put(struct queue *queue,
                                     void *item); /* PH_ERR_BUSY: full; PH_ERR_CANCELLED: closed */
void *queue_get(struct queue *queue);             /* NULL: empty now */
void *queue_wait(struct queue *queue,
                 uint64_t timeout_ns); /* NULL: timeout, or closed and empty; UINT64_MAX: no timeout */
void queue_close(struct queue *queue); /* wakes every waiter; puts are refused */
size_t queue_len(struct queue *queue);

#endif
