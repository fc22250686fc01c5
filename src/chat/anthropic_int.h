/* chat: what the files of the Anthropic Messages dialect share. */
#ifndef PHAROS_CHAT_ANTHROPIC_INT_H
#define PHAROS_CHAT_ANTHROPIC_INT_H

#include "chat/chat_int.h"

#define ANTHROPIC_VERSION "2023-06-01"

/* anthropic_decode.c */
enum ph_status anthropic_decode(struct arena *arena, enum chat_kind kind, const struct json *body,
                                struct chat_request *out, struct chat_fault *fault);

/* anthropic_request.c */
enum ph_status anthropic_request(struct arena *arena, const struct chat_request *request,
                                 const struct chat_target *target, struct chat_post *out,
                                 struct chat_fault *fault);

/* The white space that the request's beginning of an answer lost on its way: the answer may repeat it. Not
 * terminated; len 0: none. */
struct chat_text anthropic_lost_space(const struct chat_request *request);

/* anthropic_request.c */
bool anthropic_continues(const char *model);

#endif
