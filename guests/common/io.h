/* Port input and output, interrupts on and off, the ways out. */
#ifndef GUESTS_IO_H
#define GUESTS_IO_H

#include "ports.h"
#include <stdint.h>

static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline void outw(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint16_t inw(uint16_t port)
{
    uint16_t value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline void outl(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint32_t inl(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

/* Let interrupts in for one HLT. STI holds them off until HLT has begun, so no wake-up is missed. */
static inline void wait_for_interrupt(void)
{
    __asm__ volatile("sti; hlt; cli" : : : "memory");
}

/* Nothing more to do. */
static inline _Noreturn void halt(void)
{
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* A clean stop: status 0. */
static inline _Noreturn void shut_down(void)
{
    for (const char *letter = "Shutdown"; *letter; letter++)
        outb(SHUTDOWN, (uint8_t)*letter);
    halt();
}

/* A stop with status ((value << 1) | 1) & 0xff. */
static inline _Noreturn void debug_exit(uint8_t value)
{
    outb(DEBUG_EXIT, value);
    halt();
}

#endif
