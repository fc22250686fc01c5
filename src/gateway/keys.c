/* A station's view of the keys: the file in memory, found by id.
 *
 * A key's struct lives from the first time the file has it until keys_close and is overwritten in place, so
 * that a request may hold on to it. KEYS_GONE_MAX bounds those that the file has lost.
 *
 * A check costs the same whatever is wrong: the text's checksum first, which needs no look-up; then the hash
 * of the secret, always, and one comparison in constant time, with a hash of nobody's where the id is
 * unknown. Only who knows the secret learns that a key is revoked or expired. */
#include "gateway/keys.h"

#include <assert.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "gateway/keys_int.h"
#include "gateway/names_int.h"

#define KEYS_GONE_MAX KEYS_MAX

struct key_entry {
    struct name_entry name; /* its id */
    struct key key;
    uint64_t reading; /* the last one that had it */
};

struct keys {
    char *dir, *path;
    const struct clock_source *clock;
    struct names by_id;
    struct key_entry **listed; /* [count] in the file's order */
    size_t count;
    struct file_stamp stamp; /* of what was read, or could not be */
    uint64_t reading;
    bool on; /* there was a key, once */
    EVP_MD *sha256;
    EVP_MD_CTX *hasher;
};

/* ---- Reading the file */

static void revoke_gone(struct keys *keys, struct key_entry *const *listed, size_t count, uint64_t reading)
{
    for (size_t i = 0; i < count; i++) {
        struct key *key = &listed[i]->key;
        if (listed[i]->reading != reading && !key->revoked_unix_s)
            key->revoked_unix_s = clock_unix_ms(keys->clock) / 1000;
    }
}

/* Everything that can fail comes first, so that a reading counts whole or not at all. */
static enum ph_status apply(struct keys *keys, const struct key_file *file, struct ph_err *err)
{
    uint64_t reading = keys->reading + 1;
    struct key_entry **listed = mem_calloc(file->count + 1, sizeof(struct key_entry *));
    if (!listed)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for %zu keys", file->count);
    for (size_t i = 0; i < file->count; i++) {
        const char *id = file->lines[i].key.id;
        listed[i] = names_find(&keys->by_id, id);
        if (!listed[i] && keys->by_id.count < KEYS_MAX + KEYS_GONE_MAX) {
            listed[i] = names_add(&keys->by_id, id, sizeof **listed);
            if (listed[i]) /* nobody's until this reading counts */
                listed[i]->key.revoked_unix_s = 1;
        }
        if (!listed[i]) {
            mem_free(listed);
            return ph_fail(err, PH_ERR_NOMEM, "no room for more keys after so many left %s; restart",
                           keys->path);
        }
    }
    for (size_t i = 0; i < file->count; i++) {
        listed[i]->key = file->lines[i].key;
        listed[i]->reading = reading;
    }
    revoke_gone(keys, keys->listed, keys->count, reading);
    mem_free(keys->listed);
    keys->listed = listed;
    keys->count = file->count;
    keys->reading = reading;
    keys->on |= file->count > 0;
    return PH_OK;
}

static enum ph_status read_file(struct keys *keys, struct ph_err *err)
{
    struct key_file file;
    enum ph_status status = key_file_read(&file, keys->dir, err);
    if (status == PH_OK)
        status = apply(keys, &file, err);
    if (status == PH_OK)
        keys->stamp = file.stamp;
    key_file_release(&file);
    return status;
}

enum ph_status keys_open(struct keys **out, const char *dir, const struct clock_source *clock,
                         struct ph_err *err)
{
    struct keys *keys = mem_calloc(1, sizeof *keys);
    *out = NULL;
    if (!keys)
        return ph_fail(err, PH_ERR_NOMEM, "no memory for the keys");
    keys->clock = clock;
    keys->dir = mem_strdup(dir);
    keys->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    keys->hasher = EVP_MD_CTX_new();
    enum ph_status status = key_file_path(dir, KEYS_FILE_NAME, &keys->path, err);
    if (status == PH_OK && (!keys->dir || !keys->sha256 || !keys->hasher))
        status = ph_fail(err, PH_ERR_NOMEM, "no memory for the keys, or OpenSSL has no SHA-256");
    if (status == PH_OK)
        status = read_file(keys, err);
    if (status == PH_OK)
        *out = keys;
    else
        keys_close(keys);
    return status;
}

void keys_close(struct keys *keys)
{
    if (!keys)
        return;
    EVP_MD_CTX_free(keys->hasher);
    EVP_MD_free(keys->sha256);
    names_release(&keys->by_id);
    mem_free(keys->listed);
    mem_free(keys->path);
    mem_free(keys->dir);
    mem_free(keys);
}

