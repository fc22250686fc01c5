/* chat: the frame of a stream's chunks (openai_frame.c). */
#ifndef PHAROS_CHAT_OPENAI_FRAME_INT_H
#define PHAROS_CHAT_OPENAI_FRAME_INT_H

#include "chat/chat.h"

struct openai_frame {
    struct buf text;       /* the chunk that was kept */
    size_t before, behind; /* its bytes on either side of the content; before 0: none is kept */
    struct buf content;    /* of the chunk that matched last */
};

void openai_frame_init(struct openai_frame *frame);
void openai_frame_release(struct openai_frame *frame);
/* Keeps a chunk, good JSON, that said `content` and nothing else. */
void openai_frame_learn(struct openai_frame *frame, const char *chunk, size_t len, struct chat_text content);
/* Does this one say the same but for its content? That is valid until the next call. */
bool openai_frame_match(struct openai_frame *frame, const char *chunk, size_t len, struct chat_text *content);

#endif
