/* The room that engines share: who may start, who must leave for it, and what is told. */
#include "provider/provider_room_int.h"
#include "test_support.h"

#define MIB (UINT64_C(1) << 20)

struct fake {
    struct room_member member;
    struct room_view view;
    int left, woken;
    int *order, woken_as; /* how many were woken before it */
};

static void fake_view(const struct room_member *member, struct room_view *out)
{
    *out = ((const struct fake *)(const void *)member)->view;
}

static void fake_leave(struct room_member *member)
{
    struct fake *fake = (struct fake *)member;
    assert_int_equal(fake->view.part, ROOM_IDLE);
    fake->view.part = ROOM_LEAVING;
    fake->left++;
}

static void fake_wake(struct room_member *member)
{
    struct fake *fake = (struct fake *)member;
    fake->woken++;
    if (fake->order)
        fake->woken_as = (*fake->order)++;
}

struct fixture {
    struct provider_room *room;
    uint64_t available;
    struct fake a, b, c, wants;
};

static uint64_t injected(void *ud, uint64_t mapped)
{
    return *(uint64_t *)ud - mapped;
}

static void enter(struct fixture *f, struct fake *fake, enum room_part part, uint64_t since_ns, uint64_t need,
                  uint64_t resident, uint64_t file)
{
    *fake = (struct fake){
        .member = {.view = fake_view, .leave = fake_leave, .wake = fake_wake},
        .view = {
            .part = part, .since_ns = since_ns, .need = need * MIB, .taken = {resident * MIB, file * MIB}}};
    room_enter(f->room, &fake->member);
}

static void open_room(struct fixture *f, uint64_t limit, uint64_t available)
{
    struct ph_err err;
    *f = (struct fixture){.available = available * MIB};
    struct provider_room_params params = {
        .limit_bytes = limit * MIB, .available = injected, .ud = &f->available};
    assert_int_equal(provider_room_create(&f->room, &params, &err), PH_OK);
}

static enum room_answer ask(struct fixture *f, uint64_t need, struct room_figures *out)
{
    struct room_figures unused;
    enter(f, &f->wants, ROOM_AWAY, 0, need, 0, 0);
    enum room_answer answer = room_ask(f->room, &f->wants.member, true, out ? out : &unused);
    room_exit(f->room, &f->wants.member);
    return answer;
}

/* The fixture's memory must not move: the room knows where `available` is. */
static void what_fits_starts(void **state)
{
    (void)state;
    struct fixture f;
    open_room(&f, 0, 100);
    assert_int_equal(ask(&f, 100, NULL), ROOM_YES);
    assert_int_equal(ask(&f, 101, NULL), ROOM_NO);
    assert_int_equal(ask(&f, 0, NULL), ROOM_YES); /* nobody knows what it needs */
    provider_room_free(f.room);
    open_room(&f, 100, 1); /* the operator's word counts, not the system's */
    assert_int_equal(ask(&f, 100, NULL), ROOM_YES);
    assert_int_equal(ask(&f, 101, NULL), ROOM_NO);
    provider_room_free(f.room);
}

static void the_least_recently_used_leaves_first(void **state)
{
    (void)state;
    struct fixture f;
    open_room(&f, 0, 10);
    enter(&f, &f.a, ROOM_IDLE, 300, 50, 50, 0);
    enter(&f, &f.b, ROOM_IDLE, 100, 50, 50, 0);
    enter(&f, &f.c, ROOM_IDLE, 200, 50, 50, 0);
    assert_int_equal(ask(&f, 70, NULL), ROOM_LATER);
    assert_int_equal(f.b.left, 1);
    assert_int_equal(f.c.left, 1);
    assert_int_equal(f.a.left, 0);
    assert_int_equal(ask(&f, 70, NULL), ROOM_LATER); /* they are on their way: nobody else is stopped */
    assert_int_equal(f.a.left, 0);
    f.b.view.part = f.c.view.part = ROOM_AWAY;
    f.available = 110 * MIB;
    assert_int_equal(ask(&f, 70, NULL), ROOM_YES);
    provider_room_free(f.room);
}

static void nobody_is_stopped_in_vain(void **state)
{
    (void)state;
    struct fixture f;
    struct room_figures figures;
    char text[256];
    open_room(&f, 0, 10);
    enter(&f, &f.a, ROOM_IDLE, 1, 50, 50, 0);
    enter(&f, &f.b, ROOM_BUSY, 1, 50, 50, 0);
    assert_int_equal(ask(&f, 200, &figures), ROOM_NO);
    assert_int_equal(ask(&f, 110, NULL), ROOM_LATER); /* when the busy one is idle */
    assert_int_equal(f.a.left, 0);
    assert_int_equal(f.b.left, 0);
    room_say(&figures, text, sizeof text);
    assert_string_equal(text,
                        "it needs 200 MiB; 10 MiB are available, idle engines have 50 MiB, busy ones 50 MiB");
    f.b.view.part = ROOM_IDLE;
    enter(&f, &f.wants, ROOM_AWAY, 0, 110, 0, 0);
    assert_int_equal(room_ask(f.room, &f.wants.member, false, &figures),
                     ROOM_LATER); /* may not stop others */
    assert_int_equal(f.a.left + f.b.left, 0);
    assert_int_equal(room_ask(f.room, &f.wants.member, true, &figures), ROOM_LATER);
    assert_int_equal(f.a.left + f.b.left, 2);
    provider_room_free(f.room);
}

