/* The shapes and the hardware that come with the program, as they lie beside this file: in the binary, so
 * that they are there wherever that is. C has no way to say this before C23's #embed. */
#include "ops/estimate_int.h"

__asm__(".pushsection .rodata\n"
        "pharos_shapes_begin:\n"
        ".incbin \"src/ops/shapes.yaml\"\n"
        "pharos_shapes_end:\n"
        ".byte 0\n"
        "pharos_hardware_begin:\n"
        ".incbin \"src/ops/hardware.yaml\"\n"
        "pharos_hardware_end:\n"
        ".byte 0\n"
        ".popsection\n");

extern const char pharos_shapes_begin[], pharos_shapes_end[];
extern const char pharos_hardware_begin[], pharos_hardware_end[];

struct estimate_bytes shapes_shipped(void)
{
    return (struct estimate_bytes){pharos_shapes_begin, (size_t)(pharos_shapes_end - pharos_shapes_begin)};
}

struct estimate_bytes hardware_shipped(void)
{
    return (struct estimate_bytes){pharos_hardware_begin,
                                   (size_t)(pharos_hardware_end - pharos_hardware_begin)};
}
