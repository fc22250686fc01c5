#include "base/process.h"

#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

void process_keep_on_bad_writes(void)
{
    signal(SIGPIPE, SIG_IGN); /* EPIPE then */
    signal(SIGXFSZ, SIG_IGN); /* EFBIG then */
}

/* The soft limit is there for programs that use select(2). */
uint64_t process_allow_files(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        return 0;
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
    return getrlimit(RLIMIT_NOFILE, &files) == 0 ? files.rlim_cur : 0;
}

/* Asked of the descriptor itself, because by the time somebody wants to know, errno is of another call. */
bool process_stdout_is_deaf(void)
{
    struct pollfd out = {.fd = STDOUT_FILENO};
    return poll(&out, 1, 0) == 1 && (out.revents & (POLLERR | POLLHUP)) != 0;
}

unsigned process_terminal_columns(int fd)
{
    struct winsize size;
    return ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

static volatile sig_atomic_t stop_asked; /* the signal flag */

static void remember(int number)
{
    (void)number;
    stop_asked = 1;
}

void process_catch_stop(void)
{
    struct sigaction action = {.sa_handler = remember, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool process_stop_asked(void)
{
    return stop_asked != 0;
}
