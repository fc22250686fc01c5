/* A connection to a PostgreSQL server that comes back when it was lost.
 *
 * Settings of a session, and why: a plan that reads a whole table is never right here, but a server that has
 * not looked at its new tables yet would choose it; a commit is durable whatever the server's habit; who has
 * gone away in the middle of a transaction must not lock the others out for longer than they wait.
 *
 * Passwords: the address is handed to libpq and shown to nobody. Its own complaints about an address quote
 * pieces of it, so they are not passed on. */
#include <stdio.h>
#include <string.h>

#include <uv.h>

#include "base/log.h"
#include "base/mem.h"
#include "memory/store_postgres_int.h"

#define SERVER_VERSION_MIN 120000
#define BACKOFF_FIRST_MS 20
#define BACKOFF_LAST_MS 1000
#define NS_PER_MS UINT64_C(1000000)
#define WORDS_MAX 256 /* of the server's, in an error */

/* ---- Errors */

struct state_meaning {
    const char *state; /* an SQLSTATE, or its class */
    enum ph_status status;
    bool lost;
    const char *advice;
};

static const struct state_meaning meanings[] = {
    {"08", PH_ERR_CANCELLED, true, ""},
    {"57P01", PH_ERR_CANCELLED, true, ""},
    {"57P02", PH_ERR_CANCELLED, true, ""},
    {"57P03", PH_ERR_CANCELLED, true, ""},
    {"57P05", PH_ERR_CANCELLED, true, ""},
    {"25P03", PH_ERR_CANCELLED, true, ""},
    {"40", PH_ERR_CANCELLED, false, ""},
    {"23", PH_ERR_CONFLICT, false, ""},
    {"25006", PH_ERR_IO, false, "; name the primary server, or add target_session_attrs=read-write"},
    {"42501", PH_ERR_IO, false,
     "; its user needs CREATE on the database and the tables of the schema pharos"},
    {"53100", PH_ERR_IO, false, "; make room on the server's disk"},
    {"53200", PH_ERR_NOMEM, false, ""},
    {"54", PH_ERR_LIMIT, false, ""},
    {"55P03", PH_ERR_BUSY, false, "; another process writes to it for very long"},
    {"XX001", PH_ERR_FORMAT, false, "; the database is damaged: a backup mends it"},
    {"XX002", PH_ERR_FORMAT, false, "; an index is damaged: REINDEX mends it"},
};

static const struct state_meaning *meaning_of(const char *state)
{
    for (size_t i = 0; state && i < sizeof meanings / sizeof meanings[0]; i++)
        if (strncmp(state, meanings[i].state, strlen(meanings[i].state)) == 0)
            return &meanings[i];
    return NULL;
}

/* libpq's messages are lines: the first one says it. */
static int first_line(const char *text)
{
    size_t len = strcspn(text, "\n");
    return (int)(len < WORDS_MAX ? len : WORDS_MAX);
}

enum ph_status pg_link_fail(struct pg_link *link, const PGresult *result, bool *lost, struct ph_err *err)
{
    const struct pq *pq = &link->pq;
    const char *state = result ? pq->PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    const char *words = result ? pq->PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    const struct state_meaning *meaning = meaning_of(state);
    bool gone = (meaning && meaning->lost) || !link->conn || pq->PQstatus(link->conn) == CONNECTION_BAD;
    if (lost && gone)
        *lost = true;
    if (gone)
        return ph_fail(err, PH_ERR_CANCELLED, "PostgreSQL at %s: the connection was lost (%.*s)", link->place,
                       words ? first_line(words) : 19, words ? words : "the server is gone");
    if (!words)
        words = pq->PQerrorMessage(link->conn);
    return ph_fail(err, meaning ? meaning->status : PH_ERR_IO, "PostgreSQL at %s: %.*s (%s)%s", link->place,
                   first_line(words), words, state ? state : "libpq", meaning ? meaning->advice : "");
}

