/* Child processes on POSIX systems.
 *
 * posix_spawn rather than fork: it does not copy the page tables of a process that has a model mapped, and it
 * leads its child through a fixed list of actions instead of code of ours that must not allocate. Every
 * descriptor above the standard ones is closed, so that nothing of ours is inherited, whoever opened it.
 *
 * The watcher is a shell of three lines in the command's group. It waits for the lifeline, a pipe whose other
 * end nobody has but us: a line says that it may go; the end of file means that we have died, and it ends its
 * group, that is, itself and all that the command started. PR_SET_PDEATHSIG would do so only for one process,
 * only on Linux, and when the thread dies that started it. It starts first, so that there is no moment at
 * which the command could be left alone; the group has its number. It is our child and not the command's, so
 * that a command which waits for its children does not wait for it, and no one else has to bury it.
 *
 * The shell that runs a command may die before the program behind it. What it leaves comes to us
 * (PR_SET_CHILD_SUBREAPER) and not to the system's first process, which in a container may bury nobody: as
 * long as a dead member is not buried, its group lives. */
#define _GNU_SOURCE /* posix_spawn_file_actions_addclosefrom_np, pipe2 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "net/net_process_int.h"

static const char watch[] = "trap '' HUP INT QUIT TERM\n"
                            "read -r _ && exit\n"
                            "kill -TERM 0; sleep 2; kill -KILL 0\n";

/* ---- Its environment ---- */

static size_t name_len(const char *entry)
{
    return strcspn(entry, "=");
}

static bool is_overridden(const char *entry, const char *const *added)
{
    size_t len = name_len(entry);
    for (; added && *added; added++)
        if (name_len(*added) == len && memcmp(*added, entry, len) == 0)
            return true;
    return false;
}

/* Ours with additions; the strings are borrowed. NULL: no memory. */
static char **make_environment(const char *const *added)
{
    size_t count = 1, at = 0;
    for (char **entry = environ; entry && *entry; entry++)
        count++;
    for (const char *const *entry = added; entry && *entry; entry++)
        count++;
    char **all = mem_calloc(count, sizeof *all);
    if (!all)
        return NULL;
    for (char **entry = environ; entry && *entry; entry++)
        if (!is_overridden(*entry, added))
            all[at++] = *entry;
    for (const char *const *entry = added; entry && *entry; entry++)
        all[at++] = (char *)(uintptr_t)*entry; /* posix_spawn does not write to it */
    return all;
}

/* ---- Its beginning ---- */

static int set_attributes(posix_spawnattr_t *attributes, pid_t group)
{
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all); /* what we ignore, such as SIGPIPE, it does not */
    int rc = posix_spawnattr_setflags(attributes,
                                      POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    if (rc == 0)
        rc = posix_spawnattr_setpgroup(attributes, group);
    if (rc == 0)
        rc = posix_spawnattr_setsigmask(attributes, &none);
    return rc == 0 ? posix_spawnattr_setsigdefault(attributes, &all) : rc;
}

static int set_actions(posix_spawn_file_actions_t *actions, int in, int out)
{
    int rc = posix_spawn_file_actions_adddup2(actions, in, STDIN_FILENO);
    if (rc == 0)
        rc = posix_spawn_file_actions_adddup2(actions, out, STDOUT_FILENO);
    if (rc == 0)
        rc = posix_spawn_file_actions_adddup2(actions, out, STDERR_FILENO);
    return rc == 0 ? posix_spawn_file_actions_addclosefrom_np(actions, STDERR_FILENO + 1) : rc;
}

/* A shell with a script, in a group of its own (0) or another's. `in` and `out` lie above the standard
 * descriptors, which are filled one by one. */
static int spawn(int *pid, const char *script, pid_t group, int in, int out, char **environment)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    int rc = posix_spawnattr_init(&attributes);
    if (rc != 0)
        return rc;
    rc = posix_spawn_file_actions_init(&actions);
    if (rc == 0) {
        rc = set_attributes(&attributes, group);
        if (rc == 0)
            rc = set_actions(&actions, in, out);
        if (rc == 0)
            rc = posix_spawn(pid, "/bin/sh", &actions, &attributes, (char **)(uintptr_t)argv, environment);
        posix_spawn_file_actions_destroy(&actions);
    }
    posix_spawnattr_destroy(&attributes);
    return rc;
}

