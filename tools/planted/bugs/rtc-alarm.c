/* An alarm at 30 o'clock. */
#include "attack.h"

void call(void)
{
    outb(RTC_INDEX, RTC_HOURS_ALARM);
    outb(RTC_DATA, 0x30);
}
