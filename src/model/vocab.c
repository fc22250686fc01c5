/* Loading a vocabulary.
 *
 * Token and merge texts stay where they are, in the file's map; beside it there are offsets (4 bytes a text),
 * attributes (1 byte a token) and two flat hash tables. That opens 150,000 tokens in a few tens of
 * milliseconds and costs some 5 MB. Scores are read in place.
 *
 * GGUF files say little about special tokens, so llama.cpp knows many by their text; the table `known_texts`
 * holds that knowledge. Where several texts claim one role, the first of the table that exists has it.
 *
 * Invariants: V1 every id handed out is in [0, n_tokens). V2 no token's text is longer than
 * VOCAB_TOKEN_BYTES_MAX. Ownership: everything beside the map is in the vocabulary's arena. */
#include <float.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "model/hash_int.h"
#include "model/vocab_int.h"

#define KEY(name) "tokenizer.ggml." name

struct loader {
    struct vocab *vocab;
    const struct gguf *gguf;
    struct ph_err *err;
    struct buf apart; /* texts of tokens that have none in the file */
};

/* ---- Text tables */

static uint64_t text_length(const uint8_t *at)
{
    uint64_t len = 0;
    for (int i = 0; i < 8; i++)
        len |= (uint64_t)at[i] << (8 * i);
    return len;
}

struct gguf_string text_table_at(const struct text_table *table, size_t index)
{
    uint32_t offset = table->offset[index];
    const uint8_t *at = offset & TEXT_APART ? table->apart + (offset & ~TEXT_APART) : table->data + offset;
    return (struct gguf_string){(const char *)at + 8, (size_t)text_length(at)};
}

static uint32_t slot_tag(uint64_t hash)
{
    return (uint32_t)(hash >> (32 + TEXT_INDEX_BITS)) << TEXT_INDEX_BITS;
}

static size_t slot_index(uint32_t slot)
{
    return (slot & ((1u << TEXT_INDEX_BITS) - 1)) - 1;
}

static bool is_slot_for(uint32_t slot, uint32_t tag)
{
    return (slot & ~((1u << TEXT_INDEX_BITS) - 1)) == tag;
}

/* The slot of the text, or the empty one where it belongs. */
static uint32_t *token_slot(const struct text_table *table, const char *text, size_t len)
{
    uint64_t hash = hash_bytes(text, len);
    uint32_t tag = slot_tag(hash);
    for (size_t at = (size_t)hash & table->mask;; at = (at + 1) & table->mask) {
        uint32_t *slot = &table->slots[at];
        if (*slot == 0)
            return slot;
        if (!is_slot_for(*slot, tag))
            continue;
        struct gguf_string other = text_table_at(table, slot_index(*slot));
        if (other.len == len && memcmp(other.text, text, len) == 0)
            return slot;
    }
}

static uint32_t *merge_slot(const struct text_table *table, const char *left, size_t left_len,
                            const char *right, size_t right_len, uint32_t *tag)
{
    uint64_t hash = hash_mix(hash_mix(hash_bytes(left, left_len), left_len), hash_bytes(right, right_len));
    *tag = slot_tag(hash);
    for (size_t at = (size_t)hash & table->mask;; at = (at + 1) & table->mask) {
        uint32_t *slot = &table->slots[at];
        if (*slot == 0)
            return slot;
        if (!is_slot_for(*slot, *tag))
            continue;
        struct gguf_string other = text_table_at(table, slot_index(*slot));
        if (other.len == left_len + 1 + right_len && other.text[left_len] == ' ' &&
            memcmp(other.text, left, left_len) == 0 &&
            memcmp(other.text + left_len + 1, right, right_len) == 0)
            return slot;
    }
}

int32_t vocab_lookup(const struct vocab *vocab, const char *text, size_t len)
{
    if (len == 0 || len > vocab->token_len_max)
        return -1;
    uint32_t slot = *token_slot(&vocab->tokens, text, len);
    return slot ? (int32_t)slot_index(slot) : -1;
}

int32_t vocab_merge_rank(const struct vocab *vocab, const char *left, size_t left_len, const char *right,
                         size_t right_len)
{
    uint32_t tag;
    if (left_len > VOCAB_TOKEN_BYTES_MAX || right_len > VOCAB_TOKEN_BYTES_MAX || !vocab->merges.slots)
        return -1;
    uint32_t slot = *merge_slot(&vocab->merges, left, left_len, right, right_len, &tag);
    return slot ? (int32_t)slot_index(slot) : -1;
}

