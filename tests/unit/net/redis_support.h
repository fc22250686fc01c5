/* A Redis that does as it is told, on a thread of its own: honest, or wrong in one of many ways. */
#ifndef PHAROS_TESTS_REDIS_SUPPORT_H
#define PHAROS_TESTS_REDIS_SUPPORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

#define FAKE_CONNECTIONS_MAX 8
#define FAKE_VALUES_MAX 32
#define FAKE_VALUE_BYTES_MAX (1 << 20)

enum fake_manner { /* to look-ups and stores; hellos are answered but where it says so */
                   FAKE_HONEST,
                   FAKE_SILENT,
                   FAKE_ERROR,   /* -OOM, and something secret */
                   FAKE_GARBAGE, /* not its protocol */
                   FAKE_HALF,    /* the beginning of a reply, then the end */
                   FAKE_CUT,     /* the end at once */
                   FAKE_ARRAY,   /* of a thousand million things */
                   FAKE_ENDLESS, /* a text without end */
                   FAKE_TWICE,   /* each reply two times */
                   FAKE_NUMBER,  /* an integer */
                   FAKE_DEAF,    /* hellos too are not answered */
                   FAKE_LOADING, /* hellos are refused */
                   FAKE_MANNERS
};

struct fake_value {
    char name[128];
    char *bytes;
    size_t len;
    unsigned ttl_s;
};

struct fake_redis {
    uv_thread_t thread;
    uv_mutex_t lock; /* over values */
    int listener, wake[2];
    uint16_t port;
    atomic_int manner;
    atomic_bool ends;
    atomic_size_t connects, hellos, gets, sets;
    char login[256]; /* the last AUTH's words, and SELECT's */
    struct fake_value values[FAKE_VALUES_MAX];
    size_t value_count;
    struct fake_connection *connections[FAKE_CONNECTIONS_MAX];
};

void fake_redis_start(struct fake_redis *fake, enum fake_manner manner);
void fake_redis_behave(struct fake_redis *fake, enum fake_manner manner);
/* Every connection ends, without a word; new ones are taken. */
void fake_redis_drop(struct fake_redis *fake);
void fake_redis_put(struct fake_redis *fake, const char *name, const void *bytes, size_t len);
/* Every value through `change`, which may write to the bytes and make them fewer. */
void fake_redis_change(struct fake_redis *fake, size_t (*change)(void *ud, char *bytes, size_t len),
                       void *ud);
void fake_redis_stop(struct fake_redis *fake);

#endif
