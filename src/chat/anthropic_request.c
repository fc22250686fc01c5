/* Chat requests for Anthropic providers.
 *
 * A request that came in this dialect goes out as it came, member by member, so that prompt caches and
 * everything we do not know survive; only what the struct or the target decides is written anew (model,
 * max_tokens, stream), and what the API would refuse is taken out: our own metadata.conversation_id, and
 * thoughts without a seal, which another provider wrote earlier in the conversation.
 *
 * Other dialects are translated. A conversation becomes turns: messages of the same side are merged, tool
 * results open a user's turn, system messages go to `system`. What a model may do differs between the
 * generations of Claude, and the API refuses a request for a knob too many; the table `generations` knows,
 * a name that it does not is asked as the older models are. Left out as harmless: sampling knobs there are
 * none for (seed, penalties, biases), a temperature above 1, unsealed thoughts. Refused with cause UNABLE:
 * what would change the answer's shape or meaning (n, log-probabilities, JSON without a schema, sounds). */
#include <string.h>

#include "chat/anthropic_int.h"

#define POST_BYTES_MAX ((size_t)2 * HTTP_BODY_BYTES_MAX)
#define THINKING_TOKENS_MIN 1024 /* the API's */
#define USER_BYTES_MAX 256       /* the API's: metadata.user_id */

/* ---- What models can do */

enum {
    CAN_SAMPLE = 1,  /* temperature, or top_p, and top_k */
    CAN_BUDGET = 2,  /* thinking with a budget of tokens */
    CAN_ADAPT = 4,   /* thinking as much as the effort asks for */
    CAN_PREFILL = 8, /* going on from a beginning of the answer */
    CAN_FORMAT = 16, /* output_config.format */
};

/* The first row whose words are in the model's name counts; dots in names read as dashes. */
static const struct {
    const char *words;
    unsigned can;
} generations[] = {
    {"claude-2", CAN_SAMPLE | CAN_PREFILL},
    {"claude-instant", CAN_SAMPLE | CAN_PREFILL},
    {"claude-3-7", CAN_SAMPLE | CAN_BUDGET | CAN_PREFILL},
    {"claude-3", CAN_SAMPLE | CAN_PREFILL},
    {"claude-opus-4-6", CAN_SAMPLE | CAN_ADAPT | CAN_FORMAT},
    {"claude-sonnet-4-6", CAN_SAMPLE | CAN_ADAPT | CAN_FORMAT},
    {"claude-opus-4-7", CAN_ADAPT | CAN_FORMAT},
    {"claude-opus-4-8", CAN_ADAPT | CAN_FORMAT},
    {"claude-opus-4-1", CAN_SAMPLE | CAN_BUDGET | CAN_PREFILL | CAN_FORMAT},
    {"-4-5", CAN_SAMPLE | CAN_BUDGET | CAN_PREFILL | CAN_FORMAT},
    {"claude-opus-4", CAN_SAMPLE | CAN_BUDGET | CAN_PREFILL},
    {"claude-sonnet-4", CAN_SAMPLE | CAN_BUDGET | CAN_PREFILL},
    {"claude-", CAN_ADAPT | CAN_FORMAT},
    {"", CAN_SAMPLE | CAN_BUDGET | CAN_PREFILL | CAN_FORMAT}, /* other makers' models */
};

static unsigned abilities(const char *model)
{
    char name[128];
    size_t len = 0, row = 0;
    for (; model[len] && len < sizeof name - 1; len++)
        name[len] = model[len] == '.' ? '-' : model[len];
    name[len] = 0;
    while (!strstr(name, generations[row].words))
        row++;
    return generations[row].can;
}

bool anthropic_continues(const char *model)
{
    return abilities(model) & CAN_PREFILL;
}

/* ---- The writer */

struct writer {
    struct arena *arena;
    const struct chat_request *request;
    const struct chat_target *target;
    struct chat_fault *fault;
    struct buf *out;
    unsigned can;
    enum ph_status status; /* the first refusal; writing goes on, to nobody */
    const char *turn;      /* the open turn's role; NULL: none is open */
    size_t turns, blocks;  /* blocks: of the open turn */
    bool thinking;
};

static void unable(struct writer *w, const char *param, const char *message)
{
    if (w->status != PH_OK)
        return;
    chat_fault_set(w->fault, 400, "unsupported", param, "model \"%.80s\": %s", w->target->model, message);
    w->fault->cause = CHAT_CAUSE_UNABLE;
    w->status = PH_ERR_UNSUPPORTED;
}

