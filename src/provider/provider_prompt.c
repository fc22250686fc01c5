/* From a chat request to token ids.
 *
 * The model's own template renders the messages. A model file without one gets a fallback, itself a template:
 * ChatML when the vocabulary has its turn tokens, else "User: ...", one paragraph a message, and then
 * "\nUser:" ends a reply, because such a model knows no end of turn.
 *
 * Tokens: the text of control tokens becomes those tokens, as templates rely on it. The beginning token is
 * put in front exactly once: if the model wants it and the template did not write it. An end token is never
 * added; the model is meant to go on.
 *
 * A job copies what it needs from the request, in its own arena: long prompts are rendered and tokenised on a
 * helper thread, and the request may go away meanwhile. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "provider/provider_int.h"

#define CHATML_TEMPLATE                                                                                  \
    "{% for message in messages %}"                                                                      \
    "{{ '<|im_start|>' + message['role'] + '\\n' + (message['content'] or '') + '<|im_end|>' + '\\n' }}" \
    "{% endfor %}"                                                                                       \
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

#define PLAIN_TEMPLATE                                                                                    \
    "{% for message in messages %}"                                                                       \
    "{% if message['role'] == 'assistant' %}{{ 'Assistant: ' }}"                                          \
    "{% elif message['role'] == 'system' %}{{ 'System: ' }}"                                              \
    "{% elif message['role'] == 'tool' %}{{ 'Tool: ' }}"                                                  \
    "{% else %}{{ 'User: ' }}{% endif %}"                                                                 \
    "{{ message['content'] or '' }}{% if not loop.last or add_generation_prompt %}{{ '\\n' }}{% endif %}" \
    "{% endfor %}"                                                                                        \
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"

struct prompt_maker {
    const struct vocab *vocab;
    const struct vocab_info *info;
    const struct clock_source *clock;
    struct chat_template *chat_template; /* NULL: problem says why */
    struct ph_err problem;
    const char *stop;
    bool keep_developer;
};

/* ---- The maker */

static bool has_token(const struct vocab *vocab, const char *text)
{
    return vocab_find(vocab, text, strlen(text)) >= 0;
}

static bool contains(const char *text, size_t len, const char *word)
{
    size_t word_len = strlen(word);
    for (size_t i = 0; i + word_len <= len; i++)
        if (memcmp(text + i, word, word_len) == 0)
            return true;
    return false;
}

static void choose_template(struct prompt_maker *maker, const struct model_info *model)
{
    const char *source = model->chat_template;
    size_t len = model->chat_template_len;
    if (!source) {
        bool chatml = has_token(maker->vocab, "<|im_start|>") && has_token(maker->vocab, "<|im_end|>");
        source = chatml ? CHATML_TEMPLATE : PLAIN_TEMPLATE;
        len = strlen(source);
        maker->stop = chatml ? NULL : "\nUser:";
        log_info("provider", "%s has no chat template; %s", model->name,
                 chatml ? "its vocabulary is ChatML's, so that form is used" : "the plain form is used");
    }
    maker->keep_developer = contains(source, len, "developer");
    if (chat_template_create(&maker->chat_template, source, len, &maker->problem) != PH_OK)
        log_warn("provider", "%s: its chat template cannot be used (%s); only plain completions will work",
                 model->name, maker->problem.message);
}

enum ph_status prompt_maker_create(struct prompt_maker **out, const struct model *model,
                                   const struct clock_source *clock, struct ph_err *err)
{
    struct prompt_maker *maker = *out = mem_calloc(1, sizeof *maker);
    if (!maker)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    maker->vocab = model_vocab(model);
    maker->info = vocab_info(maker->vocab);
    maker->clock = clock;
    choose_template(maker, model_info(model));
    return PH_OK;
}

void prompt_maker_free(struct prompt_maker *maker)
{
    if (!maker)
        return;
    chat_template_free(maker->chat_template);
    mem_free(maker);
}

const char *prompt_maker_problem(const struct prompt_maker *maker)
{
    return maker->chat_template ? NULL : maker->problem.message;
}

const char *prompt_maker_stop(const struct prompt_maker *maker)
{
    return maker->stop;
}

/* ---- The job: copying in */

static struct json *token_text(struct prompt_job *job, int32_t id)
{
    struct gguf_string text = {"", 0};
    if (id >= 0)
        text = vocab_token_text(job->maker->vocab, id);
    return json_new_string(&job->arena, text.text, text.len);
}

