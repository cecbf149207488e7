/* A driver of virtio over MMIO (VIRTIO 1.2, 4.2): one device, the first of its kind, with queues of 8 entries. */
#ifndef PLANTED_VIRTIO_H
#define PLANTED_VIRTIO_H

#include "attack.h"

#define VIRTIO(place) (0xd0001000 + 0x200 * (place))
#define ENTRIES 8
#define NEXT    1
#define WRITE   2

struct queue {
    struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } descriptors[ENTRIES];
    struct {
        uint16_t flags, index, ring[ENTRIES], event;
    } available;
    struct {
        uint16_t flags, index;
        struct {
            uint32_t id, length;
        } ring[ENTRIES];
        uint16_t event;
    } used __attribute__((aligned(4)));
} __attribute__((aligned(16)));

static struct queue queues[2];
static uint32_t device;

static volatile uint32_t *reg(uint32_t offset)
{
    return (volatile uint32_t *)(device + offset);
}

static inline void start(uint32_t kind, uint32_t count, uint32_t entries)
{
    for (device = VIRTIO(0); *reg(8) != kind && device < VIRTIO(8); device += 0x200)
        ;
    *reg(0x70) = 0;
    *reg(0x70) = 3;
    *reg(0x24) = 1;
    *reg(0x20) = 1; /* VERSION_1 */
    *reg(0x70) = 3 | 8;
    for (uint32_t index = 0; index < count; index++) {
        *reg(0x30) = index;
        *reg(0x38) = entries;
        *reg(0x80) = (uint32_t)(uintptr_t)queues[index].descriptors;
        *reg(0x90) = (uint32_t)(uintptr_t)&queues[index].available;
        *reg(0xa0) = (uint32_t)(uintptr_t)&queues[index].used;
        *reg(0x44) = 1;
    }
    *reg(0x70) = 3 | 8 | 4;
}

static inline void describe(uint32_t queue, uint32_t at, const void *bytes, uint32_t length, uint16_t flags)
{
    queues[queue].descriptors[at].address = (uint32_t)(uintptr_t)bytes;
    queues[queue].descriptors[at].length = length;
    queues[queue].descriptors[at].flags = flags;
    queues[queue].descriptors[at].next = (uint16_t)(at + 1);
}

static inline void offer(uint32_t queue, uint16_t head)
{
    queues[queue].available.ring[queues[queue].available.index++ % ENTRIES] = head;
    *reg(0x50) = queue;
}

#endif
