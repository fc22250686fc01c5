/* What the backup commands share. */
#ifndef PHAROS_CLI_CMD_BACKUP_INT_H
#define PHAROS_CLI_CMD_BACKUP_INT_H

#include "base/buf.h"
#include "cli/cli_int.h"
#include "ops/backup.h"

/* What a run tells: notes and faults are kept until the bar is gone. */
struct backup_ear {
    struct cli_progress progress;
    struct buf faults; /* lines for people, or elements of a JSON array */
    struct buf notes;
    bool json;
    size_t told;
};
void backup_ear_open(struct backup_ear *ear, const char *label, bool json);
void backup_ear_close(struct backup_ear *ear); /* ends the bar, prints the notes */
void backup_ear_release(struct backup_ear *ear);
struct backup_place backup_ear_place(struct backup_ear *ear, const char *dir);
void backup_ear_fault(void *ud, const struct backup_fault *fault);

/* "35.2 MB". */
#define BACKUP_SIZE_BYTES 32
void backup_size(uint64_t bytes, char out[BACKUP_SIZE_BYTES]);

/* Verifies the newest snapshot, or `id`, or all; prints; answers the exit code. */
struct backup_verify_args {
    const char *from, *id, *scratch;
    bool all, json;
};
int backup_verify_run(const struct backup_verify_args *args);

int cmd_backup_create(int argc, char **argv);

#endif
