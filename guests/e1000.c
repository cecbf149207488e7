/*
 * e1000: an Intel 82540EM by its registers, with frames that come back (--net loop,on=e1000): the address by the EEPROM
 * and by its wires, the PHY, IOADDR and IODATA, interrupts of sending and receiving, by pin and by message, filters,
 * checksums and segments that the chip makes, statistics, a reset; and in loopback as tutorials and exercises drive it.
 * Status 0; 3 if a proof fails.
 */
#include "e1000.h"
#include "common/console.h"
#include "common/guest.h"
#include "common/interrupts.h"
#include "common/messages.h"

#define EECD_REQUEST 0x40
#define EECD_SELECT  2
#define CLOCK        1
#define HEADERS      54 /* Ethernet, IP, TCP */
#define PAYLOAD      2500
#define SEGMENT      1000
#define LITTLE_RING  8
#define LARGE        8192

#define LOCAL_APIC   0xfee00000u
#define VECTOR       0x2d /* what IRQ 13 would have */
#define CAPABILITY   0x34
#define MSI          5
#define MSI_ON       (1u << 16)

static volatile unsigned interrupts;
static volatile uint32_t causes;
static uint8_t address[6], large[LITTLE_RING][LARGE];

static unsigned eeprom(unsigned place)
{
    *e1000(EERD) = place << 8 | 1;
    while (!(*e1000(EERD) & 0x10))
        ;
    return *e1000(EERD) >> 16;
}

static unsigned clock_out(unsigned value)
{
    unsigned bit;

    *e1000(EECD) = value;
    *e1000(EECD) = value | CLOCK;
    bit = *e1000(EECD) >> 3 & 1;
    *e1000(EECD) = value;
    return bit;
}

static unsigned eeprom_by_wires(unsigned place)
{
    unsigned word = 0, base = EECD_REQUEST | EECD_SELECT;

    *e1000(EECD) = EECD_REQUEST;
    while (!(*e1000(EECD) & 0x80))
        ;
    for (int bit = 8; bit >= 0; bit--) /* start, read, six bits of the place */
        clock_out(base | ((0x180 | place) >> bit & 1) << 2);
    for (unsigned bit = 0; bit < 16; bit++)
        word = word << 1 | clock_out(base);
    *e1000(EECD) = 0;
    return word;
}

static void identity(void)
{
    uint16_t port = (uint16_t)(pci_read(e1000_function, 0x14) & ~3u);
    unsigned sum = 0;

    for (unsigned place = 0; place < 64; place++)
        sum += eeprom(place);
    if ((sum & 0xffff) != 0xbaba)
        fail("e1000: the EEPROM has another checksum");
    for (unsigned place = 0; place < 3; place++)
        if (eeprom(place) != (address[2 * place] | address[2 * place + 1] * 256u) ||
            eeprom_by_wires(place) != eeprom(place))
            fail("e1000: the EEPROM has another address");
    for (unsigned place = 2; place < 4; place++) {
        *e1000(MDIC) = 2u << 26 | 1 << 21 | place << 16;
        while (!(*e1000(MDIC) & 1u << 28))
            ;
        if ((*e1000(MDIC) & 0xffff) != (place == 2 ? 0x0141 : 0x0c20))
            fail("e1000: the PHY is another one");
    }
    if (!(*e1000(STATUS) & 2))
        fail("e1000: there is no link");
    outl(port, RAL);
    if (inl(port + 4) != *e1000(RAL))
        fail("e1000: the ports do not reach the registers");
    put_string("ok e1000: EEPROM, PHY, ports\n");
}

static void handler(void)
{
    causes |= *e1000(ICR);
    interrupts++;
}

static void make_frame(uint8_t *at, const uint8_t *to, unsigned length)
{
    for (unsigned place = 0; place < length; place++)
        at[place] = place < 6 ? to[place] : (uint8_t)place;
}

