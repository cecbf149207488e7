/*
 * irq64: interrupts in long mode. Proves an IDT and both 8259A programmed by the guest, and every interrupt in
 * common/interrupt_proofs.c: PIT; RTC periodic, update-ended, alarm; UART receive, time-out, transmit-empty.
 * Status 0; 3 if a proof fails, 5 on an unexpected exception.
 */
#include "common/console.h"
#include "common/guest.h"
#include "common/interrupt_proofs.h"

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    (void)magic, (void)info;
    put_string("irq64: interrupts in long mode\n");
    interrupt_proofs();
    put_string("irq64: all proven\n");
}
