/*
 * The guest of a planted bug. Each has some of three functions; `SIZE` is where a pointer to a function lies
 * behind the buffer.
 */
#ifndef PLANTED_ATTACK_H
#define PLANTED_ATTACK_H

#include "common/io.h"
#include <stdint.h>

/* Read and write `count` bytes of the device process from `at` on, counted from the buffer's first byte. */
void take(uint32_t at, uint8_t *bytes, unsigned count);
void put(uint32_t at, const uint8_t *bytes, unsigned count);
/* Have the device call the pointer with the buffer's address. */
void call(void);

/* Print on the debug console. */
void say(const char *text);

#endif
