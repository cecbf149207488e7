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

/* Virtual I/O Device Version 1.2, 4.2.2, 2.7, 5.2. */
#define STEP         0x200
#define MAGIC        0x000
#define VERSION      0x004
#define DEVICE_ID    0x008
#define FEATURES     0x020
#define FEATURES_SEL 0x024
#define QUEUE_SEL    0x030
#define QUEUE_NUM    0x038
#define QUEUE_READY  0x044
#define QUEUE_NOTIFY 0x050
#define STATUS       0x070
#define QUEUE_DESC   0x080
#define QUEUE_DRIVER 0x090
#define QUEUE_DEVICE 0x0a0

#define DRIVER       3 /* with ACKNOWLEDGE */
#define DRIVER_OK    4
#define FEATURES_OK  8
#define BLOCK        2

#define SIZE         128
#define NEXT         1
#define WRITE        2
#define NO_INTERRUPT 1

struct descriptor {
    uint32_t address, high, length;
    uint16_t flags, next;
};

static struct descriptor descriptors[SIZE] __attribute__((aligned(16)));
static volatile struct {
    uint16_t flags, index, ring[SIZE];
} available;
static volatile struct {
    uint16_t flags, index;
    struct {
        uint32_t id, length;
    } ring[SIZE];
} used __attribute__((aligned(4)));
static struct {
    uint32_t type, reserved, sector, high;
} headers[DISK_BATCH];
static volatile uint8_t statuses[DISK_BATCH];

static uint32_t device;

static volatile uint32_t *reg(unsigned offset)
{
    return (volatile uint32_t *)(device + offset);
}

static bool is_disk(uint32_t address)
{
    device = address;
    return *reg(MAGIC) == 0x74726976 && *reg(VERSION) == 2 && *reg(DEVICE_ID) == BLOCK;
}

static void find_disk(void)
{
    for (unsigned place = 0; place < 8; place++)
        if (is_disk(0xd0001000 + place * STEP))
            return;
    for (unsigned place = 0; place < 24; place++)
        if (is_disk(0xfeb00000 + place * STEP))
            return;
    fail("bench: there is no virtio disk");
}

static void describe(unsigned index, const volatile void *address, uint32_t length, uint16_t flags)
{
    descriptors[index] = (struct descriptor){(uint32_t)(uintptr_t)address, 0, length, flags, (uint16_t)(index + 1)};
}

static void start(void)
{
    *reg(STATUS) = 0;
    *reg(STATUS) = DRIVER;
    *reg(FEATURES_SEL) = 1;
    *reg(FEATURES) = 1; /* VERSION_1 */
    *reg(STATUS) = DRIVER | FEATURES_OK;
    *reg(QUEUE_SEL) = 0;
    *reg(QUEUE_NUM) = SIZE;
    *reg(QUEUE_DESC) = (uint32_t)(uintptr_t)descriptors;
    *reg(QUEUE_DRIVER) = (uint32_t)(uintptr_t)&available;
    *reg(QUEUE_DEVICE) = (uint32_t)(uintptr_t)&used;
    available.flags = NO_INTERRUPT;
    available.index = used.index = 0;
    *reg(QUEUE_READY) = 1;
    *reg(STATUS) = DRIVER | FEATURES_OK | DRIVER_OK;
}

/* Three descriptors for each of `count` requests that read `size` bytes. */
static void prepare(unsigned count, uint32_t size)
{
    if (!device)
        find_disk();
    start();
    for (unsigned number = 0; number < count; number++) {
        describe(3 * number, &headers[number], sizeof headers[number], NEXT);
        describe(3 * number + 1, data[number], size, NEXT | WRITE);
        describe(3 * number + 2, &statuses[number], 1, WRITE);
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
            available.ring[index++ % SIZE] = (uint16_t)(3 * number);
            sector = (sector + step) % SECTORS;
        }
        available.index = index; /* the i386 does not reorder stores, and the notification leaves the guest */
        *reg(QUEUE_NOTIFY) = 0;
        for (uint32_t tries = 0; used.index != index; tries++)
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
