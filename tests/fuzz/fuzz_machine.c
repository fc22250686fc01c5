/* Bytes as a machine's profile. What passes is written, read again and is the same. */
#include <stdlib.h>
#include <string.h>

#include "ops/machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static struct machine machine, again;
    struct buf text;
    struct ph_err err;
    if (machine_parse(&machine, "x", (const char *)bytes, len, &err) != PH_OK)
        return 0;
    buf_init(&text, MACHINE_FILE_BYTES_MAX);
    machine_format(&text, &machine);
    if (buf_status(&text) != PH_OK || machine_parse(&again, "x", text.data, text.len, &err) != PH_OK)
        abort();
    struct buf twice;
    buf_init(&twice, MACHINE_FILE_BYTES_MAX);
    machine_format(&twice, &again);
    if (twice.len != text.len || memcmp(twice.data, text.data, text.len) != 0)
        abort();
    buf_release(&text);
    buf_release(&twice);
    return 0;
}
