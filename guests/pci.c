/*
 * pci: what is on bus 0, as "lspci -n" prints it, with sizes and places of base address registers. If there is a
 * virtio entropy device, that is driven over its structures and over the legacy ports, with INTx and with MSI-X; its
 * registers are moved while it works, and put where something else is. Status 0; 3 if a proof fails.
 *
 * --pci on; --rng is optional.
 */
#include "common/console.h"
#include "common/guest.h"
#include "common/interrupts.h"
#include "common/io.h"
#include "common/messages.h"

/* PCI Local Bus Specification 3.0, 3.2.2.3.2 and 6.1. */
#define ADDRESS 0xcf8
#define DATA    0xcfc
#define ENABLE  0x80000000u

#define ID         0x00
#define COMMAND    0x04
#define CLASS      0x08
#define HEADER     0x0c
#define BARS       0x10
#define CAPABILITY 0x34
#define INTERRUPT  0x3c

#define IO       1u
#define MEMORY   2u
#define MASTER   4u
#define NO_INTX  0x400u
#define MSIX     0x11
#define MSIX_ON  0x80000000u
#define MSIX_ALL 0x40000000u

/* Virtual I/O Device Version 1.2, 4.1.4. */
#define COMMON      0
#define DRIVER_SEL  0x08
#define DRIVER_FEAT 0x0c
#define STATUS      0x14
#define QUEUE_SIZE  0x18
#define QUEUE_VEC   0x1a
#define QUEUE_ON    0x1c
#define QUEUE_AREAS 0x20
#define ISR         0x1000
#define NOTIFY      0x3000
#define ENTROPY     0x10051af4u

#define LOCAL_APIC 0xfee00000u
#define VECTOR     0x2d /* what IRQ 13 would have */
#define ENTRIES    256
#define PAGE       4096

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

/* As the legacy interface wants it, 2.7.2; with structures each of the three may be anywhere. */
static struct {
    struct descriptor descriptors[ENTRIES];
    struct {
        volatile uint16_t flags, index, ring[ENTRIES], event;
    } available;
    struct {
        volatile uint16_t flags, index;
        struct {
            uint32_t id, length;
        } ring[ENTRIES];
        uint16_t event;
    } used __attribute__((aligned(PAGE)));
} queue __attribute__((aligned(PAGE)));

static uint8_t bytes[64];
static volatile uint8_t canary[8 * PAGE] __attribute__((aligned(4 * PAGE)));
static volatile unsigned interrupts;
static unsigned rng; /* device and function */
static uintptr_t modern;

static uint32_t config(unsigned function, unsigned offset)
{
    outl(ADDRESS, ENABLE | function << 8 | offset);
    return inl(DATA);
}

static void set_config(unsigned function, unsigned offset, uint32_t value)
{
    outl(ADDRESS, ENABLE | function << 8 | offset);
    outl(DATA, value);
}

static unsigned bar(unsigned index)
{
    return BARS + 4 * index;
}

static volatile uint32_t *at(uintptr_t address)
{
    return (volatile uint32_t *)address;
}

static void put_size(uint32_t mask)
{
    put_decimal(~mask + 1, 1);
    put_string(" bytes\n");
}

static void show_bars(unsigned function)
{
    uint32_t command = config(function, COMMAND);

    for (unsigned index = 0; index < 6; index++) {
        uint32_t value = config(function, bar(index)), mask;

        set_config(function, COMMAND, command & ~(IO | MEMORY));
        set_config(function, bar(index), 0xffffffff);
        mask = config(function, bar(index));
        set_config(function, bar(index), value);
        set_config(function, COMMAND, command);
        if (!mask)
            continue;
        put_string("  base address ");
        put_decimal(index, 1);
        put_string(value & 1 ? ": ports at " : ": memory at ");
        put_hex(value & ~(value & 1 ? 3u : 15u), value & 1 ? 4 : 8);
        put_string(", ");
        put_size(value & 1 ? mask & ~3u : mask & ~15u);
        if ((value & 7) == 4)
            index++; /* the other half */
    }
}

static void show(unsigned function)
{
    uint32_t id = config(function, ID), class = config(function, CLASS);
    uint8_t pin = (uint8_t)(config(function, INTERRUPT) >> 8);

    put_string("00:");
    put_hex(function >> 3, 2);
    put_string(".");
    put_decimal(function & 7, 1);
    put_string(" ");
    put_hex(class >> 16, 4);
    put_string(": ");
    put_hex(id & 0xffff, 4);
    put_string(":");
    put_hex(id >> 16, 4);
    if (class & 0xff) {
        put_string(" (rev ");
        put_hex(class & 0xff, 2);
        put_string(")");
    }
    put_string("\n");
    show_bars(function);
    if (pin) {
        put_string("  interrupt INT");
        put_string(pin == 1 ? "A" : "?");
        put_string("#, line ");
        put_decimal(config(function, INTERRUPT) & 0xff, 1);
        put_string("\n");
    }
}

