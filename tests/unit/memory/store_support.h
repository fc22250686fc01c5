/* A store in a folder of its own for each test, over whichever database the suite runs on. */
#ifndef PHAROS_TESTS_STORE_SUPPORT_H
#define PHAROS_TESTS_STORE_SUPPORT_H

#include "memory/store.h"
#include "test_support.h"

/* How a suite gets an empty store, and comes back to it. */
struct store_backend {
    const char *name;
    bool (*make)(char dir[64],
                 char url[256]); /* an empty place; false: this database is not here. url "": SQLite */
    void (*remove)(const char *dir, const char *url);
};

struct store_test {
    const struct store_backend *backend;
    char dir[64], url[256];
    struct store *store;
    struct arena arena;
    struct ph_err err;
    int64_t now_ms;
    struct clock_source clock;
};

extern const struct store_backend store_backend_sqlite;
extern const struct store_backend store_backend_postgres; /* between these two: */
bool store_test_start_postgres(void);                     /* false: said why not */
void store_test_stop_postgres(void);
void store_test_tell_postgres(const char *line); /* "restart fast\n", ...: tests/e2e/postgres.py */
void store_test_sql(const char *sql);            /* over a session of its own */

/* cmocka's setup and teardown; the backend comes as the test's initial state. */
int store_test_setup(void **state);
int store_test_teardown(void **state);
void store_test_open(struct store_test *test);
void store_test_close(struct store_test *test);
void store_test_reopen(struct store_test *test);

/* A message of role user; what is not said is as in the table. */
struct store_message store_test_message(const char *id, const char *content);
/* Appends `count` messages "content" ("%zu" in it is the message's number) without ids. */
void store_test_fill(struct store_test *test, const char *user, const char *key, size_t count);

enum ph_status store_test_append(struct store_test *test, const struct store_append *append,
                                 struct store_result *result);
enum ph_status store_test_delete(struct store_test *test, enum store_write_kind kind, const char *user,
                                 const char *key, const char *id);
struct store_conversation store_test_conversation(struct store_test *test, const char *user, const char *key);
struct store_messages store_test_messages(struct store_test *test, const char *user, const char *key);
void store_test_sound(struct store_test *test); /* verify finds nothing */

#endif
