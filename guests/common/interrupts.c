#include "interrupts.h"
#include "console.h"
#include "gdt32.h"
#include "io.h"
#include "pic.h"

#define VECTORS     48 /* 32 exceptions, then IRQ 0-15 */
#define STUB_STRIDE 16

extern const char interrupt_stubs[]; /* vectors64.S, vectors32.S, vectors16.S: VECTORS stubs, STUB_STRIDE bytes apart */
void interrupt_dispatch(unsigned vector);

static irq_handler *handlers[16];

#ifdef __x86_64__

struct gate {
    uint16_t offset_low, selector;
    uint8_t ist, type;
    uint16_t offset_middle;
    uint32_t offset_high, reserved;
};

static struct gate idt[VECTORS];

static void install_vectors(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) idtr = {sizeof idt - 1, (uintptr_t)idt};
    uint16_t code_selector;

    __asm__("mov %%cs, %0" : "=r"(code_selector));
    for (unsigned vector = 0; vector < VECTORS; vector++) {
        idt[vector] = (struct gate){
            .selector = code_selector,
            .type = 0x8e, /* present, interrupt gate */
        };
        vector_set(vector, interrupt_stubs + vector * STUB_STRIDE);
    }
    __asm__ volatile("lidt %0" : : "m"(idtr));
}

void vector_set(unsigned vector, const void *stub)
{
    idt[vector].offset_low = (uint16_t)(uintptr_t)stub;
    idt[vector].offset_middle = (uint16_t)((uintptr_t)stub >> 16);
    idt[vector].offset_high = (uint32_t)((uintptr_t)stub >> 32);
}

#elif !defined REAL_MODE /* 32-bit protected mode */

struct gate {
    uint16_t offset_low, selector;
    uint8_t reserved, type;
    uint16_t offset_high;
};

static struct gate idt[VECTORS];

static void install_vectors(void)
{
    struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) idtr = {sizeof idt - 1, (uintptr_t)idt};

    flat_gdt_load(); /* Multiboot promises no GDT, and IRET looks into it */
    for (unsigned vector = 0; vector < VECTORS; vector++) {
        idt[vector] = (struct gate){
            .selector = FLAT_CODE,
            .type = 0x8e, /* present, 32-bit interrupt gate */
        };
        vector_set(vector, interrupt_stubs + vector * STUB_STRIDE);
    }
    __asm__ volatile("lidt %0" : : "m"(idtr));
}

void vector_set(unsigned vector, const void *stub)
{
    idt[vector].offset_low = (uint16_t)(uintptr_t)stub;
    idt[vector].offset_high = (uint16_t)((uintptr_t)stub >> 16);
}

#else /* real mode */

static void install_vectors(void)
{
    volatile uint32_t *table = 0; /* segment:offset pairs at address 0 */

    __asm__("" : "+r"(table)); /* keep the compiler from seeing a null pointer */
    for (unsigned vector = 0; vector < VECTORS; vector++)
        table[vector] = (uint32_t)interrupt_stubs + vector * STUB_STRIDE;
}

#endif

void interrupts_init(void)
{
    install_vectors();
    pic_init();
}

void irq_enable(unsigned irq, irq_handler *handler)
{
    handlers[irq] = handler;
    pic_unmask(irq);
}

void irq_disable(unsigned irq)
{
    pic_mask(irq);
}

/* Called by the stubs, interrupts off. */
void interrupt_dispatch(unsigned vector)
{
    unsigned irq = vector - IRQ_VECTOR;
    bool spurious;

    if (vector < IRQ_VECTOR) {
        put_string("not ok unexpected exception ");
        put_decimal(vector, 1);
        put_char('\n');
        debug_exit(EXIT_EXCEPTION);
    }
    spurious = pic_is_spurious(irq);
    if (!spurious && handlers[irq])
        handlers[irq]();
    pic_end(irq, spurious);
}

volatile unsigned ticks;

static void on_tick(void)
{
    ticks++;
}

/* A busy host may be late with an interrupt. Then the guest's time stands still, and so does the ACPI PM timer. */
bool ticks_start(unsigned count)
{
    const uint16_t divisor = PIT_HZ / TICKS_PER_SECOND;
    uint32_t begin = 0, passed = 0;

    ticks = 0;
    irq_enable(PIT_IRQ, on_tick);
    outb(PIT_CONTROL, PIT_MODE2);
    outb(PIT_COUNTER0, divisor & 0xff);
    outb(PIT_COUNTER0, divisor >> 8);

    /* Each round costs an exit to the host: microseconds at least, and so a bound in time where no timer runs, too. */
    __asm__ volatile("sti" : : : "memory");
    for (unsigned rounds = 0; ticks < count && passed < PM_TIMER_HERTZ / 4 && rounds < 1000000; rounds++) {
        inb(COM1 + UART_LSR);
        if (rounds == 100000)
            begin = inl(PM_TIMER);
        if (rounds > 100000)
            passed = (inl(PM_TIMER) - begin) & PM_TIMER_BITS;
    }
    __asm__ volatile("cli" : : : "memory");
    return ticks >= count;
}

bool wait_for(const volatile unsigned *counter, unsigned goal, unsigned seconds)
{
    unsigned start = ticks;

    while (*counter < goal) {
        if (ticks - start > seconds * TICKS_PER_SECOND)
            return false;
        wait_for_interrupt();
    }
    return true;
}
