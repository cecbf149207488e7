/* A sector behind the end of the disk. */
#include "virtio.h"

static struct {
    uint32_t type, reserved;
    uint64_t sector;
    uint8_t data[512], status;
} request = {.sector = 1 << 20, .status = 0xff};

void call(void)
{
    start(2, 1, ENTRIES);
    describe(0, 0, &request, 16, NEXT);
    describe(0, 1, request.data, 512, NEXT | WRITE);
    describe(0, 2, &request.status, 1, WRITE);
    offer(0, 0);
    while (*(volatile uint8_t *)&request.status == 0xff)
        ;
    say(request.status ? "an I/O error\n" : "a sector\n");
}
