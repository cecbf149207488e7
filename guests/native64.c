/*
 * native64: instructions that a processor executes in ring 0 and KVM's instruction emulator does not. Proves SSE2
 * arithmetic, x87, POPCNT, CMPXCHG16B, and INT3 as a breakpoint exception whose handler returns.
 * Needs hardware virtualization. Status 0; 3 if a proof fails, 5 on an unexpected exception.
 */
#include "common/console.h"
#include "common/guest.h"
#include "common/interrupts.h"

#define CR0_MP         0x02ul
#define CR0_EM         0x04ul
#define CR0_TS         0x08ul
#define CR4_OSFXSR     0x200ul
#define CR4_OSXMMEXCPT 0x400ul
#define CPUID_CX16     (1u << 13) /* leaf 1, ECX */
#define CPUID_POPCNT   (1u << 23)
#define BREAKPOINT     3

/* Doubles as the processor has them in memory: the compiler is told to use general registers only. */
#define DOUBLE_1_5     0x3ff8000000000000ul
#define DOUBLE_MINUS_2 0xc000000000000000ul
#define DOUBLE_0_25    0x3fd0000000000000ul
#define DOUBLE_4_5     0x4012000000000000ul
#define DOUBLE_1_75    0x3ffc000000000000ul
#define DOUBLE_2_5     0x4004000000000000ul
#define DOUBLE_3_0625  0x4008800000000000ul
#define DOUBLE_6_25    0x4019000000000000ul

struct pair {
    uint64_t low, high;
} __attribute__((aligned(16)));

static volatile unsigned breakpoints;
static volatile uint64_t breakpoint_rip;

/* The address behind the INT3 is on top of the stack, below what is pushed here. */
extern const char breakpoint_stub[];
__asm__(".text\n"
        "breakpoint_stub:\n"
        "    push %rax\n"
        "    mov 8(%rsp), %rax\n"
        "    mov %rax, breakpoint_rip(%rip)\n"
        "    incl breakpoints(%rip)\n"
        "    pop %rax\n"
        "    iretq\n");

static void expect(bool right, const char *text)
{
    if (!right)
        fail(text);
    put_string("ok ");
    put_string(text);
    put_char('\n');
}

static uint32_t features(void)
{
    uint32_t eax = 1, ebx, ecx = 0, edx;

    __asm__("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    return ecx;
}

static void enable_floating_point(void)
{
    uint64_t cr0, cr4;

    __asm__ volatile("mov %%cr0, %0" : "=r"(cr0));
    cr0 = (cr0 & ~(CR0_EM | CR0_TS)) | CR0_MP;
    __asm__ volatile("mov %0, %%cr0" : : "r"(cr0) : "memory");
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4) : "memory");
}

static void prove_sse2(void)
{
    struct pair left = {DOUBLE_1_5, DOUBLE_MINUS_2}, right = {DOUBLE_0_25, DOUBLE_4_5}, sum, square;

    __asm__ volatile("movapd %2, %%xmm0; addpd %3, %%xmm0; movapd %%xmm0, %0;"
                     "mulpd %%xmm0, %%xmm0; movapd %%xmm0, %1"
                     : "=m"(sum), "=m"(square)
                     : "m"(left), "m"(right));
    expect(sum.low == DOUBLE_1_75 && sum.high == DOUBLE_2_5, "SSE2: ADDPD");
    expect(square.low == DOUBLE_3_0625 && square.high == DOUBLE_6_25, "SSE2: MULPD");
}

static void prove_x87(void)
{
    int32_t seven = 7, five = 5, product = 0;

    __asm__ volatile("fninit; fildl %1; fildl %2; fmulp; fistpl %0" : "=m"(product) : "m"(seven), "m"(five));
    expect(product == 35, "x87: FMULP");
}

static void prove_popcnt(void)
{
    uint64_t ones = 0;

    if (features() & CPUID_POPCNT)
        __asm__("popcnt %1, %0" : "=r"(ones) : "r"(0xf0f0000000000001ul) : "cc");
    else
        ones = 9;
    expect(ones == 9, "POPCNT, where CPUID has it");
}

static void prove_cmpxchg16b(void)
{
    struct pair memory = {1, 2};
    bool equal = true;
    uint64_t low = 1, high = 2;

    if (features() & CPUID_CX16)
        __asm__ volatile("lock cmpxchg16b %0; sete %1"
                         : "+m"(memory), "=r"(equal), "+a"(low), "+d"(high)
                         : "b"(3ul), "c"(4ul)
                         : "cc");
    else
        memory = (struct pair){3, 4};
    expect(equal && memory.low == 3 && memory.high == 4, "CMPXCHG16B, where CPUID has it");
}

static void prove_int3(void)
{
    uint64_t behind;

    vector_set(BREAKPOINT, breakpoint_stub);
    __asm__ volatile("lea 1f(%%rip), %0; int3; 1:" : "=r"(behind) : : "memory");
    expect(breakpoints == 1 && breakpoint_rip == behind, "INT3: a breakpoint exception, and back");
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    (void)magic, (void)info;
    put_string("native64: what ring 0 of a processor executes\n");
    interrupts_init();
    enable_floating_point();
    prove_sse2();
    prove_x87();
    prove_popcnt();
    prove_cmpxchg16b();
    prove_int3();
    put_string("native64: all proven\n");
}
