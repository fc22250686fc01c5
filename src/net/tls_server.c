/* TLS on the server's edge: OpenSSL between two buffers of ours.
 *
 * OpenSSL wants a BIO to read from and one to write to. Ours is both: it reads what the socket's owner has
 * just received, in place, and writes into a buffer that the owner sends. OpenSSL's own memory BIOs would
 * copy once more each way and keep what they have grown to for as long as the connection is idle. An idle
 * connection here is an SSL object without record buffers (SSL_MODE_RELEASE_BUFFERS).
 *
 * OpenSSL keeps a queue of errors per thread, in which a stale one makes a healthy connection fail; so it is
 * emptied before each operation, and nothing else looks into it.
 *
 * TLS 1.2 and newer; no renegotiation; of application protocols only http/1.1, and a client that offers
 * others only is told so in the handshake. Sessions resume by tickets, which cost the server no memory. */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/mem.h"
#include "net/tls_int.h"

struct tls_edge {
    SSL_CTX *context;
    BIO_METHOD *method;
};

struct tls_conn {
    SSL *ssl;
    const char *fed;
    size_t fed_len;
    struct buf wire;
    bool is_open, is_broken, said_end;
};

/* ---- The BIO ---- */

static int bio_read(BIO *bio, char *out, int size)
{
    struct tls_conn *conn = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (!conn->fed_len) {
        BIO_set_retry_read(bio);
        return -1;
    }
    size_t n = conn->fed_len < (size_t)size ? conn->fed_len : (size_t)size;
    memcpy(out, conn->fed, n);
    conn->fed += n;
    conn->fed_len -= n;
    return (int)n;
}

static int bio_write(BIO *bio, const char *bytes, int len)
{
    struct tls_conn *conn = BIO_get_data(bio);
    buf_append(&conn->wire, bytes, (size_t)len);
    return buf_status(&conn->wire) == PH_OK ? len : -1;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *make_method(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "pharos");
    if (!method)
        return NULL;
    BIO_meth_set_read(method, bio_read);
    BIO_meth_set_write(method, bio_write);
    BIO_meth_set_ctrl(method, bio_control);
    return method;
}

/* ---- The edge ---- */

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *offered, unsigned int offered_len, void *ud)
{
    static const unsigned char ours[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
    (void)ssl;
    (void)ud;
    unsigned char *chosen = NULL;
    int rc = SSL_select_next_proto(&chosen, out_len, ours, sizeof ours, offered, offered_len);
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

enum ph_status tls_edge_open(struct tls_edge **out, const char *certificate, const char *key,
                             struct ph_err *err)
{
    struct tls_edge *edge = mem_calloc(1, sizeof *edge);
    if (!edge)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for TLS");
    edge->method = make_method();
    edge->context = SSL_CTX_new(TLS_server_method());
    enum ph_status status =
        edge->method && edge->context ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory for TLS");
    if (status == PH_OK) {
        SSL_CTX_set_min_proto_version(edge->context, TLS1_2_VERSION);
        SSL_CTX_set_options(edge->context, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                               SSL_OP_PRIORITIZE_CHACHA);
        SSL_CTX_set_mode(edge->context, SSL_MODE_RELEASE_BUFFERS);
        SSL_CTX_set_session_cache_mode(edge->context, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_default_passwd_cb(edge->context, no_passphrase);
        SSL_CTX_set_alpn_select_cb(edge->context, choose_protocol, NULL);
        status = load(edge->context, certificate, key, err);
    }
    ERR_clear_error();
    if (status == PH_OK)
        *out = edge;
    else
        tls_edge_free(edge);
    return status;
}

void tls_edge_free(struct tls_edge *edge)
{
    if (!edge)
        return;
    SSL_CTX_free(edge->context);
    BIO_meth_free(edge->method);
    mem_free(edge);
}

/* ---- One connection ---- */

struct tls_conn *tls_conn_create(struct tls_edge *edge)
{
    struct tls_conn *conn = mem_calloc(1, sizeof *conn);
    if (!conn)
        return NULL;
    buf_init(&conn->wire, SIZE_MAX);
    ERR_clear_error();
    BIO *bio = BIO_new(edge->method);
    conn->ssl = SSL_new(edge->context);
    if (!bio || !conn->ssl) {
        BIO_free(bio);
        tls_conn_free(conn);
        return NULL;
    }
    BIO_set_data(bio, conn);
    BIO_set_init(bio, 1);
    SSL_set_bio(conn->ssl, bio, bio); /* takes it */
    SSL_set_accept_state(conn->ssl);
    return conn;
}

void tls_conn_free(struct tls_conn *conn)
{
    if (!conn)
        return;
    SSL_free(conn->ssl);
    buf_release(&conn->wire);
    mem_free(conn);
}

void tls_conn_feed(struct tls_conn *conn, const char *bytes, size_t len)
{
    conn->fed = bytes;
    conn->fed_len = len;
}

enum tls_event tls_conn_read(struct tls_conn *conn, char *out, size_t size, size_t *len)
{
    if (conn->is_broken)
        return TLS_BROKEN;
    ERR_clear_error();
    int rc = SSL_read_ex(conn->ssl, out, size, len);
    conn->is_open = SSL_is_init_finished(conn->ssl);
    if (rc == 1)
        return TLS_BYTES;
    int why = SSL_get_error(conn->ssl, rc);
    if (why == SSL_ERROR_WANT_READ)
        return TLS_MORE;
    if (why == SSL_ERROR_ZERO_RETURN)
        return TLS_END;
    conn->is_broken = true; /* no operation on it is allowed any more */
    return TLS_BROKEN;
}

bool tls_conn_is_open(const struct tls_conn *conn)
{
    return conn->is_open;
}

bool tls_conn_seal(struct tls_conn *conn, const char *bytes, size_t len)
{
    size_t written = 0;
    ERR_clear_error();
    if (conn->is_broken || SSL_write_ex(conn->ssl, bytes, len, &written) != 1)
        conn->is_broken = true;
    return !conn->is_broken && written == len;
}

void tls_conn_say_end(struct tls_conn *conn)
{
    if (!conn->is_open || conn->is_broken || conn->said_end)
        return;
    conn->said_end = true;
    ERR_clear_error();
    (void)SSL_shutdown(conn->ssl);
}

struct buf *tls_conn_wire(struct tls_conn *conn)
{
    return &conn->wire;
}