/* Finds a string array and makes room for a table of it. `len_max`: of one text. */
static enum ph_status table_init(struct loader *l, struct text_table *table, const char *key,
                                 size_t count_max)
{
    struct gguf_array array;
    if (!gguf_get_array(l->gguf, key, &array) || array.type != GGUF_STRING)
        return ph_fail(l->err, PH_ERR_FORMAT,
                       "%s: key '%s' is missing or no array of strings; convert the model again",
                       gguf_path(l->gguf), key);
    if (array.count > count_max || array.data_bytes >= TEXT_APART)
        return ph_fail(l->err, PH_ERR_LIMIT, "%s: key '%s' has %" PRIu64 " texts; at most %zu are read",
                       gguf_path(l->gguf), key, array.count, count_max);
    size_t slots = 8;
    while (slots * 3 < (size_t)array.count * 4)
        slots *= 2;
    table->data = array.data;
    table->count = (size_t)array.count;
    table->mask = slots - 1;
    table->offset = arena_alloc(&l->vocab->arena, table->count * sizeof *table->offset);
    table->slots = arena_calloc(&l->vocab->arena, slots, sizeof *table->slots);
    if (!table->offset || !table->slots)
        return ph_fail(l->err, PH_ERR_NOMEM, "%s: out of memory for %zu texts", gguf_path(l->gguf),
                       table->count);
    uint64_t cursor = 0;
    struct gguf_string text;
    for (size_t i = 0; i < table->count; i++) {
        table->offset[i] = (uint32_t)cursor;
        gguf_array_string(&array, &cursor, &text);
        if (text.len > 2 * VOCAB_TOKEN_BYTES_MAX + 1)
            return ph_fail(l->err, PH_ERR_LIMIT, "%s: key '%s': text %zu has %zu bytes, too many",
                           gguf_path(l->gguf), key, i, text.len);
    }
    return PH_OK;
}

/* A token without text gets the name "[EMPTY_<id>]", which no text of a user is likely to spell. */
static void name_empty_token(struct loader *l, size_t id)
{
    char name[8 + 32] = {0};
    int len = snprintf(name + 8, sizeof name - 8, "[EMPTY_%zu]", id);
    name[0] = (char)len;
    l->vocab->tokens.offset[id] = TEXT_APART | (uint32_t)l->apart.len;
    buf_append(&l->apart, name, 8 + (size_t)len);
    l->vocab->tokens.apart = (const uint8_t *)l->apart.data;
}

static enum ph_status load_tokens(struct loader *l)
{
    struct vocab *vocab = l->vocab;
    struct text_table *table = &vocab->tokens;
    enum ph_status status = table_init(l, table, KEY("tokens"), VOCAB_TOKENS_MAX);
    if (status != PH_OK)
        return status;
    if (table->count == 0)
        return ph_fail(l->err, PH_ERR_FORMAT, "%s: key '%s' has no tokens", gguf_path(l->gguf),
                       KEY("tokens"));
    vocab->info.n_tokens = table->count;
    for (size_t id = 0; id < table->count; id++)
        if (text_table_at(table, id).len == 0)
            name_empty_token(l, id);
    if (buf_status(&l->apart) != PH_OK)
        return ph_fail(l->err, buf_status(&l->apart), "%s: no room for the names of empty tokens",
                       gguf_path(l->gguf));
    for (size_t id = 0; id < table->count; id++) {
        struct gguf_string text = text_table_at(table, id);
        if (text.len > VOCAB_TOKEN_BYTES_MAX)
            return ph_fail(l->err, PH_ERR_LIMIT, "%s: token %zu has %zu bytes; at most %d are allowed",
                           gguf_path(l->gguf), id, text.len, VOCAB_TOKEN_BYTES_MAX);
        if (text.len > vocab->token_len_max)
            vocab->token_len_max = text.len;
        *token_slot(table, text.text, text.len) =
            slot_tag(hash_bytes(text.text, text.len)) | (uint32_t)(id + 1);
    }
    return PH_OK;
}

