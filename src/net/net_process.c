/* Child processes: a command, everything that it starts, and their end.
 *
 * What a command starts is one process group. Its end is a matter of the group, not of the command alone: a
 * shell dies of SIGTERM at once while the engine behind it still tidies up, and an engine that crashes leaves
 * its workers. So:
 *
 *   RUNNING  --the command ends-->  KILLING          what is left has no right to live any longer
 *   RUNNING  --stop-->  STOPPING                     SIGTERM to all
 *   STOPPING --all gone-->  over                     looked at every LOOK_MS once the command has ended
 *   STOPPING --the grace is over-->  KILLING         SIGKILL to all
 *   KILLING  --all gone, or KILL_WAIT_MS-->  over    `ended`
 *
 * The group's number cannot come to mean other processes while it has a member, and a group that has none is
 * looked at no more.
 *
 * When we are killed ourselves there is nobody left to stop anything. A watcher in the group (see
 * net_process_posix.c) holds the other end of `lifeline`: told by a line that it may go, it goes; when the
 * line breaks, which happens however we end, it ends the group. */
#include <assert.h>
#include <signal.h>

#include "base/mem.h"
#include "net/net_process_int.h"

#define LOOK_MS 10
#define KILL_WAIT_MS 2000

enum process_state { PROCESS_RUNNING, PROCESS_STOPPING, PROCESS_KILLING, PROCESS_OVER };

struct net_process {
    uv_loop_t *uv;
    uv_signal_t child_signal;
    uv_timer_t timer;
    int handles_open;
    struct child child;
    enum process_state state;
    bool command_ended;
    int code;
    uint64_t kill_ms, give_up_ms; /* STOPPING: when it is killed. KILLING: when that is believed */
    void (*ended)(void *ud, int code);
    void *ud;
};

static void on_timer(uv_timer_t *timer);

/* ---- The end ---- */

static void look_again(struct net_process *process, uint64_t at_ms)
{
    uint64_t now_ms = uv_now(process->uv);
    uv_timer_start(&process->timer, on_timer, at_ms > now_ms ? at_ms - now_ms : 0, 0);
}

static void kill_all(struct net_process *process)
{
    process->state = PROCESS_KILLING;
    process->give_up_ms = uv_now(process->uv) + KILL_WAIT_MS;
    child_signal(&process->child, SIGKILL);
}

static void end(struct net_process *process)
{
    process->state = PROCESS_OVER;
    uv_timer_stop(&process->timer);
    uv_signal_stop(&process->child_signal);
    child_forget(&process->child);
    process->ended(process->ud, process->code);
}

/* Goes on from whatever is the case now. */
static void go_on(struct net_process *process)
{
    uint64_t now_ms = uv_now(process->uv);
    if (process->state == PROCESS_OVER)
        return;
    if (!process->command_ended)
        process->command_ended = child_reap(&process->child, &process->code);
    if (process->command_ended && process->state == PROCESS_RUNNING)
        kill_all(process);
    else if (process->state == PROCESS_STOPPING && now_ms >= process->kill_ms)
        kill_all(process);
    bool gave_up = process->state == PROCESS_KILLING && now_ms >= process->give_up_ms;
    if (process->command_ended && (gave_up || !child_group_lives(&process->child)))
        end(process);
    else if (process->command_ended)
        look_again(process, now_ms + LOOK_MS);
    else if (process->state == PROCESS_STOPPING)
        look_again(process, process->kill_ms); /* SIGCHLD tells of its end */
}

static void on_timer(uv_timer_t *timer)
{
    go_on(timer->data);
}

static void on_child_signal(uv_signal_t *handle, int signal_number)
{
    (void)signal_number;
    go_on(handle->data);
}

void net_process_stop(struct net_process *process, uint32_t grace_ms)
{
    uv_update_time(process->uv);
    uint64_t kill_ms = uv_now(process->uv) + grace_ms;
    if (process->state == PROCESS_RUNNING) {
        process->state = PROCESS_STOPPING;
        process->kill_ms = kill_ms;
        child_release_watcher(&process->child);
        child_signal(&process->child, SIGTERM);
    }
    if (process->state != PROCESS_STOPPING)
        return;
    if (kill_ms < process->kill_ms) /* asked again, with less patience */
        process->kill_ms = kill_ms;
    look_again(process, process->command_ended ? 0 : process->kill_ms);
}

/* ---- The beginning ---- */

static void on_closed(uv_handle_t *handle)
{
    struct net_process *process = handle->data;
    if (--process->handles_open == 0)
        mem_free(process);
}

static void close_handles(struct net_process *process)
{
    uv_close((uv_handle_t *)&process->timer, on_closed);
    uv_close((uv_handle_t *)&process->child_signal, on_closed);
}

/* The signal is watched before there is a child whose end could be missed. */
enum ph_status net_process_start(struct net_process **out, struct net_loop *loop,
                                 const struct net_process_params *params, struct ph_err *err)
{
    struct net_process *process = mem_calloc(1, sizeof *process);
    if (!process)
        return ph_fail(err, PH_ERR_NOMEM, "no memory to start a process");
    process->uv = net_loop_uv(loop);
    process->ended = params->ended;
    process->ud = params->ud;
    if (uv_signal_init(process->uv, &process->child_signal) != 0) {
        mem_free(process);
        return ph_fail(err, PH_ERR_IO, "no descriptors to start a process");
    }
    uv_timer_init(process->uv, &process->timer);
    process->timer.data = process->child_signal.data = process;
    process->handles_open = 2;
    int rc = uv_signal_start(&process->child_signal, on_child_signal, SIGCHLD);
    enum ph_status status = rc == 0 ? child_start(&process->child, params, err)
                                    : ph_fail(err, PH_ERR_IO, "cannot start a process: %s", uv_strerror(rc));
    if (status != PH_OK)
        close_handles(process);
    else
        *out = process;
    return status;
}

int net_process_pid(const struct net_process *process)
{
    return process->child.pid;
}

int net_process_group(const struct net_process *process)
{
    return process->child.group;
}

void net_process_free(struct net_process *process)
{
    if (!process)
        return;
    assert(process->state == PROCESS_OVER && "a process is freed that has not ended");
    close_handles(process);
}
