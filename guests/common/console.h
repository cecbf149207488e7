/* Text over COM1, polled. A line ends in a bare \n: the host's terminal adds the carriage return. */
#ifndef GUESTS_CONSOLE_H
#define GUESTS_CONSOLE_H

#include <stdint.h>

void put_char(char c);
void put_string(const char *text);
void put_decimal(uint32_t value, unsigned digits); /* at least `digits`, filled with zeros */
void put_hex(uint64_t value, unsigned digits);     /* exactly `digits` */

/* 115200 baud, 8N1, FIFOs on and empty, no interrupts, OUT2 on: COM1 as after the firmware. */
void console_reset(void);

/* "not ok TEXT", then debug-exit with EXIT_PROOF_FAILED. */
_Noreturn void fail(const char *text);

#endif