static enum ph_status load_merges(struct loader *l)
{
    struct text_table *table = &l->vocab->merges;
    enum ph_status status = table_init(l, table, KEY("merges"), (1u << TEXT_INDEX_BITS) - 2);
    if (status != PH_OK)
        return status;
    for (size_t rank = 0; rank < table->count; rank++) {
        struct gguf_string text = text_table_at(table, rank);
        const char *blank = text.len > 1 ? memchr(text.text + 1, ' ', text.len - 1) : NULL;
        uint32_t tag;
        if (!blank)
            continue;
        size_t left_len = (size_t)(blank - text.text);
        uint32_t *slot = merge_slot(table, text.text, left_len, blank + 1, text.len - left_len - 1, &tag);
        if (*slot == 0)
            *slot = tag | (uint32_t)(rank + 1);
    }
    return PH_OK;
}

/* ---- Attributes */

static enum ph_status load_attributes(struct loader *l)
{
    static const uint8_t attr_of_type[] = {0, TOKEN_NORMAL, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER,
                                           0, TOKEN_BYTE};
    struct vocab *vocab = l->vocab;
    size_t count = vocab->info.n_tokens;
    struct gguf_array types;
    vocab->attr = arena_alloc(&vocab->arena, count);
    if (!vocab->attr)
        return ph_fail(l->err, PH_ERR_NOMEM, "%s: out of memory for %zu tokens", gguf_path(l->gguf), count);
    memset(vocab->attr, TOKEN_NORMAL, count);
    if (gguf_get_array(l->gguf, KEY("token_type"), &types)) {
        if (types.type == GGUF_STRING || types.count < count)
            return ph_fail(l->err, PH_ERR_FORMAT, "%s: key '%s' must hold a number for each of %zu tokens",
                           gguf_path(l->gguf), KEY("token_type"), count);
        for (size_t id = 0; id < count; id++) {
            double type = gguf_array_number(&types, id);
            vocab->attr[id] =
                type >= 0 && type < (double)sizeof attr_of_type ? attr_of_type[(size_t)type] : 0;
        }
    }
    if (!gguf_get_array(l->gguf, KEY("scores"), &vocab->scores)) {
        vocab->scores = (struct gguf_array){.count = 0};
    } else if ((vocab->scores.type != GGUF_FLOAT32 && vocab->scores.type != GGUF_INT32) ||
               vocab->scores.count < count) {
        return ph_fail(l->err, PH_ERR_FORMAT, "%s: key '%s' must hold a float for each of %zu tokens",
                       gguf_path(l->gguf), KEY("scores"), count);
    }
    return PH_OK;
}

float vocab_score(const struct vocab *vocab, int32_t id)
{
    return vocab->scores.count ? (float)gguf_array_number(&vocab->scores, (uint64_t)id) : 0.0f;
}

/* ---- Special tokens */

enum role {
    ROLE_NONE,
    ROLE_EOT,
    ROLE_EOM,
    ROLE_FIM_PREFIX,
    ROLE_FIM_SUFFIX,
    ROLE_FIM_MIDDLE,
    ROLE_FIM_PAD,
    ROLE_FIM_REPOSITORY,
    ROLE_FIM_SEPARATOR,
    ROLE_COUNT
};

/* Keys that name a role's token; of two keys for one role the later wins. */
static const struct {
    const char *key;
    enum role role;
} role_keys[] = {
    {KEY("eot_token_id"), ROLE_EOT},
    {KEY("eom_token_id"), ROLE_EOM},
    {KEY("fim_pre_token_id"), ROLE_FIM_PREFIX},
    {KEY("fim_suf_token_id"), ROLE_FIM_SUFFIX},
    {KEY("fim_mid_token_id"), ROLE_FIM_MIDDLE},
    {KEY("fim_pad_token_id"), ROLE_FIM_PAD},
    {KEY("fim_rep_token_id"), ROLE_FIM_REPOSITORY},
    {KEY("fim_sep_token_id"), ROLE_FIM_SEPARATOR},
    {KEY("prefix_token_id"), ROLE_FIM_PREFIX},
    {KEY("suffix_token_id"), ROLE_FIM_SUFFIX},
    {KEY("middle_token_id"), ROLE_FIM_MIDDLE},
};

