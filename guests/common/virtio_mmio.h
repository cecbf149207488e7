/*
 * A driver of one virtio device over MMIO, of 32-bit guests, which polls: VIRTIO 1.2, 4.2.2 and 2.7. It finds the
 * device at kvmbox's addresses or at those of QEMU's microvm.
 */
#ifndef GUESTS_COMMON_VIRTIO_MMIO_H
#define GUESTS_COMMON_VIRTIO_MMIO_H

#include <stdbool.h>
#include <stdint.h>

#define VIRTIO_NET   1
#define VIRTIO_BLOCK 2

#define VIRTIO_NOTIFY 0x050
#define VIRTIO_CONFIG 0x100

#define VIRTQUEUE_MOST 128

/* Flags of a descriptor. */
#define VIRTQUEUE_NEXT  1
#define VIRTQUEUE_WRITE 2

struct virtqueue {
    struct {
        uint32_t address, high, length;
        uint16_t flags, next;
    } descriptors[VIRTQUEUE_MOST];
    volatile struct {
        uint16_t flags, index, ring[VIRTQUEUE_MOST];
    } available;
    volatile struct {
        uint16_t flags, index;
        struct {
            uint32_t id, length;
        } ring[VIRTQUEUE_MOST];
    } used __attribute__((aligned(4)));
    unsigned size;
    uint16_t seen; /* index of the next used chain that nobody has looked at */
} __attribute__((aligned(16)));

bool virtio_find(uint32_t id);
volatile uint32_t *virtio_register(unsigned offset);

/* A reset, then these of the first 32 features, and VERSION_1. A device that refuses them is a failed proof. */
void virtio_begin(uint32_t features);

/* Queue `index`, of `size` entries, none of them available, that wants no interrupts. */
void virtio_publish(unsigned index, struct virtqueue *queue, unsigned size);

/* The device may begin. */
void virtio_run(void);

void virtqueue_describe(struct virtqueue *queue, unsigned number, const volatile void *address, uint32_t length,
                        uint16_t flags);

/* Make a chain available. The i386 does not reorder stores, and a notification leaves the guest. */
void virtqueue_offer(struct virtqueue *queue, unsigned head);

#endif
