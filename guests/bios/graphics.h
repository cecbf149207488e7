/* The registers of the VGA, and what is drawn in graphics: what video.c needs of it. */
#ifndef GRAPHICS_H
#define GRAPHICS_H

#include "bios.h"

enum { CHARACTER_XOR = 0x80 }; /* of a colour: it is combined with what is there */

/* Whether `mode` is one of graphics that the VGA has, and whether the present mode is one. */
int is_graphics(uint8_t mode);
int in_graphics(void);

/* Give the VGA the registers and colours of a mode, of which `bios_mode` has a row in its table. */
void program_mode(uint8_t mode);
/* The data area of a graphics mode: columns, rows, size of a page, height of a character. */
void describe_mode(uint8_t mode);
void clear_graphics(void);

void put_pixel(uint8_t page, uint16_t x, uint16_t y, uint8_t color);
uint8_t get_pixel(uint8_t page, uint16_t x, uint16_t y);
void draw_character(uint8_t page, uint8_t row, uint8_t column, uint8_t character, uint8_t color);
/* A character cell's rows of dots move to another cell; or cells get a colour. */
void move_cells(uint8_t page, uint8_t to, uint8_t from, uint8_t column, uint8_t count);
void fill_cells(uint8_t page, uint8_t row, uint8_t column, uint8_t count, uint8_t color);

/* int 10h AH=0Bh, 10h, 11h, 1Bh: whether the function is there. */
void set_color(uint8_t which, uint8_t value);
int palette_function(struct frame *f);
int font_function(struct frame *f);
void tell_state(struct frame *f);

#endif
