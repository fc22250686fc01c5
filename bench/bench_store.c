/* How fast the store is, and contexts from it: build/bench_store [MESSAGES] [DIR]. Messages are dialogues of
 * ../shared/data where it is there, each appended by itself; every one of them is durable when its rate is
 * taken. Says beside it what the disk gives: one sync after another.
 * Then, with those of a thousand others around them, three users: one of 700 messages, one of 50,000 in a
 * hundred conversations, one of 50,000 in a single one; and what the station's door (memory.h) takes for a
 * context, for a turn of a chat, and for a conversation that is in memory or not. Contexts in CPU time of the
 * thread, which other programs do not lengthen much; loads by the clock. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <uv.h>
#include <zstd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/json.h"
#include "memory/memory.h"
#include "memory/store.h"

#define DATA "../shared/data/sgd_dialogues.jsonl.zst"
#define USERS 1000
#define LONG_CONVERSATIONS 20
#define LONG_MESSAGES 700
#define POINTS 20000
#define LIFE_MESSAGES 50000 /* of one user */
#define LIFE_PART 500       /* ... of which so many are a conversation */
#define QUESTIONS 200
#define LOADS 20

static void die(const char *what, const struct ph_err *err)
{
    fprintf(stderr, "bench_store: %s: %s\n", what, err ? err->message : "failed");
    exit(1);
}

static double now_s(void)
{
    return (double)uv_hrtime() * 1e-9;
}

/* ---- Texts */

struct texts {
    struct arena arena;
    const char **items;
    size_t count, bytes;
};

static void add_dialogue(struct texts *texts, const char *line, size_t len)
{
    struct json *dialogue = NULL;
    if (json_parse(&texts->arena, line, len, &dialogue, NULL) != PH_OK)
        return;
    JSON_EACH (turn, json_get(dialogue, "turns"))
        if (texts->count < 400000)
            texts->items[texts->count++] = json_text(json_get(turn, "text"), "");
}

static void load_texts(struct texts *texts)
{
    struct buf packed;
    arena_init(&texts->arena, (size_t)4 << 30);
    texts->items = arena_calloc(&texts->arena, 400000, sizeof *texts->items);
    buf_init(&packed, (size_t)1 << 30);
    if (file_read(DATA, &packed, NULL) == PH_OK) {
        size_t room = (size_t)256 << 20;
        char *plain = arena_alloc(&texts->arena, room);
        size_t len = ZSTD_decompress(plain, room, packed.data, packed.len), at = 0;
        while (!ZSTD_isError(len) && at < len) {
            const char *end = memchr(plain + at, '\n', len - at);
            size_t stop = end ? (size_t)(end - plain) : len;
            add_dialogue(texts, plain + at, stop - at);
            at = stop + 1;
        }
    }
    buf_release(&packed);
    for (size_t i = texts->count; texts->count == 0 && i < 400000; i++) {
        char *text = arena_alloc(&texts->arena, 80);
        snprintf(text, 80, "I would like %zu seats for the %zuth of March, please.", i % 9, i % 31);
        texts->items[i] = text;
        texts->count += i == 399999 ? 400000 : 0;
    }
}

/* ---- Ingest */

struct tally {
    _Atomic size_t done, failed;
};

static void on_done(void *ud, enum ph_status status, const struct store_result *result,
                    const struct ph_err *err)
{
    struct tally *tally = ud;
    (void)result;
    (void)err;
    tally->failed += status != PH_OK;
    tally->done++;
}

static void submit(struct store *store, struct tally *tally, const char *user, const char *key,
                   const struct store_message *messages, size_t count)
{
    struct ph_err err;
    struct store_write write = {
        .kind = STORE_APPEND,
        .u.append = {.user = user, .key = key, .messages = messages, .count = count, .at = STORE_AT_END}};
    enum ph_status status;
    while ((status = store_submit(store, &write, (struct store_done){on_done, tally}, &err)) == PH_ERR_BUSY)
        uv_sleep(1);
    if (status != PH_OK)
        die("append", &err);
}

static struct store_message message_of(struct texts *texts, size_t i)
{
    const char *text = texts->items[i % texts->count];
    struct store_message message = {.role = i % 2 ? "assistant" : "user",
                                    .content = text,
                                    .content_len = strlen(text),
                                    .created_ms = 1600000000000 + (int64_t)i};
    texts->bytes += message.content_len;
    return message;
}

