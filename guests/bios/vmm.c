/* What the BIOS tells the VMM: services that are missing, and that the guest wants a reset. */
#include "bios.h"

_Noreturn void restart(void)
{
    outb(RST_CNT, SYS_RST);
    outb(RST_CNT, SYS_RST | RST_CPU);
    halt();
}

int by_instruction(const struct frame *f)
{
    return far8(f->cs, (uint16_t)(f->ip - 2)) == 0xcd && far8(f->cs, (uint16_t)(f->ip - 1)) == (uint8_t)f->vector;
}

void report(const struct frame *f, enum report kind)
{
    uint16_t ip = f->ip;

    if (by_instruction(f))
        ip -= 2;
    else if (kind == REPORT_TRAP)
        kind = REPORT_UNHANDLED;
    outl(BIOS_REPORT_AT, (uint32_t)f->cs << 16 | ip);
    outl(BIOS_REPORT, (uint32_t)kind << 24 | (uint32_t)(uint8_t)f->vector << 16 | f->a.x);
    if (kind >= REPORT_TRAP)
        halt();
}

void refuse(struct frame *f)
{
    report(f, REPORT_SERVICE);
    f->a.h = 0x86;
    set_flag(f, CARRY, 1);
}
