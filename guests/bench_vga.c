/*
 * The tests of a VGA's memory. Of a mode only those registers are set that decide what an access means (IBM PS/2
 * Hardware Interface Technical Reference, "Video Subsystem": "Sequencer", "Graphics Controller").
 */
#include "bench_vga.h"
#include "common/io.h"
#include "common/rdtsc.h"

#define SEQUENCER   0x3c4
#define GRAPHICS    0x3ce
#define WINDOW      0xa0000
#define FRAME_BYTES 64000

/* Map mask and memory mode; mode and miscellaneous register. */
static void set(uint8_t memory_mode, uint8_t mode)
{
    const uint8_t sequencer[][2] = {{2, 0x0f}, {4, memory_mode}};
    const uint8_t graphics[][2] = {{0, 0}, {1, 0}, {3, 0}, {5, mode}, {6, 0x05}, {8, 0xff}};

    for (unsigned number = 0; number < 2; number++) {
        outb(SEQUENCER, sequencer[number][0]);
        outb(SEQUENCER + 1, sequencer[number][1]);
    }
    for (unsigned number = 0; number < 6; number++) {
        outb(GRAPHICS, graphics[number][0]);
        outb(GRAPHICS + 1, graphics[number][1]);
    }
}

uint64_t bench_vga_frame(uint32_t frames)
{
    uint64_t began;

    set(0x0e, 0x40);
    began = rdtsc();
    while (frames--) {
        uint32_t to = WINDOW, count = FRAME_BYTES / 4;

        __asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(frames * 0x01010101) : "memory");
    }
    return rdtsc() - began;
}

uint64_t bench_vga_planar(uint32_t pieces)
{
    uint64_t began;

    set(0x06, 0x00);
    began = rdtsc();
    while (pieces--) {
        uint32_t to = WINDOW, count = VGA_BATCH / 2;

        __asm__ volatile("rep stosw" : "+D"(to), "+c"(count) : "a"(pieces * 0x0101) : "memory");
    }
    inb(GRAPHICS + 1); /* an access that is not late: all of them are done */
    return rdtsc() - began;
}
