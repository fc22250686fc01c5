/* A trained vocabulary as GGUF keys (ggml docs/gguf.md, "Tokenizer").
 *
 * Order of tokens: own specials, the caller's specials, for SPM the 256 byte tokens; then the symbols. For
 * BPE_BYTES these are the bytes by value and what merges made, in order; texts are in GPT-2's alphabet of
 * printable characters. For BPE_SPM made tokens come first, their score the negative of their number, and
 * single characters after them with scores below: what joins earlier has the higher score, which is the
 * order in which an SPM tokenizer joins. */
#include <stdio.h>

#include "base/utf8.h"
#include "train/bpe_int.h"

#define KEY(name) "tokenizer.ggml." name
#define ARRAY_BYTES_MAX ((size_t)1 << 31)

enum token_type { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_BYTE = 6 };

struct listing {
    const struct bpe_trainer *trainer;
    struct buf tokens, types, scores, merges, text;
    size_t count;
};

static void put_uint(struct buf *out, uint64_t value, size_t width)
{
    for (size_t i = 0; i < width; i++)
        buf_putc(out, (char)(value >> (8 * i)));
}

static void put_string(struct buf *out, const char *text, size_t len)
{
    put_uint(out, len, 8);
    buf_append(out, text, len);
}

/* GPT-2's alphabet: a byte that prints stands for itself, the others count up from U+0100. */
static uint32_t alphabet_point(uint8_t byte)
{
    static const uint8_t gaps[][2] = {{0x00, 0x20}, {0x7f, 0xa0}, {0xad, 0xad}};
    uint32_t point = 256;
    for (size_t i = 0; i < sizeof gaps / sizeof *gaps; i++) {
        if (byte >= gaps[i][0] && byte <= gaps[i][1])
            return point + byte - gaps[i][0];
        point += (uint32_t)(gaps[i][1] - gaps[i][0]) + 1;
    }
    return byte;
}

void bpe_file_text(enum bpe_kind kind, const char *text, size_t len, struct buf *out)
{
    char utf8[UTF8_LEN_MAX];
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (kind == BPE_BYTES)
            buf_append(out, utf8, utf8_encode(alphabet_point((uint8_t)c), utf8));
        else if (c == ' ')
            buf_puts(out, "\xe2\x96\x81");
        else
            buf_putc(out, c);
    }
}

/* ---- Tokens */

static void add_token(struct listing *l, const char *text, size_t len, enum token_type type, double score)
{
    union {
        float number;
        uint32_t bits;
    } value = {.number = (float)score};
    put_string(&l->tokens, text, len);
    put_uint(&l->types, (uint64_t)type, 4);
    put_uint(&l->scores, value.bits, 4);
    l->count++;
}

static const char *symbol_text(struct listing *l, uint32_t symbol)
{
    size_t len;
    const char *raw = text_set_at(&l->trainer->symbol_texts, symbol, &len);
    buf_clear(&l->text);
    bpe_file_text(l->trainer->params.kind, raw, len, &l->text);
    return l->text.data;
}

static void add_symbols(struct listing *l, size_t first, size_t end, double *score)
{
    for (size_t symbol = first; symbol < end; symbol++, *score -= 1) {
        const char *text = symbol_text(l, (uint32_t)symbol);
        add_token(l, text, l->text.len, TYPE_NORMAL, *score);
    }
}

static void add_specials(struct listing *l)
{
    const struct bpe_params *params = &l->trainer->params;
    size_t own;
    const char *const *names = bpe_own_specials(params->kind, &own);
    for (size_t i = 0; i < own; i++)
        add_token(l, names[i], strlen(names[i]),
                  params->kind == BPE_SPM && i == 0 ? TYPE_UNKNOWN : TYPE_CONTROL, 0);
    for (size_t i = 0; i < params->special_count; i++)
        add_token(l, params->specials[i], strlen(params->specials[i]), TYPE_CONTROL, 0);
    for (int byte = 0; byte < 256 && params->kind == BPE_SPM; byte++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", byte);
        add_token(l, name, 6, TYPE_BYTE, 0);
    }
}

static void add_tokens(struct listing *l)
{
    size_t base = l->trainer->base_count, all = l->trainer->symbol_texts.count;
    double score = 0;
    add_specials(l);
    if (l->trainer->params.kind == BPE_BYTES) {
        add_symbols(l, 0, all, &score);
    } else {
        add_symbols(l, base, all, &score);
        add_symbols(l, 0, base, &score);
    }
}

static void add_merges(struct listing *l)
{
    struct buf line;
    buf_init(&line, ARRAY_BYTES_MAX);
    for (size_t i = 0; i < l->trainer->merge_count; i++) {
        buf_clear(&line);
        symbol_text(l, l->trainer->merges[i].left);
        buf_append(&line, l->text.data, l->text.len);
        buf_putc(&line, ' ');
        symbol_text(l, l->trainer->merges[i].right);
        buf_append(&line, l->text.data, l->text.len);
        put_string(&l->merges, line.data, line.len);
    }
    if (l->merges.status == PH_OK)
        l->merges.status = buf_status(&line);
    buf_release(&line);
}

