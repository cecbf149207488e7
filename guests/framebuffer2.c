/*
 * framebuffer2: a Multiboot 2 kernel that asks for a linear frame buffer of 1024 x 768 with 24 bits, and takes no text.
 * Proves what the boot loader tells of it by a picture on it. Status 3 if it is wrong.
 */
#include "common/console.h"
#include "common/io.h"
#include "common/multiboot2.h"
#include "common/picture.h"

enum { WIDTH = 1024, HEIGHT = 768, BITS = 24, DIRECT = 1 };
enum { FLAGS_TAG = 4, FRAMEBUFFER_TAG = 5, CONSOLE_REQUIRED = 1, HEADER_SIZE = 16 + 16 + 24 + 8 };

__attribute__((section(".multiboot"), used, aligned(8))) static const uint32_t header[] = {
    MULTIBOOT2_HEADER_MAGIC, 0, HEADER_SIZE, -(MULTIBOOT2_HEADER_MAGIC + HEADER_SIZE),
    FLAGS_TAG, 12, CONSOLE_REQUIRED, 0,
    FRAMEBUFFER_TAG, 20, WIDTH, HEIGHT, BITS, 0,
    0, 8,
};
_Static_assert(sizeof(header) == HEADER_SIZE, "as the header says");

void guest_main(uint32_t magic, const struct mb2_info *info);

static int is_right(const struct mb2_framebuffer *screen)
{
    const uint8_t *colors = (const uint8_t *)(screen + 1); /* position and size of red, green and blue */

    return screen->width == WIDTH && screen->height == HEIGHT && screen->bits == BITS && screen->type == DIRECT &&
           colors[0] == 16 && colors[2] == 8 && colors[4] == 0 && colors[5] == 8;
}

void guest_main(uint32_t magic, const struct mb2_info *info)
{
    const struct mb2_tag *tag = (const void *)(info + 1);

    (void)magic;
    while (tag->type != MB2_END && tag->type != MB2_FRAMEBUFFER)
        tag = (const void *)((const char *)tag + ((tag->size + 7) & ~7u));
    if (tag->type == MB2_FRAMEBUFFER && is_right((const void *)tag)) {
        const struct mb2_framebuffer *screen = (const void *)tag;
        struct surface surface = {
            .first = (volatile uint8_t *)(uintptr_t)screen->address,
            .pitch = screen->pitch,
            .width = screen->width,
            .height = screen->height,
            .bits = screen->bits,
        };

        draw_picture(&surface);
        put_string("framebuffer2: the picture is there\n");
        return;
    }
    put_string("not ok frame buffer\n");
    debug_exit(EXIT_PROOF_FAILED);
}
