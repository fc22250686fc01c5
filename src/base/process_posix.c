#include "base/process.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

void process_keep_on_bad_writes(void)
{
    signal(SIGPIPE, SIG_IGN); /* EPIPE then */
    signal(SIGXFSZ, SIG_IGN); /* EFBIG then */
}

/* Asked of the descriptor itself, because by the time somebody wants to know, errno is of another call. */
bool process_stdout_is_deaf(void)
{
    struct pollfd out = {.fd = STDOUT_FILENO};
    return poll(&out, 1, 0) == 1 && (out.revents & (POLLERR | POLLHUP)) != 0;
}
