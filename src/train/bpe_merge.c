/* Joining pairs.
 *
 * Every pair of neighbouring symbols has a count and the list of words it was seen in. A heap holds the
 * pairs by count. Joining one pair touches the words of its list only: the counts of a touched word's pairs
 * are taken back, the word is rewritten, and its new pairs are counted. Pairs without the made symbol can
 * only have lost; pairs with it are looked at afterwards and pushed when they have risen. So the heap is
 * lazy:
 *   M1 a pair with a count > 0 that may be joined has one valid heap entry, and its `pushed` >= its count;
 *   M2 an entry whose number is not the pair's `pushed` is left over from before and is dropped;
 *   M3 an entry that is valid but higher than the pair's count goes back with the count.
 * What surfaces with M3 satisfied is the true maximum, as a recount after every step would find it (the unit
 * test does just that).
 *
 * One text can be made in two ways (a + bc, ab + c). It is one symbol, and one token, with two merges. When
 * its old merges apply to the new occurrences they are joined again in turn without being listed twice. */
#include "base/limits.h"
#include "train/bpe_int.h"

struct pair {
    uint32_t left, right;
    uint64_t count;
    uint64_t pushed;  /* of its valid heap entry; 0: none */
    uint64_t touched; /* number of the step that last put it into `risen` */
    uint32_t *words;  /* runs it was seen in; may have repeats and runs it has left */
    size_t word_count, word_cap;
    bool listed; /* has its merge */
    bool banned;
};

struct heap_entry {
    uint64_t count;
    uint32_t left, right, pair;
};

struct merger {
    struct bpe_trainer *trainer;
    struct pair *pairs;
    size_t pair_count, pair_cap;
    uint32_t *slots; /* pair index + 1 */
    size_t slot_count;
    struct heap_entry *heap;
    size_t heap_len, heap_cap;
    uint32_t *risen; /* pairs with the made symbol, of this step */
    size_t risen_count, risen_cap;
    uint64_t step;
    size_t made_count;
    struct buf text, file_text;
    bool failed; /* no memory */
};

/* ---- Pairs */

static size_t pair_hash(uint32_t left, uint32_t right)
{
    return (size_t)corpus_mix((uint64_t)left << 32 | right);
}

static bool grow_slots(struct merger *m)
{
    size_t slot_count = m->slot_count ? m->slot_count * 2 : 1 << 12;
    uint32_t *slots = mem_calloc(slot_count, sizeof *slots);
    if (!slots)
        return false;
    for (size_t i = 0; i < m->pair_count; i++) {
        size_t at = pair_hash(m->pairs[i].left, m->pairs[i].right) & (slot_count - 1);
        while (slots[at])
            at = (at + 1) & (slot_count - 1);
        slots[at] = (uint32_t)i + 1;
    }
    mem_free(m->slots);
    m->slots = slots;
    m->slot_count = slot_count;
    return true;
}

/* The pair's index; UINT32_MAX: no memory. */
static uint32_t pair_index(struct merger *m, uint32_t left, uint32_t right)
{
    if (m->pair_count * 2 >= m->slot_count && !grow_slots(m))
        return UINT32_MAX;
    size_t mask = m->slot_count - 1, at = pair_hash(left, right) & mask;
    for (; m->slots[at]; at = (at + 1) & mask) {
        const struct pair *pair = &m->pairs[m->slots[at] - 1];
        if (pair->left == left && pair->right == right)
            return m->slots[at] - 1;
    }
    if (m->pair_count >= UINT32_MAX - 1 ||
        !corpus_room(&m->pairs, &m->pair_cap, m->pair_count + 1, sizeof *m->pairs))
        return UINT32_MAX;
    m->pairs[m->pair_count] = (struct pair){.left = left, .right = right};
    m->slots[at] = (uint32_t)++m->pair_count;
    return (uint32_t)m->pair_count - 1;
}

/* ---- The heap: most frequent first, then the older left symbol, then the older right one */

static bool goes_before(const struct heap_entry *a, const struct heap_entry *b)
{
    if (a->count != b->count)
        return a->count > b->count;
    return a->left != b->left ? a->left < b->left : a->right < b->right;
}

