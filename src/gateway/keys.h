/* keys: who may call, and what.
 *
 * A key is "sk-pharos-ID-SECRET-CHECK": 8 characters of public id, 256 random bits, a checksum that tells a
 * typing error from a wrong key without a look-up. Only SHA-256 of the secret is kept, in DIR/keys.jsonl
 * (0600, one key a line, replaced as a whole by rename): the command line writes it, a running station
 * notices and reads it again. A secret is shown once. Comparison takes the same time whatever differs.
 *
 * How much and how fast is rates.h; who comes first is gate.h.
 *
 * Thread: a station's view is the loop's. The file: any, one at a time in a process; processes exclude each
 * other by a lock. */
#ifndef PHAROS_GATEWAY_KEYS_H
#define PHAROS_GATEWAY_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/status.h"

#define KEY_ID_LEN 8
#define KEY_TEXT_MAX 96
#define KEY_NAME_MAX 64  /* bytes, with the zero */
#define KEY_SCOPE_MAX 64 /* the same */
#define KEY_SCOPES_MAX 16
#define KEYS_FILE_NAME "keys.jsonl"

/* What a key may do. Scopes are words: "chat" (all that asks models), "models:NAME" (those only; may end in
 * *), "read" (models, routes, metrics), "admin" (everything). None given: chat and read. A word of a newer
 * station gives nothing here. */
struct key {
    char id[KEY_ID_LEN + 1];
    /* Whose rates, budget and turns it uses: the id of the first of its rotations, so that a rotation gives
     * no second budget. Its own id when it was never rotated. */
    char account[KEY_ID_LEN + 1];
    char name[KEY_NAME_MAX];
    char user[KEY_NAME_MAX]; /* whose conversations it may see; "": those of its name */
    char scopes[KEY_SCOPES_MAX][KEY_SCOPE_MAX];
    size_t scope_count;
    double budget_usd_month; /* negative: none */
    int64_t rpm, tpm;        /* requests, tokens a minute; 0: no limit */
    int64_t concurrency;     /* requests at the same time; 0: no limit */
    int64_t created_unix_s;
    int64_t expires_unix_s;           /* 0: never */
    int64_t revoked_unix_s;           /* 0: not */
    char replaced_by[KEY_ID_LEN + 1]; /* rotated: works until expires_unix_s; "": not */
    uint8_t hash[32];
};

enum key_verdict { KEY_OK, KEY_MALFORMED, KEY_UNKNOWN, KEY_REVOKED, KEY_EXPIRED };
/* OK, REVOKED or EXPIRED at this time. */
enum key_verdict key_state(const struct key *key, int64_t unix_s);
bool key_allows(const struct key *key, const char *scope); /* "chat", "read", "admin" */
bool key_allows_model(const struct key *key, const char *model);
/* The same for many models: the scopes are read once. Points into the key. */
struct key_models {
    bool all;
    size_t count;
    struct {
        const char *text;
        size_t len;
        bool is_beginning; /* of names; else a whole one */
    } named[KEY_SCOPES_MAX];
};
void key_models_of(const struct key *key, struct key_models *out);
bool key_models_have(const struct key_models *models, const char *model);

/* ---- The file ---- */

/* `spec` gives name, scopes, limits and expires_unix_s; the secret's text comes back once. The directory is
 * made where absent. */
PH_MUST_USE enum ph_status keys_create(const char *dir, const struct clock_source *clock,
                                       const struct key *spec, struct key *out, char text[KEY_TEXT_MAX],
                                       struct ph_err *err);
/* From now on it is refused. Revoking twice is no error; the first time stays. */
PH_MUST_USE enum ph_status keys_revoke(const char *dir, const struct clock_source *clock, const char *id,
                                       struct ph_err *err);
/* A new key with the same rights and account; the old one works for overlap_s more seconds. */
PH_MUST_USE enum ph_status keys_rotate(const char *dir, const struct clock_source *clock, const char *id,
                                       int64_t overlap_s, struct key *out, char text[KEY_TEXT_MAX],
                                       struct ph_err *err);
/* All keys in order of creation, in the arena. No file: none. */
PH_MUST_USE enum ph_status keys_list(struct arena *arena, const char *dir, struct key **out, size_t *count,
                                     struct ph_err *err);

/* ---- A station's view ---- */

struct keys;
PH_MUST_USE enum ph_status keys_open(struct keys **out, const char *dir, const struct clock_source *clock,
                                     struct ph_err *err);
void keys_close(struct keys *keys);
/* Looks whether the file has changed (a stat) and reads it; a broken file leaves the old keys and is logged.
 * true: something changed. */
bool keys_refresh(struct keys *keys);
/* Whether a key is asked for: there was one once. A file that is emptied or lost closes the station, it does
 * not open it. */
bool keys_on(const struct keys *keys);
/* A struct key stays where it is until keys_close and changes in place: a request that holds one sees it
 * revoked. A key that has left the file counts as revoked. */
size_t keys_count(const struct keys *keys);
const struct key *keys_at(const struct keys *keys, size_t index);
/* *out: the key, unless MALFORMED or UNKNOWN. */
enum key_verdict keys_check(struct keys *keys, const char *text, size_t len, const struct key **out);

#endif
