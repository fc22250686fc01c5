/* Token files of any bytes: opening, then every document and batches of every part. The header's checksum is
 * put right first, or hardly anything would get beyond it. */
#include <stdlib.h>
#include <string.h>

#include "train/corpus_int.h"
#include "train/train.h"

static void look_at(const struct corpus *corpus)
{
    const struct corpus_totals *all = corpus_totals(corpus, CORPUS_ALL);
    volatile uint64_t sum = 0;
    for (uint64_t d = 0; d < all->documents; d++) {
        struct corpus_doc doc = corpus_doc(corpus, d);
        for (uint64_t i = doc.first; i < doc.first + doc.count; i++) {
            if ((size_t)corpus_token(corpus, i) >= corpus_params(corpus)->n_vocab)
                abort();
            sum += corpus_is_target(corpus, i);
        }
    }
    if (sum != all->targets)
        abort();
}

static void take_batches(const struct corpus *corpus, enum corpus_part part)
{
    const struct batcher_params params = {part, 3, false, 1};
    struct batcher *batcher;
    int32_t tokens[5 * 4];
    uint8_t targets[5 * 3];
    if (batcher_create(&batcher, corpus, &params, NULL) != PH_OK)
        return;
    for (int i = 0; i < 4; i++)
        batcher_next(batcher, 5, tokens, targets);
    batcher_free(batcher);
}

static void put_sum(uint8_t *bytes, size_t at, uint64_t sum)
{
    for (size_t i = 0; i < 8; i++)
        bytes[at + i] = (uint8_t)(sum >> (8 * i));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct corpus *corpus;
    uint8_t *bytes = malloc(len ? len : 1);
    if (!bytes)
        return 0;
    memcpy(bytes, data, len);
    if (len >= CORPUS_HEADER_BYTES)
        put_sum(bytes, AT_HEADER_SUM, corpus_sum(bytes, AT_HEADER_SUM));
    if (corpus_open_memory(&corpus, bytes, len, "fuzz", NULL) == PH_OK) {
        look_at(corpus);
        for (int part = 0; part <= CORPUS_ALL; part++)
            take_batches(corpus, (enum corpus_part)part);
        corpus_free(corpus);
    }
    free(bytes);
    return 0;
}
