/*
 * mouse: the driver of a PS/2 mouse, which follows the pointer and prints where it is. Proves IRQ 12, the auxiliary
 * port of the 8042, the wheel and all five buttons. The middle button leaves with status 0.
 *
 * A line is printed for each packet: the position, which grows to the right and down, the turns of the wheel, and a
 * letter for each button that is held: left, right, middle, back, forward.
 */
#include "common/console.h"
#include "common/guest.h"
#include "common/interrupts.h"
#include "common/io.h"

enum { ST_AUX = 0x20 };
enum { READ_COMMAND_BYTE = 0x20, WRITE_COMMAND_BYTE = 0x60, ENABLE_AUX = 0xa8, WRITE_AUX = 0xd4 };
enum { CB_INT2 = 0x02, CB_DISABLE2 = 0x20 };
enum { READ_ID = 0xf2, SET_RATE = 0xf3, ENABLE = 0xf4, RESET = 0xff, ACK = 0xfa };
enum { SYNC = 0x08, X_SIGN = 0x10, Y_SIGN = 0x20, X_OVERFLOW = 0x40, Y_OVERFLOW = 0x80, MIDDLE = 0x04 };
enum { PACKET = 4 };

static volatile bool leaving;
static uint8_t packet[PACKET];
static unsigned have;
static int32_t x, y, turns;

static uint8_t read_aux(void)
{
    unsigned tries = 10000;

    while ((inb(I8042_STATUS) & (ST_OBF | ST_AUX)) != (ST_OBF | ST_AUX)) {
        if (!--tries)
            fail("the mouse answers");
    }
    return inb(I8042_DATA);
}

static void ask(uint8_t value)
{
    outb(I8042_COMMAND, WRITE_AUX);
    outb(I8042_DATA, value);
    if (read_aux() != ACK)
        fail("the mouse acknowledges");
}

static uint8_t identity_after(uint8_t first, uint8_t second, uint8_t third)
{
    const uint8_t rates[] = {first, second, third};

    for (unsigned i = 0; i < sizeof rates; i++) {
        ask(SET_RATE);
        ask(rates[i]);
    }
    ask(READ_ID);
    return read_aux();
}

static void mouse_init(void)
{
    uint8_t command_byte;

    outb(I8042_COMMAND, ENABLE_AUX);
    outb(I8042_COMMAND, READ_COMMAND_BYTE);
    command_byte = inb(I8042_DATA);
    outb(I8042_COMMAND, WRITE_COMMAND_BYTE);
    outb(I8042_DATA, (uint8_t)((command_byte | CB_INT2) & ~CB_DISABLE2));
    ask(RESET);
    if (read_aux() != 0xaa || read_aux() != 0x00)
        fail("the mouse passes its self-test");
    if (identity_after(200, 100, 80) != 3)
        fail("the mouse has a wheel");
    if (identity_after(200, 200, 80) != 4)
        fail("the mouse has five buttons");
}

static void put_signed(int32_t value)
{
    if (value < 0)
        put_char('-');
    put_decimal((uint32_t)(value < 0 ? -value : value), 1);
}

static void follow(void)
{
    uint8_t first = packet[0];
    unsigned buttons = (first & 7u) | (packet[3] >> 4 & 3u) << 3;

    x += (int32_t)packet[1] - (first & X_SIGN ? 256 : 0);
    y -= (int32_t)packet[2] - (first & Y_SIGN ? 256 : 0);
    turns += (packet[3] & 0x0f) - (packet[3] & 0x08 ? 16 : 0);
    put_string("at ");
    put_signed(x);
    put_char(' ');
    put_signed(y);
    put_string(" wheel ");
    put_signed(turns);
    put_char(' ');
    for (unsigned i = 0; i < 5; i++)
        put_char(buttons >> i & 1 ? "lrmbf"[i] : '-');
    if (first & (X_OVERFLOW | Y_OVERFLOW))
        put_string(" overflow");
    put_char('\n');
    if (first & MIDDLE)
        leaving = true;
}

/* One byte for each interrupt. */
static void on_mouse(void)
{
    if (leaving || (inb(I8042_STATUS) & (ST_OBF | ST_AUX)) != (ST_OBF | ST_AUX))
        return;
    packet[have] = inb(I8042_DATA);
    if (have == 0 && !(packet[0] & SYNC))
        fail("a packet begins where it should");
    if (++have < PACKET)
        return;
    have = 0;
    follow();
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    (void)magic, (void)info;
    interrupts_init();
    mouse_init();
    put_string("mouse: move it; the middle button leaves\n");
    irq_enable(MOUSE_IRQ, on_mouse);
    ask(ENABLE);
    while (!leaving)
        wait_for_interrupt();
    put_string("mouse: bye\n");
}
