/*
 * mmio64: the memory-mapped UART. Proves byte registers behind an address, a wide read made of byte reads, loopback,
 * the receive interrupt on IRQ 5, and output; the verdict goes over COM1. Status 0; 3 if a proof fails.
 */
#include "common/console.h"
#include "common/guest.h"
#include "common/interrupts.h"
#include "common/io.h"

static volatile uint8_t *const uart = (volatile uint8_t *)MMIO_UART;
static volatile unsigned received;
static volatile uint8_t last_byte;

static void on_uart(void)
{
    while (uart[UART_LSR] & LSR_DR) {
        last_byte = uart[UART_RBR];
        received++;
    }
}

static void prove(bool holds, const char *text)
{
    if (!holds)
        fail(text);
    put_string("ok ");
    put_string(text);
    put_char('\n');
}

static bool scratch_holds(uint8_t value)
{
    uart[UART_SCR] = value;
    return uart[UART_SCR] == value;
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    const char *line = "Hello through the MMIO UART!\n";
    uint32_t upper_half;

    (void)magic, (void)info;
    interrupts_init();
    if (!ticks_start(1))
        fail("PIT: no interrupts");

    prove(scratch_holds(0x5a) && scratch_holds(0xa5), "MMIO UART: the scratch register holds what it is given");

    uart[UART_LCR] = LCR_8N1;
    uart[UART_FCR] = FCR_ENABLE | FCR_CLEAR;
    uart[UART_MCR] = MCR_LOOP | MCR_OUT2;
    upper_half = *(volatile uint32_t *)(uart + UART_MCR);
    prove((upper_half & 0xff) == (MCR_LOOP | MCR_OUT2) && upper_half >> 24 == 0xa5,
          "MMIO UART: four bytes at once are four registers");

    irq_enable(MMIO_UART_IRQ, on_uart);
    uart[UART_IER] = IER_RDA;
    uart[UART_THR] = 'k';
    prove(wait_for(&received, 1, 10) && last_byte == 'k', "MMIO UART: a byte looped back raises IRQ 5");

    uart[UART_IER] = 0;
    uart[UART_MCR] = MCR_DTR | MCR_RTS | MCR_OUT2;
    while (*line) {
        while (!(uart[UART_LSR] & LSR_THRE))
            ;
        uart[UART_THR] = (uint8_t)*line++;
    }
    put_string("mmio64: all proven\n");
}
