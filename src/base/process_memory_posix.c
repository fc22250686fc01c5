/* How much memory there is to take. Linux says in /proc/meminfo what could be had without swapping, page
 * cache that can be dropped included; a control group (version 2 or 1) may allow less, and so may each group
 * above it. Elsewhere libuv's free memory has to do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uv.h>

#include "base/limits.h"
#include "base/process_int.h"

#define LINE_BYTES_MAX 4096

static const struct group_kind {
    const char *mark, *mount, *limit, *usage, *droppable;
} group_kinds[] = {
    {"0::/", "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "},
    {":memory:/", "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
     "total_inactive_file "},
};

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

static uint64_t group_room(const char *folder, const struct group_kind *kind)
{
    char path[PATH_BYTES_MAX + 64];
    uint64_t limit, usage, droppable = 0;
    snprintf(path, sizeof path, "%s/%s", folder, kind->limit);
    if (!find_number(path, "", &limit))
        return UINT64_MAX;
    snprintf(path, sizeof path, "%s/%s", folder, kind->usage);
    if (!find_number(path, "", &usage))
        return UINT64_MAX;
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    if (find_number(path, kind->droppable, &droppable) && droppable < usage)
        usage -= droppable;
    return usage < limit ? limit - usage : 0;
}

/* The least room of the process's group and all above it. In a container its path may not be visible; the
 * mount's own group is looked at last. */
static uint64_t groups_room(const char *root, const struct group_kind *kind)
{
    char path[PATH_BYTES_MAX], group[LINE_BYTES_MAX];
    uint64_t least = UINT64_MAX;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    if (!find_line(path, kind->mark, kind->mark[0] != ':', group, sizeof group))
        return least;
    for (;;) {
        int len = snprintf(path, sizeof path, "%s%s/%s", root, kind->mount, group);
        uint64_t room = len < (int)sizeof path ? group_room(path, kind) : UINT64_MAX;
        least = room < least ? room : least;
        if (group[0] == '\0')
            return least;
        char *cut = strrchr(group, '/');
        *(cut ? cut : group) = '\0';
    }
}

uint64_t memory_available_under(const char *root)
{
    char path[PATH_BYTES_MAX];
    uint64_t kib, available = uv_get_free_memory();
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    if (find_number(path, "MemAvailable:", &kib))
        available = kib << 10;
    for (size_t i = 0; i < sizeof group_kinds / sizeof *group_kinds; i++) {
        uint64_t room = groups_room(root, &group_kinds[i]);
        available = room < available ? room : available;
    }
    return available;
}

uint64_t process_memory_available(void)
{
    return memory_available_under("");
}
