/*
 * flood: output without end. Proves that a guest cannot fill the host's memory, and that --serial-limit, --expect,
 * --fail-on and --timeout end it; with "--append BYTES" that many bytes (whole lines of 64) arrive complete, then
 * status 0. Sends by REP OUTSB and does not look at LSR: string output is what it proves by the way.
 */
#include "common/command_line.h"
#include "common/guest.h"
#include "common/io.h"

#define LINE 64

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    static const char text[LINE + 1] = "flood: the quick brown fox jumps over the lazy dog 0123456789 +\n";
    uint32_t bytes = decimal_argument(info, 0, 0);
    uint32_t lines = bytes / LINE;

    (void)magic;
    for (uint32_t sent = 0; !bytes || sent < lines; sent++) {
        const char *from = text;
        uintptr_t count = LINE;

        __asm__ volatile("cld; rep outsb" : "+S"(from), "+c"(count) : "d"((uint16_t)(COM1 + UART_THR)) : "memory");
    }
}
