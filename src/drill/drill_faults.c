/* The table of faults. What may be told of them follows provider/README.md: a provider's trouble is a
 * gateway's (502), lateness 504, overload 503 (529 in Anthropic's dialect), its rate 429, its 401 never the
 * client's. */
#include <string.h>

#include "drill/drill_int.h"

const struct drill_fault drill_faults[] = {
    {"refused", "nobody listens at its address", 0, {502, 503, 504}},
    {"dns", "its name is unknown", DRILL_ALONE, {502, 503, 504}},
    {"tls", "it cannot agree on a secure connection", DRILL_ALONE, {502, 503, 504}},
    {"reset", "the connection breaks before a reply", 0, {502, 503, 504}},
    {"hang", "nothing comes, ever", 0, {504}},
    {"stall", "three tokens, then nothing", DRILL_SPEAKS, {504}},
    {"401", "it does not know the key", 0, {502}},
    {"402", "the account is not paid", 0, {502}},
    {"403", "the key may not do this", 0, {502}},
    {"429-retry", "too many requests, come again in a second", DRILL_SAYS_WHEN, {429}},
    {"429", "too many requests", 0, {429}},
    {"quota", "the month's quota is used up", 0, {429, 502}},
    {"500", "an error of its own", 0, {502}},
    {"overloaded", "it is overloaded", 0, {502, 503, 529}},
    {"502-html", "a proxy's page of HTML, status 502", 0, {502}},
    {"half-json", "three tokens, then half a line of JSON", DRILL_SPEAKS, {502}},
    {"cut", "three tokens, then the connection breaks", DRILL_SPEAKS, {502}},
    {"error", "three tokens, then an error", DRILL_SPEAKS, {502, 503, 529}},
    {"no-finish", "three tokens, then an end that is none", DRILL_SPEAKS, {502}},
    {"wrong-type", "a page of HTML, status 200", 0, {502}},
    {"200-error", "an error with status 200", 0, {502, 503, 529}},
    {"empty", "status 200, and nothing", 0, {502}},
    {"endless", "a body that has no end", DRILL_ALONE, {502}},
};
const size_t drill_fault_count = sizeof drill_faults / sizeof *drill_faults;

enum drill_act drill_fault_act(size_t fault)
{
    static const struct {
        const char *name;
        enum drill_act act;
    } rows[] = {{"refused", ACT_NOTHING},    {"dns", ACT_NOTHING},     {"tls", ACT_NOTHING},
                {"reset", ACT_RESET},        {"hang", ACT_HANG},       {"stall", ACT_STALL},
                {"502-html", ACT_HTML},      {"cut", ACT_CUT},         {"half-json", ACT_HALF_JSON},
                {"error", ACT_ERROR},        {"empty", ACT_EMPTY},     {"no-finish", ACT_NO_FINISH},
                {"wrong-type", ACT_SIGN_IN}, {"endless", ACT_ENDLESS}, {"200-error", ACT_ERROR_200}};
    if (fault >= drill_fault_count)
        return ACT_HEALTHY;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].name, drill_faults[fault].name) == 0)
            return rows[i].act;
    return ACT_REFUSE;
}

bool drill_fault_find(const char *name, size_t *index)
{
    for (*index = 0; *index < drill_fault_count; ++*index)
        if (strcmp(drill_faults[*index].name, name) == 0)
            return true;
    return false;
}

static const struct {
    const char *name, *codec;
} apis[DRILL_API_COUNT] = {[DRILL_OPENAI] = {"openai", "openai"},
                           [DRILL_TOGETHER] = {"together", "openai"},
                           [DRILL_ANTHROPIC] = {"anthropic", "anthropic"},
                           [DRILL_GEMINI] = {"gemini", "gemini"}};

const char *drill_api_name(enum drill_api api)
{
    return apis[api].name;
}

const char *drill_api_codec(enum drill_api api)
{
    return apis[api].codec;
}

bool drill_api_find(const char *name, enum drill_api *api)
{
    for (int i = 0; i < DRILL_API_COUNT; i++)
        if (strcmp(apis[i].name, name) == 0) {
            *api = (enum drill_api)i;
            return true;
        }
    return false;
}
