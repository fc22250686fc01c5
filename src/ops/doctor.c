/* The checks of files, and the table of all. Each asks one question, and says what to do when the answer is
 * bad; a command in an advice can be run as it stands. */
#include <openssl/crypto.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/process.h"
#include "memory/store.h"
#include "model/model.h"
#include "ops/doctor_int.h"
#include "ops/thermal.h"

#define OTHERS 077u
#define OTHERS_WRITE 022u
#define DISK_FAIL_BYTES (UINT64_C(200) << 20)
#define DISK_WARN_BYTES (UINT64_C(2) << 30)
#define ADVICE_BYTES (PATH_BYTES_MAX + 128)
#define READ_BYTES ((size_t)1 << 20)

const char *doctor_level_name(enum doctor_level level)
{
    static const char *const names[DOCTOR_LEVELS] = {"ok", "warn", "fail", "skip"};
    return names[level];
}

void doctor_say(struct doctor *doctor, enum doctor_level level, const char *advice, const char *fmt, ...)
{
    struct ph_err what;
    va_list args;
    va_start(args, fmt);
    vsnprintf(what.message, sizeof what.message, fmt, args);
    va_end(args);
    const struct doctor_line line = {level, doctor->check, what.message, advice};
    doctor->counts[level]++;
    doctor->subject->tell(doctor->subject->ud, &line);
}

void doctor_run(struct doctor *doctor, const struct doctor_check *checks)
{
    for (; checks->name; checks++) {
        doctor->check = checks->name;
        checks->run(doctor);
    }
}

#define SIZE_BYTES 32
static const char *size_text(uint64_t bytes, char out[SIZE_BYTES])
{
    bool large = bytes >= 1000000000;
    snprintf(out, SIZE_BYTES, large ? "%.1f GB" : "%.1f MB", (double)bytes * (large ? 1e-9 : 1e-6));
    return out;
}

/* ---- Who may read what */

/* Whether nobody but its owner has any of `bits`; says so when not. */
static bool is_closed(struct doctor *doctor, const struct file_entry *entry, const char *path, unsigned bits,
                      enum doctor_level level)
{
    char advice[ADVICE_BYTES];
    if (entry->owner != (unsigned long)geteuid() && entry->owner != 0 && geteuid() != 0) {
        doctor_say(doctor, DOCTOR_FAIL, "run as its owner, or change the owner with chown",
                   "%s belongs to another user (%lu)", path, entry->owner);
        return false;
    }
    if (!(entry->mode & bits))
        return true;
    snprintf(advice, sizeof advice, "chmod %s %s", entry->is_dir ? "700" : "600", path);
    doctor_say(doctor, level, advice, "%s is open to other users (mode %03o)", path, entry->mode);
    return false;
}

static const struct inner {
    const char *name;
    unsigned bits; /* that others must not have */
} inners[] = {
    {"keys.jsonl", OTHERS}, {"memory", OTHERS}, {"memory/store.db", OTHERS}, {"ledger", OTHERS_WRITE}};

static void check_data(struct doctor *doctor)
{
    const char *data = doctor->subject->data;
    struct file_entry entry;
    struct ph_err err;
    if (!data || file_inspect(data, &entry, &err) == PH_ERR_NOTFOUND) {
        doctor_say(doctor, DOCTOR_SKIP, "`pharos serve` makes it; another place is named with --data DIR",
                   "there is no data directory %s yet", data ? data : "");
        return;
    }
    if (!entry.is_dir) {
        doctor_say(doctor, DOCTOR_FAIL, "name a directory with --data DIR", "%s is no directory", data);
        return;
    }
    bool fine = is_closed(doctor, &entry, data, OTHERS_WRITE, DOCTOR_FAIL) &&
                is_closed(doctor, &entry, data, OTHERS, DOCTOR_WARN);
    for (size_t i = 0; i < sizeof inners / sizeof *inners; i++) {
        char path[PATH_BYTES_MAX];
        int len = snprintf(path, sizeof path, "%s/%s", data, inners[i].name);
        if (len > 0 && (size_t)len < sizeof path && file_inspect(path, &entry, &err) == PH_OK)
            fine = is_closed(doctor, &entry, path, inners[i].bits, DOCTOR_FAIL) && fine;
    }
    if (fine)
        doctor_say(doctor, DOCTOR_OK, "", "%s is its owner's alone", data);
}