static void ingest(struct store *store, struct texts *texts, size_t count)
{
    struct tally tally = {0};
    char user[32], key[32];
    double start = now_s();
    for (size_t i = 0; i < count; i++) {
        struct store_message message = message_of(texts, i);
        snprintf(user, sizeof user, "user %zu", i / 20 % USERS);
        snprintf(key, sizeof key, "c%zu", i / 20);
        submit(store, &tally, user, key, &message, 1);
    }
    while (tally.done < count)
        uv_sleep(1);
    double took = now_s() - start;
    printf("ingest      %zu messages, one write each: %.0f durable messages/s (%.1f s, %zu failed)\n", count,
           (double)count / took, took, tally.failed);
}

static void ingest_long(struct store *store, struct texts *texts)
{
    struct tally tally = {0};
    char key[32];
    for (size_t i = 0; i < LONG_CONVERSATIONS * LONG_MESSAGES;
         i++) { /* their parts lie far from one another */
        struct store_message message = message_of(texts, i * 7);
        snprintf(key, sizeof key, "long %zu", i % LONG_CONVERSATIONS);
        submit(store, &tally, "long", key, &message, 1);
    }
    while (tally.done < LONG_CONVERSATIONS * LONG_MESSAGES)
        uv_sleep(1);
}

/* ---- Reading */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_times(const char *what, double *us, size_t count)
{
    qsort(us, count, sizeof *us, by_value);
    printf("%-11s p50 %.1f us, p99 %.1f us\n", what, us[count / 2], us[count * 99 / 100]);
}

static void read_points(struct store *store, size_t count)
{
    static double us[POINTS];
    struct arena arena;
    struct ph_err err;
    struct rng rng;
    struct store_user users[64];
    arena_init(&arena, (size_t)1 << 30);
    rng_init(&rng, 7);
    for (size_t i = 0; i < 64; i++) {
        char name[32];
        snprintf(name, sizeof name, "user %zu", i * 7 % (count / 20 < USERS ? count / 20 : USERS));
        if (store_find_user(store, &arena, name, &users[i], &err) != PH_OK)
            die(name, &err);
    }
    for (size_t i = 0; i < POINTS; i++) {
        char key[32];
        struct store_conversation found;
        struct store_messages got;
        struct arena small;
        snprintf(key, sizeof key, "c%zu", (size_t)(rng_double(&rng) * (double)(count / 20)));
        if (store_find_conversation(store, &arena, NULL, key, &found, &err) != PH_OK)
            die(key, &err);
        arena_init(&small, (size_t)1 << 20);
        double start = now_s();
        if (store_read_numbers(store, &small, found.user, &found.last_message, 1, &got, &err) != PH_OK ||
            got.items[0].number == 0)
            die("read", &err);
        us[i] = (now_s() - start) * 1e6;
        arena_release(&small);
    }
    print_times("point read", us, POINTS);
    arena_release(&arena);
}

static void forget_file(const char *dir)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/store.db", dir);
    int fd = open(path, O_RDONLY);
    if (fd >= 0) {
        (void)fdatasync(fd);
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        close(fd);
    }
}

static struct store *open_store(const char *dir)
{
    struct store *store = NULL;
    struct ph_err err;
    struct store_params params = {.dir = dir, .clock = clock_system()};
    if (store_open(&store, &params, &err) != PH_OK)
        die("open", &err);
    return store;
}

static void read_long(const char *dir)
{
    double us[LONG_CONVERSATIONS];
    struct ph_err err;
    struct store *store = NULL;
    for (size_t i = 0; i < LONG_CONVERSATIONS; i++) {
        char key[32];
        struct arena arena;
        struct store_conversation found;
        struct store_messages got;
        store_close(store);
        forget_file(dir); /* neither in our cache nor in the system's */
        store = open_store(dir);
        arena_init(&arena, (size_t)64 << 20);
        snprintf(key, sizeof key, "long %zu", i);
        double start = now_s();
        if (store_find_conversation(store, &arena, "long", key, &found, &err) != PH_OK)
            die(key, &err);
        struct store_range range = {.conversation = found.number};
        if (store_read_messages(store, &arena, &range, &got, &err) != PH_OK || got.count != LONG_MESSAGES)
            die("read", &err);
        us[i] = (now_s() - start) * 1e6;
        arena_release(&arena);
    }
    store_close(store);
    print_times("700 cold", us, LONG_CONVERSATIONS);
}

