/* What int 10h needs of the display interface of Bochs: to be without it. vbe.c does the rest. */
#include "dispi.h"

uint16_t vbe_mode;

void vbe_off(void)
{
    if (vbe_mode || parameters.linear)
        set_dispi(ENABLE, 0);
    vbe_mode = 0;
}
