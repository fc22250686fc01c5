/* Named shapes and hardware: YAML, read through tables. Files come one after the other; of two rows of one
 * name the last counts. A shape's sizes are checked here, so that what is computed from them neither
 * overflows nor divides by zero. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "base/limits.h"
#include "ops/estimate_int.h"

#define NAME_BYTES_MAX 96
#define FILES_MAX 17 /* the shipped one and 16 more */
#define GIB 1073741824.0

struct card {
    char *key, *name, *about;
    int kind;
    bool shared_memory;
    double memory_gib, gb_per_s, link_gb_per_s, f32, f16, int8, power_w, price_usd;
};

struct host {
    char *key, *cpu, *isa, *about;
    int64_t cores, threads;
    double memory_gib, gb_per_s, f32, bf16, int8, disk_gb_per_s, load_w, idle_w, price_usd;
    struct config_list cards;
};

struct hardware_file {
    struct config_list cards, machines;
};

struct shape_file {
    struct config_list shapes;
};

struct estimate_data {
    struct shape_file shapes[FILES_MAX];
    struct hardware_file hardware[FILES_MAX];
    size_t shape_files, hardware_files;
};

static const char *const kind_names[] = {"gpu", "npu", NULL};

#define SIZE(member_, max_)                                                                       \
    {                                                                                             \
        .key = #member_, .type = CONFIG_INT, .offset = offsetof(struct shape, member_), .min = 1, \
        .max = (max_)                                                                             \
    }
#define FLAG(member_)                                                                   \
    {                                                                                   \
        .key = #member_, .type = CONFIG_BOOL, .offset = offsetof(struct shape, member_) \
    }

static const struct config_field shape_fields[] = {
    SIZE(layers, MODEL_LAYERS_MAX),
    SIZE(width, MODEL_DIM_MAX),
    SIZE(heads, MODEL_HEADS_MAX),
    SIZE(kv_heads, MODEL_HEADS_MAX),
    SIZE(head_dim, 4096),
    SIZE(ffn, MODEL_DIM_MAX),
    SIZE(vocab, VOCAB_TOKENS_MAX),
    SIZE(context, MODEL_CONTEXT_MAX),
    SIZE(experts, MODEL_EXPERTS_MAX),
    SIZE(experts_used, MODEL_EXPERTS_MAX),
    SIZE(expert_ffn, MODEL_DIM_MAX),
    SIZE(norms, 8),
    SIZE(window, MODEL_CONTEXT_MAX),
    SIZE(window_period, MODEL_LAYERS_MAX),
    SIZE(parameters, 1e15),
    FLAG(tied),
    FLAG(plain),
    FLAG(qkv_bias),
    FLAG(biases),
    FLAG(qk_norm),
    FLAG(fused),
    {.key = "aliases", .type = CONFIG_LIST, .offset = offsetof(struct shape, aliases)},
    {.key = "about", .type = CONFIG_STRING, .offset = offsetof(struct shape, about)},
    {0},
};

static const struct config_field shape_file_fields[] = {
    {.key = "shapes",
     .type = CONFIG_MAP,
     .offset = offsetof(struct shape_file, shapes),
     .required = true,
     .fields = shape_fields,
     .item_size = sizeof(struct shape)},
    {0},
};

#define TEXT(struct_, member_)                                                              \
    {                                                                                       \
        .key = #member_, .type = CONFIG_STRING, .offset = offsetof(struct struct_, member_) \
    }
#define NUMBER(struct_, member_)                                                                       \
    {                                                                                                  \
        .key = #member_, .type = CONFIG_DOUBLE, .offset = offsetof(struct struct_, member_), .min = 0, \
        .max = 1e7                                                                                     \
    }

static const struct config_field card_fields[] = {
    TEXT(card, name),
    TEXT(card, about),
    {.key = "kind", .type = CONFIG_ENUM, .offset = offsetof(struct card, kind), .names = kind_names},
    {.key = "shared_memory", .type = CONFIG_BOOL, .offset = offsetof(struct card, shared_memory)},
    NUMBER(card, memory_gib),
    NUMBER(card, gb_per_s),
    NUMBER(card, link_gb_per_s),
    NUMBER(card, f32),
    NUMBER(card, f16),
    NUMBER(card, int8),
    NUMBER(card, power_w),
    NUMBER(card, price_usd),
    {0},
};

