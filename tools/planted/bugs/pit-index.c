/* Reads of the control port, which is only to be written. */
#include "attack.h"

void take(uint32_t at, uint8_t *bytes, unsigned count)
{
    (void)at;
    while (count--)
        *bytes++ = inb(PIT_CONTROL);
}
