/* Cutting text into the words that BPE merges within.
 *
 * Models publish regular expressions for this. Running them as such would mean backtracking, whose time is
 * quadratic on a long run of spaces and whose stack is as deep as the run is long. Nearly all descend from
 * GPT-2's expression, so each is data here: which classes make a word, what may lead it, how long a number
 * is, and so on. The text is an array of characters with their classes; a stage marks cuts in it and
 * never removes one, and sees no further than the cuts made before: lookahead ends there too.
 *
 * Time is linear: a match consumes what it read, but for the run of spaces, whose end and last newline are
 * remembered in the scan, and for the case rule, which looks back over what it then consumes.
 *
 * Where expression and reference implementation differ (llama.cpp cuts with functions of its own), this
 * follows the implementation, since models are run and compared with it. */
#include <string.h>

#include "model/vocab_split_int.h"

static uint32_t point_at(const struct scan *scan, size_t at)
{
    return at < scan->end ? scan->chars[at] & CHAR_POINT : UINT32_MAX;
}

static uint32_t is(const struct scan *scan, size_t at, uint32_t classes)
{
    return at < scan->end ? scan->chars[at] >> CHAR_CLASS_SHIFT & classes : 0;
}

static bool is_newline(uint32_t point)
{
    return point == '\n' || point == '\r';
}

static bool is_ascii_letter(uint32_t point)
{
    return (point | 0x20) - 'a' < 26;
}

static void cut_after(uint32_t *chars, size_t last)
{
    chars[last] |= CHAR_CUT;
}

/* Lets a matcher cut one segment. What it passes over becomes a word of its own. */
static void cut_matches(const struct split_stage *stage, uint32_t *chars, size_t begin, size_t end)
{
    struct scan scan = {.chars = chars, .at = begin, .end = end};
    while (scan.at < end) {
        size_t len = stage->match(stage, &scan);
        if (len > 0) {
            if (scan.at > begin)
                cut_after(chars, scan.at - 1);
            cut_after(chars, scan.at + len - 1);
        }
        scan.at += len > 0 ? len : 1;
    }
}

void pretokenizer_split(const struct pretokenizer *pre, uint32_t *chars, size_t count)
{
    if (count == 0)
        return;
    cut_after(chars, count - 1);
    for (const struct split_stage *const *stage = pre->stages; *stage; stage++) {
        for (size_t begin = 0, end; begin < count; begin = end) {
            end = begin + 1;
            while (!(chars[end - 1] & CHAR_CUT))
                end++;
            if ((*stage)->match)
                cut_matches(*stage, chars, begin, end);
            else
                (*stage)->cut(chars, begin, end);
        }
    }
}

/* ---- Runs of one set */

static bool in_set(const struct point_set *set, uint32_t character)
{
    uint32_t point = character & CHAR_POINT, classes = character >> CHAR_CLASS_SHIFT;
    bool in = (classes & set->classes) != 0;
    if (point > 0x7f && (classes & UNICODE_SPACE))
        return in != set->negated;
    for (size_t i = 0; i < set->range_count && !in; i++)
        in = set->ranges[i].first <= point && point <= set->ranges[i].last;
    return in != set->negated;
}

static size_t run_length(const struct point_set *set, size_t max, const struct scan *scan, size_t at)
{
    size_t from = at;
    while (at < scan->end && (max == 0 || at - from < max) && in_set(set, scan->chars[at]))
        at++;
    return at - from;
}

/* \s+$ and the like: the run counts only when the segment ends with it. */
static void measure_spaces(struct scan *scan);

static size_t match_run_at(const struct run_rule *rule, struct scan *scan, size_t at)
{
    for (size_t i = 0; i < rule->set_count; i++) {
        size_t len = run_length(&rule->sets[i], rule->exact ? rule->exact : rule->max, scan, at);
        if (len > 0 && (rule->exact == 0 || len == rule->exact))
            return len;
    }
    return 0;
}

