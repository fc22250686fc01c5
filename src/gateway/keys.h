/* keys: who may call, how much, how fast.
 *
 * A key is "sk-pharos-ID-SECRET-CHECK": 8 characters of public id, 256 random bits, a checksum that tells a
 * typing error from a wrong key without a look-up. Only SHA-256 of the secret is kept, in DIR/keys.jsonl
 * (0600, one key a line, replaced as a whole by rename): the command line writes it, a running station
 * notices and reads it again. A secret is shown once. Comparison takes the same time whatever differs.
 *
 * Thread: the loop's for the station's; files: any, one writer at a time (locked). */
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
#define KEY_SCOPES_MAX 16

/* What a key may do. Scopes are words: "chat" (all that asks models), "models:NAME" (those only; may end in
 * *), "read" (models, routes, metrics), "admin" (everything). None given: chat and read. */
struct key {
    char id[KEY_ID_LEN + 1];
    char name[64];
    char scopes[KEY_SCOPES_MAX][64];
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

/* ---- The file ---- */

/* `spec` gives all but id, hash and created; the secret's text comes back once. */
PH_MUST_USE enum ph_status keys_create(const char *dir, const struct clock_source *clock,
                                       const struct key *spec, struct key *out, char text[KEY_TEXT_MAX],
                                       struct ph_err *err);
PH_MUST_USE enum ph_status keys_revoke(const char *dir, const struct clock_source *clock, const char *id,
                                       struct ph_err *err);
/* A new key with the same rights; the old one works for overlap_s more seconds. */
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
size_t keys_count(const struct keys *keys);
const struct key *keys_at(const struct keys *keys, size_t index); /* until the next refresh */

enum key_verdict { KEY_OK, KEY_MALFORMED, KEY_UNKNOWN, KEY_REVOKED, KEY_EXPIRED };
/* `out` is valid until the next refresh. */
enum key_verdict keys_check(struct keys *keys, const char *text, size_t len, const struct key **out);
bool key_allows(const struct key *key, const char *scope); /* "chat", "read", "admin" */
bool key_allows_model(const struct key *key, const char *model);

/* ---- Rates: sliding minutes ---- */

struct rates;
PH_MUST_USE enum ph_status rates_create(struct rates **out, const struct clock_source *clock);
void rates_free(struct rates *rates);
struct rate_limits {
    int64_t rpm, tpm, concurrency; /* 0: none */
};
/* Takes one request of `tokens` for `who` (a key's id, or "provider:NAME"), or says when to come again.
 * *which: "requests", "tokens" or "concurrent requests". */
bool rates_take(struct rates *rates, const char *who, const struct rate_limits *limits, uint64_t tokens,
                uint32_t *retry_after_s, const char **which);
/* The request is over; the difference between what it was taken for and what it used is put right. */
void rates_give(struct rates *rates, const char *who, int64_t tokens_more);
/* How much of the window is used, 0 to 1 (the fullest of requests and tokens); to fill a subscription first.
 */
double rates_used(const struct rates *rates, const char *who, const struct rate_limits *limits);

/* ---- Turns: who comes next when not all can ---- */

/* A gate lets running_max through at a time. Those who wait stand in a line for each key, and lines take
 * turns (start-time fair queueing by cost, Goyal 1996), so that 98 busy agents with one key, or with 98, do
 * not starve one person. */
struct gate;
struct gate_ticket {
    struct gate *gate; /* NULL: not in it */
    void *internal;    /* the gate's */
};
PH_MUST_USE enum ph_status gate_create(struct gate **out, size_t running_max, size_t waiting_max,
                                       const struct clock_source *clock);
void gate_free(struct gate *gate);
void gate_resize(struct gate *gate, size_t running_max);
/* PH_OK and *entered: go on now. PH_OK and not: `fn` is called when it is this ticket's turn, never inside
 * gate_enter or gate_leave of another ticket's caller's stack deeper than one (it runs from gate_leave).
 * PH_ERR_BUSY: too many wait. `cost`: tokens of prompt and reply, roughly. */
PH_MUST_USE enum ph_status gate_enter(struct gate *gate, const char *key_id, uint64_t cost,
                                      struct gate_ticket *ticket, void (*fn)(void *ud), void *ud,
                                      bool *entered);
void gate_leave(struct gate_ticket *ticket); /* done, or no longer waiting; lets the next one in */
size_t gate_running(const struct gate *gate);
size_t gate_waiting(const struct gate *gate);

#endif
