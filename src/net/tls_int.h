/* net, private: TLS, for either end (tls_context.c, tls_conn.c). Knows bytes, not sockets: what came from the
 * socket is fed, what is for the socket gathers in a buffer, what was meant is read in between. */
#ifndef PHAROS_NET_TLS_INT_H
#define PHAROS_NET_TLS_INT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/status.h"

#define TLS_RECORD_BYTES_MAX 16384 /* of what was meant, in one record (RFC 8446, 5.1) */

struct tls_context;
PH_MUST_USE enum ph_status tls_server_context(struct tls_context **out, const char *certificate,
                                              const char *key, struct ph_err *err);
/* Trusts the system's roots and the certificates in ca_file (PEM; NULL: none). */
PH_MUST_USE enum ph_status tls_client_context(struct tls_context **out, const char *ca_file,
                                              struct ph_err *err);
void tls_context_free(struct tls_context *context); /* after its connections; NULL is fine */

struct tls_conn;
/* `host`: a client's, the name or address that the certificate must be for; NULL: a server's. NULL: no
 * memory. A client begins with a tls_conn_read that was fed nothing. */
struct tls_conn *tls_conn_create(struct tls_context *context, const char *host);
void tls_conn_free(struct tls_conn *conn); /* NULL is fine */

enum tls_event {
    TLS_MORE,  /* everything fed was taken */
    TLS_BYTES, /* *len bytes are in out */
    TLS_END,   /* the peer has said that nothing follows */
    TLS_BROKEN /* the connection has no future; why is for the peer, among the wire's bytes */
};

/* The bytes stay the caller's, and must stay until tls_conn_read has answered something else than BYTES. */
void tls_conn_feed(struct tls_conn *conn, const char *bytes, size_t len);
enum tls_event tls_conn_read(struct tls_conn *conn, char *out, size_t size, size_t *len);
const char *tls_conn_why(const struct tls_conn *conn); /* after BROKEN, for people */
bool tls_conn_is_open(const struct tls_conn *conn);    /* the handshake is complete */
/* Appends to the wire; false: it could not. */
bool tls_conn_seal(struct tls_conn *conn, const char *bytes, size_t len);
void tls_conn_say_end(struct tls_conn *conn);     /* nothing follows from us; once */
struct buf *tls_conn_wire(struct tls_conn *conn); /* bytes for the socket, to be consumed by the caller */

#endif
