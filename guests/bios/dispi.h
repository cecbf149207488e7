/* The registers of the display interface of Bochs, and the mode that VBE has set with them. */
#ifndef DISPI_H
#define DISPI_H

#include "bios.h"

enum { VBE_INDEX = 0x1ce, VBE_DATA = 0x1cf };
enum { ID, XRES, YRES, BPP, ENABLE, BANK, VIRT_WIDTH, VIRT_HEIGHT, X_OFFSET, Y_OFFSET, REGISTERS };

extern uint16_t vbe_mode; /* as function 02h of VBE was given it; 0: a mode of the VGA */

/* A mode of the VGA is set. */
void vbe_off(void);

static inline void set_dispi(uint16_t index, uint16_t value)
{
    outw(VBE_INDEX, index);
    outw(VBE_DATA, value);
}

static inline uint16_t dispi(uint16_t index)
{
    outw(VBE_INDEX, index);
    return inw(VBE_DATA);
}

#endif
