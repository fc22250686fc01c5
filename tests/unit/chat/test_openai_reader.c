/* Replies as providers send them, and the events that they are. */
#include "chat/chat.h"
#include "test_support.h"

/* ---- Events as text, one a line */

struct reading {
    struct arena arena;
    struct chat_request request;
    struct buf events;
    struct chat_fault fault;
    enum ph_status status;
};

static void put_text(struct buf *out, struct chat_text text)
{
    json_write_string(out, text.len ? text.text : "", text.len);
}

static void put_logprobs(struct buf *out, const struct chat_event *event)
{
    for (size_t i = 0; i < event->logprob_count; i++) {
        const struct chat_token_logprob *top = event->top ? event->top + i * event->top_count : NULL;
        buf_puts(out, i ? ", " : " [");
        for (size_t b = 0; b < event->logprobs[i].token.len; b++)
            buf_printf(out, "%02x", (unsigned char)event->logprobs[i].token.text[b]);
        buf_puts(out, " ");
        json_write_double(out, event->logprobs[i].logprob);
        for (size_t t = 0; top && t < event->top_count && top[t].token.text; t++) {
            buf_printf(out, " %.*s=", (int)top[t].token.len, top[t].token.text);
            json_write_double(out, top[t].logprob);
        }
    }
    buf_puts(out, event->logprob_count ? "]" : "");
}

static void put_usage(struct buf *out, const struct chat_event *event)
{
    const unsigned long long values[] = {event->usage.prompt_tokens, event->usage.cached_tokens,
                                         event->usage.cache_write_tokens, event->usage.completion_tokens,
                                         event->usage.reasoning_tokens};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        buf_printf(out, " %llu", values[i]);
}

static void on_event(void *ud, const struct chat_event *event)
{
    static const char *const names[] = {"role", "text", "think", "call", "", "finish", "usage", "", ""};
    static const char *const finishes[] = {"none", "stop", "length", "tool_calls", "content_filter"};
    struct buf *out = ud;
    buf_printf(out, "%s%zu", names[event->kind], event->choice);
    if (event->kind == CHAT_EVENT_TEXT || event->kind == CHAT_EVENT_REASONING) {
        buf_putc(out, ' ');
        put_text(out, event->text);
        put_logprobs(out, event);
    } else if (event->kind == CHAT_EVENT_TOOL_CALL) {
        buf_printf(out, " #%zu %s%s %s ", event->tool_call.index, event->tool_call.custom ? "custom " : "",
                   event->tool_call.id ? event->tool_call.id : "-",
                   event->tool_call.name ? event->tool_call.name : "-");
        put_text(out, event->tool_call.arguments);
    } else if (event->kind == CHAT_EVENT_FINISH) {
        buf_printf(out, " %s%s%s", finishes[event->finish], event->stop_text ? " at " : "",
                   event->stop_text ? event->stop_text : "");
    } else if (event->kind == CHAT_EVENT_USAGE) {
        put_usage(out, event);
    }
    buf_putc(out, '\n');
}

static void begin(struct reading *t, enum chat_kind kind, size_t choices)
{
    static const struct chat_prompt prompt = {.text = {"p", 1}};
    memset(t, 0, sizeof *t);
    arena_init(&t->arena, 1 << 24);
    buf_init(&t->events, 1 << 20);
    t->request = (struct chat_request){
        .arena = &t->arena, .kind = kind, .choices = choices, .prompts = &prompt, .prompt_count = 1};
}

static void end(struct reading *t)
{
    arena_release(&t->arena);
    buf_release(&t->events);
}

/* Pieces of so many bytes; 0: all at once. */
static void read_reply(struct reading *t, bool is_stream, const char *bytes, size_t piece)
{
    const struct chat_codec *codec = &chat_codec_openai;
    struct chat_reader_params params = {&t->request, is_stream, on_event, &t->events};
    struct chat_reader *reader = codec->reader_new(&t->arena, &params);
    size_t len = strlen(bytes);
    assert_non_null(reader);
    for (size_t at = 0; at < len && t->status == PH_OK; at += piece ? piece : len)
        t->status = codec->feed(reader, bytes + at, piece && piece < len - at ? piece : len - at, &t->fault);
    if (t->status == PH_OK)
        t->status = codec->end(reader, &t->fault);
}

