/* The store's statements and its schema: all SQL there is. */
#ifndef PHAROS_MEMORY_STORE_SQL_INT_H
#define PHAROS_MEMORY_STORE_SQL_INT_H

#include <stddef.h>
#include <stdint.h>

/* Columns of a message, in the order in which store_read.c takes them. */
#define STORE_MESSAGE_COLUMNS "number, conversation, seq, id, tokens, created_ms, coding, body"
#define STORE_CONVERSATION_COLUMNS                                                                     \
    "c.number, c.owner, u.name, c.key, c.domain, c.metadata, c.created_ms, c.updated_ms, c.next_seq, " \
    "c.messages, c.last_message"
#define STORE_CONVERSATION_FROM " FROM conversations c JOIN users u ON u.number = c.owner "

#define STORE_SQL_LIST(X)                                                                                    \
    /* ---- State: one row, locked by whoever writes */                                                      \
    X(STATE_READ, "SELECT schema, number, dictionary, purge FROM state")                                     \
    X(STATE_LOCK, "UPDATE state SET number = number RETURNING schema, number, dictionary, purge")            \
    X(STATE_WRITE, "UPDATE state SET number = ?1, dictionary = ?2, purge = ?3")                              \
    X(STATE_SCHEMA, "UPDATE state SET schema = ?1")                                                          \
    X(STATE_INSERT, "INSERT INTO state (one, schema, number, dictionary, purge) VALUES (1, 0, 0, 0, 0) "     \
                    "ON CONFLICT (one) DO NOTHING")                                                          \
    /* ---- Users */                                                                                         \
    X(USER_FIND, "SELECT number, name, created_ms, deletions, (SELECT max(m.number) FROM messages m "        \
                 "WHERE m.owner = users.number) FROM users WHERE name = ?1")                                 \
    X(USER_LIST, "SELECT number, name, created_ms, deletions, (SELECT max(m.number) FROM messages m "        \
                 "WHERE m.owner = users.number) FROM users WHERE number > ?1 ORDER BY number LIMIT ?2")      \
    X(USER_NUMBER, "SELECT number FROM users WHERE name = ?1")                                               \
    X(USER_INSERT, "INSERT INTO users (number, name, created_ms, deletions) VALUES (?1, ?2, ?3, 0)")         \
    X(USER_BUMP, "UPDATE users SET deletions = deletions + 1 WHERE number = ?1")                             \
    X(USER_DELETE, "DELETE FROM users WHERE number = ?1")                                                    \
    /* ---- Conversations */                                                                                 \
    X(CONVERSATION_FIND,                                                                                     \
      "SELECT " STORE_CONVERSATION_COLUMNS STORE_CONVERSATION_FROM "WHERE c.key = ?1 AND u.name = ?2")       \
    X(CONVERSATION_FIND_ANY,                                                                                 \
      "SELECT " STORE_CONVERSATION_COLUMNS STORE_CONVERSATION_FROM "WHERE c.key = ?1 LIMIT 2")               \
    X(CONVERSATION_STATE, "SELECT number, next_seq FROM conversations WHERE key = ?1 AND owner = ?2")        \
    X(CONVERSATION_NEAR,                                                                                     \
      "SELECT number, next_seq FROM conversations WHERE number >= ?1 ORDER BY number LIMIT 1")               \
    X(CONVERSATION_INSERT,                                                                                   \
      "INSERT INTO conversations (number, owner, key, domain, metadata, created_ms, updated_ms, next_seq, "  \
      "messages, last_message) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0, 0)")                                \
    X(CONVERSATION_GROW,                                                                                     \
      "UPDATE conversations SET next_seq = ?2, messages = messages + ?3, last_message = ?4, "                \
      "updated_ms = CASE WHEN updated_ms > ?5 THEN updated_ms ELSE ?5 END WHERE number = ?1")                \
    X(CONVERSATION_SHRINK, "UPDATE conversations SET messages = messages - 1 WHERE number = ?1")             \
    X(CONVERSATION_METADATA, "UPDATE conversations SET metadata = ?2 WHERE number = ?1")                     \
    X(CONVERSATION_DOMAIN, "UPDATE conversations SET domain = ?2 WHERE number = ?1")                         \
    X(CONVERSATION_DELETE, "DELETE FROM conversations WHERE number = ?1")                                    \
    X(CONVERSATIONS_DELETE, "DELETE FROM conversations WHERE owner = ?1")                                    \
    STORE_SQL_PAGES(X)                                                                                       \
    /* ---- Messages */                                                                                      \
    X(MESSAGE_INSERT,                                                                                        \
      "INSERT INTO messages (conversation, seq, owner, number, id, tokens, created_ms, coding, body) "       \
      "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")                                                         \
    X(MESSAGE_SEQ_BY_ID, "SELECT seq FROM messages WHERE conversation = ?1 AND id = ?2")                     \
    X(MESSAGE_SEQ_BY_PLACE, "SELECT seq FROM messages WHERE conversation = ?1 AND seq = ?2 AND id IS NULL")  \
    X(MESSAGE_OWNED, "SELECT m.conversation FROM users u CROSS JOIN conversations c CROSS JOIN messages m "  \
                     "WHERE u.name = ?1 AND c.owner = u.number AND m.conversation = c.number AND "           \
                     "m.id = ?2 ORDER BY m.number DESC LIMIT 1")                                             \
    X(MESSAGES_RANGE, "SELECT " STORE_MESSAGE_COLUMNS " FROM messages WHERE conversation = ?1 AND "          \
                      "seq >= ?2 AND seq < ?3 ORDER BY seq LIMIT ?4")                                        \
    X(MESSAGES_RANGE_BACK, "SELECT " STORE_MESSAGE_COLUMNS " FROM messages WHERE conversation = ?1 AND "     \
                           "seq >= ?2 AND seq < ?3 ORDER BY seq DESC LIMIT ?4")                              \
    X(MESSAGES_AFTER, "SELECT " STORE_MESSAGE_COLUMNS " FROM messages WHERE owner = ?1 AND number > ?2 "     \
                      "ORDER BY number LIMIT ?3")                                                            \
    X(MESSAGE_BY_NUMBER, "SELECT " STORE_MESSAGE_COLUMNS " FROM messages WHERE owner = ?1 AND number = ?2")  \
    X(MESSAGE_DELETE, "DELETE FROM messages WHERE conversation = ?1 AND seq = ?2 RETURNING number")          \
    X(MESSAGES_DELETE, "DELETE FROM messages WHERE conversation = ?1")                                       \
    X(MESSAGES_DELETE_USER, "DELETE FROM messages WHERE owner = ?1")                                         \
    X(MESSAGES_COUNT, "SELECT count(*) FROM messages")                                                       \
    X(MESSAGES_WALK, "SELECT " STORE_MESSAGE_COLUMNS ", owner FROM messages "                                \
                     "WHERE (conversation, seq) > (?1, ?2) ORDER BY conversation, seq LIMIT ?3")             \
    X(MESSAGES_CODED, "SELECT " STORE_MESSAGE_COLUMNS " FROM messages WHERE "                                \
                      "(conversation, seq) > (?1, ?2) AND coding = ?3 ORDER BY conversation, seq LIMIT ?4")  \
    X(MESSAGE_RECODE, "UPDATE messages SET coding = ?3, body = ?4 WHERE conversation = ?1 AND seq = ?2")     \
    /* ---- Dictionaries */                                                                                  \
    X(DICTIONARY_FIND, "SELECT bytes FROM dictionaries WHERE number = ?1")                                   \
    X(DICTIONARY_INSERT, "INSERT INTO dictionaries (number, bytes, trained_at, created_ms, retired) "        \
                         "VALUES (?1, ?2, ?3, ?4, 0)")                                                       \
    X(DICTIONARY_RETIRED, "SELECT number FROM dictionaries WHERE retired = 1 ORDER BY number LIMIT 1")       \
    X(DICTIONARY_TRAINED_AT, "SELECT max(trained_at) FROM dictionaries")                                     \
    X(DICTIONARY_DELETE, "DELETE FROM dictionaries WHERE number = ?1")                                       \
    X(DICTIONARY_COUNT, "SELECT count(*) FROM dictionaries")                                                 \
    X(DICTIONARIES_RETIRE, "UPDATE dictionaries SET retired = 1 WHERE number IN "                            \
                           "(SELECT dictionary FROM donors WHERE owner = ?1) RETURNING number")              \
    X(DICTIONARIES_REPLACE, "UPDATE dictionaries SET retired = 1 WHERE number <> ?1")                        \
    X(DONOR_INSERT, "INSERT INTO donors (dictionary, owner) SELECT ?1, number FROM users WHERE number = ?2") \
    X(DONORS_DELETE, "DELETE FROM donors WHERE dictionary = ?1")                                             \
    /* ---- Responses and feedback */                                                                        \
    X(RESPONSE_PUT,                                                                                          \
      "INSERT INTO responses (owner, id, conversation, end_seq, previous, created_ms, coding, body) "        \
      "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (owner, id) DO UPDATE SET "                       \
      "conversation = excluded.conversation, end_seq = excluded.end_seq, previous = excluded.previous, "     \
      "created_ms = excluded.created_ms, coding = excluded.coding, body = excluded.body")                    \
    X(RESPONSE_FIND, "SELECT r.id, r.owner, r.conversation, r.end_seq, r.previous, r.created_ms, r.coding, " \
                     "r.body FROM responses r JOIN users u ON u.number = r.owner "                           \
                     "WHERE u.name = ?1 AND r.id = ?2")                                                      \
    X(RESPONSE_DELETE, "DELETE FROM responses WHERE owner = ?1 AND id = ?2")                                 \
    X(RESPONSES_DELETE, "DELETE FROM responses WHERE owner = ?1")                                            \
    X(RESPONSES_UNLINK, "UPDATE responses SET conversation = 0 WHERE owner = ?1 AND conversation = ?2")      \
    X(RESPONSE_COUNT, "SELECT count(*) FROM responses")                                                      \
    X(FEEDBACK_PUT,                                                                                          \
      "INSERT INTO feedback (number, owner, response, score_millionths, note, created_ms) "                  \
      "VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (owner, response) DO UPDATE SET "                         \
      "number = excluded.number, score_millionths = excluded.score_millionths, note = excluded.note, "       \
      "created_ms = excluded.created_ms")                                                                    \
    X(FEEDBACK_AFTER, "SELECT number, owner, response, score_millionths, note, created_ms FROM feedback "    \
                      "WHERE number > ?1 ORDER BY number LIMIT ?2")                                          \
    X(FEEDBACK_DELETE, "DELETE FROM feedback WHERE owner = ?1")                                              \
    X(FEEDBACK_COUNT, "SELECT count(*) FROM feedback")                                                       \
    /* ---- Vectors */                                                                                       \
    X(SPACE_NUMBER, "SELECT number FROM spaces WHERE name = ?1")                                             \
    X(SPACE_INSERT, "INSERT INTO spaces (number, name) VALUES (?1, ?2)")                                     \
    X(SPACE_DELETE, "DELETE FROM spaces WHERE number = ?1")                                                  \
    X(VECTOR_PUT,                                                                                            \
      "INSERT INTO vectors (owner, space, message, bytes) SELECT owner, ?2, number, ?4 FROM messages "       \
      "WHERE owner = ?1 AND number = ?3 ON CONFLICT (owner, space, message) DO UPDATE SET "                  \
      "bytes = excluded.bytes")                                                                              \
    X(VECTORS_AFTER, "SELECT message, bytes FROM vectors WHERE owner = ?1 AND space = ?2 AND message > ?3 "  \
                     "ORDER BY message LIMIT ?4")                                                            \
    X(VECTORS_LAST, "SELECT count(*), max(message) FROM vectors WHERE owner = ?1 AND space = ?2")            \
    X(VECTORS_DELETE_USER, "DELETE FROM vectors WHERE owner = ?1")                                           \
    X(VECTORS_DELETE_SPACE, "DELETE FROM vectors WHERE space = ?1")                                          \
    X(VECTORS_DELETE_MESSAGE, "DELETE FROM vectors WHERE owner = ?1 AND message = ?2 AND "                   \
                              "space IN (SELECT number FROM spaces)")                                        \
    X(VECTORS_DELETE_CONVERSATION, "DELETE FROM vectors WHERE owner = ?1 AND "                               \
                                   "message IN (SELECT number FROM messages WHERE conversation = ?2)")       \
    X(VECTOR_COUNT, "SELECT count(*) FROM vectors")                                                          \
    /* ---- Counts and checks */                                                                             \
    X(USER_COUNT, "SELECT count(*) FROM users")                                                              \
    X(CONVERSATION_COUNT, "SELECT count(*) FROM conversations")                                              \
    X(CHECK_COUNTS, "SELECT c.number, c.messages, count(m.seq), c.next_seq, max(m.seq), c.last_message, "    \
                    "max(m.number) FROM conversations c LEFT JOIN messages m ON m.conversation = c.number "  \
                    "GROUP BY c.number, c.messages, c.next_seq, c.last_message HAVING "                      \
                    "c.messages <> count(m.seq) OR c.next_seq <= coalesce(max(m.seq), -1) OR "               \
                    "c.last_message < coalesce(max(m.number), 0)")                                           \
    X(CHECK_OWNERS, "SELECT m.conversation, m.seq FROM messages m LEFT JOIN conversations c "                \
                    "ON c.number = m.conversation AND c.owner = m.owner WHERE c.number IS NULL")             \
    X(CHECK_USERS, "SELECT c.number FROM conversations c LEFT JOIN users u ON u.number = c.owner "           \
                   "WHERE u.number IS NULL")                                                                 \
    X(CHECK_VECTORS, "SELECT v.message FROM vectors v LEFT JOIN messages m ON m.owner = v.owner AND "        \
                     "m.number = v.message WHERE m.number IS NULL")                                          \
    X(CHECK_NUMBERS, "SELECT max(number) FROM messages")

