#include "train/training.h"

#include <dirent.h>

#include "base/clock.h"
#include "train/train.h"

static const char *const words[] = {"the ",  "sea ",   "was ",    "calm ", "and ",   "a ",    "ship ",
                                    "came ", "slowly", " home. ", "night", " fell ", "over ", "it\n"};

static void make_text(struct buf *out, uint64_t seed, size_t count)
{
    struct rng rng;
    rng_init(&rng, seed);
    for (size_t i = 0; i < count; i++)
        buf_puts(out, words[rng_u64(&rng) % (sizeof words / sizeof *words)]);
}

static void make_vocab(const char *path, uint64_t seed)
{
    struct bpe_params params;
    struct bpe_trainer *trainer;
    struct buf text;
    buf_init(&text, 1 << 20);
    make_text(&text, seed, 500);
    bpe_params_default(&params);
    params.n_tokens = 280;
    assert_int_equal(bpe_trainer_create(&trainer, &params, NULL), PH_OK);
    assert_int_equal(bpe_trainer_add(trainer, text.data, text.len, NULL), PH_OK);
    if (seed > 1)
        assert_int_equal(bpe_trainer_add(trainer, "xyzzy xyzzy", 11, NULL), PH_OK);
    assert_int_equal(bpe_trainer_run(trainer, NULL, NULL, NULL), PH_OK);
    assert_int_equal(bpe_trainer_save(trainer, path, "test", NULL, NULL), PH_OK);
    bpe_trainer_free(trainer);
    buf_release(&text);
}

static void make_data(const char *path, const char *vocab_path, uint64_t seed, size_t documents, bool masked)
{
    struct gguf *gguf;
    struct vocab *vocab;
    struct corpus_writer *writer;
    assert_int_equal(gguf_open(&gguf, vocab_path, NULL), PH_OK);
    assert_int_equal(vocab_create(&vocab, gguf, NULL), PH_OK);
    const struct corpus_params params = {.n_vocab = vocab_info(vocab)->n_tokens,
                                         .vocab_hash = corpus_vocab_hash(gguf),
                                         .targets = masked,
                                         .held_out_ppm = 200000};
    assert_int_equal(corpus_writer_open(&writer, path, &params, NULL), PH_OK);
    for (size_t d = 0; d < documents; d++) {
        struct buf text;
        struct token_list ids = {0};
        uint8_t targets[4096];
        buf_init(&text, 1 << 20);
        make_text(&text, seed * 1000 + d, 20 + d % 7);
        assert_int_equal(vocab_tokenize(vocab, text.data, text.len, false, false, &ids, NULL), PH_OK);
        for (size_t i = 0; i < ids.len; i++)
            targets[i] = i % 2;
        assert_int_equal(corpus_writer_add(writer, ids.ids, masked ? targets : NULL, ids.len,
                                           (seed * 1000 + d) * 0x9e3779b97f4a7c15u, text.len, NULL),
                         PH_OK);
        token_list_release(&ids);
        buf_release(&text);
    }
    assert_int_equal(corpus_writer_close(writer, NULL), PH_OK);
    vocab_free(vocab);
    gguf_free(gguf);
}

void training_path(const struct training *t, const char *name, char path[160])
{
    snprintf(path, 160, "%s/%s", t->dir, name);
}

void training_open(struct training *t)
{
    const char *dir = getenv("TMPDIR");
    *t = (struct training){0};
    snprintf(t->dir, sizeof t->dir, "%.40s/pharos-test-XXXXXX", dir ? dir : "/tmp");
    assert_non_null(mkdtemp(t->dir));
    snprintf(t->vocab, sizeof t->vocab, "%s/v.gguf", t->dir);
    snprintf(t->other_vocab, sizeof t->other_vocab, "%s/other.gguf", t->dir);
    make_vocab(t->vocab, 1);
    make_vocab(t->other_vocab, 2);
    for (size_t i = 0; i < TRAINING_FILES; i++) {
        snprintf(t->data[i], sizeof t->data[i], "%s/%zu.tokens", t->dir, i);
        make_data(t->data[i], t->vocab, i + 1, i == 1 ? 20 : 40, i == 2);
        t->sources[i] = (struct trainer_source){.path = t->data[i]};
    }
}

static void remove_all(const char *dir)
{
    DIR *entries = opendir(dir);
    assert_non_null(entries);
    for (struct dirent *e; (e = readdir(entries)) != NULL;) {
        char path[512];
        if (e->d_name[0] == '.' && (e->d_name[1] == 0 || e->d_name[1] == '.'))
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (unlink(path) != 0)
            remove_all(path);
    }
    closedir(entries);
    rmdir(dir);
}

void training_close(struct training *t)
{
    remove_all(t->dir);
}

struct trainer_params training_params(struct training *t)
{
    struct trainer_params p;
    trainer_params_default(&p);
    p.sources = t->sources;
    p.source_count = 1;
    p.tokenizer = t->vocab;
    p.model.d = 8;
    p.model.layers = 1;
    p.model.heads = 2;
    p.model.ff = 12;
    p.batch = 4;
    p.time = 12;
    p.steps = 30;
    p.rate = 0.01;
    p.validation_windows = 8;
    return p;
}

struct pool *training_pool(unsigned lanes)
{
    struct pool *pool;
    assert_int_equal(pool_create(&pool, lanes, 0, kernels_select(NULL), NULL), PH_OK);
    return pool;
}

struct trainer *training_start(const struct trainer_params *params, struct pool *pool)
{
    struct trainer *trainer;
    struct ph_err err;
    if (trainer_create(&trainer, pool, params, &err) != PH_OK)
        fail_msg("%s", err.message);
    return trainer;
}

void training_steps(struct trainer *trainer, size_t count, double *losses)
{
    struct ph_err err;
    for (size_t i = 0; i < count; i++) {
        struct trainer_report report;
        if (trainer_step(trainer, &report, &err) != PH_OK)
            fail_msg("%s", err.message);
        if (losses)
            losses[i] = report.loss;
    }
}

void assert_same_state(struct trainer *a, struct trainer *b)
{
    size_t bytes = decoder_len(a->decoder) * sizeof(float);
    assert_int_equal(decoder_len(b->decoder) * sizeof(float), bytes);
    assert_memory_equal(decoder_weights(a->decoder), decoder_weights(b->decoder), bytes);
    assert_memory_equal(a->adamw.m, b->adamw.m, bytes);
    assert_memory_equal(a->adamw.v, b->adamw.v, bytes);
    assert_int_equal(a->adamw.step, b->adamw.step);
    assert_int_equal(a->tokens, b->tokens);
}
