/* Words of texts: folded, stemmed, flagged by a table.
 * ASCII is folded by hand because nearly all words are; other characters by utf8proc (lower case, marks
 * away). Stems are Snowball's. A word is put together once, in its own small array, so that nothing here
 * allocates. */
#include <libstemmer.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "memory/text_int.h"

#define KNOWN_WORDS 4096 /* remembered with their stems; a power of two */

struct known_word {
    uint64_t folded; /* hash; 0: none */
    uint64_t stem;
    uint16_t flags;
    uint8_t stem_len;
};

struct text_stemmer {
    struct sb_stemmer *snowball;
    struct known_word known[KNOWN_WORDS];
};

struct text_class {
    uint16_t flags;
    const char *words; /* each between spaces */
};

static const struct text_class classes[] = {
    {TEXT_STOP,
     " a about above after again against all also am an and any are arent as at be because been before being "
     "below between both but by can cannot cant could couldnt did didnt do does doesnt doing dont down "
     "during "
     "each even few for from further get gets got had hadnt has hasnt have havent having he hed hell her "
     "here "
     "hers herself hes him himself his how i id if ill im in into is isnt it its itself ive just lets like "
     "me "
     "more most much my myself no nor not now of off on once one only or other our ours ourselves out over "
     "own "
     "really s same shall she shed shell shes should shouldnt so some such t than that thats the their "
     "theirs "
     "them themselves then there theres these they theyd theyll theyre theyve this those through to too "
     "under "
     "until up us very was wasnt we wed well were werent weve what whats when where which while who whom why "
     "will with wont would wouldnt yes yeah you youd youll your youre yours yourself yourselves youve many "
     "ok okay oh hey hi hello thanks thank please sure say said says tell told know think go going gonna "},
    {TEXT_TIME,
     " yesterday today tomorrow tonight ago last next week weekend month year day morning evening night "
     "monday "
     "tuesday wednesday thursday friday saturday sunday january february march april may june july august "
     "september october november december since recently soon spring summer autumn winter birthday "
     "anniversary weeks months years days hours minutes hour minute noon midnight "},
    {TEXT_WHEN, " when date year month day time long often "},
    {TEXT_MANY, " many much number old far cost price age "},
    {TEXT_ME, " i im ive id ill me my mine myself we us our "},
    {TEXT_YOU, " you your yours youre youve youd youll yourself "},
    {TEXT_QUESTION, " who whom whose what which when where why how "},
};

static bool class_has(const struct text_class *class, const char *folded, size_t len)
{
    char key[TEXT_WORD_BYTES_MAX + 3];
    key[0] = ' ';
    memcpy(key + 1, folded, len);
    key[len + 1] = ' ';
    key[len + 2] = 0;
    return strstr(class->words, key);
}

uint64_t text_hash(const char *bytes, size_t len)
{
    uint64_t h = 0xCBF29CE484222325u; /* FNV-1a, 64 bits */
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)bytes[i]) * 0x100000001B3u;
    h ^= h >> 32;
    return h ? h : 1;
}

int text_month(const char *folded)
{
    static const char *const months[] = {"january",   "february", "march",    "april",
                                         "may",       "june",     "july",     "august",
                                         "september", "october",  "november", "december"};
    for (int i = 0; i < 12; i++)
        if (!strcmp(folded, months[i]))
            return i + 1;
    return 0;
}

enum ph_status text_stemmer_create(struct text_stemmer **out, const char *language, struct ph_err *err)
{
    struct text_stemmer *stemmer = mem_calloc(1, sizeof *stemmer);
    if (!stemmer)
        return ph_fail(err, PH_ERR_NOMEM, "out of memory");
    stemmer->snowball = sb_stemmer_new(language ? language : "english", "UTF_8");
    if (!stemmer->snowball) {
        mem_free(stemmer);
        return ph_fail(err, PH_ERR_ARG, "no stemmer for language '%s'; english, german, french ... are known",
                       language);
    }
    *out = stemmer;
    return PH_OK;
}

