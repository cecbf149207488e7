/*
 * The tests of disks, by drivers that poll: the first drive at the first IDE channel, and the first virtio block
 * device over MMIO, at kvmbox's addresses or at those of QEMU's microvm. Each needs 16 MiB; ata_write writes what is
 * there already. A disk that is missing, or that reports an error, is a failed proof.
 *
 * Few instructions: on some hosts each one is emulated.
 */
#include "bench_disk.h"
#include "common/console.h"
#include "common/guest.h"
#include "common/io.h"
#include "common/rdtsc.h"
#include "common/virtio_mmio.h"
#include <stdbool.h>

#define SECTOR       512
#define SECTORS      32768
#define PATIENCE     100000000

static uint8_t data[DISK_BATCH][4096] __attribute__((aligned(4096)));

/* --- ATA ------------------------------------------------------------------------------------------------ */

static void wait_until(uint8_t wanted)
{
    for (unsigned tries = 0; tries < PATIENCE; tries++) {
        uint8_t status = inb(ATA_STATUS);

        if (status & ATA_ERR)
            fail("bench: the ATA disk reports an error");
        if ((status & (ATA_BSY | ATA_DRQ)) == wanted)
            return;
    }
    fail("bench: there is no ATA disk");
}

/* As most drivers do: the whole task file, then the command, then the status. */
static void command(uint8_t code, uint32_t sector)
{
    outb(ATA_DEVICE, 0xe0);
    outb(ATA_COUNT, 1);
    outb(ATA_LBA_LOW, (uint8_t)sector);
    outb(ATA_LBA_MID, (uint8_t)(sector >> 8));
    outb(ATA_LBA_HIGH, 0);
    outb(ATA_COMMAND, code);
    wait_until(ATA_DRQ);
}

static void read_sector(uint32_t sector)
{
    uint8_t *to = data[0];
    unsigned words = SECTOR / 2;

    command(ATA_READ, sector);
    __asm__ volatile("rep insw" : "+D"(to), "+c"(words) : "d"(ATA_DATA) : "memory");
    wait_until(0);
}

uint64_t bench_ata_read(uint32_t sectors)
{
    uint64_t start = rdtsc();

    for (uint32_t number = 0; number < sectors; number++)
        read_sector(number % SECTORS);
    return rdtsc() - start;
}

uint64_t bench_ata_write(uint32_t sectors)
{
    uint64_t start;

    read_sector(0);
    start = rdtsc();
    for (uint32_t number = 0; number < sectors; number++) {
        const uint8_t *from = data[0];
        unsigned words = SECTOR / 2;

        command(ATA_WRITE, 0);
        __asm__ volatile("rep outsw" : "+S"(from), "+c"(words) : "d"(ATA_DATA) : "memory");
        wait_until(0);
    }
    return rdtsc() - start;
}

/* --- Virtio --------------------------------------------------------------------------------------------- */

/* VIRTIO 1.2, 5.2.6. */
static struct {
    uint32_t type, reserved, sector, high;
} headers[DISK_BATCH];
static volatile uint8_t statuses[DISK_BATCH];
static struct virtqueue queue;

/* Three descriptors for each of `count` requests that read `size` bytes. */
static void prepare(unsigned count, uint32_t size)
{
    if (!virtio_find(VIRTIO_BLOCK))
        fail("bench: there is no virtio disk");
    virtio_begin(0);
    virtio_publish(0, &queue, VIRTQUEUE_MOST);
    virtio_run();
    for (unsigned number = 0; number < count; number++) {
        virtqueue_describe(&queue, 3 * number, &headers[number], sizeof headers[number], VIRTQUEUE_NEXT);
        virtqueue_describe(&queue, 3 * number + 1, data[number], size, VIRTQUEUE_NEXT | VIRTQUEUE_WRITE);
        virtqueue_describe(&queue, 3 * number + 2, &statuses[number], 1, VIRTQUEUE_WRITE);
        statuses[number] = 0;
    }
}

static uint64_t read_batches(uint32_t batches, unsigned count, uint32_t size)
{
    const uint32_t step = size / SECTOR;
    uint16_t index = 0;
    uint32_t sector = 0;
    uint64_t began;

    prepare(count, size);
    began = rdtsc();
    while (batches--) {
        for (unsigned number = 0; number < count; number++) {
            headers[number].sector = sector;
            queue.available.ring[index++ % VIRTQUEUE_MOST] = (uint16_t)(3 * number);
            sector = (sector + step) % SECTORS;
        }
        queue.available.index = index; /* the i386 does not reorder stores, and the notification leaves the guest */
        *virtio_register(VIRTIO_NOTIFY) = 0;
        for (uint32_t tries = 0; queue.used.index != index; tries++)
            if (tries > PATIENCE)
                fail("bench: a request does not come back");
    }
    began = rdtsc() - began;
    for (unsigned number = 0; number < count; number++)
        if (statuses[number])
            fail("bench: the virtio disk reports an error");
    return began;
}

uint64_t bench_virtio_read(uint32_t requests)
{
    return read_batches(requests, 1, sizeof data[0]);
}

uint64_t bench_virtio_batch(uint32_t batches)
{
    return read_batches(batches, DISK_BATCH, sizeof data[0]);
}

uint64_t bench_disk_sequential(uint32_t requests)
{
    return read_batches(requests, 1, 65536);
}
