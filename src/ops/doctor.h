/* doctor: looks over a station and says what is wrong and what to do about it.
 *
 * A check is a row of a table and a function; it tells lines, each with a level. Nothing is changed, nothing
 * is sent but a greeting to providers, and their keys only when that is asked for. Thread: one at a time. */
#ifndef PHAROS_OPS_DOCTOR_H
#define PHAROS_OPS_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/status.h"

enum doctor_level {
    DOCTOR_OK,
    DOCTOR_WARN, /* it works, but not for ever, or not for everybody */
    DOCTOR_FAIL, /* the station does not start, or does not do what it should */
    DOCTOR_SKIP, /* it could not be looked at, or there is nothing to look at */
    DOCTOR_LEVELS
};
const char *doctor_level_name(enum doctor_level level); /* "ok", "warn", "fail", "skip" */

struct doctor_line {
    enum doctor_level level;
    const char *check;  /* "models" */
    const char *what;   /* one line */
    const char *advice; /* what to do; "": nothing */
};

struct doctor_model {
    const char *id, *path;
};
struct doctor_provider {
    const char *name, *url;
    const struct http_header *headers; /* with a key: it is asked for its models; none: only greeted */
    size_t header_count;
};
struct doctor_secret {
    const char *path, *what;
};

/* What is looked at. NULL and 0: there is none. */
struct doctor_subject {
    const char *data; /* directory */
    const char *host;
    uint16_t port; /* 0: any */
    bool tls;
    const char *ca_file;
    const struct doctor_model *models;
    size_t model_count;
    const struct doctor_provider *providers;
    size_t provider_count;
    const struct doctor_secret *secrets; /* files */
    size_t secret_count;
    bool has_store;
    const char *postgres; /* the store's address; NULL: SQLite in data/memory */
    bool full;            /* reads every message, and every model whole */
    const char *root;     /* before /run and /sys; "" but in tests */
    const char *program;  /* a file that is not older than this program; NULL: not known */
    const struct clock_source *clock;
    void (*tell)(void *ud, const struct doctor_line *line);
    void *ud;
};

struct doctor {
    const struct doctor_subject *subject;
    const char *check; /* at hand */
    size_t counts[DOCTOR_LEVELS];
};
struct doctor_check {
    const char *name; /* NULL ends a table */
    void (*run)(struct doctor *doctor);
};
/* Runs every check of a table, in its order; counts go on from those of the last one. */
void doctor_run(struct doctor *doctor, const struct doctor_check *checks);
/* Tells a line of the check at hand. */
void doctor_say(struct doctor *doctor, enum doctor_level level, const char *advice, const char *fmt, ...)
    PH_PRINTF(4, 5);

/* Data directory, secrets, models, port, disk, clock, providers, store, libraries, sensors. */
extern const struct doctor_check doctor_checks[];

#endif