static void write_text(struct buf *out, struct chat_text text)
{
    json_write_string(out, text.len ? text.text : "", text.len);
}

static void write_string(struct buf *out, const char *text)
{
    json_write_string(out, text, strlen(text));
}

static void write_json(struct buf *out, const char *before, const struct json *value)
{
    buf_puts(out, before);
    json_write(out, value);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Without white space at its end, which the API refuses in a beginning of the answer. */
static struct chat_text trimmed(struct chat_text text)
{
    while (text.len && is_space(text.text[text.len - 1]))
        text.len--;
    return text;
}

struct chat_text anthropic_lost_space(const struct chat_request *request)
{
    bool goes_raw = request->dialect == CHAT_ANTHROPIC && !request->messages_changed;
    if (!request->continue_final_message || request->message_count == 0 || goes_raw)
        return (struct chat_text){0};
    struct chat_text text = request->messages[request->message_count - 1].content;
    size_t kept = trimmed(text).len;
    return (struct chat_text){text.text ? text.text + kept : NULL, text.len - kept};
}

static bool is_theirs(const struct writer *w)
{
    return w->request->dialect == CHAT_ANTHROPIC;
}

static uint64_t max_tokens(const struct writer *w)
{
    return w->request->max_tokens ? w->request->max_tokens : CHAT_ANTHROPIC_MAX_TOKENS;
}

/* ---- Turns: opened by their first block, so that there are no empty ones */

static void end_turn(struct writer *w)
{
    if (w->turn)
        buf_puts(w->out, "]}");
    w->turn = NULL;
}

/* Before every block. */
static void begin_block(struct writer *w, const char *role)
{
    if (w->turn && strcmp(w->turn, role) == 0) {
        buf_putc(w->out, ',');
        return;
    }
    end_turn(w);
    if (w->turns++ == 0 && strcmp(role, "user") != 0) {
        /* The API wants a user to begin; some programs greet first. */
        buf_puts(w->out, "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\".\"}]}");
        w->turns++;
    }
    buf_printf(w->out, "%s{\"role\":\"%s\",\"content\":[", w->turns > 1 ? "," : "", role);
    w->turn = role;
}

/* Characters that the API allows: other providers' ids have dots and colons. */
static void write_id(struct writer *w, const char *id)
{
    if (!id || !*id) {
        unable(w, "messages", "a tool call, or a tool's message, has no id");
        return;
    }
    buf_putc(w->out, '"');
    for (; *id; id++) {
        bool good = (*id >= 'a' && *id <= 'z') || (*id >= 'A' && *id <= 'Z') || (*id >= '0' && *id <= '9') ||
                    *id == '_' || *id == '-';
        buf_putc(w->out, good ? *id : '_');
    }
    buf_putc(w->out, '"');
}

/* ---- Blocks. Each begins with begin_block when it stands in a turn; in a tool result it stands after the
 * comma that its caller wrote. */

static void end_block(struct writer *w, const struct chat_part *part)
{
    if (part && part->cache_control)
        write_json(w->out, ",\"cache_control\":", part->cache_control);
    buf_putc(w->out, '}');
}

static void write_text_block(struct writer *w, struct chat_text text, const struct chat_part *part)
{
    buf_puts(w->out, "{\"type\":\"text\",\"text\":");
    write_text(w->out, text);
    end_block(w, part);
}

static void write_media_block(struct writer *w, const char *type, const struct chat_part *part)
{
    bool image = part->kind == CHAT_PART_IMAGE;
    bool readable = part->media_type && (image || strcmp(part->media_type, "application/pdf") == 0);
    buf_printf(w->out, "{\"type\":\"%s\",\"source\":{\"type\":", type);
    if (part->data.text && readable) {
        buf_puts(w->out, "\"base64\",\"media_type\":");
        write_string(w->out, part->media_type);
        buf_puts(w->out, ",\"data\":");
        write_text(w->out, part->data);
    } else if (part->url) {
        buf_puts(w->out, "\"url\",\"url\":");
        write_string(w->out, part->url);
    } else {
        unable(w, "messages",
               image ? "an image has neither data nor an address"
                     : "of files it reads PDF only, given whole");
    }
    buf_putc(w->out, '}');
    if (part->filename && !image) {
        buf_puts(w->out, ",\"title\":");
        write_string(w->out, part->filename);
    }
    end_block(w, part);
}

static void write_thought(struct writer *w, const struct chat_part *part)
{
    if (part->text.text) {
        buf_puts(w->out, "{\"type\":\"thinking\",\"thinking\":");
        write_text(w->out, part->text);
        buf_puts(w->out, ",\"signature\":");
    } else {
        buf_puts(w->out, "{\"type\":\"redacted_thinking\",\"data\":");
    }
    write_string(w->out, part->signature);
    end_block(w, NULL);
}

/* Is there anything to write of this part? */
static bool is_shown(const struct writer *w, const struct chat_part *part)
{
    switch (part->kind) {
    case CHAT_PART_TEXT:
        return trimmed(part->text).len > 0; /* the API refuses blank text */
    case CHAT_PART_REASONING:
        return is_theirs(w) && part->signature && *part->signature;
    default:
        return true;
    }
}

static void write_part(struct writer *w, const struct chat_part *part)
{
    bool text = json_text_is(json_get(part->raw, "type"), "text"); /* may have been trimmed */
    if (is_theirs(w) && part->raw && !text) {
        json_write(w->out, part->raw);
        return;
    }
    switch (part->kind) {
    case CHAT_PART_TEXT:
        write_text_block(w, part->text, part);
        break;
    case CHAT_PART_IMAGE:
        write_media_block(w, "image", part);
        break;
    case CHAT_PART_FILE:
        write_media_block(w, "document", part);
        break;
    case CHAT_PART_REASONING:
        write_thought(w, part);
        break;
    case CHAT_PART_AUDIO:
        unable(w, "messages", "it does not read sounds");
        break;
    case CHAT_PART_OTHER:
        unable(w, "messages", "a part of a message is of a kind that its API does not have");
        break;
    }
}

/* ---- Messages */

/* A thought of a provider that does not seal them; this API would refuse it. */
static bool is_unsealed(const struct json *block)
{
    const struct json *signature = json_get(block, "signature");
    return json_text_is(json_get(block, "type"), "thinking") &&
           (!json_is(signature, JSON_STRING) || signature->u.str.len == 0);
}

static void write_tool_result(struct writer *w, const struct chat_message *message)
{
    begin_block(w, "user");
    buf_puts(w->out, "{\"type\":\"tool_result\",\"tool_use_id\":");
    write_id(w, message->tool_call_id);
    if (message->part_count) {
        size_t count = 0;
        buf_puts(w->out, ",\"content\":[");
        for (size_t i = 0; i < message->part_count; i++) {
            if (!is_shown(w, &message->parts[i]))
                continue;
            if (count++)
                buf_putc(w->out, ',');
            write_part(w, &message->parts[i]);
        }
        buf_putc(w->out, ']');
    } else if (message->content.len) {
        buf_puts(w->out, ",\"content\":");
        write_text(w->out, message->content);
    }
    buf_puts(w->out, message->tool_failed ? ",\"is_error\":true}" : "}");
}

/* `input` must be an object; what a model wrote may be none. */
static void write_input(struct writer *w, struct chat_text arguments)
{
    struct json *input = NULL;
    if (arguments.len == 0) {
        buf_puts(w->out, "{}");
    } else if (json_parse(w->arena, arguments.text, arguments.len, &input, NULL) == PH_OK &&
               json_is(input, JSON_OBJECT)) {
        json_write(w->out, input);
    } else {
        buf_puts(w->out, "{\"INVALID_JSON\":");
        write_text(w->out, arguments);
        buf_putc(w->out, '}');
    }
}

static void write_calls(struct writer *w, const struct chat_message *message)
{
    for (size_t i = 0; i < message->tool_call_count; i++) {
        const struct chat_tool_call *call = &message->tool_calls[i];
        begin_block(w, "assistant");
        buf_puts(w->out, "{\"type\":\"tool_use\",\"id\":");
        write_id(w, call->id);
        buf_puts(w->out, ",\"name\":");
        write_string(w->out, call->name);
        buf_puts(w->out, ",\"input\":");
        write_input(w, call->arguments);
        buf_putc(w->out, '}');
    }
}

/* `last`: the message is a beginning to go on from. */
static void write_content(struct writer *w, const struct chat_message *message, const char *role, bool last)
{
    for (size_t i = 0; i < message->part_count; i++) {
        struct chat_part part = message->parts[i];
        if (last && i + 1 == message->part_count && part.kind == CHAT_PART_TEXT)
            part.text = trimmed(part.text);
        if (!is_shown(w, &part))
            continue;
        begin_block(w, role);
        write_part(w, &part);
    }
    struct chat_text text = last ? trimmed(message->content) : message->content;
    if (message->part_count == 0 && trimmed(text).len) {
        begin_block(w, role);
        write_text_block(w, text, NULL);
    }
}

/* A turn as it came, in its own order, when others of the conversation were changed. */
static bool write_raw_content(struct writer *w, const struct chat_message *message, const char *role)
{
    const struct json *content = json_get(message->raw, "content");
    if (!is_theirs(w) || !json_is(content, JSON_ARRAY))
        return false;
    JSON_EACH (block, content) {
        if (is_unsealed(block))
            continue;
        begin_block(w, role);
        json_write(w->out, block);
    }
    return true;
}

static bool is_system(const struct chat_message *message)
{
    return message->role == CHAT_SYSTEM || message->role == CHAT_DEVELOPER;
}

static bool has_turns(const struct chat_request *request)
{
    for (size_t i = 0; i < request->message_count; i++)
        if (!is_system(&request->messages[i]))
            return true;
    return false;
}

static void write_messages(struct writer *w)
{
    const struct chat_request *request = w->request;
    bool only_system = !has_turns(request);
    buf_puts(w->out, ",\"messages\":[");
    for (size_t i = 0; i < request->message_count; i++) {
        const struct chat_message *message = &request->messages[i];
        bool last = request->continue_final_message && i + 1 == request->message_count;
        if (is_system(message) && !only_system)
            continue;
        const char *role = message->role == CHAT_ASSISTANT ? "assistant" : "user";
        if (message->role == CHAT_TOOL) {
            write_tool_result(w, message);
        } else if (last || !write_raw_content(w, message, role)) {
            write_content(w, message, role, last);
            write_calls(w, message);
        }
    }
    end_turn(w);
    if (w->turns == 0)
        buf_puts(w->out, "{\"role\":\"user\",\"content\":\".\"}");
    buf_putc(w->out, ']');
}

static void write_system(struct writer *w)
{
    size_t count = 0;
    if (!has_turns(w->request))
        return;
    for (size_t i = 0; i < w->request->message_count; i++) {
        const struct chat_message *message = &w->request->messages[i];
        struct chat_part plain = {.kind = CHAT_PART_TEXT, .text = message->content};
        const struct chat_part *parts = message->part_count ? message->parts : &plain;
        size_t part_count = message->part_count ? message->part_count : 1;
        for (size_t k = 0; is_system(message) && k < part_count; k++) {
            if (parts[k].kind != CHAT_PART_TEXT)
                unable(w, "messages", "a system message must be text");
            if (parts[k].kind != CHAT_PART_TEXT || !is_shown(w, &parts[k]))
                continue;
            buf_puts(w->out, count++ ? "," : ",\"system\":[");
            write_text_block(w, parts[k].text, &parts[k]);
        }
    }
    if (count)
        buf_putc(w->out, ']');
}

/* ---- Tools */

static void write_tool(struct writer *w, const struct json *tool)
{
    const struct json *function = json_get(tool, "function");
    const struct json *name = json_get(function, "name"), *schema = json_get(function, "parameters");
    if (!json_is(name, JSON_STRING)) {
        if (is_theirs(w))
            json_write(w->out, tool); /* one that the provider has itself */
        else
            unable(w, "tools", "a tool is no function");
        return;
    }
    write_json(w->out, "{\"name\":", name);
    if (json_is(json_get(function, "description"), JSON_STRING))
        write_json(w->out, ",\"description\":", json_get(function, "description"));
    buf_puts(w->out, ",\"input_schema\":");
    if (json_is(json_get(schema, "type"), JSON_STRING)) {
        json_write(w->out, schema);
    } else { /* the type is demanded */
        buf_puts(w->out, "{\"type\":\"object\"");
        JSON_EACH (member, schema) {
            if (strcmp(member->key, "type") == 0)
                continue;
            buf_putc(w->out, ',');
            json_write_string(w->out, member->key, member->key_len);
            write_json(w->out, ":", member);
        }
        buf_putc(w->out, '}');
    }
    buf_putc(w->out, '}');
}

/* A conversation in which tools were called needs their definitions, even when none may be called now. */
static size_t write_past_tools(struct writer *w)
{
    size_t count = 0;
    struct json *seen = json_new(w->arena, JSON_OBJECT);
    for (size_t i = 0; i < w->request->message_count; i++) {
        const struct chat_message *message = &w->request->messages[i];
        for (size_t k = 0; k < message->tool_call_count; k++) {
            const char *name = message->tool_calls[k].name;
            if (json_get(seen, name))
                continue;
            json_set(w->arena, seen, name, json_new(w->arena, JSON_TRUE));
            buf_puts(w->out, count++ ? ",{\"name\":" : ",\"tools\":[{\"name\":");
            write_string(w->out, name);
            buf_puts(w->out, ",\"input_schema\":{\"type\":\"object\"}}");
        }
    }
    if (count)
        buf_puts(w->out, "],\"tool_choice\":{\"type\":\"none\"}");
    return count;
}

static void write_tool_choice(struct writer *w)
{
    static const char *const words[][2] = {{"auto", "auto"}, {"required", "any"}, {"none", "none"}};
    const struct json *choice = w->request->tool_choice;
    const struct json *name = json_get(json_get(choice, "function"), "name");
    const char *single = w->request->single_tool_call ? ",\"disable_parallel_tool_use\":true}" : "}";
    const char *type = json_is_absent(choice) && w->request->single_tool_call ? "auto" : NULL;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (json_text_is(choice, words[i][0]))
            type = words[i][1];
    if (type) {
        buf_printf(w->out, ",\"tool_choice\":{\"type\":\"%s\"", type);
        buf_puts(w->out, strcmp(type, "none") == 0 ? "}" : single);
    } else if (json_is(name, JSON_STRING)) {
        write_json(w->out, ",\"tool_choice\":{\"type\":\"tool\",\"name\":", name);
        buf_puts(w->out, single);
    } else if (!json_is_absent(choice)) {
        unable(w, "tool_choice", "it knows auto, required, none and one function");
    }
}

static void write_tools(struct writer *w)
{
    size_t count = 0;
    if (json_count(w->request->tools) == 0) {
        write_past_tools(w);
        return;
    }
    JSON_EACH (tool, w->request->tools) {
        buf_puts(w->out, count++ ? "," : ",\"tools\":[");
        write_tool(w, tool);
    }
    buf_putc(w->out, ']');
    write_tool_choice(w);
}

static bool is_tool_forced(const struct chat_request *request)
{
    return json_count(request->tools) &&
           (json_is(request->tool_choice, JSON_OBJECT) || json_text_is(request->tool_choice, "required"));
}

/* ---- Thinking */

/* With a budget, the turn that called the tools whose results come now must begin with a sealed thought. */
static bool may_think(const struct chat_request *request)
{
    size_t i = request->message_count;
    while (i && request->messages[i - 1].role == CHAT_TOOL)
        i--;
    if (i == request->message_count || i == 0)
        return true;
    const struct chat_message *caller = &request->messages[i - 1];
    for (size_t k = 0; k < caller->part_count; k++)
        if (caller->parts[k].kind == CHAT_PART_REASONING && caller->parts[k].signature)
            return request->dialect == CHAT_ANTHROPIC;
    return false;
}

static const char *effort_of(const struct chat_request *request)
{
    static const char *const known[] = {"low", "medium", "high"};
    const char *said = request->reasoning_effort;
    for (size_t i = 0; said && i < sizeof known / sizeof known[0]; i++)
        if (strcmp(said, known[i]) == 0)
            return known[i];
    if (said && strcmp(said, "xhigh") == 0)
        return "high";
    if (said)
        return "none"; /* none, minimal */
    if (request->reasoning_tokens <= 0)
        return request->reasoning_tokens == 0 ? "none" : NULL;
    return request->reasoning_tokens <= 2048 ? "low" : request->reasoning_tokens <= 8192 ? "medium" : "high";
}

/* Tokens for thinking; 0: none. The answer keeps at least half of the limit, unless the budget was said. */
static uint64_t budget_of(const struct writer *w, const char *effort)
{
    static const struct {
        const char *effort;
        uint64_t tokens;
    } budgets[] = {{"low", 1024}, {"medium", 4096}, {"high", 16384}};
    uint64_t budget = 0, most = max_tokens(w) / 2;
    for (size_t i = 0; i < sizeof budgets / sizeof budgets[0]; i++)
        if (strcmp(effort, budgets[i].effort) == 0)
            budget = budgets[i].tokens;
    if (w->request->reasoning_tokens > 0) {
        budget = (uint64_t)w->request->reasoning_tokens;
        most = max_tokens(w) - 1;
    }
    budget = budget < most ? budget : most;
    return budget >= THINKING_TOKENS_MIN ? budget : 0;
}

/* Says what output_config.effort should be; NULL: nothing. */
static const char *write_thinking(struct writer *w)
{
    const char *effort = effort_of(w->request);
    bool possible = !w->request->continue_final_message && !is_tool_forced(w->request);
    if (!effort)
        return NULL;
    bool none = strcmp(effort, "none") == 0;
    if (w->can & CAN_ADAPT) {
        if (!none && possible) {
            buf_puts(w->out, ",\"thinking\":{\"type\":\"adaptive\"}");
            w->thinking = true;
        }
        return none ? "low" : effort;
    }
    uint64_t budget = budget_of(w, effort);
    if ((w->can & CAN_BUDGET) && budget && possible && may_think(w->request)) {
        buf_printf(w->out, ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":%llu}",
                   (unsigned long long)budget);
        w->thinking = true;
    }
    return NULL;
}

/* ---- The answer's form */

/* Objects of a schema must be closed; closing one allows less, so that every answer still fits. */
static void close_objects(struct arena *arena, struct json *schema)
{
    if (json_text_is(json_get(schema, "type"), "object") && !json_get(schema, "additionalProperties"))
        json_set(arena, schema, "additionalProperties", json_new(arena, JSON_FALSE));
    JSON_EACH (member, schema)
        close_objects(arena, (struct json *)member);
}

static void write_output_config(struct writer *w, const char *effort)
{
    const struct json *format = w->request->response_format, *type = json_get(format, "type");
    const struct json *schema = json_get(json_get(format, "json_schema"), "schema");
    bool plain = json_is_absent(format) || json_text_is(type, "text");
    if (plain && !effort)
        return;
    buf_puts(w->out, ",\"output_config\":{");
    if (effort)
        buf_printf(w->out, "\"effort\":\"%s\"%s", effort, plain ? "" : ",");
    if (!plain && (!json_text_is(type, "json_schema") || !json_is(schema, JSON_OBJECT)))
        unable(w, "response_format", "of response formats it knows text and json_schema");
    else if (!plain && !(w->can & CAN_FORMAT))
        unable(w, "response_format", "it does not follow JSON schemas");
    else if (!plain) {
        struct json *closed = json_copy(w->arena, schema);
        if (!closed)
            w->status = PH_ERR_NOMEM;
        else
            close_objects(w->arena, closed);
        write_json(w->out, "\"format\":{\"type\":\"json_schema\",\"schema\":", closed);
        buf_putc(w->out, '}');
    }
    buf_putc(w->out, '}');
}

static void write_sampling(struct writer *w)
{
    const struct chat_sampling *sampling = &w->request->sampling;
    if (!(w->can & CAN_SAMPLE) || w->thinking)
        return;
    if (sampling->has_temperature) { /* with it, top_p is one knob too many for some */
        buf_puts(w->out, ",\"temperature\":");
        json_write_double(w->out, sampling->temperature < 1 ? sampling->temperature : 1);
    } else if (sampling->has_top_p) {
        buf_puts(w->out, ",\"top_p\":");
        json_write_double(w->out, sampling->top_p);
    }
    if (sampling->has_top_k && sampling->top_k > 0)
        buf_printf(w->out, ",\"top_k\":%lld", (long long)sampling->top_k);
}

static void write_stops(struct writer *w)
{
    for (size_t i = 0; i < w->request->stop_count; i++) {
        buf_puts(w->out, i ? "," : ",\"stop_sequences\":[");
        write_text(w->out, w->request->stops[i]);
        if (trimmed(w->request->stops[i]).len == 0)
            unable(w, "stop", "a stop string must have more than white space");
    }
    if (w->request->stop_count)
        buf_putc(w->out, ']');
}

/* ---- A body of another dialect, or with other messages */

static void check_abilities(struct writer *w)
{
    const struct chat_request *request = w->request;
    if (request->kind != CHAT_KIND_CHAT)
        unable(w, "prompt", "it does chats, not completions of bare prompts");
    if (request->choices > 1)
        unable(w, "n", "it gives one choice");
    if (request->logprobs)
        unable(w, "logprobs", "it tells no log-probabilities");
    if (request->continue_final_message && !(w->can & CAN_PREFILL))
        unable(w, "continue_final_message", "it does not go on from a beginning");
}

static void write_start(struct writer *w)
{
    buf_puts(w->out, "{\"model\":");
    write_string(w->out, w->target->model);
    buf_printf(w->out, ",\"max_tokens\":%llu,\"stream\":%s", (unsigned long long)max_tokens(w),
               w->request->stream ? "true" : "false");
}

static void write_translated(struct writer *w)
{
    check_abilities(w);
    write_start(w);
    write_system(w);
    write_messages(w);
    write_tools(w);
    write_output_config(w, write_thinking(w));
    write_sampling(w);
    write_stops(w);
    if (w->request->user && strlen(w->request->user) <= USER_BYTES_MAX) {
        buf_puts(w->out, ",\"metadata\":{\"user_id\":");
        write_string(w->out, w->request->user);
        buf_putc(w->out, '}');
    }
    buf_putc(w->out, '}');
}

/* ---- A body of this dialect */

static size_t count_unsealed(const struct json *content)
{
    size_t count = 0;
    JSON_EACH (block, content)
        count += is_unsealed(block);
    return count;
}

static void write_member(struct writer *w, const struct json *member, size_t *count)
{
    if ((*count)++)
        buf_putc(w->out, ',');
    json_write_string(w->out, member->key, member->key_len);
    buf_putc(w->out, ':');
}

static void write_sealed_content(struct writer *w, const struct json *content)
{
    size_t count = 0;
    buf_putc(w->out, '[');
    JSON_EACH (block, content) {
        if (is_unsealed(block))
            continue;
        if (count++)
            buf_putc(w->out, ',');
        json_write(w->out, block);
    }
    buf_putc(w->out, ']');
}

/* One message, without thoughts that no provider sealed. */
static void write_sealed_message(struct writer *w, const struct json *message)
{
    size_t count = 0;
    buf_putc(w->out, '{');
    JSON_EACH (member, message) {
        write_member(w, member, &count);
        if (strcmp(member->key, "content") == 0)
            write_sealed_content(w, member);
        else
            json_write(w->out, member);
    }
    buf_putc(w->out, '}');
}

static void write_raw_messages(struct writer *w, const struct json *messages)
{
    size_t count = 0;
    buf_putc(w->out, '[');
    JSON_EACH (message, messages) {
        const struct json *content = json_get(message, "content");
        size_t unsealed = count_unsealed(content);
        if (unsealed && unsealed == json_count(content))
            continue; /* nothing else was in it */
        if (count++)
            buf_putc(w->out, ',');
        if (unsealed)
            write_sealed_message(w, message);
        else
            json_write(w->out, message);
    }
    buf_putc(w->out, ']');
}

static void write_raw_metadata(struct writer *w, const struct json *metadata)
{
    size_t count = 0;
    buf_putc(w->out, '{');
    JSON_EACH (member, metadata) {
        if (chat_metadata_is_ours(member->key))
            continue;
        write_member(w, member, &count);
        json_write(w->out, member);
    }
    buf_putc(w->out, '}');
}

/* A budget for thinking is refused when the thought that it goes on from was taken out, and thinking at all
 * when the answer has begun. */
static bool may_not_think(const struct chat_request *request)
{
    size_t unsealed = 0;
    const struct json *type = json_get(json_get(request->raw, "thinking"), "type");
    JSON_EACH (message, json_get(request->raw, "messages"))
        unsealed += count_unsealed(json_get(message, "content"));
    return (unsealed && json_text_is(type, "enabled")) ||
           (request->messages_changed && request->continue_final_message);
}

/* True: written, as we want it. */
static bool write_replaced(struct writer *w, const struct json *member)
{
    if (strcmp(member->key, "model") == 0)
        write_string(w->out, w->target->model);
    else if (strcmp(member->key, "max_tokens") == 0)
        buf_printf(w->out, "%llu", (unsigned long long)max_tokens(w));
    else if (strcmp(member->key, "stream") == 0)
        buf_puts(w->out, w->request->stream ? "true" : "false");
    else if (strcmp(member->key, "messages") == 0)
        write_raw_messages(w, member);
    else if (strcmp(member->key, "metadata") == 0 && json_is(member, JSON_OBJECT))
        write_raw_metadata(w, member);
    else
        return false;
    return true;
}

static void write_missing(struct writer *w, size_t *count)
{
    static const char *const names[] = {"model", "max_tokens", "stream"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct json member = {.type = JSON_NULL, .key = names[i], .key_len = (uint32_t)strlen(names[i])};
        bool wanted = i < 2 || w->request->stream;
        if (!wanted || json_get(w->request->raw, names[i]))
            continue;
        write_member(w, &member, count);
        (void)write_replaced(w, &member);
    }
}

static bool is_left_out(const struct writer *w, const char *key, bool drop_thinking)
{
    bool messages = strcmp(key, "messages") == 0 || strcmp(key, "system") == 0;
    return (messages && w->request->messages_changed) || (drop_thinking && strcmp(key, "thinking") == 0);
}

static void write_raw(struct writer *w)
{
    bool drop_thinking = may_not_think(w->request);
    size_t count = 0;
    if (w->request->choices > 1) /* not the client's wish, then */
        unable(w, "n", "it gives one choice");
    buf_putc(w->out, '{');
    JSON_EACH (member, w->request->raw) {
        if (is_left_out(w, member->key, drop_thinking))
            continue;
        write_member(w, member, &count);
        if (!write_replaced(w, member))
            json_write(w->out, member);
    }
    write_missing(w, &count);
    if (w->request->messages_changed) {
        if (w->request->continue_final_message && !(w->can & CAN_PREFILL))
            unable(w, "continue_final_message", "it does not go on from a beginning");
        write_system(w);
        write_messages(w);
    }
    buf_putc(w->out, '}');
}

/* ---- The door */

static void add_header(struct chat_post *post, const char *name, const char *value)
{
    if (value)
        post->headers[post->header_count++] = (struct chat_header){name, value};
}

/* A date; clients may have said anything. */
static bool is_version(const char *text)
{
    static const char shape[] = "0000-00-00";
    for (size_t i = 0; i < sizeof shape; i++) {
        bool digit = text[i] >= '0' && text[i] <= '9';
        if (shape[i] == '0' ? !digit : text[i] != shape[i])
            return false;
    }
    return true;
}

static void add_headers(const struct writer *w, struct chat_post *post)
{
    const char *version = w->target->api_version, *said = is_theirs(w) ? w->request->api_version : NULL;
    if (!version && said && is_version(said))
        version = said;
    add_header(post, "content-type", "application/json");
    add_header(post, "accept", w->request->stream ? "text/event-stream" : "application/json");
    add_header(post, "anthropic-version", version ? version : ANTHROPIC_VERSION);
    add_header(post, "anthropic-beta", is_theirs(w) ? w->request->api_betas : NULL);
    add_header(post, "x-api-key", w->target->key);
    add_header(post, "x-request-id", w->request->request_id);
}

static void release(void *ud)
{
    buf_release(ud);
}

static enum ph_status no_memory(struct chat_fault *fault)
{
    chat_fault_set(fault, 503, NULL, NULL, "the request needs more memory than one may take");
    return PH_ERR_NOMEM;
}

enum ph_status anthropic_request(struct arena *arena, const struct chat_request *request,
                                 const struct chat_target *target, struct chat_post *out,
                                 struct chat_fault *fault)
{
    struct buf *body = arena_calloc(arena, 1, sizeof *body), url;
    *out = (struct chat_post){0};
    if (!body || arena_on_release(arena, release, body) != 0)
        return no_memory(fault);
    buf_init(body, POST_BYTES_MAX);
    struct writer w = {.arena = arena,
                       .request = request,
                       .target = target,
                       .fault = fault,
                       .out = body,
                       .can = abilities(target->model)};
    if (request->dialect == CHAT_ANTHROPIC && json_is(request->raw, JSON_OBJECT))
        write_raw(&w);
    else
        write_translated(&w);
    buf_init(&url, HTTP_TARGET_BYTES_MAX);
    buf_printf(&url, "%s/messages", target->base_url);
    out->url = url.status == PH_OK ? arena_strndup(arena, url.data, url.len) : NULL;
    buf_release(&url);
    if (w.status == PH_ERR_UNSUPPORTED)
        return w.status;
    if (w.status != PH_OK || buf_status(body) != PH_OK || !out->url)
        return no_memory(fault);
    out->body = body->data;
    out->body_len = body->len;
    add_headers(&w, out);
    return PH_OK;
}
