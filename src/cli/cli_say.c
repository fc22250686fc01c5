/* What the commands say on stderr: errors, one line each, and a progress bar for slow work. */
#include <stdarg.h>
#include <unistd.h>

#include <uv.h>

#include "base/process.h"
#include "cli/cli_int.h"

#define PROGRESS_DELAY_NS 2000000000u
#define PROGRESS_REDRAW_NS 200000000u
#define PROGRESS_WIDTH 30

int cli_error(int exit_code, const char *fmt, ...)
{
    struct ph_err err;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err.message, sizeof err.message, fmt, args);
    va_end(args);
    fprintf(stderr, "pharos: %s\n", err.message);
    return exit_code;
}

int cli_fail(const struct ph_err *err)
{
    return err->code == PH_ERR_CANCELLED ? CLI_EXIT_FAILURE : cli_error(CLI_EXIT_FAILURE, "%s", err->message);
}

enum ph_status cli_sent(struct ph_err *err)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return PH_OK;
    if (process_stdout_is_deaf())
        return ph_fail(err, PH_ERR_CANCELLED, "the reader of standard output has gone");
    return ph_fail(err, PH_ERR_IO, "standard output could not be written; is the disk full?");
}

void cli_progress_begin(struct cli_progress *progress, const char *label)
{
    *progress = (struct cli_progress){
        .label = label, .start_ns = uv_hrtime(), .terminal = isatty(STDERR_FILENO) == 1};
}

void cli_progress_show(struct cli_progress *progress, uint64_t done, uint64_t total)
{
    if (!progress->terminal || total == 0)
        return;
    uint64_t now = uv_hrtime();
    if (now - progress->start_ns < PROGRESS_DELAY_NS || now - progress->drawn_ns < PROGRESS_REDRAW_NS)
        return;
    progress->drawn_ns = now;
    if (done > total)
        done = total;
    double share = (double)done / (double)total;
    int full = (int)(share * PROGRESS_WIDTH);
    double left_s = done ? (double)(now - progress->start_ns) * 1e-9 * (1 / share - 1) : 0;
    fprintf(stderr, "\r%s [%.*s%*s] %3.0f %%, %.0f s left\033[K", progress->label, full,
            "##############################", PROGRESS_WIDTH - full, "", share * 100, left_s);
    fflush(stderr);
}

void cli_progress_end(struct cli_progress *progress)
{
    if (progress->drawn_ns)
        fputs("\r\033[K", stderr);
}
