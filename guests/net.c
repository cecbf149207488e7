/*
 * net: a virtio network device over MMIO, polled, at kvmbox's addresses or at those of QEMU's microvm. Arguments:
 *
 *     (none)                   frames that come back (--net loop): of all lengths, many behind one notification, and
 *                              over several buffers (MRG_RXBUF)
 *     OWN                      answers as 10.0.2.OWN: ARP, ICMP echo, UDP echo (port 7), until UDP to port 9 ends it
 *     OWN PEER COUNT [END]     COUNT round trips to 10.0.2.PEER by UDP, or with END 2 by ICMP; END 1 ends the peer
 *
 * Status 0; 3 if a proof fails.
 */
#include "common/command_line.h"
#include "common/console.h"
#include "common/guest.h"
#include "common/io.h"
#include "common/rdtsc.h"
#include <stdbool.h>

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

#define SIZE         64
#define WRITE        2
#define NO_INTERRUPT 1
#define HEADER       12
#define BUFFER       2048
#define PATIENCE     20000000000ull /* TSC cycles */

#define ETHERNET     14
#define LONGEST      1514
#define IP           0x0800
#define ARP          0x0806
#define ICMP         1
#define UDP          17
#define ECHO_PORT    7
#define END_PORT     9
#define OWN_PORT     1024

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
static uint8_t own_mac[6], peer_mac[6];
static const uint8_t everybody[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
static unsigned own, peer, answers;
static bool ended;

static volatile uint32_t *reg(unsigned offset)
{
    return (volatile uint32_t *)(device + offset);
}

static bool is_net(uint32_t address)
{
    device = address;
    return *reg(MAGIC) == 0x74726976 && *reg(VERSION) == 2 && *reg(DEVICE_ID) == NET;
}

static void find(void)
{
    for (unsigned place = 0; place < 8; place++)
        if (is_net(0xd0001000 + place * STEP))
            return;
    for (unsigned place = 0; place < 24; place++)
        if (is_net(0xfeb00000 + place * STEP))
            return;
    fail("net: there is no virtio network device");
}

/* Let the device have receive buffer `number`. */
static void give(unsigned number)
{
    RECEIVED->available.ring[RECEIVED->available.index % SIZE] = (uint16_t)number;
    RECEIVED->available.index++; /* the i386 does not reorder stores, and a notification leaves the guest */
}

static void start(uint32_t features, uint32_t buffer)
{
    *reg(STATUS) = 0;
    *reg(STATUS) = DRIVER;
    *reg(FEATURES_SEL) = 0;
    *reg(FEATURES) = features | F_MAC;
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
                (uint32_t)(uintptr_t)queue->buffers[number], 0, buffer, index ? 0 : WRITE, 0};
        *reg(QUEUE_READY) = 1;
    }
    *reg(STATUS) = DRIVER | FEATURES_OK | DRIVER_OK;
    for (unsigned number = 0; number < SIZE; number++)
        give(number);
    *reg(QUEUE_NOTIFY) = 0;
    for (unsigned place = 0; place < sizeof own_mac; place++)
        own_mac[place] = *(volatile uint8_t *)(device + CONFIG + place);
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

/* The number of the buffer with the next received frame, or SIZE if none comes in time. */
static unsigned receive(uint32_t *length, uint64_t patience)
{
    for (uint64_t began = rdtsc(); RECEIVED->used.index == RECEIVED->seen;)
        if (rdtsc() - began > patience)
            return SIZE;
    *length = RECEIVED->used.ring[RECEIVED->seen % SIZE].length;
    return (unsigned)RECEIVED->used.ring[RECEIVED->seen++ % SIZE].id;
}

/* --- Frames that come back ------------------------------------------------------------------------------ */

/* The byte at each 16th place; those between are not looked at. */
static uint8_t pattern(unsigned number, unsigned place)
{
    return (uint8_t)(number * 37 + place * 11 + place / 256);
}

