/* chat: what the two files of the Responses dialect share. */
#ifndef PHAROS_CHAT_RESPONSES_INT_H
#define PHAROS_CHAT_RESPONSES_INT_H

#include "chat/chat_int.h"

/* responses_decode.c */
enum ph_status responses_decode(struct arena *arena, enum chat_kind kind, const struct json *body,
                                struct chat_request *out, struct chat_fault *fault);

/* Items alone, for responses_items.c. */
enum ph_status responses_decode_items(struct arena *arena, const struct json *items, struct chat_request *out,
                                      struct chat_fault *fault);

/* responses_tools.c: the body's tools and tool_choice in the shape of OpenAI's chats. */
struct decoder;
enum ph_status responses_decode_tools(struct decoder *d);

#endif
