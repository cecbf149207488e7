#include "irq_wait.h"
#include "console.h"
#include "io.h"
#include "pic.h"

#define VECTORS       48 /* 32 exceptions, then IRQ 0-15 */
#define STUB_STRIDE   32
#define CODE_SELECTOR 0x08 /* irq_wait32.S has the GDT */

extern const char irq_wait_stubs[]; /* irq_wait32.S: VECTORS stubs, STUB_STRIDE bytes apart */
void irq_wait_load_tables(const void *idt, uint32_t size);
_Noreturn void irq_wait_exception(unsigned vector);

struct gate {
    uint16_t offset_low, selector;
    uint8_t zero, type;
    uint16_t offset_high;
};

static struct gate idt[VECTORS];

void irq_wait_init(void)
{
    for (unsigned vector = 0; vector < VECTORS; vector++) {
        uint32_t stub = (uint32_t)irq_wait_stubs + vector * STUB_STRIDE;

        idt[vector] = (struct gate){
            .offset_low = (uint16_t)stub,
            .selector = CODE_SELECTOR,
            .type = 0x8e, /* present, 32-bit interrupt gate */
            .offset_high = (uint16_t)(stub >> 16),
        };
    }
    irq_wait_load_tables(idt, sizeof idt);
    pic_init();
}

/* Called by the stubs of exceptions. */
void irq_wait_exception(unsigned vector)
{
    put_string("not ok unexpected exception ");
    put_decimal(vector, 1);
    put_char('\n');
    debug_exit(EXIT_EXCEPTION);
}
