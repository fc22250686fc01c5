/* Certificates and a plain OpenSSL client, for the tests of TLS. */
#ifndef PHAROS_TESTS_TLS_SUPPORT_H
#define PHAROS_TESTS_TLS_SUPPORT_H

#include <stddef.h>
#include <stdint.h>

#include <openssl/ssl.h>

/* Writes a self-signed certificate and its key (PEM). `name` is like "IP:127.0.0.1"; it is valid from now and
 * for `days`, which may be negative. */
void test_make_certificate(const char *certificate, const char *key, const char *name, int days);

/* A client over a blocking socket; trusts everybody. NULL: the handshake failed. */
struct test_tls {
    SSL_CTX *context;
    SSL *ssl;
    int fd;
};
int test_tls_connect(struct test_tls *tls, uint16_t port, int version_max,
                     const char *protocol); /* 1: good */
/* Reads to the end; answers SSL_get_error's last word: SSL_ERROR_ZERO_RETURN after a clean end. */
int test_tls_read(struct test_tls *tls, char *out, size_t size);
void test_tls_close(struct test_tls *tls);

#endif
