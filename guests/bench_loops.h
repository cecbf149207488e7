/*
 * The timed loops of bench, in assembly, so that an iteration is the same instructions whatever the compiler: where
 * ring 0 is emulated, each one costs about half a microsecond. bench_loops.S says how many there are.
 *
 * bench_NAME runs its body `iterations` times and returns the TSC cycles of them all. bench_NAME_samples stores
 * the cycles of each body (of less than 2^32 cycles), every one of them with four instructions of its own.
 */
#ifndef GUESTS_BENCH_LOOPS_H
#define GUESTS_BENCH_LOOPS_H

#define LINE_LENGTH 64 /* of output: dots and a line feed; four FIFOs full */

#define PORT_UNCLAIMED 0x250 /* nothing is there, in kvmbox and in QEMU's PCs */

/*
 * inl and outl: the UART's registers 4 to 7, MCR to SCR, which take a byte each: the host makes four of one access.
 * MCR gets what console_reset gave it; LSR and MSR are not changed by a write.
 */
#define PORT_LONG  (COM1 + UART_MCR)
#define VALUE_LONG (0x5a000000 | MCR_DTR | MCR_RTS | MCR_OUT2)

/* Bytes that one string instruction reads. */
#define STRING_LENGTH 64

/* What the RTC is asked for: the seconds, since guests read the time. */
#define RTC_REGISTER RTC_SECONDS

#ifndef __ASSEMBLER__
#include <stdint.h>

#define DECLARE_LOOP(name)                       \
    uint64_t bench_##name(uint32_t iterations); \
    void bench_##name##_samples(uint32_t iterations, uint32_t *samples)

DECLARE_LOOP(bare);
DECLARE_LOOP(rdtsc_pair);
DECLARE_LOOP(inb_from_device);
DECLARE_LOOP(outb_to_device);
DECLARE_LOOP(inl_from_device);
DECLARE_LOOP(outl_to_device);
DECLARE_LOOP(insb_from_device);
DECLARE_LOOP(inb_unclaimed);
DECLARE_LOOP(outb_unclaimed);
DECLARE_LOOP(mov_from_device);
DECLARE_LOOP(mov_to_device);
DECLARE_LOOP(rtc_read);
DECLARE_LOOP(rtc_two_reads);
DECLARE_LOOP(pit_read);
DECLARE_LOOP(post);

/* Output: the first function takes whole lines, the second bytes (dots only, without a line feed). */
DECLARE_LOOP(thr_polled);
DECLARE_LOOP(thr_only);
DECLARE_LOOP(debugcon);

/* 32-bit only. Sends `lines` from THRE interrupts, a FIFO at a time, in HLT between. Needs irq_wait_init and IRQ 4. */
uint64_t bench_thr_irq(uint32_t lines);

#undef DECLARE_LOOP
#endif
#endif
