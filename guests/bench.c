/*
 * bench: what an access to a device costs. Runs the tests that --append names, TEST[=ITERATIONS][,dist] each. Prints
 *
 *     bench NAME iterations=N cycles=TOTAL                     TSC cycles of the whole loop, nothing else in it
 *     bench NAME samples=N min=C p50=C p90=C p99=C max=C       with ",dist", of single iterations in a second pass
 *
 * Other words: "list" prints the names of the tests. "hold", when all tests are done, prints "bench holding" and halts
 * for ever with interrupts on; "exit=V" writes V to the debug-exit port instead. Without a word all tests run that need
 * neither disk, network nor VGA (bench_disk.c, bench_net.c, bench_vga.c). It ends with status 0, and where there is no
 * shutdown port by debug-exit with 16 (QEMU: status 33). An unknown word is a failed proof, status 3, before any test
 * runs. An interrupt that never comes is a hang: a watchdog's own interrupts would be in the figures.
 *
 * Tests of output (thr_*, debugcon) count bytes, a multiple of 64, and print lines of 63 dots, one line more than asked
 * for; so a result is always at the start of a line. Their samples are of single bytes; those of thr_irq, of lines.
 *
 * Names are those of kvm-unit-tests' vmexit where it has the same. Other Multiboot loaders run the image as well:
 *     qemu-system-x86_64 -accel kvm -kernel bench.elf -append "inb_from_device=20000" -display none -serial stdio \
 *         -no-reboot -device isa-debug-exit,iobase=0xf4,iosize=4
 * There, nothing answers at the address of mov_from_device and mov_to_device, and debugcon needs "-debugcon stdio" or
 * the like, else these measure an access that nobody claims; and pit_read does not leave the kernel, whose PIT it is,
 * unless told otherwise ("-machine kernel-irqchip=split").
 */
#include "bench_loops.h"
#include "bench_samples.h"
#include "common/command_line.h"
#include "common/console.h"
#include "common/guest.h"
#include "common/io.h"
#ifdef __x86_64__
#include "common/user64.h"
#else
#include "bench_disk.h"
#include "bench_net.h"
#include "bench_vga.h"
#include "common/irq_wait.h"
#include "common/pic.h"
#include "common/rdtsc.h"
#endif
#include <stdbool.h>
#include <stddef.h>

#define MAX_SAMPLES    65536
#define MAX_ITERATIONS 1000000000 /* and a line more fits in 32 bits */
#define WARM_UP        16 /* iterations that are not timed: caches, and a host that creates things on first use */
#define EXIT_NO_SHUTDOWN_PORT 16

/* hlt_latency: PIT clocks of 838 ns each, about a millisecond. OUT rises that many after the write, and one at most. */
#define LATENCY_TICKS 1193

static uint32_t samples[MAX_SAMPLES];

/* --- The tests ----------------------------------------------------------------------------------------- */

struct test {
    const char *name;
    uint32_t iterations; /* where the word does not say */
    uint64_t (*run)(uint32_t iterations);
    void (*sample)(uint32_t iterations, uint32_t *into);
    uint16_t text_port;  /* where an iteration is a byte of output: run() takes whole lines */
    bool always_sampled; /* hlt_latency: run() fills samples[] */
    uint16_t batch;      /* of those that need another device: iterations of which run() makes all or none; else 0 */
};

static uint32_t unit_of(const struct test *test)
{
    return test->text_port ? LINE_LENGTH : test->batch ? test->batch : 1;
}

/* The RTC's index stays where rtc_read, or nobody, has left it. */
static uint64_t rtc_two_reads(uint32_t iterations)
{
    outb(RTC_INDEX, RTC_REGISTER);
    return bench_rtc_two_reads(iterations);
}

static void rtc_two_reads_samples(uint32_t iterations, uint32_t *into)
{
    outb(RTC_INDEX, RTC_REGISTER);
    bench_rtc_two_reads_samples(iterations, into);
}

#ifdef __i386__

static uint64_t thr_irq(uint32_t lines)
{
    uint64_t cycles;

    pic_unmask(COM1_IRQ);
    cycles = bench_thr_irq(lines);
    pic_mask(COM1_IRQ);
    return cycles;
}

/* From before the write that starts the PIT to the arrival of its interrupt; the guest in HLT. */
static uint32_t one_shot(void)
{
    uint64_t start, arrival;

    outb(PIT_CONTROL, PIT_MODE0);
    outb(PIT_COUNTER0, LATENCY_TICKS & 0xff);
    start = rdtsc();
    outb(PIT_COUNTER0, LATENCY_TICKS >> 8);
    do
        arrival = irq_wait();
    while (irq_that_came != PIT_IRQ);
    pic_end(PIT_IRQ, false);
    return (uint32_t)(arrival - start);
}

static uint64_t hlt_latency(uint32_t iterations)
{
    uint64_t cycles = 0;

    pic_unmask(PIT_IRQ);
    one_shot(); /* takes along what the 8259A may have remembered */
    for (uint32_t i = 0; i < iterations; i++) {
        uint32_t sample = one_shot();

        cycles += sample;
        if (i < MAX_SAMPLES)
            samples[i] = sample;
    }
    pic_mask(PIT_IRQ);
    return cycles;
}

