/*
 * virtio: block, entropy and console devices over MMIO, found at their addresses. Proves polled and interrupt-driven
 * reads, a write that is read back after a flush, a batch of requests behind one notification with and without
 * indirect tables and event indices, a queue that is none, and a reset after that. Status 0; 3 if a proof fails.
 *
 * --disk FILE,on=virtio is optional, as are --rng and --virtio-console.
 */
#include "common/console.h"
#include "common/guest.h"
#include "common/interrupts.h"
#include "common/io.h"
#include <stddef.h>

/* Virtual I/O Device Version 1.2, 4.2.2. */
#define BASE         0xd0001000
#define STEP         0x200
#define PLACES       8
#define MAGIC        0x000
#define VERSION      0x004
#define DEVICE_ID    0x008
#define FEATURES     0x020
#define FEATURES_SEL 0x024
#define QUEUE_SEL    0x030
#define QUEUE_NUM    0x038
#define QUEUE_READY  0x044
#define QUEUE_NOTIFY 0x050
#define INT_STATUS   0x060
#define INT_ACK      0x064
#define STATUS       0x070
#define QUEUE_DESC   0x080
#define QUEUE_DRIVER 0x090
#define QUEUE_DEVICE 0x0a0
#define CONFIG       0x100

#define DRIVER      3 /* with ACKNOWLEDGE */
#define FEATURES_OK 8
#define DRIVER_OK   4
#define NEEDS_RESET 64
#define INDIRECT    (1u << 28)
#define EVENT_INDEX (1u << 29)

enum device_id { NET = 1, BLOCK, CONSOLE, ENTROPY };

/* 2.7. */
#define SIZE      64
#define NEXT      1
#define WRITE     2
#define TABLE     4
#define NO_NOTICE 1

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

struct queue {
    struct descriptor descriptors[SIZE];
    struct {
        uint16_t flags, index, ring[SIZE], event;
    } available;
    struct {
        uint16_t flags, index;
        struct {
            uint32_t id, length;
        } ring[SIZE];
        uint16_t event;
    } used __attribute__((aligned(4)));
    uint16_t seen;
} __attribute__((aligned(16)));

#define SECTOR 512
#define BATCH  16
#define IN     0
#define OUT    1
#define FLUSH  4
#define GET_ID 8

struct request {
    uint32_t type, reserved;
    uint64_t sector;
    uint8_t data[SECTOR];
    volatile uint8_t status;
    struct descriptor table[3] __attribute__((aligned(16)));
};

static const unsigned lines[PLACES] = {10, 11, 7, 6, 20, 21, 22, 23};
static struct queue queues[2];
static struct request requests[BATCH];
static uintptr_t device;
static unsigned sectors; /* that are looked at */
static volatile unsigned interrupts;

static volatile uint32_t *reg(unsigned offset)
{
    return (volatile uint32_t *)(device + offset);
}

static void barrier(void)
{
    __asm__ volatile("lock addl $0, (%%rsp)" : : : "memory", "cc");
}

static unsigned find(enum device_id id)
{
    for (unsigned place = 0; place < PLACES; place++) {
        device = BASE + place * STEP;
        if (*reg(MAGIC) == 0x74726976 && *reg(VERSION) == 2 && *reg(DEVICE_ID) == id)
            return place;
    }
    return PLACES;
}

static void set_area(unsigned offset, const volatile void *area)
{
    *reg(offset) = (uint32_t)(uintptr_t)area;
    *reg(offset + 4) = (uint32_t)((uintptr_t)area >> 32);
}