/* Texts with a meaning: the role they take when no key names its token, and whether generation ends there. */
static const struct {
    const char *text;
    enum role role;
    bool ends;
} known_texts[] = {
    {"<|eot_id|>", ROLE_EOT, true},
    {"<|im_end|>", ROLE_EOT, true},
    {"<|end|>", ROLE_EOT, true},
    {"<end_of_turn>", ROLE_EOT, true},
    {"<|endoftext|>", ROLE_EOT, true},
    {"<|end_of_text|>", ROLE_EOT, true},
    {"<EOT>", ROLE_EOT, true},
    {"_<EOT>", ROLE_EOT, true},
    {"[EOT]", ROLE_EOT, true},
    {"<｜end▁of▁sentence｜>", ROLE_EOT, true},
    {"<end_of_utterance>", ROLE_EOT, true},
    {"<|eom_id|>", ROLE_EOM, true},
    {"<|return|>", ROLE_NONE, true},
    {"<|call|>", ROLE_NONE, true},
    {"<|flush|>", ROLE_NONE, true},
    {"<|calls|>", ROLE_NONE, true},
    {"</s>", ROLE_NONE, true},
    {"[EOS]", ROLE_NONE, true},
    {"<eos>", ROLE_NONE, true},
    {"<turn|>", ROLE_NONE, true},
    {"<|tool_response>", ROLE_NONE, true},
    {"[e~[", ROLE_NONE, true},
    {"<|fim_prefix|>", ROLE_FIM_PREFIX, false},
    {"<fim-prefix>", ROLE_FIM_PREFIX, false},
    {"<fim_prefix>", ROLE_FIM_PREFIX, false},
    {"<｜fim▁begin｜>", ROLE_FIM_PREFIX, false},
    {"<PRE>", ROLE_FIM_PREFIX, false},
    {"▁<PRE>", ROLE_FIM_PREFIX, false},
    {"<|code_prefix|>", ROLE_FIM_PREFIX, false},
    {"<|prefix|>", ROLE_FIM_PREFIX, false},
    {"<|fim_suffix|>", ROLE_FIM_SUFFIX, false},
    {"<fim-suffix>", ROLE_FIM_SUFFIX, false},
    {"<fim_suffix>", ROLE_FIM_SUFFIX, false},
    {"<｜fim▁hole｜>", ROLE_FIM_SUFFIX, false},
    {"<SUF>", ROLE_FIM_SUFFIX, false},
    {"▁<SUF>", ROLE_FIM_SUFFIX, false},
    {"<|code_suffix|>", ROLE_FIM_SUFFIX, false},
    {"<|suffix|>", ROLE_FIM_SUFFIX, false},
    {"<|fim_middle|>", ROLE_FIM_MIDDLE, false},
    {"<fim-middle>", ROLE_FIM_MIDDLE, false},
    {"<fim_middle>", ROLE_FIM_MIDDLE, false},
    {"<｜fim▁end｜>", ROLE_FIM_MIDDLE, false},
    {"<MID>", ROLE_FIM_MIDDLE, false},
    {"▁<MID>", ROLE_FIM_MIDDLE, false},
    {"<|code_middle|>", ROLE_FIM_MIDDLE, false},
    {"<|middle|>", ROLE_FIM_MIDDLE, false},
    {"<|fim_pad|>", ROLE_FIM_PAD, false},
    {"<fim-pad>", ROLE_FIM_PAD, false},
    {"<fim_pad>", ROLE_FIM_PAD, false},
    {"<PAD>", ROLE_FIM_PAD, false},
    {"[PAD]", ROLE_FIM_PAD, false},
    {"<|fim_repo|>", ROLE_FIM_REPOSITORY, false},
    {"<|repo_name|>", ROLE_FIM_REPOSITORY, false},
    {"<fim-repo>", ROLE_FIM_REPOSITORY, false},
    {"<REPO>", ROLE_FIM_REPOSITORY, false},
    {"<reponame>", ROLE_FIM_REPOSITORY, false},
    {"<|file_sep|>", ROLE_FIM_SEPARATOR, false},
};

static int32_t find_text(const struct vocab *vocab, const char *text)
{
    return vocab_lookup(vocab, text, strlen(text));
}

/* Reads a token id; one out of range is as good as absent. */
static void load_id(const struct loader *l, const char *key, int32_t *id)
{
    uint64_t value;
    if (*id >= 0 && (size_t)*id >= l->vocab->info.n_tokens)
        *id = -1;
    if (gguf_get_uint(l->gguf, key, &value) && value < l->vocab->info.n_tokens)
        *id = (int32_t)value;
}

static void mark(struct vocab *vocab, int32_t id, uint8_t attr)
{
    if (id >= 0)
        vocab->attr[id] |= attr;
}

static bool ends(const struct vocab *vocab, const char *text)
{
    int32_t id = find_text(vocab, text);
    return id >= 0 && (vocab->attr[id] & TOKEN_END);
}