size_t split_match_run(const struct split_stage *stage, struct scan *scan)
{
    const struct run_rule *rule = stage->u.run;
    if (rule->at_end) {
        measure_spaces(scan);
        return scan->spaces_end == scan->end && scan->at < scan->end ? scan->end - scan->at : 0;
    }
    bool leads = rule->lead == LEAD_BLANK   ? point_at(scan, scan->at) == ' '
                 : rule->lead == LEAD_SPACE ? is(scan, scan->at, UNICODE_SPACE) != 0
                                            : false;
    size_t len = leads ? match_run_at(rule, scan, scan->at + 1) : 0;
    return len > 0 ? len + 1 : match_run_at(rule, scan, scan->at);
}

/* ---- The GPT-2 family */

/* Length of an English contraction's end ('s 't 'm 'd 're 've 'll) at `at`, or 0. */
static size_t match_contraction(enum contraction kind, const struct scan *scan, size_t at)
{
    static const char pairs[][2] = {{'r', 'e'}, {'v', 'e'}, {'l', 'l'}};
    if (kind == CONTRACTION_NONE || point_at(scan, at) != '\'')
        return 0;
    uint32_t a = point_at(scan, at + 1), b = point_at(scan, at + 2);
    if (kind == CONTRACTION_ANY) {
        a |= is_ascii_letter(a) ? 0x20 : 0;
        b |= is_ascii_letter(b) ? 0x20 : 0;
    }
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (a == (uint32_t)pairs[i][0] && b == (uint32_t)pairs[i][1])
            return 3;
    return 0;
}

static bool is_ascii_mark(const struct scan *scan, size_t at)
{
    uint32_t point = point_at(scan, at);
    return point > ' ' && point < 0x7f && is(scan, at, UNICODE_PUNCTUATION | UNICODE_SYMBOL);
}

static size_t match_ascii_mark(const struct scan *scan)
{
    size_t at = scan->at + 1;
    if (!is_ascii_mark(scan, scan->at))
        return 0;
    while (is_ascii_letter(point_at(scan, at)))
        at++;
    return at > scan->at + 1 ? at - scan->at : 0;
}

static bool is_han(uint32_t point)
{
    static const struct point_range han[] = {{0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xf900, 0xfaff},
                                             {0x20000, 0x2a6df}, {0x2a700, 0x2ebef}, {0x2f800, 0x2fa1f}};
    for (size_t i = 0; i < sizeof han / sizeof *han; i++)
        if (han[i].first <= point && point <= han[i].last)
            return true;
    return false;
}

static bool is_upper_side(const struct word_rule *rule, const struct scan *scan, size_t at)
{
    return is(scan, at, rule->word) && point_at(scan, at) - 'a' >= 26;
}

static bool is_lower_side(const struct word_rule *rule, const struct scan *scan, size_t at)
{
    return is(scan, at, rule->word) && point_at(scan, at) - 'A' >= 26;
}

/* upper* lower+ with backtracking: what has no case may stand on either side, so the last such character of
 * the upper run can be the lower part. */
static size_t cased_lower_end(const struct word_rule *rule, const struct scan *scan, size_t from)
{
    size_t end = from;
    while (is_upper_side(rule, scan, end))
        end++;
    if (is_lower_side(rule, scan, end)) {
        while (is_lower_side(rule, scan, end))
            end++;
        return end - from;
    }
    while (end > from && !is_lower_side(rule, scan, end - 1))
        end--;
    return end - from;
}

/* upper+ lower*, tried when the other did not match: then nothing of the lower side follows. */
static size_t cased_upper_end(const struct word_rule *rule, const struct scan *scan, size_t from)
{
    size_t end = from;
    while (is_upper_side(rule, scan, end))
        end++;
    return end - from;
}

static size_t phrase_end(const struct scan *scan, size_t from)
{
    size_t at = from;
    while (at < scan->end) {
        if (is(scan, at, UNICODE_LETTER) || (at > from && is(scan, at, UNICODE_MARK)))
            at++;
        else if (at > from && point_at(scan, at) == ' ' && is(scan, at + 1, UNICODE_LETTER))
            at += 2;
        else
            break;
    }
    return at - from;
}