static void start(unsigned count, uint32_t features)
{
    *reg(STATUS) = 0;
    if (*reg(STATUS))
        fail("a reset leaves a status");
    *reg(STATUS) = DRIVER;
    *reg(FEATURES_SEL) = 0;
    *reg(FEATURES) = features;
    *reg(FEATURES_SEL) = 1;
    *reg(FEATURES) = 1; /* VERSION_1 */
    *reg(STATUS) = DRIVER | FEATURES_OK;
    if (!(*reg(STATUS) & FEATURES_OK))
        fail("the features are not accepted");
    for (unsigned index = 0; index < count; index++) {
        struct queue *queue = &queues[index];

        __builtin_memset(queue, 0, sizeof *queue);
        *reg(QUEUE_SEL) = index;
        *reg(QUEUE_NUM) = SIZE;
        set_area(QUEUE_DESC, queue->descriptors);
        set_area(QUEUE_DRIVER, &queue->available);
        set_area(QUEUE_DEVICE, &queue->used);
        *reg(QUEUE_READY) = 1;
    }
    *reg(STATUS) = DRIVER | FEATURES_OK | DRIVER_OK;
}

static void describe(struct descriptor *at, const volatile void *address, uint32_t length, uint16_t flags, uint16_t next)
{
    at->address = (uintptr_t)address;
    at->length = length;
    at->flags = flags;
    at->next = next;
}

static void offer(struct queue *queue, uint16_t head)
{
    queue->available.ring[queue->available.index % SIZE] = head;
    barrier();
    *(volatile uint16_t *)&queue->available.index += 1;
    barrier();
}

static void wait_used(struct queue *queue, unsigned count)
{
    uint16_t goal = (uint16_t)(queue->seen + count);

    for (unsigned patience = 0; *(volatile uint16_t *)&queue->used.index != goal; patience++)
        if (patience > 2000000000)
            fail("a request does not come back");
    queue->seen = goal;
}

/* Request `number` of the queue, by three descriptors, or by a table of them. */
static void put(unsigned number, uint32_t type, uint64_t sector, uint32_t size, int by_table)
{
    struct request *request = &requests[number];
    struct descriptor *at = by_table ? request->table : &queues[0].descriptors[3 * number];
    uint16_t first = (uint16_t)(by_table ? 0 : 3 * number);

    request->type = type;
    request->sector = sector;
    request->status = 0xff;
    describe(at, request, 16, NEXT, (uint16_t)(first + 1));
    describe(at + 1, request->data, size, (uint16_t)(NEXT | (type == OUT ? 0 : WRITE)), (uint16_t)(first + 2));
    describe(at + 2, &request->status, 1, WRITE, 0);
    if (!size)
        at->next = (uint16_t)(first + 2);
    if (by_table)
        describe(&queues[0].descriptors[number], request->table, sizeof request->table, TABLE, 0);
    offer(&queues[0], (uint16_t)(by_table ? number : 3 * number));
}

static void polled(uint32_t type, uint64_t sector, uint32_t size)
{
    put(0, type, sector, size, 0);
    *reg(QUEUE_NOTIFY) = 0;
    wait_used(&queues[0], 1);
    if (requests[0].status)
        fail("a request fails");
}

static void silence(void)
{
    interrupts++;
    *reg(INT_ACK) = *reg(INT_STATUS);
}

static uint8_t kept[BATCH][SECTOR];

static int differ(const uint8_t *one, const uint8_t *other, unsigned size)
{
    for (; size && *one == *other; size--, one++, other++)
        ;
    return size != 0;
}

static void same(const uint8_t *one, const uint8_t *other, const char *text)
{
    if (differ(one, other, SECTOR))
        fail(text);
}

static void batch(uint32_t features)
{
    int by_table = (features & INDIRECT) != 0;

    start(1, features);
    for (unsigned number = 0; number < BATCH; number++)
        put(number, IN, number % sectors, SECTOR, by_table);
    *reg(QUEUE_NOTIFY) = 0;
    wait_used(&queues[0], BATCH);
    for (unsigned number = 0; number < BATCH; number++)
        same(requests[number].data, kept[number], "a batch reads something else");
}

