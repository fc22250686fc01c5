/* Models of any bytes: what opens must also run a few tokens and a low-rank adapter's checks without a
 * fault. The file reaches model_open through an anonymous file, because it maps paths. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "model/model.h"

#define ROWS 5

static void encode(const struct model *model)
{
    struct encoder *encoder;
    size_t n_vocab = model_info(model)->n_vocab, width = model_info(model)->n_embd;
    const struct encoder_params params = {.threads = 1, .context_len = ROWS, .rows_max = 2 * ROWS};
    if (n_vocab == 0 || width > 1 << 16 || encoder_create(&encoder, model, &params, NULL) != PH_OK)
        return;
    float *out = malloc(2 * width * sizeof *out);
    int32_t tokens[ROWS];
    for (size_t i = 0; i < ROWS; i++)
        tokens[i] = (int32_t)(i % n_vocab);
    const struct encoder_text texts[2] = {{tokens, ROWS, out}, {tokens, 1, out + width}};
    if (!out || encoder_run(encoder, texts, 2, NULL) != PH_OK)
        abort();
    free(out);
    encoder_free(encoder);
}

static void run(const struct model *model)
{
    struct runner *runner;
    const size_t n_vocab = model_info(model)->n_vocab;
    const struct runner_params params = {
        .threads = 1, .context_len = 40, .rows_max = ROWS, .outputs_max = 2, .sequences_max = 2};
    if (n_vocab > 1 << 16 || runner_create(&runner, model, &params, NULL) != PH_OK)
        return;
    struct kv_seq *seq = kv_seq_take(runner);
    float *logits = malloc(2 * n_vocab * sizeof *logits);
    struct runner_row rows[ROWS];
    for (size_t i = 0; i < ROWS; i++)
        rows[i] = (struct runner_row){seq, (int32_t)(i % n_vocab), i < 3 ? NULL : logits + (i - 3) * n_vocab};
    if (!seq || !logits || kv_seq_reserve(runner, seq, 2 * ROWS) != PH_OK)
        abort();
    if (runner_step(runner, rows, ROWS, PHASE_PREFILL, NULL) != PH_OK ||
        runner_step(runner, rows + 3, 1, PHASE_DECODE, NULL) != PH_OK || kv_seq_len(seq) != ROWS + 1)
        abort();
    kv_seq_give(runner, seq);
    free(logits);
    runner_free(runner);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct model *model = NULL;
    struct lora *lora = NULL;
    char path[64];
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, data, len) != (ssize_t)len)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (model_open(&model, path, false, NULL) == PH_OK) {
        if (model_is_encoder(model))
            encode(model);
        else
            run(model);
        if (lora_open(&lora, model, path, NULL) == PH_OK)
            lora_free(lora);
        model_free(model);
    }
    close(fd);
    return 0;
}
