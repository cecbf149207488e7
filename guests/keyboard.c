/*
 * keyboard: the driver of a PS/2 keyboard, which types on the serial port. Proves IRQ 1: each byte of the keyboard is
 * one interrupt, none is lost, and the controller translates to scan code set 1. A key without a character is shown as
 * its code: <48> is the cursor key up. Ctrl-D leaves with status 0.
 *
 * Keys may have been pressed before the guest runs. So the keyboard is not reset, which would drop them: it is as a BIOS
 * leaves it. And the first byte is read without an interrupt: its edge came before the 8259s were initialized.
 */
#include "common/console.h"
#include "common/guest.h"
#include "common/interrupts.h"
#include "common/io.h"

enum { EXTENDED = 0xe0, EXTENDED_1 = 0xe1, RELEASED = 0x80 };
enum { KEY_CTRL = 0x1d, KEY_SHIFT_LEFT = 0x2a, KEY_SHIFT_RIGHT = 0x36, KEY_ALT = 0x38, KEY_D = 0x20 };

/* Scan code set 1 of a US keyboard, by code: what its keys give alone, and with Shift. */
static const char plain[] = "\0\0331234567890-=\b\tqwertyuiop[]\n\0asdfghjkl;'`\0\\zxcvbnm,./\0*\0 ";
static const char shifted[] = "\0\033!@#$%^&*()_+\b\0QWERTYUIOP{}\n\0ASDFGHJKL:\"~\0|ZXCVBNM<>?\0*\0 ";

static volatile bool leaving;
static bool shift, control, extended;

static void press(uint8_t code)
{
    char c = 0;

    if (!extended && code < sizeof plain - 1)
        c = (shift ? shifted : plain)[code];
    if (control && code == KEY_D) {
        leaving = true;
    } else if (c >= ' ' || c == '\n' || c == '\t') {
        put_char(c);
    } else {
        put_char('<');
        put_hex(code, 2);
        put_char('>');
    }
}

/* One byte for each interrupt. */
static void on_keyboard(void)
{
    uint8_t byte, code;
    bool released;

    if (leaving || !(inb(I8042_STATUS) & ST_OBF))
        return;
    byte = inb(I8042_DATA);
    code = byte & ~RELEASED;
    released = byte & RELEASED;
    if (byte == EXTENDED || byte == EXTENDED_1) {
        extended = true;
        return;
    }
    if (code == KEY_CTRL)
        control = !released;
    else if (!extended && (code == KEY_SHIFT_LEFT || code == KEY_SHIFT_RIGHT))
        shift = !released;
    else if (!released && code != KEY_ALT)
        press(code);
    extended = false;
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    (void)magic, (void)info;
    put_string("keyboard: type something; Ctrl-D leaves\n");
    interrupts_init();
    irq_enable(KEYBOARD_IRQ, on_keyboard);
    on_keyboard();
    while (!leaving)
        wait_for_interrupt();
    put_string("\nkeyboard: bye\n");
}
