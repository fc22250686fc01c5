/* Backups below the command: where files are cut, what a list and a chunk may be, who stays. */
#include <sys/stat.h>
#include <zstd.h>

#include "base/mem.h"
#include "ops/backup_int.h"
#include "test_support.h"

#define BYTES ((size_t)4 << 20)

struct fixture {
    char dir[64], repo[96], data[96];
    int64_t now_ms;
    struct clock_source clock;
    struct arena arena;
    struct ph_err err;
};

static int64_t fake_unix_ms(void *ud)
{
    return ((struct fixture *)ud)->now_ms;
}

static uint64_t fake_monotonic_ns(void *ud)
{
    return (uint64_t)((struct fixture *)ud)->now_ms * 1000000;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "/tmp/test_backup.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->repo, sizeof f->repo, "%s/repo", f->dir);
    snprintf(f->data, sizeof f->data, "%s/data", f->dir);
    assert_int_equal(mkdir(f->data, 0700), 0);
    f->now_ms = INT64_C(1767225600000); /* 2026-01-01, a Thursday */
    f->clock = (struct clock_source){fake_monotonic_ns, fake_unix_ms, f};
    arena_init(&f->arena, (size_t)256 << 20);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
    arena_release(&f->arena);
    free(f);
    return 0;
}

static uint8_t *noise(size_t len, uint64_t seed)
{
    struct rng rng;
    uint8_t *bytes = malloc(len);
    rng_init(&rng, seed);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)rng_u64(&rng);
    return bytes;
}

/* ---- Cutting */

static size_t cuts_of(const uint8_t *bytes, size_t len, size_t *ends)
{
    struct cutter cutter;
    size_t count = 0;
    cutter_init(&cutter);
    for (size_t at = 0; at < len;) {
        size_t cut = cutter_cut(&cutter, bytes + at, len - at);
        assert_true(cut > 0 && cut <= CUT_BYTES_MAX && (cut >= 32768 || at + cut == len));
        at += cut;
        ends[count++] = at;
    }
    return count;
}

static void an_insertion_moves_one_cut(void **state)
{
    (void)state;
    size_t before[256], after[256], same = 0;
    uint8_t *bytes = noise(BYTES + 1, 1), *longer = malloc(BYTES + 1);
    size_t count = cuts_of(bytes, BYTES, before);
    assert_in_range(count, BYTES / (256 << 10), BYTES / (64 << 10)); /* 128 KiB in the mean */
    memcpy(longer, bytes, BYTES / 2);
    longer[BYTES / 2] = 7;
    memcpy(longer + BYTES / 2 + 1, bytes + BYTES / 2, BYTES / 2);
    size_t count_after = cuts_of(longer, BYTES + 1, after);
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < count_after; k++)
            same += after[k] == before[i] + (before[i] > BYTES / 2);
    assert_in_range(same, count - 3, count);
    memset(longer, 0, BYTES); /* nothing to cut by: the greatest length */
    assert_int_equal(cuts_of(longer, BYTES, after), BYTES / CUT_BYTES_MAX);
    free(bytes);
    free(longer);
}

/* ---- Names */

