/* net, private: what tls_conn.c needs of tls_context.c, and the other way round. */
#ifndef PHAROS_NET_TLS_CONTEXT_INT_H
#define PHAROS_NET_TLS_CONTEXT_INT_H

#include <openssl/ssl.h>

struct tls_context {
    SSL_CTX *ssl;
    BIO_METHOD *method; /* of its connections' BIOs */
};

BIO_METHOD *tls_bio_method_new(void); /* NULL: no memory */

#endif
