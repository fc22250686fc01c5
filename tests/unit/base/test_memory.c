/* Available memory from files as Linux writes them. */
#include "test_support.h"

#include <sys/stat.h>

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
    assert_int_equal(memory_available_under(root), 5000 * 1024);
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
    assert_int_equal(memory_available_under(root), 5000 * 1024);
    put(root, "/sys/fs/cgroup/user/memory.max", "4000000\n");
    put(root, "/sys/fs/cgroup/user/memory.current", "3000000\n");
    assert_int_equal(memory_available_under(root), 1000000);
    put(root, "/sys/fs/cgroup/user/memory.stat", "anon 3\ninactive_file 500000\n");
    assert_int_equal(memory_available_under(root), 1500000);
    put(root, "/sys/fs/cgroup/user/me/memory.max", "900\n"); /* over its limit */
    assert_int_equal(memory_available_under(root), 0);
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
    assert_int_equal(memory_available_under(root), 1500000);
    remove_tree(root);
}

static void this_machine_has_some(void **state)
{
    (void)state;
    assert_true(process_memory_available() > 1 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(meminfo_is_read_in_kib),
        cmocka_unit_test(the_tightest_group_counts),
        cmocka_unit_test(version_1_and_hidden_paths_are_known),
        cmocka_unit_test(this_machine_has_some),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
