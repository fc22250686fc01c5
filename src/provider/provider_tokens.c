/* Counting tokens where no tokenizer is at hand: of prompts, before a provider is asked; of what it wrote,
 * when it did not say.
 *
 * Prompts. A fixed rule gives every text a weight that is near its tokens in common vocabularies: four bytes
 * of ASCII to a token, two bytes of anything else (a Chinese character is three bytes and about a token and a
 * half at worst). Each reply that reports its prompt's tokens then teaches how this model differs from the
 * rule. An estimate is for reserving money and choosing a context that fits, so it leans upwards: the mean
 * and twice the usual distance from it. Media are counted by constants and teach nothing.
 *
 * Replies. Most engines send a token a delta, so a short delta weighs one; a long one cannot be a single
 * token and is weighed as text. Usage, where it comes, teaches the ratio; with an engine that does send a
 * token a delta it is exactly 1, and the count is exact. */
#include <math.h>
#include <string.h>

#include "provider/provider_int.h"

#define RATIO_SAMPLES_MAX 64     /* the length of the running average */
#define RATIO_TRUST_SAMPLES 4    /* before that, an estimate leans on the rule too */
#define RATIO_RULE_UPPER 1.25    /* above the rule while nothing is known */
#define RATIO_MARGIN 1.02        /* above everything, always */
#define DELTA_TOKEN_BYTES_MAX 24 /* a delta longer than this is more than a token */

#define MESSAGE_TOKENS 4 /* what templates put around a message */
#define REPLY_TOKENS 3   /* and before the reply */

/* Upper figures of the providers' own tables: a large picture (OpenAI's high detail and Anthropic's limit
 * are below), a page of a document for each so many bytes of base64, sound at 32 tokens a second of a low
 * bit rate. */
#define IMAGE_TOKENS 1600
#define FILE_TOKENS 1600
#define FILE_BYTES_PER_TOKEN 32
#define AUDIO_BYTES_PER_TOKEN 64

/* ---- Ratios */

void token_ratio_learn(struct token_ratio *ratio, double weight, double tokens)
{
    if (!(weight > 0) || !(tokens > 0))
        return;
    double sample = tokens / weight;
    if (ratio->samples < RATIO_SAMPLES_MAX)
        ratio->samples++;
    if (ratio->samples == 1)
        ratio->mean = sample;
    double share = 1.0 / ratio->samples;
    ratio->spread += (fabs(sample - ratio->mean) - ratio->spread) * share;
    ratio->mean += (sample - ratio->mean) * share;
}

double token_ratio_mean(const struct token_ratio *ratio)
{
    return ratio->samples ? ratio->mean : 1;
}

double token_ratio_upper(const struct token_ratio *ratio)
{
    if (ratio->samples == 0)
        return RATIO_RULE_UPPER;
    double upper = ratio->mean * RATIO_MARGIN + 2 * ratio->spread;
    if (ratio->samples < RATIO_TRUST_SAMPLES && upper < RATIO_RULE_UPPER)
        return RATIO_RULE_UPPER;
    return upper;
}

/* ---- Weights */

/* Eight bytes a step: prompts are long, and each is weighed more than once. */
static size_t count_not_ascii(const char *text, size_t len)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    size_t count = 0, i = 0;
    for (uint64_t word; len - i >= sizeof word; i += sizeof word) {
        memcpy(&word, text + i, sizeof word);
        count += (((word >> 7) & ones) * ones) >> 56;
    }
    for (; i < len; i++)
        count += (unsigned char)text[i] >> 7;
    return count;
}

double token_weight_text(const char *text, size_t len)
{
    size_t other = count_not_ascii(text, len);
    return (double)(len - other) / 4 + (double)other / 2;
}

double token_weight_json(const struct json *value)
{
    double weight = 0.5; /* commas, brackets, quotes */
    if (!value)
        return 0;
    if (value->key)
        weight += token_weight_text(value->key, value->key_len) + 0.5;
    if (value->type == JSON_STRING || value->type == JSON_NUMBER)
        return weight + token_weight_text(value->u.str.text, value->u.str.len);
    JSON_EACH (item, value) {
        weight += token_weight_json(item);
    }
    return weight + (value->type <= JSON_TRUE ? 0.5 : 0);
}

static double weigh_chat_text(struct chat_text text)
{
    return text.text ? token_weight_text(text.text, text.len) : 0;
}

static void weigh_part(struct prompt_weight *sum, const struct chat_part *part)
{
    switch (part->kind) {
    case CHAT_PART_TEXT: /* in the message's content */
        break;
    case CHAT_PART_REASONING:
        sum->text += weigh_chat_text(part->text);
        break;
    case CHAT_PART_IMAGE:
        sum->media += IMAGE_TOKENS;
        break;
    case CHAT_PART_AUDIO:
        sum->media += part->data.len / AUDIO_BYTES_PER_TOKEN;
        break;
    case CHAT_PART_FILE:
        sum->media += FILE_TOKENS + part->data.len / FILE_BYTES_PER_TOKEN;
        break;
    case CHAT_PART_OTHER:
        sum->text += token_weight_json(part->raw);
        break;
    }
}

static void weigh_message(struct prompt_weight *sum, const struct chat_message *message)
{
    sum->text += MESSAGE_TOKENS + weigh_chat_text(message->content);
    for (size_t i = 0; i < message->part_count; i++)
        weigh_part(sum, &message->parts[i]);
    for (size_t i = 0; i < message->tool_call_count; i++)
        sum->text += MESSAGE_TOKENS + weigh_chat_text(message->tool_calls[i].arguments);
}

struct prompt_weight prompt_weigh(const struct chat_request *request)
{
    struct prompt_weight sum = {0};
    for (size_t i = 0; request->kind == CHAT_KIND_CHAT && i < request->message_count; i++)
        weigh_message(&sum, &request->messages[i]);
    for (size_t i = 0; request->kind == CHAT_KIND_COMPLETION && i < request->prompt_count; i++) {
        const struct chat_prompt *prompt = &request->prompts[i];
        sum.known += prompt->ids ? prompt->id_count : 0;
        sum.text += prompt->ids ? 0 : 1 + weigh_chat_text(prompt->text);
    }
    sum.text += weigh_chat_text(request->suffix) + token_weight_json(request->tools) +
                token_weight_json(request->response_format);
    if (request->kind == CHAT_KIND_CHAT)
        sum.text += REPLY_TOKENS;
    return sum;
}

size_t prompt_estimate(const struct prompt_weight *weight, const struct token_ratio *ratio)
{
    return weight->known + weight->media + (size_t)ceil(weight->text * token_ratio_upper(ratio));
}

size_t prompt_guess(const struct prompt_weight *weight, const struct token_ratio *ratio)
{
    double factor = ratio->samples ? ratio->mean : token_ratio_upper(ratio);
    return weight->known + weight->media + (size_t)ceil(weight->text * factor);
}

/* ---- Deltas */

static double delta_weight(size_t bytes)
{
    if (bytes == 0)
        return 0;
    return bytes <= DELTA_TOKEN_BYTES_MAX ? 1 : ceil((double)bytes / 4);
}

/* The sum is what is kept, in fractions; each delta gets the whole tokens by which the sum has passed. */
size_t delta_count_add(struct delta_count *count, const struct token_ratio *ratio, size_t bytes, size_t known)
{
    double before = floor(count->tokens + 0.5), weight = delta_weight(bytes);
    count->deltas += bytes > 0 || known > 0;
    count->weight += weight;
    count->tokens += known ? (double)known : weight * token_ratio_mean(ratio);
    return (size_t)(floor(count->tokens + 0.5) - before);
}
