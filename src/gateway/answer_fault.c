/* What the failure of an attempt means for the rest of the answer, and for the client. */
#include <stdio.h>
#include <string.h>

#include "gateway/answer_int.h"

bool answer_may_pass(const struct chat_fault *fault)
{
    return fault->cause != CHAT_CAUSE_REQUEST;
}

bool answer_is_transient(const struct chat_fault *fault)
{
    switch (fault->cause) {
    case CHAT_CAUSE_RATE:
    case CHAT_CAUSE_OVERLOADED:
    case CHAT_CAUSE_SERVER:
    case CHAT_CAUSE_NETWORK:
    case CHAT_CAUSE_CUT:
        return true;
    default:
        return false;
    }
}

/* Faults that are between the station and a provider. The client's key and the client's model are right. */
void answer_translate_fault(struct answer *answer, const struct attempt *attempt)
{
    static const struct {
        enum chat_cause cause;
        const char *code, *text;
    } rows[] = {{CHAT_CAUSE_KEY, "provider_key_refused", "refuses the station's key"},
                {CHAT_CAUSE_NO_MODEL, "provider_model_not_found", "does not have this model"}};
    const struct gateway_model *model = &answer->params.gateway->models[attempt->model];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (attempt->fault.cause != rows[i].cause)
            continue;
        chat_fault_set(&answer->fault, 502, rows[i].code, NULL, "%.60s %s (asked for %.60s): %s",
                       provider_name(model->provider), rows[i].text, provider_model_id(model->provider),
                       attempt->fault.message);
        answer->fault.cause = rows[i].cause;
    }
}
