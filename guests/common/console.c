#include "console.h"
#include "io.h"

void put_char(char c)
{
    while (!(inb(COM1 + UART_LSR) & LSR_THRE))
        ;
    outb(COM1 + UART_THR, (uint8_t)c);
}

void put_string(const char *text)
{
    while (*text)
        put_char(*text++);
}

void put_decimal(uint32_t value, unsigned digits)
{
    char reversed[10]; /* as many as 2^32 has */
    unsigned length = 0;

    do {
        reversed[length++] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    for (; digits > length; digits--)
        put_char('0');
    while (length)
        put_char(reversed[--length]);
}

void put_hex(uint64_t value, unsigned digits)
{
    while (digits--)
        put_char("0123456789abcdef"[(value >> (4 * digits)) & 15]);
}

void console_reset(void)
{
    outb(COM1 + UART_LCR, LCR_8N1 | LCR_DLAB);
    outb(COM1 + UART_DLL, 1);
    outb(COM1 + UART_DLM, 0);
    outb(COM1 + UART_LCR, LCR_8N1);
    outb(COM1 + UART_IER, 0);
    outb(COM1 + UART_FCR, FCR_ENABLE | FCR_CLEAR);
    outb(COM1 + UART_MCR, MCR_DTR | MCR_RTS | MCR_OUT2);
}

_Noreturn void fail(const char *text)
{
    put_string("not ok ");
    put_string(text);
    put_char('\n');
    debug_exit(EXIT_PROOF_FAILED);
}
