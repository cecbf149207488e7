/*
 * reboot: two resets, three boots. Proves that the i8042's reset command and port 0x92 start the guest afresh, that
 * memory is as at the first boot, and that CMOS RAM is not. Status 0; 3 if memory was not loaded afresh. With
 * --no-reboot the first reset ends the run, status 0.
 */
#include "common/console.h"
#include "common/guest.h"
#include "common/io.h"
#include "common/rtc.h"

#define CMOS_MARK  0x50 /* plain CMOS RAM: the guest's own */
#define CMOS_BOOTS 0x51
#define MARK       0xb5

static unsigned in_data = 1, in_bss;

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    uint8_t boots = rtc_read(CMOS_MARK) == MARK ? rtc_read(CMOS_BOOTS) : 0;

    (void)magic, (void)info;
    if (in_data != 1 || in_bss != 0)
        fail("memory is as at the first boot");
    in_data++;
    in_bss++;

    boots++;
    rtc_write(CMOS_MARK, MARK);
    rtc_write(CMOS_BOOTS, boots);
    put_string("boot ");
    put_decimal(boots, 1);
    switch (boots) {
    case 1:
        put_string(": reset by the i8042\n");
        outb(I8042_COMMAND, I8042_RESET);
        halt();
    case 2:
        put_string(": reset by port 0x92\n");
        outb(SYSTEM_CONTROL, inb(SYSTEM_CONTROL) | FAST_RESET);
        halt();
    default:
        put_string(": three boots\n");
        rtc_write(CMOS_MARK, 0);
    }
}
