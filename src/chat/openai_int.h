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

/* One text or token array, or an array of them. `out` of the decoder is not used. */
enum ph_status openai_decode_prompts(struct decoder *d, const char *name, size_t count_max,
                                     const struct chat_prompt **out, size_t *out_count);

/* ---- openai_messages.c */

enum ph_status openai_decode_messages(struct decoder *d);

/* ---- openai_build.c: JSON from the struct, for providers */

struct json *openai_text(struct arena *arena, struct chat_text text); /* the text is not copied */
enum ph_status openai_messages(struct arena *arena, const struct chat_request *request, struct json **out,
                               struct chat_fault *fault);
bool openai_ids_fit(const struct chat_request *request); /* no call's id is too long for OpenAI */
enum ph_status openai_prompt_list(struct arena *arena, const struct chat_prompt *prompts, size_t count,
                                  struct json **out);

/* ---- openai_request.c */

enum ph_status openai_request(struct arena *arena, const struct chat_request *request,
                              const struct chat_target *target, struct chat_post *out,
                              struct chat_fault *fault);
/* A POST of this body. Not PH_OK: out of memory. */
enum ph_status openai_post(struct arena *arena, const struct chat_target *target, const char *path,
                           const struct json *body, const char *accept, struct chat_post *out);
void openai_post_id(struct chat_post *post, const char *request_id); /* NULL: none */

/* ---- openai_logprobs.c, openai_reader.c */

/* Fills logprobs and top of an event, nothing when there are none. false: out of memory. */
bool openai_read_logprobs(struct arena *arena, const struct json *logprobs, struct chat_event *out);

struct chat_reader *openai_reader_new(struct arena *arena, const struct chat_reader_params *params);
enum ph_status openai_reader_feed(struct chat_reader *reader, const char *bytes, size_t len,
                                  struct chat_fault *fault);
enum ph_status openai_reader_end(struct chat_reader *reader, struct chat_fault *fault);

#endif
