/* The codecs by name: those that configurations may ask for. */
#include <string.h>

#include "chat/chat.h"

static const struct chat_codec *const codecs[] = {&chat_codec_anthropic, &chat_codec_openai,
                                                  &chat_codec_gemini, NULL};

const struct chat_codec *chat_codec_find(const char *name)
{
    for (const struct chat_codec *const *codec = codecs; *codec; codec++)
        if (strcmp((*codec)->name, name) == 0)
            return *codec;
    return NULL;
}
