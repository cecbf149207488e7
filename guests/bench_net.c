/*
 * The tests of a network, by a driver that polls: frames of 60 bytes to a peer that sends each one back. A frame that
 * does not come back is a failed proof.
 *
 * Few instructions: on some hosts each one is emulated.
 */
#include "bench_net.h"
#include "common/console.h"
#include "common/guest.h"
#include "common/rdtsc.h"
#include "common/virtio_mmio.h"

#define HEADER    12
#define FRAME     60
#define BUFFER    1536
#define PATIENCE  100000000
#define NO_NOTIFY 1

static struct virtqueue received, sent;
static uint8_t incoming[VIRTQUEUE_MOST][BUFFER], outgoing[NET_BATCH][HEADER + FRAME];

static void prepare(void)
{
    if (!virtio_find(VIRTIO_NET))
        fail("bench: there is no virtio network device");
    virtio_begin(0);
    virtio_publish(0, &received, VIRTQUEUE_MOST);
    virtio_publish(1, &sent, VIRTQUEUE_MOST);
    virtio_run();
    for (unsigned number = 0; number < VIRTQUEUE_MOST; number++) {
        virtqueue_describe(&received, number, incoming[number], BUFFER, VIRTQUEUE_WRITE);
        virtqueue_offer(&received, number);
    }
    *virtio_register(VIRTIO_NOTIFY) = 0;
    for (unsigned number = 0; number < NET_BATCH; number++) {
        virtqueue_describe(&sent, number, outgoing[number], sizeof outgoing[number], 0);
        __builtin_memset(outgoing[number] + HEADER, 0x02, FRAME); /* addresses that are no group's */
    }
}

/* A frame has come back: its buffer is the device's again. */
static void take(void)
{
    for (uint32_t tries = 0; received.used.index == received.seen; tries++)
        if (tries > PATIENCE)
            fail("bench: a frame does not come back");
    virtqueue_offer(&received, received.used.ring[received.seen++ % VIRTQUEUE_MOST].id);
    if (!(received.used.flags & NO_NOTIFY))
        *virtio_register(VIRTIO_NOTIFY) = 0;
}

static uint64_t exchange(uint32_t batches, unsigned count)
{
    uint64_t began;

    prepare();
    began = rdtsc();
    while (batches--) {
        for (unsigned number = 0; number < count; number++)
            virtqueue_offer(&sent, number);
        *virtio_register(VIRTIO_NOTIFY) = 1;
        for (unsigned number = 0; number < count; number++)
            take();
    }
    return rdtsc() - began;
}

uint64_t bench_net_round_trip(uint32_t frames)
{
    return exchange(frames, 1);
}

uint64_t bench_net_batch(uint32_t batches)
{
    return exchange(batches, NET_BATCH);
}
