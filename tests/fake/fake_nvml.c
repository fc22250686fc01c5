/* Stands in for NVIDIA's management library. What its devices say is read, at every call, from the file that
 * FAKE_NVML_STATE names: "<devices> <celsius> <milliwatt> <use percent> <throttle bits>"; without one, one device at
 * 40 degrees. 0 devices and a negative temperature: the driver refuses to start, the sensor does not answer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK 0
#define NOT_SUPPORTED 3
#define DRIVER_NOT_LOADED 9

struct state {
    long devices, celsius, milliwatt, use, throttle;
};

static struct state now(void)
{
    struct state s = {1, 40, 150000, 25, 0};
    const char *path = getenv("FAKE_NVML_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char text[128] = "";
    if (file && fgets(text, sizeof text, file)) {
        char *at = text;
        long *places[] = {&s.devices, &s.celsius, &s.milliwatt, &s.use, &s.throttle};
        for (int i = 0; i < 5; i++)
            *places[i] = strtol(at, &at, 10);
    }
    if (file)
        fclose(file);
    return s;
}

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetCount_v2(unsigned *count);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device);
int nvmlDeviceGetName(void *device, char *text, unsigned size);
int nvmlSystemGetDriverVersion(char *text, unsigned size);
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *out);
int nvmlDeviceGetPciInfo_v3(void *device, void *out);
int nvmlDeviceGetMaxClockInfo(void *device, int type, unsigned *mhz);
int nvmlDeviceGetMemoryBusWidth(void *device, unsigned *bits);
int nvmlDeviceGetMaxPcieLinkGeneration(void *device, unsigned *generation);
int nvmlDeviceGetMaxPcieLinkWidth(void *device, unsigned *lanes);
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius);
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatt);
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *milliwatt);
int nvmlDeviceGetUtilizationRates(void *device, unsigned *out);
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *bits);

int nvmlInit_v2(void)
{
    return now().devices ? OK : DRIVER_NOT_LOADED;
}

int nvmlShutdown(void)
{
    return OK;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    *count = (unsigned)now().devices;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
    static char places[64];
    *device = &places[index % 64];
    return OK;
}

int nvmlDeviceGetName(void *device, char *text, unsigned size)
{
    (void)device;
    snprintf(text, size, "NVIDIA H100 80GB HBM3");
    return OK;
}

int nvmlSystemGetDriverVersion(char *text, unsigned size)
{
    snprintf(text, size, "550.54.15");
    return OK;
}

int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *out)
{
    (void)device;
    out[0] = 85520809984ULL; /* total, free, used */
    out[1] = 84000000000ULL;
    out[2] = out[0] - out[1];
    return OK;
}

int nvmlDeviceGetPciInfo_v3(void *device, void *out)
{
    unsigned place[5] = {0, 0x1b, 0, 0x233010de, 0};
    (void)device;
    memset(out, 0, 68);
    memcpy((char *)out + 16, place, sizeof place);
    return OK;
}

int nvmlDeviceGetMaxClockInfo(void *device, int type, unsigned *mhz)
{
    (void)device;
    *mhz = type == 2 ? 2619 : 1980;
    return OK;
}

int nvmlDeviceGetMemoryBusWidth(void *device, unsigned *bits)
{
    (void)device;
    *bits = 5120;
    return OK;
}

int nvmlDeviceGetMaxPcieLinkGeneration(void *device, unsigned *generation)
{
    (void)device;
    *generation = 5;
    return OK;
}

int nvmlDeviceGetMaxPcieLinkWidth(void *device, unsigned *lanes)
{
    (void)device;
    *lanes = 16;
    return OK;
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius)
{
    struct state s = now();
    (void)device;
    if (sensor != 0 || s.celsius < 0)
        return NOT_SUPPORTED;
    *celsius = (unsigned)s.celsius;
    return OK;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatt)
{
    (void)device;
    *milliwatt = (unsigned)now().milliwatt;
    return OK;
}

int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *milliwatt)
{
    (void)device;
    *milliwatt = 700000;
    return OK;
}

int nvmlDeviceGetUtilizationRates(void *device, unsigned *out)
{
    (void)device;
    out[0] = (unsigned)now().use;
    out[1] = 3;
    return OK;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *bits)
{
    (void)device;
    *bits = (unsigned long long)now().throttle;
    return OK;
}
