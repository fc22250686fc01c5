/* Turns: who is let in, in which order, and whether everybody is. Service is simulated, so time is exact. */
#include "base/limits.h"
#include "gateway/gate.h"
#include "gateway/keys_support.h"

/* ---- A few tickets by hand */

static char said[256];

static void say(void *ud)
{
    size_t len = strlen(said);
    snprintf(said + len, sizeof said - len, "%s ", (const char *)ud);
}

static enum ph_status enter(struct gate *gate, const char *key, uint64_t cost, struct gate_ticket *ticket,
                            const char *name, bool *entered)
{
    return gate_enter(gate, key, cost, ticket, say, (void *)(uintptr_t)name, entered);
}

static void who_finds_room_goes_on(void **state)
{
    struct gate *gate;
    struct gate_ticket tickets[4] = {{0}};
    bool entered;
    (void)state;
    said[0] = 0;
    assert_int_equal(gate_create(&gate, 2, 8), PH_OK);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(enter(gate, "a", 1, &tickets[i], i == 2 ? "third" : "fourth", &entered), PH_OK);
        assert_int_equal(entered, i < 2);
    }
    assert_int_equal(gate_running(gate), 2);
    assert_int_equal(gate_waiting(gate), 2);
    gate_leave(&tickets[2]); /* no longer waiting */
    assert_string_equal(said, "");
    assert_null(tickets[2].gate);
    gate_leave(&tickets[2]);
    gate_leave(&tickets[0]);
    assert_string_equal(said, "fourth ");
    assert_int_equal(gate_running(gate), 2);
    gate_leave(&tickets[1]);
    gate_leave(&tickets[3]);
    assert_int_equal(gate_running(gate), 0);
    gate_free(gate);
    gate_free(NULL);
}

static void lines_take_turns(void **state)
{
    struct gate *gate;
    struct gate_ticket runs, tickets[6];
    static const char *const keys[] = {"a", "a", "a", "b", "b", "c"};
    static const char *const names[] = {"a1", "a2", "a3", "b1", "b2", "c1"};
    bool entered;
    (void)state;
    said[0] = 0;
    assert_int_equal(gate_create(&gate, 1, 64), PH_OK);
    assert_int_equal(enter(gate, "x", 10, &runs, "", &entered), PH_OK);
    for (int i = 0; i < 6; i++)
        assert_int_equal(enter(gate, keys[i], 10, &tickets[i], names[i], &entered), PH_OK);
    gate_leave(&runs);
    static const int order[] = {0, 3, 5, 1, 4, 2};
    for (int i = 0; i < 6; i++)
        gate_leave(&tickets[order[i]]);
    assert_string_equal(said, "a1 b1 c1 a2 b2 a3 ");
    gate_free(gate);
}

static void what_is_cheap_comes_more_often(void **state)
{
    struct gate *gate;
    struct gate_ticket runs, tickets[6];
    static const char *const keys[] = {"a", "a", "b", "b", "b", "b"};
    static const char *const names[] = {"a1", "a2", "b1", "b2", "b3", "b4"};
    bool entered;
    (void)state;
    said[0] = 0;
    assert_int_equal(gate_create(&gate, 1, 64), PH_OK);
    assert_int_equal(enter(gate, "x", 1, &runs, "", &entered), PH_OK);
    for (int i = 0; i < 6; i++)
        assert_int_equal(enter(gate, keys[i], i < 2 ? 100 : 34, &tickets[i], names[i], &entered), PH_OK);
    gate_leave(&runs);
    static const int order[] = {0, 2, 3, 4, 1, 5};
    for (int i = 0; i < 6; i++)
        gate_leave(&tickets[order[i]]);
    assert_string_equal(said, "a1 b1 b2 b3 a2 b4 ");
    gate_free(gate);
}

static void no_key_has_all_the_room(void **state)
{
    struct gate *gate;
    static struct gate_ticket tickets[100];
    struct gate_ticket runs;
    bool entered;
    size_t held = 0;
    (void)state;
    assert_int_equal(gate_create(&gate, 1, 30), PH_OK);
    assert_int_equal(enter(gate, "x", 1, &runs, "", &entered), PH_OK);
    while (enter(gate, "hog", 1, &tickets[held], "", &entered) == PH_OK)
        held++;
    assert_int_equal(held, 20);
    assert_null(tickets[held].gate);
    for (int i = 0; i < 10; i++) { /* ten others still have a place each */
        char key[8];
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(enter(gate, key, 1, &tickets[held++], "", &entered), PH_OK);
    }
    assert_int_equal(enter(gate, "late", 1, &tickets[held], "", &entered), PH_ERR_BUSY);
    assert_int_equal(gate_waiting(gate), 30);
    while (held--)
        gate_leave(&tickets[held]);
    gate_leave(&runs);
    gate_free(gate);
    assert_int_equal(gate_create(&gate, 1, 0), PH_OK);
    assert_int_equal(enter(gate, "x", 1, &runs, "", &entered), PH_OK);
    assert_int_equal(enter(gate, "y", 1, &tickets[0], "", &entered), PH_ERR_BUSY);
    gate_leave(&runs);
    gate_free(gate);
}

