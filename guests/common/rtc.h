/* The MC146818A: register access, and a time that is whole. */
#ifndef GUESTS_RTC_H
#define GUESTS_RTC_H

#include <stdint.h>

struct rtc_time {
    uint32_t year; /* four digits */
    uint8_t month, day, hour, minute, second;
};

uint8_t rtc_read(uint8_t index);
void rtc_write(uint8_t index, uint8_t value);

/* The time registers hold BCD or binary, as register B says. */
uint8_t rtc_decode(uint8_t value);
uint8_t rtc_encode(uint8_t value);

/* Enable exactly these interrupts (RTC_B_PIE, RTC_B_AIE, RTC_B_UIE) and forget the pending ones. */
void rtc_enable(uint8_t interrupts);

/* The date and time, from one and the same second. */
struct rtc_time rtc_now(void);

#endif