static const struct config_field host_fields[] = {
    TEXT(host, cpu),
    TEXT(host, isa),
    TEXT(host, about),
    {.key = "cores", .type = CONFIG_INT, .offset = offsetof(struct host, cores), .min = 1, .max = 4096},
    {.key = "threads", .type = CONFIG_INT, .offset = offsetof(struct host, threads), .min = 1, .max = 4096},
    NUMBER(host, memory_gib),
    NUMBER(host, gb_per_s),
    NUMBER(host, f32),
    NUMBER(host, bf16),
    NUMBER(host, int8),
    NUMBER(host, disk_gb_per_s),
    NUMBER(host, load_w),
    NUMBER(host, idle_w),
    NUMBER(host, price_usd),
    {.key = "cards", .type = CONFIG_LIST, .offset = offsetof(struct host, cards)},
    {0},
};

static const struct config_field hardware_file_fields[] = {
    {.key = "cards",
     .type = CONFIG_MAP,
     .offset = offsetof(struct hardware_file, cards),
     .fields = card_fields,
     .item_size = sizeof(struct card)},
    {.key = "machines",
     .type = CONFIG_MAP,
     .offset = offsetof(struct hardware_file, machines),
     .fields = host_fields,
     .item_size = sizeof(struct host)},
    {0},
};

/* ---- Reading */

static enum ph_status check_shape(const char *source, const struct shape *s, struct ph_err *err)
{
    const char *wrong = NULL;
    if (!s->layers || !s->width || !s->heads || !s->kv_heads || !s->head_dim || !s->vocab)
        wrong = "layers, width, heads, kv_heads, head_dim and vocab must be given";
    else if (s->heads % s->kv_heads != 0)
        wrong = "heads must be a multiple of kv_heads";
    else if (s->head_dim % 2 != 0)
        wrong = "head_dim must be even";
    else if (s->experts && (!s->experts_used || !s->expert_ffn || s->experts_used > s->experts))
        wrong = "experts need expert_ffn, and experts_used between 1 and their number";
    else if (!s->experts && !s->ffn)
        wrong = "ffn, or experts, must be given";
    else if (s->window_period && !s->window)
        wrong = "window_period needs a window";
    return wrong ? ph_fail(err, PH_ERR_ARG, "%s: shape %s: %s", source, s->name, wrong) : PH_OK;
}

static enum ph_status add_shapes(struct estimate_data *data, struct arena *arena, const char *source,
                                 const char *text, size_t len, struct ph_err *err)
{
    if (data->shape_files == FILES_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%s: more than %d files of shapes", source, FILES_MAX - 1);
    struct shape_file *file = &data->shapes[data->shape_files];
    enum ph_status status = config_parse(arena, source, text, len, shape_file_fields, file, err);
    struct shape *shapes = file->shapes.items;
    for (size_t i = 0; status == PH_OK && i < file->shapes.count; i++)
        status = check_shape(source, &shapes[i], err);
    data->shape_files += status == PH_OK;
    return status;
}

static const struct card *card_find(const struct estimate_data *data, const char *name, size_t len)
{
    for (size_t f = data->hardware_files; f-- > 0;) {
        const struct card *cards = data->hardware[f].cards.items;
        for (size_t i = 0; i < data->hardware[f].cards.count; i++)
            if (strlen(cards[i].key) == len && strncasecmp(cards[i].key, name, len) == 0)
                return &cards[i];
    }
    return NULL;
}

static const struct host *host_find(const struct estimate_data *data, const char *name, size_t len)
{
    for (size_t f = data->hardware_files; f-- > 0;) {
        const struct host *hosts = data->hardware[f].machines.items;
        for (size_t i = 0; i < data->hardware[f].machines.count; i++)
            if (strlen(hosts[i].key) == len && strncasecmp(hosts[i].key, name, len) == 0)
                return &hosts[i];
    }
    return NULL;
}

static enum ph_status add_hardware(struct estimate_data *data, struct arena *arena, const char *source,
                                   const char *text, size_t len, struct ph_err *err)
{
    if (data->hardware_files == FILES_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "%s: more than %d files of hardware", source, FILES_MAX - 1);
    struct hardware_file *file = &data->hardware[data->hardware_files];
    enum ph_status status = config_parse(arena, source, text, len, hardware_file_fields, file, err);
    if (status != PH_OK)
        return status;
    data->hardware_files++;
    const struct host *hosts = file->machines.items;
    for (size_t i = 0; i < file->machines.count; i++) {
        char *const *names = hosts[i].cards.items;
        for (size_t k = 0; k < hosts[i].cards.count; k++)
            if (!card_find(data, names[k], strlen(names[k])))
                return ph_fail(err, PH_ERR_ARG,
                               "%s: machine %s: there is no card \"%.60s\"; add it under cards", source,
                               hosts[i].key, names[k]);
    }
    return PH_OK;
}

static enum ph_status add_file(struct estimate_data *data, struct arena *arena, const char *path,
                               enum ph_status (*add)(struct estimate_data *, struct arena *, const char *,
                                                     const char *, size_t, struct ph_err *),
                               struct ph_err *err)
{
    struct buf text;
    buf_init(&text, CONFIG_BYTES_MAX);
    enum ph_status status = file_read(path, &text, err);
    if (status == PH_OK)
        status = add(data, arena, path, text.data ? text.data : "", text.len, err);
    buf_release(&text);
    return status;
}

static enum ph_status make_data(struct estimate_data **out, struct arena *arena, struct ph_err *err)
{
    *out = arena_calloc(arena, 1, sizeof **out);
    return *out ? PH_OK : ph_fail(err, PH_ERR_NOMEM, "no memory for shapes and hardware");
}

enum ph_status estimate_data_open(struct estimate_data **out, struct arena *arena,
                                  const struct estimate_files *files, struct ph_err *err)
{
    struct estimate_bytes shapes = shapes_shipped(), hardware = hardware_shipped();
    enum ph_status status = make_data(out, arena, err);
    if (status == PH_OK)
        status = add_shapes(*out, arena, "shapes.yaml", shapes.text, shapes.len, err);
    if (status == PH_OK)
        status = add_hardware(*out, arena, "hardware.yaml", hardware.text, hardware.len, err);
    for (size_t i = 0; status == PH_OK && i < files->shape_count; i++)
        status = add_file(*out, arena, files->shapes[i], add_shapes, err);
    for (size_t i = 0; status == PH_OK && i < files->hardware_count; i++)
        status = add_file(*out, arena, files->hardware[i], add_hardware, err);
    return status;
}

enum ph_status estimate_data_parse(struct estimate_data **out, struct arena *arena, const char *shapes,
                                   size_t shapes_len, const char *hardware, size_t hardware_len,
                                   struct ph_err *err)
{
    enum ph_status status = make_data(out, arena, err);
    if (status == PH_OK && shapes)
        status = add_shapes(*out, arena, "shapes", shapes, shapes_len, err);
    if (status == PH_OK && hardware)
        status = add_hardware(*out, arena, "hardware", hardware, hardware_len, err);
    return status;
}

/* ---- Finding */

static bool same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++) {
        char x = *a == ' ' || *a == '_' ? '-' : *a >= 'A' && *a <= 'Z' ? (char)(*a | 32) : *a;
        char y = *b == ' ' || *b == '_' ? '-' : *b >= 'A' && *b <= 'Z' ? (char)(*b | 32) : *b;
        if (x != y)
            return false;
    }
    return *a == *b;
}

