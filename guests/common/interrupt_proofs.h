/* The proofs of irq64 and of real16: the same code, compiled for both modes. */
#ifndef GUESTS_INTERRUPT_PROOFS_H
#define GUESTS_INTERRUPT_PROOFS_H

/* One line "ok ..." per proof, always the same lines; the first that fails ends the run (status 3). */
void interrupt_proofs(void);

#endif
