/* NVML by dlopen. The functions are a table of names and places; the first rows must be there, the others may
 * be missing in an old driver, and then their figures are missing. Structures and numbers are those of NVML's
 * API reference (nvmlDevice_t is an opaque pointer; nvmlReturn_t 0 is success). */
#include "ops/nvml_int.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#define NVML_OK 0
#define CLOCK_MEMORY 2
#define SENSOR_GPU 0
#define TRANSFERS_A_CLOCK 2 /* the memory clock is that of double data rate */

struct pci_info { /* nvmlPciInfo_t */
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
};
struct memory_info { /* nvmlMemory_t */
    unsigned long long total, free, used;
};
struct utilization { /* nvmlUtilization_t */
    unsigned gpu, memory;
};

struct functions {
    int (*init)(void);
    int (*shutdown)(void);
    int (*count)(unsigned *count);
    int (*handle)(unsigned index, void **device);
    int (*name)(void *device, char *text, unsigned size);
    int (*memory)(void *device, struct memory_info *out);
    int (*pci)(void *device, struct pci_info *out);
    int (*driver)(char *text, unsigned size);
    int (*max_clock)(void *device, int type, unsigned *mhz);
    int (*bus_width)(void *device, unsigned *bits);
    int (*link_generation)(void *device, unsigned *generation);
    int (*link_width)(void *device, unsigned *lanes);
    int (*temperature)(void *device, int sensor, unsigned *celsius);
    int (*power)(void *device, unsigned *milliwatt);
    int (*power_limit)(void *device, unsigned *milliwatt);
    int (*use)(void *device, struct utilization *out);
    int (*throttle)(void *device, unsigned long long *bits);
};

static const struct {
    const char *name, *newer; /* newer: tried when the name is not there */
    size_t offset;
    bool is_needed;
} rows[] = {
#define ROW(member_, name_, newer_, needed_)                              \
    {                                                                     \
        (name_), (newer_), offsetof(struct functions, member_), (needed_) \
    }
    ROW(init, "nvmlInit_v2", NULL, true),
    ROW(shutdown, "nvmlShutdown", NULL, true),
    ROW(count, "nvmlDeviceGetCount_v2", NULL, true),
    ROW(handle, "nvmlDeviceGetHandleByIndex_v2", NULL, true),
    ROW(name, "nvmlDeviceGetName", NULL, false),
    ROW(memory, "nvmlDeviceGetMemoryInfo", NULL, false),
    ROW(pci, "nvmlDeviceGetPciInfo_v3", NULL, false),
    ROW(driver, "nvmlSystemGetDriverVersion", NULL, false),
    ROW(max_clock, "nvmlDeviceGetMaxClockInfo", NULL, false),
    ROW(bus_width, "nvmlDeviceGetMemoryBusWidth", NULL, false),
    ROW(link_generation, "nvmlDeviceGetMaxPcieLinkGeneration", NULL, false),
    ROW(link_width, "nvmlDeviceGetMaxPcieLinkWidth", NULL, false),
    ROW(temperature, "nvmlDeviceGetTemperature", NULL, false),
    ROW(power, "nvmlDeviceGetPowerUsage", NULL, false),
    ROW(power_limit, "nvmlDeviceGetEnforcedPowerLimit", NULL, false),
    ROW(use, "nvmlDeviceGetUtilizationRates", NULL, false),
    ROW(throttle, "nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetCurrentClocksEventReasons",
        false),
#undef ROW
};

struct nvml {
    void *library;
    struct functions call;
    unsigned count;
    bool is_up;
};

/* POSIX: a symbol's address fits a pointer to function; ISO C has no cast for it. */
static bool find(struct nvml *nvml)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        void *address = dlsym(nvml->library, rows[i].name);
        if (!address && rows[i].newer)
            address = dlsym(nvml->library, rows[i].newer);
        if (!address && rows[i].is_needed)
            return false;
        memcpy((char *)&nvml->call + rows[i].offset, &address, sizeof address);
    }
    return true;
}

enum ph_status nvml_open(struct nvml **out, const char *library, struct ph_err *err)
{
    const char *name = library ? library : NVML_LIBRARY;
    *out = NULL;
    void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!handle && !library)
        return PH_OK;
    if (!handle)
        return ph_fail(err, PH_ERR_NOTFOUND, "%s cannot be opened as NVML: %s", name, dlerror());
    struct nvml *nvml = mem_calloc(1, sizeof *nvml);
    if (!nvml) {
        dlclose(handle);
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    }
    nvml->library = handle;
    enum ph_status status = PH_OK;
    int code = NVML_OK;
    if (!find(nvml))
        status = ph_fail(err, PH_ERR_UNSUPPORTED, "%s has not the functions of NVML", name);
    else if ((code = nvml->call.init()) != NVML_OK)
        status = ph_fail(err, PH_ERR_IO, "NVML does not start (code %d); is the NVIDIA driver loaded?", code);
    else
        nvml->is_up = true;
    if (status == PH_OK && nvml->call.count(&nvml->count) != NVML_OK)
        nvml->count = 0;
    if (status != PH_OK) {
        nvml_close(nvml);
        return status;
    }
    *out = nvml;
    return PH_OK;
}

