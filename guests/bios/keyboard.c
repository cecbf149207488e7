/*
 * int 16h: keys that come over COM1, where the user types, or from the keyboard controller.
 *
 * Bytes are taken from COM1 when the guest asks for a key, and not before: a guest that reads COM1 by itself gets all
 * of them. While a guest waits for a key, COM1's interrupt ends the wait; if the guest has taken that interrupt's vector,
 * the timer does.
 */
#include "bios.h"

enum { ESC = 0x1b, DELETE = 0x7f };
enum { SHIFT_RIGHT = 0x01, SHIFT_LEFT = 0x02, CONTROL = 0x04, ALT = 0x08, CAPS = 0x40 };
enum { SEQUENCE_PATIENCE = 100 };

/* Scan code set 1 of a US keyboard, by number: what its keys give alone, and with Shift. */
static const char plain[] = "\0\0331234567890-=\b\tqwertyuiop[]\r\0asdfghjkl;'`\0\\zxcvbnm,./\0*\0 ";
static const char shifted[] = "\0\033!@#$%^&*()_+\b\0QWERTYUIOP{}\r\0ASDFGHJKL:\"~\0|ZXCVBNM<>?\0*\0 ";

/* --- The buffer -------------------------------------------------------------------------------------------- */

static uint16_t next(uint16_t place)
{
    place = (uint16_t)(place + 2);
    return place >= far16(BDA, BDA_KEYS_END_AT) ? far16(BDA, BDA_KEYS_AT) : place;
}

static int full(void)
{
    return next(far16(BDA, BDA_KEY_TAIL)) == far16(BDA, BDA_KEY_HEAD);
}

static int put(uint16_t key)
{
    uint16_t tail = far16(BDA, BDA_KEY_TAIL);

    if (full())
        return 0;
    set_far16(BDA, tail, key);
    set_far16(BDA, BDA_KEY_TAIL, next(tail));
    return 1;
}

/* --- From COM1 --------------------------------------------------------------------------------------------- */

static int byte_waits(void)
{
    uint8_t status = inb(COM1 + UART_LSR);

    return status != 0xff && (status & LSR_DR); /* 0xff: there is no COM1 */
}

/* The rest of an escape sequence follows its beginning at once; a person's next key does not. */
static int byte_follows(void)
{
    for (unsigned i = 0; i < SEQUENCE_PATIENCE; i++)
        if (byte_waits())
            return 1;
    return 0;
}

static uint8_t scan_code(uint8_t character)
{
    if (character == '\t')
        return 0x0f;
    for (uint8_t code = 1; code < sizeof plain - 1; code++)
        if ((uint8_t)plain[code] == character || (uint8_t)shifted[code] == character)
            return code;
    if (character >= 1 && character <= 26) /* Ctrl and a letter */
        return scan_code((uint8_t)(character + 'a' - 1));
    return 0;
}

/* ECMA-48 control sequences, as terminals send them for keys without a character. */
static uint16_t sequence(void)
{
    uint8_t byte, number;

    if (!byte_follows())
        return 0x0100 | ESC;
    byte = inb(COM1 + UART_RBR);
    if (byte != '[' && byte != 'O') { /* Alt and a character: the character's scan code alone */
        put(0x0100 | ESC);
        return (uint16_t)(scan_code(byte) << 8 | byte);
    }
    if (!byte_follows())
        return 0x0100 | ESC;
    byte = inb(COM1 + UART_RBR);
    number = 0;
    while (byte >= '0' && byte <= '9') {
        number = (uint8_t)(number * 10 + byte - '0');
        if (!byte_follows())
            return 0;
        byte = inb(COM1 + UART_RBR);
    }
    switch (byte) {
    case 'A':
        return 0x4800; /* up, down, right, left, home, end */
    case 'B':
        return 0x5000;
    case 'C':
        return 0x4d00;
    case 'D':
        return 0x4b00;
    case 'H':
        return 0x4700;
    case 'F':
        return 0x4f00;
    case 'P': /* F1 to F4 */
    case 'Q':
    case 'R':
    case 'S':
        return (uint16_t)(0x3b00 + ((byte - 'P') << 8));
    case '~':
        switch (number) {
        case 1:
            return 0x4700;
        case 2:
            return 0x5200;
        case 3:
            return 0x5300;
        case 4:
            return 0x4f00;
        case 5:
            return 0x4900;
        case 6:
            return 0x5100;
        }
    }
    return 0;
}

