/* A sheet: lines of whole bytes, nanoseconds or operations, indented, where a sum is exactly its parts. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ops/estimate_int.h"

#define VALUE_MAX 4e15 /* 4,096 lines of it still add up within 64 bits */

bool sheet_open(struct estimate_sheet *sheet, struct arena *arena, size_t cap)
{
    *sheet = (struct estimate_sheet){.lines = arena_calloc(arena, cap, sizeof *sheet->lines), .cap = cap};
    return sheet->lines != NULL;
}

void sheet_add(struct estimate_sheet *sheet, enum estimate_kind kind, unsigned depth, enum estimate_unit unit,
               double value, const char *name, const char *fmt, ...)
{
    if (!sheet)
        return;
    if (sheet->count == sheet->cap) {
        sheet->full = true;
        return;
    }
    struct estimate_line *line = &sheet->lines[sheet->count++];
    double whole = value > 0 ? value + 0.5 : 0;
    *line = (struct estimate_line){.kind = kind,
                                   .depth = depth,
                                   .unit = unit,
                                   .value = (uint64_t)(whole < VALUE_MAX ? whole : VALUE_MAX)};
    snprintf(line->name, sizeof line->name, "%s", name);
    va_list args;
    va_start(args, fmt);
    vsnprintf(line->how, sizeof line->how, fmt, args);
    va_end(args);
}

void sheet_sum(struct estimate_sheet *sheet)
{
    for (size_t i = sheet->count; i-- > 0;) {
        struct estimate_line *sum = &sheet->lines[i];
        if (sum->kind != LINE_SUM)
            continue;
        sum->value = 0;
        for (size_t k = i + 1; k < sheet->count && sheet->lines[k].depth > sum->depth; k++)
            if (sheet->lines[k].depth == sum->depth + 1 && sheet->lines[k].kind != LINE_NOTE)
                sum->value += sheet->lines[k].value;
    }
}

void estimate_human_bytes(double bytes, char out[32])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    size_t i = 0;
    while (bytes >= 999.5 && i < 5) {
        bytes /= 1000;
        i++;
    }
    snprintf(out, 32, i && bytes < 99.95 ? "%.2f %s" : "%.0f %s", bytes, units[i]);
}

/* 1234567 as 1 234 567. */
static void grouped(uint64_t value, char out[32])
{
    char digits[24];
    int len = snprintf(digits, sizeof digits, "%llu", (unsigned long long)value), at = 0;
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0)
            out[at++] = ' ';
        out[at++] = digits[i];
    }
    out[at] = 0;
}

static const char *const unit_names[] = {"bytes", "ns", "operations"};

void sheet_print(const struct estimate_sheet *sheet, struct buf *out)
{
    for (size_t i = 0; i < sheet->count; i++) {
        const struct estimate_line *line = &sheet->lines[i];
        char value[32];
        grouped(line->value, value);
        buf_printf(out, "%*s%s %-*s %20s %-5s  %s\n", (int)(2 + 2 * line->depth), "",
                   line->kind == LINE_SUM    ? "="
                   : line->kind == LINE_NOTE ? "."
                                             : "+",
                   (int)(46 - 2 * line->depth), line->name, value,
                   line->unit == UNIT_OPERATIONS ? "ops" : unit_names[line->unit], line->how);
    }
}

static void print_json_line(const struct estimate_sheet *sheet, size_t *at, struct buf *out)
{
    static const char *const kinds[] = {"part", "sum", "note"};
    const struct estimate_line *line = &sheet->lines[(*at)++];
    buf_puts(out, "{\"name\":");
    json_write_string(out, line->name, strlen(line->name));
    buf_printf(out, ",\"kind\":\"%s\",\"value\":%llu,\"unit\":\"%s\",\"how\":", kinds[line->kind],
               (unsigned long long)line->value, unit_names[line->unit]);
    json_write_string(out, line->how, strlen(line->how));
    bool first = true;
    while (*at < sheet->count && sheet->lines[*at].depth > line->depth) { /* at most as deep as sheets are */
        buf_puts(out, first ? ",\"parts\":[" : ",");
        first = false;
        print_json_line(sheet, at, out);
    }
    buf_puts(out, first ? "}" : "]}");
}

void sheet_print_json(const struct estimate_sheet *sheet, struct buf *out)
{
    buf_putc(out, '[');
    for (size_t at = 0; at < sheet->count;) {
        if (at)
            buf_putc(out, ',');
        print_json_line(sheet, &at, out);
    }
    buf_putc(out, ']');
}