/* Lists of conversations: by whose index, and forwards or backwards. The parameters are always owner, domain,
 * from_ms, to_ms, after_ms, after_number, limit. */
#define STORE_SQL_PAGE(where)                                                   \
    "SELECT " STORE_CONVERSATION_COLUMNS STORE_CONVERSATION_FROM "WHERE " where \
    " AND c.updated_ms >= ?3 AND c.updated_ms < ?4 AND "
#define STORE_SQL_DOWN \
    "(c.updated_ms, c.number) < (?5, ?6) ORDER BY c.updated_ms DESC, c.number DESC LIMIT ?7"
#define STORE_SQL_UP "(c.updated_ms, c.number) > (?5, ?6) ORDER BY c.updated_ms, c.number LIMIT ?7"
#define STORE_SQL_ANY "?1 = 0 AND ?2 = ''"
#define STORE_SQL_OWNER "c.owner = ?1 AND ?2 = ''"
#define STORE_SQL_DOMAIN "?1 = 0 AND c.domain = ?2 AND c.domain <> ''"
#define STORE_SQL_BOTH "c.owner = ?1 AND c.domain = ?2"
#define STORE_SQL_PAGES(X)                                                                                \
    X(PAGE_ANY, STORE_SQL_PAGE(STORE_SQL_ANY) STORE_SQL_DOWN)                                             \
    X(PAGE_ANY_UP, STORE_SQL_PAGE(STORE_SQL_ANY) STORE_SQL_UP)                                            \
    X(PAGE_OWNER, STORE_SQL_PAGE(STORE_SQL_OWNER) STORE_SQL_DOWN)                                         \
    X(PAGE_OWNER_UP, STORE_SQL_PAGE(STORE_SQL_OWNER) STORE_SQL_UP)                                        \
    X(PAGE_DOMAIN, STORE_SQL_PAGE(STORE_SQL_DOMAIN) STORE_SQL_DOWN)                                       \
    X(PAGE_DOMAIN_UP, STORE_SQL_PAGE(STORE_SQL_DOMAIN) STORE_SQL_UP)                                      \
    X(PAGE_BOTH, STORE_SQL_PAGE(STORE_SQL_BOTH) STORE_SQL_DOWN)                                           \
    X(PAGE_BOTH_UP, STORE_SQL_PAGE(STORE_SQL_BOTH) STORE_SQL_UP)                                          \
    X(PAGE_NUMBER,                                                                                        \
      STORE_SQL_PAGE(                                                                                     \
          "(?1 = 0 OR c.owner = ?1) AND (?2 = '' OR c.domain = ?2)") "?5 = 0 AND c.number > ?6 ORDER BY " \
                                                                     "c.number LIMIT ?7")

#define STORE_SQL_ENUM(name, text) STORE_SQL_##name,
enum { STORE_SQL_LIST(STORE_SQL_ENUM) STORE_SQL_COUNT };

extern const char *const store_sql[STORE_SQL_COUNT];

/* Schema versions: migrations[v] brings a store from version v to v + 1. */
#define STORE_SCHEMA 2
extern const char *const store_migrations[STORE_SCHEMA];
extern const char *const store_schema_begin; /* where there is nothing yet; harmless where there is */

#endif
