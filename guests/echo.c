/*
 * echo: a terminal that answers. Proves interrupt-driven input without loss: every byte received is sent back, a
 * carriage return with a line feed after it. Ctrl-D leaves with status 0.
 *
 * Input may have arrived before the guest runs. Nothing here may drop it, so the FIFO control register is left alone:
 * both clearing the receive FIFO and switching the FIFOs on would empty them (PC16550D, 8.4).
 */
#include "common/console.h"
#include "common/guest.h"
#include "common/interrupts.h"
#include "common/io.h"

#define CTRL_D 0x04

static volatile bool leaving;

static void on_uart(void)
{
    while (!leaving && (inb(COM1 + UART_LSR) & LSR_DR)) {
        char c = (char)inb(COM1 + UART_RBR);

        if (c == CTRL_D) {
            leaving = true;
            break;
        }
        put_char(c);
        if (c == '\r')
            put_char('\n');
    }
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    (void)magic, (void)info;
    put_string("echo: type something; Ctrl-D leaves\n");
    interrupts_init();
    irq_enable(COM1_IRQ, on_uart);
    outb(COM1 + UART_LCR, LCR_8N1);
    outb(COM1 + UART_MCR, MCR_DTR | MCR_RTS | MCR_OUT2);
    outb(COM1 + UART_IER, IER_RDA);
    while (!leaving)
        wait_for_interrupt();
    put_string("\necho: bye\n");
}