enum ph_status pg_link_run(struct pg_link *link, const char *sql, char *value, size_t len, bool *lost,
                           struct ph_err *err)
{
    const struct pq *pq = &link->pq;
    PGresult *result = link->conn ? pq->PQexec(link->conn, sql) : NULL;
    ExecStatusType kind = result ? pq->PQresultStatus(result) : PGRES_FATAL_ERROR;
    enum ph_status status = PH_OK;
    if (kind != PGRES_COMMAND_OK && kind != PGRES_TUPLES_OK)
        status = pg_link_fail(link, result, lost, err);
    else if (value) {
        bool row = kind == PGRES_TUPLES_OK && pq->PQntuples(result) > 0;
        snprintf(value, len, "%s", row ? pq->PQgetvalue(result, 0, 0) : "");
    }
    pq->PQclear(result);
    return status;
}

/* ---- Where it is */

/* Notes where the server is, for people; refuses an address that can't be read. */
static enum ph_status read_address(struct pg_link *link, struct ph_err *err)
{
    const struct pq *pq = &link->pq;
    char *message = NULL;
    PQconninfoOption *options = pq->PQconninfoParse(link->url, &message);
    if (message)
        pq->PQfreemem(message); /* quotes pieces of the address */
    if (!options)
        return ph_fail(err, PH_ERR_ARG,
                       "memory.store: the address of the PostgreSQL server can't be read; its form is "
                       "postgresql://USER:PASSWORD@HOST:PORT/DATABASE, special characters as %%XX");
    const char *host = NULL, *port = NULL, *name = NULL;
    for (const PQconninfoOption *option = options; option->keyword; option++) {
        const char **to = strcmp(option->keyword, "host") == 0     ? &host
                          : strcmp(option->keyword, "port") == 0   ? &port
                          : strcmp(option->keyword, "dbname") == 0 ? &name
                                                                   : NULL;
        if (to && option->val && option->val[0])
            *to = option->val;
    }
    snprintf(link->place, sizeof link->place, "%s%s%s%s%s", host ? host : "localhost", port ? ":" : "",
             port ? port : "", name ? "/" : "", name ? name : "");
    pq->PQconninfoFree(options);
    return PH_OK;
}

enum ph_status pg_link_init(struct pg_link *link, const struct store_params *params, struct ph_err *err)
{
    enum ph_status status = pq_load(&link->pq, err);
    if (status != PH_OK)
        return status;
    link->read_only = params->read_only;
    link->url = mem_strdup(params->postgres);
    return link->url ? read_address(link, err)
                     : ph_fail(err, PH_ERR_NOMEM, "no memory for a connection to the store");
}

void pg_link_drop(struct pg_link *link)
{
    if (link->conn)
        link->pq.PQfinish(link->conn);
    link->conn = NULL;
}

void pg_link_release(struct pg_link *link)
{
    pg_link_drop(link);
    mem_free(link->url);
    link->url = NULL;
}

/* ---- A session */

static void ignore_notice(void *ud, const char *message)
{
    (void)ud;
    (void)message;
}

static const char session_settings[] =
    "SET search_path = pharos; SET enable_seqscan = off; SET jit = off; SET client_min_messages = error;"
    "SET bytea_output = hex; SET DateStyle = ISO;"
    "SELECT set_config('synchronous_commit', 'on', false) "
    "WHERE current_setting('synchronous_commit') = 'off';"
    "SELECT set_config('lock_timeout', '%d', false);"
    "SELECT set_config('idle_in_transaction_session_timeout', '%d', false);"
    "SELECT set_config('default_transaction_read_only', '%s', false);"
    "SELECT current_setting('fsync')";

static enum ph_status begin_session(struct pg_link *link, struct ph_err *err)
{
    const struct pq *pq = &link->pq;
    char script[1024], fsync[8] = "";
    (void)pq->PQsetNoticeProcessor(link->conn, ignore_notice, NULL);
    if (pq->PQserverVersion(link->conn) < SERVER_VERSION_MIN)
        return ph_fail(err, PH_ERR_UNSUPPORTED, "PostgreSQL at %s: the server is older than version %d",
                       link->place, SERVER_VERSION_MIN / 10000);
    const char *encoding = pq->PQparameterStatus(link->conn, "server_encoding");
    if (!encoding || strcmp(encoding, "UTF8") != 0)
        return ph_fail(err, PH_ERR_UNSUPPORTED,
                       "PostgreSQL at %s: the database's encoding is %s; make one with ENCODING 'UTF8' and "
                       "TEMPLATE template0",
                       link->place, encoding ? encoding : "not known");
    snprintf(script, sizeof script, session_settings, STORE_LOCK_WAIT_MS, STORE_LOCK_WAIT_MS,
             link->read_only ? "on" : "off");
    enum ph_status status = pg_link_run(link, script, fsync, sizeof fsync, NULL, err);
    if (status == PH_OK && link->sessions == 0 && strcmp(fsync, "off") == 0)
        log_warn("store", "PostgreSQL at %s: fsync is off: what is stored may be lost with a power cut",
                 link->place);
    if (status == PH_OK && !link->read_only && !link->station[0])
        status =
            pg_link_run(link, "SELECT md5(random()::text || clock_timestamp()::text || pg_backend_pid())",
                        link->station, sizeof link->station, NULL, err);
    if (status == PH_OK)
        link->sessions++;
    return status;
}

