/* keys: what its files share: a key's text (key_text.c) and the file of keys (keys_file.c). */
#ifndef PHAROS_GATEWAY_KEYS_INT_H
#define PHAROS_GATEWAY_KEYS_INT_H

#include "base/file.h"
#include "base/json.h"
#include "gateway/keys.h"

#define KEY_PREFIX "sk-pharos-"
#define KEY_SECRET_LEN 44
#define KEY_HASH_BYTES sizeof((struct key *)0)->hash

/* ---- A key's text */

struct key_parts {
    char id[KEY_ID_LEN + 1];
    const char *secret; /* KEY_SECRET_LEN characters within the text */
};
/* false: too long, too short, a strange character, or the checksum is another. */
bool key_text_parse(const char *text, size_t len, struct key_parts *out);
/* A new key; false: the system has no random numbers. */
bool key_text_make(char text[KEY_TEXT_MAX], struct key_parts *out);
bool key_id_is_valid(const char *id);

/* ---- Lines of the file (key_line.c) */

/* One line's object as a key; the error says what is wrong with which member. */
PH_MUST_USE enum ph_status key_line_read(const struct json *object, struct key *out, struct ph_err *err);
/* Sets the members that a key has, keeping all others. PH_ERR_NOMEM. */
PH_MUST_USE enum ph_status key_line_update(struct arena *arena, struct json *object, const struct key *key);
/* Whether a key may be written like this: what people give it. */
PH_MUST_USE enum ph_status key_spec_check(const struct key *spec, struct ph_err *err);

/* ---- The file */

struct key_line {
    struct key key;
    size_t number;      /* of the line, from 1 */
    size_t offset, len; /* in the text, without its end */
};
struct key_file {
    char *path;
    struct buf text;
    struct key_line *lines;
    size_t count;
    struct file_stamp stamp; /* all 0: there is no file */
};
/* No file: no lines. Release in either case. */
PH_MUST_USE enum ph_status key_file_read(struct key_file *file, const char *dir, struct ph_err *err);
/* Its part after the reading: text to lines. */
PH_MUST_USE enum ph_status key_file_parse(struct key_file *file, struct ph_err *err);
void key_file_release(struct key_file *file);
PH_MUST_USE enum ph_status key_file_path(const char *dir, const char *name, char **out, struct ph_err *err);

#endif
