/*
 * hpet: the High Precision Event Timers in long mode. Proves that the counter and the PIT agree; periodic
 * edge-triggered and level-triggered interrupts through the I/O APIC; and legacy replacement: IRQ 0 from timer 0 alone,
 * while the PIT is cut off, IRQ 8 from timer 1, and the PIT's interrupts again afterwards. Status 0.
 */
#include "common/console.h"
#include "common/guest.h"
#include "common/interrupts.h"
#include "common/io.h"

/* IA-PC HPET 1.0a, 2.3. */
#define HPET         0xfed00000
#define GCAP_ID      0x000
#define GEN_CONF     0x010
#define GINTR_STA    0x020
#define MAIN_CNT     0x0f0
#define TIM_CONF(n)  (0x100 + 0x20 * (n))
#define TIM_COMP(n)  (0x108 + 0x20 * (n))
#define ENABLE_CNF   0x01
#define LEG_RT_CNF   0x02
#define INT_LEVEL    0x002
#define INT_ENB      0x004
#define PERIODIC     0x008
#define VAL_SET      0x040
#define ROUTE(pin)   ((pin) << 9)
#define PERIOD_MAX   100000000 /* fs: 2.3.4 */
#define SECOND_IN_FS 1000000000000000
#define MOST_TRIES   20

/* 82093AA and the local APIC. */
#define IOREGSEL     0xfec00000
#define IOWIN        0xfec00010
#define IOREDTBL     0x10
#define LEVEL        0x8000
#define IOAPIC_MASK  0x10000
#define APIC_EOI     0xfee000b0
#define APIC_SVR     0xfee000f0
#define SVR_ENABLED  0x1ff

#define PIN      20
#define VECTOR   0x2e /* IRQ 14 of the 8259A, which stays masked */
#define RTC_LINE 8

static uint64_t hz;
static volatile unsigned rtc_line_interrupts;
volatile unsigned apic_interrupts;

static volatile uint64_t *reg(unsigned offset)
{
    return (volatile uint64_t *)(uintptr_t)(HPET + offset);
}

static void write32(uintptr_t address, uint32_t value)
{
    *(volatile uint32_t *)address = value;
}

/* Enough for a level-triggered timer 2, too: its status is cleared before the end of interrupt. */
extern const char apic_stub[];
__asm__(".pushsection .text\n"
        "apic_stub:\n"
        "    push %rax\n"
        "    incl apic_interrupts(%rip)\n"
        "    mov $0xfed00020, %eax\n" /* GINTR_STA */
        "    movl $4, (%rax)\n"
        "    mov $0xfee000b0, %eax\n" /* APIC_EOI */
        "    movl $0, (%rax)\n"
        "    pop %rax\n"
        "    iretq\n"
        ".popsection\n");

static void route(uint32_t bits)
{
    write32(IOREGSEL, IOREDTBL + 2 * PIN + 1);
    write32(IOWIN, 0); /* to APIC 0 */
    write32(IOREGSEL, IOREDTBL + 2 * PIN);
    write32(IOWIN, bits);
}

/* Let interrupts in until *counter has reached `goal`; false after `parts` hundredths of a second of the HPET. */
static bool passes(const volatile unsigned *counter, unsigned goal, unsigned parts)
{
    uint64_t end = *reg(MAIN_CNT) + hz / 100 * parts;

    __asm__ volatile("sti" : : : "memory");
    while (*counter < goal && *reg(MAIN_CNT) < end)
        ;
    __asm__ volatile("cli" : : : "memory");
    return *counter >= goal;
}

static void on_rtc_line(void)
{
    rtc_line_interrupts++;
}

/*
 * Set a timer to match soon, and again after each `period`, if it has one. The counter must not be past the first match
 * before all is written: on a busy host that takes further tries, each with more time.
 */
