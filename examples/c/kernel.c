/*
 * A kernel in C: an ELF64 that kvmbox enters in long mode, with a stack. Two unit tests, which print TAP on COM1.
 * The host may run ring 0 in KVM's instruction emulator, so the Makefile asks for plain integer code.
 */
#include <stddef.h>
#include <stdint.h>

enum { COM1 = 0x3f8, SHUTDOWN = 0x8900 };

static inline void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void print(const char *text)
{
    while (*text)
        out8(COM1, (uint8_t)*text++);
}

static uint32_t checksum(const char *text)
{
    uint32_t sum = 2166136261u; /* FNV-1a */
    while (*text)
        sum = (sum ^ (uint8_t)*text++) * 16777619u;
    return sum;
}

static void report(int passed, const char *line)
{
    print(passed ? "ok " : "not ok ");
    print(line);
}

void kernel_main(void)
{
    static volatile uint8_t page[4096]; /* volatile: without a libc nobody provides memset */

    print("1..2\n");
    report(checksum("kvmbox") == 0xd789a3acu, "1 - FNV-1a of a text\n");
    size_t filled = 0;
    for (size_t i = 0; i < sizeof page; i++)
        page[i] = (uint8_t)i;
    while (filled < sizeof page && page[filled] == (uint8_t)filled)
        filled++;
    report(filled == sizeof page, "2 - a page of memory\n");

    for (const char *letter = "Shutdown"; *letter; letter++)
        out8(SHUTDOWN, (uint8_t)*letter); /* a clean stop: status 0 */
    for (;;)
        __asm__ volatile("hlt");
}

/* The entry: kvmbox has set RSP, and aligned it as before a call. */
__asm__(".globl _start\n_start: call kernel_main\n");
