/*
 * debugexit: the guest's own verdict. Proves the debug-exit port in all widths: "--append 'VALUE SIZE'" writes VALUE
 * in SIZE bytes (1, 2 or 4); 21 in one byte where nothing is said. Status ((VALUE << 1) | 1) & 0xff: 43.
 */
#include "common/command_line.h"
#include "common/console.h"
#include "common/guest.h"
#include "common/io.h"

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    uint32_t value = decimal_argument(info, 0, 21);

    (void)magic;
    put_string("debugexit: writing ");
    put_decimal(value, 1);
    put_string(" to port 0xf4\n");
    switch (decimal_argument(info, 1, 1)) {
    case 1:
        outb(DEBUG_EXIT, (uint8_t)value);
        break;
    case 2:
        outw(DEBUG_EXIT, (uint16_t)value);
        break;
    default:
        outl(DEBUG_EXIT, value);
    }
    fail("the run goes on after a write to the debug-exit port"); /* writes again: status 3, or no end at all */
}
