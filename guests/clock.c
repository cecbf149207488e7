/*
 * clock: date and time. Proves a whole reading of the RTC (UIP, BCD or binary, 12 or 24 hours, century) and that the
 * PIT and the RTC agree: PIT interrupts are counted during half a second of RTC periodic interrupts. Status 0; 3 if
 * a timer is dead.
 */
#include "common/console.h"
#include "common/guest.h"
#include "common/interrupts.h"
#include "common/io.h"
#include "common/rtc.h"

#define RTC_RATE_64HZ 10

static volatile unsigned rtc_interrupts;

static void on_rtc(void)
{
    if (rtc_read(RTC_C) & RTC_C_PF)
        rtc_interrupts++;
}

/* Days of the Gregorian calendar, 0 = Sunday: March is the first month, so that a leap day ends its year. */
static unsigned weekday(const struct rtc_time *t)
{
    unsigned year = t->month < 3 ? t->year - 1 : t->year;
    unsigned month = t->month < 3 ? t->month + 9u : t->month - 3u;

    return (year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + t->day + 2) % 7;
}

static void print_time(const struct rtc_time *t)
{
    static const char names[7][10] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                      "Thursday", "Friday", "Saturday"};

    put_string("Today is ");
    put_string(names[weekday(t)]);
    put_string(", ");
    put_decimal(t->year, 4);
    put_char('-');
    put_decimal(t->month, 2);
    put_char('-');
    put_decimal(t->day, 2);
    put_string("; the RTC says ");
    put_decimal(t->hour, 2);
    put_char(':');
    put_decimal(t->minute, 2);
    put_char(':');
    put_decimal(t->second, 2);
    put_string(".\n");
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    struct rtc_time now;
    unsigned first_tick, first_interrupt;

    (void)magic, (void)info;
    put_string("Hello from a guest on /dev/kvm!\n");
    now = rtc_now();
    print_time(&now);

    interrupts_init();
    if (!ticks_start(1))
        fail("PIT: no interrupts");
    rtc_write(RTC_A, RTC_A_DIVIDER | RTC_RATE_64HZ);
    rtc_enable(RTC_B_PIE);
    irq_enable(RTC_IRQ, on_rtc);
    if (!wait_for(&rtc_interrupts, 1, 10))
        fail("RTC: no periodic interrupts");
    first_interrupt = rtc_interrupts;
    first_tick = ticks;
    if (!wait_for(&rtc_interrupts, first_interrupt + 32, 10))
        fail("RTC: periodic interrupts stopped");
    put_string("The PIT, set to 100 Hz, ticked ");
    put_decimal(ticks - first_tick, 1);
    put_string(" times in half a second of the RTC.\n");
    rtc_enable(0);
}
