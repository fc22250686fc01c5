/* libpq at run time. It is not linked, because it draws TLS, LDAP and Kerberos into the start of every
 * program, and most stations keep their store in a file. */
#include <stdio.h>
#include <string.h>

#include <uv.h>

#include "memory/store_postgres_int.h"

#define LIBRARY "libpq.so.5"

struct pq_symbol {
    const char *name;
    size_t offset;
};

#define PQ_SYMBOL(type, name, arguments) {#name, offsetof(struct pq, name)},

enum ph_status pq_load(struct pq *pq, struct ph_err *err)
{
    static const struct pq_symbol symbols[] = {PQ_LIST(PQ_SYMBOL)};
    uv_lib_t library;
    if (uv_dlopen(LIBRARY, &library) != 0) {
        enum ph_status status = ph_fail(err, PH_ERR_UNSUPPORTED,
                                        "a store in PostgreSQL needs %s (%s): install the package libpq5, or "
                                        "set memory.store to sqlite",
                                        LIBRARY, uv_dlerror(&library));
        uv_dlclose(&library);
        return status;
    }
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *address = NULL;
        if (uv_dlsym(&library, symbols[i].name, &address) != 0) {
            uv_dlclose(&library);
            return ph_fail(
                err, PH_ERR_UNSUPPORTED,
                "%s has no %s: a store in PostgreSQL needs the package libpq5, version 14 or newer", LIBRARY,
                symbols[i].name);
        }
        memcpy((char *)pq + symbols[i].offset, &address, sizeof address);
    }
    return PH_OK;
}
