/* The time-stamp counter, for 32-bit code. */
#ifndef GUESTS_RDTSC_H
#define GUESTS_RDTSC_H

#include <stdint.h>

static inline uint64_t rdtsc(void)
{
    uint64_t tsc;
    __asm__ volatile("rdtsc" : "=A"(tsc));
    return tsc;
}

#endif
