/*
 * int 15h AH=C2h: the PS/2 mouse, which calls the guest's handler for each packet.
 *
 * Source: IBM PS/2 and PC BIOS Interface Technical Reference, "Pointing device BIOS interface". Commands and answers go
 * while interrupts are off; IRQ 12 collects packets in entry.S. A mouse has 25 ms for an answer, and 500 ms for that to
 * a reset; kvmbox's mouse answers at once. As a tick of IRQ 0 is not to be lost, all waits of a call together are shorter.
 */
#include "bios.h"

enum { BAD_FUNCTION = 1, BAD_INPUT = 2, BAD_ANSWER = 3, NO_HANDLER_SET = 5 };
enum { COMMAND = KBC_STATUS, READ_MODE = 0x20, WRITE_MODE = 0x60, KEYBOARD_OFF = 0xad, TO_MOUSE = 0xd4 };
enum { HAS_BYTE = 0x01, BUSY = 0x02, FROM_MOUSE = 0x20 };
enum { IRQ_12 = 0x02, CLOCKS_OFF = 0x30 }; /* in the controller's mode: of keyboard and mouse */
enum { ACK = 0xfa, PASSED = 0xaa };
enum { GET_STATUS = 0xe9, RESOLUTION = 0xe8, IDENTIFY = 0xf2, RATE = 0xf3, ENABLE = 0xf4, DISABLE = 0xf5, RESET = 0xff };

uint8_t key_taken; /* by this file, before its interrupt comes: entry.S does not take it again */

static uint32_t since; /* when the present call began to wait */

static void send(uint16_t port, uint8_t value)
{
    while ((inb(KBC_STATUS) & BUSY) && within(&since, ALMOST_A_TICK))
        ;
    outb(port, value);
}

static void take_key(uint8_t code)
{
    keyboard_interrupt(code);
    key_taken = 1;
}

/* Take what waits: keys, and bytes of a packet, of which the next command drops the rest. */
static void drain(void)
{
    do {
        uint8_t status = inb(KBC_STATUS), byte;

        if (!(status & HAS_BYTE))
            return;
        byte = inb(KBC_DATA);
        if (!(status & FROM_MOUSE))
            take_key(byte);
    } while (within(&since, ALMOST_A_TICK));
}

/* A byte of the mouse, or else of the controller; keys that come before the mouse's are taken. */
static int receive(uint8_t from, uint8_t *byte)
{
    for (int late = 0;; late = !within(&since, ALMOST_A_TICK)) {
        uint8_t status = inb(KBC_STATUS);

        if (status & HAS_BYTE) {
            *byte = inb(KBC_DATA);
            if ((status & FROM_MOUSE) == from)
                return 1;
            if (!(status & FROM_MOUSE))
                take_key(*byte);
        }
        if (late)
            return 0;
    }
}

static int tell_mouse(uint8_t byte)
{
    uint8_t answer;

    drain();
    set_far8(far16(BDA, BDA_EBDA), EBDA_MOUSE_BYTES, 0);
    send(COMMAND, TO_MOUSE);
    send(KBC_DATA, byte);
    return receive(FROM_MOUSE, &answer) && answer == ACK;
}

static int tell_mouse_both(uint8_t command, uint8_t option)
{
    return tell_mouse(command) && tell_mouse(option);
}

/* The interface and the interrupt. Meanwhile no key comes, which looks like an answer of the controller. */
static void open(void)
{
    uint8_t mode;

    send(COMMAND, KEYBOARD_OFF);
    drain();
    send(COMMAND, READ_MODE);
    if (receive(0, &mode)) {
        send(COMMAND, WRITE_MODE);
        send(KBC_DATA, (mode | IRQ_12) & (uint8_t)~CLOCKS_OFF);
    }
    outb(PIC2_DATA, inb(PIC2_DATA) & (uint8_t) ~(1 << (MOUSE_IRQ - 8)));
}

static uint8_t reset(struct frame *f)
{
    uint8_t passed = 0, kind = 0;

    open();
    if (!tell_mouse(RESET) || !receive(FROM_MOUSE, &passed) || passed != PASSED || !receive(FROM_MOUSE, &kind))
        return BAD_ANSWER;
    f->b.l = passed;
    f->b.h = kind;
    return 0;
}

static uint8_t tell_status(struct frame *f)
{
    if (tell_mouse(GET_STATUS) && receive(FROM_MOUSE, &f->b.l) && receive(FROM_MOUSE, &f->c.l) &&
        receive(FROM_MOUSE, &f->d.l))
        return 0;
    return BAD_ANSWER;
}

static uint8_t serve(struct frame *f)
{
    static const uint8_t rates[] = {10, 20, 40, 60, 80, 100, 200};
    uint16_t ebda = far16(BDA, BDA_EBDA);
    uint8_t value = f->b.h, flags = far8(ebda, EBDA_MOUSE_FLAGS);

    switch (f->a.l) {
    case 0x00:
        if (value > 1)
            return BAD_INPUT;
        if (value && !(flags & MOUSE_HAS_HANDLER))
            return NO_HANDLER_SET;
        open();
        return tell_mouse(value ? ENABLE : DISABLE) ? 0 : BAD_ANSWER;
    case 0x05: /* so many bytes are a packet */
        if (value < 1 || value > 8)
            return BAD_INPUT;
        set_far8(ebda, EBDA_MOUSE_FLAGS, (uint8_t)((flags & MOUSE_HAS_HANDLER) | (value - 1)));
        return reset(f);
    case 0x01:
        return reset(f);
    case 0x02:
        if (value >= sizeof rates)
            return BAD_INPUT;
        return tell_mouse_both(RATE, rates[value]) ? 0 : BAD_ANSWER;
    case 0x03:
        if (value > 3)
            return BAD_INPUT;
        return tell_mouse_both(RESOLUTION, value) ? 0 : BAD_ANSWER;
    case 0x04:
        return tell_mouse(IDENTIFY) && receive(FROM_MOUSE, &f->b.h) ? 0 : BAD_ANSWER;
    case 0x06: /* status; scaling 1:1 and 2:1, commands E6 and E7 */
        if (value > 2)
            return BAD_INPUT;
        return value == 0 ? tell_status(f) : tell_mouse((uint8_t)(0xe5 + value)) ? 0 : BAD_ANSWER;
    case 0x07: /* 0:0 takes the handler away */
        set_far16(ebda, EBDA_MOUSE_HANDLER, f->b.x);
        set_far16(ebda, EBDA_MOUSE_HANDLER + 2, f->es);
        flags &= (uint8_t)~MOUSE_HAS_HANDLER;
        set_far8(ebda, EBDA_MOUSE_FLAGS, (uint8_t)(flags | (f->b.x || f->es ? MOUSE_HAS_HANDLER : 0)));
        return 0;
    default:
        report(f, REPORT_FUNCTION);
        return BAD_FUNCTION;
    }
}

void mouse_service(struct frame *f)
{
    uint8_t status;

    since = 0;
    status = serve(f);
    f->a.h = status;
    set_flag(f, CARRY, status != 0);
}
