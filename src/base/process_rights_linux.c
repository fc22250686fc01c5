/* What a server gives up before it reads its first byte. All of it is inherited: by the threads to come, and
 * but for the memory's secrecy by the programs that are started.
 *
 * The filter of system calls names what is refused, not what is allowed: a list of what some library or
 * engine may need one day would be wrong on somebody's machine; these are needed by none. Refused means
 * EPERM, so that who tries anyway goes on. (systemd's SystemCallFilter= is stricter: deploy/systemd.)
 *
 * Sources: capabilities(7), prctl(2), seccomp(2), the kernel's userspace-api/seccomp_filter. */
#define _GNU_SOURCE

#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pwd.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/process.h"

#define BIT(capability_) (UINT32_C(1) << (capability_))
/* The superuser who stays one reads and writes everybody's files, models in somebody's home directory too. */
#define OWN_OF_ROOT (BIT(CAP_DAC_OVERRIDE) | BIT(CAP_DAC_READ_SEARCH))
#define X32_CALLS 0x40000000u /* of x86-64: the same calls by other numbers */

#if defined(__x86_64__)
#define OWN_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OWN_ARCH AUDIT_ARCH_AARCH64
#endif

/* A leak checker stops its own process to look at it. */
#if defined(__SANITIZE_ADDRESS__)
#define IS_WATCHED true
#else
#define IS_WATCHED false
#endif

static const unsigned refused[] = {
    SYS_acct,          SYS_add_key,         SYS_bpf,         SYS_clock_adjtime, SYS_clock_settime,
    SYS_delete_module, SYS_finit_module,    SYS_init_module, SYS_kexec_load,    SYS_keyctl,
    SYS_mount,         SYS_move_mount,      SYS_fsmount,     SYS_fsopen,        SYS_open_by_handle_at,
    SYS_open_tree,     SYS_perf_event_open, SYS_pivot_root,  SYS_quotactl,      SYS_reboot,
    SYS_request_key,   SYS_setdomainname,   SYS_sethostname, SYS_setns,         SYS_settimeofday,
    SYS_swapoff,       SYS_swapon,          SYS_umount2,     SYS_unshare,       SYS_userfaultfd,
    SYS_ptrace, /* the last: see IS_WATCHED */
};
#define REFUSED (sizeof refused / sizeof *refused)

static int refuse_calls(void)
{
#ifdef OWN_ARCH
    size_t calls = REFUSED - IS_WATCHED, at = 0;
    struct sock_filter code[REFUSED + 7];
    code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OWN_ARCH, 0, (uint8_t)(calls + 3));
    code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_CALLS, (uint8_t)(calls + 1), 0);
    for (size_t i = 0; i < calls; i++)
        code[at++] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refused[i], (uint8_t)(calls - i), 0);
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    const struct sock_fprog program = {.len = (unsigned short)at, .filter = code};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
#else
    return 0;
#endif
}

/* The data's owner, when the superuser starts the server of somebody else's: nothing of it is root's then. */
static enum ph_status become(uid_t uid, gid_t gid, struct ph_err *err)
{
    const struct passwd *user = getpwuid(uid);
    gid = user ? user->pw_gid : gid;
    int failed = user ? initgroups(user->pw_name, gid) : setgroups(0, NULL);
    failed =
        failed || prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid);
    return failed ? ph_fail(err, PH_ERR_IO, "the rights of user %u cannot be taken: %s", (unsigned)uid,
                            strerror(errno))
                  : PH_OK;
}

/* Not for what comes after execve, too, but for `kept`. */
static void bound_capabilities(uint32_t kept)
{
    for (unsigned capability = 0; capability <= CAP_LAST_CAP; capability++)
        if (capability >= 32 || !(kept & BIT(capability)))
            (void)prctl(PR_CAPBSET_DROP, capability, 0, 0, 0); /* who may not has none to lose */
}

static enum ph_status keep_capabilities(uint32_t kept, struct ph_err *err)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct now[2], sets[2] = {{0}};
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capget, &header, now) == 0)
        sets[0].effective = sets[0].permitted = now[0].permitted & kept;
    return syscall(SYS_capset, &header, sets) == 0
               ? PH_OK
               : ph_fail(err, PH_ERR_IO, "capabilities cannot be given up: %s", strerror(errno));
}

enum ph_status process_drop_rights(const char *data, bool low_port, struct ph_err *err)
{
    const struct rlimit no_core = {0};
    struct stat stat_of_data;
    enum ph_status status = PH_OK;
    bool is_root = geteuid() == 0, becomes = is_root && stat(data, &stat_of_data) == 0 && stat_of_data.st_uid;
    uint32_t kept = is_root && !becomes ? OWN_OF_ROOT : 0;
    bound_capabilities(kept);
    umask(077);
    (void)setrlimit(RLIMIT_CORE, &no_core);
    if (becomes)
        status = become(stat_of_data.st_uid, stat_of_data.st_gid, err);
    if (status == PH_OK)
        status = keep_capabilities(kept | (low_port ? BIT(CAP_NET_BIND_SERVICE) : 0), err);
    if (status == PH_OK && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        status = ph_fail(err, PH_ERR_IO, "new rights cannot be renounced: %s", strerror(errno));
    if (!IS_WATCHED)
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (status == PH_OK && refuse_calls() != 0 && errno != EINVAL) /* a kernel without filters */
        status = ph_fail(err, PH_ERR_IO, "system calls cannot be refused: %s", strerror(errno));
    return status;
}
