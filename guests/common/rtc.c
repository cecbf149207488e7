#include "rtc.h"
#include "io.h"

uint8_t rtc_read(uint8_t index)
{
    outb(RTC_INDEX, index);
    return inb(RTC_DATA);
}

void rtc_write(uint8_t index, uint8_t value)
{
    outb(RTC_INDEX, index);
    outb(RTC_DATA, value);
}

uint8_t rtc_decode(uint8_t value)
{
    return rtc_read(RTC_B) & RTC_B_BINARY ? value : (uint8_t)((value >> 4) * 10 + (value & 15));
}

uint8_t rtc_encode(uint8_t value)
{
    return rtc_read(RTC_B) & RTC_B_BINARY ? value : (uint8_t)((value / 10) << 4 | value % 10);
}

void rtc_enable(uint8_t interrupts)
{
    uint8_t format = rtc_read(RTC_B) & (RTC_B_BINARY | RTC_B_24H | RTC_B_DSE);

    rtc_write(RTC_B, format | interrupts);
    rtc_read(RTC_C);
}

static uint8_t decode_hours(uint8_t value)
{
    uint8_t hour = rtc_decode(value & (uint8_t)~RTC_HOURS_PM);

    if (rtc_read(RTC_B) & RTC_B_24H)
        return rtc_decode(value);
    return (uint8_t)(hour % 12 + (value & RTC_HOURS_PM ? 12 : 0)); /* 12 AM is 0 h, 12 PM is 12 h */
}

static struct rtc_time read_once(void)
{
    while (rtc_read(RTC_A) & RTC_A_UIP)
        ;
    return (struct rtc_time){
        .year = rtc_decode(rtc_read(RTC_CENTURY)) * 100u + rtc_decode(rtc_read(RTC_YEAR)),
        .month = rtc_decode(rtc_read(RTC_MONTH)),
        .day = rtc_decode(rtc_read(RTC_DAY)),
        .hour = decode_hours(rtc_read(RTC_HOURS)),
        .minute = rtc_decode(rtc_read(RTC_MINUTES)),
        .second = rtc_decode(rtc_read(RTC_SECONDS)),
    };
}

/*
 * UIP is clear for 244 µs at least before an update, but a vCPU may be held off the CPU for longer than
 * that: two equal readings are needed as well.
 */
struct rtc_time rtc_now(void)
{
    struct rtc_time before, now = read_once();

    do {
        before = now;
        now = read_once();
    } while (before.second != now.second || before.minute != now.minute || before.hour != now.hour ||
             before.day != now.day || before.month != now.month || before.year != now.year);
    return now;
}