static bool copy_chat(struct prompt_job *job, const struct chat_request *request)
{
    struct arena *arena = &job->arena;
    struct json *vars = job->vars = json_new(arena, JSON_OBJECT);
    bool continues = request->continue_final_message;
    bool prompt = !continues && !request->no_generation_prompt;
    bool ok =
        json_set(arena, vars, "messages",
                 chat_template_messages(arena, request, job->maker->keep_developer)) &&
        json_set(arena, vars, "bos_token", token_text(job, job->maker->info->bos)) &&
        json_set(arena, vars, "eos_token", token_text(job, job->maker->info->eos)) &&
        json_set(arena, vars, "add_generation_prompt", json_new(arena, prompt ? JSON_TRUE : JSON_FALSE));
    if (request->tools)
        ok = ok && json_set(arena, vars, "tools", json_copy(arena, request->tools));
    JSON_EACH (member, request->template_vars) {
        ok = ok && json_set(arena, vars, member->key, json_copy(arena, member));
    }
    for (size_t i = 0; i < request->message_count; i++)
        job->input_bytes += request->messages[i].content.len;
    if (continues && ok) {
        struct chat_text last = request->messages[request->message_count - 1].content;
        job->unfinished =
            (struct chat_text){arena_strndup(arena, last.len ? last.text : "", last.len), last.len};
        ok = job->unfinished.text != NULL;
    }
    return ok;
}

static bool copy_prompts(struct prompt_job *job, const struct chat_request *request)
{
    for (size_t i = 0; i < request->prompt_count; i++) {
        const struct chat_prompt *from = &request->prompts[i];
        struct token_list *to = &job->prompts[i];
        job->input_bytes += from->text.len;
        if (!from->ids) {
            job->texts[i] = (struct chat_text){arena_strndup(&job->arena, from->text.text, from->text.len),
                                               from->text.len};
            if (!job->texts[i].text)
                return false;
            continue;
        }
        to->ids = mem_calloc(from->id_count, sizeof *to->ids);
        if (!to->ids)
            return false;
        if (from->id_count)
            memcpy(to->ids, from->ids, from->id_count * sizeof *to->ids);
        to->len = to->cap = from->id_count;
    }
    return true;
}

struct prompt_job *prompt_job_new(const struct prompt_maker *maker, const struct chat_request *request)
{
    bool chat = request->kind == CHAT_KIND_CHAT;
    struct prompt_job *job = mem_calloc(1, sizeof *job);
    if (!job)
        return NULL;
    job->maker = maker;
    arena_init(&job->arena, HTTP_REQUEST_ARENA_BYTES_MAX);
    job->prompt_count = chat ? 1 : request->prompt_count;
    job->texts = arena_calloc(&job->arena, job->prompt_count, sizeof *job->texts);
    job->prompts = arena_calloc(&job->arena, job->prompt_count, sizeof *job->prompts);
    if (job->texts && job->prompts && (chat ? copy_chat(job, request) : copy_prompts(job, request)))
        return job;
    prompt_job_free(job);
    return NULL;
}

void prompt_job_free(struct prompt_job *job)
{
    if (!job)
        return;
    for (size_t i = 0; job->prompts && i < job->prompt_count; i++)
        token_list_release(&job->prompts[i]);
    arena_release(&job->arena);
    mem_free(job);
}

/* ---- The job: running */

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* Cuts the rendered text after the message that is to go on: whatever the template puts behind it (an end of
 * turn) would tell the model to stop. Templates trim, so the search is for the trimmed text. */
static enum ph_status cut_after_unfinished(struct prompt_job *job, struct buf *out)
{
    const char *word = job->unfinished.text;
    size_t len = job->unfinished.len;
    while (len && is_space(word[len - 1]))
        len--;
    while (len && is_space(word[0]))
        word++, len--;
    for (size_t at = out->len >= len ? out->len - len + 1 : 0; at-- > 0;)
        if (len && memcmp(out->data + at, word, len) == 0) {
            out->len = at + len;
            out->data[out->len] = 0;
            return PH_OK;
        }
    chat_fault_set(&job->fault, 400, NULL, "continue_final_message",
                   "the model's chat template does not show the last message, so it cannot be continued");
    job->fault.cause = CHAT_CAUSE_UNABLE;
    return PH_ERR_ARG;
}

enum ph_status prompt_job_render(struct prompt_job *job, struct buf *out)
{
    struct ph_err err;
    const struct prompt_maker *maker = job->maker;
    if (!maker->chat_template) {
        chat_fault_set(&job->fault, 501, "chat_template_unusable", "model",
                       "the model's chat template cannot be used: %s", maker->problem.message);
        return PH_ERR_UNSUPPORTED;
    }
    enum ph_status status = chat_template_render(maker->chat_template, job->vars, maker->clock, out, &err);
    if (status == PH_ERR_NOMEM)
        chat_fault_set(&job->fault, 503, NULL, NULL, "out of memory while rendering the chat template");
    else if (status != PH_OK)
        chat_fault_set(&job->fault, 400, NULL, "messages", "the model's chat template refuses: %s",
                       err.message);
    if (status != PH_OK && status != PH_ERR_NOMEM)
        job->fault.cause = CHAT_CAUSE_UNABLE; /* another model's may take it */
    if (status == PH_OK && job->unfinished.text)
        status = cut_after_unfinished(job, out);
    return status;
}

