/*
 * int 16h: keys that come over COM1, where the user types, or from the keyboard controller.
 *
 * Bytes are taken from COM1 when the guest asks for a key, and not before: a guest that reads COM1 by itself gets all
 * of them. While a guest waits for a key, COM1's interrupt ends the wait; if the guest has taken that interrupt's vector,
 * the timer does.
 */
#include "bios.h"

enum { ESC = 0x1b, DELETE = 0x7f, ESCAPE = 0x0100 | ESC };
enum { SHIFT_RIGHT = 0x01, SHIFT_LEFT = 0x02, SHIFT = 0x03, CONTROL = 0x04, ALT = 0x08 };
enum { SCROLL = 0x10, NUM = 0x20, CAPS = 0x40, INSERT = 0x80 };
enum { CONTROL_LEFT = 0x01, ALT_LEFT = 0x02 };                                           /* in BDA_KEYS_DOWN */
enum { AFTER_E1 = 0x01, AFTER_E0 = 0x02, CONTROL_RIGHT = 0x04, ALT_RIGHT = 0x08 };       /* in BDA_KEYBOARD_FLAGS */
enum { F1 = 0x3b, F11 = 0x57, PAD = 0x47 };
enum { GREY = 0xe0 };

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

/* The VT220's numbers of F1 to F12: 11 to 15, 17 to 21, 23, 24. */
static uint16_t function_key_of(uint8_t number)
{
    if (number >= 23)
        return (uint16_t)((0x85 + number - 23) << 8);
    return number == 16 || number == 22 ? 0 : (uint16_t)((0x3b + number - 11 - (number > 16)) << 8);
}

static uint16_t function_key_of_letter(uint8_t letter, uint8_t of_f1, uint8_t last)
{
    return letter < of_f1 || letter > last ? 0 : (uint16_t)((F1 + letter - of_f1) << 8);
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
    default:
        return (uint16_t)(scan_code(byte) << 8 | byte);
    }
}

/* ECMA-48 control sequences, as terminals send them for keys without a character: where one has come to. */
static enum { NO_SEQUENCE, AFTER_ESC, AFTER_BRACKET, IN_PARAMETERS, AFTER_PARAMETER, AFTER_TWO_BRACKETS } sequence;
static uint8_t number;       /* its first parameter */
static uint32_t waits_since; /* for the next byte */

/* The key of a sequence that ends with this byte, or 0. */
static uint16_t key_of_sequence(uint8_t byte)
{
    switch (byte) {
    case 'A':
        return 0x4800 | GREY; /* up, down, right, left, home, end */
    case 'B':
        return 0x5000 | GREY;
    case 'C':
        return 0x4d00 | GREY;
    case 'D':
        return 0x4b00 | GREY;
    case 'H':
        return 0x4700 | GREY;
    case 'F':
        return 0x4f00 | GREY;
    case '~':
        if (number >= 11 && number <= 24) /* F1 to F12, with gaps */
            return function_key_of(number);
        switch (number) {
        case 1:
            return 0x4700 | GREY;
        case 2:
            return 0x5200 | GREY;
        case 3:
            return 0x5300 | GREY;
        case 4:
            return 0x4f00 | GREY;
        case 5:
            return 0x4900 | GREY;
        case 6:
            return 0x5100 | GREY;
        }
        return 0;
    default:
        return function_key_of_letter(byte, 'P', 'S');
    }
}

static void put_typed(uint16_t key)
{
    if (key)
        put(key);
}

static void take_byte(uint8_t byte)
{
    waits_since = 0;
    if (sequence == AFTER_ESC && byte != '[' && byte != 'O') { /* no sequence: Escape, and the next key */
        put(ESCAPE);
        sequence = NO_SEQUENCE;
    }
    switch (sequence) {
    case NO_SEQUENCE:
        if (byte == ESC)
            sequence = AFTER_ESC;
        else
            put_typed(key_of(byte));
        return;
    case AFTER_ESC:
        sequence = AFTER_BRACKET;
        number = 0;
        return;
    case AFTER_TWO_BRACKETS: /* the Linux console's F1 to F5 */
        put_typed(function_key_of_letter(byte, 'A', 'E'));
        break;
    default:
        if (byte >= ' ' && byte < '@') { /* what is held with it is lost */
            if (byte == ';' || sequence == AFTER_PARAMETER) {
                sequence = AFTER_PARAMETER;
            } else {
                sequence = IN_PARAMETERS;
                number = (uint8_t)(number * 10 + byte - '0');
            }
            return;
        }
        if (byte == '[') {
            sequence = AFTER_TWO_BRACKETS;
            return;
        }
        put_typed(key_of_sequence(byte));
    }
    sequence = NO_SEQUENCE;
}

/*
 * The rest of a sequence follows its beginning at once; a person's next key does not. That is a time of the guest, longer
 * than two of kvmbox's loans of time to it: a busy host cannot make an Escape of a sequence, however late it is.
 */
