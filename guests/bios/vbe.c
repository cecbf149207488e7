/*
 * int 10h AX=4Fxxh: VESA BIOS Extension (VBE) Core Functions 3.0, on the display interface of Bochs.
 *
 * The interface has the registers of the mode, the start and the window, so little is kept here. Function 0Ah is
 * optional since VBE 3.0, and not there. There is no monitor that could tell an EDID.
 */
#include "dispi.h"
#include "graphics.h"

enum { ENABLED = 1, DAC_8_BITS = 0x20, LINEAR = 0x40, NO_CLEAR = 0x80 };
enum { DAC_READ = 0x3c7, DAC_WRITE = 0x3c8, DAC_DATA = 0x3c9 };
enum { FRAME_BUFFER = 0xe0000000, BANKS = 256, BANK_KIB = 64, WINDOW = 0xa000 };

enum { OK = 0x004f, FAILED = 0x014f, WRONG_MODE = 0x034f, NO_FUNCTION = 0x0100 };
enum { MODE_BITS = 0x1ff, MODE_LINEAR = 0x4000, MODE_NO_CLEAR = 0x8000, FIRST_MODE = 0x100 };

/* The first number, the size, and which depths the numbers from there on have: kvmbox/firmware/video_modes.py has the
 * same. */
struct group {
    uint16_t first, width, height;
    uint8_t depths; /* bit 0: 8, 1: 15, 2: 16, 3: 24, 4: 32 */
};
static const struct group groups[] = {
    {0x100, 640, 400, 0x01},   {0x101, 640, 480, 0x01},   {0x103, 800, 600, 0x01},   {0x105, 1024, 768, 0x01},
    {0x107, 1280, 1024, 0x01}, {0x10d, 320, 200, 0x0e},   {0x110, 640, 480, 0x0e},   {0x113, 800, 600, 0x0e},
    {0x116, 1024, 768, 0x0e},  {0x119, 1280, 1024, 0x0e}, {0x11c, 1600, 1200, 0x0f}, {0x140, 320, 200, 0x10},
    {0x141, 640, 400, 0x10},   {0x142, 640, 480, 0x10},   {0x143, 800, 600, 0x10},   {0x144, 1024, 768, 0x10},
    {0x145, 1280, 1024, 0x10}, {0x146, 320, 200, 0x01},   {0x147, 1600, 1200, 0x10}, {0x148, 1152, 864, 0x1f},
    {0x175, 1280, 768, 0x1c},  {0x178, 1280, 800, 0x1c},  {0x17b, 1280, 960, 0x1c},  {0x17e, 1440, 900, 0x1c},
    {0x181, 1400, 1050, 0x1c}, {0x184, 1680, 1050, 0x1c}, {0x187, 1920, 1200, 0x1c}, {0x18a, 2560, 1600, 0x1c},
    {0x18d, 1280, 720, 0x1c},  {0x190, 1920, 1080, 0x1c},
};
enum { GROUPS = sizeof(groups) / sizeof(groups[0]), DEPTHS = 5, LIST = 34, LIST_END = 0xffff };
static const uint8_t depths[DEPTHS] = {8, 15, 16, 24, 32};
/* Size and position of red, green, blue and nothing, by depth. */
static const uint8_t fields[DEPTHS][8] = {
    {0, 0, 0, 0, 0, 0, 0, 0},    {5, 10, 5, 5, 5, 0, 1, 15},   {5, 11, 6, 5, 5, 0, 0, 0},
    {8, 16, 8, 8, 8, 0, 0, 0},   {8, 16, 8, 8, 8, 0, 8, 24},
};

struct mode {
    uint16_t number, width, height;
    uint8_t depth; /* of `depths` */
};

static const char name[] = "kvmbox";

static uint16_t stored_bytes(uint8_t depth)
{
    return (uint16_t)((depths[depth] + 7) / 8);
}

/* The mode with a number, or the one with a place in the list; 0 if there is none. */
static int find(struct mode *found, uint16_t number, uint16_t place)
{
    for (uint16_t i = 0; i < GROUPS; i++) {
        uint16_t next = groups[i].first;

        for (uint8_t depth = 0; depth < DEPTHS; depth++) {
            if (!(groups[i].depths & 1 << depth))
                continue;
            if (number ? next == number : place-- == 0) {
                found->number = next;
                found->width = groups[i].width;
                found->height = groups[i].height;
                found->depth = depth;
                return 1;
            }
            next++;
        }
    }
    return 0;
}

