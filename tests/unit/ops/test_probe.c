/* The probe: devices from a made-up sysfs and a made-up NVML, and a real, short measurement. */
#include <sys/vfs.h>

#include "base/mem.h"
#include "ops/probe_int.h"
#include "ops/sysfs_support.h"

struct fixture {
    struct test_sysfs sysfs;
    struct machine machine;
    struct probe_notes notes;
};

static int setup(void **state)
{
    struct fixture *f = mem_calloc(1, sizeof *f);
    test_sysfs_make(&f->sysfs);
    unsetenv("FAKE_NVML_STATE");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    test_sysfs_remove(&f->sysfs);
    mem_free(f);
    return 0;
}

static void put_device(struct fixture *f, const char *place, const char *file, const char *text)
{
    char name[256];
    snprintf(name, sizeof name, "class/%s/device/%s", place, file);
    test_sysfs_put(&f->sysfs, name, text);
}

static void put_pci(struct fixture *f, const char *place, const char *vendor, const char *device,
                    const char *event)
{
    put_device(f, place, "vendor", vendor);
    put_device(f, place, "device", device);
    put_device(f, place, "uevent", event);
}

static void nvidia_tells_what_it_is(void **state)
{
    struct fixture *f = *state;
    probe_devices(&f->machine, f->sysfs.path, TEST_FAKE_NVML, &f->notes);
    assert_string_equal(f->notes.devices, "");
    assert_int_equal(f->machine.device_count, 1);
    const struct machine_device *d = &f->machine.devices[0];
    assert_int_equal(d->kind, MACHINE_GPU);
    assert_string_equal(d->name, "NVIDIA H100 80GB HBM3");
    assert_string_equal(d->driver, "550.54.15");
    assert_string_equal(d->address, "0000:1b:00.0");
    assert_true(d->memory_bytes == 85520809984ULL && d->memory_free_bytes == 84000000000ULL);
    assert_true(d->memory_bytes_per_s == 2619e6 * 2 * 5120 / 8); /* 3.35 TB/s, as published */
    assert_true(d->link_bytes_per_s > 62e9 && d->link_bytes_per_s < 64e9);
    assert_true(d->power_limit_w == 700);
}

static void sysfs_tells_of_the_others(void **state)
{
    struct fixture *f = *state;
    put_pci(f, "drm/card0", "0x8086\n", "0x7d55\n", "DRIVER=i915\nPCI_SLOT_NAME=0000:00:02.0\n");
    put_pci(f, "drm/card1", "0x1002\n", "0x744c\n", "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0\n");
    put_device(f, "drm/card1", "mem_info_vram_total", "25753026560\n");
    put_device(f, "drm/card1", "mem_info_vram_used", "753026560\n");
    put_device(f, "drm/card1", "max_link_speed", "16.0 GT/s PCIe\n");
    put_device(f, "drm/card1", "max_link_width", "16\n");
    test_sysfs_put(&f->sysfs, "class/drm/card1-DP-1/status", "connected\n"); /* an outlet, no card */
    put_pci(f, "drm/card2", "0x1a03\n", "0x2000\n", "DRIVER=ast\n");         /* nobody computes on it */
    put_pci(f, "drm/card3", "0x10de\n", "0x2330\n", "DRIVER=nvidia\nPCI_SLOT_NAME=0000:1b:00.0\n");
    put_pci(f, "accel/accel0", "0x8086\n", "0x7d1d\n", "DRIVER=intel_vpu\nPCI_SLOT_NAME=0000:00:0b.0\n");
    probe_devices(&f->machine, f->sysfs.path, TEST_FAKE_NVML, &f->notes);
    assert_int_equal(f->machine.device_count, 4); /* NVIDIA's once */
    const struct machine_device *d = f->machine.devices;
    assert_string_equal(d[1].name, "Intel GPU 7d55");
    assert_true(d[1].shared_memory);
    assert_string_equal(d[2].name, "AMD GPU 744c");
    assert_string_equal(d[2].driver, "amdgpu");
    assert_false(d[2].shared_memory);
    assert_true(d[2].memory_bytes == 25753026560ULL && d[2].memory_free_bytes == 25000000000ULL);
    assert_true(d[2].memory_bytes_per_s == 0); /* sysfs does not tell, and nothing is guessed */
    assert_true(d[2].link_bytes_per_s > 31e9 && d[2].link_bytes_per_s < 32e9);
    assert_int_equal(d[3].kind, MACHINE_NPU);
    assert_true(d[3].shared_memory);
    assert_string_equal(d[3].driver, "intel_vpu");
}