static size_t word_length(const struct word_rule *rule, const struct scan *scan, size_t from, bool second)
{
    size_t at = from;
    switch (rule->shape) {
    case SHAPE_RUN:
        while (is(scan, at, rule->word))
            at++;
        return at - from;
    case SHAPE_CASED:
        return second ? cased_upper_end(rule, scan, from) : cased_lower_end(rule, scan, from);
    case SHAPE_PHRASE:
        return phrase_end(scan, from);
    case SHAPE_NOT_HAN:
        while (is(scan, at, rule->word) && !is_han(point_at(scan, at)))
            at++;
        return at - from;
    }
    return 0;
}

static bool can_lead(const struct word_rule *rule, const struct scan *scan)
{
    uint32_t point = point_at(scan, scan->at);
    if (rule->blank_lead)
        return point == ' ';
    return !is_newline(point) && !is(scan, scan->at, rule->lead_not);
}

static size_t match_word(const struct word_rule *rule, const struct scan *scan)
{
    bool lead = can_lead(rule, scan);
    if (rule->shape == SHAPE_NOT_HAN && is_han(point_at(scan, scan->at))) {
        size_t at = scan->at;
        while (is_han(point_at(scan, at)))
            at++;
        return at - scan->at;
    }
    for (int alternative = 0; alternative < (rule->shape == SHAPE_CASED ? 2 : 1); alternative++)
        for (size_t skip = lead ? 1 : 0;; skip--) {
            size_t len = word_length(rule, scan, scan->at + skip, alternative == 1);
            if (len > 0)
                return skip + len + match_contraction(rule->suffix, scan, scan->at + skip + len);
            if (skip == 0)
                break;
        }
    return 0;
}

static size_t match_number(const struct word_rule *rule, const struct scan *scan)
{
    size_t at = scan->at;
    if (rule->number_max == 0)
        return 0;
    if (rule->blank_lead && point_at(scan, at) == ' ')
        at++;
    size_t from = at;
    while (at - from < rule->number_max && is(scan, at, UNICODE_NUMBER))
        at++;
    return at > from ? at - scan->at : 0;
}

static bool is_punctuation(const struct word_rule *rule, const struct scan *scan, size_t at)
{
    if (rule->punctuation)
        return is(scan, at, rule->punctuation);
    return at < scan->end && !is(scan, at, rule->punctuation_not);
}

static size_t match_punctuation(const struct word_rule *rule, const struct scan *scan)
{
    size_t at = scan->at;
    if (point_at(scan, at) == ' ')
        at++;
    if (!is_punctuation(rule, scan, at))
        return 0;
    while (is_punctuation(rule, scan, at))
        at++;
    size_t tail_max = rule->tail == TAIL_NONE ? 0 : rule->tail == TAIL_ONE ? 1 : SIZE_MAX;
    bool slashes = rule->tail == TAIL_NEWLINES_SLASHES || rule->tail == TAIL_ONE;
    for (; tail_max > 0; at++, tail_max--)
        if (!is_newline(point_at(scan, at)) && !(slashes && point_at(scan, at) == '/'))
            break;
    return at - scan->at;
}

static void measure_spaces(struct scan *scan)
{
    if (scan->at < scan->spaces_end)
        return;
    size_t at = scan->at;
    scan->newline_end = 0;
    for (; is(scan, at, UNICODE_SPACE); at++)
        if (is_newline(point_at(scan, at)))
            scan->newline_end = at + 1;
    scan->spaces_end = at;
}

/* \s{512}(?!\S)|\s{256}(?!\S)|...|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1} */
static size_t match_cascade(const struct scan *scan, size_t run)
{
    size_t free = scan->spaces_end == scan->end ? run : run - 1; /* may be taken without touching a \S */
    for (size_t len = 512; len > 0; len /= 2)
        if (len <= free)
            return len;
    return 1;
}