static void check_secrets(struct doctor *doctor)
{
    const struct doctor_subject *subject = doctor->subject;
    if (subject->secret_count == 0)
        doctor_say(doctor, DOCTOR_SKIP, "", "the configuration names no file of secrets");
    for (size_t i = 0; i < subject->secret_count; i++) {
        const struct doctor_secret *secret = &subject->secrets[i];
        struct file_entry entry;
        struct ph_err err;
        if (file_inspect(secret->path, &entry, &err) != PH_OK)
            doctor_say(doctor, DOCTOR_FAIL, "put the secret there, mode 600, or name another file", "%s: %s",
                       secret->what, err.message);
        else if (!entry.is_regular)
            doctor_say(doctor, DOCTOR_FAIL, "name a file", "%s: %s is no regular file", secret->what,
                       secret->path);
        else if (is_closed(doctor, &entry, secret->path, OTHERS, DOCTOR_FAIL))
            doctor_say(doctor, DOCTOR_OK, "", "%s: %s is its owner's alone", secret->what, secret->path);
    }
}

/* ---- Models */

/* Every byte is had from the disk: one that cannot be read is met here, not in the middle of an answer. */
static enum ph_status read_whole(const char *path, struct ph_err *err)
{
    struct file_at file;
    char bytes[1 << 16];
    enum ph_status status = file_at_open(&file, path, false, err);
    if (status != PH_OK)
        return status;
    size_t got = sizeof bytes;
    for (uint64_t at = 0; status == PH_OK && got == sizeof bytes; at += got)
        status = file_at_read(&file, at, bytes, sizeof bytes, &got, err);
    file_at_close(&file);
    return status;
}

static uint64_t check_model(struct doctor *doctor, const struct doctor_model *model)
{
    struct gguf *gguf = NULL;
    struct ph_err err;
    char size[SIZE_BYTES];
    uint64_t bytes = 0;
    enum ph_status status = gguf_open(&gguf, model->path, &err);
    if (status == PH_OK && doctor->subject->full)
        status = read_whole(model->path, &err);
    if (status == PH_OK) {
        bytes = gguf_file_bytes(gguf);
        doctor_say(doctor, DOCTOR_OK, "", "%s: %zu tensors, %s", model->id, gguf_tensor_count(gguf),
                   size_text(bytes, size));
    } else {
        doctor_say(doctor, DOCTOR_FAIL,
                   status == PH_ERR_NOTFOUND ? "set its path, or restore it from a backup"
                                             : "fetch the file again, or restore it from a backup",
                   "%s: %s", model->id, err.message);
    }
    gguf_free(gguf);
    return bytes;
}

static void check_models(struct doctor *doctor)
{
    const struct doctor_subject *subject = doctor->subject;
    char size[SIZE_BYTES], room[SIZE_BYTES];
    uint64_t bytes = 0, available = process_memory_available();
    if (subject->model_count == 0)
        doctor_say(doctor, DOCTOR_SKIP, "", "no model file is configured");
    for (size_t i = 0; i < subject->model_count; i++)
        bytes += check_model(doctor, &subject->models[i]);
    if (bytes == 0 || available == 0)
        return;
    bool fits = bytes <= available;
    doctor_say(doctor, fits ? DOCTOR_OK : DOCTOR_WARN,
               fits ? ""
                    : "serve fewer or smaller models, or stop what else runs; `pharos estimate` says more",
               "the model files have %s, and %s of memory are free%s", size_text(bytes, size),
               size_text(available, room), fits ? "" : ": weights would be read from disk again and again");
}

/* ---- Disk */

static void check_disk(struct doctor *doctor)
{
    const char *data = doctor->subject->data;
    struct ph_err err;
    char size[SIZE_BYTES];
    uint64_t bytes;
    if (!data || !file_exists(data)) {
        doctor_say(doctor, DOCTOR_SKIP, "", "there is no data directory yet");
        return;
    }
    enum ph_status status = file_free_bytes(data, &bytes, &err);
    if (status != PH_OK)
        doctor_say(doctor, DOCTOR_FAIL, "look at the disk", "%s", err.message);
    else if (bytes < DISK_WARN_BYTES)
        doctor_say(doctor, bytes < DISK_FAIL_BYTES ? DOCTOR_FAIL : DOCTOR_WARN,
                   "make room: what cannot be written is refused, and nothing new is remembered",
                   "%s has %s left", data, size_text(bytes, size));
    else
        doctor_say(doctor, DOCTOR_OK, "", "%s has %s left", data, size_text(bytes, size));
}

/* ---- Store */

#define STORE_ADVICE "restore it from a backup (pharos backup restore); keep the damaged file aside"

static void on_store_fault(void *ud, const char *fault)
{
    doctor_say(ud, DOCTOR_FAIL, STORE_ADVICE, "%s", fault);
}

/* Quickly: it opens, has this program's schema, and a row can be read. */
static enum ph_status look_into(struct doctor *doctor, struct store *store, struct ph_err *err)
{
    struct arena arena;
    struct store_users users;
    int64_t faults = 0;
    if (doctor->subject->full) {
        enum ph_status status = store_verify(store, &faults, on_store_fault, NULL, doctor, err);
        if (status == PH_OK && faults == 0)
            doctor_say(doctor, DOCTOR_OK, "", "every message can be read, all counts agree");
        return status;
    }
    arena_init(&arena, READ_BYTES);
    enum ph_status status = store_list_users(store, &arena, 0, 1, &users, err);
    arena_release(&arena);
    if (status == PH_OK)
        doctor_say(doctor, DOCTOR_OK, "", "it opens; --full reads every message");
    return status;
}