static void nonsense_is_passed_over(void **state)
{
    struct fixture *f = *state;
    char wide[5000];
    memset(wide, 'x', sizeof wide - 1);
    wide[sizeof wide - 1] = 0;
    put_pci(f, "drm/card0", "0x1002\n", wide, wide);
    put_device(f, "drm/card0", "mem_info_vram_total", "-7\n");
    put_device(f, "drm/card0", "max_link_speed", "999999999999.9 GT/s\n");
    put_device(f, "drm/card0", "max_link_width", "99\n");
    put_device(f, "drm/card0", "product_name", "a\x1b[31mb\n");
    put_pci(f, "drm/card1", "", "", "");
    probe_devices(&f->machine, f->sysfs.path, "/nowhere/libnvidia-ml.so.1", &f->notes);
    assert_int_equal(f->machine.device_count, 1);
    assert_string_equal(f->machine.devices[0].name, "a?[31mb");
    assert_true(f->machine.devices[0].memory_bytes == 0 && f->machine.devices[0].link_bytes_per_s == 0);
    assert_non_null(strstr(f->notes.devices, "/nowhere/libnvidia-ml.so.1"));
}

static void a_driver_that_refuses_is_said(void **state)
{
    struct fixture *f = *state;
    char path[128];
    test_sysfs_put(&f->sysfs, "nvml", "0 0 0 0 0\n");
    snprintf(path, sizeof path, "%s/nvml", f->sysfs.path);
    setenv("FAKE_NVML_STATE", path, 1);
    probe_devices(&f->machine, f->sysfs.path, TEST_FAKE_NVML, &f->notes);
    unsetenv("FAKE_NVML_STATE");
    assert_int_equal(f->machine.device_count, 0);
    assert_non_null(strstr(f->notes.devices, "driver"));
}

static void count_step(void *ud, uint64_t done, uint64_t total)
{
    assert_true(done <= total);
    *(uint64_t *)ud = total - done;
}

static void it_measures(void **state)
{
    struct fixture *f = *state;
    struct ph_err err;
    uint64_t left = 99;
    struct probe_params params = {.sysfs = f->sysfs.path,
                                  .dir = f->sysfs.path,
                                  .quick = true,
                                  .clock = clock_system(),
                                  .progress = count_step,
                                  .ud = &left};
    test_sysfs_put(&f->sysfs, "devices/system/cpu/cpu0/topology/core_id", "0\n");
    test_sysfs_put(&f->sysfs, "devices/system/cpu/cpu0/topology/physical_package_id", "0\n");
    test_sysfs_put(&f->sysfs, "devices/system/cpu/cpu1/topology/core_id", "0\n");
    test_sysfs_put(&f->sysfs, "devices/system/cpu/cpu1/topology/physical_package_id", "0\n");
    assert_int_equal(probe_machine(&f->machine, &params, &f->notes, &err), PH_OK);
    const struct machine *m = &f->machine;
    assert_int_equal(left, 0);
    assert_true(m->measured && m->measured_unix_s > 0);
    assert_true(m->cores == 1 && m->threads >= 1 && m->isa[0]); /* two threads of one core */
    assert_true(m->memory_bytes >= m->memory_available_bytes && m->memory_available_bytes > 0);
    assert_int_equal(m->memory_points, m->threads);
    for (unsigned i = 0; i < m->memory_points; i++)
        assert_true(m->memory_bytes_per_s[i] > 1e6);
    assert_true(m->peaks.f32 > 1e6);
    assert_true(machine_gemv_rate(m, "Q4_K") > 1e6 && machine_gemv_rate(m, "MXFP4") > 1e6);
    assert_true(machine_gemv_rate(m, "Q9_9") == 0);
    assert_true(m->disk_read_bytes_per_s > 0 && m->fsync_s > 0 && f->notes.disk[0]);
    assert_int_equal(m->sensors, 0);
    assert_int_equal(m->disturbed, f->notes.cpu_share > 0);
}

/* A file system of memory is no disk, whatever it says to O_DIRECT. */
static void memory_is_no_disk(void **state)
{
    struct fixture *f = *state;
    struct statfs disk;
    if (statfs("/dev/shm", &disk) != 0 || disk.f_type != 0x01021994) {
        printf("SKIP: %s: /dev/shm is no tmpfs\n", __func__);
        skip();
    }
    probe_disk(&f->machine, "/dev/shm", 0.1, &f->notes);
    assert_true(f->machine.disk_is_cached || f->machine.disk_read_bytes_per_s == 0); /* or it is full */
    assert_null(strstr(f->notes.disk, "past the page cache"));
}

static void a_disk_that_takes_nothing_is_said(void **state)
{
    struct fixture *f = *state;
    probe_disk(&f->machine, "/proc/self", 0.1, &f->notes);
    assert_true(f->machine.disk_read_bytes_per_s == 0 && f->machine.fsync_s == 0 && f->notes.disk[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nvidia_tells_what_it_is, setup, teardown),
        cmocka_unit_test_setup_teardown(sysfs_tells_of_the_others, setup, teardown),
        cmocka_unit_test_setup_teardown(nonsense_is_passed_over, setup, teardown),
        cmocka_unit_test_setup_teardown(a_driver_that_refuses_is_said, setup, teardown),
        cmocka_unit_test_setup_teardown(it_measures, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_is_no_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(a_disk_that_takes_nothing_is_said, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