static void resizing_lets_in_or_waits(void **state)
{
    struct gate *gate;
    struct gate_ticket tickets[4];
    bool entered;
    (void)state;
    said[0] = 0;
    assert_int_equal(gate_create(&gate, 0, 8), PH_OK); /* one at least */
    for (int i = 0; i < 4; i++)
        assert_int_equal(enter(gate, "a", 1, &tickets[i], i == 3 ? "last" : "in", &entered), PH_OK);
    gate_resize(gate, 3);
    assert_string_equal(said, "in in ");
    gate_resize(gate, 1);
    gate_leave(&tickets[0]);
    gate_leave(&tickets[1]);
    assert_string_equal(said, "in in ");
    assert_int_equal(gate_running(gate), 1);
    gate_leave(&tickets[2]);
    assert_string_equal(said, "in in last ");
    gate_leave(&tickets[3]);
    gate_free(gate);
}

/* ---- Callbacks that act at once */

struct eager {
    struct gate *gate;
    struct gate_ticket tickets[500];
    size_t next, depth, deepest, called;
};

static void leave_at_once(void *ud)
{
    struct eager *e = ud;
    bool entered;
    e->depth++;
    e->deepest = e->depth > e->deepest ? e->depth : e->deepest;
    struct gate_ticket *own = &e->tickets[e->called++];
    if (e->next < 500) {
        assert_int_equal(gate_enter(e->gate, "a", 1, &e->tickets[e->next++], leave_at_once, e, &entered),
                         PH_OK);
        assert_false(entered);
    }
    gate_leave(own);
    e->depth--;
}

static void callbacks_do_not_nest(void **state)
{
    static struct eager e;
    struct gate_ticket runs;
    bool entered;
    (void)state;
    assert_int_equal(gate_create(&e.gate, 1, 64), PH_OK);
    assert_int_equal(gate_enter(e.gate, "a", 1, &runs, leave_at_once, &e, &entered), PH_OK);
    for (; e.next < 2; e.next++)
        assert_int_equal(gate_enter(e.gate, "a", 1, &e.tickets[e.next], leave_at_once, &e, &entered), PH_OK);
    gate_leave(&runs);
    assert_int_equal(e.called, 500);
    assert_int_equal(e.deepest, 1);
    assert_int_equal(gate_running(e.gate), 0);
    assert_int_equal(gate_waiting(e.gate), 0);
    gate_free(e.gate);
}

/* ---- Simulated service: events in order of time, each client a request at a time */

enum { CLIENTS_MAX = 128, SLOTS_MAX = 8 };

struct sim;
struct client {
    struct sim *sim;
    char key[12];
    struct gate_ticket ticket;
    uint64_t cost;
    double think, at; /* when its next event is */
    double asked, longest_wait;
    enum { THINKING, WAITING, SERVED } doing;
    size_t answers;
    double served_cost;
};

struct sim {
    struct gate *gate;
    struct client clients[CLIENTS_MAX];
    size_t count, running;
    double now, service_per_cost;
    struct rng rng;
};

static void begin_service(void *ud)
{
    struct client *client = ud;
    struct sim *sim = client->sim;
    double waited = sim->now - client->asked;
    if (waited > client->longest_wait)
        client->longest_wait = waited;
    client->doing = SERVED;
    client->at = sim->now + (double)client->cost * sim->service_per_cost;
    client->served_cost += (double)client->cost;
    sim->running++;
}

static void act(struct sim *sim, struct client *client)
{
    bool entered;
    if (client->doing == SERVED) {
        client->doing = THINKING;
        client->at = sim->now + client->think;
        client->answers++;
        sim->running--;
        gate_leave(&client->ticket);
        if (client->think > 0)
            return;
    }
    client->doing = WAITING;
    client->asked = sim->now;
    assert_int_equal(
        gate_enter(sim->gate, client->key, client->cost, &client->ticket, begin_service, client, &entered),
        PH_OK);
    if (entered)
        begin_service(client);
}

static void sim_run(struct sim *sim, double until)
{
    for (;;) {
        struct client *next = NULL;
        for (size_t i = 0; i < sim->count; i++)
            if (sim->clients[i].doing != WAITING && (!next || sim->clients[i].at < next->at))
                next = &sim->clients[i];
        assert_non_null(next); /* else a wake-up was lost: all wait and nobody runs */
        if (next->at > until)
            return;
        sim->now = next->at;
        act(sim, next);
        assert_int_equal(gate_running(sim->gate), sim->running);
    }
}

