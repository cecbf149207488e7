/* A ring whose entries are behind the end of RAM. */
#include "virtio.h"

void call(void)
{
    start(4, 1, 0xfff0);
    *reg(0x44) = 0;
    *reg(0x90) = 0xfffff000;
    *reg(0x44) = 1;
    *reg(0x50) = 0;
}
