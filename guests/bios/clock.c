/* int 1Ah: ticks since midnight, and the real-time clock. */
#include "bios.h"

enum { SECONDS_A_DAY = 86400 };

uint8_t cmos(uint8_t index)
{
    outb(RTC_INDEX, index);
    return inb(RTC_DATA);
}

void set_cmos(uint8_t index, uint8_t value)
{
    outb(RTC_INDEX, index);
    outb(RTC_DATA, value);
}

int within(uint32_t *since, uint32_t ticks)
{
    uint32_t now = inl(PM_TIMER);

    if (now > PM_TIMER_BITS)
        return 0;
    if (!*since)
        *since = now | (PM_TIMER_BITS + 1);
    return ((now - *since) & PM_TIMER_BITS) < ticks;
}

/* MC146818A, "Update cycle": while UIP is clear, there are at least 244 us to read in. It is set for 2228 us. */
static void settle(void)
{
    uint32_t since = 0;

    while ((cmos(RTC_A) & RTC_A_UIP) && within(&since, PM_TIMER_HERTZ / 400))
        ;
}

static uint32_t binary(uint8_t bcd)
{
    return (uint32_t)(bcd >> 4) * 10 + (bcd & 15);
}

void clock_start(void)
{
    uint32_t seconds;

    settle();
    seconds = (binary(cmos(RTC_HOURS)) * 60 + binary(cmos(RTC_MINUTES))) * 60 + binary(cmos(RTC_SECONDS));
    /* 18.2065 ticks a second; the product stays below 2^32 */
    set_far32(BDA, BDA_TICKS, seconds % SECONDS_A_DAY * 18 + seconds % SECONDS_A_DAY * 2065 / 10000);
}

enum action clock_service(struct frame *f)
{
    set_flag(f, CARRY, 0);
    switch (f->a.h) {
    case 0x00:
        f->d.x = far16(BDA, BDA_TICKS);
        f->c.x = far16(BDA, BDA_TICKS + 2);
        f->a.x = far8(BDA, BDA_MIDNIGHT);
        set_far8(BDA, BDA_MIDNIGHT, 0);
        break;
    case 0x01:
        set_far32(BDA, BDA_TICKS, (uint32_t)f->c.x << 16 | f->d.x);
        set_far8(BDA, BDA_MIDNIGHT, 0);
        f->a.h = 0;
        break;
    case 0x02:
        settle();
        f->c.h = cmos(RTC_HOURS);
        f->c.l = cmos(RTC_MINUTES);
        f->d.h = cmos(RTC_SECONDS);
        f->d.l = cmos(RTC_B) & RTC_B_DSE;
        f->a.h = 0;
        f->a.l = f->c.h;
        break;
    case 0x03:
        set_cmos(RTC_B, (uint8_t)((cmos(RTC_B) & ~RTC_B_DSE) | 0x80 | (f->d.l & RTC_B_DSE)));
        set_cmos(RTC_HOURS, f->c.h);
        set_cmos(RTC_MINUTES, f->c.l);
        set_cmos(RTC_SECONDS, f->d.h);
        set_cmos(RTC_B, cmos(RTC_B) & 0x7f);
        f->a.h = 0;
        break;
    case 0x04:
        settle();
        f->c.h = cmos(RTC_CENTURY);
        f->c.l = cmos(RTC_YEAR);
        f->d.h = cmos(RTC_MONTH);
        f->d.l = cmos(RTC_DAY);
        f->a.h = 0;
        f->a.l = f->c.h;
        break;
    case 0x05:
        set_cmos(RTC_B, cmos(RTC_B) | 0x80);
        set_cmos(RTC_CENTURY, f->c.h);
        set_cmos(RTC_YEAR, f->c.l);
        set_cmos(RTC_MONTH, f->d.h);
        set_cmos(RTC_DAY, f->d.l);
        set_cmos(RTC_B, cmos(RTC_B) & 0x7f);
        f->a.h = 0;
        break;
    case 0xb1:
        pci_service(f);
        break;
    default:
        report(f, REPORT_SERVICE);
        f->a.h = 0x81;
        set_flag(f, CARRY, 1);
    }
    return DONE;
}
