/* A tokenizer's training, from texts to symbols: words are counted as they come, and when all are in they
 * become runs of symbols, which bpe_merge.c joins.
 *
 * Symbols of BPE_BYTES begin as the 256 bytes. Those of BPE_SPM begin as the commonest characters, as many
 * as cover the wanted share of the text; a word is cut where it has another character, which will be spelled
 * by byte tokens. Words for BPE_SPM are cut by the pre-tokenizer too, with the blank before a word as part
 * of it, so that no token crosses a word's border; the space becomes U+2581 when the file is written. */
#include <stdio.h>
#include <stdlib.h>

#include "base/limits.h"
#include "base/utf8.h"
#include "train/bpe_int.h"

#define PIECE_BYTES_MIN ((size_t)1 << 20)
#define WORD_BYTES_MAX 1024 /* a longer word is counted in pieces */
#define RESERVED_BYTES_MAX ((size_t)1 << 20)

static const char *const own_specials_bytes[] = {"<|endoftext|>"};
static const char *const own_specials_spm[] = {"<unk>", "<s>", "</s>"};

const char *const *bpe_own_specials(enum bpe_kind kind, size_t *count)
{
    *count = kind == BPE_BYTES ? 1 : 3;
    return kind == BPE_BYTES ? own_specials_bytes : own_specials_spm;
}

size_t bpe_head_count(const struct bpe_trainer *trainer)
{
    size_t own;
    bpe_own_specials(trainer->params.kind, &own);
    return own + trainer->params.special_count + (trainer->params.kind == BPE_SPM ? 256 : 0);
}

void bpe_params_default(struct bpe_params *params)
{
    *params = (struct bpe_params){.kind = BPE_BYTES,
                                  .pre = "smollm",
                                  .n_tokens = 8192,
                                  .pair_min = 2,
                                  .token_bytes_max = 32,
                                  .coverage = 0.9995};
}

/* ---- Creation */

static enum ph_status reserve(struct bpe_trainer *t, const char *text, struct ph_err *err)
{
    uint32_t index;
    size_t len = strlen(text), before = t->reserved.count;
    if (len < 2 || len > VOCAB_TOKEN_BYTES_MAX || !utf8_valid(text, len))
        return ph_fail(err, PH_ERR_ARG, "special token '%.64s': it must be UTF-8 of 2 to %d bytes", text,
                       VOCAB_TOKEN_BYTES_MAX);
    if (!text_set_put(&t->reserved, text, len, &index))
        return ph_fail(err, PH_ERR_NOMEM, "no memory for %zu special tokens", t->params.special_count);
    return t->reserved.count > before
               ? PH_OK
               : ph_fail(err, PH_ERR_ARG, "special token '%.64s' is there twice", text);
}

static enum ph_status reserve_all(struct bpe_trainer *t, struct ph_err *err)
{
    size_t own;
    const char *const *names = bpe_own_specials(t->params.kind, &own);
    enum ph_status status = PH_OK;
    for (size_t i = 0; i < own && status == PH_OK; i++)
        status = reserve(t, names[i], err);
    for (size_t i = 0; i < t->params.special_count && status == PH_OK; i++)
        status = reserve(t, t->params.specials[i], err);
    for (int byte = 0; byte < 256 && status == PH_OK && t->params.kind == BPE_SPM; byte++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", byte);
        status = reserve(t, name, err);
    }
    const char *end = t->params.turn_end;
    if (status == PH_OK && end && text_set_find(&t->reserved, end, strlen(end)) == TEXT_SET_NONE)
        status =
            ph_fail(err, PH_ERR_ARG, "the token '%.64s' that ends a turn is not among the specials", end);
    return status;
}

static bool no_word(void *ud, const char *text, size_t len)
{
    (void)ud, (void)text, (void)len;
    return true;
}

static enum ph_status check_params(struct bpe_trainer *t, struct ph_err *err)
{
    const struct bpe_params *p = &t->params;
    size_t least = bpe_head_count(t) + (p->kind == BPE_BYTES ? 256 : 1);
    if (p->n_tokens < least || p->n_tokens > VOCAB_TOKENS_MAX)
        return ph_fail(err, PH_ERR_ARG, "a vocabulary of %zu tokens: it takes %zu to %u", p->n_tokens, least,
                       VOCAB_TOKENS_MAX);
    if (p->pair_min < 1 || p->token_bytes_max < 2 || p->token_bytes_max > VOCAB_TOKEN_BYTES_MAX / 4 ||
        !(p->coverage > 0 && p->coverage <= 1))
        return ph_fail(err, PH_ERR_ARG,
                       "a tokenizer needs pair_min >= 1, tokens of 2 to %d bytes, coverage in (0, 1]",
                       VOCAB_TOKEN_BYTES_MAX / 4);
    return pretokenize(p->pre, "", 0, no_word, NULL, err);
}

