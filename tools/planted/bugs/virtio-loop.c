/* A descriptor of no bytes that is its own successor. */
#include "virtio.h"

void call(void)
{
    start(2, 1, ENTRIES);
    describe(0, 0, 0, 0, NEXT);
    queues[0].descriptors[0].next = 0;
    offer(0, 0);
}
