/*
 * int 14h: COM1 to COM4, as the BIOS data area lists them, with the seconds that each may wait.
 *
 * `scratch` has the seconds that have passed, and below them when the present one began.
 */
#include "bios.h"

enum { TIMED_OUT = 0x80 };

static enum action look_again(struct frame *f)
{
    uint32_t seconds = f->scratch >> 24;
    uint32_t since = f->scratch ? (f->scratch & PM_TIMER_BITS) | (PM_TIMER_BITS + 1) : 0;

    if (seconds >= far8(BDA, (uint16_t)(BDA_COM_TIMEOUT + f->d.x))) {
        f->a.h = TIMED_OUT;
        return DONE;
    }
    if (!within(&since, PM_TIMER_HERTZ)) {
        since += PM_TIMER_HERTZ;
        seconds++;
    }
    f->scratch = seconds << 24 | (since & PM_TIMER_BITS);
    return LOOK_AGAIN;
}

static int ready(const struct frame *f, uint16_t port, uint8_t bit)
{
    if (!f->scratch)
        outb(port + UART_MCR, MCR_DTR | MCR_RTS);
    return inb(port + UART_LSR) & bit;
}

enum action serial_service(struct frame *f)
{
    static const uint16_t divisors[] = {1047, 768, 384, 192, 96, 48, 24, 12}; /* of 110 to 9600 baud */
    uint16_t port = f->d.x < 4 ? far16(BDA, (uint16_t)(BDA_COM + 2 * f->d.x)) : 0;

    if (!port) {
        f->a.h = TIMED_OUT;
        return DONE;
    }
    switch (f->a.h) {
    case 0x00:
        outb(port + UART_LCR, (uint8_t)((f->a.l & 0x1f) | LCR_DLAB));
        outb(port + UART_DLL, (uint8_t)divisors[f->a.l >> 5]);
        outb(port + UART_DLM, (uint8_t)(divisors[f->a.l >> 5] >> 8));
        outb(port + UART_LCR, f->a.l & 0x1f);
        outb(port + UART_IER, 0);
        break;
    case 0x01:
        if (!ready(f, port, LSR_THRE))
            return look_again(f);
        outb(port + UART_THR, f->a.l);
        f->a.h = inb(port + UART_LSR) & 0x7f;
        return DONE;
    case 0x02:
        if (!ready(f, port, LSR_DR))
            return look_again(f);
        f->a.h = inb(port + UART_LSR) & 0x1e;
        f->a.l = inb(port + UART_RBR);
        return DONE;
    case 0x03:
        break;
    default:
        report(f, REPORT_SERVICE);
        return DONE;
    }
    f->a.h = inb(port + UART_LSR);
    f->a.l = inb(port + UART_MSR);
    return DONE;
}