static void take_typed(void)
{
    while (!full()) {
        int is_late = sequence && !within(&waits_since, PM_TIMER_HERTZ * 2 / 5);

        if (byte_waits()) {
            take_byte(inb(COM1 + UART_RBR));
        } else if (is_late) {
            if (sequence <= AFTER_BRACKET)
                put(ESCAPE);
            sequence = NO_SEQUENCE;
        } else {
            return;
        }
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

/* The keypad in the order of its scan codes: characters with Num Lock, and scan codes with Control. */
static const char pad_digits[] = "789-456+1230.";
static const uint8_t pad_with_control[] = {0x77, 0x8d, 0x84, 0x8e, 0x73, 0x8f, 0x74, 0x90, 0x75, 0x91, 0x76, 0x92, 0x93};

static uint16_t high(unsigned code)
{
    return (uint16_t)(code << 8);
}

/* The keypad, and the grey keys that a prefix tells from it. */
static uint16_t pad_key(uint8_t code, uint8_t flags, int grey)
{
    uint8_t digit = (uint8_t)pad_digits[code - PAD];
    int sign = digit == '-' || digit == '+';

    if (flags & ALT)
        return grey ? high(code + 0x50u) : sign ? high(code) : 0;
    if (flags & CONTROL)
        return (uint16_t)(high(pad_with_control[code - PAD]) | (grey ? GREY : 0));
    if (grey)
        return (uint16_t)(high(code) | GREY);
    if (sign || !(flags & NUM) != !(flags & SHIFT))
        return (uint16_t)(high(code) | digit);
    return high(code);
}

static uint16_t function_key(uint8_t code, uint8_t flags)
{
    static const uint8_t to_f10[] = {0x3b, 0x54, 0x5e, 0x68}, from_f11[] = {0x85, 0x87, 0x89, 0x8b};
    unsigned with = flags & ALT ? 3 : flags & CONTROL ? 2 : flags & SHIFT ? 1 : 0;

    return code < F11 ? high(to_f10[with] + code - F1) : high(from_f11[with] + code - F11);
}

static uint16_t with_alt(uint8_t code)
{
    if (code >= 0x02 && code <= 0x0d) /* digits, minus, equals */
        return high(code + 0x76u);
    return code == 0x0f ? 0xa500 : code == 0x39 ? 0x3920 : high(code);
}

static uint16_t with_control(uint8_t code)
{
    uint8_t character = (uint8_t)plain[code];

    switch (code) {
    case 0x03: /* 2 */
        return 0x0300;
    case 0x07: /* 6 */
        return 0x071e;
    case 0x0c: /* minus */
        return 0x0c1f;
    case 0x0e: /* Backspace */
        return 0x0e7f;
    case 0x0f: /* Tab */
        return 0x9400;
    case 0x1c: /* Enter */
        return 0x1c0a;
    case 0x37: /* the keypad's asterisk */
        return 0x9600;
    case 0x01:
    case 0x39:
        return (uint16_t)(high(code) | character);
    }
    if ((character >= 'a' && character <= 'z') || (character >= '[' && character <= ']'))
        return (uint16_t)(high(code) | (character & 0x1f));
    return 0;
}

static uint16_t character_key(uint8_t code, uint8_t flags)
{
    uint8_t character;

    if (flags & ALT)
        return with_alt(code);
    if (flags & CONTROL)
        return with_control(code);
    if (code == 0x0f && (flags & SHIFT))
        return high(code);
    character = (uint8_t)(flags & SHIFT ? shifted[code] : plain[code]);
    if ((flags & CAPS) && (character | 0x20) >= 'a' && (character | 0x20) <= 'z')
        character ^= 0x20;
    return (uint16_t)(high(code) | character);
}

/* IBM Personal System/2 BIOS Interface Technical Reference, keyboard: scan codes and characters; 0: the key has none. */
static uint16_t key_with(uint8_t code, uint8_t flags, int prefixed)
{
    if (code >= PAD && code < PAD + sizeof pad_with_control)
        return pad_key(code, flags, prefixed);
    if (prefixed) /* the keypad's Enter and slash */
        switch (code) {
        case 0x1c:
            return flags & ALT ? 0xa600 : flags & CONTROL ? 0xe00a : 0xe00d;
        case 0x35:
            return flags & ALT ? 0xa400 : flags & CONTROL ? 0x9500 : 0xe02f;
        default:
            return 0;
        }
    if ((code >= F1 && code < F1 + 10) || code == F11 || code == F11 + 1)
        return function_key(code, flags);
    if (code == 0x56) /* the key that European keyboards have more */
        return flags & (ALT | CONTROL) ? 0 : (uint16_t)(high(code) | (flags & SHIFT ? '|' : '\\'));
    return code > 0 && code < sizeof plain - 1 ? character_key(code, flags) : 0;
}

/* A bit that follows a key, in the byte at `place`. */
static int follow(uint16_t place, uint8_t flag, int released)
{
    uint8_t flags = far8(BDA, place);

    set_far8(BDA, place, (uint8_t)(released ? flags & ~flag : flags | flag));
    return 1;
}

/* A key that changes its flag each time it is pressed, and does not repeat. */
static int toggle(uint8_t flag, int released)
{
    if (!released && !(far8(BDA, BDA_KEYS_DOWN) & flag))
        set_far8(BDA, BDA_SHIFT, far8(BDA, BDA_SHIFT) ^ flag);
    return follow(BDA_KEYS_DOWN, flag, released);
}

/* A key of either side holds the flag as long as one of them is down. */
static int both_sides(uint8_t flag, uint8_t left, uint8_t right, int prefixed, int released)
{
    follow(prefixed ? BDA_KEYBOARD_FLAGS : BDA_KEYS_DOWN, prefixed ? right : left, released);
    return follow(BDA_SHIFT, flag, !(far8(BDA, BDA_KEYS_DOWN) & left) && !(far8(BDA, BDA_KEYBOARD_FLAGS) & right));
}

/* Whether this key only changes what others give. It follows the key. */
static int changes_others(uint8_t code, int prefixed, int released)
{
    switch (code) {
    case 0x2a: /* with a prefix: a shift that the keyboard invents for another key */
        return prefixed || follow(BDA_SHIFT, SHIFT_LEFT, released);
    case 0x36:
        return prefixed || follow(BDA_SHIFT, SHIFT_RIGHT, released);
    case 0x1d:
        return both_sides(CONTROL, CONTROL_LEFT, CONTROL_RIGHT, prefixed, released);
    case 0x38:
        return both_sides(ALT, ALT_LEFT, ALT_RIGHT, prefixed, released);
    case 0x3a:
        return toggle(CAPS, released);
    case 0x45:
        return toggle(NUM, released);
    case 0x46:
        return prefixed || toggle(SCROLL, released);
    case 0x52:
        if (prefixed || !(far8(BDA, BDA_SHIFT) & NUM))
            toggle(INSERT, released);
        return 0;
    default:
        return 0;
    }
}

void keyboard_interrupt(uint8_t code)
{
    uint8_t prefixes = far8(BDA, BDA_KEYBOARD_FLAGS);
    uint8_t flags;
    uint16_t key;

    if (code == 0xe0 || code == 0xe1) {
        set_far8(BDA, BDA_KEYBOARD_FLAGS, prefixes | (code == 0xe0 ? AFTER_E0 : AFTER_E1));
        return;
    }
    if (prefixes & AFTER_E1) { /* Pause: E1 1D 45 and E1 9D C5, which is no Control and no Num Lock */
        if ((code & 0x7f) != 0x1d)
            set_far8(BDA, BDA_KEYBOARD_FLAGS, prefixes & (uint8_t)~AFTER_E1);
        return;
    }
    set_far8(BDA, BDA_KEYBOARD_FLAGS, prefixes & (uint8_t)~AFTER_E0);
    if (changes_others(code & 0x7f, prefixes & AFTER_E0, code & 0x80) || (code & 0x80))
        return;
    flags = far8(BDA, BDA_SHIFT);
    if ((flags & CONTROL) && (flags & ALT) && code == 0x53)
        restart();
    key = key_with(code, flags, prefixes & AFTER_E0);
    if (key)
        put(key);
}

/* --- int 16h -------------------------------------------------------------------------------------------------- */

void keyboard_start(void)
{
    set_far16(BDA, BDA_KEYS_AT, BDA_KEYS);
    set_far16(BDA, BDA_KEYS_END_AT, BDA_KEYS_END);
    set_far16(BDA, BDA_KEY_HEAD, BDA_KEYS);
    set_far16(BDA, BDA_KEY_TAIL, BDA_KEYS);
    set_far8(BDA, BDA_KEYBOARD_FLAGS, 0x10); /* 101 keys */
    sequence = NO_SEQUENCE;
}

/* The services of the first keyboards, 00 and 01, do not tell a grey key from its twin. */
static uint16_t for_caller(const struct frame *f, uint16_t key)
{
    if (f->a.h >= 0x10)
        return key;
    if (key >> 8 == GREY)
        return (uint16_t)((key & 0xff) == '/' ? 0x352f : 0x1c00 | (key & 0xff));
    return (key & 0xff) == GREY && key >> 8 ? key & 0xff00 : key;
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
        if (!there && sequence)
            return LOOK_AGAIN; /* for the rest of a sequence */
        if (!there) {
            wake_on_input();
            return WAIT;
        }
        f->a.x = for_caller(f, far16(BDA, head));
        set_far16(BDA, BDA_KEY_HEAD, next(head));
        return DONE;
    case 0x01:
    case 0x11:
        if (there)
            f->a.x = for_caller(f, far16(BDA, head));
        set_flag(f, ZERO, !there);
        return DONE;
    case 0x02:
        f->a.l = far8(BDA, BDA_SHIFT);
        return DONE;
    case 0x12:
        f->a.l = far8(BDA, BDA_SHIFT);
        f->a.h = (uint8_t)((far8(BDA, BDA_KEYS_DOWN) & (uint8_t)~0x8c) |
                           (far8(BDA, BDA_KEYBOARD_FLAGS) & (CONTROL_RIGHT | ALT_RIGHT)));
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