static bool answers_to(const struct shape *s, const char *name)
{
    char *const *aliases = s->aliases.items;
    bool found = same_name(s->name, name);
    for (size_t i = 0; i < s->aliases.count; i++)
        found = found || same_name(aliases[i], name);
    return found;
}

const struct shape *shape_find(const struct estimate_data *data, const char *name)
{
    for (size_t f = data->shape_files; f-- > 0;) {
        const struct shape *shapes = data->shapes[f].shapes.items;
        for (size_t i = 0; i < data->shapes[f].shapes.count; i++)
            if (answers_to(&shapes[i], name))
                return &shapes[i];
    }
    return NULL;
}

const char *estimate_shape_name(const struct estimate_data *data, size_t index)
{
    for (size_t f = 0; f < data->shape_files; f++) {
        const struct shape *shapes = data->shapes[f].shapes.items;
        if (index < data->shapes[f].shapes.count)
            return shapes[index].name;
        index -= data->shapes[f].shapes.count;
    }
    return NULL;
}

const char *estimate_hardware_name(const struct estimate_data *data, size_t index)
{
    for (size_t f = 0; f < data->hardware_files; f++) {
        const struct hardware_file *file = &data->hardware[f];
        if (index < file->machines.count)
            return ((const struct host *)file->machines.items)[index].key;
        index -= file->machines.count;
        if (index < file->cards.count)
            return ((const struct card *)file->cards.items)[index].key;
        index -= file->cards.count;
    }
    return NULL;
}

static void list(const struct estimate_data *data, const char *(*name)(const struct estimate_data *, size_t),
                 char *out, size_t cap)
{
    size_t len = 0;
    const char *each;
    out[0] = 0;
    for (size_t i = 0; (each = name(data, i)) && len < cap; i++)
        len += (size_t)snprintf(out + len, cap - len, "%s%s", i ? ", " : "", each);
}

void shape_list(const struct estimate_data *data, char *out, size_t cap)
{
    list(data, estimate_shape_name, out, cap);
}

/* ---- A machine from rows */

static void copy_text(char out[MACHINE_TEXT_BYTES], const char *text)
{
    snprintf(out, MACHINE_TEXT_BYTES, "%s", text ? text : "");
}

