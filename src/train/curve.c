/* loss.csv: one row a step, appended. On going on from a checkpoint the rows after it are cut off, because
 * their steps are done again. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "train/run_int.h"

static const char header[] = "step,tokens,loss,validation_loss,bits_per_byte,rate,norm,tokens_per_s\n";

/* Where the rows after `step` begin; a last row without its end goes too. */
static size_t kept_len(const struct buf *text, uint64_t step)
{
    size_t at = sizeof header - 1;
    if (text->len < at || memcmp(text->data, header, at) != 0)
        return 0;
    while (at < text->len) {
        const char *end = memchr(text->data + at, '\n', text->len - at);
        if (!end || strtoull(text->data + at, NULL, 10) > step)
            break;
        at = (size_t)(end - text->data) + 1;
    }
    return at;
}

enum ph_status curve_open(struct curve *curve, const char *path, uint64_t step, struct ph_err *err)
{
    struct buf text;
    *curve = (struct curve){.path = path};
    buf_init(&text, CURVE_BYTES_MAX);
    enum ph_status status = file_exists(path) ? file_read(path, &text, err) : PH_OK;
    size_t len = status == PH_OK ? kept_len(&text, step) : 0;
    if (status == PH_OK && len == 0)
        status = file_write_atomic(path, header, sizeof header - 1, 0644, err);
    else if (status == PH_OK && len < text.len)
        status = file_write_atomic(path, text.data, len, 0644, err);
    buf_release(&text);
    if (status != PH_OK)
        return status;
    curve->file = fopen(path, "ae");
    return curve->file ? PH_OK : ph_fail(err, PH_ERR_IO, "cannot open %s to add to it", path);
}

bool curve_add(struct curve *curve, const struct run_report *r)
{
    const struct trainer_validation *v = r->validation;
    fprintf(curve->file, "%" PRIu64 ",%" PRIu64 ",%.6f,", r->step.step, r->step.tokens, r->step.loss);
    if (v)
        fprintf(curve->file, "%.6f,%.6f", v->loss, v->bits_per_byte);
    else
        fputc(',', curve->file);
    fprintf(curve->file, ",%.6g,%.4f,%.1f\n", r->step.rate, r->step.norm, r->tokens_per_s);
    bool ok = fflush(curve->file) == 0 && !ferror(curve->file);
    clearerr(curve->file);
    return ok;
}

void curve_close(struct curve *curve)
{
    if (curve->file)
        fclose(curve->file);
    *curve = (struct curve){0};
}