static void loop(const char *text, uint32_t first, uint32_t step, unsigned count, uint32_t buffer)
{
    for (unsigned number = 0; number < count; number++) {
        for (unsigned place = 0; place < first + number * step; place += 16)
            frame(number)[place] = pattern(number, place);
        queue_frame(number, first + number * step);
    }
    flush();
    for (unsigned number = 0; number < count; number++) {
        uint32_t left = HEADER + first + number * step, place = 0;
        unsigned buffers = (left + buffer - 1) / buffer, skip = HEADER;

        for (unsigned part = 0; part < buffers; part++) {
            uint32_t length;
            unsigned which = receive(&length, PATIENCE);

            if (which >= SIZE)
                fail("net: a frame does not come back");
            if (length != (left < buffer ? left : buffer))
                fail("net: a frame has another length");
            if (!part && *(uint16_t *)(RECEIVED->buffers[which] + 10) != buffers)
                fail("net: a frame has another number of buffers");
            for (; skip < length; skip += 16, place += 16)
                if (RECEIVED->buffers[which][skip] != pattern(number, place))
                    fail("net: a frame has other bytes");
            skip -= length;
            left -= length;
            give(which);
        }
    }
    *reg(QUEUE_NOTIFY) = 0;
    put_string(text);
}

/* --- A little of the internet --------------------------------------------------------------------------- */

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static unsigned get16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

static unsigned sum(const uint8_t *at, unsigned length)
{
    uint32_t total = 0;

    for (; length > 1; length -= 2, at += 2)
        total += get16(at);
    if (length)
        total += (uint32_t)*at << 8;
    total = (total & 0xffff) + (total >> 16);
    return ~(total + (total >> 16)) & 0xffff;
}

static void put_address(uint8_t *at, unsigned host)
{
    at[0] = 10;
    at[1] = 0;
    at[2] = 2;
    at[3] = (uint8_t)host;
}

static void put_ethernet(uint8_t *at, const uint8_t *to, unsigned type)
{
    __builtin_memcpy(at, to, 6);
    __builtin_memcpy(at + 6, own_mac, 6);
    put16(at + 12, type);
}

static void send_arp(unsigned operation, const uint8_t *to, unsigned host)
{
    uint8_t *at = frame(0);

    put_ethernet(at, operation == 1 ? everybody : to, ARP);
    put16(at + 14, 1);
    put16(at + 16, IP);
    put16(at + 18, 0x0604);
    put16(at + 20, operation);
    __builtin_memcpy(at + 22, own_mac, 6);
    put_address(at + 28, own);
    __builtin_memcpy(at + 32, to, 6);
    put_address(at + 38, host);
    queue_frame(0, 42);
    flush();
}

/* An IP packet to the peer; the payload behind its header is there. */
static void send_ip(unsigned protocol, unsigned length)
{
    uint8_t *at = frame(0);

    put_ethernet(at, peer_mac, IP);
    at += ETHERNET;
    put16(at, 0x4500);
    put16(at + 2, 20 + length);
    put16(at + 4, 0);
    put16(at + 6, 0x4000);
    put16(at + 8, 64 << 8 | protocol);
    put16(at + 10, 0);
    put_address(at + 12, own);
    put_address(at + 16, peer);
    put16(at + 10, sum(at, 20));
    queue_frame(0, ETHERNET + 20 + length);
    flush();
}

static void send_udp(unsigned port, unsigned number)
{
    uint8_t *at = frame(0) + ETHERNET + 20;

    put16(at, OWN_PORT);
    put16(at + 2, port);
    put16(at + 4, 8 + 32);
    put16(at + 6, 0); /* no checksum */
    for (unsigned place = 0; place < 32; place++)
        at[8 + place] = (uint8_t)(number + place);
    send_ip(UDP, 8 + 32);
}

static void send_ping(unsigned number)
{
    uint8_t *at = frame(0) + ETHERNET + 20;

    put16(at, 8 << 8);
    put16(at + 2, 0);
    put16(at + 4, 1);
    put16(at + 6, number);
    for (unsigned place = 0; place < 32; place++)
        at[8 + place] = (uint8_t)(number + place);
    put16(at + 2, sum(at, 8 + 32));
    send_ip(ICMP, 8 + 32);
}

/* An echo: the same packet, with its addresses exchanged. */
static void echo(const uint8_t *from, uint32_t length)
{
    uint8_t *at = frame(0);
    unsigned header = (from[ETHERNET] & 15) * 4u;
    uint8_t *payload = at + ETHERNET + header;

    __builtin_memcpy(at, from, length);
    __builtin_memcpy(at, from + 6, 6);
    __builtin_memcpy(at + 6, own_mac, 6);
    __builtin_memcpy(at + ETHERNET + 12, from + ETHERNET + 16, 4);
    __builtin_memcpy(at + ETHERNET + 16, from + ETHERNET + 12, 4);
    if (at[ETHERNET + 9] == ICMP) {
        unsigned size = get16(at + ETHERNET + 2) - header;

        put16(payload, 0);
        put16(payload + 2, 0);
        put16(payload + 2, sum(payload, size));
    } else {
        unsigned port = get16(payload);

        put16(payload, get16(payload + 2));
        put16(payload + 2, port);
    }
    queue_frame(0, length);
    flush();
    answers++;
}

