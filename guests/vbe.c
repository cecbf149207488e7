/*
 * vbe: a picture on a linear frame buffer, set up by the display interface of Bochs from protected mode. Proves the
 * registers, the frame buffer, its pieces at 0xA0000, a start in the midst of it, and that a mode clears what it shows.
 * "--append 'WIDTH HEIGHT BITS'": 640, 480 and 32 by default. The frame buffer is where the VGA among the PCI functions
 * has it, or at 0xE0000000. Status 3 if something is wrong; else "--append '… 1'" halts for ever: status 6.
 */
#include "common/command_line.h"
#include "common/console.h"
#include "common/guest.h"
#include "common/io.h"
#include "common/picture.h"

enum { VBE_INDEX = 0x1ce, VBE_DATA = 0x1cf };
enum { ID, XRES, YRES, BPP, ENABLE, BANK, VIRT_WIDTH, VIRT_HEIGHT, X_OFFSET, Y_OFFSET, MEMORY_64K };
enum { ENABLED = 1, GETCAPS = 2, LINEAR = 0x40, NO_CLEAR = 0x80 };
enum { PCI_ADDRESS = 0xcf8, PCI_DATA = 0xcfc, PCI_ENABLE = 1 << 31, VGA_CLASS = 0x0300 };
enum { FRAME_BUFFER = 0xe0000000, BANK_SIZE = 0x10000 };

static volatile uint8_t *const window = (volatile uint8_t *)0xa0000;

static void set(uint16_t index, uint32_t value)
{
    outw(VBE_INDEX, index);
    outw(VBE_DATA, (uint16_t)value);
}

static uint16_t get(uint16_t index)
{
    outw(VBE_INDEX, index);
    return inw(VBE_DATA);
}

static void prove(int proven, const char *what)
{
    if (proven)
        return;
    put_string("not ok ");
    put_string(what);
    put_char('\n');
    debug_exit(EXIT_PROOF_FAILED);
}

static uint32_t pci(uint32_t slot, uint32_t offset)
{
    outl(PCI_ADDRESS, (uint32_t)PCI_ENABLE | slot << 11 | offset);
    return inl(PCI_DATA);
}

static uint32_t frame_buffer(void)
{
    for (uint32_t slot = 0; slot < 32; slot++)
        if (pci(slot, 0) != 0xffffffff && pci(slot, 8) >> 16 == VGA_CLASS)
            return pci(slot, 0x10) & ~15u;
    return FRAME_BUFFER;
}

static void enable(const struct surface *surface, uint32_t flags)
{
    set(ENABLE, 0);
    set(XRES, surface->width);
    set(YRES, surface->height);
    set(BPP, surface->bits);
    set(ENABLE, ENABLED | LINEAR | flags);
}

/* Every piece at 0xA0000 is that of the frame buffer, whichever of both is written. */
static void prove_banks(volatile uint8_t *first)
{
    for (uint32_t bank = 0; bank < get(MEMORY_64K); bank += 37) {
        volatile uint8_t *piece = first + bank * BANK_SIZE;

        set(BANK, bank);
        window[bank] = (uint8_t)~bank;
        piece[BANK_SIZE - 1 - bank] = (uint8_t)(bank + 1);
        prove(piece[bank] == (uint8_t)~bank, "bank, written at 0xA0000");
        prove(window[BANK_SIZE - 1 - bank] == (uint8_t)(bank + 1), "bank, read at 0xA0000");
        window[bank] = piece[BANK_SIZE - 1 - bank] = 0;
    }
    set(BANK, 0);
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    struct surface surface = {
        .width = decimal_argument(info, 0, 640),
        .height = decimal_argument(info, 1, 480),
        .bits = decimal_argument(info, 2, 32),
    };
    volatile uint8_t *first = (volatile uint8_t *)(uintptr_t)frame_buffer();
    uint32_t bytes = (surface.bits + 7) / 8;

    (void)magic;
    prove(get(ID) == 0xb0c5, "identification");
    set(ENABLE, GETCAPS);
    prove(get(XRES) >= 1600 && get(YRES) >= 1200 && get(BPP) == 32, "the most that there is");
    enable(&surface, 0);
    prove(get(XRES) == surface.width && get(YRES) == surface.height && get(BPP) == surface.bits, "mode");
    prove(get(VIRT_WIDTH) == surface.width, "virtual width");
    first[5] = 99;
    enable(&surface, NO_CLEAR);
    prove(first[5] == 99, "memory kept");
    enable(&surface, 0);
    prove(first[5] == 0, "memory cleared");
    prove_banks(first);

    set(VIRT_WIDTH, surface.width + 64);
    set(X_OFFSET, 24);
    set(Y_OFFSET, 5);
    prove(get(VIRT_WIDTH) == surface.width + 64 && get(X_OFFSET) == 24 && get(Y_OFFSET) == 5, "offsets");
    surface.pitch = (surface.width + 64) * bytes;
    surface.first = first + 5 * surface.pitch + 24 * bytes;
    if (surface.bits == 8)
        set_palette();
    draw_picture(&surface);
    put_string("vbe: the picture is there\n");
    if (decimal_argument(info, 3, 0))
        halt();
}