/* What is promised and not taken yet, and pages of files, are not free although the system says so. */
static void promises_and_mapped_files_count(void **state)
{
    (void)state;
    struct fixture f;
    open_room(&f, 0, 100);
    enter(&f, &f.a, ROOM_BUSY, 1, 60, 20, 0); /* starting: 40 are still to come */
    assert_int_equal(ask(&f, 60, NULL), ROOM_YES);
    assert_int_equal(ask(&f, 61, NULL), ROOM_LATER);
    f.a.view.taken = (struct process_memory){70 * MIB, 30 * MIB}; /* more than was thought, 30 mapped */
    assert_int_equal(ask(&f, 70, NULL), ROOM_YES);
    assert_int_equal(ask(&f, 71, NULL), ROOM_LATER);
    provider_room_claim(f.room, 50 * MIB); /* a model of our own */
    assert_int_equal(ask(&f, 20, NULL), ROOM_YES);
    assert_int_equal(ask(&f, 21, NULL), ROOM_LATER);
    provider_room_unclaim(f.room, 50 * MIB);
    assert_int_equal(ask(&f, 70, NULL), ROOM_YES);
    provider_room_free(f.room);
}

static void a_stated_need_is_what_counts_against_a_limit(void **state)
{
    (void)state;
    struct fixture f;
    struct room_figures figures;
    char text[256];
    open_room(&f, 100, 1000);
    enter(&f, &f.a, ROOM_BUSY, 1, 40, 55, 0);
    assert_int_equal(ask(&f, 45, NULL), ROOM_YES);
    assert_int_equal(ask(&f, 46, NULL), ROOM_LATER);
    f.a.view.stated = true;
    assert_int_equal(ask(&f, 60, NULL), ROOM_YES);
    assert_int_equal(ask(&f, 61, NULL), ROOM_LATER);
    assert_int_equal(ask(&f, 101, &figures), ROOM_NO);
    room_say(&figures, text, sizeof text);
    assert_non_null(strstr(text, "60 MiB of the 100 MiB that engines may take are available"));
    provider_room_free(f.room);
}

static void a_claim_makes_room(void **state)
{
    (void)state;
    struct fixture f;
    open_room(&f, 0, 30);
    enter(&f, &f.a, ROOM_IDLE, 2, 20, 20, 0);
    enter(&f, &f.b, ROOM_IDLE, 1, 20, 20, 0);
    provider_room_claim(f.room, 30 * MIB);
    assert_int_equal(f.a.left + f.b.left, 0);
    provider_room_unclaim(f.room, 30 * MIB);
    provider_room_claim(f.room, 40 * MIB);
    assert_int_equal(f.b.left, 1);
    assert_int_equal(f.a.left, 0);
    provider_room_free(f.room);
    open_room(&f, 100, 0); /* engines with a limit of their own do not care */
    enter(&f, &f.a, ROOM_IDLE, 1, 20, 20, 0);
    provider_room_claim(f.room, 40 * MIB);
    assert_int_equal(f.a.left, 0);
    assert_int_equal(ask(&f, 80, NULL), ROOM_YES);
    provider_room_free(f.room);
}

static void who_waits_longest_is_woken_first(void **state)
{
    (void)state;
    struct fixture f;
    int order = 0;
    open_room(&f, 0, 30);
    enter(&f, &f.a, ROOM_WAITS, 7, 20, 0, 0);
    enter(&f, &f.b, ROOM_WAITS, 5, 20, 0, 0);
    enter(&f, &f.c, ROOM_IDLE, 1, 20, 20, 0);
    f.a.order = f.b.order = &order;
    room_changed(f.room);
    assert_int_equal(f.b.woken_as, 0);
    assert_int_equal(f.a.woken_as, 1);
    assert_int_equal(f.a.woken + f.b.woken, 2);
    assert_int_equal(f.c.woken, 0);
    room_exit(f.room, &f.b.member);
    room_changed(f.room);
    assert_int_equal(f.a.woken, 2);
    assert_int_equal(f.b.woken, 1);
    provider_room_free(f.room);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_fits_starts),
        cmocka_unit_test(the_least_recently_used_leaves_first),
        cmocka_unit_test(nobody_is_stopped_in_vain),
        cmocka_unit_test(promises_and_mapped_files_count),
        cmocka_unit_test(a_stated_need_is_what_counts_against_a_limit),
        cmocka_unit_test(a_claim_makes_room),
        cmocka_unit_test(who_waits_longest_is_woken_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