static enum ph_status tokens_failed(struct prompt_job *job, enum ph_status status, const char *message)
{
    chat_fault_set(&job->fault, status == PH_ERR_NOMEM ? 503 : 400, NULL, NULL, "%s", message);
    return status;
}

static enum ph_status add_beginning(struct prompt_job *job, struct token_list *list)
{
    const struct vocab_info *info = job->maker->info;
    if (!info->add_bos || info->bos < 0 || (list->len && list->ids[0] == info->bos))
        return PH_OK;
    if (list->len == list->cap) {
        int32_t *ids = mem_realloc(list->ids, list->len + 1, sizeof *ids);
        if (!ids)
            return tokens_failed(job, PH_ERR_NOMEM, "out of memory");
        list->ids = ids;
        list->cap = list->len + 1;
    }
    memmove(list->ids + 1, list->ids, list->len * sizeof *list->ids);
    list->ids[0] = info->bos;
    list->len++;
    return PH_OK;
}

static enum ph_status tokenize(struct prompt_job *job, struct chat_text text, struct token_list *list)
{
    struct ph_err err;
    enum ph_status status = vocab_tokenize(job->maker->vocab, text.text, text.len, false, true, list, &err);
    if (status != PH_OK)
        return tokens_failed(job, status, err.message);
    return add_beginning(job, list);
}

static enum ph_status run_chat(struct prompt_job *job)
{
    struct buf text;
    buf_init(&text, CHAT_PROMPT_BYTES_MAX);
    enum ph_status status = prompt_job_render(job, &text);
    if (status == PH_OK)
        status = tokenize(job, (struct chat_text){text.len ? text.data : "", text.len}, &job->prompts[0]);
    buf_release(&text);
    return status;
}

void prompt_job_run(struct prompt_job *job)
{
    job->status = PH_OK;
    if (job->vars) {
        job->status = run_chat(job);
        return;
    }
    for (size_t i = 0; i < job->prompt_count && job->status == PH_OK; i++)
        if (job->texts[i].text)
            job->status = tokenize(job, job->texts[i], &job->prompts[i]);
}

/* ---- What a model that reads text cannot be given */

static bool is_readable(const struct chat_part *part)
{
    return part->kind == CHAT_PART_TEXT || part->kind == CHAT_PART_REASONING;
}

static enum ph_status refuse_part(const struct chat_request *request, size_t message, size_t part,
                                  struct chat_fault *fault)
{
    static const char *const kinds[] = {[CHAT_PART_IMAGE] = "image",
                                        [CHAT_PART_AUDIO] = "audio",
                                        [CHAT_PART_FILE] = "file",
                                        [CHAT_PART_OTHER] = "unknown"};
    const struct chat_part *it = &request->messages[message].parts[part];
    char param[80];
    snprintf(param, sizeof param, "messages[%zu].content[%zu].type", message, part);
    chat_fault_set(fault, 400, "unsupported_content", arena_strdup(request->arena, param),
                   "messages[%zu].content[%zu] is of type \"%.40s\"; this model reads text only", message,
                   part, json_text(json_get(it->raw, "type"), kinds[it->kind]));
    fault->cause = CHAT_CAUSE_UNABLE;
    return PH_ERR_UNSUPPORTED;
}

static enum ph_status check_tools(const struct chat_request *request, struct chat_fault *fault)
{
    size_t index = 0;
    JSON_EACH (tool, request->tools) {
        const char *type = json_text(json_get(tool, "type"), "function");
        char param[40];
        snprintf(param, sizeof param, "tools[%zu].type", index);
        if (strcmp(type, "function") != 0) {
            chat_fault_set(fault, 400, "unsupported_parameter", arena_strdup(request->arena, param),
                           "tools[%zu].type is \"%.40s\"; this model takes function tools only", index, type);
            fault->cause = CHAT_CAUSE_UNABLE;
            return PH_ERR_UNSUPPORTED;
        }
        index++;
    }
    return PH_OK;
}

enum ph_status prompt_check(const struct chat_request *request, struct chat_fault *fault)
{
    for (size_t m = 0; m < request->message_count; m++)
        for (size_t p = 0; p < request->messages[m].part_count; p++)
            if (!is_readable(&request->messages[m].parts[p]))
                return refuse_part(request, m, p, fault);
    return check_tools(request, fault);
}
