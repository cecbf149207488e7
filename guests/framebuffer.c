/*
 * framebuffer: a Multiboot 1 kernel that asks for a linear frame buffer of 800 x 600 with 32 bits. Proves what the boot
 * loader tells of it, also in the words of VBE, by a picture on it. Status 3 if something is wrong.
 */
#include "common/console.h"
#include "common/guest.h"
#include "common/io.h"
#include "common/picture.h"

enum { FLAGS = 0x7, WIDTH = 800, HEIGHT = 600, BITS = 32 };
enum { INFO_VBE = 1 << 11, INFO_FRAMEBUFFER = 1 << 12, DIRECT = 1 };

__attribute__((section(".multiboot"), used, aligned(4))) static const uint32_t header[] = {
    MULTIBOOT_HEADER_MAGIC, FLAGS, -(MULTIBOOT_HEADER_MAGIC + FLAGS), 0, 0, 0, 0, 0, 0, WIDTH, HEIGHT, BITS,
};

struct screen_info {
    uint32_t vbe_control, vbe_mode_info;
    uint16_t vbe_mode, vbe_interface[3];
    uint64_t address;
    uint32_t pitch, width, height;
    uint8_t bits, type;
    uint16_t gap; /* not in the specification, but in multiboot.h and in what GRUB passes */
    uint8_t red_position, red_size, green_position, green_size, blue_position, blue_size;
} __attribute__((packed));
enum { SCREEN_INFO_AT = 72 };

static void prove(int proven, const char *what)
{
    if (proven)
        return;
    put_string("not ok ");
    put_string(what);
    put_char('\n');
    debug_exit(EXIT_PROOF_FAILED);
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    const struct screen_info *screen = (const void *)((const char *)info + SCREEN_INFO_AT);
    struct surface surface;

    prove(magic == MULTIBOOT_MAGIC && info->flags & INFO_FRAMEBUFFER, "frame buffer, told of");
    prove(screen->width == WIDTH && screen->height == HEIGHT && screen->bits == BITS, "mode");
    prove(screen->type == DIRECT && screen->red_position == 16 && screen->green_position == 8 &&
              screen->blue_position == 0 && screen->blue_size == 8,
          "colours");
    if (info->flags & INFO_VBE) {
        const uint8_t *block = (const uint8_t *)(uintptr_t)screen->vbe_mode_info;

        prove(*(const uint32_t *)(block + 40) == screen->address && *(const uint16_t *)(block + 16) == screen->pitch,
              "mode block of VBE");
    }
    surface.first = (volatile uint8_t *)(uintptr_t)screen->address;
    surface.pitch = screen->pitch;
    surface.width = screen->width;
    surface.height = screen->height;
    surface.bits = screen->bits;
    draw_picture(&surface);
    put_string("framebuffer: the picture is there\n");
}
