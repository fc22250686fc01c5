/* The example of a scenario and the prices that come with the program, as they lie in the source: in the
 * binary, so that they are there wherever that is. C has no way to say this before C23's #embed. */
#include "ops/tco.h"

__asm__(".pushsection .rodata\n"
        "pharos_tco_begin:\n"
        ".incbin \"deploy/tco.yaml\"\n"
        "pharos_tco_end:\n"
        ".byte 0\n"
        "pharos_prices_begin:\n"
        ".incbin \"src/ops/prices.yaml\"\n"
        "pharos_prices_end:\n"
        ".byte 0\n"
        ".popsection\n");

extern const char pharos_tco_begin[], pharos_tco_end[], pharos_prices_begin[], pharos_prices_end[];

struct tco_text tco_example(void)
{
    return (struct tco_text){pharos_tco_begin, (size_t)(pharos_tco_end - pharos_tco_begin)};
}

struct tco_text tco_prices(void)
{
    return (struct tco_text){pharos_prices_begin, (size_t)(pharos_prices_end - pharos_prices_begin)};
}