static int find_current(struct mode *found)
{
    return vbe_mode && find(found, vbe_mode & MODE_BITS, 0);
}

/* --- 00h and 01h: what there is ---------------------------------------------------------------------------- */

static void control_block(const struct frame *f)
{
    uint32_t text = 0xf0000000u | offset_of(name);
    int is_new = far32(f->es, f->di.x) == 0x32454256; /* "VBE2": there is room for 512 bytes */
    uint16_t list = (uint16_t)(f->di.x + LIST);
    struct mode mode;

    for (uint16_t i = 0; i < (is_new ? 512 : 256); i += 2)
        set_far16(f->es, (uint16_t)(f->di.x + i), 0);
    set_far32(f->es, f->di.x, 0x41534556); /* "VESA" */
    set_far16(f->es, (uint16_t)(f->di.x + 4), 0x0300);
    set_far32(f->es, (uint16_t)(f->di.x + 6), text);
    set_far32(f->es, (uint16_t)(f->di.x + 10), 1); /* the DAC can have 8 bits */
    /* The list of modes is in the block, as with other BIOSes: kernels with ES 0 take its address for a linear one. */
    set_far32(f->es, (uint16_t)(f->di.x + 14), (uint32_t)f->es << 16 | list);
    for (uint16_t place = 0; find(&mode, 0, place); place++, list += 2)
        set_far16(f->es, list, mode.number);
    set_far16(f->es, list, LIST_END);
    set_far16(f->es, (uint16_t)(f->di.x + 18), BANKS);
    if (is_new)
        for (uint16_t i = 22; i < 34; i += 4)
            set_far32(f->es, (uint16_t)(f->di.x + i), text);
}

static int mode_block(const struct frame *f)
{
    struct mode mode;
    uint8_t block[66];
    uint16_t pitch;
    uint32_t pages;

    if (!find(&mode, f->c.x & MODE_BITS, 0))
        return 0;
    for (uint16_t i = 0; i < sizeof(block); i++)
        block[i] = 0;
    pitch = (uint16_t)(mode.width * stored_bytes(mode.depth));
    pages = (uint32_t)BANKS * BANK_KIB * 1024 / ((uint32_t)pitch * mode.height) - 1;
    if (pages > 0xff)
        pages = 0xff;
    *(uint16_t *)&block[0] = 0xbb; /* there, with all fields, colour, graphics, no VGA mode, linear */
    block[2] = 7;                  /* the window: there, readable, writable */
    *(uint16_t *)&block[4] = BANK_KIB;
    *(uint16_t *)&block[6] = BANK_KIB;
    *(uint16_t *)&block[8] = WINDOW;
    *(uint16_t *)&block[16] = pitch;
    *(uint16_t *)&block[18] = mode.width;
    *(uint16_t *)&block[20] = mode.height;
    block[22] = 8;
    block[23] = 16;
    block[24] = 1;
    block[25] = depths[mode.depth];
    block[26] = 1;
    block[27] = mode.depth ? 6 : 4; /* direct colour, or packed pixels */
    block[29] = (uint8_t)pages;
    block[30] = 1;
    *(uint32_t *)&block[40] = FRAME_BUFFER;
    *(uint16_t *)&block[50] = pitch;
    block[52] = block[53] = (uint8_t)pages;
    for (uint16_t i = 0; i < 8; i++)
        block[31 + i] = block[54 + i] = fields[mode.depth][i];
    for (uint16_t i = 0; i < 256; i++)
        set_far8(f->es, (uint16_t)(f->di.x + i), i < sizeof(block) ? block[i] : 0);
    return 1;
}

/* --- 02h to 04h: the mode --------------------------------------------------------------------------------- */

