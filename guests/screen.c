/*
 * screen: prints on the text screen at 0xB8000 and nowhere else. Proves that the text is seen, that the registers of
 * the VGA read back what was written, and that the vertical retrace comes. It ends by a halt with interrupts off, status
 * 6, or, with "--append VALUE", by the debug-exit port. Status 3 if a register or the retrace fails.
 */
#include "common/command_line.h"
#include "common/guest.h"
#include "common/io.h"

enum { COLUMNS = 80, ROWS = 25, WHITE_ON_BLUE = 0x1f, YELLOW_ON_BLUE = 0x1e };
enum { CRTC_INDEX = 0x3d4, CRTC_DATA = 0x3d5, INPUT_STATUS_1 = 0x3da, RETRACE = 1 << 3, CURSOR_HIGH = 0x0e };

static volatile uint16_t *const screen = (volatile uint16_t *)0xb8000;
static unsigned place;

static void print(const char *text, uint8_t attribute)
{
    for (; *text; text++) {
        if (*text == '\n') {
            place += COLUMNS - place % COLUMNS;
            continue;
        }
        screen[place++] = (uint16_t)(attribute << 8 | (uint8_t)*text);
    }
}

static uint8_t crtc(uint8_t index)
{
    outb(CRTC_INDEX, index);
    return inb(CRTC_DATA);
}

static void move_cursor(unsigned to)
{
    outw(CRTC_INDEX, (uint16_t)((to & 0xff00) | CURSOR_HIGH));
    outb(CRTC_INDEX, CURSOR_HIGH + 1);
    outb(CRTC_DATA, (uint8_t)to);
}

static int retrace_comes(void)
{
    for (unsigned wanted = 0; wanted < 2; wanted++) {
        unsigned left = 100000;

        while (!!(inb(INPUT_STATUS_1) & RETRACE) != wanted)
            if (--left == 0)
                return 0;
    }
    return 1;
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    uint32_t value = decimal_argument(info, 0, 0);

    (void)magic;
    for (unsigned i = 0; i < COLUMNS * ROWS; i++)
        screen[i] = WHITE_ON_BLUE << 8 | ' ';
    print("Hello from the text screen!\n", WHITE_ON_BLUE);
    print("\n", WHITE_ON_BLUE);
    print("  \xda\xc4\xc4\xc4\xbf \x01 \x1b[31m\n", YELLOW_ON_BLUE); /* a box, a face, an arrow */
    print("  \xc0\xc4\xc4\xc4\xd9\n", YELLOW_ON_BLUE);
    print("> ", WHITE_ON_BLUE);
    move_cursor(place);
    if (crtc(CURSOR_HIGH) != place >> 8 || crtc(CURSOR_HIGH + 1) != (place & 0xff) || !retrace_comes())
        value = 1;
    if (value)
        outb(DEBUG_EXIT, (uint8_t)value);
    for (;;)
        __asm__ volatile("cli; hlt");
}
