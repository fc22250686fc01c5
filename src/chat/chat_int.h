/* chat: what the files of its dialects share. */
#ifndef PHAROS_CHAT_CHAT_INT_H
#define PHAROS_CHAT_CHAT_INT_H

#include "chat/chat.h"

/* openai_decode.c */
enum ph_status openai_decode(struct arena *arena, enum chat_kind kind, const struct json *body,
                             struct chat_request *out, struct chat_fault *fault);

#endif
