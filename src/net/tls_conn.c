/* One connection under TLS, either end: OpenSSL between two buffers of ours.
 *
 * OpenSSL wants a BIO to read from and one to write to. Ours is both: it reads what the socket's owner has
 * just received, in place, and writes into a buffer that the owner sends. OpenSSL's own memory BIOs would
 * copy once more each way and keep what they have grown to for as long as the connection is idle. An idle
 * connection here is an SSL object without record buffers (SSL_MODE_RELEASE_BUFFERS).
 *
 * OpenSSL keeps a queue of errors per thread, in which a stale one makes a healthy connection fail; so it is
 * emptied before each operation, and what broke a connection is kept with it. */
#include <stdio.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "base/mem.h"
#include "net/tls_context_int.h"
#include "net/tls_int.h"

#define WHY_BYTES 120

struct tls_conn {
    SSL *ssl;
    const char *fed;
    size_t fed_len;
    struct buf wire;
    bool is_open, is_broken, said_end;
    char why[WHY_BYTES];
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

BIO_METHOD *tls_bio_method_new(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "pharos");
    if (!method)
        return NULL;
    BIO_meth_set_read(method, bio_read);
    BIO_meth_set_write(method, bio_write);
    BIO_meth_set_ctrl(method, bio_control);
    return method;
}

/* ---- One connection ---- */

/* The name, or the address, that the other end's certificate must be made out for (RFC 9110, 4.3.4); a name
 * is told in the handshake, too (RFC 6066, 3). */
static bool expect_host(SSL *ssl, const char *host)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    if (X509_VERIFY_PARAM_set1_ip_asc(param, host) == 1)
        return true;
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

struct tls_conn *tls_conn_create(struct tls_context *context, const char *host)
{
    struct tls_conn *conn = mem_calloc(1, sizeof *conn);
    if (!conn)
        return NULL;
    buf_init(&conn->wire, SIZE_MAX);
    ERR_clear_error();
    BIO *bio = BIO_new(context->method);
    conn->ssl = SSL_new(context->ssl);
    if (!bio || !conn->ssl) {
        BIO_free(bio);
        tls_conn_free(conn);
        return NULL;
    }
    BIO_set_data(bio, conn);
    BIO_set_init(bio, 1);
    SSL_set_bio(conn->ssl, bio, bio); /* takes it */
    if (!host) {
        SSL_set_accept_state(conn->ssl);
    } else {
        SSL_set_connect_state(conn->ssl);
        if (!expect_host(conn->ssl, host)) {
            tls_conn_free(conn);
            return NULL;
        }
    }
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

/* What the certificate lacks says more than that the handshake failed. */
static void note_why(struct tls_conn *conn)
{
    long verdict = SSL_get_verify_result(conn->ssl);
    unsigned long code = ERR_peek_error();
    const char *why = verdict != X509_V_OK ? X509_verify_cert_error_string(verdict)
                      : code               ? ERR_reason_error_string(code)
                                           : NULL;
    snprintf(conn->why, sizeof conn->why, "%s%s", verdict != X509_V_OK ? "certificate: " : "",
             why ? why : "unknown error");
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
    note_why(conn);
    conn->is_broken = true; /* no operation on it is allowed any more */
    return TLS_BROKEN;
}

const char *tls_conn_why(const struct tls_conn *conn)
{
    return conn->why;
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