static size_t match_spaces(const struct word_rule *rule, struct scan *scan)
{
    measure_spaces(scan);
    size_t run = scan->spaces_end - scan->at;
    if (scan->spaces_end <= scan->at)
        return 0;
    if (rule->newline == NEWLINE_RUN && scan->newline_end > scan->at)
        return scan->newline_end - scan->at;
    if (rule->newline == NEWLINE_ONE && is_newline(point_at(scan, scan->at)))
        return 1;
    if (rule->cascade)
        return match_cascade(scan, run);
    return run > 1 && scan->spaces_end < scan->end ? run - 1 : run;
}

size_t split_match_word(const struct split_stage *stage, struct scan *scan)
{
    const struct word_rule *rule = stage->u.word;
    size_t len = match_contraction(rule->prefix, scan, scan->at);
    if (len == 0 && rule->ascii_mark)
        len = match_ascii_mark(scan);
    if (len == 0)
        len = match_word(rule, scan);
    if (len == 0)
        len = match_number(rule, scan);
    if (len == 0)
        len = match_punctuation(rule, scan);
    return len > 0 ? len : match_spaces(rule, scan);
}

/* ---- Rules that are like no other */

static size_t match_text(const struct scan *scan, size_t at, const char *text)
{
    size_t len = 0;
    while (text[len] && point_at(scan, at + len) == (uint32_t)(unsigned char)text[len])
        len++;
    return text[len] ? 0 : len;
}

/* <sentinel:[0-9]+> */
size_t split_match_sentinel(const struct split_stage *stage, struct scan *scan)
{
    (void)stage;
    size_t len = match_text(scan, scan->at, "<sentinel:"), at = scan->at + len;
    if (len == 0)
        return 0;
    while (point_at(scan, at) - '0' < 10)
        at++;
    return at > scan->at + len && point_at(scan, at) == '>' ? at + 1 - scan->at : 0;
}

/* IMGIMG[A-I]{1,4}Z */
size_t split_match_image(const struct split_stage *stage, struct scan *scan)
{
    (void)stage;
    size_t len = match_text(scan, scan->at, "IMGIMG"), at = scan->at + len;
    if (len == 0)
        return 0;
    while (point_at(scan, at) - 'A' < 9 && at - scan->at < len + 4)
        at++;
    return at > scan->at + len && point_at(scan, at) == 'Z' ? at + 1 - scan->at : 0;
}

/* [\t\n]|    |  (four blanks, or two) */
size_t split_match_blanks(const struct split_stage *stage, struct scan *scan)
{
    (void)stage;
    uint32_t point = point_at(scan, scan->at);
    if (point == '\t' || point == '\n')
        return 1;
    size_t four = match_text(scan, scan->at, "    ");
    return four ? four : match_text(scan, scan->at, "  ");
}

/* Numbers in groups of three from their right end. The text before a number stays with its first group. */
void split_cut_digits_left(uint32_t *chars, size_t begin, size_t end)
{
    struct scan scan = {.chars = chars, .end = end};
    for (size_t at = begin; at < end;) {
        size_t from = at;
        while (is(&scan, at, UNICODE_NUMBER))
            at++;
        for (size_t left = at - from; left > 0;) {
            size_t group = left % 3 ? left % 3 : 3;
            left -= group;
            cut_after(chars, at - left - 1);
        }
        at += at == from;
    }
}

/* (?=(\d{3})+(?!\d)): a cut before each group of three ASCII digits, counted from the right. */
void split_cut_digits_right(uint32_t *chars, size_t begin, size_t end)
{
    struct scan scan = {.chars = chars, .end = end};
    for (size_t at = begin; at < end;) {
        size_t from = at;
        while (point_at(&scan, at) - '0' < 10)
            at++;
        for (size_t cut = from + (at - from) % 3; cut < at; cut += 3)
            if (cut > begin)
                cut_after(chars, cut - 1);
        at += at == from;
    }
}

/* [^\n]+|\n+ */
void split_cut_newlines(uint32_t *chars, size_t begin, size_t end)
{
    for (size_t at = begin; at + 1 < end; at++)
        if (((chars[at] & CHAR_POINT) == '\n') != ((chars[at + 1] & CHAR_POINT) == '\n'))
            cut_after(chars, at);
}
