/* A test picture on a linear frame buffer: it shows wrong colours, lines, sizes and starts. */
#ifndef GUESTS_PICTURE_H
#define GUESTS_PICTURE_H

#include <stdint.h>

struct surface {
    volatile uint8_t *first; /* the first dot */
    uint32_t pitch;          /* bytes from one line to the next */
    uint32_t width, height;
    uint32_t bits; /* 8 (a palette), 15, 16, 24 or 32 */
};

void draw_picture(const struct surface *surface);

/* 256 colours in the DAC of a VGA, with levels of 6 bits. */
void set_palette(void);

#endif