static int set_mode(uint16_t wanted)
{
    struct mode mode;

    if ((wanted & MODE_BITS) < FIRST_MODE)
        return set_vga_mode((uint8_t)((wanted & 0x7f) | (wanted & MODE_NO_CLEAR ? 0x80 : 0)));
    if (!find(&mode, wanted & MODE_BITS, 0))
        return 0;
    /* The VGA has 64 KiB of plain memory at 0xA0000 then, and a palette of 256 colours; the data area has text. */
    enter_mode(0x83);
    program_mode(0x13);
    set_dispi(ENABLE, 0);
    set_dispi(XRES, mode.width);
    set_dispi(YRES, mode.height);
    set_dispi(BPP, depths[mode.depth]);
    set_dispi(BANK, 0);
    set_dispi(ENABLE, ENABLED | LINEAR | (wanted & MODE_NO_CLEAR ? NO_CLEAR : 0));
    vbe_mode = wanted & (MODE_BITS | MODE_LINEAR | MODE_NO_CLEAR);
    set_far8(BDA, BDA_VIDEO_CONTROL, (uint8_t)(0x60 | (wanted & MODE_NO_CLEAR) >> 8));
    return 1;
}

static void dac_to(uint16_t segment, uint16_t offset)
{
    outb(DAC_READ, 0);
    for (uint16_t i = 0; i < 768; i++)
        set_far8(segment, (uint16_t)(offset + i), inb(DAC_DATA));
}

static void dac_from(uint16_t segment, uint16_t offset)
{
    outb(DAC_WRITE, 0);
    for (uint16_t i = 0; i < 768; i++)
        outb(DAC_DATA, far8(segment, (uint16_t)(offset + i)));
}

/* A block of 64 bytes with the mode, the registers of the interface and what the BIOS keeps in its data area; then, if
 * bit 2 of CX asks for it, the DAC. */
enum { STATE_BLOCK = 64, STATE_DAC = 1 << 2, STATE_BDA = 0x22, STATE_BDA_SIZE = 0x1e };

static int state(struct frame *f)
{
    uint16_t at = f->b.x;

    switch (f->d.l) {
    case 0:
        f->b.x = f->c.x & STATE_DAC ? 1 + 768 / STATE_BLOCK : 1;
        return 1;
    case 1:
        set_far16(f->es, at, vbe_mode);
        for (uint16_t i = XRES; i < REGISTERS; i++)
            set_far16(f->es, (uint16_t)(at + 2 * i), dispi(i));
        for (uint16_t i = 0; i < STATE_BDA_SIZE; i++)
            set_far8(f->es, (uint16_t)(at + STATE_BDA + i), far8(BDA, (uint16_t)(BDA_MODE + i)));
        if (f->c.x & STATE_DAC)
            dac_to(f->es, (uint16_t)(at + STATE_BLOCK));
        return 1;
    case 2:
        vbe_mode = far16(f->es, at);
        set_dispi(ENABLE, 0);
        for (uint16_t i = XRES; i <= BPP; i++)
            set_dispi(i, far16(f->es, (uint16_t)(at + 2 * i)));
        set_dispi(ENABLE, (far16(f->es, (uint16_t)(at + 2 * ENABLE)) | NO_CLEAR));
        for (uint16_t i = BANK; i < REGISTERS; i++)
            set_dispi(i, far16(f->es, (uint16_t)(at + 2 * i)));
        for (uint16_t i = 0; i < STATE_BDA_SIZE; i++)
            set_far8(BDA, (uint16_t)(BDA_MODE + i), far8(f->es, (uint16_t)(at + STATE_BDA + i)));
        if (f->c.x & STATE_DAC)
            dac_from(f->es, (uint16_t)(at + STATE_BLOCK));
        return 1;
    default:
        return 0;
    }
}

/* --- 05h to 07h: what of the memory is seen ------------------------------------------------------------------ */

static uint16_t window(struct frame *f)
{
    if (f->b.l || f->b.h > 1)
        return FAILED;
    if (f->b.h == 1)
        f->d.x = dispi(BANK);
    else if (f->d.x >= BANKS)
        return FAILED;
    else
        set_dispi(BANK, f->d.x);
    return OK;
}

static uint16_t scan_line(struct frame *f, const struct mode *mode)
{
    uint16_t bytes = stored_bytes(mode->depth), dots = f->c.x;
    uint32_t most = (uint32_t)BANKS * BANK_KIB * 1024 / mode->height / bytes;

    if (most > 16000)
        most = 16000;
    switch (f->b.l) {
    case 0:
    case 2:
        if (f->b.l == 2)
            dots = (uint16_t)((dots + bytes - 1) / bytes);
        dots = (uint16_t)((dots + 7) & ~7);
        if (dots < mode->width || dots > most)
            return FAILED;
        set_dispi(VIRT_WIDTH, dots);
        break;
    case 1:
        break;
    case 3:
        f->b.x = (uint16_t)((most & ~7u) * bytes);
        f->c.x = (uint16_t)(most & ~7u);
        f->d.x = mode->height;
        return OK;
    default:
        return FAILED;
    }
    f->c.x = dispi(VIRT_WIDTH);
    f->b.x = (uint16_t)(f->c.x * bytes);
    f->d.x = dispi(VIRT_HEIGHT);
    return OK;
}