enum ph_status bpe_trainer_create(struct bpe_trainer **out, const struct bpe_params *params,
                                  struct ph_err *err)
{
    *out = NULL;
    struct bpe_trainer *t = mem_calloc(1, sizeof *t);
    if (!t)
        return ph_fail(err, PH_ERR_NOMEM, "no memory to train a tokenizer");
    t->params = *params;
    text_set_init(&t->words, BPE_TEXT_BYTES_MAX);
    text_set_init(&t->symbol_texts, BPE_TEXT_BYTES_MAX);
    text_set_init(&t->reserved, RESERVED_BYTES_MAX);
    enum ph_status status = check_params(t, err);
    if (status == PH_OK)
        status = reserve_all(t, err);
    if (status == PH_OK)
        *out = t;
    else
        bpe_trainer_free(t);
    return status;
}

void bpe_trainer_free(struct bpe_trainer *trainer)
{
    if (!trainer)
        return;
    text_set_release(&trainer->words);
    text_set_release(&trainer->symbol_texts);
    text_set_release(&trainer->reserved);
    mem_free(trainer->word_counts);
    mem_free(trainer->runs);
    mem_free(trainer->symbols);
    mem_free(trainer->merges);
    mem_free(trainer);
}

/* ---- Counting */

static bool count_piece(struct bpe_trainer *t, const char *text, size_t len)
{
    uint32_t index;
    size_t before = t->words.count;
    if (!text_set_put(&t->words, text, len, &index) ||
        !corpus_room(&t->word_counts, &t->word_counts_cap, t->words.count, sizeof *t->word_counts))
        return false;
    if (t->words.count > before)
        t->word_counts[index] = 0;
    t->word_counts[index]++;
    t->stats.words++;
    return true;
}

static bool count_word(void *ud, const char *text, size_t len)
{
    while (len > 0) {
        size_t piece = len < WORD_BYTES_MAX ? len : WORD_BYTES_MAX;
        if (piece < len)
            piece -= utf8_incomplete_tail(text, piece);
        if (!count_piece(ud, text, piece))
            return false;
        text += piece;
        len -= piece;
    }
    return true;
}

enum ph_status bpe_trainer_add(struct bpe_trainer *trainer, const char *text, size_t len, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    trainer->stats.bytes += len;
    while (len > 0 && status == PH_OK) {
        size_t piece = len;
        if (len > PIECE_BYTES_MIN) {
            const char *end = memchr(text + PIECE_BYTES_MIN, '\n', len - PIECE_BYTES_MIN);
            piece = end ? (size_t)(end - text) + 1 : len;
        }
        status = pretokenize(trainer->params.pre, text, piece, count_word, trainer, err);
        text += piece;
        len -= piece;
    }
    return status == PH_ERR_CANCELLED
               ? ph_fail(err, PH_ERR_NOMEM, "no memory for more than %zu distinct words",
                         trainer->words.count)
               : status;
}

/* ---- The first symbols */

struct character {
    uint32_t point;
    uint64_t count;
};

static int by_count(const void *a, const void *b)
{
    const struct character *x = a, *y = b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return (x->point > y->point) - (x->point < y->point);
}

static int by_point(const void *a, const void *b)
{
    const struct character *x = a, *y = b;
    return (x->point > y->point) - (x->point < y->point);
}

#define POINT_COUNT 0x110000u

static struct character *count_characters(const struct bpe_trainer *t, size_t *count, uint64_t *total)
{
    struct character *all = mem_calloc(POINT_COUNT, sizeof *all);
    *count = 0;
    *total = 0;
    if (!all)
        return NULL;
    for (size_t i = 0; i < t->words.count; i++) {
        size_t len;
        const char *text = text_set_at(&t->words, (uint32_t)i, &len);
        for (size_t at = 0; at < len;) {
            uint32_t point;
            at += utf8_next(text + at, len - at, &point);
            all[point].count += t->word_counts[i];
            *total += t->word_counts[i];
        }
    }
    for (uint32_t point = 0; point < POINT_COUNT; point++)
        if (all[point].count)
            all[(*count)++] = (struct character){point, all[point].count};
    return all;
}

/* U+2581 stands for the space in the file, so as a character of the text it can only be spelled by bytes. */
static bool may_be_token(uint32_t point)
{
    return point != 0 && point != UTF8_REPLACEMENT && point != 0x2581;
}