void text_stemmer_free(struct text_stemmer *stemmer)
{
    if (!stemmer)
        return;
    sb_stemmer_delete(stemmer->snowball);
    mem_free(stemmer);
}

void text_reader_init(struct text_reader *reader, struct text_stemmer *stemmer, const char *text, size_t len)
{
    *reader = (struct text_reader){.text = text, .len = len, .stemmer = stemmer, .is_first = true};
}

static bool is_ascii_word(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* Han, Hiragana, Katakana, Thai, Lao, Khmer, Myanmar: no spaces between words. */
static bool is_unspaced(uint32_t c)
{
    static const uint32_t ranges[][2] = {{0x0E00, 0x0EFF}, {0x1000, 0x109F},  {0x1780, 0x17FF},
                                         {0x3040, 0x30FF}, {0x3400, 0x4DBF},  {0x4E00, 0x9FFF},
                                         {0xF900, 0xFAFF}, {0x20000, 0x3FFFF}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (c >= ranges[i][0] && c <= ranges[i][1])
            return true;
    return false;
}

enum kind { KIND_OTHER, KIND_WORD, KIND_MARK, KIND_UNSPACED };

static enum kind kind_of(uint32_t c)
{
    if (is_unspaced(c))
        return KIND_UNSPACED;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
        return KIND_WORD;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
        return KIND_MARK;
    default:
        return KIND_OTHER;
    }
}

static void put(struct text_word *word, const char *bytes, size_t len)
{
    if (word->folded_len + len > TEXT_WORD_BYTES_MAX)
        return;
    memcpy(word->folded + word->folded_len, bytes, len);
    word->folded_len = (uint8_t)(word->folded_len + len);
}

/* Lower case, composed characters without their marks. */
static void put_folded(struct text_word *word, uint32_t c)
{
    utf8proc_int32_t parts[8];
    int boundary = 0;
    utf8proc_ssize_t count = utf8proc_decompose_char((utf8proc_int32_t)c, parts, 8,
                                                     UTF8PROC_DECOMPOSE | UTF8PROC_CASEFOLD, &boundary);
    for (utf8proc_ssize_t i = 0; i < count && i < 8; i++) {
        char bytes[UTF8_LEN_MAX];
        if (kind_of((uint32_t)parts[i]) != KIND_MARK)
            put(word, bytes, utf8_encode((uint32_t)parts[i], bytes));
    }
}

static bool is_apostrophe(const struct text_reader *r, size_t at, size_t *len)
{
    if (r->text[at] == '\'')
        return *len = 1, true;
    if (r->len - at >= 3 && !memcmp(r->text + at, "\xE2\x80\x99", 3))
        return *len = 3, true;
    return false;
}

/* The next character that belongs to the word; false where it ends. */
static bool take_character(struct text_reader *r, struct text_word *word)
{
    unsigned char c = (unsigned char)r->text[r->at];
    size_t skip;
    if (is_ascii_word(c)) {
        char lower = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
        put(word, &lower, 1);
        if (c <= '9')
            word->flags |= TEXT_NUMBER;
        r->at++;
        return true;
    }
    if (is_apostrophe(r, r->at, &skip)) { /* don't: dont; Anna's: anna */
        size_t next = r->at + skip;
        if (next >= r->len || !is_ascii_word((unsigned char)r->text[next]))
            return false;
        bool possessive = (r->text[next] | 32) == 's' &&
                          (next + 1 >= r->len || !is_ascii_word((unsigned char)r->text[next + 1]));
        r->at = possessive ? next + 1 : next;
        return !possessive;
    }
    if (c < 0x80)
        return false;
    uint32_t point;
    size_t len = utf8_next(r->text + r->at, r->len - r->at, &point);
    enum kind kind = kind_of(point);
    if (kind != KIND_WORD && kind != KIND_MARK)
        return false;
    if (kind == KIND_WORD)
        put_folded(word, point);
    r->at += len;
    return true;
}

static struct known_word learn_word(struct text_stemmer *stemmer, const struct text_word *word)
{
    struct known_word known = {.stem_len = word->folded_len};
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (class_has(&classes[i], word->folded, word->folded_len))
            known.flags |= classes[i].flags;
    bool is_year =
        word->folded_len == 4 && (!memcmp(word->folded, "19", 2) || !memcmp(word->folded, "20", 2));
    if (is_year && (word->flags & TEXT_NUMBER))
        known.flags |= TEXT_TIME;
    const sb_symbol *stem =
        sb_stemmer_stem(stemmer->snowball, (const sb_symbol *)word->folded, word->folded_len);
    int len = stem ? sb_stemmer_length(stemmer->snowball) : 0;
    if (len > 0 && len <= word->folded_len)
        known.stem_len = (uint8_t)len;
    known.stem =
        len > 0 ? text_hash((const char *)stem, (size_t)len) : text_hash(word->folded, word->folded_len);
    return known;
}

static void finish_word(struct text_reader *r, struct text_word *word)
{
    word->folded[word->folded_len] = 0;
    uint64_t hash = text_hash(word->folded, word->folded_len);
    struct known_word *known = &r->stemmer->known[hash & (KNOWN_WORDS - 1)];
    if (known->folded != hash) {
        *known = learn_word(r->stemmer, word);
        known->folded = hash;
    }
    word->stem = known->stem;
    word->stem_len = known->stem_len;
    word->flags |= known->flags;
}

/* A character without spaces around it: it and the one before are a word. */
static bool take_unspaced(struct text_reader *r, uint32_t point, struct text_word *word)
{
    uint32_t before = r->pair;
    r->pair = point;
    uint32_t next = 0;
    if (r->at < r->len)
        utf8_next(r->text + r->at, r->len - r->at, &next);
    if (!before && is_unspaced(next))
        return false; /* the pair with the next one comes */
    char bytes[UTF8_LEN_MAX];
    if (before)
        put(word, bytes, utf8_encode(before, bytes));
    put(word, bytes, utf8_encode(point, bytes));
    word->folded[word->folded_len] = 0;
    word->stem_len = word->folded_len;
    word->stem = text_hash(word->folded, word->folded_len);
    return true;
}

static void pass(struct text_reader *r, uint32_t point, size_t len)
{
    if (point == '.' || point == '!' || point == '?' || point == '\n' || point == ':' || point == 0x3002)
        r->is_first = true;
    if (point == '?' || point == 0xFF1F)
        r->questions = true;
    r->pair = 0;
    r->at += len;
}

bool text_next(struct text_reader *r, struct text_word *word)
{
    while (r->at < r->len) {
        uint32_t point;
        size_t len = utf8_next(r->text + r->at, r->len - r->at, &point);
        enum kind kind =
            point < 0x80 ? (is_ascii_word((unsigned char)point) ? KIND_WORD : KIND_OTHER) : kind_of(point);
        word->folded_len = 0;
        word->flags = 0;
        word->at = r->at;
        word->is_first = r->is_first;
        if (kind == KIND_UNSPACED) {
            r->at += len;
            r->is_first = false;
            if (take_unspaced(r, point, word))
                return true;
            continue;
        }
        if (kind != KIND_WORD) {
            pass(r, point, len);
            continue;
        }
        r->pair = 0;
        bool capital = (point >= 'A' && point <= 'Z') ||
                       (point >= 0x80 && utf8proc_category((utf8proc_int32_t)point) == UTF8PROC_CATEGORY_LU);
        while (r->at < r->len && take_character(r, word)) {
        }
        if (!word->folded_len)
            continue;
        if (capital && !r->is_first)
            word->flags |= TEXT_NAME;
        r->is_first = false;
        finish_word(r, word);
        if (word->flags & TEXT_STOP)
            word->flags &= (uint16_t)~TEXT_NAME;
        return true;
    }
    return false;
}
