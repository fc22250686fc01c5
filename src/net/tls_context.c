/* What the connections of one end have in common: a server's certificate and key, a client's trusted roots.
 *
 * TLS 1.2 and newer; no renegotiation; of application protocols only http/1.1. A client that offers our
 * server others only is told so in the handshake. A server's sessions resume by tickets, which cost it no
 * memory. A client always checks: the system's roots, and those of one file more. */
#include <errno.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>

#include "base/mem.h"
#include "net/tls_context_int.h"
#include "net/tls_int.h"

static const unsigned char protocols[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};

static enum ph_status create(struct tls_context **out, const SSL_METHOD *method, struct ph_err *err)
{
    struct tls_context *context = mem_calloc(1, sizeof *context);
    if (context) {
        context->method = tls_bio_method_new();
        context->ssl = SSL_CTX_new(method);
    }
    if (!context || !context->method || !context->ssl) {
        tls_context_free(context);
        return ph_fail(err, PH_ERR_NOMEM, "no memory for TLS");
    }
    SSL_CTX_set_min_proto_version(context->ssl, TLS1_2_VERSION);
    SSL_CTX_set_options(context->ssl, SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(context->ssl, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context->ssl, SSL_SESS_CACHE_OFF);
    *out = context;
    return PH_OK;
}

void tls_context_free(struct tls_context *context)
{
    if (!context)
        return;
    SSL_CTX_free(context->ssl);
    BIO_meth_free(context->method);
    mem_free(context);
}

/* Answers `status`, with nothing made unless it is PH_OK. */
static enum ph_status hand_over(struct tls_context **out, struct tls_context *context, enum ph_status status)
{
    ERR_clear_error();
    if (status == PH_OK)
        *out = context;
    else
        tls_context_free(context);
    return status;
}

/* ---- The server's ---- */

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *offered, unsigned int offered_len, void *ud)
{
    (void)ssl;
    (void)ud;
    unsigned char *chosen = NULL;
    int rc = SSL_select_next_proto(&chosen, out_len, protocols, sizeof protocols, offered, offered_len);
    *out = chosen;
    return rc == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* Nobody is there to be asked for a passphrase. */
static int no_passphrase(char *out, int size, int is_writing, void *ud)
{
    (void)out;
    (void)size;
    (void)is_writing;
    (void)ud;
    return -1;
}

/* The first error is the cause: "No such file or directory", "bad password read", "no start line" ... */
static enum ph_status refuse(struct ph_err *err, const char *path, const char *what)
{
    unsigned long code = ERR_peek_error();
    const char *why = ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code)) : ERR_reason_error_string(code);
    return ph_fail(err, PH_ERR_ARG, "%s: %s: %s", path, what, why ? why : "unknown error");
}

static bool is_mismatch(unsigned long code)
{
    return ERR_GET_LIB(code) == ERR_LIB_X509 && (ERR_GET_REASON(code) == X509_R_KEY_VALUES_MISMATCH ||
                                                 ERR_GET_REASON(code) == X509_R_KEY_TYPE_MISMATCH);
}

static enum ph_status load(SSL_CTX *context, const char *certificate, const char *key, struct ph_err *err)
{
    ERR_clear_error();
    if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1)
        return refuse(err, certificate, "no certificate can be read; it must be PEM, the server's own first");
    ERR_clear_error();
    bool is_read = SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) == 1;
    if (!is_read && !is_mismatch(ERR_peek_error()))
        return refuse(err, key, "no key can be read; it must be PEM, without a passphrase");
    if (!is_read || SSL_CTX_check_private_key(context) != 1)
        return ph_fail(err, PH_ERR_ARG, "%s: this key does not belong to the certificate in %s", key,
                       certificate);
    return PH_OK;
}

enum ph_status tls_server_context(struct tls_context **out, const char *certificate, const char *key,
                                  struct ph_err *err)
{
    struct tls_context *context = NULL;
    enum ph_status status = create(&context, TLS_server_method(), err);
    if (status != PH_OK)
        return status;
    SSL_CTX_set_options(context->ssl, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_default_passwd_cb(context->ssl, no_passphrase);
    SSL_CTX_set_alpn_select_cb(context->ssl, choose_protocol, NULL);
    return hand_over(out, context, load(context->ssl, certificate, key, err));
}

/* ---- The client's ---- */

static enum ph_status add_roots(X509_STORE *store, BIO *file, const char *path, struct ph_err *err)
{
    int count = 0;
    for (X509 *cert = PEM_read_bio_X509(file, NULL, NULL, NULL); cert;
         cert = PEM_read_bio_X509(file, NULL, NULL, NULL), count++) {
        bool is_added = X509_STORE_add_cert(store, cert) == 1;
        X509_free(cert);
        if (!is_added)
            return ph_fail(err, PH_ERR_NOMEM, "no memory for the certificates of %s", path);
    }
    unsigned long why = ERR_peek_last_error();
    if (ERR_GET_REASON(why) != PEM_R_NO_START_LINE)
        return ph_fail(err, PH_ERR_FORMAT, "%s: certificate %d cannot be read: %s", path, count + 1,
                       ERR_reason_error_string(why));
    if (count == 0)
        return ph_fail(err, PH_ERR_FORMAT, "%s: no certificate in it; it must be a PEM file", path);
    return PH_OK;
}

static enum ph_status trust_file(SSL_CTX *ssl, const char *path, struct ph_err *err)
{
    ERR_clear_error();
    BIO *file = BIO_new_file(path, "rb");
    if (!file)
        return ph_fail(err, PH_ERR_IO, "%s: cannot be read: %s", path,
                       ERR_reason_error_string(ERR_peek_last_error()));
    enum ph_status status = add_roots(SSL_CTX_get_cert_store(ssl), file, path, err);
    BIO_free(file);
    return status;
}

enum ph_status tls_client_context(struct tls_context **out, const char *ca_file, struct ph_err *err)
{
    struct tls_context *context = NULL;
    enum ph_status status = create(&context, TLS_client_method(), err);
    if (status != PH_OK)
        return status;
    SSL_CTX_set_verify(context->ssl, SSL_VERIFY_PEER, NULL);
    bool is_set = SSL_CTX_set_default_verify_paths(context->ssl) == 1 &&
                  SSL_CTX_set_alpn_protos(context->ssl, protocols, sizeof protocols) == 0;
    if (!is_set)
        status = ph_fail(err, PH_ERR_NOMEM, "no memory for TLS");
    else if (ca_file)
        status = trust_file(context->ssl, ca_file, err);
    return hand_over(out, context, status);
}
