/* A GDT of one's own for 32-bit protected mode: flat code and data. For C and for assembly. */
#ifndef GUESTS_GDT32_H
#define GUESTS_GDT32_H

#define FLAT_CODE 0x08
#define FLAT_DATA 0x10

#ifndef __ASSEMBLER__
/* Load the GDT, and all segment registers but FS and GS from it. */
void flat_gdt_load(void);
#endif

#endif
