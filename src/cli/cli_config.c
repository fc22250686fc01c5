/* A command's options in a YAML file: the option table, read as a configuration's table.
 *
 * Both kinds of table fill a struct through offsets, and their scalars agree in type. Lists do not, so the
 * file is read into a copy of the struct that has room behind it for lists in the configuration's form. */
#include <string.h>

#include "base/config.h"
#include "cli/cli_int.h"

_Static_assert(sizeof(size_t) == sizeof(int64_t), "a CLI_COUNT is read as a CONFIG_INT");

static bool is_key(const struct cli_option *option, const char *const *not_there)
{
    if (strncmp(option->flag, "--", 2) != 0)
        return false;
    for (; *not_there; not_there++)
        if (strcmp(*not_there, option->flag) == 0)
            return false;
    return true;
}

/* "--kv-heads" is "kv_heads". */
static char *key_of(struct arena *arena, const char *flag)
{
    char *key = arena_strdup(arena, flag + 2);
    for (char *at = key; at && *at; at++)
        if (*at == '-')
            *at = '_';
    return key;
}

static const enum config_type types[] = {
    [CLI_SWITCH] = CONFIG_BOOL, [CLI_TEXT] = CONFIG_STRING,   [CLI_LIST] = CONFIG_LIST,
    [CLI_COUNT] = CONFIG_INT,   [CLI_NUMBER] = CONFIG_DOUBLE, [CLI_CHOICE] = CONFIG_ENUM,
};

static const size_t sizes[] = {
    [CLI_SWITCH] = sizeof(bool),  [CLI_TEXT] = sizeof(char *),   [CLI_LIST] = sizeof(struct config_list),
    [CLI_COUNT] = sizeof(size_t), [CLI_NUMBER] = sizeof(double), [CLI_CHOICE] = sizeof(int),
};

#define COUNT_MAX 9007199254740992.0 /* doubles, which bounds are, hold every whole number up to it */

static bool make_field(struct arena *arena, const struct cli_option *option, size_t list_at,
                       struct config_field *field)
{
    bool unbounded = option->type == CLI_COUNT && option->min == 0 && option->max == 0;
    *field = (struct config_field){.key = key_of(arena, option->flag),
                                   .type = types[option->type],
                                   .offset = option->type == CLI_LIST ? list_at : option->offset,
                                   .min = option->min,
                                   .max = unbounded ? COUNT_MAX : option->max,
                                   .names = option->names,
                                   .help = option->help};
    return field->key != NULL;
}

static enum ph_status move_list(const struct config_field *field, const char *path, const char *from,
                                struct cli_list *out, struct ph_err *err)
{
    struct config_list list;
    memcpy(&list, from, sizeof list);
    if (list.count > CLI_LIST_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%s: %s has %zu items; at most %d are taken", path, field->key,
                       list.count, CLI_LIST_MAX);
    if (list.count > 0)
        out->count = 0;
    while (out->count < list.count) {
        out->items[out->count] = ((char **)list.items)[out->count];
        out->count++;
    }
    return PH_OK;
}

enum ph_status cli_config_read(struct arena *arena, const char *path, const struct cli_usage *usage,
                               const char *const *not_there, void *values, size_t values_bytes,
                               struct ph_err *err)
{
    size_t options = 0, count = 0, lists_at = (values_bytes + 15) & ~(size_t)15;
    while (usage->options[options].flag)
        options++;
    const struct cli_option **keys = arena_calloc(arena, options, sizeof *keys); /* of each field */
    struct config_field *fields = arena_calloc(arena, options + 1, sizeof *fields);
    char *copy = arena_calloc(arena, 1, lists_at + options * sizeof(struct config_list));
    bool ok = keys && fields && copy;
    for (const struct cli_option *option = usage->options; ok && option->flag; option++) {
        if (!is_key(option, not_there))
            continue;
        ok = make_field(arena, option, lists_at + count * sizeof(struct config_list), &fields[count]);
        keys[count++] = option;
    }
    if (!ok)
        return ph_fail(err, PH_ERR_NOMEM, "%s: no memory to read it", path);
    memcpy(copy, values, values_bytes);
    enum ph_status status = config_read(arena, path, fields, copy, err);
    for (size_t i = 0; status == PH_OK && i < count; i++) {
        char *to = (char *)values + keys[i]->offset;
        if (keys[i]->type == CLI_LIST)
            status = move_list(&fields[i], path, copy + fields[i].offset, (struct cli_list *)(void *)to, err);
        else
            memcpy(to, copy + fields[i].offset, sizes[keys[i]->type]);
    }
    return status;
}
