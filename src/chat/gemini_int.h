/* chat: what the files of Google's Gemini dialect share. */
#ifndef PHAROS_CHAT_GEMINI_INT_H
#define PHAROS_CHAT_GEMINI_INT_H

#include "chat/chat_int.h"

/* gemini_encode.c */
enum ph_status gemini_encode(struct arena *arena, const struct chat_request *request,
                             const struct chat_target *target, struct chat_post *out,
                             struct chat_fault *fault);

/* gemini_fault.c */
void gemini_fault(struct arena *arena, int http_status, const char *body, size_t len, struct chat_fault *out);
/* `reply`: {"error": {...}}, or an array of it; http_status 0: the reply had begun, the error says it. */
void gemini_error(struct arena *arena, int http_status, const struct json *reply, struct chat_fault *out);

/* gemini_seal.c: a tool call's id carries what Gemini wants back with the call: its own id, and its
 * signature. */
struct gemini_seal {
    const char *id;        /* Gemini's; NULL: it gave none, or the call is not Gemini's */
    const char *signature; /* NULL: none */
};
/* `made` is the id of a call that got none. All NULL-able but `made`. NULL: out of memory. */
const char *gemini_seal(struct arena *arena, const char *made, const struct gemini_seal *seal);
enum ph_status gemini_unseal(struct arena *arena, const char *id, struct gemini_seal *out);

#endif
