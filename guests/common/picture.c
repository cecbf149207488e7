#include "picture.h"
#include "io.h"

enum { DAC_INDEX = 0x3c8, DAC_LEVEL = 0x3c9 };
enum { PATTERN_WIDTH = 96, PATTERN_HEIGHT = 48, CORNER = 16 };

static uint32_t coded(const struct surface *surface, uint32_t red, uint32_t green, uint32_t blue)
{
    switch (surface->bits) {
    case 8:
        return (red + green + blue) & 0xff;
    case 15:
        return red >> 3 << 10 | green >> 3 << 5 | blue >> 3;
    case 16:
        return red >> 3 << 11 | green >> 2 << 5 | blue >> 3;
    default:
        return red << 16 | green << 8 | blue;
    }
}

static void dot(const struct surface *surface, uint32_t x, uint32_t y, uint32_t value)
{
    uint32_t bytes = (surface->bits + 7) / 8;
    volatile uint8_t *at = surface->first + y * surface->pitch + x * bytes;

    for (uint32_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

/* A pattern in the upper left corner, a frame around all, a square in the lower right corner. */
void draw_picture(const struct surface *surface)
{
    uint32_t right = surface->width - 1, bottom = surface->height - 1;

    for (uint32_t y = 0; y < PATTERN_HEIGHT; y++)
        for (uint32_t x = 0; x < PATTERN_WIDTH; x++)
            dot(surface, x, y, coded(surface, x * 255 / PATTERN_WIDTH, y * 255 / PATTERN_HEIGHT, (x ^ y) * 2));
    for (uint32_t x = 0; x <= right; x++) {
        dot(surface, x, 0, coded(surface, 255, x & 255, 0));
        dot(surface, x, bottom, coded(surface, 0, x & 255, 255));
    }
    for (uint32_t y = 0; y <= bottom; y++) {
        dot(surface, 0, y, coded(surface, 0, 255, y & 255));
        dot(surface, right, y, coded(surface, y & 255, 255, 0));
    }
    for (uint32_t y = bottom - CORNER; y < bottom; y++)
        for (uint32_t x = right - CORNER; x < right; x++)
            dot(surface, x, y, coded(surface, 200, 100, 50));
}

void set_palette(void)
{
    outb(DAC_INDEX, 0);
    for (unsigned i = 0; i < 256; i++) {
        outb(DAC_LEVEL, (uint8_t)(i >> 2));
        outb(DAC_LEVEL, (uint8_t)(63 - (i >> 2)));
        outb(DAC_LEVEL, (uint8_t)(i * 2 & 63));
    }
}
