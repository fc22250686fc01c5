/* Asking the operating system for AMX. */
#define _GNU_SOURCE /* syscall */
#include "tensor/kernels_int.h"

#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA 18

/* Linux lets a process use tile data after it asked once; another system is taken not to. */
bool kernels_amx_permitted(void)
{
#ifdef __linux__
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}