static const char *events_of(const struct reading *t)
{
    return t->events.len ? t->events.data : "";
}

/* ---- Streams */

#define CHUNK(choices)                                                                                       \
    "data: "                                                                                                 \
    "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":" \
    "[" choices "]}\n\n"
#define DELTA(inside) CHUNK("{\"index\":0,\"delta\":{" inside "},\"logprobs\":null,\"finish_reason\":null}")
#define FINISH(reason) CHUNK("{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"" reason "\"}")
#define USAGE(inside)                                                                                     \
    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{" inside \
    "}}\n\n"
#define DONE "data: [DONE]\n\n"

static const struct stream_case {
    const char *name, *bytes, *events;
    size_t choices; /* 0: one */
    enum chat_kind kind;
    bool fails;
    enum chat_cause cause;
} streams[] = {
    {.name = "OpenAI",
     .bytes = DELTA("\"role\":\"assistant\",\"content\":\"\",\"refusal\":null") DELTA("\"content\":\"Hel\"")
         DELTA("\"content\":\"lo\"") FINISH("stop") USAGE(
             "\"prompt_tokens\":9,\"completion_tokens\":12,\"total_tokens\":21,\"prompt_tokens_details\":{"
             "\"cached_tokens\":4,\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":2}")
             DONE,
     .events = "role0\ntext0 \"Hel\"\ntext0 \"lo\"\nfinish0 stop\nusage0 9 4 0 12 2\n"},
    {.name = "no usage, no [DONE]",
     .bytes = DELTA("\"content\":\"a\"") FINISH("length"),
     .events = "role0\ntext0 \"a\"\nfinish0 length\n"},
    {.name = "[DONE] without its empty line",
     .bytes = DELTA("\"content\":\"a\"") FINISH("stop") "data: [DONE]",
     .events = "role0\ntext0 \"a\"\nfinish0 stop\n"},
    {.name = "a cut [DONE]",
     .bytes = DELTA("\"content\":\"a\"") FINISH("stop") "data: [DO",
     .events = "role0\ntext0 \"a\"\nfinish0 stop\n"},
    {.name = "the last event without its empty line",
     .bytes = DELTA(
         "\"content\":\"a\"") "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}",
     .events = "role0\ntext0 \"a\"\nfinish0 stop\n"},
    {.name = "Azure",
     .bytes =
         "data: "
         "{\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"\",\"object\":\"\",\"prompt_filter_results\":"
         "[{\"prompt_index\":0,\"content_filter_results\":{}}]}\n\n" DELTA("\"role\":\"assistant\"")
             CHUNK("{\"content_filter_results\":{},\"delta\":{\"content\":\"a\"},\"finish_reason\":null,"
                   "\"index\":0,\"logprobs\":null}") FINISH("content_filter") DONE,
     .events = "role0\ntext0 \"a\"\nfinish0 content_filter\n"},
    {.name = "vLLM: usage in every chunk",
     .bytes =
         "data: "
         "{\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":{"
         "\"prompt_tokens\":5,\"total_tokens\":5,\"completion_tokens\":0}}\n\n"
         "data: "
         "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":null}],\"usage\":{"
         "\"prompt_tokens\":5,\"total_tokens\":6,\"completion_tokens\":1}}\n\n"
         "data: "
         "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"stop\",\"stop_reason\":"
         "\"###\"}],\"usage\":{\"prompt_tokens\":5,\"total_tokens\":6,\"completion_tokens\":1}}\n\n"
         "data: "
         "{\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"total_tokens\":6,\"completion_tokens\":1}}"
         "\n\n" DONE,
     .events =
         "role0\nusage0 5 0 0 0 0\ntext0 \"a\"\nusage0 5 0 0 1 0\nfinish0 stop at ###\nusage0 5 0 0 1 0\n"},
    {.name = "usage before the end only",
     .bytes = "data: "
              "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":5,"
              "\"completion_tokens\":1}}\n\n" FINISH("stop") DONE,
     .events = "role0\ntext0 \"a\"\nusage0 5 0 0 1 0\nfinish0 stop\nusage0 5 0 0 1 0\n"},
    {.name = "DeepSeek: thoughts, cache hits",
     .bytes = DELTA("\"role\":\"assistant\",\"content\":null,\"reasoning_content\":\"\"")
         DELTA("\"content\":null,\"reasoning_content\":\"hm\"") DELTA(
             "\"content\":\"yes\",\"reasoning_content\":null") "data: "
                                                               "{\"choices\":[{\"index\":0,\"delta\":{"
                                                               "\"content\":\"\",\"reasoning_content\":null},"
                                                               "\"finish_reason\":\"stop\"}],\"usage\":{"
                                                               "\"prompt_tokens\":6,\"completion_tokens\":3,"
                                                               "\"total_tokens\":9,\"prompt_cache_hit_"
                                                               "tokens\":2,\"prompt_cache_miss_tokens\":4,"
                                                               "\"completion_tokens_details\":{\"reasoning_"
                                                               "tokens\":1}}}\n\n" DONE,
     .events = "role0\nthink0 \"hm\"\ntext0 \"yes\"\nfinish0 stop\nusage0 6 2 0 3 1\n"},
    {.name = "OpenRouter: comments, reasoning, an error in mid-stream",
     .bytes = ": OPENROUTER PROCESSING\n\n" DELTA(
         "\"role\":\"assistant\",\"content\":\"\",\"reasoning\":\"hm\","
         "\"reasoning_details\":[]") ": OPENROUTER PROCESSING\n\n" DELTA("\"content\":\"a\"") "data: "
                                                                                              "{\"id\":\"x\","
                                                                                              "\"object\":"
                                                                                              "\"chat."
                                                                                              "completion."
                                                                                              "chunk\","
                                                                                              "\"error\":{"
                                                                                              "\"code\":"
                                                                                              "429,"
                                                                                              "\"message\":"
                                                                                              "\"Rate limit "
                                                                                              "exceeded\"},"
                                                                                              "\"choices\":[{"
                                                                                              "\"index\":0,"
                                                                                              "\"delta\":{"
                                                                                              "\"content\":"
                                                                                              "\"\"},"
                                                                                              "\"finish_"
                                                                                              "reason\":"
                                                                                              "\"error\"}]}"
                                                                                              "\n\n",
     .events = "role0\nthink0 \"hm\"\ntext0 \"a\"\n",
     .fails = true,
     .cause = CHAT_CAUSE_RATE},
    {.name = "Mistral: content in parts",
     .bytes = DELTA("\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":[{\"type\":"
                    "\"text\",\"text\":\"hm\"}]}]")
         DELTA("\"content\":[{\"type\":\"text\",\"text\":\"yes\"}]") FINISH("model_length") DONE,
     .events = "role0\nthink0 \"hm\"\ntext0 \"yes\"\nfinish0 length\n"},
    {.name = "Groq: usage under x_groq",
     .bytes = DELTA("\"content\":\"a\"") "data: "
                                         "{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}"
                                         "],\"x_groq\":{\"id\":\"r\",\"usage\":{\"prompt_tokens\":7,"
                                         "\"completion_tokens\":1,\"total_tokens\":8}}}\n\n" DONE,
     .events = "role0\ntext0 \"a\"\nfinish0 stop\nusage0 7 0 0 1 0\n"},
    {.name = "Moonshot: usage within the choice",
     .bytes = DELTA(
         "\"content\":\"a\"") "data: "
                              "{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\",\"usage\":{"
                              "\"prompt_tokens\":7,\"completion_tokens\":1,\"cached_tokens\":3}}]}\n\n" DONE,
     .events = "role0\ntext0 \"a\"\nfinish0 stop\nusage0 7 3 0 1 0\n"},
    {.name = "xAI: reasoning tokens beside the completion's",
     .bytes = DELTA("\"content\":\"a\"") FINISH("stop")
         USAGE("\"prompt_tokens\":10,\"completion_tokens\":2,\"total_tokens\":42,\"completion_tokens_"
               "details\":{\"reasoning_tokens\":30}") DONE,
     .events = "role0\ntext0 \"a\"\nfinish0 stop\nusage0 10 0 0 32 30\n"},
    {.name = "odd counts",
     .bytes = DELTA("\"content\":\"a\"") FINISH("stop")
         USAGE("\"prompt_tokens\":-5,\"completion_tokens\":\"7\",\"prompt_tokens_details\":null") DONE,
     .events = "role0\ntext0 \"a\"\nfinish0 stop\nusage0 0 0 0 0 0\n"},
    {.name = "tool calls",
     .bytes = DELTA("\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"index\":0,\"id\":\"call_a\","
                    "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]")
         DELTA("\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"x\\\"\"}}]")
             DELTA("\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\":1}\"}}]")
                 DELTA("\"tool_calls\":[{\"index\":1,\"id\":\"call_b\",\"type\":\"function\",\"function\":{"
                       "\"name\":\"g\",\"arguments\":\"{}\"}}]") FINISH("tool_calls") DONE,
     .events = "role0\ncall0 #0 call_a f \"\"\ncall0 #0 - - \"{\\\"x\\\"\"\ncall0 #0 - - \":1}\"\ncall0 #1 "
               "call_b g \"{}\"\nfinish0 tool_calls\n"},
    {.name = "tool calls that all have index 0", /* Gemini's compatible API */
     .bytes = DELTA("\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{"
                    "}\"}},{\"index\":0,\"id\":\"b\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]")
         FINISH("stop") DONE,
     .events = "role0\ncall0 #0 a f \"{}\"\ncall0 #1 b f \"{}\"\nfinish0 tool_calls\n"},
    {.name = "tool calls that repeat id and name",
     .bytes = DELTA(
         "\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]")
         DELTA("\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\","
               "\"arguments\":\"}\"}}]") FINISH("tool_calls") DONE,
     .events = "role0\ncall0 #0 a f \"{\"\ncall0 #0 - - \"}\"\nfinish0 tool_calls\n"},
    {.name = "tool calls without index",
     .bytes = DELTA("\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]")
         DELTA("\"tool_calls\":[{\"function\":{\"arguments\":\"}\"}}]")
             DELTA("\"tool_calls\":[{\"id\":\"b\",\"function\":{\"name\":\"g\",\"arguments\":{\"y\":2}}}]")
                 FINISH("tool_calls") DONE,
     .events = "role0\ncall0 #0 a f \"{\"\ncall0 #0 - - \"}\"\ncall0 #1 b g \"{\\\"y\\\":2}\"\nfinish0 "
               "tool_calls\n"},
    {.name = "a tool's name that comes late",
     .bytes = DELTA("\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"type\":\"function\"}]")
         DELTA("\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\"}}]")
             DELTA("\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"f\",\"arguments\":\"}\"}}]")
                 FINISH("tool_calls") DONE,
     .events = "role0\ncall0 #0 a f \"{}\"\nfinish0 tool_calls\n"},
    {.name = "a custom tool",
     .bytes = DELTA("\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"type\":\"custom\",\"custom\":{\"name\":"
                    "\"sh\",\"input\":\"\"}}]")
         DELTA("\"tool_calls\":[{\"index\":0,\"custom\":{\"input\":\"ls\"}}]") FINISH("tool_calls") DONE,
     .events = "role0\ncall0 #0 custom a sh \"\"\ncall0 #0 custom - - \"ls\"\nfinish0 tool_calls\n"},
    {.name = "a refusal",
     .bytes = DELTA("\"role\":\"assistant\",\"content\":null,\"refusal\":\"\"")
         DELTA("\"refusal\":\"I can't\"") FINISH("stop") DONE,
     .events = "role0\ntext0 \"I can't\"\nfinish0 stop\n"},
    {.name = "choices",
     .choices = 2,
     .bytes = CHUNK("{\"index\":1,\"delta\":{\"content\":\"b\"}}")
         CHUNK("{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}")
             CHUNK("{\"index\":1,\"delta\":{},\"finish_reason\":\"length\"}") DONE,
     .events = "role1\ntext1 \"b\"\nrole0\ntext0 \"a\"\nfinish0 stop\nfinish1 length\n"},
    {.name = "log-probabilities",
     .bytes = CHUNK(
         "{\"index\":0,\"delta\":{\"content\":\"\xC3\xA9\"},\"logprobs\":{\"content\":[{\"token\":"
         "\"\\ufffd\",\"logprob\":-0.5,\"bytes\":[195],\"top_logprobs\":[{\"token\":\"x\",\"logprob\":-1,"
         "\"bytes\":[120]},{\"token\":\"y\",\"logprob\":-2,\"bytes\":null}]},{\"token\":\"z\",\"logprob\":-0."
         "25,\"bytes\":null,\"top_logprobs\":[]}],\"refusal\":null}}") FINISH("stop") DONE,
     .events = "role0\ntext0 \"\xC3\xA9\" [c3 -0.5 x=-1 y=-2, 7a -0.25]\nfinish0 stop\n"},
    {.name = "llama-cpp-python, recorded: usage does not come though it was asked for",
     .bytes = "data: {\"id\": \"chatcmpl-9\", \"model\": \"m.gguf\", \"created\": 1795269001, \"object\": "
              "\"chat.completion.chunk\", \"choices\": [{\"index\": 0, \"delta\": {\"role\": \"assistant\"}, "
              "\"logprobs\": null, \"finish_reason\": null}]}\r\n\r\n"
              "data: {\"id\": \"chatcmpl-9\", \"model\": \"m.gguf\", \"created\": 1795269001, \"object\": "
              "\"chat.completion.chunk\", \"choices\": [{\"index\": 0, \"delta\": {\"content\": \"Wow\"}, "
              "\"logprobs\": {\"content\": [{\"token\": \"Wow\", \"bytes\": null, \"logprob\": "
              "-2.290336847305298, \"top_logprobs\": [{\"token\": \"Wow\", \"logprob\": -2.290336847305298, "
              "\"bytes\": null}, {\"token\": \"I\", \"logprob\": -2.8247435092926025, \"bytes\": null}]}], "
              "\"refusal\": null}, \"finish_reason\": null}]}\r\n\r\n"
              "data: {\"id\": \"chatcmpl-9\", \"model\": \"m.gguf\", \"created\": 1795269001, \"object\": "
              "\"chat.completion.chunk\", \"choices\": [{\"index\": 0, \"delta\": {}, \"logprobs\": null, "
              "\"finish_reason\": \"length\"}]}\r\n\r\ndata: [DONE]\r\n\r\n",
     .events = "role0\ntext0 \"Wow\" [576f77 -2.290336847305298 Wow=-2.290336847305298 "
               "I=-2.8247435092926025]\nfinish0 length\n"},
    {.name = "a completion",
     .kind = CHAT_KIND_COMPLETION,
     .bytes = "data: "
              "{\"object\":\"text_completion\",\"choices\":[{\"text\":\"hi\",\"index\":0,\"logprobs\":{"
              "\"tokens\":[\"bytes:\\\\xc3\",\"i\"],\"token_logprobs\":[null,-1.5],\"top_logprobs\":[{\"a\":-"
              "1},{\"i\":-1.5,\"j\":-2}],\"text_offset\":[0,1]},\"finish_reason\":null}],\"usage\":null}\n\n"
              "data: "
              "{\"object\":\"text_completion\",\"choices\":[{\"text\":\"\",\"index\":0,\"logprobs\":null,"
              "\"finish_reason\":\"stop\"}]}\n\n" DONE,
     .events = "role0\ntext0 \"hi\" [c3 null a=-1, 69 -1.5 i=-1.5 j=-2]\nfinish0 stop\n"},
    {.name = "other words for the end",
     .bytes = DELTA("\"content\":\"a\"") FINISH("eos") DONE,
     .events = "role0\ntext0 \"a\"\nfinish0 stop\n"},
    {.name = "an end said twice, text behind it",
     .bytes = DELTA("\"content\":\"a\"") FINISH("stop") DELTA("\"content\":\"b\"") FINISH("length") DONE,
     .events = "role0\ntext0 \"a\"\nfinish0 stop\n"},
    {.name = "a function call of old",
     .bytes = DELTA("\"function_call\":{\"name\":\"f\",\"arguments\":\"{}\"}") FINISH("function_call") DONE,
     .events = NULL},
    /* What goes wrong. */
    {.name = "nothing", .bytes = "", .events = "", .fails = true, .cause = CHAT_CAUSE_CUT},
    {.name = "[DONE] alone", .bytes = DONE, .events = "", .fails = true, .cause = CHAT_CAUSE_CUT},
    {.name = "[DONE] without an end",
     .bytes = DELTA("\"content\":\"a\"") DONE,
     .events = "role0\ntext0 \"a\"\n",
     .fails = true,
     .cause = CHAT_CAUSE_CUT},
    {.name = "a stream that was cut",
     .bytes = DELTA("\"content\":\"a\""),
     .events = "role0\ntext0 \"a\"\n",
     .fails = true,
     .cause = CHAT_CAUSE_CUT},
    {.name = "half a line",
     .bytes = DELTA("\"content\":\"a\"") "data: {\"choices\":[{\"ind",
     .events = "role0\ntext0 \"a\"\n",
     .fails = true,
     .cause = CHAT_CAUSE_CUT},
    {.name = "one choice of two",
     .choices = 2,
     .bytes = DELTA("\"content\":\"a\"") FINISH("stop") DONE,
     .events = "role0\ntext0 \"a\"\nfinish0 stop\n",
     .fails = true,
     .cause = CHAT_CAUSE_CUT},
    {.name = "a bad line",
     .bytes = DELTA("\"content\":\"a\"") "data: {\"choices\":[}\n\n" FINISH("stop") DONE,
     .events = "role0\ntext0 \"a\"\n",
     .fails = true,
     .cause = CHAT_CAUSE_SERVER},
    {.name = "not an object",
     .bytes = "data: 5\n\n",
     .events = "",
     .fails = true,
     .cause = CHAT_CAUSE_SERVER},
    {.name = "a choice too many",
     .bytes = CHUNK("{\"index\":1,\"delta\":{\"content\":\"a\"}}"),
     .events = "",
     .fails = true,
     .cause = CHAT_CAUSE_SERVER},
    {.name = "an error",
     .bytes =
         DELTA("\"content\":\"a\"") "data: {\"error\":{\"message\":\"The server had an "
                                    "error\",\"type\":\"server_error\",\"param\":null,\"code\":null}}\n\n",
     .events = "role0\ntext0 \"a\"\n",
     .fails = true,
     .cause = CHAT_CAUSE_SERVER},
    {.name = "an error without its empty line",
     .bytes = "data: {\"error\":{\"message\":\"x\",\"type\":\"overloaded_error\"}}",
     .events = "",
     .fails = true,
     .cause = CHAT_CAUSE_OVERLOADED},
    {.name = "vLLM's error",
     .bytes = "data: {\"object\":\"error\",\"message\":\"EngineCore "
              "died\",\"type\":\"InternalServerError\",\"code\":500}\n\n" DONE,
     .events = "",
     .fails = true,
     .cause = CHAT_CAUSE_SERVER},
    {.name = "a named error",
     .bytes = "event: error\ndata: upstream gone\n\n",
     .events = "",
     .fails = true,
     .cause = CHAT_CAUSE_SERVER},
    {.name = "given up",
     .bytes = DELTA("\"content\":\"a\"") FINISH("abort") DONE,
     .events = "role0\ntext0 \"a\"\n",
     .fails = true,
     .cause = CHAT_CAUSE_SERVER},
    {.name = "a page",
     .bytes = "<html><body>Bad gateway</body></html>",
     .events = "",
     .fails = true,
     .cause = CHAT_CAUSE_CUT},
};

static void check_stream(const struct stream_case *c, size_t piece)
{
    struct reading t;
    begin(&t, c->kind, c->choices ? c->choices : 1);
    read_reply(&t, true, c->bytes, piece);
    if ((t.status != PH_OK) != c->fails || (c->fails && t.fault.cause != c->cause))
        fail_msg("%s, pieces of %zu: status %d, cause %s (%s)", c->name, piece, t.status,
                 chat_cause_name(t.fault.cause), t.fault.message);
    if (c->events && strcmp(events_of(&t), c->events) != 0)
        fail_msg("%s, pieces of %zu: %s", c->name, piece, events_of(&t));
    end(&t);
}

static void streams_become_events_wherever_they_are_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
        for (size_t piece = 0; piece < 24; piece++)
            check_stream(&streams[i], piece);
}

