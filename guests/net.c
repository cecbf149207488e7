/*
 * net: a network interface, polled: an e1000 over PCI, or else a virtio device over MMIO. Arguments:
 *
 *     (none)                   frames that come back (--net loop): of all lengths, many behind one notification, and
 *                              over several buffers; a jumbo frame, with an e1000
 *     OWN                      answers as 10.0.2.OWN: ARP, ICMP echo, UDP echo (port 7), until UDP to port 9 ends it
 *     OWN PEER COUNT [END]     COUNT round trips to 10.0.2.PEER by UDP, or with END 2 by ICMP; END 1 ends the peer
 *
 * Status 0; 3 if a proof fails.
 */
#include "net.h"
#include "common/command_line.h"
#include "common/console.h"
#include "common/guest.h"
#include "common/rdtsc.h"

#define ETHERNET     14
#define LONGEST      1514
#define JUMBO        9014
#define IP           0x0800
#define ARP          0x0806
#define ICMP         1
#define UDP          17
#define ECHO_PORT    7
#define END_PORT     9
#define OWN_PORT     1024

static const struct interface *net;
static uint8_t own_mac[6], peer_mac[6];
static const uint8_t everybody[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
static unsigned own, peer, answers;
static bool ended;

/* --- Frames that come back ------------------------------------------------------------------------------ */

/* The byte at each 16th place; those between are not looked at. */
static uint8_t pattern(unsigned number, unsigned place)
{
    return (uint8_t)(number * 37 + place * 11 + place / 256);
}

static void loop(const char *text, uint32_t first, uint32_t step, unsigned count)
{
    for (unsigned number = 0; number < count; number++) {
        for (unsigned place = 0; place < first + number * step; place += 16)
            net->frame(number)[place] = pattern(number, place);
        net->queue(number, first + number * step);
    }
    net->flush();
    for (unsigned number = 0; number < count; number++) {
        uint32_t length = first + number * step, place = 0;
        struct part part = {0, 0, 0, false};

        for (uint32_t done = 0; !part.last; done += part.length) {
            part = net->receive(PATIENCE);
            if (part.number >= BUFFERS)
                fail("net: a frame does not come back");
            for (; place < done + part.length && place < length; place += 16)
                if (part.data[place - done] != pattern(number, place))
                    fail("net: a frame has other bytes");
            /* A short frame may come with zeros behind it. */
            if (part.last && done + part.length != length && (length >= 60 || done + part.length != 60))
                fail("net: a frame has another length");
            net->give(part.number);
        }
    }
    net->more();
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
    uint8_t *at = net->frame(0);

    put_ethernet(at, operation == 1 ? everybody : to, ARP);
    put16(at + 14, 1);
    put16(at + 16, IP);
    put16(at + 18, 0x0604);
    put16(at + 20, operation);
    __builtin_memcpy(at + 22, own_mac, 6);
    put_address(at + 28, own);
    __builtin_memcpy(at + 32, to, 6);
    put_address(at + 38, host);
    net->queue(0, 42);
    net->flush();
}

/* An IP packet to the peer; the payload behind its header is there. */
static void send_ip(unsigned protocol, unsigned length)
{
    uint8_t *at = net->frame(0);

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
    net->queue(0, ETHERNET + 20 + length);
    net->flush();
}

static void send_udp(unsigned port, unsigned number)
{
    uint8_t *at = net->frame(0) + ETHERNET + 20;

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
    uint8_t *at = net->frame(0) + ETHERNET + 20;

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
    uint8_t *at = net->frame(0);
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
    net->queue(0, length);
    net->flush();
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
    static unsigned given;
    struct part part = net->receive(must ? PATIENCE : 1000000);
    bool is_answer;

    if (part.number >= BUFFERS) {
        if (must)
            fail("net: there is no answer");
        return false;
    }
    is_answer = part.last && handle(part.data, part.length);
    net->give(part.number);
    if (++given % 16 == 0)
        net->more();
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
    net = net_e1000.find() ? &net_e1000 : &net_virtio;
    if (net == &net_virtio && !net->find())
        fail("net: there is no network interface");
    net->start(BUFFER, own_mac);
    if (!own) {
        loop("ok net: one frame of each length\n", ETHERNET, 25, BUFFERS - 4);
        loop("ok net: the longest frames\n", LONGEST, 0, BUFFERS);
        net->start(256, own_mac);
        for (unsigned turn = 0; turn < 3; turn++)
            loop(turn ? "" : "ok net: frames over several buffers\n", LONGEST - 200, 50, 5);
        if (net == &net_e1000)
            loop("ok net: a jumbo frame\n", JUMBO, 0, 1);
        return;
    }
    peer = decimal_argument(info, 1, 0);
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
