/* net: the driver of a virtio network device over MMIO, at kvmbox's addresses or at those of QEMU's microvm. */
#include "net.h"
#include "common/console.h"
#include "common/rdtsc.h"
#include "common/virtio_mmio.h"

/* VIRTIO 1.2, 5.1. */
#define F_MAC       (1u << 5)
#define F_MRG_RXBUF (1u << 15)

#define SIZE   BUFFERS
#define HEADER 12

static struct virtqueue queues[2];
static uint8_t buffers[2][SIZE][BUFFER];
#define RECEIVED (&queues[0])
#define SENT     (&queues[1])

static unsigned parts; /* of the frame that is being received */

static bool find(void)
{
    return virtio_find(VIRTIO_NET);
}

/* Let the device have receive buffer `number`. */
static void give(unsigned number)
{
    virtqueue_offer(RECEIVED, number);
}

static void start(uint32_t room, uint8_t *address)
{
    parts = 0;
    virtio_begin(F_MAC | F_MRG_RXBUF);
    for (unsigned index = 0; index < 2; index++) {
        virtio_publish(index, &queues[index], SIZE);
        for (unsigned number = 0; number < SIZE; number++)
            virtqueue_describe(&queues[index], number, buffers[index][number], index ? BUFFER : room,
                               index ? 0 : VIRTQUEUE_WRITE);
    }
    virtio_run();
    for (unsigned number = 0; number < SIZE; number++)
        give(number);
    *virtio_register(VIRTIO_NOTIFY) = 0;
    for (unsigned place = 0; place < 6; place++)
        address[place] = *((volatile uint8_t *)virtio_register(VIRTIO_CONFIG) + place);
}

/* Where the next frame to send is made. Its buffer came back long ago: each one is waited for. */
static uint8_t *frame(unsigned number)
{
    return buffers[1][number] + HEADER;
}

static void queue_frame(unsigned number, uint32_t length)
{
    SENT->descriptors[number].length = HEADER + length;
    virtqueue_offer(SENT, number);
}

static void flush(void)
{
    *virtio_register(VIRTIO_NOTIFY) = 1;
    for (uint64_t began = rdtsc(); SENT->used.index != SENT->available.index;)
        if (rdtsc() - began > PATIENCE)
            fail("net: a sent frame does not come back");
}

static struct part receive(uint64_t patience)
{
    struct part part = {SIZE, 0, 0, false};
    bool first = !parts;

    for (uint64_t began = rdtsc(); RECEIVED->used.index == RECEIVED->seen;)
        if (rdtsc() - began > patience)
            return part;
    part.length = RECEIVED->used.ring[RECEIVED->seen % SIZE].length;
    part.number = (unsigned)RECEIVED->used.ring[RECEIVED->seen++ % SIZE].id % SIZE;
    part.data = buffers[0][part.number];
    if (first) {
        parts = *(const uint16_t *)(part.data + 10);
        part.data += HEADER;
        part.length -= HEADER;
    }
    part.last = !--parts;
    return part;
}

static void more(void)
{
    *virtio_register(VIRTIO_NOTIFY) = 0;
}

const struct interface net_virtio = {find, start, frame, queue_frame, flush, receive, give, more};
