/* chat: what the files of the OpenAI dialect share. */
#ifndef PHAROS_CHAT_OPENAI_INT_H
#define PHAROS_CHAT_OPENAI_INT_H

#include "chat/decode_int.h"

/* ---- openai_decode.c */

/* The scalars of a body, for reading and for writing. */
struct openai_rows {
    const struct scalar *rows;
    size_t count;
};
extern const struct openai_rows openai_shared_rows, openai_kind_rows[]; /* by chat_kind */

/* Everything but messages and prompts. */
enum ph_status openai_decode_options(struct decoder *d, enum chat_kind kind);
/* One text or token array, or an array of them. `out` of the decoder is not used. */
enum ph_status openai_decode_prompts(struct decoder *d, const char *name, size_t count_max,
                                     const struct chat_prompt **out, size_t *out_count);

/* ---- openai_messages.c */

enum ph_status openai_decode_messages(struct decoder *d);

#endif