static unsigned scan(void)
{
    unsigned found = 0;

    for (unsigned function = 0; function < 256; function++) {
        if ((uint16_t)config(function, ID) == 0xffff) {
            if (!(function & 7))
                function |= 7;
            continue;
        }
        found++;
        show(function);
        if (config(function, ID) == ENTROPY)
            rng = function;
        if (!(function & 7) && !(config(function, HEADER) >> 16 & 0x80))
            function |= 7;
    }
    return found;
}

static unsigned capability(unsigned wanted)
{
    unsigned place = config(rng, CAPABILITY) & 0xff;

    while (place && (config(rng, place) & 0xff) != wanted)
        place = config(rng, place) >> 8 & 0xff;
    return place;
}

static void clear_queue(void)
{
    queue.available.flags = queue.available.index = 0;
    queue.used.flags = queue.used.index = 0;
    queue.descriptors[0].address = (uintptr_t)bytes;
    queue.descriptors[0].length = sizeof bytes;
    queue.descriptors[0].flags = 2;
}

static void set_area(unsigned area, const volatile void *where)
{
    *at(modern + QUEUE_AREAS + 8 * area) = (uint32_t)(uintptr_t)where;
    *at(modern + QUEUE_AREAS + 8 * area + 4) = 0;
}

static volatile uint8_t *status(void)
{
    return (volatile uint8_t *)(modern + STATUS);
}

static volatile uint16_t *half(unsigned offset)
{
    return (volatile uint16_t *)(modern + offset);
}

static void start_modern(int vector)
{
    *status() = 0;
    *status() = 3;
    *at(modern + DRIVER_SEL) = 0;
    *at(modern + DRIVER_FEAT) = 0;
    *at(modern + DRIVER_SEL) = 1;
    *at(modern + DRIVER_FEAT) = 1;
    *status() = 11;
    if (*status() != 11)
        fail("the features are not accepted");
    clear_queue();
    *half(QUEUE_SIZE) = ENTRIES;
    set_area(0, queue.descriptors);
    set_area(1, &queue.available);
    set_area(2, &queue.used);
    if (vector) {
        *half(QUEUE_VEC) = 1;
        if (*half(QUEUE_VEC) != 1)
            fail("the vector is not taken");
    }
    *half(QUEUE_ON) = 1;
    *status() = 15;
}

static void offer(void)
{
    queue.available.ring[queue.available.index % ENTRIES] = 0;
    __asm__ volatile("" : : : "memory");
    queue.available.index++;
}

static void wait_used(const char *text)
{
    for (unsigned patience = 0; queue.used.index != queue.available.index; patience++)
        if (patience > 100000000)
            fail(text);
}

static void read_entropy(const char *text)
{
    offer();
    *at(modern + NOTIFY) = 0;
    wait_used(text);
}

static void acknowledge(void)
{
    interrupts++;
    (void)*(volatile uint8_t *)(modern + ISR);
}

static void by_pin(void)
{
    unsigned line = config(rng, INTERRUPT) & 0xff;

    start_modern(0);
    irq_enable(line, acknowledge);
    offer();
    *at(modern + NOTIFY) = 0;
    if (!wait_for(&interrupts, 1, 5))
        fail("INTx does not come");
    wait_used("the entropy does not come");

    set_config(rng, COMMAND, config(rng, COMMAND) | NO_INTX);
    read_entropy("the entropy does not come without INTx");
    if (interrupts != 1)
        fail("INTx comes although it is off");
    set_config(rng, COMMAND, config(rng, COMMAND) & ~NO_INTX);
    if (!wait_for(&interrupts, 2, 5))
        fail("INTx does not come when it is on again");
    irq_disable(line);
    put_string("ok interrupts by pin\n");
}

/* The router: interrupt `pirq` of the bus to another line. */
static void by_another_line(void)
{
    unsigned pirq = ((rng >> 3) + 3) % 4, goal = interrupts + 1, offset = 0x60, other = 5;
    uint32_t routes = config(8, offset);

    set_config(8, offset, (routes & ~(0xffu << 8 * pirq)) | other << 8 * pirq);
    outb(0x4d0, inb(0x4d0) | 1 << other);
    irq_enable(other, acknowledge);
    offer();
    *at(modern + NOTIFY) = 0;
    if (!wait_for(&interrupts, goal, 5))
        fail("the router does not route");
    irq_disable(other);
    set_config(8, offset, routes);
    put_string("ok interrupts by another line\n");
}

