#include <stdio.h>

int main(void)
{
    fputs("pharos: no commands yet\n", stderr);
    return 2;
}
