/* net: the driver of a virtio network device over MMIO, at kvmbox's addresses or at those of QEMU's microvm. */
#include "net.h"
#include "common/console.h"
#include "common/rdtsc.h"

/* Virtual I/O Device Version 1.2, 4.2.2, 2.7, 5.1. */
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
#define CONFIG       0x100

#define DRIVER       3 /* with ACKNOWLEDGE */
#define DRIVER_OK    4
#define FEATURES_OK  8
#define NET          1
#define F_MAC        (1u << 5)
#define F_MRG_RXBUF  (1u << 15)

#define SIZE         BUFFERS
#define WRITE        2
#define NO_INTERRUPT 1
#define HEADER       12

struct descriptor {
    uint32_t address, high, length;
    uint16_t flags, next;
};

struct queue {
    struct descriptor descriptors[SIZE];
    volatile struct {
        uint16_t flags, index, ring[SIZE];
    } available;
    volatile struct {
        uint16_t flags, index;
        struct {
            uint32_t id, length;
        } ring[SIZE];
    } used __attribute__((aligned(4)));
    uint16_t seen;
    uint8_t buffers[SIZE][BUFFER];
} __attribute__((aligned(16)));

static struct queue queues[2];
#define RECEIVED (&queues[0])
#define SENT     (&queues[1])

static uint32_t device;
static unsigned parts; /* of the frame that is being received */

static volatile uint32_t *reg(unsigned offset)
{
    return (volatile uint32_t *)(device + offset);
}

static bool is_net(uint32_t address)
{
    device = address;
    return *reg(MAGIC) == 0x74726976 && *reg(VERSION) == 2 && *reg(DEVICE_ID) == NET;
}

static bool find(void)
{
    for (unsigned place = 0; place < 8; place++)
        if (is_net(0xd0001000 + place * STEP))
            return true;
    for (unsigned place = 0; place < 24; place++)
        if (is_net(0xfeb00000 + place * STEP))
            return true;
    return false;
}

/* Let the device have receive buffer `number`. */
static void give(unsigned number)
{
    RECEIVED->available.ring[RECEIVED->available.index % SIZE] = (uint16_t)number;
    RECEIVED->available.index++; /* the i386 does not reorder stores, and a notification leaves the guest */
}

static void start(uint32_t room, uint8_t *address)
{
    parts = 0;
    *reg(STATUS) = 0;
    *reg(STATUS) = DRIVER;
    *reg(FEATURES_SEL) = 0;
    *reg(FEATURES) = F_MAC | F_MRG_RXBUF;
    *reg(FEATURES_SEL) = 1;
    *reg(FEATURES) = 1; /* VERSION_1 */
    *reg(STATUS) = DRIVER | FEATURES_OK;
    if (!(*reg(STATUS) & FEATURES_OK))
        fail("net: the features are not accepted");
    for (unsigned index = 0; index < 2; index++) {
        struct queue *queue = &queues[index];

        *reg(QUEUE_SEL) = index;
        *reg(QUEUE_NUM) = SIZE;
        *reg(QUEUE_DESC) = (uint32_t)(uintptr_t)queue->descriptors;
        *reg(QUEUE_DRIVER) = (uint32_t)(uintptr_t)&queue->available;
        *reg(QUEUE_DEVICE) = (uint32_t)(uintptr_t)&queue->used;
        queue->available.flags = NO_INTERRUPT;
        queue->available.index = queue->used.index = queue->seen = 0;
        for (unsigned number = 0; number < SIZE; number++)
            queue->descriptors[number] = (struct descriptor){
                (uint32_t)(uintptr_t)queue->buffers[number], 0, index ? BUFFER : room, index ? 0 : WRITE, 0};
        *reg(QUEUE_READY) = 1;
    }
    *reg(STATUS) = DRIVER | FEATURES_OK | DRIVER_OK;
    for (unsigned number = 0; number < SIZE; number++)
        give(number);
    *reg(QUEUE_NOTIFY) = 0;
    for (unsigned place = 0; place < 6; place++)
        address[place] = *(volatile uint8_t *)(device + CONFIG + place);
}

/* Where the next frame to send is made. Its buffer came back long ago: each one is waited for. */
static uint8_t *frame(unsigned number)
{
    return SENT->buffers[number] + HEADER;
}

static void queue_frame(unsigned number, uint32_t length)
{
    SENT->descriptors[number].length = HEADER + length;
    SENT->available.ring[SENT->available.index % SIZE] = (uint16_t)number;
    SENT->available.index++;
}

static void flush(void)
{
    *reg(QUEUE_NOTIFY) = 1;
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
    part.data = RECEIVED->buffers[part.number];
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
    *reg(QUEUE_NOTIFY) = 0;
}

const struct interface net_virtio = {find, start, frame, queue_frame, flush, receive, give, more};
