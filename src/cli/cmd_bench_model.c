/* pharos bench model: a model with random weights and the shape of a real one. Speed depends on shapes and
 * number formats, not on what the numbers say, so this stands in for downloads.
 *
 * Blocks of each format are quantised once from normal numbers of a sane scale, into a pool; tensors are
 * filled by drawing blocks from the pool, which writes gigabytes at the speed of the disk. */
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/cli_int.h"

#define POOL_BLOCKS 2048
#define CHUNK_BYTES ((size_t)1 << 20)
#define WORDS_FIRST 259 /* <unk>, <s>, </s>, 256 bytes */

struct shape {
    const char *name;
    uint32_t d, ff, layers, heads, heads_kv, vocab, context;
    bool tied; /* the output matrix is the embedding */
};

static const struct shape shapes[] = {
    {"1m", 128, 352, 3, 4, 4, 2048, 512, true}, /* a decoder of embeddings */
    {"tiny", 256, 768, 4, 4, 2, 1024, 2048, false},
    {"160m", 768, 3072, 12, 12, 12, 32000, 2048, false},
    {"500m", 1024, 4096, 24, 16, 8, 32000, 2048, false},
    {"600m", 2048, 5632, 14, 32, 4, 8192, 2048,
     false}, /* to learn from: rows as wide as those of larger models, and much more than caches hold */
    {"1.1b", 2048, 5632, 22, 32, 4, 32000, 2048, false}, /* TinyLlama */
    {"3b", 3072, 8192, 28, 24, 8, 128256, 8192, true},   /* Llama 3.2 */
    {"7b", 4096, 11008, 32, 32, 32, 32000, 4096, false}, /* Llama 2 */
    {"8b", 4096, 14336, 32, 32, 8, 128256, 8192, false}, /* Llama 3 */
};

static const char *const shape_names[] = {"1m",   "tiny", "160m", "500m", "600m",
                                          "1.1b", "3b",   "7b",   "8b",   NULL};

struct args {
    int shape;
    const char *out, *type;
    size_t seed;
};

static const struct cli_option options[] = {
    {CLI_OPTION("--shape", "S", CLI_CHOICE, struct args, shape,
                "1m, tiny, 160m, 500m, 600m, 1.1b, 3b, 7b or 8b (1.1b)"),
     .names = shape_names},
    {CLI_OPTION("--type", "T", CLI_TEXT, struct args, type, "number format, as F16, Q8_0, Q4_K_M (Q4_K_M)")},
    {CLI_OPTION("--seed", "N", CLI_COUNT, struct args, seed, "other weights (1)")},
    {CLI_OPTION("OUT.gguf", "F", CLI_TEXT, struct args, out, "file to write"), .required = true},
    CLI_OPTIONS_END,
};
static const struct cli_usage usage = {
    "bench model", "[--shape S] [--type T] OUT.gguf",
    "Writes a llama-shaped model with random weights and a made-up vocabulary, for measuring speed.",
    options};

/* ---- Tensors: one walk serves the descriptions and the data */

struct maker {
    struct gguf_writer *writer;
    const struct shape *shape;
    const struct mixture *mixture;
    struct rng rng;
    void *pools[TENSOR_MXFP4 + 1]; /* POOL_BLOCKS blocks of a format; NULL: not drawn yet */
    unsigned char *chunk;
    bool describing, failed;
    uint64_t bytes, bytes_total;
    struct cli_progress progress;
};

static float normal(struct rng *rng)
{
    double u = 1 - rng_double(rng), v = rng_double(rng); /* Box and Muller 1958 */
    return (float)(sqrt(-2 * log(u)) * cos(2 * 3.14159265358979 * v));
}

static const unsigned char *pool_for(struct maker *m, const struct tensor_format *format)
{
    void **pool = &m->pools[format->type];
    if (*pool)
        return *pool;
    size_t count = (size_t)POOL_BLOCKS * format->block_len;
    float *values = mem_alloc(count * sizeof *values);
    *pool = mem_alloc((size_t)POOL_BLOCKS * format->block_bytes);
    if (values && *pool) {
        float scale = 1 / sqrtf((float)m->shape->d);
        for (size_t i = 0; i < count; i++)
            values[i] = normal(&m->rng) * scale;
        tensor_quantize(format->type, values, *pool, count);
    }
    m->failed = m->failed || !values || !*pool;
    mem_free(values);
    return *pool;
}