/* What comes before the address may be said otherwise in it. */
#define ADDRESS_KEYS                                                                                         \
    {                                                                                                        \
        "connect_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", \
            "fallback_application_name", "dbname", "client_encoding", NULL                                   \
    }
#define ADDRESS_VALUES(url)                                          \
    {                                                                \
        "10", "20", "5", "3", "35000", "pharos", (url), "UTF8", NULL \
    }

static enum ph_status connect_once(struct pg_link *link, struct ph_err *err)
{
    static const char *const keys[] = ADDRESS_KEYS;
    const char *const values[] = ADDRESS_VALUES(link->url);
    const struct pq *pq = &link->pq;
    pg_link_drop(link);
    link->conn = pq->PQconnectdbParams(keys, values, 1);
    if (!link->conn)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for a connection to the store");
    enum ph_status status = PH_OK;
    if (pq->PQstatus(link->conn) != CONNECTION_OK) {
        const char *words = pq->PQerrorMessage(link->conn);
        status = ph_fail(err, PH_ERR_IO, "PostgreSQL at %s: %.*s", link->place, first_line(words), words);
    }
    if (status == PH_OK)
        status = begin_session(link, err);
    if (status != PH_OK)
        pg_link_drop(link);
    return status;
}

/* It is there, but takes nobody in yet. */
static bool is_starting(struct pg_link *link)
{
    static const char *const keys[] = ADDRESS_KEYS;
    const char *const values[] = ADDRESS_VALUES(link->url);
    return link->pq.PQpingParams(keys, values, 1) == PQPING_REJECT;
}

static void back_off(unsigned *ms)
{
    uv_sleep(*ms);
    *ms = *ms * 2 > BACKOFF_LAST_MS ? BACKOFF_LAST_MS : *ms * 2;
}

enum ph_status pg_link_open(struct pg_link *link, struct ph_err *err)
{
    uint64_t until_ns = uv_hrtime() + STORE_SERVER_WAIT_MS * NS_PER_MS;
    unsigned wait_ms = BACKOFF_FIRST_MS;
    enum ph_status status = connect_once(link, err);
    bool met = false; /* who was there a moment ago is being restarted, not named wrongly */
    while (status != PH_OK && uv_hrtime() < until_ns) {
        met = met || status == PH_ERR_CANCELLED || is_starting(link);
        if (!met)
            break;
        back_off(&wait_ms);
        status = connect_once(link, err);
    }
    return status;
}

enum ph_status pg_link_need(struct pg_link *link, struct ph_err *err)
{
    if (link->conn && link->pq.PQstatus(link->conn) == CONNECTION_OK)
        return PH_OK;
    struct ph_err reason = {.code = PH_OK};
    uint64_t until_ns = uv_hrtime() + (link->unreachable ? 0 : STORE_SERVER_WAIT_MS * NS_PER_MS);
    unsigned wait_ms = BACKOFF_FIRST_MS;
    bool told = link->unreachable;
    while (connect_once(link, &reason) != PH_OK) {
        if (!told)
            log_warn("store", "%s; it is tried again", reason.message);
        told = true;
        if (uv_hrtime() >= until_ns) {
            link->unreachable = true;
            return ph_fail(err, PH_ERR_TIMEOUT, "%s", reason.message);
        }
        back_off(&wait_ms);
    }
    link->unreachable = false;
    if (told)
        log_info("store", "PostgreSQL at %s: connected again", link->place);
    return PH_OK;
}