/* What the frame is for us: 1 for the answer that is waited for. */
static bool handle(const uint8_t *at, uint32_t length)
{
    const uint8_t *ip = at + ETHERNET, *payload;

    if (length < 42)
        return false;
    if (get16(at + 12) == ARP && at[41] == own) {
        if (get16(at + 20) == 1)
            send_arp(2, at + 6, at[31]);
        else if (at[31] == peer)
            __builtin_memcpy(peer_mac, at + 22, 6);
        return get16(at + 20) == 2;
    }
    payload = ip + (ip[0] & 15) * 4u;
    if (get16(at + 12) != IP || ip[19] != own || payload + 8 > at + length)
        return false;
    if (ip[9] == ICMP && payload[0] == 8)
        echo(at, length);
    else if (ip[9] == UDP && get16(payload + 2) == ECHO_PORT)
        echo(at, length);
    else if (ip[9] == UDP && get16(payload + 2) == END_PORT)
        ended = true;
    else
        return ip[15] == peer && (ip[9] == UDP ? get16(payload) == ECHO_PORT : payload[0] == 0);
    return false;
}

/* Handle one frame; whether it was an answer. Without any, for a long time, the proof fails if there has to be one. */
static bool serve(bool must)
{
    uint32_t length;
    unsigned which = receive(&length, must ? PATIENCE : 1000000);
    bool is_answer;

    if (which >= SIZE) {
        if (must)
            fail("net: there is no answer");
        return false;
    }
    is_answer = handle(RECEIVED->buffers[which] + HEADER, length - HEADER);
    give(which);
    if (RECEIVED->available.index % 16 == 0)
        *reg(QUEUE_NOTIFY) = 0;
    return is_answer;
}

static void await(void)
{
    while (!serve(true))
        ;
}

static void talk(unsigned count, unsigned end)
{
    bool found = false;
    uint64_t began;

    for (unsigned tries = 0; tries < 2000 && !found; tries++) { /* the peer may not be there yet */
        send_arp(1, everybody, peer);
        for (unsigned wait = 0; wait < 50 && !found; wait++)
            found = serve(false);
    }
    if (!found)
        fail("net: the peer has no address");
    put_string("ok net: the peer is there\n");
    began = rdtsc();
    for (unsigned number = 0; number < count; number++) {
        if (end == 2)
            send_ping(number);
        else
            send_udp(ECHO_PORT, number);
        await();
    }
    began = rdtsc() - began;
    put_string("ok net: round trips ");
    put_decimal(count, 1);
    put_string(" cycles ");
    while (began >> 32) { /* without a division of 64 bits */
        began >>= 1;
        count >>= 1;
    }
    put_decimal(count ? (uint32_t)began / count : 0, 1);
    put_string("\n");
    if (end == 1)
        send_udp(END_PORT, 0);
    put_string("net: done\n");
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    own = magic == MULTIBOOT_MAGIC ? decimal_argument(info, 0, 0) : 0;
    find();
    if (!own) {
        start(0, BUFFER);
        loop("ok net: one frame of each length\n", ETHERNET, 25, SIZE - 4, BUFFER);
        loop("ok net: the longest frames\n", LONGEST, 0, SIZE, BUFFER);
        start(F_MRG_RXBUF, 256);
        for (unsigned turn = 0; turn < 3; turn++) {
            for (unsigned number = 0; number < SIZE; number++)
                SENT->descriptors[number].length = BUFFER;
            loop(turn ? "" : "ok net: frames over several buffers\n", LONGEST - 200, 50, 5, 256);
        }
        return;
    }
    peer = decimal_argument(info, 1, 0);
    start(0, BUFFER);
    if (peer) {
        talk(decimal_argument(info, 2, 10), decimal_argument(info, 3, 0));
        return;
    }
    put_string("net: ready\n");
    while (!ended)
        serve(false);
    put_string("net: answers ");
    put_decimal(answers, 1);
    put_string("\n");
}