static void write_blocks(struct maker *m, const struct tensor_format *format, uint64_t count)
{
    const unsigned char *pool = pool_for(m, format);
    size_t size = format->block_bytes, chunk_blocks = CHUNK_BYTES / size;
    while (count > 0 && !m->failed) {
        size_t n = count < chunk_blocks ? (size_t)count : chunk_blocks;
        for (size_t i = 0; i < n; i++)
            memcpy(m->chunk + i * size, pool + (rng_u64(&m->rng) % POOL_BLOCKS) * size, size);
        gguf_writer_data(m->writer, m->chunk, n * size);
        count -= n;
        m->bytes += n * size;
        cli_progress_show(&m->progress, m->bytes, m->bytes_total);
    }
}

static void matrix(struct maker *m, const char *name, enum tensor_type type, uint32_t cols, uint32_t rows)
{
    type = quantize_fitting(type, cols);
    const struct tensor_format *format = tensor_format((uint32_t)type);
    const uint64_t dims[2] = {cols, rows};
    uint64_t blocks = (uint64_t)cols * rows / format->block_len;
    if (m->describing) {
        gguf_writer_describe(m->writer, name, type, 2, dims);
        m->bytes_total += blocks * format->block_bytes;
    } else {
        write_blocks(m, format, blocks);
    }
}

static void norm(struct maker *m, const char *name)
{
    const uint64_t dims[1] = {m->shape->d};
    if (m->describing) {
        gguf_writer_describe(m->writer, name, TENSOR_F32, 1, dims);
        return;
    }
    const float one = 1;
    for (uint32_t i = 0; i < m->shape->d; i++)
        gguf_writer_data(m->writer, &one, sizeof one);
}

static void layer(struct maker *m, uint32_t i)
{
    const struct shape *s = m->shape;
    uint32_t head = s->d / s->heads, kv = head * s->heads_kv;
    const struct {
        const char *suffix;
        uint32_t cols, rows; /* rows 0: a norm */
    } parts[] = {
        {"attn_norm", s->d, 0},    {"attn_q", s->d, s->d},      {"attn_k", s->d, kv},
        {"attn_v", s->d, kv},      {"attn_output", s->d, s->d}, {"ffn_norm", s->d, 0},
        {"ffn_gate", s->d, s->ff}, {"ffn_up", s->d, s->ff},     {"ffn_down", s->ff, s->d},
    };
    for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%u.%s.weight", i, parts[k].suffix);
        if (parts[k].rows)
            matrix(m, name, mixture_type(m->mixture, parts[k].suffix, i, s->layers), parts[k].cols,
                   parts[k].rows);
        else
            norm(m, name);
    }
}

static void tensors(struct maker *m, bool describing)
{
    const struct shape *s = m->shape;
    m->describing = describing;
    matrix(m, "token_embd.weight", s->tied ? m->mixture->output : m->mixture->embedding, s->d, s->vocab);
    for (uint32_t i = 0; i < s->layers; i++)
        layer(m, i);
    norm(m, "output_norm.weight");
    if (!s->tied)
        matrix(m, "output.weight", m->mixture->output, s->d, s->vocab);
}

/* ---- Keys */

static void put_u64(struct buf *out, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        buf_putc(out, (char)(value >> (8 * i)));
}

static void put_string(struct buf *out, const char *text)
{
    put_u64(out, strlen(text));
    buf_puts(out, text);
}

static void put_token(struct buf *out, uint32_t id)
{
    static const char *const control[] = {"<unk>", "<s>", "</s>"};
    char text[32];
    if (id < 3)
        snprintf(text, sizeof text, "%s", control[id]);
    else if (id < WORDS_FIRST)
        snprintf(text, sizeof text, "<0x%02X>", id - 3);
    else
        snprintf(text, sizeof text, "\xE2\x96\x81w%u", id - WORDS_FIRST);
    put_string(out, text);
}

enum token_kind { TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_BYTE = 6 };

static enum token_kind kind_of(uint32_t id)
{
    if (id >= WORDS_FIRST)
        return TOKEN_NORMAL;
    return id >= 3 ? TOKEN_BYTE : id == 0 ? TOKEN_UNKNOWN : TOKEN_CONTROL;
}

static void set_array(struct gguf_writer *w, const char *key, enum gguf_type type, uint64_t count,
                      const void *data, size_t bytes)
{
    gguf_writer_set_array(
        w, key, &(struct gguf_array){.type = type, .count = count, .data = data, .data_bytes = bytes});
}

