/*
 * real16: interrupts in real mode. Proves the flat image at 0x7c00, the interrupt vector table at 0, IRET in real
 * mode, and every interrupt in common/interrupt_proofs.c. Status 0; 3 if a proof fails, 5 on an exception.
 */
#include "common/console.h"
#include "common/guest.h"
#include "common/interrupt_proofs.h"

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    (void)magic, (void)info;
    put_string("real16: interrupts in real mode\n");
    interrupt_proofs();
    put_string("real16: all proven\n");
}