static void calls_without_an_id_get_one(void **state)
{
    (void)state;
    struct reading t;
    begin(&t, CHAT_KIND_CHAT, 1);
    read_reply(&t, true,
               DELTA("\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]")
                   FINISH("tool_calls"),
               0);
    assert_int_equal(t.status, PH_OK);
    const char *call = strstr(events_of(&t), "call0 #0 call-");
    assert_non_null(call);
    assert_true(strcspn(call + 14, " ") >= 20);
    end(&t);
}

static void too_many_calls_and_too_long_events_are_refused(void **state)
{
    (void)state;
    struct reading t;
    struct buf bytes;
    buf_init(&bytes, 1 << 26);
    begin(&t, CHAT_KIND_CHAT, 1);
    for (int i = 0; i <= CHAT_TOOL_CALLS_MAX; i++)
        buf_printf(&bytes,
                   "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":%d,\"id\":\"%d\","
                   "\"function\":{\"name\":\"f\"}}]}}]}\n\n",
                   i, i);
    read_reply(&t, true, bytes.data, 0);
    assert_int_equal(t.fault.cause, CHAT_CAUSE_SERVER);
    assert_non_null(strstr(t.fault.message, "too many tools"));
    end(&t);
    buf_clear(&bytes);
    for (size_t i = 0; i <= CHAT_SSE_EVENT_BYTES_MAX; i += 16)
        buf_puts(&bytes, "0123456789abcdef");
    begin(&t, CHAT_KIND_CHAT, 1);
    read_reply(&t, true, bytes.data, 65536);
    assert_int_equal(t.status, PH_ERR_FORMAT);
    assert_non_null(strstr(t.fault.message, "too long"));
    end(&t);
    buf_release(&bytes);
}