static uint16_t key_of(uint8_t byte)
{
    switch (byte) {
    case '\r':
    case '\n':
        return 0x1c0d;
    case '\b':
    case DELETE:
        return 0x0e08;
    case ESC:
        return sequence();
    default:
        return (uint16_t)(scan_code(byte) << 8 | byte);
    }
}

static void take_typed(void)
{
    while (!full() && byte_waits()) {
        uint16_t key = key_of(inb(COM1 + UART_RBR));

        if (key)
            put(key);
    }
}

static void wake_on_input(void)
{
    if (far32(0, 4 * (8 + COM1_IRQ)) != (0xf0000000u | offset_of(vector_stubs + STUB_SIZE * (8 + COM1_IRQ))))
        return;
    outb(COM1 + UART_MCR, inb(COM1 + UART_MCR) | MCR_OUT2);
    outb(COM1 + UART_IER, IER_RDA);
    outb(PIC1_DATA, inb(PIC1_DATA) & (uint8_t) ~(1 << COM1_IRQ));
}

void console_interrupt(void)
{
    outb(COM1 + UART_IER, 0);
    outb(PIC1_DATA, inb(PIC1_DATA) | 1 << COM1_IRQ);
}

/* --- From the keyboard controller --------------------------------------------------------------------------- */

static void shift(uint8_t flag, int released)
{
    uint8_t flags = far8(BDA, BDA_SHIFT);

    set_far8(BDA, BDA_SHIFT, (uint8_t)(released ? flags & ~flag : flags | flag));
}

void keyboard_interrupt(void)
{
    uint8_t code, flags, character;
    int released;

    if (!(inb(KBC_STATUS) & 1))
        return;
    code = inb(KBC_DATA);
    released = code & 0x80;
    code &= 0x7f;
    flags = far8(BDA, BDA_SHIFT);
    switch (code) {
    case 0x2a:
        shift(SHIFT_LEFT, released);
        return;
    case 0x36:
        shift(SHIFT_RIGHT, released);
        return;
    case 0x1d:
        shift(CONTROL, released);
        return;
    case 0x38:
        shift(ALT, released);
        return;
    case 0x3a:
        if (!released)
            set_far8(BDA, BDA_SHIFT, flags ^ CAPS);
        return;
    }
    if (released || code == 0x60 || code == 0x61) /* the prefixes of other keys */
        return;
    if (code >= sizeof plain - 1 || (flags & ALT)) {
        put((uint16_t)(code << 8));
        return;
    }
    character = (uint8_t)(flags & (SHIFT_LEFT | SHIFT_RIGHT) ? shifted[code] : plain[code]);
    if ((flags & CAPS) && (character | 0x20) >= 'a' && (character | 0x20) <= 'z')
        character ^= 0x20;
    if (flags & CONTROL)
        character &= 0x1f;
    put((uint16_t)(code << 8 | character));
}

/* --- int 16h -------------------------------------------------------------------------------------------------- */

void keyboard_start(void)
{
    set_far16(BDA, BDA_KEYS_AT, BDA_KEYS);
    set_far16(BDA, BDA_KEYS_END_AT, BDA_KEYS_END);
    set_far16(BDA, BDA_KEY_HEAD, BDA_KEYS);
    set_far16(BDA, BDA_KEY_TAIL, BDA_KEYS);
    set_far8(BDA, BDA_KEYBOARD_FLAGS, 0x10); /* 101 keys */
}

enum action keyboard_service(struct frame *f)
{
    uint16_t head;
    int there;

    take_typed();
    head = far16(BDA, BDA_KEY_HEAD);
    there = head != far16(BDA, BDA_KEY_TAIL);
    switch (f->a.h) {
    case 0x00:
    case 0x10:
        if (!there) {
            wake_on_input();
            return WAIT;
        }
        f->a.x = far16(BDA, head);
        set_far16(BDA, BDA_KEY_HEAD, next(head));
        return DONE;
    case 0x01:
    case 0x11:
        if (there)
            f->a.x = far16(BDA, head);
        set_flag(f, ZERO, !there);
        return DONE;
    case 0x02:
        f->a.l = far8(BDA, BDA_SHIFT);
        return DONE;
    case 0x12:
        f->a.l = far8(BDA, BDA_SHIFT);
        f->a.h = 0;
        return DONE;
    case 0x03: /* how fast a key repeats */
        return DONE;
    case 0x05:
        f->a.l = !put(f->c.x);
        return DONE;
    default:
        report(f, REPORT_SERVICE);
        return DONE;
    }
}