/* The next frame that comes back has this length, or with 0 there is none. */
static const uint8_t *expect(uint32_t length, const char *text)
{
    struct part part = net_e1000.receive(length ? PATIENCE : 50000000);

    if (!length ? part.number < BUFFERS : part.number >= BUFFERS || part.length != length)
        fail(text);
    if (length) {
        net_e1000.give(part.number);
        net_e1000.more();
    }
    return part.data;
}

static void by_interrupt(void)
{
    unsigned line = pci_read(e1000_function, 0x3c) & 0xff;

    irq_enable(line, handler);
    *e1000(IMS) = TXDW | RXT0;
    make_frame(net_e1000.frame(0), address, 100);
    net_e1000.queue(0, 100);
    *e1000(TDBAL + TAIL) = e1000_send_tail;
    while ((causes & (TXDW | RXT0)) != (TXDW | RXT0))
        if (!wait_for(&interrupts, interrupts + 1, 5))
            fail("e1000: an interrupt does not come");
    expect(100, "e1000: the frame does not come back");
    *e1000(IMC) = 0xffffffff;
    *e1000(ICS) = RXT0;
    if (wait_for(&interrupts, interrupts + 1, 0))
        fail("e1000: what is masked interrupts");
    if (!(*e1000(ICR) & RXT0) || *e1000(ICR))
        fail("e1000: reading does not clear the causes");
    irq_disable(line);
    put_string("ok e1000: interrupts\n");
}

static void by_message(void)
{
    unsigned place = pci_read(e1000_function, CAPABILITY) & 0xff;
    volatile uint32_t *spurious = (volatile uint32_t *)(uintptr_t)(LOCAL_APIC + 0xf0);
    uint32_t control = pci_read(e1000_function, place);

    if ((control & 0xff) != MSI)
        fail("e1000: there is no MSI");
    *spurious = 0x1ff;
    vector_set(VECTOR, message_stub);
    pci_write(e1000_function, place + 4, LOCAL_APIC);
    pci_write(e1000_function, place + 8, 0);
    pci_write(e1000_function, place + 12, VECTOR);
    pci_write(e1000_function, place, control | MSI_ON);
    *e1000(IMS) = RXT0;
    for (unsigned number = 1; number < 3; number++) {
        *e1000(ICS) = RXT0;
        if (!wait_for(&messages, number, 5) || !(*e1000(ICR) & RXT0))
            fail("e1000: a message does not come");
    }
    *e1000(IMC) = 0xffffffff;
    pci_write(e1000_function, place, control);
    put_string("ok e1000: messages\n");
}

