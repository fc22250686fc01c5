/* What every unit test includes: cmocka with its prerequisites, and a plain-worded skip where ../shared is
 * absent. */
#ifndef PHAROS_TESTS_TEST_SUPPORT_H
#define PHAROS_TESTS_TEST_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#ifndef TEST_SHARED_DIR
#define TEST_SHARED_DIR "../shared"
#endif

/* Under a sanitizer that multiplies time and memory. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* Skips the running test, saying so, unless the development data lies beside the checkout. */
#define REQUIRE_SHARED()                                                     \
    do {                                                                     \
        if (access(TEST_SHARED_DIR "/conformance/README.md", R_OK) != 0) {   \
            printf("SKIP: %s: %s is not here\n", __func__, TEST_SHARED_DIR); \
            skip();                                                          \
        }                                                                    \
    } while (0)

#endif
