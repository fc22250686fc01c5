/* A key as text: sk-pharos-ID-SECRET-CHECK.
 *
 * Letters are base58's: digits and letters without 0, O, I and l, which people mistake. A secret is 44 of
 * them, each drawn evenly, so 257 random bits. CHECK is CRC-32 of all that stands before its dash, as six
 * letters: a wrong letter, two exchanged ones, a lost end are told without a look-up, and programs that
 * search code for lost keys can tell ours. It is no secret and proves nothing. */
#include <string.h>

#include "base/clock.h"
#include "gateway/keys_int.h"

#define CHECK_LEN 6
#define SECRET_AT (sizeof KEY_PREFIX - 1 + KEY_ID_LEN + 1)
#define CHECK_AT (SECRET_AT + KEY_SECRET_LEN + 1)
#define TEXT_LEN (CHECK_AT + CHECK_LEN)
#define RANDOM_BYTES 64

static const char letters[] = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
#define LETTER_COUNT (sizeof letters - 1)
_Static_assert(LETTER_COUNT == 58, "base58");
_Static_assert(TEXT_LEN < KEY_TEXT_MAX, "a key's text has room");

static bool is_letter(char c)
{
    return (c >= '1' && c <= '9') || (c >= 'A' && c <= 'Z' && c != 'I' && c != 'O') ||
           (c >= 'a' && c <= 'z' && c != 'l');
}

static bool are_letters(const char *text, size_t len)
{
    bool all = true;
    for (size_t i = 0; i < len; i++)
        all &= is_letter(text[i]);
    return all;
}

bool key_id_is_valid(const char *id)
{
    return strlen(id) == KEY_ID_LEN && are_letters(id, KEY_ID_LEN);
}

/* CRC-32 of ISO 3309, half a byte at a time. */
static uint32_t crc32_of(const char *bytes, size_t len)
{
    static const uint32_t table[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
                                       0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                       0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < len; i++) {
        crc ^= (unsigned char)bytes[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static void write_check(const char *text, char out[CHECK_LEN])
{
    uint32_t crc = crc32_of(text, CHECK_AT - 1);
    for (size_t i = CHECK_LEN; i-- > 0; crc /= LETTER_COUNT)
        out[i] = letters[crc % LETTER_COUNT];
}

bool key_text_parse(const char *text, size_t len, struct key_parts *out)
{
    char check[CHECK_LEN];
    const size_t id_at = sizeof KEY_PREFIX - 1;
    if (len != TEXT_LEN || memcmp(text, KEY_PREFIX, id_at) != 0 || text[SECRET_AT - 1] != '-' ||
        text[CHECK_AT - 1] != '-' || !are_letters(text + id_at, KEY_ID_LEN) ||
        !are_letters(text + SECRET_AT, KEY_SECRET_LEN))
        return false;
    write_check(text, check);
    if (memcmp(check, text + CHECK_AT, CHECK_LEN) != 0)
        return false;
    memcpy(out->id, text + id_at, KEY_ID_LEN);
    out->id[KEY_ID_LEN] = 0;
    out->secret = text + SECRET_AT;
    return true;
}

/* Draws letters evenly: of a byte's six low bits, what is beyond the alphabet is thrown away. */
static bool draw(char *out, size_t count)
{
    unsigned char random[RANDOM_BYTES];
    for (size_t made = 0; made < count;) {
        if (entropy_fill(random, sizeof random) != 0)
            return false;
        for (size_t i = 0; i < sizeof random && made < count; i++)
            if ((random[i] & 63) < LETTER_COUNT)
                out[made++] = letters[random[i] & 63];
    }
    return true;
}

bool key_text_make(char text[KEY_TEXT_MAX], struct key_parts *out)
{
    memcpy(text, KEY_PREFIX, sizeof KEY_PREFIX);
    if (!draw(text + sizeof KEY_PREFIX - 1, KEY_ID_LEN) || !draw(text + SECRET_AT, KEY_SECRET_LEN))
        return false;
    text[SECRET_AT - 1] = text[CHECK_AT - 1] = '-';
    write_check(text, text + CHECK_AT);
    text[TEXT_LEN] = 0;
    return key_text_parse(text, TEXT_LEN, out);
}
