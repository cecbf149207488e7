/*
 * The graphics modes of int 10h: registers, colours, pixels, characters.
 *
 * Sources: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem" (registers), IBM PS/2 and PC BIOS
 * Interface Technical Reference, "Interrupt 10h" (modes and functions). Text modes are in video.c.
 *
 * Characters are drawn by write mode 3 where there are planes: the latches hold the background, a byte that is written
 * says which of its dots get the colour in set/reset.
 */
#include "graphics.h"
#include "font.h"

enum { MISC = 0x3c2, SEQUENCER = 0x3c4, PEL_MASK = 0x3c6, DAC_READ = 0x3c7, DAC_WRITE = 0x3c8, DAC = 0x3c9 };
enum { ATTRIBUTE_PORT = 0x3c0, GRAPHICS_PORT = 0x3ce, CRTC_PORT = 0x3d4, STATUS_PORT = 0x3da };
enum { SHOW = 0x20, BLINK_REGISTER = 0x10, OVERSCAN = 0x11, SELECT = 0x14 };
enum { FONT_SEGMENT = 0xc000, FONT_14 = 0x1000, FONT_16 = 0x2000 };
enum { VECTOR_1F = 4 * 0x1f, VECTOR_43 = 4 * 0x43 };
enum kind { TEXT, CGA, PLANAR, LINEAR };

struct bios_mode {
    uint8_t number, kind, bits; /* of a pixel in its byte or plane */
    uint8_t columns, rows, height; /* of characters */
    uint16_t page_size;
    uint8_t misc, clocking, map_mask, memory_mode;
    uint8_t horizontal;           /* which row of the table below */
    uint8_t scan, vertical, offset, underline, control;
    uint8_t shift, miscellaneous; /* graphics controller 5 and 6 */
    uint8_t colors;               /* which palette */
    uint8_t attribute;            /* which row of the table of attribute registers */
    uint8_t attribute_mode, planes;
};

enum { MONO, SIXTEEN, EGA, MANY };
static const struct bios_mode modes[] = {
    {0x01, TEXT, 0, 40, 25, 16, 0x800, 0x67, 0x08, 3, 2, 1, 0x4f, 0, 0x14, 0x1f, 0xa3, 0x10, 0x0e, EGA, 0, 0x0c, 0x0f},
    {0x03, TEXT, 0, 80, 25, 16, 0x1000, 0x67, 0x00, 3, 2, 0, 0x4f, 0, 0x28, 0x1f, 0xa3, 0x10, 0x0e, EGA, 0, 0x0c, 0x0f},
    {0x07, TEXT, 0, 80, 25, 16, 0x1000, 0x66, 0x00, 3, 2, 0, 0x4f, 0, 0x28, 0x0f, 0xa3, 0x10, 0x0a, MONO, 4, 0x0e, 0x0f},
    {0x04, CGA, 2, 40, 25, 8, 0x4000, 0x63, 0x09, 3, 2, 3, 0xc1, 0, 0x14, 0x00, 0xa2, 0x30, 0x0f, SIXTEEN, 2, 0x01, 0x03},
    {0x06, CGA, 1, 80, 25, 8, 0x4000, 0x63, 0x01, 1, 6, 2, 0xc1, 0, 0x28, 0x00, 0xc2, 0x00, 0x0d, SIXTEEN, 3, 0x01, 0x01},
    {0x0d, PLANAR, 4, 40, 25, 8, 0x2000, 0x63, 0x09, 15, 6, 3, 0xc0, 0, 0x14, 0x00, 0xe3, 0x00, 0x05, SIXTEEN, 1, 0x01, 0x0f},
    {0x0e, PLANAR, 4, 80, 25, 8, 0x4000, 0x63, 0x01, 15, 6, 2, 0xc0, 0, 0x28, 0x00, 0xe3, 0x00, 0x05, SIXTEEN, 1, 0x01, 0x0f},
    {0x0f, PLANAR, 4, 80, 25, 14, 0x8000, 0xa3, 0x01, 15, 6, 2, 0x40, 1, 0x28, 0x0f, 0xe3, 0x00, 0x05, MONO, 5, 0x0b, 0x05},
    {0x10, PLANAR, 4, 80, 25, 14, 0x8000, 0xa3, 0x01, 15, 6, 2, 0x40, 1, 0x28, 0x0f, 0xe3, 0x00, 0x05, EGA, 0, 0x01, 0x0f},
    {0x11, PLANAR, 4, 80, 30, 16, 0xa000, 0xe3, 0x01, 15, 6, 2, 0x40, 2, 0x28, 0x00, 0xe3, 0x00, 0x05, EGA, 6, 0x01, 0x0f},
    {0x12, PLANAR, 4, 80, 30, 16, 0xa000, 0xe3, 0x01, 15, 6, 2, 0x40, 2, 0x28, 0x00, 0xe3, 0x00, 0x05, EGA, 0, 0x01, 0x0f},
    {0x13, LINEAR, 8, 40, 25, 8, 0x2000, 0x63, 0x01, 15, 14, 2, 0x41, 0, 0x28, 0x40, 0xa3, 0x40, 0x05, MANY, 7, 0x41, 0x0f},
};
/* CRT controller 0 to 5, by resolution and by whether characters have 9 dots. */
static const uint8_t horizontals[4][6] = {
    {0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81},
    {0x2d, 0x27, 0x28, 0x90, 0x2b, 0xa0},
    {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80},
    {0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80},
};
/* CRT controller 6, 7, 10h to 12h, 15h, 16h: 400, 350 and 480 lines. */
static const uint8_t verticals[3][7] = {
    {0xbf, 0x1f, 0x9c, 0x8e, 0x8f, 0x96, 0xb9},
    {0xbf, 0x1f, 0x83, 0x85, 0x5d, 0x63, 0xba},
    {0x0b, 0x3e, 0xea, 0x8c, 0xdf, 0xe7, 0x04},
};
static const uint8_t attributes[8][16] = {
    {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f},
    {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17},
    {0x00, 0x13, 0x15, 0x17, 0x02, 0x04, 0x06, 0x07, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17},
    {0x00, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17},
    {0x00, 0x08, 0x08, 0x08, 0x08, 0x08, 0x08, 0x08, 0x10, 0x18, 0x18, 0x18, 0x18, 0x18, 0x18, 0x18},
    {0x00, 0x08, 0x00, 0x00, 0x18, 0x18, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x18, 0x00, 0x00},
    {0x00, 0x3f, 0x00, 0x3f, 0x00, 0x3f, 0x00, 0x3f, 0x00, 0x3f, 0x00, 0x3f, 0x00, 0x3f, 0x00, 0x3f},
    {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f},
};