/* ---- Keys */

static void set_array(struct gguf_writer *w, const char *key, enum gguf_type type, size_t count,
                      const struct buf *data)
{
    struct gguf_array array = {type, count, (const uint8_t *)(data->data ? data->data : ""), data->len};
    gguf_writer_set_array(w, key, &array);
}

static void set_string(struct gguf_writer *w, const char *key, const char *text)
{
    gguf_writer_set_string(w, key, text, strlen(text));
}

static void set_ids(const struct bpe_trainer *t, struct gguf_writer *w)
{
    bool spm = t->params.kind == BPE_SPM;
    gguf_writer_set_uint(w, KEY("bos_token_id"), spm ? 1 : 0);
    gguf_writer_set_uint(w, KEY("eos_token_id"), spm ? 2 : 0);
    if (spm)
        gguf_writer_set_uint(w, KEY("unknown_token_id"), 0);
    if (t->params.turn_end) /* `reserved` is numbered as the tokens are */
        gguf_writer_set_uint(w, KEY("eot_token_id"),
                             text_set_find(&t->reserved, t->params.turn_end, strlen(t->params.turn_end)));
    gguf_writer_set_bool(w, KEY("add_bos_token"), spm);
    gguf_writer_set_bool(w, KEY("add_eos_token"), false);
    if (spm)
        gguf_writer_set_bool(w, KEY("add_space_prefix"), false);
}

static void set_keys(const struct listing *l, struct gguf_writer *w, const char *chat_template)
{
    const struct bpe_params *params = &l->trainer->params;
    bool spm = params->kind == BPE_SPM;
    set_string(w, KEY("model"), spm ? "llama" : "gpt2");
    set_string(w, KEY("pre"), spm ? "default" : params->pre);
    set_array(w, KEY("tokens"), GGUF_STRING, l->count, &l->tokens);
    set_array(w, KEY("token_type"), GGUF_INT32, l->count, &l->types);
    if (spm)
        set_array(w, KEY("scores"), GGUF_FLOAT32, l->count, &l->scores);
    else
        set_array(w, KEY("merges"), GGUF_STRING, l->trainer->merge_count, &l->merges);
    set_ids(l->trainer, w);
    if (chat_template)
        set_string(w, "tokenizer.chat_template", chat_template);
}

enum ph_status bpe_trainer_write(const struct bpe_trainer *trainer, struct gguf_writer *writer,
                                 const char *chat_template, struct ph_err *err)
{
    if (!trainer->ran)
        return ph_fail(err, PH_ERR_ARG, "this tokenizer is not trained yet");
    struct listing l = {.trainer = trainer};
    struct buf *all[] = {&l.tokens, &l.types, &l.scores, &l.merges, &l.text};
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        buf_init(all[i], ARRAY_BYTES_MAX);
    add_tokens(&l);
    if (trainer->params.kind == BPE_BYTES)
        add_merges(&l);
    for (size_t i = 0; i < sizeof all / sizeof *all && status == PH_OK; i++)
        status = buf_status(all[i]);
    if (status == PH_OK)
        set_keys(&l, writer, chat_template);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        buf_release(all[i]);
    return status == PH_OK ? PH_OK
                           : ph_fail(err, status, "no room for the lists of a vocabulary of %zu tokens",
                                     trainer->stats.tokens);
}

enum ph_status bpe_trainer_save(const struct bpe_trainer *trainer, const char *path, const char *name,
                                const char *chat_template, struct ph_err *err)
{
    struct gguf_writer *w;
    enum ph_status status = gguf_writer_open(&w, path, err);
    if (status != PH_OK)
        return status;
    set_string(w, "general.architecture", "llama");
    set_string(w, "general.type", "model");
    set_string(w, "general.name", name);
    gguf_writer_set_uint(w, "llama.vocab_size", (uint32_t)trainer->stats.tokens);
    status = bpe_trainer_write(trainer, w, chat_template, err);
    if (status == PH_OK)
        return gguf_writer_close(w, err);
    gguf_writer_abandon(w);
    return status;
}

/* ---- The built-in way to write a conversation */

const char *const chat_default_specials[] = {"<|system|>", "<|user|>", "<|assistant|>", "<|tool|>",
                                             CHAT_DEFAULT_TURN_END};
const size_t chat_default_special_count = sizeof chat_default_specials / sizeof *chat_default_specials;
const char chat_default_template[] =
    "{%- for message in messages -%}\n"
    "{{- '<|' + message['role'] + '|>\\n' + message['content'] + '" CHAT_DEFAULT_TURN_END "\\n' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}\n";