bool keys_refresh(struct keys *keys)
{
    struct file_stamp seen;
    struct ph_err err;
    file_stamp(keys->path, &seen);
    if (file_stamp_equal(&seen, &keys->stamp))
        return false;
    enum ph_status status = read_file(keys, &err);
    if (status == PH_OK)
        return true;
    log_error("keys", "%s; the keys stay as they were", err.message);
    if (status != PH_ERR_IO && status != PH_ERR_NOMEM) /* it will not get better by itself: say it once */
        keys->stamp = seen;
    return false;
}

bool keys_on(const struct keys *keys)
{
    return keys->on;
}

size_t keys_count(const struct keys *keys)
{
    return keys->count;
}

const struct key *keys_at(const struct keys *keys, size_t index)
{
    return index < keys->count ? &keys->listed[index]->key : NULL;
}

/* ---- Asking */

enum key_verdict keys_check(struct keys *keys, const char *text, size_t len, const struct key **out)
{
    static const uint8_t nobodys[KEY_HASH_BYTES];
    struct key_parts parts;
    uint8_t hash[EVP_MAX_MD_SIZE];
    *out = NULL;
    if (!key_text_parse(text, len, &parts))
        return KEY_MALFORMED;
    const struct key_entry *entry = names_find(&keys->by_id, parts.id);
    const uint8_t *wanted = entry ? entry->key.hash : nobodys;
    bool hashed = EVP_DigestInit_ex2(keys->hasher, keys->sha256, NULL) == 1 &&
                  EVP_DigestUpdate(keys->hasher, parts.secret, KEY_SECRET_LEN) == 1 &&
                  EVP_DigestFinal_ex(keys->hasher, hash, NULL) == 1;
    bool same = CRYPTO_memcmp(hash, wanted, KEY_HASH_BYTES) == 0;
    if (!hashed || !same || !entry)
        return KEY_UNKNOWN;
    *out = &entry->key;
    return key_state(&entry->key, clock_unix_ms(keys->clock) / 1000);
}

enum key_verdict key_state(const struct key *key, int64_t unix_s)
{
    if (key->revoked_unix_s)
        return KEY_REVOKED;
    return key->expires_unix_s && unix_s >= key->expires_unix_s ? KEY_EXPIRED : KEY_OK;
}

/* ---- What a key may do */

static bool has_scope(const struct key *key, const char *scope)
{
    for (size_t i = 0; i < key->scope_count; i++)
        if (strcmp(key->scopes[i], scope) == 0)
            return true;
    return false;
}

/* The model that a scope names, as "NAME" or "BEGINNING*"; NULL: it names none. */
static const char *scope_model(const char *scope)
{
    static const char models[] = "models:";
    static_assert(sizeof models <= KEY_SCOPE_MAX, "as much may be read of any scope");
    return memcmp(scope, models, sizeof models - 1) == 0 ? scope + sizeof models - 1 : NULL;
}

static bool names_models(const struct key *key)
{
    for (size_t i = 0; i < key->scope_count; i++)
        if (scope_model(key->scopes[i]))
            return true;
    return false;
}

bool key_allows(const struct key *key, const char *scope)
{
    if (has_scope(key, "admin") || has_scope(key, scope))
        return true;
    bool chat = strcmp(scope, "chat") == 0;
    if (key->scope_count == 0)
        return chat || strcmp(scope, "read") == 0;
    return chat && names_models(key);
}

void key_models_of(const struct key *key, struct key_models *out)
{
    out->count = 0;
    for (size_t i = 0; i < key->scope_count; i++) {
        const char *text = scope_model(key->scopes[i]);
        size_t len = text ? strlen(text) : 0;
        bool is_beginning = len > 0 && text[len - 1] == '*';
        if (!text)
            continue;
        out->named[out->count].text = text;
        out->named[out->count].len = len - is_beginning;
        out->named[out->count++].is_beginning = is_beginning;
    }
    out->all = has_scope(key, "admin") || (out->count == 0 && key_allows(key, "chat"));
}

bool key_models_have(const struct key_models *models, const char *model)
{
    bool found = models->all;
    for (size_t i = 0; i < models->count && !found; i++)
        found = models->named[i].is_beginning
                    ? strncmp(models->named[i].text, model, models->named[i].len) == 0
                    : strcmp(models->named[i].text, model) == 0;
    return found;
}

bool key_allows_model(const struct key *key, const char *model)
{
    struct key_models models;
    key_models_of(key, &models);
    return key_models_have(&models, model);
}