static void check_store(struct doctor *doctor)
{
    const struct doctor_subject *subject = doctor->subject;
    char dir[PATH_BYTES_MAX], path[PATH_BYTES_MAX];
    struct store *store = NULL;
    struct ph_err err;
    snprintf(dir, sizeof dir, "%.*s/memory", PATH_BYTES_MAX - 32, subject->data ? subject->data : "");
    snprintf(path, sizeof path, "%.*s/store.db", PATH_BYTES_MAX - 16, dir);
    if (!subject->has_store || (!subject->postgres && !file_exists(path))) {
        doctor_say(doctor, DOCTOR_SKIP, "",
                   subject->has_store ? "nothing is remembered yet" : "memory.store is off");
        return;
    }
    const struct store_params params = {.dir = dir,
                                        .postgres = subject->postgres,
                                        .clock = subject->clock,
                                        .must_exist = true,
                                        .read_only = true};
    enum ph_status status = store_open(&store, &params, &err);
    if (status == PH_OK)
        status = look_into(doctor, store, &err);
    store_close(store);
    if (status != PH_OK)
        doctor_say(doctor, DOCTOR_FAIL,
                   subject->postgres ? "is the server up, and is the address in memory.store right?"
                                     : STORE_ADVICE,
                   "%s", err.message);
}

/* ---- Libraries: one that is older than what this was built with lacks what is relied on */

static void check_libraries(struct doctor *doctor)
{
    char zstd_built[16];
    snprintf(zstd_built, sizeof zstd_built, "%d.%d.%d", ZSTD_VERSION_MAJOR, ZSTD_VERSION_MINOR,
             ZSTD_VERSION_RELEASE);
    const struct {
        const char *name, *built, *running;
        bool is_older;
    } libraries[] = {
        {"SQLite", SQLITE_VERSION, sqlite3_libversion(), sqlite3_libversion_number() < SQLITE_VERSION_NUMBER},
        {"zstd", zstd_built, ZSTD_versionString(), ZSTD_versionNumber() < ZSTD_VERSION_NUMBER},
        {"OpenSSL", OPENSSL_FULL_VERSION_STR, OpenSSL_version(OPENSSL_FULL_VERSION_STRING),
         OpenSSL_version_num() < OPENSSL_VERSION_NUMBER},
    };
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++)
        doctor_say(doctor, libraries[i].is_older ? DOCTOR_WARN : DOCTOR_OK,
                   libraries[i].is_older ? "install the system's updates, or build Pharos on this machine"
                                         : "",
                   "%s %s, built with %s", libraries[i].name, libraries[i].running, libraries[i].built);
}

/* ---- Sensors */

static void check_sensors(struct doctor *doctor)
{
    static const enum thermal_part parts[] = {THERMAL_CPU, THERMAL_GPU};
    const struct doctor_subject *subject = doctor->subject;
    struct thermal_limits limits;
    struct thermal_reader *reader = NULL;
    struct thermal_view view;
    struct ph_err err;
    char sysfs[PATH_BYTES_MAX];
    bool any = false;
    snprintf(sysfs, sizeof sysfs, "%.*s/sys", PATH_BYTES_MAX - 8, subject->root);
    thermal_limits_default(&limits);
    if (thermal_reader_open(&reader, sysfs, NULL, &err) != PH_OK) {
        doctor_say(doctor, DOCTOR_SKIP, "", "%s", err.message);
        return;
    }
    thermal_read(reader, subject->clock, &view);
    thermal_reader_close(reader);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const struct thermal_sensor *hottest = thermal_hottest(&view, parts[i]);
        if (!hottest)
            continue;
        any = true;
        bool hot = hottest->temperature_c >= limits.warn_c;
        doctor_say(doctor, hot ? DOCTOR_WARN : DOCTOR_OK,
                   hot ? "look at fans, dust and air; `pharos monitor thermal` shows it live" : "",
                   "%s: %.0f degrees", hottest->name, hottest->temperature_c);
    }
    if (!any)
        doctor_say(doctor, DOCTOR_SKIP, "", "no sensor of temperature: heat is not guarded against");
}

const struct doctor_check doctor_checks[] = {
    {"data", check_data},
    {"secrets", check_secrets},
    {"models", check_models},
    {"port", doctor_port},
    {"disk", check_disk},
    {"clock", doctor_clock},
    {"providers", doctor_providers},
    {"store", check_store},
    {"libraries", check_libraries},
    {"sensors", check_sensors},
    {NULL, NULL},
};
