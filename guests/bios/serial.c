/* int 14h: COM1 to COM4, as the BIOS data area lists them. */
#include "bios.h"

enum { TIMED_OUT = 0x80, PATIENCE = 2000 };

static int ready(uint16_t port, uint8_t bit)
{
    for (unsigned i = 0; i < PATIENCE; i++)
        if (inb(port + UART_LSR) & bit)
            return 1;
    return 0;
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
        outb(port + UART_MCR, MCR_DTR | MCR_RTS);
        if (!ready(port, LSR_THRE)) {
            f->a.h = TIMED_OUT;
            return DONE;
        }
        outb(port + UART_THR, f->a.l);
        f->a.h = inb(port + UART_LSR) & 0x7f;
        return DONE;
    case 0x02:
        outb(port + UART_MCR, MCR_DTR | MCR_RTS);
        if (!ready(port, LSR_DR)) {
            f->a.h = TIMED_OUT;
            return DONE;
        }
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
