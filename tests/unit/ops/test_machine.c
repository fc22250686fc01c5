/* A machine's profile: written and read the same, and nothing believed that cannot be. */
#include "base/mem.h"
#include "ops/machine.h"
#include "test_support.h"

static struct machine *parsed(const char *text, enum ph_status wanted, const char *told)
{
    struct machine *machine = mem_calloc(1, sizeof *machine);
    struct ph_err err = {.message = ""};
    assert_int_equal(machine_parse(machine, "profile", text, strlen(text), &err), wanted);
    if (told)
        assert_non_null(strstr(err.message, told));
    return machine;
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    struct machine *a = mem_calloc(1, sizeof *a), *b = mem_calloc(1, sizeof *b);
    *a = (struct machine){.name = "desk \"x\"",
                          .cpu = "Cœur",
                          .isa = "avx512",
                          .cores = 16,
                          .threads = 32,
                          .memory_bytes = (uint64_t)1 << 36,
                          .memory_bytes_per_s = {2.1e10, 0, 1.0 / 3},
                          .memory_points = 3,
                          .peaks = {1e12, 0, 4e12, 8.25e12},
                          .gemv_rates = {{"Q4_K", 2e11}, {"IQ4_XS", 1.0 / 3}},
                          .gemv_rate_count = 2,
                          .disk_read_bytes_per_s = 3.5e9,
                          .disk_is_cached = true,
                          .fsync_s = 0.0042,
                          .device_count = 2,
                          .sensors = 5,
                          .price_usd = 1999.99,
                          .measured = true,
                          .disturbed = true,
                          .measured_unix_s = 1763777777};
    a->devices[0] = (struct machine_device){.kind = MACHINE_GPU,
                                            .name = "card",
                                            .address = "0000:01:00.0",
                                            .memory_bytes = (uint64_t)16 << 30,
                                            .memory_bytes_per_s = 8.96e11,
                                            .peaks = {.f16 = 4e13},
                                            .power_limit_w = 300};
    a->devices[1] = (struct machine_device){.kind = MACHINE_NPU, .shared_memory = true};
    char path[] = "/tmp/pharos-machine-XXXXXX";
    struct ph_err err;
    close(mkstemp(path));
    assert_int_equal(machine_write(a, path, &err), PH_OK);
    assert_int_equal(machine_read(b, path, &err), PH_OK);
    assert_memory_equal(a, b, sizeof *a);
    unlink(path);
    assert_int_equal(machine_read(b, path, &err), PH_ERR_NOTFOUND);
    mem_free(a);
    mem_free(b);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *told;
    } cases[] = {
        {"", "profile"},
        {"[]", "format"},
        {"{\"format\":1}", "format"},
        {"{\"format\":2,\"cores\":-1}", "cores"},
        {"{\"format\":2,\"cores\":1.5}", "cores"},
        {"{\"format\":2,\"cores\":70000}", "cores"},
        {"{\"format\":2,\"memory_bytes\":1e300}", "memory_bytes"},
        {"{\"format\":2,\"cpu\":7}", "cpu"},
        {"{\"format\":2,\"measured\":\"yes\"}", "measured"},
        {"{\"format\":2,\"peak_f32\":-1}", "peak_f32"},
        {"{\"format\":2,\"peak_f32\":1e999}", "peak_f32"},
        {"{\"format\":2,\"memory_bytes_per_s\":{}}", "memory_bytes_per_s"},
        {"{\"format\":2,\"memory_bytes_per_s\":[\"x\"]}", "memory_bytes_per_s"},
        {"{\"format\":2,\"gemv_ops_per_s\":[]}", "gemv_ops_per_s"},
        {"{\"format\":2,\"gemv_ops_per_s\":{\"Q4_0\":-1}}", "gemv_ops_per_s"},
        {"{\"format\":2,\"gemv_ops_per_s\":{\"a name that no number format has\":1}}", "gemv_ops_per_s"},
        {"{\"format\":2,\"devices\":[{}]}", "kind"},
        {"{\"format\":2,\"devices\":[{\"kind\":\"gpu\",\"power_limit_w\":[]}]}", "power_limit_w"},
        {"{\"format\":2,\"devices\":[{\"kind\":\"gpu\"}", "profile"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        mem_free(parsed(cases[i].text, PH_ERR_FORMAT, cases[i].told));
}

static void lists_have_their_bounds(void **state)
{
    (void)state;
    static const struct {
        const char *head, *item;
        size_t most;
    } lists[] = {{"{\"format\":2,\"devices\":[", "{\"kind\":\"npu\"}", MACHINE_DEVICES_MAX},
                 {"{\"format\":2,\"memory_bytes_per_s\":[", "1", MACHINE_THREADS_MAX}};
    for (size_t i = 0; i < 2; i++)
        for (size_t more = 0; more < 2; more++) {
            struct buf text;
            buf_init(&text, 1 << 20);
            buf_puts(&text, lists[i].head);
            for (size_t n = 0; n < lists[i].most + more; n++)
                buf_printf(&text, "%s%s", n ? "," : "", lists[i].item);
            buf_puts(&text, "]}");
            struct machine *machine = parsed(text.data, more ? PH_ERR_FORMAT : PH_OK, NULL);
            assert_int_equal(i ? machine->memory_points : machine->device_count, more ? 0 : lists[i].most);
            mem_free(machine);
            buf_release(&text);
        }
}

static void texts_are_cut_and_printable(void **state)
{
    (void)state;
    char out[MACHINE_TEXT_BYTES], wide[200];
    machine_set_text(out, "a\nb\x1b[1m\xff", 8);
    assert_string_equal(out, "a?b?[1m\xef\xbf\xbd");
    for (size_t i = 0; i < sizeof wide; i += 2)
        memcpy(wide + i, "\xc3\xa9", 2);
    machine_set_text(out, wide, sizeof wide);
    assert_int_equal(strlen(out), MACHINE_TEXT_BYTES - 2); /* whole characters */
    struct machine *machine = parsed("{\"format\":2,\"cpu\":\"x\\u0000y\",\"unknown\":[1]}", PH_OK, NULL);
    assert_string_equal(machine->cpu, "x?y");
    mem_free(machine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(lists_have_their_bounds),
        cmocka_unit_test(texts_are_cut_and_printable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
