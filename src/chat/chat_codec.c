/* The codecs by name: those that configurations may ask for. */
#include <string.h>

#include "chat/chat_int.h"

static const struct chat_codec *const codecs[] = {&chat_codec_anthropic, &chat_codec_openai,
                                                  &chat_codec_gemini, NULL};

const struct chat_codec *chat_codec_find(const char *name)
{
    for (const struct chat_codec *const *codec = codecs; *codec; codec++)
        if (strcmp((*codec)->name, name) == 0)
            return *codec;
    return NULL;
}

bool chat_metadata_is_ours(const char *member)
{
    static const char *const names[] = {"conversation_id", "context_budget_tokens", "context_strategy",
                                        "context_keep_recent"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(member, names[i]) == 0)
            return true;
    return false;
}