static void block(unsigned place)
{
    volatile unsigned *seen = &interrupts;

    sectors = *reg(CONFIG) < BATCH ? *reg(CONFIG) : BATCH;
    start(1, 0);
    queues[0].available.flags = 1; /* no interrupts */
    for (unsigned number = 0; number < BATCH; number++) {
        polled(IN, number % sectors, SECTOR);
        __builtin_memcpy(kept[number], requests[0].data, SECTOR);
    }
    polled(GET_ID, 0, 20);
    put_string("ok block: polled, serial ");
    put_string((const char *)requests[0].data);
    put_string("\n");

    if (place < 4) {
        queues[0].available.flags = 0;
        irq_enable(lines[place], silence);
        interrupts = 0;
        put(0, IN, 3 % sectors, SECTOR, 0);
        *reg(QUEUE_NOTIFY) = 0;
        if (!wait_for(seen, 1, 5))
            fail("there is no interrupt");
        wait_used(&queues[0], 1);
        same(requests[0].data, kept[3], "by interrupt something else is read");
        irq_disable(lines[place]);
        put_string("ok block: a sector by interrupt\n");
    }

    queues[0].available.flags = 1;
    for (unsigned place_in = 0; place_in < SECTOR; place_in++)
        requests[0].data[place_in] = (uint8_t)~kept[sectors - 1][place_in];
    polled(OUT, sectors - 1, SECTOR);
    polled(FLUSH, 0, 0);
    polled(IN, sectors - 1, SECTOR);
    for (unsigned number = sectors - 1; number < BATCH; number += sectors)
        for (unsigned place_in = 0; place_in < SECTOR; place_in++)
            kept[number][place_in] ^= 0xff;
    same(requests[0].data, kept[sectors - 1], "what was written is not what is read");
    put_string("ok block: written, flushed and read back\n");

    batch(0);
    batch(EVENT_INDEX);
    batch(EVENT_INDEX | INDIRECT);
    put_string("ok block: 16 requests by one notification, three ways\n");

    queues[0].available.index += 1000;
    *reg(QUEUE_NOTIFY) = 0;
    if (!(*reg(STATUS) & NEEDS_RESET))
        fail("a queue that is none needs no reset");
    start(1, 0);
    polled(IN, 7 % sectors, SECTOR);
    same(requests[0].data, kept[7], "after a reset something else is read");
    put_string("ok block: a queue that is none, and a reset\n");
}

static void entropy(void)
{
    static uint8_t bytes[2][64];

    start(1, 0);
    for (unsigned turn = 0; turn < 2; turn++) {
        describe(&queues[0].descriptors[0], bytes[turn], sizeof bytes[turn], WRITE, 0);
        offer(&queues[0], 0);
        *reg(QUEUE_NOTIFY) = 0;
        wait_used(&queues[0], 1);
        if (queues[0].used.ring[turn].length != sizeof bytes[turn])
            fail("there is less entropy");
    }
    if (!differ(bytes[0], bytes[1], sizeof bytes[0]))
        fail("twice the same entropy");
    put_string("ok entropy: 64 bytes, and 64 others\n");
}

static void console(void)
{
    static char text[100 * 40];
    static char typed[16];

    start(2, 0);
    for (unsigned line = 0; line < 100; line++)
        __builtin_memcpy(text + 40 * line, "a line of the virtio console, 40 bytes.\n", 40);
    describe(&queues[0].descriptors[0], typed, sizeof typed, WRITE, 0);
    offer(&queues[0], 0);
    *reg(QUEUE_NOTIFY) = 0;
    describe(&queues[1].descriptors[0], text, sizeof text, 0, 0);
    offer(&queues[1], 0);
    *reg(QUEUE_NOTIFY) = 1;
    wait_used(&queues[1], 1);
    put_string("ok console: 4000 bytes\n");
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    unsigned found = 0, place;

    (void)magic;
    (void)info;
    interrupts_init();
    if (!ticks_start(1))
        fail("the timer does not tick");
    if ((place = find(BLOCK)) < PLACES) {
        block(place);
        found++;
    }
    if (find(ENTROPY) < PLACES) {
        entropy();
        found++;
    }
    if (find(CONSOLE) < PLACES) {
        console();
        found++;
    }
    put_string("virtio: ");
    put_decimal(found, 1);
    put_string(" devices\n");
}