static void only_plain_paths_are_safe(void **state)
{
    static const char *const good[] = {"a",     "data/keys.jsonl", "models/a b.gguf", "a/..b/c",
                                       "a/b..", "d/.hidden",       "modèles/x"};
    static const char *const bad[] = {"",      ".",     "..",     "/a",    "a/",
                                      "a//b",  "../a",  "a/../b", "a/..",  "./a",
                                      "a/.",   "a\nb",  "a\\b",   "a\177", ".pharos-restore/x",
                                      "a/./b", "a/b/.."};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(backup_path_is_safe(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(backup_path_is_safe(bad[i], strlen(bad[i])));
    assert_false(backup_path_is_safe("a\0b", 3));
    char long_name[BACKUP_PATH_BYTES_MAX + 1];
    memset(long_name, 'x', sizeof long_name);
    assert_true(backup_path_is_safe(long_name, 255));
    assert_false(backup_path_is_safe(long_name, 256));
    for (size_t i = 100; i < sizeof long_name; i += 100)
        long_name[i] = '/';
    assert_true(backup_path_is_safe(long_name, BACKUP_PATH_BYTES_MAX - 1));
    assert_false(backup_path_is_safe(long_name, BACKUP_PATH_BYTES_MAX));
}

static void an_id_has_one_form(void **state)
{
    char id[BACKUP_ID_BYTES];
    struct digest digest = {{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}};
    (void)state;
    backup_id_make(INT64_C(1795313423042), &digest, id);
    assert_string_equal(id, "20261122T021023042Z-0123456789abcdef");
    assert_true(backup_id_is(id));
    id[30] = 'G';
    assert_false(backup_id_is(id));
    assert_false(backup_id_is("../../20261122T021023Z"));
}

/* ---- Lists */

static void a_list_comes_out_as_it_went_in(void **state)
{
    struct fixture *f = *state;
    struct backup_chunk chunks[2] = {{{{1}}, 5}, {{{2}}, 7}};
    struct backup_rows rows[1] = {{"a \"table\"", 9}};
    const char *left_out[1] = {"a secret"};
    struct backup_entry entries[2] = {{.path = "data/x",
                                       .from = "/x",
                                       .kind = BACKUP_SQLITE,
                                       .bytes = 12,
                                       .mode = 04777,
                                       .rows = rows,
                                       .row_count = 1,
                                       .chunks = chunks,
                                       .chunk_count = 2,
                                       .stamp = {1, 2, 12, -3, 4}},
                                      {.path = "models/y", .from = "y", .kind = BACKUP_GGUF, .mode = 0600}};
    const struct backup_list list = {.created_ms = 5,
                                     .host = "h",
                                     .version = "v",
                                     .left_out = left_out,
                                     .left_out_count = 1,
                                     .entries = entries,
                                     .count = 2};
    struct backup_list read;
    struct buf text;
    buf_init(&text, 1 << 16);
    backup_list_write(&list, &text);
    assert_int_equal(backup_list_parse(&f->arena, text.data, text.len, &read, &f->err), PH_OK);
    assert_int_equal(read.created_ms, 5);
    assert_string_equal(read.left_out[0], "a secret");
    assert_int_equal(read.count, 2);
    const struct backup_entry *x = &read.entries[0];
    assert_string_equal(x->path, "data/x");
    assert_int_equal(x->mode, 0755); /* nobody else writes, nobody gets rights by running it */
    assert_true(file_stamp_equal(&x->stamp, &entries[0].stamp));
    assert_string_equal(x->rows[0].table, "a \"table\"");
    assert_int_equal(x->rows[0].count, 9);
    assert_true(x->chunk_count == 2 && x->chunks[1].bytes == 7 && x->chunks[1].digest.bytes[0] == 2);
    assert_true(read.entries[1].kind == BACKUP_GGUF && read.entries[1].stamp.inode == 0);
    for (size_t len = 0; len < text.len; len++)
        assert_int_not_equal(backup_list_parse(&f->arena, text.data, len, &read, &f->err), PH_OK);
    buf_release(&text);
}

/* ---- Chunks */

static void open_repository(struct fixture *f, struct backup_place *at, struct repository *repository)
{
    *at = (struct backup_place){.dir = f->repo, .clock = &f->clock};
    assert_int_equal(repository_open(repository, at, REPOSITORY_MAKE, &f->err), PH_OK);
}

static struct digest digest_of(struct fixture *f, const void *bytes, size_t len)
{
    struct digest digest;
    assert_int_equal(seal_digest(bytes, len, &digest, &f->err), PH_OK);
    return digest;
}

static void no_bit_of_a_chunk_changes_unseen(void **state)
{
    struct fixture *f = *state;
    struct backup_place at;
    struct repository repository;
    open_repository(f, &at, &repository);
    uint8_t *bytes = noise(300, 2), out[600] = {0};
    for (int packs = 0; packs < 2; packs++) {
        uint8_t content[600] = {0}; /* the second half packs */
        char path[PATH_BYTES_MAX];
        memcpy(content, bytes, 300);
        bool helped = packs != 0;
        uint64_t stored = 0;
        struct backup_chunk chunk = {digest_of(f, content, sizeof content), sizeof content};
        assert_int_equal(
            chunk_write(&repository, &chunk.digest, content, sizeof content, &helped, &stored, &f->err),
            PH_OK);
        assert_true(helped == (packs != 0) && (stored < sizeof content) == helped);
        assert_int_equal(chunk_read(&repository, &chunk, out, &f->err), PH_OK);
        assert_memory_equal(out, content, sizeof content);
        chunk_path(&repository, &chunk.digest, path);
        struct file_at file;
        assert_int_equal(file_at_open(&file, path, true, &f->err), PH_OK);
        for (uint64_t i = 0; i < stored; i++)
            for (unsigned bit = 0; bit < 8; bit++) {
                uint8_t byte, flipped;
                size_t got;
                assert_int_equal(file_at_read(&file, i, &byte, 1, &got, &f->err), PH_OK);
                flipped = (uint8_t)(byte ^ 1u << bit);
                assert_int_equal(file_at_write(&file, i, &flipped, 1, &f->err), PH_OK);
                assert_int_equal(chunk_read(&repository, &chunk, out, &f->err), PH_ERR_FORMAT);
                assert_int_equal(file_at_write(&file, i, &byte, 1, &f->err), PH_OK);
            }
        assert_int_equal(file_at_write(&file, stored, "", 1, &f->err), PH_OK);
        assert_int_equal(chunk_read(&repository, &chunk, out, &f->err), PH_ERR_FORMAT);
        file_at_close(&file);
    }
    free(bytes);
    repository_close(&repository);
}

/* A frame that says it is small and is not, or that is as large as it says. */
static void a_bomb_is_refused(void **state)
{
    struct fixture *f = *state;
    struct backup_place at;
    struct repository repository;
    open_repository(f, &at, &repository);
    size_t bytes = (size_t)64 << 20, room = ZSTD_compressBound(bytes);
    uint8_t *zeroes = calloc(1, bytes), *file = malloc(room + 33), *out = malloc(BACKUP_CHUNK_BYTES_MAX);
    struct backup_chunk chunk = {digest_of(f, zeroes, bytes), BACKUP_CHUNK_BYTES_MAX};
    size_t len = ZSTD_compress(file + 33, room, zeroes, bytes, 1);
    assert_true(len < 100000);
    file[0] = 1;
    struct digest sum = digest_of(f, file + 33, len);
    memcpy(file + 1, sum.bytes, sizeof sum.bytes);
    char path[PATH_BYTES_MAX], dir[PATH_BYTES_MAX];
    chunk_path(&repository, &chunk.digest, path);
    snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(path, '/') - path), path);
    assert_int_equal(file_make_private_dir(dir, &f->err), PH_OK);
    assert_int_equal(file_write_atomic(path, file, len + 33, 0600, &f->err), PH_OK);
    assert_int_equal(chunk_read(&repository, &chunk, out, &f->err), PH_ERR_FORMAT);
    assert_int_equal(chunk_length(&repository, &chunk.digest, &chunk.bytes, &f->err), PH_ERR_FORMAT);
    free(zeroes);
    free(file);
    free(out);
    repository_close(&repository);
}

