#include "pic.h"
#include "io.h"

void pic_init(void)
{
    outb(PIC1_COMMAND, PIC_ICW1);
    outb(PIC2_COMMAND, PIC_ICW1);
    outb(PIC1_DATA, IRQ_VECTOR);
    outb(PIC2_DATA, IRQ_VECTOR + 8);
    outb(PIC1_DATA, 1 << PIC_CASCADE);
    outb(PIC2_DATA, PIC_CASCADE);
    outb(PIC1_DATA, PIC_ICW4_8086);
    outb(PIC2_DATA, PIC_ICW4_8086);

    outb(PIC1_DATA, 0xff & ~(1 << PIC_CASCADE));
    outb(PIC2_DATA, 0xff);
}

void pic_unmask(unsigned irq)
{
    uint16_t mask_port = irq < 8 ? PIC1_DATA : PIC2_DATA;

    outb(mask_port, inb(mask_port) & (uint8_t) ~(1 << (irq & 7)));
}

void pic_mask(unsigned irq)
{
    uint16_t mask_port = irq < 8 ? PIC1_DATA : PIC2_DATA;

    outb(mask_port, inb(mask_port) | (uint8_t)(1 << (irq & 7)));
}

/* An 8259A whose request went away before the acknowledge answers with its lowest line: nothing is in service. */
bool pic_is_spurious(unsigned irq)
{
    uint16_t command_port = irq < 8 ? PIC1_COMMAND : PIC2_COMMAND;

    if ((irq & 7) != 7)
        return false;
    outb(command_port, PIC_READ_ISR);
    return !(inb(command_port) & 0x80);
}

void pic_end(unsigned irq, bool spurious)
{
    if (irq >= 8 && !spurious)
        outb(PIC2_COMMAND, PIC_EOI);
    if (irq >= 8 || !spurious) /* a spurious IRQ 15 is still an IRQ 2 to the first 8259A */
        outb(PIC1_COMMAND, PIC_EOI);
}
