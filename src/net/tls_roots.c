/* Certificates trusted besides the system's: read once, added to the store of each context that curl makes.
 * Curl's own option would replace the system's, and a file read at every connection costs more than the
 * handshake. The store may be one that curl keeps for all connections; it has each certificate once all the
 * same. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include "base/mem.h"
#include "net/http_client_int.h"

struct tls_roots {
    STACK_OF(X509) * certificates;
};

static enum ph_status read_all(BIO *file, STACK_OF(X509) * certificates, const char *path, struct ph_err *err)
{
    for (X509 *cert = PEM_read_bio_X509(file, NULL, NULL, NULL); cert;
         cert = PEM_read_bio_X509(file, NULL, NULL, NULL)) {
        if (sk_X509_push(certificates, cert) <= 0) {
            X509_free(cert);
            return ph_fail(err, PH_ERR_NOMEM, "no memory for the certificates of %s", path);
        }
    }
    unsigned long why = ERR_peek_last_error();
    ERR_clear_error();
    if (ERR_GET_REASON(why) != PEM_R_NO_START_LINE)
        return ph_fail(err, PH_ERR_FORMAT, "%s: certificate %d cannot be read: %s", path,
                       sk_X509_num(certificates) + 1, ERR_reason_error_string(why));
    if (sk_X509_num(certificates) == 0)
        return ph_fail(err, PH_ERR_FORMAT, "%s: no certificate in it; it must be a PEM file", path);
    return PH_OK;
}

enum ph_status tls_roots_load(struct tls_roots **out, const char *path, struct ph_err *err)
{
    BIO *file = BIO_new_file(path, "rb");
    struct tls_roots *roots = mem_calloc(1, sizeof *roots);
    enum ph_status status;
    if (roots)
        roots->certificates = sk_X509_new_null();
    if (!roots || !roots->certificates)
        status = ph_fail(err, PH_ERR_NOMEM, "no memory for the certificates of %s", path);
    else if (!file)
        status = ph_fail(err, PH_ERR_IO, "%s: cannot be read: %s", path,
                         ERR_reason_error_string(ERR_peek_last_error()));
    else
        status = read_all(file, roots->certificates, path, err);
    ERR_clear_error();
    BIO_free(file);
    if (status == PH_OK)
        *out = roots;
    else
        tls_roots_free(roots);
    return status;
}

void tls_roots_free(struct tls_roots *roots)
{
    if (!roots)
        return;
    sk_X509_pop_free(roots->certificates, X509_free);
    mem_free(roots);
}

CURLcode tls_roots_on_context(CURL *easy, void *context, void *ud)
{
    (void)easy;
    const struct tls_roots *roots = ud;
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    for (int i = 0; i < sk_X509_num(roots->certificates); i++)
        if (X509_STORE_add_cert(store, sk_X509_value(roots->certificates, i)) != 1)
            return CURLE_OUT_OF_MEMORY;
    return CURLE_OK;
}
