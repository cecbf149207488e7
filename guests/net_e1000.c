/* net: the driver of an Intel 82540EM, as tutorials have it. Registers and descriptors: 317453, 13.4, 3.2 and 3.3. */
#include "e1000.h"
#include "common/console.h"
#include "common/rdtsc.h"

uint32_t e1000_registers;
unsigned e1000_function;
struct e1000_descriptor e1000_received[E1000_RING] __attribute__((aligned(16)));
struct e1000_descriptor e1000_sent[E1000_RING] __attribute__((aligned(16)));
unsigned e1000_send_tail;

static uint8_t buffers[2][BUFFERS][BUFFER] __attribute__((aligned(16)));
static uint8_t buffer_at[E1000_RING]; /* which buffer a receive descriptor has */
static unsigned tail, seen;

static bool find(void)
{
    outl(PCI_ADDRESS, PCI_ENABLE);
    if (inl(PCI_ADDRESS) != PCI_ENABLE)
        return false;
    for (e1000_function = 0; e1000_function < 256; e1000_function += 8) {
        if (pci_read(e1000_function, 0) == 0x100e8086) {
            pci_write(e1000_function, 4, pci_read(e1000_function, 4) | 7);
            e1000_registers = pci_read(e1000_function, 0x10) & ~15u;
            return true;
        }
    }
    return false;
}

/* The receive descriptor at the tail gets buffer `number`. */
static void give(unsigned number)
{
    buffer_at[tail] = (uint8_t)number;
    e1000_received[tail] = (struct e1000_descriptor){(uint32_t)(uintptr_t)buffers[0][number], 0, 0, 0};
    tail = (tail + 1) % E1000_RING;
}

static void more(void)
{
    *e1000(RDBAL + TAIL) = tail;
}

static void set_ring(unsigned ring, struct e1000_descriptor *descriptors)
{
    *e1000(ring) = (uint32_t)(uintptr_t)descriptors;
    *e1000(ring + BAH) = 0;
    *e1000(ring + LEN) = E1000_RING * sizeof *descriptors;
    *e1000(ring + HEAD) = *e1000(ring + TAIL) = 0;
}

static void start(uint32_t room, uint8_t *address)
{
    uint32_t low, high;

    *e1000(CTRL) = *e1000(CTRL) | CTRL_RST;
    while (*e1000(CTRL) & CTRL_RST)
        ;
    *e1000(CTRL) |= CTRL_SLU | CTRL_ASDE;
    *e1000(IMC) = 0xffffffff;
    (void)*e1000(ICR);
    for (unsigned place = 0; place < 128; place++)
        *e1000(MTA + 4 * place) = 0;
    low = *e1000(RAL);
    high = *e1000(RAH);
    for (unsigned place = 0; place < 6; place++)
        address[place] = (uint8_t)(place < 4 ? low >> 8 * place : high >> 8 * (place - 4));
    set_ring(RDBAL, e1000_received);
    set_ring(TDBAL, e1000_sent);
    tail = seen = e1000_send_tail = 0;
    for (unsigned number = 0; number < BUFFERS; number++)
        give(number);
    *e1000(TIPG) = 10 | 8 << 10 | 6 << 20;
    *e1000(TCTL) = EN | TCTL_PSP | 0x10 << 4 | 0x40 << 12;
    *e1000(RCTL) = EN | RCTL_UPE | RCTL_LPE | RCTL_MPE | RCTL_BAM | RCTL_SECRC | (room == 256 ? RCTL_256 : RCTL_2048);
    more();
}

static uint8_t *frame(unsigned number)
{
    return buffers[1][number];
}

static void queue(unsigned number, uint32_t length)
{
    e1000_sent[e1000_send_tail] =
        (struct e1000_descriptor){(uint32_t)(uintptr_t)frame(number), 0, CMD_EOP | CMD_IFCS | CMD_RS | length, 0};
    e1000_send_tail = (e1000_send_tail + 1) % E1000_RING;
}

static void flush(void)
{
    const volatile struct e1000_descriptor *last = &e1000_sent[(e1000_send_tail + E1000_RING - 1) % E1000_RING];

    *e1000(TDBAL + TAIL) = e1000_send_tail;
    for (uint64_t began = rdtsc(); !(last->status & DD);)
        if (rdtsc() - began > PATIENCE)
            fail("net: a sent frame does not come back");
}

static struct part receive(uint64_t patience)
{
    const volatile struct e1000_descriptor *next = &e1000_received[seen];
    struct part part = {BUFFERS, 0, 0, false};

    for (uint64_t began = rdtsc(); !(next->status & DD);)
        if (rdtsc() - began > patience)
            return part;
    part.number = buffer_at[seen];
    part.data = buffers[0][part.number];
    part.length = next->length & 0xffff;
    part.last = next->status & EOP;
    seen = (seen + 1) % E1000_RING;
    return part;
}

const struct interface net_e1000 = {find, start, frame, queue, flush, receive, give, more};
