/* Is a recording one whole answer to this request?
 *
 * Ours are by construction; one that was kept outside may be another version's, another request's, cut off,
 * or a stranger's bytes. Encoders trust their events, because providers are read by codecs that check: what
 * comes from outside is held to the same rules here, before the first event is played.
 *  - Every choice of the request, and no other, begins with ROLE and ends with FINISH; nothing follows.
 *  - It ends as an answer that is worth keeping does (recording_end_is_fit).
 *  - Arguments belong to a call that has a name; numbers are ones that can be added up.
 *  - An answer has at most CACHE_BLOCKS_MAX changes between text, thoughts and calls, because encoders look
 *    through those they have when another one comes.
 *  - USAGE, then DONE, and not a byte behind it. */
#include <string.h>

#include "gateway/gateway_int.h"

#define TOKENS_MAX ((uint64_t)1 << 40)

bool recording_end_is_fit(const struct chat_request *request, enum chat_finish finish)
{
    return finish == CHAT_FINISH_STOP || finish == CHAT_FINISH_TOOL_CALLS ||
           (finish == CHAT_FINISH_LENGTH && request->max_tokens);
}

struct choice_seen {
    bool has_role, has_call, has_finish;
    enum chat_event_kind last;
};

struct check {
    const struct chat_request *request;
    struct choice_seen choices[CHAT_SEQUENCES_MAX];
    size_t choice_count, finished, blocks;
    bool has_usage;
};

static bool begins_block(const struct choice_seen *choice, const struct chat_event *event)
{
    if (event->kind == CHAT_EVENT_TOOL_CALL)
        return event->tool_call.name != NULL || choice->last != event->kind;
    return choice->last != event->kind || event->signature || event->redacted;
}

static bool check_call(struct choice_seen *choice, const struct chat_event *event)
{
    choice->has_call = choice->has_call || event->tool_call.name;
    return choice->has_call && event->tool_call.index < CHAT_TOOL_CALLS_MAX;
}

static bool check_usage(struct check *check, const struct chat_event *event)
{
    const uint64_t numbers[] = {event->usage.prompt_tokens, event->usage.cached_tokens,
                                event->usage.cache_write_tokens, event->usage.completion_tokens,
                                event->usage.reasoning_tokens};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i] > TOKENS_MAX)
            return false;
    check->has_usage = true;
    return true;
}

static bool check_choice_event(struct check *check, const struct chat_event *event)
{
    if (event->choice >= check->choice_count || event->tokens > TOKENS_MAX)
        return false;
    struct choice_seen *choice = &check->choices[event->choice];
    if (choice->has_finish || choice->has_role == (event->kind == CHAT_EVENT_ROLE))
        return false;
    if (event->kind != CHAT_EVENT_FINISH && begins_block(choice, event) && ++check->blocks > CACHE_BLOCKS_MAX)
        return false;
    choice->last = event->kind;
    if (event->kind == CHAT_EVENT_ROLE)
        choice->has_role = true;
    if (event->kind == CHAT_EVENT_TOOL_CALL)
        return check_call(choice, event);
    if (event->kind != CHAT_EVENT_FINISH)
        return true;
    choice->has_finish = true;
    check->finished++;
    return recording_end_is_fit(check->request, event->finish);
}

bool recording_is_whole(const struct recording *recording, const struct chat_request *request,
                        struct arena *scratch)
{
    struct check check = {.request = request, .choice_count = chat_choice_count(request)};
    struct chat_event event;
    size_t at = 0;
    if (check.choice_count > CHAT_SEQUENCES_MAX)
        return false;
    for (;;) {
        arena_clear(scratch);
        if (!recording_next(recording, &at, scratch, &event))
            return false;
        if (event.kind == CHAT_EVENT_DONE)
            return check.finished == check.choice_count && check.has_usage && at == recording->bytes.len;
        if (!(event.kind == CHAT_EVENT_USAGE ? check_usage(&check, &event)
                                             : check_choice_event(&check, &event)))
            return false;
    }
}