/* ---- Whole replies */

static const struct stream_case wholes[] = {
    {.name = "OpenAI",
     .choices = 2,
     .bytes = "{\"id\":\"c\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{"
              "\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hello\",\"refusal\":null,"
              "\"annotations\":[]},\"logprobs\":{\"content\":[{\"token\":\"Hello\",\"logprob\":-0.5,"
              "\"bytes\":[72,101],\"top_logprobs\":[]}],\"refusal\":null},\"finish_reason\":\"stop\"},{"
              "\"index\":1,\"message\":{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":"
              "\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},\"finish_"
              "reason\":\"tool_calls\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":12,\"total_"
              "tokens\":21,\"prompt_tokens_details\":{\"cached_tokens\":1}}}",
     .events = "role0\ntext0 \"Hello\" [4865 -0.5]\nfinish0 stop\nrole1\ncall1 #0 a f \"{}\"\nfinish1 "
               "tool_calls\nusage0 9 1 0 12 0\n"},
    {.name = "thoughts, no reason",
     .bytes = "{\"choices\":[{\"message\":{\"content\":\"a\",\"reasoning_content\":\"hm\"}}]}",
     .events = "role0\nthink0 \"hm\"\ntext0 \"a\"\nfinish0 stop\n"},
    {.name = "a completion",
     .kind = CHAT_KIND_COMPLETION,
     .bytes = "{\"object\":\"text_completion\",\"choices\":[{\"text\":\"hi\",\"index\":0,\"logprobs\":null,"
              "\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_"
              "tokens\":3}}",
     .events = "role0\ntext0 \"hi\"\nfinish0 length\nusage0 1 0 0 2 0\n"},
    {.name = "an error",
     .bytes = "{\"error\":{\"message\":\"quota\",\"code\":\"insufficient_quota\"}}",
     .events = "",
     .fails = true,
     .cause = CHAT_CAUSE_KEY},
    {.name = "an error in words",
     .bytes = "{\"error\":\"model runner has stopped\"}",
     .events = "",
     .fails = true,
     .cause = CHAT_CAUSE_SERVER},
    {.name = "an error of FastAPI",
     .bytes = "{\"detail\":[{\"loc\":[\"body\"],\"msg\":\"bad\"}]}",
     .events = "",
     .fails = true,
     .cause = CHAT_CAUSE_REQUEST},
    {.name = "cut",
     .bytes = "{\"choices\":[{\"message\":{\"content\":\"a\"",
     .events = "",
     .fails = true,
     .cause = CHAT_CAUSE_CUT},
    {.name = "empty", .bytes = "", .events = "", .fails = true, .cause = CHAT_CAUSE_CUT},
    {.name = "no choices", .bytes = "{\"choices\":[]}", .events = "", .fails = true, .cause = CHAT_CAUSE_CUT},
    {.name = "a page", .bytes = "<html></html>", .events = "", .fails = true, .cause = CHAT_CAUSE_SERVER},
};

