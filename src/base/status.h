/* Status codes and error messages.
 *
 * Functions that can fail for reasons outside our code return `enum ph_status`; 0 is success. Where a person
 * will read the reason, a trailing `struct ph_err *` (may be NULL) receives code and message, written once at
 * the place that knows: what was wrong, where (file, offset, key, line), what to do. Thread: any; nothing
 * here has state. */
#ifndef PHAROS_BASE_STATUS_H
#define PHAROS_BASE_STATUS_H

#define PH_MUST_USE __attribute__((warn_unused_result))
#define PH_PRINTF(fmt_index, first_arg) __attribute__((format(printf, fmt_index, first_arg)))

enum ph_status {
    PH_OK = 0,
    PH_ERR_ARG,         /* a value the caller or user gave is not acceptable */
    PH_ERR_FORMAT,      /* bytes do not follow their format (JSON, GGUF, HTTP, YAML, UTF-8) */
    PH_ERR_LIMIT,       /* a named limit would be exceeded */
    PH_ERR_NOTFOUND,    /* file, key, model or id does not exist */
    PH_ERR_UNSUPPORTED, /* well-formed, but not something this build can do; the message names it */
    PH_ERR_NOMEM,       /* the allocator, or a byte budget, has no more */
    PH_ERR_IO,          /* the operating system refused; the message carries its words */
    PH_ERR_BUSY,        /* a bounded queue is full: try again later */
    PH_ERR_CANCELLED,   /* its owner asked it to stop */
    PH_ERR_TIMEOUT,     /* a deadline passed */
    PH_ERR_INTERNAL,    /* a fault of ours that could be contained */
    PH_ERR_CONFLICT,    /* somebody else was first: look again */
    PH_STATUS_COUNT
};

#define PH_ERR_MESSAGE_MAX 512

struct ph_err {
    enum ph_status code;
    char message[PH_ERR_MESSAGE_MAX]; /* one line, no trailing newline, always terminated */
};

/* Fills `err` (when not NULL) and returns `code`, so that `return ph_fail(err, PH_ERR_IO, "...")` reads well.
 * A message longer than PH_ERR_MESSAGE_MAX is cut at a character boundary; line ends and tabs in it become
 * spaces, other control characters and bytes that are not UTF-8 become '?'. */
enum ph_status ph_fail(struct ph_err *err, enum ph_status code, const char *fmt, ...) PH_PRINTF(3, 4);

/* "ok", "bad argument", ...; never NULL. */
const char *ph_status_name(enum ph_status code);

#endif
