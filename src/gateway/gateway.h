/* gateway: the HTTP endpoints in front of the providers.
 *
 * Owns the table of models, the dialects' edges, the metrics. One gateway serves one loop.
 * Thread: the loop's. */
#ifndef PHAROS_GATEWAY_GATEWAY_H
#define PHAROS_GATEWAY_GATEWAY_H

#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/status.h"
#include "net/net.h"
#include "provider/provider.h"

struct gateway;

struct gateway_params {
    const char *host;
    uint16_t port; /* 0: any free one */
    struct http_limits limits;
    struct provider *const *providers; /* the first is the default model; not owned */
    size_t provider_count;
    const struct clock_source *clock;
    uint64_t seed; /* for ids */
    const char *version;
};

PH_MUST_USE enum ph_status gateway_open(struct gateway **out, struct net_loop *loop,
                                        const struct gateway_params *params, struct ph_err *err);
uint16_t gateway_port(const struct gateway *gateway);
/* /ready turns 503, the server stops gracefully; then `stopped` runs once on the loop. */
void gateway_stop(struct gateway *gateway, void (*stopped)(void *ud), void *ud);
void gateway_free(struct gateway *gateway); /* after stopped */

#endif