static void sim_end(struct sim *sim)
{
    for (size_t i = 0; i < sim->count; i++)
        if (sim->clients[i].doing == WAITING)
            gate_leave(&sim->clients[i].ticket);
    for (size_t i = 0; i < sim->count; i++)
        gate_leave(&sim->clients[i].ticket);
    gate_free(sim->gate);
    mem_free(sim);
}

static struct sim *sim_make(size_t slots)
{
    struct sim *sim = mem_calloc(1, sizeof *sim);
    rng_init(&sim->rng, 7);
    sim->service_per_cost = 1e-3; /* a cost of 1000 takes a second */
    assert_int_equal(gate_create(&sim->gate, slots, GATE_WAITING_MAX), PH_OK);
    return sim;
}

static struct client *sim_add(struct sim *sim, const char *key, uint64_t cost, double think, double first)
{
    struct client *client = &sim->clients[sim->count++];
    *client = (struct client){.sim = sim, .cost = cost, .think = think, .at = first};
    snprintf(client->key, sizeof client->key, "%s", key);
    return client;
}

/* 98 agents that ask again as soon as they are answered, each a request of one second; a person who comes
 * once in two minutes, which is less than a share. With s slots somebody is done every 1/s seconds. */
static void busy_keys_do_not_starve_a_person(void **state)
{
    (void)state;
    for (size_t slots = 1; slots <= 4; slots *= 4)
        for (int same_key = 0; same_key < 2; same_key++)
            for (int uneven = 0; uneven < 2; uneven++) {
                struct sim *sim = sim_make(slots);
                for (int i = 0; i < 98; i++) {
                    char key[12];
                    snprintf(key, sizeof key, "agent%d", same_key ? 0 : i);
                    sim_add(sim, key, uneven ? 100 + rng_u64(&sim->rng) % 900 : 1000, 0, i * 1e-4);
                }
                struct client *person = sim_add(sim, "person", 1000, 120, 150.5);
                sim_run(sim, 20000);
                print_message("%zu slots, %s, %s: %zu answers, longest wait %.3f s\n", slots,
                              same_key ? "one key" : "98 keys", uneven ? "uneven" : "even", person->answers,
                              person->longest_wait);
                assert_true(person->answers > 160);
                /* Who is at work; of equal requests at the seam of a round also one with the same right. */
                assert_true(person->longest_wait <= (uneven || same_key || slots > 1 ? 1.0 : 2.0) + 1e-9);
                sim_end(sim);
            }
}

/* The same person without a pause, against one key with 98 requests: two keys, so every second turn. */
static void one_key_with_many_requests_is_one_key(void **state)
{
    (void)state;
    struct sim *sim = sim_make(1);
    for (int i = 0; i < 98; i++)
        sim_add(sim, "agent", 1000, 0, 0);
    struct client *person = sim_add(sim, "person", 1000, 0, 10);
    sim_run(sim, 2010);
    assert_true(person->longest_wait <= 1.0 + 1e-9);
    assert_true(person->answers >= 999);
    sim_end(sim);
}

/* Keys that always wait get equal cost through, whatever a request of theirs costs. */
static void busy_keys_share_equally(void **state)
{
    (void)state;
    struct sim *sim = sim_make(3);
    for (int i = 0; i < 40; i++) { /* eight keys of five clients */
        char key[12];
        snprintf(key, sizeof key, "k%d", i % 8);
        sim_add(sim, key, (uint64_t)(50 << (i % 8 % 5)), 0, 0);
    }
    sim_run(sim, 500);
    double served[8] = {0}, least = 1e300, most = 0;
    for (size_t i = 0; i < sim->count; i++)
        served[i % 8] += sim->clients[i].served_cost;
    for (int i = 0; i < 8; i++) {
        least = served[i] < least ? served[i] : least;
        most = served[i] > most ? served[i] : most;
        assert_true(sim->clients[i].answers > 0);
    }
    assert_true(most - least <= 2 * 800); /* the largest request of either */
    sim_end(sim);
}

/* ---- Everything at random, against what must always hold */

enum { TICKETS = 200, RUNNING_MAX = 5 };

struct crowd {
    struct gate *gate;
    struct member {
        struct crowd *crowd;
        struct gate_ticket ticket;
        enum { OUT, IN_LINE, IN } where;
        size_t passed; /* let in since it came */
    } members[TICKETS];
    size_t let_in, longest;
    bool calling;
};

static void come_in(void *ud)
{
    struct member *member = ud;
    assert_int_equal(member->where, IN_LINE);
    assert_false(member->crowd->calling);
    member->crowd->calling = true;
    member->where = IN;
    size_t passed = member->crowd->let_in++ - member->passed;
    if (passed > member->crowd->longest)
        member->crowd->longest = passed;
    assert_true(gate_running(member->crowd->gate) <= RUNNING_MAX);
    member->crowd->calling = false;
}