/* ---- Who stays */

static void make_snapshot(struct fixture *f, char id[BACKUP_ID_BYTES])
{
    char path[128], text[64];
    struct backup_set set = {.arena = &f->arena};
    struct backup_made made;
    snprintf(path, sizeof path, "%s/file", f->data);
    snprintf(text, sizeof text, "of %lld", (long long)f->now_ms);
    assert_int_equal(file_write_atomic(path, text, strlen(text), 0600, &f->err), PH_OK);
    assert_int_equal(backup_set_add_data(&set, f->data, NULL, 0, &f->err), PH_OK);
    const struct backup_create create = {
        .at = {.dir = f->repo, .clock = &f->clock}, .set = &set, .version = "test"};
    assert_int_equal(backup_create(&create, &made, &f->err), PH_OK);
    memcpy(id, made.id, BACKUP_ID_BYTES);
}

struct decisions {
    char kept[64][BACKUP_ID_BYTES];
    size_t count;
};

static void on_decided(void *ud, const struct backup_snapshot *snapshot, const char *why)
{
    struct decisions *decisions = ud;
    if (why)
        memcpy(decisions->kept[decisions->count++], snapshot->id, BACKUP_ID_BYTES);
}

static void rules_keep_the_newest_of_each_span(void **state)
{
    struct fixture *f = *state;
    char ids[40][BACKUP_ID_BYTES];
    for (int i = 0; i < 40; i++) { /* every 12 hours, 2026-01-01 to 2026-01-20 */
        make_snapshot(f, ids[i]);
        f->now_ms += CLOCK_MS_PER_DAY / 2;
    }
    static const struct {
        struct backup_prune rules;
        size_t kept[8]; /* newest first, 99 ends */
    } cases[] = {
        {{.keep_last = 2}, {39, 38, 99}},
        {{.keep = {[BACKUP_DAILY] = 3}}, {39, 37, 35, 99}},
        {{.keep = {[BACKUP_WEEKLY] = 3}}, {39, 35, 21, 99}}, /* Sundays: 18th, 11th */
        {{.keep = {[BACKUP_MONTHLY] = 5}}, {39, 99}},
        {{.keep_last = 1, .keep = {2, 1, 1, 1}}, {39, 37, 99}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct decisions decisions = {.count = 0};
        struct backup_prune prune = cases[i].rules;
        struct backup_pruned done;
        prune.at = (struct backup_place){.dir = f->repo, .clock = &f->clock, .ud = &decisions};
        prune.dry_run = true;
        prune.decided = on_decided;
        assert_int_equal(backup_prune(&prune, &done, &f->err), PH_OK);
        size_t n = 0;
        for (; cases[i].kept[n] != 99; n++)
            assert_string_equal(decisions.kept[n], ids[cases[i].kept[n]]);
        assert_int_equal(decisions.count, n);
        assert_int_equal(done.removed, 40 - n);
    }
}

static size_t prune_to_one(struct fixture *f, int64_t grace_ms)
{
    struct backup_pruned done;
    const struct backup_prune prune = {
        .at = {.dir = f->repo, .clock = &f->clock}, .keep_last = 1, .grace_ms = grace_ms};
    assert_int_equal(backup_prune(&prune, &done, &f->err), PH_OK);
    return (size_t)done.deleted_chunks;
}

static void a_chunk_used_again_begins_to_wait_again(void **state)
{
    struct fixture *f = *state;
    char id[BACKUP_ID_BYTES];
    const int64_t first_ms = f->now_ms, grace_ms = 1000;
    make_snapshot(f, id);
    f->now_ms += 10;
    make_snapshot(f, id);
    assert_int_equal(prune_to_one(f, grace_ms), 0); /* the first one's chunk is marked */
    f->now_ms = first_ms;
    make_snapshot(f, id); /* it is used again ... */
    f->now_ms = first_ms + 5000;
    make_snapshot(f, id);
    assert_int_equal(prune_to_one(f, grace_ms), 0); /* ... and from now on not any more */
    f->now_ms += 999;
    assert_int_equal(prune_to_one(f, grace_ms), 0);
    f->now_ms += 1;
    assert_int_equal(prune_to_one(f, grace_ms), 2);
    assert_int_equal(prune_to_one(f, 0), 0);
    f->now_ms = first_ms; /* a clock that was set back deletes nothing */
    assert_int_equal(prune_to_one(f, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_insertion_moves_one_cut),
        cmocka_unit_test(only_plain_paths_are_safe),
        cmocka_unit_test(an_id_has_one_form),
        cmocka_unit_test_setup_teardown(a_list_comes_out_as_it_went_in, setup, teardown),
        cmocka_unit_test_setup_teardown(no_bit_of_a_chunk_changes_unseen, setup, teardown),
        cmocka_unit_test_setup_teardown(a_bomb_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(rules_keep_the_newest_of_each_span, setup, teardown),
        cmocka_unit_test_setup_teardown(a_chunk_used_again_begins_to_wait_again, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