static uint16_t start(struct frame *f)
{
    switch (f->b.l) {
    case 0x00:
    case 0x80: /* during the vertical retrace: at once will do */
        set_dispi(X_OFFSET, f->c.x);
        set_dispi(Y_OFFSET, f->d.x);
        return dispi(X_OFFSET) == f->c.x && dispi(Y_OFFSET) == f->d.x ? OK : FAILED;
    case 0x01:
        f->b.h = 0;
        f->c.x = dispi(X_OFFSET);
        f->d.x = dispi(Y_OFFSET);
        return OK;
    default:
        return FAILED;
    }
}

/* --- 08h and 09h: the palette -------------------------------------------------------------------------------- */

static uint16_t dac_width(struct frame *f, const struct mode *mode)
{
    uint16_t enable = dispi(ENABLE);

    if (mode->depth)
        return WRONG_MODE;
    if (f->b.l > 1)
        return FAILED;
    if (f->b.l == 0) {
        enable = (uint16_t)(f->b.h >= 8 ? enable | DAC_8_BITS : enable & ~DAC_8_BITS);
        set_dispi(ENABLE, enable);
    }
    f->b.h = enable & DAC_8_BITS ? 8 : 6;
    return OK;
}

/* Blue, green, red and a byte of nothing, of CX colours from DX on. */
static uint16_t palette(const struct frame *f, const struct mode *mode)
{
    uint16_t at = f->di.x;

    if (mode->depth)
        return WRONG_MODE;
    if (f->d.x > 0xff || f->c.x > 0x100 - f->d.x || (f->b.l > 1 && f->b.l != 0x80))
        return FAILED;
    outb(f->b.l == 1 ? DAC_READ : DAC_WRITE, (uint8_t)f->d.x);
    for (uint16_t i = 0; i < f->c.x; i++, at = (uint16_t)(at + 4)) {
        for (uint16_t color = 0; color < 3; color++) {
            if (f->b.l == 1)
                set_far8(f->es, (uint16_t)(at + 2 - color), inb(DAC_DATA));
            else
                outb(DAC_DATA, far8(f->es, (uint16_t)(at + 2 - color)));
        }
    }
    return OK;
}

enum action vbe_service(struct frame *f)
{
    struct mode mode;
    int is_on = find_current(&mode);

    switch (f->a.l) {
    case 0x00:
        control_block(f);
        f->a.x = OK;
        return DONE;
    case 0x01:
        f->a.x = mode_block(f) ? OK : FAILED;
        return DONE;
    case 0x02:
        f->a.x = set_mode(f->b.x) ? OK : FAILED;
        return DONE;
    case 0x03:
        f->b.x = vbe_mode ? vbe_mode
                          : (uint16_t)(far8(BDA, BDA_MODE) | (far8(BDA, BDA_VIDEO_CONTROL) & 0x80) << 8);
        f->a.x = OK;
        return DONE;
    case 0x04:
        f->a.x = state(f) ? OK : FAILED;
        return DONE;
    case 0x05:
        f->a.x = !is_on ? WRONG_MODE : window(f);
        return DONE;
    case 0x06:
        f->a.x = !is_on ? WRONG_MODE : scan_line(f, &mode);
        return DONE;
    case 0x07:
        f->a.x = !is_on ? WRONG_MODE : start(f);
        return DONE;
    case 0x08:
        f->a.x = !is_on ? WRONG_MODE : dac_width(f, &mode);
        return DONE;
    case 0x09:
        f->a.x = !is_on ? WRONG_MODE : palette(f, &mode);
        return DONE;
    case 0x15: /* no monitor that tells an EDID */
        f->a.x = FAILED;
        return DONE;
    default:
        f->a.x = NO_FUNCTION;
        return DONE;
    }
}
