#include "base/values.h"

#include <stdlib.h>

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void values_sort(double *values, size_t count)
{
    if (count)
        qsort(values, count, sizeof *values, by_value);
}

double values_median(double *values, size_t count)
{
    values_sort(values, count);
    return !count ? 0 : count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}
