/* What a model of a file should do on this machine, before it has done anything: from the profile that
 * `pharos bench probe` left and the calibration that `pharos bench engine` taught. Thread: any. */
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/cli_int.h"
#include "cli/station_int.h"
#include "ops/estimate.h"

struct sources {
    struct machine machine;
    struct efficiency calibration;
};

static enum ph_status read_sources(const char *data, struct sources *out, struct ph_err *err)
{
    char path[PATH_BYTES_MAX];
    enum ph_status status = cli_data_file(data, MACHINE_FILE, path, err);
    if (status == PH_OK && !file_exists(path))
        return PH_ERR_NOTFOUND; /* nobody has measured: nothing is said */
    if (status == PH_OK)
        status = machine_read(&out->machine, path, err);
    if (status == PH_OK)
        status = cli_data_file(data, EFFICIENCY_FILE, path, err);
    return status == PH_OK ? efficiency_read(&out->calibration, path, err) : status;
}

static enum ph_status predict(const struct sources *sources, const struct station_model *model,
                              enum tensor_type kv_type, struct arena *arena, struct estimate **out,
                              struct ph_err *err)
{
    struct estimate_model shape;
    struct estimate_request request;
    estimate_request_default(&request);
    request.model = &shape;
    request.machine = &sources->machine;
    request.efficiency = &sources->calibration;
    request.on = ESTIMATE_ON_CPU;
    request.threads = (unsigned)model->threads;
    request.kv_type = kv_type;
    enum ph_status status = estimate_model_file(&shape, arena, model->path, err);
    return status == PH_OK ? estimate_make(out, arena, &request, err) : status;
}

void station_predict(const char *data, const struct station_model *model, enum tensor_type kv_type,
                     struct station_prediction *out)
{
    struct arena arena;
    struct ph_err err = {.code = PH_OK};
    struct estimate *e = NULL;
    *out = (struct station_prediction){0};
    arena_init(&arena, ESTIMATE_ARENA_BYTES_MAX);
    struct sources *sources = arena_calloc(&arena, 1, sizeof *sources);
    enum ph_status status = sources ? read_sources(data, sources, &err) : PH_ERR_NOTFOUND;
    if (status == PH_OK)
        status = predict(sources, model, kv_type, &arena, &e, &err);
    if (status == PH_OK)
        *out = (struct station_prediction){.prefill_tokens_s = e->prefill_tokens_per_s.mid,
                                           .decode_tokens_s = e->decode_tokens_per_s.mid,
                                           .decode_low = e->decode_tokens_per_s.low,
                                           .decode_high = e->decode_tokens_per_s.high};
    else if (status != PH_ERR_NOTFOUND)
        log_warn("station", "model %s: its speed cannot be predicted: %s", model->id, err.message);
    arena_release(&arena);
}
