/* What the tests of keys, rates and gate share: a clock that stands until it is told, a folder of one's own. */
#ifndef PHAROS_TESTS_KEYS_SUPPORT_H
#define PHAROS_TESTS_KEYS_SUPPORT_H

#include "base/clock.h"
#include "base/mem.h"
#include "gateway/keys.h"
#include "test_support.h"

struct test_clock {
    struct clock_source source;
    uint64_t ns;
    int64_t unix_ms;
};
void test_clock_init(struct test_clock *clock, int64_t unix_s);

/* Processor time of this thread, which others on the machine do not lengthen much. */
double test_cpu_ns(void);

struct test_dir {
    char path[64];
};
void test_dir_make(struct test_dir *dir);
void test_dir_remove(struct test_dir *dir); /* with what is in it */
/* Writes, or reads (mem_free), DIR/NAME. */
void test_dir_write(const struct test_dir *dir, const char *name, const char *text, unsigned mode);
char *test_dir_read(const struct test_dir *dir, const char *name);

/* Member by member. */
void test_keys_equal(const struct key *a, const struct key *b);

#endif
