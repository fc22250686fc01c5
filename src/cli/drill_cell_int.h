/* drill: one request of a fault drill, and what is right about its reply. Used by cmd_drill.c. */
#ifndef PHAROS_CLI_DRILL_CELL_INT_H
#define PHAROS_CLI_DRILL_CELL_INT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/buf.h"
#include "drill/drill.h"
#include "net/net.h"

/* The dialect in which the station is asked. */
enum drill_edge { DRILL_EDGE_OPENAI, DRILL_EDGE_ANTHROPIC, DRILL_EDGE_RESPONSES, DRILL_EDGE_COUNT };
const char *drill_edge_name(enum drill_edge edge); /* "openai", "anthropic", "responses" */

struct drill_cell {
    size_t fault;
    enum drill_api api;
    enum drill_edge edge;
    bool is_stream;
    bool is_backed; /* a healthy provider is behind the faulty one */
};

/* "openai cut, alone, asked in anthropic's dialect, streamed" */
#define DRILL_TITLE_MAX 128
void drill_title(const struct drill_cell *cell, char out[DRILL_TITLE_MAX]);
/* The name of the cell's model: each cell of an API and a fault has its own. */
#define DRILL_MODEL_MAX 64
void drill_model(const struct drill_cell *cell, char out[DRILL_MODEL_MAX]);
/* The path and the body of its request. `text` is what its answer has to be. */
const char *drill_path(const struct drill_cell *cell);
void drill_body(const struct drill_cell *cell, const char *text, struct buf *out);

struct drill_reply {
    int status;
    const char *body; /* terminated */
    size_t body_len;
    bool is_complete;     /* HTTP's own end came */
    long attempts;        /* of x-pharos-route; negative: not said */
    long retry_after;     /* negative: not said */
    bool leaks_in_header; /* a key of the provider's is in one */
};

/* What is wrong with the reply goes to `problem` (empty: nothing). Parsing needs memory: `arena`. */
void drill_judge(struct arena *arena, const struct drill_cell *cell, const char *text,
                 const struct drill_reply *reply, struct buf *problem);

/* ---- Requests to the station (drill_call.c) */

struct drill_station {
    struct http_client *client;
    char url[512];    /* without a slash at its end */
    char bearer[256]; /* "Bearer ..."; "": no key */
};

struct drill_call {
    void (*done)(struct drill_call *call); /* once; the call may be sent again inside */
    void *ud;
    struct http_call *http; /* NULL: none is running */
    struct buf url, request, body;
    struct drill_reply reply; /* status 0: none came, `why` says it */
    enum http_call_end how;
    char why[200];
};
void drill_call_init(struct drill_call *call, void (*done)(struct drill_call *call), void *ud);
void drill_call_release(struct drill_call *call);
/* call->request is the body. */
PH_MUST_USE enum ph_status drill_call_send(struct drill_call *call, const struct drill_station *station,
                                           const char *method, const char *path, struct ph_err *err);
void drill_call_cancel(struct drill_call *call); /* `done` does not come any more */

#endif