#endif

#define LOOP(name)       {#name, 1000, bench_##name, bench_##name##_samples, 0, false, 0}
#define TEXT(name, port) {#name, 1024, bench_##name, bench_##name##_samples, port, false, 0}
#define IO(name, run, batch) {name, 1024, run, NULL, 0, false, batch}

static const struct test tests[] = {
    LOOP(bare),
    LOOP(rdtsc_pair),
    LOOP(inb_from_device),
    LOOP(outb_to_device),
    LOOP(inl_from_device),
    LOOP(outl_to_device),
    LOOP(insb_from_device),
    LOOP(inb_unclaimed),
    LOOP(outb_unclaimed),
    LOOP(mov_from_device),
    LOOP(mov_to_device),
    LOOP(rtc_read),
    {"rtc_two_reads", 1000, rtc_two_reads, rtc_two_reads_samples, 0, false, 0},
    LOOP(pit_read),
    LOOP(post),
    TEXT(thr_polled, COM1 + UART_THR),
    TEXT(thr_only, COM1 + UART_THR),
    TEXT(debugcon, DEBUGCON),
#ifdef __i386__
    {"thr_irq", 1024, thr_irq, NULL, COM1 + UART_THR, false, 0},
    {"hlt_latency", 20, hlt_latency, NULL, 0, true, 0},
    IO("ata_read", bench_ata_read, 1),
    IO("ata_write", bench_ata_write, 1),
    IO("virtio_read_qd1", bench_virtio_read, 1),
    IO("virtio_read_qd32", bench_virtio_batch, DISK_BATCH),
    IO("disk_sequential", bench_disk_sequential, 1),
    IO("net_round_trip", bench_net_round_trip, 1),
    IO("net_batch", bench_net_batch, NET_BATCH),
    IO("vga_frame", bench_vga_frame, 1),
    IO("vga_planar", bench_vga_planar, VGA_BATCH),
#endif
};

#define TESTS (sizeof tests / sizeof *tests)

/* --- Results -------------------------------------------------------------------------------------------- */

/* A tenth of *value, in place; returns the digit that is left. The compiler would want a library for it. */
static uint32_t take_digit(uint64_t *value)
{
    uint32_t high = (uint32_t)(*value >> 32), low = (uint32_t)*value;
    uint32_t digit = high % 10;

    high /= 10;
    __asm__("divl %2" : "+a"(low), "+d"(digit) : "r"(10));
    *value = (uint64_t)high << 32 | low;
    return digit;
}

static void put_field(const char *name, uint64_t value)
{
    char reversed[20]; /* as many digits as 2^64 has */
    unsigned length = 0;

    do
        reversed[length++] = (char)('0' + take_digit(&value));
    while (value);
    put_char(' ');
    put_string(name);
    put_char('=');
    while (length)
        put_char(reversed[--length]);
}

static void put_distribution(const char *name, uint32_t count)
{
    struct distribution found = distribution_of(samples, count);

    put_string("bench ");
    put_string(name);
    put_field("samples", count);
    put_field("min", found.min);
    put_field("p50", found.p50);
    put_field("p90", found.p90);
    put_field("p99", found.p99);
    put_field("max", found.max);
    put_char('\n');
}

/* Output of `count` sampled bytes, in lines of the usual length. */
static void sample_text(const struct test *test, uint32_t count)
{
    for (uint32_t done = 0; done < count;) {
        uint32_t dots = count - done < LINE_LENGTH - 1 ? count - done : LINE_LENGTH - 1;

        test->sample(dots, samples + done);
        outb(test->text_port, '\n');
        done += dots;
    }
    if (test->text_port == DEBUGCON)
        inb(DEBUGCON); /* see bench_loops.S */
}

/* Without a sampling loop of its own, a sample is a unit: of thr_irq, a line. */
static uint32_t take_samples(const struct test *test, uint32_t iterations)
{
    uint32_t count = iterations < MAX_SAMPLES ? iterations : MAX_SAMPLES;

    if (test->always_sampled)
        return count;
    if (!test->sample) {
        count = (iterations + unit_of(test) - 1) / unit_of(test);
        count = count < MAX_SAMPLES ? count : MAX_SAMPLES;
        for (uint32_t i = 0; i < count; i++)
            samples[i] = (uint32_t)test->run(1);
    } else if (test->text_port) {
        sample_text(test, count);
    } else {
        test->sample(count, samples);
    }
    return count;
}

/* Silences the timer that a firmware may have left running, and gives pit_read something to read. A guest that does
 * nothing leaves it alone: it shows what a virtual machine costs by itself.
 */
static void quiet_pit(void)
{
    outb(PIT_CONTROL, PIT_MODE0);
    outb(PIT_COUNTER0, 0);
    outb(PIT_COUNTER0, 0);
}