static void whole_replies_become_events(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof wholes / sizeof *wholes; i++) {
        const struct stream_case *c = &wholes[i];
        struct reading t;
        begin(&t, c->kind, c->choices ? c->choices : 1);
        read_reply(&t, false, c->bytes, 7);
        if ((t.status != PH_OK) != c->fails || (c->fails && t.fault.cause != c->cause))
            fail_msg("%s: status %d, cause %s (%s)", c->name, t.status, chat_cause_name(t.fault.cause),
                     t.fault.message);
        assert_string_equal(events_of(&t), c->events);
        end(&t);
    }
}

/* A stream of ten thousand chunks takes no more memory than one of ten. */
static void long_streams_do_not_grow(void **state)
{
    (void)state;
    size_t bytes[2];
    for (int pass = 0; pass < 2; pass++) {
        struct reading t;
        begin(&t, CHAT_KIND_CHAT, 1);
        struct chat_reader_params params = {&t.request, true, on_event, &t.events};
        struct chat_reader *reader = chat_codec_openai.reader_new(&t.arena, &params);
        static const char chunk[] = DELTA("\"content\":\"a\"");
        for (int i = 0; i < (pass ? 10000 : 10); i++) {
            assert_int_equal(chat_codec_openai.feed(reader, chunk, sizeof chunk - 1, &t.fault), PH_OK);
            buf_clear(&t.events);
        }
        bytes[pass] = t.arena.bytes;
        end(&t);
    }
    assert_int_equal(bytes[0], bytes[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_become_events_wherever_they_are_cut),
        cmocka_unit_test(calls_without_an_id_get_one),
        cmocka_unit_test(too_many_calls_and_too_long_events_are_refused),
        cmocka_unit_test(whole_replies_become_events),
        cmocka_unit_test(long_streams_do_not_grow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