static void by_message(void)
{
    unsigned place = capability(MSIX);
    uint32_t control = config(rng, place);
    volatile uint32_t *entry = at((config(rng, bar(1)) & ~15u) + 16);

    if ((control >> 16 & 0x7ff) < 1)
        fail("there are too few vectors");
    *at(LOCAL_APIC + 0xf0) = 0x1ff;
    vector_set(VECTOR, message_stub);
    entry[0] = LOCAL_APIC;
    entry[1] = 0;
    entry[2] = VECTOR;
    entry[3] = 0;
    set_config(rng, place, control | MSIX_ON);
    start_modern(1);
    offer();
    *at(modern + NOTIFY) = 0;
    if (!wait_for(&messages, 1, 5))
        fail("the message does not come");

    entry[3] = 1;
    read_entropy("the entropy does not come with a masked vector");
    if (wait_for(&messages, 2, 0))
        fail("a masked vector interrupts");
    entry[3] = 0;
    if (!wait_for(&messages, 2, 5))
        fail("what was masked is lost");

    set_config(rng, place, control | MSIX_ON | MSIX_ALL);
    read_entropy("the entropy does not come with a masked function");
    set_config(rng, place, control | MSIX_ON);
    if (!wait_for(&messages, 3, 5))
        fail("what was masked with the function is lost");

    entry[0] = 0x1000;
    entry[2] = 0x12345678;
    *at(0x1000) = 0;
    read_entropy("the entropy does not come with a message to memory");
    if (*at(0x1000) || messages != 3)
        fail("a message goes to memory");
    set_config(rng, place, control);
    put_string("ok interrupts by message\n");
}

static void nothing_at(uintptr_t address, const char *text)
{
    if (*at(address) != 0xffffffff)
        fail(text);
}

static void moved(void)
{
    uintptr_t home = modern, away = 0xe8000000u;
    uint32_t other = config(rng, bar(1)) & ~15u;

    start_modern(0);
    set_config(rng, bar(4), (uint32_t)away);
    nothing_at(home + COMMON, "the old place still answers");
    modern = away;
    read_entropy("the entropy does not come from another place");
    set_config(rng, COMMAND, config(rng, COMMAND) & ~MEMORY);
    nothing_at(away + COMMON, "it answers with memory off");
    set_config(rng, COMMAND, config(rng, COMMAND) | MEMORY);
    read_entropy("the entropy does not come after that");
    put_string("ok moved\n");

    for (unsigned place = 0; place < sizeof canary; place++)
        canary[place] = 0x5a;
    set_config(rng, bar(4), (uint32_t)(uintptr_t)canary & ~0x3fffu);
    for (unsigned place = 0; place < sizeof canary; place++)
        if (canary[place] != 0x5a)
            fail("it is over memory");
    nothing_at(away + COMMON, "it is still where it was");
    set_config(rng, bar(4), LOCAL_APIC);
    if (*at(LOCAL_APIC + 0xf0) != 0x1ff)
        fail("it is over the local APIC");
    set_config(rng, bar(4), other & ~0x3fffu);
    if (*at(other + 16) != 0x1000)
        fail("it is over another register");
    set_config(rng, bar(4), (uint32_t)home);
    modern = home;
    read_entropy("the entropy does not come at home");
    put_string("ok put over nothing\n");
}

static void legacy(void)
{
    uint16_t port = (uint16_t)(config(rng, bar(0)) & ~3u);

    outb(port + 0x12, 0);
    outb(port + 0x12, 3);
    outl(port + 0x04, 0);
    outw(port + 0x0e, 0);
    if (inw(port + 0x0c) != ENTRIES)
        fail("a legacy queue has another size");
    clear_queue();
    outl(port + 0x08, (uint32_t)((uintptr_t)&queue / PAGE));
    outb(port + 0x12, 7);
    offer();
    outw(port + 0x10, 0);
    wait_used("the entropy does not come over the legacy ports");
    if (!(inb(port + 0x13) & 1) || inb(port + 0x13))
        fail("the legacy interrupt status is wrong");

    set_config(rng, bar(0), 0xd00);
    if (inb(port + 0x12) != 0xff || inb(0xd12) != 7)
        fail("the legacy ports do not move");
    set_config(rng, bar(0), 0x3f8 & ~31u);
    if (inb(0xd12) != 0xff)
        fail("the legacy ports do not leave");
    set_config(rng, bar(0), port);
    put_string("ok legacy\n");
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    unsigned found;

    (void)magic;
    (void)info;
    outl(ADDRESS, ENABLE);
    if (inl(ADDRESS) != ENABLE) {
        put_string("no PCI\n");
        return;
    }
    found = scan();
    interrupts_init();
    if (!ticks_start(1))
        fail("the timer does not tick");
    if (rng) {
        modern = config(rng, bar(4)) & ~15u;
        set_config(rng, COMMAND, config(rng, COMMAND) | IO | MEMORY | MASTER);
        by_pin();
        by_another_line();
        by_message();
        moved();
        legacy();
    }
    put_string("pci: ");
    put_decimal(found, 1);
    put_string(" functions\n");
}
