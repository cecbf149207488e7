/*
 * Kernels that crash, one for each CAUSE: what the report of kvmbox must say of them is in
 * tests/integration/test_run_explained.py. Long mode, as an ELF64 entry gets it: an identity map, no IDT.
 */
typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned short u16;

static volatile u64 sink;

struct gate {
	u16 low, selector, flags, middle;
	u32 high, zero;
} __attribute__((packed));

static struct gate idt[32] __attribute__((aligned(16)));
static u64 table[512] __attribute__((aligned(4096)));
static char stack[16384] __attribute__((aligned(4096)));

__attribute__((unused)) static void handler(void)
{
	for (;;)
		sink++;
}

/* A gate for each exception, with these flags and this selector. */
__attribute__((unused)) static void set_idt(u16 flags, u16 selector)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) pointer = { sizeof(idt) - 1, (u64)idt };

	for (int vector = 0; vector < 32; vector++) {
		u64 target = (u64)handler;
		idt[vector] = (struct gate){ target, selector, flags, target >> 16, target >> 32, 0 };
	}
	__asm__ volatile("lidt %0" ::"m"(pointer));
}

/* Map the 2 MiB around `address` by pages of 4 KiB; returns the entry of its page. */
__attribute__((unused)) static u64 *page_entry(u64 address)
{
	u64 *entries, cr3;

	__asm__ volatile("mov %%cr3, %0" : "=r"(cr3));
	entries = (u64 *)(cr3 & ~0xfffUL);
	entries = (u64 *)(entries[address >> 39 & 511] & ~0xfffUL);
	entries = (u64 *)(entries[address >> 30 & 511] & ~0xfffUL);
	for (u64 page = 0; page < 512; page++)
		table[page] = (address & ~0x1fffffUL) + page * 4096 + 7;
	entries[address >> 21 & 511] = (u64)table + 7;
	__asm__ volatile("mov %0, %%cr3" ::"r"(cr3) : "memory");
	return &table[address >> 12 & 511];
}

__attribute__((unused)) static void flush(void)
{
	u64 cr3;

	__asm__ volatile("mov %%cr3, %0; mov %0, %%cr3" : "=r"(cr3)::"memory");
}

__attribute__((unused, noinline)) static void dereference(volatile int *pointer)
{
	*pointer = 42;
	sink++;
}

__attribute__((unused, noinline)) static void recurse(int depth)
{
	volatile char room[64];

	room[0] = depth;
	recurse(depth + 1);
	sink += room[0];
}

__attribute__((unused, noinline)) static void smash(void)
{
	u64 *frame = __builtin_frame_address(0);

	frame[1] = ADDRESS;
	sink++;
}

__attribute__((unused, noinline)) static void call(void (*function)(void))
{
	function();
	sink++;
}

__attribute__((unused, noinline)) static void spin_lock(volatile int *lock)
{
	while (*lock)
		;
}

static void cause(void)
{
#if CAUSE == 1 /* no IDT */
	__asm__ volatile("ud2");
#elif CAUSE == 2 /* an entry that is not present */
	set_idt(0x0e00, 0x18);
	__asm__ volatile("ud2");
#elif CAUSE == 3 /* a selector outside the GDT */
	set_idt(0x8e00, 0x1230);
	__asm__ volatile("ud2");
#elif CAUSE == 4 /* a stack that is not mapped */
	__asm__ volatile("mov %0, %%rsp; push %%rax" ::"r"(0x700000001000UL));
#elif CAUSE == 5 /* overflow into a guard page */
	*page_entry((u64)stack) = 0;
	flush();
	set_idt(0x8e00, 0x18);
	__asm__ volatile("mov %0, %%rsp; xor %%edi, %%edi; call recurse" ::"r"(stack + sizeof(stack)));
#elif CAUSE == 6 /* a call of a null pointer */
	*page_entry(0) = 0;
	flush();
	call(0);
#elif CAUSE == 7 /* a return address that is no address */
	smash();
#elif CAUSE == 8 /* endless recursion, without a guard */
	recurse(0);
#elif CAUSE == 9 /* a page that is not executable */
	__asm__ volatile("mov $0xc0000080, %%ecx; rdmsr; or $0x800, %%eax; wrmsr" ::: "eax", "ecx", "edx");
	*page_entry((u64)stack) |= 1UL << 63;
	flush();
	call((void (*)(void))stack);
#elif CAUSE == 10 /* a null pointer */
	*page_entry(0) = 0;
	flush();
	dereference(0);
#elif CAUSE == 11 /* division by zero */
	__asm__ volatile("xor %%ecx, %%ecx; div %%ecx" ::: "eax", "ecx", "edx");
#elif CAUSE == 12 /* a read-only page */
	*page_entry((u64)stack) &= ~2UL;
	flush();
	__asm__ volatile("mov %%cr0, %%rax; or $0x10000, %%rax; mov %%rax, %%cr0" ::: "rax");
	dereference((int *)stack);
#elif CAUSE == 14 /* a lock that nobody gives back */
	static volatile int lock = 1;

	spin_lock(&lock);
#elif CAUSE == 15 /* a call of a null pointer, where page 0 is mapped */
	call(0);
#endif
}

void _start(void)
{
	cause();
#if CAUSE != 16 /* the entry function returns */
	handler();
#endif
}
