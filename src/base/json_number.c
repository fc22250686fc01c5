/* Numbers: text to value and back.
 *
 * A JSON number is an exact decimal. Comparing two of them or asking for an integer must not pass through a
 * double, which would call 2^53 and 2^53 + 1 equal; so a text is first reduced to its significant digits and
 * a power of ten. Reading a double from that is exact by one multiplication or division when the digits fit
 * 53 bits and the power is at most 22 (Clinger, "How to Read Floating Point Numbers Accurately", 1990); the
 * rest is left to strtod. The process stays in the "C" locale, so the decimal point is a point. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_int.h"

#define EXPONENT_MAX 100000000000000000 /* where written exponents saturate: ten times that fits */
#define INT64_DIGITS_MAX 19

/* value = 0.d1 d2 d3 ... * 10^point, with d1 and the last digit not 0; no digits at all for zero. */
struct decimal {
    const char *first; /* first significant digit; digits may have one '.' between them */
    size_t count;
    int64_t point;
    bool negative;
};

static int64_t read_exponent(const char *at)
{
    bool negative = *at == '-';
    if (*at == '-' || *at == '+')
        at++;
    int64_t value = 0;
    for (; *at; at++)
        if (value < EXPONENT_MAX)
            value = value * 10 + (*at - '0');
    if (value > EXPONENT_MAX)
        value = EXPONENT_MAX;
    return negative ? -value : value;
}

static struct decimal decimal_of(const char *text)
{
    struct decimal d = {.negative = *text == '-'};
    bool fraction = false;
    size_t seen = 0; /* digits from the first significant one on */
    const char *at = text + d.negative;
    for (; *at && *at != 'e' && *at != 'E'; at++) {
        if (*at == '.') {
            fraction = true;
            continue;
        }
        if (*at != '0' && !d.first)
            d.first = at;
        if (d.first)
            seen++;
        if (*at != '0')
            d.count = seen; /* zeros behind the last significant digit don't count */
        if (fraction ? !d.first : d.first != NULL)
            d.point += fraction ? -1 : 1;
    }
    if (d.first && *at)
        d.point += read_exponent(at + 1);
    return d;
}

static const char *next_digit(const char *at)
{
    at++;
    return *at == '.' ? at + 1 : at;
}

/* The first `count` digits as an integer; count at most 19. */
static uint64_t leading_digits(const struct decimal *d, size_t count)
{
    uint64_t value = 0;
    const char *at = d->first;
    for (size_t i = 0; i < count; i++, at = next_digit(at))
        value = value * 10 + (uint64_t)(*at - '0');
    return value;
}

bool json_numbers_equal(const struct json *a, const struct json *b)
{
    struct decimal x = decimal_of(a->u.str.text), y = decimal_of(b->u.str.text);
    if (x.count != y.count)
        return false;
    if (x.count == 0)
        return true;
    if (x.negative != y.negative || x.point != y.point)
        return false;
    const char *p = x.first, *q = y.first;
    for (size_t i = 0; i < x.count; i++, p = next_digit(p), q = next_digit(q))
        if (*p != *q)
            return false;
    return true;
}

bool json_to_int64(const struct json *value, int64_t *out)
{
    if (!json_is(value, JSON_NUMBER))
        return false;
    struct decimal d = decimal_of(value->u.str.text);
    if (d.count == 0) {
        *out = 0;
        return true;
    }
    if (d.point < (int64_t)d.count || d.point > INT64_DIGITS_MAX)
        return false;
    uint64_t magnitude = leading_digits(&d, d.count);
    for (int64_t i = (int64_t)d.count; i < d.point; i++)
        magnitude *= 10;
    if (magnitude > (uint64_t)INT64_MAX + d.negative)
        return false;
    *out = d.negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    return true;
}

bool json_to_double(const struct json *value, double *out)
{
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (!json_is(value, JSON_NUMBER))
        return false;
    struct decimal d = decimal_of(value->u.str.text);
    int64_t power = d.point - (int64_t)d.count;
    if (d.count <= DBL_DIG && power >= -22 && power <= 22) {
        double magnitude = (double)(d.count ? leading_digits(&d, d.count) : 0);
        magnitude = power < 0 ? magnitude / powers[-power] : magnitude * powers[power];
        *out = d.negative ? -magnitude : magnitude;
        return true;
    }
    double parsed = strtod(value->u.str.text, NULL);
    if (!isfinite(parsed))
        return false;
    *out = parsed;
    return true;
}

/* Fifteen digits survive a normal double and seventeen tell any two apart; subnormals have fewer. */
size_t json_format_double(double value, char out[JSON_DOUBLE_TEXT_MAX])
{
    if (!isfinite(value))
        return 0;
    int len = 0;
    for (int digits = fabs(value) < DBL_MIN ? 1 : DBL_DIG; digits <= DBL_DECIMAL_DIG; digits++) {
        len = snprintf(out, JSON_DOUBLE_TEXT_MAX, "%.*g", digits, value);
        if (strtod(out, NULL) == value)
            break;
    }
    return (size_t)len;
}

void json_write_double(struct buf *out, double value)
{
    char text[JSON_DOUBLE_TEXT_MAX];
    size_t len = json_format_double(value, text);
    buf_append(out, len ? text : "null", len ? len : 4);
}
