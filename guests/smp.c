/*
 * smp: several CPUs. The first one starts the others by INIT and start-up IPIs (Intel SDM volume 3, "MP
 * Initialization Protocol"). Proves that CPUID says the same on every CPU but for its own id, that locked counting
 * loses nothing, that each CPU gets inter-processor interrupts and can send one, and that no CPU's TSC is behind
 * that of another. Status 0; 3 if a proof fails. `--append end=WORD` chooses another end, by the last CPU: `fault` is
 * a triple fault, `exit` writes its number to the debug-exit port, `reset` resets the machine once; `halt` leaves all
 * CPUs in HLT with interrupts off, and `spin` has them loop for ever.
 */
#include "common/console.h"
#include "common/guest.h"
#include "common/interrupts.h"
#include "common/io.h"
#include "common/rtc.h"
#include <stddef.h>

#define MOST_CPUS    32
#define STACK_SIZE   4096
#define TRAMPOLINE   0x10000 /* a page below 1 MiB, clear of what kvmbox writes there */
#define IPI_VECTOR   0x2e    /* within the IDT of interrupts.c; that of IRQ 14, which stays masked */

#define APIC_BASE    0xfee00000ul
#define APIC_ID      0x020
#define APIC_EOI     0x0b0
#define APIC_SVR     0x0f0
#define APIC_ICR     0x300
#define APIC_ICR_TO  0x310
#define SVR_ENABLE   0x1ff
#define ICR_FIXED    0x0c004000u
#define ICR_INIT     0x00004500u
#define ICR_STARTUP  0x00004600u
#define ICR_ASSERT   0x00004000u
#define ICR_PENDING  0x00001000u

#define COUNTS       200 /* per CPU */
#define TSC_ROUNDS   100 /* per CPU */
#define PATIENCE     20000000000ull /* TSC cycles: the host may run the other CPUs much later */
#define ROUNDS       4000000u       /* before a look at the TSC */

#define BOOT_COUNT   0x40 /* a byte of CMOS RAM, which a reset keeps */

enum ending { NORMAL, FAULT, EXIT, RESET, SPIN, HALT };

struct smp_boot {
    uint32_t cr3, entry;
    uint16_t code_selector, gdt_limit;
    uint32_t gdt_base;
} __attribute__((packed));

