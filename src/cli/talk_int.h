/* talk: somebody who answers in `pharos chat`. Two kinds behind one small face: a model in this process
 * (talk_local.c) and a station over HTTP (talk_http_posix.c). Thread: main, which blocks while a reply comes;
 * Ctrl-C ends the reply, not the program. */
#ifndef PHAROS_CLI_TALK_INT_H
#define PHAROS_CLI_TALK_INT_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/status.h"

struct talk;

struct talk_ops {
    /* Sends `messages` (an array of {role, content}) and appends the reply to `reply`, showing each piece as
     * it comes. PH_ERR_CANCELLED: Ctrl-C, or nobody reads it; what came until then is in `reply`. */
    enum ph_status (*reply)(struct talk *talk, const struct json *messages, struct buf *reply,
                            struct ph_err *err);
    void (*close)(struct talk *talk);
};

struct talk {
    const struct talk_ops *ops;
};

/* `model_path`: a GGUF file. */
PH_MUST_USE enum ph_status talk_local_open(struct talk **out, const char *model_path, struct ph_err *err);
/* `model`: the station's name for it; NULL: its default. */
PH_MUST_USE enum ph_status talk_http_open(struct talk **out, const char *url, const char *model,
                                          const char *conversation, struct ph_err *err);

/* Writes a piece of a reply to standard output at once; control characters that could drive the terminal are
 * shown as "?". false: it cannot be written, so the reply may as well end (PH_ERR_CANCELLED). */
bool talk_show(const char *text, size_t len);

#endif
