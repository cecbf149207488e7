/* The two 8259A: programming, masks, end of interrupt. */
#ifndef GUESTS_PIC_H
#define GUESTS_PIC_H

#include <stdbool.h>

/* IRQ 0-15 at IRQ_VECTOR, every line masked but the cascade. */
void pic_init(void);

void pic_unmask(unsigned irq);
void pic_mask(unsigned irq);

/* Whether the request of `irq`, just delivered, went away before the acknowledge. */
bool pic_is_spurious(unsigned irq);

/* The end of interrupt, where one is due. */
void pic_end(unsigned irq, bool spurious);

#endif
