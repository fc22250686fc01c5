/* chat: what the decoders of clients' bodies share: faults that name the parameter, scalars as rows of a
 * table, media given as data URLs. */
#ifndef PHAROS_CHAT_DECODE_INT_H
#define PHAROS_CHAT_DECODE_INT_H

#include "chat/chat_int.h"

struct decoder {
    struct arena *arena;
    const struct json *body;
    struct chat_request *out;
    struct chat_fault *fault;
};

/* The parameter's name, "input[2].role", in the arena. */
const char *decode_path(struct decoder *d, const char *fmt, ...) PH_PRINTF(2, 3);

#define DECODE_REFUSE(d, param, ...) \
    (chat_fault_set((d)->fault, 400, NULL, (param), __VA_ARGS__), (enum ph_status)PH_ERR_ARG)

/* The request is right, but neither this station nor the providers behind it can do it. */
enum ph_status decode_unable(struct decoder *d, const char *param, const char *fmt, ...) PH_PRINTF(3, 4);
enum ph_status decode_no_memory(struct decoder *d);
const char *decode_type_name(const struct json *value); /* "a string", for messages */

enum scalar_kind { SCALAR_BOOL, SCALAR_DOUBLE, SCALAR_SIZE, SCALAR_INT, SCALAR_TEXT };

/* When a provider of OpenAI's kind is told. */
enum scalar_writing {
    SCALAR_WRITTEN,          /* when it is not what the body says */
    SCALAR_WRITTEN_IF_NAMED, /* known to some engines: replaced where the client named it, never added */
    SCALAR_WRITTEN_APART     /* by a function of its own */
};

/* A member of the body and its place in the request. Absent or null: the place stays as it is. */
struct scalar {
    const char *name;
    enum scalar_kind kind;
    double min, max;
    size_t offset;
    size_t given_offset; /* of a bool that is set when the value is there; 0: none (no bool sits there) */
    enum scalar_writing writing;
};
#define SCALAR_AT(member) offsetof(struct chat_request, member)

enum ph_status decode_scalars(struct decoder *d, const struct scalar *rows, size_t count);

/* An object member that is kept as it came. */
enum ph_status decode_object(struct decoder *d, const char *name, const struct json **out);

/* "data:image/png;base64,AAAA" becomes media type and data, any other text the part's url. */
enum ph_status decode_media_url(struct decoder *d, const struct json *url, struct chat_part *part);

#endif
