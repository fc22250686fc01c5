/* Names of machines, looked up without holding the loop: getaddrinfo on threads of its own.
 *
 * Not on libuv's: there are four of those, for all the work of the process, and a silent name server holds a
 * thread for half a minute. Each lookup has a thread that nobody waits for; what is asked for twice at the
 * same time is looked up once, and answers are kept for NET_NAMES_KEPT_MS. (The system's interface does not
 * say how long an answer holds; a machine that moved is found when its connections fail.)
 *
 * A thread may outlive the one who asked, and the loop itself. So threads and loop share a board under a
 * mutex, counted by both: a thread puts its answer there and calls the loop while there is one. */
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "net/http_link_int.h"
#include "net/net_names_int.h"

struct name_board {
    uv_mutex_t mutex;
    struct net_wake *wake;     /* NULL: the loop is gone */
    struct name_job *finished; /* not taken yet */
    size_t holders;            /* the loop, and each thread */
};

struct name_job {
    struct name_job *next;
    struct name_board *board;
    struct name_entry *entry; /* the loop's: not looked at by the thread */
    struct net_addresses answer;
    char name[NET_NAME_BYTES_MAX + 1];
};

/* One name. With `asks`, it is being looked up, or waits for a thread. */
struct name_entry {
    struct http_link link; /* names->entries */
    struct http_link asks;
    struct net_addresses answer;
    uint64_t kept_until_ms; /* 0: no answer */
    bool has_thread;
    char name[NET_NAME_BYTES_MAX + 1];
};

struct net_names {
    struct net_loop *loop;
    struct name_board *board;
    struct http_link entries;
    size_t entry_count, thread_count;
    bool is_answering; /* somebody is being called, */
    bool is_closed;    /* who closed this: it goes when he has returned */
};

/* ---- Threads ---- */

static void leave_board(struct name_board *board)
{
    uv_mutex_lock(&board->mutex);
    bool is_last = --board->holders == 0;
    uv_mutex_unlock(&board->mutex);
    if (!is_last)
        return;
    while (board->finished) {
        struct name_job *job = board->finished;
        board->finished = job->next;
        mem_free(job);
    }
    uv_mutex_destroy(&board->mutex);
    mem_free(board);
}

static void look_up(void *ud)
{
    struct name_job *job = ud;
    struct name_board *board = job->board;
    net_addresses_resolve(&job->answer, job->name);
    uv_mutex_lock(&board->mutex);
    job->next = board->finished;
    board->finished = job;
    if (board->wake)
        net_wake_call(board->wake);
    uv_mutex_unlock(&board->mutex);
    leave_board(board);
}

static bool begin(struct net_names *names, struct name_entry *entry)
{
    struct name_job *job = mem_calloc(1, sizeof *job);
    if (!job)
        return false;
    job->board = names->board;
    job->entry = entry;
    memcpy(job->name, entry->name, sizeof job->name);
    uv_mutex_lock(&names->board->mutex);
    names->board->holders++;
    uv_mutex_unlock(&names->board->mutex);
    if (!net_run_detached(look_up, job)) {
        mem_free(job);
        leave_board(names->board);
        return false;
    }
    entry->has_thread = true;
    names->thread_count++;
    return true;
}

/* ---- Entries ---- */

static void drop_entry(struct net_names *names, struct name_entry *entry)
{
    http_link_remove(&entry->link);
    names->entry_count--;
    mem_free(entry);
}

/* The one that has gone unused for longest, nobody waiting for it. */
static void make_room(struct net_names *names)
{
    if (names->entry_count < NET_NAMES_KEPT_MAX)
        return;
    for (struct http_link *link = names->entries.next; link != &names->entries; link = link->next) {
        struct name_entry *entry = HTTP_CONTAINER(link, struct name_entry, link);
        if (!entry->has_thread && http_link_is_alone(&entry->asks)) {
            drop_entry(names, entry);
            return;
        }
    }
}

static struct name_entry *find_entry(struct net_names *names, const char *name)
{
    for (struct http_link *link = names->entries.next; link != &names->entries; link = link->next) {
        struct name_entry *entry = HTTP_CONTAINER(link, struct name_entry, link);
        if (strcmp(entry->name, name) == 0) {
            http_link_remove(&entry->link);
            http_link_append(&names->entries, &entry->link);
            return entry;
        }
    }
    return NULL;
}

static struct name_entry *create_entry(struct net_names *names, const char *name)
{
    make_room(names);
    struct name_entry *entry = mem_calloc(1, sizeof *entry);
    if (!entry)
        return NULL;
    memcpy(entry->name, name, strlen(name) + 1);
    http_link_init(&entry->asks);
    http_link_append(&names->entries, &entry->link);
    names->entry_count++;
    return entry;
}

