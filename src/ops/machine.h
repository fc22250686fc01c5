/* A machine as estimates, placement and routing see it: what it holds and how fast that is.
 *
 * The same struct is filled by measuring (`ops/probe.h`), from the file that a measurement left, and from the
 * table of named hardware. What is not known is 0 and counts as absent, never as some default. Texts are
 * terminated, printable and cut where they are too long. Plain data: copy it. */
#ifndef PHAROS_OPS_MACHINE_H
#define PHAROS_OPS_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"

#define MACHINE_TEXT_BYTES 96
#define MACHINE_DEVICES_MAX 32
#define MACHINE_THREADS_MAX 256
#define MACHINE_TYPES_MAX 32
#define MACHINE_TYPE_BYTES 24
#define MACHINE_FILE "machine.json" /* in the data directory: the last measurement */
#define MACHINE_FILE_BYTES_MAX (1u << 20)

/* Operations a second; a multiplication with its addition is two. */
struct machine_peaks {
    double f32, f16, bf16, int8;
};

/* Of a matrix times a vector (BLAS: gemv), weights of a format that caches hold: unpacking included, memory
 * not. */
struct machine_gemv_rate {
    char type[MACHINE_TYPE_BYTES]; /* "Q4_K" */
    double ops_per_s;
};

enum machine_device_kind { MACHINE_GPU, MACHINE_NPU };

/* A processor of its own: a card, or what shares the machine's memory. */
struct machine_device {
    enum machine_device_kind kind;
    char name[MACHINE_TEXT_BYTES], vendor[MACHINE_TEXT_BYTES], driver[MACHINE_TEXT_BYTES];
    char address[MACHINE_TEXT_BYTES]; /* on its bus: "0000:01:00.0" */
    bool shared_memory;               /* it has none of its own: it uses the machine's */
    uint64_t memory_bytes, memory_free_bytes;
    double memory_bytes_per_s; /* from clock and bus width, or as published */
    double link_bytes_per_s;   /* to the machine's memory, one way */
    struct machine_peaks peaks;
    double power_limit_w;
    double price_usd;
};

struct machine {
    char name[MACHINE_TEXT_BYTES]; /* the host's, or that of the table's row */
    char cpu[MACHINE_TEXT_BYTES];  /* as it calls itself */
    char isa[MACHINE_TEXT_BYTES];  /* the kernels it runs: "avx512bf16" */
    unsigned cores, threads;       /* that this process may use */
    uint64_t memory_bytes, memory_available_bytes;
    /* Reading, by 1..n threads, bytes a second: [i] is of i + 1 threads. */
    double memory_bytes_per_s[MACHINE_THREADS_MAX];
    unsigned memory_points;
    struct machine_peaks peaks;                             /* of all its cores */
    struct machine_gemv_rate gemv_rates[MACHINE_TYPES_MAX]; /* of all its cores */
    size_t gemv_rate_count;
    double disk_read_bytes_per_s; /* past the page cache, */
    bool disk_is_cached;          /* ... or with its help: the system would not read past it */
    double fsync_s;               /* median time of one */
    struct machine_device devices[MACHINE_DEVICES_MAX];
    size_t device_count;
    double load_w, idle_w, price_usd;
    unsigned sensors;               /* of temperature; a virtual machine has none */
    bool measured;                  /* here, not published */
    bool disturbed;                 /* ... while others used the processors: expect more of a quiet machine */
    int64_t measured_unix_s;        /* when */
    char about[MACHINE_TEXT_BYTES]; /* where published figures are from, and of when */
};

/* Operations a second of a matrix of that format times a vector; 0: nobody measured it. */
double machine_gemv_rate(const struct machine *machine, const char *type);
/* Adds or replaces one; what does not fit into the table is left out. */
void machine_set_gemv_rate(struct machine *machine, const char *type, double ops_per_s);

/* Printable UTF-8, cut at a character's end where it is too long. */
void machine_set_text(char out[MACHINE_TEXT_BYTES], const char *text, size_t len);

/* One JSON object; 0, false and "" are left out. */
void machine_format(struct buf *out, const struct machine *machine);
/* Checks every value; unknown members are passed over. An error names `source` and the member. */
PH_MUST_USE enum ph_status machine_parse(struct machine *out, const char *source, const char *text,
                                         size_t len, struct ph_err *err);

/* The same as a file, written atomically. */
PH_MUST_USE enum ph_status machine_read(struct machine *out, const char *path, struct ph_err *err);
PH_MUST_USE enum ph_status machine_write(const struct machine *machine, const char *path, struct ph_err *err);

#endif
