/* The selector that comes with the program, as it lies in models/: in the binary, so that it is there
 * wherever that is. Its pages are read when they are needed. C has no way to say this before C23's #embed. */
#include "memory/spt_int.h"

__asm__(".pushsection .rodata\n"
        ".balign 64\n"
        "pharos_spt_begin:\n"
        ".incbin \"models/spt.gguf\"\n"
        "pharos_spt_end:\n"
        ".byte 0\n"
        ".popsection\n");

extern const uint8_t pharos_spt_begin[], pharos_spt_end[];

struct spt_bytes spt_shipped(void)
{
    return (struct spt_bytes){pharos_spt_begin, (size_t)(pharos_spt_end - pharos_spt_begin)};
}
