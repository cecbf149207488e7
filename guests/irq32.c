/*
 * irq32: interrupts in 32-bit protected mode, with handlers that end in IRET. Proves a GDT, an IDT and both 8259A
 * programmed by the guest, and every interrupt in common/interrupt_proofs.c, as irq64 and real16 do in their modes.
 * Needs hardware virtualization: KVM's instruction emulator refuses IRET in protected mode.
 * Status 0; 3 if a proof fails, 5 on an unexpected exception.
 */
#include "common/console.h"
#include "common/guest.h"
#include "common/interrupt_proofs.h"

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    (void)magic, (void)info;
    put_string("irq32: interrupts in 32-bit protected mode\n");
    interrupt_proofs();
    put_string("irq32: all proven\n");
}
