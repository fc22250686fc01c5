/* chat: what the files of its dialects share. */
#ifndef PHAROS_CHAT_CHAT_INT_H
#define PHAROS_CHAT_CHAT_INT_H

#include "chat/chat.h"

/* openai_decode.c */
enum ph_status openai_decode(struct arena *arena, enum chat_kind kind, const struct json *body,
                             struct chat_request *out, struct chat_fault *fault);

/* A member of the metadata that speaks to this station, and to nobody behind it (chat_codec.c). */
bool chat_metadata_is_ours(const char *member);

/* ---- chat_upstream.c: what a provider's refusal means, whatever its dialect */

/* In the provider's spelling; NULL: not said. */
struct upstream_error {
    const char *message, *type, *code, *param;
    int number; /* a status that the body names; 0: none */
};
/* Is it an error? {"error": {...}}, {"error": "text"}, {"object": "error", ...}, {"type": "error", ...},
 * {"detail": ...}, {"errors": [...]}, also as the first element of an array. Texts are the value's. */
bool upstream_error_read(struct arena *arena, const struct json *value, struct upstream_error *out);
/* The fault it makes, with its cause, for our client. `http_status` below 400: the reply had begun; then the
 * error's own number and words decide. What the fault points to is static or copied into the arena. */
void upstream_fault(struct arena *arena, int http_status, const struct upstream_error *error,
                    struct chat_fault *out);
/* The body of a reply that is no 200: JSON, text, a page of HTML, nothing. */
void upstream_fault_of_body(struct arena *arena, int http_status, const char *body, size_t len,
                            struct chat_fault *out);
/* A reply that is none (cause SERVER) or has no end (CUT). Returns PH_ERR_FORMAT. */
enum ph_status upstream_broken(struct chat_fault *fault, enum chat_cause cause, const char *what);

#endif
