/* Interrupts in long mode, 32-bit protected mode and real mode: vectors, the two 8259A, handlers in C. */
#ifndef GUESTS_INTERRUPTS_H
#define GUESTS_INTERRUPTS_H

#include <stdbool.h>

typedef void irq_handler(void);

/* Install vectors for exceptions and IRQ 0-15, program both 8259A, mask every line. Interrupts stay off. */
void interrupts_init(void);

/* Protected mode and long mode: let `vector` enter `stub`, which ends in IRET, instead of interrupt_dispatch. */
void vector_set(unsigned vector, const void *stub);

/* Handlers run with interrupts off and must silence their device; the end of interrupt is sent for them. */
void irq_enable(unsigned irq, irq_handler *handler);
void irq_disable(unsigned irq);

/* --- The PIT as a clock for watchdogs -------------------------------------------------------------- */

#define TICKS_PER_SECOND 100

/* Counts PIT interrupts; incremented by an interrupt handler. */
extern volatile unsigned ticks;

/* Start the PIT at TICKS_PER_SECOND and wait for `count` ticks, polling: a dead timer gives false, not a hang. */
bool ticks_start(unsigned count);

/* HLT until *counter has reached `goal`; false if that takes more than `seconds`. Needs ticks_start. */
bool wait_for(const volatile unsigned *counter, unsigned goal, unsigned seconds);

#endif
