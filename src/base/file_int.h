/* What the files about files share. */
#ifndef PHAROS_BASE_FILE_INT_H
#define PHAROS_BASE_FILE_INT_H

#include "base/file.h"

struct stat;

/* "cannot <doing> <path>: <the system's words>", from errno. */
enum ph_status file_fail_os(struct ph_err *err, const char *doing, const char *path);
/* Appends all that is left to read; on failure a part of it may be there. */
enum ph_status file_read_descriptor(int fd, const char *path, struct buf *out, struct ph_err *err);
/* Makes what happened to the names in the file's directory durable. */
enum ph_status file_sync_directory(const char *path, struct ph_err *err);
void file_stamp_of(const struct stat *info, struct file_stamp *out);

#endif