struct table {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

struct ids {
    uint32_t initial, count, x2apic, level_count, shift, cores;
};

extern const char smp_trampoline[], smp_trampoline_end[], smp_boot[], smp_entry64[], smp_ipi_stub[];
void smp_entered(void);
void smp_ipi(void);

uint32_t smp_data_selector;
uint64_t smp_stack; /* of the CPU that is being started */

static char stacks[MOST_CPUS][STACK_SIZE] __attribute__((aligned(16)));
static struct table idtr;
static struct ids ids[MOST_CPUS];
static unsigned cpus, lock;
static volatile unsigned entered, phase, finished, counter, ipis[MOST_CPUS];
static volatile enum ending ending;
static volatile uint64_t latest_tsc, largest_step_back;

static uint32_t apic_read(unsigned offset)
{
    return *(volatile uint32_t *)(APIC_BASE + offset);
}

static void apic_write(unsigned offset, uint32_t value)
{
    *(volatile uint32_t *)(APIC_BASE + offset) = value;
}

static unsigned own_id(void)
{
    return apic_read(APIC_ID) >> 24;
}

/* One CPU at a time, so that the next command does not overtake this one. */
static void send(unsigned cpu, uint32_t command)
{
    apic_write(APIC_ICR_TO, cpu << 24);
    apic_write(APIC_ICR, command);
    while (apic_read(APIC_ICR) & ICR_PENDING)
        ;
}

static void pause(void)
{
    __asm__ volatile("pause" : : : "memory");
}

static void acquire(void)
{
    unsigned was;

    do {
        was = 1;
        __asm__ volatile("xchg %0, %1" : "+r"(was), "+m"(lock) : : "memory");
        if (was)
            pause();
    } while (was);
}

static void release(void)
{
    __asm__ volatile("movl $0, %0" : "=m"(lock) : : "memory");
}

static void increment(volatile unsigned *value)
{
    __asm__ volatile("lock incl %0" : "+m"(*value) : : "memory");
}

static void cpuid(uint32_t leaf, uint32_t index, uint32_t words[4])
{
    words[0] = leaf;
    words[2] = index;
    __asm__("cpuid" : "+a"(words[0]), "=b"(words[1]), "+c"(words[2]), "=d"(words[3]));
}

/* What CPUID says of this CPU and of its neighbours; a leaf that is not there counts as one that agrees. */
static void read_ids(struct ids *found)
{
    uint32_t words[4], highest;

    cpuid(0, 0, words);
    highest = words[0];
    cpuid(1, 0, words);
    found->initial = words[1] >> 24;
    found->count = words[3] >> 28 & 1 ? words[1] >> 16 & 0xff : 1;
    found->x2apic = found->initial;
    found->level_count = found->count;
    found->shift = 32;
    found->cores = 0;
    if (highest >= 0xb) {
        cpuid(0xb, 1, words);
        found->x2apic = words[3];
        found->level_count = words[1] & 0xffff;
        found->shift = words[0] & 0x1f;
    }
    if (highest >= 4) {
        cpuid(4, 0, words);
        found->cores = words[0] & 0x1f ? (words[0] >> 26) + 1 : 0;
    }
}

static uint64_t timestamp(void)
{
    uint32_t low, high;

    __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

static bool wait_until(const volatile unsigned *value, unsigned goal)
{
    uint64_t began = timestamp();

    for (unsigned rounds = 0; *value < goal; rounds++) {
        if (rounds > ROUNDS && timestamp() - began > PATIENCE)
            return false;
        pause();
    }
    return true;
}

static void count_and_compare(void)
{
    for (unsigned i = 0; i < COUNTS; i++)
        increment(&counter);
    for (unsigned i = 0; i < TSC_ROUNDS; i++) {
        uint64_t now;

        acquire();
        now = timestamp();
        if (now < latest_tsc && latest_tsc - now > largest_step_back)
            largest_step_back = latest_tsc - now;
        latest_tsc = now;
        release();
    }
    acquire();
    put_string("a line of one CPU\n");
    release();
    increment(&finished);
}

void smp_ipi(void)
{
    unsigned me = own_id();

    apic_write(APIC_EOI, 0);
    increment(&ipis[me]);
}

static void end(void)
{
    static const struct table none;

    switch (ending) {
    case FAULT:
        __asm__ volatile("lidt %0; ud2" : : "m"(none));
        break;
    case EXIT:
        debug_exit((uint8_t)own_id());
    case RESET:
        outb(I8042_COMMAND, I8042_RESET);
        break;
    case SPIN:
        for (;;)
            pause();
    case HALT:
    case NORMAL:
        break;
    }
    halt();
}

void smp_entered(void)
{
    unsigned me;

    apic_write(APIC_SVR, SVR_ENABLE);
    me = own_id();
    if (me >= MOST_CPUS)
        fail("APIC id: too high");
    read_ids(&ids[me]);
    __asm__ volatile("lidt %0" : : "m"(idtr));
    increment(&entered);
    while (phase < 1) /* asleep, so that the CPU that starts the others has the host's CPUs for itself */
        wait_for_interrupt();
    count_and_compare();
    while (ipis[me] < 2)
        wait_for_interrupt();
    send(0, ICR_ASSERT | IPI_VECTOR);
    while (phase < 2)
        wait_for_interrupt();
    if (me == cpus - 1 || ending == SPIN)
        end();
}

static void start(unsigned cpu)
{
    smp_stack = (uintptr_t)stacks[cpu] + STACK_SIZE;
    send(cpu, ICR_INIT);
    for (unsigned i = 0; i < 16; i++) /* a delay; the ICR is asked before each command */
        inb(POST);
    for (unsigned tries = 0; tries < 2; tries++) {
        send(cpu, ICR_STARTUP | TRAMPOLINE >> 12);
        for (unsigned i = 0; i < 16; i++)
            inb(POST);
    }
    if (!wait_until(&entered, cpu))
        fail("start: a CPU does not come");
}

/* Wake the other CPUs for a phase. */
static void begin(unsigned next)
{
    phase = next;
    for (unsigned cpu = 1; cpu < cpus; cpu++)
        send(cpu, ICR_ASSERT | IPI_VECTOR);
}

static void prepare_trampoline(void)
{
    struct smp_boot *boot = (struct smp_boot *)(TRAMPOLINE + (smp_boot - smp_trampoline));
    const size_t size = (size_t)(smp_trampoline_end - smp_trampoline);
    struct table gdtr;
    uint64_t cr3;
    uint16_t code, data;
    volatile char *to = (volatile char *)TRAMPOLINE;

    for (size_t i = 0; i < size; i++)
        to[i] = smp_trampoline[i];
    __asm__ volatile("mov %%cr3, %0" : "=r"(cr3));
    __asm__("mov %%cs, %0" : "=r"(code));
    __asm__("mov %%ss, %0" : "=r"(data));
    __asm__ volatile("sgdt %0" : "=m"(gdtr));
    __asm__ volatile("sidt %0" : "=m"(idtr));
    smp_data_selector = data;
    *boot = (struct smp_boot){(uint32_t)cr3, (uint32_t)(uintptr_t)smp_entry64, code, gdtr.limit, (uint32_t)gdtr.base};
}

static void expect(bool right, const char *text)
{
    if (!right)
        fail(text);
    put_string("ok ");
    put_string(text);
    put_char('\n');
}

static bool ids_agree(void)
{
    for (unsigned cpu = 0; cpu < cpus; cpu++) {
        const struct ids *found = &ids[cpu];

        if (found->initial != cpu || found->x2apic != cpu || found->count != cpus || found->level_count != cpus)
            return false;
        if (found->shift < 32 && cpus > 1u << found->shift)
            return false;
        if (found->cores && (found->cores < cpus || found->cores >= 2 * cpus))
            return false;
    }
    return true;
}

/* The end that `end=WORD` of the command line chooses. */
static enum ending ending_of(const char *line)
{
    static const char key[] = " end=";
    static const struct {
        char letter;
        enum ending ending;
    } words[] = {{'f', FAULT}, {'e', EXIT}, {'r', RESET}, {'s', SPIN}, {'h', HALT}};

    for (; *line; line++) {
        unsigned i = 0;

        while (key[i] && line[i] == key[i])
            i++;
        for (unsigned word = 0; !key[i] && word < sizeof words / sizeof *words; word++) {
            if (line[i] == words[word].letter)
                return words[word].ending;
        }
    }
    return NORMAL;
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    bool all_have_another_ipi = true;

    (void)magic;
    interrupts_init();
    vector_set(IPI_VECTOR, smp_ipi_stub);
    apic_write(APIC_SVR, SVR_ENABLE);
    read_ids(&ids[0]);
    cpus = ids[0].count;
    put_string("smp: CPUs ");
    put_decimal(cpus, 1);
    put_char('\n');
    if (cpus > MOST_CPUS)
        fail("CPUID: more CPUs than there can be");
    prepare_trampoline();
    for (unsigned cpu = 1; cpu < cpus; cpu++)
        start(cpu);
    expect(entered == cpus - 1, "start: every CPU came, one after the other");
    expect(ids_agree(), "CPUID: each CPU has its own id, and all know of the same CPUs");
    begin(1);
    count_and_compare();
    expect(wait_until(&finished, cpus), "lock: no CPU waits for ever");
    expect(counter == cpus * COUNTS, "lock: nothing is lost where all CPUs count");
    expect(!largest_step_back, "TSC: no CPU is behind another one");
    for (unsigned cpu = 1; cpu < cpus; cpu++)
        send(cpu, ICR_ASSERT | IPI_VECTOR);
    __asm__ volatile("sti" : : : "memory");
    expect(cpus == 1 || wait_until(&ipis[0], 1), "IPI: an interrupt of another CPU arrives");
    for (unsigned cpu = 1; cpu < cpus; cpu++) /* the first one let it begin to count */
        all_have_another_ipi &= wait_until(&ipis[cpu], 2);
    __asm__ volatile("cli" : : : "memory");
    expect(all_have_another_ipi, "IPI: every other CPU has had one");
    put_string("smp: all proven\n");
    ending = ending_of((const char *)(uintptr_t)info->cmdline);
    if (ending == RESET && rtc_read(BOOT_COUNT)) {
        put_string("smp: that was the second boot\n");
        ending = NORMAL;
    }
    if (ending == NORMAL)
        return;
    rtc_write(BOOT_COUNT, 1);
    begin(2);
    if (cpus == 1 || ending == SPIN)
        end();
    halt();
}
