/* A notification of queue 1000. */
#include "virtio.h"

void call(void)
{
    start(4, 1, ENTRIES);
    *reg(0x50) = 1000;
}