static void nobody_is_lost(void **state)
{
    static struct crowd crowd;
    struct rng rng;
    size_t limit = RUNNING_MAX;
    (void)state;
    rng_init(&rng, 99);
    assert_int_equal(gate_create(&crowd.gate, limit, 64), PH_OK);
    for (int step = 0; step < 200000; step++) {
        struct member *member = &crowd.members[rng_u64(&rng) % TICKETS];
        char key[8];
        bool entered;
        member->crowd = &crowd;
        if (rng_u64(&rng) % 500 == 0)
            gate_resize(crowd.gate, limit = 1 + rng_u64(&rng) % RUNNING_MAX);
        if (member->where != OUT) {
            if (member->where == IN_LINE && rng_u64(&rng) % 4)
                continue; /* mostly patient */
            member->where = OUT;
            gate_leave(&member->ticket);
        } else {
            snprintf(key, sizeof key, "%d", (int)(rng_u64(&rng) % (step / 20000 % 2 ? 3 : 150)));
            member->where = IN_LINE;
            member->passed = crowd.let_in;
            enum ph_status status = gate_enter(crowd.gate, key, 1 + rng_u64(&rng) % 100, &member->ticket,
                                               come_in, member, &entered);
            assert_true(status == PH_OK || status == PH_ERR_BUSY);
            assert_true(status == PH_OK || gate_waiting(crowd.gate) > 32);
            member->where = status != PH_OK ? OUT : entered ? IN : IN_LINE;
            crowd.let_in += entered;
        }
        size_t in = 0, in_line = 0;
        for (size_t i = 0; i < TICKETS; i++) {
            in += crowd.members[i].where == IN;
            in_line += crowd.members[i].where == IN_LINE;
        }
        assert_int_equal(gate_running(crowd.gate), in);
        assert_int_equal(gate_waiting(crowd.gate), in_line);
        assert_true(in <= RUNNING_MAX && in_line <= 64);
        assert_true(in >= limit || in_line == 0); /* room and somebody who waits: a lost wake-up */
    }
    assert_true(crowd.longest < 64 * 100); /* who waits has at most so many cheap ones before him */
    for (size_t round = 0; round < 2; round++)
        for (size_t i = 0; i < TICKETS; i++)
            if (crowd.members[i].where == (round ? IN : IN_LINE)) {
                crowd.members[i].where = OUT;
                gate_leave(&crowd.members[i].ticket);
            }
    assert_int_equal(gate_running(crowd.gate), 0);
    gate_free(crowd.gate);
}

static void a_turn_is_cheap(void **state)
{
    enum { KEYS = 1000, TURNS = SANITIZED ? 20000 : 300000 };
    static struct gate_ticket tickets[KEYS + 1];
    struct gate *gate;
    bool entered;
    (void)state;
    assert_int_equal(gate_create(&gate, 1, KEYS), PH_OK);
    for (int i = 0; i <= KEYS; i++) {
        char key[8];
        snprintf(key, sizeof key, "%d", i);
        assert_int_equal(gate_enter(gate, key, (uint64_t)(i % 7 + 1), &tickets[i], say, "", &entered), PH_OK);
    }
    double start = test_cpu_ns();
    for (int i = 0; i < TURNS; i++) {
        int at = 0;
        char key[8];
        while (tickets[at].line)
            at++; /* who runs */
        snprintf(key, sizeof key, "%d", at);
        said[0] = 0;
        gate_leave(&tickets[at]);
        assert_int_equal(gate_enter(gate, key, 5, &tickets[at], say, "", &entered), PH_OK);
    }
    double each_ns = (test_cpu_ns() - start) / TURNS;
    print_message("a turn among %d keys takes at most %.0f ns\n", KEYS, each_ns);
    assert_true(SANITIZED || each_ns < 20000);
    for (int i = 0; i <= KEYS; i++)
        if (tickets[i].line)
            gate_leave(&tickets[i]);
    for (int i = 0; i <= KEYS; i++)
        gate_leave(&tickets[i]);
    gate_free(gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_finds_room_goes_on),
        cmocka_unit_test(lines_take_turns),
        cmocka_unit_test(what_is_cheap_comes_more_often),
        cmocka_unit_test(no_key_has_all_the_room),
        cmocka_unit_test(resizing_lets_in_or_waits),
        cmocka_unit_test(callbacks_do_not_nest),
        cmocka_unit_test(busy_keys_do_not_starve_a_person),
        cmocka_unit_test(one_key_with_many_requests_is_one_key),
        cmocka_unit_test(busy_keys_share_equally),
        cmocka_unit_test(nobody_is_lost),
        cmocka_unit_test(a_turn_is_cheap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