static void set_attr(struct vocab *vocab, const char *text, uint8_t attr)
{
    int32_t id = find_text(vocab, text);
    if (id >= 0)
        vocab->attr[id] = attr;
}

static void find_end_tokens(struct loader *l)
{
    static const char *const shown[] = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"};
    struct vocab *vocab = l->vocab;
    int32_t roles[ROLE_COUNT];
    memset(roles, 0xff, sizeof roles);
    for (size_t i = 0; i < sizeof role_keys / sizeof *role_keys; i++)
        load_id(l, role_keys[i].key, &roles[role_keys[i].role]);
    for (size_t i = 0; i < sizeof known_texts / sizeof *known_texts; i++) {
        int32_t id = find_text(vocab, known_texts[i].text);
        if (id < 0)
            continue;
        bool takes = known_texts[i].role != ROLE_NONE && roles[known_texts[i].role] < 0;
        if (takes)
            roles[known_texts[i].role] = id;
        if (takes || known_texts[i].ends)
            mark(vocab, id, TOKEN_CONTROL);
        if (known_texts[i].ends)
            mark(vocab, id, TOKEN_END);
    }
    /* gpt-oss: its channel marks are part of what is read */
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++)
        set_attr(vocab, shown[i], TOKEN_USER);
    mark(vocab, vocab->info.eos, TOKEN_END);
    mark(vocab, roles[ROLE_EOT], TOKEN_END);
    mark(vocab, roles[ROLE_EOM], TOKEN_END);
    mark(vocab, roles[ROLE_FIM_PAD], TOKEN_END);
    mark(vocab, roles[ROLE_FIM_REPOSITORY], TOKEN_END);
    mark(vocab, roles[ROLE_FIM_SEPARATOR], TOKEN_END);
    /* Harmony-like formats end messages, not the turn, with <|end|>; Gemma 4's </s> is plain text. */
    if (ends(vocab, "<|end|>") && (ends(vocab, "<|call|>") || ends(vocab, "<|calls|>")) &&
        (ends(vocab, "<|return|>") || ends(vocab, "<|flush|>")))
        set_attr(vocab, "<|end|>", TOKEN_USER);
    if (ends(vocab, "</s>") && (ends(vocab, "<|tool_response>") || ends(vocab, "<|plamo:eos|>")))
        set_attr(vocab, "</s>", TOKEN_NORMAL);
}

static bool key_contains(const struct gguf *gguf, const char *key, const char *const *parts)
{
    struct gguf_string text;
    if (!gguf_get_string(gguf, key, &text))
        return false;
    for (; *parts; parts++) {
        size_t len = strlen(*parts), i = 0;
        for (size_t at = 0; at + len <= text.len; at++) {
            for (i = 0; i < len; i++) {
                char c = text.text[at + i];
                if ((c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c) != (*parts)[i])
                    break;
            }
            if (i == len)
                return true;
        }
    }
    return false;
}

/* Tokens that swallow the spaces around them. Files don't say so; it is known of these models. */
static void find_stripping_tokens(struct loader *l)
{
    static const char *const jina[] = {"jina-v2-de", "jina-v2-es", "jina-v2-code", NULL};
    static const char *const moe[] = {"nomic-bert-moe", "jina-bert-v3", NULL};
    static const char *const phi3[] = {"phi-3", "phi3", NULL};
    static const char *const modern[] = {"modern-bert", NULL};
    static const char *const keeps[] = {"<unk>", "<s>", "<|endoftext|>"};
    struct vocab *vocab = l->vocab;
    if (key_contains(l->gguf, KEY("pre"), jina) || key_contains(l->gguf, "general.architecture", moe)) {
        mark(vocab, find_text(vocab, "<mask>"), TOKEN_LSTRIP);
    } else if (key_contains(l->gguf, "general.name", phi3)) {
        for (size_t id = 0; id < vocab->info.n_tokens; id++)
            if (vocab->attr[id] & TOKEN_SPECIAL)
                vocab->attr[id] |= TOKEN_RSTRIP;
        mark(vocab, find_text(vocab, "</s>"), TOKEN_RSTRIP);
        for (size_t i = 0; i < sizeof keeps / sizeof *keeps; i++) {
            int32_t id = find_text(vocab, keeps[i]);
            if (id >= 0)
                vocab->attr[id] &= (uint8_t)~TOKEN_RSTRIP;
        }
    } else if (key_contains(l->gguf, "general.name", modern)) {
        mark(vocab, find_text(vocab, "[MASK]"), TOKEN_LSTRIP);
    }
}