static enum ph_status choose_characters(struct bpe_trainer *t, struct ph_err *err)
{
    size_t count, kept = 0, room = t->params.n_tokens - bpe_head_count(t);
    uint64_t total, covered = 0;
    struct character *all = count_characters(t, &count, &total);
    if (!all)
        return ph_fail(err, PH_ERR_NOMEM, "no memory to count characters");
    qsort(all, count, sizeof *all, by_count);
    for (size_t i = 0; i < count && kept < room && (double)covered < t->params.coverage * (double)total;
         i++) {
        covered += all[i].count;
        if (may_be_token(all[i].point))
            all[kept++] = all[i];
    }
    qsort(all, kept, sizeof *all, by_point);
    bool ok = true;
    for (size_t i = 0; i < kept && ok; i++) {
        char utf8[UTF8_LEN_MAX];
        uint32_t index;
        ok = text_set_put(&t->symbol_texts, utf8, utf8_encode(all[i].point, utf8), &index);
    }
    mem_free(all);
    t->stats.characters = kept;
    return ok ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory for %zu characters", kept);
}

static enum ph_status choose_symbols(struct bpe_trainer *t, struct ph_err *err)
{
    enum ph_status status = PH_OK;
    if (t->params.kind == BPE_SPM)
        status = choose_characters(t, err);
    for (unsigned byte = 0; byte < 256 && t->params.kind == BPE_BYTES && status == PH_OK; byte++) {
        char raw = (char)byte;
        uint32_t index;
        if (!text_set_put(&t->symbol_texts, &raw, 1, &index))
            status = ph_fail(err, PH_ERR_NOMEM, "no memory for bytes");
    }
    t->base_count = t->symbol_texts.count;
    return status;
}

/* ---- Words to runs of symbols */

static bool end_run(struct bpe_trainer *t, size_t start, uint64_t count)
{
    if (t->symbol_count == start)
        return true;
    if (t->run_count >= UINT32_MAX || !corpus_room(&t->runs, &t->run_cap, t->run_count + 1, sizeof *t->runs))
        return false;
    t->runs[t->run_count++] = (struct bpe_word){start, (uint32_t)(t->symbol_count - start), count};
    return true;
}

static bool add_word(struct bpe_trainer *t, const char *text, size_t len, uint64_t count)
{
    size_t start = t->symbol_count, n;
    if (!corpus_room(&t->symbols, &t->symbol_cap, t->symbol_count + len, sizeof *t->symbols))
        return false;
    for (size_t at = 0; at < len; at += n) {
        uint32_t point;
        n = t->params.kind == BPE_BYTES ? 1 : utf8_next(text + at, len - at, &point);
        uint32_t symbol = text_set_find(&t->symbol_texts, text + at, n);
        if (symbol != TEXT_SET_NONE) {
            t->symbols[t->symbol_count++] = symbol;
            continue;
        }
        if (!end_run(t, start, count))
            return false;
        start = t->symbol_count;
    }
    return end_run(t, start, count);
}

static enum ph_status make_runs(struct bpe_trainer *t, struct ph_err *err)
{
    for (size_t i = 0; i < t->words.count; i++) {
        size_t len;
        const char *text = text_set_at(&t->words, (uint32_t)i, &len);
        if (!add_word(t, text, len, t->word_counts[i]))
            return ph_fail(err, PH_ERR_NOMEM, "no memory for %zu distinct words", t->words.count);
    }
    return PH_OK;
}

/* ---- The run */

enum ph_status bpe_trainer_run(struct bpe_trainer *trainer,
                               bool (*progress)(void *ud, uint64_t done, uint64_t total), void *ud,
                               struct ph_err *err)
{
    if (trainer->ran)
        return ph_fail(err, PH_ERR_ARG, "this tokenizer is trained already");
    if (trainer->words.count == 0)
        return ph_fail(err, PH_ERR_ARG, "there is no text to train a tokenizer on");
    enum ph_status status = choose_symbols(trainer, err);
    if (status == PH_OK)
        status = make_runs(trainer, err);
    if (status != PH_OK)
        return status;
    trainer->merges_wanted_tokens = trainer->params.n_tokens - bpe_head_count(trainer) - trainer->base_count;
    status = bpe_merge_run(trainer, progress, ud, err);
    if (status != PH_OK)
        return status;
    trainer->ran = true;
    trainer->stats.distinct_words = trainer->words.count;
    trainer->stats.merges = trainer->merge_count;
    trainer->stats.tokens = bpe_head_count(trainer) + trainer->symbol_texts.count;
    for (size_t i = 0; i < trainer->run_count; i++)
        trainer->stats.corpus_symbols += trainer->runs[i].len * trainer->runs[i].count;
    return PH_OK;
}

void bpe_trainer_stats(const struct bpe_trainer *trainer, struct bpe_stats *out)
{
    *out = trainer->stats;
}
