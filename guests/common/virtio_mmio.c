#include "virtio_mmio.h"
#include "console.h"
#include "guest.h"

#define STEP         0x200
#define MAGIC        0x000
#define VERSION      0x004
#define DEVICE_ID    0x008
#define FEATURES     0x020
#define FEATURES_SEL 0x024
#define QUEUE_SEL    0x030
#define QUEUE_NUM    0x038
#define QUEUE_READY  0x044
#define STATUS       0x070
#define QUEUE_DESC   0x080
#define QUEUE_DRIVER 0x090
#define QUEUE_DEVICE 0x0a0

#define DRIVER       3 /* with ACKNOWLEDGE */
#define DRIVER_OK    4
#define FEATURES_OK  8
#define NO_INTERRUPT 1

static uint32_t device;

volatile uint32_t *virtio_register(unsigned offset)
{
    return (volatile uint32_t *)(device + offset);
}

static bool is_at(uint32_t address, uint32_t id)
{
    device = address;
    return *virtio_register(MAGIC) == 0x74726976 && *virtio_register(VERSION) == 2 &&
           *virtio_register(DEVICE_ID) == id;
}

bool virtio_find(uint32_t id)
{
    for (unsigned place = 0; place < 8; place++)
        if (is_at(0xd0001000 + place * STEP, id))
            return true;
    for (unsigned place = 0; place < 24; place++)
        if (is_at(0xfeb00000 + place * STEP, id))
            return true;
    return false;
}

void virtio_begin(uint32_t features)
{
    *virtio_register(STATUS) = 0;
    *virtio_register(STATUS) = DRIVER;
    *virtio_register(FEATURES_SEL) = 0;
    *virtio_register(FEATURES) = features;
    *virtio_register(FEATURES_SEL) = 1;
    *virtio_register(FEATURES) = 1; /* VERSION_1 */
    *virtio_register(STATUS) = DRIVER | FEATURES_OK;
    if (!(*virtio_register(STATUS) & FEATURES_OK))
        fail("virtio: the features are not accepted");
}

void virtio_publish(unsigned index, struct virtqueue *queue, unsigned size)
{
    queue->size = size;
    queue->available.flags = NO_INTERRUPT;
    queue->available.index = queue->used.index = queue->seen = 0;
    *virtio_register(QUEUE_SEL) = index;
    *virtio_register(QUEUE_NUM) = size;
    *virtio_register(QUEUE_DESC) = (uint32_t)(uintptr_t)queue->descriptors;
    *virtio_register(QUEUE_DRIVER) = (uint32_t)(uintptr_t)&queue->available;
    *virtio_register(QUEUE_DEVICE) = (uint32_t)(uintptr_t)&queue->used;
    *virtio_register(QUEUE_READY) = 1;
}

void virtio_run(void)
{
    *virtio_register(STATUS) = DRIVER | FEATURES_OK | DRIVER_OK;
}

void virtqueue_describe(struct virtqueue *queue, unsigned number, const volatile void *address, uint32_t length,
                        uint16_t flags)
{
    queue->descriptors[number].address = (uint32_t)(uintptr_t)address;
    queue->descriptors[number].high = 0;
    queue->descriptors[number].length = length;
    queue->descriptors[number].flags = flags;
    queue->descriptors[number].next = (uint16_t)(number + 1);
}

void virtqueue_offer(struct virtqueue *queue, unsigned head)
{
    queue->available.ring[queue->available.index % queue->size] = (uint16_t)head;
    queue->available.index++;
}
