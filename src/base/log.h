/* Log: one line an event, human or JSON, to one sink. The sink is the one mutable global besides the signal
 * flag.
 *
 * A line has a time, a level, an area (a module's name, or finer) and a message; it is written with one
 * write(2), so lines of several threads never mix. Control characters and invalid UTF-8 from outside are
 * escaped. Never log a key, a prompt or a reply. Thread: any. */
#ifndef PHAROS_BASE_LOG_H
#define PHAROS_BASE_LOG_H

#include <stdbool.h>

#include "base/status.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_setup(int fd, enum log_level level,
               bool json_lines); /* before threads start; default: stderr, INFO, human */
bool log_enabled(enum log_level level);
void log_write(enum log_level level, const char *area, const char *fmt, ...) PH_PRINTF(3, 4);
bool log_level_parse(const char *name, enum log_level *out); /* "error", "warn", "info", "debug" */

#define log_error(area, ...) log_write(LOG_ERROR, area, __VA_ARGS__)
#define log_warn(area, ...) log_write(LOG_WARN, area, __VA_ARGS__)
#define log_info(area, ...) log_write(LOG_INFO, area, __VA_ARGS__)
#define log_debug(area, ...)                         \
    do {                                             \
        if (log_enabled(LOG_DEBUG))                  \
            log_write(LOG_DEBUG, area, __VA_ARGS__); \
    } while (0)

#endif
