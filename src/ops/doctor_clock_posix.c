/* The clock: keys run out, budgets turn over and certificates are believed by it. */
#include <stdio.h>
#include <sys/timex.h>

#include "base/file.h"
#include "base/limits.h"
#include "ops/doctor_int.h"

#define YEAR_MIN 2025 /* this was written in it or later */
#define YEAR_MAX 2100

/* systemd's own word, else the kernel's. -1: neither says anything. */
static int is_synchronised(const struct doctor_subject *subject)
{
    char path[PATH_BYTES_MAX];
    struct timex kernel = {.modes = 0};
    snprintf(path, sizeof path, "%.*s/run/systemd/timesync/synchronized", PATH_BYTES_MAX - 64, subject->root);
    if (file_exists(path))
        return 1;
    int state = adjtimex(&kernel);
    return state < 0 ? -1 : state != TIME_ERROR && !(kernel.status & STA_UNSYNC);
}

void doctor_clock(struct doctor *doctor)
{
    static const char advice[] = "set it: timedatectl set-ntp true, or install an NTP client such as chrony";
    const struct doctor_subject *subject = doctor->subject;
    char now[CLOCK_UTC_TEXT_MAX];
    struct file_stamp program = {0};
    int64_t now_ms = clock_unix_ms(subject->clock);
    int64_t year = clock_date(clock_day(now_ms)).year;
    clock_format_utc(now_ms, now);
    if (subject->program)
        file_stamp(subject->program, &program);
    int synchronised = is_synchronised(subject);
    if (year < YEAR_MIN || year > YEAR_MAX)
        doctor_say(doctor, DOCTOR_FAIL, advice, "the clock says %s", now);
    else if (now_ms < program.modified_ns / 1000000)
        doctor_say(doctor, DOCTOR_FAIL, advice, "the clock says %s, before this program was built", now);
    else if (synchronised < 0)
        doctor_say(doctor, DOCTOR_SKIP, "", "%s; the system does not say whether anything keeps it right",
                   now);
    else
        doctor_say(doctor, synchronised ? DOCTOR_OK : DOCTOR_WARN, synchronised ? "" : advice, "%s, %s", now,
                   synchronised ? "kept right by NTP" : "and nothing keeps it right");
}
