/* How much memory there is to take. Linux says in /proc/meminfo what could be had without swapping, page
 * cache that can be dropped included; a control group (version 2 or 1) may allow less, and so may each group
 * above it. Elsewhere libuv's free memory has to do.
 *
 * And how much a group of processes has taken: the kernel's proportional sizes, in which a page that three
 * processes share is a third for each; for processes that do not show them, the plain ones. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uv.h>

#include "base/limits.h"
#include "base/process_int.h"

#define LINE_BYTES_MAX 4096

static const struct group_kind {
    const char *mark, *mount, *limit, *usage, *inactive, *active;
} group_kinds[] = {
    {"0::/", "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file ", "active_file "},
    {":memory:/", "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
     "total_inactive_file ", "total_active_file "},
};

static uint64_t less(uint64_t from, uint64_t bytes)
{
    return from > bytes ? from - bytes : 0;
}

/* What follows `mark` in the first line that has it, at the line's beginning where `at_start`. */
static bool find_line(const char *path, const char *mark, bool at_start, char *rest, size_t size)
{
    char line[LINE_BYTES_MAX];
    bool found = false;
    FILE *file = fopen(path, "re");
    while (file && !found && fgets(line, sizeof line, file)) {
        const char *place = strstr(line, mark);
        found = place && (!at_start || place == line);
        if (found)
            snprintf(rest, size, "%s", place + strlen(mark));
    }
    if (file)
        fclose(file);
    rest[found ? strcspn(rest, "\n") : 0] = '\0';
    return found;
}

static bool find_number(const char *path, const char *mark, uint64_t *out)
{
    char text[LINE_BYTES_MAX], *end;
    if (!find_line(path, mark, true, text, sizeof text))
        return false;
    *out = strtoull(text, &end, 10);
    return end != text; /* "max" is none */
}

/* Only pages of files that were not used lately count as there to take; mapped ones are active before they
 * are among those. */
static uint64_t group_room(const char *folder, const struct group_kind *kind, uint64_t mapped)
{
    char path[PATH_BYTES_MAX + 64];
    uint64_t limit, usage, inactive = 0, active = 0;
    snprintf(path, sizeof path, "%s/%s", folder, kind->limit);
    if (!find_number(path, "", &limit))
        return UINT64_MAX;
    snprintf(path, sizeof path, "%s/%s", folder, kind->usage);
    if (!find_number(path, "", &usage))
        return UINT64_MAX;
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    (void)find_number(path, kind->inactive, &inactive);
    (void)find_number(path, kind->active, &active);
    return less(limit, less(usage, less(inactive, less(mapped, active))));
}

/* The least room of the process's group and all above it. In a container its path may not be visible; the
 * mount's own group is looked at last. */
static uint64_t groups_room(const char *root, const struct group_kind *kind, uint64_t mapped)
{
    char path[PATH_BYTES_MAX], group[LINE_BYTES_MAX];
    uint64_t least = UINT64_MAX;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    if (!find_line(path, kind->mark, kind->mark[0] != ':', group, sizeof group))
        return least;
    for (;;) {
        int len = snprintf(path, sizeof path, "%s%s/%s", root, kind->mount, group);
        uint64_t room = len < (int)sizeof path ? group_room(path, kind, mapped) : UINT64_MAX;
        least = room < least ? room : least;
        if (group[0] == '\0')
            return least;
        char *cut = strrchr(group, '/');
        *(cut ? cut : group) = '\0';
    }
}

uint64_t memory_available_under(const char *root, uint64_t mapped)
{
    char path[PATH_BYTES_MAX];
    uint64_t kib, available = uv_get_free_memory();
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    if (find_number(path, "MemAvailable:", &kib))
        available = kib << 10;
    available = less(available, mapped);
    for (size_t i = 0; i < sizeof group_kinds / sizeof *group_kinds; i++) {
        uint64_t room = groups_room(root, &group_kinds[i], mapped);
        available = room < available ? room : available;
    }
    return available;
}

uint64_t process_memory_available(void)
{
    return memory_available_under("", 0);
}

uint64_t process_memory_beside(uint64_t mapped)
{
    return memory_available_under("", mapped);
}

/* ---- What a group has taken */

/* proc(5): after the name, which may hold anything: state, parent, group. */
static long group_of(const char *root, const char *pid)
{
    char path[PATH_BYTES_MAX], line[LINE_BYTES_MAX], *end = NULL;
    snprintf(path, sizeof path, "%s/proc/%s/stat", root, pid);
    if (!find_line(path, "", true, line, sizeof line))
        return 0;
    const char *at = strrchr(line, ')');
    for (int field = 2; at && field < 5; field++) {
        at = strchr(at, ' ');
        at = at ? at + 1 : NULL;
    }
    long group = at ? strtol(at, &end, 10) : 0;
    return at && end != at ? group : 0;
}

static const struct memory_source {
    const char *file, *resident, *of_files;
} memory_sources[] = {{"smaps_rollup", "Pss:", "Pss_File:"}, {"status", "VmRSS:", "RssFile:"}};

static bool add_from(const char *root, const char *pid, const struct memory_source *source,
                     struct process_memory *sum)
{
    char path[PATH_BYTES_MAX];
    uint64_t resident, file;
    snprintf(path, sizeof path, "%s/proc/%s/%s", root, pid, source->file);
    if (!find_number(path, source->resident, &resident) || !find_number(path, source->of_files, &file))
        return false;
    sum->resident += resident << 10;
    sum->file += file << 10;
    return true;
}

static bool add_process(const char *root, const char *pid, struct process_memory *sum)
{
    return add_from(root, pid, &memory_sources[0], sum) || add_from(root, pid, &memory_sources[1], sum);
}

bool group_memory_under(const char *root, long group, struct process_memory *out)
{
    char path[PATH_BYTES_MAX];
    bool any = false;
    snprintf(path, sizeof path, "%s/proc", root);
    *out = (struct process_memory){0};
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder)) != NULL;) {
        const char *name = entry->d_name;
        if (name[0] < '1' || name[0] > '9' || strlen(name) > 20 || group_of(root, name) != group)
            continue;
        any = add_process(root, name, out) || any;
    }
    if (folder)
        closedir(folder);
    return any;
}

bool process_group_memory(long group, struct process_memory *out)
{
    return group_memory_under("", group, out);
}

bool process_own_memory(struct process_memory *out)
{
    *out = (struct process_memory){0};
    return add_from("", "self", &memory_sources[1], out);
}