static void print_disk(const char *dir)
{
    char path[4096], page[4096] = {0};
    snprintf(path, sizeof path, "%s/disk", dir);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    double start = now_s();
    for (int i = 0; i < 100 && fd >= 0; i++)
        if (pwrite(fd, page, sizeof page, (off_t)i * 4096) < 0 || fdatasync(fd) < 0)
            break;
    printf("disk        %.0f us a write with its sync\n", (now_s() - start) * 1e4);
    close(fd);
    unlink(path);
}

/* ---- Contexts */

struct asking {
    const char *what, *user, *conversation; /* NULL: all of the user's */
    size_t messages;
};

static const struct asking askings[] = {{"700", "short", "short", LONG_MESSAGES},
                                        {"50k of 100", "many", NULL, LIFE_MESSAGES},
                                        {"50k of one", "life", "life", LIFE_MESSAGES}};

/* Dialogues as they follow each other, those of one user after another's. */
static void ingest_lives(struct store *store, struct texts *texts)
{
    struct tally tally = {0};
    size_t sent = 0, text = 0;
    for (size_t u = 0; u < sizeof askings / sizeof *askings; u++)
        for (size_t i = 0; i < askings[u].messages; i++, sent++) {
            struct store_message message = message_of(texts, text++);
            char key[32];
            snprintf(key, sizeof key, "many %zu", i / LIFE_PART);
            submit(store, &tally, askings[u].user, askings[u].conversation ? askings[u].conversation : key,
                   &message, 1);
        }
    while (tally.done < sent)
        uv_sleep(1);
}

static double thread_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static struct memory *open_memory(const char *dir)
{
    struct memory *memory;
    struct ph_err err;
    struct memory_params params = {.dir = dir, .clock = clock_system()};
    if (memory_create(&memory, &params, &err) != PH_OK)
        die("memory", &err);
    return memory;
}

static void build_context(struct memory *memory, const struct asking *asking, const char *query,
                          enum context_strategy strategy, uint32_t budget)
{
    struct arena arena;
    struct ph_err err;
    struct memory_context context;
    struct memory_context_params params = {.user = asking->user,
                                           .conversation = asking->conversation,
                                           .query = query,
                                           .query_len = strlen(query),
                                           .budget_tokens = budget,
                                           .strategy = strategy};
    arena_init(&arena, (size_t)64 << 20);
    if (memory_context_build(memory, &arena, &params, &context, &err) != PH_OK || context.count == 0)
        die("context", &err);
    arena_release(&arena);
}

/* budget 0: all there is. */
static void open_turn(struct memory *memory, const char *user, const char *conversation, const char *query,
                      uint32_t budget, size_t messages)
{
    struct ph_err err;
    struct memory_turn turn;
    struct chat_message message = {.role = CHAT_USER, .content = {query, strlen(query)}};
    struct chat_request request = {.messages = &message, .message_count = 1};
    struct memory_turn_params params = {.user = user,
                                        .conversation = conversation,
                                        .request = &request,
                                        .budget_tokens = budget,
                                        .keep_recent = 4,
                                        .strategy = CONTEXT_STRATEGY_COUNT};
    if (memory_turn_open(memory, &params, &turn, &err) != PH_OK || turn.history != messages)
        die("turn", &err);
    memory_turn_release(&turn);
}

static void print_ms(const char *what, const char *how, double *us, size_t count)
{
    qsort(us, count, sizeof *us, by_value);
    printf("%-11s %-22s p50 %7.3f ms, p95 %7.3f ms, p99 %7.3f ms\n", what, how, us[count / 2] * 1e-3,
           us[count * 95 / 100] * 1e-3, us[count * 99 / 100] * 1e-3);
}

