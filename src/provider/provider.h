/* provider: who can answer a chat request. Local engines now; supervised engines and cloud accounts have the
 * same face.
 *
 * A provider consumes a chat_request and emits chat_events on the loop of the connection that asked. Events
 * of one call come in order: ROLE before TEXT of a choice, FINISH for each choice, USAGE, then DONE; or ERROR
 * at any time. Nothing follows DONE or ERROR. Text in an event is valid during the callback only. Thread:
 * start, resume and cancel on the loop's thread; callbacks there too. */
#ifndef PHAROS_PROVIDER_PROVIDER_H
#define PHAROS_PROVIDER_PROVIDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "chat/chat.h"
#include "engine/engine.h"
#include "net/net.h"

struct provider;
struct provider_call;

struct provider_sink {
    /* Answers false when it can take no more for now; then nothing comes until provider_resume. DONE and
     * ERROR are always taken. Never called inside provider_start. After DONE, ERROR or provider_cancel the
     * call is gone. */
    bool (*event)(void *ud, const struct chat_event *event);
    void *ud;
};

/* A model in this process. It answers "still loading" until an engine is attached, so that a station can
 * listen at once. `clock` serves templates that ask for the date. */
PH_MUST_USE enum ph_status provider_local_create(struct provider **out, const char *model_id,
                                                 const struct clock_source *clock, struct ph_err *err);
/* Takes the engine, also when it fails. A chat template that cannot be used is no failure: it is logged, and
 * chat requests are refused with the reason. Loop's thread. */
PH_MUST_USE enum ph_status provider_local_attach(struct provider *provider, struct engine *engine,
                                                 struct ph_err *err);
/* The model will not come: requests are refused with this reason (copied). Loop's thread. */
void provider_local_fail(struct provider *provider, const char *reason);
void provider_free(struct provider *provider); /* NULL is fine; no call may be running */

const char *provider_model_id(const struct provider *provider);
const char *provider_kind(const struct provider *provider);      /* "local" */
struct engine *provider_engine(const struct provider *provider); /* NULL: not local, or not attached */
bool provider_ready(const struct provider *provider);
const char *provider_problem(const struct provider *provider); /* why it will never be ready; NULL: none */
/* Longest prompt and reply together, in tokens; 0 while unknown. */
size_t provider_context_len(const struct provider *provider);

/* Begins to answer; `request` must live until the call is gone. A fault means nothing was begun. */
PH_MUST_USE enum ph_status provider_start(struct provider *provider, struct net_loop *loop,
                                          const struct chat_request *request,
                                          const struct provider_sink *sink, struct provider_call **out,
                                          struct chat_fault *fault);
void provider_resume(struct provider_call *call);
void provider_cancel(struct provider_call *call); /* no callback any more */

/* The exact prompt of a chat request for this provider's model (what /apply-template shows). */
PH_MUST_USE enum ph_status provider_prompt(struct provider *provider, const struct chat_request *request,
                                           struct buf *out, struct chat_fault *fault);

#endif
