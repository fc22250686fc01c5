/* Any bytes through a schema that nests every type in every other. */
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "base/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct leaf {
    const char *name;
    bool flag;
    int64_t number;
    double ratio;
    int choice;
    const struct json *rest;
};

struct branch {
    const char *name;
    struct leaf leaf;
    struct config_list leaves, texts;
};

struct tree {
    const char *text;
    struct leaf leaf;
    struct config_list list, map, texts;
};

static const char *const choices[] = {"a", "bb", "ccc", NULL};

static const struct config_field leaf_fields[] = {
    {.key = "flag", .type = CONFIG_BOOL, .offset = offsetof(struct leaf, flag)},
    {.key = "number", .type = CONFIG_INT, .offset = offsetof(struct leaf, number), .min = -5, .max = 100},
    {.key = "ratio", .type = CONFIG_DOUBLE, .offset = offsetof(struct leaf, ratio)},
    {.key = "choice", .type = CONFIG_ENUM, .offset = offsetof(struct leaf, choice), .names = choices},
    {.key = "rest", .type = CONFIG_FREE, .offset = offsetof(struct leaf, rest)},
    {0},
};

static const struct config_field branch_fields[] = {
    {.key = "leaf", .type = CONFIG_STRUCT, .offset = offsetof(struct branch, leaf), .fields = leaf_fields},
    {.key = "leaves",
     .type = CONFIG_MAP,
     .offset = offsetof(struct branch, leaves),
     .fields = leaf_fields,
     .item_size = sizeof(struct leaf)},
    {.key = "texts", .type = CONFIG_LIST, .offset = offsetof(struct branch, texts)},
    {0},
};

static const struct config_field tree_fields[] = {
    {.key = "text", .type = CONFIG_STRING, .offset = offsetof(struct tree, text), .required = true},
    {.key = "leaf", .type = CONFIG_STRUCT, .offset = offsetof(struct tree, leaf), .fields = leaf_fields},
    {.key = "list",
     .type = CONFIG_LIST,
     .offset = offsetof(struct tree, list),
     .fields = branch_fields,
     .item_size = sizeof(struct branch)},
    {.key = "map",
     .type = CONFIG_MAP,
     .offset = offsetof(struct tree, map),
     .fields = branch_fields,
     .item_size = sizeof(struct branch)},
    {.key = "texts", .type = CONFIG_LIST, .offset = offsetof(struct tree, texts)},
    {0},
};

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void visit_leaf(const struct leaf *leaf)
{
    require(leaf->number >= -5 && leaf->number <= 100);
    require(leaf->choice >= 0 && leaf->choice < 3);
    struct buf buf;
    buf_init(&buf, 64u << 20);
    json_write(&buf, leaf->rest);
    require(buf_status(&buf) == PH_OK);
    buf_release(&buf);
}

static void visit_branches(const struct config_list *list, bool named)
{
    const struct branch *branches = list->items;
    for (size_t i = 0; i < list->count; i++) {
        require(!named || utf8_valid(branches[i].name, strlen(branches[i].name)));
        visit_leaf(&branches[i].leaf);
        const struct leaf *leaves = branches[i].leaves.items;
        for (size_t k = 0; k < branches[i].leaves.count; k++)
            visit_leaf(&leaves[k]);
        char *const *texts = branches[i].texts.items;
        for (size_t k = 0; k < branches[i].texts.count; k++)
            require(utf8_valid(texts[k], strlen(texts[k])));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct ph_err err = {0};
    struct tree tree = {0};
    arena_init(&arena, 16u << 20);
    enum ph_status status = config_parse(&arena, "fuzz", (const char *)data, size, tree_fields, &tree, &err);
    if (status == PH_OK) {
        require(tree.text && utf8_valid(tree.text, strlen(tree.text)));
        visit_leaf(&tree.leaf);
        visit_branches(&tree.list, false);
        visit_branches(&tree.map, true);
    } else {
        require(err.code == status && strncmp(err.message, "fuzz:", 5) == 0 &&
                utf8_valid(err.message, strlen(err.message)));
    }
    arena_release(&arena);
    return 0;
}