static void run_test(const struct test *test, uint32_t iterations, bool distribution)
{
    uint32_t unit = unit_of(test);
    uint32_t rounds = (iterations + unit - 1) / unit;
    uint64_t cycles;

    if (test->run != bench_bare)
        quiet_pit();
    if (!test->always_sampled)
        test->run(unit > 1 ? 1 : WARM_UP);
    cycles = test->run(rounds);
    put_string("bench ");
    put_string(test->name);
    put_field("iterations", rounds * unit);
    put_field("cycles", cycles);
    if (test->always_sampled)
        put_field("ticks", LATENCY_TICKS);
    put_char('\n');
    if (distribution || test->always_sampled)
        put_distribution(test->name, take_samples(test, iterations));
}

/* --- The command line ----------------------------------------------------------------------------------- */

struct word {
    enum { WORD_TEST, WORD_LIST, WORD_HOLD, WORD_EXIT } kind;
    const struct test *test;
    uint32_t value; /* iterations, or what to write to the debug-exit port */
    bool distribution;
};

/* Behind `expected`, where `text` begins with it; else NULL. */
static const char *behind(const char *text, const char *expected)
{
    while (*expected)
        if (*text++ != *expected++)
            return NULL;
    return text;
}

static bool is_end(char c)
{
    return c == ' ' || c == '\0';
}

/* Behind the decimal number at `text`; NULL where there is none, or one above `limit`. */
static const char *parse_number(const char *text, uint32_t limit, uint32_t *value)
{
    const char *start = text;

    for (*value = 0; *text >= '0' && *text <= '9'; text++) {
        uint32_t digit = (uint32_t)(*text - '0');

        if (*value > (limit - digit) / 10)
            return NULL;
        *value = *value * 10 + digit;
    }
    return text == start ? NULL : text;
}

/* What follows the name of a test: [=ITERATIONS][,dist]. */
static bool parse_test(const char *text, const struct test *test, struct word *word)
{
    const char *rest;

    *word = (struct word){WORD_TEST, test, test->iterations, false};
    if (*text == '=') {
        text = parse_number(text + 1, MAX_ITERATIONS, &word->value);
        if (!text || !word->value)
            return false;
    }
    rest = behind(text, ",dist");
    if (rest) {
        word->distribution = true;
        text = rest;
    }
    return is_end(*text);
}

static bool parse_word(const char *text, struct word *word)
{
    const char *rest;

    *word = (struct word){0};
    if ((rest = behind(text, "list")) && is_end(*rest)) {
        word->kind = WORD_LIST;
        return true;
    }
    if ((rest = behind(text, "hold")) && is_end(*rest)) {
        word->kind = WORD_HOLD;
        return true;
    }
    if ((rest = behind(text, "exit="))) {
        word->kind = WORD_EXIT;
        rest = parse_number(rest, 255, &word->value);
        return rest && is_end(*rest);
    }
    for (unsigned i = 0; i < TESTS; i++)
        if ((rest = behind(text, tests[i].name)) && parse_test(rest, &tests[i], word))
            return true;
    return false;
}

/* The next word, or the empty string at the end. */
static const char *skip_word(const char *text)
{
    while (!is_end(*text))
        text++;
    while (*text == ' ')
        text++;
    return text;
}

static void check_words(const char *text)
{
    struct word word;

    for (; *text; text = skip_word(text)) {
        if (parse_word(text, &word))
            continue;
        put_string("not ok bench: unknown word ");
        while (!is_end(*text))
            put_char(*text++);
        put_char('\n');
        debug_exit(EXIT_PROOF_FAILED);
    }
}

/* --- The run -------------------------------------------------------------------------------------------- */

#ifdef __i386__

static void prepare(void)
{
    irq_wait_init();
}

static _Noreturn void hold(void)
{
    put_string("bench holding\n");
    for (;;)
        irq_wait(); /* every line is masked */
}

#else

static void prepare(void)
{
    enter_user_mode();
}

static _Noreturn void hold(void)
{
    fail("bench: cannot hold at privilege level 3");
}

#endif

static void run_words(const char *text)
{
    struct word word, end = {.kind = WORD_TEST};

    for (; *text; text = skip_word(text)) {
        parse_word(text, &word);
        switch (word.kind) {
        case WORD_TEST:
            run_test(word.test, word.value, word.distribution);
            break;
        case WORD_LIST:
            for (unsigned i = 0; i < TESTS; i++) {
                put_string(tests[i].name);
                put_char('\n');
            }
            break;
        case WORD_HOLD:
        case WORD_EXIT:
            end = word;
        }
    }
    if (end.kind == WORD_HOLD)
        hold();
    if (end.kind == WORD_EXIT)
        debug_exit((uint8_t)end.value);
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    const char *words = "";

    (void)magic;
    console_reset();
    prepare();
    if (info->flags & MULTIBOOT_INFO_CMDLINE)
        words = skip_word(physical(info->cmdline));
    check_words(words);
    if (*words)
        run_words(words);
    else
        for (unsigned i = 0; i < TESTS; i++)
            if (!tests[i].batch)
                run_test(&tests[i], tests[i].iterations, false);
    for (const char *letter = "Shutdown"; *letter; letter++)
        outb(SHUTDOWN, (uint8_t)*letter);
    debug_exit(EXIT_NO_SHUTDOWN_PORT);
}