static const struct bios_mode *mode_of(uint8_t number)
{
    if (number == 0 || number == 2 || number == 5)
        number = (uint8_t)(number == 5 ? 4 : number + 1);
    for (unsigned i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (modes[i].number == number)
            return &modes[i];
    return NULL;
}

static const struct bios_mode *present(void)
{
    return mode_of(far8(BDA, BDA_MODE));
}

int is_graphics(uint8_t number)
{
    const struct bios_mode *mode = mode_of(number);

    return mode && mode->kind != TEXT;
}

int in_graphics(void)
{
    return is_graphics(far8(BDA, BDA_MODE));
}

/* --- Registers -------------------------------------------------------------------------------------------- */

static void set(uint16_t port, uint8_t index, uint8_t value)
{
    outw(port, (uint16_t)(value << 8 | index));
}

static void set_attribute(uint8_t index, uint8_t value)
{
    inb(STATUS_PORT);
    outb(ATTRIBUTE_PORT, index);
    outb(ATTRIBUTE_PORT, value);
    outb(ATTRIBUTE_PORT, SHOW);
}

static uint8_t get_attribute(uint8_t index)
{
    uint8_t value;

    inb(STATUS_PORT);
    outb(ATTRIBUTE_PORT, index);
    value = inb(ATTRIBUTE_PORT + 1);
    inb(STATUS_PORT);
    outb(ATTRIBUTE_PORT, SHOW);
    return value;
}

static void send_color(uint8_t red, uint8_t green, uint8_t blue)
{
    outb(DAC, red);
    outb(DAC, green);
    outb(DAC, blue);
}

/* Of the 64 colours of an EGA: bits 0 to 2 are two thirds of blue, green and red, and bits 3 to 5 one third. */
static uint8_t ega_level(uint8_t color, uint8_t plane)
{
    return (uint8_t)(0x2a * (color >> plane & 1) + 0x15 * (color >> (plane + 3) & 1));
}

/* The same of 16 colours: a third of all three if it is bright, and brown in place of dark yellow. */
static uint8_t cga_color(uint8_t color)
{
    uint8_t dark = (uint8_t)(color & 7);

    return color & 0x10 ? (uint8_t)(dark | 0x38) : dark == 6 ? 0x14 : dark;
}

/* 24 hues from blue by red and green, in levels 0 to 4 of each of the three. */
static void send_hues(const uint8_t *levels)
{
    for (uint8_t hue = 0; hue < 24; hue++) {
        uint8_t part = (uint8_t)(hue >> 2), step = (uint8_t)(hue & 3), at[3] = {0, 0, 0}; /* red, green, blue */
        uint8_t full = (uint8_t)((2 + part / 2) % 3), next = (uint8_t)((full + 1) % 3);

        at[full] = (uint8_t)(part & 1 ? 4 - step : 4);
        at[next] = (uint8_t)(part & 1 ? 4 : step);
        send_color(levels[at[0]], levels[at[1]], levels[at[2]]);
    }
}

static void send_palette(uint8_t colors)
{
    static const uint8_t grays[] = {0, 5, 8, 11, 14, 17, 20, 24, 28, 32, 36, 40, 45, 50, 56, 63};
    static const uint8_t levels[9][5] = {
        {0, 16, 31, 47, 63}, {31, 39, 47, 55, 63}, {45, 49, 54, 58, 63}, {0, 7, 14, 21, 28}, {14, 17, 21, 24, 28},
        {20, 22, 24, 26, 28}, {0, 4, 8, 12, 16}, {8, 10, 12, 14, 16}, {11, 12, 13, 15, 16},
    };

    outb(PEL_MASK, 0xff);
    outb(DAC_WRITE, 0);
    for (uint8_t color = 0; color < (colors == MANY ? 16 : 64); color++) {
        uint8_t c = colors == EGA    ? color
                    : colors == MANY ? cga_color((uint8_t)((color & 7) | (color & 8) << 1))
                                     : cga_color((uint8_t)(color & 0x17));
        uint8_t gray = (uint8_t)(color & 8 ? (color & 0x10 ? 0x3f : 0x2a) : 0);

        if (colors == MONO)
            send_color(gray, gray, gray);
        else
            send_color(ega_level(c, 2), ega_level(c, 1), ega_level(c, 0));
    }
    if (colors != MANY)
        return;
    for (uint8_t i = 0; i < 16; i++)
        send_color(grays[i], grays[i], grays[i]);
    for (uint8_t i = 0; i < 9; i++)
        send_hues(levels[i]);
    for (uint8_t i = 0; i < 8; i++)
        send_color(0, 0, 0);
}

static void program_crtc(const struct bios_mode *mode)
{
    static const uint8_t vertical_registers[7] = {0x06, 0x07, 0x10, 0x11, 0x12, 0x15, 0x16};
    uint16_t port = far16(BDA, BDA_CRTC);
    uint8_t is_text = mode->kind == TEXT;

    set(port, 0x11, 0x0e); /* without protection */
    for (uint8_t i = 0; i < 6; i++)
        set(port, i, horizontals[mode->horizontal][i]);
    for (uint8_t i = 0; i < 7; i++)
        set(port, vertical_registers[i], verticals[mode->vertical][i]);
    set(port, 0x08, 0);
    set(port, 0x09, mode->scan);
    set(port, 0x0a, is_text ? 0x0d : 0);
    set(port, 0x0b, is_text ? 0x0e : 0);
    for (uint8_t i = 0x0c; i < 0x10; i++)
        set(port, i, 0);
    set(port, 0x13, mode->offset);
    set(port, 0x14, mode->underline);
    set(port, 0x17, mode->control);
    set(port, 0x18, 0xff);
}

void program_mode(uint8_t number)
{
    const struct bios_mode *mode = mode_of(number);

    inb(STATUS_PORT);
    outb(ATTRIBUTE_PORT, 0); /* dark meanwhile */
    outb(MISC, mode->misc);
    set(SEQUENCER, 0, 3);
    set(SEQUENCER, 1, mode->clocking);
    set(SEQUENCER, 2, mode->map_mask);
    set(SEQUENCER, 3, 0);
    set(SEQUENCER, 4, mode->memory_mode);
    program_crtc(mode);
    for (uint8_t i = 0; i < 9; i++)
        set(GRAPHICS_PORT, i,
            i == 5   ? mode->shift
            : i == 6 ? mode->miscellaneous
            : i == 7 ? 0x0f
            : i == 8 ? 0xff
                     : 0);
    send_palette(mode->colors);
    inb(STATUS_PORT);
    for (uint8_t i = 0; i < 21; i++) {
        outb(ATTRIBUTE_PORT, i);
        outb(ATTRIBUTE_PORT, i < 16                 ? attributes[mode->attribute][i]
                             : i == BLINK_REGISTER ? mode->attribute_mode
                             : i == 0x12           ? mode->planes
                             : i == 0x13 && mode->kind == TEXT && mode->number != 1 ? 0x08
                                                                                    : 0);
    }
    outb(ATTRIBUTE_PORT, SHOW);
}

/* --- Fonts ------------------------------------------------------------------------------------------------ */

/* Characters of 14 or 16 rows, in memory that nobody else uses: those of 8 rows, stretched. */
static uint32_t font_of(uint8_t height)
{
    uint16_t at = height == 14 ? FONT_14 : FONT_16;

    if (height == 8)
        return 0xf0000000u | offset_of(font);
    if (far8(FONT_SEGMENT, (uint16_t)(at + 'A' * height + height / 2)) == 0)
        for (uint16_t i = 0; i < 256 * height; i++)
            set_far8(FONT_SEGMENT, (uint16_t)(at + i), font[i / height][i % height * 8 / height]);
    return (uint32_t)FONT_SEGMENT << 16 | at;
}

void describe_mode(uint8_t number)
{
    const struct bios_mode *mode = mode_of(number);

    set_far16(BDA, BDA_COLUMNS, mode->columns);
    set_far8(BDA, BDA_ROWS, (uint8_t)(mode->rows - 1));
    set_far16(BDA, BDA_PAGE_SIZE, mode->page_size);
    set_far16(BDA, BDA_CELL_HEIGHT, mode->height);
    if (mode->kind != TEXT) {
        set_far32(0, VECTOR_1F, 0xf0000000u | offset_of(font[128]));
        set_far32(0, VECTOR_43, font_of(mode->height));
    }
}

/* --- Memory ----------------------------------------------------------------------------------------------- */

static uint16_t segment(void)
{
    return present()->kind == CGA ? 0xb800 : 0xa000;
}

/* Where a line of dots begins. */
static uint16_t line(uint8_t page, uint16_t y)
{
    const struct bios_mode *mode = present();

    if (mode->kind == LINEAR)
        return (uint16_t)(320 * y);
    if (mode->kind == CGA)
        return (uint16_t)((y >> 1) * 80 + (y & 1 ? 0x2000 : 0));
    return (uint16_t)(page * mode->page_size + y * mode->columns);
}

/* The bytes that a line of a character has. */
static uint8_t unit(void)
{
    const struct bios_mode *mode = present();

    return mode->kind == LINEAR ? 8 : mode->number == 4 ? 2 : 1;
}

void clear_graphics(void)
{
    if (present()->kind == CGA)
        far_fill16(0xb800, 0, 0, 0x2000);
    else /* what no page shows, too: it may be scrolled to */
        far_fill16(0xa000, 0, 0, 0x8000);
}

/* Planes: all dots of a byte get `color`, or those that are 1 in it, as `mode` of the graphics controller says. */
static void begin_planes(uint8_t color, uint8_t mode)
{
    set(GRAPHICS_PORT, 0, (uint8_t)(color & 0x0f));
    set(GRAPHICS_PORT, 1, 0x0f);
    set(GRAPHICS_PORT, 3, color & CHARACTER_XOR && mode == 3 ? 0x18 : 0);
    set(GRAPHICS_PORT, 5, mode);
}

static void end_planes(void)
{
    set(GRAPHICS_PORT, 0, 0);
    set(GRAPHICS_PORT, 1, 0);
    set(GRAPHICS_PORT, 3, 0);
    set(GRAPHICS_PORT, 5, 0);
}

/* Of a pixel in a byte of a CGA mode: how far its bits are from the right. */
static uint8_t shift_of(uint16_t x, uint8_t bits)
{
    return (uint8_t)(bits == 2 ? 6 - 2 * (x & 3) : 7 - (x & 7));
}

void put_pixel(uint8_t page, uint16_t x, uint16_t y, uint8_t color)
{
    const struct bios_mode *mode = present();
    uint16_t start = line(page, y);

    if (mode->kind == LINEAR) {
        set_far8(0xa000, (uint16_t)(start + x), color);
    } else if (mode->kind == PLANAR) {
        uint16_t at = (uint16_t)(start + (x >> 3));

        begin_planes(color, 3);
        far8(0xa000, at);
        set_far8(0xa000, at, (uint8_t)(0x80 >> (x & 7)));
        end_planes();
    } else {
        uint16_t at = (uint16_t)(start + x / (8 / mode->bits));
        uint8_t shift = shift_of(x, mode->bits), mask = (uint8_t)(((1 << mode->bits) - 1) << shift);
        uint8_t before = far8(0xb800, at), value = (uint8_t)(color << shift & mask);

        set_far8(0xb800, at, (uint8_t)(color & CHARACTER_XOR ? before ^ value : (before & ~mask) | value));
    }
}

uint8_t get_pixel(uint8_t page, uint16_t x, uint16_t y)
{
    const struct bios_mode *mode = present();
    uint16_t start = line(page, y);
    uint8_t color = 0;

    if (mode->kind == LINEAR)
        return far8(0xa000, (uint16_t)(start + x));
    if (mode->kind == CGA)
        return (uint8_t)(far8(0xb800, (uint16_t)(start + x / (8 / mode->bits))) >> shift_of(x, mode->bits) &
                         ((1 << mode->bits) - 1));
    for (uint8_t plane = 0; plane < 4; plane++) {
        set(GRAPHICS_PORT, 4, plane);
        color |= (uint8_t)((far8(0xa000, (uint16_t)(start + (x >> 3))) >> (7 - (x & 7)) & 1) << plane);
    }
    set(GRAPHICS_PORT, 4, 0);
    return color;
}

/* A line of a character in planes: over black, or combined with what is there. */
static void draw_planes(uint16_t at, uint8_t bits, int combines, int is_first)
{
    if (is_first && !combines) { /* black: the latches have that then, for all lines */
        set(GRAPHICS_PORT, 8, 0);
        set(GRAPHICS_PORT, 5, 0);
        set(GRAPHICS_PORT, 1, 0);
        set(GRAPHICS_PORT, 8, 0xff);
        set_far8(0xa000, at, 0);
        set(GRAPHICS_PORT, 1, 0x0f);
        set(GRAPHICS_PORT, 5, 3);
    }
    if (is_first || combines)
        far8(0xa000, at);
    set_far8(0xa000, at, bits);
}

void draw_character(uint8_t page, uint8_t row, uint8_t column, uint8_t character, uint8_t color)
{
    const struct bios_mode *mode = present();
    uint8_t height = (uint8_t)far16(BDA, BDA_CELL_HEIGHT), combines = color & CHARACTER_XOR;
    uint32_t glyphs = far32(0, VECTOR_43);
    uint16_t index = (uint16_t)(character * height);

    if (mode->kind == CGA && character & 0x80) {
        glyphs = far32(0, VECTOR_1F);
        index = (uint16_t)((character & 0x7f) * height);
    }
    if (mode->kind == PLANAR)
        begin_planes(color, 3);
    for (uint8_t i = 0; i < height; i++) {
        uint16_t y = (uint16_t)(row * height + i), at = (uint16_t)(line(page, y) + column * unit());
        uint8_t bits = far8((uint16_t)(glyphs >> 16), (uint16_t)(glyphs + index + i));

        if (mode->kind == PLANAR) {
            draw_planes(at, bits, combines, i == 0);
        } else if (mode->number == 6) {
            set_far8(0xb800, at, (uint8_t)(combines ? far8(0xb800, at) ^ bits : color & 1 ? bits : 0));
        } else {
            for (uint8_t x = 0; x < 8; x++) {
                uint8_t dot = bits >> (7 - x) & 1;

                if (dot || !combines || mode->kind == LINEAR)
                    put_pixel(page, (uint16_t)(8 * column + x), y, dot ? color : 0);
            }
        }
    }
    if (mode->kind == PLANAR)
        end_planes();
}

void move_cells(uint8_t page, uint8_t to, uint8_t from, uint8_t column, uint8_t count)
{
    uint8_t height = (uint8_t)far16(BDA, BDA_CELL_HEIGHT), planes = present()->kind == PLANAR;
    uint16_t bytes = (uint16_t)(count * unit()), left = (uint16_t)(column * unit());

    if (planes)
        begin_planes(0, 1);
    for (uint8_t i = 0; i < height; i++) {
        uint16_t target = (uint16_t)(line(page, (uint16_t)(to * height + i)) + left);
        uint16_t source = (uint16_t)(line(page, (uint16_t)(from * height + i)) + left);

        if (present()->kind == LINEAR)
            far_move16(0xa000, target, source, bytes / 2);
        else
            for (uint16_t at = 0; at < bytes; at++)
                set_far8(segment(), (uint16_t)(target + at), far8(segment(), (uint16_t)(source + at)));
    }
    if (planes)
        end_planes();
}

void fill_cells(uint8_t page, uint8_t row, uint8_t column, uint8_t count, uint8_t color)
{
    const struct bios_mode *mode = present();
    uint8_t height = (uint8_t)far16(BDA, BDA_CELL_HEIGHT);
    uint16_t bytes = (uint16_t)(count * unit()), left = (uint16_t)(column * unit());
    uint8_t value = (uint8_t)(mode->number == 4 ? (color & 3) * 0x55 : mode->number == 6 ? (color & 1) * 0xff : color);

    if (mode->kind == PLANAR)
        begin_planes(color, 0);
    for (uint8_t i = 0; i < height; i++) {
        uint16_t at = (uint16_t)(line(page, (uint16_t)(row * height + i)) + left);

        if (mode->kind == LINEAR)
            far_fill16(0xa000, at, (uint32_t)(value << 8 | value), bytes / 2);
        else
            for (uint16_t b = 0; b < bytes; b++)
                set_far8(segment(), (uint16_t)(at + b), value);
    }
    if (mode->kind == PLANAR)
        end_planes();
}

/* --- Functions -------------------------------------------------------------------------------------------- */

void set_color(uint8_t which, uint8_t value)
{
    if (which == 0) {
        set_attribute(0, (uint8_t)((value & 7) | (value & 8) << 1));
        for (uint8_t i = 1; i < 4; i++)
            set_attribute(i, (uint8_t)((get_attribute(i) & ~0x10) | (value & 0x10)));
    } else {
        for (uint8_t i = 1; i < 4; i++)
            set_attribute(i, (uint8_t)((get_attribute(i) & ~1) | (value & 1)));
    }
}

static void block_of_colors(const struct frame *f, int reads)
{
    uint16_t at = f->d.x;

    outb(reads ? DAC_READ : DAC_WRITE, f->b.l);
    for (uint16_t i = 0; i < 3 * f->c.x; i++, at++) {
        if (reads)
            set_far8(f->es, at, inb(DAC));
        else
            outb(DAC, far8(f->es, at));
    }
}

/* A colour as the gray that is as bright: 30 % of red, 59 % of green, 11 % of blue. */
static void send_gray(uint8_t color)
{
    uint16_t level = 50;

    outb(DAC_READ, color);
    level += 30 * inb(DAC);
    level += 59 * inb(DAC);
    level += 11 * inb(DAC);
    level /= 100;
    outb(DAC_WRITE, color);
    send_color((uint8_t)level, (uint8_t)level, (uint8_t)level);
}

int palette_function(struct frame *f)
{
    uint8_t control;

    switch (f->a.l) {
    case 0x00:
        set_attribute((uint8_t)(f->b.l & 0x1f), f->b.h);
        return 1;
    case 0x01:
        set_attribute(OVERSCAN, f->b.h);
        return 1;
    case 0x02:
        for (uint8_t i = 0; i < 17; i++)
            set_attribute((uint8_t)(i == 16 ? OVERSCAN : i), far8(f->es, (uint16_t)(f->d.x + i)));
        return 1;
    case 0x03:
        control = get_attribute(BLINK_REGISTER);
        set_attribute(BLINK_REGISTER, (uint8_t)((control & ~8) | (f->b.l & 1) << 3));
        return 1;
    case 0x07:
        f->b.h = get_attribute((uint8_t)(f->b.l & 0x1f));
        return 1;
    case 0x08:
        f->b.h = get_attribute(OVERSCAN);
        return 1;
    case 0x09:
        for (uint8_t i = 0; i < 17; i++)
            set_far8(f->es, (uint16_t)(f->d.x + i), get_attribute((uint8_t)(i == 16 ? OVERSCAN : i)));
        return 1;
    case 0x10:
        outb(DAC_WRITE, f->b.l);
        send_color(f->d.h, f->c.h, f->c.l);
        return 1;
    case 0x12:
    case 0x17:
        block_of_colors(f, f->a.l == 0x17);
        return 1;
    case 0x13:
        control = get_attribute(BLINK_REGISTER);
        if (f->b.l == 0)
            set_attribute(BLINK_REGISTER, (uint8_t)((control & 0x7f) | f->b.h << 7));
        else
            set_attribute(SELECT, (uint8_t)(control & 0x80 ? f->b.h & 0x0f : (f->b.h & 3) << 2));
        return 1;
    case 0x15:
        outb(DAC_READ, f->b.l);
        f->d.h = inb(DAC);
        f->c.h = inb(DAC);
        f->c.l = inb(DAC);
        return 1;
    case 0x18:
        outb(PEL_MASK, f->b.l);
        return 1;
    case 0x19:
        f->b.l = inb(PEL_MASK);
        return 1;
    case 0x1b:
        for (uint16_t i = 0; i < f->c.x && f->b.l + i < 256; i++)
            send_gray((uint8_t)(f->b.l + i));
        return 1;
    case 0x1a:
        control = get_attribute(BLINK_REGISTER);
        f->b.l = control >> 7;
        f->b.h = (uint8_t)(control & 0x80 ? get_attribute(SELECT) & 0x0f : get_attribute(SELECT) >> 2 & 3);
        return 1;
    }
    return 0;
}

int font_function(struct frame *f)
{
    uint32_t at;

    switch (f->a.l) {
    case 0x03:
    case 0x04: /* the font that is there */
        return 1;
    case 0x20:
        set_far32(0, VECTOR_1F, (uint32_t)f->es << 16 | f->bp.x);
        return 1;
    case 0x21:
        set_far32(0, VECTOR_43, (uint32_t)f->es << 16 | f->bp.x);
        set_far16(BDA, BDA_CELL_HEIGHT, f->c.x);
        return 1;
    case 0x22:
    case 0x23:
    case 0x24:
        set_far16(BDA, BDA_CELL_HEIGHT, f->a.l == 0x22 ? 14 : f->a.l == 0x23 ? 8 : 16);
        set_far32(0, VECTOR_43, font_of((uint8_t)far16(BDA, BDA_CELL_HEIGHT)));
        return 1;
    case 0x30:
        at = f->b.h == 0   ? far32(0, VECTOR_1F)
             : f->b.h == 1 ? far32(0, VECTOR_43)
             : f->b.h == 3 ? font_of(8)
             : f->b.h == 4 ? font_of(8) + 128 * 8
                           : font_of(f->b.h == 2 || f->b.h == 5 ? 14 : 16);
        f->es = (uint16_t)(at >> 16);
        f->bp.x = (uint16_t)at;
        f->c.x = far16(BDA, BDA_CELL_HEIGHT);
        f->d.l = far8(BDA, BDA_ROWS);
        return 1;
    }
    return 0;
}

void tell_state(struct frame *f)
{
    static const uint8_t able[16] = {0xff, 0xe0, 0x0f, 0, 0, 0, 0, 0x07, 0x02, 0x08, 0xe7, 0x0c, 0, 0, 0, 0};
    const struct bios_mode *mode = present();
    uint16_t to = f->di.x;

    for (uint8_t i = 0; i < 64; i++)
        set_far8(f->es, (uint16_t)(to + i), 0);
    set_far32(f->es, to, 0xf0000000u | offset_of(able));
    for (uint8_t i = 0; i < 30; i++)
        set_far8(f->es, (uint16_t)(to + 4 + i), far8(BDA, (uint16_t)(BDA_MODE + i)));
    set_far8(f->es, (uint16_t)(to + 0x22), (uint8_t)(far8(BDA, BDA_ROWS) + 1));
    set_far16(f->es, (uint16_t)(to + 0x23), far16(BDA, BDA_CELL_HEIGHT));
    set_far8(f->es, (uint16_t)(to + 0x25), 8); /* a VGA with a colour monitor */
    set_far16(f->es, (uint16_t)(to + 0x27), mode->kind == TEXT ? 16 : (uint16_t)(1 << mode->bits));
    set_far8(f->es, (uint16_t)(to + 0x29), mode->kind == TEXT ? 8 : 1);
    set_far8(f->es, (uint16_t)(to + 0x2a), mode->vertical == 1 ? 1 : mode->vertical == 2 ? 3 : 2);
    set_far8(f->es, (uint16_t)(to + 0x31), 3); /* 256 KiB */
    f->a.l = 0x1b;
}