/* ---- Sets of special tokens */

static void add_special_text(struct special_set *set, uint8_t *seen, struct gguf_string text)
{
    unsigned first = (unsigned char)text.text[0], second = text.len > 1 ? (unsigned char)text.text[1] : 0;
    seen[text.len / 8] |= (uint8_t)(1u << (text.len % 8));
    if (text.len > 1)
        set->pairs[(first << 8 | second) / 8] |= (uint8_t)(1u << (second % 8));
    else
        memset(&set->pairs[(first << 8) / 8], 0xff, 256 / 8);
}

static enum ph_status build_special_set(struct loader *l, struct special_set *set, uint8_t attr)
{
    struct vocab *vocab = l->vocab;
    uint8_t seen[VOCAB_TOKEN_BYTES_MAX / 8 + 1] = {0};
    set->pairs = arena_calloc(&vocab->arena, (1 << 16) / 8, 1);
    if (!set->pairs)
        return ph_fail(l->err, PH_ERR_NOMEM, "%s: out of memory", gguf_path(l->gguf));
    for (size_t id = 0; id < vocab->info.n_tokens; id++)
        if (vocab->attr[id] & attr)
            add_special_text(set, seen, text_table_at(&vocab->tokens, id));
    for (size_t len = 1; len <= VOCAB_TOKEN_BYTES_MAX; len++)
        set->length_count += seen[len / 8] >> (len % 8) & 1;
    set->lengths = arena_alloc(&vocab->arena, set->length_count * sizeof *set->lengths);
    if (!set->lengths)
        return ph_fail(l->err, PH_ERR_NOMEM, "%s: out of memory", gguf_path(l->gguf));
    size_t at = 0;
    for (size_t len = VOCAB_TOKEN_BYTES_MAX; len > 0; len--)
        if (seen[len / 8] >> (len % 8) & 1)
            set->lengths[at++] = (uint16_t)len;
    return PH_OK;
}

/* ---- Kinds */

/* tokenizer.ggml.model, and what such a vocabulary assumes where the file is silent. */
static const struct vocab_model {
    const char *name;
    enum vocab_kind kind;
    int32_t bos, eos, unk, sep;
    const char *pre; /* instead of the file's */
} vocab_models[] = {
    {"llama", VOCAB_SPM, 1, 2, 0, -1, NULL},         {"gpt2", VOCAB_BPE, 11, 11, -1, -1, NULL},
    {"gemma4", VOCAB_BPE, -1, -1, -1, -1, "gemma4"}, {"bert", VOCAB_WPM, 101, -1, 100, 102, NULL},
    {"t5", VOCAB_UGM, -1, 1, 2, -1, NULL},
};

static enum ph_status find_model(struct loader *l, const struct vocab_model **out)
{
    struct gguf_string name;
    if (!gguf_get_string(l->gguf, KEY("model"), &name))
        return ph_fail(l->err, PH_ERR_FORMAT, "%s: key '%s' is missing: the file has no tokenizer",
                       gguf_path(l->gguf), KEY("model"));
    for (size_t i = 0; i < sizeof vocab_models / sizeof *vocab_models; i++)
        if (strlen(vocab_models[i].name) == name.len &&
            memcmp(vocab_models[i].name, name.text, name.len) == 0) {
            *out = &vocab_models[i];
            return PH_OK;
        }
    return ph_fail(l->err, PH_ERR_UNSUPPORTED,
                   "%s: tokenizer model '%.*s' is not supported; llama (SPM), gpt2 (BPE), gemma4, bert "
                   "(WordPiece) and t5 (unigram) are",
                   gguf_path(l->gguf), (int)(name.len < 64 ? name.len : 64), name.text);
}

static enum ph_status find_pretokenizer(struct loader *l, const struct vocab_model *model)
{
    struct gguf_string name = {"", 0};
    gguf_get_string(l->gguf, KEY("pre"), &name);
    if (model->pre)
        name = (struct gguf_string){model->pre, strlen(model->pre)};
    l->vocab->pre = pretokenizer_find(name.text, name.len);
    return l->vocab->pre
               ? PH_OK
               : ph_fail(l->err, PH_ERR_UNSUPPORTED,
                         "%s: pre-tokenizer '%.*s' (key '%s') is not known to this build", gguf_path(l->gguf),
                         (int)(name.len < 64 ? name.len : 64), name.text, KEY("pre"));
}

