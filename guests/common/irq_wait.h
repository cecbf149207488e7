/*
 * Interrupts in 32-bit protected mode without IRET, which some hosts' instruction emulators refuse. There are no
 * handlers: code waits for an interrupt and goes on behind the wait, with interrupts off again.
 */
#ifndef GUESTS_IRQ_WAIT_H
#define GUESTS_IRQ_WAIT_H

#ifndef __ASSEMBLER__
#include <stdint.h>

/* A GDT and an IDT of our own (Multiboot promises neither), both 8259A programmed, every line masked. */
void irq_wait_init(void);

/*
 * HLT with interrupts on until one comes; returns the TSC of its arrival, with interrupts off and its number in
 * irq_that_came. The device's request and the 8259A's end of interrupt (pic_end) are the caller's business.
 */
uint64_t irq_wait(void);
extern volatile uint32_t irq_that_came;

#endif
#endif