void nvml_close(struct nvml *nvml)
{
    if (!nvml)
        return;
    if (nvml->is_up)
        nvml->call.shutdown();
    dlclose(nvml->library);
    mem_free(nvml);
}

size_t nvml_count(const struct nvml *nvml)
{
    if (!nvml)
        return 0;
    return nvml->count < MACHINE_DEVICES_MAX ? nvml->count : MACHINE_DEVICES_MAX;
}

/* 0 where the function is missing or the driver does not say. */
static unsigned ask(int (*fn)(void *device, unsigned *out), void *device)
{
    unsigned value = 0;
    return fn && fn(device, &value) == NVML_OK ? value : 0;
}

/* PCI Express, bytes a second of one lane, one way, after its line code. */
static double lane_rate(unsigned generation)
{
    static const double rates[] = {0, 0.25e9, 0.5e9, 0.985e9, 1.969e9, 3.938e9, 7.563e9};
    return generation < sizeof rates / sizeof *rates ? rates[generation] : 0;
}

static void *device_at(struct nvml *nvml, size_t index)
{
    void *device = NULL;
    return nvml->call.handle((unsigned)index, &device) == NVML_OK ? device : NULL;
}

bool nvml_describe(struct nvml *nvml, size_t index, struct machine_device *out)
{
    const struct functions *call = &nvml->call;
    char text[MACHINE_TEXT_BYTES] = "";
    struct memory_info memory;
    struct pci_info pci;
    unsigned clock_mhz = 0;
    void *device = device_at(nvml, index);
    *out = (struct machine_device){.kind = MACHINE_GPU, .vendor = "NVIDIA"};
    if (!device)
        return false;
    if (call->name && call->name(device, text, sizeof text) == NVML_OK)
        machine_set_text(out->name, text, strnlen(text, sizeof text));
    if (call->driver && call->driver(text, sizeof text) == NVML_OK)
        machine_set_text(out->driver, text, strnlen(text, sizeof text));
    if (call->pci && call->pci(device, &pci) == NVML_OK)
        snprintf(out->address, sizeof out->address, "%04x:%02x:%02x.0", pci.domain, pci.bus, pci.device);
    if (call->memory && call->memory(device, &memory) == NVML_OK) {
        out->memory_bytes = memory.total;
        out->memory_free_bytes = memory.free;
    }
    if (call->max_clock && call->max_clock(device, CLOCK_MEMORY, &clock_mhz) == NVML_OK)
        out->memory_bytes_per_s =
            (double)clock_mhz * 1e6 * TRANSFERS_A_CLOCK * (double)ask(call->bus_width, device) / 8;
    out->link_bytes_per_s =
        lane_rate(ask(call->link_generation, device)) * (double)ask(call->link_width, device);
    out->power_limit_w = (double)ask(call->power_limit, device) * 1e-3;
    return true;
}

bool nvml_sample(struct nvml *nvml, size_t index, struct nvml_sample *out)
{
    const struct functions *call = &nvml->call;
    struct memory_info memory;
    struct utilization use;
    unsigned value;
    unsigned long long bits = 0;
    void *device = device_at(nvml, index);
    *out = (struct nvml_sample){.has_temperature = false};
    if (!device)
        return false;
    if (call->temperature && call->temperature(device, SENSOR_GPU, &value) == NVML_OK) {
        out->has_temperature = true;
        out->temperature_c = value;
    }
    if (call->power && call->power(device, &value) == NVML_OK) {
        out->has_power = true;
        out->power_w = (double)value * 1e-3;
    }
    if (call->use && call->use(device, &use) == NVML_OK) {
        out->has_use = true;
        out->use_percent = use.gpu;
    }
    if (call->memory && call->memory(device, &memory) == NVML_OK) {
        out->has_memory = true;
        out->memory_used = memory.used;
        out->memory_total = memory.total;
    }
    out->has_throttle = call->throttle && call->throttle(device, &bits) == NVML_OK;
    out->throttle = bits;
    return true;
}

/* ---- Why clocks are low: nvmlClocksThrottleReason... Idle (1) and set clocks (2) are no throttling. */

static const struct {
    uint64_t bit;
    bool is_heat;
    const char *words;
} reasons[] = {{0x04, false, "power cap"},
               {0x08, true, "slowed down by hardware"},
               {0x20, true, "thermal (software)"},
               {0x40, true, "thermal (hardware)"},
               {0x80, false, "power brake"}};

void nvml_throttle_words(uint64_t bits, char *out, size_t size)
{
    size_t len = 0;
    out[0] = 0;
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if ((bits & reasons[i].bit) && len < size) {
            int more = snprintf(out + len, size - len, "%s%s", len ? ", " : "", reasons[i].words);
            len += more > 0 ? (size_t)more : 0;
        }
}

bool nvml_throttle_is_heat(uint64_t bits)
{
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (reasons[i].is_heat && (bits & reasons[i].bit))
            return true;
    return false;
}
