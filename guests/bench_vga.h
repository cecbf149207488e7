/* The tests of a VGA: see bench_vga.c. Each returns the TSC cycles of so many units. */
#ifndef GUESTS_BENCH_VGA_H
#define GUESTS_BENCH_VGA_H

#include <stdint.h>

#define VGA_BATCH 16384

uint64_t bench_vga_frame(uint32_t frames);  /* 320 x 200 bytes of mode 13h, by REP STOSL */
uint64_t bench_vga_planar(uint32_t pieces); /* of VGA_BATCH bytes to all planes of mode 12h, by REP STOSW */

#endif