static void set_timer(unsigned timer, uint32_t bits, uint64_t period)
{
    uint64_t ahead = hz / 10, match;

    do {
        *reg(TIM_CONF(timer)) = bits | (period ? PERIODIC | VAL_SET : INT_ENB);
        match = *reg(MAIN_CNT) + ahead;
        *reg(TIM_COMP(timer)) = match;
        if (period)
            *reg(TIM_COMP(timer)) = period;
        ahead *= 2;
    } while (*reg(MAIN_CNT) >= match);
    *reg(TIM_CONF(timer)) = bits | (period ? PERIODIC : 0) | INT_ENB;
}

/* A quarter of a second in ticks of the PIT. On a busy host ticks come late or are combined. */
static bool timers_agree(void)
{
    unsigned first = ticks;
    uint64_t start = *reg(MAIN_CNT), passed;

    if (!wait_for(&ticks, first + TICKS_PER_SECOND / 4, 2))
        fail("PIT: interrupts stopped");
    passed = *reg(MAIN_CNT) - start;
    return passed >= hz / 5 && passed <= hz;
}

static void prove_counter(void)
{
    uint64_t capabilities = *reg(GCAP_ID);
    unsigned tries = 0;

    if (!(capabilities >> 32) || capabilities >> 32 > PERIOD_MAX || !(capabilities & 1 << 15))
        fail("HPET: capabilities");
    hz = SECOND_IN_FS / (capabilities >> 32);
    if (!ticks_start(1))
        fail("PIT: no interrupts");
    *reg(GEN_CONF) = ENABLE_CNF;
    while (!timers_agree())
        if (++tries == MOST_TRIES)
            fail("HPET: a quarter of a second of the PIT");
    put_string("ok HPET: a quarter of a second of the PIT\n");
}

static void prove_route(uint32_t type, uint32_t trigger, const char *what)
{
    unsigned first = apic_interrupts;

    route(VECTOR | trigger);
    set_timer(2, type | ROUTE(PIN), hz / 100);
    if (!wait_for(&apic_interrupts, first + 5, 5))
        fail(what);
    *reg(TIM_CONF(2)) = 0;
    route(IOAPIC_MASK);
    put_string("ok ");
    put_string(what);
    put_char('\n');
}

static void prove_legacy(void)
{
    *reg(TIM_CONF(0)) = 0;
    *reg(TIM_CONF(1)) = 0;
    *reg(GEN_CONF) = ENABLE_CNF | LEG_RT_CNF;
    passes(&ticks, ticks + 1, 1); /* one that was on its way */
    if (passes(&ticks, ticks + 1, 10))
        fail("legacy replacement: the PIT is cut off");
    put_string("ok legacy replacement: the PIT is cut off\n");

    set_timer(0, 0, hz / 100);
    if (!passes(&ticks, ticks + 5, 500))
        fail("legacy replacement: timer 0 is IRQ 0");
    *reg(TIM_CONF(0)) = 0;
    put_string("ok legacy replacement: timer 0 is IRQ 0\n");

    irq_enable(RTC_LINE, on_rtc_line);
    set_timer(1, 0, 0);
    if (!passes(&rtc_line_interrupts, 1, 500))
        fail("legacy replacement: timer 1 is IRQ 8");
    put_string("ok legacy replacement: timer 1 is IRQ 8\n");

    *reg(GEN_CONF) = ENABLE_CNF;
    if (!passes(&ticks, ticks + 2, 500))
        fail("legacy replacement: the PIT again");
    put_string("ok legacy replacement: the PIT again\n");
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    (void)magic, (void)info;
    interrupts_init();
    vector_set(VECTOR, apic_stub);
    write32(APIC_SVR, SVR_ENABLED);
    prove_counter();
    prove_route(0, 0, "HPET: edge-triggered interrupts through the I/O APIC");
    prove_route(INT_LEVEL, LEVEL, "HPET: level-triggered interrupts through the I/O APIC");
    prove_legacy();
    put_string("hpet: all proven\n");
}