static void filters(void)
{
    static const uint8_t everybody[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, other[6] = {2, 3, 4, 5, 6, 7};
    static const uint8_t group[6] = {1, 0, 0x5e, 0, 0, 0xfb};

    *e1000(RCTL) = (*e1000(RCTL) & ~(RCTL_UPE | RCTL_MPE)) | RCTL_BAM;
    make_frame(net_e1000.frame(0), other, 60);
    make_frame(net_e1000.frame(1), everybody, 61);
    make_frame(net_e1000.frame(2), group, 62);
    make_frame(net_e1000.frame(3), address, 63);
    for (unsigned number = 0; number < 4; number++)
        net_e1000.queue(number, 60 + number);
    net_e1000.flush();
    expect(61, "e1000: the broadcast does not come");
    expect(63, "e1000: what is for us does not come");
    expect(0, "e1000: something comes that is for others");
    *e1000(MTA + 4 * 0x7d) = 1u << 16; /* bits 47 to 36 of the address */
    net_e1000.queue(2, 62);
    net_e1000.flush();
    expect(62, "e1000: the group does not come");
    put_string("ok e1000: filters\n");
}

static unsigned sum(const uint8_t *at, unsigned length, uint32_t total)
{
    for (; length > 1; length -= 2, at += 2)
        total += (uint32_t)at[0] << 8 | at[1];
    if (length)
        total += (uint32_t)*at << 8;
    total = (total & 0xffff) + (total >> 16);
    return (total + (total >> 16)) & 0xffff;
}

static void describe(uint32_t where, uint32_t length, uint32_t command, uint32_t status)
{
    e1000_sent[e1000_send_tail] = (struct e1000_descriptor){where, 0, length | command, status};
    e1000_send_tail = (e1000_send_tail + 1) % E1000_RING;
}

static void segments(void)
{
    uint8_t *at = net_e1000.frame(0);
    unsigned place = 0, number = 0;

    make_frame(at, address, 2048);
    at[12] = 8;
    at[13] = 0;
    at[14] = 0x45;
    at[23] = 6;                   /* TCP */
    at[16] = at[17] = at[24] = at[25] = at[18] = at[19] = 0;
    at[46] = 0x50;
    at[47] = 0x19;                /* FIN, PSH, ACK */
    *(uint32_t *)(at + 38) = 0;   /* the sequence */
    *(uint16_t *)(at + 50) = (uint16_t)__builtin_bswap16((uint16_t)sum(at + 26, 8, 6));
    e1000_sent[e1000_send_tail] = (struct e1000_descriptor){
        14 | 24 << 8 | 33 << 16, 34 | 50 << 8, PAYLOAD | CMD_DEXT | 0x07000000u, HEADERS << 8 | SEGMENT << 16};
    e1000_send_tail = (e1000_send_tail + 1) % E1000_RING;
    describe((uint32_t)(uintptr_t)at, HEADERS, CMD_DEXT | DATA_TYPE | CMD_IC, 0x300);
    describe((uint32_t)(uintptr_t)at + HEADERS, PAYLOAD - 1000, CMD_DEXT | DATA_TYPE | CMD_IC, 0x300);
    describe((uint32_t)(uintptr_t)at + HEADERS, 1000, CMD_DEXT | DATA_TYPE | CMD_IC | CMD_EOP | CMD_RS, 0x300);
    net_e1000.flush();
    for (; place < PAYLOAD; place += SEGMENT, number++) {
        unsigned size = PAYLOAD - place < SEGMENT ? PAYLOAD - place : SEGMENT;
        const uint8_t *found = expect(HEADERS + size, "e1000: a segment does not come back");

        if (sum(found + 14, 20, 0) != 0xffff || found[19] != number || (found[16] << 8 | found[17]) != (int)size + 40)
            fail("e1000: a segment has another IP header");
        if (sum(found + 34, 20 + size, sum(found + 26, 8, 6 + 20 + size)) != 0xffff)
            fail("e1000: a segment has another checksum");
        if ((found[40] << 8 | found[41]) != (int)place || found[47] != (size < SEGMENT ? 0x19 : 0x10))
            fail("e1000: a segment has another TCP header");
    }
    put_string("ok e1000: checksums, segments\n");
}

static void handler_that_writes(void)
{
    *e1000(ICR) = 0xffffffff;
    interrupts++;
}

static void put(bool by_ports, unsigned offset, uint32_t value)
{
    uint16_t port = (uint16_t)(pci_read(e1000_function, 0x14) & ~3u);

    if (by_ports) {
        outl(port, offset);
        outl(port + 4, value);
    } else {
        *e1000(offset) = value;
    }
}

/*
 * Tutorials: registers by ports, large buffers, and a receive tail that is beyond the ring. Exercises: an address that
 * the driver chooses, sent descriptors that are done from the start, and causes that are written away.
 */
static void loopback(bool tutorial, uint32_t mode, const char *text)
{
    static const uint8_t chosen[6] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
    const uint8_t *own = tutorial ? address : chosen;
    unsigned line = pci_read(e1000_function, 0x3c) & 0xff;

    *e1000(IMC) = 0xffffffff;
    put(tutorial, CTRL, *e1000(CTRL) | CTRL_RST);
    put(tutorial, CTRL, *e1000(CTRL) | CTRL_SLU);
    if (!mode) {
        *e1000(MDIC) = 1u << 26 | 1 << 21 | PHY_LOOPBACK;
        while (!(*e1000(MDIC) & 1u << 28))
            ;
    }
    for (unsigned number = 0; number < LITTLE_RING; number++) {
        e1000_sent[number] = (struct e1000_descriptor){0, 0, 0, DD};
        e1000_received[number] = (struct e1000_descriptor){(uint32_t)(uintptr_t)large[number], 0, 0, 0};
    }
    put(tutorial, TDBAL, (uint32_t)(uintptr_t)e1000_sent);
    put(tutorial, TDBAL + LEN, sizeof e1000_sent[0] * LITTLE_RING);
    put(tutorial, RDBAL, (uint32_t)(uintptr_t)e1000_received);
    put(tutorial, RDBAL + LEN, sizeof e1000_received[0] * LITTLE_RING);
    put(tutorial, RDBAL + TAIL, tutorial ? LITTLE_RING : LITTLE_RING - 1);
    if (!tutorial) {
        *e1000(RAL) = *(const uint32_t *)own;
        *e1000(RAH) = own[4] | own[5] << 8 | 1u << 31;
    }
    put(tutorial, TCTL, EN | TCTL_PSP | 0x10 << 4 | 0x40 << 12);
    put(tutorial, TIPG, tutorial ? 0x0060200a : 10 | 8 << 10 | 6 << 20);
    put(tutorial, RCTL, EN | RCTL_BAM | RCTL_SECRC | mode | (tutorial ? RCTL_8192 : 0));
    irq_enable(line, tutorial ? handler : handler_that_writes);
    put(tutorial, IMS, RXT0);
    for (unsigned number = 0; number < 3 * LITTLE_RING; number++) {
        unsigned slot = number % LITTLE_RING, length = 60 + 50 * number;
        const volatile struct e1000_descriptor *came = &e1000_received[slot];
        uint8_t *frame = net_e1000.frame(0);

        if (!(((volatile struct e1000_descriptor *)e1000_sent)[slot].status & DD))
            fail("e1000: a descriptor is not done");
        make_frame(frame, own, length);
        e1000_sent[slot] = (struct e1000_descriptor){(uint32_t)(uintptr_t)frame, 0, length | CMD_EOP | CMD_RS, 0};
        put(tutorial, TDBAL + TAIL, (slot + 1) % LITTLE_RING);
        for (unsigned seen = interrupts; !(came->status & DD); seen = interrupts)
            if (!wait_for(&interrupts, seen + 1, 5) && !(came->status & DD))
                fail("e1000: a frame does not come back");
        if ((came->length & 0xffff) != length || large[slot][length - 1] != (uint8_t)(length - 1))
            fail("e1000: a frame comes back as another one");
        e1000_received[slot].status = 0;
        put(tutorial, RDBAL + TAIL, slot);
    }
    irq_disable(line);
    put_string(text);
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    (void)magic;
    (void)info;
    interrupts_init();
    if (!ticks_start(1))
        fail("the timer does not tick");
    if (!net_e1000.find())
        fail("e1000: there is none");
    net_e1000.start(BUFFER, address);
    identity();
    by_interrupt();
    by_message();
    filters();
    segments();
    if (*e1000(GPTC) != 9 || *e1000(GPTC) || *e1000(GPRC) != 7)
        fail("e1000: the statistics are others");
    *e1000(CTRL) = CTRL_RST;
    if (*e1000(TDBAL + HEAD) || *e1000(RCTL) || *e1000(RAL) != *(uint32_t *)address)
        fail("e1000: the reset is none");
    loopback(true, 0, "ok e1000: as tutorials drive it\n");
    loopback(false, RCTL_LBM, "ok e1000: as exercises drive it\n");
    put_string("e1000: done\n");
}