static void set_defaults(struct vocab *vocab, const struct vocab_model *model)
{
    uint32_t flags = vocab->pre ? vocab->pre->flags : 0;
    bool bpe = model->kind == VOCAB_BPE;
    vocab->info = (struct vocab_info){.kind = model->kind,
                                      .bos = flags & PRE_NO_BOS ? -1 : model->bos,
                                      .eos = model->eos,
                                      .unk = model->unk,
                                      .add_bos = bpe ? (flags & PRE_ADD_BOS) != 0 : model->kind != VOCAB_UGM,
                                      .add_eos = model->kind == VOCAB_UGM};
    vocab->sep = model->sep;
    vocab->space_prefix = model->kind == VOCAB_SPM;
    vocab->escape_spaces = !bpe || (flags & PRE_RAW);
    vocab->byte_level = bpe && !(flags & PRE_RAW);
    vocab->clean_spaces = model->kind == VOCAB_WPM || (bpe && !(flags & PRE_KEEP_SPACES));
    vocab->lowercase = true;
}

static void load_settings(struct loader *l)
{
    struct vocab *vocab = l->vocab;
    if (vocab->info.kind == VOCAB_WPM) /* [CLS] is what a text begins with */
        load_id(l, KEY("cls_token_id"), &vocab->info.bos);
    load_id(l, KEY("bos_token_id"), &vocab->info.bos);
    load_id(l, KEY("eos_token_id"), &vocab->info.eos);
    load_id(l, KEY("unknown_token_id"), &vocab->info.unk);
    load_id(l, KEY("seperator_token_id"), &vocab->sep); /* spelled so by the format */
    gguf_get_bool(l->gguf, KEY("add_bos_token"), &vocab->info.add_bos);
    gguf_get_bool(l->gguf, KEY("add_eos_token"), &vocab->info.add_eos);
    gguf_get_bool(l->gguf, KEY("add_space_prefix"), &vocab->space_prefix);
    gguf_get_bool(l->gguf, KEY("remove_extra_whitespaces"), &vocab->merge_spaces);
    if (vocab->pre && (vocab->pre->flags & PRE_ALWAYS_BOS))
        vocab->info.add_bos = true;
    gguf_get_bool(l->gguf, KEY("normalizer.lowercase"), &vocab->lowercase);
    vocab->strip_accents = vocab->lowercase;
    gguf_get_bool(l->gguf, KEY("normalizer.strip_accents"), &vocab->strip_accents);
}

static void find_byte_tokens(struct vocab *vocab)
{
    for (int byte = 0; byte < 256; byte++) {
        char name[8], raw = (char)byte;
        snprintf(name, sizeof name, "<0x%02X>", byte);
        int32_t id = vocab_lookup(vocab, name, 6);
        if (id < 0 && vocab->info.kind == VOCAB_SPM)
            id = vocab_lookup(vocab, &raw, 1);
        vocab->byte_token[byte] = id;
    }
}

/* ---- Unigram models */

static enum ph_status load_charsmap(struct loader *l)
{
    struct gguf_array array;
    struct charsmap *map = &l->vocab->charsmap;
    if (!gguf_has(l->gguf, KEY("precompiled_charsmap")))
        return PH_OK;
    if (gguf_get_array(l->gguf, KEY("precompiled_charsmap"), &array) &&
        (array.type == GGUF_INT8 || array.type == GGUF_UINT8) && array.count > 4) {
        const uint8_t *at = array.data;
        uint64_t bytes =
            (uint64_t)at[0] | (uint64_t)at[1] << 8 | (uint64_t)at[2] << 16 | (uint64_t)at[3] << 24;
        if (bytes + 4 < array.count) {
            *map = (struct charsmap){.nodes = at + 4,
                                     .node_count = (size_t)bytes / 4,
                                     .pool = (const char *)at + 4 + bytes,
                                     .pool_len = (size_t)(array.count - 4 - bytes)};
            return PH_OK;
        }
    }
    return ph_fail(l->err, PH_ERR_FORMAT, "%s: key '%s' is no normalisation map; convert the model again",
                   gguf_path(l->gguf), KEY("precompiled_charsmap"));
}