/* A copy above the standard descriptors, which may be closed in us. */
static int move_up(int fd)
{
    int moved = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int why = errno;
    if (fd >= 0)
        close(fd);
    errno = why;
    return moved;
}

static enum ph_status open_log(const char *path, int *fd, struct ph_err *err)
{
    const char *name = path ? path : "/dev/null";
    *fd = move_up(open(name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
    return *fd >= 0 ? PH_OK
                    : ph_fail(err, PH_ERR_IO, "%s: the log of a process cannot be written: %s", name,
                              strerror(errno));
}

/* The watcher, then the command; 0 or errno. */
static int spawn_both(struct child *child, const char *command, int log_fd, char **environment)
{
    int ends[2] = {-1, -1};
    int nothing = move_up(open("/dev/null", O_RDWR | O_CLOEXEC));
    int rc = nothing < 0 || pipe2(ends, O_CLOEXEC) != 0 ? errno : 0;
    if (rc == 0) {
        ends[0] = move_up(ends[0]);
        rc = ends[0] < 0 ? errno : 0;
    }
    if (rc == 0)
        rc = spawn(&child->group, watch, 0, ends[0], nothing, environment);
    if (rc == 0) {
        rc = spawn(&child->pid, command, child->group, nothing, log_fd, environment);
        if (rc != 0) {
            (void)kill(child->group, SIGKILL);
            (void)waitpid(child->group, NULL, 0);
        }
    }
    net_socket_close(nothing);
    net_socket_close(ends[0]);
    if (rc == 0)
        child->lifeline = ends[1];
    else
        net_socket_close(ends[1]);
    return rc;
}

enum ph_status child_start(struct child *child, const struct net_process_params *params, struct ph_err *err)
{
    int log_fd = -1;
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); /* without it ends are noticed later */
    char **environment = make_environment(params->env);
    enum ph_status status = environment ? open_log(params->log_path, &log_fd, err)
                                        : ph_fail(err, PH_ERR_NOMEM, "no memory to start a process");
    int rc = status == PH_OK ? spawn_both(child, params->command, log_fd, environment) : 0;
    if (rc != 0)
        status = ph_fail(err, PH_ERR_IO, "cannot start \"%s\": %s", params->command, strerror(rc));
    net_socket_close(log_fd);
    mem_free(environment);
    return status;
}

/* ---- Its end ---- */

/* Buries the watcher, too, and members whose parents have died. */
bool child_reap(const struct child *child, int *code)
{
    int status = 0;
    pid_t pid;
    bool ended = false;
    while ((pid = waitpid(-child->group, &status, WNOHANG)) > 0) {
        if (pid != child->pid)
            continue;
        *code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        ended = true;
    }
    return ended;
}

void child_signal(const struct child *child, int signal_number)
{
    (void)kill(-child->group, signal_number);
}

bool child_group_lives(const struct child *child)
{
    int unused = 0;
    (void)child_reap(child, &unused);
    return kill(-child->group, 0) == 0;
}

void child_release_watcher(struct child *child)
{
    if (child->lifeline >= 0 && write(child->lifeline, "\n", 1) != 1)
        return; /* it has gone already */
}

void child_forget(struct child *child)
{
    net_socket_close(child->lifeline);
    child->lifeline = -1;
}

bool net_port_is_free(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1; /* connections that have ended do not count */
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = net_socket_open(AF_INET, SOCK_STREAM, 0);
    bool is_free = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                   bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    net_socket_close(fd);
    return is_free;
}

uint16_t net_free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = net_socket_open(AF_INET, SOCK_STREAM, 0);
    bool is_bound = fd >= 0 && bind(fd, (struct sockaddr *)&address, len) == 0 &&
                    getsockname(fd, (struct sockaddr *)&address, &len) == 0;
    net_socket_close(fd);
    return is_bound ? ntohs(address.sin_port) : 0;
}
