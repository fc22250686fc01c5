/* The store's SQL, and its schema, version by version. A migration that was released is never changed.
 *
 * A message's row lies with the others of its conversation (the table is its own primary key), so that a
 * conversation is read from neighbouring pages however long ago its parts were written. Two further indexes:
 * a user's messages by number, for who keeps an index of him, and messages by id where they have one. The
 * numbers come from the row `state`, which whoever writes locks first: they ascend in the order of commits,
 * as a sequence of PostgreSQL would not. */
#include "memory/store_sql_int.h"

#define STORE_SQL_TEXT(name, text) [STORE_SQL_##name] = (text),
const char *const store_sql[STORE_SQL_COUNT] = {STORE_SQL_LIST(STORE_SQL_TEXT)};

const char *const store_schema_begin =
    "CREATE TABLE IF NOT EXISTS state (one INTEGER PRIMARY KEY CHECK (one = 1), schema INTEGER NOT NULL, "
    "number INTEGER NOT NULL, dictionary INTEGER NOT NULL, purge INTEGER NOT NULL);";

const char *const store_migrations[STORE_SCHEMA] = {
    /* 0 to 1: conversations */
    "CREATE TABLE users (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_ms INTEGER NOT NULL, "
    "deletions INTEGER NOT NULL);"
    "CREATE TABLE conversations (number INTEGER PRIMARY KEY, "
    "owner INTEGER NOT NULL REFERENCES users (number), key TEXT NOT NULL, domain TEXT NOT NULL, "
    "metadata TEXT NOT NULL, created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL, "
    "next_seq INTEGER NOT NULL, messages INTEGER NOT NULL, last_message INTEGER NOT NULL);"
    "CREATE UNIQUE INDEX conversations_by_key ON conversations (key, owner);"
    "CREATE INDEX conversations_by_owner ON conversations (owner, updated_ms, number);"
    "CREATE INDEX conversations_by_time ON conversations (updated_ms, number);"
    "CREATE INDEX conversations_by_domain ON conversations (domain, updated_ms, number) WHERE domain <> '';"
    "CREATE TABLE messages (conversation INTEGER NOT NULL REFERENCES conversations (number), "
    "seq INTEGER NOT NULL, owner INTEGER NOT NULL, number INTEGER NOT NULL, id TEXT, tokens INTEGER NOT "
    "NULL, "
    "created_ms INTEGER NOT NULL, coding INTEGER NOT NULL, body BLOB NOT NULL, "
    "PRIMARY KEY (conversation, seq)) WITHOUT ROWID;"
    "CREATE UNIQUE INDEX messages_by_number ON messages (owner, number);"
    "CREATE UNIQUE INDEX messages_by_id ON messages (conversation, id) WHERE id IS NOT NULL;"
    "CREATE TABLE dictionaries (number INTEGER PRIMARY KEY, bytes BLOB NOT NULL, "
    "trained_at INTEGER NOT NULL, created_ms INTEGER NOT NULL, retired INTEGER NOT NULL);"
    "CREATE TABLE donors (dictionary INTEGER NOT NULL, owner INTEGER NOT NULL, "
    "PRIMARY KEY (dictionary, owner)) WITHOUT ROWID;"
    "CREATE INDEX donors_by_owner ON donors (owner, dictionary);",
    /* 1 to 2: responses, feedback, vectors */
    "CREATE TABLE responses (owner INTEGER NOT NULL REFERENCES users (number), id TEXT NOT NULL, "
    "conversation INTEGER NOT NULL, end_seq INTEGER NOT NULL, previous TEXT NOT NULL, "
    "created_ms INTEGER NOT NULL, coding INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (owner, id));"
    "CREATE TABLE feedback (number INTEGER PRIMARY KEY, owner INTEGER NOT NULL REFERENCES users (number), "
    "response TEXT NOT NULL, score_millionths INTEGER NOT NULL, note TEXT NOT NULL, "
    "created_ms INTEGER NOT NULL);"
    "CREATE UNIQUE INDEX feedback_by_response ON feedback (owner, response);"
    "CREATE TABLE spaces (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);"
    "CREATE TABLE vectors (owner INTEGER NOT NULL REFERENCES users (number), "
    "space INTEGER NOT NULL REFERENCES spaces (number), message INTEGER NOT NULL, bytes BLOB NOT NULL, "
    "PRIMARY KEY (owner, space, message)) WITHOUT ROWID;",
};
