/*
 * paging32: paging in 32-bit protected mode. Proves 4 KiB pages, accessed and dirty bits, page faults whose handler
 * mends the mapping and returns, write protection of the kernel, 4 MiB pages (PSE), and PAE with 2 MiB pages.
 * Needs hardware virtualization: without it 32-bit code has no paging.
 * Status 0; 3 if a proof fails, 5 on an unexpected exception.
 */
#include "common/console.h"
#include "common/guest.h"
#include "common/interrupts.h"

#define PAGE         4096u
#define ENTRIES      1024u
#define PRESENT      0x01u
#define WRITABLE     0x02u
#define ACCESSED     0x20u
#define DIRTY        0x40u
#define LARGE        0x80u /* in a directory: a page of 4 MiB, or of 2 MiB with PAE */
#define CR0_WP       0x00010000u
#define CR0_PG       0x80000000u
#define CR4_PSE      0x10u
#define CR4_PAE      0x20u
#define PAGE_FAULT   14
#define FAULT_WRITE  2u /* error code: not present is 0, a violation of a present page is 1; a write adds 2 */
#define FAULT_DENIED 3u

#define WINDOW       0x00800000u /* where the proofs map what they like: directory entry 2 */
#define PSE_WINDOW   0x00c00000u /* directory entry 3 */
#define PAE_WINDOW   0x40000000u /* page-directory-pointer entry 1 */

static uint32_t directory[ENTRIES] __attribute__((aligned(4096)));
static uint32_t identity[ENTRIES] __attribute__((aligned(4096)));
static uint32_t window[ENTRIES] __attribute__((aligned(4096)));
static uint64_t pae_directory[512] __attribute__((aligned(4096)));
static uint64_t pae_pointers[4] __attribute__((aligned(32)));
static uint32_t one[ENTRIES] __attribute__((aligned(4096)));
static uint32_t two[ENTRIES] __attribute__((aligned(4096)));

static volatile unsigned faults;
static volatile uint32_t fault_address, fault_code;

/* The handler's stub: the error code is above the eight registers, and IRET wants it gone. */
extern const char page_fault_stub[];
__asm__(".text\n"
        "page_fault_stub:\n"
        "    pushal\n"
        "    push 32(%esp)\n"
        "    cld\n"
        "    call page_fault\n"
        "    add $4, %esp\n"
        "    popal\n"
        "    add $4, %esp\n"
        "    iret\n");
void page_fault(uint32_t code);

static inline void load_cr3(const void *table)
{
    __asm__ volatile("mov %0, %%cr3" : : "r"(table) : "memory");
}

static inline void change_cr4(uint32_t set)
{
    uint32_t value;

    __asm__ volatile("mov %%cr4, %0; or %1, %0; mov %0, %%cr4" : "=&r"(value) : "r"(set) : "memory");
}

static inline void change_cr0(uint32_t clear, uint32_t set)
{
    uint32_t value;

    __asm__ volatile("mov %%cr0, %0; and %1, %0; or %2, %0; mov %0, %%cr0"
                     : "=&r"(value)
                     : "r"(~clear), "r"(set)
                     : "memory");
}

/* Not a plain access: the compiler must not reason about which object lies at a virtual address. */
static inline uint32_t load(uint32_t address)
{
    uint32_t value;

    __asm__ volatile("mov (%1), %0" : "=r"(value) : "r"(address) : "memory");
    return value;
}

static inline void store(uint32_t address, uint32_t value)
{
    __asm__ volatile("mov %0, (%1)" : : "r"(value), "r"(address) : "memory");
}

static void map(uint32_t *page, uint32_t flags)
{
    window[0] = (uintptr_t)page | flags;
    __asm__ volatile("invlpg (%0)" : : "r"(WINDOW) : "memory");
}

static void expect(bool right, const char *text)
{
    if (!right)
        fail(text);
    put_string("ok ");
    put_string(text);
    put_char('\n');
}

/* Make the page writable, whatever was wrong, and let the instruction be tried again; but only so often. */
void page_fault(uint32_t code)
{
    __asm__ volatile("mov %%cr2, %0" : "=r"(fault_address));
    fault_code = code;
    if (++faults > 2)
        fail("page faults without end");
    map(one, PRESENT | WRITABLE);
}

static void prove_small_pages(void)
{
    for (uint32_t page = 0; page < ENTRIES; page++)
        identity[page] = page * PAGE | PRESENT | WRITABLE;
    directory[0] = (uintptr_t)identity | PRESENT | WRITABLE;
    directory[WINDOW >> 22] = (uintptr_t)window | PRESENT | WRITABLE;
    map(one, PRESENT | WRITABLE);
    load_cr3(directory);
    change_cr0(0, CR0_PG);

    one[1] = 0x11111111;
    two[1] = 0x22222222;
    expect(load(WINDOW + 4) == 0x11111111, "4 KiB page: a second address for one page");
    expect((window[0] & (ACCESSED | DIRTY)) == ACCESSED, "4 KiB page: accessed, not dirty");
    store(WINDOW + 8, 0x33333333);
    expect(load((uintptr_t)&one[2]) == 0x33333333 && window[0] & DIRTY, "4 KiB page: written, dirty");
    map(two, PRESENT | WRITABLE);
    expect(load(WINDOW + 4) == 0x22222222, "4 KiB page: another page after INVLPG");
}

static void prove_faults(void)
{
    map(one, 0);
    store(WINDOW + 16, 0x44444444);
    expect(faults == 1 && fault_address == WINDOW + 16 && fault_code == FAULT_WRITE, "page fault: not present");
    expect(load((uintptr_t)&one[4]) == 0x44444444, "page fault: the instruction is tried again after IRET");

    change_cr0(0, CR0_WP);
    map(one, PRESENT);
    store(WINDOW + 20, 0x55555555);
    expect(faults == 2 && fault_address == WINDOW + 20 && fault_code == FAULT_DENIED, "page fault: write-protected");
    expect(load((uintptr_t)&one[5]) == 0x55555555, "page fault: written once it is allowed");
}

static void prove_large_pages(void)
{
    change_cr4(CR4_PSE);
    directory[PSE_WINDOW >> 22] = 0 | LARGE | PRESENT | WRITABLE;
    expect(load(PSE_WINDOW + (uintptr_t)&two[1]) == 0x22222222, "4 MiB page: all of low memory at another address");
}

static void prove_pae(void)
{
    change_cr0(CR0_PG, 0); /* the tables are of another kind */
    change_cr4(CR4_PAE);
    pae_directory[0] = 0 | LARGE | PRESENT | WRITABLE;
    pae_directory[1] = 0x200000 | LARGE | PRESENT | WRITABLE;
    pae_pointers[0] = (uintptr_t)pae_directory | PRESENT;
    pae_pointers[PAE_WINDOW >> 30] = (uintptr_t)pae_directory | PRESENT;
    load_cr3(pae_pointers);
    change_cr0(0, CR0_PG);
    expect(load(PAE_WINDOW + (uintptr_t)&two[1]) == 0x22222222, "PAE: 2 MiB pages");
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    (void)magic, (void)info;
    put_string("paging32: paging in 32-bit protected mode\n");
    interrupts_init();
    vector_set(PAGE_FAULT, page_fault_stub);
    prove_small_pages();
    prove_faults();
    prove_large_pages();
    prove_pae();
    put_string("paging32: all proven\n");
}
