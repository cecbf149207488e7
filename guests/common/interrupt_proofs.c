/*
 * Every interrupt of the three legacy chips that a small kernel relies on, one proof after the other.
 *
 * The PIT comes first, because it then is the watchdog of all that follow: an interrupt that never comes
 * is reported, not waited for. Nothing that is printed depends on time, so that two runs print the same.
 * The UART is proven in loopback: no input from the host is needed.
 */
#include "interrupt_proofs.h"
#include "console.h"
#include "interrupts.h"
#include "io.h"
#include "rtc.h"

#define PATIENCE 10 /* seconds that an interrupt may take; a host that is busy stands still for long */
#define BAUD_300 (115200 / 300)

static void ok(const char *text)
{
    put_string("ok ");
    put_string(text);
    put_char('\n');
}

/* --- RTC ------------------------------------------------------------------------------------------- */

static volatile unsigned periodic, updates, alarms;

static void on_rtc(void)
{
    uint8_t flags = rtc_read(RTC_C); /* reading it is what lowers the line */

    if (!(flags & RTC_C_IRQF))
        return;
    /* The flags are set whatever the enables say: count only what was asked for. */
    flags &= rtc_read(RTC_B);
    periodic += !!(flags & RTC_C_PF);
    alarms += !!(flags & RTC_C_AF);
    updates += !!(flags & RTC_C_UF);
}

/* Ask for an alarm so many seconds from now. False if it did not come, or not in that second. */
static bool alarm_comes(uint8_t seconds)
{
    unsigned before = alarms;
    uint8_t asked = rtc_encode((uint8_t)((rtc_decode(rtc_read(RTC_SECONDS)) + seconds) % 60));

    rtc_write(RTC_SECONDS_ALARM, asked);
    rtc_write(RTC_MINUTES_ALARM, RTC_DONT_CARE);
    rtc_write(RTC_HOURS_ALARM, RTC_DONT_CARE);
    rtc_enable(RTC_B_AIE);
    return wait_for(&alarms, before + 1, seconds + 2u) && rtc_read(RTC_SECONDS) == asked;
}

static void prove_rtc(void)
{
    rtc_enable(0);
    irq_enable(RTC_IRQ, on_rtc);

    rtc_write(RTC_A, RTC_A_DIVIDER | 10); /* 64 Hz */
    rtc_enable(RTC_B_PIE);
    if (!wait_for(&periodic, 8, PATIENCE))
        fail("RTC: periodic interrupts");
    ok("RTC: periodic interrupts");

    rtc_enable(RTC_B_UIE);
    if (!wait_for(&updates, 1, PATIENCE))
        fail("RTC: update-ended interrupt");
    ok("RTC: update-ended interrupt");

    /*
     * An update has just ended: there is a whole second to set the alarm for the next one, and to look at the clock
     * when it came. A host that is too slow for that is given longer.
     */
    for (uint8_t seconds = 1; !alarm_comes(seconds); seconds *= 2)
        if (seconds == 8)
            fail("RTC: alarm interrupt at the second asked for");
    ok("RTC: alarm interrupt at the second asked for");

    rtc_enable(0);
    irq_disable(RTC_IRQ);
}

/* --- UART ------------------------------------------------------------------------------------------ */

static volatile unsigned full_fifos, time_outs, transmits;
static volatile unsigned received_sum, received_count;
static const char *to_send;

/* One look at IIR per interrupt, so that each byte sent needs an interrupt of its own. */
static void on_uart(void)
{
    uint8_t cause = inb(COM1 + UART_IIR) & IIR_MASK;

    if (cause == IIR_NONE) /* a time-out between two of the reads below, which have ended it since */
        return;
    if (cause == IIR_THRE) {
        transmits++;
        if (*to_send)
            outb(COM1 + UART_THR, (uint8_t)*to_send++);
        else
            outb(COM1 + UART_IER, 0);
        return;
    }
    while (inb(COM1 + UART_LSR) & LSR_DR) {
        received_sum += inb(COM1 + UART_RBR);
        received_count++;
    }
    full_fifos += cause == IIR_RDA;
    time_outs += cause == IIR_TIMEOUT;
}

/*
 * At a rate of 115200 / `divisor`, send `text` to ourselves: its bytes must arrive, and *cause must count an interrupt.
 * Any other interrupt that delivers all of them ends the wait, too.
 */
static bool loops_back(unsigned divisor, const char *text, const volatile unsigned *cause)
{
    unsigned before = *cause, sum = 0, count = 0;

    outb(COM1 + UART_LCR, LCR_8N1 | LCR_DLAB);
    outb(COM1 + UART_DLL, (uint8_t)divisor);
    outb(COM1 + UART_DLM, (uint8_t)(divisor >> 8));
    outb(COM1 + UART_LCR, LCR_8N1);
    outb(COM1 + UART_FCR, FCR_ENABLE | FCR_CLEAR | FCR_TRIGGER_4);
    received_sum = received_count = 0;
    for (; *text; text++, count++) {
        sum += (uint8_t)*text;
        outb(COM1 + UART_THR, (uint8_t)*text);
    }
    return wait_for(&received_count, count, PATIENCE) && *cause == before + 1 && received_count == count &&
           received_sum == sum;
}

/*
 * Four bytes, the trigger level. Where the host is late, four character times have passed before the handler looks, and
 * the same bytes are a time-out. Then it is given longer: 0.13 seconds at first, 8.5 in the end.
 */
static bool fifo_fills(void)
{
    unsigned divisor = BAUD_300;
    bool filled;

    do
        filled = loops_back(divisor, "kvmb", &full_fifos);
    while (!filled && received_count && (divisor *= 4) <= 0xffff);
    return filled;
}

static void prove_uart(void)
{
    static const char line[] = "ok UART: transmit-empty interrupts sent this line\n";
    bool filled, timed_out;

    outb(COM1 + UART_MCR, MCR_LOOP | MCR_OUT2);
    irq_enable(COM1_IRQ, on_uart);
    outb(COM1 + UART_IER, IER_RDA);
    filled = fifo_fills();
    timed_out = loops_back(BAUD_300, "o", &time_outs); /* one byte, then four character times of nothing */
    console_reset();

    if (!filled)
        fail("UART: receive interrupt at the FIFO's trigger level");
    ok("UART: receive interrupt at the FIFO's trigger level");
    if (!timed_out)
        fail("UART: character time-out interrupt");
    ok("UART: character time-out interrupt");

    to_send = line;
    outb(COM1 + UART_IER, IER_THRE); /* THR is empty: enabling raises the first interrupt */
    if (!wait_for(&transmits, sizeof line, PATIENCE))
        fail("UART: transmit-empty interrupts");
    irq_disable(COM1_IRQ);
}

void interrupt_proofs(void)
{
    interrupts_init();
    if (!ticks_start(5))
        fail("PIT: periodic interrupts");
    ok("PIT: periodic interrupts");
    prove_rtc();
    prove_uart();
}
