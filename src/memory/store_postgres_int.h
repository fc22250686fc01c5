/* What the PostgreSQL driver's files share: libpq as it was loaded, and a connection that comes back. */
#ifndef PHAROS_MEMORY_STORE_POSTGRES_INT_H
#define PHAROS_MEMORY_STORE_POSTGRES_INT_H

#include <libpq-fe.h>

#include "memory/store_db_int.h"

/* ---- libpq (store_postgres_load.c): loaded when a configuration names a server, never linked */

#define PQ_LIST(X)                                                                                       \
    X(PGconn *, PQconnectdbParams, (const char *const *keywords, const char *const *values, int expand)) \
    X(PQconninfoOption *, PQconninfoParse, (const char *text, char **message))                           \
    X(void, PQconninfoFree, (PQconninfoOption * options))                                                \
    X(PGPing, PQpingParams, (const char *const *keywords, const char *const *values, int expand))        \
    X(PQnoticeProcessor, PQsetNoticeProcessor, (PGconn * conn, PQnoticeProcessor fn, void *ud))          \
    X(void, PQfinish, (PGconn * conn))                                                                   \
    X(ConnStatusType, PQstatus, (const PGconn *conn))                                                    \
    X(PGTransactionStatusType, PQtransactionStatus, (const PGconn *conn))                                \
    X(const char *, PQparameterStatus, (const PGconn *conn, const char *name))                           \
    X(int, PQserverVersion, (const PGconn *conn))                                                        \
    X(char *, PQerrorMessage, (const PGconn *conn))                                                      \
    X(PGresult *, PQexec, (PGconn * conn, const char *sql))                                              \
    X(PGresult *, PQprepare,                                                                             \
      (PGconn * conn, const char *name, const char *sql, int count, const Oid *types))                   \
    X(int, PQsendQueryPrepared,                                                                          \
      (PGconn * conn, const char *name, int count, const char *const *values, const int *lengths,        \
       const int *formats, int result_format))                                                           \
    X(int, PQsetSingleRowMode, (PGconn * conn))                                                          \
    X(PGresult *, PQgetResult, (PGconn * conn))                                                          \
    X(int, PQenterPipelineMode, (PGconn * conn))                                                         \
    X(int, PQexitPipelineMode, (PGconn * conn))                                                          \
    X(int, PQpipelineSync, (PGconn * conn))                                                              \
    X(ExecStatusType, PQresultStatus, (const PGresult *result))                                          \
    X(char *, PQresultErrorField, (const PGresult *result, int field))                                   \
    X(int, PQntuples, (const PGresult *result))                                                          \
    X(int, PQgetisnull, (const PGresult *result, int row, int column))                                   \
    X(int, PQgetlength, (const PGresult *result, int row, int column))                                   \
    X(char *, PQgetvalue, (const PGresult *result, int row, int column))                                 \
    X(char *, PQcmdTuples, (PGresult * result))                                                          \
    X(char *, PQcmdStatus, (PGresult * result))                                                          \
    X(void, PQclear, (PGresult * result))                                                                \
    X(void, PQfreemem, (void *bytes))

#define PQ_MEMBER(type, name, arguments) type(*name) arguments;
struct pq {
    PQ_LIST(PQ_MEMBER)
};
/* The library stays loaded until the process ends: what it has registered must not lose its code. */
PH_MUST_USE enum ph_status pq_load(struct pq *pq, struct ph_err *err);

/* ---- A connection (store_postgres_link.c) */

struct pg_link {
    struct pq pq;
    PGconn *conn; /* NULL: there is none just now */
    char *url;
    char place[256];   /* "HOST:PORT/DATABASE", for people; never with a password */
    bool read_only;    /* the session may not write */
    bool unreachable;  /* the last wait was in vain: the next one is a single try */
    char station[40];  /* a name that nobody else has, given by the server; "": who only reads has none */
    uint64_t sessions; /* made so far: what was prepared in an older one is gone */
};

PH_MUST_USE enum ph_status pg_link_init(struct pg_link *link, const struct store_params *params,
                                        struct ph_err *err);
void pg_link_release(struct pg_link *link);
/* A first connection, whose failure is told at once, unless the server is just restarting. */
PH_MUST_USE enum ph_status pg_link_open(struct pg_link *link, struct ph_err *err);
/* One that was lost is made anew, for at most STORE_SERVER_WAIT_MS; PH_ERR_TIMEOUT: there is no server. */
PH_MUST_USE enum ph_status pg_link_need(struct pg_link *link, struct ph_err *err);
void pg_link_drop(struct pg_link *link);

/* What went wrong, in the server's words without the values it was about. *lost: the connection is no more.
 * PH_ERR_CANCELLED: it was lost, or others were in the way: nothing of the transaction is kept. */
PH_MUST_USE enum ph_status pg_link_fail(struct pg_link *link, const PGresult *result, bool *lost,
                                        struct ph_err *err);
/* A statement without parameters, or several; *value (may be NULL, cut at `len`) is the last one's first
 * column in its first row, "" where there is none. */
PH_MUST_USE enum ph_status pg_link_run(struct pg_link *link, const char *sql, char *value, size_t len,
                                       bool *lost, struct ph_err *err);

#endif
