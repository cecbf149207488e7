/*
 * A kernel to be debugged (tests/integration/test_run_gdb.py), for 32 and for 64 bits: -m32 makes a Multiboot
 * image. It counts to five, prints a line on the debug console, and ends with the count at the debug-exit port.
 * Before the end, with -DSPIN it spins until somebody sets `released`; with -DCRASH its exception finds no IDT;
 * with -DHALT it halts for ever; with -DINT3 it executes an INT3 of its own.
 */
typedef unsigned int u32;

#ifdef __i386__
__asm__(".section .text.boot\n"
	".long 0x1badb002, 0, -0x1badb002\n"
	".globl _start\n"
	"_start: mov $stack_end, %esp\n"
	"call main\n"
	".previous");
#else
__asm__(".section .text.boot\n"
	".globl _start\n"
	"_start: mov $stack_end, %rsp\n"
	"call main\n"
	".previous");
#endif
__asm__(".bss\n.balign 16\n.skip 8192\n.globl stack_end\nstack_end:\n.previous");

volatile int total;
volatile int limit = 5;
volatile int released;
char text[] = "counted\n";

static void out(unsigned short port, unsigned char value)
{
	__asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}

__attribute__((noinline)) int add(int number)
{
	int sum = total + number;

	total = sum;
	return sum;
}

__attribute__((noinline)) void own_int3(void)
{
	__asm__ volatile("int3");
}

void main(void)
{
	for (int number = 1; number <= limit; number++)
		add(number);
	for (char *at = text; *at; at++)
		out(0xe9, *at);
#ifdef SPIN
	while (!released)
		;
#elif defined CRASH
	static char no_idt[16];

	__asm__ volatile("lidt %0; ud2" ::"m"(no_idt));
#elif defined HALT
	__asm__ volatile("cli; hlt");
#elif defined INT3
	own_int3();
#endif
	out(0xf4, total);
	for (;;)
		__asm__ volatile("hlt");
}