static enum ph_status load_unigram(struct loader *l)
{
    static const float penalty = 10;
    struct vocab *vocab = l->vocab;
    size_t count = vocab->info.n_tokens;
    float lowest = FLT_MAX;
    for (size_t id = 0; id < count; id++)
        vocab->user_id_count += (vocab->attr[id] & TOKEN_USER) != 0;
    vocab->user_ids = arena_alloc(&vocab->arena, vocab->user_id_count * sizeof *vocab->user_ids);
    if (!vocab->user_ids)
        return ph_fail(l->err, PH_ERR_NOMEM, "%s: out of memory", gguf_path(l->gguf));
    for (size_t id = 0, at = 0; id < count; id++) {
        float score = vocab_score(vocab, (int32_t)id);
        if (vocab->attr[id] & TOKEN_USER)
            vocab->user_ids[at++] = (int32_t)id;
        if ((vocab->attr[id] & TOKEN_NORMAL) && score < lowest)
            lowest = score;
    }
    vocab->unknown_score = lowest - penalty;
    return load_charsmap(l);
}

/* ---- Creation */

static enum ph_status load(struct loader *l)
{
    const struct vocab_model *model = NULL;
    enum ph_status status = find_model(l, &model);
    if (status == PH_OK && model->kind == VOCAB_BPE)
        status = find_pretokenizer(l, model);
    if (status != PH_OK)
        return status;
    set_defaults(l->vocab, model);
    status = load_tokens(l);
    if (status == PH_OK)
        status = load_attributes(l);
    /* Kimi K2 comes without merges: its words are tokens, or bytes */
    if (status == PH_OK && model->kind == VOCAB_BPE &&
        (gguf_has(l->gguf, KEY("merges")) || strcmp(l->vocab->pre->name, "kimi-k2") != 0))
        status = load_merges(l);
    if (status == PH_OK && model->kind == VOCAB_UGM)
        status = load_unigram(l);
    if (status != PH_OK)
        return status;
    load_settings(l);
    find_end_tokens(l);
    find_stripping_tokens(l);
    find_byte_tokens(l->vocab);
    status = build_special_set(l, &l->vocab->special, TOKEN_SPECIAL);
    return status == PH_OK ? build_special_set(l, &l->vocab->user, TOKEN_USER) : status;
}

static void free_text(void *text)
{
    mem_free(text);
}

enum ph_status vocab_create(struct vocab **out, const struct gguf *gguf, struct ph_err *err)
{
    *out = NULL;
    struct vocab *vocab = mem_calloc(1, sizeof *vocab);
    if (!vocab)
        return ph_fail(err, PH_ERR_NOMEM, "%s: out of memory for the vocabulary", gguf_path(gguf));
    arena_init(&vocab->arena, SIZE_MAX / 4);
    struct loader loader = {.vocab = vocab, .gguf = gguf, .err = err};
    buf_init(&loader.apart, TEXT_APART - 1);
    enum ph_status status = load(&loader);
    char *apart = buf_take(&loader.apart);
    if (apart && arena_on_release(&vocab->arena, free_text, apart) != 0) {
        mem_free(apart);
        status = ph_fail(err, PH_ERR_NOMEM, "%s: out of memory for the vocabulary", gguf_path(gguf));
    }
    if (status == PH_OK)
        *out = vocab;
    else
        vocab_free(vocab);
    return status;
}

void vocab_free(struct vocab *vocab)
{
    if (!vocab)
        return;
    arena_release(&vocab->arena);
    mem_free(vocab);
}

/* ---- Questions */

const struct vocab_info *vocab_info(const struct vocab *vocab)
{
    return &vocab->info;
}

static uint8_t attr_of(const struct vocab *vocab, int32_t id)
{
    return id >= 0 && (size_t)id < vocab->info.n_tokens ? vocab->attr[id] : 0;
}

bool vocab_is_end(const struct vocab *vocab, int32_t id)
{
    return attr_of(vocab, id) & TOKEN_END;
}

bool vocab_is_special(const struct vocab *vocab, int32_t id)
{
    return attr_of(vocab, id) & (TOKEN_CONTROL | TOKEN_USER);
}

int32_t vocab_find(const struct vocab *vocab, const char *text, size_t len)
{
    return vocab_lookup(vocab, text, len);
}

struct gguf_string vocab_token_text(const struct vocab *vocab, int32_t id)
{
    if (id < 0 || (size_t)id >= vocab->info.n_tokens)
        return (struct gguf_string){"", 0};
    return text_table_at(&vocab->tokens, (size_t)id);
}