static void heap_push(struct merger *m, uint32_t index)
{
    struct pair *pair = &m->pairs[index];
    struct heap_entry item = {pair->count, pair->left, pair->right, index};
    if (!corpus_room(&m->heap, &m->heap_cap, m->heap_len + 1, sizeof *m->heap)) {
        m->failed = true;
        return;
    }
    pair->pushed = pair->count;
    size_t at = m->heap_len++;
    for (; at > 0 && goes_before(&item, &m->heap[(at - 1) / 2]); at = (at - 1) / 2)
        m->heap[at] = m->heap[(at - 1) / 2];
    m->heap[at] = item;
}

static struct heap_entry heap_pop(struct merger *m)
{
    struct heap_entry best = m->heap[0], last = m->heap[--m->heap_len];
    size_t at = 0;
    for (size_t child = 1; child < m->heap_len; child = 2 * at + 1) {
        if (child + 1 < m->heap_len && goes_before(&m->heap[child + 1], &m->heap[child]))
            child++;
        if (!goes_before(&m->heap[child], &last))
            break;
        m->heap[at] = m->heap[child];
        at = child;
    }
    m->heap[at] = last;
    return best;
}

/* ---- Words */

static void lose_pairs(struct merger *m, const struct bpe_word *word)
{
    const uint32_t *symbols = m->trainer->symbols + word->start;
    for (uint32_t i = 0; i + 1 < word->len; i++)
        m->pairs[pair_index(m, symbols[i], symbols[i + 1])].count -= word->count;
}

/* Counts a word's pairs. The word joins the lists of pairs with symbol `made`; UINT32_MAX: of all. */
static void gain_pairs(struct merger *m, uint32_t run, uint32_t made)
{
    const struct bpe_word *word = &m->trainer->runs[run];
    const uint32_t *symbols = m->trainer->symbols + word->start;
    for (uint32_t i = 0; i + 1 < word->len && !m->failed; i++) {
        uint32_t index = pair_index(m, symbols[i], symbols[i + 1]);
        if (index == UINT32_MAX) {
            m->failed = true;
            return;
        }
        struct pair *pair = &m->pairs[index];
        pair->count += word->count;
        if (made != UINT32_MAX && pair->left != made && pair->right != made)
            continue;
        if (pair->touched != m->step) {
            pair->touched = m->step;
            if (!corpus_room(&m->risen, &m->risen_cap, m->risen_count + 1, sizeof *m->risen))
                m->failed = true;
            else
                m->risen[m->risen_count++] = index;
        }
        if (pair->word_count && pair->words[pair->word_count - 1] == run)
            continue;
        if (!corpus_room(&pair->words, &pair->word_cap, pair->word_count + 1, sizeof *pair->words))
            m->failed = true;
        else
            pair->words[pair->word_count++] = run;
    }
}

static bool has_pair(const uint32_t *symbols, uint32_t len, uint32_t left, uint32_t right)
{
    for (uint32_t i = 0; i + 1 < len; i++)
        if (symbols[i] == left && symbols[i + 1] == right)
            return true;
    return false;
}

static void merge_word(struct merger *m, uint32_t run, const struct bpe_merge *merge)
{
    struct bpe_word *word = &m->trainer->runs[run];
    uint32_t *symbols = m->trainer->symbols + word->start, len = 0;
    if (!has_pair(symbols, word->len, merge->left, merge->right))
        return;
    lose_pairs(m, word);
    for (uint32_t i = 0; i < word->len; i++) {
        bool joins = i + 1 < word->len && symbols[i] == merge->left && symbols[i + 1] == merge->right;
        symbols[len++] = joins ? merge->made : symbols[i];
        i += joins;
    }
    word->len = len;
    gain_pairs(m, run, merge->made);
}

static void push_risen(struct merger *m)
{
    for (size_t i = 0; i < m->risen_count && !m->failed; i++) {
        const struct pair *pair = &m->pairs[m->risen[i]];
        if (!pair->banned && pair->count > pair->pushed && pair->count >= m->trainer->params.pair_min)
            heap_push(m, m->risen[i]);
    }
    m->risen_count = 0;
    m->step++;
}

/* ---- Steps */

