/* What the files of the doctor share: one function a check. */
#ifndef PHAROS_OPS_DOCTOR_INT_H
#define PHAROS_OPS_DOCTOR_INT_H

#include "ops/doctor.h"

void doctor_port(struct doctor *doctor);      /* doctor_net.c */
void doctor_providers(struct doctor *doctor); /* doctor_net.c */
void doctor_clock(struct doctor *doctor);     /* doctor_clock_posix.c */

#endif
