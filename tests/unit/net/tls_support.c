#include "tls_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "net_support.h"

static void must(int good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "test certificates: %s\n", what);
    abort();
}

static void add_extension(X509 *cert, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, cert, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    must(extension && X509_add_ext(cert, extension, -1) == 1, value);
    X509_EXTENSION_free(extension);
}

void test_make_certificate(const char *certificate, const char *key, const char *name, int days)
{
    EVP_PKEY *pair = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    must(pair && cert, "no memory");
    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), days < 0 ? (long)days * 2 * 86400 : -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), (long)days * 86400);
    X509_set_pubkey(cert, pair);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)"pharos test", -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    add_extension(cert, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(cert, NID_subject_alt_name, name);
    must(X509_sign(cert, pair, EVP_sha256()) > 0, "signing");
    FILE *out = fopen(certificate, "w");
    must(out && PEM_write_X509(out, cert) == 1 && fclose(out) == 0, certificate);
    out = fopen(key, "w");
    must(out && PEM_write_PrivateKey(out, pair, NULL, NULL, 0, NULL, NULL) == 1 && fclose(out) == 0, key);
    X509_free(cert);
    EVP_PKEY_free(pair);
}

int test_tls_connect(struct test_tls *tls, uint16_t port, int version_max, const char *protocol)
{
    unsigned char offer[64];
    memset(tls, 0, sizeof *tls);
    tls->fd = test_connect(port);
    tls->context = SSL_CTX_new(TLS_client_method());
    must(tls->context != NULL, "no memory");
    SSL_CTX_set_security_level(tls->context, 0); /* so that old versions are offered at all */
    SSL_CTX_set_min_proto_version(tls->context, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(tls->context, version_max);
    tls->ssl = SSL_new(tls->context);
    must(tls->ssl && SSL_set_fd(tls->ssl, tls->fd) == 1, "no memory");
    if (protocol) {
        offer[0] = (unsigned char)strlen(protocol);
        memcpy(offer + 1, protocol, offer[0]);
        must(SSL_set_alpn_protos(tls->ssl, offer, offer[0] + 1u) == 0, protocol);
    }
    ERR_clear_error();
    return SSL_connect(tls->ssl);
}

int test_tls_read(struct test_tls *tls, char *out, size_t size)
{
    size_t len = 0, n = 0;
    ERR_clear_error();
    int rc = 1;
    while (len + 1 < size && (rc = SSL_read_ex(tls->ssl, out + len, size - 1 - len, &n)) == 1)
        len += n;
    out[len] = 0;
    return rc == 1 ? SSL_ERROR_NONE : SSL_get_error(tls->ssl, rc);
}

void test_tls_close(struct test_tls *tls)
{
    SSL_free(tls->ssl);
    SSL_CTX_free(tls->context);
    close(tls->fd);
    ERR_clear_error();
}