/* ---- Answers ---- */

static void tell(struct name_entry *entry, const struct net_addresses *answer)
{
    while (!http_link_is_alone(&entry->asks)) {
        struct net_name_ask *ask = HTTP_CONTAINER(entry->asks.next, struct net_name_ask, link);
        http_link_remove(&ask->link);
        ask->answered(ask->ud, answer);
    }
}

static void begin_waiting(struct net_names *names)
{
    struct http_link *link = names->entries.next;
    while (link != &names->entries && names->thread_count < NET_NAMES_THREADS_MAX) {
        struct name_entry *entry = HTTP_CONTAINER(link, struct name_entry, link);
        link = link->next;
        if (!entry->has_thread && !http_link_is_alone(&entry->asks) && !begin(names, entry))
            return;
    }
}

static void finish(struct net_names *names, struct name_job *job)
{
    struct name_entry *entry = job->entry;
    struct net_addresses answer = job->answer;
    mem_free(job);
    names->thread_count--;
    entry->has_thread = false;
    if (answer.count) {
        entry->answer = answer;
        entry->kept_until_ms = uv_now(net_loop_uv(names->loop)) + NET_NAMES_KEPT_MS;
    }
    tell(entry, &answer);
    if (!entry->kept_until_ms && http_link_is_alone(&entry->asks))
        drop_entry(names, entry);
}

static void release(struct net_names *names)
{
    while (!http_link_is_alone(&names->entries))
        drop_entry(names, HTTP_CONTAINER(names->entries.next, struct name_entry, link));
    leave_board(names->board);
    mem_free(names);
}

static void on_wake(void *ud)
{
    struct net_names *names = ud;
    struct name_board *board = names->board;
    uv_mutex_lock(&board->mutex);
    struct name_job *job = board->finished;
    board->finished = NULL;
    uv_mutex_unlock(&board->mutex);
    names->is_answering = true;
    while (job) {
        struct name_job *next = job->next;
        finish(names, job);
        job = next;
    }
    names->is_answering = false;
    if (names->is_closed)
        release(names);
    else
        begin_waiting(names);
}

/* ---- Asking ---- */

const struct net_addresses *net_names_known(struct net_names *names, const char *name)
{
    struct name_entry *entry = find_entry(names, name);
    bool is_known = entry && entry->kept_until_ms > uv_now(net_loop_uv(names->loop));
    return is_known ? &entry->answer : NULL;
}

void net_names_distrust(struct net_names *names, const char *name)
{
    struct name_entry *entry = find_entry(names, name);
    if (entry)
        entry->kept_until_ms = 0;
}

bool net_names_ask(struct net_names *names, const char *name, struct net_name_ask *ask)
{
    if (strlen(name) > NET_NAME_BYTES_MAX)
        return false;
    struct name_entry *entry = find_entry(names, name);
    if (!entry)
        entry = create_entry(names, name);
    if (!entry)
        return false;
    entry->kept_until_ms = 0;
    if (!entry->has_thread && names->thread_count < NET_NAMES_THREADS_MAX && !begin(names, entry)) {
        if (http_link_is_alone(&entry->asks))
            drop_entry(names, entry);
        return false;
    }
    http_link_append(&entry->asks, &ask->link);
    return true;
}

/* ---- Opening and closing ---- */

static struct name_board *create_board(struct net_names *names)
{
    struct name_board *board = mem_calloc(1, sizeof *board);
    if (!board || uv_mutex_init(&board->mutex) != 0) {
        mem_free(board);
        return NULL;
    }
    board->holders = 1;
    if (net_wake_open(&board->wake, names->loop, on_wake, names) != PH_OK) {
        leave_board(board);
        return NULL;
    }
    return board;
}

struct net_names *net_names_open(struct net_loop *loop)
{
    struct net_names *names = mem_calloc(1, sizeof *names);
    if (!names)
        return NULL;
    names->loop = loop;
    http_link_init(&names->entries);
    names->board = create_board(names);
    if (!names->board) {
        mem_free(names);
        return NULL;
    }
    return names;
}

void net_names_close(struct net_names *names)
{
    if (!names)
        return;
    uv_mutex_lock(&names->board->mutex);
    struct net_wake *wake = names->board->wake;
    names->board->wake = NULL;
    uv_mutex_unlock(&names->board->mutex);
    net_wake_close(wake);
    if (names->is_answering)
        names->is_closed = true;
    else
        release(names);
}