/* The symbol that the pair makes. false: it may not be made (too long, or the text of a special token). */
static bool joined_symbol(struct merger *m, const struct pair *pair, uint32_t *made)
{
    struct bpe_trainer *t = m->trainer;
    size_t left_len, right_len;
    const char *left = text_set_at(&t->symbol_texts, pair->left, &left_len);
    const char *right = text_set_at(&t->symbol_texts, pair->right, &right_len);
    if (left_len + right_len > t->params.token_bytes_max)
        return false;
    buf_clear(&m->text);
    buf_clear(&m->file_text);
    buf_append(&m->text, left, left_len);
    buf_append(&m->text, right, right_len);
    if (buf_status(&m->text) == PH_OK)
        bpe_file_text(t->params.kind, m->text.data, m->text.len, &m->file_text);
    if (buf_status(&m->text) != PH_OK || buf_status(&m->file_text) != PH_OK) {
        m->failed = true;
        return false;
    }
    if (text_set_find(&t->reserved, m->file_text.data, m->file_text.len) != TEXT_SET_NONE)
        return false;
    size_t before = t->symbol_texts.count;
    if (!text_set_put(&t->symbol_texts, m->text.data, m->text.len, made))
        m->failed = true;
    m->made_count += t->symbol_texts.count - before;
    return !m->failed;
}

static void join(struct merger *m, uint32_t index)
{
    struct bpe_trainer *t = m->trainer;
    struct bpe_merge merge = {m->pairs[index].left, m->pairs[index].right, 0};
    m->pairs[index].pushed = 0;
    if (!joined_symbol(m, &m->pairs[index], &merge.made)) {
        m->pairs[index].banned = true;
        return;
    }
    if (!m->pairs[index].listed) {
        m->pairs[index].listed = true;
        if (!corpus_room(&t->merges, &t->merge_cap, t->merge_count + 1, sizeof *t->merges))
            m->failed = true;
        else
            t->merges[t->merge_count++] = merge;
    }
    uint32_t *words = m->pairs[index].words;
    size_t count = m->pairs[index].word_count;
    m->pairs[index].words = NULL;
    m->pairs[index].word_count = m->pairs[index].word_cap = 0;
    for (size_t i = 0; i < count && !m->failed; i++)
        merge_word(m, words[i], &merge);
    mem_free(words);
    push_risen(m);
}

static void release(struct merger *m)
{
    for (size_t i = 0; i < m->pair_count; i++)
        mem_free(m->pairs[i].words);
    mem_free(m->pairs);
    mem_free(m->slots);
    mem_free(m->heap);
    mem_free(m->risen);
    buf_release(&m->text);
    buf_release(&m->file_text);
}

enum ph_status bpe_merge_run(struct bpe_trainer *trainer,
                             bool (*progress)(void *ud, uint64_t done, uint64_t total), void *ud,
                             struct ph_err *err)
{
    struct merger m = {.trainer = trainer, .step = 1};
    bool cancelled = false;
    buf_init(&m.text, VOCAB_TOKEN_BYTES_MAX);
    buf_init(&m.file_text, VOCAB_TOKEN_BYTES_MAX);
    for (size_t i = 0; i < trainer->run_count && !m.failed; i++)
        gain_pairs(&m, (uint32_t)i, UINT32_MAX);
    push_risen(&m);
    while (m.heap_len > 0 && m.made_count < trainer->merges_wanted_tokens && !m.failed && !cancelled) {
        struct heap_entry best = heap_pop(&m);
        struct pair *pair = &m.pairs[best.pair];
        if (best.count != pair->pushed) /* M2 */
            continue;
        if (best.count == pair->count) {
            join(&m, best.pair);
            cancelled = progress && !progress(ud, m.made_count, trainer->merges_wanted_tokens);
        } else { /* M3 */
            pair->pushed = 0;
            if (pair->count >= trainer->params.pair_min)
                heap_push(&m, best.pair);
        }
    }
    bool failed = m.failed;
    release(&m);
    if (failed)
        return ph_fail(err, PH_ERR_NOMEM, "no memory to train a tokenizer on %zu distinct words",
                       trainer->words.count);
    return cancelled ? ph_fail(err, PH_ERR_CANCELLED, "training the tokenizer was stopped") : PH_OK;
}
