/* Making the forms that matrix products read. */
#ifndef PHAROS_TENSOR_ACT_INT_H
#define PHAROS_TENSOR_ACT_INT_H

#include "tensor/kernels_int.h"

/* Collective: makes those of `forms` that `act` does not have yet; a barrier ends it when there were any. */
void act_prepare(struct lane *lane, struct act *act, uint32_t forms);

#endif
