/*
 * acpipm: ACPI power management. Proves that the PM timer and the PIT agree, that the timer's carry interrupts on IRQ 9
 * (SCI), and that the machine suspends to memory (S3): the RTC's alarm wakes it in real mode at the waking vector, with
 * memory as it was. The woken code powers the machine off (S5): status 0. With `--append 1` it powers off at once.
 */
#include "common/command_line.h"
#include "common/console.h"
#include "common/guest.h"
#include "common/interrupts.h"
#include "common/io.h"
#include "common/rtc.h"

/* ACPI 6.5, 4.8, where QEMU's Q35 has the registers. */
#define PM1_STS    0x600
#define PM1_EN     0x602
#define PM1_CNT    0x604
#define MOST_TRIES 100
#define TMR_STS    0x0001
#define RTC_STS    0x0400
#define WAK_STS    0x8000
#define SCI_EN     0x0001
#define SLP_EN     0x2000
#define SLP_S3     0x0400
#define SLP_S5     0x0000
#define SCI_IRQ    9
#define FACS_START 0xf0000
#define FACS_END   0xf8000
#define FACS_ALIGN 64
#define FACS_WAKE  12

#define WAKING_CODE 0x20000
#define MARK        0x1234abcd

extern const uint8_t woken[], woken_end[], mark_kept[];

static volatile unsigned carries;
static uint32_t mark = MARK;

/* What runs in real mode after the wake-up, at 0x2000:0. It has no stack. */
__asm__(".pushsection .rodata\n"
        ".code16\n"
        "woken:\n"
        "    mov $0x604, %dx\n" /* PM1_CNT is there, and says ACPI mode */
        "    in  %dx, %ax\n"
        "    cmp $1, %ax\n"
        "    jne 9f\n"
        "    mov $0x600, %dx\n" /* PM1_STS: WAK_STS and RTC_STS */
        "    in  %dx, %ax\n"
        "    and $0x8400, %ax\n"
        "    cmp $0x8400, %ax\n"
        "    jne 9f\n"
        "    cmpl $0x1234abcd, %cs:mark_kept - woken\n"
        "    jne 9f\n"
        "    mov $text - woken, %si\n"
        "    mov $0x3f8, %dx\n"
        "1:  mov %cs:(%si), %al\n"
        "    test %al, %al\n"
        "    jz  2f\n"
        "    out %al, %dx\n"
        "    inc %si\n"
        "    jmp 1b\n"
        "2:  mov $0x604, %dx\n"
        "    mov $0x2000, %ax\n" /* SLP_EN, S5 */
        "    out %ax, %dx\n"
        "9:  mov $1, %al\n"
        "    out %al, $0xf4\n"
        "    hlt\n"
        "text: .asciz \"woken by the clock\\n\"\n"
        "    .balign 4\n"
        "mark_kept: .long 0\n"
        "woken_end:\n"
        ".code64\n"
        ".popsection\n");

static void on_sci(void)
{
    if (inw(PM1_STS) & TMR_STS)
        carries++;
    outw(PM1_STS, TMR_STS);
}

/* The compiler takes what it knows to point into low memory for an error: it must not know. */
static uint8_t *at(uint32_t address)
{
    __asm__("" : "+r"(address));
    return (uint8_t *)(uintptr_t)address;
}

static uint8_t *find_facs(void)
{
    for (uint32_t place = FACS_START; place < FACS_END; place += FACS_ALIGN) {
        const uint8_t *facs = at(place);
        if (facs[0] == 'F' && facs[1] == 'A' && facs[2] == 'C' && facs[3] == 'S')
            return at(place);
    }
    fail("FACS: there is none");
}

/* A fifth of a second in ticks of the PIT. On a busy host ticks come late or are combined. */
static bool timers_agree(void)
{
    unsigned first = ticks;
    uint32_t start = inl(PM_TIMER), passed;

    if (!wait_for(&ticks, first + TICKS_PER_SECOND / 5, 2))
        fail("PIT: interrupts stopped");
    passed = (inl(PM_TIMER) - start) & PM_TIMER_BITS;
    return passed >= PM_TIMER_HERTZ / 5 - PM_TIMER_HERTZ / 50 && passed <= PM_TIMER_HERTZ / 4;
}

static void prove_timer(void)
{
    unsigned tries = 0;

    if (!ticks_start(1))
        fail("PIT: no interrupts");
    while (!timers_agree())
        if (++tries == MOST_TRIES)
            fail("PM timer: a fifth of a second of the PIT");
    put_string("ok PM timer: a fifth of a second of the PIT\n");
}

static void prove_sci(void)
{
    irq_enable(SCI_IRQ, on_sci);
    outw(PM1_STS, TMR_STS);
    outw(PM1_EN, TMR_STS);
    if (!wait_for(&carries, 1, 10))
        fail("PM timer: the carry interrupts");
    outw(PM1_EN, 0);
    irq_disable(SCI_IRQ);
    put_string("ok PM timer: the carry interrupts\n");
}

static void suspend(void)
{
    uint8_t *facs = find_facs(), *code = at(WAKING_CODE);

    for (const uint8_t *from = woken; from < woken_end; from++)
        *code++ = *from;
    *(volatile uint32_t *)at(WAKING_CODE + (uint32_t)(mark_kept - woken)) = mark;
    *(volatile uint32_t *)(facs + FACS_WAKE) = WAKING_CODE;
    rtc_write(RTC_SECONDS_ALARM, RTC_DONT_CARE);
    rtc_write(RTC_MINUTES_ALARM, RTC_DONT_CARE);
    rtc_write(RTC_HOURS_ALARM, RTC_DONT_CARE);
    outw(PM1_STS, RTC_STS | WAK_STS);
    outw(PM1_EN, RTC_STS);
    put_string("suspending\n");
    rtc_enable(RTC_B_AIE);
    outw(PM1_CNT, SLP_EN | SLP_S3);
    halt();
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    (void)magic;
    if (!(inw(PM1_CNT) & SCI_EN))
        fail("PM1 control: ACPI mode");
    if (decimal_argument(info, 0, 0)) {
        put_string("acpipm: off\n");
        outw(PM1_CNT, SLP_EN | SLP_S5);
        fail("S5: the machine is off");
    }
    interrupts_init();
    prove_timer();
    prove_sci();
    suspend();
}
