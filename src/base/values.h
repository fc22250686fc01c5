/* Lists of measured numbers, NaN excepted. Thread: any. */
#ifndef PHAROS_BASE_VALUES_H
#define PHAROS_BASE_VALUES_H

#include <stddef.h>

void values_sort(double *values, size_t count); /* ascending */
/* Sorts them. Of an even count the mean of the two in the middle; of none 0. */
double values_median(double *values, size_t count);

#endif
