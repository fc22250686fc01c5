/* provider, private: how what goes wrong between us and a provider is told to a client. */
#ifndef PHAROS_PROVIDER_PROVIDER_REMOTE_INT_H
#define PHAROS_PROVIDER_PROVIDER_REMOTE_INT_H

#include "provider/provider_account_int.h"

/* What was learned about a remote provider's keys and health: it is another one now. */
void remote_forget(struct provider *provider);

/* The call ended like this, and not with a whole reply. `message`: net's words. */
void remote_fault_of_end(struct chat_fault *fault, const char *provider, enum http_call_end how,
                         const char *message);
/* A codec's fault, made fit for a client of the station: the provider is named, no key is in it, and the
 * client's own key is not blamed for what is wrong with ours. */
void remote_fault_dress(struct chat_fault *fault, const struct account_pass *pass, int http_status);
/* Strings that live as long as the arena. */
void remote_fault_keep(struct chat_fault *fault, struct arena *arena);

/* The media type of a reply's body. */
enum remote_body { REMOTE_BODY_UNKNOWN, REMOTE_BODY_STREAM, REMOTE_BODY_JSON, REMOTE_BODY_OTHER };
enum remote_body remote_body_of(const char *content_type); /* NULL: not said */

/* A number for the conversation that a request belongs to: what it says, or how it begins. */
uint64_t remote_sticky(const struct chat_request *request);

#endif
