/* Devices beside the processors: NVIDIA's by their library, the others by what their drivers show in sysfs.
 *
 * sysfs tells an AMD card's memory; its bus width, and so its bandwidth, it does not tell, and nothing is
 * guessed. A card whose driver is NVIDIA's own is listed only when its library could not be asked. */
#include <stdio.h>
#include <string.h>

#include "ops/nvml_int.h"
#include "ops/probe_int.h"
#include "ops/sysfs_int.h"

#define NVIDIA_ID 0x10de
#define INTEL_ID 0x8086
#define INTEL_OWN_ADDRESS "0000:00:02.0" /* where the graphics in Intel's processors have always been */

static const struct {
    int64_t id;
    const char *name;
} vendors[] = {{0x1002, "AMD"}, {0x1022, "AMD"}, {INTEL_ID, "Intel"}, {NVIDIA_ID, "NVIDIA"}};

static const char *vendor_name(int64_t id)
{
    for (size_t i = 0; i < sizeof vendors / sizeof *vendors; i++)
        if (vendors[i].id == id)
            return vendors[i].name;
    return NULL;
}

static struct machine_device *add(struct machine *machine)
{
    return machine->device_count < MACHINE_DEVICES_MAX ? &machine->devices[machine->device_count] : NULL;
}

static bool is_listed(const struct machine *machine, const char *address)
{
    for (size_t i = 0; i < machine->device_count; i++)
        if (*address && strcmp(machine->devices[i].address, address) == 0)
            return true;
    return false;
}

static void add_nvidia(struct machine *machine, const char *library, struct probe_notes *notes)
{
    struct nvml *nvml = NULL;
    struct ph_err err;
    if (nvml_open(&nvml, library, &err) != PH_OK)
        snprintf(notes->devices, sizeof notes->devices, "%.300s", err.message);
    for (size_t i = 0; i < nvml_count(nvml); i++) {
        struct machine_device *device = add(machine);
        if (device && nvml_describe(nvml, i, device))
            machine->device_count++;
    }
    nvml_close(nvml);
}

/* "16.0 GT/s PCIe" and the lanes: from the fifth generation back, a lane's line code costs 1 in 65, in the
 * first two 1 in 5. */
static double link_rate(const char *dir)
{
    char text[SYSFS_TEXT_BYTES];
    int64_t lanes;
    unsigned whole = 0, tenths = 0;
    if (!sysfs_text(dir, "max_link_speed", text) || !sysfs_number(dir, "max_link_width", &lanes) ||
        lanes < 1 || lanes > 32)
        return 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9' && whole < 1000; at++)
        whole = whole * 10 + (unsigned)(*at - '0');
    if (*at == '.' && at[1] >= '0' && at[1] <= '9')
        tenths = (unsigned)(at[1] - '0');
    double transfers = (double)whole + (double)tenths / 10;
    double code = transfers < 8 ? 8.0 / 10 : 128.0 / 130;
    return transfers * 1e9 * code / 8 * (double)lanes;
}

static void set_name(struct machine_device *device, const char *dir, const char *vendor, const char *what)
{
    char text[SYSFS_TEXT_BYTES];
    int64_t id = 0;
    if (sysfs_text(dir, "product_name", text)) {
        machine_set_text(device->name, text, strlen(text));
        return;
    }
    sysfs_number(dir, "device", &id);
    snprintf(device->name, sizeof device->name, "%s %s %04x", vendor, what, (unsigned)(id & 0xffff));
}

/* The parts that a graphics card and an NPU have in common; NULL: none that is known, or no room. */
static struct machine_device *describe(struct machine *machine, const char *dir, const char *what)
{
    struct machine_device *device = add(machine);
    char text[SYSFS_TEXT_BYTES];
    int64_t id;
    const char *vendor = sysfs_number(dir, "vendor", &id) ? vendor_name(id) : NULL;
    if (!device || !vendor)
        return NULL;
    *device = (struct machine_device){.link_bytes_per_s = link_rate(dir)};
    snprintf(device->vendor, sizeof device->vendor, "%s", vendor);
    if (sysfs_event(dir, "PCI_SLOT_NAME", text))
        machine_set_text(device->address, text, strlen(text));
    if (sysfs_event(dir, "DRIVER", text))
        machine_set_text(device->driver, text, strlen(text));
    set_name(device, dir, vendor, what);
    return is_listed(machine, device->address) ? NULL : device;
}

static void add_cards(struct machine *machine, const char *root)
{
    char drm[PATH_BYTES_MAX], dir[PATH_BYTES_MAX], name[64];
    unsigned numbers[SYSFS_ENTRIES_MAX];
    if (!sysfs_path(drm, root, "class/drm"))
        return;
    size_t count = sysfs_numbered(drm, "card", "", numbers);
    for (size_t i = 0; i < count; i++) {
        int64_t total, used;
        snprintf(name, sizeof name, "card%u/device", numbers[i]);
        struct machine_device *device = sysfs_path(dir, drm, name) ? describe(machine, dir, "GPU") : NULL;
        if (!device)
            continue;
        device->kind = MACHINE_GPU;
        device->shared_memory =
            strcmp(device->vendor, "Intel") == 0 && strcmp(device->address, INTEL_OWN_ADDRESS) == 0;
        if (sysfs_number(dir, "mem_info_vram_total", &total) && total > 0) {
            device->memory_bytes = (uint64_t)total;
            if (sysfs_number(dir, "mem_info_vram_used", &used) && used >= 0 && used <= total)
                device->memory_free_bytes = (uint64_t)(total - used);
        }
        machine->device_count++;
    }
}

static void add_npus(struct machine *machine, const char *root)
{
    char accel[PATH_BYTES_MAX], dir[PATH_BYTES_MAX], name[64];
    unsigned numbers[SYSFS_ENTRIES_MAX];
    if (!sysfs_path(accel, root, "class/accel"))
        return;
    size_t count = sysfs_numbered(accel, "accel", "", numbers);
    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "accel%u/device", numbers[i]);
        struct machine_device *device = sysfs_path(dir, accel, name) ? describe(machine, dir, "NPU") : NULL;
        if (!device)
            continue;
        device->kind = MACHINE_NPU;
        device->shared_memory = true;
        machine->device_count++;
    }
}

void probe_devices(struct machine *out, const char *sysfs, const char *nvml, struct probe_notes *notes)
{
    const char *root = sysfs ? sysfs : SYSFS_ROOT;
    out->device_count = 0;
    add_nvidia(out, nvml, notes);
    add_cards(out, root);
    add_npus(out, root);
}
