/* Available memory from files as Linux writes them. */
#include "test_support.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/process_int.h"

static void put(const char *root, const char *path, const char *text)
{
    char full[256];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        mkdir(full, 0700);
        *slash = '/';
    }
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void remove_tree(const char *root)
{
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", root);
    assert_int_equal(system(command), 0);
}

static void meminfo_is_read_in_kib(void **state)
{
    (void)state;
    char root[] = "/tmp/pharos-memory-XXXXXX";
    assert_non_null(mkdtemp(root));
    put(root, "/proc/meminfo", "MemTotal:  9000 kB\nMemFree:  100 kB\nMemAvailable:     5000 kB\n");
    assert_int_equal(memory_available_under(root, 0), 5000 * 1024);
    assert_int_equal(memory_available_under(root, 1024), 4999 * 1024); /* files that are to stay */
    assert_int_equal(memory_available_under(root, 6000 * 1024), 0);
    remove_tree(root);
}

static void the_tightest_group_counts(void **state)
{
    (void)state;
    char root[] = "/tmp/pharos-memory-XXXXXX";
    assert_non_null(mkdtemp(root));
    put(root, "/proc/meminfo", "MemAvailable:     5000 kB\n");
    put(root, "/proc/self/cgroup", "0::/user/me\n");
    put(root, "/sys/fs/cgroup/user/me/memory.max", "max\n");
    put(root, "/sys/fs/cgroup/user/me/memory.current", "1000\n");
    assert_int_equal(memory_available_under(root, 0), 5000 * 1024);
    put(root, "/sys/fs/cgroup/user/memory.max", "4000000\n");
    put(root, "/sys/fs/cgroup/user/memory.current", "3000000\n");
    assert_int_equal(memory_available_under(root, 0), 1000000);
    put(root, "/sys/fs/cgroup/user/memory.stat", "anon 3\ninactive_file 500000\n");
    assert_int_equal(memory_available_under(root, 0), 1500000);
    put(root, "/sys/fs/cgroup/user/memory.stat", "active_file 100000\ninactive_file 500000\n");
    assert_int_equal(memory_available_under(root, 100000), 1500000); /* active ones were counted as used */
    assert_int_equal(memory_available_under(root, 300000), 1300000);
    assert_int_equal(memory_available_under(root, 900000), 1000000);
    put(root, "/sys/fs/cgroup/user/me/memory.max", "900\n"); /* over its limit */
    assert_int_equal(memory_available_under(root, 0), 0);
    remove_tree(root);
}

static void version_1_and_hidden_paths_are_known(void **state)
{
    (void)state;
    char root[] = "/tmp/pharos-memory-XXXXXX";
    assert_non_null(mkdtemp(root));
    put(root, "/proc/meminfo", "MemAvailable:     5000 kB\n");
    put(root, "/proc/self/cgroup", "8:pids:/\n4:memory:/not/seen/here\n0::/\n");
    put(root, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000\n");
    put(root, "/sys/fs/cgroup/memory/memory.usage_in_bytes", "600000\n");
    put(root, "/sys/fs/cgroup/memory/memory.stat", "inactive_file 7\ntotal_inactive_file 100000\n");
    assert_int_equal(memory_available_under(root, 0), 1500000);
    remove_tree(root);
}

static void this_machine_has_some(void **state)
{
    (void)state;
    assert_true(process_memory_available() > 1 << 20);
}

/* ---- Groups of processes */

static void a_group_is_the_sum_of_its_members(void **state)
{
    (void)state;
    char root[] = "/tmp/pharos-memory-XXXXXX";
    struct process_memory memory;
    assert_non_null(mkdtemp(root));
    put(root, "/proc/7/stat", "7 (a) b) (c) S 1 7 7 0\n");
    put(root, "/proc/7/smaps_rollup",
        "00-ff ---p 0 [rollup]\nRss: 900 kB\nPss:   500 kB\nPss_File:  200 kB\n");
    put(root, "/proc/8/stat", "8 (worker) S 7 7 7 0\n"); /* hides its maps */
    put(root, "/proc/8/status",
        "Name: worker\nVmHWM: 99 kB\nVmRSS:    40 kB\nRssAnon: 30 kB\nRssFile: 10 kB\n");
    put(root, "/proc/9/stat", "9 (dead) Z 7 7 7 0\n");
    put(root, "/proc/9/status", "Name: dead\n");
    put(root, "/proc/10/stat", "10 (other) S 1 77 77 0\n");
    put(root, "/proc/10/smaps_rollup", "Pss: 7 kB\nPss_File: 7 kB\n");
    put(root, "/proc/11/stat", "nonsense\n");
    put(root, "/proc/self/stat", "7 (me) S 1 7 7 0\n");
    assert_true(group_memory_under(root, 7, &memory));
    assert_int_equal(memory.resident, 540 * 1024);
    assert_int_equal(memory.file, 210 * 1024);
    assert_false(group_memory_under(root, 5, &memory));
    assert_int_equal(memory.resident, 0);
    remove_tree(root);
}

static void our_own_group_has_memory(void **state)
{
    (void)state;
    struct process_memory memory;
    if (access("/proc/self/status", R_OK) != 0)
        skip();
    assert_true(process_group_memory(getpgrp(), &memory));
    assert_true(memory.resident > 100000);
    assert_true(memory.file <= memory.resident);
    assert_true(process_own_memory(&memory));
    assert_true(memory.resident > 100000 && memory.file > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(meminfo_is_read_in_kib),
        cmocka_unit_test(the_tightest_group_counts),
        cmocka_unit_test(version_1_and_hidden_paths_are_known),
        cmocka_unit_test(this_machine_has_some),
        cmocka_unit_test(a_group_is_the_sum_of_its_members),
        cmocka_unit_test(our_own_group_has_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
