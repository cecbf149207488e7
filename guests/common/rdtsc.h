/* The time-stamp counter. */
#ifndef GUESTS_RDTSC_H
#define GUESTS_RDTSC_H

#include <stdint.h>

static inline uint64_t rdtsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

#endif
