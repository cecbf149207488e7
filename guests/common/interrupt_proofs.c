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
    if (!wait_for(&periodic, 8, 2))
        fail("RTC: periodic interrupts");
    ok("RTC: periodic interrupts");

    rtc_enable(RTC_B_UIE);
    if (!wait_for(&updates, 1, 3))
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

/* Send `text` to ourselves; its bytes must arrive, and *cause must count one interrupt. */
static bool loops_back(const char *text, const volatile unsigned *cause)
{
    unsigned sum = 0, count = 0;

    received_sum = received_count = 0;
    for (; *text; text++, count++) {
        sum += (uint8_t)*text;
        outb(COM1 + UART_THR, (uint8_t)*text);
    }
    return wait_for(cause, 1, 2) && received_count == count && received_sum == sum;
}

static void prove_uart(void)
{
    static const char line[] = "ok UART: transmit-empty interrupts sent this line\n";
    const uint16_t divisor = 115200 / 300; /* slow: a late host must not turn a full FIFO into a time-out */
    bool filled, timed_out;

    outb(COM1 + UART_LCR, LCR_8N1 | LCR_DLAB);
    outb(COM1 + UART_DLL, divisor & 0xff);
    outb(COM1 + UART_DLM, divisor >> 8);
    outb(COM1 + UART_LCR, LCR_8N1);
    outb(COM1 + UART_MCR, MCR_LOOP | MCR_OUT2);
    outb(COM1 + UART_FCR, FCR_ENABLE | FCR_CLEAR | FCR_TRIGGER_4);
    irq_enable(COM1_IRQ, on_uart);
    outb(COM1 + UART_IER, IER_RDA);
    filled = loops_back("kvmb", &full_fifos); /* four bytes, the trigger level */
    timed_out = loops_back("o", &time_outs);  /* one byte, then four character times of nothing */
    console_reset();

    if (!filled)
        fail("UART: receive interrupt at the FIFO's trigger level");
    ok("UART: receive interrupt at the FIFO's trigger level");
    if (!timed_out)
        fail("UART: character time-out interrupt");
    ok("UART: character time-out interrupt");

    to_send = line;
    outb(COM1 + UART_IER, IER_THRE); /* THR is empty: enabling raises the first interrupt */
    if (!wait_for(&transmits, sizeof line, 2))
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