static void ask(struct memory *memory, struct texts *texts, const struct asking *asking)
{
    static const uint32_t budgets[] = {1024, 4096};
    static const enum context_strategy strategies[] = {CONTEXT_HYBRID, CONTEXT_SPT};
    static double us[QUESTIONS];
    char how[64];
    double start = now_s();
    build_context(memory, asking, texts->items[0], CONTEXT_HYBRID, 1024);
    printf("%-11s first, makes its index %.1f ms, by the clock\n", asking->what, (now_s() - start) * 1e3);
    for (size_t s = 0; s < 2; s++)
        for (size_t b = 0; b < 2; b++) {
            for (size_t i = 0; i < QUESTIONS; i++) {
                start = thread_s();
                build_context(memory, asking, texts->items[(i * 977 + 13) % texts->count], strategies[s],
                              budgets[b]);
                us[i] = (thread_s() - start) * 1e6;
            }
            snprintf(how, sizeof how, "%s at %u", context_strategy_name(strategies[s]), budgets[b]);
            print_ms(asking->what, how, us, QUESTIONS);
        }
    for (size_t i = 0; asking->conversation && i < QUESTIONS; i++) {
        const char *query = texts->items[(i * 977 + 13) % texts->count];
        start = thread_s();
        open_turn(memory, asking->user, asking->conversation, query, 4096, asking->messages);
        us[i] = (thread_s() - start) * 1e6;
    }
    if (asking->conversation)
        print_ms(asking->what, "turn of a chat at 4096", us, QUESTIONS);
}

/* A conversation of 700 as a whole: from the disk, then from memory. */
static void load_conversations(const char *dir)
{
    static double cold[LOADS], hot[LOADS];
    for (size_t i = 0; i < LOADS; i++) {
        char key[32];
        forget_file(dir);
        struct memory *memory = open_memory(dir);
        struct store *store;
        struct ph_err err;
        if (memory_store(memory, &store, &err) != PH_OK)
            die("open", &err);
        snprintf(key, sizeof key, "long %zu", i);
        double start = now_s();
        open_turn(memory, "long", key, "hello", 0, LONG_MESSAGES);
        double loaded = now_s();
        open_turn(memory, "long", key, "hello", 0, LONG_MESSAGES);
        hot[i] = (now_s() - loaded) * 1e6;
        cold[i] = (loaded - start) * 1e6;
        memory_free(memory);
    }
    print_ms("load of 700", "cold, by the clock", cold, LOADS);
    print_ms("load of 700", "hot, by the clock", hot, LOADS);
}

static void measure_contexts(const char *dir, struct texts *texts)
{
    struct memory *memory = open_memory(dir);
    struct store *store;
    struct ph_err err;
    if (memory_store(memory, &store, &err) != PH_OK)
        die("open", &err);
    for (size_t i = 0; i < sizeof askings / sizeof *askings; i++)
        ask(memory, texts, &askings[i]);
    memory_free(memory);
    load_conversations(dir);
}

int main(int argc, char **argv)
{
    size_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    char made[] = "/tmp/bench-store-XXXXXX";
    const char *dir = argc > 2 ? argv[2] : mkdtemp(made);
    static struct texts texts;
    struct store_stat stat;
    struct ph_err err;
    load_texts(&texts);
    print_disk(dir);
    struct store *store = open_store(dir);
    ingest(store, &texts, count);
    ingest_long(store, &texts);
    ingest_lives(store, &texts);
    struct store_write tidy = {.kind = STORE_TIDY};
    double start = now_s();
    if (store_write(store, &tidy, NULL, &err) != PH_OK)
        die("tidy", &err);
    printf("tidy        %.1f s\n", now_s() - start);
    read_points(store, count);
    if (store_stat(store, &stat, NULL, NULL, &err) != PH_OK)
        die("stat", &err);
    store_close(store);
    read_long(dir);
    printf("size        %.1f MB of text, %.1f MB packed (%.0f %%), %.1f MB file\n",
           (double)texts.bytes * 1e-6, (double)stat.stored_bytes * 1e-6,
           100 * (double)stat.stored_bytes / (double)texts.bytes, (double)stat.file_bytes * 1e-6);
    measure_contexts(dir, &texts);
    if (argc <= 2 && file_remove_dir(dir, &err) != PH_OK)
        die("clean up", &err);
    arena_release(&texts.arena);
    return 0;
}