static enum ph_status add_card(struct machine *m, const struct card *c, struct ph_err *err)
{
    if (m->device_count == MACHINE_DEVICES_MAX)
        return ph_fail(err, PH_ERR_LIMIT, "more than %d cards in one machine", MACHINE_DEVICES_MAX);
    struct machine_device *d = &m->devices[m->device_count++];
    *d = (struct machine_device){
        .kind = c->kind ? MACHINE_NPU : MACHINE_GPU,
        .shared_memory = c->shared_memory,
        .memory_bytes = (uint64_t)(c->memory_gib * GIB),
        .memory_free_bytes = (uint64_t)(c->memory_gib * GIB),
        .memory_bytes_per_s = c->gb_per_s * 1e9,
        .link_bytes_per_s = c->link_gb_per_s * 1e9,
        .peaks = {.f32 = c->f32 * 1e12, .f16 = c->f16 * 1e12, .int8 = c->int8 * 1e12},
        .power_limit_w = c->power_w,
        .price_usd = c->price_usd,
    };
    copy_text(d->name, c->name ? c->name : c->key);
    if (!m->about[0])
        copy_text(m->about, c->about);
    return PH_OK;
}

static enum ph_status add_host(const struct estimate_data *data, struct machine *m, const struct host *h,
                               struct ph_err *err)
{
    if (m->memory_bytes)
        return ph_fail(err, PH_ERR_ARG, "%s: there is a machine already (%s); only cards can be added",
                       h->key, m->cpu);
    copy_text(m->cpu, h->cpu ? h->cpu : h->key);
    copy_text(m->isa, h->isa ? h->isa : "unknown");
    copy_text(m->about, h->about);
    m->cores = (unsigned)h->cores;
    m->threads = (unsigned)(h->threads ? h->threads : h->cores);
    m->memory_bytes = m->memory_available_bytes = (uint64_t)(h->memory_gib * GIB);
    m->memory_bytes_per_s[0] = h->gb_per_s * 1e9; /* of all its threads together */
    m->memory_points = h->gb_per_s > 0;
    m->peaks = (struct machine_peaks){.f32 = h->f32 * 1e12, .bf16 = h->bf16 * 1e12, .int8 = h->int8 * 1e12};
    m->disk_read_bytes_per_s = h->disk_gb_per_s * 1e9;
    m->load_w = h->load_w;
    m->idle_w = h->idle_w;
    m->price_usd = h->price_usd;
    char *const *names = h->cards.items;
    for (size_t i = 0; i < h->cards.count; i++) {
        enum ph_status status = add_card(m, card_find(data, names[i], strlen(names[i])), err);
        if (status != PH_OK)
            return status;
    }
    return PH_OK;
}

enum ph_status estimate_machine(const struct estimate_data *data, const char *names, struct machine *out,
                                struct ph_err *err)
{
    *out = (struct machine){0};
    copy_text(out->name, names);
    for (const char *at = names; *at;) {
        size_t len = strcspn(at, "+");
        const struct host *host = host_find(data, at, len);
        const struct card *card = host ? NULL : card_find(data, at, len);
        enum ph_status status = PH_OK;
        if (host)
            status = add_host(data, out, host, err);
        else if (card)
            status = add_card(out, card, err);
        else {
            char known[PH_ERR_MESSAGE_MAX - 160];
            list(data, estimate_hardware_name, known, sizeof known);
            status = ph_fail(err, PH_ERR_NOTFOUND,
                             "no hardware is named \"%.*s\": name one with --hardware-file, or %s",
                             (int)(len < 60 ? len : 60), at, known);
        }
        if (status != PH_OK)
            return status;
        at += len + (at[len] == '+');
    }
    return *names ? PH_OK : ph_fail(err, PH_ERR_ARG, "the hardware has no name");
}

void estimate_data_list(const struct estimate_data *data, struct buf *out, bool json)
{
    const char *(*const names[])(const struct estimate_data *, size_t) = {estimate_shape_name,
                                                                          estimate_hardware_name};
    static const char *const titles[] = {"shapes", "hardware"};
    const char *each;
    for (size_t k = 0; k < 2; k++) {
        buf_printf(out, json ? "%s\"%s\":[" : "%s%s\n", json ? k ? "]," : "{" : "", titles[k]);
        for (size_t i = 0; (each = names[k](data, i)) != NULL; i++)
            if (json) {
                buf_puts(out, i ? "," : "");
                json_write_string(out, each, strlen(each));
            } else {
                buf_printf(out, "  %s\n", each);
            }
    }
    if (json)
        buf_puts(out, "]}\n");
}