static enum ph_status vocabulary(struct maker *m, struct ph_err *err)
{
    uint32_t count = m->shape->vocab;
    struct buf tokens;
    buf_init(&tokens, (size_t)count * 32);
    float *scores = mem_calloc(count, sizeof *scores);
    int32_t *kinds = mem_calloc(count, sizeof *kinds);
    for (uint32_t id = 0; scores && kinds && id < count; id++) {
        put_token(&tokens, id);
        scores[id] = id < WORDS_FIRST ? 0 : -(float)(id - WORDS_FIRST);
        kinds[id] = (int32_t)kind_of(id);
    }
    bool good = scores && kinds && buf_status(&tokens) == PH_OK;
    if (good) {
        gguf_writer_set_string(m->writer, "tokenizer.ggml.model", "llama", 5);
        set_array(m->writer, "tokenizer.ggml.tokens", GGUF_STRING, count, tokens.data, tokens.len);
        set_array(m->writer, "tokenizer.ggml.scores", GGUF_FLOAT32, count, scores, count * sizeof *scores);
        set_array(m->writer, "tokenizer.ggml.token_type", GGUF_INT32, count, kinds, count * sizeof *kinds);
        gguf_writer_set_uint(m->writer, "tokenizer.ggml.unknown_token_id", 0);
        gguf_writer_set_uint(m->writer, "tokenizer.ggml.bos_token_id", 1);
        gguf_writer_set_uint(m->writer, "tokenizer.ggml.eos_token_id", 2);
        gguf_writer_set_bool(m->writer, "tokenizer.ggml.add_bos_token", true);
        gguf_writer_set_bool(m->writer, "tokenizer.ggml.add_eos_token", false);
    }
    buf_release(&tokens);
    mem_free(scores);
    mem_free(kinds);
    return good ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory for a vocabulary of %u", count);
}

static void keys(struct maker *m)
{
    static const char chat_template[] =
        "{% for message in messages %}{{ message.role }}: {{ message.content }}\n"
        "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
    const struct shape *s = m->shape;
    char name[64];
    int len = snprintf(name, sizeof name, "random-%s-%s", s->name, m->mixture->name);
    gguf_writer_set_string(m->writer, "general.architecture", "llama", 5);
    gguf_writer_set_string(m->writer, "general.name", name, (size_t)len);
    gguf_writer_set_uint(m->writer, "general.file_type", m->mixture->file_type);
    gguf_writer_set_uint(m->writer, "llama.context_length", s->context);
    gguf_writer_set_uint(m->writer, "llama.embedding_length", s->d);
    gguf_writer_set_uint(m->writer, "llama.feed_forward_length", s->ff);
    gguf_writer_set_uint(m->writer, "llama.block_count", s->layers);
    gguf_writer_set_uint(m->writer, "llama.attention.head_count", s->heads);
    gguf_writer_set_uint(m->writer, "llama.attention.head_count_kv", s->heads_kv);
    gguf_writer_set_uint(m->writer, "llama.rope.dimension_count", s->d / s->heads);
    gguf_writer_set_uint(m->writer, "llama.vocab_size", s->vocab);
    gguf_writer_set_float(m->writer, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gguf_writer_set_float(m->writer, "llama.rope.freq_base", 10000);
    gguf_writer_set_string(m->writer, "tokenizer.chat_template", chat_template, sizeof chat_template - 1);
}

static enum ph_status make(struct maker *m, const char *path, struct ph_err *err)
{
    m->chunk = mem_alloc(CHUNK_BYTES);
    if (!m->chunk)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a buffer");
    enum ph_status status = gguf_writer_open(&m->writer, path, err);
    if (status != PH_OK)
        return status;
    keys(m);
    status = vocabulary(m, err);
    if (status == PH_OK) {
        tensors(m, true);
        tensors(m, false);
    }
    if (status == PH_OK && m->failed)
        status = ph_fail(err, PH_ERR_NOMEM, "no memory for random blocks");
    if (status == PH_OK)
        return gguf_writer_close(m->writer, err);
    gguf_writer_abandon(m->writer);
    return status;
}

static int index_of(const char *const *names, const char *name)
{
    int i = 0;
    while (strcmp(names[i], name) != 0)
        i++;
    return i;
}

int cmd_bench_model(int argc, char **argv)
{
    struct args args = {.shape = index_of(shape_names, "1.1b"), .type = "Q4_K_M", .seed = 1};
    int exit_code;
    if (!cli_parse(&usage, argc, argv, &args, &exit_code))
        return exit_code;
    struct maker m = {.shape = &shapes[args.shape]};
    struct ph_err err;
    if (cli_mixture_parse(args.type, &m.mixture, &err) != PH_OK)
        return cli_error(CLI_EXIT_USAGE, "%s", err.message);
    rng_init(&m.rng, args.seed);
    cli_progress_begin(&m.progress, "writing");
    enum ph_status status = make(&m, args.out, &err);
    cli_progress_end(&m.progress);
    for (size_t i = 0; i < sizeof m.pools / sizeof *m.pools; i++)
        mem_free(m.pools[i]);
    mem_free(m.chunk);
    return status == PH_OK ? CLI_EXIT_OK : cli_fail(&err);
}
